%% @doc Contexts that serve connections: Python protocols on file descriptors.
%%
%% A protocol is a subclass of `erlang.reactor.Protocol'; `erlang.reactor.set_protocol_factory' says which.
%% A descriptor is handed over by {@link handoff/3}, and is the reactor's from then on. Such a context
%% is a {@link py_context} like any other, and serves `py:call' as well.
-module(py_reactor_context).

-export([start_link/2, start_link/3, start_default/0, handoff/2, handoff/3, stats/1, diagnose/1, stop/1]).
-export_type([mode/0, options/0, info/0]).

-type mode() :: py_context:mode().
-type options() :: #{max_connections => non_neg_integer(),
                     linger => non_neg_integer() | infinity,
                     max_queue => pos_integer(),
                     app_module => py:name(),
                     app_callable => py:name(),
                     setup_code => iodata(),
                     factory => {Module :: py:name(), Name :: py:name()}}.
%% See {@link py_context:options()}.
-type info() :: #{atom() | binary() => term()}.
%% Becomes `client_info', its keys as `str'. `addr' may be as `inet:peername' or as `inet:ntoa' gives it.

-define(DEFAULT, py_reactor_default).

%% @doc Starts a context with the default options.
-spec start_link(integer(), mode()) -> {ok, pid()} | {error, term()}.
start_link(Id, Mode) ->
    start_link(Id, Mode, #{}).

%% @doc Starts a context. `setup_code' is Python that runs before the first connection; where it
%% raises, so is the error of this function, with its traceback.
-spec start_link(integer(), mode(), options()) -> {ok, pid()} | {error, term()}.
start_link(Id, Mode, Options) ->
    py_context:start_link(Options#{id => Id, mode => Mode}).

%% @private
%% @doc The context that {@link handoff/2} uses, started with the application.
-spec start_default() -> {ok, pid()} | {error, term()}.
start_default() ->
    py_context:start_link(#{id => 0, name => ?DEFAULT}).

%% @doc Hands a descriptor to the default context.
-spec handoff(non_neg_integer(), info()) -> ok | {error, term()}.
handoff(Fd, Info) ->
    case whereis(?DEFAULT) of
        undefined -> {error, no_reactor_context};
        Context -> handoff(Context, Fd, Info)
    end.

%% @doc Hands a descriptor to a context.
%%
%% The descriptor is the reactor's exactly when the result is `ok': it closes it when the connection ends.
%% Where it is that of an open `gen_tcp' socket of the calling process (`inet:getfd/1'), the reactor takes
%% a duplicate and the Erlang socket is closed, so that one descriptor remains.
%%
%% Errors: `badf' for what is not open, `eperm' for a file, `eexist' for a descriptor that a reactor has
%% already, `max_connections', `no_protocol_factory' before
%% Python has set one, `closed' and `{no_context, Text}' for a context that has stopped.
-spec handoff(pid(), non_neg_integer(), info()) -> ok | {error, term()}.
handoff(Context, Fd, Info) when is_pid(Context), is_integer(Fd), is_map(Info) ->
    case py_call:native(Context) of
        {ok, Native} ->
            case socket_of(Fd) of
                none -> causeway_nif:handoff(Native, Fd, client_info(Info), <<>>);
                Socket -> take_over(Native, Socket, Fd, client_info(Info))
            end;
        {error, _} = Error ->
            Error
    end;
handoff(Context, Fd, Info) ->
    {error, {badarg, py_call:error_text("handoff needs a context's pid, a file descriptor and a map, not ~tP, ~tP, ~tP",
                                        [Context, 8, Fd, 8, Info, 8])}}.

%% @doc Counters: connections now and in total, requests (calls of data_received), bytes, calls.
-spec stats(pid()) -> #{atom() => integer()}.
stats(Context) ->
    py_context:stats(Context).

%% @doc What Python is executing in a context, and for how long; see {@link py_context:diagnose/1}.
-spec diagnose(pid() | atom()) -> {ok, #{atom() => term()}} | {error, term()}.
diagnose(Context) ->
    py_context:diagnose(Context).

%% @doc Stops a context: its connections are closed.
-spec stop(pid()) -> ok.
stop(Context) ->
    py_context:stop(Context).

%% The inet port of the calling process whose descriptor this is.
socket_of(Fd) ->
    {links, Links} = process_info(self(), links),
    case [Port || Port <- Links, is_port(Port), inet:getfd(Port) =:= {ok, Fd}] of
        [Socket | _] -> Socket;
        [] -> none
    end.

%% The port closes its own number in its own time, which must not be the reactor's.
take_over(Native, Socket, Fd, Info) ->
    case causeway_nif:duplicate(Fd) of
        {ok, Duplicate} ->
            case causeway_nif:handoff(Native, Duplicate, Info, <<>>) of
                ok ->
                    gen_tcp:close(Socket);
                {error, _} = Error ->
                    ok = causeway_nif:close(Duplicate),
                    Error
            end;
        {error, _} = Error ->
            Error
    end.

%% Keys become str, also where an atom would become None or True.
client_info(Info) ->
    maps:from_list([{key(Key), value(Key, Value)} || {Key, Value} <- maps:to_list(Info)]).

key(Key) when is_atom(Key) -> atom_to_binary(Key);
key(Key) -> Key.

value(Key, Address) when Key =:= addr; Key =:= <<"addr">> -> address(Address);
value(_Key, Value) -> Value.

address(Address) when is_list(Address) ->
    unicode:characters_to_binary(Address);
address(Address) when is_tuple(Address) ->
    case inet:ntoa(Address) of
        {error, einval} -> Address;
        Text -> list_to_binary(Text)
    end;
address(Address) ->
    Address.
