%% @doc Streaming calls by name: of functions of this node, of connected nodes, in Erlang and in Python.
%%
%% A name is served by whoever has advertised it: on this node, and otherwise on any node that is connected, in turn or by
%% a key. What a call gives is a half of a stream; see {@link causeway_rpc_stream} for what is done with it.
%%
%% A handler runs in a process of its own, which owns the other half. It is
%% <ul>
%% <li>`fun(Stream, Args)', which sends, receives and replies as it likes. When it returns, the stream is closed;</li>
%% <li>`fun(Args)', whose result is the reply. When the call is over before, its process is ended by the exit
%% `{shutdown, {call_over, Reason}}';</li>
%% <li>a module of the behaviour {@link causeway_rpc_provider};</li>
%% <li>`{python, Module, Function}': the items of a generator are sent, `bytes' and text as bytes and others as terms; the
%% result of another function is the reply. It is called with Args.</li>
%% </ul>
%% Where a handler fails, the call is aborted with the code `error', `throw' or `exit'; where a function of
%% Python does, with the name of the exception's class.
%%
%% A call that could not be begun is `{error, Reason}':
%% <dl>
%% <dt>`not_advertised'</dt><dd>Nobody who is connected serves the name.</dd>
%% <dt>`{<<"unavailable">>, Text}'</dt><dd>Those who serve it have not accepted.</dd>
%% <dt>`{<<"disconnected">>, Text}', `{<<"too_many_calls">>, Text}'</dt><dd>Over a connection: it is closed;
%% the other side takes no more calls.</dd>
%% <dt>`{<<"badarg">>, Text}', `{<<"cancelled">>, Text}'</dt><dd>Over a connection: what the other side had
%% against it.</dd>
%% <dt>`{badarg, Text}', `{not_started, Text}'</dt><dd>Wrong options; the application does not run.</dd>
%% </dl>
%% How one ends that was begun is said in {@link causeway_rpc_stream}.
-module(causeway_rpc).

-export([advertise/2, advertise/3, unadvertise/1, list_advertised/0]).
-export([call_stream/2, call_stream/3, open_stream/2, open_stream/3, call/2, call/3, connect/1, connect/2]).
-export_type([name/0, handler/0, opts/0, connect_opts/0]).

-type name() :: term().
%% Any term. A `str' of Python is a binary; over a connection it is what CBOR can be.
-type handler() :: fun((causeway_rpc_stream:stream(), Args :: term()) -> term()) | fun((Args :: term()) -> term())
                 | module() | {python, Module :: atom() | binary() | string(), Function :: atom() | binary() | string()}.
-type opts() :: #{owner => pid(), mode => causeway_rpc_stream:mode(), window => pos_integer(), deadline => timeout(),
                  key => term(), open_timeout => timeout(), connection => pid()}.
%% `owner': with whom the call ends, by default the caller; `mode': of a name that says none, by default that
%% of the function; `window': how many bytes may wait here, below 2^40, 262,144 by default; `deadline': after
%% how many milliseconds the call is aborted on both sides, `infinity' by default, but for {@link call/3};
%% `key': calls with the same key go to the same provider, as long as the same provide, otherwise they go to
%% each in turn; `open_timeout': how many milliseconds one provider may take to accept, 5,000 by default;
%% `connection': over which the call goes, see {@link connect/2}, by default none.
-type connect_opts() :: #{serve => boolean(), max_calls => pos_integer() | infinity, atom() => term()}.
%% `serve': whether the other side may call what is advertised here, `true' by default. `max_calls': how many
%% calls it may have open at once, 1,024 by default. Others are those of {@link
%% causeway_packet_connection:options()}, without `handler', `workers' and `owner'.
-type failure() :: not_advertised | {Code :: binary(), Text :: binary()} | {badarg | not_started, binary()}.

%% @doc Serves a name, as a stream of the server's.
-spec advertise(name(), handler()) -> ok | {error, {badarg | not_started, binary()}}.
advertise(Name, Handler) ->
    advertise(Name, server_stream, Handler).

%% @doc Serves a name, in the place of what served it here before.
-spec advertise(name(), causeway_rpc_stream:mode(), handler()) -> ok | {error, {badarg | not_started, binary()}}.
advertise(Name, Mode, Handler) when Mode =:= server_stream; Mode =:= client_stream; Mode =:= bidi ->
    causeway_rpc_server:advertise(Name, Mode, Handler);
advertise(_Name, Mode, _Handler) ->
    {error, {badarg, iolist_to_binary(io_lib:format("~tP is no mode: there are server_stream, client_stream and bidi",
                                                    [Mode, 8]))}}.

