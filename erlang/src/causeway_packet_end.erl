%% @private
%% @doc How a packet connection ends: in order, or at once.
-module(causeway_packet_end).

-export([fail/2, peer_eof/1, settle/1, give_up/2, finish/2]).

-include("causeway_packet_state.hrl").

%% @doc Nothing more is done, for a reason; the first one stays.
-spec fail(term(), #s{}) -> #s{}.
fail(Reason, #s{ended = false} = S) -> S#s{ended = {true, Reason}};
fail(_Reason, S) -> S.

%% @doc No more packets come.
-spec peer_eof(#s{}) -> #s{}.
peer_eof(S) ->
    causeway_packet_requests:fail_all(eof, S#s{input = eof, rest = <<>>, pieces = [], pieces_size = 0}).

%% @doc Goes on with the end, where that has begun and there is nothing more to wait for.
-spec settle(#s{}) -> #s{}.
settle(#s{ended = false, is_closing = false, is_half_closed = false, input = Input, output = Output} = S)
  when Input =/= eof, Output =/= dead ->
    S;
settle(#s{ended = false, in_hand = InHand, line_length = Length, outstanding = Outstanding} = S)
  when map_size(InHand) =:= 0, Length =:= 0 ->
    case S of
        #s{output = Output} when Output =:= eof, Outstanding =:= 0; Output =:= dead ->
            fail(case S#s.input of eof -> eof; _ -> local end, S);
        #s{is_eof_queued = true, output = open, out = [], unsent = []} ->
            ok = causeway_packet_transport:close_output(S#s.transport),
            settle(S#s{output = eof});
        #s{is_eof_queued = false, is_half_closed = Half} when Outstanding =:= 0; Half ->
            causeway_packet_output:put_eof(S);
        _ ->
            S
    end;
settle(#s{output = dead, ended = false} = S) ->
    fail(eof, S);
settle(S) ->
    S.

%% @doc Does not wait any longer: whoever waits is told so, and the peer if it can be told at once.
-spec give_up(term(), #s{}) -> #s{}.
give_up(Reason, S) ->
    Told = causeway_packet_output:put_eof(causeway_packet_requests:fail_all(told(Reason), S)),
    case causeway_packet_output:flush(Told) of
        {error, _} -> fail(Reason, Told);
        Flushed -> fail(Reason, Flushed)
    end.

%% @doc Ends the process.
-spec finish(term(), #s{}) -> no_return().
finish(Reason, S) ->
    Ended = end_all(Reason, S),
    exit(exit_reason(Ended)).

%% What those who wait are told.
told({parent, Reason}) -> {owner, Reason};
told(Reason) -> Reason.

exit_reason(eof) -> normal;
exit_reason(local) -> normal;
exit_reason({parent, Reason}) -> Reason;
exit_reason(Reason) -> {shutdown, Reason}.

end_all(Reason, #s{transport = Transport, handlers = Handlers, busy = Busy, idle = Idle} = S) ->
    Told = told(Reason),
    _ = causeway_packet_requests:fail_all(Told, S),
    lists:foreach(fun(Worker) -> unlink(Worker), exit(Worker, kill) end, Idle ++ maps:keys(Busy)),
    %% A socket that is closed with something unread throws away what the peer has not got yet.
    discard(Transport, 64),
    ok = causeway_packet_transport:close(Transport),
    maps:foreach(fun(_Channel, Handler) -> causeway_packet_handler:ended(Handler, Told) end, Handlers),
    Reason.

discard(_Transport, 0) ->
    ok;
discard(Transport, Times) ->
    case causeway_packet_transport:discard(Transport) of
        more -> discard(Transport, Times - 1);
        done -> ok
    end.
