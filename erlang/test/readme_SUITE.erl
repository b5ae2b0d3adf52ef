%% @doc Every example of the README is run. The examples are patterns and assertions: what they show is true
%% when they run to their end.
-module(readme_SUITE).

-export([all/0, init_per_suite/1, end_per_suite/1]).
-export([erlang/1, elixir/1, python/1, all_languages_are_run/1]).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

all() -> [erlang, elixir, python, all_languages_are_run].

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(causeway),
    {ok, Readme} = file:read_file(filename:join(root(), "README.md")),
    [{readme, Readme} | Config].

end_per_suite(Config) -> causeway_ct:stop(Config).

erlang(Config) ->
    Blocks = blocks(Config, <<"erlang">>),
    ?assert(length(Blocks) >= 3),
    lists:foreach(fun evaluate/1, Blocks).

elixir(Config) ->
    case os:find_executable("elixir") of
        false ->
            {skip, "elixir is not installed"};
        Elixir ->
            Ebin = filename:dirname(code:which(py)),
            [run(Elixir, ["-pa", Ebin, script(Config, "exs", Block)]) || Block <- blocks(Config, <<"elixir">>)]
    end.

python(Config) ->
    {ok, #{executable := Python}} = causeway_python:find(),
    os:putenv("PYTHONPATH", filename:join(root(), "python")),
    [run(Python, [script(Config, "py", Block)]) || Block <- blocks(Config, <<"python">>)].

%% A block in a language that nobody runs would be an example that nobody knows to be true.
all_languages_are_run(Config) ->
    {match, Languages} = re:run(?config(readme, Config), "^```(\\w+)$", [multiline, global, {capture, [1], binary}]),
    ?assertEqual([<<"elixir">>, <<"erlang">>, <<"python">>], lists:usort(lists:append(Languages))).

blocks(Config, Language) ->
    {match, Blocks} = re:run(?config(readme, Config), <<"^```", Language/binary, "\n(.*?)^```$">>,
                             [multiline, dotall, global, {capture, [1], binary}]),
    lists:append(Blocks).

%% As in a shell: one expression after the other, with the variables of the ones before.
evaluate(Block) ->
    lists:foldl(fun(Expressions, Bindings) ->
                        {value, _, After} = erl_eval:exprs(Expressions, Bindings),
                        After
                end, erl_eval:new_bindings(), expressions(unicode:characters_to_list(Block), 1)).

expressions(Text, Line) ->
    case erl_scan:tokens([], Text, Line) of
        {done, {ok, Tokens, Next}, Rest} ->
            {ok, Expressions} = erl_parse:parse_exprs(Tokens),
            [Expressions | expressions(Rest, Next)];
        {more, _} ->
            []
    end.

script(Config, Extension, Block) ->
    File = filename:join(?config(priv_dir, Config),
                         integer_to_list(erlang:phash2(Block)) ++ "." ++ Extension),
    ok = file:write_file(File, Block),
    File.

run(Program, Arguments) ->
    Port = open_port({spawn_executable, Program}, [{args, Arguments}, exit_status, stderr_to_stdout, binary]),
    ?assertEqual({0, <<>>}, collect(Port, <<>>)).

collect(Port, Output) ->
    receive
        {Port, {data, Data}} -> collect(Port, <<Output/binary, Data/binary>>);
        {Port, {exit_status, Status}} -> {Status, Output}
    end.

%% The project's root, from where this suite lies in its sources.
root() ->
    find_root(filename:dirname(proplists:get_value(source, ?MODULE:module_info(compile)))).

find_root(Directory) ->
    case filelib:is_regular(filename:join(Directory, "README.md")) andalso filelib:is_dir(filename:join(Directory, "CShims")) of
        true -> Directory;
        false -> find_root(filename:dirname(Directory))
    end.
