%% @doc Packet connections: requests and responses both ways over one byte stream, many outstanding, answered in any
%% order. The bytes are those of `cs.packetstream' of Python, which `erlang.packetstream' speaks, too.
%%
%% {@link start_link/2} makes a process of a connection. It goes over
%%
%% <ul>
%% <li>a connected socket of gen_tcp, of the module socket, or of ssl, which the calling process owns and which is the
%% connection's afterwards, with what was received already;</li>
%% <li>a descriptor, or two: one to read and one to write. They stay the caller's: they are duplicated. Whatever shares
%% their open file does not block any more;</li>
%% <li>two byte channels ({@link py_byte_channel}): one to receive from and one to send to, each with a `max_size', as
%% otherwise nothing makes the faster side wait. So Erlang and Python can have the two ends of a connection;</li>
%% <li>standard input and output of a program: the pid of its handle ({@link causeway_process_stream:open/3}), whose owner
%% the calling process is and stays. The program reads the end of its input when the connection ends;</li>
%% <li>what a fun of no arguments returns as `{ok, Transport}'. It runs in the connection's process: for a connection
%% that a supervisor starts.</li>
%% </ul>
%%
%% Types of requests and flags are numbers from 0, payloads are bytes. A request is answered by `{ok, Flags, Payload}',
%% by `{failed, Flags, Payload}' where the other side could not do it, or by `{error, Reason}':
%%
%% <dl>
%% <dt>`timeout'</dt><dd>It was given up. An answer that comes later is thrown away.</dd>
%% <dt>`{closed, Why}'</dt><dd>The connection has ended before the answer came, see below.</dd>
%% <dt>`{closed, noproc}'</dt><dd>It had ended before.</dd>
%% <dt>`closing', `requests_ended'</dt><dd>It was too late: after {@link close/1}; after {@link send_erq/1} or
%% {@link send_eof/1}.</dd>
%% <dt>`busy'</dt><dd>Too many wait in line already, see `max_waiting'.</dd>
%% <dt>`{unknown_channel, Channel}', `{too_large, Bytes, Most}'</dt><dd>It was not sent.</dd>
%% </dl>
%%
%% The requests of the peer are answered by a handler: a fun of `(Type, Flags, Payload)' or `(Type, Flags, Payload,
%% From)', or a module of this behaviour, as `Module' or `{Module, Argument}'. It runs in one of the connection's
%% workers, so that one that takes long stops neither the connection nor others. It returns
%%
%% <dl>
%% <dt>`ok'</dt><dd>Flags 0 and no payload.</dd>
%% <dt>a number</dt><dd>These flags and no payload.</dd>
%% <dt>iodata</dt><dd>Flags 0 and this payload.</dd>
%% <dt>`{Flags, Payload}', `{ok, Payload}', `{ok, Flags, Payload}'</dt><dd>What they say.</dd>
%% <dt>`{failed, Payload}', `{failed, Flags, Payload}'</dt><dd>It could not be done.</dd>
%% <dt>`noreply'</dt><dd>Somebody answers later by {@link reply/2}.</dd>
%% </dl>
%%
%% When it fails or returns something else the peer gets a failure with the text `exception during handler', and logger
%% the details.
%%
%% A module without `init/1' gets its argument as state. The state is the same for all requests: they run at the same
%% time.
%%
%% The process ends with `normal' after {@link close/1} and after the peer's end, else with `{shutdown, Why}'. Why is
%%
%% <dl>
%% <dt>`local', `eof'</dt><dd>closed here; ended by the peer in good order.</dd>
%% <dt>`truncated', `{malformed, Text}'</dt><dd>The bytes ended in a packet, or were none.</dd>
%% <dt>`econnreset', `epipe', …</dt><dd>What the transport says; `{aborted, Reason}' of a byte channel.</dd>
%% <dt>`not_read', `no_answer'</dt><dd>The peer did not take anything for `send_timeout', or gave no sign of life, see
%% `keepalive'.</dd>
%% <dt>`{owner, Reason}'</dt><dd>The process that had started it, or its owner, has ended.</dd>
%% <dt>`channel_closed'</dt><dd>{@link close_channel/2}.</dd>
%% </dl>
%%
%% After the peer's end requests in hand are still answered.
%%
%% Time-outs are in milliseconds, below 2^32, or `infinity'. Wrong arguments raise `badarg', with a text that
%% the shell prints; wrong options are `{error, {badarg, Text}}'.
%%
%% Options are a map:
%%
%% <dl>
%% <dt>`handler'</dt><dd>For channel 0. Without one requests are refused.</dd>
%% <dt>`workers'</dt><dd>How many requests are handled at the same time, 16 by default. With 0 they are handled in the
%% connection's process itself, which is the fastest for handlers that never wait.</dd>
%% <dt>`name'</dt><dd>As of a gen_server, none by default.</dd>
%% <dt>`owner'</dt><dd>A process with which the connection ends, beside the one that has started it.</dd>
%% <dt>`max_packet'</dt><dd>The most bytes of a packet, from 64 to 2^40, 64 MiB by default. What is longer
%% from the peer ends the connection as `{malformed, Text}'.</dd>
%% <dt>`timeout'</dt><dd>Of requests, in milliseconds, `infinity' by default. All ends wake who waits.</dd>
%% <dt>`answer_timeout'</dt><dd>How long, in milliseconds, {@link reply/2} may take after a handler has returned `noreply'.
%% Then the peer gets a failure with the text `no answer in time'. `infinity' by default.</dd>
%% <dt>`max_outstanding', `send_window'</dt><dd>How many requests wait for the peer's answers at most, 65536 by default,
%% and how many bytes to be written, 4 MiB by default: what is more waits in line here.</dd>
%% <dt>`max_waiting'</dt><dd>How many may wait in line until those of {@link send_request/4} are answered by `{error,
%% busy}', 65536 by default.</dd>
%% <dt>`max_requests', `receive_window'</dt><dd>How many requests of the peer are in hand at most, 1024 by default, and
%% with how many bytes, 64 MiB by default, of which each has 512 beside its payload: then no more is read. (While requests of ours are outstanding only the second
%% counts, as a handler may be waiting for the answer.)</dd>
%% <dt>`send_timeout'</dt><dd>How long the peer may not read, in milliseconds, 30000 by default.</dd>
%% <dt>`keepalive'</dt><dd>After so many milliseconds in which nothing came the peer is asked for a sign of life, and
%% after as many again without one the connection ends. `infinity' by default.</dd>
%% <dt>`drain'</dt><dd>How long {@link close/1} waits, in milliseconds, 5000 by default.</dd>
%% </dl>
-module(causeway_packet_connection).

