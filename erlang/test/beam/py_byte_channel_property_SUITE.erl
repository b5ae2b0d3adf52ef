%% @doc Byte channels against a model, from both languages at once.
-module(py_byte_channel_property_SUITE).

-compile([export_all, nowarn_export_all]).

suite() -> [{timetrap, {seconds, 120}}].

all() -> [prop_channel].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> channel_ct:stop(Config).

prop_channel(_Config) -> check(150).

%% @doc Runs so many sequences of commands. The counterexample is in the log of the test.
check(Number) ->
    Log = fun(Format, Arguments) -> ct:log(Format, Arguments) end,
    case proper:quickcheck(prop_byte_channel:prop_channel(), [{numtests, Number}, {max_size, 60}, {on_output, Log}]) of
        true -> ok;
        Other -> ct:fail({property_is_false, Other, proper:counterexample()})
    end.
