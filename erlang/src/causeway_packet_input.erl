%% @private
%% @doc What comes in on a packet connection: bytes, of which packets are made.
-module(causeway_packet_input).

-export([read/1, received/2, last_words/2, ended/1, check_windows/1]).

-include("causeway_packet_state.hrl").

-define(SMALL_READ, 16384).
-define(LARGE_READ, 65536).
-define(LARGEST_READ, 1048576).
%% Payloads up to this are copied: else they keep alive all that was read with them.
-define(COPIED, 4096).

%% @doc Takes in what there is. First what is there already, and was not looked at because there was no room.
-spec read(#s{}) -> #s{}.
read(#s{needed = Needed, rest = Rest, pieces_size = Size} = S)
  when byte_size(Rest) + Size >= Needed, byte_size(Rest) + Size > 0 ->
    decode_kept(S);
read(#s{filled = none, needed = Needed, rest = Rest, pieces_size = Size} = S)
  when Needed - byte_size(Rest) - Size > ?LARGE_READ ->
    gather(S);
read(S) ->
    read_on(S).

read_on(S) ->
    case read_once(true, S) of
        empty -> S#s{input = watched};
        {error, Reason} -> causeway_packet_end:fail(Reason, S);
        Next -> Next
    end.

%% After a large packet, what follows it is likely to be there already.
read_once(Watch, #s{filled = none, transport = Transport, needed = Needed, rest = Rest, pieces_size = Size} = S) ->
    Missing = Needed - byte_size(Rest) - Size,
    Max = if
              Missing > ?LARGE_READ -> min(Missing, ?LARGEST_READ);
              S#s.is_full; Missing > ?SMALL_READ -> ?LARGE_READ;
              true -> ?SMALL_READ
          end,
    case causeway_packet_transport:read(Transport, Max, Watch) of
        {ok, Data} -> received(Data, S#s{is_full = iolist_size(Data) >= Max});
        closed -> ended(S);
        Other -> Other
    end;
read_once(Watch, #s{filled = Filled, transport = Transport, needed = Needed, bytes_in = BytesIn, reads = Reads} = S) ->
    case causeway_packet_transport:fill(Transport, Watch) of
        {more, Bytes} -> S#s{filled = Filled + Bytes, bytes_in = BytesIn + Bytes, reads = Reads + 1};
        {ok, Packet} ->
            Counted = S#s{filled = none, is_full = true, bytes_in = BytesIn + Needed - Filled, reads = Reads + 1},
            decode(Packet, Counted);
        closed -> ended(S);
        Other -> Other
    end.

%% A large packet, whose beginning has come, is read straight into one binary where the transport can do that.
gather(#s{transport = Transport, needed = Needed, rest = Rest, pieces = Pieces} = S) ->
    Beginning = case Pieces of [] -> Rest; _ -> [Rest | lists:reverse(Pieces)] end,
    case causeway_packet_transport:gather(Transport, Beginning, Needed) of
        ok -> read_on(S#s{rest = <<>>, pieces = [], pieces_size = 0, filled = byte_size(Rest) + S#s.pieces_size});
        {ok, Data} -> received(Data, S);
        closed -> ended(S);
        {error, Reason} -> causeway_packet_end:fail(Reason, S);
        unsupported -> read_on(S)
    end.

%% @doc Takes in what the transport has read by itself.
-spec received(iodata(), #s{}) -> #s{}.
received([], S) ->
    S;
received(<<>>, S) ->
    S;
received(Data, S) ->
    %% At once: many of these may be in the mailbox.
    case check_windows(take(Data, S)) of
        %% The rest of a large packet is better read than waited for.
        #s{input = watched, needed = Needed, rest = Rest, pieces_size = Size} = Next
          when Needed - byte_size(Rest) - Size > ?LARGE_READ -> Next#s{input = ready};
        Next -> Next
    end.

take(Data, #s{rest = Rest, pieces = Pieces, pieces_size = Size, needed = Needed} = S) ->
    #s{bytes_in = BytesIn, reads = Reads} = S,
    New = iolist_size(Data),
    Counted = S#s{bytes_in = BytesIn + New, reads = Reads + 1},
    if
        S#s.input =:= paused; byte_size(Rest) + Size + New < Needed ->
            Counted#s{pieces = [Data | Pieces], pieces_size = Size + New};
        Rest =:= <<>>, Pieces =:= [], is_binary(Data) ->
            decode(Data, Counted);
        true ->
            decode_kept(Counted#s{pieces = [Data | Pieces], pieces_size = Size + New})
    end.

decode_kept(#s{rest = Rest, pieces = Pieces} = S) ->
    decode(iolist_to_binary([Rest | lists:reverse(Pieces)]), S#s{rest = <<>>, pieces = [], pieces_size = 0}).

decode(Bytes, #s{options = #{max_packet := MaxPacket}} = S) ->
    case causeway_nif:packet_decode(Bytes, MaxPacket) of
        {Packets, {malformed, Text}} ->
            case packets(Packets, S) of
                #s{input = eof} = Next -> Next;
                Next -> causeway_packet_end:fail({malformed, Text}, Next)
            end;
        %% There are more.
        {Packets, Rest, 0} ->
            case check_windows(packets(Packets, S)) of
                #s{ended = false, input = paused} = Next -> Next#s{rest = Rest, needed = 0};
                #s{ended = false, input = Input} = Next when Input =/= eof -> decode(Rest, Next);
                Next -> Next
            end;
        {Packets, Rest, Needed} ->
            packets(Packets, S#s{rest = keep(Rest, Bytes), needed = Needed})
    end.

%% Not all that was read for the sake of a few bytes.
keep(Rest, Bytes) when byte_size(Rest) * 4 < byte_size(Bytes) -> binary:copy(Rest);
keep(Rest, _Bytes) -> Rest.

packets([], S) ->
    S;
packets(_Packets, #s{ended = {true, _}} = S) ->
    S;
%% After its end nothing counts.
packets(_Packets, #s{input = eof} = S) ->
    S;
packets([Packet | Others], #s{packets_in = Number} = S) ->
    packets(Others, packet(Packet, S#s{packets_in = Number + 1})).

packet({response, Channel, Tag, Flags, Payload}, S) ->
    causeway_packet_requests:take_response(Channel, Tag, Flags, own(Payload), S);
packet({request, 0, 0, 0, 0, <<>>}, S) ->
    causeway_packet_end:peer_eof(S);
packet({request, 0, 1, 0, 0, <<>>}, S) ->
    S#s{peer_erq = true};
packet({request, _Channel, _Tag, _Flags, 0, _Payload}, S) ->
    causeway_packet_end:fail({malformed, <<"a control packet that is neither EOF nor ERQ">>}, S);
packet({request, Channel, Tag, Flags, Type, Payload}, #s{peer_requests = Number} = S) ->
    causeway_packet_serving:serve({Channel, Tag}, Type - 1, Flags, own(Payload), S#s{peer_requests = Number + 1}).

own(Payload) when byte_size(Payload) =< ?COPIED -> binary:copy(Payload);
own(Payload) -> Payload.

%% @doc Reads on exactly while there is room for what comes. As long as we wait for responses, the number of requests in
%% hand is no reason to stop: handlers may be among those who wait.
-spec check_windows(#s{}) -> #s{}.
check_windows(#s{input = Input, is_last = IsLast} = S) when Input =:= eof; IsLast ->
    S;
check_windows(#s{options = Options, in_hand = InHand, in_hand_bytes = Bytes, outstanding = Outstanding} = S) ->
    #{max_requests := Most, receive_window := Window, send_window := SendWindow} = Options,
    IsFull = Bytes >= Window orelse (S#s.out_size + S#s.unsent_size) div 2 >= SendWindow
                 orelse (map_size(InHand) >= Most andalso Outstanding =:= 0),
    case S#s.input of
        watched when IsFull -> ok = causeway_packet_transport:pause(S#s.transport), S#s{input = paused};
        ready when IsFull -> S#s{input = paused};
        paused when not IsFull -> S#s{input = ready};
        _ -> S
    end.

%% @doc Nothing can be written, for a reason. What the peer has sent before is looked at: it may say that it has ended in
%% good order.
-spec last_words(term(), #s{}) -> #s{}.
last_words(Reason, #s{input = ready, ended = false} = S) ->
    case read_once(false, S) of
        #s{} = Next -> last_words(Reason, Next);
        _ -> causeway_packet_end:fail(Reason, S)
    end;
%% It has, and there is nobody to answer.
last_words(_Reason, #s{input = eof, ended = false} = S) ->
    causeway_packet_end:fail(eof, S);
last_words(_Reason, S) ->
    S.

%% @doc The end of the bytes, after which there is no more than after the peer's EOF.
-spec ended(#s{}) -> #s{}.
ended(#s{input = eof} = S) ->
    S;
ended(#s{filled = Filled} = S) when Filled =/= none ->
    causeway_packet_end:fail(truncated, S);
ended(#s{rest = <<>>, pieces = []} = S) ->
    causeway_packet_end:peer_eof(S);
ended(#s{needed = Needed, rest = Rest, pieces_size = Size} = S) when byte_size(Rest) + Size >= Needed ->
    case decode_kept(S#s{is_last = true}) of
        #s{ended = false} = Next -> ended(Next);
        Ended -> Ended
    end;
ended(S) ->
    causeway_packet_end:fail(truncated, S).
