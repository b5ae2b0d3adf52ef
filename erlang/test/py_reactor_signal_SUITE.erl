%% @doc What others do with a connection by its number: signals, a look at its protocol, its end.
-module(py_reactor_signal_SUITE).

-compile([export_all, nowarn_export_all]).

-import(reactor_ct, [use/1, connected/1, connected/2, ask/2, ask/3, expect_lost/0]).

-include_lib("stdlib/include/assert.hrl").

-define(PROTOCOLS, reactor_protocols).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [async_pending, async_pending_with_dead_peer, signals_itself_without_end, signal_for_unknown_descriptors, get_protocol_knows_who_serves,
     close_connection_from_a_call, reused_numbers, read_and_write_by_hand].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_testcase(_Case, Config) -> reactor_ct:start_context(Config).

end_per_testcase(_Case, Config) -> reactor_ct:kill_context(Config).

%% Signals

async_pending(Config) ->
    use('Deferred'),
    Client = connected(Config),
    [begin
         ?assertEqual(<<"later ", Data/binary>>, ask(Client, Data, 6 + byte_size(Data))),
         ok = causeway_ct:expect({<<"signalled">>, true})
     end || Data <- [<<"one">>, <<"two">>, <<"three">>]].

async_pending_with_dead_peer(Config) ->
    use('Waiting'),
    Client = connected(Config),
    ok = gen_tcp:send(Client, <<"wait">>),
    Fd = receive {<<"waiting">>, Number} -> Number after 10000 -> error(causeway_ct:mailbox()) end,
    ok = inet:setopts(Client, [{linger, {true, 0}}]),
    ok = gen_tcp:close(Client),
    {ok, true} = py:call('erlang.reactor', signal_write_ready, [Fd]),
    ok = expect_lost().

%% However often: no call of the method is made on top of another.
signals_itself_without_end(Config) ->
    %% Asks the context itself, which takes the signal before that.
    Context = causeway_ct:context(Config),
    ok = py:register_function(nothing, fun([]) -> {ok, Root} = py:call(Context, math, sqrt, [16]), Root end),
    use('SignalsItself'),
    Client = connected(Config),
    ?assertEqual(<<"done">>, ask(Client, <<"100000">>, 4)),
    ok = py:unregister_function(nothing).

signal_for_unknown_descriptors(_Config) ->
    [?assertEqual({ok, false}, py:call('erlang.reactor', signal_write_ready, [Fd])) || Fd <- [0, 12345]],
    ?assertMatch({error, {'ValueError', _}}, py:call('erlang.reactor', signal_write_ready, [-1])),
    ?assertMatch({error, {'TypeError', _}}, py:call('erlang.reactor', signal_write_ready, [a])),
    ?assertMatch({error, {'ValueError', _}}, py:call('erlang.reactor', on_read_ready, [12345])),
    ?assertEqual({ok, none}, py:call('erlang.reactor', close_connection, [12345])).

get_protocol_knows_who_serves(Config) ->
    use('Watched'),
    Client = connected(Config),
    Fd = receive {<<"made">>, Number, _} -> Number after 10000 -> error(causeway_ct:mailbox()) end,
    ?assertMatch({ok, {Fd, false, #{}, <<"Watched">>}}, py:call(?PROTOCOLS, attributes_of, [Fd])),
    ok = gen_tcp:close(Client),
    ok = causeway_ct:expect({<<"lost">>, Fd, true}),
    ?assertEqual({ok, none}, py:call(?PROTOCOLS, attributes_of, [Fd])).

close_connection_from_a_call(Config) ->
    use('Watched'),
    Client = connected(Config),
    Fd = receive {<<"made">>, Number, _} -> Number after 10000 -> error(causeway_ct:mailbox()) end,
    {ok, none} = py:call('erlang.reactor', close_connection, [Fd]),
    ?assertEqual({error, closed}, gen_tcp:recv(Client, 0, 10000)),
    ok = causeway_ct:expect({<<"lost">>, Fd, true}),
    ?assertEqual({ok, none}, py:call('erlang.reactor', close_connection, [Fd])).

%% The kernel gives the same number again: it is a new connection with a new protocol.
reused_numbers(Config) ->
    use('Watched'),
    Numbers = [begin
                   Client = connected(Config, #{number => N}),
                   Fd = receive {<<"made">>, Number, #{<<"number">> := N}} -> Number after 10000 -> error(causeway_ct:mailbox()) end,
                   Data = integer_to_binary(N),
                   ?assertEqual(Data, ask(Client, Data)),
                   ok = gen_tcp:close(Client),
                   ok = causeway_ct:expect({<<"lost">>, Fd, true}),
                   Fd
               end || N <- lists:seq(1, 200)],
    ?assert(length(lists:usort(Numbers)) < 50).

read_and_write_by_hand(Config) ->
    use('Reader'),
    Client = connected(Config),
    ?assertEqual(<<"abc|">>, ask(Client, <<"abc">>, 4)).
