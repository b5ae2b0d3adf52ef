%% @doc One half of a call that streams: chunks in both directions, each with an end of its own, and one reply.
%%
%% A half is a process, by which it is known. Two of them are joined by {@link pair/2}, or one with a transport by
%% {@link attach_remote/3}. What is sent and received goes straight through the core and not through the processes:
%% these watch the owner and end by themselves when both directions are over, what came is taken, and the reply is
%% settled. For a minute afterwards the functions answer as before, then by `{error, closed}'.
%%
%% Each direction has a window, of 256 KB unless said otherwise: so many bytes wait at most for who receives. Who sends
%% waits for room. On the way to another node there are up to eight windows more. A term counts as much as its external
%% form, and every chunk as 64 bytes at least, as it has a piece of memory of its own. The first is taken however large it
%% is.
%%
%% Chunks that have come are received before the end or an error. An error stays: after {@link abort/3}, or when the
%% other half or its node is gone, {@link recv/1} and {@link await_reply/1} answer it for ever.
%%
%% Any process of the node may use a half, and several at once. Who waits blocks the calling process and no
%% scheduler. Large binaries are passed by reference, smaller ones copied once on each side; to another node
%% all is copied. Time-outs are in milliseconds. A wrong argument raises `function_clause', or `badarg' with a
%% text. `{error, Reason}' is
%%
%% <dl>
%% <dt>`timeout', `would_block'</dt><dd>The time is over; it could not be done at once, and the time was
%% 0.</dd>
%% <dt>`send_closed', `no_peer'</dt><dd>This direction has ended; the half is joined with nothing.</dd>
%% <dt>`closed', `peer_closed', `peer_down'</dt><dd>This half was closed, or ended long ago; the other one
%% was; that is gone with its process.</dd>
%% <dt>`{Code, Text}'</dt><dd>Two binaries: what {@link abort/3} was given, by either side. Codes of ours are
%% `cancelled', `deadline_exceeded', `disconnected' (the node or the connection is gone), `unavailable' (the
%% context of a handler has stopped), `out_of_credit', `out_of_order', `badarg' and `refused' (what the other
%% side sent was against the rules), and of a handler that has failed `error', `throw', `exit' or the class of
%% Python's exception.</dd>
%% <dt>`not_local'</dt><dd>It is a half of another node.</dd>
%% <dt>another term</dt><dd>What {@link set_error/2} was given.</dd>
%% </dl>
-module(causeway_rpc_stream).

-export([start_link/1, start/1, pair/2, attach_remote/3, link_remote/3]).
-export([send/2, send/3, send/4, send_many/2, send_many/3, recv/1, recv/2, recv_many/2, recv_many/3]).
-export([close_send/1, close/1, await_reply/1, await_reply/2, set_reply/2, set_error/2, abort/3, cancel/1, info/1,
         active/2, controlling_process/2]).
-export([deliver_chunk/3, deliver_chunk/4, deliver_end/2, deliver_error/3, deliver_reply/2, deliver_frame/3]).
-export_type([stream/0, stream_id/0, mode/0, role/0, encoding/0, opts/0, item/0, active/0, transport/0, frame_type/0,
              peer/0, info/0]).

-type stream() :: pid().
-type stream_id() :: term().
-type mode() :: server_stream | client_stream | bidi.
%% Who sends a stream: who serves the call, who makes it, or both. Both are told, and either half may send all
%% the same.
-type role() :: client | server.
-type encoding() :: raw | msgpack.
%% Bytes, or a term.
-type opts() :: #{id := stream_id(), role := role(), mode := mode(), owner := pid(), window => pos_integer(),
                  deadline => timeout()}.
