%% @doc Packet connections between two Erlang processes over loopback TCP, against the same exchange as terms by gen_tcp
%% with {packet, 4}: a tag, a type, flags and a payload there, a tag, flags and a payload back.
-module(bench_packets).

-export([benchmarks/0]).

-define(PAYLOAD, 32).
-define(OUTSTANDING, 100).
-define(MB, 1048576).

%% @doc The benchmarks of this module.
-spec benchmarks() -> [bench:benchmark()].
benchmarks() ->
    [sequential(), outstanding(), large(), rows()].

sequential() ->
    #{name => packet_sequential,
      unit => "us",
      peers => fun() ->
          Payload = binary:copy(<<"x">>, ?PAYLOAD),
          {Workers, _} = connections(#{}),
          {Inline, _} = connections(#{workers => 0}),
          Socket = terms(),
          [{workers, bench:time(fun() -> request(Workers, Payload) end)},
           {inline, bench:time(fun() -> request(Inline, Payload) end)},
           {gen_tcp, bench:time(fun() -> ok = send(Socket, 1, Payload), answer(Socket) end)}]
      end}.

request(Connection, Payload) ->
    {ok, 0, _} = causeway_packet_connection:request(Connection, 1, Payload).

%% One process keeps so many requests on their way.
outstanding() ->
    #{name => packet_outstanding,
      unit => "requests/s",
      peers => fun() ->
          Payload = binary:copy(<<"x">>, ?PAYLOAD),
          {Workers, _} = connections(#{}),
          {Inline, _} = connections(#{workers => 0}),
          Socket = terms(),
          Ours = fun(Connection) ->
              fun(Ms) ->
                  kept(fun() -> causeway_packet_connection:send_request(Connection, 1, Payload) end,
                       fun(Id) -> {ok, 0, _} = causeway_packet_connection:receive_response(Id) end, Ms)
              end
          end,
          [{workers, Ours(Workers)},
           {inline, Ours(Inline)},
           {gen_tcp, fun(Ms) ->
                kept(fun() -> send(Socket, 1, Payload) end, fun(_) -> answer(Socket) end, Ms)
            end}]
      end}.

kept(Send, Receive, Ms) ->
    Start = erlang:monotonic_time(),
    End = Start + erlang:convert_time_unit(Ms, millisecond, native),
    Waiting = queue:from_list([Send() || _ <- lists:seq(1, ?OUTSTANDING)]),
    Count = kept(Send, Receive, End, Waiting, 0),
    Count * erlang:convert_time_unit(1, second, native) / (erlang:monotonic_time() - Start).

kept(Send, Receive, End, Waiting, Count) ->
    {{value, First}, Others} = queue:out(Waiting),
    _ = Receive(First),
    case erlang:monotonic_time() < End of
        true -> kept(Send, Receive, End, queue:in(Send(), Others), Count + 1);
        false -> lists:foreach(Receive, queue:to_list(Others)), Count + 1 + queue:len(Others)
    end.

%% Echoes of 1 MB, four at a time, against the bytes alone over such a socket and back.
large() ->
    #{name => packet_1mb,
      unit => "MB/s",
      peers => fun() ->
          Payload = binary:copy(<<"x">>, ?MB),
          {Connection, _} = connections(#{}),
          {Here, There} = sockets([{packet, raw}, {buffer, ?MB}]),
          _ = echo(There),
          [{ours, fun(Ms) ->
               bench_rate(fun() ->
                              Ids = [causeway_packet_connection:send_request(Connection, 1, Payload) || _ <- "1234"],
                              [{ok, 0, _} = causeway_packet_connection:receive_response(Id) || Id <- Ids]
                          end, Ms)
           end},
           {gen_tcp, fun(Ms) ->
               bench_rate(fun() ->
                              _ = spawn_link(fun() -> [ok = gen_tcp:send(Here, Payload) || _ <- "1234"] end),
                              {ok, _} = gen_tcp:recv(Here, 4 * ?MB)
                          end, Ms)
           end}]
      end}.

bench_rate(Four, Ms) ->
    4.0e6 / (bench:time(Four))(Ms).

echo(Socket) ->
    Test = self(),
    Echo = spawn_link(fun() -> receive {Test, go} -> echo_bytes(Socket) end end),
    ok = gen_tcp:controlling_process(Socket, Echo),
    Echo ! {Test, go}.

echo_bytes(Socket) ->
    case gen_tcp:recv(Socket, 0) of
        {ok, Data} -> ok = gen_tcp:send(Socket, Data), echo_bytes(Socket);
        {error, closed} -> ok
    end.

%% What a request costs that waits among a million others, against a row of a table: bytes each. What those that are
%% over have left: bytes each, too.
rows() ->
    #{name => packet_rows,
      unit => "bytes",
      peers => fun() ->
          [{cost, fun(_Ms) ->
               Number = 1000000,
               Options = #{max_outstanding => infinity, send_window => infinity, max_requests => infinity},
               {Here, _There} = connections(Options#{receive_window => infinity, workers => 0},
                                            fun(_, _, _, _) -> noreply end),
               Before = memory(Here),
               Caller = spawn_link(fun() ->
                                       Ids = [causeway_packet_connection:send_request(Here, 1) || _ <- lists:seq(1, Number)],
                                       receive {From, cancel} -> From ! Ids end
                                   end),
               ok = wait(Here, Number),
               Full = memory(Here),
               unlink(Caller),
               exit(Caller, kill),
               ok = wait(Here, 0),
               After = memory(Here),
               ok = causeway_packet_connection:close(Here, 0),
               [{outstanding, (Full - Before) / Number}, {finished, (After - Before) / Number}]
           end},
           {row, fun(_Ms) ->
               Table = ets:new(rows, [{keypos, 2}]),
               Self = self(),
               true = ets:insert(Table, [{request, N, Self, alias(), undefined, 0} || N <- lists:seq(1, 100000)]),
               Size = ets:info(Table, memory) * erlang:system_info(wordsize) / 100000,
               ets:delete(Table),
               Size
           end}]
      end}.

wait(Connection, Number) ->
    case causeway_packet_connection:info(Connection) of
        #{outstanding := Number, queued_bytes := 0} -> ok;
        _ -> receive after 10 -> wait(Connection, Number) end
    end.

memory(Connection) ->
    true = erlang:garbage_collect(Connection),
    {memory, Heap} = process_info(Connection, memory),
    Heap + lists:sum([ets:info(Table, memory) * erlang:system_info(wordsize)
                      || Table <- ets:all(), ets:info(Table, owner) =:= Connection]).

%% Both ends.

connections(Options) ->
    connections(Options, fun(_Type, Flags, Payload) -> {Flags, Payload} end).

connections(Options, Handler) ->
    {Here, There} = sockets([]),
    {ok, Client} = causeway_packet_connection:start_link(Here, maps:without([workers], Options)),
    {ok, Server} = causeway_packet_connection:start_link(There, Options#{handler => Handler}),
    {Client, Server}.

sockets(Options) ->
    All = [binary, {active, false}, {nodelay, true} | Options],
    {ok, Listener} = gen_tcp:listen(0, [{ip, {127, 0, 0, 1}} | All]),
    {ok, Port} = inet:port(Listener),
    {ok, Here} = gen_tcp:connect({127, 0, 0, 1}, Port, All),
    {ok, There} = gen_tcp:accept(Listener),
    ok = gen_tcp:close(Listener),
    {Here, There}.

terms() ->
    {Here, There} = sockets([{packet, 4}]),
    Test = self(),
    Server = spawn_link(fun() -> receive {Test, go} -> serve(There) end end),
    ok = gen_tcp:controlling_process(There, Server),
    Server ! {Test, go},
    Here.

serve(Socket) ->
    case gen_tcp:recv(Socket, 0) of
        {ok, Bytes} ->
            {Tag, _Type, Flags, Payload} = binary_to_term(Bytes),
            ok = gen_tcp:send(Socket, term_to_binary({Tag, Flags, Payload})),
            serve(Socket);
        {error, closed} ->
            ok
    end.

send(Socket, Type, Payload) ->
    gen_tcp:send(Socket, term_to_binary({erlang:unique_integer([positive]), Type, 0, Payload})).

answer(Socket) ->
    {ok, Bytes} = gen_tcp:recv(Socket, 0),
    {_Tag, 0, Payload} = binary_to_term(Bytes),
    Payload.
