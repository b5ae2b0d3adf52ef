%% @doc Programs with a terminal of their own: its size, what is typed, and its end.
-module(causeway_process_terminal_SUITE).

-compile([export_all, nowarn_export_all]).

-import(process_ct, [open/2, shell/2, collect/1]).

-include_lib("stdlib/include/assert.hrl").

-define(STREAM, causeway_process_stream).
-define(SIZE, {24, 80}).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [is_a_terminal, outputs_closed, size, interrupt, job_control, end_of_input, end_of_half_a_line, input_of_raw_terminal, nothing_is_lost,
     standard_files, separate_error, background, hang_up, errors, nothing_is_left].

init_per_suite(Config) -> process_ct:start(Config).

end_per_suite(_Config) -> ok.

end_per_testcase(_Case, _Config) ->
    ok = causeway_ct:wait_until(fun() -> process_ct:guardians() =:= 0 end).

%% Output until it has a text, and a text after it.
until(Handle, Text) -> until(Handle, Text, <<>>).

until(Handle, Text, Before) ->
    case binary:split(Before, Text) of
        [_, _] -> Before;
        [_] ->
            receive {Handle, {data, Data}} -> until(Handle, Text, <<Before/binary, Data/binary>>)
            after 30000 -> error({not_there, Text, Before})
            end
    end.

closed(Handle) ->
    ok = ?STREAM:close(Handle),
    receive {Handle, closed} -> ok end.

