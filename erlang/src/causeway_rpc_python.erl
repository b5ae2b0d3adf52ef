%% @private
%% @doc Streaming calls that Python serves: a generator whose items are sent, or a function whose result is the reply.
-module(causeway_rpc_python).

-export([serve/4, failed/3]).

%% How many items the generator may be ahead of what is sent.
-define(AHEAD, 16).
-define(IS_GENERATOR, <<"__import__('inspect').isgeneratorfunction("
                        "getattr(__import__('importlib').import_module(module), function))">>).

%% @doc Serves one call.
-spec serve(causeway_rpc_stream:stream(), term(), term(), term()) -> term().
serve(Stream, Module, Function, Args) ->
    Locals = #{module => unicode:characters_to_binary(name(Module)), function => unicode:characters_to_binary(name(Function))},
    case py:eval(?IS_GENERATOR, Locals) of
        {ok, true} -> items(Stream, py:stream_start(Module, Function, [Args], #{demand => ?AHEAD}));
        {ok, _} -> reply_of(Stream, Module, Function, Args);
        {error, _} = Error -> reply(Stream, Error)
    end.

reply_of(Stream, Module, Function, Args) ->
    case causeway_rpc_half:ends_owner(Stream) of
        ok -> reply(Stream, py:call(Module, Function, [Args], #{}, infinity));
        over -> ok
    end.

name(Name) when is_atom(Name) -> atom_to_binary(Name);
name(Name) -> Name.

reply(Stream, {ok, Value}) -> causeway_rpc_stream:set_reply(Stream, Value);
reply(Stream, {error, Reason}) -> failed(Stream, <<"error">>, Reason).

%% @doc Ends a call whose handler of Python's has failed: the code is the exception's class, of which the log has the
%% traceback, or the one given where it is none.
-spec failed(causeway_rpc_stream:stream(), Code :: binary(), Reason :: term()) -> ok | {error, closed | not_local}.
failed(Stream, _Code, {Type, Text}) when is_atom(Type), is_list(Text) ->
    causeway_rpc_stream:abort(Stream, atom_to_binary(Type), unicode:characters_to_binary(Text));
failed(Stream, Code, Reason) ->
    causeway_rpc_stream:abort(Stream, Code, unicode:characters_to_binary(io_lib:format("~0tp", [Reason]))).

items(Stream, {ok, Reference}) -> items(Stream, Reference, 0);
items(Stream, {error, Reason}) -> failed(Stream, <<"error">>, Reason).

items(Stream, Reference, ?AHEAD div 2) ->
    ok = py:stream_demand(Reference, ?AHEAD div 2),
    items(Stream, Reference, 0);
items(Stream, Reference, Sent) ->
    receive
        {py_stream, Reference, {data, Item}} ->
            case send(Stream, Item) of
                ok -> items(Stream, Reference, Sent + 1);
                {error, _} -> py:stream_cancel(Reference)
            end;
        {py_stream, Reference, done} -> ok;
        {py_stream, Reference, {error, Reason}} -> failed(Stream, <<"error">>, Reason)
    end.

send(Stream, Item) when is_binary(Item) -> causeway_rpc_stream:send(Stream, Item);
send(Stream, Item) -> causeway_rpc_stream:send(Stream, Item, msgpack).
