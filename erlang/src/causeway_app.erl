%% @private
%% @doc The application: Python, the table of contexts, and the default pool.
-module(causeway_app).

-behaviour(application).

-export([start/2, stop/1]).

%% @doc Starts Python in this node and then the supervisors.
-spec start(application:start_type(), term()) -> {ok, pid()} | {error, term()}.
start(_Type, _Arguments) ->
    case causeway_python:start() of
        {ok, _} ->
            %% The BEAM ignores SIGCHLD, so that the kernel reaps for it; Python's subprocess would then
            %% report 0 for every exit. Ports work either way: erl_child_setup starts them.
            ok = os:set_signal(sigchld, default),
            ok = py_log:load(),
            causeway_sup:start_link();
        {error, _} = Error ->
            Error
    end.

%% @doc Contexts have ended with their processes. Python stays, for the next start.
-spec stop(term()) -> ok.
stop(_State) ->
    py_contexts:forget_pool().
