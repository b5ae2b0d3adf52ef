%% @doc Finds the Python to embed, and starts it.
%%
%% The Python is an executable, which may be a virtual environment's: the application variable `python',
%% else the environment variable `CAUSEWAY_PYTHON', else `python3' on the PATH. It is run once, and asked
%% where its shared library is. A node has one Python for all its life.
-module(causeway_python).

-export([start/0, find/0, priv_dir/0, bytes/1]).
-export_type([python/0, reason/0]).

-type python() :: #{executable := binary(), version := [integer()], library := binary()}.
%% Two paths, and a version as `[3, 12, 1]'.
-type reason() :: {python_not_found | python_failed | python_not_cpython | python_too_old | python_free_threaded
                   | no_shared_libpython | python_load_failed | python_start_failed | python_already_started, Text :: binary()}
                | {atom(), binary()}.
%% `python_not_found': no executable of that name. `python_failed': it did not say what it is.
%% `python_not_cpython', `python_too_old' (before 3.11), `python_free_threaded', `no_shared_libpython': it is
%% one that cannot be embedded. `python_load_failed': its library could not be opened. `python_start_failed':
%% it could not be started. `python_already_started': the node runs another one. Others are of the native
%% part, as where it is not built. The text says what was looked for and what to do.

-define(KEY, {?MODULE, started}).
-define(OLDEST, [3, 11]).
%% How long an executable may take to say which Python it is.
-define(PATIENCE, 10000).

%% @doc Makes Python run in this node, if it does not yet.
%%
%% Blocks the caller for the time that Python takes to start, some 50 ms.
-spec start() -> {ok, python()} | {error, reason()}.
start() ->
    case persistent_term:get(?KEY, undefined) of
        undefined -> start(find());
        Started -> still_wanted(Started)
    end.

%% The application was stopped and is started again: another Python cannot be had in this node.
still_wanted(#{asked := Asked} = Started) ->
    case wanted() of
        Asked ->
            {ok, maps:remove(asked, Started)};
        Other ->
            {error, {python_already_started,
                     text("this node runs ~ts and cannot run ~ts as well: restart the node",
                          [maps:get(executable, Started), Other])}}
    end.

start({error, _} = Error) ->
    Error;
start({ok, #{library := Library, executable := Executable} = Python}) ->
    case load(Library) of
        ok ->
            Packages = packages(),
            case unicode:characters_to_list(Packages) of
                Name when is_list(Name) -> start(Executable, Packages, Python);
                _ -> {error, {python_start_failed,
                              text("Python cannot import from ~ts, whose name is not UTF-8: rename it, or if it is, start the "
                                   "node with a locale (LANG=C.UTF-8)", [py_venv:shown(Packages)])}}
            end;
        {error, _} = Error ->
            Error
    end.

start(Executable, Packages, Python) ->
    %% Before anything in Python can import logging.
    ok = py_logger:tell_level(),
    case causeway_nif:start_python(Executable, Packages) of
        ok -> await_start(Python);
        already -> {error, {python_start_failed, <<"an earlier start of Python failed: restart the node">>}};
        {error, Reason} -> {error, {python_start_failed, text("no thread for Python: ~p", [Reason])}}
    end.

load(Library) ->
    %% An earlier start may have failed after that.
    case causeway_nif:is_loaded() of
        true -> ok;
        false -> load_both(Library)
    end.

load_both(Library) ->
    case causeway_loader:load() of
        ok ->
            case causeway_loader:open_global(Library) of
                ok -> causeway_nif:load();
                {error, Text} -> {error, {python_load_failed, text("~ts could not be loaded: ~ts", [Library, Text])}}
            end;
        {error, {Reason, Text}} ->
            {error, {Reason, text("causeway's native part could not be loaded (is it built? make build): ~ts", [Text])}}
    end.

await_start(Python) ->
    receive
        {causeway, started} ->
            persistent_term:put(?KEY, Python#{asked => wanted()}),
            {ok, Python};
        {causeway, {start_failed, Text}} ->
            {error, {python_start_failed, Text}}
    end.

%% @doc The directory of the native libraries and of the Python package.
-spec priv_dir() -> file:filename().
priv_dir() ->
    case code:priv_dir(causeway) of
        {error, bad_name} ->
            filename:join(filename:dirname(filename:dirname(code:which(?MODULE))), "priv");
        Directory ->
            Directory
    end.

%% @doc A path as the system knows it. In a node without a locale, as in containers and services, strings of paths have
%% a character for each byte.
-spec bytes(file:filename_all()) -> binary().
bytes(Path) when is_binary(Path) -> Path;
bytes(Path) -> <<_/binary>> = unicode:characters_to_binary(Path, unicode, file:native_name_encoding()).

packages() -> bytes(filename:join(priv_dir(), "python")).

%% @doc Which Python would be embedded. Runs its executable to ask it, and waits for that, at most 10 seconds. An
%% error says what was looked for and what to do.
-spec find() -> {ok, python()} | {error, reason()}.
find() ->
    Wanted = wanted(),
    case executable(Wanted) of
        false ->
            {error, {python_not_found,
                     text("no Python was found as \"~ts\": set the application variable `python' of causeway, or "
                          "CAUSEWAY_PYTHON, to the path of a python3 executable, version 3.11 or later", [Wanted])}};
        Executable ->
            ask(Executable)
    end.

