%% @doc What 10,000 idle connections cost: native memory, and CPU time.
%%
%% Each sample is taken in a fresh node: memory that was freed once is used again and would not be seen.
-module(bench_idle).

-export([benchmarks/0, measure/1]).

-define(LOAD, ".build/load/release/causeway-load").
-define(CONNECTIONS, 10000).

%% @doc The benchmarks of this module.
-spec benchmarks() -> [bench:benchmark()].
benchmarks() ->
    [idle_10k()].

%% `connection' and `objects' are bytes of resident memory: of a connection with all that belongs to it, and of the
%% Python objects alone that it has. `malloc' is what the first has more of in blocks of malloc, which is not hidden by
%% memory that was resident and free before. `before' and `during' are milliseconds of CPU time that the node takes in a
%% second without connections and with them.
idle_10k() ->
    #{name => idle_10k,
      unit => "bytes each; ms/s",
      peers => fun() ->
          Limit = open_files(),
          Limit >= ?CONNECTIONS + 1000 orelse
              exit({unavailable, io_lib:format("~b open files are allowed, and each of ~b connections is one",
                                               [Limit, ?CONNECTIONS])}),
          [{idle, fun sample/1}]
      end}.

sample(Ms) ->
    Paths = lists:append([["-pa", filename:absname(filename:dirname(code:which(Module)))]
                          || Module <- [?MODULE, causeway_app]]),
    {ok, Peer, _Node} = peer:start_link(#{connection => standard_io, args => Paths}),
    Numbers = peer:call(Peer, ?MODULE, measure, [Ms], 60000),
    ok = peer:stop(Peer),
    Numbers.

%% @private
%% @doc Takes a sample in this node, which is idle for ten times so many milliseconds.
-spec measure(pos_integer()) -> [{atom(), number()}].
measure(Ms) ->
    {ok, _} = application:ensure_all_started(causeway),
    Port = bench_reactor:ours('Echo', #{max_connections => ?CONNECTIONS}),
    {ok, none} = py:call(sys, 'path.append', [<<"erlang/test/python">>]),
    %% The buffers and tables that every context makes for its first connections.
    ok = holding(Port, 200, fun() -> ok end),
    IdleBefore = idle(10 * Ms),
    Empty = resident(),
    {ok, none} = py:call(echo_protocols, hold_objects, [?CONNECTIONS]),
    {Objects, Allocated} = {resident(), allocated()},
    holding(Port, ?CONNECTIONS, fun() ->
        [{connection, each(resident() - Objects)}, {objects, each(Objects - Empty)},
         {malloc, each(allocated() - Allocated)}, {before, IdleBefore}, {during, idle(10 * Ms)}]
    end).

each(Bytes) ->
    Bytes / ?CONNECTIONS.

%% Runs a function while there are so many connections, all of which have had one message there and back.
holding(ServerPort, Number, Fun) ->
    Arguments = ["hold", "--port", ServerPort, "--connections", Number],
    Client = open_port({spawn_executable, ?LOAD}, [{args, [lists:concat([Argument]) || Argument <- Arguments]},
                                                   {line, 200}, exit_status]),
    receive
        {Client, {data, {eol, "ready"}}} -> ok;
        {Client, {exit_status, Status}} -> error({exited, Status})
    end,
    Result = Fun(),
    true = port_close(Client),
    Result.

%% The CPU time of all threads in a second, in milliseconds.
idle(Ms) ->
    Start = erlang:monotonic_time(millisecond),
    Before = cpu_time(),
    receive after Ms -> ok end,
    (cpu_time() - Before) / (erlang:monotonic_time(millisecond) - Start) * 1000.

cpu_time() ->
    Files = filelib:wildcard("/proc/self/task/*/schedstat"),
    lists:sum([nanoseconds(File) || File <- Files]) / 1.0e6.

nanoseconds(File) ->
    {ok, Text} = file:read_file(File),
    binary_to_integer(hd(binary:split(Text, <<" ">>))).

%% Without Erlang's own garbage.
resident() ->
    [erlang:garbage_collect(Process) || Process <- processes()],
    {ok, Statm} = file:read_file("/proc/self/statm"),
    [_, Pages | _] = binary:split(Statm, <<" ">>, [global]),
    binary_to_integer(Pages) * 4096.

allocated() ->
    {ok, Bytes} = py:call(causeway_helpers, native_memory, []),
    Bytes.

open_files() ->
    {ok, Limits} = file:read_file("/proc/self/limits"),
    case re:run(Limits, "Max open files +(\\S+)", [{capture, [1], binary}]) of
        {match, [<<"unlimited">>]} -> ?CONNECTIONS * 2;
        {match, [Limit]} -> binary_to_integer(Limit)
    end.
