%% @doc Contexts of every kind are interrupted and stopped whatever they do, and delay nobody meanwhile.
-module(py_mode_interruption_SUITE).

-compile([export_all, nowarn_export_all]).

-import(mode_ct, [modes/0, start/1]).

-include_lib("stdlib/include/assert.hrl").

-define(HELPERS, mode_helpers).

%% What a context can be in the middle of: whoever waits is answered, the thread ends, and a context that gets the
%% same interpreter finds it whole.
-define(ACTIVITIES, [loop, sleep, wait_for_erlang, import_endlessly]).

suite() -> [{timetrap, {seconds, 120}}].

all() ->
    [{group, worker}, {group, subinterp}, {group, owngil}].

groups() ->
    Cases = [time_outs, killed_callers, interrupts, interruptions_leave_the_import_lock, diagnosis, stop_in_every_activity,
             killed_owners, loop_delays_nobody],
    [{worker, [], Cases}, {subinterp, [], Cases}, {owngil, [], Cases ++ [computing_in_c_delays_nobody]}].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_group(Mode, Config) -> mode_ct:start_group(Mode, Config).

end_per_group(_Mode, _Config) -> ok.

init_per_testcase(_Case, Config) -> mode_ct:start_case(Config).

end_per_testcase(_Case, Config) -> mode_ct:end_case(Config).

%% Interruption

