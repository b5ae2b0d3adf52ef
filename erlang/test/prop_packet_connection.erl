%% @doc Whatever requests, answers, cancellations, deaths and ends come in whatever order: every request is resolved
%% exactly once, and nothing of it is left.
%%
%% The commands are carried out by a process of their own on one end of a connection whose peer is the property itself,
%% or another connection. In the end the connection is ended, in one of all ways.
-module(prop_packet_connection).

-export([prop_resolved/0]).

-include_lib("proper/include/proper.hrl").

-define(CONNECTION, causeway_packet_connection).

%% @doc The property.
-spec prop_resolved() -> proper:test().
prop_resolved() ->
    ?FORALL({Options, Commands, End}, {options(), list(command()), 'end'()},
            try
                {Peer, Connection} = start(Options),
                {_, Requests} = lists:foldl(fun(Command, {N, Requests}) ->
                                                {N + 1, run(Command, N, Connection, Peer, Requests)}
                                            end, {1, []}, Commands),
                Reason = finish(End, Connection, Peer),
                Outcomes = [{Kind, outcome(Request)} || {Kind, _} = Request <- Requests],
                Left = causeway_ct:mailbox(),
                _ = gen_tcp:close(Peer),
                ?WHENFAIL(io:format("outcomes ~p~nleft ~p~nreason ~p~n", [Outcomes, Left, Reason]),
                          Left =:= [] andalso lists:all(fun({Kind, Outcome}) -> is_right(Kind, Outcome) end, Outcomes)
                              andalso is_end(Reason))
            catch
                Class:Error:Stack ->
                    io:format("~tp: ~tp~n~tp~n", [Class, Error, Stack]),
                    false
            end).

options() ->
    ?LET({Outstanding, Waiting, Requests, Workers},
         {oneof([1, 2, 5, infinity]), oneof([1, 3, infinity]), oneof([1, 3, infinity]), oneof([0, 1, 4])},
         #{max_outstanding => Outstanding, max_waiting => Waiting, max_requests => Requests, workers => Workers,
           handler => fun handle/4}).

%% Which request of ours, or how far back in what the peer has sent: numbers, modulo what there is.
command() ->
    frequency([{6, {async, oneof([infinity, 0, 1, 50]), size()}},
               {4, {sync, oneof([infinity, 0, 1, 50]), size()}},
               {5, {answer, range(1, 30)}},
               {2, {cancel, range(1, 30)}},
               {2, {kill, range(1, 30)}},
               {3, {'receive', range(1, 30)}},
               {3, {peer_asks, range(1, 9), oneof([echo, fail, late, never])}},
               {1, {open_channel, range(1, 3)}},
               {1, {close_channel, range(1, 3)}},
               {1, {on_channel, range(1, 3)}},
               {1, erq},
               {1, info}]).

size() -> oneof([0, 10, 5000]).

'end'() ->
    oneof([close, close_at_once, eof, raw_eof, truncated, malformed, reset, kill, owner, half_close, both]).

%% Late is answered by another process.
handle(_Type, _Flags, <<"echo">>, _From) -> <<"echo">>;
handle(_Type, _Flags, <<"fail">>, _From) -> exit(fail);
handle(_Type, _Flags, <<"late">>, From) -> _ = spawn(fun() -> ?CONNECTION:reply(From, ok) end), noreply;
handle(_Type, _Flags, <<"never">>, _From) -> noreply.

