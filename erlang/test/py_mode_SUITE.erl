%% @doc The kinds of context: in the main interpreter, in one of their own, and in one with a lock of its own. The
%% same tests in each, how far they are apart from each other, and what one leaves to the next.
-module(py_mode_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-define(HELPERS, mode_helpers).

suite() -> [{timetrap, {seconds, 120}}].

all() ->
    [{group, worker}, {group, subinterp}, {group, owngil}, wrong_options, owngil_needs_3_12, refusals_end_no_node,
     pool_of_another_mode_is_refused, pool_is_started_by_many_at_once, pools_of_two_modes_started_at_once,
     pool_is_started_again_in_the_mode_of_the_application, atoms_are_counted_for_all_interpreters].

groups() ->
    Everywhere = [call_eval_exec, cast_and_spawn_call, streams, exceptions, callbacks, callbacks_between_contexts,
                  send_to_erlang, names_are_of_process_and_interpreter, numpy_works_or_python_says_why,
                  echo_by_a_socket, two_factories, time_outs, killed_callers, interrupts,
                  interruptions_leave_the_import_lock, stop_in_every_activity,
                  killed_owners, loop_delays_nobody, failing_setup_code, supervisor_restarts_it,
                  interpreter_in_interpreter_calls_erlang, twenty_contexts_at_once, contexts_leave_nothing],
    Apart = [modules_are_apart, factory_is_apart, extension_refuses, pool, pool_by_application_variable,
             names_stay_in_a_growing_pool, same_interpreter_as_if_new, standard_library_after_twenty_uses,
             package_with_c_parts_is_used_again, objects_go_before_the_next_context, thread_keeps_its_interpreter,
             thread_of_thread_module_keeps_its_interpreter, stubborn_finalizer, objects_of_a_stopped_context,
             objects_of_another_interpreter, starts_and_stops_race],
    [{worker, Everywhere}, {subinterp, Everywhere ++ Apart}, {owngil, Everywhere ++ Apart ++ [computing_in_c_delays_nobody]}].

init_per_suite(Config) ->
    ok = causeway_ct:start(),
    Config.

end_per_suite(_Config) ->
    ok = application:stop(causeway).

init_per_group(owngil, Config) ->
    case python() < [3, 12] of
        true -> {skip, "an interpreter with a lock of its own needs Python 3.12"};
        false -> [{mode, owngil} | Config]
    end;
init_per_group(Mode, Config) ->
    [{mode, Mode} | Config].

end_per_group(_Mode, _Config) ->
    ok.

init_per_testcase(_Case, Config) ->
    ok = causeway_ct:start(),
    process_flag(trap_exit, true),
    Config.

end_per_testcase(_Case, _Config) ->
    ok = application:set_env(causeway, context_mode, worker),
    py:execution_mode() =:= worker orelse py:stop_contexts(),
    ok = only_the_pool_has_threads(),
    [ok = py:unregister_function(Name) || Name <- [mode_wait, mode_nest, mode_double]].

%% Everything that a context does

call_eval_exec(Config) ->
    Context = start(Config),
    ?assertEqual({ok, 4.0}, py:call(Context, math, sqrt, [16])),
    ?assertEqual({ok, #{<<"a">> => [1, none, {true, self()}]}},
                 py:call(Context, ?HELPERS, identity, [#{a => [1, none, {true, self()}]}])),
    ?assertEqual({ok, [1, 2]}, py:call(Context, builtins, sorted, [[2, 1]], #{kwargs => #{reverse => false}})),
    ?assertEqual({ok, 1 bsl 100}, py:eval(Context, <<"1 << n">>, #{n => 100})),
    ok = py:exec(Context, <<"def twice(x): return 2 * x">>),
    ?assertEqual({ok, 8}, py:call(Context, '__main__', twice, [4])),
    ?assertEqual({ok, 8}, py:eval(Context, <<"twice(4)">>)),
    {ok, Text} = py:call(Context, ?HELPERS, identity, [binary:copy(<<"å"/utf8>>, 100000)]),
    ?assertEqual(200000, byte_size(Text)),
    ok = py_context:stop(Context).

cast_and_spawn_call(Config) ->
    Context = start(Config),
    ok = py:exec(Context, <<"import erlang\ndef tell(pid): erlang.send(pid, 'cast')">>),
    ok = py:cast(Context, '__main__', tell, [self()]),
    ok = causeway_ct:expect(<<"cast">>),
    Calls = [py:spawn_call(Context, ?HELPERS, identity, [N]) || N <- lists:seq(1, 100)],
    ?assertEqual([{ok, N} || N <- lists:seq(1, 100)], [py:await(Call) || Call <- Calls]),
    ok = py_context:stop(Context).

streams(Config) ->
    Context = start(Config),
    ?assertEqual({ok, [0, 1, 2]}, py:stream(Context, ?HELPERS, count_to, [3])),
    ?assertEqual({ok, [0, 1, 4]}, py:stream_eval(Context, <<"(n * n for n in range(3))">>)),
    {ok, Stream} = py:stream_start(?HELPERS, count_to, [5000], #{context => Context}),
    ?assertEqual(lists:seq(0, 4999), received(Stream)),
    {ok, Endless} = py:stream_start(?HELPERS, loop_in_generator, [self()], #{context => Context}),
    ok = causeway_ct:expect({py_stream, Endless, {data, 1}}),
    ok = causeway_ct:expect(<<"running">>),
    ok = py:stream_cancel(Endless),
    ?assertEqual({ok, 1}, py:eval(Context, <<"1">>)),
    ?assertEqual([], causeway_ct:mailbox()),
    ok = py_context:stop(Context).

received(Stream) ->
    receive
        {py_stream, Stream, {data, Item}} -> [Item | received(Stream)];
        {py_stream, Stream, done} -> []
    end.

exceptions(Config) ->
    Context = start(Config),
    ?assertEqual({error, {'ZeroDivisionError', "division by zero"}}, py:eval(Context, <<"1 / 0">>)),
    {error, #{type := 'KeyError', traceback := [_ | _], cause := Cause}} =
        py:exec(Context, <<"try: 1 / 0\nexcept ZeroDivisionError as error: raise KeyError('x') from error">>, #{error => map}),
    ?assertMatch(#{type := 'ZeroDivisionError'}, Cause),
    ?assertMatch({error, {'RecursionError', _}}, py:exec(Context, <<"def deep(): deep()\ndeep()">>)),
    ?assertMatch({error, {'SystemExit', _}}, py:exec(Context, <<"raise SystemExit(1)">>)),
    ?assertEqual({ok, 1}, py:eval(Context, <<"1">>)),
    ok = py_context:stop(Context).

%% Down and up on the same context: Python, Erlang, Python, ...
callbacks(Config) ->
    Context = start(Config),
    ok = py:register_function(mode_double, fun([N]) -> 2 * N end),
    ok = py:register_function(mode_nest, fun([Depth]) -> {ok, Found} = py:call(Context, ?HELPERS, nest, [Depth]), Found end),
    ?assertEqual({ok, 42}, py:eval(Context, <<"__import__('erlang').call('mode_double', 21)">>)),
    ok = py:exec(Context, <<"from erlang import mode_double">>),
    ?assertEqual({ok, [0, 2, 4]}, py:eval(Context, <<"[mode_double(n) for n in range(3)]">>)),
    ?assertEqual({ok, 30}, py:call(Context, ?HELPERS, nest, [30])),
    ?assertMatch({error, {'NameError', _}}, py:eval(Context, <<"__import__('erlang').call('nobody')">>)),
    ok = py_context:stop(Context).

callbacks_between_contexts(Config) ->
    Contexts = {start(Config), start(Config), start([{mode, worker}])},
    ok = py:register_function(mode_nest, fun([Depth]) ->
                                                 Context = element(1 + Depth rem 3, Contexts),
                                                 {ok, Found} = py:call(Context, ?HELPERS, nest, [Depth]),
                                                 Found
                                         end),
    ?assertEqual({ok, 50}, py:call(element(1, Contexts), ?HELPERS, nest, [50])),
    [ok = py_context:stop(Context) || Context <- tuple_to_list(Contexts)].

send_to_erlang(Config) ->
    Context = start(Config),
    true = register(mode_suite, self()),
    Code = <<"import erlang, threading\n"
             "me = erlang.whereis('mode_suite')\n"
             "erlang.send(me, (erlang.self(), erlang.atom('sent'), b'\\xff', 1.5))\n"
             "t = threading.Thread(target=erlang.send, args=(me, 'from a thread'))\nt.start()\nt.join()\n">>,
    ok = py:exec(Context, Code),
    ok = causeway_ct:expect({self(), sent, <<255>>, 1.5}),
    ok = causeway_ct:expect(<<"from a thread">>),
    true = unregister(mode_suite),
    ok = py_context:stop(Context).

%% Workers share an interpreter, so that a process finds its names in each.
names_are_of_process_and_interpreter(Config) ->
    {One, Other} = {start(Config), start(Config)},
    ok = py:exec(One, <<"mine = 1">>),
    ?assertEqual({ok, 1}, py:eval(One, <<"mine">>)),
    ?assertMatch({error, {'NameError', _}}, in_process(fun() -> py:eval(One, <<"mine">>) end)),
    case mode(Config) of
        worker -> ?assertEqual({ok, 1}, py:eval(Other, <<"mine">>));
        _ -> ?assertMatch({error, {'NameError', _}}, py:eval(Other, <<"mine">>))
    end,
    ok = py:exec(Other, <<"mine = 2">>),
    ?assertEqual({ok, case mode(Config) of worker -> 2; _ -> 1 end}, py:eval(One, <<"mine">>)),
    %% They go with the process, here too.
    Test = self(),
    in_process(fun() -> ok = py:exec(One, [<<"import mode_helpers\n">>]),
                        {ok, none} = py:eval(One, <<"globals().update(thing=mode_helpers.departing(pid, 'names'))">>, #{pid => Test})
               end),
    ok = expect_gone(One, <<"names">>),
    [ok = py_context:stop(Context) || Context <- [One, Other]].

%% The names go by the context's thread, which is asked to look.
expect_gone(Context, Name) ->
    {ok, _} = py:eval(Context, <<"1">>),
    causeway_ct:expect({<<"gone">>, Name}).

%% Which of both is up to numpy: what counts is that its answer arrives, and that nothing else breaks.
numpy_works_or_python_says_why(Config) ->
    Worker = start([{mode, worker}]),
    Product = {ok, [[2.0, 3.0], [6.0, 11.0]]},
    ?assertEqual(Product, py:call(Worker, ?HELPERS, multiply, [])),
    Context = start(Config),
    case py:call(Context, ?HELPERS, multiply, []) of
        Product ->
            ok;
        {error, {Type, Text}} ->
            ?assertNotEqual(worker, mode(Config)),
            ?assertEqual('ImportError', Type),
            Said = unicode:characters_to_binary(Text),
            ?assertMatch({_, _}, binary:match(Said, [<<"subinterpreter">>, <<"more than once per process">>]))
    end,
    ?assertEqual({ok, 1}, py:eval(Context, <<"1">>)),
    ?assertEqual(Product, py:call(Worker, ?HELPERS, multiply, [])),
    ok = py_context:stop(Context),
    Again = start(Config),
    ?assertMatch({Tag, _} when Tag =:= ok; Tag =:= error, py:call(Again, ?HELPERS, multiply, [])),
    ?assertEqual(Product, py:call(Worker, ?HELPERS, multiply, [])),
    [ok = py_context:stop(Each) || Each <- [Again, Worker]].

%% Serving

echo_by_a_socket(Config) ->
    Context = server(Config, "Echo"),
    Clients = [connect(Context) || _ <- lists:seq(1, 20)],
    [ok = gen_tcp:send(Client, <<"ping">>) || Client <- Clients],
    [?assertEqual({ok, <<"ping">>}, gen_tcp:recv(Client, 4, 10000)) || Client <- Clients],
    Large = binary:copy(<<"0123456789abcdef">>, 1 bsl 14),
    ok = gen_tcp:send(hd(Clients), Large),
    ?assertEqual({ok, Large}, gen_tcp:recv(hd(Clients), byte_size(Large), 20000)),
    ?assertEqual({ok, 1}, py:eval(Context, <<"1">>)),
    ?assertMatch(#{active_connections := 20, total_requests := N} when N >= 20, py_reactor_context:stats(Context)),
    ok = py_reactor_context:stop(Context),
    [?assertEqual({error, closed}, gen_tcp:recv(Client, 0, 10000)) || Client <- Clients].

%% What setup_code sets is that of the context, also among workers.
two_factories(Config) ->
    {One, Other} = {server(Config, "Echo"), server(Config, "Upper")},
    Said = [begin
                Client = connect(Context),
                ok = gen_tcp:send(Client, <<"ping">>),
                {ok, Answer} = gen_tcp:recv(Client, 4, 10000),
                Answer
            end || Context <- [One, Other]],
    ?assertEqual([<<"ping">>, <<"PING">>], Said),
    [ok = py_reactor_context:stop(Context) || Context <- [One, Other]].

server(Config, Factory) ->
    {ok, Context} = py_reactor_context:start_link(1, mode(Config),
                                                  #{setup_code => [setup_code(), "import mode_helpers, erlang.reactor as reactor\n"
                                                                   "reactor.set_protocol_factory(mode_helpers.", Factory, ")\n"]}),
    Context.

connect(Context) ->
    {Client, Server} = sockets(),
    {ok, Fd} = inet:getfd(Server),
    ok = py_reactor_context:handoff(Context, Fd, #{type => tcp}),
    Client.

sockets() ->
    {ok, Listener} = gen_tcp:listen(0, [binary, {active, false}, {ip, {127, 0, 0, 1}}]),
    {ok, Port} = inet:port(Listener),
    {ok, Client} = gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, false}]),
    {ok, Server} = gen_tcp:accept(Listener),
    ok = gen_tcp:close(Listener),
    {Client, Server}.

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

%% What a context can be in the middle of: whoever waits is answered, the thread ends, and a context that gets the
%% same interpreter finds it whole.
-define(ACTIVITIES, [loop, sleep, wait_for_erlang, import_endlessly]).

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

%% OTP

failing_setup_code(Config) ->
    Threads = causeway_ct:context_threads(),
    {error, {setup_failed, #{type := 'KeyError', traceback := [_ | _]}}} =
        py_context:start_link(#{mode => mode(Config), setup_code => <<"import sys\nsys.half_way = 1\nraise KeyError('x')">>}),
    {error, {setup_failed, #{type := 'SyntaxError'}}} =
        py_context:start_link(#{mode => mode(Config), setup_code => <<"1 +">>}),
    ok = causeway_ct:settled(fun causeway_ct:context_threads/0, Threads),
    Context = start(Config),
    mode(Config) =:= worker orelse ?assertEqual({ok, false}, py:eval(Context, <<"hasattr(__import__('sys'), 'half_way')">>)),
    ok = py_context:stop(Context).

supervisor_restarts_it(Config) ->
    Options = #{mode => mode(Config), setup_code => setup_code()},
    {ok, Supervisor} = supervisor:start_link(?MODULE, [#{id => context, start => {py_context, start_link, [Options]}}]),
    Restarts = [begin
                    [{_, Context, _, _}] = supervisor:which_children(Supervisor),
                    Call = py:spawn_call(Context, ?HELPERS, loop, [self()]),
                    ok = causeway_ct:expect(<<"running">>),
                    exit(Context, kill),
                    ?assertMatch({error, {context_stopped, _}}, py:await(Call, 10000)),
                    ok = causeway_ct:wait_until(fun() ->
                                                        [{_, New, _, _}] = supervisor:which_children(Supervisor),
                                                        is_pid(New) andalso New =/= Context
                                                end),
                    [{_, New, _, _}] = supervisor:which_children(Supervisor),
                    ?assertEqual({ok, 1}, py:call(New, ?HELPERS, identity, [1])),
                    New
                end || _ <- lists:seq(1, 4)],
    ?assertEqual(4, length(lists:usort(Restarts))),
    Monitor = monitor(process, Supervisor),
    exit(Supervisor, shutdown),
    receive {'DOWN', Monitor, process, Supervisor, shutdown} -> ok end,
    ?assertNot(is_process_alive(lists:last(Restarts))).

init(Children) ->
    {ok, {#{strategy => one_for_one, intensity => 10, period => 10}, Children}}.

%% Python code can make interpreters, too: they are none of ours, and may call Erlang all the same.
interpreter_in_interpreter_calls_erlang(Config) ->
    Context = start(Config),
    ok = py:register_function(mode_double, fun([N]) -> 2 * N end),
    case py:call(Context, ?HELPERS, interpreter_in_interpreter, [], 20000) of
        {ok, _} -> ok;
        {error, {Type, _}} -> ?assert(lists:member(Type, ['RunFailedError', 'ImportError', 'RuntimeError', 'ModuleNotFoundError']))
    end,
    ?assertEqual({ok, 1}, py:eval(Context, <<"1">>)),
    ok = py_context:stop(Context).

%% Many

twenty_contexts_at_once(Config) ->
    Test = self(),
    Starters = [spawn_link(fun() ->
                                   Context = start(Config),
                                   unlink(Context),
                                   Test ! {self(), Context}
                           end) || _ <- lists:seq(1, 20)],
    Contexts = [receive {Starter, Context} -> Context end || Starter <- Starters],
    Calls = [py:spawn_call(Context, ?HELPERS, use_standard_library, []) || Context <- Contexts],
    [?assertEqual({ok, {[3, 7], [1, 2], [<<"said 1">>], <<"cbt">>}}, py:await(Call)) || Call <- Calls],
    Interpreters = lists:usort([element(2, {ok, _} = py:call(Context, ?HELPERS, interpreter, [])) || Context <- Contexts]),
    ?assertEqual(case mode(Config) of worker -> 1; _ -> 20 end, length(Interpreters)),
    [exit(Context, kill) || Context <- Contexts],
    ok = only_the_pool_has_threads().

contexts_leave_nothing(Config) -> contexts_leave_nothing(Config, 20).

%% Each of them has a megabyte. The soak suite has more of them.
contexts_leave_nothing(Config, Number) ->
    start_and_stop(Config, Number),
    ok = only_the_pool_has_threads(),
    {Threads, Descriptors, Memory} = {causeway_ct:threads(), causeway_ct:descriptors(), causeway_ct:rss()},
    start_and_stop(Config, Number),
    ok = causeway_ct:settled(fun causeway_ct:threads/0, Threads),
    ok = causeway_ct:settled(fun causeway_ct:descriptors/0, Descriptors),
    ok = causeway_ct:settled(fun causeway_ct:rss/0, Memory + (8 bsl 20)).

start_and_stop(Config, Number) ->
    [begin
         Context = start(Config),
         ok = py:exec(Context, <<"import mode_helpers, h11\nblock = bytes(1 << 20)">>),
         {ok, 1} = py:call(Context, ?HELPERS, identity, [1]),
         ok = py_context:stop(Context)
     end || _ <- lists:seq(1, Number)].

%% Apart

modules_are_apart(Config) ->
    {One, Other, Worker} = {start(Config), start(Config), start([{mode, worker}])},
    [ok = py:exec(One, ["import ", Module, "\n", Module, ".mark = 'changed'"]) || Module <- ["mode_helpers", "math", "sys", "erlang"]],
    [?assertEqual({ok, true}, py:eval(One, ["__import__('", Module, "').mark == 'changed'"]))
     || Module <- ["mode_helpers", "math", "sys", "erlang"]],
    [?assertEqual({ok, false}, py:eval(Context, ["getattr(__import__('", Module, "'), 'mark', '') == 'changed'"]))
     || Module <- ["mode_helpers", "math", "sys", "erlang"], Context <- [Other, Worker]],
    [ok = py_context:stop(Context) || Context <- [One, Other, Worker]].

factory_is_apart(Config) ->
    %% By a call it is that of the interpreter.
    With = start(Config),
    ok = py:exec(With, <<"import mode_helpers\nmode_helpers.reactor.set_protocol_factory(mode_helpers.Echo)">>),
    Without = start(Config),
    {Client, Server} = sockets(),
    {ok, Fd} = inet:getfd(Server),
    ?assertEqual({error, no_protocol_factory}, py_reactor_context:handoff(Without, Fd, #{})),
    %% It is still the caller's, and another context takes it.
    ok = gen_tcp:send(Client, <<"kept">>),
    ok = py_reactor_context:handoff(With, Fd, #{}),
    ?assertEqual({ok, <<"kept">>}, gen_tcp:recv(Client, 4, 10000)),
    [ok = py_context:stop(Context) || Context <- [With, Without]].

%% Which extensions refuse is Python's business, and changes. That it is Python who says so is ours.
extension_refuses(Config) ->
    Names = [<<"_ctypes">>, <<"_curses">>, <<"_datetime">>],
    Context = start(Config),
    {ok, Refused} = py:call(Context, ?HELPERS, refusals, [Names]),
    case python() < [3, 12] of
        true ->
            ok = py_context:stop(Context),
            {skip, "Python 3.11 asks no extension whether it supports sub-interpreters"};
        false ->
            ?assertMatch([_ | _], maps:to_list(Refused)),
            [?assertEqual(<<"module ", Name/binary, " does not support loading in subinterpreters">>, Text)
             || {Name, Text} <- maps:to_list(Refused)],
            %% As an error of a call it is the same.
            [{Name, Text} | _] = maps:to_list(Refused),
            ?assertEqual({error, {'ImportError', unicode:characters_to_list(Text)}},
                         py:call(Context, importlib, import_module, [Name])),
            ?assertEqual({ok, #{}}, py:call(?HELPERS, refusals, [Names])),
            ok = py_context:stop(Context)
    end.

%% The pool

pool(Config) ->
    Mode = mode(Config),
    ok = py:stop_contexts(),
    {ok, [One, Other]} = py:start_contexts(#{mode => Mode, number => 2}),
    ?assertEqual(Mode, py:execution_mode()),
    ?assertEqual({One, Other}, {py:context(1), py:context(2)}),
    ?assertEqual({ok, [One, Other]}, py:start_contexts(#{mode => Mode, number => 2})),
    [?assertEqual({ok, Context}, py:eval(Context, <<"c">>, #{c => Context})) || Context <- [One, Other]],
    Test = self(),
    Callers = [spawn_link(fun() -> Test ! {self(), stays_with_its_context()} end) || _ <- lists:seq(1, 40)],
    Served = [receive {Caller, Context} -> Context end || Caller <- Callers],
    ?assertEqual(lists:sort([One, Other]), lists:usort(Served)),
    %% One of them dies; who was served by the other still is.
    Survivors = in_process(fun() -> keep_names_through_a_crash(One, Other) end),
    ?assertEqual(ok, Survivors),
    ok = py:stop_contexts(),
    ?assertNot(py:contexts_started()),
    ?assertMatch({error, {no_context, _}}, py:eval(<<"1">>)).

%% By calls of every form: the process finds what it has defined.
stays_with_its_context() ->
    ok = py:exec(<<"import erlang\ncount = 0\ndef bump():\n    global count\n    count += 1\n    return count">>),
    [{ok, N} = py:call('__main__', bump, []) || N <- lists:seq(1, 20)],
    {ok, 21} = py:await(py:spawn_call('__main__', bump, [])),
    {ok, [21]} = py:stream_eval(<<"[count]">>),
    Context = py:context(),
    {ok, 21} = py:eval(Context, <<"count">>),
    Context.

keep_names_through_a_crash(One, Other) ->
    ok = py:exec(<<"kept = 1">>),
    Mine = py:context(),
    [Victim] = [One, Other] -- [Mine],
    Monitor = monitor(process, Victim),
    exit(Victim, kill),
    receive {'DOWN', Monitor, process, Victim, killed} -> ok end,
    ok = keep_looking(fun() -> {ok, 1} = py:eval(<<"kept">>), Mine = py:context() end, 200),
    ok = causeway_ct:wait_until(fun() -> py_contexts:pool_size() =:= 2 end),
    {ok, 1} = py:eval(<<"kept">>),
    Mine = py:context(),
    ok.

keep_looking(_Look, 0) -> ok;
keep_looking(Look, Left) -> Look(), keep_looking(Look, Left - 1).

names_stay_in_a_growing_pool(Config) ->
    ok = py:stop_contexts(),
    {ok, [_, _]} = py:start_contexts(#{mode => mode(Config), number => 2}),
    Test = self(),
    Callers = [spawn_link(fun() ->
                                  ok = py:exec(<<"kept = 1">>),
                                  Test ! {self(), defined},
                                  receive grown -> ok end,
                                  Test ! {self(), py:eval(<<"kept">>)}
                          end) || _ <- lists:seq(1, 10)],
    [receive {Caller, defined} -> ok end || Caller <- Callers],
    {ok, [_, _, _]} = py:start_contexts(3),
    [Caller ! grown || Caller <- Callers],
    [receive {Caller, Result} -> ?assertEqual({ok, 1}, Result) end || Caller <- Callers],
    ok = py:stop_contexts().

pool_by_application_variable(Config) ->
    Code = io_lib:format("{ok, _} = application:ensure_all_started(causeway), ~p = py:execution_mode(), "
                         "{ok, [A, B]} = py:start_contexts(), [A, B] = [py:context(1), py:context(2)], "
                         "{ok, IdA} = py:eval(A, <<\"id(__import__('sys').modules)\">>), "
                         "{ok, IdB} = py:eval(B, <<\"id(__import__('sys').modules)\">>), true = IdA =/= IdB, "
                         "{ok, 4.0} = py:call(math, sqrt, [16]), ok = py:stop_contexts(), "
                         "{ok, _} = py:start_contexts(1), ~p = py:execution_mode(), "
                         "ok = application:stop(causeway), {ok, _} = application:ensure_all_started(causeway), "
                         "{ok, 4.0} = py:call(math, sqrt, [16]), io:put_chars(\"fine\"), halt(0).",
                         [mode(Config), mode(Config)]),
    Arguments = ["-causeway", "contexts", "2", "-causeway", "context_mode", atom_to_list(mode(Config))],
    Environment = [{"CAUSEWAY_PYTHON", causeway_ct:python_executable()}],
    %% As many contexts as schedulers is what start_contexts() asks for.
    ?assertEqual({0, <<"fine">>}, causeway_ct:run_node(lists:flatten(Code), Environment, ["+S", "2", "-kernel", "logger_level", "error" | Arguments])).

%% Used again

same_interpreter_as_if_new(Config) ->
    First = start(Config),
    {ok, Interpreter} = py:call(First, ?HELPERS, change_much, []),
    ok = py:exec(First, <<"mine = 1">>),
    ?assertEqual({ok, Interpreter}, py:call(First, ?HELPERS, interpreter, [])),
    ok = py_context:stop(First),
    Second = start(Config),
    ?assertEqual({ok, Interpreter}, py:call(Second, ?HELPERS, interpreter, [])),
    {ok, Traces} = py:call(Second, ?HELPERS, traces, []),
    ?assertEqual([], [Name || {Name, true} <- maps:to_list(Traces)]),
    ?assertMatch({error, {'NameError', _}}, py:eval(Second, <<"mine">>)),
    ?assertEqual({ok, <<"untouched">>}, py:eval(Second, <<"__import__('mode_helpers').mark">>)),
    {_, Server} = sockets(),
    {ok, Fd} = inet:getfd(Server),
    ?assertEqual({error, no_protocol_factory}, py_reactor_context:handoff(Second, Fd, #{})),
    ok = py_context:stop(Second).

standard_library_after_twenty_uses(Config) ->
    Interpreters = [begin
                        Context = start(Config),
                        ?assertEqual({ok, {[3, 7], [1, 2], [<<"said 1">>], <<"cbt">>}},
                                     py:call(Context, ?HELPERS, use_standard_library, [])),
                        ok = py:exec(Context, <<"import asyncio, concurrent.futures, dataclasses, decimal, enum, typing, unittest.mock, "
                                                "xml.dom.minidom, email.message, http.client, random, uuid\n"
                                                "with concurrent.futures.ThreadPoolExecutor(2) as pool:\n"
                                                "    assert list(pool.map(abs, [-1, -2])) == [1, 2]\n">>),
                        {ok, Interpreter} = py:call(Context, ?HELPERS, interpreter, []),
                        ok = py_context:stop(Context),
                        Interpreter
                    end || _ <- lists:seq(1, 20)],
    ?assertMatch([_], lists:usort(Interpreters)).

%% A package of nobody's, with an extension of the standard library in it: Python takes it for its own.
package_with_c_parts_is_used_again(Config) ->
    %% Of its own for each mode: what is mapped must not be written over.
    Directory = filename:join(proplists:get_value(priv_dir, Config), atom_to_list(mode(Config))),
    Package = filename:join(Directory, "native_package"),
    {ok, File} = py:eval(<<"__import__('_queue').__spec__.origin">>),
    ok = filelib:ensure_dir(filename:join(Package, "x")),
    {ok, _} = file:copy(File, filename:join(Package, filename:basename(File))),
    ok = file:write_file(filename:join(Package, "__init__.py"),
                         "import pure_module\nfrom native_package._queue import SimpleQueue\nmark = 'untouched'\n"),
    ok = file:write_file(filename:join(Directory, "pure_module.py"), "mark = 'untouched'\n"),
    [begin
         Context = start(Config),
         {ok, none} = py:call(Context, sys, 'path.insert', [0, unicode:characters_to_binary(Directory)]),
         ok = py:exec(Context, <<"import native_package, pure_module\nqueue = native_package.SimpleQueue()\nqueue.put(7)\n"
                                 "assert queue.get() == 7\nassert pure_module.mark == 'untouched'\npure_module.mark = 'changed'\n">>),
         ok = py_context:stop(Context)
     end || _ <- lists:seq(1, 5)].

%% What the old context still held goes with it, and not when another one has its interpreter.
objects_go_before_the_next_context(Config) ->
    First = start(Config),
    {ok, none} = py:eval(First, <<"globals().update(thing=__import__('mode_helpers').departing(pid, 'names'))">>, #{pid => self()}),
    {ok, none} = py:call(First, ?HELPERS, keep_in_thread, [self(), <<"thread">>]),
    ok = py:exec(First, <<"import mode_helpers\nmode_helpers.circle = [mode_helpers.per_thread.thing]\nmode_helpers.circle.append(mode_helpers.circle)">>),
    ok = py_context:stop(First),
    %% They were sent before the end was told.
    [receive {<<"gone">>, Name} -> ok after 0 -> error({still_there, Name}) end || Name <- [<<"names">>, <<"thread">>]].

thread_keeps_its_interpreter(Config) -> thread_keeps_interpreter(Config, threading).

thread_of_thread_module_keeps_its_interpreter(Config) -> thread_keeps_interpreter(Config, thread).

thread_keeps_interpreter(Config, Kind) ->
    First = start(Config),
    true = register(mode_hold, self()),
    {ok, Interpreter} = py:call(First, ?HELPERS, interpreter, []),
    {ok, none} = py:call(First, ?HELPERS, start_thread, [self(), Kind]),
    ok = causeway_ct:expect(<<"thread runs">>),
    ok = py_context:stop(First),
    Others = [start(Config) || _ <- lists:seq(1, 3)],
    [?assertNotEqual({ok, Interpreter}, py:call(Other, ?HELPERS, interpreter, [])) || Other <- Others],
    %% It goes on without its context.
    flush(<<"beat">>),
    ok = causeway_ct:expect(<<"beat">>),
    true = unregister(mode_hold),
    [ok = py_context:stop(Other) || Other <- Others].

flush(Message) ->
    receive Message -> flush(Message) after 0 -> ok end.

%% An object that resists its end is interrupted as calls are: the thread ends.
stubborn_finalizer(Config) ->
    Threads = causeway_ct:context_threads(),
    Context = start(Config),
    {ok, none} = py:call(Context, ?HELPERS, cling, [self()]),
    ok = py_context:stop(Context),
    ok = causeway_ct:expect(<<"clinging">>),
    ok = causeway_ct:settled(fun causeway_ct:context_threads/0, Threads),
    Next = start(Config),
    ?assertEqual({ok, 1}, py:call(Next, ?HELPERS, identity, [1])),
    ok = py_context:stop(Next).

%% Objects

%% Nobody but the janitor is left to give them back.
objects_of_a_stopped_context(Config) ->
    Context = start(Config),
    Test = self(),
    {Holder, Monitor} = spawn_monitor(fun() ->
                                              {ok, Thing} = py:call(Context, ?HELPERS, departing, [Test, <<"held">>]),
                                              Test ! held,
                                              receive go -> Thing end
                                      end),
    ok = causeway_ct:expect(held),
    ok = py_context:stop(Context),
    Holder ! go,
    receive {'DOWN', Monitor, process, Holder, _} -> ok end,
    ok = causeway_ct:expect({<<"gone">>, <<"held">>}),
    %% The same while another context has the interpreter.
    Next = start(Config),
    {ok, Other} = py:call(Next, ?HELPERS, departing, [self(), <<"next">>]),
    ?assert(is_reference(Other)),
    ok = py_context:stop(Next),
    Again = start(Config),
    ?assertMatch({error, {'ValueError', _}}, py:call(Again, ?HELPERS, identity, [Other])),
    ok = py_context:stop(Again).

%% What is another interpreter's is refused, or passed on without being looked at: never touched.
objects_of_another_interpreter(Config) ->
    {One, Other} = {start(Config), start(Config)},
    {ok, Object} = py:call(One, ?HELPERS, departing, [self(), <<"mine">>]),
    {ok, Class} = py:eval(One, <<"__import__('mode_helpers').Departing">>),
    [begin
         case py:call(Context, ?HELPERS, identity, [[Given]]) of
             {ok, [Back]} -> ?assert(is_reference(Back));
             {error, {'ValueError', _}} -> ok
         end,
         ?assertEqual({ok, 1}, py:eval(Context, <<"1">>))
     end || Given <- [Object, Class], Context <- [Other, py:context(1)]],
    ?assertEqual({ok, true}, py:eval(One, <<"type(thing) is kind">>, #{thing => Object, kind => Class})),
    [ok = py_context:stop(Context) || Context <- [One, Other]].

%% Contexts that come and go on many processes, while calls run: interpreters are handed from one to the next.
starts_and_stops_race(Config) ->
    Test = self(),
    Threads = causeway_ct:context_threads(),
    Racers = [spawn_link(fun() -> Test ! {self(), race(Config, Number)} end) || Number <- lists:seq(1, 8)],
    [receive {Racer, Result} -> ?assertEqual(ok, Result) end || Racer <- Racers],
    ok = causeway_ct:settled(fun causeway_ct:context_threads/0, Threads).

race(Config, Number) ->
    process_flag(trap_exit, true),
    [begin
         Context = start(Config),
         ok = py:exec(Context, <<"import mode_helpers\nassert mode_helpers.mark == 'untouched'\nmode_helpers.mark = 'changed'\nmine = 1">>),
         {ok, 1} = py:eval(Context, <<"mine">>),
         Call = py:spawn_call(Context, ?HELPERS, case (Round + Number) rem 3 of 0 -> identity; 1 -> loop; 2 -> sleep end, [self()]),
         case Round rem 2 of
             0 -> exit(Context, kill);
             1 -> ok = py_context:stop(Context)
         end,
         case py:await(Call, 20000) of
             {error, {context_stopped, _}} -> ok;
             {ok, _} -> ok
         end
     end || Round <- lists:seq(1, 12)],
    ok.

%% Not of one mode

wrong_options(_Config) ->
    [?assertMatch({error, {bad_option, mode, Wrong}}, py_context:start_link(#{mode => Wrong}))
     || Wrong <- [multi, "worker", <<"owngil">>, 1, undefined]],
    [?assertMatch({error, {badarg, <<_/binary>>}}, py:start_contexts(Wrong))
     || Wrong <- [#{mode => multi}, #{number => 0}, #{number => two}, #{size => 2}, #{mode => worker, size => 2}, 0, [], worker]],
    ok = application:stop(causeway),
    ok = application:set_env(causeway, context_mode, multi),
    ?assertMatch({error, _}, application:start(causeway)),
    ok = application:set_env(causeway, context_mode, worker),
    ok = causeway_ct:start().

owngil_needs_3_12(_Config) ->
    case python() < [3, 12] of
        true ->
            {error, {unsupported, Text}} = py_context:start_link(#{mode => owngil}),
            ?assertMatch({_, _}, binary:match(Text, <<"3.12">>)),
            ?assertEqual({error, {unsupported, Text}}, py_reactor_context:start_link(1, owngil)),
            ok = py:stop_contexts(),
            ?assertEqual({error, {unsupported, Text}}, py:start_contexts(#{mode => owngil, number => 2})),
            ?assertNot(py:contexts_started()),
            {ok, [_, _]} = py:start_contexts(#{mode => subinterp, number => 2}),
            ?assertEqual(subinterp, py:execution_mode());
        false ->
            {skip, "this Python has it"}
    end.

%% Where the main interpreter has loaded nothing yet: what refuses, again and again, and then in the main one.
refusals_end_no_node(_Config) ->
    Import = fun(Context) ->
                     io_lib:format("[py:call(~s, importlib, import_module, [Name]) || Name <- [<<\"decimal\">>, <<\"_decimal\">>, "
                                   "<<\"datetime\">>, <<\"_datetime\">>, <<\"_ctypes\">>, <<\"_elementtree\">>, <<\"pyexpat\">>]], ",
                                   [Context])
             end,
    [begin
         Code = ["{ok, _} = application:ensure_all_started(causeway), ",
                 [["{ok, C", N, "} = py_context:start_link(#{mode => ", atom_to_list(Mode), "}), ", Import(["C", N])] || N <- ["1", "2", "3"]],
                 Import("py:context(1)"),
                 "{ok, _} = py:eval(py:context(1), <<\"__import__('decimal').Decimal('1.5') + 1\">>), "
                 "io:put_chars(\"fine\"), halt(0)."],
         ?assertEqual({0, <<"fine">>}, causeway_ct:run_node(lists:flatten(Code), [{"CAUSEWAY_PYTHON", causeway_ct:python_executable()}]))
     end || Mode <- modes()].

pool_of_another_mode_is_refused(_Config) ->
    {ok, Workers} = py:start_contexts(),
    {error, {pool_mode, Text}} = py:start_contexts(#{mode => subinterp}),
    ?assertMatch({_, _}, binary:match(Text, <<"worker">>)),
    ?assertEqual({ok, Workers}, py:start_contexts()),
    ?assertEqual(worker, py:execution_mode()),
    ok = py:stop_contexts(),
    {ok, Contexts} = py:start_contexts(#{mode => subinterp, number => 2}),
    ?assertMatch({error, {pool_mode, _}}, py:start_contexts(#{mode => worker, number => 2})),
    ?assertEqual({ok, Contexts}, py:start_contexts(2)),
    %% Also where one of them is being restarted.
    exit(hd(Contexts), kill),
    ?assertMatch({error, {pool_mode, _}}, py:start_contexts(#{mode => worker, number => 2})).

pool_is_started_by_many_at_once(_Config) ->
    [begin
         ok = py:stop_contexts(),
         Results = at_once([fun() -> py:start_contexts(#{mode => worker, number => 2}) end || _ <- lists:seq(1, 8)]),
         ?assertMatch([{ok, [_, _]}], lists:usort(Results)),
         ?assertEqual(2, py_contexts:pool_size())
     end || _ <- lists:seq(1, 10)].

pools_of_two_modes_started_at_once(_Config) ->
    [begin
         ok = py:stop_contexts(),
         Results = at_once([fun() -> {Mode, py:start_contexts(#{mode => Mode, number => 2})} end
                            || _ <- lists:seq(1, 4), Mode <- [worker, subinterp]]),
         ?assertMatch([_], lists:usort([Mode || {Mode, {ok, _}} <- Results])),
         ?assertEqual(4, length([refused || {_, {error, {pool_mode, _}}} <- Results])),
         ?assertEqual(2, py_contexts:pool_size())
     end || _ <- lists:seq(1, 10)].

at_once(Funs) ->
    Test = self(),
    Processes = [spawn_link(fun() -> receive go -> Test ! {self(), Fun()} end end) || Fun <- Funs],
    [Process ! go || Process <- Processes],
    [receive {Process, Result} -> Result end || Process <- Processes].

pool_is_started_again_in_the_mode_of_the_application(_Config) ->
    ok = py:stop_contexts(),
    ok = application:set_env(causeway, context_mode, subinterp),
    ?assertEqual(subinterp, py:execution_mode()),
    {ok, [_, _]} = py:start_contexts(2),
    ?assertEqual(subinterp, py:execution_mode()),
    {ok, _} = py:start_contexts(#{number => 3}),
    ok = py:stop_contexts(),
    {ok, [_]} = py:start_contexts(#{mode => worker, number => 1}),
    ?assertEqual(worker, py:execution_mode()).

%% A node has room for a million atoms, however many interpreters it has.
atoms_are_counted_for_all_interpreters(_Config) ->
    Code = "{ok, _} = application:ensure_all_started(causeway), "
           "Make = fun(C, From, N) -> py:eval(C, <<\"[__import__('erlang').atom(f'counted_{n}') for n in range(a, b)]\">>, "
           "#{a => From, b => From + N}) end, "
           "{ok, S} = py_context:start_link(#{mode => subinterp}), "
           "{ok, [_ | _]} = Make(py:context(1), 0, 60000), "
           "{error, {'ValueError', _}} = Make(S, 100000, 60000), "
           "{ok, [_]} = Make(S, 0, 1), io:put_chars(\"fine\"), halt(0).",
    ?assertEqual({0, <<"fine">>}, causeway_ct:run_node(Code, [{"CAUSEWAY_PYTHON", causeway_ct:python_executable()}])).

%% Helpers

mode(Config) -> proplists:get_value(mode, Config).

modes() ->
    [worker, subinterp] ++ [owngil || python() >= [3, 12]].

python() ->
    {ok, #{version := [Major, Minor | _]}} = causeway_python:find(),
    [Major, Minor].

setup_code() ->
    ["import sys\nif '", causeway_ct:python_dir(), "' not in sys.path: sys.path.insert(0, '", causeway_ct:python_dir(), "')\n"].

start(Config) ->
    {ok, Context} = py_context:start_link(#{mode => mode(Config), setup_code => setup_code()}),
    Context.

%% With the default context for connections.
pool_threads() -> py_contexts:pool_size() + 1.

only_the_pool_has_threads() ->
    causeway_ct:settled(fun causeway_ct:context_threads/0, pool_threads()).

in_process(Fun) ->
    Test = self(),
    {Process, Monitor} = spawn_monitor(fun() -> Test ! {self(), Fun()} end),
    receive
        {Process, Result} -> receive {'DOWN', Monitor, process, Process, _} -> Result end;
        {'DOWN', Monitor, process, Process, Reason} -> error(Reason)
    end.
