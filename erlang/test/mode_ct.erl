%% @doc What the suites of the kinds of context share: contexts of the group's mode, and that they leave no thread.
-module(mode_ct).

-export([start_group/2, start_case/1, end_case/1]).
-export([mode/1, modes/0, python/0, setup_code/0, start/1, only_the_pool_has_threads/0, in_process/1, sockets/0]).

%% @doc For init_per_group: a group has the name of its mode.
-spec start_group(worker | subinterp | owngil, list()) -> list() | {skip, string()}.
start_group(Mode, Config) ->
    case lists:member(Mode, modes()) of
        true -> [{mode, Mode} | Config];
        false -> {skip, "an interpreter with a lock of its own needs Python 3.12"}
    end.

%% @doc For init_per_testcase.
-spec start_case(list()) -> list().
start_case(Config) ->
    process_flag(trap_exit, true),
    causeway_ct:start(Config).

%% @doc For end_per_testcase.
-spec end_case(list()) -> ok.
end_case(_Config) ->
    ok = application:set_env(causeway, context_mode, worker),
    py:execution_mode() =:= worker orelse py:stop_contexts(),
    ok = only_the_pool_has_threads(),
    lists:foreach(fun py:unregister_function/1, [mode_wait, mode_nest, mode_double]).

%% @doc The mode of the group, or of a list that names one.
-spec mode(list()) -> worker | subinterp | owngil.
mode(Config) -> proplists:get_value(mode, Config).

%% @doc The modes that this Python has.
-spec modes() -> [worker | subinterp | owngil].
modes() ->
    [worker, subinterp] ++ [owngil || python() >= [3, 12]].

%% @doc The version of the Python.
-spec python() -> [non_neg_integer()].
python() ->
    {ok, #{version := [Major, Minor | _]}} = causeway_python:find(),
    [Major, Minor].

%% @doc Lets an interpreter find the helper modules.
-spec setup_code() -> iolist().
setup_code() ->
    ["import sys\nif '", causeway_ct:python_dir(), "' not in sys.path: sys.path.insert(0, '", causeway_ct:python_dir(), "')\n"].

%% @doc A context of the mode.
-spec start(list()) -> pid().
start(Config) ->
    {ok, Context} = py_context:start_link(#{mode => mode(Config), setup_code => setup_code()}),
    Context.

%% @doc Waits until no other contexts have threads than those of the pool and the default one for connections.
-spec only_the_pool_has_threads() -> ok.
only_the_pool_has_threads() ->
    causeway_ct:settled(fun causeway_ct:context_threads/0, py_contexts:pool_size() + 1).

%% @doc What a function returns in a process of its own, which has ended then.
-spec in_process(fun(() -> Result)) -> Result.
in_process(Fun) ->
    Test = self(),
    {Process, Monitor} = spawn_monitor(fun() -> Test ! {self(), Fun()} end),
    receive
        {Process, Result} -> receive {'DOWN', Monitor, process, Process, _} -> Result end;
        {'DOWN', Monitor, process, Process, Reason} -> error(Reason)
    end.

%% @doc A client, and the descriptor of the server's end.
-spec sockets() -> {gen_tcp:socket(), non_neg_integer()}.
sockets() ->
    {Client, Server} = reactor_ct:tcp_pair(),
    {Client, reactor_ct:fd(Server)}.