%% `id', `role' and `mode' are for frames and {@link info/1}. `owner': with whom the half ends, and who is
%% told what comes. `window': how many bytes may wait to be received, below 2^40, 262,144 by default.
%% `deadline': after so many milliseconds the call is aborted with the code `deadline_exceeded', `infinity' by
%% default.
-type item() :: {chunk, binary()} | {data, term()}.
%% Bytes that were sent, or a term.
-type active() :: true | false | once | pos_integer().
%% See {@link active/2}.
-type transport() :: pid() | module() | {module(), term()}.
%% Who passes frames on: `Module:send_stream_frame(Transport, Type, Map)', where Transport is the module or the second
%% of the pair; a process gets the cast `{send_stream_frame, Type, Map}' of gen_server.
-type frame_type() :: stream_data | stream_end | stream_error | stream_reply.
-type peer() :: undefined | {local, pid()} | {remote, transport(), stream_id()} | {node, pid()}.
-type info() :: #{id := stream_id(), role := role(), mode := mode(), peer := peer(), inbox_size := non_neg_integer(),
                  inbox_bytes := non_neg_integer(), window := pos_integer(), waiters := non_neg_integer(),
                  closed_recv := boolean(), closed_send := boolean(), seq_out := non_neg_integer(),
                  seq_in := non_neg_integer(), reply := undefined | {ok, term()} | {error, term()}}.

-callback send_stream_frame(Transport :: term(), frame_type(), Map :: #{atom() => term()}) -> term().

%% For how many microseconds a sender looks for room before it waits.
-define(PATIENCE, 20).
-define(IS_TIMEOUT(T), (T =:= infinity orelse (is_integer(T) andalso T >= 0))).

%% @doc Starts a half that is joined with nothing yet, linked to the caller. It ends with its owner. `{error,
%% {badkey, Key}}' for an option that is missing, `{error, {badarg, _}}' for a wrong one, `{error,
%% {not_started, _}}' without the application.
-spec start_link(opts()) -> {ok, stream()} | {error, term()}.
start_link(Opts) ->
    start(start_link, Opts).

%% @doc The same without a link.
-spec start(opts()) -> {ok, stream()} | {error, term()}.
start(Opts) ->
    start(start, Opts).

start(How, Opts) ->
    case {[Key || Key <- [id, role, mode, owner], not is_map_key(Key, Opts)], check(Opts)} of
        {[], ok} -> causeway_rpc_half:How(Opts);
        {[], Error} -> Error;
        {[Key | _], _} -> {error, {badkey, Key}}
    end.

check(Opts) ->
    case Opts of
        #{owner := Owner} when not is_pid(Owner) ->
            {error, {badarg, <<"owner must be a process">>}};
        #{window := Window} when not (is_integer(Window) andalso Window > 0 andalso Window < 1 bsl 40) ->
            {error, {badarg, <<"window must be a positive number of bytes">>}};
        #{deadline := Deadline} when not ?IS_TIMEOUT(Deadline) ->
            {error, {badarg, <<"deadline must be a number of milliseconds or infinity">>}};
        #{} ->
            ok
    end.

%% @doc Joins two halves of this node: what one sends the other receives. What they were joined with before is
%% forgotten.
-spec pair(stream(), stream()) -> ok | {error, closed | not_local}.
pair(First, Second) ->
    with(First, fun(A) ->
        with(Second, fun(B) ->
            ok = causeway_nif:rpc_pair(A, B),
            causeway_rpc_streams:set_peer(First, {local, Second}),
            causeway_rpc_streams:set_peer(Second, {local, First})
        end)
    end).

%% @doc Joins a half with one that is reached by frames: what is sent is given to the transport, and what arrives there
%% is to be given to the `deliver_*' functions. Where the transport is a process, its end is that of the other half.
-spec attach_remote(stream(), transport(), stream_id()) -> ok | {error, closed | not_local}.
attach_remote(Stream, Transport, StreamId) ->
    call(Stream, {attach, {transport, Transport, StreamId}, infinity}).

%% @private
%% @doc Joins a half with one on another node, which has room for so many bytes.
-spec link_remote(stream(), pid(), non_neg_integer()) -> ok | {error, closed | not_local}.
link_remote(Stream, Peer, Window) ->
    call(Stream, {attach, {node, Peer}, Window}).

%% Sending

%% @doc Sends bytes. The same as `send(Stream, Bytes, raw)'.
-spec send(stream(), binary()) -> ok | {error, send_closed | no_peer | closed | not_local}.
send(Stream, Bytes) ->
    send(Stream, Bytes, raw).

