%% @doc Byte channels with much: gigabytes through little room, gigabytes and millions of messages queued, and long
%% sequences of commands against the model.
-module(byte_channel_soak_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-define(HELPERS, channel_helpers).
-define(CHANNEL, py_byte_channel).
-define(MEGABYTE, 1048576).
-define(GIGABYTE, 1073741824).

suite() -> [{timetrap, {minutes, 60}}].

all() ->
    [ten_gigabytes_through_a_megabyte, gigabyte_queued_by_erlang, gigabyte_queued_by_python, million_messages_queued,
     million_channels, waiters_that_give_up, notifications_of_processes_that_end, prop_channel].

init_per_suite(Config) ->
    true = code:add_patha(filename:dirname(code:which(?MODULE)) ++ "/.."),
    ok = causeway_ct:start(),
    Config.

end_per_suite(Config) -> channel_ct:stop(Config).

%% Messages of all sizes, there and back, with the same digest at three places.
ten_gigabytes_through_a_megabyte(_Config) ->
    [Source, Target] = [channel_ct:new(?MEGABYTE), channel_ct:new(?MEGABYTE)],
    Call = py:spawn_call(?HELPERS, pump, [Source, Target]),
    Blocks = [crypto:strong_rand_bytes(Size) || Size <- [1, 64, 1000, 10000, 16384, 65536, 200000, 500000, ?MEGABYTE, 2 * ?MEGABYTE]],
    Feeder = spawn_monitor(fun() -> exit({fed, feed(Source, Blocks, 10 * ?GIGABYTE, crypto:hash_init(blake2b), 0)}) end),
    {ok, {Digest, Bytes, Number, Least, Most}} = ?CHANNEL:fold(fun watched/2, {crypto:hash_init(blake2b), 0, 0, infinity, 0}, Target),
    {Process, Monitor} = Feeder,
    {FedDigest, FedNumber} = receive {'DOWN', Monitor, process, Process, {fed, Fed}} -> Fed end,
    Final = crypto:hash_final(Digest),
    ?assertEqual({FedDigest, FedNumber}, {Final, Number}),
    ?assertEqual({ok, {Number, Final}}, py:await(Call)),
    ?assert(Bytes >= 10 * ?GIGABYTE),
    ct:log("~p messages, ~p bytes; from ~p to ~p MB of memory", [Number, Bytes, Least bsr 20, Most bsr 20]),
    ?assert(Most - Least < 32 * ?MEGABYTE).

feed(Channel, _Blocks, Bytes, Digest, Number) when Bytes =< 0 ->
    ok = ?CHANNEL:close(Channel),
    {crypto:hash_final(Digest), Number};
feed(Channel, Blocks, Bytes, Digest, Number) ->
    Block = lists:nth(rand:uniform(length(Blocks)), Blocks),
    ok = ?CHANNEL:send(Channel, Block, infinity),
    feed(Channel, Blocks, Bytes - byte_size(Block), crypto:hash_update(Digest, Block), Number + 1).

%% The memory is looked at after the first gigabyte, when everything is as large as it gets.
watched(Message, {Digest, Bytes, Number, Least, Most}) ->
    {Lower, Higher} = case Number rem 1000 =:= 0 andalso Bytes > ?GIGABYTE andalso causeway_ct:rss() of
                          false -> {Least, Most};
                          Now -> {min(Least, Now), max(Most, Now)}
                      end,
    {crypto:hash_update(Digest, Message), Bytes + byte_size(Message), Number + 1, Lower, Higher}.

%% In pieces of 64 KB: the payload and at most a hundredth more; drained, it is free again.
gigabyte_queued_by_erlang(_Config) ->
    queued(fun(Channel) -> [ok = ?CHANNEL:send(Channel, binary:copy(<<N:64>>, 8192)) || N <- lists:seq(1, 16384)] end,
           fun(Channel) -> {ok, 16384} = ?CHANNEL:fold(fun(_, N) -> N + 1 end, 0, Channel) end).

gigabyte_queued_by_python(_Config) ->
    queued(fun(Channel) -> {ok, none} = py:call(?HELPERS, send_pieces, [Channel, 16384, 65536], #{}, infinity) end,
           fun(Channel) -> {ok, 16384} = py:call(?HELPERS, count, [Channel], #{}, infinity) end).

queued(Fill, Drain) ->
    %% What is needed once is there before.
    Empty = causeway_ct:rss(),
    ok = channel_ct:in_process(fun() -> Warm = channel_ct:new(), Fill(Warm), ok = ?CHANNEL:close(Warm), Drain(Warm), ok end),
    ok = calm(),
    ok = causeway_ct:settled(fun causeway_ct:rss/0, Empty + 128 * ?MEGABYTE),
    Before = causeway_ct:rss(),
    ok = channel_ct:in_process(fun() ->
                                       Channel = channel_ct:new(),
                                       Fill(Channel),
                                       true = erlang:garbage_collect(),
                                       ?assertMatch(#{size := ?GIGABYTE, messages := 16384}, ?CHANNEL:info(Channel)),
                                       Full = causeway_ct:rss() - Before,
                                       ct:log("~p MB for 1,024 MB", [Full / ?MEGABYTE]),
                                       ok = ?CHANNEL:close(Channel),
                                       Drain(Channel),
                                       ?assert(Full < ?GIGABYTE * 1.01),
                                       ok
                               end),
    [erlang:garbage_collect(Process) || Process <- processes()],
    ok = causeway_ct:settled(fun causeway_ct:rss/0, Before + 32 * ?MEGABYTE).

%% What was freed is no more of the node's. The C library keeps some of that for the next who asks, as it does with a
%% list of such bytes in Python alone: it is told not to.
calm() ->
    [erlang:garbage_collect(Process) || Process <- processes()],
    {ok, _} = py:call(?HELPERS, give_back_memory, []),
    ok.

%% A send and a receive cost the same however many are queued.
million_messages_queued(_Config) ->
    Channel = channel_ct:new(),
    Million = lists:seq(1, 1000000),
    Before = causeway_ct:rss(),
    [ok = ?CHANNEL:send(Channel, <<N:32>>) || N <- Million],
    ct:log("~p bytes a message", [(causeway_ct:rss() - Before) / 1000000]),
    ?assertMatch(#{messages := 1000000, size := 4000000}, ?CHANNEL:info(Channel)),
    Empty = channel_ct:new(),
    Times = [begin
                 {Time, _} = timer:tc(fun() -> [begin ok = ?CHANNEL:send(Each, <<0:32>>), {ok, _} = ?CHANNEL:recv(Each) end || _ <- lists:seq(1, 20000)] end),
                 Time
             end || _ <- [1, 2, 3, 4, 5], Each <- [Channel, Empty]],
    {Full, Free} = {lists:min([T || {N, T} <- lists:enumerate(Times), N rem 2 =:= 1]), lists:min([T || {N, T} <- lists:enumerate(Times), N rem 2 =:= 0])},
    ct:log("20,000 sends and receives: ~p us with a million queued, ~p us with none", [Full, Free]),
    ?assert(Full < 3 * Free),
    {ok, Last} = ?CHANNEL:fold(fun(_, N) when N =:= 900000 -> ?CHANNEL:close(Channel), N + 1; (_, N) -> N + 1 end, 0, Channel),
    ?assertEqual(1000000, Last).

%% Made, used, and let go of in every way.
million_channels(_Config) ->
    stays_flat(fun() -> [channel_ct:in_process(fun() -> use(N) end) || N <- lists:seq(1, 20000)] end, 2, 48, 24 * ?MEGABYTE).

use(N) ->
    Channel = channel_ct:new(N rem 3),
    ok = ?CHANNEL:send(Channel, binary:copy(<<"x">>, N)),
    {ok, _} = ?CHANNEL:notify(Channel, writable),
    case N rem 5 of
        0 -> ok = ?CHANNEL:close(Channel);
        1 -> ok = ?CHANNEL:abort(Channel, {reason, N});
        2 -> {ok, _} = ?CHANNEL:recv(Channel);
        3 -> {ok, Channel} = py:call(?HELPERS, identity, [Channel]);
        4 -> {ok, _} = py:call(?HELPERS, 'receive', [Channel])
    end.

waiters_that_give_up(_Config) ->
    Channel = channel_ct:new(),
    Round = fun() ->
                    Workers = [spawn_monitor(fun() -> [{error, timeout} = ?CHANNEL:recv(Channel, N rem 2) || N <- lists:seq(1, 2000)] end) || _ <- lists:seq(1, 8)],
                    [receive {'DOWN', Monitor, process, Worker, normal} -> ok end || {Worker, Monitor} <- Workers],
                    [exit(spawn(fun() -> ?CHANNEL:recv(Channel) end), kill) || _ <- lists:seq(1, 20000)],
                    [{ok, none} = py:call(?HELPERS, task_lives_shortly, [Channel, 0.1]) || _ <- lists:seq(1, 50)],
                    ok = channel_ct:waiting(Channel, 0, 0)
            end,
    stays_flat(Round, 2, 10, 24 * ?MEGABYTE).

notifications_of_processes_that_end(_Config) ->
    Channel = channel_ct:new(),
    Round = fun() -> [channel_ct:in_process(fun() -> {ok, _} = ?CHANNEL:notify(Channel, readable) end) || _ <- lists:seq(1, 50000)] end,
    stays_flat(Round, 2, 10, 24 * ?MEGABYTE).

stays_flat(Round, WarmUp, Rounds, Allowed) ->
    [Round() || _ <- lists:seq(1, WarmUp)],
    ok = calm(),
    Before = causeway_ct:rss(),
    Descriptors = causeway_ct:descriptors(),
    [Round() || _ <- lists:seq(1, Rounds)],
    ok = calm(),
    ct:log("~p MB before, ~p MB after ~p rounds", [Before bsr 20, causeway_ct:rss() bsr 20, Rounds]),
    ok = causeway_ct:settled(fun causeway_ct:rss/0, Before + Allowed),
    ok = causeway_ct:settled(fun causeway_ct:descriptors/0, Descriptors).

prop_channel(_Config) -> py_byte_channel_property_SUITE:check(10000).
