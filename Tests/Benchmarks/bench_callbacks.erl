%% @doc Calls that call Erlang back, against a port that does the same; and streams against calls.
-module(bench_callbacks).

-export([benchmarks/0]).

%% @doc The benchmarks of this module.
-spec benchmarks() -> [bench:benchmark()].
benchmarks() ->
    [callback(), stream()].

%% One call of a Python function that calls one Erlang function.
callback() ->
    #{name => callback,
      unit => "us",
      peers => fun() ->
          Port = bench_port:open(),
          ok = py:register_function(bench_increment, fun([Number]) -> Number + 1 end),
          ok = py:exec("import erlang\ndef call_back(name, *args): return erlang.call(name, *args)"),
          Ours = fun() -> {ok, 42} = py:call('__main__', call_back, [bench_increment, 41]) end,
          Increment = fun(bench_increment, [Number]) -> Number + 1 end,
          Peer = fun() -> {ok, 42} = bench_port:call(Port, '__main__', call_back, [bench_increment, 41], Increment) end,
          [{ours, bench:time(Ours)}, {port, bench:time(Peer)}]
      end}.

%% Items of a Python iterator, as messages of a stream and by one call each.
stream() ->
    #{name => stream,
      unit => "items/s",
      peers => fun() -> [{stream, fun streamed/1}, {calls, fun called/1}] end}.

streamed(Ms) ->
    {ok, Stream} = py:stream_start(itertools, count, []),
    Start = erlang:monotonic_time(),
    {Count, End} = take(Stream, Start + erlang:convert_time_unit(Ms, millisecond, native), 0),
    ok = py:stream_cancel(Stream),
    per_second(Count, End - Start).

take(Stream, Deadline, Count) ->
    receive {py_stream, Stream, {data, Count}} -> ok end,
    case Count rem 100 =:= 99 andalso erlang:monotonic_time() of
        Now when is_integer(Now), Now >= Deadline -> {Count + 1, Now};
        _ -> take(Stream, Deadline, Count + 1)
    end.

called(Ms) ->
    {ok, Iterator} = py:call(itertools, repeat, [0]),
    1.0e6 / (bench:time(fun() -> {ok, 0} = py:call(builtins, next, [Iterator]) end))(Ms).

per_second(Count, Time) ->
    Count * erlang:convert_time_unit(1, second, native) / Time.
