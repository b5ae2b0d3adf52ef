%% @private
%% @doc What answers the requests of a channel: a fun or a module, and the processes that run it.
-module(causeway_packet_handler).

-export([new/1, is_handler/1, answer/2, response/1, ended/2, start_worker/1]).
-export_type([handler/0, job/0, response/0]).

-type handler() :: none | {function, 3 | 4, function()} | {module, 4 | 5, module(), State :: term()}.
-type job() :: {Key :: term(), causeway_packet_connection:from(), Type :: non_neg_integer(),
                Flags :: non_neg_integer(), Payload :: binary(), handler()}.
%% `Flags' as on the wire.
-type response() :: {Flags :: non_neg_integer(), Payload :: iodata(), Size :: non_neg_integer()}.

%% The response's flags and its lowest bit, which says that all went well, must fit what a packet has.
-define(MAX_FLAGS, (1 bsl 61)).

%% A payload from which on it counts how long it is kept, in bytes.
-define(LARGE, 65536).

%% @doc Whether a term says what handles requests.
-spec is_handler(term()) -> boolean().
is_handler(undefined) -> true;
is_handler(Fun) when is_function(Fun) -> is_function(Fun, 3) orelse is_function(Fun, 4);
is_handler({Module, _Argument}) -> is_atom(Module);
is_handler(Module) -> is_atom(Module).

%% @doc Makes a handler of such a term, in the connection's process: there a module's `init/1' is called.
-spec new(causeway_packet_connection:handler()) -> {ok, handler()} | {error, term()}.
new(undefined) -> {ok, none};
new(Fun) when is_function(Fun, 3) -> {ok, {function, 3, Fun}};
new(Fun) when is_function(Fun, 4) -> {ok, {function, 4, Fun}};
new({Module, Argument}) -> new(Module, Argument);
new(Module) -> new(Module, []).

new(Module, Argument) ->
    case code:ensure_loaded(Module) of
        {module, Module} -> new(Module, Argument, arity(Module));
        {error, Reason} -> {error, {bad_handler, {Module, Reason}}}
    end.

arity(Module) ->
    case {erlang:function_exported(Module, handle_request, 5), erlang:function_exported(Module, handle_request, 4)} of
        {true, _} -> 5;
        {false, true} -> 4;
        {false, false} -> none
    end.

new(Module, _Argument, none) ->
    {error, {bad_handler, {Module, <<"it exports neither handle_request/4 nor handle_request/5">>}}};
new(Module, Argument, Arity) ->
    case erlang:function_exported(Module, init, 1) of
        false ->
            {ok, {module, Arity, Module, Argument}};
        true ->
            try Module:init(Argument) of
                {ok, State} -> {ok, {module, Arity, Module, State}};
                {stop, Reason} -> {error, Reason};
                Other -> {error, {bad_return_value, Other}}
            catch
                Class:Reason:Stack -> {error, {Class, Reason, Stack}}
            end
    end.

%% @doc Tells a module that the connection has ended.
-spec ended(handler(), term()) -> ok.
ended({module, _, Module, State}, Reason) ->
    case erlang:function_exported(Module, handle_end, 2) of
        true ->
            try Module:handle_end(Reason, State) of
                _ -> ok
            catch
                Class:Error:Stack -> log(Class, Error, Stack)
            end;
        false ->
            ok
    end;
ended(_Handler, _Reason) ->
    ok.

%% @doc Runs a handler. What it cannot answer is a failure, of which the log has the details.
-spec answer(job(), non_neg_integer()) -> response() | noreply.
answer({_Key, From, Type, Flags, Payload, Handler}, MaxSize) ->
    try
        case result(Handler, Type, Flags, Payload, From) of
            noreply -> noreply;
            Result -> fits(response(Result), MaxSize)
        end
    catch
        Class:Reason:Stack ->
            log(Class, Reason, Stack),
            failure()
    end.

result({function, 3, Fun}, Type, Flags, Payload, _From) -> Fun(Type, Flags, Payload);
result({function, 4, Fun}, Type, Flags, Payload, From) -> Fun(Type, Flags, Payload, From);
result({module, 4, Module, State}, Type, Flags, Payload, _From) -> Module:handle_request(Type, Flags, Payload, State);
result({module, 5, Module, State}, Type, Flags, Payload, From) ->
    Module:handle_request(Type, Flags, Payload, From, State).

fits({_, _, Size} = Response, MaxSize) when Size =< MaxSize -> Response;
fits({_, _, Size}, MaxSize) -> error({too_large, Size, MaxSize}).

failure() ->
    {0, <<"exception during handler">>, 24}.

log(Class, Reason, Stack) ->
    logger:error(#{label => {causeway_packet_connection, handler}, report => {Class, Reason, Stack}},
                 #{domain => [causeway], report_cb => fun report/1}).

report(#{report := {Class, Reason, Stack}}) ->
    {"the handler of a packet connection failed:~n~ts", [erl_error:format_exception(Class, Reason, Stack)]}.

%% @doc What a handler's result is on the wire; an error of the class `badarg' for what is none.
-spec response(term()) -> response().
response(ok) -> {1, <<>>, 0};
response(Flags) when is_integer(Flags) -> response({ok, Flags, <<>>});
response(Payload) when is_binary(Payload) -> {1, Payload, byte_size(Payload)};
response(Payload) when is_list(Payload) -> response({ok, 0, Payload});
response({ok, Payload}) -> response({ok, 0, Payload});
response({failed, Payload}) -> response({failed, 0, Payload});
response({ok, Flags, Payload}) when is_integer(Flags), Flags >= 0, Flags < ?MAX_FLAGS ->
    {Flags bsl 1 bor 1, Payload, iolist_size(Payload)};
response({failed, Flags, Payload}) when is_integer(Flags), Flags >= 0, Flags < ?MAX_FLAGS ->
    {Flags bsl 1, Payload, iolist_size(Payload)};
response({Flags, Payload}) when is_integer(Flags) -> response({ok, Flags, Payload});
response(Other) -> error(badarg, [Other]).

%% @doc Starts a process that runs one job after the other for the calling connection.
-spec start_worker(non_neg_integer()) -> pid().
start_worker(MaxSize) ->
    Connection = self(),
    proc_lib:spawn_link(fun() -> work(Connection, MaxSize) end).

work(Connection, MaxSize) ->
    Bytes = receive {job, Job} -> work_at(Job, Connection, MaxSize) end,
    %% Who waits for the next one must not keep large payloads alive meanwhile.
    _ = Bytes > ?LARGE andalso erlang:garbage_collect(),
    work(Connection, MaxSize).

%% How large the payloads were.
work_at({Key, _From, _Type, _Flags, Payload, _Handler} = Job, Connection, MaxSize) ->
    Answer = answer(Job, MaxSize),
    Connection ! {'$causeway_packet_done', self(), Key, Answer},
    byte_size(Payload) + case Answer of {_, _, Size} -> Size; noreply -> 0 end.
