%% @doc What Python prints: where it goes, in which order, and what becomes of it where nobody takes it.
-module(py_output_SUITE).

-compile([export_all, nowarn_export_all]).

-import(output_ct, [log_to_me/0, event/0, text/1, printed/1, caller/1, caller/2, rest/1, next_text/0, waiting_texts/0,
                    with_leader/2, for_the_application/1]).

-include_lib("stdlib/include/assert.hrl").

-define(HELPERS, output_helpers).

suite() -> [{timetrap, {seconds, 120}}].

all() ->
    [{group, printing}, {group, slow_leaders}].

groups() ->
    [{printing, [], [lines_before_the_answer, several_lines_at_once, unfinished_line_at_the_end_of_a_call, flush_within_a_call,
                     erlang_captures_output, any_text_arrives, large_texts_arrive_whole,
                     streams_as_programs_expect, bad_arguments, nested_calls_keep_their_lines,
                     callers_do_not_mix, stream_prints_to_its_starter, cast_prints, every_mode_prints_and_logs,
                     reactor_prints_to_its_context, setup_code_prints_to_its_context,
                     threads_print_to_the_application, prints_for_a_dead_caller, dead_group_leader,
                     group_leader_that_refuses, group_leader_of_another_node, without_the_application]},
     {slow_leaders, [], [group_leader_that_waits_for_the_call, others_do_not_wait, interrupted_while_it_waits,
                         context_stops_while_it_waits, slow_leader_gets_everything, thread_waits_too,
                         output_process_dies]}].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_testcase(_Case, Config) -> causeway_ct:start(Config).

end_per_testcase(_Case, Config) -> output_ct:stop_logging(Config).

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
    %% The group leader has been asked before the call is answered, but may not have passed it on yet.
    ok = causeway_ct:wait_until(fun() -> lists:flatten(ct:capture_get()) =:= "captured\n" end),
    ok = ct:capture_stop().

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
     end || Mode <- mode_ct:modes(), {ok, Context} <- [py_context:start_link(#{id => 7, mode => Mode})]].

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
    %% Both have this port: who connected to the other when it is gone would come to itself, and wait for an answer.
    Arguments = ["-start_epmd", "false", "-erl_epmd_port", integer_to_list(Port), "-kernel", "dist_auto_connect", "never"],
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
