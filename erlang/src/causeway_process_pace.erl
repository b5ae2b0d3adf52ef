%% @private
%% @doc When the answer of a program is looked for, instead of being told by the BEAM's poll set when it is there: while
%% the program answers at once, that is faster, as two threads fewer have to be woken.
-module(causeway_process_pace).

-export([new/0, written/1, heard/1, attention/1, watched/1]).
-export_type([pace/0]).

%% For how many microseconds the answer of a program is looked for that has answered as fast before.
-define(QUICK, 50).
%% And for how many of them without leaving the processor to it.
-define(ALONE, 10).
-define(MOST_SKIPPED, 1024).

-record(pace, {written_at = 0 :: integer(),
               looks_for = nothing :: nothing | {answer | command, Until :: integer()},
               is_quick = false :: boolean(),
               %% For how many answers it is not done, after so many more each time that it was in vain.
               skipped = 0 :: non_neg_integer(),
               penalty = 1 :: pos_integer()}).

-opaque pace() :: #pace{}.

%% @doc Of a program that nobody has written to yet.
-spec new() -> pace().
new() ->
    #pace{}.

%% @doc Something was written.
-spec written(pace()) -> pace().
written(#pace{is_quick = true, skipped = 0} = Pace) ->
    Now = now_us(),
    Pace#pace{written_at = Now, looks_for = {answer, Now + ?QUICK}};
written(#pace{skipped = Skipped} = Pace) ->
    Pace#pace{written_at = now_us(), looks_for = nothing, skipped = max(0, Skipped - 1)}.

%% @doc Something has come: soon after it was written? Then the next command may come as soon.
-spec heard(pace()) -> pace().
heard(#pace{written_at = WrittenAt, skipped = Skipped, penalty = Penalty} = Pace) ->
    Now = now_us(),
    case Now - WrittenAt < ?QUICK of
        true when Skipped =:= 0 ->
            Pace#pace{is_quick = true, looks_for = {command, Now + ?QUICK}, penalty = max(1, Penalty div 2)};
        IsQuick ->
            Pace#pace{is_quick = IsQuick, looks_for = nothing}
    end.

%% @doc What to do where there is nothing: have it told, look again, or let others have the processor first.
-spec attention(pace()) -> watch | look | yield.
attention(#pace{looks_for = nothing}) ->
    watch;
attention(#pace{looks_for = {_What, Until}}) ->
    case Until - now_us() of
        Left when Left > ?QUICK - ?ALONE -> look;
        Left when Left > 0 -> yield;
        _ -> watch
    end.

%% @doc It is told from now on: an answer that was looked for has not come in time.
-spec watched(pace()) -> pace().
watched(#pace{looks_for = {answer, _}, penalty = Penalty} = Pace) ->
    Pace#pace{looks_for = nothing, skipped = Penalty, penalty = min(2 * Penalty, ?MOST_SKIPPED)};
watched(Pace) ->
    Pace#pace{looks_for = nothing}.

now_us() -> erlang:monotonic_time(microsecond).
