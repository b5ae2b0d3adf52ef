%% @doc Where Python calls Erlang from: in any depth, from every thread, and in what serves a connection.
-module(py_callback_place_SUITE).

-compile([export_all, nowarn_export_all]).

-import(causeway_ct, [context/1, context/0]).
-import(callback_ct, [gate/1, entered/1, kill/1]).
-import(reactor_ct, [use/1, connected_to/2, ask/2]).

-include_lib("stdlib/include/assert.hrl").

-define(HELPERS, callback_helpers).
-define(PATIENCE, 30000).

suite() -> [{timetrap, {seconds, 120}}].

all() ->
    [{group, depth}, {group, threads}, {group, reactor}].

groups() ->
    [{depth, [], [fifty_deep, fifty_deep_across_two_contexts_and_two_processes, endless_recursion_is_an_error,
                  recursion_beyond_pythons_limit, refused_depth_runs_no_function, calls_on_top_see_nothing_of_those_below,
                  last_in_first_out, long_wait_serves_others]},
     {threads, [], [from_a_thread, from_an_executor, from_many_threads_at_once, thread_waits_without_the_lock,
                    thread_has_no_self, thread_outlives_its_call, thread_waits_for_a_killed_process]},
     {reactor, [], [connections_are_served_meanwhile, callback_of_a_connection_calls_erlang,
                    cancelled_call_spares_the_connections_on_top, cancelled_call_spares_the_factory_on_top,
                    factory_that_loops_ends_with_its_context, write_ready_that_waits_ends_with_its_context]}].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_group(_Group, Config) -> Config.

end_per_group(_Group, _Config) -> ok.

init_per_testcase(_Case, Config) -> causeway_ct:start_context(Config).

end_per_testcase(_Case, Config) -> causeway_ct:kill_context(Config).

%% Depth

fifty_deep(Config) ->
    ok = py:register_function(nest, fun([0]) -> 0;
                                       ([N]) -> {ok, Depth} = py:call(context(Config), ?HELPERS, nest, [nest, N - 1]), Depth + 1
                                    end),
    [?assertEqual({ok, 50}, py:call(context(Config), ?HELPERS, nest, [nest, 50])) || _ <- lists:seq(1, 20)],
    ok = py:unregister_function(nest).

%% Each level waits in another context than the one above; two chains go through both contexts in opposite order, and the
%% calls of both are made by two processes, as servers are.
fifty_deep_across_two_contexts_and_two_processes(Config) ->
    Contexts = {context(Config), context()},
    ok = py:register_function(nest, fun([0, _]) -> 0;
                                       ([N, Place]) ->
                                            {ok, Depth} = py:call(element(Place, Contexts), ?HELPERS, nest, [nest, N - 1, 3 - Place]),
                                            Depth + 1
                                    end),
    [begin
         Callers = [spawn_monitor(fun() -> exit({result, py:call(element(Place, Contexts), ?HELPERS, nest, [nest, 50, 3 - Place])}) end)
                    || Place <- [1, 2]],
         [receive {'DOWN', Monitor, process, Caller, Result} -> ?assertEqual({result, {ok, 50}}, Result) after ?PATIENCE -> error(deadlock) end
          || {Caller, Monitor} <- Callers]
     end || _ <- lists:seq(1, 50)],
    ok = py:unregister_function(nest),
    ok = py_context:stop(element(2, Contexts)).

endless_recursion_is_an_error(Config) ->
    ok = register_endless(context(Config)),
    [begin
         ?assertEqual({ok, <<"RecursionError">>}, py:call(context(Config), ?HELPERS, nest, [endless, 0], 60000)),
         ?assertEqual({ok, 4.0}, py:call(context(Config), math, sqrt, [16]))
     end || _ <- lists:seq(1, 3)],
    ?assertEqual([], causeway_ct:mailbox()),
    ok = py:unregister_function(endless).

%% Python's own limit set as high as people set it: ours is before the end of the stack.
recursion_beyond_pythons_limit(Config) ->
    ok = register_endless(context(Config)),
    ?assertEqual({ok, <<"RecursionError">>},
                 py:call(context(Config), ?HELPERS, with_recursion_limit, [1000000, endless, 0], 60000)),
    ?assertEqual({ok, 4.0}, py:call(context(Config), math, sqrt, [16])),
    ok = py:unregister_function(endless).

