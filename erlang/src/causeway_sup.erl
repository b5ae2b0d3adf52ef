%% @private
%% @doc The top supervisor. Whoever holds the table of contexts is before those who are in it.
-module(causeway_sup).

-behaviour(supervisor).

-export([start_link/0, init/1]).

%% @doc Starts the supervisor.
-spec start_link() -> supervisor:startlink_ret().
start_link() ->
    supervisor:start_link({local, ?MODULE}, ?MODULE, []).

%% @private
-spec init([]) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init([]) ->
    Children =
        [#{id => py_contexts, start => {py_contexts, start_link, []}},
         #{id => py_output_sup, start => {py_output_sup, start_link, []}, type => supervisor},
         #{id => py_callbacks, start => {py_callbacks, start_link, []}},
         #{id => py_pool_sup, start => {py_pool_sup, start_link, []}, type => supervisor},
         #{id => py_venv_sup, start => {py_venv_sup, start_link, []}, type => supervisor},
         #{id => py_stream_sup, start => {py_stream_sup, start_link, []}, type => supervisor},
         #{id => py_reactor_default, start => {py_reactor_context, start_default, []}, shutdown => 5000}],
    {ok, {#{strategy => rest_for_one, intensity => 10, period => 10}, Children}}.
