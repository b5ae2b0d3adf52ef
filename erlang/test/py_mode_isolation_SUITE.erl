%% @doc How far interpreters are apart from each other, and what a context leaves to the next one that gets the same.
-module(py_mode_isolation_SUITE).

-compile([export_all, nowarn_export_all]).

-import(mode_ct, [mode/1, python/0, start/1, sockets/0]).

-include_lib("stdlib/include/assert.hrl").

-define(HELPERS, mode_helpers).

suite() -> [{timetrap, {seconds, 120}}].

all() ->
    [{group, subinterp}, {group, owngil}].

groups() ->
    Cases = [modules_are_apart, factory_is_apart, extension_refuses, same_interpreter_as_if_new,
             standard_library_after_twenty_uses, package_with_c_parts_is_used_again,
             objects_go_before_the_next_context, thread_keeps_its_interpreter,
             thread_of_thread_module_keeps_its_interpreter, stubborn_finalizer,
             objects_of_a_stopped_context, objects_of_another_interpreter, starts_and_stops_race],
    [{subinterp, [], Cases}, {owngil, [], Cases}].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_group(Mode, Config) -> mode_ct:start_group(Mode, Config).

end_per_group(_Mode, _Config) -> ok.

init_per_testcase(_Case, Config) -> mode_ct:start_case(Config).

end_per_testcase(_Case, Config) -> mode_ct:end_case(Config).

%% Apart

modules_are_apart(Config) ->
    {One, Other, Worker} = {start(Config), start(Config), start([{mode, worker}])},
    [ok = py:exec(One, ["import ", Module, "\n", Module, ".mark = 'changed'"]) || Module <- ["mode_helpers", "math", "sys", "erlang"]],
    [?assertEqual({ok, true}, py:eval(One, ["__import__('", Module, "').mark == 'changed'"]))
     || Module <- ["mode_helpers", "math", "sys", "erlang"]],
    [?assertEqual({ok, false}, py:eval(Context, ["getattr(__import__('", Module, "'), 'mark', '') == 'changed'"]))
     || Module <- ["mode_helpers", "math", "sys", "erlang"], Context <- [Other, Worker]],
    [ok = py_context:stop(Context) || Context <- [One, Other, Worker]].

