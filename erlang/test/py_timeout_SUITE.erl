%% @doc Deadlines of calls: answered in time by the native timekeeper whatever Python does, and nobody else is hit.
-module(py_timeout_SUITE).

-compile([export_all, nowarn_export_all]).

-import(causeway_ct, [context/0, context/1]).

-include_lib("stdlib/include/assert.hrl").

-define(HELPERS, callback_helpers).
-define(PATIENCE, 30000).

suite() -> [{timetrap, {seconds, 180}}].

all() ->
    [queued_behind_a_long_call, queued_behind_code_that_keeps_the_lock, shorter_after_longer, longer_after_shorter,
     thousands_at_once, zero_on_an_idle_context, zero_on_a_busy_context, no_limit, longest_time_out, wrong_time_outs,
     answered_calls_are_not_answered_again, stopped_context, killed_context, calls_below_others,
     interrupt_of_every_wait, interrupt_of_an_idle_context, interrupt_of_what_is_no_context, interrupt_spares_the_queue,
     interrupt_and_time_out, many_killed_in_a_loop, many_killed_in_a_sleep, many_killed_in_erlang_call,
     given_up_calls_keep_no_arguments, schedulers_do_not_wait_for_the_lock, finally_may_sleep, thousand_around_their_duration,
     interrupted_imports_hold_nobody_up].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_testcase(_Case, Config) -> causeway_ct:start_context(Config).

end_per_testcase(_Case, Config) -> causeway_ct:kill_context(Config).

%% In time

queued_behind_a_long_call(Config) ->
    Context = context(Config),
    ok = busy(Context, sleep, [60]),
    [timed_out(fun() -> py:call(Context, math, sqrt, [16], Limit) end, Limit) || Limit <- [1, 10, 100, 300, 50]],
    ?assertEqual([], causeway_ct:mailbox()).

%% The timekeeper needs no lock of Python's.
queued_behind_code_that_keeps_the_lock(Config) ->
    Context = context(Config),
    ok = busy(Context, hold_gil, [1000000]),
    timed_out(fun() -> py:call(Context, math, sqrt, [16], 100) end, 100),
    %% Nor is the context of the call that keeps it concerned only.
    timed_out(fun() -> py:call(py:context(1), math, sqrt, [16], 100) end, 100),
    ?assertEqual([], causeway_ct:mailbox()).

%% It sleeps until the later one by then.
shorter_after_longer(Config) ->
    Context = context(Config),
    ok = busy(Context, sleep, [60]),
    Long = caller(Context, 60000),
    Longer = caller(Context, 50000),
    [timed_out(fun() -> py:call(Context, math, sqrt, [16], Limit) end, Limit) || Limit <- [200, 100, 50, 20, 5]],
    ?assert(is_process_alive(Long) andalso is_process_alive(Longer)),
    ok = py_context:stop(Context),
    [receive {Caller, _, Result} -> ?assertMatch({error, {context_stopped, _}}, Result) end || Caller <- [Long, Longer]].

longer_after_shorter(Config) ->
    Context = context(Config),
    ok = busy(Context, sleep, [60]),
    Callers = [{caller(Context, Limit), Limit} || Limit <- [50, 100, 150, 200, 400, 600]],
    [expect_timed_out(Caller, Limit) || {Caller, Limit} <- Callers],
    ?assertEqual([], causeway_ct:mailbox()).

%% Each of them at its own time, and none early.
thousands_at_once(Config) ->
    Contexts = [context(Config) | [context() || _ <- lists:seq(1, 3)]],
    [ok = busy(Context, sleep, [60]) || Context <- Contexts],
    Limits = [1 + (N * 7919) rem 1000 || N <- lists:seq(1, 4000)],
    Callers = [{caller(lists:nth(1 + Limit rem 4, Contexts), Limit), Limit} || Limit <- Limits],
    [expect_timed_out(Caller, Limit) || {Caller, Limit} <- Callers],
    ?assertEqual([], causeway_ct:mailbox()),
    [exit(Context, kill) || Context <- Contexts].