-export([start_link/1, start_link/2, start/1, start/2, child_spec/1]).
-export([request/2, request/3, request/4]).
-export([send_request/2, send_request/3, send_request/4, receive_response/1, receive_response/2, check_response/2, cancel/1]).
-export([taken/2]).
-export([reply/2, open_channel/3, close_channel/2, send_erq/1, send_eof/1, close/1, close/2, info/1]).
-export_type([connection/0, options/0, handler/0, response/0, from/0, result/0, request_id/0, request_options/0, why/0,
              info/0]).

-type connection() :: pid() | atom() | {global, term()} | {via, module(), term()}.
-type options() :: #{handler => handler(), workers => non_neg_integer(),
                     name => {local, atom()} | {global, term()} | {via, module(), term()}, owner => pid(),
                     max_packet => pos_integer(), timeout => timeout(), answer_timeout => timeout(),
                     max_outstanding => pos_integer() | infinity, send_window => pos_integer() | infinity,
                     max_waiting => pos_integer() | infinity,
                     max_requests => pos_integer() | infinity, receive_window => pos_integer() | infinity,
                     send_timeout => timeout(), keepalive => timeout(), drain => timeout(),
                     %% For {@link causeway_rpc:connect/2}.
                     taker => pid()}.
-type handler() :: undefined
                 | fun((natural(), natural(), binary()) -> response())
                 | fun((natural(), natural(), binary(), from()) -> response())
                 | module() | {module(), Argument :: term()}.
-type response() :: ok | natural() | iodata() | {natural(), iodata()} | {ok | failed, iodata()}
                  | {ok | failed, natural(), iodata()} | noreply.
