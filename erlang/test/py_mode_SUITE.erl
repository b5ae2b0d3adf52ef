%% @doc The kinds of context: in the main interpreter, in one of their own, and in one with a lock of its own. Each does
%% everything that a context does.
-module(py_mode_SUITE).

-compile([export_all, nowarn_export_all]).

-import(mode_ct, [mode/1, python/0, setup_code/0, start/1, only_the_pool_has_threads/0, in_process/1, sockets/0]).

-include_lib("stdlib/include/assert.hrl").

-define(HELPERS, mode_helpers).

suite() -> [{timetrap, {seconds, 120}}].

all() ->
    [{group, worker}, {group, subinterp}, {group, owngil}].

groups() ->
    Cases = [call_eval_exec, cast_and_spawn_call, streams, exceptions, callbacks, callbacks_between_contexts,
             send_to_erlang, names_are_of_process_and_interpreter, numpy_works_in_workers, package_that_refuses,
             threads_call_erlang, echo_by_a_socket, signals_of_threads, connections_of_others, two_factories, failing_setup_code, supervisor_restarts_it,
             interpreter_in_interpreter_calls_erlang, twenty_contexts_at_once, contexts_leave_nothing],
    [{worker, [], Cases}, {subinterp, [], Cases}, {owngil, [], Cases}].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_group(Mode, Config) -> mode_ct:start_group(Mode, Config).

end_per_group(_Mode, _Config) -> ok.

init_per_testcase(_Case, Config) -> mode_ct:start_case(Config).

end_per_testcase(_Case, Config) -> mode_ct:end_case(Config).

%% Everything that a context does

