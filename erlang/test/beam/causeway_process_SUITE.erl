%% @doc Programs as streams with messages to their owner: all of the output, the modes, standard input, options.
-module(causeway_process_SUITE).

-compile([export_all, nowarn_export_all]).

-import(process_ct, [open/1, open/2, shell/1, shell/2, line/1, collect/1, exit_reason/1, numbers/1]).

-include_lib("stdlib/include/assert.hrl").

-define(STREAM, causeway_process_stream).

suite() -> [{timetrap, {seconds, 120}}].

all() ->
    [messages, exits_and_signals, one_exit_message, nothing_is_lost, nothing_is_lost_at_once, errors_are_errors,
     wrong_options, options_in_all_forms, directory_and_environment, standard_files, other_user, properties,
     half_close, much_input, unread_input, input_past_the_mark, broken_pipe, much_on_both, owner_that_does_not_read,
     so_many, once, passive, passive_end, other_modes, small_window, held_output, late_output, connect, strangers,
     await, runs, run_limits, os_pids, arguments_with_everything, nothing_is_left, no_application].

init_per_suite(Config) -> process_ct:start(Config).

end_per_suite(_Config) -> ok.

end_per_testcase(_Case, _Config) ->
    %% Each ends what it has started.
    ok = causeway_ct:wait_until(fun() -> process_ct:guardians() =:= 0 end).

messages(_Config) ->
    Handle = shell("read line; echo $line; echo e >&2; exit 3"),
    ok = ?STREAM:command(Handle, ["hel", <<"lo\n">>]),
    ?assertEqual({<<"hello\n">>, <<"e\n">>, {exit_status, 3}}, collect(Handle)),
    Other = open(["cat"]),
    Other ! {self(), {command, <<"a message">>}},
    ?assertEqual(<<"a message">>, line(Other)),
    Other ! {self(), close},
    ok = causeway_ct:expect({Other, closed}),
    ?assertEqual([], causeway_ct:mailbox()).

%% A status above 128 is no signal.
%% A sanitizer that is loaded into all programs would make an exit of the last signal.
exits_and_signals(_Config) ->
    [?assertEqual(Reason, exit_reason(shell(Script)))
     || {Script, Reason} <- [{"exit 0", normal}, {"exit 1", {exit_status, 1}}, {"exit 128", {exit_status, 128}},
                             {"exit 143", {exit_status, 143}}, {"exit 255", {exit_status, 255}},
                             {"kill -TERM $$", {signal, 15}}, {"kill -KILL $$", {signal, 9}},
                             {"unset LD_PRELOAD; exec sh -c 'kill -SEGV $$'", {signal, 11}}]].

%% Whether it traps exits or not, and it is not harmed by a program that fails.
one_exit_message(_Config) ->
    [begin
         process_flag(trap_exit, Trap),
         Handle = shell("read go; echo x; exit 1"),
         Monitor = monitor(process, Handle),
         ok = ?STREAM:command(Handle, "\n"),
         ?assertEqual({<<"x\n">>, <<>>, {exit_status, 1}}, collect(Handle)),
         receive {'DOWN', Monitor, process, Handle, Reason} -> ?assertEqual(normal, Reason) end,
         ?assertEqual([], causeway_ct:mailbox())
     end || Trap <- [true, false]],
    process_flag(trap_exit, false).

%% While the processors have other things to do.
nothing_is_lost(_Config) ->
    Busy = [shell("while :; do :; done") || _ <- [1, 2]],
    Zeros = binary:copy(<<0>>, 65536),
    [?assert({Zeros, <<>>, normal} =:= collect(open(["head", "-c", "65536", "/dev/zero"]))) || _ <- lists:seq(1, 100)],
    [?assertEqual({<<"out\n">>, <<"err\n">>, {exit_status, 7}}, collect(shell("echo out; echo err >&2; exit 7")))
     || _ <- lists:seq(1, 100)],
    lists:foreach(fun ?STREAM:close/1, Busy),
    [ok = causeway_ct:expect({Handle, closed}) || Handle <- Busy].

nothing_is_lost_at_once(_Config) ->
    Handles = [{Number, shell(["head -c ", integer_to_list(Number * 1000), " /dev/zero; exit ", integer_to_list(Number)])}
               || Number <- lists:seq(1, 200)],
    [begin
         {Output, <<>>, Reason} = collect(Handle),
         ?assertEqual({Number * 1000, {exit_status, Number}}, {byte_size(Output), Reason})
     end || {Number, Handle} <- Handles].

