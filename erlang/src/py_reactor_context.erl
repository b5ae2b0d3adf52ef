%% @doc Contexts that serve connections: Python protocols on file descriptors.
%%
%% A protocol is a subclass of `erlang.reactor.Protocol'; `erlang.reactor.set_protocol_factory' says which.
%% A socket or a descriptor is handed over by {@link handoff/3}, and is the reactor's from then on. Such a context
%% is a {@link py_context} like any other, and serves `py:call' as well. Where the factory makes a protocol of asyncio,
%% for a socket, the event loop of the context serves it.
-module(py_reactor_context).

-export([start_link/2, start_link/3, start_default/0, handoff/2, handoff/3, stats/1, diagnose/1, stop/1, stop/2]).
-export_type([mode/0, options/0, info/0, handle/0]).

-type mode() :: py_context:mode().
-type options() :: #{max_connections => non_neg_integer(),
                     linger => non_neg_integer() | infinity,
                     max_queue => pos_integer(),
                     app_module => py:name(),
                     app_callable => py:name(),
                     setup_code => iodata(),
                     factory => {Module :: py:name(), Name :: py:name()}}.
%% See {@link py_context:options()}, where each is explained.
-type info() :: #{atom() | binary() => term()}.
%% Becomes `client_info', its keys as `str'. `addr' may be as `inet:peername' or as `inet:ntoa' gives it.
-type handle() :: integer() | gen_tcp:socket() | gen_udp:socket() | socket:socket().
%% A number, or a socket of any of these modules: connected, listening, or of datagrams.

-define(DEFAULT, py_reactor_default).
%% How long a stopping context waits for its connections, in milliseconds.
-define(DRAIN, 5000).

