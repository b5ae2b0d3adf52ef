%% @doc Streaming calls with much: many one after the other and at once, gigabytes behind a receiver that has stopped, and
%% long sequences of commands against the model.
-module(rpc_soak_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-define(S, causeway_rpc_stream).

%% What is sent behind a receiver that has stopped.
-define(NUMBER, 100000).
-define(SIZE, 100000).

suite() -> [{timetrap, {minutes, 30}}].

all() ->
    [hundred_thousand_streams, ten_thousand_at_once, stopped_receivers, python_streams, prop_stream, prop_connection,
     answers_for_a_minute, many_that_have_ended].

init_per_suite(Config) ->
    true = code:add_patha(filename:dirname(code:which(?MODULE)) ++ "/.."),
    ok = causeway_ct:start(),
    rpc_ct:start_distribution(Config).

end_per_suite(Config) ->
    ok = rpc_ct:stop_distribution(Config),
    application:stop(causeway).

%% Opened, used and finished, they leave nothing but the last 10,000 that still answer.
hundred_thousand_streams(_Config) ->
    ok = causeway_rpc:advertise(soak, fun(Stream, Number) -> ok = ?S:send(Stream, <<Number:32>>) end),
    finish_streams(20000),
    Processes = erlang:system_info(process_count),
    Before = causeway_ct:rss(),
    finish_streams(100000),
    causeway_ct:wait_until(fun() -> erlang:system_info(process_count) =< Processes + 2 end),
    %% Of the last ones it is not known yet that they have ended.
    causeway_ct:wait_until(fun() -> causeway_rpc_streams:count() =< 10000 end),
    After = causeway_ct:rss(),
    ct:log("~p and then ~p bytes", [Before, After]),
    ?assert(After - Before < 16 * 1048576),
    ?assertEqual([], causeway_ct:mailbox()).

finish_streams(Number) ->
    [begin
         {ok, Stream} = causeway_rpc:call_stream(soak, Each),
         {chunk, <<Each:32>>} = ?S:recv(Stream),
         eof = ?S:recv(Stream)
     end || Each <- lists:seq(1, Number)],
    ok.

%% Two halves each, in two processes.
ten_thousand_at_once(_Config) ->
    Before = causeway_ct:rss(),
    Pairs = [pair() || _ <- lists:seq(1, 10000)],
    Each = (causeway_ct:rss() - Before) div 20000,
    ct:log("~p bytes each", [Each]),
    ?assert(Each =< 4096),
    [ok = ?S:send(A, <<"x">>) || {A, _} <- Pairs],
    [{chunk, <<"x">>} = ?S:recv(B) || {_, B} <- Pairs],
    [ok = ?S:close(A) || {A, _} <- Pairs].

%% The same with those that Python serves, in this node and over a connection.
python_streams(_Config) ->
    {ok, _} = py:call(rpc_three_way, advertise, [<<"py_">>]),
    {Connection, Port} = rpc_ct:start_child(#{}),
    %% It ends with a reason.
    true = unlink(Connection),
    {os_pid, Child} = erlang:port_info(Port, os_pid),
    [begin
         finish_counts(Name, Opts, 3000),
         Before = Memory(),
         {Time, ok} = timer:tc(fun() -> finish_counts(Name, Opts, 20000) end),
         ct:log("~p: ~b streams/s, ~b bytes more", [Name, 20000 * 1000000 div Time, Memory() - Before]),
         ?assert(Memory() - Before < 16 * 1048576)
     end || {Name, Opts, Memory} <- [{<<"py_count">>, #{}, fun() -> causeway_ct:rss() end},
                                     {<<"child_count">>, #{connection => Connection},
                                      fun() -> causeway_ct:rss(integer_to_list(Child)) end}]],
    ?assertEqual(#{calls => 0}, causeway_rpc_connection:info(Connection)),
    ?assertMatch({match, _}, re:run(rpc_ct:stop_child(Connection, Port), "streams 0 ")).

finish_counts(Name, Opts, Number) ->
    [begin
         {ok, Stream} = causeway_rpc:call_stream(Name, 2, Opts),
         {ok, 2} = ?S:await_reply(Stream, 30000),
         {ok, [_, _]} = all_of(Stream, [])
     end || _ <- lists:seq(1, Number)],
    ok.

all_of(Stream, Chunks) ->
    case ?S:recv(Stream, 30000) of
        {chunk, Chunk} -> all_of(Stream, [Chunk | Chunks]);
        eof -> {ok, Chunks}
    end.

%% 10 GB wait a minute behind each: in this node, on another one, in Python here, and in a Python of its own.
stopped_receivers(_Config) ->
    {Peer, Node} = rpc_ct:start_node("soak"),
    {Connection, Port} = rpc_ct:start_child(#{}),
    %% It ends with a reason.
    true = unlink(Connection),
    {os_pid, Child} = erlang:port_info(Port, os_pid),
    ok = causeway_rpc:advertise(stopped_here, client_stream, fun ?MODULE:stopped/2),
    ok = erpc:call(Node, causeway_rpc, advertise, [stopped_there, client_stream, fun ?MODULE:stopped/2]),
    {ok, _} = py:call(rpc_three_way, advertise, [<<"py_">>]),
    causeway_ct:wait_until(fun() -> pg:get_members(causeway_rpc, stopped_there) =/= [] end),
    Memory = fun() ->
        [causeway_ct:rss(), causeway_ct:rss(erpc:call(Node, os, getpid, [])), causeway_ct:rss(integer_to_list(Child))]
    end,
    Receivers = [{stopped_here, #{}, fun() -> ?MODULE ! go end},
                 {stopped_there, #{}, fun() -> {?MODULE, Node} ! go end},
                 {<<"py_stopped">>, #{}, fun() -> {ok, _} = py:call(rpc_three_way, go, []) end},
                 {<<"child_stopped">>, #{connection => Connection},
                  fun() -> {ok, _} = causeway_rpc:call(<<"child_go">>, nil, #{connection => Connection}) end}],
    Senders = [{send_much(Name, Opts), Name, Resume} || {Name, Opts, Resume} <- Receivers],
    Sent = [settled(Stream) || {{Stream, _}, _, _} <- Senders],
    Before = Memory(),
    receive after 60000 -> ok end,
    ?assertEqual(Sent, [maps:get(seq_out, ?S:info(Stream)) || {{Stream, _}, _, _} <- Senders]),
    ct:log("sent ~p, and memory after a minute ~p", [Sent, flat(Before, Memory())]),
    [begin
         {Time, _} = timer:tc(fun() ->
             Resume(),
             receive {'DOWN', Sender, process, _, Reason} -> ?assertEqual(normal, Reason) end
         end),
         ct:log("~p: ~b MB/s, memory ~p", [Name, ?NUMBER * ?SIZE div Time, flat(Before, Memory())])
     end || {{_, Sender}, Name, Resume} <- Senders],
    _ = rpc_ct:stop_child(Connection, Port),
    ok = peer:stop(Peer).

%% A process sends 10 GB, and asks how much of it has come.
send_much(Name, Opts) ->
    Test = self(),
    Chunk = binary:copy(<<"x">>, ?SIZE),
    {_, Sender} = spawn_monitor(fun() ->
        {ok, Stream} = causeway_rpc:open_stream(Name, nil, Opts),
        Test ! {stream, Name, Stream},
        [ok = ?S:send(Stream, binary:copy(Chunk)) || _ <- lists:seq(1, ?NUMBER)],
        ok = ?S:close_send(Stream),
        {ok, ?NUMBER * ?SIZE} = ?S:await_reply(Stream)
    end),
    receive {stream, Name, Stream} -> {Stream, Sender} end.

%% Takes one chunk, and the others when it is told to go on.
stopped(Stream, _Args) ->
    {chunk, First} = ?S:recv(Stream),
    true = register(?MODULE, self()),
    receive go -> ?S:set_reply(Stream, total(Stream, byte_size(First))) end.

total(Stream, Total) ->
    case ?S:recv(Stream) of
        {chunk, Chunk} -> total(Stream, Total + byte_size(Chunk));
        eof -> Total
    end.

%% How many chunks were sent when no more are.
settled(Stream) ->
    #{seq_out := Before} = ?S:info(Stream),
    receive after 1000 -> ok end,
    case ?S:info(Stream) of
        #{seq_out := Before} when Before > 0 -> Before;
        _ -> settled(Stream)
    end.

flat(Before, After) ->
    Grown = [(Now - Then) div 1048576 || {Then, Now} <- lists:zip(Before, After)],
    ?assert(lists:max(Grown) < 64, Grown),
    Grown.

pair() ->
    [A, B] = [begin
                  {ok, Half} = ?S:start_link(#{id => Role, role => Role, mode => bidi, owner => self()}),
                  Half
              end || Role <- [client, server]],
    ok = ?S:pair(A, B),
    {A, B}.

prop_stream(_Config) -> causeway_rpc_property_SUITE:check(prop_rpc_stream:prop_stream(), 10000).

prop_connection(_Config) -> causeway_rpc_property_SUITE:check(prop_rpc_connection:prop_connection(), 10000).

%% What has ended answers for a minute, and is forgotten afterwards.
answers_for_a_minute(_Config) ->
    {A, B} = pair(),
    Monitor = monitor(process, B),
    ok = ?S:send(A, <<"last">>),
    ok = ?S:set_reply(A, done),
    ok = ?S:close(A),
    {chunk, <<"last">>} = ?S:recv(B),
    receive {'DOWN', Monitor, process, B, normal} -> ok end,
    Ended = erlang:monotonic_time(millisecond),
    ?assertEqual([eof, {ok, done}], [?S:recv(B), ?S:await_reply(B)]),
    %% It is looked after every five seconds.
    receive after 58000 -> ok end,
    ?assertEqual([eof, {ok, done}], [?S:recv(B), ?S:await_reply(B)]),
    causeway_ct:wait_until(fun() -> ?S:recv(B) =:= {error, closed} end),
    ?assert(erlang:monotonic_time(millisecond) - Ended >= 60000),
    ?assertEqual([{error, closed}, {error, closed}, {error, closed}], [?S:await_reply(B), ?S:send(B, <<>>), ?S:close(B)]),
    ?assertEqual([], causeway_ct:mailbox()).

%% However many end within it.
many_that_have_ended(_Config) ->
    [begin
         Pairs = [pair() || _ <- lists:seq(1, 5000)],
         {First, _} = hd(Pairs),
         [ok = ?S:close(A) || {A, _} <- Pairs],
         causeway_ct:wait_until(fun() -> causeway_rpc_streams:count() =< 10000 end),
         ?assertEqual(eof, ?S:recv(First))
     end || _ <- lists:seq(1, 5)],
    ok.
