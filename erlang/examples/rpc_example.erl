%% @doc A streaming call between two nodes: this one sends the chunks of a file to Python in another, which answers with
%% words of it meanwhile; half way this one has enough.
%%
%% In a node with a name, with `erlang/examples' compiled: `rpc_example:run("/a/large/file")'.
-module(rpc_example).

-export([run/1]).

-define(NAME, <<"tokens">>).
-define(CHUNK, 65536).

%% @doc Returns how many words came until half of the file was sent, and how the call has ended in Python.
-spec run(file:filename()) -> #{tokens := non_neg_integer(), code := binary()}.
run(Path) ->
    {ok, _} = application:ensure_all_started(causeway),
    {Peer, Node} = start_provider(),
    {ok, Stream} = causeway_rpc:open_stream(?NAME, 8, #{deadline => 60000}),
    Half = filelib:file_size(Path) div 2,
    Test = self(),
    %% It waits for room while Python is behind, and ends with the stream.
    Sender = spawn_link(fun() -> send_file(Path, Stream, Half, Test) end),
    Tokens = count(Stream, Sender, 0),
    ok = causeway_rpc_stream:cancel(Stream),
    {error, {<<"cancelled">>, _}} = causeway_rpc_stream:await_reply(Stream),
    {ok, Code} = erpc:call(Node, py, call, [rpc_tokens, ended, []]),
    ok = peer:stop(Peer),
    #{tokens => Tokens, code => Code}.

%% A node whose Python serves the name, which this one knows when it has joined the group.
start_provider() ->
    {Monitor, []} = pg:monitor(causeway_rpc, ?NAME),
    Paths = lists:append([["-pa", Path] || Path <- code:get_path(), filelib:is_dir(Path)]),
    {ok, Peer, Node} = peer:start_link(#{name => peer:random_name("tokens"), connection => standard_io,
                                         args => ["-setcookie", atom_to_list(erlang:get_cookie()) | Paths]}),
    {ok, _} = erpc:call(Node, application, ensure_all_started, [causeway]),
    pong = net_adm:ping(Node),
    ok = erpc:call(Node, py, exec, [["import sys; sys.path.append('", directory(), "'); import rpc_tokens"]]),
    receive
        {Monitor, join, ?NAME, [_Provider]} -> ok
    after 30000 -> error(no_provider)
    end,
    _ = pg:demonitor(causeway_rpc, Monitor),
    {Peer, Node}.

directory() ->
    filename:dirname(proplists:get_value(source, ?MODULE:module_info(compile))).

send_file(Path, Stream, Half, Client) ->
    {ok, File} = file:open(Path, [read, raw, binary]),
    send_chunks(File, Stream, 0, Half, Client),
    ok = file:close(File).

send_chunks(File, Stream, Sent, Half, Client) ->
    case file:read(File, ?CHUNK) of
        {ok, Chunk} ->
            _ = [Client ! {half, self()} || Sent < Half, Sent + byte_size(Chunk) >= Half],
            case causeway_rpc_stream:send(Stream, Chunk) of
                ok -> send_chunks(File, Stream, Sent + byte_size(Chunk), Half, Client);
                {error, _Cancelled} -> ok
            end;
        eof ->
            _ = causeway_rpc_stream:close_send(Stream),
            ok
    end.

count(Stream, Sender, Tokens) ->
    receive
        {half, Sender} -> Tokens
    after 0 ->
        case causeway_rpc_stream:recv(Stream, 10) of
            {chunk, Token} when byte_size(Token) =< 8 -> count(Stream, Sender, Tokens + 1);
            {error, timeout} -> count(Stream, Sender, Tokens)
        end
    end.