zero_on_an_idle_context(Config) ->
    Results = [py:call(context(Config), math, sqrt, [16], 0) || _ <- lists:seq(1, 2000)],
    ?assertEqual([], lists:usort(Results) -- [{ok, 4.0}, {error, timeout}]),
    ok = fence(),
    ?assertEqual([], causeway_ct:mailbox()),
    ?assertEqual({ok, 4.0}, py:call(context(Config), math, sqrt, [16])).

zero_on_a_busy_context(Config) ->
    Context = context(Config),
    ok = busy(Context, sleep, [60]),
    [timed_out(fun() -> py:call(Context, math, sqrt, [16], 0) end, 0) || _ <- lists:seq(1, 1000)],
    timed_out(fun() -> py:eval(Context, <<"1">>, #{}, 0) end, 0),
    timed_out(fun() -> py:exec(Context, <<"x = 1">>, 0) end, 0),
    ?assertEqual([], causeway_ct:mailbox()).

no_limit(Config) ->
    Context = context(Config),
    Gate = py:spawn_call(Context, causeway_helpers, wait_at_gate, [closed_gate()]),
    ok = causeway_ct:expect(<<"running">>),
    Caller = caller(Context, infinity),
    ok = fence(),
    ?assert(is_process_alive(Caller)),
    {ok, none} = py:call(causeway_helpers, open_gate, []),
    ?assertEqual({ok, <<"passed">>}, py:await(Gate)),
    receive {Caller, _, Result} -> ?assertEqual({ok, 4.0}, Result) after ?PATIENCE -> error(lost) end.

closed_gate() ->
    {ok, none} = py:call(causeway_helpers, close_gate, []),
    self().

longest_time_out(Config) ->
    ?assertEqual({ok, 4.0}, py:call(context(Config), math, sqrt, [16], 16#FFFFFFFF)),
    timed_out(fun() -> py:call(context(Config), time, sleep, [60], 50) end, 50).

wrong_time_outs(Config) ->
    [?assertMatch({Limit, {error, {badarg, <<_, _/binary>>}}}, {Limit, py:call(context(Config), math, sqrt, [16], Limit)})
     || Limit <- [-1, 1.5, 16#100000000, 1 bsl 70, never, "100", {1, second}]].

%% The answer and the end of the time meet.
answered_calls_are_not_answered_again(_Config) ->
    Test = self(),
    Callers = [spawn_link(fun() ->
                              Results = [py:call(?HELPERS, nap, [0.001], #{}, 1 + (N + Number) rem 3) || N <- lists:seq(1, 200)],
                              Test ! {self(), lists:usort(Results), causeway_ct:mailbox()}
                          end) || Number <- lists:seq(1, 16)],
    [receive
         {Caller, Results, Left} ->
             ?assertEqual([], Results -- [{ok, <<"slept">>}, {error, timeout}]),
             ?assertEqual([], Left)
     end || Caller <- Callers],
    ok = fence(),
    ?assertEqual([], causeway_ct:mailbox()).

%% Contexts that end

stopped_context(Config) -> ending_context(Config, fun(Context) -> ok = py_context:stop(Context) end).

killed_context(Config) -> ending_context(Config, fun(Context) -> exit(Context, kill) end).

%% Who waits has one answer: that the time is over, or that the context is.
ending_context(Config, End) ->
    Context = context(Config),
    ok = busy(Context, sleep, [60]),
    Callers = [collector(Context, 1 + N rem 100) || N <- lists:seq(1, 500)],
    timed_out(fun() -> py:call(Context, math, sqrt, [16], 50) end, 50),
    End(Context),
    %% Later than all of their times.
    ok = causeway_ct:wait_until(fun() -> element(1, py:call(Context, math, sqrt, [16], 1)) =:= error end),
    ok = fence(),
    [begin
         Caller ! report,
         receive
             {Caller, Result, Left} ->
                 ?assert(Result =:= {error, timeout} orelse context_stopped =:= element(1, element(2, Result))),
                 ?assertEqual([], Left)
         after ?PATIENCE -> error(not_answered)
         end
     end || Caller <- Callers],
    ?assertMatch({error, {no_context, _}}, py:call(Context, math, sqrt, [16], 100)).

collector(Context, Limit) ->
    Test = self(),
    spawn_link(fun() ->
                   Result = py:call(Context, math, sqrt, [16], Limit),
                   ok = causeway_ct:expect(report, infinity),
                   Test ! {self(), Result, causeway_ct:mailbox()}
               end).

%% A call that waits for Erlang below others, which are in hand as well.
calls_below_others(Config) ->
    Context = context(Config),
    Test = self(),
    ok = py:register_function(wait, fun([]) -> Test ! {wait, self()}, receive never -> ok end end),
    Callers = [begin
                   Caller = caller(Context, ?HELPERS, call, [wait], Limit),
                   receive {wait, _} -> {Caller, Limit} after ?PATIENCE -> error(not_called) end
               end || Limit <- [300, 700, 500]],
    [expect_timed_out(Caller, Limit) || {Caller, Limit} <- lists:keysort(2, Callers)],
    ?assertEqual({ok, 4.0}, py:call(Context, math, sqrt, [16], 5000)),
    ok = py:unregister_function(wait).

%% py:interrupt/1

interrupt_of_every_wait(Config) ->
    Context = context(Config),
    ok = py:register_function(wait, fun([]) -> receive never -> ok end end),
    [begin
         Call = py:spawn_call(Context, ?HELPERS, Function, [self() | Arguments]),
         receive {<<"running">>, _} -> ok after ?PATIENCE -> error(not_called) end,
         ok = py:interrupt(Context),
         ?assertMatch({Function, {error, {'CallInterrupted', _}}}, {Function, py:await(Call, 10000)}),
         ?assertEqual({ok, 4.0}, py:call(Context, math, sqrt, [16], 5000))
     end || _ <- lists:seq(1, 50), {Function, Arguments} <- [{loop_as, []}, {sleep_as, []}, {call_as, [wait]}]],
    ok = py:unregister_function(wait),
    ?assertEqual([], causeway_ct:mailbox()).

interrupt_of_an_idle_context(Config) ->
    Context = context(Config),
    {ok, 1} = py:eval(Context, <<"1">>),
    %% Its answer is sent a moment before the call is over.
    ok = causeway_ct:wait_until(fun() -> py:interrupt(Context) =/= ok end),
    ?assertMatch({error, {idle, <<_, _/binary>>}}, py:interrupt(Context)),
    [?assertEqual({ok, 4.0}, py:call(Context, math, sqrt, [16], 5000)) || _ <- lists:seq(1, 100)].

interrupt_of_what_is_no_context(Config) ->
    ok = py_context:stop(context(Config)),
    [?assertMatch({error, {no_context, <<_, _/binary>>}}, py:interrupt(Process))
     || Process <- [context(Config), self(), whereis(kernel_sup)]].

%% Only what runs.
interrupt_spares_the_queue(Config) ->
    Context = context(Config),
    Running = py:spawn_call(Context, ?HELPERS, sleep_as, [self()]),
    receive {<<"running">>, _} -> ok after ?PATIENCE -> error(not_called) end,
    Queued = [py:spawn_call(Context, math, sqrt, [N * N]) || N <- lists:seq(1, 100)],
    ok = py:interrupt(Context),
    ?assertMatch({error, {'CallInterrupted', _}}, py:await(Running)),
    ?assertEqual([{ok, float(N)} || N <- lists:seq(1, 100)], [py:await(Call) || Call <- Queued]).

%% Code that has caught the one is hit by the other all the same.
interrupt_and_time_out(Config) ->
    Context = context(Config),
    ok = py:exec(Context, <<"import erlang, time\ndef twice(pid):\n"
                            "    erlang.send(pid, 'running')\n"
                            "    for _ in range(2):\n"
                            "        try: time.sleep(60)\n"
                            "        except BaseException as error: erlang.send(pid, type(error).__name__)\n"
                            "    return 'done'\n">>),
    Test = self(),
    timed_out(fun() ->
                  _ = spawn_link(fun() ->
                                     ok = causeway_ct:wait_until(fun() -> py:interrupt(Context) =:= ok end),
                                     Test ! interrupted
                                 end),
                  py:call(Context, '__main__', twice, [Test], 1000)
              end, 1000),
    [ok = causeway_ct:expect(Event) || Event <- [<<"running">>, interrupted, <<"CallInterrupted">>, <<"CallInterrupted">>]],
    ?assertEqual({ok, 4.0}, py:call(Context, math, sqrt, [16], 5000)),
    ?assertEqual([], causeway_ct:mailbox()).

%% Dead callers

%% None of them holds up a scheduler. Ten loops share Python's lock, so that each of these takes its while.
many_killed_in_a_loop(_Config) -> causeway_ct:with_free_schedulers(fun() -> killed(100, loop_as, []) end).

many_killed_in_a_sleep(_Config) -> causeway_ct:with_free_schedulers(fun() -> killed(500, sleep_as, []) end).

many_killed_in_erlang_call(_Config) -> causeway_ct:with_free_schedulers(fun() -> killed_in_erlang_call(500) end).

%% The soak suite has more of them.
killed_in_erlang_call(Number) ->
    ok = py:register_function(wait, fun([]) -> receive never -> ok end end),
    Processes = erlang:system_info(process_count),
    ok = killed(Number, call_as, [wait]),
    ok = causeway_ct:settled(fun() -> erlang:system_info(process_count) end, Processes),
    ok = py:unregister_function(wait).

%% Each of them is killed while Python is busy for it.
killed(Number, Function, Arguments) ->
    Contexts = [context() || _ <- lists:seq(1, 10)],
    Test = self(),
    Callers = [spawn_monitor(fun() -> py:call(lists:nth(1 + N rem 10, Contexts), ?HELPERS, Function, [Test | Arguments]) end)
               || N <- lists:seq(1, Number)],
    ok = kill_all(maps:from_list(Callers)),
    [?assertEqual({ok, 4.0}, py:call(Context, math, sqrt, [16], 10000)) || Context <- Contexts],
    ?assertEqual([], causeway_ct:mailbox()),
    [ok = py_context:stop(Context) || Context <- Contexts],
    ok.

kill_all(Alive) when map_size(Alive) =:= 0 -> ok;
kill_all(Alive) ->
    receive
        {<<"running">>, Caller} ->
            exit(Caller, kill),
            kill_all(Alive);
        {'DOWN', _, process, Caller, killed} ->
            kill_all(maps:remove(Caller, Alive))
    after ?PATIENCE -> error({not_running, map_size(Alive)})
    end.

%% A context that is stuck, and callers that try again and again, or die: what they have given up waits in the queue, but
%% without its arguments.
given_up_calls_keep_no_arguments(Config) ->
    Context = context(Config),
    Stuck = py:spawn_call(Context, causeway_helpers, wait_at_gate, [closed_gate()]),
    ok = causeway_ct:expect(<<"running">>),
    List = lists:seq(1, 50000),
    Binary = fun() -> binary:copy(<<"x">>, 1000000) end,
    give_up(Context, List, Binary, 5),
    Memory = causeway_ct:rss(),
    Binaries = causeway_ct:memory(binary),
    give_up(Context, List, Binary, 150),
    ok = causeway_ct:settled(fun() -> causeway_ct:memory(binary) end, Binaries + (10 bsl 20)),
    ok = causeway_ct:settled(fun causeway_ct:rss/0, Memory + (50 bsl 20)),
    {ok, none} = py:call(causeway_helpers, open_gate, []),
    ?assertEqual({ok, <<"passed">>}, py:await(Stuck)),
    ?assertEqual({ok, 4.0}, py:call(Context, math, sqrt, [16])),
    ?assertEqual([], causeway_ct:mailbox()).

give_up(Context, List, Binary, Number) ->
    [begin
         ?assertEqual({error, timeout}, py:call(Context, ?HELPERS, nap, [List, Binary()], 0)),
         {Caller, Monitor} = spawn_monitor(fun() -> _ = py:spawn_call(Context, ?HELPERS, nap, [List, Binary()]), exit(gone) end),
         ok = causeway_ct:expect({'DOWN', Monitor, process, Caller, gone})
     end || _ <- lists:seq(1, Number)].

%% A scheduler that took Python's lock to give up the calls would wait until C code lets go of it.
schedulers_do_not_wait_for_the_lock(Config) ->
    causeway_ct:with_free_schedulers(fun() -> killed_while_the_lock_is_held(context(Config)) end).

killed_while_the_lock_is_held(Holder) ->
    Contexts = [context() || _ <- lists:seq(1, 4)],
    Test = self(),
    Callers = [spawn_monitor(fun() -> py:call(lists:nth(1 + N rem 4, Contexts), ?HELPERS, sleep_as, [Test]) end)
               || N <- lists:seq(1, 40)],
    [receive {<<"running">>, _} -> ok after ?PATIENCE -> error(not_running) end || _ <- Contexts],
    Holding = py:spawn_call(Holder, causeway_helpers, hold_gil, [Test, 1500000]),
    ok = causeway_ct:expect(<<"running">>),
    {Milliseconds, _} = causeway_ct:milliseconds(fun() ->
        [exit(Caller, kill) || {Caller, _} <- Callers],
        [ok = causeway_ct:expect({'DOWN', Monitor, process, Caller, killed}) || {Caller, Monitor} <- Callers]
    end),
    ?assert(Milliseconds < 1000),
    ?assertEqual({ok, <<"held">>}, py:await(Holding)),
    [?assertEqual({ok, 4.0}, py:call(Context, math, sqrt, [16], 10000)) || Context <- Contexts],
    ?assertEqual([], causeway_ct:mailbox()),
    [ok = py_context:stop(Context) || Context <- Contexts],
    ok.

%% Nobody else is hit

%% What was raised once is not raised again while Python tidies up. (What comes at the head of a
%% loop that stands in the try itself is raised outside of it by CPython 3.13: hence a function that loops.)
finally_may_sleep(Config) ->
    Context = context(Config),
    ok = py:exec(Context, <<"import erlang, time\ndef spin(loops):\n    while loops: pass\n"
                            "def work(pid, loops):\n"
                            "    try:\n"
                            "        erlang.send(pid, 'entered')\n"
                            "        spin(loops)\n"
                            "        time.sleep(60)\n"
                            "    finally:\n"
                            "        time.sleep(0.01)\n"
                            "        erlang.send(pid, 'slept')\n">>),
    Rounds = [begin
                  ?assertEqual({error, timeout}, py:call(Context, '__main__', work, [self(), Loops], 20)),
                  %% After the next call of the context that one is over. A busy machine may not have let it begin.
                  ?assertEqual({ok, 4.0}, py:call(Context, math, sqrt, [16])),
                  case causeway_ct:mailbox() of
                      [] ->
                          0;
                      Messages ->
                          ?assertEqual([<<"entered">>, <<"slept">>], Messages),
                          [ok = causeway_ct:expect(Message) || Message <- Messages],
                          1
                  end
              end || _ <- lists:seq(1, 15), Loops <- [true, false]],
    ?assert(lists:sum(Rounds) > 3).

%% Calls of about the length of their time-out, of three kinds. The next call of the context is right, every time.
thousand_around_their_duration(Config) -> around_their_duration(1000, context(Config)).

around_their_duration(Number, Context) ->
    ok = py:register_function(wait, fun([]) -> receive after 1 -> <<"waited">> end end),
    {Spent, _} = timer:tc(fun() -> [py:call(Context, ?HELPERS, spin, [10000]) || _ <- lists:seq(1, 20)] end),
    %% How many rounds take a millisecond.
    Rounds = 1 + 20 * 10000 * 1000 div max(1, Spent),
    Outcomes = [begin
                    Hit = attempt(N rem 3, Context, Rounds, N),
                    ?assertEqual({ok, N}, py:call(Context, builtins, int, [N], infinity)),
                    Hit
                end || N <- lists:seq(1, Number)],
    ?assertEqual([], lists:usort(Outcomes) -- [{error, timeout}, {ok, <<"slept">>}, {ok, <<"spun">>}, {ok, <<"waited">>}]),
    %% They really have met.
    ?assert(lists:member({error, timeout}, Outcomes)),
    ok = fence(),
    ?assertEqual([], causeway_ct:mailbox()),
    ok = py:unregister_function(wait).

attempt(0, Context, Rounds, N) -> py:call(Context, ?HELPERS, spin, [Rounds * (80 + N rem 40) div 100], 1);
attempt(1, Context, _Rounds, N) -> py:call(Context, ?HELPERS, nap, [0.0007 + (N rem 60) * 0.00001], 1);
attempt(2, Context, _Rounds, N) -> py:call(Context, ?HELPERS, call, [wait], 1 + N rem 3).

%% Helpers

%% Has a context run something long, which ends with it.
busy(Context, Function, Arguments) ->
    Test = self(),
    _ = spawn(fun() -> py:call(Context, causeway_helpers, Function, [Test | Arguments]) end),
    causeway_ct:expect(<<"running">>).

%% A process whose call takes a limit of time; it tells how long that was, the result and what was left in its mailbox.
caller(Context, Limit) -> caller(Context, math, sqrt, [16], Limit).

caller(Context, Module, Function, Arguments, Limit) ->
    Test = self(),
    spawn_link(fun() ->
                   {Microseconds, Result} = timer:tc(fun() -> py:call(Context, Module, Function, Arguments, Limit) end),
                   [] = causeway_ct:mailbox(),
                   Test ! {self(), Microseconds, Result}
               end).

expect_timed_out(Caller, Limit) ->
    receive {Caller, Microseconds, Result} -> check(Microseconds, Result, Limit)
    after ?PATIENCE -> error({not_answered, Limit})
    end.

timed_out(Call, Limit) ->
    {Microseconds, Result} = timer:tc(Call),
    check(Microseconds, Result, Limit).

check(Microseconds, Result, Limit) ->
    ?assertEqual({Limit, {error, timeout}}, {Limit, Result}),
    ?assert(Microseconds >= Limit * 1000),
    ?assert(Microseconds < Limit * 1000 + 1000000).

%% After this the timekeeper has looked at everything whose time was up to 150 ms from now.
fence() ->
    Context = context(),
    {error, timeout} = py:call(Context, time, sleep, [60], 150),
    py_context:stop(Context).

%% Python's locks of modules are Python code: an interruption between the taking of one and the block that gives it back
%% would leave it to a thread that knows nothing of it.
interrupted_imports_hold_nobody_up(Config) ->
    Directory = proplists:get_value(priv_dir, Config),
    Names = ["interrupted_" ++ integer_to_list(N) || N <- lists:seq(1, 20)],
    [ok = file:write_file(filename:join(Directory, Name ++ ".py"), <<>>) || Name <- Names],
    Arguments = [causeway_python:bytes(Directory), [list_to_binary(Name) || Name <- Names]],
    Contexts = [context() || _ <- [1, 2, 3]],
    Test = self(),
    Importers = [spawn_link(fun() ->
                                    [py:call(Context, ?HELPERS, import_anew, Arguments, N rem 4) || N <- lists:seq(1, 400)],
                                    Test ! {self(), done}
                            end) || Context <- Contexts],
    [ok = causeway_ct:expect({Importer, done}) || Importer <- Importers],
    [?assertEqual({ok, none}, py:call(Context, ?HELPERS, import_anew, Arguments, ?PATIENCE)) || Context <- Contexts],
    [ok = py_context:stop(Context) || Context <- Contexts].
