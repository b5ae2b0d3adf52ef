%% @doc A Python context: a process under a supervisor, with one native thread that runs Python.
%%
%% The process owns the thread: when it ends, for whatever reason, so does the thread, and who waits
%% for an answer gets one. Calls do not pass through the process; it only arms the BEAM's poll set while
%% the thread is idle, and logs.
-module(py_context).

-behaviour(gen_server).

-export([start_link/1, stop/1, stop/2, stats/1, diagnose/1, interrupt/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2, code_change/3, format_status/1]).
-export_type([options/0, mode/0]).

-type mode() :: worker | subinterp | owngil.
%% How a context is set apart from others. `worker': it shares the main interpreter, its modules and its lock with
%% every other worker. `subinterp': an interpreter with modules of its own, and the lock of all. `owngil': a lock of
%% its own too, so that it runs in parallel with others; from Python 3.12 on, else `{error, {unsupported, Text}}'.
%% Extension modules that do not support this are refused by Python with an ImportError.
-type options() :: #{id => integer(),
                     mode => mode(),
                     pool => pos_integer(),
                     name => atom(),
                     max_connections => non_neg_integer(),
                     max_queue => pos_integer(),
                     linger => non_neg_integer() | infinity,
                     app_module => py:name(),
                     app_callable => py:name(),
                     setup_code => iodata(),
                     factory => {Module :: py:name(), Name :: py:name()}}.
%% `id': a number by which logs and counters name the context (0). `mode': see there (`worker'). `name': by
%% which its process is registered. `pool': a place in the default pool, for the supervisor of that.
%% `max_connections': descriptors that the context serves at once (10,000). `max_queue': calls that may wait
%% (65,536); more get `{error, {overloaded, Text}}'. `linger': milliseconds that the idle thread polls by
%% itself before the BEAM does it (5). `app_module', `app_callable': a module and the name of an object in it
%% that becomes `_reactor_app' in `__main__' and among the names of `setup_code'. `setup_code': Python that
%% runs before the first connection or call. `factory': what makes the protocols of this context; so does a
%% call of `set_protocol_factory' in `setup_code'. Without either it is the factory of the interpreter, which
%% all workers share.

%% How long a stopping context waits for its thread; what Python executes is interrupted meanwhile.
-define(PATIENCE, 1000).
%% How long a diagnosis waits for Python's lock.
-define(LOCK_PATIENCE, 800).

%% @doc Starts a context and its thread, and waits until Python is ready on it and the setup code has run.
%%
%% Errors: `{bad_option, Option, Value}', `{badarg, Text}' where the options are no map, `{missing_option, Option}',
%% `{unsupported, Text}' for a mode that this Python does not have, `{setup_failed, Reason}' with the exception
%% as of `error => map', `{no_thread, Reason}', `{start_failed, Text}', `{already_started, Pid}' for a name,
%% `{pool_mode, Text}' and `{pool_place_taken, Pid}' for a place in the pool.
-spec start_link(options()) -> {ok, pid()} | {error, term()}.
start_link(#{name := Name} = Options) when is_atom(Name) ->
    gen_server:start_link({local, Name}, ?MODULE, Options, []);
start_link(#{} = Options) ->
    gen_server:start_link(?MODULE, Options, []);
start_link(Options) ->
    py_call:badarg("the options of a context are a map, such as #{mode => worker}, and not ~0tP", [Options, 20]).

%% @doc Stops a context at once: what Python executes there is interrupted, connections are closed, who waits for an
%% answer gets `{error, {context_stopped, _}}'. Waits a second at most for Python; native code that does not return is
%% logged, and its thread ends later. Raises `badarg' for a process that is no context, and exits as
%% `gen_server:stop/1' does for one that has ended.
-spec stop(pid() | atom()) -> ok.
stop(Context) ->
    refuse_other(Context, stop, [Context]),
    gen_server:stop(Context).

%% @doc Stops a context when its connections have written what they have to, at the latest after so many
%% milliseconds. Until then it serves calls, but takes no more connections. One that has ended is no error;
%% `{error, {badarg, _}}' for what is no pid or no time, and as {@link stop/1} for another process.
-spec stop(pid(), timeout()) -> ok | {error, term()}.
stop(Context, Timeout) when is_pid(Context), Timeout =:= infinity orelse (is_integer(Timeout) andalso Timeout >= 0) ->
    refuse_other(Context, stop, [Context, Timeout]),
    try
        _ = gen_server:call(Context, {drain, Timeout}, infinity),
        gen_server:stop(Context)
    catch
        %% Somebody else has stopped it meanwhile, or long ago.
        exit:_ -> ok
    end;
stop(Context, Timeout) ->
    {error, {badarg, py_call:error_text("stop needs a context's pid and milliseconds or infinity, not ~tP, ~tP",
                                        [Context, 8, Timeout, 8])}}.

%% @doc Counters of a context, since it has started.
%%
%% <dl>
%% <dt>`id', `max_connections'</dt><dd>The options.</dd>
%% <dt>`calls', `queued', `refused'</dt><dd>Calls that were begun, with those of the setup code; that wait now; that got
%% `{error, {overloaded, _}}'.</dd>
%% <dt>`active_connections', `total_connections', `listeners'</dt><dd>Connections and datagram sockets now, and ever;
%% listening sockets now.</dd>
%% <dt>`total_requests', `bytes_in', `bytes_out'</dt><dd>Calls of `data_received', and bytes of all connections.</dd>
%% <dt>`errors'</dt><dd>Exceptions of protocols, and reads, accepts and datagrams that failed.</dd>
%% <dt>`callback_us'</dt><dd>Microseconds in protocols.</dd>
%% <dt>`gil_wait_us', `gil_hold_us'</dt><dd>Microseconds for which the thread has waited for Python's lock at the beginning
%% of its turns, and those turns' time. While Python waits for Erlang it is in none; other waits of Python, which give
%% the lock to others meanwhile, are in it.</dd>
%% <dt>`batches', `read_waits', `parks'</dt><dd>Turns with Python's lock; waits in the thread's own poller; times that it
%% went to sleep.</dd>
%% </dl>
%%
%% It is asked of the context's process, which never waits for Python. Raises `badarg' for a process that is
%% no context, and exits as `gen_server:call/2' does for one that has ended.
-spec stats(pid() | atom()) -> #{atom() => integer()}.
stats(Context) ->
    refuse_other(Context, stats, [Context]),
    gen_server:call(Context, stats).

%% A process that is something else would be stopped all the same, or not know what it is asked. One that has ended is left
%% to gen_server's errors.
refuse_other(Name, Function, Arguments) when is_atom(Name) ->
    refuse_other(whereis(Name), Function, Arguments);
refuse_other(Pid, Function, Arguments) when is_pid(Pid), node(Pid) =:= node() ->
    case is_process_alive(Pid) andalso proc_lib:translate_initial_call(Pid) of
        false -> ok;
        {?MODULE, init, 1} -> ok;
        _ -> causeway_badarg:raise(?MODULE, Function, Arguments, #{1 => <<"is no context">>})
    end;
refuse_other(_, _, _) ->
    ok.

%% @doc What a context executes: `activity' is `call', `callback' or `idle'; `running_ms' for how long, for a
%% callback since its turn began; `call' the `{Module, Function}' of the call in hand, `eval', `exec' or `undefined';
%% `stack' a list of `#{file, line, function, code}', the outermost call first. Both are `unavailable' where native
%% code keeps Python's lock. `queued' is how many calls wait, `active_connections' how many connections there are.
%% Answers within a second, whatever Python does; `{error, {no_context, _}}' where there is none, and
%% `{error, {diagnosis_failed, _}}' where it cannot be asked.
-spec diagnose(pid() | atom()) -> {ok, #{atom() => term()}} | {error, term()}.
diagnose(Name) when is_atom(Name) ->
    case whereis(Name) of
        undefined -> {error, {no_context, py_call:error_text("~p is the name of no running context", [Name])}};
        Context -> diagnose(Context)
    end;
diagnose(Context) ->
    case py_call:native(Context) of
        {ok, Native} ->
            %% In a process of its own: an answer that is late must not stay in the caller's mailbox.
            {Pid, Monitor} = spawn_monitor(fun() -> exit({diagnosis, ask(Native)}) end),
            receive
                {'DOWN', Monitor, process, Pid, {diagnosis, Diagnosis}} -> {ok, Diagnosis};
                {'DOWN', Monitor, process, Pid, Reason} ->
                    {error, {diagnosis_failed, py_call:error_text("what asked the context has ended: ~tP", [Reason, 8])}}
            end;
        {error, _} = Error ->
            Error
    end.

ask(Native) ->
    Tag = make_ref(),
    Diagnosis = causeway_nif:context_diagnose(Native, Tag),
    receive
        {Tag, Stack, Call} -> Diagnosis#{stack => Stack, call => Call}
    after ?LOCK_PATIENCE -> Diagnosis#{stack => unavailable, call => unavailable}
    end.

%% @doc Interrupts what a context executes, and returns at once; see {@link py:interrupt/1}.
-spec interrupt(pid()) -> ok | py:error().
interrupt(Context) ->
    case py_call:native(Context) of
        {ok, Native} -> interrupted(causeway_nif:context_interrupt(Native));
        {error, _} = Error -> Error
    end.

interrupted(ok) -> ok;
interrupted(idle) -> {error, {idle, <<"the context executes nothing that could be interrupted">>}}.

%% @private
init(Options) ->
    process_flag(trap_exit, true),
    case check(Options) of
        ok -> start_thread(Options);
        {error, Reason} -> {stop, Reason}
    end.

start_thread(Options) ->
    Linger = case maps:get(linger, Options, 5) of
                 infinity -> -1;
                 Milliseconds -> Milliseconds
             end,
    case causeway_nif:context_start(maps:get(id, Options, 0), maps:get(mode, Options, worker),
                                    maps:get(max_connections, Options, 10000), Linger,
                                    maps:get(max_queue, Options, 65536)) of
        {error, {unsupported, _} = Reason} -> {stop, Reason};
        {error, Reason} -> {stop, {no_thread, Reason}};
        Native -> await_thread(Native, Options)
    end.

await_thread(Native, Options) ->
    receive
        {causeway, started} ->
            case enter(Native, Options) of
                ok ->
                    {ok, #{native => Native, options => Options, drains => #{}}};
                {error, Reason} ->
                    stop_thread(Native),
                    {stop, Reason}
            end;
        {causeway, {start_failed, Text}} ->
            {stop, {start_failed, Text}}
    end.

%% The setup code finds the virtual environment of the pool. One that is activated meanwhile reaches only those in
%% the table: hence the second look.
enter(Native, #{pool := _} = Options) ->
    Venv = py_venv:take_over(Native, none),
    case set_up_and_register(Native, Options) of
        ok ->
            _ = py_venv:take_over(Native, Venv),
            ok;
        Error ->
            Error
    end;
enter(Native, Options) ->
    set_up_and_register(Native, Options).

set_up_and_register(Native, Options) ->
    case setup(Native, Options) of
        ok -> py_contexts:register(self(), Native, maps:with([pool, mode], Options));
        {error, Reason} -> {error, {setup_failed, Reason}}
    end.

%% All of it on behalf of this process; what sets a protocol factory here sets that of this context.
setup(Native, Options) ->
    run_setup(Native, [app_code(Options), maps:get(setup_code, Options, []), factory_code(Options)]).

run_setup(_Native, []) ->
    ok;
run_setup(Native, [[] | Rest]) ->
    run_setup(Native, Rest);
run_setup(Native, [Code | Rest]) ->
    Request = {setup, {exec, unicode:characters_to_binary(Code)}},
    case py_call:run(Native, Request, #{timeout => infinity, error => map}) of
        ok -> run_setup(Native, Rest);
        {error, Reason} -> {error, Reason}
    end.

app_code(#{app_module := Module, app_callable := Name}) ->
    ["import erlang._setup\n_reactor_app = erlang._setup.load_app(", literal(Module), ", ", literal(Name), ")\n"];
app_code(_Options) ->
    [].

factory_code(#{factory := {Module, Name}}) ->
    ["import erlang._setup\nerlang._setup.use_factory(", literal(Module), ", ", literal(Name), ")\n"];
factory_code(_Options) ->
    [].

%% A Python expression for a name, whatever is in it.
literal(Name) ->
    Bytes = if is_atom(Name) -> atom_to_binary(Name); true -> unicode:characters_to_binary(Name) end,
    ["bytes.fromhex('", [io_lib:format("~2.16.0b", [Byte]) || <<Byte>> <= Bytes], "').decode()"].

check(Options) ->
    Checks = [{id, fun is_integer/1},
              {mode, fun is_mode/1},
              {pool, fun(V) -> is_integer(V) andalso V > 0 end},
              {name, fun is_atom/1},
              {max_connections, fun(V) -> is_integer(V) andalso V >= 0 end},
              {max_queue, fun(V) -> is_integer(V) andalso V > 0 end},
              {linger, fun(V) -> V =:= infinity orelse (is_integer(V) andalso V >= 0) end},
              {setup_code, fun(V) -> is_binary(V) orelse is_list(V) end},
              {app_module, fun is_name/1},
              {app_callable, fun is_name/1},
              {factory, fun is_factory/1}],
    Wrong = [{bad_option, Key, Value} || {Key, Value} <- maps:to_list(Options),
                                         not accepted(lists:keyfind(Key, 1, Checks), Value)],
    Halves = [{missing_option, Missing} || {Given, Missing} <- [{app_module, app_callable}, {app_callable, app_module}],
                                           is_map_key(Given, Options), not is_map_key(Missing, Options)],
    case Wrong ++ Halves of
        [] -> ok;
        [First | _] -> {error, First}
    end.

is_factory({Module, Name}) -> is_name(Module) andalso is_name(Name);
is_factory(_Other) -> false.

is_name(Name) when is_atom(Name) -> true;
is_name(Name) ->
    try unicode:characters_to_binary(Name) of
        Binary -> is_binary(Binary)
    catch
        error:badarg -> false
    end.

is_mode(Mode) -> lists:member(Mode, [worker, subinterp, owngil]).

accepted(false, _Value) -> false;
accepted({_Key, Check}, Value) -> Check(Value).

%% @private
handle_call(stats, _From, #{native := Native} = State) ->
    {reply, causeway_nif:context_stats(Native), State};
handle_call({drain, Timeout}, From, #{native := Native, drains := Drains} = State) ->
    case causeway_nif:context_drain(Native) of
        ok -> {noreply, State#{drains := Drains#{limit(Timeout) => From}}};
        {error, closed} -> {reply, ok, State}
    end;
handle_call(_Request, _From, State) ->
    {reply, {error, unknown_request}, State}.

%% Names the drain, and ends it when its time is over.
limit(infinity) -> make_ref();
limit(Timeout) -> erlang:start_timer(Timeout, self(), drain).

%% @private
handle_cast(_Request, State) ->
    {noreply, State}.

%% @private
handle_info({causeway, idle}, #{native := Native} = State) ->
    ok = causeway_nif:context_watch(Native),
    {noreply, State};
handle_info({select, Native, undefined, ready_input}, #{native := Native} = State) ->
    ok = causeway_nif:context_wake(Native),
    {noreply, State};
handle_info({causeway, {log, Level, Report}}, #{options := Options} = State) ->
    py_log:report(Level, Report, Options),
    {noreply, State};
handle_info({causeway, drained}, #{drains := Drains} = State) ->
    maps:foreach(fun(Timer, From) ->
                         _ = erlang:cancel_timer(Timer),
                         gen_server:reply(From, drained)
                 end, Drains),
    {noreply, State#{drains := #{}}};
handle_info({timeout, Timer, drain}, #{drains := Drains} = State) ->
    case maps:take(Timer, Drains) of
        {From, Others} ->
            gen_server:reply(From, timeout),
            {noreply, State#{drains := Others}};
        error ->
            {noreply, State}
    end;
handle_info({causeway, stopped}, State) ->
    %% Nobody asked for it: the thread could not go on.
    {stop, thread_ended, State};
handle_info({'EXIT', _From, normal}, State) ->
    {noreply, State};
handle_info({'EXIT', _From, Reason}, State) ->
    {stop, Reason, State};
handle_info(_Message, State) ->
    {noreply, State}.

%% @private
terminate(_Reason, #{native := Native}) ->
    ok = py_contexts:unregister(self()),
    stop_thread(Native).

%% @private
code_change(_OldVersion, State, _Extra) ->
    {ok, State}.

stop_thread(Native) ->
    ok = causeway_nif:context_stop(Native),
    receive
        {causeway, stopped} -> ok
    after ?PATIENCE ->
        py_logger:log(warning, "A Python context has stopped, but its thread is still in native code "
                      "or catches every interruption; it will end when that returns.", [])
    end.

%% @private
format_status(#{reason := _} = AtItsEnd) ->
    AtItsEnd;
format_status(#{state := #{native := Native, options := Options}} = Status) ->
    Status#{state := [{"Options", Options}, {"Statistics", causeway_nif:context_stats(Native)}]}.
