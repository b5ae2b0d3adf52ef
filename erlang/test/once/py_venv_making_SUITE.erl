%% @doc How a virtual environment is made, by whom, and what is left where that fails.
-module(py_venv_making_SUITE).

-compile([export_all, nowarn_export_all]).

-import(venv_ct, [state/0, venv/2, site_packages/1, module/3]).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-define(HELPERS, venv_helpers).

suite() -> [{timetrap, {seconds, 120}}].

all() ->
    [make_and_install, make_with_uv, arguments_of_no_shell, file_of_requirements, something_more, failed_installation,
     failed_installation_into_an_old_one, failed_creation, half_made_before, made_for_another_version,
     force, directory_in_use, many_at_once, time_out, dead_caller, dead_caller_of_a_half_made_one,
     killed_program, application_stop, wrong_arguments, no_uv].

%% Many cases install into one environment: to make one takes seconds.
init_per_suite(Config) ->
    _ = venv_ct:start(Config),
    Wheels = filename:join(?config(priv_dir, Config), "wheels"),
    Main = filename:join(?config(priv_dir, Config), "the main \x{e9}nvironment"),
    ok = py:ensure_venv(Main, [], #{installer => pip, activate => false}),
    [{main, Main}, {wheels, Wheels}, {one, wheel(Wheels, "causeway_one")}, {two, wheel(Wheels, "causeway_two")} | Config].

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_testcase(_Case, Config) -> venv_ct:start_case(Config).

end_per_testcase(_Case, Config) -> venv_ct:end_case(Config).

%% Making

make_and_install(Config) ->
    Venv = filename:join(?config(priv_dir, Config), "new/\x{fc} with a blank"),
    ok = py:ensure_venv(Venv, [?config(one, Config)], no_index()),
    Path = causeway_python:bytes(Venv),
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

%% That of the virtual environment of the tests, where there is none on the PATH.
make_with_uv(Config) ->
    Path = os:getenv("PATH"),
    true = os:putenv("PATH", lists:append([Path | [":" ++ Venv ++ "/bin" || Venv <- [os:getenv("CAUSEWAY_TEST_VENV")], Venv =/= false]])),
    try make_with_uv_on_the_path(Config) after os:putenv("PATH", Path) end.

make_with_uv_on_the_path(Config) ->
    case os:find_executable("uv") of
        false ->
            {skip, "uv is not installed"};
        _ ->
            Venv = filename:join(?config(priv_dir, Config), "made_with_uv"),
            ok = py:ensure_venv(Venv, [?config(one, Config)], (no_index())#{installer => uv}),
            ?assertEqual({ok, installed(Venv, <<"causeway_one">>)}, py:call(?HELPERS, origin, [causeway_one])),
            ?assertNotEqual(0, lines_with("uv venv", logged())),
            ?assertMatch({error, {install_failed, #{status := _}}},
                         py:ensure_venv(Venv, ["causeway-absent"], (no_index())#{installer => uv})),
            ok = py:ensure_venv(Venv, [], #{installer => uv, force => true}),
            ?assertEqual({ok, none}, py:call(?HELPERS, origin, [causeway_one])),
            %% Without being asked, where it is on the PATH.
            _ = logged(),
            ok = py:ensure_venv(Venv, [?config(one, Config)], maps:remove(installer, no_index())),
            ?assertNotEqual(0, lines_with("uv pip install", logged()))
    end.

%% Nothing is read by a shell, in any part of what an installer is given.
arguments_of_no_shell(Config) ->
    Directory = filename:join(?config(priv_dir, Config), "no shell"),
    ok = filelib:ensure_path(Directory),
    {ok, Before} = file:get_cwd(),
    ok = file:set_cwd(Directory),
    Evil = "a; touch one; $(touch two) `touch three` 'four' \"five\" & touch six | touch seven > eight *",
    Links = filename:join(?config(wheels, Config), "../" ++ Evil),
    ok = filelib:ensure_path(Links),
    {ok, _} = file:copy(?config(one, Config), filename:join(Links, filename:basename(?config(one, Config)))),
    try
        ok = py:ensure_venv(Evil, ["causeway-one"], #{installer => pip, extra_args => ["--no-index", "--find-links", Links]}),
        ?assertMatch({error, {install_failed, _}}, py:ensure_venv(Evil, [Evil], no_index())),
        ?assertEqual({ok, installed(filename:join(Directory, Evil), <<"causeway_one">>)}, py:call(?HELPERS, origin, [causeway_one])),
        ?assertEqual({ok, [Evil]}, file:list_dir(Directory))
    after
        file:set_cwd(Before)
    end.

file_of_requirements(Config) ->
    Main = ?config(main, Config),
    File = filename:join(?config(priv_dir, Config), "requirements.txt"),
    ok = file:write_file(File, "# nothing yet\n"),
    ok = py:ensure_venv(Main, {requirements, File}, no_index()),
    ?assertNotEqual([], logged()),
    ok = py:ensure_venv(Main, causeway_python:bytes(File), no_index()),
    ?assertEqual([], logged()),
    ok = file:write_file(File, ["causeway-two == 1.0\n--find-links \"", causeway_python:bytes(?config(wheels, Config)), "\"\n"]),
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
    ?assertEqual(causeway_python:bytes(Venv ++ "/bin/python"), Python),
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
    Top = causeway_python:bytes(filename:join(?config(priv_dir, Config), "failed_creation")),
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
    Names = [Venv, causeway_python:bytes(Venv), Venv ++ "/", filename:join(Venv, "../many")],
    Processes = [spawn_link(fun() -> Self ! {self(), py:ensure_venv(Name, [?config(one, Config)], no_index())} end) || Name <- Names],
    [ok = causeway_ct:expect({Process, ok}, 100000) || Process <- Processes],
    Lines = logged(),
    ?assertEqual({1, 1}, {lines_with("-m venv", Lines), lines_with("-m pip install", Lines)}).

time_out(Config) ->
    {Listener, Slow} = slow_package(Config, "time_out"),
    ?assertEqual({error, timeout}, py:ensure_venv(?config(main, Config), [Slow], (no_index())#{timeout => 2000})),
    %% It may not have come as far as to the package; what has is dead.
    case gen_tcp:accept(Listener, 0) of
        {ok, Socket} -> dead(Socket);
        {error, timeout} -> ok
    end,
    ?assert(filelib:is_regular(filename:join(?config(main, Config), "pyvenv.cfg"))),
    ?assertEqual({error, timeout}, py:ensure_venv(?config(main, Config), [Slow], (no_index())#{timeout => 0})).

%% Who waits for the same directory comes next.
dead_caller(Config) ->
    {Listener, Slow} = slow_package(Config, "dead_caller"),
    Caller = spawn(fun() -> py:ensure_venv(?config(main, Config), [Slow], no_index()) end),
    Package = working(Listener),
    Self = self(),
    spawn_link(fun() -> Self ! {second, py:ensure_venv(?config(main, Config), [], no_index())} end),
    exit(Caller, kill),
    ok = ended(Package),
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
    {Socket, Group, Temporary} = working(Listener),
    ?assert(filelib:is_dir(Temporary)),
    "" = os:cmd("kill -9 -" ++ Group),
    receive {answer, Answer} -> ?assertMatch({error, {install_failed, #{status := 137}}}, Answer) end,
    {error, closed} = gen_tcp:recv(Socket, 0),
    ?assertNot(filelib:is_dir(Temporary)).

application_stop(Config) ->
    {Listener, Slow} = slow_package(Config, "application_stop"),
    Self = self(),
    spawn_link(fun() -> Self ! {answer, py:ensure_venv(?config(main, Config), [Slow], no_index())} end),
    Package = working(Listener),
    ok = application:stop(causeway),
    receive {answer, Answer} -> ?assertMatch({error, {not_started, _}}, Answer) end,
    ok = ended(Package),
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

no_index() -> #{installer => pip, extra_args => ["--no-index"]}.

installed(Venv, Name) ->
    filename:join(site_packages(causeway_python:bytes(Venv)), <<Name/binary, ".py">>).

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

%% Waits until it is built: its connection, its process group, and the directory of its temporary files.
working(Listener) ->
    {ok, Socket} = gen_tcp:accept(Listener),
    {ok, Line} = gen_tcp:recv(Socket, 0),
    [Group, Temporary] = string:lexemes(Line, " \n"),
    {Socket, Group, uri_string:percent_decode(list_to_binary(Temporary))}.

%% Waits for its end, and for that of its temporary files.
ended({Socket, _Group, Temporary}) ->
    ok = dead(Socket),
    causeway_ct:wait_until(fun() -> not filelib:is_dir(Temporary) end).

dead(Socket) ->
    case gen_tcp:recv(Socket, 0) of
        {ok, _} -> dead(Socket);
        {error, closed} -> ok
    end.

lengthen(Path, Length) when byte_size(Path) > Length - 240 ->
    filename:join(Path, binary:copy(<<"x">>, Length - byte_size(Path) - 1));
lengthen(Path, Length) ->
    lengthen(filename:join(Path, binary:copy(<<"x">>, 100)), Length).

%% What was logged in this test and not looked at yet. The makers log before they answer.
logged() ->
    receive {logged, Line} -> [Line | logged()]
    after 0 -> []
    end.

lines_with(Text, Lines) ->
    length([Line || Line <- Lines, string:find(Line, Text) =/= nomatch]).
