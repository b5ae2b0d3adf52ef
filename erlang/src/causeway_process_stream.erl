%% @doc Programs of the operating system as streams with flow control: nothing of their output is lost, and nothing of
%% them is left when they, their owner or the node end.
%%
%% {@link open/3} starts a program for the calling process, its owner, which is linked to the handle and gets
%%
%% <dl>
%% <dt>`{Handle, {data, Binary}}'</dt><dd>from its standard output,</dd>
%% <dt>`{Handle, {error, Binary}}'</dt><dd>from its standard error,</dd>
%% <dt>`{Handle, {stdin, Posix}}'</dt><dd>once, where what was sent as a message could not be written, as after
%% `epipe',</dd>
%% <dt>``{'EXIT', Handle, Reason}''</dt><dd>once, after all output, when no process of the program is left: `normal',
%% `{exit_status, Status}' or `{signal, Number}'. A plain message, whether the owner traps exits or not.</dd>
%% </dl>
%%
%% To the handle the owner may send `{Owner, {command, Iodata}}', `{Owner, close}' and `{Owner, {connect, Pid}}', which
%% {@link command/2}, {@link close/1} and {@link connect/2} do; the last two are answered by `{Handle, closed}' and
%% `{Handle, connected}'.
%%
%% {@link start_link/5} starts a program for a module, whose callbacks run in the handle: those of `gen_server', and
%% `handle_stdout/2', `handle_stderr/2' and `handle_exit/2'. A module without one of the first two does without that
%% output; without the last the handle ends with the reason.
%%
%% The program has a session of its own and a guardian, a process outside of the node that knows all that the program
%% starts. When the program has ended, is closed, or has no owner any more, and also when the node is killed, all that
%% is left gets SIGTERM, and `delay_to_sigkill' later SIGKILL.
%%
%% Output is read as far as the owner wants it; else the program waits for room in its pipe. In the mode `active' that
%% is while the owner has fewer than 64 messages in its mailbox; in `{active, Number}' for so many messages, after which
%% it gets `{Handle, passive}'; in `once' for one; in `passive' for as many as it asks for with {@link recv/2}. {@link
%% set_mode/2} asks for more.
%%
%% When a process that the program has started holds its output open, the end waits for `exit_grace'; then what the
%% program itself had written is delivered, and the reason is `{exit, Reason, output_held}'.
%%
%% Options are a map or a list. Names and texts may be binaries, strings or atoms. Without one it is as the
%% node has it, unless a default is named.
%%
%% <dl>
%% <dt>`cd', `env', `arg0', `umask', `nice'</dt><dd>`env' is of pairs, where the value `false' removes a variable; the
%% others stay as the node has them. `arg0' is what the program finds as its name, by default its path.
%% `umask' is from 0 to 8#777, `nice' from -20 to 19. The corresponding C functions are `chdir', `umask' and
%% `setpriority'.</dd>
%% <dt>`uid', `gid', `groups'</dt><dd>Names or numbers. A user's group and other groups come with it. For a
%% node of root's. The corresponding C functions are `setuid', `setgid' and `setgroups'.</dd>
%% <dt>`rlimits'</dt><dd>As `#{nofile => 100, cpu => {Soft, Hard}}'; a limit may be `infinity'. There are
%% `as', `core', `cpu', `data', `fsize', `memlock', `msgqueue', `nice', `nofile', `nproc', `rss', `rtprio',
%% `sigpending' and `stack', in the units of the C function `setrlimit'.</dd>
%% <dt>`stdin', `stdout', `stderr'</dt><dd>`pipe', the default, `null', `{file, Path}', `{file, Path,
%% append}', `{channel, Channel}' as in {@link stream/3}, or for `stderr' `stdout'. A file that is not
%% appended to is written anew. `stderr_to_stdout' and `capture_stderr_only' are the same as `stderr =>
%% stdout' and `stdout => null'.</dd>
%% <dt>`pty'</dt><dd>`{Rows, Columns}': a terminal of its own, which standard input and outputs are where they are not
%% said to be something else. What comes from it comes as standard output. {@link resize/2} changes it, {@link
%% close_stdin/1} types its end of input (^D), and what is written as `<<3>>' is ^C.</dd>
%% <dt>`mode'</dt><dd>`active', the default, `{active, Number}', `once' or `passive'. Not with {@link
%% start_link/5}.</dd>
%% <dt>`stdio_window'</dt><dd>How many bytes are read at a time, at most 65536, which is the default.</dd>
%% <dt>`high_watermark', `busy'</dt><dd>From how many queued bytes on, 1 MB by default, {@link command/2} waits (`block',
%% the default), or returns `busy' (`return').</dd>
%% <dt>`delay_to_sigkill', `exit_grace'</dt><dd>In milliseconds, 500 and 200 by default. With a delay of 0
%% there is no SIGTERM.</dd>
%% <dt>`cgroup', `cgroup_path', `cgroup_base'</dt><dd>A control group of version 2, with settings as `#{memory_max =>
%% 1000000, pids_max => 50}' or none, and its path, or below which one it gets a path of its own. It must not exist, and
%% is removed at the end with all that is in it. There are `cpu_weight', `cpu_max', `cpu_idle', `memory_min',
%% `memory_low', `memory_high', `memory_max', `memory_swap_max', `memory_oom_group', `pids_max', `io_weight',
%% `cpuset_cpus' and `cpuset_mems', named and in the units of the kernel's files.</dd>
%% <dt>`cgroup_controllers', `cgroup_sets'</dt><dd>The same of version 1, where a setting is `{Controller, File,
%% Value}'.</dd>
%% <dt>`name', `timeout', `debug', `spawn_opt', `hibernate_after'</dt><dd>Those of `gen_server'.</dd>
%% <dt>`parallelism'</dt><dd>Has no effect.</dd>
%% </dl>
%%
%% What cannot be started is an error that {@link open/3} returns: `{error, enoent}' and other reasons of executing the
%% program; `{error, {Option, Posix, Text}}', as with `cd'; `{error, {start, Posix, Text}}' where no
%% descriptor is left, `{error, {helper, Posix, Text}}' where the helper that starts programs cannot; `{error,
%% {badarg, Text}}' for what is no option; `{error, not_local}' for a channel of another node; `{error,
%% {not_started, Text}}' without the application.
%%
%% Those of the functions here that ask the handle wait for its answer, which comes at once unless they say
%% otherwise. `{error, closed}' is a handle that has ended. A callback that asks its own handle gets the error
%% `{calling_self, _}'. Time-outs are in milliseconds.
-module(causeway_process_stream).

-export([open/1, open/2, open/3, start_link/2, start_link/3, start_link/4, start_link/5, child_spec/1]).
-export([command/2, close_stdin/1, close/1, connect/2, kill/2, await/2, recv/2, set_mode/2, os_pid/1]).
-export([stream/3, resize/2]).
-export([run/1, run/2, run/3, guardian_path/0, muontrap_path/0]).
-export_type([handle/0, text/0, options/0, stream/0, mode/0, account/0, limit/0, setting/0, reason/0, output/0]).

-type handle() :: pid() | atom() | {global, term()} | {via, module(), term()}.
-type text() :: binary() | string() | atom().
-type options() :: #{cd => text(),
                     env => #{text() => text() | false} | [{text(), text() | false}],
                     arg0 => text(),
                     umask => 0..8#777,
                     nice => -20..19,
                     uid => account(),
                     gid => account(),
                     groups => [account()],
                     rlimits => #{text() => limit() | {limit(), limit()}} | [{text(), limit() | {limit(), limit()}}],
                     stdin => stream(),
                     stdout => stream(),
                     stderr => stream() | stdout,
                     stderr_to_stdout => boolean(),
                     capture_stderr_only => boolean(),
                     pty => {Rows :: 1..65535, Columns :: 1..65535},
                     mode => mode(),
                     stdio_window => pos_integer(),
                     high_watermark => pos_integer(),
                     busy => block | return,
                     delay_to_sigkill => non_neg_integer(),
                     exit_grace => non_neg_integer(),
                     cgroup => #{text() => setting()} | [{text(), setting()}],
                     cgroup_path => text(),
                     cgroup_base => text(),
                     cgroup_controllers => [text()],
                     cgroup_sets => [{Controller :: text(), File :: text(), setting()}],
                     name => handle(),
                     timeout => timeout(),
                     debug => [sys:debug_option()],
                     spawn_opt => [proc_lib:start_spawn_option()],
                     hibernate_after => timeout(),
                     parallelism => boolean(),
                     Name :: text() => term()}
                 | [{text(), term()} | atom()].
%% The names may be binaries and strings, too; in a list an atom alone is `true'.
-type stream() :: pipe | separate | null | {file, text()} | {file, text(), append}
                | {channel, py_byte_channel:channel()}.
