%% @doc Packet connections with programs, over their standard input and output.
-module(causeway_packet_process_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-define(CONNECTION, causeway_packet_connection).
-define(CT, connection_ct).
-define(PROCESS, causeway_process_stream).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [python_child, large_payloads, many_outstanding, child_ends, child_dies, child_is_killed, connection_ends,
     connection_is_killed, not_the_owner, twice].

init_per_suite(Config) -> ?CT:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_testcase(_Case, Config) -> Config.

end_per_testcase(_Case, _Config) -> ?assertEqual([], causeway_ct:mailbox()).

python_child(_Config) ->
    {Connection, Program} = child("serve"),
    ?assertEqual({ok, 0, <<"ABC">>}, ?CONNECTION:request(Connection, 1, <<"abc">>)),
    ?assertEqual({ok, 7, <<>>}, ?CONNECTION:request(Connection, 2, <<>>, #{flags => 6})),
    ok = ?CONNECTION:close(Connection),
    ended(Program, normal).

large_payloads(_Config) ->
    {Connection, Program} = child("serve"),
    Payload = binary:copy(<<"A">>, 3000000),
    ?assertEqual({ok, 0, Payload}, ?CONNECTION:request(Connection, 1, Payload)),
    ok = ?CONNECTION:close(Connection),
    ended(Program, normal).

many_outstanding(_Config) ->
    {Connection, Program} = child("serve"),
    Ids = [{N, ?CONNECTION:send_request(Connection, 1, integer_to_binary(N))} || N <- lists:seq(1, 1000)],
    [begin Answer = integer_to_binary(N), {ok, 0, Answer} = ?CONNECTION:receive_response(Id) end || {N, Id} <- Ids],
    ok = ?CONNECTION:close(Connection),
    ended(Program, normal).

%% The program ends in good order, or not: who waits is told.
child_ends(_Config) ->
    {Connection, Program} = child("close"),
    Ids = [?CONNECTION:send_request(Connection, 4) || _ <- "123"],
    [?assertEqual({error, {closed, eof}}, ?CONNECTION:receive_response(Id)) || Id <- Ids],
    ?assertEqual(normal, ?CT:ended(Connection)),
    ended(Program, normal).

child_dies(_Config) ->
    {Connection, Program} = child("die"),
    Ids = [?CONNECTION:send_request(Connection, 4) || _ <- "123"],
    [?assertMatch({error, {closed, _}}, ?CONNECTION:receive_response(Id)) || Id <- Ids],
    _ = ?CT:ended(Connection),
    ended(Program, normal).

child_is_killed(_Config) ->
    {Connection, Program} = child("serve"),
    Id = ?CONNECTION:send_request(Connection, 4),
    ok = ?PROCESS:kill(Program, sigkill),
    ?assertMatch({error, {closed, _}}, ?CONNECTION:receive_response(Id)),
    _ = ?CT:ended(Connection),
    ended(Program, {signal, 9}).

connection_ends(_Config) ->
    {Connection, Program} = child("wait", #{handler => fun(_, _, _) -> receive after infinity -> ok end end}),
    ok = ?CT:wait_info(Connection, peer_requests, 3),
    ok = ?CONNECTION:close(Connection, 0),
    ended(Program, normal).

connection_is_killed(_Config) ->
    {Connection, Program} = child("serve"),
    ?assertEqual({ok, 0, <<"ABC">>}, ?CONNECTION:request(Connection, 1, <<"abc">>)),
    exit(Connection, kill),
    ended(Program, normal).

not_the_owner(_Config) ->
    {ok, Program} = ?PROCESS:open("cat"),
    ?assertEqual([{error, not_owner}], ?CT:many(1, fun(_) -> ?CONNECTION:start(Program) end, 10000)),
    ok = ?PROCESS:close(Program),
    receive {Program, closed} -> ok end.

twice(_Config) ->
    {Connection, Program} = child("serve"),
    ?assertEqual({error, already_streamed}, ?CONNECTION:start(Program)),
    ok = ?CONNECTION:close(Connection),
    ended(Program, normal).

child(Role) ->
    child(Role, #{}).

child(Role, Options) ->
    {ok, #{executable := Python}} = causeway_python:find(),
    Script = filename:join(causeway_ct:python_dir(), "connection_helpers.py"),
    Path = filename:join(causeway_python:priv_dir(), "python"),
    {ok, Program} = ?PROCESS:open(Python, [Script, Role], #{env => [{"PYTHONPATH", Path}], stderr => null}),
    {?CT:start(Program, Options), Program}.

ended(Program, Reason) ->
    receive {'EXIT', Program, Why} -> ?assertEqual(Reason, Why)
    after 30000 -> error({still_there, causeway_ct:mailbox()})
    end.
