%% @doc Byte channels: raw bytes between Erlang and Python, both ways, in order and with back-pressure.
%%
%% A channel carries messages, which are binaries here and bytes there: they keep their boundaries. Any number of
%% processes, threads and asyncio tasks send to it and receive from it; who waits is served first come first served.
%% Python gets the channel as an `erlang.ByteChannel' when its reference is passed to a call.
%%
%% A channel lives while anybody refers to it. When Erlang, which has made it, has no reference any more, it is closed
%% for Python: what is queued can still be received, nothing more can be sent. Keep the reference as long as Python
%% uses the channel; the arguments of a call that runs are none.
%%
%% Small messages are copied once on each side; binaries and `bytes' of 16 KB and more are passed by reference.
%%
%% A wrong argument is an error of the class `badarg', with a text that the shell prints. The reference of another
%% node is `{error, not_local}': a channel joins the processes of one node with its Python. After the end it
%% is `{error, closed}', or `{error, {aborted, Reason}}'. Where there is no memory for a message,
%% `system_limit' is raised, and `not_loaded' before the application has started.
%%
%% Time-outs are in milliseconds, from 0 to 4,294,967,295, or `infinity'. Those who wait block the calling
%% process and no scheduler.
-module(py_byte_channel).

-export([new/0, new/1, send/2, send/3, recv/1, recv/2, try_receive/1, recv_many/2, recv_many/3, close/1, abort/2,
         info/1, notify/2, pipe/2, pipe/3, fold/3, register_callbacks/0]).
-export_type([channel/0, opts/0, target/0, info/0]).

-type channel() :: reference().
%% It keeps the channel alive. Known on its own node only.
-type opts() :: #{max_size => non_neg_integer()}.
%% `max_size': how many bytes may be queued, below 2^60; 0, the default, is no limit. A message that is larger
%% has its turn when the channel is empty.
-type target() :: channel() | file:io_device() | {file, file:name_all()} | gen_tcp:socket() | socket:socket().
%% Where {@link pipe/3} writes to.
-type info() :: #{size := non_neg_integer(), max_size := non_neg_integer(), closed := boolean(), aborted := boolean(),
                  messages := non_neg_integer(), messages_in := non_neg_integer(), messages_out := non_neg_integer(),
                  bytes_in := non_neg_integer(), bytes_out := non_neg_integer(),
                  waiting_receivers := non_neg_integer(), waiting_senders := non_neg_integer()}.
%% `size' and `max_size' are in bytes, `messages' is how many are queued; what ends in `in' and `out' is how
%% much was ever sent and received.
-type ended() :: {error, closed | {aborted, Reason :: term()} | not_local}.

-define(RECEIVE_CALLBACK, '_py_byte_channel_receive').
-define(TRY_RECEIVE_CALLBACK, '_py_byte_channel_try_receive').
%% For how many microseconds a sender looks for room before it waits.
-define(PATIENCE, 20).
-define(PIPED_AT_ONCE, 1048576).

