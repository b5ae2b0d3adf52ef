%% @doc Tasks that do not let their loop go on: they are interrupted where they are given up, and nothing else is.
-module(py_task_interrupt_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-define(HELPERS, loop_helpers).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [{group, worker}, {group, subinterp}, {group, owngil}].

groups() ->
    Cases = [time_out, wait_in_native_code, wait_for_erlang, cancelled, dead_caller, part_of_a_task, generator, interrupt,
             each_is_told_once, nobody_else_is_hit],
    [{worker, [], Cases}, {subinterp, [], Cases}, {owngil, [], Cases}].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_group(Mode, Config) -> mode_ct:start_group(Mode, Config).

end_per_group(_Mode, Config) -> Config.

init_per_testcase(Case, Config) ->
    true = register(Case, self()),
    {ok, Context} = py_context:start_link(#{mode => proplists:get_value(mode, Config)}),
    {ok, none} = py:call(Context, sys, 'path.insert', [0, causeway_ct:python_dir()]),
    %% What is imported with the first task takes longer than some of these have.
    goes_on([{context, Context}]),
    [{name, atom_to_binary(Case)}, {context, Context} | Config].

end_per_testcase(_Case, Config) ->
    goes_on(Config),
    ok = py_context:stop(causeway_ct:context(Config)),
    ?assertEqual([], causeway_ct:mailbox()).

task(Config, Function) -> task(Config, Function, #{}).

task(Config, Function, Options) -> task(Config, Function, [proplists:get_value(name, Config)], Options).

task(Config, Function, Args, Options) ->
    py_event_loop:create_task(?HELPERS, Function, Args, Options#{context => causeway_ct:context(Config)}).

%% The loop and its context serve as before.
goes_on(Config) ->
    ?assertEqual({ok, 3}, py_event_loop:await(task(Config, add, [1, 2], #{}))),
    ?assertEqual({ok, 4.0}, py:call(causeway_ct:context(Config), math, sqrt, [16], 30000)).

time_out(Config) ->
    {Milliseconds, {error, timeout}} =
        causeway_ct:milliseconds(fun() -> py_event_loop:await(task(Config, spin, #{timeout => 100})) end),
    ?assert(Milliseconds < 1500),
    [ok = causeway_ct:expect(Message) || Message <- [started, interrupted]].

wait_in_native_code(Config) ->
    ?assertEqual({error, timeout}, py_event_loop:await(task(Config, sleep_in_vain, #{timeout => 100}))),
    [ok = causeway_ct:expect(Message) || Message <- [started, interrupted]].

%% The process of the function ends, too.
wait_for_erlang(Config) ->
    Self = self(),
    ok = py:register_function(task_waits, fun([]) -> Self ! {function, self()}, receive never -> ok end end),
    Task = task(Config, call_sync, [task_waits], #{timeout => 100}),
    Function = receive {function, Pid} -> Pid end,
    Monitor = erlang:monitor(process, Function),
    ?assertEqual({error, timeout}, py_event_loop:await(Task)),
    receive {'DOWN', Monitor, process, Function, _} -> ok end,
    ok = py:unregister_function(task_waits).

cancelled(Config) ->
    Task = task(Config, spin),
    ok = causeway_ct:expect(started),
    ok = py_event_loop:cancel(Task),
    ok = causeway_ct:expect(interrupted).

dead_caller(Config) ->
    Caller = spawn(fun() -> _ = task(Config, spin), receive never -> ok end end),
    ok = causeway_ct:expect(started),
    exit(Caller, kill),
    ok = causeway_ct:expect(interrupted).

%% What a task has started is part of it.
part_of_a_task(Config) ->
    ?assertEqual({error, timeout}, py_event_loop:await(task(Config, gather_spin, #{timeout => 100}))),
    [ok = causeway_ct:expect(Message) || Message <- [started, interrupted]].

generator(Config) ->
    {ok, Stream} = py:stream_start(?HELPERS, spinning_generator, [proplists:get_value(name, Config)],
                                   #{context => causeway_ct:context(Config)}),
    ok = causeway_ct:expect(started),
    ok = py:stream_cancel(Stream),
    ok = causeway_ct:expect(interrupted).

interrupt(Config) ->
    Task = task(Config, spin),
    Other = task(Config, sleep, [0.01, late], #{}),
    ok = causeway_ct:expect(started),
    ok = py:interrupt(causeway_ct:context(Config)),
    ?assertMatch({error, {'CallInterrupted', _}}, py_event_loop:await(Task)),
    ok = causeway_ct:expect(interrupted),
    ?assertEqual({ok, <<"late">>}, py_event_loop:await(Other)).

%% Tasks that take many short steps are told as asyncio does it; those that the machine has held up in one, as others are.
each_is_told_once(Config) ->
    Tasks = [task(Config, step_until_cancelled) || _ <- lists:seq(1, 100)],
    [ok = causeway_ct:expect(started) || _ <- Tasks],
    [ok = py_event_loop:cancel(Task) || Task <- Tasks],
    [receive How when How =:= cancelled; How =:= interrupted -> ok end || _ <- Tasks].

%% Time-outs at any moment of computations that are too long, while others take many short steps.
nobody_else_is_hit(Config) ->
    {ok, none} = py:call(causeway_ct:context(Config), ?HELPERS, begin_stepping, []),
    Others = [task(Config, step_on, [Number], #{}) || Number <- lists:seq(1, 20)],
    [begin
         Task = task(Config, spin_for, [Number * 0.004], #{timeout => 20}),
         ?assert(lists:member(py_event_loop:await(Task), [{error, timeout}, {ok, <<"spun">>}]))
     end || Number <- lists:seq(1, 20)],
    {ok, none} = py:call(causeway_ct:context(Config), ?HELPERS, end_stepping, []),
    ?assertEqual([{ok, Number} || Number <- lists:seq(1, 20)], [py_event_loop:await(Other) || Other <- Others]).
