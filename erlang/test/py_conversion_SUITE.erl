%% @doc Every conversion in both directions, and what has no form on the other side.
-module(py_conversion_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-define(HELPERS, causeway_helpers).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [to_python, to_erlang, round_trips, big_integers, integers_at_every_border, floats, special_floats,
     binaries_are_str_or_bytes, almost_utf8, atoms, unicode_atoms, pids_references_funs_ports,
     terms_of_other_nodes, terms_as_keys, subclasses, bytes_likes, numbers_by_index,
     improper_lists, bitstrings, duplicate_keys_to_python, duplicate_keys_to_erlang, unhashable_keys,
     lone_surrogates, large_strings, one_megabyte_both_ways, large_binary_is_intact_after_the_call, large_tuples, large_maps,
     nesting_to_python, nesting_to_erlang, nesting_within_the_bound, self_reference, bomb, half_a_million_deep_to_python,
     half_a_million_deep_to_erlang, deep_from_a_deep_python_stack, deep_on_a_small_stack, deep_in_arguments_kwargs_locals,
     references_are_the_same_object, references_keep_alive_and_release, references_in_messages_to_others,
     references_of_dead_processes, references_compare, containers_that_change_meanwhile, exceptions_during_conversion,
     objects_of_all_kinds].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

%% Tables

to_python(_Config) ->
    Table =
        [{0, int, "0"}, {-1, int, "-1"}, {1 bsl 62, int, "4611686018427387904"},
         {1.5, float, "1.5"}, {-0.25, float, "-0.25"}, {1.0e300, float, "1e+300"},
         {<<>>, str, "''"}, {<<"text">>, str, "'text'"}, {<<"é"/utf8>>, str, "'é'"}, {<<"𝄞"/utf8>>, str, "'𝄞'"},
         {<<0>>, str, "'\\x00'"}, {<<255>>, bytes, "b'\\xff'"}, {<<"a", 200>>, bytes, "b'a\\xc8'"},
         {{bytes, <<"text">>}, bytes, "b'text'"}, {{bytes, <<>>}, bytes, "b''"},
         {true, bool, "True"}, {false, bool, "False"},
         {none, 'NoneType', "None"}, {nil, 'NoneType', "None"}, {undefined, 'NoneType', "None"},
         {nan, float, "nan"}, {infinity, float, "inf"}, {neg_infinity, float, "-inf"},
         {atom, str, "'atom'"}, {'', str, "''"}, {ok, str, "'ok'"}, {'None', str, "'None'"},
         {[], list, "[]"}, {[1, a, <<"b">>], list, "[1, 'a', 'b']"}, {"abc", list, "[97, 98, 99]"}, {[[]], list, "[[]]"},
         {{}, tuple, "()"}, {{1}, tuple, "(1,)"}, {{a, {b}}, tuple, "('a', ('b',))"},
         {{bytes, 1}, tuple, "('bytes', 1)"}, {{bytes, <<1>>, 2}, tuple, "('bytes', '\\x01', 2)"},
         {{bytes, "list"}, tuple, "('bytes', [108, 105, 115, 116])"},
         {#{}, dict, "{}"}, {#{a => 1}, dict, "{'a': 1}"}, {#{<<"a">> => [#{}]}, dict, "{'a': [{}]}"},
         {#{1 => 2}, dict, "{1: 2}"}, {#{{1, b} => none}, dict, "{(1, 'b'): None}"}],
    [?assertEqual({Term, {ok, {atom_to_binary(Type), unicode:characters_to_binary(Shown)}}},
                  {Term, py:call(?HELPERS, shown, [Term])})
     || {Term, Type, Shown} <- Table].

to_erlang(_Config) ->
    Table =
        [{"None", none}, {"True", true}, {"False", false}, {"0", 0}, {"-5", -5}, {"1.5", 1.5},
         {"''", <<>>}, {"'text'", <<"text">>}, {"'\\u00e9'", <<"é"/utf8>>}, {"'\\U0001d11e'", <<"𝄞"/utf8>>}, {"'\\0'", <<0>>},
         {"b''", <<>>}, {"b'\\xff\\0'", <<255, 0>>}, {"bytearray(b'ab')", <<"ab">>},
         {"memoryview(b'abc')[1:]", <<"bc">>}, {"float('nan')", nan}, {"float('inf')", infinity}, {"-float('inf')", neg_infinity},
         {"[]", []}, {"[1, 'a', b'b', None]", [1, <<"a">>, <<"b">>, none]}, {"()", {}}, {"(1,)", {1}}, {"((), [()])", {{}, [{}]}},
         {"{}", #{}}, {"{'a': 1, 2: [], (1, 'x'): None}", #{<<"a">> => 1, 2 => [], {1, <<"x">>} => none}},
         {"{None: 1, True: 2}", #{none => 1, true => 2}},
         {"{5}", [5]}, {"set()", []}, {"frozenset([5])", [5]}, {"sorted({3, 1, 2})", [1, 2, 3]},
         {"list(range(3))", [0, 1, 2]}, {"2 ** 4096", 1 bsl 4096}, {"-(2 ** 4096)", -(1 bsl 4096)}],
    [?assertEqual({Code, {ok, Term}}, {Code, py:eval(unicode:characters_to_binary(Code))}) || {Code, Term} <- Table].

round_trips(_Config) ->
    Terms = [0, -1, 1.0e-300, <<>>, <<"é"/utf8>>, <<0, 255>>, [], [[]], {}, {{}}, #{}, true, false, none, nan, infinity,
             neg_infinity, self(), make_ref(), #{<<"k">> => [1, {2, #{3 => 4.5}}]}, lists:seq(1, 10000),
             list_to_tuple(lists:seq(1, 10000))],
    [?assertEqual({ok, Term}, identity(Term)) || Term <- Terms].

%% Numbers

big_integers(_Config) ->
    Powers = [1 bsl Bits || Bits <- [63, 64, 65, 127, 128, 255, 256, 512, 2048, 4096, 20000, 100000]],
    [?assertEqual({ok, Number}, identity(Number))
     || Power <- Powers, Number <- [Power, -Power, Power - 1, 1 - Power, Power + 1, -Power - 1]],
    [?assertEqual({ok, hexadecimal(Number)}, py:call(?HELPERS, text_of, [Number])) || Number <- [1 bsl 4096, -(1 bsl 4096) - 17]],
    ?assertEqual({ok, (1 bsl 4096) * 3 + 1}, py:eval(<<"x * 3 + 1">>, #{x => 1 bsl 4096})).

hexadecimal(Number) when Number < 0 -> <<"-", (hexadecimal(-Number))/binary>>;
hexadecimal(Number) -> <<"0x", (string:lowercase(integer_to_binary(Number, 16)))/binary>>.

integers_at_every_border(_Config) ->
    Borders = [Sign * (1 bsl Bits) + Offset || Bits <- [7, 8, 15, 16, 29, 30, 31, 32, 58, 59, 60, 61, 62, 63, 64, 65],
                                               Sign <- [1, -1], Offset <- [-1, 0, 1]],
    ?assertEqual({ok, Borders}, identity(Borders)),
    [?assertEqual({ok, hexadecimal(Number)}, py:call(?HELPERS, text_of, [Number])) || Number <- Borders].

floats(_Config) ->
    Floats = [0.0, 1.0, -1.5, 3.141592653589793, 5.0e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 0.1, 1.0e22],
    ?assertEqual({ok, Floats}, identity(Floats)),
    ?assertEqual({ok, true}, py:eval(<<"x == 0.1">>, #{x => 0.1})),
    {ok, Negative} = py:eval(<<"-0.0">>),
    ?assertEqual(<<(-0.0)/float>>, <<Negative/float>>),
    ?assertEqual({ok, <<"-0.0">>}, py:call(builtins, repr, [-0.0])).

special_floats(_Config) ->
    ?assertEqual({ok, true}, py:eval(<<"x != x">>, #{x => nan})),
    ?assertEqual({ok, true}, py:eval(<<"x > 1e308">>, #{x => infinity})),
    ?assertEqual({ok, true}, py:eval(<<"x < -1e308">>, #{x => neg_infinity})),
    ?assertEqual({ok, [nan, infinity, neg_infinity]}, py:eval(<<"[float('nan'), float('inf'), float('-inf')]">>)),
    ?assertEqual({ok, nan}, py:eval(<<"-float('nan')">>)).

%% Text and bytes

binaries_are_str_or_bytes(_Config) ->
    [?assertEqual({Binary, {ok, kind(Binary)}}, {Binary, py:eval(<<"type(x).__name__">>, #{x => Binary})})
     || Binary <- [<<A, B>> || A <- [0, 9, 10, 127, 128, 191, 192, 193, 194, 223, 224, 239, 240, 244, 245, 255],
                               B <- [0, 65, 127, 128, 191, 192, 255]]
            ++ [<<16#ED, 16#A0, 16#80>>, <<16#ED, 16#9F, 16#BF>>, <<16#E0, 16#80, 16#80>>, <<16#F4, 16#90, 16#80, 16#80>>,
                <<16#F4, 16#8F, 16#BF, 16#BF>>, <<16#F0, 16#80, 16#80, 16#80>>, <<16#C0, 16#80>>, <<16#EF, 16#BB, 16#BF>>]].

kind(Binary) ->
    case unicode:characters_to_binary(Binary) of
        Binary -> <<"str">>;
        _ -> <<"bytes">>
    end.

%% Wrong bytes at every place around the places where an implementation may look in blocks.
almost_utf8(_Config) ->
    [begin
         Binary = <<(binary:copy(<<"a">>, Before))/binary, Wrong/binary, (binary:copy(<<"b">>, After))/binary>>,
         ?assertEqual({ok, {kind(Binary), byte_size(Binary)}}, py:eval(<<"(type(x).__name__, len(x))">>, #{x => Binary})),
         ?assertEqual({ok, Binary}, identity(Binary))
     end || Before <- [0, 1, 1021, 1022, 1023, 1024, 1025, 65536], After <- [0, 1, 5000],
            Wrong <- [<<255>>, <<16#E2, 16#82>>, <<16#C3>>]],
    [begin
         Text = unicode:characters_to_binary([lists:duplicate(Before, $a), Character, lists:duplicate(3000, $b)]),
         ?assertEqual({ok, {<<"str">>, Before + 3001}}, py:eval(<<"(type(x).__name__, len(x))">>, #{x => Text}))
     end || Before <- lists:seq(1018, 1026), Character <- [16#E9, 16#20AC, 16#1D11E]],
    [?assertEqual({ok, <<"str">>}, py:eval(<<"type(x).__name__">>, #{x => unicode:characters_to_binary(lists:duplicate(Count, 16#20AC))}))
     || Count <- [1, 341, 342, 343, 1000]].

atoms(_Config) ->
    Longest = list_to_atom(lists:duplicate(255, $x)),
    ?assertEqual({ok, binary:copy(<<"x">>, 255)}, identity(Longest)),
    ?assertEqual({ok, true}, py:eval(<<"x is y">>, #{x => same_atom, y => same_atom})),
    ?assertEqual({ok, [true, false, none, none, none]}, identity([true, false, none, nil, undefined])).

unicode_atoms(_Config) ->
    [?assertEqual({ok, atom_to_binary(Atom)}, identity(Atom)) || Atom <- ['é', 'Größe', '日本', '𝄞', 'ÿ', '\0']],
    LongestUnicode = binary_to_atom(binary:copy(<<"𝄞"/utf8>>, 255)),
    ?assertEqual({ok, atom_to_binary(LongestUnicode)}, identity(LongestUnicode)),
    ?assertEqual({ok, #{<<"é"/utf8>> => 1}}, identity(#{'é' => 1})).

%% Terms that Python can only hold

pids_references_funs_ports(_Config) ->
    Port = hd(erlang:ports()),
    Terms = [self(), make_ref(), fun erlang:abs/1, fun(X) -> {X, Port} end, Port],
    [?assertEqual({ok, Term}, identity(Term)) || Term <- Terms],
    ?assertEqual({ok, [<<"Pid">>, <<"Ref">>, <<"Term">>, <<"Term">>, <<"Term">>]},
                 py:eval(<<"[type(x).__name__ for x in xs]">>, #{xs => Terms})),
    {ok, Shown} = py:eval(<<"repr(x)">>, #{x => self()}),
    ?assertNotEqual(nomatch, string:find(Shown, pid_to_list(self()))),
    {ok, Fun} = identity(fun(X) -> X * 2 end),
    ?assertEqual(6, Fun(3)).

terms_of_other_nodes(_Config) ->
    Pid = binary_to_term(<<131, 88, 100, 0, 13, "far@elsewhere", 77:32, 0:32, 1:32>>),
    Reference = binary_to_term(<<131, 90, 0, 3, 100, 0, 13, "far@elsewhere", 1:32, 5:32, 6:32, 7:32>>),
    Port = binary_to_term(<<131, 89, 100, 0, 13, "far@elsewhere", 7:32, 1:32>>),
    ?assertEqual({ok, [Pid, Reference, Port]}, identity([Pid, Reference, Port])),
    ok = py:exec(<<"kept = []">>),
    {ok, _} = py:eval(<<"kept.append(x)">>, #{x => [Pid, Reference, Port]}),
    erlang:garbage_collect(),
    ?assertEqual({ok, [[Pid, Reference, Port]]}, py:eval(<<"kept">>)).

terms_as_keys(_Config) ->
    Reference = make_ref(),
    ?assertEqual({ok, #{self() => 1, Reference => 2}}, identity(#{self() => 1, Reference => 2})),
    ?assertEqual({ok, true}, py:eval(<<"a == b and hash(a) == hash(b) and not a != b">>, #{a => self(), b => self()})),
    ?assertEqual({ok, false}, py:eval(<<"a == b">>, #{a => make_ref(), b => Reference})),
    ?assertEqual({ok, false}, py:eval(<<"a == b">>, #{a => self(), b => Reference})),
    ?assertMatch({error, {'TypeError', _}}, py:eval(<<"a < 1">>, #{a => self()})).

%% Python's own varieties

subclasses(_Config) ->
    ?assertEqual({ok, [7, <<"text">>, 3, {1, 2}, #{<<"a">> => 1}]}, py:call(?HELPERS, subclass_values, [])).

bytes_likes(_Config) ->
    ?assertEqual({ok, <<"ace">>}, py:call(?HELPERS, memory_view_of, [<<"abcdef">>, 2])),
    ?assertEqual({ok, <<"fedcba">>}, py:call(?HELPERS, memory_view_of, [<<"abcdef">>, -1])),
    ?assertEqual({ok, <<1:32/native, 2:32/native>>}, py:eval(<<"memoryview(__import__('array').array('i', [1, 2]))">>)),
    ?assertEqual({ok, <<1, 2>>}, py:eval(<<"__import__('array').array('B', [1, 2])">>)),
    ?assertEqual({ok, <<"ab">>}, py:eval(<<"__import__('_causeway').ReactorBuffer(b'ab')">>)),
    ?assertEqual({ok, <<"mm", 0, 0>>}, py:eval(<<"(lambda m: (m.write(b'mm'), m)[1])(__import__('mmap').mmap(-1, 4))">>)),
    ok = py:exec(<<"released = memoryview(b'a')\nreleased.release()">>),
    ?assertMatch({ok, Reference} when is_reference(Reference), py:eval(<<"released">>)).

numbers_by_index(_Config) ->
    ok = py:exec(<<"class N:\n    def __index__(self): return 2 ** 100">>),
    ?assertEqual({ok, 1 bsl 100}, py:eval(<<"N()">>)),
    ?assertMatch({error, {'Complaint', "no number"}}, py:call(?HELPERS, bad_index, [])).

objects_of_all_kinds(_Config) ->
    [?assertMatch({Code, {ok, Reference}} when is_reference(Reference), {Code, py:eval(Code)})
     || Code <- ["object()", "int", "len", "(x for x in [1])", "__import__('math')", "1j", "...", "NotImplemented", "range(3)",
                 "__import__('datetime').date(2000, 1, 1)", "__import__('decimal').Decimal('1.5')", "lambda: 1", "ValueError('x')",
                 "{}.keys()", "iter([])", "__import__('threading').Lock()"]].

%% What has no form

improper_lists(_Config) ->
    [?assertMatch({error, {'ValueError', "an improper list" ++ _}}, identity(Term))
     || Term <- [[1 | 2], [a, b | c], {[1 | <<>>]}, #{k => [1 | 2]}, #{[1 | 2] => v}, [[1 | 2], 3]]].

bitstrings(_Config) ->
    [?assertMatch({error, {'ValueError', "a bitstring" ++ _}}, identity(Term))
     || Term <- [<<1:1>>, <<1, 2, 3:7>>, [<<5:3>>], {bytes, <<5:3>>}]].

duplicate_keys_to_python(_Config) ->
    [?assertMatch({error, {'ValueError', "two keys" ++ _}}, identity(Term))
     || Term <- [#{a => 1, <<"a">> => 2}, #{1 => a, 1.0 => b}, #{true => a, 1 => b}, #{none => 1, undefined => 2}, #{{bytes, <<255>>} => 1, <<255>> => 2}]].

duplicate_keys_to_erlang(_Config) ->
    ?assertMatch({error, {'ValueError', "two keys" ++ _}}, py:eval(<<"{'a': 1, b'a': 2}">>)),
    ?assertMatch({error, {'ValueError', "two keys" ++ _}}, py:eval(<<"{float('nan'): 1, float('nan') * 2: 2}">>)),
    Large = <<"{**{i: i for i in range(1000)}, 'a': 1, b'a': 2}">>,
    ?assertMatch({error, {'ValueError', "two keys" ++ _}}, py:eval(Large)).

unhashable_keys(_Config) ->
    [?assertMatch({error, {'TypeError', _}}, identity(Term)) || Term <- [#{[] => 1}, #{"ab" => 1}, #{#{} => 1}, #{{[]} => 1}]].

lone_surrogates(_Config) ->
    [?assertMatch({Code, {error, {'UnicodeEncodeError', _}}}, {Code, py:eval(Code)})
     || Code <- ["'\\ud800'", "['a\\udfff']", "{'\\ud800': 1}", "'a' * 100000 + '\\udcff'"]],
    ?assertMatch({error, #{type := 'UnicodeEncodeError'}}, py:eval(<<"'\\ud800'">>, #{}, #{error => map})).

%% Size

large_strings(_Config) ->
    [begin
         Ascii = binary:copy(<<"x">>, Size),
         Wide = binary:copy(<<"€"/utf8>>, Size),
         Bytes = binary:copy(<<255>>, Size),
         ?assertEqual({ok, [Ascii, Wide, Bytes]}, identity([Ascii, Wide, Bytes]))
     end || Size <- [0, 1, 63, 64, 65, 1023, 1024, 4095, 4096, 16383, 16384, 16385, 65535, 65536, 100000]].

one_megabyte_both_ways(_Config) ->
    Text = binary:copy(<<"0123456789abcdef">>, 65536),
    ?assertEqual({ok, {<<"str">>, 1048576}}, py:eval(<<"(type(x).__name__, len(x))">>, #{x => Text})),
    ?assert({ok, Text} =:= identity(Text)),
    Bytes = crypto_free_noise(1048576),
    ?assert({ok, Bytes} =:= identity(Bytes)),
    ?assert({ok, Bytes} =:= identity({bytes, Bytes})),
    ?assert({ok, binary:copy(<<"y">>, 1048576)} =:= py:eval(<<"'y' * 1048576">>)).

crypto_free_noise(Size) ->
    Seed = rand:seed_s(exsss, 42),
    {Noise, _} = rand:bytes_s(Size, Seed),
    Noise.

large_binary_is_intact_after_the_call(_Config) ->
    Noise = crypto_free_noise(200000),
    ok = py:exec(<<"kept = None\ndef keep(x):\n    global kept\n    kept = x\n">>),
    {ok, none} = py:call('__main__', keep, [{bytes, binary:copy(Noise)}]),
    erlang:garbage_collect(),
    _ = [crypto_free_noise(200000) || _ <- lists:seq(1, 20)],
    ?assert({ok, Noise} =:= py:eval(<<"kept">>)),
    {ok, FromPython} = py:eval(<<"bytes(kept)">>),
    ok = py:exec(<<"kept = None">>),
    {ok, _} = py:call(gc, collect, []),
    ?assert(FromPython =:= Noise).

large_tuples(_Config) ->
    {ok, Tuple} = py:eval(<<"tuple(range(1000000))">>),
    ?assertEqual(1000000, tuple_size(Tuple)),
    ?assert({ok, Tuple} =:= identity(Tuple)),
    ?assertMatch({error, {'ValueError', _}}, py:eval(<<"(None,) * (1 << 24)">>)).

large_maps(_Config) ->
    [begin
         Map = maps:from_list([{N, [N]} || N <- lists:seq(1, Size)]),
         ?assert({ok, Map} =:= identity(Map))
     end || Size <- [31, 32, 33, 34, 100, 10000, 100000]].

%% Depth

nesting_to_python(_Config) ->
    [?assertMatch({error, {'ValueError', _}}, identity(Term))
     || Term <- [list_of_depth(5000), tuple_of_depth(5000), map_of_depth(5000)]].

nesting_to_erlang(_Config) ->
    [?assertMatch({error, {'ValueError', _}}, py:call(?HELPERS, Function, [5000]))
     || Function <- [nested_list, nested_tuple, nested_dict]].

nesting_within_the_bound(_Config) ->
    [?assertEqual({ok, Term}, identity(Term))
     || Depth <- [10, 1000, 4000], Term <- [list_of_depth(Depth), tuple_of_depth(Depth), map_of_depth(Depth)]].

list_of_depth(Depth) -> lists:foldl(fun(_, Term) -> [Term] end, [], lists:seq(1, Depth)).
tuple_of_depth(Depth) -> lists:foldl(fun(_, Term) -> {Term} end, {}, lists:seq(1, Depth)).
map_of_depth(Depth) -> lists:foldl(fun(_, Term) -> #{<<"k">> => Term} end, #{}, lists:seq(1, Depth)).

self_reference(_Config) ->
    ?assertMatch({error, {'ValueError', _}}, py:call(?HELPERS, self_list, [])),
    ?assertMatch({error, {'ValueError', _}}, py:call(?HELPERS, self_dict, [])),
    ?assertEqual({ok, 1}, py:eval(<<"1">>)).

%% 30 levels of sharing are 2^30 terms: an answer must come, and in bearable time and memory.
bomb(_Config) ->
    {ok, Small} = py:call(?HELPERS, bomb, [10]),
    ?assertEqual(2047, count_pairs(Small)),
    ?assertMatch({error, {_, _}}, py:call(?HELPERS, bomb, [64], #{}, 30000)).

count_pairs([0]) -> 1;
count_pairs([Left, Right]) -> 1 + count_pairs(Left) + count_pairs(Right).

half_a_million_deep_to_python(_Config) ->
    [?assertMatch({error, {'ValueError', _}}, identity(Term))
     || Term <- [list_of_depth(500000), tuple_of_depth(500000), map_of_depth(500000)]],
    ?assertEqual({ok, 1}, py:eval(<<"1">>)).

half_a_million_deep_to_erlang(_Config) ->
    [?assertMatch({error, {'ValueError', _}}, py:call(?HELPERS, Function, [500000]))
     || Function <- [nested_list, nested_tuple, nested_dict]],
    ?assertEqual({ok, 1}, py:eval(<<"1">>)).

%% Conversion where Python's own recursion has used the stack already.
deep_from_a_deep_python_stack(_Config) ->
    ok = py:exec(<<"import erlang, causeway_helpers\n"
                   "def down(n, pid):\n"
                   "    if n == 0:\n"
                   "        erlang.send(pid, causeway_helpers.nested_list(4000))\n"
                   "    else:\n"
                   "        sorted([0], key=lambda _: down(n - 1, pid))\n">>),
    {ok, none} = py:call('__main__', down, [250, self()]),
    Expected = list_of_depth(4000),
    ok = causeway_ct:expect(Expected).

%% Any thread of Python may send and call: the bound is what its stack has room for. In a node of its own, which an
%% overflow would end.
deep_on_a_small_stack(_Config) ->
    {Status, Output} = causeway_ct:run_node("py_conversion_SUITE:on_small_stacks(), io:format(\"all is well~n\"), halt().", []),
    ?assertEqual({0, <<"all is well\n">>}, {Status, Output}).

on_small_stacks() ->
    ok = causeway_ct:start(),
    ok = py:register_function(deep, fun([Kind, Depth]) -> of_depth(Kind, Depth) end),
    [on_small_stack(Size, Kind) || Size <- [32768, 65536, 262144], Kind <- [nested_list, nested_tuple, nested_dict]],
    %% Where there is room it is as everywhere.
    [begin
         {ok, none} = py:call(?HELPERS, send_nested, [8 bsl 20, self(), Kind, 4000]),
         ok = causeway_ct:expect(of_depth(atom_to_binary(Kind), 4000)),
         {ok, 4000} = py:call(?HELPERS, call_nested, [8 bsl 20, deep, Kind, 4000]),
         {ok, {<<"ValueError">>, _}} = py:call(?HELPERS, call_nested, [8 bsl 20, deep, Kind, 5000])
     end || Kind <- [nested_list, nested_tuple, nested_dict]],
    [] = causeway_ct:mailbox(),
    ok.

on_small_stack(Size, Kind) ->
    [begin
         {ok, {<<"RecursionError">>, Text}} = py:call(?HELPERS, Function, [Size, About, Kind, 4000]),
         {_, _} = binary:match(Text, <<"threading.stack_size">>)
     end || {Function, About} <- [{send_nested, self()}, {call_nested, deep}]],
    {ok, none} = py:call(?HELPERS, send_nested, [Size, self(), Kind, 10]),
    ok = causeway_ct:expect(of_depth(atom_to_binary(Kind), 10)),
    {ok, 10} = py:call(?HELPERS, call_nested, [Size, deep, Kind, 10]).

of_depth(<<"nested_list">>, Depth) -> list_of_depth(Depth);
of_depth(<<"nested_tuple">>, Depth) -> tuple_of_depth(Depth);
of_depth(<<"nested_dict">>, Depth) -> map_of_depth(Depth).

deep_in_arguments_kwargs_locals(_Config) ->
    Deep = list_of_depth(500000),
    ?assertMatch({error, {'ValueError', _}}, py:call(?HELPERS, arguments, [1, 2, Deep])),
    ?assertMatch({error, {'ValueError', _}}, py:call(?HELPERS, arguments, [], #{a => Deep})),
    ?assertMatch({error, {'ValueError', _}}, py:eval(<<"x">>, #{x => Deep})),
    ?assertMatch({error, {_, _}}, py:eval(Deep)),
    %% Deep, but iodata without a character in it.
    ?assertEqual(ok, py:exec(Deep)),
    ?assertMatch({error, {_, _}}, py:call(Deep, f, [])),
    ?assertMatch({error, {_, _}}, py:call(math, Deep, [])).

%% References to objects

references_are_the_same_object(_Config) ->
    {ok, Thing} = py:call(?HELPERS, make_thing, [<<"same">>]),
    ?assert(is_reference(Thing)),
    ?assertEqual({ok, true}, py:call(?HELPERS, is_thing, [<<"same">>, Thing])),
    ?assertEqual({ok, true}, py:eval(<<"a is b">>, #{a => Thing, b => Thing})),
    ?assertEqual({ok, true}, py:eval(<<"a[0] is b['k']">>, #{a => [Thing], b => #{k => Thing}})),
    {ok, Again} = identity(Thing),
    ?assertEqual({ok, true}, py:call(?HELPERS, is_thing, [<<"same">>, Again])),
    {ok, Generator} = py:eval(<<"iter([1, 2])">>),
    ?assertEqual([{ok, 1}, {ok, 2}], [py:call(builtins, next, [Generator]) || _ <- [1, 2]]),
    ?assertMatch({error, {'StopIteration', _}}, py:call(builtins, next, [Generator])).

references_keep_alive_and_release(_Config) ->
    in_process(fun() ->
                       {ok, Thing} = py:call(?HELPERS, make_thing, [<<"kept">>]),
                       erlang:garbage_collect(),
                       {ok, true} = py:call(?HELPERS, thing_lives, [<<"kept">>]),
                       {ok, true} = py:call(?HELPERS, is_thing, [<<"kept">>, Thing])
               end),
    ok = causeway_ct:wait_until(fun() -> {ok, false} =:= py:call(?HELPERS, thing_lives, [<<"kept">>]) end).

references_in_messages_to_others(_Config) ->
    Test = self(),
    Holder = spawn(fun() -> receive {hold, Thing} -> receive {release, _} -> Test ! {released, is_reference(Thing)} end end end),
    in_process(fun() ->
                       {ok, Thing} = py:call(?HELPERS, make_thing, [<<"sent">>]),
                       Holder ! {hold, Thing}
               end),
    ?assertEqual({ok, true}, py:call(?HELPERS, thing_lives, [<<"sent">>])),
    Holder ! {release, now},
    ok = causeway_ct:expect({released, true}),
    ok = causeway_ct:wait_until(fun() -> {ok, false} =:= py:call(?HELPERS, thing_lives, [<<"sent">>]) end).

references_of_dead_processes(_Config) ->
    ok = py:exec(<<"import weakref">>),
    [in_process(fun() -> [{ok, _} = py:call(?HELPERS, make_thing, [{Round, N}]) || N <- lists:seq(1, 100)] end)
     || Round <- lists:seq(1, 5)],
    ok = causeway_ct:wait_until(fun() ->
                                        {ok, []} =:= py:eval(<<"[k for k, r in __import__('causeway_helpers').things.items() "
                                                               "if isinstance(k, tuple) and r() is not None]">>)
                                end).

references_compare(_Config) ->
    {ok, [One, Other]} = py:eval(<<"[object(), object()]">>),
    ?assertNotEqual(One, Other),
    %% As an external term it is only a reference, which is no object any more.
    Printed = binary_to_term(term_to_binary(One)),
    ?assertMatch({ok, _}, identity(Printed)).

in_process(Fun) ->
    {Process, Monitor} = spawn_monitor(Fun),
    receive {'DOWN', Monitor, process, Process, Reason} -> ?assertEqual(normal, Reason) end.

%% Python code that runs in the middle of a conversion

containers_that_change_meanwhile(_Config) ->
    ?assertMatch({Tag, _} when Tag =:= ok; Tag =:= error, py:call(?HELPERS, shrinking_list, [])),
    ?assertMatch({error, {'RuntimeError', _}}, py:call(?HELPERS, growing_dict, [])),
    ?assertEqual({ok, 1}, py:eval(<<"1">>)).

exceptions_during_conversion(_Config) ->
    ?assertMatch({error, {'Complaint', "no number"}}, py:call(?HELPERS, bad_index, [])),
    ok = py:exec(<<"class K:\n    def __hash__(self): raise KeyError('no hash')\n    def __eq__(self, o): raise KeyError('no eq')\nk = [K()]">>),
    ?assertMatch({ok, [Reference]} when is_reference(Reference), py:eval(<<"k">>)),
    {ok, [Key]} = py:eval(<<"k">>),
    ?assertMatch({error, {'KeyError', _}}, identity(#{Key => 1})).

identity(Term) ->
    py:call(?HELPERS, identity, [Term]).
