%% @doc Packet connections between two Python processes over a socketpair, against a minimal exchange of the same packets
%% over asyncio's streams, against the socketpair alone, and against what was measured for cs.packetstream 20240412, which
%% cannot be installed in a working state: as it is, and with a packet_grace of 0.
-module(bench_packets_python).

-export([benchmarks/0]).

%% @doc The benchmarks of this module.
-spec benchmarks() -> [bench:benchmark()].
benchmarks() ->
    [benchmark(packet_python_sequential, "sequential", "exchanges/s", [ours, asyncio], [{cs, 46}, {cs_no_grace, 1059}]),
     benchmark(packet_python_100, "outstanding", "exchanges/s", [ours, asyncio], [{cs, 592}, {cs_no_grace, 1114}]),
     benchmark(packet_python_1m, "1m", "bytes/s", [ours, raw], [])].

benchmark(Name, Load, Unit, Peers, Known) ->
    #{name => Name,
      unit => Unit,
      peers => fun() ->
                   [{Peer, fun(Ms) -> run(Peer, Load, Ms) end} || Peer <- Peers]
                       ++ [{Peer, fun(_Ms) -> Rate end} || {Peer, Rate} <- Known]
               end}.

%% What the program prints.
run(Peer, Load, Ms) ->
    Port = open_port({spawn_executable, bench:python()},
                     [{args, ["Tests/Benchmarks/packet_ends.py", atom_to_list(Peer), Load, integer_to_list(Ms)]},
                      {env, [{"PYTHONPATH", "python"}]}, {line, 200}, exit_status]),
    Rate = receive {Port, {data, {eol, Line}}} -> list_to_float(Line) end,
    receive {Port, {exit_status, 0}} -> Rate end.
