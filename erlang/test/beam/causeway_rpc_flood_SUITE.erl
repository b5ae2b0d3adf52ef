%% Peers of a connection of streaming calls that send frames faster than these are handled: what waits is bounded, nothing
%% more is read meanwhile, and all goes on afterwards.
-module(causeway_rpc_flood_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([suite/0, all/0, init_per_suite/1, end_per_suite/1, init_per_testcase/2, end_per_testcase/2]).
-export([refused_opens/1, opens_while_we_wait/1, unknown_calls/1, room/1, chunks/1, ends/1, large_frames/1, answers/1,
         half_that_is_slow/1, windows/1]).

-define(R, causeway_rpc).
-define(S, causeway_rpc_stream).
-define(P, causeway_packet_connection).
-define(OPEN, 16#27).
-define(DATA, 16#28).
-define(END, 16#29).
-define(ERROR, 16#2a).
-define(CREDIT, 16#2c).
%% Much more than any peer gets rid of while nothing is handled.
-define(ENOUGH, 100000000).
%% How many bytes wait for the connection's process, and what a frame counts beside its payload.
-define(WINDOW, 4194304).
-define(OVERHEAD, 512).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [refused_opens, opens_while_we_wait, unknown_calls, room, chunks, ends, large_frames, answers, half_that_is_slow, windows].

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(causeway),
    Config.

end_per_suite(_Config) -> application:stop(causeway).

%% Connections end with a reason.
init_per_testcase(_Case, Config) ->
    process_flag(trap_exit, true),
    ok = rpc_peer:serve_held(<<"held">>),
    Config.

end_per_testcase(_Case, _Config) ->
    rpc_peer:serve_nothing().

%% Each has to be answered by the process that does not.
refused_opens(_Config) ->
    {_, _, {Connection, Packets, _} = Flooded} = connect_and_open(#{max_calls => 1}),
    flood(opens(<<"held">>), Flooded),
    causeway_ct:wait_until(fun() -> maps:get(in_hand, ?P:info(Packets)) =:= 0 end),
    ?assertEqual(#{calls => 1}, causeway_rpc_connection:info(Connection)),
    hang_up(Flooded).

%% A handler may wait for what the other side is yet to answer: their number is no limit then, but their size is.
opens_while_we_wait(_Config) ->
    {Connection, Packets, _} = Flooded = connect(#{max_calls => 1}),
    spawn_link(fun() -> ?R:open_stream(<<"there">>, nil, #{connection => Connection, open_timeout => infinity}) end),
    causeway_ct:wait_until(fun() -> maps:get(outstanding, ?P:info(Packets)) =:= 1 end),
    flood(opens(<<"nobody">>), Flooded),
    ?assert(maps:get(in_hand, ?P:info(Packets)) > 1024),
    go_on(Flooded).

opens(Name) ->
    Payload = rpc_peer:opening(Name, 8, 1000),
    fun(Tag) -> frames(fun(Next) -> frame(?OPEN, Next, Payload) end, Tag, 200) end.

unknown_calls(_Config) ->
    Flooded = connect(#{}),
    {ok, Error} = causeway_cbor:encode(#{stream_id => 6, code => <<"cancelled">>, message => <<>>}),
    Frames = [{?CREDIT, <<6:32, 100:32>>}, {?DATA, iolist_to_binary(rpc_peer:data(6, 0, [<<0:800>>]))}, {?ERROR, Error},
              {?DATA, <<>>}, {?CREDIT, <<>>}, {?END, <<>>}],
    flood(same(Frames), Flooded),
    go_on(Flooded).

room(_Config) ->
    {_, Stream, Flooded} = connect_and_open(#{}),
    flood(same([{?CREDIT, <<0:32, 1:32>>}]), Flooded),
    ?assertMatch(#{closed_send := false}, ?S:info(Stream)),
    go_on(Flooded).

%% Empty ones, those that are not the next, and those that ignore credit.
chunks(_Config) ->
    {Handler, Stream, Flooded} = connect_and_open(#{}),
    flood(same([{?DATA, <<0:32, 0:32>>}, {?DATA, iolist_to_binary(rpc_peer:data(0, 7, [<<0:8000>>]))}]), Flooded),
    go_on(Flooded),
    ?assertMatch({error, {<<"out_of_order">>, _}}, ?S:recv(Stream)),
    Handler ! {go, fun(_) -> ok end}.

ends(_Config) ->
    {_, Stream, Flooded} = connect_and_open(#{}),
    {ok, End} = causeway_cbor:encode(#{stream_id => 0, role => send}),
    flood(same([{?END, End}]), Flooded),
    ?assertEqual(eof, ?S:recv(Stream)),
    ?assertMatch(#{closed_recv := true, closed_send := false}, ?S:info(Stream)),
    go_on(Flooded).

large_frames(_Config) ->
    {Handler, Stream, Flooded} = connect_and_open(#{}),
    Payload = iolist_to_binary(rpc_peer:data(0, 0, [binary:copy(<<"x">>, 1000000)])),
    flood(same([{?DATA, Payload}]), Flooded),
    go_on(Flooded),
    ?assertMatch({_, {error, {<<"out_of_order">>, _}}}, rpc_peer:all_of(Stream)),
    Handler ! {go, fun(_) -> ok end}.

%% They come all at once, and are larger than any answer to a frame.
answers(_Config) ->
    {Handler, _Stream, {_, Packets, _} = Flooded} = connect_and_open(#{}),
    Chunk = binary:copy(<<"x">>, 200000),
    Handler ! {go, fun(Half) -> [?S:send(Half, Chunk) || _ <- lists:seq(1, 100)] end},
    causeway_ct:wait_until(fun() -> maps:get(outstanding, ?P:info(Packets)) >= 8 end),
    Large = binary:copy(<<"x">>, 2000000),
    flood(fun(Tag) when Tag =< 8 -> {1, [causeway_nif:packet_head({response, 0, Tag, 1}, byte_size(Large)), Large]};
             (_Tag) -> none
          end, Flooded),
    go_on(Flooded).

%% The process of the connection goes on, that of a half does not.
half_that_is_slow(_Config) ->
    {ok, End} = causeway_cbor:encode(#{stream_id => 0, role => send}),
    [begin
         {_, Stream, {Connection, Packets, Socket} = Flooded} = connect_and_open(#{}, 1),
         true = erlang:suspend_process(Stream),
         {Frames, Bytes} = (same([Frame]))(1),
         [ok = gen_tcp:send(Socket, Bytes) || _ <- lists:seq(1, 5)],
         causeway_ct:wait_until(fun() -> maps:get(packets_in, ?P:info(Packets)) >= 5 * Frames end),
         #{calls := 1} = causeway_rpc_connection:info(Connection),
         ?assertMatch({_, {message_queue_len, Length}} when Length < 1000, {Frame, process_info(Stream, message_queue_len)}),
         true = erlang:resume_process(Stream),
         go_on(Flooded)
     end || Frame <- [{?CREDIT, <<0:32, 1:32>>}, {?END, End}, {?DATA, <<0:32, 0:32>>},
                      {?DATA, iolist_to_binary(rpc_peer:data(0, 7, [<<>>]))}]].

%% Calls go on with any.
windows(_Config) ->
    Total = fun(Stream, _) -> ?S:set_reply(Stream, element(1, rpc_peer:all_of(Stream))) end,
    ok = ?R:advertise(<<"total">>, client_stream, Total),
    [begin
         {One, Two} = rpc_peer:sockets(),
         {ok, Connection} = ?R:connect(One),
         {ok, Other} = ?R:connect(Two, #{receive_window => Window}),
         {ok, Stream} = ?R:open_stream(<<"total">>, nil, #{connection => Connection}),
         [ok = ?S:send(Stream, <<0:(8 * Size)>>) || _ <- lists:seq(1, 20), Size <- [1, 100, 10000]],
         ok = ?S:close_send(Stream),
         ?assertEqual({ok, 202020}, ?S:await_reply(Stream, 20000)),
         ok = causeway_rpc_connection:close(Connection),
         causeway_ct:wait_until(fun() -> not is_process_alive(Other) end)
     end || Window <- [1, 1000, 100000, infinity]],
    {One, _} = rpc_peer:sockets(),
    ?assertMatch({error, {badarg, _}}, ?R:connect(One, #{receive_window => 0})).

%% Connections

connect(Options) ->
    {One, Two} = rpc_peer:sockets(),
    {ok, Connection} = ?R:connect(One, Options),
    {monitors, [{process, Packets}]} = process_info(Connection, monitors),
    %% Answers are thrown away: a peer that does not read is stopped by that alone.
    spawn_link(fun() -> throw_away(Two) end),
    {Connection, Packets, Two}.

throw_away(Socket) ->
    case gen_tcp:recv(Socket, 0) of
        {ok, _} -> throw_away(Socket);
        {error, _} -> ok
    end.

connect_and_open(Options) ->
    connect_and_open(Options, 1 bsl 30).

connect_and_open(Options, Room) ->
    {_, _, Socket} = Flooded = connect(Options),
    ok = gen_tcp:send(Socket, frame(?OPEN, 1 bsl 40, rpc_peer:opening(<<"held">>, 0, Room))),
    receive {handler, Handler, Stream} -> {Handler, Stream, Flooded} end.

%% After all that was sent is handled, a call that comes last is served.
go_on({Connection, _Packets, Socket} = Flooded) ->
    Test = self(),
    ok = ?R:advertise(<<"last">>, fun(_) -> Test ! served end),
    ok = gen_tcp:send(Socket, frame(?OPEN, 1 bsl 41, rpc_peer:opening(<<"last">>, 1000, 1000))),
    receive served -> ok end,
    ?assertMatch({message_queue_len, Length} when Length < 100, process_info(Connection, message_queue_len)),
    hang_up(Flooded).

hang_up({Connection, _Packets, Socket}) ->
    ok = gen_tcp:close(Socket),
    causeway_ct:wait_until(fun() -> not is_process_alive(Connection) end).

%% Floods

frame(Type, Tag, Payload) ->
    [causeway_nif:packet_head({request, 0, Tag, 0, Type + 1}, byte_size(Payload)), Payload].

frames(Make, Tag, Number) ->
    {Number, [Make(Next) || Next <- lists:seq(Tag, Tag + Number - 1)]}.

%% The same bytes, some 64 KB.
same(Frames) ->
    One = iolist_to_binary([frame(Type, Tag, Payload) || {Tag, {Type, Payload}} <- lists:enumerate(Frames)]),
    Times = max(1, 65536 div byte_size(One)),
    Block = binary:copy(One, Times),
    fun(_Tag) -> {Times * length(Frames), Block} end.

%% Sends while nothing is handled, until nothing is read any more.
flood(Next, {Connection, Packets, Socket}) ->
    erlang:garbage_collect(),
    Before = causeway_ct:memory(total),
    Sent = counters:new(1, []),
    ok = sys:suspend(Connection),
    {Flooder, Monitor} = spawn_monitor(fun() -> send(Next, 1, Socket, Sent) end),
    causeway_ct:wait_until(fun() -> has_stopped(Packets) orelse not is_process_alive(Flooder) end),
    ?assert(is_process_alive(Flooder)),
    ?assert(causeway_ct:memory(total) - Before < 48 * 1048576, causeway_ct:memory(total) - Before),
    ?assertMatch({message_queue_len, Length} when Length =< 2 * ?WINDOW div ?OVERHEAD,
                 process_info(Connection, message_queue_len)),
    %% Others go on meanwhile.
    ?assertEqual({ok, 4}, elsewhere(2)),
    ?assert(has_stopped(Packets)),
    ok = sys:resume(Connection),
    Flooder ! stop,
    receive {'DOWN', Monitor, process, Flooder, Reason} -> ?assertEqual(normal, Reason) end.

has_stopped(Packets) ->
    #{is_reading := IsReading, queued_bytes := Queued} = ?P:info(Packets),
    not IsReading andalso Queued =:= 0.

send(Next, Tag, Socket, Sent) ->
    receive
        stop -> ok
    after 0 ->
        case counters:get(Sent, 1) < ?ENOUGH andalso Next(Tag) of
            {Number, Bytes} ->
                ok = gen_tcp:send(Socket, Bytes),
                ok = counters:add(Sent, 1, iolist_size(Bytes)),
                send(Next, Tag + Number, Socket, Sent);
            _Enough ->
                ok
        end
    end.

elsewhere(Number) ->
    {One, Two} = rpc_peer:sockets(),
    {ok, Connection} = ?R:connect(One),
    {ok, Other} = ?R:connect(Two),
    ok = ?R:advertise(<<"double">>, fun(It) -> 2 * It end),
    Doubled = ?R:call(<<"double">>, Number, #{connection => Connection}),
    ok = causeway_rpc_connection:close(Connection),
    causeway_ct:wait_until(fun() -> not is_process_alive(Other) end),
    Doubled.
