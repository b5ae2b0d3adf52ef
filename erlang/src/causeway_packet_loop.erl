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

-include("causeway_packet_state.hrl").

%% So much is written before the mailbox is empty.
-define(WRITE_AT_ONCE, 131072).
-define(MESSAGES_AT_ONCE, 256).
%% How many bytes may have gone through before it is tidied up, after so many milliseconds in which nothing came.
-define(LITTER, 65536).
-define(TIDY_AFTER, 100).

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
            step(causeway_packet_input:received(Received, S#s{parent = Starter}));
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
    causeway_packet_end:finish(Reason, S);
step(Left, #s{out_size = Size} = S) when Left =:= 0; Size > ?WRITE_AT_ONCE, S#s.output =:= open ->
    turn(S);
step(Left, S) ->
    receive
        Message -> step(Left - 1, handle(Message, S))
    after 0 ->
        turn(S)
    end.

turn(S) ->
    Moved = causeway_packet_requests:next_in_line(flush(S)),
    case causeway_packet_end:settle(causeway_packet_input:check_windows(Moved)) of
        #s{ended = {true, Reason}} = Next -> causeway_packet_end:finish(Reason, Next);
        #s{input = ready} = Next -> step(causeway_packet_input:read(Next));
        #s{out = [_ | _], output = open} = Next -> step(Next);
        Next -> step(wait(Next))
    end.

%% Without anything to do. What has gone through is garbage that may be large: it is not kept while nothing comes.
wait(#s{bytes_in = In, bytes_out = Out, swept = Swept} = S) when In + Out - Swept > ?LITTER ->
    receive
        Message -> handle(Message, S)
    after ?TIDY_AFTER ->
        true = erlang:garbage_collect(),
        wait(S#s{swept = In + Out})
    end;
wait(S) ->
    receive Message -> handle(Message, S) end.

handle({'$causeway_packet_request', Caller, Reference, Channel, Type, Flags, Payload, Size, Mode}, S) ->
    causeway_packet_requests:request(Caller, Reference, Channel, Type, Flags, Payload, Size, Mode, S);
handle({causeway_wire, _} = Message, S) ->
    transport(Message, S);
handle({'$causeway_packet_done', Worker, Key, Response}, S) ->
    causeway_packet_serving:done(Worker, Key, Response, S);
handle({'$causeway_packet_reply', Key, Serial, Response}, S) ->
    causeway_packet_serving:respond(Key, Serial, Response, S);
handle({'$causeway_packet_taken', Bytes}, S) ->
    causeway_packet_serving:taken(Bytes, S);
handle({timeout, Timer, What}, S) ->
    timer(Timer, What, S);
handle({'DOWN', _Monitor, process, Pid, _Reason}, #s{callers = Callers} = S) ->
    causeway_packet_requests:gone(Pid, S#s{callers = maps:remove(Pid, Callers)});
handle({'$causeway_packet_cancel', Reference}, S) ->
    causeway_packet_requests:gone(Reference, S);
handle({'$causeway_packet', From, Request}, S) ->
    asked(Request, From, S);
handle({system, From, Request}, #s{parent = Parent, debug = Debug} = S) ->
    sys:handle_system_msg(Request, From, Parent, ?MODULE, Debug, S);
handle({'EXIT', Parent, Reason}, #s{parent = Parent} = S) ->
    causeway_packet_end:give_up({parent, Reason}, S);
handle({owner_down, _Monitor, process, _Owner, Reason}, S) ->
    causeway_packet_end:give_up({owner, Reason}, S);
handle({'EXIT', Pid, Reason}, #s{busy = Busy, idle = Idle} = S) ->
    case Busy of
        #{Pid := _} -> causeway_packet_serving:worker_lost(Pid, Reason, S);
        #{} -> S#s{idle = lists:delete(Pid, Idle)}
    end;
handle(Message, S) ->
    transport(Message, S).

timer(_Timer, {request, Tag}, S) ->
    causeway_packet_requests:timed_out(Tag, S);
timer(_Timer, {answer, Key, Serial}, S) ->
    causeway_packet_serving:respond(Key, Serial, {0, <<"no answer in time">>, 17}, S);
timer(_Timer, sweep, S) ->
    causeway_packet_requests:sweep(S);
timer(_Timer, keepalive, S) ->
    keepalive(S);
timer(Timer, stalled, #s{stalled = {Timer, Before}} = S) ->
    case causeway_packet_output:has_stalled(Before, S#s{stalled = undefined}) of
        true -> causeway_packet_end:fail(not_read, S#s{stalled = undefined});
        {false, Next} -> Next
    end;
timer(Timer, drain, #s{drain = Timer} = S) ->
    causeway_packet_end:give_up(local, S);
timer(_Timer, _What, S) ->
    S.

flush(S) ->
    case causeway_packet_output:flush(S) of
        {error, Reason} -> output_failed(Reason, S);
        Flushed -> Flushed
    end.

%% What the peer has sent before it went away is looked at: it may say that it has ended in good order.
output_failed(Reason, S) ->
    Dead = S#s{output = dead, out = [], out_size = 0, unsent = [], unsent_size = 0, is_last = true,
               input = case S#s.input of eof -> eof; _ -> ready end},
    causeway_packet_input:last_words(Reason, Dead).

%% What the transport says.
transport(Message, #s{transport = Transport} = S) ->
    case causeway_packet_transport:event(Transport, Message) of
        readable -> readable(S);
        writable when S#s.output =:= blocked -> S#s{output = open};
        writable -> S;
        {data, Data} -> causeway_packet_input:received(Data, S);
        {data_once, Data} -> causeway_packet_input:received(Data, readable(S));
        closed -> causeway_packet_input:ended(S);
        {error, epipe} -> output_failed(epipe, S);
        {error, Reason} -> causeway_packet_end:fail(Reason, S);
        other -> S
    end.

readable(#s{input = watched} = S) -> S#s{input = ready};
readable(S) -> S.

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
    causeway_packet_end:fail(no_answer, S);
keepalive(#s{probes = Probes, is_eof_queued = false} = S) ->
    start_keepalive(S),
    Head = causeway_nif:packet_head({request, ?PROBE_CHANNEL, Probes + 1, 0, 1}, 0),
    causeway_packet_output:put_packet(Head, <<>>, 0, S#s{probes = Probes + 1, is_probing = true});
keepalive(S) ->
    S.

%% What processes of this node ask

asked(info, {_Pid, Reference}, S) ->
    causeway_packet_requests:answer(Reference, info(S)),
    S;
asked({open_channel, Channel, Handler}, {_Pid, Reference}, #s{handlers = Handlers} = S) ->
    case Handlers of
        #{Channel := _} ->
            causeway_packet_requests:answer(Reference, {error, already_open}),
            S;
        #{} ->
            case causeway_packet_handler:new(Handler) of
                {ok, Made} ->
                    causeway_packet_requests:answer(Reference, ok),
                    S#s{handlers = Handlers#{Channel => Made}};
                {error, _} = Error ->
                    causeway_packet_requests:answer(Reference, Error),
                    S
            end
    end;
asked({close_channel, Channel}, {_Pid, Reference}, #s{handlers = Handlers} = S) ->
    causeway_packet_requests:answer(Reference, ok),
    case Handlers of
        #{Channel := Handler} ->
            causeway_packet_handler:ended(Handler, channel_closed),
            causeway_packet_requests:fail_channel(Channel, S#s{handlers = maps:remove(Channel, Handlers)});
        #{} ->
            S
    end;
asked(send_erq, {_Pid, Reference}, #s{erq = Erq, is_eof_queued = IsEofQueued} = S) ->
    causeway_packet_requests:answer(Reference, ok),
    if
        Erq; IsEofQueued -> S;
        true ->
            Head = causeway_nif:packet_head({request, 0, 1, 0, 0}, 0),
            causeway_packet_output:put_packet(Head, <<>>, 0, S#s{erq = true})
    end;
asked(send_eof, {_Pid, Reference}, S) ->
    causeway_packet_requests:answer(Reference, ok),
    S#s{is_half_closed = true};
asked({close, Time}, _From, #s{drain = Timer, options = #{drain := Standard}} = S) ->
    causeway_packet_requests:cancel_timer(Timer),
    case if Time =:= standard -> Standard; true -> Time end of
        infinity -> S#s{is_closing = true, drain = undefined};
        Wait -> S#s{is_closing = true, drain = erlang:start_timer(Wait, self(), drain)}
    end.

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
    causeway_packet_end:finish({parent, Reason}, S).

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
