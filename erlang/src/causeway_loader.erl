%% @private
%% @doc The NIF that makes a libpython's symbols global before the core, which needs them, is loaded.
-module(causeway_loader).

-export([load/0, open_global/1]).

-nifs([open_global/1]).

%% @doc Loads the NIF library. It has no state, and may be loaded again with a new version of this module.
-spec load() -> ok | {error, {atom(), string()}}.
load() ->
    case erlang:load_nif(filename:join(causeway_python:priv_dir(), "causeway_loader"), 0) of
        {error, {reload, _}} -> ok;
        Result -> Result
    end.

%% @doc `dlopen(Path, RTLD_NOW | RTLD_GLOBAL)'. Blocks a dirty scheduler while files are read.
-spec open_global(Path :: binary()) -> ok | {error, Text :: binary()}.
open_global(_Path) ->
    erlang:nif_error(not_loaded).
