%% @doc Echo servers: ours, asyncio and uvloop with the same protocol, gen_tcp, and plain epoll as the limit.
%%
%% The client is `causeway-load', the same for all. Every server is in place before the first sample.
-module(bench_reactor).

-export([start_lateness/0, late/3]).
-export([benchmarks/0, ours/2]).

-define(LOAD, ".build/load/release/causeway-load").
%% Of Linux's <sys/socket.h>: what gen_tcp has no option for in OTP 25.
-define(SOL_SOCKET, 1).
-define(SO_REUSEPORT, 15).

%% @doc The benchmarks of this module.
-spec benchmarks() -> [bench:benchmark()].
benchmarks() ->
    [echo(echo_1, 1, 64), echo(echo_50, 50, 64), echo(echo_500, 500, 64), echo(echo_50_16k, 50, 16384), churn(),
     timer(), timer_without_spin(), calls_under_load(), load_under_calls(), owngil()].

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
      peers => fun() -> lateness() end}.

%% The same in a node whose schedulers do not spin before they sleep, as the guide on operation has it. Linux takes a
%% whole slice, 3 ms, from a thread that yields while others want its processor, as a scheduler that spins does tens
%% of times: it then has to wait for as long as that adds up to.
timer_without_spin() ->
    #{name => timer_without_spin,
      unit => "us late; p99",
      peers => fun() ->
          Paths = lists:append([["-pa", Path] || Path <- code:get_path(), filelib:is_dir(Path)]),
          NoSpin = ["+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none"],
          {ok, Node, _} = peer:start_link(#{connection => standard_io, args => NoSpin ++ Paths}),
          Server = peer:call(Node, ?MODULE, start_lateness, []),
          [{Name, fun(Ms) -> peer:call(Node, ?MODULE, late, [Server, Name, Ms], infinity) end} || Name <- [ours, gen_tcp]]
      end}.

%% @doc Starts a process of this node that serves {@link late/3}.
-spec start_lateness() -> pid().
start_lateness() ->
    {ok, _} = application:ensure_all_started(causeway),
    spawn(fun() -> serve_lateness(lateness()) end).

serve_lateness(Peers) ->
    receive
        {From, Reference, Name, Ms} ->
            {Name, Sampler} = lists:keyfind(Name, 1, Peers),
            From ! {Reference, Sampler(Ms)},
            serve_lateness(Peers)
    end.

%% @doc One sample of a peer, of the process that {@link start_lateness/0} returned.
-spec late(pid(), atom(), pos_integer()) -> [{p99, integer()}].
late(Server, Name, Ms) ->
    Reference = make_ref(),
    Server ! {self(), Reference, Name, Ms},
    receive {Reference, Sample} -> Sample end.

lateness() ->
    %% Long rounds: of 300 timers three are a hundredth.
    [{Peer, fun(Ms) -> lateness(load("ping-pong", Port, 50, 64), 5 * Ms) end}
     || {Peer, Port} <- [{ours, ours('Echo', #{})}, {gen_tcp, gen_tcp_server()}]].

%% Calls, one after another, of a context whose 50 connections are under full load, and of one without connections.
calls_under_load() ->
    #{name => reactor_calls,
      unit => "us",
      peers => fun() ->
          {Busy, Port} = serving('Echo', #{}),
          {Idle, _} = serving('Echo', #{}),
          Load = load("ping-pong", Port, 50, 64),
          [{loaded, fun(Ms) ->
                        %% It begins before the first call, and ends after the last one.
                        {Pid, Monitor} = spawn_monitor(fun() -> Load(Ms + 500) end),
                        ok = wait_for_requests(Busy),
                        Sample = durations(Busy, Ms),
                        true = is_process_alive(Pid),
                        receive {'DOWN', Monitor, process, _, normal} -> Sample end
                    end},
           {idle, fun(Ms) -> durations(Idle, Ms) end}]
      end}.

wait_for_requests(Context) ->
    #{total_requests := Before} = py_reactor_context:stats(Context),
    wait_for_requests(Context, Before + 1000).

wait_for_requests(Context, Number) ->
    case py_reactor_context:stats(Context) of
        #{total_requests := Requests} when Requests >= Number -> ok;
        _ -> receive after 1 -> wait_for_requests(Context, Number) end
    end.

%% How long calls take, in the middle and at worst.
durations(Context, Ms) ->
    End = erlang:monotonic_time(millisecond) + Ms,
    Sorted = lists:sort(durations(Context, End, [])),
    [{p50, lists:nth(length(Sorted) div 2 + 1, Sorted)}, {p99, lists:nth(length(Sorted) * 99 div 100 + 1, Sorted)}].

durations(Context, End, Durations) ->
    Start = erlang:monotonic_time(microsecond),
    call(Context),
    Duration = erlang:monotonic_time(microsecond) - Start,
    case erlang:monotonic_time(millisecond) < End of
        true -> durations(Context, End, [Duration | Durations]);
        false -> [Duration | Durations]
    end.

%% The load of 50 connections while 64 callers call their context all the time, and without those.
load_under_calls() ->
    #{name => reactor_flood,
      unit => "messages/s; p99 in us",
      peers => fun() ->
          {Called, CalledPort} = serving('Echo', #{}),
          {_, Port} = serving('Echo', #{}),
          [{flooded, fun(Ms) ->
                         Callers = [spawn_link(fun() -> flood(Called) end) || _ <- lists:seq(1, 64)],
                         Sample = (load("ping-pong", CalledPort, 50, 64))(Ms),
                         [begin unlink(Caller), exit(Caller, kill) end || Caller <- Callers],
                         Sample
                     end},
           {alone, load("ping-pong", Port, 50, 64)}]
      end}.

flood(Context) ->
    call(Context),
    flood(Context).

call(Context) ->
    {ok, 4.0} = py:call(Context, math, sqrt, [16]).

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
    {_Context, Port} = serving(Class, Options),
    Port.

serving(Class, Options) ->
    {ok, Context} = py_reactor_context:start_link(1, worker, Options#{setup_code => setup(Class)}),
    {Listener, Port} = listener(),
    {ok, Fd} = inet:getfd(Listener),
    ok = py_reactor_context:handoff(Context, Fd, #{}),
    {Context, Port}.

setup(Class) ->
    ["import sys; sys.path.append('Tests/Benchmarks')\n"
     "import echo_protocols, erlang.reactor\n"
     "erlang.reactor.set_protocol_factory(echo_protocols.", atom_to_list(Class), ")\n"].

%% So many contexts with a lock of their own, each with a listener of its own on one port, over which the system spreads
%% the connections. From one listener that all share, who is first takes a whole burst.
computing(Number) ->
    Contexts = [computing_context(Id) || Id <- lists:seq(1, Number)],
    lists:foldl(fun(Context, Port) ->
                    {Listener, Bound} = listener(Port, [{raw, ?SOL_SOCKET, ?SO_REUSEPORT, <<1:32/native>>}]),
                    ok = py_reactor_context:handoff(Context, Listener, #{}),
                    Bound
                end, 0, Contexts).

computing_context(Id) ->
    case py_reactor_context:start_link(Id, owngil, #{setup_code => setup('Computing')}) of
        {ok, Context} -> Context;
        {error, {unsupported, Text}} -> exit({unavailable, Text})
    end.

listener() ->
    listener(0, []).

listener(At, Options) ->
    {ok, Listener} = gen_tcp:listen(At, [binary, {active, false}, {ip, {127, 0, 0, 1}}, {backlog, 1024},
                                         {nodelay, true} | Options]),
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
