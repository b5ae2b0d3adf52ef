%% @doc The packets of packet connections, as `cs.packetstream' of Python has them, byte by byte.
%%
%% A packet is a request or a response. Its numbers have up to 64 bits, the flags 62. They are here as on the wire:
%% a request of the type 0 is a control packet, so that the first type of an application is 1, and the lowest bit of a
%% response's flags says whether all went well.
%%
%% A wrong argument is an error of the class `badarg', with a text that the shell prints; `not_loaded' is
%% raised before the application has started.
-module(causeway_packet).

-export([encode/1, decode/1, decode/2]).
-export_type([packet/0, decoded/0]).

-type packet() :: {request, Channel :: non_neg_integer(), Tag :: non_neg_integer(), Flags :: non_neg_integer(),
                   Type :: non_neg_integer(), Payload :: iodata()} |
                  {response, Channel :: non_neg_integer(), Tag :: non_neg_integer(), Flags :: non_neg_integer(),
                   Payload :: iodata()}.
%% Decoded payloads are parts of the binary in which they were found, and keep all of it: copy (`binary:copy/1') what
%% is kept for long.
-type decoded() :: {[packet()], Rest :: binary(), Needed :: non_neg_integer()} |
                   {[packet()], {malformed, Text :: binary()}}.
%% `Rest' is what is left behind the packets, and the next call has something to do when it has become `Needed' bytes:
%% 0 where not all packets were taken, which a call does not do with thousands of them. What comes after something
%% that is no packet cannot be understood.

-define(STANDARD_MAXIMUM, 67108864).

%% @doc The bytes of a packet. The payload is in them as it was given.
-spec encode(packet()) -> iolist().
encode({request, Channel, Tag, Flags, Type, Payload} = Packet) ->
    encode({request, Channel, Tag, Flags, Type}, Payload, Packet);
encode({response, Channel, Tag, Flags, Payload} = Packet) ->
    encode({response, Channel, Tag, Flags}, Payload, Packet);
encode(Packet) ->
    bad_packet(Packet).

encode(Head, Payload, Packet) ->
    try iolist_size(Payload) of
        Size ->
            case causeway_nif:packet_head(Head, Size) of
                badarg -> bad_packet(Packet);
                Bytes -> [Bytes, Payload]
            end
    catch
        error:badarg -> bad_packet(Packet)
    end.

-spec bad_packet(term()) -> no_return().
bad_packet(Packet) ->
    bad(encode, [Packet],
        #{1 => <<"must be {request, Channel, Tag, Flags, Type, Payload} or {response, Channel, Tag, Flags, Payload}: "
                 "numbers of up to 64 bits (Flags up to 62), and a Payload that is iodata">>}).

%% @doc The same as {@link decode/2} with a maximum of 64 MiB.
-spec decode(binary()) -> decoded().
decode(Binary) ->
    decode(Binary, ?STANDARD_MAXIMUM).

%% @doc The packets at the beginning of a binary.
%%
%% A packet with more than `MaxPacket' bytes behind its length is malformed, which is known as soon as its length is.
-spec decode(binary(), MaxPacket :: non_neg_integer()) -> decoded().
decode(Binary, MaxPacket) ->
    case causeway_nif:packet_decode(Binary, MaxPacket) of
        badarg when is_binary(Binary) ->
            bad(decode, [Binary, MaxPacket], #{2 => <<"must be a number of bytes, 0 or more">>});
        badarg -> bad(decode, [Binary, MaxPacket], #{1 => <<"must be a binary">>});
        Decoded -> Decoded
    end.

%% Errors

-spec bad(atom(), [term()], #{pos_integer() => binary()}) -> no_return().
bad(Function, Arguments, Texts) ->
    causeway_badarg:raise(?MODULE, Function, Arguments, Texts).
