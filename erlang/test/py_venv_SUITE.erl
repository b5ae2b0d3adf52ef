%% @doc Virtual environments: what an active one changes, for whom, and how that goes away again.
-module(py_venv_SUITE).

-compile([export_all, nowarn_export_all]).

-import(venv_ct, [state/0, venv/2, base_python/0, site_packages/1, module/3]).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-define(HELPERS, venv_helpers).

suite() -> [{timetrap, {seconds, 120}}].

all() ->
    [activate_and_deactivate, as_a_real_one, place_of_its_packages, path_files, helpers_of_path_files,
     failing_path_file, system_site_packages, another_replaces_the_first, twice_the_same,
     what_others_change_stays, made_by_another_tool, in_a_context, in_an_interpreter_of_its_own,
     in_a_pool_of_interpreters, after_a_crash, in_a_pool_that_grows, environment_that_is_gone, no_environment, another_version, deactivate_without, info_of_the_base,
     multiprocessing_here, multiprocessing_in_the_base, multiprocessing_in_an_environment].

init_per_suite(Config) -> venv_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_testcase(_Case, Config) -> venv_ct:start_case(Config).

end_per_testcase(_Case, Config) -> venv_ct:end_case(Config).

%% Activation

activate_and_deactivate(Config) ->
    Venv = venv(Config, "simple"),
    ok = module(Venv, "only_here", "answer = 42"),
    ?assertMatch({error, {'ModuleNotFoundError', _}}, py:call(only_here, 'answer.bit_length', [])),
    ok = py:activate_venv(Venv),
    ?assertEqual({ok, 42}, py:eval("__import__('only_here').answer")),
    #{<<"prefix">> := [Venv, Venv, Base], <<"executable">> := [Python, _, Python], <<"environment">> := Environment} = state(),
    #{<<"prefix">> := [_, _, Base], <<"environment">> := #{<<"PATH">> := Path}} = ?config(state, Config),
    ?assertEqual(filename:join(Venv, <<"bin/python">>), Python),
    ?assertMatch(#{<<"VIRTUAL_ENV">> := Venv}, Environment),
    ?assertEqual(<<Venv/binary, "/bin:", Path/binary>>, maps:get(<<"PATH">>, Environment)),
    {ok, Info} = py:venv_info(),
    {ok, Version} = py:eval("'%d.%d.%d' % __import__('sys').version_info[:3]"),
    Packages = site_packages(Venv),
    ?assertMatch(#{<<"active">> := true, <<"path">> := Venv, <<"venv_path">> := Venv, <<"prefix">> := Venv,
                   <<"base_prefix">> := Base, <<"executable">> := Python, <<"site_packages">> := Packages,
                   <<"version">> := Version}, Info),
    ok = py:deactivate_venv(),
    ?assertEqual(?config(state, Config), state()),
    %% What is imported stays, and nothing else is found.
    ?assertEqual({ok, 42}, py:eval("__import__('only_here').answer")),
    ?assertEqual({ok, none}, py:call(?HELPERS, origin, [missing_here])).

