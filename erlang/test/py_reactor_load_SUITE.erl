%% @doc Much through connections, many of them, and what they cost when nothing comes.
-module(py_reactor_load_SUITE).

-compile([export_all, nowarn_export_all]).

-import(causeway_ct, [context/1]).
-import(reactor_ct, [use/1, connected/1, connected_to/2, listen/0, tcp_pair/1, fd/1, ask/2, read_all/1]).

-include_lib("stdlib/include/assert.hrl").

-define(PROTOCOLS, reactor_protocols).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [megabytes_in, megabytes_out, megabytes_both_ways, slow_reader, many_connections_at_once,
     calls_among_busy_connections, stats_count, written_bytes_are_counted, idle_connections_cost_no_cpu,
     idle_connections_cost_little_memory, event_after_idleness,
     linger_forms, kept_buffers_stay_as_they_are, contexts_share_nothing_but_the_factory,
     ten_thousand_connections_leave_nothing].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_testcase(_Case, Config) -> reactor_ct:start_context(Config).

end_per_testcase(_Case, Config) -> reactor_ct:kill_context(Config).

%% Size

megabytes_in(Config) ->
    use('Digest'),
    Client = connected(Config),
    Size = 50 bsl 20,
    ok = gen_tcp:send(Client, <<Size:64>>),
    Digest = send_blocks(Client, Size, crypto_init()),
    ?assertEqual(Digest, read_all(Client)).

megabytes_out(Config) ->
    use('Source'),
    Client = connected(Config),
    Size = 50 bsl 20,
    ok = gen_tcp:send(Client, <<Size:64>>),
    Digest = receive_blocks(Client, Size, crypto_init()),
    ?assertEqual(Digest, read_all(Client)).

megabytes_both_ways(Config) ->
    use('Watched'),
    Client = connected(Config),
    Size = 50 bsl 20,
    Test = self(),
    Sender = spawn_link(fun() -> Test ! {self(), send_blocks(Client, Size, crypto_init())} end),
    Received = receive_blocks(Client, Size, crypto_init()),
    Sent = receive {Sender, Digest} -> Digest end,
    ?assertEqual(Sent, Received).

%% The peer does not read for a while: nobody else waits, and memory holds what the kernel does not take.
slow_reader(Config) ->
    use('Source'),
    Slow = connected(Config),
    Size = 20 bsl 20,
    ok = gen_tcp:send(Slow, <<Size:64>>),
    Written = fun() -> maps:get(bytes_out, py_reactor_context:stats(context(Config))) end,
    ok = causeway_ct:wait_until(fun() -> Written() > 0 end),
    Fast = connected(Config),
    ok = gen_tcp:send(Fast, <<1000000:64>>),
    Digest = receive_blocks(Fast, 1000000, crypto_init()),
    ?assertEqual(Digest, read_all(Fast)),
    %% Most of it is not written yet.
    ?assert(Written() < 1000000 + Size),
    Late = receive_blocks(Slow, Size, crypto_init()),
    ?assertEqual(Late, read_all(Slow)).

crypto_init() -> crypto:hash_init(sha256).

block() -> binary:copy(list_to_binary(lists:seq(0, 255)), 256).

send_blocks(_Socket, 0, Hash) ->
    crypto:hash_final(Hash);
send_blocks(Socket, Left, Hash) ->
    Block = binary:part(block(), 0, min(Left, 65536)),
    ok = gen_tcp:send(Socket, Block),
    send_blocks(Socket, Left - byte_size(Block), crypto:hash_update(Hash, Block)).

receive_blocks(_Socket, 0, Hash) ->
    crypto:hash_final(Hash);
receive_blocks(Socket, Left, Hash) ->
    {ok, Data} = gen_tcp:recv(Socket, min(Left, 65536), 20000),
    receive_blocks(Socket, Left - byte_size(Data), crypto:hash_update(Hash, Data)).

