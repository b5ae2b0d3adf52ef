%% @doc Which channel a reference is, how long it lives, and what is said to who uses it wrongly.
-module(py_byte_channel_reference_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-define(HELPERS, channel_helpers).
-define(CHANNEL, py_byte_channel).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [same_reference, reference_that_erlang_has_let_go_of, channel_made_by_python, holder_is_gone,
     holder_is_gone_for_senders, holder_is_gone_after_the_queue, holder_is_gone_for_who_comes_later,
     holder_is_in_the_call_only, notified_process_is_no_holder, python_made_has_no_holder, notified_when_nobody_has_it,
     channel_is_gone_with_all_in_it, reference_in_data,
     registered_callbacks, wrong_arguments, texts_of_errors, wrong_arguments_in_python, not_local].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> channel_ct:stop(Config).

init_per_testcase(_Case, Config) -> Config.

end_per_testcase(_Case, _Config) -> ?assertEqual([], causeway_ct:mailbox()).

%% Which channel it is

same_reference(_Config) ->
    Channel = channel_ct:new(),
    ?assertEqual({ok, Channel}, py:call(?HELPERS, identity, [Channel])),
    ?assertEqual({ok, [Channel, {Channel, #{<<"c">> => Channel}}]}, py:call(?HELPERS, identity, [[Channel, {Channel, #{c => Channel}}]])),
    ?assertEqual({ok, #{Channel => 1}}, py:call(?HELPERS, identity, [#{Channel => 1}])),
    {ok, none} = py:call(erlang, send, [self(), {Channel}]),
    ok = causeway_ct:expect({Channel}),
    ?assertEqual({ok, <<"ByteChannel">>}, py:eval(<<"type(x).__name__">>, #{x => Channel})),
    ?assertEqual({ok, true}, py:call(?HELPERS, are_same, [Channel, Channel])),
    ?assertEqual({ok, false}, py:call(?HELPERS, are_same, [Channel, channel_ct:new()])),
    ?assertEqual({ok, true}, py:eval(<<"__import__('erlang').ByteChannel(x) == x">>, #{x => Channel})),
    {ok, none} = py:call(?HELPERS, keep, [<<"same">>, Channel]),
    ?assertEqual({ok, Channel}, py:call(?HELPERS, give, [<<"same">>])),
    {ok, none} = py:call(?HELPERS, forget, [<<"same">>]).

%% Python keeps a channel; Erlang lets go of it, and gets it back, as the one that it was.
reference_that_erlang_has_let_go_of(_Config) ->
    ok = channel_ct:in_process(fun() ->
                                       Channel = channel_ct:new(),
                                       {ok, none} = py:call(?HELPERS, keep, [<<"kept">>, Channel]),
                                       channel_ct:fill(Channel, [<<"before">>, <<"after">>])
                               end),
    [begin
         true = erlang:garbage_collect(),
         {ok, <<"before">>} = channel_ct:in_process(fun() ->
                                                            {ok, Channel} = py:call(?HELPERS, give, [<<"kept">>]),
                                                            ok = ?CHANNEL:send(Channel, <<"before">>),
                                                            {ok, _} = ?CHANNEL:recv(Channel),
                                                            {ok, _} = ?CHANNEL:recv(Channel),
                                                            ok = channel_ct:fill(Channel, [<<"after">>]),
                                                            {ok, Channel} = py:call(?HELPERS, give, [<<"kept">>]),
                                                            {ok, <<"before">>}
                                                    end)
     end || _ <- lists:seq(1, 50)],
    %% It has not become closed thereby: one who has it again waits.
    {ok, Channel} = py:call(?HELPERS, give, [<<"kept">>]),
    ?assertEqual([<<"before">>, <<"after">>], lists:reverse(lists:sort(channel_ct:drain(Channel)))),
    ?assertEqual({error, timeout}, ?CHANNEL:recv(Channel, 1)),
    ?assertMatch({error, {'TimeoutError', _}}, py:call(?HELPERS, 'receive', [Channel, 1])),
    {ok, none} = py:call(?HELPERS, forget, [<<"kept">>]).

channel_made_by_python(_Config) ->
    {ok, Channel} = py:call(?HELPERS, new, [5]),
    ?assert(is_reference(Channel)),
    ?assertMatch(#{max_size := 5}, ?CHANNEL:info(Channel)),
    ok = ?CHANNEL:send(Channel, <<"12345">>),
    ?assertEqual(busy, ?CHANNEL:send(Channel, <<"6">>)),
    ?assertEqual({ok, <<"12345">>}, py:call(?HELPERS, 'receive', [Channel])),
    ?assertEqual({ok, Channel}, py:call(?HELPERS, identity, [Channel])).

%% Who asked about a channel that nobody in Erlang has any more could wait for ever: he is told.
notified_when_nobody_has_it(_Config) ->
    Test = self(),
    [begin
         {Asker, Monitor} = spawn_monitor(fun() ->
                                                  Reference = asks_and_forgets(Made),
                                                  Test ! asked,
                                                  receive {?CHANNEL, Reference, readable} -> ok end
                                          end),
         receive asked -> ok end,
         true = erlang:garbage_collect(Asker),
         ok = causeway_ct:expect({'DOWN', Monitor, process, Asker, normal})
     end || Made <- [python, erlang]].

asks_and_forgets(python) ->
    {ok, Channel} = py:call(?HELPERS, new, [5]),
    {ok, Reference} = ?CHANNEL:notify(Channel, readable),
    Reference;
asks_and_forgets(erlang) ->
    {ok, Reference} = ?CHANNEL:notify(channel_ct:new(), readable),
    Reference.

%% Who waits when the last process that had the channel is gone.
holder_is_gone(_Config) ->
    [begin
         ok = made_and_left(0, fun(Channel) ->
                                       {ok, none} = py:call(?HELPERS, Wait, [Test, <<"waits">>, Channel]),
                                       channel_ct:waiting(Channel, 1, 0)
                               end),
         ?assertEqual(Outcome, channel_ct:outcome(<<"waits">>))
     end || {Wait, Outcome} <- [{thread_receives, {<<"ByteChannelClosed">>, <<"the channel is closed">>}}, {thread_iterates, []},
                                {task_receives, {<<"ByteChannelClosed">>, <<"the channel is closed">>}}, {task_iterates, []}],
            Test <- [self()], _ <- lists:seq(1, 20)].

holder_is_gone_for_senders(_Config) ->
    Test = self(),
    [begin
         ok = made_and_left(1, fun(Channel) ->
                                       ok = ?CHANNEL:send(Channel, <<"1">>),
                                       {ok, none} = py:call(?HELPERS, Wait, [Test, <<"waits">>, Channel, {bytes, <<"2">>}]),
                                       channel_ct:waiting(Channel, 0, 1)
                               end),
         ?assertMatch({<<"ByteChannelClosed">>, _}, channel_ct:outcome(<<"waits">>))
     end || Wait <- [thread_sends, task_sends]].

holder_is_gone_after_the_queue(_Config) ->
    ok = made_and_left(0, fun(Channel) ->
                                  ok = channel_ct:fill(Channel, [<<"a">>, <<"b">>]),
                                  {ok, none} = py:call(?HELPERS, keep, [<<"left">>, Channel]),
                                  ok
                          end),
    ?assertEqual({ok, [<<"a">>, <<"b">>]}, py:call(?HELPERS, receive_kept, [<<"left">>], #{}, 10000)).

%% Nothing goes into a channel that nobody can empty, and who looks only sees the end too.
holder_is_gone_for_who_comes_later(_Config) ->
    ok = made_and_left(0, fun(Channel) ->
                                  {ok, none} = py:call(?HELPERS, keep, [<<"left">>, Channel]),
                                  {ok, false} = py:call(?HELPERS, kept_is_closed, [<<"left">>]),
                                  ok
                          end),
    Closed = <<"ByteChannelClosed">>,
    ?assertEqual({ok, [Closed, Closed, Closed, true]}, py:call(?HELPERS, use_when_left, [<<"left">>], #{}, 10000)).

%% The call itself is no holder: its argument is Python's as soon as it runs.
holder_is_in_the_call_only(_Config) ->
    [begin
         Context = channel_ct:context(Mode),
         Call = spawned_call(Context),
         true = erlang:garbage_collect(),
         ?assertEqual({ok, [<<"a">>]}, py:await(Call, 10000)),
         ok = py_context:stop(Context)
     end || Mode <- channel_ct:modes()].

spawned_call(Context) ->
    Channel = channel_ct:new(),
    ok = ?CHANNEL:send(Channel, <<"a">>),
    py:spawn_call(Context, ?HELPERS, receive_all, [Channel]).

%% Who asked to be told does not have the channel thereby, and is told of its end.
notified_process_is_no_holder(_Config) ->
    {ok, Reference} = ask_to_be_told(),
    true = erlang:garbage_collect(),
    ok = causeway_ct:expect({?CHANNEL, Reference, readable}),
    {ok, none} = py:call(?HELPERS, forget, [<<"left">>]).

ask_to_be_told() ->
    Channel = channel_ct:new(),
    {ok, none} = py:call(?HELPERS, keep, [<<"left">>, Channel]),
    ?CHANNEL:notify(Channel, readable).

%% Python may go on among itself with what it has made.
python_made_has_no_holder(_Config) ->
    Test = self(),
    ok = channel_ct:in_process(fun() ->
                                       {ok, Channel} = py:call(?HELPERS, new, []),
                                       {ok, none} = py:call(?HELPERS, keep, [<<"made">>, Channel]),
                                       {ok, none} = py:call(?HELPERS, thread_receives, [Test, <<"waits">>, Channel]),
                                       channel_ct:waiting(Channel, 1, 0)
                               end),
    true = erlang:garbage_collect(),
    {ok, true} = py:call(?HELPERS, send_kept_channel, [<<"made">>, {bytes, <<"from python">>}]),
    ?assertEqual(<<"from python">>, channel_ct:outcome(<<"waits">>)),
    {ok, none} = py:call(?HELPERS, forget, [<<"made">>]).

%% Queued messages and processes to be told go with a channel that nobody has any more, however many they are.
channel_is_gone_with_all_in_it(_Config) ->
    ok = channel_ct:in_process(fun() ->
                                       ok = leave_a_full_one(),
                                       ok = leave_one_with_notifications(200000),
                                       true = erlang:garbage_collect(),
                                       ok
                               end),
    ?assertEqual({ok, 1}, py:eval(<<"1">>)).

leave_a_full_one() ->
    {ok, Channel} = py:call(?HELPERS, new, []),
    channel_ct:fill(Channel, lists:duplicate(100000, <<"m">>)).

leave_one_with_notifications(Number) ->
    {ok, Channel} = py:call(?HELPERS, new, []),
    lists:foreach(fun(_) -> {ok, _} = ?CHANNEL:notify(Channel, readable) end, lists:seq(1, Number)).

%% In plain Erlang data they are references like any other: the same after a trip through ETS and other processes.
reference_in_data(_Config) ->
    Channel = channel_ct:new(),
    Table = ets:new(channels, []),
    true = ets:insert(Table, {channel, Channel}),
    [{channel, FromTable}] = ets:lookup(Table, channel),
    ok = ?CHANNEL:send(FromTable, <<"x">>),
    Restored = binary_to_term(term_to_binary(Channel)),
    ?assertEqual({ok, <<"x">>}, ?CHANNEL:recv(Restored)),
    true = ets:delete(Table).

registered_callbacks(_Config) ->
    ?assertEqual(ok, ?CHANNEL:register_callbacks()),
    ?assertEqual(ok, ?CHANNEL:register_callbacks()),
    Channel = channel_ct:new(),
    Call = fun(Name) -> py:eval([<<"__import__('erlang').call('">>, Name, <<"', channel)">>], #{channel => Channel}) end,
    ok = channel_ct:fill(Channel, [<<"one">>, <<255>>]),
    ?assertEqual({ok, {<<"ok">>, <<"one">>}}, Call("_py_byte_channel_receive")),
    ?assertEqual({ok, {<<"ok">>, <<255>>}}, Call("_py_byte_channel_try_receive")),
    ?assertEqual({ok, {<<"error">>, <<"empty">>}}, Call("_py_byte_channel_try_receive")),
    ok = ?CHANNEL:close(Channel),
    ?assertEqual({ok, {<<"error">>, <<"closed">>}}, Call("_py_byte_channel_receive")),
    ?assertEqual({ok, {<<"error">>, <<"closed">>}}, Call("_py_byte_channel_try_receive")),
    [ok = py:unregister_function(Name) || Name <- ['_py_byte_channel_receive', '_py_byte_channel_try_receive']].
%% A channel which a process of its own makes and uses, that then goes.
made_and_left(Size, Fun) ->
    channel_ct:in_process(fun() -> ok = Fun(channel_ct:new(Size)) end).

%% Errors

wrong_arguments(_Config) ->
    Channel = channel_ct:new(),
    [?assertError(badarg, ?CHANNEL:new(Options))
     || Options <- [#{max_size => -1}, #{max_size => infinity}, #{max_size => 1.0}, #{max_size => 1 bsl 64}, #{size => 1},
                    #{max_size => 1, more => 2}, [], 10, max_size]],
    [?assertError(badarg, Fun(Wrong))
     || Fun <- of_channel(), Wrong <- [atom, 1, <<"binary">>, self(), make_ref(), {Channel}, [Channel], ets:new(table, [])]],
    [?assertError(badarg, ?CHANNEL:send(Channel, Data)) || Data <- [atom, 1, [256], [a], <<1:3>>, [<<1:3>>], {a}, #{}, [-1]]],
    [?assertError(badarg, ?CHANNEL:send(Channel, Data, 1)) || Data <- [atom, 1, [256]]],
    [?assertError(badarg, Fun(Timeout))
     || Timeout <- [-1, atom, 1.5, 1 bsl 32, <<"1">>],
        Fun <- [fun(T) -> ?CHANNEL:recv(Channel, T) end, fun(T) -> ?CHANNEL:send(Channel, <<>>, T) end,
                fun(T) -> ?CHANNEL:recv_many(Channel, 1, T) end]],
    [?assertError(badarg, ?CHANNEL:recv_many(Channel, Bytes)) || Bytes <- [0, -1, infinity, 1.0]],
    [?assertError(badarg, ?CHANNEL:notify(Channel, What)) || What <- [read, 'receive', 1]],
    [?assertError(badarg, ?CHANNEL:fold(Fun, 0, Channel)) || Fun <- [1, fun(_) -> ok end, fun(_, _, _) -> ok end]],
    %% Nothing of all that has changed anything.
    ?assertMatch(#{messages := 0, messages_in := 0, closed := false, waiting_receivers := 0}, ?CHANNEL:info(Channel)),
    %% Nothing is sent where the process's memory is that of another kind of reference.
    {ok, Object} = py:call(builtins, object, [], #{}, #{result => ref}),
    [?assertError(badarg, Fun(Object)) || Fun <- of_channel()].

of_channel() ->
    [fun ?CHANNEL:recv/1, fun(C) -> ?CHANNEL:recv(C, 0) end, fun(C) -> ?CHANNEL:recv(C, 10) end, fun ?CHANNEL:try_receive/1,
     fun(C) -> ?CHANNEL:recv_many(C, 10) end, fun(C) -> ?CHANNEL:recv_many(C, 10, 0) end, fun(C) -> ?CHANNEL:send(C, <<>>) end,
     fun(C) -> ?CHANNEL:send(C, <<>>, 0) end, fun ?CHANNEL:close/1, fun(C) -> ?CHANNEL:abort(C, reason) end, fun ?CHANNEL:info/1,
     fun(C) -> ?CHANNEL:notify(C, readable) end, fun(C) -> ?CHANNEL:fold(fun(_, A) -> A end, 0, C) end].

%% What the shell prints names the argument.
texts_of_errors(_Config) ->
    Channel = channel_ct:new(),
    [begin
         {Module, Function, Arguments, Texts} = text_of(Fun),
         ?assertEqual({?CHANNEL, Name}, {Module, Function}),
         ?assert(is_list(Arguments)),
         ?assertMatch([{Place, <<"must be ", _/binary>>}], maps:to_list(Texts)),
         %% As the shell has it.
         ?assertMatch({match, _}, re:run(printed(Fun), io_lib:format("argument ~b: must be ", [Place])))
     end || {Name, Place, Fun} <-
                [{new, 1, fun() -> ?CHANNEL:new(#{max_size => -1}) end},
                 {send, 1, fun() -> ?CHANNEL:send(atom, <<>>) end},
                 {send, 1, fun() -> ?CHANNEL:send(make_ref(), wrong) end},
                 {send, 2, fun() -> ?CHANNEL:send(Channel, wrong) end},
                 {send, 2, fun() -> ?CHANNEL:send(Channel, [256], 10) end},
                 {send, 3, fun() -> ?CHANNEL:send(Channel, <<>>, -1) end},
                 {recv, 1, fun() -> ?CHANNEL:recv(make_ref()) end},
                 {recv, 1, fun() -> ?CHANNEL:recv(1, 10) end},
                 {recv, 2, fun() -> ?CHANNEL:recv(Channel, soon) end},
                 {recv_many, 2, fun() -> ?CHANNEL:recv_many(Channel, 0) end},
                 {recv_many, 3, fun() -> ?CHANNEL:recv_many(Channel, 1, soon) end},
                 {try_receive, 1, fun() -> ?CHANNEL:try_receive(self()) end},
                 {close, 1, fun() -> ?CHANNEL:close(self()) end},
                 {abort, 1, fun() -> ?CHANNEL:abort(self(), reason) end},
                 {info, 1, fun() -> ?CHANNEL:info(self()) end},
                 {notify, 1, fun() -> ?CHANNEL:notify(self(), readable) end},
                 {notify, 2, fun() -> ?CHANNEL:notify(Channel, wrong) end},
                 {fold, 1, fun() -> ?CHANNEL:fold(wrong, 0, Channel) end},
                 {fold, 3, fun() -> ?CHANNEL:fold(fun(_, A) -> A end, 0, wrong) end},
                 {pipe, 1, fun() -> ?CHANNEL:pipe(wrong, Channel) end},
                 {pipe, 2, fun() -> ?CHANNEL:pipe(Channel, wrong) end},
                 {pipe, 3, fun() -> ?CHANNEL:pipe(Channel, Channel, #{wrong => true}) end}]].

text_of(Fun) ->
    try Fun() of
        Result -> error({no_error, Result})
    catch
        error:badarg:Stack ->
            [{Module, Function, Arguments, Info} | _] = Stack,
            #{module := Formatter} = proplists:get_value(error_info, Info),
            {Module, Function, Arguments, Formatter:format_error(badarg, Stack)}
    end.

printed(Fun) ->
    try Fun() of
        Result -> error({no_error, Result})
    catch
        error:badarg:Stack -> unicode:characters_to_list(erl_error:format_exception(error, badarg, Stack))
    end.

wrong_arguments_in_python(_Config) ->
    Channel = channel_ct:new(),
    [?assertMatch({{error, {Type, [_ | _]}}, _}, {py:call(erlang, Method, [Channel | Arguments]), {Method, Arguments}})
     || {Type, Method, Arguments} <-
            [{'TypeError', 'ByteChannel.send_bytes', [<<"text">>]},
             {'TypeError', 'ByteChannel.send_bytes', [1]},
             {'TypeError', 'ByteChannel.send_bytes', [[1, 2]]},
             {'TypeError', 'ByteChannel.send_bytes', [none]},
             {'TypeError', 'ByteChannel.send_bytes', []},
             {'TypeError', 'ByteChannel.receive_bytes', [<<"1">>]},
             {'TypeError', 'ByteChannel.receive_bytes', [1.5]},
             {'ValueError', 'ByteChannel.receive_bytes', [-2]},
             {'TypeError', 'ByteChannel.receive_into', [{bytes, <<"constant">>}]}]
            ++ [{'ValueError', 'ByteChannel.receive_bytes', [1 bsl 70]}]],
    [?assertMatch({error, {Type, [_ | _]}}, py:call(erlang, 'ByteChannel.new', [Size]))
     || {Type, Size} <- [{'ValueError', -1}, {'TypeError', <<"1">>}, {'TypeError', 1.5}, {'ValueError', 1 bsl 70}]],
    [?assertMatch({error, {'TypeError', [_ | _]}}, py:call(erlang, 'ByteChannel', Arguments))
     || Arguments <- [[], [1], [make_ref()], [none], [Channel, Channel]]],
    ?assertMatch(#{messages_in := 0}, ?CHANNEL:info(Channel)).

%% A channel joins the processes of its node with its Python.
not_local(_Config) ->
    {0, Output} = causeway_ct:run_node("py_byte_channel_reference_SUITE:from_another_node().", [{"CAUSEWAY_PYTHON", causeway_ct:python_executable()}],
                                       ["-start_epmd", "false", "-erl_epmd_port", free_port(), "-sname", "near@localhost"]),
    ?assertEqual(<<"fine">>, Output).

%% The node listens there; the suite may run twice at the same time.
free_port() ->
    {ok, Listener} = gen_tcp:listen(0, []),
    {ok, Port} = inet:port(Listener),
    ok = gen_tcp:close(Listener),
    integer_to_list(Port).

%% In a node that has a name. A reference of another one is made from its external form.
from_another_node() ->
    ok = causeway_ct:start(),
    Foreign = foreign(make_ref()),
    true = is_reference(Foreign) andalso node(Foreign) =:= 'fars@localhost',
    [{error, not_local} = Fun(Foreign) || Fun <- of_channel()],
    {error, not_local} = ?CHANNEL:pipe(channel_ct:new(), Foreign),
    {error, not_local} = ?CHANNEL:pipe(Foreign, channel_ct:new()),
    {error, not_local} = ?CHANNEL:notify(Foreign, writable),
    %% So is that of a channel which has been sent there and lives here no more.
    {error, not_local} = ?CHANNEL:recv(foreign(channel_ct:new())),
    io:format("fine"),
    erlang:halt(0).

foreign(Reference) ->
    binary_to_term(binary:replace(term_to_binary(Reference), <<"near@localhost">>, <<"fars@localhost">>)).