%% @doc Sends bytes, or a term, which stays what it is inside this node and other nodes. Waits for room.
-spec send(stream(), binary() | term(), encoding()) -> ok | {error, send_closed | no_peer | closed | not_local}.
send(Stream, Bytes, raw) when is_binary(Bytes) ->
    send_chunk(Stream, Bytes, infinity);
send(Stream, Term, msgpack) ->
    send_chunk(Stream, term_chunk(Term), infinity).

%% @doc Sends, and waits at most so many milliseconds for room. Without any, 0 gives `{error, would_block}'. After
%% either error nothing was sent.
-spec send(stream(), binary() | term(), encoding(), timeout()) ->
          ok | {error, timeout | would_block | send_closed | no_peer | closed | not_local}.
send(Stream, Bytes, raw, Timeout) when is_binary(Bytes), ?IS_TIMEOUT(Timeout) ->
    send_chunk(Stream, Bytes, Timeout);
send(Stream, Term, msgpack, Timeout) when ?IS_TIMEOUT(Timeout) ->
    send_chunk(Stream, term_chunk(Term), Timeout).

term_chunk(Term) ->
    {term, erlang:external_size(Term), Term}.

send_chunk(Stream, Chunk, Timeout) ->
    case half(Stream) of
        {error, _} = Error ->
            Error;
        Half ->
            case causeway_nif:rpc_send(Half, Chunk) of
                ok -> ok;
                busy when Timeout =:= 0 -> {error, would_block};
                busy -> send_later(Half, Chunk, Timeout);
                Other -> sending(Other)
            end
    end.

send_later(Half, Chunk, Timeout) ->
    case has_room_soon(Half, Chunk) andalso causeway_nif:rpc_send(Half, Chunk) of
        IsBusy when IsBusy =:= false; IsBusy =:= busy -> sending(wait(Half, {send, Chunk}, Timeout));
        Sent -> sending(Sent)
    end.

%% A receiver that is at work makes room within a few turns of a process: to wait for that and to be woken would cost both
%% more. Where others want to run a turn can be long, and one is enough.
has_room_soon(Half, {term, Size, _Term}) ->
    has_room(Half, Size, erlang:monotonic_time(microsecond) + ?PATIENCE);
has_room_soon(Half, Bytes) ->
    has_room(Half, byte_size(Bytes), erlang:monotonic_time(microsecond) + ?PATIENCE).

has_room(Half, Size, Until) ->
    erlang:yield(),
    causeway_nif:rpc_has_room(Half, Size)
        orelse (erlang:monotonic_time(microsecond) < Until andalso has_room(Half, Size, Until)).

sending(ok) -> ok;
sending(closed) -> {error, send_closed};
sending(no_peer) -> {error, no_peer};
sending(timeout) -> {error, timeout}.

%% @doc Sends many chunks of bytes, much faster than one by one, and waits for room.
-spec send_many(stream(), [binary()]) -> ok | {error, send_closed | no_peer | closed | not_local, Rest :: [binary()]}.
send_many(Stream, Chunks) ->
    send_many(Stream, Chunks, infinity).

%% @doc The same; each chunk waits at most so many milliseconds for room. With an error comes what was not sent.
-spec send_many(stream(), [binary()], timeout()) ->
          ok | {error, timeout | would_block | send_closed | no_peer | closed | not_local, Rest :: [binary()]}.
send_many(Stream, Chunks, Timeout) when is_list(Chunks), ?IS_TIMEOUT(Timeout) ->
    lists:all(fun is_binary/1, Chunks) orelse
        causeway_badarg:raise(?MODULE, send_many, [Stream, Chunks, Timeout], #{2 => <<"is no list of binaries">>}),
    case half(Stream) of
        {error, Reason} -> {error, Reason, Chunks};
        Half -> send_all(Half, Chunks, Timeout)
    end.

send_all(Half, Chunks, Timeout) ->
    case causeway_nif:rpc_send_many(Half, Chunks) of
        {_Sent, ok, []} ->
            ok;
        {_Sent, ok, Rest} ->
            send_all(Half, Rest, Timeout);
        {_Sent, busy, Rest} when Timeout =:= 0 ->
            {error, would_block, Rest};
        {_Sent, busy, [Chunk | Others] = Rest} ->
            case send_later(Half, Chunk, Timeout) of
                ok -> send_all(Half, Others, Timeout);
                {error, Reason} -> {error, Reason, Rest}
            end;
        {_Sent, Other, Rest} ->
            {error, Reason} = sending(Other),
            {error, Reason, Rest}
    end.

%% Receiving

%% @doc Waits for the next chunk: `{chunk, Bytes}', or `{data, Term}' where a term was sent.
-spec recv(stream()) -> item() | eof | {error, term()}.
recv(Stream) ->
    recv(Stream, infinity).

