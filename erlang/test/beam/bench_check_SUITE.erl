%% @doc What `make bench-check' fails for: the ratios of a run that was made up, against thresholds that were.
-module(bench_check_SUITE).

-export([suite/0, all/0, init_per_suite/1, end_per_suite/1, init_per_testcase/2, end_per_testcase/2]).
-export([worse_by_more_than_15_percent/1, what_has_no_threshold/1, rounds_apart_are_not_compared/1, no_thresholds/1,
         recorded/1, thresholds_are_of_targets/1, worse_each_time/1, what_cannot_be_measured_again/1]).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-define(THRESHOLDS, "Tests/Benchmarks/thresholds.config").

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [worse_by_more_than_15_percent, what_has_no_threshold, rounds_apart_are_not_compared, no_thresholds, recorded,
     thresholds_are_of_targets, worse_each_time, what_cannot_be_measured_again].

init_per_suite(Config) ->
    Benchmarks = filename:join(root(), "Tests/Benchmarks"),
    case filelib:is_file(filename:join(Benchmarks, "bench_check.erl")) of
        false ->
            {skip, "the benchmarks are not in the copy of the application"};
        true ->
            {ok, Module, Code} = compile:file(filename:join(Benchmarks, "bench_check"), [binary]),
            {module, Module} = code:load_binary(Module, "", Code),
            [{benchmarks, Benchmarks} | Config]
    end.

end_per_suite(_Config) ->
    true = code:delete(bench_check).

%% It reads its file from where `make' is called.
init_per_testcase(Case, Config) ->
    {ok, Before} = file:get_cwd(),
    Directory = filename:join(?config(priv_dir, Config), Case),
    ok = filelib:ensure_path(filename:join(Directory, filename:dirname(?THRESHOLDS))),
    ok = file:set_cwd(Directory),
    ok = file:write_file(?THRESHOLDS, "{rate, 2.0}.\n{time, 0.5}.\n"),
    [{before, Before} | Config].

end_per_testcase(_Case, Config) ->
    ok = file:set_cwd(?config(before, Config)).

%% A rate that fell, and a time that rose, are both worse.
worse_by_more_than_15_percent(_Config) ->
    [?assertMatch({_, {1, Lines}} when length(Lines) =:= Worse,
                  {{Name, Median}, check([result(Name, Median, Bound)])})
     || {Name, Bound, Median, Worse} <- [{rate, at_least, 1.69, 1}, {rate, at_least, 1.71, 0}, {rate, at_least, 9.0, 0},
                                         {time, at_most, 0.60, 1}, {time, at_most, 0.58, 0}, {time, at_most, 0.1, 0}]],
    ?assertMatch({2, [_, _]}, check([result(rate, 1.0, at_least), result(time, 1.0, at_most)])),
    {1, [Line]} = check([result(rate, 1.0, at_least)]),
    ?assertEqual("rate: 1.000, and 2.000 before", lists:flatten(Line)).

