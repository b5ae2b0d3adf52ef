%% @doc What the kernel may say and hardly ever does: interrupted calls, no memory for a moment, errors of a read. And
%% what is seldom asked of the system: memory.
-module(py_reactor_kernel_SUITE).

-compile([export_all, nowarn_export_all]).

-import(causeway_ct, [context/1]).
-import(preload_ct, [fail/4, stop_failing/2, seen/1]).
-import(reactor_ct, [use/1, connected_to/2, ask/2, expect_lost/0, expect_logged/2]).

-include_lib("stdlib/include/assert.hrl").

suite() -> [{timetrap, {seconds, 90}}].

all() ->
    [interrupted_calls, no_memory_to_write, no_memory_to_send_datagrams, no_memory_to_read,
     no_memory_to_read_datagrams, read_that_fails, peer_that_resets, no_allocation_for_an_event, poller_that_cannot_be_watched, closed_once].

init_per_suite(Config) -> preload_ct:start(Config).

end_per_suite(Config) -> preload_ct:stop(Config).

interrupted_calls(Config) -> there(interrupted_calls_there, Config).

interrupted_calls_there(Config) ->
    {Client, Fd} = connection(Config, 'Watched'),
    [ok = fail(Call, Fd, 'EINTR', 3) || Call <- ['RECV', 'SEND']],
    ?assertEqual(<<"echo">>, ask(Client, <<"echo">>)),
    [?assert(seen(Call) >= 4) || Call <- ['RECV', 'SEND']],
    {Datagrams, Server} = datagrams(Config),
    [ok = fail(Call, Server, 'EINTR', 3) || Call <- ['RECVFROM', 'SENDTO']],
    ?assertEqual(<<"echo">>, ask_datagram(Datagrams, <<"echo">>)),
    [?assert(seen(Call) >= 4) || Call <- ['RECVFROM', 'SENDTO']].

%% What there is no memory for is written when there is some; until then it is tried now and then, and others are served.
no_memory_to_write(Config) -> there(no_memory_to_write_there, Config).

no_memory_to_write_there(Config) ->
    [begin
         {Client, Fd} = connection(Config, Protocol),
         {Other, _} = connection(Config, Protocol),
         ok = fail('SEND', Fd, Error, -1),
         ok = gen_tcp:send(Client, <<"patient">>),
         ok = tried_now_and_then('SEND'),
         ?assertEqual(<<"other">>, ask(Other, <<"other">>)),
         ?assertEqual({error, timeout}, gen_tcp:recv(Client, 0, 0)),
         ok = stop_failing('SEND', Fd),
         ?assertEqual({ok, <<"patient">>}, gen_tcp:recv(Client, 7, 10000)),
         ?assertEqual(<<"again">>, ask(Client, <<"again">>))
     end || Protocol <- ['Watched', 'WritesByHand'], Error <- ['ENOBUFS', 'ENOMEM']].

no_memory_to_send_datagrams(Config) -> there(no_memory_to_send_datagrams_there, Config).

no_memory_to_send_datagrams_there(Config) ->
    {Client, Fd} = datagrams(Config),
    ok = fail('SENDTO', Fd, 'ENOBUFS', -1),
    ok = send_datagram(Client, <<"patient">>),
    ok = tried_now_and_then('SENDTO'),
    ok = stop_failing('SENDTO', Fd),
    ?assertEqual(<<"patient">>, receive_datagram(Client)),
    ?assertEqual(<<"again">>, ask_datagram(Client, <<"again">>)).

no_memory_to_read(Config) -> there(no_memory_to_read_there, Config).

no_memory_to_read_there(Config) ->
    {Client, Fd} = connection(Config, 'Watched'),
    {Other, _} = connection(Config, 'Watched'),
    ok = fail('RECV', Fd, 'ENOBUFS', -1),
    ok = gen_tcp:send(Client, <<"patient">>),
    ok = tried_now_and_then('RECV'),
    ?assertEqual(<<"other">>, ask(Other, <<"other">>)),
    ok = stop_failing('RECV', Fd),
    ?assertEqual({ok, <<"patient">>}, gen_tcp:recv(Client, 7, 10000)).

no_memory_to_read_datagrams(Config) -> there(no_memory_to_read_datagrams_there, Config).

no_memory_to_read_datagrams_there(Config) ->
    {Client, Fd} = datagrams(Config),
    ok = fail('RECVFROM', Fd, 'ENOMEM', -1),
    ok = send_datagram(Client, <<"patient">>),
    ok = tried_now_and_then('RECVFROM'),
    ok = stop_failing('RECVFROM', Fd),
    ?assertEqual(<<"patient">>, receive_datagram(Client)).

