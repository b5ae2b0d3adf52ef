%% @doc Elixir: the tests of test/elixir, in a node that Elixir has started.
-module(elixir_SUITE).

-export([suite/0, all/0, exunit/1]).

-include_lib("stdlib/include/assert.hrl").

suite() -> [{timetrap, {seconds, 120}}].

all() -> [exunit].

exunit(_Config) ->
    case os:find_executable("elixir") of
        false -> {skip, "elixir is not installed"};
        Elixir -> run(Elixir)
    end.

run(Elixir) ->
    Arguments = ["-pa", filename:dirname(code:which(py)), filename:join(directory(), "causeway_test.exs")],
    Port = open_port({spawn_executable, Elixir}, [{args, Arguments}, exit_status, stderr_to_stdout, binary]),
    {Status, Output} = collect(Port, <<>>),
    ct:pal("~ts", [Output]),
    ?assertEqual(0, Status).

collect(Port, Output) ->
    receive
        {Port, {data, Data}} -> collect(Port, <<Output/binary, Data/binary>>);
        {Port, {exit_status, Status}} -> {Status, Output}
    end.

directory() ->
    filename:join(filename:dirname(causeway_ct:python_dir()), "elixir").
