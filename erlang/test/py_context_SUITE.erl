%% @doc Contexts as OTP processes: supervision, shutdown, overload, and what they leave behind.
-module(py_context_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-define(HELPERS, causeway_helpers).

suite() -> [{timetrap, {seconds, 120}}].

all() ->
    [is_an_otp_process, unknown_messages_are_ignored, one_thread_each, stop_ends_the_thread, stop_while_python_loops,
     stop_while_python_is_stubborn, shutdown_by_its_supervisor_while_python_loops, supervisor_restarts_it,
     killed_owner_ends_the_thread, killed_owner_answers_its_callers, linked_parent_dies, pool_restarts,
     pool_survives_ten_restarts_with_callers, calls_during_restart_are_answered, full_queue_is_an_error, full_queue_recovers,
     least_loaded_context_is_taken, stuck_context_is_avoided, setup_code_runs_first, failing_setup_code, setup_code_that_exits, wrong_options, no_context,
     registered_name, name_twice, stats_count, lock_is_measured, one_batch_for_queued_calls, suspended_owner_does_not_delay_calls, long_call_does_not_delay_other_contexts,
     two_thousand_contexts_leave_nothing, two_hundred_contexts_at_once, failed_starts_leave_nothing].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_testcase(_Case, Config) -> causeway_ct:start(Config).

end_per_testcase(_Case, _Config) -> ok.

%% OTP

is_an_otp_process(_Config) ->
    Context = start(#{id => 17}),
    ?assert(is_map(sys:get_state(Context))),
    ?assertMatch({status, Context, {module, gen_server}, [_ | _]}, sys:get_status(Context)),
    Status = lists:flatten(io_lib:format("~p", [sys:get_status(Context)])),
    ?assertNotEqual(nomatch, string:find(Status, "Statistics")),
    ok = sys:suspend(Context),
    ok = sys:change_code(Context, py_context, undefined, []),
    ok = sys:resume(Context),
    ?assertEqual({ok, 1}, py:eval(Context, <<"1">>)),
    ?assertMatch(#{id := 17}, py_context:stats(Context)),
    ?assertMatch({status, _, _, _}, sys:get_status(py_reactor_default)),
    ok = py_context:stop(Context).

unknown_messages_are_ignored(_Config) ->
    Context = start(#{}),
    [Context ! Message || Message <- [hello, {causeway, nonsense}, {select, make_ref(), undefined, ready_input},
                                      {causeway, {log, error}}, {make_ref(), {ok, 1}}, {'EXIT', spawn(fun() -> ok end), normal}]],
    ok = gen_server:cast(Context, hello),
    ?assertEqual({error, unknown_request}, gen_server:call(Context, hello)),
    ?assertEqual({ok, 1}, py:eval(Context, <<"1">>)),
    ok = py_context:stop(Context).

one_thread_each(_Config) ->
    Before = causeway_ct:context_threads(),
    Contexts = [start(#{}) || _ <- lists:seq(1, 5)],
    ?assertEqual(Before + 5, causeway_ct:context_threads()),
    [{ok, 4.0} = py:call(Context, math, sqrt, [16]) || Context <- Contexts],
    ?assertEqual(Before + 5, causeway_ct:context_threads()),
    [ok = py_context:stop(Context) || Context <- Contexts],
    ok = causeway_ct:settled(fun causeway_ct:context_threads/0, Before).

stop_ends_the_thread(_Config) ->
    Before = causeway_ct:context_threads(),
    Context = start(#{}),
    {Milliseconds, ok} = causeway_ct:milliseconds(fun() -> py_context:stop(Context) end),
    ?assert(Milliseconds < 1000),
    ok = causeway_ct:settled(fun causeway_ct:context_threads/0, Before).

stop_while_python_loops(_Config) ->
    Before = causeway_ct:context_threads(),
    [begin
         Context = start(#{}),
         Call = py:spawn_call(Context, ?HELPERS, Function, [self() | Arguments]),
         ok = causeway_ct:expect(<<"running">>),
         {Milliseconds, ok} = causeway_ct:milliseconds(fun() -> py_context:stop(Context) end),
         ?assert(Milliseconds < 1500),
         ?assertMatch({error, {context_stopped, <<_, _/binary>>}}, py:await(Call))
     end || {Function, Arguments} <- [{loop, []}, {sleep, [60]}]],
    ok = causeway_ct:settled(fun causeway_ct:context_threads/0, Before).

%% The process does not wait for ever, its caller is answered, and the others go on.
stop_while_python_is_stubborn(_Config) ->
    Before = causeway_ct:context_threads(),
    Context = start(#{}),
    Call = py:spawn_call(Context, ?HELPERS, hold_gil, [self(), 900000]),
    ok = causeway_ct:expect(<<"running">>),
    {Milliseconds, ok} = causeway_ct:milliseconds(fun() -> py_context:stop(Context) end),
    ?assert(Milliseconds < 4000),
    ?assertMatch({error, {context_stopped, _}}, py:await(Call)),
    ?assertEqual({ok, 1}, py:eval(<<"1">>)),
    ok = causeway_ct:settled(fun causeway_ct:context_threads/0, Before).

shutdown_by_its_supervisor_while_python_loops(_Config) ->
    Before = causeway_ct:context_threads(),
    {Supervisor, [Context]} = supervised([#{id => 1}]),
    Call = py:spawn_call(Context, ?HELPERS, loop, [self()]),
    ok = causeway_ct:expect(<<"running">>),
    Monitor = monitor(process, Context),
    {Milliseconds, _} = causeway_ct:milliseconds(fun() -> end_supervisor(Supervisor) end),
    ?assert(Milliseconds < 3000),
    ok = causeway_ct:expect({'DOWN', Monitor, process, Context, shutdown}),
    ?assertMatch({error, {context_stopped, _}}, py:await(Call)),
    ok = causeway_ct:settled(fun causeway_ct:context_threads/0, Before).

supervisor_restarts_it(_Config) ->
    {Supervisor, [Context]} = supervised([#{id => 1, setup_code => <<"import math">>}]),
    Monitor = monitor(process, Context),
    exit(Context, crash),
    ok = causeway_ct:expect({'DOWN', Monitor, process, Context, crash}),
    ok = causeway_ct:wait_until(fun() -> [Context] =/= children(Supervisor) andalso lists:all(fun is_pid/1, children(Supervisor)) end),
    [New] = children(Supervisor),
    ?assertEqual({ok, 4.0}, py:call(New, math, sqrt, [16])),
    end_supervisor(Supervisor).

killed_owner_ends_the_thread(_Config) ->
    Before = causeway_ct:context_threads(),
    Context = start(#{}),
    unlink(Context),
    Monitor = monitor(process, Context),
    exit(Context, kill),
    ok = causeway_ct:expect({'DOWN', Monitor, process, Context, killed}),
    ok = causeway_ct:settled(fun causeway_ct:context_threads/0, Before),
    ?assertMatch({error, {no_context, _}}, py:call(Context, math, sqrt, [16])).

%% What is no context is not stopped in its place.
no_context(_Config) ->
    Other = spawn(fun() -> receive after infinity -> ok end end),
    Supervisor = whereis(py_pool_sup),
    [?assertError(badarg, Function(Process)) || Process <- [Other, Supervisor, py_pool_sup], Function <- [fun py_context:stop/1, fun py_context:stats/1]],
    [?assertError(badarg, py_context:stop(Process, 100)) || Process <- [Other, Supervisor]],
    ?assertEqual({true, Supervisor}, {is_process_alive(Other), whereis(py_pool_sup)}),
    exit(Other, kill),
    {error, {no_context, Text}} = py_context:diagnose(no_such_context),
    ?assertNotEqual(nomatch, string:find(Text, "no_such_context")).

killed_owner_answers_its_callers(_Config) ->
    Context = start(#{}),
    unlink(Context),
    Running = py:spawn_call(Context, ?HELPERS, loop, [self()]),
    ok = causeway_ct:expect(<<"running">>),
    Queued = [py:spawn_call(Context, math, sqrt, [16]) || _ <- lists:seq(1, 100)],
    exit(Context, kill),
    [?assertMatch({error, {context_stopped, _}}, py:await(Call, 10000)) || Call <- [Running | Queued]],
    ?assertEqual([], causeway_ct:mailbox()).

linked_parent_dies(_Config) ->
    Before = causeway_ct:context_threads(),
    Test = self(),
    Parent = spawn(fun() -> Test ! {context, start(#{})}, receive die -> exit(died) end end),
    Context = receive {context, Pid} -> Pid end,
    Monitor = monitor(process, Context),
    Parent ! die,
    ok = causeway_ct:expect({'DOWN', Monitor, process, Context, died}),
    ok = causeway_ct:settled(fun causeway_ct:context_threads/0, Before).

%% The pool

pool_restarts(_Config) ->
    {ok, Before} = py:start_contexts(),
    [exit(Context, kill) || Context <- Before],
    ok = causeway_ct:wait_until(fun() ->
                                        {ok, Now} = py:start_contexts(),
                                        lists:all(fun(Context) -> not lists:member(Context, Before) end, Now)
                                end),
    ok = causeway_ct:wait_until(fun() -> pool_is_whole() end),
    ?assertEqual({ok, 4.0}, py:call(math, sqrt, [16])).

pool_is_whole() ->
    {ok, Contexts} = py:start_contexts(),
    lists:zip(lists:seq(1, length(Contexts)), Contexts)
        =:= [{Index, py:context(Index)} || Index <- lists:seq(1, length(Contexts))].

%% Whoever calls while contexts are killed gets an answer: a value, or an error that says so.
pool_survives_ten_restarts_with_callers(_Config) ->
    ok = application:stop(causeway),
    ok = causeway_ct:start(),
    Test = self(),
    Callers = [spawn_link(fun() -> keep_calling(Test, []) end) || _ <- lists:seq(1, 8)],
    [begin
         Context = py:context(1),
         exit(Context, kill),
         ok = causeway_ct:wait_until(fun() -> is_pid(py:context(1)) andalso py:context(1) =/= Context end)
     end || _ <- lists:seq(1, 8)],
    [Caller ! stop || Caller <- Callers],
    Results = lists:usort(lists:append([receive {Caller, Seen} -> Seen end || Caller <- Callers])),
    ?assertEqual([], Results -- [value, context_stopped, no_context]),
    ?assert(lists:member(value, Results)).

keep_calling(Test, Seen) ->
    receive
        stop -> Test ! {self(), Seen}
    after 0 ->
        Kind = case py:call(math, sqrt, [16]) of
                   {ok, 4.0} -> value;
                   {error, {Reason, _}} -> Reason;
                   Other -> Other
               end,
        keep_calling(Test, lists:usort([Kind | Seen]))
    end.

calls_during_restart_are_answered(_Config) ->
    Context = py:context(1),
    Calls = [py:spawn_call(Context, ?HELPERS, identity, [N]) || N <- lists:seq(1, 2000)],
    exit(Context, kill),
    Results = [py:await(Call, 10000) || Call <- Calls, is_reference(Call)],
    ?assertEqual([], [Result || Result <- Results, element(1, Result) =/= ok, not is_stopped(Result)]),
    ?assertEqual([], causeway_ct:mailbox()),
    ok = causeway_ct:wait_until(fun() -> pool_is_whole() end).

is_stopped({error, {context_stopped, _}}) -> true;
is_stopped(_) -> false.

%% Overload

full_queue_is_an_error(_Config) ->
    Context = start(#{max_queue => 10}),
    Running = py:spawn_call(Context, ?HELPERS, loop, [self()]),
    ok = causeway_ct:expect(<<"running">>),
    Results = [py:spawn_call(Context, math, sqrt, [16]) || _ <- lists:seq(1, 15)],
    ?assertEqual(10, length([Call || Call <- Results, is_reference(Call)])),
    [?assertMatch({error, {overloaded, <<_, _/binary>>}}, Result) || Result <- Results, not is_reference(Result)],
    ?assertMatch({error, {overloaded, _}}, py:call(Context, math, sqrt, [16])),
    ?assertMatch({error, {overloaded, _}}, py:eval(Context, <<"1">>)),
    ?assertMatch({error, {overloaded, _}}, py:exec(Context, <<"1">>)),
    ?assertMatch({error, {overloaded, _}}, py:cast(Context, math, sqrt, [16])),
    ?assertMatch(#{queued := 10, refused := 9, calls := 1}, py_context:stats(Context)),
    ok = py_context:stop(Context),
    [?assertMatch({error, {context_stopped, _}}, py:await(Call)) || Call <- [Running | Results], is_reference(Call)],
    ?assertEqual([], causeway_ct:mailbox()).

%% Calls that were given up make room.
full_queue_recovers(_Config) ->
    Context = start(#{max_queue => 4}),
    {ok, none} = py:call(?HELPERS, close_gate, []),
    Gate = py:spawn_call(Context, ?HELPERS, wait_at_gate, [self()]),
    ok = causeway_ct:expect(<<"running">>),
    %% Those that have been given up make room.
    [?assertEqual({error, timeout}, py:call(Context, math, sqrt, [16], 1)) || _ <- lists:seq(1, 20)],
    {ok, none} = py:call(?HELPERS, open_gate, []),
    ?assertEqual({ok, <<"passed">>}, py:await(Gate)),
    ?assertEqual({ok, 4.0}, py:call(Context, math, sqrt, [16])),
    ok = py_context:stop(Context).

least_loaded_context_is_taken(_Config) ->
    {ok, [First, _Second | _]} = py:start_contexts(2),
    Loop = py:spawn_call(First, ?HELPERS, sleep, [self(), 60]),
    ok = causeway_ct:expect(<<"running">>),
    [?assertEqual({ok, N}, py:call(?HELPERS, identity, [N], #{}, 5000)) || N <- lists:seq(1, 50)],
    exit(First, kill),
    ?assertMatch({error, {context_stopped, _}}, py:await(Loop)),
    ok = causeway_ct:wait_until(fun() -> pool_is_whole() end).

%% A context in a long call gets none of the quick ones, however many callers there are.
stuck_context_is_avoided(_Config) ->
    {ok, [First, _Second | _]} = py:start_contexts(2),
    Loop = py:spawn_call(First, ?HELPERS, sleep, [self(), 60]),
    ok = causeway_ct:expect(<<"running">>),
    ok = causeway_ct:wait_until(fun() -> {ok, #{running_ms := Running}} = py_context:diagnose(First), Running >= 300 end),
    Quick = fun() -> [{ok, N} = py:call(?HELPERS, identity, [N], #{}, 5000) || N <- lists:seq(1, 500)] end,
    Callers = [spawn_monitor(Quick) || _ <- lists:seq(1, 8)],
    [ok = causeway_ct:expect({'DOWN', Monitor, process, Caller, normal}) || {Caller, Monitor} <- Callers],
    ok = py:interrupt(First),
    ?assertMatch({error, {'CallInterrupted', _}}, py:await(Loop)).

%% Starting

setup_code_runs_first(_Config) ->
    Context = start(#{setup_code => ["import sys\n", <<"sys.causeway_setup = 'done'">>]}),
    ?assertEqual({ok, <<"done">>}, py:eval(Context, <<"__import__('sys').causeway_setup">>)),
    ok = py_context:stop(Context).

failing_setup_code(_Config) ->
    process_flag(trap_exit, true),
    {error, {setup_failed, Error}} = py_context:start_link(#{setup_code => <<"x = 1\nraise KeyError('setup')">>}),
    ?assertMatch(#{type := 'KeyError', message := <<"'setup'">>, traceback := [#{line := 2}]}, Error),
    ?assertMatch({error, {setup_failed, #{type := 'SyntaxError'}}}, py_context:start_link(#{setup_code => <<"def">>})),
    ?assertMatch({error, {setup_failed, #{type := 'NameError'}}}, py_reactor_context:start_link(1, worker, #{setup_code => <<"absent">>})),
    ?assertMatch({error, {setup_failed, _}}, py_context:start_link(#{setup_code => <<255>>})).

setup_code_that_exits(_Config) ->
    process_flag(trap_exit, true),
    ?assertMatch({error, {setup_failed, #{type := 'SystemExit'}}}, py_context:start_link(#{setup_code => <<"raise SystemExit(1)">>})).

wrong_options(_Config) ->
    process_flag(trap_exit, true),
    [?assertMatch({Options, {error, _}}, {Options, py_context:start_link(Options)})
     || Options <- [#{id => a}, #{max_queue => 0}, #{max_queue => -1}, #{max_queue => many}, #{linger => -1}, #{linger => soon},
                    #{max_connections => -1}, #{setup_code => 1}, #{unknown => 1}, #{pool => 0},
                    #{id => 1 bsl 70}, #{linger => 1 bsl 70}, #{max_queue => 1 bsl 70}, #{max_connections => 1 bsl 70}]],
    [?assertEqual({error, {bad_option, mode, Mode}}, py_reactor_context:start_link(1, Mode))
     || Mode <- [nonsense, 1]],
    [?assertEqual({error, {bad_option, name, Name}}, py_context:start_link(#{name => Name})) || Name <- ["name", self()]],
    [?assertMatch({error, {badarg, <<"the options of a context are a map", _/binary>>}}, Started)
     || Started <- [py_context:start_link([]), py_context:start_link(mode), py_reactor_context:start_link(1, worker, [])]],
    ?assertEqual([], causeway_ct:mailbox() -- [Message || {'EXIT', _, _} = Message <- causeway_ct:mailbox()]).

registered_name(_Config) ->
    Context = start(#{name => py_context_suite_name}),
    ?assertEqual(Context, whereis(py_context_suite_name)),
    ?assertMatch(#{}, py_context:stats(py_context_suite_name)),
    ok = py_context:stop(Context),
    ?assertEqual(undefined, whereis(py_context_suite_name)).

name_twice(_Config) ->
    process_flag(trap_exit, true),
    Context = start(#{name => py_context_suite_name}),
    ?assertMatch({error, {already_started, Context}}, py_context:start_link(#{name => py_context_suite_name})),
    ok = py_context:stop(Context).

stats_count(_Config) ->
    Context = start(#{id => 5, max_connections => 7}),
    ?assertMatch(#{id := 5, active_connections := 0, total_connections := 0, total_requests := 0, max_connections := 7, calls := 0},
                 py_context:stats(Context)),
    [{ok, _} = py:eval(Context, <<"1">>) || _ <- lists:seq(1, 10)],
    ?assertMatch(#{calls := 10}, py_context:stats(Context)),
    ok = py_context:stop(Context).

%% A context waits for a lock that another one keeps; the time in which Python waits for Erlang is nobody's.
lock_is_measured(_Config) ->
    [Holding, Waiting] = [start(#{}), start(#{})],
    [?assertEqual({ok, 1}, py:eval(Context, <<"1">>)) || Context <- [Holding, Waiting]],
    Times = fun(Context) -> maps:with([gil_wait_us, gil_hold_us], py_context:stats(Context)) end,
    #{gil_hold_us := HeldBefore} = Times(Holding),
    #{gil_wait_us := WaitedBefore} = Times(Waiting),
    Holder = py:spawn_call(Holding, ?HELPERS, hold_gil, [self(), 500000]),
    ok = causeway_ct:expect(<<"running">>),
    ?assertEqual({ok, 4.0}, py:call(Waiting, math, sqrt, [16])),
    ?assertEqual({ok, <<"held">>}, py:await(Holder)),
    %% A call is answered a moment before its turn is over.
    ok = causeway_ct:wait_until(fun() -> maps:get(gil_hold_us, Times(Holding)) - HeldBefore >= 500000 end),
    ok = causeway_ct:wait_until(fun() -> maps:get(gil_wait_us, Times(Waiting)) - WaitedBefore >= 100000 end),
    #{gil_hold_us := Before} = Times(Waiting),
    ok = py:register_function(a_moment, fun([]) -> receive after 500 -> ok end end),
    ?assertEqual({ok, <<"ok">>}, py:eval(Waiting, <<"__import__('erlang').call('a_moment')">>)),
    {ok, 1} = py:eval(Waiting, <<"1">>),
    ?assert(maps:get(gil_hold_us, Times(Waiting)) - Before < 400000),
    ok = py:unregister_function(a_moment),
    [ok = py_context:stop(Context) || Context <- [Holding, Waiting]].

%% Python's lock is taken once for all calls that wait, and up to 64 are one batch.
one_batch_for_queued_calls(_Config) ->
    Context = start(#{}),
    {ok, none} = py:call(?HELPERS, close_gate, []),
    Gate = py:spawn_call(Context, ?HELPERS, wait_at_gate, [self()]),
    ok = causeway_ct:expect(<<"running">>),
    #{batches := Before, calls := Calls} = py_context:stats(Context),
    Queued = [py:spawn_call(Context, builtins, abs, [-N]) || N <- lists:seq(1, 64)],
    {ok, none} = py:call(?HELPERS, open_gate, []),
    ?assertEqual({ok, <<"passed">>}, py:await(Gate)),
    ?assertEqual([{ok, N} || N <- lists:seq(1, 64)], [py:await(Call) || Call <- Queued]),
    #{batches := After, calls := AllCalls} = py_context:stats(Context),
    ?assertEqual(64, AllCalls - Calls),
    ?assert(After - Before =< 3),
    ok = py_context:stop(Context).

%% Independence

suspended_owner_does_not_delay_calls(_Config) ->
    Context = start(#{}),
    ok = sys:suspend(Context),
    ?assertEqual({ok, 1}, py:eval(Context, <<"1">>, #{}, 5000)),
    ok = sys:resume(Context),
    ok = py_context:stop(Context).

long_call_does_not_delay_other_contexts(_Config) ->
    [Busy, Free] = [start(#{}), start(#{})],
    Loop = py:spawn_call(Busy, ?HELPERS, loop, [self()]),
    ok = causeway_ct:expect(<<"running">>),
    [?assertEqual({ok, 1}, py:eval(Free, <<"1">>, #{}, 5000)) || _ <- lists:seq(1, 20)],
    ok = py_context:stop(Busy),
    ?assertMatch({error, {context_stopped, _}}, py:await(Loop)),
    ok = py_context:stop(Free).

%% What is left behind

two_thousand_contexts_leave_nothing(_Config) ->
    start_and_stop(100),
    ok = causeway_ct:settled(fun causeway_ct:context_threads/0, py_contexts:pool_size() + 1),
    Threads = causeway_ct:threads(),
    Descriptors = causeway_ct:descriptors(),
    start_and_stop(200),
    Memory = causeway_ct:rss(),
    start_and_stop(1800),
    ok = causeway_ct:settled(fun causeway_ct:threads/0, Threads),
    ok = causeway_ct:settled(fun causeway_ct:descriptors/0, Descriptors),
    {ok, _} = py:call(gc, collect, []),
    ok = causeway_ct:settled(fun causeway_ct:rss/0, Memory + (16 bsl 20)).

start_and_stop(Number) ->
    [begin
         Context = start(#{}),
         {ok, 1} = py:eval(Context, <<"1">>),
         ok = py_context:stop(Context)
     end || _ <- lists:seq(1, Number)].

two_hundred_contexts_at_once(_Config) ->
    Threads = causeway_ct:threads(),
    Descriptors = causeway_ct:descriptors(),
    Contexts = [start(#{}) || _ <- lists:seq(1, 200)],
    Calls = [py:spawn_call(Context, ?HELPERS, identity, [Context]) || Context <- Contexts],
    [?assertEqual({ok, Context}, py:await(Call)) || {Context, Call} <- lists:zip(Contexts, Calls)],
    [unlink(Context) || Context <- Contexts],
    [exit(Context, kill) || Context <- Contexts],
    ok = causeway_ct:settled(fun causeway_ct:threads/0, Threads),
    ok = causeway_ct:settled(fun causeway_ct:descriptors/0, Descriptors).

failed_starts_leave_nothing(_Config) ->
    process_flag(trap_exit, true),
    Threads = causeway_ct:threads(),
    Descriptors = causeway_ct:descriptors(),
    [{error, _} = py_context:start_link(#{setup_code => <<"raise KeyError">>}) || _ <- lists:seq(1, 50)],
    ok = causeway_ct:settled(fun causeway_ct:threads/0, Threads),
    ok = causeway_ct:settled(fun causeway_ct:descriptors/0, Descriptors).

%% Helpers

start(Options) ->
    {ok, Context} = py_context:start_link(Options),
    Context.

%% A supervisor of our own, not linked to the test.
supervised(OptionsOfAll) ->
    Children = [#{id => Id, start => {py_context, start_link, [Options]}, shutdown => 5000} || #{id := Id} = Options <- OptionsOfAll],
    {ok, Supervisor} = supervisor:start_link(?MODULE, Children),
    unlink(Supervisor),
    {Supervisor, children(Supervisor)}.

init(Children) ->
    {ok, {#{strategy => one_for_one, intensity => 5, period => 10}, Children}}.

children(Supervisor) ->
    [Pid || {_, Pid, _, _} <- supervisor:which_children(Supervisor)].

end_supervisor(Supervisor) ->
    Monitor = monitor(process, Supervisor),
    exit(Supervisor, shutdown),
    receive {'DOWN', Monitor, process, Supervisor, _} -> ok end.
