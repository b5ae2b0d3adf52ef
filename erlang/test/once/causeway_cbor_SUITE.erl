%% @doc CBOR of Erlang terms: the examples of RFC 8949, every term back again, large ones, and bytes that are none. What
%% the frames of streaming calls look like is in the suite of those.
-module(causeway_cbor_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("proper/include/proper.hrl").
-include_lib("stdlib/include/assert.hrl").

suite() -> [{timetrap, {seconds, 120}}].

all() ->
    [examples, other_forms, atoms, order_of_keys, terms_come_back, as_python_has_it, random_bytes, no_cbor, no_form, parts_are_shared,
     large, schedulers_are_free].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

hex(Hex) -> binary:decode_hex(Hex).

examples(_Config) ->
    [begin
         ?assertEqual({Hex, {ok, hex(Hex)}}, {Hex, causeway_cbor:encode(Term)}),
         ?assertEqual({Hex, {ok, Term}}, {Hex, causeway_cbor:decode(hex(Hex))})
     end || {Hex, Term} <-
                [{<<"00">>, 0}, {<<"17">>, 23}, {<<"1818">>, 24}, {<<"1903E8">>, 1000}, {<<"1BFFFFFFFFFFFFFFFF">>, (1 bsl 64) - 1},
                 {<<"C249010000000000000000">>, 1 bsl 64}, {<<"3BFFFFFFFFFFFFFFFF">>, -(1 bsl 64)},
                 {<<"C349010000000000000000">>, -(1 bsl 64) - 1}, {<<"20">>, -1}, {<<"3903E7">>, -1000},
                 {<<"FB3FF199999999999A">>, 1.1}, {<<"FBC010666666666666">>, -4.1}, {<<"F4">>, false}, {<<"F5">>, true}, {<<"F6">>, nil},
                 {<<"40">>, <<>>}, {<<"4401020304">>, <<1, 2, 3, 4>>}, {<<"80">>, []}, {<<"8301820203820405">>, [1, [2, 3], [4, 5]]},
                 {<<"A0">>, #{}}, {<<"A201020304">>, #{1 => 2, 3 => 4}}]].

other_forms(_Config) ->
    [?assertEqual({Hex, {ok, Term}}, {Hex, causeway_cbor:decode(hex(Hex))})
     || {Hex, Term} <-
            [{<<"F7">>, nil}, {<<"F93C00">>, 1.0}, {<<"F90001">>, 5.960464477539063e-8}, {<<"FA47C35000">>, 100000.0},
             {<<"F97C00">>, infinity}, {<<"FAFF800000">>, neg_infinity}, {<<"F97E00">>, nan}, {<<"1800">>, 0},
             {<<"C11A514B67B0">>, 1363896240}, {<<"C240">>, 0}, {<<"C340">>, -1}, {<<"62C3BC">>, <<"ü"/utf8>>},
             {<<"5F42010243030405FF">>, <<1, 2, 3, 4, 5>>}, {<<"7F657374726561646D696E67FF">>, <<"streaming">>}, {<<"9FFF">>, []},
             {<<"9F018202039F0405FFFF">>, [1, [2, 3], [4, 5]]}, {<<"BF6161016162F6FF">>, #{<<"a">> => 1, <<"b">> => nil}}]].

%% Text, but for four.
atoms(_Config) ->
    [?assertEqual({Atom, {ok, hex(Hex)}}, {Atom, causeway_cbor:encode(Atom)})
     || {Atom, Hex} <- [{true, <<"F5">>}, {false, <<"F4">>}, {nil, <<"F6">>}, {undefined, <<"F6">>}, {a, <<"6161">>}, {'ü', <<"62C3BC">>},
                        {'λ', <<"62CEBB">>}, {'', <<"60">>}, {null, <<"646E756C6C">>}]],
    ?assertEqual({ok, hex(<<"8261618102">>)}, causeway_cbor:encode({a, {2}})).

%% In a map of any size: as Erlang compares them.
order_of_keys(_Config) ->
    [begin
         Keys = lists:sort([list_to_atom("key" ++ integer_to_list(N)) || N <- lists:seq(1, Size)]),
         {ok, <<_, Encoded/binary>>} = causeway_cbor:encode(maps:from_keys(Keys, 0)),
         ?assertEqual(Keys, [binary_to_atom(Name) || <<"k", _/binary>> = Name <- names(skip(Size, Encoded))])
     end || Size <- [1, 20, 32, 33, 200]].

skip(Size, Encoded) when Size < 24 -> Encoded;
skip(Size, <<Size, Encoded/binary>>) -> Encoded.

names(<<>>) -> [];
names(<<3:3, Size:5, Name:Size/binary, 0, Rest/binary>>) -> [Name | names(Rest)].

%% Every term that has a form is the same again, but for what CBOR does not tell apart.
terms_come_back(_Config) ->
    Property = ?FORALL(Term, a_term(),
                       begin
                           {ok, Encoded} = causeway_cbor:encode(Term),
                           {ok, Read, <<"rest">>} = causeway_cbor:decode_first(<<Encoded/binary, "rest">>),
                           Read =:= Term
                       end),
    ?assert(proper:quickcheck(Property, [{numtests, 1000}, {to_file, user}, quiet])).

a_term() -> ?SIZED(Size, a_term(Size)).

a_term(0) -> oneof([integer(), ?LET(N, integer(), N bsl 70), float(), binary(), bool(), nil]);
a_term(Size) ->
    ?LAZY(oneof([a_term(0), list(a_term(Size div 4)),
                 ?LET(Pairs, list({oneof([integer(), binary()]), a_term(Size div 4)}), maps:from_list(Pairs))])).

%% The other half of the codec reads what this writes, and the other way round.
as_python_has_it(_Config) ->
    Term = #{<<"text">> => [1, -1, 1 bsl 80, 1.5, true, nil], 2 => {bytes, <<0, 255>>}},
    {ok, Encoded} = causeway_cbor:encode(#{<<"text">> => [1, -1, 1 bsl 80, 1.5, true, nil], 2 => <<0, 255>>}),
    {ok, Same} = py:call('erlang.cbor', dumps, [Term]),
    ?assertEqual({ok, #{<<"text">> => [1, -1, 1 bsl 80, 1.5, true, nil], 2 => <<0, 255>>}}, causeway_cbor:decode(Same)),
    {ok, Read} = py:call('erlang.cbor', loads, [{bytes, Encoded}]),
    ?assertEqual(#{<<"text">> => [1, -1, 1 bsl 80, 1.5, true, none], 2 => <<0, 255>>}, Read).

random_bytes(_Config) ->
    [case causeway_cbor:decode_first(Bytes) of
         {ok, Term, Rest} ->
             ?assert(byte_size(Rest) < byte_size(Bytes)),
             _ = causeway_cbor:encode(Term);
         {error, {cbor, Text}} ->
             ?assert(byte_size(Text) > 10)
     end || _ <- lists:seq(1, 20000), Bytes <- [crypto:strong_rand_bytes(rand:uniform(40) - 1)]].

no_cbor(_Config) ->
    [begin
         {error, {cbor, Text}} = causeway_cbor:decode(hex(Hex)),
         ?assertMatch({Hex, _, {_, _}}, {Hex, Text, binary:match(Text, Part)})
     end || {Hex, Part} <-
                [{<<>>, <<"ends in the middle">>}, {<<"1C">>, <<"no meaning">>}, {<<"FF">>, <<"an end of what has not begun">>},
                 {<<"83FF">>, <<"ends in the middle">>}, {<<"8301FF02">>, <<"an end of what has not begun">>},
                 {<<"BF01FF">>, <<"an end of what has not begun">>}, {<<"0000">>, <<"1 bytes follow">>}, {<<"A200010002">>, <<"twice">>},
                 {<<"5F6161FF">>, <<"another kind">>}, {<<"E0">>, <<"simple value 0">>}, {<<"C201">>, <<"large integer">>},
                 {<<"61FF">>, <<"no UTF-8">>}, {<<"7F61FFFF">>, <<"no UTF-8">>}, {<<"9BFFFFFFFFFFFFFFFF">>, <<"ends in the middle">>},
                 {<<"BB7FFFFFFFFFFFFFFF">>, <<"ends in the middle">>}, {binary:copy(<<"81">>, 300), <<"200 levels">>},
                 {binary:copy(<<"9F">>, 300), <<"200 levels">>}, {binary:copy(<<"C1">>, 300), <<"200 levels">>},
                 {binary:copy(<<"81">>, 100000), <<"200 levels">>}]],
    [?assertError(badarg, causeway_cbor:decode(NoBinary)) || NoBinary <- [atom, "text", 1, <<1:3>>]].

no_form(_Config) ->
    [begin
         {error, {cbor, Text}} = causeway_cbor:encode(Term),
         ?assertMatch({_, {_, _}}, {Text, binary:match(Text, Part)})
     end || {Term, Part} <-
                [{self(), <<"pids">>}, {make_ref(), <<"pids">>}, {fun() -> ok end, <<"pids">>}, {[1 | 2], <<"improper">>},
                 {<<1:3>>, <<"bitstring">>}, {#{a => [self()]}, <<"pids">>}, {nested(300), <<"200 levels">>},
                 {[0 || _ <- lists:seq(1, 10000)] ++ [self()], <<"pids">>}]].

nested(0) -> [];
nested(Depth) -> [nested(Depth - 1)].

parts_are_shared(_Config) ->
    {ok, Encoded} = causeway_cbor:encode([<<"small">>, binary:copy(<<"l">>, 1000)]),
    {ok, [Small, Large]} = causeway_cbor:decode(Encoded),
    %% Of what is on the heap OTP 27 counts bits.
    ?assert(binary:referenced_byte_size(Small) =< bit_size(Small)),
    ?assertEqual(byte_size(Encoded), binary:referenced_byte_size(Large)).

%% On dirty schedulers.
large(_Config) ->
    [begin
         {ok, Encoded} = causeway_cbor:encode(Term),
         ?assertEqual({ok, Term}, causeway_cbor:decode(Encoded))
     end || Term <- [lists:seq(1, 200000), maps:from_list([{N, <<N:32>>} || N <- lists:seq(1, 50000)]), binary:copy(<<1>>, 10000000),
                     [#{<<"id">> => N, <<"values">> => [N, 0.5, nil]} || N <- lists:seq(1, 20000)]]],
    ?assertMatch({error, {cbor, _}}, causeway_cbor:decode(<<16#9F, (binary:copy(<<0>>, 1000000))/binary>>)).

%% What is long is not converted on the schedulers of other processes. One item may be much work, too: text is looked
%% through whether it is UTF-8.
schedulers_are_free(_Config) ->
    {ok, Numbers} = causeway_cbor:encode(lists:seq(1, 300000)),
    Text = <<16#7A, (128 bsl 20):32, (binary:copy(<<"t">>, 128 bsl 20))/binary>>,
    [?assertEqual(IsLong, is_decoded_dirty(Encoded)) || {Encoded, IsLong} <- [{Numbers, true}, {Text, true}, {<<16#61, "t">>, false}]].

%% Where a process runs its NIF: in a trace the dirty schedulers are number 0. Unlike times that is the same on a busy machine.
is_decoded_dirty(Encoded) ->
    Traced = spawn(fun() -> receive go -> {ok, _} = causeway_cbor:decode(Encoded) end end),
    Monitor = monitor(process, Traced),
    1 = erlang:trace(Traced, true, [running, scheduler_id]),
    Traced ! go,
    receive {'DOWN', Monitor, process, Traced, Reason} -> normal = Reason end,
    Delivered = erlang:trace_delivered(Traced),
    receive {trace_delivered, Traced, Delivered} -> ok end,
    lists:member({causeway_nif, cbor_decode, 1}, dirty_calls(Traced)).

dirty_calls(Traced) ->
    receive
        {trace, Traced, in, Function, 0} -> [Function | dirty_calls(Traced)];
        {trace, Traced, _, _, _} -> dirty_calls(Traced)
    after 0 -> []
    end.