%% @doc Starts a context with the default options. The same as `start_link(Id, Mode, #{})'.
-spec start_link(integer(), mode()) -> {ok, pid()} | {error, term()}.
start_link(Id, Mode) ->
    start_link(Id, Mode, #{}).

%% @doc Starts a context, as {@link py_context:start_link/1} does, with its options and errors. `setup_code'
%% is Python that runs before the first connection; where it raises, that is `{error, {setup_failed, _}}' with
%% the traceback.
-spec start_link(integer(), mode(), options()) -> {ok, pid()} | {error, term()}.
start_link(Id, Mode, #{} = Options) ->
    py_context:start_link(Options#{id => Id, mode => Mode});
start_link(_Id, _Mode, Options) ->
    py_context:start_link(Options).

%% @private
%% @doc The context that {@link handoff/2} uses, started with the application.
-spec start_default() -> {ok, pid()} | {error, term()}.
start_default() ->
    py_context:start_link(#{id => 0, name => ?DEFAULT}).

%% @doc Hands a socket or a descriptor to the default context, which is a worker whatever the mode of the pool.
%%
%% Where the contexts of the pool have an interpreter each (`context_mode'), a factory that Python has set in one of
%% them is known there only: then it is handed to such a context, to any where there are several. A context that is
%% restarted has none until Python sets one again; `start_link/3' with `setup_code' or `factory' makes contexts that do.
%%
%% `{error, no_reactor_context}' where the application does not run, and the errors of {@link handoff/3}.
-spec handoff(handle(), info()) -> ok | {error, term()}.
handoff(Handle, Info) ->
    case whereis(?DEFAULT) of
        undefined -> {error, no_reactor_context};
        Context ->
            case handoff(Context, Handle, Info) of
                {error, no_protocol_factory} = Error -> handoff_to_any(py_contexts:isolated(), Handle, Info, Error);
                Result -> Result
            end
    end.

handoff_to_any([], _Handle, _Info, Error) ->
    Error;
handoff_to_any([Context | Others], Handle, Info, Error) ->
    case handoff(Context, Handle, Info) of
        {error, no_protocol_factory} -> handoff_to_any(Others, Handle, Info, Error);
        %% Another may have room.
        {error, max_connections} = Full -> handoff_to_any(Others, Handle, Info, Full);
        %% It has just ended.
        {error, {no_context, _}} -> handoff_to_any(Others, Handle, Info, Error);
        Result -> Result
    end.

%% @doc Hands a socket or a descriptor to a context.
%%
%% It is the reactor's exactly when the result is `ok': it closes it when the connection ends. With an error
%% it is the caller's as before, with the options that it had. It does not wait for Python: the thread of the
%% context makes the protocol when it comes to that, and an exception there goes to logger and ends the
%% connection.
%%
%% A socket must be the calling process's. The reactor takes a duplicate of its descriptor and the socket is
%% closed, which does not end the connection: one descriptor remains. Where `Info' does not have them,
%% `addr' and `port' of the peer and the `type', `tcp', `udp' or `unix', are filled in. What a stream has received
%% already is what the protocol gets first: messages in the mailbox of the caller, also with the headers that
%% a packet mode has removed, and what Erlang holds. A peer that has closed meanwhile is the protocol's to find out.
%%
%% A listening socket accepts by itself from then on. Each of its connections has the keys of `Info', and `addr',
%% `port' and `type' of its own. While `max_connections' are served, and when the system is out of descriptors, the
%% others wait in the kernel's queue; being out of descriptors is logged. Several contexts may share a port,
%% each with a socket that was opened with SO_REUSEPORT.
%%
%% A number that is a socket's of the calling process (`inet:getfd/1') is handed over like that socket, but
%% nothing is filled in. Any other number is taken as it is: a duplicate by `py:dup_fd', a pipe, what Python
%% has opened. To find out that it is nobody else's, all ports of the node are asked: with thousands of them a
%% socket is handed over faster than a duplicate of its number.
%%
%% Errors: `badf' for what is not open, `eperm' for a file, `eexist' for a number that a reactor has
%% already, `max_connections', `emfile' where no descriptor is left that the reactor needs, `no_protocol_factory'
%% before Python has set one, `not_owner' for a socket, or the number of one, that belongs to another process,
%% `closed' for a socket that is, `{no_context, Text}' for a context that has stopped or is about to,
%% `{unsent, Text}' while the socket has something to send, `{unread, Text}' for messages in the mailbox that
%% cannot become bytes again, `{badarg, Text}'.
-spec handoff(pid(), handle(), info()) -> ok | {error, term()}.
handoff(Context, Handle, Info) when is_pid(Context), is_map(Info) ->
    case py_call:native(Context) of
        {ok, Native} -> py_reactor_socket:hand_over(Native, Handle, client_info(Info));
        {error, _} = Error -> Error
    end;
handoff(Context, Handle, Info) ->
    {error, {badarg, py_call:error_text("handoff needs a context's pid, a socket or a file descriptor, and a map, "
                                        "not ~tP, ~tP, ~tP", [Context, 8, Handle, 8, Info, 8])}}.

%% @doc Counters: connections now and in total, requests (calls of data_received), bytes, calls; see {@link
%% py_context:stats/1}.
-spec stats(pid() | atom()) -> #{atom() => integer()}.
stats(Context) ->
    py_context:stats(Context).

%% @doc What Python is executing in a context, and for how long; see {@link py_context:diagnose/1}.
-spec diagnose(pid() | atom()) -> {ok, #{atom() => term()}} | {error, term()}.
diagnose(Context) ->
    py_context:diagnose(Context).

%% @doc Stops a context. The same as `stop(Context, 5000)'.
-spec stop(pid()) -> ok | {error, term()}.
stop(Context) ->
    stop(Context, ?DRAIN).

%% @doc Stops a context. It accepts nothing more, and its connections end as soon as they have written what they have
%% to; what is left after so many milliseconds is closed. Waits for that; see {@link py_context:stop/2}.
-spec stop(pid(), timeout()) -> ok | {error, term()}.
stop(Context, Timeout) ->
    py_context:stop(Context, Timeout).

%% Keys become str, also where an atom would become None or True.
client_info(Info) ->
    maps:from_list([{key(Key), value(Key, Value)} || {Key, Value} <- maps:to_list(Info)]).

key(Key) when is_atom(Key) -> atom_to_binary(Key);
key(Key) -> Key.

value(Key, Address) when Key =:= addr; Key =:= <<"addr">> -> py_reactor_socket:address(Address);
value(_Key, Value) -> Value.