%% @doc The same for at most so many milliseconds, then `{error, timeout}'. Where nothing is there, 0 gives
%% `{error, would_block}'.
%%
%% A chunk that comes when the process has given up, or has died, is the next for somebody else.
-spec recv(stream(), timeout()) -> item() | eof | {error, term()}.
recv(Stream, Timeout) when ?IS_TIMEOUT(Timeout) ->
    case half(Stream) of
        {error, _} = Error ->
            Error;
        Half ->
            case causeway_nif:rpc_receive(Half) of
                empty when Timeout =:= 0 -> {error, would_block};
                empty -> in_time(wait(Half, 'receive', Timeout));
                Received -> Received
            end
    end.

%% @doc Waits for the next chunk, and takes with it those that are there. The same as
%% `recv_many(Stream, MaxBytes, infinity)'.
-spec recv_many(stream(), pos_integer()) -> {ok, [item(), ...]} | eof | {error, term()}.
recv_many(Stream, MaxBytes) ->
    recv_many(Stream, MaxBytes, infinity).

%% @doc Waits for the next chunk, and takes with it those that are there, as many as have so many bytes together but no
%% more than 1,024. The first is taken however large it is. Much faster than one by one for small chunks.
-spec recv_many(stream(), pos_integer(), timeout()) -> {ok, [item(), ...]} | eof | {error, term()}.
recv_many(Stream, MaxBytes, Timeout) when is_integer(MaxBytes), MaxBytes > 0, ?IS_TIMEOUT(Timeout) ->
    case half(Stream) of
        {error, _} = Error ->
            Error;
        Half ->
            case causeway_nif:rpc_receive_many(Half, min(MaxBytes, 1 bsl 59)) of
                empty when Timeout =:= 0 -> {error, would_block};
                empty -> in_list(in_time(wait(Half, 'receive', Timeout)));
                Received -> Received
            end
    end.

in_list({error, _} = Error) -> Error;
in_list(eof) -> eof;
in_list(Item) -> {ok, [Item]}.

in_time(timeout) -> {error, timeout};
in_time(Other) -> Other.

%% The end

%% @doc Sends nothing more. The other half receives what was sent, and then `eof'.
-spec close_send(stream()) -> ok | {error, closed | not_local}.
close_send(Stream) ->
    with(Stream, fun(Half) -> causeway_nif:rpc_end(Half, send) end).

%% @doc Ends both directions. Who waits for a reply gets `{error, closed}', at the other half `{error, peer_closed}'.
-spec close(stream()) -> ok | {error, closed | not_local}.
close(Stream) ->
    ended(Stream, both, both).

%% @doc Ends the call with an error: both halves answer `{error, {Code, Message}}' from now on.
-spec abort(stream(), Code :: binary(), Message :: binary()) -> ok | {error, closed | not_local}.
abort(Stream, Code, Message) when is_binary(Code), is_binary(Message) ->
    ended(Stream, {error, Code, Message}, {abort, {error, {Code, Message}}}).

%% @doc Gives the call up: {@link abort/3} with the code `cancelled', by which who serves it knows.
-spec cancel(stream()) -> ok | {error, closed | not_local}.
cancel(Stream) ->
    abort(Stream, <<"cancelled">>, <<"the call was cancelled">>).

