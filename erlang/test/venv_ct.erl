%% @doc What the suites of virtual environments share: environments that are made at once, the state that an activation
%% changes, and what the makers log.
-module(venv_ct).

-export([start/1, start_case/1, end_case/1, log/2]).
-export([state/0, venv/2, base_python/0, site_packages/1, module/3]).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

%% @doc For init_per_suite.
-spec start(list()) -> list().
start(Config) ->
    ok = causeway_ct:start(),
    %% Their import of multiprocessing comes before the first activation, which has to put that right.
    _ = state(),
    Config.

%% @doc For init_per_testcase: what the makers log comes to the test.
-spec start_case(list()) -> list().
start_case(Config) ->
    #{level := Level} = logger:get_primary_config(),
    ok = logger:set_primary_config(level, info),
    ok = logger:add_handler(?MODULE, ?MODULE, #{config => self()}),
    [{level, Level}, {state, state()} | Config].

%% @doc For end_per_testcase: nothing is left of an activation, and nobody is at work.
-spec end_case(list()) -> ok.
end_case(Config) ->
    ok = logger:remove_handler(?MODULE),
    ok = logger:set_primary_config(level, ?config(level, Config)),
    ok = py:deactivate_venv(),
    ?assertEqual(?config(state, Config), state()),
    ?assertEqual([], ets:tab2list(py_venvs)),
    ?assertEqual([], supervisor:which_children(py_venv_sup)).

%% @doc As a handler of logger.
-spec log(logger:log_event(), map()) -> term().
log(#{level := info, msg := {Format, Arguments}, meta := #{source := venv, venv := _}}, #{config := Test}) ->
    Test ! {logged, unicode:characters_to_binary(io_lib:format(Format, Arguments))};
log(#{level := warning, msg := {Format, Arguments}, meta := #{source := venv, venv := _}}, #{config := Test}) ->
    Test ! {warned, unicode:characters_to_binary(io_lib:format(Format, Arguments))};
log(_Event, _Config) ->
    ok.

%% @doc All that an activation changes.
-spec state() -> map().
state() ->
    {ok, State} = py:call(venv_helpers, state, []),
    State.

%% @doc The Python that the one of the tests was made from.
-spec base_python() -> binary().
base_python() ->
    {ok, #{<<"base_executable">> := Python}} = py:venv_info(),
    Python.

%% @doc An environment without pip, which is made at once.
-spec venv(list(), string()) -> binary().
venv(Config, Name) ->
    Venv = causeway_python:bytes(filename:join(?config(priv_dir, Config), Name)),
    {0, _} = run(base_python(), ["-m", "venv", "--without-pip", Venv]),
    Venv.

run(Program, Arguments) ->
    Port = open_port({spawn_executable, Program}, [{args, Arguments}, exit_status, stderr_to_stdout, binary]),
    collect(Port, []).

collect(Port, Output) ->
    receive
        {Port, {data, Data}} -> collect(Port, [Output, Data]);
        {Port, {exit_status, Status}} -> {Status, iolist_to_binary(Output)}
    end.

%% @doc Where an environment has its packages.
-spec site_packages(binary()) -> binary().
site_packages(Venv) ->
    [Packages] = filelib:wildcard(filename:join([unicode:characters_to_list(Venv), "lib", "python*", "site-packages"])),
    unicode:characters_to_binary(Packages).

%% @doc Puts a module into an environment.
-spec module(binary(), string(), iodata()) -> ok.
module(Venv, Name, Code) ->
    file:write_file(filename:join(site_packages(Venv), Name ++ ".py"), Code).
