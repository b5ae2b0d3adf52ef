%% @private
%% @doc The supervisor of streams, and the owner of the table by which they are found.
-module(py_stream_sup).

-behaviour(supervisor).

-export([start_link/0, start_stream/1, init/1]).

%% @doc Starts the supervisor.
-spec start_link() -> supervisor:startlink_ret().
start_link() ->
    supervisor:start_link({local, ?MODULE}, ?MODULE, []).

%% @doc Starts a stream.
-spec start_stream(map()) -> {ok, pid()} | {error, term()}.
start_stream(Arguments) ->
    try supervisor:start_child(?MODULE, [Arguments]) of
        {ok, Pid} -> {ok, Pid};
        {error, Reason} -> {error, Reason}
    catch
        exit:{noproc, _} -> {error, {not_started, <<"the application causeway does not run">>}}
    end.

%% @private
-spec init([]) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init([]) ->
    py_streams = ets:new(py_streams, [named_table, public, {read_concurrency, true}]),
    Stream = #{id => py_stream, start => {py_stream, start_link, []}, restart => temporary, shutdown => 1000},
    {ok, {#{strategy => simple_one_for_one}, [Stream]}}.
