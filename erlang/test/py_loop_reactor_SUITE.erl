%% @doc Protocols of the reactor in the event loop of a context, and those of asyncio for what a reactor was handed.
-module(py_loop_reactor_SUITE).

-compile([export_all, nowarn_export_all]).

-import(reactor_ct, [tcp_pair/0, listen/0, read_all/1, ask/2]).

-include_lib("stdlib/include/assert.hrl").

-define(HELPERS, loop_reactor_helpers).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [{group, worker}, {group, subinterp}, {group, owngil}].

groups() ->
    Cases = [reactor_protocol_in_a_task, reactor_protocol_in_the_foreground, killed_owner_of_reactor_protocols,
             asyncio_protocol, listener, factory_that_needs_the_loop, what_was_read_already, half_close, back_pressure,
             exceptions, datagrams, places, drained, no_time_to_drain, killed_owner, what_cannot_be_served],
    [{worker, [], Cases}, {subinterp, [], Cases}, {owngil, [], Cases}].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_group(Mode, Config) -> mode_ct:start_group(Mode, Config).

end_per_group(_Mode, _Config) -> ok.

init_per_testcase(_Case, Config) ->
    true = register(loop_reactor, self()),
    process_flag(trap_exit, true),
    Config.

end_per_testcase(_Case, _Config) ->
    true = unregister(loop_reactor),
    ?assertEqual([], causeway_ct:mailbox()).

%% A context whose factory is a name of the helpers.
context(Config, Factory) -> context(Config, Factory, #{}).

context(Config, Factory, Options) ->
    Setup = ["import sys\nsys.path.insert(0, '", causeway_ct:python_dir(), "')\nimport loop_reactor_helpers\n"
             "from erlang import reactor\nreactor.set_protocol_factory(loop_reactor_helpers.", Factory, ")\n"],
    {ok, Context} = py_reactor_context:start_link(7, mode_ct:mode(Config), Options#{setup_code => Setup}),
    Context.

handed_over(Context) -> handed_over(Context, #{}).

handed_over(Context, Info) ->
    {Client, Server} = tcp_pair(),
    ok = py_reactor_context:handoff(Context, Server, Info),
    Client.

%% What is left of a context when it is stopped, or whatever a function does: no descriptor.
leaves_nothing(Fun) ->
    Before = causeway_ct:descriptors(),
    Fun(),
    ok = causeway_ct:settled(fun causeway_ct:descriptors/0, Before).

large() -> binary:copy(<<"0123456789abcdef">>, 1 bsl 17).

told(What) -> ok = causeway_ct:expect(What).

stopped(Context) ->
    ok = py_reactor_context:stop(Context),
    receive {'EXIT', Context, _} -> ok end.

%% A loop serves protocols of the reactor

%% The client of a connection that a task has adopted.
adopted(Context) ->
    {Client, Server} = tcp_pair(),
    {ok, none} = py:async_await(py:async_call(Context, ?HELPERS, adopt, [duplicate(Server)])),
    ok = gen_tcp:close(Server),
    told(made),
    Client.

reactor_protocol_in_a_task(Config) ->
    leaves_nothing(
      fun() ->
          Context = context(Config, "Told"),
          Client = adopted(Context),
          ?assertEqual(<<"ping">>, ask(Client, <<"ping">>)),
          ?assertEqual(large(), ask(Client, large())),
          %% The task has ended; protocols start others.
          ?assertEqual(<<"later">>, ask(Client, <<"later">>)),
          ok = gen_tcp:shutdown(Client, write),
          ?assertEqual(<<>>, read_all(Client)),
          told(lost),
          {ok, Port} = py:async_await(py:async_call(Context, ?HELPERS, serve, [])),
          {ok, Other} = gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, false}]),
          told(made),
          ?assertEqual(<<"ping">>, ask(Other, <<"ping">>)),
          stopped(Context),
          told(lost),
          ?assertEqual(<<>>, read_all(Other)),
          [ok = gen_tcp:close(Socket) || Socket <- [Client, Other]]
      end).

reactor_protocol_in_the_foreground(Config) ->
    leaves_nothing(
      fun() ->
          Context = context(Config, "Told"),
          {Client, Server} = tcp_pair(),
          Call = py:spawn_call(Context, ?HELPERS, adopt_until_lost, [duplicate(Server)]),
          ok = gen_tcp:close(Server),
          told(made),
          ?assertEqual(<<"ping">>, ask(Client, <<"ping">>)),
          ?assertEqual({ok, 4.0}, py:call(Context, math, sqrt, [16])),
          ?assertEqual(<<"later">>, ask(Client, <<"later">>)),
          ok = gen_tcp:close(Client),
          told(lost),
          ?assertEqual({ok, none}, py:await(Call)),
          stopped(Context)
      end).