%% The type of the error at the bottom, which every level hands up.
register_endless(Context) ->
    py:register_function(endless, fun([N]) -> case py:call(Context, ?HELPERS, nest, [endless, N + 1]) of
                                                  {ok, Type} -> Type;
                                                  {error, {Type, _}} -> Type
                                              end
                                  end).

%% A call that is refused has not run its function all the same.
refused_depth_runs_no_function(Config) ->
    Counter = counters:new(1, []),
    Deepest = counters:new(1, []),
    ok = py:register_function(deeper, fun([N]) ->
                                              ok = counters:add(Counter, 1, 1),
                                              ok = counters:put(Deepest, 1, N),
                                              element(1, py:call(context(Config), ?HELPERS, nest, [deeper, N + 1]))
                                      end),
    {ok, _} = py:call(context(Config), ?HELPERS, with_recursion_limit, [1000000, deeper, 1], 60000),
    ?assertEqual(counters:get(Deepest, 1), counters:get(Counter, 1)),
    ?assertEqual(500, counters:get(Deepest, 1)),
    ok = py:unregister_function(deeper).

%% A call that is served while another waits is a call of its own, of somebody else.
calls_on_top_see_nothing_of_those_below(Config) ->
    Context = context(Config),
    ok = py:register_function(complain, fun([]) -> py:call(Context, ?HELPERS, complain, [], #{error => map}) end),
    {ok, {<<"error">>, Error}} = py:call(Context, ?HELPERS, call_in_handler, [complain]),
    ?assertMatch(#{<<"type">> := <<"ValueError">>, <<"cause">> := none}, Error),
    ok = py:register_function(handled, fun([]) -> py:call(Context, ?HELPERS, handled, []) end),
    ?assertEqual({ok, {<<"ok">>, <<"None">>}}, py:call(Context, ?HELPERS, call_in_handler, [handled])),
    [ok = py:unregister_function(Name) || Name <- [complain, handled]].

last_in_first_out(Config) ->
    Context = context(Config),
    [ok = gate(Name) || Name <- [first, second]],
    First = py:spawn_call(Context, ?HELPERS, call, [first]),
    FirstFunction = entered(first),
    Second = py:spawn_call(Context, ?HELPERS, call, [second]),
    SecondFunction = entered(second),
    FirstFunction ! {go, 1},
    %% On top of both.
    ?assertEqual({ok, 4.0}, py:call(Context, math, sqrt, [16], 5000)),
    SecondFunction ! {go, 2},
    ?assertEqual({ok, 2}, py:await(Second)),
    ?assertEqual({ok, 1}, py:await(First)),
    [ok = py:unregister_function(Name) || Name <- [first, second]].

long_wait_serves_others(Config) ->
    Context = context(Config),
    ok = gate(wait),
    Waiting = py:spawn_call(Context, ?HELPERS, call, [wait]),
    Function = entered(wait),
    Ticks = causeway_ct:context_ticks(),
    [?assertEqual({ok, float(N)}, py:call(Context, math, sqrt, [N * N], 5000)) || N <- lists:seq(1, 1000)],
    ?assertEqual(ok, py:exec(Context, <<"mine = 1">>)),
    ?assertEqual({ok, 1}, py:eval(Context, <<"mine">>)),
    ?assertEqual({error, timeout}, py:call(Context, time, sleep, [60], 500)),
    %% It sleeps while it waits.
    ?assert(causeway_ct:context_ticks() - Ticks < 150),
    Function ! {go, done},
    ?assertEqual({ok, <<"done">>}, py:await(Waiting)),
    ok = py:unregister_function(wait).

%% Other threads

from_a_thread(Config) ->
    ok = py:register_function(double, fun([N]) -> {N * 2, get('$callers')} end),
    ?assertEqual({ok, [{<<"returned">>, {42, none}}]}, py:call(context(Config), ?HELPERS, in_thread, [double, 21])),
    ok = py:register_function(double, fun([_]) -> error(broken) end),
    ?assertMatch({ok, [{<<"ErlangError">>, _, <<"error">>, <<"broken">>, _, _}]}, py:call(context(Config), ?HELPERS, in_thread, [double, 21])),
    ok = py:unregister_function(double),
    ?assertMatch({ok, [{<<"NameError">>, _}]}, py:call(context(Config), ?HELPERS, in_thread, [double, 21])).

from_an_executor(Config) ->
    ok = py:register_function(double, fun([N]) -> N * 2 end),
    %% Many, since an answer meets its thread at every stage of going to sleep.
    [?assertEqual({ok, [N * 2 || N <- lists:seq(1, 2000)]},
                  py:call(context(Config), ?HELPERS, in_executor, [double, 16, lists:seq(1, 2000)]))
     || _ <- lists:seq(1, 10)],
    ok = py:unregister_function(double).

%% All wait at once; each function calls Python again.
from_many_threads_at_once(Config) ->
    Test = self(),
    ok = py:register_function(meet, fun([N]) -> Test ! {meet, self()}, receive {go, _} -> ok end,
                                                {ok, Root} = py:call(math, sqrt, [N * N]), Root end),
    Call = py:spawn_call(context(Config), ?HELPERS, in_executor, [meet, 100, lists:seq(1, 100)]),
    Functions = [entered(meet) || _ <- lists:seq(1, 100)],
    [Function ! {go, on} || Function <- Functions],
    ?assertEqual({ok, [float(N) || N <- lists:seq(1, 100)]}, py:await(Call)),
    ok = py:unregister_function(meet).

thread_waits_without_the_lock(Config) ->
    ok = gate(wait),
    {ok, none} = py:call(context(Config), ?HELPERS, in_background, [wait]),
    Function = entered(wait),
    [?assertEqual({ok, 4.0}, py:call(Context, math, sqrt, [16], 5000)) || Context <- [context(Config), py:context(1)]],
    Function ! {go, done},
    ok = py:unregister_function(wait).

thread_has_no_self(Config) ->
    {ok, Text} = py:call(context(Config), ?HELPERS, self_in_thread, []),
    ?assertNotEqual(nomatch, binary:match(Text, <<"self()">>)).

%% Nobody can interrupt it: it gets its answer when the call and even the context are over.
thread_outlives_its_call(Config) ->
    ok = gate(wait),
    Test = self(),
    ok = py:register_function(tell, fun([Value]) -> Test ! {told, Value} end),
    ok = py:exec(context(Config), <<"import erlang, threading\ndef work(): erlang.call('tell', erlang.call('wait'))\n"
                                    "threading.Thread(target=work).start()\n">>),
    Function = entered(wait),
    ok = py_context:stop(context(Config)),
    Function ! {go, late},
    ok = causeway_ct:expect({told, <<"late">>}),
    [ok = py:unregister_function(Name) || Name <- [wait, tell]].

thread_waits_for_a_killed_process(Config) ->
    ok = gate(killed),
    Call = py:spawn_call(context(Config), ?HELPERS, in_thread, [killed]),
    exit(entered(killed), kill),
    ?assertMatch({ok, [{<<"ErlangError">>, _, <<"exit">>, none, [], _}]}, py:await(Call, 10000)),
    ok = py:unregister_function(killed).

%% Connections

connections_are_served_meanwhile(Config) ->
    Context = context(Config),
    ok = use('Echo'),
    ok = gate(wait),
    Before = connected_to(Context, #{type => tcp}),
    ?assertEqual(<<"ping">>, ask(Before, <<"ping">>)),
    Waiting = py:spawn_call(Context, ?HELPERS, call, [wait]),
    Function = entered(wait),
    [?assertEqual(integer_to_binary(N), ask(Before, integer_to_binary(N))) || N <- lists:seq(1, 200)],
    %% One that comes meanwhile, and after the thread has gone to sleep.
    During = connected_to(Context, #{type => tcp}),
    ?assertEqual(<<"pong">>, ask(During, <<"pong">>)),
    #{parks := Parks} = py_context:stats(Context),
    ok = causeway_ct:wait_until(fun() -> maps:get(parks, py_context:stats(Context)) > Parks end),
    [?assertEqual(<<"awake">>, ask(Socket, <<"awake">>)) || Socket <- [Before, During]],
    Function ! {go, done},
    ?assertEqual({ok, <<"done">>}, py:await(Waiting)),
    [?assertEqual(<<"after">>, ask(Socket, <<"after">>)) || Socket <- [Before, During]],
    [ok = gen_tcp:close(Socket) || Socket <- [Before, During]],
    ok = py:unregister_function(wait).

callback_of_a_connection_calls_erlang(Config) ->
    Context = context(Config),
    ok = use('Asks'),
    ok = gate(slow),
    ok = py:register_function(fast, fun([]) -> fast end),
    Slow = connected_to(Context, #{type => tcp}),
    Fast = connected_to(Context, #{type => tcp}),
    ok = gen_tcp:send(Slow, <<"slow">>),
    Function = entered(slow),
    ok = causeway_ct:expect({<<"asking">>, <<"slow">>, Context}),
    ?assertEqual(<<"fast">>, ask(Fast, <<"fast">>)),
    ?assertEqual({ok, 4.0}, py:call(Context, math, sqrt, [16], 5000)),
    Function ! {go, slow},
    ?assertEqual({ok, <<"slow">>}, gen_tcp:recv(Slow, 4, 10000)),
    [ok = gen_tcp:close(Socket) || Socket <- [Slow, Fast]],
    [ok = py:unregister_function(Name) || Name <- [slow, fast]].

%% A connection's callback waits on top of a call that waits. The call is given up: the callback is not its business.
cancelled_call_spares_the_connections_on_top(Config) ->
    Context = context(Config),
    ok = use('Asks'),
    [ok = gate(Name) || Name <- [below, above]],
    Socket = connected_to(Context, #{type => tcp}),
    Caller = spawn(fun() -> py:call(Context, ?HELPERS, call, [below]) end),
    Below = entered(below),
    ok = gen_tcp:send(Socket, <<"above">>),
    Above = entered(above),
    ok = causeway_ct:expect({<<"asking">>, <<"above">>, Context}),
    Monitor = monitor(process, Below),
    kill(Caller),
    %% The context has dealt with what has happened when it has served this.
    ?assertEqual({ok, 4.0}, py:call(Context, math, sqrt, [16], 5000)),
    Above ! {go, above},
    ?assertEqual({ok, <<"above">>}, gen_tcp:recv(Socket, 5, 10000)),
    %% Only then is it its turn.
    receive {'DOWN', Monitor, process, Below, Reason} -> ?assertEqual(shutdown, Reason) after ?PATIENCE -> error(not_told) end,
    ok = gen_tcp:close(Socket),
    [ok = py:unregister_function(Name) || Name <- [below, above]].

%% The same while a protocol is being made, by Python code that is interrupted where it stands.
cancelled_call_spares_the_factory_on_top(Config) ->
    Context = context(Config),
    ok = use('MadeSlowly'),
    ok = gate(below),
    Caller = spawn(fun() -> py:call(Context, ?HELPERS, call, [below]) end),
    Below = entered(below),
    Monitor = monitor(process, Below),
    Socket = connected_to(Context, #{type => tcp}),
    ok = causeway_ct:expect({<<"making">>, Context}),
    kill(Caller),
    ok = causeway_ct:expect({<<"init over">>}),
    ?assertEqual(<<"ping">>, ask(Socket, <<"ping">>)),
    receive {'DOWN', Monitor, process, Below, Reason} -> ?assertEqual(shutdown, Reason) after ?PATIENCE -> error(not_told) end,
    ok = gen_tcp:close(Socket),
    ok = py:unregister_function(below).

factory_that_loops_ends_with_its_context(Config) ->
    Context = context(Config),
    Threads = causeway_ct:context_threads(),
    ok = use('MadeNever'),
    Socket = connected_to(Context, #{type => tcp}),
    ok = causeway_ct:expect({<<"making">>, Context}),
    ok = py_context:stop(Context),
    ok = causeway_ct:settled(fun causeway_ct:context_threads/0, Threads - 1),
    ok = gen_tcp:close(Socket).

write_ready_that_waits_ends_with_its_context(Config) ->
    Context = context(Config),
    Threads = causeway_ct:context_threads(),
    ok = use('Signalled'),
    ok = gate(slowly),
    Socket = connected_to(Context, #{type => tcp}),
    receive {<<"made">>, Fd, _} ->
        ok = gen_tcp:send(Socket, <<"go">>),
        ok = causeway_ct:wait_until(fun() ->
            {ok, true} = py:call('erlang.reactor', signal_write_ready, [Fd]),
            receive {<<"writing">>, Context} -> true after 0 -> false end
        end)
    after ?PATIENCE -> error(causeway_ct:mailbox())
    end,
    Function = entered(slowly),
    Monitor = monitor(process, Function),
    ok = py_context:stop(Context),
    receive {'DOWN', Monitor, process, Function, Reason} -> ?assertEqual(shutdown, Reason) after ?PATIENCE -> error(not_told) end,
    ok = causeway_ct:settled(fun causeway_ct:context_threads/0, Threads - 1),
    ok = gen_tcp:close(Socket),
    ok = py:unregister_function(slowly).
