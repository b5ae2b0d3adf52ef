%% @doc Coroutines: tasks of Erlang's in the event loop of a context, loops that calls run, and what ends them.
-module(py_event_loop_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-define(HELPERS, loop_helpers).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [results, on_whose_behalf, errors, wrong_arguments, names_of_the_process, many_tasks, tasks_and_calls, gather, gather_fails,
     await_again, time_out_cancels, cancel, dead_caller_cancels, detached_lives_on, context_stops,
     ten_thousand_are_cancelled, tasks_call_erlang, erlang_function_that_fails, cancelled_call_of_erlang,
     task_that_blocks, sockets, loop_in_the_foreground, foreground_serves, foreground_in_the_foreground,
     background_in_the_foreground, interrupted_loop, stubborn_loop, keyboard_interrupt, channels,
     waits_need_no_threads, async_generators, async_generator_fails, async_generator_cancelled, async_generator_of_dead_owner,
     collected_async_generator, subprocesses,
     signal_handlers, sockets_of_erlang, reactor_beside_tasks, other_modes].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_testcase(Case, Config) ->
    true = register(Case, self()),
    [{name, atom_to_binary(Case)} | causeway_ct:start_context(Config)].

end_per_testcase(_Case, Config) ->
    causeway_ct:kill_context(Config),
    ?assertEqual([], causeway_ct:mailbox()).

name(Config) -> proplists:get_value(name, Config).

%% Tasks

results(Config) ->
    Context = causeway_ct:context(Config),
    ?assertEqual({ok, 3}, py:async_await(py:async_call(?HELPERS, add, [1, 2]))),
    ?assertEqual({ok, 2}, py:async_await(py:async_call(?HELPERS, add, [1]), infinity)),
    ?assertEqual({ok, 6}, py:async_await(py:async_call(?HELPERS, add, [1], #{b => 5}))),
    ?assertEqual({ok, 3}, py:async_await(py:async_call(Context, ?HELPERS, add, [1, 2]))),
    ?assertEqual({ok, 7}, py:async_await(py:async_call(?HELPERS, plain, [7]))),
    ?assertEqual({ok, 3}, py_event_loop:await(py_event_loop:create_task(?HELPERS, add, [1, 2]))),
    ?assertEqual({ok, 9}, py_event_loop:await(py_event_loop:create_task(
                                                ?HELPERS, add, [1], #{kwargs => #{b => 8}, context => Context}), 5000)).

%% A task, and what it starts, runs on behalf of the process that has started it.
on_whose_behalf(Config) ->
    Context = causeway_ct:context(Config),
    Self = self(),
    ?assertEqual({ok, Self}, py:async_await(py:async_call(Context, ?HELPERS, whose, []))),
    Other = spawn_link(fun() -> Self ! {self(), py:async_await(py:async_call(Context, ?HELPERS, whose, []))} end),
    receive {Other, Result} -> ?assertEqual({ok, Other}, Result) end.

errors(_Config) ->
    ?assertEqual({error, {'ValueError', "oh"}}, py:async_await(py:async_call(?HELPERS, fail, [<<"oh">>]))),
    ?assertMatch({error, {'TypeError', _}}, py:async_await(py:async_call(?HELPERS, add, []))),
    ?assertMatch({error, {'ModuleNotFoundError', _}}, py:async_await(py:async_call(absent_module, f, []))),
    {error, Map} = py_event_loop:await(py_event_loop:create_task(?HELPERS, fail, [<<"oh">>], #{error => map})),
    ?assertMatch(#{type := 'ValueError', message := <<"oh">>, traceback := [_ | _]}, Map),
    #{function := Function} = lists:last(maps:get(traceback, Map)),
    ?assertEqual(<<"fail">>, Function).

wrong_arguments(_Config) ->
    ?assertMatch({error, {badarg, _}}, py:async_call(?HELPERS, add, 1)),
    ?assertMatch({error, {badarg, _}}, py:async_await(no_reference)),
    ?assertMatch({error, {unknown_call, _}}, py:async_await(make_ref())),
    ?assertMatch({error, {badarg, _}}, py:async_gather(no_list)),
    ?assertMatch({error, {badarg, _}}, py:async_gather([], soon)),
    ?assertMatch({error, {gather_failed, [{1, {badarg, _}}]}}, py:async_gather([{?HELPERS, add}])),
    ?assertMatch({error, {badarg, _}}, py_event_loop:create_task(?HELPERS, add, [1], [])),
    ?assertMatch({error, {badarg, _}}, py_event_loop:create_task(?HELPERS, add, [1], #{context => here})),
    ?assertMatch({error, {badarg, _}}, py_event_loop:create_task(?HELPERS, add, [1], #{detached => perhaps})),
    ?assertMatch({error, {badarg, _}},
                 py_event_loop:create_task(?HELPERS, add, [1], #{detached => true, timeout => 1})),
    ?assertMatch({error, {badarg, _}}, py_event_loop:create_task(?HELPERS, add, [1], #{colour => red})),
    ?assertMatch({error, {badarg, _}}, py_event_loop:cancel(no_reference)),
    ?assertEqual(ok, py_event_loop:cancel(make_ref())).

names_of_the_process(_Config) ->
    ok = py:exec("import asyncio\nasync def mine():\n    await asyncio.sleep(0)\n    return 'mine'"),
    ?assertEqual({ok, <<"mine">>}, py_event_loop:await(py_event_loop:create_task('__main__', mine, []), 5000)).

many_tasks(Config) ->
    Context = causeway_ct:context(Config),
    Numbers = lists:seq(1, 5000),
    Tasks = [py:async_call(Context, ?HELPERS, sleep, [0.05, Number]) || Number <- Numbers],
    ?assertEqual([{ok, Number} || Number <- Numbers], [py:async_await(Task) || Task <- Tasks]).

%% Calls have their turn before each of so many tasks has had one: in steps of tasks, as the clock depends on the machine.
%% The least of them counts, as the caller itself may wait for a processor; no call would be as quick if all waited for a
%% round of the tasks.
tasks_and_calls(Config) ->
    Context = causeway_ct:context(Config),
    {ok, none} = py:call(Context, ?HELPERS, begin_stepping, []),
    Tasks = [py:async_call(Context, ?HELPERS, step_on, [Number]) || Number <- lists:seq(1, 5000)],
    %% Their first steps: behind the last of them all run.
    {ok, 3} = py:async_await(py:async_call(Context, ?HELPERS, add, [1, 2])),
    Steps = [begin {ok, Count} = py:call(Context, ?HELPERS, steps, []), Count end || _ <- lists:seq(1, 101)],
    Waits = [Later - Earlier || {Earlier, Later} <- lists:zip(lists:droplast(Steps), tl(Steps))],
    ?assert(lists:min(Waits) < 5000),
    ?assert(lists:last(Steps) > 5000),
    {ok, none} = py:call(Context, ?HELPERS, end_stepping, []),
    ?assertEqual([{ok, Number} || Number <- lists:seq(1, 5000)], [py:async_await(Task) || Task <- Tasks]).

gather(_Config) ->
    Calls = [{?HELPERS, add, [1, 2]}, {?HELPERS, add, [1], #{b => 5}}, {?HELPERS, plain, [none]}],
    ?assertEqual({ok, [3, 6, none]}, py:async_gather(Calls)),
    ?assertEqual({ok, []}, py:async_gather([])),
    {ok, Threads} = py:async_gather([{?HELPERS, thread, []} || _ <- lists:seq(1, 20)]),
    ?assertEqual(1, length(lists:usort(Threads))).

gather_fails(_Config) ->
    Calls = [{?HELPERS, add, [1]}, {?HELPERS, fail, [<<"a">>]}, {?HELPERS, fail, [<<"b">>]}],
    ?assertEqual({error, {gather_failed, [{2, {'ValueError', "a"}}, {3, {'ValueError', "b"}}]}},
                 py:async_gather(Calls)),
    ?assertEqual({error, {gather_failed, [{2, timeout}]}},
                 py:async_gather([{?HELPERS, add, [1]}, {?HELPERS, sleep, [3600]}], 200)).

await_again(_Config) ->
    Task = py:async_call(?HELPERS, sleep, [0.1, <<"later">>]),
    ?assertEqual({error, timeout}, py:async_await(Task, 0)),
    ?assertEqual({ok, <<"later">>}, py:async_await(Task)).

time_out_cancels(Config) ->
    Task = py_event_loop:create_task(?HELPERS, cancelled, [name(Config)], #{timeout => 50}),
    expect(started),
    ?assertEqual({error, timeout}, py_event_loop:await(Task)),
    expect(cancelled).

cancel(Config) ->
    Task = py_event_loop:create_task(?HELPERS, cancelled, [name(Config)]),
    expect(started),
    ok = py_event_loop:cancel(Task),
    expect(cancelled),
    ok = py_event_loop:cancel(Task),
    ?assertMatch({error, {unknown_call, _}}, py_event_loop:await(Task)).

dead_caller_cancels(Config) ->
    Caller = spawn(fun() ->
                           _ = py:async_call(?HELPERS, cancelled, [name(Config)]),
                           receive stop -> ok end
                   end),
    expect(started),
    exit(Caller, kill),
    expect(cancelled).

detached_lives_on(Config) ->
    {Caller, Monitor} =
        spawn_monitor(fun() ->
                              ok = py_event_loop:create_task(?HELPERS, tell_later, [name(Config)], #{detached => true})
                      end),
    receive {'DOWN', Monitor, process, Caller, normal} -> ok end,
    expect(done).

context_stops(Config) ->
    Context = causeway_ct:context(Config),
    Task = py:async_call(Context, ?HELPERS, cancelled, [name(Config)]),
    expect(started),
    ok = py_context:stop(Context),
    expect(cancelled),
    ?assertMatch({error, {context_stopped, _}}, py:async_await(Task)).

ten_thousand_are_cancelled(_Config) ->
    %% A context that ends lets go of its thread and descriptors: this one has not begun to use any before.
    Before = {causeway_ct:threads(), causeway_ct:descriptors()},
    Context = causeway_ct:context(),
    {ok, _} = py:call(Context, math, sqrt, [16]),
    Tasks = [py:async_call(Context, ?HELPERS, sleep, [3600]) || _ <- lists:seq(1, 10000)],
    {ok, none} = py:call(Context, builtins, print, [], #{kwargs => #{'end' => <<>>}}),
    ok = py_context:stop(Context),
    ?assert(lists:all(fun({error, {context_stopped, _}}) -> true; (_) -> false end,
                      [py:async_await(Task) || Task <- Tasks])),
    {ok, Left} = py:eval("len([t for t in __import__('asyncio').tasks._all_tasks "
                         "if 'loop_helpers' in repr(t.get_coro()) or 'sleep' in repr(t.get_coro())])"
                         " if hasattr(__import__('asyncio').tasks, '_all_tasks') else 0"),
    ?assertEqual(0, Left),
    {Threads, Descriptors} = Before,
    ok = causeway_ct:settled(fun causeway_ct:threads/0, Threads),
    ok = causeway_ct:settled(fun causeway_ct:descriptors/0, Descriptors).

%% Tasks call Erlang

tasks_call_erlang(Config) ->
    Context = causeway_ct:context(Config),
    ok = py:register_function(loop_double, fun([Number]) -> 2 * Number end),
    ok = py:register_function(loop_back, fun([Number]) ->
                                                 {ok, Sum} = py:call(Context, ?HELPERS, run, [add, Number, 1]),
                                                 Sum
                                         end),
    ?assertEqual({ok, 14}, py:async_await(py:async_call(Context, ?HELPERS, call_async, [loop_double, 7]))),
    ?assertEqual({ok, 14}, py:async_await(py:async_call(Context, ?HELPERS, call_sync, [loop_double, 7]))),
    ?assertEqual({ok, 999000}, py:async_await(py:async_call(Context, ?HELPERS, sum_of_calls, [loop_double, 1000]))),
    %% Python to Erlang to Python in one context, with a loop at each end.
    ?assertEqual({ok, 8}, py:async_await(py:async_call(Context, ?HELPERS, call_async, [loop_back, 7]))),
    ?assertEqual({ok, 8}, py:async_await(py:async_call(Context, ?HELPERS, call_sync, [loop_back, 7]))),
    ?assertEqual({ok, 8}, py:call(Context, ?HELPERS, run, [call_sync, loop_back, 7])),
    ?assertEqual({ok, 8}, py:call(Context, ?HELPERS, run, [call_async, loop_back, 7])),
    [ok = py:unregister_function(Name) || Name <- [loop_double, loop_back]].

erlang_function_that_fails(_Config) ->
    ok = py:register_function(loop_fails, fun([]) -> error(no_good) end),
    ?assertMatch({error, {'ErlangError', _}}, py:async_await(py:async_call(?HELPERS, call_async, [loop_fails]))),
    ?assertMatch({error, {'NameError', _}}, py:async_await(py:async_call(?HELPERS, call_async, [loop_absent]))),
    ok = py:unregister_function(loop_fails).

%% A task that waits no more ends the process of the function.
cancelled_call_of_erlang(_Config) ->
    Self = self(),
    ok = py:register_function(loop_waits, fun([]) -> Self ! {function, self()}, receive never -> ok end end),
    Task = py:async_call(?HELPERS, call_async_within, [0.05, loop_waits]),
    Function = receive {function, Pid} -> Pid end,
    Monitor = erlang:monitor(process, Function),
    ?assertEqual({ok, <<"timeout">>}, py:async_await(Task)),
    receive {'DOWN', Monitor, process, Function, _} -> ok end,
    ok = py:unregister_function(loop_waits).

%% A task that calls Erlang without await holds up its loop, and nothing else of the context.
task_that_blocks(Config) ->
    Context = causeway_ct:context(Config),
    Self = self(),
    ok = py:register_function(loop_blocks, fun([]) -> Self ! {function, self()}, receive go -> gone end end),
    Blocked = py:async_call(Context, ?HELPERS, call_sync, [loop_blocks]),
    Function = receive {function, Pid} -> Pid end,
    Other = py:async_call(Context, ?HELPERS, add, [1, 2]),
    ?assertEqual({ok, 4.0}, py:call(Context, math, sqrt, [16])),
    ?assertEqual({error, timeout}, py:async_await(Other, 50)),
    Function ! go,
    ?assertEqual({ok, <<"gone">>}, py:async_await(Blocked)),
    ?assertEqual({ok, 3}, py:async_await(Other)),
    ok = py:unregister_function(loop_blocks).

%% Loops

sockets(Config) ->
    Context = causeway_ct:context(Config),
    {ok, Port} = py:async_await(py:async_call(Context, ?HELPERS, serve_echo, [])),
    {ok, Socket} = gen_tcp:connect("127.0.0.1", Port, [binary, {active, false}]),
    Large = binary:copy(<<"0123456789">>, 50000),
    [begin ok = gen_tcp:send(Socket, Data), {ok, Data} = gen_tcp:recv(Socket, byte_size(Data)) end
     || Data <- [<<"one">>, Large, <<"two">>]],
    %% The same loop asks itself, another context asks it, and a loop that a call runs on the same thread.
    ?assertEqual({ok, <<"ping">>}, py:async_await(py:async_call(Context, ?HELPERS, ask, [Port, {bytes, <<"ping">>}]))),
    ?assertEqual({ok, <<"ping">>}, py:async_await(py:async_call(?HELPERS, ask, [Port, {bytes, <<"ping">>}]))),
    ?assertEqual({ok, <<"ping">>}, py:call(Context, ?HELPERS, run, [ask, Port, {bytes, <<"ping">>}])),
    ok = gen_tcp:close(Socket),
    {ok, none} = py:async_await(py:async_call(Context, ?HELPERS, stop_serving, [])).

loop_in_the_foreground(Config) ->
    Context = causeway_ct:context(Config),
    ?assertEqual({ok, 3}, py:call(Context, ?HELPERS, run, [add, 1, 2])),
    ?assertEqual({error, {'ValueError', "oh"}}, py:call(Context, ?HELPERS, run, [fail, <<"oh">>])),
    ?assertEqual({ok, <<"slept">>}, py:call(Context, ?HELPERS, run, [sleeping, 0.01])),
    ?assertEqual({ok, none}, py:call(Context, erlang, sleep, [0.01])).

%% While a call runs a loop, its context serves other calls, tasks and streams.
foreground_serves(Config) ->
    Context = causeway_ct:context(Config),
    Call = py:spawn_call(Context, ?HELPERS, run_forever_loudly, [name(Config)]),
    expect(started),
    ?assertEqual({ok, 4.0}, py:call(Context, math, sqrt, [16])),
    ?assertEqual({ok, 3}, py:async_await(py:async_call(Context, ?HELPERS, add, [1, 2]))),
    ?assertEqual({ok, <<"late">>}, py:async_await(py:async_call(Context, ?HELPERS, sleep, [0.02, late]))),
    ?assertEqual({error, timeout}, py:await(Call, 0)),
    ok = py_call:cancel(Call),
    expect(cancelled).

foreground_in_the_foreground(Config) ->
    Context = causeway_ct:context(Config),
    Call = py:spawn_call(Context, ?HELPERS, run_forever_loudly, [name(Config)]),
    expect(started),
    ?assertEqual({ok, 3}, py:call(Context, ?HELPERS, run, [add, 1, 2])),
    ok = py_call:cancel(Call),
    expect(cancelled).

background_in_the_foreground(Config) ->
    Context = causeway_ct:context(Config),
    {ok, Port} = py:async_await(py:async_call(Context, ?HELPERS, serve_echo, [])),
    Call = py:spawn_call(Context, ?HELPERS, run_forever_loudly, [name(Config)]),
    expect(started),
    ?assertEqual({ok, <<"ping">>}, py:async_await(py:async_call(Context, ?HELPERS, ask, [Port, {bytes, <<"ping">>}]))),
    ok = py_call:cancel(Call),
    expect(cancelled),
    {ok, none} = py:async_await(py:async_call(Context, ?HELPERS, stop_serving, [])).

%% The end of the call ends the loop, with the end of its tasks.
interrupted_loop(Config) ->
    Context = causeway_ct:context(Config),
    Self = self(),
    {Caller, Monitor} =
        spawn_monitor(fun() -> Self ! py:call(Context, ?HELPERS, run_forever_loudly, [name(Config)], 100) end),
    expect(started),
    expect({error, timeout}),
    expect(cancelled),
    receive {'DOWN', Monitor, process, Caller, _} -> ok end,
    Killed = spawn(fun() -> py:call(Context, ?HELPERS, run_forever_loudly, [name(Config)]) end),
    expect(started),
    exit(Killed, kill),
    expect(cancelled),
    Interrupted = py:spawn_call(Context, ?HELPERS, run_forever_loudly, [name(Config)]),
    expect(started),
    ok = py:interrupt(Context),
    ?assertMatch({error, {'CallInterrupted', _}}, py:await(Interrupted)),
    expect(cancelled),
    ?assertEqual({ok, 4.0}, py:call(Context, math, sqrt, [16])).

stubborn_loop(Config) ->
    Context = causeway_ct:context(Config),
    Call = py:spawn_call(Context, ?HELPERS, run_stubborn, [name(Config)]),
    expect(started),
    ok = py_call:cancel(Call),
    ?assertEqual({ok, 4.0}, py:call(Context, math, sqrt, [16])).

keyboard_interrupt(Config) ->
    Context = causeway_ct:context(Config),
    ?assertEqual({ok, <<"survived">>},
                 py:async_await(py:async_call(Context, ?HELPERS, raise_keyboard_interrupt, []))),
    ?assertMatch({error, {'KeyboardInterrupt', _}}, py:call(Context, ?HELPERS, run, [raise_keyboard_interrupt])),
    ?assertEqual({ok, 3}, py:call(Context, ?HELPERS, run, [add, 1, 2])).

channels(Config) ->
    Context = causeway_ct:context(Config),
    {ok, Channel} = py_byte_channel:new(),
    {ok, Before} = py:call(Context, ?HELPERS, threads, []),
    Task = py:async_call(Context, ?HELPERS, 'receive', [Channel]),
    ?assertEqual({error, timeout}, py:async_await(Task, 20)),
    ok = py_byte_channel:send(Channel, <<"hello">>),
    ?assertEqual({ok, <<"hello">>}, py:async_await(Task)),
    ?assertEqual({ok, Before}, py:call(Context, ?HELPERS, threads, [])).

%% A thousand waits for channels, for Erlang functions and for time need no thread, neither of Python's nor of the system's.
waits_need_no_threads(Config) ->
    Context = causeway_ct:context(Config),
    Numbers = lists:seq(1, 300),
    Channels = [begin {ok, Channel} = py_byte_channel:new(), Channel end || _ <- Numbers],
    Self = self(),
    ok = py:register_function(loop_parks, fun([Number]) -> Self ! {parked, self()}, receive go -> Number end end),
    {ok, <<"slept">>} = py:async_await(py:async_call(Context, ?HELPERS, sleeping, [0.001])),
    Before = os_threads(),
    Receiving = [py:async_call(Context, ?HELPERS, 'receive', [Channel]) || Channel <- Channels],
    Calling = [py:async_call(Context, ?HELPERS, call_async, [loop_parks, Number]) || Number <- Numbers],
    Sleeping = [py:async_call(Context, ?HELPERS, sleeping, [0.05]) || _ <- Numbers],
    Functions = [receive {parked, Pid} -> Pid end || _ <- Numbers],
    ?assertEqual(Before, os_threads()),
    [Function ! go || Function <- Functions],
    [ok = py_byte_channel:send(Channel, <<"hello">>) || Channel <- Channels],
    ?assertEqual([{ok, <<"hello">>}], lists:usort([py:async_await(Task) || Task <- Receiving])),
    ?assertEqual([{ok, Number} || Number <- Numbers], [py:async_await(Task) || Task <- Calling]),
    ?assertEqual([{ok, <<"slept">>}], lists:usort([py:async_await(Task) || Task <- Sleeping])),
    ?assertEqual(Before, os_threads()),
    ok = py:unregister_function(loop_parks).

os_threads() -> length(filelib:wildcard("/proc/self/task/*")).

%% Asynchronous generators

async_generators(Config) ->
    {ok, Stream} = py:stream_start(?HELPERS, numbers, [2500]),
    ?assertEqual({done, lists:seq(0, 2499)}, collect(Stream)),
    Context = causeway_ct:context(Config),
    Options = #{context => Context, kwargs => #{pause => 0.001}},
    Streams = [begin {ok, Reference} = py:stream_start(?HELPERS, numbers, [20], Options), Reference end
               || _ <- lists:seq(1, 10)],
    [?assertEqual({done, lists:seq(0, 19)}, collect(Reference)) || Reference <- Streams].

async_generator_fails(_Config) ->
    {ok, Stream} = py:stream_start(?HELPERS, numbers_then_fail, [2]),
    ?assertEqual({{error, {'KeyError', "'enough'"}}, [0, 1]}, collect(Stream)).

async_generator_cancelled(Config) ->
    {ok, Stream} = py:stream_start(?HELPERS, endless, [name(Config)]),
    receive {py_stream, Stream, {data, 0}} -> ok end,
    ok = py:stream_cancel(Stream),
    expect(closed).

async_generator_of_dead_owner(Config) ->
    Self = self(),
    Owner = spawn(fun() ->
                          {ok, Stream} = py:stream_start(?HELPERS, endless, [name(Config)]),
                          receive {py_stream, Stream, {data, 0}} -> Self ! begun end,
                          receive never -> ok end
                  end),
    expect(begun),
    exit(Owner, kill),
    expect(closed).

collected_async_generator(_Config) ->
    ?assertEqual({ok, [0, 1, 2]}, py:stream(?HELPERS, numbers, [3])),
    ?assertEqual({error, {'KeyError', "'enough'"}}, py:stream(?HELPERS, numbers_then_fail, [3])).

%% Others

subprocesses(Config) ->
    Context = causeway_ct:context(Config),
    ?assertEqual({ok, {<<"hi\n">>, 0}},
                 py:async_await(py:async_call(Context, ?HELPERS, subprocess_output, [echo, hi]))),
    ?assertEqual({ok, {<<"hi\n">>, 0}}, py:call(Context, ?HELPERS, run, [subprocess_output, echo, hi])).

signal_handlers(_Config) ->
    ?assertMatch({error, {'RuntimeError', "add_signal_handler() is refused inside the BEAM" ++ _}},
                 py:async_await(py:async_call(?HELPERS, add_signal_handler, []))).

%% A socket that Erlang has bound, and one that it has accepted.
sockets_of_erlang(Config) ->
    Context = causeway_ct:context(Config),
    {ok, Listener} = gen_tcp:listen(0, [binary, {active, false}, {ip, {127, 0, 0, 1}}]),
    {ok, Port} = inet:port(Listener),
    {ok, none} = py:async_await(py:async_call(Context, ?HELPERS, serve_listener, [duplicate(Listener)])),
    ok = gen_tcp:close(Listener),
    {ok, First} = gen_tcp:connect("127.0.0.1", Port, [binary, {active, false}]),
    echoes(First),
    {ok, none} = py:async_await(py:async_call(Context, ?HELPERS, stop_serving, [])),
    echoes(First),
    ?assertEqual({error, econnrefused}, gen_tcp:connect("127.0.0.1", Port, [])),
    {ok, Other} = gen_tcp:listen(0, [binary, {active, false}, {ip, {127, 0, 0, 1}}]),
    {ok, OtherPort} = inet:port(Other),
    {ok, Second} = gen_tcp:connect("127.0.0.1", OtherPort, [binary, {active, false}]),
    {ok, Accepted} = gen_tcp:accept(Other),
    {ok, none} = py:async_await(py:async_call(Context, ?HELPERS, adopt, [duplicate(Accepted)])),
    ok = gen_tcp:close(Accepted),
    echoes(Second),
    [ok = gen_tcp:close(Socket) || Socket <- [First, Second, Other]].

duplicate(Socket) ->
    {ok, Fd} = inet:getfd(Socket),
    {ok, Duplicate} = py:dup_fd(Fd),
    Duplicate.

echoes(Socket) ->
    ok = gen_tcp:send(Socket, <<"ping">>),
    ?assertEqual({ok, <<"ping">>}, gen_tcp:recv(Socket, 4)).

%% One context serves connections of its reactor, sockets and timers of its loop, and calls.
reactor_beside_tasks(Config) ->
    {ok, Context} = py_reactor_context:start_link(
                      7, worker, #{setup_code => <<"import erlang.reactor\n"
                                                   "class Echo(erlang.reactor.Protocol):\n"
                                                   "    def data_received(self, data):\n"
                                                   "        self.write_buffer.extend(data)\n"
                                                   "        return 'write_pending'\n"
                                                   "erlang.reactor.set_protocol_factory(Echo)\n">>}),
    {ok, Listener} = gen_tcp:listen(0, [binary, {active, false}, {ip, {127, 0, 0, 1}}]),
    {ok, Port} = inet:port(Listener),
    ok = py_reactor_context:handoff(Context, Listener, #{}),
    {ok, LoopPort} = py:async_await(py:async_call(Context, ?HELPERS, serve_echo, [])),
    Sleeping = py:async_call(Context, ?HELPERS, sleep, [0.2, late]),
    {ok, Reactor} = gen_tcp:connect("127.0.0.1", Port, [binary, {active, false}]),
    {ok, Loop} = gen_tcp:connect("127.0.0.1", LoopPort, [binary, {active, false}]),
    All = fun() -> echoes(Reactor), echoes(Loop), ?assertEqual({ok, 4.0}, py:call(Context, math, sqrt, [16])) end,
    [All() || _ <- lists:seq(1, 50)],
    %% The same while a call runs a loop of its own.
    Call = py:spawn_call(Context, ?HELPERS, run_forever_loudly, [name(Config)]),
    expect(started),
    [All() || _ <- lists:seq(1, 50)],
    ?assertEqual({ok, <<"late">>}, py:async_await(Sleeping)),
    ok = py_call:cancel(Call),
    expect(cancelled),
    All(),
    [ok = gen_tcp:close(Socket) || Socket <- [Reactor, Loop]],
    {ok, none} = py:async_await(py:async_call(Context, ?HELPERS, stop_serving, [])),
    ok = py_reactor_context:stop(Context).

other_modes(_Config) ->
    [begin
         {ok, Context} = py_context:start_link(#{mode => Mode}),
         {ok, none} = py:call(Context, sys, 'path.insert', [0, causeway_ct:python_dir()]),
         ?assertEqual({ok, 3}, py:call(Context, ?HELPERS, run, [add, 1, 2])),
         ?assertEqual({ok, 3}, py:async_await(py:async_call(Context, ?HELPERS, add, [1, 2]))),
         Task = py:async_call(Context, ?HELPERS, sleep, [3600]),
         ok = py_context:stop(Context),
         ?assertMatch({error, {context_stopped, _}}, py:async_await(Task))
     end || Mode <- modes(), _ <- [first, again]].

modes() ->
    {ok, Version} = py:version(),
    case Version of
        <<"3.11", _/binary>> -> [subinterp];
        _ -> [subinterp, owngil]
    end.

expect(Message) ->
    receive Message -> ok after 30000 -> error({missing, Message, process_info(self(), messages)}) end.

collect(Reference) -> collect(Reference, []).

collect(Reference, Items) ->
    receive
        {py_stream, Reference, {data, Item}} -> collect(Reference, [Item | Items]);
        {py_stream, Reference, End} -> {End, lists:reverse(Items)}
    end.
