%% Streaming calls over TLS, without Erlang distribution: every mode, between two connections of Erlang, and between Erlang and
%% a Python of its own, in both directions; and how they end.
-module(causeway_rpc_tls_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([suite/0, all/0, init_per_suite/1, end_per_suite/1, init_per_testcase/2]).
-export([erlang_to_erlang/1, erlang_to_python/1, python_to_erlang/1, python_in_the_node/1, large_chunks/1, slow_reader/1,
         closed/1, killed/1]).

-define(R, causeway_rpc).
-define(S, causeway_rpc_stream).
-define(WAYS, causeway_rpc_python_SUITE).

suite() -> [{timetrap, {seconds, 30}}].

all() -> [erlang_to_erlang, erlang_to_python, python_to_erlang, python_in_the_node, large_chunks, slow_reader, closed, killed].

%% The connection with Python outlives the process that runs this.
init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(ssl),
    Started = causeway_ct:start(Config),
    ok = ?WAYS:advertise(),
    #{client_config := Client} = Certificates = rpc_ct:certificates(),
    Roots = filename:join(proplists:get_value(priv_dir, Config), "roots.pem"),
    ok = file:write_file(Roots, public_key:pem_encode([{'Certificate', Der, not_encrypted}
                                                       || Der <- proplists:get_value(cacerts, Client)])),
    Test = self(),
    Keeper = spawn(fun() ->
        process_flag(trap_exit, true),
        {Connection, Port} = rpc_ct:start_tls_child(Certificates, Roots),
        Test ! {self(), Connection},
        receive {stop, From} -> From ! {self(), rpc_ct:stop_child(Connection, Port)} end
    end),
    receive
        {Keeper, Connection} -> [{certificates, Certificates}, {child, Connection}, {keeper, Keeper} | Started]
    after 30000 -> error(no_child)
    end.

end_per_suite(Config) ->
    Keeper = proplists:get_value(keeper, Config),
    Keeper ! {stop, self()},
    receive {Keeper, Said} -> {match, _} = re:run(Said, "streams 0 ") after 30000 -> error(child_runs) end,
    ok = rpc_peer:serve_nothing(),
    causeway_ct:stop(Config).

init_per_testcase(_Case, Config) ->
    process_flag(trap_exit, true),
    Config.

child(Config) -> #{connection => proplists:get_value(child, Config)}.

%% Two connections of this node, each the other's peer.
pair(Config) ->
    {One, Two} = rpc_ct:tls_sockets(proplists:get_value(certificates, Config)),
    {ok, Connection} = ?R:connect(One),
    {ok, Other} = ?R:connect(Two),
    {Connection, Other}.

ended(Connection) ->
    causeway_ct:wait_until(fun() -> not is_process_alive(Connection) end).

erlang_to_erlang(Config) ->
    {Connection, Other} = pair(Config),
    [?WAYS:same(?WAYS:expected(1000), ?WAYS:use(<<"erl_">>, #{connection => Each})) || Each <- [Connection, Other]],
    ok = causeway_rpc_connection:close(Connection),
    ended(Other).

erlang_to_python(Config) ->
    ?WAYS:same(?WAYS:expected(nil), ?WAYS:use(<<"child_">>, child(Config))).

python_to_erlang(Config) ->
    {ok, Got} = ?R:call(<<"child_use">>, <<"erl_">>, child(Config)),
    ?WAYS:same(?WAYS:expected(1000), Got).

python_in_the_node(Config) ->
    {ok, Got} = py:call(rpc_three_way, use, [<<"child_">>, proplists:get_value(child, Config)]),
    ?WAYS:same(?WAYS:expected(none), Got).

%% Larger than a record of TLS and than a window.
large_chunks(Config) ->
    {Connection, Other} = pair(Config),
    Sizes = [16383, 16384, 16385, 65536, 300000, 1000000],
    [begin
         {ok, Stream} = ?R:open_stream(Name, nil, Opts),
         [begin
              Chunk = crypto:strong_rand_bytes(Size),
              ok = ?S:send(Stream, Chunk),
              ?assert({chunk, Chunk} =:= ?S:recv(Stream, 10000), Size)
          end || Size <- Sizes],
         ok = ?S:close_send(Stream),
         ?assertEqual({ok, 7}, ?S:await_reply(Stream, 10000))
     end || {Name, Opts} <- [{<<"erl_echo">>, #{connection => Connection}}, {<<"child_echo">>, child(Config)},
                             {<<"child_echo_async">>, child(Config)}]],
    ok = causeway_rpc_connection:close(Connection),
    ended(Other).

%% One that nobody reads stops its sender, and no other stream.
slow_reader(Config) ->
    {Connection, Other} = pair(Config),
    [begin
         {ok, Slow} = ?R:call_stream(<<Prefix/binary, "endless">>, nil, Opts),
         {ok, Count} = ?R:call_stream(<<Prefix/binary, "count">>, 2000, Opts),
         ?assertEqual({ok, 2000}, ?S:await_reply(Count, 10000)),
         [{chunk, _} = ?S:recv(Slow, 10000) || _ <- lists:seq(1, 5000)],
         ?assertMatch(#{inbox_bytes := Bytes} when Bytes =< 262144, ?S:info(Slow)),
         ok = ?S:cancel(Slow)
     end || {Prefix, Opts} <- [{<<"erl_">>, #{connection => Connection}}, {<<"child_">>, child(Config)}]],
    {ok, true} = ?R:call(<<"child_ended">>, nil, child(Config)),
    ok = causeway_rpc_connection:close(Connection),
    ended(Other).

closed(Config) ->
    {Connection, Other} = pair(Config),
    {ok, Stream} = ?R:open_stream(<<"erl_wait">>, nil, #{connection => Connection}),
    ok = causeway_rpc_connection:close(Other),
    ?assertMatch({error, {<<"disconnected">>, _}}, ?S:await_reply(Stream, 10000)),
    ended(Connection).

%% The sockets below end without a word of TLS.
killed(Config) ->
    {Connection, Other} = pair(Config),
    {ok, Stream} = ?R:open_stream(<<"erl_endless">>, nil, #{connection => Connection}),
    {chunk, _} = ?S:recv(Stream, 10000),
    exit(Other, kill),
    ?assertMatch({error, {<<"disconnected">>, _}}, ?S:await_reply(Stream, 10000)),
    ended(Connection).
