%% @doc What Python logs, warns of and writes to sys.stderr: as events of Erlang's logger.
-module(py_logging_SUITE).

-compile([export_all, nowarn_export_all]).

-import(output_ct, [log_to_me/0, log_to/1, event/0]).

-include_lib("stdlib/include/assert.hrl").

-define(HELPERS, output_helpers).

suite() -> [{timetrap, {seconds, 120}}].

all() ->
    [stderr_by_lines, traceback_is_one_event, levels, metadata_of_records, level_of_the_root_logger,
     warnings_are_events, uncaught_exceptions_are_events, bad_records, default_handler_shows_it,
     slow_handler_does_not_hold_calls_up, handler_that_calls_python, much_is_logged].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_testcase(_Case, Config) -> causeway_ct:start(Config).

end_per_testcase(_Case, Config) -> output_ct:stop_logging(Config).

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

last_event() ->
    #{meta := Meta} = Event = event(),
    case Meta of
        #{source := stderr} -> last_event();
        _ -> Event
    end.
