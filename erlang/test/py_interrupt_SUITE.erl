%% @doc Time-outs and dead callers: the answer is in time, the context goes on, and nothing is left behind.
-module(py_interrupt_SUITE).

-compile([export_all, nowarn_export_all]).

-import(causeway_ct, [context/0, context/1]).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-define(HELPERS, causeway_helpers).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [loop_times_out, sleep_times_out, sleep_variants_time_out, gil_in_c_code_times_out, blocking_read_times_out,
     waits_in_native_code_time_out, timeout_of_eval_and_exec,
     interrupted_call_raises_call_interrupted, finally_and_with_are_run, stubborn_code_times_out, queued_calls_time_out,
     context_answers_after_timeout, no_stray_exception_hits_the_next_call, interruption_during_import_harms_nobody,
     package_that_was_interrupted, import_that_another_has_begun, odd_imports,
     sleep_sleeps_as_long_as_it_should, sleep_of_wrong_arguments, sleep_lets_others_run, hundred_callers_killed_in_mid_call,
     killed_callers_of_queued_calls, mailboxes_are_empty_after_races, timeouts_around_the_duration_of_calls,
     threads_of_python_are_not_hit, thread_that_is_being_started, interrupts_of_many_contexts_at_once].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_testcase(_Case, Config) -> causeway_ct:start_context(Config).

end_per_testcase(_Case, Config) -> causeway_ct:kill_context(Config).

%% In time, whatever Python does

loop_times_out(Config) -> times_out(Config, loop, []).

sleep_times_out(Config) -> times_out(Config, sleep, [5]).

sleep_variants_time_out(Config) ->
    Context = context(Config),
    [begin
         ?assertEqual({error, timeout}, py:exec(Context, Code, 100)),
         {Milliseconds, {ok, 1}} = causeway_ct:milliseconds(fun() -> py:eval(Context, <<"1">>) end),
         ?assert(Milliseconds < 3000)
     end || Code <- [<<"from time import sleep\nsleep(30)">>, <<"import time\ntime.sleep(30.5)">>,
                     <<"import time\ntime.sleep(1e9)">>,
                     %% C code that goes from one sleep into the next.
                     <<"import time\nlist(map(time.sleep, [40, 40, 40]))">>]].

gil_in_c_code_times_out(Config) ->
    Context = context(Config),
    {Milliseconds, {error, timeout}} =
        causeway_ct:milliseconds(fun() -> py:call(Context, ?HELPERS, hold_gil, [self(), 800000], 100) end),
    ?assert(Milliseconds < 600),
    ok = causeway_ct:expect(<<"running">>),
    ?assertEqual({ok, 1}, py:eval(Context, <<"1">>)).

%% C code without the GIL that nothing can interrupt: the time-out is in time all the same.
blocking_read_times_out(Config) ->
    Context = context(Config),
    {ok, {Read, Write}} = py:call(os, pipe, []),
    {Milliseconds, {error, timeout}} =
        causeway_ct:milliseconds(fun() -> py:call(Context, os, read, [Read, 10], 100) end),
    ?assert(Milliseconds < 1500),
    {ok, 1} = py:call(os, write, [Write, {bytes, <<"x">>}]),
    ?assertEqual({ok, 1}, py:eval(Context, <<"1">>)),
    [{ok, none} = py:call(os, close, [Fd]) || Fd <- [Read, Write]].

%% They go on to their own end, which is the only one that they have; the caller does not wait for that. Each is in a
%% context of its own, all at once.
waits_in_native_code_time_out(_Config) ->
    Waits = [{Code, spawn_monitor(fun() -> native_wait_times_out(Code) end)}
             || Code <- [<<"threading.Event().wait(0.5)">>, <<"lock.acquire(timeout=0.5)">>, <<"threading.Semaphore(0).acquire(timeout=0.5)">>,
                         <<"c = threading.Condition()\nwith c: c.wait(0.5)">>, <<"queue.Queue().get(timeout=0.5)">>,
                         <<"thread = threading.Thread(target=select.select, args=([], [], [], 30), daemon=True)\n"
                           "thread.start()\nthread.join(0.5)">>,
                         <<"queue.SimpleQueue().get(timeout=0.5)">>, <<"concurrent.futures.Future().result(0.5)">>,
                         <<"select.select([], [], [], 0.5)">>, <<"ours.recv(1)">>, <<"subprocess.run(['sleep', '0.5'])">>,
                         <<"asyncio.run(asyncio.sleep(0.5))">>]],
    [receive {'DOWN', Monitor, process, Pid, Reason} -> ?assertEqual({Code, normal}, {Code, Reason}) end
     || {Code, {Pid, Monitor}} <- Waits].

