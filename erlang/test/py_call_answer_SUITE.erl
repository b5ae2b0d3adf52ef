%% @doc The way of an answer: a caller looks for it for a while, in which a small one is kept for it, and then waits for a
%% message.
-module(py_call_answer_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [small_answers_are_kept_for_who_looks, kept_answers_are_given_up, answers_to_who_waits_are_messages,
     large_answers_are_messages, errors_are_messages, quick_calls_need_no_messages].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

small_answers_are_kept_for_who_looks(_Config) ->
    [begin
         {Call, _} = answered(Code),
         ?assertEqual({ok, Value}, causeway_nif:look(Call)),
         ?assertEqual(wait, causeway_nif:look(Call)),
         ?assertEqual(sent, causeway_nif:cancel(Call)),
         ?assertEqual([], causeway_ct:mailbox())
     end || {Code, Value} <- [{<<"4.0">>, 4.0}, {<<"None">>, none}, {<<"'x' * 10**6">>, binary:copy(<<"x">>, 1000000)},
                              {<<"(1, [2, {3: b'4'}])">>, {1, [2, #{3 => <<"4">>}]}}]].

kept_answers_are_given_up(_Config) ->
    {Caller, Monitor} = spawn_monitor(fun() ->
        {Call, _} = answered(<<"4.0">>),
        receive never -> Call end
    end),
    causeway_ct:wait_until(fun() -> process_info(Caller, status) =:= {status, waiting} end),
    exit(Caller, kill),
    receive {'DOWN', Monitor, process, Caller, killed} -> ok end,
    ?assertEqual({ok, 4.0}, py:call(py:context(1), math, sqrt, [16])).

answers_to_who_waits_are_messages(_Config) ->
    {ok, Event} = py:eval(<<"__import__('threading').Event()">>, #{}, #{result => ref}),
    {Call, Tag} = ask({call_method, Event, wait, [], #{}}),
    ?assertEqual(wait, looked_for(Call)),
    {ok, none} = py:call_method(Event, set, []),
    ?assertEqual({ok, true}, message(Call, Tag)),
    ?assertEqual(wait, causeway_nif:look(Call)).

%% A copy of them would hold up a scheduler.
large_answers_are_messages(_Config) ->
    {Call, Tag} = ask({eval, <<"list(range(1000))">>, #{}}),
    ?assertEqual(wait, looked_for(Call)),
    ?assertEqual({ok, lists:seq(0, 999)}, message(Call, Tag)).

%% Nobody looks on for what has been sent.
errors_are_messages(_Config) ->
    {Call, Tag} = answered(<<"1 / 0">>),
    ?assertEqual(wait, causeway_nif:look(Call)),
    ?assertMatch({error, {'ZeroDivisionError', _}}, message(Call, Tag)).

quick_calls_need_no_messages(_Config) ->
    Calls = 100,
    causeway_ct:wait_until(fun() -> messages_of(Calls, fun() -> {ok, 4.0} = py:call(math, sqrt, [16]) end) < Calls end).

%% Helpers

ask(Request) ->
    {ok, Native} = py_call:native(py:context(1)),
    Tag = make_ref(),
    {causeway_nif:ask(Native, {Tag, Request}, 0, 10000), Tag}.

%% A call that is over: so is the one that came after it.
answered(Code) ->
    Asked = ask({eval, Code, #{}}),
    {ok, 4.0} = py:call(py:context(1), math, sqrt, [16]),
    Asked.

looked_for(Call) ->
    case causeway_nif:look(Call) of
        pending -> looked_for(Call);
        AnswerOrWait -> AnswerOrWait
    end.

%% Without a reference to it the call is given up.
message(Call, Tag) ->
    receive {Tag, Answer} when is_reference(Call) -> Answer end.

%% How many messages a process gets that does something so many times.
messages_of(Times, Fun) ->
    {Process, Monitor} = spawn_monitor(fun() ->
        receive go -> ok end,
        lists:foreach(fun(_) -> Fun() end, lists:seq(1, Times))
    end),
    1 = erlang:trace(Process, true, ['receive']),
    Process ! go,
    receive {'DOWN', Monitor, process, Process, Reason} -> ?assertEqual(normal, Reason) end,
    Delivered = erlang:trace_delivered(Process),
    receive {trace_delivered, Process, Delivered} -> ok end,
    length([Message || {trace, _, 'receive', Message} <- causeway_ct:mailbox()]) - 1.
