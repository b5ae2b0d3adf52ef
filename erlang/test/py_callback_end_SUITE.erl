%% @doc Whatever ends one side of a callback, the other learns of it: errors of the function, time-outs, dead callers, stops.
-module(py_callback_end_SUITE).

-compile([export_all, nowarn_export_all]).

-import(causeway_ct, [context/1]).
-import(callback_ct, [gate/1, entered/1, told/1, kill/1]).

-include_lib("stdlib/include/assert.hrl").

-define(HELPERS, callback_helpers).
-define(PATIENCE, 30000).

suite() -> [{timetrap, {seconds, 120}}].

all() ->
    [{group, failures}, {group, ends}].

groups() ->
    [{failures, [], [errors_exits_and_throws, errors_tell_where, error_that_nobody_catches, reason_without_a_python_form,
                     long_reasons_are_cut, stacktraces_of_all_kinds, error_survives_pickle, killed_process, process_that_exits_by_a_link]},
     {ends, [], [time_out_ends_the_process, process_that_traps_exits_is_told, dead_caller_ends_the_process,
                 finally_may_call_again, interrupt_ends_the_wait, stop_of_the_context_ends_the_process,
                 stubborn_waiting_ends_with_the_context, stop_of_the_application, outer_call_times_out_first,
                 queued_function_is_not_run_in_vain, server_that_dies]}].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_group(_Group, Config) -> Config.

end_per_group(_Group, _Config) -> ok.

init_per_testcase(_Case, Config) -> causeway_ct:start_context(Config).

end_per_testcase(_Case, Config) -> causeway_ct:kill_context(Config).

%% Failures

