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
    causeway_ct:with_punctual_schedulers(fun() -> py_timeout_SUITE:killed(1000, loop_as, []) end).

thousand_killed_in_a_sleep(_Config) ->
    causeway_ct:with_punctual_schedulers(fun() -> py_timeout_SUITE:killed(1000, sleep_as, []) end).

thousand_killed_in_erlang_call(_Config) ->
    causeway_ct:with_punctual_schedulers(fun() -> py_timeout_SUITE:killed_in_erlang_call(1000) end).

ten_thousand_around_their_duration(_Config) ->
    {ok, Context} = py_context:start_link(#{}),
    ok = py_timeout_SUITE:around_their_duration(10000, Context),
    ok = py_context:stop(Context).

two_hundred_contexts_of_each_mode(Config) ->
    [ok = py_mode_SUITE:contexts_leave_nothing([{mode, Mode} | Config], 100) || Mode <- mode_ct:modes()].
