%% @doc Holds the ratios of a run against earlier ones: `make bench-check' fails where one has become worse by more than
%% 15 %, `make bench RECORD=1' notes those of that run.
%%
%% Rounds in which the processors were together are compared, and no others: see bench_cores. A number without such a round
%% is not held against anything, and not noted.
%%
%% `thresholds.config' has one line for each: `{Name, Ratio}.' Differences, and what has no target, are not in it: of these
%% nobody can say what worse means.
-module(bench_check).

-export([worse/1, record/1]).

-define(THRESHOLDS, "Tests/Benchmarks/thresholds.config").
-define(TOLERANCE, 0.15).

%% @doc A line for each ratio that is worse by more than the tolerance.
-spec worse([bench:result()]) -> [unicode:chardata()].
worse(Results) ->
    Thresholds = thresholds(),
    [io_lib:format("~s: ~.3f, and ~.3f before", [Name, Median, Threshold])
     || {Name, Median, Bound} <- ratios(Results),
        {ok, Threshold} <- [maps:find(Name, Thresholds)],
        is_worse(Bound, Median, Threshold)].

is_worse(at_least, Median, Threshold) -> Median < Threshold * (1 - ?TOLERANCE);
is_worse(at_most, Median, Threshold) -> Median > Threshold / (1 - ?TOLERANCE).

%% @doc Puts the ratios of a run into the file, in its order of names; those that were not measured stay.
-spec record([bench:result()]) -> ok.
record(Results) ->
    New = maps:merge(thresholds(), maps:from_list([{Name, Median} || {Name, Median, _} <- ratios(Results)])),
    Head = "%% Ratios of targets.config as they were measured; written by `make bench RECORD=1'.\n",
    ok = file:write_file(?THRESHOLDS, [Head | [io_lib:format("{~s, ~.3f}.~n", [Name, Median])
                                               || {Name, Median} <- lists:sort(maps:to_list(New))]]).

ratios(Results) ->
    [{Name, Median, Bound} || #{numbers := Numbers} <- Results,
                              #{name := Name, ratio := {'/', _, _}, marks := Marks, target := {Bound, _}} <- Numbers,
                              {together, _Rounds, Median} <- Marks].

thresholds() ->
    case file:consult(?THRESHOLDS) of
        {ok, Thresholds} -> maps:from_list(Thresholds);
        {error, enoent} -> #{}
    end.
