%% @private
%% @doc The end of a program: what its guardian tells, whether the outputs are over, and the reason.
-module(causeway_process_ending).

-export([told/1, outputs/1, outcome/1, reason/1, plain/1]).

-include("causeway_process_state.hrl").

%% What a terminal may hold that does not tell how much it is.
-define(TERMINAL_HOLDS, 131072).

%% @doc Takes what the guardian has told.
-spec told(#state{}) -> #state{}.
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

%% @doc Whether the outputs are over, or are held open by others than the program.
-spec outputs(#state{}) -> over | held | open.
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

%% @doc Of a program whose guardian was killed nobody knows whether that was all.
-spec outcome(#state{}) -> ok | guardian_killed.
outcome(#state{ending = lost}) -> guardian_killed;
outcome(_State) -> ok.

%% @doc The reason of the end.
-spec reason(#state{}) -> term().
reason(#state{is_held = true} = State) -> {exit, reason(State#state{is_held = false}), output_held};
reason(#state{ending = {status, 0}}) -> normal;
reason(#state{ending = {status, Status}}) -> {exit_status, Status};
reason(#state{ending = {signal, Number, _HasDumpedCore}}) -> {signal, Number};
reason(#state{ending = lost}) -> guardian_killed.

%% @doc The same as the reason of a process.
-spec plain(term()) -> term().
plain({exit, Reason, output_held}) -> Reason;
plain(Reason) -> Reason.
