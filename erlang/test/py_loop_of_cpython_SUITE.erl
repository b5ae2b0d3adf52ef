%% @doc CPython's own tests of programs that asyncio starts, in a node, where a guardian starts them.
-module(py_loop_of_cpython_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

%% What cannot be inside the BEAM, or says nothing about it.
-define(EXCLUDED,
        [%% They have nobody else start the program than `subprocess'.
         <<"test_popen_error">>, <<"test_popen_error_with_stdin_pipe">>, <<"test_create_subprocess_fails_with_inactive_watcher">>,
         %% It sets a handler of a signal in this process.
         <<"test_send_signal">>,
         %% These watchers want a handler of a signal, which is the node's.
         <<"SubprocessSafeWatcherTests.*">>, <<"SubprocessFastWatcherTests.*">>, <<"SubprocessMultiLoopWatcherTests.*">>,
         %% With a guardian no watcher is asked: it is the same as with the others.
         <<"SubprocessThreadedWatcherTests.*">>]).

suite() -> [{timetrap, {seconds, 60}}].

all() -> [programs].

init_per_suite(Config) ->
    Looks = "import importlib.util; print(importlib.util.find_spec('test.test_asyncio') is not None)",
    case os:cmd(causeway_ct:python_executable() ++ " -c \"" ++ Looks ++ "\" 2>&1") of
        "True\n" -> Config;
        _ -> {skip, "this Python comes without its tests (Debian: libpython3.11-testsuite)"}
    end.

end_per_suite(_Config) -> ok.

%% What the tests put in the place of asyncio's stays: a node of their own.
programs(_Config) ->
    Directory = filename:join([causeway_ct:python_dir(), "..", "..", "..", "python", "tests"]),
    Code = io_lib:format("{ok, _} = application:ensure_all_started(causeway), {ok, Context} = py_context:start_link(#{}), "
                         "{ok, none} = py:call(Context, sys, 'path.insert', [0, ~p]), "
                         "{ok, {Count, Failures}} = py:call(Context, asyncio_of_cpython, run, [test_subprocess | ~p], #{timeout => infinity}), "
                         "io:format(\"~~b run ~~ts\", [Count, Failures]), halt().", [Directory, ?EXCLUDED]),
    {Status, Output} = causeway_ct:run_node(lists:flatten(Code), []),
    ct:log("~ts", [Output]),
    %% What the tests warn of comes before.
    {match, [Count, Failures]} = re:run(Output, "^(\\d+) run (.*)", [multiline, dotall, {capture, all_but_first, binary}]),
    ?assertEqual({0, <<>>}, {Status, Failures}),
    ?assert(binary_to_integer(Count) > 25).
