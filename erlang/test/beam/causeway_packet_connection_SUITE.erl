%% @doc Packet connections: the bytes of cs.packetstream, handlers and their results, many requests in any order.
-module(causeway_packet_connection_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-define(CONNECTION, causeway_packet_connection).
-define(CT, connection_ct).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [bytes_of_requests, bytes_of_responses, results_of_handlers, results_that_are_none, channels_on_the_wire, refusals,
     tags_are_used_once, tag_in_use, finished_tag_again, stray_responses, any_order, both_ways, slow_handler_stops_nobody,
     workers_are_limited, handler_in_the_connection, handler_is_killed, module_handler, module_with_from, module_init_fails,
     reply_later, reply_twice, requests_inside_of_requests, channels, large_payloads, iodata, pieces, many_callers,
     send_requests, check_response, names, wrong_arguments, wrong_options, info_counts, status_is_readable].

init_per_suite(Config) -> ?CT:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_testcase(_Case, Config) -> Config.

end_per_testcase(_Case, _Config) -> ?assertEqual([], causeway_ct:mailbox()).

%% Bytes

bytes_of_requests(_Config) ->
    {Connection, Peer} = ?CT:with_peer(),
    ok = ?CONNECTION:open_channel(Connection, 5, undefined),
    ok = ?CONNECTION:open_channel(Connection, 257, undefined),
    Cases = [{0, <<"abc">>, #{}, "06 01 02 01 616263"},
             {5, <<>>, #{flags => 16#11}, "03 02 46 06"},
             {1, <<2, 3>>, #{flags => 16#55}, "06 03 8256 02 0203"},
             {0, <<>>, #{flags => 31}, "03 04 7e 01"},
             {0, <<>>, #{flags => 32}, "04 05 8102 01"},
             {0, <<"q">>, #{flags => 65536}, "06 06 908002 01 71"},
             {1, "abc", #{channel => 5}, "07 07 03 05 02 616263"},
             {200, <<"123">>, #{channel => 257, flags => 137}, "0a 08 8427 8201 8149 313233"}],
    [begin
         Id = ?CONNECTION:send_request(Connection, Type, Payload, Options),
         ok = ?CT:hear(Peer, Text),
         ok = ?CONNECTION:cancel(Id)
     end || {Type, Payload, Options, Text} <- Cases],
    ok = ?CONNECTION:close(Connection),
    ok = ?CT:hear(Peer, "03 00 02 00"),
    ok = ?CT:hear_end(Peer).

bytes_of_responses(_Config) ->
    {Connection, Peer} = ?CT:with_peer(),
    ok = ?CONNECTION:open_channel(Connection, 5, undefined),
    Cases = [{#{}, "02 01 04", {ok, 0, <<>>}},
             {#{}, "02 02 00", {failed, 0, <<>>}},
             {#{}, "05 03 810c 0302", {ok, 16#11, <<3, 2>>}},
             {#{channel => 5}, "08 04 05 05 68656c6c6f", {ok, 0, <<"hello">>}},
             {#{}, "14 05 00 6e6f20726571756573742068616e646c6572", {failed, 0, <<"no request handler">>}},
             {#{}, "1a 06 00 657863657074696f6e20647572696e672068616e646c6572", {failed, 0, <<"exception during handler">>}},
             %% Flags of a failure: 4 on the wire with the kind of packet, 2 of the failure.
             {#{}, "03 07 10 61", {failed, 2, <<"a">>}}],
    [begin
         Id = ?CONNECTION:send_request(Connection, 0, <<>>, Options),
         ok = ?CT:say(Peer, Text),
         ?assertEqual(Result, ?CONNECTION:receive_response(Id, 10000))
     end || {Options, Text, Result} <- Cases],
    ?assertMatch(#{outstanding := 0, responses := 7}, ?CONNECTION:info(Connection)),
    ok = ?CONNECTION:close(Connection).

%% What a handler returns, for the request of a tag.
results_of_handlers(_Config) ->
    Cases = [{ok, "02 01 04"},
             {16#11, "03 02 810c"},
             {<<"abc">>, "05 03 04 616263"},
             {"text", "06 04 04 74657874"},
             {[<<"a">>, ["b"]], "04 05 04 6162"},
             {{16#11, <<3, 2>>}, "05 06 810c 0302"},
             {{ok, <<"x">>}, "03 07 04 78"},
             {{ok, 1, []}, "02 08 0c"},
             {{failed, <<"no">>}, "04 09 00 6e6f"},
             {{failed, 1, "no"}, "04 0a 08 6e6f"},
             {0, "02 0b 04"}],
    {Connection, Peer} = ?CT:with_peer(#{handler => fun(Type, 0, <<>>) -> element(1, lists:nth(Type, Cases)) end}),
    [begin
         ok = ?CT:say(Peer, <<3, Tag, 2, (Tag + 1)>>),
         ok = ?CT:hear(Peer, Text)
     end || {Tag, {_, Text}} <- lists:zip(lists:seq(1, length(Cases)), Cases)],
    ok = ?CONNECTION:close(Connection).

%% Each is answered, once, and the connection goes on.
results_that_are_none(_Config) ->
    Cases = [fun() -> 1.5 end, fun() -> {1, 2, 3} end, fun() -> {1, 2} end, fun() -> {<<"a">>, <<"b">>} end,
             fun() -> -1 end, fun() -> 1 bsl 61 end, fun() -> undefined end, fun() -> error(reason) end,
             fun() -> throw(reason) end, fun() -> exit(reason) end, fun() -> [1, atom] end,
             fun() -> binary:copy(<<0>>, 2000) end],
    {Connection, Peer} = ?CT:with_peer(#{handler => fun(Type, 0, <<>>) -> (lists:nth(Type, Cases))() end,
                                         max_packet => 1000}),
    [begin
         ok = ?CT:say(Peer, <<3, Tag, 2, (Tag + 1)>>),
         ok = ?CT:hear(Peer, <<16#1a, Tag, 0, "exception during handler">>)
     end || Tag <- lists:seq(1, length(Cases))],
    ?assertMatch(#{in_hand := 0, in_hand_bytes := 0}, ?CONNECTION:info(Connection)),
    ok = ?CONNECTION:close(Connection).

channels_on_the_wire(_Config) ->
    {Connection, Peer} = ?CT:with_peer(),
    ok = ?CONNECTION:open_channel(Connection, 13, fun(4, 15, Payload) -> {15, Payload} end),
    ok = ?CT:say(Peer, "07 11 3f 0d 05 313233"),
    ok = ?CT:hear(Peer, "06 11 7d 0d 313233"),
    ok = ?CONNECTION:close(Connection).

refusals(_Config) ->
    {Connection, Peer} = ?CT:with_peer(),
    ok = ?CONNECTION:open_channel(Connection, 1, fun ?CT:echo/3),
    ok = ?CONNECTION:open_channel(Connection, 2, undefined),
    ok = ?CT:say(Peer, "06 01 02 01 616263"),
    ok = ?CT:hear(Peer, "14 01 00 6e6f20726571756573742068616e646c6572"),
    ok = ?CT:say(Peer, "07 01 03 09 01 616263"),
    ok = ?CT:hear(Peer, <<20, 1, 1, 9, "unknown channel 9">>),
    ok = ?CT:say(Peer, "07 01 03 02 01 616263"),
    ok = ?CT:hear(Peer, <<21, 1, 1, 2, "no request handler">>),
    %% After the peer's own end of requests.
    ok = ?CT:say(Peer, "03 01 02 00 07 01 03 01 01 616263"),
    ok = ?CT:hear(Peer, <<29, 1, 1, 1, "requests no longer allowed">>),
    ?assertMatch(#{rejected := 4, peer_requests := 4}, ?CONNECTION:info(Connection)),
    ok = ?CONNECTION:close(Connection).

%% Tags

tags_are_used_once(_Config) ->
    {Connection, Peer} = ?CT:with_peer(),
    [begin
         Id = ?CONNECTION:send_request(Connection, 0),
         ok = ?CT:hear(Peer, causeway_packet_bytes({request, 0, Tag, 0, 1, <<>>})),
         ok = ?CT:say(Peer, causeway_packet_bytes({response, 0, Tag, 1, <<>>})),
         ?assertEqual({ok, 0, <<>>}, ?CONNECTION:receive_response(Id))
     end || Tag <- lists:seq(1, 300)],
    ok = ?CONNECTION:close(Connection).

causeway_packet_bytes(Packet) -> iolist_to_binary(causeway_packet:encode(Packet)).

%% The first request gets its answer all the same.
tag_in_use(_Config) ->
    Test = self(),
    {Connection, Peer} = ?CT:with_peer(#{handler => fun(_, _, Payload) ->
                                                        Test ! {handles, self()},
                                                        receive go -> Payload end
                                                    end}),
    ok = ?CT:say(Peer, "06 3c 02 01 616263"),
    Handler = receive {handles, Pid} -> Pid end,
    ok = ?CT:say(Peer, "06 3c 02 01 646566"),
    ok = ?CT:hear(Peer, <<35, 60, 0, "channel 0: tag already in use: 60">>),
    Handler ! go,
    ok = ?CT:hear(Peer, "05 3c 04 616263"),
    ok = ?CONNECTION:close(Connection).

finished_tag_again(_Config) ->
    {Connection, Peer} = ?CT:with_peer(#{handler => fun ?CT:echo/3}),
    [begin
         ok = ?CT:say(Peer, "06 01 02 01 616263"),
         ok = ?CT:hear(Peer, "05 01 04 616263")
     end || _ <- lists:seq(1, 3)],
    ok = ?CONNECTION:close(Connection).

stray_responses(_Config) ->
    {Connection, Peer} = ?CT:with_peer(),
    ok = ?CONNECTION:open_channel(Connection, 5, undefined),
    Id = ?CONNECTION:send_request(Connection, 0),
    ok = ?CT:hear(Peer, "03 01 02 01"),
    %% A tag that is not there yet, one of another channel, and the same twice.
    ok = ?CT:say(Peer, "02 02 04 03 01 05 05 03 01 04 61 03 01 04 62"),
    ?assertEqual({ok, 0, <<"a">>}, ?CONNECTION:receive_response(Id)),
    ok = ?CT:wait_info(Connection, stray_responses, 3),
    Next = ?CONNECTION:send_request(Connection, 0),
    ok = ?CT:hear(Peer, "03 02 02 01"),
    ok = ?CT:say(Peer, "02 02 04"),
    ?assertEqual({ok, 0, <<>>}, ?CONNECTION:receive_response(Next)),
    ok = ?CONNECTION:close(Connection).

%% Requests

any_order(_Config) ->
    {Connection, Peer} = ?CT:with_peer(),
    Ids = [{N, ?CONNECTION:send_request(Connection, N)} || N <- lists:seq(1, 20)],
    ok = ?CT:hear(Peer, <<<<3, N, 2, (N + 1)>> || N <- lists:seq(1, 20)>>),
    ok = ?CT:say(Peer, <<<<3, N, 4, N>> || N <- lists:seq(20, 1, -1)>>),
    [?assertEqual({ok, 0, <<N>>}, ?CONNECTION:receive_response(Id)) || {N, Id} <- Ids],
    ok = ?CONNECTION:close(Connection).

both_ways(_Config) ->
    {Here, There} = ?CT:pair(#{handler => fun(T, F, P) -> {F + 1, [P, T]} end}, #{handler => fun ?CT:echo/3}),
    Results = ?CT:many(20, fun(N) ->
                               [begin
                                    Payload = crypto:strong_rand_bytes(rand:uniform(300)),
                                    {ok, 7, Payload} = ?CONNECTION:request(Here, N, Payload, #{flags => 7}),
                                    Answer = <<Payload/binary, N>>,
                                    {ok, 8, Answer} = ?CONNECTION:request(There, N, Payload, #{flags => 7}),
                                    ok
                                end || _ <- lists:seq(1, 50)]
                           end, 30000),
    ?assertEqual([ok], lists:usort(lists:append(Results))),
    ok = ?CONNECTION:close(Here),
    ?assertEqual(normal, ?CT:ended(There)).

slow_handler_stops_nobody(_Config) ->
    Test = self(),
    {Here, _There} = ?CT:pair(#{handler => fun(1, _, _) -> Test ! {waits, self()}, receive go -> <<"slow">> end;
                                              (2, _, _) -> <<"fast">>
                                           end}),
    Slow = ?CONNECTION:send_request(Here, 1),
    Handler = receive {waits, Pid} -> Pid end,
    ?assertEqual({ok, 0, <<"fast">>}, ?CONNECTION:request(Here, 2)),
    Handler ! go,
    ?assertEqual({ok, 0, <<"slow">>}, ?CONNECTION:receive_response(Slow)),
    ok = ?CONNECTION:close(Here).

workers_are_limited(_Config) ->
    Test = self(),
    {Here, There} = ?CT:pair(#{workers => 3, handler => fun(N, _, _) -> Test ! {waits, self()}, receive go -> N end end}),
    Ids = [?CONNECTION:send_request(Here, N) || N <- lists:seq(1, 10)],
    ok = ?CT:wait_info(There, in_hand, 10),
    First = [receive {waits, Pid} -> Pid end || _ <- "123"],
    ?assertEqual([], causeway_ct:mailbox()),
    [Pid ! go || Pid <- First],
    [receive {waits, Pid} -> Pid ! go end || _ <- lists:seq(1, 7)],
    ?assertEqual([{ok, N, <<>>} || N <- lists:seq(1, 10)], [?CONNECTION:receive_response(Id) || Id <- Ids]),
    ok = ?CONNECTION:close(Here).

handler_in_the_connection(_Config) ->
    Test = self(),
    {Here, There} = ?CT:pair(#{workers => 0, handler => fun(1, _, P) -> Test ! {by, self()}, P;
                                                           (2, _, _) -> error(reason)
                                                        end}),
    ?assertEqual({ok, 0, <<"a">>}, ?CONNECTION:request(Here, 1, <<"a">>)),
    receive {by, Pid} -> ?assertEqual(There, Pid) end,
    ?assertEqual({failed, 0, <<"exception during handler">>}, ?CONNECTION:request(Here, 2)),
    ok = ?CONNECTION:close(Here).

handler_is_killed(_Config) ->
    {Here, _There} = ?CT:pair(#{workers => 1, handler => fun(1, _, _) -> exit(self(), kill), receive after infinity -> ok end;
                                                            (2, _, P) -> P
                                                         end}),
    Killed = [?CONNECTION:send_request(Here, 1) || _ <- "123"],
    Next = ?CONNECTION:send_request(Here, 2, <<"next">>),
    [?assertEqual({failed, 0, <<"exception during handler">>}, ?CONNECTION:receive_response(Id)) || Id <- Killed],
    ?assertEqual({ok, 0, <<"next">>}, ?CONNECTION:receive_response(Next)),
    ok = ?CONNECTION:close(Here).

%% Modules

module_handler(_Config) ->
    {Here, There} = ?CT:pair(#{handler => {connection_handler, {self(), state}}}),
    ?assertEqual({ok, 3, <<"state 1 payload">>}, ?CONNECTION:request(Here, 1, <<"payload">>, #{flags => 3})),
    ok = ?CONNECTION:close(Here),
    ?assertEqual(normal, ?CT:ended(There)),
    receive {ended, Why} -> ?assertEqual(eof, Why) end.

module_with_from(_Config) ->
    {Here, _There} = ?CT:pair(#{handler => connection_late_handler}),
    ?assertEqual({ok, 0, <<"[] payload">>}, ?CONNECTION:request(Here, 1, <<"payload">>)),
    ok = ?CONNECTION:close(Here).

module_init_fails(_Config) ->
    {Socket, Peer} = ?CT:sockets(),
    ?assertEqual({error, refused}, ?CONNECTION:start_link(Socket, #{handler => {connection_handler, refuse}})),
    ok = ?CT:hear_end(Peer),
    {Other, _} = ?CT:sockets(),
    ?assertMatch({error, {bad_handler, {lists, _}}}, ?CONNECTION:start_link(Other, #{handler => lists})),
    {Third, _} = ?CT:sockets(),
    ?assertMatch({error, {bad_handler, {no_such_module, nofile}}}, ?CONNECTION:start_link(Third, #{handler => no_such_module})).

reply_later(_Config) ->
    Test = self(),
    {Here, There} = ?CT:pair(#{workers => 1, handler => fun(N, _, P, From) -> Test ! {N, P, From}, noreply end}),
    Ids = [?CONNECTION:send_request(Here, N, <<N>>) || N <- lists:seq(1, 5)],
    Waiting = [receive {N, P, From} -> {N, P, From} end || N <- lists:seq(1, 5)],
    ?assertMatch(#{in_hand := 5}, ?CONNECTION:info(There)),
    [ok = ?CONNECTION:reply(From, {N, P}) || {N, P, From} <- lists:reverse(Waiting)],
    ?assertEqual([{ok, N, <<N>>} || N <- lists:seq(1, 5)], [?CONNECTION:receive_response(Id) || Id <- Ids]),
    ?assertMatch(#{in_hand := 0}, ?CONNECTION:info(There)),
    ?assertError(badarg, ?CONNECTION:reply(element(3, hd(Waiting)), noreply)),
    ?assertError(badarg, ?CONNECTION:reply(element(3, hd(Waiting)), {bad, response, 1})),
    ok = ?CONNECTION:close(Here),
    ?assertEqual(normal, ?CT:ended(There)),
    %% To nobody.
    ok = ?CONNECTION:reply(element(3, hd(Waiting)), ok).

%% Only the first answer counts, also when the tag is used again.
reply_twice(_Config) ->
    Test = self(),
    {Connection, Peer} = ?CT:with_peer(#{handler => fun(_, _, _, From) -> Test ! From, noreply end}),
    ok = ?CT:say(Peer, "03 01 02 01"),
    First = receive From1 -> From1 end,
    ok = ?CONNECTION:reply(First, <<"a">>),
    ok = ?CT:hear(Peer, "03 01 04 61"),
    ok = ?CT:say(Peer, "03 01 02 01"),
    Second = receive From2 -> From2 end,
    ok = ?CONNECTION:reply(First, <<"b">>),
    ok = ?CONNECTION:reply(Second, <<"c">>),
    ok = ?CT:hear(Peer, "03 01 04 63"),
    ok = ?CONNECTION:close(Connection).

%% A handler asks back, deeper than there are workers or requests in hand allowed.
requests_inside_of_requests(_Config) ->
    Self = self(),
    Deep = fun(Other) ->
               fun(0, _, P) -> [P, "0"];
                  (N, _, P) -> {ok, 0, R} = ?CONNECTION:request(Other(), N - 1, P), [R, integer_to_binary(N)]
               end
           end,
    Table = ets:new(ends, [public]),
    {Here, There} = ?CT:pair(#{handler => Deep(fun() -> ets:lookup_element(Table, here, 2) end), workers => 40, max_requests => 2},
                             #{handler => Deep(fun() -> ets:lookup_element(Table, there, 2) end), workers => 40, max_requests => 2}),
    ets:insert(Table, [{here, Here}, {there, There}]),
    Results = ?CT:many(8, fun(_) -> ?CONNECTION:request(Here, 8, <<>>, #{timeout => 20000}) end, 30000),
    ?assertEqual([{ok, 0, <<"012345678">>}], lists:usort(Results)),
    ?assertEqual(Self, self()),
    ok = ?CONNECTION:close(Here).

channels(_Config) ->
    {Here, There} = ?CT:pair(#{handler => fun(_, _, P) -> [P, " of 0"] end}),
    ?assertEqual({error, {unknown_channel, 7}}, ?CONNECTION:request(Here, 1, <<>>, #{channel => 7})),
    ok = ?CONNECTION:open_channel(Here, 7, undefined),
    ?assertEqual({failed, 0, <<"unknown channel 7">>}, ?CONNECTION:request(Here, 1, <<>>, #{channel => 7})),
    ok = ?CONNECTION:open_channel(There, 7, fun(_, _, P) -> [P, " of 7"] end),
    ?assertEqual({error, already_open}, ?CONNECTION:open_channel(There, 7, undefined)),
    ?assertEqual({ok, 0, <<"a of 7">>}, ?CONNECTION:request(Here, 1, <<"a">>, #{channel => 7})),
    ?assertEqual({ok, 0, <<"a of 0">>}, ?CONNECTION:request(Here, 1, <<"a">>)),
    ok = ?CONNECTION:open_channel(There, 8, {connection_handler, {self(), state}}),
    ok = ?CONNECTION:open_channel(Here, 8, undefined),
    ok = ?CONNECTION:close_channel(There, 8),
    receive {ended, Why} -> ?assertEqual(channel_closed, Why) end,
    ?assertEqual({failed, 0, <<"unknown channel 8">>}, ?CONNECTION:request(Here, 1, <<>>, #{channel => 8})),
    ?assertMatch(#{channels := [0, 7]}, ?CONNECTION:info(There)),
    ?assertError(badarg, ?CONNECTION:open_channel(Here, 0, undefined)),
    ?assertError(badarg, ?CONNECTION:open_channel(Here, 9, fun() -> ok end)),
    ok = ?CONNECTION:close(Here).

%% Payloads

large_payloads(_Config) ->
    {Here, _There} = ?CT:pair(#{handler => fun ?CT:echo/3}),
    [begin
         Payload = crypto:strong_rand_bytes(Size),
         ?assertEqual({ok, 0, Payload}, ?CONNECTION:request(Here, 0, Payload))
     end || Middle <- [16384, 65536, 1 bsl 20, 5 bsl 20], Size <- [Middle - 9, Middle, Middle + 1]],
    ok = ?CONNECTION:close(Here).

iodata(_Config) ->
    {Here, _There} = ?CT:pair(#{handler => fun ?CT:echo/3}),
    Large = binary:copy(<<"large">>, 20000),
    Data = ["text", [<<1, 2>>, [[], Large]], binary:part(Large, 5, 50000) | <<"end">>],
    ?assertEqual({ok, 0, iolist_to_binary(Data)}, ?CONNECTION:request(Here, 0, Data)),
    ok = ?CONNECTION:close(Here).

%% However the bytes come.
pieces(_Config) ->
    {Connection, Peer} = ?CT:with_peer(#{handler => fun ?CT:echo/3}),
    Bytes = ?CT:requests(1, 20, crypto:strong_rand_bytes(200)),
    [begin ok = ?CT:say(Peer, <<Byte>>) end || <<Byte>> <= Bytes],
    ok = ?CT:say_nothing_more(Peer),
    Answers = ?CT:heard(Peer),
    ?assertEqual(20, map_size(?CT:responses(binary:part(Answers, 0, byte_size(Answers) - 4)))),
    ?assertEqual(normal, ?CT:ended(Connection)).

many_callers(_Config) ->
    {Here, There} = ?CT:pair(#{handler => fun ?CT:echo/3}),
    Results = ?CT:many(500, fun(N) ->
                                Payload = <<N:32, 0:(8 * (N rem 90))>>,
                                [begin {ok, 0, Payload} = ?CONNECTION:request(Here, N, Payload), ok end || _ <- "12345"]
                            end, 30000),
    ?assertEqual([ok], lists:usort(lists:append(Results))),
    ?assertMatch(#{outstanding := 0, requests := 2500, responses := 2500, stray_responses := 0}, ?CONNECTION:info(Here)),
    ?assertMatch(#{in_hand := 0, peer_requests := 2500, peer_responses := 2500}, ?CONNECTION:info(There)),
    ok = ?CONNECTION:close(Here).

send_requests(_Config) ->
    {Here, _There} = ?CT:pair(#{handler => fun ?CT:echo/3}),
    Ids = [{N, ?CONNECTION:send_request(Here, 1, <<N:16>>)} || N <- lists:seq(1, 1000)],
    [?assertEqual({ok, 0, <<N:16>>}, ?CONNECTION:receive_response(Id)) || {N, Id} <- lists:reverse(Ids)],
    ok = ?CONNECTION:close(Here).

check_response(_Config) ->
    {Here, _There} = ?CT:pair(#{handler => fun ?CT:echo/3}),
    First = ?CONNECTION:send_request(Here, 1, <<"1">>),
    Second = ?CONNECTION:send_request(Here, 1, <<"2">>),
    ?assertEqual(no_reply, ?CONNECTION:check_response(hello, First)),
    Messages = [receive Message -> Message end || _ <- "12"],
    ?assertEqual([{ok, 0, <<"1">>}, {ok, 0, <<"2">>}],
                 [Reply || Id <- [First, Second], Message <- Messages,
                           {reply, Reply} <- [?CONNECTION:check_response(Message, Id)]]),
    ok = ?CONNECTION:close(Here),
    Late = ?CONNECTION:send_request(Here, 1),
    receive Down -> ?assertEqual({reply, {error, {closed, noproc}}}, ?CONNECTION:check_response(Down, Late)) end.

names(_Config) ->
    {Socket, _Peer} = ?CT:sockets(),
    {ok, Connection} = ?CONNECTION:start_link(Socket, #{name => {local, packet_test}}),
    ?assertEqual(Connection, whereis(packet_test)),
    {Other, _} = ?CT:sockets(),
    ?assertEqual({error, {already_started, Connection}}, ?CONNECTION:start_link(Other, #{name => {local, packet_test}})),
    ?assertMatch(#{state := open}, ?CONNECTION:info(packet_test)),
    ok = ?CONNECTION:close(packet_test),
    ?assertEqual({error, {closed, noproc}}, ?CONNECTION:request(packet_test, 1)),
    ?assertEqual({error, {closed, noproc}}, ?CONNECTION:receive_response(?CONNECTION:send_request(packet_test, 1))),
    {Third, _} = ?CT:sockets(),
    {ok, _} = ?CONNECTION:start_link(Third, #{name => {global, packet_test}}),
    ?assertMatch(#{state := open}, ?CONNECTION:info({global, packet_test})),
    ok = ?CONNECTION:close({global, packet_test}),
    ok = ?CONNECTION:close({global, packet_test}).

%% Errors

wrong_arguments(_Config) ->
    {Here, _There} = ?CT:pair(#{handler => fun ?CT:echo/3}),
    [?assertError(badarg, apply(?CONNECTION, Function, [Here | Arguments]))
     || Function <- [request, send_request],
        Arguments <- [[-1], [a], [1 bsl 64 - 1], [1, atom], [1, [atom]], [1, [256]], [1, <<1:1>>], [1, <<>>, []],
                      [1, <<>>, #{flags => -1}], [1, <<>>, #{flags => 1 bsl 62}], [1, <<>>, #{channel => a}],
                      [1, <<>>, #{timeout => -1}], [1, <<>>, #{other => 1}]]],
    try ?CONNECTION:request(Here, 1, atom)
    catch error:badarg:Stack ->
        [{_, _, _, Info} | _] = Stack,
        #{module := Formatter} = proplists:get_value(error_info, Info),
        ?assertEqual(#{3 => <<"must be iodata">>}, Formatter:format_error(badarg, Stack)),
        ?assertMatch([{?CONNECTION, request, [Here, 1, atom, #{}], _} | _], Stack)
    end,
    ?assertError(badarg, ?CONNECTION:close(Here, -1)),
    %% The largest that there are.
    ?assertEqual({ok, 1 bsl 61 - 1, <<>>}, ?CONNECTION:request(Here, 1 bsl 64 - 2, <<>>, #{flags => 1 bsl 61 - 1})),
    ok = ?CONNECTION:close(Here).

wrong_options(_Config) ->
    {Socket, _Peer} = ?CT:sockets(),
    [begin
         {error, {badarg, Text}} = ?CONNECTION:start_link(Socket, Options),
         ?assert(is_binary(Text))
     end || Options <- [[], #{other => 1}, #{handler => fun() -> ok end}, #{workers => -1}, #{max_packet => 1},
                        #{max_outstanding => 0}, #{timeout => -1}, #{keepalive => 0}, #{name => name}, #{owner => self}]],
    [?assertMatch({error, {badarg, _}}, ?CONNECTION:start_link(Transport)) || Transport <- [atom, {1, a}, "text", #{}]],
    ?assertEqual({error, ebadf}, ?CONNECTION:start_link(999999)),
    %% It is still the caller's.
    ok = gen_tcp:send(Socket, <<"a">>).

info_counts(_Config) ->
    {Here, There} = ?CT:pair(#{handler => fun ?CT:echo/3}),
    [{ok, 0, <<"abc">>} = ?CONNECTION:request(Here, 1, <<"abc">>) || _ <- lists:seq(1, 10)],
    ?assertMatch(#{transport := socket, state := open, channels := [0], requests := 10, responses := 10, outstanding := 0,
                   waiting := 0, cancelled := 0, timeouts := 0, bytes_out := 70, bytes_in := 60, packets_out := 10,
                   packets_in := 10, queued_bytes := 0, is_reading := true}, ?CONNECTION:info(Here)),
    ?assertMatch(#{peer_requests := 10, peer_responses := 10, in_hand := 0, bytes_in := 70, bytes_out := 60},
                 ?CONNECTION:info(There)),
    ok = ?CONNECTION:close(Here).

status_is_readable(_Config) ->
    {Here, _There} = ?CT:pair(#{handler => fun ?CT:echo/3}),
    {status, Here, {module, causeway_packet_loop}, [_, running, _, _, Data]} = sys:get_status(Here),
    ?assertMatch({_, [{"Connection", #{outstanding := 0}}]}, lists:last(Data)),
    ok = sys:suspend(Here),
    Id = ?CONNECTION:send_request(Here, 1, <<"a">>),
    ?assertEqual({error, timeout}, ?CONNECTION:receive_response(?CONNECTION:send_request(Here, 1), 10)),
    ok = sys:resume(Here),
    ?assertEqual({ok, 0, <<"a">>}, ?CONNECTION:receive_response(Id)),
    ?assertMatch(#{state := open}, sys:get_state(Here)),
    Waits = ?CONNECTION:send_request(Here, 1),
    _ = ?CONNECTION:receive_response(Waits),
    ok = sys:terminate(Here, normal),
    ?assertEqual({error, {closed, noproc}}, ?CONNECTION:request(Here, 1)).
