%% @private
%% @doc The functions of the core. All of them return at once and are called on normal schedulers;
%% what takes longer is answered by a message from one of the core's threads.
-module(causeway_nif).

-export([load/0, is_loaded/0]).
-export([start_python/2, python_version/0, duplicate/1, close/1, context_threads/0]).
-export([context_start/5, context_stop/1, context_watch/1, context_wake/1, context_interrupt/1, context_stats/1,
         context_diagnose/2]).
-export([stream_outbox/0, stream_take/1]).
-export([is_object/1, object_context/1]).
-export([callbacks_update/1, callback_begin/1, callback_answer/2]).
-export([output_taken/1, output_level/1]).
-export([submit/4, ask/4, look/1, cast/2, cancel/1, handoff/4, handoff_duplicate/4, handoff_check/2, context_drain/1]).
-export([channel_new/1, channel_send/2, channel_has_room/2, channel_receive/1, channel_receive_many/3, channel_wait/3, channel_notify/3,
         channel_finish/1, channel_close/1, channel_abort/2, channel_info/1]).
-export([cbor_encode/1, cbor_decode/1]).
-export([packet_decode/2, packet_head/2]).
-export([wire_open/2, wire_read/3, wire_gather/3, wire_fill/2, wire_write/2, wire_close_output/1, wire_close/1]).
-export([rpc_new/1, rpc_pair/2, rpc_send/2, rpc_has_room/2, rpc_send_many/2, rpc_deliver/2, rpc_deliver_many/2,
         rpc_receive/1, rpc_receive_many/2, rpc_wait/3, rpc_finish/1, rpc_reply/1, rpc_set_reply/2, rpc_end/2, rpc_event/2, rpc_attach/2,
         rpc_outbox/2, rpc_info/1]).
-export([process_helper/1, process_open/1, process_event/1, process_read/4, process_available/1, process_write/3,
         process_flush/1, process_close_input/1, process_close_output/2, process_resize/2, process_signal/3,
         process_end/1, process_close/1]).
-export_type([context/0, call/0, callback/0, ticket/0, process/0, ending/0, wire/0, chunk/0]).

-include_lib("kernel/include/logger.hrl").

-on_load(may_be_loaded/0).

-nifs([start_python/2, python_version/0, duplicate/1, close/1, context_threads/0,
       context_start/5, context_stop/1, context_watch/1, context_wake/1, context_interrupt/1,
       context_stats/1, context_diagnose/2, stream_outbox/0, stream_take/1, is_object/1, object_context/1, callbacks_update/1, callback_begin/1, callback_answer/2,
       output_taken/1, output_level/1, submit/4, ask/4, look/1, cast/2, cancel/1, handoff/4, handoff_duplicate/4, handoff_check/2, context_drain/1, channel_new/1,
       channel_send/2, channel_has_room/2, channel_receive/1, channel_receive_many/3, channel_wait/3, channel_notify/3, channel_finish/1,
       channel_close/1, channel_abort/2, channel_info/1,
       process_helper/1, process_open/1, process_event/1, process_read/4, process_available/1, process_write/3,
       process_flush/1, process_close_input/1, process_close_output/2, process_resize/2, process_signal/3,
       process_end/1, process_close/1, cbor_encode/1, cbor_decode/1, packet_decode/2, packet_head/2,
       wire_open/2, wire_read/3, wire_gather/3, wire_fill/2, wire_write/2, wire_close_output/1, wire_close/1,
       rpc_new/1, rpc_pair/2, rpc_send/2, rpc_has_room/2, rpc_send_many/2, rpc_deliver/2, rpc_deliver_many/2,
       rpc_receive/1, rpc_receive_many/2, rpc_wait/3, rpc_finish/1, rpc_reply/1, rpc_set_reply/2, rpc_end/2, rpc_event/2, rpc_attach/2,
       rpc_outbox/2, rpc_info/1]).

