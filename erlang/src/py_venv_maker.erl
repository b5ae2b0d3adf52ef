%% @private
%% @doc Makes one virtual environment and installs into it, on behalf of one process.
%%
%% An environment that is complete has a file with a hash of what was asked for, which is written last. One that is
%% being made has another file: who finds that, and nobody at work, makes it anew. The programs have a directory for
%% temporary files of their own: installers that are killed leave theirs.
-module(py_venv_maker).

-behaviour(gen_server).

-export([make/1, start_link/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).
-export_type([plan/0]).

-type plan() :: #{directory := binary(),
                  python := binary(),
                  version := binary(),
                  installer := pip | {uv, binary()},
                  arguments := [binary()],
                  is_empty := boolean(),
                  digest := binary(),
                  force := boolean(),
                  timeout := timeout()}.

-define(TABLE, py_venvs).
-define(COMPLETE, <<"causeway-complete">>).
-define(UNFINISHED, <<"causeway-unfinished">>).
-define(TEMPORARY, <<"causeway-temporary">>).
%% The length of a line of output, and how many of them an error tells.
-define(LONGEST_LINE, 4096).
-define(LAST_LINES, 50).
%% How long the end of a killed program is waited for, in milliseconds.
-define(PATIENCE, 5000).

%% @doc Makes the environment unless it is there as it is wanted. Who asks for one that another process is making
%% waits for that.
-spec make(plan()) -> ok | {error, term()}.
make(Plan) ->
    case is_complete(Plan) of
        true ->
            ok;
        false ->
            case causeway_sup:start_child(py_venv_sup, Plan#{caller => self()}) of
                {ok, Pid} -> ask(Pid);
                {error, _} = Error -> Error
            end
    end.

ask(Pid) ->
    try
        gen_server:call(Pid, make, infinity)
    catch
        exit:{_Reason, _} -> {error, {not_started, <<"the application causeway was stopped meanwhile">>}}
    end.

is_complete(#{force := true}) ->
    false;
is_complete(#{directory := Directory, digest := Digest}) ->
    file:read_file(filename:join(Directory, ?COMPLETE)) =:= {ok, Digest} andalso is_usable(Directory).

is_usable(Directory) ->
    filelib:is_regular(filename:join(Directory, <<"pyvenv.cfg">>)) andalso filelib:is_regular(python_of(Directory)).

python_of(Directory) -> filename:join([Directory, <<"bin">>, <<"python">>]).

%% @private
-spec start_link(map()) -> {ok, pid()} | {error, term()}.
start_link(Plan) ->
    gen_server:start_link(?MODULE, Plan, []).

%% @private
init(#{caller := Caller} = Plan) ->
    process_flag(trap_exit, true),
    {ok, #{plan => Plan,
           caller => erlang:monitor(process, Caller),
           from => undefined,
           %% Who makes this environment now, while we wait for that.
           holder => undefined,
           %% Whether the directory is ours to remove.
           is_half_made => false,
           %% The directory of its programs' temporary files.
           temporary => undefined,
           stage => undefined,
           command => [],
           port => undefined,
           lines => []}}.

%% @private
handle_call(make, From, #{plan := #{timeout := Timeout}} = State) ->
    _ = Timeout =:= infinity orelse erlang:send_after(Timeout, self(), timeout),
    take_turn(State#{from := From}).

%% @private
handle_cast(_Request, State) ->
    {noreply, State}.

%% @private
handle_info({Port, {data, {_EndOfLine, Line}}}, #{port := Port, lines := Lines} = State) ->
    Text = py_venv:shown(Line),
    ok = log(Text, State),
    {noreply, State#{lines := lists:sublist([Text | Lines], ?LAST_LINES)}};
handle_info({Port, {exit_status, 0}}, #{port := Port, stage := venv} = State) ->
    install(State#{port := undefined});
handle_info({Port, {exit_status, 0}}, #{port := Port, stage := install} = State) ->
    complete(State#{port := undefined});
handle_info({Port, {exit_status, Status}}, #{port := Port} = State) ->
    failed(Status, State#{port := undefined});
handle_info({'DOWN', Monitor, process, Holder, _Reason}, #{holder := {Monitor, Holder}} = State) ->
    _ = ets:delete_object(?TABLE, {directory(State), Holder}),
    take_turn(State#{holder := undefined});
handle_info({'DOWN', Caller, process, _Pid, _Reason}, #{caller := Caller} = State) ->
    {stop, normal, State};
handle_info(timeout, State) ->
    answer({error, timeout}, State);
handle_info(_Message, State) ->
    {noreply, State}.

%% @private
terminate(_Reason, State) ->
    _ = clean(State),
    _ = ets:delete_object(?TABLE, {directory(State), self()}),
    ok.

directory(#{plan := #{directory := Directory}}) -> Directory.

%% One process at a time for a directory.
take_turn(State) ->
    Directory = directory(State),
    case ets:insert_new(?TABLE, {Directory, self()}) of
        true ->
            start(State);
        false ->
            case ets:lookup(?TABLE, Directory) of
                [{_, Holder}] -> {noreply, State#{holder := {erlang:monitor(process, Holder), Holder}}};
                [] -> take_turn(State)
            end
    end.

start(#{plan := Plan} = State) ->
    case is_complete(Plan) orelse found(Plan) of
        true -> answer(ok, State);
        nothing -> create(State);
        unusable -> create(remove(State));
        usable -> renew(State);
        {error, _} = Error -> answer(Error, State)
    end.

%% What is there. Only what is an environment, or was to become one, is ever removed.
found(#{directory := Directory, force := Force} = Plan) ->
    IsOurs = has(?COMPLETE, Directory),
    case {has(?UNFINISHED, Directory), is_usable(Directory)} of
        {true, _} -> unusable;
        {false, false} when IsOurs -> unusable;
        {false, false} -> is_free(Directory);
        {false, true} when Force -> unusable;
        {false, true} -> of_version(Plan, IsOurs)
    end.

has(Name, Directory) -> filelib:is_regular(filename:join(Directory, Name)).

is_free(Directory) ->
    case file:list_dir_all(Directory) of
        {error, enoent} -> nothing;
        {ok, []} -> nothing;
        _ -> {error, {not_a_venv, py_call:error_text("~ts is there already and is no virtual environment: remove it, "
                                                     "or name another directory", [py_venv:shown(Directory)])}}
    end.

of_version(#{directory := Directory, version := Version}, IsOurs) ->
    case {version_of(Directory), IsOurs} of
        {Version, _} -> usable;
        {unknown, _} -> usable;
        {_, true} -> unusable;
        {Other, false} ->
            {error, {wrong_python, py_call:error_text("~ts was made for Python ~ts and this node runs ~ts: remove it, "
                                                      "or use the option force => true",
                                                      [py_venv:shown(Directory), Other, Version])}}
    end.

version_of(Directory) ->
    case file:read_file(filename:join(Directory, <<"pyvenv.cfg">>)) of
        {ok, Settings} ->
            case re:run(Settings, "^version(?:_info)?\\s*=\\s*(\\d+\\.\\d+)",
                        [multiline, caseless, {capture, [1], binary}]) of
                {match, [Version]} -> Version;
                nomatch -> unknown
            end;
        {error, _} ->
            unknown
    end.

create(#{plan := #{directory := Directory, python := Python, installer := Installer}} = State) ->
    case prepare(Directory) of
        ok ->
            Command = case Installer of
                          pip -> [Python, <<"-I">>, <<"-X">>, <<"utf8">>, <<"-m">>, <<"venv">>, Directory];
                          {uv, Uv} -> [Uv, <<"venv">>, <<"--allow-existing">>, <<"--python">>, Python, Directory]
                      end,
            run(venv, Command, State#{is_half_made := true});
        {error, Reason} ->
            file_error(Reason, State)
    end.

prepare(Directory) ->
    case filelib:ensure_path(Directory) of
        ok -> file:write_file(filename:join(Directory, ?UNFINISHED), <<>>);
        {error, _} = Error -> Error
    end.

%% What is installed into it from now on makes it another one than it says.
renew(State) ->
    _ = file:delete(filename:join(directory(State), ?COMPLETE)),
    install(State).

install(#{plan := #{is_empty := true}} = State) ->
    complete(State);
install(#{plan := #{directory := Directory, installer := Installer, arguments := Arguments}} = State) ->
    Python = python_of(Directory),
    Command = case Installer of
                  pip ->
                      [Python, <<"-I">>, <<"-X">>, <<"utf8">>, <<"-m">>, <<"pip">>, <<"install">>, <<"--no-input">>,
                       <<"--disable-pip-version-check">>];
                  {uv, Uv} ->
                      [Uv, <<"pip">>, <<"install">>, <<"--python">>, Python]
              end,
    run(install, Command ++ Arguments, State).

%% Written beside it and then renamed: it is there with all it says, or not at all.
complete(#{plan := #{directory := Directory, digest := Digest}} = State) ->
    Complete = filename:join(Directory, ?COMPLETE),
    New = <<Complete/binary, ".new">>,
    _ = file:delete(filename:join(Directory, ?UNFINISHED)),
    case first_error([fun() -> file:write_file(New, Digest) end, fun() -> file:rename(New, Complete) end]) of
        ok -> answer(ok, State#{is_half_made := false});
        {error, Reason} -> file_error(Reason, State)
    end.

first_error([Step | Rest]) ->
    case Step() of
        ok -> first_error(Rest);
        Error -> Error
    end;
first_error([]) ->
    ok.

file_error(Reason, State) ->
    answer({error, {Reason, py_call:error_text("the virtual environment ~ts cannot be written: ~ts",
                                               [py_venv:shown(directory(State)), file:format_error(Reason)])}}, State).

%% Programs

run(Stage, Command, State) ->
    Temporary = filename:join(directory(State), ?TEMPORARY),
    Started = State#{stage := Stage, command := Command, lines := [], temporary := Temporary},
    ok = log(lists:join(" ", [py_venv:shown(Part) || Part <- Command]), Started),
    %% It may be there from a node that ended meanwhile.
    _ = file:del_dir_r(Temporary),
    case file:make_dir(Temporary) of
        ok -> open(Command, Started);
        {error, Reason} -> file_error(Reason, Started)
    end.

open([Program | Arguments], #{temporary := Temporary} = State) ->
    try open_port({spawn_executable, Program},
                  [{args, Arguments}, {env, temporary_files(Temporary)}, {line, ?LONGEST_LINE}, exit_status,
                   stderr_to_stdout, binary, hide]) of
        Port -> {noreply, State#{port := Port}}
    catch
        error:Reason -> failed(Reason, State)
    end.

%% A port takes names of directories as bytes, but variables as characters.
temporary_files(Directory) ->
    Name = case file:native_name_encoding() of
               utf8 -> unicode:characters_to_list(Directory);
               latin1 -> binary_to_list(Directory)
           end,
    [{"TMPDIR", Name} || is_list(Name)].

log(Text, State) ->
    logger:info("~ts", [Text], #{source => venv, venv => directory(State)}).

failed(Status, #{stage := Stage, command := Command, lines := Lines} = State) ->
    Kind = case Stage of
               venv -> venv_failed;
               install -> install_failed
           end,
    answer({error, {Kind, #{command => Command, status => Status, output => lists:reverse(Lines)}}}, State).

%% Nothing is left when the answer comes.
answer(Result, #{from := From} = State) ->
    Cleaned = clean(State),
    ok = gen_server:reply(From, Result),
    {stop, normal, Cleaned}.

clean(#{port := Port} = State) when Port =/= undefined ->
    ok = kill(Port),
    clean(State#{port := undefined});
clean(#{is_half_made := true} = State) ->
    (remove(State))#{is_half_made := false, temporary := undefined};
clean(#{temporary := Temporary} = State) when Temporary =/= undefined ->
    _ = file:del_dir_r(Temporary),
    State#{temporary := undefined};
clean(State) ->
    State.

%% A port's program leads a process group of its own, in which are those that it has started. Closing a port ends
%% none of them.
kill(Port) ->
    case erlang:port_info(Port, os_pid) of
        {os_pid, Process} ->
            _ = os:cmd("kill -9 -" ++ integer_to_list(Process)),
            receive
                {Port, {exit_status, _}} -> ok
            after ?PATIENCE ->
                _ = catch port_close(Port),
                ok
            end;
        undefined ->
            ok
    end.

remove(State) ->
    _ = file:del_dir_r(directory(State)),
    State.
