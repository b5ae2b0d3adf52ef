%% @doc What the suites of streaming calls share: other nodes, and Pythons of their own.
-module(rpc_ct).

-export([start_distribution/1, stop_distribution/1, start_node/1, start_child/1, start_tls_child/2, stop_child/2, gone/2]).
-export([certificates/0, tls_sockets/1]).

-define(COOKIE, causeway_rpc_ct).
-define(LISTEN, [binary, {active, false}, {ip, {127, 0, 0, 1}}]).

%% @doc For init_per_suite: makes this node one that others reach.
%%
%% Names of nodes are found by epmd: where none runs, one runs as long as the tests.
-spec start_distribution(list()) -> list().
start_distribution(Config) ->
    Mapper = start_mapper(),
    {ok, _} = net_kernel:start([list_to_atom("causeway_rpc_ct_" ++ os:getpid()), shortnames]),
    true = erlang:set_cookie(node(), ?COOKIE),
    [{mapper, Mapper} | Config].

%% @doc For end_per_suite.
-spec stop_distribution(list()) -> ok.
stop_distribution(Config) ->
    ok = net_kernel:stop(),
    _ = stop_mapper(proplists:get_value(mapper, Config)),
    ok.

start_mapper() ->
    case erl_epmd:names() of
        {ok, _} ->
            none;
        {error, _} ->
            Mapper = open_port({spawn, "epmd > /dev/null 2>&1 < /dev/null"}, [exit_status]),
            causeway_ct:wait_until(fun() -> element(1, erl_epmd:names()) =:= ok end),
            {os_pid, Number} = erlang:port_info(Mapper, os_pid),
            Number
    end.

stop_mapper(none) -> "";
stop_mapper(Number) -> os:cmd("kill " ++ integer_to_list(Number)).

%% @doc A node that runs the application, and is linked to the caller.
-spec start_node(string()) -> {pid(), node()}.
start_node(Name) ->
    Paths = lists:append([["-pa", Path] || Path <- code:get_path(), filelib:is_dir(Path)]),
    {ok, Peer, Node} = peer:start_link(#{name => peer:random_name("causeway_rpc_" ++ Name), connection => standard_io,
                                         args => ["-setcookie", atom_to_list(?COOKIE) | Paths]}),
    {ok, _} = erpc:call(Node, application, ensure_all_started, [causeway]),
    {Peer, Node}.

%% @doc A Python of its own that serves what rpc_three_way does, and the connection with it.
-spec start_child(map()) -> {pid(), port()}.
start_child(Options) ->
    {ok, Listener} = gen_tcp:listen(0, [{nodelay, true} | ?LISTEN]),
    {ok, Number} = inet:port(Listener),
    Port = open_child([integer_to_list(Number)]),
    {ok, Socket} = gen_tcp:accept(Listener, 30000),
    ok = gen_tcp:close(Listener),
    connected(Socket, Port, Options).

%% @doc The same over TLS, where the Python trusts the roots in a file.
-spec start_tls_child(Certificates :: map(), file:filename()) -> {pid(), port()}.
start_tls_child(#{server_config := Server}, Roots) ->
    {ok, Listener} = ssl:listen(0, ?LISTEN ++ Server),
    {ok, {_, Number}} = ssl:sockname(Listener),
    Port = open_child([integer_to_list(Number), Roots]),
    {ok, Accepted} = ssl:transport_accept(Listener, 30000),
    {ok, Socket} = ssl:handshake(Accepted, 30000),
    ok = ssl:close(Listener),
    connected(Socket, Port, #{}).

%% @doc Keys and certificates of a server and of a client, as options of ssl.
-spec certificates() -> #{server_config := list(), client_config := list()}.
certificates() ->
    Key = [{digest, sha256}, {key, {namedCurve, secp256r1}}],
    public_key:pkix_test_data(#{server_chain => #{root => Key, intermediates => [], peer => Key},
                                client_chain => #{root => Key, intermediates => [], peer => Key}}).

%% @doc Two ends of a TLS connection.
-spec tls_sockets(map()) -> {ssl:sslsocket(), ssl:sslsocket()}.
tls_sockets(#{server_config := Server, client_config := Client}) ->
    {ok, Listener} = ssl:listen(0, ?LISTEN ++ Server),
    {ok, {_, Number}} = ssl:sockname(Listener),
    Test = self(),
    Acceptor = spawn_link(fun() ->
                              {ok, Begun} = ssl:transport_accept(Listener),
                              {ok, Socket} = ssl:handshake(Begun),
                              ok = ssl:controlling_process(Socket, Test),
                              Test ! {self(), Socket}
                          end),
    {ok, Here} = ssl:connect({127, 0, 0, 1}, Number, [binary, {active, false}, {verify, verify_none} | proplists:delete(verify, Client)]),
    There = receive {Acceptor, Accepted} -> Accepted end,
    ok = ssl:close(Listener),
    {Here, There}.

open_child(Arguments) ->
    {ok, #{executable := Python}} = causeway_python:find(),
    Script = filename:join(causeway_ct:python_dir(), "rpc_three_way.py"),
    Path = unicode:characters_to_list(filename:join(causeway_python:priv_dir(), "python")),
    open_port({spawn_executable, Python},
              [{args, [Script | Arguments]}, {env, [{"PYTHONPATH", Path}]}, exit_status, stderr_to_stdout, binary]).

connected(Socket, Port, Options) ->
    {ok, Connection} = causeway_rpc:connect(Socket, Options),
    ok = ready(Port, <<>>),
    {Connection, Port}.

ready(Port, Said) ->
    receive
        {Port, {data, Data}} ->
            case binary:match(<<Said/binary, Data/binary>>, <<"ready\n">>) of
                nomatch -> ready(Port, <<Said/binary, Data/binary>>);
                _ -> ok
            end;
        {Port, {exit_status, Status}} -> {exited, Status, Said}
    after 30000 -> {late, Said}
    end.

%% @doc Closes the connection, and waits until the Python has ended. Returns what it has said.
-spec stop_child(pid(), port()) -> binary() | {non_neg_integer(), binary()}.
stop_child(Connection, Port) ->
    ok = causeway_rpc_connection:close(Connection),
    gone(Port, <<>>).

%% @doc Waits until it has ended; with its status where that is not 0.
-spec gone(port(), binary()) -> binary() | {non_neg_integer(), binary()}.
gone(Port, Said) ->
    receive
        {Port, {data, Data}} -> gone(Port, <<Said/binary, Data/binary>>);
        {Port, {exit_status, 0}} -> Said;
        {Port, {exit_status, Status}} -> {Status, Said}
    after 30000 -> error({still_runs, Said})
    end.