is_a_terminal(_Config) ->
    ?assertEqual({<<"tty tty tty\r\n">>, <<>>, normal},
                 collect(shell("for n in 0 1 2; do test -t $n && printf tty || printf no; [ $n = 2 ] || printf ' '; done; echo",
                               #{pty => ?SIZE}))),
    %% It is the controlling one.
    ?assertEqual({<<"by name\r\n">>, <<>>, normal}, collect(shell("echo by name > /dev/tty", #{pty => ?SIZE}))),
    %% Without the option there is none.
    {<<>>, Error, {exit_status, _}} = collect(shell("echo by name > /dev/tty", #{})),
    ?assertNotEqual(<<>>, Error).

%% Who closes its outputs has its terminal still, and no signal.
outputs_closed(_Config) ->
    [?assertEqual({<<"up\r\n">>, <<>>, {exit_status, 6}},
                  collect(shell("echo up; exec </dev/null >/dev/null 2>&1; sleep 0.05; exit 6", #{pty => ?SIZE})))
     || _ <- lists:seq(1, 20)].

size(_Config) ->
    Handle = shell("trap 'stty size; exit' WINCH; stty size; while :; do sleep 0.01; done", #{pty => {10, 200}}),
    _ = until(Handle, <<"10 200\r\n">>),
    ok = ?STREAM:resize(Handle, {50, 65535}),
    ?assertEqual({<<"50 65535\r\n">>, <<>>, normal}, collect(Handle)).

%% What is typed as ^C is a signal to who is in the foreground.
interrupt(_Config) ->
    Handle = shell("trap 'echo interrupted; exit 7' INT; echo up; while :; do sleep 0.01; done", #{pty => ?SIZE}),
    _ = until(Handle, <<"up">>),
    ok = ?STREAM:command(Handle, <<3>>),
    {Output, <<>>, {exit_status, 7}} = collect(Handle),
    ?assertMatch({match, _}, re:run(Output, "interrupted")),
    Sleep = open(["sleep", "1000"], #{pty => ?SIZE}),
    ok = ?STREAM:command(Sleep, <<3>>),
    {_, <<>>, {signal, 2}} = collect(Sleep).

%% A shell that is interactive has its jobs in groups of their own.
job_control(_Config) ->
    Handle = open(["sh", "-i"], #{pty => ?SIZE, env => #{"PS1" => "go> ", "ENV" => false}}),
    _ = until(Handle, <<"go> ">>),
    ok = ?STREAM:command(Handle, "sleep 1000; echo status=$?\n"),
    _ = until(Handle, <<"$?\r\n">>),
    %% Then it is in the foreground.
    ok = causeway_ct:wait_until(fun() -> child(?STREAM:os_pid(Handle)) =:= {ok, <<"sleep\n">>} end),
    ok = ?STREAM:command(Handle, <<3>>),
    ok = ?STREAM:command(Handle, "echo still $((40 + 2))\n"),
    _ = until(Handle, <<"still 42">>),
    ok = ?STREAM:command(Handle, "exit 5\n"),
    {_, <<>>, {exit_status, 5}} = collect(Handle).

child(Pid) ->
    {ok, List} = file:read_file(io_lib:format("/proc/~b/task/~b/children", [Pid, Pid])),
    file:read_file(["/proc/", string:trim(binary_to_list(List)), "/comm"]).

end_of_input(_Config) ->
    Handle = open(["cat"], #{pty => ?SIZE}),
    ok = ?STREAM:command(Handle, "line\n"),
    ok = ?STREAM:close_stdin(Handle),
    ?assertEqual({error, closed}, ?STREAM:command(Handle, "more\n")),
    %% What is typed is seen, too.
    ?assertEqual({<<"line\r\nline\r\n">>, <<>>, normal}, collect(Handle)),
    Nothing = open(["cat"], #{pty => ?SIZE}),
    ok = ?STREAM:close_stdin(Nothing),
    ?assertEqual({<<>>, <<>>, normal}, collect(Nothing)).

end_of_half_a_line(_Config) ->
    Handle = open(["wc", "-c"], #{pty => ?SIZE}),
    ok = ?STREAM:command(Handle, "12345"),
    ok = ?STREAM:close_stdin(Handle),
    {Output, <<>>, normal} = collect(Handle),
    ?assertMatch({match, _}, re:run(Output, "5\r\n$")).

%% A terminal that takes all as it is has no end of input: nothing is typed.
input_of_raw_terminal(_Config) ->
    Handle = shell("stty raw -echo; echo up; head -c 3 | od -An -tx1", #{pty => ?SIZE}),
    _ = until(Handle, <<"up">>),
    ok = ?STREAM:command(Handle, <<3, 4>>),
    ok = ?STREAM:command(Handle, "\r"),
    ok = ?STREAM:close_stdin(Handle),
    {Output, <<>>, normal} = collect(Handle),
    ?assertMatch({match, _}, re:run(Output, "03 04 0d")).

nothing_is_lost(_Config) ->
    Zeros = binary:copy(<<0>>, 65536),
    [?assert({Zeros, <<>>, normal} =:= collect(open(["head", "-c", "65536", "/dev/zero"], #{pty => ?SIZE}))) || _ <- lists:seq(1, 30)],
    %% Also by an owner that comes late.
    [begin
         Handle = open(["head", "-c", "60000", "/dev/zero"], #{pty => ?SIZE, mode => passive, exit_grace => 1}),
         ?assertEqual(60000, received(Handle, 0))
     end || _ <- lists:seq(1, 20)].

received(Handle, Size) ->
    case ?STREAM:recv(Handle, 30000) of
        {ok, stdout, Data} -> received(Handle, Size + byte_size(Data));
        {exit, normal} -> Size
    end.

%% What is said to be something else is that.
standard_files(Config) ->
    File = filename:join(proplists:get_value(priv_dir, Config), "typed"),
    ?assertEqual({<<"e\r\n">>, <<>>, normal}, collect(shell("echo o; echo e >&2", #{pty => ?SIZE, stdout => {file, File}}))),
    ?assertEqual({ok, <<"o\n">>}, file:read_file(File)),
    ?assertEqual({<<"o\r\n">>, <<>>, normal}, collect(shell("cat", #{pty => ?SIZE, stdin => {file, File}}))),
    ?assertEqual({<<"o\r\ne\r\n">>, <<>>, normal}, collect(shell("echo o; echo e >&2", #{pty => ?SIZE, stderr => stdout}))).

separate_error(_Config) ->
    ?assertEqual({<<"o\r\n">>, <<"e\n">>, normal}, collect(shell("echo o; echo e >&2", #{pty => ?SIZE, stderr => separate}))).

%% Who is in the background has the terminal still.
background(_Config) ->
    Handle = shell("setsid sh -c 'trap \"\" HUP; echo ready; exec sleep 1000' & sleep 0.2; exit 3", #{pty => ?SIZE, exit_grace => 20}),
    {Output, <<>>, Reason} = collect(Handle),
    ?assertEqual({exit, {exit_status, 3}, output_held}, Reason),
    ?assertMatch({match, _}, re:run(Output, "ready")).

%% The end of the handle is that of the terminal: who listens to that can tidy up.
hang_up(Config) ->
    File = filename:join(proplists:get_value(priv_dir, Config), "hung-up"),
    Handle = shell(["trap 'echo hup > ", File, "; exit' HUP; trap '' TERM; echo up; while :; do sleep 0.01; done"],
                   #{pty => ?SIZE, delay_to_sigkill => 20000}),
    _ = until(Handle, <<"up">>),
    closed(Handle),
    ok = causeway_ct:wait_until(fun() -> file:read_file(File) =:= {ok, <<"hup\n">>} end).

errors(_Config) ->
    [?assertMatch({error, {badarg, _}}, ?STREAM:open("true", [], #{pty => Size}))
     || Size <- [true, {0, 80}, {24, 65536}, {24}, {a, b}, [24, 80]]],
    Without = open(["cat"], #{}),
    ?assertEqual({error, no_pty}, ?STREAM:resize(Without, ?SIZE)),
    ?assertMatch({error, {badarg, _}}, ?STREAM:resize(Without, {0, 0})),
    closed(Without),
    ?assertEqual({error, closed}, ?STREAM:resize(Without, ?SIZE)).

nothing_is_left(_Config) ->
    Round = fun() ->
                {_, <<>>, normal} = collect(open(["true"], #{pty => ?SIZE})),
                closed(open(["cat"], #{pty => ?SIZE})),
                {error, enoent} = ?STREAM:open("/no/such/program", [], #{pty => ?SIZE})
            end,
    Round(),
    Descriptors = causeway_ct:descriptors(),
    [Round() || _ <- lists:seq(1, 20)],
    ok = causeway_ct:settled(fun causeway_ct:descriptors/0, Descriptors).
