%% One half of a streaming call and two that are joined: what each function returns, and what becomes of who waits.
-module(causeway_rpc_stream_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0, init_per_suite/1, end_per_suite/1]).
-export([missing_options/1, wrong_options/1, unpaired/1, chunks_in_order/1, terms/1, wrong_chunks/1, half_close/1,
         close/1, close_settles_own_waiters/1, close_settles_waiting_receivers/1, abort/1, abort_is_sticky/1,
         chunks_before_the_error/1, cancel/1, reply/1, reply_overtakes_nothing/1, delivered_reply_overwrites/1,
         reply_waiters/1, receivers_are_served_in_order/1, receiver_that_dies_loses_nothing/1,
         receiver_that_gives_up_leaves_nothing/1, window/1, sender_waits_for_room/1, sender_is_patient_for_a_moment/1,
         sender_that_dies_sends_nothing/1,
         many_at_once/1, owner_ends/1, killed_half/1, ends_by_itself/1, answers_when_ended/1, re_pairing/1,
         info/1, deadline/1, active_all/1, active_number/1, active_once/1, active_error/1, controlling_process/1,
         delivered/1, unknown_requests/1, memory_is_flat/1]).

-define(S, causeway_rpc_stream).

all() ->
    [missing_options, wrong_options, unpaired, chunks_in_order, terms, wrong_chunks, half_close, close,
     close_settles_own_waiters, close_settles_waiting_receivers, abort, abort_is_sticky, chunks_before_the_error, cancel,
     reply, reply_overtakes_nothing, delivered_reply_overwrites, reply_waiters, receivers_are_served_in_order,
     receiver_that_dies_loses_nothing, receiver_that_gives_up_leaves_nothing, window, sender_waits_for_room,
     sender_is_patient_for_a_moment,
     sender_that_dies_sends_nothing, many_at_once, owner_ends, killed_half, ends_by_itself, answers_when_ended,
     re_pairing, info, deadline, active_all, active_number, active_once, active_error, controlling_process, delivered,
     unknown_requests, memory_is_flat].

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(causeway),
    Config.

end_per_suite(_Config) ->
    ok.

missing_options(_Config) ->
    All = #{id => id, role => client, mode => bidi, owner => self()},
    [?assertEqual({error, {badkey, Key}}, ?S:start_link(maps:remove(Key, All))) || Key <- maps:keys(All)].