-opaque context() :: reference().
%% The native half of a context. When the last reference is gone, so is the context.
-type call() :: reference().
%% A call in progress. When the last reference is gone, the call is given up.
-type chunk() :: binary() | {term, Size :: non_neg_integer(), term()}.
%% What a streaming call carries: a term takes as much of the window as so many bytes.
-opaque callback() :: reference().
%% A call of an Erlang function by Python. When the last reference is gone, Python is told that there is no answer.
-type wire() :: reference().
%% Descriptors that one process reads and writes.
-opaque ticket() :: reference().
%% A thread of Python that waits until its output is passed on, or until the last reference is gone.
-type ending() :: {status, 0..255} | {signal, pos_integer(), HasDumpedCore :: boolean()}.
%% How a program has ended.
-opaque process() :: reference().
%% A program that runs for an Erlang process. When that ends, so does the program.

%% @doc Loads the core. libpython must be open already.
%%
%% The core has threads, which cannot be replaced: it is loaded once in the life of a node. Neither
%% a second load nor an upgrade of this module is possible; both say so.
-spec load() -> ok | {error, {atom(), binary()}}.
load() ->
    case is_loaded() of
        true -> already_loaded();
        false -> load_library()
    end.

load_library() ->
    case erlang:load_nif(filename:join(causeway_python:priv_dir(), "libcauseway"), 0) of
        ok ->
            persistent_term:put(?MODULE, loaded);
        {error, {Reason, _}} when Reason =:= reload; Reason =:= upgrade; Reason =:= load ->
            already_loaded();
        {error, {Reason, Text}} ->
            {error, {Reason, unicode:characters_to_binary(["causeway's core could not be loaded: ", Text])}}
    end.

%% A new version of this module could not have the core's functions: the code server keeps the old one
%% where this is no ok.
may_be_loaded() ->
    case persistent_term:get(?MODULE, not_loaded) of
        not_loaded ->
            ok;
        loaded ->
            {error, {_, Text}} = Refusal = already_loaded(),
            %% The code server logs the refusal, but only the first words of a text in it.
            ?LOG_ERROR("~ts", [Text]),
            Refusal
    end.

already_loaded() ->
    {error, {core_already_loaded,
             <<"causeway's core runs in this node already and cannot be loaded a second time "
               "or upgraded: restart the node">>}}.

%% @doc Whether this version of the module has the core's functions.
-spec is_loaded() -> boolean().
is_loaded() ->
    try python_version() of
        _ -> true
    catch
        error:not_loaded -> false
    end.

%% @doc Starts Python on a thread of its own; the caller gets `{causeway, started}' or
%% `{causeway, {start_failed, Text}}'.
-spec start_python(Executable :: binary(), Packages :: binary()) -> ok | already | {error, term()}.
start_python(_Executable, _Packages) -> erlang:nif_error(not_loaded).

%% @doc What Python's `sys.version' says; empty before Python runs.
-spec python_version() -> binary().
python_version() -> erlang:nif_error(not_loaded).

%% @doc A second number for an open file. The corresponding C function is fcntl(F_DUPFD_CLOEXEC).
-spec duplicate(integer()) -> {ok, non_neg_integer()} | {error, term()}.
duplicate(_Fd) -> erlang:nif_error(not_loaded).

%% @doc Closes a descriptor that {@link duplicate/1} made and nobody took.
-spec close(non_neg_integer()) -> ok | {error, badf}.
close(_Fd) -> erlang:nif_error(not_loaded).

%% @doc How many contexts have a native thread.
-spec context_threads() -> non_neg_integer().
context_threads() -> erlang:nif_error(not_loaded).

%% @doc Starts the native half of a context, owned by the caller, who gets `{causeway, started}'.
%% Linger is in milliseconds, -1 for ever.
-spec context_start(integer(), worker | subinterp | owngil, non_neg_integer(), integer(), pos_integer()) ->
          context() | {error, term()}.
context_start(_Id, _Mode, _MaxConnections, _Linger, _MaxQueue) -> erlang:nif_error(not_loaded).

%% @doc Ends it; `{causeway, stopped}' follows when the thread has ended.
-spec context_stop(context()) -> ok.
context_stop(_Context) -> erlang:nif_error(not_loaded).

