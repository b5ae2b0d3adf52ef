%% @doc A byte channel with ends in both languages against a model: a queue, and those who wait in their order.
%%
%% The commands are carried out one after the other, and some of them begin to wait. Whoever waits tells what came of
%% it; the model knows after which command that must be, and in which order they are served.
-module(prop_byte_channel).

-behaviour(proper_statem).

-export([prop_channel/0]).
-export([initial_state/0, command/1, precondition/2, postcondition/3, next_state/3]).
-export([start/1, send/2, send_soon/2, py_send/2, try_receive/1, recv_soon/1, recv_many/2, py_receive/1, py_receive_many/2,
         py_try_receive/1, py_receive_into/2, close/1, py_close/1, abort/1, py_abort/1, info/1, wait_to_receive/3,
         wait_to_send/4, leave/3, kill_with_message/2, notify/2]).

-include_lib("proper/include/proper.hrl").

-define(HELPERS, channel_helpers).
-define(CHANNEL, py_byte_channel).

%% `channel' is symbolic while the commands are made. `waiting' are those who wait to receive, or to send what, in
%% their order: never both. `next' numbers them.
-record(state, {channel, limit = 0, queue = [] :: [binary()], 'end' = open :: open | closed | aborted,
                receivers = [], senders = [], told = [], next = 1}).

%% @doc The property.
-spec prop_channel() -> proper:test().
prop_channel() ->
    ?FORALL(Commands, proper_statem:commands(?MODULE),
            begin
                {History, State, Result} = proper_statem:run_commands(?MODULE, Commands),
                %% An exception is a failure that PropEr makes smaller; it would not tell what it was.
                Left = try leftovers(State) catch Class:Reason -> [{Class, Reason}] end,
                ?WHENFAIL(io:format("~nlast: ~p~nstate: ~p~nresult: ~p~nleft: ~p~n", [lists:last([none | History]), State, Result, Left]),
                          proper:aggregate(proper_statem:command_names(Commands), Result =:= ok andalso Left =:= []))
            end).

%% Everybody who still waits is woken by the end, and nothing is in the mailbox then.
leftovers(#state{channel = undefined}) ->
    causeway_ct:mailbox();
leftovers(#state{channel = Channel, receivers = Receivers, senders = Senders, told = Told}) ->
    ok = ?CHANNEL:close(Channel),
    _ = [outcome(Name) || {Name, _Kind} <- Receivers],
    _ = [outcome(Name) || {Name, _Kind, _Message} <- Senders],
    _ = [receive {?CHANNEL, Reference, _} -> ok after 5000 -> error(not_told) end || {Reference, _What} <- Told],
    causeway_ct:mailbox().

%% Commands

initial_state() -> #state{}.

command(#state{channel = undefined}) ->
    {call, ?MODULE, start, [oneof([0, 1, 10, 30])]};
command(#state{channel = C} = S) ->
    frequency(
      [{6, {call, ?MODULE, send, [C, message()]}}, {2, {call, ?MODULE, send_soon, [C, message()]}},
       {5, {call, ?MODULE, py_send, [C, message()]}},
       {3, {call, ?MODULE, try_receive, [C]}}, {2, {call, ?MODULE, recv_soon, [C]}},
       {2, {call, ?MODULE, recv_many, [C, range(1, 40)]}}, {3, {call, ?MODULE, py_receive, [C]}},
       {2, {call, ?MODULE, py_receive_many, [C, range(1, 40)]}}, {2, {call, ?MODULE, py_try_receive, [C]}},
       {2, {call, ?MODULE, py_receive_into, [C, range(0, 12)]}}, {2, {call, ?MODULE, info, [C]}},
       {4, {call, ?MODULE, wait_to_receive, [C, kind(), S#state.next]}},
       {5, {call, ?MODULE, wait_to_send, [C, kind(), S#state.next, message()]}},
       {2, {call, ?MODULE, notify, [C, oneof([readable, writable])]}}]
      ++ [{4, {call, ?MODULE, leave, [C, Kind, Name]}} || {Name, Kind} <- leavers(S)]
      ++ [{3, {call, ?MODULE, kill_with_message, [C, message()]}} || S#state.receivers =:= [], S#state.'end' =:= open]
      ++ [{1, {call, ?MODULE, End, [C]}} || End <- [close, py_close, abort, py_abort]]).

kind() -> oneof([erlang, thread, task]).

%% A message, written short: a counterexample is to be read.
message() ->
    {oneof([0, 1, 2, 5, 10, 11, 31, 16383, 16384, 40000]), byte()}.

bytes({Size, Byte}) -> binary:copy(<<Byte>>, Size).

%% Threads cannot be told to give up.
leavers(#state{receivers = Receivers, senders = Senders}) ->
    [{Name, Kind} || {Name, Kind} <- Receivers ++ [{Name, Kind} || {Name, Kind, _} <- Senders], Kind =/= thread].

precondition(#state{channel = undefined}, {call, _, Function, _}) -> Function =:= start;
precondition(_S, {call, _, start, _}) -> false;
precondition(#state{next = Next} = S, {call, _, wait_to_receive, [_, _, Name]}) -> Name =:= Next andalso receives_wait(S);
precondition(#state{next = Next} = S, {call, _, wait_to_send, [_, _, Name, M]}) -> Name =:= Next andalso waits_for_room(S, M);
precondition(S, {call, _, leave, [_, Kind, Name]}) -> lists:member({Name, Kind}, leavers(S));
precondition(S, {call, _, kill_with_message, _}) -> S#state.receivers =:= [] andalso receives_wait(S);
precondition(_S, _Call) -> true.

receives_wait(#state{queue = [], 'end' = open}) -> true;
receives_wait(_) -> false.

waits_for_room(#state{'end' = open} = S, Message) -> not has_turn(S, bytes(Message));
waits_for_room(_, _) -> false.

%% The model

size_of(Queue) -> iolist_size(Queue).

has_room(#state{limit = 0}, _Message) -> true;
has_room(#state{queue = []}, _Message) -> true;
has_room(#state{limit = Limit, queue = Queue}, Message) -> size_of(Queue) + byte_size(Message) =< Limit.

has_turn(#state{senders = []} = S, Message) -> has_room(S, Message);
has_turn(_, _) -> false.

%% What sending one brings, who is served thereby, and the state after it.
sending(#state{'end' = closed} = S, _M) -> {closed, S};
sending(#state{'end' = aborted} = S, _M) -> {aborted, S};
sending(S, M) ->
    case has_turn(S, M) of
        true -> {sent, accepted(S, M)};
        false -> {busy, S}
    end.

accepted(#state{receivers = [_ | Rest]} = S, _M) -> S#state{receivers = Rest};
accepted(#state{queue = Queue} = S, M) -> S#state{queue = Queue ++ [M]}.

taking(#state{queue = [M | Rest]} = S) -> {{message, M}, admitted(S#state{queue = Rest})};
taking(#state{'end' = open} = S) -> {empty, S};
taking(#state{'end' = End} = S) -> {End, S}.

%% As many as there is room for in so many bytes, the first in any case.
taking_many(#state{queue = [First | Rest]} = S, Bytes) ->
    {More, Left} = within(Rest, Bytes - byte_size(First)),
    {{messages, [First | More]}, admitted(S#state{queue = Left})};
taking_many(S, _Bytes) ->
    taking(S).

within([M | Rest], Room) when byte_size(M) =< Room ->
    {More, Left} = within(Rest, Room - byte_size(M)),
    {[M | More], Left};
within(Rest, _Room) ->
    {[], Rest}.

admitted(#state{'end' = open, senders = [{_, _, M} | Rest]} = S) ->
    case has_room(S, M) of
        true -> admitted(accepted(S#state{senders = Rest}, M));
        false -> S
    end;
admitted(S) -> S.

%% What comes of a command, and the state after it.
model(S, F, [_, M]) when F =:= send; F =:= py_send -> sending(S, bytes(M));
model(S, send_soon, [_, M]) ->
    case sending(S, bytes(M)) of
        %% It waited last, so that its leaving changes nothing.
        {busy, _} -> {timeout, S};
        Other -> Other
    end;
model(S, F, [_]) when F =:= try_receive; F =:= py_try_receive -> taking(S);
model(S, F, [_]) when F =:= recv_soon; F =:= py_receive -> soon(taking(S));
model(S, F, [_, Bytes]) when F =:= recv_many; F =:= py_receive_many -> soon(taking_many(S, Bytes));
model(#state{queue = [M | _]} = S, py_receive_into, [_, Size]) when byte_size(M) > Size -> {does_not_fit, S};
model(S, py_receive_into, [_, _]) -> soon(taking(S));
model(S, F, [_]) when F =:= close; F =:= py_close -> {ok, ended(S, closed)};
model(S, F, [_]) when F =:= abort; F =:= py_abort -> {ok, ended(S, aborted)};
model(S, info, [_]) ->
    {{length(S#state.queue), size_of(S#state.queue), length(S#state.receivers), length(S#state.senders), S#state.'end'}, S};
model(S, wait_to_receive, [_, Kind, Name]) ->
    {waits, S#state{receivers = S#state.receivers ++ [{Name, Kind}], next = Name + 1}};
model(S, wait_to_send, [_, Kind, Name, M]) ->
    {waits, S#state{senders = S#state.senders ++ [{Name, Kind, bytes(M)}], next = Name + 1}};
model(S, leave, [_, _, Name]) ->
    {left, admitted(S#state{receivers = lists:keydelete(Name, 1, S#state.receivers), senders = lists:keydelete(Name, 1, S#state.senders)})};
model(S, kill_with_message, [_, M]) -> {killed, S#state{queue = [bytes(M)]}}.

soon({empty, S}) -> {timeout, S};
soon(Other) -> Other.

ended(#state{'end' = aborted} = S, _End) -> S;
ended(#state{'end' = closed} = S, closed) -> S;
ended(S, closed) -> S#state{'end' = closed, receivers = [], senders = []};
ended(S, aborted) -> S#state{'end' = aborted, queue = [], receivers = [], senders = []}.

%% Those who waited before and do not after: what comes of each.
served(Before, After, Function, Arguments) ->
    Gone = [Name || {Name, _} <- Before#state.receivers, not lists:keymember(Name, 1, After#state.receivers)],
    Sent = [Name || {Name, _, _} <- Before#state.senders, not lists:keymember(Name, 1, After#state.senders)],
    case {Function, Arguments} of
        {leave, [_, _, Name]} -> [{N, sent} || N <- Sent, N =/= Name];
        {F, [_, M]} when F =:= send; F =:= py_send; F =:= send_soon -> [{N, {message, bytes(M)}} || N <- Gone];
        {F, _} when F =:= close; F =:= py_close -> [{N, closed} || N <- Gone ++ Sent];
        {F, _} when F =:= abort; F =:= py_abort -> [{N, aborted} || N <- Gone ++ Sent];
        _ -> [{N, sent} || N <- Sent]
    end.

next_state(S, V, {call, _, start, [Limit]}) ->
    S#state{channel = V, limit = Limit};
next_state(S, V, {call, _, notify, [_, What]}) ->
    told(S#state{told = [{V, What} | S#state.told]});
next_state(S, _V, {call, _, Function, Arguments}) ->
    {_, After} = model(S, Function, Arguments),
    told(After).

%% Who is told is so once: in the state are those who still have to be.
told(S) -> S#state{told = [One || {_, What} = One <- S#state.told, not is_so(S, What)]}.

is_so(#state{'end' = open, queue = Queue}, readable) -> Queue =/= [];
is_so(#state{'end' = open} = S, writable) -> has_turn(S, <<0>>);
is_so(_, _) -> true.

postcondition(_S, {call, _, start, _}, Channel) ->
    is_reference(Channel);
postcondition(S, {call, _, notify, [_, What]}, Reference) ->
    are_told(S#state{told = [{Reference, What} | S#state.told]}, S);
postcondition(S, {call, _, Function, Arguments}, Result) ->
    {Expected, After} = model(S, Function, Arguments),
    same(Expected, Result)
        andalso lists:all(fun({Name, Outcome}) -> same(Outcome, outcome(Name)) end, served(S, After, Function, Arguments))
        andalso are_told(S, After).

are_told(#state{told = Before}, After) ->
    lists:all(fun({Reference, What}) ->
                      receive {?CHANNEL, Reference, What} -> true after 5000 -> false end
              end, [One || {_, What} = One <- Before, is_so(After, What)]).

same(Same, Same) -> true;
same(Expected, Result) ->
    io:format("expected ~P, is ~P~n", [Expected, 20, Result, 20]),
    false.

%% The real thing: outcomes of both languages in the words of the model.

start(Limit) -> channel_ct:new(Limit).

send(C, M) -> in_words(?CHANNEL:send(C, bytes(M))).
send_soon(C, M) -> in_words(?CHANNEL:send(C, [bytes(M), []], 1)).
py_send(C, M) -> in_words(py:call(?HELPERS, send, [C, {bytes, bytes(M)}])).
try_receive(C) -> in_words(?CHANNEL:try_receive(C)).
recv_soon(C) -> in_words(?CHANNEL:recv(C, 1)).
recv_many(C, Bytes) -> many(?CHANNEL:recv_many(C, Bytes, 1)).
py_receive(C) -> in_words(py:call(?HELPERS, 'receive', [C, 1])).
py_receive_many(C, Bytes) -> many(py:call(erlang, 'ByteChannel.receive_many', [C, Bytes, 1])).
py_try_receive(C) ->
    case py:call(erlang, 'ByteChannel.try_receive_bytes', [C]) of
        {ok, none} -> empty;
        Other -> in_words(Other)
    end.
py_receive_into(C, Size) ->
    case py:call(?HELPERS, receive_into, [C, Size, 1]) of
        {ok, {Number, Buffer}} -> {message, binary:part(Buffer, 0, Number)};
        {error, {'ValueError', _}} -> does_not_fit;
        Other -> in_words(Other)
    end.

close(C) -> ?CHANNEL:close(C).
py_close(C) -> done(py:call(erlang, 'ByteChannel.close', [C])).
abort(C) -> ?CHANNEL:abort(C, [reason]).
py_abort(C) -> done(py:call(erlang, 'ByteChannel.abort', [C, [<<"reason">>]])).

info(C) ->
    #{messages := Messages, size := Size, waiting_receivers := Receivers, waiting_senders := Senders, closed := Closed,
      aborted := Aborted, messages_in := In, messages_out := Out, bytes_in := BytesIn, bytes_out := BytesOut} = ?CHANNEL:info(C),
    true = Aborted orelse (In - Out =:= Messages andalso BytesIn - BytesOut =:= Size),
    {Messages, Size, Receivers, Senders, if Aborted -> aborted; Closed -> closed; true -> open end}.

wait_to_receive(C, Kind, Name) ->
    keep(Name, channel_ct:receiver(Kind, Name, C)),
    waits.

wait_to_send(C, Kind, Name, M) ->
    keep(Name, channel_ct:sender(Kind, Name, C, bytes(M))),
    waits.

keep(Name, Process) -> put({?MODULE, Name}, Process).

leave(C, erlang, Name) ->
    #{waiting_receivers := Receivers, waiting_senders := Senders} = ?CHANNEL:info(C),
    exit(get({?MODULE, Name}), kill),
    fewer(C, Receivers + Senders);
leave(C, task, Name) ->
    #{waiting_receivers := Receivers, waiting_senders := Senders} = ?CHANNEL:info(C),
    {ok, none} = py:call(?HELPERS, cancel, [Name]),
    <<"cancelled">> = channel_ct:outcome(Name),
    fewer(C, Receivers + Senders).

fewer(C, Before) ->
    ok = causeway_ct:wait_until(fun() ->
                                        #{waiting_receivers := R, waiting_senders := S} = ?CHANNEL:info(C),
                                        R + S < Before
                                end),
    left.

%% A process gets a message and is killed before it can have seen it.
kill_with_message(C, M) ->
    Killed = channel_ct:receiver(erlang, killed, C),
    true = erlang:suspend_process(Killed),
    ok = ?CHANNEL:send(C, bytes(M)),
    exit(Killed, kill),
    ok = causeway_ct:wait_until(fun() -> maps:get(messages, ?CHANNEL:info(C)) =:= 1 end),
    killed.

notify(C, What) ->
    {ok, Reference} = ?CHANNEL:notify(C, What),
    Reference.

outcome(Name) ->
    case channel_ct:outcome(Name) of
        true -> sent;
        {<<"ByteChannelClosed">>, _} -> closed;
        {<<"ByteChannelAborted">>, _} -> aborted;
        Message when is_binary(Message) -> {message, Message}
    end.

in_words(ok) -> sent;
in_words({ok, true}) -> sent;
in_words(busy) -> busy;
in_words({error, {'ByteChannelBusy', _}}) -> busy;
in_words({ok, Message}) when is_binary(Message) -> {message, Message};
in_words({error, {'TimeoutError', _}}) -> timeout;
in_words({error, {'ByteChannelClosed', _}}) -> closed;
in_words({error, {'ByteChannelAborted', _}}) -> aborted;
in_words({error, {aborted, Reason}}) when Reason =:= [reason]; Reason =:= [<<"reason">>] -> aborted;
in_words({error, What}) when is_atom(What) -> What.

many({ok, Messages}) -> {messages, Messages};
many(Other) -> in_words(Other).

done({ok, none}) -> ok.
