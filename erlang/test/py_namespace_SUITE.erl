%% @doc The names of a process are its own, the same in every context, and go away with it.
-module(py_namespace_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [names_stay, names_are_private, same_names_in_every_context, functions_are_called_in_main, functions_use_own_globals,
     modules_are_shared, classes_and_decorators, own_names_shadow_main, locals_do_not_stay, builtins_are_there,
     names_survive_a_restart_of_the_context, names_go_with_the_process, memory_goes_with_the_process,
     process_that_ends_during_its_call, calls_after_the_end_start_empty, spawned_calls_see_the_spawners_names,
     two_calls_of_one_process_at_once].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

names_stay(_Config) ->
    ok = py:exec(<<"x = 1">>),
    ok = py:exec(<<"x += 1">>),
    ?assertEqual({ok, 2}, py:eval(<<"x">>)).

names_are_private(_Config) ->
    ok = py:exec(<<"secret = 1">>),
    ?assertMatch({error, {'NameError', _}}, in_process(fun() -> py:eval(<<"secret">>) end)),
    ?assertMatch({error, {'AttributeError', _}}, in_process(fun() -> py:call('__main__', secret, []) end)),
    ok = in_process(fun() -> py:exec(<<"secret = 2">>) end),
    ?assertEqual({ok, 1}, py:eval(<<"secret">>)),
    ?assertEqual({ok, false}, py:eval(<<"hasattr(__import__('__main__'), 'secret')">>)).

same_names_in_every_context(_Config) ->
    {ok, Contexts} = py:start_contexts(4),
    ok = py:exec(hd(Contexts), <<"everywhere = 7">>),
    [?assertEqual({ok, 7}, py:eval(Context, <<"everywhere">>)) || Context <- Contexts],
    {ok, Own} = py_context:start_link(#{}),
    ?assertEqual({ok, 7}, py:eval(Own, <<"everywhere">>)),
    ok = py_context:stop(Own).

functions_are_called_in_main(_Config) ->
    ok = py:exec(<<"def twice(x, plus=0): return 2 * x + plus">>),
    ?assertEqual({ok, 8}, py:call('__main__', twice, [4])),
    ?assertEqual({ok, 9}, py:call("__main__", <<"twice">>, [4], #{plus => 1})),
    ?assertEqual({ok, 8}, py:await(py:spawn_call('__main__', twice, [4]))),
    ?assertMatch({error, {'AttributeError', _}}, py:call('__main__', thrice, [4])),
    ok = py:exec(<<"class Box:\n    @staticmethod\n    def open(x): return [x]\n">>),
    ?assertEqual({ok, [1]}, py:call('__main__', 'Box.open', [1])).

functions_use_own_globals(_Config) ->
    ok = py:exec(<<"count = 0\ndef bump():\n    global count\n    count += 1\n    return count\n">>),
    [?assertEqual({ok, N}, py:call('__main__', bump, [])) || N <- [1, 2, 3]],
    ?assertEqual({ok, 3}, py:eval(<<"count">>)),
    ?assertEqual({ok, 4}, py:eval(<<"bump()">>)).

modules_are_shared(_Config) ->
    ok = py:exec(<<"import causeway_helpers\ncauseway_helpers.shared = 5">>),
    ?assertEqual({ok, 5}, in_process(fun() -> py:eval(<<"__import__('causeway_helpers').shared">>) end)).

classes_and_decorators(_Config) ->
    ok = py:exec(<<"import dataclasses, typing\n@dataclasses.dataclass\nclass Point:\n    x: int\n    y: 'int' = 2\n">>),
    ?assertEqual({ok, {1, 2}}, py:eval(<<"(Point(1).x, Point(1).y)">>)),
    ?assertEqual({ok, <<"__main__">>}, py:eval(<<"Point.__module__">>)).

own_names_shadow_main(_Config) ->
    ?assertEqual({ok, <<"__main__">>}, py:eval(<<"__name__">>)),
    ok = py:exec(<<"import sys\nsys.modules['__main__'].common = 'main'">>),
    ?assertEqual({ok, true}, py:eval(<<"__import__('__main__').common == 'main'">>)).

locals_do_not_stay(_Config) ->
    ?assertEqual({ok, 1}, py:eval(<<"passing">>, #{passing => 1})),
    ?assertMatch({error, {'NameError', _}}, py:eval(<<"passing">>)),
    ?assertEqual({ok, 3}, py:eval(<<"(walrus := 3)">>)).

builtins_are_there(_Config) ->
    ?assertEqual({ok, 3}, in_process(fun() -> py:eval(<<"len([1, 2, 3])">>) end)),
    ok = in_process(fun() -> py:exec(<<"len = None">>) end),
    ?assertEqual({ok, 3}, py:eval(<<"len([1, 2, 3])">>)).

names_survive_a_restart_of_the_context(_Config) ->
    Context = py:context(1),
    ok = py:exec(Context, <<"lasting = 1">>),
    Monitor = monitor(process, Context),
    exit(Context, kill),
    ok = causeway_ct:expect({'DOWN', Monitor, process, Context, killed}),
    ok = causeway_ct:wait_until(fun() -> is_pid(py:context(1)) andalso py:context(1) =/= Context end),
    ?assertEqual({ok, 1}, py:eval(py:context(1), <<"lasting">>)).

names_go_with_the_process(_Config) ->
    in_process(fun() ->
                       ok = py:exec(<<"import causeway_helpers\nthing = causeway_helpers.make_thing('namespace')">>),
                       {ok, true} = py:call(causeway_helpers, thing_lives, [<<"namespace">>])
               end),
    ok = causeway_ct:wait_until(fun() -> {ok, false} =:= py:call(causeway_helpers, thing_lives, [<<"namespace">>]) end).

%% 400 processes with 1 MB each, which would be 400 MB.
memory_goes_with_the_process(_Config) ->
    Round = fun() ->
                    [in_process(fun() -> py:exec(<<"block = bytes(1 << 20)\nself_made = lambda: block">>) end)
                     || _ <- lists:seq(1, 100)],
                    {ok, _} = py:call(gc, collect, [])
            end,
    Round(),
    Before = causeway_ct:rss(),
    Round(), Round(), Round(), Round(),
    {ok, _} = py:call(gc, collect, []),
    ?assert(causeway_ct:rss() - Before < 100 bsl 20).

process_that_ends_during_its_call(_Config) ->
    Test = self(),
    {Caller, Monitor} = spawn_monitor(fun() ->
                                              ok = py:exec(<<"import causeway_helpers\nthing = causeway_helpers.make_thing('during')">>),
                                              py:call(causeway_helpers, loop_and_tell, [Test])
                                      end),
    ok = causeway_ct:expect(<<"running">>),
    exit(Caller, kill),
    ok = causeway_ct:expect({'DOWN', Monitor, process, Caller, killed}),
    ok = causeway_ct:expect(<<"CallInterrupted">>),
    ok = causeway_ct:wait_until(fun() -> {ok, false} =:= py:call(causeway_helpers, thing_lives, [<<"during">>]) end).

%% Many short-lived processes, whose pids are sometimes used again.
calls_after_the_end_start_empty(_Config) ->
    [?assertMatch({error, {'NameError', _}},
                  in_process(fun() ->
                                     Result = py:eval(<<"leftover">>),
                                     ok = py:exec(<<"leftover = 1">>),
                                     Result
                             end))
     || _ <- lists:seq(1, 500)].

spawned_calls_see_the_spawners_names(_Config) ->
    ok = py:exec(<<"def mine(): return 'mine'">>),
    ?assertEqual({ok, <<"mine">>}, py:await(py:spawn_call('__main__', mine, []))),
    ok = py:exec(<<"import erlang\ndef tell(pid): erlang.send(pid, 'cast')">>),
    ok = py:cast('__main__', tell, [self()]),
    ok = causeway_ct:expect(<<"cast">>).

two_calls_of_one_process_at_once(_Config) ->
    {ok, [One, Other | _]} = py:start_contexts(2),
    ok = py:exec(<<"import causeway_helpers\nfrom causeway_helpers import *\ndef wait(pid):\n    result = wait_at_gate(pid)\n    return (result, seen)\n">>),
    {ok, none} = py:call(causeway_helpers, close_gate, []),
    Waiting = py:spawn_call(One, '__main__', wait, [self()]),
    ok = causeway_ct:expect(<<"running">>),
    ok = py:exec(Other, <<"seen = 42">>),
    {ok, none} = py:call(Other, causeway_helpers, open_gate, []),
    ?assertEqual({ok, {<<"passed">>, 42}}, py:await(Waiting)).

in_process(Fun) ->
    Test = self(),
    {Process, Monitor} = spawn_monitor(fun() -> Test ! {self(), Fun()} end),
    receive
        {Process, Result} ->
            %% Over, not only answered.
            receive {'DOWN', Monitor, process, Process, _} -> Result end;
        {'DOWN', Monitor, process, Process, Reason} ->
            error(Reason)
    end.