%% @doc Has the BEAM watch the context's connections: the owner gets one `{select, …}'.
-spec context_watch(context()) -> ok.
context_watch(_Context) -> erlang:nif_error(not_loaded).

%% @doc Tells the context's thread to look at its connections.
-spec context_wake(context()) -> ok.
context_wake(_Context) -> erlang:nif_error(not_loaded).

%% @doc Interrupts what the context executes.
-spec context_interrupt(context()) -> ok | idle.
context_interrupt(_Context) -> erlang:nif_error(not_loaded).

%% @doc Where the items of a stream are kept until the caller takes them.
-spec stream_outbox() -> reference().
stream_outbox() -> erlang:nif_error(not_loaded).

%% @doc The next items of a stream. After `[]' the process that has made the call is sent `items' when there are more.
-spec stream_take(reference()) -> [term()].
stream_take(_Outbox) -> erlang:nif_error(not_loaded).

%% @doc Whether a term refers to a Python object.
-spec is_object(term()) -> boolean().
is_object(_Term) -> erlang:nif_error(not_loaded).

%% @doc Where a Python object can be used: in every context of the main interpreter, in that of this process, or, since
%% its context has stopped, nowhere.
-spec object_context(reference()) -> main | pid() | gone.
object_context(_Reference) -> erlang:nif_error(not_loaded).

%% @doc Makes the caller the server of the functions with these names.
-spec callbacks_update([binary()]) -> ok.
callbacks_update(_Names) -> erlang:nif_error(not_loaded).

%% @doc The caller is about to run the function; false when Python does not wait any more.
-spec callback_begin(callback()) -> boolean().
callback_begin(_Callback) -> erlang:nif_error(not_loaded).

%% @doc Gives Python the result. Only the first answer counts.
-spec callback_answer(callback(), tuple()) -> ok.
callback_answer(_Callback, _Result) -> erlang:nif_error(not_loaded).

%% @doc What it executes and for how long; `{Tag, Stack, Call}' follows as a message, if Python's lock can be had.
-spec context_diagnose(context(), reference()) -> #{atom() => term()}.
context_diagnose(_Context, _Tag) -> erlang:nif_error(not_loaded).

%% @doc What was written before the ticket is passed on.
-spec output_taken(ticket()) -> ok.
output_taken(_Ticket) -> erlang:nif_error(not_loaded).

%% @doc The level that Python's root logger begins with.
-spec output_level(non_neg_integer()) -> ok.
output_level(_Level) -> erlang:nif_error(not_loaded).

%% @doc Counters.
-spec context_stats(context()) -> #{atom() => integer()}.
context_stats(_Context) -> erlang:nif_error(not_loaded).

%% @doc Queues a call; the answer is the message `{Tag, Result}'. Of several contexts the one with the
%% least to do is taken. ErrorForm: 0 for pairs, 1 for maps. Every call is answered, at the latest with
%% `{error, timeout}' when its time is over: nobody needs a timer.
-spec submit(context() | tuple(), Tagged, 0 | 1, timeout()) -> call() | full | closed when
      Tagged :: {Tag :: reference(), Request :: tuple()} | {Tag :: reference(), Request :: tuple(), OnBehalfOf :: pid()}.
submit(_Contexts, _TaggedRequest, _ErrorForm, _Timeout) -> erlang:nif_error(not_loaded).

%% @doc The same for a caller that {@link look/1}s for the answer first.
-spec ask(context() | tuple(), {Tag :: reference(), Request :: tuple()}, 0 | 1, timeout()) -> call() | full | closed.
ask(_Contexts, _TaggedRequest, _ErrorForm, _Timeout) -> erlang:nif_error(not_loaded).

%% @doc The result of a call that the calling process has asked for. After `pending' it is to look again; after `wait' the
%% answer is the message `{Tag, Result}', as every one that is not small.
-spec look(call()) -> pending | wait | term().
look(_Call) -> erlang:nif_error(not_loaded).

%% @doc Queues a call that nobody waits for.
-spec cast(context() | tuple(), tuple()) -> ok | full | closed.
cast(_Contexts, _Request) -> erlang:nif_error(not_loaded).

%% @doc Gives a call up. After `sent' its answer is in the mailbox or will be in a moment.
-spec cancel(call()) -> cancelled | sent.
cancel(_Call) -> erlang:nif_error(not_loaded).

