%% @doc Python from Erlang.
%%
%% Functions run in <em>contexts</em>: processes with a native thread for Python each. Without a context
%% the least busy one of the default pool is taken. Contexts of the mode `worker', the default, share one
%% interpreter and its modules; those of the modes `subinterp' and `owngil' have one each: see
%% {@link start_contexts/1}. The names that `exec/1' defines belong to the calling process.
%%
%% == Terms ==
%% Integers of any size, floats, lists, tuples and maps become what they are in Python. Binaries become
%% `str' when they are valid UTF-8, else `bytes'; `{bytes, Binary}' is `bytes' always. Atoms become
%% `str', but `true', `false' and `none', `nil', `undefined' become `True', `False' and `None', and `nan',
%% `infinity', `neg_infinity' the floats that Erlang does not have. Pids and references become `erlang.Pid' and
%% `erlang.Ref', funs and ports `erlang.Term', which turn into the same term when they come back.
%%
%% Back, `str' and bytes-like objects become binaries, `None' becomes `none', sets become lists, and any other
%% object becomes a reference that keeps it alive and turns into the same object in a later call. All else is
%% copied, in both directions: {@link py_byte_channel} is for bytes that are not to be.
%% What has no form on the other side (improper lists, nesting deeper than 4096, or than the stack of a Python
%% thread has room for, lone surrogates) is an error.
%%
%% == Objects ==
%% A reference can be sent to other processes. It keeps its object alive as long as one of them has it; what was
%% dropped is freed when a context next runs Python. With the option `result => ref' a call returns a
%% reference also to what could be converted, so that large things stay in Python: {@link call_method/3} and
%% {@link getattr/2} use it there, {@link to_term/1} converts it, and `py:call(builtins, repr, [Ref])' shows it.
%%
%% An object can be used in the interpreter that it is of. Where no context is named, a call goes there by itself,
%% if the object is one of its arguments, or of the names of an `eval'; deeper within a term, or with a context that is
%% another's, it is a `ValueError'. When the context ends whose interpreter was its own, the object is lost: then the
%% error is `{context_stopped, _}'.
%%
%% == Errors ==
%% An exception is `{error, {'TypeName', "text"}}'. With the option `error => map' it is
%% `{error, #{type, message, traceback, cause}}', the traceback a list of
%% `#{file, line, function, code}', the outermost call first. Other reasons are `timeout',
%% or a pair of an atom and a binary that says what to do: `{no_context, _}', `{context_stopped, _}',
%% `{overloaded, _}', `{badarg, _}'.
%%
%% A wrong argument is `{error, {badarg, _}}', too. What needs the application says `{error, {no_context, _}}'
%% or `{error, {not_started, _}}' where it does not run. Nothing here raises, but {@link dup_fd/1} and {@link
%% version/0} before its first start (`not_loaded').
%%
%% == Time ==
%% Time-outs are in milliseconds, from 0 to 4,294,967,295, or `infinity'. A function that calls Python blocks
%% its caller, and no scheduler, until the answer is there; those that return at once say so. Without a
%% context it is at most 30 seconds, where nothing else is said.
%%
%% A call that times out, or whose caller dies, is interrupted: Python raises
%% `erlang.CallInterrupted' in it at the next bytecode.
%%
%% == Output ==
%% What Python prints goes to the group leader of the calling process before the call returns. What it writes
%% to `sys.stderr' or logs goes to logger, in the domain `[causeway, python]'.
-module(py).

-export([call/3, call/4, call/5, eval/1, eval/2, eval/3, eval/4, exec/1, exec/2, exec/3]).
-export([cast/3, cast/4, spawn_call/3, spawn_call/4, await/1, await/2]).
-export([async_call/3, async_call/4, async_await/1, async_await/2, async_gather/1, async_gather/2]).
-export([context/0, context/1, start_contexts/0, start_contexts/1, stop_contexts/0, contexts_started/0,
         execution_mode/0]).
-export([stream/3, stream/4, stream_eval/1, stream_eval/2, stream_start/3, stream_start/4, stream_cancel/1,
         stream_demand/2]).
