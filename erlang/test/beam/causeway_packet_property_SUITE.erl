%% @doc Packet connections under random sequences of whatever may happen to them.
-module(causeway_packet_property_SUITE).

-compile([export_all, nowarn_export_all]).

suite() -> [{timetrap, {seconds, 120}}].

all() -> [prop_resolved].

init_per_suite(Config) -> connection_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

prop_resolved(_Config) -> check(150).

%% @doc Runs so many sequences of commands. The counterexample is in the log of the test.
check(Number) ->
    Log = fun(Format, Arguments) -> ct:log(Format, Arguments) end,
    case proper:quickcheck(prop_packet_connection:prop_resolved(), [{numtests, Number}, {max_size, 60}, {on_output, Log}]) of
        true -> ok;
        Other -> ct:fail({property_is_false, Other, proper:counterexample()})
    end.
