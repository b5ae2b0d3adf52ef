%% @private
%% @doc Virtual environments: which one the running Python uses, and how one is made.
-module(py_venv).

-export([activate/1, take_over/2, activate_in/2, deactivate/0, deactivate_in/1, info/0, ensure/3, shown/1]).
-export_type([requirements/0, options/0]).

-type requirements() :: [string() | binary()] | {requirements, file:name_all()}.
-type options() :: #{installer => pip | uv | auto,
                     extra_args => [string() | binary()],
                     timeout => timeout(),
                     activate => boolean(),
                     force => boolean()}.

-include_lib("kernel/include/logger.hrl").

-define(PYTHON, <<"erlang._venv">>).
%% In a persistent term: the environment of the pool, for contexts that enter it later. Python keeps it while the
%% application is stopped, too.
-define(OF_POOL, {?MODULE, of_pool}).

%% @doc Makes an environment the active one of the interpreters of the default pool.
-spec activate(term()) -> ok | py:error().
activate(Directory) ->
    case path(Directory) of
        {ok, Path} -> change_pool(Path, fun(Target) -> activate_at(Target, Path) end);
        error -> no_path(Directory)
    end.

%% First told to those that enter the pool meanwhile, then done in those that are there.
change_pool(Wanted, Change) ->
    Before = of_pool(),
    persistent_term:put(?OF_POOL, Wanted),
    case in_all(pool(), Change) of
        ok ->
            ok;
        Error ->
            persistent_term:put(?OF_POOL, Before),
            Error
    end.

of_pool() -> persistent_term:get(?OF_POOL, none).

%% @doc Gives a context that enters the pool the environment that is active there, unless it has that; returns
%% which it is. Where it cannot be had, the context works without, and logger is told.
-spec take_over(causeway_nif:context(), Known :: binary() | none) -> binary() | none.
take_over(Native, Known) ->
    case of_pool() of
        Known ->
            Known;
        none ->
            ok = warn(deactivate_at({ok, Native}), Known),
            take_over(Native, none);
        Path ->
            ok = warn(plain(call({ok, Native}, <<"resume">>, [Path])), Path),
            take_over(Native, Path)
    end.

warn(ok, _Path) ->
    ok;