start(Options) ->
    {Here, There} = connection_ct:sockets(),
    ok = inet:setopts(There, [{exit_on_close, false}]),
    Owner = spawn(fun() -> receive die -> ok end end),
    put(owner, Owner),
    {There, connection_ct:start(Here, Options#{owner => Owner})}.

run({async, Time, Size}, N, Connection, _Peer, Requests) ->
    [{async, {N, ?CONNECTION:send_request(Connection, N, payload(Size), #{timeout => Time})}} | Requests];
run({on_channel, Channel}, N, Connection, _Peer, Requests) ->
    [{async, {N, ?CONNECTION:send_request(Connection, N, <<>>, #{channel => Channel})}} | Requests];
run({sync, Time, Size}, N, Connection, _Peer, Requests) ->
    Test = self(),
    Pid = spawn(fun() ->
                    Result = ?CONNECTION:request(Connection, N, payload(Size), #{timeout => Time}),
                    Test ! {result, self(), Result, causeway_ct:mailbox()}
                end),
    [{sync, {N, Pid}} | Requests];
run({answer, Tag}, _N, _Connection, Peer, Requests) ->
    %% Of a tag that may have been used, or used up, or that does not exist.
    _ = gen_tcp:send(Peer, causeway_packet:encode({response, 0, Tag, Tag rem 2, <<"answer">>})),
    Requests;
run({cancel, _}, _N, _Connection, _Peer, []) -> [];
run({cancel, Which}, _N, _Connection, _Peer, Requests) ->
    case pick(Which, Requests) of
        {async, {N, Id}} = Request ->
            ok = ?CONNECTION:cancel(Id),
            replace(Request, {gone, N}, Requests);
        _ ->
            Requests
    end;
run({kill, _}, _N, _Connection, _Peer, []) -> [];
run({kill, Which}, _N, _Connection, _Peer, Requests) ->
    case pick(Which, Requests) of
        {sync, {N, Pid}} = Request ->
            Monitor = erlang:monitor(process, Pid),
            exit(Pid, kill),
            receive {'DOWN', Monitor, process, Pid, _} -> ok end,
            %% It may have had its result.
            receive {result, Pid, _, []} -> ok after 0 -> ok end,
            replace(Request, {gone, N}, Requests);
        _ ->
            Requests
    end;
run({'receive', _}, _N, _Connection, _Peer, []) -> [];
run({'receive', Which}, _N, _Connection, _Peer, Requests) ->
    case pick(Which, Requests) of
        {async, {N, Id}} = Request -> replace(Request, {done, {N, ?CONNECTION:receive_response(Id, 1)}}, Requests);
        _ -> Requests
    end;
run({peer_asks, Tag, What}, _N, _Connection, Peer, Requests) ->
    _ = gen_tcp:send(Peer, causeway_packet:encode({request, 0, Tag, 0, 1, atom_to_binary(What)})),
    Requests;
run({open_channel, Channel}, _N, Connection, _Peer, Requests) ->
    _ = ?CONNECTION:open_channel(Connection, Channel, undefined),
    Requests;
run({close_channel, Channel}, _N, Connection, _Peer, Requests) ->
    _ = ?CONNECTION:close_channel(Connection, Channel),
    Requests;
run(erq, _N, Connection, _Peer, Requests) ->
    _ = ?CONNECTION:send_erq(Connection),
    Requests;
run(info, _N, Connection, _Peer, Requests) ->
    #{} = ?CONNECTION:info(Connection),
    Requests.

payload(Size) -> binary:copy(<<"x">>, Size).

pick(Which, Requests) -> lists:nth(1 + Which rem length(Requests), Requests).

replace(Old, New, Requests) -> [case Request of Old -> New; _ -> Request end || Request <- Requests].

%% Ends it, and returns the reason.
finish(End, Connection, Peer) ->
    case End of
        close -> ok = ?CONNECTION:close(Connection, 20);
        close_at_once -> ok = ?CONNECTION:close(Connection, 0);
        eof -> _ = gen_tcp:send(Peer, <<3, 0, 2, 0>>), ?CONNECTION:close(Connection, 20);
        raw_eof -> _ = gen_tcp:shutdown(Peer, write), ?CONNECTION:close(Connection, 20);
        truncated -> _ = gen_tcp:send(Peer, <<9, 1>>), _ = gen_tcp:shutdown(Peer, write);
        malformed -> _ = gen_tcp:send(Peer, <<0>>);
        reset -> ok = inet:setopts(Peer, [{linger, {true, 0}}]), _ = gen_tcp:close(Peer);
        kill -> exit(Connection, kill);
        owner -> get(owner) ! die;
        half_close -> _ = ?CONNECTION:send_eof(Connection), ?CONNECTION:close(Connection, 20);
        both -> _ = gen_tcp:send(Peer, <<3, 0, 2, 0>>), exit(get(owner), kill)
    end,
    %% Where the window is full, or handlers are to come, it does not read: what is in hand may never be answered.
    Again = spawn(fun() -> ?CONNECTION:close(Connection, 300) end),
    Reason = connection_ct:ended(Connection),
    exit(Again, kill),
    get(owner) ! die,
    Reason.

outcome({async, {_, Id}}) ->
    ?CONNECTION:receive_response(Id, 5000);
outcome({sync, {_, Pid}}) ->
    receive {result, Pid, Result, []} -> Result
    after 5000 -> never
    end;
outcome({done, {_, Result}}) -> Result;
outcome({gone, _}) -> gone.

is_right(gone, gone) -> true;
is_right(done, {error, timeout}) -> true;
is_right(async, {error, busy}) -> true;
is_right(done, {error, busy}) -> true;
is_right(_, {ok, 0, <<"answer">>}) -> true;
is_right(_, {failed, 0, <<"answer">>}) -> true;
is_right(_, {error, timeout}) -> true;
is_right(_, {error, {closed, _}}) -> true;
is_right(_, {error, {unknown_channel, _}}) -> true;
is_right(_, {error, Reason}) -> lists:member(Reason, [requests_ended, closing]);
is_right(_, _) -> false.

is_end(normal) -> true;
is_end(killed) -> true;
is_end({shutdown, _}) -> true;
is_end(_) -> false.
