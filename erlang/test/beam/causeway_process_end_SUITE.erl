%% @doc Nothing of a program is left, however it, its handle, its owner, its guardian or the node end.
-module(causeway_process_end_SUITE).

-compile([export_all, nowarn_export_all]).

-import(process_ct, [open/1, shell/1, shell/2, line/1, collect/1, exit_reason/1, numbers/1, gone/1]).

-include_lib("stdlib/include/assert.hrl").

-define(STREAM, causeway_process_stream).
-define(DEAF, "trap '' TERM; echo $$; while :; do sleep 0.01; done").
%% The numbers of the program, of a child in its group, of one in a session of its own, and of a daemon.
-define(TREE, "echo $$; sleep 1000 & echo $!; setsid sh -c 'echo $$; exec sleep 1000' & "
              "(setsid sh -c '(sh -c \"echo \\$PPID\"; exec sleep 1000) & :' &); wait; sleep 1000").

suite() -> [{timetrap, {seconds, 120}}].

all() ->
    [close, owner, handle_killed, delay, no_delay, group_and_tree, signals, guardian_killed, helper_killed,
     process_of_the_helper_killed, node_killed,
     node_killed_with_unread_input, node_halts, groups_of_version_2, groups_of_version_1, many].

init_per_suite(Config) -> process_ct:start(Config).

end_per_suite(_Config) -> ok.

end_per_testcase(_Case, _Config) ->
    ok = causeway_ct:wait_until(fun() -> process_ct:guardians() =:= 0 end).

tree(Handle) -> tree(Handle, <<>>, 4).

tree(Handle, Text, Number) ->
    case numbers(Text) of
        Numbers when length(Numbers) =:= Number -> Numbers;
        _ -> tree(Handle, <<Text/binary, (line(Handle))/binary>>, Number)
    end.

close(_Config) ->
    Handle = shell(?TREE),
    Tree = tree(Handle),
    ?assert(lists:all(fun process_ct:is_alive/1, Tree)),
    ok = ?STREAM:close(Handle),
    ok = causeway_ct:expect({Handle, closed}),
    ok = gone(Tree).

owner(_Config) ->
    [begin
         Test = self(),
         Owner = spawn(fun() -> Handle = shell(?TREE), Test ! {tree, tree(Handle)}, receive Why -> exit(Why) end end),
         Tree = receive {tree, Numbers} -> Numbers end,
         case Reason of
             kill -> exit(Owner, kill);
             _ -> Owner ! Reason
         end,
         ok = gone(Tree)
     end || Reason <- [normal, crash, kill]].

%% Not even its terminate is run.
handle_killed(_Config) ->
    Handle = shell(?TREE),
    Tree = tree(Handle),
    unlink(Handle),
    exit(Handle, kill),
    ok = gone(Tree).

