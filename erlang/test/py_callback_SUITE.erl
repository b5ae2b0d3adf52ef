%% @doc Python calls Erlang by every name and with every value, and a process of its own runs the function.
-module(py_callback_SUITE).

-compile([export_all, nowarn_export_all]).

-import(causeway_ct, [context/1]).
-import(callback_ct, [gate/1, entered/1]).

-include_lib("stdlib/include/assert.hrl").

-define(HELPERS, callback_helpers).

suite() -> [{timetrap, {seconds, 120}}].

all() ->
    [{group, names}, {group, terms}, {group, processes}].

groups() ->
    [{names, [], [three_ways_to_call, names_of_all_kinds, names_that_are_none, functions_that_are_none, exported_functions,
                  replaced_function, unregistered_names, unregistered_while_it_runs, names_are_those_of_unicode,
                  wrong_arguments_of_call, names_of_the_module_come_first]},
     {terms, [], [arguments_arrive_as_one_list, values_there_and_back, results_without_a_python_form,
                  arguments_without_an_erlang_form, large_values, objects_keep_their_identity]},
     {processes, [], [send_and_whereis, self_is_the_caller, self_on_top_of_another_call, function_runs_in_a_process_of_its_own,
                      atoms_from_python]}].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_group(_Group, Config) -> Config.

end_per_group(_Group, _Config) -> ok.

init_per_testcase(_Case, Config) -> causeway_ct:start_context(Config).

end_per_testcase(_Case, Config) -> causeway_ct:kill_context(Config).

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
