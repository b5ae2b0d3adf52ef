%% @private
%% @doc The process behind a handle of {@link causeway_process_stream}: it reads for its owner, as far as that asks,
%% or for the callbacks of a module, which run in it.
-module(causeway_process).

-behaviour(gen_server).

-export([open/3, start_link/5]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, handle_continue/2, terminate/2, code_change/3,
         format_status/1]).

-include("causeway_process_state.hrl").

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
            Stream = fun({Which, Channel}, Old) -> causeway_process_channels:streaming(Which, Channel, Old) end,
            Streaming = lists:foldl(Stream, State, Streams),
            list_to_tuple([ok, pump_later(causeway_process_ending:told(Streaming)) | timed_out_later(Extra)]);
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
                    {reply, ok, causeway_process_output:written(State)};
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
        true -> pump(causeway_process_channels:streaming(Which, Channel, State), ok)
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
    _ = [causeway_process_output:answer_receiver(Receiver, {error, not_passive})
         || Receiver <- queue:to_list(Receivers)],
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
    changed(causeway_process_ending:told(State));
handle_info({causeway_process, stdout}, State) ->
    pump(State#state{stdout = causeway_process_output:readable(State#state.stdout)});
handle_info({causeway_process, stderr}, State) ->
    pump(State#state{stderr = causeway_process_output:readable(State#state.stderr)});
handle_info({causeway_process, stdin}, State) ->
    Result = causeway_nif:process_flush(State#state.native),
    Flushed = causeway_process_input:flushed(Result, State),
    {noreply, causeway_process_input:fed(causeway_process_input:unfilled(Result, Flushed))};
handle_info({py_byte_channel, Reference, readable}, #state{source = {Channel, Reference}} = State) ->
    {noreply, causeway_process_input:fed(State#state{source = {Channel, ready}})};
handle_info(Tag, #state{sinks = Sinks} = State) when is_reference(Tag), map_size(Sinks) > 0 ->
    case causeway_process_sinks:told(Tag, Sinks) of
        {Outcome, Which, After} -> pump(causeway_process_channels:offered({Outcome, After}, Which, State));
        none -> other(Tag, State)
    end;
handle_info({?MODULE, feed}, State) ->
    {noreply, causeway_process_input:fed(State)};
handle_info({?MODULE, pump}, State) ->
    pump(State#state{is_pumping = false});
handle_info({?MODULE, look}, State) ->
    %% Whoever is to answer or to ask may need this scheduler.
    true = erlang:yield(),
    pump(causeway_process_output:looking(State#state{is_looking = false}));
handle_info({?MODULE, resume}, State) ->
    pump(State#state{is_paused = false, budget = 0});
handle_info({?MODULE, grace_over}, State) ->
    changed(State#state{is_grace_over = true});
handle_info({?MODULE, first_timeout}, State) ->
    timed_out(State);
handle_info({timeout, Timer, timeout}, #state{timer = Timer} = State) when Timer =/= undefined ->
    timed_out(State#state{timer = undefined});
handle_info({timeout, Timer, recv}, #state{receivers = Receivers} = State) ->
    Others = queue:filter(fun(Receiver) -> causeway_process_output:is_waiting(Receiver, Timer) end, Receivers),
    {noreply, State#state{receivers = Others}};
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
        {ok, _Queued} -> {noreply, causeway_process_output:written(State)};
        {error, Reason} -> {noreply, causeway_process_input:tell_stdin(Reason, State)};
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

%% --- reading ---

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
    case causeway_process_output:wanted(First, State) of
        {true, Wanting} ->
            read(First, Wanting, Turns);
        {false, Sated} ->
            case causeway_process_output:wanted(Second, Sated) of
                {true, Wanting} -> read(Second, Wanting, Turns);
                {false, Both} -> {ok, Both}
            end
    end.

read(Which, #state{native = Native, window = Window} = State, Turns) ->
    Attention = causeway_process_output:attention(State),
    case causeway_nif:process_read(Native, Which, Window, Attention) of
        {ok, Data} -> deliver(Which, Data, causeway_process_output:consumed(Which, byte_size(Data), State), Turns);
        {last, Data} ->
            Consumed = causeway_process_output:consumed(Which, byte_size(Data), State),
            Heard = causeway_process_output:heard(Consumed),
            deliver(Which, Data, causeway_process_output:rest(Which, Attention, Heard), Turns);
        wait -> pump_turn(causeway_process_output:rest(Which, Attention, State), Turns);
        %% A read that fails is as final as the end.
        _Over -> pump_turn(causeway_process_channels:over(Which, State), Turns)
    end.

deliver(Which, Data, #state{sinks = Sinks} = State, Turns) when is_map_key(Which, Sinks) ->
    Sent = causeway_process_sinks:send(Which, Data, Sinks),
    pump_turn(causeway_process_channels:offered(Sent, Which, State), Turns - 1);
deliver(Which, Data, #state{owner = undefined, module = Module} = State, Turns) ->
    Function = causeway_process_output:callback(Which),
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
    causeway_process_output:answer_receiver(Receiver, {ok, Which, Data}),
    pump_turn(State#state{receivers = Rest}, Turns - 1);
deliver(Which, Data, #state{owner = Owner} = State, Turns) ->
    Owner ! {self(), {causeway_process_output:tag(Which), Data}},
    pump_turn(causeway_process_output:spent(State), Turns - 1).

%% --- the end ---

changed(State) ->
    changed(State, no_reply).

%% Whether all has come to its end: first the outputs, then what the program has left behind.
changed(#state{ending = undefined} = State, Reply) ->
    reply(Reply, State, []);
changed(#state{is_held = false} = State, Reply) ->
    case causeway_process_ending:outputs(State) of
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

ended(#state{is_gone = true} = State, Reply) ->
    finish(State, Reply);
ended(#state{is_ending = true} = State, Reply) ->
    reply(Reply, State, []);
ended(#state{native = Native} = State, Reply) ->
    _ = causeway_nif:process_end(Native),
    changed(causeway_process_ending:told(State#state{is_ending = true}), Reply).

finish(#state{module = undefined} = Streaming, Reply) ->
    State = causeway_process_channels:channels_over(causeway_process_ending:outcome(Streaming), Streaming),
    Reason = causeway_process_ending:reason(State),
    causeway_process_input:wake(State#state.writers, {error, closed}),
    finish(Reason, State#state{writers = []}, Reply);
finish(#state{module = Module, data = Data} = Streaming, _Reply) ->
    State = causeway_process_channels:channels_over(causeway_process_ending:outcome(Streaming), Streaming),
    Reason = causeway_process_ending:reason(State),
    causeway_process_input:wake(State#state.writers, {error, closed}),
    causeway_process_input:wake(State#state.waiting, {ok, Reason}),
    Ended = State#state{writers = [], waiting = []},
    case erlang:function_exported(Module, handle_exit, 2) of
        true ->
            case Module:handle_exit(Reason, Data) of
                {stop, Why, New} -> {stop, Why, Ended#state{data = New}};
                Other -> {stop, {bad_return_value, Other}, Ended}
            end;
        false ->
            {stop, causeway_process_ending:plain(Reason), Ended}
    end.

%% Somebody who asks is told, and nobody else.
finish(Reason, #state{mode = passive, receivers = Receivers, waiting = Waiting} = State, Reply) ->
    case queue:is_empty(Receivers) andalso Waiting =:= [] of
        true ->
            reply(Reply, State#state{final = Reason}, []);
        false ->
            _ = [causeway_process_output:answer_receiver(Receiver, {exit, Reason})
                 || Receiver <- queue:to_list(Receivers)],
            causeway_process_input:wake(Waiting, {ok, Reason}),
            stop(Reply, State#state{receivers = queue:new(), waiting = []})
    end;
finish(Reason, #state{owner = Owner, waiting = Waiting} = State, Reply) ->
    Owner ! {'EXIT', self(), Reason},
    causeway_process_input:wake(Waiting, {ok, Reason}),
    %% This one message is all that it gets, whether it traps exits or not.
    unlink(Owner),
    stop(Reply, State#state{waiting = []}).

stop(no_reply, State) -> {stop, normal, State};
stop(Reply, State) -> {stop, normal, Reply, State}.

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
    _ = causeway_process_channels:channels_over(case Reason of normal -> closed; _ -> Reason end, State),
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
