%% @doc Programs by the thousand while the processors are busy: all of their output, and nothing left of them.
-module(process_soak_SUITE).

-compile([export_all, nowarn_export_all]).

-import(process_ct, [open/1, open/2, shell/1, shell/2, collect/1]).

-include_lib("stdlib/include/assert.hrl").

-define(STREAM, causeway_process_stream).

suite() -> [{timetrap, {minutes, 30}}].

all() ->
    [thousand_outputs, thousand_lines, thousand_terminals, thousand_channels, thousand_inputs, thousand_at_once, trees,
     runaways, killed_nodes, guardians_that_are_killed, gigabytes].

init_per_suite(Config) ->
    true = code:add_patha(filename:dirname(code:which(?MODULE)) ++ "/.."),
    process_ct:start(Config).

end_per_suite(_Config) -> ok.

init_per_testcase(_Case, Config) ->
    {ok, _} = ?STREAM:run("true"),
    [{busy, [shell("while :; do :; done") || _ <- lists:seq(1, erlang:system_info(schedulers))]},
     {descriptors, causeway_ct:descriptors()}, {processes, length(processes())} | Config].

end_per_testcase(_Case, Config) ->
    Count = length(proplists:get_value(busy, Config)),
    ok = causeway_ct:settled(fun process_ct:guardians/0, Count),
    ok = causeway_ct:settled(fun causeway_ct:descriptors/0, proplists:get_value(descriptors, Config)),
    ok = causeway_ct:settled(fun process_ct:zombies/0, 0),
    [begin ok = ?STREAM:close(Handle), receive {Handle, closed} -> ok after 0 -> ok end end || Handle <- proplists:get_value(busy, Config)],
    ok = causeway_ct:settled(fun process_ct:guardians/0, 0).

thousand_outputs(_Config) ->
    Zeros = binary:copy(<<0>>, 65536),
    [?assert({Zeros, <<>>, normal} =:= collect(open(["head", "-c", "65536", "/dev/zero"]))) || _ <- lists:seq(1, 1000)].

thousand_lines(_Config) ->
    [?assertEqual({<<"out\n">>, <<"err\n">>, {exit_status, 7}}, collect(shell("echo out; echo err >&2; exit 7")))
     || _ <- lists:seq(1, 1000)],
    ?assertEqual([], causeway_ct:mailbox()).

thousand_terminals(_Config) ->
    [?assertEqual({<<"out\r\n">>, <<>>, {exit_status, 7}}, collect(shell("echo out; exit 7", #{pty => {24, 80}})))
     || _ <- lists:seq(1, 1000)].

thousand_channels(_Config) ->
    [begin
         {ok, Channel} = py_byte_channel:new(#{max_size => 10000}),
         Handle = open(["head", "-c", "65536", "/dev/zero"], #{stdout => {channel, Channel}}),
         ?assertEqual({ok, 65536}, py_byte_channel:fold(fun(Part, Size) -> Size + byte_size(Part) end, 0, Channel)),
         ?assertEqual({ok, normal}, ?STREAM:await(Handle, infinity))
     end || _ <- lists:seq(1, 1000)].

thousand_inputs(_Config) ->
    Data = binary:copy(<<"x">>, 300000),
    [?assertEqual({ok, #{exit => normal, stdout => <<"300000\n">>, stderr => <<>>}}, ?STREAM:run("wc", ["-c"], #{input => Data}))
     || _ <- lists:seq(1, 1000)].

thousand_at_once(_Config) ->
    Handles = [open(["cat"]) || _ <- lists:seq(1, 1000)],
    [ok = ?STREAM:command(Handle, integer_to_list(Number)) || {Number, Handle} <- lists:enumerate(Handles)],
    [ok = ?STREAM:close_stdin(Handle) || Handle <- Handles],
    [?assertEqual({integer_to_binary(Number), <<>>, normal}, collect(Handle)) || {Number, Handle} <- lists:enumerate(Handles)].

%% Who forks, has a session of its own, ignores SIGTERM, or is a daemon.
trees(_Config) ->
    Script = "trap '' TERM; echo $$; sleep 1000 & echo $!; setsid sh -c 'trap \"\" TERM; echo $$; while :; do sleep 0.01; done' & "
             "(setsid sh -c '(sh -c \"echo \\$PPID\"; exec sleep 1000) & :' &); while :; do sleep 0.01; done",
    [begin
         Handle = shell(Script, #{delay_to_sigkill => Round rem 3 * 20}),
         Numbers = numbers(Handle, <<>>),
         case Round rem 2 of
             0 -> ok = ?STREAM:close(Handle), receive {Handle, closed} -> ok end;
             1 -> unlink(Handle), exit(Handle, kill)
         end,
         ok = process_ct:gone(Numbers)
     end || Round <- lists:seq(1, 100)].

numbers(Handle, Text) ->
    case process_ct:numbers(Text) of
        Numbers when length(Numbers) =:= 4 -> Numbers;
        _ -> numbers(Handle, <<Text/binary, (process_ct:line(Handle))/binary>>)
    end.

%% One generation is gone before it can be looked at, and has left the next.
runaways(Config) ->
    Name = "causeway-runaway-" ++ os:getpid(),
    Script = causeway_ct:script(proplists:get_value(priv_dir, Config), Name, "trap '' TERM\nsetsid \"$0\" &\nexit 0\n"),
    [begin
         Handle = open([Script], #{stdin => null, stdout => null, stderr => null, delay_to_sigkill => 1}),
         _ = ?STREAM:close(Handle),
         ok = causeway_ct:wait_until(fun() -> process_ct:named(Name) =:= 0 end),
         receive {Handle, closed} -> ok; {'EXIT', Handle, _} -> ok end
     end || _ <- lists:seq(1, 50)].

killed_nodes(_Config) ->
    [begin
         ok = causeway_process_end_SUITE:node_killed([]),
         ok = causeway_process_end_SUITE:node_killed_with_unread_input([])
     end || _ <- lists:seq(1, 20)].

guardians_that_are_killed(_Config) ->
    [ok = causeway_process_end_SUITE:guardian_killed([]) || _ <- lists:seq(1, 100)].

%% The memory of the node does not grow with what goes through it.
gigabytes(_Config) ->
    Before = causeway_ct:rss(),
    Handle = open(["head", "-c", "8589934592", "/dev/zero"]),
    ?assertEqual(8589934592, all_of(Handle, 0)),
    ?assert(causeway_ct:rss() - Before < 64 bsl 20).

all_of(Handle, Size) ->
    receive
        {Handle, {data, Data}} -> all_of(Handle, Size + byte_size(Data));
        {'EXIT', Handle, normal} -> Size
    end.
