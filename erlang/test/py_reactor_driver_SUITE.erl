%% @doc How a context drives its connections: who is told, who needs Python's lock, and who waits for whom.
-module(py_reactor_driver_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-define(PROTOCOLS, driver_protocols).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [owner_is_told_only_when_idle, one_hold_of_the_lock_for_many, reads_need_no_lock, endless_linger_never_parks,
     firehose_beside_a_rally, calls_among_busy_connections, connections_under_a_flood_of_calls].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_testcase(_Case, Config) ->
    ok = causeway_ct:start(),
    {ok, none} = py:call(?PROTOCOLS, 'begin', []),
    Config.

end_per_testcase(_Case, _Config) ->
    {ok, none} = py:call(?PROTOCOLS, 'end', []),
    ok.

%% Erlang is not asked to watch, nor told of anything, while there is always something to do: however short it lingers.
owner_is_told_only_when_idle(_Config) ->
    Context = context(#{linger => 0}),
    ok = play(Context, rally, 1),
    ok = more(Context, total_requests, 100),
    1 = erlang:trace(Context, true, ['receive']),
    #{parks := Parks} = stats(Context),
    ok = more(Context, total_requests, 20000),
    ?assertMatch(#{parks := Parks}, stats(Context)),
    ?assertEqual([], told(Context)),
    %% And as soon as there is nothing, it is.
    {ok, none} = py:call(?PROTOCOLS, 'end', []),
    receive {trace, Context, 'receive', {causeway, idle}} -> ok after 10000 -> error(causeway_ct:mailbox()) end,
    {ok, none} = py:call(?PROTOCOLS, 'begin', []),
    #{parks := Idle} = stats(Context),
    Client = client(Context),
    ok = causeway_ct:wait_until(fun() -> maps:get(parks, stats(Context)) > Idle end),
    _ = told(Context),
    %% Now and then it may just be awake.
    ok = causeway_ct:wait_until(fun() ->
        ?assertEqual(<<"ping">>, reactor_ct:ask(Client, <<"ping">>)),
        lists:any(fun(Message) -> select =:= element(1, Message) end, told(Context))
    end),
    1 = erlang:trace(Context, false, ['receive']),
    ok.

%% What the owner was told of connections; the counters are asked for by way of it, too.
told(Context) ->
    receive
        {trace, Context, 'receive', {'$gen_call', _, stats}} -> told(Context);
        {trace, Context, 'receive', Message} -> [Message | told(Context)]
    after 0 -> []
    end.

one_hold_of_the_lock_for_many(_Config) ->
    Context = context(#{}),
    ok = play(Context, rally, 50),
    ok = more(Context, total_requests, 1000),
    #{batches := Batches, total_requests := Requests} = stats(Context),
    ok = more(Context, total_requests, 20000),
    #{batches := BatchesLater, total_requests := RequestsLater} = stats(Context),
    ct:log("~p requests in ~p batches", [RequestsLater - Requests, BatchesLater - Batches]),
    ?assert((RequestsLater - Requests) > 20 * (BatchesLater - Batches)).

%% Bytes leave the socket while somebody else has the lock, and the protocol gets them when it is free.
reads_need_no_lock(_Config) ->
    Context = context(#{}),
    Client = client(Context),
    ?assertEqual(<<"ping">>, reactor_ct:ask(Client, <<"ping">>)),
    Fifo = socket_ct:file(),
    Test = self(),
    {Holder, Monitor} = spawn_monitor(fun() -> {ok, none} = py:call(?PROTOCOLS, hold_lock, [Fifo, Test]) end),
    ok = causeway_ct:expect(<<"holding">>),
    Data = binary:copy(<<"x">>, 40000),
    try
        ok = gen_tcp:send(Client, Data),
        ok = causeway_ct:wait_until(fun() -> {0, 0} =:= queued(Client) end),
        ?assert(is_process_alive(Holder)),
        ?assertEqual({error, timeout}, gen_tcp:recv(Client, 0, 0)),
        ?assertMatch(#{total_requests := 1}, stats(Context))
    after
        {ok, Release} = file:open(Fifo, [write, raw]),
        ok = file:close(Release)
    end,
    receive {'DOWN', Monitor, process, Holder, normal} -> ok end,
    ?assertEqual({ok, Data}, gen_tcp:recv(Client, 40000, 10000)).

%% What a client has sent: bytes that have not arrived, and those that nobody has read.
queued(Client) ->
    {ok, {_, Mine}} = inet:sockname(Client),
    {ok, {_, Theirs}} = inet:peername(Client),
    [{Unsent, _}] = queues(Mine, Theirs),
    [{_, Unread}] = queues(Theirs, Mine),
    {Unsent, Unread}.

queues(Local, Remote) ->
    {ok, Table} = file:read_file("/proc/net/tcp"),
    [{binary_to_integer(Sent, 16), binary_to_integer(Received, 16)}
     || Line <- binary:split(Table, <<"\n">>, [global]),
        [_, <<_:8/binary, $:, From/binary>>, <<_:8/binary, $:, To/binary>>, _State, Queues | _] <- [binary:split(Line, <<" ">>, [global, trim_all])],
        From =:= hexadecimal(Local), To =:= hexadecimal(Remote),
        [Sent, Received] <- [binary:split(Queues, <<":">>)]].

hexadecimal(Port) -> iolist_to_binary(io_lib:format("~4.16.0B", [Port])).

endless_linger_never_parks(_Config) ->
    Context = context(#{linger => infinity}),
    Client = client(Context),
    ?assertEqual(<<"ping">>, reactor_ct:ask(Client, <<"ping">>)),
    %% It has parked before there was a connection.
    #{parks := Parks} = stats(Context),
    1 = erlang:trace(Context, true, ['receive']),
    [begin
         ?assertEqual(<<"ping">>, reactor_ct:ask(Client, <<"ping">>)),
         %% As long as others linger by default, and longer: here time itself is what matters.
         receive after 20 -> ok end
     end || _ <- lists:seq(1, 10)],
    ?assertMatch(#{parks := Parks}, stats(Context)),
    ?assertEqual([], told(Context)),
    1 = erlang:trace(Context, false, ['receive']),
    ok.

%% Fairness

%% A connection that always has something gets no more turns than others that have.
firehose_beside_a_rally(_Config) ->
    Context = context(#{}),
    ok = play(Context, hose, 1),
    ok = causeway_ct:wait_until(fun() -> count(hose) > 100 end),
    ok = play(Context, rally, 1),
    ok = causeway_ct:wait_until(fun() -> count(rally) > 0 end),
    {Hose, Rally} = {count(hose), count(rally)},
    ok = causeway_ct:wait_until(fun() -> count(hose) > Hose + 5000 end),
    {HoseLater, RallyLater} = {count(hose), count(rally)},
    ct:log("~p reads of the hose, ~p of the rally", [HoseLater - Hose, RallyLater - Rally]),
    ?assert(2 * (RallyLater - Rally) >= HoseLater - Hose).

%% A turn of the connections is followed by one of the calls, of up to 64: neither waits for long.
calls_among_busy_connections(_Config) ->
    Context = context(#{}),
    ok = play(Context, rally, 50),
    ok = more(Context, total_requests, 1000),
    {Rallies, Longest} = rallies_among_calls(Context, 3200),
    ct:log("~p rallies among 3200 calls, ~p at once", [Rallies, Longest]),
    ?assert(Rallies =< 2 * 50 * 3200 div 64),
    ?assert(Longest =< 2 * 64).

connections_under_a_flood_of_calls(_Config) ->
    Context = context(#{}),
    ok = play(Context, rally, 1),
    ok = more(Context, total_requests, 100),
    {Rallies, _} = rallies_among_calls(Context, 6400),
    ct:log("~p rallies among 6400 calls", [Rallies]),
    ?assert(Rallies >= 6400 div 64 div 2).

%% All of the calls are in the queue when the first of them is run. How many balls were returned until the last was,
%% and the most from one to the next.
rallies_among_calls(Context, Number) ->
    Gate = py:spawn_call(Context, ?PROTOCOLS, pass_gate, []),
    Calls = [py:spawn_call(Context, ?PROTOCOLS, note, []) || _ <- lists:seq(1, Number)],
    {ok, none} = py:call(?PROTOCOLS, open_gate, []),
    {ok, none} = py:await(Gate),
    Notes = [begin {ok, Note} = py:await(Call), Note end || Call <- Calls],
    {lists:last(Notes) - hd(Notes), lists:max(lists:zipwith(fun(One, Next) -> Next - One end, lists:droplast(Notes), tl(Notes)))}.

%% Helpers

context(Options) ->
    {ok, Context} = py_reactor_context:start_link(1, worker, Options#{factory => {?PROTOCOLS, 'Player'}}),
    Context.

stats(Context) -> py_reactor_context:stats(Context).

%% Waits until a counter has grown by so much.
more(Context, Key, Number) ->
    Before = maps:get(Key, stats(Context)),
    causeway_ct:wait_until(fun() -> maps:get(Key, stats(Context)) >= Before + Number end).

%% On another context than that which is measured.
count(Plays) ->
    {ok, Count} = py:call(?PROTOCOLS, count_of, [Plays]),
    Count.

%% So many pairs of connections that keep each other busy.
play(Context, Plays, Pairs) ->
    [begin
         {ok, {Left, Right}} = py:call(?PROTOCOLS, open_pair, []),
         ok = py_reactor_context:handoff(Context, Left, #{plays => Plays}),
         ok = py_reactor_context:handoff(Context, Right, #{plays => Plays, serves => true})
     end || _ <- lists:seq(1, Pairs)],
    ok.

client(Context) -> reactor_ct:connected_to(Context, #{plays => echo}).