%% The caller does not trap exits, and is told all by what open returns.
errors_are_errors(_Config) ->
    Directory = code:lib_dir(kernel),
    [?assertEqual({error, Reason}, ?STREAM:open(Command, [], Options))
     || {Command, Options, Reason} <-
            [{"no-such-program", #{}, enoent}, {"/no/such/program", #{}, enoent}, {"/etc/passwd", #{}, eacces},
             {Directory, #{}, eacces},
             {"true", #{cd => "/nowhere"}, {cd, enoent, <<"/nowhere: no such file or directory">>}},
             {"true", #{cd => "/etc/passwd"}, {cd, enotdir, <<"/etc/passwd: not a directory">>}},
             {"true", #{stdout => {file, "/nowhere/x"}}, {stdout, enoent, <<"/nowhere/x: no such file or directory">>}},
             {"true", #{uid => "no-such-user"}, {uid, enoent, <<"there is no user no-such-user: no such file or directory">>}},
             {"true", #{rlimits => #{nofile => {2, 1}}}, {rlimits, einval, <<"rlimits: invalid argument">>}}]],
    ?assertMatch({error, {uid, eperm, _}}, ?STREAM:open("true", [], #{uid => root})),
    ?assertMatch({error, {gid, enoent, _}}, ?STREAM:open("true", [], #{gid => <<"no-such-group">>})),
    ?assertMatch({error, {cgroup, _, <<_/binary>>}}, ?STREAM:open("true", [], #{cgroup_controllers => [beer], cgroup_path => "x"})),
    ?assertEqual([], causeway_ct:mailbox()),
    {links, Links} = process_info(self(), links),
    ?assertEqual([], [Link || Link <- Links, is_pid(Link), not is_process_alive(Link)]).

wrong_options(_Config) ->
    [?assertMatch({{error, {badarg, <<_/binary>>}}, _}, {?STREAM:open(Command, Arguments, Options), Options})
     || {Command, Arguments, Options} <-
            [{<<"a\0b">>, [], #{}}, {42, [], #{}}, {"", [], #{}}, {"true", [<<"a\0">>], #{}}, {"true", [self()], #{}},
             {"true", "x", #{}}, {"true", [<<"x">> | <<"y">>], #{}}, {"true", [], #{colour => red}}, {"true", [], 42},
             {"true", [], [42]}, {"true", [], [{cd, "/"} | x]}, {"true", [], #{cd => 42}}, {"true", [], #{env => [42]}},
             {"true", [], #{env => [{"A=B", "c"}]}}, {"true", [], #{env => [{"A", 42}]}},
             {"true", [], #{delay_to_sigkill => -1}}, {"true", [], #{delay_to_sigkill => soon}}, {"true", [], #{nice => 20}},
             {"true", [], #{umask => 8#1000}}, {"true", [], #{rlimits => #{beer => 1}}}, {"true", [], #{rlimits => #{core => -1}}},
             {"true", [], #{uid => -1}}, {"true", [], #{groups => 5}}, {"true", [], #{stdout => stdout}},
             {"true", [], #{stderr => loud}}, {"true", [], #{mode => {active, 0}}}, {"true", [], #{mode => often}},
             {"true", [], #{stdio_window => 0}}, {"true", [], #{busy => never}}, {"true", [], #{stderr_to_stdout => 1}},
             {"true", [], #{capture_stderr_only => true, stderr_to_stdout => true}}, {"true", [], #{cgroup => #{}}},
             {"true", [], #{cgroup => #{colour => 1}, cgroup_path => "x"}}, {"true", [], #{cgroup_path => "x"}},
             {"true", [], #{cgroup_sets => []}}, {"true", [], #{cgroup => #{}, cgroup_path => "x", cgroup_base => "y"}}]],
    Handle = open(["cat"]),
    [?assertMatch({error, {badarg, _}}, ?STREAM:kill(Handle, Signal)) || Signal <- [0, 65, beer, "sigbeer", {all, 9}, self()]],
    ?assertMatch({error, {badarg, _}}, ?STREAM:set_mode(Handle, twice)),
    ?assertMatch({error, {badarg, _}}, ?STREAM:command(Handle, not_iodata)),
    ?assertMatch({error, {badarg, _}}, gen_server:call(Handle, what)),
    Handle ! what,
    gen_server:cast(Handle, what),
    Handle ! {self(), {command, not_iodata}},
    ok = ?STREAM:command(Handle, "still there"),
    ?assertEqual(<<"still there">>, line(Handle)),
    closed(Handle).

closed(Handle) ->
    Monitor = monitor(process, Handle),
    ok = ?STREAM:close(Handle),
    ok = causeway_ct:expect({Handle, closed}),
    receive {'DOWN', Monitor, process, Handle, Reason} -> ?assertEqual(normal, Reason) end.

options_in_all_forms(_Config) ->
    [?assertEqual({<<"/usr|v\n">>, <<>>, normal}, collect(open([Command, <<"-c">>, "echo $(pwd)\"|$VAR\""], Options)))
     || {Command, Options} <- [{"sh", #{cd => <<"/usr">>, env => #{"VAR" => v}}},
                               {<<"sh">>, #{<<"cd">> => '/usr', "env" => [{<<"VAR">>, "v"}]}},
                               {sh, #{cd => "/usr", env => #{'VAR' => <<"v">>}}},
                               {'/bin/sh', #{"cd" => "/usr", env => [{"VAR", "v"}, {"OTHER", false}]}}]],
    {ok, Handle} = ?STREAM:open(<<"sh">>, ["-c", "echo $V >&2"], [stderr_to_stdout, {env, [{"V", "1"}]}, {env, [{"V", "2"}]}]),
    ?assertEqual({<<"1\n">>, <<>>, normal}, collect(Handle)).

directory_and_environment(Config) ->
    true = os:putenv("CAUSEWAY_TEST", "ä"),
    {ok, Here} = file:get_cwd(),
    ?assertEqual({unicode:characters_to_binary([Here, "|ä\n"]), <<>>, normal}, collect(shell("echo $(pwd)\"|$CAUSEWAY_TEST\""))),
    ?assertEqual({<<"unset|ö\n"/utf8>>, <<>>, normal},
                 collect(shell("echo ${CAUSEWAY_TEST-unset}\"|$NEW\"", #{env => [{"CAUSEWAY_TEST", nil}, {"NEW", "ö"}]}))),
    true = os:unsetenv("CAUSEWAY_TEST"),
    %% Where the node is now.
    ok = file:set_cwd(proplists:get_value(priv_dir, Config)),
    {ok, There} = file:get_cwd(),
    ?assertEqual({unicode:characters_to_binary([There, "\n"]), <<>>, normal}, collect(open(["pwd"]))),
    ok = file:set_cwd(Here),
    ?assertMatch({<<"other\0", _/binary>>, <<>>, normal}, collect(open(["cat", "/proc/self/cmdline"], #{arg0 => other}))).

standard_files(Config) ->
    File = filename:join(proplists:get_value(priv_dir, Config), "out"),
    Both = "echo o; echo e >&2",
    ?assertEqual({<<"o\ne\n">>, <<>>, normal}, collect(shell(Both, #{stderr => stdout}))),
    ?assertEqual({<<"o\n">>, <<"e\n">>, normal}, collect(shell(Both, #{stderr => separate}))),
    ?assertEqual({<<"o\n">>, <<>>, normal}, collect(shell(Both, #{stderr => null}))),
    ?assertEqual({<<>>, <<"e\n">>, normal}, collect(shell(Both, #{capture_stderr_only => true}))),
    ?assertEqual({<<>>, <<>>, normal}, collect(shell(Both, #{stdout => {file, File}, stderr => stdout}))),
    ?assertEqual({<<"o\n">>, <<>>, normal}, collect(shell(Both, #{stderr => {file, File, append}}))),
    ?assertEqual({ok, <<"o\ne\ne\n">>}, file:read_file(File)),
    ?assertEqual({<<"o\ne\ne\n">>, <<>>, normal}, collect(open(["cat"], #{stdin => {file, File}}))),
    ?assertEqual({<<>>, <<>>, normal}, collect(open(["cat"], #{stdin => null}))),
    Deaf = open(["sleep", "1000"], #{stdin => null}),
    ?assertEqual({error, closed}, ?STREAM:command(Deaf, "x")),
    closed(Deaf).

%% With its own groups, and none of root's.
other_user(_Config) ->
    case os:cmd("id -u") of
        "0\n" ->
            Options = #{uid => nobody, cd => "/"},
            ?assertEqual({<<"uid=65534(nobody) gid=65534(nogroup) groups=65534(nogroup)\n">>, <<>>, normal}, collect(open(["id"], Options))),
            ?assertEqual({<<"12345 5 5\n">>, <<>>, normal}, collect(shell("echo $(id -u) $(id -g) $(id -G)", #{uid => 12345, gid => "5", cd => "/"}))),
            ?assertEqual({<<"65534 7 8\n">>, <<>>, normal}, collect(shell("echo $(id -G)", Options#{groups => [7, "8"]})));
        _ ->
            {skip, "only root can be somebody else"}
    end.

properties(_Config) ->
    Options = #{umask => 8#27, nice => 5, rlimits => #{nofile => {50, 60}, core => 0}},
    ?assertEqual({<<"0027 5 50 60 0\n">>, <<>>, normal}, collect(shell("echo $(umask) $(nice) $(ulimit -n) $(ulimit -Hn) $(ulimit -c)", Options))).

half_close(_Config) ->
    Handle = open(["wc", "-c"]),
    ok = ?STREAM:command(Handle, <<"12345">>),
    ok = ?STREAM:close_stdin(Handle),
    ?assertEqual({error, closed}, ?STREAM:command(Handle, <<"more">>)),
    ?assertEqual({<<"5\n">>, <<>>, normal}, collect(Handle)),
    %% What is queued is written first.
    Large = open(["wc", "-c"]),
    Large ! {self(), {command, binary:copy(<<"x">>, 5000000)}},
    ok = ?STREAM:close_stdin(Large),
    ?assertEqual({<<"5000000\n">>, <<>>, normal}, collect(Large)).

%% In one piece, and in many.
much_input(_Config) ->
    Handle = open(["cat"]),
    Data = crypto_free_bytes(100000000),
    Handle ! {self(), {command, Data}},
    ok = ?STREAM:close_stdin(Handle),
    {Output, <<>>, normal} = collect(Handle),
    ?assert(Output =:= Data),
    Other = open(["md5sum"]),
    [ok = ?STREAM:command(Other, Part) || Part <- parts(Data, 1000003)],
    ok = ?STREAM:close_stdin(Other),
    Sum = string:lowercase(binary:encode_hex(erlang:md5(Data))),
    ?assertEqual({<<Sum/binary, "  -\n">>, <<>>, normal}, collect(Other)).

crypto_free_bytes(Size) ->
    Seed = << <<(erlang:phash2(Number)):32>> || Number <- lists:seq(1, 25013) >>,
    binary:part(binary:copy(Seed, Size div byte_size(Seed) + 1), 0, Size).

parts(Data, Size) when byte_size(Data) > Size ->
    <<Part:Size/binary, Rest/binary>> = Data,
    [Part | parts(Rest, Size)];
parts(Data, _Size) ->
    [Data].

%% Nobody waits for a program that does not read: not the handle, nor its end.
unread_input(_Config) ->
    Handle = open(["sleep", "1000"]),
    Pid = ?STREAM:os_pid(Handle),
    Handle ! {self(), {command, binary:copy(<<"x">>, 3000000)}},
    ?assertEqual(Pid, ?STREAM:os_pid(Handle)),
    closed(Handle),
    ok = process_ct:gone([Pid]).

input_past_the_mark(_Config) ->
    Handle = shell("read go < /dev/stdin; cat", #{busy => return, high_watermark => 100000, mode => passive}),
    Data = binary:copy(<<"x">>, 2000000),
    ok = ?STREAM:command(Handle, Data),
    ?assertEqual(busy, ?STREAM:command(Handle, <<"y">>)),
    closed(Handle),
    %% Who waits is answered when the program reads.
    Waiting = open(["cat"], #{high_watermark => 100000, stdout => null}),
    ok = process_ct:stop(Waiting),
    Self = self(),
    Writer = spawn_link(fun() -> receive go -> ok end, Self ! {written, ?STREAM:command(Waiting, Data)}, receive stop -> ok end end),
    ok = ?STREAM:connect(Waiting, Writer),
    ok = causeway_ct:expect({Waiting, connected}),
    Writer ! go,
    ok = causeway_ct:wait_until(fun() -> {gen, do_call, 4} =:= element(2, process_info(Writer, current_function)) end),
    ?assert(is_integer(?STREAM:os_pid(Waiting))),
    ?assertEqual([], causeway_ct:mailbox()),
    ok = ?STREAM:kill(Waiting, cont),
    ok = causeway_ct:expect({written, ok}),
    ?assertEqual({error, not_owner}, ?STREAM:command(Waiting, <<"z">>)),
    Writer ! stop.

broken_pipe(_Config) ->
    Handle = shell("exec <&-; echo closed; while :; do sleep 1; done"),
    ?assertEqual(<<"closed\n">>, line(Handle)),
    Handle ! {self(), {command, <<"nobody reads this">>}},
    ok = causeway_ct:expect({Handle, {stdin, epipe}}),
    Handle ! {self(), {command, <<"nor this">>}},
    ?assertEqual({error, epipe}, ?STREAM:command(Handle, <<"nor this">>)),
    ?assertEqual([], causeway_ct:mailbox()),
    closed(Handle).

%% As much on standard error as on the other.
much_on_both(_Config) ->
    Script = "head -c 3000000 /dev/zero & head -c 3000000 /dev/zero >&2; wait",
    {Output, Error, normal} = collect(shell(Script, #{stdio_window => 10240})),
    ?assertEqual({3000000, 3000000}, {byte_size(Output), byte_size(Error)}).

%% In every mode it waits in its pipe, and the memory of the node does not grow.
owner_that_does_not_read(_Config) ->
    Handles = [{Most, open(["yes"], #{mode => Mode})}
               || {Most, Mode} <- [{65, active}, {1, once}, {4, {active, 3}}, {0, passive}]],
    [begin
         ok = causeway_ct:wait_until(fun() -> is_blocked(?STREAM:os_pid(Handle)) end),
         Messages = [Message || Message <- causeway_ct:mailbox(), element(1, Message) =:= Handle],
         ?assert(length(Messages) =< Most),
         ?assert(Most =:= 0 orelse Messages =/= []),
         flush(Handle)
     end || {Most, Handle} <- Handles],
    [closed(Handle) || {_, Handle} <- Handles],
    [flush(Handle) || {_, Handle} <- Handles].

%% A process that sleeps in the kernel in write(2) and uses no time.
is_blocked(Process) ->
    {ok, <<State, _/binary>>} = field(Process),
    State =:= $S.

field(Process) ->
    {ok, Stat} = file:read_file(["/proc/", integer_to_list(Process), "/stat"]),
    [_, Rest] = binary:split(Stat, <<") ">>),
    {ok, Rest}.

flush(Handle) ->
    receive
        {Handle, _} -> flush(Handle)
    after 0 -> ok
    end.

so_many(_Config) ->
    Handle = open(["yes"], #{mode => {active, 3}, stdio_window => 100}),
    [?assertEqual(100, byte_size(line(Handle))) || _ <- lists:seq(1, 3)],
    ok = causeway_ct:expect({Handle, passive}),
    ?assertEqual([], causeway_ct:mailbox()),
    ok = ?STREAM:set_mode(Handle, {active, 1}),
    _ = line(Handle),
    ok = causeway_ct:expect({Handle, passive}),
    closed(Handle).

once(_Config) ->
    Handle = open(["cat"], #{mode => once}),
    ok = ?STREAM:command(Handle, <<"one">>),
    ?assertEqual(<<"one">>, line(Handle)),
    ok = ?STREAM:command(Handle, <<"two">>),
    _ = ?STREAM:os_pid(Handle),
    ?assertEqual([], causeway_ct:mailbox()),
    ok = ?STREAM:set_mode(Handle, once),
    ?assertEqual(<<"two">>, line(Handle)),
    %% The end is told without being asked for.
    ok = ?STREAM:close_stdin(Handle),
    ?assertEqual(normal, exit_reason(Handle)).

passive(_Config) ->
    Handle = open(["cat"], #{mode => passive}),
    ?assertEqual({error, timeout}, ?STREAM:recv(Handle, 10)),
    ok = ?STREAM:command(Handle, <<"one">>),
    ?assertEqual({ok, stdout, <<"one">>}, ?STREAM:recv(Handle, 10000)),
    Self = self(),
    spawn_link(fun() -> Self ! {other, ?STREAM:recv(Handle, infinity)} end),
    ok = causeway_ct:wait_until(fun() -> is_received(Handle) end),
    ok = ?STREAM:command(Handle, <<"two">>),
    ok = causeway_ct:expect({other, {ok, stdout, <<"two">>}}),
    ok = ?STREAM:close_stdin(Handle),
    ?assertEqual({exit, normal}, ?STREAM:recv(Handle, 10000)),
    ?assertEqual({error, closed}, ?STREAM:recv(Handle, 10000)),
    ?assertEqual([], causeway_ct:mailbox()).

%% Somebody waits for it.
is_received(Handle) ->
    State = sys:get_state(Handle),
    lists:any(fun(Field) -> is_tuple(Field) andalso tuple_size(Field) =:= 2 andalso queue:is_queue(Field)
                                andalso not queue:is_empty(Field) end, tuple_to_list(State)).

%% All is there, however long nobody asks for it.
passive_end(_Config) ->
    Handle = shell("echo out; echo err >&2; exit 5", #{mode => passive}),
    Pid = ?STREAM:os_pid(Handle),
    ok = process_ct:gone([Pid]),
    Received = lists:sort([?STREAM:recv(Handle, 10000), ?STREAM:recv(Handle, 10000)]),
    ?assertEqual([{ok, stderr, <<"err\n">>}, {ok, stdout, <<"out\n">>}], Received),
    ?assertEqual({exit, {exit_status, 5}}, ?STREAM:recv(Handle, 10000)),
    Silent = open(["true"], #{mode => passive}),
    ok = process_ct:gone([?STREAM:os_pid(Silent)]),
    ?assertEqual({exit, normal}, ?STREAM:recv(Silent, 10000)).

other_modes(_Config) ->
    Handle = shell("echo one; read x; echo two; read x", #{mode => passive}),
    ?assertEqual({ok, stdout, <<"one\n">>}, ?STREAM:recv(Handle, 10000)),
    ok = ?STREAM:set_mode(Handle, active),
    ?assertEqual({error, not_passive}, ?STREAM:recv(Handle, 10000)),
    ok = ?STREAM:command(Handle, <<"\n">>),
    ?assertEqual(<<"two\n">>, line(Handle)),
    ok = ?STREAM:set_mode(Handle, passive),
    ok = ?STREAM:command(Handle, <<"\n">>),
    ok = process_ct:gone([?STREAM:os_pid(Handle)]),
    ok = ?STREAM:set_mode(Handle, active),
    ?assertEqual(normal, exit_reason(Handle)).

small_window(_Config) ->
    Handle = open(["head", "-c", "1000", "/dev/zero"], #{stdio_window => 100}),
    ?assertEqual(100, byte_size(line(Handle))),
    {Output, <<>>, normal} = collect(Handle),
    ?assertEqual(900, byte_size(Output)).

%% A process in the background has the output: it does not outlive the program.
held_output(_Config) ->
    Handle = shell("sleep 1000 & echo $!; exit 4", #{exit_grace => 20}),
    {Output, <<>>, Reason} = collect(Handle),
    ?assertEqual({exit, {exit_status, 4}, output_held}, Reason),
    [Sleep] = numbers(Output),
    ?assertNot(process_ct:is_alive(Sleep)),
    %% One that writes for ever, too.
    Endless = shell("yes & exit 0", #{exit_grace => 20}),
    {_, <<>>, {exit, normal, output_held}} = collect(Endless),
    ok. % what a case returns is written to the log

late_output(_Config) ->
    ?assertEqual({<<"early\nlate\n">>, <<>>, {exit_status, 2}},
                 collect(shell("(sleep 0.05; echo late) & echo early; exit 2", #{exit_grace => 20000}))),
    %% Without output nobody waits for the grace, but for the process.
    {Milliseconds, _} = causeway_ct:milliseconds(
                          fun() -> collect(shell("sleep 1000 >/dev/null 2>&1 & exit 0", #{exit_grace => 20000})) end),
    ?assert(Milliseconds < 10000).

connect(_Config) ->
    Self = self(),
    Handle = open(["cat"]),
    New = spawn(fun() -> receive {Handle, {data, Data}} -> Self ! {got, Data} end, receive stop -> ok end end),
    ok = ?STREAM:connect(Handle, Self),
    ok = causeway_ct:expect({Handle, connected}),
    Old = spawn(fun() -> {ok, Other} = ?STREAM:open("cat"), Self ! {other, Other}, ok = ?STREAM:connect(Other, Self),
                         receive {Other, connected} -> ok end, exit(kill) end),
    Other = receive {other, Pid} -> Pid end,
    Gone = monitor(process, Old),
    receive {'DOWN', Gone, process, Old, _} -> ok end,
    %% The death of the old owner does not matter.
    ok = ?STREAM:command(Other, <<"mine">>),
    ?assertEqual(<<"mine">>, line(Other)),
    closed(Other),
    ok = ?STREAM:connect(Handle, New),
    ok = causeway_ct:expect({Handle, connected}),
    {links, Links} = process_info(self(), links),
    ?assertNot(lists:member(Handle, Links)),
    ?assertEqual({error, not_owner}, ?STREAM:command(Handle, <<"x">>)),
    Handle ! {New, {command, <<"for the new">>}},
    ok = causeway_ct:expect({got, <<"for the new">>}),
    %% That of the new does.
    Process = ?STREAM:os_pid(Handle),
    New ! stop,
    ok = process_ct:gone([Process]),
    %% To a process that is dead: as if it had died afterwards.
    Last = open(["cat"]),
    Monitor = monitor(process, Last),
    ok = ?STREAM:connect(Last, New),
    receive {'DOWN', Monitor, process, Last, noproc} -> ok end.

%% Whoever is not the owner is ignored.
strangers(_Config) ->
    Handle = open(["cat"]),
    Self = self(),
    Stranger = spawn_link(fun() -> Handle ! {self(), {command, <<"not mine">>}}, ok = ?STREAM:close(Handle),
                                   ok = ?STREAM:connect(Handle, self()), Self ! {asked, ?STREAM:command(Handle, <<"x">>)} end),
    ok = causeway_ct:expect({asked, {error, not_owner}}),
    ?assertNot(lists:member({Handle, closed}, causeway_ct:mailbox())),
    ok = ?STREAM:command(Handle, <<"mine">>),
    ?assertEqual(<<"mine">>, line(Handle)),
    closed(Handle),
    ?assertNot(is_process_alive(Stranger)).

await(_Config) ->
    Handle = shell("read x; exit 3"),
    ?assertEqual({error, timeout}, ?STREAM:await(Handle, 10)),
    ok = ?STREAM:command(Handle, <<"\n">>),
    ?assertEqual({ok, {exit_status, 3}}, ?STREAM:await(Handle, 10000)),
    ?assertEqual([], causeway_ct:mailbox()),
    ?assertEqual({error, closed}, ?STREAM:await(Handle, 10000)),
    %% Afterwards, too.
    Other = open(["false"]),
    ok = causeway_ct:wait_until(fun() -> not is_process_alive(Other) end),
    ?assertEqual({ok, {exit_status, 1}}, ?STREAM:await(Other, 10000)),
    Passive = open(["false"], #{mode => passive}),
    ok = process_ct:gone([?STREAM:os_pid(Passive)]),
    ?assertEqual({ok, {exit_status, 1}}, ?STREAM:await(Passive, 10000)).

runs(_Config) ->
    ?assertEqual({ok, #{exit => normal, stdout => <<"hi\n">>, stderr => <<>>}}, ?STREAM:run("echo", ["hi"])),
    ?assertEqual({ok, #{exit => {exit_status, 1}, stdout => <<>>, stderr => <<>>}}, ?STREAM:run(false)),
    {ok, #{exit := {exit_status, 2}, stdout := Output, stderr := <<"e\n">>}} =
        ?STREAM:run("sh", ["-c", "cat; echo e >&2; exit 2"], #{input => binary:copy(<<"in">>, 1000000)}),
    ?assertEqual(2000000, byte_size(Output)),
    %% A program that does not read what it is given.
    ?assertEqual({ok, #{exit => normal, stdout => <<>>, stderr => <<>>}}, ?STREAM:run("true", [], [{input, binary:copy(<<"x">>, 1000000)}])),
    ?assertEqual({error, enoent}, ?STREAM:run("no-such-program")),
    ?assertMatch({error, {badarg, _}}, ?STREAM:run("true", [], #{colour => red})),
    ?assertMatch({error, {badarg, _}}, ?STREAM:run("true", [], #{input => 42})),
    ?assertMatch({error, {badarg, _}}, ?STREAM:run("true", [], #{run_timeout => soon})),
    ?assertEqual([], causeway_ct:mailbox()).

run_limits(_Config) ->
    ?assertEqual({error, {timeout, #{stdout => <<"early\n">>, stderr => <<>>}}},
                 ?STREAM:run("sh", ["-c", "echo early; exec sleep 1000"], #{run_timeout => 2000})),
    %% What is allowed is there to its last byte.
    [begin
         {error, {too_much, #{stdout := Output}}} = ?STREAM:run("yes", [], #{"max_output" => Most}),
         ?assertEqual({Most, binary:copy(<<"y\n">>, Most div 2)}, {byte_size(Output), Output})
     end || Most <- [0, 1000, 1000000]],
    {error, {too_much, #{stdout := <<>>, stderr := <<"erro">>}}} =
        ?STREAM:run("sh", ["-c", "echo error >&2"], #{max_output => 4}),
    ?assertEqual([], causeway_ct:mailbox()).

%% That of the program, not of who looks after it.
os_pids(_Config) ->
    Handle = shell("echo $$; read x"),
    Pid = ?STREAM:os_pid(Handle),
    ?assertEqual([Pid], numbers(line(Handle))),
    closed(Handle),
    ?assertEqual(undefined, ?STREAM:os_pid(Handle)),
    ?assertEqual({error, closed}, ?STREAM:command(Handle, "x")),
    ?assertEqual({error, closed}, ?STREAM:close_stdin(Handle)),
    ?assertEqual({error, exited}, ?STREAM:kill(Handle, term)),
    ?assertEqual({error, closed}, ?STREAM:await(Handle, 1000)),
    ?assertEqual({error, closed}, ?STREAM:set_mode(Handle, once)),
    ok = ?STREAM:close(Handle),
    ok = ?STREAM:connect(Handle, self()),
    ?assertEqual(?STREAM:guardian_path(), ?STREAM:muontrap_path()),
    ?assert(filelib:is_regular(?STREAM:guardian_path())).

arguments_with_everything(_Config) ->
    Arguments = ["", " ", "*", "$HOME", "a\nb", "ä€", <<255>>, atom, binary:copy(<<"x">>, 100000)],
    {Output, <<>>, normal} = collect(open(["printf", "%s|" | Arguments])),
    Expected = ["", " ", "*", "$HOME", "a\nb", <<"ä€"/utf8>>, <<255>>, "atom", binary:copy(<<"x">>, 100000)],
    ?assertEqual(iolist_to_binary([[Text, "|"] || Text <- Expected]), Output).

%% Neither descriptors nor processes, of the system or of Erlang's.
nothing_is_left(_Config) ->
    round(),
    Descriptors = causeway_ct:descriptors(),
    Processes = length(processes()),
    [round() || _ <- lists:seq(1, 20)],
    ok = causeway_ct:settled(fun causeway_ct:descriptors/0, Descriptors),
    ok = causeway_ct:settled(fun() -> length(processes()) end, Processes),
    ok = causeway_ct:settled(fun process_ct:guardians/0, 0).

round() ->
    {ok, _} = ?STREAM:run("echo", ["x"]),
    {error, enoent} = ?STREAM:open("/no/such/program"),
    {error, {cd, _, _}} = ?STREAM:open("true", [], #{cd => "/nowhere"}),
    closed(open(["cat"])),
    {Owner, Monitor} = spawn_monitor(fun() -> {ok, _} = ?STREAM:open("yes"), receive never -> ok end end),
    exit(Owner, kill),
    receive {'DOWN', Monitor, process, Owner, killed} -> ok end,
    Killed = open(["yes"]),
    unlink(Killed),
    exit(Killed, kill),
    flush(Killed).

no_application(_Config) ->
    Code = "io:put_chars(io_lib:format(\"~0p\", [catch causeway_process_stream:open(\"true\")])), halt().",
    {0, Output} = causeway_ct:run_node(Code, []),
    ?assertMatch({match, _}, re:run(Output, "not_started.*ensure_all_started")).
