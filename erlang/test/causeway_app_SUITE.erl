%% @doc The application: which Python is taken, what is said where none fits, start, stop and the end of the node.
-module(causeway_app_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

suite() -> [{timetrap, {seconds, 120}}].

all() ->
    [start_and_stop_a_hundred_times, names_and_modules_survive_a_stop, calls_without_the_application, missing_python,
     missing_python_by_variable, variable_before_environment, python_too_old, real_python_too_old, python_that_is_no_cpython, python_without_its_lock, python_without_library,
     library_that_is_none, python_that_fails, python_that_is_something_else, failed_start_then_right_python,
     another_python_after_the_first, chatty_python, second_load_is_refused, upgrade_of_the_module_is_refused,
     library_refuses_to_be_loaded_again, purge_does_not_harm, init_stop_while_python_loops, init_stop_while_every_context_loops, init_stop_while_python_is_stubborn,
     init_stop_while_every_context_is_stubborn, init_stop_while_c_code_holds_the_gil, init_stop_while_serving, halt_while_python_loops,
     sigterm_while_python_loops, kill_of_the_application_master, print_under_lang_c, folder_with_any_name, folder_that_is_no_text, print_to_a_closed_stdout, numpy_multiplies,
     exit_codes_of_subprocesses, exit_codes_of_ports, sys_executable_is_the_python, virtual_environment,
     multiprocessing_spawn, threads_and_signals_of_python, erlang_signals_still_work, number_of_contexts_is_configured].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_testcase(_Case, Config) -> causeway_ct:start(Config).

end_per_testcase(_Case, _Config) -> ok.

%% In this node

start_and_stop_a_hundred_times(_Config) ->
    cycle(),
    Threads = causeway_ct:threads(),
    Descriptors = causeway_ct:descriptors(),
    Memory = causeway_ct:rss(),
    [cycle() || _ <- lists:seq(1, 100)],
    ok = causeway_ct:settled(fun causeway_ct:threads/0, Threads),
    ok = causeway_ct:settled(fun causeway_ct:descriptors/0, Descriptors),
    ok = causeway_ct:settled(fun causeway_ct:rss/0, Memory + (16 bsl 20)).

cycle() ->
    ok = application:stop(causeway),
    {ok, [causeway]} = application:ensure_all_started(causeway),
    {ok, 4.0} = py:call(math, sqrt, [16]).

names_and_modules_survive_a_stop(_Config) ->
    ok = py:exec(<<"import sys\nsys.causeway_app = 1\nown = 2">>),
    ok = application:stop(causeway),
    ok = application:start(causeway),
    ?assertEqual({ok, {1, 2}}, py:eval(<<"(__import__('sys').causeway_app, own)">>)).

calls_without_the_application(_Config) ->
    ok = application:stop(causeway),
    [?assertMatch({error, {Reason, <<_, _/binary>>}} when is_atom(Reason), Result)
     || Result <- [py:call(math, sqrt, [16]), py:eval(<<"1">>), py:exec(<<"1">>), py:cast(math, sqrt, [16]),
                   py:spawn_call(math, sqrt, [16]), py:context(), py:context(1), py:start_contexts(), py:call(self(), math, sqrt, [16])]],
    ?assertEqual(false, py:contexts_started()),
    ?assertMatch({error, _}, py_reactor_context:handoff(0, #{})),
    ?assertEqual(ok, py:stop_contexts()).

%% Which Python

missing_python(_Config) ->
    Text = start_error(python_not_found, [{"CAUSEWAY_PYTHON", "/nowhere/python3"}]),
    says(Text, ["/nowhere/python3", "CAUSEWAY_PYTHON"]),
    says(start_error(python_not_found, [{"CAUSEWAY_PYTHON", "no-such-python"}]), ["no-such-python"]),
    Erl = filename:dirname(os:find_executable("erl")),
    Empty = Erl ++ "-nothing-here",
    %% Without CAUSEWAY_PYTHON it is python3 on the PATH.
    says(start_error(python_not_found, [{"CAUSEWAY_PYTHON", false}], "os:putenv(\"PATH\", \"" ++ Empty ++ "\"), "), ["python3"]).

missing_python_by_variable(_Config) ->
    says(start_error(python_not_found, [], "application:load(causeway), application:set_env(causeway, python, \"/nowhere/python3\"), "),
         ["/nowhere/python3"]).

variable_before_environment(_Config) ->
    Code = "application:load(causeway), application:set_env(causeway, python, \"" ++ causeway_ct:python_executable() ++ "\"), " ++ started("py:eval(<<\"1\">>)"),
    ?assertEqual({ok, {ok, 1}}, node_result(Code, [{"CAUSEWAY_PYTHON", "/nowhere/python3"}])).

%% A Python that says that it is 3.8.
python_too_old(Config) ->
    Old = fake_python(Config, "old", "sys.version_info = (3, 8, 1, 'final', 0)"),
    says(start_error(python_too_old, [{"CAUSEWAY_PYTHON", Old}]), ["3.8.1", "3.11"]).

real_python_too_old(_Config) ->
    Pyenv = string:trim(os:cmd("pyenv root 2>/dev/null")),
    Candidates = filelib:wildcard(Pyenv ++ "/versions/3.{8,9,10}.*/bin/python")
        ++ [Found || Name <- ["python3.10", "python3.9", "python3.8"], Found <- [os:find_executable(Name)], Found =/= false],
    case [Candidate || Candidate <- Candidates, filelib:is_regular(Candidate), works(Candidate)] of
        [Old | _] -> says(start_error(python_too_old, [{"CAUSEWAY_PYTHON", Old}]), ["3.11"]);
        [] -> {skip, "no Python older than 3.11 is on this machine"}
    end.

works(Candidate) ->
    string:find(os:cmd(Candidate ++ " -c 'print(\"it\" + \"works\")' 2>&1"), "itworks") =/= nomatch.

python_that_is_no_cpython(Config) ->
    Other = fake_python(Config, "other", "import sysconfig; sys.implementation.name = 'pypy'"),
    says(start_error(python_not_cpython, [{"CAUSEWAY_PYTHON", Other}]), ["pypy", "CPython", "CAUSEWAY_PYTHON"]).

%% A Python that says that it was built without a global lock, as python3.13t is.
python_without_its_lock(Config) ->
    Free = fake_python(Config, "free", "import sysconfig; old = sysconfig.get_config_var; "
                                       "sysconfig.get_config_var = lambda name: 1 if name == 'Py_GIL_DISABLED' else old(name)"),
    says(start_error(python_free_threaded, [{"CAUSEWAY_PYTHON", Free}]), ["free-threaded", "CAUSEWAY_PYTHON"]).

python_without_library(Config) ->
    Static = fake_python(Config, "static", "import sysconfig; sysconfig.get_config_var = lambda name: {'INSTSONAME': 'libpython3.99.a', 'LIBDIR': '/nowhere/lib'}.get(name); "
                                           "sys.base_prefix = '/nowhere'"),
    says(start_error(no_shared_libpython, [{"CAUSEWAY_PYTHON", Static}]), ["/nowhere/lib", "enable-shared"]).

%% A library that is there, but cannot be loaded.
library_that_is_none(Config) ->
    Directory = proplists:get_value(priv_dir, Config),
    ok = file:write_file(filename:join(Directory, "libpython3.11.so.1.0"), <<"this is no library">>),
    Broken = fake_python(Config, "broken", "import sysconfig; sysconfig.get_config_var = lambda name: {'INSTSONAME': 'libpython3.11.so.1.0', 'LIBDIR': '"
                                           ++ Directory ++ "'}.get(name)"),
    says(start_error(python_load_failed, [{"CAUSEWAY_PYTHON", Broken}]), ["libpython3.11.so.1.0"]).

python_that_fails(Config) ->
    Failing = causeway_ct:script(proplists:get_value(priv_dir, Config), "failing", "echo 'I am out of order' >&2\nexit 3\n"),
    says(start_error(python_failed, [{"CAUSEWAY_PYTHON", Failing}]), ["I am out of order", "3"]).

python_that_is_something_else(Config) ->
    says(start_error(python_failed, [{"CAUSEWAY_PYTHON", "/bin/echo"}]), ["/bin/echo"]),
    says(start_error(python_failed, [{"CAUSEWAY_PYTHON", "/bin/false"}]), ["/bin/false"]),
    says(start_error(python_failed, [{"CAUSEWAY_PYTHON", "/bin/true"}]), ["/bin/true", "nothing"]),
    Lying = causeway_ct:script(proplists:get_value(priv_dir, Config), "lying", "echo causeway-version x.y.z\necho causeway-executable /x\necho causeway-library /x\necho causeway-looked x\n"),
    says(start_error(python_failed, [{"CAUSEWAY_PYTHON", Lying}]), ["lying"]),
    NotExecutable = filename:join(proplists:get_value(priv_dir, Config), "not_executable"),
    ok = file:write_file(NotExecutable, "text"),
    says(start_error(python_not_found, [{"CAUSEWAY_PYTHON", NotExecutable}]), ["not_executable"]),
    %% Executable by its mode, but in no format that the kernel knows.
    Garbage = filename:join(proplists:get_value(priv_dir, Config), "garbage"),
    ok = file:write_file(Garbage, <<0, 1, 2, 3>>),
    ok = file:change_mode(Garbage, 8#755),
    says(start_error(python_failed, [{"CAUSEWAY_PYTHON", Garbage}]), ["garbage"]).

failed_start_then_right_python(_Config) ->
    Code = "{error, _} = application:ensure_all_started(causeway), os:putenv(\"CAUSEWAY_PYTHON\", \"" ++ causeway_ct:python_executable() ++ "\"), "
        ++ started("py:eval(<<\"1\">>)"),
    ?assertEqual({ok, {ok, 1}}, node_result(Code, [{"CAUSEWAY_PYTHON", "/nowhere/python3"}])).

another_python_after_the_first(_Config) ->
    Code = started("begin ok = application:stop(causeway), os:putenv(\"CAUSEWAY_PYTHON\", \"/usr/bin/another-python\"), application:ensure_all_started(causeway) end"),
    {ok, {error, {causeway, {{python_already_started, Text}, _}}}} = node_result(Code, []),
    says(Text, ["another-python", "restart"]).

%% Messages on both outputs, before and after the answer.
chatty_python(Config) ->
    Chatty = causeway_ct:script(proplists:get_value(priv_dir, Config), "chatty",
                                ["echo 'good morning'\necho warning >&2\n'", causeway_ct:python_executable(), "' \"$@\"\nstatus=$?\necho bye\nexit $status\n"]),
    ?assertEqual({ok, {ok, 1}}, node_result(started("py:eval(<<\"1\">>)"), [{"CAUSEWAY_PYTHON", Chatty}])).

fake_python(Config, Name, Before) ->
    causeway_ct:script(proplists:get_value(priv_dir, Config), Name,
                       ["exec '", causeway_ct:python_executable(), "' -c 'import sys; exec(sys.argv[1]); exec(sys.argv[2])' \"", Before, "\" \"$2\"\n"]).

start_error(Reason, Environment) ->
    start_error(Reason, Environment, "").

start_error(Reason, Environment, Before) ->
    Code = Before ++ "{error, {causeway, {Reason, {causeway_app, start, _}}}} = application:ensure_all_started(causeway), Result = Reason, " ++ answer(),
    {ok, {Reason, Text}} = node_result(Code, Environment),
    Text.

says(Text, Parts) ->
    [?assertNotEqual({nomatch, Text, Part}, {string:find(Text, Part), Text, Part}) || Part <- Parts].

%% Loading

second_load_is_refused(_Config) ->
    {error, {core_already_loaded, Text}} = causeway_nif:load(),
    says(Text, ["second time", "restart the node"]),
    ?assertEqual({ok, 1}, py:eval(<<"1">>)).

%% A new version of the module would have none of the core's functions. The old one goes on, and the shell says why,
%% in full: the code server prints but the beginning.
upgrade_of_the_module_is_refused(_Config) ->
    {0, Output} = causeway_ct:run_node(started("{code:load_file(causeway_nif), py:eval(<<\"1 + 1\">>, #{}, 5000)}"), []),
    ?assertEqual({{error, on_load_failure}, {ok, 2}}, result(Output)),
    {error, {core_already_loaded, Text}} = causeway_nif:load(),
    says(re:replace(Output, "\\s+", " ", [global, {return, list}]), [unicode:characters_to_list(Text)]).

%% What the library itself says where nothing before it does: to a new version of the module, and to one that comes
%% after all others were purged.
library_refuses_to_be_loaded_again(_Config) ->
    [begin
         Code = started("begin persistent_term:erase(causeway_nif), " ++ Before ++
                            "{module, _} = code:load_file(causeway_nif), causeway_nif:load() end"),
         ?assertEqual({ok, causeway_nif:load()}, node_result(Code, []))
     end || Before <- ["", "true = code:delete(causeway_nif), _ = code:purge(causeway_nif), "]].

purge_does_not_harm(_Config) ->
    Code = started("begin Loop = spawn(fun() -> py:exec(<<\"while True: pass\">>) end), is_pid(Loop), "
                   "A = code:load_file(causeway_nif), B = code:purge(causeway_nif), C = code:load_file(causeway_nif), D = code:purge(causeway_nif), "
                   "E = code:delete(causeway_nif), F = code:purge(causeway_nif), G = code:load_file(causeway_loader), H = code:purge(causeway_loader), "
                   "timer:sleep(500), {A, B, C, D, E, F, G, H} end"),
    ?assertMatch({ok, {_, _, _, _, _, _, _, _}}, node_result(Code, [])).

%% The end of the node

init_stop_while_python_loops(_Config) ->
    ends_in_time(busy("Context = py:context(1), ", "py:call(Context, causeway_helpers, loop, [Me])", "1") ++ "init:stop()."),
    ends_in_time(busy("Context = py:context(1), ", "py:call(Context, causeway_helpers, sleep, [Me, 1000])", "1") ++ "init:stop().").

init_stop_while_every_context_loops(_Config) ->
    ends_in_time(busy("{ok, Contexts} = py:start_contexts(8), ", "py:call(lists:nth(N, Contexts), causeway_helpers, loop, [Me])", "8") ++ "init:stop().").

init_stop_while_python_is_stubborn(_Config) ->
    ends_in_time(busy("Context = py:context(1), ", "py:call(Context, causeway_helpers, loop_stubbornly, [Me])", "1") ++ "init:stop().").

init_stop_while_every_context_is_stubborn(_Config) ->
    ends_in_time(busy("{ok, Contexts} = py:start_contexts(8), ", "py:call(lists:nth(N, Contexts), causeway_helpers, loop_stubbornly, [Me])", "8") ++ "init:stop().").

init_stop_while_c_code_holds_the_gil(_Config) ->
    ends_in_time(busy("{ok, Contexts} = py:start_contexts(8), ", "py:call(hd(Contexts), causeway_helpers, hold_gil, [Me, 900000000])", "1") ++ "init:stop().").

init_stop_while_serving(_Config) ->
    ends_in_time(helpers("{ok, none} = py:call(reactor_protocols, use, ['Echo', self()]), {Client, Server} = reactor_ct:tcp_pair(), "
                         "ok = py_reactor_context:handoff(reactor_ct:fd(Server), #{}), <<\"a\">> = reactor_ct:ask(Client, <<\"a\">>), ") ++ "init:stop().").

halt_while_python_loops(_Config) ->
    ends_in_time(busy("Context = py:context(1), ", "py:call(Context, causeway_helpers, loop_stubbornly, [Me])", "1") ++ "erlang:halt(0).").

sigterm_while_python_loops(_Config) ->
    ends_in_time(busy("Context = py:context(1), ", "py:call(Context, causeway_helpers, loop, [Me])", "1") ++ "os:cmd(\"kill -TERM \" ++ os:getpid()), receive never -> ok end.").

kill_of_the_application_master(_Config) ->
    ends_in_time(busy("Context = py:context(1), ", "py:call(Context, causeway_helpers, loop, [Me])", "1") ++
                     "exit(whereis(causeway_sup), kill), timer:sleep(100), {ok, _} = application:ensure_all_started(causeway), "
                     "{ok, 4.0} = py:call(math, sqrt, [16]), init:stop().").

%% Starts calls that never end, and waits until all of them run.
busy(Before, Call, Number) ->
    helpers(Before ++ "Me = self(), [spawn(fun() -> " ++ Call ++ " end) || N <- lists:seq(1, " ++ Number ++ "), N > 0], "
            "[receive <<\"running\">> -> ok end || _ <- lists:seq(1, " ++ Number ++ ")], ").

helpers(Code) ->
    "ok = causeway_ct:start(), " ++ Code ++ "io:format(\"ending~n\"), ".

%% From its last word to its end a node has five seconds.
ends_in_time(Code) ->
    {Milliseconds, {Status, Output}} = causeway_ct:milliseconds(fun() -> causeway_ct:run_node(Code, []) end),
    ?assertMatch({0, _, _}, {Status, Output, Milliseconds}),
    ?assertNotEqual(nomatch, binary:match(Output, <<"ending">>)),
    %% Of which the start of the node is a part here: a second and a half at most.
    ?assert(Milliseconds < 6500).

%% What Python finds around it

print_under_lang_c(_Config) ->
    Print = "py:exec(<<\"import sys\\nprint('\\\\u00e9\\\\u20ac')\\nprint('\\\\u00fc', file=sys.stderr)\">>)",
    %% What the node's output cannot show is Erlang's to escape.
    ?assertEqual({ok, ok}, node_result(started(Print), [{"LANG", "C"}, {"LC_ALL", "C"}])),
    Code = started("begin ok = io:setopts([{encoding, unicode}]), ok = " ++ Print
                   ++ ", sys:get_state(py_output), sys:get_state(py_logger), logger_std_h:filesync(default) end"),
    [begin
         {Status, Output} = causeway_ct:run_node(Code, [{"LANG", Lang}, {"LC_ALL", Lang}, {"PYTHONIOENCODING", false}, {"PYTHONUTF8", false}]),
         ?assertEqual(0, Status),
         ?assertNotEqual(nomatch, binary:match(Output, <<"é€\n"/utf8>>)),
         ?assertNotEqual(nomatch, binary:match(Output, <<"ü\n"/utf8>>))
     end || Lang <- ["C", "POSIX"]],
    ?assertEqual({ok, {ok, <<"utf-8">>}}, node_result(started("py:eval(<<\"__import__('sys').getfilesystemencoding()\">>)"), [{"LANG", "C"}, {"LC_ALL", "C"}])).

%% Where a node has no locale, its paths are made of bytes; a Python that is configured as a binary has the same.
folder_with_any_name(Config) ->
    Folder = <<(causeway_python:bytes(?config(priv_dir, Config)))/binary, "für Zoë"/utf8>>,
    ok = file:make_dir(Folder),
    ok = file:make_symlink(code:lib_dir(causeway), <<Folder/binary, "/causeway">>),
    ok = file:make_symlink(causeway_ct:python_executable(), <<Folder/binary, "/python">>),
    Environment = [{"FOLDER", unicode:characters_to_list(Folder, file:native_name_encoding())}, {"CAUSEWAY_PYTHON", "none"}],
    Code = "Folder = os:getenv(\"FOLDER\"), true = code:replace_path(causeway, Folder ++ \"/causeway/ebin\"), "
        "Python = causeway_python:bytes(Folder ++ \"/python\"), "
        "ok = application:load(causeway), ok = application:set_env(causeway, python, Python), "
        ++ started("{py:eval(<<\"__import__('erlang').__file__\">>), causeway_process_stream:run(\"echo\", [\"hello\"])}"),
    Package = <<Folder/binary, "/causeway/priv/python/erlang/__init__.py">>,
    [begin
         {0, Output} = causeway_ct:run_node(Code, Environment, [Names]),
         ?assertMatch({{ok, Package}, {ok, #{stdout := <<"hello\n">>}}}, result(Output), Names)
     end || Names <- ["+fnl", "+fnu"]].

%% As rebar3 makes one without a locale, where a folder has a name that is not ASCII.
folder_that_is_no_text(Config) ->
    Above = ?config(priv_dir, Config),
    Folder = <<(causeway_python:bytes(Above))/binary, "f\374r">>,
    ok = file:make_dir(Folder),
    ok = file:make_symlink(code:lib_dir(causeway), <<Folder/binary, "/causeway">>),
    Code = "true = code:replace_path(causeway, os:getenv(\"ABOVE\") ++ \"f\\374r/causeway/ebin\"), "
        "{error, {causeway, {{python_start_failed, Result}, _}}} = application:ensure_all_started(causeway), " ++ answer(),
    {0, Output} = causeway_ct:run_node(Code, [{"ABOVE", Above}], ["+fnl"]),
    says(result(Output), ["Python cannot import from", "f\374r/causeway/priv/python", "LANG=C.UTF-8"]).

print_to_a_closed_stdout(_Config) ->
    Code = "ok = causeway_ct:start(), {ok, none} = py:call(os, close, [1]), ok = py:exec(<<\"print('x' * 100000)\">>), "
        "{ok, 1} = py:eval(<<\"1\">>), erlang:halt(0).",
    {Status, Output} = causeway_ct:run_node(Code, []),
    ?assertEqual({0, Output}, {Status, Output}).

numpy_multiplies(_Config) ->
    case numpy_python() of
        none ->
            {skip, "no numpy: CAUSEWAY_TEST_VENV names a virtual environment that has it"};
        Python ->
            Code = started("begin ok = py:exec(<<\"import numpy\\na = numpy.arange(6).reshape(2, 3)\\nb = a @ a.T\">>), "
                           "{py:eval(<<\"b.tolist()\">>), py:eval(<<\"(int(b.sum()), b[0][0], float(numpy.linalg.det(b)) > 0)\">>), "
                           "py:eval(<<\"numpy.float64(1.5)\">>), py:eval(<<\"b\">>)} end"),
            {ok, {Product, Sum, Float, Array}} = node_result(Code, [{"CAUSEWAY_PYTHON", Python}]),
            ?assertEqual({ok, [[5, 14], [14, 50]]}, Product),
            ?assertEqual({ok, {83, 5, true}}, Sum),
            ?assertEqual({ok, 1.5}, Float),
            ?assertMatch({ok, _}, Array)
    end.

numpy_python() ->
    Candidates = [filename:join([Venv, "bin", "python"]) || Venv <- [os:getenv("CAUSEWAY_TEST_VENV")], Venv =/= false]
        ++ [causeway_ct:python_executable()],
    case [Python || Python <- Candidates, string:find(os:cmd(Python ++ " -c 'import numpy; print(\"it\" + \"works\")' 2>&1"), "itworks") =/= nomatch] of
        [Python | _] -> Python;
        [] -> none
    end.

exit_codes_of_subprocesses(_Config) ->
    ok = py:exec(<<"import subprocess, os, signal">>),
    [?assertEqual({ok, Code}, py:eval(<<"subprocess.run(['sh', '-c', 'exit %d' % code]).returncode">>, #{code => Code})) || Code <- [0, 1, 7, 255]],
    ?assertEqual({ok, -9}, py:eval(<<"subprocess.run(['sh', '-c', 'kill -9 $$']).returncode">>)),
    ?assertEqual({ok, <<"out">>}, py:eval(<<"subprocess.check_output(['printf', 'out'])">>)),
    ?assertMatch({error, {'CalledProcessError', _}}, py:eval(<<"subprocess.check_call(['false'])">>)),
    ?assertEqual({ok, 3}, py:eval(<<"os.waitstatus_to_exitcode(os.system('exit 3'))">>)),
    ?assertEqual({ok, [N rem 5 || N <- lists:seq(1, 100)]},
                 py:eval(<<"[p.wait() for p in [subprocess.Popen(['sh', '-c', 'exit %d' % (n % 5)]) for n in range(1, 101)]]">>)).

exit_codes_of_ports(_Config) ->
    [begin
         Port = open_port({spawn_executable, "/bin/sh"}, [{args, ["-c", "exit " ++ integer_to_list(Code)]}, exit_status]),
         ok = causeway_ct:expect({Port, {exit_status, Code}})
     end || Code <- [0, 1, 7]],
    ?assertEqual("hello\n", os:cmd("echo hello")).

sys_executable_is_the_python(_Config) ->
    {ok, Executable} = py:eval(<<"__import__('sys').executable">>),
    ?assertEqual(causeway_ct:python_executable(), unicode:characters_to_list(Executable)),
    ok = py:exec(<<"import subprocess, sys">>),
    ?assertEqual({ok, <<"42\n">>}, py:eval(<<"subprocess.check_output([sys.executable, '-c', 'print(6 * 7)'])">>)),
    {ok, Version} = py:version(),
    ?assertEqual({ok, Version}, py:eval(<<"subprocess.check_output([sys.executable, '-c', 'import sys; print(sys.version, end=\"\")'])">>)).

virtual_environment(Config) ->
    Venv = filename:join(proplists:get_value(priv_dir, Config), "venv"),
    case os:cmd("'" ++ causeway_ct:python_executable() ++ "' -m venv --without-pip '" ++ Venv ++ "' 2>&1") of
        "" ->
            [SitePackages] = filelib:wildcard(filename:join([Venv, "lib", "python*", "site-packages"])),
            ok = file:write_file(filename:join(SitePackages, "only_in_this_venv.py"), "answer = 42\n"),
            Code = started("{py:eval(<<\"__import__('sys').executable\">>), py:eval(<<\"__import__('sys').prefix\">>), "
                           "py:eval(<<\"__import__('only_in_this_venv').answer\">>)}"),
            Python = filename:join([Venv, "bin", "python"]),
            ?assertEqual({ok, {{ok, causeway_python:bytes(Python)}, {ok, causeway_python:bytes(Venv)}, {ok, 42}}}, node_result(Code, [{"CAUSEWAY_PYTHON", Python}]));
        Output ->
            {skip, "no virtual environment can be made: " ++ Output}
    end.

multiprocessing_spawn(_Config) ->
    ok = py:exec(<<"import multiprocessing, math\n"
                   "with multiprocessing.get_context('spawn').Pool(2) as pool:\n"
                   "    roots = pool.map(math.sqrt, [1, 4, 9])\n">>),
    ?assertEqual({ok, [1.0, 2.0, 3.0]}, py:eval(<<"roots">>)).

threads_and_signals_of_python(_Config) ->
    ok = py:exec(<<"import threading, queue\nq = queue.Queue()\nt = threading.Thread(target=q.put, args=(5,))\nt.start()\nt.join()">>),
    ?assertEqual({ok, 5}, py:eval(<<"q.get(timeout=5)">>)),
    ?assertMatch({ok, false}, py:eval(<<"threading.current_thread() is threading.main_thread()">>)),
    ?assertMatch({error, {'ValueError', _}}, py:exec(<<"import signal\nsignal.signal(signal.SIGINT, signal.SIG_DFL)">>)).

%% Python has not taken the BEAM's signal handlers away.
erlang_signals_still_work(_Config) ->
    Code = started("begin ok = os:set_signal(sigusr2, handle), ok = gen_event:add_handler(erl_signal_server, causeway_app_SUITE, self()), "
                   "os:cmd(\"kill -USR2 \" ++ os:getpid()), receive sigusr2 -> got_it after 5000 -> nothing end end"),
    ?assertEqual({ok, got_it}, node_result(Code, [])).

%% As a handler of signals.
init(Test) -> {ok, Test}.
handle_event(Signal, Test) -> Test ! Signal, {ok, Test}.
handle_call(_Request, Test) -> {ok, ok, Test}.

number_of_contexts_is_configured(_Config) ->
    Code = "application:load(causeway), application:set_env(causeway, contexts, 3), "
        "{ok, _} = application:ensure_all_started(causeway), Result = {is_pid(py:context(3)), element(1, py:context(4))}, " ++ answer(),
    ?assertEqual({ok, {true, error}}, node_result(Code, [])).

%% Other nodes

started(Expression) ->
    "{ok, _} = application:ensure_all_started(causeway), Result = " ++ Expression ++ ", " ++ answer().

%% What comes back is readable among everything else that a node prints.
answer() ->
    "io:format(\"~nresult:~s:~n\", [base64:encode(term_to_binary(Result))]), erlang:halt(0).".

node_result(Code, Environment) ->
    case causeway_ct:run_node(Code, Environment) of
        {0, Output} ->
            {ok, result(Output)};
        {Status, Output} ->
            {node_failed, Status, Output}
    end.

result(Output) ->
    {match, [Encoded]} = re:run(Output, "result:([^:]+):", [{capture, all_but_first, binary}]),
    binary_to_term(base64:decode(Encoded)).
