%% One half of a streaming call and two that are joined: what each function returns, and how they end.
-module(causeway_rpc_stream_SUITE).

-include_lib("stdlib/include/assert.hrl").

-import(rpc_halves, [half/1, pair/0, pair/1, waiters/1, await/1, result/1, is_waiting/1]).
-import(causeway_ct, [wait_until/1]).

-export([suite/0, all/0, init_per_suite/1, end_per_suite/1]).
-export([missing_options/1, wrong_options/1, unpaired/1, chunks_in_order/1, terms/1, wrong_chunks/1, half_close/1,
         close/1, abort/1, abort_is_sticky/1, chunks_before_the_error/1, cancel/1, reply/1, reply_overtakes_nothing/1,
         delivered_reply_overwrites/1, many_at_once/1, owner_ends/1, killed_half/1, ends_by_itself/1,
         answers_when_ended/1, re_pairing/1, info/1, deadline/1, delivered/1, unknown_requests/1]).

-define(S, causeway_rpc_stream).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [missing_options, wrong_options, unpaired, chunks_in_order, terms, wrong_chunks, half_close, close, abort,
     abort_is_sticky, chunks_before_the_error, cancel, reply, reply_overtakes_nothing, delivered_reply_overwrites,
     many_at_once, owner_ends, killed_half, ends_by_itself, answers_when_ended, re_pairing, info, deadline, delivered,
     unknown_requests].

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

abort(_Config) ->
    {A, B} = pair(),
    Waiters = [await(Wait) || Wait <- [fun() -> ?S:recv(A) end, fun() -> ?S:recv(B) end,
                                       fun() -> ?S:await_reply(A) end, fun() -> ?S:await_reply(B) end]],
    wait_until(fun() -> lists:all(fun rpc_halves:is_waiting/1, Waiters) end),
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
    wait_until(fun() -> lists:all(fun rpc_halves:is_waiting/1, Waiters) end),
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