wrong_options(_Config) ->
    All = #{id => id, role => client, mode => bidi, owner => self()},
    [?assertMatch({error, {badarg, _}}, ?S:start_link(maps:merge(All, Wrong)))
     || Wrong <- [#{owner => me}, #{window => 0}, #{deadline => soon}]].

unpaired(_Config) ->
    Stream = half(#{}),
    ?assertEqual({error, no_peer}, ?S:send(Stream, <<"a">>)),
    ?assertEqual({error, would_block}, ?S:recv(Stream, 0)),
    ?assertEqual({error, timeout}, ?S:recv(Stream, 1)),
    ?assertEqual({error, timeout}, ?S:await_reply(Stream, 0)),
    ?assertEqual(ok, ?S:close_send(Stream)),
    ?assertEqual({error, send_closed}, ?S:send(Stream, <<"a">>)).

chunks_in_order(_Config) ->
    {A, B} = pair(),
    Large = binary:copy(<<"x">>, 100000),
    Chunks = [<<"1">>, <<>>, Large, <<"2">>],
    [ok = ?S:send(A, Chunk) || Chunk <- Chunks],
    ?assertEqual([{chunk, Chunk} || Chunk <- Chunks], [?S:recv(B) || _ <- Chunks]),
    ?assertEqual({error, would_block}, ?S:recv(B, 0)).

%% Terms are never encoded: they stay what they are.
terms(_Config) ->
    {A, B} = pair(),
    Terms = [self(), make_ref(), {a, [1, 2.5]}, fun lists:map/2, <<"binary">>, #{}],
    [ok = ?S:send(A, Term, msgpack) || Term <- Terms],
    ?assertEqual([{data, Term} || Term <- Terms], [?S:recv(B, 5000) || _ <- Terms]).

wrong_chunks(_Config) ->
    {A, _} = pair(),
    ?assertError(function_clause, ?S:send(A, "list")),
    ?assertError(function_clause, ?S:send(A, a, raw)),
    ?assertError(function_clause, ?S:send(A, <<>>, json)).

half_close(_Config) ->
    {A, B} = pair(),
    ok = ?S:send(A, <<"last">>),
    [ok, ok] = [?S:close_send(A), ?S:close_send(A)],
    ?assertEqual({error, send_closed}, ?S:send(A, <<"more">>)),
    ?assertEqual([{chunk, <<"last">>}, eof, eof], [?S:recv(B), ?S:recv(B), ?S:recv(B, 0)]),
    [begin ok = ?S:send(B, <<"x">>), {chunk, <<"x">>} = ?S:recv(A) end || _ <- lists:seq(1, 10)].

close(_Config) ->
    {A, B} = pair(),
    ok = ?S:send(B, <<"queued">>),
    [ok, ok] = [?S:close(A), ?S:close(A)],
    ?assertEqual([{chunk, <<"queued">>}, eof, eof], [?S:recv(A), ?S:recv(A), ?S:recv(B)]),
    ?assertEqual([{error, send_closed}, {error, send_closed}], [?S:send(A, <<>>), ?S:send(B, <<>>)]).

%% They hung.
close_settles_own_waiters(_Config) ->
    {A, B} = pair(),
    Waiters = [await(fun() -> ?S:await_reply(Half) end) || Half <- [A, B]],
    wait_until(fun() -> lists:all(fun is_waiting/1, Waiters) end),
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

abort(_Config) ->
    {A, B} = pair(),
    Waiters = [await(Wait) || Wait <- [fun() -> ?S:recv(A) end, fun() -> ?S:recv(B) end,
                                       fun() -> ?S:await_reply(A) end, fun() -> ?S:await_reply(B) end]],
    wait_until(fun() -> lists:all(fun is_waiting/1, Waiters) end),
    ok = ?S:abort(A, <<"code">>, <<"message">>),
    Error = {error, {<<"code">>, <<"message">>}},
    ?assertEqual([Error, Error, Error, Error], [result(Waiter) || Waiter <- Waiters]).

%% It was told only to those who waited.
abort_is_sticky(_Config) ->
    {A, B} = pair(),
    ok = ?S:abort(A, <<"code">>, <<"message">>),
    Error = {error, {<<"code">>, <<"message">>}},
    [?assertEqual(Error, Ask(Half)) || Half <- [A, B, A, B],
                                       Ask <- [fun ?S:recv/1, fun ?S:await_reply/1]],
    ok = ?S:abort(B, <<"other">>, <<>>),
    ?assertEqual([Error, Error], [?S:recv(A), ?S:recv(B)]),
    ?assertEqual({error, send_closed}, ?S:send(B, <<>>)).

chunks_before_the_error(_Config) ->
    {A, B} = pair(),
    [ok, ok] = [?S:send(A, <<"1">>), ?S:send(A, <<"2">>)],
    ok = ?S:abort(A, <<"c">>, <<"m">>),
    Error = {error, {<<"c">>, <<"m">>}},
    ?assertEqual([{chunk, <<"1">>}, {chunk, <<"2">>}, Error, Error], [?S:recv(B) || _ <- [1, 2, 3, 4]]).

cancel(_Config) ->
    {A, B} = pair(),
    ok = ?S:cancel(A),
    ?assertMatch({error, {<<"cancelled">>, _}}, ?S:recv(B)).

reply(_Config) ->
    {A, B} = pair(),
    ok = ?S:set_reply(B, #{pid => self()}),
    ok = ?S:set_error(B, ignored),
    ok = ?S:set_reply(A, ignored),
    Reply = {ok, #{pid => self()}},
    ?assertEqual([Reply, Reply, Reply], [?S:await_reply(A), ?S:await_reply(B), ?S:await_reply(A, 0)]),
    ok = ?S:send(A, <<"still open">>),
    {chunk, _} = ?S:recv(B),
    {C, D} = pair(),
    ok = ?S:set_error(C, {what, ever}),
    ?assertEqual({error, {what, ever}}, ?S:await_reply(D)).

reply_overtakes_nothing(_Config) ->
    [begin
         {A, B} = pair(),
         spawn_link(fun() -> ok = ?S:send(B, <<"x">>), ok = ?S:set_reply(B, done) end),
         {ok, done} = ?S:await_reply(A),
         ?assertEqual({chunk, <<"x">>}, ?S:recv(A, 0))
     end || _ <- lists:seq(1, 50)].

delivered_reply_overwrites(_Config) ->
    {A, B} = pair(),
    ok = ?S:set_reply(B, first),
    ok = ?S:deliver_reply(A, {error, second}),
    ?assertEqual([{error, second}, {ok, first}], [?S:await_reply(A), ?S:await_reply(B)]).

reply_waiters(_Config) ->
    {A, B} = pair(),
    ?assertEqual({error, timeout}, ?S:await_reply(A, 1)),
    Waiters = [await(fun() -> ?S:await_reply(A) end) || _ <- lists:seq(1, 5)],
    Dead = await(fun() -> ?S:await_reply(A) end),
    wait_until(fun() -> lists:all(fun is_waiting/1, [Dead | Waiters]) end),
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

many_at_once(_Config) ->
    {A, B} = pair(#{window => 16000}),
    Chunks = [<<Number:32>> || Number <- lists:seq(1, 5000)],
    Sender = await(fun() -> ?S:send_many(A, Chunks) end),
    ?assertEqual([{chunk, Chunk} || Chunk <- Chunks], collect(B, 5000)),
    ?assertEqual(ok, result(Sender)),
    {error, would_block, Rest} = ?S:send_many(A, Chunks, 0),
    ?assertEqual(4750, length(Rest)),
    ok = ?S:close_send(A),
    ?assertEqual({error, send_closed, Rest}, ?S:send_many(A, Rest)),
    ?assertEqual(250, length(collect(B, 250))),
    ?assertEqual(eof, ?S:recv_many(B, 100)),
    ?assertEqual({error, would_block}, ?S:recv_many(A, 100, 0)),
    ?assertError(badarg, ?S:send_many(A, [a])).

collect(_Stream, 0) ->
    [];
collect(Stream, Number) ->
    {ok, Items} = ?S:recv_many(Stream, 8192),
    Items ++ collect(Stream, Number - length(Items)).

owner_ends(_Config) ->
    Owner = spawn(fun() -> receive stop -> ok end end),
    A = half(#{owner => Owner}),
    B = half(#{}),
    ok = ?S:pair(A, B),
    ok = ?S:send(A, <<"x">>),
    Receiver = await(fun() -> ?S:recv(A) end),
    wait_until(fun() -> waiters(A) =:= 1 end),
    Monitor = monitor(process, A),
    Owner ! stop,
    receive {'DOWN', Monitor, process, A, Reason} -> ?assertEqual(normal, Reason) end,
    ?assertEqual({error, closed}, result(Receiver)),
    ?assertEqual({chunk, <<"x">>}, ?S:recv(B)),
    [?assertEqual({error, peer_down}, Ask(B)) || Ask <- [fun ?S:recv/1, fun ?S:await_reply/1, fun ?S:recv/1]],
    ?assertEqual({error, send_closed}, ?S:send(B, <<>>)),
    ?assertMatch(#{peer := undefined}, ?S:info(B)).

killed_half(_Config) ->
    {A, B} = pair(),
    Waiters = [await(Wait) || Wait <- [fun() -> ?S:recv(B) end, fun() -> ?S:await_reply(B) end]],
    wait_until(fun() -> lists:all(fun is_waiting/1, Waiters) end),
    unlink(A),
    exit(A, kill),
    ?assertEqual([{error, peer_down}, {error, peer_down}], [result(Waiter) || Waiter <- Waiters]),
    ?assertEqual({error, closed}, ?S:recv(A)).

%% They stayed for ever.
ends_by_itself(_Config) ->
    {A, B} = pair(),
    Monitors = [monitor(process, Half) || Half <- [A, B]],
    ok = ?S:send(B, <<"x">>),
    ok = ?S:close_send(A),
    ok = ?S:close_send(B),
    ok = ?S:set_reply(B, done),
    %% The other is not: it has a chunk to give.
    receive {'DOWN', _, process, B, normal} -> ok end,
    ?assert(is_process_alive(A)),
    {chunk, <<"x">>} = ?S:recv(A),
    receive {'DOWN', _, process, A, normal} -> ok end,
    [demonitor(Monitor) || Monitor <- Monitors].

answers_when_ended(_Config) ->
    {A, B} = pair(),
    Monitor = monitor(process, A),
    ok = ?S:set_reply(B, done),
    ok = ?S:send(B, <<"x">>),
    ok = ?S:close(A),
    receive {'DOWN', Monitor, process, A, normal} -> ok end,
    wait_until(fun() -> maps:get(peer, ?S:info(B)) =:= undefined end),
    ?assertEqual([{chunk, <<"x">>}, eof, eof], [?S:recv(A), ?S:recv(A), ?S:recv(A, 0)]),
    ?assertEqual([{ok, done}, {ok, done}], [?S:await_reply(A), ?S:await_reply(A, 0)]),
    ?assertEqual({error, send_closed}, ?S:send(A, <<>>)),
    ?assertEqual([ok, ok, ok, ok], [?S:close(A), ?S:close_send(A), ?S:set_reply(A, x), ?S:abort(A, <<>>, <<>>)]),
    ?assertMatch(#{role := client, reply := {ok, done}, closed_recv := true}, ?S:info(A)),
    ?assertEqual({error, closed}, ?S:active(A, true)),
    %% And of what never was one, as of one that ended long ago.
    [?assertEqual({error, closed}, Ask(self())) || Ask <- [fun ?S:recv/1, fun ?S:await_reply/1, fun ?S:close/1,
                                                           fun ?S:close_send/1, fun ?S:info/1, fun ?S:cancel/1]],
    ?assertEqual({error, closed}, ?S:send(self(), <<>>)),
    ?assertEqual(ok, ?S:deliver_chunk(self(), raw, <<>>)).

re_pairing(_Config) ->
    {A, _} = pair(),
    C = half(#{}),
    ok = ?S:pair(A, C),
    ok = ?S:send(A, <<"x">>),
    ?assertEqual({chunk, <<"x">>}, ?S:recv(C)),
    ?assertMatch(#{peer := {local, C}}, ?S:info(A)).

info(_Config) ->
    {A, B} = pair(),
    ok = ?S:send(A, <<"abc">>),
    ?assertEqual(#{id => id, role => client, mode => bidi, peer => {local, B}, inbox_size => 0, inbox_bytes => 0,
                   window => 262144, waiters => 0, closed_recv => false, closed_send => false, seq_out => 1, seq_in => 0,
                   reply => undefined}, ?S:info(A)),
    ?assertMatch(#{role := server, inbox_size := 1, inbox_bytes := 64, seq_in := 1}, ?S:info(B)).

deadline(_Config) ->
    A = half(#{deadline => 20}),
    B = half(#{}),
    ok = ?S:pair(A, B),
    [?assertMatch({error, {<<"deadline_exceeded">>, <<"the call was not over after 20 ms">>}}, Ask(Half))
     || Half <- [A, B], Ask <- [fun ?S:recv/1, fun ?S:await_reply/1]].

active_all(_Config) ->
    {A, B} = pair(),
    ok = ?S:send(A, <<"1">>),
    ok = ?S:active(B, true),
    ok = ?S:send(A, {term, 2}, msgpack),
    ok = ?S:close_send(A),
    ok = ?S:set_reply(A, done),
    Expected = [{chunk, <<"1">>}, {data, {term, 2}}, eof],
    ?assertEqual(Expected, [receive {rpc, B, What} when What =/= {reply, {ok, done}} -> What after 5000 -> none end
                            || _ <- Expected]),
    ?assertEqual({reply, {ok, done}}, told(B)),
    no_messages().

active_number(_Config) ->
    {A, B} = pair(#{window => 256}),
    ok = ?S:active(B, 2),
    [ok = ?S:send(A, <<Number>>) || Number <- lists:seq(1, 6)],
    ?assertEqual([{chunk, <<1>>}, {chunk, <<2>>}, passive], [told(B), told(B), told(B)]),
    ?assertEqual({error, would_block}, ?S:send(A, <<7>>, raw, 0)),
    no_messages(),
    ok = ?S:active(B, 1),
    ok = ?S:active(B, false),
    ?assertEqual([{chunk, <<3>>}, passive], [told(B), told(B)]),
    ?assertEqual({chunk, <<4>>}, ?S:recv(B)).

active_once(_Config) ->
    {A, B} = pair(),
    [begin
         ok = ?S:active(B, once),
         ok = ?S:send(A, <<Number>>),
         ?assertEqual({chunk, <<Number>>}, told(B))
     end || Number <- [1, 2, 3]],
    ok = ?S:send(A, <<4>>),
    ?assertEqual({chunk, <<4>>}, ?S:recv(B)),
    no_messages().

active_error(_Config) ->
    {A, B} = pair(),
    ok = ?S:active(B, true),
    ok = ?S:abort(A, <<"c">>, <<"m">>),
    ?assertEqual({error, {<<"c">>, <<"m">>}}, told(B)),
    wait_until(fun() -> not is_process_alive(B) end),
    no_messages().

controlling_process(_Config) ->
    {A, B} = pair(),
    Owner = await(fun() -> told(B) end),
    ok = ?S:controlling_process(B, element(1, Owner)),
    ok = ?S:active(B, true),
    ok = ?S:send(A, <<"x">>),
    ?assertEqual({chunk, <<"x">>}, result(Owner)),
    ?assertEqual({error, peer_down}, ?S:recv(A)).

delivered(_Config) ->
    Stream = half(#{window => 2}),
    ok = ?S:deliver_chunk(Stream, raw, <<"raw">>),
    ok = ?S:deliver_chunk(Stream, msgpack, [1]),
    ok = ?S:deliver_chunk(Stream, <<"json">>, <<"{}">>),
    ok = ?S:deliver_end(Stream, send),
    ok = ?S:deliver_chunk(Stream, raw, <<"dropped">>),
    ?assertEqual([{chunk, <<"raw">>}, {data, [1]}, {data, {<<"json">>, <<"{}">>}}, eof, eof],
                 [?S:recv(Stream, 0) || _ <- lists:seq(1, 5)]),
    ok = ?S:deliver_error(Stream, <<"c">>, <<"m">>),
    ?assertEqual({error, {<<"c">>, <<"m">>}}, ?S:recv(Stream)),
    Both = half(#{}),
    Waiter = await(fun() -> ?S:await_reply(Both) end),
    wait_until(fun() -> is_waiting(Waiter) end),
    ok = ?S:deliver_end(Both, both),
    ?assertEqual({error, peer_closed}, result(Waiter)),
    ?assertEqual([eof, {error, send_closed}], [?S:recv(Both), ?S:send(Both, <<>>)]).

unknown_requests(_Config) ->
    {A, B} = pair(),
    ?assertEqual({error, unknown}, gen_server:call(A, whatever)),
    ok = gen_server:cast(A, whatever),
    A ! whatever,
    ok = ?S:send(A, <<"x">>),
    ?assertEqual({chunk, <<"x">>}, ?S:recv(B)).

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

%% Halves

half(Opts) ->
    {ok, Stream} = ?S:start_link(maps:merge(#{id => id, role => client, mode => bidi, owner => self()}, Opts)),
    Stream.

pair() ->
    pair(#{}).

pair(Opts) ->
    Halves = {A, B} = {half(Opts), half(Opts#{role => server})},
    ok = ?S:pair(A, B),
    Halves.

waiters(Stream) ->
    maps:get(waiters, ?S:info(Stream)).

told(Stream) ->
    receive {rpc, Stream, What} -> What after 5000 -> nothing end.

%% Processes that wait

await(Fun) ->
    spawn_monitor(fun() -> exit({result, Fun()}) end).

result({_Process, Monitor}) ->
    receive {'DOWN', Monitor, process, _, {result, Result}} -> Result after 10000 -> still_waiting end.

is_waiting({Process, _Monitor}) ->
    process_info(Process, status) =:= {status, waiting}.

kill({Process, Monitor}) ->
    exit(Process, kill),
    receive {'DOWN', Monitor, process, _, killed} -> ok end.

wait_until(Condition) ->
    wait_until(Condition, erlang:monotonic_time(millisecond) + 10000).

wait_until(Condition, End) ->
    case Condition() of
        true -> ok;
        false ->
            ?assert(erlang:monotonic_time(millisecond) < End),
            erlang:yield(),
            wait_until(Condition, End)
    end.

no_messages() ->
    ?assertEqual({messages, []}, process_info(self(), messages)).
