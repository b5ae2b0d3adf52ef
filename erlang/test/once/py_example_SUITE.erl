%% @doc The protocols of erlang/examples in the node, as their first lines say; python/tests/test_examples.py serves them
%% by a plain python3.
-module(py_example_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

suite() -> [{timetrap, {seconds, 60}}].

all() -> [echo, chat, names_over_udp, asyncio_takes_over, websocket_echo].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_testcase(_Case, Config) -> Config.

end_per_testcase(_Case, _Config) -> ok.

echo(_Config) ->
    Client = client(context(echo_protocol, 'EchoProtocol')),
    ?assertEqual(<<"hello">>, reactor_ct:ask(Client, <<"hello">>)).

chat(_Config) ->
    Context = context(chat_protocol, 'ChatProtocol'),
    [Joe, Mike] = [client(Context), client(Context)],
    [?assertEqual(<<"Your name?\n">>, hear(Client)) || Client <- [Joe, Mike]],
    ok = gen_tcp:send(Joe, <<"Joe\n">>),
    %% Served: nobody is told of the first.
    ok = causeway_ct:wait_until(fun() -> maps:get(total_requests, py_reactor_context:stats(Context)) =:= 1 end),
    ok = gen_tcp:send(Mike, <<"Mike\n">>),
    ?assertEqual(<<"Mike has come\n">>, hear(Joe)),
    ok = gen_tcp:send(Joe, <<"Hello, Mike\n">>),
    ?assertEqual(<<"Joe: Hello, Mike\n">>, hear(Mike)),
    ok = gen_tcp:close(Mike),
    ?assertEqual(<<"Mike has gone\n">>, hear(Joe)).

names_over_udp(_Config) ->
    Context = context(udp_protocol, 'NameProtocol'),
    {ok, Server} = gen_udp:open(0, [binary, {active, false}, {ip, {127, 0, 0, 1}}]),
    {ok, Port} = inet:port(Server),
    ok = py_reactor_context:handoff(Context, Server, #{}),
    {ok, Client} = gen_udp:open(0, [binary, {active, false}]),
    [begin
         ok = gen_udp:send(Client, {127, 0, 0, 1}, Port, Question),
         ?assertEqual({ok, {{127, 0, 0, 1}, Port, Answer}}, gen_udp:recv(Client, 0, 10000))
     end || {Question, Answer} <- [{<<"get joe">>, <<"unknown">>}, {<<"set joe Armstrong, J.">>, <<"ok">>},
                                   {<<"get joe">>, <<"Armstrong, J.">>}]].

%% The reactor closes its descriptor; asyncio goes on with its own.
asyncio_takes_over(_Config) ->
    Context = context(asyncio_protocol, 'AsyncioProtocol'),
    Client = client(Context),
    ?assertEqual(<<"hello\n">>, reactor_ct:ask(Client, <<"hello\n">>)),
    ok = gen_tcp:send(Client, <<"async\n">>),
    ?assertEqual(<<"asyncio is here\n">>, hear(Client)),
    ok = causeway_ct:wait_until(fun() -> maps:get(active_connections, py_reactor_context:stats(Context)) =:= 0 end),
    ?assertEqual(<<"HELLO\n">>, reactor_ct:ask(Client, <<"hello\n">>)),
    ok = gen_tcp:shutdown(Client, write),
    ?assertEqual({error, closed}, gen_tcp:recv(Client, 0, 10000)),
    %% The example's loop runs as long as its Python does, which is that of other suites too.
    ok = py:exec(Context, "import threading, asyncio_protocol\n"
                          "loop = asyncio_protocol.loop()\n"
                          "thread = next(each for each in threading.enumerate() if each.name == 'asyncio')\n"
                          "loop.call_soon_threadsafe(loop.stop)\n"
                          "thread.join()\n"
                          "loop.close()").

%% Its key and answer are those of RFC 6455.
websocket_echo(_Config) ->
    Client = client(context(websocket_protocol, 'WebSocketProtocol')),
    ok = gen_tcp:send(Client, ["GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
                               "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"]),
    Answer = headers(Client, <<>>),
    ?assertMatch(<<"HTTP/1.1 101 ", _/binary>>, Answer),
    ?assertNotEqual(nomatch, binary:match(Answer, <<"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=">>)),
    %% A text of five bytes, masked by nothing, comes back without a mask.
    ?assertEqual(<<16#81, 5, "hello">>, reactor_ct:ask(Client, <<16#81, 16#85, 0:32, "hello">>, 7)),
    ?assertEqual(<<16#88, 2, 1000:16>>, reactor_ct:ask(Client, <<16#88, 16#82, 0:32, 1000:16>>, 4)),
    ?assertEqual({error, closed}, gen_tcp:recv(Client, 0, 10000)).

headers(Client, Head) ->
    case binary:match(Head, <<"\r\n\r\n">>) of
        nomatch ->
            {ok, More} = gen_tcp:recv(Client, 0, 10000),
            headers(Client, <<Head/binary, More/binary>>);
        _ ->
            Head
    end.

context(Module, Name) ->
    Examples = filename:join([filename:dirname(filename:dirname(causeway_ct:python_dir())), "examples"]),
    SetupCode = ["import sys\nif '", Examples, "' not in sys.path: sys.path.append('", Examples, "')\n"],
    {ok, Context} = py_reactor_context:start_link(1, worker, #{setup_code => SetupCode, factory => {Module, Name}}),
    Context.

client(Context) -> reactor_ct:connected_to(Context, #{}).

%% A line.
hear(Client) ->
    ok = inet:setopts(Client, [{packet, line}]),
    {ok, Line} = gen_tcp:recv(Client, 0, 10000),
    ok = inet:setopts(Client, [{packet, raw}]),
    Line.