%% The process, where it passes frames on, knows first how it ends.
ended(Stream, Final, How) ->
    with(Stream, fun(Half) ->
        tell_process(Stream, {final, Final}),
        causeway_nif:rpc_end(Half, How)
    end).

%% The reply

%% @doc Waits for the reply. Any number of processes may, and any number of times.
-spec await_reply(stream()) -> {ok, term()} | {error, term()}.
await_reply(Stream) ->
    await_reply(Stream, infinity).

%% @doc The same for at most so many milliseconds, then `{error, timeout}'.
-spec await_reply(stream(), timeout()) -> {ok, term()} | {error, term()}.
await_reply(Stream, Timeout) when ?IS_TIMEOUT(Timeout) ->
    with(Stream, fun(Half) ->
        case causeway_nif:rpc_reply(Half) of
            waiting when Timeout =:= 0 -> {error, timeout};
            waiting -> in_time(wait(Half, reply, Timeout));
            Reply -> Reply
        end
    end).

%% @doc Gives the reply `{ok, Value}', of both halves. Only the first counts. Ends nothing.
-spec set_reply(stream(), term()) -> ok | {error, closed | not_local}.
set_reply(Stream, Value) ->
    give_reply(Stream, {ok, Value}).

%% @doc Gives the reply `{error, Reason}'.
-spec set_error(stream(), term()) -> ok | {error, closed | not_local}.
set_error(Stream, Reason) ->
    give_reply(Stream, {error, Reason}).

give_reply(Stream, Reply) ->
    with(Stream, fun(Half) ->
        ok = causeway_nif:rpc_set_reply(Half, Reply),
        tell_process(Stream, replied)
    end).

%% The process, where it passes frames on, is to look again.
tell_process(Stream, What) ->
    case causeway_rpc_streams:peer(Stream) of
        {Kind, _} when Kind =/= node -> ok;
        undefined -> ok;
        _Remote -> gen_server:cast(Stream, What)
    end.

%% Others

%% @doc How a half stands: chunks and bytes that have come and were not taken, the window in bytes, who waits
%% for them, which directions are closed, the numbers of the next chunks, and the reply.
-spec info(stream()) -> info() | {error, closed | not_local}.
info(Stream) ->
    with(Stream, fun(Half) ->
        maps:merge(causeway_nif:rpc_info(Half), causeway_rpc_streams:facts(Stream))
    end).

%% @doc Has the owner told what comes by `{rpc, Stream, {chunk, _} | {data, _} | eof | {reply, _} | {error, _}}': of so many
%% chunks, of one (`once'), of all (`true'), or of none (`false'). After the last of a number comes
%% `{rpc, Stream, passive}'. A number is added to what is left of the one before.
-spec active(stream(), active()) -> ok | {error, closed | not_local}.
active(Stream, Active) when is_boolean(Active); Active =:= once; is_integer(Active), Active > 0 ->
    call(Stream, {active, Active}).

%% @doc Makes another process the owner, with which the stream ends from now on, and which is told what comes.
%% Any process may do that; links stay as they are.
-spec controlling_process(stream(), pid()) -> ok | {error, closed | not_local}.
controlling_process(Stream, Owner) when is_pid(Owner) ->
    call(Stream, {owner, Owner}).

%% What a transport calls

%% @doc A chunk has come. `raw' gives `{chunk, Body}', `msgpack' `{data, Body}', any other encoding
%% `{data, {Encoding, Body}}'.
-spec deliver_chunk(stream(), encoding() | term(), term()) -> ok.
deliver_chunk(Stream, raw, Body) when is_binary(Body) ->
    delivered(Stream, fun(Half) -> causeway_nif:rpc_deliver(Half, Body) end);
deliver_chunk(Stream, msgpack, Body) ->
    delivered(Stream, fun(Half) -> causeway_nif:rpc_deliver(Half, term_chunk(Body)) end);
deliver_chunk(Stream, Encoding, Body) ->
    deliver_chunk(Stream, msgpack, {Encoding, Body}).

%% @doc The same where the transport knows the number of the chunk: one that is not the next ends the call with the code
%% `out_of_order'.
-spec deliver_chunk(stream(), encoding() | term(), term(), Seq :: non_neg_integer()) -> ok.
deliver_chunk(Stream, Encoding, Body, Seq) ->
    case info(Stream) of
        #{seq_in := Seq} -> deliver_chunk(Stream, Encoding, Body);
        #{closed_recv := true} -> ok;
        #{seq_in := Next} -> _ = causeway_rpc_half:out_of_order(Stream, Seq, Next), ok;
        {error, _} -> ok
    end.