%% @doc Makes a channel without limit.
-spec new() -> {ok, channel()}.
new() ->
    new(#{}).

%% @doc Makes a channel.
-spec new(opts()) -> {ok, channel()}.
new(#{} = Options) when map_size(Options) =:= 0 ->
    {ok, causeway_nif:channel_new(0)};
new(#{max_size := Size} = Options) when map_size(Options) =:= 1, is_integer(Size), Size >= 0, Size < 1 bsl 60 ->
    {ok, causeway_nif:channel_new(Size)};
new(Options) ->
    bad(new, [Options], #{1 => <<"must be #{max_size => Bytes}; 0 bytes are no limit">>}).

%% @doc Sends one message, if there is room for it and nobody waits for room: else `busy', and nothing is sent.
%% Returns at once.
-spec send(channel(), iodata()) -> ok | busy | ended().
send(Channel, Data) ->
    case causeway_nif:channel_send(Channel, in_one(Data)) of
        ok -> ok;
        busy -> busy;
        Other -> ended(Other, send, [Channel, Data])
    end.

%% @doc Sends one message and waits for room where there is none, at most so many milliseconds.
%%
%% After `{error, timeout}' nothing was sent, nor if the process dies meanwhile.
-spec send(channel(), iodata(), timeout()) -> ok | {error, timeout} | ended().
send(Channel, Data, Timeout) ->
    check_timeout(Timeout, send, [Channel, Data, Timeout]),
    Message = in_one(Data),
    case causeway_nif:channel_send(Channel, Message) of
        ok -> ok;
        busy when Timeout =:= 0 -> {error, timeout};
        busy -> send_later(Channel, Message, Timeout, [Channel, Data, Timeout], erlang:monotonic_time(microsecond) + ?PATIENCE);
        Other -> ended(Other, send, [Channel, Data, Timeout])
    end.

%% A receiver that is at work makes room within a few turns of a process: to wait for that and to be woken would cost both
%% more. Where others want to run a turn can be long, and one is enough.
send_later(Channel, Message, Timeout, Arguments, Until) ->
    erlang:yield(),
    %% What is large is made ready only where there is room for it.
    case causeway_nif:channel_has_room(Channel, byte_size(Message)) andalso causeway_nif:channel_send(Channel, Message) of
        IsBusy when IsBusy =:= false; IsBusy =:= busy ->
            case erlang:monotonic_time(microsecond) < Until of
                true -> send_later(Channel, Message, Timeout, Arguments, Until);
                false -> wait(Channel, Message, Timeout, send, Arguments)
            end;
        ok ->
            ok;
        Other ->
            ended(Other, send, Arguments)
    end.

%% A large list is put together here, which takes turns with other processes, as a NIF could not. What is no iodata is
%% refused where it is read.
in_one(List) when is_list(List) ->
    try
        iolist_to_binary(List)
    catch
        error:badarg -> List
    end;
in_one(Data) ->
    Data.

%% @doc Waits for the next message. The same as `recv(Channel, infinity)'.
-spec recv(channel()) -> {ok, binary()} | ended().
recv(Channel) ->
    case causeway_nif:channel_receive(Channel) of
        {ok, _} = Received -> Received;
        empty -> wait(Channel, 'receive', infinity, recv, [Channel]);
        Other -> ended(Other, recv, [Channel])
    end.

%% @doc Waits for the next message, at most so many milliseconds.
%%
%% A message that comes when the process has given up, or has died, is the next for somebody else. Nothing is left in
%% the mailbox.
-spec recv(channel(), timeout()) -> {ok, binary()} | {error, timeout} | ended().
recv(Channel, Timeout) ->
    check_timeout(Timeout, recv, [Channel, Timeout]),
    case causeway_nif:channel_receive(Channel) of
        {ok, _} = Received -> Received;
        empty when Timeout =:= 0 -> {error, timeout};
        empty -> wait(Channel, 'receive', Timeout, recv, [Channel, Timeout]);
        Other -> ended(Other, recv, [Channel, Timeout])
    end.

%% @doc Takes the next message, if there is one. Returns at once.
-spec try_receive(channel()) -> {ok, binary()} | {error, empty} | ended().
try_receive(Channel) ->
    case causeway_nif:channel_receive(Channel) of
        {ok, _} = Received -> Received;
        empty -> {error, empty};
        Other -> ended(Other, try_receive, [Channel])
    end.

%% @doc Waits for the next message, and takes with it those that are there already. The same as
%% `recv_many(Channel, MaxBytes, infinity)'.
-spec recv_many(channel(), pos_integer()) -> {ok, [binary(), ...]} | ended().
recv_many(Channel, MaxBytes) ->
    recv_many(Channel, MaxBytes, infinity).

%% @doc Waits for the next message, and takes with it those that are there already, up to `MaxBytes' together and to
%% 4,096 messages; of those that are copied, to a megabyte. The first is taken however large it is. Much faster than
%% one by one for small messages.
-spec recv_many(channel(), pos_integer(), timeout()) -> {ok, [binary(), ...]} | {error, timeout} | ended().
recv_many(Channel, MaxBytes, Timeout) ->
    Arguments = [Channel, MaxBytes, Timeout],
    is_integer(MaxBytes) andalso MaxBytes > 0
        orelse bad(recv_many, Arguments, #{2 => <<"must be a positive number of bytes">>}),
    check_timeout(Timeout, recv_many, Arguments),
    case causeway_nif:channel_receive_many(Channel, min(MaxBytes, 1 bsl 59), true) of
        {ok, _} = Received ->
            Received;
        empty when Timeout =:= 0 ->
            {error, timeout};
        empty ->
            case wait(Channel, 'receive', Timeout, recv_many, Arguments) of
                {ok, First} -> {ok, [First | more(Channel, MaxBytes - byte_size(First))]};
                Error -> Error
            end;
        Other ->
            ended(Other, recv_many, Arguments)
    end.

%% Those that have come since the first.
more(Channel, Room) when Room > 0 ->
    case causeway_nif:channel_receive_many(Channel, min(Room, 1 bsl 59), false) of
        {ok, Messages} -> Messages;
        _Nothing -> []
    end;
more(_Channel, _Room) ->
    [].

%% @doc Takes no more messages. What is queued can still be received; then everybody gets `{error, closed}'.
-spec close(channel()) -> ok | {error, not_local}.
close(Channel) ->
    case causeway_nif:channel_close(Channel) of
        ok -> ok;
        Other -> ended(Other, close, [Channel])
    end.

%% @doc Drops what is queued. From now on everybody gets `{error, {aborted, Reason}}', in Python
%% `ByteChannelAborted'. The first reason stays.
-spec abort(channel(), term()) -> ok | {error, not_local}.
abort(Channel, Reason) ->
    case causeway_nif:channel_abort(Channel, Reason) of
        ok -> ok;
        Other -> ended(Other, abort, [Channel, Reason])
    end.

%% @doc How the channel stands: `size' in bytes, `messages', who waits, and what has ever gone in and out.
-spec info(channel()) -> info() | {error, not_local}.
info(Channel) ->
    case causeway_nif:channel_info(Channel) of
        #{} = Info -> Info;
        Other -> ended(Other, info, [Channel])
    end.

%% @doc Has the calling process told once when there is something to receive or room to send: by the message
%% `{py_byte_channel, Reference, readable | writable}', at once where it is so already.
%%
%% For a gen_server, which must not wait in {@link recv/1}. Another may be faster: use {@link try_receive/1} or
%% {@link send/2} then, and ask again. The end of the channel is told, too.
-spec notify(channel(), readable | writable) -> {ok, reference()} | {error, not_local}.
notify(Channel, What) when What =:= readable; What =:= writable ->
    Reference = make_ref(),
    case causeway_nif:channel_notify(Channel, What, {?MODULE, Reference, What}) of
        ok -> {ok, Reference};
        Other -> ended(Other, notify, [Channel, What])
    end;
notify(Channel, What) ->
    bad(notify, [Channel, What], #{2 => <<"must be readable or writable">>}).

%% @doc Passes on all that comes, until the channel ends. The same as `pipe(Channel, To, #{})'.
-spec pipe(channel(), target()) -> {ok, Bytes :: non_neg_integer()} | {error, term()}.
pipe(Channel, To) ->
    pipe(Channel, To, #{}).

%% @doc Passes on all that comes to another channel, a file or a socket, in the calling process, and no faster than
%% that takes it. Returns how many bytes that were.
%%
%% `{file, Name}' is written anew. What is another channel is closed at the end, or aborted as the first was; files
%% and sockets of the caller are left open. With `close => true | false' it is as you say. When the target fails the
%% channel is aborted with that reason, so that whoever sends to it hears of it, and it is the error here. So
%% is what a file cannot be opened for, as `enoent': then the channel is as it was.
-spec pipe(channel(), target(), #{close => boolean()}) -> {ok, Bytes :: non_neg_integer()} | {error, term()}.
pipe(Channel, To, Options) ->
    Arguments = [Channel, To, Options],
    is_close_option(Options) orelse bad(pipe, Arguments, #{3 => <<"must be #{} or #{close => true | false}">>}),
    %% Before a file is written anew.
    case check_channel(Channel, 1, pipe, Arguments) of
        ok ->
            case causeway_pipe:open(To, Options) of
                {ok, Target} -> pipe_all(Channel, Target, 0);
                {error, _} = Error -> Error;
                badarg -> bad(pipe, Arguments, #{2 => <<"must be a byte channel, an open file, {file, Name} or a socket">>})
            end;
        {error, _} = Error ->
            Error
    end.

is_close_option(#{close := Close} = Options) -> map_size(Options) =:= 1 andalso is_boolean(Close);
is_close_option(Options) -> Options =:= #{}.

pipe_all(Channel, Target, Bytes) ->
    case recv_many(Channel, ?PIPED_AT_ONCE) of
        {ok, Messages} ->
            case causeway_pipe:write(Target, Messages) of
                ok ->
                    pipe_all(Channel, Target, Bytes + iolist_size(Messages));
                {error, Reason} = Error ->
                    ok = abort(Channel, cause(Reason)),
                    _ = causeway_pipe:close(Target, Error),
                    Error
            end;
        {error, closed} ->
            case causeway_pipe:close(Target, ok) of
                ok -> {ok, Bytes};
                {error, _} = Error -> Error
            end;
        {error, _} = Error ->
            _ = causeway_pipe:close(Target, Error),
            Error
    end.

%% What a whole chain of pipes hears, where a channel in it was aborted.
cause({aborted, Reason}) -> Reason;
cause(Reason) -> Reason.

%% @doc Calls a fun with every message and an accumulator, until the channel is closed. What the fun raises
%% goes to the caller, and the messages that it has not seen stay in the channel.
-spec fold(fun((binary(), Acc) -> Acc), Acc, channel()) -> {ok, Acc} | {error, {aborted, term()} | not_local}.
fold(Fun, Acc, Channel) when is_function(Fun, 2) ->
    case check_channel(Channel, 3, fold, [Fun, Acc, Channel]) of
        ok -> fold_all(Fun, Acc, Channel);
        {error, _} = Error -> Error
    end;
fold(Fun, Acc, Channel) ->
    bad(fold, [Fun, Acc, Channel], #{1 => <<"must be a fun of two arguments">>}).

%% One by one: a fun that raises leaves what it has not seen.
fold_all(Fun, Acc, Channel) ->
    case recv(Channel) of
        {ok, Message} -> fold_all(Fun, Fun(Message, Acc), Channel);
        {error, closed} -> {ok, Acc};
        {error, _} = Error -> Error
    end.

%% @doc Makes `erlang.call("_py_byte_channel_receive", channel)' and `"_py_byte_channel_try_receive"' work in
%% Python, as in erlang_python. `erlang.ByteChannel' does not need them.
-spec register_callbacks() -> ok | {error, term()}.
register_callbacks() ->
    case py:register_function(?RECEIVE_CALLBACK, fun([Channel]) -> recv(Channel) end) of
        ok -> py:register_function(?TRY_RECEIVE_CALLBACK, fun([Channel]) -> try_receive(Channel) end);
        {error, _} = Error -> Error
    end.

%% Waiting: the core keeps what comes for this process, sends it the message, and gives it out when it is asked. What
%% it has kept for a process that is gone is the next again.

wait(Channel, What, Timeout, Function, Arguments) ->
    Tag = make_ref(),
    case causeway_nif:channel_wait(Channel, What, Tag) of
        Waiter when is_reference(Waiter) ->
            %% The guards keep both alive while the process waits: with the last reference to the waiter the wait is
            %% over, and with the last to the channel so is that.
            receive
                Tag when is_reference(Waiter), is_reference(Channel) ->
                    outcome(causeway_nif:channel_finish(Waiter), Function, Arguments)
            after Timeout ->
                case causeway_nif:channel_finish(Waiter) of
                    waiting when is_reference(Channel) ->
                        {error, timeout};
                    Outcome ->
                        receive Tag -> ok end,
                        outcome(Outcome, Function, Arguments)
                end
            end;
        Outcome ->
            outcome(Outcome, Function, Arguments)
    end.

outcome(ok, _Function, _Arguments) -> ok;
outcome({ok, _} = Received, _Function, _Arguments) -> Received;
outcome(Other, Function, Arguments) -> ended(Other, Function, Arguments).

%% Errors

ended(closed, _Function, _Arguments) ->
    {error, closed};
ended({aborted, _} = Aborted, _Function, _Arguments) ->
    {error, Aborted};
ended(badarg, Function, [Channel | _] = Arguments) ->
    case check_channel(Channel, 1, Function, Arguments) of
        ok when Function =:= send -> bad(Function, Arguments, #{2 => <<"must be a binary or other iodata">>});
        ok -> erlang:error(system_limit, Arguments);
        {error, _} = Error -> Error
    end.

%% `Place' is that of the channel among the arguments.
check_channel(Channel, Place, Function, Arguments) ->
    case causeway_nif:channel_info(Channel) of
        #{} ->
            ok;
        badarg when is_reference(Channel), node(Channel) =/= node() ->
            {error, not_local};
        badarg ->
            bad(Function, Arguments, #{Place => <<"must be a byte channel, from py_byte_channel:new/0,1 or from Python">>})
    end.

check_timeout(infinity, _Function, _Arguments) -> ok;
check_timeout(Timeout, _Function, _Arguments) when is_integer(Timeout), Timeout >= 0, Timeout =< 16#FFFFFFFF -> ok;
check_timeout(_Timeout, Function, Arguments) ->
    bad(Function, Arguments, #{length(Arguments) => <<"must be a number of milliseconds or infinity">>}).

-spec bad(atom(), [term()], #{pos_integer() => binary()}) -> no_return().
bad(Function, Arguments, Texts) ->
    causeway_badarg:raise(?MODULE, Function, Arguments, Texts).
