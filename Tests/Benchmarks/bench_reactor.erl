%% @doc Echo servers: ours, asyncio and uvloop with the same protocol, gen_tcp, and plain epoll as the limit.
%%
%% The client is `causeway-load', the same for all. Every server is in place before the first sample.
-module(bench_reactor).

-export([benchmarks/0, ours/2]).

-define(LOAD, ".build/release/causeway-load").

%% @doc The benchmarks of this module.
-spec benchmarks() -> [bench:benchmark()].
benchmarks() ->
    [echo(echo_1, 1, 64), echo(echo_50, 50, 64), echo(echo_500, 500, 64), echo(echo_50_16k, 50, 16384), churn(),
     timer(), owngil()].

echo(Name, Connections, Size) ->
    #{name => Name,
      unit => "messages/s; p99 in us",
      peers => fun() ->
          [{Peer, load("ping-pong", Port, Connections, Size)}
           || {Peer, Port} <- [{ours, ours('Echo', #{})},
                               {ours_always_polling, ours('Echo', #{linger => infinity})},
                               {ours_seed, ours('SeedEcho', #{})}
                               | peers()]]
      end}.

%% Connect, one message there and back, close.
churn() ->
    #{name => churn,
      unit => "connections/s; p99 in us",
      peers => fun() ->
          [{Peer, load("churn", Port, 20, 64)} || {Peer, Port} <- [{ours, ours('Echo', #{})} | peers()]]
      end}.

%% By how much a timer of 1 ms is late while a server in the same node is under full load.
timer() ->
    #{name => timer,
      unit => "us late; p99",
      peers => fun() ->
          [{Peer, fun(Ms) -> lateness(load("ping-pong", Port, 50, 64), Ms) end}
           || {Peer, Port} <- [{ours, ours('Echo', #{})}, {gen_tcp, gen_tcp_server()}]]
      end}.

%% Callbacks that compute, in one context with a lock of its own and in two.
owngil() ->
    #{name => reactor_owngil,
      unit => "messages/s; p99 in us",
      peers => fun() ->
          One = computing(1),
          Two = computing(2),
          [{one, load("ping-pong", One, 16, 64)}, {two, load("ping-pong", Two, 16, 64)}]
      end}.

peers() ->
    [{asyncio, peer("asyncio")}, {uvloop, peer("uvloop")}, {gen_tcp, gen_tcp_server()},
     {epoll, program(?LOAD, ["echo"])}].

lateness(Load, Ms) ->
    Self = self(),
    Timers = spawn_link(fun() -> Self ! {self(), delays([])} end),
    _ = Load(Ms),
    Timers ! stop,
    receive
        {Timers, Delays} -> [{p99, lists:nth(length(Delays) * 99 div 100 + 1, lists:sort(Delays))}]
    end.

delays(Delays) ->
    Start = erlang:monotonic_time(microsecond),
    receive
        stop -> Delays
    after 1 ->
        delays([erlang:monotonic_time(microsecond) - Start - 1000 | Delays])
    end.

%% A sampler: the rate and the 99th percentile of the time of one message there and back.
load(Command, ServerPort, Connections, Size) ->
    fun(Ms) ->
        Arguments = [Command, "--port", ServerPort, "--connections", Connections, "--size", Size, "--milliseconds", Ms],
        Port = start(?LOAD, [lists:concat([Argument]) || Argument <- Arguments]),
        [Rate, _P50, P99] = [list_to_float(Number) || Number <- string:lexemes(line(Port), " ")],
        receive {Port, {exit_status, 0}} -> ok end,
        [{rate, Rate}, {p99, P99}]
    end.

%% @doc Our reactor with a protocol of echo_protocols.py: a context of its own, which the caller owns, accepts.
%% Returns the port of its listener.
-spec ours(atom(), py_reactor_context:options()) -> inet:port_number().
ours(Class, Options) ->
    {ok, Context} = py_reactor_context:start_link(1, worker, Options#{setup_code => setup(Class)}),
    {Listener, Port} = listener(),
    {ok, Fd} = inet:getfd(Listener),
    ok = py_reactor_context:handoff(Context, Fd, #{}),
    Port.

setup(Class) ->
    ["import sys; sys.path.append('Tests/Benchmarks')\n"
     "import echo_protocols, erlang.reactor\n"
     "erlang.reactor.set_protocol_factory(echo_protocols.", atom_to_list(Class), ")\n"].

%% So many contexts with a lock of their own, which share the port of one listener and its connections.
computing(Number) ->
    {Listener, Port} = listener(),
    {ok, Fd} = inet:getfd(Listener),
    [begin
         case py_reactor_context:start_link(Id, owngil, #{setup_code => setup('Computing')}) of
             {ok, Context} ->
                 {ok, Duplicate} = py:dup_fd(Fd),
                 ok = py_reactor_context:handoff(Context, Duplicate, #{});
             {error, {unsupported, Text}} ->
                 exit({unavailable, Text})
         end
     end || Id <- lists:seq(1, Number)],
    ok = gen_tcp:close(Listener),
    Port.

listener() ->
    {ok, Listener} = gen_tcp:listen(0, [binary, {active, false}, {ip, {127, 0, 0, 1}}, {backlog, 1024},
                                        {nodelay, true}]),
    {ok, Port} = inet:port(Listener),
    {Listener, Port}.

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
    {Listener, Port} = listener(),
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
