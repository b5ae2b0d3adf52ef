%% @doc Generators: their items in order and in time, no further ahead than the window, and nothing left behind.
-module(py_stream_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-define(HELPERS, stream_helpers).
%% Messages of others in a mailbox: as many as take a while to count.
-define(OTHERS, 30000).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [collects, collects_what_is_no_generator, collect_errors, names_of_the_process, stream_eval_variants,
     messages_in_order, empty_stream, error_after_items, error_at_start, item_without_form, odd_iterators,
     items_come_at_once, items_are_let_go_of, window_of_the_mailbox, full_mailbox_of_others, small_window, demand, demand_of_an_open_stream, owner, dead_owner,
     owner_dies_while_the_generator_runs, cancel, cancel_while_it_runs, nothing_after_cancel, cancel_twice, context_stops, keywords_and_context,
     one_thread, calls_between, callbacks_in_a_generator, wrong_arguments, many_streams, application_stop].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_testcase(_Case, Config) ->
    {ok, none} = py:call(?HELPERS, reset, []),
    Config.

end_per_testcase(application_stop, _Config) ->
    ok;
end_per_testcase(_Case, _Config) ->
    ok = causeway_ct:wait_until(fun() -> ets:info(py_streams, size) =:= 0 end),
    ?assertEqual([], causeway_ct:mailbox()).

%% All at once

collects(_Config) ->
    ?assertEqual({ok, lists:seq(0, 9999)}, py:stream(builtins, range, [10000])),
    ?assertEqual({ok, [5, 6]}, py:stream(?HELPERS, with_keywords, [], #{start => 5, stop => 7})),
    ?assertEqual({ok, [1, 2]}, py:stream(py:context(1), builtins, iter, [[1, 2]])),
    ?assertEqual({ok, []}, py:stream(builtins, iter, [[]])).

collects_what_is_no_generator(_Config) ->
    ?assertEqual({ok, [<<"a">>, <<"b">>]}, py:stream(builtins, str, [<<"ab">>])),
    ?assertEqual({ok, [1, 2, 3]}, py:stream(?HELPERS, odd_iterator, [])).

collect_errors(_Config) ->
    ?assertEqual({error, {'KeyError', "'enough'"}}, py:stream(?HELPERS, fail_after, [3])),
    ?assertEqual({error, {'ValueError', "no generator"}}, py:stream(?HELPERS, fail_at_once, [])),
    ?assertMatch({error, {'TypeError', _}}, py:stream(?HELPERS, no_generator, [])),
    ?assertMatch({error, {'ModuleNotFoundError', _}}, py:stream(absent_module, f, [])),
    ?assertMatch({error, {badarg, _}}, py:stream(?HELPERS, fail_after, 3)),
    ?assertMatch({error, {no_context, _}}, py:stream(self(), ?HELPERS, fail_after, [3])).

names_of_the_process(_Config) ->
    ok = py:exec("def mine():\n    yield 'mine'"),
    ?assertEqual({ok, [<<"mine">>]}, py:stream('__main__', mine, [])),
    {ok, Reference} = py:stream_start('__main__', mine, []),
    ?assertEqual({done, [<<"mine">>]}, collect(Reference)),
    Self = self(),
    spawn_link(fun() -> Self ! {other, py:stream('__main__', mine, [])} end),
    receive {other, Result} -> ?assertMatch({error, {'AttributeError', _}}, Result) end.

stream_eval_variants(_Config) ->
    ?assertEqual({ok, [0, 1, 4]}, py:stream_eval(<<"(x * x for x in range(3))">>)),
    ?assertEqual({ok, [0, 1]}, py:stream_eval("range(n)", #{n => 2})),
    ?assertEqual({ok, [<<"a">>]}, py:stream_eval(py:context(1), ["'", "a", "'"])),
    ?assertMatch({error, {'SyntaxError', _}}, py:stream_eval("(x for")),
    ?assertMatch({error, {badarg, _}}, py:stream_eval(x)).

%% As messages

messages_in_order(_Config) ->
    {ok, Reference} = py:stream_start(builtins, range, [20000]),
    ?assertEqual({done, lists:seq(0, 19999)}, collect(Reference)).

empty_stream(_Config) ->
    {ok, Reference} = py:stream_start(builtins, iter, [[]]),
    ?assertEqual({done, []}, collect(Reference)).

error_after_items(_Config) ->
    {ok, Reference} = py:stream_start(?HELPERS, fail_after, [3]),
    ?assertEqual({{error, {'KeyError', "'enough'"}}, [0, 1, 2]}, collect(Reference)).

error_at_start(_Config) ->
    [begin
         {ok, Reference} = py:stream_start(Module, Function, []),
         ?assertMatch({{error, {Type, _}}, []}, collect(Reference))
     end || {Module, Function, Type} <- [{?HELPERS, fail_at_once, 'ValueError'}, {?HELPERS, no_generator, 'TypeError'},
                                         {absent_module, f, 'ModuleNotFoundError'}]].

item_without_form(_Config) ->
    {ok, Reference} = py:stream_start(?HELPERS, unconvertible, []),
    ?assertMatch({{error, {'UnicodeEncodeError', _}}, [1]}, collect(Reference)).

odd_iterators(_Config) ->
    [begin
         {ok, Reference} = py:stream_start(Module, Function, Args),
         ?assertEqual({done, [1, 2, 3]}, collect(Reference))
     end || {Module, Function, Args} <- [{?HELPERS, odd_iterator, []}, {builtins, iter, [[1, 2, 3]]}, {builtins, list, [[1, 2, 3]]}]].

%% A generator that stops in the middle of a burst keeps nothing back.
items_are_let_go_of(_Config) ->
    ok = py:exec("import weakref\n"
                 "class Item: pass\n"
                 "seen = []\n"
                 "def make():\n"
                 "    item = Item()\n"
                 "    seen.append(weakref.ref(item))\n"
                 "    return item\n"
                 "def items():\n"
                 "    while True: yield make()\n"
                 "def made(): return len(seen)\n"
                 "def alive(): return sum(each() is not None for each in seen)"),
    {ok, Stream} = py:stream_start('__main__', items, [], #{demand => 3}),
    [receive {py_stream, Stream, {data, Item}} -> true = py:is_ref(Item) end || _ <- lists:seq(1, 3)],
    ?assertEqual({ok, 3}, py:call('__main__', made, [])),
    causeway_ct:wait_until(fun() -> erlang:garbage_collect(), py:call('__main__', alive, []) =:= {ok, 0} end),
    ok = py:stream_cancel(Stream).

items_come_at_once(_Config) ->
    {ok, Reference} = py:stream_start(?HELPERS, words, [<<"one two three">>, 100]),
    ?assertEqual(<<"one">>, item(Reference)),
    ?assertEqual(<<"two">>, item(Reference)),
    ok = py:stream_cancel(Reference).

%% No further than the consumer

window_of_the_mailbox(_Config) ->
    {ok, Reference} = py:stream_start(?HELPERS, count_up, []),
    ok = causeway_ct:wait_until(fun() -> queue_length() >= 1000 end),
    %% It is full: nothing more is produced until something is taken.
    {ok, {Produced, 0}} = py:call(?HELPERS, counters, []),
    ?assert(Produced =< 1000),
    [?assertEqual(N, item(Reference)) || N <- lists:seq(1, 500)],
    ok = causeway_ct:wait_until(fun() -> queue_length() >= 1000 end),
    {ok, {Later, 0}} = py:call(?HELPERS, counters, []),
    ?assert(Later > 1000 andalso Later =< 1500),
    ok = py:stream_cancel(Reference),
    ok = causeway_ct:wait_until(fun() -> py:call(?HELPERS, counters, []) =:= {ok, {Later, 1}} end).

%% To count its own messages there takes a copy of all of them, which is made the less often the longer it takes, and
%% which the stream does not keep.
full_mailbox_of_others(_Config) ->
    Test = self(),
    Consumer = spawn_link(fun() -> consume_when_told(Test) end),
    Other = lists:seq(1, 30),
    [Consumer ! {other, N, Other} || N <- lists:seq(1, ?OTHERS)],
    {ok, Reference} = py:stream_start(?HELPERS, count_up, [], #{owner => Consumer, window => 10}),
    [{Reference, Stream}] = ets:lookup(py_streams, Reference),
    Cost = lists:min([element(1, timer:tc(fun() -> process_info(Consumer, messages) end)) || _ <- lists:seq(1, 3)]),
    garbage_collect(),
    1 = erlang:trace_pattern({erlang, process_info, 2}, [{['_', messages], [], []}], []),
    1 = erlang:trace(Stream, true, [call, set_on_spawn]),
    Microseconds = 60 * Cost + 1000000,
    receive {trace, _, call, _} -> ok after 30000 -> error(never_counted) end,
    Counts = counts(erlang:monotonic_time(microsecond) + Microseconds, 1),
    ?assert(Counts =< 2 + Microseconds div (10 * Cost)),
    ?assertMatch({memory, Bytes} when Bytes < 1000000, process_info(Stream, memory)),
    1 = erlang:trace(Stream, false, [call, set_on_spawn]),
    flush_traces(),
    %% As soon as the others are gone it goes on.
    Consumer ! {Test, Reference, 1000},
    ok = causeway_ct:expect({consumed, 1000}),
    ok = py:stream_cancel(Reference),
    unlink(Consumer),
    exit(Consumer, kill).

consume_when_told(Test) ->
    receive
        {Test, Reference, Number} ->
            [receive {other, N, _} -> ok end || N <- lists:seq(1, ?OTHERS)],
            [receive {py_stream, Reference, {data, N}} -> ok end || N <- lists:seq(1, Number)],
            Test ! {consumed, Number},
            receive never -> ok end
    end.

counts(Deadline, Number) ->
    receive
        {trace, _, call, {erlang, process_info, _}} -> counts(Deadline, Number + 1)
    after max(0, (Deadline - erlang:monotonic_time(microsecond)) div 1000) -> Number
    end.

flush_traces() ->
    receive Trace when element(1, Trace) =:= trace -> flush_traces() after 100 -> ok end.

small_window(_Config) ->
    {ok, Reference} = py:stream_start(?HELPERS, count_up, [], #{window => 1}),
    [begin
         ok = causeway_ct:wait_until(fun() -> queue_length() =:= 1 end),
         ?assertMatch({ok, {N, 0}}, py:call(?HELPERS, counters, [])),
         ?assertEqual(N, item(Reference))
     end || N <- lists:seq(1, 20)],
    ok = py:stream_cancel(Reference).

demand(_Config) ->
    {ok, Reference} = py:stream_start(?HELPERS, count_up, [], #{demand => 3}),
    [?assertEqual(N, item(Reference)) || N <- [1, 2, 3]],
    ok = py:stream_demand(Reference, 2),
    [?assertEqual(N, item(Reference)) || N <- [4, 5]],
    ?assertEqual({ok, {5, 0}}, py:call(?HELPERS, counters, [])),
    ok = py:stream_demand(Reference, 5000),
    [?assertEqual(N, item(Reference)) || N <- lists:seq(6, 5005)],
    ?assertEqual({ok, {5005, 0}}, py:call(?HELPERS, counters, [])),
    ok = py:stream_cancel(Reference).

demand_of_an_open_stream(_Config) ->
    {ok, Reference} = py:stream_start(?HELPERS, count_up, [], #{demand => 0}),
    ok = py:stream_demand(Reference, 1),
    ?assertEqual(1, item(Reference)),
    ?assertEqual({ok, {1, 0}}, py:call(?HELPERS, counters, [])),
    ok = py:stream_cancel(Reference).

%% Who gets it, and who ends it

owner(_Config) ->
    Self = self(),
    Owner = spawn_link(fun() -> receive {go, Reference} -> Self ! collect(Reference) end end),
    {ok, Reference} = py:stream_start(builtins, range, [3], #{owner => Owner}),
    Owner ! {go, Reference},
    receive Result -> ?assertEqual({done, [0, 1, 2]}, Result) end.

dead_owner(_Config) ->
    {Owner, Monitor} = spawn_monitor(fun() -> ok end),
    receive {'DOWN', Monitor, process, Owner, _} -> ok end,
    {ok, _} = py:stream_start(?HELPERS, count_up, [], #{owner => Owner}).

owner_dies_while_the_generator_runs(_Config) ->
    [begin
         Owner = spawn(fun() -> receive stop -> ok end end),
         {ok, _} = py:stream_start(?HELPERS, Generator, [self()], #{owner => Owner}),
         ok = causeway_ct:expect(<<"waiting">>),
         exit(Owner, kill),
         ok = causeway_ct:wait_until(fun() -> ets:info(py_streams, size) =:= 0 end),
         ok = causeway_ct:wait_until(fun() -> is_idle(1) andalso is_idle(2) end)
     end || Generator <- [wait_between, loop_between]].

cancel(_Config) ->
    {ok, Reference} = py:stream_start(?HELPERS, count_up, []),
    ?assertEqual(1, item(Reference)),
    ok = py:stream_cancel(Reference),
    ?assertEqual([], causeway_ct:mailbox()),
    %% The generator is closed, as Python closes one that nobody refers to.
    ok = causeway_ct:wait_until(fun() -> {ok, {_, Closed}} = py:call(?HELPERS, counters, []), Closed =:= 1 end).

cancel_while_it_runs(_Config) ->
    [begin
         {ok, Reference} = py:stream_start(?HELPERS, Generator, [self()]),
         ?assertEqual(1, item(Reference)),
         ok = causeway_ct:expect(<<"waiting">>),
         ok = py:stream_cancel(Reference),
         ok = causeway_ct:wait_until(fun() -> is_idle(1) andalso is_idle(2) end)
     end || Generator <- [wait_between, loop_between]].

%% Items that are being sent when a stream is cancelled come before `cancel` returns, and are taken away by it.
nothing_after_cancel(_Config) ->
    [begin
         {ok, Reference} = py:stream_start(builtins, range, [100000]),
         ?assertEqual(0, item(Reference)),
         ok = py:stream_cancel(Reference),
         {ok, 1} = py:eval(<<"1">>),
         ?assertEqual([], causeway_ct:mailbox())
     end || _ <- lists:seq(1, 2000)].

cancel_twice(_Config) ->
    {ok, Reference} = py:stream_start(builtins, range, [3]),
    ?assertEqual({done, [0, 1, 2]}, collect(Reference)),
    ok = py:stream_cancel(Reference),
    ok = py:stream_cancel(Reference),
    ok = py:stream_cancel(make_ref()),
    ?assertMatch({error, {badarg, _}}, py:stream_cancel(self())).

context_stops(_Config) ->
    {ok, Context} = py_context:start_link(#{}),
    {ok, Reference} = py:stream_start(?HELPERS, wait_between, [self()], #{context => Context}),
    ?assertEqual(1, item(Reference)),
    ok = causeway_ct:expect(<<"waiting">>),
    ok = py_context:stop(Context),
    ?assertMatch({{error, {context_stopped, _}}, []}, collect(Reference)).

keywords_and_context(_Config) ->
    {ok, Reference} = py:stream_start(?HELPERS, with_keywords, [], #{context => py:context(1), kwargs => #{start => 1, stop => 3}}),
    ?assertEqual({done, [1, 2]}, collect(Reference)).

%% With others

%% Some iterators, as sqlite3's, work in the thread that has made them only.
one_thread(_Config) ->
    {ok, Reference} = py:stream_start(?HELPERS, threads, []),
    {done, Threads} = collect(Reference),
    ?assertEqual(5000, length(Threads)),
    ?assertMatch([_], lists:usort(Threads)).

calls_between(_Config) ->
    {ok, Context} = py_context:start_link(#{}),
    {ok, Reference} = py:stream_start(itertools, count, [], #{context => Context, demand => 1000000000}),
    [?assertEqual({ok, N}, py:eval(Context, integer_to_list(N), #{}, 5000)) || N <- lists:seq(1, 50)],
    ok = py:stream_cancel(Reference),
    ok = py_context:stop(Context).

callbacks_in_a_generator(_Config) ->
    ok = py:register_function(twice, fun([N]) -> 2 * N end),
    {ok, Reference} = py:stream_start(?HELPERS, call_back, [twice]),
    ?assertEqual({done, [0, 2, 4]}, collect(Reference)),
    ok = py:unregister_function(twice).

wrong_arguments(_Config) ->
    [?assertMatch({error, {badarg, <<_, _/binary>>}}, py:stream_start(builtins, range, [3], Options))
     || Options <- [#{owner => 1}, #{window => 0}, #{demand => -1}, #{context => 1}, #{kwargs => []}, #{unknown => 1}, []]],
    ?assertMatch({error, {badarg, _}}, py:stream_start(1, range, [3])),
    ?assertMatch({error, {no_context, _}}, py:stream_start(builtins, range, [3], #{context => self()})),
    [?assertMatch({error, {badarg, _}}, py:stream_demand(Reference, Number)) || {Reference, Number} <- [{a, 1}, {make_ref(), 0}]].

%% Taken one after the other: those that are not looked at yet fill the mailbox meanwhile.
many_streams(_Config) ->
    References = [begin {ok, Reference} = py:stream_start(builtins, range, [N]), Reference end || N <- lists:seq(1, 200)],
    [?assertEqual({done, lists:seq(0, N - 1)}, collect(Reference)) || {N, Reference} <- lists:zip(lists:seq(1, 200), References)].

application_stop(_Config) ->
    {ok, Reference} = py:stream_start(?HELPERS, count_up, []),
    ?assertEqual(1, item(Reference)),
    ok = application:stop(causeway),
    ?assertMatch({error, _}, py:stream_start(?HELPERS, count_up, [])),
    ok = py:stream_cancel(Reference),
    ok = causeway_ct:start(),
    ?assertEqual({ok, [0]}, py:stream(builtins, range, [1])).

%% Helpers

item(Reference) ->
    receive {py_stream, Reference, {data, Item}} -> Item end.

collect(Reference) -> collect(Reference, []).

collect(Reference, Items) ->
    receive
        {py_stream, Reference, {data, Item}} -> collect(Reference, [Item | Items]);
        {py_stream, Reference, End} -> {End, lists:reverse(Items)}
    end.

queue_length() ->
    {message_queue_len, Length} = process_info(self(), message_queue_len),
    Length.

is_idle(Index) -> py:interrupt(py:context(Index)) =/= ok.
