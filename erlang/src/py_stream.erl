%% @private
%% @doc One Python iterator whose items go to a process as messages, no further ahead of it than a window.
-module(py_stream).

-behaviour(gen_server).

-export([start/2, cancel/1, demand/2, start_link/1]).
-export([init/1, handle_continue/2, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).
-export_type([options/0]).

-type options() :: #{owner => pid(), context => pid(), kwargs => map(), window => pos_integer(),
                     demand => non_neg_integer()}.

-define(TABLE, py_streams).
-define(WINDOW, 1000).
%% How long a stream waits, in milliseconds, before it looks again whether its consumer has caught up: first
%% and at most.
-define(PAUSE, 1).
-define(LONGEST_PAUSE, 64).
%% To count its messages takes a copy of the consumer's mailbox, which that makes: it is done in one of so many parts of
%% the time.
-define(RARELY, 20).

%% @doc Starts a stream of what a call returns, on behalf of the caller.
-spec start(py_call:request(), options()) -> {ok, reference()} | py:error().
start(Call, Options) when is_map(Options) ->
    Wrong = [Option || Option <- maps:to_list(Options), not is_option(Option)],
    case {Wrong, py_request:check(Call)} of
        {[], {ok, Request}} -> start_at(target(Options, Request), Request, Options);
        {[], Error} -> Error;
        {_, _} -> py_call:badarg("wrong options of a stream: ~tP; there are owner (a pid of this node), context (a pid), "
                                 "kwargs (a map), window (from 1) and demand (from 0)", [Wrong, 8])
    end;
start(_Call, Options) ->
    py_call:badarg("the options of a stream are a map, not ~tP", [Options, 8]).

is_option({owner, Pid}) -> is_pid(Pid) andalso node(Pid) =:= node();
is_option({context, Pid}) -> is_pid(Pid);
is_option({kwargs, Kwargs}) -> is_map(Kwargs);
is_option({window, Number}) -> is_integer(Number) andalso Number > 0;
is_option({demand, Number}) -> is_integer(Number) andalso Number >= 0;
is_option(_Other) -> false.

start_at({ok, Target}, Request, Options) ->
    Reference = make_ref(),
    Arguments = Options#{request => Request, target => Target, reference => Reference, starter => self(),
                         owner => maps:get(owner, Options, self())},
    case causeway_sup:start_child(py_stream_sup, Arguments) of
        {ok, _Pid} -> {ok, Reference};
        {error, _} = Error -> Error
    end;
start_at({error, _} = Error, _Request, _Options) ->
    Error.

%% One context for all of a stream: iterators may belong to the thread that has made them.
target(Options, Request) ->
    case py_request:target(maps:get(context, Options, pool), Request) of
        {ok, Pool} when is_tuple(Pool) -> own(py_contexts:context(py_contexts:own_index()));
        Other -> Other
    end.

own(Context) when is_pid(Context) -> py_call:native(Context);
own({error, _} = Error) -> Error.

%% @doc Ends a stream. Its iterator is interrupted and freed; messages of it that the caller has not taken are
%% thrown away.
-spec cancel(reference()) -> ok | py:error().
cancel(Reference) when is_reference(Reference) ->
    ok = ask(Reference, cancel),
    flush(Reference);
cancel(Other) ->
    py_call:badarg("stream_cancel needs the reference that stream_start returned, not ~tP", [Other, 8]).

