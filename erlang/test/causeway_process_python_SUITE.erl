%% @doc Programs that Python opens in the node, with `erlang.process'. The checks are in `python/process_helpers.py'.
-module(causeway_process_python_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [files, pid, ends, running, large, back_pressure, streams, options, errors, signals, terminal, runs, closing, forgotten,
     asynchronous, from_threads, other_interpreters, interrupted, nothing_is_left, application_stops].

init_per_suite(Config) ->
    _ = process_ct:start(Config),
    ok = py:exec(iolist_to_binary(mode_ct:setup_code())),
    Config.

end_per_suite(_Config) -> ok.

end_per_testcase(_Case, _Config) ->
    ok = causeway_ct:wait_until(fun() -> process_ct:guardians() =:= 0 end).

check(Name) -> check(Name, []).

check(Name, Arguments) -> py:call(process_helpers, Name, Arguments).

files(_Config) -> {ok, none} = check(files).
pid(_Config) -> {ok, none} = check(pid).
ends(_Config) -> {ok, none} = check(ends).
running(_Config) -> {ok, none} = check(running).
large(_Config) -> {ok, none} = check(large).
back_pressure(_Config) -> {ok, none} = check(back_pressure).
options(_Config) -> {ok, none} = check(options).
errors(_Config) -> {ok, none} = check(errors).
signals(_Config) -> {ok, none} = check(signals).
terminal(_Config) -> {ok, none} = check(terminal).
runs(_Config) -> {ok, none} = check(runs).
asynchronous(_Config) -> {ok, none} = check(asynchronous).
from_threads(_Config) -> {ok, none} = check(from_threads).

streams(Config) -> {ok, none} = check(streams, [causeway_python:bytes(proplists:get_value(priv_dir, Config))]).

closing(_Config) -> gone(check(closing)).
forgotten(_Config) -> gone(check(forgotten)).

gone({ok, Numbers}) -> ok = process_ct:gone(Numbers).

other_interpreters(_Config) ->
    [begin
         Context = mode_ct:start([{mode, Mode}]),
         [{ok, none} = py:call(Context, process_helpers, Name, []) || Name <- [files, ends, asynchronous, runs]],
         ok = py_context:stop(Context)
     end || Mode <- mode_ct:modes(), Mode =/= worker].

%% A call that has taken too long: what it has opened goes with what it referred to.
interrupted(_Config) ->
    ok = py:exec("import erlang, erlang.process\n"
                 "def endless(test):\n"
                 "    with erlang.process.open('sleep', ['1000']) as one:\n"
                 "        erlang.send(test, one.pid)\n"
                 "        one.wait()\n"
                 "def run_endless(): return erlang.process.run('sleep', ['1000'])\n"),
    ?assertEqual({error, timeout}, py:call('__main__', endless, [self()], #{}, 1000)),
    Number = receive Pid when is_integer(Pid) -> Pid end,
    ok = process_ct:gone([Number]),
    ?assertEqual({error, timeout}, py:call('__main__', run_endless, [], #{}, 300)).

nothing_is_left(_Config) ->
    Round = fun() -> {ok, none} = check(files), {ok, none} = check(ends), {ok, _} = check(forgotten) end,
    Round(),
    ok = causeway_ct:wait_until(fun() -> process_ct:guardians() =:= 0 end),
    Descriptors = causeway_ct:descriptors(),
    Processes = length(processes()),
    [Round() || _ <- lists:seq(1, 10)],
    ok = causeway_ct:settled(fun causeway_ct:descriptors/0, Descriptors),
    ok = causeway_ct:settled(fun() -> length(processes()) end, Processes).

application_stops(_Config) ->
    {ok, Number} = check(leave),
    ok = application:stop(causeway),
    ok = process_ct:gone([Number]),
    {ok, _} = application:ensure_all_started(causeway).
