%% @private
%% @doc Erlang functions that Python calls by name: who they are, and the processes that run them.
-module(py_callbacks).

-behaviour(gen_server).

-export([start_link/0, new_table/0, register/2, register/3, unregister/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).
-export_type([name/0, callable/0]).

-type name() :: binary().
-type callable() :: fun(([term()]) -> term()) | {module(), atom()}.

%% How long the text of an error may be: errors of nested calls hold each other.
-define(TEXT_LIMIT, 1000).
%% The functions by name. The supervisor has it: they outlive this process.
-define(TABLE, ?MODULE).

%% @doc Starts the server.
-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @doc Makes the table of functions, which is the caller's. Causeway's own are in it.
-spec new_table() -> ets:table().
new_table() ->
    Table = ets:new(?TABLE, [named_table, public]),
    true = ets:insert(Table, maps:to_list(causeway_process_python:functions())),
    true = ets:insert(Table, maps:to_list(causeway_rpc_callbacks:functions())),
    Table.

%% @doc Lets Python call a fun by a name; an earlier function of that name is replaced.
-spec register(py:name(), fun(([term()]) -> term())) -> ok | py:error().
register(Name, Fun) when is_function(Fun, 1) ->
    ask(Name, fun(Binary) -> {register, Binary, Fun} end);
register(Name, Fun) ->
    py_call:badarg("register_function needs a name and a fun of one argument, the list of Python's arguments, not "
                   "~tP, ~tP", [Name, 8, Fun, 8]).

%% @doc The same for an exported function.
-spec register(py:name(), module(), atom()) -> ok | py:error().
register(Name, Module, Function) when is_atom(Module), is_atom(Function) ->
    ask(Name, fun(Binary) -> {register, Binary, {Module, Function}} end);
register(Name, Module, Function) ->
    py_call:badarg("register_function needs a name, a module and a function, not ~tP, ~tP, ~tP",
                   [Name, 8, Module, 8, Function, 8]).

%% @doc Takes it back. Calls that run go on.
-spec unregister(py:name()) -> ok | py:error().
unregister(Name) ->
    ask(Name, fun(Binary) -> {unregister, Binary} end).

ask(Name, Request) ->
    case {py_call:text(Name), whereis(?MODULE)} of
        {error, _} ->
            py_call:badarg("the name of a function is an atom, a string or a binary in UTF-8, not ~tP", [Name, 8]);
        {_, undefined} ->
            {error, {not_started, <<"the application causeway does not run: application:ensure_all_started(causeway)">>}};
        {{ok, Binary}, _} ->
            gen_server:call(?MODULE, Request(Binary), infinity)
    end.

%% @private
-spec init([]) -> {ok, no_state}.
init([]) ->
    %% For terminate/2.
    process_flag(trap_exit, true),
    ok = tell_names(),
    {ok, no_state}.

%% @private
handle_call({register, Name, Function}, _From, State) ->
    true = ets:insert(?TABLE, {Name, Function}),
    {reply, tell_names(), State};
handle_call({unregister, Name}, _From, State) ->
    true = ets:delete(?TABLE, Name),
    {reply, tell_names(), State};
handle_call(_Request, _From, State) ->
    {reply, {error, unknown_request}, State}.

%% @private
handle_cast(_Request, State) ->
    {noreply, State}.

%% @private
handle_info({causeway, {call, Callback, Name, Arguments, Caller}}, State) ->
    case ets:lookup(?TABLE, Name) of
        [{Name, Function}] ->
            _ = spawn(fun() -> run(Callback, Function, Arguments, Caller) end),
            ok;
        [] ->
            causeway_nif:callback_answer(Callback, {error, unknown})
    end,
    {noreply, State};
handle_info({causeway, {cancelled, Process}}, State) ->
    %% Nobody waits for it any more. One that traps exits may tidy up.
    exit(Process, shutdown),
    {noreply, State};
handle_info(_Message, State) ->
    {noreply, State}.

%% @private
%% The contexts have stopped just before: their functions are told as well.
terminate(Reason, State) ->
    receive
        {causeway, {cancelled, _Process}} = Message ->
            {noreply, _} = handle_info(Message, State),
            terminate(Reason, State)
    after 0 -> ok
    end.

%% The core answers for names that it does not know without asking us.
tell_names() ->
    causeway_nif:callbacks_update([Name || {Name, _Function} <- ets:tab2list(?TABLE)]).

%% A process of its own, so that it may call Python again, take its time, and fail.
run(Callback, Function, Arguments, Caller) ->
    %% On whose behalf it runs, as Elixir's Task says it.
    is_pid(Caller) andalso put('$callers', [Caller]),
    case causeway_nif:callback_begin(Callback) of
        true -> causeway_nif:callback_answer(Callback, result(Function, Arguments));
        false -> ok
    end.

result(Function, Arguments) ->
    try apply_function(Function, Arguments) of
        Value -> {ok, Value}
    catch
        Class:Reason:Stack -> {error, Class, Reason, text(Class, Reason), [frame(Entry) || Entry <- Stack]}
    end.

apply_function({Module, Function}, Arguments) -> Module:Function(Arguments);
apply_function(Fun, Arguments) -> Fun(Arguments).

text(Class, Reason) ->
    unicode:characters_to_binary(io_lib:format("~ts: ~0tp", [Class, Reason], [{chars_limit, ?TEXT_LIMIT}])).

%% Funs stand in stacks as well, which the type of a stack does not say.
-dialyzer({no_match, frame/1}).
frame({Module, Function, Arity, Location}) ->
    #{module => Module,
      function => Function,
      arity => if is_list(Arity) -> length(Arity); true -> Arity end,
      file => file(proplists:get_value(file, Location)),
      line => case proplists:get_value(line, Location) of
                  Line when is_integer(Line) -> Line;
                  _ -> 0
              end};
frame({Fun, Arguments, Location}) when is_function(Fun) ->
    {module, Module} = erlang:fun_info(Fun, module),
    {name, Name} = erlang:fun_info(Fun, name),
    frame({Module, Name, Arguments, Location}).

%% Whoever raises with a stack of his own may have put anything there.
file(Name) ->
    try unicode:characters_to_binary(Name) of
        File when is_binary(File) -> File;
        _ -> <<>>
    catch
        error:badarg -> <<>>
    end.