killed_owner_of_reactor_protocols(Config) ->
    leaves_nothing(
      fun() ->
          Context = context(Config, "Told"),
          Client = adopted(Context),
          exit(Context, kill),
          receive {'EXIT', Context, killed} -> ok end,
          ?assertEqual(<<>>, read_all(Client)),
          told(lost),
          ok = gen_tcp:close(Client)
      end).

duplicate(Socket) ->
    {ok, Fd} = inet:getfd(Socket),
    {ok, Duplicate} = py:dup_fd(Fd),
    Duplicate.

%% A reactor is handed what a protocol of asyncio serves

asyncio_protocol(Config) ->
    leaves_nothing(
      fun() ->
          Context = context(Config, "AsyncioEcho"),
          Client = handed_over(Context, #{tenant => acme}),
          told({made, <<"acme">>, <<"127.0.0.1">>}),
          ?assertEqual(<<"ping">>, ask(Client, <<"ping">>)),
          ?assertEqual(large(), ask(Client, large())),
          ?assertMatch(#{active_connections := 1, total_connections := 1}, py_reactor_context:stats(Context)),
          ?assertEqual({ok, 4.0}, py:call(Context, math, sqrt, [16])),
          ok = gen_tcp:close(Client),
          told(lost),
          ok = causeway_ct:wait_until(fun() -> active(Context) =:= 0 end),
          stopped(Context)
      end).

active(Context) -> maps:get(active_connections, py_reactor_context:stats(Context)).

listener(Config) ->
    leaves_nothing(
      fun() ->
          Context = context(Config, "AsyncioEcho"),
          Listener = listen(),
          {ok, Port} = inet:port(Listener),
          ok = py_reactor_context:handoff(Context, Listener, #{tenant => acme}),
          Clients = [begin
                         {ok, Client} = gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, false}]),
                         told({made, <<"acme">>, <<"127.0.0.1">>}),
                         Client
                     end || _ <- lists:seq(1, 20)],
          [?assertEqual(<<"ping">>, ask(Client, <<"ping">>)) || Client <- Clients],
          [ok = gen_tcp:close(Client) || Client <- Clients],
          [told(lost) || _ <- Clients],
          stopped(Context)
      end).

%% A function that asks for the running loop, with the first connection and later.
factory_that_needs_the_loop(Config) ->
    Context = context(Config, "with_loop"),
    [begin
         Client = handed_over(Context),
         ?assertEqual(<<"gnip">>, ask(Client, <<"ping">>)),
         ok = gen_tcp:close(Client)
     end || _ <- [first, second]],
    stopped(Context).

