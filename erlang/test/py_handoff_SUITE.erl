%% @doc Who owns a socket or a descriptor: handed over, refused, and what was received before.
-module(py_handoff_SUITE).

-compile([export_all, nowarn_export_all]).

-import(socket_ct, [use/1, context/0, context/1, pair/2, pair/3, ask/2, read/2, read_all/1, made/0, lost/1, all_is/1]).

-include_lib("stdlib/include/assert.hrl").

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [sockets_of_every_kind, default_context, owner_that_is_killed, keys_of_the_caller_win, one_descriptor_for_each, number_of_an_own_socket,
     number_of_a_foreign_socket, duplicates, messages_come_first, packets_get_their_headers_back, half_a_packet,
     unread_bytes_come_first, messages_of_a_port, lists_and_headers, bytes_that_come_meanwhile, decoded_messages_are_refused,
     unsent_bytes_are_refused, peer_has_closed, peer_has_closed_an_active_socket, peer_may_still_read,
     options_stay_after_an_error, socket_stays_after_an_error, losers_keep_their_data, sockets_of_others, closed_sockets,
     tls_and_nonsense, server_is_gone, pipes, terminals, eventfds, not_to_be_waited_for, numbers_that_are_not_open].

init_per_suite(Config) -> causeway_ct:start(Config).

