%% @private
%% @doc The supervisor of the default pool: the contexts that `py:call' without a context uses.
-module(py_pool_sup).

-behaviour(supervisor).

-export([start_link/0, start_contexts/1, stop_contexts/0, mode/0, init/1]).

%% @doc Starts the supervisor with as many contexts as the application variable `contexts' says, else
%% one for each scheduler; `context_mode' says of which mode, else they are workers.
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

%% @doc Makes the pool this large; contexts that are there already stay. A pool is of one mode.
-spec start_contexts(pos_integer() | #{number => pos_integer(), mode => py_context:mode()}) ->
          {ok, [pid()]} | {error, term()}.
start_contexts(Number) when is_integer(Number), Number > 0 ->
    start_contexts(Number, any);
start_contexts(#{} = Options) ->
    Whole = maps:merge(#{number => erlang:system_info(schedulers), mode => any}, Options),
    case Whole of
        #{number := Number, mode := Mode}
          when map_size(Whole) =:= 2, is_integer(Number), Number > 0,
               (Mode =:= any orelse Mode =:= worker orelse Mode =:= subinterp orelse Mode =:= owngil) ->
            start_contexts(Number, Mode);
        _ ->
            py_call:badarg("unknown or wrong option in ~tP: there are number, from 1, and mode: worker, subinterp or owngil",
                           [Options, 8])
    end;
start_contexts(Number) ->
    py_call:badarg("start_contexts needs a positive number or a map, not ~tP", [Number, 8]).

start_contexts(Number, Wanted) ->
    case {whereis(?MODULE), py_contexts:pool_mode()} of
        {undefined, _} ->
            {error, {not_started, <<"the application causeway does not run: application:ensure_all_started(causeway)">>}};
        {_, none} when Wanted =:= any ->
            start_all(Number, mode());
        {_, Mode} when Wanted =:= any ->
            start_all(Number, Mode);
        {_, Mode} when Mode =:= none; Mode =:= Wanted ->
            start_all(Number, Wanted);
        {_, Mode} ->
            {error, py_contexts:other_mode(Mode)}
    end.

start_all(Number, Mode) ->
    Results = [start_context(Index, Mode) || Index <- lists:seq(1, Number)],
    case [Reason || {error, Reason} <- Results] of
        [] -> {ok, [Pid || {ok, Pid} <- Results]};
        [Reason | _] -> {error, Reason}
    end.

start_context(Index, Mode) ->
    case py_contexts:at(Index) of
        {ok, Pid} -> {ok, Pid};
        error ->
            try supervisor:start_child(?MODULE, [#{id => Index, pool => Index, mode => Mode}]) of
                %% Somebody else has been faster.
                {error, {pool_place_taken, Pid}} -> {ok, Pid};
                Result -> Result
            catch
                exit:{Reason, _} ->
                    {error, {not_started, py_call:error_text("the pool of contexts has just ended (~tP): try again", [Reason, 8])}}
            end
    end.

%% @doc The mode of the contexts of the pool, also of those to come.
-spec mode() -> py_context:mode().
mode() ->
    case py_contexts:pool_mode() of
        none -> application:get_env(causeway, context_mode, worker);
        Mode -> Mode
    end.

%% @doc Ends the contexts of the pool.
-spec stop_contexts() -> ok.
stop_contexts() ->
    case whereis(?MODULE) of
        undefined ->
            ok;
        _ ->
            lists:foreach(fun({_, Pid, _, _}) -> supervisor:terminate_child(?MODULE, Pid) end,
                          supervisor:which_children(?MODULE))
    end.

%% @private
%% Of this kind, because the children of such a supervisor are stopped all at once: a context takes up to a
%% second where Python is in native code.
-spec init([]) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init([]) ->
    Context = #{id => py_context, start => {py_context, start_link, []}, shutdown => 5000},
    {ok, {#{strategy => simple_one_for_one, intensity => 10, period => 10}, [Context]}}.