-export([register_function/2, register_function/3, unregister_function/1, interrupt/1]).
-export([activate_venv/1, deactivate_venv/0, venv_info/0, ensure_venv/2, ensure_venv/3]).
-export([call_method/3, call_method/4, call_method/5, getattr/2, getattr/3, to_term/1, to_term/2, is_ref/1]).
-export([memory_stats/0, memory_stats/1, gc/0, gc/1, gc/2, tracemalloc_start/0, tracemalloc_start/1,
         tracemalloc_start/2, tracemalloc_stop/0, tracemalloc_stop/1, tracemalloc_top/0, tracemalloc_top/1,
         tracemalloc_top/2, reload/1, reload/2]).
-export([dup_fd/1, version/0]).
-export_type([name/0, args/0, kwargs/0, options/0, stream_options/0, object_options/0, result/0, error/0]).
-export_type([venv_requirements/0, venv_options/0, venv_error/0]).

-type name() :: atom() | string() | binary().
%% A name of Python's. Strings are as Unicode has them, binaries UTF-8.
-type args() :: [term()].
-type kwargs() :: #{name() => term()}.
%% Arguments by name; of `eval', names that the expression sees.
-type options() :: #{timeout => timeout(), error => pair | map, kwargs => kwargs(), result => term | ref}.
%% `timeout': in milliseconds; without it as long as the function waits that has no options. `error': how an
%% exception is told, `pair' by default. `kwargs': of a call in a context; calls without one have them as an
%% argument. `result': `ref' is a reference also to what could be converted, `term' the default.
-type stream_options() :: #{owner => pid(),
                            context => pid(),
                            kwargs => kwargs(),
                            window => pos_integer(),
                            demand => non_neg_integer()}.
