%% Halves of streaming calls that tell their owner what comes.
-module(causeway_rpc_active_SUITE).

-include_lib("stdlib/include/assert.hrl").

-import(rpc_halves, [pair/0, pair/1, told/1, await/1, result/1, no_messages/0]).
-import(causeway_ct, [wait_until/1]).

-export([suite/0, all/0, init_per_suite/1, end_per_suite/1]).
-export([active_all/1, active_number/1, active_once/1, active_error/1, controlling_process/1]).

-define(S, causeway_rpc_stream).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [active_all, active_number, active_once, active_error, controlling_process].

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(causeway),
    Config.

end_per_suite(_Config) ->
    ok.

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
