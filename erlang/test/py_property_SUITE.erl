%% @doc Runs the properties of the prop_ modules against a real Python.
-module(py_property_SUITE).

-compile([export_all, nowarn_export_all]).

suite() -> [{timetrap, {seconds, 120}}].

all() ->
    [prop_round_trip, prop_arguments_stay_in_their_places, prop_keyword_arguments, prop_locals,
     prop_binaries_are_text_or_bytes, prop_arithmetic, prop_message_is_the_result, prop_same_key_or_both,
     prop_any_term_is_answered].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

prop_round_trip(_Config) -> check(fun prop_conversion:prop_round_trip/0).
prop_arguments_stay_in_their_places(_Config) -> check(fun prop_conversion:prop_arguments_stay_in_their_places/0).
prop_keyword_arguments(_Config) -> check(fun prop_conversion:prop_keyword_arguments/0).
prop_locals(_Config) -> check(fun prop_conversion:prop_locals/0).
prop_binaries_are_text_or_bytes(_Config) -> check(fun prop_conversion:prop_binaries_are_text_or_bytes/0).
prop_arithmetic(_Config) -> check(fun prop_conversion:prop_arithmetic/0).
prop_message_is_the_result(_Config) -> check(fun prop_conversion:prop_message_is_the_result/0).
prop_same_key_or_both(_Config) -> check(fun prop_conversion:prop_same_key_or_both/0).
prop_any_term_is_answered(_Config) -> check(fun prop_conversion:prop_any_term_is_answered/0).

%% The counterexample is in the log of the test.
check(Property) ->
    Log = fun(Format, Arguments) -> ct:log(Format, Arguments) end,
    case proper:quickcheck(Property(), [{numtests, 300}, {max_size, 30}, {on_output, Log}]) of
        true -> ok;
        Other -> ct:fail({property_is_false, Other, proper:counterexample()})
    end.