%% @doc The other half sends nothing more (`send'), or is closed (`both').
-spec deliver_end(stream(), send | both) -> ok.
deliver_end(Stream, Role) when Role =:= send; Role =:= both ->
    delivered(Stream, fun(Half) -> causeway_nif:rpc_event(Half, Role) end).

%% @doc The other half has ended the call with an error.
-spec deliver_error(stream(), Code :: binary(), Message :: binary()) -> ok.
deliver_error(Stream, Code, Message) ->
    delivered(Stream, fun(Half) -> causeway_nif:rpc_event(Half, {abort, {error, {Code, Message}}}) end).

%% @doc The reply has come. It takes the place of an earlier one.
-spec deliver_reply(stream(), {ok, term()} | {error, term()}) -> ok.
deliver_reply(Stream, {Result, _} = Reply) when Result =:= ok; Result =:= error ->
    delivered(Stream, fun(Half) -> causeway_nif:rpc_event(Half, {reply, Reply}) end).

%% @doc A frame has come, as {@link causeway_rpc_frame:decode/1} gives it: one function in the place of the others. What
%% is missing in it has its default, and the number of a chunk is checked.
-spec deliver_frame(stream(), frame_type(), #{binary() => term()}) -> ok.
deliver_frame(Stream, stream_data, #{<<"seq">> := Seq} = Map) ->
    {Encoding, Body} = causeway_rpc_frame:chunk(Map),
    deliver_chunk(Stream, Encoding, Body, Seq);
deliver_frame(Stream, stream_data, Map) ->
    {Encoding, Body} = causeway_rpc_frame:chunk(Map),
    deliver_chunk(Stream, Encoding, Body);
deliver_frame(Stream, stream_end, Map) ->
    deliver_end(Stream, causeway_rpc_frame:role(Map));
deliver_frame(Stream, stream_error, Map) ->
    deliver_error(Stream, maps:get(<<"code">>, Map, <<"error">>), maps:get(<<"message">>, Map, <<>>));
deliver_frame(Stream, stream_reply, #{<<"error">> := Error}) when Error =/= nil ->
    deliver_reply(Stream, {error, Error});
deliver_frame(Stream, stream_reply, Map) ->
    deliver_reply(Stream, {ok, maps:get(<<"result">>, Map, nil)}).

delivered(Stream, Deliver) ->
    case half(Stream) of
        {error, _} -> ok;
        Half -> ok = Deliver(Half)
    end.

%% Between the functions and the core

half(Stream) ->
    case causeway_rpc_streams:half(Stream) of
        undefined when node(Stream) =/= node() -> {error, not_local};
        undefined -> {error, closed};
        Half -> Half
    end.

with(Stream, Do) ->
    case half(Stream) of
        {error, _} = Error -> Error;
        Half -> Do(Half)
    end.

call(Stream, Request) ->
    with(Stream, fun(_Half) ->
        try
            gen_server:call(Stream, Request, infinity)
        catch
            exit:_ -> {error, closed}
        end
    end).

%% What came for a process that is gone is the next again: the core holds it by a term of this process.
wait(Half, What, Timeout) ->
    Tag = make_ref(),
    case causeway_nif:rpc_wait(Half, What, Tag) of
        Waiter when is_reference(Waiter) ->
            receive
                Tag when is_reference(Waiter), is_reference(Half) -> causeway_nif:rpc_finish(Waiter)
            after Timeout ->
                case causeway_nif:rpc_finish(Waiter) of
                    waiting when is_reference(Half) ->
                        timeout;
                    Outcome ->
                        receive Tag -> ok end,
                        Outcome
                end
            end;
        Outcome ->
            Outcome
    end.
