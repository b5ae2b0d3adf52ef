%% @private
%% @doc The byte streams below a packet connection, of every kind, seen by the connection's process: what there is is
%% read without waiting, and messages say when there is more, or room again.
%%
%% Descriptors are read and written by the core, and so is what goes out on a socket of gen_tcp, which would make the
%% process wait where the peer does not read. What comes in there is read by its driver, in an active mode: the schedulers
%% themselves look for its input, which takes half of the time of `enif_select', whose descriptors have a thread of their
%% own. It is only asked for so many messages at a time. Sockets of the module socket become bare descriptors.
-module(causeway_packet_transport).

-export([prepare/1, open/1, read/3, gather/3, fill/2, pause/1, discard/1, write/2, event/2, close_output/1, close/1, kind/1]).
%% How many bytes the driver reads at a time, and how often until it is asked for more.
-define(BUFFER, 65536).
-define(MESSAGES, 32).
%% How much waits between a program and a connection.
-define(PROCESS_ROOM, 262144).
%% How many bytes are written to TLS at once.
-define(AT_ONCE, 262144).
%% How long the end of TLS may take, in milliseconds.
-define(CLOSING, 1000).

-export_type([transport/0, prepared/0, opened/0]).

-type transport() :: gen_tcp:socket() | socket:socket() | ssl:sslsocket() | Fd :: non_neg_integer()
                   | {InputFd :: non_neg_integer(), OutputFd :: non_neg_integer()}
                   | {Input :: py_byte_channel:channel(), Output :: py_byte_channel:channel()}
                   | pid() | fun(() -> {ok, transport()} | {error, term()}).
-type prepared() :: {wire, non_neg_integer(), non_neg_integer(), binary()}
                  | {socket, gen_tcp:socket(), non_neg_integer(), binary()}
                  | {channels, py_byte_channel:channel(), py_byte_channel:channel()}
                  | {ssl, ssl:sslsocket(), binary()}
                  | {connect, fun(() -> {ok, transport()} | {error, term()})}.
-opaque opened() :: {wire, causeway_nif:wire()}
                  | {socket, gen_tcp:socket(), causeway_nif:wire()}
                  | {channels, py_byte_channel:channel(), py_byte_channel:channel()}
                  | {ssl, ssl:sslsocket(), Writer :: pid()}.

%% @doc Takes a transport over from the calling process, which owns it, for a connection that is about to start.
%%
%% The second result takes it on to the connection's process once that is there, or closes it where there is none.
-spec prepare(transport()) -> {ok, prepared(), fun((pid() | none) -> ok | {error, term()})} | {error, term()}.
prepare(Fd) when is_integer(Fd) ->
    prepare({Fd, Fd});
prepare({Fd, Fd}) when is_integer(Fd) ->
    case causeway_nif:duplicate(Fd) of
        {ok, Duplicate} -> wire(Duplicate, Duplicate, <<>>);
        {error, _} = Error -> Error
    end;
prepare({Input, Output}) when is_integer(Input), is_integer(Output) ->
    case {causeway_nif:duplicate(Input), causeway_nif:duplicate(Output)} of
        {{ok, In}, {ok, Out}} -> wire(In, Out, <<>>);
        {{ok, In}, Error} -> ok = causeway_nif:close(In), Error;
        {Error, {ok, Out}} -> ok = causeway_nif:close(Out), Error;
        {Error, _} -> Error
    end;
prepare({Input, Output}) when is_reference(Input), is_reference(Output) ->
    case {py_byte_channel:info(Input), py_byte_channel:info(Output)} of
        {#{}, #{}} -> {ok, {channels, Input, Output}, fun(_Pid) -> ok end};
        _ -> {error, not_local}
    end;
%% The standard streams of a program ({@link causeway_process_stream}), which stays the caller's.
prepare(Process) when is_pid(Process) ->
    {ok, Input} = py_byte_channel:new(#{max_size => ?PROCESS_ROOM}),
    {ok, Output} = py_byte_channel:new(#{max_size => ?PROCESS_ROOM}),
    case causeway_process_stream:stream(Process, stdout, Input) of
        ok ->
            case causeway_process_stream:stream(Process, stdin, Output) of
                ok -> prepare({Input, Output});
                {error, _} = Error -> Error
            end;
        {error, _} = Error ->
            Error
    end;
prepare(Connect) when is_function(Connect, 0) ->
    {ok, {connect, Connect}, fun(_Pid) -> ok end};
prepare(Socket) when element(1, Socket) =:= sslsocket ->
    prepare_ssl(Socket);
prepare(Socket) ->
    case py_reactor_socket:take_stream(Socket) of
        {ok, Fd, Received} when is_port(Socket) ->
            Pass = fun(none) -> _ = gen_tcp:close(Socket), causeway_nif:close(Fd);
                      (Pid) -> gen_tcp:controlling_process(Socket, Pid)
                   end,
            {ok, {socket, Socket, Fd, Received}, Pass};
        {ok, Fd, Received} -> wire(Fd, Fd, Received);
        {error, {badarg, _}} -> {error, {badarg, wrong_transport(Socket)}};
        {error, _} = Error -> Error
    end.

wrong_transport(Term) ->
    py_call:error_text("a packet connection goes over a connected socket of gen_tcp, ssl or socket, a descriptor or "
                       "two, two byte channels, a process stream, or what a fun of no arguments returns as {ok, Transport}, not over ~tP",
                       [Term, 8]).

wire(Input, Output, Received) ->
    GiveUp = fun(none) when Input =:= Output -> causeway_nif:close(Input);
                (none) -> ok = causeway_nif:close(Input), causeway_nif:close(Output);
                (_Pid) -> ok
             end,
    {ok, {wire, Input, Output, Received}, GiveUp}.

prepare_ssl(Socket) ->
    case ssl:setopts(Socket, [{active, false}, {mode, binary}, {packet, raw}]) of
        ok ->
            Received = iolist_to_binary(ssl_messages(Socket)),
            Pass = fun(none) -> _ = ssl:close(Socket), ok;
                      (Pid) -> ssl:controlling_process(Socket, Pid)
                   end,
            {ok, {ssl, Socket, Received}, Pass};
        {error, _} = Error ->
            Error
    end.

ssl_messages(Socket) ->
    receive {ssl, Socket, Data} -> [Data | ssl_messages(Socket)] after 0 -> [] end.

%% @doc Opens it in the connection's process. What was received already comes with it.
-spec open(prepared()) -> {ok, opened(), Received :: binary()} | {error, term()}.
open({wire, Input, Output, Received}) ->
    case causeway_nif:wire_open(Input, Output) of
        {ok, Wire} -> {ok, {wire, Wire}, Received};
        {error, eperm} -> {error, {badarg, <<"a file cannot be waited for: a packet connection needs a socket or pipes">>}};
        {error, _} = Error -> Error
    end;
open({socket, Socket, Fd, Received}) ->
    ok = inet:setopts(Socket, [{mode, binary}, {header, 0}, {buffer, ?BUFFER}, {show_econnreset, true}]),
    case causeway_nif:wire_open(Fd, Fd) of
        {ok, Wire} -> {ok, {socket, Socket, Wire}, Received};
        {error, _} = Error -> Error
    end;
open({channels, Input, Output} = Channels) ->
    Connection = self(),
    _ = spawn(fun() -> watch(Connection, Input, Output) end),
    {ok, Channels, <<>>};
open({ssl, Socket, Received}) ->
    Connection = self(),
    {ok, {ssl, Socket, spawn_link(fun() -> ssl_writer(Connection, Socket) end)}, Received};
open({connect, Connect}) ->
    case Connect() of
        {ok, Transport} -> connected(prepare(Transport));
        {error, _} = Error -> Error;
        Other -> {error, {badarg, wrong_transport(Other)}}
    end.

%% Nothing else tells those at the other ends that the connection was killed.
watch(Connection, Input, Output) ->
    Monitor = erlang:monitor(process, Connection),
    receive
        {'DOWN', Monitor, process, Connection, _} ->
            ok = py_byte_channel:close(Output),
            py_byte_channel:close(Input)
    end.

connected({ok, Prepared, Pass}) ->
    case open(Prepared) of
        {ok, _, _} = Opened ->
            ok = Pass(self()),
            Opened;
        {error, _} = Error ->
            ok = Pass(none),
            Error
    end;
connected({error, _} = Error) ->
    Error.

%% @doc What kind it is, for people.
-spec kind(opened()) -> atom().
kind(Opened) -> element(1, Opened).

%% @doc Reads what there is, at most about so many bytes. Where that is nothing and `Watch' is true, a message comes for
%% {@link event/2} when there is.
-spec read(opened(), pos_integer(), boolean()) -> {ok, iodata()} | empty | closed | {error, term()}.
read({wire, Wire}, Max, Watch) ->
    causeway_nif:wire_read(Wire, Max, Watch);
