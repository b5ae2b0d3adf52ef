%% @doc Properties of the conversion of terms to Python objects and back.
-module(prop_conversion).

-export([prop_round_trip/0, prop_arguments_stay_in_their_places/0, prop_keyword_arguments/0, prop_locals/0,
         prop_binaries_are_text_or_bytes/0, prop_arithmetic/0, prop_message_is_the_result/0,
         prop_same_key_or_both/0, prop_any_term_is_answered/0, normal/1]).

-include_lib("proper/include/proper.hrl").

-define(HELPERS, causeway_helpers).

%% Terms

scalar() ->
    frequency([{4, integer()}, {2, big_integer()}, {2, float()}, {3, binary()}, {2, utf8()}, {2, name()}, {1, bytes()},
               {1, oneof([true, false, none, nil, undefined, nan, infinity, neg_infinity])}, {1, held()}]).

big_integer() ->
    ?LET({Sign, Bits, Low}, {oneof([1, -1]), range(50, 5000), integer()}, Sign * (1 bsl Bits) + Low).

%% Not atom(): every run would make new ones.
name() ->
    oneof([ok, error, '', 'with space', 'é', 'Größe', '日本', bytes, '__main__', 'None', a, b, c]).

bytes() ->
    ?LET(Binary, binary(), {bytes, Binary}).

held() ->
    oneof([?LAZY(self()), ?LAZY(make_ref()), ?LAZY(fun erlang:abs/1)]).

value() ->
    ?SIZED(Size, value(Size)).

value(0) ->
    scalar();
value(Size) ->
    Part = ?LAZY(value(Size div 4)),
    frequency([{3, scalar()},
               {2, few(Part)},
               {2, ?LET(Elements, few(Part), list_to_tuple(Elements))},
               {2, ?LET(Pairs, few({key(), Part}), distinct(Pairs))}]).

%% At most six of something: what is nested must not explode.
few(Type) ->
    ?LET(Number, range(0, 6), vector(Number, Type)).

%% Keys are what Python can hash.
key() ->
    oneof([scalar(), ?LET(Parts, few(scalar()), list_to_tuple(Parts))]).

%% A map in which no two keys are the same for Python.
distinct(Pairs) ->
    maps:from_list(maps:values(maps:from_list([{hashed(Key), {Key, Value}} || {Key, Value} <- Pairs]))).

%% What Python compares: 1, 1.0 and True are one key.
hashed(true) -> 1;
hashed(false) -> 0;
hashed(Float) when is_float(Float), trunc(Float) == Float -> trunc(Float);
hashed({bytes, Binary}) when is_binary(Binary) ->
    case normal_text(Binary) of
        text -> {bytes_of, Binary};
        bytes -> Binary
    end;
hashed(Tuple) when is_tuple(Tuple) -> list_to_tuple([hashed(Part) || Part <- tuple_to_list(Tuple)]);
hashed(Term) -> normal(Term).

normal_text(Binary) ->
    case unicode:characters_to_binary(Binary) of
        Binary -> text;
        _ -> bytes
    end.

%% A key of a map that goes to Python and back must be one key on the way back, too.
survives(Map) when is_map(Map) ->
    Keys = [normal(Key) || Key <- maps:keys(Map)],
    length(lists:usort(Keys)) =:= map_size(Map) andalso lists:all(fun survives/1, maps:values(Map));
survives(List) when is_list(List) -> lists:all(fun survives/1, List);
survives(Tuple) when is_tuple(Tuple) -> survives(tuple_to_list(Tuple));
survives(_) -> true.

