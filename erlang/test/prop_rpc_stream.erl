%% @doc Two halves of a streaming call against a model of each: what has come, which directions are over and why, the reply,
%% and who waits. Chunks, ends, errors, replies, the taking that makes room, and deaths come in any order.
-module(prop_rpc_stream).

-behaviour(proper_statem).

-export([prop_stream/0]).
-export([initial_state/0, command/1, precondition/2, postcondition/3, next_state/3]).
-export([start/0, send/3, recv/1, recv_many/2, wait/2, leave/1, close_send/3, close/3, abort/4, set_reply/4, await_reply/1,
         deliver/3, kill/4]).

-include_lib("proper/include/proper.hrl").

-define(S, causeway_rpc_stream).
-define(WINDOW, 320).

%% One half: `in' is open or why it has ended, `error' what recv tells then; `waiting' are those who wait for a chunk, and
%% `awaiting' for the reply.
-record(half, {inbox = [], in = open, error = eof, out = open, reply = none, reply_end = none,
               waiting = [], awaiting = [], alive = true}).

-record(state, {halves, a = #half{}, b = #half{}}).

%% @doc The property.
-spec prop_stream() -> proper:test().
prop_stream() ->
    ?FORALL(Commands, proper_statem:commands(?MODULE),
            begin
                {History, State, Result} = proper_statem:run_commands(?MODULE, Commands),
                Left = causeway_ct:mailbox(),
                ?WHENFAIL(io:format("~nlast: ~p~nstate: ~p~nresult: ~p~nleft: ~p~n",
                                    [lists:last([none | History]), State, Result, Left]),
                          proper:aggregate(proper_statem:command_names(Commands), Result =:= ok))
            end).

initial_state() -> #state{}.

command(#state{halves = undefined}) ->
    {call, ?MODULE, start, []};
command(#state{} = S) ->
    ?LET(Name, oneof([a, b]), frequency(
      [{8, {call, ?MODULE, send, [at(Name, S), chunk(), first_waiting(other(Name), S)]}},
       {5, {call, ?MODULE, recv, [at(Name, S)]}},
       {2, {call, ?MODULE, recv_many, [at(Name, S), range(1, 480)]}},
       {3, {call, ?MODULE, wait, [at(Name, S), oneof([recv, await_reply])]}},
       {1, {call, ?MODULE, close_send, [at(Name, S), waiting(other(Name), S), []]}},
       {1, {call, ?MODULE, close, [at(Name, S), all(a, S), all(b, S)]}},
       {1, {call, ?MODULE, abort, [at(Name, S), byte(), all(a, S), all(b, S)]}},
       {2, {call, ?MODULE, set_reply, [at(Name, S), byte(), awaiting(a, S), awaiting(b, S)]}},
       {2, {call, ?MODULE, await_reply, [at(Name, S)]}},
       {1, {call, ?MODULE, deliver, [at(Name, S), chunk(), first_waiting(Name, S)]}},
       {1, {call, ?MODULE, kill, [at(Name, S), at(other(Name), S), all(a, S), all(b, S)]}}]
      ++ [{3, {call, ?MODULE, leave, [Waiter]}} || Waiter <- all(Name, S)])).

chunk() -> {oneof([0, 1, 64, 65, 160, 256, 319, 320, 321, 640]), byte()}.

bytes({Size, Byte}) -> binary:copy(<<Byte>>, Size).

at(Name, #state{halves = Halves}) -> {Name, Halves}.

other(a) -> b;
other(b) -> a.

half(a, S) -> S#state.a;
half(b, S) -> S#state.b.

set(a, Half, S) -> S#state{a = Half};
set(b, Half, S) -> S#state{b = Half}.

waiting(Name, S) -> (half(Name, S))#half.waiting.
awaiting(Name, S) -> (half(Name, S))#half.awaiting.
all(Name, S) -> waiting(Name, S) ++ awaiting(Name, S).
first_waiting(Name, S) -> lists:sublist(waiting(Name, S), 1).

%% While commands are made smaller, who waits may be no longer what it was.
precondition(#state{halves = undefined}, {call, _, Function, _}) -> Function =:= start;
precondition(_S, {call, _, start, _}) -> false;
precondition(S, {call, _, send, [{Name, _}, _, Woken]}) -> Woken =:= first_waiting(other(Name), S);
precondition(S, {call, _, deliver, [{Name, _}, _, Woken]}) -> Woken =:= first_waiting(Name, S);
precondition(S, {call, _, close_send, [{Name, _}, Woken, []]}) -> Woken =:= waiting(other(Name), S);
precondition(S, {call, _, set_reply, [_, _, A, B]}) -> A =:= awaiting(a, S) andalso B =:= awaiting(b, S);
precondition(S, {call, _, close, [_, A, B]}) -> A =:= all(a, S) andalso B =:= all(b, S);
precondition(S, {call, _, abort, [_, _, A, B]}) -> A =:= all(a, S) andalso B =:= all(b, S);
precondition(S, {call, _, kill, [{Name, _}, _, A, B]}) ->
    (half(Name, S))#half.alive andalso A =:= all(a, S) andalso B =:= all(b, S);
precondition(S, {call, _, leave, [Waiter]}) -> lists:member(Waiter, all(a, S) ++ all(b, S));
precondition(_S, _Call) -> true.

%% What is done. Who is said to be woken must be, and tells with what.

start() ->
    [A, B] = [begin
                  {ok, Half} = ?S:start(#{id => Role, role => Role, mode => bidi, owner => self(), window => ?WINDOW}),
                  Half
              end || Role <- [client, server]],
    ok = ?S:pair(A, B),
    {A, B}.

stream({a, {A, _}}) -> A;
stream({b, {_, B}}) -> B.

send(At, Chunk, Woken) -> told(?S:send(stream(At), bytes(Chunk), raw, 0), Woken).
deliver(At, Chunk, Woken) -> told(?S:deliver_chunk(stream(At), raw, bytes(Chunk)), Woken).
recv(At) -> ?S:recv(stream(At), 0).
recv_many(At, Bytes) -> ?S:recv_many(stream(At), Bytes, 0).
close_send(At, Woken, []) -> told(?S:close_send(stream(At)), Woken).
close(At, A, B) -> told(?S:close(stream(At)), A ++ B).
abort(At, Code, A, B) -> told(?S:abort(stream(At), <<Code>>, <<>>), A ++ B).
set_reply(At, Value, A, B) -> told(?S:set_reply(stream(At), Value), A ++ B).
await_reply(At) -> ?S:await_reply(stream(At), 0).

told(Result, Woken) ->
    {Result, [outcome(Waiter) || Waiter <- Woken]}.

%% Where a model is wrong about who is woken this takes its time.
outcome({_Process, Monitor, _Function}) ->
    receive {'DOWN', Monitor, process, _, {result, Result}} -> Result after 300 -> waiting end.

wait(At, Function) ->
    Stream = stream(At),
    {Process, Monitor} = spawn_monitor(fun() -> exit({result, ?S:Function(Stream)}) end),
    causeway_ct:wait_until(fun() -> lists:member(process_info(Process, status), [{status, waiting}, undefined]) end),
    {Process, Monitor, Function}.

leave({Process, Monitor, _Function}) ->
    exit(Process, kill),
    receive {'DOWN', Monitor, process, _, Reason} -> Reason end.

kill(At, Other, A, B) ->
    Killed = stream(At),
    exit(Killed, kill),
    causeway_ct:wait_until(fun() -> maps:get(peer, ?S:info(stream(Other))) =:= undefined end),
    told(ok, A ++ B).

%% What must come of it.

postcondition(_S, {call, _, start, []}, _Result) -> true;
postcondition(S, {call, _, recv, [{Name, _}]}, Result) ->
    Result =:= receivable(half(Name, S));
postcondition(S, {call, _, recv_many, [{Name, _}, Bytes]}, Result) ->
    case half(Name, S) of
        #half{inbox = []} = Half -> Result =:= receivable(Half);
        #half{inbox = Inbox} -> Result =:= {ok, [{chunk, Chunk} || Chunk <- taken(Inbox, Bytes)]}
    end;
postcondition(S, {call, _, await_reply, [{Name, _}]}, Result) ->
    Result =:= reply(half(Name, S));
postcondition(S, {call, _, wait, [{Name, _}, Function]}, {_, Monitor, _}) ->
    case at_once(half(Name, S), Function) of
        waiting -> true;
        Expected -> receive {'DOWN', Monitor, process, _, {result, Result}} -> Result =:= Expected after 300 -> false end
    end;
postcondition(_S, {call, _, leave, _}, Reason) ->
    Reason =:= killed;
postcondition(S, {call, _, send, [{Name, _}, _, _] = [_, Chunk, Woken]}, {Result, Told}) ->
    Expected = sending(Name, Chunk, S),
    Result =:= Expected andalso Told =:= case Expected of
        ok -> [{chunk, bytes(Chunk)} || _ <- Woken];
        _ -> [waiting || _ <- Woken]
    end;
postcondition(_S, {call, _, deliver, [_, Chunk, Woken]}, {ok, Told}) ->
    Told =:= [{chunk, bytes(Chunk)} || _ <- Woken];
postcondition(S, {call, _, set_reply, _} = Call, {ok, Told}) ->
    After = next_state(S, none, Call),
    Told =:= [reply(half(Name, After), waiting) || Name <- [a, b], _ <- awaiting(Name, S)];
postcondition(S, {call, _, close_send, [{Name, _}, Woken, _]} = Call, {ok, Told}) ->
    Told =:= [receivable(half(other(Name), next_state(S, none, Call))) || _ <- Woken];
postcondition(S, {call, _, Function, _} = Call, {ok, Told}) when Function =:= close; Function =:= abort; Function =:= kill ->
    After = next_state(S, none, Call),
    Told =:= lists:append([[receivable(half(Name, After)) || _ <- waiting(Name, S)]
                           ++ [reply(half(Name, After)) || _ <- awaiting(Name, S)] || Name <- [a, b]]);
postcondition(_S, _Call, _Result) ->
    false.

receivable(#half{inbox = [Chunk | _]}) -> {chunk, Chunk};
receivable(#half{in = open}) -> {error, would_block};
receivable(#half{error = Error}) -> Error.

at_once(Half, recv) ->
    case receivable(Half) of
        {error, would_block} -> waiting;
        Other -> Other
    end;
at_once(Half, await_reply) -> reply(Half, waiting).

reply(Half) -> reply(Half, {error, timeout}).

reply(#half{reply = none, reply_end = none}, Nothing) -> Nothing;
reply(#half{reply = none, reply_end = End}, _Nothing) -> End;
reply(#half{reply = Reply}, _Nothing) -> Reply.

%% A small chunk takes 64 bytes of the window.
weight(Chunk) -> max(64, byte_size(Chunk)).

taken(Inbox, Bytes) -> taken(Inbox, Bytes, []).

taken([Chunk | Rest], Bytes, Taken) ->
    Left = Bytes - weight(Chunk),
    case Taken =:= [] orelse Left >= 0 of
        true -> taken(Rest, Left, [Chunk | Taken]);
        false -> lists:reverse(Taken)
    end;
taken([], _Bytes, Taken) -> lists:reverse(Taken).

sending(Name, Chunk, S) ->
    #half{inbox = Inbox, in = In} = half(other(Name), S),
    Size = lists:sum([weight(Each) || Each <- Inbox]),
    case half(Name, S) of
        #half{out = closed} -> {error, send_closed};
        _ when In =/= open -> {error, send_closed};
        _ when Inbox =:= [] -> ok;
        _ -> case Size + weight(bytes(Chunk)) =< ?WINDOW of
                 true -> ok;
                 false -> {error, would_block}
             end
    end.

%% What is known then.

next_state(S, Halves, {call, _, start, []}) ->
    S#state{halves = Halves};
next_state(S, _, {call, _, send, [{Name, _}, Chunk, _]}) ->
    case sending(Name, Chunk, S) of
        ok -> accepted(other(Name), Chunk, S);
        _ -> S
    end;
next_state(S, _, {call, _, deliver, [{Name, _}, Chunk, _]}) ->
    case half(Name, S) of
        #half{in = open} -> accepted(Name, Chunk, S);
        _ -> S
    end;
next_state(S, _, {call, _, recv, [{Name, _}]}) ->
    case half(Name, S) of
        #half{inbox = [_ | Rest]} = Half -> set(Name, Half#half{inbox = Rest}, S);
        _ -> S
    end;
next_state(S, _, {call, _, recv_many, [{Name, _}, Bytes]}) ->
    #half{inbox = Inbox} = Half = half(Name, S),
    set(Name, Half#half{inbox = lists:nthtail(length(taken(Inbox, Bytes)), Inbox)}, S);
next_state(S, Waiter, {call, _, wait, [{Name, _}, Function]}) ->
    Half = half(Name, S),
    case {at_once(Half, Function), Function} of
        {waiting, recv} -> set(Name, Half#half{waiting = Half#half.waiting ++ [Waiter]}, S);
        {waiting, await_reply} -> set(Name, Half#half{awaiting = Half#half.awaiting ++ [Waiter]}, S);
        {_, recv} -> next_state(S, none, {call, ?MODULE, recv, [{Name, none}]});
        _ -> S
    end;
next_state(#state{a = A, b = B} = S, _, {call, _, leave, [Waiter]}) ->
    Without = fun(Half) -> Half#half{waiting = lists:delete(Waiter, Half#half.waiting),
                                     awaiting = lists:delete(Waiter, Half#half.awaiting)} end,
    S#state{a = Without(A), b = Without(B)};
next_state(S, _, {call, _, close_send, [{Name, _}, _, _]}) ->
    case half(Name, S) of
        #half{out = open} = Half ->
            Peer = half(other(Name), S),
            set(other(Name), received_all(Peer, eof), set(Name, Half#half{out = closed}, S));
        _ -> S
    end;
next_state(S, _, {call, _, close, [{Name, _}, _, _]}) ->
    set(Name, ended(half(Name, S), {closed, {error, closed}}, none),
        set(other(Name), ended(half(other(Name), S), {closed, {error, peer_closed}}, none), S));
next_state(S, _, {call, _, abort, [{Name, _}, Code, _, _]}) ->
    Error = {error, {<<Code>>, <<>>}},
    set(Name, ended(half(Name, S), {failed, Error}, Error), set(other(Name), ended(half(other(Name), S), {failed, Error}, Error), S));
next_state(S, _, {call, _, kill, [{Name, _}, _, _, _]}) ->
    Own = lost(half(Name, S), {error, closed}),
    set(Name, Own#half{alive = false}, set(other(Name), lost(half(other(Name), S), {error, peer_down}), S));
next_state(#state{} = S, _, {call, _, set_reply, [{Name, _}, Value, _, _]}) ->
    case half(Name, S) of
        #half{reply = none} = Half ->
            Peer = half(other(Name), S),
            set(Name, Half#half{reply = {ok, Value}, awaiting = []},
                set(other(Name), Peer#half{reply = {ok, Value}, awaiting = []}, S));
        _ -> S
    end;
next_state(S, _, _Call) ->
    S.

accepted(Name, Chunk, S) ->
    case half(Name, S) of
        #half{waiting = [_ | Rest]} = Half -> set(Name, Half#half{waiting = Rest}, S);
        #half{inbox = Inbox} = Half -> set(Name, Half#half{inbox = Inbox ++ [bytes(Chunk)]}, S)
    end.

received_all(#half{in = open} = Half, Error) -> Half#half{in = ended, error = Error, waiting = []};
received_all(Half, _Error) -> Half.

%% An error is told also where the end was told before, but never in the place of another.
ended(Half, End, Error) ->
    All = received_all(Half, eof),
    Told = case {Error, All#half.error} of
        {none, Before} -> Before;
        {_, eof} -> Error;
        {_, Before} -> Before
    end,
    Closed = All#half{out = closed, error = Told, awaiting = []},
    case Closed of
        #half{reply = none, reply_end = none} ->
            case End of
                {closed, Reply} -> Closed#half{reply_end = Reply};
                {failed, Reply} -> Closed#half{reply = Reply}
            end;
        _ ->
            Closed
    end.

lost(#half{in = open} = Half, Error) -> ended(Half, {failed, Error}, Error);
lost(Half, Error) -> ended(Half, {failed, Error}, none).
