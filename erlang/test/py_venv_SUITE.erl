%% @doc Virtual environments: what an active one changes and how that goes away again; how one is made, by whom, and
%% what is left where it fails.
-module(py_venv_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-define(HELPERS, venv_helpers).

suite() -> [{timetrap, {seconds, 120}}].

all() ->
    [{group, activation}, {group, multiprocessing}, {group, making}].

groups() ->
    [{activation, [], [activate_and_deactivate, as_a_real_one, place_of_its_packages, path_files, helpers_of_path_files,
                       system_site_packages, another_replaces_the_first, twice_the_same, what_others_change_stays,
                       made_by_another_tool, in_a_context, in_an_interpreter_of_its_own,
                       in_a_pool_of_interpreters, no_environment, another_version, deactivate_without,
                       info_of_the_base, failing_path_file]},
     {multiprocessing, [], [multiprocessing_here, multiprocessing_in_the_base, multiprocessing_in_an_environment]},
     {making, [], [make_and_install, make_with_uv, file_of_requirements, something_more, failed_installation,
                   failed_installation_into_an_old_one, failed_creation, half_made_before, made_for_another_version, force,
                   directory_in_use, many_at_once, time_out, dead_caller, dead_caller_of_a_half_made_one, killed_program,
                   application_stop,
                   wrong_arguments, no_uv]}].

init_per_suite(Config) ->
    ok = causeway_ct:start(),
    %% Their import of multiprocessing comes before the first activation, which has to put that right.
    {ok, _} = py:call(?HELPERS, state, []),
    Config.

end_per_suite(_Config) ->
    application:stop(causeway).

init_per_group(making, Config) ->
    Wheels = filename:join(?config(priv_dir, Config), "wheels"),
    Main = filename:join(?config(priv_dir, Config), "the main \x{e9}nvironment"),
    ok = py:ensure_venv(Main, [], #{installer => pip, activate => false}),
    [{main, Main}, {wheels, Wheels}, {one, wheel(Wheels, "causeway_one")}, {two, wheel(Wheels, "causeway_two")} | Config];
init_per_group(_Group, Config) ->
    Config.

end_per_group(_Group, _Config) ->
    ok.

init_per_testcase(_Case, Config) ->
    #{level := Level} = logger:get_primary_config(),
    ok = logger:set_primary_config(level, info),
    ok = logger:add_handler(?MODULE, ?MODULE, #{config => self()}),
    [{level, Level}, {state, state()} | Config].

end_per_testcase(_Case, Config) ->
    ok = logger:remove_handler(?MODULE),
    ok = logger:set_primary_config(level, ?config(level, Config)),
    ok = py:deactivate_venv(),
    ?assertEqual(?config(state, Config), state()),
    ?assertEqual([], ets:tab2list(py_venvs)),
    ?assertEqual([], supervisor:which_children(py_venv_sup)).

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
    ok = py:activate_venv(binary_to_list(Venv)),
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
    ok = file:write_file(filename:join(site_packages(Venv), "sources.pth"), ["# comment\n/absent\n", Sources, "\n"]),
    ok = py:activate_venv(Venv),
    ?assertEqual({ok, 1}, py:eval("__import__('edited').value")),
    #{<<"path">> := Path} = state(),
    #{<<"path">> := Before} = ?config(state, Config),
    ?assertEqual([site_packages(Venv), unicode:characters_to_binary(Sources)], Path -- Before),
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
    Prefix = "(__import__('sys').prefix, __import__('os').environ.get('VIRTUAL_ENV'))",
    {ok, Context} = py_context:start_link(#{mode => subinterp}),
    {ok, Before} = py:eval(Context, Prefix),
    ok = py_venv:activate_in(Context, Venv),
    ?assertEqual({ok, {Venv, Venv}}, py:eval(Context, Prefix)),
    ?assertEqual({ok, Before}, py:eval(Prefix)),
    ok = py_context:stop(Context),
    {ok, Next} = py_context:start_link(#{mode => subinterp}),
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

%% Making

make_and_install(Config) ->
    Venv = filename:join(?config(priv_dir, Config), "new/\x{fc} with a blank"),
    ok = py:ensure_venv(Venv, [?config(one, Config)], no_index()),
    Path = unicode:characters_to_binary(Venv),
    ?assertMatch({ok, #{<<"active">> := true, <<"path">> := Path}}, py:venv_info()),
    ?assertEqual({ok, <<"causeway_one">>}, py:eval("__import__('causeway_one').name")),
    ?assertEqual({ok, installed(Path, <<"causeway_one">>)}, py:call(?HELPERS, origin, [causeway_one])),
    Lines = logged(),
    ?assertEqual(1, lines_with("-m venv", Lines)),
    ?assertEqual(1, lines_with("Successfully installed causeway-one-1.0", Lines)),
    %% The second time nothing is run, but it is activated.
    ok = py:deactivate_venv(),
    ok = py:ensure_venv(Venv, [?config(one, Config)], no_index()),
    ?assertEqual([], logged()),
    ?assertMatch({ok, #{<<"path">> := Path}}, py:venv_info()),
    ok = py:deactivate_venv(),
    ok = py:ensure_venv(Venv, [?config(one, Config)], (no_index())#{activate => false}),
    ?assertEqual(?config(state, Config), state()).

make_with_uv(Config) ->
    case os:find_executable("uv") of
        false ->
            {skip, "uv is not installed"};
        _ ->
            Venv = filename:join(?config(priv_dir, Config), "made_with_uv"),
            ok = py:ensure_venv(Venv, [?config(one, Config)], (no_index())#{installer => uv}),
            ?assertEqual({ok, installed(Venv, <<"causeway_one">>)}, py:call(?HELPERS, origin, [causeway_one])),
            ?assertMatch({error, {install_failed, #{status := _}}},
                         py:ensure_venv(Venv, ["causeway-absent"], (no_index())#{installer => uv})),
            ok = py:ensure_venv(Venv, [], #{installer => uv, force => true}),
            ?assertEqual({ok, none}, py:call(?HELPERS, origin, [causeway_one]))
    end.

file_of_requirements(Config) ->
    Main = ?config(main, Config),
    File = filename:join(?config(priv_dir, Config), "requirements.txt"),
    ok = file:write_file(File, "# nothing yet\n"),
    ok = py:ensure_venv(Main, {requirements, File}, no_index()),
    ?assertNotEqual([], logged()),
    ok = py:ensure_venv(Main, list_to_binary(File), no_index()),
    ?assertEqual([], logged()),
    ok = file:write_file(File, ["causeway-two == 1.0\n--find-links ", ?config(wheels, Config), "\n"]),
    ok = py:ensure_venv(Main, File, no_index()),
    ?assertEqual(1, lines_with("Successfully installed causeway-two-1.0", logged())),
    ?assertEqual({ok, installed(Main, <<"causeway_two">>)}, py:call(?HELPERS, origin, [causeway_two])),
    ?assertMatch({error, {no_requirements, _}}, py:ensure_venv(Main, {requirements, "/nowhere/requirements.txt"})).

%% An environment that is there gets what it lacks and keeps what it has.
something_more(Config) ->
    Main = ?config(main, Config),
    Kept = filename:join(Main, "kept"),
    ok = file:write_file(Kept, ""),
    Options = #{installer => pip, extra_args => ["--no-index", "--find-links", ?config(wheels, Config)]},
    ok = py:ensure_venv(Main, ["causeway-one"], Options),
    ok = py:ensure_venv(Main, [<<" causeway-one ">>, <<"causeway-two>=1.0">>], Options),
    ?assertEqual(0, lines_with("-m venv", logged())),
    ?assert(filelib:is_regular(Kept)),
    [?assertEqual({ok, installed(Main, Name)}, py:call(?HELPERS, origin, [Name])) || Name <- [<<"causeway_one">>, <<"causeway_two">>]].

failed_installation(Config) ->
    Venv = filename:join(?config(priv_dir, Config), "failed_installation"),
    {error, {install_failed, #{command := [Python | Arguments], status := 1, output := Output}}} =
        py:ensure_venv(Venv, ["causeway-absent"], no_index()),
    ?assertEqual(list_to_binary(Venv ++ "/bin/python"), Python),
    ?assertEqual(<<"causeway-absent">>, lists:last(Arguments)),
    ?assertNotEqual(0, lines_with("causeway-absent", Output)),
    ?assertNot(filelib:is_file(Venv)),
    ?assertEqual(?config(state, Config), state()).

failed_installation_into_an_old_one(Config) ->
    Main = ?config(main, Config),
    ok = py:ensure_venv(Main, [?config(one, Config)], no_index()),
    ?assertMatch({error, {install_failed, _}}, py:ensure_venv(Main, ["causeway-absent"], no_index())),
    _ = logged(),
    %% It is still there, and asked anew what it has.
    ok = py:ensure_venv(Main, [?config(one, Config)], no_index()),
    Lines = logged(),
    ?assertEqual({0, 1}, {lines_with("-m venv", Lines), lines_with("-m pip install", Lines)}).

%% The names below it are longer than a path may be.
failed_creation(Config) ->
    Top = unicode:characters_to_binary(filename:join(?config(priv_dir, Config), "failed_creation")),
    Venv = lengthen(Top, 4070),
    {error, {venv_failed, #{command := [_ | _], status := 1, output := Output}}} = py:ensure_venv(Venv, [], #{installer => pip}),
    ?assertNotEqual(0, lines_with("File name too long", Output)),
    ?assertNot(filelib:is_file(Venv)),
    ok = file:del_dir_r(Top),
    %% And where not even a directory can be made.
    ok = file:write_file(Top, ""),
    ?assertMatch({error, {Reason, <<_, _/binary>>}} when Reason =:= enotdir; Reason =:= not_a_venv,
                 py:ensure_venv(filename:join(Top, "venv"), [])).

%% A node that ends while it makes one leaves it like this.
half_made_before(Config) ->
    Venv = filename:join(?config(priv_dir, Config), "half_made"),
    ok = filelib:ensure_path(Venv),
    [ok = file:write_file(filename:join(Venv, Name), "") || Name <- ["causeway-unfinished", "pyvenv.cfg", "rest"]],
    ok = py:ensure_venv(Venv, [], #{installer => pip}),
    ?assertNot(filelib:is_file(filename:join(Venv, "rest"))),
    ?assertEqual([], filelib:wildcard(filename:join(Venv, "causeway-unfinished"))).

made_for_another_version(Config) ->
    Foreign = venv(Config, "foreign"),
    Settings = filename:join(Foreign, "pyvenv.cfg"),
    ok = file:write_file(Settings, "home = /usr/bin\nversion = 3.9.2\n"),
    {error, {wrong_python, Text}} = py:ensure_venv(Foreign, []),
    ?assertNotEqual(nomatch, binary:match(Text, <<"3.9">>)),
    ?assert(filelib:is_regular(Settings)),
    %% One of ours is made anew: it only says what it has for another Python.
    ok = file:write_file(filename:join(Foreign, "causeway-complete"), "another"),
    ok = py:ensure_venv(Foreign, []),
    ?assertMatch({ok, #{<<"path">> := Foreign}}, py:venv_info()).

force(Config) ->
    Venv = venv(Config, "forced"),
    ok = module(Venv, "from_before", ""),
    ok = py:ensure_venv(Venv, [], #{installer => pip}),
    ?assert(filelib:is_regular(filename:join(site_packages(Venv), "from_before.py"))),
    ok = py:ensure_venv(Venv, [], #{installer => pip, force => true}),
    ?assertNot(filelib:is_regular(filename:join(site_packages(Venv), "from_before.py"))).

directory_in_use(Config) ->
    Directory = filename:join(?config(priv_dir, Config), "in_use"),
    ok = filelib:ensure_path(Directory),
    ok = file:write_file(filename:join(Directory, "dear"), "to me"),
    [?assertMatch({error, {not_a_venv, <<_, _/binary>>}}, py:ensure_venv(Path, [], Options))
     || Path <- [Directory, filename:join(Directory, "dear")], Options <- [#{}, #{force => true}]],
    ?assertEqual({ok, <<"to me">>}, file:read_file(filename:join(Directory, "dear"))).

many_at_once(Config) ->
    Venv = filename:join(?config(priv_dir, Config), "many"),
    Self = self(),
    Names = [Venv, list_to_binary(Venv), Venv ++ "/", filename:join(Venv, "../many")],
    Processes = [spawn_link(fun() -> Self ! {self(), py:ensure_venv(Name, [?config(one, Config)], no_index())} end) || Name <- Names],
    [ok = causeway_ct:expect({Process, ok}, 100000) || Process <- Processes],
    Lines = logged(),
    ?assertEqual({1, 1}, {lines_with("-m venv", Lines), lines_with("-m pip install", Lines)}).

time_out(Config) ->
    {Listener, Slow} = slow_package(Config, "time_out"),
    ?assertEqual({error, timeout}, py:ensure_venv(?config(main, Config), [Slow], (no_index())#{timeout => 2000})),
    %% It may not have come as far as to the package; what has is dead.
    case gen_tcp:accept(Listener, 0) of
        {ok, Socket} -> ended(Socket);
        {error, timeout} -> ok
    end,
    ?assert(filelib:is_regular(filename:join(?config(main, Config), "pyvenv.cfg"))),
    ?assertEqual({error, timeout}, py:ensure_venv(?config(main, Config), [Slow], (no_index())#{timeout => 0})).

%% Who waits for the same directory comes next.
dead_caller(Config) ->
    {Listener, Slow} = slow_package(Config, "dead_caller"),
    Caller = spawn(fun() -> py:ensure_venv(?config(main, Config), [Slow], no_index()) end),
    {ok, Socket} = gen_tcp:accept(Listener),
    Self = self(),
    spawn_link(fun() -> Self ! {second, py:ensure_venv(?config(main, Config), [], no_index())} end),
    exit(Caller, kill),
    ok = ended(Socket),
    ok = causeway_ct:expect({second, ok}, 100000).

dead_caller_of_a_half_made_one(Config) ->
    Venv = filename:join(?config(priv_dir, Config), "dead_caller"),
    Caller = spawn(fun() -> py:ensure_venv(Venv, [], no_index()) end),
    %% What comes then, the installation of pip, takes seconds.
    ok = causeway_ct:wait_until(fun() -> filelib:is_regular(filename:join(Venv, "pyvenv.cfg")) end),
    Kept = filename:join(Venv, "of the first"),
    ok = file:write_file(Kept, ""),
    Self = self(),
    spawn_link(fun() -> Self ! {second, py:ensure_venv(Venv, [], no_index())} end),
    exit(Caller, kill),
    ok = causeway_ct:expect({second, ok}, 100000),
    ?assertNot(filelib:is_file(Kept)).

killed_program(Config) ->
    {Listener, Slow} = slow_package(Config, "killed_program"),
    Self = self(),
    spawn_link(fun() -> Self ! {answer, py:ensure_venv(?config(main, Config), [Slow], no_index())} end),
    {ok, Socket} = gen_tcp:accept(Listener),
    {Group, Temporary} = told(Socket),
    ?assert(filelib:is_dir(Temporary)),
    "" = os:cmd("kill -9 -" ++ Group),
    receive {answer, Answer} -> ?assertMatch({error, {install_failed, #{status := 137}}}, Answer) end,
    {error, closed} = gen_tcp:recv(Socket, 0),
    ?assertNot(filelib:is_dir(Temporary)).

application_stop(Config) ->
    {Listener, Slow} = slow_package(Config, "application_stop"),
    Self = self(),
    spawn_link(fun() -> Self ! {answer, py:ensure_venv(?config(main, Config), [Slow], no_index())} end),
    {ok, Socket} = gen_tcp:accept(Listener),
    ok = application:stop(causeway),
    receive {answer, Answer} -> ?assertMatch({error, {not_started, _}}, Answer) end,
    ok = ended(Socket),
    ?assertMatch({error, {no_context, _}}, py:ensure_venv(?config(main, Config), [])),
    ?assertMatch({error, {no_context, _}}, py:venv_info()),
    ok = causeway_ct:start().

wrong_arguments(Config) ->
    Venv = filename:join(?config(priv_dir, Config), "wrong_arguments"),
    [?assertMatch({error, {badarg, <<_, _/binary>>}}, py:ensure_venv(Venv, Requirements))
     || Requirements <- [["--index-url=http://example.org"], [<<"-r/etc/passwd">>], [<<"  -e .">>], [six], [[]], [<<>>], ["a", 1],
                         [<<"a", 0>>], [<<255>>], ["a" | <<"b">>],
                         {requirements, x}, {file, "x"}, six, #{}]],
    [?assertMatch({error, {badarg, <<_, _/binary>>}}, py:ensure_venv(Venv, [], Options))
     || Options <- [#{installer => conda}, #{extra_args => "--pre"}, #{extra_args => ["a" | b]}, #{timeout => -1}, #{activate => 1}, #{force => yes},
                    #{python => "x"}, [], [{force, true}]]],
    ?assertMatch({error, {badarg, _}}, py:ensure_venv(venv, [])),
    ?assertNot(filelib:is_file(Venv)).

no_uv(Config) ->
    Path = os:getenv("PATH"),
    true = os:putenv("PATH", "/nowhere"),
    Answer = py:ensure_venv(filename:join(?config(priv_dir, Config), "no_uv"), [], #{installer => uv}),
    true = os:putenv("PATH", Path),
    ?assertMatch({error, {no_installer, <<_, _/binary>>}}, Answer).

%% What the tests are made of

state() ->
    {ok, State} = py:call(?HELPERS, state, []),
    State.

children() ->
    {ok, Children} = py:call(?HELPERS, children, []),
    Children.

no_index() -> #{installer => pip, extra_args => ["--no-index"]}.

base_python() ->
    {ok, #{<<"base_executable">> := Python}} = py:venv_info(),
    Python.

%% An environment without pip, which is made at once.
venv(Config, Name) ->
    Venv = unicode:characters_to_binary(filename:join(?config(priv_dir, Config), Name)),
    {0, _} = run(base_python(), ["-m", "venv", "--without-pip", Venv]),
    Venv.

site_packages(Venv) ->
    [Packages] = filelib:wildcard(filename:join([unicode:characters_to_list(Venv), "lib", "python*", "site-packages"])),
    unicode:characters_to_binary(Packages).

installed(Venv, Name) ->
    filename:join(site_packages(unicode:characters_to_binary(Venv)), <<Name/binary, ".py">>).

module(Venv, Name, Code) ->
    file:write_file(filename:join(site_packages(Venv), Name ++ ".py"), Code).

run(Program, Arguments) ->
    Port = open_port({spawn_executable, Program}, [{args, Arguments}, exit_status, stderr_to_stdout, binary]),
    collect(Port, []).

collect(Port, Output) ->
    receive
        {Port, {data, Data}} -> collect(Port, [Output, Data]);
        {Port, {exit_status, Status}} -> {Status, iolist_to_binary(Output)}
    end.

%% A package with one module, that knows its name.
wheel(Directory, Name) ->
    ok = filelib:ensure_path(Directory),
    Info = Name ++ "-1.0.dist-info/",
    Path = filename:join(Directory, Name ++ "-1.0-py3-none-any.whl"),
    Files = [{Name ++ ".py", "name = __name__\n"},
             {Info ++ "METADATA", ["Metadata-Version: 2.1\nName: ", Name, "\nVersion: 1.0\n"]},
             {Info ++ "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"},
             {Info ++ "RECORD", ""}],
    {ok, _} = zip:create(Path, [{File, iolist_to_binary(Content)} || {File, Content} <- Files]),
    Path.

%% A package whose building never ends. It connects to us, tells its process group and where it has temporary files, and
%% hands the connection down to a process of its own: when the connection ends, both have ended.
slow_package(Config, Name) ->
    {ok, Listener} = gen_tcp:listen(0, [list, {active, false}, {ip, {127, 0, 0, 1}}]),
    {ok, Port} = inet:port(Listener),
    Directory = filename:join([?config(priv_dir, Config), "slow", Name]),
    ok = filelib:ensure_path(Directory),
    ok = file:write_file(filename:join(Directory, "pyproject.toml"),
                         "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n"
                         "[project]\nname = 'causeway-slow'\nversion = '1.0'\n"),
    ok = file:write_file(filename:join(Directory, "backend.py"),
                         ["import os, socket, subprocess, tempfile, urllib.parse\n"
                          "def build_wheel(directory, settings=None, metadata=None):\n"
                          "    link = socket.create_connection(('127.0.0.1', ", integer_to_list(Port), "))\n"
                          "    child = subprocess.Popen(['sleep', '1000'], pass_fds=[link.fileno()])\n"
                          "    temporary = urllib.parse.quote(tempfile.gettempdir())\n"
                          "    link.sendall(f'{os.getpgrp()} {temporary}\\n'.encode())\n"
                          "    child.wait()\n"]),
    {Listener, Directory}.

%% Waits for the end of such a package, and for that of its temporary files.
ended(Socket) ->
    {_Group, Temporary} = told(Socket),
    {error, closed} = gen_tcp:recv(Socket, 0),
    causeway_ct:wait_until(fun() -> not filelib:is_dir(Temporary) end).

%% Its process group, and the directory of its temporary files.
told(Socket) ->
    {ok, Line} = gen_tcp:recv(Socket, 0),
    [Group, Temporary] = string:lexemes(Line, " \n"),
    {Group, uri_string:percent_decode(list_to_binary(Temporary))}.

lengthen(Path, Length) when byte_size(Path) > Length - 240 ->
    filename:join(Path, binary:copy(<<"x">>, Length - byte_size(Path) - 1));
lengthen(Path, Length) ->
    lengthen(filename:join(Path, binary:copy(<<"x">>, 100)), Length).

node_result(Expressions, Python) ->
    Code = "ok = causeway_ct:start(), " ++ Expressions
        ++ ", io:format(\"~nresult:~s:~n\", [base64:encode(term_to_binary(Result))]), erlang:halt(0).",
    {0, Output} = causeway_ct:run_node(Code, [{"CAUSEWAY_PYTHON", binary_to_list(Python)}]),
    {match, [Encoded]} = re:run(Output, "result:([^:]+):", [{capture, all_but_first, binary}]),
    binary_to_term(base64:decode(Encoded)).

%% What was logged in this test and not looked at yet. The makers log before they answer.
logged() ->
    receive {logged, Line} -> [Line | logged()]
    after 0 -> []
    end.

lines_with(Text, Lines) ->
    length([Line || Line <- Lines, string:find(Line, Text) =/= nomatch]).

%% As a handler of logger.
log(#{level := info, msg := {Format, Arguments}, meta := #{source := venv, venv := _}}, #{config := Test}) ->
    Test ! {logged, unicode:characters_to_binary(io_lib:format(Format, Arguments))};
log(_Event, _Config) ->
    ok.
