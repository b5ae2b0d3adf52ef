%% Who waits for a chunk, for room or for the reply of a half of a streaming call, and what becomes of them.
-module(causeway_rpc_wait_SUITE).

-include_lib("stdlib/include/assert.hrl").

-import(rpc_halves, [pair/0, pair/1, waiters/1, await/1, result/1, is_waiting/1, kill/1, no_messages/0]).
-import(causeway_ct, [wait_until/1]).

-export([suite/0, all/0, init_per_suite/1, end_per_suite/1]).
-export([close_settles_own_waiters/1, close_settles_waiting_receivers/1, reply_waiters/1,
         receivers_are_served_in_order/1, receiver_that_dies_loses_nothing/1, receiver_that_gives_up_leaves_nothing/1,
         window/1, sender_waits_for_room/1, sender_is_patient_for_a_moment/1, sender_that_dies_sends_nothing/1,
         memory_is_flat/1]).

-define(S, causeway_rpc_stream).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [close_settles_own_waiters, close_settles_waiting_receivers, reply_waiters, receivers_are_served_in_order,
     receiver_that_dies_loses_nothing, receiver_that_gives_up_leaves_nothing, window, sender_waits_for_room,
     sender_is_patient_for_a_moment, sender_that_dies_sends_nothing, memory_is_flat].

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(causeway),
    Config.

end_per_suite(_Config) ->
    ok.

%% They hung.
close_settles_own_waiters(_Config) ->
    {A, B} = pair(),
    Waiters = [await(fun() -> ?S:await_reply(Half) end) || Half <- [A, B]],
    wait_until(fun() -> lists:all(fun rpc_halves:is_waiting/1, Waiters) end),
    ok = ?S:close(A),
    ?assertEqual([{error, closed}, {error, peer_closed}], [result(Waiter) || Waiter <- Waiters]),
    ?assertEqual({error, closed}, ?S:await_reply(A)),
    ?assertEqual({error, peer_closed}, ?S:await_reply(B)).

close_settles_waiting_receivers(_Config) ->
    {A, B} = pair(),
    Waiters = [await(fun() -> ?S:recv(Half) end) || Half <- [A, B, B]],
    wait_until(fun() -> waiters(A) =:= 1 andalso waiters(B) =:= 2 end),
    ok = ?S:close(B),
    ?assertEqual([eof, eof, eof], [result(Waiter) || Waiter <- Waiters]).

reply_waiters(_Config) ->
    {A, B} = pair(),
    ?assertEqual({error, timeout}, ?S:await_reply(A, 1)),
    Waiters = [await(fun() -> ?S:await_reply(A) end) || _ <- lists:seq(1, 5)],
    Dead = await(fun() -> ?S:await_reply(A) end),
    wait_until(fun() -> lists:all(fun rpc_halves:is_waiting/1, [Dead | Waiters]) end),
    kill(Dead),
    ok = ?S:set_reply(B, value),
    ?assertEqual(lists:duplicate(5, {ok, value}), [result(Waiter) || Waiter <- Waiters]),
    no_messages().