native_wait_times_out(Code) ->
    Context = context(),
    ok = py:exec(Context, <<"import asyncio, concurrent.futures, queue, select, socket, subprocess, threading\n"
                            "lock = threading.Lock()\nlock.acquire()\nours, theirs = socket.socketpair()\nours.settimeout(0.5)\n">>),
    ?assertEqual({error, timeout}, py:exec(Context, Code, 50)),
    ?assertEqual({ok, 1}, py:eval(Context, <<"1">>)),
    ok = py_context:stop(Context).

timeout_of_eval_and_exec(Config) ->
    Context = context(Config),
    [begin
         {Milliseconds, {error, timeout}} = causeway_ct:milliseconds(Call),
         ?assert(Milliseconds < 1500),
         ?assertEqual({ok, 1}, py:eval(Context, <<"1">>))
     end || Call <- [fun() -> py:eval(Context, <<"[0 for _ in iter(int, 1)]">>, #{}, 50) end,
                     fun() -> py:exec(Context, <<"while True: pass">>, 50) end,
                     fun() -> py:eval(<<"[0 for _ in iter(int, 1)]">>, #{}, 50) end]].

times_out(Config, Function, Arguments) ->
    Context = context(Config),
    {Milliseconds, {error, timeout}} =
        causeway_ct:milliseconds(fun() -> py:call(Context, ?HELPERS, Function, [self() | Arguments], 200) end),
    ?assert(Milliseconds >= 200),
    ?assert(Milliseconds < 1500),
    ok = causeway_ct:expect(<<"running">>),
    ?assertEqual([], causeway_ct:mailbox()),
    %% It does not only answer in time: what Python did has ended, too.
    {Later, {ok, 1}} = causeway_ct:milliseconds(fun() -> py:eval(Context, <<"1">>) end),
    ?assert(Later < 1500).

%% What Python sees

interrupted_call_raises_call_interrupted(Config) ->
    ?assertEqual({error, timeout}, py:call(context(Config), ?HELPERS, loop_and_tell, [self()], 100)),
    ok = causeway_ct:expect(<<"running">>),
    ok = causeway_ct:expect(<<"CallInterrupted">>),
    ?assertEqual({ok, true}, py:eval(<<"not issubclass(__import__('erlang').CallInterrupted, Exception)">>)).

finally_and_with_are_run(Config) ->
    Context = context(Config),
    ok = py:exec(Context, <<"import erlang, threading\nlock = threading.Lock()\n"
                            "def work(pid):\n"
                            "    try:\n"
                            "        with lock:\n"
                            "            n = 0\n"
                            "            while True: n += 1\n"
                            "    finally:\n"
                            "        erlang.send(pid, ('finally', lock.locked()))\n">>),
    ?assertEqual({error, timeout}, py:call(Context, '__main__', work, [self()], 100)),
    ok = causeway_ct:expect({<<"finally">>, false}).

%% It cannot be ended, but its caller is not held up, and the other contexts are there.
stubborn_code_times_out(Config) ->
    Context = context(Config),
    ok = py:exec(Context, <<"import erlang\ndef resist(pid):\n"
                            "    erlang.send(pid, 'running')\n"
                            "    for _ in range(3):\n"
                            "        try:\n"
                            "            n = 0\n"
                            "            while True: n += 1\n"
                            "        except BaseException: erlang.send(pid, 'resisted')\n"
                            "    return 'late'\n">>),
    {Milliseconds, {error, timeout}} = causeway_ct:milliseconds(fun() -> py:call(Context, '__main__', resist, [self()], 100) end),
    ?assert(Milliseconds < 1500),
    ok = causeway_ct:expect(<<"running">>),
    ok = causeway_ct:expect(<<"resisted">>),
    ?assertEqual({ok, 1}, py:eval(<<"1">>, #{}, 5000)),
    exit(Context, kill),
    ok = causeway_ct:expect(<<"resisted">>),
    ok = causeway_ct:expect(<<"resisted">>),
    ?assertEqual([], causeway_ct:mailbox()).

queued_calls_time_out(Config) ->
    Context = context(Config),
    Loop = py:spawn_call(Context, ?HELPERS, loop, [self()]),
    ok = causeway_ct:expect(<<"running">>),
    {Milliseconds, {error, timeout}} =
        causeway_ct:milliseconds(fun() -> py:call(Context, ?HELPERS, tell, [self(), never], 100) end),
    ?assert(Milliseconds < 1500),
    exit(Context, kill),
    {error, {context_stopped, _}} = py:await(Loop),
    ?assertEqual([], causeway_ct:mailbox()).

%% A call that was given up while it was queued is never run.
context_answers_after_timeout(Config) ->
    Context = context(Config),
    {ok, none} = py:call(?HELPERS, close_gate, []),
    Gate = py:spawn_call(Context, ?HELPERS, wait_at_gate, [self()]),
    ok = causeway_ct:expect(<<"running">>),
    ?assertEqual({error, timeout}, py:call(Context, ?HELPERS, tell, [self(), never], 20)),
    {ok, none} = py:call(?HELPERS, open_gate, []),
    ?assertEqual({ok, <<"passed">>}, py:await(Gate)),
    ?assertEqual({ok, 1}, py:eval(Context, <<"1">>)),
    ?assertEqual([], causeway_ct:mailbox()).

%% No stray exceptions

%% Calls of about the length of their time-out: interruptions come before, in and after them. The next
%% call, of another process, is never the one that is hit.
no_stray_exception_hits_the_next_call(Config) ->
    Context = context(Config),
    ok = py:exec(Context, <<"def spin(n):\n    while n: n -= 1\n    return 'spun'\n">>),
    [begin
         Hit = py:call(Context, '__main__', spin, [20000 + 137 * (N rem 100)], 1),
         ?assert(Hit =:= {error, timeout} orelse Hit =:= {ok, <<"spun">>}),
         ?assertEqual({ok, <<"spun">>}, py:call(Context, '__main__', spin, [300], infinity))
     end || N <- lists:seq(1, 1000)],
    ?assertEqual([], causeway_ct:mailbox()).

interruption_during_import_harms_nobody(Config) ->
    Context = context(Config),
    [begin
         _ = py:exec(Context, <<"import sys\nfor m in [m for m in sys.modules if m.startswith(('xml', 'email', 'unittest'))]: del sys.modules[m]\n"
                                "import email.message, unittest, xml.dom.minidom">>, N),
         ?assertEqual(ok, py:exec(Context, <<"import email.message, unittest, xml.dom.minidom">>))
     end || N <- lists:seq(0, 40, 4)].

%% Another call waits for the same import meanwhile: it makes it anew.
import_that_another_has_begun(Config) ->
    ok = file:write_file(filename:join(?config(priv_dir, Config), "module_of_two.py"),
                         "import erlang, sys, time\nis_first = not hasattr(sys, 'was_here')\nsys.was_here = True\n"
                         "erlang.call('importing')\nwhile is_first: time.sleep(60)\ndef answer(): return 42\n"),
    Context = context(Config),
    Other = causeway_ct:context(),
    Test = self(),
    ok = py:register_function(importing, fun([]) -> Test ! importing end),
    ok = py:exec(Context, ["import sys\nsys.path.append('", ?config(priv_dir, Config), "')"]),
    First = py:spawn_call(Context, module_of_two, answer, []),
    ok = causeway_ct:expect(importing),
    Second = py:spawn_call(Other, module_of_two, answer, []),
    ok = causeway_ct:wait_until(fun() -> waits_for_an_import(Other) end),
    ok = py:interrupt(Context),
    ?assertMatch({error, {'CallInterrupted', _}}, py:await(First)),
    ?assertEqual({ok, 42}, py:await(Second)),
    ok = causeway_ct:expect(importing),
    ok = py:exec(Context, "import sys; del sys.was_here; sys.path.pop()"),
    ok = py:unregister_function(importing),
    ok = py_context:stop(Other).

%% These are errors as in Python.
odd_imports(Config) ->
    Directory = ?config(priv_dir, Config),
    ok = file:write_file(filename:join(Directory, "gone_again.py"), "import sys\ndel sys.modules[__name__]\n"),
    ok = file:write_file(filename:join(Directory, "key_error.py"), "{}['key_error']\n"),
    ok = py:exec(context(Config), ["import sys\nsys.path.append('", Directory, "')"]),
    [?assertEqual({error, {'KeyError', "'" ++ atom_to_list(Module) ++ "'"}}, py:call(context(Config), Module, answer, []))
     || Module <- [gone_again, key_error]],
    ok = py:exec(context(Config), "sys.path.pop()").

%% Its stack has no frame of Python's but those of importlib.
waits_for_an_import(Context) ->
    {ok, #{stack := Stack, call := Call}} = py_context:diagnose(Context),
    Call =:= {module_of_two, answer} andalso Stack =/= [] andalso Stack =/= unavailable
        andalso lists:all(fun(#{file := File}) -> string:find(File, "importlib") =/= nomatch end, Stack).

%% A package whose import is interrupted after a part of it was imported can be imported later.
package_that_was_interrupted(Config) ->
    Directory = filename:join(?config(priv_dir, Config), "interrupted_package"),
    ok = filelib:ensure_dir(filename:join(Directory, "x")),
    %% Its class is known to others by then.
    ok = file:write_file(filename:join(Directory, "part.py"),
                         "import sys\nclass Known: value = 17\nsys.known = getattr(sys, 'known', Known)\n"),
    ok = file:write_file(filename:join(Directory, "__init__.py"),
                         "from .part import *\nimport sys, time\n"
                         "while not hasattr(sys, 'is_quick'): time.sleep(60)\n"
                         "answer = part.Known.value, part.Known is sys.known\n"),
    Context = context(Config),
    ok = py:exec(Context, ["import sys\nsys.path.append('", ?config(priv_dir, Config), "')"]),
    ?assertEqual({error, timeout}, py:exec(Context, "import interrupted_package", 300)),
    ok = py:exec(Context, "sys.is_quick = True"),
    ?assertEqual({ok, {17, true}}, py:eval(Context, "__import__('interrupted_package').answer")),
    ok = py:exec(Context, "del sys.is_quick, sys.known; sys.path.pop()").

%% time.sleep

sleep_sleeps_as_long_as_it_should(Config) ->
    Context = context(Config),
    [begin
         {Milliseconds, ok} = causeway_ct:milliseconds(fun() -> py:exec(Context, ["import time\ntime.sleep(", Seconds, ")"]) end),
         ?assert(Milliseconds >= Least),
         ?assert(Milliseconds < Least + 1500)
     end || {Seconds, Least} <- [{"0", 0}, {"0.05", 50}, {"0.3", 300}, {"1e-9", 0}, {"True * 0.1", 100}]].

sleep_of_wrong_arguments(Config) ->
    Context = context(Config),
    [?assertMatch({Code, {error, {Type, _}}}, {Code, py:exec(Context, ["import time\ntime.sleep(", Code, ")"], 1000)})
     || {Code, Type} <- [{"-1", 'ValueError'}, {"'1'", 'TypeError'}, {"None", 'TypeError'}, {"", 'TypeError'},
                         {"1, 2", 'TypeError'}, {"float('nan')", 'ValueError'}, {"float('inf')", 'OverflowError'}, {"1e300", 'OverflowError'}]].

sleep_lets_others_run(Config) ->
    Sleep = py:spawn_call(context(Config), ?HELPERS, sleep, [self(), 0.5]),
    ok = causeway_ct:expect(<<"running">>),
    {Milliseconds, {ok, 1}} = causeway_ct:milliseconds(fun() -> py:eval(<<"1">>) end),
    ?assert(Milliseconds < 400),
    ?assertEqual({ok, <<"slept">>}, py:await(Sleep)).

%% Dead callers

hundred_callers_killed_in_mid_call(_Config) ->
    {ok, Contexts} = py:start_contexts(),
    [begin
         {Caller, Monitor} = caller(lists:nth(1 + N rem length(Contexts), Contexts), loop_and_tell),
         ok = causeway_ct:expect(<<"running">>),
         exit(Caller, kill),
         ok = causeway_ct:expect({'DOWN', Monitor, process, Caller, killed}),
         ok = causeway_ct:expect(<<"CallInterrupted">>)
     end || N <- lists:seq(1, 100)],
    [?assertEqual({ok, 4.0}, py:call(Context, math, sqrt, [16], 5000)) || Context <- Contexts],
    ?assertEqual([], causeway_ct:mailbox()).

%% All at once: most of them wait in the queue when they die.
killed_callers_of_queued_calls(_Config) ->
    Context = py:context(1),
    Callers = [caller(Context, loop_and_tell) || _ <- lists:seq(1, 500)],
    ok = causeway_ct:expect(<<"running">>),
    [exit(Caller, kill) || {Caller, _} <- Callers],
    [ok = causeway_ct:expect({'DOWN', Monitor, process, Caller, killed}) || {Caller, Monitor} <- Callers],
    ?assertEqual({ok, 4.0}, py:call(Context, math, sqrt, [16], 20000)),
    ?assertEqual([], [Message || Message <- causeway_ct:mailbox(), Message =/= <<"running">>, Message =/= <<"CallInterrupted">>]).

caller(Context, Function) ->
    Test = self(),
    spawn_monitor(fun() -> py:call(Context, ?HELPERS, Function, [Test]) end).

%% Mailboxes

mailboxes_are_empty_after_races(_Config) ->
    Test = self(),
    Callers = [spawn_link(fun() -> Test ! {self(), race(Number)} end) || Number <- lists:seq(1, 32)],
    [receive {Caller, Left} -> ?assertEqual([], Left) end || Caller <- Callers].

race(Number) ->
    [begin
         Result = py:call(?HELPERS, identity, [N], #{}, (N + Number) rem 3),
         true = Result =:= {ok, N} orelse Result =:= {error, timeout}
     end || N <- lists:seq(1, 100)],
    {ok, last} = {element(1, py:eval(<<"1">>)), last},
    causeway_ct:mailbox().

timeouts_around_the_duration_of_calls(Config) ->
    Context = context(Config),
    Results = [py:exec(Context, <<"import time\ntime.sleep(0.005)">>, 4 + N rem 4) || N <- lists:seq(1, 200)],
    ?assertEqual([], Results -- [Result || Result <- Results, Result =:= ok orelse Result =:= {error, timeout}]),
    ?assertEqual({ok, 1}, py:eval(Context, <<"1">>)),
    ?assertEqual([], causeway_ct:mailbox()).

%% Threads that Python code has started are its own business.
threads_of_python_are_not_hit(Config) ->
    Context = context(Config),
    ok = py:exec(Context, <<"import threading, time, erlang\n"
                            "def beat(pid):\n"
                            "    try:\n"
                            "        for _ in range(40): time.sleep(0.01)\n"
                            "        erlang.send(pid, 'beaten')\n"
                            "    except BaseException as e: erlang.send(pid, repr(e))\n"
                            "def go(pid):\n"
                            "    threading.Thread(target=beat, args=(pid,)).start()\n"
                            "    while True: pass\n">>),
    ?assertEqual({error, timeout}, py:call(Context, '__main__', go, [self()], 100)),
    ok = causeway_ct:expect(<<"beaten">>),
    ?assertEqual({error, timeout}, py:exec(Context, <<"t = threading.Thread(target=time.sleep, args=(0.3,))\nt.start()\nt.join()">>, 50)),
    ?assertEqual({ok, 1}, py:eval(Context, <<"1">>)).

%% A thread of Python's 3.11 that has not begun is known by the number of the one that starts it: hit in its place, it would
%% never say that it has begun, for which that one waits without end and with the lock of all executors.
thread_that_is_being_started(Config) ->
    Context = context(Config),
    [begin
         Call = py:spawn_call(Context, ?HELPERS, start_threads, [self()]),
         ok = causeway_ct:expect(started),
         ok = py:interrupt(Context),
         ?assertMatch({N, {error, {'CallInterrupted', _}}}, {N, py:await(Call, 10000)})
     end || N <- lists:seq(1, 100)],
    ?assertEqual({ok, 2.0}, py:call(Context, ?HELPERS, in_an_executor, [])).

interrupts_of_many_contexts_at_once(_Config) ->
    Contexts = [begin {ok, Context} = py_context:start_link(#{}), Context end || _ <- lists:seq(1, 16)],
    Test = self(),
    Callers = [spawn_link(fun() -> Test ! {self(), py:call(Context, ?HELPERS, loop, [Test], 300)} end) || Context <- Contexts],
    [receive {Caller, Result} -> ?assertEqual({error, timeout}, Result) end || Caller <- Callers],
    [?assertEqual({ok, 1}, py:eval(Context, <<"1">>, #{}, 5000)) || Context <- Contexts],
    [ok = py_context:stop(Context) || Context <- Contexts].
