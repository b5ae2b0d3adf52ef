%% @private
%% @doc Who starts the helper of this node, `causeway-spawn', when the first program is to be started, and another one
%% where it was killed.
-module(causeway_process_helper).

-behaviour(gen_server).

-export([start_link/0, start/0, path/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-type state() :: #{waiting := [gen_server:from()]}.

%% @doc Starts the process that has the helper.
-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @doc Starts a helper.
-spec start() -> ok | {error, term()}.
start() ->
    try
        gen_server:call(?MODULE, start, infinity)
    catch
        exit:_ -> {error, {not_started, <<"the application causeway does not run: "
                                          "application:ensure_all_started(causeway)">>}}
    end.

%% @doc The helper's executable.
-spec path() -> binary().
path() ->
    causeway_python:bytes(filename:join(causeway_python:priv_dir(), "causeway-spawn")).

%% @private
-spec init([]) -> {ok, state()}.
init([]) ->
    {ok, #{waiting => []}}.

%% @private
handle_call(start, From, #{waiting := []} = State) ->
    case causeway_nif:process_helper(path()) of
        ok -> {noreply, State#{waiting := [From]}};
        {error, Reason} -> {reply, failed(Reason), State}
    end;
handle_call(start, From, #{waiting := Waiting} = State) ->
    {noreply, State#{waiting := [From | Waiting]}}.

%% @private
handle_cast(_Request, State) ->
    {noreply, State}.

%% @private
handle_info({causeway, {helper, Result}}, #{waiting := Waiting} = State) ->
    Reply = case Result of
                ok -> ok;
                {error, Reason} -> failed(Reason)
            end,
    lists:foreach(fun(From) -> gen_server:reply(From, Reply) end, Waiting),
    {noreply, State#{waiting := []}};
handle_info(_Message, State) ->
    {noreply, State}.

failed(Reason) ->
    Text = unicode:characters_to_binary(["the helper ", py_venv:shown(path()), " could not be started: ", why(Reason)]),
    {error, {helper, Reason, Text}}.

why(enoent) -> "there is no such file, which make native makes";
why(eagain) -> "there may be no more processes or threads (RLIMIT_NPROC, or a limit of the control group)";
why(Reason) -> file:format_error(Reason).
