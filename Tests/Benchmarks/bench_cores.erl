%% @doc Where the processors are. A virtual machine's are moved about by its host, onto one cache or apart, for seconds to
%% minutes at a time, and what passes between threads is two to three times slower while they are apart; what stays in
%% one thread is as fast as ever, and a ratio of the two says nothing. So each round is marked with where they were. One
%% in which they moved is measured again, and so is, with `CORES=together' (or `apart'), one in which they were not there;
%% after two minutes of a benchmark what there is is taken.
-module(bench_cores).

-export([rounds/2, wanted/0, nearness/0]).
-export_type([mark/0]).

-type state() :: together | apart.
-type mark() :: state() | moved.

-define(LOAD, ".build/load/release/causeway-load").
%% Nanoseconds for a cache line there and back. Within a shared cache it takes 40 to 100, without one 200 and more.
-define(TOGETHER, 150).
-define(PATIENCE, 120000). % ms
-define(PAUSE, 100). % ms from one look at where they are to the next

%% @doc So many rounds, each a sample of what `Measure' measures; it is told the round's number.
-spec rounds(pos_integer(), fun((pos_integer()) -> Sample)) -> [{mark(), Sample}].
rounds(Count, Measure) ->
    Deadline = now_ms() + ?PATIENCE,
    [round(wanted(), Measure, Number, Deadline) || Number <- lists:seq(1, Count)].

round(Wanted, Measure, Number, Deadline) ->
    Before = await(Wanted, Deadline),
    Sample = Measure(Number),
    Mark = case state() of
        Before -> Before;
        _ -> moved
    end,
    case Mark =/= moved andalso is_wanted(Wanted, Mark) orelse now_ms() >= Deadline of
        true -> {Mark, Sample};
        false -> round(Wanted, Measure, Number, Deadline)
    end.

await(Wanted, Deadline) ->
    State = state(),
    case is_wanted(Wanted, State) orelse now_ms() >= Deadline of
        true -> State;
        false ->
            timer:sleep(?PAUSE),
            await(Wanted, Deadline)
    end.

is_wanted(any, _) -> true;
is_wanted(Wanted, State) -> Wanted =:= State.

%% @doc What the environment asks for.
-spec wanted() -> state() | any.
wanted() ->
    case os:getenv("CORES", "") of
        "" -> any;
        "together" -> together;
        "apart" -> apart;
        Other -> bench:stop("CORES is together or apart, not ~ts", [Other])
    end.

state() ->
    case nearness() < ?TOGETHER of
        true -> together;
        false -> apart
    end.

%% @doc Nanoseconds for a cache line to go from one processor to another and back; measured in 10 ms.
-spec nearness() -> float().
nearness() ->
    Line = os:cmd(?LOAD " cores"),
    try
        list_to_float(string:trim(Line))
    catch
        error:badarg -> bench:stop("where the processors are cannot be measured (`make bench` builds ~s): ~ts", [?LOAD, Line])
    end.

now_ms() ->
    erlang:monotonic_time(millisecond).
