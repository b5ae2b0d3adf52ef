%% @doc Byte channels and Python: memory that is not copied, calls that are given up while they wait, interpreters of
%% every kind, and the end of contexts and of the application.
-module(py_byte_channel_python_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-define(HELPERS, channel_helpers).
-define(CHANNEL, py_byte_channel).
-define(LARGE, 4000000).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [binaries_are_not_copied, parts_of_binaries, buffer_over_a_binary, buffers_of_every_size, binary_over_bytes, bytes_come_back,
     mutable_memory_is_copied, receive_into, iteration_and_with, time_out_while_it_waits, interrupt_while_it_waits,
     caller_dies_while_it_waits, context_stops_while_it_waits, interruptions_lose_nothing, tasks_in_every_mode,
     between_interpreters, interpreter_is_gone, callbacks_while_it_waits, application_stop,
     tests_of_plain_python].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> channel_ct:stop(Config).

init_per_testcase(_Case, Config) -> Config.

end_per_testcase(_Case, _Config) -> ?assertEqual([], causeway_ct:mailbox()).

%% Memory

binaries_are_not_copied(_Config) ->
    Channel = channel_ct:new(),
    ok = channel_ct:in_process(fun() ->
                                       Large = binary:copy(<<"x">>, ?LARGE),
                                       Before = causeway_ct:memory(binary),
                                       ok = channel_ct:fill(Channel, lists:duplicate(200, Large)),
                                       {ok, Received} = ?CHANNEL:recv_many(Channel, 1 bsl 40),
                                       ?assertEqual(200, length(Received)),
                                       ?assertMatch([{_, ?LARGE}], lists:usort([{Id, Size} || {Id, Size, _} <- large_binaries()])),
                                       ?assert(causeway_ct:memory(binary) - Before < 10 * ?LARGE),
                                       Large = hd(Received),
                                       ok
                               end).

large_binaries() ->
    {binary, Binaries} = process_info(self(), binary),
    [Binary || {_, Size, _} = Binary <- Binaries, Size >= 100000].

parts_of_binaries(_Config) ->
    Channel = channel_ct:new(),
    ok = channel_ct:in_process(fun() ->
                                       Whole = crypto:strong_rand_bytes(?LARGE),
                                       Part = binary:part(Whole, 17, 1000000),
                                       ok = ?CHANNEL:send(Channel, Part),
                                       {ok, Received} = ?CHANNEL:recv(Channel),
                                       ?assertEqual(Part, Received),
                                       ?assertEqual(?LARGE, binary:referenced_byte_size(Received)),
                                       ok = ?CHANNEL:send(Channel, Part),
                                       ?assertEqual({ok, Part}, py:call(?HELPERS, 'receive', [Channel])),
                                       ok
                               end).

%% What Python sees is Erlang's memory: there once, and as long as one of them has it.
buffer_over_a_binary(_Config) ->
    Channel = channel_ct:new(),
    Digest = channel_ct:in_process(fun() ->
                                           Large = crypto:strong_rand_bytes(?LARGE),
                                           ok = ?CHANNEL:send(Channel, Large),
                                           {ok, ?LARGE} = py:call(?HELPERS, keep_buffer, [<<"buffer">>, Channel]),
                                           erlang:md5(Large)
                                   end),
    With = causeway_ct:memory(binary),
    {ok, Bytes} = py:call(?HELPERS, bytes_of, [<<"buffer">>]),
    ?assertEqual(Digest, erlang:md5(Bytes)),
    {ok, none} = py:call(?HELPERS, forget, [<<"buffer">>]),
    ok = channel_ct:in_process(fun() -> causeway_ct:settled(fun() -> causeway_ct:memory(binary) end, With - ?LARGE div 2 + byte_size(Bytes)) end).

buffers_of_every_size(_Config) ->
    Channel = channel_ct:new(),
    [begin
         Message = crypto:strong_rand_bytes(Size),
         ok = ?CHANNEL:send(Channel, Message),
         {ok, Size} = py:call(?HELPERS, keep_buffer, [<<"buffer">>, Channel]),
         ?assertEqual({ok, [Message]}, py:call(?HELPERS, buffers_as_bytes, [<<"buffer">>])),
         {ok, none} = py:call(?HELPERS, forget, [<<"buffer">>])
     end || Size <- [0, 1, 63, 64, 65, 16383, 16384, 16385, 1000000]].

%% What Erlang sees is Python's memory; it is given back when Erlang has let go of it.
binary_over_bytes(_Config) ->
    Channel = channel_ct:new(),
    {ok, none} = py:call(?HELPERS, send_kept, [Channel, <<"bytes">>, ?LARGE]),
    {ok, Queued} = py:call(?HELPERS, references_to, [<<"bytes">>]),
    ok = channel_ct:in_process(fun() ->
                                       {ok, Binary} = ?CHANNEL:recv(Channel),
                                       ?assertEqual(binary:copy(<<0>>, ?LARGE), Binary),
                                       ?assertEqual({ok, Queued}, py:call(?HELPERS, references_to, [<<"bytes">>])),
                                       ok
                               end),
    ok = causeway_ct:wait_until(fun() -> py:call(?HELPERS, references_to, [<<"bytes">>]) =:= {ok, Queued - 1} end),
    %% Nor is it kept where it is dropped in the queue, in one way or another.
    [begin
         {ok, none} = py:call(?HELPERS, send_kept, [Dropped, <<"bytes">>, ?LARGE]),
         ok = ?CHANNEL:abort(Dropped, dropped),
         ok = causeway_ct:wait_until(fun() -> py:call(?HELPERS, references_to, [<<"bytes">>]) =:= {ok, Queued - 1} end)
     end || Dropped <- [channel_ct:new(), channel_ct:new()]],
    %% It outlives what Python has of it.
    {ok, none} = py:call(?HELPERS, send_kept, [Channel, <<"bytes">>, ?LARGE]),
    {ok, none} = py:call(?HELPERS, forget, [<<"bytes">>]),
    ?assertEqual({ok, binary:copy(<<0>>, ?LARGE)}, ?CHANNEL:recv(Channel)).

bytes_come_back(_Config) ->
    ?assertEqual({ok, true}, py:call(?HELPERS, same_object_comes_back, [channel_ct:new()])).

mutable_memory_is_copied(_Config) ->
    Channel = channel_ct:new(),
    {ok, none} = py:call(?HELPERS, changed_after_sending, [Channel]),
    ?assertEqual([binary:copy(<<"a">>, 100000), binary:copy(<<"a">>, 50000)], channel_ct:drain(Channel)),
    %% Whatever its items are, as long as they are one piece of memory.
    {ok, none} = py:call(?HELPERS, send_odd_memory, [Channel]),
    ?assertEqual([<<"cde">>, <<1:16/little, 2:16/little>>, <<0:48>>], channel_ct:drain(Channel)).

receive_into(_Config) ->
    Channel = channel_ct:new(),
    Large = crypto:strong_rand_bytes(100000),
    ok = channel_ct:fill(Channel, [<<"12345">>, <<>>, Large]),
    {error, {'ValueError', Text}} = py:call(?HELPERS, receive_into, [Channel, 4]),
    ?assertMatch({match, _}, re:run(Text, "5 bytes.* 4")),
    ?assertMatch(#{messages := 3, messages_out := 0, size := 100005}, ?CHANNEL:info(Channel)),
    ?assertEqual({ok, {5, <<"12345", 0>>}}, py:call(?HELPERS, receive_into, [Channel, 6])),
    ?assertEqual({ok, {0, <<>>}}, py:call(?HELPERS, receive_into, [Channel, 0])),
    ?assertEqual({ok, {100000, Large}}, py:call(?HELPERS, receive_into, [Channel, 100000])),
    ?assertMatch({error, {'TimeoutError', _}}, py:call(?HELPERS, receive_into, [Channel, 10, 1])),
    %% With its last reference here the channel would have been closed.
    ?assertMatch(#{closed := false}, ?CHANNEL:info(Channel)).

iteration_and_with(_Config) ->
    [begin
         [Source, Target] = [channel_ct:new(), channel_ct:new()],
         ok = channel_ct:fill(Source, [<<"a">>, <<>>, <<"b">>]),
         ok = ?CHANNEL:close(Source),
         {ok, none} = py:call(?HELPERS, Function, [Source, Target]),
         ?assertEqual([<<"a">>, <<>>, <<"b">>], channel_ct:drain(Target)),
         ?assertMatch(#{closed := true}, ?CHANNEL:info(Target))
     end || Function <- [copy_with, copy_async_with]].

%% Calls that are given up

waits() ->
    [{worker, receive_all} | [{Mode, What} || Mode <- channel_ct:modes(), What <- ['receive', send]]].

%% A channel with one message of one byte where a send waits, or none where a receive does, and the call that waits.
waiting_call(send) ->
    Channel = channel_ct:new(1),
    ok = ?CHANNEL:send(Channel, <<"1">>),
    {Channel, [Channel, {bytes, <<"2">>}, -1], {0, 1}};
waiting_call(_Receive) ->
    Channel = channel_ct:new(),
    {Channel, [Channel], {1, 0}}.

%% Nobody waits any more, nothing was sent or lost, and the context serves the next call.
is_as_before(Channel, Context) ->
    ?assertEqual({ok, 2}, py:eval(Context, <<"1 + 1">>, #{}, 10000)),
    ok = channel_ct:waiting(Channel, 0, 0),
    Left = channel_ct:drain(Channel),
    ok = ?CHANNEL:send(Channel, <<"n">>),
    ?assertEqual({ok, <<"n">>}, py:call(Context, ?HELPERS, 'receive', [Channel], #{timeout => 10000})),
    ?assertMatch(#{messages_in := In, messages_out := In} when In =:= length(Left) + 1, ?CHANNEL:info(Channel)).

time_out_while_it_waits(_Config) ->
    [begin
         Context = channel_ct:context(Mode),
         {Channel, Arguments, _} = waiting_call(What),
         ?assertEqual({error, timeout}, py:call(Context, ?HELPERS, What, Arguments, #{timeout => 30})),
         is_as_before(Channel, Context),
         ok = py_context:stop(Context)
     end || {Mode, What} <- waits()].

interrupt_while_it_waits(_Config) ->
    [begin
         Context = channel_ct:context(Mode),
         {Channel, Arguments, {Receivers, Senders}} = waiting_call(What),
         Call = py:spawn_call(Context, ?HELPERS, What, Arguments),
         ok = channel_ct:waiting(Channel, Receivers, Senders),
         ok = py:interrupt(Context),
         ?assertMatch({error, {'CallInterrupted', _}}, py:await(Call, 10000)),
         is_as_before(Channel, Context),
         ok = py_context:stop(Context)
     end || {Mode, What} <- waits()].

caller_dies_while_it_waits(_Config) ->
    [begin
         Context = channel_ct:context(Mode),
         {Channel, Arguments, {Receivers, Senders}} = waiting_call(What),
         Caller = spawn(fun() -> py:call(Context, ?HELPERS, What, Arguments) end),
         ok = channel_ct:waiting(Channel, Receivers, Senders),
         exit(Caller, kill),
         is_as_before(Channel, Context),
         ok = py_context:stop(Context)
     end || {Mode, What} <- waits()].

context_stops_while_it_waits(_Config) ->
    Other = channel_ct:context(worker),
    [begin
         Context = channel_ct:context(Mode),
         {Channel, Arguments, {Receivers, Senders}} = waiting_call(What),
         Call = py:spawn_call(Context, ?HELPERS, What, Arguments),
         ok = channel_ct:waiting(Channel, Receivers, Senders),
         ok = py_context:stop(Context),
         ?assertMatch({error, {context_stopped, _}}, py:await(Call, 10000)),
         is_as_before(Channel, Other)
     end || {Mode, What} <- waits()],
    ok = py_context:stop(Other).

%% Either the call has the message or the channel still has it.
interruptions_lose_nothing(_Config) ->
    Context = channel_ct:context(worker),
    Channel = channel_ct:new(),
    Outcomes = [begin
                    Message = <<N:32>>,
                    Call = py:spawn_call(Context, erlang, 'ByteChannel.receive_bytes', [Channel]),
                    ok = channel_ct:waiting(Channel, 1, 0),
                    {Sender, Monitor} = spawn_monitor(fun() -> ok = ?CHANNEL:send(Channel, Message) end),
                    _ = py:interrupt(Context),
                    receive {'DOWN', Monitor, process, Sender, normal} -> ok end,
                    case py:await(Call, 10000) of
                        {ok, Message} ->
                            received;
                        {error, {'CallInterrupted', _}} ->
                            ?assertEqual({ok, Message}, ?CHANNEL:recv(Channel, 10000)),
                            interrupted
                    end
                end || N <- lists:seq(1, 500)],
    ct:log("~p of 500 interrupted", [length([1 || interrupted <- Outcomes])]),
    ok = py_context:stop(Context).

%% Interpreters

tasks_in_every_mode(_Config) ->
    [begin
         Context = channel_ct:context(Mode),
         Channel = channel_ct:new(),
         ?assertEqual({ok, none}, py:call(Context, ?HELPERS, task_lives_shortly, [Channel, 5])),
         Call = py:spawn_call(Context, ?HELPERS, task_lives_shortly, [Channel, 10000]),
         ok = channel_ct:waiting(Channel, 1, 0),
         ok = ?CHANNEL:send(Channel, <<"for a task">>),
         ?assertEqual({ok, <<"for a task">>}, py:await(Call, 10000)),
         %% Many loops, one after the other: none leaves a descriptor.
         Descriptors = causeway_ct:descriptors(),
         [?assertEqual({ok, none}, py:call(Context, ?HELPERS, task_lives_shortly, [Channel, 0.1])) || _ <- lists:seq(1, 30)],
         {ok, _} = py:call(Context, gc, collect, []),
         ?assert(causeway_ct:descriptors() =< Descriptors + 3),
         ok = py_context:stop(Context)
     end || Mode <- channel_ct:modes()].

%% Messages of each size, from each kind of interpreter to each.
between_interpreters(_Config) ->
    [begin
         [Sender, Receiver] = [channel_ct:context(From), channel_ct:context(To)],
         Channel = channel_ct:new(),
         Call = py:spawn_call(Receiver, ?HELPERS, digests, [Channel]),
         {ok, Sent} = py:call(Sender, ?HELPERS, send_sizes, [Channel, [0, 1, 16383, 16384, 1000000]]),
         ok = ?CHANNEL:close(Channel),
         ?assertEqual({ok, Sent}, py:await(Call, 10000)),
         ?assertEqual({ok, Channel}, py:call(Receiver, ?HELPERS, identity, [Channel])),
         [ok = py_context:stop(Context) || Context <- [Sender, Receiver]]
     end || From <- channel_ct:modes(), To <- channel_ct:modes()].

%% What an interpreter has sent outlives it: in the queue, as a binary, and as a buffer of another.
interpreter_is_gone(_Config) ->
    [begin
         Sender = channel_ct:context(Mode),
         Channel = channel_ct:new(),
         {ok, Sent} = py:call(Sender, ?HELPERS, send_sizes, [Channel, [1000000, 1000000, 1000000]]),
         {ok, AsBinary} = ?CHANNEL:recv(Channel),
         {ok, 1000000} = py:call(?HELPERS, keep_buffer, [<<"buffer">>, Channel]),
         ok = py_context:stop(Sender),
         %% Others use the memory that it had.
         Next = channel_ct:context(Mode),
         {ok, _} = py:call(Next, ?HELPERS, send_sizes, [channel_ct:new(), lists:duplicate(20, 1000000)]),
         {ok, Buffer} = py:call(?HELPERS, bytes_of, [<<"buffer">>]),
         {ok, Queued} = ?CHANNEL:recv(Channel),
         ?assertEqual(Sent, [crypto:hash(sha256, Message) || Message <- [AsBinary, Buffer, Queued]]),
         {ok, none} = py:call(?HELPERS, forget, [<<"buffer">>]),
         ok = py_context:stop(Next)
     end || Mode <- channel_ct:modes()].

%% A callback sends what the call that it is made from waits for.
callbacks_while_it_waits(_Config) ->
    Channel = channel_ct:new(),
    ok = py:register_function(channel_answer, fun([To]) -> ok = ?CHANNEL:send(To, <<"answer">>), [] end),
    ?assertEqual({ok, <<"answer">>}, py:call(?HELPERS, ask_and_receive, [<<"channel_answer">>, Channel])),
    ok = py:unregister_function(channel_answer).

%% Channels are no part of the application: who waits in Erlang goes on to wait, calls end.
application_stop(_Config) ->
    [Receiving, Sending] = [channel_ct:new(), channel_ct:new(1)],
    ok = ?CHANNEL:send(Sending, <<"1">>),
    [channel_ct:receiver(Kind, {receives, atom_to_binary(Kind)}, Receiving) || Kind <- channel_ct:kinds()],
    _ = channel_ct:sender(erlang, sends, Sending, <<"2">>),
    Call = py:spawn_call(?HELPERS, 'receive', [Receiving]),
    ok = channel_ct:waiting(Receiving, 4, 0),
    {ok, Reference} = ?CHANNEL:notify(Sending, writable),
    ok = application:stop(causeway),
    ?assertMatch({error, _}, py:await(Call, 10000)),
    ok = channel_ct:waiting(Receiving, 3, 0),
    ok = ?CHANNEL:send(Receiving, <<"while stopped">>),
    ?assertEqual(<<"while stopped">>, channel_ct:outcome({receives, <<"erlang">>})),
    ok = causeway_ct:start(),
    ok = channel_ct:fill(Receiving, [<<"thread">>, <<"task">>]),
    [?assertEqual(Name, channel_ct:outcome({<<"receives">>, Name})) || Name <- [<<"thread">>, <<"task">>]],
    ?assertEqual([{ok, <<"1">>}, {ok, <<"2">>}], [?CHANNEL:recv(Sending), ?CHANNEL:recv(Sending)]),
    ?assertEqual(true, channel_ct:outcome(sends)),
    ok = causeway_ct:expect({?CHANNEL, Reference, writable}),
    ?assertEqual({ok, Receiving}, py:call(?HELPERS, identity, [Receiving])).

%% In a context of a node channels between threads and tasks do what they do without a BEAM: the same tests say so.
tests_of_plain_python(_Config) ->
    Tests = filename:join(causeway_ct:python_dir(), "../../../python/tests"),
    Files = lists:sort(filelib:wildcard(unicode:characters_to_list(filename:join(Tests, "test_byte_channel*.py")))),
    ?assert(length(Files) > 5),
    %% What pytest says goes by way of the node to descriptor 1, from which it would catch that itself.
    Arguments = ["--quiet", "--capture=sys", "-p", "no:cacheprovider" | Files],
    Code = io_lib:format("{ok, _} = application:ensure_all_started(causeway), "
                         "{ok, 0} = py:call(pytest, main, [~0p], #{}, 300000), init:stop().",
                         [[unicode:characters_to_binary(Argument) || Argument <- Arguments]]),
    {Status, Output} = causeway_ct:run_node(lists:flatten(Code), []),
    ct:log("~ts", [Output]),
    ?assertEqual({0, Output}, {Status, Output}).
