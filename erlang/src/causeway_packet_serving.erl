%% @private
%% @doc The peer's requests on a packet connection, from when they are read until their answers are queued, and the
%% workers that run the handlers.
-module(causeway_packet_serving).

-export([serve/5, done/4, worker_lost/3, respond/4, passed_on/3, taken/2, weight/1]).

-include("causeway_packet_state.hrl").

%% What a request takes beside its payload, in bytes.
-define(OVERHEAD, 512).
%% The request by which erlang.packetstream asks for a sign of life.
-define(PROBE_TYPE, 16#ffffffff).

%% @doc Takes a request of the peer in hand, or rejects it.
-spec serve({non_neg_integer(), non_neg_integer()}, non_neg_integer(), non_neg_integer(), binary(), #s{}) -> #s{}.
serve({Channel, Tag} = Key, Type, Flags, Payload, #s{handlers = Handlers, in_hand = InHand} = S) ->
    case Handlers of
        _ when is_map_key(Key, InHand) ->
            reject(Key, ["channel ", integer_to_list(Channel), ": tag already in use: ", integer_to_list(Tag)], S);
        _ when S#s.is_closing; S#s.is_eof_queued ->
            reject(Key, "rejecting request: runstate.cancelled", S);
        _ when S#s.peer_erq ->
            reject(Key, "requests no longer allowed", S);
        _ when Type =:= ?PROBE_TYPE, Channel =:= 0 ->
            put_response(Key, {1, <<>>, 0}, S);
        #{Channel := none} ->
            reject(Key, "no request handler", S);
        #{Channel := Handler} ->
            take_in_hand(Key, Type, Flags, Payload, Handler, S);
        #{} ->
            reject(Key, ["unknown channel ", integer_to_list(Channel)], S)
    end.

reject(Key, Text, #s{rejected = Rejected} = S) ->
    Payload = iolist_to_binary(Text),
    put_response(Key, {0, Payload, byte_size(Payload)}, S#s{rejected = Rejected + 1}).

take_in_hand(Key, Type, Flags, Payload, Handler, #s{in_hand = InHand, in_hand_bytes = Bytes, serial = Last} = S) ->
    Serial = Last + 1,
    Size = weight(Payload),
    Job = {Key, {causeway_packet, self(), Key, Serial}, Type, Flags, Payload, Handler},
    run(Job, S#s{in_hand = InHand#{Key => {Serial, Size, undefined}}, in_hand_bytes = Bytes + Size, serial = Serial}).

run({Key, _, _, _, Payload, _} = Job, #s{options = #{workers := 0, max_packet := MaxPacket} = Options, serial = Serial} = S) ->
    case causeway_packet_handler:answer(Job, MaxPacket - ?HEAD) of
        noreply -> respond(Key, Serial, noreply, S);
        Response -> passed_on(maps:get(taker, Options), Payload, respond(Key, Serial, Response, S))
    end;
run(Job, #s{idle = [Worker | Idle], busy = Busy} = S) ->
    Worker ! {job, Job},
    S#s{idle = Idle, busy = Busy#{Worker => element(1, Job)}};
run(Job, #s{idle = [], busy = Busy, options = #{workers := Most, max_packet := MaxPacket}, jobs = Jobs} = S) ->
    if
        map_size(Busy) < Most -> run(Job, S#s{idle = [causeway_packet_handler:start_worker(MaxPacket - ?HEAD)]});
        true -> S#s{jobs = queue:in(Job, Jobs)}
    end.

%% @doc A worker has the answer, and time for the next request.
-spec done(pid(), {non_neg_integer(), non_neg_integer()}, causeway_packet_handler:response() | noreply, #s{}) -> #s{}.
done(Worker, Key, Response, #s{busy = Busy, in_hand = InHand} = S) ->
    case {maps:take(Worker, Busy), InHand} of
        {{Key, Others}, #{Key := {Serial, _, _}}} ->
            next_job(Worker, respond(Key, Serial, Response, S#s{busy = Others}));
        {{_, Others}, _} ->
            next_job(Worker, S#s{busy = Others});
        {error, _} ->
            S
    end.

next_job(Worker, #s{jobs = Jobs, busy = Busy, idle = Idle} = S) ->
    case queue:out(Jobs) of
        {{value, Job}, Others} ->
            Worker ! {job, Job},
            S#s{jobs = Others, busy = Busy#{Worker => element(1, Job)}};
        {empty, _} ->
            S#s{idle = [Worker | Idle]}
    end.

%% @doc A worker was ended from outside.
-spec worker_lost(pid(), term(), #s{}) -> #s{}.
worker_lost(Worker, Reason, #s{busy = Busy, in_hand = InHand, options = #{max_packet := MaxPacket}} = S) ->
    {Key, Others} = maps:take(Worker, Busy),
    logger:error("a handler of a packet connection was ended: ~tp", [Reason], #{domain => [causeway]}),
    Answered = case InHand of
                   #{Key := {Serial, _, _}} ->
                       respond(Key, Serial, {0, <<"exception during handler">>, 24}, S#s{busy = Others});
                   #{} ->
                       S#s{busy = Others}
               end,
    case queue:is_empty(S#s.jobs) of
        true -> Answered;
        false -> next_job(causeway_packet_handler:start_worker(MaxPacket - ?HEAD), Answered)
    end.

%% @doc What a handler says, or whoever answers in its place later. Only the first counts.
-spec respond({non_neg_integer(), non_neg_integer()}, pos_integer(),
              causeway_packet_handler:response() | noreply, #s{}) -> #s{}.
respond(_Key, _Serial, noreply, #s{options = #{answer_timeout := infinity}} = S) ->
    S;
respond(Key, Serial, noreply, #s{in_hand = InHand, options = #{answer_timeout := Time}} = S) ->
    case InHand of
        #{Key := {Serial, Size, undefined}} ->
            Timer = erlang:start_timer(Time, self(), {answer, Key, Serial}),
            S#s{in_hand = InHand#{Key := {Serial, Size, Timer}}};
        %% It is answered already.
        #{} ->
            S
    end;
respond(Key, Serial, {_, _, Bytes} = Response, #s{in_hand = InHand, in_hand_bytes = InHandBytes} = S) ->
    #{max_packet := MaxPacket} = S#s.options,
    case InHand of
        #{Key := {Serial, _, _}} when Bytes > MaxPacket - ?HEAD ->
            respond(Key, Serial, {0, <<"exception during handler">>, 24}, S);
        #{Key := {Serial, Size, Timer}} ->
            causeway_packet_requests:cancel_timer(Timer),
            Left = S#s{in_hand = maps:remove(Key, InHand), in_hand_bytes = InHandBytes - Size},
            put_response(Key, Response, Left#s{peer_responses = S#s.peer_responses + 1});
        #{} ->
            S
    end.

%% @doc Something has been sent to a process. Where that is the one that says by {@link taken/2} what it has looked at, it
%% counts as in hand until then: so what waits in its mailbox is bounded, though it was answered at once.
-spec passed_on(pid() | undefined, binary(), #s{}) -> #s{}.
passed_on(Taker, Payload, #s{options = #{taker := Taker}, in_hand_bytes = Bytes} = S) when is_pid(Taker) ->
    S#s{in_hand_bytes = Bytes + weight(Payload)};
passed_on(_Other, _Payload, S) ->
    S.

%% @doc So much of it was looked at.
-spec taken(non_neg_integer(), #s{}) -> #s{}.
taken(Bytes, #s{in_hand_bytes = Before} = S) ->
    S#s{in_hand_bytes = Before - Bytes}.

%% @doc What a payload counts.
-spec weight(binary()) -> pos_integer().
weight(Payload) ->
    byte_size(Payload) + ?OVERHEAD.

put_response(_Key, _Response, #s{output = Output} = S) when Output =:= eof; Output =:= dead ->
    S;
put_response({Channel, Tag}, {Flags, Payload, Size}, S) ->
    Head = causeway_nif:packet_head({response, Channel, Tag, Flags}, Size),
    causeway_packet_output:put_packet(Head, Payload, Size, S).
