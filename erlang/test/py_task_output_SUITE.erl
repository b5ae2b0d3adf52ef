%% @doc What tasks print is there before their answers, and no task waits for what another has printed.
-module(py_task_output_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-define(HELPERS, loop_helpers).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [lines_before_the_answer, parts_of_a_task, failed_tasks, others_go_on, time_out_while_output_waits,
     stop_while_output_waits, output_that_dies].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_testcase(Case, Config) ->
    true = register(Case, self()),
    [{name, atom_to_binary(Case)} | causeway_ct:start_context(Config)].

end_per_testcase(_Case, Config) ->
    causeway_ct:kill_context(Config),
    ?assertEqual([], causeway_ct:mailbox()).

lines_before_the_answer(Config) ->
    Context = causeway_ct:context(Config),
    [?assertEqual({{ok, none}, [<<Text/binary, "\n">>]},
                  output_ct:printed(fun() -> py:async_await(py:async_call(Context, ?HELPERS, say, [Text])) end))
     || Text <- [integer_to_binary(Number) || Number <- lists:seq(1, 200)]],
    %% A line that is not complete, and much text.
    ?assertEqual({{ok, none}, [<<"hi">>]},
                 output_ct:printed(fun() -> py:async_await(py:async_call(Context, ?HELPERS, say, [<<"hi">>, <<>>])) end)),
    Large = binary:copy(<<"0123456789">>, 50000),
    {Answer, Pieces} = output_ct:printed(fun() -> py:async_await(py:async_call(Context, ?HELPERS, say, [Large])) end),
    ?assertEqual({{ok, none}, <<Large/binary, "\n">>}, {Answer, iolist_to_binary(Pieces)}).

%% Also what a task has had printed by others, and of many tasks at once each its own.
parts_of_a_task(Config) ->
    Context = causeway_ct:context(Config),
    ?assertEqual({{ok, none}, [<<"part\n">>]},
                 output_ct:printed(fun() -> py:async_await(py:async_call(Context, ?HELPERS, say_by_part, [<<"part">>])) end)),
    Callers = [{output_ct:caller(fun() -> await_tagged(Context, Number) end), Number} || Number <- lists:seq(1, 50)],
    {Texts, Answers} = interleaved(Callers, [], []),
    ?assertEqual(lists:seq(1, 50), lists:sort(Answers)),
    ?assertEqual(50, length(Texts)).

await_tagged(Context, Number) ->
    Text = integer_to_binary(Number),
    {ok, none} = py:async_await(py:async_call(Context, ?HELPERS, say, [Text])),
    Number.

%% When an answer comes, its text was there.
interleaved([], Texts, Answers) -> {Texts, Answers};
interleaved(Callers, Texts, Answers) ->
    receive
        {io_request, From, Reference, {put_chars, unicode, Text}} ->
            From ! {io_reply, Reference, ok},
            interleaved(Callers, [string:trim(Text) | Texts], Answers);
        {answer, Caller, Number} ->
            ?assert(lists:member(integer_to_binary(Number), Texts)),
            receive {'DOWN', _, process, Caller, normal} -> ok end,
            interleaved(lists:keydelete(Caller, 1, Callers), Texts, [Number | Answers])
    end.

failed_tasks(Config) ->
    Context = causeway_ct:context(Config),
    ?assertEqual({{error, {'ValueError', "oh"}}, [<<"oh\n">>]},
                 output_ct:printed(fun() -> py:async_await(py:async_call(Context, ?HELPERS, say_and_fail, [<<"oh">>])) end)).

%% While output is held up, its task waits, and neither the loop nor other tasks.
others_go_on(Config) ->
    with_output_held_up(
      fun() ->
          Printing = printing(Config, #{}),
          ?assertEqual({ok, 3}, py:async_await(py:async_call(causeway_ct:context(Config), ?HELPERS, add, [1, 2]))),
          ?assertEqual({error, timeout}, py:async_await(Printing, 0)),
          Printing
      end,
      fun(Printing) -> ?assertEqual({ok, none}, py:async_await(Printing)) end).

time_out_while_output_waits(Config) ->
    with_output_held_up(fun() -> ?assertEqual({error, timeout}, py:async_await(printing(Config, #{timeout => 50}))) end,
                        fun(ok) -> ok end).

stop_while_output_waits(Config) ->
    with_output_held_up(fun() ->
                            Printing = printing(Config, #{}),
                            ok = py_context:stop(causeway_ct:context(Config)),
                            ?assertMatch({error, {context_stopped, _}}, py:async_await(Printing))
                        end,
                        fun(ok) -> ok end).

%% Without somebody who passes lines on, answers come all the same.
output_that_dies(Config) ->
    Output = whereis(py_output),
    Monitor = erlang:monitor(process, Output),
    ok = sys:suspend(Output),
    Printing = printing(Config, #{}),
    exit(Output, kill),
    receive {'DOWN', Monitor, process, Output, killed} -> ok end,
    ?assertEqual({ok, none}, py:async_await(Printing)),
    causeway_ct:wait_until(fun() -> is_pid(whereis(py_output)) end).

%% A task that has printed and ended.
printing(Config, Options) ->
    Task = py_event_loop:create_task(?HELPERS, say_and_tell, [<<"hi">>, proplists:get_value(name, Config)],
                                     Options#{context => causeway_ct:context(Config)}),
    ok = causeway_ct:expect(said),
    Task.

with_output_held_up(Meanwhile, Afterwards) ->
    Output = whereis(py_output),
    ok = sys:suspend(Output),
    Result = try Meanwhile() after ok = sys:resume(Output) end,
    Afterwards(Result).
