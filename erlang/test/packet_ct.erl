%% @doc What the suites of packets share.
-module(packet_ct).

-export([vectors/0, noise/0]).
-export_type([vector/0]).

-type vector() :: {number | padded, non_neg_integer(), binary()} | {malformed, Text :: binary(), binary()} |
                  {packet, causeway_packet:packet(), binary()}.

%% @doc The lines of Tests/Packets/hex.txt.
-spec vectors() -> [vector()].
vectors() ->
    [vector(Fields) || [<<Kind, _/binary>> | _] = Fields <- lines("hex.txt"), Kind =/= $#].

%% @doc Bytes that a fuzzer has found to be of interest.
-spec noise() -> [binary()].
noise() ->
    [binary:decode_hex(Hex) || [<<Digit, _/binary>> = Hex] <- lines("corpus.txt"), Digit =/= $#].

vector([<<"number">>, Value, Hex]) -> {number, binary_to_integer(Value), binary:decode_hex(Hex)};
vector([<<"padded">>, Value, Hex]) -> {padded, binary_to_integer(Value), binary:decode_hex(Hex)};
vector([<<"malformed">>, Text, Hex]) ->
    {malformed, binary:replace(Text, <<"_">>, <<" ">>, [global]), binary:decode_hex(Hex)};
vector([<<"request">>, Channel, Tag, Flags, Type, Payload, Hex]) ->
    [C, T, F, Y] = [binary_to_integer(Number) || Number <- [Channel, Tag, Flags, Type]],
    {Bytes, More} = payload(Payload),
    {packet, {request, C, T, F, Y, Bytes}, <<(binary:decode_hex(Hex))/binary, More/binary>>};
vector([<<"response">>, Channel, Tag, Flags, Payload, Hex]) ->
    [C, T, F] = [binary_to_integer(Number) || Number <- [Channel, Tag, Flags]],
    {Bytes, More} = payload(Payload),
    {packet, {response, C, T, F, Bytes}, <<(binary:decode_hex(Hex))/binary, More/binary>>}.

%% The payload, and what of it is not in the hexadecimal bytes.
payload(<<"-">>) -> {<<>>, <<>>};
payload(Text) ->
    case binary:split(Text, <<"*">>) of
        [Hex] -> {binary:decode_hex(Hex), <<>>};
        [Count, Hex] ->
            Bytes = binary:copy(binary:decode_hex(Hex), binary_to_integer(Count)),
            {Bytes, Bytes}
    end.

lines(Name) ->
    Source = proplists:get_value(source, ?MODULE:module_info(compile)),
    {ok, Text} = file:read_file(find(filename:dirname(Source), filename:join(["Tests", "Packets", Name]))),
    [binary:split(Line, <<" ">>, [global, trim_all]) || Line <- binary:split(Text, <<"\n">>, [global, trim_all])].

find(Directory, Name) ->
    Path = filename:join(Directory, Name),
    case filelib:is_regular(Path) of
        true -> Path;
        false -> find(filename:dirname(Directory), Name)
    end.
