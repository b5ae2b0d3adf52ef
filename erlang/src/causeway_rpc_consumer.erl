%% @doc A process that calls and takes what comes, by a module with the callbacks of {@link causeway_rpc_provider}: `init/1'
%% gets what {@link start_link/5} is given, `handle_open/2' the stream when the call was accepted, `handle_chunk/2' each
%% chunk, and `handle_eof/1' the end. A stream that is quiet is no error.
%%
%% It ends normally after the end and when it stops with the reason `normal'; after an error of the stream it ends with
%% that as the reason, when `terminate/2' was called.
-module(causeway_rpc_consumer).

-export([start_link/4, start_link/5]).

%% @doc The same as `start_link(Module, Init, Name, Args, #{})'.
-spec start_link(module(), Init :: term(), causeway_rpc:name(), Args :: term()) -> {ok, pid()} | {error, term()}.
start_link(Module, Init, Name, Args) ->
    start_link(Module, Init, Name, Args, #{}).

%% @doc Calls a name with arguments, as a stream that the server sends unless the options say otherwise.
%% Returns when the provider has accepted, or with the error of {@link causeway_rpc:call_stream/3}; `{error,
%% {Code, Message}}' where `init/1' rejects. The option `owner' is not looked at: that is the process.
-spec start_link(module(), Init :: term(), causeway_rpc:name(), Args :: term(), causeway_rpc:opts()) ->
          {ok, pid()} | {error, term()}.
start_link(Module, Init, Name, Args, Opts) ->
    Parent = self(),
    proc_lib:start_link(erlang, apply, [fun() -> start(Parent, Module, Init, Name, Args, Opts) end, []]).

start(Parent, Module, Init, Name, Args, Opts) ->
    case open(Module:init(Init), Name, Args, Opts) of
        {ok, Stream, State} ->
            proc_lib:init_ack(Parent, {ok, self()}),
            case causeway_rpc_provider:run(Module, Stream, State) of
                {failed, Reason} -> exit(Reason);
                _Done -> ok
            end;
        {error, _} = Error ->
            unlink(Parent),
            proc_lib:init_ack(Parent, Error)
    end.

open({ok, State}, Name, Args, Opts) ->
    case causeway_rpc:call_stream(Name, Args, maps:without([owner], Opts)) of
        {ok, Stream} -> {ok, Stream, State};
        {error, _} = Error -> Error
    end;
open({reject, Code, Message}, _Name, _Args, _Opts) ->
    {error, {Code, Message}}.
