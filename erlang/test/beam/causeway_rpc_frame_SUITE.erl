%% The frames of streaming calls, byte for byte, and halves that speak them.
-module(causeway_rpc_frame_SUITE).

-include_lib("stdlib/include/assert.hrl").

-behaviour(causeway_rpc_stream).

-export([suite/0, all/0, init_per_suite/1, end_per_suite/1]).
-export([written/1, read/1, packed_arguments/1, needed_keys/1, wrong_frames/1, more_than_one/1, defaults/1,
         transport_module/1, transport_process/1, transport_ends/1, ends_are_told/1, errors_are_told/1, numbers_are_checked/1,
         two_nodes_of_frames/1, slow_transport/1]).
-export([send_stream_frame/3]).

-define(S, causeway_rpc_stream).
-define(F, causeway_rpc_frame).
-define(ID, <<16#00112233445566778899aabbccddeeff:128>>).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [written, read, packed_arguments, needed_keys, wrong_frames, more_than_one, defaults, transport_module,
     transport_process, transport_ends, ends_are_told, errors_are_told, numbers_are_checked, two_nodes_of_frames,
     slow_transport].

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(causeway),
    Config.

end_per_suite(_Config) ->
    ok.

%% What macula 3.13 writes.
frames() ->
    Id = "69 73747265616d5f6964 50 00112233445566778899aabbccddeeff",
    [{stream_open, #{procedure => <<"x">>, mode => bidi, args => <<>>},
      "01270000 00000038 a4 6461726773 40 646d6f6465 6462696469 6970726f636564757265 4178 " ++ Id},
     {stream_open, #{procedure => <<"foo.count">>, mode => server_stream, args => #{<<"n">> => 5}},
      "01270000 0000004c a4 6461726773 a1416e05 646d6f6465 6d7365727665725f73747265616d 6970726f636564757265"
      "49666f6f2e636f756e74 " ++ Id},
     {stream_data, #{seq => 0, encoding => raw, body => <<"hello">>},
      "01280000 00000039 a4 64626f6479 4568656c6c6f 68656e636f64696e67 63726177 63736571 00 " ++ Id},
     {stream_data, #{seq => 300, encoding => msgpack, body => #{a => 1}},
      "01280000 0000003d a4 64626f6479 a1616101 68656e636f64696e67 676d73677061636b 63736571 19012c " ++ Id},
     {stream_end, #{role => send}, "01290000 00000026 a2 64726f6c65 6473656e64 " ++ Id},
     {stream_end, #{role => both}, "01290000 00000026 a2 64726f6c65 64626f7468 " ++ Id},
     {stream_error, #{code => <<"forbidden">>, message => <<"nope">>},
      "012a0000 00000038 a3 64636f6465 49666f7262696464656e 676d657373616765 446e6f7065 " ++ Id},
     {stream_reply, #{result => <<"ok">>}, "012b0000 00000026 a2 66726573756c74 426f6b " ++ Id},
     {stream_reply, #{error => ?F:error_map(boom)},
      "012b0000 0000003b a2 656572726f72 a2 64636f6465 456572726f72 676d657373616765 44626f6f6d " ++ Id}].

bytes(Hex) ->
    Digits = [Digit || Digit <- Hex, Digit =/= $\s],
    <<(list_to_integer(Digits, 16)):(4 * length(Digits))>>.

written(_Config) ->
    [?assertEqual({ok, bytes(Hex)}, ?F:encode(Type, Map#{stream_id => ?ID})) || {Type, Map, Hex} <- frames()].

read(_Config) ->
    [begin
         {ok, Type, Read, <<>>} = ?F:decode(bytes(Hex)),
         ?assertEqual(as_read(Map#{stream_id => ?ID}), Read)
     end || {Type, Map, Hex} <- frames()],
    {ok, Null} = ?F:encode(stream_reply, #{stream_id => ?ID, result => undefined}),
    ?assertMatch({ok, stream_reply, #{<<"result">> := nil}, <<>>}, ?F:decode(Null)).

as_read(#{} = Map) -> maps:from_list([{as_read(Key), as_read(Value)} || {Key, Value} <- maps:to_list(Map)]);
as_read(Atom) when is_atom(Atom) -> atom_to_binary(Atom);
as_read(Other) -> Other.

packed_arguments(_Config) ->
    Open = #{stream_id => ?ID, procedure => <<"x">>, mode => bidi},
    {ok, Frame} = ?F:encode(stream_open, Open#{args => [1, <<"a">>]}),
    {ok, stream_open, #{<<"args">> := Packed}, <<>>} = ?F:decode(Frame),
    ?assertEqual({ok, [1, <<"a">>]}, causeway_cbor:decode(Packed)),
    ?assertMatch({error, {cbor, _}}, ?F:encode(stream_open, Open#{args => [self()]})).

needed_keys(_Config) ->
    [[?assertEqual({error, {missing, Key}}, ?F:encode(Type, maps:remove(Key, Map#{stream_id => ?ID})))
      || Key <- [stream_id | maps:keys(Map)], Key =/= result, Key =/= error] || {Type, Map, _Hex} <- frames()],
    ?assertEqual({error, {unknown_type, call}}, ?F:encode(call, #{})),
    ?assertMatch({error, {cbor, _}}, ?F:encode(stream_reply, #{stream_id => ?ID, result => self()})).

wrong_frames(_Config) ->
    [?assertEqual({error, Error}, ?F:decode(bytes(Hex)))
     || {Error, Hex} <- [{invalid_header, "0128"}, {invalid_header, "01280000000000"},
                         {{unsupported_version, 2}, "0228000000000000"}, {incomplete_payload, "0128000000000001"},
                         {{unknown_type, 16#26}, "0126000000000001a0"}, {{unknown_type, 0}, "0100000000000000"}]],
    ?assertEqual({error, invalid_header}, ?F:decode(<<>>)),
    [?assertMatch({error, {msgpack_decode_error, _}}, ?F:decode(bytes(Hex)))
     || Hex <- ["0128000000000001ff", "0128000000000000", "012800000000000180", "0128000000000002a000"]],
    %% Whatever comes, nothing but an error.
    [?assertMatch({error, _}, ?F:decode(<<1, 16#28, 0, 0, 20:32, (rand:bytes(20))/binary>>)) || _ <- lists:seq(1, 1000)].

more_than_one(_Config) ->
    Frames = [bytes(Hex) || {_Type, _Map, Hex} <- frames()],
    ?assertEqual([Type || {Type, _Map, _Hex} <- frames()], types(iolist_to_binary(Frames))).

types(<<>>) -> [];
types(Bytes) ->
    {ok, Type, _Map, Rest} = ?F:decode(Bytes),
    [Type | types(Rest)].

defaults(_Config) ->
    A = half(#{}),
    ok = ?S:deliver_frame(A, stream_data, #{<<"body">> => <<"x">>}),
    ok = ?S:deliver_frame(A, stream_data, #{<<"body">> => <<"y">>, <<"encoding">> => <<"msgpack">>, <<"seq">> => 1}),
    ok = ?S:deliver_frame(A, stream_data, #{<<"body">> => [1], <<"encoding">> => <<"cbor">>}),
    ok = ?S:deliver_frame(A, stream_data, #{}),
    ok = ?S:deliver_frame(A, stream_end, #{}),
    ?assertEqual([{chunk, <<"x">>}, {data, <<"y">>}, {data, {<<"cbor">>, [1]}}, {chunk, <<>>}, eof],
                 [?S:recv(A) || _ <- lists:seq(1, 5)]),
    ?assertEqual({error, peer_closed}, ?S:await_reply(A)),
    B = half(#{}),
    ok = ?S:deliver_frame(B, stream_error, #{}),
    ?assertEqual({error, {<<"error">>, <<>>}}, ?S:recv(B)),
    C = half(#{}),
    ok = ?S:deliver_frame(C, stream_reply, #{}),
    ?assertEqual({ok, nil}, ?S:await_reply(C)).

%% As a transport this module tells the process in the pair, or the registered one.
send_stream_frame(?MODULE, Type, Map) -> ?MODULE ! {frame, Type, Map};
send_stream_frame({Process, Delay}, Type, Map) ->
    Process ! {frame, Type, Map},
    receive after Delay -> ok end;
send_stream_frame(Process, Type, Map) -> Process ! {frame, Type, Map}.

transport_module(_Config) ->
    true = register(?MODULE, self()),
    A = half(#{}),
    ok = ?S:attach_remote(A, ?MODULE, ?ID),
    ?assertMatch(#{peer := {remote, ?MODULE, ?ID}}, ?S:info(A)),
    ok = ?S:send(A, <<"1">>),
    ok = ?S:send(A, [2], msgpack),
    ok = ?S:set_reply(A, done),
    ok = ?S:close_send(A),
    ?assertEqual([{stream_data, #{stream_id => ?ID, seq => 0, encoding => raw, body => <<"1">>}},
                  {stream_data, #{stream_id => ?ID, seq => 1, encoding => msgpack, body => [2]}},
                  {stream_reply, #{stream_id => ?ID, result => done}},
                  {stream_end, #{stream_id => ?ID, role => send}}], [frame() || _ <- lists:seq(1, 4)]),
    ?assertEqual({error, send_closed}, ?S:send(A, <<>>)),
    true = unregister(?MODULE).

transport_process(_Config) ->
    A = half(#{}),
    ok = ?S:attach_remote(A, self(), ?ID),
    ok = ?S:send(A, <<>>),
    Data = receive {'$gen_cast', {send_stream_frame, Type, Map}} -> {Type, Map} end,
    ?assertEqual({stream_data, #{stream_id => ?ID, seq => 0, encoding => raw, body => <<>>}}, Data).

transport_ends(_Config) ->
    Transport = spawn(fun() -> receive stop -> ok end end),
    A = half(#{}),
    ok = ?S:attach_remote(A, Transport, ?ID),
    ok = ?S:deliver_chunk(A, raw, <<"x">>),
    Transport ! stop,
    ?assertEqual({error, peer_down}, ?S:await_reply(A)),
    ?assertEqual([{chunk, <<"x">>}, {error, peer_down}, {error, peer_down}], [?S:recv(A) || _ <- [1, 2, 3]]),
    ?assertEqual({error, send_closed}, ?S:send(A, <<>>)).

%% What was sent is passed on before the process ends, and each close is told.
ends_are_told(_Config) ->
    A = attached(),
    ok = ?S:send(A, <<"x">>),
    ok = ?S:close(A),
    ok = ?S:close(A),
    ?assertMatch([{stream_data, _}, {stream_end, #{role := both}}], [frame(), frame()]),
    B = attached(),
    ok = ?S:close_send(B),
    {stream_end, #{role := send}} = frame(),
    ok = ?S:close(B),
    {stream_end, #{role := both}} = frame().

errors_are_told(_Config) ->
    A = attached(),
    ok = ?S:send(A, <<"x">>),
    ok = ?S:abort(A, <<"c">>, <<"m">>),
    ?assertMatch([{stream_data, _}, {stream_error, #{code := <<"c">>, message := <<"m">>}}], [frame(), frame()]),
    B = attached(),
    ok = ?S:set_error(B, {no, way}),
    ?assertMatch({stream_reply, #{error := #{code := <<"error">>, message := <<"{no,way}">>}}}, frame()),
    C = attached(),
    ok = ?S:set_error(C, {<<"code">>, <<"text">>}),
    ?assertMatch({stream_reply, #{error := #{code := <<"code">>, message := <<"text">>}}}, frame()).

%% They were sent and never looked at.
numbers_are_checked(_Config) ->
    A = attached(),
    ok = ?S:deliver_chunk(A, raw, <<"0">>, 0),
    ok = ?S:deliver_chunk(A, raw, <<"2">>, 2),
    ?assertEqual({chunk, <<"0">>}, ?S:recv(A)),
    Error = {<<"out_of_order">>, <<"chunk 2 has come where 1 is the next">>},
    ?assertEqual({error, Error}, ?S:recv(A)),
    ?assertMatch({stream_error, #{code := <<"out_of_order">>}}, frame()).

%% Two halves that have nothing but bytes in common.
two_nodes_of_frames(_Config) ->
    A = attached(),
    B = attached(),
    ok = ?S:send(A, <<"question">>),
    ok = ?S:send(A, #{a => [1, 2.5, -3]}, msgpack),
    ok = ?S:close_send(A),
    [over_the_wire(B) || _ <- [1, 2, 3]],
    ?assertEqual([{chunk, <<"question">>}, {data, #{<<"a">> => [1, 2.5, -3]}}, eof], [?S:recv(B) || _ <- [1, 2, 3]]),
    ok = ?S:send(B, <<"answer">>),
    ok = ?S:set_error(B, boom),
    ok = ?S:close_send(B),
    [over_the_wire(A) || _ <- [1, 2, 3]],
    ?assertEqual([{chunk, <<"answer">>}, eof], [?S:recv(A), ?S:recv(A)]),
    ?assertEqual({error, #{<<"code">> => <<"error">>, <<"message">> => <<"boom">>}}, ?S:await_reply(A)),
    [begin
         Monitor = monitor(process, Half),
         receive {'DOWN', Monitor, process, Half, Reason} -> ?assert(lists:member(Reason, [normal, noproc])) end
     end || Half <- [A, B]].

over_the_wire(To) ->
    {Type, Map} = frame(),
    {ok, Bytes} = ?F:encode(Type, Map),
    {ok, Type, Read, <<>>} = ?F:decode(Bytes),
    ok = ?S:deliver_frame(To, Type, Read).

%% It stops who sends.
slow_transport(_Config) ->
    A = half(#{}),
    ok = ?S:attach_remote(A, {?MODULE, {self(), infinity}}, ?ID),
    ok = ?S:send(A, binary:copy(<<"x">>, 262144)),
    {stream_data, _} = frame(),
    ok = ?S:send(A, binary:copy(<<"x">>, 262144), raw, 5000),
    ?assertEqual({error, would_block}, ?S:send(A, <<"x">>, raw, 0)),
    ?assertEqual({error, timeout}, ?S:send(A, <<"x">>, raw, 10)),
    unlink(A),
    exit(A, kill).

half(Opts) ->
    {ok, Stream} = ?S:start_link(maps:merge(#{id => ?ID, role => client, mode => bidi, owner => self()}, Opts)),
    Stream.

attached() ->
    Stream = half(#{}),
    ok = ?S:attach_remote(Stream, {?MODULE, self()}, ?ID),
    Stream.

frame() ->
    receive {frame, Type, Map} -> {Type, Map} after 5000 -> nothing end.