%% @doc Hands a descriptor to a context's reactor, which owns it exactly when the result is ok. Data was read from
%% it already, and is what the protocol gets first.
-spec handoff(context(), integer(), map(), binary()) -> ok | {error, term()}.
handoff(_Context, _Fd, _Info, _Data) -> erlang:nif_error(not_loaded).

%% @doc The same for a duplicate of a descriptor, which stays the caller's: whoever kills the caller, the duplicate is
%% nobody's at no time.
-spec handoff_duplicate(context(), integer(), map(), binary()) -> ok | {error, term()}.
handoff_duplicate(_Context, _Fd, _Info, _Data) -> erlang:nif_error(not_loaded).

%% @doc What {@link handoff/4} would say now, without doing it.
-spec handoff_check(context(), integer()) -> ok | {error, term()}.
handoff_check(_Context, _Fd) -> erlang:nif_error(not_loaded).

%% @doc Ends the listeners of a context, and its connections as soon as they have written what they have to. The
%% owner gets `{causeway, drained}' when none is left.
-spec context_drain(context()) -> ok | {error, closed}.
context_drain(_Context) -> erlang:nif_error(not_loaded).

%% @doc Makes a byte channel. What is wrong with arguments of this and the others is `badarg', which
%% {@link py_byte_channel} explains.
-spec channel_new(non_neg_integer()) -> reference() | badarg.
channel_new(_MaxSize) -> erlang:nif_error(not_loaded).

%% @doc Sends, if there is room.
-spec channel_send(reference(), iodata()) -> ok | busy | closed | {aborted, term()} | badarg.
channel_send(_Channel, _Data) -> erlang:nif_error(not_loaded).

%% @doc Whether so many bytes could be sent now, or would be refused.
-spec channel_has_room(reference(), non_neg_integer()) -> boolean() | badarg.
channel_has_room(_Channel, _Bytes) -> erlang:nif_error(not_loaded).

%% @doc The next message, if there is one.
-spec channel_receive(reference()) -> {ok, binary()} | empty | closed | {aborted, term()} | badarg.
channel_receive(_Channel) -> erlang:nif_error(not_loaded).

%% @doc The next messages, if there are any; at least one, however large it is, or only what fits.
-spec channel_receive_many(reference(), pos_integer(), AtLeastOne :: boolean()) ->
          {ok, [binary(), ...]} | empty | closed | {aborted, term()} | badarg.
channel_receive_many(_Channel, _MaxBytes, _AtLeastOne) -> erlang:nif_error(not_loaded).

%% @doc Waits for a message, or for room for iodata: `Message' is sent when {@link channel_finish/1} can tell.
-spec channel_wait(reference(), 'receive' | iodata(), Message :: term()) ->
          Waiter :: reference() | ok | {ok, binary()} | closed | {aborted, term()} | badarg.
channel_wait(_Channel, _What, _Message) -> erlang:nif_error(not_loaded).

%% @doc Has `Message' sent to the calling process when the channel is so.
-spec channel_notify(reference(), readable | writable, Message :: term()) -> ok | badarg.
channel_notify(_Channel, _What, _Message) -> erlang:nif_error(not_loaded).

