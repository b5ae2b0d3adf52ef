%% @private
%% @doc What a program is started with: from the options of {@link causeway_process_stream} to what the core takes.
-module(causeway_process_options).

-export([parse/3, mode/1, signal/1, size/1, channel/1, take/3, with/3]).
-export_type([request/0, settings/0, mode/0]).

-type request() :: tuple().
%% As `RequestTerm.swift' reads it.
-type settings() :: #{window := pos_integer(), high_watermark := pos_integer(), busy := block | return,
                      exit_grace := non_neg_integer(), mode := mode(), start := [gen_server:start_opt()],
                      is_terminal := boolean(),
                      streams := [{stdin | stdout | stderr, py_byte_channel:channel()}],
                      name := undefined | term()}.
-type mode() :: active | once | passive | {active, non_neg_integer()}.

-include_lib("kernel/include/file.hrl").

-define(WINDOW, 65536).
-define(HIGH_WATERMARK, 1048576).
-define(EXIT_GRACE, 200).
-define(LONGEST, 16#FFFFFFFF).
-define(LIMITS, [as, core, cpu, data, fsize, memlock, msgqueue, nice, nofile, nproc, rss, rtprio, sigpending, stack]).
-define(CGROUP_KEYS, #{cpu_weight => "cpu.weight", cpu_max => "cpu.max", cpu_idle => "cpu.idle",
                       memory_min => "memory.min", memory_low => "memory.low", memory_high => "memory.high",
                       memory_max => "memory.max", memory_swap_max => "memory.swap.max",
                       memory_oom_group => "memory.oom.group", pids_max => "pids.max", io_weight => "io.weight",
                       cpuset_cpus => "cpuset.cpus", cpuset_mems => "cpuset.mems"}).

%% @doc Checks all, and finds the program.
-spec parse(term(), term(), term()) -> {ok, request(), settings()} | {error, term()}.
parse(Command, Arguments, Options) ->
    try
        Given = given(Options),
        Path = executable(path(command, Command)),
        Texts = [text(argument, Argument) || Argument <- list(arguments, Arguments)],
        {ok, request(Path, Texts, Given), settings(Given)}
    catch
        throw:{?MODULE, Reason} -> {error, Reason}
    end.

request(Path, Arguments, Given) ->
    Size = option(pty, fun terminal/2, undefined, Given),
    {Output, Error} = outputs(Given, Size),
    {Path, [option(arg0, fun text/2, Path, Given) | Arguments], environment(maps:get(env, Given, [])),
     option(cd, fun path/2, undefined, Given), option(uid, fun account/2, undefined, Given),
     option(gid, fun account/2, undefined, Given), groups(Given), option(umask, fun mask/2, undefined, Given),
     option(nice, fun nice/2, undefined, Given), limits(maps:get(rlimits, Given, [])),
     option(delay_to_sigkill, fun milliseconds/2, 500, Given), piped(option(stdin, fun input/2, default(Size), Given), Size),
     piped(Output, Size), piped(Error, undefined), Size, cgroup(Given)}.

%% With a terminal all that is not said to be something else is that.
default(undefined) -> pipe;
default(_Size) -> pty.

%% What goes to and from a channel is a pipe as others are: or the terminal.
piped({channel, _}, Size) -> default(Size);
piped(Other, _Size) -> Other.

settings(Given) ->
    #{window => option(stdio_window, fun window/2, ?WINDOW, Given),
      high_watermark => option(high_watermark, fun positive/2, ?HIGH_WATERMARK, Given),
      busy => option(busy, fun busy/2, block, Given),
      exit_grace => option(exit_grace, fun milliseconds/2, ?EXIT_GRACE, Given),
      mode => option(mode, fun mode/2, active, Given),
      name => maps:get(name, Given, undefined),
      is_terminal => undefined =/= option(pty, fun terminal/2, undefined, Given),
      streams => [{Which, Channel} || Which <- [stdin, stdout, stderr],
                                      {channel, Channel} <- [maps:get(Which, Given, undefined)]],
      start => [{Key, maps:get(Key, Given)} || Key <- [timeout, debug, spawn_opt, hibernate_after], is_map_key(Key, Given)]}.

%% @doc Checks a mode.
-spec mode(term()) -> {ok, mode()} | {error, term()}.
mode(Mode) ->
    try
        {ok, mode(mode, Mode)}
    catch
        throw:{?MODULE, Reason} -> {error, Reason}
    end.

%% @doc Checks the size of a terminal.
-spec size(term()) -> {ok, {pos_integer(), pos_integer()}} | {error, term()}.
size(Size) ->
    try
        {ok, terminal(size, Size)}
    catch
        throw:{?MODULE, Reason} -> {error, Reason}
    end.

%% @doc Checks a channel.
-spec channel(term()) -> ok | {error, term()}.
channel(Channel) when is_reference(Channel) ->
    try py_byte_channel:info(Channel) of
        #{} -> ok;
        {error, _} = Error -> Error
    catch
        error:badarg -> no_channel(Channel)
    end;
channel(Other) ->
    no_channel(Other).

no_channel(Other) ->
    py_call:badarg("a byte channel is needed, from py_byte_channel:new/0,1 or from Python, not ~tP", [Other, 9]).

%% @doc Takes an option out that is none of a handle.
-spec take(atom(), term(), term()) -> {term(), term()}.
take(Key, Default, Options) when is_map(Options) ->
    take(Key, Default, maps:to_list(Options));
take(Key, Default, Options) when is_list(Options) ->
    case lists:partition(fun(Option) -> is_tuple(Option) andalso tuple_size(Option) =:= 2
                                            andalso is_key(Key, element(1, Option)) end, Options) of
        {[{_, Value} | _], Rest} -> {Value, Rest};
        {[], _} -> {Default, Options}
    end;
take(_Key, Default, Options) ->
    {Default, Options}.

%% @doc Sets an option.
-spec with(atom(), term(), term()) -> term().
with(Key, Value, Options) when is_list(Options) -> [{Key, Value} | Options];
with(Key, Value, Options) when is_map(Options) -> Options#{Key => Value};
with(_Key, _Value, Options) -> Options.

is_key(Key, Key) -> true;
is_key(Key, Name) when is_binary(Name) -> atom_to_binary(Key) =:= Name;
is_key(Key, Name) when is_list(Name) -> atom_to_list(Key) =:= Name;
is_key(_Key, _Other) -> false.

%% --- which options ---

given(Options) when is_map(Options) -> given(maps:to_list(Options));
given(Options) when is_list(Options) -> maps:from_list([known(Option) || Option <- reversed(Options)]);
given(Other) -> wrong("the options are a map or a list, not ~tP", [Other, 9]).

%% The first of equal ones counts, as in other lists of options.
reversed(Options) ->
    try lists:reverse(Options) catch error:_ -> wrong("the options are a map or a list, not ~tP", [Options, 9]) end.

known(Key) when is_atom(Key) -> known({Key, true});
known({Key, Value}) -> {key(Key), Value};
known(Other) -> wrong("~tP is no option", [Other, 9]).

key(Key) ->
    Name = try unicode:characters_to_list(if is_atom(Key) -> atom_to_list(Key); true -> Key end) catch error:badarg -> [] end,
    case [Known || Known <- known(), atom_to_list(Known) =:= Name] of
        [Known] -> Known;
        [] -> wrong("~tP is no option; there are ~0tp", [Key, 9, known()])
    end.

known() ->
    [arg0, busy, capture_stderr_only, cd, cgroup, cgroup_base, cgroup_controllers, cgroup_path, cgroup_sets, debug,
     delay_to_sigkill, env, exit_grace, gid, groups, hibernate_after, high_watermark, mode, name, nice, parallelism,
     pty, rlimits, spawn_opt, stderr, stderr_to_stdout, stdin, stdio_window, stdout, timeout, uid, umask].

option(Key, Check, Default, Given) ->
    case Given of
        #{Key := undefined} -> Default;
        #{Key := nil} -> Default;
        #{Key := Value} -> Check(Key, Value);
        #{} -> Default
    end.

%% --- values ---

executable(Path) ->
    case binary:match(Path, <<"/">>) of
        nomatch ->
            found(native(Path), string:lexemes(os:getenv("PATH", ""), ":"));
        _ ->
            Path
    end.

%% What `os:find_executable/1' does, without asking the file server about each directory.
found(_Name, []) ->
    throw({?MODULE, enoent});
