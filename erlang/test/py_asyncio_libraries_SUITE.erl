%% @doc Libraries of asyncio that people use, unmodified, on the event loops of contexts: aiohttp's server and client, httpx
%% with anyio, and both ends of websockets.
-module(py_asyncio_libraries_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-define(HELPERS, library_helpers).
-define(LIBRARIES, [aiohttp, httpx, websockets]).
-define(AT_ONCE, 50).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [one_loop, two_contexts, host_names, many_at_once, alone_in_the_foreground, tls, library_times_out, task_is_cancelled,
     caller_dies, server_ends_first, nothing_is_left, context_ends].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_testcase(Case, Config) ->
    true = register(Case, self()),
    [{name, atom_to_binary(Case)} | causeway_ct:start_context(Config)].

end_per_testcase(_Case, Config) ->
    ok = py_reactor_context:stop(causeway_ct:context(Config)),
    ?assertEqual([], causeway_ct:mailbox()).

name(Config) -> proplists:get_value(name, Config).

%% Work

one_loop(Config) ->
    Context = causeway_ct:context(Config),
    Site = serve(Config, Context),
    [ask(Context, Library, Site, 1) || Library <- ?LIBRARIES],
    stop(Site).

two_contexts(Config) ->
    Site = serve(Config, causeway_ct:context(Config)),
    Other = causeway_ct:context(),
    [ask(Other, Library, Site, 1) || Library <- ?LIBRARIES],
    stop(Site),
    ok = py_reactor_context:stop(Other).

%% Names are resolved in a thread of the loop's executor.
host_names(Config) ->
    Context = causeway_ct:context(Config),
    {_, Http, Other} = Site = serve(Config, Context),
    [begin
         Task = py:async_call(Context, ?HELPERS, ask, [Library, Http, Other, 1, <<"localhost">>]),
         ?assertEqual({Library, {ok, none}}, {Library, py:async_await(Task)})
     end || Library <- ?LIBRARIES],
    stop(Site).

%% The context serves calls meanwhile.
many_at_once(Config) ->
    Context = causeway_ct:context(Config),
    {_, Http, Other} = Site = serve(Config, Context),
    [begin
         Task = py:async_call(Context, ?HELPERS, ask, [Library, Http, Other, ?AT_ONCE]),
         ?assertEqual({ok, 4.0}, py:call(Context, math, sqrt, [16])),
         ?assertEqual({Library, {ok, none}}, {Library, py:async_await(Task)})
     end || Library <- ?LIBRARIES],
    stop(Site).

alone_in_the_foreground(Config) ->
    ?assertEqual({ok, []}, py:call(causeway_ct:context(Config), ?HELPERS, run_alone, [])).

tls(Config) ->
    ?assertEqual({ok, []}, py:call(causeway_ct:context(Config), ?HELPERS, run_alone, [true])).

%% Ends in the middle: the server's handler ends as well, and all goes on afterwards.

library_times_out(Config) ->
    Context = causeway_ct:context(Config),
    {_, Http, _} = Site = serve(Config, Context),
    [begin
         Task = py:async_call(Context, ?HELPERS, wait_shortly, [Library, name(Config), Http]),
         ?assertEqual({ok, How}, py:async_await(Task)),
         abandoned()
     end || {Library, How} <- [{aiohttp, <<"TimeoutError">>}, {httpx, <<"ReadTimeout">>}, {anyio, <<"cancelled">>}]],
    ask(Context, aiohttp, Site, 1),
    stop(Site).

task_is_cancelled(Config) ->
    Context = causeway_ct:context(Config),
    {_, Http, _} = Site = serve(Config, Context),
    [begin
         Tasks = [py:async_call(Context, ?HELPERS, wait, [Library, name(Config), Http]) || _ <- lists:seq(1, ?AT_ONCE)],
         [causeway_ct:expect(requested) || _ <- Tasks],
         [ok = py_event_loop:cancel(Task) || Task <- Tasks],
         [causeway_ct:expect(abandoned) || _ <- Tasks]
     end || Library <- [aiohttp, httpx]],
    ask(Context, httpx, Site, 1),
    stop(Site).

caller_dies(Config) ->
    Context = causeway_ct:context(Config),
    {_, Http, _} = Site = serve(Config, Context),
    Caller = spawn(fun() -> py:async_await(py:async_call(Context, ?HELPERS, wait, [httpx, name(Config), Http])) end),
    causeway_ct:expect(requested),
    exit(Caller, kill),
    causeway_ct:expect(abandoned),
    stop(Site).

server_ends_first(Config) ->
    {_, Http, _} = Site = serve(Config, causeway_ct:context(Config)),
    Other = causeway_ct:context(),
    Task = py:async_call(Other, ?HELPERS, wait, [httpx, name(Config), Http]),
    causeway_ct:expect(requested),
    stop(Site),
    causeway_ct:expect(abandoned),
    ?assertMatch({error, {'RemoteProtocolError', _}}, py:async_await(Task)),
    ok = py_reactor_context:stop(Other).

%% The end

nothing_is_left(Config) ->
    Context = causeway_ct:context(Config),
    {ok, 0} = py:async_await(py:async_call(Context, ?HELPERS, tasks, [])),
    Descriptors = causeway_ct:descriptors(),
    Native = causeway_ct:threads(),
    Site = serve(Config, Context),
    [ask(Context, Library, Site, 5) || Library <- ?LIBRARIES],
    stop(Site),
    ?assertEqual({ok, 0}, py:async_await(py:async_call(Context, ?HELPERS, tasks, []))),
    causeway_ct:settled(fun causeway_ct:descriptors/0, Descriptors),
    %% aiohttp compresses large messages in the loop's executor, whose threads stay as long as the loop.
    {ok, none} = py:async_await(py:async_call(Context, ?HELPERS, end_executor, [])),
    causeway_ct:settled(fun causeway_ct:threads/0, Native).

%% Nobody tidies up but the context itself, and Python still has the loop.
context_ends(Config) ->
    Descriptors = causeway_ct:descriptors(),
    Native = causeway_ct:threads(),
    {ok, Context} = py_reactor_context:start_link(7, worker),
    {Serving, Http, Other} = serve(Config, Context),
    {ok, none} = py:async_await(py:async_call(Context, ?HELPERS, keep_loop, [])),
    Busy = [py:async_call(Context, ?HELPERS, keep_busy, [name(Config), Http, Other]) || _ <- lists:seq(1, 10)],
    [causeway_ct:expect(busy) || _ <- Busy],
    ok = py_reactor_context:stop(Context),
    causeway_ct:expect(stopped),
    [?assertMatch({error, {context_stopped, _}}, py:async_await(Task)) || Task <- [Serving | Busy]],
    causeway_ct:settled(fun causeway_ct:descriptors/0, Descriptors),
    causeway_ct:settled(fun causeway_ct:threads/0, Native),
    ?assertEqual({ok, [true]}, py:call(causeway_ct:context(Config), ?HELPERS, are_closed, [])).

%% Others

%% The task that serves, and the ports of aiohttp and of websockets.
serve(Config, Context) ->
    Task = py:async_call(Context, ?HELPERS, serve, [name(Config)]),
    receive
        {serving, Http, Other} -> {Task, Http, Other}
    after 30000 -> error({not_serving, py:async_await(Task, 0)})
    end.

stop({Task, _, _}) ->
    ok = py_event_loop:cancel(Task),
    causeway_ct:expect(stopped).

ask(Context, Library, {_, Http, Other}, Times) ->
    Task = py:async_call(Context, ?HELPERS, ask, [Library, Http, Other, Times]),
    ?assertEqual({Library, {ok, none}}, {Library, py:async_await(Task)}).

abandoned() ->
    causeway_ct:expect(requested),
    causeway_ct:expect(abandoned).