%% @doc Serves a name no longer. Calls that run go on.
-spec unadvertise(name()) -> ok | {error, {not_started, binary()}}.
unadvertise(Name) ->
    causeway_rpc_server:unadvertise(Name).

%% @doc The names that this node serves.
-spec list_advertised() -> [{name(), causeway_rpc_stream:mode()}].
list_advertised() ->
    causeway_rpc_server:list().

%% @doc The same as `connect(Transport, #{})'.
-spec connect(causeway_packet_transport:transport()) -> {ok, pid()} | {error, term()}.
connect(Transport) ->
    connect(Transport, #{}).

%% @doc Makes a connection over which calls with the option `connection' go, and over which the other side calls what is
%% advertised here: to a node, or to a Python with `erlang.rpc', without Erlang distribution.
%%
%% It goes over what {@link causeway_packet_connection:start_link/2} takes, with its options and errors; with
%% `serve => false' the other side calls nothing. It may have `max_calls' open at once, 1,024 unless said
%% otherwise, or `infinity': more are refused with the code `too_many_calls'. While so many bytes of what has come
%% are not handled, or of calls not answered, as `receive_window' says, 4 MiB by default, nothing more is read. The
%% connection is linked to the caller, and {@link causeway_rpc_connection:close/1} ends it.
-spec connect(causeway_packet_transport:transport(), connect_opts()) -> {ok, pid()} | {error, term()}.
connect(Transport, Options) when is_map(Options) ->
    causeway_rpc_connection:start_link(Transport, Options).

%% @doc The same as `call_stream(Name, Args, #{})'.
-spec call_stream(name(), Args :: term()) -> {ok, causeway_rpc_stream:stream()} | {error, failure()}.
call_stream(Name, Args) ->
    call_stream(Name, Args, #{}).

%% @doc Calls what sends a stream. Returns when a provider has accepted: each that is asked has `open_timeout'
%% for that. The stream is linked to the caller.
-spec call_stream(name(), Args :: term(), opts()) -> {ok, causeway_rpc_stream:stream()} | {error, failure()}.
call_stream(Name, Args, Opts) ->
    open(Name, Args, maps:merge(#{mode => server_stream}, Opts)).

%% @doc The same as `open_stream(Name, Args, #{})'.
-spec open_stream(name(), Args :: term()) -> {ok, causeway_rpc_stream:stream()} | {error, failure()}.
open_stream(Name, Args) ->
    open_stream(Name, Args, #{}).

%% @doc Calls what receives a stream, or sends one as well. The mode that was advertised goes before that of the options.
-spec open_stream(name(), Args :: term(), opts()) -> {ok, causeway_rpc_stream:stream()} | {error, failure()}.
open_stream(Name, Args, Opts) ->
    open(Name, Args, maps:merge(#{mode => bidi}, Opts)).

%% @doc The same as `call(Name, Args, #{})'.
-spec call(name(), Args :: term()) -> {ok, term()} | {error, term()}.
call(Name, Args) ->
    call(Name, Args, #{}).

%% @doc Calls and waits for the reply, 30 s unless `deadline' says otherwise. Chunks are not looked at. The
%% error is that of {@link open_stream/3} or of {@link causeway_rpc_stream:await_reply/1}.
-spec call(name(), Args :: term(), opts()) -> {ok, term()} | {error, term()}.
call(Name, Args, Opts) ->
    case open_stream(Name, Args, maps:merge(#{deadline => 30000}, Opts)) of
        {ok, Stream} ->
            Reply = causeway_rpc_stream:await_reply(Stream),
            true = unlink(Stream),
            _ = causeway_rpc_stream:close(Stream),
            Reply;
        {error, _} = Error ->
            Error
    end.

open(Name, Args, Opts) ->
    case [Option || Option <- maps:to_list(Opts), not is_option(Option)] of
        [] ->
            causeway_rpc_server:open(Name, Args, Opts);
        Wrong ->
            {error, {badarg, iolist_to_binary(io_lib:format(
                "wrong options of a call: ~tP; there are owner (a pid), mode (server_stream, client_stream or bidi), "
                "window (bytes, from 1), deadline and open_timeout (milliseconds or infinity), connection (a pid) and key", [Wrong, 8]))}}
    end.

is_option({owner, Owner}) -> is_pid(Owner);
is_option({mode, Mode}) -> lists:member(Mode, [server_stream, client_stream, bidi]);
is_option({window, Window}) -> is_integer(Window) andalso Window > 0 andalso Window < 1 bsl 40;
is_option({key, _}) -> true;
is_option({connection, Connection}) -> is_pid(Connection);
is_option({Name, Time}) when Name =:= deadline; Name =:= open_timeout ->
    Time =:= infinity orelse (is_integer(Time) andalso Time >= 0 andalso Time < 1 bsl 32);
is_option(_Other) -> false.
