%% @doc The event loop: ours, asyncio's and uvloop in plain Python, with the same programs; and tasks that Erlang starts
%% against calls.
-module(bench_loop).

-export([benchmarks/0]).

-define(LOAD, ".build/load/release/causeway-load").
-define(OUTSTANDING, 1000).

%% @doc The benchmarks of this module.
-spec benchmarks() -> [bench:benchmark()].
benchmarks() ->
    [echo(Name, Style, Connections, Size)
     || {Name, Style, Connections, Size} <- [{loop_echo_1, protocol, 1, 64}, {loop_echo_50, protocol, 50, 64},
                                             {loop_echo_1_16k, protocol, 1, 16384},
                                             {loop_echo_50_16k, protocol, 50, 16384},
                                             {loop_streams_1, streams, 1, 64}, {loop_streams_50, streams, 50, 64},
                                             {loop_streams_50_16k, streams, 50, 16384}]]
        ++ [rate(loop_call_soon, call_soon, "callbacks/s"), rate(loop_timers, timers, "timers/s"),
            rate(loop_tasks, tasks, "tasks/s"), tasks()].

echo(Name, Style, Connections, Size) ->
    #{name => Name,
      unit => "messages/s",
      peers => fun() ->
          [{Loop, load(server(Loop, Style), Connections, Size)} || Loop <- [ours, asyncio, uvloop]]
      end}.

rate(Name, What, Unit) ->
    #{name => Name,
      unit => Unit,
      peers => fun() -> [{Loop, fun(Ms) -> measured(Loop, What, Ms) end} || Loop <- [ours, asyncio, uvloop]] end}.

%% Tasks of a trivial coroutine, so many outstanding, against calls of 64 processes, all of them to one context.
tasks() ->
    #{name => loop_async_call,
      unit => "calls/s",
      peers => fun() ->
          {ok, Context} = py_context:start_link(#{}),
          {ok, none} = py:call(Context, sys, 'path.append', [<<"Tests/Benchmarks">>]),
          [{async, fun(Ms) -> outstanding(Context, Ms) end},
           {call, bench:rate(64, fun() -> {ok, 4.0} = py:call(Context, math, sqrt, [16]) end)}]
      end}.

outstanding(Context, Ms) ->
    Start = erlang:monotonic_time(microsecond),
    Tasks = queue:from_list([task(Context) || _ <- lists:seq(1, ?OUTSTANDING)]),
    Count = outstanding(Context, Tasks, Start + Ms * 1000, 0),
    Count * 1000000 / (erlang:monotonic_time(microsecond) - Start).

outstanding(Context, Tasks, End, Count) ->
    case queue:out(Tasks) of
        {empty, _} ->
            Count;
        {{value, Task}, Rest} ->
            {ok, none} = py:async_await(Task),
            case erlang:monotonic_time(microsecond) < End of
                true -> outstanding(Context, queue:in(task(Context), Rest), End, Count + 1);
                false -> outstanding(Context, Rest, End, Count + 1)
            end
    end.

task(Context) -> py:async_call(Context, loop_peer, trivial, []).

server(Loop, Style) ->
    line(program([atom_to_list(Loop), "serve", atom_to_list(Style)])).

measured(Loop, What, Ms) ->
    Port = program([atom_to_list(Loop), atom_to_list(What), integer_to_list(Ms)]),
    Rate = list_to_float(line(Port)),
    receive {Port, {exit_status, 0}} -> Rate end.

program(Arguments) ->
    open_port({spawn_executable, bench:python()},
              [{args, ["Tests/Benchmarks/loop_peer.py" | Arguments]}, {env, [{"PYTHONPATH", "python"}]}, {line, 200},
               exit_status]).

load(ServerPort, Connections, Size) ->
    fun(Ms) ->
        Arguments = ["ping-pong", "--port", ServerPort, "--connections", integer_to_list(Connections),
                     "--size", integer_to_list(Size), "--milliseconds", integer_to_list(Ms)],
        Port = open_port({spawn_executable, ?LOAD}, [{args, Arguments}, {line, 200}, exit_status]),
        [Rate | _] = string:lexemes(line(Port), " "),
        receive {Port, {exit_status, 0}} -> list_to_float(Rate) end
    end.

line(Port) ->
    receive
        {Port, {data, {eol, Line}}} -> Line;
        {Port, {exit_status, Status}} -> error({exited, Status})
    after 60000 -> error(silent)
    end.
