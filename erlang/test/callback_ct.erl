%% @doc What the suites of callbacks share: functions that wait until the test lets them go on, and processes that end.
-module(callback_ct).

-export([gate/1, entered/1, told/1, kill/1]).

-include_lib("stdlib/include/assert.hrl").

-define(PATIENCE, 30000).

%% @doc Registers a function that tells the test its process, and goes on when that is sent `{go, Result}'.
-spec gate(atom()) -> ok.
gate(Name) ->
    Test = self(),
    py:register_function(Name, fun([]) -> Test ! {Name, self()}, receive {go, Result} -> Result end end).

%% @doc Waits until Python has called it; its process.
-spec entered(atom()) -> pid().
entered(Name) ->
    receive {Name, Process} when is_pid(Process) -> Process
    after ?PATIENCE -> error({not_called, Name, causeway_ct:mailbox()})
    end.

%% @doc Waits for the end of a function's process.
-spec told(pid()) -> ok.
told(Function) ->
    Monitor = monitor(process, Function),
    receive
        {'DOWN', Monitor, process, Function, Reason} ->
            ?assert(Reason =:= shutdown orelse Reason =:= noproc),
            ok
    after ?PATIENCE -> error({not_told, process_info(Function)})
    end.

%% @doc Kills a process, and waits for its end.
-spec kill(pid()) -> ok.
kill(Process) ->
    Monitor = monitor(process, Process),
    exit(Process, kill),
    causeway_ct:expect({'DOWN', Monitor, process, Process, killed}).
