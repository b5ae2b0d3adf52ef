%% @private
%% @doc Standard input of a program: what waits to be written, and what comes from a channel.
-module(causeway_process_input).

-export([flushed/2, unfilled/2, fed/1, wake/2, tell_stdin/2, source_over/2]).

-include("causeway_process_state.hrl").

%% @doc Room in the queue of standard input, or its end.
-spec flushed({ok, non_neg_integer()} | {error, term()}, #state{}) -> #state{}.
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

%% @doc Answers who waits.
-spec wake([gen_server:from()], term()) -> ok.
wake(Callers, Reply) ->
    lists:foreach(fun(From) -> gen_server:reply(From, Reply) end, Callers).

%% @doc What was to be written cannot be: whoever waits for that is told, or else the owner, once.
-spec tell_stdin(term(), #state{}) -> #state{}.
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

%% @doc Writes what comes from the channel, until as much is queued as may be.
-spec fed(#state{}) -> #state{}.
fed(#state{source = {Channel, ready}} = State) -> feed(Channel, State, ?TURN);
fed(State) -> State.

feed(_Channel, State, 0) ->
    self() ! {causeway_process, feed},
    State;
feed(Channel, #state{native = Native, high = High} = State, Turns) ->
    case py_byte_channel:try_receive(Channel) of
        {ok, Data} ->
            case causeway_nif:process_write(Native, Data, ?NO_LIMIT) of
                {ok, Queued} when Queued >= High -> State#state{source = {Channel, full}};
                {ok, _Queued} -> feed(Channel, causeway_process_output:written(State), Turns - 1);
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

%% @doc Half of it is written.
-spec unfilled({ok, non_neg_integer()} | {error, term()}, #state{}) -> #state{}.
unfilled({ok, Queued}, #state{source = {Channel, full}, high = High} = State) when Queued * 2 =< High ->
    State#state{source = {Channel, ready}};
unfilled(_Result, State) ->
    State.

%% @doc Whoever sends to the program is told that it does not read.
-spec source_over(term(), #state{}) -> #state{}.
source_over(_Reason, #state{source = undefined} = State) ->
    State;
source_over(Reason, #state{source = {Channel, Waits}} = State) ->
    ok = py_byte_channel:abort(Channel, Reason),
    %% Which has told it.
    receive {py_byte_channel, Waits, readable} -> ok after 0 -> ok end,
    State#state{source = undefined}.