time_outs(Config) ->
    Context = start(Config),
    [begin
         ?assertEqual({error, timeout}, py:call(Context, ?HELPERS, Function, [self()], 100)),
         ok = causeway_ct:expect(<<"running">>),
         ?assertEqual({ok, 1}, py:eval(Context, <<"1">>, #{}, 10000))
     end || Function <- [loop, sleep, loop, sleep]],
    %% Calls that are as long as their time: the next one is never hit.
    [begin
         Hit = py:call(Context, ?HELPERS, count_down, [10000 + 537 * N], 1),
         ?assert(Hit =:= {error, timeout} orelse Hit =:= {ok, <<"counted">>}),
         ?assertEqual({ok, <<"counted">>}, py:call(Context, ?HELPERS, count_down, [100]))
     end || N <- lists:seq(1, 200)],
    ?assertEqual([], causeway_ct:mailbox()),
    ok = py_context:stop(Context).

killed_callers(Config) ->
    Context = start(Config),
    Test = self(),
    [begin
         {Caller, Monitor} = spawn_monitor(fun() -> py:call(Context, ?HELPERS, Function, [Test]) end),
         ok = causeway_ct:expect(<<"running">>),
         exit(Caller, kill),
         ok = causeway_ct:expect({'DOWN', Monitor, process, Caller, killed}),
         ?assertEqual({ok, 1}, py:eval(Context, <<"1">>, #{}, 10000))
     end || _ <- lists:seq(1, 25), Function <- [loop, sleep]],
    ok = py_context:stop(Context).

interrupts(Config) ->
    Context = start(Config),
    [begin
         Call = py:spawn_call(Context, ?HELPERS, Function, [self()]),
         ok = causeway_ct:expect(<<"running">>),
         ok = py:interrupt(Context),
         ?assertMatch({error, {'CallInterrupted', _}}, py:await(Call, 10000))
     end || Function <- [loop, sleep]],
    ?assertEqual({ok, 1}, py:eval(Context, <<"1">>)),
    ?assertMatch({error, {idle, _}}, py:interrupt(Context)),
    ok = py_context:stop(Context).

%% Between the taking of that lock and what would give it back nothing holds an interruption off: importlib has such
%% a place in every import. A thread that ended with it would be the last to import anything.
interruptions_leave_the_import_lock(Config) ->
    Context = start(Config),
    Take = <<"import _imp\nerlang.send(pid, 'running')\nwhile True:\n    _imp.acquire_lock()\n    _imp.release_lock()\n">>,
    Running = fun(Served) ->
                      Test = self(),
                      spawn_link(fun() -> Test ! {self(), py:eval(Served, <<"exec(code, dict(pid=pid, erlang=__import__('erlang')))">>,
                                                                  #{code => Take, pid => Test})} end)
              end,
    [begin
         Caller = Running(Context),
         ok = causeway_ct:expect(<<"running">>),
         ok = py:interrupt(Context),
         receive {Caller, Result} -> ?assertMatch({error, {'CallInterrupted', _}}, Result) end,
         ?assertEqual({ok, false}, py:eval(Context, <<"__import__('_imp').lock_held()">>, #{}, 5000))
     end || _ <- lists:seq(1, 20)],
    [begin
         Stopped = start(Config),
         Caller = Running(Stopped),
         ok = causeway_ct:expect(<<"running">>),
         ok = py_context:stop(Stopped),
         receive {Caller, Result} -> ?assertMatch({error, {context_stopped, _}}, Result) end,
         Next = start(Config),
         ?assertMatch({ok, _}, py:call(Next, ?HELPERS, identity, [1], 5000)),
         ok = py_context:stop(Next)
     end || _ <- lists:seq(1, 5)],
    ok = py_context:stop(Context).

%% Of each by the janitor of its interpreter.
diagnosis(Config) ->
    Context = start(Config),
    [begin
         Call = py:spawn_call(Context, ?HELPERS, Function, [self()]),
         ok = causeway_ct:expect(<<"running">>),
         {ok, Diagnosis} = py_context:diagnose(Context),
         ?assertMatch(#{activity := call, call := {?HELPERS, Function}, stack := [_ | _]}, Diagnosis),
         ?assertEqual(atom_to_binary(Function), maps:get(function, lists:last(maps:get(stack, Diagnosis)))),
         ok = py:interrupt(Context),
         ?assertMatch({error, {'CallInterrupted', _}}, py:await(Call, 10000))
     end || Function <- [loop, sleep]],
    ?assertEqual({ok, 1}, py:eval(Context, <<"1">>)),
    ?assertMatch({ok, #{activity := idle, stack := []}}, py_context:diagnose(Context)),
    ok = py_context:stop(Context).

stop_in_every_activity(Config) ->
    end_in_every_activity(Config, fun(Context) -> ok = py_context:stop(Context) end).

killed_owners(Config) ->
    end_in_every_activity(Config, fun(Context) -> exit(Context, kill) end).

end_in_every_activity(Config, End) ->
    ok = py:register_function(mode_wait, fun([Pid]) -> Pid ! <<"running">>, receive never -> ok end end),
    Threads = causeway_ct:context_threads(),
    [begin
         Context = start(Config),
         Monitor = monitor(process, Context),
         Call = py:spawn_call(Context, ?HELPERS, Activity, [self()]),
         ok = causeway_ct:expect(<<"running">>),
         End(Context),
         receive {'DOWN', Monitor, process, Context, _} -> ok end,
         ?assertMatch({error, {context_stopped, _}}, py:await(Call, 10000)),
         ok = causeway_ct:settled(fun causeway_ct:context_threads/0, Threads)
     end || Activity <- ?ACTIVITIES ++ ?ACTIVITIES],
    Stream = begin
                 Streaming = start(Config),
                 {ok, Reference} = py:stream_start(?HELPERS, loop_in_generator, [self()], #{context => Streaming}),
                 ok = causeway_ct:expect(<<"running">>),
                 End(Streaming),
                 Reference
             end,
    receive {py_stream, Stream, {error, _}} -> ok end,
    ok = causeway_ct:settled(fun causeway_ct:context_threads/0, Threads),
    Context = start(Config),
    ?assertMatch({ok, {[3, 7], [1, 2], _, _}}, py:call(Context, ?HELPERS, use_standard_library, [])),
    ok = py_context:stop(Context).

%% Python code that computes: contexts of every kind get their turn beside it, and beside each other.
loop_delays_nobody(Config) ->
    Looping = start(Config),
    Others = [start([{mode, Mode}]) || Mode <- modes()] ++ [start(Config)],
    Call = py:spawn_call(Looping, ?HELPERS, loop, [self()]),
    ok = causeway_ct:expect(<<"running">>),
    [?assertEqual({ok, <<"counted">>}, py:call(Other, ?HELPERS, count_down, [1000], 10000))
     || _ <- lists:seq(1, 5), Other <- Others],
    %% All of them compute at once.
    Loops = [py:spawn_call(Other, ?HELPERS, loop, [self()]) || Other <- Others],
    [ok = causeway_ct:expect(<<"running">>) || _ <- Loops],
    Started = start(Config),
    ?assertEqual({ok, <<"counted">>}, py:call(Started, ?HELPERS, count_down, [1000], 10000)),
    [ok = py:interrupt(Context) || Context <- [Looping | Others]],
    [?assertMatch({error, {'CallInterrupted', _}}, py:await(Each, 10000)) || Each <- [Call | Loops]],
    [ok = py_context:stop(Context) || Context <- [Looping, Started | Others]].

%% C code keeps the lock of its interpreter only: everybody is served before it is done.
computing_in_c_delays_nobody(Config) ->
    [Computing | Others] = [start(Config), start(Config), start([{mode, worker}]), start([{mode, subinterp}])],
    Call = py:spawn_call(Computing, ?HELPERS, compute, [self(), 100000000]),
    ok = causeway_ct:expect(<<"running">>),
    [?assertEqual({ok, 4.0}, py:call(Other, math, sqrt, [16])) || _ <- lists:seq(1, 50), Other <- Others],
    ?assertEqual([], causeway_ct:mailbox()),
    ?assertEqual({ok, 4999999950000000}, py:await(Call, 100000)),
    ok = causeway_ct:expect(<<"computed">>),
    [ok = py_context:stop(Context) || Context <- [Computing | Others]].