%% @doc Ends a wait. After `waiting' its message will not come; after anything else it has come or is on its way.
-spec channel_finish(reference()) -> waiting | ok | {ok, binary()} | closed | {aborted, term()} | badarg.
channel_finish(_Waiter) -> erlang:nif_error(not_loaded).

%% @doc Takes no more messages.
-spec channel_close(reference()) -> ok | badarg.
channel_close(_Channel) -> erlang:nif_error(not_loaded).

%% @doc Drops what is queued.
-spec channel_abort(reference(), term()) -> ok | badarg.
channel_abort(_Channel, _Reason) -> erlang:nif_error(not_loaded).

%% @doc How a channel stands.
-spec channel_info(reference()) -> py_byte_channel:info() | badarg.
channel_info(_Channel) -> erlang:nif_error(not_loaded).

%% @doc Starts the helper that starts programs; the caller gets `{causeway, {helper, ok | {error, Posix}}}'.
-spec process_helper(Path :: binary()) -> ok | {error, term()}.
process_helper(_Path) -> erlang:nif_error(not_loaded).

%% @doc Has a program started. After `busy' it may be tried again, after `gone' when there is a helper.
-spec process_open(causeway_process_options:request()) -> {ok, process()} | busy | gone | {error, term()} | badarg.
process_open(_Request) -> erlang:nif_error(not_loaded).

%% @doc What the guardian tells next. Whenever something here is `wait', the message `{causeway_process, control |
%% stdin | stdout | stderr}' follows when it is to be tried again.
-spec process_event(process()) ->
          {started, pos_integer()} | {failed, Step :: atom(), Reason :: term(), Detail :: binary()}
        | {exited, ending(), IsAlone :: boolean()} | gone | wait | closed | badarg.
process_event(_Process) -> erlang:nif_error(not_loaded).

%% @doc Reads what there is, at most so many bytes. After `last', with which there was no more, and `wait' the message
%% follows only with `watch'; `yield' leaves the processor to the program where there is nothing.
-spec process_read(process(), stdout | stderr, pos_integer(), watch | look | yield) ->
          {ok | last, binary()} | wait | eof | {error, term()} | badarg.
process_read(_Process, _Output, _MaxBytes, _Attention) -> erlang:nif_error(not_loaded).

%% @doc How many bytes each output has, and which are over.
-spec process_available(process()) -> {Stdout :: non_neg_integer() | eof, Stderr :: non_neg_integer() | eof} | badarg.
process_available(_Process) -> erlang:nif_error(not_loaded).

%% @doc Writes what there is room for and queues the rest, unless as many bytes as `Limit' are queued already.
-spec process_write(process(), iodata(), Limit :: pos_integer()) ->
          {ok, Queued :: non_neg_integer()} | busy | {error, closed | term()} | badarg.
process_write(_Process, _Data, _Limit) -> erlang:nif_error(not_loaded).

%% @doc Writes what is queued.
-spec process_flush(process()) -> {ok, Queued :: non_neg_integer()} | {error, closed | term()} | badarg.
process_flush(_Process) -> erlang:nif_error(not_loaded).

%% @doc Closes the program's standard input when all is written.
-spec process_close_input(process()) -> ok | badarg.
process_close_input(_Process) -> erlang:nif_error(not_loaded).

%% @doc Reads no more of an output: the program cannot write it any more.
-spec process_close_output(process(), stdout | stderr) -> ok | badarg.
process_close_output(_Process, _Output) -> erlang:nif_error(not_loaded).

%% @doc Changes the size of the program's terminal.
-spec process_resize(process(), {Rows :: 1..65535, Columns :: 1..65535}) ->
          ok | no_pty | closed | {error, term()} | badarg.
process_resize(_Process, _Size) -> erlang:nif_error(not_loaded).

%% @doc Sends a signal to the program, its process group or all of its tree.
-spec process_signal(process(), pos_integer(), process | group | tree) -> ok | closed | badarg.
process_signal(_Process, _Number, _Target) -> erlang:nif_error(not_loaded).

%% @doc Ends all that is left of the program; the event `gone' tells when that is done.
-spec process_end(process()) -> ok | closed | badarg.
process_end(_Process) -> erlang:nif_error(not_loaded).

%% @doc Lets go of all; the guardian ends what is left.
-spec process_close(process()) -> ok | badarg.
process_close(_Process) -> erlang:nif_error(not_loaded).

