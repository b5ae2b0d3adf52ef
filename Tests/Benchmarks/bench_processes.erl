%% @doc Programs of the operating system, against Erlang's own ports.
-module(bench_processes).

-export([benchmarks/0]).

-define(STREAM, causeway_process_stream).
-define(READ, 1073741824).
-define(THROUGH, 268435456).
-define(OUTSTANDING, 1048576).
-define(CHILDREN, 1000).

%% @doc The benchmarks of this module.
-spec benchmarks() -> [bench:benchmark()].
benchmarks() ->
    [read(process_read_dd, "dd", ["if=/dev/zero", "bs=1M", "count=1024", "status=none"]),
     read(process_read_head, "head", ["-c", integer_to_list(?READ), "/dev/zero"]),
     cat(), echo(), start(process_start, 1), start(process_start_8, 8), memory()].

%% Megabytes a second of a program that writes 1 GiB. The other numbers are the gigabytes that came.
read(Name, Command, Arguments) ->
    #{name => Name,
      unit => "MB/s",
      peers => fun() ->
          [{ours, fun(_Ms) -> megabytes(?READ, fun() -> read_all(ours(Command, Arguments), 0) end) end},
           {port, fun(_Ms) -> megabytes(?READ, fun() -> read_all(port(Command, Arguments), 0) end) end}]
      end}.

ours(Command, Arguments) ->
    {ok, Handle} = ?STREAM:open(Command, Arguments),
    Handle.

port(Command, Arguments) ->
    open_port({spawn_executable, os:find_executable(Command)}, [{args, Arguments}, binary, exit_status]).

read_all(From, Size) ->
    receive
        {From, {data, Data}} -> read_all(From, Size + byte_size(Data));
        {'EXIT', From, normal} -> Size;
        {From, {exit_status, 0}} -> Size
    end.

megabytes(Expected, Run) ->
    {Microseconds, Size} = timer:tc(Run),
    %% All of it.
    Expected = Size,
    Size / Microseconds.

%% 256 MiB through cat and back, in pieces of 64 KB, with at most 1 MiB on the way.
cat() ->
    #{name => process_cat,
      unit => "MB/s",
      peers => fun() ->
          Piece = binary:copy(<<"x">>, 65536),
          [{ours, fun(_Ms) ->
               Handle = ours("cat", []),
               Rate = megabytes(?THROUGH, fun() -> through(Handle, fun() -> Handle ! {self(), {command, Piece}} end, 0, 0) end),
               ok = ?STREAM:close(Handle),
               receive {Handle, closed} -> Rate end
           end},
           {port, fun(_Ms) ->
               Port = port("cat", []),
               Rate = megabytes(?THROUGH, fun() -> through(Port, fun() -> port_command(Port, Piece) end, 0, 0) end),
               true = port_close(Port),
               Rate
           end}]
      end}.

through(_From, _Send, _Sent, ?THROUGH) ->
    ?THROUGH;
through(From, Send, Sent, Received) when Sent < ?THROUGH, Sent - Received < ?OUTSTANDING ->
    _ = Send(),
    through(From, Send, Sent + 65536, Received);
through(From, Send, Sent, Received) ->
    receive {From, {data, Data}} -> through(From, Send, Sent, Received + byte_size(Data)) end.

%% One line to cat and back.
echo() ->
    #{name => process_echo,
      unit => "us",
      peers => fun() ->
          Handle = ours("cat", []),
          Port = port("cat", []),
          Line = <<"one line of text\n">>,
          [{ours, bench:time(fun() -> Handle ! {self(), {command, Line}}, receive {Handle, {data, Line}} -> ok end end)},
           {port, bench:time(fun() -> Port ! {self(), {command, Line}}, receive {Port, {data, Line}} -> ok end end)}]
      end}.

%% Programs a second, from the start to the end.
start(Name, Callers) ->
    #{name => Name,
      unit => "programs/s",
      peers => fun() ->
          [{ours, bench:rate(Callers, fun() -> Handle = ours("/bin/true", []), receive {'EXIT', Handle, normal} -> ok end end)},
           {port, bench:rate(Callers, fun() ->
               Port = open_port({spawn_executable, "/bin/true"}, [binary, exit_status]),
               receive {Port, {exit_status, 0}} -> ok end
           end)}]
      end}.

%% Bytes of memory for each of 1,000 programs: in the node, of Erlang's and of malloc's, and of its guardian what it
%% shares with nobody.
memory() ->
    #{name => process_memory,
      unit => "bytes",
      peers => fun() ->
          ok = py:exec("import sys; sys.path.append('erlang/test/python')"),
          %% What is made once is there.
          _ = memory_of(10),
          [{each, fun(_Ms) -> lists:zip([node, guardian], memory_of(?CHILDREN)) end}]
      end}.

memory_of(Number) ->
    Before = allocated(),
    Handles = [ours("cat", []) || _ <- lists:seq(1, Number)],
    After = allocated(),
    Guardian = private(guardian(?STREAM:os_pid(hd(Handles)))),
    Monitors = [{Handle, monitor(process, Handle)} || Handle <- Handles],
    lists:foreach(fun ?STREAM:close/1, Handles),
    _ = [receive {'DOWN', Monitor, process, Handle, _} -> receive {Handle, closed} -> ok end end || {Handle, Monitor} <- Monitors],
    [(After - Before) / Number, float(Guardian)].

allocated() ->
    {ok, Bytes} = py:call(causeway_helpers, native_memory, []),
    _ = [erlang:garbage_collect(Pid) || Pid <- processes()],
    Bytes + erlang:memory(total).

guardian(Program) ->
    {ok, Status} = file:read_file(["/proc/", integer_to_list(Program), "/status"]),
    {match, [Parent]} = re:run(Status, "PPid:\\s+(\\d+)", [{capture, all_but_first, list}]),
    Parent.

private(Process) ->
    {ok, Map} = file:read_file(["/proc/", Process, "/smaps_rollup"]),
    {match, Sizes} = re:run(Map, "Private_(?:Clean|Dirty):\\s+(\\d+) kB", [global, {capture, all_but_first, list}]),
    1024 * lists:sum([list_to_integer(Size) || [Size] <- Sizes]).
