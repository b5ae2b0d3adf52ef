%% @private
%% @doc The way of a request to a context and of its answer back.
-module(py_call).

-export([run/3, start/2, start/3, start_within/3, await/2, cancel/1, forget/1, cast/2, pool/0, native/1, home/1]).
-export([utf8/1, text/1, badarg/2, error_text/2]).
-export_type([request/0, options/0, target/0]).

-type request() :: {call, name(), name(), [term()], map()} | {eval, iodata(), map()} | {exec, iodata()}
                 | {call_method, reference(), name(), [term()], map()} | {getattr, reference(), name()}
                 | {to_term, reference()} | {ref, request()} | {async, request()} | {collect, request()}
                 | {stream, request()}
                 | {setup, request()} | {next, reference(), pos_integer(), reference()}.
-type name() :: atom() | string() | binary().
-type target() :: causeway_nif:context() | tuple().
-type options() :: #{timeout => timeout(), error => pair | map, result => term | ref}.

-define(HANDLE(Tag), {?MODULE, Tag}).

%% @doc Sends a request and waits for its answer.
%%
%% After the time-out, or when the caller dies, the call is given up: what Python executes is interrupted,
%% and nothing is left in the caller's mailbox.
-spec run(target(), request(), options()) -> ok | {ok, term()} | {error, term()}.
run(Target, Request, Options) ->
    Tag = make_ref(),
    Tagged = {Tag, in_form(Request, Options)},
    case causeway_nif:ask(Target, Tagged, error_form(Options), maps:get(timeout, Options)) of
        full ->
            overloaded();
        closed ->
            stopped();
        Call ->
            %% The call is given up with the last reference to it: the guard keeps this one until the answer is
            %% there. That always comes, for a call whose time is over too: a timer here would cost more
            %% than all else that is done for a small call on this side.
            case look(Call) of
                wait -> receive {Tag, Result} when is_reference(Call) -> Result end;
                Answer -> Answer
            end
    end.

%% Other processes have their turn between two looks, and where there are enough of them the answer is there at the next
%% one. A message that is not needed is half of a small call: it is made, sent, received and freed by three threads.
look(Call) ->
    erlang:yield(),
    case causeway_nif:look(Call) of
        pending -> look(Call);
        AnswerOrWait -> AnswerOrWait
    end.

%% @doc Sends a request; {@link await/2} waits for the answer, in the same process.
-spec start(target(), request()) -> {ok, reference()} | {error, term()}.
start(Target, Request) ->
    Tag = make_ref(),
    submit(Target, Tag, {Tag, Request}).

%% @doc The same on behalf of another process, whose names the request sees.
-spec start(target(), request(), pid()) -> {ok, reference()} | {error, term()}.
start(Target, Request, Beneficiary) ->
    Tag = make_ref(),
    submit(Target, Tag, {Tag, Request, Beneficiary}).

%% @doc The same with the options of {@link run/3}: after the time-out the answer is an error.
-spec start_within(target(), request(), options()) -> {ok, reference()} | {error, term()}.
start_within(Target, Request, Options) ->
    Tag = make_ref(),
    submit(Target, Tag, {Tag, Request}, error_form(Options), maps:get(timeout, Options)).

submit(Target, Tag, Tagged) ->
    submit(Target, Tag, Tagged, 0, infinity).

submit(Target, Tag, Tagged, ErrorForm, Timeout) ->
    case causeway_nif:submit(Target, Tagged, ErrorForm, Timeout) of
        full -> overloaded();
        closed -> stopped();
        Call ->
            %% Held where the process holds it and nobody else: the call is given up when the process dies.
            put(?HANDLE(Tag), Call),
            {ok, Tag}
    end.

%% @doc Waits for the answer to a request of this process. After a time-out it can be waited for again.
-spec await(reference(), timeout()) -> ok | {ok, term()} | {error, term()}.
await(Tag, Timeout) ->
    case get(?HANDLE(Tag)) of
        undefined ->
            {error, {unknown_call, <<"no call of this process has that reference, or it was awaited already">>}};
        _Call ->
            receive
                {Tag, Result} ->
                    erase(?HANDLE(Tag)),
                    Result
            after Timeout -> {error, timeout}
            end
    end.

