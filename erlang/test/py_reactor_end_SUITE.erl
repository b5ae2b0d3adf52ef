%% @doc How connections end: by an exception, by either side, and with their context.
-module(py_reactor_end_SUITE).

-compile([export_all, nowarn_export_all]).

-import(causeway_ct, [context/1]).
-import(reactor_ct, [use/1, connected/1, connected/2, connected_to/2, ask/2, ask/3, read_all/1, expect_lost/0, expect_logged/2]).

-include_lib("stdlib/include/assert.hrl").

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [exception_closes_only_its_connection, exception_is_logged_with_traceback, peer_of_a_number_is_logged,
     wrong_actions, write_buffer_that_is_no_bytearray,
     exception_in_connection_made, exception_in_connection_lost, exception_in_the_factory,
     factory_that_makes_something_else, sys_exit_in_a_callback, close_writes_what_is_left,
     server_speaks_first, peer_closes, peer_shuts_down_one_direction, peer_resets, peer_resets_under_load,
     broken_pipe_is_an_exception, callback_that_loops_ends_with_the_context, stop_closes_everything,
     kill_closes_everything].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_testcase(_Case, Config) -> reactor_ct:start_context(Config).

end_per_testcase(_Case, Config) -> reactor_ct:kill_context(Config).

%% Exceptions

exception_closes_only_its_connection(Config) ->
    use('Told'),
    [Bad, Good] = [connected(Config) || _ <- [1, 2]],
    ?assertEqual(<<"did one">>, ask(Good, <<"one">>, 7)),
    ok = gen_tcp:send(Bad, <<"raise">>),
    ?assertEqual({error, closed}, gen_tcp:recv(Bad, 0, 10000)),
    ok = expect_lost(),
    ?assertEqual(<<"did two">>, ask(Good, <<"two">>, 7)),
    ok = gen_tcp:send(Good, <<"raise later">>),
    ?assertEqual({error, closed}, gen_tcp:recv(Good, 0, 10000)),
    ok = expect_lost(),
    [expect_logged(Callback, Text) || {Callback, Text} <- [{<<"data_received">>, "data_received raises"}, {<<"write_ready">>, "write_ready raises"}]],
    ok = causeway_ct:wait_until(fun() -> 0 =:= maps:get(active_connections, py_reactor_context:stats(context(Config))) end).

