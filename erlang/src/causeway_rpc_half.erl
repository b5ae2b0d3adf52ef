%% @private
%% @doc The process of one half of a streaming call: its owner, its deadline, its end, and what the owner is told in active
%% mode.
-module(causeway_rpc_half).

-behaviour(gen_server).

-export([start_link/1, start/1, ends_owner/1, out_of_order/3, out_of_credit/3]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-define(WINDOW, 262144).

-record(state, {half :: reference(),
                owner :: pid(),
                owner_monitor :: reference(),
                active = false :: causeway_rpc_stream:active(),
                receiving :: reference() | undefined,
                awaiting :: reference() | undefined,
                %% Whether the owner is of no use when the call is over without its reply.
                ends_owner = false :: boolean(),
                %% Whether the owner was told of the end, and of the reply.
                told = {false, false} :: {boolean(), boolean()},
                link :: causeway_rpc_link:link() | undefined,
                is_over = false :: boolean()}).

%% @doc Starts it, linked to the caller.
-spec start_link(causeway_rpc_stream:opts()) -> {ok, pid()} | {error, term()}.
start_link(Opts) ->
    gen_server:start_link(?MODULE, Opts, []).

%% @doc The same without a link.
-spec start(causeway_rpc_stream:opts()) -> {ok, pid()} | {error, term()}.
start(Opts) ->
    gen_server:start(?MODULE, Opts, []).

%% @doc Has the owner, which calls this, ended by the exit `{shutdown, {call_over, Reason}}' when the call is over before it
%% has replied; `over' where it is already.
-spec ends_owner(causeway_rpc_stream:stream()) -> ok | over.
ends_owner(Stream) ->
    ok = gen_server:cast(Stream, ends_owner),
    %% Afterwards: one that is over now may have ended without that.
    case causeway_rpc_stream:await_reply(Stream, 0) of
        {error, timeout} -> ok;
        _Over -> over
    end.

%% @doc A chunk has come that is not the next.
-spec out_of_order(causeway_rpc_stream:stream(), term(), term()) -> ok | {error, closed | not_local}.
out_of_order(Stream, Seq, Next) ->
    Text = iolist_to_binary(io_lib:format("chunk ~w has come where ~w is the next", [Seq, Next])),
    causeway_rpc_stream:abort(Stream, <<"out_of_order">>, Text).

%% @doc Chunks have come for which there was no room.
-spec out_of_credit(causeway_rpc_stream:stream(), pos_integer(), non_neg_integer()) -> ok | {error, closed | not_local}.
out_of_credit(Stream, Bytes, Room) ->
    Text = iolist_to_binary(io_lib:format("~b bytes have come where there was room for ~b", [Bytes, Room])),
    causeway_rpc_stream:abort(Stream, <<"out_of_credit">>, Text).

%% @private
init(#{id := Id, role := Role, mode := Mode, owner := Owner} = Opts) ->
    Half = causeway_nif:rpc_new(maps:get(window, Opts, ?WINDOW)),
    case causeway_rpc_streams:add(self(), Half, {Id, Role, Mode}) of
        ok ->
            start_deadline(maps:get(deadline, Opts, infinity)),
            {ok, #state{half = Half, owner = Owner, owner_monitor = monitor(process, Owner)}, hibernate};
        {error, _} = Error ->
            {stop, Error}
    end.

start_deadline(infinity) -> ok;
start_deadline(Time) ->
    _ = erlang:send_after(Time, self(), {deadline, Time}),
    ok.

%% @private
handle_call({active, Active}, _From, State) ->
    {reply, ok, tell(State#state{active = activity(Active, State#state.active)})};
handle_call({owner, Owner}, _From, #state{owner_monitor = Old} = State) ->
    demonitor(Old, [flush]),
    {reply, ok, State#state{owner = Owner, owner_monitor = monitor(process, Owner)}};
handle_call({attach, To, Window}, _From, #state{half = Half, link = Old} = State) ->
    ok = causeway_rpc_link:forget(Old),
    {reply, ok, State#state{link = causeway_rpc_link:new(Half, To, Window)}};
handle_call(_Request, _From, State) ->
    {reply, {error, unknown}, State}.

activity(New, Old) when is_integer(New), is_integer(Old) -> New + Old;
activity(New, _Old) -> New.

%% @private
handle_cast({final, Final}, #state{half = Half, link = Link} = State) when Link =/= undefined ->
    continue(State#state{link = causeway_rpc_link:final(Half, Link, Final)});
handle_cast(replied, #state{half = Half, link = Link} = State) when Link =/= undefined ->
    continue(State#state{link = causeway_rpc_link:late(Half, Link)});
handle_cast(ends_owner, State) ->
    {noreply, State#state{ends_owner = true}};
handle_cast(_Other, State) ->
    {noreply, State}.

%% @private
handle_info({causeway_rpc, over}, State) ->
    end_owner(State),
    continue(State#state{is_over = true});
handle_info(receivable, State) ->
    continue(tell(State#state{receiving = undefined}));
handle_info(replied, State) ->
    continue(tell(State#state{awaiting = undefined}));
handle_info({deadline, Time}, State) ->
    Text = iolist_to_binary(io_lib:format("the call was not over after ~b ms", [Time])),
    _ = causeway_rpc_stream:abort(self(), <<"deadline_exceeded">>, Text),
    {noreply, State};
handle_info({'DOWN', Monitor, process, _Owner, _Reason}, #state{owner_monitor = Monitor} = State) ->
    case causeway_nif:rpc_info(State#state.half) of
        %% What it has sent before it closed is passed on.
        #{closed_send := true} -> continue(State#state{is_over = true});
        %% Whoever is joined with this half hears of its end.
        #{closed_send := false} -> {stop, normal, State}
    end;
handle_info(Message, #state{half = Half, link = Link} = State) when Link =/= undefined ->
    continue(State#state{link = causeway_rpc_link:handle(Message, Half, Link)});
handle_info(_Other, State) ->
    {noreply, State}.

%% Nobody waits for what it still does.
end_owner(#state{ends_owner = true, half = Half, owner = Owner}) ->
    case causeway_nif:rpc_reply(Half) of
        {error, Reason} -> exit(Owner, {shutdown, {call_over, Reason}});
        _Replied -> true
    end;
end_owner(_State) ->
    true.

continue(#state{is_over = true, half = Half, link = Link} = State) ->
    %% What was sent is passed on first.
    case Link =:= undefined orelse causeway_rpc_link:is_ended(Link) of
        true ->
            _ = [causeway_rpc_link:late(Half, Link) || Link =/= undefined],
            {stop, normal, tell(State)};
        false ->
            {noreply, State}
    end;
continue(State) ->
    {noreply, State}.

%% Active mode

tell(#state{active = false} = State) ->
    State;
tell(State) ->
    tell_reply(tell_chunks(State)).

tell_chunks(#state{receiving = undefined, told = {false, Replied}, half = Half, active = Active} = State)
  when Active =/= false ->
    case causeway_nif:rpc_receive(Half) of
        empty ->
            case causeway_nif:rpc_wait(Half, inbox, receivable) of
                Waiter when is_reference(Waiter) -> State#state{receiving = Waiter};
                _Ready -> tell_chunks(State)
            end;
        eof ->
            tell_owner(State, eof),
            State#state{told = {true, Replied}};
        {error, _} = Error ->
            tell_owner(State, Error),
            State#state{told = {true, true}};
        Item ->
            tell_owner(State, Item),
            case Active of
                true -> tell_chunks(State);
                once -> State#state{active = false};
                1 ->
                    tell_owner(State, passive),
                    State#state{active = false};
                Number -> tell_chunks(State#state{active = Number - 1})
            end
    end;
tell_chunks(State) ->
    State.

tell_reply(#state{awaiting = undefined, told = {Ended, false}, half = Half, active = Active} = State)
  when Active =/= false ->
    case causeway_nif:rpc_reply(Half) of
        waiting ->
            case causeway_nif:rpc_wait(Half, reply, replied) of
                Waiter when is_reference(Waiter) -> State#state{awaiting = Waiter};
                _Reply -> tell_reply(State)
            end;
        Reply when Ended ->
            tell_owner(State, {reply, Reply}),
            State#state{told = {Ended, true}};
        %% An error that ends the call as well is told once.
        {error, _} ->
            State;
        Reply ->
            tell_owner(State, {reply, Reply}),
            State#state{told = {Ended, true}}
    end;
tell_reply(State) ->
    State.

tell_owner(#state{owner = Owner}, What) ->
    Owner ! {rpc, self(), What},
    ok.
