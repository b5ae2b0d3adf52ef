%% @doc What the suites of handed over sockets share.
-module(handoff_ct).

-export([elsewhere/1, number/1, close/1, receive_from/2, still_usable/2, still_usable/3, await_message/0, await_messages/2,
         flush/0]).

-include_lib("stdlib/include/assert.hrl").

%% @doc What a fun returns in another process.
-spec elsewhere(fun(() -> Result)) -> Result.
elsewhere(Fun) ->
    {Process, Monitor} = spawn_monitor(fun() -> exit({result, Fun()}) end),
    receive {'DOWN', Monitor, process, Process, {result, Result}} -> Result end.

%% @doc The descriptor of a socket of any kind.
-spec number(term()) -> integer().
number({'$socket', _} = Socket) ->
    {ok, Fd} = socket:getopt(Socket, otp, fd),
    Fd;
number({'$inet', _, {_, Socket}}) ->
    number(Socket);
number(Socket) ->
    {ok, Fd} = inet:getfd(Socket),
    Fd.

%% @doc Closes one.
-spec close(term()) -> ok.
close({'$socket', _} = Socket) -> socket:close(Socket);
close(Socket) -> gen_tcp:close(Socket).

%% @doc So many bytes of one.
-spec receive_from(term(), non_neg_integer()) -> binary() | string().
receive_from({'$socket', _} = Socket, Size) ->
    {ok, Data} = socket:recv(Socket, Size, 5000),
    Data;
receive_from(Socket, Size) ->
    {ok, Data} = gen_tcp:recv(Socket, Size, 5000),
    Data.

%% @doc The caller owns the socket as before, in both directions.
-spec still_usable(gen_tcp:socket(), term()) -> ok.
still_usable(Client, Server) ->
    still_usable(Client, Server, []).

%% @doc The same after options were set.
-spec still_usable(gen_tcp:socket(), term(), list()) -> ok.
still_usable(Client, Server, Options) ->
    Options =:= [] orelse begin ok = inet:setopts(Server, Options) end,
    ok = gen_tcp:send(Client, <<"there">>),
    ?assertEqual(<<"there">>, receive_from(Server, 5)),
    case Server of
        {'$socket', _} -> ok = socket:send(Server, <<"back">>);
        _ -> ok = gen_tcp:send(Server, <<"back">>)
    end,
    ?assertEqual(<<"back">>, socket_ct:read(Client, 4)),
    ok = gen_tcp:close(Client),
    ok = close(Server).

%% @doc Waits for something from a socket, and leaves it where it is.
-spec await_message() -> ok.
await_message() ->
    causeway_ct:wait_until(fun() -> [] =/= [Message || Message <- causeway_ct:mailbox(), is_from_socket(Message)] end).

%% @doc Waits for so many messages of a socket.
-spec await_messages(gen_tcp:socket(), non_neg_integer()) -> ok.
await_messages(Socket, Number) ->
    causeway_ct:wait_until(fun() -> Number =:= length([Message || {tcp, From, _} = Message <- causeway_ct:mailbox(), From =:= Socket]) end).

is_from_socket(Message) when is_tuple(Message) -> lists:member(element(1, Message), [tcp, http]) orelse is_port(element(1, Message));
is_from_socket(_Message) -> false.

%% @doc Throws away what is in the mailbox.
-spec flush() -> ok.
flush() ->
    receive _ -> flush() after 0 -> ok end.