init_per_testcase(_Case, Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

%% Handed over

sockets_of_every_kind(_Config) ->
    use('Echo'),
    Context = context(),
    [begin
         {Client, Server} = pair(Kind, Family),
         ok = py_reactor_context:handoff(Context, Server, #{}),
         {Fd, Info} = made(),
         ?assertEqual({Kind, Family, description(Client, Family)}, {Kind, Family, Info}),
         ?assertEqual(<<"echo">>, ask(Client, <<"echo">>)),
         ?assertEqual({error, closed}, py_reactor_context:handoff(Context, Server, #{})),
         ?assertEqual(<<"echo">>, ask(Client, <<"echo">>)),
         ok = gen_tcp:close(Client),
         ok = lost(Fd)
     end || Kind <- socket_ct:kinds(), Family <- socket_ct:families()],
    ?assertEqual([], causeway_ct:mailbox()).

description(_Client, local) ->
    #{<<"type">> => <<"unix">>};
description(Client, _Family) ->
    {ok, {Address, Port}} = inet:sockname(Client),
    #{<<"type">> => <<"tcp">>, <<"addr">> => list_to_binary(inet:ntoa(Address)), <<"port">> => Port}.

default_context(_Config) ->
    use('Echo'),
    [begin
         {Client, Server} = pair(Kind, inet),
         ok = py_reactor_context:handoff(Server, #{}),
         ?assertEqual(<<"echo">>, ask(Client, <<"echo">>)),
         ok = gen_tcp:close(Client)
     end || Kind <- socket_ct:kinds()].

%% Before, while or after it hands its socket over: then the connection has ended, or is served. No descriptor is left.
owner_that_is_killed(_Config) ->
    use('Echo'),
    Context = context(),
    [begin
         {First, Fd} = handed_over(Context, Kind),
         Before = causeway_ct:descriptors(),
         Outcomes = [begin
                         {Client, Server} = pair(Kind, inet),
                         Owner = spawn(fun() -> receive go -> ok end, _ = py_reactor_context:handoff(Context, Server, #{}), receive after infinity -> ok end end),
                         ok = give(Kind, Server, Owner),
                         Owner ! go,
                         ok = spin_until(erlang:monotonic_time(microsecond) + Microseconds),
                         exit(Owner, kill),
                         Outcome = echoes(Client),
                         ok = gen_tcp:close(Client),
                         Outcome
                     end || Microseconds <- lists:seq(0, 1600, 8)],
         ct:log("~p: ~p served, ~p closed", [Kind, length([ok || served <- Outcomes]), length([ok || closed <- Outcomes])]),
         ok = causeway_ct:wait_until(fun() -> 1 =:= socket_ct:active(Context) end),
         ok = causeway_ct:settled(fun causeway_ct:descriptors/0, Before),
         ok = gen_tcp:close(First),
         ok = lost(Fd)
     end || Kind <- socket_ct:kinds()].

handed_over(Context, Kind) ->
    {Client, Server} = pair(Kind, inet),
    ok = py_reactor_context:handoff(Context, Server, #{}),
    {Fd, _} = made(),
    {Client, Fd}.

give(plain, Socket, Owner) -> socket:setopt(Socket, otp, controlling_process, Owner);
give(_Kind, Socket, Owner) -> gen_tcp:controlling_process(Socket, Owner).

echoes(Client) ->
    case gen_tcp:send(Client, <<"echo">>) =:= ok andalso gen_tcp:recv(Client, 4, 10000) of
        {ok, <<"echo">>} -> served;
        Result when Result =:= false; Result =:= {error, closed}; Result =:= {error, econnreset} -> closed
    end.

spin_until(End) ->
    case erlang:monotonic_time(microsecond) < End of
        true -> spin_until(End);
        false -> ok
    end.

keys_of_the_caller_win(_Config) ->
    use('Echo'),
    Context = context(),
    [begin
         {_Client, Server} = pair(Kind, inet),
         ok = py_reactor_context:handoff(Context, Server, #{addr => {10, 0, 0, 1}, <<"port">> => 7, more => [1]}),
         ?assertMatch({_, #{<<"addr">> := <<"10.0.0.1">>, <<"port">> := 7, <<"type">> := <<"tcp">>, <<"more">> := [1]}}, made())
     end || Kind <- socket_ct:kinds()].

one_descriptor_for_each(_Config) ->
    use('Echo'),
    Context = context(),
    [begin
         Before = causeway_ct:descriptors(),
         Clients = [begin
                        {Client, Server} = pair(Kind, inet),
                        ok = py_reactor_context:handoff(Context, Server, #{}),
                        Client
                    end || _ <- lists:seq(1, 100)],
         [?assertEqual(<<"a">>, ask(Client, <<"a">>)) || Client <- Clients],
         %% Two for each connection, one of them the client's; and the poller with its bell.
         ok = causeway_ct:settled(fun causeway_ct:descriptors/0, Before + 202),
         [ok = gen_tcp:close(Client) || Client <- Clients],
         ok = causeway_ct:settled(fun causeway_ct:descriptors/0, Before + 2)
     end || Kind <- socket_ct:kinds()].

%% Method 1 of the documentation: the number is enough.
number_of_an_own_socket(_Config) ->
    use('Receiver'),
    Context = context(),
    [begin
         {Client, Server} = pair(Kind, inet, [{active, true}]),
         ok = gen_tcp:send(Client, <<"early ">>),
         Kind =:= port andalso await_message(),
         ok = py_reactor_context:handoff(Context, number(Server), #{mine => 1}),
         {Fd, Info} = made(),
         ?assertEqual(#{<<"mine">> => 1}, Info),
         ok = gen_tcp:send(Client, <<"late">>),
         ok = all_is(<<"early late">>),
         ?assertEqual({error, closed}, py_reactor_context:handoff(Context, Server, #{})),
         ok = gen_tcp:close(Client),
         ok = lost(Fd)
     end || Kind <- [port, plain]].

number_of_a_foreign_socket(_Config) ->
    use('Echo'),
    Context = context(),
    [begin
         {Client, Server} = pair(Kind, inet),
         Result = elsewhere(fun() -> py_reactor_context:handoff(Context, number(Server), #{}) end),
         ?assertEqual({Kind, {error, not_owner}}, {Kind, Result}),
         still_usable(Client, Server)
     end || Kind <- [port, plain]],
    %% The number of a server's socket is the server's.
    {Client, Server} = pair(server, inet),
    ?assertEqual({error, not_owner}, py_reactor_context:handoff(Context, number(Server), #{})),
    still_usable(Client, Server),
    ?assertEqual(0, socket_ct:active(Context)).

duplicates(_Config) ->
    use('Echo'),
    Context = context(),
    [begin
         Before = causeway_ct:descriptors(),
         {Client, Server} = pair(Kind, inet),
         {ok, Duplicate} = py:dup_fd(number(Server)),
         ok = py_reactor_context:handoff(Context, Duplicate, #{}),
         {Duplicate, _} = made(),
         ok = close(Server),
         ?assertEqual(<<"echo">>, ask(Client, <<"echo">>)),
         ok = gen_tcp:close(Client),
         ok = lost(Duplicate),
         ok = causeway_ct:settled(fun causeway_ct:descriptors/0, Before + 2)
     end || Kind <- socket_ct:kinds()].

%% What was received before

messages_come_first(_Config) ->
    use('Receiver'),
    Context = context(),
    [begin
         {Client, Server} = pair(Kind, inet),
         ok = inet:setopts(Server, [{active, Active}]),
         self() ! first,
         ok = gen_tcp:send(Client, <<"one">>),
         ok = await_message(),
         self() ! last,
         Active =:= once andalso begin ok = gen_tcp:send(Client, <<"two">>) end,
         ok = py_reactor_context:handoff(Context, Server, #{}),
         ok = gen_tcp:send(Client, <<"three">>),
         ok = all_is(case Active of once -> <<"onetwothree">>; _ -> <<"onethree">> end),
         {Fd, _} = made(),
         ok = gen_tcp:close(Client),
         ok = lost(Fd),
         ?assertEqual([first, last], [Message || Message <- causeway_ct:mailbox(), is_atom(Message)]),
         ?assertEqual([], [Message || Message <- causeway_ct:mailbox(), is_tuple(Message), not is_binary(element(1, Message))]),
         [receive Message -> ok end || Message <- [first, last]]
     end || Kind <- [port, server], Active <- [true, once, 1, 5]].

packets_get_their_headers_back(_Config) ->
    use('Receiver'),
    Context = context(),
    [begin
         {Client, Server} = pair(Kind, inet),
         ok = inet:setopts(Server, [{packet, Packet}]),
         ok = inet:setopts(Server, [{active, true}]),
         ok = gen_tcp:send(Client, Wire),
         ok = await_messages(Server, Number),
         ok = py_reactor_context:handoff(Context, Server, #{}),
         ok = all_is(Wire),
         ok = gen_tcp:close(Client)
     end || Kind <- [port, server],
            {Packet, Wire, Number} <- [{1, <<3, "abc", 0, 2, "de">>, 3}, {2, <<3:16, "abc", 1:16, "d">>, 2},
                                       {4, <<3:32, "abc", 70000:32, 0:70000/unit:8>>, 2}, {line, <<"one\ntwo\n">>, 2},
                                       {tpkt, <<3, 0, 6:16, "ab">>, 1}]].

%% What the driver has of a packet that is not complete.
half_a_packet(_Config) ->
    use('Receiver'),
    Context = context(),
    [begin
         {Client, Server} = pair(Kind, inet),
         ok = inet:setopts(Server, [{packet, 4}]),
         Wire = [<<9:32, "a packet.", Size:32>>, binary:copy(<<"x">>, Size div 2)],
         ok = gen_tcp:send(Client, Wire),
         case Active of
             true ->
                 ok = inet:setopts(Server, [{active, true}]),
                 ok = await_message();
             false ->
                 {ok, <<"a packet.">>} = gen_tcp:recv(Server, 0, 5000),
                 {error, timeout} = gen_tcp:recv(Server, 0, 20)
         end,
         ok = py_reactor_context:handoff(Context, Server, #{}),
         ok = gen_tcp:send(Client, <<"the end">>),
         All = iolist_to_binary([Wire, "the end"]),
         ok = all_is(case Active of true -> All; false -> binary:part(All, 13, byte_size(All) - 13) end),
         ok = gen_tcp:close(Client)
     end || Kind <- [port, server], Active <- [true, false], Size <- [10, 3000000]].

unread_bytes_come_first(_Config) ->
    use('Receiver'),
    Context = context(),
    [begin
         {Client, Server} = pair(Kind, inet),
         Data = binary:copy(<<"0123456789">>, 1000),
         ok = gen_tcp:send(Client, Data),
         First = receive_from(Server, 7),
         ?assertEqual(binary:part(Data, 0, 7), First),
         ok = py_reactor_context:handoff(Context, Server, #{}),
         ok = all_is(binary:part(Data, 7, byte_size(Data) - 7)),
         ok = gen_tcp:close(Client)
     end || Kind <- socket_ct:kinds()],
    %% Bytes that Erlang has given back.
    {Client, Server} = pair(port, inet),
    ok = gen_tcp:unrecv(Server, <<"again">>),
    ok = py_reactor_context:handoff(Context, Server, #{}),
    ok = all_is(<<"again">>),
    ok = gen_tcp:close(Client).

messages_of_a_port(_Config) ->
    use('Receiver'),
    Context = context(),
    {Client, Server} = pair(port, inet),
    ok = inet:setopts(Server, [{deliver, port}, {active, true}, {packet, 2}]),
    ok = gen_tcp:send(Client, <<2:16, "ab">>),
    ok = await_message(),
    ok = py_reactor_context:handoff(Context, Server, #{}),
    ok = all_is(<<2:16, "ab">>).

lists_and_headers(_Config) ->
    use('Receiver'),
    Context = context(),
    [begin
         {Client, Server} = pair(port, inet),
         ok = inet:setopts(Server, Options),
         ok = inet:setopts(Server, [{active, once}]),
         ok = gen_tcp:send(Client, <<"ab", 255>>),
         ok = await_message(),
         ok = gen_tcp:send(Client, <<"c">>),
         ok = py_reactor_context:handoff(Context, Server, #{}),
         ok = all_is(<<"ab", 255, "c">>)
     end || Options <- [[list], [{header, 2}], [list, {header, 2}]]].

%% The peer never stops to send: nothing is lost, nothing is doubled, and the handoff comes to an end.
bytes_that_come_meanwhile(_Config) ->
    use('Echo'),
    Context = context(),
    Block = << <<N:32>> || N <- lists:seq(1, 50000) >>,
    [begin
         {Client, Server} = pair(Kind, inet),
         Sender = spawn_link(fun() -> ok = gen_tcp:send(Client, Block) end),
         ok = gen_tcp:controlling_process(Client, self()),
         Kind =:= plain orelse inet:setopts(Server, [{active, Active}]),
         ok = py_reactor_context:handoff(Context, Server, #{}),
         ?assert(Block =:= read(Client, byte_size(Block))),
         unlink(Sender),
         ok = gen_tcp:close(Client)
     end || Kind <- socket_ct:kinds(), Active <- [false, true, once], _ <- lists:seq(1, 5)].

decoded_messages_are_refused(_Config) ->
    use('Receiver'),
    Context = context(),
    [begin
         {Client, Server} = pair(Kind, inet),
         ok = inet:setopts(Server, [{packet, http_bin}, {active, once}]),
         ok = gen_tcp:send(Client, <<"GET / HTTP/1.0\r\nA: b\r\n\r\n">>),
         ok = await_message(),
         ?assertMatch({error, {unread, <<_, _/binary>>}}, py_reactor_context:handoff(Context, Server, #{})),
         receive {http, Server, {http_request, 'GET', _, _}} -> ok after 0 -> error(causeway_ct:mailbox()) end,
         ?assertMatch({ok, {http_header, _, _, _, <<"b">>}}, gen_tcp:recv(Server, 0, 5000)),
         ?assertEqual({ok, http_eoh}, gen_tcp:recv(Server, 0, 5000)),
         ok = inet:setopts(Server, [{packet, raw}]),
         still_usable(Client, Server)
     end || Kind <- [port, server]],
    ?assertEqual([], causeway_ct:mailbox()).

unsent_bytes_are_refused(_Config) ->
    use('Echo'),
    Context = context(),
    {Client, Server} = pair(port, inet, [{high_watermark, 64 bsl 20}]),
    Size = 32 bsl 20,
    ok = gen_tcp:send(Server, binary:copy(<<"x">>, Size)),
    ?assertMatch({error, {unsent, <<_, _/binary>>}}, py_reactor_context:handoff(Context, Server, #{})),
    _ = read(Client, Size),
    ok = causeway_ct:wait_until(fun() -> {ok, [{send_pend, 0}]} =:= inet:getstat(Server, [send_pend]) end),
    ok = py_reactor_context:handoff(Context, Server, #{}),
    ?assertEqual(<<"echo">>, ask(Client, <<"echo">>)).

%% Peers that are gone

peer_has_closed(_Config) ->
    use('Receiver'),
    Context = context(),
    [begin
         {Client, Server} = pair(Kind, Family),
         ok = gen_tcp:send(Client, <<"last words">>),
         ok = gen_tcp:close(Client),
         ok = py_reactor_context:handoff(Context, Server, #{}),
         {Fd, _} = made(),
         ok = all_is(<<"last words">>),
         ok = lost(Fd)
     end || Kind <- socket_ct:kinds(), Family <- socket_ct:families()].

%% By then Erlang has closed the socket by itself: what came is in the mailbox as ever.
peer_has_closed_an_active_socket(_Config) ->
    use('Receiver'),
    Context = context(),
    {Client, Server} = pair(port, inet),
    ok = inet:setopts(Server, [{active, true}]),
    ok = gen_tcp:send(Client, <<"last words">>),
    ok = gen_tcp:close(Client),
    ok = causeway_ct:wait_until(fun() -> undefined =:= erlang:port_info(Server) end),
    ?assertEqual({error, closed}, py_reactor_context:handoff(Context, Server, #{})),
    ?assertEqual([{tcp, Server, <<"last words">>}, {tcp_closed, Server}], causeway_ct:mailbox()),
    %% A socket that stays open all the same is handed over with its end.
    {Second, Open} = pair(port, inet, [{exit_on_close, false}]),
    ok = inet:setopts(Open, [{active, true}]),
    ok = gen_tcp:send(Second, <<"last words">>),
    ok = gen_tcp:close(Second),
    ok = causeway_ct:wait_until(fun() -> lists:member({tcp_closed, Open}, causeway_ct:mailbox()) end),
    ok = py_reactor_context:handoff(Context, Open, #{}),
    {Fd, _} = made(),
    ok = all_is(<<"last words">>),
    ok = lost(Fd),
    ?assertEqual([{tcp, Server, <<"last words">>}, {tcp_closed, Server}], causeway_ct:mailbox()).

peer_may_still_read(_Config) ->
    use('HalfOpenUntilWritten'),
    Context = context(),
    [begin
         {Client, Server} = pair(Kind, inet),
         ok = gen_tcp:send(Client, <<"question">>),
         ok = gen_tcp:shutdown(Client, write),
         ?assertEqual(<<"question">>, receive_from(Server, 8)),
         ok = py_reactor_context:handoff(Context, Server, #{}),
         {ok, Answer} = py:call(socket_protocols, megabytes, []),
         ?assert({bytes, Answer} =:= {bytes, read_all(Client)})
     end || Kind <- socket_ct:kinds()].

%% Refused

options_stay_after_an_error(_Config) ->
    use('Echo'),
    Full = context(#{max_connections => 0}),
    [begin
         {Client, Server} = pair(Kind, inet),
         ok = inet:setopts(Server, Options),
         {ok, Before} = inet:getopts(Server, [active, packet, exit_on_close]),
         ok = gen_tcp:send(Client, <<3:16, "abc">>),
         proplists:get_value(active, Options) =/= false andalso await_message(),
         Mailbox = causeway_ct:mailbox(),
         ?assertEqual({error, max_connections}, py_reactor_context:handoff(Full, Server, #{})),
         ?assertEqual({ok, Before}, active_as_before(Options, inet:getopts(Server, [active, packet, exit_on_close]))),
         ?assertEqual(Mailbox, causeway_ct:mailbox()),
         proplists:get_value(active, Options) =:= false andalso ?assertEqual({ok, <<"abc">>}, gen_tcp:recv(Server, 0, 5000)),
         flush(),
         ok = gen_tcp:close(Client),
         ok = gen_tcp:close(Server),
         flush()
     end || Kind <- [port, server],
            Options <- [[{packet, 2}, {active, false}], [{packet, 2}, {active, true}], [{packet, 2}, {active, 5}, {exit_on_close, false}]]].

%% One of five has come.
active_as_before(Options, {ok, [{active, Active} | Others]}) ->
    case proplists:get_value(active, Options) of
        5 -> ?assertEqual(4, Active), {ok, [{active, 5} | Others]};
        _ -> {ok, [{active, Active} | Others]}
    end.

socket_stays_after_an_error(_Config) ->
    [begin
         use(none),
         {Client, Server} = pair(Kind, inet),
         Before = causeway_ct:descriptors(),
         Context = context(),
         ?assertEqual({error, no_protocol_factory}, py_reactor_context:handoff(Context, Server, #{})),
         use('Echo'),
         Dead = context(),
         ok = py_reactor_context:stop(Dead),
         ?assertMatch({error, {no_context, _}}, py_reactor_context:handoff(Dead, Server, #{})),
         ?assertMatch({error, {no_context, _}}, py_reactor_context:handoff(self(), Server, #{})),
         ?assertMatch({error, {badarg, _}}, py_reactor_context:handoff(Context, Server, [])),
         ok = causeway_ct:settled(fun causeway_ct:descriptors/0, Before),
         still_usable(Client, Server)
     end || Kind <- socket_ct:kinds()].

%% Many want the last place: who does not get it has everything that had come.
losers_keep_their_data(_Config) ->
    use('Receiver'),
    Test = self(),
    [begin
         Context = context(#{max_connections => 1}),
         Racers = [spawn_link(fun() -> race(Test, Context, Kind) end) || _ <- lists:seq(1, 4)],
         [receive {ready, Racer} -> ok end || Racer <- Racers],
         [Racer ! go || Racer <- Racers],
         Results = [receive {Racer, Result} -> Result end || Racer <- Racers],
         ?assertEqual([lost, lost, lost, ok], lists:sort(Results)),
         ok = all_is(<<1:16, "a", 1:16>>),
         ok = py_reactor_context:stop(Context)
     end || Kind <- [port, server], _ <- lists:seq(1, 20)].

race(Test, Context, Kind) ->
    {Client, Server} = pair(Kind, inet),
    ok = inet:setopts(Server, [{packet, 2}, {active, true}]),
    ok = gen_tcp:send(Client, <<1:16, "a">>),
    ok = await_messages(Server, 1),
    ok = gen_tcp:send(Client, <<1:16>>),
    Test ! {ready, self()},
    receive go -> ok end,
    Result = case py_reactor_context:handoff(Context, Server, #{}) of
                 ok ->
                     ok;
                 {error, max_connections} ->
                     ok = gen_tcp:send(Client, <<"b">>),
                     [receive {tcp, Server, Data} -> ok after 5000 -> error(causeway_ct:mailbox()) end || Data <- [<<"a">>, <<"b">>]],
                     still_usable(Client, Server, [{packet, raw}, {active, false}]),
                     lost
             end,
    %% The winner's client stays until the test has seen what came.
    Test ! {self(), Result},
    Result =:= ok andalso receive after infinity -> ok end.

sockets_of_others(_Config) ->
    use('Echo'),
    Context = context(),
    [begin
         {Client, Server} = pair(Kind, inet),
         ?assertEqual({Kind, {error, not_owner}}, {Kind, elsewhere(fun() -> py_reactor_context:handoff(Context, Server, #{}) end)}),
         still_usable(Client, Server)
     end || Kind <- socket_ct:kinds()],
    Listen = socket_ct:listen(port, inet),
    ?assertEqual({error, not_owner}, elsewhere(fun() -> py_reactor_context:handoff(Context, Listen, #{}) end)).

closed_sockets(_Config) ->
    use('Echo'),
    Context = context(),
    [begin
         {_Client, Server} = pair(Kind, inet),
         ok = close(Server),
         ?assertEqual({Kind, {error, closed}}, {Kind, py_reactor_context:handoff(Context, Server, #{})})
     end || Kind <- socket_ct:kinds()].

tls_and_nonsense(_Config) ->
    use('Echo'),
    Context = context(),
    [?assertMatch({Wrong, {error, {badarg, <<_, _/binary>>}}}, {Wrong, py_reactor_context:handoff(Context, Wrong, #{})})
     || Wrong <- [{sslsocket, {gen_tcp, port, tls_connection, undefined}, [self()]}, a, 1.0, <<"1">>, self(), make_ref(),
                  {'$socket', 1}, {'$socket', make_ref()}, {'$inet', gen_tcp_socket, 1}, {'$inet', other, {self(), 1}},
                  hd([Port || Port <- erlang:ports(), erlang:port_info(Port, name) =/= {name, "tcp_inet"}])]].

%% The process behind a socket was killed.
server_is_gone(_Config) ->
    use('Echo'),
    Context = context(),
    {Client, {_, _, {Process, _}} = Server} = pair(server, inet),
    exit(Process, kill),
    ?assertEqual({error, closed}, gen_tcp:recv(Client, 0, 5000)),
    ?assertEqual({error, closed}, py_reactor_context:handoff(Context, Server, #{})).

%% Everything else that has a number

pipes(_Config) ->
    use('Receiver'),
    Context = context(),
    {ok, {Read, Write}} = py:call(os, pipe, []),
    ok = py_reactor_context:handoff(Context, Read, #{type => pipe}),
    {Read, #{<<"type">> := <<"pipe">>}} = made(),
    {ok, 3} = py:call(os, write, [Write, {bytes, <<"abc">>}]),
    ok = all_is(<<"abc">>),
    {ok, none} = py:call(os, close, [Write]),
    ok = lost(Read).

terminals(_Config) ->
    use('Echo'),
    Context = context(),
    {ok, {Master, Slave}} = py:call(socket_protocols, open_terminal, []),
    {ok, Duplicate} = py:dup_fd(Master),
    {ok, none} = py:call(os, close, [Master]),
    ok = py_reactor_context:handoff(Context, Duplicate, #{type => tty}),
    {Duplicate, _} = made(),
    {ok, 5} = py:call(os, write, [Slave, {bytes, <<"typed">>}]),
    ?assertEqual({ok, <<"typed">>}, py:call(os, read, [Slave, 100])),
    {ok, none} = py:call(os, close, [Slave]),
    ok = lost(Duplicate).

eventfds(_Config) ->
    use('Counter'),
    Context = context(),
    {ok, Event} = py:call(os, eventfd, [0]),
    {ok, Other} = py:dup_fd(Event),
    ok = py_reactor_context:handoff(Context, Event, #{}),
    {Event, _} = made(),
    {ok, none} = py:call(os, eventfd_write, [Other, 20]),
    ?assertEqual({<<"number">>, 20}, socket_ct:told(<<"number">>)),
    {ok, none} = py:call(os, eventfd_write, [Other, 21]),
    [?assertEqual({<<"number">>, Number}, socket_ct:told(<<"number">>)) || Number <- [21, 42]],
    {ok, none} = py:call(os, close, [Other]).

not_to_be_waited_for(_Config) ->
    use('Echo'),
    Context = context(),
    [begin
         {ok, Fd} = py:call(os, open, [Path, 0]),
         ?assertEqual({Path, {error, eperm}}, {Path, py_reactor_context:handoff(Context, Fd, #{})}),
         ?assertMatch({ok, _}, py:call(os, fstat, [Fd])),
         {ok, none} = py:call(os, close, [Fd])
     end || Path <- [list_to_binary(code:which(?MODULE)), <<"/tmp">>, <<"/dev/null">>]].

numbers_that_are_not_open(_Config) ->
    use('Echo'),
    Context = context(),
    {ok, Closed} = py:call(os, dup, [0]),
    {ok, none} = py:call(os, close, [Closed]),
    [?assertEqual({Fd, {error, badf}}, {Fd, py_reactor_context:handoff(Context, Fd, #{})})
     || Fd <- [Closed, 999999, -1, 1 bsl 31, -(1 bsl 31), 1 bsl 32, 1 bsl 70]].

%% Helpers

elsewhere(Fun) ->
    {Process, Monitor} = spawn_monitor(fun() -> exit({result, Fun()}) end),
    receive {'DOWN', Monitor, process, Process, {result, Result}} -> Result end.

number({'$socket', _} = Socket) ->
    {ok, Fd} = socket:getopt(Socket, otp, fd),
    Fd;
number({'$inet', _, {_, Socket}}) ->
    number(Socket);
number(Socket) ->
    {ok, Fd} = inet:getfd(Socket),
    Fd.

close({'$socket', _} = Socket) -> socket:close(Socket);
close(Socket) -> gen_tcp:close(Socket).

receive_from({'$socket', _} = Socket, Size) ->
    {ok, Data} = socket:recv(Socket, Size, 5000),
    Data;
receive_from(Socket, Size) ->
    {ok, Data} = gen_tcp:recv(Socket, Size, 5000),
    Data.

%% The caller owns the socket as before, in both directions.
still_usable(Client, Server) ->
    still_usable(Client, Server, []).

still_usable(Client, Server, Options) ->
    Options =:= [] orelse begin ok = inet:setopts(Server, Options) end,
    ok = gen_tcp:send(Client, <<"there">>),
    ?assertEqual(<<"there">>, receive_from(Server, 5)),
    case Server of
        {'$socket', _} -> ok = socket:send(Server, <<"back">>);
        _ -> ok = gen_tcp:send(Server, <<"back">>)
    end,
    ?assertEqual(<<"back">>, read(Client, 4)),
    ok = gen_tcp:close(Client),
    ok = close(Server).

%% Waits for something from a socket, and leaves it where it is.
await_message() ->
    causeway_ct:wait_until(fun() -> [] =/= [Message || Message <- causeway_ct:mailbox(), is_from_socket(Message)] end).

await_messages(Socket, Number) ->
    causeway_ct:wait_until(fun() -> Number =:= length([Message || {tcp, From, _} = Message <- causeway_ct:mailbox(), From =:= Socket]) end).

is_from_socket(Message) when is_tuple(Message) -> lists:member(element(1, Message), [tcp, http]) orelse is_port(element(1, Message));
is_from_socket(_Message) -> false.

flush() ->
    receive _ -> flush() after 0 -> ok end.
