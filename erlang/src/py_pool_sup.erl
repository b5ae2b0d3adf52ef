%% @private
%% @doc The supervisor of the default pool: the contexts that `py:call' without a context uses.
-module(py_pool_sup).

-behaviour(supervisor).

-export([start_link/0, start_contexts/1, stop_contexts/0, init/1]).

%% @doc Starts the supervisor with as many contexts as the application variable `contexts' says, else
%% one for each scheduler.
-spec start_link() -> supervisor:startlink_ret().
start_link() ->
    case supervisor:start_link({local, ?MODULE}, ?MODULE, []) of
        {ok, Supervisor} ->
            Number = application:get_env(causeway, contexts, erlang:system_info(schedulers)),
            case start_contexts(Number) of
                {ok, _} -> {ok, Supervisor};
                {error, _} = Error -> Error
            end;
        Other ->
            Other
    end.

%% @doc Makes the pool this large; contexts that are there already stay.
-spec start_contexts(pos_integer()) -> {ok, [pid()]} | {error, term()}.
start_contexts(Number) ->
    Results = [start_context(Index) || Index <- lists:seq(1, Number)],
    case [Reason || {error, Reason} <- Results] of
        [] -> {ok, [Pid || {ok, Pid} <- Results]};
        [Reason | _] -> {error, Reason}
    end.

start_context(Index) ->
    Child = #{id => Index, start => {py_context, start_link, [#{id => Index, pool => Index}]}, shutdown => 5000},
    case supervisor:start_child(?MODULE, Child) of
        {error, {already_started, Pid}} -> {ok, Pid};
        Result -> Result
    end.

%% @doc Ends the contexts of the pool.
-spec stop_contexts() -> ok.
stop_contexts() ->
    lists:foreach(fun({Id, _, _, _}) ->
                          ok = supervisor:terminate_child(?MODULE, Id),
                          ok = supervisor:delete_child(?MODULE, Id)
                  end, supervisor:which_children(?MODULE)).

%% @private
-spec init([]) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init([]) ->
    {ok, {#{strategy => one_for_one, intensity => 10, period => 10}, []}}.
