%% @doc What the suites of process streams share: programs, their ends, and what /proc says of processes.
-module(process_ct).

-export([start/1, open/1, open/2, shell/1, shell/2, line/1, collect/1, exit_reason/1]).
-export([is_alive/1, stop/1, gone/1, guardians/0, zombies/0, named/1, numbers/1, hierarchy/1]).

-define(PATIENCE, 30000).

%% @doc Starts the application.
-spec start(Config) -> Config.
start(Config) ->
    {ok, _} = application:ensure_all_started(causeway),
    Config.

%% @doc Runs a script of the shell for the calling process.
-spec shell(iodata()) -> pid().
shell(Script) ->
    shell(Script, #{}).

-spec shell(iodata(), map()) -> pid().
shell(Script, Options) ->
    open(["sh", "-c", iolist_to_binary(Script)], Options).

%% @doc Runs a program.
-spec open([term()]) -> pid().
open(Command) ->
    open(Command, #{}).

-spec open([term()], map()) -> pid().
open([Command | Arguments], Options) ->
    {ok, Handle} = causeway_process_stream:open(Command, Arguments, Options),
    Handle.

%% @doc The next output, which is one line.
-spec line(pid()) -> binary().
line(Handle) ->
    receive
        {Handle, {data, Line}} -> Line
    after ?PATIENCE -> error({no_line, mailbox()})
    end.

%% @doc All that comes, up to the end: standard output, standard error, and the reason.
-spec collect(pid()) -> {binary(), binary(), term()}.
collect(Handle) ->
    collect(Handle, [], []).

collect(Handle, Output, Error) ->
    receive
        {Handle, {data, Data}} -> collect(Handle, [Output, Data], Error);
        {Handle, {error, Data}} -> collect(Handle, Output, [Error, Data]);
        {'EXIT', Handle, Reason} -> {iolist_to_binary(Output), iolist_to_binary(Error), Reason}
    after ?PATIENCE -> error({no_end, iolist_size(Output), iolist_size(Error), mailbox()})
    end.

%% @doc Waits for the end alone.
-spec exit_reason(pid()) -> term().
exit_reason(Handle) ->
    receive
        {'EXIT', Handle, Reason} -> Reason
    after ?PATIENCE -> error({no_end, mailbox()})
    end.

%% A text, which is short: output may be large.
mailbox() ->
    lists:flatten(io_lib:format("~0P", [lists:sublist(causeway_ct:mailbox(), 5), 20])).

%% @doc The numbers in a text, one a line.
-spec numbers(binary()) -> [pos_integer()].
numbers(Text) ->
    [binary_to_integer(Line) || Line <- binary:split(Text, <<"\n">>, [global, trim_all])].

%% @doc Whether there is such a process that is no zombie.
-spec is_alive(pos_integer()) -> boolean().
is_alive(Process) ->
    case file:read_file(["/proc/", integer_to_list(Process), "/stat"]) of
        {ok, Stat} ->
            [_, <<State, _/binary>>] = binary:split(Stat, <<") ">>),
            not lists:member(State, "ZX");
        {error, _} ->
            false
    end.

%% @doc Stops a program, and waits until it is.
-spec stop(pid()) -> ok.
stop(Handle) ->
    ok = causeway_process_stream:kill(Handle, stop),
    Stat = ["/proc/", integer_to_list(causeway_process_stream:os_pid(Handle)), "/stat"],
    causeway_ct:wait_until(fun() -> {ok, Text} = file:read_file(Stat), nomatch =/= re:run(Text, "\\) T ") end).

%% @doc Waits until processes are gone.
-spec gone([pos_integer()]) -> ok.
gone(Processes) ->
    causeway_ct:wait_until(fun() -> not lists:any(fun is_alive/1, Processes) end).

%% @doc How many guardians this node has.
-spec guardians() -> non_neg_integer().
guardians() ->
    count(fun is_guardian/1).

count(Is) ->
    {ok, All} = file:list_dir("/proc"),
    length([Process || [Digit | _] = Process <- All, Digit >= $0, Digit =< $9, Is(Process)]).

%% @doc How many guardians and helpers have ended without anybody having waited for them.
-spec zombies() -> non_neg_integer().
zombies() ->
    count(fun(Process) ->
              case file:read_file(["/proc/", Process, "/stat"]) of
                  {ok, Stat} -> nomatch =/= re:run(Stat, "\\(causeway[^)]*\\) Z ");
                  {error, _} -> false
              end
          end).

%% @doc How many processes have a text in their command line.
-spec named(string()) -> non_neg_integer().
named(Text) ->
    count(fun(Process) ->
              case file:read_file(["/proc/", Process, "/cmdline"]) of
                  {ok, Line} -> nomatch =/= binary:match(Line, list_to_binary(Text));
                  {error, _} -> false
              end
          end).

is_guardian(Process) ->
    case {file:read_file(["/proc/", Process, "/comm"]), file:read_link(["/proc/", Process, "/exe"])} of
        {{ok, <<"causeway-guard\n">>}, {ok, Exe}} -> Exe =:= binary_to_list(causeway_process_stream:guardian_path());
        _ -> false
    end.

%% @doc Where control groups are: of version 2, or of version 1 with a controller. None where this user may make none.
-spec hierarchy(v2 | string()) -> file:filename() | none.
hierarchy(Wanted) ->
    {ok, Mounts} = file:read_file("/proc/self/mountinfo"),
    Lines = [string:lexemes(binary_to_list(Line), " ") || Line <- binary:split(Mounts, <<"\n">>, [global, trim_all])],
    Places = [lists:nth(5, Fields) || Fields <- Lines, is_hierarchy(Wanted, lists:dropwhile(fun(F) -> F =/= "-" end, Fields))],
    case [Place || Place <- Places, is_writable(Place)] of
        [Place | _] -> Place;
        [] -> none
    end.

is_hierarchy(v2, ["-", "cgroup2" | _]) -> true;
is_hierarchy(Controller, ["-", "cgroup", _, Options]) -> lists:member(Controller, string:lexemes(Options, ","));
is_hierarchy(_Wanted, _Other) -> false.

is_writable(Place) ->
    Directory = filename:join(Place, "causeway-can-write"),
    case file:make_dir(Directory) of
        ok -> ok =:= file:del_dir(Directory);
        {error, _} -> false
    end.
