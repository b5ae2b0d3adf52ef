%% @doc Packet connections under pressure: windows, lines, timeouts, callers that give up, peers that flood, stall or
%% fall silent.
-module(causeway_packet_limit_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-define(CONNECTION, causeway_packet_connection).
-define(CT, connection_ct).
-define(MB, 1048576).

suite() -> [{timetrap, {seconds, 90}}].

all() ->
    [outstanding_are_limited, line_keeps_its_order, line_of_send_request_is_limited, send_window, too_large, timeouts,
     timeout_in_line, standard_timeout, answer_timeout, late_answer, cancelled, cancelled_in_line, cancelled_after_the_answer, caller_dies,
     many_callers_die, gone_among_many, line_of_the_gone_is_dropped, flood_of_requests, flood_by_bytes, flood_without_reading,
     own_requests_go_on_in_a_flood, peer_never_reads, peer_reads_slowly, keepalive, keepalive_with_traffic,
     no_answer_to_keepalive, million_outstanding, finished_leave_nothing, small_payloads_keep_nothing_alive,
     idle_connections_keep_no_payloads].

init_per_suite(Config) -> ?CT:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_testcase(_Case, Config) -> Config.

end_per_testcase(_Case, _Config) -> ?assertEqual([], causeway_ct:mailbox()).

%% Our requests

outstanding_are_limited(_Config) ->
    {Connection, Peer} = ?CT:with_peer(#{max_outstanding => 3}),
    Ids = [?CONNECTION:send_request(Connection, N) || N <- lists:seq(1, 5)],
    ok = ?CT:hear(Peer, "03 01 02 02 03 02 02 03 03 03 02 04"),
    ?assertMatch(#{outstanding := 3, waiting := 2}, ?CONNECTION:info(Connection)),
    ?assertEqual({error, timeout}, gen_tcp:recv(Peer, 1, 50)),
    ok = ?CT:say(Peer, "02 02 04"),
    ok = ?CT:hear(Peer, "03 04 02 05"),
    ok = ?CT:say(Peer, "02 01 04 02 03 04 02 04 04"),
    ok = ?CT:hear(Peer, "03 05 02 06"),
    ok = ?CT:say(Peer, "02 05 04"),
    [?assertEqual({ok, 0, <<>>}, ?CONNECTION:receive_response(Id)) || Id <- Ids],
    ok = ?CONNECTION:close(Connection).

line_keeps_its_order(_Config) ->
    {Here, _There} = ?CT:pair(#{max_outstanding => 2}, #{workers => 0, handler => counter()}),
    Ids = [?CONNECTION:send_request(Here, N) || N <- lists:seq(1, 500)],
    ?assertEqual([{ok, N, <<N:32>>} || N <- lists:seq(1, 500)], [?CONNECTION:receive_response(Id) || Id <- Ids]),
    ok = ?CONNECTION:close(Here).

%% Counts what it is asked.
counter() ->
    Counter = counters:new(1, []),
    fun(Type, _, _) -> counters:add(Counter, 1, 1), {Type, <<(counters:get(Counter, 1)):32>>} end.

line_of_send_request_is_limited(_Config) ->
    {Connection, Peer} = ?CT:with_peer(#{max_outstanding => 1, max_waiting => 2}),
    Ids = [?CONNECTION:send_request(Connection, N) || N <- lists:seq(1, 4)],
    ?assertEqual({error, busy}, ?CONNECTION:receive_response(lists:last(Ids))),
    %% A process that waits itself cannot flood: it gets its turn.
    Test = self(),
    Caller = spawn_link(fun() -> Test ! {self(), ?CONNECTION:request(Connection, 9)} end),
    ok = ?CT:wait_info(Connection, waiting, 3),
    %% It is in the table before the connection hears of it.
    ok = causeway_ct:wait_until(fun() -> process_info(Caller, status) =:= {status, waiting} end),
    {ok, <<3, 1, 2, 2>>} = gen_tcp:recv(Peer, 4, 10000),
    ok = ?CT:say(Peer, "02 01 04 02 02 04 02 03 04 02 04 04"),
    ok = ?CT:wait_info(Connection, stray_responses, 3),
    %% The next is sent when there is an answer.
    [begin
         {ok, <<3, Tag, 2, _>>} = gen_tcp:recv(Peer, 4, 10000),
         ?assertMatch(#{outstanding := 1}, ?CONNECTION:info(Connection)),
         ok = ?CT:say(Peer, <<2, Tag, 4>>)
     end || Tag <- [2, 3, 4]],
    [?assertEqual({ok, 0, <<>>}, ?CONNECTION:receive_response(Id)) || Id <- lists:droplast(Ids)],
    receive {Caller, Result} -> ?assertEqual({ok, 0, <<>>}, Result) end,
    ok = ?CONNECTION:close(Connection).

%% What is to be written is limited, too, and each request has its turn.
send_window(_Config) ->
    {Connection, Peer} = ?CT:with_peer(#{send_window => ?MB}),
    Payload = binary:copy(<<"x">>, ?MB),
    Ids = [?CONNECTION:send_request(Connection, 1, Payload) || _ <- lists:seq(1, 30)],
    #{queued_bytes := Queued, waiting := Waiting} = ?CONNECTION:info(Connection),
    ?assert(Queued =< 2 * ?MB),
    ?assert(Waiting > 5),
    Test = self(),
    Reader = spawn_link(fun() ->
                            receive go -> ok end,
                            {ok, Read} = gen_tcp:recv(Peer, 30 * (?MB + 6), 30000),
                            30 = length([ok || {request, 0, _, 0, 2, P} <- ?CT:packets(Read), P =:= Payload]),
                            ok = gen_tcp:send(Peer, [<<2, Tag, 4>> || Tag <- lists:seq(1, 30)]),
                            Test ! read
                        end),
    ok = gen_tcp:controlling_process(Peer, Reader),
    Reader ! go,
    [?assertEqual({ok, 0, <<>>}, ?CONNECTION:receive_response(Id)) || Id <- Ids],
    receive read -> ok end,
    ok = ?CONNECTION:close(Connection).

too_large(_Config) ->
    {Here, _There} = ?CT:pair(#{max_packet => 1000}, #{handler => fun ?CT:echo/3, max_packet => 1000}),
    ?assertEqual({error, {too_large, 961, 960}}, ?CONNECTION:request(Here, 1, binary:copy(<<0>>, 961))),
    Most = binary:copy(<<1>>, 960),
    ?assertEqual({ok, 0, Most}, ?CONNECTION:request(Here, 1, Most)),
    ok = ?CONNECTION:close(Here).

timeouts(_Config) ->
    {Connection, Peer} = ?CT:with_peer(),
    ?assertEqual({error, timeout}, ?CONNECTION:request(Connection, 1, <<>>, #{timeout => 20})),
    ?assertEqual({error, timeout}, ?CONNECTION:request(Connection, 1, <<>>, #{timeout => 0})),
    Id = ?CONNECTION:send_request(Connection, 1, <<>>, #{timeout => 20}),
    ?assertEqual({error, timeout}, ?CONNECTION:receive_response(Id)),
    Patient = ?CONNECTION:send_request(Connection, 1),
    ?assertEqual({error, timeout}, ?CONNECTION:receive_response(Patient, 20)),
    ok = ?CT:wait_info(Connection, outstanding, 0),
    ?assertMatch(#{timeouts := 3, cancelled := 1, waiting := 0}, ?CONNECTION:info(Connection)),
    ok = ?CT:hear(Peer, "03 01 02 02"),
    ok = ?CONNECTION:close(Connection).

%% Who handed a request on and never answers keeps the peer waiting for so long.
answer_timeout(_Config) ->
    Test = self(),
    Handler = fun(1, _, _, From) -> Test ! From, noreply;
                 (2, _, _, From) -> ok = ?CONNECTION:reply(From, <<"at once">>), noreply
              end,
    [begin
         {Connection, Peer} = ?CT:with_peer(#{answer_timeout => Time, max_requests => 1, workers => Workers, handler => Handler}),
         ok = ?CT:say(Peer, "03 01 02 02"),
         From = receive F -> F end,
         ok = ?CT:hear(Peer, <<19, 1, 0, "no answer in time">>),
         ?assertMatch(#{in_hand := 0, in_hand_bytes := 0}, ?CONNECTION:info(Connection)),
         %% Too late, and for nobody, also when the tag is used again.
         ok = ?CONNECTION:reply(From, <<"late">>),
         ok = ?CT:say(Peer, "03 01 02 03"),
         ok = ?CT:hear(Peer, <<9, 1, 4, "at once">>),
         ok = ?CONNECTION:close(Connection)
     end || Workers <- [0, 4], Time <- [0, 30]].

timeout_in_line(_Config) ->
    {Connection, Peer} = ?CT:with_peer(#{max_outstanding => 1}),
    First = ?CONNECTION:send_request(Connection, 1),
    ?assertEqual({error, timeout}, ?CONNECTION:request(Connection, 2, <<>>, #{timeout => 20})),
    Third = ?CONNECTION:send_request(Connection, 3),
    ok = ?CT:hear(Peer, "03 01 02 02"),
    ok = ?CT:say(Peer, "02 01 04"),
    %% It has had a tag, and was never sent.
    ok = ?CT:hear(Peer, "03 03 02 04"),
    ok = ?CT:say(Peer, "02 03 04"),
    [?assertEqual({ok, 0, <<>>}, ?CONNECTION:receive_response(Id)) || Id <- [First, Third]],
    ?assertMatch(#{outstanding := 0, waiting := 0}, ?CONNECTION:info(Connection)),
    ok = ?CONNECTION:close(Connection).

standard_timeout(_Config) ->
    {Connection, _Peer} = ?CT:with_peer(#{timeout => 20}),
    ?assertEqual({error, timeout}, ?CONNECTION:request(Connection, 1)),
    ok = ?CONNECTION:close(Connection).

late_answer(_Config) ->
    {Connection, Peer} = ?CT:with_peer(),
    ?assertEqual({error, timeout}, ?CONNECTION:request(Connection, 1, <<>>, #{timeout => 1})),
    ok = ?CT:say(Peer, "03 01 04 61"),
    ok = ?CT:wait_info(Connection, stray_responses, 1),
    ok = ?CONNECTION:close(Connection).

cancelled(_Config) ->
    {Connection, Peer} = ?CT:with_peer(),
    Ids = [?CONNECTION:send_request(Connection, N) || N <- lists:seq(1, 20)],
    ok = ?CT:wait_info(Connection, outstanding, 20),
    {Cancelled, Others} = lists:split(10, Ids),
    [ok = ?CONNECTION:cancel(Id) || Id <- Cancelled],
    ok = ?CT:wait_info(Connection, outstanding, 10),
    ok = ?CT:say(Peer, <<<<2, Tag, 4>> || Tag <- lists:seq(1, 20)>>),
    [?assertEqual({ok, 0, <<>>}, ?CONNECTION:receive_response(Id)) || Id <- Others],
    ?assertMatch(#{cancelled := 10, outstanding := 0, stray_responses := 10}, ?CONNECTION:info(Connection)),
    ok = ?CONNECTION:close(Connection).

cancelled_in_line(_Config) ->
    {Connection, Peer} = ?CT:with_peer(#{max_outstanding => 1}),
    [First, Second, Third] = [?CONNECTION:send_request(Connection, N) || N <- [1, 2, 3]],
    ok = ?CONNECTION:cancel(Second),
    ok = ?CT:wait_info(Connection, waiting, 1),
    ok = ?CT:hear(Peer, "03 01 02 02"),
    ok = ?CT:say(Peer, "02 01 04"),
    ok = ?CT:hear(Peer, "03 03 02 04"),
    ok = ?CT:say(Peer, "02 03 04"),
    [?assertEqual({ok, 0, <<>>}, ?CONNECTION:receive_response(Id)) || Id <- [First, Third]],
    ok = ?CONNECTION:close(Connection).

%% Nothing is left in the mailbox, see end_per_testcase.
cancelled_after_the_answer(_Config) ->
    {Here, _There} = ?CT:pair(#{handler => fun ?CT:echo/3}),
    Ids = [?CONNECTION:send_request(Here, 1) || _ <- lists:seq(1, 100)],
    ok = ?CT:wait_info(Here, responses, 100),
    [ok = ?CONNECTION:cancel(Id) || Id <- Ids],
    Racing = [?CONNECTION:send_request(Here, 1) || _ <- lists:seq(1, 100)],
    [ok = ?CONNECTION:cancel(Id) || Id <- Racing],
    ok = ?CONNECTION:close(Here).

caller_dies(_Config) ->
    {Connection, Peer} = ?CT:with_peer(),
    Callers = [spawn(fun() -> ?CONNECTION:request(Connection, N) end) || N <- [1, 2, 3]],
    ok = ?CT:wait_info(Connection, outstanding, 3),
    [exit(Pid, kill) || Pid <- Callers],
    ok = ?CT:wait_info(Connection, outstanding, 0),
    ?assertMatch(#{cancelled := 3}, ?CONNECTION:info(Connection)),
    ok = ?CT:say(Peer, "02 01 04 02 02 04 02 03 04"),
    ok = ?CT:wait_info(Connection, stray_responses, 3),
    ok = ?CONNECTION:close(Connection).

many_callers_die(_Config) ->
    {Connection, _Peer} = ?CT:with_peer(),
    Callers = [spawn(fun() -> ?CONNECTION:request(Connection, 1) end) || _ <- lists:seq(1, 5000)],
    ok = ?CT:wait_info(Connection, outstanding, 5000),
    [exit(Pid, kill) || Pid <- Callers],
    ok = ?CT:wait_info(Connection, outstanding, 0),
    ok = ?CONNECTION:close(Connection).

%% One that is gone among many that are not is found, too, a second later at the latest.
gone_among_many(_Config) ->
    {Connection, _Peer} = ?CT:with_peer(),
    Ids = [?CONNECTION:send_request(Connection, 1) || _ <- lists:seq(1, 1000)],
    Caller = spawn(fun() -> ?CONNECTION:request(Connection, 1) end),
    ok = ?CT:wait_info(Connection, outstanding, 1001),
    exit(Caller, kill),
    ok = ?CT:wait_info(Connection, outstanding, 1000),
    ok = ?CONNECTION:close(Connection, 0),
    [{error, {closed, local}} = ?CONNECTION:receive_response(Id) || Id <- Ids].

%% Payloads of those that have been given up do not wait for a turn that never comes.
line_of_the_gone_is_dropped(_Config) ->
    {Connection, _Peer} = ?CT:with_peer(#{max_outstanding => 1, max_waiting => infinity}),
    First = ?CONNECTION:send_request(Connection, 1),
    Ids = [?CONNECTION:send_request(Connection, 1, binary:copy(<<"x">>, 100000)) || _ <- lists:seq(1, 500)],
    ok = ?CT:wait_info(Connection, waiting, 500),
    [ok = ?CONNECTION:cancel(Id) || Id <- Ids],
    ok = ?CT:wait_info(Connection, waiting, 0),
    true = erlang:garbage_collect(Connection),
    {binary, Binaries} = process_info(Connection, binary),
    ?assert(lists:sum([Size || {_, Size, _} <- Binaries]) < 100 * 100000),
    ok = ?CONNECTION:close(Connection, 0),
    {error, {closed, local}} = ?CONNECTION:receive_response(First).

%% The peer's requests

%% No more is read than may be in hand, and then all is answered.
flood_of_requests(_Config) ->
    Test = self(),
    {Connection, Peer} = ?CT:with_peer(#{max_requests => 100, handler => fun(_, _, _, From) -> Test ! From, noreply end}),
    Number = 300000,
    Sender = sender(Peer, ?CT:requests(1, Number, <<>>)),
    ok = ?CT:wait_info(Connection, is_reading, false),
    InHand = ?CT:info(Connection, in_hand),
    %% What was read at once may be more, but not all.
    ?assert(InHand >= 100),
    ?assert(InHand < Number),
    Reader = reader(Peer, 3 * 127 + 4 * (16383 - 127) + 5 * (Number - 16383)),
    answer(Number),
    receive {Reader, Read} -> ?assertEqual(Number, map_size(?CT:responses(Read))) end,
    receive {Sender, sent} -> ok end,
    ?assertMatch(#{in_hand := 0, peer_responses := Number, is_reading := true}, ?CONNECTION:info(Connection)),
    ok = ?CONNECTION:close(Connection).

answer(0) ->
    ok;
answer(Left) ->
    receive
        From when element(1, From) =:= causeway_packet ->
            ok = ?CONNECTION:reply(From, ok),
            answer(Left - 1)
    end.

sender(Peer, Bytes) ->
    Test = self(),
    spawn_link(fun() -> ok = gen_tcp:send(Peer, Bytes), Test ! {self(), sent} end).

%% Whoever else uses the socket meanwhile does not receive from it.
reader(Peer, Bytes) ->
    Test = self(),
    spawn_link(fun() -> {ok, Read} = gen_tcp:recv(Peer, Bytes, 60000), Test ! {self(), Read} end).

flood_by_bytes(_Config) ->
    Test = self(),
    {Connection, Peer} = ?CT:with_peer(#{receive_window => ?MB, handler => fun(_, _, _, From) -> Test ! From, noreply end}),
    Payload = binary:copy(<<"x">>, 100000),
    Sender = sender(Peer, ?CT:requests(1, 200, Payload)),
    ok = ?CT:wait_info(Connection, is_reading, false),
    ?assert(?CT:info(Connection, in_hand_bytes) < 6 * ?MB),
    answer(200),
    receive {Sender, sent} -> ok end,
    Heard = reader(Peer, 3 * 127 + 4 * 73),
    receive {Heard, Read} -> ?assertEqual(200, map_size(?CT:responses(Read))) end,
    ok = ?CONNECTION:close(Connection).

%% It gets no answers, as it does not read them, and neither are they kept without end.
flood_without_reading(_Config) ->
    {Connection, Peer} = ?CT:with_peer(#{send_window => ?MB, send_timeout => 500,
                                         handler => fun(_, _, _) -> binary:copy(<<"x">>, 10000) end}),
    Monitor = erlang:monitor(process, Connection),
    Sender = spawn(fun() -> gen_tcp:send(Peer, ?CT:requests(1, 1000000, <<>>)) end),
    Most = watch_memory(Connection, Monitor, 0),
    ?assert(Most < 64 * ?MB),
    ?assertEqual({shutdown, not_read}, ?CT:ended(Connection)),
    exit(Sender, kill).

watch_memory(Connection, Monitor, Most) ->
    receive
        {'DOWN', Monitor, process, Connection, _} -> Most
    after 20 ->
        Size = case process_info(Connection, [memory, binary]) of
                   [{memory, Memory}, {binary, Binaries}] -> Memory + lists:sum([S || {_, S, _} <- Binaries]);
                   undefined -> 0
               end,
        watch_memory(Connection, Monitor, max(Most, Size))
    end.

%% Both flood each other, with handlers that ask back: all is answered.
own_requests_go_on_in_a_flood(_Config) ->
    Table = ets:new(ends, [public]),
    Ask = fun(Whom) ->
              fun(1, _, P) -> {ok, 0, R} = ?CONNECTION:request(ets:lookup_element(Table, Whom, 2), 2, P), R;
                 (2, _, P) -> [P, P]
              end
          end,
    Options = #{max_requests => 10, workers => 64},
    {Here, There} = ?CT:pair(Options#{handler => Ask(here)}, Options#{handler => Ask(there)}),
    ets:insert(Table, [{here, Here}, {there, There}]),
    Results = ?CT:many(60, fun(N) ->
                               End = case N rem 2 of 0 -> Here; 1 -> There end,
                               [{ok, 0, <<"aa">>} = ?CONNECTION:request(End, 1, <<"a">>, #{timeout => 30000})
                                || _ <- lists:seq(1, 20)]
                           end, 60000),
    ?assertEqual([{ok, 0, <<"aa">>}], lists:usort(lists:append(Results))),
    ok = ?CONNECTION:close(Here).

%% Peers that stall

peer_never_reads(_Config) ->
    {Connection, _Peer} = ?CT:with_peer(#{send_timeout => 200}),
    Payload = binary:copy(<<"x">>, ?MB),
    Results = ?CT:many(30, fun(N) -> ?CONNECTION:request(Connection, N, Payload) end, 30000),
    ?assertEqual([{error, {closed, not_read}}], lists:usort(Results)),
    ?assertEqual({shutdown, not_read}, ?CT:ended(Connection)).

%% Slow is not never.
peer_reads_slowly(_Config) ->
    {Connection, Peer} = ?CT:with_peer(#{send_timeout => 300, send_window => infinity}),
    Ids = [?CONNECTION:send_request(Connection, 1, binary:copy(<<"x">>, ?MB)) || _ <- lists:seq(1, 8)],
    {ok, _} = read_slowly(Peer, 8 * (?MB + 6), 150),
    ok = ?CT:say(Peer, <<<<2, Tag, 4>> || Tag <- lists:seq(1, 8)>>),
    [?assertEqual({ok, 0, <<>>}, ?CONNECTION:receive_response(Id)) || Id <- Ids],
    ok = ?CONNECTION:close(Connection).

read_slowly(_Peer, 0, _Pause) -> {ok, done};
read_slowly(Peer, Left, Pause) ->
    receive after Pause -> ok end,
    {ok, Read} = gen_tcp:recv(Peer, min(Left, ?MB), 10000),
    read_slowly(Peer, Left - byte_size(Read), Pause).

%% Asked on a channel that nobody has: any answer will do.
keepalive(_Config) ->
    {Connection, Peer} = ?CT:with_peer(#{keepalive => 50}),
    ok = ?CT:hear(Peer, "08 01 03 87ffffff7f 01"),
    ok = ?CT:say(Peer, <<25, 1, 1, 16#87, 16#ff, 16#ff, 16#ff, 16#7f, "unknown channel %d">>),
    ok = ?CT:hear(Peer, "08 02 03 87ffffff7f 01"),
    ok = ?CONNECTION:close(Connection).

keepalive_with_traffic(_Config) ->
    {Here, There} = ?CT:pair(#{keepalive => 20}, #{handler => fun ?CT:echo/3, keepalive => 20}),
    ok = causeway_ct:wait_until(fun() -> ?CT:info(Here, rejected) > 3 andalso ?CT:info(There, rejected) > 3 end),
    ?assertEqual({ok, 0, <<"a">>}, ?CONNECTION:request(Here, 1, <<"a">>)),
    ?assertMatch(#{stray_responses := 0}, ?CONNECTION:info(Here)),
    ok = ?CONNECTION:close(Here).

no_answer_to_keepalive(_Config) ->
    {Connection, _Peer} = ?CT:with_peer(#{keepalive => 50}),
    ?assertEqual({error, {closed, no_answer}}, ?CONNECTION:request(Connection, 1)),
    ?assertEqual({shutdown, no_answer}, ?CT:ended(Connection)).

%% Memory

million_outstanding(_Config) ->
    Number = 1000000,
    Options = #{max_outstanding => infinity, send_window => infinity, max_requests => infinity, receive_window => infinity},
    {Here, There} = ?CT:pair(Options, Options#{workers => 0, handler => fun(_, _, _, _) -> noreply end}),
    Before = memory(Here),
    Caller = spawn_link(fun() ->
                            _ = [?CONNECTION:send_request(Here, 1) || _ <- lists:seq(1, Number)],
                            receive stop -> ok end
                        end),
    ok = causeway_ct:wait_until(fun() -> maps:with([outstanding, queued_bytes], ?CONNECTION:info(Here))
                                             =:= #{outstanding => Number, queued_bytes => 0} end),
    Full = memory(Here),
    ct:log("bytes each: ~p", [(Full - Before) / Number]),
    ?assert(Full - Before < Number * 220),
    unlink(Caller),
    exit(Caller, kill),
    ok = ?CT:wait_info(Here, outstanding, 0),
    ?assert(memory(Here) - Before < 4 * ?MB),
    ok = ?CONNECTION:close(Here, 0),
    ok = ?CONNECTION:close(There, 0).

memory(Connection) ->
    true = erlang:garbage_collect(Connection),
    {memory, Heap} = process_info(Connection, memory),
    Heap + lists:sum([ets:info(Table, memory) * erlang:system_info(wordsize)
                      || Table <- ets:all(), ets:info(Table, owner) =:= Connection]).

finished_leave_nothing(_Config) ->
    {Here, There} = ?CT:pair(#{handler => fun ?CT:echo/3}),
    Ask = fun(Number) ->
              [{ok, 0, <<"a">>} = ?CONNECTION:request(Here, 1, <<"a">>, #{timeout => 5000}) || _ <- lists:seq(1, Number)]
          end,
    Ask(1000),
    Before = memory(Here) + memory(There),
    Ask(20000),
    ?assert(memory(Here) + memory(There) - Before < 100000),
    %% Nor do callers that have come and gone.
    _ = ?CT:many(1000, fun(_) -> Ask(1) end, 30000),
    ok = causeway_ct:wait_until(fun() -> {monitors, Monitors} = process_info(Here, monitors), length(Monitors) =< 3 end),
    ?assert(memory(Here) - Before < 200000),
    ok = ?CONNECTION:close(Here).

%% A small payload does not keep what was read with it.
small_payloads_keep_nothing_alive(_Config) ->
    Test = self(),
    {Connection, Peer} = ?CT:with_peer(#{max_requests => infinity,
                                         handler => fun(_, _, P, From) -> Test ! {P, From}, noreply end}),
    ok = ?CT:say(Peer, ?CT:requests(1, 500, binary:copy(<<"x">>, 100))),
    Kept = [receive {P, From} -> {P, From} end || _ <- lists:seq(1, 500)],
    [?assertEqual(100, binary:referenced_byte_size(P)) || {P, _} <- Kept],
    ok = ?CONNECTION:close(Connection, 0).

%% Neither the connections nor their workers keep what has gone through, while nothing comes.
idle_connections_keep_no_payloads(_Config) ->
    {Here, There} = ?CT:pair(#{handler => fun ?CT:echo/3}),
    Large = binary:copy(<<"x">>, 4 * ?MB),
    _ = ?CT:many(8, fun(_) -> {ok, 0, Large} = ?CONNECTION:request(Here, 1, Large) end, 30000),
    {links, Links} = process_info(There, links),
    Workers = [Pid || Pid <- Links, is_pid(Pid), Pid =/= self()],
    ?assertNotEqual([], Workers),
    [ok = causeway_ct:wait_until(fun() -> kept(Pid) < 100000 end) || Pid <- [Here, There | Workers]],
    ok = ?CONNECTION:close(Here).

kept(Process) ->
    {binary, Binaries} = process_info(Process, binary),
    lists:sum([Size || {_, Size, _} <- Binaries]).