-type natural() :: non_neg_integer().
-type from() :: {causeway_packet, pid(), {natural(), natural()}, pos_integer()}.
-type result() :: {ok | failed, Flags :: natural(), Payload :: binary()} | {error, term()}.
-type request_id() :: {causeway_packet_request, pid(), reference()}.
%% For the process that has sent the request.
-type request_options() :: #{flags => natural(), channel => natural(), timeout => timeout()}.
%% `flags': up to 62 bits, 0 by default. `channel': 0 by default. `timeout': in milliseconds, that of the
%% connection's options by default.
-type why() :: local | eof | truncated | {malformed, binary()} | not_read | no_answer | {owner, term()}
             | channel_closed | {aborted, term()} | atom().
-type info() :: #{state := atom(), transport := atom(), channels := [natural()], is_reading := boolean(),
                  outstanding := natural(), waiting := natural(), in_hand := natural(), in_hand_bytes := natural(),
                  queued_bytes := natural(), requests := natural(), responses := natural(), cancelled := natural(),
                  timeouts := natural(), stray_responses := natural(), peer_requests := natural(),
                  peer_responses := natural(), rejected := natural(), bytes_in := natural(), bytes_out := natural(),
                  packets_in := natural(), packets_out := natural(), reads := natural(), writes := natural()}.

-callback init(Argument :: term()) -> {ok, State :: term()} | {stop, Reason :: term()}.
-callback handle_request(Type :: natural(), Flags :: natural(), Payload :: binary(), State :: term()) -> response().
-callback handle_request(Type :: natural(), Flags :: natural(), Payload :: binary(), from(), State :: term()) ->
    response().
-callback handle_end(why(), State :: term()) -> term().
-optional_callbacks([init/1, handle_request/4, handle_request/5, handle_end/2]).

%% @doc Starts a connection without options, to which nobody can send requests. The same as `start_link(Transport,
%% #{})'.
-spec start_link(causeway_packet_transport:transport()) -> {ok, pid()} | {error, term()}.
start_link(Transport) ->
    start_link(Transport, #{}).

%% @doc Starts a connection that is linked to the calling process, and ends with it.
%%
%% Returns when the transport is taken over, also where a fun connects. An error leaves the transport to the
%% caller, except where it was found out too late: then it is closed. Errors are `{badarg, Text}' for what is
%% no transport or no option, `{already_started, Pid}' for a name, `{bad_handler, _}' and what a handler's
%% `init/1' stops with, `not_local' for a channel of another node, and what the transport says, as `ebadf'.
-spec start_link(causeway_packet_transport:transport(), options()) -> {ok, pid()} | {error, term()}.
start_link(Transport, Options) ->
    start_as([link], Transport, Options).

