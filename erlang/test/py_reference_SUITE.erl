%% @doc References to Python objects and the interpreters that these belong to: a call finds its way there by itself.
-module(py_reference_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

suite() -> [{timetrap, {seconds, 60}}].

all() -> [{group, Group} || {Group, _, _} <- groups()].

groups() ->
    [{Mode, [], [in_a_pool, in_a_pool_of_workers, workers_beside_a_pool, of_a_context_that_has_stopped, freed_after_the_end,
                 of_two_interpreters, a_named_context_counts]} || Mode <- [subinterp, owngil]].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_group(Mode, Config) ->
    case Mode =:= subinterp orelse py:eval(<<"__import__('sys').version_info >= (3, 12)">>) =:= {ok, true} of
        true -> [{mode, Mode} | Config];
        false -> {skip, "needs Python 3.12"}
    end.

end_per_group(_Mode, _Config) ->
    ok.

end_per_testcase(_Case, _Config) ->
    pool(worker).

%% The default pool has two contexts of a mode.
pool(Mode) ->
    ok = py:stop_contexts(),
    {ok, [_, _]} = py:start_contexts(#{mode => Mode, number => 2}),
    ok.

start(Config) ->
    {ok, Context} = py_context:start_link(#{mode => proplists:get_value(mode, Config)}),
    Context.

counter(Context) ->
    {ok, Ref} = py:call(Context, collections, 'Counter', [<<"abracadabra">>], #{result => ref}),
    Ref.

%% Each context of the pool has its own interpreter, and one of them serves this process.
in_a_pool(Config) ->
    ok = pool(proplists:get_value(mode, Config)),
    [is_usable(counter(py:context(Place))) || Place <- [1, 2]].

in_a_pool_of_workers(Config) ->
    Context = start(Config),
    is_usable(counter(Context)),
    ok = py_context:stop(Context).

%% An object of the main interpreter, while the pool has none of its contexts.
workers_beside_a_pool(Config) ->
    ok = pool(proplists:get_value(mode, Config)),
    {ok, Worker} = py_context:start_link(#{}),
    Ref = counter(Worker),
    is_usable(Ref),
    ok = py_context:stop(Worker),
    is_usable(Ref).

%% By every function that takes an object and no context.
is_usable(Ref) ->
    ?assertEqual({ok, [{<<"a">>, 5}]}, py:call_method(Ref, most_common, [1])),
    ?assertEqual({ok, <<"Counter">>}, py:getattr(Ref, '__class__.__name__')),
    ?assertMatch({ok, #{<<"a">> := 5}}, py:to_term(Ref)),
    ?assertEqual({ok, 5}, py:call(builtins, len, [Ref])),
    ?assertEqual({ok, #{<<"a">> => 1}}, py:call(builtins, dict, [#{a => 1}], #{}, 5000)),
    ?assertMatch({ok, #{<<"them">> := _}}, py:call(builtins, dict, [], #{them => Ref})),
    ?assertEqual({ok, 5}, py:eval(<<"them['a']">>, #{them => Ref})),
    ?assertEqual({ok, 5}, py:await(py:spawn_call(builtins, len, [Ref]))),
    ?assertEqual({ok, [<<"a">>, <<"b">>, <<"c">>, <<"d">>, <<"r">>]}, sorted(py:stream(builtins, iter, [Ref]))),
    ?assertEqual({ok, [5]}, py:stream_eval(<<"[them['a']]">>, #{them => Ref})),
    {ok, Stream} = py:stream_start(builtins, iter, [Ref]),
    receive {py_stream, Stream, {data, <<"a">>}} -> ok end,
    ok = py:stream_cancel(Stream),
    ok = py:cast(operator, setitem, [Ref, <<"cast">>, 1]),
    causeway_ct:wait_until(fun() -> {ok, 1} =:= py:call_method(Ref, get, [<<"cast">>]) end),
    {ok, none} = py:call_method(Ref, '__delitem__', [<<"cast">>]).

sorted({ok, List}) -> {ok, lists:sort(List)}.

%% Also where the next context has the same interpreter: it is isolated from the one before.
of_a_context_that_has_stopped(Config) ->
    Context = start(Config),
    Ref = counter(Context),
    ok = py_context:stop(Context),
    is_gone(Ref, []),
    Next = start(Config),
    is_gone(Ref, [Next, py:context(1)]),
    ?assertEqual({ok, 5}, py:call_method(counter(Next), '__len__', [])),
    ok = py_context:stop(Next),
    ?assert(py:is_ref(Ref)).

is_gone(Ref, Contexts) ->
    [?assertMatch({error, {context_stopped, <<_/binary>>}}, Result)
     || Result <- [py:call_method(Ref, most_common, [1]), py:getattr(Ref, '__class__'), py:to_term(Ref),
                   py:call(builtins, len, [Ref]), py:eval(<<"them">>, #{them => Ref}), py:spawn_call(builtins, len, [Ref]),
                   py:cast(builtins, len, [Ref]), py:stream(builtins, iter, [Ref]), py:stream_start(builtins, iter, [Ref])]],
    %% Within a list nobody looks for it; and here a context is named.
    [begin
         {error, {'ValueError', Text}} = Result,
         ?assertNotEqual(nomatch, string:find(Text, "has stopped"))
     end || Result <- [py:call(builtins, len, [[Ref]]) | lists:append([[py:to_term(Ref, #{context => Context}), py:call(Context, builtins, len, [Ref])]
                                                                       || Context <- Contexts])]].

%% What nobody can use any more is freed all the same.
freed_after_the_end(Config) ->
    Context = start(Config),
    ok = py:exec(Context, <<"import erlang\n"
                            "class Thing:\n"
                            "    def __init__(self, test): self.test = test\n"
                            "    def __del__(self, send=erlang.send): send(self.test, 'freed')\n">>),
    Test = self(),
    {Holder, Monitor} = spawn_monitor(fun() ->
                                              Held = receive {hold, Ref} -> Ref end,
                                              Test ! held,
                                              receive drop -> Held end
                                      end),
    (fun() ->
             {ok, Thing} = py:call(Context, '__main__', 'Thing', [Test]),
             Holder ! {hold, Thing}
     end)(),
    ok = causeway_ct:expect(held),
    erlang:garbage_collect(),
    ok = py_context:stop(Context),
    Next = start(Config),
    ?assertEqual([], causeway_ct:mailbox()),
    Holder ! drop,
    receive {'DOWN', Monitor, process, Holder, _} -> ok end,
    ok = causeway_ct:expect(<<"freed">>),
    ok = py_context:stop(Next).

%% There is no context where both are at home.
of_two_interpreters(Config) ->
    ok = pool(proplists:get_value(mode, Config)),
    Refs = [counter(py:context(Place)) || Place <- [1, 2]],
    {error, {'ValueError', Text}} = py:call(operator, eq, Refs),
    ?assertNotEqual(nomatch, string:find(Text, "another Python interpreter")),
    ?assertEqual({ok, true}, py:call(operator, eq, [hd(Refs), hd(Refs)])).

a_named_context_counts(Config) ->
    ok = pool(proplists:get_value(mode, Config)),
    Ref = counter(py:context(1)),
    ?assertMatch({error, {'ValueError', _}}, py:getattr(Ref, '__class__', #{context => py:context(2)})),
    ?assertMatch({error, {'ValueError', _}}, py:call(py:context(2), builtins, len, [Ref])),
    ?assertEqual({ok, 5}, py:call(py:context(1), builtins, len, [Ref])).