many_connections_at_once(Config) ->
    use('Echo'),
    Clients = [connected(Config) || _ <- lists:seq(1, 1000)],
    [begin
         [ok = gen_tcp:send(Client, <<Round:32>>) || Client <- Clients],
         [?assertEqual({ok, <<Round:32>>}, gen_tcp:recv(Client, 4, 10000)) || Client <- Clients]
     end || Round <- [1, 2, 3]],
    ?assertMatch(#{active_connections := 1000, total_requests := 3000}, py_reactor_context:stats(context(Config))),
    [ok = gen_tcp:close(Client) || Client <- Clients],
    ok = causeway_ct:wait_until(fun() -> 0 =:= maps:get(active_connections, py_reactor_context:stats(context(Config))) end).

%% How long they wait for each other is in py_reactor_driver_SUITE.
calls_among_busy_connections(Config) ->
    use('Echo'),
    Pingers = [spawn_link(fun() -> ping(connected(Config), 0) end) || _ <- lists:seq(1, 50)],
    [?assertEqual({ok, N}, py:call(context(Config), causeway_helpers, identity, [N], 10000)) || N <- lists:seq(1, 200)],
    [Pinger ! {stop, self()} || Pinger <- Pingers],
    Counts = [receive {pinged, Pinger, Count} -> Count end || Pinger <- Pingers],
    ?assert(lists:min(Counts) > 0).

ping(Client, Count) ->
    <<"ping">> = ask(Client, <<"ping">>),
    receive
        {stop, Test} -> Test ! {pinged, self(), Count + 1}
    after 0 -> ping(Client, Count + 1)
    end.

%% Numbers

stats_count(_Config) ->
    use('Echo'),
    {ok, Context} = py_reactor_context:start_link(8, worker, #{max_connections => 5}),
    ?assertMatch(#{id := 8, active_connections := 0, total_connections := 0, total_requests := 0, max_connections := 5},
                 py_reactor_context:stats(Context)),
    Clients = [connected_to(Context, #{}) || _ <- [1, 2, 3]],
    [?assertEqual(<<"12345">>, ask(Client, <<"12345">>)) || Client <- Clients],
    %% What is written is counted a moment after the client may have it.
    ok = causeway_ct:wait_until(fun() -> 15 =:= maps:get(bytes_out, py_reactor_context:stats(Context)) end),
    ?assertMatch(#{active_connections := 3, total_connections := 3, total_requests := 3, bytes_in := 15, bytes_out := 15},
                 py_reactor_context:stats(Context)),
    [ok = gen_tcp:close(Client) || Client <- Clients],
    ok = causeway_ct:wait_until(fun() -> 0 =:= maps:get(active_connections, py_reactor_context:stats(Context)) end),
    ?assertMatch(#{total_connections := 3}, py_reactor_context:stats(Context)),
    ok = py_reactor_context:stop(Context).

%% Whether the base class writes or the protocol itself.
written_bytes_are_counted(Config) ->
    [begin
         use(Protocol),
         #{bytes_out := Before} = py_reactor_context:stats(context(Config)),
         ?assertEqual(<<"12345">>, ask(connected(Config), <<"12345">>)),
         ok = causeway_ct:wait_until(fun() -> Before + 5 =:= maps:get(bytes_out, py_reactor_context:stats(context(Config))) end)
     end || Protocol <- ['Echo', 'WritesByHand']].

idle_connections_cost_no_cpu(Config) ->
    use('Echo'),
    Clients = [connected(Config) || _ <- lists:seq(1, 100)],
    #{parks := Parks} = py_reactor_context:stats(context(Config)),
    [?assertEqual(<<"a">>, ask(Client, <<"a">>)) || Client <- Clients],
    ok = causeway_ct:wait_until(fun() -> maps:get(parks, py_reactor_context:stats(context(Config))) > Parks end),
    Before = causeway_ct:context_ticks(),
    %% Here time itself is what is measured: a second of nothing costs at most 20 ms.
    timer:sleep(1000),
    ?assert(causeway_ct:context_ticks() - Before =< 2),
    [?assertEqual(<<"b">>, ask(Client, <<"b">>)) || Client <- Clients].

%% Beyond their Python objects, which are no blocks of malloc.
idle_connections_cost_little_memory(_Config) ->
    use('Echo'),
    {ok, Context} = py_reactor_context:start_link(10, worker, #{}),
    %% The first ones have buffers and tables made.
    ok = with_pairs(Context, 400, fun() -> ok end),
    Before = native_memory(),
    During = with_pairs(Context, 400, fun native_memory/0),
    ct:log("~p bytes each", [(During - Before) / 400]),
    ?assert(During - Before =< 400 * 1024),
    ?assert(native_memory() - Before =< 400 * 100),
    ok = py_reactor_context:stop(Context).

%% Runs a function while there are so many connections that have served their peer.
with_pairs(Context, Number, Fun) ->
    {ok, Pairs} = py:call(reactor_protocols, open_pairs, [Number]),
    [ok = py_reactor_context:handoff(Context, Server, #{addr => <<"127.0.0.1">>, port => 1}) || [_, Server] <- Pairs],
    Clients = [Client || [Client, _] <- Pairs],
    %% On the context itself: it finds all of them ready at once, and makes as many buffers as it ever does.
    {ok, none} = py:call(Context, reactor_protocols, write_all, [Clients]),
    {ok, none} = py:call(reactor_protocols, read_all, [Clients]),
    Result = Fun(),
    [{ok, none} = py:call(os, close, [Client]) || Client <- Clients],
    ok = causeway_ct:wait_until(fun() -> 0 =:= maps:get(active_connections, py_reactor_context:stats(Context)) end),
    Result.

native_memory() ->
    {ok, Bytes} = py:call(causeway_helpers, native_memory, []),
    Bytes.

event_after_idleness(Config) ->
    use('Echo'),
    Client = connected(Config),
    [begin
         #{parks := Parks} = py_reactor_context:stats(context(Config)),
         ?assertEqual(<<"a">>, ask(Client, <<"a">>)),
         ok = causeway_ct:wait_until(fun() -> maps:get(parks, py_reactor_context:stats(context(Config))) > Parks end, 5000)
     end || _ <- lists:seq(1, 50)].

linger_forms(_Config) ->
    use('Watched'),
    [begin
         {ok, Context} = py_reactor_context:start_link(9, worker, #{linger => Linger}),
         Client = connected_to(Context, #{}),
         [?assertEqual(<<"echo">>, ask(Client, <<"echo">>)) || _ <- lists:seq(1, 200)],
         ?assertEqual({ok, 4.0}, py:call(Context, math, sqrt, [16], 5000)),
         Second = connected_to(Context, #{}),
         ?assertEqual(<<"echo">>, ask(Second, <<"echo">>)),
         ok = py_reactor_context:stop(Context),
         [?assertEqual({error, closed}, gen_tcp:recv(Socket, 0, 10000)) || Socket <- [Client, Second]]
     end || Linger <- [0, 1, infinity]].

%% Signals

kept_buffers_stay_as_they_are(Config) ->
    use('Keeper'),
    Client = connected(Config),
    Pieces = [binary:copy(<<N>>, N * 100) || N <- lists:seq(1, 50)],
    [begin
         ok = gen_tcp:send(Client, Piece),
         ok = causeway_ct:expect({<<"kept">>, N})
     end || {N, Piece} <- lists:zip(lists:seq(1, 50), Pieces)],
    {ok, Kept} = py:call(?PROTOCOLS, kept_bytes, []),
    ?assert(Kept =:= iolist_to_binary(Pieces)).

contexts_share_nothing_but_the_factory(Config) ->
    use('Watched'),
    {ok, Other} = py_reactor_context:start_link(10, worker),
    One = connected(Config),
    Two = connected_to(Other, #{}),
    ?assertEqual(<<"a">>, ask(One, <<"a">>)),
    ?assertEqual(<<"b">>, ask(Two, <<"b">>)),
    ok = py_reactor_context:stop(Other),
    ?assertEqual({error, closed}, gen_tcp:recv(Two, 0, 10000)),
    ?assertEqual(<<"c">>, ask(One, <<"c">>)).

ten_thousand_connections_leave_nothing(Config) ->
    use('Echo'),
    _ = connect_and_close(Config, 100),
    ok = none_active(Config),
    Before = causeway_ct:descriptors(),
    _ = connect_and_close(Config, 10000),
    ok = none_active(Config),
    ok = causeway_ct:settled(fun causeway_ct:descriptors/0, Before),
    ?assertEqual({ok, 0}, py:eval(<<"sum(isinstance(o, p) for o in __import__('gc').get_objects())">>,
                                  #{p => object_of(<<"__import__('reactor_protocols').Echo">>)})).

connect_and_close(Config, Number) ->
    Listen = listen(),
    [begin
         {Client, Server} = tcp_pair(Listen),
         ok = py_reactor_context:handoff(context(Config), fd(Server), #{}),
         <<"x">> = ask(Client, <<"x">>),
         ok = gen_tcp:close(Client)
     end || _ <- lists:seq(1, Number)],
    gen_tcp:close(Listen).

none_active(Config) ->
    causeway_ct:wait_until(fun() -> 0 =:= maps:get(active_connections, py_reactor_context:stats(context(Config))) end).

%% Helpers

object_of(Expression) ->
    {ok, Object} = py:eval(Expression),
    Object.