call_eval_exec(Config) ->
    Context = start(Config),
    ?assertEqual({ok, 4.0}, py:call(Context, math, sqrt, [16])),
    ?assertEqual({ok, #{<<"a">> => [1, none, {true, self()}]}},
                 py:call(Context, ?HELPERS, identity, [#{a => [1, none, {true, self()}]}])),
    ?assertEqual({ok, [1, 2]}, py:call(Context, builtins, sorted, [[2, 1]], #{kwargs => #{reverse => false}})),
    ?assertEqual({ok, 1 bsl 100}, py:eval(Context, <<"1 << n">>, #{n => 100})),
    ok = py:exec(Context, <<"def twice(x): return 2 * x">>),
    ?assertEqual({ok, 8}, py:call(Context, '__main__', twice, [4])),
    ?assertEqual({ok, 8}, py:eval(Context, <<"twice(4)">>)),
    {ok, Text} = py:call(Context, ?HELPERS, identity, [binary:copy(<<"å"/utf8>>, 100000)]),
    ?assertEqual(200000, byte_size(Text)),
    ok = py_context:stop(Context).

cast_and_spawn_call(Config) ->
    Context = start(Config),
    ok = py:exec(Context, <<"import erlang\ndef tell(pid): erlang.send(pid, 'cast')">>),
    ok = py:cast(Context, '__main__', tell, [self()]),
    ok = causeway_ct:expect(<<"cast">>),
    Calls = [py:spawn_call(Context, ?HELPERS, identity, [N]) || N <- lists:seq(1, 100)],
    ?assertEqual([{ok, N} || N <- lists:seq(1, 100)], [py:await(Call) || Call <- Calls]),
    ok = py_context:stop(Context).

streams(Config) ->
    Context = start(Config),
    ?assertEqual({ok, [0, 1, 2]}, py:stream(Context, ?HELPERS, count_to, [3])),
    ?assertEqual({ok, [0, 1, 4]}, py:stream_eval(Context, <<"(n * n for n in range(3))">>)),
    {ok, Stream} = py:stream_start(?HELPERS, count_to, [5000], #{context => Context}),
    ?assertEqual(lists:seq(0, 4999), received(Stream)),
    {ok, Endless} = py:stream_start(?HELPERS, loop_in_generator, [self()], #{context => Context}),
    ok = causeway_ct:expect({py_stream, Endless, {data, 1}}),
    ok = causeway_ct:expect(<<"running">>),
    ok = py:stream_cancel(Endless),
    ?assertEqual({ok, 1}, py:eval(Context, <<"1">>)),
    ?assertEqual([], causeway_ct:mailbox()),
    ok = py_context:stop(Context).

received(Stream) ->
    receive
        {py_stream, Stream, {data, Item}} -> [Item | received(Stream)];
        {py_stream, Stream, done} -> []
    end.

exceptions(Config) ->
    Context = start(Config),
    ?assertEqual({error, {'ZeroDivisionError', "division by zero"}}, py:eval(Context, <<"1 / 0">>)),
    {error, #{type := 'KeyError', traceback := [_ | _], cause := Cause}} =
        py:exec(Context, <<"try: 1 / 0\nexcept ZeroDivisionError as error: raise KeyError('x') from error">>, #{error => map}),
    ?assertMatch(#{type := 'ZeroDivisionError'}, Cause),
    ?assertMatch({error, {'RecursionError', _}}, py:exec(Context, <<"def deep(): deep()\ndeep()">>)),
    ?assertMatch({error, {'SystemExit', _}}, py:exec(Context, <<"raise SystemExit(1)">>)),
    ?assertEqual({ok, 1}, py:eval(Context, <<"1">>)),
    ok = py_context:stop(Context).

%% Down and up on the same context: Python, Erlang, Python, ...
callbacks(Config) ->
    Context = start(Config),
    ok = py:register_function(mode_double, fun([N]) -> 2 * N end),
    ok = py:register_function(mode_nest, fun([Depth]) -> {ok, Found} = py:call(Context, ?HELPERS, nest, [Depth]), Found end),
    ?assertEqual({ok, 42}, py:eval(Context, <<"__import__('erlang').call('mode_double', 21)">>)),
    ok = py:exec(Context, <<"from erlang import mode_double">>),
    ?assertEqual({ok, [0, 2, 4]}, py:eval(Context, <<"[mode_double(n) for n in range(3)]">>)),
    ?assertEqual({ok, 30}, py:call(Context, ?HELPERS, nest, [30])),
    ?assertMatch({error, {'NameError', _}}, py:eval(Context, <<"__import__('erlang').call('nobody')">>)),
    ok = py_context:stop(Context).

callbacks_between_contexts(Config) ->
    Contexts = {start(Config), start(Config), start([{mode, worker}])},
    ok = py:register_function(mode_nest, fun([Depth]) ->
                                                 Context = element(1 + Depth rem 3, Contexts),
                                                 {ok, Found} = py:call(Context, ?HELPERS, nest, [Depth]),
                                                 Found
                                         end),
    ?assertEqual({ok, 50}, py:call(element(1, Contexts), ?HELPERS, nest, [50])),
    [ok = py_context:stop(Context) || Context <- tuple_to_list(Contexts)].

send_to_erlang(Config) ->
    Context = start(Config),
    true = register(mode_suite, self()),
    Code = <<"import erlang, threading\n"
             "me = erlang.whereis('mode_suite')\n"
             "erlang.send(me, (erlang.self(), erlang.atom('sent'), b'\\xff', 1.5))\n"
             "t = threading.Thread(target=erlang.send, args=(me, 'from a thread'))\nt.start()\nt.join()\n">>,
    ok = py:exec(Context, Code),
    ok = causeway_ct:expect({self(), sent, <<255>>, 1.5}),
    ok = causeway_ct:expect(<<"from a thread">>),
    true = unregister(mode_suite),
    ok = py_context:stop(Context).

%% All of them wait at once, and each function calls Python again.
threads_call_erlang(Config) ->
    Context = start(Config),
    Test = self(),
    ok = py:register_function(mode_double, fun([N]) ->
                                                   Test ! {asked, self()},
                                                   receive go -> ok end,
                                                   {ok, Double} = py:eval(<<"2 * n">>, #{n => N}),
                                                   Double
                                           end),
    Call = py:spawn_call(Context, ?HELPERS, call_in_threads, [mode_double, lists:seq(1, 20)]),
    Functions = [receive {asked, Function} -> Function after 10000 -> error({asked, N}) end || N <- lists:seq(1, 20)],
    [Function ! go || Function <- Functions],
    ?assertEqual({ok, [2 * N || N <- lists:seq(1, 20)]}, py:await(Call, 20000)),
    ok = py_context:stop(Context).

%% Workers share an interpreter, so that a process finds its names in each.
names_are_of_process_and_interpreter(Config) ->
    {One, Other} = {start(Config), start(Config)},
    ok = py:exec(One, <<"mine = 1">>),
    ?assertEqual({ok, 1}, py:eval(One, <<"mine">>)),
    ?assertMatch({error, {'NameError', _}}, in_process(fun() -> py:eval(One, <<"mine">>) end)),
    case mode(Config) of
        worker -> ?assertEqual({ok, 1}, py:eval(Other, <<"mine">>));
        _ -> ?assertMatch({error, {'NameError', _}}, py:eval(Other, <<"mine">>))
    end,
    ok = py:exec(Other, <<"mine = 2">>),
    ?assertEqual({ok, case mode(Config) of worker -> 2; _ -> 1 end}, py:eval(One, <<"mine">>)),
    %% They go with the process, here too.
    Test = self(),
    in_process(fun() -> ok = py:exec(One, [<<"import mode_helpers\n">>]),
                        {ok, none} = py:eval(One, <<"globals().update(thing=mode_helpers.departing(pid, 'names'))">>, #{pid => Test})
               end),
    ok = expect_gone(One, <<"names">>),
    [ok = py_context:stop(Context) || Context <- [One, Other]].

%% The names go by the context's thread, which is asked to look.
expect_gone(Context, Name) ->
    {ok, _} = py:eval(Context, <<"1">>),
    causeway_ct:expect({<<"gone">>, Name}).

%% What the numpy of requirements-test.txt does. In others than workers it answers with Python's refusal, or on 3.11,
%% where Python asks no extension, its own, and nothing else breaks.
numpy_works_in_workers(Config) ->
    Refusal = case {mode(Config), python()} of
                  {worker, _} -> none;
                  {subinterp, [3, 11]} -> <<"cannot load module more than once per process">>;
                  {_, _} -> <<"does not support loading in subinterpreters">>
              end,
    in_a_context_only_where_allowed(Config, multiply, {ok, [[2.0, 3.0], [6.0, 11.0]]}, Refusal).

%% bitarray has one module in C, that knows of one interpreter only and does not say so: Python 3.11 lets it in.
package_that_refuses(Config) ->
    Refusal = case {mode(Config), python()} of
                  {worker, _} -> none;
                  {subinterp, [3, 11]} -> none;
                  {_, _} -> <<"does not support loading in subinterpreters">>
              end,
    in_a_context_only_where_allowed(Config, count_bits, {ok, {3, <<"1101">>}}, Refusal).

%% A function in a worker and in two contexts of the mode, one after the other.
in_a_context_only_where_allowed(Config, Function, Result, Refusal) ->
    Worker = start([{mode, worker}]),
    ?assertEqual(Result, py:call(Worker, ?HELPERS, Function, [])),
    [begin
         Context = start(Config),
         case Refusal of
             none ->
                 ?assertEqual(Result, py:call(Context, ?HELPERS, Function, []));
             _ ->
                 {error, {'ImportError', Text}} = py:call(Context, ?HELPERS, Function, []),
                 ?assertNotEqual(nomatch, binary:match(unicode:characters_to_binary(Text), Refusal))
         end,
         ?assertEqual({ok, 1}, py:eval(Context, <<"1">>)),
         ?assertEqual(Result, py:call(Worker, ?HELPERS, Function, [])),
         ok = py_context:stop(Context)
     end || _ <- [first, second]],
    ok = py_context:stop(Worker).

%% Serving

echo_by_a_socket(Config) ->
    Context = server(Config, "Echo"),
    Clients = [connect(Context) || _ <- lists:seq(1, 20)],
    [ok = gen_tcp:send(Client, <<"ping">>) || Client <- Clients],
    [?assertEqual({ok, <<"ping">>}, gen_tcp:recv(Client, 4, 10000)) || Client <- Clients],
    Large = binary:copy(<<"0123456789abcdef">>, 1 bsl 14),
    ok = gen_tcp:send(hd(Clients), Large),
    ?assertEqual({ok, Large}, gen_tcp:recv(hd(Clients), byte_size(Large), 20000)),
    ?assertEqual({ok, 1}, py:eval(Context, <<"1">>)),
    ?assertMatch(#{active_connections := 20, total_requests := N} when N >= 20, py_reactor_context:stats(Context)),
    ok = py_reactor_context:stop(Context),
    [?assertEqual({error, closed}, gen_tcp:recv(Client, 0, 10000)) || Client <- Clients].

signals_of_threads(Config) ->
    Context = server(Config, "Deferred"),
    Client = connect(Context),
    [begin
         ok = gen_tcp:send(Client, <<"ping">>),
         ?assertEqual({ok, <<"later ping">>}, gen_tcp:recv(Client, 10, 10000))
     end || _ <- lists:seq(1, 50)],
    ok = py_reactor_context:stop(Context).

%% Python knows the connections of its interpreter only, whatever their numbers are: what is another one's must not be
%% touched. Workers share one.
connections_of_others(Config) ->
    {One, Other} = {server(Config, "Echo"), server(Config, "Upper")},
    {Client, Fd} = sockets(),
    {ok, Duplicate} = py:dup_fd(Fd),
    ok = py_reactor_context:handoff(One, Duplicate, #{}),
    Look = fun(Context, Function) -> py:call(Context, ?HELPERS, look_for, [Function, Duplicate]) end,
    ?assertEqual({ok, <<"Echo">>}, Look(One, get_protocol)),
    case mode(Config) of
        worker -> ?assertEqual({ok, <<"Echo">>}, Look(Other, get_protocol));
        _ ->
            [?assertEqual({Function, Seen}, {Function, Look(Other, Function)})
             || {Function, Seen} <- [{get_protocol, {ok, none}}, {signal_write_ready, {ok, false}}, {close_connection, {ok, none}},
                                     {on_read_ready, {ok, <<"ValueError">>}}, {on_write_ready, {ok, <<"ValueError">>}}]]
    end,
    ok = gen_tcp:send(Client, <<"ping">>),
    ?assertEqual({ok, <<"ping">>}, gen_tcp:recv(Client, 4, 10000)),
    ?assertEqual({ok, none}, Look(One, close_connection)),
    ok = gen_tcp:close(Client),
    [ok = py_reactor_context:stop(Context) || Context <- [One, Other]].

%% What setup_code sets is that of the context, also among workers.
two_factories(Config) ->
    {One, Other} = {server(Config, "Echo"), server(Config, "Upper")},
    Said = [begin
                Client = connect(Context),
                ok = gen_tcp:send(Client, <<"ping">>),
                {ok, Answer} = gen_tcp:recv(Client, 4, 10000),
                Answer
            end || Context <- [One, Other]],
    ?assertEqual([<<"ping">>, <<"PING">>], Said),
    [ok = py_reactor_context:stop(Context) || Context <- [One, Other]].

server(Config, Factory) ->
    {ok, Context} = py_reactor_context:start_link(1, mode(Config),
                                                  #{setup_code => [setup_code(), "import mode_helpers, erlang.reactor as reactor\n"
                                                                   "reactor.set_protocol_factory(mode_helpers.", Factory, ")\n"]}),
    Context.

connect(Context) ->
    {Client, Fd} = sockets(),
    ok = py_reactor_context:handoff(Context, Fd, #{type => tcp}),
    Client.

%% OTP

failing_setup_code(Config) ->
    Threads = causeway_ct:context_threads(),
    {error, {setup_failed, #{type := 'KeyError', traceback := [_ | _]}}} =
        py_context:start_link(#{mode => mode(Config), setup_code => <<"import sys\nsys.half_way = 1\nraise KeyError('x')">>}),
    {error, {setup_failed, #{type := 'SyntaxError'}}} =
        py_context:start_link(#{mode => mode(Config), setup_code => <<"1 +">>}),
    ok = causeway_ct:settled(fun causeway_ct:context_threads/0, Threads),
    Context = start(Config),
    mode(Config) =:= worker orelse ?assertEqual({ok, false}, py:eval(Context, <<"hasattr(__import__('sys'), 'half_way')">>)),
    ok = py_context:stop(Context).

supervisor_restarts_it(Config) ->
    Options = #{mode => mode(Config), setup_code => setup_code()},
    {ok, Supervisor} = supervisor:start_link(?MODULE, [#{id => context, start => {py_context, start_link, [Options]}}]),
    Restarts = [begin
                    [{_, Context, _, _}] = supervisor:which_children(Supervisor),
                    Call = py:spawn_call(Context, ?HELPERS, loop, [self()]),
                    ok = causeway_ct:expect(<<"running">>),
                    exit(Context, kill),
                    ?assertMatch({error, {context_stopped, _}}, py:await(Call, 10000)),
                    ok = causeway_ct:wait_until(fun() ->
                                                        [{_, New, _, _}] = supervisor:which_children(Supervisor),
                                                        is_pid(New) andalso New =/= Context
                                                end),
                    [{_, New, _, _}] = supervisor:which_children(Supervisor),
                    ?assertEqual({ok, 1}, py:call(New, ?HELPERS, identity, [1])),
                    New
                end || _ <- lists:seq(1, 4)],
    ?assertEqual(4, length(lists:usort(Restarts))),
    Monitor = monitor(process, Supervisor),
    exit(Supervisor, shutdown),
    receive {'DOWN', Monitor, process, Supervisor, shutdown} -> ok end,
    ?assertNot(is_process_alive(lists:last(Restarts))).

init(Children) ->
    {ok, {#{strategy => one_for_one, intensity => 10, period => 10}, Children}}.

%% Python code can make interpreters, too: they are none of ours, and may call Erlang all the same.
interpreter_in_interpreter_calls_erlang(Config) ->
    Context = start(Config),
    ok = py:register_function(mode_double, fun([N]) -> 2 * N end),
    case py:call(Context, ?HELPERS, interpreter_in_interpreter, [], 20000) of
        {ok, _} -> ok;
        {error, {Type, _}} -> ?assert(lists:member(Type, ['RunFailedError', 'ImportError', 'RuntimeError', 'ModuleNotFoundError']))
    end,
    ?assertEqual({ok, 1}, py:eval(Context, <<"1">>)),
    ok = py_context:stop(Context).

%% Many

twenty_contexts_at_once(Config) ->
    Test = self(),
    Starters = [spawn_link(fun() ->
                                   Context = start(Config),
                                   unlink(Context),
                                   Test ! {self(), Context}
                           end) || _ <- lists:seq(1, 20)],
    Contexts = [receive {Starter, Context} -> Context end || Starter <- Starters],
    Calls = [py:spawn_call(Context, ?HELPERS, use_standard_library, []) || Context <- Contexts],
    [?assertEqual({ok, {[3, 7], [1, 2], [<<"said 1">>], <<"cbt">>}}, py:await(Call)) || Call <- Calls],
    Interpreters = lists:usort([element(2, {ok, _} = py:call(Context, ?HELPERS, interpreter, [])) || Context <- Contexts]),
    ?assertEqual(case mode(Config) of worker -> 1; _ -> 20 end, length(Interpreters)),
    [exit(Context, kill) || Context <- Contexts],
    ok = only_the_pool_has_threads().

contexts_leave_nothing(Config) -> contexts_leave_nothing(Config, 20).

%% Each of them has a megabyte. The soak suite has more of them.
contexts_leave_nothing(Config, Number) ->
    %% Until memory is as large as it gets: threads are given one of malloc's arenas each, and have to touch all of them.
    start_and_stop(Config, 2 * Number),
    ok = only_the_pool_has_threads(),
    {Threads, Descriptors, Memory} = {causeway_ct:threads(), causeway_ct:descriptors(), causeway_ct:rss()},
    start_and_stop(Config, Number),
    ok = causeway_ct:settled(fun causeway_ct:threads/0, Threads),
    ok = causeway_ct:settled(fun causeway_ct:descriptors/0, Descriptors),
    ok = causeway_ct:settled(fun causeway_ct:rss/0, Memory + (8 bsl 20)).

start_and_stop(Config, Number) ->
    [begin
         Context = start(Config),
         ok = py:exec(Context, <<"import mode_helpers, h11\nblock = bytes(1 << 20)">>),
         {ok, 1} = py:call(Context, ?HELPERS, identity, [1]),
         ok = py_context:stop(Context)
     end || _ <- lists:seq(1, Number)].