what_has_no_threshold(_Config) ->
    ?assertEqual({0, []}, check([result(other, 0.1, at_least),
                                             #{name => idle, unavailable => "no Python"},
                                             #{name => broken, error => killed}])).

%% What a host does to its guest is no change of ours.
rounds_apart_are_not_compared(_Config) ->
    #{numbers := [Number]} = Result = result(rate, 2.0, at_least),
    ?assertEqual({1, []}, check([Result])),
    Apart = Result#{numbers := [Number#{marks := [{apart, 5, 0.1}]}]},
    ?assertEqual({0, []}, check([Apart])).

%% Without its file a run would be held against nothing, and be well for ever.
no_thresholds(_Config) ->
    Says = fun(Pattern) ->
        {error, Text} = bench_check:thresholds(),
        ?assertMatch({match, _}, re:run(Text, Pattern), Text)
    end,
    ok = file:delete(?THRESHOLDS),
    Says("^Tests/Benchmarks/thresholds.config is not there, .*`git checkout .*RECORD=1"),
    ok = file:write_file(?THRESHOLDS, "{rate, 2.0}.\n{time, \"0.5\"}.\n"),
    Says("{time,\"0.5\"} is no line like"),
    ok = file:write_file(?THRESHOLDS, "{rate, 2.0}.\n{time, .\n"),
    Says("^Tests/Benchmarks/thresholds.config: 2: syntax error"),
    ?assertError({badmatch, _}, bench_check:record([result(rate, 1.0, at_least)])),
    ?assertEqual({ok, <<"{rate, 2.0}.\n{time, .\n">>}, file:read_file(?THRESHOLDS)).

%% What was not measured this time stays; and a file is made where there is none.
recorded(_Config) ->
    ok = bench_check:record([result(rate, 3.0, at_least)]),
    ?assertEqual({ok, #{rate => 3.0, time => 0.5}}, bench_check:thresholds()),
    ok = file:delete(?THRESHOLDS),
    ok = bench_check:record([result(rate, 3.0, at_least)]),
    ?assertEqual({ok, #{rate => 3.0}}, bench_check:thresholds()).

%% Each line of the file is of a ratio that a run has: others would never be looked at.
thresholds_are_of_targets(Config) ->
    [{ok, Thresholds}, {ok, Targets}] =
        [file:consult(filename:join(?config(benchmarks, Config), File)) || File <- ["thresholds.config", "targets.config"]],
    Compared = [Name || {Name, _, {'/', _, _}, {_, _}} <- Targets],
    ?assertEqual([], [Name || {Name, _} <- Thresholds, not lists:member(Name, Compared)]).

%% Only what is worse is measured again, and fails if it always is.
worse_each_time(_Config) ->
    Results = [result(rate, 1.0, at_least), result(time, 1.0, at_most), result(other, 1.0, at_least)],
    Again = fun(Medians) ->
        fun(Names) ->
            self() ! {again, Names},
            [result(Name, Median, Bound) || {Name, Median, Bound} <- Medians, lists:member(Name, Names)]
        end
    end,
    ?assertEqual({2, []}, check(Results, Again([{rate, 2.0, at_least}, {time, 0.5, at_most}]))),
    ?assertEqual([[rate, time]], measured_again()),
    {2, [Line]} = check(Results, Again([{rate, 1.5, at_least}, {time, 0.5, at_most}])),
    ?assertEqual("rate: 1.500, and 2.000 before", lists:flatten(Line)),
    ?assertEqual([[rate, time], [rate]], measured_again()),
    ?assertEqual({1, []}, check([result(rate, 2.0, at_least)], Again([]))),
    ?assertEqual([], measured_again()).

measured_again() ->
    receive {again, Names} -> [Names | measured_again()] after 0 -> [] end.

what_cannot_be_measured_again(_Config) ->
    #{numbers := [Number]} = Result = result(rate, 1.0, at_least),
    Apart = Result#{numbers := [Number#{marks := [{apart, 5, 9.0}]}]},
    ?assertMatch({1, [_]}, check([Result], fun([rate]) -> [Apart] end)),
    ?assertMatch({1, [_]}, check([Result], fun([rate]) -> [#{name => rate, error => killed}] end)).

%% As if each run came out like this one.
check(Results) -> check(Results, fun(_) -> Results end).

check(Results, Again) ->
    {ok, Thresholds} = bench_check:thresholds(),
    bench_check:check(Thresholds, Results, Again).

%% Four levels above this suite's source, which may be behind a link.
root() ->
    {source, Source} = lists:keyfind(source, 1, ?MODULE:module_info(compile)),
    lists:foldl(fun(_, Path) -> filename:dirname(Path) end, Source, [suite, beam, test, erlang]).

result(Name, Median, Bound) ->
    #{name => Name, numbers => [#{name => Name, ratio => {'/', ours, peer}, value => {0.1, 0.1, 0.1},
                                  marks => [{together, 3, Median}, {apart, 2, 0.1}], target => {Bound, 1.0}}]}.
