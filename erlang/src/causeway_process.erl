%% @private
%% @doc The process behind a handle of {@link causeway_process_stream}: it reads for its owner, as far as that asks,
%% or for the callbacks of a module, which run in it.
-module(causeway_process).

-behaviour(gen_server).

-export([open/3, start_link/5]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, handle_continue/2, terminate/2, code_change/3,
         format_status/1]).
-export_type([ending/0]).

-type ending() :: {status, 0..255} | {signal, pos_integer(), HasDumpedCore :: boolean()}.

%% How many messages of a stream its owner may have in its mailbox before reading pauses, and for how many
%% milliseconds that is first and at most until it is looked at again.
-define(MAILBOX, 64).
-define(PAUSE, 1).
-define(LONGEST_PAUSE, 64).
%% How many chunks are read before others have their turn.
-define(TURN, 16).
-define(NO_LIMIT, (1 bsl 59)).
%% What a terminal may hold that does not tell how much it is.
-define(TERMINAL_HOLDS, 131072).

-record(state, {native :: causeway_nif:process(),
                os_pid :: pos_integer(),
                %% Who gets the messages; undefined with a module.
                owner :: pid() | undefined,
                module :: module() | undefined,
                data :: term(),
                timer :: reference() | undefined,
                mode = active :: active | passive | {count, Left :: non_neg_integer(), told | once},
                window :: pos_integer(),
                %% What the plain active mode may send before it looks at the owner's mailbox.
                budget = ?MAILBOX :: integer(),
                pause = ?PAUSE :: pos_integer(),
                is_paused = false :: boolean(),
                %% ready: to be read. watched: the core tells when there is something. looked: it does not, and a
                %% message to look again is on its way. eof: over.
                stdout = ready :: ready | watched | looked | eof,
                stderr = ready :: ready | watched | looked | eof,
                is_looking = false :: boolean(),
                is_pumping = false :: boolean(),
                receivers = queue:new() :: queue:queue({gen_server:from(), reference() | undefined}),
                high :: pos_integer(),
                busy :: block | return,
                writers = [] :: [gen_server:from()],
                %% Channels in the place of the consumer.
                sinks = #{} :: causeway_process_sinks:sinks(),
                %% The channel that standard input comes from; a reference when it is to tell that there is more.
                source :: {py_byte_channel:channel(), ready | full | reference()} | undefined,
                is_terminal :: boolean(),
                pace = causeway_process_pace:new() :: causeway_process_pace:pace(),
                has_told_stdin = false :: boolean(),
                waiting = [] :: [gen_server:from()],
                grace :: non_neg_integer(),
                %% Once the program has ended: how, and what each output had then that is to be delivered.
                ending :: ending() | lost | undefined,
                left = {0, 0} :: {integer(), integer()},
                has_grace = false :: boolean(),
                is_grace_over = false :: boolean(),
                %% What the guardian has said: whether nothing is left of the program.
                is_gone = false :: boolean(),
                is_ending = false :: boolean(),
                %% Whether output was cut off because somebody held the pipe.
                is_held = false :: boolean(),
                %% In the passive mode: the reason of an end that nobody has asked for yet.
                final :: term()}).

%% @doc A handle whose owner is the caller.
-spec open(term(), term(), term()) -> {ok, pid()} | {error, term()}.
open(Command, Arguments, Options) ->
    start(undefined, Command, Arguments, undefined, Options).

%% @doc A handle that calls a module.
-spec start_link(module(), term(), term(), term(), term()) -> {ok, pid()} | {error, term()} | ignore.
start_link(Module, Command, Arguments, Init, Options) ->
    start(Module, Command, Arguments, Init, Options).

