%% @doc The results of a run as a table, as Markdown and as JSON.
-module(bench_report).

-export([text/2, markdown/2, json/2]).

-type conditions() :: [{Name :: string(), unicode:chardata()}].

%% @doc Aligned columns for a terminal.
-spec text(conditions(), [bench:result()]) -> iodata().
text(Conditions, Results) ->
    [[[Name, ": ", Value, "\n"] || {Name, Value} <- Conditions],
     [["\n", aligned([Head | Rows])] || [Head | Rows] <- tables(Results)],
     [["\n", remark(Result), "\n"] || Result <- Results, not is_map_key(numbers, Result)]].

%% @doc The same as Markdown.
-spec markdown(conditions(), [bench:result()]) -> iodata().
markdown(Conditions, Results) ->
    ["# Benchmarks\n\n",
     [["- ", Name, ": ", Value, "\n"] || {Name, Value} <- Conditions],
     [["\n", row(Head), row(["---" || _ <- Head]), [row(Row) || Row <- Rows]]
      || [Head | Rows] <- tables(Results)],
     [["\n", remark(Result), "\n"] || Result <- Results, not is_map_key(numbers, Result)]].

%% @doc The same for programs.
-spec json(conditions(), [bench:result()]) -> iodata().
json(Conditions, Results) ->
    [value({object, [{conditions, {object, Conditions}},
                     {benchmarks, [result(Result) || Result <- Results]}]}), "\n"].

%% One table of ratios, which is what counts, and one of the samples behind them.
tables(Results) ->
    [[["number", "ratio", "median", "min .. max", "cores together", "apart", "target", "met"]
      | [[[atom_to_list(Name), python(Result)], ratio(Ratio), figure(Median), range(Value),
          marked(together, Marks), marked(apart, Marks), target(Target), met(Met)]
         || #{numbers := Numbers} = Result <- Results,
            #{name := Name, ratio := Ratio, value := {Median, _, _} = Value, marks := Marks,
              target := Target, met := Met} <- Numbers]],
     [["benchmark", "peer", "median", "min .. max", "unit"]
      | [[[atom_to_list(Name), python(Result)], atom_to_list(Peer), figure(Median), range(Value), Unit]
         || #{name := Name, unit := Unit, peers := Peers} = Result <- Results,
            {Peer, {Median, _, _} = Value} <- Peers]]].

%% Which Python it was, where that is not the one of the conditions.
python(#{python := Version}) -> [" (Python ", Version, ")"];
python(#{}) -> "".

%% Of a benchmark without numbers.
remark(#{name := Name, error := Reason}) ->
    io_lib:format("~s failed: ~0p", [Name, Reason]);
remark(#{name := Name, unavailable := Text}) ->
    io_lib:format("~s not available: ~ts", [Name, Text]).

ratio({'/', A, B}) -> operand(A) ++ " / " ++ operand(B);
ratio({'-', A, B}) -> operand(A) ++ " - " ++ operand(B);
ratio(Peer) -> atom_to_list(Peer).

operand(Peer) when is_atom(Peer) -> atom_to_list(Peer);
operand(Ratio) -> "(" ++ ratio(Ratio) ++ ")".

%% The median of the rounds in which the processors were there, and how many they were.
marked(Mark, Marks) ->
    case lists:keyfind(Mark, 1, Marks) of
        {Mark, Rounds, Median} -> io_lib:format("~s (~b)", [figure(Median), Rounds]);
        false -> ""
    end.

target(none) -> "";
target({at_most, Limit}) -> io_lib:format("at most ~p", [Limit]);
target({at_least, Limit}) -> io_lib:format("at least ~p", [Limit]).

met(true) -> "yes";
met(false) -> "NO";
met(none) -> "".

range({_, Min, Max}) -> [figure(Min), " .. ", figure(Max)].

%% Three digits that mean something.
figure(Value) when abs(Value) >= 100 -> integer_to_list(erlang:round(Value));
figure(Value) when abs(Value) >= 10 -> float_to_list(Value, [{decimals, 1}]);
figure(Value) when abs(Value) >= 1 -> float_to_list(Value, [{decimals, 2}]);
figure(Value) -> float_to_list(Value, [{decimals, 3}]).

aligned(Rows) ->
    Lengths = [[string:length(Cell) || Cell <- Row] || Row <- Rows],
    Widths = lists:foldl(fun(Row, Widest) -> lists:zipwith(fun max/2, Row, Widest) end,
                         hd(Lengths), Lengths),
    [[string:trim(lists:join("  ", lists:zipwith(fun string:pad/2, Row, Widths)), trailing), "\n"]
     || Row <- Rows].

row(Cells) ->
    ["| ", lists:join(" | ", Cells), " |\n"].

result(#{error := _} = Result) ->
    {object, [{name, maps:get(name, Result)}, {error, remark(Result)}]};
result(#{unavailable := _} = Result) ->
    {object, [{name, maps:get(name, Result)}, {unavailable, remark(Result)}]};
result(#{name := Name, subject := Subject, unit := Unit, peers := Peers, numbers := Numbers} = Result) ->
    {object, [{name, Name}, {subject, Subject}, {unit, Unit} | [{python, Version} || #{python := Version} <- [Result]]] ++ [
              {peers, {object, [{Peer, spread(Value)} || {Peer, Value} <- Peers]}},
              {numbers, [number(Number) || Number <- Numbers]}]}.

number(#{name := Name, ratio := Ratio, value := Value, marks := Marks, target := Target, met := Met}) ->
    {object, [{name, Name}, {ratio, ratio(Ratio)}, {value, spread(Value)},
              {cores, {object, [{Mark, {object, [{rounds, Rounds}, {median, Median}]}} || {Mark, Rounds, Median} <- Marks]}},
              {target, case Target of
                  none -> null;
                  {Bound, Limit} -> {object, [{Bound, Limit}]}
              end},
              {met, case Met of none -> null; _ -> Met end}]}.

spread({Median, Min, Max}) ->
    {object, [{median, Median}, {min, Min}, {max, Max}]}.

%% As much of JSON as is used here: {object, Members}, and lists of objects; other lists are text.
value({object, Members}) ->
    ["{", lists:join(",", [[string(Name), ":", value(Member)] || {Name, Member} <- Members]), "}"];
value([{object, _} | _] = Objects) ->
    ["[", lists:join(",", [value(Object) || Object <- Objects]), "]"];
value([]) -> "[]";
value(Number) when is_number(Number) -> io_lib:format("~p", [Number]);
value(Word) when Word =:= true; Word =:= false; Word =:= null -> atom_to_list(Word);
value(Text) -> string(Text).

string(Name) when is_atom(Name) -> string(atom_to_list(Name));
string(Text) ->
    Escaped = [escape(Character) || Character <- unicode:characters_to_list(Text)],
    [$", unicode:characters_to_binary(Escaped), $"].

escape($") -> "\\\"";
escape($\\) -> "\\\\";
escape(Control) when Control < 32 -> io_lib:format("\\u~4.16.0b", [Control]);
escape(Character) -> Character.
