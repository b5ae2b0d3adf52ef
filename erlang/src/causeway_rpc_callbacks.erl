%% @private
%% @doc What `erlang.rpc' of a Python in this node asks for, and what it serves.
-module(causeway_rpc_callbacks).

-export([functions/0, serve/4]).

%% @doc The functions that Python calls, by their names.
-spec functions() -> #{py_callbacks:name() => py_callbacks:callable()}.
functions() ->
    #{<<"_causeway_rpc_advertise">> => fun advertise/1,
      <<"_causeway_rpc_unadvertise">> => fun unadvertise/1,
      <<"_causeway_rpc_names">> => fun names/1,
      <<"_causeway_rpc_call">> => fun call/1,
      <<"_causeway_rpc_open">> => fun open/1}.

advertise([Name, Mode, Handler]) ->
    causeway_rpc_server:advertise(Name, mode(Mode), {python_object, Handler}).

unadvertise([Name]) ->
    causeway_rpc:unadvertise(Name).

names([]) ->
    causeway_rpc:list_advertised().

call([Name, Args, Options]) ->
    causeway_rpc:call(Name, Args, options(Options)).

%% It ends with its context. A thread that is none's lets go of its object.
open([Name, Args, Options, Context]) ->
    Owner = case Context of
        none -> whereis(causeway_rpc_server);
        _ -> Context
    end,
    case causeway_rpc:open_stream(Name, Args, (options(Options))#{owner => Owner}) of
        {ok, Stream} ->
            true = unlink(Stream),
            {ok, {Stream, causeway_rpc_streams:half(Stream)}};
        {error, _} = Error ->
            Error
    end.

options(Options) ->
    maps:fold(fun(<<"mode">>, Mode, All) -> All#{mode => mode(Mode)};
                 (<<"deadline">>, Time, All) -> All#{deadline => Time};
                 (<<"window">>, Window, All) -> All#{window => Window};
                 (<<"connection">>, Connection, All) -> All#{connection => Connection};
                 (<<"key">>, Key, All) -> All#{key => Key}
              end, #{}, Options).

mode(<<"server_stream">>) -> server_stream;
mode(<<"client_stream">>) -> client_stream;
mode(<<"bidi">>) -> bidi.

%% @doc Has a handler of Python's serve a call, which is accepted when it has begun. Returns when it is over.
-spec serve(causeway_rpc_stream:stream(), reference(), Args :: term(), Accept :: fun(() -> term())) -> ok.
serve(Stream, Handler, Args, Accept) ->
    Monitor = monitor(process, Stream),
    case begin_to_serve(Stream, Handler, Args) of
        {ok, Context} ->
            Accept(),
            wait(Stream, Monitor, monitor(process, Context));
        {error, Reason} ->
            _ = causeway_rpc_python:failed(Stream, <<"unavailable">>, Reason),
            Accept(),
            ok
    end.

begin_to_serve(Stream, Handler, Args) ->
    py:call(<<"erlang.rpc._beam">>, serve, [Handler, causeway_rpc_streams:half(Stream), Stream, Args], #{}, infinity).

wait(Stream, Monitor, Context) ->
    receive
        {'DOWN', Monitor, process, _, _} ->
            true = demonitor(Context, [flush]),
            ok;
        {'DOWN', Context, process, _, _} ->
            _ = causeway_rpc_stream:abort(Stream, <<"unavailable">>, <<"the Python context of the handler has stopped">>),
            ok
    end.