%% Where much is expected the driver, which reads it in pieces, stays out of it.
read({socket, Socket, Wire}, Max, true) when Max >= ?BUFFER ->
    case from_driver(Socket) of
        none -> causeway_nif:wire_read(Wire, Max, true);
        Received -> Received
    end;
read({socket, Socket, _Wire}, _Max, true) ->
    case inet:setopts(Socket, [{active, ?MESSAGES}]) of
        ok -> empty;
        %% A message says so, and comes after all others.
        {error, _} -> empty
    end;
read({socket, Socket, Wire}, Max, false) ->
    case from_driver(Socket) of
        none -> causeway_nif:wire_read(Wire, Max, false);
        Received -> Received
    end;
read({channels, Input, _}, Max, Watch) ->
    case py_byte_channel:recv_many(Input, Max, 0) of
        {ok, Messages} -> {ok, Messages};
        {error, timeout} when Watch -> {ok, _} = py_byte_channel:notify(Input, readable), empty;
        {error, timeout} -> empty;
        {error, closed} -> closed;
        {error, _} = Error -> Error
    end;
read({ssl, Socket, _}, _Max, _Watch) ->
    case ssl:setopts(Socket, [{active, once}]) of
        ok -> empty;
        %% How ssl says that the connection has ended while nobody read.
        {error, Reason} when Reason =:= einval; Reason =:= closed -> closed;
        {error, _} = Error -> Error
    end.

