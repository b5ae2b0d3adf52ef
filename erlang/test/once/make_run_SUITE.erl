%% @doc What `make run' starts: the script, in a process group of its own as in a terminal, with a free port.
-module(make_run_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-define(PATIENCE, 30000).
-define(MEGABYTE, (1 bsl 20)).

suite() -> [{timetrap, {seconds, 120}}].

all() -> [every_route, bad_requests, large_body, port_in_use, wrong_port, sigint, sigterm, sigint_while_it_serves].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_testcase(Case, Config) when Case =:= port_in_use; Case =:= wrong_port -> Config;
init_per_testcase(_Case, Config) -> [{server, start()} | Config].

end_per_testcase(_Case, Config) ->
    case ?config(server, Config) of
        undefined -> ok;
        Server -> kill(Server)
    end.

%% Serving

every_route(Config) ->
    Server = ?config(server, Config),
    {200, _, Hello} = ask(Server, "GET / HTTP/1.1\r\n", []),
    ?assertMatch({match, _}, re:run(Hello, "^Hello from Python 3\\.\\d+\\.\\d+ in the BEAM\n$")),
    {200, Headers, <<>>} = ask(Server, "HEAD / HTTP/1.1\r\n", []),
    ?assertEqual(integer_to_binary(byte_size(Hello)), maps:get(<<"content-length">>, Headers)),
    ?assertMatch({200, _, <<"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\n">>},
                 ask(Server, "POST /sha256 HTTP/1.1\r\n", [<<"abc">>])),
    ?assertEqual(digest(0), ask_digest(Server, [])),
    {200, #{<<"content-type">> := <<"application/json">>}, Statistics} = ask(Server, "GET /stats HTTP/1.1\r\n", []),
    {ok, Counters} = py:call(json, loads, [Statistics]),
    ?assertMatch(#{<<"connections">> := 1, <<"connections_total">> := 5, <<"requests">> := 5, <<"bad_requests">> := 0}, Counters).

bad_requests(Config) ->
    Server = ?config(server, Config),
    [?assertMatch({400, #{<<"connection">> := <<"close">>}, <<_, _/binary>>}, ask(Server, Line, []))
     || Line <- ["nonsense\r\n", "GET / HTTP/1.1\r\nHost: twice\r\n", "GET / HTTP/1.1\r\nContent-Length: x\r\n",
                 <<"GET /", 255, " HTTP/1.1\r\n">>]],
    ?assertMatch({404, _, <<_, _/binary>>}, ask(Server, "GET /nowhere HTTP/1.1\r\n", [])),
    ?assertMatch({405, #{<<"allow">> := <<"POST">>}, _}, ask(Server, "GET /sha256 HTTP/1.1\r\n", [])),
    ?assertMatch({200, _, _}, ask(Server, "GET / HTTP/1.1\r\n", [])).

large_body(Config) ->
    ?assertEqual(digest(64), ask_digest(?config(server, Config), lists:duplicate(64, <<0:(8 * ?MEGABYTE)>>))).

%% The start

port_in_use(_Config) ->
    {ok, Listener} = gen_tcp:listen(0, [{ip, {127, 0, 0, 1}}]),
    {ok, Port} = inet:port(Listener),
    {Status, Output} = fails(integer_to_list(Port)),
    ?assertNotEqual(0, Status),
    says(Output, "port " ++ integer_to_list(Port) ++ " is in use: choose another one with PORT="),
    ok = gen_tcp:close(Listener).

wrong_port(_Config) ->
    [begin
         {Status, Output} = fails(Port),
         ?assertNotEqual({0, Port}, {Status, Port}),
         says(Output, "PORT must be a number from 1 to 65535, not " ++ Port)
     end || Port <- ["http", "0", "65536"]].

fails(Number) ->
    Port = open(Number),
    collect(Port, <<>>).

%% The end

sigint(Config) -> ends(?config(server, Config), "INT").

sigterm(Config) -> ends(?config(server, Config), "TERM").

sigint_while_it_serves(Config) ->
    Server = ?config(server, Config),
    Socket = connect(Server),
    ok = gen_tcp:send(Socket, "POST /sha256 HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc"),
    ?assertMatch({200, _, _}, ask(Server, "GET / HTTP/1.1\r\n", [])),
    ends(Server, "INT"),
    ?assertEqual({error, closed}, gen_tcp:recv(Socket, 0, ?PATIENCE)).

%% As Ctrl-C does, to all of the process group.
ends(#{port := Port, process := Process, node := Node} = Server, Signal) ->
    {Milliseconds, {Status, Output}} =
        causeway_ct:milliseconds(fun() ->
                                         "" = os:cmd("kill -" ++ Signal ++ " -" ++ integer_to_list(Process)),
                                         collect(Port, <<>>)
                                 end),
    ?assertEqual({0, Output}, {Status, Output}),
    ?assert(Milliseconds < 5000),
    ?assertNot(filelib:is_dir("/proc/" ++ Node)),
    ?assertEqual({error, econnrefused}, gen_tcp:connect({127, 0, 0, 1}, maps:get(number, Server), [])).

%% Helpers

%% @doc Starts the script, and waits until it serves.
start() ->
    Number = free_port(),
    Port = open(integer_to_list(Number)),
    {os_pid, Process} = erlang:port_info(Port, os_pid),
    Output = until(Port, <<"Ctrl-C stops it.">>, <<>>),
    says(Output, "http://127.0.0.1:" ++ integer_to_list(Number) ++ " is served by Python 3."),
    [Node] = string:lexemes(os:cmd("cat /proc/" ++ integer_to_list(Process) ++ "/task/*/children"), " \n"),
    #{port => Port, process => Process, number => Number, node => Node}.

free_port() ->
    {ok, Listener} = gen_tcp:listen(0, [{ip, {127, 0, 0, 1}}]),
    {ok, Number} = inet:port(Listener),
    ok = gen_tcp:close(Listener),
    Number.

%% Signals that this node ignores, as it does in the background of a shell, would be ignored there, too.
open(Number) ->
    Test = filename:dirname(causeway_ct:python_dir()),
    Script = filename:join([filename:dirname(Test), "examples", "serve.sh"]),
    open_port({spawn_executable, os:find_executable("env")},
              [{args, ["--default-signal=INT,TERM,HUP", Script]},
               {env, [{"PORT", Number}, {"CAUSEWAY_PYTHON", causeway_ct:python_executable()}]},
               exit_status, stderr_to_stdout, binary]).

until(Port, Text, Output) ->
    case binary:match(Output, Text) of
        nomatch ->
            receive
                {Port, {data, Data}} -> until(Port, Text, <<Output/binary, Data/binary>>);
                {Port, {exit_status, Status}} -> error({ended, Status, Output})
            after ?PATIENCE -> error({silent, Output})
            end;
        _ ->
            Output
    end.

collect(Port, Output) ->
    receive
        {Port, {data, Data}} -> collect(Port, <<Output/binary, Data/binary>>);
        {Port, {exit_status, Status}} -> {Status, Output}
    after ?PATIENCE -> error({does_not_end, Output})
    end.

%% @doc Ends it, whatever it does.
kill(#{port := Port, process := Process}) ->
    case erlang:port_info(Port) of
        undefined ->
            ok;
        _ ->
            _ = os:cmd("kill -9 -" ++ integer_to_list(Process)),
            _ = collect(Port, <<>>),
            ok
    end.

says(Output, Text) ->
    ?assertNotEqual({nomatch, Output, Text}, {binary:match(Output, unicode:characters_to_binary(Text)), Output, Text}).

%% @doc The digest of so many megabytes of zeros, as the server answers it.
digest(Megabytes) ->
    {ok, Digest} = py:eval("(h := __import__('hashlib').sha256(), [h.update(bytes(1 << 20)) for _ in range(n)], h.hexdigest())[2]",
                           #{n => Megabytes}, infinity),
    <<Digest/binary, "\n">>.

%% @doc The resident memory of its node in bytes.
rss(#{node := Node}) ->
    {ok, Statm} = file:read_file("/proc/" ++ Node ++ "/statm"),
    [_, Resident | _] = binary:split(Statm, <<" ">>, [global]),
    binary_to_integer(Resident) * 4096.

%% @doc What POST /sha256 answers to a body that is sent part by part.
ask_digest(Server, Parts) ->
    {200, _, Digest} = ask(Server, "POST /sha256 HTTP/1.1\r\n", Parts),
    Digest.

%% One request on a connection of its own.
ask(Server, Line, Parts) ->
    Socket = connect(Server),
    Length = integer_to_list(iolist_size(Parts)),
    ok = gen_tcp:send(Socket, [Line, "Host: localhost\r\n", ["Content-Length: " ++ Length ++ "\r\n" || Parts =/= []], "\r\n"]),
    [ok = gen_tcp:send(Socket, Part) || Part <- Parts],
    ok = gen_tcp:shutdown(Socket, write),
    Response = rest(Socket, <<>>),
    ok = gen_tcp:close(Socket),
    [Head, Body] = binary:split(Response, <<"\r\n\r\n">>),
    [<<"HTTP/1.1 ", Status:3/binary, _/binary>> | Headers] = binary:split(Head, <<"\r\n">>, [global]),
    {binary_to_integer(Status), maps:from_list([header(Header) || Header <- Headers]), Body}.

header(Header) ->
    [Name, Value] = binary:split(Header, <<": ">>),
    {string:lowercase(Name), Value}.

connect(#{number := Number}) ->
    {ok, Socket} = gen_tcp:connect({127, 0, 0, 1}, Number, [binary, {active, false}, {send_timeout, ?PATIENCE}]),
    Socket.

rest(Socket, Response) ->
    case gen_tcp:recv(Socket, 0, ?PATIENCE) of
        {ok, Data} -> rest(Socket, <<Response/binary, Data/binary>>);
        {error, closed} -> Response
    end.
