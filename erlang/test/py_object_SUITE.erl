%% @doc Python objects by reference, and what Python tells about its memory.
-module(py_object_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-define(HELPERS, object_helpers).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [call_method, call_method_with_options, method_errors, getattr, getattr_errors, is_ref, is_ref_without_core,
     result_as_reference, result_of_other_requests, to_term, to_term_without_form, references_in_containers,
     reference_in_another_process, end_is_told, freed_beside_a_busy_context, dropped_in_the_caller_of_a_long_call,
     many_references, external_term, other_interpreter, stopped_context, stopped_application,
     busy_pool, wrong_options, numpy_array,
     memory_stats, memory_stats_of_references, namespaces, gc, gc_errors, tracemalloc, tracemalloc_errors,
     reload, reload_errors, reload_of_a_package, reload_while_it_is_called].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

end_per_testcase(_Case, _Config) ->
    ?assertEqual([], causeway_ct:mailbox()).

%% Methods and attributes

call_method(_Config) ->
    Point = point(3),
    {ok, Moved} = py:call_method(Point, moved, [4]),
    ?assertEqual({ok, 7}, py:getattr(Moved, x)),
    {ok, Further} = py:call_method(Point, "moved", [4], #{times => 2}),
    ?assertEqual({ok, 11}, py:getattr(Further, <<"x">>)),
    ?assertEqual({ok, true}, py:call_method(Point, same, [Point])),
    ?assertEqual({ok, <<"3">>}, py:call_method(Point, 'x.__str__', [])),
    ?assertEqual({ok, lists:seq(0, 19)}, py:call_method(list_of([]), '__add__', [lists:seq(0, 19)])).

call_method_with_options(_Config) ->
    Point = point(1),
    {ok, X} = py:call_method(Point, '__getattribute__', [x], #{}, #{result => ref}),
    ?assertEqual({true, {ok, 1}}, {py:is_ref(X), py:to_term(X)}),
    Context = py:context(1),
    {ok, _} = py:call_method(Point, moved, [1], #{}, #{context => Context, timeout => 5000}),
    {ok, _} = py:call_method(Point, moved, [1], #{}, 5000),
    {ok, Time} = py:call(importlib, import_module, [time]),
    ?assertEqual({error, timeout}, py:call_method(Time, sleep, [100], #{}, 20)),
    ?assertMatch({error, #{type := 'KeyError', traceback := [#{function := <<"complain">>} | _]}},
                 py:call_method(Point, complain, [], #{}, #{error => map})).

method_errors(_Config) ->
    Point = point(1),
    ?assertEqual({error, {'KeyError', "1"}}, py:call_method(Point, complain, [])),
    ?assertEqual({error, {'AttributeError', "'Point' object has no attribute 'absent'"}},
                 py:call_method(Point, absent, [])),
    ?assertMatch({error, {'TypeError', _}}, py:call_method(Point, x, [])),
    ?assertMatch({error, {'TypeError', _}}, py:call_method(Point, moved, [])),
    ?assertMatch({error, {'TypeError', _}}, py:call_method(Point, moved, [1], #{often => 2})),
    [?assertMatch({error, {badarg, <<_, _/binary>>}}, py:call_method(Ref, Name, Args, Kwargs))
     || {Ref, Name, Args, Kwargs} <- [{make_ref(), moved, [1], #{}}, {self(), moved, [1], #{}}, {3, moved, [1], #{}},
                                      {Point, 3, [1], #{}}, {Point, moved, 1, #{}}, {Point, moved, [1], []}]],
    ?assertMatch({error, {'TypeError', _}}, py:call_method(Point, moved, [1 | 2])),
    ?assertMatch({error, {'TypeError', _}}, py:call_method(Point, <<255>>, [])).

getattr(_Config) ->
    Point = point(5),
    ?assertEqual({ok, 5}, py:getattr(Point, x)),
    ?assertEqual({ok, <<"point">>}, py:getattr(Point, 'kind')),
    ?assertEqual({ok, <<"Point">>}, py:getattr(Point, '__class__.__name__')),
    {ok, Method} = py:getattr(Point, moved),
    ?assert(py:is_ref(Method)),
    {ok, Moved} = py:call_method(Method, '__call__', [2]),
    ?assertEqual({ok, 7}, py:getattr(Moved, x, 5000)),
    {ok, Kind} = py:getattr(Point, kind, #{result => ref}),
    ?assertEqual({ok, <<"POINT">>}, py:call_method(Kind, upper, [])),
    %% An attribute with a dot in its name is found before its parts are.
    {ok, none} = py:call(builtins, setattr, [Point, <<"x.real">>, <<"dotted">>]),
    ?assertEqual({ok, <<"dotted">>}, py:getattr(Point, 'x.real')).

getattr_errors(_Config) ->
    Point = point(5),
    ?assertEqual({error, {'AttributeError', "'Point' object has no attribute 'absent'"}}, py:getattr(Point, absent)),
    ?assertEqual({error, {'AttributeError', "'int' object has no attribute 'absent'"}}, py:getattr(Point, 'x.absent')),
    ?assertEqual({error, {'OSError', "no such luck"}}, py:getattr(Point, broken)),
    ?assertMatch({error, {badarg, _}}, py:getattr(Point, 7)),
    ?assertMatch({error, {badarg, _}}, py:getattr(make_ref(), x)).

is_ref(_Config) ->
    Point = point(1),
    Call = py:spawn_call(math, sqrt, [4]),
    {ok, Python} = py:eval("__import__('erlang').self()"),
    ?assertEqual(self(), Python),
    ?assert(py:is_ref(Point)),
    {ok, Native} = py_call:native(py:context(1)),
    [?assertNot(py:is_ref(Term)) || Term <- [Call, Native, make_ref(), self(), 1, 1.5, a, <<"a">>, [], [Point], {Point},
                                             #{Point => Point}, fun() -> Point end, <<1:3>>, 1 bsl 100]],
    {ok, 2.0} = py:await(Call),
    ok.

%% In a node that never loads the core.
is_ref_without_core(_Config) ->
    Code = "false = py:is_ref(make_ref()), false = py:is_ref(a), io:put_chars(\"fine\"), halt(0).",
    ?assertEqual({0, <<"fine">>}, causeway_ct:run_node(Code, [])).

%% References to what could be converted

result_as_reference(_Config) ->
    {ok, Dict} = py:call(builtins, dict, [], #{a => 1}, #{result => ref}),
    ?assert(py:is_ref(Dict)),
    {ok, none} = py:call_method(Dict, update, [#{<<"b">> => [2]}]),
    ?assertEqual({ok, #{<<"a">> => 1, <<"b">> => [2]}}, py:to_term(Dict)),
    {ok, List} = py:eval("[n, n + 1]", #{n => 1}, #{result => ref}),
    {ok, Same} = py:call(?HELPERS, is_same, [List, List]),
    ?assertEqual({true, {ok, [1, 2]}}, {Same, py:to_term(List)}),
    {ok, InContext} = py:call(py:context(1), builtins, list, [], #{result => ref}),
    {ok, none} = py:call_method(InContext, append, [1]),
    {ok, [1]} = py:to_term(InContext),
    {ok, Evaluated} = py:eval(py:context(1), "None", #{}, #{result => ref}),
    ?assertEqual({true, {ok, none}}, {py:is_ref(Evaluated), py:to_term(Evaluated)}),
    ?assertEqual({ok, 1}, py:eval("1", #{}, #{result => term})).

result_of_other_requests(_Config) ->
    ?assertEqual(ok, py:exec("pass", #{result => ref})),
    ?assertEqual({error, {'ZeroDivisionError', "division by zero"}}, py:eval("1 / 0", #{}, #{result => ref})),
    ?assertMatch({error, {badarg, _}}, py:eval("1", #{}, #{result => reference})),
    {ok, Range} = py:eval("range(3)", #{}, #{result => ref}),
    ?assertEqual({ok, [0, 1, 2]}, py:stream(builtins, iter, [Range])).

to_term(_Config) ->
    Terms = [1, 1.5, <<"text">>, [1, [2]], {1, <<"two">>}, #{<<"k">> => #{}}, 1 bsl 100, none, true, self(), make_ref()],
    [begin
         {ok, Ref} = py:eval("x", #{x => Term}, #{result => ref}),
         ?assertEqual({true, {ok, Term}}, {py:is_ref(Ref), py:to_term(Ref)})
     end || Term <- Terms],
    %% What is at first a reference, and has a form when it is asked again.
    {ok, Set} = py:eval("{1}", #{}, #{result => ref}),
    ?assertEqual({ok, [1]}, py:to_term(Set, 5000)),
    ?assertEqual({ok, [1]}, py:to_term(Set, #{context => py:context(1)})),
    {ok, Word} = py:call(?HELPERS, 'Word', [<<"w">>], #{}, #{result => ref}),
    ?assertEqual({ok, <<"w">>}, py:to_term(Word)),
    %% Within a container it stays one.
    {ok, Listed} = py:eval("[p]", #{p => point(1)}, #{result => ref}),
    {ok, [Inner]} = py:to_term(Listed),
    ?assertEqual({ok, 1}, py:getattr(Inner, x)).

to_term_without_form(_Config) ->
    {error, {not_convertible, Text}} = py:to_term(point(1)),
    ?assertNotEqual(nomatch, binary:match(Text, <<"Point">>)),
    {ok, Generator} = py:eval("iter([])"),
    ?assertMatch({error, {not_convertible, _}}, py:to_term(Generator)),
    {ok, Circle} = py:eval("(lambda l: l.append(l) or l)([])", #{}, #{result => ref}),
    ?assertMatch({error, {'ValueError', _}}, py:to_term(Circle)),
    {ok, Surrogate} = py:eval("'\\ud800'", #{}, #{result => ref}),
    ?assertMatch({error, {'UnicodeEncodeError', _}}, py:to_term(Surrogate)),
    ?assertMatch({error, {badarg, _}}, py:to_term(make_ref())),
    ?assertMatch({error, {badarg, _}}, py:to_term([1])).

references_in_containers(_Config) ->
    Point = point(1),
    ?assertEqual({ok, true}, py:call(?HELPERS, all_same, [Point, [Point, #{<<"in">> => {Point}, Point => Point}]])),
    {ok, Hidden} = py:call(?HELPERS, hide, [Point]),
    ?assertEqual({ok, true}, py:call(?HELPERS, is_same, [Point, hd(Hidden)])),
    ?assertEqual({ok, true}, py:eval("a is b[0]['in'][0]", #{a => Point, b => tl([x | tl(Hidden)])})),
    ?assertEqual({ok, true}, py:call(?HELPERS, is_same, [], #{first => Point, second => Point})).

%% Their life

reference_in_another_process(_Config) ->
    Self = self(),
    {Holder, Monitor} = spawn_monitor(fun() ->
                                              Ref = receive {hold, Given} -> Given end,
                                              Self ! {held, py:call_method(Ref, same, [Ref])},
                                              receive release -> ok end,
                                              %% Until now it was needed.
                                              true = py:is_ref(Ref)
                                      end),
    in_process(fun() ->
                       {ok, Ref} = py:call(?HELPERS, tell_when_gone, [Self, <<"gone">>]),
                       Holder ! {hold, Ref}
               end),
    ok = causeway_ct:expect({held, {ok, true}}),
    {ok, _} = py:gc(),
    ?assertEqual([], causeway_ct:mailbox()),
    Holder ! release,
    ok = causeway_ct:expect({'DOWN', Monitor, process, Holder, normal}),
    ok = causeway_ct:expect(<<"gone">>).

%% Nobody calls Python meanwhile: the context is woken.
end_is_told(_Config) ->
    Self = self(),
    in_process(fun() -> {ok, _} = py:call(?HELPERS, tell_when_gone, [Self, <<"gone">>]) end),
    ok = causeway_ct:expect(<<"gone">>).

%% One context may calculate for hours: another frees what is dropped.
freed_beside_a_busy_context(_Config) ->
    {ok, Contexts} = py:start_contexts(2),
    Self = self(),
    [begin
         Loop = py:spawn_call(Busy, causeway_helpers, loop, [Self]),
         ok = causeway_ct:expect(<<"running">>),
         in_process(fun() -> {ok, _} = py:call(?HELPERS, tell_when_gone, [Self, <<"gone">>]) end),
         ok = causeway_ct:expect(<<"gone">>),
         ?assertEqual({error, timeout}, py:await(Loop, 0)),
         ok = py:interrupt(Busy),
         ?assertMatch({error, {'CallInterrupted', _}}, py:await(Loop))
     end || Busy <- Contexts].

%% With one context, which is in the middle of a call: freed after it.
dropped_in_the_caller_of_a_long_call(_Config) ->
    Self = self(),
    ok = py:stop_contexts(),
    {ok, [_]} = py:start_contexts(1),
    {ok, none} = py:call(causeway_helpers, close_gate, []),
    {Holder, Monitor} = spawn_monitor(fun() ->
                                              {ok, Ref} = py:call(?HELPERS, tell_when_gone, [Self, <<"gone">>]),
                                              Self ! ready,
                                              receive stop -> true = py:is_ref(Ref) end
                                      end),
    ok = causeway_ct:expect(ready),
    Waiting = py:spawn_call(causeway_helpers, loop, [Self]),
    ok = causeway_ct:expect(<<"running">>),
    Holder ! stop,
    ok = causeway_ct:expect({'DOWN', Monitor, process, Holder, normal}),
    ?assertEqual([], causeway_ct:mailbox()),
    ok = py:interrupt(py:context(1)),
    ?assertMatch({error, {'CallInterrupted', _}}, py:await(Waiting)),
    ok = causeway_ct:expect(<<"gone">>),
    {ok, _} = py:start_contexts(),
    ok.

many_references(_Config) ->
    ok = make_and_drop(20000),
    Before = causeway_ct:rss(),
    [ok = make_and_drop(20000) || _ <- lists:seq(1, 5)],
    %% An object of Python alone has some 50 bytes, so that 100,000 that stay would be more than 5 MB.
    ok = causeway_ct:settled(fun causeway_ct:rss/0, Before + 4 bsl 20).

make_and_drop(Number) ->
    in_process(fun() ->
                       Refs = [begin {ok, Ref} = py:call(?HELPERS, track, [N]), Ref end || N <- lists:seq(1, Number)],
                       {ok, #{references := Held}} = py:memory_stats(),
                       true = Held >= Number,
                       {ok, Number} = py:getattr(lists:last(Refs), x)
               end),
    ok = causeway_ct:wait_until(fun() -> {ok, 0} =:= py:call(?HELPERS, number_of_tracked, []) end),
    causeway_ct:wait_until(fun() -> references() < Number end).

external_term(_Config) ->
    Self = self(),
    in_process(fun() ->
                       {ok, Ref} = py:call(?HELPERS, tell_when_gone, [Self, <<"gone">>]),
                       External = term_to_binary(Ref),
                       Back = binary_to_term(External),
                       ?assert(py:is_ref(Back)),
                       ?assertEqual({ok, true}, py:call_method(Ref, same, [Back])),
                       ?assertEqual({ok, 0}, py:getattr(Back, x)),
                       ?assert(py:is_ref(Ref)),
                       Self ! {external, External}
               end),
    ok = causeway_ct:expect(<<"gone">>),
    Late = receive {external, External} -> binary_to_term(External) end,
    ?assert(is_reference(Late)),
    ?assertNot(py:is_ref(Late)),
    [?assertMatch({error, {badarg, _}}, Result)
     || Result <- [py:getattr(Late, x), py:call_method(Late, moved, [1]), py:to_term(Late)]],
    ?assertEqual({ok, <<"Ref">>}, py:eval("type(r).__name__", #{r => Late})),
    ?assertEqual({ok, Late}, py:eval("r", #{r => Late})).

%% Modules have their objects in each interpreter.
other_interpreter(_Config) ->
    Point = point(1),
    Modes = [subinterp | [owngil || {ok, true} =:= py:eval("__import__('sys').version_info >= (3, 12)")]],
    [other_interpreter(Mode, Point) || Mode <- Modes].

other_interpreter(Mode, Point) ->
    {ok, Other} = py_context:start_link(#{mode => Mode}),
    Options = #{context => Other, timeout => 10000},
    {ok, none} = py:call(Other, sys, 'path.insert', [0, causeway_ct:python_dir()]),
    [?assertMatch({error, {'ValueError', "a reference to an object of another Python interpreter" ++ _}}, Result)
     || Result <- [py:getattr(Point, x, Options), py:call_method(Point, moved, [1], #{}, Options),
                   py:to_term(Point, Options), py:call(Other, builtins, id, [Point]),
                   py:call(Other, builtins, dict, [[{1, [#{Point => 1}]}]]), py:eval(Other, "p", #{p => Point}),
                   py:stream(Other, builtins, iter, [Point])]],
    {ok, Own} = py:call(Other, ?HELPERS, 'Point', [7]),
    ?assertEqual([true, true], [py:is_ref(Ref) || Ref <- [Own, Point]]),
    ?assertEqual([{ok, 7}, {ok, 7}], [py:getattr(Own, x), py:getattr(Own, x, Options)]),
    ?assertEqual({ok, true}, py:call_method(Own, same, [Own], #{}, Options)),
    ?assertMatch({ok, #{references := 1, tracing := false}}, py:memory_stats(Options)),
    ?assertMatch({error, {Type, _}} when Type =:= 'ImportError'; Type =:= 'RuntimeError', py:tracemalloc_top(1, Options)),
    ?assertMatch({ok, _}, py:gc(2, Options)),
    %% A reference may outlive its context.
    ok = py_context:stop(Other),
    ?assertMatch({error, {context_stopped, _}}, py:getattr(Own, x)),
    ?assertEqual({ok, 1}, py:getattr(Point, x)),
    ?assert(py:is_ref(Own)).

stopped_context(_Config) ->
    {ok, Own} = py_context:start_link(#{}),
    {ok, Ref} = py:call(Own, ?HELPERS, 'Point', [9], #{timeout => 5000}),
    ok = py_context:stop(Own),
    ?assertEqual({ok, 9}, py:getattr(Ref, x)),
    ?assertMatch({error, {no_context, _}}, py:getattr(Ref, x, #{context => Own})).

stopped_application(_Config) ->
    Self = self(),
    Point = point(4),
    {Holder, Monitor} = spawn_monitor(fun() ->
                                              {ok, Ref} = py:call(?HELPERS, tell_when_gone, [Self, <<"gone">>]),
                                              Self ! ready,
                                              receive stop -> true = py:is_ref(Ref) end
                                      end),
    ok = causeway_ct:expect(ready),
    ok = application:stop(causeway),
    ?assert(py:is_ref(Point)),
    [?assertMatch({error, {no_context, _}}, Result)
     || Result <- [py:getattr(Point, x), py:call_method(Point, moved, [1]), py:to_term(Point), py:memory_stats(),
                   py:gc(), py:reload(json), py:tracemalloc_top()]],
    Holder ! stop,
    ok = causeway_ct:expect({'DOWN', Monitor, process, Holder, normal}),
    ok = causeway_ct:expect(<<"gone">>),
    ok = causeway_ct:start(),
    ?assertEqual({ok, 4}, py:getattr(Point, x)).

busy_pool(_Config) ->
    {ok, none} = py:call(causeway_helpers, close_gate, []),
    Point = point(1),
    {ok, Contexts} = py:start_contexts(),
    Waiting = [begin
                   Call = py:spawn_call(Context, causeway_helpers, wait_at_gate, [self()]),
                   ok = causeway_ct:expect(<<"running">>),
                   Call
               end || Context <- Contexts],
    [?assertEqual({error, timeout}, Result)
     || Result <- [py:call_method(Point, moved, [1], #{}, 1), py:getattr(Point, x, 1), py:to_term(Point, 1),
                   py:memory_stats(1), py:gc(2, #{timeout => 1}), py:tracemalloc_start(1, 1), py:tracemalloc_stop(1),
                   py:tracemalloc_top(1, 1), py:reload(json, 1)]],
    {ok, Own} = py_context:start_link(#{}),
    ?assertEqual({ok, 1}, py:getattr(Point, x, #{context => Own})),
    {ok, none} = py:call(Own, causeway_helpers, open_gate, []),
    [?assertEqual({ok, <<"passed">>}, py:await(Call)) || Call <- Waiting],
    ok = py_context:stop(Own).

wrong_options(_Config) ->
    Point = point(1),
    [?assertMatch({{error, {badarg, <<_, _/binary>>}}, _}, {Ask(Options), Options})
     || Options <- [-1, 1.5, forever, [], #{timeout => -1}, #{tiemout => 1}, #{context => 1}, #{error => short},
                    #{result => list}],
        Ask <- [fun(O) -> py:call_method(Point, moved, [1], #{}, O) end, fun(O) -> py:getattr(Point, x, O) end,
                fun(O) -> py:to_term(Point, O) end, fun py:memory_stats/1, fun(O) -> py:gc(0, O) end,
                fun(O) -> py:tracemalloc_start(1, O) end, fun(O) -> py:tracemalloc_stop(O) end,
                fun(O) -> py:tracemalloc_top(1, O) end, fun(O) -> py:reload(json, O) end]],
    %% Only where there is a result to choose a form for.
    ?assertMatch({error, {badarg, _}}, py:to_term(Point, #{result => ref})),
    ?assertMatch({error, {badarg, _}}, py:memory_stats(#{result => ref})),
    ?assertMatch({error, {no_context, _}}, py:memory_stats(#{context => self()})).

numpy_array(_Config) ->
    case py:call(importlib, import_module, [numpy], #{}, #{result => ref}) of
        {ok, Numpy} ->
            {ok, Array} = py:call_method(Numpy, zeros, [1000000]),
            ?assertMatch({error, {not_convertible, _}}, py:to_term(Array)),
            ?assertEqual({ok, {1000000}}, py:getattr(Array, shape)),
            {ok, none} = py:call_method(Array, fill, [2]),
            ?assertEqual({ok, 2000000.0}, py:call_method(Array, 'sum', [])),
            {ok, #{referenced_bytes := Bytes}} = py:memory_stats(),
            ?assert(Bytes >= 8000000),
            {ok, Few} = py:call_method(Array, '__getitem__', [element(2, py:call(builtins, slice, [3]))]),
            ?assertEqual({ok, [2.0, 2.0, 2.0]}, py:call_method(Few, tolist, [])),
            ?assert(py:is_ref(Array));
        {error, {'ModuleNotFoundError', _}} ->
            {skip, "numpy is not installed"}
    end.

%% Memory

memory_stats(_Config) ->
    {ok, Stats} = py:memory_stats(),
    #{gc_count := {_, _, _}, gc_threshold := {_, _, _}, gc_stats := Generations, allocated_blocks := Blocks,
      resident_bytes := Resident, references := _, referenced_bytes := _, namespaces := _, tracing := false} = Stats,
    ?assertEqual(9, map_size(Stats)),
    [?assertMatch(#{collections := _, collected := _, uncollectable := _}, Generation) || Generation <- Generations],
    ?assertEqual(3, length(Generations)),
    ?assert(Blocks > 1000),
    ?assert(abs(Resident - causeway_ct:rss()) < Resident div 2),
    {ok, _} = py:gc(),
    {ok, #{gc_stats := After}} = py:memory_stats(#{timeout => 5000, context => py:context(1)}),
    #{collections := Collections} = lists:last(Generations),
    ?assertMatch(#{collections := Now} when Now > Collections, lists:last(After)).

memory_stats_of_references(_Config) ->
    ok = causeway_ct:settled(fun references/0, 0),
    {ok, Bytes} = py:eval("bytearray(1000000)", #{}, #{result => ref}),
    {ok, Again} = py:eval("b", #{b => Bytes}, #{result => ref}),
    {ok, #{references := 2, referenced_bytes := Size}} = py:memory_stats(),
    %% Counted once.
    ?assert(Size > 1000000 andalso Size < 1100000),
    %% An object that does not tell its size.
    ok = py:exec("class Odd:\n    def __sizeof__(self): raise KeyError('size')"),
    {ok, Odd} = py:eval("Odd()"),
    ?assertMatch({ok, #{references := 3, referenced_bytes := Size}}, py:memory_stats()),
    ?assertEqual([true, true, true], [py:is_ref(Ref) || Ref <- [Bytes, Again, Odd]]).

namespaces(_Config) ->
    ok = py:exec("x = 1"),
    {ok, #{namespaces := Before}} = py:memory_stats(),
    in_process(fun() ->
                       ok = py:exec("x = 1"),
                       {ok, #{namespaces := Number}} = py:memory_stats(),
                       %% Others of processes that have ended may go meanwhile.
                       true = Number >= 2 andalso Number =< Before + 1
               end),
    ok = causeway_ct:wait_until(fun() -> {ok, #{namespaces := Now}} = py:memory_stats(), Now =< Before end).

gc(_Config) ->
    {ok, none} = py:call(gc, disable, []),
    {ok, _} = py:gc(),
    {ok, none} = py:call(?HELPERS, waste, []),
    {ok, Collected} = py:gc(0),
    ?assert(Collected >= 100),
    {ok, none} = py:call(?HELPERS, waste, []),
    {ok, All} = py:gc(2, #{timeout => 5000, context => py:context(1)}),
    ?assert(All >= 100),
    ?assertMatch({ok, Number} when Number < 100, py:gc()),
    {ok, none} = py:call(gc, enable, []),
    ok.

gc_errors(_Config) ->
    [?assertMatch({error, {badarg, <<_, _/binary>>}}, py:gc(Wrong)) || Wrong <- [-1, 3, all, 1.0, #{}]].

tracemalloc(_Config) ->
    ok = py:tracemalloc_start(),
    ok = py:tracemalloc_start(5, #{timeout => 5000}),
    {ok, none} = py:call(?HELPERS, collect_hoard, [2000]),
    {ok, [#{file := File, line := Line, size := Size, count := Count} | _] = Top} = py:tracemalloc_top(),
    ?assert(length(Top) =< 10),
    ?assertEqual(<<"object_helpers.py">>, filename:basename(File)),
    ?assert(is_integer(Line) andalso Size >= 2000000 andalso Count >= 2000),
    ?assertMatch({ok, [_]}, py:tracemalloc_top(1)),
    {ok, #{tracing := true, traced_memory_current := Current, traced_memory_peak := Peak}} = py:memory_stats(),
    ?assert(Current >= 2000000 andalso Peak >= Current),
    {ok, none} = py:call(?HELPERS, 'hoard.clear', []),
    {ok, #{traced_memory_current := Less}} = py:memory_stats(),
    ?assert(Less < Current - 1000000),
    ok = py:tracemalloc_stop(),
    ok = py:tracemalloc_stop(#{context => py:context(1)}),
    {ok, Stats} = py:memory_stats(),
    ?assertMatch({#{tracing := false}, error}, {Stats, maps:find(traced_memory_current, Stats)}).

tracemalloc_errors(_Config) ->
    ?assertEqual({error, {'RuntimeError', "memory is not traced: py:tracemalloc_start() begins with it"}},
                 py:tracemalloc_top()),
    [?assertMatch({error, {badarg, <<_, _/binary>>}}, Result)
     || Result <- [py:tracemalloc_start(0), py:tracemalloc_start(65536), py:tracemalloc_start(a),
                   py:tracemalloc_top(0), py:tracemalloc_top(a)]].

%% Modules

reload(Config) ->
    write(Config, "reloaded_one.py", "def answer(): return 'old'\nhere = True\n"),
    ?assertEqual({ok, <<"old">>}, py:call(reloaded_one, answer, [])),
    ok = py:exec("from reloaded_one import answer"),
    %% Of another length, as Python tells files of one second apart by it.
    write(Config, "reloaded_one.py", "def answer(): return 'brand-new'\n"),
    ?assertEqual({ok, <<"old">>}, py:call(reloaded_one, answer, [])),
    ?assertEqual(ok, py:reload(reloaded_one)),
    {ok, Contexts} = py:start_contexts(2),
    [?assertEqual({ok, <<"brand-new">>}, py:call(Context, reloaded_one, answer, [])) || Context <- Contexts],
    ?assertEqual({ok, <<"brand-new">>}, py:eval("__import__('reloaded_one').answer()")),
    %% As Python has it: what was taken out stays as it was, and so do names that are gone.
    ?assertEqual({ok, <<"old">>}, py:call('__main__', answer, [])),
    ?assertEqual({ok, true}, py:eval("__import__('reloaded_one').here")),
    ?assertEqual(ok, py:reload("reloaded_one", 5000)),
    ?assertEqual(ok, py:reload(<<"reloaded_one">>, #{context => hd(Contexts)})).

reload_errors(Config) ->
    {error, {'ImportError', Text}} = py:reload(absent_module),
    ?assertNotEqual(nomatch, string:find(Text, "'absent_module' is not imported")),
    [?assertMatch({error, {badarg, <<_, _/binary>>}}, py:reload(Wrong)) || Wrong <- [1, {a, b}, <<255>>, [a], self()]],
    %% The atom is a name, not None.
    ?assertMatch({error, {'ImportError', _}}, py:reload(none)),
    write(Config, "reloaded_two.py", "value = 1\n"),
    ?assertEqual({ok, [1]}, py:eval("[__import__('reloaded_two').value]")),
    write(Config, "reloaded_two.py", "value = 2\nsyntax error\n"),
    ?assertMatch({error, {'SyntaxError', _}}, py:reload(reloaded_two)),
    write(Config, "reloaded_two.py", "value = 2\nraise KeyError('at reload')\n"),
    ?assertMatch({error, #{type := 'KeyError', traceback := [_ | _]}}, py:reload(reloaded_two, #{error => map})),
    ok = file:delete(filename:join(directory(Config), "reloaded_two.py")),
    ?assertMatch({error, {'ModuleNotFoundError', _}}, py:reload(reloaded_two)),
    %% What was there is there.
    ?assertEqual({ok, 2}, py:eval("__import__('reloaded_two').value")).

reload_of_a_package(Config) ->
    write(Config, "reloaded_package/__init__.py", "value = 1\n"),
    write(Config, "reloaded_package/inner.py", "value = 1\n"),
    Values = fun() -> py:eval("[__import__('reloaded_package.inner').value, __import__('reloaded_package.inner').inner.value]") end,
    ?assertEqual({ok, [1, 1]}, Values()),
    write(Config, "reloaded_package/__init__.py", "value = 1 + 1\n"),
    write(Config, "reloaded_package/inner.py", "value = 1 + 1\n"),
    ok = py:reload(reloaded_package),
    ?assertEqual({ok, [2, 1]}, Values()),
    ok = py:reload('reloaded_package.inner'),
    ?assertEqual({ok, [2, 2]}, Values()).

%% Callers that come meanwhile get the old function or the new one.
reload_while_it_is_called(Config) ->
    write(Config, "reloaded_three.py", "def answer(): return 1\n"),
    {ok, 1} = py:call(reloaded_three, answer, []),
    Callers = [spawn_monitor(fun() -> [{ok, 1} = py:call(reloaded_three, answer, []) || _ <- lists:seq(1, 2000)] end)
               || _ <- lists:seq(1, 4)],
    [ok = py:reload(reloaded_three) || _ <- lists:seq(1, 20)],
    [receive {'DOWN', Monitor, process, Caller, Reason} -> ?assertEqual(normal, Reason) end
     || {Caller, Monitor} <- Callers].

%% Helpers

point(X) ->
    {ok, Point} = py:call(?HELPERS, 'Point', [X]),
    Point.

list_of(Elements) ->
    {ok, List} = py:eval("x", #{x => Elements}, #{result => ref}),
    List.

%% How many references there are once the garbage of all processes is collected.
references() ->
    [erlang:garbage_collect(Process) || Process <- processes()],
    {ok, #{references := Number}} = py:memory_stats(),
    Number.

%% What the function returns goes with the process: nothing of it stays on a heap.
in_process(Fun) ->
    {Process, Monitor} = spawn_monitor(fun() -> _ = Fun() end),
    receive {'DOWN', Monitor, process, Process, Reason} -> ?assertEqual(normal, Reason) end.

%% A directory of modules that Python finds.
directory(Config) ->
    Directory = filename:join(?config(priv_dir, Config), "modules"),
    {ok, _} = py:eval("d in __import__('sys').path or __import__('sys').path.append(d)",
                      #{d => causeway_python:bytes(Directory)}),
    Directory.

write(Config, Name, Code) ->
    File = filename:join(directory(Config), Name),
    ok = filelib:ensure_dir(File),
    ok = file:write_file(File, Code),
    {ok, none} = py:call(importlib, invalidate_caches, []).
