%% @doc What the suites of halves of streaming calls share: halves, and processes that wait for them.
-module(rpc_halves).

-include_lib("stdlib/include/assert.hrl").

-export([half/1, pair/0, pair/1, waiters/1, told/1]).
-export([await/1, result/1, is_waiting/1, kill/1, no_messages/0]).

-define(S, causeway_rpc_stream).

-type waiter() :: {pid(), Monitor :: reference()}.

%% @doc One of the caller's.
-spec half(map()) -> causeway_rpc_stream:stream().
half(Opts) ->
    {ok, Stream} = ?S:start_link(maps:merge(#{id => id, role => client, mode => bidi, owner => self()}, Opts)),
    Stream.

%% @doc The same as `pair(#{})'.
-spec pair() -> {causeway_rpc_stream:stream(), causeway_rpc_stream:stream()}.
pair() ->
    pair(#{}).

%% @doc Two that are joined.
-spec pair(map()) -> {causeway_rpc_stream:stream(), causeway_rpc_stream:stream()}.
pair(Opts) ->
    Halves = {A, B} = {half(Opts), half(Opts#{role => server})},
    ok = ?S:pair(A, B),
    Halves.

%% @doc How many wait for a chunk.
-spec waiters(causeway_rpc_stream:stream()) -> non_neg_integer().
waiters(Stream) ->
    maps:get(waiters, ?S:info(Stream)).

%% @doc The next of what an owner is told.
-spec told(causeway_rpc_stream:stream()) -> term().
told(Stream) ->
    receive {rpc, Stream, What} -> What after 5000 -> nothing end.

%% @doc Has a process do something for which it waits.
-spec await(fun(() -> term())) -> waiter().
await(Fun) ->
    spawn_monitor(fun() -> exit({result, Fun()}) end).

%% @doc What came of it.
-spec result(waiter()) -> term().
result({_Process, Monitor}) ->
    receive {'DOWN', Monitor, process, _, {result, Result}} -> Result after 10000 -> still_waiting end.

%% @doc Whether it waits now.
-spec is_waiting(waiter()) -> boolean().
is_waiting({Process, _Monitor}) ->
    process_info(Process, status) =:= {status, waiting}.

%% @doc Ends it, and waits until it has ended.
-spec kill(waiter()) -> ok.
kill({Process, Monitor}) ->
    exit(Process, kill),
    receive {'DOWN', Monitor, process, _, killed} -> ok end.

%% @doc That nothing is left in the caller's mailbox.
-spec no_messages() -> ok.
no_messages() ->
    ?assertEqual({messages, []}, process_info(self(), messages)).