factory_is_apart(Config) ->
    %% By a call it is that of the interpreter.
    With = start(Config),
    ok = py:exec(With, <<"import mode_helpers\nmode_helpers.reactor.set_protocol_factory(mode_helpers.Echo)">>),
    Without = start(Config),
    {Client, Fd} = sockets(),
    ?assertEqual({error, no_protocol_factory}, py_reactor_context:handoff(Without, Fd, #{})),
    %% It is still the caller's, and another context takes it.
    ok = gen_tcp:send(Client, <<"kept">>),
    ok = py_reactor_context:handoff(With, Fd, #{}),
    ?assertEqual({ok, <<"kept">>}, gen_tcp:recv(Client, 4, 10000)),
    [ok = py_context:stop(Context) || Context <- [With, Without]].

%% Which extensions refuse is Python's business, and changes. That it is Python who says so is ours.
extension_refuses(Config) ->
    Names = [<<"_ctypes">>, <<"_curses">>, <<"_datetime">>],
    Context = start(Config),
    {ok, Refused} = py:call(Context, ?HELPERS, refusals, [Names]),
    case python() < [3, 12] of
        %% That asks no extension whether it supports sub-interpreters.
        true ->
            ?assertEqual(#{}, Refused);
        false ->
            ?assertMatch([_ | _], maps:to_list(Refused)),
            [?assertEqual(<<"module ", Name/binary, " does not support loading in subinterpreters">>, Text)
             || {Name, Text} <- maps:to_list(Refused)],
            %% As an error of a call it is the same.
            [{Name, Text} | _] = maps:to_list(Refused),
            ?assertEqual({error, {'ImportError', unicode:characters_to_list(Text)}},
                         py:call(Context, importlib, import_module, [Name])),
            ?assertEqual({ok, #{}}, py:call(?HELPERS, refusals, [Names]))
    end,
    ok = py_context:stop(Context).

%% Used again

same_interpreter_as_if_new(Config) ->
    First = start(Config),
    {ok, Interpreter} = py:call(First, ?HELPERS, change_much, []),
    ok = py:exec(First, <<"mine = 1">>),
    ?assertEqual({ok, Interpreter}, py:call(First, ?HELPERS, interpreter, [])),
    ok = py_context:stop(First),
    Second = start(Config),
    ?assertEqual({ok, Interpreter}, py:call(Second, ?HELPERS, interpreter, [])),
    {ok, Traces} = py:call(Second, ?HELPERS, traces, []),
    ?assertEqual([], [Name || {Name, true} <- maps:to_list(Traces)]),
    ?assertMatch({error, {'NameError', _}}, py:eval(Second, <<"mine">>)),
    ?assertEqual({ok, <<"untouched">>}, py:eval(Second, <<"__import__('mode_helpers').mark">>)),
    {_, Fd} = sockets(),
    ?assertEqual({error, no_protocol_factory}, py_reactor_context:handoff(Second, Fd, #{})),
    ok = py_context:stop(Second).

standard_library_after_twenty_uses(Config) ->
    Interpreters = [begin
                        Context = start(Config),
                        ?assertEqual({ok, {[3, 7], [1, 2], [<<"said 1">>], <<"cbt">>}},
                                     py:call(Context, ?HELPERS, use_standard_library, [])),
                        ok = py:exec(Context, <<"import asyncio, concurrent.futures, dataclasses, decimal, enum, typing, unittest.mock, "
                                                "xml.dom.minidom, email.message, http.client, random, uuid\n"
                                                "with concurrent.futures.ThreadPoolExecutor(2) as pool:\n"
                                                "    assert list(pool.map(abs, [-1, -2])) == [1, 2]\n">>),
                        {ok, Interpreter} = py:call(Context, ?HELPERS, interpreter, []),
                        ok = py_context:stop(Context),
                        Interpreter
                    end || _ <- lists:seq(1, 20)],
    ?assertMatch([_], lists:usort(Interpreters)).

%% A package of nobody's, with an extension of the standard library in it: Python takes it for its own.
package_with_c_parts_is_used_again(Config) ->
    %% Of its own for each mode: what is mapped must not be written over.
    Directory = filename:join(proplists:get_value(priv_dir, Config), atom_to_list(mode(Config))),
    Package = filename:join(Directory, "native_package"),
    {ok, File} = py:eval(<<"__import__('_queue').__spec__.origin">>),
    ok = filelib:ensure_dir(filename:join(Package, "x")),
    {ok, _} = file:copy(File, filename:join(Package, filename:basename(File))),
    ok = file:write_file(filename:join(Package, "__init__.py"),
                         "import pure_module\nfrom native_package._queue import SimpleQueue\nmark = 'untouched'\n"),
    ok = file:write_file(filename:join(Directory, "pure_module.py"), "mark = 'untouched'\n"),
    [begin
         Context = start(Config),
         {ok, none} = py:call(Context, sys, 'path.insert', [0, causeway_python:bytes(Directory)]),
         ok = py:exec(Context, <<"import native_package, pure_module\nqueue = native_package.SimpleQueue()\nqueue.put(7)\n"
                                 "assert queue.get() == 7\nassert pure_module.mark == 'untouched'\npure_module.mark = 'changed'\n">>),
         ok = py_context:stop(Context)
     end || _ <- lists:seq(1, 5)].

%% What the old context still held goes with it, and not when another one has its interpreter.
objects_go_before_the_next_context(Config) ->
    First = start(Config),
    {ok, none} = py:eval(First, <<"globals().update(thing=__import__('mode_helpers').departing(pid, 'names'))">>, #{pid => self()}),
    {ok, none} = py:call(First, ?HELPERS, keep_in_thread, [self(), <<"thread">>]),
    ok = py:exec(First, <<"import mode_helpers\nmode_helpers.circle = [mode_helpers.per_thread.thing]\nmode_helpers.circle.append(mode_helpers.circle)">>),
    ok = py_context:stop(First),
    %% They were sent before the end was told.
    [receive {<<"gone">>, Name} -> ok after 0 -> error({still_there, Name}) end || Name <- [<<"names">>, <<"thread">>]].

thread_keeps_its_interpreter(Config) -> thread_keeps_interpreter(Config, threading).

thread_of_thread_module_keeps_its_interpreter(Config) -> thread_keeps_interpreter(Config, thread).

thread_keeps_interpreter(Config, Kind) ->
    First = start(Config),
    true = register(mode_hold, self()),
    {ok, Interpreter} = py:call(First, ?HELPERS, interpreter, []),
    {ok, none} = py:call(First, ?HELPERS, start_thread, [self(), Kind]),
    ok = causeway_ct:expect(<<"thread runs">>),
    ok = py_context:stop(First),
    Others = [start(Config) || _ <- lists:seq(1, 3)],
    [?assertNotEqual({ok, Interpreter}, py:call(Other, ?HELPERS, interpreter, [])) || Other <- Others],
    %% It goes on without its context.
    flush(<<"beat">>),
    ok = causeway_ct:expect(<<"beat">>),
    true = unregister(mode_hold),
    [ok = py_context:stop(Other) || Other <- Others].

flush(Message) ->
    receive Message -> flush(Message) after 0 -> ok end.

%% An object that resists its end is interrupted as calls are: the thread ends.
stubborn_finalizer(Config) ->
    Threads = causeway_ct:context_threads(),
    Context = start(Config),
    {ok, none} = py:call(Context, ?HELPERS, cling, [self()]),
    ok = py_context:stop(Context),
    ok = causeway_ct:expect(<<"clinging">>),
    ok = causeway_ct:settled(fun causeway_ct:context_threads/0, Threads),
    Next = start(Config),
    ?assertEqual({ok, 1}, py:call(Next, ?HELPERS, identity, [1])),
    ok = py_context:stop(Next).

%% Objects

%% Nobody but the janitor is left to give them back.
objects_of_a_stopped_context(Config) ->
    Context = start(Config),
    Test = self(),
    {Holder, Monitor} = spawn_monitor(fun() ->
                                              {ok, Thing} = py:call(Context, ?HELPERS, departing, [Test, <<"held">>]),
                                              Test ! held,
                                              receive go -> Thing end
                                      end),
    ok = causeway_ct:expect(held),
    ok = py_context:stop(Context),
    Holder ! go,
    receive {'DOWN', Monitor, process, Holder, _} -> ok end,
    ok = causeway_ct:expect({<<"gone">>, <<"held">>}),
    %% The same while another context has the interpreter.
    Next = start(Config),
    {ok, Other} = py:call(Next, ?HELPERS, departing, [self(), <<"next">>]),
    ?assert(is_reference(Other)),
    ok = py_context:stop(Next),
    Again = start(Config),
    ?assertMatch({error, {'ValueError', _}}, py:call(Again, ?HELPERS, identity, [Other])),
    ok = py_context:stop(Again).

%% What is another interpreter's is refused, or passed on without being looked at: never touched.
objects_of_another_interpreter(Config) ->
    {One, Other} = {start(Config), start(Config)},
    {ok, Object} = py:call(One, ?HELPERS, departing, [self(), <<"mine">>]),
    {ok, Class} = py:eval(One, <<"__import__('mode_helpers').Departing">>),
    [begin
         case py:call(Context, ?HELPERS, identity, [[Given]]) of
             {ok, [Back]} -> ?assert(is_reference(Back));
             {error, {'ValueError', _}} -> ok
         end,
         ?assertEqual({ok, 1}, py:eval(Context, <<"1">>))
     end || Given <- [Object, Class], Context <- [Other, py:context(1)]],
    ?assertEqual({ok, true}, py:eval(One, <<"type(thing) is kind">>, #{thing => Object, kind => Class})),
    [ok = py_context:stop(Context) || Context <- [One, Other]].

%% Contexts that come and go on many processes, while calls run: interpreters are handed from one to the next.
starts_and_stops_race(Config) ->
    Test = self(),
    Threads = causeway_ct:context_threads(),
    Racers = [spawn_link(fun() -> Test ! {self(), race(Config, Number)} end) || Number <- lists:seq(1, 8)],
    [receive {Racer, Result} -> ?assertEqual(ok, Result) end || Racer <- Racers],
    ok = causeway_ct:settled(fun causeway_ct:context_threads/0, Threads).

race(Config, Number) ->
    process_flag(trap_exit, true),
    [begin
         Context = start(Config),
         ok = py:exec(Context, <<"import mode_helpers\nassert mode_helpers.mark == 'untouched'\nmode_helpers.mark = 'changed'\nmine = 1">>),
         {ok, 1} = py:eval(Context, <<"mine">>),
         Call = py:spawn_call(Context, ?HELPERS, case (Round + Number) rem 3 of 0 -> identity; 1 -> loop; 2 -> sleep end, [self()]),
         case Round rem 2 of
             0 -> exit(Context, kill);
             1 -> ok = py_context:stop(Context)
         end,
         case py:await(Call, 20000) of
             {error, {context_stopped, _}} -> ok;
             {ok, _} -> ok
         end
     end || Round <- lists:seq(1, 12)],
    ok.