%% @doc Gives up a request that {@link start/2} has sent: after this no answer comes.
-spec cancel(reference()) -> ok.
cancel(Tag) ->
    _ = case erase(?HANDLE(Tag)) of
            undefined -> ok;
            Call -> causeway_nif:cancel(Call) =:= sent andalso receive {Tag, _} -> ok end
        end,
    ok.

%% @doc The answer has come and was taken from the mailbox by the process itself.
-spec forget(reference()) -> ok.
forget(Tag) ->
    _ = erase(?HANDLE(Tag)),
    ok.

%% @doc Sends a request that nobody waits for.
-spec cast(target(), request()) -> ok | {error, term()}.
cast(Target, Request) ->
    case causeway_nif:cast(Target, Request) of
        full -> overloaded();
        closed -> stopped();
        ok -> ok
    end.

%% @doc The contexts of the default pool.
-spec pool() -> {ok, tuple()} | {error, term()}.
pool() ->
    case py_contexts:pool() of
        {ok, _} = Pool ->
            Pool;
        error ->
            {error, {no_context, <<"no context runs: start the application causeway, or call py:start_contexts()">>}}
    end.

%% @doc The native half of a context.
-spec native(pid()) -> {ok, target()} | {error, term()}.
native(Pid) ->
    case py_contexts:native(Pid) of
        {ok, _} = Native ->
            Native;
        error ->
            {error, {no_context, error_text("~p is no running context: take one from py:context() or py:context(Index)",
                                            [Pid])}}
    end.

%% @doc The contexts in which a Python object can be used.
-spec home(reference()) -> {ok, target()} | {error, term()}.
home(Reference) ->
    case causeway_nif:object_context(Reference) of
        main -> workers();
        gone -> {error, {context_stopped, <<"the context that the Python object came from has stopped">>}};
        Context -> native(Context)
    end.

workers() ->
    case {py_contexts:pool_mode(), py_contexts:worker()} of
        {worker, _} -> pool();
        {_, {ok, _} = Worker} -> Worker;
        {_, error} -> {error, {no_context, <<"no context of the mode worker runs, in which the Python object can be used: "
                                             "py_context:start_link(#{}) starts one">>}}
    end.

%% @doc iodata in UTF-8, or a string as Unicode has it. What is neither is refused where it is read.
-spec utf8(term()) -> term().
utf8(List) when is_list(List) ->
    case iodata(List) of
        {ok, Binary} -> Binary;
        error -> string(List)
    end;
utf8(Other) ->
    Other.

iodata(List) ->
    try iolist_to_binary(List) of
        Binary -> valid(Binary)
    catch
        error:badarg -> error
    end.

string(List) ->
    try unicode:characters_to_binary(List) of
        Binary when is_binary(Binary) -> Binary;
        _ -> List
    catch
        error:badarg -> List
    end.

%% @doc A name in UTF-8.
-spec text(term()) -> {ok, binary()} | error.
text(Name) when is_atom(Name) ->
    {ok, atom_to_binary(Name)};
text(Name) ->
    case utf8(Name) of
        Binary when is_binary(Binary) -> valid(Binary);
        _ -> error
    end.

valid(Binary) ->
    case unicode:characters_to_binary(Binary) of
        Binary -> {ok, Binary};
        _ -> error
    end.

%% @doc The error of a function that was called with the wrong things.
-spec badarg(io:format(), [term()]) -> {error, {badarg, binary()}}.
badarg(Format, Arguments) ->
    {error, {badarg, error_text(Format, Arguments)}}.

%% @doc A text for an error term.
-spec error_text(io:format(), [term()]) -> binary().
error_text(Format, Arguments) ->
    <<_/binary>> = unicode:characters_to_binary(io_lib:format(Format, Arguments)).

in_form(Request, #{result := ref}) -> {ref, Request};
in_form(Request, _Options) -> Request.

error_form(#{error := map}) -> 1;
error_form(_Options) -> 0.

overloaded() ->
    {error, {overloaded, <<"too many calls wait for this context: call less at once, use more contexts, "
                           "or raise its max_queue">>}}.

stopped() ->
    {error, {no_context, <<"the context has stopped: take another from py:context() or py:context(Index)">>}}.
