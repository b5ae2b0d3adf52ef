%% @doc Streaming calls over a packet connection, without Erlang distribution: to a node, or to a Python with `erlang.rpc'.
%% {@link causeway_rpc:connect/2} makes one.
%%
%% It is for each half on this side what the process of the other half is between nodes. Both sides open calls, each with
%% numbers of its own; who names a call that the other has opened adds 1 to twice its number.
-module(causeway_rpc_connection).

-behaviour(gen_server).

-export([start_link/2, open/4, close/1, info/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

%% How many bytes of frames wait for the process until no more are read, where no option says so.
-define(RECEIVE_WINDOW, 4194304).
%% How many bytes of a call may be on the way or wait to be written, however much room the other side gives.
-define(AHEAD, 4194304).
-define(MOST_ROOM, 1 bsl 40).
-define(MAX_CALLS, 1024).
%% A call's half is told of more room where that is at least such a part of what it has: there are few messages then,
%% however little the other side gives at a time.
-define(WORTH_TELLING, 16).

-record(state, {packets :: pid() | undefined,
                %% How much was looked at of what has come, that the packet connection was not told of, and when it is.
                taken = 0 :: non_neg_integer(),
                tell_taken = 1 :: pos_integer(),
                serve :: boolean(),
                max_calls :: pos_integer() | infinity,
                %% How many calls the other side has open, and the processes that serve them: one may go on for a while.
                theirs = 0 :: non_neg_integer(),
                handlers = #{} :: #{reference() => Number :: non_neg_integer()},
                next = 1 :: pos_integer(),
                %% By the numbers that come.
                calls = #{} :: #{non_neg_integer() => call()},
                numbers = #{} :: #{pid() => non_neg_integer()},
                %% Calls whose opening was not answered yet.
                opening = #{} :: #{reference() => {gen_server:from(), pid()}},
                %% Chunks that the other side has not said it has.
                sending = #{} :: #{reference() => {Number :: non_neg_integer(), Bytes :: non_neg_integer()}}}).

%% What comes: the number of the next chunk, for how many bytes there is room, whether an end or a reply has come, and
%% whether chunks have that may not.
%% What goes: for how many bytes the other side has room which the half was not told of, and of how many it was told that
%% have not arrived there.
-record(call, {stream :: pid(),
               seq = 0 :: non_neg_integer(),
               room :: integer(),
               room_there = 0 :: non_neg_integer(),
               ahead = 0 :: integer(),
               is_ended = false :: boolean(),
               is_refused = false :: boolean(),
               is_replied = false :: boolean()}).

-type call() :: #call{} | {opening, causeway_packet_connection:from(), Handler :: reference()} | {cancelled, Handler :: reference()}.

%% @doc Makes a connection: see {@link causeway_rpc:connect/2}.
-spec start_link(causeway_packet_transport:transport(), causeway_rpc:connect_opts()) -> {ok, pid()} | {error, term()}.
start_link(Transport, Options) ->
    Own = maps:merge(#{serve => true, max_calls => ?MAX_CALLS}, maps:with([serve, max_calls], Options)),
    case Own of
        #{serve := Serve} when not is_boolean(Serve) ->
            {error, {badarg, <<"serve must be true or false">>}};
        #{max_calls := Most} when not (is_integer(Most) andalso Most > 0 orelse Most =:= infinity) ->
            {error, {badarg, <<"max_calls must be a number of calls, from 1, or infinity">>}};
        #{} ->
            start_link(Transport, Own, maps:without([serve, max_calls], Options))
    end.

start_link(Transport, Own, Options) ->
    {ok, Connection} = gen_server:start_link(?MODULE, Own, []),
    Handler = fun(Type, _Flags, Payload, From) -> handle(Type, Payload, From, Connection) end,
    Window = maps:get(receive_window, Options, ?RECEIVE_WINDOW),
    Packets = Options#{handler => Handler, workers => 0, owner => Connection, taker => Connection, receive_window => Window},
    case causeway_packet_connection:start(Transport, Packets) of
        {ok, Pid} ->
            ok = gen_server:call(Connection, {packets, Pid, Window}),
            {ok, Connection};
        {error, _} = Error ->
            true = unlink(Connection),
            exit(Connection, kill),
            Error
    end.

%% @private
%% @doc Opens a call of a client's half on the other side.
-spec open(pid(), pid(), map(), timeout()) -> ok | {error, term()}.
open(Connection, Client, Request, Timeout) ->
    try
        gen_server:call(Connection, {open, Client, Request}, Timeout)
    catch
        exit:{timeout, _} -> {error, {<<"unavailable">>, <<"the other side has not answered">>}};
        exit:_ -> {error, {<<"disconnected">>, <<"the connection is closed">>}}
    end.

%% @doc Ends a connection, and waits for that. Calls that are not over fail as `disconnected'. One that has
%% ended is no error.
-spec close(pid()) -> ok.
close(Connection) ->
    try
        gen_server:stop(Connection, {shutdown, {disconnected, <<"the connection was closed">>}}, infinity)
    catch
        exit:_ -> ok
    end.

