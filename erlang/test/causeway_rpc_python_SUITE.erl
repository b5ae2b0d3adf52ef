%% Streaming calls between Erlang, Python in the node, and Python in a process of its own: every mode from each to each,
%% and what becomes of them when one of those is killed.
-module(causeway_rpc_python_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([advertise/0, use/2, expected/1, same/2]).
-export([suite/0, all/0, groups/0, init_per_suite/1, end_per_suite/1, init_per_group/2, end_per_group/2,
         init_per_testcase/2, end_per_testcase/2]).
-export([from_erlang/1, from_python/1, from_child/1, child_calls_itself/1, python_serves_terms/1, python_in_a_pool_of_one/1,
         reply_after_the_end/1, error_after_the_end/1, error_of_a_handler/1, slow_reader/1, provider_killed/1,
         caller_killed/1, context_killed/1, child_killed/1, child_stops/1, connection_killed/1, closed_connection/1,
         wrong_frames/1, out_of_order/1, serves_nothing/1]).

-define(R, causeway_rpc).
-define(S, causeway_rpc_stream).
-define(HELPERS, rpc_three_way).

suite() -> [{timetrap, {seconds, 20}}].

all() -> [{group, every_way}, {group, ends}].

groups() ->
    [{every_way, [from_erlang, from_python, from_child, child_calls_itself, python_serves_terms, python_in_a_pool_of_one,
                  reply_after_the_end, error_after_the_end, error_of_a_handler, slow_reader, connection_killed]},
     {ends, [provider_killed, caller_killed, context_killed, child_killed, child_stops, closed_connection, wrong_frames,
             out_of_order, serves_nothing]}].

init_per_suite(Config) ->
    Started = causeway_ct:start(Config),
    ok = advertise(),
    {ok, _} = py:call(?HELPERS, advertise, [<<"py_">>]),
    Started.

end_per_suite(Config) ->
    ok = rpc_peer:serve_nothing(),
    causeway_ct:stop(Config).

%% The connection outlives the process that runs this.
init_per_group(every_way, Config) ->
    Test = self(),
    Keeper = spawn(fun() ->
        process_flag(trap_exit, true),
        {Connection, Port} = rpc_ct:start_child(#{}),
        Test ! {self(), Connection},
        receive {stop, From} -> From ! {self(), rpc_ct:stop_child(Connection, Port)} end
    end),
    receive {Keeper, Connection} -> [{connection, Connection}, {keeper, Keeper} | Config] after 30000 -> error(no_child) end;
init_per_group(ends, Config) ->
    Config.

end_per_group(every_way, Config) ->
    Keeper = proplists:get_value(keeper, Config),
    Keeper ! {stop, self()},
    receive {Keeper, _Said} -> ok after 30000 -> error(child_runs) end;
end_per_group(ends, _Config) ->
    ok.

init_per_testcase(_Case, Config) ->
    process_flag(trap_exit, true),
    Config.

end_per_testcase(_Case, _Config) ->
    causeway_ct:wait_until(fun() -> halves() =:= 0 end),
    ?assertEqual([], [Message || Message <- causeway_ct:mailbox(), element(1, Message) =/= 'EXIT']).

%% The processes of halves that run.
halves() ->
    length([Process || Process <- processes(),
                       {dictionary, Dictionary} <- [process_info(Process, dictionary)],
                       proplists:get_value('$initial_call', Dictionary) =:= {causeway_rpc_half, init, 1}]).

%% What Erlang serves

advertise() ->
    Count = fun(Stream, Number) ->
        [ok = ?S:send(Stream, <<(integer_to_binary(I))/binary, $,>>) || I <- lists:seq(0, Number - 1)],
        ?S:set_reply(Stream, Number)
    end,
    Serve = fun(Name, Mode, Handler) -> ok = ?R:advertise(<<"erl_", Name/binary>>, Mode, Handler) end,
    [begin
         Serve(<<"count", Kind/binary>>, server_stream, Count),
         Serve(<<"double", Kind/binary>>, server_stream, fun(Number) -> 2 * Number end),
         Serve(<<"echo", Kind/binary>>, bidi, fun(Stream, _) -> echo(Stream), ?S:set_reply(Stream, 7) end)
     end || Kind <- [<<>>, <<"_async">>]],
    Serve(<<"total">>, client_stream, fun(Stream, _) -> ?S:set_reply(Stream, total(Stream, 0)) end),
    Serve(<<"fail">>, server_stream,
          fun(Stream, Number) -> ?S:abort(Stream, <<"bad">>, iolist_to_binary(io_lib:format("no ~b", [Number]))) end),
    Serve(<<"endless">>, server_stream, fun(Stream, _) -> endless(Stream) end),
    Serve(<<"wait">>, bidi, fun(Stream, _) -> ?S:recv(Stream) end).

echo(Stream) ->
    case ?S:recv(Stream) of
        {chunk, Chunk} -> ok = ?S:send(Stream, Chunk), echo(Stream);
        {data, Term} -> ok = ?S:send(Stream, Term, msgpack), echo(Stream);
        eof -> ok;
        {error, _} -> ok
    end.

total(Stream, Sum) ->
    case ?S:recv(Stream) of
        {chunk, Chunk} -> total(Stream, Sum + byte_size(Chunk));
        eof -> Sum
    end.

endless(Stream) ->
    case ?S:send(Stream, binary:copy(<<"x">>, 1000)) of
        ok -> endless(Stream);
        {error, _} -> ok
    end.

%% What Erlang calls: the same as use() of the helpers.
use(Prefix, Opts) ->
    Name = fun(Rest) -> <<Prefix/binary, Rest/binary>> end,
    Half = lists:append([use_kind(Kind, Name, Opts) || Kind <- [<<>>, <<"_async">>]]),
    {ok, Total} = ?R:open_stream(Name(<<"total">>), nil, Opts),
    [ok = ?S:send(Total, <<0:8000>>) || _ <- lists:seq(1, 1000)],
    ok = ?S:close_send(Total),
    {ok, Sum} = ?S:await_reply(Total, 30000),
    {error, {Code, Text}} = ?R:call(Name(<<"fail">>), 7, Opts),
    {ok, Endless} = ?R:call_stream(Name(<<"endless">>), nil, Opts),
    {chunk, Chunk} = ?S:recv(Endless, 30000),
    ok = ?S:cancel(Endless),
    {ok, Wait} = ?R:open_stream(Name(<<"wait">>), nil, Opts#{deadline => 50}),
    {error, {Late, _}} = ?S:await_reply(Wait, 30000),
    {error, not_advertised} = ?R:call(Name(<<"nothing">>), nil, Opts),
    {ok, Short} = ?R:call_stream(Name(<<"count">>), 3, Opts),
    {ok, Eight} = ?R:call(Name(<<"double">>), 4, Opts),
    Half ++ [Sum, Code, Text, Chunk, Late, <<"not_found">>, [all_of(Short), Eight]].

use_kind(Kind, Name, Opts) ->
    {ok, Count} = ?R:call_stream(Name(<<"count", Kind/binary>>), 1000, Opts),
    Counted = iolist_to_binary(all_of(Count)),
    {ok, Number} = ?S:await_reply(Count, 30000),
    {ok, Double} = ?R:call(Name(<<"double", Kind/binary>>), 21, Opts),
    {ok, Echo} = ?R:open_stream(Name(<<"echo", Kind/binary>>), nil, Opts),
    Echoed = [begin
                  ok = case Chunk of
                      _ when is_binary(Chunk) -> ?S:send(Echo, Chunk);
                      _ -> ?S:send(Echo, Chunk, msgpack)
                  end,
                  element(2, ?S:recv(Echo, 30000))
              end || Chunk <- [<<"a">>, <<>>, <<0:800000>>, 12, [1, [2, <<"x">>]]]],
    ok = ?S:close_send(Echo),
    Rest = all_of(Echo),
    {ok, Seven} = ?S:await_reply(Echo, 30000),
    [Counted, Number, Double] ++ Echoed ++ [Rest, Seven].

all_of(Stream) ->
    case ?S:recv(Stream, 30000) of
        {chunk, Chunk} -> [Chunk | all_of(Stream)];
        {data, Term} -> [Term | all_of(Stream)];
        eof -> []
    end.

%% An async generator returns nothing.
expected(AsyncReply) ->
    Counted = iolist_to_binary([[integer_to_list(I), $,] || I <- lists:seq(0, 999)]),
    Echoed = [<<"a">>, <<>>, <<0:800000>>, 12, [1, [2, <<"x">>]], [], 7],
    [Counted, 1000, 42] ++ Echoed ++ [Counted, AsyncReply, 42] ++ Echoed
        ++ [1000000, <<"bad">>, <<"no 7">>, binary:copy(<<"x">>, 1000), <<"deadline_exceeded">>, <<"not_found">>,
            [[<<"0,">>, <<"1,">>, <<"2,">>], 8]].

connection(Config) -> proplists:get_value(connection, Config).

%% Every way

from_erlang(Config) ->
    same(expected(1000), use(<<"erl_">>, #{})),
    same(expected(none), use(<<"py_">>, #{})),
    same(expected(nil), use(<<"child_">>, #{connection => connection(Config)})).

%% Says where they differ: they are long.
same(Expected, Got) ->
    ?assertEqual(length(Expected), length(Got)),
    [?assertEqual({Place, one}, {Place, if One =:= Other -> one; true -> short(Other) end})
     || {Place, One, Other} <- lists:zip3(lists:seq(1, length(Got)), Expected, Got)].

short(Term) -> lists:flatten(io_lib:format("~0tP", [Term, 12])).

from_python(Config) ->
    [begin
         {ok, Got} = py:call(?HELPERS, use, Args),
         same(expected(Reply), Got)
     end || {Args, Reply} <- [{[<<"erl_">>], 1000}, {[<<"py_">>], none}, {[<<"child_">>, connection(Config)], none}]].

from_child(Config) ->
    [begin
         {ok, Got} = ?R:call(<<"child_use">>, Prefix, #{connection => connection(Config)}),
         same(expected(Reply), Got)
     end || {Prefix, Reply} <- [{<<"erl_">>, 1000}, {<<"py_">>, nil}]].

child_calls_itself(Config) ->
    {ok, Got} = ?R:call(<<"child_use_itself">>, <<"child_">>, #{connection => connection(Config)}),
    same(expected(nil), Got).

python_serves_terms(_Config) ->
    {ok, Echo} = ?R:open_stream(<<"py_echo">>, nil),
    Terms = [self(), {a, "list", #{x => 1.5}}, make_ref(), 1 bsl 100],
    ?assertEqual([{data, {<<"a">>, "list", #{<<"x">> => 1.5}}}],
                 [begin ok = ?S:send(Echo, Term, msgpack), ?S:recv(Echo, 30000) end || Term <- [lists:nth(2, Terms)]]),
    [begin
         ok = ?S:send(Echo, Term, msgpack),
         ?assertEqual({data, Term}, ?S:recv(Echo, 30000))
     end || Term <- Terms, not is_tuple(Term)],
    ok = ?S:close(Echo).

%% Who calls and who serves need the same context.
python_in_a_pool_of_one(_Config) ->
    Before = py_contexts:pool_size(),
    ok = py:stop_contexts(),
    {ok, _} = py:start_contexts(1),
    {ok, Got} = py:call(?HELPERS, use, [<<"py_">>]),
    same(expected(none), Got),
    ok = py:stop_contexts(),
    {ok, _} = py:start_contexts(Before),
    ok.

%% A half may say that it sends nothing more before it gives its reply, on this node and over a connection.
reply_after_the_end(Config) ->
    Serve = fun(Stream, _) ->
        ok = ?S:send(Stream, <<"last">>),
        ok = ?S:close_send(Stream),
        eof = ?S:recv(Stream),
        ?S:set_reply(Stream, 5)
    end,
    ok = ?R:advertise(<<"erl_late">>, bidi, Serve),
    {ok, Here} = ?R:open_stream(<<"erl_late">>, nil),
    [<<"last">>] = all_of(Here),
    ok = ?S:close_send(Here),
    ?assertEqual({ok, 5}, ?S:await_reply(Here, 30000)),
    ok = py:exec("from erlang import rpc\n"
                 "def erl_late(connection):\n"
                 "    with rpc.open_stream('erl_late', connection=connection) as stream:\n"
                 "        chunks = list(stream)\n"
                 "        stream.close_send()\n"
                 "        return [chunks, stream.reply(30)]\n"),
    ?assertEqual({ok, [[<<"last">>], 5]}, py:eval("erl_late(None)")),
    Child = connection(Config),
    {ok, Stream} = ?R:open_stream(<<"child_echo">>, nil, #{connection => Child}),
    ok = ?S:send(Stream, <<"x">>),
    ok = ?S:close_send(Stream),
    ?assertEqual({ok, 7}, ?S:await_reply(Stream, 30000)),
    ?assertEqual([<<"x">>], all_of(Stream)).

%% … or that it has failed.
error_after_the_end(Config) ->
    Opts = #{connection => connection(Config)},
    {ok, Stream} = ?R:open_stream(<<"child_wait">>, nil, Opts),
    ok = ?S:close_send(Stream),
    {ok, []} = ?S:await_reply(Stream, 30000),
    ok = ?R:advertise(<<"erl_late">>, bidi, fun(Half, _) -> ?S:close_send(Half), ?S:abort(Half, <<"c">>, <<"m">>) end),
    ?assertEqual({ok, <<"c">>}, ?R:call(<<"child_outcome">>, <<"erl_late">>, Opts)),
    ?assertEqual({ok, <<"c">>}, py:call(?HELPERS, outcome, [<<"erl_late">>])).

error_of_a_handler(Config) ->
    ok = ?R:advertise(<<"erl_late">>, fun(_Half, _) -> error(oops) end),
    ?assertEqual({ok, <<"error">>}, ?R:call(<<"child_outcome">>, <<"erl_late">>, #{connection => connection(Config)})),
    ?assertEqual({ok, <<"error">>}, py:call(?HELPERS, outcome, [<<"erl_late">>])).

%% What an endless provider has made when it stands still is what there is room for.
slow_reader(Config) ->
    Opts = #{connection => connection(Config)},
    {ok, Here} = ?R:call_stream(<<"py_endless">>, nil),
    {ok, There} = ?R:call_stream(<<"child_endless">>, nil, Opts),
    Made = [fun() -> py:call(?HELPERS, made, []) end, fun() -> ?R:call(<<"child_made">>, nil, Opts) end],
    [?assert(still(Count) < 12000) || Count <- Made],
    [[{chunk, _} = ?S:recv(Stream, 30000) || _ <- lists:seq(1, 5000)] || Stream <- [Here, There]],
    [ok = ?S:cancel(Stream) || Stream <- [Here, There]],
    {ok, true} = py:call(?HELPERS, ended, []),
    {ok, true} = ?R:call(<<"child_ended">>, nil, Opts),
    ok.

still(Count) ->
    {ok, Before} = Count(),
    receive after 100 -> ok end,
    case Count() of
        {ok, Before} -> Before;
        {ok, _} -> still(Count)
    end.

%% Ends

provider_killed(_Config) ->
    Test = self(),
    ok = ?R:advertise(<<"erl_late">>, fun(Stream, _) -> Test ! {provider, self()}, endless(Stream) end),
    Caller = spawn(fun() -> Test ! {outcome, py:call(?HELPERS, outcome, [<<"erl_late">>])} end),
    receive {provider, Provider} -> exit(Provider, kill) after 30000 -> error(no_call) end,
    receive {outcome, Outcome} -> ?assertEqual({ok, <<"peer_down">>}, Outcome) after 30000 -> error({late, Caller}) end.

%% The call that reads is interrupted, and lets go of its stream.
caller_killed(_Config) ->
    Test = self(),
    Caller = spawn(fun() -> py:call(?HELPERS, read_slowly, [<<"py_endless">>, Test]) end),
    receive 1000 -> ok after 30000 -> error(no_chunk) end,
    exit(Caller, kill),
    {ok, true} = py:call(?HELPERS, ended, []),
    causeway_ct:wait_until(fun() -> halves() =:= 0 end),
    flush_numbers().

flush_numbers() ->
    receive Number when is_integer(Number) -> flush_numbers() after 0 -> ok end.

context_killed(_Config) ->
    [begin
         {ok, Context} = py_context:start_link(#{mode => Mode, setup_code => mode_ct:setup_code()}),
         {ok, _} = py:call(Context, ?HELPERS, advertise, [<<"own_">>]),
         {ok, Stream} = ?R:open_stream(<<"own_wait">>, nil),
         ok = ?S:send(Stream, <<"x">>),
         stop_context(Context),
         ?assertMatch({error, {<<"unavailable">>, _}}, ?S:await_reply(Stream, 30000)),
         ?assertMatch({error, {<<"unavailable">>, _}}, ?R:call(<<"own_double">>, 1)),
         [ok = ?R:unadvertise(Name) || {<<"own_", _/binary>> = Name, _} <- ?R:list_advertised()]
     end || Mode <- mode_ct:modes(), Mode =/= worker].

stop_context(Context) ->
    Monitor = monitor(process, Context),
    exit(Context, kill),
    receive {'DOWN', Monitor, process, Context, _} -> ok after 30000 -> error(context_lives) end.

child_killed(_Config) ->
    {Connection, Port} = rpc_ct:start_child(#{}),
    {ok, Stream} = ?R:call_stream(<<"child_endless">>, nil, #{connection => Connection}),
    {chunk, _} = ?S:recv(Stream, 30000),
    {os_pid, Number} = erlang:port_info(Port, os_pid),
    _ = os:cmd("kill -9 " ++ integer_to_list(Number)),
    ?assertMatch({error, {<<"disconnected">>, _}}, error_of(Stream)),
    ?assertMatch({error, {<<"disconnected">>, _}}, ?S:await_reply(Stream)),
    {137, _} = rpc_ct:gone(Port, <<>>),
    gone_connection(Connection),
    ?assertMatch({error, {<<"disconnected">>, _}}, ?R:call(<<"child_double">>, 1, #{connection => Connection})).

error_of(Stream) ->
    case ?S:recv(Stream, 30000) of
        {chunk, _} -> error_of(Stream);
        Other -> Other
    end.

gone_connection(Connection) ->
    causeway_ct:wait_until(fun() -> not is_process_alive(Connection) end).

%% With calls both ways in the middle.
child_stops(_Config) ->
    {Connection, Port} = rpc_ct:start_child(#{}),
    {ok, Stream} = ?R:call_stream(<<"child_endless">>, nil, #{connection => Connection}),
    {chunk, _} = ?S:recv(Stream, 30000),
    Said = rpc_ct:stop_child(Connection, Port),
    ?assertMatch({match, _}, re:run(Said, "streams 0 ")),
    ?assertMatch({error, {<<"disconnected">>, _}}, error_of(Stream)).

connection_killed(Config) ->
    {Connection, Port} = rpc_ct:start_child(#{}),
    {ok, Stream} = ?R:call_stream(<<"child_endless">>, nil, #{connection => Connection}),
    {chunk, _} = ?S:recv(Stream, 30000),
    exit(Connection, kill),
    ?assertMatch({error, {<<"disconnected">>, _}}, error_of(Stream)),
    Said = rpc_ct:gone(Port, <<>>),
    ?assertMatch({match, _}, re:run(Said, "streams 0 ")),
    %% The other one goes on.
    {ok, 4} = ?R:call(<<"child_double">>, 2, #{connection => connection(Config)}).

closed_connection(_Config) ->
    {Connection, Other} = pair(#{}),
    ok = causeway_rpc_connection:close(Connection),
    gone_connection(Other),
    ok = causeway_rpc_connection:close(Connection),
    [?assertMatch({error, {<<"disconnected">>, _}}, ?R:call(<<"erl_double">>, 1, #{connection => Each}))
     || Each <- [Connection, Other]],
    ?assertMatch({error, _}, ?R:connect(not_a_socket)),
    ?assertMatch({error, {badarg, _}}, ?R:call(<<"erl_double">>, 1, #{connection => no_pid})).

%% Two connections of this node, each the other's peer.
pair(Options) ->
    {One, Two} = rpc_peer:sockets(),
    {ok, Connection} = ?R:connect(One),
    {ok, Other} = ?R:connect(Two, Options),
    {Connection, Other}.

%% What is no frame harms nobody.
wrong_frames(_Config) ->
    {One, Two} = rpc_peer:sockets(),
    {ok, Connection} = ?R:connect(One),
    {ok, Peer} = causeway_packet_connection:start_link(Two),
    Wrong = [<<>>, <<1>>, <<1:32>>, <<1:32, 0:32, 9>>, <<1:32, 0:32, 0, 1:32, 100:32, 1>>, <<16#a0>>, <<16#ff>>,
             <<16#a1, 16#69, "stream_id", 16#20>>],
    [?assertMatch({_, _, _}, causeway_packet_connection:request(Peer, Type, Payload))
     || Type <- [16#26, 16#27, 16#28, 16#29, 16#2a, 16#2c, 5], Payload <- Wrong],
    ?assertEqual(#{calls => 0}, causeway_rpc_connection:info(Connection)),
    {ok, Opening} = causeway_cbor:encode(#{stream_id => 0, procedure => <<"erl_double">>, mode => server_stream, args => 3,
                                           window => 1000}),
    {ok, 0, Answer} = causeway_packet_connection:request(Peer, 16#27, Opening),
    ?assertMatch({ok, #{<<"window">> := _, <<"mode">> := <<"server_stream">>}}, causeway_cbor:decode(Answer)),
    ok = causeway_packet_connection:close(Peer),
    gone_connection(Connection).

out_of_order(_Config) ->
    {One, Two} = rpc_peer:sockets(),
    {ok, Connection} = ?R:connect(One),
    Test = self(),
    {ok, Peer} = causeway_packet_connection:start_link(Two, #{handler => fun(Type, _, Payload) ->
        _ = [Test ! {frame, Type, Payload} || Type =:= 16#2a], ok end}),
    {ok, Opening} = causeway_cbor:encode(#{stream_id => 0, procedure => <<"erl_total">>, mode => client_stream, args => nil,
                                           window => 1000}),
    {ok, 0, _} = causeway_packet_connection:request(Peer, 16#27, Opening),
    {ok, 0, _} = causeway_packet_connection:request(Peer, 16#28, <<0:32, 0:32, 0, 1:32, 1:32, "a">>),
    {ok, 0, _} = causeway_packet_connection:request(Peer, 16#28, <<0:32, 2:32, 0, 1:32, 1:32, "a">>),
    receive
        {frame, 16#2a, Payload} ->
            ?assertMatch({ok, #{<<"code">> := <<"out_of_order">>, <<"stream_id">> := 1}}, causeway_cbor:decode(Payload))
    after 30000 -> error(no_error)
    end,
    ok = causeway_packet_connection:close(Peer),
    gone_connection(Connection).

serves_nothing(_Config) ->
    {Connection, _Other} = pair(#{serve => false}),
    ?assertEqual({error, not_advertised}, ?R:call(<<"erl_double">>, 1, #{connection => Connection})),
    ok = causeway_rpc_connection:close(Connection).