%% @doc Lets a stream that was started with `demand' send that many more items.
-spec demand(reference(), pos_integer()) -> ok | py:error().
demand(Reference, Number) when is_reference(Reference), is_integer(Number), Number > 0 ->
    ask(Reference, {demand, Number});
demand(Reference, Number) ->
    py_call:badarg("stream_demand needs the reference that stream_start returned and a number from 1, not ~tP, ~tP",
                   [Reference, 8, Number, 8]).

ask(Reference, Request) ->
    try
        gen_server:call(ets:lookup_element(?TABLE, Reference, 2), Request, infinity)
    catch
        error:badarg -> ok;
        %% It has come to its end by itself.
        exit:_ -> ok
    end.

flush(Reference) ->
    receive
        {py_stream, Reference, _} -> flush(Reference)
    after 0 -> ok
    end.

%% @private
-spec start_link(map()) -> {ok, pid()} | {error, term()}.
start_link(Arguments) ->
    gen_server:start_link(?MODULE, Arguments, []).

%% @private
init(#{reference := Reference, owner := Owner} = Arguments) ->
    ets:insert(?TABLE, {Reference, self()}),
    _ = erlang:monitor(process, Owner),
    State = maps:with([reference, owner, target], Arguments),
    {ok, State#{iterator => undefined,
                call => undefined,
                outbox => causeway_nif:stream_outbox(),
                pause => ?PAUSE,
                %% When messages may be counted again, in microseconds.
                next_count => erlang:monotonic_time(microsecond),
                window => maps:get(window, Arguments, ?WINDOW),
                demand => maps:get(demand, Arguments, infinity)},
     {continue, {open, maps:get(request, Arguments), maps:get(starter, Arguments)}}}.

%% @private
handle_continue({open, Request, Starter}, #{target := Target} = State) ->
    called(py_call:start(Target, {stream, Request}, Starter), State).

called({ok, Tag}, State) -> {noreply, State#{call := Tag}};
called({error, Reason}, State) -> finish({error, Reason}, State).

%% @private
handle_call(cancel, _From, State) ->
    {stop, normal, ok, give_up(State)};
handle_call({demand, Number}, _From, #{demand := infinity} = State) ->
    {reply, ok, State#{demand := Number}};
handle_call({demand, Number}, _From, #{demand := Demand} = State) ->
    self() ! continue,
    {reply, ok, State#{demand := Demand + Number}}.

%% @private
handle_cast(_Request, State) ->
    {noreply, State}.

%% @private
handle_info(items, State) ->
    ok = relay(State),
    {noreply, State};
handle_info({Tag, Result}, #{call := Tag} = State) ->
    ok = py_call:forget(Tag),
    ok = relay(State),
    answered(Result, State#{call := undefined});
handle_info(continue, #{call := undefined, iterator := Iterator} = State) when Iterator =/= undefined ->
    next(State);
handle_info({'DOWN', _Monitor, process, _Owner, _Reason}, State) ->
    {stop, normal, give_up(State)};
handle_info(_Message, State) ->
    {noreply, State}.

answered({ok, Iterator}, #{iterator := undefined} = State) -> next(State#{iterator := Iterator});
answered({ok, {Sent, true}}, State) -> next(sent(Sent, State));
answered({ok, {_Sent, false}}, State) -> finish(done, State);
answered({error, Reason}, State) -> finish({error, Reason}, State).

%% Sends the owner all that Python has made by now.
relay(#{outbox := Outbox, owner := Owner, reference := Reference} = State) ->
    case causeway_nif:stream_take(Outbox) of
        [] ->
            %% What went through, objects of Python and large binaries, is not to be held by a heap that grows no more.
            _ = erlang:garbage_collect(),
            ok;
        Items ->
            lists:foreach(fun(Item) -> Owner ! {py_stream, Reference, {data, Item}} end, Items),
            relay(State)
    end.

sent(_Number, #{demand := infinity} = State) -> State;
sent(Number, #{demand := Demand} = State) -> State#{demand := Demand - Number}.

%% Asks for as many items as the owner has room for.
next(#{window := Window, demand := infinity} = State) ->
    case waiting(State) of
        {undefined, _} -> {stop, normal, State};
        {Number, Counted} when Number < Window -> take(Window - Number, Counted#{pause := ?PAUSE});
        {_, Counted} -> pause(Counted)
    end;
next(#{demand := 0} = State) ->
    {noreply, State};
next(#{window := Window, demand := Demand} = State) ->
    take(min(Window, Demand), State).

%% How many messages of the stream wait in the mailbox of its owner, at most. Which of them are ours is counted
%% only where there are many: the owner may well take those of another stream first.
waiting(#{owner := Owner, window := Window, next_count := Next} = State) ->
    Now = erlang:monotonic_time(microsecond),
    case process_info(Owner, message_queue_len) of
        {message_queue_len, Length} when Length >= Window, Now < Next ->
            {Window, State};
        {message_queue_len, Length} when Length >= Window ->
            Number = count(State),
            Then = erlang:monotonic_time(microsecond),
            {Number, State#{next_count := Then + ?RARELY * (Then - Now)}};
        {message_queue_len, Length} ->
            {Length, State};
        undefined ->
            {undefined, State}
    end.

%% In a process of its own, with which the copy goes.
count(#{owner := Owner, reference := Reference}) ->
    {Counter, Monitor} = spawn_monitor(fun() -> exit({waiting, messages_of(Reference, Owner)}) end),
    receive {'DOWN', Monitor, process, Counter, {waiting, Number}} -> Number end.

messages_of(Reference, Owner) ->
    case process_info(Owner, messages) of
        {messages, Messages} -> length([ours || {py_stream, Of, _} <- Messages, Of =:= Reference]);
        undefined -> undefined
    end.

pause(#{pause := Pause} = State) ->
    _ = erlang:send_after(Pause, self(), continue),
    {noreply, State#{pause := min(2 * Pause, ?LONGEST_PAUSE)}}.

take(Number, #{target := Target, iterator := Iterator, outbox := Outbox} = State) ->
    called(py_call:start(Target, {next, Iterator, Number, Outbox}), State).

finish(Event, #{owner := Owner, reference := Reference} = State) ->
    Owner ! {py_stream, Reference, Event},
    {stop, normal, State}.

give_up(#{call := undefined} = State) -> State;
give_up(#{call := Tag} = State) ->
    ok = py_call:cancel(Tag),
    State#{call := undefined}.

%% @private
terminate(_Reason, #{reference := Reference}) ->
    ets:delete(?TABLE, Reference),
    ok.
