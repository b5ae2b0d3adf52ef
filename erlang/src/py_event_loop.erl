%% @doc Tasks of Python's asyncio in the event loops of contexts.
%%
%% Each context has an event loop of its own, an `erlang.EventLoop', from its first task on. It goes on between the
%% context's calls, and while these wait for Erlang or for a loop of their own.
%%
%% A task is given up by its time-out, by {@link cancel/1}, and by the end of the process that has started it: Python
%% raises `asyncio.CancelledError' in it. Where it holds up its loop for 20 ms more instead of coming to where it would
%% be told, `erlang.CallInterrupted' is raised in what it executes, and the loop goes on.
-module(py_event_loop).

-export([create_task/3, create_task/4, await/1, await/2, cancel/1, gather/2]).
-export_type([options/0]).

-type options() :: #{context => pid(),
                     kwargs => py:kwargs(),
                     timeout => timeout(),
                     error => pair | map,
                     detached => boolean()}.
%% `context': in whose loop it runs, by default one of the pool. `kwargs': arguments by name. `timeout', in
%% milliseconds and `infinity' by default, cancels the task, and its result is `{error, timeout}' then.
%% `error': how an exception is told, `pair' by default. A task that is `detached', `false' by default, lives
%% on when the process ends that has started it, and nobody can wait for it: it takes neither `timeout' nor
%% `error'.

-define(TIMEOUT, 30000).

%% @doc Starts a coroutine function as a task; also one that the process has defined by {@link py:exec/1}, in the module
%% `\'__main__\''. Returns at once. What is no coroutine is the result itself.
%%
%% An error here is only that there is no context, that too many calls wait for it, or a wrong argument. The
%% task is one of `asyncio.ensure_future'.
-spec create_task(py:name(), py:name(), py:args()) -> reference() | py:error().
create_task(Module, Function, Args) ->
    create_task(Module, Function, Args, #{}).

%% @doc The same with options. A `detached' task has no reference: `ok' is returned.
-spec create_task(py:name(), py:name(), py:args(), options()) -> reference() | ok | py:error().
create_task(Module, Function, Args, Options) when is_map(Options) ->
    Place = maps:get(context, Options, pool),
    Request = {async, {call, Module, Function, Args, maps:get(kwargs, Options, #{})}},
    case Options of
        #{context := NoPid} when not is_pid(NoPid) ->
            py_call:badarg("the option context is the pid of a context, not ~tP", [NoPid, 8]);
        #{detached := true} when is_map_key(timeout, Options); is_map_key(error, Options) ->
            py_call:badarg("a detached task has no time-out and no form of errors: ~tP", [Options, 8]);
        #{detached := true} ->
            py_request:cast(Place, Request);
        #{detached := NoBoolean} when NoBoolean =/= false ->
            py_call:badarg("the option detached is true or false, not ~tP", [NoBoolean, 8]);
        _ ->
            started(py_request:start(Place, Request, maps:without([context, detached], Options)))
    end;
create_task(_Module, _Function, _Args, Options) ->
    py_call:badarg("the options of a task are a map, not ~tP", [Options, 8]).

started({ok, Reference}) -> Reference;
started(Error) -> Error.

%% @doc Waits at most 30 seconds for what a task comes to.
-spec await(reference()) -> py:result().
await(Reference) ->
    await(Reference, ?TIMEOUT).

%% @doc The same with a time-out in milliseconds; after that the task goes on, and can be awaited again.
%%
%% `{error, {unknown_call, _}}' where it was awaited already, or is another process's.
-spec await(reference(), timeout()) -> py:result().
await(Reference, Timeout) ->
    py_request:await(Reference, Timeout).

%% @doc Cancels a task of the calling process: Python raises `asyncio.CancelledError' in it. Returns at once.
%% No result of it comes any more. A task that has ended is no error.
-spec cancel(reference()) -> ok | py:error().
cancel(Reference) ->
    py_request:cancel(Reference).

%% @private
%% @doc See {@link py:async_gather/2}.
-spec gather([tuple()], timeout()) ->
          {ok, [term()]} | {error, {gather_failed, [{pos_integer(), term()}]}} | py:error().
gather(Calls, Timeout) when is_list(Calls) ->
    case {py_request:is_timeout(Timeout), py:context()} of
        {true, Context} when is_pid(Context) ->
            settled([start(Context, Call) || Call <- Calls], limit(Timeout));
        {true, Error} ->
            Error;
        {false, _} ->
            py_call:badarg("a time-out is a number of milliseconds from 0 to 4294967295 or infinity, not ~tP",
                           [Timeout, 8])
    end;
gather(Calls, _Timeout) ->
    py_call:badarg("async_gather needs a list of {Module, Function, Args} or {Module, Function, Args, Kwargs}, not ~tP",
                   [Calls, 8]).

start(Context, {Module, Function, Args}) ->
    start(Context, {Module, Function, Args, #{}});
start(Context, {Module, Function, Args, Kwargs}) ->
    py_request:start(Context, {async, {call, Module, Function, Args, Kwargs}});
start(_Context, Other) ->
    py_call:badarg("a call is {Module, Function, Args} or {Module, Function, Args, Kwargs}, not ~tP", [Other, 8]).

limit(infinity) -> infinity;
limit(Timeout) -> erlang:monotonic_time(millisecond) + Timeout.

settled(Started, Limit) ->
    Results = [result(Start, Limit) || Start <- Started],
    Failures = [{Index, Reason} || {Index, {error, Reason}} <- lists:enumerate(Results)],
    case Failures of
        [] -> {ok, [Value || {ok, Value} <- Results]};
        _ -> {error, {gather_failed, Failures}}
    end.

result({ok, Reference}, Limit) ->
    case py_call:await(Reference, left(Limit)) of
        {error, timeout} ->
            ok = py_call:cancel(Reference),
            {error, timeout};
        Result ->
            Result
    end;
result({error, _} = Error, _Limit) ->
    Error.

left(infinity) -> infinity;
left(Limit) -> max(0, Limit - erlang:monotonic_time(millisecond)).