start(Module, Command, Arguments, Init, Options) ->
    case causeway_process_options:parse(Command, Arguments, Options) of
        {ok, Request, #{name := Name, start := Start} = Settings} ->
            case start_server(Name, {self(), Module, Init, Request, Settings}, Start) of
                {error, {shutdown, {?MODULE, Reason}}} -> {error, Reason};
                Other -> Other
            end;
        {error, _} = Error ->
            Error
    end.

start_server(undefined, Argument, Options) -> gen_server:start_link(?MODULE, Argument, Options);
start_server(Name, Argument, Options) -> gen_server:start_link(full(Name), ?MODULE, Argument, Options).

full(Name) when is_atom(Name) -> {local, Name};
full(Name) -> Name.

%% @private
init({Parent, Module, Init, Request, Settings}) ->
    process_flag(trap_exit, true),
    case initial(Module, Init) of
        {ok, Data} -> launch(Parent, Module, Data, [], Request, Settings);
        {ok, Data, Extra} -> launch(Parent, Module, Data, [Extra], Request, Settings);
        {stop, Reason} -> refuse(Parent, Reason);
        ignore -> ignore;
        Other -> refuse(Parent, {bad_return_value, Other})
    end.

initial(undefined, _Init) -> {ok, undefined};
initial(Module, Init) -> Module:init(Init).

%% The caller gets an error and is not killed by it; nor is it a crash, for logger.
refuse(Parent, Reason) ->
    unlink(Parent),
    {stop, {shutdown, {?MODULE, Reason}}}.

launch(Parent, Module, Data, Extra, Request, Settings) ->
    case causeway_process_launch:start(Request) of
        {ok, Native, Pid} ->
            #{mode := Mode, window := Window, high_watermark := High, busy := Busy, exit_grace := Grace} = Settings,
            #{streams := Streams, is_terminal := IsTerminal} = Settings,
            State = #state{native = Native, os_pid = Pid, module = Module, data = Data, window = Window, high = High,
                           busy = Busy, grace = Grace, is_terminal = IsTerminal,
                           owner = case Module of undefined -> Parent; _ -> undefined end,
                           mode = case Module of undefined -> count(Mode); _ -> active end},
            Streaming = lists:foldl(fun({Which, Channel}, Old) -> streaming(Which, Channel, Old) end, State, Streams),
            list_to_tuple([ok, pump_later(told(Streaming)) | timed_out_later(Extra)]);
        {error, Reason} ->
            refuse(Parent, Reason)
    end.

count(once) -> {count, 1, once};
count({active, Number}) -> {count, Number, told};
count(Mode) -> Mode.

%% Before there is a state the timer of the process itself will do: a message of ours would end it.
timed_out_later([Timeout]) when is_integer(Timeout) ->
    _ = erlang:send_after(Timeout, self(), {?MODULE, first_timeout}),
    [];
timed_out_later(Extra) ->
    Extra.

%% --- calls ---

%% @private
handle_call({?MODULE, Request}, From, State) ->
    asked(Request, From, State);
