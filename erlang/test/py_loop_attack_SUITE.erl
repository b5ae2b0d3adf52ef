%% @doc The end of a context, whatever its event loops are at; and that loops behave as asyncio's own, in every kind of context.
-module(py_loop_attack_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-define(HELPERS, attack_helpers).
%% What ends with the context, and what threads of their own go on with, until the test ends that.
-define(SITUATIONS, [awaiting, writing, stubborn, resolving]).
-define(THREADED, [{executing, 3, []}, {calling, 1, lists:duplicate(8, {refused, <<"Event loop is closed">>})},
                   {loop_of_a_thread, 1, [over]}]).
-define(PROGRAMS, [closed, nested, twice, many, of_threads, from_threads, closed_by_another, ends, reported]).

suite() -> [{timetrap, {seconds, 60}}].

all() -> [call_is_given_up, threads_go_on | [{group, Mode} || Mode <- modes()]].

groups() -> [{Mode, [stopped, killed, as_asyncio_has_it]} || Mode <- modes()].

modes() -> [worker, subinterp, owngil].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_group(Mode, Config) -> mode_ct:start_group(Mode, Config).

end_per_group(_Mode, _Config) -> ok.

init_per_testcase(_Case, Config) -> mode_ct:start_case(Config).

end_per_testcase(_Case, Config) ->
    ok = mode_ct:end_case(Config),
    ?assertEqual([], [Message || Message <- causeway_ct:mailbox(), element(1, Message) =/= 'EXIT']).

%% The context goes on, and has the next.
call_is_given_up(_Config) ->
    Context = mode_ct:start([{mode, worker}]),
    [begin
         Call = begun(Way, Context, Situation),
         ok = py_call:cancel(Call),
         ?assertEqual({ok, 4.0}, py:call(Context, math, sqrt, [16]))
     end || Situation <- ?SITUATIONS, Way <- [background, foreground]],
    ok = py_context:stop(Context).

%% In the main interpreter: another is not used again while a thread runs in it, and keeps what is left there.
threads_go_on(_Config) ->
    [begin
         Context = mode_ct:start([{mode, worker}]),
         {ok, Channel} = py_byte_channel:new(),
         Call = begun(Way, Context, Situation, Channel, Count),
         ok = py_context:stop(Context),
         ?assertMatch({error, {context_stopped, _}}, py:await(Call)),
         ok = py_byte_channel:close(Channel),
         [ok = causeway_ct:expect(Message) || Message <- Told]
     end || {Situation, Count, Told} <- ?THREADED, Way <- [background, foreground]].

%% Four contexts at once, each with a loop of its own and one that a call runs.
stopped(Config) ->
    all_end(Config, fun(Context) -> spawn_link(fun() -> ok = py_context:stop(Context) end) end).

killed(Config) ->
    all_end(Config, fun(Context) -> exit(Context, kill) end).

all_end(Config, End) ->
    Begun = [begin
                 Context = mode_ct:start(Config),
                 {Context, [begun(Way, Context, Situation) || Way <- [background, foreground]]}
             end || Situation <- ?SITUATIONS],
    [End(Context) || {Context, _} <- Begun],
    [?assertMatch({error, {context_stopped, _}}, py:await(Call)) || {_, Calls} <- Begun, Call <- Calls].

begun(Way, Context, Situation) -> begun(Way, Context, Situation, none, 1).

begun(Way, Context, Situation, Channel, Count) ->
    Call = case Way of
               background -> py:async_call(Context, ?HELPERS, Situation, [self(), Channel]);
               foreground -> py:spawn_call(Context, ?HELPERS, in_foreground, [Situation, self(), Channel])
           end,
    [ok = causeway_ct:expect(started) || _ <- lists:seq(1, Count)],
    Call.

as_asyncio_has_it(Config) ->
    Context = mode_ct:start(Config),
    [begin
         {ok, Expected} = py:call(Context, ?HELPERS, seen, [Program, asyncio]),
         ?assertNotEqual([], Expected),
         ?assertEqual({Program, Expected}, {Program, element(2, py:call(Context, ?HELPERS, seen, [Program, erlang]))})
     end || Program <- ?PROGRAMS],
    ok = py_context:stop(Context).
