%% @doc A hello ASGI application under uvicorn and its class of protocols on httptools: in the event loop of a context in
%% this node, and in plain Python by our loop, by asyncio's own and by uvloop; and under granian. The client is wrk.
-module(bench_asgi).

-export([benchmarks/0]).

%% @doc The benchmarks of this module.
-spec benchmarks() -> [bench:benchmark()].
benchmarks() ->
    [hello(asgi_1, 1), hello(asgi_50, 50)].

hello(Name, Connections) ->
    #{name => Name,
      unit => "requests/s",
      peers => fun() ->
          Wrk = wrk(),
          [{Peer, load(Wrk, server(Peer), Connections)} || Peer <- [ours, plain, asyncio, uvloop, granian]]
      end}.

%% The port of a server, which ends with this process.
server(ours) ->
    {ok, Context} = py_context:start_link(#{}),
    {ok, none} = py:call(Context, sys, 'path.append', [<<"Tests/Benchmarks">>]),
    {ok, Listener} = gen_tcp:listen(0, [{ip, {127, 0, 0, 1}}, {backlog, 1024}]),
    {ok, Fd} = inet:getfd(Listener),
    {ok, Duplicate} = py:dup_fd(Fd),
    {ok, Port} = inet:port(Listener),
    Task = py:async_call(Context, asgi_peer, serve, [Duplicate]),
    {error, timeout} = py:async_await(Task, 0),
    integer_to_list(Port);
server(plain) ->
    server("ours");
server(Loop) when is_atom(Loop) ->
    server(atom_to_list(Loop));
server(Loop) ->
    line(open_port({spawn_executable, bench:python()},
                   [{args, ["Tests/Benchmarks/asgi_peer.py", Loop]}, {env, [{"PYTHONPATH", "python"}]}, {line, 200},
                    exit_status])).

wrk() ->
    case os:find_executable("wrk") of
        false -> exit({unavailable, "wrk is not installed"});
        Wrk -> Wrk
    end.

%% It measures whole seconds.
load(Wrk, ServerPort, Connections) ->
    fun(Ms) ->
        Arguments = ["--threads", "1", "--connections", integer_to_list(Connections),
                     "--duration", integer_to_list((Ms + 999) div 1000), "http://127.0.0.1:" ++ ServerPort ++ "/"],
        Port = open_port({spawn_executable, Wrk}, [{args, Arguments}, exit_status, stderr_to_stdout]),
        rate(output(Port, []))
    end.

rate(Output) ->
    nomatch = re:run(Output, "Socket errors|Non-2xx"),
    {match, [Rate]} = re:run(Output, "Requests/sec: +([0-9.]+)", [{capture, [1], list}]),
    list_to_float(Rate).

output(Port, Output) ->
    receive
        {Port, {data, Data}} -> output(Port, [Output, Data]);
        {Port, {exit_status, 0}} -> Output
    after 60000 -> error(silent)
    end.

line(Port) ->
    receive
        {Port, {data, {eol, Line}}} -> Line;
        {Port, {exit_status, Status}} -> error({exited, Status})
    after 60000 -> error(silent)
    end.
