%% @doc A node whose processes have loaded `Tests/Preload/preload.c' first: Python's module `preload' counts
%% allocations there, and has calls of the kernel fail.
-module(preload_ct).

-export([start/1, stop/1, run/3, fail/4, stop_failing/2, seen/1]).

%% @doc For init_per_suite: starts the node.
-spec start(list()) -> list() | {skip, string()}.
start(Config) ->
    case os:find_executable("clang") of
        false -> {skip, "no clang to build the library with"};
        Clang -> start(Clang, Config)
    end.

start(Clang, Config) ->
    Directory = proplists:get_value(priv_dir, Config),
    Library = filename:join(Directory, "preload.so"),
    ok = compile(Clang, filename:join([binary_to_list(causeway_ct:python_dir()), "../../../Tests/Preload/preload.c"]), Library),
    Paths = lists:append([["-pa", Path] || Path <- causeway_ct:ebin_dirs()]),
    {ok, Peer, _Node} = peer:start(#{connection => standard_io, args => Paths, env => [{"LD_PRELOAD", after_others(Library)}]}),
    [{peer, Peer} | Config].

%% A sanitizer has to be the first.
after_others(Library) ->
    case os:getenv("LD_PRELOAD", "") of
        "" -> Library;
        Others -> Others ++ ":" ++ Library
    end.

%% Swift comes with clang.
compile(Clang, Source, Library) ->
    Port = open_port({spawn_executable, Clang},
                     [{args, ["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-ftls-model=initial-exec", "-o", Library, Source, "-ldl"]},
                      exit_status, stderr_to_stdout, binary]),
    compiled(Port, []).

compiled(Port, Output) ->
    receive
        {Port, {data, Data}} -> compiled(Port, [Output, Data]);
        {Port, {exit_status, 0}} -> ok;
        {Port, {exit_status, Status}} -> error({clang, Status, iolist_to_binary(Output)})
    end.

%% @doc For end_per_suite.
-spec stop(list()) -> ok.
stop(Config) ->
    peer:stop(proplists:get_value(peer, Config)).

%% @doc Runs a case there, with a context of its own, and what Python's callbacks raise logged to it, down to `debug'.
-spec run(module(), atom(), list()) -> term().
run(Module, Case, Config) ->
    peer:call(proplists:get_value(peer, Config), erlang, apply,
              [fun() ->
                       ok = logger:set_primary_config(level, debug),
                       _ = logger:remove_handler(default),
                       Own = reactor_ct:start_context([]),
                       try
                           Module:Case(Own)
                       after
                           {ok, none} = py:call(preload, reset, []),
                           reactor_ct:kill_context(Own)
                       end
               end, []], 60000).

%% @doc In that node: has a call of the kernel fail for a descriptor, so many times, -1 for ever.
-spec fail(atom(), integer(), atom(), integer()) -> ok.
fail(Call, Fd, Error, Times) ->
    {ok, none} = py:call(preload, fail, [Call, Fd, Error, Times]),
    ok.

%% @doc In that node: lets the call succeed again.
-spec stop_failing(atom(), integer()) -> ok.
stop_failing(Call, Fd) ->
    {ok, none} = py:call(preload, stop_failing, [Call, Fd]),
    ok.

%% @doc In that node: how often the call was tried since.
-spec seen(atom()) -> non_neg_integer().
seen(Call) ->
    {ok, Number} = py:call(preload, seen, [Call]),
    Number.
