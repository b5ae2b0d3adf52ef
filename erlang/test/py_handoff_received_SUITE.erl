%% @doc What a socket has received, or has not sent, before it is handed over, and peers that are gone.
-module(py_handoff_received_SUITE).

-compile([export_all, nowarn_export_all]).

-import(socket_ct, [use/1, context/0, pair/2, pair/3, ask/2, read/2, read_all/1, made/0, lost/1, all_is/1]).
-import(handoff_ct, [receive_from/2, still_usable/2, await_message/0, await_messages/2]).

-include_lib("stdlib/include/assert.hrl").

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [messages_come_first, packets_get_their_headers_back, half_a_packet, unread_bytes_come_first,
     messages_of_a_port, lists_and_headers, bytes_that_come_meanwhile, decoded_messages_are_refused,
     unsent_bytes_are_refused, peer_has_closed, peer_has_closed_an_active_socket, peer_may_still_read].

init_per_suite(Config) -> causeway_ct:start(Config).

init_per_testcase(_Case, Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

%% What was received before

messages_come_first(_Config) ->
    use('Receiver'),
    Context = context(),
    [begin
         {Client, Server} = pair(Kind, inet),
         ok = inet:setopts(Server, [{active, Active}]),
         self() ! first,
         ok = gen_tcp:send(Client, <<"one">>),
         ok = await_message(),
         self() ! last,
         Active =:= once andalso begin ok = gen_tcp:send(Client, <<"two">>) end,
         ok = py_reactor_context:handoff(Context, Server, #{}),
         ok = gen_tcp:send(Client, <<"three">>),
         ok = all_is(case Active of once -> <<"onetwothree">>; _ -> <<"onethree">> end),
         {Fd, _} = made(),
         ok = gen_tcp:close(Client),
         ok = lost(Fd),
         ?assertEqual([first, last], [Message || Message <- causeway_ct:mailbox(), is_atom(Message)]),
         ?assertEqual([], [Message || Message <- causeway_ct:mailbox(), is_tuple(Message), not is_binary(element(1, Message))]),
         [receive Message -> ok end || Message <- [first, last]]
     end || Kind <- [port, server], Active <- [true, once, 1, 5]].

packets_get_their_headers_back(_Config) ->
    use('Receiver'),
    Context = context(),
    [begin
         {Client, Server} = pair(Kind, inet),
         ok = inet:setopts(Server, [{packet, Packet}]),
         ok = inet:setopts(Server, [{active, true}]),
         ok = gen_tcp:send(Client, Wire),
         ok = await_messages(Server, Number),
         ok = py_reactor_context:handoff(Context, Server, #{}),
         ok = all_is(Wire),
         ok = gen_tcp:close(Client)
     end || Kind <- [port, server],
            {Packet, Wire, Number} <- [{1, <<3, "abc", 0, 2, "de">>, 3}, {2, <<3:16, "abc", 1:16, "d">>, 2},
                                       {4, <<3:32, "abc", 70000:32, 0:70000/unit:8>>, 2}, {line, <<"one\ntwo\n">>, 2},
                                       {tpkt, <<3, 0, 6:16, "ab">>, 1}]].

%% What the driver has of a packet that is not complete.
half_a_packet(_Config) ->
    use('Receiver'),
    Context = context(),
    [begin
         {Client, Server} = pair(Kind, inet),
         ok = inet:setopts(Server, [{packet, 4}]),
         Wire = [<<9:32, "a packet.", Size:32>>, binary:copy(<<"x">>, Size div 2)],
         ok = gen_tcp:send(Client, Wire),
         case Active of
             true ->
                 ok = inet:setopts(Server, [{active, true}]),
                 ok = await_message();
             false ->
                 {ok, <<"a packet.">>} = gen_tcp:recv(Server, 0, 5000),
                 {error, timeout} = gen_tcp:recv(Server, 0, 20)
         end,
         ok = py_reactor_context:handoff(Context, Server, #{}),
         ok = gen_tcp:send(Client, <<"the end">>),
         All = iolist_to_binary([Wire, "the end"]),
         ok = all_is(case Active of true -> All; false -> binary:part(All, 13, byte_size(All) - 13) end),
         ok = gen_tcp:close(Client)
     end || Kind <- [port, server], Active <- [true, false], Size <- [10, 3000000]].

unread_bytes_come_first(_Config) ->
    use('Receiver'),
    Context = context(),
    [begin
         {Client, Server} = pair(Kind, inet),
         Data = binary:copy(<<"0123456789">>, 1000),
         ok = gen_tcp:send(Client, Data),
         First = receive_from(Server, 7),
         ?assertEqual(binary:part(Data, 0, 7), First),
         ok = py_reactor_context:handoff(Context, Server, #{}),
         ok = all_is(binary:part(Data, 7, byte_size(Data) - 7)),
         ok = gen_tcp:close(Client)
     end || Kind <- socket_ct:kinds()],
    %% Bytes that Erlang has given back.
    {Client, Server} = pair(port, inet),
    ok = gen_tcp:unrecv(Server, <<"again">>),
    ok = py_reactor_context:handoff(Context, Server, #{}),
    ok = all_is(<<"again">>),
    ok = gen_tcp:close(Client).

messages_of_a_port(_Config) ->
    use('Receiver'),
    Context = context(),
    {Client, Server} = pair(port, inet),
    ok = inet:setopts(Server, [{deliver, port}, {active, true}, {packet, 2}]),
    ok = gen_tcp:send(Client, <<2:16, "ab">>),
    ok = await_message(),
    ok = py_reactor_context:handoff(Context, Server, #{}),
    ok = all_is(<<2:16, "ab">>).

lists_and_headers(_Config) ->
    use('Receiver'),
    Context = context(),
    [begin
         {Client, Server} = pair(port, inet),
         ok = inet:setopts(Server, Options),
         ok = inet:setopts(Server, [{active, once}]),
         ok = gen_tcp:send(Client, <<"ab", 255>>),
         ok = await_message(),
         ok = gen_tcp:send(Client, <<"c">>),
         ok = py_reactor_context:handoff(Context, Server, #{}),
         ok = all_is(<<"ab", 255, "c">>)
     end || Options <- [[list], [{header, 2}], [list, {header, 2}]]].

%% The peer never stops to send: nothing is lost, nothing is doubled, and the handoff comes to an end.
bytes_that_come_meanwhile(_Config) ->
    use('Echo'),
    Context = context(),
    Block = << <<N:32>> || N <- lists:seq(1, 50000) >>,
    [begin
         {Client, Server} = pair(Kind, inet),
         Sender = spawn_link(fun() -> ok = gen_tcp:send(Client, Block) end),
         ok = gen_tcp:controlling_process(Client, self()),
         Kind =:= plain orelse inet:setopts(Server, [{active, Active}]),
         ok = py_reactor_context:handoff(Context, Server, #{}),
         ?assert(Block =:= read(Client, byte_size(Block))),
         unlink(Sender),
         ok = gen_tcp:close(Client)
     end || Kind <- socket_ct:kinds(), Active <- [false, true, once], _ <- lists:seq(1, 5)].

decoded_messages_are_refused(_Config) ->
    use('Receiver'),
    Context = context(),
    [begin
         {Client, Server} = pair(Kind, inet),
         ok = inet:setopts(Server, [{packet, http_bin}, {active, once}]),
         ok = gen_tcp:send(Client, <<"GET / HTTP/1.0\r\nA: b\r\n\r\n">>),
         ok = await_message(),
         ?assertMatch({error, {unread, <<_, _/binary>>}}, py_reactor_context:handoff(Context, Server, #{})),
         receive {http, Server, {http_request, 'GET', _, _}} -> ok after 0 -> error(causeway_ct:mailbox()) end,
         ?assertMatch({ok, {http_header, _, _, _, <<"b">>}}, gen_tcp:recv(Server, 0, 5000)),
         ?assertEqual({ok, http_eoh}, gen_tcp:recv(Server, 0, 5000)),
         ok = inet:setopts(Server, [{packet, raw}]),
         still_usable(Client, Server)
     end || Kind <- [port, server]],
    ?assertEqual([], causeway_ct:mailbox()).

unsent_bytes_are_refused(_Config) ->
    use('Echo'),
    Context = context(),
    {Client, Server} = pair(port, inet, [{high_watermark, 64 bsl 20}]),
    Size = 32 bsl 20,
    ok = gen_tcp:send(Server, binary:copy(<<"x">>, Size)),
    ?assertMatch({error, {unsent, <<_, _/binary>>}}, py_reactor_context:handoff(Context, Server, #{})),
    _ = read(Client, Size),
    ok = causeway_ct:wait_until(fun() -> {ok, [{send_pend, 0}]} =:= inet:getstat(Server, [send_pend]) end),
    ok = py_reactor_context:handoff(Context, Server, #{}),
    ?assertEqual(<<"echo">>, ask(Client, <<"echo">>)).

%% Peers that are gone

peer_has_closed(_Config) ->
    use('Receiver'),
    Context = context(),
    [begin
         {Client, Server} = pair(Kind, Family),
         ok = gen_tcp:send(Client, <<"last words">>),
         ok = gen_tcp:close(Client),
         ok = py_reactor_context:handoff(Context, Server, #{}),
         {Fd, _} = made(),
         ok = all_is(<<"last words">>),
         ok = lost(Fd)
     end || Kind <- socket_ct:kinds(), Family <- socket_ct:families()].

%% By then Erlang has closed the socket by itself: what came is in the mailbox as ever.
peer_has_closed_an_active_socket(_Config) ->
    use('Receiver'),
    Context = context(),
    {Client, Server} = pair(port, inet),
    ok = inet:setopts(Server, [{active, true}]),
    ok = gen_tcp:send(Client, <<"last words">>),
    ok = gen_tcp:close(Client),
    ok = causeway_ct:wait_until(fun() -> undefined =:= erlang:port_info(Server) end),
    ?assertEqual({error, closed}, py_reactor_context:handoff(Context, Server, #{})),
    ?assertEqual([{tcp, Server, <<"last words">>}, {tcp_closed, Server}], causeway_ct:mailbox()),
    %% A socket that stays open all the same is handed over with its end.
    {Second, Open} = pair(port, inet, [{exit_on_close, false}]),
    ok = inet:setopts(Open, [{active, true}]),
    ok = gen_tcp:send(Second, <<"last words">>),
    ok = gen_tcp:close(Second),
    ok = causeway_ct:wait_until(fun() -> lists:member({tcp_closed, Open}, causeway_ct:mailbox()) end),
    ok = py_reactor_context:handoff(Context, Open, #{}),
    {Fd, _} = made(),
    ok = all_is(<<"last words">>),
    ok = lost(Fd),
    ?assertEqual([{tcp, Server, <<"last words">>}, {tcp_closed, Server}], causeway_ct:mailbox()).

peer_may_still_read(_Config) ->
    use('HalfOpenUntilWritten'),
    Context = context(),
    [begin
         {Client, Server} = pair(Kind, inet),
         ok = gen_tcp:send(Client, <<"question">>),
         ok = gen_tcp:shutdown(Client, write),
         ?assertEqual(<<"question">>, receive_from(Server, 8)),
         ok = py_reactor_context:handoff(Context, Server, #{}),
         {ok, Answer} = py:call(socket_protocols, megabytes, []),
         ?assert({bytes, Answer} =:= {bytes, read_all(Client)})
     end || Kind <- socket_ct:kinds()].
