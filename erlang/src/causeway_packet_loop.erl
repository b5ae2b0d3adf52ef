%% @private
%% @doc The process of a packet connection.
%%
%% It takes what is in its mailbox, then writes all that came of it at once, then reads; only when there is nothing to
%% do it waits. A request of this node has a row in a table from when it came until it is answered or given up, and
%% nothing afterwards. One of the peer is in a map until its answer is queued.
-module(causeway_packet_loop).

-export([start/4, init/4]).
-export([system_continue/3, system_terminate/4, system_code_change/4, system_get_state/1, system_replace_state/2,
         format_status/2]).

%% Of a row of the table: its tag, the caller, the reference that the caller waits for, the timer, and the channel.
-record(request, {tag, caller, reference, timer, channel}).

-record(s, {
    parent :: pid(),
    debug = [],
    options :: map(),
    transport :: causeway_packet_transport:opened(),
    handlers = #{} :: #{non_neg_integer() => causeway_packet_handler:handler()},
    %% Our requests. Those with a tag up to `sent' are on their way, the others wait for their turn.
    table :: ets:table(),
    tag = 0 :: non_neg_integer(),
    sent = 0 :: non_neg_integer(),
    outstanding = 0 :: non_neg_integer(),
    line = queue:new() :: queue:queue(),
    line_length = 0 :: non_neg_integer(),
    callers = #{} :: #{pid() => reference()},
    %% Callers that have died and requests that were cancelled, whose rows are still there.
    gone = #{} :: #{pid() | reference() => []},
    %% The peer's requests: serial number and size of each that is not answered, those that wait for a worker.
    in_hand = #{} :: #{{Channel :: non_neg_integer(), Tag :: non_neg_integer()} => {pos_integer(), non_neg_integer()}},
    in_hand_bytes = 0 :: non_neg_integer(),
    serial = 0 :: non_neg_integer(),
    jobs = queue:new() :: queue:queue(),
    idle = [] :: [pid()],
    busy = #{} :: #{pid() => term()},
    %% What is to be written: what has come since the last write, newest first; what the transport has not taken.
    out = [] :: iolist(),
    out_size = 0 :: non_neg_integer(),
    unsent = [] :: [binary()],
    unsent_size = 0 :: non_neg_integer(),
    output = open :: open | blocked | eof | dead,
    is_eof_queued = false :: boolean(),
    stalled :: undefined | {reference(), non_neg_integer()},
    %% What was read: the beginning of a packet, and pieces of it that came later, newest first.
    input = ready :: ready | watched | paused | eof,
    rest = <<>> :: binary(),
    pieces = [] :: [binary()],
    pieces_size = 0 :: non_neg_integer(),
    needed = 1 :: non_neg_integer(),
    is_full = false :: boolean(),
    %% Nothing more comes: all that is there is looked at.
    is_last = false :: boolean(),
    %% The ends.
    is_closing = false :: boolean(),
    is_half_closed = false :: boolean(),
    erq = false :: boolean(),
    peer_erq = false :: boolean(),
    drain :: undefined | reference(),
    ended = false :: false | {true, Reason :: term()},
    %% Keepalive: what had been read when it was looked at last.
    alive = 0 :: non_neg_integer(),
    probes = 0 :: non_neg_integer(),
    is_probing = false :: boolean(),
    %% Counters.
    requests = 0, responses = 0, peer_requests = 0, peer_responses = 0, rejected = 0, cancelled = 0, timeouts = 0,
    stray = 0, bytes_in = 0, bytes_out = 0, packets_in = 0, packets_out = 0, reads = 0, writes = 0
}).

-define(SMALL_READ, 16384).
-define(LARGE_READ, 65536).
-define(LARGEST_READ, 1048576).
%% So much is written before the mailbox is empty.
-define(WRITE_AT_ONCE, 131072).
%% Payloads up to this are copied: else they keep alive all that was read with them.
-define(COPIED, 4096).
%% What a request takes beside its payload, in bytes.
-define(OVERHEAD, 128).
%% The most that comes before a payload.
-define(HEAD, 40).
-define(SWEEP_AFTER, 1000).
-define(MESSAGES_AT_ONCE, 256).
%% A channel that nobody opens: whoever is asked there says at least that it is unknown.
-define(PROBE_CHANNEL, 16#7fffffff).
%% The request by which erlang.packetstream asks for a sign of life.
-define(PROBE_TYPE, 16#ffffffff).

%% @doc Starts it, linked or not. `Pass' passes the transport on to it, or closes it where there is no process.
-spec start([link], causeway_packet_transport:prepared(), fun((pid() | none) -> ok | {error, term()}), map()) ->
          {ok, pid()} | {error, term()}.
start(Link, Prepared, Pass, Options) ->
    Reference = make_ref(),
    SpawnOptions = [monitor, {fullsweep_after, 20}, {min_heap_size, 4096}, {message_queue_data, off_heap} | Link],
    {Pid, Monitor} = proc_lib:spawn_opt(?MODULE, init, [self(), Reference, Prepared, Options], SpawnOptions),
    Passed = Pass(Pid),
    Pid ! {Reference, Passed},
    receive
        {Reference, ok} ->
            true = erlang:demonitor(Monitor, [flush]),
            {ok, Pid};
        {Reference, {error, _} = Error} ->
            receive {'DOWN', Monitor, process, Pid, _} -> ok end,
            _ = Pass(none),
            Error;
        {'DOWN', Monitor, process, Pid, Reason} ->
            {error, Reason}
    end.

%% @private
-spec init(pid(), reference(), causeway_packet_transport:prepared(), map()) -> no_return().
init(Starter, Reference, Prepared, Options) ->
    Refuse = fun(Error) ->
                     unlink(Starter),
                     Starter ! {Reference, Error},
                     exit(normal)
             end,
    receive
        {Reference, ok} -> ok;
        {Reference, NotPassed} -> Refuse(NotPassed)
    end,
    process_flag(trap_exit, true),
    case register_name(maps:get(name, Options, undefined)) of
        ok -> ok;
        {error, _} = Taken -> Refuse(Taken)
    end,
    case open(Prepared, Options) of
        {ok, Received, S} ->
            Starter ! {Reference, ok},
            step(received(Received, S#s{parent = Starter}));
        {error, _} = Error ->
            Refuse(Error)
    end.

register_name(undefined) ->
    ok;
register_name({local, Name}) ->
    try register(Name, self()) of
        true -> ok
    catch
        error:badarg -> {error, {already_started, whereis(Name)}}
    end;
register_name({global, Name}) ->
    case global:register_name(Name, self()) of
        yes -> ok;
        no -> {error, {already_started, global:whereis_name(Name)}}
    end;
register_name({via, Module, Name}) ->
    case Module:register_name(Name, self()) of
        yes -> ok;
        no -> {error, {already_started, Module:whereis_name(Name)}}
    end.

open(Prepared, #{handler := Handler, owner := Owner} = Options) ->
    case causeway_packet_handler:new(Handler) of
        {ok, Made} ->
            case causeway_packet_transport:open(Prepared) of
                {ok, Transport, Received} -> {ok, Received, new(Transport, Owner, Made, Options)};
                {error, _} = Error -> Error
            end;
        {error, _} = Error ->
            Error
    end.

new(Transport, Owner, Handler, Options) ->
    _ = [erlang:monitor(process, Owner, [{tag, owner_down}]) || is_pid(Owner)],
    S = #s{parent = self(),
           options = Options,
           transport = Transport,
           handlers = #{0 => Handler},
           table = ets:new(?MODULE, [private, {keypos, #request.tag}])},
    ok = start_keepalive(S),
    S.

%% The loop

%% At most so many messages in a turn: whoever sends without end must not keep us from reading.
step(S) ->
    step(?MESSAGES_AT_ONCE, S).

step(_Left, #s{ended = {true, Reason}} = S) ->
    finish(Reason, S);
step(Left, #s{out_size = Size} = S) when Left =:= 0; Size > ?WRITE_AT_ONCE, S#s.output =:= open ->
    turn(S);
step(Left, S) ->
    receive
        Message -> step(Left - 1, handle(Message, S))
    after 0 ->
        turn(S)
    end.

turn(S) ->
    case settle(check_windows(next_in_line(flush(S)))) of
        #s{ended = {true, Reason}} = Next -> finish(Reason, Next);
        #s{input = ready} = Next -> step(read(Next));
        #s{out = [_ | _], output = open} = Next -> step(Next);
        Next -> receive Message -> step(handle(Message, Next)) end
    end.

handle({'$causeway_packet_request', Caller, Reference, Channel, Type, Flags, Payload, Size, Mode}, S) ->
    request(Caller, Reference, Channel, Type, Flags, Payload, Size, Mode, S);
handle({causeway_wire, _} = Message, S) ->
    transport(Message, S);
handle({'$causeway_packet_done', Worker, Key, Response}, S) ->
    done(Worker, Key, Response, S);
handle({'$causeway_packet_reply', Key, Serial, Response}, S) ->
    respond(Key, Serial, Response, S);
handle({timeout, Timer, What}, S) ->
    timer(Timer, What, S);
handle({'DOWN', _Monitor, process, Pid, _Reason}, #s{callers = Callers} = S) ->
    gone(Pid, S#s{callers = maps:remove(Pid, Callers)});
handle({'$causeway_packet_cancel', Reference}, S) ->
    gone(Reference, S);
handle({'$causeway_packet', From, Request}, S) ->
    asked(Request, From, S);
handle({system, From, Request}, #s{parent = Parent, debug = Debug} = S) ->
    sys:handle_system_msg(Request, From, Parent, ?MODULE, Debug, S);
handle({'EXIT', Parent, Reason}, #s{parent = Parent} = S) ->
    give_up({parent, Reason}, S);
handle({owner_down, _Monitor, process, _Owner, Reason}, S) ->
    give_up({owner, Reason}, S);
handle({'EXIT', Pid, Reason}, #s{busy = Busy, idle = Idle} = S) ->
    case Busy of
        #{Pid := _} -> worker_lost(Pid, Reason, S);
        #{} -> S#s{idle = lists:delete(Pid, Idle)}
    end;
handle(Message, S) ->
    transport(Message, S).

%% Our requests

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
    true = ets:insert(Table, #request{tag = Tag, caller = Caller, reference = Reference, timer = Timer, channel = Channel}),
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
    put_packet(Head, Payload, Size, S#s{sent = Tag, outstanding = Outstanding + 1, requests = Requests + 1}).

put_packet(Head, Payload, Size, #s{out = Out, out_size = OutSize, packets_out = Packets} = S) ->
    S#s{out = [[Head | Payload] | Out], out_size = OutSize + byte_size(Head) + Size, packets_out = Packets + 1}.

%% Those who wait, as far as there is room.
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

%% The response to a request, if anybody waits for it.
take_response(Channel, Tag, Flags, Payload, #s{table = Table, sent = Sent, responses = Responses} = S) ->
    case ets:take(Table, Tag) of
        [#request{channel = Channel, reference = Reference, timer = Timer}] when Tag =< Sent ->
            cancel_timer(Timer),
            answer(Reference, result(Flags, Payload)),
            row_left(Tag, S#s{responses = Responses + 1});
        [Other] ->
            true = ets:insert(Table, Other),
            stray(Channel, Tag, S);
        [] ->
            stray(Channel, Tag, S)
    end.

stray(?PROBE_CHANNEL, _Tag, S) -> S;
stray(_Channel, _Tag, #s{stray = Stray} = S) -> S#s{stray = Stray + 1}.

result(Flags, Payload) when Flags band 1 =:= 1 -> {ok, Flags bsr 1, own(Payload)};
result(Flags, Payload) -> {failed, Flags bsr 1, own(Payload)}.

own(Payload) when byte_size(Payload) =< ?COPIED -> binary:copy(Payload);
own(Payload) -> Payload.

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

cancel_timer(undefined) -> ok;
cancel_timer(Timer) -> _ = erlang:cancel_timer(Timer, [{async, true}, {info, false}]), ok.

%% Somebody does not wait any more. Their rows are looked for when they may be many, or a second later: so the time
%% that this takes is in proportion to what has come in between.
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

timer(_Timer, {request, Tag}, #s{table = Table, timeouts = Timeouts} = S) ->
    case ets:take(Table, Tag) of
        [#request{reference = Reference}] ->
            answer(Reference, {error, timeout}),
            row_left(Tag, S#s{timeouts = Timeouts + 1});
        [] ->
            S
    end;
timer(_Timer, sweep, S) ->
    sweep(S);
timer(_Timer, keepalive, S) ->
    keepalive(S);
timer(Timer, stalled, #s{stalled = {Timer, Size}} = S) ->
    stalled(Size, S);
timer(Timer, drain, #s{drain = Timer} = S) ->
    give_up(local, S);
timer(_Timer, _What, S) ->
    S.

%% Everybody who waits is told why it is over.
fail_all(Reason, #s{table = Table} = S) ->
    ets:foldl(fun(#request{reference = Reference, timer = Timer}, ok) ->
                      cancel_timer(Timer),
                      answer(Reference, {error, {closed, Reason}})
              end, ok, Table),
    true = ets:delete_all_objects(Table),
    S#s{outstanding = 0, line = queue:new(), line_length = 0, gone = #{}}.

%% What the peer sends

%% First what is there already, and was not looked at because there was no room.
read(#s{needed = Needed, rest = Rest, pieces_size = Size} = S) when byte_size(Rest) + Size >= Needed, byte_size(Rest) + Size > 0 ->
    decode_kept(S);
read(#s{transport = Transport, needed = Needed, rest = Rest, pieces_size = Size, is_full = IsFull} = S) ->
    Missing = Needed - byte_size(Rest) - Size,
    Max = if
              Missing > ?LARGE_READ -> min(Missing, ?LARGEST_READ);
              IsFull; Missing > ?SMALL_READ -> ?LARGE_READ;
              true -> ?SMALL_READ
          end,
    case causeway_packet_transport:read(Transport, Max, true) of
        {ok, Data} ->
            received(Data, S#s{is_full = iolist_size(Data) >= Max});
        empty ->
            S#s{input = watched};
        closed ->
            input_ended(S);
        {error, Reason} ->
            fail(Reason, S)
    end.

received([], S) ->
    S;
received(<<>>, S) ->
    S;
received(Data, #s{rest = Rest, pieces = Pieces, pieces_size = Size, needed = Needed, bytes_in = BytesIn, reads = Reads} = S) ->
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
                Next -> fail({malformed, Text}, Next)
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
    take_response(Channel, Tag, Flags, Payload, S);
packet({request, 0, 0, 0, 0, <<>>}, S) ->
    peer_eof(S);
packet({request, 0, 1, 0, 0, <<>>}, S) ->
    S#s{peer_erq = true};
packet({request, _Channel, _Tag, _Flags, 0, _Payload}, S) ->
    fail({malformed, <<"a control packet that is neither EOF nor ERQ">>}, S);
packet({request, Channel, Tag, Flags, Type, Payload}, #s{peer_requests = Number} = S) ->
    serve({Channel, Tag}, Type - 1, Flags, Payload, S#s{peer_requests = Number + 1}).

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
    Size = byte_size(Payload) + ?OVERHEAD,
    Job = {Key, {causeway_packet, self(), Key, Serial}, Type, Flags, own(Payload), Handler},
    run(Job, S#s{in_hand = InHand#{Key => {Serial, Size}}, in_hand_bytes = Bytes + Size, serial = Serial}).

run({Key, _, _, _, _, _} = Job, #s{options = #{workers := 0, max_packet := MaxPacket}, serial = Serial} = S) ->
    respond(Key, Serial, causeway_packet_handler:answer(Job, MaxPacket - ?HEAD), S);
run(Job, #s{idle = [Worker | Idle], busy = Busy} = S) ->
    Worker ! {job, Job},
    S#s{idle = Idle, busy = Busy#{Worker => element(1, Job)}};
run(Job, #s{idle = [], busy = Busy, options = #{workers := Most, max_packet := MaxPacket}, jobs = Jobs} = S) ->
    if
        map_size(Busy) < Most -> run(Job, S#s{idle = [causeway_packet_handler:start_worker(MaxPacket - ?HEAD)]});
        true -> S#s{jobs = queue:in(Job, Jobs)}
    end.

done(Worker, Key, Response, #s{busy = Busy, in_hand = InHand} = S) ->
    case {maps:take(Worker, Busy), InHand} of
        {{Key, Others}, #{Key := {Serial, _}}} ->
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

worker_lost(Worker, Reason, #s{busy = Busy, in_hand = InHand, options = #{max_packet := MaxPacket}} = S) ->
    {Key, Others} = maps:take(Worker, Busy),
    logger:error("a handler of a packet connection was ended: ~tp", [Reason], #{domain => [causeway]}),
    Answered = case InHand of
                   #{Key := {Serial, _}} ->
                       respond(Key, Serial, {0, <<"exception during handler">>, 24}, S#s{busy = Others});
                   #{} ->
                       S#s{busy = Others}
               end,
    case queue:is_empty(S#s.jobs) of
        true -> Answered;
        false -> next_job(causeway_packet_handler:start_worker(MaxPacket - ?HEAD), Answered)
    end.

%% What a handler says, or whoever answers in its place later. Only the first counts.
respond(_Key, _Serial, noreply, S) ->
    S;
respond(Key, Serial, {_, _, Bytes} = Response, #s{in_hand = InHand, in_hand_bytes = InHandBytes} = S) ->
    #{max_packet := MaxPacket} = S#s.options,
    case InHand of
        #{Key := {Serial, _}} when Bytes > MaxPacket - ?HEAD ->
            respond(Key, Serial, {0, <<"exception during handler">>, 24}, S);
        #{Key := {Serial, Size}} ->
            Left = S#s{in_hand = maps:remove(Key, InHand), in_hand_bytes = InHandBytes - Size},
            put_response(Key, Response, Left#s{peer_responses = S#s.peer_responses + 1});
        #{} ->
            S
    end.

put_response(_Key, _Response, #s{output = Output} = S) when Output =:= eof; Output =:= dead ->
    S;
put_response({Channel, Tag}, {Flags, Payload, Size}, S) ->
    put_packet(causeway_nif:packet_head({response, Channel, Tag, Flags}, Size), Payload, Size, S).

%% Reads on exactly while there is room for what comes. As long as we wait for responses, the number of requests in
%% hand is no reason to stop: handlers may be among those who wait.
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

%% Writing

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
        {error, Reason} ->
            output_failed(Reason, S)
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

stalled(Before, #s{output = blocked, bytes_out = Before} = S) -> fail(not_read, S#s{stalled = undefined});
stalled(_Before, #s{output = blocked} = S) -> watch_progress(S#s{stalled = undefined});
stalled(_Before, S) -> S#s{stalled = undefined}.

%% What the peer has sent before it went away is looked at: it may say that it has ended in good order.
output_failed(Reason, S) ->
    last_words(Reason, S#s{output = dead, out = [], out_size = 0, unsent = [], unsent_size = 0, is_last = true,
                         input = case S#s.input of eof -> eof; _ -> ready end}).

last_words(Reason, #s{input = ready, ended = false, transport = Transport} = S) ->
    case causeway_packet_transport:read(Transport, ?LARGE_READ, false) of
        {ok, Data} -> last_words(Reason, received(Data, S));
        closed -> input_ended(S);
        _ -> fail(Reason, S)
    end;
%% It has, and there is nobody to answer.
last_words(_Reason, #s{input = eof, ended = false} = S) ->
    stop(eof, S);
last_words(_Reason, S) ->
    S.

%% What the transport says.
transport(Message, #s{transport = Transport} = S) ->
    case causeway_packet_transport:event(Transport, Message) of
        readable -> readable(S);
        writable when S#s.output =:= blocked -> S#s{output = open};
        writable -> S;
        {data, Data} -> received(Data, S);
        {data_once, Data} -> received(Data, readable(S));
        closed -> input_ended(S);
        {error, epipe} -> output_failed(epipe, S);
        {error, Reason} -> fail(Reason, S);
        other -> S
    end.

readable(#s{input = watched} = S) -> S#s{input = ready};
readable(S) -> S.

%% Ends

%% The end of the bytes, after which there is no more than after the peer's EOF.
input_ended(#s{input = eof} = S) ->
    S;
input_ended(#s{rest = <<>>, pieces = []} = S) ->
    peer_eof(S);
input_ended(#s{needed = Needed, rest = Rest, pieces_size = Size} = S) when byte_size(Rest) + Size >= Needed ->
    case decode_kept(S#s{is_last = true}) of
        #s{ended = false} = Next -> input_ended(Next);
        Ended -> Ended
    end;
input_ended(S) ->
    fail(truncated, S).

peer_eof(S) ->
    fail_all(eof, S#s{input = eof, rest = <<>>, pieces = [], pieces_size = 0}).

%% Goes on with the end, where that has begun and there is nothing more to wait for.
settle(#s{ended = false, is_closing = false, is_half_closed = false, input = Input, output = Output} = S)
  when Input =/= eof, Output =/= dead ->
    S;
settle(#s{ended = false, in_hand = InHand, line_length = Length, outstanding = Outstanding} = S)
  when map_size(InHand) =:= 0, Length =:= 0 ->
    case S of
        #s{output = Output} when Output =:= eof, Outstanding =:= 0; Output =:= dead ->
            stop(case S#s.input of eof -> eof; _ -> local end, S);
        #s{is_eof_queued = true, output = open, out = [], unsent = []} ->
            ok = causeway_packet_transport:close_output(S#s.transport),
            settle(S#s{output = eof});
        #s{is_eof_queued = false, is_half_closed = Half} when Outstanding =:= 0; Half ->
            put_eof(S);
        _ ->
            S
    end;
settle(#s{output = dead, ended = false} = S) ->
    stop(eof, S);
settle(S) ->
    S.

put_eof(#s{is_eof_queued = true} = S) ->
    S;
put_eof(S) ->
    put_packet(causeway_nif:packet_head({request, 0, 0, 0, 0}, 0), <<>>, 0, S#s{is_eof_queued = true}).

fail(Reason, #s{ended = false} = S) -> stop(Reason, S);
fail(_Reason, S) -> S.

stop(Reason, S) -> S#s{ended = {true, Reason}}.

%% Does not wait any longer: whoever waits is told so, and the peer if it can be told at once.
give_up(Reason, S) ->
    case flush(put_eof(fail_all(told(Reason), S))) of
        #s{ended = false} = Flushed -> stop(Reason, Flushed);
        Ended -> Ended
    end.

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
    _ = fail_all(Told, S),
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

%% Keepalive: where nothing comes, the peer is asked something that everybody answers.

start_keepalive(#s{options = #{keepalive := infinity}}) -> ok;
start_keepalive(#s{options = #{keepalive := Time}}) -> _ = erlang:start_timer(Time, self(), keepalive), ok.

keepalive(#s{input = Input} = S) when Input =:= eof; Input =:= paused ->
    start_keepalive(S),
    S;
keepalive(#s{bytes_in = Bytes, alive = Before} = S) when Bytes > Before ->
    start_keepalive(S),
    S#s{alive = Bytes, is_probing = false};
keepalive(#s{is_probing = true} = S) ->
    fail(no_answer, S);
keepalive(#s{probes = Probes, is_eof_queued = false} = S) ->
    start_keepalive(S),
    Head = causeway_nif:packet_head({request, ?PROBE_CHANNEL, Probes + 1, 0, 1}, 0),
    put_packet(Head, <<>>, 0, S#s{probes = Probes + 1, is_probing = true});
keepalive(S) ->
    S.

%% What processes of this node ask

asked(info, {_Pid, Reference}, S) ->
    answer(Reference, info(S)),
    S;
asked({open_channel, Channel, Handler}, {_Pid, Reference}, #s{handlers = Handlers} = S) ->
    case Handlers of
        #{Channel := _} ->
            answer(Reference, {error, already_open}),
            S;
        #{} ->
            case causeway_packet_handler:new(Handler) of
                {ok, Made} ->
                    answer(Reference, ok),
                    S#s{handlers = Handlers#{Channel => Made}};
                {error, _} = Error ->
                    answer(Reference, Error),
                    S
            end
    end;
asked({close_channel, Channel}, {_Pid, Reference}, #s{handlers = Handlers} = S) ->
    answer(Reference, ok),
    case Handlers of
        #{Channel := Handler} ->
            causeway_packet_handler:ended(Handler, channel_closed),
            fail_channel(Channel, S#s{handlers = maps:remove(Channel, Handlers)});
        #{} ->
            S
    end;
asked(send_erq, {_Pid, Reference}, #s{erq = Erq, is_eof_queued = IsEofQueued} = S) ->
    answer(Reference, ok),
    if
        Erq; IsEofQueued -> S;
        true -> put_packet(causeway_nif:packet_head({request, 0, 1, 0, 0}, 0), <<>>, 0, S#s{erq = true})
    end;
asked(send_eof, {_Pid, Reference}, S) ->
    answer(Reference, ok),
    S#s{is_half_closed = true};
asked({close, Time}, _From, #s{drain = Timer, options = #{drain := Standard}} = S) ->
    cancel_timer(Timer),
    case if Time =:= standard -> Standard; true -> Time end of
        infinity -> S#s{is_closing = true, drain = undefined};
        Wait -> S#s{is_closing = true, drain = erlang:start_timer(Wait, self(), drain)}
    end.

fail_channel(Channel, #s{table = Table} = S) ->
    Rows = ets:match_object(Table, #request{channel = Channel, _ = '_'}),
    lists:foldl(fun(#request{tag = Tag, reference = Reference, timer = Timer}, Acc) ->
                        cancel_timer(Timer),
                        true = ets:delete(Table, Tag),
                        answer(Reference, {error, {closed, channel_closed}}),
                        row_left(Tag, Acc)
                end, S, Rows).

info(#s{table = Table} = S) ->
    #{transport => causeway_packet_transport:kind(S#s.transport),
      state => state(S),
      channels => lists:sort(maps:keys(S#s.handlers)),
      requests => S#s.requests,
      responses => S#s.responses,
      outstanding => S#s.outstanding,
      waiting => ets:info(Table, size) - S#s.outstanding,
      cancelled => S#s.cancelled,
      timeouts => S#s.timeouts,
      stray_responses => S#s.stray,
      peer_requests => S#s.peer_requests,
      peer_responses => S#s.peer_responses,
      rejected => S#s.rejected,
      in_hand => map_size(S#s.in_hand),
      in_hand_bytes => S#s.in_hand_bytes,
      queued_bytes => S#s.out_size + S#s.unsent_size,
      is_reading => S#s.input =:= ready orelse S#s.input =:= watched,
      bytes_in => S#s.bytes_in,
      bytes_out => S#s.bytes_out,
      packets_in => S#s.packets_in,
      packets_out => S#s.packets_out,
      reads => S#s.reads,
      writes => S#s.writes}.

state(#s{is_closing = true}) -> closing;
state(#s{input = eof}) -> peer_ended;
state(#s{is_half_closed = true}) -> half_closed;
state(_S) -> open.

%% What sys wants of a process

%% @private
-spec system_continue(pid(), [sys:dbg_opt()], #s{}) -> no_return().
system_continue(Parent, Debug, S) ->
    step(S#s{parent = Parent, debug = Debug}).

%% @private
-spec system_terminate(term(), pid(), [sys:dbg_opt()], #s{}) -> no_return().
system_terminate(Reason, _Parent, _Debug, S) ->
    finish({parent, Reason}, S).

%% @private
-spec system_code_change(#s{}, module(), term(), term()) -> {ok, #s{}}.
system_code_change(S, _Module, _OldVersion, _Extra) ->
    {ok, S}.

%% @private
-spec system_get_state(#s{}) -> {ok, map()}.
system_get_state(S) ->
    {ok, info(S)}.

%% @private
-spec system_replace_state(fun((map()) -> term()), #s{}) -> {ok, map(), #s{}}.
system_replace_state(_Fun, S) ->
    {ok, info(S), S}.

%% @private
-spec format_status(normal | terminate, list()) -> list().
format_status(_Option, [_Dictionary, SysState, Parent, _Debug, S]) ->
    [{header, "Status of a packet connection"},
     {data, [{"Status", SysState}, {"Parent", Parent}]},
     {data, [{"Connection", info(S)}]}].
