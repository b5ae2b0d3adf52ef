%% @doc Frames and chunks of streaming calls, CBOR, and terms on their way to Python and back, in a real node: `make fuzz'.
%%
%% Inputs are bytes, those of a corpus changed here and there; one is kept where what became of it was not seen
%% before: the same text of an error but for numbers, or a term of the same shape.
-module(fuzz_node).

-export([main/1, corpus/1, signature/2]).

%% How many inputs are kept, and how deep a shape is.
-define(KEPT, 300).
-define(DEPTH, 6).

%% @doc Tries one codec for so many seconds, and writes what is worth keeping to the file that the corpus is in.
-spec main([string()]) -> no_return().
main([Codec, File, Seconds, Last]) ->
    {ok, _} = application:ensure_all_started(causeway),
    {ok, Descriptor} = file:open(Last, [write, raw]),
    _ = put(last, Descriptor),
    Inputs = corpus(File),
    try
        Known = lists:foldl(fun(Input, Seen) -> Seen#{tried(Codec, Input) => Input} end, #{}, Inputs),
        End = erlang:monotonic_time(millisecond) + list_to_integer(Seconds) * 1000,
        {Tried, Kept} = loop(Codec, list_to_tuple(Inputs), Known, End, 0),
        Saved = save(File, lists:usort(maps:values(Kept))),
        io:format("fuzz: ~s: nothing found; ~b tried, ~b inputs kept~n", [Codec, Tried, Saved]),
        halt(0)
    catch
        Class:Reason:Stack ->
            io:format("fuzz: ~s: ~p~n~p~n~p~n", [Codec, Class, Reason, Stack]),
            halt(1)
    end.

%% The input is in a file while it is tried: it may end the node, or take for ever.
tried(Codec, Input) ->
    ok = file:pwrite(get(last), 0, [binary:encode_hex(Input), $\n]),
    signature(Codec, Input).

loop(Codec, Inputs, Known, End, Tried) ->
    case erlang:monotonic_time(millisecond) >= End of
        true ->
            {Tried, Known};
        false ->
            Input = changed(element(rand:uniform(tuple_size(Inputs)), Inputs), Inputs),
            Signature = tried(Codec, Input),
            case is_map_key(Signature, Known) orelse byte_size(Input) > 200 of
                true -> loop(Codec, Inputs, Known, End, Tried + 1);
                false -> loop(Codec, erlang:append_element(Inputs, Input), Known#{Signature => Input}, End, Tried + 1)
            end
    end.

%% @doc What becomes of an input; what is wrong is an exception.
-spec signature(string(), binary()) -> term().
signature("frames", Input) ->
    case causeway_rpc_frame:decode(Input) of
        {ok, Type, Map, Rest} ->
            true = lists:suffix(binary_to_list(Rest), binary_to_list(Input)),
            Named = maps:from_list([{binary_to_existing_atom(Key), Value} || {Key, Value} <- maps:to_list(Map), is_name(Key)]),
            case causeway_rpc_frame:encode(Type, Named) of
                {ok, Frame} -> {ok, Type, Again, <<>>} = causeway_rpc_frame:decode(Frame), {Type, shape(Again, 0)};
                {error, {missing, Key}} -> {Type, missing, Key}
            end;
        {error, Reason} ->
            {error, without_numbers(Reason)}
    end;
signature("chunks", Input) ->
    case causeway_rpc_packet:items(Input) of
        {ok, Number, Sequence, #{count := Count, bytes := Weight, replies := Replies, items := Items}} ->
            true = Count + Replies =:= length(Items) andalso Weight >= 64 * Count,
            {ok, Encoded} = causeway_rpc_packet:chunks(Number, Sequence, Items),
            %% What is written anew may be larger, and then too large for what it is said to weigh.
            case causeway_rpc_packet:items(iolist_to_binary(Encoded)) of
                {ok, Number, Sequence, #{count := Count, replies := Replies}} -> lists:usort([shape(Item, 2) || Item <- Items]);
                error -> {larger, lists:usort([shape(Item, 4) || Item <- Items])}
            end;
        error ->
            {error, length(binary:matches(Input, <<0, 0>>))}
    end;
signature("cbor", Input) ->
    InPython = py:call('erlang.cbor', loads, [{bytes, Input}]),
    case causeway_cbor:decode(Input) of
        {ok, _} -> ok;
        {error, {cbor, _}} -> {error, {Type, [_ | _]}} = InPython, true = lists:member(Type, ['ValueError', 'UnicodeDecodeError'])
    end,
    case causeway_cbor:decode_first(Input) of
        {ok, Term, _Rest} ->
            {ok, Encoded} = causeway_cbor:encode(Term),
            {ok, Again} = causeway_cbor:decode(Encoded),
            %% Python's half reads the same bytes, but has fewer keys: 1 and 1.0 are one there, a map is none.
            case py:call('erlang.cbor', loads, [{bytes, Encoded}]) of
                {ok, _} -> shape(Again, 0);
                {error, {'ValueError', "a map has a key " ++ _ = Text}} -> {Text, shape(Again, 0)}
            end;
        {error, {cbor, Text}} ->
            <<_, _/binary>> = Text,
            {error, without_numbers(Text)}
    end;
signature("terms", Input) ->
    case external(Input) of
        {ok, Term} ->
            case py:call(fuzz_node, identity, [Term]) of
                {ok, Returned} ->
                    %% What Python has made of it stays as it is.
                    {ok, Returned} = py:call(fuzz_node, identity, [Returned]),
                    {shape(Term, 0), shape(Returned, 0)};
                {error, {Type, [_ | _] = Text}} when is_atom(Type) ->
                    {error, Type, without_numbers(Text)}
            end;
        error ->
            no_term
    end.

%% Compressed terms may be of any size.
external(<<131, 80, _/binary>>) -> error;
external(Input) ->
    try {ok, binary_to_term(Input, [safe])}
    catch error:badarg -> error
    end.

is_name(Key) ->
    lists:member(Key, [<<"stream_id">>, <<"procedure">>, <<"mode">>, <<"args">>, <<"seq">>, <<"body">>, <<"encoding">>,
                       <<"role">>, <<"code">>, <<"message">>, <<"result">>, <<"error">>]).

without_numbers(Reason) ->
    re:replace(io_lib:format("~tp", [Reason]), "[0-9]+", "N", [global, {return, binary}, unicode]).

%% Enough of a term to tell kinds apart, and not more.
shape(_Term, ?DEPTH) -> deep;
shape(Map, Depth) when is_map(Map) -> {map, lists:usort([{shape(K, Depth + 1), shape(V, Depth + 1)} || {K, V} <- maps:to_list(Map)])};
shape(Tuple, Depth) when is_tuple(Tuple) -> {tuple, lists:usort([shape(Part, Depth + 1) || Part <- tuple_to_list(Tuple)])};
shape([Head | Rest], Depth) -> {list, shape(Head, Depth + 1), is_list(Rest)};
shape(Binary, _Depth) when is_binary(Binary) -> {binary, Binary =:= <<>>, is_binary(unicode:characters_to_binary(Binary))};
shape(Number, _Depth) when is_integer(Number) -> {integer, Number < 0, byte_size(binary:encode_unsigned(abs(Number))) div 8};
shape(Float, _Depth) when is_float(Float) -> float;
shape(Atom, _Depth) when is_atom(Atom) -> atom;
shape([], _Depth) -> [];
shape(Bits, _Depth) when is_bitstring(Bits) -> bits;
shape(_Other, _Depth) -> opaque.

%% One to four changes.
changed(Input, Inputs) ->
    lists:foldl(fun(_, Bytes) -> change(rand:uniform(6), Bytes, Inputs) end, Input, lists:seq(1, rand:uniform(4))).

change(_Kind, <<>>, _Inputs) -> rand:bytes(1);
change(Kind, Bytes, Inputs) ->
    Place = rand:uniform(byte_size(Bytes)) - 1,
    <<Before:Place/binary, Byte, After/binary>> = Bytes,
    case Kind of
        1 -> <<Before/binary, (rand:uniform(256) - 1), After/binary>>;
        2 -> <<Before/binary, (Byte bxor (1 bsl (rand:uniform(8) - 1))), After/binary>>;
        3 -> <<Before/binary, After/binary>>;
        4 -> <<Before/binary, (rand:bytes(rand:uniform(4)))/binary, Byte, After/binary>>;
        5 -> Before;
        6 ->
            Other = element(rand:uniform(tuple_size(Inputs)), Inputs),
            <<Before/binary, (binary:part(Other, 0, rand:uniform(byte_size(Other) + 1) - 1))/binary, After/binary>>
    end.

%% @doc The inputs in a file.
-spec corpus(file:filename()) -> [binary()].
corpus(File) ->
    {ok, Text} = file:read_file(File),
    [binary:decode_hex(Line) || Line <- binary:split(Text, <<"\n">>, [global, trim_all]), binary:first(Line) =/= $#].

%% The shortest.
save(File, Inputs) ->
    {ok, Text} = file:read_file(File),
    [Comment | _] = binary:split(Text, <<"\n">>),
    Shortest = lists:sublist(lists:sort(fun(A, B) -> {byte_size(A), A} =< {byte_size(B), B} end, Inputs), ?KEPT),
    ok = file:write_file(File, [Comment, "\n" | [[string:lowercase(binary:encode_hex(Input)), "\n"]
                                                || Input <- Shortest, Input =/= <<>>]]),
    length(Shortest).
