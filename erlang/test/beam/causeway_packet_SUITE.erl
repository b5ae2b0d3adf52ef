%% @doc The codec of packets, on every line of Tests/Packets/hex.txt and on bytes that are none.
-module(causeway_packet_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [every_line, truncations, a_stream_in_pieces, payloads_are_parts, bounded_work, after_a_mistake, maximum,
     payloads_that_are_iodata, random_bytes, wrong_arguments].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

every_line(_Config) ->
    Vectors = packet_ct:vectors(),
    ?assert(length(Vectors) > 60),
    lists:foreach(fun check/1, Vectors).

%% A number is looked at as the tag of a response.
check({number, Value, Bytes}) ->
    Packet = {response, 0, Value, 0, <<>>},
    Length = byte_size(Bytes) + 1,
    ?assertEqual(<<Length, Bytes/binary, 0>>, encode(Packet)),
    ?assertEqual({[Packet], <<>>, 1}, causeway_packet:decode(<<Length, Bytes/binary, 0>>));
check({padded, Value, Bytes}) ->
    Length = byte_size(Bytes) + 1,
    ?assertEqual({[{response, 0, Value, 0, <<>>}], <<>>, 1}, causeway_packet:decode(<<Length, Bytes/binary, 0>>));
check({malformed, Text, Bytes}) ->
    {[], {malformed, Said}} = causeway_packet:decode(Bytes),
    ?assertEqual({Text, true}, {Text, string:find(Said, Text) =/= nomatch});
check({packet, Packet, Bytes}) ->
    ?assertEqual(Bytes, encode(Packet)),
    ?assertEqual({[Packet], <<>>, 1}, causeway_packet:decode(Bytes)).

truncations(_Config) ->
    [begin
         ?assertMatch({[], _, _}, causeway_packet:decode(Part)),
         {[], Part, Needed} = causeway_packet:decode(Part),
         ?assert(Needed > Size andalso Needed =< byte_size(Bytes)),
         %% Once the length is there, all is needed.
         ?assert(Needed =:= byte_size(Bytes) orelse binary:last(<<128, Part/binary>>) >= 128)
     end || {packet, _, Bytes} <- packet_ct:vectors(), byte_size(Bytes) < 1000,
            Size <- lists:seq(0, byte_size(Bytes) - 1), Part <- [binary:part(Bytes, 0, Size)]].

a_stream_in_pieces(_Config) ->
    Packets = [Packet || {packet, Packet, Bytes} <- packet_ct:vectors(), byte_size(Bytes) < 20000],
    Stream = iolist_to_binary([causeway_packet:encode(Packet) || Packet <- Packets]),
    [?assertEqual(Packets, in_pieces(Stream, Size, <<>>, 1)) || Size <- [1, 2, 3, 7, 100, 16384, byte_size(Stream)]].

in_pieces(<<>>, _Size, <<>>, 1) -> [];
in_pieces(Stream, Size, Before, Needed) ->
    {Piece, Later} = split_binary(Stream, min(Size, byte_size(Stream))),
    case <<Before/binary, Piece/binary>> of
        Bytes when byte_size(Bytes) < Needed -> in_pieces(Later, Size, Bytes, Needed);
        Bytes ->
            {Packets, Rest, Next} = causeway_packet:decode(Bytes),
            Packets ++ in_pieces(Later, Size, Rest, Next)
    end.

payloads_are_parts(_Config) ->
    Bytes = encode({request, 0, 1, 0, 1, binary:copy(<<"x">>, 100000)}),
    {[{request, 0, 1, 0, 1, Payload}], Rest, 2} = causeway_packet:decode(<<Bytes/binary, 129>>),
    ?assertEqual(byte_size(Bytes) + 1, binary:referenced_byte_size(Payload)),
    ?assertEqual(<<129>>, Rest).

bounded_work(_Config) ->
    Stream = binary:copy(encode({response, 0, 1, 1, <<"a">>}), 10000),
    {Packets, Rest, 0} = causeway_packet:decode(Stream),
    ?assert(length(Packets) < 10000),
    ?assertEqual(10000 - length(Packets), byte_size(Rest) div 4),
    ?assertEqual(10000, all(Stream, 0)).

all(Stream, Count) ->
    case causeway_packet:decode(Stream) of
        {Packets, Rest, 0} -> all(Rest, Count + length(Packets));
        {Packets, <<>>, 1} -> Count + length(Packets)
    end.

after_a_mistake(_Config) ->
    Good = encode({request, 3, 1, 0, 1, <<"a">>}),
    ?assertMatch({[{request, 3, 1, 0, 1, <<"a">>}, {request, 3, 1, 0, 1, <<"a">>}], {malformed, <<_/binary>>}},
                 causeway_packet:decode(<<Good/binary, Good/binary, 0, Good/binary>>)).

maximum(_Config) ->
    Bytes = encode({request, 0, 1, 0, 1, <<"abc">>}),
    ?assertMatch({[_], <<>>, 1}, causeway_packet:decode(Bytes, 6)),
    ?assertEqual({[], {malformed, <<"the packet has 6 bytes, and at most 5 are allowed: max_packet">>}},
                 causeway_packet:decode(binary:part(Bytes, 0, 1), 5)).

payloads_that_are_iodata(_Config) ->
    Iodata = [["a" | <<"b">>], [], $c],
    [_Head, Payload] = causeway_packet:encode({request, 0, 1, 0, 1, Iodata}),
    ?assertEqual(Iodata, Payload),
    ?assertEqual(<<6, 1, 2, 1, "abc">>, encode({request, 0, 1, 0, 1, Iodata})).

random_bytes(_Config) ->
    [case causeway_packet:decode(Bytes, 100000) of
         {Packets, {malformed, Text}} when is_list(Packets), is_binary(Text) -> ok;
         {Packets, Rest, Needed} ->
             ?assert(Needed > byte_size(Rest) orelse length(Packets) > 1000),
             ?assert(is_list([causeway_packet:encode(Packet) || Packet <- Packets]))
     end || Bytes <- packet_ct:noise() ++ [<<(rand:uniform(40)), (rand:bytes(Size))/binary>>
                                       || Size <- lists:seq(1, 200), _ <- lists:seq(1, 30)]].

wrong_arguments(_Config) ->
    Large = 1 bsl 64,
    [?assertMatch({causeway_packet, encode, [Packet], #{1 := <<"must be {request, Channel", _/binary>>}},
                  refusal(fun() -> causeway_packet:encode(Packet) end))
     || Packet <- [{request, 0, Large, 0, 1, <<>>}, {request, Large, 1, 0, 1, <<>>}, {request, 0, 1, 1 bsl 62, 1, <<>>},
                   {request, 0, 1, 0, -1, <<>>}, {request, 0, 1, 0, 1, 1}, {response, 0, 1, 0, 1, <<>>},
                   {response, a, 1, 0, <<>>}, {other, 0, 1, 0, <<>>}, [], packet]],
    ?assertMatch({causeway_packet, decode, [[], 1], #{1 := <<"must be a binary">>}},
                 refusal(fun() -> causeway_packet:decode([], 1) end)),
    [?assertMatch({causeway_packet, decode, [<<>>, Maximum], #{2 := <<"must be a number of bytes, 0 or more">>}},
                  refusal(fun() -> causeway_packet:decode(<<>>, Maximum) end)) || Maximum <- [-1, 1.0, infinity, Large]].

%% Who refuses what, and what the shell prints.
refusal(Fun) ->
    try Fun() of
        Result -> {unexpected, Result}
    catch
        error:badarg:Stack ->
            [{Module, Function, Arguments, Info} | _] = Stack,
            #{module := Formatter} = proplists:get_value(error_info, Info),
            {Module, Function, Arguments, Formatter:format_error(badarg, Stack)}
    end.

encode(Packet) -> iolist_to_binary(causeway_packet:encode(Packet)).

