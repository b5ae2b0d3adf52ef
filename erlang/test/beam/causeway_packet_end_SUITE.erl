%% @doc Every way in which a packet connection ends wakes everybody who waits for it, and says why.
-module(causeway_packet_end_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-define(CONNECTION, causeway_packet_connection).
-define(CT, connection_ct).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [eof_packet, raw_eof, eof_in_a_packet, malformed, malformed_kinds, control_packets, length_bomb, random_bytes, reset,
     epipe_with_last_words, eof_answers_what_is_in_hand, eof_with_answer_at_once, bytes_after_eof, requests_after_eof,
     close_is_told, close_waits_for_handlers, close_waits_for_answers, close_within_its_time, close_refuses_requests,
     close_of_a_peer_that_never_reads, close_twice, close_answers_late_reply, both_close, half_close, half_close_at_once,
     erq, killed, owner_dies, other_owner_dies, starter_dies, supervisor_stops, handlers_die_with_it, peer_node_is_killed,
     descriptors_are_closed, callers_in_other_processes].

init_per_suite(Config) -> ?CT:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_testcase(_Case, Config) -> Config.

end_per_testcase(_Case, _Config) -> ?assertEqual([], causeway_ct:mailbox()).

%% A request of each kind that waits, and what came of it.
waiting(Connection) ->
    Test = self(),
    Caller = spawn_link(fun() -> Test ! {self(), ?CONNECTION:request(Connection, 1, <<"sync">>)} end),
    Id = ?CONNECTION:send_request(Connection, 2, <<"async">>),
    Timed = ?CONNECTION:send_request(Connection, 3, <<"timed">>, #{timeout => 100000}),
    causeway_ct:wait_until(fun() -> ?CT:info(Connection, outstanding) + ?CT:info(Connection, waiting) =:= 3 end),
    {Caller, [Id, Timed]}.

all_woken({Caller, Ids}, Result) ->
    receive {Caller, Synchronous} -> ?assertEqual(Result, Synchronous) end,
    [?assertEqual(Result, ?CONNECTION:receive_response(Id, 10000)) || Id <- Ids].

%% The peer

eof_packet(_Config) ->
    {Connection, Peer} = ?CT:with_peer(),
    Waiting = waiting(Connection),
    ok = ?CT:say(Peer, "03 00 02 00"),
    all_woken(Waiting, {error, {closed, eof}}),
    ?assertEqual(normal, ?CT:ended(Connection)).

raw_eof(_Config) ->
    {Connection, Peer} = ?CT:with_peer(),
    Waiting = waiting(Connection),
    ok = ?CT:say_nothing_more(Peer),
    all_woken(Waiting, {error, {closed, eof}}),
    ?assertEqual(normal, ?CT:ended(Connection)),
    Rest = ?CT:heard(Peer),
    ?assertEqual(?CT:hex("03 00 02 00"), binary:part(Rest, byte_size(Rest), -4)).

eof_in_a_packet(_Config) ->
    [begin
         {Connection, Peer} = ?CT:with_peer(),
         Waiting = waiting(Connection),
         ok = ?CT:say(Peer, Text),
         ok = ?CT:say_nothing_more(Peer),
         all_woken(Waiting, {error, {closed, truncated}}),
         ?assertEqual({shutdown, truncated}, ?CT:ended(Connection))
     end || Text <- ["81", "06", "06 01 02 01 6162", "02 07 04 06 01 02",
                     %% A large one, which is read to where it stays.
                     <<16#c0, 16#80, 3, 1, 2, 1, 0:(8 * 200000)>>]].

malformed(_Config) ->
    {Connection, Peer} = ?CT:with_peer(),
    Waiting = waiting(Connection),
    ok = ?CT:say(Peer, "02 09 04 01 01"),
    {shutdown, {malformed, Text} = Why} = ?CT:ended(Connection),
    ?assert(is_binary(Text)),
    all_woken(Waiting, {error, {closed, Why}}).

malformed_kinds(_Config) ->
    [begin
         {Connection, Peer} = ?CT:with_peer(#{handler => fun ?CT:echo/3}),
         Id = ?CONNECTION:send_request(Connection, 1),
         ok = ?CT:say(Peer, Text),
         ?assertMatch({error, {closed, {malformed, _}}}, ?CONNECTION:receive_response(Id, 10000)),
         ?assertMatch({shutdown, {malformed, _}}, ?CT:ended(Connection))
     end || Text <- ["00", "01 01", "02 81 81", "03 01 03 00", "03 01 02 81", "0c 01 02 ffffffffffffffffff7f"]].

%% Those that are neither end: the receive loop of cs.packetstream ends, too.
control_packets(_Config) ->
    [begin
         {Connection, Peer} = ?CT:with_peer(#{handler => fun ?CT:echo/3}),
         ok = ?CT:say(Peer, Text),
         ?assertEqual({shutdown, {malformed, <<"a control packet that is neither EOF nor ERQ">>}}, ?CT:ended(Connection))
     end || Text <- ["03 02 02 00", "04 00 02 00 61", "03 00 06 00", "04 00 03 01 00"]].

%% A length is believed only as far as the bytes are there, and what is too long is refused at once.
length_bomb(_Config) ->
    {Connection, Peer} = ?CT:with_peer(#{max_packet => 1000}),
    Id = ?CONNECTION:send_request(Connection, 1),
    ok = ?CT:say(Peer, "87 69"),
    ?assertMatch({error, {closed, {malformed, _}}}, ?CONNECTION:receive_response(Id, 10000)),
    ?assertMatch({shutdown, {malformed, _}}, ?CT:ended(Connection)),
    {Standard, Other} = ?CT:with_peer(),
    ok = ?CT:say(Other, "8f ff ff ff 7f"),
    ?assertMatch({shutdown, {malformed, _}}, ?CT:ended(Standard)),
    {Patient, Third} = ?CT:with_peer(),
    ok = ?CT:say(Third, <<16#9f, 16#ff, 16#ff, 16#7f, 1, 4, "abc">>),
    ok = ?CT:wait_info(Patient, bytes_in, 9),
    {memory, Memory} = process_info(Patient, memory),
    ?assert(Memory < 1000000),
    ok = ?CONNECTION:close(Patient),
    %% Nor does what comes of it say more.
    Before = causeway_ct:memory(binary),
    Many = [begin
                {Each, Silent} = ?CT:with_peer(),
                ok = ?CT:say(Silent, <<16#9f, 16#ff, 16#ff, 16#7f, 1, 4, 0:(8 * 200000)>>),
                ok = ?CT:wait_info(Each, bytes_in, 200006),
                Each
            end || _ <- lists:seq(1, 20)],
    ?assert(causeway_ct:memory(binary) - Before < 20 * 5000000),
    [ok = ?CONNECTION:close(Each, 0) || Each <- Many].

random_bytes(_Config) ->
    Seed = rand:seed(exsss),
    ct:log("seed ~p", [Seed]),
    [begin
         {Connection, Peer} = ?CT:with_peer(#{handler => fun ?CT:echo/3, max_packet => 10000}),
         Id = ?CONNECTION:send_request(Connection, 1),
         Bytes = << <<(random_byte(rand:uniform(4)))>> || _ <- lists:seq(1, rand:uniform(200)) >>,
         _ = gen_tcp:send(Peer, Bytes),
         _ = ?CT:say_nothing_more(Peer),
         case ?CONNECTION:receive_response(Id, 10000) of
             {error, {closed, _}} -> ok;
             {_, Flags, Payload} when is_integer(Flags), is_binary(Payload) -> ok
         end,
         case ?CT:ended(Connection) of
             normal -> ok;
             {shutdown, _} -> ok
         end
     end || _ <- lists:seq(1, 300)].

%% Often something that a packet has.
random_byte(1) -> rand:uniform(256) - 1;
random_byte(_) -> rand:uniform(8) - 1.

reset(_Config) ->
    {Connection, Peer} = ?CT:with_peer(),
    Waiting = waiting(Connection),
    ok = inet:setopts(Peer, [{linger, {true, 0}}]),
    ok = gen_tcp:close(Peer),
    all_woken(Waiting, {error, {closed, econnreset}}),
    ?assertEqual({shutdown, econnreset}, ?CT:ended(Connection)).

%% What the peer has said before it went away counts more than that nothing can be written any more.
epipe_with_last_words(_Config) ->
    {ok, Input} = py_byte_channel:new(),
    {ok, Output} = py_byte_channel:new(),
    Connection = ?CT:start({Input, Output}, #{}),
    Id = ?CONNECTION:send_request(Connection, 1),
    {ok, <<3, 1, 2, 2>>} = py_byte_channel:recv(Output),
    ok = sys:suspend(Connection),
    ok = py_byte_channel:send(Input, ?CT:hex("03 01 04 61 03 00 02 00")),
    ok = py_byte_channel:close(Output),
    Late = ?CONNECTION:send_request(Connection, 1),
    ok = sys:resume(Connection),
    ?assertEqual({ok, 0, <<"a">>}, ?CONNECTION:receive_response(Id)),
    ?assertEqual({error, {closed, eof}}, ?CONNECTION:receive_response(Late)),
    ?assertEqual(normal, ?CT:ended(Connection)),
    %% And where it has said nothing, that is the reason.
    {ok, Silent} = py_byte_channel:new(),
    {ok, Gone} = py_byte_channel:new(),
    Other = ?CT:start({Silent, Gone}, #{}),
    ok = py_byte_channel:close(Gone),
    ?assertEqual({error, {closed, epipe}}, ?CONNECTION:request(Other, 1)),
    ?assertEqual({shutdown, epipe}, ?CT:ended(Other)).

%% Half-close of the peer: what it has asked for it gets.
eof_answers_what_is_in_hand(_Config) ->
    Test = self(),
    {Connection, Peer} = ?CT:with_peer(#{handler => fun(_, _, P, From) -> Test ! {From, P}, noreply end}),
    ok = ?CT:say(Peer, "04 01 02 01 61 04 02 02 01 62 03 00 02 00"),
    [receive {From, P} -> ok = ?CONNECTION:reply(From, [P, P]) end || _ <- "12"],
    ok = ?CT:hear(Peer, "04 01 04 6161 04 02 04 6262 03 00 02 00"),
    ok = ?CT:hear_end(Peer),
    ?assertEqual(normal, ?CT:ended(Connection)).

eof_with_answer_at_once(_Config) ->
    {Connection, Peer} = ?CT:with_peer(#{handler => fun ?CT:echo/3}),
    ok = ?CT:say(Peer, <<(?CT:requests(1, 500, <<"abc">>))/binary, 3, 0, 2, 0>>),
    Heard = ?CT:heard(Peer),
    Packets = ?CT:packets(Heard),
    ?assertEqual({request, 0, 0, 0, 0, <<>>}, lists:last(Packets)),
    ?assertEqual(501, length(Packets)),
    ?assertEqual(normal, ?CT:ended(Connection)).

bytes_after_eof(_Config) ->
    Test = self(),
    {Connection, Peer} = ?CT:with_peer(#{handler => fun(_, _, _) -> Test ! handled, ok end}),
    ok = ?CT:say(Peer, "03 00 02 00 03 01 02 01 00 00"),
    ?assertEqual(normal, ?CT:ended(Connection)),
    ?assertEqual([], causeway_ct:mailbox()).

requests_after_eof(_Config) ->
    Test = self(),
    {Connection, Peer} = ?CT:with_peer(#{handler => fun(_, _, _, From) -> Test ! From, noreply end}),
    ok = ?CT:say(Peer, "03 01 02 01 03 00 02 00"),
    From = receive F -> F end,
    ok = ?CT:wait_info(Connection, state, peer_ended),
    ?assertEqual({error, {closed, eof}}, ?CONNECTION:request(Connection, 1)),
    ok = ?CONNECTION:reply(From, ok),
    ?assertEqual(normal, ?CT:ended(Connection)).

%% Closing

close_is_told(_Config) ->
    {Connection, Peer} = ?CT:with_peer(),
    ok = ?CONNECTION:close(Connection),
    ok = ?CT:hear(Peer, "03 00 02 00"),
    ok = ?CT:hear_end(Peer),
    ?assertEqual(normal, ?CT:ended(Connection)).

close_waits_for_handlers(_Config) ->
    Test = self(),
    {Connection, Peer} = ?CT:with_peer(#{workers => 1, handler => fun(_, _, P) ->
                                                                      Test ! {handles, self()},
                                                                      receive go -> P end
                                                                  end}),
    ok = ?CT:say(Peer, "04 01 02 01 61 04 02 02 01 62"),
    ok = ?CT:wait_info(Connection, in_hand, 2),
    Closer = spawn_link(fun() -> ok = ?CONNECTION:close(Connection, infinity), Test ! closed end),
    ok = ?CT:wait_info(Connection, state, closing),
    [receive {handles, Pid} -> Pid ! go end || _ <- "12"],
    receive closed -> ok end,
    ?assertEqual(false, is_process_alive(Connection)),
    ok = ?CT:hear(Peer, "03 01 04 61 03 02 04 62 03 00 02 00"),
    ?assert(is_pid(Closer)).

close_waits_for_answers(_Config) ->
    {Connection, Peer} = ?CT:with_peer(),
    Ids = [?CONNECTION:send_request(Connection, N) || N <- [1, 2]],
    ok = ?CT:hear(Peer, "03 01 02 02 03 02 02 03"),
    Test = self(),
    spawn_link(fun() -> ok = ?CONNECTION:close(Connection, infinity), Test ! closed end),
    ok = ?CT:wait_info(Connection, state, closing),
    ok = ?CT:say(Peer, "03 02 04 62"),
    ?assertEqual({ok, 0, <<"b">>}, ?CONNECTION:receive_response(lists:last(Ids))),
    ?assert(is_process_alive(Connection)),
    ok = ?CT:say(Peer, "03 01 04 61"),
    ?assertEqual({ok, 0, <<"a">>}, ?CONNECTION:receive_response(hd(Ids))),
    receive closed -> ok end,
    ok = ?CT:hear(Peer, "03 00 02 00").

close_within_its_time(_Config) ->
    Test = self(),
    {Connection, Peer} = ?CT:with_peer(#{handler => fun(_, _, _) -> Test ! {handles, self()}, receive go -> ok end end}),
    Waiting = waiting(Connection),
    ok = ?CT:say(Peer, "03 01 02 01"),
    Handler = receive {handles, Pid} -> Pid end,
    Monitor = erlang:monitor(process, Handler),
    ok = ?CONNECTION:close(Connection, 50),
    all_woken(Waiting, {error, {closed, local}}),
    receive {'DOWN', Monitor, process, Handler, killed} -> ok end,
    Heard = ?CT:heard(Peer),
    ?assertEqual(?CT:hex("03 00 02 00"), binary:part(Heard, byte_size(Heard), -4)),
    ?assertEqual(normal, ?CT:ended(Connection)).

close_refuses_requests(_Config) ->
    Test = self(),
    {Connection, Peer} = ?CT:with_peer(#{handler => fun(_, _, _, From) -> Test ! From, noreply end}),
    ok = ?CT:say(Peer, "03 01 02 01"),
    From = receive F -> F end,
    spawn_link(fun() -> ok = ?CONNECTION:close(Connection, infinity), Test ! closed end),
    ok = ?CT:wait_info(Connection, state, closing),
    ?assertEqual({error, closing}, ?CONNECTION:request(Connection, 1)),
    ok = ?CT:say(Peer, "03 02 02 01"),
    ok = ?CT:hear(Peer, <<39, 2, 0, "rejecting request: runstate.cancelled">>),
    ok = ?CONNECTION:reply(From, ok),
    receive closed -> ok end,
    ok = ?CT:hear(Peer, "02 01 04 03 00 02 00").

close_of_a_peer_that_never_reads(_Config) ->
    {Connection, _Peer} = ?CT:with_peer(#{send_window => infinity}),
    Ids = [?CONNECTION:send_request(Connection, 1, binary:copy(<<0>>, 1 bsl 20)) || _ <- lists:seq(1, 20)],
    ok = ?CT:wait_info(Connection, outstanding, 20),
    ok = ?CONNECTION:close(Connection, 100),
    [?assertEqual({error, {closed, local}}, ?CONNECTION:receive_response(Id)) || Id <- Ids],
    ?assertEqual(normal, ?CT:ended(Connection)).

close_twice(_Config) ->
    {Connection, _Peer} = ?CT:with_peer(),
    Id = ?CONNECTION:send_request(Connection, 1),
    Test = self(),
    spawn_link(fun() -> ok = ?CONNECTION:close(Connection, infinity), Test ! closed end),
    ok = ?CT:wait_info(Connection, state, closing),
    ok = ?CONNECTION:close(Connection, 0),
    receive closed -> ok end,
    ?assertEqual({error, {closed, local}}, ?CONNECTION:receive_response(Id)),
    ok = ?CONNECTION:close(Connection).

close_answers_late_reply(_Config) ->
    Test = self(),
    {Connection, Peer} = ?CT:with_peer(#{handler => fun(_, _, _, From) -> Test ! From, noreply end}),
    ok = ?CT:say(Peer, "03 01 02 01"),
    From = receive F -> F end,
    spawn_link(fun() -> ok = ?CONNECTION:close(Connection, infinity), Test ! closed end),
    ok = ?CT:wait_info(Connection, state, closing),
    ok = ?CONNECTION:reply(From, <<"late">>),
    receive closed -> ok end,
    ok = ?CT:hear(Peer, "06 01 04 6c617465 03 00 02 00").

both_close(_Config) ->
    [begin
         {Here, There} = ?CT:pair(#{handler => fun ?CT:echo/3}, #{handler => fun ?CT:echo/3}),
         Test = self(),
         [spawn_link(fun() -> ok = ?CONNECTION:close(End), Test ! closed end) || End <- [Here, There]],
         [receive closed -> ok end || _ <- "12"],
         ?assertEqual([normal, normal], [?CT:ended(End) || End <- [Here, There]])
     end || _ <- lists:seq(1, 50)].

half_close(_Config) ->
    {Connection, Peer} = ?CT:with_peer(),
    Id = ?CONNECTION:send_request(Connection, 1),
    ok = ?CONNECTION:send_eof(Connection),
    ?assertEqual({error, requests_ended}, ?CONNECTION:request(Connection, 1)),
    ok = ?CT:hear(Peer, "03 01 02 02 03 00 02 00"),
    ok = ?CT:hear_end(Peer),
    ?assertMatch(#{state := half_closed, outstanding := 1}, ?CONNECTION:info(Connection)),
    ok = ?CT:say(Peer, "03 01 04 61"),
    ?assertEqual({ok, 0, <<"a">>}, ?CONNECTION:receive_response(Id)),
    ?assertEqual(normal, ?CT:ended(Connection)).

half_close_at_once(_Config) ->
    {Connection, Peer} = ?CT:with_peer(),
    ok = ?CONNECTION:send_eof(Connection),
    ok = ?CT:hear(Peer, "03 00 02 00"),
    ok = ?CT:hear_end(Peer),
    ?assertEqual(normal, ?CT:ended(Connection)).

erq(_Config) ->
    {Connection, Peer} = ?CT:with_peer(#{handler => fun ?CT:echo/3}),
    Id = ?CONNECTION:send_request(Connection, 1),
    ok = ?CONNECTION:send_erq(Connection),
    ok = ?CONNECTION:send_erq(Connection),
    ok = ?CT:hear(Peer, "03 01 02 02 03 01 02 00"),
    ?assertEqual({error, requests_ended}, ?CONNECTION:request(Connection, 1)),
    ok = ?CT:say(Peer, "04 01 02 01 61 02 01 04"),
    ok = ?CT:hear(Peer, "03 01 04 61"),
    ?assertEqual({ok, 0, <<>>}, ?CONNECTION:receive_response(Id)),
    ok = ?CONNECTION:close(Connection).

%% Processes

killed(_Config) ->
    {Connection, Peer} = ?CT:with_peer(),
    Waiting = waiting(Connection),
    exit(Connection, kill),
    all_woken(Waiting, {error, {closed, killed}}),
    _ = ?CT:heard(Peer).

owner_dies(_Config) ->
    Test = self(),
    {Socket, Peer} = ?CT:sockets(),
    Owner = spawn(fun() ->
                      receive socket -> ok end,
                      {ok, Connection} = ?CONNECTION:start_link(Socket),
                      Test ! {started, Connection},
                      receive {die, Reason} -> exit(Reason) end
                  end),
    ok = gen_tcp:controlling_process(Socket, Owner),
    Owner ! socket,
    Connection = receive {started, Pid} -> Pid end,
    Id = ?CONNECTION:send_request(Connection, 1),
    ok = ?CT:hear(Peer, "03 01 02 02"),
    Owner ! {die, reason},
    ?assertEqual({error, {closed, {owner, reason}}}, ?CONNECTION:receive_response(Id)),
    ok = ?CT:hear(Peer, "03 00 02 00"),
    ok = ?CT:hear_end(Peer).

other_owner_dies(_Config) ->
    Owner = spawn(fun() -> receive die -> ok end end),
    {Connection, Peer} = ?CT:with_peer(#{owner => Owner}),
    Id = ?CONNECTION:send_request(Connection, 1),
    Owner ! die,
    ?assertEqual({error, {closed, {owner, normal}}}, ?CONNECTION:receive_response(Id)),
    ?assertEqual({shutdown, {owner, normal}}, ?CT:ended(Connection)),
    _ = ?CT:heard(Peer).

%% Nobody but the starter is harmed by what ends a connection, and that only by what is no order.
starter_dies(_Config) ->
    Test = self(),
    {Socket, Peer} = ?CT:sockets(),
    Starter = spawn(fun() ->
                        process_flag(trap_exit, true),
                        receive socket -> ok end,
                        {ok, Connection} = ?CONNECTION:start_link(Socket),
                        receive {'EXIT', Connection, Reason} -> Test ! {exit, Reason} end
                    end),
    ok = gen_tcp:controlling_process(Socket, Starter),
    Starter ! socket,
    ok = ?CT:say(Peer, "00"),
    receive {exit, Reason} -> ?assertMatch({shutdown, {malformed, _}}, Reason) end.

supervisor_stops(_Config) ->
    {ok, Listener} = gen_tcp:listen(0, [binary, {active, false}, {ip, {127, 0, 0, 1}}]),
    {ok, Port} = inet:port(Listener),
    Connect = fun() -> gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, false}]) end,
    {ok, Supervisor} = supervisor:start_link(connection_sup, [[Connect, #{name => {local, packet_test}}]]),
    {ok, First} = gen_tcp:accept(Listener),
    Id = ?CONNECTION:send_request(packet_test, 1),
    ok = ?CT:hear(First, "03 01 02 02"),
    %% It connects again.
    Before = whereis(packet_test),
    Monitor = erlang:monitor(process, Before),
    ok = gen_tcp:close(First),
    ?assertEqual({error, {closed, eof}}, ?CONNECTION:receive_response(Id)),
    receive {'DOWN', Monitor, process, Before, normal} -> ok end,
    {ok, Second} = gen_tcp:accept(Listener),
    causeway_ct:wait_until(fun() -> is_pid(whereis(packet_test)) end),
    Next = ?CONNECTION:send_request(packet_test, 1),
    ok = ?CT:hear(Second, "03 01 02 02"),
    unlink(Supervisor),
    Stopped = erlang:monitor(process, Supervisor),
    exit(Supervisor, shutdown),
    ?assertEqual({error, {closed, {owner, shutdown}}}, ?CONNECTION:receive_response(Next)),
    receive {'DOWN', Stopped, process, Supervisor, shutdown} -> ok end,
    ok = ?CT:hear(Second, "03 00 02 00").

handlers_die_with_it(_Config) ->
    Test = self(),
    [begin
         {Connection, Peer} = ?CT:with_peer(#{handler => fun(_, _, _) -> Test ! {handles, self()}, receive go -> ok end end}),
         ok = ?CT:say(Peer, "03 01 02 01"),
         Handler = receive {handles, Pid} -> Pid end,
         Monitor = erlang:monitor(process, Handler),
         ok = End(Connection, Peer),
         receive {'DOWN', Monitor, process, Handler, _} -> ok end
     end || End <- [fun(Connection, _) -> exit(Connection, kill), ok end,
                    fun(_, Peer) -> ?CT:say(Peer, "00") end,
                    fun(Connection, _) -> ?CONNECTION:close(Connection, 0) end]].

%% The peer's process is killed: the kernel ends its stream.
peer_node_is_killed(_Config) ->
    {Here, There} = ?CT:pair(#{handler => fun(_, _, _) -> receive after infinity -> ok end end}),
    Waiting = waiting(Here),
    exit(There, kill),
    all_woken(Waiting, {error, {closed, eof}}),
    ?assertEqual(normal, ?CT:ended(Here)).

descriptors_are_closed(_Config) ->
    Count = fun() -> {ok, Files} = file:list_dir("/proc/self/fd"), length(Files) end,
    Start = Count(),
    [begin
         {Here, There} = ?CT:pair(#{handler => fun ?CT:echo/3}),
         {ok, 0, <<"a">>} = ?CONNECTION:request(Here, 1, <<"a">>),
         case N rem 3 of
             0 -> exit(Here, kill);
             1 -> ok = ?CONNECTION:close(Here);
             2 -> ok = ?CONNECTION:close(There)
         end,
         _ = ?CT:ended(Here),
         _ = ?CT:ended(There)
     end || N <- lists:seq(1, 100)],
    causeway_ct:wait_until(fun() -> Count() =< Start + 2 end).

callers_in_other_processes(_Config) ->
    {Connection, Peer} = ?CT:with_peer(),
    Test = self(),
    _ = spawn_link(fun() ->
                       ok = ?CT:wait_info(Connection, outstanding, 300),
                       Test ! go
                   end),
    _ = spawn_link(fun() -> Test ! {results, ?CT:many(300, fun(N) -> ?CONNECTION:request(Connection, N) end, 30000)} end),
    receive go -> ok end,
    ok = ?CT:say(Peer, "03 00 02 00"),
    receive {results, Results} -> ?assertEqual([{error, {closed, eof}}], lists:usort(Results)) end.