%% `owner': the process of this node that gets the messages, by default the caller. `context': where it runs,
%% by default in the pool. `kwargs': arguments by name. `window': how many items may wait in the owner's
%% mailbox, 1,000 by default. `demand': how many items may be sent until {@link stream_demand/2} asks for
%% more; by default only the window counts.
-type venv_requirements() :: [string() | binary()] | {requirements, File :: string() | binary()}.
-type venv_options() :: #{installer => pip | uv | auto,
                          extra_args => [string() | binary()],
                          timeout => timeout(),
                          activate => boolean(),
                          force => boolean()}.
%% See {@link ensure_venv/3}.
-type venv_error() :: {error, {venv_failed | install_failed, #{command := [binary()],
                                                               status := non_neg_integer() | atom(),
                                                               output := [binary()]}}}
                    | error().
-type object_options() :: py_object:options().
%% A time-out in milliseconds, or a map of it, `error', `context' and, where there is a result to choose a form
%% for, `result'. Without a context it is one where the object can be used, or the least busy one of the default pool;
%% without a time-out it is 30 seconds.
-type error() :: {error, {atom(), string() | binary()} | map() | timeout}.
%% An exception as a pair of its type's name and its text, or as a map; or what else was wrong, with a text
%% that says what to do. See above.
-type result() :: {ok, term()} | error().

-define(TIMEOUT, 30000).

%% @doc Calls a function of a module, which is imported where it is not yet; at most 30 seconds.
%%
%% Names may be dotted: `py:call(datetime, 'date.today', [])'. In `__main__' are the names that
%% the calling process has defined by {@link exec/1}.
-spec call(name(), name(), args()) -> result().
call(Module, Function, Args) ->
    call(Module, Function, Args, #{}, ?TIMEOUT).

%% @doc The same with keyword arguments; or, with a context first, in that context and without a limit of time.
-spec call(name(), name(), args(), kwargs()) -> result();
          (pid(), name(), name(), args()) -> result().
call(Context, Module, Function, Args) when is_pid(Context) ->
    call(Context, Module, Function, Args, infinity);
call(Module, Function, Args, Kwargs) ->
    call(Module, Function, Args, Kwargs, ?TIMEOUT).

%% @doc The same with a time-out in milliseconds, or with options.
-spec call(name(), name(), args(), kwargs(), timeout() | options()) -> result();
          (pid(), name(), name(), args(), timeout() | options()) -> result().
call(Context, Module, Function, Args, Options) when is_pid(Context) ->
    Kwargs = if is_map(Options) -> maps:get(kwargs, Options, #{}); true -> #{} end,
    py_request:run(Context, {call, Module, Function, Args, Kwargs}, Options, infinity);
call(Module, Function, Args, Kwargs, Options) ->
    py_request:run(pool, {call, Module, Function, Args, Kwargs}, Options, ?TIMEOUT).

%% @doc Evaluates an expression among the names of the calling process; at most 30 seconds.
-spec eval(iodata()) -> result().
eval(Code) ->
    eval(Code, #{}, ?TIMEOUT).

%% @doc The same with more names for this expression; or in a context, without a limit of time.
-spec eval(iodata(), kwargs()) -> result();
          (pid(), iodata()) -> result().
eval(Context, Code) when is_pid(Context) ->
    eval(Context, Code, #{}, infinity);
eval(Code, Locals) ->
    eval(Code, Locals, ?TIMEOUT).

%% @doc The same with a time-out or options.
-spec eval(iodata(), kwargs(), timeout() | options()) -> result();
          (pid(), iodata(), kwargs()) -> result().
eval(Context, Code, Locals) when is_pid(Context) ->
    eval(Context, Code, Locals, infinity);
eval(Code, Locals, Options) ->
    py_request:run(pool, {eval, Code, Locals}, Options, ?TIMEOUT).

%% @doc The same in a context.
-spec eval(pid(), iodata(), kwargs(), timeout() | options()) -> result().
eval(Context, Code, Locals, Options) when is_pid(Context) ->
    py_request:run(Context, {eval, Code, Locals}, Options, infinity).

%% @doc Executes statements. The names that they define are those of the calling process: its later calls
%% see them, nobody else's do, and they go when it ends. No limit of time.
-spec exec(iodata()) -> ok | error().
exec(Code) ->
    exec(Code, #{}).

%% @doc The same in a context, or with a time-out or options.
-spec exec(pid(), iodata()) -> ok | error();
          (iodata(), timeout() | options()) -> ok | error().
exec(Context, Code) when is_pid(Context) ->
    exec(Context, Code, #{});
exec(Code, Options) ->
    py_request:run(pool, {exec, Code}, Options, infinity).

%% @doc The same in a context with a time-out or options.
-spec exec(pid(), iodata(), timeout() | options()) -> ok | error().
exec(Context, Code, Options) when is_pid(Context) ->
    py_request:run(Context, {exec, Code}, Options, infinity).

%% @doc Calls a function and forgets it: neither result nor error come back. Returns at once.
%%
%% An error is only that there is no context, that too many calls wait for it, or a wrong argument.
-spec cast(name(), name(), args()) -> ok | error().
cast(Module, Function, Args) ->
    cast(Module, Function, Args, #{}).

%% @doc The same with keyword arguments, or in a context.
-spec cast(name(), name(), args(), kwargs()) -> ok | error();
          (pid(), name(), name(), args()) -> ok | error().
cast(Context, Module, Function, Args) when is_pid(Context) ->
    py_request:cast(Context, {call, Module, Function, Args, #{}});
cast(Module, Function, Args, Kwargs) ->
    py_request:cast(pool, {call, Module, Function, Args, Kwargs}).

%% @doc Starts a call and returns at once; {@link await/2} in the same process gets the result.
%%
%% When the process ends, the call is given up. What could not be started is an error here.
-spec spawn_call(name(), name(), args()) -> reference() | error().
spawn_call(Module, Function, Args) ->
    spawn_call(Module, Function, Args, #{}).

%% @doc The same with keyword arguments, or in a context.
-spec spawn_call(name(), name(), args(), kwargs()) -> reference() | error();
                (pid(), name(), name(), args()) -> reference() | error().
spawn_call(Context, Module, Function, Args) when is_pid(Context) ->
    started(py_request:start(Context, {call, Module, Function, Args, #{}}));
spawn_call(Module, Function, Args, Kwargs) ->
    started(py_request:start(pool, {call, Module, Function, Args, Kwargs})).

started({ok, Reference}) -> Reference;
started(Error) -> Error.

%% @doc Waits at most 30 seconds for a call that {@link spawn_call/3} has started.
-spec await(reference()) -> result().
await(Reference) ->
    await(Reference, ?TIMEOUT).

%% @doc The same with a time-out in milliseconds; after that the call goes on, and can be awaited again.
%%
%% `{error, {unknown_call, _}}' where it was awaited already, or is another process's.
-spec await(reference(), timeout()) -> result().
await(Reference, Timeout) ->
    py_request:await(Reference, Timeout).

%% @doc Starts a coroutine function of Python as a task in the event loop of a context, and returns at once;
%% {@link async_await/2} in the same process gets the result. What is no coroutine is the result itself.
%%
%% The loop of a context goes on between its calls and while they wait, so that thousands of tasks may run in one,
%% which serves `call/3' and connections all the same. When the process ends, the task is cancelled. See
%% {@link py_event_loop:create_task/4} for a time-out, and for a task that lives on.
-spec async_call(name(), name(), args()) -> reference() | error().
async_call(Module, Function, Args) ->
    async_call(Module, Function, Args, #{}).

%% @doc The same with keyword arguments, or in a context.
-spec async_call(name(), name(), args(), kwargs()) -> reference() | error();
                (pid(), name(), name(), args()) -> reference() | error().
async_call(Context, Module, Function, Args) when is_pid(Context) ->
    started(py_request:start(Context, {async, {call, Module, Function, Args, #{}}}));
async_call(Module, Function, Args, Kwargs) ->
    started(py_request:start(pool, {async, {call, Module, Function, Args, Kwargs}})).

%% @doc Waits at most 30 seconds for what {@link async_call/3} has started.
-spec async_await(reference()) -> result().
async_await(Reference) ->
    async_await(Reference, ?TIMEOUT).

%% @doc The same with a time-out; after that the task goes on, and can be awaited again.
-spec async_await(reference(), timeout()) -> result().
async_await(Reference, Timeout) ->
    py_request:await(Reference, Timeout).

%% @doc Runs several coroutine functions at once in one event loop, and waits for all of them, at most 30 seconds.
%%
%% The results are in the order of the calls. Where some fail, all others are waited for, and the reasons of those
%% come with their places, from 1.
-spec async_gather([{name(), name(), args()} | {name(), name(), args(), kwargs()}]) ->
          {ok, [term()]} | {error, {gather_failed, [{pos_integer(), term()}]}} | error().
async_gather(Calls) ->
    async_gather(Calls, ?TIMEOUT).

%% @doc The same with a time-out in milliseconds, after which the tasks that are left are cancelled.
-spec async_gather([{name(), name(), args()} | {name(), name(), args(), kwargs()}], timeout()) ->
          {ok, [term()]} | {error, {gather_failed, [{pos_integer(), term()}]}} | error().
async_gather(Calls, Timeout) ->
    py_event_loop:gather(Calls, Timeout).

%% @doc A context of the default pool: always the same on the same scheduler; where each has an interpreter of its
%% own, always the same for the same process. `{error, {no_context, _}}' where the pool has none.
-spec context() -> pid() | error().
context() ->
    context(py_contexts:own_index()).

%% @doc The context at a place of the default pool, from 1; `{error, {no_context, _}}' where that has none.
-spec context(pos_integer()) -> pid() | error().
context(Index) ->
    py_contexts:context(Index).

%% @doc Makes sure that the default pool has one context for each scheduler. See {@link start_contexts/1}.
-spec start_contexts() -> {ok, [pid()]} | {error, term()}.
start_contexts() ->
    start_contexts(erlang:system_info(schedulers)).

%% @doc Makes sure that the default pool has so many contexts. Those that are there stay. With a map: `number' of
%% them, by default one for each scheduler, and their `mode', by default that of those that are there, or else
%% of the application variable `context_mode', which is `worker' unless it is set; see {@link py_context}.
%%
%% In a pool of `subinterp' or `owngil' a process is always served by the same context: the names that it has
%% defined are there.
%%
%% Blocks until Python is ready on all of them. `{error, {pool_mode, _}}' where the pool has contexts of another mode,
%% `{error, {unsupported, _}}' for `owngil' before Python 3.12, `{error, {not_started, _}}' without the
%% application, `{error, {badarg, _}}' for another argument, and what else {@link py_context:start_link/1}
%% says.
-spec start_contexts(pos_integer() | #{number => pos_integer(), mode => py_context:mode()}) ->
          {ok, [pid()]} | {error, term()}.
start_contexts(Options) ->
    py_pool_sup:start_contexts(Options).

%% @doc The mode of the contexts of the default pool, also of those to come.
-spec execution_mode() -> py_context:mode().
execution_mode() ->
    py_pool_sup:mode().

%% @doc Ends the contexts of the default pool, and waits for that: at most a second for each in which native
%% code does not return. What they execute is interrupted; who waits for an answer gets `{error,
%% {context_stopped, _}}'.
-spec stop_contexts() -> ok.
stop_contexts() ->
    py_pool_sup:stop_contexts().

%% @doc Whether the default pool has contexts.
-spec contexts_started() -> boolean().
contexts_started() ->
    py_contexts:pool_size() > 0.

%% @doc Calls a function and collects what the generator, or anything else that can be iterated over, that it
%% returns yields. All of it is in memory at once: see {@link stream_start/3}. No limit of time.
-spec stream(name(), name(), args()) -> {ok, [term()]} | error().
stream(Module, Function, Args) ->
    stream(Module, Function, Args, #{}).

%% @doc The same with keyword arguments, or in a context.
-spec stream(name(), name(), args(), kwargs()) -> {ok, [term()]} | error();
            (pid(), name(), name(), args()) -> {ok, [term()]} | error().
stream(Context, Module, Function, Args) when is_pid(Context) ->
    py_request:run(Context, {collect, {call, Module, Function, Args, #{}}}, infinity, infinity);
stream(Module, Function, Args, Kwargs) ->
    py_request:run(pool, {collect, {call, Module, Function, Args, Kwargs}}, infinity, infinity).

%% @doc Evaluates an expression among the names of the calling process, and collects what its value yields. No limit of
%% time.
-spec stream_eval(iodata()) -> {ok, [term()]} | error().
stream_eval(Code) ->
    stream_eval(Code, #{}).

%% @doc The same with more names, or in a context.
-spec stream_eval(iodata(), kwargs()) -> {ok, [term()]} | error();
                 (pid(), iodata()) -> {ok, [term()]} | error().
stream_eval(Context, Code) when is_pid(Context) ->
    py_request:run(Context, {collect, {eval, Code, #{}}}, infinity, infinity);
stream_eval(Code, Locals) ->
    py_request:run(pool, {collect, {eval, Code, Locals}}, infinity, infinity).

%% @doc Calls a function and sends what its generator yields, which may be an asynchronous one, to the calling process, as
%% `{py_stream, Reference, {data, Item}}', at the end `{py_stream, Reference, done}' or
%% `{py_stream, Reference, {error, Reason}}'. Returns at once.
%%
%% The generator does not run further ahead of its consumer than a window of 1000 items: while that many
%% messages wait in the consumer's mailbox it is not resumed. It ends with its consumer.
-spec stream_start(name(), name(), args()) -> {ok, reference()} | error().
stream_start(Module, Function, Args) ->
    stream_start(Module, Function, Args, #{}).

%% @doc The same with options.
-spec stream_start(name(), name(), args(), stream_options()) -> {ok, reference()} | error().
stream_start(Module, Function, Args, Options) ->
    Kwargs = if is_map(Options) -> maps:get(kwargs, Options, #{}); true -> #{} end,
    py_stream:start({call, Module, Function, Args, Kwargs}, Options).

%% @doc Ends a stream: its generator is interrupted where it runs, and freed. Messages of the stream that wait in
%% the mailbox of the calling process are thrown away. A stream that has ended is no error.
-spec stream_cancel(reference()) -> ok | error().
stream_cancel(Reference) ->
    py_stream:cancel(Reference).

%% @doc Lets a stream send so many more items. From the first time on it sends only what it was asked for. Returns at
%% once; a stream that has ended is no error.
-spec stream_demand(reference(), pos_integer()) -> ok | error().
stream_demand(Reference, Number) ->
    py_stream:demand(Reference, Number).

%% @doc Lets Python call a fun by a name, as `erlang.call('name', ...)', `erlang.name(...)' or after
%% `from erlang import name'. The fun gets one list of the arguments, in a process of its own, and may call
%% Python again, also in the context that waits for it.
%%
%% Another function of that name is replaced. `{error, {not_started, _}}' without the application, `{error,
%% {badarg, _}}' for what is no name or no fun of one argument.
%%
%% What it returns is converted as arguments are. Where it fails, Python raises `erlang.ErlangError'. When Python
%% does not wait any more, because its call was given up, the process is ended with the reason `shutdown'.
-spec register_function(name(), fun(([term()]) -> term())) -> ok | error().
register_function(Name, Fun) ->
    py_callbacks:register(Name, Fun).

%% @doc The same for an exported function of one argument; it is looked up when it is called.
-spec register_function(name(), module(), atom()) -> ok | error().
register_function(Name, Module, Function) ->
    py_callbacks:register(Name, Module, Function).

%% @doc Takes a function back. Calls of it that run go on. A name that is not registered is no error.
-spec unregister_function(name()) -> ok | error().
unregister_function(Name) ->
    py_callbacks:unregister(Name).

%% @doc Interrupts what a context executes: Python raises `erlang.CallInterrupted' there, which is no
%% `Exception', at the next bytecode. Its caller gets that as an error unless the code catches it.
%%
%% Returns at once. `{error, {idle, _}}' where nothing is executed, `{error, {no_context, _}}' for what is no
%% context. The corresponding C function is `PyThreadState_SetAsyncExc'. Native code is not interrupted before
%% it returns to Python.
-spec interrupt(pid()) -> ok | error().
interrupt(Context) ->
    py_context:interrupt(Context).

%% @doc Makes a virtual environment the active one, instead of the one that is.
%%
%% `sys.path', `sys.prefix', `sys.exec_prefix', `sys.executable' and, in `os.environ', `VIRTUAL_ENV' and `PATH' become
%% what they are where its Python was started; its .pth files are processed. The packages of the
%% Python that runs stay visible behind its own. It is active in all contexts of the default pool, also
%% in those that are started later, or again after a crash.
%%
%% `{error, {not_a_venv, _}}' where the directory is none, and `{error, {wrong_python, _}}' where it was made for another
%% version of Python, as 3.12 is of 3.11: nothing has changed then. It waits as long as the contexts take.
-spec activate_venv(string() | binary()) -> ok | error().
activate_venv(Directory) ->
    py_venv:activate(Directory).

%% @doc Takes all of that back. Modules that were imported stay imported, and what others have changed since is theirs.
-spec deactivate_venv() -> ok | error().
deactivate_venv() ->
    py_venv:deactivate().

%% @doc Which virtual environment is active, also where it is because `CAUSEWAY_PYTHON' is its Python.
%%
%% The keys are `<<"active">>' (a boolean), `<<"path">>' (`none' without one; also as `<<"venv_path">>'), `<<"prefix">>',
%% `<<"base_prefix">>', `<<"executable">>', `<<"base_executable">>', `<<"site_packages">>' and `<<"version">>', as
%% `<<"3.11.7">>'.
-spec venv_info() -> {ok, #{binary() => boolean() | binary() | none}} | error().
venv_info() ->
    py_venv:info().

%% @doc Makes sure that a virtual environment is there and that what is required is installed in it, and activates it.
%% The same as `ensure_venv(Directory, Requirements, #{})'.
-spec ensure_venv(string() | binary(), venv_requirements()) -> ok | venv_error().
ensure_venv(Directory, Requirements) ->
    ensure_venv(Directory, Requirements, #{}).

%% @doc The same with options.
%%
%% The requirements are those of pip, as `<<"h11>=0.14">>', or a file of them; a file's name alone will do, too. What was
%% asked for is remembered in the directory: when the same is asked for again, nothing is run. Changes in files that
%% the requirements name go unnoticed: that is what `force' is for. An environment that is there but was asked other
%% things gets what it lacks. While one process makes an environment, others of this node that want it wait.
%%
%% Options: `installer' is `pip', `uv', or `auto', the default, which is uv where that is on the PATH of the
%% node; `extra_args' are further arguments of `pip install' or `uv pip install', as `[<<"--no-index">>]';
%% `timeout', in milliseconds, is for all of it, `infinity' by default; `activate => false' leaves out the
%% activation; `force => true' removes an environment that is there and makes it anew.
%%
%% What the programs print goes to logger line by line, at level `info', with the metadata `source => venv'. A program
%% that fails gives `{error, {venv_failed, _}}' or `{error, {install_failed, _}}' with its command, its exit
%% status and the last lines of its output. Then, after `{error, timeout}', and when the caller dies, its
%% processes are killed, and an environment that was to be made is removed. Before anything is run, there are
%% the errors `{not_a_venv, _}' where something else is in the directory, `{wrong_python, _}' for an
%% environment of another version, `{no_installer, _}' without uv, and `{no_requirements, _}' for a file that
%% cannot be read.
-spec ensure_venv(string() | binary(), venv_requirements(), venv_options()) -> ok | venv_error().
ensure_venv(Directory, Requirements, Options) ->
    py_venv:ensure(Directory, Requirements, Options).

%% @doc Calls a method of the object that a reference is to; at most 30 seconds. Names may be dotted.
-spec call_method(reference(), name(), args()) -> result().
call_method(Ref, Method, Args) ->
    call_method(Ref, Method, Args, #{}, #{}).

%% @doc The same with keyword arguments.
-spec call_method(reference(), name(), args(), kwargs()) -> result().
call_method(Ref, Method, Args, Kwargs) ->
    call_method(Ref, Method, Args, Kwargs, #{}).

%% @doc The same with a time-out or options.
-spec call_method(reference(), name(), args(), kwargs(), object_options()) -> result().
call_method(Ref, Method, Args, Kwargs, Options) ->
    py_object:call_method(Ref, Method, Args, Kwargs, Options).

%% @doc An attribute of the object that a reference is to; at most 30 seconds. Names may be dotted.
-spec getattr(reference(), name()) -> result().
getattr(Ref, Name) ->
    getattr(Ref, Name, #{}).

%% @doc The same with a time-out or options.
-spec getattr(reference(), name(), object_options()) -> result().
getattr(Ref, Name, Options) ->
    py_object:getattr(Ref, Name, Options).

%% @doc The object that a reference is to as a term; at most 30 seconds. `{error, {not_convertible, _}}' where
%% only a reference can stand for it; within lists and other containers, that is what such objects become.
-spec to_term(reference()) -> result().
to_term(Ref) ->
    to_term(Ref, #{}).

%% @doc The same with a time-out or options.
-spec to_term(reference(), object_options()) -> result().
to_term(Ref, Options) ->
    py_object:to_term(Ref, Options).

%% @doc Whether a term is a reference to a Python object of this node. Never fails.
-spec is_ref(term()) -> boolean().
is_ref(Term) ->
    py_object:is_ref(Term).

%% @doc How memory stands: `gc_count', `gc_threshold' and `gc_stats' as Python's module `gc' has them,
%% `allocated_blocks' of Python, `resident_bytes' of this node, the number of `references' to objects that Erlang
%% holds, `referenced_bytes' of these objects without what they refer to, the number of processes with
%% `namespaces', and whether tracemalloc is `tracing': then `traced_memory_current' and `traced_memory_peak'
%% in bytes.
%%
%% References in garbage that no process has collected yet are counted too.
-spec memory_stats() -> {ok, #{atom() => term()}} | error().
memory_stats() ->
    memory_stats(#{}).

%% @doc The same with a time-out or options.
-spec memory_stats(object_options()) -> {ok, #{atom() => term()}} | error().
memory_stats(Options) ->
    py_memory:stats(Options).

%% @doc Has Python collect its garbage, as its `gc.collect' does; returns how many objects it has found that
%% cannot be reached. Other Python waits meanwhile.
-spec gc() -> {ok, non_neg_integer()} | error().
gc() ->
    gc(2).

%% @doc The same for the generations up to one: 2, the default, is all of them.
-spec gc(0..2) -> {ok, non_neg_integer()} | error().
gc(Generation) ->
    gc(Generation, #{}).

%% @doc The same with a time-out or options.
-spec gc(0..2, object_options()) -> {ok, non_neg_integer()} | error().
gc(Generation, Options) ->
    py_memory:gc(Generation, Options).

%% @doc Has Python remember from now on where memory is allocated, which makes it slower. See
%% {@link tracemalloc_top/1}. Not in contexts of the mode `owngil', for which Python's tracemalloc is not made.
-spec tracemalloc_start() -> ok | error().
tracemalloc_start() ->
    tracemalloc_start(1).

%% @doc The same with the number of frames, from 1 to 65,535, that are remembered for each block: 1 by
%% default. Changes nothing while it traces.
-spec tracemalloc_start(pos_integer()) -> ok | error().
tracemalloc_start(Frames) ->
    tracemalloc_start(Frames, #{}).

%% @doc The same with a time-out or options.
-spec tracemalloc_start(pos_integer(), object_options()) -> ok | error().
tracemalloc_start(Frames, Options) ->
    py_memory:trace(Frames, Options).

%% @doc Ends tracing and forgets what was remembered. No error where nothing is traced.
-spec tracemalloc_stop() -> ok | error().
tracemalloc_stop() ->
    tracemalloc_stop(#{}).

%% @doc The same with a time-out or options.
-spec tracemalloc_stop(object_options()) -> ok | error().
tracemalloc_stop(Options) ->
    py_memory:end_trace(Options).

%% @doc The ten lines of Python whose memory is largest: see {@link tracemalloc_top/1}.
-spec tracemalloc_top() -> {ok, [#{atom() => term()}]} | error().
tracemalloc_top() ->
    tracemalloc_top(10).

%% @doc The lines of Python whose memory that was allocated since {@link tracemalloc_start/0} is largest, the
%% largest first, as `#{file, line, size, count}' with the size in bytes and the count of blocks. A `RuntimeError' where
%% memory is not traced.
-spec tracemalloc_top(pos_integer()) -> {ok, [#{atom() => term()}]} | error().
tracemalloc_top(Number) ->
    tracemalloc_top(Number, #{}).

%% @doc The same with a time-out or options.
-spec tracemalloc_top(pos_integer(), object_options()) -> {ok, [#{atom() => term()}]} | error().
tracemalloc_top(Number, Options) ->
    py_memory:top(Number, Options).

%% @doc Runs the code of an imported module again, as it is on disk now: later calls have its new functions.
%%
%% As with Python's `importlib.reload', names that are gone from the code stay, and so does what others have taken
%% out of the module: objects, classes of objects, `from module import name'. A package is reloaded without its
%% submodules. A module that is not imported is an `ImportError': nothing old of it is there.
-spec reload(name()) -> ok | error().
reload(Module) ->
    reload(Module, #{}).

%% @doc The same with a time-out or options.
-spec reload(name(), object_options()) -> ok | error().
reload(Module, Options) ->
    py_memory:reload(Module, Options).

%% @doc A second descriptor for the same open file or socket, closed on exec. Both are to be closed. `{error, ebadf}' for
%% what is not open, `{error, emfile}' where none is left. The corresponding C function is
%% `fcntl(F_DUPFD_CLOEXEC)'.
-spec dup_fd(non_neg_integer()) -> {ok, non_neg_integer()} | {error, atom() | {errno, integer()}}.
dup_fd(Fd) ->
    %% The reactor's contract says badf where POSIX and file say ebadf.
    case causeway_nif:duplicate(Fd) of
        {error, badf} -> {error, ebadf};
        Result -> Result
    end.

%% @doc Which Python runs, as its `sys.version' has it.
-spec version() -> {ok, binary()}.
version() ->
    {ok, causeway_nif:python_version()}.
