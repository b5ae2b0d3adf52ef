%% @doc A module of process streams without a callback that may be missing.
-module(process_bare).

-export([init/1]).

init(State) -> {ok, State}.
