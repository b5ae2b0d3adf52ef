%% @private
%% @doc Python exceptions in logger.
-module(py_log).

-export([load/0, report/3, format/1]).

%% @doc Has all modules loaded that logging needs: that there are no descriptors is to be logged, and then no module
%% can be loaded any more.
-spec load() -> ok.
load() ->
    Event = #{level => error, msg => {report, #{text => <<>>, fd => 0}},
              meta => #{time => 0, report_cb => fun ?MODULE:format/1}},
    _ = logger_formatter:format(Event, #{}),
    ok.

%% @doc Logs what a context has told: an exception in a callback, or what is wrong with the system.
-spec report(logger:level(), map(), map()) -> ok.
report(Level, Report, Options) ->
    py_logger:report(Level, Report#{context => maps:get(id, Options, 0)},
                     #{report_cb => fun ?MODULE:format/1}).

%% @doc The text of a report: of an exception as Python prints a traceback, with where it happened.
-spec format(map()) -> {io:format(), [term()]}.
format(#{callback := Callback, error := Error} = Report) ->
    {"Python exception in ~ts (context ~p~ts)~n~ts",
     [Callback, maps:get(context, Report, 0), connection(Report), exception(Error)]};
format(#{text := Text} = Report) ->
    {"~ts (context ~p~ts)", [Text, maps:get(context, Report, 0), connection(Report)]}.

connection(#{fd := Fd, peer := #{<<"addr">> := Address, <<"port">> := Port}}) ->
    io_lib:format(", fd ~p, peer ~ts:~tp", [Fd, Address, Port]);
connection(#{fd := Fd}) ->
    io_lib:format(", fd ~p", [Fd]);
connection(_Report) ->
    "".

exception(#{type := Type, message := Message, traceback := Traceback, cause := Cause}) ->
    [case Cause of
         none -> "";
         _ -> [exception(Cause), "\nwhich led to:\n"]
     end,
     case Traceback of
         [] -> "";
         _ -> ["Traceback (most recent call last):\n" | [frame(Frame) || Frame <- Traceback]]
     end,
     io_lib:format("~ts: ~ts", [Type, Message])].

frame(#{file := File, line := Line, function := Function, code := <<>>}) ->
    io_lib:format("  File \"~ts\", line ~p, in ~ts~n", [File, Line, Function]);
frame(#{code := Code} = Frame) ->
    [frame(Frame#{code := <<>>}), io_lib:format("    ~ts~n", [Code])].
