%% @doc Nodes that are not root's.
-module(nobody_ct).

-export([run/1, start/1]).

-define(NOBODY, "65534").

%% @doc Runs an expression in a node of nobody's, or of this user's who is not root; returns exit status and output.
-spec run(string()) -> {non_neg_integer() | timeout, binary()} | {skip, string()}.
run(Code) ->
    case start(Code) of
        {skip, _} = Skip -> Skip;
        Port -> output(Port, <<>>)
    end.

%% @doc The same without waiting for it.
-spec start(string()) -> port() | {skip, string()}.
start(Code) ->
    case command() of
        {skip, _} = Skip -> Skip;
        Command ->
            case python(Command) of
                none -> {skip, "no Python and no build that nobody may execute"};
                Python -> open(Command, Python, Code)
            end
    end.

command() ->
    case {os:cmd("id -u"), os:find_executable("setpriv")} of
        {"0\n", false} -> {skip, "setpriv, by which a node is started as somebody else, is missing"};
        {"0\n", Setpriv} -> [Setpriv, "--reuid=" ?NOBODY, "--regid=" ?NOBODY, "--clear-groups"];
        {_, _} -> []
    end.

%% One that nobody may execute: any will do. It is looked for once.
python(Command) ->
    case persistent_term:get(?MODULE, unknown) of
        unknown ->
            Python = python(Command, [os:getenv("CAUSEWAY_PYTHON", "python3"), "/usr/bin/python3"]),
            ok = persistent_term:put(?MODULE, Python),
            Python;
        Python -> Python
    end.

python(_Command, []) -> none;
python(Command, [Python | Others]) ->
    case output(open(Command, Python, "{ok, _} = application:ensure_all_started(causeway), halt()."), <<>>) of
        {0, _} -> Python;
        {_, _} -> python(Command, Others)
    end.

open(Command, Python, Code) ->
    Paths = lists:append([["-pa", Path] || Path <- causeway_ct:ebin_dirs()]),
    [Program | Arguments] = Command ++ [os:find_executable("erl"), "-noshell" | Paths] ++ ["-eval", Code],
    open_port({spawn_executable, Program},
              [{args, Arguments}, {cd, "/"},
               {env, [{"HOME", "/tmp"}, {"ERL_CRASH_DUMP_SECONDS", "0"}, {"CAUSEWAY_PYTHON", Python}]},
               exit_status, stderr_to_stdout, binary]).

output(Port, Output) ->
    receive
        {Port, {data, Data}} -> output(Port, <<Output/binary, Data/binary>>);
        {Port, {exit_status, Status}} -> {Status, Output}
    after 30000 -> {timeout, Output}
    end.