%% @private
-spec cbor_encode(term()) -> {ok, binary()} | {error, binary()}.
cbor_encode(_Term) -> erlang:nif_error(not_loaded).

%% @private
-spec cbor_decode(binary()) -> {ok, term(), Rest :: binary()} | {error, binary()} | badarg.
cbor_decode(_Binary) -> erlang:nif_error(not_loaded).

%% @doc The packets at the beginning of a binary. What is wrong with arguments of this and the next is `badarg', which
%% {@link causeway_packet} explains.
-spec packet_decode(binary(), non_neg_integer()) -> causeway_packet:decoded() | badarg.
packet_decode(_Binary, _MaxPacket) -> erlang:nif_error(not_loaded).

%% @doc What comes before the payload of a packet.
-spec packet_head({request, non_neg_integer(), non_neg_integer(), non_neg_integer(), non_neg_integer()} |
                  {response, non_neg_integer(), non_neg_integer(), non_neg_integer()}, non_neg_integer()) ->
          binary() | badarg.
packet_head(_Head, _PayloadSize) -> erlang:nif_error(not_loaded).

%% @doc Takes over descriptors that {@link duplicate/1} made, which may be one, exactly when the result is ok. They are
%% closed with the calling process.
-spec wire_open(non_neg_integer(), non_neg_integer()) -> {ok, wire()} | {error, term()}.
wire_open(_Input, _Output) -> erlang:nif_error(not_loaded).

%% @doc What there is to read, `closed' at the end. Where there is nothing and `Watch' is true, the process gets
%% `{causeway_wire, readable}' when there is.
-spec wire_read(wire(), pos_integer(), Watch :: boolean()) ->
          {ok, binary()} | empty | closed | {error, term()} | badarg.
wire_read(_Wire, _MaxBytes, _Watch) -> erlang:nif_error(not_loaded).

%% @doc What {@link wire_fill/2} reads becomes a binary of so many bytes, which begins with these.
-spec wire_gather(wire(), binary(), pos_integer()) -> ok | {error, enomem} | badarg.
wire_gather(_Wire, _Beginning, _Size) -> erlang:nif_error(not_loaded).

%% @doc Reads some of it. `{more, Bytes}' is how much, and `{ok, Binary}' all of it.
-spec wire_fill(wire(), Watch :: boolean()) ->
          {ok, binary()} | {more, pos_integer()} | empty | closed | {error, term()} | badarg.
wire_fill(_Wire, _Watch) -> erlang:nif_error(not_loaded).

%% @doc Writes the first of the binaries, and says how many bytes. After `busy' the process gets
%% `{causeway_wire, writable}'.
-spec wire_write(wire(), [binary()]) -> {ok | busy, non_neg_integer()} | {error, term()} | badarg.
wire_write(_Wire, _Binaries) -> erlang:nif_error(not_loaded).

%% @doc Lets the other side read the end.
-spec wire_close_output(wire()) -> ok | badarg.
wire_close_output(_Wire) -> erlang:nif_error(not_loaded).

%% @doc Closes it.
-spec wire_close(wire()) -> ok | badarg.
wire_close(_Wire) -> erlang:nif_error(not_loaded).

