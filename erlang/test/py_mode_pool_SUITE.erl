%% @doc Pools of contexts of every kind: who is served by which, and that a pool is of one kind.
-module(py_mode_pool_SUITE).

-compile([export_all, nowarn_export_all]).

-import(mode_ct, [mode/1, modes/0, python/0, in_process/1]).

-include_lib("stdlib/include/assert.hrl").

suite() -> [{timetrap, {seconds, 120}}].

all() ->
    [{group, subinterp}, {group, owngil}, wrong_options, owngil_needs_3_12, refusals_end_no_node,
     pool_of_another_mode_is_refused, pool_is_started_by_many_at_once, pools_of_two_modes_started_at_once,
     pool_is_started_again_in_the_mode_of_the_application, atoms_are_counted_for_all_interpreters].

groups() ->
    Cases = [pool, pool_by_application_variable, names_stay_in_a_growing_pool, default_reactor_finds_the_factory],
    [{subinterp, [], Cases}, {owngil, [], Cases}].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_group(Mode, Config) -> mode_ct:start_group(Mode, Config).

end_per_group(_Mode, _Config) -> ok.

init_per_testcase(_Case, Config) -> mode_ct:start_case(Config).

end_per_testcase(_Case, Config) -> mode_ct:end_case(Config).

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

%% Each context of the pool has an interpreter of its own: what sets a factory there sets that of no other.
default_reactor_finds_the_factory(Config) ->
    ok = py:exec(whereis(py_reactor_default), <<"import erlang.reactor; erlang.reactor.set_protocol_factory(None)">>),
    ok = py:stop_contexts(),
    ok = application:set_env(causeway, context_mode, mode(Config)),
    {ok, _} = py:start_contexts(#{number => 3}),
    {Client, Server} = reactor_ct:tcp_pair(),
    ?assertEqual({error, no_protocol_factory}, py_reactor_context:handoff(reactor_ct:fd(Server), #{})),
    ?assertEqual({error, badf}, py_reactor_context:handoff(-1, #{})),
    %% As the documentation has it.
    Ctx = py:context(2),
    ok = py:exec(Ctx, <<"import erlang.reactor as reactor\nclass Echo(reactor.Protocol):\n"
                        "    def data_received(self, data):\n        self.write_buffer += data\n        return 'write_pending'\n"
                        "reactor.set_protocol_factory(Echo)\n">>),
    ok = py_reactor_context:handoff(reactor_ct:fd(Server), #{type => tcp}),
    ?assertEqual(<<"echo">>, reactor_ct:ask(Client, <<"echo">>)),
    ?assertMatch(#{total_connections := 1}, py_context:stats(Ctx)),
    {Other, Socket} = reactor_ct:tcp_pair(),
    ok = py_reactor_context:handoff(Socket, #{}),
    ?assertEqual(<<"echo">>, reactor_ct:ask(Other, <<"echo">>)).

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
