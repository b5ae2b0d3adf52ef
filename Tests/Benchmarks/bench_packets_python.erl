%% @doc Packet connections between two Python processes over a socketpair, against a minimal exchange of the same packets
%% over asyncio's streams, and against the socketpair alone.
-module(bench_packets_python).

-export([benchmarks/0]).

%% @doc The benchmarks of this module.
-spec benchmarks() -> [bench:benchmark()].
benchmarks() ->
    [benchmark(packet_python_sequential, "sequential", "exchanges/s", [ours, asyncio]),
     benchmark(packet_python_100, "outstanding", "exchanges/s", [ours, asyncio]),
     benchmark(packet_python_1m, "1m", "bytes/s", [ours, raw])].

benchmark(Name, Load, Unit, Peers) ->
    #{name => Name,
      unit => Unit,
      peers => fun() -> [{Peer, fun(Ms) -> run(Peer, Load, Ms) end} || Peer <- Peers] end}.

%% What the program prints.
run(Peer, Load, Ms) ->
    Port = open_port({spawn_executable, bench:python()},
                     [{args, ["Tests/Benchmarks/packet_ends.py", atom_to_list(Peer), Load, integer_to_list(Ms)]},
                      {env, [{"PYTHONPATH", "python"}]}, {line, 200}, exit_status]),
    Rate = receive {Port, {data, {eol, Line}}} -> list_to_float(Line) end,
    receive {Port, {exit_status, 0}} -> Rate end.
