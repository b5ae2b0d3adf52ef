%% @doc What others do with a connection by its number: signals, a look at its protocol, its end.
-module(py_reactor_signal_SUITE).

-compile([export_all, nowarn_export_all]).

-import(reactor_ct, [use/1, connected/1, connected/2, ask/2, ask/3, expect_lost/0]).

-include_lib("stdlib/include/assert.hrl").

-define(PROTOCOLS, reactor_protocols).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [async_pending, async_pending_with_dead_peer, async_pending_with_unread_data, data_waits_for_the_signal, signals_itself_without_end, buffer_that_a_thread_fills,
     signal_for_unknown_descriptors, actions_that_are_equal, get_protocol_knows_who_serves,
     close_connection_from_a_call, closed_while_its_data_waits, reused_numbers, read_and_write_by_hand].

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

%% Nobody will get what it writes: it need not wait for the signal.
async_pending_with_dead_peer(Config) ->
    use('Waiting'),
    Client = connected(Config),
    ok = gen_tcp:send(Client, <<"wait">>),
    Fd = receive {<<"waiting">>, Number} -> Number after 10000 -> error(causeway_ct:mailbox()) end,
    ok = reset(Client),
    ok = expect_lost(),
    {ok, false} = py:call('erlang.reactor', signal_write_ready, [Fd]).

%% What the peer has sent before is read all the same.
async_pending_with_unread_data(Config) ->
    {Client, Fd} = waiting(Config),
    ok = gen_tcp:send(Client, <<"two">>),
    ok = reset(Client),
    [{ok, 4.0} = py:call(causeway_ct:context(Config), math, sqrt, [16]) || _ <- lists:seq(1, 10)],
    ?assertEqual([], causeway_ct:mailbox()),
    {ok, true} = py:call('erlang.reactor', signal_write_ready, [Fd]),
    ok = causeway_ct:expect({<<"waiting">>, Fd}),
    ok = expect_lost().

%% A connection whose protocol has got `one' and waits for its signal.
waiting(Config) ->
    use('Waiting'),
    Client = connected(Config),
    ok = gen_tcp:send(Client, <<"one">>),
    Fd = receive {<<"waiting">>, Number} -> Number after 10000 -> error(causeway_ct:mailbox()) end,
    receive {<<"made">>, Fd, _} -> {Client, Fd} after 10000 -> error(causeway_ct:mailbox()) end.

reset(Client) ->
    ok = inet:setopts(Client, [{linger, {true, 0}}]),
    ok = gen_tcp:close(Client).

%% Until write_ready has been called nothing is read.
data_waits_for_the_signal(Config) ->
    {Client, Fd} = waiting(Config),
    ok = gen_tcp:send(Client, <<"two">>),
    %% The context looks at its connections before each call.
    [{ok, 4.0} = py:call(causeway_ct:context(Config), math, sqrt, [16]) || _ <- lists:seq(1, 10)],
    ?assertEqual([], causeway_ct:mailbox()),
    {ok, true} = py:call('erlang.reactor', signal_write_ready, [Fd]),
    ok = causeway_ct:expect({<<"waiting">>, Fd}).

%% `write_buffer' grows in one thread while the context writes it: neither loses a byte, nor raises.
buffer_that_a_thread_fills(Config) ->
    use('Filled'),
    Client = connected(Config),
    ok = gen_tcp:send(Client, <<20000:32>>),
    {ok, Numbers} = gen_tcp:recv(Client, 4 * 20000, 20000),
    ?assert(<< <<N:32>> || N <- lists:seq(0, 19999) >> =:= Numbers),
    ok = causeway_ct:expect({<<"filled">>}).

%% Most protocols return the very strings that are compared first; any others that are equal will do.
actions_that_are_equal(Config) ->
    use('Spells'),
    Client = connected(Config),
    [?assertEqual(Data, ask(Client, Data)) || Data <- [<<"joined">>, <<"constant">>, <<"subclass">>]].

%% However often: no call of the method is made on top of another.
signals_itself_without_end(Config) ->
    %% Asks the context itself, which takes the signal before that.
    Context = causeway_ct:context(Config),
    ok = py:register_function(nothing, fun([]) -> {ok, Root} = py:call(Context, math, sqrt, [16]), Root end),
    use('SignalsItself'),
    Client = connected(Config),
    ?assertEqual(<<"done">>, ask(Client, <<"30000">>, 4)),
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

%% What was read for a connection that has ended meanwhile goes to nobody, not even to the next that has its number.
closed_while_its_data_waits(Config) ->
    Context = causeway_ct:context(Config),
    Test = self(),
    ok = py:register_function(meanwhile, fun([]) -> Test ! {meanwhile, self()}, receive go -> ok end end),
    use('ClosesAnother'),
    [{First, _}, {Second, Fd}] = [begin
                                      Client = connected(Config),
                                      receive {<<"made">>, Number, _} -> {Client, Number} after 10000 -> error(causeway_ct:mailbox()) end
                                  end || _ <- [1, 2]],
    %% Both have something to read when the context looks again: the data of both is read before that of one is served.
    {ok, none} = py:call(causeway_helpers, close_gate, []),
    Gate = py:spawn_call(Context, causeway_helpers, wait_at_gate, [self()]),
    ok = causeway_ct:expect(<<"running">>),
    ok = gen_tcp:send(First, <<"close ", (integer_to_binary(Fd))/binary>>),
    ok = gen_tcp:send(Second, <<"late">>),
    {ok, none} = py:call(causeway_helpers, open_gate, []),
    {ok, <<"passed">>} = py:await(Gate),
    Function = receive {meanwhile, Process} -> Process after 10000 -> error(causeway_ct:mailbox()) end,
    ok = causeway_ct:expect({<<"lost">>, Fd, true}),
    ?assertMatch({error, _}, gen_tcp:recv(Second, 0, 10000)),
    %% A new one with the same number, while the data of the old one still waits.
    {ok, Left} = py:call(?PROTOCOLS, open_pair_at, [Fd]),
    ok = py_reactor_context:handoff(Context, Fd, #{}),
    receive {<<"made">>, Fd, _} -> ok after 10000 -> error(causeway_ct:mailbox()) end,
    {ok, 5} = py:call(os, write, [Left, {bytes, <<"fresh">>}]),
    ok = causeway_ct:expect({<<"data">>, Fd, <<"fresh">>}),
    Function ! go,
    ok = causeway_ct:expect({<<"closed another">>}),
    ok = gen_tcp:close(First),
    receive {<<"lost">>, _, true} -> ok end,
    ?assertEqual([], causeway_ct:mailbox()),
    {ok, none} = py:call(os, close, [Left]),
    ok = causeway_ct:expect({<<"lost">>, Fd, true}),
    ok = py:unregister_function(meanwhile).

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