%% Who obeys SIGTERM is not killed; who does not is, when the delay is over and not before.
delay(_Config) ->
    Obedient = shell("trap 'echo tidy > $FILE; exit 0' TERM; echo up; while :; do sleep 0.01; done",
                     #{delay_to_sigkill => 20000, env => #{"FILE" => "/dev/null"}}),
    ?assertEqual(<<"up\n">>, line(Obedient)),
    Pid = ?STREAM:os_pid(Obedient),
    ok = ?STREAM:close(Obedient),
    ok = gone([Pid]),
    Deaf = shell(?DEAF, #{delay_to_sigkill => 300}),
    [DeafPid] = numbers(line(Deaf)),
    {Milliseconds, ok} = causeway_ct:milliseconds(fun() -> ok = ?STREAM:close(Deaf), gone([DeafPid]) end),
    ?assert(Milliseconds >= 290).

no_delay(_Config) ->
    Handle = shell("trap 'echo asked' TERM; echo up; while :; do sleep 0.01; done", #{delay_to_sigkill => 0}),
    ?assertEqual(<<"up\n">>, line(Handle)),
    Pid = ?STREAM:os_pid(Handle),
    ok = ?STREAM:close(Handle),
    ok = gone([Pid]).

group_and_tree(_Config) ->
    Handle = shell(?TREE),
    [Shell, Child, Session, Daemon] = tree(Handle),
    ok = ?STREAM:kill(Handle, {tree, usr1}),
    ?assertMatch({signal, 10}, element(3, collect(Handle))),
    ?assertNot(lists:any(fun process_ct:is_alive/1, [Shell, Child, Session, Daemon])),
    %% Who has a session of its own is not in the group, and has the output still.
    Other = shell("sleep 1000 & echo $!; setsid sh -c 'echo $$; exec sleep 1000' & wait", #{exit_grace => 20}),
    [_, _] = Both = tree(Other, <<>>, 2),
    ok = ?STREAM:kill(Other, {group, "SIGUSR2"}),
    ?assertEqual({exit, {signal, 12}, output_held}, element(3, collect(Other))),
    ?assertNot(lists:any(fun process_ct:is_alive/1, Both)).

signals(_Config) ->
    [begin
         Handle = open(["sleep", "1000"]),
         ok = ?STREAM:kill(Handle, Signal),
         ?assertEqual({signal, Number}, exit_reason(Handle))
     end || {Signal, Number} <- [{sigterm, 15}, {term, 15}, {<<"HUP">>, 1}, {"kill", 9}, {2, 2}, {{process, int}, 2}]].

%% It is the guardian of one program, and of no other.
guardian_killed(_Config) ->
    Other = open(["cat"]),
    Handle = shell(?TREE),
    [Shell | _] = Tree = tree(Handle),
    "0" = os:cmd("kill -9 " ++ parent(Shell) ++ "; printf $?"),
    ?assertEqual(guardian_killed, element(3, collect(Handle))),
    ok = gone(Tree),
    ok = ?STREAM:command(Other, <<"alive">>),
    ?assertEqual(<<"alive">>, line(Other)),
    ok = ?STREAM:close(Other),
    ok = causeway_ct:expect({Other, closed}).

parent(Process) ->
    {ok, Stat} = file:read_file(["/proc/", integer_to_list(Process), "/stat"]),
    [_, Rest] = binary:split(Stat, <<") ">>),
    [_, Parent | _] = binary:split(Rest, <<" ">>, [global]),
    binary_to_list(Parent).

%% Programs that run go on, and there is another helper for new ones.
helper_killed(_Config) ->
    Handle = open(["cat"]),
    Guardian = parent(?STREAM:os_pid(Handle)),
    Helper = parent(list_to_integer(Guardian)),
    "0" = os:cmd("kill -9 " ++ Helper ++ "; printf $?"),
    ok = gone([list_to_integer(Helper)]),
    Descriptors = causeway_ct:descriptors(),
    ?assertMatch([{ok, #{exit := normal}} | _], lists:usort(concurrently(10, fun() -> ?STREAM:run("true") end))),
    %% It was waited for.
    ok = causeway_ct:wait_until(fun() -> not filelib:is_dir("/proc/" ++ Helper) end),
    ok = ?STREAM:command(Handle, <<"alive">>),
    ?assertEqual(<<"alive">>, line(Handle)),
    ok = causeway_ct:settled(fun causeway_ct:descriptors/0, Descriptors),
    Pid = ?STREAM:os_pid(Handle),
    ok = ?STREAM:close(Handle),
    ok = causeway_ct:expect({Handle, closed}),
    ok = gone([Pid]).

concurrently(Number, Fun) ->
    Test = self(),
    Tags = [begin Tag = make_ref(), spawn_link(fun() -> Test ! {Tag, Fun()} end), Tag end || _ <- lists:seq(1, Number)],
    [receive {Tag, Result} -> Result end || Tag <- Tags].

%% A node that is killed while it has a tree, one that is deaf, and one that writes for ever.
node_killed(_Config) ->
    {Port, Node, Numbers} = node("[?TREE, ?DEAF, <<\"echo $$; exec yes\">>]", ""),
    ?assertEqual(6, length(Numbers)),
    "0" = os:cmd("kill -9 " ++ integer_to_list(Node) ++ "; printf $?"),
    ok = gone(Numbers),
    let_go(Port).

node_killed_with_unread_input(_Config) ->
    {Port, Node, Numbers} = node("[<<\"echo $$; exec sleep 1000\">>]", "Handle ! {self(), {command, binary:copy(<<0>>, 500000)}}, "),
    "0" = os:cmd("kill -9 " ++ integer_to_list(Node) ++ "; printf $?"),
    ok = gone(Numbers),
    let_go(Port).

node_halts(_Config) ->
    {Port, _Node, Numbers} = node("[?TREE]", ""),
    port_command(Port, "halt\n"),
    ok = gone(Numbers),
    let_go(Port).

%% It may have ended already.
let_go(Port) ->
    _ = catch port_close(Port),
    ok.

%% A node that starts scripts, prints the numbers of all their processes, and halts when it reads a line.
node(Scripts, Then) ->
    Source = ["-module(other_node).\n-export([main/0]).\n",
              "-define(TREE, ", io_lib:format("~0p", [list_to_binary(?TREE)]), ").\n",
              "-define(DEAF, ", io_lib:format("~0p", [list_to_binary(?DEAF)]), ").\n",
              "main() ->\n"
              "    {ok, _} = application:ensure_all_started(causeway),\n"
              "    [begin\n"
              "         {ok, Handle} = causeway_process_stream:open(\"sh\", [\"-c\", Script]),\n         ", Then,
              "         print(Handle, case Script of ?TREE -> 4; _ -> 1 end)\n"
              "     end || Script <- ", Scripts, "],\n"
              "    io:put_chars(\"ready\\n\"), io:get_line(\"\"), halt(0).\n"
              "print(_, 0) -> ok;\n"
              "print(Handle, Left) ->\n"
              "    receive {Handle, {data, Data}} ->\n"
              "        Lines = [Line || Line <- binary:split(Data, <<\"\\n\">>, [global, trim_all]), Line =/= <<\"y\">>],\n"
              "        io:put_chars([[Line, $\\n] || Line <- lists:sublist(Lines, Left)]),\n"
              "        print(Handle, max(0, Left - length(Lines))) end.\n"],
    Directory = filename:join("/tmp", "causeway-node-" ++ os:getpid()),
    ok = filelib:ensure_path(Directory),
    File = filename:join(Directory, "other_node.erl"),
    ok = file:write_file(File, Source),
    {ok, other_node} = compile:file(File, [{outdir, Directory}]),
    Paths = lists:append([["-pa", Path] || Path <- [Directory | causeway_ct:ebin_dirs()]]),
    Port = open_port({spawn_executable, os:find_executable("erl")},
                     [{args, ["-noshell" | Paths] ++ ["-s", "other_node", "main"]}, binary, exit_status, stderr_to_stdout]),
    {os_pid, Node} = erlang:port_info(Port, os_pid),
    Numbers = printed(Port, <<>>),
    ok = file:del_dir_r(Directory),
    ?assert(lists:all(fun process_ct:is_alive/1, Numbers)),
    {Port, Node, Numbers}.

printed(Port, Text) ->
    case binary:split(Text, <<"ready\n">>) of
        [Numbers, _] -> numbers(Numbers);
        [_] ->
            receive
                {Port, {data, Data}} -> printed(Port, <<Text/binary, Data/binary>>)
            after 30000 -> error({not_ready, Text})
            end
    end.

%% The group is there while the program runs, and what is left in it is killed.
groups_of_version_2(_Config) ->
    case process_ct:hierarchy(v2) of
        none -> {skip, "no control groups of version 2 that may be made"};
        Root ->
            Base = "causeway-ct-" ++ os:getpid(),
            Handle = shell("cat /proc/self/cgroup; read x", #{cgroup_base => Base, cgroup => #{}}),
            Place = line(Handle),
            {match, [Path]} = re:run(Place, "0::(/" ++ Base ++ "/[0-9a-z]+)\n", [{capture, all_but_first, list}]),
            ?assert(filelib:is_dir(Root ++ Path)),
            ?assertMatch({error, {cgroup, eexist, <<_/binary>>}}, ?STREAM:open("true", [], #{cgroup_path => Path, cgroup => []})),
            ok = ?STREAM:close(Handle),
            ok = causeway_ct:wait_until(fun() -> not filelib:is_dir(Root ++ Path) end),
            ok = file:del_dir(Root ++ "/" ++ Base)
    end.

%% Each setting goes to its own controller.
groups_of_version_1(_Config) ->
    case {process_ct:hierarchy("memory"), process_ct:hierarchy("pids")} of
        {Memory, Pids} when Memory =/= none, Pids =/= none ->
            Name = "causeway-ct-" ++ os:getpid(),
            Handle = shell(["cat ", Memory, "/", Name, "/memory.limit_in_bytes ", Pids, "/", Name, "/pids.max; read x"],
                           #{cgroup_controllers => ["memory", pids], cgroup_path => Name,
                             cgroup_sets => [{memory, "memory.limit_in_bytes", 268435456}, {<<"pids">>, "pids.max", "20"}]}),
            ?assertEqual([268435456, 20], tree(Handle, <<>>, 2)),
            ok = ?STREAM:close(Handle),
            ok = causeway_ct:wait_until(fun() -> not (filelib:is_dir(Memory ++ "/" ++ Name) orelse filelib:is_dir(Pids ++ "/" ++ Name)) end);
        _ -> {skip, "no control groups of version 1 that may be made"}
    end.

%% Coalesced ends are no problem.
many(_Config) ->
    Handles = [open(["cat"]) || _ <- lists:seq(1, 300)],
    [ok = ?STREAM:close_stdin(Handle) || Handle <- Handles],
    [?assertEqual(normal, exit_reason(Handle)) || Handle <- Handles].

%% Contexts, and what is open, go on.
process_of_the_helper_killed(_Config) ->
    Contexts = [Pid || {_, Pid, _, _} <- supervisor:which_children(py_pool_sup), is_pid(Pid)],
    Handle = shell("read line; echo $line"),
    Process = whereis(causeway_process_helper),
    true = exit(Process, kill),
    ok = causeway_ct:wait_until(fun() -> is_pid(whereis(causeway_process_helper)) andalso whereis(causeway_process_helper) =/= Process end),
    ok = ?STREAM:command(Handle, <<"still\n">>),
    ?assertEqual(<<"still\n">>, line(Handle)),
    ?assertMatch({ok, #{stdout := <<"new\n">>}}, ?STREAM:run("echo", ["new"], #{})),
    ?assertEqual(Contexts, [Pid || {_, Pid, _, _} <- supervisor:which_children(py_pool_sup), is_pid(Pid)]).