%% @doc The same as `start(Transport, #{})'.
-spec start(causeway_packet_transport:transport()) -> {ok, pid()} | {error, term()}.
start(Transport) ->
    start(Transport, #{}).

%% @doc Starts a connection that is linked to nobody.
-spec start(causeway_packet_transport:transport(), options()) -> {ok, pid()} | {error, term()}.
start(Transport, Options) ->
    start_as([], Transport, Options).

start_as(Link, Transport, Options) ->
    case causeway_packet_options:check(Options) of
        {ok, All} ->
            case causeway_packet_transport:prepare(Transport) of
                {ok, Prepared, Pass} -> causeway_packet_loop:start(Link, Prepared, Pass, All);
                {error, _} = Error -> Error
            end;
        {error, _} = Error ->
            Error
    end.

%% @doc How a supervisor starts it: with the arguments of {@link start_link/2} as a list. It is not started again by
%% itself, unless its transport is a fun, which connects anew.
-spec child_spec([term()]) -> supervisor:child_spec().
child_spec([Transport | Rest] = Arguments) when length(Rest) =< 1 ->
    #{id => case Rest of [#{name := Name}] -> Name; _ -> ?MODULE end,
      start => {?MODULE, start_link, Arguments},
      restart => if is_function(Transport, 0) -> permanent; true -> temporary end,
      shutdown => 5000};
child_spec(Other) ->
    bad(child_spec, [Other], #{1 => <<"must be [Transport] or [Transport, Options]">>}).

%% @doc Sends a request without payload and waits for the answer.
-spec request(connection(), natural()) -> result().
request(Connection, Type) ->
    request(Connection, Type, <<>>, #{}).

%% @doc Sends a request and waits for the answer. The same as `request(Connection, Type, Payload, #{})'.
-spec request(connection(), natural(), iodata()) -> result().
request(Connection, Type, Payload) ->
    request(Connection, Type, Payload, #{}).

%% @doc Sends a request, with `flags', on a `channel', and waits for the answer, at most for `timeout'. Type
%% is below 2^64 - 1.
%%
%% Where `max_outstanding' or `send_window' are reached it waits in line. When the caller dies meanwhile, the
%% request is forgotten. Between processes of one node the payload is passed by reference, as other large
%% binaries are.
-spec request(connection(), natural(), iodata(), request_options()) -> result().
request(Connection, Type, Payload, Options) ->
    case send(Connection, Type, Payload, Options, sync, request) of
        {ok, Reference} ->
            receive
                {Reference, Result} -> Result;
                {'DOWN', Reference, process, _, Reason} -> down(Reason)
            end;
        {error, _} = Error ->
            Error
    end.

%% @doc The same as `send_request(Connection, Type, <<>>, #{})'.
-spec send_request(connection(), natural()) -> request_id().
send_request(Connection, Type) ->
    send_request(Connection, Type, <<>>, #{}).

%% @doc The same as `send_request(Connection, Type, Payload, #{})'.
-spec send_request(connection(), natural(), iodata()) -> request_id().
send_request(Connection, Type, Payload) ->
    send_request(Connection, Type, Payload, #{}).

%% @doc Sends a request and returns at once. The answer, also an error, is for {@link receive_response/2} or
%% {@link check_response/2} of the same process.
-spec send_request(connection(), natural(), iodata(), request_options()) -> request_id().
send_request(Connection, Type, Payload, Options) ->
    case send(Connection, Type, Payload, Options, async, send_request) of
        {ok, Reference} ->
            {causeway_packet_request, where(Connection), Reference};
        {error, _} = Error ->
            Reference = make_ref(),
            self() ! {Reference, Error},
            {causeway_packet_request, self(), Reference}
    end.

%% @doc Waits for the answer. The same as `receive_response(Id, infinity)'.
-spec receive_response(request_id()) -> result().
receive_response(Id) ->
    receive_response(Id, infinity).

%% @doc Waits for the answer, at most so many milliseconds. After `{error, timeout}' the request is cancelled.
-spec receive_response(request_id(), timeout()) -> result().
receive_response({causeway_packet_request, _, Reference} = Id, Timeout) ->
    receive
        {Reference, Result} -> Result;
        {'DOWN', Reference, process, _, Reason} -> down(Reason)
    after Timeout ->
        ok = cancel(Id),
        {error, timeout}
    end.

%% @doc Whether a message is the answer to a request: for a gen_server, in `handle_info'.
-spec check_response(Message :: term(), request_id()) -> {reply, result()} | no_reply.
check_response({Reference, Result}, {causeway_packet_request, _, Reference}) -> {reply, Result};
check_response({'DOWN', Reference, process, _, Reason}, {causeway_packet_request, _, Reference}) -> {reply, down(Reason)};
check_response(_Message, {causeway_packet_request, _, _}) -> no_reply.

%% @doc Forgets a request, of the same process. Nothing comes for it any more, and nothing is left in the mailbox. What
%% the peer makes of it cannot be stopped.
-spec cancel(request_id()) -> ok.
cancel({causeway_packet_request, Pid, Reference}) ->
    true = erlang:demonitor(Reference, [flush]),
    receive
        {Reference, _} -> ok
    after 0 ->
        _ = [Pid ! {'$causeway_packet_cancel', Reference} || is_pid(Pid)],
        ok
    end.

%% @doc Answers a request, from any process, once: what its handler would return otherwise. Returns at once. A
%% second answer, and one that comes too late, is thrown away.
-spec reply(from(), response()) -> ok.
reply({causeway_packet, Pid, Key, Serial} = From, Response) ->
    case normal_response(Response) of
        badarg ->
            bad(reply, [From, Response], #{2 => <<"must be what a handler may return, but noreply">>});
        Normal ->
            Pid ! {'$causeway_packet_reply', Key, Serial, Normal},
            ok
    end.

normal_response(noreply) ->
    badarg;
normal_response(Response) ->
    try
        causeway_packet_handler:response(Response)
    catch
        error:_ -> badarg
    end.

%% @private
%% @doc Says how much of what was passed on to the calling process it has looked at.
-spec taken(pid(), non_neg_integer()) -> ok.
taken(Connection, Bytes) ->
    Connection ! {'$causeway_packet_taken', Bytes},
    ok.

%% @doc Opens a channel with a handler of its own, in both directions. The numbers are agreed with the peer by other
%% means, from 1 on. `{error, already_open}', and `{error, {bad_handler, _}}' or what a handler's `init/1'
%% stops with.
-spec open_channel(connection(), pos_integer(), handler()) -> ok | {error, term()}.
open_channel(Connection, Channel, Handler) when is_integer(Channel), Channel > 0, Channel < 1 bsl 64 ->
    case causeway_packet_handler:is_handler(Handler) of
        true -> ask(Connection, {open_channel, Channel, Handler});
        false -> bad(open_channel, [Connection, Channel, Handler], #{3 => <<"must be a handler, or undefined">>})
    end;
open_channel(Connection, Channel, Handler) ->
    bad(open_channel, [Connection, Channel, Handler], #{2 => <<"must be a number from 1 on">>}).

%% @doc Closes a channel. Requests on it that are outstanding are answered by `{error, {closed,
%% channel_closed}}'. One that is not open is no error.
-spec close_channel(connection(), pos_integer()) -> ok | {error, term()}.
close_channel(Connection, Channel) when is_integer(Channel), Channel > 0 ->
    ask(Connection, {close_channel, Channel});
close_channel(Connection, Channel) ->
    bad(close_channel, [Connection, Channel], #{2 => <<"must be a number from 1 on">>}).

%% @doc Tells the peer that no more requests come. `cs.packetstream' up to release 20240412 does not know that, and ends
%% the connection.
-spec send_erq(connection()) -> ok | {error, term()}.
send_erq(Connection) ->
    ask(Connection, send_erq).

%% @doc Ends our direction, when the requests in hand are answered. The answers to ours still come, and then the
%% connection ends.
-spec send_eof(connection()) -> ok | {error, term()}.
send_eof(Connection) ->
    ask(Connection, send_eof).

%% @doc Closes the connection as {@link close/2} does, for the time of the option `drain'.
-spec close(connection()) -> ok.
close(Connection) ->
    close_after(Connection, standard).

%% @doc Closes the connection: no new requests, in neither direction. Those that are outstanding or in hand are waited
%% for, at most so many milliseconds; then the peer is told the end. Returns when the process has ended, also
%% long ago.
-spec close(connection(), timeout()) -> ok.
close(Connection, Timeout) when Timeout =:= infinity; is_integer(Timeout), Timeout >= 0, Timeout < 1 bsl 32 ->
    close_after(Connection, Timeout);
close(Connection, Timeout) ->
    bad(close, [Connection, Timeout], #{2 => <<"must be milliseconds or infinity">>}).

close_after(Connection, Timeout) ->
    _ = ask(Connection, {close, Timeout}),
    ok.

%% @doc How the connection stands; `{error, {closed, noproc}}' when it has ended.
%%
%% <dl>
%% <dt>`state', `transport', `channels', `is_reading'</dt><dd>What it is, and whether it reads now or has a window
%% full.</dd>
%% <dt>`outstanding', `waiting'</dt><dd>Requests that wait for an answer; that wait in line to be sent.</dd>
%% <dt>`in_hand', `in_hand_bytes'</dt><dd>Requests of the peer that are being handled, and the bytes of these.</dd>
%% <dt>`queued_bytes'</dt><dd>What is to be written.</dd>
%% <dt>`requests', `responses', `cancelled', `timeouts', `stray_responses'</dt><dd>Requests sent and answers to them ever;
%% requests given up; answers that came too late or to nothing.</dd>
%% <dt>`peer_requests', `peer_responses', `rejected'</dt><dd>The same of the peer's; those refused, as without a
%% handler.</dd>
%% <dt>`bytes_in', `bytes_out', `packets_in', `packets_out', `reads', `writes'</dt><dd>What has gone through.</dd>
%% </dl>
-spec info(connection()) -> info() | {error, term()}.
info(Connection) ->
    ask(Connection, info).

%% Asking the process

%% The answer comes by an alias: one that is not waited for any more is nowhere. Nothing is sent where the request
%% could not be a packet.
send(Connection, Type, Payload, Options, Kind, Function) ->
    case Options of
        #{} when map_size(Options) =:= 0 ->
            send(Connection, 0, Type, 0, Payload, Kind, standard, {Function, Options});
        #{} ->
            Channel = maps:get(channel, Options, 0),
            Flags = maps:get(flags, Options, 0),
            Timeout = maps:get(timeout, Options, standard),
            is_request_options(maps:to_list(Options))
                orelse bad(Function, [Connection, Type, Payload, Options],
                           #{4 => <<"must be a map of flags, channel and timeout">>}),
            send(Connection, Channel, Type, Flags, Payload, Kind, Timeout, {Function, Options});
        _ ->
            bad(Function, [Connection, Type, Payload, Options], #{4 => <<"must be a map of flags, channel and timeout">>})
    end.

send(Connection, Channel, Type, Flags, Payload, Kind, Timeout, {Function, Options}) ->
    is_integer(Type) andalso Type >= 0 andalso Type < 1 bsl 64 - 1
        orelse bad(Function, [Connection, Type, Payload, Options], #{2 => <<"must be a number from 0 on, of 64 bits">>}),
    Size = size_of(Connection, Type, Payload, Options, Function),
    case where(Connection) of
        undefined ->
            {error, {closed, noproc}};
        Process ->
            Reference = erlang:monitor(process, Process, [{alias, reply_demonitor}]),
            Process ! {'$causeway_packet_request', self(), Reference, Channel, Type + 1, Flags, Payload, Size,
                       {Kind, Timeout}},
            {ok, Reference}
    end.

size_of(_Connection, _Type, Payload, _Options, _Function) when is_binary(Payload) ->
    byte_size(Payload);
size_of(Connection, Type, Payload, Options, Function) ->
    try
        iolist_size(Payload)
    catch
        error:badarg -> bad(Function, [Connection, Type, Payload, Options], #{3 => <<"must be iodata">>})
    end.

is_request_options(Options) ->
    lists:all(fun({flags, Flags}) -> is_integer(Flags) andalso Flags >= 0 andalso Flags < 1 bsl 62;
                 ({channel, Channel}) -> is_integer(Channel) andalso Channel >= 0 andalso Channel < 1 bsl 64;
                 ({timeout, infinity}) -> true;
                 ({timeout, Time}) -> is_integer(Time) andalso Time >= 0 andalso Time < 1 bsl 32;
                 (_) -> false
              end, Options).

where(Pid) when is_pid(Pid) -> Pid;
where(Name) when is_atom(Name) -> whereis(Name);
where({global, Name}) -> global:whereis_name(Name);
where({via, Module, Name}) -> Module:whereis_name(Name).

ask(Connection, Request) ->
    case where(Connection) of
        undefined ->
            {error, {closed, noproc}};
        Process ->
            Reference = erlang:monitor(process, Process, [{alias, reply_demonitor}]),
            Process ! {'$causeway_packet', {self(), Reference}, Request},
            receive
                {Reference, Answer} -> Answer;
                {'DOWN', Reference, process, _, Reason} -> down(Reason)
            end
    end.

down({shutdown, Why}) -> {error, {closed, Why}};
down(normal) -> {error, {closed, noproc}};
down(Reason) -> {error, {closed, Reason}}.

%% Errors

-spec bad(atom(), [term()], #{pos_integer() => binary()}) -> no_return().
bad(Function, Arguments, Texts) ->
    causeway_badarg:raise(?MODULE, Function, Arguments, Texts).