wanted() ->
    case application:get_env(causeway, python) of
        {ok, Configured} when is_binary(Configured), Configured =/= <<>> ->
            unicode:characters_to_binary(Configured, file:native_name_encoding());
        {ok, Configured} when Configured =/= undefined, Configured =/= "", Configured =/= <<>> ->
            unicode:characters_to_binary(Configured);
        _ ->
            case os:getenv("CAUSEWAY_PYTHON") of
                Unset when Unset =:= false; Unset =:= "" -> <<"python3">>;
                FromEnvironment -> unicode:characters_to_binary(FromEnvironment)
            end
    end.

executable(Wanted) ->
    os:find_executable(unicode:characters_to_list(Wanted)).

%% One line each, so that nothing else that a site module may print confuses us. sys.executable is
%% the answer to shims that start another Python.
-define(QUESTION,
        "import os, sys, sysconfig\n"
        "g = sysconfig.get_config_var\n"
        "name = g('INSTSONAME') or ''\n"
        "if '.so' not in name: name = 'libpython%d.%d%s.so.1.0' % (*sys.version_info[:2], getattr(sys, 'abiflags', ''))\n"
        "places = [g('LIBDIR') or '', os.path.join(g('LIBDIR') or '', g('MULTIARCH') or ''), os.path.join(sys.base_prefix, 'lib')]\n"
        "found = [p for p in (os.path.join(d, name) for d in places if d) if os.path.exists(p)]\n"
        "print('causeway-kind', sys.implementation.name, 'free-threaded' if g('Py_GIL_DISABLED') else 'locked')\n"
        "print('causeway-version', *sys.version_info[:3])\n"
        "print('causeway-executable', sys.executable)\n"
        "print('causeway-library', found[0] if found else '')\n"
        "print('causeway-looked', name, *places)\n").

ask(Executable) ->
    Port = erlang:open_port({spawn_executable, Executable},
                            [{args, ["-c", ?QUESTION]}, exit_status, binary, stderr_to_stdout, hide]),
    case collect(Port, <<>>, erlang:monotonic_time(millisecond) + ?PATIENCE) of
        {silent, Output} ->
            {error, {python_failed, text("~ts did not say within ~p seconds which Python it is: ~ts",
                                         [Executable, ?PATIENCE div 1000, Output])}};
        {0, Output} -> answer(Executable, Output);
        {Status, Output} -> {error, {python_failed, text("~ts exited with ~p: ~ts", [Executable, Status, Output])}}
    end.

collect(Port, Output, Deadline) ->
    receive
        {Port, {data, Data}} -> collect(Port, <<Output/binary, Data/binary>>, Deadline);
        {Port, {exit_status, Status}} -> {Status, Output}
    after max(0, Deadline - erlang:monotonic_time(millisecond)) ->
        kill(Port),
        {silent, Output}
    end.

%% Closing a port ends only programs that look at their input.
kill(Port) ->
    case erlang:port_info(Port, os_pid) of
        {os_pid, Process} ->
            _ = os:cmd("kill -9 " ++ integer_to_list(Process)),
            receive {Port, {exit_status, _}} -> ok end;
        undefined ->
            ok
    end.

answer(Executable, Output) ->
    Answers = maps:from_list([{Key, string:trim(Value)}
                              || Line <- binary:split(Output, <<"\n">>, [global]),
                                 <<"causeway-", Rest/binary>> <- [Line],
                                 [Key, Value] <- [binary:split(Rest, <<" ">>)]]),
    case Answers of
        #{<<"kind">> := Kind, <<"version">> := VersionText, <<"library">> := Library, <<"looked">> := Looked,
          <<"executable">> := Real} ->
            case version(VersionText) of
                {ok, Version} -> check(Kind, #{executable => Real, version => Version, library => Library}, Looked);
                error -> no_python(Executable, Output)
            end;
        _ ->
            no_python(Executable, Output)
    end.

version(Text) ->
    try
        {ok, [binary_to_integer(Part) || Part <- binary:split(Text, <<" ">>, [global])]}
    catch
        error:badarg -> error
    end.

no_python(Executable, <<>>) ->
    {error, {python_failed, text("~ts is no Python 3: it said nothing", [Executable])}};
no_python(Executable, Output) ->
    {error, {python_failed, text("~ts is no Python 3: it said ~ts", [Executable, Output])}}.

check(<<"cpython locked">>, Python, Looked) ->
    check(Python, Looked);
check(<<"cpython ", _/binary>>, #{executable := Executable, version := Version}, _) ->
    {error, {python_free_threaded,
             text("~ts is a free-threaded Python ~ts, for which causeway is not built: choose one with its global lock "
                  "(no t at the end of its name) by the application variable `python' or CAUSEWAY_PYTHON",
                  [Executable, dotted(Version)])}};
check(Kind, #{executable := Executable}, _) ->
    {error, {python_not_cpython,
             text("~ts is ~ts; causeway embeds CPython only: choose one by the application variable `python' or "
                  "CAUSEWAY_PYTHON", [Executable, hd(binary:split(Kind, <<" ">>))])}}.

check(#{version := Version, executable := Executable}, _) when Version < ?OLDEST ->
    {error, {python_too_old,
             text("~ts is Python ~ts; causeway needs 3.11 or later", [Executable, dotted(Version)])}};
check(#{library := <<>>, executable := Executable}, Looked) ->
    {error, {no_shared_libpython,
             text("~ts has no shared library: looked for ~ts. Install it (Debian: libpython3.11; pyenv: "
                  "PYTHON_CONFIGURE_OPTS=--enable-shared), or choose another Python with CAUSEWAY_PYTHON",
                  [Executable, Looked])}};
check(Python, _) ->
    {ok, Python}.

dotted(Version) -> lists:join(".", [integer_to_list(Part) || Part <- Version]).

text(Format, Arguments) -> unicode:characters_to_binary(io_lib:format(Format, Arguments)).
