%% @doc call, eval, exec, cast, spawn_call and await: what they return, and what they say to what is wrong.
-module(py_call_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-define(HELPERS, causeway_helpers).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [names_may_be_atoms_strings_or_binaries, dotted_names, submodules_are_imported, many_arguments,
     keyword_arguments, kwargs_as_option, call_in_a_context, eval_sees_locals, eval_takes_iodata, exec_takes_iodata,
     syntax_errors, python_error_is_a_pair, error_text_is_unicode, unknown_module_and_function,
     sys_exit_is_an_error, every_exception_is_an_error, exception_without_text, exception_with_strange_name,
     new_exception_names_do_not_fill_the_atom_table, error_as_map, error_map_has_causes,
     error_map_without_cause, error_map_of_a_circle_of_causes, error_map_of_deep_traceback,
     error_map_from_eval_and_exec, deep_recursion_is_an_error, timeout_zero, wrong_timeouts, wrong_options,
     wrong_modules_and_functions, wrong_arguments, wrong_code, wrong_locals, names_with_null_bytes,
     unknown_context, dead_context, dead_context_in_every_function, context_stops_during_call,
     cast_has_its_effect, cast_in_context, failing_cast_harms_nobody, spawn_call_and_await,
     await_in_any_order, await_again_after_timeout, await_only_once, await_needs_own_reference,
     spawn_call_with_kwargs_and_context, spawner_dies, version_is_of_this_python, contexts_by_index,
     start_contexts_adds, wrong_number_of_contexts, stop_contexts_and_start_again, dup_fd, dup_fd_is_close_on_exec,
     dup_fd_errors, send_and_whereis, send_errors, send_is_not_possible_to_names, answers_reach_their_callers,
     calls_leave_nothing_in_mailboxes, error_of_conversion_is_an_error_of_the_call].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_testcase(_Case, Config) -> causeway_ct:start(Config).

end_per_testcase(_Case, _Config) -> ok.

%% Calls

names_may_be_atoms_strings_or_binaries(_Config) ->
    [?assertEqual({ok, 4.0}, py:call(Module, Function, [16]))
     || Module <- [math, "math", <<"math">>], Function <- [sqrt, "sqrt", <<"sqrt">>]].

dotted_names(_Config) ->
    ?assertEqual({ok, <<"A">>}, py:call(builtins, 'str.upper', [a])),
    ?assertEqual({ok, <<"1970-01-01">>}, py:call(datetime, 'date.isoformat', [object_of("__import__('datetime').date(1970, 1, 1)")])),
    ?assertMatch({error, {'AttributeError', _}}, py:call(datetime, 'date.nothing.there', [])),
    ?assertMatch({error, {_, _}}, py:call(datetime, 'date.', [])),
    ?assertMatch({error, {_, _}}, py:call(datetime, '.', [])).

submodules_are_imported(_Config) ->
    ?assertEqual({ok, <<"a/b">>}, py:call('os.path', join, [a, b])),
    ?assertMatch({ok, _}, py:call('xml.dom.minidom', parseString, [<<"<a/>">>])).

many_arguments(_Config) ->
    [begin
         Arguments = lists:seq(1, Number),
         ?assertEqual({ok, {Arguments, #{}}}, py:call(?HELPERS, arguments, Arguments))
     end || Number <- [0, 1, 2, 15, 16, 17, 18, 255, 256, 5000]].

keyword_arguments(_Config) ->
    ?assertEqual({ok, {[1], #{<<"a">> => 2, <<"b">> => [3], <<"c">> => 4}}},
                 py:call(?HELPERS, arguments, [1], #{a => 2, <<"b">> => [3], 'c' => 4})),
    ?assertEqual({ok, {[], #{<<"sep">> => <<>>}}}, py:call(?HELPERS, arguments, [], #{sep => <<>>})),
    ?assertMatch({error, {'TypeError', _}}, py:call(?HELPERS, arguments, [], #{1 => 2})),
    ?assertMatch({error, {'TypeError', _}}, py:call(?HELPERS, identity, [], #{unknown => 2})),
    ?assertMatch({error, {_, _}}, py:call(?HELPERS, arguments, [], #{a => 1, <<"a">> => 2})).

kwargs_as_option(_Config) ->
    ?assertEqual({ok, {[], #{<<"a">> => 1}}},
                 py:call(py:context(1), ?HELPERS, arguments, [], #{kwargs => #{a => 1}, timeout => 5000})).

call_in_a_context(_Config) ->
    Context = py:context(1),
    ?assertEqual({ok, 4.0}, py:call(Context, math, sqrt, [16])),
    ?assertEqual({ok, 4.0}, py:call(Context, math, sqrt, [16], 5000)),
    ?assertEqual({ok, 4.0}, py:call(Context, math, sqrt, [16], infinity)),
    ?assertEqual({ok, 3}, py:eval(Context, <<"1 + 2">>)),
    ?assertEqual({ok, 3}, py:eval(Context, <<"1 + x">>, #{x => 2})),
    ?assertEqual({ok, 3}, py:eval(Context, <<"1 + x">>, #{x => 2}, 5000)),
    ?assertEqual(ok, py:exec(Context, <<"import math">>)),
    ?assertEqual(ok, py:exec(Context, <<"import math">>, 5000)).

%% eval and exec

eval_sees_locals(_Config) ->
    ?assertEqual({ok, [11, 12]}, py:eval(<<"[x + y for y in ys]">>, #{x => 10, <<"ys">> => [1, 2]})),
    ?assertEqual({ok, 5}, py:eval(<<"(lambda: x)()">>, #{x => 5})),
    ok = py:exec(<<"kept = 1">>),
    ?assertEqual({ok, 3}, py:eval(<<"kept + given">>, #{given => 2})),
    ?assertMatch({error, {'NameError', _}}, py:eval(<<"given">>)),
    ?assertEqual({ok, 2}, py:eval(<<"kept">>, #{kept => 2})),
    ?assertEqual({ok, 1}, py:eval(<<"kept">>)).

eval_takes_iodata(_Config) ->
    ?assertEqual({ok, 3}, py:eval("1 + 2")),
    ?assertEqual({ok, 3}, py:eval(["1", <<" + ">>, [["2"]]])),
    ?assertEqual({ok, 3}, py:eval(<<"  1 +\t2\n">>)),
    ?assertEqual({ok, <<"é"/utf8>>}, py:eval(<<"'é'"/utf8>>)),
    %% Bytes in UTF-8, and a string as Unicode has it.
    ?assertEqual({ok, <<"é"/utf8>>}, py:eval(["'", 195, 169, "'"])),
    ?assertEqual({ok, <<"é€"/utf8>>}, py:eval("'é€'")).

exec_takes_iodata(_Config) ->
    ?assertEqual(ok, py:exec("a = 1")),
    ?assertEqual(ok, py:exec(["b = ", <<"2">>, $\n])),
    ?assertEqual(ok, py:exec(<<>>)),
    ?assertEqual(ok, py:exec("")),
    ?assertEqual({ok, {1, 2}}, py:eval(<<"(a, b)">>)),
    Large = [["v", integer_to_list(N), " = ", integer_to_list(N), "\n"] || N <- lists:seq(1, 20000)],
    ?assertEqual(ok, py:exec(Large)),
    ?assertEqual({ok, 20000}, py:eval(<<"v20000">>)).

syntax_errors(_Config) ->
    ?assertMatch({error, {'SyntaxError', _}}, py:eval(<<"1 +">>)),
    ?assertMatch({error, {'SyntaxError', _}}, py:eval(<<>>)),
    ?assertMatch({error, {'SyntaxError', _}}, py:eval(<<"a = 1">>)),
    ?assertMatch({error, {'SyntaxError', _}}, py:exec(<<"def">>)),
    ?assertMatch({error, {'IndentationError', _}}, py:exec(<<"if 1:\nx = 1">>)),
    ?assertMatch({error, #{type := 'SyntaxError', message := <<_/binary>>}}, py:exec(<<"def">>, #{error => map})).

%% Errors of Python

python_error_is_a_pair(_Config) ->
    ?assertEqual({error, {'ZeroDivisionError', "division by zero"}}, py:eval(<<"1 / 0">>)),
    ?assertEqual({error, {'KeyError', "'a'"}}, py:eval(<<"{}['a']">>)),
    ?assertEqual({error, {'Complaint', "outer"}}, py:call(?HELPERS, complain, [])).

error_text_is_unicode(_Config) ->
    ?assertEqual({error, {'ValueError', "größer → 日本"}}, py:exec(<<"raise ValueError('größer → 日本')"/utf8>>)),
    ?assertMatch({error, {'ValueError', [_ | _]}}, py:exec(<<"raise ValueError('\\ud800')">>)),
    ?assertMatch({error, #{message := <<_/binary>>}}, py:exec(<<"raise ValueError('\\ud800')">>, #{error => map})).

unknown_module_and_function(_Config) ->
    {error, {'ModuleNotFoundError', ModuleText}} = py:call(no_such_module, f, []),
    ?assertNotEqual(nomatch, string:find(ModuleText, "no_such_module")),
    {error, {'AttributeError', FunctionText}} = py:call(math, no_such_function, []),
    ?assertNotEqual(nomatch, string:find(FunctionText, "no_such_function")),
    ?assertMatch({error, {'TypeError', _}}, py:call(math, pi, [])),
    ?assertMatch({error, {_, _}}, py:call('', f, [])),
    ?assertMatch({error, {_, _}}, py:call("", "", [])).

sys_exit_is_an_error(_Config) ->
    ?assertMatch({error, {'SystemExit', _}}, py:call(sys, exit, [3])),
    ?assertMatch({error, {'SystemExit', "3"}}, py:exec(<<"import sys; sys.exit(3)">>)),
    ?assertMatch({error, {'SystemExit', _}}, py:eval(<<"exit()">>)),
    ?assertEqual({ok, 1}, py:eval(<<"1">>)).

every_exception_is_an_error(_Config) ->
    [?assertMatch({error, {Type, _}}, py:exec(["raise ", atom_to_list(Type)]))
     || Type <- ['KeyboardInterrupt', 'GeneratorExit', 'StopIteration', 'BaseException', 'MemoryError',
                 'RecursionError', 'SystemExit', 'AssertionError', 'StopAsyncIteration']],
    ?assertMatch({error, {'CallInterrupted', _}}, py:exec(<<"import erlang\nraise erlang.CallInterrupted">>)),
    ?assertMatch({error, {'ExceptionGroup', _}}, py:exec(<<"raise ExceptionGroup('g', [ValueError(1)])">>)),
    ?assertMatch({error, {'TypeError', _}}, py:exec(<<"raise 1">>)).

exception_without_text(_Config) ->
    ?assertMatch({error, {'Mute', [_ | _]}}, py:call(?HELPERS, complain_mutely, [])),
    ?assertMatch({error, #{type := 'Mute', message := <<_, _/binary>>}},
                 py:call(?HELPERS, complain_mutely, [], #{}, #{error => map})),
    ?assertEqual({error, {'ValueError', ""}}, py:exec(<<"raise ValueError">>)).

exception_with_strange_name(_Config) ->
    ?assertMatch({error, {'Größe', "strange name"}}, py:call(?HELPERS, raise_named, [<<"Größe"/utf8>>])),
    Longest = binary:copy(<<"X">>, 255),
    ?assertMatch({error, {_, "strange name"}}, py:call(?HELPERS, raise_named, [Longest])),
    {error, {Type, "strange name"}} = py:call(?HELPERS, raise_named, [binary:copy(<<"X">>, 300)]),
    ?assert(is_atom(Type)),
    ?assertMatch({error, {_, _}}, py:call(?HELPERS, raise_named, [<<>>])).

new_exception_names_do_not_fill_the_atom_table(_Config) ->
    Before = erlang:system_info(atom_count),
    Code = "def raiser(n):\n    raise type('Fresh%d' % n, (KeyError,), {})(n)\n",
    ok = py:exec(Code),
    [{error, {_, _}} = py:call('__main__', raiser, [N]) || N <- lists:seq(1, 12000)],
    ?assert(erlang:system_info(atom_count) - Before < 11000),
    ?assertMatch({error, {'KeyError', _}}, py:call('__main__', raiser, [12001])).

error_as_map(_Config) ->
    {error, Error} = py:call(?HELPERS, complain_below, [2], #{}, #{error => map}),
    ?assertMatch(#{type := 'Complaint', message := <<"at the bottom">>, cause := none}, Error),
    #{traceback := Traceback} = Error,
    ?assertEqual([type, message, traceback, cause] -- maps:keys(Error), []),
    Functions = [Function || #{function := Function} <- Traceback],
    ?assertEqual([<<"complain_below">>, <<"complain_below">>, <<"complain_below">>], Functions),
    [#{code := Outermost} | _] = Traceback,
    ?assertEqual(<<"complain_below(depth - 1)">>, Outermost),
    #{file := File, line := Line, code := Code} = lists:last(Traceback),
    ?assertEqual(<<"raise Complaint(\"at the bottom\")">>, Code),
    ?assertEqual(<<"causeway_helpers.py">>, filename:basename(File)),
    ?assert(is_integer(Line) andalso Line > 0).

error_map_has_causes(_Config) ->
    [begin
         {error, Error} = py:call(py:context(1), ?HELPERS, Function, [], #{error => map}),
         ?assertMatch(#{type := 'Complaint', cause := #{type := 'KeyError', message := <<"'inner'">>, cause := none}}, Error),
         #{cause := #{traceback := [#{function := Where}]}} = Error,
         ?assertEqual(atom_to_binary(Function), Where)
     end || Function <- [complain_with_cause, complain_in_context]].

error_map_without_cause(_Config) ->
    ?assertMatch({error, #{cause := none}}, py:call(?HELPERS, complain_alone, [], #{}, #{error => map})),
    ?assertMatch({error, {'Complaint', "outer"}}, py:call(?HELPERS, complain_alone, [], #{}, #{error => pair})).

error_map_of_a_circle_of_causes(_Config) ->
    ?assertMatch({error, #{type := 'Complaint', message := <<"first">>}},
                 py:call(?HELPERS, raise_circle, [], #{}, #{error => map})).

error_map_of_deep_traceback(_Config) ->
    {error, #{traceback := Traceback}} = py:call(?HELPERS, complain_below, [900], #{}, #{error => map}),
    ?assertEqual(<<"raise Complaint(\"at the bottom\")">>, maps:get(code, lists:last(Traceback))).

error_map_from_eval_and_exec(_Config) ->
    ?assertMatch({error, #{type := 'ZeroDivisionError', traceback := [#{line := 1}]}},
                 py:eval(<<"1 / 0">>, #{}, #{error => map})),
    ?assertMatch({error, #{type := 'ZeroDivisionError', traceback := [#{line := 2, function := <<"<module>">>}]}},
                 py:exec(<<"x = 1\nx / 0">>, #{error => map})),
    ?assertMatch({error, #{type := 'NameError'}}, py:eval(py:context(1), <<"absent">>, #{}, #{error => map})),
    ?assertMatch({error, #{type := 'NameError'}}, py:exec(py:context(1), <<"absent">>, #{error => map})),
    ?assertEqual({error, timeout}, py:exec(<<"while True: pass">>, #{error => map, timeout => 50})).

deep_recursion_is_an_error(_Config) ->
    ok = py:exec(<<"def down(n): return down(n + 1)">>),
    ?assertMatch({error, {'RecursionError', _}}, py:call('__main__', down, [0])),
    ?assertMatch({error, #{type := 'RecursionError'}}, py:call('__main__', down, [0], #{}, #{error => map})),
    ok = py:exec(<<"class Deep:\n    def __repr__(self): return repr(self)\n    def __getattr__(self, name): return getattr(self, name)\n">>),
    ?assertMatch({error, {'RecursionError', _}}, py:eval(<<"repr(Deep())">>)),
    ?assertMatch({error, {'RecursionError', _}}, py:eval(<<"Deep().anything">>)).

timeout_zero(_Config) ->
    ?assertEqual({error, timeout}, py:call(?HELPERS, loop, [self()], #{}, 0)),
    ?assertEqual({error, timeout}, py:eval(<<"[0 for _ in iter(int, 1)]">>, #{}, 0)).

%% Wrong use

wrong_timeouts(_Config) ->
    [?assertMatch({error, {badarg, <<_, _/binary>>}}, Result)
     || Wrong <- [-1, soon, 1.5, 1 bsl 32, [], <<"1">>, {1}],
        Result <- [py:call(math, sqrt, [16], #{}, Wrong), py:call(py:context(1), math, sqrt, [16], Wrong),
                   py:eval(<<"1">>, #{}, Wrong), py:eval(py:context(1), <<"1">>, #{}, Wrong),
                   py:exec(py:context(1), <<"1">>, Wrong), py:await(make_ref(), Wrong)]].

wrong_options(_Config) ->
    [?assertMatch({error, {badarg, <<_, _/binary>>}}, py:call(math, sqrt, [16], #{}, Options))
     || Options <- [#{unknown => 1}, #{error => text}, #{timeout => -1}, #{kwargs => []}, #{timeout => #{}},
                    #{"timeout" => 1}]].

wrong_modules_and_functions(_Config) ->
    [?assertMatch({error, {badarg, <<_, _/binary>>}}, py:call(Wrong, sqrt, [16])) || Wrong <- [1, {a}, #{}, 1.0]],
    [?assertMatch({error, {badarg, <<_, _/binary>>}}, py:call(math, Wrong, [16])) || Wrong <- [1, self(), #{}]],
    [?assertMatch({error, {_, _}}, py:call(Wrong, sqrt, [16]))
     || Wrong <- [[a, b], [-1], [16#d800], [16#110000], <<255>>, [1 | 2], <<1:3>>, <<>>]],
    [?assertMatch({error, {_, _}}, py:call(math, Wrong, [16])) || Wrong <- [[foo], <<255, 254>>, <<5:7>>, [$a | b]]].

wrong_arguments(_Config) ->
    [?assertMatch({error, {badarg, <<_, _/binary>>}}, py:call(math, sqrt, Wrong)) || Wrong <- [16, {16}, <<"a">>, #{}]],
    ?assertMatch({error, {'TypeError', _}}, py:call(math, sqrt, [16 | 17])),
    ?assertMatch({error, {'TypeError', _}}, py:call(math, sqrt, lists:seq(1, 30) ++ 31)),
    ?assertMatch({error, {_, _}}, py:call(?HELPERS, arguments, [16 | 17], #{a => 1})),
    [?assertMatch({error, {badarg, <<_, _/binary>>}}, py:call(math, sqrt, [16], Wrong)) || Wrong <- [[], a, 1]],
    [?assertMatch({error, {badarg, _}}, py:cast(math, sqrt, Wrong)) || Wrong <- [16, a]],
    [?assertMatch({error, {badarg, _}}, py:spawn_call(math, sqrt, Wrong)) || Wrong <- [16, a]].

wrong_code(_Config) ->
    [?assertMatch({error, {badarg, <<_, _/binary>>}}, Result)
     || Wrong <- [1, {a}, atom, 1.0], Result <- [py:eval(Wrong), py:exec(Wrong)]],
    [?assertMatch({error, {_, _}}, Result)
     || Wrong <- [<<255, 255>>, [a], [[1 | 2]], <<1:3>>, ["1", {}], [16#110000], [-1]], Result <- [py:eval(Wrong), py:exec(Wrong)]].

wrong_locals(_Config) ->
    [?assertMatch({error, {badarg, <<_, _/binary>>}}, py:eval(<<"1">>, Wrong)) || Wrong <- [[], a, 1, [{x, 1}]]],
    ?assertMatch({error, {'ValueError', _}}, py:eval(<<"x">>, #{x => [1 | 2]})),
    [?assertMatch({Tag, _} when Tag =:= ok; Tag =:= error, py:eval(<<"1">>, Locals)) || Locals <- [#{1 => 2}, #{{} => 1}, #{[] => 1}]].

names_with_null_bytes(_Config) ->
    ?assertMatch({error, {_, _}}, py:call(<<"ma", 0, "th">>, sqrt, [16])),
    ?assertMatch({error, {_, _}}, py:call(math, <<"sqrt", 0>>, [16])),
    ?assertMatch({error, {_, _}}, py:exec(<<"null_a = 1", 0, "\nnull_b = 1">>)),
    ?assertMatch({error, {_, _}}, py:eval(<<"1", 0, " + 2">>)),
    ?assertEqual({ok, <<"a", 0, "b">>}, py:eval(<<"'a\\0b'">>)).

%% Contexts that are not there

unknown_context(_Config) ->
    ?assertMatch({error, {no_context, <<_, _/binary>>}}, py:call(self(), math, sqrt, [16])),
    ?assertMatch({error, {no_context, <<_, _/binary>>}}, py:call(whereis(py_contexts), math, sqrt, [16])).

dead_context(_Config) ->
    Context = dead(),
    {error, {no_context, Text}} = py:call(Context, math, sqrt, [16]),
    ?assertNotEqual(nomatch, string:find(Text, "py:context")).

dead_context_in_every_function(_Config) ->
    Context = dead(),
    [?assertMatch({error, {no_context, _}}, Result)
     || Result <- [py:call(Context, math, sqrt, [16], 10), py:eval(Context, <<"1">>), py:eval(Context, <<"1">>, #{}),
                   py:eval(Context, <<"1">>, #{}, 10), py:exec(Context, <<"1">>), py:exec(Context, <<"1">>, 10),
                   py:cast(Context, math, sqrt, [16]), py:spawn_call(Context, math, sqrt, [16])]].

context_stops_during_call(_Config) ->
    Context = new_context(),
    Reference = py:spawn_call(Context, ?HELPERS, loop, [self()]),
    ok = causeway_ct:expect(<<"running">>),
    Queued = py:spawn_call(Context, math, sqrt, [16]),
    ok = py:cast(Context, math, sqrt, [16]),
    ok = py_context:stop(Context),
    ?assertMatch({error, {context_stopped, <<_, _/binary>>}}, py:await(Reference)),
    ?assertMatch({error, {context_stopped, <<_, _/binary>>}}, py:await(Queued)),
    ?assertEqual([], causeway_ct:mailbox()).

%% cast and spawn_call

cast_has_its_effect(_Config) ->
    ?assertEqual(ok, py:cast(?HELPERS, tell, [self(), {cast, 1}])),
    ok = causeway_ct:expect({<<"cast">>, 1}),
    ?assertEqual(ok, py:cast(?HELPERS, tell, [self()], #{term => 2})),
    ok = causeway_ct:expect(2),
    ?assertEqual([], causeway_ct:mailbox()).

cast_in_context(_Config) ->
    ?assertEqual(ok, py:cast(py:context(1), ?HELPERS, tell, [self(), here])),
    ok = causeway_ct:expect(<<"here">>).

failing_cast_harms_nobody(_Config) ->
    Context = py:context(1),
    ?assertEqual(ok, py:cast(Context, ?HELPERS, complain, [])),
    ?assertEqual(ok, py:cast(Context, no_such_module, complain, [])),
    ?assertEqual({ok, 1}, py:eval(Context, <<"1">>)),
    ?assertEqual([], causeway_ct:mailbox()).

spawn_call_and_await(_Config) ->
    Reference = py:spawn_call(math, sqrt, [16]),
    ?assert(is_reference(Reference)),
    ?assertEqual({ok, 4.0}, py:await(Reference)),
    ?assertMatch({error, {'Complaint', "outer"}}, py:await(py:spawn_call(?HELPERS, complain, []))).

await_in_any_order(_Config) ->
    References = [{N, py:spawn_call(?HELPERS, identity, [N])} || N <- lists:seq(1, 1000)],
    [?assertEqual({ok, N}, py:await(Reference)) || {N, Reference} <- lists:reverse(References)],
    ?assertEqual([], causeway_ct:mailbox()).

await_again_after_timeout(_Config) ->
    {ok, none} = py:call(?HELPERS, close_gate, []),
    Reference = py:spawn_call(py:context(1), ?HELPERS, wait_at_gate, [self()]),
    ok = causeway_ct:expect(<<"running">>),
    ?assertEqual({error, timeout}, py:await(Reference, 0)),
    ?assertEqual({error, timeout}, py:await(Reference, 20)),
    {ok, none} = py:call(?HELPERS, open_gate, []),
    ?assertEqual({ok, <<"passed">>}, py:await(Reference, 10000)).

await_only_once(_Config) ->
    Reference = py:spawn_call(math, sqrt, [16]),
    {ok, _} = py:await(Reference),
    ?assertMatch({error, {unknown_call, <<_, _/binary>>}}, py:await(Reference, 0)).

await_needs_own_reference(_Config) ->
    Reference = py:spawn_call(math, sqrt, [16]),
    Other = in_process(fun() -> py:await(Reference, 100) end),
    ?assertMatch({error, {unknown_call, _}}, Other),
    ?assertMatch({error, {unknown_call, _}}, py:await(make_ref(), 0)),
    [?assertMatch({error, {badarg, _}}, py:await(Wrong)) || Wrong <- [a, self(), {error, x}, 1]],
    ?assertEqual({ok, 4.0}, py:await(Reference)).

spawn_call_with_kwargs_and_context(_Config) ->
    Named = py:spawn_call(?HELPERS, arguments, [1], #{b => 2}),
    InContext = py:spawn_call(py:context(1), ?HELPERS, arguments, [3]),
    ?assertEqual({ok, {[3], #{}}}, py:await(InContext)),
    ?assertEqual({ok, {[1], #{<<"b">> => 2}}}, py:await(Named)).

spawner_dies(_Config) ->
    Test = self(),
    Context = py:context(1),
    {Spawner, Monitor} = spawn_monitor(fun() ->
                                               _ = py:spawn_call(Context, ?HELPERS, loop_and_tell, [Test]),
                                               receive stop -> ok end
                                       end),
    ok = causeway_ct:expect(<<"running">>),
    Spawner ! stop,
    ok = causeway_ct:expect({'DOWN', Monitor, process, Spawner, normal}),
    ok = causeway_ct:expect(<<"CallInterrupted">>),
    ?assertEqual({ok, 1}, py:eval(Context, <<"1">>)).

%% The pool

version_is_of_this_python(_Config) ->
    {ok, Version} = py:version(),
    ?assertEqual({ok, Version}, py:eval(<<"__import__('sys').version">>)).

contexts_by_index(_Config) ->
    ?assert(is_pid(py:context())),
    ?assert(py:contexts_started()),
    ?assert(is_pid(py:context(1))),
    ?assertEqual(py:context(1), py:context(1)),
    [?assertMatch({error, {no_context, <<_, _/binary>>}}, py:context(Wrong)) || Wrong <- [0, -1, 10000, one]].

start_contexts_adds(_Config) ->
    {ok, Before} = py:start_contexts(2),
    {ok, More} = py:start_contexts(5),
    ?assertEqual(5, length(More)),
    ?assert(lists:prefix(Before, More)),
    ?assertEqual(lists:last(More), py:context(5)),
    ?assertEqual({ok, 4.0}, py:call(py:context(5), math, sqrt, [16])).

wrong_number_of_contexts(_Config) ->
    [?assertMatch({error, {badarg, <<_, _/binary>>}}, py:start_contexts(Wrong)) || Wrong <- [0, -1, many, 1.0]].

stop_contexts_and_start_again(_Config) ->
    Old = py:context(1),
    ok = py:stop_contexts(),
    ?assertEqual(false, py:contexts_started()),
    ?assertEqual(false, is_process_alive(Old)),
    {error, {no_context, Text}} = py:call(math, sqrt, [16]),
    ?assertNotEqual(nomatch, string:find(Text, "start_contexts")),
    [?assertMatch({error, {no_context, _}}, Result)
     || Result <- [py:context(), py:context(1), py:eval(<<"1">>), py:exec(<<"1">>), py:cast(math, sqrt, [16]),
                   py:spawn_call(math, sqrt, [16])]],
    {ok, [New | _]} = py:start_contexts(),
    ?assertEqual(New, py:context(1)),
    ?assertEqual({ok, 4.0}, py:call(math, sqrt, [16])).

%% Descriptors

dup_fd(_Config) ->
    {ok, {Read, Write}} = py:call(os, pipe, []),
    {ok, Copy} = py:dup_fd(Write),
    ?assert(Copy =/= Write),
    {ok, none} = py:call(os, close, [Write]),
    {ok, 5} = py:call(os, write, [Copy, {bytes, <<"hello">>}]),
    {ok, none} = py:call(os, close, [Copy]),
    ?assertEqual({ok, <<"hello">>}, py:call(os, read, [Read, 100])),
    ?assertEqual({ok, <<>>}, py:call(os, read, [Read, 100])),
    {ok, none} = py:call(os, close, [Read]).

dup_fd_is_close_on_exec(_Config) ->
    {ok, Copy} = py:dup_fd(0),
    ?assertEqual({ok, false}, py:call(os, get_inheritable, [Copy])),
    {ok, none} = py:call(os, close, [Copy]).

dup_fd_errors(_Config) ->
    [?assertEqual({error, ebadf}, py:dup_fd(Wrong)) || Wrong <- [999999, -1, 1 bsl 31, 1 bsl 70, -(1 bsl 70)]],
    [?assertMatch({error, _}, py:dup_fd(Wrong)) || Wrong <- [a, <<"1">>, 1.0, self()]].

%% send and whereis

send_and_whereis(_Config) ->
    true = register(?MODULE, self()),
    ok = py:exec(<<"import erlang">>),
    ?assertEqual({ok, none}, py:eval(<<"erlang.send(erlang.whereis('py_call_SUITE'), ('hello', 1, [2.5, None]))">>)),
    ok = causeway_ct:expect({<<"hello">>, 1, [2.5, none]}),
    ?assertEqual({ok, none}, py:eval(<<"erlang.whereis('nobody is called this')">>)),
    ?assertEqual({ok, self()}, py:eval(<<"erlang.whereis('py_call_SUITE')">>)),
    unregister(?MODULE).

send_errors(_Config) ->
    ok = py:exec(<<"import erlang">>),
    ?assertMatch({error, {'TypeError', _}}, py:eval(<<"erlang.send(1, 2)">>)),
    ?assertMatch({error, {'TypeError', _}}, py:eval(<<"erlang.send(1)">>)),
    ?assertMatch({error, {'TypeError', _}}, py:eval(<<"erlang.send()">>)),
    ?assertMatch({error, {'TypeError', _}}, py:eval(<<"erlang.whereis(1)">>)),
    ?assertMatch({error, {'TypeError', _}}, py:eval(<<"erlang.send(ref, 1)">>, #{ref => make_ref()})),
    ok = py:exec(<<"circle = []\ncircle.append(circle)">>),
    ?assertMatch({error, {'ValueError', _}}, py:eval(<<"erlang.send(me, circle)">>, #{me => self()})),
    ?assertEqual({ok, none}, py:eval(<<"erlang.send(dead, 1)">>, #{dead => dead()})),
    ?assertMatch({error, {'TypeError', _}}, py:eval(<<"erlang.Pid()">>)).

send_is_not_possible_to_names(_Config) ->
    ok = py:exec(<<"import erlang">>),
    ?assertMatch({error, {_, [_ | _]}}, py:eval(<<"erlang.send('py_contexts', 1)">>)),
    Far = binary_to_term(<<131, 88, 100, 0, 13, "far@elsewhere", 1:32, 0:32, 1:32>>),
    ?assertMatch({error, {'ValueError', _}}, py:eval(<<"erlang.send(far, 1)">>, #{far => Far})),
    ?assertEqual({ok, Far}, py:eval(<<"far">>, #{far => Far})).

%% Many at once

answers_reach_their_callers(_Config) ->
    Test = self(),
    Callers = [spawn_monitor(fun() -> Test ! {self(), [ask(Number, Round) || Round <- lists:seq(1, 200)]} end)
               || Number <- lists:seq(1, 64)],
    [begin
         receive {Caller, Answers} -> ?assertEqual([true], lists:usort(Answers)) end,
         receive {'DOWN', Monitor, process, Caller, Reason} -> ?assertEqual(normal, Reason) end
     end || {Caller, Monitor} <- Callers].

ask(Number, Round) ->
    {ok, {Number, Round}} =:= py:call(?HELPERS, identity, [{Number, Round}])
        andalso {ok, Number + Round} =:= py:eval(<<"a + b">>, #{a => Number, b => Round}).

calls_leave_nothing_in_mailboxes(_Config) ->
    [py:call(?HELPERS, complain, []) || _ <- lists:seq(1, 100)],
    [py:eval(<<"1">>, #{}, 0) || _ <- lists:seq(1, 1000)],
    [py:eval(<<"1">>, #{}, 1) || _ <- lists:seq(1, 1000)],
    {ok, _} = py:eval(<<"1">>),
    ?assertEqual([], causeway_ct:mailbox()).

error_of_conversion_is_an_error_of_the_call(_Config) ->
    ?assertMatch({error, {'ValueError', _}}, py:call(?HELPERS, identity, [[1 | 2]])),
    ?assertMatch({error, {'ValueError', _}}, py:call(?HELPERS, self_list, [])),
    ?assertMatch({error, #{type := 'ValueError', message := <<_, _/binary>>}},
                 py:call(?HELPERS, self_list, [], #{}, #{error => map})).

%% Helpers

object_of(Expression) ->
    {ok, Object} = py:eval(Expression),
    Object.

new_context() ->
    {ok, Context} = py_context:start_link(#{}),
    Context.

dead() ->
    Context = new_context(),
    ok = py_context:stop(Context),
    Context.

in_process(Fun) ->
    Test = self(),
    {Process, Monitor} = spawn_monitor(fun() -> Test ! {self(), Fun()} end),
    receive
        {Process, Result} ->
            demonitor(Monitor, [flush]),
            Result;
        {'DOWN', Monitor, process, Process, Reason} ->
            error(Reason)
    end.
