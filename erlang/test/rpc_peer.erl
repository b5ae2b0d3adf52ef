%% @doc A bare packet connection as the peer of a connection of streaming calls, which may do what it may not.
-module(rpc_peer).

-export([connect/0, connect/1, close/1, flush/0, sockets/0, serve_held/1, serve_nothing/0, open/1, open/3, opening/3, data/3, send/4, frame/3, error_frame/0,
         all_of/1]).

-define(R, causeway_rpc).
-define(S, causeway_rpc_stream).
-define(OPEN, 16#27).
-define(DATA, 16#28).
-define(ERROR, 16#2a).

-type ends() :: {Connection :: pid(), Peer :: pid()}.

%% @doc The same as `connect(#{})'.
-spec connect() -> ends().
connect() -> connect(#{}).

%% @doc A connection, and the peer. The caller gets `{opened, Payload, From}' of a call that it opens, and `{frame, Type,
%% Payload}' of all else, which is answered at once but for types of `noreply'.
-spec connect(map()) -> ends().
connect(Options) ->
    {One, Two} = sockets(),
    {ok, Connection} = ?R:connect(One, maps:without([noreply], Options)),
    Test = self(),
    Unanswered = maps:get(noreply, Options, []),
    Handler = fun(?OPEN, _, Payload, From) ->
                      Test ! {opened, Payload, From},
                      noreply;
                 (Type, _, Payload, From) ->
                      case lists:member(Type, Unanswered) of
                          true ->
                              Test ! {frame, Type, Payload, From},
                              noreply;
                          false ->
                              Test ! {frame, Type, Payload},
                              ok
                      end
              end,
    {ok, Peer} = causeway_packet_connection:start_link(Two, #{handler => Handler, workers => 0}),
    {Connection, Peer}.

%% @doc Closes the peer, and waits until the connection has ended.
-spec close(ends()) -> ok.
close({Connection, Peer}) ->
    ok = causeway_packet_connection:close(Peer),
    causeway_ct:wait_until(fun() -> not is_process_alive(Connection) end),
    flush().

%% @doc Empties the mailbox.
-spec flush() -> ok.
flush() -> receive _ -> flush() after 0 -> ok end.

%% @doc Two connected sockets.
-spec sockets() -> {gen_tcp:socket(), gen_tcp:socket()}.
sockets() ->
    {ok, Listener} = gen_tcp:listen(0, [binary, {active, false}, {nodelay, true}, {ip, {127, 0, 0, 1}}]),
    {ok, Number} = inet:port(Listener),
    {ok, One} = gen_tcp:connect({127, 0, 0, 1}, Number, [binary, {active, false}, {nodelay, true}]),
    {ok, Two} = gen_tcp:accept(Listener),
    ok = gen_tcp:close(Listener),
    {One, Two}.

%% @doc Serves a name by processes that tell the caller `{handler, Process, Stream}', do what they are told, `{go, Fun}', and
%% end with the caller.
-spec serve_held(term()) -> ok.
serve_held(Name) ->
    Test = self(),
    ?R:advertise(Name, bidi, fun(Stream, _) ->
        Monitor = monitor(process, Test),
        Test ! {handler, self(), Stream},
        receive
            {go, Do} -> Do(Stream);
            {'DOWN', Monitor, process, _, _} -> ok
        end
    end).

%% @doc Opens a call that is served here, whose handler is told what to do. Gives how much room it has.
-spec open(pid()) -> {Handler :: pid(), causeway_rpc_stream:stream(), Room :: pos_integer()}.
open(Peer) ->
    ok = serve_held(<<"held">>),
    #{<<"window">> := Room} = open(Peer, 0, 1000),
    receive {handler, Handler, Stream} -> {Handler, Stream, Room} end.

%% @doc Opens a call of a number. Gives the answer.
-spec open(pid(), term(), term()) -> map().
open(Peer, Number, Window) ->
    {ok, 0, Answer} = causeway_packet_connection:request(Peer, ?OPEN, opening(<<"held">>, Number, Window)),
    {ok, Map} = causeway_cbor:decode(Answer),
    Map.

%% @doc What opens a call.
-spec opening(term(), term(), term()) -> binary().
opening(Name, Number, Window) ->
    {ok, Opening} = causeway_cbor:encode(#{stream_id => Number, procedure => Name, mode => bidi, args => nil, window => Window}),
    Opening.

%% @doc Chunks, behind the number of the call and that of the first.
-spec data(non_neg_integer(), non_neg_integer(), [binary()]) -> iolist().
data(Number, Seq, Chunks) ->
    [<<Number:32, Seq:32>> | [[<<0, (max(64, byte_size(Chunk))):32, (byte_size(Chunk)):32>>, Chunk] || Chunk <- Chunks]].

%% @doc Sends them.
-spec send(pid(), non_neg_integer(), non_neg_integer(), [binary()]) -> causeway_packet_connection:result().
send(Peer, Number, Seq, Chunks) -> causeway_packet_connection:request(Peer, ?DATA, data(Number, Seq, Chunks)).

%% @doc Sends a frame whose payload is a map.
-spec frame(pid(), byte(), map()) -> causeway_packet_connection:result().
frame(Peer, Type, Map) ->
    {ok, Payload} = causeway_cbor:encode(Map),
    causeway_packet_connection:request(Peer, Type, Payload).

%% @doc What ends a call: the next error that the peer is told.
-spec error_frame() -> map().
error_frame() ->
    receive
        {frame, ?ERROR, Payload} ->
            {ok, Map} = causeway_cbor:decode(Payload),
            Map
    after 10000 -> error(no_error)
    end.

%% @doc How many bytes come, and what then.
-spec all_of(causeway_rpc_stream:stream()) -> {non_neg_integer(), term()}.
all_of(Stream) -> all_of(Stream, 0).

all_of(Stream, Bytes) ->
    case ?S:recv(Stream, 10000) of
        {chunk, Chunk} -> all_of(Stream, Bytes + byte_size(Chunk));
        Other -> {Bytes, Other}
    end.

%% @doc For end_per_testcase: no name is served any more.
-spec serve_nothing() -> ok.
serve_nothing() ->
    [ok = causeway_rpc:unadvertise(Name) || {Name, _} <- causeway_rpc:list_advertised()],
    ok.
