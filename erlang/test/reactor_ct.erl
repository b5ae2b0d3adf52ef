%% @doc What the suites of the reactor share: connections over TCP, and what the protocols of `reactor_protocols' tell.
-module(reactor_ct).

-export([start_context/1, kill_context/1, log/2]).
-export([use/1, connected/1, connected/2, connected_to/2, listen/0, tcp_pair/0, tcp_pair/1, fd/1]).
-export([ask/2, ask/3, read_all/1, expect_lost/0, expect_logged/2]).

-include_lib("stdlib/include/assert.hrl").

%% @doc For init_per_testcase: every case has a context of its own, and is told what callbacks raise.
-spec start_context(list()) -> list().
start_context(Config) ->
    ok = logger:add_handler(?MODULE, ?MODULE, #{config => #{test => self()}}),
    causeway_ct:start_context(Config).

%% @doc For end_per_testcase.
-spec kill_context(list()) -> true.
kill_context(Config) ->
    ok = logger:remove_handler(?MODULE),
    causeway_ct:kill_context(Config).

%% @doc As a handler of logger: what Python's callbacks raise comes to the test.
-spec log(logger:log_event(), map()) -> term().
log(#{msg := {report, #{callback := Callback} = Report}, meta := Meta} = Event, #{config := #{test := Test}}) ->
    #{report_cb := Format} = Meta,
    {Text, Arguments} = Format(Report),
    Test ! {logged, Callback, unicode:characters_to_binary(io_lib:format(Text, Arguments)), Event};
log(#{msg := {report, #{text := Text}}} = Event, #{config := #{test := Test}}) ->
    Test ! {logged, text, Text, Event};
log(_Event, _Config) ->
    ok.

%% @doc Makes a protocol the factory of all contexts; its events come to the calling process.
-spec use(atom()) -> ok.
use(Protocol) ->
    {ok, none} = py:call(reactor_protocols, use, [Protocol, self()]),
    ok.

%% @doc The client's end of a connection that the context of the case serves.
-spec connected(list()) -> gen_tcp:socket().
connected(Config) -> connected(Config, #{}).

%% @doc The same, with a client_info.
-spec connected(list(), map()) -> gen_tcp:socket().
connected(Config, Info) -> connected_to(causeway_ct:context(Config), Info).

%% @doc The same, of another context.
-spec connected_to(pid(), map()) -> gen_tcp:socket().
connected_to(Context, Info) ->
    {Client, Server} = tcp_pair(),
    ok = py_reactor_context:handoff(Context, fd(Server), Info),
    Client.

%% @doc A listening socket of the calling process.
-spec listen() -> gen_tcp:socket().
listen() ->
    {ok, Listen} = gen_tcp:listen(0, [binary, {active, false}, {ip, {127, 0, 0, 1}}, {backlog, 1024}]),
    Listen.

%% @doc A client and the accepted socket.
-spec tcp_pair() -> {gen_tcp:socket(), gen_tcp:socket()}.
tcp_pair() ->
    Listen = listen(),
    Pair = tcp_pair(Listen),
    ok = gen_tcp:close(Listen),
    Pair.

%% @doc The same by a listening socket.
-spec tcp_pair(gen_tcp:socket()) -> {gen_tcp:socket(), gen_tcp:socket()}.
tcp_pair(Listen) ->
    {ok, Port} = inet:port(Listen),
    {ok, Client} = gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, false}, {nodelay, true}]),
    {ok, Server} = gen_tcp:accept(Listen, 10000),
    {Client, Server}.

%% @doc The descriptor of a socket.
-spec fd(gen_tcp:socket()) -> non_neg_integer().
fd(Socket) ->
    {ok, Fd} = inet:getfd(Socket),
    Fd.

%% @doc Sends, and receives as many bytes.
-spec ask(gen_tcp:socket(), binary()) -> binary().
ask(Socket, Data) ->
    ask(Socket, Data, byte_size(Data)).

%% @doc Sends, and receives so many bytes.
-spec ask(gen_tcp:socket(), binary(), non_neg_integer()) -> binary().
ask(Socket, Data, Size) ->
    ok = gen_tcp:send(Socket, Data),
    {ok, Answer} = gen_tcp:recv(Socket, Size, 10000),
    Answer.

%% @doc Receives to the end.
-spec read_all(gen_tcp:socket()) -> binary().
read_all(Socket) ->
    iolist_to_binary(read_more(Socket)).

read_more(Socket) ->
    case gen_tcp:recv(Socket, 0, 10000) of
        {ok, Data} -> [Data | read_more(Socket)];
        {error, closed} -> []
    end.

%% @doc Some connection of a Watched has ended.
-spec expect_lost() -> ok.
expect_lost() ->
    receive
        {<<"lost">>, Fd, true} when is_integer(Fd) -> ok
    after 10000 -> error({connection_lost_was_not_called, causeway_ct:mailbox()})
    end.

%% @doc Waits until a callback is said to have raised something: the text, and the event of logger.
-spec expect_logged(atom(), string()) -> {binary(), logger:log_event()}.
expect_logged(Callback, Part) ->
    receive
        {logged, Callback, Text, Event} ->
            ?assertNotEqual(nomatch, string:find(Text, Part)),
            {Text, Event}
    after 10000 -> error({not_logged, Callback, causeway_ct:mailbox()})
    end.
