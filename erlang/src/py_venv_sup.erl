%% @private
%% @doc The supervisor of those who make virtual environments, and the owner of the table of what is being made.
-module(py_venv_sup).

-behaviour(supervisor).

-export([start_link/0, start_maker/1, init/1]).

%% @doc Starts the supervisor.
-spec start_link() -> supervisor:startlink_ret().
start_link() ->
    supervisor:start_link({local, ?MODULE}, ?MODULE, []).

%% @doc Starts a process that makes an environment when it is asked to.
-spec start_maker(map()) -> {ok, pid()} | {error, term()}.
start_maker(Plan) ->
    try supervisor:start_child(?MODULE, [Plan]) of
        {ok, Pid} -> {ok, Pid};
        {error, Reason} -> {error, Reason}
    catch
        exit:{noproc, _} -> {error, {not_started, <<"the application causeway does not run">>}}
    end.

%% @private
%% Who is stopped kills its program and removes what is half made.
-spec init([]) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init([]) ->
    py_venvs = ets:new(py_venvs, [named_table, public]),
    Maker = #{id => py_venv_maker, start => {py_venv_maker, start_link, []}, restart => temporary, shutdown => 10000},
    {ok, {#{strategy => simple_one_for_one}, [Maker]}}.
