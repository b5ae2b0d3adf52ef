%% @private
%% @doc How one half of a streaming call reaches the other where that is not in this node's core: by messages of processes,
%% on another node or of a connection, or by the frames of a transport.
%%
%% Between processes, `{rpc_chunks, From, Seq, Bytes, Items}' brings chunks and replies, `{rpc_credit, From, Bytes}' room
%% for more, and `{rpc_event, From, Event}' an end.
-module(causeway_rpc_link).

-export([room/1, new/3, forget/1, final/3, late/2, handle/3, is_ended/1]).
-export_type([link/0]).

-define(WINDOW, 262144).
-define(PASSED_ON_AT_ONCE, 262144).
%% How many windows may be on the way to elsewhere, and wait to be. With one, who sends would be woken for every few
%% chunks: large ones came half as fast.
-define(ON_THE_WAY, 4).

%% Where chunks that are sent go to, of a half that has an outbox.
-record(link, {to :: target(),
               monitor :: reference() | undefined,
               seq = 0 :: non_neg_integer(),
               seq_in = 0 :: non_neg_integer(),
               %% How many bytes the other process has room for.
               credit = infinity :: integer() | infinity,
               waiter :: reference() | undefined,
               %% What is told when all is passed on.
               final = send :: final(),
               is_ended = false :: boolean(),
               %% Whether the other half has ended: it gives no room any more.
               has_left = false :: boolean(),
               %% What has come from the other process and does not fit yet.
               pending = queue:new() :: queue:queue(),
               accepting :: undefined | {Waiter :: reference(), causeway_nif:chunk()}}).

-opaque link() :: #link{}.
-type target() :: {transport, causeway_rpc_stream:transport(), causeway_rpc_stream:stream_id()} | {node, pid()}.
-type final() :: send | both | {error, binary(), binary()}.

%% @doc How many bytes whoever is elsewhere may send where so many may wait to be received.
-spec room(non_neg_integer()) -> non_neg_integer().
room(Window) -> ?ON_THE_WAY * Window.

%% @doc Has what is sent go to somebody, who has room for so many bytes.
-spec new(reference(), target(), non_neg_integer() | infinity) -> link() | undefined.
new(Half, To, Window) ->
    {Outbox, Credit} = budget(Window),
    ok = causeway_nif:rpc_attach(Half, Outbox),
    causeway_rpc_streams:set_peer(self(), peer_of(To)),
    pass_on(Half, #link{to = To, monitor = watch(To), credit = Credit}).

budget(infinity) -> {?WINDOW, infinity};
budget(Window) -> {room(?WINDOW), room(Window)}.

peer_of({transport, Transport, StreamId}) -> {remote, Transport, StreamId};
peer_of({node, Peer}) -> {node, Peer}.

watch({transport, Process, _StreamId}) when is_pid(Process) -> monitor(process, Process);
watch({transport, {_Module, Process}, _StreamId}) when is_pid(Process) -> monitor(process, Process);
watch({transport, _Module, _StreamId}) -> undefined;
watch({node, Process}) -> monitor(process, Process).

%% @doc Somebody else takes its place.
-spec forget(link() | undefined) -> ok.
forget(#link{monitor = Monitor}) when is_reference(Monitor) ->
    true = demonitor(Monitor, [flush]),
    ok;
forget(_None) ->
    ok.

%% @doc Whether all that was sent is passed on, and the end told.
-spec is_ended(link()) -> boolean().
is_ended(#link{is_ended = IsEnded}) -> IsEnded.

%% @doc How it is about to end.
-spec final(reference(), link(), final()) -> link().
final(_Half, #link{final = {error, _, _}} = Link, _Final) ->
    %% The first error stays.
    Link;
final(Half, #link{is_ended = false} = Link, Final) ->
    pass_on(Half, Link#link{final = Final});
final(_Half, Link, Final) when Final =/= send ->
    %% Every close is told, and an error after the end of what was sent.
    tell_end(Link, Final),
    Link#link{final = Final};
final(_Half, Link, _Final) ->
    Link.

%% @doc Passes on what was given after the end: a reply.
-spec late(reference(), link()) -> link().
late(Half, #link{is_ended = true} = Link) ->
    case causeway_nif:rpc_outbox(Half, ?PASSED_ON_AT_ONCE) of
        {ok, Bytes, Items} -> late(Half, emit(Link, Bytes, Items));
        _Nothing -> Link
    end;
late(_Half, Link) ->
    Link.

%% @doc A message has come. Without a link the other half is gone.
-spec handle(term(), reference(), link()) -> link() | undefined.
handle({rpc_chunks, Peer, Seq, Bytes, Items}, Half, #link{to = {node, Peer}, seq_in = Seq} = Link) ->
    Next = Seq + length([Item || Item <- Items, not is_reply(Item)]),
    Pending = queue:in({chunks, Bytes, Items}, Link#link.pending),
    accept(Half, Link#link{seq_in = Next, pending = Pending});
handle({rpc_chunks, Peer, Seq, _Bytes, _Items}, _Half, #link{to = {node, Peer}, seq_in = Next} = Link) ->
    _ = causeway_rpc_half:out_of_order(self(), Seq, Next),
    Link;
handle({rpc_event, Peer, {_Ended, _Reason} = Event}, Half, #link{to = {node, Peer}} = Link) ->
    %% An error waits for nobody who does not receive, but comes after the chunks.
    ok = flush_all(Half, Link),
    ok = causeway_nif:rpc_event(Half, Event),
    left(Half, Event, Link#link{accepting = undefined, pending = queue:new()});
handle({rpc_event, Peer, Event}, Half, #link{to = {node, Peer}} = Link) ->
    Pending = queue:in({event, Event}, Link#link.pending),
    accept(Half, Link#link{pending = Pending});
handle({rpc_credit, Peer, Bytes}, Half, #link{to = {node, Peer}} = Link) ->
    pass_on(Half, Link#link{credit = Link#link.credit + Bytes});
handle(pass_on, Half, Link) ->
    pass_on(Half, Link#link{waiter = undefined});
handle(accept, Half, #link{accepting = {Waiter, _Chunk}} = Link) ->
    %% It is in the inbox now, or nothing more is received.
    _ = causeway_nif:rpc_finish(Waiter),
    accept(Half, Link#link{accepting = undefined});
handle({'DOWN', Monitor, process, _Peer, Reason}, Half, #link{monitor = Monitor} = Link) ->
    %% What has come is received before the error, though there was no room for it.
    ok = flush_all(Half, Link),
    ok = causeway_nif:rpc_event(Half, {lose, {error, loss(Link, Reason)}}),
    causeway_rpc_streams:set_peer(self(), undefined),
    undefined;
handle(_Other, _Half, Link) ->
    Link.

loss(#link{to = {node, Peer}}, noconnection) ->
    {<<"disconnected">>, iolist_to_binary(io_lib:format("the node ~ts is gone", [node(Peer)]))};
loss(_Link, {shutdown, {disconnected, Text}}) ->
    {<<"disconnected">>, Text};
loss(#link{to = {node, Peer}}, _Reason) when node(Peer) =:= node() ->
    {<<"disconnected">>, <<"the connection is gone">>};
loss(_Link, _Reason) ->
    peer_down.

%% What is sent

pass_on(_Half, #link{is_ended = true} = Link) ->
    Link;
pass_on(Half, #link{waiter = undefined} = Link) ->
    case take(Half, Link) of
        {ok, Bytes, Items} ->
            pass_on(Half, emit(Link, Bytes, Items));
        empty ->
            case causeway_nif:rpc_wait(Half, outbox, pass_on) of
                Waiter when is_reference(Waiter) -> Link#link{waiter = Waiter};
                _Ready -> pass_on(Half, Link)
            end;
        no_credit ->
            Link;
        Ended when Ended =:= closed; Ended =:= aborted ->
            tell_end(Link, said(Link#link.final)),
            Link#link{is_ended = true}
    end;
pass_on(Half, #link{final = {error, _, _}, waiter = Waiter} = Link) when is_reference(Waiter) ->
    pass_on(Half, Link#link{waiter = undefined});
pass_on(_Half, Link) ->
    Link.

%% Who has ended it has said before how, which may be in the mailbox still.
said({error, _, _} = Final) ->
    Final;
said(Final) ->
    receive {'$gen_cast', {final, Said}} -> Said after 0 -> Final end.

%% An error does not wait for who does not receive.
take(_Half, #link{credit = Credit, final = {error, _, _}}) when Credit =< 0 -> aborted;
take(_Half, #link{credit = Credit, has_left = true}) when Credit =< 0 -> aborted;
take(_Half, #link{credit = Credit}) when Credit =< 0 -> no_credit;
take(Half, #link{credit = Credit}) -> causeway_nif:rpc_outbox(Half, min(Credit, ?PASSED_ON_AT_ONCE)).

emit(#link{to = {node, Peer}, seq = Seq, credit = Credit} = Link, Bytes, Items) ->
    Peer ! {rpc_chunks, self(), Seq, Bytes, Items},
    Link#link{seq = Seq + length([Item || Item <- Items, not is_reply(Item)]), credit = Credit - Bytes};
emit(#link{to = {transport, Transport, Id}, seq = Seq} = Link, _Bytes, Items) ->
    Link#link{seq = lists:foldl(fun(Item, Number) -> frame(Transport, Id, Number, Item) end, Seq, Items)}.

is_reply({reply, _}) -> true;
is_reply(_Chunk) -> false.

frame(Transport, Id, Seq, {reply, {ok, Value}}) ->
    give(Transport, stream_reply, #{stream_id => Id, result => Value}),
    Seq;
frame(Transport, Id, Seq, {reply, {error, Reason}}) ->
    give(Transport, stream_reply, #{stream_id => Id, error => causeway_rpc_frame:error_map(Reason)}),
    Seq;
frame(Transport, Id, Seq, {term, _Size, Term}) ->
    give(Transport, stream_data, #{stream_id => Id, seq => Seq, encoding => msgpack, body => Term}),
    Seq + 1;
frame(Transport, Id, Seq, Bytes) ->
    give(Transport, stream_data, #{stream_id => Id, seq => Seq, encoding => raw, body => Bytes}),
    Seq + 1.

tell_end(#link{to = {node, Peer}}, {error, Code, Message}) ->
    Peer ! {rpc_event, self(), {abort, {error, {Code, Message}}}};
tell_end(#link{to = {node, Peer}}, Role) ->
    Peer ! {rpc_event, self(), Role};
tell_end(#link{to = {transport, Transport, Id}}, {error, Code, Message}) ->
    give(Transport, stream_error, #{stream_id => Id, code => Code, message => Message});
tell_end(#link{to = {transport, Transport, Id}}, Role) ->
    give(Transport, stream_end, #{stream_id => Id, role => Role}).

give(Process, Type, Map) when is_pid(Process) -> gen_server:cast(Process, {send_stream_frame, Type, Map});
give({Module, Transport}, Type, Map) -> Module:send_stream_frame(Transport, Type, Map);
give(Module, Type, Map) -> Module:send_stream_frame(Module, Type, Map).

%% What comes from another process: it is given room again when there is room for it here.

accept(Half, #link{accepting = undefined} = Link) ->
    case queue:out(Link#link.pending) of
        {empty, _} ->
            Link;
        {{value, {event, Event}}, Pending} ->
            ok = causeway_nif:rpc_event(Half, Event),
            accept(Half, left(Half, Event, Link#link{pending = Pending}));
        {{value, Next}, Pending} ->
            Rest = accept(Half, Link, Next),
            accept(Half, waiting(Rest, Link#link{pending = Pending}))
    end;
accept(_Half, Link) ->
    Link.

left(_Half, send, Link) -> Link;
left(Half, _Last, Link) -> pass_on(Half, Link#link{has_left = true}).

waiting(done, Link) -> Link;
waiting({Waiting, Rest}, #link{pending = Pending} = Link) ->
    Link#link{accepting = Waiting, pending = queue:in_r(Rest, Pending)}.

accept(_Half, #link{to = {node, Peer}}, {chunks, Bytes, []}) ->
    Peer ! {rpc_credit, self(), Bytes},
    done;
accept(Half, Link, {chunks, Bytes, [{reply, _} = Reply | Items]}) ->
    ok = causeway_nif:rpc_event(Half, Reply),
    accept(Half, Link, {chunks, Bytes, Items});
accept(Half, Link, {chunks, Bytes, Items}) ->
    {Chunks, Others} = lists:splitwith(fun(Item) -> not is_reply(Item) end, Items),
    case causeway_nif:rpc_deliver_many(Half, Chunks) of
        {_Delivered, ok, Rest} ->
            accept(Half, Link, {chunks, Bytes, Rest ++ Others});
        {_Delivered, closed, _Dropped} ->
            accept(Half, Link, {chunks, Bytes, Others});
        {_Delivered, busy, [Chunk | Rest]} ->
            case causeway_nif:rpc_wait(Half, {deliver, Chunk}, accept) of
                Waiter when is_reference(Waiter) -> {{Waiter, Chunk}, {chunks, Bytes, Rest ++ Others}};
                _Settled -> accept(Half, Link, {chunks, Bytes, Rest ++ Others})
            end
    end.

flush_all(Half, #link{accepting = Accepting, pending = Pending}) ->
    _ = flush_waiting(Half, Accepting),
    flush(Half, queue:to_list(Pending)).

flush_waiting(_Half, undefined) ->
    ok;
flush_waiting(Half, {Waiter, Chunk}) ->
    case causeway_nif:rpc_finish(Waiter) of
        waiting -> causeway_nif:rpc_deliver(Half, Chunk);
        _Delivered -> ok
    end.

flush(Half, Pending) ->
    lists:foreach(fun({event, Event}) -> causeway_nif:rpc_event(Half, Event);
                     ({chunks, _Bytes, Items}) ->
                          lists:foreach(fun({reply, _} = Reply) -> causeway_nif:rpc_event(Half, Reply);
                                           (Chunk) -> causeway_nif:rpc_deliver(Half, Chunk)
                                        end, Items)
                  end, Pending).