warn({error, Reason}, Path) ->
    ?LOG_WARNING("A Python context enters the pool without its virtual environment ~ts: ~tp", [shown(Path), Reason],
                 #{source => venv, venv => Path}).

%% @doc The same for the interpreter of a context.
-spec activate_in(pid(), term()) -> ok | py:error().
activate_in(Context, Directory) ->
    case path(Directory) of
        {ok, Path} -> activate_at(py_call:native(Context), Path);
        error -> no_path(Directory)
    end.

activate_at(Target, Path) -> plain(call(Target, <<"activate">>, [Path])).

%% @doc Takes back what {@link activate/1} has done.
-spec deactivate() -> ok | py:error().
deactivate() ->
    change_pool(none, fun deactivate_at/1).

%% @doc Takes back what {@link activate_in/2} has done.
-spec deactivate_in(pid()) -> ok | py:error().
deactivate_in(Context) ->
    deactivate_at(py_call:native(Context)).

deactivate_at(Target) -> plain(call(Target, <<"deactivate">>, [])).

%% One target for each interpreter of the pool: workers share theirs.
pool() ->
    case py_contexts:pool_mode() of
        Shared when Shared =:= worker; Shared =:= none -> [py_call:pool()];
        _ -> [py_call:native(Context) || Index <- lists:seq(1, py_contexts:pool_size()),
                                         {ok, Context} <- [py_contexts:at(Index)]]
    end.

in_all([Target | Rest], Change) ->
    case Change(Target) of
        ok -> in_all(Rest, Change);
        Error -> Error
    end;
in_all([], _Change) ->
    ok.

%% @doc Which environment is active.
-spec info() -> {ok, map()} | py:error().
info() ->
    call(py_call:pool(), <<"info">>, []).

%% What is answered in Python as it is to be answered here.
plain({ok, Answer}) -> Answer;
plain(Error) -> Error.

call({ok, Target}, Function, Arguments) ->
    py_call:run(Target, {call, ?PYTHON, Function, Arguments, #{}}, #{timeout => infinity});
call(Error, _Function, _Arguments) ->
    Error.

%% @doc Makes sure that an environment is there and has what is required, and makes it the active one.
-spec ensure(term(), term(), term()) -> ok | {error, term()}.
ensure(Directory, Requirements, Options) ->
    case {path(Directory), requirements(Requirements), wrong_options(Options)} of
        {{ok, Path}, {ok, Arguments, Contents}, []} ->
            case make(Path, Arguments, Contents, Options) of
                ok -> activate_if(maps:get(activate, Options, true), Path);
                {error, _} = Error -> Error
            end;
        {error, _, _} ->
            no_path(Directory);
        {_, {error, _} = Error, _} ->
            Error;
        {_, _, Wrong} ->
            badarg("wrong options of ensure_venv: ~tP; there are installer (pip, uv or auto), extra_args (a list of "
                   "strings or binaries), timeout (milliseconds or infinity), activate and force (booleans)",
                   [Wrong, 8])
    end.

activate_if(true, Path) -> activate(Path);
activate_if(false, _Path) -> ok.

make(Path, Arguments, Contents, Options) ->
    case {info(), installer(maps:get(installer, Options, auto))} of
        {{ok, #{<<"base_executable">> := Python, <<"version">> := Version}}, {ok, Installer}} ->
            [Major, Minor | _] = binary:split(Version, <<".">>, [global]),
            Extra = [argument(Argument) || Argument <- maps:get(extra_args, Options, [])],
            Asked = {Arguments, Contents, Extra, Major, Minor},
            py_venv_maker:make(#{directory => Path,
                                 python => Python,
                                 version => <<Major/binary, ".", Minor/binary>>,
                                 installer => Installer,
                                 arguments => Extra ++ Arguments,
                                 is_empty => Arguments =:= [],
                                 digest => binary:encode_hex(erlang:md5(term_to_binary(Asked))),
                                 force => maps:get(force, Options, false),
                                 timeout => maps:get(timeout, Options, infinity)});
        {{ok, _}, Error} ->
            Error;
        {Error, _} ->
            Error
    end.

installer(pip) ->
    {ok, pip};
installer(Wanted) ->
    case {os:find_executable("uv"), Wanted} of
        {false, auto} -> {ok, pip};
        {false, uv} -> {error, {no_installer, <<"uv is not on the PATH of this node: install it, or use the option "
                                                "installer => pip">>}};
        {Uv, _} -> {ok, {uv, causeway_python:bytes(Uv)}}
    end.

%% The arguments for the installer, and what a file of requirements says.
requirements({requirements, File}) ->
    case path(File) of
        {ok, Path} -> requirements_file(Path);
        error -> wrong_requirements({requirements, File})
    end;
requirements(File) when is_binary(File); is_list(File), File =/= [], is_integer(hd(File)) ->
    requirements({requirements, File});
requirements(List) when length(List) >= 0 ->
    Arguments = [requirement(Requirement) || Requirement <- List],
    case lists:member(error, Arguments) of
        false -> {ok, Arguments, none};
        true -> wrong_requirements(List)
    end;
requirements(Other) ->
    wrong_requirements(Other).

requirements_file(Path) ->
    case file:read_file(Path) of
        {ok, Contents} ->
            {ok, [<<"-r">>, Path], Contents};
        {error, Reason} ->
            {error, {no_requirements,
                     py_call:error_text("the file of requirements ~ts cannot be read: ~ts. Single requirements are "
                                        "a list", [shown(Path), file:format_error(Reason)])}}
    end.

%% What begins with a hyphen would be an option of the installer.
requirement(Requirement) ->
    case argument(Requirement) of
        error ->
            error;
        Argument ->
            case string:trim(Argument) of
                <<>> -> error;
                <<"-", _/binary>> -> error;
                Trimmed -> Trimmed
            end
    end.

wrong_requirements(Requirements) ->
    badarg("the requirements are a list of strings or binaries that do not begin with a hyphen, as <<\"h11>=0.14\">>, "
           "or {requirements, File}, not ~tP", [Requirements, 8]).

wrong_options(Options) when is_map(Options) ->
    [Option || Option <- maps:to_list(Options), not is_option(Option)];
wrong_options(Options) ->
    [Options].

is_option({installer, Installer}) -> lists:member(Installer, [pip, uv, auto]);
is_option({extra_args, Arguments}) when length(Arguments) >= 0 ->
    not lists:any(fun(Argument) -> argument(Argument) =:= error end, Arguments);
is_option({timeout, Timeout}) -> Timeout =:= infinity orelse is_integer(Timeout) andalso Timeout >= 0;
is_option({activate, Activate}) -> is_boolean(Activate);
is_option({force, Force}) -> is_boolean(Force);
is_option(_Other) -> false.

%% What can be an argument of a program: text without a zero.
argument(Text) when is_binary(Text); is_list(Text) ->
    try unicode:characters_to_binary(Text) of
        <<_, _/binary>> = Binary ->
            case binary:match(Binary, <<0>>) of
                nomatch -> Binary;
                _ -> error
            end;
        _ ->
            error
    catch
        error:badarg -> error
    end;
argument(_Other) ->
    error.

%% An absolute path without dots: one directory has one name here, for whoever waits for it. A binary need not
%% be UTF-8.
path(Name) ->
    Path = if
               is_binary(Name), Name =/= <<>> -> Name;
               true -> argument(Name)
           end,
    case is_binary(Path) andalso binary:match(Path, <<0>>) =:= nomatch of
        true -> {ok, filename:join(without_dots(filename:split(filename:absname(Path)), []))};
        false -> error
    end.

without_dots([<<".">> | Rest], Before) -> without_dots(Rest, Before);
without_dots([<<"..">> | Rest], [Root]) -> without_dots(Rest, [Root]);
without_dots([<<"..">> | Rest], [_ | Before]) -> without_dots(Rest, Before);
without_dots([Part | Rest], Before) -> without_dots(Rest, [Part | Before]);
without_dots([], Before) -> lists:reverse(Before).

%% @doc A path or a line of output as text, which it need not be.
-spec shown(binary()) -> binary().
shown(Bytes) ->
    case unicode:characters_to_binary(Bytes) of
        Bytes -> Bytes;
        _ -> unicode:characters_to_binary(Bytes, latin1)
    end.

no_path(Directory) ->
    badarg("the directory of a virtual environment is a string or a binary, not ~tP", [Directory, 8]).

badarg(Format, Arguments) ->
    {error, {badarg, py_call:error_text(Format, Arguments)}}.