handle_call(Request, _From, #state{module = undefined} = State) ->
    {reply, {error, {badarg, py_call:error_text("~tP is no request to a process stream", [Request, 9])}}, State};
handle_call(Request, From, #state{module = Module} = State) ->
    call(fun(Data) -> Module:handle_call(Request, From, Data) end, State).

asked(os_pid, _From, #state{os_pid = Pid} = State) ->
    {reply, Pid, State};
asked({command, Data}, {Pid, _} = From, #state{busy = Busy, high = High} = State) ->
    case is_allowed(Pid, State) of
        true ->
            case causeway_nif:process_write(State#state.native, Data, limit(Busy, High)) of
                {ok, Queued} when Queued >= High, Busy =:= block ->
                    {noreply, State#state{writers = [From | State#state.writers]}};
                {ok, _Queued} ->
                    {reply, ok, written(State)};
                busy ->
                    {reply, busy, State};
                {error, Reason} ->
                    {reply, {error, Reason}, State};
                badarg ->
                    {reply, py_call:badarg("command takes a binary or other iodata, not ~tP", [Data, 9]), State}
            end;
        false ->
            {reply, {error, not_owner}, State}
    end;
asked(close_stdin, _From, #state{native = Native} = State) ->
    {reply, causeway_nif:process_close_input(Native), State};
asked({resize, Size}, _From, #state{native = Native} = State) ->
    Result = case causeway_nif:process_resize(Native, Size) of
                 ok -> ok;
                 {error, _} = Error -> Error;
                 Why -> {error, Why}
             end,
    {reply, Result, State};
asked({stream, Which, Channel}, {Pid, _}, State) ->
    case is_allowed(Pid, State) of
        false -> {reply, {error, not_owner}, State};
        true when is_map_key(Which, State#state.sinks); Which =:= stdin, State#state.source =/= undefined ->
            {reply, {error, already_streamed}, State};
        true -> pump(streaming(Which, Channel, State), ok)
    end;
asked({signal, _Number, Target}, _From, #state{ending = Ending} = State) when Ending =/= undefined, Target =/= tree ->
    {reply, {error, exited}, State};
asked({signal, Number, Target}, _From, #state{native = Native} = State) ->
    case causeway_nif:process_signal(Native, Number, Target) of
        ok -> {reply, ok, State};
        closed -> {reply, {error, exited}, State}
    end;
asked(await, From, #state{final = undefined, waiting = Waiting} = State) ->
    {noreply, State#state{waiting = [From | Waiting]}};
asked(await, From, State) ->
    stop_with(From, {ok, State#state.final}, State);
asked({recv, _Timeout}, _From, #state{mode = Mode} = State) when Mode =/= passive ->
    {reply, {error, not_passive}, State};
asked({recv, _Timeout}, From, #state{final = Final} = State) when Final =/= undefined ->
    stop_with(From, {exit, Final}, State);
asked({recv, Timeout}, From, #state{receivers = Receivers} = State) ->
    Timer = case Timeout of
                infinity -> undefined;
                _ -> erlang:start_timer(Timeout, self(), recv)
            end,
    pump(State#state{receivers = queue:in({From, Timer}, Receivers)});
asked({mode, Mode}, {Pid, _}, #state{owner = Pid, final = undefined} = State) when Pid =/= undefined ->
    pump(serve_receivers(State#state{mode = count(Mode), budget = 0}), ok);
asked({mode, _Mode}, {Pid, _}, #state{owner = Pid} = State) ->
    finish(State#state{mode = active}, ok);
asked({mode, _Mode}, _From, State) ->
    {reply, {error, not_owner}, State}.

limit(block, _High) -> ?NO_LIMIT;
limit(return, High) -> High.

is_allowed(_Pid, #state{owner = undefined}) -> true;
is_allowed(Pid, #state{owner = Owner}) -> Pid =:= Owner.

stop_with(From, Reply, State) ->
    gen_server:reply(From, Reply),
    {stop, normal, State}.

%% Who waits in recv when the mode changes does not wait for ever.
serve_receivers(#state{mode = passive} = State) ->
    State;
serve_receivers(#state{receivers = Receivers} = State) ->
    _ = [answer_receiver(Receiver, {error, not_passive}) || Receiver <- queue:to_list(Receivers)],
    State#state{receivers = queue:new()}.

%% @private
handle_cast(Request, #state{module = undefined} = State) ->
    unexpected(Request),
    {noreply, State};
handle_cast(Request, #state{module = Module} = State) ->
    call(fun(Data) -> Module:handle_cast(Request, Data) end, State).

%% @private
handle_continue(Argument, #state{module = Module} = State) ->
    call(fun(Data) -> Module:handle_continue(Argument, Data) end, State).

%% --- messages ---

%% @private
handle_info({causeway_process, control}, State) ->
    changed(told(State));
handle_info({causeway_process, stdout}, State) ->
    pump(State#state{stdout = readable(State#state.stdout)});
handle_info({causeway_process, stderr}, State) ->
    pump(State#state{stderr = readable(State#state.stderr)});
handle_info({causeway_process, stdin}, State) ->
    Result = causeway_nif:process_flush(State#state.native),
    {noreply, fed(unfilled(Result, flushed(Result, State)))};
handle_info({py_byte_channel, Reference, readable}, #state{source = {Channel, Reference}} = State) ->
    {noreply, fed(State#state{source = {Channel, ready}})};
handle_info(Tag, #state{sinks = Sinks} = State) when is_reference(Tag), map_size(Sinks) > 0 ->
    case causeway_process_sinks:told(Tag, Sinks) of
        {Outcome, Which, After} -> pump(offered({Outcome, After}, Which, State));
        none -> other(Tag, State)
    end;
handle_info({?MODULE, feed}, State) ->
    {noreply, fed(State)};
handle_info({?MODULE, pump}, State) ->
    pump(State#state{is_pumping = false});
handle_info({?MODULE, look}, State) ->
    %% Whoever is to answer or to ask may need this scheduler.
    true = erlang:yield(),
    pump(looking(State#state{is_looking = false}));
handle_info({?MODULE, resume}, State) ->
    pump(State#state{is_paused = false, budget = 0});
handle_info({?MODULE, grace_over}, State) ->
    changed(State#state{is_grace_over = true});
handle_info({?MODULE, first_timeout}, State) ->
    timed_out(State);
handle_info({timeout, Timer, timeout}, #state{timer = Timer} = State) when Timer =/= undefined ->
    timed_out(State#state{timer = undefined});
handle_info({timeout, Timer, recv}, #state{receivers = Receivers} = State) ->
    {noreply, State#state{receivers = queue:filter(fun(Receiver) -> is_waiting(Receiver, Timer) end, Receivers)}};
handle_info({Pid, {command, Data}}, State) when is_pid(Pid) ->
    command(is_allowed(Pid, State), Data, State);
handle_info({Pid, close}, State) when is_pid(Pid) ->
    close(is_allowed(Pid, State), Pid, State);
handle_info({Pid, {connect, New}}, State) when is_pid(Pid), is_pid(New) ->
    connect(Pid, New, State);
handle_info({'EXIT', Owner, Reason}, #state{owner = Owner} = State) when is_pid(Owner) ->
    {stop, Reason, State};
handle_info({'EXIT', _Other, _Reason}, #state{module = undefined} = State) ->
    {noreply, State};
handle_info(Message, State) ->
    other(Message, State).

other(Message, #state{module = undefined} = State) ->
    unexpected(Message),
    {noreply, State};
other(Message, State) ->
    inform(Message, State).

readable(eof) -> eof;
readable(_Other) -> ready.

is_waiting({From, Timer}, Timer) ->
    gen_server:reply(From, {error, timeout}),
    false;
is_waiting(_Other, _Timer) ->
    true.

timed_out(#state{module = Module} = State) ->
    call(fun(Data) -> Module:handle_info(timeout, Data) end, State).

inform(Message, #state{module = Module} = State) ->
    case erlang:function_exported(Module, handle_info, 2) of
        true -> call(fun(Data) -> Module:handle_info(Message, Data) end, State);
        false -> unexpected(Message), {noreply, State}
    end.

unexpected(Message) ->
    logger:warning("a process stream got a message that it does not know: ~tP", [Message, 20], #{domain => [causeway]}).

command(true, Data, #state{native = Native} = State) ->
    case causeway_nif:process_write(Native, Data, ?NO_LIMIT) of
        {ok, _Queued} -> {noreply, written(State)};
        {error, Reason} -> {noreply, tell_stdin(Reason, State)};
        badarg -> unexpected({command, Data}), {noreply, State}
    end;
command(false, _Data, State) ->
    {noreply, State}.

close(true, Pid, State) ->
    ok = causeway_nif:process_close(State#state.native),
    Pid ! {self(), closed},
    {stop, normal, State};
close(false, _Pid, State) ->
    {noreply, State}.

connect(Pid, Pid, #state{owner = Pid} = State) ->
    Pid ! {self(), connected},
    {noreply, State};
connect(Owner, New, #state{owner = Owner} = State) when node(New) =:= node() ->
    link(New),
    unlink(Owner),
    Owner ! {self(), connected},
    pump(State#state{owner = New, budget = 0});
connect(_Other, _New, State) ->
    {noreply, State}.

%% Room in the queue of standard input, or its end.
flushed({ok, Queued}, #state{high = High, writers = Writers} = State) when Writers =/= [], Queued * 2 =< High ->
    wake(Writers, ok),
    State#state{writers = []};
flushed({ok, _Queued}, State) ->
    State;
flushed({error, Reason}, #state{source = {_, _}, writers = Writers} = State) ->
    wake(Writers, {error, Reason}),
    source_over(Reason, State#state{writers = []});
flushed({error, Reason}, State) ->
    tell_stdin(Reason, State).

wake(Callers, Reply) ->
    lists:foreach(fun(From) -> gen_server:reply(From, Reply) end, Callers).

%% What was to be written cannot be: whoever waits for that is told, or else the owner, once.
tell_stdin(Reason, #state{writers = [_ | _] = Writers} = State) ->
    wake(Writers, {error, Reason}),
    State#state{writers = [], has_told_stdin = true};
tell_stdin(_Reason, #state{has_told_stdin = true} = State) ->
    State;
tell_stdin(Reason, #state{owner = Owner} = State) when is_pid(Owner) ->
    Owner ! {self(), {stdin, Reason}},
    State#state{has_told_stdin = true};
tell_stdin(Reason, State) ->
    self() ! {self(), {stdin, Reason}},
    State#state{has_told_stdin = true}.

%% --- standard input from a channel ---

%% Writes what comes from the channel, until as much is queued as may be.
fed(#state{source = {Channel, ready}} = State) -> feed(Channel, State, ?TURN);
fed(State) -> State.

feed(_Channel, State, 0) ->
    self() ! {?MODULE, feed},
    State;
feed(Channel, #state{native = Native, high = High} = State, Turns) ->
    case py_byte_channel:try_receive(Channel) of
        {ok, Data} ->
            case causeway_nif:process_write(Native, Data, ?NO_LIMIT) of
                {ok, Queued} when Queued >= High -> State#state{source = {Channel, full}};
                {ok, _Queued} -> feed(Channel, written(State), Turns - 1);
                {error, Reason} -> source_over(Reason, State)
            end;
        {error, empty} ->
            {ok, Reference} = py_byte_channel:notify(Channel, readable),
            State#state{source = {Channel, Reference}};
        {error, Why} ->
            ok = causeway_nif:process_close_input(Native),
            input_over(Why, State#state{source = undefined})
    end.

input_over(closed, State) -> State;
input_over(Why, State) -> tell_stdin(Why, State).

%% Half of it is written.
unfilled({ok, Queued}, #state{source = {Channel, full}, high = High} = State) when Queued * 2 =< High ->
    State#state{source = {Channel, ready}};
unfilled(_Result, State) ->
    State.

%% Whoever sends to the program is told that it does not read.
source_over(_Reason, #state{source = undefined} = State) ->
    State;
source_over(Reason, #state{source = {Channel, Waits}} = State) ->
    ok = py_byte_channel:abort(Channel, Reason),
    %% Which has told it.
    receive {py_byte_channel, Waits, readable} -> ok after 0 -> ok end,
    State#state{source = undefined}.

%% --- outputs to channels ---

streaming(stdin, Channel, State) ->
    fed(State#state{source = {Channel, ready}});
streaming(Which, Channel, State) ->
    Streaming = State#state{sinks = causeway_process_sinks:add(Which, Channel, State#state.sinks)},
    case output(Which, State) of
        eof -> over(Which, Streaming);
        _ -> Streaming
    end.

output(stdout, #state{stdout = Output}) -> Output;
output(stderr, #state{stderr = Error}) -> Error.

%% The end of an output. A guardian that was killed was so before: then it is aborted with the others.
over(Which, #state{sinks = Sinks} = State) when is_map_key(Which, Sinks) ->
    case told(State) of
        #state{ending = lost} = Lost -> set(Which, eof, Lost);
        Told -> set(Which, eof, Told#state{sinks = causeway_process_sinks:close(Which, Sinks)})
    end;
over(Which, State) ->
    set(Which, eof, State).

%% After some was sent.
offered({ok, Sinks}, _Which, State) ->
    State#state{sinks = Sinks};
offered({ended, Sinks}, Which, #state{native = Native} = State) ->
    ok = causeway_nif:process_close_output(Native, Which),
    set(Which, eof, State#state{sinks = Sinks}).

%% The end of all of them: those who receive learn whether they have got all.
channels_over(Outcome, #state{sinks = Sinks} = State) ->
    ok = causeway_process_sinks:end_all(Outcome, Sinks),
    source_over(epipe, State#state{sinks = #{}}).

%% --- reading ---

written(#state{pace = Pace} = State) -> State#state{pace = causeway_process_pace:written(Pace)}.

heard(#state{pace = Pace} = State) -> State#state{pace = causeway_process_pace:heard(Pace)}.

attention(#state{ending = undefined, pace = Pace}) -> causeway_process_pace:attention(Pace);
attention(_State) -> watch.

%% There is no more now: the core tells when there is, or it is looked for again.
rest(Which, watch, #state{pace = Pace} = State) ->
    set(Which, watched, State#state{pace = causeway_process_pace:watched(Pace)});
rest(Which, _Attention, #state{is_looking = IsLooking} = State) ->
    _ = IsLooking orelse (self() ! {?MODULE, look}),
    set(Which, looked, State#state{is_looking = true}).

looking(#state{stdout = looked} = State) -> looking(State#state{stdout = ready});
looking(#state{stderr = looked} = State) -> State#state{stderr = ready};
looking(State) -> State.

pump_later(#state{is_pumping = true} = State) ->
    State;
pump_later(State) ->
    self() ! {?MODULE, pump},
    State#state{is_pumping = true}.

%% Reads and delivers as long as there is something and somebody wants it.
pump(State) ->
    pump(State, no_reply).

pump(State, Reply) ->
    case pump_turn(State, ?TURN) of
        {ok, Pumped} -> changed(Pumped, Reply);
        {more, Pumped} -> reply(Reply, pump_later(Pumped), []);
        {extra, Extra, Pumped} -> reply(Reply, pump_later(Pumped), [Extra]);
        {stop, Reason, Pumped} -> {stop, Reason, Pumped}
    end.

reply(no_reply, State, Extra) -> list_to_tuple([noreply, State | Extra]);
reply(Reply, State, Extra) -> list_to_tuple([reply, Reply, State | Extra]).

pump_turn(#state{is_pumping = true} = State, _Turns) ->
    {ok, State};
pump_turn(#state{stdout = Output, stderr = Error} = State, _Turns) when Output =/= ready, Error =/= ready ->
    {ok, State};
pump_turn(#state{is_held = true} = State, _Turns) ->
    {ok, State};
pump_turn(State, 0) ->
    {more, State};
pump_turn(State, Turns) ->
    %% They take turns, so that neither waits for the end of the other.
    {First, Second} = case Turns rem 2 of 0 -> {stdout, stderr}; 1 -> {stderr, stdout} end,
    case wanted(First, State) of
        {true, Wanting} ->
            read(First, Wanting, Turns);
        {false, Sated} ->
            case wanted(Second, Sated) of
                {true, Wanting} -> read(Second, Wanting, Turns);
                {false, Both} -> {ok, Both}
            end
    end.

%% Whether there is something to be read that somebody wants.
wanted(stdout, #state{stdout = Output} = State) when Output =/= ready ->
    {false, State};
wanted(stderr, #state{stderr = Error} = State) when Error =/= ready ->
    {false, State};
wanted(Which, #state{sinks = Sinks} = State) ->
    case is_map_key(Which, Sinks) of
        true -> {causeway_process_sinks:is_ready(Which, Sinks), State};
        false -> wanted(State)
    end.

%% Whether the consumer wants more.
wanted(#state{owner = undefined} = State) ->
    {true, State};
wanted(#state{is_paused = true} = State) ->
    {false, State};
wanted(#state{mode = active, budget = Budget} = State) when Budget > 0 ->
    {true, State};
wanted(#state{mode = active, owner = Owner, pause = Pause} = State) ->
    case waiting(Owner) of
        Number when Number < ?MAILBOX ->
            {true, State#state{budget = ?MAILBOX - Number, pause = ?PAUSE}};
        _ ->
            _ = erlang:send_after(Pause, self(), {?MODULE, resume}),
            {false, State#state{is_paused = true, pause = min(2 * Pause, ?LONGEST_PAUSE)}}
    end;
wanted(#state{mode = passive, receivers = Receivers} = State) ->
    {not queue:is_empty(Receivers), State};
wanted(#state{mode = {count, Number, _}} = State) ->
    {Number > 0, State}.

%% How many messages of the stream wait in the mailbox of its owner, at most. Which of them are ours is counted only
%% where there are many: an owner of several may well take those of another first.
waiting(Owner) ->
    case process_info(Owner, message_queue_len) of
        {message_queue_len, Length} when Length < ?MAILBOX -> Length;
        _ -> own_of(process_info(Owner, messages))
    end.

own_of({messages, Messages}) ->
    Self = self(),
    length([ours || {From, _} <- Messages, From =:= Self]);
own_of(undefined) ->
    ?MAILBOX.

read(Which, #state{native = Native, window = Window} = State, Turns) ->
    Attention = attention(State),
    case causeway_nif:process_read(Native, Which, Window, Attention) of
        {ok, Data} -> deliver(Which, Data, consumed(Which, byte_size(Data), State), Turns);
        {last, Data} ->
            Consumed = consumed(Which, byte_size(Data), State),
            deliver(Which, Data, rest(Which, Attention, heard(Consumed)), Turns);
        wait -> pump_turn(rest(Which, Attention, State), Turns);
        %% A read that fails is as final as the end.
        _Over -> pump_turn(over(Which, State), Turns)
    end.

set(stdout, Value, State) -> State#state{stdout = Value};
set(stderr, Value, State) -> State#state{stderr = Value}.

consumed(stdout, Size, #state{left = {Output, Error}} = State) -> State#state{left = {Output - Size, Error}};
consumed(stderr, Size, #state{left = {Output, Error}} = State) -> State#state{left = {Output, Error - Size}}.

deliver(Which, Data, #state{sinks = Sinks} = State, Turns) when is_map_key(Which, Sinks) ->
    pump_turn(offered(causeway_process_sinks:send(Which, Data, Sinks), Which, State), Turns - 1);
deliver(Which, Data, #state{owner = undefined, module = Module} = State, Turns) ->
    Function = callback(Which),
    case erlang:function_exported(Module, Function, 2) of
        true ->
            case call(fun(Old) -> Module:Function(Data, Old) end, State) of
                {noreply, Called} -> pump_turn(Called, Turns - 1);
                {noreply, Called, Extra} -> {extra, Extra, Called};
                {stop, Reason, Called} -> {stop, Reason, Called};
                Other -> {stop, {bad_return_value, Other}, State}
            end;
        false ->
            pump_turn(State, Turns - 1)
    end;
deliver(Which, Data, #state{mode = passive, receivers = Receivers} = State, Turns) ->
    {{value, Receiver}, Rest} = queue:out(Receivers),
    answer_receiver(Receiver, {ok, Which, Data}),
    pump_turn(State#state{receivers = Rest}, Turns - 1);
deliver(Which, Data, #state{owner = Owner} = State, Turns) ->
    Owner ! {self(), {tag(Which), Data}},
    pump_turn(spent(State), Turns - 1).

callback(stdout) -> handle_stdout;
callback(stderr) -> handle_stderr.

tag(stdout) -> data;
tag(stderr) -> error.

spent(#state{mode = active, budget = Budget} = State) ->
    State#state{budget = Budget - 1};
spent(#state{mode = {count, 1, told}, owner = Owner} = State) ->
    Owner ! {self(), passive},
    State#state{mode = {count, 0, told}};
spent(#state{mode = {count, Number, How}} = State) ->
    State#state{mode = {count, Number - 1, How}}.

answer_receiver({From, Timer}, Reply) ->
    _ = Timer =/= undefined andalso erlang:cancel_timer(Timer),
    gen_server:reply(From, Reply).

%% --- the end ---

%% Takes what the guardian has told.
told(#state{native = Native} = State) ->
    case causeway_nif:process_event(Native) of
        wait ->
            State;
        {exited, Ending, IsAlone} ->
            Ended = has_ended(Ending, State#state{is_gone = IsAlone}),
            if IsAlone -> Ended; true -> told(Ended) end;
        gone ->
            State#state{is_gone = true};
        closed when State#state.ending =:= undefined ->
            %% The guardian was killed, and the program with it.
            has_ended(lost, State#state{is_gone = true});
        closed ->
            State#state{is_gone = true}
    end.

has_ended(Ending, #state{native = Native} = State) ->
    {Output, Error} = causeway_nif:process_available(Native),
    State#state{ending = Ending, left = {held_bytes(Output, State), bytes(Error)}}.

held_bytes(Number, #state{is_terminal = true}) when is_integer(Number) -> ?TERMINAL_HOLDS;
held_bytes(Number, _State) -> bytes(Number).

bytes(eof) -> 0;
bytes(Number) -> Number.

changed(State) ->
    changed(State, no_reply).

%% Whether all has come to its end: first the outputs, then what the program has left behind.
changed(#state{ending = undefined} = State, Reply) ->
    reply(Reply, State, []);
changed(#state{is_held = false} = State, Reply) ->
    case outputs(State) of
        over -> ended(State, Reply);
        held -> ended(State#state{is_held = true}, Reply);
        open -> reply(Reply, with_grace(State), [])
    end;
changed(State, Reply) ->
    ended(State, Reply).

with_grace(#state{has_grace = true} = State) ->
    State;
with_grace(#state{grace = Grace} = State) ->
    _ = erlang:send_after(Grace, self(), {?MODULE, grace_over}),
    State#state{has_grace = true}.

outputs(#state{stdout = eof, stderr = eof}) ->
    over;
outputs(#state{native = Native, left = {Output, Error}, sinks = Sinks, is_grace_over = IsGraceOver}) ->
    %% What a channel has no room for is in no pipe any more.
    case causeway_process_sinks:is_waiting(Sinks) of
        false -> outputs(causeway_nif:process_available(Native), Output, Error, IsGraceOver);
        true -> open
    end.

outputs({eof, eof}, _Output, _Error, _IsGraceOver) -> over;
outputs({HasOutput, HasError}, Output, Error, true)
  when (Output =< 0 orelse HasOutput =:= 0 orelse HasOutput =:= eof),
       (Error =< 0 orelse HasError =:= 0 orelse HasError =:= eof) -> held;
outputs(_Available, _Output, _Error, _IsGraceOver) -> open.

ended(#state{is_gone = true} = State, Reply) ->
    finish(State, Reply);
ended(#state{is_ending = true} = State, Reply) ->
    reply(Reply, State, []);
ended(#state{native = Native} = State, Reply) ->
    _ = causeway_nif:process_end(Native),
    changed(told(State#state{is_ending = true}), Reply).

finish(#state{module = undefined} = Streaming, Reply) ->
    State = channels_over(outcome(Streaming), Streaming),
    Reason = reason(State),
    wake(State#state.writers, {error, closed}),
    finish(Reason, State#state{writers = []}, Reply);
finish(#state{module = Module, data = Data} = Streaming, _Reply) ->
    State = channels_over(outcome(Streaming), Streaming),
    Reason = reason(State),
    wake(State#state.writers, {error, closed}),
    wake(State#state.waiting, {ok, Reason}),
    Ended = State#state{writers = [], waiting = []},
    case erlang:function_exported(Module, handle_exit, 2) of
        true ->
            case Module:handle_exit(Reason, Data) of
                {stop, Why, New} -> {stop, Why, Ended#state{data = New}};
                Other -> {stop, {bad_return_value, Other}, Ended}
            end;
        false ->
            {stop, plain(Reason), Ended}
    end.

%% Somebody who asks is told, and nobody else.
finish(Reason, #state{mode = passive, receivers = Receivers, waiting = Waiting} = State, Reply) ->
    case queue:is_empty(Receivers) andalso Waiting =:= [] of
        true ->
            reply(Reply, State#state{final = Reason}, []);
        false ->
            _ = [answer_receiver(Receiver, {exit, Reason}) || Receiver <- queue:to_list(Receivers)],
            wake(Waiting, {ok, Reason}),
            stop(Reply, State#state{receivers = queue:new(), waiting = []})
    end;
finish(Reason, #state{owner = Owner, waiting = Waiting} = State, Reply) ->
    Owner ! {'EXIT', self(), Reason},
    wake(Waiting, {ok, Reason}),
    %% This one message is all that it gets, whether it traps exits or not.
    unlink(Owner),
    stop(Reply, State#state{waiting = []}).

%% Of a program whose guardian was killed nobody knows whether that was all.
outcome(#state{ending = lost}) -> guardian_killed;
outcome(_State) -> ok.

stop(no_reply, State) -> {stop, normal, State};
stop(Reply, State) -> {stop, normal, Reply, State}.

reason(#state{is_held = true} = State) -> {exit, reason(State#state{is_held = false}), output_held};
reason(#state{ending = {status, 0}}) -> normal;
reason(#state{ending = {status, Status}}) -> {exit_status, Status};
reason(#state{ending = {signal, Number, _HasDumpedCore}}) -> {signal, Number};
reason(#state{ending = lost}) -> guardian_killed.

plain({exit, Reason, output_held}) -> Reason;
plain(Reason) -> Reason.

%% --- the module's callbacks ---

%% Calls it with its data. A time-out is a timer of ours: messages of ours would end that of the process.
call(Fun, #state{timer = Timer, data = Data} = State) ->
    _ = Timer =/= undefined andalso erlang:cancel_timer(Timer),
    called(Fun(Data), State#state{timer = undefined}).

called({noreply, Data}, State) -> {noreply, State#state{data = Data}};
called({noreply, Data, Extra}, State) -> extra([noreply], Extra, State#state{data = Data});
called({reply, Reply, Data}, State) -> {reply, Reply, State#state{data = Data}};
called({reply, Reply, Data, Extra}, State) -> extra([reply, Reply], Extra, State#state{data = Data});
called({stop, Reason, Data}, State) -> {stop, Reason, State#state{data = Data}};
called({stop, Reason, Reply, Data}, State) -> {stop, Reason, Reply, State#state{data = Data}};
called(Other, State) -> {stop, {bad_return_value, Other}, State}.

extra(Before, infinity, State) ->
    list_to_tuple(Before ++ [State]);
extra(Before, Timeout, State) when is_integer(Timeout) ->
    list_to_tuple(Before ++ [State#state{timer = erlang:start_timer(Timeout, self(), timeout)}]);
extra(Before, Extra, State) ->
    list_to_tuple(Before ++ [State, Extra]).

%% @private
terminate(Reason, #state{native = Native, module = Module, data = Data} = State) ->
    ok = causeway_nif:process_close(Native),
    _ = channels_over(case Reason of normal -> closed; _ -> Reason end, State),
    case Module =/= undefined andalso erlang:function_exported(Module, terminate, 2) of
        true -> Module:terminate(Reason, Data);
        false -> ok
    end.

%% @private
code_change(OldVersion, #state{module = Module, data = Data} = State, Extra) ->
    case Module =/= undefined andalso erlang:function_exported(Module, code_change, 3) of
        true ->
            case Module:code_change(OldVersion, Data, Extra) of
                {ok, New} -> {ok, State#state{data = New}};
                Other -> Other
            end;
        false ->
            {ok, State}
    end.

%% @private
%% The module's own state is what its users look for.
format_status(#{state := #state{module = Module, data = Data}} = Status) when Module =/= undefined ->
    case erlang:function_exported(Module, format_status, 1) of
        true -> Module:format_status(Status#{state := Data});
        false -> Status#{state := Data}
    end;
format_status(Status) ->
    Status.
