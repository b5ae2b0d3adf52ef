%% @doc Programs of a module: its callbacks, what they return, and supervisors.
-module(causeway_process_callback_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-define(STREAM, causeway_process_stream).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [order, results_of_init, more_after_a_timeout, more_after_a_continue, more_after_hibernation, bad_results, calls,
     questions_about_itself, messages, errors, close, nothing_but_init, names, supervised, exits_of_others, status, input, end_of_parent].

init_per_suite(Config) -> process_ct:start(Config).

end_per_suite(_Config) -> ok.

init_per_testcase(_Case, Config) ->
    process_flag(trap_exit, true),
    Config.

shell(Script) ->
    shell(Script, #{}).

shell(Script, Options) ->
    {ok, Handle} = ?STREAM:start_link(process_callbacks, "sh", ["-c", Script], self(), Options),
    ok = causeway_ct:expect(init),
    Handle.

received() ->
    receive Message -> Message after 30000 -> error(nothing) end.

order(_Config) ->
    Handle = shell("echo out; read x; echo err >&2; exit 3"),
    ?assertEqual({stdout, <<"out\n">>}, received()),
    ok = ?STREAM:command(Handle, "\n"),
    ?assertEqual({stderr, <<"err\n">>}, received()),
    ?assertEqual({exit, {exit_status, 3}}, received()),
    ?assertEqual({terminate, {exit_status, 3}}, received()),
    ?assertEqual({'EXIT', Handle, {exit_status, 3}}, received()).

results_of_init(_Config) ->
    Start = fun(Value) -> ?STREAM:start_link(process_callbacks, "cat", [], {return, Value}) end,
    ?assertEqual({error, because}, Start({stop, because})),
    ?assertEqual(ignore, Start(ignore)),
    ?assertEqual({error, {bad_return_value, what}}, Start(what)),
    {ok, Timeout} = Start({ok, self(), 10}),
    ?assertEqual({info, timeout}, received_but_exits()),
    {ok, Continue} = Start({ok, self(), {continue, now}}),
    ?assertEqual({continue, now}, received_but_exits()),
    {ok, Hibernate} = Start({ok, self(), hibernate}),
    ?assertEqual(self(), gen_server:call(Hibernate, state)),
    [ok = ?STREAM:close(Handle) || Handle <- [Timeout, Continue, Hibernate]],
    [ok = causeway_ct:expect({'EXIT', Handle, normal}) || Handle <- [Timeout, Continue, Hibernate]].

received_but_exits() ->
    receive {Kind, _} = Message when Kind =:= info; Kind =:= continue -> Message after 30000 -> error(nothing) end.

%% What follows in the same pipe is not lost after a result with more than a state.
more_after_a_timeout(_Config) ->
    more("timeout").

more_after_a_continue(_Config) ->
    more("continue"),
    ?assert(lists:member({continue, again}, causeway_ct:mailbox())).

more_after_hibernation(_Config) ->
    more("hibernate").

more(Word) ->
    Lines = lists:duplicate(10, Word),
    Handle = shell(["printf '", lists:join("\\n", Lines), "'; printf done >&2"], #{stdio_window => length(Word) + 1}),
    Expected = length(Word) * 10 + 9,
    ?assertEqual(Expected, outputs(0, Expected)),
    ok = causeway_ct:expect({exit, normal}),
    ok = causeway_ct:expect({'EXIT', Handle, normal}).

outputs(Size, Expected) when Size >= Expected -> Size;
outputs(Size, Expected) ->
    receive {stdout, Data} -> outputs(Size + byte_size(Data), Expected) after 30000 -> error({only, Size}) end.

bad_results(_Config) ->
    Bad = shell("echo bad; read x"),
    ok = causeway_ct:expect({'EXIT', Bad, {bad_return_value, bad}}),
    Stop = shell("echo stop; read x"),
    ok = causeway_ct:expect({'EXIT', Stop, normal}).

calls(_Config) ->
    Handle = shell("read x"),
    ?assertEqual(self(), gen_server:call(Handle, state)),
    ?assertEqual(continued, gen_server:call(Handle, later)),
    ?assertEqual(ok, gen_server:call(Handle, timeout)),
    ok = causeway_ct:expect({info, timeout}),
    ?assertEqual(stopped, gen_server:call(Handle, stop)),
    ok = causeway_ct:expect({terminate, normal}),
    ok = causeway_ct:expect({'EXIT', Handle, normal}).

messages(_Config) ->
    Handle = shell("read x; echo $x; read x"),
    gen_server:cast(Handle, hello),
    ok = causeway_ct:expect({cast, hello}),
    Handle ! {anything, at_all},
    ok = causeway_ct:expect({info, {anything, at_all}}),
    %% It has no owner to be changed.
    Handle ! {self(), {connect, self()}},
    %% Anybody may command and close it.
    spawn_link(fun() -> Handle ! {self(), {command, <<"x\n">>}} end),
    ok = causeway_ct:expect({stdout, <<"x\n">>}),
    spawn_link(fun() -> ok = ?STREAM:close(Handle), receive {Handle, closed} -> ok end end),
    ok = causeway_ct:expect({terminate, normal}).

errors(_Config) ->
    process_flag(trap_exit, false),
    ?assertEqual({error, enoent}, ?STREAM:start_link(process_callbacks, "no-such-program", [], self())),
    ?assertMatch({error, {cd, enoent, _}}, ?STREAM:start_link(process_callbacks, "true", [], self(), #{cd => "/nowhere"})),
    ?assertMatch({error, {badarg, _}}, ?STREAM:start_link(process_callbacks, "true", [], self(), #{colour => red})),
    ok = causeway_ct:expect(init),
    ?assertEqual([], causeway_ct:mailbox()).

close(_Config) ->
    Handle = shell("read x"),
    ok = ?STREAM:close(Handle),
    ok = causeway_ct:expect({Handle, closed}),
    ?assertEqual({terminate, normal}, received()),
    ?assertEqual({'EXIT', Handle, normal}, received()).

%% The reason is that of the process, and output is thrown away.
nothing_but_init(_Config) ->
    {ok, Handle} = ?STREAM:start_link(process_bare, "sh", ["-c", "head -c 1000000 /dev/zero; exit 1"], []),
    ok = causeway_ct:expect({'EXIT', Handle, {exit_status, 1}}),
    {ok, Other} = ?STREAM:start_link(process_bare, "true"),
    ok = causeway_ct:expect({'EXIT', Other, normal}),
    {ok, Signalled} = ?STREAM:start_link(process_bare, "sleep", ["1000"]),
    Signalled ! unknown,
    ok = ?STREAM:kill(Signalled, sigusr1),
    ok = causeway_ct:expect({'EXIT', Signalled, {signal, 10}}).

names(_Config) ->
    Handle = shell("read x; echo $x; read x", #{name => process_of_a_test}),
    ?assertEqual(Handle, whereis(process_of_a_test)),
    ?assertEqual({error, {already_started, Handle}},
                 ?STREAM:start_link(process_callbacks, "cat", [], self(), #{name => process_of_a_test})),
    ok = ?STREAM:command(process_of_a_test, "by name\n"),
    ok = causeway_ct:expect({stdout, <<"by name\n">>}),
    ?assert(is_integer(?STREAM:os_pid(process_of_a_test))),
    ok = ?STREAM:close(process_of_a_test),
    ok = causeway_ct:expect({'EXIT', Handle, normal}),
    Global = shell("read x", [{name, {global, process_of_a_test}}]),
    ok = ?STREAM:close({global, process_of_a_test}),
    ok = causeway_ct:expect({'EXIT', Global, normal}),
    Via = shell("read x", #{name => {via, global, process_of_a_test}}),
    ?assertEqual(Via, global:whereis_name(process_of_a_test)),
    ok = ?STREAM:close({via, global, process_of_a_test}),
    ok = causeway_ct:expect({'EXIT', Via, normal}),
    ?assertEqual(undefined, ?STREAM:os_pid(process_of_a_test)),
    ok = ?STREAM:close(process_of_a_test).

%% A callback would wait for itself: it is told so, and the program goes on.
questions_about_itself(_Config) ->
    Handle = shell("read x; exit 3"),
    [begin
         {'EXIT', {{calling_self, Text}, [_ | _]}} = gen_server:call(Handle, {ask, Question}),
         ?assertNotEqual(nomatch, string:find(Text, "callback"))
     end || Question <- [fun ?STREAM:os_pid/1, fun(Own) -> ?STREAM:kill(Own, sigterm) end, fun(Own) -> ?STREAM:await(Own, 1000) end,
                         fun(Own) -> ?STREAM:set_mode(Own, once) end]],
    ?assert(is_integer(?STREAM:os_pid(Handle))),
    ok = ?STREAM:command(Handle, "\n"),
    ok = causeway_ct:expect({exit, {exit_status, 3}}).

%% A supervisor starts it, sees how it ends, and starts it again.
supervised(_Config) ->
    #{id := process_callbacks} = Spec = ?STREAM:child_spec([process_callbacks, "cat", [], self()]),
    #{id := named} = ?STREAM:child_spec([process_callbacks, "cat", [], self(), #{name => named}]),
    ?assertEqual(ok, supervisor:check_childspecs([Spec])),
    {ok, Supervisor} = supervisor_of(Spec),
    [{_, First, worker, _}] = supervisor:which_children(Supervisor),
    Pid = ?STREAM:os_pid(First),
    ok = ?STREAM:kill(First, kill),
    ok = causeway_ct:expect({exit, {signal, 9}}),
    ok = causeway_ct:wait_until(fun() -> [{_, Second, _, _}] = supervisor:which_children(Supervisor), Second =/= First andalso is_pid(Second) end),
    [{_, Second, _, _}] = supervisor:which_children(Supervisor),
    Other = ?STREAM:os_pid(Second),
    ?assertNotEqual(Pid, Other),
    unlink(Supervisor),
    exit(Supervisor, shutdown),
    ok = process_ct:gone([Other]),
    ?assertError(badarg, ?STREAM:child_spec(what)),
    ?assertError(badarg, ?STREAM:child_spec([process_callbacks])).

supervisor_of(Spec) -> supervisor:start_link(?MODULE, Spec).

%% As a supervisor.
init(Spec) -> {ok, {#{}, [Spec]}}.

exits_of_others(_Config) ->
    Handle = shell("read x"),
    Other = spawn(fun() -> link(Handle), receive stop -> exit(done) end end),
    Other ! stop,
    ok = causeway_ct:expect({info, {'EXIT', Other, done}}),
    ok = ?STREAM:close(Handle),
    ok = causeway_ct:expect({terminate, normal}).

status(_Config) ->
    Handle = shell("read x"),
    {status, Handle, _, [_, _, _, _, Misc]} = sys:get_status(Handle),
    ?assertNotEqual(nomatch, string:find(io_lib:format("~0p", [Misc]), "formatted")),
    ok = ?STREAM:close(Handle),
    ok = causeway_ct:expect({terminate, normal}).

%% What cannot be written is a message, where nobody waits for it.
input(_Config) ->
    Handle = shell("exec <&-; echo closed; while :; do sleep 1; done"),
    ok = causeway_ct:expect({stdout, <<"closed\n">>}),
    Handle ! {self(), {command, <<"x">>}},
    ok = causeway_ct:expect({info, {Handle, {stdin, epipe}}}),
    ok = ?STREAM:close(Handle),
    ok = causeway_ct:expect({terminate, normal}).

end_of_parent(_Config) ->
    Test = self(),
    Parent = spawn(fun() -> {ok, Handle} = ?STREAM:start_link(process_callbacks, "sleep", ["1000"], Test),
                            Test ! {os_pid, ?STREAM:os_pid(Handle)}, receive stop -> exit(enough) end end),
    Pid = receive {os_pid, OsPid} -> OsPid end,
    Parent ! stop,
    ok = causeway_ct:expect({terminate, enough}),
    ok = process_ct:gone([Pid]).
