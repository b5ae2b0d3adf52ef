%% How many calls the peer of a packet connection may have open, and how far a sender is ahead of one that gives room without
%% end: with peers that do what they may not.
-module(causeway_rpc_limits_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([suite/0, all/0, init_per_suite/1, end_per_suite/1, init_per_testcase/2, end_per_testcase/2]).
-export([wrong_options/1, too_many_calls/1, own_calls_do_not_count/1, handlers_that_go_on/1, cancelled_while_opened/1,
         numbers_of_others/1, endless_room/1, room_of_a_server/1, nothing_is_read/1, chunks_are_refused/1]).

-define(R, causeway_rpc).
-define(S, causeway_rpc_stream).
-define(OPEN, 16#27).
-define(DATA, 16#28).
-define(END, 16#29).
-define(ERROR, 16#2a).
-define(CREDIT, 16#2c).

suite() -> [{timetrap, {seconds, 30}}].

all() ->
    [wrong_options, too_many_calls, own_calls_do_not_count, handlers_that_go_on, cancelled_while_opened, numbers_of_others,
     endless_room, room_of_a_server, nothing_is_read, chunks_are_refused].

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

wrong_options(_Config) ->
    {One, _Two} = rpc_peer:sockets(),
    [?assertMatch({error, {badarg, _}}, ?R:connect(One, Wrong))
     || Wrong <- [#{max_calls => 0}, #{max_calls => many}, #{serve => 1}, #{other => 1}]],
    {ok, Connection} = ?R:connect(One, #{max_calls => infinity}),
    ok = causeway_rpc_connection:close(Connection).

too_many_calls(_Config) ->
    {_, Peer} = Both = rpc_peer:connect(#{max_calls => 3}),
    ok = rpc_peer:serve_held(<<"held">>),
    [First | _] = [begin
                       #{<<"window">> := _} = rpc_peer:open(Peer, Number, 1000),
                       receive {handler, Handler, _} -> Handler end
                   end || Number <- [0, 2, 4]],
    ?assertEqual(#{<<"error">> => #{<<"code">> => <<"too_many_calls">>,
                                    <<"message">> => <<"3 calls are open over this connection already">>}},
                 rpc_peer:open(Peer, 6, 1000)),
    First ! {go, fun(_) -> ok end},
    %% It is closed on both sides.
    receive {frame, ?END, _} -> ok end,
    causeway_ct:wait_until(fun() -> is_map_key(<<"window">>, rpc_peer:open(Peer, 6, 1000)) end),
    #{<<"error">> := _} = rpc_peer:open(Peer, 8, 1000),
    rpc_peer:close(Both).

own_calls_do_not_count(_Config) ->
    {One, Two} = rpc_peer:sockets(),
    {ok, Connection} = ?R:connect(One, #{max_calls => 1}),
    {ok, Other} = ?R:connect(Two),
    ok = rpc_peer:serve_held(<<"held">>),
    [{ok, _} = ?R:open_stream(<<"held">>, nil, #{connection => Connection}) || _ <- lists:seq(1, 5)],
    {ok, Stream} = ?R:open_stream(<<"held">>, nil, #{connection => Other}),
    ?assertMatch({error, {<<"too_many_calls">>, _}}, ?R:call(<<"held">>, nil, #{connection => Other})),
    ok = ?S:cancel(Stream),
    ok = causeway_rpc_connection:close(Connection).

%% A peer that opens and gives up, again and again, has no more of them than one that keeps its calls.
handlers_that_go_on(_Config) ->
    {_, Peer} = Both = rpc_peer:connect(#{max_calls => 5}),
    ok = rpc_peer:serve_held(<<"held">>),
    Answers = [begin
                   Answer = rpc_peer:open(Peer, Number, 1000),
                   {ok, 0, _} = rpc_peer:frame(Peer, ?ERROR, #{stream_id => Number, code => <<"cancelled">>, message => <<>>}),
                   Answer
               end || Number <- lists:seq(0, 198, 2)],
    ?assertEqual(5, length([1 || #{<<"window">> := _} <- Answers])),
    Handlers = [receive {handler, Handler, _} -> Handler end || _ <- lists:seq(1, 5)],
    [Handler ! {go, fun(_) -> ok end} || Handler <- Handlers],
    causeway_ct:wait_until(fun() -> is_map_key(<<"window">>, rpc_peer:open(Peer, 1000, 1000)) end),
    rpc_peer:close(Both).

%% Each opening is answered, so that those that were given up do not stop the connection in the end.
cancelled_while_opened(_Config) ->
    {_, Peer} = Both = rpc_peer:connect(),
    ok = ?R:advertise(<<"held">>, bidi, fun(Stream, _) -> ?S:recv(Stream) end),
    {ok, Error} = causeway_cbor:encode(#{stream_id => 0, code => <<"cancelled">>, message => <<>>}),
    [begin
         Opening = causeway_packet_connection:send_request(Peer, ?OPEN, rpc_peer:opening(<<"held">>, 0, 1000)),
         {ok, 0, _} = causeway_packet_connection:request(Peer, ?ERROR, Error),
         {ok, 0, _} = causeway_packet_connection:receive_response(Opening, 10000)
     end || _ <- lists:seq(1, 1500)],
    rpc_peer:close(Both).

numbers_of_others(_Config) ->
    {_, Peer} = Both = rpc_peer:connect(),
    ok = rpc_peer:serve_held(<<"held">>),
    [?assertMatch(#{<<"error">> := #{<<"code">> := <<"badarg">>}}, rpc_peer:open(Peer, Number, Window))
     || {Number, Window} <- [{1, 1000}, {-2, 1000}, {1 bsl 32, 1000}, {1 bsl 80, 1000}, {<<"0">>, 1000}, {1.0, 1000},
                             {0, 0}, {0, -1}, {0, <<"1">>}]],
    #{<<"window">> := _} = rpc_peer:open(Peer, 0, 1000),
    #{<<"error">> := #{<<"code">> := <<"badarg">>}} = rpc_peer:open(Peer, 0, 1000),
    rpc_peer:close(Both).

%% The peer gives room that no number has, says that nothing has come, and gives more.
endless_room(_Config) ->
    {Connection, Peer} = Both = rpc_peer:connect(#{noreply => [?DATA]}),
    Chunk = binary:copy(<<"x">>, 100000),
    Test = self(),
    {Sender, Monitor} = spawn_monitor(fun() ->
        {ok, Stream} = ?R:open_stream(<<"there">>, nil, #{connection => Connection}),
        Test ! {stream, Stream},
        send_all(Stream, Chunk, 500)
    end),
    receive
        {opened, _, From} ->
            {ok, Answer} = causeway_cbor:encode(#{window => 1 bsl 100, mode => bidi}),
            ok = causeway_packet_connection:reply(From, {ok, Answer})
    end,
    Stream = receive {stream, Half} -> Half end,
    give_room(Peer, 1, 100),
    Arrived = arrived([]),
    Bytes = lists:sum([byte_size(Payload) || {_, Payload} <- Arrived]),
    ?assert(Bytes >= 4000000 andalso Bytes < 5000000, Bytes),
    %% As much again waits to be passed on, at most.
    ?assert(maps:get(seq_out, ?S:info(Stream)) * 100000 < 7000000),
    give_room(Peer, 1, 100),
    ?assertEqual([], arrived([])),
    %% Who answers gets the rest.
    answer(Arrived),
    take(Monitor),
    receive {'DOWN', Monitor, process, Sender, Reason} -> ?assertEqual(normal, Reason) after 0 -> ok end,
    rpc_peer:close(Both).

send_all(_Stream, _Chunk, 0) -> ok;
send_all(Stream, Chunk, Number) ->
    ok = ?S:send(Stream, Chunk),
    send_all(Stream, Chunk, Number - 1).

give_room(Peer, Number, Times) ->
    [{ok, 0, _} = causeway_packet_connection:request(Peer, ?CREDIT, <<Number:32, 16#ffffffff:32>>) || _ <- lists:seq(1, Times)].

%% What comes until nothing does for a while.
arrived(Frames) ->
    receive
        {frame, ?DATA, Payload, From} -> arrived([{From, Payload} | Frames])
    after 200 -> lists:reverse(Frames)
    end.

answer(Frames) -> [ok = causeway_packet_connection:reply(From, ok) || {From, _} <- Frames].

take(Monitor) ->
    receive
        {frame, ?DATA, _, From} ->
            ok = causeway_packet_connection:reply(From, ok),
            take(Monitor);
        {'DOWN', Monitor, process, _, Reason} ->
            ?assertEqual(normal, Reason)
    end.

%% The same of a call that the peer has opened.
room_of_a_server(_Config) ->
    {_, Peer} = Both = rpc_peer:connect(#{noreply => [?DATA]}),
    ok = rpc_peer:serve_held(<<"held">>),
    #{<<"window">> := _} = rpc_peer:open(Peer, 0, 1 bsl 100),
    Chunk = binary:copy(<<"x">>, 100000),
    Stream = receive
        {handler, Handler, Half} ->
            Handler ! {go, fun(It) -> send_all(It, Chunk, 100000) end},
            Half
    end,
    give_room(Peer, 0, 100),
    ?assert(length(arrived([])) < 50),
    ?assert(maps:get(seq_out, ?S:info(Stream)) * 100000 < 7000000),
    rpc_peer:close(Both).

%% Here memory is what a peer would have us keep: it reads nothing, and gives room for terabytes.
nothing_is_read(_Config) ->
    {One, Two} = rpc_peer:sockets(),
    {ok, Connection} = ?R:connect(One, #{send_timeout => infinity}),
    Test = self(),
    Chunk = binary:copy(<<"x">>, 100000),
    ok = ?R:advertise(<<"source">>, fun(Stream, _) ->
        Test ! {handler, Stream},
        [ok = ?S:send(Stream, binary:copy(Chunk)) || _ <- lists:seq(1, 10000)]
    end),
    erlang:garbage_collect(),
    Before = causeway_ct:memory(total),
    ok = gen_tcp:send(Two, written(rpc_peer:opening(<<"source">>, 0, 1 bsl 100))),
    Stream = receive {handler, Half} -> Half end,
    Sent = settled(Stream),
    ?assert(Sent * 100000 < 16000000),
    ?assert(causeway_ct:memory(total) - Before < 64 * 1048576),
    ok = gen_tcp:close(Two),
    causeway_ct:wait_until(fun() -> not is_process_alive(Connection) end).

settled(Stream) ->
    #{seq_out := Before} = ?S:info(Stream),
    receive after 200 -> ok end,
    case ?S:info(Stream) of
        #{seq_out := Before} when Before > 0 -> Before;
        _ -> settled(Stream)
    end.

%% The bytes of a request, as a connection writes them.
written(Payload) ->
    {One, Two} = rpc_peer:sockets(),
    {ok, Writer} = causeway_packet_connection:start_link(One),
    _ = causeway_packet_connection:send_request(Writer, ?OPEN, Payload),
    {ok, Bytes} = gen_tcp:recv(Two, 0, 10000),
    true = unlink(Writer),
    ok = gen_tcp:close(Two),
    Bytes.

%% What the peer has not taken is missing there.
chunks_are_refused(_Config) ->
    {One, Two} = rpc_peer:sockets(),
    {ok, Connection} = ?R:connect(One),
    {ok, Answer} = causeway_cbor:encode(#{window => 1000, mode => bidi}),
    {ok, _Peer} = causeway_packet_connection:start_link(Two, #{handler => fun(?OPEN, _, _) -> Answer;
                                                                             (?DATA, _, _) -> {failed, <<"not now">>};
                                                                             (_, _, _) -> ok
                                                                          end}),
    {ok, Stream} = ?R:open_stream(<<"there">>, nil, #{connection => Connection}),
    ok = ?S:send(Stream, <<"x">>),
    ?assertEqual({error, {<<"refused">>, <<"not now">>}}, ?S:await_reply(Stream, 10000)),
    ok = causeway_rpc_connection:close(Connection).
