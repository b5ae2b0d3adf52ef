%% @private
%% @doc Frames of streaming calls as packets: the type of a request is that of its frame, and its payload a CBOR map, but for
%% chunks and credit.
%%
%% A packet of chunks begins with the number of the call and that of its first chunk, of 32 bits each, and has each chunk
%% with its kind, of 8 bits, its weight and its length, of 32 bits. Replies go among them. Credit is the number of the
%% call and that of the bytes.
-module(causeway_rpc_packet).

-export([type/1, frame/1, encode/1, decode/1, chunks/3, items/1, credit/2]).
-export_type([frame/0, data/0]).

-type frame() :: open | data | 'end' | error | credit.

-type data() :: #{count := non_neg_integer(), bytes := non_neg_integer(), replies := non_neg_integer(),
                  items := [causeway_nif:chunk() | {reply, term()}]}.
%% `count' chunks, which weigh so many `bytes'.

-define(RAW, 0).
-define(CBOR, 1).
-define(REPLY, 2).
%% What a small chunk weighs.
-define(LEAST, 64).

%% @doc The number of a frame's type.
-spec type(frame()) -> byte().
type(open) -> 16#27;
type(data) -> 16#28;
type('end') -> 16#29;
type(error) -> 16#2a;
type(credit) -> 16#2c.

%% @doc The frame of a number.
-spec frame(non_neg_integer()) -> frame() | undefined.
frame(16#27) -> open;
frame(16#28) -> data;
frame(16#29) -> 'end';
frame(16#2a) -> error;
frame(16#2c) -> credit;
frame(_Other) -> undefined.

%% @doc A map as a payload.
-spec encode(map()) -> {ok, binary()} | {error, term()}.
encode(Map) ->
    causeway_cbor:encode(Map).

%% @doc A payload as a map.
-spec decode(binary()) -> {ok, #{binary() => term()}} | {error, term()}.
decode(Payload) ->
    case causeway_cbor:decode(Payload) of
        {ok, #{} = Map} -> {ok, Map};
        {ok, _Other} -> {error, no_map};
        {error, _} = Error -> Error
    end.

%% @doc A packet of chunks and replies.
-spec chunks(non_neg_integer(), non_neg_integer(), [causeway_nif:chunk() | {reply, term()}]) ->
          {ok, iodata()} | {error, {cbor, binary()}}.
chunks(Number, Seq, Items) ->
    try
        {ok, [<<Number:32, Seq:32>> | [item(Item) || Item <- Items]]}
    catch
        throw:{cbor, _} = Reason -> {error, Reason}
    end.

item({term, Size, Term}) ->
    Body = cbor(Term),
    [<<?CBOR, (max(Size, ?LEAST)):32, (byte_size(Body)):32>>, Body];
item({reply, {ok, Value}}) ->
    reply(#{result => Value});
item({reply, {error, Reason}}) ->
    reply(#{error => causeway_rpc_frame:error_map(Reason)});
item(Bytes) ->
    [<<?RAW, (max(byte_size(Bytes), ?LEAST)):32, (byte_size(Bytes)):32>>, Bytes].

reply(Map) ->
    Body = cbor(Map),
    [<<?REPLY, 0:32, (byte_size(Body)):32>>, Body].

%% None of Python, which CBOR has as null.
cbor(none) ->
    cbor(nil);
cbor(#{result := none} = Map) ->
    cbor(Map#{result := nil});
cbor(Term) ->
    case causeway_cbor:encode(Term) of
        {ok, Body} -> Body;
        {error, Reason} -> throw(Reason)
    end.

%% @doc What a packet of chunks holds: the number of the call, that of the first chunk, and the chunks.
%%
%% A term weighs as much as its external form, which is about as large as its CBOR: one that would weigh much less is none.
-spec items(binary()) -> {ok, Number :: non_neg_integer(), Seq :: non_neg_integer(), data()} | error.
items(<<Number:32, Seq:32, Rest/binary>>) ->
    case items(Rest, #{count => 0, bytes => 0, replies => 0, items => []}) of
        #{items := Items} = Data -> {ok, Number, Seq, Data#{items := lists:reverse(Items)}};
        error -> error
    end;
items(_Other) ->
    error.

items(<<>>, Data) ->
    Data;
items(<<?RAW, _Weight:32, Size:32, Body:Size/binary, Rest/binary>>, Data) ->
    items(Rest, add(Body, max(?LEAST, Size), Data));
items(<<?CBOR, Weight:32, Size:32, Body:Size/binary, Rest/binary>>, Data) when Weight >= ?LEAST, Size =< 4 * Weight + 64 ->
    case causeway_cbor:decode(Body) of
        {ok, Term} -> items(Rest, add({term, Weight, Term}, Weight, Data));
        {error, _} -> error
    end;
items(<<?REPLY, _Weight:32, Size:32, Body:Size/binary, Rest/binary>>, #{replies := Replies, items := Items} = Data) ->
    case causeway_cbor:decode(Body) of
        {ok, #{} = Map} -> items(Rest, Data#{replies := Replies + 1, items := [{reply, reply_of(Map)} | Items]});
        _ -> error
    end;
items(_Other, _Data) ->
    error.

add(Item, Weight, #{count := Count, bytes := Bytes, items := Items} = Data) ->
    Data#{count := Count + 1, bytes := Bytes + Weight, items := [Item | Items]}.

reply_of(#{<<"error">> := #{<<"code">> := Code, <<"message">> := Message}}) -> {error, {Code, Message}};
reply_of(#{<<"error">> := Error}) when Error =/= nil -> {error, Error};
reply_of(Map) -> {ok, maps:get(<<"result">>, Map, nil)}.

%% @doc Room for more bytes.
-spec credit(non_neg_integer(), non_neg_integer()) -> binary().
credit(Number, Bytes) ->
    <<Number:32, Bytes:32>>.
