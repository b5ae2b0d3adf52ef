%% @doc Many callbacks: callers at once, what they leave behind, and answers that do not mix.
-module(py_callback_many_SUITE).

-compile([export_all, nowarn_export_all]).

-import(causeway_ct, [context/1, context/0]).
-import(callback_ct, [gate/1, entered/1]).

-include_lib("stdlib/include/assert.hrl").

-define(HELPERS, callback_helpers).

suite() -> [{timetrap, {seconds, 120}}].

all() ->
    [hundred_callers_on_the_pool, hundred_callers_on_one_context, ten_thousand_leave_nothing, large_values_are_freed,
     time_outs_leave_nothing, answers_do_not_mix].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_testcase(_Case, Config) -> causeway_ct:start_context(Config).

end_per_testcase(_Case, Config) -> causeway_ct:kill_context(Config).

%% What is left

hundred_callers_on_the_pool(_Config) ->
    concurrent_callers(fun() -> py:context(1 + rand:uniform(py_contexts:pool_size()) - 1) end).

hundred_callers_on_one_context(Config) ->
    concurrent_callers(fun() -> context(Config) end).

concurrent_callers(Choose) ->
    ok = py:register_function(back, fun([N]) -> {ok, Root} = py:call(Choose(), math, sqrt, [N * N]), Root end),
    Test = self(),
    Callers = [spawn_link(fun() ->
                              [{ok, Root} = py:call(Choose(), ?HELPERS, call, [back, N]) || N <- lists:seq(1, 50), Root <- [float(N)]],
                              Test ! {self(), causeway_ct:mailbox()}
                          end) || _ <- lists:seq(1, 100)],
    [receive {Caller, Left} -> ?assertEqual([], Left) after 60000 -> error(deadlock) end || Caller <- Callers],
    ok = py:unregister_function(back).

ten_thousand_leave_nothing(Config) ->
    Context = context(Config),
    ok = py:register_function(echo, fun([Value]) -> Value end),
    Round = fun() -> [{ok, N} = py:call(Context, ?HELPERS, call, [echo, N]) || N <- lists:seq(1, 5000)] end,
    _ = Round(),
    Processes = erlang:system_info(process_count),
    Memory = causeway_ct:rss(),
    _ = Round(),
    _ = Round(),
    ok = causeway_ct:settled(fun() -> erlang:system_info(process_count) end, Processes),
    ok = causeway_ct:settled(fun causeway_ct:rss/0, Memory + (8 bsl 20)),
    ?assertEqual({message_queue_len, 0}, process_info(whereis(py_callbacks), message_queue_len)),
    ok = py:unregister_function(echo).

%% Not when some process happens to collect its garbage: at once.
large_values_are_freed(Config) ->
    Context = context(Config),
    ok = py:register_function(grow, fun([N]) -> lists:duplicate(N, 12345678901234567890) end),
    ok = py:exec(Context, <<"import erlang\ndef size(n): return len(erlang.call('grow', n))\n">>),
    [{ok, 100000} = py:call(Context, '__main__', size, [100000]) || _ <- lists:seq(1, 5)],
    Memory = causeway_ct:rss(),
    %% 150 answers of 4 MB.
    [{ok, 100000} = py:call(Context, '__main__', size, [100000]) || _ <- lists:seq(1, 150)],
    ?assert(causeway_ct:rss() < Memory + (200 bsl 20)),
    ok = py:unregister_function(grow).

time_outs_leave_nothing(Config) ->
    Context = context(Config),
    Test = self(),
    ok = py:register_function(forever, fun([_]) -> receive never -> Test end end),
    Padding = lists:seq(1, 20000),
    Round = fun(Number) -> [{error, timeout} = py:call(Context, ?HELPERS, call, [forever, Padding], 1) || _ <- lists:seq(1, Number)] end,
    _ = Round(50),
    ok = causeway_ct:wait_until(fun() -> {ok, 1} =:= py:eval(Context, <<"1">>) end),
    Processes = erlang:system_info(process_count),
    Memory = causeway_ct:rss(),
    _ = Round(1000),
    {ok, 1} = py:eval(Context, <<"1">>),
    ok = causeway_ct:settled(fun() -> erlang:system_info(process_count) end, Processes),
    ok = causeway_ct:settled(fun causeway_ct:rss/0, Memory + (64 bsl 20)),
    ok = py:unregister_function(forever),
    ?assertEqual([], causeway_ct:mailbox()).

%% Where an answer is made depends on how large its request was. Another context that reads a large request meanwhile must
%% not change that: terms of two places in one message would end the node.
answers_do_not_mix(Config) ->
    Context = context(Config),
    Other = context(),
    Large = binary:copy(<<"x">>, 100000),
    [ok = gate(Name) || Name <- [converting, holding]],
    [begin
         Call = py:spawn_call(Context, ?HELPERS, Function, Arguments),
         ok = causeway_ct:expect({<<"converting">>, <<"converting">>}),
         Converting = entered(converting),
         Hold = py:spawn_call(Other, ?HELPERS, hold, [OtherLarge, self(), holding]),
         ok = causeway_ct:expect({<<"holding">>, <<"holding">>}),
         Holding = entered(holding),
         Converting ! {go, on},
         ok = causeway_ct:wait_until(fun() -> causeway_ct:mailbox() =/= [] end),
         %% Memory that was given back is used again.
         [{ok, _} = py:call(Context, builtins, list, [lists:seq(N, N + Length)]) || N <- lists:seq(1, 50), Length <- [10, 100, 3000]],
         ?assertEqual(Expected, py:await(Call)),
         erlang:garbage_collect(),
         Holding ! {go, on},
         ?assertEqual({ok, <<"held">>}, py:await(Hold))
     end || _ <- lists:seq(1, 20),
            {Function, Arguments, Expected, OtherLarge} <-
                [{slow, [self(), converting], {ok, [<<"before">>, 17, [{float(N), 1 bsl 70} || N <- lists:seq(1, 50)]]}, Large},
                 {slow_error, [self(), converting, <<"small">>], {error, {'SlowError', lists:append(lists:duplicate(50, "text"))}}, Large},
                 {slow_error, [self(), converting, Large], {error, {'SlowError', lists:append(lists:duplicate(50, "text"))}}, <<"small">>}]],
    [ok = py:unregister_function(Name) || Name <- [converting, holding]],
    ok = py_context:stop(Other).
