%% @private
%% @doc Finds the core's half of a streaming call by its process, also for a minute after that has ended; sees to it that
%% whoever is joined with a half whose process has ended hears of that.
-module(causeway_rpc_streams).

-behaviour(gen_server).

-export([start_link/0, new_table/0, add/3, half/1, peer/1, set_peer/2, facts/1, count/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-define(TABLE, ?MODULE).
-define(KEPT, 60000).
-define(KEPT_AT_MOST, 10000).
-define(SWEEP, 5000).

-record(state, {ended = queue:new() :: queue:queue({integer(), pid()}),
                count = 0 :: non_neg_integer()}).

%% @doc Starts the process that watches them.
-spec start_link() -> gen_server:start_ret().
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @doc Makes the table, which outlives that process.
-spec new_table() -> ets:table().
new_table() ->
    ets:new(?TABLE, [named_table, public, {read_concurrency, true}, {write_concurrency, true}]).

%% @doc Adds a half.
-spec add(pid(), reference(), tuple()) -> ok | {error, {not_started, binary()}}.
add(Stream, Half, Facts) ->
    try
        true = ets:insert(?TABLE, {Stream, Half, Facts, undefined}),
        gen_server:cast(?MODULE, {watch, Stream})
    catch
        error:badarg ->
            {error, {not_started, <<"the application causeway does not run: application:ensure_all_started(causeway)">>}}
    end.

%% @doc The core's half.
-spec half(pid()) -> reference() | undefined.
half(Stream) ->
    try
        ets:lookup_element(?TABLE, Stream, 2)
    catch
        error:badarg -> undefined
    end.

%% @doc What it is joined with.
-spec peer(pid()) -> causeway_rpc_stream:peer().
peer(Stream) ->
    try
        ets:lookup_element(?TABLE, Stream, 4)
    catch
        error:badarg -> undefined
    end.

%% @doc Notes what it is joined with.
-spec set_peer(pid(), causeway_rpc_stream:peer()) -> ok.
set_peer(Stream, Peer) ->
    _ = ets:update_element(?TABLE, Stream, {4, Peer}),
    ok.

%% @doc What it was started with, and what it is joined with.
-spec facts(pid()) -> #{atom() => term()}.
facts(Stream) ->
    case ets:lookup(?TABLE, Stream) of
        [{_, _, {Id, Role, Mode}, Peer}] -> #{id => Id, role => Role, mode => Mode, peer => Peer};
        [] -> #{}
    end.

%% @doc How many are known, also of those that have ended.
-spec count() -> non_neg_integer().
count() ->
    ets:info(?TABLE, size).

%% @private
init([]) ->
    %% Where the one before has died.
    lists:foreach(fun watch/1, ets:select(?TABLE, [{{'$1', '_', '_', '_'}, [], ['$1']}])),
    sweep_later(),
    {ok, #state{}}.

watch(Stream) ->
    monitor(process, Stream).

sweep_later() ->
    erlang:send_after(?SWEEP, self(), sweep).

%% @private
handle_call(_Request, _From, State) ->
    {reply, {error, unknown}, State}.

%% @private
handle_cast({watch, Stream}, State) ->
    _ = watch(Stream),
    {noreply, State}.

%% @private
handle_info({'DOWN', _Monitor, process, Stream, _Reason}, State) ->
    case ets:lookup(?TABLE, Stream) of
        [{_, Half, _, Peer}] ->
            ok = causeway_nif:rpc_end(Half, {lose, {error, closed}, {error, peer_down}}),
            set_peer(Stream, undefined),
            forget(Stream, Peer);
        [] ->
            ok
    end,
    Ended = queue:in({erlang:monotonic_time(millisecond), Stream}, State#state.ended),
    {noreply, drop_surplus(State#state{ended = Ended, count = State#state.count + 1})};
handle_info(sweep, State) ->
    sweep_later(),
    {noreply, sweep(State, erlang:monotonic_time(millisecond) - ?KEPT)}.

forget(Stream, {local, Other}) ->
    case peer(Other) of
        {local, Stream} -> set_peer(Other, undefined);
        _ -> ok
    end;
forget(_Stream, _Peer) ->
    ok.

drop_surplus(#state{count = Count} = State) when Count > ?KEPT_AT_MOST -> drop(State);
drop_surplus(State) -> State.

sweep(State, Before) ->
    case queue:peek(State#state.ended) of
        {value, {Time, _}} when Time =< Before -> sweep(drop(State), Before);
        _ -> State
    end.

drop(#state{ended = Ended, count = Count} = State) ->
    {{value, {_, Stream}}, Rest} = queue:out(Ended),
    _ = ets:delete(?TABLE, Stream),
    State#state{ended = Rest, count = Count - 1}.
