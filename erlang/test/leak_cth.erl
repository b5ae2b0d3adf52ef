%% @doc A hook of Common Test: after each suite the application is stopped, and whatever the suite has left in the node
%% that was not there before fails it: descriptors, contexts' threads, programs, zombies, ports, processes, tables.
%%
%% What is started once in the life of a node, and stays, is not counted: the helper that starts programs, Python's
%% tracker of resources, the resolver of names.
-module(leak_cth).

-export([init/2, pre_init_per_suite/3, post_end_per_suite/4]).

-define(PATIENCE, 5000).
%% Suites with waits of C code that nothing ends: their contexts go when what they wait for has come.
-define(MAY_LEAVE, #{py_interrupt_SUITE => #{context_threads => 1}}).
%% Of the node itself, of what is printed and logged, and of the kernel's random numbers.
-define(OWN_FILES, ["/dev/null", "/dev/urandom", "/dev/pts/", "/dev/tty"]).

-type counts() :: #{atom() => non_neg_integer()}.

%% @doc Nothing is known yet.
-spec init(term(), term()) -> {ok, counts()}.
init(_Id, _Options) -> {ok, #{}}.

%% @doc Called before a suite.
-spec pre_init_per_suite(module(), list(), counts()) -> {list(), counts()}.
pre_init_per_suite(Suite, Config, _Before) ->
    Allowed = maps:get(Suite, ?MAY_LEAVE, #{}),
    {Config, maps:map(fun(Kind, Number) -> Number + maps:get(Kind, Allowed, 0) end, counts())}.

%% @doc Called after a suite.
-spec post_end_per_suite(module(), list(), term(), counts()) -> {term(), counts()}.
post_end_per_suite(_Suite, _Config, Return, Before) ->
    _ = application:stop(causeway),
    case settles(Before) orelse collect_in_python() andalso settles(Before) of
        true -> {Return, Before};
        false ->
            Left = {left_in_the_node, more(Before), descriptors, files(), processes, unnamed(), tables, tables(),
                    event_loops, event_loops()},
            {{fail, Left}, Before}
    end.

settles(Before) ->
    try causeway_ct:wait_until(fun() -> more(Before) =:= #{} end, ?PATIENCE) of
        ok -> true
    catch
        error:{still_false, _} -> false
    end.

%% A loop that is garbage in Python has its descriptors until that is collected.
collect_in_python() ->
    ok = causeway_ct:start(),
    {ok, _} = py:gc(),
    ok = application:stop(causeway),
    true.

%% Loops that are open yet, and who has them.
event_loops() ->
    ok = causeway_ct:start(),
    Answer = py:call(leak_helpers, open_loops, []),
    ok = application:stop(causeway),
    Answer.

%% What there is more of than before, as {Was, Is}. Garbage may hold on to something, so that goes first.
more(Before) ->
    case more(Before, counts()) of
        Nothing when Nothing =:= #{} ->
            Nothing;
        _More ->
            _ = [erlang:garbage_collect(Process) || Process <- processes()],
            more(Before, counts())
    end.

more(Before, Now) ->
    maps:from_list([{Kind, {maps:get(Kind, Before, 0), Number}}
                    || {Kind, Number} <- maps:to_list(Now), Number > maps:get(Kind, Before, 0)]).

-spec counts() -> counts().
counts() ->
    Children = children(),
    Helper = length([known || {"causeway-spawn", _, _} <- Children]),
    Tracker = length([known || {_, _, Arguments} <- Children, string:find(Arguments, "resource_tracker") =/= nomatch]),
    Resolver = length([known || is_pid(whereis(inet_gethost_native))]),
    Files = files(),
    Kinds = #{descriptors => length(Files) - Helper - Tracker - 2 * Resolver,
              children => length(Children) - min(Helper, 1) - Tracker,
              zombies => length([zombie || {_, "Z", _} <- Children]),
              context_threads => causeway_ct:context_threads(),
              ports => length(erlang:ports()) - Resolver,
              processes => length(unnamed()),
              tables => length(tables())},
    maps:map(fun(_Kind, Number) -> max(0, Number) end, Kinds).

%% Where the processes began that have no name, and where they are. Servers of OTP that are started when they are needed first have one.
unnamed() ->
    [{proplists:get_value('$initial_call', Dictionary, Start), Current}
     || Process <- processes(),
        [{registered_name, []}, {initial_call, Start}, {current_function, Current}, {dictionary, Dictionary}]
            <- [process_info(Process, [registered_name, initial_call, current_function, dictionary])]].

%% The tables of such processes.
tables() ->
    [ets:info(Table, name) || Table <- ets:all(), Owner <- [ets:info(Table, owner)], is_pid(Owner),
                              process_info(Owner, registered_name) =:= []].

%% What the open descriptors are of. Common Test has logs open, which are others before and after a suite.
files() ->
    {ok, Numbers} = file:list_dir("/proc/self/fd"),
    Links = [file:read_link("/proc/self/fd/" ++ Number) || Number <- Numbers],
    lists:sort([Name || {ok, Name} <- Links, not is_own(Name)]).

is_own(Name) ->
    lists:any(fun(Own) -> lists:prefix(Own, Name) end, ?OWN_FILES)
        orelse filename:pathtype(Name) =:= absolute andalso lists:member(filename:extension(Name), [".html", ".log"]).

%% Names, states and arguments of this process's children.
children() ->
    [Child || Task <- filelib:wildcard("/proc/self/task/*/children"), {ok, Line} <- [file:read_file(Task)],
              Number <- string:lexemes(binary_to_list(Line), " "), Child <- child("/proc/" ++ Number)].

child(Directory) ->
    case {file:read_file(Directory ++ "/stat"), file:read_file(Directory ++ "/cmdline")} of
        {{ok, Stat}, {ok, Arguments}} ->
            {match, [Name, State]} = re:run(Stat, "\\((.*)\\) (.)", [{capture, all_but_first, list}, dotall]),
            [{Name, State, binary_to_list(Arguments)}];
        _ ->
            []
    end.
