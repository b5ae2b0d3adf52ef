%% @doc Streaming calls with Python: between two Python processes over loopback TCP, against grpcio; and from Erlang to
%% Python in the node, against a byte channel.
-module(bench_rpc_python).

-export([benchmarks/0]).

-define(S, causeway_rpc_stream).

%% @doc The benchmarks of this module.
-spec benchmarks() -> [bench:benchmark()].
benchmarks() ->
    [between(rpc_python_64, 64), between(rpc_python_64k, 65536), to_python()].

between(Name, Size) ->
    #{name => Name,
      unit => "chunks/s",
      peers => fun() -> [{Peer, fun(Ms) -> run(Peer, Size, Ms) end} || Peer <- [ours, grpc]] end}.

%% What the program prints.
run(Peer, Size, Ms) ->
    Port = open_port({spawn_executable, bench:python()},
                     [{args, ["Tests/Benchmarks/rpc_ends.py", atom_to_list(Peer), integer_to_list(Size),
                              integer_to_list(Ms)]},
                      {env, [{"PYTHONPATH", "python"}]}, {line, 200}, exit_status]),
    Rate = receive {Port, {data, {eol, Line}}} -> list_to_float(Line) end,
    receive {Port, {exit_status, 0}} -> Rate end.

to_python() ->
    #{name => rpc_to_python_64k,
      unit => "chunks/s",
      peers => fun() ->
          ok = py:exec("import sys; sys.path.append('Tests/Benchmarks')"),
          {ok, _} = py:call(rpc_ends, advertise, []),
          Chunk = binary:copy(<<"x">>, 65536),
          [{stream, fun(Ms) -> streamed(Chunk, Ms) end}, {channel, fun(Ms) -> through_channel(Chunk, Ms) end}]
      end}.

streamed(Chunk, Ms) ->
    {ok, Stream} = causeway_rpc:open_stream(<<"bench_drain">>, none),
    Begin = erlang:monotonic_time(microsecond),
    ok = until(Begin + Ms * 1000, fun() -> ok = ?S:send(Stream, Chunk) end),
    ok = ?S:close_send(Stream),
    {ok, Count} = ?S:await_reply(Stream),
    Count * 1000000 / (erlang:monotonic_time(microsecond) - Begin).

through_channel(Chunk, Ms) ->
    {ok, Channel} = py_byte_channel:new(#{max_size => 262144}),
    Call = py:spawn_call(rpc_ends, drain, [Channel]),
    Begin = erlang:monotonic_time(microsecond),
    ok = until(Begin + Ms * 1000, fun() -> ok = py_byte_channel:send(Channel, Chunk, infinity) end),
    ok = py_byte_channel:close(Channel),
    {ok, Count} = py:await(Call, infinity),
    Count * 1000000 / (erlang:monotonic_time(microsecond) - Begin).

until(End, Do) ->
    Do(),
    case erlang:monotonic_time(microsecond) < End of
        true -> until(End, Do);
        false -> ok
    end.
