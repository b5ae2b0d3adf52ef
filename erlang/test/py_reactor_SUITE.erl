%% @doc Python protocols on real descriptors: sockets, Unix sockets and pipes.
-module(py_reactor_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-define(PROTOCOLS, reactor_protocols).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [seed_echo_example, seed_http_example, seed_server_example, handoff_takes_a_live_socket_over, handoff_of_a_duplicate,
     unix_sockets, socketpairs, udp_sockets, pipe_to_read, pipe_to_write, client_info_arrives, addresses_arrive, wrong_descriptors,
     files_are_refused, no_factory, no_room, wrong_use_of_handoff, handoff_to_a_dead_context, refused_descriptor_stays_with_erlang, same_descriptor_twice,
     exception_closes_only_its_connection, exception_is_logged_with_traceback, wrong_actions, exception_in_connection_made,
     exception_in_connection_lost, exception_in_the_factory, factory_that_makes_something_else, sys_exit_in_a_callback,
     close_writes_what_is_left, server_speaks_first, peer_closes, peer_shuts_down_one_direction, peer_resets, peer_resets_under_load,
     broken_pipe_is_an_exception, megabytes_in, megabytes_out, megabytes_both_ways, slow_reader, many_connections_at_once,
     calls_among_busy_connections, callback_that_loops_ends_with_the_context, stop_closes_everything, kill_closes_everything,
     stats_count, idle_connections_cost_no_cpu, idle_connections_cost_little_memory, event_after_idleness, linger_forms, async_pending, async_pending_with_dead_peer,
     signal_for_unknown_descriptors, get_protocol_knows_who_serves, close_connection_from_a_call, reused_numbers,
     kept_buffers_stay_as_they_are, read_and_write_by_hand, contexts_share_nothing_but_the_factory,
     ten_thousand_connections_leave_nothing].

init_per_suite(Config) ->
    ok = causeway_ct:start(),
    {ok, _} = py:call('_causeway', in_beam, []),
    Config.

end_per_suite(_Config) ->
    ok = application:stop(causeway).

init_per_testcase(_Case, Config) ->
    ok = causeway_ct:start(),
    {ok, Context} = py_reactor_context:start_link(1, worker),
    unlink(Context),
    ok = logger:add_handler(?MODULE, ?MODULE, #{config => #{test => self()}}),
    [{context, Context} | Config].

end_per_testcase(_Case, Config) ->
    ok = logger:remove_handler(?MODULE),
    exit(context(Config), kill).

context(Config) -> proplists:get_value(context, Config).

%% As a handler of logger: what Python's callbacks raise comes to the test.
log(#{msg := {report, #{callback := Callback} = Report}, meta := Meta} = Event, #{config := #{test := Test}}) ->
    #{report_cb := Format} = Meta,
    {Text, Arguments} = Format(Report),
    Test ! {logged, Callback, unicode:characters_to_binary(io_lib:format(Text, Arguments)), Event};
log(_Event, _Config) ->
    ok.

%% The documentation's examples

seed_echo_example(_Config) ->
    use_seed('EchoProtocol'),
    {Client, Server} = tcp_pair(),
    {ok, {Address, Port}} = inet:peername(Server),
    {ok, Fd} = inet:getfd(Server),
    ok = py_reactor_context:handoff(Fd, #{addr => inet:ntoa(Address), port => Port, type => tcp}),
    [?assertEqual(Data, ask(Client, Data)) || Data <- [<<"hello">>, <<0, 255>>, binary:copy(<<"x">>, 100000)]],
    ok = gen_tcp:close(Client).

seed_http_example(_Config) ->
    use_seed('SimpleHTTPProtocol'),
    {Client, Server} = tcp_pair(),
    ok = py_reactor_context:handoff(fd(Server), #{type => tcp}),
    ok = gen_tcp:send(Client, <<"GET /some/path HT">>),
    ok = gen_tcp:send(Client, <<"TP/1.0\r\nHost: here\r\n\r\n">>),
    ?assertEqual(<<"HTTP/1.0 200 OK\r\nContent-Length: 31\r\nContent-Type: text/plain\r\n\r\nHello! You requested /some/path">>,
                 read_all(Client)).

%% accept_loop of the documentation, with the factory set by py:exec in one context of the pool.
seed_server_example(_Config) ->
    Context = py:context(1),
    ok = py:exec(Context, <<"\nimport erlang.reactor as reactor\nfrom seed_examples import EchoProtocol\n"
                            "reactor.set_protocol_factory(EchoProtocol)\n">>),
    {ok, Listen} = gen_tcp:listen(0, [binary, {active, false}, {reuseaddr, true}]),
    {ok, ListenPort} = inet:port(Listen),
    Acceptor = spawn_link(fun() -> {ok, _} = {ok, gen_tcp:controlling_process(Listen, self())}, accept_loop(Listen) end),
    Clients = [begin
                   {ok, Client} = gen_tcp:connect("localhost", ListenPort, [binary, {active, false}]),
                   Client
               end || _ <- lists:seq(1, 20)],
    [?assertEqual(<<"ping">>, ask(Client, <<"ping">>)) || Client <- Clients],
    [?assertEqual(<<"pong">>, ask(Client, <<"pong">>)) || Client <- lists:reverse(Clients)],
    unlink(Acceptor),
    exit(Acceptor, kill),
    [ok = gen_tcp:close(Socket) || Socket <- [Listen | Clients]].

accept_loop(ListenSock) ->
    {ok, ClientSock} = gen_tcp:accept(ListenSock),
    {ok, {Addr, Port}} = inet:peername(ClientSock),
    %% Hand off to Python reactor
    {ok, Fd} = inet:getfd(ClientSock),
    py_reactor_context:handoff(Fd, #{addr => inet:ntoa(Addr), port => Port, type => tcp}),
    accept_loop(ListenSock).

%% Kinds of descriptors

handoff_takes_a_live_socket_over(Config) ->
    use('Watched'),
    {Client, Server} = tcp_pair(),
    Before = causeway_ct:descriptors(),
    ok = py_reactor_context:handoff(context(Config), fd(Server), #{}),
    ?assertEqual(<<"echo">>, ask(Client, <<"echo">>)),
    %% One descriptor for one connection (and the poller with its bell), and Erlang has let go.
    ?assertEqual(undefined, erlang:port_info(Server)),
    ?assert(causeway_ct:descriptors() =< Before + 2),
    ok = gen_tcp:close(Client),
    ok = expect_lost(),
    ok = causeway_ct:settled(fun causeway_ct:descriptors/0, Before).

handoff_of_a_duplicate(Config) ->
    use('Watched'),
    {Client, Server} = tcp_pair(),
    {ok, Duplicate} = py:dup_fd(fd(Server)),
    ok = py_reactor_context:handoff(context(Config), Duplicate, #{type => tcp}),
    ok = gen_tcp:close(Server),
    ?assertEqual(<<"echo">>, ask(Client, <<"echo">>)),
    ok = gen_tcp:close(Client),
    ok = expect_lost().

unix_sockets(Config) ->
    use('Watched'),
    %% The length of such a path is limited to 107 bytes.
    Path = "/tmp/causeway-" ++ os:getpid() ++ ".socket",
    {ok, Listen} = gen_tcp:listen(0, [binary, {active, false}, {ifaddr, {local, Path}}]),
    {ok, Client} = gen_tcp:connect({local, Path}, 0, [binary, {active, false}]),
    {ok, Server} = gen_tcp:accept(Listen, 10000),
    ok = py_reactor_context:handoff(context(Config), fd(Server), #{type => unix}),
    ?assertEqual(<<"echo">>, ask(Client, <<"echo">>)),
    [ok = gen_tcp:close(Socket) || Socket <- [Client, Listen]],
    ok = file:delete(Path),
    ok = expect_lost().

socketpairs(Config) ->
    use('Watched'),
    {ok, {Left, Right}} = py:call(?PROTOCOLS, open_pair, []),
    ok = py_reactor_context:handoff(context(Config), Right, #{type => unix}),
    {ok, 4} = py:call(os, write, [Left, {bytes, <<"echo">>}]),
    ?assertEqual({ok, <<"echo">>}, py:call(os, read, [Left, 100])),
    {ok, none} = py:call(os, close, [Left]),
    ok = expect_lost().

udp_sockets(Config) ->
    use('Receiver'),
    {ok, Receiver} = gen_udp:open(0, [binary, {active, false}, {ip, {127, 0, 0, 1}}]),
    {ok, Port} = inet:port(Receiver),
    {ok, Duplicate} = py:dup_fd(fd(Receiver)),
    ok = py_reactor_context:handoff(context(Config), Duplicate, #{type => udp}),
    {ok, Sender} = gen_udp:open(0, []),
    [ok = gen_udp:send(Sender, {127, 0, 0, 1}, Port, Datagram) || Datagram <- [<<"one">>, <<"two">>]],
    [ok = causeway_ct:expect({<<"data">>, Datagram}) || Datagram <- [<<"one">>, <<"two">>]],
    [ok = gen_udp:close(Socket) || Socket <- [Sender, Receiver]].

pipe_to_read(Config) ->
    use('Receiver'),
    {ok, {Read, Write}} = py:call(?PROTOCOLS, open_pipe, []),
    ok = py_reactor_context:handoff(context(Config), Read, #{type => pipe}),
    {ok, 3} = py:call(os, write, [Write, {bytes, <<"abc">>}]),
    ok = causeway_ct:expect({<<"data">>, <<"abc">>}),
    {ok, none} = py:call(os, close, [Write]),
    ok = expect_lost().

pipe_to_write(Config) ->
    use('SpeaksFirst'),
    {ok, {Read, Write}} = py:call(?PROTOCOLS, open_pipe, []),
    ok = py_reactor_context:handoff(context(Config), Write, #{type => pipe}),
    ?assertEqual({ok, <<"welcome">>}, py:call(os, read, [Read, 100])),
    {ok, none} = py:call(os, close, [Read]),
    ok = expect_lost().

client_info_arrives(Config) ->
    use('Watched'),
    {_Client, Server} = tcp_pair(),
    ok = py_reactor_context:handoff(context(Config), fd(Server),
                                    #{type => tcp, <<"binary">> => [1, {2}], port => 80, nothing => undefined, none => 1, pid => self()}),
    receive
        {<<"made">>, Fd, Info} ->
            ?assertEqual(#{<<"none">> => 1, <<"type">> => <<"tcp">>, <<"binary">> => [1, {2}], <<"port">> => 80, <<"nothing">> => none, <<"pid">> => self()}, Info),
            ?assertEqual({ok, {Fd, false, Info, <<"Watched">>}}, py:call(?PROTOCOLS, attributes_of, [Fd]))
    after 10000 -> error(causeway_ct:mailbox())
    end.

addresses_arrive(Config) ->
    use('Watched'),
    [begin
         {Client, Server} = tcp_pair(),
         ok = py_reactor_context:handoff(context(Config), fd(Server), #{addr => Address}),
         receive {<<"made">>, _, #{<<"addr">> := Arrived}} -> ?assertEqual(Expected, Arrived) after 10000 -> error(causeway_ct:mailbox()) end,
         ok = gen_tcp:close(Client),
         ok = expect_lost()
     end || {Address, Expected} <- [{"127.0.0.1", <<"127.0.0.1">>}, {{127, 0, 0, 1}, <<"127.0.0.1">>}, {{0, 0, 0, 0, 0, 0, 0, 1}, <<"::1">>},
                                    {<<"text">>, <<"text">>}]].

%% Refusals

wrong_descriptors(Config) ->
    use('Watched'),
    [?assertEqual({Fd, {error, badf}}, {Fd, py_reactor_context:handoff(context(Config), Fd, #{})}) || Fd <- [999999, -1, 1 bsl 31, 1 bsl 70]],
    ?assertEqual({error, badf}, py_reactor_context:handoff(999999, #{})).

files_are_refused(Config) ->
    use('Watched'),
    {ok, Fd} = py:call(os, open, [list_to_binary(code:which(?MODULE)), 0]),
    ?assertEqual({error, eperm}, py_reactor_context:handoff(context(Config), Fd, #{})),
    ?assertMatch({ok, _}, py:call(os, fstat, [Fd])),
    {ok, none} = py:call(os, close, [Fd]),
    {ok, Directory} = py:call(os, open, [<<"/tmp">>, 0]),
    ?assertEqual({error, eperm}, py_reactor_context:handoff(context(Config), Directory, #{})),
    {ok, none} = py:call(os, close, [Directory]).

no_factory(Config) ->
    {ok, none} = py:call(?PROTOCOLS, use, [none, self()]),
    {Client, Server} = tcp_pair(),
    ?assertEqual({error, no_protocol_factory}, py_reactor_context:handoff(context(Config), fd(Server), #{})),
    use('Watched'),
    ok = py_reactor_context:handoff(context(Config), fd(Server), #{}),
    ?assertEqual(<<"echo">>, ask(Client, <<"echo">>)).

no_room(_Config) ->
    use('Watched'),
    {ok, Context} = py_reactor_context:start_link(2, worker, #{max_connections => 2}),
    Pairs = [tcp_pair() || _ <- [1, 2, 3]],
    Results = [py_reactor_context:handoff(Context, fd(Server), #{}) || {_, Server} <- Pairs],
    ?assertEqual([ok, ok, {error, max_connections}], Results),
    [{First, _}, _, {_Third, ThirdServer}] = Pairs,
    ok = gen_tcp:close(First),
    ok = expect_lost(),
    ok = causeway_ct:wait_until(fun() -> 1 =:= maps:get(active_connections, py_reactor_context:stats(Context)) end),
    ?assertEqual(ok, py_reactor_context:handoff(Context, fd(ThirdServer), #{})),
    ok = py_reactor_context:stop(Context),
    {ok, None} = py_reactor_context:start_link(3, worker, #{max_connections => 0}),
    {_, Refused} = tcp_pair(),
    ?assertEqual({error, max_connections}, py_reactor_context:handoff(None, fd(Refused), #{})),
    ok = py_reactor_context:stop(None).

wrong_use_of_handoff(Config) ->
    use('Watched'),
    [?assertMatch({error, {badarg, <<_, _/binary>>}}, py_reactor_context:handoff(Context, Fd, Info))
     || {Context, Fd, Info} <- [{a, 1, #{}}, {context(Config), a, #{}}, {context(Config), 1, []}, {context(Config), 1.0, #{}}]],
    ?assertMatch({error, {no_context, _}}, py_reactor_context:handoff(self(), 0, #{})).

handoff_to_a_dead_context(_Config) ->
    use('Watched'),
    {ok, Context} = py_reactor_context:start_link(4, worker),
    ok = py_reactor_context:stop(Context),
    {Client, Server} = tcp_pair(),
    Result = py_reactor_context:handoff(Context, fd(Server), #{}),
    ?assert(Result =:= {error, closed} orelse no_context =:= element(1, element(2, Result))),
    ok = gen_tcp:send(Server, <<"mine">>),
    ?assertEqual({ok, <<"mine">>}, gen_tcp:recv(Client, 4, 5000)).

%% With an error the descriptor is Erlang's as before, as often as that happens.
refused_descriptor_stays_with_erlang(_Config) ->
    use('Watched'),
    {ok, Full} = py_reactor_context:start_link(5, worker, #{max_connections => 0}),
    {Client, Server} = tcp_pair(),
    Before = causeway_ct:descriptors(),
    [{error, max_connections} = py_reactor_context:handoff(Full, fd(Server), #{}) || _ <- lists:seq(1, 100)],
    ?assertEqual(Before, causeway_ct:descriptors()),
    ok = gen_tcp:send(Client, <<"to erlang">>),
    ?assertEqual({ok, <<"to erlang">>}, gen_tcp:recv(Server, 9, 5000)),
    ok = py_reactor_context:stop(Full).

%% A number that is served already is nobody's to hand over: the connection that has it goes on.
same_descriptor_twice(Config) ->
    use('Watched'),
    {Client, Server} = tcp_pair(),
    {ok, Fd} = py:dup_fd(fd(Server)),
    ok = gen_tcp:close(Server),
    ok = py_reactor_context:handoff(context(Config), Fd, #{}),
    ?assertEqual(<<"one">>, ask(Client, <<"one">>)),
    ?assertMatch({error, _}, py_reactor_context:handoff(context(Config), Fd, #{})),
    ?assertMatch({error, _}, py_reactor_context:handoff(Fd, #{})),
    ?assertEqual(<<"two">>, ask(Client, <<"two">>)).

%% Exceptions

exception_closes_only_its_connection(Config) ->
    use('Told'),
    [Bad, Good] = [connected(Config) || _ <- [1, 2]],
    ?assertEqual(<<"did one">>, ask(Good, <<"one">>, 7)),
    ok = gen_tcp:send(Bad, <<"raise">>),
    ?assertEqual({error, closed}, gen_tcp:recv(Bad, 0, 10000)),
    ok = expect_lost(),
    ?assertEqual(<<"did two">>, ask(Good, <<"two">>, 7)),
    ok = gen_tcp:send(Good, <<"raise later">>),
    ?assertEqual({error, closed}, gen_tcp:recv(Good, 0, 10000)),
    ok = expect_lost(),
    [expect_logged(Callback, Text) || {Callback, Text} <- [{<<"data_received">>, "data_received raises"}, {<<"write_ready">>, "write_ready raises"}]],
    ok = causeway_ct:wait_until(fun() -> 0 =:= maps:get(active_connections, py_reactor_context:stats(context(Config))) end).

exception_is_logged_with_traceback(Config) ->
    use('Told'),
    Client = connected(Config, #{addr => "10.1.2.3", port => 4567}),
    ok = gen_tcp:send(Client, <<"raise">>),
    {Text, #{msg := {report, Report}, level := Level}} = expect_logged(<<"data_received">>, "KeyError"),
    ?assertEqual(error, Level),
    ?assertMatch(#{error := #{type := 'KeyError', traceback := [#{function := <<"data_received">>}]}}, Report),
    [?assertNotEqual(nomatch, string:find(Text, Part))
     || Part <- ["Traceback", "reactor_protocols.py", "line ", "in data_received", "raise KeyError", "10.1.2.3", "4567"]].

wrong_actions(Config) ->
    use('Told'),
    [begin
         Client = connected(Config),
         ok = gen_tcp:send(Client, Command),
         ?assertEqual({error, closed}, gen_tcp:recv(Client, 0, 10000)),
         {Text, _} = expect_logged(<<"data_received">>, "write_pending"),
         ?assertNotEqual(nomatch, string:find(Text, Shown)),
         ok = expect_lost()
     end || {Command, Shown} <- [{<<"nonsense">>, "nonsense"}, {<<"none">>, "None"}]].

exception_in_connection_made(Config) ->
    use('RaisesWhenMade'),
    Client = connected(Config),
    ?assertEqual({error, closed}, gen_tcp:recv(Client, 0, 10000)),
    _ = expect_logged(<<"connection_made">>, "connection_made raises"),
    ok = expect_lost().

exception_in_connection_lost(Config) ->
    use('RaisesWhenLost'),
    Client = connected(Config),
    ?assertEqual(<<"a">>, ask(Client, <<"a">>)),
    Before = causeway_ct:descriptors(),
    ok = gen_tcp:close(Client),
    _ = expect_logged(<<"connection_lost">>, "connection_lost raises"),
    ok = causeway_ct:settled(fun causeway_ct:descriptors/0, Before - 2).

exception_in_the_factory(Config) ->
    use(raising_factory),
    Before = causeway_ct:descriptors(),
    Client = connected(Config),
    ?assertEqual({error, closed}, gen_tcp:recv(Client, 0, 10000)),
    _ = expect_logged(<<"protocol factory">>, "factory raises"),
    ok = gen_tcp:close(Client),
    ok = causeway_ct:settled(fun causeway_ct:descriptors/0, Before),
    ok = causeway_ct:wait_until(fun() -> 0 =:= maps:get(active_connections, py_reactor_context:stats(context(Config))) end).

factory_that_makes_something_else(Config) ->
    use(no_protocol),
    Client = connected(Config),
    ?assertEqual({error, closed}, gen_tcp:recv(Client, 0, 10000)),
    _ = expect_logged(<<"protocol factory">>, "object").

sys_exit_in_a_callback(Config) ->
    use('Told'),
    Client = connected(Config),
    ok = gen_tcp:send(Client, <<"exit">>),
    ?assertEqual({error, closed}, gen_tcp:recv(Client, 0, 10000)),
    _ = expect_logged(<<"data_received">>, "SystemExit"),
    ?assertEqual({ok, 1}, py:eval(context(Config), <<"1">>)).

%% Beginnings and ends

close_writes_what_is_left(Config) ->
    use('Told'),
    Client = connected(Config),
    ok = gen_tcp:send(Client, <<"close">>),
    ?assertEqual(<<"good bye">>, read_all(Client)),
    ok = expect_lost().

server_speaks_first(Config) ->
    use('SpeaksFirst'),
    Client = connected(Config),
    ?assertEqual({ok, <<"welcome">>}, gen_tcp:recv(Client, 7, 10000)).

peer_closes(Config) ->
    use('Watched'),
    Client = connected(Config),
    ok = gen_tcp:close(Client),
    ok = expect_lost(),
    ok = causeway_ct:wait_until(fun() -> 0 =:= maps:get(active_connections, py_reactor_context:stats(context(Config))) end).

%% Everything that was echoed still comes.
peer_shuts_down_one_direction(Config) ->
    use('Watched'),
    Client = connected(Config),
    Data = binary:copy(<<"half closed ">>, 100000),
    Sender = spawn_link(fun() -> receive go -> ok end, ok = gen_tcp:send(Client, Data), ok = gen_tcp:shutdown(Client, write) end),
    Sender ! go,
    Received = read_all(Client),
    ?assert(Data =:= Received),
    ok = expect_lost().

peer_resets(Config) ->
    use('Watched'),
    [begin
         Client = connected(Config),
         ok = inet:setopts(Client, [{linger, {true, 0}}]),
         First andalso gen_tcp:send(Client, <<"unread answer">>),
         ok = gen_tcp:close(Client),
         ok = expect_lost()
     end || First <- [true, false, true, false]],
    ?assertEqual([], [Message || {logged, _, _, _} = Message <- causeway_ct:mailbox()]).

peer_resets_under_load(Config) ->
    use('Source'),
    Before = causeway_ct:descriptors(),
    Clients = [connected(Config) || _ <- lists:seq(1, 20)],
    [ok = gen_tcp:send(Client, <<(1 bsl 40):64>>) || Client <- Clients],
    [{ok, _} = gen_tcp:recv(Client, 100000, 10000) || Client <- Clients],
    [begin
         ok = inet:setopts(Client, [{linger, {true, 0}}]),
         ok = gen_tcp:close(Client)
     end || Client <- Clients],
    ok = causeway_ct:wait_until(fun() -> 0 =:= maps:get(active_connections, py_reactor_context:stats(context(Config))) end),
    %% The poller and its bell stay.
    ok = causeway_ct:settled(fun causeway_ct:descriptors/0, Before + 2).

broken_pipe_is_an_exception(Config) ->
    use('BrokenPipe'),
    Client = connected(Config),
    ok = gen_tcp:send(Client, <<"go">>),
    Fd = receive {<<"writing">>, Number} -> Number after 10000 -> error(causeway_ct:mailbox()) end,
    ok = inet:setopts(Client, [{linger, {true, 0}}]),
    ok = gen_tcp:close(Client),
    {ok, true} = py:call('erlang.reactor', signal_write_ready, [Fd]),
    receive {<<"error">>, Name} -> ?assert(lists:member(Name, [<<"BrokenPipeError">>, <<"ConnectionResetError">>])) after 10000 -> error(causeway_ct:mailbox()) end,
    ok = expect_lost().

%% Size

megabytes_in(Config) ->
    use('Digest'),
    Client = connected(Config),
    Size = 50 bsl 20,
    ok = gen_tcp:send(Client, <<Size:64>>),
    Digest = send_blocks(Client, Size, crypto_init()),
    ?assertEqual(Digest, read_all(Client)).

megabytes_out(Config) ->
    use('Source'),
    Client = connected(Config),
    Size = 50 bsl 20,
    ok = gen_tcp:send(Client, <<Size:64>>),
    Digest = receive_blocks(Client, Size, crypto_init()),
    ?assertEqual(Digest, read_all(Client)).

megabytes_both_ways(Config) ->
    use('Watched'),
    Client = connected(Config),
    Size = 50 bsl 20,
    Test = self(),
    Sender = spawn_link(fun() -> Test ! {self(), send_blocks(Client, Size, crypto_init())} end),
    Received = receive_blocks(Client, Size, crypto_init()),
    Sent = receive {Sender, Digest} -> Digest end,
    ?assertEqual(Sent, Received).

%% The peer does not read for a while: nobody else waits, and memory holds what the kernel does not take.
slow_reader(Config) ->
    use('Source'),
    Slow = connected(Config),
    Size = 20 bsl 20,
    ok = gen_tcp:send(Slow, <<Size:64>>),
    ok = causeway_ct:wait_until(fun() -> maps:get(bytes_out, py_reactor_context:stats(context(Config))) >= 0 andalso readable(Slow) end),
    Fast = connected(Config),
    ok = gen_tcp:send(Fast, <<1000000:64>>),
    Digest = receive_blocks(Fast, 1000000, crypto_init()),
    ?assertEqual(Digest, read_all(Fast)),
    Late = receive_blocks(Slow, Size, crypto_init()),
    ?assertEqual(Late, read_all(Slow)).

readable(Socket) ->
    {ok, [{recv_oct, Octets}]} = inet:getstat(Socket, [recv_oct]),
    Octets >= 0.

crypto_init() -> crypto:hash_init(sha256).

block() -> binary:copy(list_to_binary(lists:seq(0, 255)), 256).

send_blocks(_Socket, 0, Hash) ->
    crypto:hash_final(Hash);
send_blocks(Socket, Left, Hash) ->
    Block = binary:part(block(), 0, min(Left, 65536)),
    ok = gen_tcp:send(Socket, Block),
    send_blocks(Socket, Left - byte_size(Block), crypto:hash_update(Hash, Block)).

receive_blocks(_Socket, 0, Hash) ->
    crypto:hash_final(Hash);
receive_blocks(Socket, Left, Hash) ->
    {ok, Data} = gen_tcp:recv(Socket, min(Left, 65536), 20000),
    receive_blocks(Socket, Left - byte_size(Data), crypto:hash_update(Hash, Data)).

many_connections_at_once(Config) ->
    use('Echo'),
    Clients = [connected(Config) || _ <- lists:seq(1, 1000)],
    [begin
         [ok = gen_tcp:send(Client, <<Round:32>>) || Client <- Clients],
         [?assertEqual({ok, <<Round:32>>}, gen_tcp:recv(Client, 4, 10000)) || Client <- Clients]
     end || Round <- [1, 2, 3]],
    ?assertMatch(#{active_connections := 1000, total_requests := 3000}, py_reactor_context:stats(context(Config))),
    [ok = gen_tcp:close(Client) || Client <- Clients],
    ok = causeway_ct:wait_until(fun() -> 0 =:= maps:get(active_connections, py_reactor_context:stats(context(Config))) end).

calls_among_busy_connections(Config) ->
    use('Echo'),
    Pingers = [spawn_link(fun() -> ping(connected(Config), 0) end) || _ <- lists:seq(1, 50)],
    Times = [element(1, timer:tc(fun() -> {ok, N} = py:call(context(Config), causeway_helpers, identity, [N], 10000) end)) || N <- lists:seq(1, 200)],
    [Pinger ! {stop, self()} || Pinger <- Pingers],
    Counts = [receive {pinged, Pinger, Count} -> Count end || Pinger <- Pingers],
    ?assert(lists:min(Counts) > 0),
    ?assert(lists:nth(100, lists:sort(Times)) < 100000).

ping(Client, Count) ->
    receive
        {stop, Test} -> Test ! {pinged, self(), Count}
    after 0 ->
        <<"ping">> = ask(Client, <<"ping">>),
        ping(Client, Count + 1)
    end.

%% The end of a context

callback_that_loops_ends_with_the_context(_Config) ->
    use('Told'),
    {ok, Context} = py_reactor_context:start_link(6, worker),
    Client = connected_to(Context, #{}),
    ok = gen_tcp:send(Client, <<"loop">>),
    ok = causeway_ct:expect({<<"looping">>}),
    {Milliseconds, ok} = causeway_ct:milliseconds(fun() -> py_reactor_context:stop(Context, 0) end),
    ?assert(Milliseconds < 1500),
    ?assertEqual({error, closed}, gen_tcp:recv(Client, 0, 10000)),
    ok = expect_lost().

stop_closes_everything(_Config) ->
    closes_everything(fun py_reactor_context:stop/1).

kill_closes_everything(_Config) ->
    closes_everything(fun(Context) -> unlink(Context), exit(Context, kill) end).

closes_everything(End) ->
    use('Watched'),
    Before = causeway_ct:descriptors(),
    Threads = causeway_ct:context_threads(),
    {ok, Context} = py_reactor_context:start_link(7, worker),
    Clients = [connected_to(Context, #{}) || _ <- lists:seq(1, 50)],
    [?assertEqual(<<"a">>, ask(Client, <<"a">>)) || Client <- Clients],
    End(Context),
    [?assertEqual({error, closed}, gen_tcp:recv(Client, 0, 10000)) || Client <- Clients],
    [ok = expect_lost() || _ <- Clients],
    [ok = gen_tcp:close(Client) || Client <- Clients],
    ok = causeway_ct:settled(fun causeway_ct:descriptors/0, Before),
    ok = causeway_ct:settled(fun causeway_ct:context_threads/0, Threads).

%% Numbers

stats_count(_Config) ->
    use('Echo'),
    {ok, Context} = py_reactor_context:start_link(8, worker, #{max_connections => 5}),
    ?assertMatch(#{id := 8, active_connections := 0, total_connections := 0, total_requests := 0, max_connections := 5},
                 py_reactor_context:stats(Context)),
    Clients = [connected_to(Context, #{}) || _ <- [1, 2, 3]],
    [?assertEqual(<<"12345">>, ask(Client, <<"12345">>)) || Client <- Clients],
    ?assertMatch(#{active_connections := 3, total_connections := 3, total_requests := 3, bytes_in := 15, bytes_out := 15},
                 py_reactor_context:stats(Context)),
    [ok = gen_tcp:close(Client) || Client <- Clients],
    ok = causeway_ct:wait_until(fun() -> 0 =:= maps:get(active_connections, py_reactor_context:stats(Context)) end),
    ?assertMatch(#{total_connections := 3}, py_reactor_context:stats(Context)),
    ok = py_reactor_context:stop(Context).

idle_connections_cost_no_cpu(Config) ->
    use('Echo'),
    Clients = [connected(Config) || _ <- lists:seq(1, 100)],
    [?assertEqual(<<"a">>, ask(Client, <<"a">>)) || Client <- Clients],
    #{parks := Parks} = py_reactor_context:stats(context(Config)),
    ok = causeway_ct:wait_until(fun() -> maps:get(parks, py_reactor_context:stats(context(Config))) > Parks end),
    Before = causeway_ct:context_ticks(),
    %% Here time itself is what is measured: a second of nothing costs at most 20 ms.
    timer:sleep(1000),
    ?assert(causeway_ct:context_ticks() - Before =< 2),
    [?assertEqual(<<"b">>, ask(Client, <<"b">>)) || Client <- Clients].

%% Beyond their Python objects, which are no blocks of malloc.
idle_connections_cost_little_memory(_Config) ->
    use('Echo'),
    {ok, Context} = py_reactor_context:start_link(10, worker, #{}),
    %% The first ones have buffers and tables made.
    ok = with_pairs(Context, 400, fun() -> ok end),
    Before = native_memory(),
    During = with_pairs(Context, 400, fun native_memory/0),
    ct:log("~p bytes each", [(During - Before) / 400]),
    ?assert(During - Before =< 400 * 1024),
    ?assert(native_memory() - Before =< 400 * 100),
    ok = py_reactor_context:stop(Context).

%% Runs a function while there are so many connections that have served their peer.
with_pairs(Context, Number, Fun) ->
    {ok, Pairs} = py:call(reactor_protocols, open_pairs, [Number]),
    [ok = py_reactor_context:handoff(Context, Server, #{addr => <<"127.0.0.1">>, port => 1}) || [_, Server] <- Pairs],
    Clients = [Client || [Client, _] <- Pairs],
    %% On the context itself: it finds all of them ready at once, and makes as many buffers as it ever does.
    {ok, none} = py:call(Context, reactor_protocols, write_all, [Clients]),
    {ok, none} = py:call(reactor_protocols, read_all, [Clients]),
    Result = Fun(),
    [{ok, none} = py:call(os, close, [Client]) || Client <- Clients],
    ok = causeway_ct:wait_until(fun() -> 0 =:= maps:get(active_connections, py_reactor_context:stats(Context)) end),
    Result.

native_memory() ->
    {ok, Bytes} = py:call(causeway_helpers, native_memory, []),
    Bytes.

event_after_idleness(Config) ->
    use('Echo'),
    Client = connected(Config),
    [begin
         ?assertEqual(<<"a">>, ask(Client, <<"a">>)),
         #{parks := Parks} = py_reactor_context:stats(context(Config)),
         ok = causeway_ct:wait_until(fun() -> maps:get(parks, py_reactor_context:stats(context(Config))) > Parks end, 5000)
     end || _ <- lists:seq(1, 50)].

linger_forms(_Config) ->
    use('Watched'),
    [begin
         {ok, Context} = py_reactor_context:start_link(9, worker, #{linger => Linger}),
         Client = connected_to(Context, #{}),
         [?assertEqual(<<"echo">>, ask(Client, <<"echo">>)) || _ <- lists:seq(1, 200)],
         ?assertEqual({ok, 4.0}, py:call(Context, math, sqrt, [16], 5000)),
         Second = connected_to(Context, #{}),
         ?assertEqual(<<"echo">>, ask(Second, <<"echo">>)),
         ok = py_reactor_context:stop(Context),
         [?assertEqual({error, closed}, gen_tcp:recv(Socket, 0, 10000)) || Socket <- [Client, Second]]
     end || Linger <- [0, 1, infinity]].

%% Signals

async_pending(Config) ->
    use('Deferred'),
    Client = connected(Config),
    [begin
         ?assertEqual(<<"later ", Data/binary>>, ask(Client, Data, 6 + byte_size(Data))),
         ok = causeway_ct:expect({<<"signalled">>, true})
     end || Data <- [<<"one">>, <<"two">>, <<"three">>]].

async_pending_with_dead_peer(Config) ->
    use('Waiting'),
    Client = connected(Config),
    ok = gen_tcp:send(Client, <<"wait">>),
    Fd = receive {<<"waiting">>, Number} -> Number after 10000 -> error(causeway_ct:mailbox()) end,
    ok = inet:setopts(Client, [{linger, {true, 0}}]),
    ok = gen_tcp:close(Client),
    {ok, true} = py:call('erlang.reactor', signal_write_ready, [Fd]),
    ok = expect_lost().

signal_for_unknown_descriptors(_Config) ->
    [?assertEqual({ok, false}, py:call('erlang.reactor', signal_write_ready, [Fd])) || Fd <- [0, 12345]],
    ?assertMatch({error, {'ValueError', _}}, py:call('erlang.reactor', signal_write_ready, [-1])),
    ?assertMatch({error, {'TypeError', _}}, py:call('erlang.reactor', signal_write_ready, [a])),
    ?assertMatch({error, {'ValueError', _}}, py:call('erlang.reactor', on_read_ready, [12345])),
    ?assertEqual({ok, none}, py:call('erlang.reactor', close_connection, [12345])).

get_protocol_knows_who_serves(Config) ->
    use('Watched'),
    Client = connected(Config),
    Fd = receive {<<"made">>, Number, _} -> Number after 10000 -> error(causeway_ct:mailbox()) end,
    ?assertMatch({ok, {Fd, false, #{}, <<"Watched">>}}, py:call(?PROTOCOLS, attributes_of, [Fd])),
    ok = gen_tcp:close(Client),
    ok = causeway_ct:expect({<<"lost">>, Fd, true}),
    ?assertEqual({ok, none}, py:call(?PROTOCOLS, attributes_of, [Fd])).

close_connection_from_a_call(Config) ->
    use('Watched'),
    Client = connected(Config),
    Fd = receive {<<"made">>, Number, _} -> Number after 10000 -> error(causeway_ct:mailbox()) end,
    {ok, none} = py:call('erlang.reactor', close_connection, [Fd]),
    ?assertEqual({error, closed}, gen_tcp:recv(Client, 0, 10000)),
    ok = causeway_ct:expect({<<"lost">>, Fd, true}),
    ?assertEqual({ok, none}, py:call('erlang.reactor', close_connection, [Fd])).

%% The kernel gives the same number again: it is a new connection with a new protocol.
reused_numbers(Config) ->
    use('Watched'),
    Numbers = [begin
                   Client = connected(Config, #{number => N}),
                   Fd = receive {<<"made">>, Number, #{<<"number">> := N}} -> Number after 10000 -> error(causeway_ct:mailbox()) end,
                   Data = integer_to_binary(N),
                   ?assertEqual(Data, ask(Client, Data)),
                   ok = gen_tcp:close(Client),
                   ok = causeway_ct:expect({<<"lost">>, Fd, true}),
                   Fd
               end || N <- lists:seq(1, 200)],
    ?assert(length(lists:usort(Numbers)) < 50).

kept_buffers_stay_as_they_are(Config) ->
    use('Keeper'),
    Client = connected(Config),
    Pieces = [binary:copy(<<N>>, N * 100) || N <- lists:seq(1, 50)],
    [begin
         ok = gen_tcp:send(Client, Piece),
         ok = causeway_ct:expect({<<"kept">>, N})
     end || {N, Piece} <- lists:zip(lists:seq(1, 50), Pieces)],
    {ok, Kept} = py:call(?PROTOCOLS, kept_bytes, []),
    ?assert(Kept =:= iolist_to_binary(Pieces)).

read_and_write_by_hand(Config) ->
    use('Reader'),
    Client = connected(Config),
    ?assertEqual(<<"abc|">>, ask(Client, <<"abc">>, 4)).

contexts_share_nothing_but_the_factory(Config) ->
    use('Watched'),
    {ok, Other} = py_reactor_context:start_link(10, worker),
    One = connected(Config),
    Two = connected_to(Other, #{}),
    ?assertEqual(<<"a">>, ask(One, <<"a">>)),
    ?assertEqual(<<"b">>, ask(Two, <<"b">>)),
    ok = py_reactor_context:stop(Other),
    ?assertEqual({error, closed}, gen_tcp:recv(Two, 0, 10000)),
    ?assertEqual(<<"c">>, ask(One, <<"c">>)).

ten_thousand_connections_leave_nothing(Config) ->
    use('Echo'),
    _ = connect_and_close(Config, 100),
    ok = none_active(Config),
    Before = causeway_ct:descriptors(),
    _ = connect_and_close(Config, 10000),
    ok = none_active(Config),
    ok = causeway_ct:settled(fun causeway_ct:descriptors/0, Before),
    ?assertEqual({ok, 0}, py:eval(<<"sum(isinstance(o, p) for o in __import__('gc').get_objects())">>,
                                  #{p => object_of(<<"__import__('reactor_protocols').Echo">>)})).

connect_and_close(Config, Number) ->
    Listen = listen(),
    [begin
         {Client, Server} = tcp_pair(Listen),
         ok = py_reactor_context:handoff(context(Config), fd(Server), #{}),
         <<"x">> = ask(Client, <<"x">>),
         ok = gen_tcp:close(Client)
     end || _ <- lists:seq(1, Number)],
    gen_tcp:close(Listen).

none_active(Config) ->
    causeway_ct:wait_until(fun() -> 0 =:= maps:get(active_connections, py_reactor_context:stats(context(Config))) end).

%% Helpers

object_of(Expression) ->
    {ok, Object} = py:eval(Expression),
    Object.

use(Protocol) ->
    {ok, none} = py:call(?PROTOCOLS, use, [Protocol, self()]).

use_seed(Protocol) ->
    ok = py:exec(["import erlang.reactor as reactor\nfrom seed_examples import *\nreactor.set_protocol_factory(", atom_to_list(Protocol), ")"]).

connected(Config) -> connected(Config, #{}).

connected(Config, Info) -> connected_to(context(Config), Info).

connected_to(Context, Info) ->
    {Client, Server} = tcp_pair(),
    ok = py_reactor_context:handoff(Context, fd(Server), Info),
    Client.

listen() ->
    {ok, Listen} = gen_tcp:listen(0, [binary, {active, false}, {ip, {127, 0, 0, 1}}, {backlog, 1024}]),
    Listen.

tcp_pair() ->
    Listen = listen(),
    Pair = tcp_pair(Listen),
    ok = gen_tcp:close(Listen),
    Pair.

tcp_pair(Listen) ->
    {ok, Port} = inet:port(Listen),
    {ok, Client} = gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, false}, {nodelay, true}]),
    {ok, Server} = gen_tcp:accept(Listen, 10000),
    {Client, Server}.

fd(Socket) ->
    {ok, Fd} = inet:getfd(Socket),
    Fd.

ask(Socket, Data) ->
    ask(Socket, Data, byte_size(Data)).

ask(Socket, Data, Size) ->
    ok = gen_tcp:send(Socket, Data),
    {ok, Answer} = gen_tcp:recv(Socket, Size, 10000),
    Answer.

read_all(Socket) ->
    iolist_to_binary(read_more(Socket)).

read_more(Socket) ->
    case gen_tcp:recv(Socket, 0, 10000) of
        {ok, Data} -> [Data | read_more(Socket)];
        {error, closed} -> []
    end.

expect_lost() ->
    receive
        {<<"lost">>, Fd, true} when is_integer(Fd) -> ok
    after 10000 -> error({connection_lost_was_not_called, causeway_ct:mailbox()})
    end.

expect_logged(Callback, Part) ->
    receive
        {logged, Callback, Text, Event} ->
            ?assertNotEqual(nomatch, string:find(Text, Part)),
            {Text, Event}
    after 10000 -> error({not_logged, Callback, causeway_ct:mailbox()})
    end.
