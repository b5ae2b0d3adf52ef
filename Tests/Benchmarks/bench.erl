%% @doc The benchmark harness. Ours and the peers take turns, round by round; every round gives one
%% sample of each peer and one value of each ratio of `targets.config'; medians are reported.
%%
%% A benchmark is a map in the list that a module `bench_*' returns from `benchmarks/0'. Its `peers'
%% function runs in a process of the benchmark's own, opens what it needs (links and ports close it
%% when the process ends) and returns a sampler for each peer: a function that measures for about as
%% many milliseconds as it is told and returns one number in the benchmark's unit, or several, each
%% with a name that is added to the peer's. `time/1' and `rate/2' make samplers of Erlang functions; a load
%% generator of its own is a sampler as well.
%% A benchmark that this Python cannot run ends with `exit({unavailable, Text})', which is no error. It is run in another
%% node with NEWEST_PYTHON, where that is set; its results say which Python it was.
-module(bench).

-export([main/0, time/1, rate/2, python/0, stop/2]).
-export_type([benchmark/0, subject/0, sampler/0, spread/0, result/0, number_result/0]).

-type sampler() :: fun((Milliseconds :: pos_integer()) -> number() | [{atom(), number()}]).
-type benchmark() :: #{name := atom(), unit := string(),
                       peers := fun(() -> [{Peer :: atom(), sampler()}])}.
-type subject() :: string().
-type ratio() :: atom() | {'/' | '-', ratio(), ratio()}.
-type target() :: {at_most | at_least, number()} | none.
-type spread() :: {Median :: float(), Min :: float(), Max :: float()}.
-type number_result() :: #{name := atom(), ratio := ratio(), target := target(), value := spread(),
                           marks := [{together | apart, Rounds :: pos_integer(), Median :: float()}],
                           met := boolean() | none}.
-type result() :: #{name := atom(), subject := subject(), unit := string(), peers := [{atom(), spread()}],
                    numbers := [number_result()], python => string()}
                | #{name := atom(), unavailable := unicode:chardata()}
                | #{name := atom(), error := term()}.

-define(OUTPUT, ".build/bench/").
-define(TARGETS, "Tests/Benchmarks/targets.config").

%% @doc Runs what the environment asks for, reports, and stops the node: with status 1 if a
%% benchmark could not be run, or with CHECK if a ratio has become worse. A target that is missed is reported, and is
%% not an error.
-spec main() -> ok.
main() ->
    case application:ensure_all_started(causeway) of
        {ok, _} -> ok;
        {error, Reason} -> stop("causeway does not start (`make build` first?): ~0p", [Reason])
    end,
    Thresholds = thresholds(),
    {Rounds, Ms} = case is_set("QUICK") of
        false -> {5, 300};
        true -> {3, 100}
    end,
    Benchmarks = benchmarks(),
    Targets = targets([Name || {_, #{name := Name}} <- Benchmarks]),
    Only = string:lexemes(os:getenv("ONLY", ""), ", "),
    Selected = selected(Only, Benchmarks),
    Conditions = conditions(Rounds, Ms),
    Measure = fun(Entries) ->
        with_newest([run(Subject, Benchmark, Targets, Rounds, Ms) || {Subject, Benchmark} <- Entries])
    end,
    Again = fun(Names) -> Measure([Entry || {_, #{name := Name}} = Entry <- Selected, lists:member(Name, Names)]) end,
    Results = Measure(Selected),
    Worse = case os:getenv("RESULTS", "") of
        "" ->
            report(Conditions, Results, Thresholds, Again);
        File ->
            ok = file:write_file(File, io_lib:format("~tp.~n", [[Result#{python => python_version()} || Result <- Results]])),
            []
    end,
    init:stop(case {[Error || #{error := Error} <- Results], Worse} of {[], []} -> 0; _ -> 1 end).

%% What this run is held against, if that is asked for: known before anything is measured.
thresholds() ->
    case is_set("CHECK") andalso bench_check:thresholds() of
        false -> none;
        {ok, Thresholds} -> Thresholds;
        {error, Text} -> stop("~ts", [Text])
    end.

%% Returns what has become worse.
report(Conditions, Results, Thresholds, Again) ->
    io:put_chars(["\n", bench_report:text(Conditions, Results)]),
    ok = file:write_file(?OUTPUT "results.md", bench_report:markdown(Conditions, Results)),
    ok = file:write_file(?OUTPUT "results.json", bench_report:json(Conditions, Results)),
    is_set("RECORD") andalso bench_check:record(Results),
    case Thresholds of
        none -> [];
        _ ->
            {Compared, Worse} = bench_check:check(Thresholds, Results, Again),
            io:format("~nheld against earlier ones: ~b ratios; worse by more than 15 %: ~b~n~ts",
                      [Compared, length(Worse), [["  ", Line, "\n"] || Line <- Worse]]),
            [io:put_chars("  (only rounds with the processors together are: CORES=together waits for them)\n") || Compared =:= 0],
            Worse
    end.

is_set(Variable) ->
    not lists:member(os:getenv(Variable, ""), ["", "0"]).

%% Those that this Python cannot run come from a node with another one.
with_newest(Results) ->
    case {[atom_to_list(Name) || #{name := Name, unavailable := _} <- Results], os:getenv("NEWEST_PYTHON", "")} of
        {[], _} -> Results;
        {_, ""} -> Results;
        {Names, Python} -> replaced(Results, elsewhere(Names, Python))
    end.

elsewhere(Names, Python) ->
    File = ?OUTPUT "newest.results",
    _ = file:delete(File),
    Port = open_port({spawn_executable, "Tests/Benchmarks/run"},
                     [{env, [{"ONLY", lists:concat(lists:join(",", Names))}, {"CAUSEWAY_PYTHON", Python},
                             {"NEWEST_PYTHON", false}, {"RESULTS", File}]},
                      exit_status, nouse_stdio]),
    receive {Port, {exit_status, _}} -> ok end,
    case file:consult(File) of
        {ok, [Others]} -> Others;
        {error, _} -> stop("no results with ~s", [Python])
    end.

replaced(Results, Others) ->
    [case [Other || #{name := Of} = Other <- Others, Of =:= Name] of
         [Other] -> Other;
         [] -> Result
     end || #{name := Name} = Result <- Results].

%% @doc A sampler: microseconds of one call, one call after another.
-spec time(fun(() -> term())) -> sampler().
time(Call) ->
    fun(Ms) ->
        Start = erlang:monotonic_time(),
        {Count, End} = repeat(Call, Start + native(Ms), 0),
        (End - Start) / native(1) * 1000 / Count
    end.

%% @doc A sampler: calls per second of that many processes that call at the same time.
-spec rate(pos_integer(), fun(() -> term())) -> sampler().
rate(Callers, Call) ->
    fun(Ms) ->
        Self = self(),
        Pids = [spawn_link(fun() -> caller(Self, Call) end) || _ <- lists:seq(1, Callers)],
        [receive {Pid, ready} -> ok end || Pid <- Pids],
        Start = erlang:monotonic_time(),
        _ = [Pid ! {go, Start + native(Ms)} || Pid <- Pids],
        {Counts, Ends} = lists:unzip([receive {Pid, Result} -> Result end || Pid <- Pids]),
        lists:sum(Counts) * native(1000) / (lists:max(Ends) - Start)
    end.

%% @doc The Python of both sides: the executable that the application chooses too.
-spec python() -> file:filename().
python() ->
    case os:find_executable(os:getenv("CAUSEWAY_PYTHON", "python3")) of
        false -> stop("there is no ~s", [os:getenv("CAUSEWAY_PYTHON", "python3")]);
        Path -> Path
    end.

caller(Parent, Call) ->
    Call(),
    Parent ! {self(), ready},
    receive {go, Deadline} -> Parent ! {self(), repeat(Call, Deadline, 0)} end.

repeat(Call, Deadline, Count) ->
    Call(),
    case erlang:monotonic_time() of
        Now when Now >= Deadline -> {Count + 1, Now};
        _ -> repeat(Call, Deadline, Count + 1)
    end.

%% @doc Ends the run with an error.
-spec stop(io:format(), [term()]) -> no_return().
stop(Format, Args) ->
    io:format(standard_error, Format ++ "~n", Args),
    halt(1).

native(Ms) ->
    erlang:convert_time_unit(Ms, millisecond, native).

%% Every benchmark, with its subject: its module's name after `bench_'.
benchmarks() ->
    Files = filelib:wildcard("Tests/Benchmarks/bench_*.erl"),
    Modules = [list_to_atom(filename:basename(File, ".erl")) || File <- Files],
    [{lists:nthtail(length("bench_"), atom_to_list(Module)), Benchmark}
     || Module <- Modules,
        {module, Module} =:= code:ensure_loaded(Module),
        erlang:function_exported(Module, benchmarks, 0),
        Benchmark <- Module:benchmarks()].

