%% @doc The halves of streaming calls against a model: in this node, and at the two ends of a packet connection.
-module(causeway_rpc_property_SUITE).

-compile([export_all, nowarn_export_all]).

suite() -> [{timetrap, {seconds, 120}}].

all() -> [prop_stream, prop_connection].

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(causeway),
    Config.

end_per_suite(_Config) -> application:stop(causeway).

prop_stream(_Config) -> check(prop_rpc_stream:prop_stream(), 500).

prop_connection(_Config) -> check(prop_rpc_connection:prop_connection(), 300).

%% @doc Tries a property so many times. The counterexample is in the log of the test.
check(Property, Number) ->
    Log = fun(Format, Arguments) -> ct:log(Format, Arguments) end,
    case proper:quickcheck(Property, [{numtests, Number}, {max_size, 60}, {on_output, Log}]) of
        true -> ok;
        Other -> ct:fail({property_is_false, Other, proper:counterexample()})
    end.