%% `separate' is `pipe'.
-type mode() :: active | once | passive | {active, pos_integer()}.
%% How the owner gets output, see above.
-type account() :: text() | non_neg_integer().
%% A user or a group, by its name or its number.
-type limit() :: non_neg_integer() | infinity.
-type setting() :: text() | integer() | boolean() | {setting(), setting()}.
-type reason() :: normal | {exit_status, 1..255} | {signal, pos_integer()} | guardian_killed
                | {exit, normal | {exit_status, 1..255} | {signal, pos_integer()}, output_held}.
%% How a program has ended. `guardian_killed': somebody has killed its guardian, and with it the program.
-type output() :: #{exit := reason(), stdout := binary(), stderr := binary()}.
%% What {@link run/3} has collected.

-callback handle_stdout(Data :: binary(), State :: term()) -> callback_result().
-callback handle_stderr(Data :: binary(), State :: term()) -> callback_result().
-callback handle_exit(reason(), State :: term()) -> {stop, Reason :: term(), State :: term()}.
-optional_callbacks([handle_stdout/2, handle_stderr/2, handle_exit/2]).
-type callback_result() :: {noreply, State :: term()} | {stop, Reason :: term(), State :: term()}
                         | {noreply, State :: term(), timeout() | hibernate | {continue, term()}}.

%% @doc Starts a program without arguments. The same as `open(Command, [], #{})'.
-spec open(text()) -> {ok, pid()} | {error, term()}.
open(Command) ->
    open(Command, []).

%% @doc Starts a program. The same as `open(Command, Arguments, #{})'.
-spec open(text(), [text()]) -> {ok, pid()} | {error, term()}.
open(Command, Arguments) ->
    open(Command, Arguments, #{}).

%% @doc Starts a program, found on the PATH unless it has a slash, whose owner is the calling process.
%%
%% When it returns, the program runs. An error does not harm the caller.
-spec open(text(), [text()], options()) -> {ok, pid()} | {error, term()}.
open(Command, Arguments, Options) ->
    causeway_process:open(Command, Arguments, Options).

%% @doc Starts a program for a module. The same as `start_link(Module, Command, [], [], #{})'.
-spec start_link(module(), text()) -> {ok, pid()} | {error, term()} | ignore.
start_link(Module, Command) ->
    start_link(Module, Command, []).

%% @doc The same as `start_link(Module, Command, Arguments, [], #{})'.
-spec start_link(module(), text(), [text()]) -> {ok, pid()} | {error, term()} | ignore.
start_link(Module, Command, Arguments) ->
    start_link(Module, Command, Arguments, []).

%% @doc The same as `start_link(Module, Command, Arguments, Init, #{})'.
-spec start_link(module(), text(), [text()], term()) -> {ok, pid()} | {error, term()} | ignore.
start_link(Module, Command, Arguments, Init) ->
    start_link(Module, Command, Arguments, Init, #{}).

%% @doc Starts a program for a module: after `Module:init(Init)', and only if that returns `{ok, State}' or `{ok, State,
%% Extra}'. {@link command/2} and {@link close/1} are for every process then. Errors are those of {@link
%% open/3}, and what `gen_server:start_link/4' returns.
-spec start_link(module(), text(), [text()], term(), options()) -> {ok, pid()} | {error, term()} | ignore.
start_link(Module, Command, Arguments, Init, Options) ->
    causeway_process:start_link(Module, Command, Arguments, Init, Options).

%% @doc How a supervisor starts it: with the arguments of {@link start_link/5}, or the first of them, as a list. The
%% id is the option `name', or else the module. Raises `badarg' for another list.
-spec child_spec([term()]) -> supervisor:child_spec().
child_spec([Module, _Command | Rest] = Arguments) when length(Rest) =< 3 ->
    Options = case Rest of
                  [_, _, #{} = Map] -> Map;
                  [_, _, List] when is_list(List) -> maps:from_list([Option || {_, _} = Option <- List]);
                  _ -> #{}
              end,
    #{id => maps:get(name, Options, Module), start => {?MODULE, start_link, Arguments}};
child_spec(Other) ->
    erlang:error(badarg, [Other]).

%% @doc Writes to the program's standard input.
%%
%% Returns when all is written or queued and fewer bytes are queued than `high_watermark'; with `busy => return' at once,
%% and then `busy' means that nothing was taken. `{error, epipe}' where the program does not read any more,
%% `{error, closed}' where it has ended or its input is closed, `{error, not_owner}' for another process than
%% the owner, `{error, {badarg, _}}' for what is no iodata.
-spec command(handle(), iodata()) -> ok | busy | {error, term()}.
command(Handle, Data) ->
    ask(Handle, {command, Data}, {error, closed}).

%% @doc Closes the program's standard input when all is written: it reads the end.
-spec close_stdin(handle()) -> ok | {error, closed}.
close_stdin(Handle) ->
    ask(Handle, close_stdin, {error, closed}).

%% @doc Lets go of the program, which is ended. The owner gets `{Handle, closed}'; what was not read is thrown away.
%% Returns at once, also where it has ended.
-spec close(handle()) -> ok.
close(Handle) ->
    send(Handle, close).

%% @doc Makes another process of this node the owner. The old one gets `{Handle, connected}' and is not linked any more.
%% Returns at once. Raises `badarg' for what is no process of this node.
-spec connect(handle(), pid()) -> ok.
connect(Handle, Pid) when is_pid(Pid), node(Pid) =:= node() ->
    send(Handle, {connect, Pid});
connect(Handle, Other) ->
    erlang:error(badarg, [Handle, Other]).

send(Handle, Message) ->
    case gen_server_pid(Handle) of
        Pid when is_pid(Pid) -> Pid ! {self(), Message}, ok;
        undefined -> ok
    end.

gen_server_pid(Pid) when is_pid(Pid) -> Pid;
gen_server_pid(Name) when is_atom(Name) -> whereis(Name);
gen_server_pid({global, Name}) -> global:whereis_name(Name);
gen_server_pid({via, Module, Name}) -> Module:whereis_name(Name).

%% @doc Sends a signal, by its name, as `sigterm', or its number: to the program, or with `{group, Signal}' to its
%% process group, or with `{tree, Signal}' to all that it has started. `{error, exited}' where it has ended.
%% The corresponding C function is `pidfd_send_signal'.
-spec kill(handle(), text() | pos_integer() | {process | group | tree, text() | pos_integer()}) ->
          ok | {error, exited | closed | {badarg, binary()}}.
kill(Handle, Signal) ->
    case causeway_process_options:signal(Signal) of
        {ok, Number, Target} -> ask(Handle, {signal, Number, Target}, {error, exited});
        {error, _} = Error -> Error
    end.

%% @doc Waits until the program has ended, all of its output is delivered, and nothing of it is left; at most
%% so many milliseconds.
%%
%% The owner gets no message of the end then. In the mode `active' the output that it does not take meanwhile must be less
%% than 64 messages, as otherwise the program waits.
-spec await(handle(), timeout()) -> {ok, reason()} | {error, timeout | closed}.
await(Handle, Timeout) ->
    Pid = gen_server_pid(Handle),
    Result = try
                 gen_server:call(Pid, {causeway_process, await}, Timeout)
             catch
                 exit:{timeout, _} -> {error, timeout};
                 exit:{calling_self, _} -> refuse_own();
                 exit:_ -> {error, closed}
             end,
    %% It has come before the answer.
    case Result of
        {error, timeout} -> Result;
        _ -> receive {'EXIT', Pid, Reason} -> {ok, Reason} after 0 -> Result end
    end.

%% @doc Waits for the next piece of output in the mode `passive', at most so many milliseconds. After all output it is
%% `{exit, Reason}', once, and the handle ends. In another mode it is `{error, not_passive}'.
-spec recv(handle(), timeout()) ->
          {ok, stdout | stderr, binary()} | {exit, reason()} | {error, timeout | closed | not_passive}.
recv(Handle, Timeout) ->
    ask(Handle, {recv, Timeout}, {error, closed}).

%% @doc Asks for more output, or for another way to get it. For the owner.
-spec set_mode(handle(), mode()) ->
          ok | {error, closed | not_owner | {badarg, binary()}}.
set_mode(Handle, Mode) ->
    case causeway_process_options:mode(Mode) of
        {ok, Mode} -> ask(Handle, {mode, Mode}, {error, closed});
        {error, _} = Error -> Error
    end.

%% @doc Joins a standard stream with a byte channel ({@link py_byte_channel}), in the place of the owner.
%%
%% What the program writes goes to the channel as far as that has room: give it a `max_size', as without one it takes
%% all. At the end of the output the channel is closed; when the handle is closed or crashes before, or the guardian is
%% killed, it is aborted. When whoever receives closes or aborts the channel, the program cannot write that output any more.
%%
%% For `stdin' the program gets what comes from the channel, as far as it reads it, and the end when the channel is
%% closed; also when it was aborted, which the owner is told by `{Handle, {stdin, {aborted, Reason}}}'. When the program
%% does not read any more, or has ended, the channel is aborted with `epipe'.
%%
%% The option `{channel, Channel}' does the same from the beginning. The owner is told the end of the program as without.
-spec stream(handle(), stdin | stdout | stderr, py_byte_channel:channel()) ->
          ok | {error, closed | not_owner | not_local | already_streamed | {badarg, binary()}}.
stream(Handle, Which, Channel) when Which =:= stdin; Which =:= stdout; Which =:= stderr ->
    case causeway_process_options:channel(Channel) of
        ok -> ask(Handle, {stream, Which, Channel}, {error, closed});
        {error, _} = Error -> Error
    end;
stream(_Handle, Other, _Channel) ->
    py_call:badarg("a standard stream is stdin, stdout or stderr, not ~tP", [Other, 9]).

%% @doc Changes the size of the program's terminal, of which it is told by SIGWINCH. `{error, no_pty}' where
%% it has none. The corresponding C function is `ioctl(TIOCSWINSZ)'.
-spec resize(handle(), {Rows :: pos_integer(), Columns :: pos_integer()}) ->
          ok | {error, closed | no_pty | {badarg, binary()}}.
resize(Handle, Size) ->
    case causeway_process_options:size(Size) of
        {ok, _} -> ask(Handle, {resize, Size}, {error, closed});
        {error, _} = Error -> Error
    end.

%% @doc The number of the program's process; undefined when the handle has ended.
-spec os_pid(handle()) -> pos_integer() | undefined.
os_pid(Handle) ->
    ask(Handle, os_pid, undefined).

ask(Handle, Request, Closed) ->
    try
        gen_server:call(Handle, {causeway_process, Request}, infinity)
    catch
        exit:{calling_self, _} -> refuse_own();
        exit:{_, {gen_server, call, _}} -> Closed
    end.

%% A callback runs in the process of its handle, which answers others only.
-spec refuse_own() -> no_return().
refuse_own() ->
    erlang:error({calling_self, <<"a callback cannot wait for the process that it runs in: "
                                  "ask from another one, as by spawn">>}).

%% @doc Runs a program to its end. The same as `run(Command, [], #{})'.
-spec run(text()) -> {ok, output()} | {error, term()}.
run(Command) ->
    run(Command, []).

%% @doc Runs a program to its end. The same as `run(Command, Arguments, #{})'.
-spec run(text(), [text()]) -> {ok, output()} | {error, term()}.
run(Command, Arguments) ->
    run(Command, Arguments, #{}).

%% @doc Runs a program to its end and collects its output.
%%
%% Options are those of {@link open/3}, and `input', what it reads, nothing by default; `run_timeout' in milliseconds;
%% `max_output', how many bytes of both outputs may be collected, 64 MB by default. What is more, or takes longer, is
%% `{error, {too_much, Output}}' with as much as that, or `{error, {timeout, Output}}' with what was there, and the
%% program is ended. `{error, {closed, Output}}' where somebody else has ended its handle. `run_timeout' is
%% `infinity' by default. Output is a map of `stdout' and `stderr'.
-spec run(text(), [text()], options()) -> {ok, output()} | {error, term()}.
run(Command, Arguments, Options) ->
    causeway_process_run:run(Command, Arguments, Options).

%% @doc The guardians' executable.
-spec guardian_path() -> binary().
guardian_path() ->
    causeway_process_helper:path().

%% @doc The same as {@link guardian_path/0}.
-spec muontrap_path() -> binary().
muontrap_path() ->
    guardian_path().
