%% @private
%% @doc The requests of this node on a packet connection: each has a row in a table from when it came until it is
%% answered or given up, and nothing afterwards.
-module(causeway_packet_requests).

-export([request/9, next_in_line/1, take_response/5, gone/2, sweep/1, timed_out/2, fail_all/2, fail_channel/2]).
-export([cancel_timer/1, answer/2]).

-include("causeway_packet_state.hrl").

-define(SWEEP_AFTER, 1000).

%% @doc Takes a request of a process, which is sent as soon as there is room, or refused. `Type' as on the wire.
-spec request(pid(), reference(), Channel :: non_neg_integer(), Type :: pos_integer(), Flags :: non_neg_integer(),
              iodata(), Size :: non_neg_integer(), {sync | async, timeout() | standard}, #s{}) -> #s{}.
request(_Caller, Reference, _Channel, _Type, _Flags, _Payload, _Size, _Mode, #s{is_closing = true} = S) ->
    answer(Reference, {error, closing}),
    S;
request(_Caller, Reference, _Channel, _Type, _Flags, _Payload, _Size, _Mode, #s{input = eof} = S) ->
    answer(Reference, {error, {closed, eof}}),
    S;
request(_Caller, Reference, _Channel, _Type, _Flags, _Payload, _Size, _Mode, #s{erq = Erq, is_half_closed = Half} = S)
  when Erq; Half ->
    answer(Reference, {error, requests_ended}),
    S;
request(Caller, Reference, Channel, Type, Flags, Payload, Size, {Kind, Time}, S) ->
    #s{options = #{max_packet := MaxPacket, max_waiting := MaxWaiting, timeout := Standard}, handlers = Handlers,
       line_length = Length} = S,
    if
        not is_map_key(Channel, Handlers) ->
            answer(Reference, {error, {unknown_channel, Channel}}),
            S;
        Size > MaxPacket - ?HEAD ->
            answer(Reference, {error, {too_large, Size, MaxPacket - ?HEAD}}),
            S;
        Kind =:= async, Length >= MaxWaiting ->
            answer(Reference, {error, busy}),
            S;
        true ->
            Timeout = if Time =:= standard -> Standard; true -> Time end,
            place(Channel, Type, Flags, Payload, Size, enter(Caller, Reference, Channel, Timeout, S))
    end.

%% The row of a request.
enter(Caller, Reference, Channel, Timeout, #s{tag = Last, table = Table, callers = Callers} = S) ->
    Tag = Last + 1,
    Timer = case Timeout of
                infinity -> undefined;
                _ -> erlang:start_timer(Timeout, self(), {request, Tag})
            end,
    Row = #request{tag = Tag, caller = Caller, reference = Reference, timer = Timer, channel = Channel},
    true = ets:insert(Table, Row),
    case Callers of
        #{Caller := _} -> S#s{tag = Tag};
        #{} -> S#s{tag = Tag, callers = Callers#{Caller => erlang:monitor(process, Caller)}}
    end.

%% On its way at once, or in the line.
place(Channel, Type, Flags, Payload, Size, #s{tag = Tag, line_length = 0} = S) ->
    case has_room(S) of
        true -> send_request(Tag, Channel, Type, Flags, Payload, Size, S);
        false -> line_up({Tag, Channel, Type, Flags, Payload, Size}, S)
    end;
place(Channel, Type, Flags, Payload, Size, #s{tag = Tag} = S) ->
    line_up({Tag, Channel, Type, Flags, Payload, Size}, S).

has_room(#s{outstanding = Outstanding, out_size = Out, unsent_size = Unsent, options = Options}) ->
    #{max_outstanding := Most, send_window := Window} = Options,
    Outstanding < Most andalso Out + Unsent < Window.

line_up(Item, #s{line = Line, line_length = Length} = S) ->
    S#s{line = queue:in(Item, Line), line_length = Length + 1}.

send_request(Tag, Channel, Type, Flags, Payload, Size, #s{outstanding = Outstanding, requests = Requests} = S) ->
    Head = causeway_nif:packet_head({request, Channel, Tag, Flags, Type}, Size),
    Counted = S#s{sent = Tag, outstanding = Outstanding + 1, requests = Requests + 1},
    causeway_packet_output:put_packet(Head, Payload, Size, Counted).

%% @doc Sends those that wait, as far as there is room.
-spec next_in_line(#s{}) -> #s{}.
next_in_line(#s{line_length = 0} = S) ->
    S;
next_in_line(#s{line = Line, line_length = Length, table = Table} = S) ->
    case has_room(S) of
        true ->
            {{value, {Tag, Channel, Type, Flags, Payload, Size}}, Others} = queue:out(Line),
            Popped = S#s{line = Others, line_length = Length - 1},
            case ets:member(Table, Tag) of
                true -> next_in_line(send_request(Tag, Channel, Type, Flags, Payload, Size, Popped));
                false -> next_in_line(Popped#s{sent = Tag})
            end;
        false ->
            S
    end.

%% @doc The response to a request, if anybody waits for it.
-spec take_response(non_neg_integer(), non_neg_integer(), non_neg_integer(), binary(), #s{}) -> #s{}.
take_response(Channel, Tag, Flags, Payload, #s{table = Table, sent = Sent, responses = Responses} = S) ->
    case ets:take(Table, Tag) of
        [#request{channel = Channel, caller = Caller, reference = Reference, timer = Timer}] when Tag =< Sent ->
            cancel_timer(Timer),
            answer(Reference, result(Flags, Payload)),
            Counted = S#s{responses = Responses + 1},
            row_left(Tag, causeway_packet_serving:passed_on(Caller, Payload, Counted));
        [Other] ->
            true = ets:insert(Table, Other),
            stray(Channel, Tag, S);
        [] ->
            stray(Channel, Tag, S)
    end.

stray(?PROBE_CHANNEL, _Tag, S) -> S;
stray(_Channel, _Tag, #s{stray = Stray} = S) -> S#s{stray = Stray + 1}.

result(Flags, Payload) when Flags band 1 =:= 1 -> {ok, Flags bsr 1, Payload};
result(Flags, Payload) -> {failed, Flags bsr 1, Payload}.

%% @doc Tells a process that waits.
-spec answer(reference(), term()) -> ok.
answer(Reference, Result) ->
    Reference ! {Reference, Result},
    ok.

row_left(Tag, #s{sent = Sent, outstanding = Outstanding} = S) when Tag =< Sent -> S#s{outstanding = Outstanding - 1};
row_left(_Tag, S) -> thin_out(S).

%% The line is no longer than twice those who really wait in it.
thin_out(#s{table = Table, outstanding = Outstanding, line = Line, line_length = Length} = S) ->
    case ets:info(Table, size) - Outstanding of
        Waiting when Length > 2 * Waiting + 64 ->
            S#s{line = queue:filter(fun(Item) -> ets:member(Table, element(1, Item)) end, Line), line_length = Waiting};
        _ ->
            S
    end.

%% @doc Does not need it any more.
-spec cancel_timer(undefined | reference()) -> ok.
cancel_timer(undefined) -> ok;
cancel_timer(Timer) -> _ = erlang:cancel_timer(Timer, [{async, true}, {info, false}]), ok.

%% @doc Somebody does not wait any more. Their rows are looked for when they may be many, or a second later: so the time
%% that this takes is in proportion to what has come in between.
-spec gone(pid() | reference(), #s{}) -> #s{}.
gone(Key, #s{gone = Gone, table = Table} = S) ->
    case ets:info(Table, size) of
        0 ->
            S;
        Rows when map_size(Gone) * 8 + 8 >= Rows ->
            sweep(S#s{gone = Gone#{Key => []}});
        _ ->
            _ = [erlang:start_timer(?SWEEP_AFTER, self(), sweep) || map_size(Gone) =:= 0],
            S#s{gone = Gone#{Key => []}}
    end.

%% @doc Looks for the rows of those.
-spec sweep(#s{}) -> #s{}.
sweep(#s{gone = Gone} = S) when map_size(Gone) =:= 0 ->
    S;
sweep(#s{gone = Gone, table = Table} = S) ->
    Rows = ets:foldl(fun(#request{caller = Caller, reference = Reference} = Row, Found) ->
                             case is_map_key(Caller, Gone) orelse is_map_key(Reference, Gone) of
                                 true -> [Row | Found];
                                 false -> Found
                             end
                     end, [], Table),
    lists:foldl(fun(Row, Acc) -> forget(Row, Acc) end, S#s{gone = #{}}, Rows).

forget(#request{tag = Tag, timer = Timer}, #s{table = Table, cancelled = Cancelled} = S) ->
    cancel_timer(Timer),
    true = ets:delete(Table, Tag),
    row_left(Tag, S#s{cancelled = Cancelled + 1}).

%% @doc The time of a request is over.
-spec timed_out(pos_integer(), #s{}) -> #s{}.
timed_out(Tag, #s{table = Table, timeouts = Timeouts} = S) ->
    case ets:take(Table, Tag) of
        [#request{reference = Reference}] ->
            answer(Reference, {error, timeout}),
            row_left(Tag, S#s{timeouts = Timeouts + 1});
        [] ->
            S
    end.

%% @doc Everybody who waits is told why it is over.
-spec fail_all(term(), #s{}) -> #s{}.
fail_all(Reason, #s{table = Table} = S) ->
    ets:foldl(fun(#request{reference = Reference, timer = Timer}, ok) ->
                      cancel_timer(Timer),
                      answer(Reference, {error, {closed, Reason}})
              end, ok, Table),
    true = ets:delete_all_objects(Table),
    S#s{outstanding = 0, line = queue:new(), line_length = 0, gone = #{}}.

%% @doc Everybody is told who waits for something on a channel that is closed.
-spec fail_channel(pos_integer(), #s{}) -> #s{}.
fail_channel(Channel, #s{table = Table} = S) ->
    Rows = ets:match_object(Table, #request{channel = Channel, _ = '_'}),
    lists:foldl(fun(#request{tag = Tag, reference = Reference, timer = Timer}, Acc) ->
                        cancel_timer(Timer),
                        true = ets:delete(Table, Tag),
                        answer(Reference, {error, {closed, channel_closed}}),
                        row_left(Tag, Acc)
                end, S, Rows).
