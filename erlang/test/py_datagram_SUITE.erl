%% @doc Sockets of datagrams: UDP and Unix.
-module(py_datagram_SUITE).

-compile([export_all, nowarn_export_all]).

-import(socket_ct, [use/1, context/0, told/1, made/0, lost/1, stats/2]).

-include_lib("stdlib/include/assert.hrl").

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [udp_of_every_kind, largest_datagram, order_of_many, deferred_answers, peer_of_a_connected_socket, peer_that_is_gone, datagrams_in_the_mailbox,
     unix_datagrams, sender_without_a_name, pair_of_sockets, receiver_that_is_full, receiver_that_never_reads,
     receiver_that_is_full_at_the_end, answers_to_who_is_gone, socket_that_was_shut_down, flood_starves_nobody, one_descriptor].

init_per_suite(Config) -> causeway_ct:start(Config).

init_per_testcase(_Case, Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

udp_of_every_kind(_Config) ->
    use('Datagrams'),
    Context = context(),
    [begin
         {Server, Address, Port} = open(Kind, Family),
         ok = py_reactor_context:handoff(Context, Server, #{}),
         ?assertMatch({_, #{<<"type">> := <<"udp">>}}, made()),
         {ok, Client} = gen_udp:open(0, [Family, binary, {active, false}, {ip, Address}]),
         {ok, ClientPort} = inet:port(Client),
         [begin
              ok = gen_udp:send(Client, Address, Port, Datagram),
              {_, Arrived, Peer} = told(<<"datagram">>),
              ?assertEqual({Kind, Datagram}, {Kind, Arrived}),
              ?assertEqual([list_to_binary(inet:ntoa(Address)), ClientPort], lists:sublist(tuple_to_list(Peer), 2)),
              case Told of
                  none -> ok;
                  _ -> ?assertEqual(Told, told(element(1, Told)))
              end,
              case Answer of
                  none -> ok;
                  _ -> ?assertEqual({ok, {Address, Port, Answer}}, gen_udp:recv(Client, 0, 5000))
              end
          end || {Datagram, Told, Answer} <- [{<<"quiet">>, none, none}, {<<>>, none, none}, {<<"buffer:a">>, none, <<"a">>},
                                              {<<"write:bc">>, {<<"written">>, 2}, <<"bc">>},
                                              {<<"to:d">>, {<<"sent">>, true}, <<"d">>}, {<<>>, none, none}]],
         ok = gen_udp:close(Client)
     end || Kind <- socket_ct:kinds(), Family <- socket_ct:families() -- [local]].

open(plain, Family) ->
    {ok, Socket} = socket:open(Family, dgram, udp),
    ok = socket:bind(Socket, #{family => Family, addr => loopback, port => 0}),
    {ok, #{addr := Address, port := Port}} = socket:sockname(Socket),
    {Socket, Address, Port};
open(Kind, Family) ->
    Loopback = case Family of
                   inet -> {127, 0, 0, 1};
                   inet6 -> {0, 0, 0, 0, 0, 0, 0, 1}
               end,
    Backend = case Kind of
                  server -> [{inet_backend, socket}];
                  port -> []
              end,
    {ok, Socket} = gen_udp:open(0, Backend ++ [Family, binary, {active, false}, {ip, Loopback}, {recbuf, 200000}]),
    {ok, Port} = inet:port(Socket),
    {Socket, Loopback, Port}.

largest_datagram(_Config) ->
    use('Datagrams'),
    {Server, Address, Port} = open(port, inet),
    ok = py_reactor_context:handoff(context(), Server, #{}),
    {ok, Client} = gen_udp:open(0, [binary, {active, false}, {recbuf, 200000}, {buffer, 70000}, {sndbuf, 200000}]),
    Body = binary:copy(<<"x">>, 65507 - 7),
    ok = gen_udp:send(Client, Address, Port, <<"buffer:", Body/binary>>),
    ?assertEqual({ok, {Address, Port, Body}}, gen_udp:recv(Client, 0, 5000)).

order_of_many(_Config) ->
    use('Datagrams'),
    {Server, Address, Port} = open(port, inet),
    ok = py_reactor_context:handoff(context(), Server, #{}),
    {ok, Client} = gen_udp:open(0, [binary, {active, false}, {recbuf, 200000}]),
    [begin
         [ok = gen_udp:send(Client, Address, Port, <<"buffer:", N:32>>) || N <- lists:seq(Round, Round + 49)],
         [?assertEqual({ok, {Address, Port, <<N:32>>}}, gen_udp:recv(Client, 0, 5000)) || N <- lists:seq(Round, Round + 49)]
     end || Round <- lists:seq(0, 950, 50)].

%% Each goes to whom it answers, though several were read at once.
deferred_answers(_Config) ->
    use('DatagramsLater'),
    {Server, Address, Port} = open(port, inet),
    Clients = [begin
                   {ok, Client} = gen_udp:open(0, [binary, {active, false}, {ip, Address}]),
                   ok = gen_udp:send(Client, Address, Port, <<N:32>>),
                   Client
               end || N <- lists:seq(1, 40)],
    ok = py_reactor_context:handoff(context(), Server, #{}),
    {Fd, _} = made(),
    [begin
         {ok, ClientPort} = inet:port(Client),
         ?assertMatch({_, <<N:32>>, {_, ClientPort}}, told(<<"datagram">>)),
         ?assertEqual([], causeway_ct:mailbox()),
         {ok, true} = py:call('erlang.reactor', signal_write_ready, [Fd]),
         ?assertEqual({ok, {Address, Port, <<N:32>>}}, gen_udp:recv(Client, 0, 5000))
     end || {N, Client} <- lists:zip(lists:seq(1, 40), Clients)].

peer_of_a_connected_socket(_Config) ->
    use('Datagrams'),
    Context = context(),
    [begin
         {ok, Client} = gen_udp:open(0, [binary, {active, false}, {ip, {127, 0, 0, 1}}]),
         {ok, ClientPort} = inet:port(Client),
         {Server, Address, Port} = open(Kind, inet),
         case Kind of
             plain -> ok = socket:connect(Server, #{family => inet, addr => {127, 0, 0, 1}, port => ClientPort});
             _ -> ok = gen_udp:connect(Server, {127, 0, 0, 1}, ClientPort)
         end,
         ok = py_reactor_context:handoff(Context, Server, #{}),
         ?assertMatch({_, #{<<"type">> := <<"udp">>, <<"addr">> := <<"127.0.0.1">>, <<"port">> := ClientPort}}, made()),
         ok = gen_udp:send(Client, Address, Port, <<"buffer:yes">>),
         ?assertEqual({ok, {Address, Port, <<"yes">>}}, gen_udp:recv(Client, 0, 5000))
     end || Kind <- socket_ct:kinds()].

%% Nobody listens there any more, which the kernel tells with the next read or write: the socket goes on.
peer_that_is_gone(_Config) ->
    use('Datagrams'),
    Context = context(),
    {ok, Client} = gen_udp:open(0, [binary, {active, false}, {ip, {127, 0, 0, 1}}]),
    {ok, ClientPort} = inet:port(Client),
    {Server, Address, Port} = open(port, inet),
    ok = gen_udp:connect(Server, {127, 0, 0, 1}, ClientPort),
    ok = py_reactor_context:handoff(Context, Server, #{}),
    {Fd, _} = made(),
    ok = gen_udp:close(Client),
    {ok, 4} = py:call(Context, socket_protocols, write_of, [Fd, {bytes, <<"lost">>}]),
    ok = causeway_ct:wait_until(fun() -> stats(Context, errors) >= 1 end),
    %% A second loss is noticed by the write after it, where no read comes between.
    {ok, _} = py:call(Context, socket_protocols, write_of, [Fd, {bytes, <<"lost">>}]),
    {ok, Again} = gen_udp:open(ClientPort, [binary, {active, false}, {ip, {127, 0, 0, 1}}]),
    ok = gen_udp:send(Again, Address, Port, <<"buffer:yes">>),
    ?assertEqual({ok, {Address, Port, <<"yes">>}}, gen_udp:recv(Again, 0, 5000)),
    ?assertEqual(1, stats(Context, active_connections)).

%% They have senders, which bytes of a stream have not.
datagrams_in_the_mailbox(_Config) ->
    use('Datagrams'),
    Context = context(),
    [begin
         {Server, Address, Port} = open(Kind, inet),
         ok = inet:setopts(Server, [{active, true}]),
         {ok, Client} = gen_udp:open(0, [binary, {active, false}]),
         [ok = gen_udp:send(Client, Address, Port, Datagram) || Datagram <- [<<"one">>, <<"two">>]],
         ok = causeway_ct:wait_until(fun() -> length(causeway_ct:mailbox()) =:= 2 end),
         ?assertMatch({error, {unread, <<_, _/binary>>}}, py_reactor_context:handoff(Context, Server, #{})),
         ok = gen_udp:send(Client, Address, Port, <<"three">>),
         [receive {udp, Server, _, _, Datagram} -> ok after 5000 -> error(causeway_ct:mailbox()) end
          || Datagram <- [<<"one">>, <<"two">>, <<"three">>]],
         ?assertEqual([], causeway_ct:mailbox()),
         ok = py_reactor_context:handoff(Context, Server, #{}),
         ok = gen_udp:send(Client, Address, Port, <<"four">>),
         ?assertMatch({_, <<"four">>, _}, told(<<"datagram">>)),
         {_, _} = made()
     end || Kind <- [port, server]].

%% Unix

unix_datagrams(_Config) ->
    use('Datagrams'),
    Context = context(),
    [begin
         Server = Path(),
         {ok, Receiver} = gen_udp:open(0, [binary, {active, false}, {ifaddr, {local, Server}}]),
         ClientPath = Path(),
         Client = open_unix(ClientPath),
         ok = py_reactor_context:handoff(Context, Receiver, #{}),
         {Fd, #{<<"type">> := <<"unix">>}} = made(),
         [begin
              ok = send_unix(Client, Server, Datagram),
              ?assertEqual({<<"datagram">>, Datagram, ClientPath}, told(<<"datagram">>)),
              Answer =:= none orelse ?assertEqual({Server, Answer}, receive_unix(Client))
          end || {Datagram, Answer} <- [{<<"buffer:a">>, <<"a">>}, {<<>>, none}, {<<"write:b">>, <<"b">>}, {<<"to:c">>, <<"c">>}]],
         {ok, none} = py:call('erlang.reactor', close_connection, [Fd]),
         ok = lost(Fd),
         ok = socket:close(Client),
         [ok = file:delete(File) || <<$/, _/binary>> = File <- [Server, ClientPath]]
     end || Path <- [fun socket_ct:file/0, fun() -> socket_ct:name("datagrams") end]].

%% gen_udp:recv of OTP 25 fails for senders with a name.
open_unix(Path) ->
    {ok, Socket} = socket:open(local, dgram),
    ok = socket:bind(Socket, #{family => local, path => Path}),
    Socket.

send_unix(Socket, Path, Data) ->
    socket:sendto(Socket, Data, #{family => local, path => Path}, nowait).

receive_unix(Socket) ->
    {ok, {#{path := Path}, Data}} = socket:recvfrom(Socket, 0, 5000),
    {Path, Data}.

%% There is nowhere to answer to.
sender_without_a_name(_Config) ->
    use('Datagrams'),
    Context = context(),
    Path = socket_ct:name("datagrams"),
    ok = py_reactor_context:handoff(Context, open_unix(Path), #{}),
    {ok, Client} = socket:open(local, dgram),
    ok = send_unix(Client, Path, <<"buffer:a">>),
    ?assertEqual({<<"datagram">>, <<"buffer:a">>, none}, told(<<"datagram">>)),
    ok = causeway_ct:wait_until(fun() -> stats(Context, errors) =:= 1 end),
    ok = send_unix(Client, Path, <<"again">>),
    ?assertEqual({<<"datagram">>, <<"again">>, none}, told(<<"datagram">>)).

pair_of_sockets(_Config) ->
    use('Datagrams'),
    {ok, {Left, Right}} = py:call(socket_protocols, open_datagram_pair, []),
    ok = py_reactor_context:handoff(context(), Right, #{}),
    {ok, 8} = py:call(os, write, [Left, {bytes, <<"buffer:a">>}]),
    ?assertEqual({ok, <<"a">>}, py:call(os, read, [Left, 100])),
    {ok, none} = py:call(os, close, [Left]).

%% It gets the answers when it has room, in order. Until then nothing spins, and others are answered.
receiver_that_is_full(_Config) ->
    use('Datagrams'),
    Context = context(),
    Path = socket_ct:name("server"),
    Client = open_unix(socket_ct:name("client")),
    Other = open_unix(socket_ct:name("other")),
    ok = py_reactor_context:handoff(Context, open_unix(Path), #{}),
    {Fd, _} = made(),
    %% More than the kernel queues for a receiver.
    [ask_unix(Client, Path, <<"buffer:", N:32>>) || N <- lists:seq(1, 100)],
    ?assertEqual(<<"other">>, answer_unix(Other, Path, <<"buffer:other">>)),
    ?assert(socket_ct:idle_ticks() =< 5),
    [?assertEqual({Path, <<N:32>>}, receive_unix(Client)) || N <- lists:seq(1, 100)],
    ?assertEqual(<<"end">>, answer_unix(Client, Path, <<"buffer:end">>)),
    %% One who is gone holds nobody up.
    [ask_unix(Client, Path, <<"buffer:", N:32>>) || N <- lists:seq(1, 20)],
    ok = socket:close(Client),
    ?assertEqual(<<"other">>, answer_unix(Other, Path, <<"buffer:other">>)),
    ok = causeway_ct:wait_until(fun() -> stats(Context, errors) >= 5 end),
    {ok, none} = py:call('erlang.reactor', close_connection, [Fd]),
    ok = lost(Fd).

%% Who does not read at all loses answers, and nobody else does.
receiver_that_never_reads(_Config) ->
    use('Datagrams'),
    Context = context(),
    Path = socket_ct:name("server"),
    Client = open_unix(socket_ct:name("client")),
    Other = open_unix(socket_ct:name("other")),
    ok = py_reactor_context:handoff(Context, open_unix(Path), #{}),
    Body = binary:copy(<<"x">>, 4000),
    [ask_unix(Client, Path, <<"buffer:", N:32, Body/binary>>) || N <- lists:seq(1, 200)],
    ?assert(stats(Context, errors) > 50),
    ?assertEqual(<<"other">>, answer_unix(Other, Path, <<"buffer:other">>)),
    %% It has got the first ones of them when it reads.
    [?assertEqual({Path, <<N:32, Body/binary>>}, receive_unix(Client)) || N <- lists:seq(1, 60)].

%% A context that stops first lets them be read.
receiver_that_is_full_at_the_end(_Config) ->
    use('Datagrams'),
    Context = context(),
    Path = socket_ct:name("server"),
    Client = open_unix(socket_ct:name("client")),
    ok = py_reactor_context:handoff(Context, open_unix(Path), #{}),
    [ask_unix(Client, Path, <<"buffer:", N:32>>) || N <- lists:seq(1, 100)],
    {_, Monitor} = spawn_monitor(fun() -> ok = py_reactor_context:stop(Context, 20000) end),
    [?assertEqual({Path, <<N:32>>}, receive_unix(Client)) || N <- lists:seq(1, 100)],
    receive {'DOWN', Monitor, process, _, Reason} -> ?assertEqual(normal, Reason) end.

%% Nobody has that address any more, which the kernel says at once: the socket goes on for others.
answers_to_who_is_gone(_Config) ->
    [begin
         use(Protocol),
         Context = context(),
         Path = socket_ct:name("server"),
         Server = open_unix(Path),
         ClientPath = Name(),
         Client = open_unix(ClientPath),
         [ok = send_unix(Client, Path, Datagram) || Datagram <- [<<"write:a">>, <<"to:b">>, <<"buffer:c">>]],
         ok = socket:close(Client),
         _ = file:delete(ClientPath),
         ok = py_reactor_context:handoff(Context, Server, #{}),
         {Fd, _} = made(),
         Other = open_unix(socket_ct:name("other")),
         ok = send_unix(Other, Path, <<"buffer:yes">>),
         ?assertEqual({Path, Answer}, receive_unix(Other)),
         ?assertEqual({1, 3}, {stats(Context, active_connections), stats(Context, errors)}),
         {ok, none} = py:call('erlang.reactor', close_connection, [Fd]),
         ok = lost(Fd)
     end || {Protocol, Answer} <- [{'Datagrams', <<"yes">>}, {'DatagramsByHand', <<"buffer:yes">>}],
            Name <- [fun socket_ct:file/0, fun() -> socket_ct:name("gone") end]].

%% Sends as soon as there is room, and waits until the protocol has got it.
ask_unix(Client, Path, Datagram) ->
    ok = socket:sendto(Client, Datagram, #{family => local, path => Path}, 5000),
    {_, Datagram, _} = told(<<"datagram">>),
    ok.

answer_unix(Client, Path, Datagram) ->
    ok = ask_unix(Client, Path, Datagram),
    {Path, Answer} = receive_unix(Client),
    Answer.

socket_that_was_shut_down(_Config) ->
    use('Datagrams'),
    Context = context(),
    {ok, {Left, Right}} = py:call(socket_protocols, open_datagram_pair, []),
    {ok, Duplicate} = py:dup_fd(Right),
    ok = py_reactor_context:handoff(Context, Right, #{}),
    {Right, _} = made(),
    {ok, none} = py:call(socket_protocols, shut_down, [Duplicate]),
    ok = lost(Right),
    [{ok, none} = py:call(os, close, [Fd]) || Fd <- [Left, Duplicate]].

%% A socket of datagrams that is never empty, and was ready first: others in the context are served all the same.
flood_starves_nobody(_Config) ->
    use('Flood'),
    [begin
         Context = context(),
         {Server, Address, Port} = open(port, inet),
         {ok, Duplicate} = py:dup_fd(reactor_ct:fd(Server)),
         %% From itself to itself, again and again.
         [ok = gen_udp:send(Server, Address, Port, <<N:32>>) || N <- lists:seq(1, 100)],
         ok = py_reactor_context:handoff(Context, Duplicate, #{type => udp}),
         {Duplicate, _} = made(),
         ?assertEqual({<<"flooded">>, Duplicate}, told(<<"flooded">>)),
         Clients = [reactor_ct:connected_to(Context, #{type => tcp}) || _ <- lists:seq(1, Number)],
         [?assertEqual(Data, socket_ct:ask(Client, Data)) || Data <- [<<"one">>, <<"two">>], Client <- Clients],
         unlink(Context),
         exit(Context, kill),
         ok = gen_udp:close(Server)
     end || Number <- [1, 6, 20, 100]].

one_descriptor(_Config) ->
    use('Datagrams'),
    Context = context(),
    [begin
         Before = causeway_ct:descriptors(),
         [begin
              {Server, _, _} = open(Kind, inet),
              ok = py_reactor_context:handoff(Context, Server, #{})
          end || _ <- lists:seq(1, 50)],
         Made = [element(1, made()) || _ <- lists:seq(1, 50)],
         ok = causeway_ct:settled(fun causeway_ct:descriptors/0, Before + 52),
         [{ok, none} = py:call('erlang.reactor', close_connection, [Fd]) || Fd <- Made],
         [ok = lost(Fd) || Fd <- Made],
         ok = causeway_ct:settled(fun causeway_ct:descriptors/0, Before + 2)
     end || Kind <- socket_ct:kinds()].
