%% @doc What the suites share: the application, waiting for events, and what the system says of this process.
-module(causeway_ct).

-export([start/0, start/1, stop/1, start_context/1, kill_context/1, context/1, context/0, python_dir/0, ebin_dirs/0]).
-export([wait_until/1, wait_until/2, milliseconds/1, with_free_schedulers/1, with_punctual_schedulers/1, expect/1, expect/2, mailbox/0]).
-export([threads/0, threads/1, context_threads/0, descriptors/0, rss/0, rss/1, memory/1, settled/2]).
-export([context_ticks/0, context_ticks/1]).
-export([run_node/2, run_node/3, python_executable/0, script/3]).

-define(PATIENCE, 30000).
%% Which part of the time a timer may be late, and how often that is tried.
-define(LATE_SHARE, 0.3).
-define(TRIALS, 5).

%% @doc Starts the application, and lets Python find the helper modules of the suites.
-spec start() -> ok.
start() ->
    {ok, _} = application:ensure_all_started(causeway),
    {ok, _} = py:start_contexts(),
    %% numpy's threads have the name of the thread that imports it, by which contexts' threads are counted.
    {ok, none} = py:call(os, putenv, [<<"OPENBLAS_NUM_THREADS">>, <<"1">>]),
    Directory = python_dir(),
    case py:eval(<<"__import__('sys').path">>) of
        {ok, [Directory | _]} -> ok;
        {ok, _} -> {ok, none} = py:call(sys, 'path.insert', [0, Directory]), ok
    end.

%% @doc For init_per_suite, and init_per_testcase where a case may have stopped the application.
-spec start(list()) -> list().
start(Config) ->
    ok = start(),
    Config.

%% @doc For end_per_suite.
-spec stop(list()) -> ok.
stop(_Config) ->
    ok = application:stop(causeway).

%% @doc For init_per_testcase: the case has a context of its own.
-spec start_context(list()) -> list().
start_context(Config) ->
    ok = start(),
    [{context, context()} | Config].

%% @doc For end_per_testcase.
-spec kill_context(list()) -> true.
kill_context(Config) ->
    exit(context(Config), kill).

%% @doc The context of the case.
-spec context(list()) -> pid().
context(Config) -> proplists:get_value(context, Config).

%% @doc Another context, which may serve connections, and does not end with the calling process.
-spec context() -> pid().
context() ->
    {ok, Context} = py_reactor_context:start_link(1, worker),
    unlink(Context),
    Context.

%% @doc Where the helper modules of the suites are.
-spec python_dir() -> binary().
python_dir() ->
    Source = proplists:get_value(source, ?MODULE:module_info(compile)),
    causeway_python:bytes(filename:join(filename:dirname(filename:absname(Source)), "python")).

%% @doc The directories that another node needs in its code path.
-spec ebin_dirs() -> [file:filename()].
ebin_dirs() ->
    Tests = filename:dirname(code:which(?MODULE)),
    [filename:dirname(code:which(causeway_app)), Tests, filename:join(Tests, "once")].

%% @doc Waits until something holds, at most 30 seconds; the last resort where there is no event to wait for.
-spec wait_until(fun(() -> boolean())) -> ok.
wait_until(Condition) ->
    wait_until(Condition, ?PATIENCE).

%% @doc The same with a limit in milliseconds.
-spec wait_until(fun(() -> boolean()), non_neg_integer()) -> ok.
wait_until(Condition, Limit) ->
    poll(Condition, erlang:monotonic_time(millisecond) + Limit).

poll(Condition, Deadline) ->
    case Condition() of
        true ->
            ok;
        false ->
            erlang:monotonic_time(millisecond) < Deadline orelse error({still_false, Condition}),
            receive after 5 -> poll(Condition, Deadline) end
    end.

%% @doc How long a function takes, and what it returns.
-spec milliseconds(fun(() -> Result)) -> {non_neg_integer(), Result}.
milliseconds(Fun) ->
    {Microseconds, Result} = timer:tc(Fun),
    {Microseconds div 1000, Result}.

