%% @private
%% @doc The tree of supervisors. Whoever holds the table of contexts is before those who are in it.
-module(causeway_sup).

-behaviour(supervisor).

-export([start_link/0, start_link/1, start_child/2, init/1]).
-export_type([name/0]).

%% The top one, and those below it whose children are no contexts.
-type name() :: ?MODULE | causeway_process_helper_sup | py_output_sup | py_callbacks_sup | py_venv_sup | py_stream_sup
              | causeway_process_sup | causeway_rpc_sup.

%% @doc Starts all of it.
-spec start_link() -> supervisor:startlink_ret().
start_link() ->
    start_link(?MODULE).

%% @doc Starts one supervisor.
-spec start_link(name()) -> supervisor:startlink_ret().
start_link(Name) ->
    supervisor:start_link({local, Name}, ?MODULE, Name).

%% @doc Starts a child where children come and go.
-spec start_child(py_venv_sup | py_stream_sup | causeway_process_sup, map() | tuple()) -> {ok, pid()} | {error, term()}.
start_child(Name, Argument) ->
    try supervisor:start_child(Name, [Argument]) of
        {ok, Pid} -> {ok, Pid};
        {error, Reason} -> {error, Reason}
    catch
        exit:{noproc, _} -> {error, {not_started, <<"the application causeway does not run: "
                                                    "application:ensure_all_started(causeway)">>}}
    end.

%% @private
-spec init(name()) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init(?MODULE) ->
    Children = [below(causeway_process_helper_sup),
                worker(py_contexts),
                below(py_output_sup),
                below(py_callbacks_sup),
                #{id => py_pool_sup, start => {py_pool_sup, start_link, []}, type => supervisor},
                below(py_venv_sup),
                below(py_stream_sup),
                below(causeway_process_sup),
                below(causeway_rpc_sup),
                #{id => py_reactor_default, start => {py_reactor_context, start_default, []}, shutdown => 5000}],
    {ok, {#{strategy => rest_for_one, intensity => 10, period => 10}, Children}};
%% What starts programs: where that fails, nothing else does.
init(causeway_process_helper_sup) ->
    {ok, {#{strategy => one_for_one, intensity => 10, period => 10}, [worker(causeway_process_helper)]}};
%% What takes Python's output: where that fails, contexts go on.
init(py_output_sup) ->
    {ok, {#{strategy => one_for_one, intensity => 10, period => 10}, [worker(py_logger), worker(py_output)]}};
%% Who runs the functions that Python calls: where that fails, contexts go on, and the functions are kept here.
init(py_callbacks_sup) ->
    _ = py_callbacks:new_table(),
    {ok, {#{strategy => one_for_one, intensity => 10, period => 10}, [worker(py_callbacks)]}};
%% Who is stopped while it makes an environment kills its program and removes what is half made.
init(py_venv_sup) ->
    come_and_go(py_venv_maker, 10000, py_venvs);
init(py_stream_sup) ->
    come_and_go(py_stream, 1000, py_streams);
%% The owners of programs that Python has opened.
init(causeway_process_sup) ->
    come_and_go(causeway_process_python, 1000);
%% Who watches streaming calls and who serves them: where these fail calls go on, and how they are found is kept here.
init(causeway_rpc_sup) ->
    _ = causeway_rpc_streams:new_table(),
    ok = causeway_rpc_server:new_tables(),
    Groups = #{id => pg, start => {pg, start_link, [causeway_rpc]}},
    {ok, {#{strategy => rest_for_one, intensity => 10, period => 10},
          [worker(causeway_rpc_streams), Groups, worker(causeway_rpc_server)]}}.

worker(Module) -> #{id => Module, start => {Module, start_link, []}}.

below(Name) -> #{id => Name, start => {?MODULE, start_link, [Name]}, type => supervisor}.

%% With the table by which they are found.
come_and_go(Module, Shutdown, Table) ->
    Table = ets:new(Table, [named_table, public, {read_concurrency, true}]),
    come_and_go(Module, Shutdown).

come_and_go(Module, Shutdown) ->
    Child = #{id => Module, start => {Module, start_link, []}, restart => temporary, shutdown => Shutdown},
    {ok, {#{strategy => simple_one_for_one}, [Child]}}.