found(Name, [Directory | Others]) ->
    Path = filename:absname(filename:join(Directory, Name)),
    case file:read_file_info(Path, [raw]) of
        {ok, #file_info{type = regular, mode = Mode}} when Mode band 8#111 =/= 0 -> path(command, Path);
        _ -> found(Name, Others)
    end.

%% As the functions of `os' and `file' take it.
native(Path) ->
    case unicode:characters_to_list(Path) of
        Text when is_list(Text) -> Text;
        _ -> binary_to_list(Path)
    end.

text(Key, Value) when is_atom(Value), Value =/= undefined, Value =/= nil -> text(Key, atom_to_binary(Value));
text(Key, Value) when is_binary(Value); is_list(Value) ->
    Text = if is_binary(Value) -> Value; true -> encoded(Key, Value) end,
    binary:match(Text, <<0>>) =:= nomatch orelse wrong("~ts must have no NUL in it, as ~tP has", [Key, Value, 9]),
    Text;
text(Key, Value) ->
    wrong("~ts must be a binary or a string, not ~tP", [Key, Value, 9]).

encoded(Key, List) ->
    try unicode:characters_to_binary(List, unicode, file:native_name_encoding()) of
        Text when is_binary(Text) -> Text;
        _ -> wrong("~ts must be text, not ~tP", [Key, List, 9])
    catch
        error:_ -> wrong("~ts must be text, not ~tP", [Key, List, 9])
    end.

path(Key, Value) ->
    case text(Key, Value) of
        <<>> -> wrong("~ts must not be empty", [Key]);
        Path -> Path
    end.

list(_Key, List) when is_list(List) ->
    try length(List) of _ -> List catch error:_ -> wrong("the list ~tP has no proper end", [List, 9]) end;
list(Key, Other) ->
    wrong("~ts must be a list, not ~tP", [Key, Other, 9]).

milliseconds(_Key, Value) when is_integer(Value), Value >= 0, Value =< ?LONGEST -> Value;
milliseconds(Key, Value) -> wrong("~ts must be a number of milliseconds, not ~tP", [Key, Value, 9]).

positive(_Key, Value) when is_integer(Value), Value > 0, Value < 1 bsl 59 -> Value;
positive(Key, Value) -> wrong("~ts must be a positive number of bytes, not ~tP", [Key, Value, 9]).

window(Key, Value) -> max(16, positive(Key, Value)).

busy(_Key, Value) when Value =:= block; Value =:= return -> Value;
busy(Key, Value) -> wrong("~ts must be block or return, not ~tP", [Key, Value, 9]).

mode(_Key, Mode) when Mode =:= active; Mode =:= once; Mode =:= passive -> Mode;
mode(_Key, {active, Number}) when is_integer(Number), Number > 0 -> {active, Number};
mode(Key, Other) -> wrong("~ts must be active, {active, Number}, once or passive, not ~tP", [Key, Other, 9]).

account(_Key, Value) when is_integer(Value), Value >= 0, Value < ?LONGEST -> Value;
account(Key, Value) when is_integer(Value) -> wrong("~ts must be from 0 to 4294967294, not ~p", [Key, Value]);
account(Key, Value) -> path(Key, Value).

groups(Given) ->
    option(groups, fun(Key, Value) -> [account(Key, Group) || Group <- list(Key, Value)] end, undefined, Given).

mask(_Key, Value) when is_integer(Value), Value >= 0, Value =< 8#777 -> Value;
mask(Key, Value) -> wrong("~ts must be from 0 to 8#777, not ~tP", [Key, Value, 9]).

nice(_Key, Value) when is_integer(Value), Value >= -20, Value =< 19 -> Value;
nice(Key, Value) -> wrong("~ts must be from -20 to 19, not ~tP", [Key, Value, 9]).

limits(Limits) when is_map(Limits) -> limits(maps:to_list(Limits));
limits(Limits) -> [limit(Limit) || Limit <- list(rlimits, Limits)].

limit({Name, {Soft, Hard}}) -> {limit_name(Name), limit_value(Soft), limit_value(Hard)};
limit({Name, Both}) -> limit({Name, {Both, Both}});
limit(Other) -> wrong("a limit is {Name, Number} or {Name, {Soft, Hard}}, not ~tP", [Other, 9]).

limit_name(Name) ->
    Text = text(rlimits, Name),
    lists:member(Text, [atom_to_binary(Known) || Known <- ?LIMITS])
        orelse wrong("~tP is no limit; there are ~0tp", [Name, 9, ?LIMITS]),
    Text.

limit_value(infinity) -> infinity;
limit_value(Value) when is_integer(Value), Value >= 0, Value < 1 bsl 63 -> Value;
limit_value(Other) -> wrong("a limit must be a number or infinity, not ~tP", [Other, 9]).

%% --- the environment: the node's with changes ---

environment(Changes) ->
    Changed = changes(if is_map(Changes) -> maps:to_list(Changes); true -> list(env, Changes) end, #{}),
    Encoding = file:native_name_encoding(),
    [<<Name/binary, $=, Value/binary>> || {Name, Value} <- maps:to_list(Changed), Value =/= unset]
        ++ [Entry || {Name, Value} <- os:env(), Entry <- kept(Name, Value, Changed, Encoding)].

kept(Name, Value, Changed, Encoding) ->
    Entry = unicode:characters_to_binary([Name, $=, Value], unicode, Encoding),
    case map_size(Changed) =:= 0 orelse not is_map_key(hd(binary:split(Entry, <<"=">>)), Changed) of
        true -> [Entry];
        false -> []
    end.

changes([], Changed) ->
    Changed;
changes([{Name, Value} | Rest], Changed) ->
    Text = path(env, Name),
    binary:match(Text, <<"=">>) =:= nomatch orelse wrong("~tP is no name of a variable", [Name, 9]),
    changes(Rest, Changed#{Text => changed(Value)});
changes([Other | _], _Changed) ->
    wrong("env must be of pairs of name and value, not ~tP", [Other, 9]).

changed(Value) when Value =:= false; Value =:= nil; Value =:= undefined -> unset;
changed(Value) -> text(env, Value).

%% --- standard input and outputs ---

input(_Key, Value) when Value =:= pipe; Value =:= null -> Value;
input(Key, {file, Path}) -> {file, path(Key, Path), false};
input(_Key, {channel, Channel}) -> {channel, checked(Channel)};
input(Key, Other) -> wrong("~ts must be pipe, null, {file, Path} or {channel, Channel}, not ~tP", [Key, Other, 9]).

checked(Channel) ->
    case channel(Channel) of
        ok -> Channel;
        {error, Reason} -> throw({?MODULE, Reason})
    end.

terminal(_Key, {Rows, Columns} = Size) when is_integer(Rows), Rows > 0, Rows < 65536,
                                            is_integer(Columns), Columns > 0, Columns < 65536 ->
    Size;
terminal(Key, Other) ->
    wrong("~ts must be {Rows, Columns}, each from 1 to 65535, not ~tP", [Key, Other, 9]).

outputs(Given, Size) ->
    Output = terminal_output(option(stdout, fun output/2, default(Size), Given), Size),
    Error = option(stderr, fun output/2, default(Size), Given),
    case {flag(capture_stderr_only, Given), flag(stderr_to_stdout, Given), Output} of
        {true, false, _} -> {null, Error};
        {false, true, stdout} -> wrong("stdout must not be stdout", []);
        {false, true, _} -> {Output, stdout};
        {true, true, _} -> wrong("capture_stderr_only and stderr_to_stdout exclude each other", []);
        {false, false, stdout} -> wrong("stdout must not be stdout", []);
        {false, false, _} -> {Output, Error}
    end.

%% What comes from the terminal comes as standard output.
terminal_output(pipe, {_, _}) -> pty;
terminal_output(Output, _Size) -> Output.

flag(Key, Given) ->
    case maps:get(Key, Given, false) of
        Value when is_boolean(Value) -> Value;
        Other -> wrong("~ts must be true or false, not ~tP", [Key, Other, 9])
    end.

output(_Key, Value) when Value =:= null; Value =:= stdout -> Value;
output(_Key, Value) when Value =:= pipe; Value =:= separate -> pipe;
output(Key, {file, Path}) -> {file, path(Key, Path), false};
output(Key, {file, Path, append}) -> {file, path(Key, Path), true};
output(_Key, {channel, Channel}) -> {channel, checked(Channel)};
output(Key, Other) ->
    wrong("~ts must be separate, null, {file, Path}, {file, Path, append} or {channel, Channel}, or for stderr stdout, "
          "not ~tP", [Key, Other, 9]).

%% --- control groups ---

cgroup(#{cgroup_controllers := Controllers} = Given) ->
    is_map_key(cgroup, Given) andalso wrong("cgroup is of version 2 and cgroup_controllers of version 1", []),
    Names = [path(cgroup_controllers, Name) || Name <- list(cgroup_controllers, Controllers)],
    Sets = [set(Set) || Set <- list(cgroup_sets, maps:get(cgroup_sets, Given, []))],
    {v1, cgroup_path(Given), Names, Sets};
cgroup(#{cgroup_sets := _}) ->
    wrong("cgroup_sets needs cgroup_controllers; version 2 has the option cgroup", []);
cgroup(#{cgroup := Settings} = Given) when is_map(Settings) ->
    {v2, cgroup_path(Given), [], [{<<>>, Key, Value} || {Key, Value} <- lists:map(fun setting/1, maps:to_list(Settings))]};
cgroup(#{cgroup := Settings} = Given) when is_list(Settings) ->
    try maps:from_list(Settings) of
        Map -> cgroup(Given#{cgroup := Map})
    catch
        error:_ -> wrong("cgroup must be a map, not ~tP", [Settings, 9])
    end;
cgroup(#{cgroup := Other}) ->
    wrong("cgroup must be a map, not ~tP", [Other, 9]);
cgroup(#{cgroup_path := _}) ->
    wrong("cgroup_path needs cgroup (version 2) or cgroup_controllers (version 1)", []);
cgroup(#{cgroup_base := _}) ->
    wrong("cgroup_base needs cgroup (version 2) or cgroup_controllers (version 1)", []);
cgroup(_Given) ->
    undefined.

cgroup_path(#{cgroup_path := _, cgroup_base := _}) ->
    wrong("cgroup_path and cgroup_base exclude each other", []);
cgroup_path(#{cgroup_path := Path}) ->
    path(cgroup_path, Path);
cgroup_path(#{cgroup_base := Base}) ->
    Name = string:lowercase(integer_to_binary(rand:uniform(1 bsl 32), 36)),
    <<(path(cgroup_base, Base))/binary, $/, Name/binary>>;
cgroup_path(_Given) ->
    wrong("a cgroup needs cgroup_path, or cgroup_base for a path of its own below that", []).

set({Controller, Key, Value}) -> {path(cgroup_sets, Controller), path(cgroup_sets, Key), setting_value(Value)};
set(Other) -> wrong("cgroup_sets must be of {Controller, Key, Value}, not ~tP", [Other, 9]).

setting({Name, Value}) ->
    Text = binary_to_list(path(cgroup, Name)),
    case [File || {Known, File} <- maps:to_list(?CGROUP_KEYS), atom_to_list(Known) =:= Text] of
        [File] -> {list_to_binary(File), setting_value(Value)};
        [] -> wrong("~tP is no setting of a cgroup; there are ~0tp", [Name, 9, lists:sort(maps:keys(?CGROUP_KEYS))])
    end.

setting_value({Quota, Period}) -> <<(setting_value(Quota))/binary, " ", (setting_value(Period))/binary>>;
setting_value(Value) when is_integer(Value) -> integer_to_binary(Value);
setting_value(true) -> <<"1">>;
setting_value(false) -> <<"0">>;
setting_value(Value) -> text(cgroup, Value).

%% --- signals ---

%% @doc The number of a signal, and who gets it.
-spec signal(term()) -> {ok, pos_integer(), process | group | tree} | {error, {badarg, binary()}}.
signal({Target, Signal}) when Target =:= process; Target =:= group; Target =:= tree ->
    case number(Signal) of
        undefined -> no_signal(Signal);
        Number -> {ok, Number, Target}
    end;
signal(Signal) ->
    signal({process, Signal}).

no_signal(Signal) ->
    py_call:badarg("a signal is a name as sigterm or a number from 1 to 64, and may be for {process, Signal}, {group, Signal} "
                   "or {tree, Signal}, not ~tP", [Signal, 9]).

number(Number) when is_integer(Number), Number > 0, Number =< 64 -> Number;
number(Name) when is_atom(Name) -> number(atom_to_list(Name));
number(Name) when is_binary(Name) -> number(binary_to_list(Name));
number(Name) when is_list(Name) ->
    case string:lowercase(Name) of
        "sig" ++ Short -> proplists:get_value(Short, numbers());
        Short -> proplists:get_value(Short, numbers())
    end;
number(_Other) -> undefined.

%% As Linux has them on x86-64 and ARM.
numbers() ->
    [{"hup", 1}, {"int", 2}, {"quit", 3}, {"ill", 4}, {"trap", 5}, {"abrt", 6}, {"bus", 7}, {"fpe", 8}, {"kill", 9},
     {"usr1", 10}, {"segv", 11}, {"usr2", 12}, {"pipe", 13}, {"alrm", 14}, {"term", 15}, {"chld", 17}, {"cont", 18},
     {"stop", 19}, {"tstp", 20}, {"ttin", 21}, {"ttou", 22}, {"urg", 23}, {"xcpu", 24}, {"xfsz", 25}, {"vtalrm", 26},
     {"prof", 27}, {"winch", 28}, {"io", 29}, {"pwr", 30}, {"sys", 31}].

-spec wrong(string(), [term()]) -> no_return().
wrong(Format, Arguments) ->
    {error, Reason} = py_call:badarg(Format, Arguments),
    throw({?MODULE, Reason}).
