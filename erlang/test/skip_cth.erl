%% @doc A hook of Common Test: leaves out what a file says that `CAUSEWAY_SKIP' names, as skipped tests with a reason.
%% A line of it is `{Suite, Reason}.' or `{Suite, Case, Reason}.'
-module(skip_cth).

-export([init/2, pre_init_per_suite/3, pre_init_per_testcase/4]).

%% @doc What is left out.
-spec init(term(), term()) -> {ok, [tuple()]}.
init(_Id, _Options) ->
    case os:getenv("CAUSEWAY_SKIP") of
        Unset when Unset =:= false; Unset =:= "" -> {ok, []};
        File -> file:consult(File)
    end.

%% @doc Called before a suite.
-spec pre_init_per_suite(module(), list(), [tuple()]) -> {list() | {skip, string()}, [tuple()]}.
pre_init_per_suite(Suite, Config, Skips) ->
    {config_or_skip(Config, [Reason || {Name, Reason} <- Skips, Name =:= Suite]), Skips}.

%% @doc Called before a case.
-spec pre_init_per_testcase(module(), atom(), list(), [tuple()]) -> {list() | {skip, string()}, [tuple()]}.
pre_init_per_testcase(Suite, Case, Config, Skips) ->
    {config_or_skip(Config, [Reason || {Name, Of, Reason} <- Skips, Name =:= Suite, Of =:= Case]), Skips}.

config_or_skip(Config, []) -> Config;
config_or_skip(_Config, [Reason | _]) -> {skip, Reason}.
