%% @doc Streaming calls between two processes of a node, against two gen_servers that relay chunks by casts; and between
%% nodes, against messages with the same binaries.
-module(bench_rpc).

-behaviour(gen_server).

-export([benchmarks/0, consume/2, take/1]).
-export([init/1, handle_call/3, handle_cast/2]).

-define(S, causeway_rpc_stream).
-define(BATCH, 200).

%% @doc The benchmarks of this module.
-spec benchmarks() -> [bench:benchmark()].
benchmarks() ->
    [one_way(rpc_64, 64), one_way(rpc_64k, 65536), ping_pong(), to_node(rpc_node_64, 64), to_node(rpc_node_64k, 65536)].

%% From one process to another

one_way(Name, Size) ->
    #{name => Name,
      unit => "chunks/s",
      peers => fun() ->
          Chunk = binary:copy(<<"x">>, Size),
          [{one, fun(Ms) -> streamed(pair(), Chunk, Ms, fun send/2, fun receive_one/1) end},
           {many, fun(Ms) -> streamed(pair(), Chunk, Ms, fun send_many/2, fun receive_many/1) end},
           {relay, fun(Ms) -> relayed(relay(), Chunk, Ms) end}]
      end}.

pair() ->
    [A, B] = [begin
                  {ok, Half} = ?S:start_link(#{id => Role, role => Role, mode => bidi, owner => self()}),
                  Half
              end || Role <- [client, server]],
    ok = ?S:pair(A, B),
    {A, B}.

streamed({A, B}, Chunk, Ms, Send, Receive) ->
    End = stop_at(Ms),
    spawn_link(fun() -> until(End, fun() -> Send(A, Chunk) end), ok = ?S:close_send(A) end),
    {Count, Time} = counted(fun() -> all_of(B, Receive, 0) end),
    ok = ?S:close(B),
    Count / Time.

send(Stream, Chunk) -> times(?BATCH, fun() -> ok = ?S:send(Stream, Chunk) end).

send_many(Stream, Chunk) -> ok = ?S:send_many(Stream, lists:duplicate(?BATCH, Chunk)).

receive_one(Stream) ->
    case ?S:recv(Stream) of
        {chunk, _} -> 1;
        eof -> eof
    end.

receive_many(Stream) ->
    case ?S:recv_many(Stream, 1 bsl 20) of
        {ok, Chunks} -> length(Chunks);
        eof -> eof
    end.

all_of(Stream, Receive, Count) ->
    case Receive(Stream) of
        eof -> Count;
        Number -> all_of(Stream, Receive, Count + Number)
    end.

%% Two gen_servers: each send is a call of the first, which casts to the second, of which each receive is a call.

relay() ->
    [A, B] = [begin
                  {ok, Half} = gen_server:start_link(?MODULE, [], []),
                  Half
              end || _ <- [1, 2]],
    [ok = gen_server:call(Half, {pair, Other}) || {Half, Other} <- [{A, B}, {B, A}]],
    {A, B}.

relayed({A, B}, Chunk, Ms) ->
    End = stop_at(Ms),
    spawn_link(fun() -> until(End, fun() -> times(?BATCH, fun() -> ok = gen_server:call(A, {send, Chunk}) end) end),
                        ok = gen_server:call(A, {send, eof})
               end),
    {Count, Time} = counted(fun() -> all_relayed(B, 0) end),
    [ok = gen_server:stop(Half) || Half <- [A, B]],
    Count / Time.

all_relayed(Half, Count) ->
    case gen_server:call(Half, recv, infinity) of
        eof -> Count;
        _Chunk -> all_relayed(Half, Count + 1)
    end.

%% @private
init([]) -> {ok, #{peer => none, inbox => queue:new(), waiters => queue:new()}}.

%% @private
handle_call({pair, Peer}, _From, State) ->
    {reply, ok, State#{peer := Peer}};
handle_call({send, Chunk}, _From, #{peer := Peer} = State) ->
    gen_server:cast(Peer, {chunk, Chunk}),
    {reply, ok, State};
handle_call(recv, From, #{inbox := Inbox, waiters := Waiters} = State) ->
    case queue:out(Inbox) of
        {{value, Chunk}, Rest} -> {reply, Chunk, State#{inbox := Rest}};
        {empty, _} -> {noreply, State#{waiters := queue:in(From, Waiters)}}
    end.

%% @private
handle_cast({chunk, Chunk}, #{inbox := Inbox, waiters := Waiters} = State) ->
    case queue:out(Waiters) of
        {{value, From}, Rest} ->
            gen_server:reply(From, Chunk),
            {noreply, State#{waiters := Rest}};
        {empty, _} ->
            {noreply, State#{inbox := queue:in(Chunk, Inbox)}}
    end.

%% There and back

ping_pong() ->
    #{name => rpc_ping_pong,
      unit => "round trips/s",
      peers => fun() ->
          Chunk = binary:copy(<<"x">>, 64),
          {A, B} = pair(),
          {C, D} = relay(),
          spawn_link(fun() -> echo(B) end),
          spawn_link(fun() ->
              forever(fun() -> ok = gen_server:call(D, {send, gen_server:call(D, recv, infinity)}) end)
          end),
          [{ours, bench:rate(1, fun() -> ok = ?S:send(A, Chunk), {chunk, _} = ?S:recv(A) end)},
           {relay, bench:rate(1, fun() -> ok = gen_server:call(C, {send, Chunk}), gen_server:call(C, recv, infinity) end)}]
      end}.

%% Until the benchmark ends, and its halves with it.
echo(Stream) ->
    case ?S:recv(Stream) of
        {chunk, Chunk} ->
            _ = ?S:send(Stream, Chunk),
            echo(Stream);
        {error, _} ->
            ok
    end.

forever(Fun) ->
    Fun(),
    forever(Fun).

%% To another node

to_node(Name, Size) ->
    #{name => Name,
      unit => "chunks/s",
      peers => fun() ->
          Node = start_node(),
          Chunk = binary:copy(<<"x">>, Size),
          [{one, fun(Ms) -> sent_to(Chunk, Ms, fun send/2) end},
           {many, fun(Ms) -> sent_to(Chunk, Ms, fun send_many/2) end},
           {messages, fun(Ms) -> messages_to(Node, Chunk, Ms) end}]
      end}.

%% A node that counts what is streamed to it, and ends with the caller.
start_node() ->
    case is_alive() of
        true ->
            ok;
        false ->
            _ = os:cmd("epmd -daemon"),
            {ok, _} = net_kernel:start([list_to_atom("causeway_bench_" ++ os:getpid()), shortnames]),
            true = erlang:set_cookie(node(), causeway_bench)
    end,
    Paths = lists:append([["-pa", Path] || Path <- code:get_path(), filelib:is_dir(Path)]),
    {ok, _, Node} = peer:start_link(#{name => peer:random_name(causeway_bench), connection => standard_io,
                                      args => ["-setcookie", "causeway_bench" | Paths]}),
    {ok, _} = erpc:call(Node, application, ensure_all_started, [causeway]),
    ok = erpc:call(Node, causeway_rpc, advertise, [bench, client_stream, fun ?MODULE:consume/2]),
    known(Node).

known(Node) ->
    case pg:get_members(causeway_rpc, bench) of
        [] ->
            receive after 10 -> known(Node) end;
        _ ->
            Node
    end.

sent_to(Chunk, Ms, Send) ->
    {ok, Stream} = causeway_rpc:open_stream(bench, []),
    End = stop_at(Ms),
    {Count, Time} = counted(fun() ->
        until(End, fun() -> Send(Stream, Chunk) end),
        ok = ?S:close_send(Stream),
        {ok, Received} = ?S:await_reply(Stream),
        Received
    end),
    Count / Time.

%% @private
consume(Stream, _Args) -> ?S:set_reply(Stream, all_of(Stream, fun receive_many/1, 0)).

%% @private
take(From) -> taken(From, 0).

taken(From, Count) ->
    receive
        {chunk, _} -> taken(From, Count + 1);
        eof -> From ! {taken, Count}
    end.

messages_to(Node, Chunk, Ms) ->
    Self = self(),
    Taker = spawn_link(Node, ?MODULE, take, [Self]),
    End = stop_at(Ms),
    {Count, Time} = counted(fun() ->
        until(End, fun() -> times(?BATCH, fun() -> Taker ! {chunk, Chunk} end) end),
        Taker ! eof,
        receive {taken, Number} -> Number end
    end),
    Count / Time.

%% Time

stop_at(Ms) -> erlang:monotonic_time(millisecond) + Ms.

until(End, Fun) ->
    Fun(),
    case erlang:monotonic_time(millisecond) < End of
        true -> until(End, Fun);
        false -> ok
    end.

times(0, _Fun) -> ok;
times(Number, Fun) ->
    Fun(),
    times(Number - 1, Fun).

%% What it returns, and how many seconds it took.
counted(Fun) ->
    {Time, Count} = timer:tc(Fun),
    {Count, Time / 1000000}.
