%% @private
%% @doc Requests as users write them: checked, made whole, and sent to where they run.
-module(py_request).

-export([run/4, start/2, start/3, await/2, cancel/1, cast/2, check/1, target/2, is_timeout/1]).
-export_type([place/0]).

%% One context, or whichever of the default pool can serve the request.
-type place() :: pid() | pool.

-define(IS_NAME(Name), (is_atom(Name) orelse is_binary(Name) orelse is_list(Name))).
-define(IS_CODE(Code), (is_binary(Code) orelse is_list(Code))).
-define(IS_TIMEOUT(T), (T =:= infinity orelse (is_integer(T) andalso T >= 0 andalso T =< 16#ffffffff))).

%% @doc Runs a request with a time-out or a map of options; where these say nothing of it, `Default' is the time-out.
-spec run(place(), py_call:request(), term(), timeout()) -> ok | {ok, term()} | py:error().
run(Place, Request, Options, Default) ->
    case options(Options, Default) of
        {ok, Whole} -> ready(Place, Request, fun(Target, Checked) -> py_call:run(Target, Checked, Whole) end);
        Error -> Error
    end.

%% @doc Starts a request whose answer {@link await/2} gets.
-spec start(place(), py_call:request()) -> {ok, reference()} | py:error().
start(Place, Request) ->
    ready(Place, Request, fun py_call:start/2).

%% @doc The same with a map of options, as {@link run/4} has them.
-spec start(place(), py_call:request(), map()) -> {ok, reference()} | py:error().
start(Place, Request, Options) ->
    case options(Options, infinity) of
        {ok, Whole} ->
            ready(Place, Request, fun(Target, Checked) -> py_call:start_within(Target, Checked, Whole) end);
        Error -> Error
    end.

%% @doc Gives up what {@link start/2} has started. What has ended already is no error.
-spec cancel(reference()) -> ok | py:error().
cancel(Reference) when is_reference(Reference) ->
    py_call:cancel(Reference);
cancel(NoReference) ->
    py_call:badarg("cancel needs the reference that create_task returned, not ~tP", [NoReference, 8]).

%% @doc Waits for it.
-spec await(reference(), timeout()) -> ok | {ok, term()} | py:error().
await(Reference, Timeout) when is_reference(Reference), ?IS_TIMEOUT(Timeout) ->
    py_call:await(Reference, Timeout);
await(Reference, Timeout) when is_reference(Reference) ->
    no_timeout(Timeout);
await(NoReference, _Timeout) ->
    py_call:badarg("await needs the reference that spawn_call returned, not ~tP", [NoReference, 8]).

%% @doc Sends a request that nobody waits for.
-spec cast(place(), py_call:request()) -> ok | py:error().
cast(Place, Request) ->
    ready(Place, Request, fun py_call:cast/2).

ready(Place, Request, Send) ->
    case check(Request) of
        {ok, Checked} ->
            case target(Place, Checked) of
                {ok, Target} -> Send(Target, Checked);
                {error, _} = Error -> Error
            end;
        Error ->
            Error
    end.

%% @doc A request whose parts are of the right types, its texts in UTF-8.
-spec check(py_call:request()) -> {ok, py_call:request()} | {error, {badarg, binary()}}.
check({call, Module, Function, Args, Kwargs})
  when ?IS_NAME(Module), ?IS_NAME(Function), is_list(Args), is_map(Kwargs) ->
    {ok, {call, py_call:utf8(Module), py_call:utf8(Function), Args, Kwargs}};
check({call, Module, Function, Args, Kwargs}) ->
    py_call:badarg("a call needs a module, a function (atoms, strings or binaries), a list of arguments and a map of "
                   "keyword arguments, not ~tP, ~tP, ~tP, ~tP", [Module, 8, Function, 8, Args, 8, Kwargs, 8]);
check({eval, Code, Locals}) when ?IS_CODE(Code), is_map(Locals) ->
    {ok, {eval, py_call:utf8(Code), Locals}};
check({eval, Code, Locals}) ->
    py_call:badarg("eval needs iodata and a map of names, not ~tP, ~tP", [Code, 8, Locals, 8]);
check({exec, Code}) when ?IS_CODE(Code) ->
    {ok, {exec, py_call:utf8(Code)}};
check({exec, Code}) ->
    py_call:badarg("exec needs iodata, not ~tP", [Code, 8]);
check({Form, Request}) when Form =:= collect; Form =:= async ->
    case check(Request) of
        {ok, Checked} -> {ok, {Form, Checked}};
        Error -> Error
    end.

%% @doc Where a request runs. In the pool it follows the first Python object among its arguments: an object can be
%% used in its own interpreter only.
-spec target(place(), py_call:request()) -> {ok, py_call:target()} | py:error().
target(pool, Request) ->
    case object(Request) of
        {ok, Reference} -> py_call:home(Reference);
        none -> py_call:pool()
    end;
target(Context, _Request) ->
    py_call:native(Context).

object({call, _Module, _Function, Args, Kwargs}) -> object_among(Args, Kwargs);
object({eval, _Code, Locals}) -> object_among([], Locals);
object({exec, _Code}) -> none;
object({collect, Request}) -> object(Request);
object({async, Request}) -> object(Request);
object({call_method, Reference, _Method, _Args, _Kwargs}) -> {ok, Reference};
object({getattr, Reference, _Name}) -> {ok, Reference};
object({to_term, Reference}) -> {ok, Reference}.

object_among([Term | Rest], Map) when is_reference(Term) ->
    case causeway_nif:is_object(Term) of
        true -> {ok, Term};
        false -> object_among(Rest, Map)
    end;
object_among([_Term | Rest], Map) -> object_among(Rest, Map);
object_among(_End, Map) when map_size(Map) > 0 -> object_among(maps:values(Map), #{});
object_among(_End, _Map) -> none.

%% @doc Whether something is a time-out.
-spec is_timeout(term()) -> boolean().
is_timeout(Term) -> ?IS_TIMEOUT(Term).

%% A time-out or a map of options, made whole.
options(Timeout, _Default) when ?IS_TIMEOUT(Timeout) ->
    {ok, #{timeout => Timeout}};
options(Options, Default) when is_map(Options) ->
    Whole = maps:merge(#{timeout => Default, error => pair, kwargs => #{}, result => term}, Options),
    case Whole of
        #{timeout := Timeout, error := Form, kwargs := Kwargs, result := Result}
          when map_size(Whole) =:= 4, ?IS_TIMEOUT(Timeout), (Form =:= pair orelse Form =:= map), is_map(Kwargs),
               (Result =:= term orelse Result =:= ref) ->
            {ok, Whole};
        _ -> py_call:badarg("unknown or wrong option in ~tP: there are timeout, error (pair or map), kwargs and "
                            "result (term or ref)", [Options, 8])
    end;
options(Wrong, _Default) ->
    no_timeout(Wrong).

no_timeout(Wrong) ->
    py_call:badarg("a time-out is a number of milliseconds from 0 to 4294967295 or infinity, not ~tP", [Wrong, 8]).