errors_exits_and_throws(Config) ->
    [begin
         ok = py:register_function(fail, fun([]) -> Fail() end),
         {ok, {Type, Text, Kind, Reason, Stack, [Note | Frames]}} = py:call(context(Config), ?HELPERS, attempt, [fail]),
         ?assertEqual({<<"ErlangError">>, ExpectedKind, ExpectedReason}, {Type, Kind, Reason}),
         ?assertEqual(ExpectedText, Text),
         ?assertEqual(<<"in the Erlang function 'fail'">>, Note),
         ?assertEqual(length(Stack), length(Frames)),
         [#{<<"module">> := <<"py_callback_end_SUITE">>, <<"arity">> := _, <<"line">> := Line, <<"file">> := File} | _] = Stack,
         ?assert(Line > 0),
         ?assertEqual(<<"py_callback_end_SUITE.erl">>, filename:basename(File))
     end || {Fail, ExpectedKind, ExpectedReason, ExpectedText} <-
                [{fun() -> error(broken) end, <<"error">>, <<"broken">>, <<"error: broken">>},
                 {fun() -> exit({left, 1}) end, <<"exit">>, {<<"left">>, 1}, <<"exit: {left,1}">>},
                 {fun() -> exit(normal) end, <<"exit">>, <<"normal">>, <<"exit: normal">>},
                 {fun() -> throw([1, 2.5]) end, <<"throw">>, [1, 2.5], <<"throw: [1,2.5]">>},
                 {fun() -> error({größe, <<"ä"/utf8>>}) end, <<"error">>, {<<"größe"/utf8>>, <<"ä"/utf8>>}, <<"error: {größe,<<\"ä\"/utf8>>}"/utf8>>}]],
    ok = py:unregister_function(fail).

errors_tell_where(Config) ->
    ok = py:register_function(fail, fun([Value]) -> fail_here(Value) end),
    {ok, {_, _, _, _, Stack, Notes}} = py:call(context(Config), ?HELPERS, attempt, [fail, 1]),
    ?assertMatch(#{<<"function">> := <<"fail_here">>, <<"arity">> := 1}, hd(Stack)),
    #{<<"line">> := Line} = hd(Stack),
    Where = iolist_to_binary(["py_callback_end_SUITE.erl, line ", integer_to_binary(Line)]),
    ?assertNotEqual(nomatch, binary:match(lists:nth(2, Notes), [<<"py_callback_end_SUITE:fail_here/1">>])),
    ?assertNotEqual(nomatch, binary:match(lists:nth(2, Notes), [Where])),
    %% Arguments that match no clause are in the stack as they are: their number is told.
    ok = py:register_function(fail, fun(only_this) -> ok end),
    ?assertMatch({ok, {<<"ErlangError">>, _, <<"error">>, <<"function_clause">>, [#{<<"arity">> := 1} | _], _}},
                 py:call(context(Config), ?HELPERS, attempt, [fail, 1, 2, 3])),
    ok = py:unregister_function(fail).

fail_here(Value) when Value > 0 ->
    _ = lists:nth(1, [error({here, Value})]),
    ok.

error_that_nobody_catches(Config) ->
    ok = py:register_function(fail, fun([]) -> error(broken) end),
    ?assertEqual({error, {'ErlangError', "error: broken"}}, py:call(context(Config), ?HELPERS, call, [fail])),
    {error, #{type := 'ErlangError', message := <<"error: broken">>, traceback := Traceback}} =
        py:call(context(Config), ?HELPERS, call, [fail], #{error => map}),
    ?assertMatch(#{function := <<"call">>, file := _}, hd(Traceback)),
    ok = py:unregister_function(fail).

reason_without_a_python_form(Config) ->
    [begin
         ok = py:register_function(fail, fun([]) -> error(Reason) end),
         {ok, {<<"ErlangError">>, Text, <<"error">>, none, [_ | _], _}} = py:call(context(Config), ?HELPERS, attempt, [fail]),
         ?assertNotEqual(nomatch, binary:match(Text, Part))
     end || {Reason, Part} <- [{[a | b], <<"[a|b]">>}, {<<5:3>>, <<"<<5:3>>">>}, {{tag, #{a => 1, <<"a">> => 2}}, <<"tag">>}]],
    ok = py:unregister_function(fail).

long_reasons_are_cut(Config) ->
    ok = py:register_function(fail, fun([]) -> error(lists:seq(1, 100000)) end),
    {ok, {_, Text, _, Reason, _, _}} = py:call(context(Config), ?HELPERS, attempt, [fail]),
    ?assert(byte_size(Text) < 2000),
    ?assertEqual(lists:seq(1, 100000), Reason),
    ok = py:unregister_function(fail).

%% Whatever somebody raises with.
stacktraces_of_all_kinds(Config) ->
    [begin
         ok = py:register_function(fail, fun([]) -> erlang:raise(error, broken, Stack) end),
         ?assertMatch({Stack, {ok, {<<"ErlangError">>, <<"error: broken">>, <<"error">>, <<"broken">>, _, _}}},
                      {Stack, py:call(context(Config), ?HELPERS, attempt, [fail])})
     end || Stack <- [[], [{m, f, 1}], [{m, f, [1, 2]}], [{m, f, 1, []}], [{fun lists:sort/1, [1]}], [{fun() -> Config end, []}],
                      [{m, f, 1, [{file, "file.erl"}, {line, 3}]}], [{m, f, 1, [{file, file}, {line, 3}]}],
                      [{m, f, 1, [{file, <<"file.erl">>}, {line, {3, 4}}]}], [{m, f, 1, [{file, [16#d800]}, {error_info, #{}}]}],
                      [{true, none, 1}], [{m, f, 1} || _ <- lists:seq(1, 2000)]]],
    ok = py:unregister_function(fail).

error_survives_pickle(_Config) ->
    ok = py:register_function(fail, fun([]) -> throw({a, 1}) end),
    ?assertEqual({ok, {<<"throw">>, {<<"a">>, 1}, true, true}}, py:call(?HELPERS, pickled_error, [fail])),
    ok = py:unregister_function(fail).

killed_process(Config) ->
    ok = gate(killed),
    Call = py:spawn_call(context(Config), ?HELPERS, attempt, [killed]),
    exit(entered(killed), kill),
    {ok, {<<"ErlangError">>, Text, <<"exit">>, none, [], _}} = py:await(Call, 10000),
    ?assertNotEqual(nomatch, binary:match(Text, <<"'killed'">>)),
    %% Not only the first.
    [begin
         Next = py:spawn_call(context(Config), ?HELPERS, call, [killed]),
         exit(entered(killed), kill),
         ?assertMatch({error, {'ErlangError', _}}, py:await(Next, 10000))
     end || _ <- lists:seq(1, 50)],
    ok = py:unregister_function(killed).

process_that_exits_by_a_link(Config) ->
    ok = py:register_function(linked, fun([]) -> _ = spawn_link(fun() -> exit(pulled) end), receive never -> ok end end),
    ?assertMatch({ok, {<<"ErlangError">>, _, <<"exit">>, _, _, _}}, py:call(context(Config), ?HELPERS, attempt, [linked], 10000)),
    ok = py:unregister_function(linked).

%% The end of one side

time_out_ends_the_process(Config) ->
    Context = context(Config),
    ok = gate(wait),
    Test = self(),
    {Milliseconds, {error, timeout}} =
        causeway_ct:milliseconds(fun() -> py:call(Context, ?HELPERS, call_and_tell, [Test, wait], 200) end),
    ?assert(Milliseconds >= 200),
    ?assert(Milliseconds < 1500),
    ok = told(entered(wait)),
    ok = causeway_ct:expect({<<"ended">>, <<"CallInterrupted">>}),
    ?assertEqual({ok, 4.0}, py:call(Context, math, sqrt, [16], 5000)),
    ok = py:unregister_function(wait),
    ?assertEqual([], causeway_ct:mailbox()).

process_that_traps_exits_is_told(Config) ->
    Test = self(),
    ok = py:register_function(trap, fun([]) -> process_flag(trap_exit, true), Test ! {trap, self()},
                                               receive {'EXIT', _, Reason} -> Test ! {tidied_up, Reason} end end),
    ?assertEqual({error, timeout}, py:call(context(Config), ?HELPERS, call, [trap], 100)),
    _ = entered(trap),
    ok = causeway_ct:expect({tidied_up, shutdown}),
    ok = py:unregister_function(trap).

dead_caller_ends_the_process(Config) ->
    Context = context(Config),
    ok = gate(wait),
    Test = self(),
    [begin
         Caller = spawn(fun() -> py:call(Context, ?HELPERS, call_and_tell, [Test, wait]) end),
         Function = entered(wait),
         kill(Caller),
         ok = told(Function),
         ok = causeway_ct:expect({<<"ended">>, <<"CallInterrupted">>})
     end || _ <- lists:seq(1, 100)],
    ?assertEqual({ok, 4.0}, py:call(Context, math, sqrt, [16], 5000)),
    ok = py:unregister_function(wait).

%% Once interrupted is enough, as everywhere: a context manager can give back what it has taken.
finally_may_call_again(Config) ->
    Context = context(Config),
    ok = gate(wait),
    Test = self(),
    ok = py:register_function(last, fun([]) -> Test ! last_was_called, <<"given back">> end),
    ?assertEqual({error, timeout}, py:call(Context, ?HELPERS, call_finally, [Test, wait, last], 100)),
    ok = told(entered(wait)),
    ok = causeway_ct:expect(last_was_called),
    ok = causeway_ct:expect({<<"finally">>, <<"given back">>}),
    ?assertEqual({ok, 4.0}, py:call(Context, math, sqrt, [16], 5000)),
    [ok = py:unregister_function(Name) || Name <- [wait, last]].

interrupt_ends_the_wait(Config) ->
    Context = context(Config),
    ok = gate(wait),
    Call = py:spawn_call(Context, ?HELPERS, call, [wait]),
    Function = entered(wait),
    ok = py:interrupt(Context),
    ?assertMatch({error, {'CallInterrupted', _}}, py:await(Call)),
    ok = told(Function),
    ?assertEqual({ok, 4.0}, py:call(Context, math, sqrt, [16], 5000)),
    ok = py:unregister_function(wait).

stop_of_the_context_ends_the_process(Config) ->
    Context = context(Config),
    Threads = causeway_ct:context_threads(),
    ok = gate(wait),
    Calls = [py:spawn_call(Context, ?HELPERS, call, [wait]) || _ <- lists:seq(1, 20)],
    Functions = [entered(wait) || _ <- Calls],
    {Milliseconds, ok} = causeway_ct:milliseconds(fun() -> py_context:stop(Context) end),
    ?assert(Milliseconds < 1000),
    [?assertMatch({error, {context_stopped, _}}, py:await(Call)) || Call <- Calls],
    [ok = told(Function) || Function <- Functions],
    ok = causeway_ct:settled(fun causeway_ct:context_threads/0, Threads - 1),
    ok = py:unregister_function(wait).

stubborn_waiting_ends_with_the_context(Config) ->
    Context = context(Config),
    ok = gate(wait),
    Call = py:spawn_call(Context, ?HELPERS, call_stubbornly, [wait]),
    Function = entered(wait),
    {Milliseconds, ok} = causeway_ct:milliseconds(fun() -> py_context:stop(Context) end),
    %% The owner gives up on the thread; what it still runs in vain starts no functions.
    ?assert(Milliseconds < 3000),
    ?assertMatch({error, {context_stopped, _}}, py:await(Call)),
    ok = told(Function),
    ok = py:unregister_function(wait),
    receive {wait, Late} -> error({started_in_vain, Late}) after 0 -> ok end.

stop_of_the_application(Config) ->
    ok = gate(wait),
    [begin
         ok = causeway_ct:start(),
         ok = gate(wait),
         {ok, Contexts} = py:start_contexts(4),
         Calls = [py:spawn_call(Context, ?HELPERS, call, [wait]) || Context <- Contexts, _ <- lists:seq(1, 5)],
         Functions = [entered(wait) || _ <- Calls],
         ok = application:stop(causeway),
         [?assertMatch({error, {context_stopped, _}}, py:await(Call)) || Call <- Calls],
         [ok = told(Function) || Function <- Functions]
     end || _ <- lists:seq(1, 10)],
    ?assertMatch({error, {not_started, _}}, py:register_function(wait, fun([]) -> ok end)),
    ?assertMatch({error, {not_started, _}}, py:unregister_function(wait)),
    ok = causeway_ct:start(),
    %% Functions are those of the application that has stopped.
    ?assertMatch({error, {'NameError', _}}, py:call(?HELPERS, call, [wait])),
    ?assertNotEqual(context(Config), py:context(1)).

%% The call at the bottom is over for its caller at once; its process is told when its turn has come.
outer_call_times_out_first(Config) ->
    Context = context(Config),
    [ok = gate(Name) || Name <- [outer, inner]],
    Test = self(),
    Outer = spawn_link(fun() -> Test ! {self(), py:call(Context, ?HELPERS, call, [outer], 200)} end),
    OuterFunction = entered(outer),
    Inner = py:spawn_call(Context, ?HELPERS, call, [inner]),
    InnerFunction = entered(inner),
    receive {Outer, Result} -> ?assertEqual({error, timeout}, Result) after ?PATIENCE -> error(late) end,
    ?assert(is_process_alive(InnerFunction)),
    InnerFunction ! {go, inner},
    ?assertEqual({ok, <<"inner">>}, py:await(Inner)),
    ok = told(OuterFunction),
    [ok = py:unregister_function(Name) || Name <- [outer, inner]].

%% Nobody waits any more when the function would begin.
queued_function_is_not_run_in_vain(Config) ->
    Test = self(),
    ok = py:register_function(late, fun([]) -> Test ! late_has_run end),
    ok = sys:suspend(py_callbacks),
    ?assertEqual({error, timeout}, py:call(context(Config), ?HELPERS, call, [late], 50)),
    %% The thread has dealt with its end when it answers.
    ?assertEqual({ok, 4.0}, py:call(context(Config), math, sqrt, [16], 5000)),
    ok = sys:resume(py_callbacks),
    ok = py:unregister_function(late),
    ok = py:register_function(late, fun([]) -> done end),
    ?assertEqual({ok, <<"done">>}, py:call(context(Config), ?HELPERS, call, [late])),
    ok = py:unregister_function(late),
    ?assertEqual([], causeway_ct:mailbox()).

%% Functions outlive their server, and so do contexts and what runs meanwhile.
server_that_dies(Config) ->
    Context = context(Config),
    ok = gate(wait),
    ok = py:register_function(kept, fun([]) -> <<"kept">> end),
    Processes = [py:context(1), whereis(py_reactor_default), Context],
    [begin
         Call = py:spawn_call(Context, ?HELPERS, call, [wait]),
         Function = entered(wait),
         Server = whereis(py_callbacks),
         ok = kill(Server),
         ok = causeway_ct:wait_until(fun() -> is_pid(whereis(py_callbacks)) andalso idle(whereis(py_callbacks)) end),
         ?assertNotEqual(Server, whereis(py_callbacks)),
         Function ! {go, <<"answered">>},
         ?assertEqual({ok, <<"answered">>}, py:await(Call)),
         ?assertEqual({ok, <<"kept">>}, py:call(Context, ?HELPERS, call_as_attribute, [kept]))
     end || _ <- lists:seq(1, 3)],
    ?assertEqual(Processes, [py:context(1), whereis(py_reactor_default), Context]),
    ?assert(lists:all(fun is_process_alive/1, Processes)),
    [ok = py:unregister_function(Name) || Name <- [wait, kept]],
    ?assertMatch({error, {'NameError', _}}, py:call(Context, ?HELPERS, call, [kept])).

%% It has begun.
idle(Server) -> sys:get_state(Server) =/= undefined.