%% @doc How many calls go over it, opened by either side. Exits as `gen_server:call/2' where it has ended.
-spec info(pid()) -> #{calls := non_neg_integer()}.
info(Connection) ->
    gen_server:call(Connection, info).

%% In the process of the packet connection, which must not wait.

handle(Type, Payload, From, Connection) ->
    case causeway_rpc_packet:frame(Type) of
        open ->
            Connection ! {opened_there, Payload, From},
            noreply;
        undefined ->
            Connection ! {frame, undefined, Payload},
            {failed, <<"no frame of a streaming call">>};
        Frame ->
            Connection ! {frame, Frame, Payload},
            ok
    end.

%% What it was sent counts as in hand there until it has looked at it: nothing more is read while that is too much.
looked_at(Payload, #state{taken = Taken} = State) ->
    tell_taken(State#state{taken = Taken + causeway_packet_serving:weight(Payload)}).

tell_taken(#state{packets = Packets, taken = Taken, tell_taken = Least} = State) when Taken >= Least, is_pid(Packets) ->
    ok = causeway_packet_connection:taken(Packets, Taken),
    State#state{taken = 0};
tell_taken(State) ->
    State.

%% In its own process

%% @private
init(#{serve := Serve, max_calls := Most}) ->
    {ok, #state{serve = Serve, max_calls = Most}}.

%% @private
handle_call({packets, Packets, Window}, _From, State) ->
    _ = monitor(process, Packets),
    %% Now and then, but before it waits for that.
    Least = max(1, min(Window, ?RECEIVE_WINDOW) div 8),
    {reply, ok, tell_taken(State#state{packets = Packets, tell_taken = Least})};
handle_call({open, Client, Request}, From, State) ->
    Number = free_number(State#state.next, State#state.calls),
    Opening = maps:merge(Request, #{stream_id => Number bxor 1}),
    case causeway_rpc_packet:encode(Opening) of
        {ok, Payload} ->
            %% The first chunks may come before the answer. There is room for ours when that has come.
            ok = causeway_rpc_stream:link_remote(Client, self(), 0),
            {causeway_packet_request, _, Reference} = request(State, open, Payload),
            Waiting = (State#state.opening)#{Reference => {From, Client}},
            Room = maps:get(window, Request),
            {noreply, add(Number, #call{stream = Client, room = Room}, State#state{next = after_it(Number), opening = Waiting})};
        {error, {cbor, Text}} ->
            {reply, {error, {badarg, Text}}, State}
    end;
handle_call({opened, Number, Stream, RoomThere}, _From, #state{calls = Calls} = State) ->
    case Calls of
        #{Number := {opening, From, _Handler}} ->
            #{window := Window, mode := Mode} = causeway_rpc_stream:info(Stream),
            Room = causeway_rpc_link:room(Window),
            {ok, Answer} = causeway_rpc_packet:encode(#{window => Room, mode => Mode}),
            ok = causeway_packet_connection:reply(From, {ok, Answer}),
            {reply, ok, add(Number, told_of_room(RoomThere, #call{stream = Stream, room = Room}), State)};
        #{} ->
            {reply, cancelled, remove(Number, State)}
    end;
handle_call(info, _From, State) ->
    {reply, #{calls => map_size(State#state.calls)}, State};
handle_call(_Request, _From, State) ->
    {reply, {error, unknown}, State}.

%% @private
handle_cast(_Request, State) ->
    {noreply, State}.

%% @private
handle_info({frame, Frame, Payload}, State) ->
    {noreply, frame(Frame, Payload, looked_at(Payload, State))};
handle_info({rpc_chunks, Stream, Seq, Bytes, Items}, #state{numbers = Numbers, sending = Sending} = State) ->
    case Numbers of
        #{Stream := Number} ->
            case causeway_rpc_packet:chunks(Number bxor 1, Seq, Items) of
                {ok, Payload} ->
                    {causeway_packet_request, _, Reference} = request(State, data, Payload),
                    {noreply, State#state{sending = Sending#{Reference => {Number, Bytes}}}};
                {error, {cbor, Text}} ->
                    _ = causeway_rpc_stream:abort(Stream, <<"badarg">>, Text),
                    {noreply, State}
            end;
        #{} ->
            {noreply, State}
    end;
handle_info({rpc_credit, Stream, Bytes}, #state{calls = Calls, numbers = Numbers} = State) ->
    case Numbers of
        #{Stream := Number} ->
            #{Number := #call{room = Room} = Call} = Calls,
            _ = request(State, credit, causeway_rpc_packet:credit(Number bxor 1, Bytes)),
            {noreply, State#state{calls = Calls#{Number := Call#call{room = Room + Bytes}}}};
        #{} ->
            {noreply, State}
    end;
handle_info({rpc_event, Stream, Event}, State) ->
    Told = told(Stream, State, fun(Number) -> tell_event(State, Number bxor 1, Event) end),
    {noreply, case Event of
        send -> Told;
        _Last -> forget(Stream, Told)
    end};
handle_info({opened_there, Payload, From}, State) ->
    {noreply, opened_there(causeway_rpc_packet:decode(Payload), From, State)};
handle_info({Reference, {_, _Flags, Payload} = Result}, State) when is_reference(Reference) ->
    {noreply, answered(Reference, Result, looked_at(Payload, State))};
handle_info({Reference, {error, _} = Result}, State) when is_reference(Reference) ->
    {noreply, answered(Reference, Result, State)};
handle_info({'DOWN', _, process, Packets, Why}, #state{packets = Packets} = State) ->
    Text = unicode:characters_to_binary(io_lib:format("the connection has ended: ~0tp", [why(Why)])),
    {stop, {shutdown, {disconnected, Text}}, State};
handle_info({'DOWN', Monitor, process, _, Reason}, #state{handlers = Handlers} = State) when is_map_key(Monitor, Handlers) ->
    {Number, Others} = maps:take(Monitor, Handlers),
    {noreply, not_served(Monitor, Number, Reason, State#state{handlers = Others})};
handle_info({'DOWN', _, process, Stream, _Reason}, State) ->
    Told = told(Stream, State, fun(Number) ->
        tell_event(State, Number bxor 1, {abort, {error, {<<"peer_down">>, <<"the other half is gone">>}}})
    end),
    {noreply, forget(Stream, Told)};
handle_info(_Other, State) ->
    {noreply, State}.

%% @private
terminate(_Reason, #state{packets = Packets}) when is_pid(Packets) ->
    causeway_packet_connection:close(Packets);
terminate(_Reason, _State) ->
    ok.

why({shutdown, Why}) -> Why;
why(Why) -> Why.

request(#state{packets = Packets}, Frame, Payload) ->
    causeway_packet_connection:send_request(Packets, causeway_rpc_packet:type(Frame), Payload).

answered(Reference, Result, #state{sending = Sending} = State) when is_map_key(Reference, Sending) ->
    {{Number, Bytes}, Others} = maps:take(Reference, Sending),
    arrived(Result, Number, Bytes, State#state{sending = Others});
answered(Reference, Result, #state{opening = Opening} = State) when is_map_key(Reference, Opening) ->
    {{From, Client}, Others} = maps:take(Reference, Opening),
    opened(answer(Result), From, Client, State#state{opening = Others});
answered(_OfAnotherFrame, _Result, State) ->
    State.

told(Stream, #state{numbers = Numbers} = State, Tell) ->
    _ = case Numbers of
        #{Stream := Number} -> Tell(Number);
        #{} -> ok
    end,
    State.

tell_event(State, Number, {abort, {error, {Code, Message}}}) ->
    {ok, Payload} = causeway_rpc_packet:encode(#{stream_id => Number, code => Code, message => Message}),
    request(State, error, Payload);
tell_event(State, Number, Role) ->
    {ok, Payload} = causeway_rpc_packet:encode(#{stream_id => Number, role => Role}),
    request(State, 'end', Payload).

add(Number, #call{stream = Stream} = Call, #state{calls = Calls, numbers = Numbers} = State) ->
    _ = monitor(process, Stream),
    State#state{calls = Calls#{Number => Call}, numbers = Numbers#{Stream => Number}}.

forget(Stream, #state{numbers = Numbers} = State) ->
    case maps:take(Stream, Numbers) of
        {Number, Others} -> remove(Number, State#state{numbers = Others});
        error -> State
    end.

%% Those that the other side has opened come with even numbers.
remove(Number, #state{calls = Calls, theirs = Theirs} = State) when Number band 1 =:= 0 ->
    State#state{calls = maps:remove(Number, Calls), theirs = Theirs - 1};
remove(Number, #state{calls = Calls} = State) ->
    State#state{calls = maps:remove(Number, Calls)}.

%% They are used again when 32 bits have no more.
free_number(Number, Calls) when is_map_key(Number, Calls) -> free_number(after_it(Number), Calls);
free_number(Number, _Calls) -> Number.

after_it(Number) -> (Number + 2) band 16#ffffffff.

%% What goes

%% The half is told of the other side's room as far as what it may send stays small: a peer can give room without end, and
%% read nothing.
told_of_room(More, #call{stream = Stream, room_there = Before, ahead = Ahead} = Call) ->
    Room = min(Before + More, ?MOST_ROOM),
    case min(Room, ?AHEAD - Ahead) of
        Given when Given > 0, Given * ?WORTH_TELLING > Ahead ->
            Stream ! {rpc_credit, self(), Given},
            Call#call{room_there = Room - Given, ahead = Ahead + Given};
        _TooLittle ->
            Call#call{room_there = Room}
    end.

arrived(Result, Number, Bytes, #state{calls = Calls} = State) ->
    case Calls of
        #{Number := #call{stream = Stream, ahead = Ahead} = Call} ->
            _ = not_taken(Result, Stream),
            State#state{calls = Calls#{Number := told_of_room(0, Call#call{ahead = Ahead - Bytes})}};
        #{} ->
            State
    end.

%% Chunks are missing there. Of a connection that ends it is told otherwise.
not_taken({failed, _Flags, <<"rejecting request: runstate.", _/binary>>}, _Stream) -> ok;
not_taken({failed, _Flags, Text}, Stream) -> causeway_rpc_stream:abort(Stream, <<"refused">>, Text);
not_taken({error, busy}, Stream) -> causeway_rpc_stream:abort(Stream, <<"refused">>, <<"too much waits to be written">>);
not_taken(_Taken, _Stream) -> ok.

%% What comes

%% What comes for a call that is over is not looked at.
frame(data, <<Number:32, _/binary>> = Payload, #state{calls = Calls} = State) ->
    case Calls of
        #{Number := #call{} = Call} ->
            case causeway_rpc_packet:items(Payload) of
                {ok, _Number, Seq, Items} -> data(Number, Seq, Items, Call, State);
                error -> State
            end;
        #{} ->
            State
    end;
frame(credit, <<Number:32, Bytes:32>>, #state{calls = Calls} = State) ->
    case Calls of
        #{Number := #call{} = Call} -> State#state{calls = Calls#{Number := told_of_room(Bytes, Call)}};
        #{} -> State
    end;
frame(Frame, _Other, State) when Frame =:= data; Frame =:= credit; Frame =:= undefined ->
    State;
frame(Frame, Payload, #state{calls = Calls} = State) ->
    case causeway_rpc_packet:decode(Payload) of
        {ok, #{<<"stream_id">> := Number} = Map} ->
            Event = event(Frame, Map),
            case Calls of
                #{Number := #call{is_ended = true}} when Event =:= send ->
                    State;
                #{Number := #call{stream = Stream} = Call} ->
                    Stream ! {rpc_event, self(), Event},
                    case Event of
                        send -> State#state{calls = Calls#{Number := Call#call{is_ended = true}}};
                        _Last -> forget(Stream, State)
                    end;
                #{Number := {opening, From, Handler}} when Event =/= send ->
                    refuse(From, <<"cancelled">>, <<"the call was cancelled before it was accepted">>,
                           State#state{calls = Calls#{Number := {cancelled, Handler}}});
                #{} ->
                    State
            end;
        _Other ->
            State
    end.

%% Chunks must have the numbers that are next, and there must be room for them, so that what waits for who does not receive
%% stays small. The first is taken however large it is.
data(_Number, _Seq, #{count := 0, replies := 0}, _Call, State) ->
    State;
%% Its process knows, and ends it.
data(_Number, _Seq, _Items, #call{is_refused = true}, State) ->
    State;
data(Number, Seq, _Items, #call{stream = Stream, seq = Next} = Call, State) when Seq =/= Next band 16#ffffffff ->
    _ = causeway_rpc_half:out_of_order(Stream, Seq, Next band 16#ffffffff),
    refused(Number, Call, State);
data(Number, _Seq, #{replies := Replies}, #call{stream = Stream, is_replied = IsReplied} = Call, State)
  when Replies > 1; IsReplied, Replies > 0 ->
    _ = causeway_rpc_stream:abort(Stream, <<"badarg">>, <<"a second reply has come">>),
    refused(Number, Call, State);
data(Number, _Seq, #{bytes := Bytes, count := Count}, #call{stream = Stream, room = Room} = Call, State)
  when Bytes > Room, (Count > 1 orelse Room =< 0) ->
    _ = causeway_rpc_half:out_of_credit(Stream, Bytes, max(0, Room)),
    refused(Number, Call, State);
data(Number, _Seq, Data, #call{stream = Stream, seq = Next, room = Room} = Call, #state{calls = Calls} = State) ->
    #{bytes := Bytes, count := Count, replies := Replies, items := Items} = Data,
    Stream ! {rpc_chunks, self(), Next, Bytes, Items},
    Later = Call#call{seq = Next + Count, room = Room - Bytes, is_replied = Call#call.is_replied orelse Replies > 0},
    State#state{calls = Calls#{Number := Later}}.

refused(Number, Call, #state{calls = Calls} = State) ->
    State#state{calls = Calls#{Number := Call#call{is_refused = true}}}.

event('end', Map) -> causeway_rpc_frame:role(Map);
event(error, #{<<"code">> := <<"peer_down">>}) -> {lose, {error, peer_down}};
event(error, Map) -> {abort, {error, {maps:get(<<"code">>, Map, <<"error">>), maps:get(<<"message">>, Map, <<>>)}}}.

%% Calls that this side has opened

answer({ok, _Flags, Payload}) ->
    case causeway_rpc_packet:decode(Payload) of
        {ok, #{<<"window">> := Window}} when is_integer(Window), Window > 0 -> {ok, Window};
        {ok, #{<<"error">> := #{<<"code">> := <<"not_found">>}}} -> {error, not_advertised};
        {ok, #{<<"error">> := #{<<"code">> := Code, <<"message">> := Text}}} -> {error, {Code, Text}};
        _Other -> {error, {<<"unavailable">>, <<"the other side has answered what is no answer">>}}
    end;
answer({failed, _Flags, Text}) ->
    {error, {<<"unavailable">>, Text}};
answer({error, Reason}) ->
    {error, {<<"disconnected">>, unicode:characters_to_binary(io_lib:format("~0tp", [Reason]))}}.

opened({ok, Window}, From, Client, #state{calls = Calls, numbers = Numbers} = State) ->
    gen_server:reply(From, ok),
    case Numbers of
        #{Client := Number} ->
            #{Number := Call} = Calls,
            State#state{calls = Calls#{Number := told_of_room(Window, Call)}};
        #{} ->
            State
    end;
opened({error, _} = Error, From, Client, State) ->
    gen_server:reply(From, Error),
    forget(Client, State).

%% Calls that the other side has opened

opened_there({ok, #{<<"procedure">> := _}}, From,
             #state{serve = true, max_calls = Most, theirs = Theirs, handlers = Handlers} = State)
  when Theirs >= Most; map_size(Handlers) >= Most ->
    Text = iolist_to_binary(io_lib:format("~b calls are open over this connection already", [Most])),
    refuse(From, <<"too_many_calls">>, Text, State);
opened_there({ok, #{<<"stream_id">> := Number, <<"procedure">> := Name, <<"window">> := Window} = Map}, From,
             #state{serve = true, calls = Calls, theirs = Theirs, handlers = Handlers} = State)
  when is_integer(Number), Number >= 0, Number =< 16#ffffffff, Number band 1 =:= 0, is_integer(Window), Window > 0,
       not is_map_key(Number, Calls) ->
    Request = #{name => Name, args => maps:get(<<"args">>, Map, nil), deadline => deadline(Map),
                window => min(Window, ?MOST_ROOM), number => Number},
    case causeway_rpc_server:serve_over(self(), Request) of
        {ok, Monitor} ->
            State#state{calls = Calls#{Number => {opening, From, Monitor}}, theirs = Theirs + 1,
                        handlers = Handlers#{Monitor => Number}};
        not_advertised -> refuse(From, <<"not_found">>, <<"nobody has advertised that name">>, State)
    end;
opened_there({ok, #{<<"procedure">> := _}}, From, #state{serve = false} = State) ->
    refuse(From, <<"not_found">>, <<"nothing is served over this connection">>, State);
opened_there(_Other, From, State) ->
    refuse(From, <<"badarg">>, <<"a call is opened with procedure, mode, args, window, and a stream_id that is even and "
                                 "that no other call has">>, State).

%% Its process has ended: it is the call's end where it was not begun.
not_served(Handler, Number, Reason, #state{calls = Calls} = State) ->
    case Calls of
        #{Number := {opening, From, Handler}} ->
            Text = unicode:characters_to_binary(io_lib:format("the handler did not start: ~0tP", [Reason, 20])),
            refuse(From, <<"unavailable">>, Text, remove(Number, State));
        #{Number := {cancelled, Handler}} ->
            remove(Number, State);
        #{} ->
            State
    end.

refuse(From, Code, Text, State) ->
    {ok, Answer} = causeway_rpc_packet:encode(#{error => #{code => Code, message => Text}}),
    ok = causeway_packet_connection:reply(From, {ok, Answer}),
    State.

deadline(#{<<"deadline_ms">> := Time}) when is_integer(Time), Time >= 0, Time < 1 bsl 32 -> Time;
deadline(_Map) -> infinity.
