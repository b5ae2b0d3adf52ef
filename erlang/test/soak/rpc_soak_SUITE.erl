%% @doc Streaming calls with much: many one after the other and at once, gigabytes behind a receiver that has stopped, and
%% long sequences of commands against the model.
-module(rpc_soak_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-define(S, causeway_rpc_stream).

suite() -> [{timetrap, {minutes, 30}}].

all() -> [hundred_thousand_streams, ten_thousand_at_once, stopped_receiver, prop_stream].

init_per_suite(Config) ->
    true = code:add_patha(filename:dirname(code:which(?MODULE)) ++ "/.."),
    ok = causeway_ct:start(),
    Config.

end_per_suite(_Config) -> application:stop(causeway).

%% Opened, used and finished, they leave nothing but the last 10,000 that still answer.
hundred_thousand_streams(_Config) ->
    ok = causeway_rpc:advertise(soak, fun(Stream, Number) -> ok = ?S:send(Stream, <<Number:32>>) end),
    finish_streams(20000),
    Processes = erlang:system_info(process_count),
    Before = causeway_ct:rss(),
    finish_streams(100000),
    causeway_ct:wait_until(fun() -> erlang:system_info(process_count) =< Processes + 2 end),
    ?assert(causeway_rpc_streams:count() =< 10000),
    After = causeway_ct:rss(),
    ct:log("~p and then ~p bytes", [Before, After]),
    ?assert(After - Before < 16 * 1048576),
    ?assertEqual([], causeway_ct:mailbox()).

finish_streams(Number) ->
    [begin
         {ok, Stream} = causeway_rpc:call_stream(soak, Each),
         {chunk, <<Each:32>>} = ?S:recv(Stream),
         eof = ?S:recv(Stream)
     end || Each <- lists:seq(1, Number)],
    ok.

%% Two halves each, in two processes.
ten_thousand_at_once(_Config) ->
    Before = causeway_ct:rss(),
    Pairs = [pair() || _ <- lists:seq(1, 10000)],
    Each = (causeway_ct:rss() - Before) div 20000,
    ct:log("~p bytes each", [Each]),
    ?assert(Each =< 4096),
    [ok = ?S:send(A, <<"x">>) || {A, _} <- Pairs],
    [{chunk, <<"x">>} = ?S:recv(B) || {_, B} <- Pairs],
    [ok = ?S:close(A) || {A, _} <- Pairs].

%% 10 GB wait a minute behind it.
stopped_receiver(_Config) ->
    {A, B} = pair(),
    Chunk = binary:copy(<<"x">>, 100000),
    {_, Sender} = spawn_monitor(fun() -> [ok = ?S:send(A, binary:copy(Chunk)) || _ <- lists:seq(1, 100000)] end),
    {chunk, Chunk} = ?S:recv(B),
    Before = causeway_ct:rss(),
    receive after 60000 -> ok end,
    ?assert(causeway_ct:rss() - Before < 16 * 1048576),
    [{chunk, Chunk} = ?S:recv(B) || _ <- lists:seq(2, 100000)],
    receive {'DOWN', Sender, process, _, Reason} -> ?assertEqual(normal, Reason) end,
    ?assert(causeway_ct:rss() - Before < 32 * 1048576).

pair() ->
    [A, B] = [begin
                  {ok, Half} = ?S:start_link(#{id => Role, role => Role, mode => bidi, owner => self()}),
                  Half
              end || Role <- [client, server]],
    ok = ?S:pair(A, B),
    {A, B}.

prop_stream(_Config) -> causeway_rpc_property_SUITE:check(10000).
