%% @doc Python protocols on real descriptors: sockets, Unix sockets and pipes, and what is refused.
-module(py_reactor_SUITE).

-compile([export_all, nowarn_export_all]).

-import(causeway_ct, [context/1]).
-import(reactor_ct, [use/1, tcp_pair/0, fd/1, ask/2, read_all/1, expect_lost/0]).

-include_lib("stdlib/include/assert.hrl").

-define(PROTOCOLS, reactor_protocols).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [seed_echo_example, seed_http_example, seed_server_example, seed_method_1, seed_method_2, seed_method_3,
     seed_duplicate_example, seed_subinterpreters_example, seed_buffer_example, seed_factory_examples, handoff_takes_a_live_socket_over,
     handoff_of_a_duplicate, unix_sockets, socketpairs, udp_sockets, pipe_to_read, pipe_to_write,
     client_info_arrives, addresses_arrive, wrong_descriptors, files_are_refused, no_factory, no_room,
     wrong_use_of_handoff, handoff_to_a_dead_context, refused_descriptor_stays_with_erlang,
     same_descriptor_twice].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_testcase(_Case, Config) -> reactor_ct:start_context(Config).

end_per_testcase(_Case, Config) -> reactor_ct:kill_context(Config).

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

%% The descriptor of a live socket: the accepted socket is not closed, and no descriptor leaks.
seed_method_1(_Config) ->
    use_seed('MyProtocol'),
    {Client, ClientSock} = tcp_pair(),
    Before = causeway_ct:descriptors(),
    {ok, {Addr, Port}} = inet:peername(ClientSock),
    %% Get the raw file descriptor
    {ok, Fd} = inet:getfd(ClientSock),
    %% Hand off to Python - Erlang no longer owns this socket
    ok = py_reactor_context:handoff(Fd, #{
        addr => inet:ntoa(Addr),
        port => Port,
        type => tcp
    }),
    [?assertEqual(<<"Got: ", Data/binary>>, reactor_ct:ask(Client, Data, 5 + byte_size(Data))) || Data <- [<<"one">>, <<"two">>]],
    %% The poller and its bell may be new.
    ok = causeway_ct:settled(fun causeway_ct:descriptors/0, Before + 2),
    ok = gen_tcp:close(Client).

%% Python takes the descriptor, and asyncio serves it during a call. Python closes it: Erlang has to have let go.
seed_method_2(_Config) ->
    {Client, ClientSock} = tcp_pair(),
    Before = causeway_ct:descriptors(),
    {ok, Duplicate} = py:dup_fd(fd(ClientSock)),
    ok = gen_tcp:close(ClientSock),
    ok = gen_tcp:send(Client, <<"hello">>),
    %% Call Python with the fd
    Ctx = py:context(1),
    ?assertEqual({ok, none}, py:call(Ctx, seed_examples, handle_connection_sync, [Duplicate])),
    ?assertEqual(<<"Echo: hello">>, read_all(Client)),
    ok = gen_tcp:close(Client),
    ok = causeway_ct:settled(fun causeway_ct:descriptors/0, Before - 1).

seed_method_3(_Config) ->
    {ok, ListenSock} = gen_tcp:listen(0, [binary, {active, false}, {ip, {127, 0, 0, 1}}]),
    {ok, {Addr, Port}} = inet:sockname(ListenSock),
    Ctx = py:context(1),
    Call = py:spawn_call(Ctx, seed_examples, connect_to, [list_to_binary(inet:ntoa(Addr)), Port]),
    {ok, ClientSock} = gen_tcp:accept(ListenSock, 10000),
    ?assertEqual(<<"from Python">>, read_all(ClientSock)),
    ?assertEqual({ok, none}, py:await(Call)).

seed_duplicate_example(_Config) ->
    use_seed('MyProtocol'),
    {Client, ClientSock} = tcp_pair(),
    {ok, Fd} = inet:getfd(ClientSock),
    {ok, DupFd} = py:dup_fd(Fd),
    ok = py_reactor_context:handoff(DupFd, #{type => tcp}),
    ok = gen_tcp:close(ClientSock),    %% Safe - Python has its own fd copy
    ?assertEqual(<<"Got: it">>, reactor_ct:ask(Client, <<"it">>, 7)).

%% Each has its own factory, and the main interpreter has another.
seed_subinterpreters_example(_Config) ->
    use_seed('MyProtocol'),
    {ok, Ctx1} = py_reactor_context:start_link(1, subinterp, #{setup_code => subinterpreter("EchoProtocol")}),
    {ok, Ctx2} = py_reactor_context:start_link(2, subinterp, #{setup_code => subinterpreter("SimpleHTTPProtocol")}),
    {Echo, EchoServer} = tcp_pair(),
    {Http, HttpServer} = tcp_pair(),
    ok = py_reactor_context:handoff(Ctx1, fd(EchoServer), #{type => tcp}),
    ok = py_reactor_context:handoff(Ctx2, fd(HttpServer), #{type => tcp}),
    ?assertEqual(<<"hello">>, ask(Echo, <<"hello">>)),
    ok = gen_tcp:send(Http, <<"GET /it HTTP/1.0\r\n\r\n">>),
    ?assertMatch(<<"HTTP/1.0 200 OK\r\n", _/binary>>, read_all(Http)),
    [ok = py_reactor_context:stop(Context) || Context <- [Ctx1, Ctx2]].

subinterpreter(Protocol) ->
    [mode_ct:setup_code(), "from seed_examples import ", Protocol, "\n"
     "import erlang.reactor as reactor\n"
     "reactor.set_protocol_factory(", Protocol, ")\n"].

seed_buffer_example(Config) ->
    use_seed('BufferProtocol'),
    {Client, Server} = tcp_pair(),
    {ok, Fd} = py:dup_fd(fd(Server)),
    ok = py_reactor_context:handoff(context(Config), Fd, #{type => tcp}),
    Data = <<"GET /a/b HTTP/1.0\r\nx">>,
    ?assertEqual(<<"http">>, reactor_ct:ask(Client, Data, 4)),
    {ok, {State, Seen}} = py:call(seed_examples, seen, [Fd]),
    ?assertEqual(<<"Protocol state: {'type': 'tcp'}">>, State),
    ?assertEqual(#{<<"first_byte">> => $G, <<"header">> => <<"GET ">>, <<"last_byte">> => $x, <<"method">> => <<"GET">>,
                   <<"pos">> => 17, <<"count">> => 3, <<"text">> => Data, <<"data_copy">> => Data, <<"size">> => 20,
                   <<"request_buffer">> => Data}, Seen).

%% Any callable is a factory.
seed_factory_examples(_Config) ->
    ok = py:exec(<<"import erlang.reactor as reactor\n"
                   "class Greets(reactor.Protocol):\n"
                   "    def __init__(self, custom_arg):\n"
                   "        super().__init__()\n"
                   "        self.write_buffer.extend(custom_arg)\n"
                   "reactor.set_protocol_factory(lambda: Greets(b'custom'))\n">>),
    {Client, Server} = tcp_pair(),
    ok = py_reactor_context:handoff(fd(Server), #{type => tcp}),
    ?assertEqual({ok, <<"custom">>}, gen_tcp:recv(Client, 6, 10000)).

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
    Path = socket_ct:file(),
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

%% Helpers

use_seed(Protocol) ->
    ok = py:exec(["import erlang.reactor as reactor\nfrom seed_examples import *\nreactor.set_protocol_factory(", atom_to_list(Protocol), ")"]).
