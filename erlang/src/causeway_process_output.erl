%% @private
%% @doc The outputs of a program: whether there is something to be read that somebody wants, and how each stands.
-module(causeway_process_output).

-export([wanted/2, spent/1, rest/3, looking/1, attention/1, written/1, heard/1, output/2, set/3, consumed/3]).
-export([readable/1, callback/1, tag/1, answer_receiver/2, is_waiting/2]).

-include("causeway_process_state.hrl").

%% @doc Something was written, to which there may be an answer soon.
-spec written(#state{}) -> #state{}.
written(#state{pace = Pace} = State) -> State#state{pace = causeway_process_pace:written(Pace)}.

%% @doc There was.
-spec heard(#state{}) -> #state{}.
heard(#state{pace = Pace} = State) -> State#state{pace = causeway_process_pace:heard(Pace)}.

%% @doc How it is looked for when there is nothing.
-spec attention(#state{}) -> watch | look | yield.
attention(#state{ending = undefined, pace = Pace}) -> causeway_process_pace:attention(Pace);
attention(_State) -> watch.

%% @doc There is no more now: the core tells when there is, or it is looked for again.
-spec rest(stdout | stderr, watch | look | yield, #state{}) -> #state{}.
rest(Which, watch, #state{pace = Pace} = State) ->
    set(Which, watched, State#state{pace = causeway_process_pace:watched(Pace)});
rest(Which, _Attention, #state{is_looking = IsLooking} = State) ->
    _ = IsLooking orelse (self() ! {causeway_process, look}),
    set(Which, looked, State#state{is_looking = true}).

%% @doc It is looked for again.
-spec looking(#state{}) -> #state{}.
looking(#state{stdout = looked} = State) -> looking(State#state{stdout = ready});
looking(#state{stderr = looked} = State) -> State#state{stderr = ready};
looking(State) -> State.

%% @doc How an output stands that may have something.
-spec readable(ready | watched | looked | eof) -> ready | eof.
readable(eof) -> eof;
readable(_Other) -> ready.

%% @doc How an output stands.
-spec output(stdout | stderr, #state{}) -> ready | watched | looked | eof.
output(stdout, #state{stdout = Output}) -> Output;
output(stderr, #state{stderr = Error}) -> Error.

%% @doc Whether there is something to be read that somebody wants.
-spec wanted(stdout | stderr, #state{}) -> {boolean(), #state{}}.
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
            _ = erlang:send_after(Pause, self(), {causeway_process, resume}),
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

%% @doc It stands otherwise.
-spec set(stdout | stderr, ready | watched | looked | eof, #state{}) -> #state{}.
set(stdout, Value, State) -> State#state{stdout = Value};
set(stderr, Value, State) -> State#state{stderr = Value}.

%% @doc So much was read of it.
-spec consumed(stdout | stderr, non_neg_integer(), #state{}) -> #state{}.
consumed(stdout, Size, #state{left = {Output, Error}} = State) -> State#state{left = {Output - Size, Error}};
consumed(stderr, Size, #state{left = {Output, Error}} = State) -> State#state{left = {Output, Error - Size}}.

%% @doc The function of a module that gets it.
-spec callback(stdout | stderr) -> atom().
callback(stdout) -> handle_stdout;
callback(stderr) -> handle_stderr.

%% @doc What a message with it begins with.
-spec tag(stdout | stderr) -> atom().
tag(stdout) -> data;
tag(stderr) -> error.

%% @doc The owner has got a message.
-spec spent(#state{}) -> #state{}.
spent(#state{mode = active, budget = Budget} = State) ->
    State#state{budget = Budget - 1};
spent(#state{mode = {count, 1, told}, owner = Owner} = State) ->
    Owner ! {self(), passive},
    State#state{mode = {count, 0, told}};
spent(#state{mode = {count, Number, How}} = State) ->
    State#state{mode = {count, Number - 1, How}}.

%% @doc Who waits for data gets it, or why there is none.
-spec answer_receiver({gen_server:from(), reference() | undefined}, term()) -> ok.
answer_receiver({From, Timer}, Reply) ->
    _ = Timer =/= undefined andalso erlang:cancel_timer(Timer),
    gen_server:reply(From, Reply).

%% @doc Whether it waits on when a timer has come: else it is told that this was its own.
-spec is_waiting({gen_server:from(), reference() | undefined}, reference()) -> boolean().
is_waiting({From, Timer}, Timer) ->
    gen_server:reply(From, {error, timeout}),
    false;
is_waiting(_Other, _Timer) ->
    true.
