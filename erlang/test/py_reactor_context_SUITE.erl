%% @doc Contexts that serve connections: their factories, applications, counters, and what they say of themselves.
-module(py_reactor_context_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [setup_code_has_a_factory_of_its_own, factory_option, factory_of_all_is_used_without, factory_set_later_is_of_all,
     wrong_factories, factory_is_asked_for_at_handoff, application_of_a_context, half_an_application,
     wrong_application, diagnosis_of_an_idle_context, diagnosis_of_a_call, diagnosis_of_a_callback, diagnosis_of_a_factory,
     diagnosis_while_native_code_keeps_the_lock, diagnosis_of_no_context, late_diagnosis_leaves_no_message,
     diagnosis_whose_process_dies, slow_handler_of_logger_holds_nobody_up, reports_that_nobody_takes_are_bounded,
     counters, times_and_errors_are_counted, status_reads_well].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_testcase(_Case, Config) ->
    process_flag(trap_exit, true),
    ok = py:exec("from erlang import reactor; reactor.set_protocol_factory(None)"),
    Config.

end_per_testcase(_Case, _Config) -> ok.

%% Factories

setup_code_has_a_factory_of_its_own(_Config) ->
    One = start(#{setup_code => greeter("one")}),
    Other = start(#{setup_code => greeter("other")}),
    ?assertEqual(<<"one">>, greeting(One)),
    ?assertEqual(<<"other">>, greeting(Other)),
    %% None of them became that of others.
    ?assertEqual({error, no_protocol_factory}, refused(start(#{}))).

factory_option(_Config) ->
    Context = start(#{factory => {reactor_protocols, 'Echo'}}),
    {Client, Fd} = connection(),
    ok = py_reactor_context:handoff(Context, Fd, #{}),
    ok = gen_tcp:send(Client, "echo"),
    ?assertEqual({ok, <<"echo">>}, gen_tcp:recv(Client, 4, 5000)).

factory_of_all_is_used_without(_Config) ->
    Own = start(#{setup_code => greeter("own")}),
    Without = start(#{}),
    ok = py:exec(greeter("all")),
    ?assertEqual(<<"all">>, greeting(Without)),
    ?assertEqual(<<"own">>, greeting(Own)).

factory_set_later_is_of_all(_Config) ->
    One = start(#{}),
    Other = start(#{}),
    ok = py:exec(One, greeter("later")),
    ?assertEqual([<<"later">>, <<"later">>], [greeting(One), greeting(Other)]).

wrong_factories(_Config) ->
    ?assertMatch({error, {setup_failed, #{type := 'ModuleNotFoundError', traceback := [_ | _]}}},
                 py_reactor_context:start_link(1, worker, #{factory => {no_such_module, 'Echo'}})),
    ?assertMatch({error, {setup_failed, #{type := 'AttributeError'}}},
                 py_reactor_context:start_link(1, worker, #{factory => {reactor_protocols, "Nothing'; 1"}})),
    ?assertMatch({error, {setup_failed, #{type := 'TypeError'}}},
                 py_reactor_context:start_link(1, worker, #{factory => {math, pi}})),
    [?assertEqual({error, {bad_option, factory, Wrong}}, py_reactor_context:start_link(1, worker, #{factory => Wrong}))
     || Wrong <- [echo, {echo}, {1, 2}, {[-1], echo}]].

factory_is_asked_for_at_handoff(_Config) ->
    Context = start(#{}),
    ?assertEqual({error, no_protocol_factory}, refused(Context)),
    ok = py:exec(greeter("now")),
    ?assertEqual(<<"now">>, greeting(Context)).

%% Applications

application_of_a_context(_Config) ->
    Context = start(#{app_module => json, app_callable => <<"dumps">>,
                      setup_code => "import __main__\nassert __main__._reactor_app is _reactor_app\n"
                                    "made = _reactor_app([1])\n" ++ greeter_of("made")}),
    ?assertEqual(<<"[1]">>, greeting(Context)),
    ?assertEqual({ok, <<"{}">>}, py:eval(Context, "__import__('__main__')._reactor_app({})")).

half_an_application(_Config) ->
    ?assertEqual({error, {missing_option, app_callable}}, py_reactor_context:start_link(1, worker, #{app_module => json})),
    ?assertEqual({error, {missing_option, app_module}}, py_reactor_context:start_link(1, worker, #{app_callable => json})).

wrong_application(_Config) ->
    ?assertMatch({error, {setup_failed, #{type := 'AttributeError'}}},
                 py_reactor_context:start_link(1, worker, #{app_module => json, app_callable => nothing})).

%% Diagnosis

diagnosis_of_an_idle_context(_Config) ->
    ?assertMatch({ok, #{activity := idle, running_ms := 0, call := undefined, stack := [], queued := 0}},
                 py_reactor_context:diagnose(start(#{}))).

diagnosis_of_a_call(_Config) ->
    Context = start(#{}),
    ok = py:exec("def outer(pid):\n    inner(pid)\n\ndef inner(pid):\n    import erlang, time\n"
                 "    erlang.send(pid, 'runs')\n    time.sleep(100)\n"),
    Call = py:spawn_call(Context, '__main__', outer, [self()]),
    ok = causeway_ct:expect(<<"runs">>),
    {ok, Diagnosis} = py_reactor_context:diagnose(Context),
    ?assertMatch(#{activity := call, call := {'__main__', outer}, running_ms := Ms} when Ms >= 0, Diagnosis),
    ?assertMatch([#{function := <<"outer">>, line := 2}, #{function := <<"inner">>, line := 7}], maps:get(stack, Diagnosis)),
    ok = py:interrupt(Context),
    ?assertMatch({error, {'CallInterrupted', _}}, py:await(Call)).

diagnosis_of_a_callback(_Config) ->
    Context = start(#{setup_code => "
from erlang import reactor
import erlang, time
class Slow(reactor.Protocol):
    def data_received(self, data):
        erlang.send(self.client_info['test'], 'runs')
        time.sleep(100)
reactor.set_protocol_factory(Slow)
"}),
    {Client, Fd} = connection(),
    ok = py_reactor_context:handoff(Context, Fd, #{test => self()}),
    ok = gen_tcp:send(Client, "x"),
    ok = causeway_ct:expect(<<"runs">>),
    {ok, Diagnosis} = py_reactor_context:diagnose(Context),
    ?assertMatch(#{activity := callback, call := undefined, active_connections := 1,
                   stack := [#{function := <<"data_received">>}]}, Diagnosis),
    ok = py_reactor_context:stop(Context, 0).

%% Before there is any connection, and on top of a call that has waited for longer.
diagnosis_of_a_factory(_Config) ->
    ok = py:register_function(wait, fun([Test]) -> Test ! {waits, self()}, receive go -> ok end end),
    [begin
         Context = start(#{}),
         Call = IsOnTop andalso py:spawn_call(Context, callback_helpers, call, [wait, self()]),
         Waiting = IsOnTop andalso receive {waits, Process} -> Process end,
         {ok, none} = py:call(reactor_protocols, use, ['MadeNever', self()]),
         {_Client, Fd} = connection(),
         %% Here time itself is what is looked at.
         receive after 300 -> ok end,
         Before = erlang:monotonic_time(millisecond),
         ok = py_reactor_context:handoff(Context, Fd, #{}),
         ok = causeway_ct:expect({<<"making">>, Context}),
         {ok, Diagnosis} = py_reactor_context:diagnose(Context),
         Elapsed = erlang:monotonic_time(millisecond) - Before,
         ?assertMatch(#{activity := callback}, Diagnosis),
         %% The call is still in hand.
         ?assertEqual(case IsOnTop of true -> {callback_helpers, call}; false -> undefined end, maps:get(call, Diagnosis)),
         ?assertMatch({<<"__init__">>, Ms} when Ms =< Elapsed + 1,
                      {maps:get(function, lists:last(maps:get(stack, Diagnosis))), maps:get(running_ms, Diagnosis)}),
         ok = py_context:stop(Context),
         IsOnTop andalso ?assertMatch({error, {context_stopped, _}}, py:await(Call)),
         IsOnTop andalso (Waiting ! go)
     end || IsOnTop <- [false, true]],
    ok = py:unregister_function(wait).

diagnosis_while_native_code_keeps_the_lock(_Config) ->
    Context = start(#{}),
    Test = self(),
    %% Between the message and the end the lock is kept.
    {_, Monitor} = spawn_monitor(fun() -> py:call(Context, causeway_helpers, hold_gil, [Test, 1500000]) end),
    ok = causeway_ct:expect(<<"running">>),
    {Milliseconds, {ok, Diagnosis}} = causeway_ct:milliseconds(fun() -> py_reactor_context:diagnose(Context) end),
    ?assertMatch(#{activity := call, stack := unavailable, call := unavailable}, Diagnosis),
    ?assert(Milliseconds < 1000),
    receive {'DOWN', Monitor, process, _, _} -> ok end.

diagnosis_of_no_context(_Config) ->
    ?assertMatch({error, {no_context, _}}, py_reactor_context:diagnose(self())),
    ?assertMatch({error, {no_context, _}}, py_reactor_context:diagnose(no_such_context)),
    ?assertMatch({ok, #{}}, py_reactor_context:diagnose(py_reactor_default)).

late_diagnosis_leaves_no_message(_Config) ->
    Context = start(#{}),
    Test = self(),
    {_, Monitor} = spawn_monitor(fun() -> py:call(Context, causeway_helpers, hold_gil, [Test, 1500000]) end),
    ok = causeway_ct:expect(<<"running">>),
    {ok, #{stack := unavailable}} = py_reactor_context:diagnose(Context),
    receive {'DOWN', Monitor, process, _, _} -> ok end,
    {ok, 1} = py:eval(Context, "1"),
    {ok, #{stack := []}} = py_reactor_context:diagnose(Context),
    ?assertEqual([], causeway_ct:mailbox()).

diagnosis_whose_process_dies(_Config) ->
    Context = start(#{}),
    Test = self(),
    {_, Holder} = spawn_monitor(fun() -> py:call(Context, causeway_helpers, hold_gil, [Test, 1500000]) end),
    ok = causeway_ct:expect(<<"running">>),
    Asking = spawn_link(fun() -> Test ! {self(), py_reactor_context:diagnose(Context)} end),
    ok = causeway_ct:wait_until(fun() -> {monitors, []} =/= process_info(Asking, monitors) end),
    {monitors, [{process, Helper}]} = process_info(Asking, monitors),
    exit(Helper, kill),
    receive {Asking, Result} -> ?assertMatch({error, {diagnosis_failed, <<_, _/binary>>}}, Result) after 5000 -> error(hangs) end,
    receive {'DOWN', Holder, process, _, _} -> ok end.

%% Logging

%% What a callback raises is told to a handler that takes its time: the context goes on meanwhile.
slow_handler_of_logger_holds_nobody_up(_Config) ->
    ok = logger:add_handler(?MODULE, ?MODULE, #{config => #{test => self(), slow => true}}),
    {ok, none} = py:call(reactor_protocols, use, ['Told', self()]),
    Context = start(#{}),
    [Bad, Worse, Good] = [client(Context) || _ <- [1, 2, 3]],
    ok = gen_tcp:send(Bad, "raise"),
    Handling = receive {handling, Process, Pid} -> ?assertEqual(Context, Pid), Process after 10000 -> error(not_logged) end,
    [begin
         #{parks := Parks} = py_reactor_context:stats(Context),
         ok = gen_tcp:send(Good, "go on"),
         ?assertEqual({ok, <<"did go on">>}, gen_tcp:recv(Good, 9, 10000)),
         ok = causeway_ct:wait_until(fun() -> maps:get(parks, py_reactor_context:stats(Context)) > Parks end)
     end || _ <- [1, 2, 3]],
    ok = gen_tcp:send(Worse, "raise"),
    ?assertEqual({error, closed}, gen_tcp:recv(Worse, 0, 10000)),
    ok = py_reactor_context:stop(Context),
    ?assertEqual({error, closed}, gen_tcp:recv(Good, 0, 10000)),
    ok = logger:set_handler_config(?MODULE, config, #{test => self(), slow => false}),
    Handling ! go,
    %% The second is not lost.
    receive {handling, _, Context} -> ok after 10000 -> error(not_logged) end,
    ok = logger:remove_handler(?MODULE).

%% More than are kept are counted.
reports_that_nobody_takes_are_bounded(_Config) ->
    ok = logger:add_handler(?MODULE, ?MODULE, #{config => #{test => self(), slow => true}}),
    %% They are not to be shown.
    Shown = logger:get_handler_config(default),
    _ = logger:set_handler_config(default, level, none),
    Report = #{callback => <<"data_received">>, error => #{type => 'KeyError', message => <<>>, traceback => [], cause => none}},
    ok = py_log:report(error, Report, #{}),
    Handling = receive {handling, Process, _} -> Process after 10000 -> error(not_logged) end,
    ok = logger:set_handler_config(?MODULE, config, #{test => self(), slow => false}),
    [ok = py_log:report(error, Report, #{}) || _ <- lists:seq(1, 5000)],
    {message_queue_len, Waiting} = process_info(Handling, message_queue_len),
    ?assert(Waiting =< 1100),
    Handling ! go,
    Lost = receive {lost, Text} -> Text after 10000 -> error(not_told) end,
    [receive {handling, _, _} -> ok after 10000 -> error(not_logged) end || _ <- lists:seq(1, 999)],
    ok = logger:remove_handler(?MODULE),
    _ = [ok = logger:set_handler_config(default, level, Level) || {ok, #{level := Level}} <- [Shown]],
    ?assertNotEqual(nomatch, string:find(Lost, "4001")).

%% As a handler of logger: tells who runs it, and perhaps waits there for a word.
log(#{msg := {report, #{callback := _}}, meta := #{pid := Pid}}, #{config := #{test := Test, slow := IsSlow}}) ->
    Test ! {handling, self(), Pid},
    IsSlow andalso receive go -> ok end;
log(#{msg := {Format, Arguments}}, #{config := #{test := Test}}) when is_list(Arguments) ->
    Test ! {lost, unicode:characters_to_list(io_lib:format(Format, Arguments))};
log(_Event, _Config) ->
    ok.

%% Counters

counters(_Config) ->
    Context = start(#{factory => {reactor_protocols, 'Echo'}}),
    {Client, Fd} = connection(),
    ok = py_reactor_context:handoff(Context, Fd, #{}),
    Sizes = [1, 10, 100],
    [begin
         ok = gen_tcp:send(Client, binary:copy(<<"x">>, Size)),
         {ok, _} = gen_tcp:recv(Client, Size, 5000)
     end || Size <- Sizes],
    ok = gen_tcp:close(Client),
    causeway_ct:wait_until(fun() -> maps:get(active_connections, py_reactor_context:stats(Context)) =:= 0 end),
    Stats = py_reactor_context:stats(Context),
    ?assertMatch(#{id := 1, active_connections := 0, total_connections := 1, total_requests := 3,
                   max_connections := 10000, listeners := 0, bytes_in := 111, bytes_out := 111, errors := 0,
                   read_waits := Waits, batches := Batches, callback_us := Callbacks, gil_wait_us := Wait,
                   gil_hold_us := Hold}
                     when Waits > 0 andalso Batches > 0 andalso Callbacks >= 0 andalso Wait >= 0 andalso Hold >= Callbacks, Stats).

%% What they say is so.
times_and_errors_are_counted(_Config) ->
    Context = start(#{setup_code => "
from erlang import reactor
import time
class Slow(reactor.Protocol):
    def data_received(self, data):
        time.sleep(0.2)
        return self.answers[bytes(data)]
    answers = {b'good': 'continue'}
reactor.set_protocol_factory(Slow)
"}),
    #{callback_us := 0, gil_hold_us := Before} = py_reactor_context:stats(Context),
    Client = client(Context),
    ok = gen_tcp:send(Client, "good"),
    ok = causeway_ct:wait_until(fun() -> maps:get(callback_us, py_reactor_context:stats(Context)) >= 200000 end),
    %% The turn is over a moment later.
    ok = causeway_ct:wait_until(fun() -> #{gil_hold_us := Held, callback_us := Called} = py_reactor_context:stats(Context), Held - Before >= Called end),
    ?assertMatch(#{total_requests := 1, errors := 0, active_connections := 1}, py_reactor_context:stats(Context)),
    ok = gen_tcp:send(Client, "bad"),
    ?assertEqual({error, closed}, gen_tcp:recv(Client, 0, 5000)),
    ok = causeway_ct:wait_until(fun() -> maps:get(callback_us, py_reactor_context:stats(Context)) >= 400000 end),
    ?assertMatch(#{total_requests := 2, errors := 1, active_connections := 0}, py_reactor_context:stats(Context)).

status_reads_well(_Config) ->
    {status, _, _, [_, running, _, _, Misc]} = sys:get_status(start(#{})),
    Text = lists:flatten(io_lib:format("~p", [Misc])),
    [?assertNotEqual({Word, nomatch}, {Word, string:find(Text, Word)}) || Word <- ["Options", "Statistics", "gil_hold_us"]].

%% Helpers

client(Context) ->
    {Client, Fd} = connection(),
    ok = py_reactor_context:handoff(Context, Fd, #{}),
    Client.

start(Options) ->
    {ok, Context} = py_reactor_context:start_link(1, worker, Options),
    Context.

%% Python that makes a protocol the factory which greets with a text.
greeter(Text) -> greeter_of("'" ++ Text ++ "'").

greeter_of(Expression) ->
    "from erlang import reactor\n"
    "class Greeter(reactor.Protocol):\n"
    "    text = (" ++ Expression ++ ").encode()\n"
    "    def connection_made(self, fd, client_info):\n"
    "        super().connection_made(fd, client_info)\n"
    "        self.write_buffer += self.text\n"
    "reactor.set_protocol_factory(Greeter)\n".

greeting(Context) ->
    {Client, Fd} = connection(),
    ok = py_reactor_context:handoff(Context, Fd, #{}),
    {ok, Text} = gen_tcp:recv(Client, 0, 5000),
    ok = gen_tcp:close(Client),
    Text.

refused(Context) ->
    {_Client, Fd} = connection(),
    py_reactor_context:handoff(Context, Fd, #{}).

%% A client, and the descriptor of the server's end.
connection() ->
    {ok, Listener} = gen_tcp:listen(0, [binary, {active, false}, {ip, {127, 0, 0, 1}}]),
    {ok, Port} = inet:port(Listener),
    {ok, Client} = gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, false}]),
    {ok, Server} = gen_tcp:accept(Listener),
    ok = gen_tcp:close(Listener),
    {ok, Fd} = inet:getfd(Server),
    {Client, Fd}.