%% What a Python says that was started from the environment.
as_a_real_one(Config) ->
    Venv = venv(Config, "real"),
    ok = py:activate_venv(unicode:characters_to_list(Venv, file:native_name_encoding())),
    Question = "[(s := __import__('sys')).prefix, s.exec_prefix, s.base_prefix, s.executable, "
               "__import__('sysconfig').get_paths(), __import__('site').PREFIXES[0], s._base_executable]",
    {ok, Ours} = py:eval(Question),
    {ok, Real} = py:eval("__import__('json').loads(__import__('subprocess').check_output("
                         "['python', '-c', 'import json; print(json.dumps(' + question + '))']))", #{question => list_to_binary(Question)}),
    ?assertEqual(Real, Ours).

place_of_its_packages(Config) ->
    Venv = venv(Config, "place"),
    %% One that the Python of the tests has too, one of the standard library that nobody has imported, and one of ours.
    [ok = module(Venv, Name, "") || Name <- ["pytest", "colorsys", "venv_helpers"]],
    {ok, Library} = py:call(?HELPERS, origin, [colorsys]),
    ok = py:activate_venv(Venv),
    Packages = site_packages(Venv),
    ?assertEqual({ok, <<Packages/binary, "/pytest.py">>}, py:call(?HELPERS, origin, [pytest])),
    ?assertEqual({ok, Library}, py:call(?HELPERS, origin, [colorsys])),
    #{<<"path">> := Before} = ?config(state, Config),
    #{<<"path">> := Path} = state(),
    ?assertEqual(Before, Path -- [Packages]).

path_files(Config) ->
    Venv = venv(Config, "path_files"),
    Sources = filename:join(?config(priv_dir, Config), "sources of an editable package"),
    ok = filelib:ensure_path(Sources),
    ok = file:write_file(filename:join(Sources, "edited.py"), "value = 1\n"),
    ok = file:write_file(filename:join(site_packages(Venv), "sources.pth"), ["# comment\n/absent\n", causeway_python:bytes(Sources), "\n"]),
    ok = py:activate_venv(Venv),
    ?assertEqual({ok, 1}, py:eval("__import__('edited').value")),
    #{<<"path">> := Path} = state(),
    #{<<"path">> := Before} = ?config(state, Config),
    ?assertEqual([site_packages(Venv), causeway_python:bytes(Sources)], Path -- Before),
    ?assertNot(lists:member(<<"/absent">>, Path)).

%% As the finders of editable packages are: of the same name in two environments, but each with its own map.
helpers_of_path_files(Config) ->
    [begin
         Venv = venv(Config, Name),
         ok = module(Venv, "the_finder",
                     ["import sys\nclass Finder:\n    name = '", Name, "'\n    @classmethod\n"
                      "    def find_spec(cls, name, path=None, target=None):\n        return None\n"
                      "def install():\n    if Finder not in sys.meta_path:\n        sys.meta_path.append(Finder)\n"
                      "    if Finder not in sys.path_hooks:\n        sys.path_hooks.append(Finder)\n"]),
         ok = file:write_file(filename:join(site_packages(Venv), "finder.pth"), "import the_finder; the_finder.install()\n"),
         ok = py:activate_venv(Venv),
         ok = py:activate_venv(Venv),
         ?assertEqual({ok, [list_to_binary(Name)]},
                      py:eval("[f.name for f in __import__('sys').meta_path if f.__dict__.get('name')]")),
         ok = py:deactivate_venv(),
         ?assertEqual(?config(state, Config), state())
     end || Name <- ["first_finder", "second_finder", "first_finder"]].

failing_path_file(Config) ->
    Venv = venv(Config, "failing_path_file"),
    ok = file:write_file(filename:join(site_packages(Venv), "broken.pth"), "import sys; raise SystemExit('not me')\n"),
    ?assertEqual({error, {'SystemExit', "not me"}}, py:activate_venv(Venv)),
    ?assertEqual(?config(state, Config), state()).

system_site_packages(Config) ->
    Venv = venv(Config, "with_system"),
    Settings = filename:join(Venv, "pyvenv.cfg"),
    {ok, Old} = file:read_file(Settings),
    ok = file:write_file(Settings, string:replace(Old, "include-system-site-packages = false", "include-system-site-packages = true")),
    ok = py:activate_venv(Venv),
    {ok, System} = py:eval("[p for p in s.getsitepackages([sys.base_prefix]) if __import__('os').path.isdir(p)]",
                           #{s => element(2, py:eval("__import__('site')")), sys => element(2, py:eval("__import__('sys')"))}),
    ?assertNotEqual([], System),
    #{<<"path">> := Path} = state(),
    ?assertEqual([], System -- Path).

another_replaces_the_first(Config) ->
    [First, Second] = [venv(Config, Name) || Name <- ["first", "second"]],
    ok = py:activate_venv(First),
    ok = py:activate_venv(Second),
    #{<<"path">> := Path, <<"environment">> := #{<<"PATH">> := Search}, <<"prefix">> := [Second | _]} = state(),
    ?assertNot(lists:member(site_packages(First), Path)),
    ?assertEqual(nomatch, binary:match(Search, First)),
    %% One that is none leaves the one that is.
    ?assertMatch({error, {not_a_venv, _}}, py:activate_venv("/nowhere")),
    ?assertMatch({ok, #{<<"path">> := Second}}, py:venv_info()).

twice_the_same(Config) ->
    Venv = venv(Config, "twice"),
    ok = py:activate_venv(Venv),
    Once = state(),
    ok = py:activate_venv(<<Venv/binary, "/../twice/.">>),
    ?assertEqual(Once, state()),
    %% What was installed meanwhile.
    ok = file:write_file(filename:join(site_packages(Venv), "later.pth"), ["/proc\n"]),
    ok = py:activate_venv(Venv),
    ?assertEqual([<<"/proc">>], maps:get(<<"path">>, state()) -- maps:get(<<"path">>, Once)).

what_others_change_stays(Config) ->
    ok = py:activate_venv(venv(Config, "meanwhile")),
    {ok, none} = py:call(?HELPERS, change_meanwhile, []),
    ok = py:deactivate_venv(),
    ?assertEqual({ok, {true, true, <<"/another">>}}, py:call(?HELPERS, changed_meanwhile, [])),
    ?assertEqual(?config(state, Config), state()).

%% virtualenv and uv write other keys.
made_by_another_tool(Config) ->
    Venv = venv(Config, "other_tool"),
    {ok, #{<<"version">> := Version}} = py:venv_info(),
    Settings = filename:join(Venv, "pyvenv.cfg"),
    ok = file:write_file(Settings, ["home = /usr/bin\nversion_info = ", Version, ".final.0\n"]),
    ok = py:activate_venv(Venv),
    ok = file:write_file(Settings, "home = /usr/bin\n"),
    ok = py:activate_venv(Venv).

in_a_context(Config) ->
    Venv = venv(Config, "context"),
    Context = py:context(1),
    ok = py_venv:activate_in(Context, Venv),
    ?assertEqual({ok, Venv}, py:eval(Context, "__import__('sys').prefix")),
    ok = py_venv:deactivate_in(Context),
    ?assertEqual(?config(state, Config), state()).

%% The next context that gets the interpreter finds nothing of it.
in_an_interpreter_of_its_own(Config) ->
    Venv = venv(Config, "interpreter"),
    [in_an_interpreter_of_its_own(Mode, Venv) || Mode <- mode_ct:modes(), Mode =/= worker].

in_an_interpreter_of_its_own(Mode, Venv) ->
    Prefix = "(__import__('sys').prefix, __import__('os').environ.get('VIRTUAL_ENV'))",
    {ok, Context} = py_context:start_link(#{mode => Mode}),
    {ok, Before} = py:eval(Context, Prefix),
    ok = py_venv:activate_in(Context, Venv),
    ?assertEqual({ok, {Venv, Venv}}, py:eval(Context, Prefix)),
    ?assertEqual({ok, Before}, py:eval(Prefix)),
    ok = py_context:stop(Context),
    {ok, Next} = py_context:start_link(#{mode => Mode}),
    ?assertEqual({ok, Before}, py:eval(Next, Prefix)),
    ok = py_context:stop(Next).

in_a_pool_of_interpreters(Config) ->
    Venv = venv(Config, "pool"),
    Prefixes = fun() -> [element(2, py:eval(py:context(Index), "__import__('sys').prefix")) || Index <- [1, 2]] end,
    ok = py:stop_contexts(),
    {ok, [_, _]} = py:start_contexts(#{number => 2, mode => subinterp}),
    Before = Prefixes(),
    ok = py:activate_venv(Venv),
    ?assertEqual([Venv, Venv], Prefixes()),
    ok = py:deactivate_venv(),
    ?assertEqual(Before, Prefixes()),
    ok = py:stop_contexts(),
    {ok, _} = py:start_contexts(#{mode => worker}).

%% A context that is restarted has it too, and its setup code already.
after_a_crash(Config) ->
    Venv = venv(Config, "crash"),
    ok = module(Venv, "only_here", "answer = 42"),
    ok = py:stop_contexts(),
    {ok, [First, Second]} = py:start_contexts(#{number => 2, mode => subinterp}),
    ok = py:activate_venv(Venv),
    Restarted = crash(First),
    ?assertEqual({ok, {Venv, 42}}, py:eval(Restarted, "(__import__('sys').prefix, __import__('only_here').answer)")),
    ?assertEqual({ok, Venv}, py:eval(Second, "__import__('sys').prefix")),
    ok = py:deactivate_venv(),
    {ok, Base} = py:eval("__import__('sys').prefix"),
    [?assertEqual({ok, Base}, py:eval(Context, "__import__('sys').prefix")) || Context <- [Restarted, Second]],
    ?assertEqual({ok, Base}, py:eval(crash(Second), "__import__('sys').prefix")),
    workers().

%% Others that come later, of any mode.
in_a_pool_that_grows(Config) ->
    Venv = venv(Config, "grows"),
    ok = py:activate_venv(Venv),
    ok = py:stop_contexts(),
    {ok, Contexts} = py:start_contexts(#{number => 3, mode => subinterp}),
    [?assertEqual({ok, Venv}, py:eval(Context, "__import__('sys').prefix")) || Context <- Contexts],
    ok = py:deactivate_venv(),
    workers(),
    %% That of the interpreter that all workers share was not meant.
    ok = py:deactivate_venv().

environment_that_is_gone(Config) ->
    Venv = venv(Config, "gone"),
    ok = py:stop_contexts(),
    {ok, [Context]} = py:start_contexts(#{number => 1, mode => subinterp}),
    ok = py:activate_venv(Venv),
    ok = file:del_dir_r(Venv),
    ?assertMatch({error, {not_a_venv, _}}, py:activate_venv(Venv)),
    %% It works without, and that is said.
    ?assertEqual({ok, 1}, py:eval(crash(Context), "1")),
    receive {warned, Text} -> ?assertNotEqual(nomatch, string:find(Text, Venv)) after 0 -> error(not_warned) end,
    ok = py:deactivate_venv(),
    workers().

%% The context that comes instead of one in the pool.
crash(Context) ->
    [Index] = [Index || Index <- lists:seq(1, py_contexts:pool_size()), py:context(Index) =:= Context],
    exit(Context, kill),
    ok = causeway_ct:wait_until(fun() -> is_pid(py:context(Index)) andalso py:context(Index) =/= Context end),
    py:context(Index).

workers() ->
    ok = py:stop_contexts(),
    {ok, _} = py:start_contexts(#{mode => worker}).

no_environment(Config) ->
    Directory = filename:join(?config(priv_dir, Config), "no_environment"),
    ok = filelib:ensure_path(Directory),
    [begin
         {error, {not_a_venv, Text}} = py:activate_venv(Path),
         ?assertNotEqual(nomatch, binary:match(Text, <<"ensure_venv">>))
     end || Path <- [Directory, "/nowhere", <<"/nowhere/", 255>>]],
    [?assertMatch({error, {badarg, <<_, _/binary>>}}, py:activate_venv(Wrong))
     || Wrong <- [venv, "", <<>>, 1, [a], <<"a", 0>>, [0]]].

another_version(Config) ->
    Venv = venv(Config, "version"),
    ok = file:write_file(filename:join(Venv, "pyvenv.cfg"), "home = /usr/bin\nversion = 3.9.2\n"),
    {error, {wrong_python, Text}} = py:activate_venv(Venv),
    [?assertNotEqual(nomatch, binary:match(Text, Word)) || Word <- [<<"3.9">>, <<"CAUSEWAY_PYTHON">>, <<"-m venv">>]],
    ?assertEqual(?config(state, Config), state()).

deactivate_without(_Config) ->
    ok = py:deactivate_venv(),
    ok = py:deactivate_venv().

%% In a node without an environment, where the node of the tests may have one.
info_of_the_base(Config) ->
    Venv = venv(Config, "of_the_base"),
    {Base, Own} = {base_python(), unicode:characters_to_binary(causeway_ct:python_executable())},
    {ok, Info, Active, After} = node_result("{ok, I} = py:venv_info(), ok = py:activate_venv(<<\"" ++ binary_to_list(Venv) ++ "\">>), "
                                            "{ok, A} = py:venv_info(), ok = py:deactivate_venv(), {ok, B} = py:venv_info(), "
                                            "Result = {ok, I, A, B}", Base),
    ?assertMatch(#{<<"active">> := false, <<"path">> := none, <<"prefix">> := Prefix, <<"base_prefix">> := Prefix,
                   <<"executable">> := Base}, Info),
    ?assertMatch(#{<<"active">> := true, <<"path">> := Venv, <<"base_executable">> := Base}, Active),
    ?assertEqual(Info, After),
    %% Here it is active where the tests run in one.
    ?assertMatch({ok, #{<<"executable">> := Own}}, py:venv_info()).

%% multiprocessing

multiprocessing_here(_Config) ->
    Children = children(),
    {ok, #{<<"executable">> := Python, <<"prefix">> := Prefix}} = py:venv_info(),
    ?assertEqual({ok, {[0, 1, 4, 9], [{Python, Prefix, false}], []}}, py:call(?HELPERS, run_pool, [])),
    ?assertMatch({ok, {_, 0, false}}, py:call(?HELPERS, run_process, [json])),
    ?assertEqual(Children, children()).

multiprocessing_in_the_base(_Config) ->
    {Children, Pool, Process, Left} =
        node_result("{ok, C} = py:call(venv_helpers, children, []), P = py:call(venv_helpers, run_pool, []), "
                    "S = py:call(venv_helpers, run_process, [json]), {ok, L} = py:call(venv_helpers, children, []), "
                    "Result = {C, P, S, L}", base_python()),
    Base = base_python(),
    ?assertMatch({ok, {[0, 1, 4, 9], [{Base, _, false}], []}}, Pool),
    ?assertMatch({ok, {_, 0, false}}, Process),
    ?assertEqual(Children, Left).

multiprocessing_in_an_environment(Config) ->
    Venv = venv(Config, "multiprocessing"),
    ok = module(Venv, "only_in_processes", ""),
    Children = children(),
    ok = py:activate_venv(Venv),
    Python = filename:join(Venv, <<"bin/python">>),
    ?assertEqual({ok, {[0, 1, 4, 9], [{Python, Venv, false}], []}}, py:call(?HELPERS, run_pool, [])),
    Origin = filename:join(site_packages(Venv), <<"only_in_processes.py">>),
    ?assertEqual({ok, {Origin, 0, false}}, py:call(?HELPERS, run_process, [only_in_processes])),
    ok = py:deactivate_venv(),
    ?assertEqual({ok, {none, 0, false}}, py:call(?HELPERS, run_process, [only_in_processes])),
    ?assertEqual(Children, children()).

%% What the tests are made of

children() ->
    {ok, Children} = py:call(?HELPERS, children, []),
    Children.

node_result(Expressions, Python) ->
    Code = "ok = causeway_ct:start(), " ++ Expressions
        ++ ", io:format(\"~nresult:~s:~n\", [base64:encode(term_to_binary(Result))]), erlang:halt(0).",
    {0, Output} = causeway_ct:run_node(Code, [{"CAUSEWAY_PYTHON", binary_to_list(Python)}]),
    {match, [Encoded]} = re:run(Output, "result:([^:]+):", [{capture, all_but_first, binary}]),
    binary_to_term(base64:decode(Encoded)).
