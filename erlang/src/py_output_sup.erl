%% @private
%% @doc The supervisor of what takes Python's output: where that fails, contexts go on.
-module(py_output_sup).

-behaviour(supervisor).

-export([start_link/0, init/1]).

%% @doc Starts the supervisor.
-spec start_link() -> supervisor:startlink_ret().
start_link() ->
    supervisor:start_link({local, ?MODULE}, ?MODULE, []).

%% @private
-spec init([]) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init([]) ->
    {ok, {#{strategy => one_for_one, intensity => 10, period => 10},
          [#{id => Module, start => {Module, start_link, []}} || Module <- [py_logger, py_output]]}}.
