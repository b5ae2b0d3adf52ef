%% @doc What Python must not do to the node, and what is seen of it where the node ends all the same.
-module(py_safety_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-define(HELPERS, output_helpers).

suite() -> [{timetrap, {seconds, 120}}].

all() ->
    [fork_and_exec_are_refused, refused_in_every_context_and_thread, multiprocessing_by_fork_is_refused, multiprocessing_spawns_by_default,
     multiprocessing_method_is_refused_at_once, multiprocessing_method_may_be_chosen, exit_codes_of_subprocesses, fifty_subprocesses_at_once, posix_spawn_works, asyncio_subprocess_works,
     segmentation_fault_leaves_a_trace, overflown_stack_leaves_a_trace, fatal_error_leaves_a_trace, abort_leaves_a_trace, deep_recursion_is_an_exception,
     erlang_goes_on_with_faulthandler, crash_dump_by_signal].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

fork_and_exec_are_refused(_Config) ->
    {ok, Said} = py:call(?HELPERS, refusals, []),
    ?assertEqual(8, map_size(Said)),
    [begin
         says(Text, ["refused inside the BEAM", "subprocess"]),
         string:find(Name, "exec") =:= nomatch andalso says(Text, ["fork"])
     end || {Name, Text} <- maps:to_list(Said)],
    ?assertEqual({ok, 4.0}, py:call(math, sqrt, [16])).

refused_in_every_context_and_thread(_Config) ->
    [?assertMatch({error, {'RuntimeError', _}}, py:call(py:context(Index), os, fork, [])) || Index <- lists:seq(1, py_contexts:pool_size())],
    [begin
         ?assertMatch({error, {'RuntimeError', _}}, py:call(Context, os, fork, [])),
         ?assertEqual({ok, <<"spawn">>}, py:call(Context, multiprocessing, get_start_method, [])),
         ok = py_context:stop(Context)
     end || Mode <- mode_ct:modes(), {ok, Context} <- [py_context:start_link(#{mode => Mode})]],
    ok = py:exec(<<"import concurrent.futures, os\nwith concurrent.futures.ThreadPoolExecutor(1) as e: refused = e.submit(os.fork).exception()">>),
    ?assertEqual({ok, <<"RuntimeError">>}, py:eval(<<"type(refused).__name__">>)).

multiprocessing_by_fork_is_refused(_Config) ->
    [begin
         {error, {'RuntimeError', Text}} = py:call(?HELPERS, Function, [Method], #{}, 30000),
         says(Text, [atom_to_list(Method), "spawn"])
     end || Function <- [start_process, start_pool], Method <- [fork, forkserver]].

multiprocessing_spawns_by_default(_Config) ->
    ?assertEqual({ok, <<"spawn">>}, py:call(multiprocessing, get_start_method, [])),
    ?assertEqual({ok, 0}, py:call(?HELPERS, start_process, [none])),
    ?assertEqual({ok, [1, 2]}, py:call(?HELPERS, start_pool, [none])),
    ?assertEqual({ok, 3}, py:call(?HELPERS, start_executor, [])).

%% Where the mistake is made, and not far away where something is started. Libraries that ask find no such method.
multiprocessing_method_is_refused_at_once(_Config) ->
    [begin
         {error, {'RuntimeError', Text}} = py:call(Context, multiprocessing, set_start_method, [Method], #{kwargs => #{force => Force}}),
         says(Text, [atom_to_list(Method), "spawn"]),
         ?assertEqual({ok, <<"spawn">>}, py:call(Context, multiprocessing, get_start_method, [])),
         ?assertEqual({ok, [<<"spawn">>]}, py:call(Context, multiprocessing, get_all_start_methods, []))
     end || Mode <- mode_ct:modes(), {ok, Context} <- [py_context:start_link(#{mode => Mode})],
            Method <- [fork, forkserver], Force <- [false, true]],
    ?assertMatch({error, {'ValueError', _}}, py:call(multiprocessing, set_start_method, [nonsense], #{force => true})),
    %% A library may hold such a context, as long as it starts nothing.
    ?assertMatch({ok, _}, py:call(multiprocessing, get_context, [fork])).

%% Once, as in a plain Python.
multiprocessing_method_may_be_chosen(_Config) ->
    Code = "ok = causeway_ct:start(), {ok, none} = py:call(multiprocessing, set_start_method, [spawn]), "
        "{error, {'RuntimeError', _}} = py:call(multiprocessing, set_start_method, [spawn]), erlang:halt(0).",
    ?assertEqual({0, <<>>}, causeway_ct:run_node(Code, [])).

exit_codes_of_subprocesses(_Config) ->
    [?assertEqual({ok, Code}, py:eval(<<"__import__('subprocess').run(['sh', '-c', command]).returncode">>, #{command => Command}))
     || {Code, Command} <- [{0, <<"exit 0">>}, {3, <<"exit 3">>}, {-9, <<"kill -9 $$">>}, {-15, <<"kill -15 $$">>}]].

fifty_subprocesses_at_once(_Config) ->
    ?assertEqual({ok, [Number rem 7 || Number <- lists:seq(0, 49)]}, py:call(?HELPERS, run_many, [50])).

posix_spawn_works(_Config) ->
    ?assertEqual({ok, 3}, py:call(?HELPERS, posix_spawn, [])).

asyncio_subprocess_works(_Config) ->
    ok = py:exec(<<"import asyncio\n"
                   "async def run():\n"
                   "    process = await asyncio.create_subprocess_exec('sh', '-c', 'echo out; exit 3', stdout=asyncio.subprocess.PIPE)\n"
                   "    out, _ = await process.communicate()\n"
                   "    return out, process.returncode\n"
                   "result = asyncio.run(run())">>),
    ?assertEqual({ok, {<<"out\n">>, 3}}, py:eval(<<"result">>)).

%% The thread that failed, and what the others did.
segmentation_fault_leaves_a_trace(_Config) ->
    Output = ends_badly(11, "spawn(fun() -> py:call(py:context(1), output_helpers, wait, [Me]) end), receive <<\"waiting\">> -> ok end, "
                            "py:call(py:context(2), ctypes, string_at, [0])"),
    says(Output, ["Fatal Python error: Segmentation fault", "string_at", "output_helpers.py", "in wait", "Current thread"]).

%% By C code that recurses, so that Python does not count it: a handler of the signal has no room on that stack. On a thread
%% that has replaced one that has ended.
overflown_stack_leaves_a_trace(_Config) ->
    Output = ends_badly(11, "{ok, First} = py_context:start_link(#{}), ok = py_context:stop(First), "
                            "{ok, Second} = py_context:start_link(#{}), py:call(Second, output_helpers, overflow, [])"),
    says(Output, ["Fatal Python error: Segmentation fault", "Current thread", "output_helpers.py", "in overflow"]).

fatal_error_leaves_a_trace(_Config) ->
    Output = ends_badly(6, "py:exec(\"import ctypes\\ndef fail(): ctypes.pythonapi.Py_FatalError(b'enough is enough')\\nfail()\")"),
    says(Output, ["Fatal Python error", "enough is enough", "\"<erlang>\", line 2 in fail"]).

abort_leaves_a_trace(_Config) ->
    says(ends_badly(6, "py:exec(\"import os\\ndef fail(): os.abort()\\nfail()\")"), ["Fatal Python error: Aborted", "line 2 in fail"]).

%% Runs code that ends its node by a signal; the address sanitizer would make an exit of some.
ends_badly(Signal, Code) ->
    Environment = [{"ASAN_OPTIONS", os:getenv("ASAN_OPTIONS", "") ++ ":handle_segv=0"}],
    {Status, Output} = causeway_ct:run_node("ok = causeway_ct:start(), {ok, _} = py:start_contexts(2), Me = self(), is_pid(Me), " ++ Code
                                                ++ ", io:format(\"still here\"), erlang:halt(0).", Environment),
    ?assertEqual({128 + Signal, nomatch, Output}, {Status, binary:match(Output, <<"still here">>), Output}),
    Output.

deep_recursion_is_an_exception(_Config) ->
    ?assertMatch({error, {'RecursionError', _}}, py:call(?HELPERS, recurse, [100000])),
    ?assertEqual({ok, 500}, py:call(?HELPERS, recurse, [500])).

%% What makes other runtimes raise signals.
erlang_goes_on_with_faulthandler(_Config) ->
    ?assertEqual({ok, true}, py:call(faulthandler, is_enabled, [])),
    ?assertEqual(3000000, deep(3000000)),
    ?assertError(badarith, id(1) div id(0)),
    ?assertError(badarith, id(1.0e308) * id(1.0e308)),
    ?assertError(system_limit, id(1) bsl (id(1) bsl 60)),
    {Pid, Monitor} = spawn_opt(fun() -> lists:seq(1, 10000000) end, [monitor, {max_heap_size, #{size => 100000, kill => true, error_logger => false}}]),
    ok = causeway_ct:expect({'DOWN', Monitor, process, Pid, killed}),
    ?assertEqual({ok, 4.0}, py:call(math, sqrt, [16])).

deep(0) -> 0;
deep(Depth) -> 1 + deep(Depth - 1).

id(Value) -> binary_to_term(term_to_binary(Value)).

%% SIGUSR1 is how a BEAM is asked for a crash dump.
crash_dump_by_signal(Config) ->
    Dump = filename:join(proplists:get_value(priv_dir, Config), "crash.dump"),
    {Status, _Output} = causeway_ct:run_node("ok = causeway_ct:start(), os:cmd(\"kill -USR1 \" ++ os:getpid()), receive never -> ok end.", [{"ERL_CRASH_DUMP", Dump}]),
    ?assertEqual(1, Status),
    {ok, Content} = file:read_file(Dump),
    says(Content, ["SIGUSR1"]).

says(Text, Parts) ->
    [?assertNotEqual({nomatch, Part, Text}, {string:find(Text, Part), Part, Text}) || Part <- Parts].
