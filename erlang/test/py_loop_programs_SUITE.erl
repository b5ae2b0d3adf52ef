%% @doc Programs that event loops start inside the node, by asyncio's functions: nothing of them is left, however they end.
-module(py_loop_programs_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-define(HELPERS, program_helpers).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [streams, protocol, descriptors, inherited, ends, errors, options, many, left_behind, dead_caller, interrupted, context_stops,
     context_killed, loop_that_ends, loop_that_is_left_open, other_modes, helper_that_is_killed, guardian_that_is_killed, fork_is_refused,
     helper_that_is_missing, no_process_left, nothing_is_left, node_that_is_killed].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_testcase(_Case, Config) -> causeway_ct:start_context(Config).

end_per_testcase(_Case, Config) ->
    causeway_ct:kill_context(Config),
    {ok, none} = py:call(?HELPERS, clear, []),
    ok = causeway_ct:wait_until(fun() -> process_ct:guardians() =:= 0 end),
    %% Who has lost its guardian is the helper's to wait for, a moment later.
    Node = list_to_integer(os:getpid()),
    ok = causeway_ct:wait_until(fun() -> not lists:any(fun(Process) -> state(Process) =:= $Z end, descendants(Node)) end),
    ?assertEqual([], causeway_ct:mailbox()).

task(Config, Name, Arguments) -> task(Config, Name, Arguments, #{}).

task(Config, Name, Arguments, Options) ->
    Task = py_event_loop:create_task(?HELPERS, Name, Arguments, #{kwargs => Options, context => causeway_ct:context(Config)}),
    py_event_loop:await(Task, 30000).

%% In the loop of the context, and in one that a call runs.
streams(Config) ->
    Script = <<"cat; echo err >&2; exit 3">>,
    Expected = {ok, {<<"in">>, <<"err\n">>, 3}},
    ?assertEqual(Expected, task(Config, both, [Script, {bytes, <<"in">>}])),
    ?assertEqual(Expected, py:call(causeway_ct:context(Config), ?HELPERS, run, [both, Script, {bytes, <<"in">>}])),
    Large = binary:copy(<<"0123456789">>, 200000),
    ?assertEqual({ok, {Large, <<>>, 0}}, task(Config, both, [<<"cat">>, {bytes, Large}])).

protocol(Config) ->
    ?assertEqual({ok, {<<"made">>, <<"over">>,
                       [<<"('lost', 1)">>, <<"('lost', 2)">>, <<"(1, b'question')">>, <<"(2, b'err\\n')">>, <<"exited">>], 0}},
                 task(Config, protocol, [<<"cat; echo err >&2">>])).

%% Its standard streams, and the directory that it lists: nothing of the node's.
descriptors(Config) ->
    ?assertEqual({ok, [0, 1, 2, 3]}, task(Config, descriptors, [])).

inherited(Config) ->
    ?assertEqual({ok, {<<"passed">>, true}}, task(Config, inherited, [])).

ends(Config) ->
    ?assertEqual({ok, -15}, task(Config, ended_by, [<<"terminate">>])),
    ?assertEqual({ok, -9}, task(Config, ended_by, [<<"kill">>])),
    ?assertEqual({ok, 255}, task(Config, pick, [255])),
    ?assertEqual({ok, {<<>>, <<>>, -10}}, task(Config, both, [<<"kill -USR1 $$">>, {bytes, <<>>}])).

errors(Config) ->
    [?assertMatch({ok, {Type, _}}, task(Config, failure, [Command], Options))
     || {Type, Command, Options} <- [{<<"FileNotFoundError">>, <<"no-such-program">>, #{}},
                                     {<<"FileNotFoundError">>, <<"/no/such/program">>, #{}},
                                     {<<"PermissionError">>, <<"/etc/passwd">>, #{}},
                                     {<<"FileNotFoundError">>, <<"true">>, #{cwd => <<"/nowhere">>}},
                                     {<<"FileNotFoundError">>, <<"true">>, #{env => #{<<"PATH">> => <<"/nowhere">>}}},
                                     {<<"ValueError">>, <<"true">>, #{env => #{<<"A=">> => <<"b">>}}},
                                     {<<"ValueError">>, <<"a", 0, "b">>, #{}},
                                     {<<"OSError">>, <<"true">>, #{pass_fds => [1000000]}},
                                     {<<"ValueError">>, <<"true">>, #{pass_fds => lists:seq(3, 100)}},
                                     {<<"ValueError">>, <<"true">>, #{process_group => 5}},
                                     {<<"TypeError">>, <<"true">>, #{colour => red}}]].

options(Config) ->
    ?assertEqual({ok, <<"/\n">>}, task(Config, output, [pwd], #{cwd => <<"/">>})),
    ?assertEqual({ok, <<"hej\n">>},
                 task(Config, output, [<<"sh">>, <<"-c">>, <<"echo $GREETING">>],
                      #{env => #{<<"GREETING">> => <<"hej">>, <<"PATH">> => <<"/usr/bin:/bin">>}})),
    ?assertEqual({ok, <<"0077\n">>}, task(Config, output, [<<"sh">>, <<"-c">>, <<"umask">>], #{umask => 8#77})),
    ?assertEqual({ok, <<"name\n">>},
                 task(Config, output, [<<"name">>, <<"-c">>, <<"echo $0">>], #{executable => <<"/bin/sh">>})).

many(Config) ->
    ?assertEqual({ok, true}, task(Config, many, [200])).

%% As asyncio has it, who waits gets the program's end; then what it has left behind is ended.
left_behind(Config) ->
    {ok, Number} = task(Config, leave_behind, []),
    ok = process_ct:gone([Number]).

%% The task of a caller that dies is cancelled. As asyncio has it, the program is not the task's: it ends with the loop.
dead_caller(Config) ->
    Context = causeway_ct:context(Config),
    Test = self(),
    Caller = spawn(fun() -> py:async_await(py:async_call(Context, ?HELPERS, wait_and_tell, [Test])) end),
    Both = started(),
    exit(Caller, kill),
    ok = causeway_ct:expect(cancelled),
    [?assert(process_ct:is_alive(Number)) || Number <- Both],
    ok = py_context:stop(Context),
    ok = process_ct:gone(Both).

interrupted(Config) ->
    Call = py:spawn_call(causeway_ct:context(Config), ?HELPERS, run, [wait_for_it, self()]),
    Both = started(),
    ok = py_call:cancel(Call),
    ok = process_ct:gone(Both).

context_stops(Config) ->
    Context = causeway_ct:context(Config),
    Task = py:async_call(Context, ?HELPERS, wait_for_it, [self()]),
    Both = started(),
    ok = py_context:stop(Context),
    ok = process_ct:gone(Both),
    ?assertMatch({error, {context_stopped, _}}, py:async_await(Task)).

context_killed(Config) ->
    Context = causeway_ct:context(Config),
    Task = py:async_call(Context, ?HELPERS, wait_for_it, [self()]),
    Both = started(),
    exit(Context, kill),
    ok = process_ct:gone(Both),
    ?assertMatch({error, {context_stopped, _}}, py:async_await(Task)).

started() ->
    receive {Program, Child} when is_integer(Program) ->
            [?assert(process_ct:is_alive(Number)) || Number <- [Program, Child]],
            [Program, Child]
    after 30000 -> error(not_started)
    end.

loop_that_ends(Config) ->
    {ok, Number} = py:call(causeway_ct:context(Config), ?HELPERS, run, [forget]),
    ok = process_ct:gone([Number]).

loop_that_is_left_open(Config) ->
    Context = causeway_ct:context(Config),
    {ok, Number} = py:call(Context, ?HELPERS, open_loop, []),
    ?assert(process_ct:is_alive(Number)),
    ok = py_context:stop(Context),
    ok = process_ct:gone([Number]).

other_modes(_Config) ->
    [begin
         Context = mode_ct:start([{mode, Mode}]),
         {ok, none} = py:call(Context, sys, 'path.insert', [0, causeway_ct:python_dir()]),
         ?assertEqual({ok, 4}, py:async_await(py:async_call(Context, ?HELPERS, pick, [4]))),
         Task = py:async_call(Context, ?HELPERS, wait_for_it, [self()]),
         Both = started(),
         ok = py_context:stop(Context),
         ok = process_ct:gone(Both),
         ?assertMatch({error, {context_stopped, _}}, py:async_await(Task))
     end || Mode <- mode_ct:modes(), Mode =/= worker].

%% What runs goes on, and the next program starts another.
helper_that_is_killed(Config) ->
    Call = py:async_call(causeway_ct:context(Config), ?HELPERS, code_of, [self()]),
    Guardian = receive {parent, Number} -> Number end,
    Helper = parent(Guardian),
    "0" = os:cmd("kill -9 " ++ integer_to_list(Helper) ++ "; printf $?"),
    ok = process_ct:gone([Helper]),
    ?assertEqual({ok, 2}, task(Config, pick, [2])),
    ?assertEqual({error, timeout}, py:async_await(Call, 0)),
    "0" = os:cmd("kill -9 " ++ integer_to_list(Guardian) ++ "; printf $?"),
    ?assertEqual({ok, -9}, py:async_await(Call)).

parent(Process) ->
    [_State, Parent | _] = fields(Process),
    binary_to_integer(Parent).

state(Process) ->
    [<<State>> | _] = fields(Process),
    State.

%% A process may end between two looks.
fields(Process) ->
    case file:read_file(["/proc/", integer_to_list(Process), "/stat"]) of
        {ok, Stat} ->
            [_, Fields] = binary:split(Stat, <<") ">>),
            binary:split(Fields, <<" ">>, [global]);
        {error, _} -> [<<"X">>, <<"0">>]
    end.

descendants(Process) ->
    Files = filelib:wildcard("/proc/" ++ integer_to_list(Process) ++ "/task/*/children"),
    Texts = [Text || File <- Files, {ok, Text} <- [file:read_file(File)]],
    Children = [binary_to_integer(Number) || Text <- Texts, Number <- binary:split(Text, <<" ">>, [global, trim_all])],
    lists:append([[Child | descendants(Child)] || Child <- Children]).

%% It takes its program along, and that is how it has ended.
guardian_that_is_killed(Config) ->
    Call = py:async_call(causeway_ct:context(Config), ?HELPERS, code_of, [self()]),
    Guardian = receive {parent, Number} -> Number end,
    [] = os:cmd("kill -9 " ++ integer_to_list(Guardian)),
    ?assertEqual({ok, -9}, py:async_await(Call)).

fork_is_refused(Config) ->
    {ok, Text} = task(Config, fork, []),
    ?assertMatch(<<"fork() is refused inside the BEAM", _/binary>>, Text),
    ?assertEqual({ok, 3}, task(Config, pick, [3])).

%% The library of a node is there, and the executable that starts programs is not.
helper_that_is_missing(Config) ->
    Application = filename:join(proplists:get_value(priv_dir, Config), "causeway"),
    [Ebin | _] = causeway_ct:ebin_dirs(),
    Private = filename:dirname(unicode:characters_to_list(causeway_process_stream:guardian_path())),
    ok = filelib:ensure_path(filename:join(Application, "priv")),
    ok = file:make_symlink(Ebin, filename:join(Application, "ebin")),
    {ok, Names} = file:list_dir(Private),
    [ok = file:make_symlink(filename:join(Private, Name), filename:join([Application, "priv", Name]))
     || Name <- Names, Name =/= "causeway-spawn"],
    Code = io_lib:format("true = code:add_patha(~p), ~ts", [filename:join(Application, "ebin"), programs("failure, [<<\"true\">>]")]),
    {0, Output} = causeway_ct:run_node(lists:flatten(Code), []),
    ct:log("~ts", [Output]),
    ?assertMatch({match, _}, re:run(Output, "FileNotFoundError.*causeway-spawn could not be started: there is no such file.* {ok,5}")).

%% As somebody who may have so many processes and no more; root may always. Loop and node go on.
no_process_left(_Config) ->
    case nobody_ct:run(programs("refused, []")) of
        {0, Output} ->
            ct:log("~ts", [Output]),
            ?assertMatch({match, _}, re:run(Output, "BlockingIOError.*could not be started: there may be no more.*,3,"
                                                    ".*BlockingIOError.*guardian of the program could not be forked: Resource.*,4]} {ok,5}"));
        {skip, _} = Skip -> Skip
    end.

%% What a node prints that calls a coroutine function, and then Python once more.
programs(Call) ->
    lists:flatten(io_lib:format(
        "{ok, _} = application:ensure_all_started(causeway), {ok, Context} = py_context:start_link(#{}), "
        "{ok, none} = py:call(Context, sys, 'path.insert', [0, ~p]), "
        "Told = py:async_await(py:async_call(Context, program_helpers, ~ts)), "
        "io:format(\"~~0p ~~0p~~n\", [Told, py:async_await(py:async_call(Context, asyncio, sleep, [0, 5]))]), halt().",
        [causeway_ct:python_dir(), Call])).

nothing_is_left(Config) ->
    Round = fun() -> {ok, true} = task(Config, many, [10]), {ok, _} = task(Config, both, [<<"cat">>, {bytes, <<"in">>}]) end,
    Round(),
    ok = causeway_ct:wait_until(fun() -> process_ct:guardians() =:= 0 end),
    {Descriptors, Threads} = {causeway_ct:descriptors(), causeway_ct:threads()},
    [Round() || _ <- lists:seq(1, 10)],
    ok = causeway_ct:settled(fun causeway_ct:descriptors/0, Descriptors),
    ok = causeway_ct:settled(fun causeway_ct:threads/0, Threads).

%% A server without descriptors goes on; and a program does not outlive a node that is killed.
node_that_is_killed(_Config) ->
    Code = lists:flatten(io_lib:format(
             "{ok, _} = application:ensure_all_started(causeway), {ok, Context} = py_context:start_link(#{}), "
             "{ok, none} = py:call(Context, sys, 'path.insert', [0, ~p]), "
             "{ok, {Message, Answer}} = py:async_await(py:async_call(Context, program_helpers, accept_without_descriptors, [])), "
             "_ = py:async_call(Context, program_helpers, wait_for_it, [self()]), "
             "receive {A, B} -> io:format(\"~~ts|~~ts|~~b|~~b\", [Message, Answer, A, B]) end, "
             "os:cmd(\"kill -9 \" ++ os:getpid()).", [causeway_ct:python_dir()])),
    {_, Output} = causeway_ct:run_node(Code, []),
    [Message, <<"welcome">>, Program, Child] = binary:split(Output, <<"|">>, [global]),
    ?assertMatch({_, _}, binary:match(Message, <<"out of system resource">>)),
    ok = process_ct:gone([binary_to_integer(Program), binary_to_integer(Child)]).
