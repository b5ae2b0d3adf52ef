%% @doc What takes long: memory and descriptors over millions of calls, many connections and contexts.
-module(causeway_soak_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-define(HELPERS, causeway_helpers).

suite() -> [{timetrap, {minutes, 60}}].

all() ->
    [twenty_million_calls, conversions_of_every_kind, errors_of_every_kind, different_code_each_time, object_references,
     short_lived_processes, timed_out_calls, killed_callers, ten_thousand_contexts, hundred_thousand_connections,
     hundred_thousand_accepted_connections, gigabytes_through_a_connection, a_thousand_starts_and_stops, python_that_never_answers,
     default_time_outs, gigabytes_to_the_http_server].

init_per_suite(Config) ->
    true = code:add_patha(filename:dirname(code:which(?MODULE)) ++ "/.."),
    ok = causeway_ct:start(),
    Config.

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_testcase(_Case, Config) -> causeway_ct:start(Config).

end_per_testcase(_Case, _Config) -> ok.

%% Runs a round a few times until everything is as large as it gets, then many times, and compares.
stays_flat(Round, WarmUp, Rounds, Allowed) ->
    [Round() || _ <- lists:seq(1, WarmUp)],
    ok = calm(),
    Before = causeway_ct:rss(),
    Descriptors = causeway_ct:descriptors(),
    [Round() || _ <- lists:seq(1, Rounds)],
    ok = calm(),
    ct:log("~p MB before, ~p MB after ~p rounds", [Before bsr 20, causeway_ct:rss() bsr 20, Rounds]),
    ok = causeway_ct:settled(fun causeway_ct:rss/0, Before + Allowed),
    ok = causeway_ct:settled(fun causeway_ct:descriptors/0, Descriptors).

calm() ->
    [erlang:garbage_collect(Process) || Process <- processes()],
    {ok, _} = py:call(gc, collect, []),
    ok.

megabytes(Number) -> Number bsl 20.

twenty_million_calls(_Config) ->
    Round = fun() -> in_parallel(8, fun() -> repeat(125000, fun() -> {ok, 4.0} = py:call(math, sqrt, [16]) end) end) end,
    stays_flat(Round, 1, 20, megabytes(24)).

conversions_of_every_kind(_Config) ->
    Terms = [lists:seq(1, 1000), list_to_tuple(lists:seq(1, 1000)), maps:from_list([{N, <<"v">>} || N <- lists:seq(1, 30)]),
             binary:copy(<<"x">>, 100000), binary:copy(<<255>>, 100000), 1 bsl 4096, self(), make_ref(), fun erlang:abs/1, 1.5, nan,
             [[[[]]]], {bytes, <<"b">>}],
    Round = fun() -> repeat(2000, fun() -> {ok, _} = py:call(?HELPERS, identity, [Terms]) end) end,
    stays_flat(Round, 2, 10, megabytes(24)).

errors_of_every_kind(_Config) ->
    Round = fun() ->
                    repeat(2000, fun() ->
                                         {error, {_, _}} = py:call(?HELPERS, complain, []),
                                         {error, #{}} = py:call(?HELPERS, complain_with_cause, [], #{}, #{error => map}),
                                         {error, {_, _}} = py:call(?HELPERS, identity, [[1 | 2]]),
                                         {error, {_, _}} = py:call(?HELPERS, self_list, []),
                                         {error, {_, _}} = py:call(no_such_module, f, []),
                                         {error, {_, _}} = py:exec(<<"def">>)
                                 end)
            end,
    stays_flat(Round, 2, 10, megabytes(24)).

%% Every piece of code is another one: what is kept of compiled code must not grow for ever.
different_code_each_time(_Config) ->
    Counter = counters:new(1, []),
    Round = fun() ->
                    repeat(10000, fun() ->
                                          counters:add(Counter, 1, 1),
                                          N = counters:get(Counter, 1),
                                          {ok, N} = py:eval(["0 + ", integer_to_list(N)]),
                                          {ok, 1} = py:eval(["1 # ", lists:duplicate(2000, $x), integer_to_list(N)])
                                  end)
            end,
    stays_flat(Round, 3, 10, megabytes(24)).

object_references(_Config) ->
    Round = fun() -> in_parallel(4, fun() -> repeat(25000, fun() -> {ok, _} = py:eval(<<"object()">>) end) end) end,
    stays_flat(Round, 2, 20, megabytes(24)).

short_lived_processes(_Config) ->
    Round = fun() -> repeat(5000, fun() -> in_parallel(1, fun() -> ok = py:exec(<<"x = [0] * 1000\ndef f(): return x">>) end) end) end,
    stays_flat(Round, 2, 20, megabytes(32)).

timed_out_calls(_Config) ->
    Round = fun() -> in_parallel(8, fun() -> repeat(500, fun() -> _ = py:eval(<<"sum(range(20000))">>, #{}, rand:uniform(3) - 1) end) end) end,
    stays_flat(Round, 2, 20, megabytes(24)),
    ?assertEqual([], causeway_ct:mailbox()).

killed_callers(_Config) ->
    Test = self(),
    Round = fun() ->
                    repeat(1000, fun() ->
                                         Caller = spawn(fun() -> py:call(?HELPERS, loop, [Test]) end),
                                         ok = causeway_ct:expect(<<"running">>),
                                         exit(Caller, kill)
                                 end)
            end,
    stays_flat(Round, 1, 10, megabytes(24)),
    ?assertEqual({ok, 4.0}, py:call(math, sqrt, [16])).

ten_thousand_contexts(_Config) ->
    Threads = causeway_ct:threads(),
    Round = fun() ->
                    repeat(1000, fun() ->
                                         {ok, Context} = py_context:start_link(#{}),
                                         {ok, 1} = py:eval(Context, <<"1">>),
                                         ok = py_context:stop(Context)
                                 end)
            end,
    stays_flat(Round, 1, 10, megabytes(16)),
    ok = causeway_ct:settled(fun causeway_ct:threads/0, Threads).

%% As the documentation of erlang_python does it: each is accepted here, and handed over by its number.
hundred_thousand_connections(_Config) ->
    {ok, Context} = py_reactor_context:start_link(1, worker, #{factory => {fault_protocols, 'Counted'}}),
    Listen = reactor_ct:listen(),
    churn(Context, fun() ->
        {Client, Server} = reactor_ct:tcp_pair(Listen),
        ok = py_reactor_context:handoff(Context, reactor_ct:fd(Server), #{}),
        Client
    end),
    ok = gen_tcp:close(Listen),
    ok = py_reactor_context:stop(Context).

%% The context accepts by itself.
hundred_thousand_accepted_connections(_Config) ->
    {ok, Context} = py_reactor_context:start_link(1, worker, #{factory => {fault_protocols, 'Counted'}}),
    Listen = socket_ct:listen(port, inet),
    Address = socket_ct:address(Listen),
    ok = py_reactor_context:handoff(Context, Listen, #{}),
    churn(Context, fun() -> socket_ct:client(Address) end),
    ok = py_reactor_context:stop(Context).

%% Connect, echo, close, a hundred thousand times; nothing is left.
churn(Context, Connect) ->
    Round = fun() ->
                    repeat(10000, fun() ->
                                          Client = Connect(),
                                          ok = gen_tcp:send(Client, <<"Ex">>),
                                          {ok, <<"x">>} = gen_tcp:recv(Client, 1, 20000),
                                          ok = gen_tcp:close(Client)
                                  end),
                    ok = causeway_ct:wait_until(fun() -> 0 =:= socket_ct:active(Context) end)
            end,
    Threads = causeway_ct:threads(),
    {ok, {Made, Lost, 0, 0, 0}} = py:call(fault_protocols, counted, []),
    stays_flat(Round, 1, 10, megabytes(16)),
    ok = causeway_ct:settled(fun causeway_ct:threads/0, Threads),
    ?assertEqual(110000, socket_ct:stats(Context, total_connections)),
    ?assertEqual({ok, {Made + 110000, Lost + 110000, 0, 0, 0}}, py:call(fault_protocols, counted, [])).

gigabytes_through_a_connection(_Config) ->
    {ok, none} = py:call(reactor_protocols, use, ['Echo', self()]),
    {Client, Server} = reactor_ct:tcp_pair(),
    ok = py_reactor_context:handoff(reactor_ct:fd(Server), #{}),
    Block = binary:copy(<<"0123456789abcdef">>, 65536),
    Round = fun() -> repeat(100, fun() -> echo(Client, Block) end) end,
    stays_flat(Round, 1, 20, megabytes(24)),
    ok = gen_tcp:close(Client).

echo(Client, Block) ->
    Sender = spawn_monitor(fun() -> ok = gen_tcp:send(Client, Block) end),
    {ok, Block} = gen_tcp:recv(Client, byte_size(Block), 20000),
    receive {'DOWN', _, process, Pid, normal} when {Pid, []} =/= Sender -> ok end.

a_thousand_starts_and_stops(_Config) ->
    Threads = causeway_ct:threads(),
    Round = fun() ->
                    repeat(100, fun() ->
                                        ok = application:stop(causeway),
                                        ok = application:start(causeway),
                                        {ok, 4.0} = py:call(math, sqrt, [16])
                                end)
            end,
    stays_flat(Round, 1, 10, megabytes(16)),
    ok = causeway_ct:settled(fun causeway_ct:threads/0, Threads).

%% An executable that hangs when it is asked what it is: the start ends with an error all the same.
python_that_never_answers(Config) ->
    Hanging = causeway_ct:script(proplists:get_value(priv_dir, Config), "hanging", "exec sleep 1000\n"),
    {Milliseconds, {Status, Output}} =
        causeway_ct:milliseconds(fun() ->
                                         causeway_ct:run_node("{error, R} = application:ensure_all_started(causeway), io:format(\"~p~n\", [R]), erlang:halt(0).",
                                                              [{"CAUSEWAY_PYTHON", Hanging}])
                                 end),
    ?assertEqual({0, Output}, {Status, Output}),
    ?assert(Milliseconds < 29000).

%% 30 seconds without a context, and no limit where one comes first. Both sleep for longer at once.
default_time_outs(_Config) ->
    Test = self(),
    {ok, Own} = py_context:start_link(#{}),
    Calls = [{timeout, fun() -> py:call(time, sleep, [31]) end},
             {timeout, fun() -> py:call(time, sleep, [31], #{}) end},
             {timeout, fun() -> py:eval(<<"__import__('time').sleep(31)">>) end},
             {none, fun() -> py:call(Own, time, sleep, [31]) end}],
    {ok, _} = py:start_contexts(length(Calls)),
    Callers = [{spawn_link(fun() -> Test ! {self(), timer:tc(Call)} end), Expected} || {Expected, Call} <- Calls],
    [receive
         {Caller, {Microseconds, Result}} when Expected =:= timeout ->
             ?assertEqual({error, timeout}, Result),
             ?assert(Microseconds >= 30000000 andalso Microseconds < 31000000);
         {Caller, {Microseconds, Result}} ->
             ?assertEqual({ok, none}, Result),
             ?assert(Microseconds >= 31000000)
     end || {Caller, Expected} <- Callers],
    ok = py_context:stop(Own).

%% In the node that make run starts: nothing of a body stays.
gigabytes_to_the_http_server(_Config) ->
    Server = make_run_SUITE:start(),
    try gigabytes_to(Server) after make_run_SUITE:kill(Server) end.

gigabytes_to(Server) ->
    Megabyte = <<0:(8 * 1048576)>>,
    Digest = make_run_SUITE:digest(64),
    Digest = make_run_SUITE:ask_digest(Server, lists:duplicate(64, Megabyte)),
    Before = make_run_SUITE:rss(Server),
    Gigabyte = make_run_SUITE:digest(1024),
    [begin
         ?assertEqual(Gigabyte, make_run_SUITE:ask_digest(Server, lists:duplicate(1024, Megabyte))),
         After = make_run_SUITE:rss(Server),
         ct:log("~p MB before, ~p MB after a body of 1 GB", [Before bsr 20, After bsr 20]),
         ?assert(After < Before + megabytes(16))
     end || _ <- [1, 2]],
    make_run_SUITE:ends(Server, "INT").

%% Helpers

repeat(0, _Fun) -> ok;
repeat(Number, Fun) -> Fun(), repeat(Number - 1, Fun).

in_parallel(Number, Fun) ->
    Workers = [spawn_monitor(Fun) || _ <- lists:seq(1, Number)],
    [receive {'DOWN', Monitor, process, Worker, Reason} -> ?assertEqual(normal, Reason) end || {Worker, Monitor} <- Workers].