%% The driver reads no more; what it has sent already.
from_driver(Socket) ->
    _ = inet:setopts(Socket, [{active, false}]),
    receive
        {tcp, Socket, Data} -> {ok, Data};
        {tcp_error, Socket, Reason} -> {error, Reason};
        {tcp_closed, Socket} -> closed
    after 0 ->
        none
    end.

%% @doc Begins to read into one binary of so many bytes, which begins with what has come already; `{ok, Data}' is what had
%% come from the driver meanwhile, and then nothing is begun.
-spec gather(opened(), iodata(), pos_integer()) -> ok | {ok, binary()} | closed | {error, term()} | unsupported.
gather({wire, Wire}, Beginning, Size) ->
    causeway_nif:wire_gather(Wire, iolist_to_binary(Beginning), Size);
gather({socket, Socket, Wire}, Beginning, Size) ->
    case from_driver(Socket) of
        none -> gather({wire, Wire}, Beginning, Size);
        Received -> Received
    end;
gather(_Opened, _Beginning, _Size) ->
    unsupported.

%% @doc Reads some of it: `{more, Bytes}' says how much, and `{ok, Binary}' that all is there.
-spec fill(opened(), boolean()) -> {ok, binary()} | {more, pos_integer()} | empty | closed | {error, term()}.
fill({wire, Wire}, Watch) -> causeway_nif:wire_fill(Wire, Watch);
fill({socket, _Socket, Wire}, Watch) -> causeway_nif:wire_fill(Wire, Watch).

%% @doc Has no more messages come with what there is; what was sent already is still in the mailbox.
-spec pause(opened()) -> ok.
pause({socket, Socket, _Wire}) -> _ = inet:setopts(Socket, [{active, false}]), ok;
pause(_Opened) -> ok.

%% @doc Throws away some of what has come already.
-spec discard(opened()) -> more | done.
discard({socket, Socket, Wire}) ->
    _ = inet:setopts(Socket, [{active, false}]),
    discard({wire, Wire});
discard({wire, Wire}) ->
    case causeway_nif:wire_read(Wire, 65536, false) of
        {ok, _} -> more;
        _ -> done
    end;
discard(_Opened) ->
    done.

