%% @doc What a byte channel is connected with: other channels, files and sockets, folds, and Python's files.
-module(py_byte_channel_pipe_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("kernel/include/file.hrl").

-define(HELPERS, channel_helpers).
-define(CHANNEL, py_byte_channel).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [to_a_channel, to_a_channel_left_open, to_a_file, to_open_files, to_a_tcp_socket, to_a_socket, no_faster_than_the_target,
     no_faster_than_a_socket, source_is_aborted, channel_target_fails, chain_of_pipes, file_cannot_be_opened, file_fails,
     file_of_no_channel, socket_is_gone, wrong_targets, piping_process_is_killed, folds, fold_of_an_aborted_channel,
     fold_that_raises, through_python, json_from_a_channel, lines_into_a_channel, archive_from_a_channel, copyfileobj, csv_both_ways].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> channel_ct:stop(Config).

init_per_testcase(_Case, Config) -> Config.

end_per_testcase(_Case, _Config) -> ?assertEqual([], causeway_ct:mailbox()).

messages() ->
    [<<>>, <<"a">>, crypto:strong_rand_bytes(100000), <<>>, <<"end">>].

%% A closed channel with these messages.
source(Messages) ->
    Channel = channel_ct:new(),
    ok = channel_ct:fill(Channel, Messages),
    ok = ?CHANNEL:close(Channel),
    Channel.

to_a_channel(_Config) ->
    Messages = messages(),
    Target = channel_ct:new(),
    ?assertEqual({ok, iolist_size(Messages)}, ?CHANNEL:pipe(source(Messages), Target)),
    ?assertEqual(Messages, channel_ct:drain(Target)),
    ?assertMatch(#{closed := true, aborted := false}, ?CHANNEL:info(Target)),
    %% With little room.
    Narrow = channel_ct:new(10),
    {Pipe, Monitor} = spawn_monitor(fun() -> exit(?CHANNEL:pipe(source(Messages), Narrow)) end),
    ?assertEqual({ok, lists:reverse(Messages)}, ?CHANNEL:fold(fun(Message, Acc) -> [Message | Acc] end, [], Narrow)),
    Size = iolist_size(Messages),
    receive {'DOWN', Monitor, process, Pipe, Reason} -> ?assertEqual({ok, Size}, Reason) end.

to_a_channel_left_open(_Config) ->
    Target = channel_ct:new(),
    {ok, 1} = ?CHANNEL:pipe(source([<<"1">>]), Target, #{close => false}),
    {ok, 1} = ?CHANNEL:pipe(source([<<"2">>]), Target, #{close => false}),
    ?assertMatch(#{closed := false}, ?CHANNEL:info(Target)),
    {ok, 0} = ?CHANNEL:pipe(source([]), Target, #{close => true}),
    ?assertEqual([<<"1">>, <<"2">>], channel_ct:drain(Target)),
    ?assertEqual({error, closed}, ?CHANNEL:recv(Target)).

to_a_file(Config) ->
    Messages = messages(),
    Name = filename:join(proplists:get_value(priv_dir, Config), "piped"),
    ok = file:write_file(Name, <<"what was there">>),
    Descriptors = causeway_ct:descriptors(),
    ?assertEqual({ok, iolist_size(Messages)}, ?CHANNEL:pipe(source(Messages), {file, Name})),
    ?assertEqual({ok, iolist_to_binary(Messages)}, file:read_file(Name)),
    ?assertEqual({ok, 0}, ?CHANNEL:pipe(source([]), {file, causeway_python:bytes(Name)})),
    ?assertEqual({ok, <<>>}, file:read_file(Name)),
    ok = causeway_ct:settled(fun causeway_ct:descriptors/0, Descriptors).

to_open_files(Config) ->
    Messages = messages(),
    [begin
         Name = filename:join(proplists:get_value(priv_dir, Config), "open"),
         {ok, File} = file:open(Name, [write | Modes]),
         ok = file:write(File, <<"before ">>),
         ?assertEqual({ok, iolist_size(Messages)}, ?CHANNEL:pipe(source(Messages), File)),
         ok = file:write(File, <<" after">>),
         ok = file:close(File),
         ?assertEqual({ok, iolist_to_binary(["before ", Messages, " after"])}, file:read_file(Name)),
         {ok, Closed} = file:open(Name, [write | Modes]),
         {ok, 1} = ?CHANNEL:pipe(source([<<"x">>]), Closed, #{close => true}),
         ?assertMatch({error, _}, file:write(Closed, <<"y">>))
     end || Modes <- [[raw, binary], [binary]]].

tcp_pair() ->
    {ok, Listen} = gen_tcp:listen(0, [binary, {active, false}, {ip, {127, 0, 0, 1}}, {reuseaddr, true}]),
    {ok, Port} = inet:port(Listen),
    {ok, One} = gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, false}]),
    {ok, Other} = gen_tcp:accept(Listen),
    ok = gen_tcp:close(Listen),
    {One, Other}.

to_a_tcp_socket(_Config) ->
    Messages = messages(),
    {One, Other} = tcp_pair(),
    Size = iolist_size(Messages),
    ?assertEqual({ok, Size}, ?CHANNEL:pipe(source(Messages), One)),
    ?assertEqual({ok, iolist_to_binary(Messages)}, gen_tcp:recv(Other, Size, 5000)),
    {ok, 1} = ?CHANNEL:pipe(source([<<"x">>]), One, #{close => true}),
    ?assertEqual({ok, <<"x">>}, gen_tcp:recv(Other, 0, 5000)),
    ?assertEqual({error, closed}, gen_tcp:recv(Other, 0, 5000)),
    ok = gen_tcp:close(Other).

to_a_socket(_Config) ->
    Messages = messages(),
    {ok, Listen} = socket:open(inet, stream, tcp),
    ok = socket:bind(Listen, #{family => inet, addr => loopback, port => 0}),
    ok = socket:listen(Listen),
    {ok, Address} = socket:sockname(Listen),
    {ok, One} = socket:open(inet, stream, tcp),
    ok = socket:connect(One, Address),
    {ok, Other} = socket:accept(Listen),
    Size = iolist_size(Messages),
    ?assertEqual({ok, Size}, ?CHANNEL:pipe(source(Messages), One)),
    ?assertEqual({ok, iolist_to_binary(Messages)}, socket:recv(Other, Size, 5000)),
    ok = socket:close(Other),
    %% The peer says that it is gone when something has been sent to it.
    Endless = channel_ct:new(1000),
    {Feeder, Monitor} = spawn_monitor(fun() -> exit(feed(Endless)) end),
    {error, Reason} = ?CHANNEL:pipe(Endless, One),
    receive {'DOWN', Monitor, process, Feeder, Outcome} -> ?assertEqual({error, {aborted, Reason}}, Outcome) end,
    [ok = socket:close(Socket) || Socket <- [One, Listen]].

feed(Channel) ->
    case ?CHANNEL:send(Channel, <<"x">>, infinity) of
        ok -> feed(Channel);
        Error -> Error
    end.

%% At most one batch is on the way.
no_faster_than_the_target(_Config) ->
    Source = channel_ct:new(),
    Target = channel_ct:new(100000),
    Message = binary:copy(<<"m">>, 50000),
    ok = channel_ct:fill(Source, lists:duplicate(200, Message)),
    ok = ?CHANNEL:close(Source),
    {Pipe, Monitor} = spawn_monitor(fun() -> exit(?CHANNEL:pipe(Source, Target)) end),
    ok = channel_ct:waiting(Target, 0, 1),
    #{bytes_out := Taken} = ?CHANNEL:info(Source),
    ?assert(Taken =< 1048576),
    ?assertEqual({ok, 200}, ?CHANNEL:fold(fun(M, N) when M =:= Message -> N + 1 end, 0, Target)),
    receive {'DOWN', Monitor, process, Pipe, Reason} -> ?assertEqual({ok, 10000000}, Reason) end.

no_faster_than_a_socket(_Config) ->
    {One, Other} = tcp_pair(),
    Source = channel_ct:new(100000),
    {Feeder, Fed} = spawn_monitor(fun() ->
                                          [ok = ?CHANNEL:send(Source, binary:copy(<<N>>, 50000), infinity) || N <- lists:seq(1, 200)],
                                          ok = ?CHANNEL:close(Source)
                                  end),
    {Pipe, Monitor} = spawn_monitor(fun() -> exit(?CHANNEL:pipe(Source, One, #{close => false})) end),
    %% Nobody reads: so the pipe stands still, and with it who sends.
    ok = causeway_ct:wait_until(fun() ->
                                        Before = ?CHANNEL:info(Source),
                                        receive after 50 -> ok end,
                                        Before =:= ?CHANNEL:info(Source) andalso maps:get(waiting_senders, Before) =:= 1
                                end),
    ?assert(maps:get(messages_out, ?CHANNEL:info(Source)) < 200),
    {ok, All} = gen_tcp:recv(Other, 10000000, 10000),
    ?assertEqual(iolist_to_binary([binary:copy(<<N>>, 50000) || N <- lists:seq(1, 200)]), All),
    receive {'DOWN', Fed, process, Feeder, normal} -> ok end,
    receive {'DOWN', Monitor, process, Pipe, Reason} -> ?assertEqual({ok, 10000000}, Reason) end,
    [ok = gen_tcp:close(Socket) || Socket <- [One, Other]].

%% Ends that are no good ends

source_is_aborted(Config) ->
    Source = channel_ct:new(),
    Target = channel_ct:new(),
    ok = ?CHANNEL:abort(Source, {lost, 1}),
    ?assertEqual({error, {aborted, {lost, 1}}}, ?CHANNEL:pipe(Source, Target)),
    ?assertEqual({error, {aborted, {lost, 1}}}, ?CHANNEL:recv(Target)),
    Open = channel_ct:new(),
    ?assertEqual({error, {aborted, {lost, 1}}}, ?CHANNEL:pipe(Source, Open, #{close => false})),
    ?assertEqual({error, empty}, ?CHANNEL:try_receive(Open)),
    Name = filename:join(proplists:get_value(priv_dir, Config), "aborted"),
    ?assertEqual({error, {aborted, {lost, 1}}}, ?CHANNEL:pipe(Source, {file, Name})),
    %% Also when it is aborted while the pipe waits.
    [Later, LaterTarget] = [channel_ct:new(), channel_ct:new()],
    {Pipe, Monitor} = spawn_monitor(fun() -> exit(?CHANNEL:pipe(Later, LaterTarget)) end),
    ok = channel_ct:waiting(Later, 1, 0),
    {ok, none} = py:call(erlang, 'ByteChannel.abort', [Later, <<"later">>]),
    receive {'DOWN', Monitor, process, Pipe, Reason} -> ?assertEqual({error, {aborted, <<"later">>}}, Reason) end,
    ?assertEqual({error, {aborted, <<"later">>}}, ?CHANNEL:recv(LaterTarget)).

%% Who sends to the source hears of it.
channel_target_fails(_Config) ->
    [begin
         Source = channel_ct:new(),
         Target = channel_ct:new(),
         ok = channel_ct:fill(Source, [<<"1">>, <<"2">>]),
         ok = End(Target),
         ?assertEqual({error, Reason}, ?CHANNEL:pipe(Source, Target)),
         ?assertEqual({error, {aborted, Abortion}}, ?CHANNEL:send(Source, <<"3">>))
     end || {End, Reason, Abortion} <- [{fun ?CHANNEL:close/1, closed, closed},
                                        {fun(Target) -> ?CHANNEL:abort(Target, why) end, {aborted, why}, why}]].

%% The first cause goes through all of them, in both directions.
chain_of_pipes(_Config) ->
    [begin
         Channels = [First | _] = [channel_ct:new(1) || _ <- lists:seq(1, 5)],
         Pipes = [spawn_monitor(fun() -> exit(?CHANNEL:pipe(From, To)) end)
                  || {From, To} <- lists:zip(lists:droplast(Channels), tl(Channels))],
         ok = ?CHANNEL:send(First, <<"through">>),
         ?assertEqual({ok, <<"through">>}, ?CHANNEL:recv(lists:last(Channels))),
         ok = ?CHANNEL:abort(Aborted(Channels), cause),
         %% Those above hear of it when they send.
         _ = feed(First),
         [receive {'DOWN', Monitor, process, Pipe, Reason} -> ?assertEqual({error, {aborted, cause}}, Reason) end || {Pipe, Monitor} <- Pipes],
         [?assertEqual({error, {aborted, cause}}, ?CHANNEL:try_receive(Channel)) || Channel <- Channels]
     end || Aborted <- [fun erlang:hd/1, fun lists:last/1, fun(Channels) -> lists:nth(3, Channels) end]].

file_cannot_be_opened(Config) ->
    Source = source([<<"x">>]),
    Absent = filename:join([proplists:get_value(priv_dir, Config), "absent", "file"]),
    ?assertEqual({error, enoent}, ?CHANNEL:pipe(Source, {file, Absent})),
    %% Nothing was taken: another target may have it.
    ?assertEqual({ok, <<"x">>}, ?CHANNEL:recv(Source)).

file_fails(_Config) ->
    Source = channel_ct:new(),
    ok = ?CHANNEL:send(Source, <<"x">>),
    Descriptors = causeway_ct:descriptors(),
    ?assertEqual({error, enospc}, ?CHANNEL:pipe(Source, {file, "/dev/full"})),
    ?assertEqual({error, {aborted, enospc}}, ?CHANNEL:send(Source, <<"y">>)),
    ok = causeway_ct:settled(fun causeway_ct:descriptors/0, Descriptors).

%% A mistake costs no file.
file_of_no_channel(Config) ->
    Name = filename:join(proplists:get_value(priv_dir, Config), "kept"),
    ok = file:write_file(Name, <<"precious">>),
    ?assertError(badarg, ?CHANNEL:pipe(make_ref(), {file, Name})),
    ?assertError(badarg, ?CHANNEL:pipe(source([]), {file, Name}, #{closed => true})),
    ?assertEqual({ok, <<"precious">>}, file:read_file(Name)).

socket_is_gone(_Config) ->
    {One, Other} = tcp_pair(),
    ok = gen_tcp:close(One),
    Source = channel_ct:new(),
    ok = ?CHANNEL:send(Source, <<"x">>),
    ?assertEqual({error, closed}, ?CHANNEL:pipe(Source, One)),
    ?assertEqual({error, {aborted, closed}}, ?CHANNEL:recv(Source)),
    ok = gen_tcp:close(Other).

wrong_targets(_Config) ->
    Source = source([<<"x">>]),
    [?assertError(badarg, ?CHANNEL:pipe(Source, Target)) || Target <- [1, atom, "name", <<"name">>, {}, {file}, make_ref(), #{}]],
    [?assertError(badarg, ?CHANNEL:pipe(Source, channel_ct:new(), Options)) || Options <- [[], close, #{close => 1}, #{close => true, more => 1}]],
    ?assertEqual({ok, <<"x">>}, ?CHANNEL:recv(Source)).

%% What the pipe had taken and not passed on yet goes with it; what is queued does not, and the channels stay usable.
piping_process_is_killed(_Config) ->
    [Source, Target] = [channel_ct:new(), channel_ct:new(1)],
    {Pipe, Monitor} = spawn_monitor(fun() -> ?CHANNEL:pipe(Source, Target) end),
    ok = channel_ct:fill(Source, [<<"1">>]),
    ok = channel_ct:waiting(Source, 1, 0),
    exit(Pipe, kill),
    receive {'DOWN', Monitor, process, Pipe, killed} -> ok end,
    ok = channel_ct:fill(Source, [<<"2">>]),
    ok = channel_ct:settled(Source, 1),
    ?assertEqual([[<<"2">>], [<<"1">>]], [channel_ct:drain(Source), channel_ct:drain(Target)]).

%% Folds

folds(_Config) ->
    Messages = messages(),
    ?assertEqual({ok, lists:reverse(Messages)}, ?CHANNEL:fold(fun(Message, Acc) -> [Message | Acc] end, [], source(Messages))),
    ?assertEqual({ok, none_at_all}, ?CHANNEL:fold(fun(_, _) -> error(called) end, none_at_all, source([]))),
    %% While others send.
    Channel = channel_ct:new(100),
    {ok, none} = py:call(?HELPERS, thread_sends_numbers, [self(), <<"sent">>, Channel, 10000]),
    ?assertEqual({ok, 10000}, ?CHANNEL:fold(fun(Message, N) -> N = binary_to_integer(Message), N + 1 end, 0, Channel)),
    ?assertEqual(none, channel_ct:outcome(<<"sent">>)).

fold_of_an_aborted_channel(_Config) ->
    Channel = channel_ct:new(),
    ok = ?CHANNEL:abort(Channel, reason),
    ?assertEqual({error, {aborted, reason}}, ?CHANNEL:fold(fun(_, Acc) -> Acc end, 0, Channel)).

fold_that_raises(_Config) ->
    Channel = source([<<"1">>, <<"2">>]),
    ?assertError(mine, ?CHANNEL:fold(fun(_, _) -> error(mine) end, 0, Channel)),
    %% What it has not seen is still there.
    ?assertEqual([<<"2">>], channel_ct:drain(Channel)).

%% Python

%% There and back, through narrow channels, with the same digest at both ends.
through_python(_Config) ->
    Blocks = [crypto:strong_rand_bytes(Size) || Size <- [0, 1, 64, 20000, 65536, 1000000] ++ lists:duplicate(200, 3000)],
    [begin
         [Source, Target] = [channel_ct:new(65536), channel_ct:new(65536)],
         Call = py:spawn_call(?HELPERS, Pump, [Source, Target]),
         {Feeder, Monitor} = spawn_monitor(fun() -> exit(?CHANNEL:pipe(source(Blocks), Source)) end),
         {ok, Received} = ?CHANNEL:fold(fun(Message, Acc) -> [Message | Acc] end, [], Target),
         ?assertEqual(Blocks, lists:reverse(Received)),
         Number = length(Blocks),
         ?assertEqual({ok, {Number, crypto:hash(blake2b, Blocks)}}, py:await(Call)),
         receive {'DOWN', Monitor, process, Feeder, {ok, _}} -> ok end
     end || Pump <- [pump, pump_buffers]].

json_from_a_channel(_Config) ->
    %% Cut anywhere, also within a character, and with empty messages between.
    Text = <<"{\"name\": \"Ünïcödé\", \"list\": [1, 2.5, null, true]}"/utf8>>,
    Pieces = lists:append([[<<Byte>>, <<>>] || <<Byte>> <= Text]),
    ?assertEqual({ok, #{<<"name">> => <<"Ünïcödé"/utf8>>, <<"list">> => [1, 2.5, none, true]}}, py:call(?HELPERS, read_json, [source(Pieces)])).

lines_into_a_channel(_Config) ->
    Channel = channel_ct:new(),
    {ok, none} = py:call(?HELPERS, write_lines, [Channel, [<<"one\n">>, <<"zwölf\n"/utf8>>]]),
    ?assertEqual(<<"one\nzwölf\n"/utf8>>, iolist_to_binary(channel_ct:drain(Channel))),
    ?assertMatch(#{closed := true}, ?CHANNEL:info(Channel)).

archive_from_a_channel(Config) ->
    Directory = filename:join(proplists:get_value(priv_dir, Config), "archive"),
    Archive = Directory ++ ".tar.gz",
    Large = crypto:strong_rand_bytes(300000),
    ok = erl_tar:create(Archive, [{"small", <<"12345">>}, {"large", Large}], [compressed]),
    Channel = channel_ct:new(20000),
    Call = py:spawn_call(?HELPERS, tar_names, [Channel]),
    {ok, File} = file:open(Archive, [read, raw, binary]),
    ok = send_file(File, Channel),
    ?assertEqual({ok, [{<<"small">>, 5}, {<<"large">>, 300000}]}, py:await(Call)).

send_file(File, Channel) ->
    case file:read(File, 7000) of
        {ok, Block} -> ok = ?CHANNEL:send(Channel, Block, infinity), send_file(File, Channel);
        eof -> ok = file:close(File), ?CHANNEL:close(Channel)
    end.

copyfileobj(_Config) ->
    Messages = messages(),
    Target = channel_ct:new(),
    {ok, none} = py:call(?HELPERS, copy_file, [source(Messages), Target]),
    ?assertEqual(iolist_to_binary(Messages), iolist_to_binary(channel_ct:drain(Target))),
    ?assertMatch(#{closed := true}, ?CHANNEL:info(Target)),
    %% A file that reads hears of an abort, it does not end there.
    Aborted = channel_ct:new(),
    ok = ?CHANNEL:abort(Aborted, why),
    ?assertMatch({error, {'ByteChannelAborted', _}}, py:call(?HELPERS, copy_file, [Aborted, channel_ct:new()])).

csv_both_ways(_Config) ->
    Target = channel_ct:new(),
    {ok, none} = py:call(?HELPERS, csv_doubled, [source([<<"a,b\r\n1,">>, <<"2\r\n">>]), Target]),
    ?assertEqual(<<"aa,bb\r\n11,22\r\n">>, iolist_to_binary(channel_ct:drain(Target))).