%% @doc Runs a function while a timer of 1 ms shows whether a scheduler is held up: one that waits for Python is so for
%% a good part of the time. A machine that is busy with other things holds it up, too, now and then.
-spec with_free_schedulers(fun(() -> ok)) -> ok.
with_free_schedulers(Fun) ->
    best_of(?TRIALS, Fun, fun(#{share := Share}) -> Share < ?LATE_SHARE end).

%% @doc The same where nothing else runs: the timer is never late by 50 ms.
-spec with_punctual_schedulers(fun(() -> ok)) -> ok.
with_punctual_schedulers(Fun) ->
    best_of(?TRIALS, Fun, fun(#{worst := Worst}) -> Worst < 50000 end).

best_of(0, _Fun, _IsGood) ->
    error(timer_was_late);
best_of(Trials, Fun, IsGood) ->
    Lateness = lateness(Fun),
    ct:log("~p", [Lateness]),
    case IsGood(Lateness) of
        true -> ok;
        false -> best_of(Trials - 1, Fun, IsGood)
    end.

%% By how many microseconds the timer was late at the worst, and which part of the time it was later than 10 ms.
lateness(Fun) ->
    Test = self(),
    Clock = spawn_link(fun() -> clock(Test, 0, 0) end),
    {Elapsed, ok} = timer:tc(Fun),
    Clock ! report,
    receive {Clock, Worst, Late} -> #{worst => Worst, share => Late / Elapsed} end.

clock(Test, Worst, Late) ->
    Start = erlang:monotonic_time(microsecond),
    receive
        report -> Test ! {self(), Worst, Late}
    after 1 ->
        Delay = erlang:monotonic_time(microsecond) - Start - 1000,
        clock(Test, max(Worst, Delay), Late + max(0, Delay - 10000))
    end.

%% @doc Waits for a message.
-spec expect(term()) -> ok.
expect(Message) ->
    expect(Message, ?PATIENCE).

%% @doc The same with a limit in milliseconds.
-spec expect(term(), timeout()) -> ok.
expect(Message, Limit) ->
    receive
        Message -> ok
    after Limit -> error({not_received, Message, in_mailbox, mailbox()})
    end.

%% @doc What is in the mailbox of the calling process.
-spec mailbox() -> [term()].
mailbox() ->
    %% What has arrived since the last receive is not among the messages that a process finds of itself.
    receive {?MODULE, nothing} -> ok after 0 -> ok end,
    {messages, Messages} = process_info(self(), messages),
    Messages.

%% @doc The native threads of this node.
-spec threads() -> non_neg_integer().
threads() ->
    length(tasks("self")).

%% @doc Those of them with a name, of which 15 letters count.
-spec threads(binary()) -> non_neg_integer().
threads(Name) ->
    length([Task || Task <- tasks("self"), name(Task) =:= <<Name/binary, "\n">>]).

%% @doc Those of them that belong to Python contexts.
-spec context_threads() -> non_neg_integer().
context_threads() ->
    threads(<<"causeway-ctx">>).

tasks(Process) ->
    Directory = "/proc/" ++ Process ++ "/task",
    {ok, Tasks} = file:list_dir(Directory),
    [filename:join(Directory, Task) || Task <- Tasks].

%% A thread may end between the listing and the look.
name(Task) ->
    case file:read_file(Task ++ "/comm") of
        {ok, Name} -> Name;
        {error, _} -> <<>>
    end.

%% @doc The CPU time of all context threads, in ticks of 10 ms.
-spec context_ticks() -> non_neg_integer().
context_ticks() ->
    context_ticks("self").

%% @doc The same of another node, by its process.
-spec context_ticks(string()) -> non_neg_integer().
context_ticks(Process) ->
    lists:sum([ticks(Task) || Task <- tasks(Process), name(Task) =:= <<"causeway-ctx\n">>]).

ticks(Task) ->
    {ok, Stat} = file:read_file(Task ++ "/stat"),
    [_, Fields] = binary:split(Stat, <<") ">>),
    Numbers = binary:split(Fields, <<" ">>, [global]),
    binary_to_integer(lists:nth(12, Numbers)) + binary_to_integer(lists:nth(13, Numbers)).

%% @doc The open descriptors of this node.
-spec descriptors() -> non_neg_integer().
descriptors() ->
    {ok, Numbers} = file:list_dir("/proc/self/fd"),
    length(Numbers).

%% @doc The resident memory of this node in bytes. Under the address sanitizer, which keeps what is freed for a while, 0.
-spec rss() -> non_neg_integer().
rss() ->
    case memory(total) of
        0 -> 0;
        _ -> rss("self")
    end.

%% @doc The same as erlang:memory/1; 0 where the BEAM does not have its own allocators, which is so under the address
%% sanitizer: there a case is run for what the sanitizer sees, and measures nothing.
-spec memory(erlang:memory_type()) -> non_neg_integer().
memory(Type) ->
    try erlang:memory(Type)
    catch error:notsup -> 0
    end.

%% @doc That of another process of the system.
-spec rss(string()) -> non_neg_integer().
rss(Process) ->
    {ok, Statm} = file:read_file("/proc/" ++ Process ++ "/statm"),
    [_, Resident | _] = binary:split(Statm, <<" ">>, [global]),
    binary_to_integer(Resident) * 4096.

%% @doc Waits until a count is back at or below what it was. Garbage on the heap of some process may still
%% refer to the native half of a context, which then keeps a descriptor: that is let go of.
-spec settled(fun(() -> integer()), integer()) -> ok.
settled(Count, Before) ->
    try
        wait_until(fun() -> Count() =< Before orelse (collect_garbage() andalso Count() =< Before) end)
    catch
        error:{still_false, _} -> error({not_settled, was, Before, is, Count()})
    end.

collect_garbage() ->
    [erlang:garbage_collect(Process) || Process <- processes()] =/= [].

%% @doc The Python that the tests use.
-spec python_executable() -> string().
python_executable() ->
    {ok, #{executable := Executable}} = causeway_python:find(),
    unicode:characters_to_list(Executable).

%% @doc Runs an expression in a node of its own, which then halts; returns exit status and output.
-spec run_node(string(), [{string(), string() | false}]) -> {non_neg_integer() | timeout, binary()}.
run_node(Code, Environment) ->
    run_node(Code, Environment, []).

%% @doc The same with arguments of the emulator.
-spec run_node(string(), [{string(), string() | false}], [string()]) -> {non_neg_integer() | timeout, binary()}.
run_node(Code, Environment, Arguments) ->
    %% For a pattern of a binary in a `receive' erl_eval needs a module more; where OTP 27 loads it there, the process has
    %% a broken heap afterwards.
    Loaded = "{module, eval_bits} = code:ensure_loaded(eval_bits), " ++ Code,
    Paths = lists:append([["-pa", Directory] || Directory <- ebin_dirs()]),
    Port = open_port({spawn_executable, os:find_executable("erl")},
                     [{args, ["-noshell" | Paths] ++ Arguments ++ ["-eval", Loaded]},
                      {env, Environment}, exit_status, stderr_to_stdout, binary]),
    {os_pid, Process} = erlang:port_info(Port, os_pid),
    collect(Port, Process, []).

collect(Port, Process, Output) ->
    receive
        {Port, {data, Data}} -> collect(Port, Process, [Output, Data]);
        {Port, {exit_status, Status}} -> {Status, iolist_to_binary(Output)}
    after ?PATIENCE ->
        os:cmd("kill -9 " ++ integer_to_list(Process)),
        catch port_close(Port),
        {timeout, iolist_to_binary(Output)}
    end.

%% @doc Writes an executable shell script.
-spec script(file:filename(), string(), iodata()) -> file:filename().
script(Directory, Name, Lines) ->
    Path = filename:join(Directory, Name),
    ok = file:write_file(Path, causeway_python:bytes(["#!/bin/sh\n" | Lines])),
    ok = file:change_mode(Path, 8#755),
    Path.
