%% @doc What the suites of packet connections share: a connection, and a peer that writes and reads bare bytes.
-module(connection_ct).

-export([start/1, start/2, sockets/0, sockets/1, with_peer/0, with_peer/1, pair/1, pair/2]).
-export([say/2, hear/2, heard/1, hear_end/1, say_nothing_more/1]).
-export([info/2, wait_info/3, ended/1, echo/3, requests/3, responses/1, packets/1, hex/1, many/3]).

-define(CONNECTION, causeway_packet_connection).

%% @doc For init_per_suite.
-spec start(list()) -> list().
start(Config) ->
    causeway_ct:start(Config).

%% @doc Two ends of a TCP connection over loopback.
-spec sockets() -> {gen_tcp:socket(), gen_tcp:socket()}.
sockets() -> sockets([]).

%% @doc The same with options.
-spec sockets(list()) -> {gen_tcp:socket(), gen_tcp:socket()}.
sockets(Options) ->
    All = [binary, {active, false}, {nodelay, true}, {ip, {127, 0, 0, 1}}],
    {ok, Listener} = gen_tcp:listen(0, Options ++ All),
    {ok, Port} = inet:port(Listener),
    {ok, Here} = gen_tcp:connect({127, 0, 0, 1}, Port, Options ++ lists:droplast(All)),
    {ok, There} = gen_tcp:accept(Listener),
    ok = gen_tcp:close(Listener),
    {Here, There}.

%% @doc A connection and the socket of its peer.
-spec with_peer() -> {pid(), gen_tcp:socket()}.
with_peer() -> with_peer(#{}).

%% @doc The same with options.
-spec with_peer(map()) -> {pid(), gen_tcp:socket()}.
with_peer(Options) ->
    {Here, There} = sockets(),
    %% It can still write when it has read the end.
    ok = inet:setopts(There, [{exit_on_close, false}]),
    {start(Here, Options), There}.

%% @doc Two connections with each other. The second has the options.
-spec pair(map()) -> {pid(), pid()}.
pair(Options) -> pair(#{}, Options).

%% @doc The same with options of both.
-spec pair(map(), map()) -> {pid(), pid()}.
pair(HereOptions, ThereOptions) ->
    {Here, There} = sockets(),
    {start(Here, HereOptions), start(There, ThereOptions)}.

%% @doc A handler that gives back what it gets.
-spec echo(non_neg_integer(), non_neg_integer(), binary()) -> term().
echo(_Type, Flags, Payload) -> {Flags, Payload}.

%% @doc Bytes, from a text of hexadecimal digits and spaces.
-spec hex(string()) -> binary().
hex(Text) -> binary:decode_hex(list_to_binary(lists:delete($\s, string:replace(Text, " ", "", all)))).

%% @doc The peer writes bytes.
-spec say(gen_tcp:socket(), string() | binary()) -> ok.
say(Peer, Bytes) when is_binary(Bytes) -> gen_tcp:send(Peer, Bytes);
say(Peer, Text) -> say(Peer, hex(Text)).

%% @doc The peer reads exactly these bytes.
-spec hear(gen_tcp:socket(), string() | binary()) -> ok.
hear(Peer, Text) when is_list(Text) ->
    hear(Peer, hex(Text));
hear(Peer, Bytes) ->
    {ok, Read} = gen_tcp:recv(Peer, byte_size(Bytes), 10000),
    case Read of
        Bytes -> ok;
        _ -> error({read, binary:encode_hex(Read), expected, binary:encode_hex(Bytes)})
    end.

%% @doc All that the peer reads to the end.
-spec heard(gen_tcp:socket()) -> binary().
heard(Peer) ->
    case gen_tcp:recv(Peer, 0, 10000) of
        {ok, Data} -> <<Data/binary, (heard(Peer))/binary>>;
        {error, Reason} when Reason =:= closed; Reason =:= econnreset -> <<>>
    end.

%% @doc The peer reads the end and nothing before.
-spec hear_end(gen_tcp:socket()) -> ok.
hear_end(Peer) ->
    <<>> = heard(Peer),
    ok.

%% @doc The peer ends its direction.
-spec say_nothing_more(gen_tcp:socket()) -> ok.
say_nothing_more(Peer) -> gen_tcp:shutdown(Peer, write).

%% @doc One of the numbers of a connection.
-spec info(pid(), atom()) -> term().
info(Connection, Key) -> maps:get(Key, ?CONNECTION:info(Connection)).

%% @doc Waits until a number is that.
-spec wait_info(pid(), atom(), term()) -> ok.
wait_info(Connection, Key, Value) ->
    causeway_ct:wait_until(fun() -> info(Connection, Key) =:= Value end).

%% @doc A connection whose end {@link ended/1} knows. It is linked to nobody.
-spec start(causeway_packet_transport:transport(), map()) -> pid().
start(Transport, Options) ->
    {ok, Connection} = ?CONNECTION:start(Transport, Options),
    Test = self(),
    Watcher = spawn(fun() ->
                        TestMonitor = erlang:monitor(process, Test),
                        Monitor = erlang:monitor(process, Connection),
                        Test ! {self(), watches},
                        receive
                            {'DOWN', Monitor, process, Connection, Reason} ->
                                receive
                                    {Test, ask} -> Test ! {self(), Reason};
                                    {'DOWN', TestMonitor, process, Test, _} -> ok
                                end;
                            {'DOWN', TestMonitor, process, Test, _} ->
                                exit(Connection, kill)
                        end
                    end),
    receive {Watcher, watches} -> ok end,
    put({?MODULE, Connection}, Watcher),
    Connection.

%% @doc With which reason such a connection ends, or has ended.
-spec ended(pid()) -> term().
ended(Connection) ->
    Watcher = get({?MODULE, Connection}),
    Watcher ! {self(), ask},
    receive {Watcher, Reason} -> Reason
    after 20000 -> error({still_there, sys:get_status(Connection)})
    end.

%% @doc The packets of requests, with tags from the first on.
-spec requests(pos_integer(), pos_integer(), iodata()) -> binary().
requests(First, Last, Payload) ->
    iolist_to_binary([causeway_packet:encode({request, 0, Tag, 0, 1, Payload}) || Tag <- lists:seq(First, Last)]).

%% @doc What responses say, by their tags.
-spec responses(binary()) -> #{pos_integer() => {non_neg_integer(), binary()}}.
responses(Bytes) ->
    maps:from_list([{Tag, {Flags, Payload}} || {response, 0, Tag, Flags, Payload} <- packets(Bytes)]).

%% @doc The packets in some bytes.
-spec packets(binary()) -> [causeway_packet:packet()].
packets(Bytes) ->
    case causeway_packet:decode(Bytes) of
        {Packets, Rest, 0} -> Packets ++ packets(Rest);
        {Packets, <<>>, _} -> Packets
    end.

%% @doc Runs a fun in so many processes, and returns what they did.
-spec many(pos_integer(), fun((pos_integer()) -> Result), timeout()) -> [Result].
many(Number, Fun, Timeout) ->
    Test = self(),
    Processes = [spawn_monitor(fun() -> Test ! {self(), Fun(N)} end) || N <- lists:seq(1, Number)],
    [receive
         {Pid, Result} -> receive {'DOWN', Monitor, process, Pid, _} -> Result end
     after Timeout -> error({no_result, Pid, process_info(Pid)})
     end || {Pid, Monitor} <- Processes].
