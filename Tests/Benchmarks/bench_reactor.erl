%% @doc Echo servers: ours, asyncio and uvloop with the same protocol, gen_tcp, and plain epoll as the limit.
%%
%% The client is `causeway-load', the same for all. Every server is in place before the first sample.
-module(bench_reactor).

-export([benchmarks/0]).

-define(LOAD, ".build/release/causeway-load").

%% @doc The benchmarks of this module.
-spec benchmarks() -> [bench:benchmark()].
benchmarks() ->
    [echo(echo_1, 1, 64), echo(echo_50, 50, 64), echo(echo_500, 500, 64), echo(echo_50_16k, 50, 16384)].

echo(Name, Connections, Size) ->
    #{name => Name,
      unit => "messages/s; p99 in us",
      peers => fun() ->
          [{Peer, load("ping-pong", Port, Connections, Size)}
           || {Peer, Port} <- [{ours, ours('Echo', #{})},
                               {ours_seed, ours('SeedEcho', #{})},
                               {asyncio, peer("asyncio")},
                               {uvloop, peer("uvloop")},
                               {gen_tcp, gen_tcp_server()},
                               {epoll, program(?LOAD, ["echo"])}]]
      end}.

%% A sampler: the rate and the 99th percentile of the time of one message there and back.
load(Command, ServerPort, Connections, Size) ->
    fun(Ms) ->
        Arguments = [Command, "--port", ServerPort, "--connections", Connections, "--size", Size, "--milliseconds", Ms],
        Port = start(?LOAD, [lists:concat([Argument]) || Argument <- Arguments]),
        [Rate, _P50, P99] = [list_to_float(Number) || Number <- string:lexemes(line(Port), " ")],
        receive {Port, {exit_status, 0}} -> ok end,
        [{rate, Rate}, {p99, P99}]
    end.

%% Our reactor with a protocol of echo_protocols.py: a context of its own, which the caller owns.
ours(Class, Options) ->
    Setup = ["import sys; sys.path.append('Tests/Benchmarks')\n"
             "import echo_protocols, erlang.reactor\n"
             "erlang.reactor.set_protocol_factory(echo_protocols.", atom_to_list(Class), ")\n"],
    {ok, Context} = py_reactor_context:start_link(1, worker, Options#{setup_code => Setup}),
    {ok, Listener} = gen_tcp:listen(0, [binary, {active, false}, {ip, {127, 0, 0, 1}}, {backlog, 1024}, {nodelay, true}]),
    {ok, Port} = inet:port(Listener),
    Acceptor = spawn_link(fun() -> receive go -> accept(Context, Listener) end end),
    ok = gen_tcp:controlling_process(Listener, Acceptor),
    Acceptor ! go,
    Port.

accept(Context, Listener) ->
    {ok, Socket} = gen_tcp:accept(Listener),
    {ok, Fd} = inet:getfd(Socket),
    ok = py_reactor_context:handoff(Context, Fd, #{type => tcp}),
    accept(Context, Listener).

peer(Loop) ->
    program(bench:python(), ["Tests/Benchmarks/echo_peer.py", Loop]).

%% A server that is a program and prints its port; it ends with the port that runs it.
program(Executable, Arguments) ->
    list_to_integer(line(start(Executable, Arguments))).

start(Executable, Arguments) ->
    open_port({spawn_executable, Executable}, [{args, Arguments}, {line, 200}, exit_status]).

line(Port) ->
    receive
        {Port, {data, {eol, Line}}} -> Line;
        {Port, {exit_status, Status}} -> error({exited, Status})
    after 60000 -> error(silent)
    end.

%% What one writes in Erlang: a process for each connection, {active, once}.
gen_tcp_server() ->
    {ok, Listener} = gen_tcp:listen(0, [binary, {active, false}, {ip, {127, 0, 0, 1}}, {backlog, 1024}, {nodelay, true}]),
    {ok, Port} = inet:port(Listener),
    Acceptor = spawn_link(fun() -> receive go -> accept_echo(Listener) end end),
    ok = gen_tcp:controlling_process(Listener, Acceptor),
    Acceptor ! go,
    Port.

accept_echo(Listener) ->
    {ok, Socket} = gen_tcp:accept(Listener),
    Server = spawn_link(fun() -> receive go -> echo_once(Socket) end end),
    ok = gen_tcp:controlling_process(Socket, Server),
    Server ! go,
    accept_echo(Listener).

echo_once(Socket) ->
    ok = inet:setopts(Socket, [{active, once}]),
    receive
        {tcp, Socket, Data} ->
            _ = gen_tcp:send(Socket, Data),
            echo_once(Socket);
        {tcp_closed, Socket} -> ok;
        {tcp_error, Socket, _} -> ok
    end.