%% @doc Makes one half of a call; the caller gets `{causeway_rpc, over}' when nothing can happen in it any more. See
%% {@link causeway_rpc_stream} for these functions.
-spec rpc_new(Window :: pos_integer()) -> reference() | badarg.
rpc_new(_Window) -> erlang:nif_error(not_loaded).

%% @doc Joins two halves.
-spec rpc_pair(reference(), reference()) -> ok | badarg.
rpc_pair(_First, _Second) -> erlang:nif_error(not_loaded).

%% @doc Sends a chunk, if there is room.
-spec rpc_send(reference(), chunk()) -> ok | busy | closed | no_peer | badarg.
rpc_send(_Half, _Chunk) -> erlang:nif_error(not_loaded).

%% @doc Whether a chunk of so many bytes could be sent now, or would be refused.
-spec rpc_has_room(reference(), Bytes :: non_neg_integer()) -> boolean() | badarg.
rpc_has_room(_Half, _Bytes) -> erlang:nif_error(not_loaded).

%% @doc Sends what there is room for, but not too much at once. Tells how many chunks those were, and the rest.
-spec rpc_send_many(reference(), [chunk()]) -> {non_neg_integer(), ok | busy | closed | no_peer, [chunk()]} | badarg.
rpc_send_many(_Half, _Chunks) -> erlang:nif_error(not_loaded).

%% @doc A chunk has come from the other half, with room or without.
-spec rpc_deliver(reference(), chunk()) -> ok | badarg.
rpc_deliver(_Half, _Chunk) -> erlang:nif_error(not_loaded).

%% @doc Chunks have come from the other half; as many are taken as there is room for.
-spec rpc_deliver_many(reference(), [chunk()]) -> {non_neg_integer(), ok | busy | closed, [chunk()]} | badarg.
rpc_deliver_many(_Half, _Chunks) -> erlang:nif_error(not_loaded).

%% @doc The next chunk.
-spec rpc_receive(reference()) -> {chunk, binary()} | {data, term()} | empty | eof | {error, term()} | badarg.
rpc_receive(_Half) -> erlang:nif_error(not_loaded).

%% @doc The next chunks, at least one if there is one.
-spec rpc_receive_many(reference(), pos_integer()) ->
          {ok, [{chunk, binary()} | {data, term()}]} | empty | eof | {error, term()} | badarg.
rpc_receive_many(_Half, _MaxBytes) -> erlang:nif_error(not_loaded).

%% @doc Waits: `Message' is sent when {@link rpc_finish/1} can tell.
-spec rpc_wait(reference(), 'receive' | reply | inbox | outbox | {send | deliver, chunk()}, Message :: term()) ->
          Waiter :: reference() | ok | ready | closed | eof | {atom(), term()} | badarg.
rpc_wait(_Half, _What, _Message) -> erlang:nif_error(not_loaded).

%% @doc Ends a wait. After `waiting' its message will not come; after anything else it has come or is on its way.
-spec rpc_finish(reference()) -> waiting | ok | ready | closed | eof | {atom(), term()} | badarg.
rpc_finish(_Waiter) -> erlang:nif_error(not_loaded).

%% @doc What is known of the reply.
-spec rpc_reply(reference()) -> waiting | {ok, term()} | {error, term()} | badarg.
rpc_reply(_Half) -> erlang:nif_error(not_loaded).

%% @doc Gives the reply, if there is none.
-spec rpc_set_reply(reference(), {ok, term()} | {error, term()}) -> ok | badarg.
rpc_set_reply(_Half, _Reply) -> erlang:nif_error(not_loaded).

%% @doc Ends sending, both directions, the call with an error, or this half because its process is gone.
-spec rpc_end(reference(), send | both | {abort, {error, term()}} | {lose, Here :: term(), There :: term()}) ->
          ok | badarg.
rpc_end(_Half, _How) -> erlang:nif_error(not_loaded).

%% @doc The other half has done so, or has given the reply.
-spec rpc_event(reference(), send | both | {abort | lose | reply, term()}) -> ok | badarg.
rpc_event(_Half, _What) -> erlang:nif_error(not_loaded).

%% @doc Has what is sent wait until {@link rpc_outbox/2} takes it.
-spec rpc_attach(reference(), Window :: pos_integer()) -> ok | badarg.
rpc_attach(_Half, _Window) -> erlang:nif_error(not_loaded).

%% @doc Takes what is to be passed on, about so many bytes.
-spec rpc_outbox(reference(), MaxBytes :: pos_integer()) ->
          {ok, Bytes :: non_neg_integer(), [chunk() | {reply, term()}]} | empty | closed | aborted | badarg.
rpc_outbox(_Half, _MaxBytes) -> erlang:nif_error(not_loaded).

%% @doc How a half stands.
-spec rpc_info(reference()) -> #{atom() => term()} | badarg.
rpc_info(_Half) -> erlang:nif_error(not_loaded).
