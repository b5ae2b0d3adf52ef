%% @private
%% @doc Takes sockets over from Erlang: of `gen_tcp' and `gen_udp' with both of their backends, and of the module
%% `socket'.
%%
%% The reactor gets a duplicate of the descriptor, and the socket that held the original is closed: it closes
%% its number in its own time, which must not be the reactor's. Before that everything is asked that can be refused;
%% then what was received already is collected; where the handoff fails all the same, that is put back.
-module(py_reactor_socket).

-export([hand_over/3, take_stream/1, address/1]).

-type native() :: causeway_nif:context() | fun((Fd :: non_neg_integer(), Received :: binary()) -> ok).
-type info() :: #{binary() => term()}.

%% SOL_SOCKET and SO_ACCEPTCONN.
-define(ACCEPTS, {raw, 1, 30, 4}).

%% @doc Hands a socket or a descriptor to a context's reactor, which owns it exactly when the result is `ok'.
-spec hand_over(native(), py_reactor_context:handle() | term(), info()) -> ok | {error, term()}.
hand_over(Native, Fd, Info) when is_integer(Fd) ->
    case socket_of(Fd) of
        none -> native(causeway_nif:handoff(Native, Fd, Info, <<>>));
        Socket -> take_over(Native, Socket, Info, fun(_Kind) -> #{} end)
    end;
hand_over(Native, Socket, Info) ->
    take_over(Native, Socket, Info, fun(Kind) -> description(Kind, Socket) end).

%% @doc Takes a connected socket of the calling process over: a duplicate of its descriptor, which is the caller's to
%% close, and what was received already. A port is left open, passive, for raw bytes; other sockets are closed.
-spec take_stream(term()) -> {ok, Fd :: non_neg_integer(), Received :: binary()} | {error, term()}.
take_stream(Socket) ->
    case kind(Socket) of
        {ok, Kind} when Kind =:= stream; Kind =:= plain ->
            {ok, Fd} = descriptor(Socket),
            Reference = make_ref(),
            Keep = fun(Duplicate, Received) -> self() ! {Reference, Duplicate, Received}, ok end,
            case take(Kind, Keep, Socket, Fd, #{}) of
                ok -> receive {Reference, Duplicate, Received} -> {ok, Duplicate, Received} end;
                {error, _} = Error -> Error
            end;
        {ok, _} ->
            {error, {badarg, <<"the socket must be a connected one of a stream: it accepts, or has datagrams">>}};
        {error, _} = Error ->
            Error
    end.

%% @doc An IP address as the text that Python knows; everything else as it is.
-spec address(term()) -> term().
address(Address) when is_list(Address) ->
    unicode:characters_to_binary(Address);
address(Address) when is_tuple(Address) ->
    case inet:ntoa(Address) of
        {error, einval} -> Address;
        Text -> list_to_binary(Text)
    end;
address(Address) ->
    Address.

%% Which socket is it?

%% The socket whose descriptor this is. The caller is usually its owner, and linked to its port: all other sockets of
%% the node are only looked at where it is not.
socket_of(Fd) ->
    {links, Links} = process_info(self(), links),
    case port_of(Fd, [Port || Port <- Links, is_port(Port)]) of
        none ->
            case port_of(Fd, erlang:ports()) of
                none -> socket_of(Fd, socket:which_sockets());
                Port -> Port
            end;
        Port ->
            Port
    end.

port_of(_Fd, []) ->
    none;
port_of(Fd, [Port | Others]) ->
    %% A port of another driver would take the question for one of its own.
    case port_kind(Port) =/= other andalso inet:getfd(Port) =:= {ok, Fd} of
        true -> Port;
        false -> port_of(Fd, Others)
    end.

socket_of(_Fd, []) ->
    none;
socket_of(Fd, [Socket | Others]) ->
    case socket:getopt(Socket, otp, fd) of
        {ok, Fd} -> Socket;
        _ -> socket_of(Fd, Others)
    end.

port_kind(Port) ->
    case erlang:port_info(Port, name) of
        {name, "tcp_inet"} -> tcp;
        {name, "udp_inet"} -> udp;
        undefined -> closed;
        _ -> other
    end.

%% What kind of socket it is, and whether it is the caller's: of a stream (the bytes that were received
%% already are collected), of datagrams, or one that accepts.
kind(Port) when is_port(Port) ->
    case {port_kind(Port), erlang:port_info(Port, connected)} of
        {other, _} -> unknown(Port);
        {closed, _} -> {error, closed};
        {_, undefined} -> {error, closed};
        {_, {connected, Owner}} when Owner =/= self() -> {error, not_owner};
        {udp, _} -> {ok, datagrams};
        {tcp, _} -> accepts(inet:getopts(Port, [?ACCEPTS]))
    end;
kind({'$inet', Module, {Server, _}} = Socket) when is_pid(Server), Module =:= gen_tcp_socket;
                                                   is_pid(Server), Module =:= gen_udp_socket ->
    case {inet:info(Socket), Module} of
        {#{owner := Owner}, _} when Owner =/= self() -> {error, not_owner};
        {#{owner := _}, gen_udp_socket} -> {ok, datagrams};
        {#{owner := _}, gen_tcp_socket} -> accepts(inet:getopts(Socket, [?ACCEPTS]));
        _ -> {error, closed}
    end;
kind({'$socket', Reference} = Socket) when is_reference(Reference) ->
    try socket:getopt(Socket, otp, controlling_process) of
        {ok, Owner} when Owner =:= self() -> {ok, plain};
        {ok, _} -> {error, not_owner};
        {error, _} -> {error, closed}
    catch
        error:_ -> unknown(Socket)
    end;
kind({sslsocket, _, _}) ->
    {error, {badarg, <<"a TLS connection cannot be handed over: its keys are Erlang's. Hand the TCP socket over before "
                       "the handshake, and let the protocol do that with Python's ssl.MemoryBIO">>}};
kind(Other) ->
    unknown(Other).

accepts({ok, [{raw, _, _, <<0:32>>}]}) -> {ok, stream};
accepts({ok, [{raw, _, _, <<_:32>>}]}) -> {ok, listener};
accepts({error, _}) -> {error, closed}.

unknown(Term) ->
    {error, {badarg, py_call:error_text("~tP is no file descriptor and no socket of gen_tcp, gen_udp or socket",
                                        [Term, 8])}}.

%% Who is the peer?

%% What the caller need not say: of accepted connections the core knows it.
description(listener, _Socket) ->
    #{};
description(plain, Socket) ->
    plain_description(Socket);
description(_Kind, {'$inet', _, {_, Socket}}) ->
    plain_description(Socket);
description(Kind, Port) ->
    Type = case {inet:sockname(Port), Kind} of
               {{ok, {local, _}}, _} -> unix;
               {_, stream} -> tcp;
               {_, datagrams} -> udp
           end,
    case inet:peername(Port) of
        {ok, {Address, Number}} when Address =/= local -> peer(Type, Address, Number);
        _ -> #{<<"type">> => Type}
    end.

plain_description(Socket) ->
    case {socket:info(Socket), socket:getopt(Socket, {socket, acceptconn}), socket:peername(Socket)} of
        {_, {ok, true}, _} -> #{};
        {#{domain := local}, _, _} -> #{<<"type">> => unix};
        {#{type := Type}, _, {ok, #{addr := Address, port := Number}}} -> peer(type(Type), Address, Number);
        {#{type := Type}, _, _} -> #{<<"type">> => type(Type)}
    end.

type(stream) -> tcp;
type(dgram) -> udp;
type(Other) -> Other.

peer(Type, Address, Number) ->
    #{<<"type">> => Type, <<"addr">> => address(Address), <<"port">> => Number}.

%% Taking over

take_over(Native, Socket, Info, Description) ->
    case kind(Socket) of
        {ok, Kind} ->
            {ok, Fd} = descriptor(Socket),
            case causeway_nif:handoff_check(Native, Fd) of
                ok -> take(Kind, Native, Socket, Fd, maps:merge(Description(Kind), Info));
                {error, _} = Error -> native(Error)
            end;
        {error, _} = Error ->
            Error
    end.

descriptor(Port) when is_port(Port) -> inet:getfd(Port);
descriptor({'$inet', _, {_, Socket}}) -> descriptor(Socket);
descriptor({'$socket', _} = Socket) -> socket:getopt(Socket, otp, fd).

%% The module socket holds nothing back.
take(plain, Native, Socket, Fd, Info) ->
    give(Native, Fd, Info, <<>>, fun() -> leave(Socket) end);
take(Kind, Native, Port, Fd, Info) when is_port(Port) ->
    take_port(Kind, Native, Port, Fd, Info);
take(Kind, Native, Socket, Fd, Info) ->
    take_server(Kind, Native, Socket, Fd, Info).

%% Lets the socket end with its owner. socket:close would put the descriptor into blocking mode before, and with it the
%% duplicate: a reactor that accepts would wait in the kernel.
leave(Socket) ->
    Caller = self(),
    {Owner, Monitor} = spawn_monitor(fun() -> until_done(Caller, fun() -> ok end) end),
    ok = socket:setopt(Socket, otp, controlling_process, Owner),
    Owner ! done,
    receive {'DOWN', Monitor, process, Owner, _} -> ok end.

%% Waits to be told `done', or does something when the process that would tell it is dead.
until_done(Caller, WhenDead) ->
    Monitor = erlang:monitor(process, Caller),
    receive
        done -> ok;
        {'DOWN', Monitor, process, Caller, _} -> WhenDead()
    end.

%% Gives a duplicate to the reactor, or whoever else takes the socket over, then lets go of the original.
give(Keep, Fd, _Info, Data, LetGo) when is_function(Keep) ->
    case causeway_nif:duplicate(Fd) of
        {ok, Duplicate} ->
            ok = Keep(Duplicate, Data),
            ok = LetGo();
        {error, _} = Error ->
            Error
    end;
give(Native, Fd, Info, Data, LetGo) ->
    case causeway_nif:handoff_duplicate(Native, Fd, Info, Data) of
        ok -> LetGo();
        {error, _} = Error -> native(Error)
    end.

%% Where the native half says closed, it is the context that is.
native({error, closed}) ->
    {error, {no_context, <<"the context has stopped, or is about to: hand the connection to another">>}};
native(Result) ->
    Result.

%% Ports: the driver of gen_tcp and gen_udp

take_port(listener, Native, Port, Fd, Info) ->
    give(Native, Fd, Info, <<>>, fun() -> gen_tcp:close(Port) end);
take_port(Kind, Native, Port, Fd, Info) ->
    case inet:getstat(Port, [send_pend]) of
        {ok, [{send_pend, 0}]} -> quieten_port(Kind, Native, Port, Fd, Info);
        {ok, [{send_pend, Bytes}]} -> unsent(Bytes);
        {error, _} -> {error, closed}
    end.

unsent(Bytes) ->
    {error, {unsent, py_call:error_text("~b bytes that were sent on the socket wait for room, and must not be "
                                        "overtaken: hand it over when inet:getstat(Socket, [send_pend]) says 0",
                                        [Bytes])}}.

%% No more messages come, and what is received is not taken apart any more. (With {deliver, port} nobody can receive:
%% gen_tcp:recv would wait for ever.)
quieten_port(Kind, Native, Port, Fd, Info) ->
    Changed = [{active, false} | case Kind of
                                     stream -> [{packet, raw}, {deliver, term}];
                                     datagrams -> []
                                 end],
    {ok, Options} = inet:getopts(Port, [Option || {Option, _} <- Changed]),
    case inet:setopts(Port, Changed) of
        ok ->
            Messages = messages(Port),
            Result = case bytes(Messages, Options) of
                         {ok, Data} -> drain_port(Kind, Native, Port, Fd, Info, Data);
                         {error, _} = Error -> Error
                     end,
            Result =:= ok orelse put_back(Messages),
            Result =:= ok orelse inet:setopts(Port, Options),
            Result;
        {error, _} ->
            {error, closed}
    end.

%% Somebody who only takes the stream over goes on with the port.
let_go(Keep, _Port) when is_function(Keep) -> ok;
let_go(_Native, Port) -> close(Port).

drain_port(datagrams, Native, Port, Fd, Info, <<>>) ->
    give(Native, Fd, Info, <<>>, fun() -> close(Port) end);
drain_port(stream, Native, Port, Fd, Info, Data) ->
    case held(Port) of
        {ok, More} ->
            Result = give(Native, Fd, Info, <<Data/binary, More/binary>>, fun() -> let_go(Native, Port) end),
            Result =:= ok orelse More =:= <<>> orelse gen_tcp:unrecv(Port, More),
            Result;
        {error, _} = Error ->
            Error
    end.

%% Takes what the driver holds, and nothing from the system, where a peer that sends on would never let it end, and
%% the end of the stream would close the socket. A byte that is given back makes the driver forget that it
%% waits for the rest of a packet, which would keep it from returning what it has, and gives it something to return.
held(Port) ->
    case gen_tcp:unrecv(Port, <<0>>) of
        ok ->
            {ok, Received} = gen_tcp:recv(Port, 0, 0),
            <<0, Held/binary>> = iolist_to_binary(Received),
            {ok, Held};
        {error, _} = Error ->
            Error
    end.

close(Port) ->
    ok = inet:close(Port),
    forget(Port).

%% Servers: gen_tcp and gen_udp with inet_backend => socket

%% Such a socket has a process that may read at any moment, and that answers nobody who wants to read while it
%% waits to be told of something in an active mode. So it is suspended, looked at, and ended. Its state
%% is OTP's own affair: where it looks different from what is known, nothing is taken.
take_server(listener, Native, {_, _, {Server, _}}, Fd, Info) ->
    give(Native, Fd, Info, <<>>, fun() -> finish(Server) end);
take_server(Kind, Native, {_, _, {Server, _}} = Socket, Fd, Info) ->
    %% While it is suspended it cannot see the end of its owner.
    Caller = self(),
    Guard = spawn(fun() -> until_done(Caller, fun() -> exit(Server, kill) end) end),
    try
        {ok, Options} = server_options(Kind, Socket),
        ok = sys:suspend(Server),
        take_suspended(Kind, Native, Socket, Options, Fd, Info)
    catch
        exit:_ -> {error, closed}
    after
        Guard ! done
    end.

server_options(stream, Socket) -> inet:getopts(Socket, [packet]);
server_options(datagrams, _Socket) -> {ok, []}.

take_suspended(Kind, Native, {_, _, {Server, Core}} = Socket, Options, Fd, Info) ->
    Messages = messages(Socket),
    Ended = end_read(Kind, Server, Core),
    Result = case {bytes(Messages, Options), server_buffer(Kind, Server)} of
                 {{ok, Data}, {ok, More}} ->
                     give(Native, Fd, Info, <<Data/binary, More/binary>>, fun() -> finish(Server) end);
                 {{error, _} = Error, _} ->
                     Error;
                 {_, {error, _} = Error} ->
                     Error
             end,
    case Result of
        ok ->
            forget(Socket);
        {error, _} ->
            put_back(Messages),
            ok = sys:resume(Server),
            ok = look_again(Server, Core, Ended),
            Result
    end.

%% Where the rest of a packet is or was waited for, the module socket may have what came of that, and gives it to this
%% process only: that goes to what it has read. Returns what it waits for, if that does not come any more. It is so from
%% OTP 27 on, where the process may read ahead; before that, what it has read is all.
end_read(datagrams, _Server, _Core) ->
    nothing;
end_read(stream, Server, Core) ->
    Caller = self(),
    Tag = make_ref(),
    _ = sys:replace_state(Server, fun(State) ->
                                          {Ended, Changed} = without_read(State, Core),
                                          Caller ! {Tag, Ended},
                                          Changed
                                  end),
    receive {Tag, Ended} -> Ended after 0 -> nothing end.

without_read({State, {Parameters, #{buffer := Buffer, read_ahead := _} = Data}}, Core) ->
    Ended = cancelled(State, Core),
    Bytes = received(socket:recv(Core, 0, [], nowait), Core),
    {Ended, {State, {Parameters, Data#{buffer := joined(Bytes, Buffer)}}}};
without_read(State, _Core) ->
    {nothing, State}.

cancelled({recv, {select_info, _, Handle} = Select}, Core) ->
    case socket:cancel(Core, Select) of
        ok -> Handle;
        %% It has been told already.
        {error, _} -> nothing
    end;
cancelled(_State, _Core) ->
    nothing.

received({ok, Bytes}, _Core) ->
    Bytes;
received({select, {{select_info, _, _} = Select, Bytes}}, Core) ->
    _ = socket:cancel(Core, Select),
    Bytes;
received({select, Select}, Core) ->
    _ = socket:cancel(Core, Select),
    <<>>;
received({error, {_Reason, Bytes}}, _Core) when is_binary(Bytes) ->
    Bytes;
received({error, _}, _Core) ->
    <<>>.

joined(<<>>, Buffer) -> Buffer;
joined(Bytes, <<>>) -> Bytes;
joined(Bytes, Buffer) -> [Bytes | Buffer].

%% It goes on as if there were something to read.
look_again(_Server, _Core, nothing) -> ok;
look_again(Server, Core, Handle) ->
    Server ! {'$socket', Core, select, Handle},
    ok.

server_buffer(datagrams, _Server) ->
    {ok, <<>>};
server_buffer(stream, Server) ->
    case sys:get_state(Server) of
        {_State, {_Parameters, #{buffer := Bytes}}} when is_binary(Bytes) -> {ok, Bytes};
        {_State, {_Parameters, #{buffer := Pieces}}} when is_list(Pieces) ->
            {ok, iolist_to_binary(oldest_first(Pieces, []))};
        _ ->
            {error, {badarg, <<"what this version of gen_tcp_socket has read is not known: use the module socket, or "
                               "gen_tcp without inet_backend">>}}
    end.

%% The newest is the head; the oldest may be the tail itself.
oldest_first([Piece | Older], Newer) -> oldest_first(Older, [Piece | Newer]);
oldest_first([], Pieces) -> Pieces;
oldest_first(Oldest, Pieces) -> [Oldest | Pieces].

finish(Server) ->
    Monitor = erlang:monitor(process, Server),
    exit(Server, kill),
    receive {'DOWN', Monitor, process, Server, _} -> ok end.

%% What has reached the mailbox

%% Takes out what the socket has sent to the caller, oldest first.
messages(Socket) ->
    receive
        {tcp, Socket, _} = Message -> [Message | messages(Socket)];
        {Socket, {data, _}} = Message -> [Message | messages(Socket)];
        {http, Socket, _} = Message -> [Message | messages(Socket)];
        {ssl_tls, Socket, _, _, _} = Message -> [Message | messages(Socket)];
        {udp, Socket, _, _, _} = Message -> [Message | messages(Socket)];
        {udp, Socket, _, _, _, _} = Message -> [Message | messages(Socket)]
    after 0 -> []
    end.

put_back(Messages) ->
    lists:foreach(fun(Message) -> self() ! Message end, Messages).

%% Nobody waits for these any more.
forget(Socket) ->
    receive
        {Tag, Socket} when Tag =:= tcp_closed; Tag =:= tcp_passive; Tag =:= udp_closed; Tag =:= udp_passive ->
            forget(Socket);
        {Tag, Socket, _} when Tag =:= tcp_error; Tag =:= udp_error ->
            forget(Socket)
    after 0 -> ok
    end.

%% The bytes that were on the wire.
bytes([], _Options) ->
    {ok, <<>>};
bytes(Messages, Options) ->
    try
        Packet = proplists:get_value(packet, Options, none),
        {ok, iolist_to_binary([bytes_of(Packet, Message) || Message <- Messages])}
    catch
        throw:Text -> {error, {unread, Text}}
    end.

bytes_of(Packet, {tcp, _Socket, Data}) -> with_header(Packet, Data);
bytes_of(Packet, {_Socket, {data, Data}}) when Packet =/= none -> with_header(Packet, Data);
bytes_of(none, _Datagram) ->
    throw(<<"datagrams are in the mailbox of the calling process: hand the socket over in passive mode, or receive "
            "these before">>);
bytes_of(Packet, _Decoded) ->
    throw(py_call:error_text("messages in the mailbox of the calling process were decoded by {packet, ~p} and cannot "
                             "become bytes again: receive them before the handoff", [Packet])).

with_header(Bytes, Data) when is_integer(Bytes), Bytes > 0 -> [<<(iolist_size(Data)):Bytes/unit:8>>, Data];
with_header(_Packet, Data) -> Data.
