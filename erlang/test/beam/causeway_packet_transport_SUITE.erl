%% @doc Packet connections over every kind of stream.
-module(causeway_packet_transport_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-define(CONNECTION, causeway_packet_connection).
-define(CT, connection_ct).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [{group, Kind} || Kind <- kinds()]
        ++ [what_was_received_comes_first, socket_with_packet_option, socket_of_another, accepting_socket, socket_in_use,
            caller_keeps_descriptors, file_is_refused, channel_ends, channels_with_little_room, different_kinds, fun_connects,
            fun_fails, two_channels_hold_a_connection, tls_what_was_received_comes_first, tls_end, tls_never_read].

groups() ->
    [{Kind, [exchange, large, all_sizes, ends_in_good_order, killed_peer_is_noticed, windows]} || Kind <- kinds()].

kinds() ->
    [gen_tcp, gen_tcp_v6, gen_tcp_local, inet_backend_socket, socket, socket_local, descriptor, pipes, channels, tls].

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(ssl),
    ?CT:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_group(gen_tcp_v6, Config) ->
    case gen_tcp:listen(0, [inet6, {ip, {0, 0, 0, 0, 0, 0, 0, 1}}]) of
        {ok, Listener} -> ok = gen_tcp:close(Listener), [{kind, gen_tcp_v6} | Config];
        {error, Reason} -> {skip, {no_ipv6, Reason}}
    end;
init_per_group(Kind, Config) ->
    [{kind, Kind} | Config].

end_per_group(_Kind, _Config) -> ok.

init_per_testcase(_Case, Config) -> Config.

end_per_testcase(_Case, _Config) -> ?assertEqual([], causeway_ct:mailbox()).

%% For every kind

exchange(Config) ->
    {Here, There} = pair(Config, #{}, #{handler => fun ?CT:echo/3}),
    Results = ?CT:many(20, fun(N) ->
                               [begin
                                    Payload = crypto:strong_rand_bytes(rand:uniform(2000)),
                                    ?CONNECTION:request(Here, N, Payload, #{flags => N}) =:= {ok, N, Payload}
                                end || _ <- lists:seq(1, 50)]
                           end, 30000),
    ?assertEqual([true], lists:usort(lists:append(Results))),
    ok = ?CONNECTION:close(Here),
    ?assertEqual([normal, normal], [?CT:ended(End) || End <- [Here, There]]).

large(Config) ->
    {Here, There} = pair(Config, #{handler => fun ?CT:echo/3}, #{handler => fun ?CT:echo/3}),
    Payload = crypto:strong_rand_bytes(3000000),
    Ids = [?CONNECTION:send_request(End, 1, Payload) || End <- [Here, There, Here, There]],
    [?assertEqual({ok, 0, Payload}, ?CONNECTION:receive_response(Id)) || Id <- Ids],
    ok = ?CONNECTION:close(There).

%% Small, large and very large ones in turn: whichever way they are read, all of them is there, in order.
all_sizes(Config) ->
    {Here, There} = pair(Config, #{}, #{handler => fun(_, Flags, P) -> {Flags, crypto:hash(sha256, P)} end, workers => 0}),
    Sizes = [0, 10, 65000, 65536, 70000, 1048576, 5, 17000000, 131072, 1, 200000],
    Payloads = [crypto:strong_rand_bytes(Size) || Size <- Sizes],
    Ids = [{Payload, ?CONNECTION:send_request(Here, 1, Payload)} || Payload <- Payloads],
    [?assertEqual({ok, 0, crypto:hash(sha256, Payload)}, ?CONNECTION:receive_response(Id)) || {Payload, Id} <- Ids],
    ok = ?CONNECTION:close(Here),
    ?assertEqual([normal, normal], [?CT:ended(End) || End <- [Here, There]]).

ends_in_good_order(Config) ->
    Test = self(),
    {Here, There} = pair(Config, #{}, #{handler => fun(_, _, _, From) -> Test ! From, noreply end}),
    Id = ?CONNECTION:send_request(Here, 1),
    From = receive F -> F end,
    ok = ?CONNECTION:send_eof(Here),
    ok = ?CT:wait_info(There, state, peer_ended),
    ok = ?CONNECTION:reply(From, <<"answer">>),
    ?assertEqual({ok, 0, <<"answer">>}, ?CONNECTION:receive_response(Id)),
    ?assertEqual([normal, normal], [?CT:ended(End) || End <- [Here, There]]).

killed_peer_is_noticed(Config) ->
    {Here, There} = pair(Config, #{}, #{handler => fun(_, _, _) -> receive after infinity -> ok end end}),
    Id = ?CONNECTION:send_request(Here, 1),
    ok = ?CT:wait_info(There, in_hand, 1),
    exit(There, kill),
    ?assertMatch({error, {closed, _}}, ?CONNECTION:receive_response(Id)),
    _ = ?CT:ended(Here).

%% However little room there is.
windows(Config) ->
    Options = #{send_window => 1, receive_window => 1, max_requests => 1, max_outstanding => 2, handler => fun ?CT:echo/3},
    {Here, There} = pair(Config, Options, Options),
    Results = ?CT:many(10, fun(N) ->
                               End = case N rem 2 of 0 -> Here; 1 -> There end,
                               [?CONNECTION:request(End, N, <<N:80000>>) =:= {ok, 0, <<N:80000>>} || _ <- lists:seq(1, 20)]
                           end, 30000),
    ?assertEqual([true], lists:usort(lists:append(Results))),
    ok = ?CONNECTION:close(Here).

%% Sockets

what_was_received_comes_first(_Config) ->
    [begin
         {Here, There} = ?CT:sockets(),
         ok = inet:setopts(Here, [{active, once}]),
         ok = gen_tcp:send(There, ?CT:hex("04 01 02 01 61 04")),
         Message = receive {tcp, Here, _} = M -> M end,
         self() ! Message,
         ok = gen_tcp:send(There, ?CT:hex("02 02 01 62")),
         ok = Mode(Here),
         Connection = ?CT:start(Here, #{handler => fun ?CT:echo/3, workers => 0}),
         ok = ?CT:hear(There, "03 01 04 61 03 02 04 62"),
         ok = ?CONNECTION:close(Connection)
     end || Mode <- [fun(_) -> ok end, fun(Socket) -> inet:setopts(Socket, [{active, true}]) end]].

socket_with_packet_option(_Config) ->
    {Here, There} = ?CT:sockets([{packet, 4}]),
    ok = inet:setopts(There, [{packet, raw}]),
    Connection = ?CT:start(Here, #{handler => fun ?CT:echo/3}),
    ok = ?CT:say(There, "04 01 02 01 61"),
    ok = ?CT:hear(There, "03 01 04 61"),
    ok = ?CONNECTION:close(Connection).

socket_of_another(_Config) ->
    {Here, There} = ?CT:sockets(),
    Results = ?CT:many(1, fun(_) -> ?CONNECTION:start(Here) end, 10000),
    ?assertEqual([{error, not_owner}], Results),
    ok = gen_tcp:send(Here, <<"still there">>),
    ?assertEqual({ok, <<"still there">>}, gen_tcp:recv(There, 11)).

accepting_socket(_Config) ->
    {ok, Listener} = gen_tcp:listen(0, []),
    ?assertMatch({error, {badarg, _}}, ?CONNECTION:start_link(Listener)),
    {ok, Datagrams} = gen_udp:open(0),
    ?assertMatch({error, {badarg, _}}, ?CONNECTION:start_link(Datagrams)),
    ok = gen_tcp:close(Listener),
    ?assertEqual({error, closed}, ?CONNECTION:start_link(Listener)).

%% It is the connection's.
socket_in_use(_Config) ->
    {Here, There} = ?CT:sockets(),
    Connection = ?CT:start(Here, #{}),
    ?assertEqual({error, not_owner}, ?CONNECTION:start_link(Here)),
    ok = ?CONNECTION:close(Connection),
    ok = ?CT:hear(There, "03 00 02 00").

%% Descriptors

caller_keeps_descriptors(_Config) ->
    {Here, There} = ?CT:sockets(),
    {ok, Fd} = inet:getfd(Here),
    Connection = ?CT:start(Fd, #{handler => fun ?CT:echo/3}),
    ok = ?CT:say(There, "04 01 02 01 61"),
    ok = ?CT:hear(There, "03 01 04 61"),
    exit(Connection, kill),
    _ = ?CT:ended(Connection),
    ok = gen_tcp:send(Here, <<"still there">>),
    ?assertEqual({ok, <<"still there">>}, gen_tcp:recv(There, 11)).

file_is_refused(Config) ->
    File = filename:join(proplists:get_value(priv_dir, Config), "file"),
    ok = py:exec(["import os; fd = os.open('", File, "', os.O_RDWR | os.O_CREAT)"]),
    {ok, Fd} = py:eval("fd"),
    ?assertMatch({error, {badarg, _}}, ?CONNECTION:start(Fd)),
    ok = py:exec("os.close(fd)").

%% Byte channels

channel_ends(_Config) ->
    [begin
         {ok, Input} = py_byte_channel:new(),
         {ok, Output} = py_byte_channel:new(),
         Connection = ?CT:start({Input, Output}, #{}),
         Id = ?CONNECTION:send_request(Connection, 1),
         ok = End(Input, Output),
         ?assertEqual({error, {closed, Why}}, ?CONNECTION:receive_response(Id)),
         ?assertEqual(Reason, ?CT:ended(Connection)),
         ?assertMatch(#{closed := true}, py_byte_channel:info(Output))
     end || {Why, Reason, End} <-
                [{eof, normal, fun(In, _) -> py_byte_channel:close(In) end},
                 {truncated, {shutdown, truncated}, fun(In, _) ->
                                                        ok = py_byte_channel:send(In, <<5>>),
                                                        py_byte_channel:close(In)
                                                    end},
                 {{aborted, why}, {shutdown, {aborted, why}}, fun(In, _) -> py_byte_channel:abort(In, why) end}]].

channels_with_little_room(_Config) ->
    {ok, One} = py_byte_channel:new(#{max_size => 10}),
    {ok, Other} = py_byte_channel:new(#{max_size => 10}),
    Here = ?CT:start({One, Other}, #{}),
    There = ?CT:start({Other, One}, #{handler => fun ?CT:echo/3}),
    Ids = [{N, ?CONNECTION:send_request(Here, 1, <<N:(8 * N)>>)} || N <- lists:seq(1, 200)],
    [?assertEqual({ok, 0, <<N:(8 * N)>>}, ?CONNECTION:receive_response(Id)) || {N, Id} <- Ids],
    ok = ?CONNECTION:close(Here),
    ?assertEqual(normal, ?CT:ended(There)).

different_kinds(_Config) ->
    {Here, There} = ?CT:sockets(),
    {ok, Fd} = inet:getfd(There),
    Client = ?CT:start(Here, #{}),
    Server = ?CT:start({Fd, Fd}, #{handler => fun ?CT:echo/3}),
    ok = gen_tcp:close(There),
    ?assertMatch(#{transport := wire}, ?CONNECTION:info(Server)),
    ?assertEqual({ok, 0, <<"a">>}, ?CONNECTION:request(Client, 1, <<"a">>)),
    ok = ?CONNECTION:close(Server),
    ?assertEqual(normal, ?CT:ended(Client)).

%% Funs

fun_connects(_Config) ->
    {ok, Listener} = gen_tcp:listen(0, [binary, {active, false}, {ip, {127, 0, 0, 1}}]),
    {ok, Port} = inet:port(Listener),
    Connection = ?CT:start(fun() -> gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, false}]) end, #{}),
    {ok, Peer} = gen_tcp:accept(Listener),
    Id = ?CONNECTION:send_request(Connection, 1),
    ok = ?CT:hear(Peer, "03 01 02 02"),
    ok = ?CT:say(Peer, "02 01 04"),
    ?assertEqual({ok, 0, <<>>}, ?CONNECTION:receive_response(Id)),
    ok = ?CONNECTION:close(Connection).

fun_fails(_Config) ->
    ?assertEqual({error, econnrefused}, ?CONNECTION:start_link(fun() -> {error, econnrefused} end)),
    ?assertMatch({error, {badarg, _}}, ?CONNECTION:start_link(fun() -> nothing end)),
    ?assertMatch({error, {badarg, _}}, ?CONNECTION:start_link(fun() -> {ok, nothing} end)).

%% A connection in a connection: its bytes are messages of a channel that the outer one moves.
two_channels_hold_a_connection(_Config) ->
    {ok, A} = py_byte_channel:new(#{max_size => 1000}),
    {ok, B} = py_byte_channel:new(#{max_size => 1000}),
    Here = ?CT:start({A, B}, #{handler => fun ?CT:echo/3}),
    There = ?CT:start({B, A}, #{handler => fun ?CT:echo/3}),
    [?assertEqual({ok, 1, <<"x">>}, ?CONNECTION:request(End, 1, <<"x">>, #{flags => 1})) || End <- [Here, There], _ <- "123"],
    exit(Here, kill),
    ?assertEqual(normal, ?CT:ended(There)).

%% TLS

tls_what_was_received_comes_first(_Config) ->
    {Here, There} = sockets(tls),
    ok = ssl:setopts(Here, [{active, once}]),
    ok = ssl:send(There, ?CT:hex("04 01 02 01 61 04")),
    Message = receive {ssl, Here, _} = M -> M end,
    self() ! Message,
    ok = ssl:send(There, ?CT:hex("02 02 01 62")),
    Connection = ?CT:start(Here, #{handler => fun ?CT:echo/3, workers => 0}),
    {ok, Heard} = ssl:recv(There, 8, 10000),
    ?assertEqual(?CT:hex("03 01 04 61 03 02 04 62"), Heard),
    ok = ?CONNECTION:close(Connection),
    _ = ssl:close(There).

tls_end(_Config) ->
    {Here, There} = sockets(tls),
    Connection = ?CT:start(Here, #{}),
    Id = ?CONNECTION:send_request(Connection, 1),
    {ok, _} = ssl:recv(There, 4, 10000),
    ok = ssl:close(There),
    ?assertEqual({error, {closed, eof}}, ?CONNECTION:receive_response(Id)),
    ?assertEqual(normal, ?CT:ended(Connection)).

tls_never_read(_Config) ->
    {Here, _There} = sockets(tls),
    Connection = ?CT:start(Here, #{send_timeout => 300, send_window => infinity}),
    Ids = [?CONNECTION:send_request(Connection, 1, <<0:(8 * 1048576)>>) || _ <- lists:seq(1, 20)],
    [?assertEqual({error, {closed, not_read}}, ?CONNECTION:receive_response(Id)) || Id <- Ids],
    ?assertEqual({shutdown, not_read}, ?CT:ended(Connection)).

%% The kinds

pair(Config, HereOptions, ThereOptions) ->
    Kind = proplists:get_value(kind, Config),
    {Here, There} = sockets(Kind),
    Connections = {?CT:start(Here, HereOptions), ?CT:start(There, ThereOptions)},
    %% Those of the test would keep the streams open.
    _ = [causeway_nif:close(Fd) || Kind =:= descriptor, Fd <- [Here, There]],
    _ = [causeway_nif:close(Fd) || Kind =:= pipes, Fd <- tuple_to_list(Here) ++ tuple_to_list(There)],
    Connections.

sockets(gen_tcp) -> ?CT:sockets();
sockets(gen_tcp_v6) -> gen_tcp([inet6, {ip, {0, 0, 0, 0, 0, 0, 0, 1}}], {0, 0, 0, 0, 0, 0, 0, 1});
sockets(gen_tcp_local) -> gen_tcp([{ip, {local, local_name()}}], local);
sockets(inet_backend_socket) -> gen_tcp([{inet_backend, socket}, {ip, {127, 0, 0, 1}}], {127, 0, 0, 1});
sockets(socket) -> bare(inet, #{family => inet, addr => {127, 0, 0, 1}, port => 0});
sockets(socket_local) -> bare(local, #{family => local, path => local_name()});
sockets(descriptor) ->
    {Here, There} = ?CT:sockets(),
    list_to_tuple([begin
                       {ok, Fd} = inet:getfd(Socket),
                       {ok, Duplicate} = causeway_nif:duplicate(Fd),
                       ok = gen_tcp:close(Socket),
                       Duplicate
                   end || Socket <- [Here, There]]);
sockets(pipes) ->
    {ok, [Read, Write, OtherRead, OtherWrite]} = py:eval("[*__import__('os').pipe(), *__import__('os').pipe()]"),
    {{Read, OtherWrite}, {OtherRead, Write}};
sockets(channels) ->
    {ok, One} = py_byte_channel:new(#{max_size => 100000}),
    {ok, Other} = py_byte_channel:new(#{max_size => 100000}),
    {{One, Other}, {Other, One}};
sockets(tls) ->
    #{server_config := Server, client_config := Client} = certificates(),
    {ok, Listener} = ssl:listen(0, [binary, {active, false}, {ip, {127, 0, 0, 1}} | Server]),
    {ok, {_, Port}} = ssl:sockname(Listener),
    Test = self(),
    Acceptor = spawn_link(fun() ->
                              {ok, Accepted} = ssl:transport_accept(Listener),
                              {ok, Socket} = ssl:handshake(Accepted),
                              ok = ssl:controlling_process(Socket, Test),
                              Test ! {self(), Socket}
                          end),
    {ok, Here} = ssl:connect({127, 0, 0, 1}, Port, [binary, {active, false}, {verify, verify_none} | proplists:delete(verify, Client)]),
    receive {Acceptor, There} -> {Here, There} end.

certificates() ->
    %% Signed by SHA-1, as they are otherwise, they are refused from OTP 27 on.
    Key = [{key, {namedCurve, secp256r1}}, {digest, sha256}],
    #{server_config := _, client_config := _} =
        public_key:pkix_test_data(#{server_chain => #{root => Key, intermediates => [], peer => Key},
                                    client_chain => #{root => Key, intermediates => [], peer => Key}}).

local_name() ->
    filename:join(os:getenv("TMPDIR", "/tmp"), "causeway-" ++ os:getpid() ++ "-" ++ integer_to_list(erlang:unique_integer([positive]))).

gen_tcp(Options, Address) ->
    Backend = [Option || {inet_backend, _} = Option <- Options],
    Family = [inet6 || lists:member(inet6, Options)],
    {ok, Listener} = gen_tcp:listen(0, Options ++ [binary, {active, false}]),
    {Where, Number} = case inet:sockname(Listener) of
                          {ok, {local, _} = Local} -> {Local, 0};
                          {ok, {_, Port}} -> {Address, Port}
                      end,
    {ok, Here} = gen_tcp:connect(Where, Number, Backend ++ Family ++ [binary, {active, false}] ++ [local || Address =:= local]),
    {ok, There} = gen_tcp:accept(Listener),
    ok = gen_tcp:close(Listener),
    _ = [file:delete(Path) || {local, Path} <- [Where]],
    {Here, There}.

bare(Family, Address) ->
    Protocol = case Family of inet -> tcp; local -> default end,
    {ok, Listener} = socket:open(Family, stream, Protocol),
    ok = socket:bind(Listener, Address),
    ok = socket:listen(Listener),
    {ok, Bound} = socket:sockname(Listener),
    {ok, Here} = socket:open(Family, stream, Protocol),
    ok = socket:connect(Here, Bound),
    {ok, There} = socket:accept(Listener),
    ok = socket:close(Listener),
    _ = [file:delete(Path) || #{path := Path} <- [Address]],
    {Here, There}.