%% It ends the connection, is counted, and can be read in the log.
read_that_fails(Config) -> there(read_that_fails_there, Config).

read_that_fails_there(Config) ->
    {Client, Fd} = connection(Config, 'Watched'),
    ok = fail('RECV', Fd, 'EIO', 1),
    ok = gen_tcp:send(Client, <<"lost">>),
    ok = expect_lost(),
    {_, #{level := Level}} = expect_logged(text, "Input/output error"),
    ?assertEqual({debug, 1}, {Level, maps:get(errors, py_reactor_context:stats(context(Config)))}).

%% A peer's doing is no error of ours.
peer_that_resets(Config) -> there(peer_that_resets_there, Config).

peer_that_resets_there(Config) ->
    {Client, _} = connection(Config, 'Watched'),
    ok = inet:setopts(Client, [{linger, {true, 0}}]),
    ok = gen_tcp:close(Client),
    ok = expect_lost(),
    {_, #{level := Level}} = expect_logged(text, "eset"),
    ?assertEqual({debug, 0}, {Level, maps:get(errors, py_reactor_context:stats(context(Config)))}).

%% In the steady state of a context, whoever writes, and for streams as for datagrams.
no_allocation_for_an_event(Config) -> there(no_allocation_for_an_event_there, Config).

no_allocation_for_an_event_there(Config) ->
    {ok, Counted} = py:call(allocation_protocols, allocate, [100]),
    ?assert(Counted >= 100),
    [begin
         {ok, none} = py:call(allocation_protocols, use, [Protocol, self()]),
         {ok, {Left, Right}} = py:call(allocation_protocols, Open, []),
         %% Nobody serves the other end yet, which therefore can be written.
         Open =:= open_streams andalso ({ok, none} = py:call(allocation_protocols, throw, [Right])),
         [ok = py_reactor_context:handoff(context(Config), Fd, #{}) || Fd <- [Left, Right]],
         receive
             %% Python may take an arena for its small objects now and then.
             {<<"allocated">>, Number} -> ?assertMatch({_, _, Few} when Few < 20, {Open, Protocol, Number})
         after 30000 -> error(causeway_ct:mailbox())
         end
     end || {Open, Protocol} <- [{open_streams, 'Player'}, {open_streams, 'Writer'}, {open_datagrams, 'Player'}, {open_datagrams, 'Sender'}]].

%% The context waits by itself where the BEAM cannot: its connections are served, and it costs nothing.
poller_that_cannot_be_watched(Config) -> there(poller_that_cannot_be_watched_there, Config).

poller_that_cannot_be_watched_there(_Config) ->
    use('Watched'),
    Before = causeway_ct:descriptors(),
    %% Both live until the end: OTP 25 thinks afterwards that it watches a descriptor with such a number.
    Both = [begin
                {ok, Context} = py_reactor_context:start_link(2, worker, #{linger => Linger}),
                ok = fail('WATCH', -2, 'ENOMEM', -1),
                Client = connected_to(Context, #{}),
                ok = causeway_ct:wait_until(fun() -> seen('WATCH') > 0 end),
                [?assertEqual(<<"echo">>, ask(Client, <<"echo">>)) || _ <- lists:seq(1, 10)],
                ?assertEqual({ok, 4.0}, py:call(Context, math, sqrt, [16], 5000)),
                {Context, Client}
            end || Linger <- [0, 1]],
    ?assert(socket_ct:idle_ticks() =< 2),
    [begin
         ?assertEqual(<<"echo">>, ask(Client, <<"echo">>)),
         ok = py_reactor_context:stop(Context),
         ok = gen_tcp:close(Client)
     end || {Context, Client} <- Both],
    ok = causeway_ct:settled(fun causeway_ct:descriptors/0, Before).

%% Whoever ends a connection, and however: its descriptor is closed once. A second time would hit the next with its number.
closed_once(Config) -> there(closed_once_there, Config).

closed_once_there(Config) ->
    Vain = fun() -> {ok, Number} = py:call(preload, vain_closes, []), Number end,
    Before = Vain(),
    %% It is seen.
    ?assertMatch({error, {'OSError', _}}, py:call(os, close, [999999])),
    ?assertEqual(Before + 1, Vain()),
    Served = fun() -> connection(Config, 'Watched') end,
    Ends = [fun({Client, _}) -> ok = gen_tcp:close(Client) end,
            fun({Client, _}) -> ok = inet:setopts(Client, [{linger, {true, 0}}]), ok = gen_tcp:close(Client) end,
            fun({_, Fd}) -> {ok, none} = py:call('erlang.reactor', close_connection, [Fd]) end,
            fun({Client, Fd}) ->
                    {ok, none} = py:call('erlang.reactor', close_connection, [Fd]),
                    {ok, none} = py:call('erlang.reactor', close_connection, [Fd]),
                    ok = gen_tcp:close(Client)
            end,
            fun({Client, Fd}) -> ok = fail('RECV', Fd, 'EIO', 1), ok = gen_tcp:send(Client, <<"x">>) end],
    [begin
         End(Served()),
         ok = expect_lost()
     end || End <- Ends, _ <- lists:seq(1, 20)],
    %% By its protocol, a factory that fails, and a context that refuses it.
    use('Told'),
    [begin
         Client = connected_to(context(Config), #{}),
         ok = gen_tcp:send(Client, Command),
         _ = reactor_ct:read_all(Client),
         ok = expect_lost()
     end || Command <- [<<"close">>, <<"raise">>, <<"none">>]],
    use(raising_factory),
    Refused = connected_to(context(Config), #{}),
    ?assertEqual({error, closed}, gen_tcp:recv(Refused, 0, 10000)),
    use('Watched'),
    %% With its context, with a listener and without.
    [begin
         {ok, Context} = py_reactor_context:start_link(3, worker, #{max_connections => 2}),
         Listen = reactor_ct:listen(),
         {ok, Port} = inet:port(Listen),
         ok = py_reactor_context:handoff(Context, Listen, #{}),
         %% This one first: who accepts takes a place for a moment, to see whether there is somebody.
         Given = connected_to(Context, #{}),
         {ok, Accepted} = gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, false}]),
         Clients = [Given, Accepted],
         [?assertEqual(<<"echo">>, ask(Client, <<"echo">>)) || Client <- Clients],
         {_, Full} = reactor_ct:tcp_pair(),
         {error, max_connections} = py_reactor_context:handoff(Context, Full, #{}),
         ok = gen_tcp:close(Full),
         End(Context),
         [ok = expect_lost() || _ <- Clients],
         [?assertEqual({error, closed}, gen_tcp:recv(Client, 0, 10000)) || Client <- Clients]
     end || End <- [fun py_reactor_context:stop/1, fun(Context) -> unlink(Context), exit(Context, kill) end], _ <- lists:seq(1, 10)],
    ?assertEqual(Before + 1, Vain()).

%% Helpers

there(Case, Config) -> preload_ct:run(?MODULE, Case, Config).

%% A client, and the descriptor that serves it.
connection(Config, Protocol) ->
    use(Protocol),
    Client = connected_to(context(Config), #{}),
    ?assertEqual(<<"hello">>, ask(Client, <<"hello">>)),
    receive {<<"made">>, Fd, _} -> {Client, Fd} after 10000 -> error(causeway_ct:mailbox()) end.

%% The same for datagrams.
datagrams(Config) ->
    use('Watched'),
    {ok, Server} = gen_udp:open(0, [binary, {active, false}, {ip, {127, 0, 0, 1}}]),
    {ok, Port} = inet:port(Server),
    ok = py_reactor_context:handoff(context(Config), Server, #{}),
    {ok, Client} = gen_udp:open(0, [binary, {active, false}, {ip, {127, 0, 0, 1}}]),
    receive {<<"made">>, Fd, _} -> {{Client, Port}, Fd} after 10000 -> error(causeway_ct:mailbox()) end.

ask_datagram(Client, Data) ->
    ok = send_datagram(Client, Data),
    receive_datagram(Client).

send_datagram({Socket, Port}, Data) -> gen_udp:send(Socket, {127, 0, 0, 1}, Port, Data).

receive_datagram({Socket, _Port}) ->
    {ok, {_, _, Data}} = gen_udp:recv(Socket, 0, 10000),
    Data.

%% A call that fails is tried again every 5 ms at most. Here time itself is what is measured.
tried_now_and_then(Call) ->
    ok = causeway_ct:wait_until(fun() -> seen(Call) > 0 end),
    Before = seen(Call),
    timer:sleep(500),
    Tried = seen(Call) - Before,
    ?assert(Tried > 0),
    ?assert(Tried =< 2 * 500 div 5 + 2),
    ok.
