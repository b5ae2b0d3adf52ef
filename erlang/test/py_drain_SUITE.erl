%% @doc The end of a context that serves: connections write what they have to.
-module(py_drain_SUITE).

-compile([export_all, nowarn_export_all]).

-import(socket_ct, [use/1, context/0, context/1, listen/2, address/1, pair/2, told/1, made/0, lost/1, read_all/1, ask/2, stats/2]).

-include_lib("stdlib/include/assert.hrl").

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [nothing_to_write, nothing_at_all, what_is_left_is_written, others_are_served_meanwhile, nothing_new_is_taken,
     time_is_over, no_time_at_all, deferred_answers, several_who_stop, supervisor_is_quick, connection_lost_is_not_cut_off,
     connection_lost_has_no_end, dead_contexts, wrong_arguments].

init_per_suite(Config) -> causeway_ct:start(Config).

init_per_testcase(_Case, Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

nothing_to_write(_Config) ->
    use('Echo'),
    Context = context(),
    Connected = [connected(Context) || _ <- lists:seq(1, 50)],
    [?assertEqual(<<"a">>, ask(Client, <<"a">>)) || {Client, _} <- Connected],
    {Milliseconds, ok} = causeway_ct:milliseconds(fun() -> py_reactor_context:stop(Context) end),
    ?assert(Milliseconds < 2000),
    ?assertNot(is_process_alive(Context)),
    [?assertEqual(<<>>, read_all(Client)) || {Client, _} <- Connected],
    [ok = lost(Fd) || {_, Fd} <- Connected].

nothing_at_all(_Config) ->
    [ok = py_reactor_context:stop(context(Options), infinity) || Options <- [#{}, #{linger => 0}, #{linger => infinity}]].

what_is_left_is_written(_Config) ->
    use('Answer'),
    Before = causeway_ct:descriptors(),
    Context = context(),
    {Client, Fd} = connected(Context),
    ok = gen_tcp:send(Client, <<"question">>),
    ok = causeway_ct:wait_until(fun() -> stats(Context, bytes_out) > 0 end),
    Stopper = stopper(Context, 20000),
    ?assert(megabytes() =:= read_all(Client)),
    ok = stopped(Stopper),
    ok = lost(Fd),
    ok = gen_tcp:close(Client),
    ok = causeway_ct:settled(fun causeway_ct:descriptors/0, Before).

others_are_served_meanwhile(_Config) ->
    use('Answer'),
    Context = context(),
    {Client, _Fd} = connected(Context),
    Stopper = drains(Context, Client, 20000),
    ?assertMatch(#{active_connections := 1}, py_reactor_context:stats(Context)),
    ?assertMatch(#{native := _}, sys:get_state(Context)),
    ?assertEqual({ok, 4.0}, py:call(Context, math, sqrt, [16])),
    ?assert(megabytes() =:= read_all(Client)),
    ok = stopped(Stopper).

nothing_new_is_taken(_Config) ->
    use('Answer'),
    Context = context(),
    Listen = listen(port, inet),
    {Host, Port} = address(Listen),
    ok = py_reactor_context:handoff(Context, Listen, #{}),
    {Client, _Fd} = connected(Context),
    Stopper = drains(Context, Client, 20000),
    ok = causeway_ct:wait_until(fun() -> stats(Context, listeners) =:= 0 end),
    ?assertEqual({error, econnrefused}, gen_tcp:connect(Host, Port, [])),
    {_, Server} = pair(port, inet),
    {ok, Fd} = inet:getfd(Server),
    [?assertMatch({error, {no_context, <<_, _/binary>>}}, py_reactor_context:handoff(Context, Handle, #{})) || Handle <- [Server, Fd]],
    ?assertMatch({ok, _}, inet:sockname(Server)),
    ?assert(megabytes() =:= read_all(Client)),
    ok = stopped(Stopper).

%% The peer does not read.
time_is_over(_Config) ->
    use('Answer'),
    Context = context(),
    {Client, Fd} = connected(Context),
    Stopper = drains(Context, Client, 300),
    {Milliseconds, ok} = causeway_ct:milliseconds(fun() -> stopped(Stopper) end),
    ?assert(Milliseconds < 5000),
    ok = lost(Fd),
    ?assertNot(is_process_alive(Context)),
    ?assert(byte_size(read_all(Client)) < byte_size(megabytes())).

no_time_at_all(_Config) ->
    use('Answer'),
    Context = context(),
    {Client, Fd} = connected(Context),
    ok = gen_tcp:send(Client, <<"question">>),
    ok = causeway_ct:wait_until(fun() -> stats(Context, bytes_out) > 0 end),
    {Milliseconds, ok} = causeway_ct:milliseconds(fun() -> py_reactor_context:stop(Context, 0) end),
    ?assert(Milliseconds < 2000),
    ok = lost(Fd).

deferred_answers(_Config) ->
    use('Later'),
    Context = context(),
    {Client, Fd} = connected(Context),
    ok = gen_tcp:send(Client, <<"when?">>),
    {_, Fd} = told(<<"waiting">>),
    Stopper = stopper(Context, 20000),
    ok = draining(Context),
    {ok, true} = py:call('erlang.reactor', signal_write_ready, [Fd]),
    ?assertEqual(<<"later">>, read_all(Client)),
    ok = stopped(Stopper).

several_who_stop(_Config) ->
    use('Answer'),
    Context = context(),
    {Client, Fd} = connected(Context),
    Patient = [drains(Context, Client, infinity) || _ <- [1, 2]],
    Impatient = stopper(Context, 100),
    [ok = stopped(Stopper) || Stopper <- [Impatient | Patient]],
    ok = lost(Fd).

supervisor_is_quick(_Config) ->
    use('Answer'),
    {ok, Supervisor} = supervisor:start_link(?MODULE, []),
    [{context, Context, _, _}] = supervisor:which_children(Supervisor),
    {Client, Fd} = connected(Context),
    Stopper = drains(Context, Client, infinity),
    {Milliseconds, ok} = causeway_ct:milliseconds(fun() -> supervisor:terminate_child(Supervisor, context) end),
    ?assert(Milliseconds < 2000),
    ok = stopped(Stopper),
    ok = lost(Fd),
    unlink(Supervisor),
    exit(Supervisor, shutdown).

init([]) ->
    {ok, {#{}, [#{id => context, start => {py_reactor_context, start_link, [1, worker]}, shutdown => 5000}]}}.

%% What ends is interrupted, but a protocol that tidies up has some time: one whose peer has gone just before, and
%% those that end with the context.
connection_lost_is_not_cut_off(_Config) ->
    use('EndsSlowly'),
    [begin
         Context = context(),
         Connected = [connected(Context) || _ <- [1, 2]],
         First = [ok = gen_tcp:close(Client) || {Client, _} <- Connected, How =:= before],
         First =:= [] orelse told(<<"ending">>),
         unlink(Context),
         exit(Context, kill),
         [{_, true} = told(<<"ended">>) || _ <- Connected]
     end || How <- [before, with_it]].

%% That time is not without limit.
connection_lost_has_no_end(_Config) ->
    use('EndsNever'),
    Threads = causeway_ct:context_threads(),
    Context = context(),
    _ = connected(Context),
    ok = py_context:stop(Context),
    ok = causeway_ct:settled(fun causeway_ct:context_threads/0, Threads).

dead_contexts(_Config) ->
    Context = context(),
    ok = py_reactor_context:stop(Context),
    ok = py_reactor_context:stop(Context),
    ok = py_reactor_context:stop(Context, infinity).

wrong_arguments(_Config) ->
    Context = context(),
    [?assertMatch({error, {badarg, <<_, _/binary>>}}, py_reactor_context:stop(Who, Timeout))
     || {Who, Timeout} <- [{a, 1}, {Context, -1}, {Context, a}, {Context, 1.0}]],
    ?assert(is_process_alive(Context)).

%% Helpers

connected(Context) ->
    {Client, Server} = pair(port, inet),
    ok = py_reactor_context:handoff(Context, Server, #{}),
    {Fd, _} = made(),
    {Client, Fd}.

%% Stops a context that has more to write than the kernel takes.
drains(Context, Client, Timeout) ->
    ok = gen_tcp:send(Client, <<"question">>),
    ok = causeway_ct:wait_until(fun() -> stats(Context, bytes_out) > 0 end),
    Stopper = stopper(Context, Timeout),
    ok = draining(Context),
    Stopper.

draining(Context) ->
    causeway_ct:wait_until(fun() -> #{} =/= maps:get(drains, sys:get_state(Context)) end).

%% The test is not to die with the context.
stopper(Context, Timeout) ->
    unlink(Context),
    spawn_monitor(fun() -> exit({stopped, py_reactor_context:stop(Context, Timeout)}) end).

stopped({Stopper, Monitor}) ->
    receive {'DOWN', Monitor, process, Stopper, {stopped, Result}} -> Result end.

megabytes() ->
    {ok, Megabytes} = py:call(socket_protocols, megabytes, []),
    Megabytes.
