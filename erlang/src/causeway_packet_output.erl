%% @private
%% @doc What goes out on a packet connection: all that has come since the last time is written at once.
-module(causeway_packet_output).

-export([put_packet/4, put_eof/1, flush/1, has_stalled/2]).

-include("causeway_packet_state.hrl").

%% @doc Queues a packet.
-spec put_packet(binary(), iodata(), non_neg_integer(), #s{}) -> #s{}.
put_packet(Head, Payload, Size, #s{out = Out, out_size = OutSize, packets_out = Packets} = S) ->
    S#s{out = [[Head | Payload] | Out], out_size = OutSize + byte_size(Head) + Size, packets_out = Packets + 1}.

%% @doc Queues the last one.
-spec put_eof(#s{}) -> #s{}.
put_eof(#s{is_eof_queued = true} = S) ->
    S;
put_eof(S) ->
    put_packet(causeway_nif:packet_head({request, 0, 0, 0, 0}, 0), <<>>, 0, S#s{is_eof_queued = true}).

%% @doc Writes what there is room for.
-spec flush(#s{}) -> #s{} | {error, term()}.
flush(#s{output = open, out = [_ | _] = Out, out_size = Size, unsent = Unsent, unsent_size = UnsentSize} = S) ->
    New = erlang:iolist_to_iovec(lists:reverse(Out)),
    All = case Unsent of [] -> New; _ -> Unsent ++ New end,
    write(S#s{out = [], out_size = 0, unsent = All, unsent_size = Size + UnsentSize});
flush(#s{output = open, unsent = [_ | _]} = S) ->
    write(S);
flush(S) ->
    S.

write(#s{transport = Transport, unsent = Unsent, unsent_size = Size, bytes_out = BytesOut, writes = Writes} = S) ->
    case causeway_packet_transport:write(Transport, Unsent) of
        {ok, Size} ->
            S#s{unsent = [], unsent_size = 0, bytes_out = BytesOut + Size, writes = Writes + 1};
        {ok, Bytes} ->
            write(S#s{unsent = drop(Bytes, Unsent), unsent_size = Size - Bytes, bytes_out = BytesOut + Bytes});
        {busy, Bytes} ->
            watch_progress(S#s{unsent = drop(Bytes, Unsent), unsent_size = Size - Bytes, output = blocked,
                               bytes_out = BytesOut + Bytes, writes = Writes + 1});
        {error, _} = Error ->
            Error
    end.

drop(0, Binaries) ->
    Binaries;
drop(Bytes, [Binary | Others]) when Bytes >= byte_size(Binary) ->
    drop(Bytes - byte_size(Binary), Others);
drop(Bytes, [Binary | Others]) ->
    <<_:Bytes/binary, Rest/binary>> = Binary,
    [Rest | Others].

%% Nobody waits for ever because the peer does not read.
watch_progress(#s{stalled = undefined, options = #{send_timeout := Timeout}, bytes_out = Bytes} = S)
  when Timeout =/= infinity ->
    S#s{stalled = {erlang:start_timer(Timeout, self(), stalled), Bytes}};
watch_progress(S) ->
    S.

%% @doc Whether nothing was written since so many bytes were, which is some time ago.
-spec has_stalled(non_neg_integer(), #s{}) -> true | {false, #s{}}.
has_stalled(Before, #s{output = blocked, bytes_out = Before}) -> true;
has_stalled(_Before, #s{output = blocked} = S) -> {false, watch_progress(S)};
has_stalled(_Before, S) -> {false, S}.
