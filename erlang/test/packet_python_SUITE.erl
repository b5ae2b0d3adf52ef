%% @doc `erlang.packetstream' inside a node: in contexts of every mode, and with Erlang at the other end.
-module(packet_python_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-define(HELPERS, packet_helpers).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [every_mode, interrupted, over_byte_channels, over_tcp, handlers_call_erlang, a_context_ends, nothing_is_left].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_testcase(_Case, Config) -> Config.

end_per_testcase(_Case, _Config) -> ?assertEqual([], causeway_ct:mailbox()).

every_mode(_Config) ->
    [begin
         Context = channel_ct:context(Mode),
         ?assertEqual({ok, 1000}, py:call(Context, ?HELPERS, round_trips, [1000, 10], 30000)),
         ?assertEqual({ok, 20}, py:call(Context, ?HELPERS, round_trips, [20, 300000], 30000)),
         unlink(Context),
         exit(Context, kill)
     end || Mode <- channel_ct:modes()].

%% Who waits for a response in a context can be given up like any other call.
interrupted(_Config) ->
    ?assertEqual({error, timeout}, py:call(?HELPERS, wait_for_ever, [], #{}, 50)),
    ?assertEqual({ok, 10}, py:call(?HELPERS, round_trips, [10, 10])).

over_byte_channels(_Config) ->
    {ok, There} = py_byte_channel:new(),
    {ok, Back} = py_byte_channel:new(),
    Call = py:spawn_call(?HELPERS, serve, [There, Back]),
    ok = py_byte_channel:send(There, [causeway_packet:encode({request, 0, Tag, 3, 8, <<"abc">>}) || Tag <- [1, 2, 300]]),
    Answers = answers(Back, <<>>, 3),
    ?assertEqual([{response, 0, Tag, 7, <<"ABC">>} || Tag <- [1, 2, 300]], lists:sort(Answers)),
    ok = py_byte_channel:send(There, causeway_packet:encode({request, 0, 0, 0, 0, <<>>})),
    ?assertEqual({ok, <<"the peer has ended its packets">>}, py:await(Call, 30000)),
    ?assertEqual([{request, 0, 0, 0, 0, <<>>}], answers(Back, <<>>, 1)).

answers(_Channel, <<>>, 0) -> [];
answers(Channel, Before, Count) ->
    {ok, Bytes} = py_byte_channel:recv(Channel, 30000),
    {Packets, Rest, _Needed} = causeway_packet:decode(<<Before/binary, Bytes/binary>>),
    Packets ++ answers(Channel, Rest, Count - length(Packets)).

%% Python begins to serve, and goes on between calls.
over_tcp(_Config) ->
    {ok, Listener} = gen_tcp:listen(0, [binary, {active, false}, {ip, loopback}]),
    {ok, Port} = inet:port(Listener),
    {ok, Client} = gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, false}]),
    {ok, Server} = gen_tcp:accept(Listener),
    {ok, Fd} = inet:getfd(Server),
    {ok, none} = py:call(?HELPERS, serve_socket, [Fd]),
    Payload = binary:copy(<<"abc">>, 100000),
    ok = gen_tcp:send(Client, causeway_packet:encode({request, 0, 9, 0, 1, Payload})),
    Answer = iolist_to_binary(causeway_packet:encode({response, 0, 9, 1, binary:copy(<<"cba">>, 100000)})),
    ?assertEqual({ok, Answer}, gen_tcp:recv(Client, byte_size(Answer), 30000)),
    ok = gen_tcp:send(Client, <<0>>),
    ?assertEqual({ok, <<3, 0, 2, 0>>}, gen_tcp:recv(Client, 4, 30000)),
    {ok, none} = py:call(?HELPERS, close_all, []),
    [ok = gen_tcp:close(Socket) || Socket <- [Client, Server, Listener]].

handlers_call_erlang(_Config) ->
    ok = py:register_function(packet_answer, fun([]) -> <<"from Erlang">> end),
    ?assertEqual({ok, {true, 0, <<"from Erlang">>}}, py:call(?HELPERS, callback, [packet_answer])),
    ok = py:unregister_function(packet_answer).

%% Connections end with the context whose interpreter was its own, and leave nothing: it is for the next one.
a_context_ends(_Config) ->
    Ends = [fun(Context) -> exit(Context, kill) end, fun py_context:stop/1],
    [begin
         Before = causeway_ct:descriptors(),
         [ok = serve_until(Mode, End) || _ <- lists:seq(1, 5)],
         ok = causeway_ct:wait_until(fun() -> causeway_ct:descriptors() =< Before end),
         ok = causeway_ct:wait_until(fun() -> causeway_ct:threads(<<"causeway-packet">>) =:= 0 end)
     end || Mode <- channel_ct:modes(), Mode =/= worker, End <- Ends].

serve_until(Mode, End) ->
    {Client, Server} = connection_ct:sockets(),
    {ok, Fd} = inet:getfd(Server),
    Context = channel_ct:context(Mode),
    unlink(Context),
    {ok, none} = py:call(Context, ?HELPERS, serve_socket, [Fd]),
    ok = gen_tcp:close(Server),
    ok = gen_tcp:send(Client, causeway_packet:encode({request, 0, 9, 0, 1, <<"ab">>})),
    ?assertEqual({ok, iolist_to_binary(causeway_packet:encode({response, 0, 9, 1, <<"ba">>}))}, gen_tcp:recv(Client, 5, 30000)),
    End(Context),
    ?assertEqual({ok, <<3, 0, 2, 0>>}, gen_tcp:recv(Client, 4, 30000)),
    ?assertEqual({error, closed}, gen_tcp:recv(Client, 1, 30000)),
    gen_tcp:close(Client).

nothing_is_left(_Config) ->
    {ok, 10} = py:call(?HELPERS, round_trips, [10, 10]),
    Before = causeway_ct:descriptors(),
    [{ok, 10} = py:call(?HELPERS, round_trips, [10, 10]) || _ <- lists:seq(1, 20)],
    causeway_ct:wait_until(fun() -> causeway_ct:descriptors() =< Before end).
