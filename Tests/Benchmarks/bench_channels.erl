%% @doc Byte channels, against an OS pipe between two native threads, and against making Python's bytes.
-module(bench_channels).

-export([benchmarks/0]).

-define(LOAD, ".build/load/release/causeway-load").
-define(BUDGET, 4194304).

%% @doc The benchmarks of this module.
-spec benchmarks() -> [bench:benchmark()].
benchmarks() ->
    [to_python(channel_to_python_64, 64, [{one, count_bytes}, {many, count_many}]),
     to_erlang(channel_to_erlang_64, 64, [{one, fun one_by_one/2}, {many, fun many/2}]),
     to_python(channel_to_python_64k, 65536, [{buffer, count_buffers}, {bytes, count_bytes}]),
     to_python(channel_to_python_1m, 1048576, [{buffer, count_buffers}, {bytes, count_bytes}]),
     to_erlang(channel_to_erlang_64k, 65536, [{one, fun one_by_one/2}]),
     ping_pong(), depth()].

to_python(Name, Size, Receivers) ->
    #{name => Name,
      unit => "messages/s",
      peers => fun() ->
          set_up(),
          Data = binary:copy(<<"x">>, Size),
          [{Peer, fun(Ms) -> received_by_python(Function, Data, Ms) end} || {Peer, Function} <- Receivers]
              ++ [{pipe, load("pipe", Size)}, {new_bytes, new_bytes(Size)}]
      end}.

received_by_python(Function, Data, Ms) ->
    {ok, Channel} = py_byte_channel:new(#{max_size => budget(Data)}),
    Call = py:spawn_call(channel_ends, Function, [Channel]),
    Start = erlang:monotonic_time(),
    ok = send(Channel, Data, Start + erlang:convert_time_unit(Ms, millisecond, native)),
    ok = py_byte_channel:close(Channel),
    {ok, Count} = py:await(Call, infinity),
    per_second(Count, Start).

budget(Data) ->
    max(?BUDGET, 16 * byte_size(Data)).

send(Channel, Data, End) ->
    send_batch(Channel, Data, if byte_size(Data) < 4096 -> 100; true -> 1 end),
    case erlang:monotonic_time() < End of
        true -> send(Channel, Data, End);
        false -> ok
    end.

send_batch(_Channel, _Data, 0) ->
    ok;
send_batch(Channel, Data, Count) ->
    ok = py_byte_channel:send(Channel, Data, infinity),
    send_batch(Channel, Data, Count - 1).

to_erlang(Name, Size, Receivers) ->
    #{name => Name,
      unit => "messages/s",
      peers => fun() ->
          set_up(),
          [{Peer, fun(Ms) -> received_by_erlang(Receive, Size, Ms) end} || {Peer, Receive} <- Receivers]
              ++ [{pipe, load("pipe", Size)}]
      end}.

received_by_erlang(Receive, Size, Ms) ->
    {ok, Channel} = py_byte_channel:new(#{max_size => max(?BUDGET, 16 * Size)}),
    Start = erlang:monotonic_time(),
    Call = py:spawn_call(channel_ends, send, [Channel, Size, Ms]),
    Count = Receive(Channel, 0),
    {ok, Count} = py:await(Call, infinity),
    per_second(Count, Start).

one_by_one(Channel, Count) ->
    case py_byte_channel:recv(Channel) of
        {ok, _} -> one_by_one(Channel, Count + 1);
        {error, closed} -> Count
    end.

many(Channel, Count) ->
    case py_byte_channel:recv_many(Channel, 65536) of
        {ok, Messages} -> many(Channel, Count + length(Messages));
        {error, closed} -> Count
    end.

%% 64 bytes there and back, against two threads and a condition variable.
ping_pong() ->
    #{name => channel_ping_pong,
      unit => "us",
      peers => fun() ->
          set_up(),
          {ok, There} = py_byte_channel:new(),
          {ok, Back} = py_byte_channel:new(),
          _Call = py:spawn_call(channel_ends, echo, [There, Back]),
          Data = binary:copy(<<"x">>, 64),
          Ours = fun() ->
              ok = py_byte_channel:send(There, Data),
              {ok, Data} = py_byte_channel:recv(Back)
          end,
          Condition = load("condition", 64),
          [{ours, bench:time(Ours)}, {condition, fun(Ms) -> 1.0e6 / Condition(Ms) end}]
      end}.

%% A send with nothing queued, and with a million messages. What was sent is taken out again untimed.
depth() ->
    #{name => channel_depth,
      unit => "us",
      peers => fun() ->
          Data = binary:copy(<<"x">>, 64),
          {ok, Deep} = py_byte_channel:new(),
          ok = send_batch(Deep, Data, 1000000),
          {ok, Shallow} = py_byte_channel:new(),
          [{deep, fun(Ms) -> sends(Deep, Data, Ms) end}, {shallow, fun(Ms) -> sends(Shallow, Data, Ms) end}]
      end}.

sends(Channel, Data, Ms) ->
    sends(Channel, Data, erlang:convert_time_unit(Ms, millisecond, native), 0, 0).

sends(_Channel, _Data, Wanted, Spent, Count) when Spent >= Wanted ->
    Spent * 1.0e6 / erlang:convert_time_unit(1, second, native) / Count;
sends(Channel, Data, Wanted, Spent, Count) ->
    Start = erlang:monotonic_time(),
    ok = send_batch(Channel, Data, 1000),
    Time = erlang:monotonic_time() - Start,
    _ = [{ok, _} = py_byte_channel:try_receive(Channel) || _ <- lists:seq(1, 1000)],
    sends(Channel, Data, Wanted, Spent + Time, Count + 1000).

set_up() ->
    ok = py:exec("import sys; sys.path.append('Tests/Benchmarks')").

new_bytes(Size) ->
    fun(Ms) ->
        {ok, Rate} = py:call(channel_ends, new_bytes, [Size, Ms], #{}, infinity),
        Rate
    end.

per_second(Count, Start) ->
    Count * erlang:convert_time_unit(1, second, native) / (erlang:monotonic_time() - Start).

%% A sampler: what the program prints.
load(Command, Size) ->
    fun(Ms) ->
        Port = open_port({spawn_executable, ?LOAD},
                         [{args, [Command, "--size", integer_to_list(Size), "--milliseconds", integer_to_list(Ms)]},
                          {line, 200}, exit_status]),
        Rate = receive {Port, {data, {eol, Line}}} -> list_to_float(Line) end,
        receive {Port, {exit_status, 0}} -> Rate end
    end.
