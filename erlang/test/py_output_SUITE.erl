%% @doc What Python prints and logs: where it goes, in which order, and what becomes of it where nobody takes it.
-module(py_output_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-define(HELPERS, output_helpers).

suite() -> [{timetrap, {seconds, 120}}].

all() ->
    [{group, printing}, {group, slow_leaders}, {group, logging}].

groups() ->
    [{printing, [], [lines_before_the_answer, several_lines_at_once, unfinished_line_at_the_end_of_a_call, flush_within_a_call, erlang_captures_output,
                     any_text_arrives, large_texts_arrive_whole, streams_as_programs_expect, bad_arguments, nested_calls_keep_their_lines,
                     callers_do_not_mix, stream_prints_to_its_starter, cast_prints, every_mode_prints_and_logs, reactor_prints_to_its_context, setup_code_prints_to_its_context,
                     threads_print_to_the_application, prints_for_a_dead_caller, dead_group_leader, group_leader_that_refuses,
                     group_leader_of_another_node, without_the_application]},
     {slow_leaders, [], [group_leader_that_waits_for_the_call, others_do_not_wait, interrupted_while_it_waits, context_stops_while_it_waits,
                         slow_leader_gets_everything, thread_waits_too, output_process_dies]},
     {logging, [], [stderr_by_lines, traceback_is_one_event, levels, metadata_of_records, level_of_the_root_logger, warnings_are_events,
                    uncaught_exceptions_are_events, bad_records, default_handler_shows_it, slow_handler_does_not_hold_calls_up,
                    handler_that_calls_python, much_is_logged]}].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_testcase(_Case, Config) -> causeway_ct:start(Config).

end_per_testcase(_Case, _Config) ->
    _ = logger:remove_handler(?MODULE),
    logger:set_primary_config(level, notice).

%% Printing

lines_before_the_answer(_Config) ->
    [?assertEqual({ok, [<<"one\n">>, <<"two\n">>]}, printed(fun() -> py:exec(<<"print('one')\nprint('two')">>) end)) || _ <- lists:seq(1, 200)],
    %% Also in a context, from eval and from call.
    Context = py:context(1),
    ?assertEqual({{ok, none}, [<<"three\n">>]}, printed(fun() -> py:call(Context, builtins, print, [three]) end)),
    ?assertEqual({{ok, none}, [<<"four\n">>]}, printed(fun() -> py:eval(<<"print('four')">>) end)),
    %% And where the call fails.
    ?assertMatch({{error, {'ZeroDivisionError', _}}, [<<"five\n">>]}, printed(fun() -> py:exec(<<"print('five')\n1 / 0">>) end)).

several_lines_at_once(_Config) ->
    ?assertEqual({ok, [<<"one\ntwo\n">>, <<"three">>]}, printed(fun() -> py:exec(<<"print('one\\ntwo\\nthree', end='')">>) end)).

unfinished_line_at_the_end_of_a_call(_Config) ->
    ?assertEqual({ok, [<<"abc">>]}, printed(fun() -> py:exec(<<"for c in 'abc': print(c, end='')">>) end)),
    ?assertEqual({ok, []}, printed(fun() -> py:exec(<<"print(end='')">>) end)).

flush_within_a_call(_Config) ->
    Caller = caller(fun() -> py:call(py:context(1), ?HELPERS, print_without_end, [self(), <<"...">>]) end),
    <<"...">> = next_text(),
    {ok, none} = py:call(py:context(2), ?HELPERS, open_gate, []),
    ?assertEqual({{ok, none}, []}, rest(Caller)).

erlang_captures_output(_Config) ->
    ok = ct:capture_start(),
    ok = py:exec(<<"print('captured')">>),
    ok = ct:capture_stop(),
    ?assertEqual("captured\n", lists:flatten(ct:capture_get())).

any_text_arrives(_Config) ->
    [?assertEqual({ok, [Printed]}, printed(fun() -> py:exec(Code) end))
     || {Code, Printed} <- [{<<"print('é€😀')"/utf8>>, <<"é€😀\n"/utf8>>}, {<<"print(chr(0) + 'x')">>, <<0, "x\n">>},
                            {<<"print('a' + chr(0xdc80) + 'é')"/utf8>>, <<"a\\udc80é\n"/utf8>>}, {<<"print()">>, <<"\n">>}]].

%% No character is cut, and no byte is lost.
large_texts_arrive_whole(_Config) ->
    [begin
         {ok, Pieces} = printed(fun() -> py:exec([<<"print('aé€😀' * 100000"/utf8>>, End, ")"]) end),
         [?assert(is_list(unicode:characters_to_list(Piece))) || Piece <- Pieces],
         [?assert(byte_size(Piece) =< 65536) || Piece <- Pieces],
         ?assertEqual(unicode:characters_to_binary([lists:duplicate(100000, "aé€😀"), Last]), iolist_to_binary(Pieces))
     end || {End, Last} <- [{"", "\n"}, {", end=''", ""}, {" + '\\n' + 'z' * 40000", ["\n", lists:duplicate(40000, $z), "\n"]}]].

streams_as_programs_expect(_Config) ->
    {{ok, Answers}, Pieces} = printed(fun() -> py:call(?HELPERS, streams, []) end),
    ?assertEqual([<<"captured\n">>, <<"utf-8">>, false, false, true, false, 4], Answers),
    ?assertEqual(<<"some lines\ncafé \\xff\né\nfour"/utf8>>, iolist_to_binary(Pieces)).

bad_arguments(_Config) ->
    [?assertMatch({error, {Type, _}}, py:eval(<<"__import__('sys').stdout.", Code/binary>>))
     || {Type, Code} <- [{'TypeError', <<"write(1)">>}, {'TypeError', <<"write(b'x')">>}, {'TypeError', <<"write()">>}, {'TypeError', <<"write('a', 'b')">>},
                         {'UnsupportedOperation', <<"fileno()">>}, {'UnsupportedOperation', <<"read()">>}, {'TypeError', <<"buffer.write('x')">>}]],
    [?assertMatch({error, {'TypeError', _}}, py:eval(<<"__import__('_causeway').", Code/binary>>)) || Code <- [<<"_log()">>, <<"_log(1, 2, 3)">>]].

%% The line that a call has begun is not continued by one that is served meanwhile on the same context.
nested_calls_keep_their_lines(_Config) ->
    Context = py:context(1),
    Test = self(),
    ok = py:register_function(print_more, fun([]) ->
                                                  Inner = caller(fun() -> py:exec(Context, <<"print('inner', end='')">>) end, Test),
                                                  receive {'DOWN', _, process, Inner, _} -> none end
                                          end),
    Caller = caller(fun() -> py:call(Context, ?HELPERS, print_around_call, [print_more]) end),
    ?assertMatch({{ok, none}, [<<"before ">>, <<"inner">>, <<"after\n">>]}, rest(Caller)),
    ok = py:unregister_function(print_more).

callers_do_not_mix(_Config) ->
    Callers = [{Number, spawn_monitor(fun() ->
                                              Name = integer_to_binary(Number),
                                              {{ok, none}, Pieces} = printed(fun() -> py:call(?HELPERS, print_lines, [Name, 200]) end),
                                              exit({printed, iolist_to_binary(Pieces)})
                                      end)} || Number <- lists:seq(1, 16)],
    [receive
         {'DOWN', Monitor, process, Pid, Reason} ->
             Wanted = iolist_to_binary([io_lib:format("~b ~b~n", [Number, Line]) || Line <- lists:seq(0, 199)]),
             ?assertEqual({printed, Wanted}, Reason)
     end || {Number, {Pid, Monitor}} <- Callers].

stream_prints_to_its_starter(_Config) ->
    ?assertMatch({{ok, [0, 1]}, [<<"0\n">>, <<"1\n">>]}, printed(fun() -> py:stream_eval(<<"((print(n), n)[1] for n in range(2))">>) end)).

cast_prints(_Config) ->
    Test = self(),
    Caller = caller(fun() ->
                            ok = py:cast(builtins, print, [cast]),
                            Test ! sent,
                            receive never -> ok end
                    end),
    ok = causeway_ct:expect(sent),
    <<"cast\n">> = next_text(),
    exit(Caller, kill).

every_mode_prints_and_logs(_Config) ->
    ok = log_to_me(),
    [begin
         Print = fun() -> py:exec(Context, <<"import logging\nprint('one')\nlogging.error('two')\nprint('three', end='')">>) end,
         ?assertEqual({ok, [<<"one\n">>, <<"three">>]}, printed(Print)),
         ?assertMatch(#{level := error, msg := {string, <<"two">>}, meta := #{context := 7}}, event()),
         ok = py_context:stop(Context)
     end || Mode <- [worker, subinterp, owngil], {ok, Context} <- [start_context(Mode)]].

%% An owngil context needs Python 3.12.
start_context(Mode) ->
    process_flag(trap_exit, true),
    Started = py_context:start_link(#{id => 7, mode => Mode}),
    [receive {'EXIT', _, _} -> ok end || {error, _} <- [Started]],
    process_flag(trap_exit, false),
    Started.

reactor_prints_to_its_context(_Config) ->
    {ok, none} = py:call(?HELPERS, use_printer, []),
    Test = self(),
    Owner = spawn_link(fun() ->
                               group_leader(Test, self()),
                               {ok, Context} = py_reactor_context:start_link(1, worker),
                               Test ! {context, Context},
                               receive stop -> py_reactor_context:stop(Context) end
                       end),
    Context = receive {context, Started} -> Started end,
    {Client, Server} = reactor_ct:tcp_pair(),
    ok = py_reactor_context:handoff(Context, reactor_ct:fd(Server), #{}),
    ?assertEqual(<<"this">>, reactor_ct:ask(Client, <<"this">>)),
    ?assertEqual(<<"heard this">>, next_text()),
    Owner ! stop.

setup_code_prints_to_its_context(_Config) ->
    ?assertMatch({{ok, _}, [<<"set up\n">>]}, printed(fun() -> py_context:start_link(#{setup_code => <<"print('set up')">>}) end)).

threads_print_to_the_application(_Config) ->
    {_, Pieces} = for_the_application(fun() ->
                                              {ok, none} = py:call(?HELPERS, print_in_thread, [<<"from a thread">>, <<"\n">>]),
                                              %% What is no line goes when the thread ends.
                                              {ok, none} = py:call(?HELPERS, print_in_thread, [<<"unfinished">>, <<>>]),
                                              [next_text(), next_text()]
                                      end),
    ?assertEqual([<<"from a thread\n">>, <<"unfinished">>], Pieces).

prints_for_a_dead_caller(_Config) ->
    {_, Piece} = for_the_application(fun() ->
                                             {Caster, Monitor} = spawn_monitor(py, cast, [py:context(1), ?HELPERS, wait_and_print, [self(), <<"late">>]]),
                                             ok = causeway_ct:expect({'DOWN', Monitor, process, Caster, normal}),
                                             ok = causeway_ct:expect(<<"waiting">>),
                                             {ok, none} = py:call(py:context(2), ?HELPERS, open_gate, []),
                                             next_text()
                                     end),
    ?assertEqual(<<"late\n">>, Piece).

dead_group_leader(_Config) ->
    {Dead, Monitor} = spawn_monitor(fun() -> ok end),
    ok = causeway_ct:expect({'DOWN', Monitor, process, Dead, normal}),
    ?assertEqual([ok, ok, ok], with_leader(Dead, fun() -> [py:exec(<<"print('x' * 300000)">>) || _ <- [1, 2, 3]] end)),
    ?assertEqual({ok, [<<"y\n">>]}, printed(fun() -> py:exec(<<"print('y')">>) end)).

group_leader_that_refuses(_Config) ->
    Refusing = spawn_link(fun Loop() -> receive {io_request, From, Reference, _} -> From ! {io_reply, Reference, {error, terminated}}, Loop() end end),
    ?assertEqual(ok, with_leader(Refusing, fun() -> py:exec(<<"for _ in range(10000): print('x' * 99)">>) end)).

%% The node has no name: one that has is started, and from there another one.
group_leader_of_another_node(_Config) ->
    {ok, Socket} = gen_tcp:listen(0, [{ip, {127, 0, 0, 1}}]),
    {ok, Port} = inet:port(Socket),
    ok = gen_tcp:close(Socket),
    Arguments = ["-start_epmd", "false", "-erl_epmd_port", integer_to_list(Port)],
    Code = "ok = causeway_ct:start(), ok = py_output_SUITE:print_far_away(" ++ lists:flatten(io_lib:format("~p", [Arguments])) ++ "), io:format(\"printed\"), erlang:halt(0).",
    {Status, Output} = causeway_ct:run_node(Code, [], ["-sname", "causeway_near@localhost", "-setcookie", "causeway" | Arguments]),
    ?assertMatch({0, {_, _}, _}, {Status, binary:match(Output, <<"printed">>), Output}).

%% In the other node.
print_far_away(Arguments) ->
    {ok, Peer, Node} = peer:start(#{name => causeway_far, host => "localhost", connection => standard_io,
                                    shutdown => close,
                                    args => ["-dist_listen", "false", "-setcookie", "causeway" | Arguments]}),
    %% Only this node listens.
    true = peer:call(Peer, net_kernel, connect_node, [node()]),
    ok = peer:call(Peer, code, add_paths, [causeway_ct:ebin_dirs()]),
    Leader = spawn(Node, ?MODULE, tell, [self()]),
    ok = with_leader(Leader, fun() -> py:exec(<<"print('far')">>) end),
    <<"far\n">> = receive {told, Text} -> Text after 10000 -> nothing end,
    %% A node that is gone is nothing to wait for.
    ok = peer:stop(Peer),
    ok = with_leader(Leader, fun() -> py:exec(<<"print('x' * 300000)">>) end).

tell(Test) ->
    receive {io_request, From, Reference, {put_chars, unicode, Text}} ->
            From ! {io_reply, Reference, ok},
            Test ! {told, Text},
            tell(Test)
    end.

%% What a thread prints then is lost: nobody is there to take it. Nothing else is.
without_the_application(_Config) ->
    ok = py:exec(<<"import threading, erlang\n"
                   "go = threading.Event()\n"
                   "def run(pid):\n"
                   "    go.wait()\n"
                   "    try:\n"
                   "        print('nobody hears')\n"
                   "        print('x' * 300000)\n"
                   "        erlang.send(pid, 'printed')\n"
                   "    except BaseException as error: erlang.send(pid, repr(error))\n"
                   "def start(pid): threading.Thread(target=run, args=(pid,)).start()">>),
    {ok, none} = py:call('__main__', start, [self()]),
    {ok, Set} = py:eval(<<"go.set">>),
    ok = py:exec(<<"import threading\ndef later(event, seconds): threading.Timer(seconds, event).start()">>),
    {ok, none} = py:call('__main__', later, [Set, 0.5]),
    ok = application:stop(causeway),
    ok = causeway_ct:expect(<<"printed">>).

%% Group leaders that are slow

%% It would be a deadlock: the call ends all the same, and little was kept for the group leader.
group_leader_that_waits_for_the_call(_Config) ->
    ok = log_to_me(),
    Memory = causeway_ct:rss(),
    Caller = caller(fun() -> py:call(?HELPERS, print_much, [20000000]) end),
    ok = receive {answer, Caller, {ok, none}} -> ok after 30000 -> still_waiting end,
    ?assert(causeway_ct:rss() < Memory + (64 bsl 20)),
    Texts = waiting_texts(),
    ?assert(iolist_size([Text || {_, _, Text} <- Texts]) < 200000),
    #{level := warning, msg := {_, _} = Message} = event(),
    ?assertNotEqual(nomatch, string:find(text(Message), pid_to_list(self()))),
    %% When it has replied it gets what comes then, and logger is told how much was lost.
    [From ! {io_reply, Reference, ok} || {From, Reference, _} <- Texts],
    #{level := notice} = event(),
    ?assertEqual({ok, [<<"again\n">>]}, printed(fun() -> py:exec(<<"print('again')">>) end)).

others_do_not_wait(_Config) ->
    {ok, _} = py:start_contexts(4),
    Stuck = spawn_link(fun() -> receive never -> ok end end),
    Caller = caller(fun() -> with_leader(Stuck, fun() -> py:exec(py:context(1), <<"while True: print('x' * 99)">>) end) end),
    causeway_ct:wait_until(fun() -> {message_queue_len, Length} = process_info(Stuck, message_queue_len), Length > 1000 end),
    [?assertEqual({ok, [<<"free\n">>]}, printed(fun() -> py:exec(py:context(2), <<"print('free')">>) end)) || _ <- lists:seq(1, 100)],
    ok = py:interrupt(py:context(1)),
    ?assertMatch({{error, {'CallInterrupted', _}}, []}, rest(Caller)),
    ?assertEqual({ok, 1}, py:eval(py:context(1), <<"1">>, #{}, 20000)).

interrupted_while_it_waits(_Config) ->
    Stuck = spawn_link(fun() -> receive never -> ok end end),
    Context = py:context(1),
    with_leader(Stuck, fun() ->
                               ?assertEqual({error, timeout}, py:exec(Context, <<"while True: print('x' * 99)">>, 300)),
                               {Milliseconds, Result} = causeway_ct:milliseconds(fun() -> py:eval(Context, <<"1">>) end),
                               ?assertEqual({ok, 1}, Result),
                               ?assert(Milliseconds < 3000)
                       end).

%% What is printed on behalf of a process that has ended would be on the console here.
context_stops_while_it_waits(_Config) ->
    Stuck = spawn_link(fun() -> receive never -> ok end end),
    {ok, Context} = py_context:start_link(#{}),
    Test = self(),
    spawn_link(fun() ->
                       causeway_ct:wait_until(fun() -> {message_queue_len, Length} = process_info(Stuck, message_queue_len), Length > 1000 end),
                       Test ! {stopped, causeway_ct:milliseconds(fun() -> py_context:stop(Context) end)}
               end),
    with_leader(Stuck, fun() ->
                               ?assertMatch({error, {context_stopped, _}}, py:exec(Context, <<"while True: print('x' * 99)">>)),
                               receive {stopped, {Milliseconds, ok}} -> ?assert(Milliseconds < 3000) end
                       end).

%% Slow, but not too slow: everything arrives, and Python waits for it.
slow_leader_gets_everything(_Config) ->
    Test = self(),
    Leader = spawn_link(fun() -> count(Test, 0, 0) end),
    ok = with_leader(Leader, fun() -> py:exec(<<"for n in range(20000): print('x' * 99)">>) end),
    Leader ! {how_much, self()},
    {Bytes, Longest} = receive {got, Both} -> Both after 30000 -> nothing end,
    ?assertEqual(2000000, Bytes),
    ?assert(Longest < 3000).

%% Asks itself at every request how many wait.
count(Test, Bytes, Longest) ->
    receive
        {io_request, From, Reference, {put_chars, unicode, Text}} ->
            {message_queue_len, Length} = process_info(self(), message_queue_len),
            From ! {io_reply, Reference, ok},
            count(Test, Bytes + byte_size(Text), max(Length, Longest));
        {how_much, Test} ->
            Test ! {got, {Bytes, Longest}}
    end.

thread_waits_too(_Config) ->
    {_, Bytes} = for_the_application(fun() ->
                                             ok = py:exec(<<"import threading, output_helpers\nthreading.Thread(target=output_helpers.print_much, args=(1000000,)).start()">>),
                                             lists:sum([byte_size(next_text()) || _ <- lists:seq(1, 10000)])
                                     end),
    ?assertEqual(1000000, Bytes).

%% What was not passed on by then is lost; the call goes on with the successor.
output_process_dies(_Config) ->
    Contexts = [py:context(Index) || Index <- lists:seq(1, py_contexts:pool_size())],
    Leader = spawn_link(fun() -> receive take -> take_all() end end),
    Caller = caller(fun() -> with_leader(Leader, fun() -> py:call(?HELPERS, print_much, [300000]) end) end),
    causeway_ct:wait_until(fun() -> {message_queue_len, Length} = process_info(Leader, message_queue_len), Length > 1000 end),
    exit(whereis(py_output), kill),
    causeway_ct:wait_until(fun() -> is_pid(whereis(py_output)) end),
    %% It answers one that is dead, and then the successor.
    Leader ! take,
    ?assertEqual({{ok, none}, []}, rest(Caller)),
    ?assertEqual({ok, [<<"again\n">>]}, printed(fun() -> py:exec(<<"print('again')">>) end)),
    ?assertEqual(Contexts, [py:context(Index) || Index <- lists:seq(1, py_contexts:pool_size())]).

take_all() ->
    receive {io_request, From, Reference, _} -> From ! {io_reply, Reference, ok}, take_all() end.

%% Logging

stderr_by_lines(_Config) ->
    ok = log_to_me(),
    Context = py:context(1),
    ok = py:exec(Context, <<"import sys\nprint('öne\\ntwo', file=sys.stderr)\nprint('rest', end='', file=sys.stderr)"/utf8>>),
    [begin
         #{level := warning, msg := {string, Line}, meta := Meta} = event(),
         #{domain := [causeway, python], source := stderr, pid := Pid, context := 1} = Meta,
         ?assertEqual(self(), Pid)
     end || Line <- [<<"öne"/utf8>>, <<"two">>, <<"rest">>]],
    ?assertEqual([], causeway_ct:mailbox()).

traceback_is_one_event(_Config) ->
    ok = log_to_me(),
    {ok, none} = py:call(?HELPERS, print_exception, []),
    #{level := warning, msg := {string, Text}} = event(),
    [?assertNotEqual(nomatch, string:find(Text, Part)) || Part <- ["KeyError: 'inner'", "direct cause", "print_exception", "ValueError: outer"]],
    ?assertEqual([], causeway_ct:mailbox()).

levels(_Config) ->
    ok = log_to_me(),
    ok = logger:set_primary_config(level, all),
    ok = py:exec(<<"import logging\nlogging.getLogger().setLevel(1)">>),
    [begin
         {ok, none} = py:call(?HELPERS, log_at, [Number, <<"text">>]),
         ?assertMatch(#{level := Level, msg := {string, <<"text">>}}, event())
     end || {Number, Level} <- [{5, debug}, {10, debug}, {20, info}, {25, notice}, {30, warning}, {40, error}, {50, critical}, {70, critical}]],
    %% What Erlang does not want is not shown.
    ok = logger:set_primary_config(level, error),
    {ok, none} = py:call(?HELPERS, log_at, [30, <<"unwanted">>]),
    {ok, none} = py:call(?HELPERS, log_at, [40, <<"wanted">>]),
    ?assertMatch(#{level := error, msg := {string, <<"wanted">>}}, event()),
    ok = py:exec(<<"import logging\nlogging.getLogger().setLevel(logging.WARNING)">>).

metadata_of_records(_Config) ->
    ok = log_to_me(),
    {ok, none} = py:call(py:context(1), ?HELPERS, log_exception, []),
    #{level := error, msg := {string, Text}, meta := Meta} = event(),
    #{domain := [causeway, python], source := logging, logger := <<"a.b">>, module := <<"output_helpers">>, function := <<"log_exception">>,
      file := File, line := Line, exception := Exception, context := 1, pid := Pid, thread := _} = Meta,
    ?assertEqual(self(), Pid),
    ?assertEqual("output_helpers.py", filename:basename(File)),
    ?assert(is_integer(Line)),
    ?assertNotEqual(nomatch, string:find(Exception, "KeyError: 'missing'")),
    %% The text has it all, for handlers that show nothing else.
    ?assertMatch(<<"it failed\nTraceback", _/binary>>, Text),
    ?assertNotEqual(nomatch, string:find(Text, Exception)).

%% As Erlang's own level was when the application started: nothing is made that nobody wants.
level_of_the_root_logger(_Config) ->
    [begin
         Code = "ok = logger:set_primary_config(level, " ++ Level ++ "), ok = causeway_ct:start(), "
             "{ok, L} = py:eval(\"__import__('logging').getLogger().level\"), io:format(\"level ~p.\", [L]), erlang:halt(0).",
         {0, Output} = causeway_ct:run_node(Code, []),
         ?assertMatch({match, _}, re:run(Output, ["level ", integer_to_list(Number), "\\."]))
     end || {Level, Number} <- [{"notice", 25}, {"debug", 10}]].

warnings_are_events(_Config) ->
    ok = log_to_me(),
    {ok, none} = py:call(?HELPERS, warn, [<<"careful">>]),
    #{level := warning, msg := {string, Text}, meta := #{source := warnings, file := File, line := _}} = event(),
    ?assertEqual("output_helpers.py", filename:basename(File)),
    ?assertNotEqual(nomatch, string:find(Text, "UserWarning: careful")).

uncaught_exceptions_are_events(_Config) ->
    ok = log_to_me(),
    {ok, none} = py:call(?HELPERS, fail_in_thread, []),
    #{level := error, msg := {string, Thread}, meta := #{source := exception, thread := <<"failing">>, context := undefined}} = event(),
    [?assertNotEqual(nomatch, string:find(Thread, Part)) || Part <- ["Exception in thread failing", "Traceback", "ZeroDivisionError"]],
    {ok, none} = py:call(?HELPERS, fail_in_del, []),
    #{level := error, msg := {string, Del}} = event(),
    [?assertNotEqual(nomatch, string:find(Del, Part)) || Part <- ["Exception ignored in", "Failing.__del__", "ValueError: in del"]],
    ?assertEqual([], causeway_ct:mailbox()).

bad_records(_Config) ->
    ok = log_to_me(),
    {ok, none} = py:call(?HELPERS, log_badly, []),
    %% As logging does by itself: it complains and goes on.
    #{msg := {string, First}} = event(),
    ?assertNotEqual(nomatch, string:find(First, "Logging error")),
    ok = py:exec(<<"import logging\nlogging.getLogger('b' + chr(0xdc80)).error(chr(0xdc81))">>),
    ?assertMatch(#{msg := {string, <<"\\udc81">>}, meta := #{logger := <<"b\\udc80">>}}, last_event()).

default_handler_shows_it(_Config) ->
    Code = "ok = causeway_ct:start(), ok = py:exec(\"import logging, sys\\nlogging.error('from logging')\\nprint('from stderr', file=sys.stderr)\"), "
        "sys:get_state(py_output), sys:get_state(py_logger), ok = logger_std_h:filesync(default), erlang:halt(0).",
    {0, Output} = causeway_ct:run_node(Code, []),
    [?assertNotEqual(nomatch, binary:match(Output, Part)) || Part <- [<<"from logging">>, <<"from stderr">>]].

slow_handler_does_not_hold_calls_up(_Config) ->
    ok = log_to(fun(_Event) -> receive go_on -> ok end end),
    Logger = whereis(py_logger),
    {Milliseconds, _} = causeway_ct:milliseconds(fun() -> [{ok, none} = py:call(?HELPERS, log_at, [40, <<"text">>]) || _ <- lists:seq(1, 20)] end),
    ?assert(Milliseconds < 3000),
    causeway_ct:wait_until(fun() -> process_info(Logger, message_queue_len) =:= {message_queue_len, 19} end),
    [Logger ! go_on || _ <- lists:seq(1, 20)],
    _ = sys:get_state(py_logger),
    ?assertEqual({message_queue_len, 0}, process_info(Logger, message_queue_len)).

handler_that_calls_python(_Config) ->
    Test = self(),
    ok = log_to(fun(_Event) -> Test ! {evaluated, py:eval(<<"(print('in a handler'), 1)[1]">>)}, ok end),
    [{ok, none} = py:call(?HELPERS, log_at, [40, <<"text">>]) || _ <- lists:seq(1, 20)],
    [ok = causeway_ct:expect({evaluated, {ok, 1}}) || _ <- lists:seq(1, 20)].

%% More than may wait at once: the thread waits for the log.
much_is_logged(_Config) ->
    ok = log_to_me(),
    ok = py:exec(<<"import logging\nfor n in range(2000): logging.error('x' * 100 + str(n))">>),
    [begin
         Wanted = iolist_to_binary([lists:duplicate(100, $x), integer_to_list(N)]),
         #{msg := {string, Text}} = event(),
         ?assertEqual(Wanted, Text)
     end || N <- lists:seq(0, 1999)].

%% As a handler of logger.
log(#{meta := #{domain := [causeway, python]}} = Event, #{config := #{with := Fun}}) -> Fun(Event);
log(_Event, _Config) -> ok.

log_to_me() ->
    Test = self(),
    log_to(fun(Event) -> Test ! {event, Event}, ok end).

log_to(Fun) ->
    logger:add_handler(?MODULE, ?MODULE, #{config => #{with => Fun}}).

event() ->
    receive {event, Event} -> Event after 20000 -> error({no_event, causeway_ct:mailbox()}) end.

last_event() ->
    #{meta := Meta} = Event = event(),
    case Meta of
        #{source := stderr} -> last_event();
        _ -> Event
    end.

text({report, Report}) -> io_lib:format("~tp", [Report]);
text({string, Text}) -> Text;
text({Format, Arguments}) -> lists:flatten(io_lib:format(Format, Arguments)).

%% Group leaders: the calling process is one, and what is sent to it is in its mailbox in the order of arrival.

%% What a function returns in a process of its own, and what was printed before it did.
printed(Fun) ->
    rest(caller(Fun)).

caller(Fun) ->
    caller(Fun, self()).

caller(Fun, Leader) ->
    Test = self(),
    {Caller, _Monitor} = spawn_monitor(fun() ->
                                               group_leader(Leader, self()),
                                               Answer = Fun(),
                                               Test ! {answer, self(), Answer}
                                       end),
    Caller.

%% Takes what comes, up to the answer. What comes later is found by the next who looks.
rest(Caller) ->
    rest(Caller, []).

rest(Caller, Pieces) ->
    receive
        {io_request, From, Reference, {put_chars, unicode, Text}} ->
            From ! {io_reply, Reference, ok},
            rest(Caller, [Text | Pieces]);
        {answer, Caller, Answer} ->
            receive {'DOWN', _, process, Caller, normal} -> ok end,
            {Answer, lists:reverse(Pieces)}
    after 30000 -> error({no_answer, causeway_ct:mailbox()})
    end.

next_text() ->
    receive
        {io_request, From, Reference, {put_chars, unicode, Text}} ->
            From ! {io_reply, Reference, ok},
            Text
    after 20000 -> error({nothing_printed, causeway_ct:mailbox()})
    end.

waiting_texts() ->
    receive
        {io_request, From, Reference, {put_chars, unicode, Text}} -> [{From, Reference, Text} | waiting_texts()]
    after 0 -> []
    end.

with_leader(Leader, Fun) ->
    Before = group_leader(),
    group_leader(Leader, self()),
    try Fun() after group_leader(Before, self()) end.

%% The calling process is the group leader of the application meanwhile.
for_the_application(Fun) ->
    Output = whereis(py_output),
    {group_leader, Before} = process_info(Output, group_leader),
    group_leader(self(), Output),
    try {ok, Fun()} after group_leader(Before, Output) end.