exception_is_logged_with_traceback(Config) ->
    use('Told'),
    Client = connected(Config, #{addr => "10.1.2.3", port => 4567}),
    ok = gen_tcp:send(Client, <<"raise">>),
    {Text, #{msg := {report, Report}, level := Level}} = expect_logged(<<"data_received">>, "KeyError"),
    ?assertEqual(error, Level),
    #{id := Id} = py_reactor_context:stats(context(Config)),
    ?assertMatch(#{context := Id, error := #{type := 'KeyError', traceback := [#{function := <<"data_received">>}]}}, Report),
    [?assertNotEqual(nomatch, string:find(Text, Part))
     || Part <- ["Traceback", "reactor_protocols.py", "line ", "in data_received", "raise KeyError", "10.1.2.3", "4567",
                    "(context " ++ integer_to_list(Id) ++ ","]].

%% Nobody has said who that is: the socket knows.
peer_of_a_number_is_logged(Config) ->
    use('Told'),
    Client = connected(Config, #{}),
    {ok, Port} = inet:port(Client),
    ok = gen_tcp:send(Client, <<"raise">>),
    {Text, #{msg := {report, Report}}} = expect_logged(<<"data_received">>, "KeyError"),
    ?assertMatch(#{peer := #{<<"addr">> := <<"127.0.0.1">>, <<"port">> := Port}}, Report),
    ?assertNotEqual(nomatch, string:find(Text, "peer 127.0.0.1:" ++ integer_to_list(Port))).

wrong_actions(Config) ->
    Others = [begin use('Told'), connected(Config) end || _ <- [1, 2, 3]],
    [begin
         use(Protocol),
         Client = connected(Config),
         ok = gen_tcp:send(Client, Command),
         Protocol =:= 'ToldAtTheEnd' andalso (ok = causeway_ct:expect({<<"last">>})),
         Protocol =:= 'ToldAtTheEnd' andalso (ok = gen_tcp:shutdown(Client, write)),
         ?assertEqual({error, closed}, gen_tcp:recv(Client, 0, 10000)),
         {Text, _} = expect_logged(Callback, "write_pending"),
         ?assertNotEqual({nomatch, Shown}, {string:find(Text, binary_to_list(Callback) ++ "() returned " ++ Shown), Shown}),
         ok = expect_lost(),
         [?assertEqual(<<"did go on">>, ask(Other, <<"go on">>, 9)) || Other <- Others]
     end || {Protocol, Callback, Command, Shown} <-
                [{'Told', <<"data_received">>, <<"nonsense">>, "'nonsense'"}, {'Told', <<"data_received">>, <<"none">>, "None"},
                 {'Told', <<"data_received">>, <<"number">>, "7"}, {'Told', <<"data_received">>, <<"read_pending">>, "'read_pending'"},
                 {'Told', <<"write_ready">>, <<"later nonsense">>, "'nonsense'"}, {'Told', <<"write_ready">>, <<"later none">>, "None"},
                 {'Told', <<"write_ready">>, <<"later number">>, "7"},
                 {'ToldAtTheEnd', <<"eof_received">>, <<"nonsense">>, "'nonsense'"}, {'ToldAtTheEnd', <<"eof_received">>, <<"none">>, "None"},
                 {'ToldAtTheEnd', <<"eof_received">>, <<"number">>, "7"}]].

%% Whatever is to be written is not lost without a word.
write_buffer_that_is_no_bytearray(Config) ->
    Wrong = "write_buffer must be a bytearray",
    [begin
         use('Told'),
         Client = connected(Config),
         ok = gen_tcp:send(Client, <<"buffer ", Action/binary>>),
         ?assertEqual({error, closed}, gen_tcp:recv(Client, 0, 10000)),
         _ = expect_logged(<<"write_ready">>, Wrong),
         ok = expect_lost()
     end || Action <- [<<"write_pending">>, <<"close">>]],
    use('NoBytearrayWhenMade'),
    ?assertEqual({error, closed}, gen_tcp:recv(connected(Config), 0, 10000)),
    _ = expect_logged(<<"connection_made">>, Wrong),
    ok = expect_lost(),
    use('NoBytearrayAtTheEnd'),
    Last = connected(Config),
    ok = gen_tcp:send(Last, <<"x">>),
    ok = causeway_ct:expect({<<"data">>}),
    ok = gen_tcp:close(Last),
    _ = expect_logged(<<"write_ready">>, Wrong),
    ok = expect_lost().

exception_in_connection_made(Config) ->
    use('RaisesWhenMade'),
    Client = connected(Config),
    ?assertEqual({error, closed}, gen_tcp:recv(Client, 0, 10000)),
    _ = expect_logged(<<"connection_made">>, "connection_made raises"),
    ok = expect_lost().

exception_in_connection_lost(Config) ->
    use('RaisesWhenLost'),
    Client = connected(Config),
    ?assertEqual(<<"a">>, ask(Client, <<"a">>)),
    Before = causeway_ct:descriptors(),
    ok = gen_tcp:close(Client),
    _ = expect_logged(<<"connection_lost">>, "connection_lost raises"),
    ok = causeway_ct:settled(fun causeway_ct:descriptors/0, Before - 2).

exception_in_the_factory(Config) ->
    use(raising_factory),
    %% A context makes its poller for the first connection, and keeps it.
    ok = refused_by_the_factory(Config),
    Before = causeway_ct:descriptors(),
    ok = refused_by_the_factory(Config),
    ok = causeway_ct:settled(fun causeway_ct:descriptors/0, Before),
    ok = causeway_ct:wait_until(fun() -> 0 =:= maps:get(active_connections, py_reactor_context:stats(context(Config))) end).

refused_by_the_factory(Config) ->
    Client = connected(Config),
    ?assertEqual({error, closed}, gen_tcp:recv(Client, 0, 10000)),
    _ = expect_logged(<<"protocol factory">>, "factory raises"),
    ok = gen_tcp:close(Client).

factory_that_makes_something_else(Config) ->
    use(no_protocol),
    Client = connected(Config),
    ?assertEqual({error, closed}, gen_tcp:recv(Client, 0, 10000)),
    _ = expect_logged(<<"protocol factory">>, "object").

sys_exit_in_a_callback(Config) ->
    use('Told'),
    Client = connected(Config),
    ok = gen_tcp:send(Client, <<"exit">>),
    ?assertEqual({error, closed}, gen_tcp:recv(Client, 0, 10000)),
    _ = expect_logged(<<"data_received">>, "SystemExit"),
    ?assertEqual({ok, 1}, py:eval(context(Config), <<"1">>)).

%% Beginnings and ends

close_writes_what_is_left(Config) ->
    use('Told'),
    Client = connected(Config),
    ok = gen_tcp:send(Client, <<"close">>),
    ?assertEqual(<<"good bye">>, read_all(Client)),
    ok = expect_lost().

server_speaks_first(Config) ->
    use('SpeaksFirst'),
    Client = connected(Config),
    ?assertEqual({ok, <<"welcome">>}, gen_tcp:recv(Client, 7, 10000)).

peer_closes(Config) ->
    use('Watched'),
    Client = connected(Config),
    ok = gen_tcp:close(Client),
    ok = expect_lost(),
    ok = causeway_ct:wait_until(fun() -> 0 =:= maps:get(active_connections, py_reactor_context:stats(context(Config))) end).

%% Everything that was echoed still comes.
peer_shuts_down_one_direction(Config) ->
    use('Watched'),
    Client = connected(Config),
    Data = binary:copy(<<"half closed ">>, 100000),
    Sender = spawn_link(fun() -> receive go -> ok end, ok = gen_tcp:send(Client, Data), ok = gen_tcp:shutdown(Client, write) end),
    Sender ! go,
    Received = read_all(Client),
    ?assert(Data =:= Received),
    ok = expect_lost().

peer_resets(Config) ->
    use('Watched'),
    [begin
         Client = connected(Config),
         ok = inet:setopts(Client, [{linger, {true, 0}}]),
         First andalso gen_tcp:send(Client, <<"unread answer">>),
         ok = gen_tcp:close(Client),
         ok = expect_lost()
     end || First <- [true, false, true, false]],
    ?assertEqual([], [Message || {logged, _, _, _} = Message <- causeway_ct:mailbox()]).

peer_resets_under_load(Config) ->
    use('Source'),
    Before = causeway_ct:descriptors(),
    Clients = [connected(Config) || _ <- lists:seq(1, 20)],
    [ok = gen_tcp:send(Client, <<(1 bsl 40):64>>) || Client <- Clients],
    [{ok, _} = gen_tcp:recv(Client, 100000, 10000) || Client <- Clients],
    [begin
         ok = inet:setopts(Client, [{linger, {true, 0}}]),
         ok = gen_tcp:close(Client)
     end || Client <- Clients],
    ok = causeway_ct:wait_until(fun() -> 0 =:= maps:get(active_connections, py_reactor_context:stats(context(Config))) end),
    %% The poller and its bell stay.
    ok = causeway_ct:settled(fun causeway_ct:descriptors/0, Before + 2).

broken_pipe_is_an_exception(Config) ->
    use('BrokenPipe'),
    Client = connected(Config),
    ok = gen_tcp:send(Client, <<"go">>),
    Fd = receive {<<"writing">>, Number} -> Number after 10000 -> error(causeway_ct:mailbox()) end,
    %% With something to be read yet it is not ended at once.
    ok = gen_tcp:send(Client, <<"more">>),
    ok = inet:setopts(Client, [{linger, {true, 0}}]),
    ok = gen_tcp:close(Client),
    {ok, true} = py:call('erlang.reactor', signal_write_ready, [Fd]),
    receive {<<"error">>, Name} -> ?assert(lists:member(Name, [<<"BrokenPipeError">>, <<"ConnectionResetError">>])) after 10000 -> error(causeway_ct:mailbox()) end,
    ok = expect_lost().

%% The end of a context

callback_that_loops_ends_with_the_context(_Config) ->
    use('Told'),
    {ok, Context} = py_reactor_context:start_link(6, worker),
    Client = connected_to(Context, #{}),
    ok = gen_tcp:send(Client, <<"loop">>),
    ok = causeway_ct:expect({<<"looping">>}),
    {Milliseconds, ok} = causeway_ct:milliseconds(fun() -> py_reactor_context:stop(Context, 0) end),
    ?assert(Milliseconds < 1500),
    ?assertEqual({error, closed}, gen_tcp:recv(Client, 0, 10000)),
    ok = expect_lost().

stop_closes_everything(_Config) ->
    closes_everything(fun py_reactor_context:stop/1).

kill_closes_everything(_Config) ->
    closes_everything(fun(Context) -> unlink(Context), exit(Context, kill) end).

closes_everything(End) ->
    use('Watched'),
    Before = causeway_ct:descriptors(),
    Threads = causeway_ct:context_threads(),
    {ok, Context} = py_reactor_context:start_link(7, worker),
    Clients = [connected_to(Context, #{}) || _ <- lists:seq(1, 50)],
    [?assertEqual(<<"a">>, ask(Client, <<"a">>)) || Client <- Clients],
    End(Context),
    [?assertEqual({error, closed}, gen_tcp:recv(Client, 0, 10000)) || Client <- Clients],
    [ok = expect_lost() || _ <- Clients],
    [ok = gen_tcp:close(Client) || Client <- Clients],
    ok = causeway_ct:settled(fun causeway_ct:descriptors/0, Before),
    ok = causeway_ct:settled(fun causeway_ct:context_threads/0, Threads).