what_was_read_already(Config) ->
    Context = context(Config, "AsyncioEcho"),
    {Client, Server} = tcp_pair(),
    ok = inet:setopts(Server, [{active, true}]),
    ok = gen_tcp:send(Client, <<"early ">>),
    receive {tcp, Server, Early} -> self() ! {tcp, Server, Early} end,
    ok = py_reactor_context:handoff(Context, Server, #{tenant => x}),
    ok = gen_tcp:send(Client, <<"late">>),
    ok = gen_tcp:shutdown(Client, write),
    ?assertEqual(<<"early late">>, read_all(Client)),
    told({made, <<"x">>, <<"127.0.0.1">>}),
    told(lost),
    stopped(Context).

half_close(Config) ->
    Context = context(Config, "AsyncioHalf"),
    Client = handed_over(Context),
    ok = gen_tcp:send(Client, <<"one">>),
    ok = gen_tcp:shutdown(Client, write),
    ?assertEqual(<<"one and all">>, read_all(Client)),
    stopped(Context).

%% The protocol is paused while the peer does not read, and has all of it read in the end.
back_pressure(Config) ->
    Context = context(Config, "AsyncioFlood"),
    Client = handed_over(Context),
    told(paused),
    told(resumed_when_read(Client)),
    told(lost),
    stopped(Context).

resumed_when_read(Client) ->
    ?assertEqual(16 bsl 20, byte_size(read_all(Client))),
    resumed.

%% The connection ends, the others go on.
exceptions(Config) ->
    Context = context(Config, "AsyncioEcho"),
    [Failing, Other] = [handed_over(Context, #{tenant => N}) || N <- [1, 2]],
    [told({made, N, <<"127.0.0.1">>}) || N <- [1, 2]],
    ok = gen_tcp:send(Failing, <<"fail">>),
    ?assertEqual(<<>>, read_all(Failing)),
    told(lost),
    ?assertEqual(<<"ping">>, ask(Other, <<"ping">>)),
    stopped(Context),
    told(lost).

datagrams(Config) ->
    leaves_nothing(
      fun() ->
          Context = context(Config, "AsyncioPong"),
          {ok, Socket} = gen_udp:open(0, [binary, {ip, {127, 0, 0, 1}}]),
          {ok, Port} = inet:port(Socket),
          ok = py_reactor_context:handoff(Context, Socket, #{}),
          {ok, Peer} = gen_udp:open(0, [binary, {active, false}]),
          ok = gen_udp:send(Peer, {127, 0, 0, 1}, Port, <<"ping">>),
          ?assertMatch({ok, {_, Port, <<"pong ping">>}}, gen_udp:recv(Peer, 0, 10000)),
          ok = gen_udp:close(Peer),
          stopped(Context)
      end).

%% They count among the connections of the reactor.
places(Config) ->
    Context = context(Config, "AsyncioEcho", #{max_connections => 1}),
    First = handed_over(Context, #{tenant => 1}),
    told({made, 1, <<"127.0.0.1">>}),
    {Client, Server} = tcp_pair(),
    ?assertEqual({error, max_connections}, py_reactor_context:handoff(Context, Server, #{})),
    ok = gen_tcp:close(First),
    told(lost),
    ok = causeway_ct:wait_until(fun() -> active(Context) =:= 0 end),
    ok = py_reactor_context:handoff(Context, Server, #{tenant => 2}),
    told({made, 2, <<"127.0.0.1">>}),
    ?assertEqual(<<"ping">>, ask(Client, <<"ping">>)),
    stopped(Context),
    told(lost).

%% A context that stops has them write what they have to.
drained(Config) ->
    Context = context(Config, "AsyncioFlood"),
    Client = handed_over(Context),
    told(paused),
    Test = self(),
    Stopper = spawn_link(fun() -> Test ! {stopped, py_reactor_context:stop(Context, 30000)} end),
    told(resumed_when_read(Client)),
    told(lost),
    told({stopped, ok}),
    [receive {'EXIT', Pid, _} -> ok end || Pid <- [Context, Stopper]].

no_time_to_drain(Config) ->
    leaves_nothing(
      fun() ->
          Context = context(Config, "AsyncioFlood"),
          Client = handed_over(Context),
          told(paused),
          ok = py_reactor_context:stop(Context, 0),
          told(lost),
          receive {'EXIT', Context, _} -> ok end,
          ?assert(byte_size(read_all(Client)) < 16 bsl 20),
          ok = gen_tcp:close(Client)
      end).

killed_owner(Config) ->
    leaves_nothing(
      fun() ->
          Context = context(Config, "AsyncioEcho"),
          Client = handed_over(Context, #{tenant => 1}),
          told({made, 1, <<"127.0.0.1">>}),
          exit(Context, kill),
          receive {'EXIT', Context, killed} -> ok end,
          ?assertEqual(<<>>, read_all(Client)),
          told(lost),
          ok = gen_tcp:close(Client)
      end).

%% What makes neither, or the wrong kind, is logged, and the peer not left hanging.
what_cannot_be_served(Config) ->
    [begin
         Context = context(Config, Factory),
         ok = output_ct_logged(fun() -> ?assertEqual(<<>>, read_all(handed_over(Context))) end, Text),
         ok = causeway_ct:wait_until(fun() -> active(Context) =:= 0 end),
         stopped(Context)
     end || {Factory, Text} <- [{"AsyncioPong", "does not serve a socket"}, {"makes_nothing", "no instance of erlang.reactor.Protocol"},
                                {"fails_with_runtime_error", "on purpose"}]].

output_ct_logged(Fun, Part) ->
    ok = logger:add_handler(reactor_ct, reactor_ct, #{config => #{test => self()}}),
    Fun(),
    receive {logged, _, Text, _} -> ?assertNotEqual(nomatch, string:find(Text, Part)) end,
    logger:remove_handler(reactor_ct).
