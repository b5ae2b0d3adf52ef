%% Streaming calls between nodes: the same as on one, with a window, and what becomes of them when a node is killed or
%% stands still.
-module(causeway_rpc_nodes_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([suite/0, all/0, init_per_suite/1, end_per_suite/1, init_per_testcase/2, end_per_testcase/2]).
-export([server_stream/1, client_stream/1, bidi_terms/1, much/1, slow_reader/1, slow_handler/1, abort_from_there/1,
         abort_of_a_full_stream/1, cancel_from_here/1, deadline/1, reply_after_chunks/1, last_chunks_of_a_handler/1,
         node_killed/1, node_killed_while_full/1, node_suspended/1, providers_in_turn/1, providers_by_key/1,
         provider_that_fails/1, provider_that_hangs/1, name_is_gone/1, local_first/1, example/1,
         python_there/1, nothing_is_left/1]).
-export([counted/2, echo/2, totalled/2, told/2]).

-define(R, causeway_rpc).
-define(S, causeway_rpc_stream).

suite() -> [{timetrap, {seconds, 90}}].

all() ->
    [server_stream, client_stream, bidi_terms, much, slow_reader, slow_handler, abort_from_there, abort_of_a_full_stream,
     cancel_from_here, deadline, reply_after_chunks, last_chunks_of_a_handler, node_killed, node_killed_while_full,
     node_suspended, providers_in_turn, providers_by_key, provider_that_fails, provider_that_hangs, name_is_gone,
     local_first, example, python_there, nothing_is_left].

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(causeway),
    Known = rpc_ct:start_distribution(Config),
    {Peer, Node} = start_peer("one"),
    %% It outlives the process that runs this.
    unlink(Peer),
    [{peer, Peer}, {node, Node} | Known].

end_per_suite(Config) ->
    ok = peer:stop(proplists:get_value(peer, Config)),
    ok = rpc_ct:stop_distribution(Config),
    ok = application:stop(causeway).

init_per_testcase(_Case, Config) -> Config.

end_per_testcase(_Case, Config) ->
    [?R:unadvertise(Name) || {Name, _} <- ?R:list_advertised()],
    Node = proplists:get_value(node, Config),
    [ok = erpc:call(Node, ?R, unadvertise, [Name]) || {Name, _} <- erpc:call(Node, ?R, list_advertised, [])],
    ok.

start_peer(Name) -> rpc_ct:start_node(Name).

%% Advertises there, and waits until it is known here.
advertise(Node, Mode, Function) ->
    advertise(Node, Function, Mode, Function).

advertise(Node, Name, Mode, Function) ->
    ok = erpc:call(Node, ?R, advertise, [Name, Mode, fun ?MODULE:Function/2]),
    causeway_ct:wait_until(fun() -> lists:any(fun(Process) -> node(Process) =:= Node end,
                                              pg:get_members(causeway_rpc, Name)) end).

node_of(Config) -> proplists:get_value(node, Config).

%% What runs there

counted(Stream, {Number, Size}) ->
    [ok = ?S:send(Stream, <<Count:32, 0:(8 * (Size - 4))>>) || Count <- lists:seq(1, Number)],
    ?S:set_reply(Stream, node()).

echo(Stream, Args) ->
    case ?S:recv(Stream) of
        {chunk, Chunk} -> ok = ?S:send(Stream, Chunk), echo(Stream, Args);
        {data, Term} -> ok = ?S:send(Stream, Term, msgpack), echo(Stream, Args);
        eof -> ok
    end.

totalled(Stream, Total) ->
    case ?S:recv(Stream) of
        {chunk, Chunk} -> totalled(Stream, Total + byte_size(Chunk));
        eof -> ?S:set_reply(Stream, Total)
    end.

%% Does as it is told by messages of this node.
told(Stream, Process) ->
    Process ! {handler, self(), Stream},
    obey(Process).

obey(Process) ->
    receive
        {do, Tag, Fun} ->
            Process ! {Tag, Fun()},
            obey(Process);
        return -> ok
    end.

open_told(Config) ->
    advertise(node_of(Config), bidi, told),
    {ok, Stream} = ?R:open_stream(told, self()),
    receive {handler, Handler, There} -> {Stream, Handler, There} after 10000 -> error(no_handler) end.

do(Handler, Fun) ->
    Tag = make_ref(),
    Handler ! {do, Tag, Fun},
    receive {Tag, Result} -> Result after 10000 -> nothing end.

begin_to_do(Handler, Fun) ->
    Tag = make_ref(),
    Handler ! {do, Tag, Fun},
    Tag.

%% The tests

server_stream(Config) ->
    advertise(node_of(Config), server_stream, counted),
    {ok, Stream} = ?R:call_stream(counted, {1000, 4}),
    ?assertMatch(#{peer := {node, _}}, ?S:info(Stream)),
    ?assertEqual([{chunk, <<Count:32>>} || Count <- lists:seq(1, 1000)], [?S:recv(Stream, 5000) || _ <- lists:seq(1, 1000)]),
    ?assertEqual(eof, ?S:recv(Stream)),
    ?assertEqual({ok, node_of(Config)}, ?S:await_reply(Stream)).

client_stream(Config) ->
    advertise(node_of(Config), client_stream, totalled),
    {ok, Stream} = ?R:open_stream(totalled, 0),
    [ok = ?S:send(Stream, <<"12345">>) || _ <- lists:seq(1, 1000)],
    ok = ?S:close_send(Stream),
    ?assertEqual({ok, 5000}, ?S:await_reply(Stream)).

bidi_terms(Config) ->
    advertise(node_of(Config), bidi, echo),
    {ok, Stream} = ?R:open_stream(echo, []),
    Terms = [self(), make_ref(), {a, [1, 2.5]}, <<"binary">>, #{a => []}],
    [begin
         ok = ?S:send(Stream, Term, msgpack),
         ?assertEqual({data, Term}, ?S:recv(Stream, 5000))
     end || Term <- Terms],
    ok = ?S:send(Stream, <<>>),
    ?assertEqual({chunk, <<>>}, ?S:recv(Stream, 5000)),
    ok = ?S:close_send(Stream),
    ?assertEqual(eof, ?S:recv(Stream, 5000)).

%% 100 MB, in chunks smaller and larger than the window.
much(Config) ->
    advertise(node_of(Config), client_stream, totalled),
    [begin
         {ok, Stream} = ?R:open_stream(totalled, 0),
         Chunk = binary:copy(<<"x">>, Size),
         [ok = ?S:send(Stream, Chunk) || _ <- lists:seq(1, Number)],
         ok = ?S:close_send(Stream),
         ?assertEqual({ok, Size * Number}, ?S:await_reply(Stream))
     end || {Size, Number} <- [{1000000, 50}, {10000, 5000}]].

%% It stops who sends there, and memory is flat on both nodes.
slow_reader(Config) ->
    {Stream, Handler, There} = open_told(Config),
    Chunk = binary:copy(<<"x">>, 10000),
    Tag = begin_to_do(Handler, fun() -> [ok = ?S:send(There, Chunk) || _ <- lists:seq(1, 2000)], done end),
    Settled = settled(fun() -> erpc:call(node(Handler), ?S, info, [There]) end, seq_out),
    %% A window here, four on the way, and four that wait there.
    ?assert(Settled * 10000 < 10 * 262144),
    #{inbox_bytes := Waiting} = ?S:info(Stream),
    ?assert(Waiting =< 262144),
    [{chunk, Chunk} = ?S:recv(Stream, 5000) || _ <- lists:seq(1, 2000)],
    receive {Tag, Done} -> ?assertEqual(done, Done) end.

slow_handler(Config) ->
    {Stream, Handler, There} = open_told(Config),
    Chunk = binary:copy(<<"x">>, 10000),
    Sent = fill(Stream, Chunk, 0),
    ?assert(Sent * 10000 < 10 * 262144),
    ?assertEqual({error, timeout}, ?S:send(Stream, Chunk, raw, 10)),
    ?assertEqual({chunk, Chunk}, do(Handler, fun() -> ?S:recv(There) end)),
    [{chunk, Chunk} = do(Handler, fun() -> ?S:recv(There) end) || _ <- lists:seq(2, Sent)],
    ok = ?S:send(Stream, Chunk, raw, 5000).

fill(Stream, Chunk, Number) ->
    case ?S:send(Stream, Chunk, raw, 200) of
        ok -> fill(Stream, Chunk, Number + 1);
        {error, timeout} -> Number
    end.

%% The value when it has not changed for a while.
settled(Info, Key) ->
    Before = maps:get(Key, Info()),
    receive after 200 -> ok end,
    case maps:get(Key, Info()) of
        Before when Before > 0 -> Before;
        _ -> settled(Info, Key)
    end.

abort_from_there(Config) ->
    {Stream, Handler, There} = open_told(Config),
    do(Handler, fun() -> ok = ?S:send(There, <<"x">>), ?S:abort(There, <<"c">>, <<"m">>) end),
    Error = {error, {<<"c">>, <<"m">>}},
    ?assertEqual([{chunk, <<"x">>}, Error, Error], [?S:recv(Stream, 5000) || _ <- [1, 2, 3]]),
    ?assertEqual(Error, ?S:await_reply(Stream)),
    ?assertEqual({error, send_closed}, ?S:send(Stream, <<>>)).

%% Nobody receives: the error comes all the same.
abort_of_a_full_stream(Config) ->
    {Stream, Handler, There} = open_told(Config),
    _ = fill(Stream, binary:copy(<<"x">>, 100000), 0),
    ok = ?S:abort(Stream, <<"c">>, <<"m">>),
    ?assertEqual({error, {<<"c">>, <<"m">>}}, do(Handler, fun() -> until_end(There) end)).

until_end(Stream) ->
    case ?S:recv(Stream, 5000) of
        {chunk, _} -> until_end(Stream);
        Other -> Other
    end.

cancel_from_here(Config) ->
    {Stream, Handler, There} = open_told(Config),
    Tag = begin_to_do(Handler, fun() -> ?S:recv(There) end),
    ok = ?S:cancel(Stream),
    receive {Tag, Result} -> ?assertMatch({error, {<<"cancelled">>, _}}, Result) end.

deadline(Config) ->
    advertise(node_of(Config), bidi, told),
    {ok, Stream} = ?R:open_stream(told, self(), #{deadline => 50}),
    {Handler, There} = receive {handler, Process, Other} -> {Process, Other} end,
    ?assertMatch({error, {<<"deadline_exceeded">>, _}}, do(Handler, fun() -> ?S:recv(There) end)),
    ?assertMatch({error, {<<"deadline_exceeded">>, _}}, ?S:recv(Stream, 5000)).

reply_after_chunks(Config) ->
    advertise(node_of(Config), server_stream, counted),
    [begin
         {ok, Stream} = ?R:call_stream(counted, {100, 100}),
         {ok, _} = ?S:await_reply(Stream),
         ?assertEqual(lists:duplicate(100, chunk), [element(1, ?S:recv(Stream, 0)) || _ <- lists:seq(1, 100)])
     end || _ <- lists:seq(1, 20)].

%% Its process is gone when they are read.
last_chunks_of_a_handler(Config) ->
    advertise(node_of(Config), server_stream, counted),
    {ok, Stream} = ?R:call_stream(counted, {40, 10000}),
    {ok, Other} = ?R:call_stream(counted, {200, 10000}, #{window => 1000}),
    [{chunk, _} = ?S:recv(Other, 5000) || _ <- lists:seq(1, 200)],
    [{chunk, _} = ?S:recv(Stream, 5000) || _ <- lists:seq(1, 40)],
    ?assertEqual([eof, eof], [?S:recv(Stream, 5000), ?S:recv(Other, 5000)]).

node_killed(_Config) ->
    {Peer, Node} = start_peer("killed"),
    advertise(Node, killed_told, bidi, told),
    {ok, Stream} = ?R:open_stream(killed_told, self()),
    receive {handler, Handler, There} -> ok = do(Handler, fun() -> ?S:send(There, <<"last">>) end) end,
    Waiters = [spawn_monitor(fun() -> exit(Ask(Stream)) end) || Ask <- [fun ?S:await_reply/1]],
    causeway_ct:wait_until(fun() -> maps:get(inbox_size, ?S:info(Stream)) =:= 1 end),
    Number = erpc:call(Node, os, getpid, []),
    unlink(Peer),
    os:cmd("kill -KILL " ++ Number),
    [receive {'DOWN', Monitor, process, _, Result} -> ?assertMatch({error, {<<"disconnected">>, _}}, Result) end
     || {_, Monitor} <- Waiters],
    ?assertEqual({chunk, <<"last">>}, ?S:recv(Stream)),
    [?assertMatch({error, {<<"disconnected">>, _}}, Ask(Stream)) || Ask <- [fun ?S:recv/1, fun ?S:await_reply/1, fun ?S:recv/1]],
    ?assertEqual({error, send_closed}, ?S:send(Stream, <<>>)),
    %% A stream may know it before the table of what is advertised does.
    causeway_ct:wait_until(fun() -> {error, not_advertised} =:= ?R:open_stream(killed_told, self()) end).

node_killed_while_full(_Config) ->
    {Peer, Node} = start_peer("full"),
    advertise(Node, full_told, bidi, told),
    {ok, Stream} = ?R:open_stream(full_told, self()),
    _ = fill(Stream, binary:copy(<<"x">>, 100000), 0),
    {_, Monitor} = spawn_monitor(fun() -> exit(?S:send(Stream, binary:copy(<<"x">>, 100000))) end),
    unlink(Peer),
    os:cmd("kill -KILL " ++ erpc:call(Node, os, getpid, [])),
    receive {'DOWN', Monitor, process, _, Result} -> ?assertEqual({error, send_closed}, Result) end,
    receive {handler, _, _} -> ok end.

%% It goes on where it was.
node_suspended(_Config) ->
    {Peer, Node} = start_peer("suspended"),
    advertise(Node, suspended_total, client_stream, totalled),
    {ok, Stream} = ?R:open_stream(suspended_total, 0),
    Number = erpc:call(Node, os, getpid, []),
    os:cmd("kill -STOP " ++ Number),
    Chunk = binary:copy(<<"x">>, 10000),
    Sent = fill(Stream, Chunk, 0),
    %% What is on the way, and waits to be.
    ?assert(Sent * 10000 < 9 * 262144),
    Memory = causeway_ct:memory(binary),
    ?assertEqual({error, timeout}, ?S:send(Stream, Chunk, raw, 500)),
    ?assert(causeway_ct:memory(binary) < Memory + 1000000),
    os:cmd("kill -CONT " ++ Number),
    [ok = ?S:send(Stream, Chunk, raw, 20000) || _ <- lists:seq(1, 100)],
    ok = ?S:close_send(Stream),
    ?assertEqual({ok, (Sent + 100) * 10000}, ?S:await_reply(Stream, 20000)),
    ok = peer:stop(Peer).

providers_in_turn(Config) ->
    {Peer, Node} = start_peer("two"),
    [advertise(Each, turn, server_stream, counted) || Each <- [Node, node_of(Config)]],
    Nodes = [served_by(turn, #{}) || _ <- lists:seq(1, 10)],
    ?assertEqual([5, 5], [length([Each || Each <- Nodes, Each =:= Which]) || Which <- [Node, node_of(Config)]]),
    ok = peer:stop(Peer),
    causeway_ct:wait_until(fun() -> length(pg:get_members(causeway_rpc, turn)) =:= 1 end),
    ?assertEqual(node_of(Config), served_by(turn, #{})).

served_by(Name, Opts) ->
    {ok, Stream} = ?R:call_stream(Name, {1, 4}, Opts),
    {ok, Node} = ?S:await_reply(Stream),
    Node.

providers_by_key(Config) ->
    {Peer, Node} = start_peer("key"),
    [advertise(Each, by_key, server_stream, counted) || Each <- [Node, node_of(Config)]],
    Of = fun(Key) -> lists:usort([served_by(by_key, #{key => Key}) || _ <- lists:seq(1, 5)]) end,
    Keys = [Of(Key) || Key <- lists:seq(1, 20)],
    ?assert(lists:all(fun(Nodes) -> length(Nodes) =:= 1 end, Keys)),
    ?assertEqual(2, length(lists:usort(Keys))),
    ok = peer:stop(Peer).

%% One that says no is asked once, and then not for a while.
provider_that_fails(Config) ->
    {Peer, Node} = start_peer("fails"),
    [advertise(Each, fails, server_stream, counted) || Each <- [Node, node_of(Config)]],
    %% It stays in the group, as where the news is on the way.
    true = erpc:call(Node, ets, delete, [causeway_rpc_names, fails]),
    ?assertEqual([node_of(Config)], lists:usort([served_by(fails, #{}) || _ <- lists:seq(1, 6)])),
    ok = peer:stop(Peer).

provider_that_hangs(Config) ->
    {Peer, Node} = start_peer("hangs"),
    [advertise(Each, hangs, server_stream, counted) || Each <- [Node, node_of(Config)]],
    ok = erpc:call(Node, sys, suspend, [causeway_rpc_server]),
    {Time, Nodes} = timer:tc(fun() -> [served_by(hangs, #{open_timeout => 300}) || _ <- lists:seq(1, 6)] end),
    ?assertEqual([node_of(Config)], lists:usort(Nodes)),
    ?assert(Time < 2 * 6 * 300000),
    ok = erpc:call(node_of(Config), ?R, unadvertise, [hangs]),
    causeway_ct:wait_until(fun() -> length(pg:get_members(causeway_rpc, hangs)) =:= 1 end),
    ?assertMatch({error, {<<"unavailable">>, _}}, ?R:call_stream(hangs, {1, 4}, #{open_timeout => 50})),
    ?assertEqual([], causeway_ct:mailbox()),
    ok = peer:stop(Peer).

name_is_gone(Config) ->
    advertise(node_of(Config), gone, server_stream, counted),
    ok = erpc:call(node_of(Config), ?R, unadvertise, [gone]),
    causeway_ct:wait_until(fun() -> pg:get_members(causeway_rpc, gone) =:= [] end),
    ?assertEqual({error, not_advertised}, ?R:call_stream(gone, {1, 4})).

local_first(Config) ->
    advertise(node_of(Config), local, server_stream, counted),
    ok = ?R:advertise(local, fun counted/2),
    ?assertEqual([node()], lists:usort([served_by(local, #{}) || _ <- lists:seq(1, 5)])).

%% The one of the README, with a file of 20 MB.
example(Config) ->
    Path = filename:join(proplists:get_value(priv_dir, Config), "words"),
    ok = file:write_file(Path, lists:duplicate(1000000, "some words on a line\n")),
    #{tokens := Tokens, code := Code} = rpc_example:run(Path),
    ?assertEqual(<<"cancelled">>, Code),
    %% Those of what was sent but for what was on its way.
    ?assert(Tokens > 50),
    ?assert(Tokens < 10 * (filelib:file_size(Path) div 65536)),
    ok = file:delete(Path).

%% From Python to Python of another node, which is killed in the middle.
python_there(_Config) ->
    {Peer, Node} = start_peer("python"),
    unlink(Peer),
    Setup = ["import sys; sys.path.append('", causeway_ct:python_dir(), "'); import rpc_three_way"],
    ok = erpc:call(Node, py, exec, [Setup]),
    ok = py:exec(Setup),
    {ok, _} = erpc:call(Node, py, call, [rpc_three_way, advertise, [<<"there_">>]]),
    causeway_ct:wait_until(fun() -> pg:get_members(causeway_rpc, <<"there_wait">>) =/= [] end),
    {ok, Results} = py:call(rpc_three_way, use, [<<"there_">>]),
    ?assertMatch([Counted, 1000, 42, <<"a">>, <<>> | _] when byte_size(Counted) > 3000, Results),
    {ok, Stream} = ?R:call_stream(<<"there_endless">>, none),
    {chunk, _} = ?S:recv(Stream, 5000),
    Test = self(),
    {ok, Made} = erpc:call(Node, py, call, [rpc_three_way, made, []]),
    Reader = spawn(fun() -> Test ! {outcome, py:call(rpc_three_way, outcome, [<<"there_endless">>])} end),
    %% More than the stream that nobody reads has room for.
    causeway_ct:wait_until(fun() -> erpc:call(Node, py, call, [rpc_three_way, made, []]) > {ok, Made + 5000} end),
    ok = peer:stop(Peer),
    receive
        {outcome, Outcome} -> ?assertEqual({ok, <<"disconnected">>}, Outcome)
    after 20000 -> error({reads_on, Reader})
    end.

nothing_is_left(Config) ->
    Node = node_of(Config),
    advertise(Node, server_stream, counted),
    _ = served_by(counted, #{}),
    Count = fun(Each) -> erpc:call(Each, erlang, system_info, [process_count]) end,
    Before = [Count(Each) || Each <- [node(), Node]],
    [begin
         {ok, Stream} = ?R:call_stream(counted, {1, 4}),
         {chunk, _} = ?S:recv(Stream, 5000),
         eof = ?S:recv(Stream, 5000)
     end || _ <- lists:seq(1, 200)],
    [causeway_ct:wait_until(fun() -> Count(Each) =< Number + 2 end) || {Each, Number} <- lists:zip([node(), Node], Before)],
    ?assertEqual([], causeway_ct:mailbox()).