%% @doc Writes binaries without waiting, and says how many bytes of them are taken. After `busy' a message comes for
%% {@link event/2} when it can go on.
-spec write(opened(), [binary()]) -> {ok | busy, non_neg_integer()} | {error, term()}.
write({socket, _Socket, Wire}, Binaries) ->
    causeway_nif:wire_write(Wire, Binaries);
write({wire, Wire}, Binaries) ->
    causeway_nif:wire_write(Wire, Binaries);
write({channels, _, Output}, Binaries) ->
    write_messages(Output, Binaries, 0);
%% Not all at once: its driver takes what it is given, and only then waits for the peer to read.
write({ssl, _, Writer}, Binaries) ->
    First = first(Binaries, ?AT_ONCE),
    Writer ! {write, First},
    {busy, iolist_size(First)}.

first([Binary | Others], Room) when byte_size(Binary) < Room -> [Binary | first(Others, Room - byte_size(Binary))];
first([Binary | _Others], Room) -> [binary:part(Binary, 0, Room)];
first([], _Room) -> [].

write_messages(_Output, [], Sent) ->
    {ok, Sent};
write_messages(Output, [Binary | Others], Sent) ->
    case py_byte_channel:send(Output, Binary) of
        ok -> write_messages(Output, Others, Sent + byte_size(Binary));
        busy -> {ok, _} = py_byte_channel:notify(Output, writable), {busy, Sent};
        {error, closed} -> {error, epipe};
        {error, _} = Error -> Error
    end.

ssl_writer(Connection, Socket) ->
    receive
        {write, Binaries} ->
            Connection ! {causeway_written, self(), ssl:send(Socket, Binaries)},
            ssl_writer(Connection, Socket)
    end.

%% @doc What a message means for the transport, where it is one of its own.
-spec event(opened(), term()) -> readable | writable | {data | data_once, binary()} | closed | {error, term()} | other.
event({socket, Socket, _}, {tcp, Socket, Data}) -> {data, Data};
event({socket, Socket, _}, {tcp_passive, Socket}) -> readable;
event({socket, Socket, _}, {tcp_closed, Socket}) -> closed;
event({socket, Socket, _}, {tcp_error, Socket, Reason}) -> {error, Reason};
event({socket, _, _}, {causeway_wire, What}) -> What;
event({wire, _}, {causeway_wire, What}) -> What;
event({channels, _, _}, {py_byte_channel, _, What}) -> What;
event({ssl, Socket, _}, {ssl, Socket, Data}) -> {data_once, Data};
event({ssl, Socket, _}, {ssl_closed, Socket}) -> closed;
event({ssl, Socket, _}, {ssl_error, Socket, Reason}) -> {error, Reason};
event({ssl, _, Writer}, {causeway_written, Writer, ok}) -> writable;
event({ssl, _, Writer}, {causeway_written, Writer, {error, closed}}) -> {error, epipe};
event({ssl, _, Writer}, {causeway_written, Writer, {error, _} = Error}) -> Error;
event(_Opened, _Message) -> other.

%% @doc Lets the peer read the end. What it sends can be read on: so not with TLS, where ssl ends both directions.
-spec close_output(opened()) -> ok.
close_output({socket, _Socket, Wire}) -> causeway_nif:wire_close_output(Wire);
close_output({wire, Wire}) -> causeway_nif:wire_close_output(Wire);
close_output({channels, _, Output}) -> py_byte_channel:close(Output);
close_output({ssl, _, _}) -> ok.

%% @doc Closes it.
-spec close(opened()) -> ok.
close({socket, Socket, Wire}) ->
    ok = gen_tcp:close(Socket),
    causeway_nif:wire_close(Wire);
close({wire, Wire}) ->
    causeway_nif:wire_close(Wire);
close({channels, Input, Output}) ->
    ok = py_byte_channel:close(Output),
    py_byte_channel:close(Input);
close({ssl, Socket, Writer}) ->
    unlink(Writer),
    exit(Writer, kill),
    %% It waits for minutes where the peer does not read.
    {Closer, Monitor} = spawn_monitor(fun() -> ssl:close(Socket) end),
    receive
        {'DOWN', Monitor, process, Closer, _} -> ok
    after ?CLOSING ->
        ok
    end.
