%% @doc What other suites do in small, with large numbers: of dead callers, of calls as long as their time, of contexts.
-module(larger_numbers_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

suite() -> [{timetrap, {minutes, 10}}].

all() ->
    [thousand_killed_in_a_loop, thousand_killed_in_a_sleep, thousand_killed_in_erlang_call,
     ten_thousand_around_their_duration, two_hundred_contexts_of_each_mode].

init_per_suite(Config) ->
    true = code:add_patha(filename:dirname(code:which(?MODULE)) ++ "/.."),
    ok = causeway_ct:start(),
    Config.

end_per_suite(Config) -> causeway_ct:stop(Config).

thousand_killed_in_a_loop(_Config) ->
    in_time(fun() -> py_timeout_SUITE:killed(1000, loop_as, []) end).

thousand_killed_in_a_sleep(_Config) ->
    in_time(fun() -> py_timeout_SUITE:killed(1000, sleep_as, []) end).

thousand_killed_in_erlang_call(_Config) ->
    in_time(fun() -> py_timeout_SUITE:killed_in_erlang_call(1000) end).

ten_thousand_around_their_duration(_Config) ->
    {ok, Context} = py_context:start_link(#{}),
    ok = py_timeout_SUITE:around_their_duration(10000, Context),
    ok = py_context:stop(Context).

two_hundred_contexts_of_each_mode(Config) ->
    [ok = py_mode_SUITE:contexts_leave_nothing([{mode, Mode} | Config], 100) || Mode <- mode_ct:modes()].

%% Meanwhile a timer of 1 ms shows whether a scheduler is held up. What else the machine does may hold up a run; a
%% scheduler that waits for Python is held up in each.
in_time(Fun) -> in_time(Fun, 3).

in_time(Fun, Runs) ->
    case worst_delay(Fun) of
        Worst when Worst < 50000 -> ok;
        _ when Runs > 1 -> in_time(Fun, Runs - 1);
        Worst -> error({scheduler_held_up_for, Worst, microseconds})
    end.

worst_delay(Fun) ->
    Test = self(),
    Clock = spawn_link(fun() -> clock(Test, 0) end),
    ok = Fun(),
    Clock ! report,
    receive {Clock, Worst} -> Worst end.

clock(Test, Worst) ->
    Start = erlang:monotonic_time(microsecond),
    receive
        report -> Test ! {self(), Worst}
    after 1 -> clock(Test, max(Worst, erlang:monotonic_time(microsecond) - Start - 1000))
    end.
