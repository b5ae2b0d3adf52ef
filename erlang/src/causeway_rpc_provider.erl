%% @doc A module that serves streaming calls, one process for each: {@link causeway_rpc:advertise/3}.
%%
%% `init/1' gets the arguments of the call, `handle_open/2' the stream, to which it may send. Then come the chunks and
%% the end of what the client sends. `{reply, _, State}' gives the reply; `{stop, normal, State}' closes the stream, with
%% what was sent, and another reason aborts it with the code `cancelled'; `{reject, Code, Message}' aborts it with these.
%% After `handle_eof/1' the stream is closed.
-module(causeway_rpc_provider).

-export([serve/3, run/3]).
-export_type([result/1]).

-type result(State) :: {ok, State} | {reply, {ok, term()} | {error, term()}, State} | {stop, Reason :: term(), State}.

-callback init(Args :: term()) -> {ok, State :: term()} | {reject, Code :: binary(), Message :: binary()}.
-callback handle_open(causeway_rpc_stream:stream(), State) ->
    result(State) | {reject, Code :: binary(), Message :: binary()}.
-callback handle_chunk(causeway_rpc_stream:item(), State) -> result(State).
-callback handle_eof(State) -> result(State).
-callback terminate(Reason :: normal | term(), State :: term()) -> term().

-optional_callbacks([handle_chunk/2, terminate/2]).

%% @private
%% @doc Serves one call in the calling process.
-spec serve(module(), causeway_rpc_stream:stream(), term()) -> term().
serve(Module, Stream, Args) ->
    case Module:init(Args) of
        {ok, State} -> run(Module, Stream, State);
        {reject, Code, Message} -> causeway_rpc_stream:abort(Stream, Code, Message)
    end.

%% @private
%% @doc The same from where the state is there.
-spec run(module(), causeway_rpc_stream:stream(), term()) -> term().
run(Module, Stream, State) ->
    next(Module:handle_open(Stream, State), Module, Stream).

next({ok, State}, Module, Stream) ->
    come(causeway_rpc_stream:recv(Stream), Module, Stream, State);
next({reply, Reply, State}, Module, Stream) ->
    _ = reply(Stream, Reply),
    next({ok, State}, Module, Stream);
next({stop, Reason, State}, Module, Stream) ->
    stop(Reason, Module, Stream, State);
next({reject, Code, Message}, _Module, Stream) ->
    causeway_rpc_stream:abort(Stream, Code, Message).

come(eof, Module, Stream, State) ->
    case Module:handle_eof(State) of
        {ok, Last} ->
            stop(normal, Module, Stream, Last);
        {reply, Reply, Last} ->
            _ = reply(Stream, Reply),
            stop(normal, Module, Stream, Last);
        {stop, Reason, Last} ->
            stop(Reason, Module, Stream, Last)
    end;
come({error, Reason} = Error, Module, _Stream, State) ->
    _ = terminate(Error, Module, State),
    {failed, Reason};
come(Item, Module, Stream, State) ->
    case erlang:function_exported(Module, handle_chunk, 2) of
        true -> next(Module:handle_chunk(Item, State), Module, Stream);
        false -> next({ok, State}, Module, Stream)
    end.

reply(Stream, {ok, Value}) -> causeway_rpc_stream:set_reply(Stream, Value);
reply(Stream, {error, Reason}) -> causeway_rpc_stream:set_error(Stream, Reason).

stop(Reason, Module, Stream, State) ->
    _ = terminate(Reason, Module, State),
    case Reason of
        normal ->
            causeway_rpc_stream:close(Stream);
        _ ->
            Text = unicode:characters_to_binary(io_lib:format("~0tP", [Reason, 20])),
            causeway_rpc_stream:abort(Stream, <<"cancelled">>, Text)
    end.

terminate(Reason, Module, State) ->
    case erlang:function_exported(Module, terminate, 2) of
        true -> Module:terminate(Reason, State);
        false -> ok
    end.
