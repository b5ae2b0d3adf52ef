%% Streaming calls over a packet connection whose peer sends more than there is room for, or what it may not; and many calls
%% over one connection, of which some are not read.
-module(causeway_rpc_credit_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([suite/0, all/0, init_per_suite/1, end_per_suite/1, init_per_testcase/2, end_per_testcase/2]).
-export([too_much/1, too_much_for_a_client/1, much_too_much/1, large_chunk/1, weightless_terms/1, second_reply/1,
         nothing_at_all/1, unread_streams_stop_no_other/1]).

-define(R, causeway_rpc).
-define(S, causeway_rpc_stream).
-define(DATA, 16#28).
-define(END, 16#29).
-define(ERROR, 16#2a).
-define(CREDIT, 16#2c).

suite() -> [{timetrap, {seconds, 30}}].

all() ->
    [too_much, too_much_for_a_client, much_too_much, large_chunk, weightless_terms, second_reply, nothing_at_all,
     unread_streams_stop_no_other].

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(causeway),
    Config.

end_per_suite(_Config) -> application:stop(causeway).

%% Connections end with a reason.
init_per_testcase(_Case, Config) ->
    process_flag(trap_exit, true),
    Config.

end_per_testcase(_Case, _Config) ->
    rpc_peer:serve_nothing().

%% The handler takes all when it is told `go'.
open(Peer) ->
    {Handler, Stream, Room} = rpc_peer:open(Peer),
    Test = self(),
    Handler ! {go, fun(Half) -> receive go -> Test ! {taken, self(), rpc_peer:all_of(Half)} end end},
    {Handler, Stream, Room}.

fill(Peer, Seq, Chunk) ->
    {ok, 0, _} = rpc_peer:send(Peer, 0, Seq, [Chunk]),
    receive
        {frame, ?ERROR, Payload} -> {Seq, causeway_cbor:decode(Payload)}
    after 0 -> fill(Peer, Seq + 1, Chunk)
    end.

too_much(_Config) ->
    {_, Peer} = Both = rpc_peer:connect(),
    {Handler, Stream, Room} = open(Peer),
    {Seq, {ok, Error}} = fill(Peer, 0, binary:copy(<<"x">>, 10000)),
    ?assertMatch(#{<<"code">> := <<"out_of_credit">>, <<"stream_id">> := 1}, Error),
    ?assert(Seq * 10000 < 2 * Room),
    %% What comes after it is dropped.
    [{ok, 0, _} = rpc_peer:send(Peer, 0, Number, [<<0:800000>>]) || Number <- lists:seq(Seq + 1, Seq + 20)],
    ?assertMatch(#{closed_recv := true}, ?S:info(Stream)),
    Handler ! go,
    receive
        {taken, Handler, {Bytes, Outcome}} ->
            %% What had its place here; what was to have one is dropped.
            ?assert(Bytes > Room div 4 - 10000 andalso Bytes =< Room div 4),
            ?assertMatch({error, {<<"out_of_credit">>, <<"10000 bytes have come where there was room for ", _/binary>>}}, Outcome)
    end,
    rpc_peer:close(Both).

%% Who is called must keep to it as well.
too_much_for_a_client(_Config) ->
    {Connection, Peer} = Both = rpc_peer:connect(),
    Test = self(),
    spawn_link(fun() ->
        {ok, Stream} = ?R:call_stream(<<"there">>, nil, #{connection => Connection, window => 1000}),
        Test ! {client, self(), Stream},
        receive go -> Test ! {taken, self(), rpc_peer:all_of(Stream)} end
    end),
    receive
        {opened, Payload, From} ->
            {ok, #{<<"stream_id">> := 0, <<"window">> := 4000}} = causeway_cbor:decode(Payload),
            {ok, Answer} = causeway_cbor:encode(#{window => 1000, mode => server_stream}),
            ok = causeway_packet_connection:reply(From, {ok, Answer})
    end,
    Client = receive {client, Process, _} -> Process end,
    {ok, 0, _} = rpc_peer:send(Peer, 1, 0, [<<0:24000>>]),
    %% That has its place where it is received.
    receive {frame, ?CREDIT, Credit} -> ?assertEqual(<<0:32, 3000:32>>, Credit) end,
    {ok, 0, _} = rpc_peer:send(Peer, 1, 1, [<<0:32000>>]),
    {ok, 0, _} = rpc_peer:send(Peer, 1, 2, [<<0>>]),
    ?assertMatch(#{<<"code">> := <<"out_of_credit">>, <<"stream_id">> := 0}, rpc_peer:error_frame()),
    Client ! go,
    receive {taken, Client, Taken} -> ?assertMatch({3000, {error, {<<"out_of_credit">>, _}}}, Taken) end,
    rpc_peer:close(Both).

%% A gigabyte, as fast as it goes.
much_too_much(_Config) ->
    {_, Peer} = Both = rpc_peer:connect(),
    {Handler, _Stream, _Room} = open(Peer),
    erlang:garbage_collect(),
    Before = causeway_ct:memory(total),
    Payload = iolist_to_binary(rpc_peer:data(0, 0, [binary:copy(<<"x">>, 1000000)])),
    Most = lists:foldl(fun(_, Most) ->
        [{ok, 0, _} = causeway_packet_connection:request(Peer, ?DATA, Payload) || _ <- lists:seq(1, 20)],
        max(Most, causeway_ct:memory(total))
    end, 0, lists:seq(1, 50)),
    ?assertMatch(#{<<"code">> := _}, rpc_peer:error_frame()),
    ?assert(Most - Before < 64 * 1048576),
    Handler ! go,
    receive {taken, Handler, {1000000, {error, _}}} -> ok end,
    rpc_peer:close(Both).

%% The first is taken however large it is, where there is any room.
large_chunk(_Config) ->
    {_, Peer} = Both = rpc_peer:connect(),
    {Handler, Stream, Room} = open(Peer),
    Large = binary:copy(<<"x">>, 3 * Room),
    {ok, 0, _} = rpc_peer:send(Peer, 0, 0, [Large]),
    causeway_ct:wait_until(fun() -> maps:get(seq_in, ?S:info(Stream)) =:= 1 end),
    {ok, 0, _} = causeway_packet_connection:request(Peer, ?END, element(2, causeway_cbor:encode(#{stream_id => 0, role => send}))),
    Handler ! go,
    receive {taken, Handler, Taken} -> ?assertEqual({3 * Room, eof}, Taken) end,
    rpc_peer:close(Both).

weightless_terms(_Config) ->
    {_, Peer} = Both = rpc_peer:connect(),
    {Handler, Stream, _Room} = open(Peer),
    {ok, Body} = causeway_cbor:encode(binary:copy(<<"x">>, 1000)),
    [{ok, 0, _} = causeway_packet_connection:request(
                    Peer, ?DATA, <<0:32, 0:32, 1, Weight:32, (byte_size(Body)):32, Body/binary>>) || Weight <- [0, 1, 100]],
    {ok, 0, _} = causeway_packet_connection:request(
                   Peer, ?DATA, <<0:32, 0:32, 1, 1000:32, (byte_size(Body)):32, Body/binary>>),
    causeway_ct:wait_until(fun() -> maps:get(seq_in, ?S:info(Stream)) =:= 1 end),
    exit(Handler, kill),
    rpc_peer:close(Both).

second_reply(_Config) ->
    {_, Peer} = Both = rpc_peer:connect(),
    {Handler, Stream, _Room} = open(Peer),
    {ok, Body} = causeway_cbor:encode(#{result => 1}),
    Reply = <<0:32, 0:32, 2, 0:32, (byte_size(Body)):32, Body/binary>>,
    {ok, 0, _} = causeway_packet_connection:request(Peer, ?DATA, Reply),
    ?assertEqual({ok, 1}, ?S:await_reply(Stream, 10000)),
    {ok, 0, _} = causeway_packet_connection:request(Peer, ?DATA, Reply),
    ?assertMatch(#{<<"code">> := <<"badarg">>, <<"message">> := <<"a second reply has come">>}, rpc_peer:error_frame()),
    exit(Handler, kill),
    rpc_peer:close(Both).

%% What takes no room fills nothing either.
nothing_at_all(_Config) ->
    {_, Peer} = Both = rpc_peer:connect(),
    {Handler, Stream, Room} = open(Peer),
    {ok, 0, _} = rpc_peer:send(Peer, 0, 0, [binary:copy(<<"x">>, Room)]),
    {ok, End} = causeway_cbor:encode(#{stream_id => 0, role => send}),
    [{ok, 0, _} = causeway_packet_connection:request(Peer, Type, Payload)
     || _ <- lists:seq(1, 2000), {Type, Payload} <- [{?DATA, <<0:32, 1:32>>}, {?END, End}]],
    ?assertMatch({message_queue_len, Length} when Length < 10, process_info(Stream, message_queue_len)),
    ?assert(element(2, process_info(Stream, memory)) < 100000),
    Handler ! go,
    receive {taken, Handler, Taken} -> ?assertEqual({Room, eof}, Taken) end,
    rpc_peer:close(Both).

unread_streams_stop_no_other(_Config) ->
    {One, Two} = rpc_peer:sockets(),
    {ok, Connection} = ?R:connect(One),
    {ok, Other} = ?R:connect(Two),
    Opts = #{connection => Connection},
    Chunk = binary:copy(<<"x">>, 10000),
    ok = ?R:advertise(<<"endless">>, fun(Stream, _) -> endless(Stream, Chunk) end),
    ok = ?R:advertise(<<"count">>, fun(Stream, Number) -> [ok = ?S:send(Stream, Chunk) || _ <- lists:seq(1, Number)] end),
    ok = ?R:advertise(<<"total">>, client_stream, fun(Stream, _) -> ?S:set_reply(Stream, element(1, rpc_peer:all_of(Stream))) end),
    ok = ?R:advertise(<<"held">>, client_stream, fun(Stream, _) -> ?S:await_reply(Stream) end),
    Unread = [element(2, ?R:call_stream(<<"endless">>, nil, Opts)) || _ <- lists:seq(1, 5)],
    {ok, Full} = ?R:open_stream(<<"held">>, nil, Opts),
    fill(Full, Chunk),
    {ok, Count} = ?R:call_stream(<<"count">>, 1000, Opts),
    ?assertEqual({10000000, eof}, rpc_peer:all_of(Count)),
    {ok, Total} = ?R:open_stream(<<"total">>, nil, Opts),
    [ok = ?S:send(Total, Chunk, raw, 10000) || _ <- lists:seq(1, 1000)],
    ok = ?S:close_send(Total),
    ?assertEqual({ok, 10000000}, ?S:await_reply(Total, 10000)),
    [ok = ?S:cancel(Stream) || Stream <- [Full | Unread]],
    ok = causeway_rpc_connection:close(Connection),
    causeway_ct:wait_until(fun() -> not is_process_alive(Other) end).

endless(Stream, Chunk) ->
    case ?S:send(Stream, Chunk) of
        ok -> endless(Stream, Chunk);
        {error, _} -> ok
    end.

fill(Stream, Chunk) ->
    case ?S:send(Stream, Chunk, raw, 50) of
        ok -> fill(Stream, Chunk);
        {error, timeout} -> ok
    end.
