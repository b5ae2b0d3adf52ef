%% @private
%% @doc Requests that concern one Python object, and the options of those that concern an interpreter.
-module(py_object).

-export([call_method/5, getattr/3, to_term/2, is_ref/1, call/3]).
-export_type([options/0]).

-type options() :: timeout() | #{timeout => timeout(), error => pair | map, context => pid(), result => term | ref}.

-define(TIMEOUT, 30000).

%% @doc Calls a method of an object.
-spec call_method(reference(), py:name(), [term()], map(), options()) -> {ok, term()} | {error, term()}.
call_method(Ref, Method, Args, Kwargs, Options)
  when (is_atom(Method) orelse is_binary(Method) orelse is_list(Method)), is_list(Args), is_map(Kwargs) ->
    with_ref(Ref, {call_method, Ref, py_call:utf8(Method), Args, Kwargs}, Options, [result]);
call_method(_Ref, Method, Args, Kwargs, _Options) ->
    py_call:badarg("call_method needs a name (an atom, a string or a binary), a list of arguments and a map of keyword "
           "arguments, not ~tP, ~tP, ~tP", [Method, 8, Args, 8, Kwargs, 8]).

%% @doc An attribute of an object.
-spec getattr(reference(), py:name(), options()) -> {ok, term()} | {error, term()}.
getattr(Ref, Name, Options) when is_atom(Name); is_binary(Name); is_list(Name) ->
    with_ref(Ref, {getattr, Ref, py_call:utf8(Name)}, Options, [result]);
getattr(_Ref, Name, _Options) ->
    py_call:badarg("getattr needs a name (an atom, a string or a binary), not ~tP", [Name, 8]).

%% @doc The object as a term.
-spec to_term(reference(), options()) -> {ok, term()} | {error, term()}.
to_term(Ref, Options) ->
    with_ref(Ref, {to_term, Ref}, Options, []).

with_ref(Ref, Request, Options, More) ->
    case is_ref(Ref) of
        true -> run(Request, Options, More);
        false -> py_call:badarg("~tP is no reference to a Python object of this node, or not any more", [Ref, 8])
    end.

%% @doc Whether a term refers to a Python object. Before the core is loaded none does.
-spec is_ref(term()) -> boolean().
is_ref(Term) ->
    try
        is_reference(Term) andalso causeway_nif:is_object(Term)
    catch
        error:not_loaded -> false
    end.

%% @doc Calls one of the functions of a module by which an interpreter tells about itself.
-spec call({binary(), binary()}, [term()], options()) -> {ok, term()} | {error, term()}.
call({Module, Function}, Args, Options) ->
    run({call, Module, Function, Args, #{}}, Options, []).

run(Request, Options, More) when is_map(Options) ->
    Wrong = [Option || {Name, Value} = Option <- maps:to_list(Options),
                       not (is_option(Name, Value) orelse (lists:member(Name, More) andalso is_result(Value)))],
    case {Wrong, py_request:target(maps:get(context, Options, pool), Request)} of
        {[], {ok, Target}} ->
            py_call:run(Target, Request, maps:merge(#{timeout => ?TIMEOUT}, Options));
        {[], {error, _} = Error} ->
            Error;
        {_, _} ->
            py_call:badarg("unknown or wrong options ~tP: there are timeout, error (pair or map), context (a pid)~s",
                   [Wrong, 8, [", result (term or ref)" || lists:member(result, More)]])
    end;
run(Request, Timeout, More) ->
    run(Request, #{timeout => Timeout}, More).

is_option(timeout, Time) -> py_request:is_timeout(Time);
is_option(error, Form) -> Form =:= pair orelse Form =:= map;
is_option(context, Context) -> is_pid(Context);
is_option(_Other, _Value) -> false.

is_result(Value) -> Value =:= term orelse Value =:= ref.
