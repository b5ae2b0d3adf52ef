%% @doc Programs joined with byte channels: back-pressure both ways, the end, and what fails.
-module(causeway_process_channel_SUITE).

-compile([export_all, nowarn_export_all]).

-import(process_ct, [open/1, open/2, shell/1, shell/2, exit_reason/1, line/1]).

-include_lib("stdlib/include/assert.hrl").

-define(STREAM, causeway_process_stream).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [from_a_program, to_a_program, through, from_the_beginning, both_outputs, output_waits, input_waits, after_the_end,
     closed_by_the_receiver, aborted_by_the_receiver, aborted_by_the_sender, unread_input, handle_closed, handle_killed,
     guardian_killed, held_output, full_at_the_end, in_other_modes, for_a_module, other_processes, errors, many_messages,
     to_python, nothing_is_left].

init_per_suite(Config) -> process_ct:start(Config).

end_per_suite(_Config) -> ok.

end_per_testcase(_Case, _Config) ->
    ok = causeway_ct:wait_until(fun() -> process_ct:guardians() =:= 0 end).

channel() -> channel(65536).

channel(Size) ->
    {ok, Channel} = py_byte_channel:new(#{max_size => Size}),
    Channel.

%% All up to the end.
all_of(Channel) ->
    {ok, Parts} = py_byte_channel:fold(fun(Part, Before) -> [Part | Before] end, [], Channel),
    iolist_to_binary(lists:reverse(Parts)).

from_a_program(_Config) ->
    Channel = channel(),
    Handle = shell("read x; echo out; echo err >&2; exit 3"),
    ok = ?STREAM:stream(Handle, stdout, Channel),
    ok = ?STREAM:command(Handle, "\n"),
    ?assertEqual(<<"out\n">>, all_of(Channel)),
    %% The owner gets the rest.
    ok = causeway_ct:expect({Handle, {error, <<"err\n">>}}),
    ?assertEqual({exit_status, 3}, exit_reason(Handle)),
    ?assertEqual([], causeway_ct:mailbox()).

to_a_program(_Config) ->
    Channel = channel(),
    Handle = open(["cat"]),
    ok = ?STREAM:stream(Handle, stdin, Channel),
    ok = py_byte_channel:send(Channel, <<"by channel">>),
    ?assertEqual(<<"by channel">>, line(Handle)),
    %% The owner may write as well.
    ok = ?STREAM:command(Handle, <<"by owner">>),
    ?assertEqual(<<"by owner">>, line(Handle)),
    ok = py_byte_channel:close(Channel),
    ?assertEqual(normal, exit_reason(Handle)).

through(_Config) ->
    {In, Out} = {channel(), channel()},
    Handle = open(["cat"], #{stdin => {channel, In}, stdout => {channel, Out}}),
    Data = binary:copy(<<"0123456789abcdef">>, 2000000),
    _ = spawn_link(fun() -> send_all(In, Data) end),
    ?assert(Data =:= all_of(Out)),
    ?assertEqual(normal, exit_reason(Handle)).

send_all(Channel, <<Part:10007/binary, Rest/binary>>) ->
    ok = py_byte_channel:send(Channel, Part, infinity),
    send_all(Channel, Rest);
send_all(Channel, Last) ->
    ok = py_byte_channel:send(Channel, Last, infinity),
    ok = py_byte_channel:close(Channel).

%% Nothing has gone to the owner before.
from_the_beginning(_Config) ->
    [begin
         Channel = channel(),
         Handle = open(["echo", "x"], #{stdout => {channel, Channel}}),
         ?assertEqual(<<"x\n">>, all_of(Channel)),
         ?assertEqual(normal, exit_reason(Handle))
     end || _ <- lists:seq(1, 50)],
    ?assertEqual([], causeway_ct:mailbox()).

both_outputs(_Config) ->
    {Output, Error} = {channel(), channel()},
    Handle = shell("head -c 1000000 /dev/zero & head -c 1000001 /dev/zero >&2; wait",
                   #{stdout => {channel, Output}, stderr => {channel, Error}}),
    Self = self(),
    _ = spawn_link(fun() -> Self ! {error, byte_size(all_of(Error))} end),
    ?assertEqual(1000000, byte_size(all_of(Output))),
    ok = causeway_ct:expect({error, 1000001}),
    ?assertEqual(normal, exit_reason(Handle)).

%% The channel that nobody reads holds what it may, and the program waits.
output_waits(_Config) ->
    Channel = channel(100000),
    Handle = open(["yes"], #{stdout => {channel, Channel}}),
    ok = causeway_ct:wait_until(fun() -> is_asleep(?STREAM:os_pid(Handle)) andalso is_full(Channel) end),
    #{size := Size} = py_byte_channel:info(Channel),
    ?assert(Size =< 100000),
    %% And goes on.
    [{ok, <<"y\n", _/binary>>} = py_byte_channel:recv(Channel) || _ <- lists:seq(1, 1000)],
    closed(Handle).

is_asleep(Process) ->
    {ok, Stat} = file:read_file(["/proc/", integer_to_list(Process), "/stat"]),
    [_, <<State, _/binary>>] = binary:split(Stat, <<") ">>),
    State =:= $S.

is_full(Channel) -> maps:get(size, py_byte_channel:info(Channel)) > 30000.

closed(Handle) ->
    ok = ?STREAM:close(Handle),
    ok = causeway_ct:expect({Handle, closed}).

input_waits(_Config) ->
    Channel = channel(100000),
    Handle = open(["cat"], #{stdin => {channel, Channel}, stdout => null, high_watermark => 100000}),
    ok = process_ct:stop(Handle),
    Sent = fill(Channel, binary:copy(<<"x">>, 10000), 0),
    %% What the pipe, the queue and the channel hold.
    ?assert(Sent < 1000000),
    ok = ?STREAM:kill(Handle, cont),
    ok = py_byte_channel:send(Channel, <<"goes on">>, 30000),
    ok = py_byte_channel:close(Channel),
    ?assertEqual(normal, exit_reason(Handle)).

%% Until there has been no room for a while.
fill(Channel, Data, Sent) ->
    case py_byte_channel:send(Channel, Data, 200) of
        ok when Sent < 10000000 -> fill(Channel, Data, Sent + byte_size(Data));
        _ -> Sent
    end.

%% What is left of an output that is over already.
after_the_end(_Config) ->
    Handle = shell("exec >&-; echo closed >&2; read x"),
    ok = causeway_ct:expect({Handle, {error, <<"closed\n">>}}),
    Channel = channel(),
    ok = ?STREAM:stream(Handle, stdout, Channel),
    ?assertEqual(<<>>, all_of(Channel)),
    closed(Handle).

closed_by_the_receiver(_Config) ->
    Channel = channel(),
    Handle = open(["yes"], #{stdout => {channel, Channel}}),
    {ok, _} = py_byte_channel:recv(Channel),
    ok = py_byte_channel:close(Channel),
    {ok, _} = py_byte_channel:fold(fun(_, Acc) -> Acc end, x, Channel),
    ?assertEqual({signal, 13}, exit_reason(Handle)).

aborted_by_the_receiver(_Config) ->
    Channel = channel(),
    Handle = open(["yes"], #{stdout => {channel, Channel}}),
    {ok, _} = py_byte_channel:recv(Channel),
    ok = py_byte_channel:abort(Channel, enough),
    ?assertEqual({signal, 13}, exit_reason(Handle)).

aborted_by_the_sender(_Config) ->
    Channel = channel(),
    Handle = open(["cat"], #{stdin => {channel, Channel}}),
    ok = py_byte_channel:send(Channel, <<"half">>),
    ?assertEqual(<<"half">>, line(Handle)),
    ok = py_byte_channel:abort(Channel, lost),
    ok = causeway_ct:expect({Handle, {stdin, {aborted, lost}}}),
    ?assertEqual(normal, exit_reason(Handle)).

%% Who sends to a program that does not read, or is gone, hears of it.
unread_input(_Config) ->
    Channel = channel(),
    Handle = shell("exec <&-; echo closed; exec sleep 1000", #{stdin => {channel, Channel}}),
    ?assertEqual(<<"closed\n">>, line(Handle)),
    _ = py_byte_channel:send(Channel, <<"nobody reads this">>),
    ok = causeway_ct:wait_until(fun() -> maps:get(aborted, py_byte_channel:info(Channel)) end),
    ?assertEqual({error, {aborted, epipe}}, py_byte_channel:send(Channel, <<"x">>)),
    closed(Handle),
    Gone = channel(),
    ?assertEqual(normal, exit_reason(open(["true"], #{stdin => {channel, Gone}}))),
    ?assertEqual({error, {aborted, epipe}}, py_byte_channel:send(Gone, <<"x">>)),
    ?assertEqual([], causeway_ct:mailbox()).

handle_closed(_Config) ->
    {In, Out} = {channel(), channel()},
    Handle = open(["cat"], #{stdin => {channel, In}, stdout => {channel, Out}}),
    closed(Handle),
    ?assertEqual({error, {aborted, closed}}, py_byte_channel:recv(Out)),
    ?assertEqual({error, {aborted, epipe}}, py_byte_channel:send(In, <<"x">>, infinity)).

handle_killed(_Config) ->
    Channel = channel(),
    Test = self(),
    {Owner, Monitor} = spawn_monitor(fun() -> Test ! open(["cat"], #{stdout => {channel, Channel}}), receive stop -> exit(crash) end end),
    _ = receive Handle when is_pid(Handle) -> Handle end,
    Owner ! stop,
    receive {'DOWN', Monitor, process, Owner, crash} -> ok end,
    ?assertEqual({error, {aborted, crash}}, py_byte_channel:recv(Channel)).

guardian_killed(_Config) ->
    Channel = channel(),
    Handle = open(["cat"], #{stdout => {channel, Channel}}),
    {ok, Status} = file:read_file(io_lib:format("/proc/~b/status", [?STREAM:os_pid(Handle)])),
    {match, [Guardian]} = re:run(Status, "PPid:\\s+(\\d+)", [{capture, all_but_first, list}]),
    "0" = os:cmd("kill -9 " ++ Guardian ++ "; printf $?"),
    ?assertEqual(guardian_killed, exit_reason(Handle)),
    ?assertEqual({error, {aborted, guardian_killed}}, py_byte_channel:recv(Channel)).

held_output(_Config) ->
    Channel = channel(),
    Handle = shell("sleep 1000 & echo x; exit 4", #{exit_grace => 20, stdout => {channel, Channel}}),
    ?assertEqual({exit, {exit_status, 4}, output_held}, exit_reason(Handle)),
    ?assertEqual(<<"x\n">>, all_of(Channel)).

%% All of the output is in the channel before the end is told.
full_at_the_end(_Config) ->
    Channel = channel(1000),
    Handle = open(["head", "-c", "50000", "/dev/zero"], #{stdout => {channel, Channel}, exit_grace => 1, stdio_window => 700}),
    ok = process_ct:gone([?STREAM:os_pid(Handle)]),
    ?assertEqual([], causeway_ct:mailbox()),
    ?assertEqual(50000, byte_size(all_of(Channel))),
    ?assertEqual(normal, exit_reason(Handle)).

in_other_modes(_Config) ->
    [begin
         Channel = channel(),
         Handle = shell("head -c 300000 /dev/zero; echo err >&2", #{mode => Mode, stdout => {channel, Channel}}),
         ?assertEqual(300000, byte_size(all_of(Channel))),
         case Mode of
             passive ->
                 ?assertEqual({ok, stderr, <<"err\n">>}, ?STREAM:recv(Handle, 10000)),
                 ?assertEqual({exit, normal}, ?STREAM:recv(Handle, 10000));
             once ->
                 ok = causeway_ct:expect({Handle, {error, <<"err\n">>}}),
                 ?assertEqual(normal, exit_reason(Handle))
         end
     end || Mode <- [passive, once]].

for_a_module(_Config) ->
    Channel = channel(),
    {ok, Handle} = ?STREAM:start_link(process_callbacks, "sh", ["-c", "echo out; echo err >&2"], self(), #{stdout => {channel, Channel}}),
    ok = causeway_ct:expect({stderr, <<"err\n">>}),
    ok = causeway_ct:expect({exit, normal}),
    ?assertEqual(<<"out\n">>, all_of(Channel)),
    unlink(Handle).

%% Only the owner may.
other_processes(_Config) ->
    Channel = channel(),
    Handle = open(["cat"]),
    Self = self(),
    _ = spawn_link(fun() -> Self ! {asked, ?STREAM:stream(Handle, stdout, Channel)} end),
    ok = causeway_ct:expect({asked, {error, not_owner}}),
    closed(Handle),
    ?assertEqual({error, closed}, ?STREAM:stream(Handle, stdout, Channel)).

errors(_Config) ->
    Handle = open(["cat"]),
    ?assertMatch({error, {badarg, _}}, ?STREAM:stream(Handle, stdlog, channel())),
    [?assertMatch({error, {badarg, _}}, ?STREAM:stream(Handle, stdout, Wrong)) || Wrong <- [make_ref(), channel, self()]],
    [?assertMatch({error, {badarg, _}}, ?STREAM:open("true", [], #{Which => {channel, make_ref()}})) || Which <- [stdin, stdout, stderr]],
    ok = ?STREAM:stream(Handle, stdout, channel()),
    ?assertEqual({error, already_streamed}, ?STREAM:stream(Handle, stdout, channel())),
    ok = ?STREAM:stream(Handle, stdin, channel()),
    ?assertEqual({error, already_streamed}, ?STREAM:stream(Handle, stdin, channel())),
    closed(Handle).

%% Others have their turn, also those that wait for the handle.
many_messages(_Config) ->
    {ok, Channel} = py_byte_channel:new(),
    [ok = py_byte_channel:send(Channel, <<"x">>) || _ <- lists:seq(1, 100000)],
    ok = py_byte_channel:close(Channel),
    Handle = open(["wc", "-c"], #{stdin => {channel, Channel}}),
    ?assert(is_integer(?STREAM:os_pid(Handle))),
    ?assertEqual(<<"100000\n">>, line(Handle)),
    ?assertEqual(normal, exit_reason(Handle)).

%% Erlang's program, Python's reading.
to_python(_Config) ->
    Channel = channel(),
    Handle = open(["seq", "100000"], #{stdout => {channel, Channel}}),
    ok = py:exec("def total(channel):\n    with channel.makefile('r') as lines: return sum(map(int, lines))\n"),
    ?assertEqual({ok, 5000050000}, py:call('__main__', total, [Channel])),
    ?assertEqual(normal, exit_reason(Handle)).

nothing_is_left(_Config) ->
    Round = fun() ->
                {In, Out} = {channel(), channel()},
                closed(open(["cat"], #{stdin => {channel, In}, stdout => {channel, Out}})),
                closed(open(["yes"], #{stdout => {channel, channel(1)}}))
            end,
    Round(),
    Descriptors = causeway_ct:descriptors(),
    Processes = length(processes()),
    [Round() || _ <- lists:seq(1, 20)],
    ok = causeway_ct:settled(fun causeway_ct:descriptors/0, Descriptors),
    ok = causeway_ct:settled(fun() -> length(processes()) end, Processes).
