%% @doc Holds the ratios of a run against earlier ones: `make bench-check' fails where one has become worse by more than
%% 15 %, `make bench RECORD=1' notes those of that run.
%%
%% What is worse is measured again, twice at most: of a hundred ratios on a machine with other guests some are worse by
%% chance, and one that has really fallen is so each time.
%%
%% Rounds in which the processors were together are compared, and no others: see bench_cores. A number without such a round
%% is not held against anything, and not noted.
%%
%% `thresholds.config' has one line for each: `{Name, Ratio}.' Differences, and what has no target, are not in it: of these
%% nobody can say what worse means.
-module(bench_check).

-export([worse/1, worse/2, record/1]).

-define(THRESHOLDS, "Tests/Benchmarks/thresholds.config").
-define(TOLERANCE, 0.15).
-define(MEASURED_AGAIN, 2). % times

%% @doc The same of what is worse in this run, and in others of the same benchmarks.
-spec worse([bench:result()], Again :: fun(([Name :: atom()]) -> [bench:result()])) -> [unicode:chardata()].
worse(Results, Again) ->
    worse(confirmed(suspects(Results), Again, ?MEASURED_AGAIN)).

confirmed([], _Again, _Times) ->
    [];
confirmed(Suspects, _Again, 0) ->
    Suspects;
confirmed(Suspects, Again, Times) ->
    Measured = Again([Name || #{name := Name} <- Suspects]),
    confirmed(lists:filtermap(fun(Suspect) -> still_worse(Suspect, Measured) end, Suspects), Again, Times - 1).

%% What could not be measured again, as the processors were apart, is worse as it was.
still_worse(#{name := Name, numbers := Numbers} = Suspect, Measured) ->
    Again = [Number || #{name := Of, numbers := Others} <- Measured, Of =:= Name, Number <- Others],
    remaining(Suspect, [Latest || #{name := Ratio} = Number <- Numbers,
                                  Latest <- case [Other || #{name := Of} = Other <- Again, Of =:= Ratio] of
                                      [#{marks := [{together, _, _} | _]} = Other] -> [Other];
                                      _ -> [Number]
                                  end,
                                  is_suspect(Suspect, Latest)]).

%% The results with the numbers that are worse, without the others.
suspects(Results) ->
    lists:filtermap(fun(#{numbers := Numbers} = Result) ->
                            remaining(Result, [Number || Number <- Numbers, is_suspect(Result, Number)]);
                       (#{}) ->
                            false
                    end, Results).

is_suspect(Result, Number) ->
    worse([Result#{numbers := [Number]}]) =/= [].

remaining(_Result, []) -> false;
remaining(Result, Numbers) -> {true, Result#{numbers := Numbers}}.

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