%% The benchmarks that ONLY names, by their own names or by their module's; all if it is empty.
selected([], Benchmarks) ->
    Benchmarks;
selected(Only, Benchmarks) ->
    Names = fun({Subject, #{name := Name}}) -> [Subject, atom_to_list(Name)] end,
    case Only -- lists:flatmap(Names, Benchmarks) of
        [] -> [Benchmark || Benchmark <- Benchmarks, Only -- Names(Benchmark) =/= Only];
        Unknown -> stop("no benchmark is called ~0p; there are ~0p",
                        [Unknown, lists:usort(lists:flatmap(Names, Benchmarks))])
    end.

%% A target that no benchmark answers would never be missed.
targets(Names) ->
    {ok, Targets} = file:consult(?TARGETS),
    case [Target || {_, Of, _, _} = Target <- Targets, not lists:member(Of, Names)] of
        [] -> Targets;
        Unknown -> stop(?TARGETS ": no benchmark for ~0p", [Unknown])
    end.

-spec run(subject(), benchmark(), [tuple()], pos_integer(), pos_integer()) -> result().
run(Subject, #{name := Name, unit := Unit, peers := Peers}, Targets, Rounds, Ms) ->
    io:format(standard_error, "~s ...~n", [Name]),
    {_, Monitor} = spawn_monitor(fun() -> exit({shutdown, sample(Peers(), Rounds, Ms)}) end),
    receive
        {'DOWN', Monitor, process, _, {shutdown, {sampled, Order, Samples}}} ->
            #{name => Name,
              subject => Subject,
              unit => Unit,
              peers => [{Peer, spread([maps:get(Peer, Round) || {_, Round} <- Samples])}
                        || Peer <- Order],
              numbers => [number(Number, Ratio, Target, Samples)
                          || {Number, Of, Ratio, Target} <- Targets, Of =:= Name]};
        {'DOWN', Monitor, process, _, {unavailable, Text}} ->
            #{name => Name, unavailable => Text};
        {'DOWN', Monitor, process, _, Reason} ->
            #{name => Name, error => Reason}
    end.

%% A first round is thrown away. Every other round runs backwards, so that no peer always follows
%% the same one.
sample(Peers, Rounds, Ms) ->
    _ = round(Peers, Ms),
    Samples = bench_cores:rounds(Rounds, fun(Round) ->
        round(case Round rem 2 of 0 -> lists:reverse(Peers); 1 -> Peers end, Ms)
    end),
    {sampled, [Name || {Name, _} <- element(2, hd(Samples))],
     [{Mark, maps:from_list(Round)} || {Mark, Round} <- Samples]}.

round(Peers, Ms) ->
    lists:flatmap(fun({Peer, Sampler}) ->
                      [erlang:garbage_collect(Pid) || Pid <- processes()],
                      named(Peer, Sampler(Ms))
                  end, Peers).

named(Peer, Number) when is_number(Number) -> [{Peer, Number}];
named(Peer, Numbers) -> [{list_to_atom(lists:concat([Peer, "_", Name])), Number} || {Name, Number} <- Numbers].

number(Name, Ratio, Target, Samples) ->
    Values = [{Mark, value(Ratio, Round)} || {Mark, Round} <- Samples],
    {Median, _, _} = Spread = spread([Value || {_, Value} <- Values]),
    Met = case Target of
        {at_most, Limit} -> Median =< Limit;
        {at_least, Limit} -> Median >= Limit;
        none -> none
    end,
    Marks = [{Mark, length(Of), element(1, spread(Of))}
             || Mark <- [together, apart], Of <- [[Value || {Marked, Value} <- Values, Marked =:= Mark]], Of =/= []],
    #{name => Name, ratio => Ratio, target => Target, value => Spread, marks => Marks, met => Met}.

value({'/', A, B}, Round) -> value(A, Round) / value(B, Round);
value({'-', A, B}, Round) -> value(A, Round) - value(B, Round);
value(Peer, Round) -> maps:get(Peer, Round).

spread(Values) ->
    Sorted = lists:sort(Values),
    Size = length(Sorted),
    Median = (lists:nth((Size + 1) div 2, Sorted) + lists:nth(Size div 2 + 1, Sorted)) / 2,
    {Median, float(hd(Sorted)), float(lists:last(Sorted))}.

%% What the numbers depend on, in the order in which it is shown.
conditions(Rounds, Ms) ->
    Cores = erlang:system_info(logical_processors_available),
    Time = calendar:system_time_to_rfc3339(erlang:system_time(second), [{offset, "Z"}]),
    [{"Machine", [cpu(), io_lib:format(", ~p cores, ", [Cores]), line("uname -sr"),
                  ", load ", hd(string:lexemes(file("/proc/loadavg"), " "))]},
     {"Versions", ["OTP ", erlang:system_info(otp_release), " (ERTS ", erlang:system_info(version),
                   "), Python ", python_version()]},
     {"Commit", [line("git rev-parse --short HEAD 2>/dev/null || echo none"),
                 case line("git status --porcelain") of "" -> ""; _ -> " and changes" end,
                 ", ", Time]},
     {"Rounds", [io_lib:format("~b of ~b ms for each peer", [Rounds, Ms]),
                 case bench_cores:wanted() of any -> ""; Wanted -> [", cores ", atom_to_list(Wanted), " where the host let them be"] end]}].

%% Both sides have to be the same Python, or the comparison says nothing.
python_version() ->
    {ok, Ours} = py:call(platform, python_version, []),
    Port = bench_port:open(),
    {ok, Peers} = bench_port:call(Port, platform, python_version, []),
    true = port_close(Port),
    case Ours of
        Peers -> Ours;
        _ -> stop("ours runs Python ~s and the peers ~s: set CAUSEWAY_PYTHON", [Ours, Peers])
    end.

cpu() ->
    case re:run(file("/proc/cpuinfo"), "model name\\s*: (.*)", [{capture, [1], list}]) of
        {match, [Model]} -> Model;
        nomatch -> erlang:system_info(system_architecture)
    end.

file(Path) ->
    case file:read_file(Path) of
        {ok, Text} -> Text;
        {error, _} -> "unknown"
    end.

line(Command) ->
    hd(string:split(os:cmd(Command), "\n")).
