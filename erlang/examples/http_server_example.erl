%% @doc An HTTP/1.1 server: Erlang accepts the connections, and a Python protocol serves them.
%%
%% `make run' starts it in a node of its own. http_protocol.py, beside this module, has the routes.
-module(http_server_example).

-export([main/0]).

-include_lib("kernel/include/logger.hrl").

-define(DEFAULT_PORT, "8080").
-define(ACCEPTORS, 8).

%% @doc Serves http://127.0.0.1:PORT until the node stops; PORT is taken from the environment.
-spec main() -> ok.
main() ->
    %% The listener closes with the process that has opened it, which must not be the one that boots.
    _ = spawn(fun serve/0),
    ok.

serve() ->
    Port = port(),
    start_application(),
    start_protocol(),
    Listener = listen(Port),
    process_flag(trap_exit, true),
    _ = [spawn_link(fun() -> accept(Listener) end) || _ <- lists:seq(1, ?ACCEPTORS)],
    say_hello(Port),
    await_end(Listener).

port() ->
    Text = os:getenv("PORT", ?DEFAULT_PORT),
    case string:to_integer(Text) of
        {Port, ""} when Port > 0, Port < 65536 -> Port;
        _ -> fail("PORT must be a number from 1 to 65535, not ~ts", [Text])
    end.

start_application() ->
    case application:ensure_all_started(causeway) of
        {ok, _} -> ok;
        {error, {_, {{_, Text}, _}}} when is_binary(Text) -> fail("~ts", [Text]);
        {error, Reason} -> fail("the application causeway did not start: ~tp", [Reason])
    end.

%% Tells the default reactor context which protocol serves its connections.
start_protocol() ->
    Directory = filename:absname(filename:dirname(code:which(?MODULE))),
    {ok, _} = py:eval("__import__('sys').path.insert(0, directory)",
                      #{directory => unicode:characters_to_binary(Directory)}),
    Code = "import http_protocol\n"
           "from erlang import reactor\n"
           "reactor.set_protocol_factory(http_protocol.HttpProtocol)\n",
    case py:exec(Code) of
        ok -> ok;
        {error, {'ModuleNotFoundError', Text}} ->
            fail("~ts~nInstall it for the Python that is used: python3 -m pip install -r ~ts",
                 [Text, filename:join(Directory, "requirements.txt")]);
        {error, Reason} -> fail("the protocol did not load: ~tp", [Reason])
    end.

listen(Port) ->
    Options = [binary, {ip, {127, 0, 0, 1}}, {active, false}, {reuseaddr, true}, {nodelay, true}, {backlog, 1024}],
    case gen_tcp:listen(Port, Options) of
        {ok, Listener} -> Listener;
        {error, eaddrinuse} -> fail("port ~b is in use: choose another one with PORT=...", [Port]);
        {error, Reason} -> fail("cannot listen on port ~b: ~ts", [Port, inet:format_error(Reason)])
    end.

say_hello(Port) ->
    {ok, Version} = py:version(),
    io:format("http://127.0.0.1:~b is served by Python ~ts. Try~n"
              "    curl http://127.0.0.1:~b/~n"
              "    head -c 1G /dev/zero | curl -T - -X POST http://127.0.0.1:~b/sha256~n"
              "    curl http://127.0.0.1:~b/stats~n"
              "Ctrl-C stops it.~n",
              [Port, hd(string:split(Version, " ")), Port, Port, Port]).

%% On SIGTERM OTP stops the applications, then the node. Elsewhere it is an error if one of these ends.
await_end(Listener) ->
    Monitor = monitor(process, causeway_sup),
    receive
        {'DOWN', Monitor, process, _, Reason} -> Reason;
        {'EXIT', _Acceptor, Reason} -> ?LOG_ERROR("an acceptor has ended: ~tp", [Reason])
    end,
    ok = gen_tcp:close(Listener),
    init:stop(1).

%% Several processes accept from one listener, so that no connection waits for the handoff of another.
accept(Listener) ->
    case gen_tcp:accept(Listener) of
        {ok, Socket} ->
            serve_connection(Socket),
            accept(Listener);
        {error, closed} ->
            ok;
        {error, Reason} ->
            %% Mostly emfile: connections that end make room.
            ?LOG_WARNING("cannot accept: ~ts", [inet:format_error(Reason)]),
            timer:sleep(100),
            accept(Listener)
    end.

%% After `ok' the connection is the reactor's. Otherwise it is still ours.
serve_connection(Socket) ->
    case py_reactor_context:handoff(Socket, #{}) of
        ok ->
            ok;
        {error, Reason} ->
            ?LOG_WARNING("connection refused: ~tp", [Reason]),
            _ = gen_tcp:send(Socket, "HTTP/1.1 503 Service Unavailable\r\n"
                                     "Content-Length: 0\r\nConnection: close\r\n\r\n"),
            gen_tcp:close(Socket)
    end.

-spec fail(io:format(), [term()]) -> no_return().
fail(Format, Arguments) ->
    io:format(standard_error, "http_server_example: " ++ Format ++ "~n", Arguments),
    halt(1).
