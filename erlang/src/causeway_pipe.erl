%% @private
%% @doc Where {@link py_byte_channel:pipe/2} writes to.
-module(causeway_pipe).

-export([open/2, write/2, close/2]).

-record(target, {kind :: channel | file | tcp | socket,
                 to :: term(),
                 %% Whether it ends with the pipe.
                 close :: boolean()}).

%% @doc Opens what is to be written to; an open file, socket or channel stays as it is.
-spec open(py_byte_channel:target(), #{close => boolean()}) -> {ok, #target{}} | {error, term()} | badarg.
open(To, Options) ->
    case target(To) of
        {ok, Target} -> {ok, Target#target{close = maps:get(close, Options, Target#target.close)}};
        Error -> Error
    end.

target({file, Name}) ->
    case file:open(Name, [write, raw, binary]) of
        {ok, File} -> {ok, #target{kind = file, to = File, close = true}};
        {error, _} = Error -> Error
    end;
target(Device) when is_pid(Device); element(1, Device) =:= file_descriptor ->
    {ok, #target{kind = file, to = Device, close = false}};
target(Socket) when is_port(Socket); element(1, Socket) =:= '$inet' ->
    {ok, #target{kind = tcp, to = Socket, close = false}};
target(Socket) when element(1, Socket) =:= '$socket' ->
    {ok, #target{kind = socket, to = Socket, close = false}};
target(Channel) when is_reference(Channel) ->
    case py_byte_channel:info(Channel) of
        #{} -> {ok, #target{kind = channel, to = Channel, close = true}};
        {error, _} = Error -> Error
    end;
target(_Other) ->
    badarg.

%% @doc Writes messages, and waits until the target has taken them.
-spec write(#target{}, [binary()]) -> ok | {error, term()}.
write(#target{kind = channel, to = Channel}, Messages) -> send_each(Channel, Messages);
write(#target{kind = file, to = File}, Messages) -> file:write(File, Messages);
write(#target{kind = tcp, to = Socket}, Messages) -> gen_tcp:send(Socket, Messages);
write(#target{kind = socket, to = Socket}, Messages) -> sent(socket:send(Socket, Messages)).

send_each(_Channel, []) ->
    ok;
send_each(Channel, [Message | Rest]) ->
    case py_byte_channel:send(Channel, Message, infinity) of
        ok -> send_each(Channel, Rest);
        {error, _} = Error -> Error
    end.

sent({error, {Reason, _Rest}}) -> {error, Reason};
sent(Result) -> Result.

%% @doc The pipe is over: with `ok' all was written, with an error not.
-spec close(#target{}, ok | {error, term()}) -> ok | {error, term()}.
close(#target{close = false}, _Outcome) -> ok;
close(#target{kind = channel, to = Channel}, ok) -> py_byte_channel:close(Channel);
close(#target{kind = channel, to = Channel}, {error, {aborted, Reason}}) -> py_byte_channel:abort(Channel, Reason);
close(#target{kind = channel, to = Channel}, {error, Reason}) -> py_byte_channel:abort(Channel, Reason);
close(#target{kind = file, to = File}, _Outcome) -> file:close(File);
close(#target{kind = tcp, to = Socket}, _Outcome) -> gen_tcp:close(Socket);
close(#target{kind = socket, to = Socket}, _Outcome) -> socket:close(Socket).
