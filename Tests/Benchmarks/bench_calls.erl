%% @doc Calls into Python, against a port that does the same, and against copying memory.
-module(bench_calls).

-export([benchmarks/0]).

-define(MIB, 1048576).

%% @doc The benchmarks of this module.
-spec benchmarks() -> [bench:benchmark()].
benchmarks() ->
    [call_sequential(), call_concurrent(call_8, 8), call_concurrent(call_64, 64),
     binary_1mb(), list_10k()].

call_sequential() ->
    #{name => call_sequential,
      unit => "us",
      peers => fun() ->
          Port = bench_port:open(),
          Ours = fun() -> {ok, 4.0} = py:call(math, sqrt, [16]) end,
          Peer = fun() -> {ok, 4.0} = bench_port:call(Port, math, sqrt, [16]) end,
          [{ours, bench:time(Ours)}, {port, bench:time(Peer)}]
      end}.

call_concurrent(Name, Callers) ->
    #{name => Name,
      unit => "calls/s",
      peers => fun() ->
          Server = bench_port:start_link(),
          Ours = fun() -> {ok, 4.0} = py:call(math, sqrt, [16]) end,
          Peer = fun() -> {ok, 4.0} = bench_port:shared_call(Server, math, sqrt, [16]) end,
          [{ours, bench:rate(Callers, Ours)}, {port, bench:rate(Callers, Peer)}]
      end}.

%% The yardstick is a bare memmove between warm buffers, see memcpy.py; `new_bytes' shows what a
%% copy into a new Python object costs in plain Python. `call' is a call with nothing to convert.
binary_1mb() ->
    #{name => binary_1mb,
      unit => "us",
      peers => fun() ->
          Port = bench_port:open(),
          Copy = fun(Function) ->
              fun(Ms) ->
                  {ok, Time} = bench_port:call(Port, memcpy, Function, [?MIB, Ms]),
                  Time
              end
          end,
          Len = fun(Arg, Length) ->
              bench:time(fun() -> {ok, Length} = py:call(builtins, len, [Arg]) end)
          end,
          Ascii = binary:copy(<<"coffee, milk: 12">>, ?MIB div 16),
          NonAscii = binary:copy(<<"café au lait 12"/utf8>>, ?MIB div 16),
          [{call, Len(<<>>, 0)},
           {bytes, Len({bytes, Ascii}, ?MIB)},
           {str, Len(Ascii, ?MIB)},
           {memcpy, Copy(memmove)},
           {str_non_ascii, Len(NonAscii, ?MIB div 16 * 15)},
           {new_bytes, Copy(new_bytes)}]
      end}.

list_10k() ->
    #{name => list_10k,
      unit => "us",
      peers => fun() ->
          Port = bench_port:open(),
          List = lists:seq(1, 10000),
          Ours = fun() -> py:call(builtins, list, [List]) end,
          Peer = fun() -> bench_port:call(Port, builtins, list, [List]) end,
          {{ok, List}, {ok, List}} = {Ours(), Peer()},
          [{ours, bench:time(fun() -> {ok, [1 | _]} = Ours() end)},
           {port, bench:time(fun() -> {ok, [1 | _]} = Peer() end)}]
      end}.
