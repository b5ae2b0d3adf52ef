%% @doc Python calls Erlang: by every name and from every thread, in any depth, and whatever ends one of both sides.
-module(py_callback_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-define(HELPERS, callback_helpers).
-define(PROTOCOLS, reactor_protocols).
-define(PATIENCE, 30000).

suite() -> [{timetrap, {seconds, 120}}].

all() ->
    [{group, names}, {group, terms}, {group, processes}, {group, failures}, {group, depth}, {group, threads}, {group, reactor},
     {group, ends}, {group, leftovers}].

groups() ->
    [{names, [], [three_ways_to_call, names_of_all_kinds, names_that_are_none, functions_that_are_none, exported_functions,
                  replaced_function, unregistered_names, unregistered_while_it_runs, names_are_those_of_unicode,
                  wrong_arguments_of_call, names_of_the_module_come_first]},
     {terms, [], [arguments_arrive_as_one_list, values_there_and_back, results_without_a_python_form,
                  arguments_without_an_erlang_form, large_values, objects_keep_their_identity]},
     {processes, [], [send_and_whereis, self_is_the_caller, self_on_top_of_another_call, function_runs_in_a_process_of_its_own,
                      atoms_from_python]},
     {failures, [], [errors_exits_and_throws, errors_tell_where, error_that_nobody_catches, reason_without_a_python_form,
                     long_reasons_are_cut, stacktraces_of_all_kinds, error_survives_pickle, killed_process, process_that_exits_by_a_link]},
     {depth, [], [fifty_deep, fifty_deep_across_two_contexts_and_two_processes, endless_recursion_is_an_error,
                  recursion_beyond_pythons_limit, refused_depth_runs_no_function, calls_on_top_see_nothing_of_those_below,
                  last_in_first_out, long_wait_serves_others]},
     {threads, [], [from_a_thread, from_an_executor, from_many_threads_at_once, thread_waits_without_the_lock,
                    thread_has_no_self, thread_outlives_its_call, thread_waits_for_a_killed_process]},
     {reactor, [], [connections_are_served_meanwhile, callback_of_a_connection_calls_erlang,
                    cancelled_call_spares_the_connections_on_top, cancelled_call_spares_the_factory_on_top,
                    factory_that_loops_ends_with_its_context, write_ready_that_waits_ends_with_its_context]},
     {ends, [], [time_out_ends_the_process, process_that_traps_exits_is_told, dead_caller_ends_the_process,
                 finally_may_call_again, interrupt_ends_the_wait, stop_of_the_context_ends_the_process,
                 stubborn_waiting_ends_with_the_context, stop_of_the_application, outer_call_times_out_first,
                 queued_function_is_not_run_in_vain]},
     {leftovers, [], [hundred_callers_on_the_pool, hundred_callers_on_one_context, ten_thousand_leave_nothing,
                      large_values_are_freed, time_outs_leave_nothing, answers_do_not_mix]}].

init_per_suite(Config) ->
    ok = causeway_ct:start(),
    Config.

end_per_suite(_Config) ->
    ok = application:stop(causeway).

init_per_group(_Group, Config) -> Config.

end_per_group(_Group, _Config) -> ok.

init_per_testcase(_Case, Config) ->
    ok = causeway_ct:start(),
    [{context, start()} | Config].

end_per_testcase(_Case, Config) ->
    exit(context(Config), kill).

context(Config) -> proplists:get_value(context, Config).

start() ->
    {ok, Context} = py_reactor_context:start_link(1, worker),
    unlink(Context),
    Context.

%% Names

three_ways_to_call(Config) ->
    ok = py:register_function(add, fun([A, B]) -> A + B end),
    [?assertEqual({Way, {ok, 5}}, {Way, py:call(context(Config), ?HELPERS, Way, [add, 2, 3])})
     || Way <- [call, call_as_attribute, import_and_call]],
    ?assertEqual({ok, 5}, py:eval(<<"__import__('erlang').call('add', 2, 3)">>)).

names_of_all_kinds(_Config) ->
    [begin
         ok = py:register_function(Name, fun([]) -> Name end),
         ?assertEqual({ok, Shown}, py:call(?HELPERS, call, [Called])),
         ok = py:unregister_function(Called),
         ?assertMatch({error, {'NameError', _}}, py:call(?HELPERS, call, [Called]))
     end || {Name, Called, Shown} <- [{an_atom, <<"an_atom">>, <<"an_atom">>}, {"a string", <<"a string">>, "a string"},
                                      {<<"a binary">>, <<"a binary">>, <<"a binary">>}, {"größe", <<"größe"/utf8>>, "größe"},
                                      {[[<<"io">>], "data"], <<"iodata">>, [[<<"io">>], "data"]}]].

names_that_are_none(_Config) ->
    [begin
         ?assertMatch({Name, {error, {badarg, <<_, _/binary>>}}}, {Name, py:register_function(Name, fun([]) -> ok end)}),
         ?assertMatch({Name, {error, {badarg, <<_, _/binary>>}}}, {Name, py:register_function(Name, lists, sort)}),
         ?assertMatch({Name, {error, {badarg, <<_, _/binary>>}}}, {Name, py:unregister_function(Name)})
     end || Name <- [1, {a}, <<255>>, [a], self(), #{}, <<1:3>>, ["x" | y]]],
    ?assert(is_process_alive(whereis(py_callbacks))).

functions_that_are_none(_Config) ->
    [?assertMatch({Fun, {error, {badarg, <<_, _/binary>>}}}, {Fun, py:register_function(wrong, Fun)})
     || Fun <- [fun() -> ok end, fun(_, _) -> ok end, {lists, sort}, lists, 1]],
    ?assertMatch({error, {badarg, _}}, py:register_function(wrong, "lists", sort)),
    ?assertMatch({error, {badarg, _}}, py:register_function(wrong, lists, <<"sort">>)),
    ?assertMatch({error, {'NameError', _}}, py:call(?HELPERS, call, [wrong])).

exported_functions(_Config) ->
    ok = py:register_function(sorted, lists, sort),
    ?assertEqual({ok, [1, 2, 3]}, py:call(?HELPERS, call, [sorted, 3, 1, 2])),
    %% Looked up when it is called.
    ok = py:register_function(absent, lists, no_such_function),
    ?assertMatch({ok, {<<"ErlangError">>, _, <<"error">>, <<"undef">>, [#{<<"function">> := <<"no_such_function">>, <<"arity">> := 1} | _], _}},
                 py:call(?HELPERS, attempt, [absent])),
    [ok = py:unregister_function(Name) || Name <- [sorted, absent]].

replaced_function(_Config) ->
    ok = py:register_function(version, fun([]) -> 1 end),
    {ok, none} = py:call(?HELPERS, keep, [version]),
    ok = py:register_function(version, fun([]) -> 2 end),
    ?assertEqual({ok, 2}, py:call(?HELPERS, call, [version])),
    %% Who has imported it calls what has its name.
    ?assertEqual({ok, 2}, py:call(?HELPERS, call_kept, [version])),
    ok = py:unregister_function(version).

unregistered_names(_Config) ->
    {error, {'NameError', Text}} = py:call(?HELPERS, call, [nobody]),
    ?assertNotEqual(nomatch, string:find(Text, "py:register_function(nobody")),
    ?assertMatch({error, {'AttributeError', _}}, py:call(?HELPERS, call_as_attribute, [nobody])),
    ?assertMatch({error, {'ImportError', _}}, py:call(?HELPERS, import_and_call, [nobody])),
    ?assertEqual({ok, false}, py:eval(<<"hasattr(__import__('erlang'), 'nobody')">>)),
    ok = py:register_function(nobody, fun([]) -> somebody end),
    {ok, none} = py:call(?HELPERS, keep, [nobody]),
    ok = py:unregister_function(nobody),
    ok = py:unregister_function(nobody),
    ?assertMatch({error, {'NameError', _}}, py:call(?HELPERS, call_kept, [nobody])).

unregistered_while_it_runs(Config) ->
    ok = gate(gone),
    Call = py:spawn_call(context(Config), ?HELPERS, call, [gone]),
    Function = entered(gone),
    ok = py:unregister_function(gone),
    Function ! {go, value},
    ?assertEqual({ok, <<"value">>}, py:await(Call)).

%% One letter and its two parts look alike and are two names.
names_are_those_of_unicode(_Config) ->
    [One, Two] = [<<"n", 16#E9/utf8>>, <<"ne", 16#301/utf8>>],
    ok = py:register_function(One, fun([]) -> one end),
    ?assertMatch({error, {'NameError', _}}, py:call(?HELPERS, call, [Two])),
    ok = py:register_function(Two, fun([]) -> two end),
    ?assertEqual({ok, <<"one">>}, py:call(?HELPERS, call, [One])),
    ?assertEqual({ok, <<"two">>}, py:call(?HELPERS, call, [Two])),
    ok = py:unregister_function(One),
    ?assertEqual({ok, <<"two">>}, py:call(?HELPERS, call, [Two])),
    ok = py:unregister_function(Two).

wrong_arguments_of_call(_Config) ->
    ok = py:register_function(right, fun(_) -> right end),
    [?assertMatch({Code, {error, {Type, _}}}, {Code, py:eval(Code)})
     || {Type, Code} <- [{'TypeError', <<"__import__('erlang').call()">>}, {'TypeError', <<"__import__('erlang').call(1)">>},
                         {'TypeError', <<"__import__('erlang').call(b'right')">>}, {'TypeError', <<"__import__('erlang').call(None)">>},
                         {'TypeError', <<"__import__('erlang').call('right', x=1)">>}, {'TypeError', <<"__import__('erlang').right(x=1)">>},
                         {'UnicodeEncodeError', <<"__import__('erlang').call(chr(0xd800))">>},
                         {'TypeError', <<"__import__('_causeway')._call('right')">>},
                         {'TypeError', <<"__import__('_causeway')._call('right', [])">>},
                         {'TypeError', <<"__import__('_causeway')._is_function(1)">>}]],
    ok = py:unregister_function(right).

%% What belongs to the module is not hidden by a function of the same name, which can be called all the same.
names_of_the_module_come_first(_Config) ->
    ok = py:register_function(whereis, fun([]) -> mine end),
    ?assertEqual({ok, none}, py:eval(<<"__import__('erlang').whereis('certainly not registered')">>)),
    ?assertEqual({ok, <<"mine">>}, py:call(?HELPERS, call, [whereis])),
    ok = py:unregister_function(whereis).

%% Terms

arguments_arrive_as_one_list(Config) ->
    ok = py:register_function(show, fun(Arguments) -> io_lib:format("~0p", [Arguments]), length(Arguments) end),
    [?assertEqual({ok, Number}, py:call(context(Config), ?HELPERS, call, [show | lists:seq(1, Number)]))
     || Number <- [0, 1, 2, 16, 17, 1000]],
    ok = py:unregister_function(show).

values_there_and_back(Config) ->
    Test = self(),
    ok = py:register_function(echo, fun([Value]) -> Test ! {echoed, Value}, Value end),
    [begin
         ?assertEqual({ok, Back}, py:call(context(Config), ?HELPERS, call, [echo, Value])),
         ok = causeway_ct:expect({echoed, Value})
     end || {Value, Back} <- [{V, V} || V <- [0, -1, 1 bsl 100, 1.5, <<"text">>, <<255, 0>>, [], {}, #{}, [1, [2, {3, #{4 => 5}}]], true, false,
                                              none, nan, infinity, self(), make_ref(), fun lists:sort/1, fun() -> Config end,
                                              hd(erlang:ports())]]],
    ok = py:unregister_function(echo).

results_without_a_python_form(Config) ->
    [begin
         ok = py:register_function(odd, fun([]) -> Value end),
         ?assertMatch({Value, {ok, {<<"ValueError">>, <<_, _/binary>>}}}, {Value, py:call(context(Config), ?HELPERS, attempt, [odd])})
     end || Value <- [[1 | 2], <<1:3>>, #{a => 1, <<"a">> => 2}, lists:foldl(fun(_, L) -> [L] end, [], lists:seq(1, 5000))]],
    ?assertMatch({error, {'TypeError', _}}, begin
                                                ok = py:register_function(odd, fun([]) -> #{[1] => 2} end),
                                                py:call(context(Config), ?HELPERS, call, [odd])
                                            end),
    %% Results that look like the core's own answers.
    [begin
         ok = py:register_function(odd, fun([]) -> Value end),
         ?assertEqual({ok, Shown}, py:call(context(Config), ?HELPERS, call, [odd]))
     end || {Value, Shown} <- [{{error, unknown}, {<<"error">>, <<"unknown">>}}, {{ok, 1}, {<<"ok">>, 1}}, {lost, <<"lost">>},
                               {{bytes, <<"x">>}, <<"x">>}, {{error, a, b, c, []}, {<<"error">>, <<"a">>, <<"b">>, <<"c">>, []}}]],
    ok = py:unregister_function(odd),
    ?assertEqual({ok, 1}, py:eval(context(Config), <<"1">>)).

%% The function is not called at all.
arguments_without_an_erlang_form(Config) ->
    ok = gate(never),
    ok = py:exec(context(Config), <<"import erlang\ndef lone(): return erlang.call('never', chr(0xd800))\n"
                                    "def deep():\n  v = []\n  for _ in range(5000): v = [v]\n  return erlang.call('never', v)\n"
                                    "def same(): return erlang.call('never', {'a': 1, b'a': 2})\n">>),
    [?assertMatch({error, {Type, _}}, py:call(context(Config), '__main__', Name, []))
     || {Name, Type} <- [{lone, 'UnicodeEncodeError'}, {deep, 'ValueError'}, {same, 'ValueError'}]],
    ok = py:unregister_function(never),
    ?assertEqual([], causeway_ct:mailbox()).

large_values(Config) ->
    ok = py:register_function(echo, fun([Value]) -> Value end),
    [?assertEqual({ok, Value}, py:call(context(Config), ?HELPERS, call, [echo, Value]))
     || Value <- [binary:copy(<<"x">>, 10000000), binary:copy(<<255>>, 10000000), lists:seq(1, 300000),
                  maps:from_list([{N, N} || N <- lists:seq(1, 50000)])]],
    ok = py:unregister_function(echo).

objects_keep_their_identity(Config) ->
    ok = py:register_function(echo, fun([Value]) -> Value end),
    ok = py:exec(context(Config), <<"import erlang\nclass Thing: pass\ndef same():\n  thing = Thing()\n  return erlang.call('echo', thing) is thing\n">>),
    ?assertEqual({ok, true}, py:call(context(Config), '__main__', same, [])),
    ok = py:unregister_function(echo).

%% Processes

send_and_whereis(Config) ->
    Context = context(Config),
    true = register(py_callback_suite_process, self()),
    ok = py:exec(Context, <<"import erlang\ndef find_and_send(name, term):\n    pid = erlang.whereis(name)\n"
                            "    return pid if pid is None else (erlang.send(pid, term), isinstance(pid, erlang.Pid))\n">>),
    ?assertEqual({ok, {none, true}}, py:call(Context, '__main__', find_and_send, [py_callback_suite_process, {a, [1]}])),
    ok = causeway_ct:expect({<<"a">>, [1]}),
    true = unregister(py_callback_suite_process),
    ?assertEqual({ok, none}, py:call(Context, '__main__', find_and_send, [py_callback_suite_process, 1])),
    Dead = spawn(fun() -> ok end),
    Monitor = monitor(process, Dead),
    receive {'DOWN', Monitor, _, _, _} -> ok end,
    ?assertEqual({ok, none}, py:call(erlang, send, [Dead, 1])),
    [?assertMatch({Arguments, {error, {'TypeError', _}}}, {Arguments, py:call(erlang, send, Arguments)})
     || Arguments <- [[], [self()], [self(), 1, 2], [make_ref(), 1], [<<"name">>, 1], [none, 1]]],
    [?assertMatch({Arguments, {error, {'TypeError', _}}}, {Arguments, py:call(erlang, whereis, Arguments)})
     || Arguments <- [[], [1], [none], [a, b]]],
    ?assertEqual({ok, none}, py:call(erlang, whereis, [binary:copy(<<"x">>, 300)])),
    ?assertEqual({ok, none}, py:call(erlang, whereis, [undefined_name])),
    ?assertEqual([], causeway_ct:mailbox()).

self_is_the_caller(Config) ->
    Test = self(),
    ?assertEqual({ok, Test}, py:call(context(Config), erlang, self, [])),
    Other = spawn_link(fun() -> Test ! {self(), py:call(context(Config), erlang, self, [])} end),
    receive {Other, Result} -> ?assertEqual({ok, Other}, Result) end.

self_on_top_of_another_call(Config) ->
    Context = context(Config),
    ok = py:register_function(inner, fun([]) -> {ok, Self} = py:call(Context, erlang, self, []), {Self, self()} end),
    {ok, {Before, {Inner, Function}, After}} = py:call(Context, ?HELPERS, self_around, [inner]),
    ?assertEqual({self(), self()}, {Before, After}),
    ?assertEqual(Inner, Function),
    ?assertNotEqual(self(), Function),
    ok = py:unregister_function(inner).

function_runs_in_a_process_of_its_own(Config) ->
    ok = py:register_function(who, fun([]) -> {self(), get('$callers'), process_info(self(), links)} end),
    {ok, {First, [Caller], {<<"links">>, []}}} = py:call(context(Config), ?HELPERS, call, [who]),
    {ok, {Second, _, _}} = py:call(context(Config), ?HELPERS, call, [who]),
    ?assertEqual(self(), Caller),
    ?assertEqual(3, length(lists:usort([First, Second, whereis(py_callbacks)]))),
    ok = causeway_ct:wait_until(fun() -> not is_process_alive(First) andalso not is_process_alive(Second) end),
    ok = py:unregister_function(who).

atoms_from_python(_Config) ->
    Test = self(),
    ok = py:register_function(look, fun([Value]) -> Test ! {looked, Value} end),
    [begin
         {ok, _} = py:eval(["__import__('erlang').call('look', __import__('erlang').atom(", Code, "))"]),
         ok = causeway_ct:expect({looked, Value})
     end || {Code, Value} <- [{"'ok'", ok}, {"'a new atom of the suite'", 'a new atom of the suite'}, {"''", ''}, {"'true'", true}, {"'x' * 255", list_to_atom(lists:duplicate(255, $x))}]],
    [?assertMatch({error, {Type, _}}, py:eval(["__import__('erlang').atom(", Code, ")"]))
     || {Code, Type} <- [{"1", 'TypeError'}, {"b'a'", 'TypeError'}, {"'x' * 256", 'ValueError'}, {"", 'TypeError'}]],
    %% Values, not only names: they compare and are keys as strings are.
    ?assertEqual({ok, true}, py:eval(<<"__import__('erlang').atom('a') == 'a' and hash(__import__('erlang').atom('a')) == hash('a')">>)),
    ok = py:unregister_function(look).

%% Failures

errors_exits_and_throws(Config) ->
    [begin
         ok = py:register_function(fail, fun([]) -> Fail() end),
         {ok, {Type, Text, Kind, Reason, Stack, [Note | Frames]}} = py:call(context(Config), ?HELPERS, attempt, [fail]),
         ?assertEqual({<<"ErlangError">>, ExpectedKind, ExpectedReason}, {Type, Kind, Reason}),
         ?assertEqual(ExpectedText, Text),
         ?assertEqual(<<"in the Erlang function 'fail'">>, Note),
         ?assertEqual(length(Stack), length(Frames)),
         [#{<<"module">> := <<"py_callback_SUITE">>, <<"arity">> := _, <<"line">> := Line, <<"file">> := File} | _] = Stack,
         ?assert(Line > 0),
         ?assertEqual(<<"py_callback_SUITE.erl">>, filename:basename(File))
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
    Where = iolist_to_binary(["py_callback_SUITE.erl, line ", integer_to_binary(Line)]),
    ?assertNotEqual(nomatch, binary:match(lists:nth(2, Notes), [<<"py_callback_SUITE:fail_here/1">>])),
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

%% Depth

fifty_deep(Config) ->
    ok = py:register_function(nest, fun([0]) -> 0;
                                       ([N]) -> {ok, Depth} = py:call(context(Config), ?HELPERS, nest, [nest, N - 1]), Depth + 1
                                    end),
    [?assertEqual({ok, 50}, py:call(context(Config), ?HELPERS, nest, [nest, 50])) || _ <- lists:seq(1, 20)],
    ok = py:unregister_function(nest).

%% Each level waits in another context than the one above; two chains go through both contexts in opposite order, and the
%% calls of both are made by two processes, as servers are.
fifty_deep_across_two_contexts_and_two_processes(Config) ->
    Contexts = {context(Config), start()},
    ok = py:register_function(nest, fun([0, _]) -> 0;
                                       ([N, Place]) ->
                                            {ok, Depth} = py:call(element(Place, Contexts), ?HELPERS, nest, [nest, N - 1, 3 - Place]),
                                            Depth + 1
                                    end),
    [begin
         Callers = [spawn_monitor(fun() -> exit({result, py:call(element(Place, Contexts), ?HELPERS, nest, [nest, 50, 3 - Place])}) end)
                    || Place <- [1, 2]],
         [receive {'DOWN', Monitor, process, Caller, Result} -> ?assertEqual({result, {ok, 50}}, Result) after ?PATIENCE -> error(deadlock) end
          || {Caller, Monitor} <- Callers]
     end || _ <- lists:seq(1, 50)],
    ok = py:unregister_function(nest),
    ok = py_context:stop(element(2, Contexts)).

endless_recursion_is_an_error(Config) ->
    ok = register_endless(context(Config)),
    [begin
         ?assertEqual({ok, <<"RecursionError">>}, py:call(context(Config), ?HELPERS, nest, [endless, 0], 60000)),
         ?assertEqual({ok, 4.0}, py:call(context(Config), math, sqrt, [16]))
     end || _ <- lists:seq(1, 3)],
    ?assertEqual([], causeway_ct:mailbox()),
    ok = py:unregister_function(endless).

%% Python's own limit set as high as people set it: ours is before the end of the stack.
recursion_beyond_pythons_limit(Config) ->
    ok = register_endless(context(Config)),
    ?assertEqual({ok, <<"RecursionError">>},
                 py:call(context(Config), ?HELPERS, with_recursion_limit, [1000000, endless, 0], 60000)),
    ?assertEqual({ok, 4.0}, py:call(context(Config), math, sqrt, [16])),
    ok = py:unregister_function(endless).

%% The type of the error at the bottom, which every level hands up.
register_endless(Context) ->
    py:register_function(endless, fun([N]) -> case py:call(Context, ?HELPERS, nest, [endless, N + 1]) of
                                                  {ok, Type} -> Type;
                                                  {error, {Type, _}} -> Type
                                              end
                                  end).

%% A call that is refused has not run its function all the same.
refused_depth_runs_no_function(Config) ->
    Counter = counters:new(1, []),
    Deepest = counters:new(1, []),
    ok = py:register_function(deeper, fun([N]) ->
                                              ok = counters:add(Counter, 1, 1),
                                              ok = counters:put(Deepest, 1, N),
                                              element(1, py:call(context(Config), ?HELPERS, nest, [deeper, N + 1]))
                                      end),
    {ok, _} = py:call(context(Config), ?HELPERS, with_recursion_limit, [1000000, deeper, 1], 60000),
    ?assertEqual(counters:get(Deepest, 1), counters:get(Counter, 1)),
    ?assertEqual(500, counters:get(Deepest, 1)),
    ok = py:unregister_function(deeper).

%% A call that is served while another waits is a call of its own, of somebody else.
calls_on_top_see_nothing_of_those_below(Config) ->
    Context = context(Config),
    ok = py:register_function(complain, fun([]) -> py:call(Context, ?HELPERS, complain, [], #{error => map}) end),
    {ok, {<<"error">>, Error}} = py:call(Context, ?HELPERS, call_in_handler, [complain]),
    ?assertMatch(#{<<"type">> := <<"ValueError">>, <<"cause">> := none}, Error),
    ok = py:register_function(handled, fun([]) -> py:call(Context, ?HELPERS, handled, []) end),
    ?assertEqual({ok, {<<"ok">>, <<"None">>}}, py:call(Context, ?HELPERS, call_in_handler, [handled])),
    [ok = py:unregister_function(Name) || Name <- [complain, handled]].

last_in_first_out(Config) ->
    Context = context(Config),
    [ok = gate(Name) || Name <- [first, second]],
    First = py:spawn_call(Context, ?HELPERS, call, [first]),
    FirstFunction = entered(first),
    Second = py:spawn_call(Context, ?HELPERS, call, [second]),
    SecondFunction = entered(second),
    FirstFunction ! {go, 1},
    %% On top of both.
    ?assertEqual({ok, 4.0}, py:call(Context, math, sqrt, [16], 5000)),
    SecondFunction ! {go, 2},
    ?assertEqual({ok, 2}, py:await(Second)),
    ?assertEqual({ok, 1}, py:await(First)),
    [ok = py:unregister_function(Name) || Name <- [first, second]].

long_wait_serves_others(Config) ->
    Context = context(Config),
    ok = gate(wait),
    Waiting = py:spawn_call(Context, ?HELPERS, call, [wait]),
    Function = entered(wait),
    Ticks = causeway_ct:context_ticks(),
    [?assertEqual({ok, float(N)}, py:call(Context, math, sqrt, [N * N], 5000)) || N <- lists:seq(1, 1000)],
    ?assertEqual(ok, py:exec(Context, <<"mine = 1">>)),
    ?assertEqual({ok, 1}, py:eval(Context, <<"mine">>)),
    ?assertEqual({error, timeout}, py:call(Context, time, sleep, [60], 500)),
    %% It sleeps while it waits.
    ?assert(causeway_ct:context_ticks() - Ticks < 150),
    Function ! {go, done},
    ?assertEqual({ok, <<"done">>}, py:await(Waiting)),
    ok = py:unregister_function(wait).

%% Other threads

from_a_thread(Config) ->
    ok = py:register_function(double, fun([N]) -> {N * 2, get('$callers')} end),
    ?assertEqual({ok, [{<<"returned">>, {42, none}}]}, py:call(context(Config), ?HELPERS, in_thread, [double, 21])),
    ok = py:register_function(double, fun([_]) -> error(broken) end),
    ?assertMatch({ok, [{<<"ErlangError">>, _, <<"error">>, <<"broken">>, _, _}]}, py:call(context(Config), ?HELPERS, in_thread, [double, 21])),
    ok = py:unregister_function(double),
    ?assertMatch({ok, [{<<"NameError">>, _}]}, py:call(context(Config), ?HELPERS, in_thread, [double, 21])).

from_an_executor(Config) ->
    ok = py:register_function(double, fun([N]) -> N * 2 end),
    %% Many, since an answer meets its thread at every stage of going to sleep.
    [?assertEqual({ok, [N * 2 || N <- lists:seq(1, 2000)]},
                  py:call(context(Config), ?HELPERS, in_executor, [double, 16, lists:seq(1, 2000)]))
     || _ <- lists:seq(1, 10)],
    ok = py:unregister_function(double).

%% All wait at once; each function calls Python again.
from_many_threads_at_once(Config) ->
    Test = self(),
    ok = py:register_function(meet, fun([N]) -> Test ! {meet, self()}, receive {go, _} -> ok end,
                                                {ok, Root} = py:call(math, sqrt, [N * N]), Root end),
    Call = py:spawn_call(context(Config), ?HELPERS, in_executor, [meet, 100, lists:seq(1, 100)]),
    Functions = [entered(meet) || _ <- lists:seq(1, 100)],
    [Function ! {go, on} || Function <- Functions],
    ?assertEqual({ok, [float(N) || N <- lists:seq(1, 100)]}, py:await(Call)),
    ok = py:unregister_function(meet).

thread_waits_without_the_lock(Config) ->
    ok = gate(wait),
    {ok, none} = py:call(context(Config), ?HELPERS, in_background, [wait]),
    Function = entered(wait),
    [?assertEqual({ok, 4.0}, py:call(Context, math, sqrt, [16], 5000)) || Context <- [context(Config), py:context(1)]],
    Function ! {go, done},
    ok = py:unregister_function(wait).

thread_has_no_self(Config) ->
    {ok, Text} = py:call(context(Config), ?HELPERS, self_in_thread, []),
    ?assertNotEqual(nomatch, binary:match(Text, <<"self()">>)).

%% Nobody can interrupt it: it gets its answer when the call and even the context are over.
thread_outlives_its_call(Config) ->
    ok = gate(wait),
    Test = self(),
    ok = py:register_function(tell, fun([Value]) -> Test ! {told, Value} end),
    ok = py:exec(context(Config), <<"import erlang, threading\ndef work(): erlang.call('tell', erlang.call('wait'))\n"
                                    "threading.Thread(target=work).start()\n">>),
    Function = entered(wait),
    ok = py_context:stop(context(Config)),
    Function ! {go, late},
    ok = causeway_ct:expect({told, <<"late">>}),
    [ok = py:unregister_function(Name) || Name <- [wait, tell]].

thread_waits_for_a_killed_process(Config) ->
    ok = gate(killed),
    Call = py:spawn_call(context(Config), ?HELPERS, in_thread, [killed]),
    exit(entered(killed), kill),
    ?assertMatch({ok, [{<<"ErlangError">>, _, <<"exit">>, none, [], _}]}, py:await(Call, 10000)),
    ok = py:unregister_function(killed).

%% Connections

connections_are_served_meanwhile(Config) ->
    Context = context(Config),
    ok = use('Echo'),
    ok = gate(wait),
    Before = connect(Context),
    ?assertEqual(<<"ping">>, ask(Before, <<"ping">>)),
    Waiting = py:spawn_call(Context, ?HELPERS, call, [wait]),
    Function = entered(wait),
    [?assertEqual(integer_to_binary(N), ask(Before, integer_to_binary(N))) || N <- lists:seq(1, 200)],
    %% One that comes meanwhile, and after the thread has gone to sleep.
    During = connect(Context),
    ?assertEqual(<<"pong">>, ask(During, <<"pong">>)),
    #{parks := Parks} = py_context:stats(Context),
    ok = causeway_ct:wait_until(fun() -> maps:get(parks, py_context:stats(Context)) > Parks end),
    [?assertEqual(<<"awake">>, ask(Socket, <<"awake">>)) || Socket <- [Before, During]],
    Function ! {go, done},
    ?assertEqual({ok, <<"done">>}, py:await(Waiting)),
    [?assertEqual(<<"after">>, ask(Socket, <<"after">>)) || Socket <- [Before, During]],
    [ok = gen_tcp:close(Socket) || Socket <- [Before, During]],
    ok = py:unregister_function(wait).

callback_of_a_connection_calls_erlang(Config) ->
    Context = context(Config),
    ok = use('Asks'),
    ok = gate(slow),
    ok = py:register_function(fast, fun([]) -> fast end),
    Slow = connect(Context),
    Fast = connect(Context),
    ok = gen_tcp:send(Slow, <<"slow">>),
    Function = entered(slow),
    ok = causeway_ct:expect({<<"asking">>, <<"slow">>, Context}),
    ?assertEqual(<<"fast">>, ask(Fast, <<"fast">>)),
    ?assertEqual({ok, 4.0}, py:call(Context, math, sqrt, [16], 5000)),
    Function ! {go, slow},
    ?assertEqual({ok, <<"slow">>}, gen_tcp:recv(Slow, 4, 10000)),
    [ok = gen_tcp:close(Socket) || Socket <- [Slow, Fast]],
    [ok = py:unregister_function(Name) || Name <- [slow, fast]].

%% A connection's callback waits on top of a call that waits. The call is given up: the callback is not its business.
cancelled_call_spares_the_connections_on_top(Config) ->
    Context = context(Config),
    ok = use('Asks'),
    [ok = gate(Name) || Name <- [below, above]],
    Socket = connect(Context),
    Caller = spawn(fun() -> py:call(Context, ?HELPERS, call, [below]) end),
    Below = entered(below),
    ok = gen_tcp:send(Socket, <<"above">>),
    Above = entered(above),
    ok = causeway_ct:expect({<<"asking">>, <<"above">>, Context}),
    Monitor = monitor(process, Below),
    kill(Caller),
    %% The context has dealt with what has happened when it has served this.
    ?assertEqual({ok, 4.0}, py:call(Context, math, sqrt, [16], 5000)),
    Above ! {go, above},
    ?assertEqual({ok, <<"above">>}, gen_tcp:recv(Socket, 5, 10000)),
    %% Only then is it its turn.
    receive {'DOWN', Monitor, process, Below, Reason} -> ?assertEqual(shutdown, Reason) after ?PATIENCE -> error(not_told) end,
    ok = gen_tcp:close(Socket),
    [ok = py:unregister_function(Name) || Name <- [below, above]].

%% The same while a protocol is being made, by Python code that is interrupted where it stands.
cancelled_call_spares_the_factory_on_top(Config) ->
    Context = context(Config),
    ok = use('MadeSlowly'),
    ok = gate(below),
    Caller = spawn(fun() -> py:call(Context, ?HELPERS, call, [below]) end),
    Below = entered(below),
    Monitor = monitor(process, Below),
    Socket = connect(Context),
    ok = causeway_ct:expect({<<"making">>, Context}),
    kill(Caller),
    ok = causeway_ct:expect({<<"init over">>}),
    ?assertEqual(<<"ping">>, ask(Socket, <<"ping">>)),
    receive {'DOWN', Monitor, process, Below, Reason} -> ?assertEqual(shutdown, Reason) after ?PATIENCE -> error(not_told) end,
    ok = gen_tcp:close(Socket),
    ok = py:unregister_function(below).

factory_that_loops_ends_with_its_context(Config) ->
    Context = context(Config),
    Threads = causeway_ct:context_threads(),
    ok = use('MadeNever'),
    Socket = connect(Context),
    ok = causeway_ct:expect({<<"making">>, Context}),
    ok = py_context:stop(Context),
    ok = causeway_ct:settled(fun causeway_ct:context_threads/0, Threads - 1),
    ok = gen_tcp:close(Socket).

write_ready_that_waits_ends_with_its_context(Config) ->
    Context = context(Config),
    Threads = causeway_ct:context_threads(),
    ok = use('Signalled'),
    ok = gate(slowly),
    Socket = connect(Context),
    receive {<<"made">>, Fd, _} ->
        ok = gen_tcp:send(Socket, <<"go">>),
        ok = causeway_ct:wait_until(fun() ->
            {ok, true} = py:call('erlang.reactor', signal_write_ready, [Fd]),
            receive {<<"writing">>, Context} -> true after 0 -> false end
        end)
    after ?PATIENCE -> error(causeway_ct:mailbox())
    end,
    Function = entered(slowly),
    Monitor = monitor(process, Function),
    ok = py_context:stop(Context),
    receive {'DOWN', Monitor, process, Function, Reason} -> ?assertEqual(shutdown, Reason) after ?PATIENCE -> error(not_told) end,
    ok = causeway_ct:settled(fun causeway_ct:context_threads/0, Threads - 1),
    ok = gen_tcp:close(Socket),
    ok = py:unregister_function(slowly).

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
    %% 300 answers of 4 MB.
    [{ok, 100000} = py:call(Context, '__main__', size, [100000]) || _ <- lists:seq(1, 300)],
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
    Other = start(),
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

%% Helpers

%% Registers a function that tells the test its process, and goes on when that is sent `{go, Result}'.
gate(Name) ->
    Test = self(),
    py:register_function(Name, fun([]) -> Test ! {Name, self()}, receive {go, Result} -> Result end end).

entered(Name) ->
    receive {Name, Process} when is_pid(Process) -> Process
    after ?PATIENCE -> error({not_called, Name, causeway_ct:mailbox()})
    end.

%% Waits for the end of a function's process.
told(Function) ->
    Monitor = monitor(process, Function),
    receive
        {'DOWN', Monitor, process, Function, Reason} ->
            ?assert(Reason =:= shutdown orelse Reason =:= noproc),
            ok
    after ?PATIENCE -> error({not_told, process_info(Function)})
    end.

kill(Process) ->
    Monitor = monitor(process, Process),
    exit(Process, kill),
    receive {'DOWN', Monitor, process, Process, killed} -> ok end.

use(Protocol) ->
    {ok, none} = py:call(?PROTOCOLS, use, [Protocol, self()]),
    ok.

connect(Context) ->
    {ok, Listen} = gen_tcp:listen(0, [binary, {active, false}, {ip, {127, 0, 0, 1}}]),
    {ok, Port} = inet:port(Listen),
    {ok, Client} = gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, false}, {nodelay, true}]),
    {ok, Server} = gen_tcp:accept(Listen, 10000),
    {ok, Fd} = inet:getfd(Server),
    ok = py_reactor_context:handoff(Context, Fd, #{type => tcp}),
    ok = gen_tcp:close(Listen),
    Client.

ask(Socket, Data) ->
    ok = gen_tcp:send(Socket, Data),
    {ok, Answer} = gen_tcp:recv(Socket, byte_size(Data), 10000),
    Answer.
