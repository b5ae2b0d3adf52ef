%% @doc The unmodified uvicorn serves an application of FastAPI on the event loops of contexts.
-module(py_asgi_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-define(HELPERS, asgi_helpers).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [server_in_a_call, server_in_a_task, protocol_on_a_socket, interrupted_server, load].

init_per_suite(Config) ->
    Config1 = causeway_ct:start(Config),
    ok = py:register_function(asgi_stock, fun([<<"pears">>]) -> 3; ([_]) -> none end),
    Config1.

end_per_suite(Config) ->
    ok = py:unregister_function(asgi_stock),
    causeway_ct:stop(Config).

init_per_testcase(_Case, Config) ->
    true = register(?MODULE, self()),
    causeway_ct:start_context(Config).

end_per_testcase(_Case, Config) ->
    ok = py_reactor_context:stop(causeway_ct:context(Config)),
    ?assertEqual([], causeway_ct:mailbox()).

%% As people run it: a call that serves until the server is told to end, while the context does other things as well.
server_in_a_call(Config) ->
    Context = causeway_ct:context(Config),
    Descriptors = descriptors(Context),
    [begin
         Call = py:spawn_call(Context, ?HELPERS, run, [Http]),
         Port = serving(),
         use(Context, Port),
         %% Requests that there are get their answers.
         {ok, none} = py:call(Context, ?HELPERS, 'end', []),
         causeway_ct:expect(shut_down),
         ?assertEqual({ok, none}, py:await(Call))
     end || Http <- [h11, httptools]],
    causeway_ct:settled(fun causeway_ct:descriptors/0, Descriptors).

%% On the context's own loop, on a socket that Erlang has bound.
server_in_a_task(Config) ->
    Context = causeway_ct:context(Config),
    Descriptors = descriptors(Context),
    {Port, Fd} = listener(),
    Task = py:async_call(Context, ?HELPERS, serve, [Fd]),
    ?assertEqual(Port, serving()),
    use(Context, Port),
    ok = py_event_loop:cancel(Task),
    causeway_ct:expect(shut_down),
    causeway_ct:expect(ended),
    causeway_ct:settled(fun causeway_ct:descriptors/0, Descriptors).

protocol_on_a_socket(Config) ->
    Context = causeway_ct:context(Config),
    [begin
         {Port, Fd} = listener(),
         ?assertEqual({ok, none}, py:async_await(py:async_call(Context, ?HELPERS, serve_protocol, [Fd, Http]))),
         use(Context, Port),
         ?assertEqual({ok, none}, py:async_await(py:async_call(Context, ?HELPERS, stop_protocol, []))),
         ?assertEqual({error, econnrefused}, gen_tcp:connect("127.0.0.1", Port, []))
     end || Http <- [h11, httptools]].

%% Whoever has called ends, in the middle of a request: the server is gone, and the context goes on.
interrupted_server(Config) ->
    Context = causeway_ct:context(Config),
    Descriptors = descriptors(Context),
    Caller = spawn(fun() -> py:call(Context, ?HELPERS, run, [httptools]) end),
    Port = serving(),
    Other = causeway_ct:context(),
    Task = py:async_call(Other, ?HELPERS, ask, [Port, <<"/never">>]),
    causeway_ct:expect(requested),
    exit(Caller, kill),
    %% That is what uvicorn answers where the task of a request is cancelled.
    ?assertEqual({ok, 500}, py:async_await(Task)),
    ok = py_reactor_context:stop(Other),
    ?assertEqual({ok, 4.0}, py:call(Context, math, sqrt, [16])),
    causeway_ct:settled(fun causeway_ct:descriptors/0, Descriptors),
    ?assertEqual({error, econnrefused}, gen_tcp:connect("127.0.0.1", Port, [])).

%% 50 connections that ask as fast as they can: every answer is right, and calls and tasks have their turn.
load(Config) ->
    case os:find_executable("wrk") of
        false -> {skip, "wrk is not installed"};
        Wrk -> load(Wrk, causeway_ct:context(Config))
    end.

load(Wrk, Context) ->
    {Port, Fd} = listener(),
    Task = py:async_call(Context, ?HELPERS, serve, [Fd]),
    Port = serving(),
    Site = lists:concat(["http://127.0.0.1:", Port, "/stock/pears"]),
    Program = open_port({spawn_executable, Wrk},
                        [{args, ["-t1", "-c50", "-d1s", Site]}, exit_status, stderr_to_stdout]),
    {Output, Count} = calls_until_end(Context, Program, 0, []),
    ct:log("~ts~b calls meanwhile", [Output, Count]),
    %% wrk tells of errors only where there are some.
    ?assertEqual(nomatch, re:run(Output, "Socket errors|Non-2xx")),
    {match, [Requests]} = re:run(Output, "(\\d+) requests in", [{capture, [1], list}]),
    ?assert(list_to_integer(Requests) > 0),
    ?assert(Count > 0),
    ok = py_event_loop:cancel(Task),
    causeway_ct:expect(shut_down),
    causeway_ct:expect(ended).

%% What the program has said, and how many calls and tasks there were until its end.
calls_until_end(Context, Program, Count, Output) ->
    receive
        {Program, {data, Text}} -> calls_until_end(Context, Program, Count, [Output, Text]);
        {Program, {exit_status, 0}} -> {Output, Count}
    after 0 ->
        ?assertEqual({ok, 4.0}, py:call(Context, math, sqrt, [16])),
        ?assertEqual({ok, <<"erlang._loop">>}, py:async_await(py:async_call(Context, ?HELPERS, loop_kind, []))),
        calls_until_end(Context, Program, Count + 1, Output)
    end.

%% Others

%% After the first task, and its first call of Erlang: what a loop needs for these stays as long as the loop.
descriptors(Context) ->
    {ok, 3} = py:async_await(py:async_call(Context, erlang, async_call, [asgi_stock, <<"pears">>])),
    causeway_ct:descriptors().

%% A socket that listens, and belongs to nobody: its port and descriptor.
listener() ->
    {ok, Listener} = gen_tcp:listen(0, [{ip, {127, 0, 0, 1}}, {backlog, 128}]),
    {ok, Port} = inet:port(Listener),
    {ok, Fd} = inet:getfd(Listener),
    {ok, Duplicate} = py:dup_fd(Fd),
    ok = gen_tcp:close(Listener),
    {Port, Duplicate}.

%% The port of the server that starts.
serving() ->
    causeway_ct:expect(started_up),
    receive {serving, Port} -> Port after 30000 -> error(not_serving) end.

%% Everything that the application does, asked from the loop that serves it, and from another.
use(Context, Port) ->
    Other = causeway_ct:context(),
    [begin
         ?assertEqual({ok, none}, py:async_await(py:async_call(Asker, ?HELPERS, use, [Port]))),
         causeway_ct:expect({ordered, <<"pears">>, 2})
     end || Asker <- [Context, Other]],
    ok = py_reactor_context:stop(Other).
