%% @doc The halves of streaming calls against a model.
-module(causeway_rpc_property_SUITE).

-compile([export_all, nowarn_export_all]).

suite() -> [{timetrap, {seconds, 120}}].

all() -> [prop_stream].

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(causeway),
    Config.

end_per_suite(_Config) -> application:stop(causeway).

prop_stream(_Config) -> check(500).

%% @doc Runs so many sequences of commands. The counterexample is in the log of the test.
check(Number) ->
    Log = fun(Format, Arguments) -> ct:log(Format, Arguments) end,
    case proper:quickcheck(prop_rpc_stream:prop_stream(), [{numtests, Number}, {max_size, 60}, {on_output, Log}]) of
        true -> ok;
        Other -> ct:fail({property_is_false, Other, proper:counterexample()})
    end.
