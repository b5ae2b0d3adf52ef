%% @doc Who waits for a byte channel: the order in which they are served, that nothing is lost with those who give up,
%% and that nothing is left in a mailbox.
-module(py_byte_channel_wait_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-define(HELPERS, channel_helpers).
-define(CHANNEL, py_byte_channel).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [receivers_in_order, senders_in_order, receivers_that_leave, senders_that_leave, killed_with_a_message, cancelled_with_a_message,
     killed_sender_has_not_sent, message_of_one_that_is_gone_goes_on,
     kills_lose_nothing, time_outs_lose_nothing, cancellations_lose_nothing, senders_that_time_out_send_nothing,
     many_producers_and_consumers, closed_in_the_middle, other_messages_stay, full_mailbox,
     notify_readable, notify_writable, notify_of_the_end, notify_once, notify_takes_nothing, notified_process_is_gone,
     notifications_race, ten_thousand_receivers, ten_thousand_senders, ten_thousand_tasks, waiting_sender_burns_nothing,
     sender_is_not_patient_among_others].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> channel_ct:stop(Config).

init_per_testcase(_Case, Config) -> Config.

end_per_testcase(_Case, _Config) -> ?assertEqual([], causeway_ct:mailbox()).

%% First come first served

receivers_in_order(_Config) ->
    Channel = channel_ct:new(),
    Kinds = lists:append(lists:duplicate(5, channel_ct:kinds())),
    Numbers = lists:seq(1, length(Kinds)),
    [channel_ct:receiver(Kind, N, Channel) || {N, Kind} <- lists:zip(Numbers, Kinds)],
    ok = channel_ct:fill(Channel, [integer_to_binary(N) || N <- Numbers]),
    [?assertEqual(integer_to_binary(N), channel_ct:outcome(N)) || N <- Numbers],
    ?assertMatch(#{messages := 0, waiting_receivers := 0}, ?CHANNEL:info(Channel)).

senders_in_order(_Config) ->
    Channel = channel_ct:new(1),
    ok = ?CHANNEL:send(Channel, <<"0">>),
    Kinds = lists:append(lists:duplicate(5, channel_ct:kinds())),
    Numbers = lists:seq(1, length(Kinds)),
    [channel_ct:sender(Kind, N, Channel, integer_to_binary(N)) || {N, Kind} <- lists:zip(Numbers, Kinds)],
    [?assertEqual({ok, integer_to_binary(N)}, ?CHANNEL:recv(Channel)) || N <- [0 | Numbers]],
    [?assertEqual(true, channel_ct:outcome(N)) || N <- Numbers],
    ?assertMatch(#{messages := 0, waiting_senders := 0}, ?CHANNEL:info(Channel)).

receivers_that_leave(_Config) ->
    Channel = channel_ct:new(),
    Killed = channel_ct:receiver(erlang, killed, Channel),
    _ = channel_ct:receiver(erlang, first, Channel),
    _ = channel_ct:receiver(task, <<"cancelled">>, Channel),
    {ok, none} = py:call(?HELPERS, thread_receives, [self(), <<"timed out">>, Channel, 1000]),
    ok = channel_ct:waiting(Channel, 4, 0),
    _ = channel_ct:receiver(thread, <<"second">>, Channel),
    exit(Killed, kill),
    {ok, none} = py:call(?HELPERS, cancel, [<<"cancelled">>]),
    ?assertEqual(<<"cancelled">>, channel_ct:outcome(<<"cancelled">>)),
    ?assertMatch({<<"TimeoutError">>, _}, channel_ct:outcome(<<"timed out">>)),
    ok = channel_ct:waiting(Channel, 2, 0),
    ok = channel_ct:fill(Channel, [<<"1">>, <<"2">>, <<"3">>]),
    ?assertEqual(<<"1">>, channel_ct:outcome(first)),
    ?assertEqual(<<"2">>, channel_ct:outcome(<<"second">>)),
    ?assertEqual([<<"3">>], channel_ct:drain(Channel)).

senders_that_leave(_Config) ->
    Channel = channel_ct:new(1),
    ok = ?CHANNEL:send(Channel, <<"0">>),
    Killed = channel_ct:sender(erlang, killed, Channel, <<"killed">>),
    _ = channel_ct:sender(thread, <<"first">>, Channel, <<"1">>),
    _ = channel_ct:sender(task, <<"cancelled">>, Channel, <<"cancelled">>),
    {ok, none} = py:call(?HELPERS, thread_sends, [self(), <<"timed out">>, Channel, {bytes, <<"late">>}, 1000]),
    ok = channel_ct:waiting(Channel, 0, 4),
    _ = channel_ct:sender(erlang, second, Channel, <<"2">>),
    exit(Killed, kill),
    {ok, none} = py:call(?HELPERS, cancel, [<<"cancelled">>]),
    ?assertEqual(<<"cancelled">>, channel_ct:outcome(<<"cancelled">>)),
    ?assertMatch({<<"TimeoutError">>, _}, channel_ct:outcome(<<"timed out">>)),
    ok = channel_ct:waiting(Channel, 0, 2),
    ?assertEqual([<<"0">>, <<"1">>, <<"2">>], [element(2, ?CHANNEL:recv(Channel)) || _ <- [0, 1, 2]]),
    ?assertEqual([true, true], [channel_ct:outcome(Name) || Name <- [<<"first">>, second]]),
    ?assertMatch(#{messages := 0, messages_in := 3, bytes_in := 3}, ?CHANNEL:info(Channel)).

%% Nothing is lost

%% A process that does not run gets a message and dies before it can have seen it.
killed_with_a_message(_Config) ->
    Channel = channel_ct:new(),
    Receivers = [channel_ct:receiver(erlang, N, Channel) || N <- [1, 2, 3]],
    [true = erlang:suspend_process(Receiver) || Receiver <- Receivers],
    ok = channel_ct:fill(Channel, [<<"1">>, <<"2">>, <<"3">>]),
    ?assertMatch(#{waiting_receivers := 0, messages := 0}, ?CHANNEL:info(Channel)),
    [exit(Receiver, kill) || Receiver <- Receivers],
    ok = channel_ct:settled(Channel, 3),
    ?assertMatch(#{size := 3, messages_in := 3, messages_out := 0, bytes_out := 0}, ?CHANNEL:info(Channel)),
    ?assertEqual([<<"1">>, <<"2">>, <<"3">>], channel_ct:drain(Channel)).

%% Tasks get messages and are cancelled before they can have seen them.
cancelled_with_a_message(_Config) ->
    Channel = channel_ct:new(),
    Messages = [<<N:16>> || N <- lists:seq(1, 1000)],
    {ok, none} = py:call(?HELPERS, cancelled_with_messages, [self(), Channel, 1000]),
    ok = channel_ct:waiting(Channel, 1000, 0),
    ok = channel_ct:fill(Channel, Messages),
    ?assertMatch(#{waiting_receivers := 0, messages := 0}, ?CHANNEL:info(Channel)),
    {ok, none} = py:call(?HELPERS, cancel_them, []),
    ?assertEqual(1000, channel_ct:outcome(<<"cancelled">>)),
    ?assertMatch(#{messages_in := 1000, messages_out := 0}, ?CHANNEL:info(Channel)),
    ?assertEqual(Messages, channel_ct:drain(Channel)).

%% The message of one that is killed is the next.
message_of_one_that_is_gone_goes_on(_Config) ->
    Channel = channel_ct:new(),
    Killed = channel_ct:receiver(erlang, killed, Channel),
    true = erlang:suspend_process(Killed),
    ok = channel_ct:fill(Channel, [<<"1">>, <<"2">>]),
    exit(Killed, kill),
    ok = channel_ct:settled(Channel, 2),
    ?assertEqual([<<"1">>, <<"2">>], channel_ct:drain(Channel)),
    [begin
         Again = channel_ct:receiver(erlang, killed, Channel),
         true = erlang:suspend_process(Again),
         ok = ?CHANNEL:send(Channel, <<"next">>),
         _ = channel_ct:receiver(Kind, atom_to_binary(Kind), Channel),
         exit(Again, kill),
         ?assertEqual(<<"next">>, outcome_of(Kind))
     end || Kind <- channel_ct:kinds()],
    %% Also where it was closed meanwhile.
    Last = channel_ct:receiver(erlang, killed, Channel),
    true = erlang:suspend_process(Last),
    ok = ?CHANNEL:send(Channel, <<"last">>),
    ok = ?CHANNEL:close(Channel),
    exit(Last, kill),
    ok = channel_ct:settled(Channel, 1),
    ?assertEqual({ok, <<"last">>}, ?CHANNEL:recv(Channel)),
    ?assertEqual({error, closed}, ?CHANNEL:recv(Channel)).

outcome_of(Kind) -> channel_ct:outcome(atom_to_binary(Kind)).

killed_sender_has_not_sent(_Config) ->
    Channel = channel_ct:new(1),
    ok = ?CHANNEL:send(Channel, <<"0">>),
    [begin
         Sender = channel_ct:sender(erlang, N, Channel, <<"x">>),
         exit(Sender, kill),
         ok = channel_ct:settled(Channel, 1)
     end || N <- lists:seq(1, 20)],
    ?assertEqual([<<"0">>], channel_ct:drain(Channel)).

%% A receiver is killed at any moment before, while and after a message comes for it.
kills_lose_nothing(_Config) ->
    Channel = channel_ct:new(),
    Outcomes = [killed_receiver(Channel, N) || N <- lists:seq(1, 3000)],
    ct:log("~p received, ~p put back", [length([1 || received <- Outcomes]), length([1 || put_back <- Outcomes])]),
    ?assertMatch(#{messages := 0, messages_in := 3000, messages_out := 3000, waiting_receivers := 0}, ?CHANNEL:info(Channel)).

killed_receiver(Channel, N) ->
    Test = self(),
    Message = integer_to_binary(N),
    %% With its whole time slice before it, it does not stop between the end of `recv' and the telling.
    {Receiver, Monitor} = spawn_monitor(fun() -> {ok, Received} = ?CHANNEL:recv(Channel), Test ! {received, Received} end),
    {Sender, Sent} = spawn_monitor(fun() -> spin(rand:uniform(300)), ok = ?CHANNEL:send(Channel, Message) end),
    spin(rand:uniform(600)),
    exit(Receiver, kill),
    receive {'DOWN', Monitor, process, Receiver, _} -> ok end,
    receive {'DOWN', Sent, process, Sender, normal} -> ok end,
    receive
        {received, Message} -> received
    after 0 ->
        ?assertEqual({ok, Message}, ?CHANNEL:recv(Channel, 20000)),
        put_back
    end.

spin(0) -> ok;
spin(N) -> spin(N - 1).

%% Every receiver gives up all the time, and looks again.
time_outs_lose_nothing(_Config) ->
    Channel = channel_ct:new(),
    Test = self(),
    Receivers = [spawn_monitor(fun() -> exit({received, collect(Channel, []), causeway_ct:mailbox()}) end) || _ <- lists:seq(1, 4)],
    [{ok, none} = py:call(?HELPERS, thread_collects, [Test, N, Channel]) || N <- [1, 2]],
    ok = produce(Channel, 4, 1500),
    ok = ?CHANNEL:close(Channel),
    FromErlang = [receive {'DOWN', Monitor, process, Receiver, Reason} ->
                              {received, Messages, []} = Reason,
                              Messages
                  end || {Receiver, Monitor} <- Receivers],
    everything_once(4, 1500, FromErlang ++ [channel_ct:outcome(N) || N <- [1, 2]]).

collect(Channel, Messages) ->
    case ?CHANNEL:recv(Channel, rand:uniform(3) - 1) of
        {ok, Message} -> collect(Channel, [Message | Messages]);
        {error, timeout} -> collect(Channel, Messages);
        {error, closed} -> lists:reverse(Messages)
    end.

%% Tasks are cancelled all the time.
cancellations_lose_nothing(_Config) ->
    Channel = channel_ct:new(),
    [{ok, none} = py:call(?HELPERS, tasks_collect, [self(), N, Channel]) || N <- [1, 2]],
    ok = produce(Channel, 4, 1500),
    ok = ?CHANNEL:close(Channel),
    all_once(4, 1500, [channel_ct:outcome(N) || N <- [1, 2]]).

%% So many processes send so many messages each, now and then with a pause.
produce(Channel, Producers, Number) ->
    Monitors = [spawn_monitor(fun() -> lists:foreach(fun(N) ->
                                                             ok = ?CHANNEL:send(Channel, <<Producer, N:24>>, infinity),
                                                             N rem 50 =:= 0 andalso receive after rand:uniform(3) -> ok end
                                                     end, lists:seq(1, Number)) end)
                || Producer <- lists:seq(1, Producers)],
    [receive {'DOWN', Monitor, process, Process, Reason} -> normal = Reason end || {Process, Monitor} <- Monitors],
    ok.

%% Nothing is missing or doubled.
all_once(Producers, Number, Received) ->
    ?assertEqual([<<Producer, N:24>> || Producer <- lists:seq(1, Producers), N <- lists:seq(1, Number)],
                 lists:sort(lists:append(Received))).

%% And each receiver has got what one producer sent in the order in which it was sent. Where others are cancelled, what
%% they give back may come to a receiver that has got later ones already.
everything_once(Producers, Number, Received) ->
    ok = all_once(Producers, Number, Received),
    [begin
         OfOne = [N || <<P, N:24>> <- Messages, P =:= Producer],
         ?assertEqual(lists:sort(OfOne), OfOne)
     end || Messages <- Received, Producer <- lists:seq(1, Producers)].

senders_that_time_out_send_nothing(_Config) ->
    Channel = channel_ct:new(8),
    Test = self(),
    Senders = [spawn_link(fun() -> Test ! {self(), [Message || N <- lists:seq(1, 500), Message <- [<<Sender, N:24>>],
                                                               ok =:= ?CHANNEL:send(Channel, Message, rand:uniform(3) - 1)],
                                           causeway_ct:mailbox()} end)
               || Sender <- lists:seq(1, 6)],
    {ok, none} = py:call(?HELPERS, thread_collects, [Test, <<"all">>, Channel]),
    Sent = lists:append([receive {Sender, Messages, []} -> Messages end || Sender <- Senders]),
    ok = ?CHANNEL:close(Channel),
    ?assertEqual(lists:sort(Sent), lists:sort(channel_ct:outcome(<<"all">>))).

%% All kinds at once, through little room.
many_producers_and_consumers(_Config) ->
    Channel = channel_ct:new(64),
    Test = self(),
    [spawn_link(fun() -> Test ! {N, collect(Channel, [])} end) || N <- [1, 2]],
    {ok, none} = py:call(?HELPERS, thread_collects, [Test, 3, Channel]),
    {ok, none} = py:call(?HELPERS, tasks_collect, [Test, 4, Channel]),
    {ok, none} = py:call(?HELPERS, thread_produces, [Test, <<"thread">>, Channel, 5, 1000]),
    {ok, none} = py:call(?HELPERS, task_produces, [Test, <<"task">>, Channel, 6, 1000]),
    ok = produce(Channel, 4, 1000),
    [?assertEqual(none, channel_ct:outcome(Name)) || Name <- [<<"thread">>, <<"task">>]],
    ok = ?CHANNEL:close(Channel),
    all_once(6, 1000, [channel_ct:outcome(N) || N <- [1, 2, 3, 4]]).

%% What senders were told was sent is received, and nothing else.
closed_in_the_middle(_Config) ->
    [begin
         Channel = channel_ct:new(Size),
         Test = self(),
         [spawn_link(fun() -> Test ! {sent, sent_until_closed(Channel, Sender, 1)} end) || Sender <- [1, 2, 3]],
         [spawn_link(fun() -> Test ! {received, collect(Channel, [])} end) || _ <- [1, 2]],
         ok = causeway_ct:wait_until(fun() -> maps:get(messages_out, ?CHANNEL:info(Channel)) > 100 end),
         ok = ?CHANNEL:close(Channel),
         Sent = lists:append([receive {sent, Messages} -> Messages end || _ <- [1, 2, 3]]),
         Received = lists:append([receive {received, Messages} -> Messages end || _ <- [1, 2]]),
         ?assertEqual(lists:sort(Sent), lists:sort(Received))
     end || Size <- lists:append(lists:duplicate(20, [1, 20, 1000]))].

sent_until_closed(Channel, Sender, N) ->
    case ?CHANNEL:send(Channel, <<Sender, N:24>>, infinity) of
        ok -> [<<Sender, N:24>> | sent_until_closed(Channel, Sender, N + 1)];
        {error, closed} -> []
    end.

%% Mailboxes

%% What is in a mailbox is neither taken nor overtaken; the names of the library's wake-ups are atoms like any other.
other_messages_stay(_Config) ->
    Channel = channel_ct:new(),
    Messages = [channel_data_ready, channel_closed, {ok, <<"x">>}, make_ref(), {?CHANNEL, make_ref(), readable}],
    [self() ! Message || Message <- Messages],
    ?assertEqual({error, timeout}, ?CHANNEL:recv(Channel, 5)),
    Test = self(),
    spawn_link(fun() -> ok = channel_ct:waiting(Channel, 1, 0), ok = ?CHANNEL:send(Channel, <<"m">>), Test ! sent end),
    ?assertEqual({ok, <<"m">>}, ?CHANNEL:recv(Channel)),
    ok = causeway_ct:expect(sent),
    ?assertEqual(Messages, causeway_ct:mailbox()),
    [ok = causeway_ct:expect(Message) || Message <- Messages].

%% A receive does not look through what was there before it: with 200,000 messages it costs no more than with none.
full_mailbox(_Config) ->
    Reductions = fun(Number) ->
                         channel_ct:in_process(fun() ->
                                                       [self() ! N || N <- lists:seq(1, Number)],
                                                       Channel = channel_ct:new(),
                                                       {Waited, _} = timer:tc(fun() -> [{error, timeout} = ?CHANNEL:recv(Channel, 1) || _ <- lists:seq(1, 20)] end),
                                                       Waited
                                               end)
                 end,
    _ = Reductions(0),
    ?assert(Reductions(200000) < 20 * Reductions(0)).

%% To be told

notify_readable(_Config) ->
    Channel = channel_ct:new(),
    {ok, First} = ?CHANNEL:notify(Channel, readable),
    ?assertEqual([], causeway_ct:mailbox()),
    ok = ?CHANNEL:send(Channel, <<>>),
    ok = causeway_ct:expect({?CHANNEL, First, readable}),
    %% At once where it is so already.
    {ok, Second} = ?CHANNEL:notify(Channel, readable),
    ok = causeway_ct:expect({?CHANNEL, Second, readable}),
    {ok, <<>>} = ?CHANNEL:try_receive(Channel),
    {ok, Third} = ?CHANNEL:notify(Channel, readable),
    {ok, true} = py:call(?HELPERS, send, [Channel, {bytes, <<"from python">>}]),
    ok = causeway_ct:expect({?CHANNEL, Third, readable}),
    ?assertEqual([<<"from python">>], channel_ct:drain(Channel)),
    ?assertEqual(3, length(lists:usort([First, Second, Third]))).

notify_writable(_Config) ->
    Channel = channel_ct:new(2),
    {ok, First} = ?CHANNEL:notify(Channel, writable),
    ok = causeway_ct:expect({?CHANNEL, First, writable}),
    ok = channel_ct:fill(Channel, [<<"1">>, <<"2">>]),
    {ok, Second} = ?CHANNEL:notify(Channel, writable),
    ?assertEqual([], causeway_ct:mailbox()),
    {ok, _} = ?CHANNEL:recv(Channel),
    ok = causeway_ct:expect({?CHANNEL, Second, writable}),
    ok = ?CHANNEL:send(Channel, <<"3">>),
    {ok, Third} = ?CHANNEL:notify(Channel, writable),
    ?assertEqual({ok, <<"2">>}, py:call(?HELPERS, 'receive', [Channel])),
    ok = causeway_ct:expect({?CHANNEL, Third, writable}),
    %% Not as long as others wait for that room.
    ok = ?CHANNEL:send(Channel, <<"4">>),
    _ = channel_ct:sender(erlang, sender, Channel, <<"56">>),
    {ok, Fourth} = ?CHANNEL:notify(Channel, writable),
    {ok, <<"3">>} = ?CHANNEL:recv(Channel),
    {ok, <<"4">>} = ?CHANNEL:recv(Channel),
    ?assertEqual(true, channel_ct:outcome(sender)),
    ?assertEqual([], causeway_ct:mailbox()),
    {ok, <<"56">>} = ?CHANNEL:recv(Channel),
    ok = causeway_ct:expect({?CHANNEL, Fourth, writable}).

notify_of_the_end(_Config) ->
    [begin
         [Readable, Writable] = [channel_ct:new(), channel_ct:new(1)],
         ok = ?CHANNEL:send(Writable, <<"1">>),
         {ok, One} = ?CHANNEL:notify(Readable, readable),
         {ok, Other} = ?CHANNEL:notify(Writable, writable),
         [ok = End(Channel) || Channel <- [Readable, Writable]],
         ok = causeway_ct:expect({?CHANNEL, One, readable}),
         ok = causeway_ct:expect({?CHANNEL, Other, writable}),
         %% And of one that has ended already.
         [begin
              {ok, Late} = ?CHANNEL:notify(Readable, What),
              ok = causeway_ct:expect({?CHANNEL, Late, What})
          end || What <- [readable, writable]]
     end || End <- [fun ?CHANNEL:close/1, fun(Channel) -> ?CHANNEL:abort(Channel, reason) end,
                    fun(Channel) -> {ok, none} = py:call(erlang, 'ByteChannel.close', [Channel]), ok end]].

notify_once(_Config) ->
    Channel = channel_ct:new(),
    {ok, One} = ?CHANNEL:notify(Channel, readable),
    {ok, Two} = ?CHANNEL:notify(Channel, readable),
    ok = channel_ct:fill(Channel, [<<"a">>, <<"b">>]),
    ok = ?CHANNEL:close(Channel),
    [ok = causeway_ct:expect({?CHANNEL, Reference, readable}) || Reference <- [One, Two]],
    ?assertEqual([<<"a">>, <<"b">>], channel_ct:drain(Channel)).

%% Who waits gets the message; who asked to be told is told of those that nobody waits for.
notify_takes_nothing(_Config) ->
    Channel = channel_ct:new(),
    {ok, Reference} = ?CHANNEL:notify(Channel, readable),
    _ = channel_ct:receiver(thread, <<"waits">>, Channel),
    ok = ?CHANNEL:send(Channel, <<"1">>),
    ?assertEqual(<<"1">>, channel_ct:outcome(<<"waits">>)),
    ?assertEqual([], causeway_ct:mailbox()),
    ok = ?CHANNEL:send(Channel, <<"2">>),
    ok = causeway_ct:expect({?CHANNEL, Reference, readable}),
    ?assertEqual([<<"2">>], channel_ct:drain(Channel)).

notified_process_is_gone(_Config) ->
    Channel = channel_ct:new(),
    [ok = channel_ct:in_process(fun() -> {ok, _} = ?CHANNEL:notify(Channel, readable), ok end) || _ <- lists:seq(1, 2000)],
    {ok, Reference} = ?CHANNEL:notify(Channel, readable),
    ok = ?CHANNEL:send(Channel, <<"x">>),
    ok = causeway_ct:expect({?CHANNEL, Reference, readable}).

%% Asked while it becomes so, by processes that end: everyone who lives is told once.
notifications_race(_Config) ->
    Channel = channel_ct:new(1),
    Test = self(),
    Receivers = [spawn_link(fun() -> Test ! {self(), notified(Channel, 3000)} end) || _ <- [1, 2, 3]],
    Killed = spawn_link(fun() -> [exit(spawn(fun() -> ?CHANNEL:notify(Channel, readable), ?CHANNEL:notify(Channel, writable) end), kill)
                                  || _ <- lists:seq(1, 3000)],
                                 Test ! {self(), []} end),
    Sender = spawn_link(fun() -> flicker(Channel) end),
    [receive {Process, Rest} -> ?assertEqual([], Rest) end || Process <- [Killed | Receivers]],
    ok = ?CHANNEL:close(Channel),
    receive {flickered, Sender} -> ok after 0 -> ok end,
    true = unlink(Sender).

notified(_Channel, 0) ->
    causeway_ct:mailbox();
notified(Channel, N) ->
    [begin
         {ok, Reference} = ?CHANNEL:notify(Channel, What),
         ok = causeway_ct:expect({?CHANNEL, Reference, What})
     end || What <- [readable, writable]],
    notified(Channel, N - 1).

flicker(Channel) ->
    case ?CHANNEL:send(Channel, <<"x">>, 0) of
        {error, closed} -> ok;
        _ -> _ = ?CHANNEL:try_receive(Channel), flicker(Channel)
    end.

%% Many

ten_thousand_receivers(_Config) ->
    Channel = channel_ct:new(),
    Test = self(),
    [spawn_link(fun() -> Test ! ?CHANNEL:recv(Channel) end) || _ <- lists:seq(1, 10000)],
    ok = channel_ct:waiting(Channel, 10000, 0),
    ok = channel_ct:fill(Channel, [<<N:32>> || N <- lists:seq(1, 5000)]),
    ok = ?CHANNEL:close(Channel),
    Results = [receive Result -> Result end || _ <- lists:seq(1, 10000)],
    ?assertEqual([{error, closed}], lists:usort([Result || {error, _} = Result <- Results])),
    ?assertEqual([<<N:32>> || N <- lists:seq(1, 5000)], lists:sort([Message || {ok, Message} <- Results])).

ten_thousand_senders(_Config) ->
    Channel = channel_ct:new(4),
    Test = self(),
    ok = ?CHANNEL:send(Channel, <<0:32>>),
    [spawn_link(fun() -> Test ! ?CHANNEL:send(Channel, <<N:32>>, infinity) end) || N <- lists:seq(1, 10000)],
    ok = channel_ct:waiting(Channel, 0, 10000),
    ?assertEqual([<<N:32>> || N <- lists:seq(0, 10000)], lists:sort([element(2, ?CHANNEL:recv(Channel)) || _ <- lists:seq(0, 10000)])),
    [ok = causeway_ct:expect(ok) || _ <- lists:seq(1, 10000)].

ten_thousand_tasks(_Config) ->
    Channel = channel_ct:new(),
    {ok, none} = py:call(?HELPERS, many_wait, [self(), Channel, 10000]),
    ok = channel_ct:waiting(Channel, 10000, 0),
    Messages = [<<N:32>> || N <- lists:seq(1, 10000)],
    ok = channel_ct:fill(Channel, Messages),
    %% The first task has the first message.
    ?assertEqual(Messages, channel_ct:outcome(<<"many">>)).

%% An Erlang process, a thread, and a task of an event loop.
waiting_sender_burns_nothing(_Config) ->
    Channel = channel_ct:new(1),
    ok = ?CHANNEL:send(Channel, <<"1">>),
    {ok, none} = py:call(?HELPERS, thread_measures_sending, [self(), <<"thread">>, Channel, {bytes, <<"2">>}]),
    ok = channel_ct:waiting(Channel, 0, 1),
    {ok, none} = py:call(?HELPERS, task_measures_sending, [self(), <<"task">>, Channel, {bytes, <<"3">>}]),
    ok = channel_ct:waiting(Channel, 0, 2),
    Sender = channel_ct:sender(erlang, sender, Channel, <<"4">>),
    {reductions, Before} = process_info(Sender, reductions),
    receive after 300 -> ok end,
    ?assertEqual({reductions, Before}, process_info(Sender, reductions)),
    [{ok, _} = ?CHANNEL:recv(Channel) || _ <- [1, 2, 3, 4]],
    ?assertEqual(true, channel_ct:outcome(sender)),
    [?assert(channel_ct:outcome(Name) < 0.1) || Name <- [<<"thread">>, <<"task">>]].

%% Looking for room again and again would take a turn of all others each time, and its time-out would be far gone.
sender_is_not_patient_among_others(_Config) ->
    {ok, Channel} = py_byte_channel:new(#{max_size => 1}),
    ok = py_byte_channel:send(Channel, <<"x">>),
    Others = [spawn_link(fun Spin() -> Spin() end) || _ <- lists:seq(1, 32)],
    {Sender, Monitor} = spawn_monitor(fun() ->
                                          receive go -> ok end,
                                          exit(py_byte_channel:send(Channel, <<"y">>, 1))
                                      end),
    1 = erlang:trace(Sender, true, [running]),
    Sender ! go,
    receive {'DOWN', Monitor, process, Sender, Result} -> ?assertEqual({error, timeout}, Result) end,
    Delivered = erlang:trace_delivered(Sender),
    receive {trace_delivered, Sender, Delivered} -> ok end,
    [begin unlink(Other), exit(Other, kill) end || Other <- Others],
    ?assert(turns(Sender, 0) < 30).

turns(Process, Number) ->
    receive
        {trace, Process, in, _} -> turns(Process, Number + 1);
        {trace, Process, out, _} -> turns(Process, Number)
    after 0 -> Number
    end.
