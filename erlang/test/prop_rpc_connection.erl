%% @doc The two halves of a call at the two ends of a packet connection, over a real socket, against a model of what each may
%% get. Chunks, ends, errors, replies, the taking that gives credit, and the death of a half or of the connection come in any
%% order.
%%
%% What one half does the other hears of later. So the model knows what must come, chunks in their order, and what may have
%% come by now: which ends, and which replies.
-module(prop_rpc_connection).

-export([prop_connection/0]).

-include_lib("proper/include/proper.hrl").

-define(S, causeway_rpc_stream).
-define(TIME, 5000).
%% What waits to be passed on, at most, and the largest chunk.
-define(OUTBOX, 1048576).
-define(LARGEST, 300000).

%% One half: `coming' are the chunks that the other has sent; whether all of them must come, and what may come after them;
%% the error that has come, which stays; the replies that there may be.
-record(half, {stream, out = open :: open | closed | unknown, coming = [], all = true, ends = [], error = none,
               replies = [], replied = none}).

%% The larger window of the two, and the smaller.
-record(state, {window, smaller, connections, a = #half{}, b = #half{}}).

%% @doc The property.
-spec prop_connection() -> proper:test().
prop_connection() ->
    ?FORALL({Window, Operations}, {oneof([64, 1000, 20000, 262144]), list({oneof([a, b]), operation()})},
            begin
                Start = start(Window),
                {Last, Result} = run(Operations, Start),
                Whole = case Result of
                    ok -> finish(Last);
                    _ -> Result
                end,
                stop(Start),
                ?WHENFAIL(io:format("~nresult: ~0tP~nstate: ~0tP~n", [Whole, 60, short(Last), 200]),
                          proper:aggregate([element(1, Operation) || {_, Operation} <- Operations], Whole =:= ok))
            end).

operation() ->
    frequency([{10, {send, oneof([0, 1, 63, 64, 65, 1000, 16384, 70000, ?LARGEST])}},
               {8, {recv, none}},
               {2, {recv_many, range(1, 200000)}},
               {2, {close_send, none}},
               {1, {close, none}},
               {1, {abort, none}},
               {2, {set_reply, byte()}},
               {2, {await_reply, none}},
               {1, {kill, none}},
               {1, {disconnect, none}}]).

%% Chunks are long.
short(#state{a = A, b = B} = S) -> S#state{a = short(A), b = short(B)};
short(#half{coming = Coming} = Half) -> Half#half{coming = [byte_size(Chunk) || Chunk <- Coming]}.

start(Window) ->
    process_flag(trap_exit, true),
    {One, Two} = rpc_peer:sockets(),
    {ok, Connection} = causeway_rpc:connect(One),
    {ok, Other} = causeway_rpc:connect(Two),
    ok = rpc_peer:serve_held(<<"prop">>),
    {ok, Client} = causeway_rpc:open_stream(<<"prop">>, nil, #{connection => Connection, window => Window}),
    Server = receive {handler, _, Stream} -> Stream after ?TIME -> error(no_handler) end,
    #state{window = max(Window, 262144), smaller = min(Window, 262144), connections = [Connection, Other],
           a = #half{stream = Client},
           b = #half{stream = Server}}.

stop(#state{connections = Connections, a = #half{stream = Client}, b = #half{stream = Server}}) ->
    [ok = causeway_rpc_connection:close(Connection) || Connection <- Connections],
    [exit(Stream, kill) || Stream <- [Client, Server]],
    causeway_ct:wait_until(fun() -> not lists:any(fun is_process_alive/1, [Client, Server | Connections]) end),
    rpc_peer:flush().

run([], S) ->
    {S, ok};
run([{Name, {What, Argument}} | Rest], S) ->
    case do(What, Argument, half(Name, S), half(other(Name), S), S) of
        {wrong, Result} -> {S, {Name, What, Argument, Result}};
        {Half, Other} -> run(Rest, set(Name, Half, set(other(Name), Other, S)))
    end.

other(a) -> b;
other(b) -> a.

half(a, S) -> S#state.a;
half(b, S) -> S#state.b.

set(a, Half, S) -> S#state{a = Half};
set(b, Half, S) -> S#state{b = Half}.

%% What is done, and what may come of it: both halves afterwards.

do(send, Size, #half{stream = Stream, out = Out} = Half, #half{coming = Coming} = Other, S) ->
    Chunk = binary:copy(<<(length(Coming))>>, Size),
    Waiting = weight(Coming),
    Time = case Waiting + weight([Chunk]) =< ?OUTBOX of
        true -> ?TIME;
        false -> 0
    end,
    case {?S:send(Stream, Chunk, raw, Time), Out} of
        {ok, _} when Out =/= closed, Waiting =< ?OUTBOX + 10 * S#state.window + 3 * ?LARGEST ->
            {Half, Other#half{coming = Coming ++ [Chunk]}};
        {{error, would_block}, _} when Out =/= closed, Time =:= 0 -> {Half, Other};
        {{error, Closed}, _} when Out =/= open, Closed =:= send_closed orelse Closed =:= closed -> {Half#half{out = closed}, Other};
        {Result, _} -> {wrong, {Result, Out, Waiting}}
    end;
do(recv, _, #half{stream = Stream} = Half, Other, _S) ->
    received(?S:recv(Stream, patience(Half)), Half, Other);
do(recv_many, Bytes, #half{stream = Stream} = Half, Other, _S) ->
    case ?S:recv_many(Stream, Bytes, patience(Half)) of
        {ok, Items} -> all_received(Items, Half, Other);
        Result -> received(Result, Half, Other)
    end;
do(close_send, _, #half{stream = Stream} = Half, Other, _S) ->
    ok = ?S:close_send(Stream),
    {Half#half{out = closed}, ends_as([eof || Half#half.out =/= closed], Other)};
do(close, _, #half{stream = Stream} = Half, Other, _S) ->
    ok = ?S:close(Stream),
    {replied({error, closed}, ends_as([eof], Half#half{out = closed, all = false})),
     replied({error, peer_closed}, ends_as([eof], unknown(Other)))};
do(abort, _, #half{stream = Stream} = Half, Other, _S) ->
    Error = {error, {<<"c">>, <<"m">>}},
    ok = ?S:abort(Stream, <<"c">>, <<"m">>),
    {replied(Error, ends_as([Error], Half#half{out = closed, all = false})),
     replied(Error, ends_as([Error], unknown(Other#half{all = false})))};
do(set_reply, Value, #half{stream = Stream} = Half, Other, _S) ->
    ok = ?S:set_reply(Stream, Value),
    {replied({ok, Value}, Half), replied({ok, Value}, Other)};
do(await_reply, _, #half{stream = Stream, replies = Replies} = Half, Other, S) ->
    %% A reply comes after the chunks that were sent before it, for which there must be room.
    MustCome = Replies =/= [] andalso weight(Half#half.coming) =< S#state.smaller,
    Reply = ?S:await_reply(Stream, if MustCome -> ?TIME; true -> 0 end),
    case lists:member(Reply, Replies) orelse is_lost(Reply, Replies) orelse (Reply =:= {error, timeout} andalso not MustCome) of
        true -> {Half, Other};
        false -> {wrong, {Reply, Replies}}
    end;
do(kill, _, #half{stream = Stream} = Half, Other, _S) ->
    exit(Stream, kill),
    causeway_ct:wait_until(fun() -> maps:get(closed_send, ?S:info(Stream)) end),
    Closed = {error, closed},
    Down = {error, peer_down},
    {replied(Closed, ends_as([Closed], Half#half{out = closed, all = false})),
     replied(Down, ends_as([Down], unknown(Other#half{all = false})))};
do(disconnect, _, Half, Other, #state{connections = [Connection | _]}) ->
    ok = causeway_rpc_connection:close(Connection),
    [Own, Others] = [replied(disconnected, ends_as([disconnected], unknown(Each#half{all = false}))) || Each <- [Half, Other]],
    {Own, Others}.

unknown(#half{out = open} = Half) -> Half#half{out = unknown};
unknown(Half) -> Half.

ends_as(Ends, #half{ends = Before} = Half) -> Half#half{ends = lists:usort(Ends ++ Before)}.

replied(Reply, #half{replies = Before} = Half) -> Half#half{replies = lists:usort([Reply | Before])}.

%% For what must come it is waited.
patience(#half{coming = [], ends = []}) -> 0;
patience(_Half) -> ?TIME.

received({chunk, Chunk}, #half{coming = [Chunk | Rest], error = none} = Half, Other) ->
    {Half#half{coming = Rest}, Other};
received({error, would_block}, #half{coming = [], ends = []} = Half, Other) ->
    {Half, Other};
received(eof, #half{coming = Coming, all = All, ends = Ends, error = none} = Half, Other) when Coming =:= []; not All ->
    may(lists:member(eof, Ends), eof, Half, Other);
received({error, _} = Error, #half{all = false, ends = Ends, error = none} = Half, Other) ->
    may(lists:member(Error, Ends) orelse is_lost(Error, Ends), Error, Half#half{error = Error}, Other);
received(Error, #half{error = Error} = Half, Other) ->
    {Half, Other};
received(Result, #half{error = Error} = Half, _Other) ->
    {wrong, {Result, Error, Half#half.all, Half#half.ends, length(Half#half.coming)}}.

may(true, _Result, Half, Other) -> {Half, Other};
may(false, Result, Half, _Other) -> {wrong, {Result, Half#half.ends}}.

is_lost({error, {<<"disconnected">>, _}}, Outcomes) -> lists:member(disconnected, Outcomes);
is_lost(_Other, _Outcomes) -> false.

all_received([], Half, Other) -> {Half, Other};
all_received([Item | Rest], Half, Other) ->
    case received(Item, Half, Other) of
        {wrong, _} = Wrong -> Wrong;
        {Later, _} -> all_received(Rest, Later, Other)
    end.

%% Of a chunk as of each that waits.
weight(Chunks) -> lists:sum([max(64, byte_size(Chunk)) || Chunk <- Chunks]).

%% All that must come comes.
finish(#state{a = A, b = B} = S) ->
    case drained(A, B, S) of
        ok -> drained(B, A, S);
        Wrong -> Wrong
    end.

drained(#half{} = Half, Other, S) ->
    case do(recv, none, Half, Other, S) of
        {wrong, Result} -> {drained, Result};
        {#half{coming = Rest} = Later, _} when length(Rest) < length(Half#half.coming) -> drained(Later, Other, S);
        _AtTheEnd -> ok
    end.
