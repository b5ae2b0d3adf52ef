%% @private
%% @doc The table of contexts: from a pid or an index to the native half, and the default pool.
%%
%% Lookups read an ETS table and never ask this process.
-module(py_contexts).

-behaviour(gen_server).

-export([start_link/0, register/3, unregister/1, native/1, at/1, context/1, own_index/0, worker/0, pool/0,
         pool_size/0, pool_mode/0, isolated/0, other_mode/1, forget_pool/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, code_change/3]).

-define(TABLE, ?MODULE).
%% An atom alone: it is hashed by every call.
-define(POOL, py_contexts_pool).
%% In the dictionary of a process that calls into such a pool.
-define(PLACE, py_contexts_place).

%% @doc Starts the owner of the table.
-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @doc Enters the calling process as a context; `pool' is its place in the pool, if it has one: not where another
%% context is there, or contexts of another mode are in the pool.
-spec register(pid(), causeway_nif:context(), #{pool => pos_integer(), mode => py_context:mode()}) ->
          ok | {error, {pool_place_taken, pid()} | {pool_mode, binary()}}.
register(Pid, Native, Options) ->
    gen_server:call(?MODULE, {register, Pid, Native, Options}).

%% @doc Takes a context out that stops. One that dies without a word is noticed all the same.
-spec unregister(pid()) -> ok.
unregister(Pid) ->
    try
        gen_server:call(?MODULE, {unregister, Pid})
    catch
        exit:_ -> ok
    end.

%% @doc The native half of a context.
-spec native(pid()) -> {ok, causeway_nif:context()} | error.
native(Pid) ->
    lookup(Pid, 2).

%% @doc The context at a place in the pool.
-spec at(pos_integer()) -> {ok, pid()} | error.
at(Index) ->
    lookup({index, Index}, 2).

%% @doc The context at a place in the pool, or what is wrong with that.
-spec context(pos_integer()) -> pid() | {error, {no_context, binary()}}.
context(Index) ->
    case at(Index) of
        {ok, Pid} ->
            Pid;
        error ->
            {error, {no_context, py_call:error_text("there is no context ~p: the pool has ~p; py:start_contexts(N) makes "
                                                    "more", [Index, pool_size()])}}
    end.

%% @doc The native half of some worker, whether in the pool or not.
-spec worker() -> {ok, causeway_nif:context()} | error.
worker() ->
    try ets:match(?TABLE, {'_', '$1', worker}, 1) of
        {[[Native]], _} -> {ok, Native};
        '$end_of_table' -> error
    catch
        error:badarg -> error
    end.

%% @doc The native halves of the pool, of which any may serve the calling process; where each has an interpreter of
%% its own, the one that always serves it: its names are there.
-spec pool() -> {ok, tuple() | causeway_nif:context()} | error.
pool() ->
    case persistent_term:get(?POOL, none) of
        {worker, Pool} -> {ok, Pool};
        {_Mode, Places} -> {ok, element(own_place(Places), Places)};
        none -> error
    end.

%% @doc The place in the pool of the context that serves the calling process.
-spec own_index() -> pos_integer().
own_index() ->
    case persistent_term:get(?POOL, none) of
        {worker, Pool} -> 1 + (erlang:system_info(scheduler_id) - 1) rem tuple_size(Pool);
        {_Mode, Places} -> own_place(Places);
        none -> 1
    end.

%% The process remembers its place: it keeps it when the pool grows. While the context there is being restarted,
%% so that its names are gone anyway, others serve.
own_place(Places) ->
    Size = tuple_size(Places),
    Place = case get(?PLACE) of
                Known when is_integer(Known), Known =< Size ->
                    Known;
                _ ->
                    New = 1 + erlang:phash2(self(), Size),
                    put(?PLACE, New),
                    New
            end,
    filled_place(Place, Places).

filled_place(Place, Places) ->
    case element(Place, Places) of
        none -> filled_place(1 + Place rem tuple_size(Places), Places);
        _Native -> Place
    end.

%% @doc There is no pool any more: the application has stopped.
-spec forget_pool() -> ok.
forget_pool() ->
    persistent_term:put(?POOL, none).

%% @doc How many contexts the pool has.
-spec pool_size() -> non_neg_integer().
pool_size() ->
    case persistent_term:get(?POOL, none) of
        {_Mode, Places} -> length([Native || Native <- tuple_to_list(Places), Native =/= none]);
        none -> 0
    end.

%% @doc The mode of the contexts of the pool.
-spec pool_mode() -> py_context:mode() | none.
pool_mode() ->
    case persistent_term:get(?POOL, none) of
        {Mode, _Pool} -> Mode;
        none -> none
    end.

%% @doc The contexts of the pool where each has an interpreter of its own, beginning with any of them.
-spec isolated() -> [pid()].
isolated() ->
    case pool_mode() of
        Mode when Mode =:= worker; Mode =:= none ->
            [];
        _Mode ->
            Contexts = lists:append(ets:match(?TABLE, {{index, '_'}, '$1'})),
            {Last, First} = lists:split(erlang:unique_integer([positive]) rem (length(Contexts) + 1), Contexts),
            First ++ Last
    end.

lookup(Key, Position) ->
    try
        {ok, ets:lookup_element(?TABLE, Key, Position)}
    catch
        error:badarg -> error
    end.

%% @private
init([]) ->
    ?TABLE = ets:new(?TABLE, [named_table, protected, {read_concurrency, true}]),
    forget_pool(),
    {ok, #{}}.

%% @private
handle_call({register, Pid, Native, Options}, _From, Members) ->
    Index = maps:get(pool, Options, undefined),
    Mode = maps:get(mode, Options, worker),
    case Index =:= undefined orelse free(Index, Mode, [Member || Member <- maps:values(Members), in_pool(Member)]) of
        true ->
            Monitor = erlang:monitor(process, Pid),
            ets:insert(?TABLE, {Pid, Native, Mode}),
            Index =/= undefined andalso ets:insert(?TABLE, {{index, Index}, Pid}),
            {reply, ok, renew_pool(Members#{Monitor => {Pid, Index, Native, Mode}})};
        {error, _} = Error ->
            {reply, Error, Members}
    end;
handle_call({unregister, Pid}, _From, Members) ->
    case [Monitor || {Monitor, {Member, _, _, _}} <- maps:to_list(Members), Member =:= Pid] of
        [Monitor] ->
            erlang:demonitor(Monitor, [flush]),
            {reply, ok, forget(Monitor, Members)};
        [] ->
            {reply, ok, Members}
    end.

%% @private
handle_cast(_Request, Members) ->
    {noreply, Members}.

%% @private
handle_info({'DOWN', Monitor, process, _Pid, _Reason}, Members) ->
    {noreply, forget(Monitor, Members)};
handle_info(_Message, Members) ->
    {noreply, Members}.

forget(Monitor, Members) ->
    {{Pid, Index, _Native, _Mode}, Rest} = maps:take(Monitor, Members),
    ets:delete(?TABLE, Pid),
    %% A successor may have taken the place before we heard of the end.
    Index =/= undefined andalso ets:delete_object(?TABLE, {{index, Index}, Pid}),
    renew_pool(Rest).

%% @private
code_change(_OldVersion, Members, _Extra) ->
    {ok, Members}.

%% One that has died, and of which we have not heard yet, is in nobody's way.
in_pool({Pid, Index, _Native, _Mode}) ->
    Index =/= undefined andalso is_process_alive(Pid).

free(Index, Mode, Pool) ->
    case {[Pid || {Pid, Place, _, _} <- Pool, Place =:= Index], [Other || {_, _, _, Other} <- Pool, Other =/= Mode]} of
        {_, [Other | _]} -> {error, other_mode(Other)};
        {[Pid | _], []} -> {error, {pool_place_taken, Pid}};
        {[], []} -> true
    end.

%% @doc Why there can be no contexts of another mode in the pool.
-spec other_mode(py_context:mode()) -> {pool_mode, binary()}.
other_mode(Mode) ->
    {pool_mode, py_call:error_text("the contexts of the pool are of the mode ~p: py:stop_contexts() before there "
                                   "can be others", [Mode])}.

renew_pool(Members) ->
    Pool = lists:sort([{Index, Native, Mode} || {_, Index, Native, Mode} <- maps:values(Members),
                                                Index =/= undefined]),
    %% Read by every call: a persistent term costs a tenth of a look into ETS. It changes only when a
    %% context of the pool starts or ends. All contexts of a pool are of one mode. Where that matters, each has
    %% its place, and `none' is at that of one which is being restarted.
    persistent_term:put(?POOL, case Pool of
                                   [] ->
                                       none;
                                   [{_, _, worker} | _] ->
                                       {worker, list_to_tuple([Native || {_, Native, _} <- Pool])};
                                   [{_, _, Mode} | _] ->
                                       {Last, _, _} = lists:last(Pool),
                                       {Mode, erlang:make_tuple(Last, none, [{Index, Native} || {Index, Native, _} <- Pool])}
                               end),
    Members.
