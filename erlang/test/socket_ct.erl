%% @doc What the suites of sockets share: sockets of every kind, contexts, and what the protocols of
%% `socket_protocols' tell.
-module(socket_ct).

-export([use/1, context/0, context/1, kinds/0, families/0]).
-export([listen/2, listen/3, client/1, pair/2, pair/3, address/1, name/1, file/0]).
-export([ask/2, read_all/1, read/2, told/1, made/0, lost/1, lost_anyone/0, all_is/1]).
-export([active/1, stats/2, idle_ticks/0, idle_ticks/1]).

-include_lib("stdlib/include/assert.hrl").

-define(PATIENCE, 20000).

%% @doc Makes a protocol the factory of all contexts; its events come to the calling process.
-spec use(atom()) -> ok.
use(Protocol) ->
    {ok, none} = py:call(socket_protocols, use, [Protocol, self()]),
    ok.

%% @doc A context that dies with the test.
-spec context() -> pid().
context() ->
    context(#{}).

%% @doc The same with options.
-spec context(map()) -> pid().
context(Options) ->
    {ok, Context} = py_reactor_context:start_link(1, worker, Options),
    Context.

%% @doc Where sockets come from: a port, gen_tcp on the module socket, that module itself.
-spec kinds() -> [port | server | plain].
kinds() ->
    [port, server, plain].

%% @doc Families of addresses that this machine has.
-spec families() -> [inet | inet6 | local].
families() ->
    case gen_tcp:listen(0, [inet6, {ip, {0, 0, 0, 0, 0, 0, 0, 1}}]) of
        {ok, Socket} ->
            ok = gen_tcp:close(Socket),
            [inet, inet6, local];
        {error, _} ->
            [inet, local]
    end.

%% @doc A listening socket of the calling process.
-spec listen(port | server | plain, inet | inet6 | local) -> term().
listen(Kind, Family) ->
    listen(Kind, Family, []).

%% @doc The same with options of gen_tcp.
-spec listen(port | server | plain, inet | inet6 | local, list()) -> term().
listen(plain, Family, _Options) ->
    {ok, Socket} = socket:open(Family, stream),
    ok = socket:bind(Socket, case Family of
                                 local -> #{family => local, path => name("plain")};
                                 _ -> #{family => Family, addr => loopback, port => 0}
                             end),
    ok = socket:listen(Socket, 1024),
    Socket;
listen(Kind, Family, Options) ->
    All = backend(Kind) ++ bound(Family) ++ [binary, {active, false}, {backlog, 1024} | Options],
    {ok, Socket} = gen_tcp:listen(0, All),
    Socket.

backend(port) -> [];
backend(server) -> [{inet_backend, socket}].

bound(inet) -> [inet, {ip, {127, 0, 0, 1}}];
bound(inet6) -> [inet6, {ip, {0, 0, 0, 0, 0, 0, 0, 1}}];
bound(local) -> [{ifaddr, {local, name("gen")}}].

%% @doc A name for a Unix socket that needs no file.
-spec name(string()) -> binary().
name(Prefix) ->
    Number = integer_to_list(erlang:unique_integer([positive])),
    iolist_to_binary([0, "causeway-", Prefix, "-", Number, "-", os:getpid()]).

%% @doc The name of a file for one, which is not there yet: short, since at most 107 bytes are allowed.
-spec file() -> binary().
file() -> list_to_binary(string:trim(os:cmd("mktemp --dry-run --tmpdir causeway-XXXXXXXX"))).

%% @doc Where a listening socket listens.
-spec address(term()) -> {tuple(), inet:port_number()}.
address({'$socket', _} = Socket) ->
    case socket:sockname(Socket) of
        {ok, #{path := Path}} -> {{local, Path}, 0};
        {ok, #{addr := Address, port := Port}} -> {Address, Port}
    end;
address(Socket) ->
    case inet:sockname(Socket) of
        {ok, {local, _} = Local} -> {Local, 0};
        {ok, Address} -> Address
    end.

%% @doc A connection of gen_tcp to an address.
-spec client({tuple(), inet:port_number()}) -> gen_tcp:socket().
client({Address, Port}) ->
    {ok, Client} = gen_tcp:connect(Address, Port, [binary, {active, false}]),
    Client.

%% @doc A client and the accepted socket.
-spec pair(port | server | plain, inet | inet6 | local) -> {gen_tcp:socket(), term()}.
pair(Kind, Family) ->
    pair(Kind, Family, []).

%% @doc The same, with options of the listener.
-spec pair(port | server | plain, inet | inet6 | local, list()) -> {gen_tcp:socket(), term()}.
pair(Kind, Family, Options) ->
    Listen = listen(Kind, Family, Options),
    Client = client(address(Listen)),
    Module = case Kind of plain -> socket; _ -> gen_tcp end,
    {ok, Server} = Module:accept(Listen),
    ok = Module:close(Listen),
    {Client, Server}.

%% @doc Sends, and receives as many bytes.
-spec ask(gen_tcp:socket(), binary()) -> binary().
ask(Client, Data) ->
    ok = gen_tcp:send(Client, Data),
    read(Client, byte_size(Data)).

%% @doc Receives so many bytes.
-spec read(gen_tcp:socket(), non_neg_integer()) -> binary().
read(Client, Size) ->
    {ok, Data} = gen_tcp:recv(Client, Size, ?PATIENCE),
    Data.

%% @doc Receives to the end.
-spec read_all(gen_tcp:socket()) -> binary().
read_all(Client) ->
    iolist_to_binary(pieces(Client)).

pieces(Client) ->
    case gen_tcp:recv(Client, 0, ?PATIENCE) of
        {ok, Data} -> [Data | pieces(Client)];
        {error, closed} -> []
    end.

%% @doc Waits for an event with this name.
-spec told(binary()) -> tuple().
told(Name) ->
    receive
        Event when element(1, Event) =:= Name -> Event
    after ?PATIENCE -> error({not_told, Name, causeway_ct:mailbox()})
    end.

%% @doc A connection has begun: its descriptor and client_info.
-spec made() -> {non_neg_integer(), map()}.
made() ->
    {_, Fd, Info} = told(<<"made">>),
    {Fd, Info}.

%% @doc A connection has ended.
-spec lost(non_neg_integer()) -> ok.
lost(Fd) ->
    causeway_ct:expect({<<"lost">>, Fd}).

%% @doc Some connection has ended.
-spec lost_anyone() -> ok.
lost_anyone() ->
    {_, _} = told(<<"lost">>),
    ok.

%% @doc Waits until a Receiver has got exactly these bytes.
-spec all_is(binary()) -> ok.
all_is(Expected) ->
    receive
        {<<"all">>, Expected} -> ok;
        {<<"all">>, Other} when byte_size(Other) >= byte_size(Expected) -> ?assertEqual(Expected, Other);
        {<<"all">>, _Part} -> all_is(Expected)
    after ?PATIENCE -> error({not_received, Expected, causeway_ct:mailbox()})
    end.

%% @doc Connections that a context has.
-spec active(pid()) -> non_neg_integer().
active(Context) ->
    stats(Context, active_connections).

%% @doc A counter of a context.
-spec stats(pid(), atom()) -> integer().
stats(Context, Key) ->
    maps:get(Key, py_reactor_context:stats(Context)).

%% @doc The CPU time of all context threads in one second, in ticks of 10 ms: here time itself is measured.
-spec idle_ticks() -> non_neg_integer().
idle_ticks() ->
    idle_ticks("self").

%% @doc The same of another node, by its process.
-spec idle_ticks(string()) -> non_neg_integer().
idle_ticks(Process) ->
    Before = causeway_ct:context_ticks(Process),
    timer:sleep(1000),
    causeway_ct:context_ticks(Process) - Before.