%% @doc The form that a term has after a trip to Python and back, as the documentation of `py' says.
-spec normal(term()) -> term().
normal(Atom) when Atom =:= true; Atom =:= false; Atom =:= nan; Atom =:= infinity; Atom =:= neg_infinity -> Atom;
normal(Atom) when Atom =:= none; Atom =:= nil; Atom =:= undefined -> none;
normal(Atom) when is_atom(Atom) -> atom_to_binary(Atom);
normal({bytes, Binary}) when is_binary(Binary) -> Binary;
normal(List) when is_list(List) -> [normal(Element) || Element <- List];
normal(Tuple) when is_tuple(Tuple) -> list_to_tuple([normal(Element) || Element <- tuple_to_list(Tuple)]);
normal(Map) when is_map(Map) -> maps:from_list([{normal(Key), normal(Value)} || {Key, Value} <- maps:to_list(Map)]);
normal(Term) -> Term.

survivor() ->
    ?SUCHTHAT(Value, value(), survives(Value)).

%% Properties

prop_round_trip() ->
    ?FORALL(Value, survivor(), {ok, normal(Value)} =:= py:call(?HELPERS, identity, [Value])).

prop_arguments_stay_in_their_places() ->
    ?FORALL(Values, few(survivor()), {ok, {normal(Values), #{}}} =:= py:call(?HELPERS, arguments, Values)).

prop_keyword_arguments() ->
    Name = oneof([<<"a">>, <<"b">>, <<"é"/utf8>>, <<"not an identifier">>, <<"c">>]),
    ?FORALL(Pairs, few({Name, survivor()}),
            {ok, {[], normal(maps:from_list(Pairs))}} =:= py:call(?HELPERS, arguments, [], maps:from_list(Pairs))).

prop_locals() ->
    ?FORALL({One, Other}, {survivor(), survivor()},
            {ok, {normal(One), normal(Other)}} =:= py:eval(<<"(one, other)">>, #{one => One, <<"other">> => Other})).

prop_binaries_are_text_or_bytes() ->
    ?FORALL(Binary, oneof([binary(), utf8(), ?LET({Text, Rest}, {utf8(), binary()}, <<Text/binary, Rest/binary>>)]),
            begin
                Expected = case normal_text(Binary) of
                               text -> {<<"str">>, length(unicode:characters_to_list(Binary)), Binary};
                               bytes -> {<<"bytes">>, byte_size(Binary), Binary}
                           end,
                {ok, Expected} =:= py:eval(<<"(type(x).__name__, len(x), x)">>, #{x => Binary})
            end).

prop_arithmetic() ->
    Number = oneof([integer(), big_integer()]),
    ?FORALL({A, B}, {Number, Number},
            {ok, {A + B, A * B, A - B, -A}} =:= py:eval(<<"(a + b, a * b, a - b, -a)">>, #{a => A, b => B})).

prop_message_is_the_result() ->
    ?FORALL(Value, survivor(),
            begin
                Test = self(),
                {ok, none} = py:call(?HELPERS, tell, [Test, {message, Value}]),
                receive {<<"message">>, Received} -> Received =:= normal(Value) after 5000 -> false end
            end).

%% Two keys that Python takes for one are an error, never a lost value.
prop_same_key_or_both() ->
    ?FORALL({One, Other}, {key(), key()},
            begin
                Map = #{One => 1, Other => 2},
                Result = py:call(builtins, len, [Map]),
                case length(lists:usort([hashed(Key) || Key <- maps:keys(Map)])) =:= map_size(Map) of
                    true -> Result =:= {ok, map_size(Map)};
                    false -> element(1, Result) =:= error
                end
            end).

%% Whatever it is: a value or an error with a text, and Python goes on.
prop_any_term_is_answered() ->
    ?FORALL(Term, awkward(),
            case py:call(?HELPERS, identity, [Term]) of
                {ok, _} -> true;
                {error, {Type, [_ | _]}} -> is_atom(Type)
            end).

awkward() ->
    ?LET(Parts, few(oneof([value(), bitstring(), [1 | 2], #{[] => 1}, #{a => 1, <<"a">> => 2}])),
         oneof([Parts, list_to_tuple(Parts), #{Parts => Parts}, [Parts | tail], lists:foldl(fun(P, A) -> [P | A] end, x, Parts)])).
