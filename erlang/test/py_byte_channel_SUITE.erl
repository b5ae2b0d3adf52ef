%% @doc Byte channels: messages, limits and ends.
-module(py_byte_channel_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-define(HELPERS, channel_helpers).
-define(CHANNEL, py_byte_channel).
-define(CLOSED, {error, {'ByteChannelClosed', "the channel is closed"}}).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [order_and_boundaries, both_ways, empty_messages, iodata, long_list_delays_nobody, sizes_around_the_thresholds, recv_many_bounds,
     receive_many_bounds, busy, larger_than_the_limit, room_by_a_byte, limit_at_python, unbounded, nobody_goes_before,
     close_is_idempotent, drained_then_closed, drained_then_closed_in_python, everybody_is_woken_by_close,
     abort_drops_and_sticks, abort_from_python, everybody_is_woken_by_abort, close_and_abort, info_counts].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> channel_ct:stop(Config).

init_per_testcase(_Case, Config) -> Config.

end_per_testcase(_Case, _Config) -> ?assertEqual([], causeway_ct:mailbox()).

%% Messages

order_and_boundaries(_Config) ->
    Channel = channel_ct:new(),
    Messages = [integer_to_binary(N) || N <- lists:seq(1, 2000)],
    ok = channel_ct:fill(Channel, Messages),
    ?assertEqual(Messages, [begin {ok, Message} = ?CHANNEL:recv(Channel), Message end || _ <- Messages]),
    ?assertEqual({error, empty}, ?CHANNEL:try_receive(Channel)),
    ?assertEqual({error, timeout}, ?CHANNEL:recv(Channel, 0)),
    ?assertEqual({error, timeout}, ?CHANNEL:recv(Channel, 1)).

both_ways(_Config) ->
    Channel = channel_ct:new(),
    ok = channel_ct:fill(Channel, [<<"one">>, <<"two">>, <<255, 0>>]),
    ?assertEqual({ok, <<"one">>}, py:call(?HELPERS, 'receive', [Channel])),
    ?assertEqual({ok, [<<"two">>, <<255, 0>>]}, py:call(erlang, 'ByteChannel.receive_many', [Channel])),
    ?assertEqual({ok, none}, py:call(erlang, 'ByteChannel.try_receive_bytes', [Channel])),
    ?assertMatch({error, {'TimeoutError', _}}, py:call(?HELPERS, 'receive', [Channel, 1])),
    ?assertEqual({ok, true}, py:call(?HELPERS, send, [Channel, {bytes, <<"three">>}])),
    {ok, none} = py:call(?HELPERS, send_number, [Channel, 3]),
    ?assertEqual([<<"three">>, <<"0">>, <<"1">>, <<"2">>], channel_ct:drain(Channel)).

empty_messages(_Config) ->
    Channel = channel_ct:new(10),
    ok = channel_ct:fill(Channel, [<<>>, <<"a">>, [], [<<>>, [[]]]]),
    ?assertMatch(#{size := 1, messages := 4}, ?CHANNEL:info(Channel)),
    ?assertEqual([<<>>, <<"a">>, <<>>, <<>>], channel_ct:drain(Channel)),
    ok = ?CHANNEL:send(Channel, <<>>),
    ?assertEqual({ok, <<>>}, py:call(?HELPERS, 'receive', [Channel])),
    {ok, true} = py:call(?HELPERS, send, [Channel, {bytes, <<>>}]),
    ?assertEqual({ok, <<>>}, ?CHANNEL:recv(Channel)),
    %% Neither is one taken for the end, nor a full channel in its way.
    ok = channel_ct:fill(Channel, [binary:copy(<<"x">>, 10), <<>>, <<>>]),
    ok = ?CHANNEL:close(Channel),
    ?assertEqual({ok, [binary:copy(<<"x">>, 10), <<>>, <<>>]}, py:call(?HELPERS, receive_all, [Channel])).

iodata(_Config) ->
    Channel = channel_ct:new(),
    Large = binary:copy(<<"large">>, 20000),
    Part = binary:part(Large, 5, 50000),
    <<_:3, Odd:40000/bitstring, _/bitstring>> = Large,
    Improper = [[["a", 0, 255], <<"b">>] | <<"c">>],
    Sent = [Improper, [Large, $x, Large], Part, Odd, "text"],
    ok = channel_ct:fill(Channel, Sent),
    ?assertEqual([iolist_to_binary(Message) || Message <- Sent], channel_ct:drain(Channel)).

%% A process that sends a long list gives the others on its scheduler their turns meanwhile.
long_list_delays_nobody(_Config) ->
    Channel = channel_ct:new(),
    Million = lists:duplicate(1000000, $a),
    Sender = spawn_link(fun() -> receive go -> ok = ?CHANNEL:send(Channel, lists:duplicate(30, Million)) end end),
    1 = erlang:trace(Sender, true, [running, procs]),
    Sender ! go,
    receive {trace, Sender, exit, normal} -> ok end,
    ?assertMatch(#{size := 30000000}, ?CHANNEL:info(Channel)),
    ?assert(turns(Sender, 0) > 20).

turns(Process, N) ->
    receive
        {trace, Process, out, _} -> turns(Process, N + 1);
        {trace, Process, _, _} -> turns(Process, N);
        {trace, Process, _, _, _} -> turns(Process, N)
    after 0 -> N
    end.

%% Small messages are copied, large ones referred to: no size is special.
sizes_around_the_thresholds(_Config) ->
    [begin
         Channel = channel_ct:new(),
         Messages = [crypto:strong_rand_bytes(Size) || Size <- [Middle - 1, Middle, Middle + 1]],
         ok = channel_ct:fill(Channel, Messages),
         {ok, Received} = py:call(erlang, 'ByteChannel.receive_many', [Channel, 1 bsl 40]),
         ?assertEqual(Messages, [iolist_to_binary([Message]) || Message <- Received]),
         [{ok, true} = py:call(?HELPERS, send, [Channel, {bytes, Message}]) || Message <- Messages],
         ?assertEqual(Messages, channel_ct:drain(Channel)),
         ok = channel_ct:fill(Channel, Messages),
         ?assertEqual(Messages, channel_ct:drain(Channel))
     end || Middle <- [1, 64, 4096, 16384, 65536, 1 bsl 20]].

recv_many_bounds(_Config) ->
    Channel = channel_ct:new(),
    ok = channel_ct:fill(Channel, [<<"1234">>, <<"56">>, <<"7">>, <<>>, <<"89">>]),
    %% The first however large, then no more than that together.
    ?assertEqual({ok, [<<"1234">>]}, ?CHANNEL:recv_many(Channel, 1)),
    ?assertEqual({ok, [<<"56">>, <<"7">>, <<>>]}, ?CHANNEL:recv_many(Channel, 4)),
    ?assertEqual({ok, [<<"89">>]}, ?CHANNEL:recv_many(Channel, 4, 0)),
    ?assertEqual({error, timeout}, ?CHANNEL:recv_many(Channel, 4, 0)),
    ?assertEqual({error, timeout}, ?CHANNEL:recv_many(Channel, 4, 1)),
    %% Not even an empty one with what is too large by itself.
    ok = channel_ct:fill(Channel, [<<"12345">>, <<>>]),
    ?assertEqual({ok, [<<"12345">>]}, ?CHANNEL:recv_many(Channel, 4)),
    ?assertEqual({ok, [<<>>]}, ?CHANNEL:recv_many(Channel, 4)),
    ok = channel_ct:fill(Channel, lists:duplicate(5000, <<"m">>)),
    {ok, Many} = ?CHANNEL:recv_many(Channel, 1 bsl 100),
    ?assertEqual(4096, length(Many)),
    {ok, Rest} = ?CHANNEL:recv_many(Channel, 5000),
    ?assertEqual(904, length(Rest)),
    %% What has to be copied is taken a megabyte at a time, whatever is wanted: a scheduler is kept so long.
    Copied = binary:copy(<<"c">>, 16000),
    ok = channel_ct:fill(Channel, lists:duplicate(100, Copied)),
    {ok, First} = ?CHANNEL:recv_many(Channel, 1 bsl 40),
    ?assert(iolist_size(First) =< 1 bsl 20),
    ?assertEqual(lists:duplicate(100, Copied), First ++ channel_ct:drain(Channel)),
    %% One that waits gets what has come, and no more than it wants.
    Test = self(),
    spawn_link(fun() -> Test ! {many, ?CHANNEL:recv_many(Channel, 3)} end),
    ok = channel_ct:waiting(Channel, 1, 0),
    ok = channel_ct:fill(Channel, [<<"12">>]),
    receive {many, {ok, [<<"12">>]}} -> ok end,
    ok = ?CHANNEL:close(Channel),
    ?assertEqual({error, closed}, ?CHANNEL:recv_many(Channel, 3)),
    ?assertEqual({error, closed}, ?CHANNEL:recv_many(Channel, 3, 0)).

receive_many_bounds(_Config) ->
    Channel = channel_ct:new(),
    Many = fun(Arguments) -> py:call(erlang, 'ByteChannel.receive_many', [Channel | Arguments]) end,
    ok = channel_ct:fill(Channel, [<<"1234">>, <<"56">>, <<"7">>, <<>>, <<"89">>]),
    ?assertEqual({ok, [<<"1234">>]}, Many([1])),
    ?assertEqual({ok, [<<"56">>, <<"7">>, <<>>]}, Many([4])),
    ?assertEqual({ok, [<<"89">>]}, Many([4, 0])),
    ?assertMatch({error, {'TimeoutError', _}}, Many([4, 0])),
    [?assertMatch({error, {'ValueError', _}}, Many([Wrong])) || Wrong <- [0, -1]],
    ok = ?CHANNEL:close(Channel),
    ?assertEqual(?CLOSED, Many([])).

%% Limits

busy(_Config) ->
    Channel = channel_ct:new(10),
    ok = ?CHANNEL:send(Channel, <<"123456">>),
    ?assertEqual(busy, ?CHANNEL:send(Channel, <<"12345">>)),
    ?assertEqual({error, timeout}, ?CHANNEL:send(Channel, <<"12345">>, 0)),
    ?assertEqual({error, timeout}, ?CHANNEL:send(Channel, <<"12345">>, 1)),
    ?assertMatch(#{size := 6, messages := 1, messages_in := 1, waiting_senders := 0}, ?CHANNEL:info(Channel)),
    ok = ?CHANNEL:send(Channel, <<"1234">>, 0),
    ?assertEqual(busy, ?CHANNEL:send(Channel, <<"1">>)),
    ?assertEqual([<<"123456">>, <<"1234">>], channel_ct:drain(Channel)).

larger_than_the_limit(_Config) ->
    Channel = channel_ct:new(10),
    Larger = binary:copy(<<"x">>, 11),
    Huge = binary:copy(<<"y">>, 1000000),
    [begin
         ok = ?CHANNEL:send(Channel, Message),
         ?assertEqual(busy, ?CHANNEL:send(Channel, <<"1">>)),
         ?assertEqual([Message], channel_ct:drain(Channel)),
         ok = ?CHANNEL:send(Channel, <<"1">>),
         ?assertEqual(busy, ?CHANNEL:send(Channel, Message)),
         ?assertMatch({error, {'ByteChannelBusy', _}}, py:call(?HELPERS, send, [Channel, {bytes, Message}])),
         ?assertEqual([<<"1">>], channel_ct:drain(Channel)),
         {ok, true} = py:call(?HELPERS, send, [Channel, {bytes, Message}]),
         ?assertEqual([Message], channel_ct:drain(Channel))
     end || Message <- [Larger, Huge]],
    %% One that waits has its turn as soon as the channel is empty.
    ok = channel_ct:fill(Channel, [<<"1">>, <<"2">>]),
    _ = channel_ct:sender(erlang, huge, Channel, Huge),
    {ok, <<"1">>} = ?CHANNEL:recv(Channel),
    ?assertMatch(#{waiting_senders := 1}, ?CHANNEL:info(Channel)),
    {ok, <<"2">>} = ?CHANNEL:recv(Channel),
    ?assertEqual(true, channel_ct:outcome(huge)),
    ?assertEqual([Huge], channel_ct:drain(Channel)).

room_by_a_byte(_Config) ->
    Channel = channel_ct:new(3),
    ok = channel_ct:fill(Channel, [<<"a">>, <<"bb">>]),
    _ = channel_ct:sender(erlang, waits, Channel, <<"cc">>),
    {ok, <<"a">>} = ?CHANNEL:recv(Channel),
    ?assertMatch(#{waiting_senders := 1, size := 2}, ?CHANNEL:info(Channel)),
    {ok, <<"bb">>} = ?CHANNEL:recv(Channel),
    ?assertEqual(true, channel_ct:outcome(waits)),
    ?assertEqual([<<"cc">>], channel_ct:drain(Channel)).

limit_at_python(_Config) ->
    Channel = channel_ct:new(10),
    {ok, true} = py:call(?HELPERS, send, [Channel, {bytes, <<"123456">>}]),
    {error, {'ByteChannelBusy', Text}} = py:call(?HELPERS, send, [Channel, {bytes, <<"12345">>}]),
    ?assertMatch({match, _}, re:run(Text, "busy")),
    ?assertMatch({error, {'TimeoutError', _}}, py:call(?HELPERS, send, [Channel, {bytes, <<"12345">>}, 1])),
    ?assertMatch({error, {'TimeoutError', _}}, py:call(?HELPERS, send, [Channel, {bytes, <<"12345">>}, 0])),
    ?assertEqual({ok, true}, py:eval(<<"issubclass(__import__('erlang').ByteChannelBusy, RuntimeError) and "
                                       "issubclass(__import__('erlang').ByteChannelClosed, RuntimeError)">>)),
    ?assertEqual([<<"123456">>], channel_ct:drain(Channel)).

unbounded(_Config) ->
    {ok, Channel} = ?CHANNEL:new(),
    ?assertMatch(#{max_size := 0}, ?CHANNEL:info(Channel)),
    Large = binary:copy(<<"x">>, 1000000),
    ok = channel_ct:fill(Channel, lists:duplicate(1000, Large)),
    ?assertMatch(#{size := 1000000000}, ?CHANNEL:info(Channel)).

%% Whoever waits for room has come first, even where a smaller message would fit.
nobody_goes_before(_Config) ->
    Channel = channel_ct:new(10),
    ok = ?CHANNEL:send(Channel, <<"12345">>),
    Waiting = channel_ct:sender(erlang, first, Channel, <<"1234567890">>),
    ?assertEqual(busy, ?CHANNEL:send(Channel, <<"1">>)),
    ?assertMatch({error, {'ByteChannelBusy', _}}, py:call(?HELPERS, send, [Channel, {bytes, <<"1">>}])),
    %% When the first gives up, those behind it that fit have their turn.
    _ = channel_ct:sender(thread, <<"second">>, Channel, <<"12">>),
    exit(Waiting, kill),
    ?assertEqual(true, channel_ct:outcome(<<"second">>)),
    ?assertEqual([<<"12345">>, <<"12">>], channel_ct:drain(Channel)).

%% The end

close_is_idempotent(_Config) ->
    Channel = channel_ct:new(),
    [?assertEqual(ok, ?CHANNEL:close(Channel)) || _ <- [1, 2]],
    ?assertEqual({ok, none}, py:call(erlang, 'ByteChannel.close', [Channel])),
    ?assertMatch(#{closed := true, aborted := false}, ?CHANNEL:info(Channel)),
    ?assertEqual({error, closed}, ?CHANNEL:send(Channel, <<"x">>)),
    ?assertEqual({error, closed}, ?CHANNEL:send(Channel, <<"x">>, infinity)),
    ?assertEqual({error, closed}, ?CHANNEL:try_receive(Channel)),
    ?assertEqual({error, closed}, ?CHANNEL:recv(Channel)),
    ?assertEqual({error, closed}, ?CHANNEL:recv(Channel, 0)),
    {ok, Outcomes} = py:call(?HELPERS, each_end, [Channel, {bytes, <<"x">>}]),
    ?assertEqual([<<"ByteChannelClosed">>], lists:usort(Outcomes)).

drained_then_closed(_Config) ->
    Channel = channel_ct:new(3),
    ok = channel_ct:fill(Channel, [<<"a">>, <<>>, <<"b">>, <<"c">>]),
    {ok, none} = py:call(erlang, 'ByteChannel.close', [Channel]),
    ?assertEqual({error, closed}, ?CHANNEL:send(Channel, <<>>)),
    ?assertEqual({ok, <<"a">>}, ?CHANNEL:recv(Channel)),
    ?assertEqual({ok, <<>>}, ?CHANNEL:try_receive(Channel)),
    ?assertEqual({ok, [<<"b">>, <<"c">>]}, ?CHANNEL:recv_many(Channel, 10)),
    ?assertEqual({error, closed}, ?CHANNEL:recv(Channel)),
    ?assertEqual({error, closed}, ?CHANNEL:try_receive(Channel)).

drained_then_closed_in_python(_Config) ->
    [begin
         Channel = channel_ct:new(),
         ok = channel_ct:fill(Channel, [<<"a">>, <<>>, <<"b">>]),
         ok = ?CHANNEL:close(Channel),
         {ok, none} = py:call(?HELPERS, Iterate, [self(), <<"all">>, Channel]),
         ?assertEqual([<<"a">>, <<>>, <<"b">>], channel_ct:outcome(<<"all">>)),
         ?assertEqual(?CLOSED, py:call(?HELPERS, 'receive', [Channel])),
         ?assertEqual(?CLOSED, py:call(erlang, 'ByteChannel.try_receive_bytes', [Channel]))
     end || Iterate <- [thread_iterates, task_iterates]].

everybody_is_woken_by_close(_Config) ->
    [begin
         {Receiving, Sending} = {channel_ct:new(), channel_ct:new(1)},
         ok = ?CHANNEL:send(Sending, <<"1">>),
         [channel_ct:receiver(Kind, {receives, atom_to_binary(Kind)}, Receiving) || Kind <- channel_ct:kinds()],
         [channel_ct:sender(Kind, {sends, atom_to_binary(Kind)}, Sending, <<"2">>) || Kind <- channel_ct:kinds()],
         [Close(Channel) || Channel <- [Receiving, Sending]],
         [?assertMatch({<<"ByteChannelClosed">>, _}, outcome_of(What, Kind))
          || Kind <- channel_ct:kinds(), What <- [receives, sends]],
         %% What waited for room was not sent.
         ?assertEqual([<<"1">>], channel_ct:drain(Sending))
     end || Close <- [fun ?CHANNEL:close/1, fun(Channel) -> {ok, none} = py:call(erlang, 'ByteChannel.close', [Channel]) end]].

%% Atoms in names come back from Python as binaries.
outcome_of(What, erlang) -> channel_ct:outcome({What, <<"erlang">>});
outcome_of(What, Kind) -> channel_ct:outcome({atom_to_binary(What), atom_to_binary(Kind)}).

%% A reason that has no form in Python, as a map whose keys are lists, goes there as it is.
abort_drops_and_sticks(_Config) ->
    [aborted_because(Reason, InPython)
     || {Reason, InPython} <- [{{because, [1.5, self(), <<255>>]}, {<<"because">>, [1.5, self(), <<255>>]}},
                               {#{"key" => {make_ref(), fun erlang:abs/1}}, same}, {{error, [1 | 2]}, same}, {nil, none}]].

aborted_because(Reason, InPython) ->
    Channel = channel_ct:new(),
    ok = channel_ct:fill(Channel, [<<"a">>, <<"b">>]),
    ?assertEqual(ok, ?CHANNEL:abort(Channel, Reason)),
    ?assertEqual(ok, ?CHANNEL:abort(Channel, another)),
    ?assertEqual(ok, ?CHANNEL:close(Channel)),
    [?assertEqual({error, {aborted, Reason}}, Fun())
     || Fun <- [fun() -> ?CHANNEL:recv(Channel) end, fun() -> ?CHANNEL:recv(Channel, 0) end,
                fun() -> ?CHANNEL:try_receive(Channel) end, fun() -> ?CHANNEL:recv_many(Channel, 1) end,
                fun() -> ?CHANNEL:send(Channel, <<"x">>) end, fun() -> ?CHANNEL:send(Channel, <<"x">>, infinity) end,
                fun() -> ?CHANNEL:recv(Channel) end]],
    ?assertMatch(#{size := 0, messages := 0, closed := true, aborted := true}, ?CHANNEL:info(Channel)),
    {ok, Outcomes} = py:call(?HELPERS, each_end, [Channel, {bytes, <<"x">>}]),
    ?assertEqual([<<"ByteChannelAborted">>], lists:usort(Outcomes)),
    Expected = case InPython of same -> Reason; _ -> InPython end,
    ?assertEqual({ok, Expected}, py:call(?HELPERS, aborted_because, [Channel])).

abort_from_python(_Config) ->
    Channel = channel_ct:new(),
    ok = ?CHANNEL:send(Channel, <<"a">>),
    {ok, none} = py:call(erlang, 'ByteChannel.abort', [Channel, {<<"disk full">>, [1, none]}]),
    ?assertEqual({error, {aborted, {<<"disk full">>, [1, none]}}}, ?CHANNEL:recv(Channel)),
    ?assertEqual({error, {aborted, {<<"disk full">>, [1, none]}}}, ?CHANNEL:send(Channel, <<"b">>)),
    ?assertEqual({ok, {<<"disk full">>, [1, none]}}, py:call(?HELPERS, aborted_because, [Channel])),
    WithoutReason = channel_ct:new(),
    {ok, none} = py:call(erlang, 'ByteChannel.abort', [WithoutReason]),
    ?assertEqual({error, {aborted, none}}, ?CHANNEL:recv(WithoutReason)).

everybody_is_woken_by_abort(_Config) ->
    {Receiving, Sending} = {channel_ct:new(), channel_ct:new(1)},
    ok = ?CHANNEL:send(Sending, <<"1">>),
    [channel_ct:receiver(Kind, {receives, atom_to_binary(Kind)}, Receiving) || Kind <- channel_ct:kinds()],
    [channel_ct:sender(Kind, {sends, atom_to_binary(Kind)}, Sending, <<"2">>) || Kind <- channel_ct:kinds()],
    [ok = ?CHANNEL:abort(Channel, 17) || Channel <- [Receiving, Sending]],
    [?assertEqual({<<"ByteChannelAborted">>, <<"the channel was aborted: 17">>}, outcome_of(What, Kind))
     || Kind <- channel_ct:kinds(), What <- [receives, sends]],
    ?assertEqual({error, {aborted, 17}}, ?CHANNEL:try_receive(Sending)).

%% What was closed and is not drained yet can still be dropped.
close_and_abort(_Config) ->
    Channel = channel_ct:new(),
    ok = ?CHANNEL:send(Channel, <<"a">>),
    ok = ?CHANNEL:close(Channel),
    ok = ?CHANNEL:abort(Channel, late),
    ?assertEqual({error, {aborted, late}}, ?CHANNEL:recv(Channel)).

info_counts(_Config) ->
    Channel = channel_ct:new(100),
    ?assertEqual(#{size => 0, max_size => 100, closed => false, aborted => false, messages => 0, messages_in => 0,
                   messages_out => 0, bytes_in => 0, bytes_out => 0, waiting_receivers => 0, waiting_senders => 0},
                 ?CHANNEL:info(Channel)),
    ok = channel_ct:fill(Channel, [<<"123">>, <<"45">>]),
    {ok, true} = py:call(?HELPERS, send, [Channel, {bytes, <<"6">>}]),
    {ok, _} = ?CHANNEL:recv(Channel),
    ?assertMatch(#{size := 3, messages := 2, messages_in := 3, messages_out := 1, bytes_in := 6, bytes_out := 3}, ?CHANNEL:info(Channel)),
    {ok, _} = py:call(?HELPERS, 'receive', [Channel]),
    {ok, Info} = py:call(erlang, 'ByteChannel.info', [Channel]),
    ?assertEqual(maps:from_list([{atom_to_binary(Key), Value} || {Key, Value} <- maps:to_list(?CHANNEL:info(Channel))]), Info),
    ?assertMatch(#{<<"bytes_out">> := 5, <<"size">> := 1, <<"closed">> := false}, Info).