receivers_are_served_in_order(_Config) ->
    {A, B} = pair(),
    Waiters = [begin
                   Waiter = await(fun() -> ?S:recv(B) end),
                   wait_until(fun() -> waiters(B) =:= Number end),
                   Waiter
               end || Number <- [1, 2, 3]],
    [ok = ?S:send(A, <<Number>>) || Number <- [1, 2, 3]],
    ?assertEqual([{chunk, <<Number>>} || Number <- [1, 2, 3]], [result(Waiter) || Waiter <- Waiters]),
    ?assertMatch(#{seq_in := 3}, ?S:info(B)).

%% Its chunk was lost.
receiver_that_dies_loses_nothing(_Config) ->
    {A, B} = pair(),
    Dead = await(fun() -> ?S:recv(B) end),
    wait_until(fun() -> waiters(B) =:= 1 end),
    kill(Dead),
    wait_until(fun() -> waiters(B) =:= 0 end),
    ok = ?S:send(A, <<"x">>),
    ?assertEqual({chunk, <<"x">>}, ?S:recv(B, 5000)),
    %% Also where it dies with the chunk kept for it.
    Suspended = await(fun() -> ?S:recv(B) end),
    wait_until(fun() -> waiters(B) =:= 1 end),
    true = erlang:suspend_process(element(1, Suspended)),
    ok = ?S:send(A, <<"y">>),
    kill(Suspended),
    ?assertEqual({chunk, <<"y">>}, ?S:recv(B, 5000)).

receiver_that_gives_up_leaves_nothing(_Config) ->
    {A, B} = pair(),
    [begin
         spawn_link(fun() -> ok = ?S:send(A, <<Number:32>>) end),
         Received = case ?S:recv(B, 0) of
             {error, would_block} ->
                 case ?S:recv(B, 1) of
                     {error, timeout} -> ?S:recv(B, 5000);
                     Other -> Other
                 end;
             Other -> Other
         end,
         ?assertEqual({chunk, <<Number:32>>}, Received)
     end || Number <- lists:seq(1, 200)],
    no_messages().

window(_Config) ->
    {A, B} = pair(#{window => 200}),
    ok = ?S:send(A, binary:copy(<<"x">>, 120)),
    ?assertEqual({error, would_block}, ?S:send(A, binary:copy(<<"x">>, 81), raw, 0)),
    ok = ?S:send(A, binary:copy(<<"x">>, 80), raw, 0),
    ?assertEqual({error, would_block}, ?S:send(A, <<>>, raw, 0)),
    ?assertEqual({error, timeout}, ?S:send(A, <<"x">>, raw, 10)),
    ?assertEqual({error, would_block}, ?S:send(A, term, msgpack, 0)),
    %% The other direction has a window of its own.
    ok = ?S:send(B, <<"x">>, raw, 0),
    {chunk, _} = ?S:recv(B),
    ok = ?S:send(A, <<"x">>, raw, 0),
    ?assertMatch(#{inbox_size := 2, inbox_bytes := 144, seq_in := 3}, ?S:info(B)),
    ?assertMatch(#{seq_out := 3, window := 200}, ?S:info(A)),
    %% Many that are small are not without limit.
    {C, D} = pair(#{window => 6400}),
    ?assertEqual(100, fill(C, 0)),
    ?assertMatch(#{inbox_bytes := 6400}, ?S:info(D)).

fill(Stream, Number) ->
    case ?S:send(Stream, <<>>, raw, 0) of
        ok -> fill(Stream, Number + 1);
        {error, would_block} -> Number
    end.

sender_waits_for_room(_Config) ->
    {A, B} = pair(#{window => 10}),
    ok = ?S:send(A, <<"0123456789">>),
    Waiters = [begin
                   Sender = await(fun() -> ?S:send(A, <<Number:80>>) end),
                   wait_until(fun() -> is_waiting(Sender) end),
                   Sender
               end || Number <- [1, 2]],
    {chunk, <<"0123456789">>} = ?S:recv(B),
    ?assertEqual(ok, result(hd(Waiters))),
    ?assertEqual({chunk, <<1:80>>}, ?S:recv(B)),
    ?assertEqual(ok, result(lists:last(Waiters))),
    %% In vain, where either side closes.
    [begin
         Sender = await(fun() -> ?S:send(A1, <<"x">>) end),
         wait_until(fun() -> is_waiting(Sender) end),
         ok = End(A1, B1),
         ?assertEqual({error, send_closed}, result(Sender)),
         ?assertEqual({chunk, <<"full">>}, ?S:recv(B1))
     end || End <- [fun(A1, _) -> ?S:close_send(A1) end, fun(_, B1) -> ?S:close(B1) end,
                    fun(_, B1) -> ?S:abort(B1, <<>>, <<>>) end, fun(A1, _) -> ?S:close(A1) end],
            {A1, B1} <- [full()]].

full() ->
    {A, B} = pair(#{window => 1}),
    ok = ?S:send(A, <<"full">>),
    {A, B}.

%% It looks whether there is room now before it waits, but not for long where others want to run.
sender_is_patient_for_a_moment(_Config) ->
    {A, _B} = full(),
    1 = erlang:trace_pattern({causeway_nif, rpc_has_room, 2}, true, []),
    [begin
         Others = [spawn_link(fun Spin() -> Spin() end) || _ <- lists:seq(1, Spinning)],
         {Sender, Monitor} = spawn_monitor(fun() -> receive go -> exit(Send(A)) end end),
         1 = erlang:trace(Sender, true, [call, running]),
         Sender ! go,
         receive {'DOWN', Monitor, process, Sender, Result} -> ?assertMatch({error, timeout}, Result) end,
         Delivered = erlang:trace_delivered(Sender),
         receive {trace_delivered, Sender, Delivered} -> ok end,
         [begin unlink(Other), exit(Other, kill) end || Other <- Others],
         {Looks, Turns} = looks_and_turns(Sender, 0, 0),
         ?assert(Looks >= 1),
         ?assert(Spinning =:= 0 orelse Turns < 30, Turns)
     end || Spinning <- [0, 32],
            Send <- [fun(Stream) -> ?S:send(Stream, <<"y">>, raw, 1) end,
                     fun(Stream) -> ?S:send(Stream, term, msgpack, 1) end,
                     fun(Stream) ->
                         {error, Reason, [<<"y">>]} = ?S:send_many(Stream, [<<"y">>], 1),
                         {error, Reason}
                     end]],
    1 = erlang:trace_pattern({causeway_nif, rpc_has_room, 2}, false, []),
    no_messages().

looks_and_turns(Process, Looks, Turns) ->
    receive
        {trace, Process, call, {causeway_nif, rpc_has_room, _}} -> looks_and_turns(Process, Looks + 1, Turns);
        {trace, Process, in, _} -> looks_and_turns(Process, Looks, Turns + 1);
        {trace, Process, out, _} -> looks_and_turns(Process, Looks, Turns)
    after 0 -> {Looks, Turns}
    end.

sender_that_dies_sends_nothing(_Config) ->
    {A, B} = full(),
    Sender = await(fun() -> ?S:send(A, <<"x">>) end),
    wait_until(fun() -> is_waiting(Sender) end),
    kill(Sender),
    ?assertEqual({chunk, <<"full">>}, ?S:recv(B)),
    ?assertEqual({error, timeout}, ?S:recv(B, 20)).

%% 200 MB wait behind a receiver that has stopped.
memory_is_flat(_Config) ->
    {A, B} = pair(),
    Chunk = binary:copy(<<"x">>, 10000),
    Sender = await(fun() -> [ok = ?S:send(A, binary:copy(Chunk)) || _ <- lists:seq(1, 20000)], ok end),
    wait_until(fun() -> is_waiting(Sender) end),
    #{inbox_bytes := Bytes, seq_in := Number} = ?S:info(B),
    ?assert(Bytes =< 262144),
    ?assertEqual(26, Number),
    [{chunk, Chunk} = ?S:recv(B) || _ <- lists:seq(1, 20000)],
    ?assertEqual(ok, result(Sender)).
