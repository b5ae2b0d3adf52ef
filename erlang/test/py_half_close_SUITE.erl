%% @doc A peer that sends nothing more, but still reads.
-module(py_half_close_SUITE).

-compile([export_all, nowarn_export_all]).

-import(socket_ct, [use/1, context/0, pair/2, told/1, made/0, lost/1, read_all/1, read/2, stats/2]).

-include_lib("stdlib/include/assert.hrl").

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [default_writes_what_is_left, told_once_and_writes_on, half_open_costs_nothing, half_open_ends_with_the_peer, half_open_that_waited_ends_with_the_peer,
     end_of_a_raising_protocol].

init_per_suite(Config) -> causeway_ct:start(Config).

init_per_testcase(_Case, Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

default_writes_what_is_left(_Config) ->
    use('Answer'),
    Context = context(),
    [begin
         {Client, Fd} = connected(Context, Family),
         ok = gen_tcp:send(Client, <<"question">>),
         ok = gen_tcp:shutdown(Client, write),
         ?assert(megabytes() =:= read_all(Client)),
         ok = lost(Fd)
     end || Family <- socket_ct:families()].

told_once_and_writes_on(_Config) ->
    use('HalfOpenUntilWritten'),
    Context = context(),
    [begin
         {Client, Fd} = connected(Context, Family),
         ok = gen_tcp:send(Client, <<"all of it">>),
         ok = gen_tcp:shutdown(Client, write),
         {<<"eof">>} = told(<<"eof">>),
         ?assertEqual({<<"data">>, <<"all of it">>}, told(<<"data">>)),
         ?assert(megabytes() =:= read_all(Client)),
         ok = lost(Fd),
         ?assertEqual([], causeway_ct:mailbox())
     end || Family <- socket_ct:families()].

%% It is readable for ever, as the kernel sees it.
half_open_costs_nothing(_Config) ->
    use('HalfOpen'),
    Context = context(),
    {Client, _Fd} = connected(Context, inet),
    ok = gen_tcp:shutdown(Client, write),
    ?assert(megabytes() =:= read(Client, byte_size(megabytes()))),
    Parks = stats(Context, parks),
    ok = causeway_ct:wait_until(fun() -> stats(Context, parks) > Parks orelse stats(Context, parks) > 0 end),
    Before = maps:with([read_waits, batches], py_reactor_context:stats(Context)),
    ?assert(socket_ct:idle_ticks() =< 2),
    After = maps:with([read_waits, batches], py_reactor_context:stats(Context)),
    [?assert(maps:get(Key, After) - maps:get(Key, Before) =< 3) || Key <- [read_waits, batches]],
    ?assertEqual(1, stats(Context, active_connections)).

half_open_ends_with_the_peer(_Config) ->
    use('HalfOpen'),
    Context = context(),
    [begin
         {Client, Fd} = connected(Context, Family),
         ok = gen_tcp:shutdown(Client, write),
         _ = read(Client, byte_size(megabytes())),
         {<<"eof">>} = told(<<"eof">>),
         Family =:= local orelse inet:setopts(Client, [{linger, {true, 0}}]),
         ok = gen_tcp:close(Client),
         ok = lost(Fd),
         ?assertEqual([], causeway_ct:mailbox())
     end || Family <- socket_ct:families()].

%% The peer is gone while the protocol waits for a signal, which is not waited for then.
half_open_that_waited_ends_with_the_peer(_Config) ->
    use('HalfOpenUntilSignalled'),
    Context = context(),
    {Client, Fd} = connected(Context, local),
    ok = gen_tcp:shutdown(Client, write),
    {<<"eof">>} = told(<<"eof">>),
    ok = gen_tcp:close(Client),
    ok = lost(Fd).

end_of_a_raising_protocol(_Config) ->
    use('RaisesAtTheEnd'),
    Context = context(),
    {Client, Fd} = connected(Context, inet),
    ok = gen_tcp:shutdown(Client, write),
    ok = lost(Fd),
    ?assertEqual(<<>>, read_all(Client)),
    ?assertEqual(1, stats(Context, errors)).

connected(Context, Family) ->
    {Client, Server} = pair(port, Family),
    ok = py_reactor_context:handoff(Context, Server, #{}),
    {Fd, _} = made(),
    {Client, Fd}.

megabytes() ->
    {ok, Megabytes} = py:call(socket_protocols, megabytes, []),
    Megabytes.
