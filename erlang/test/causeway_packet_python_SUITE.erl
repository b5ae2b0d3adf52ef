%% @doc Packet connections between Erlang and Python: inside of the node over byte channels, and with another process over
%% TCP.
-module(causeway_packet_python_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-define(CONNECTION, causeway_packet_connection).
-define(CT, connection_ct).
-define(HELPERS, connection_helpers).

suite() -> [{timetrap, {seconds, 90}}].

all() ->
    [python_serves, erlang_serves, both_at_once, many_outstanding, large_payloads, python_ends, erlang_ends, erq_and_eof,
     channels, results, keepalive_both_ways, in_the_node, in_the_node_ends].

init_per_suite(Config) -> ?CT:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_testcase(_Case, Config) -> Config.

end_per_testcase(_Case, _Config) -> ?assertEqual([], causeway_ct:mailbox()).

%% With another process

python_serves(Config) ->
    Connection = with_python(Config, "serve", #{}),
    ?assertEqual({ok, 0, <<"ABC">>}, ?CONNECTION:request(Connection, 1, <<"abc">>)),
    ?assertEqual({ok, 7, <<>>}, ?CONNECTION:request(Connection, 2, <<>>, #{flags => 6})),
    ?assertEqual({failed, 0, <<"exception during handler">>}, ?CONNECTION:request(Connection, 3)),
    ok = ?CONNECTION:close(Connection),
    {failures, 1} = python_done().

erlang_serves(Config) ->
    Connection = with_python(Config, "ask", #{handler => fun(1, F, P) -> {F, string:uppercase(P)};
                                                             (2, _, _) -> {failed, 3, "no"};
                                                             (3, _, _) -> error(reason)
                                                          end}),
    ok = python_done(),
    ?assertEqual(normal, ?CT:ended(Connection)).

%% Python asks back for each of our requests, which makes us ask again, …
both_at_once(Config) ->
    Table = ets:new(connection, [public]),
    Handler = fun(0, _, P) -> P;
                 (N, _, P) ->
                     {ok, 0, R} = ?CONNECTION:request(ets:lookup_element(Table, connection, 2), N - 1, P),
                     [R, integer_to_binary(N), " "]
              end,
    Connection = with_python(Config, "back", #{workers => 64, handler => Handler}),
    true = ets:insert(Table, {connection, Connection}),
    Results = ?CT:many(4, fun(N) -> {N, ?CONNECTION:request(Connection, 5, <<N>>)} end, 60000),
    [?assertEqual({ok, 0, <<N, "1 2 3 4 5 ">>}, Result) || {N, Result} <- Results],
    ok = ?CONNECTION:close(Connection),
    ok = python_done().

many_outstanding(Config) ->
    Connection = with_python(Config, "serve", #{}),
    Ids = [{N, ?CONNECTION:send_request(Connection, 1, integer_to_binary(N))} || N <- lists:seq(1, 2000)],
    [begin Answer = integer_to_binary(N), {ok, 0, Answer} = ?CONNECTION:receive_response(Id) end || {N, Id} <- Ids],
    ok = ?CONNECTION:close(Connection),
    ok = python_done().

large_payloads(Config) ->
    Connection = with_python(Config, "serve", #{}),
    [begin
         Payload = binary:copy(<<"A">>, Size),
         {ok, 0, Payload} = ?CONNECTION:request(Connection, 1, Payload)
     end || Size <- [1000, 16381, 65536, 1048576, 5000000]],
    ok = ?CONNECTION:close(Connection),
    ok = python_done().

%% All that waits is told when Python is gone, and the other way round.
python_ends(Config) ->
    [begin
         Connection = with_python(Config, How, #{}),
         ?assertEqual({ok, 0, <<>>}, ?CONNECTION:request(Connection, 1)),
         Ids = [?CONNECTION:send_request(Connection, 4) || _ <- "123"],
         [?assertMatch({error, {closed, Why}} when Why =:= eof; Why =:= econnreset, ?CONNECTION:receive_response(Id)) || Id <- Ids],
         _ = ?CT:ended(Connection),
         ok = python_done()
     end || How <- ["die", "close"]].

erlang_ends(Config) ->
    [begin
         Connection = with_python(Config, "wait", #{handler => fun(_, _, _) -> receive after infinity -> ok end end}),
         ok = ?CT:wait_info(Connection, in_hand, 3),
         ok = End(Connection),
         ok = python_done()
     end || End <- [fun(Connection) -> ?CONNECTION:close(Connection, 0) end,
                    fun(Connection) -> exit(Connection, kill), ok end]].

erq_and_eof(Config) ->
    Connection = with_python(Config, "serve", #{}),
    ok = ?CONNECTION:send_erq(Connection),
    ok = ?CONNECTION:send_eof(Connection),
    ?assertEqual(normal, ?CT:ended(Connection)),
    ok = python_done().

channels(Config) ->
    Connection = with_python(Config, "channels", #{}),
    ok = ?CONNECTION:open_channel(Connection, 5, fun(_, _, P) -> [P, " of Erlang"] end),
    ?assertEqual({ok, 0, <<"a of Erlang of Python">>}, ?CONNECTION:request(Connection, 1, <<"a">>, #{channel => 5})),
    ok = ?CONNECTION:open_channel(Connection, 9, undefined),
    ?assertEqual({failed, 0, <<"unknown channel 9">>}, ?CONNECTION:request(Connection, 1, <<"a">>, #{channel => 9})),
    ok = ?CONNECTION:close(Connection),
    ok = python_done().

%% What Python's handlers return, in Erlang's words.
results(Config) ->
    Connection = with_python(Config, "results", #{}),
    ?assertEqual([{ok, 0, <<>>}, {ok, 17, <<>>}, {ok, 1, <<>>}, {ok, 0, <<"bytes">>}, {ok, 0, <<"text &#56448;">>},
                  {ok, 3, <<"both">>}, {failed, 0, <<"exception during handler">>},
                  {failed, 0, <<"exception during handler">>}, {failed, 0, <<"exception during handler">>}],
                 [?CONNECTION:request(Connection, N) || N <- lists:seq(0, 8)]),
    ok = ?CONNECTION:close(Connection),
    {failures, 3} = python_done().

%% Each answers what the other asks for a sign of life.
keepalive_both_ways(Config) ->
    Connection = with_python(Config, "keepalive", #{keepalive => 300, handler => fun(_, _, _) -> error(asked) end}),
    ok = causeway_ct:wait_until(fun() -> ?CT:info(Connection, peer_requests) >= 3 andalso ?CT:info(Connection, packets_in) >= 6 end),
    ?assertEqual({ok, 0, <<>>}, ?CONNECTION:request(Connection, 1)),
    ok = ?CONNECTION:close(Connection),
    ok = python_done().

%% A python3 of its own, which connects to us.
with_python(_Config, Role, Options) ->
    {ok, Listener} = gen_tcp:listen(0, [binary, {active, false}, {nodelay, true}, {ip, {127, 0, 0, 1}}]),
    {ok, Number} = inet:port(Listener),
    {ok, #{executable := Python}} = causeway_python:find(),
    Script = filename:join(causeway_ct:python_dir(), "connection_helpers.py"),
    Path = unicode:characters_to_list(filename:join(causeway_python:priv_dir(), "python")),
    Port = open_port({spawn_executable, Python},
                     [{args, [Script, Role, integer_to_list(Number)]}, {env, [{"PYTHONPATH", Path}]},
                      exit_status, stderr_to_stdout, binary]),
    {ok, Socket} = gen_tcp:accept(Listener, 20000),
    ok = gen_tcp:close(Listener),
    put(python, Port),
    ?CT:start(Socket, Options).

%% It has ended well, and said nothing but why handlers have failed.
python_done() -> python_done(<<>>).

python_done(Said) ->
    Port = get(python),
    receive
        {Port, {data, Data}} -> python_done(<<Said/binary, Data/binary>>);
        {Port, {exit_status, 0}} when Said =:= <<>> -> ok;
        {Port, {exit_status, 0}} -> {failures, length(binary:matches(Said, <<"exception during handler">>))};
        {Port, {exit_status, _}} -> {error, Said}
    after 30000 -> error({python_still_runs, Said})
    end.

%% Inside of the node

in_the_node(_Config) ->
    {Connection, In, Out} = channels_to_python(#{handler => fun(1, _, P) -> string:uppercase(P) end}),
    ?assertEqual({ok, {true, 0, <<"ABC">>}}, py:call(?HELPERS, ask, [1, {bytes, <<"abc">>}])),
    ?assertEqual({ok, 0, <<"cba">>}, ?CONNECTION:request(Connection, 1, <<"abc">>)),
    Results = ?CT:many(10, fun(N) -> [?CONNECTION:request(Connection, 1, <<N:16>>) || _ <- lists:seq(1, 20)] end, 30000),
    ?assertEqual(10, length(lists:usort(lists:append(Results)))),
    {ok, none} = py:call(?HELPERS, finish, []),
    ?assertEqual(normal, ?CT:ended(Connection)),
    ?assertMatch(#{closed := true}, py_byte_channel:info(Out)),
    ?assert(is_reference(In)).

in_the_node_ends(_Config) ->
    {Connection, _In, _Out} = channels_to_python(#{}),
    ?assertEqual({ok, 0, <<"cba">>}, ?CONNECTION:request(Connection, 1, <<"abc">>)),
    ok = ?CONNECTION:close(Connection),
    ?assertEqual({ok, true}, py:call(?HELPERS, wait_for_end, [])).

channels_to_python(Options) ->
    {ok, In} = py_byte_channel:new(#{max_size => 65536}),
    {ok, Out} = py_byte_channel:new(#{max_size => 65536}),
    Connection = ?CT:start({In, Out}, Options),
    {ok, none} = py:call(?HELPERS, start, [Out, In]),
    {Connection, In, Out}.
