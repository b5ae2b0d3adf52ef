%% @doc Holds the ratios of a run against earlier ones: `make bench-check' fails where one has become worse by more than
%% 15 %, `make bench RECORD=1' notes those of that run.
%%
%% What is worse is measured again, twice at most: of a hundred ratios on a machine with other guests some are worse by
%% chance, and one that has really fallen is so each time.
%%
%% Rounds in which the processors were together are compared, and no others: see bench_cores. A number without such a round
%% is not held against anything, and not noted: the run says how many were.
%%
%% `thresholds.config' has one line for each: `{Name, Ratio}.' Differences, and what has no target, are not in it: of these
%% nobody can say what worse means.
-module(bench_check).

-export([thresholds/0, check/3, record/1]).
-export_type([thresholds/0]).

-type thresholds() :: #{atom() => float()}.

-define(THRESHOLDS, "Tests/Benchmarks/thresholds.config").
-define(TOLERANCE, 0.15).
-define(MEASURED_AGAIN, 2). % times

%% @doc What is held against a run. The error says what is wrong with the file, and what to do.
-spec thresholds() -> {ok, thresholds()} | {error, unicode:chardata()}.
thresholds() ->
    case file:consult(?THRESHOLDS) of
        {ok, Lines} ->
            case [Line || Line <- Lines, not is_threshold(Line)] of
                [] -> {ok, maps:from_list(Lines)};
                [Line | _] -> {error, io_lib:format("~ts: ~0tp is no line like {Name, Ratio}.", [?THRESHOLDS, Line])}
            end;
        {error, enoent} ->
            {error, ?THRESHOLDS " is not there, with the ratios that this run would be held against: "
                    "`git checkout " ?THRESHOLDS "` brings it back, `make bench RECORD=1` measures it anew"};
        {error, Reason} ->
            {error, [?THRESHOLDS ": ", file:format_error(Reason)]}
    end.

is_threshold({Name, Ratio}) -> is_atom(Name) andalso is_float(Ratio);
is_threshold(_) -> false.

%% @doc How many ratios of a run have one to be held against, and a line for each that is worse by more than the
%% tolerance in this run and in others of its benchmark, which `Again' makes.
-spec check(thresholds(), [bench:result()], Again) -> {Compared :: non_neg_integer(), Worse :: [unicode:chardata()]}
    when Again :: fun(([Benchmark :: atom()]) -> [bench:result()]).
check(Thresholds, Results, Again) ->
    {length(compared(Thresholds, Results)),
     [io_lib:format("~s: ~.3f, and ~.3f before", [Name, Median, Threshold])
      || {Name, Median, Threshold} <- worse(Thresholds, confirmed(Thresholds, suspects(Thresholds, Results), Again, ?MEASURED_AGAIN))]}.

compared(Thresholds, Results) ->
    [{Ratio, maps:get(Name, Thresholds)} || {Name, _, _} = Ratio <- ratios(Results), is_map_key(Name, Thresholds)].

worse(Thresholds, Results) ->
    [{Name, Median, Threshold} || {{Name, Median, Bound}, Threshold} <- compared(Thresholds, Results),
                                  is_worse(Bound, Median, Threshold)].

confirmed(_Thresholds, [], _Again, _Times) ->
    [];
confirmed(_Thresholds, Suspects, _Again, 0) ->
    Suspects;
confirmed(Thresholds, Suspects, Again, Times) ->
    Measured = Again([Name || #{name := Name} <- Suspects]),
    Remaining = lists:filtermap(fun(Suspect) -> still_worse(Thresholds, Suspect, Measured) end, Suspects),
    confirmed(Thresholds, Remaining, Again, Times - 1).

%% What could not be measured again, as the processors were apart, is worse as it was.
still_worse(Thresholds, #{name := Name, numbers := Numbers} = Suspect, Measured) ->
    Again = [Number || #{name := Of, numbers := Others} <- Measured, Of =:= Name, Number <- Others],
    remaining(Suspect, [Latest || #{name := Ratio} = Number <- Numbers,
                                  Latest <- case [Other || #{name := Of} = Other <- Again, Of =:= Ratio] of
                                      [#{marks := [{together, _, _} | _]} = Other] -> [Other];
                                      _ -> [Number]
                                  end,
                                  is_suspect(Thresholds, Suspect, Latest)]).

%% The results with the numbers that are worse, without the others.
suspects(Thresholds, Results) ->
    lists:filtermap(fun(#{numbers := Numbers} = Result) ->
                            remaining(Result, [Number || Number <- Numbers, is_suspect(Thresholds, Result, Number)]);
                       (#{}) ->
                            false
                    end, Results).

is_suspect(Thresholds, Result, Number) ->
    worse(Thresholds, [Result#{numbers := [Number]}]) =/= [].

remaining(_Result, []) -> false;
remaining(Result, Numbers) -> {true, Result#{numbers := Numbers}}.

is_worse(at_least, Median, Threshold) -> Median < Threshold * (1 - ?TOLERANCE);
is_worse(at_most, Median, Threshold) -> Median > Threshold / (1 - ?TOLERANCE).

%% @doc Puts the ratios of a run into the file, in its order of names; those that were not measured stay.
-spec record([bench:result()]) -> ok.
record(Results) ->
    {ok, Before} = case filelib:is_file(?THRESHOLDS) of
        true -> thresholds();
        false -> {ok, #{}}
    end,
    New = maps:merge(Before, maps:from_list([{Name, Median} || {Name, Median, _} <- ratios(Results)])),
    Head = "%% Ratios of targets.config as they were measured; written by `make bench RECORD=1'.\n",
    ok = file:write_file(?THRESHOLDS, [Head | [io_lib:format("{~s, ~.3f}.~n", [Name, Median])
                                               || {Name, Median} <- lists:sort(maps:to_list(New))]]).

ratios(Results) ->
    [{Name, Median, Bound} || #{numbers := Numbers} <- Results,
                              #{name := Name, ratio := {'/', _, _}, marks := Marks, target := {Bound, _}} <- Numbers,
                              {together, _Rounds, Median} <- Marks].
