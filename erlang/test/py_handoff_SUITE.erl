%% @doc Who owns a socket or a descriptor: handed over, and refused.
-module(py_handoff_SUITE).

-compile([export_all, nowarn_export_all]).

-import(socket_ct, [use/1, context/0, context/1, pair/2, pair/3, ask/2, made/0, lost/1, all_is/1]).
-import(handoff_ct, [elsewhere/1, number/1, close/1, still_usable/2, still_usable/3, await_message/0, await_messages/2, flush/0]).

-include_lib("stdlib/include/assert.hrl").

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [sockets_of_every_kind, default_context, owner_that_is_killed, keys_of_the_caller_win,
     one_descriptor_for_each, number_of_an_own_socket, number_of_a_foreign_socket, duplicates,
     options_stay_after_an_error, socket_stays_after_an_error, losers_keep_their_data, sockets_of_others,
     closed_sockets, tls_and_nonsense, server_is_gone, pipes, terminals, eventfds, not_to_be_waited_for,
     numbers_that_are_not_open].

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
