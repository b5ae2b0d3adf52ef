%% @doc The frames of streaming calls, as macula 3.13 writes them: a header of 8 bytes (version 1, type, two zeros, length)
%% and a CBOR map. See {@link causeway_cbor} for what becomes of terms.
-module(causeway_rpc_frame).

-export([encode/2, decode/1, chunk/1, role/1, error_map/1]).
-export_type([type/0]).

-type type() :: stream_open | causeway_rpc_stream:frame_type().

-define(VERSION, 1).

%% @doc A frame. What its type needs must be there:
%% <ul>
%% <li>`stream_open': `stream_id', `procedure', `mode', `args'. Arguments that are neither a binary nor a map are
%% packed into a CBOR binary;</li>
%% <li>`stream_data': `stream_id', `seq', `body', `encoding';</li>
%% <li>`stream_end': `stream_id', `role';</li>
%% <li>`stream_error': `stream_id', `code', `message';</li>
%% <li>`stream_reply': `stream_id', and `result' or `error'.</li>
%% </ul>
-spec encode(type(), #{atom() => term()}) ->
          {ok, binary()} | {error, {missing, atom()} | {unknown_type, term()} | {cbor, Text :: binary()}}.
encode(Type, Map) when is_map(Map) ->
    case number(Type) of
        undefined ->
            {error, {unknown_type, Type}};
        Number ->
            case [Key || Key <- needed(Type), not is_map_key(Key, Map)] of
                [] -> encode_map(Number, Map);
                [Key | _] -> {error, {missing, Key}}
            end
    end.

encode_map(Number, Map) ->
    maybe_packed(Map, fun(Packed) ->
        case causeway_cbor:encode(Packed) of
            {ok, Payload} -> {ok, <<?VERSION, Number, 0, 0, (byte_size(Payload)):32, Payload/binary>>};
            {error, _} = Error -> Error
        end
    end).

maybe_packed(#{args := Args} = Map, Encode) when not is_binary(Args), not is_map(Args) ->
    case causeway_cbor:encode(Args) of
        {ok, Packed} -> Encode(Map#{args := Packed});
        {error, _} = Error -> Error
    end;
maybe_packed(Map, Encode) ->
    Encode(Map).

%% @doc The frame with which a binary begins, and what follows. Keys and texts are binaries.
%%
%% `incomplete_payload' and, of less than 8 bytes, `invalid_header' say that more has to come first.
-spec decode(binary()) ->
          {ok, type(), #{binary() => term()}, Rest :: binary()}
        | {error, invalid_header | incomplete_payload | {unsupported_version, byte()} | {unknown_type, byte()}
                | {msgpack_decode_error, Text :: binary()}}.
decode(<<?VERSION, Number, _Flags, _Reserved, Size:32, Payload:Size/binary, Rest/binary>>) ->
    case type(Number) of
        undefined -> {error, {unknown_type, Number}};
        Type -> decode_map(Type, Payload, Rest)
    end;
decode(<<?VERSION, _:56, _/binary>>) ->
    {error, incomplete_payload};
decode(<<Version, _:56, _/binary>>) ->
    {error, {unsupported_version, Version}};
decode(Binary) when is_binary(Binary) ->
    {error, invalid_header}.

decode_map(Type, Payload, Rest) ->
    case causeway_cbor:decode(Payload) of
        {ok, #{} = Map} -> {ok, Type, Map, Rest};
        {ok, _Other} -> {error, {msgpack_decode_error, <<"the payload is no map">>}};
        {error, {cbor, Text}} -> {error, {msgpack_decode_error, Text}}
    end.

%% @doc Encoding and body of a `stream_data' frame that was decoded.
-spec chunk(#{binary() => term()}) -> {raw | msgpack | term(), term()}.
chunk(#{<<"encoding">> := <<"msgpack">>} = Map) -> {msgpack, maps:get(<<"body">>, Map, <<>>)};
chunk(#{<<"encoding">> := Other} = Map) when Other =/= <<"raw">> -> {Other, maps:get(<<"body">>, Map, <<>>)};
chunk(#{<<"body">> := Body}) when not is_binary(Body) -> {raw, Body};
chunk(Map) -> {raw, maps:get(<<"body">>, Map, <<>>)}.

%% @doc What a `stream_end' frame ends.
-spec role(#{binary() => term()}) -> send | both.
role(#{<<"role">> := <<"send">>}) -> send;
role(_Map) -> both.

%% @doc How an error that is a reply is written.
-spec error_map(term()) -> #{code := binary(), message := binary()}.
error_map({Code, Message}) when is_binary(Code), is_binary(Message) ->
    #{code => Code, message => Message};
error_map(Reason) ->
    #{code => <<"error">>, message => unicode:characters_to_binary(io_lib:format("~tp", [Reason]))}.

needed(stream_open) -> [stream_id, procedure, mode, args];
needed(stream_data) -> [stream_id, seq, body, encoding];
needed(stream_end) -> [stream_id, role];
needed(stream_error) -> [stream_id, code, message];
needed(stream_reply) -> [stream_id].

number(stream_open) -> 16#27;
number(stream_data) -> 16#28;
number(stream_end) -> 16#29;
number(stream_error) -> 16#2a;
number(stream_reply) -> 16#2b;
number(_Other) -> undefined.

type(16#27) -> stream_open;
type(16#28) -> stream_data;
type(16#29) -> stream_end;
type(16#2a) -> stream_error;
type(16#2b) -> stream_reply;
type(_Other) -> undefined.
