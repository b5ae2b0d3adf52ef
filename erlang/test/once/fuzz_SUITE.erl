%% @doc What `make fuzz' has found to be of interest, tried once more: the inputs in Tests/Fuzz, by the code that found them.
-module(fuzz_SUITE).

-export([suite/0, all/0, init_per_suite/1, end_per_suite/1, frames/1, chunks/1, cbor/1, terms/1]).

-include_lib("stdlib/include/assert.hrl").

suite() -> [{timetrap, {seconds, 60}}].

all() -> [frames, chunks, cbor, terms].

init_per_suite(Config) ->
    ok = causeway_ct:start(),
    Directory = directory(causeway_ct:python_dir()),
    {ok, none} = py:call(sys, 'path.insert', [0, Directory]),
    {ok, fuzz_node, Code} = compile:file(binary_to_list(filename:join(Directory, "fuzz_node")), [binary]),
    {module, fuzz_node} = code:load_binary(fuzz_node, "fuzz_node", Code),
    [{directory, Directory} | Config].

end_per_suite(Config) ->
    {ok, none} = py:call(sys, 'path.remove', [proplists:get_value(directory, Config)]),
    true = code:delete(fuzz_node),
    causeway_ct:stop(Config).

directory(Below) ->
    Directory = filename:join(Below, "Tests/Fuzz"),
    case filelib:is_dir(Directory) of
        true -> Directory;
        false -> directory(filename:dirname(Below))
    end.

frames(Config) -> try_all("frames", Config).

chunks(Config) -> try_all("chunks", Config).

cbor(Config) -> try_all("cbor", Config).

terms(Config) -> try_all("terms", Config).

try_all(Codec, Config) ->
    Inputs = fuzz_node:corpus(filename:join(proplists:get_value(directory, Config), Codec ++ ".txt")),
    ?assert(length(Inputs) > 4),
    Wrong = [{binary:encode_hex(Input), Class, Reason}
             || Input <- Inputs, {Class, Reason} <- [try {right, fuzz_node:signature(Codec, Input)} catch C:R -> {C, R} end],
                Class =/= right],
    ?assertEqual([], Wrong).
