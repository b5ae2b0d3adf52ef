%% Streaming calls by name on one node: handlers of every kind, and how they fail.
-module(causeway_rpc_SUITE).

-include_lib("stdlib/include/assert.hrl").

-behaviour(causeway_rpc_provider).

-export([suite/0, all/0, init_per_suite/1, end_per_suite/1, init_per_testcase/2, end_per_testcase/2]).
-export([names/1, not_advertised/1, wrong_arguments/1, server_stream/1, client_stream/1, bidi/1, unary/1,
         function_ends_with_its_call/1, function_that_traps_exits/1, function_that_replies_ends_by_itself/1,
         python_function_ends_with_its_call/1, mode_of_the_name/1,
         handler_that_returns/1, handler_that_fails/1, deadline/1, cancelled/1, owner/1, provider/1, provider_rejects/1,
         provider_stops/1, consumer/1, consumer_of_an_error/1, python_generator/1, python_function/1, python_errors/1,
         python_is_cancelled/1, server_restarts/1, nothing_is_left/1]).
-export([init/1, handle_open/2, handle_chunk/2, handle_eof/1, terminate/2]).

-define(R, causeway_rpc).
-define(S, causeway_rpc_stream).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [names, not_advertised, wrong_arguments, server_stream, client_stream, bidi, unary,
     function_ends_with_its_call, function_that_traps_exits, function_that_replies_ends_by_itself,
     python_function_ends_with_its_call, mode_of_the_name,
     handler_that_returns, handler_that_fails, deadline, cancelled, owner, provider, provider_rejects, provider_stops,
     consumer, consumer_of_an_error, python_generator, python_function, python_errors, python_is_cancelled, server_restarts,
     nothing_is_left].

init_per_suite(Config) -> causeway_ct:start(Config).

end_per_suite(Config) -> causeway_ct:stop(Config).

init_per_testcase(_Case, Config) ->
    ok = rpc_peer:serve_nothing(),
    Config.

end_per_testcase(_Case, _Config) ->
    ok.

names(_Config) ->
    ?assertEqual([], ?R:list_advertised()),
    ok = ?R:advertise(<<"a">>, fun counted/2),
    ok = ?R:advertise(<<"b">>, bidi, fun counted/2),
    ok = ?R:advertise(<<"b">>, client_stream, fun counted/2),
    ?assertEqual([{<<"a">>, server_stream}, {<<"b">>, client_stream}], lists:sort(?R:list_advertised())),
    [ok, ok] = [?R:unadvertise(<<"a">>), ?R:unadvertise(<<"a">>)],
    ?assertEqual([{<<"b">>, client_stream}], ?R:list_advertised()).

not_advertised(_Config) ->
    [?assertEqual({error, not_advertised}, Open(<<"nothing">>, #{}))
     || Open <- [fun ?R:call_stream/2, fun ?R:open_stream/2, fun ?R:call/2]],
    ?assertEqual([], causeway_ct:mailbox()).

wrong_arguments(_Config) ->
    [?assertMatch({error, {badarg, _}}, ?R:open_stream(<<"x">>, #{}, Wrong))
     || Wrong <- [#{window => 0}, #{owner => me}, #{deadline => -1}, #{mode => unary}, #{wrong => 1}]],
    ?assertMatch({error, {badarg, _}}, ?R:advertise(<<"x">>, fun() -> ok end)),
    ?assertMatch({error, {badarg, <<"unary is no mode", _/binary>>}}, ?R:advertise(<<"x">>, unary, fun counted/2)).

counted(Stream, Number) ->
    [ok = ?S:send(Stream, <<Count:32>>) || Count <- lists:seq(1, Number)].

server_stream(_Config) ->
    ok = ?R:advertise(<<"count">>, fun counted/2),
    {ok, Stream} = ?R:call_stream(<<"count">>, 1000),
    ?assertEqual([<<Count:32>> || Count <- lists:seq(1, 1000)], all_of(Stream)),
    ?assertMatch(#{role := client, mode := server_stream}, ?S:info(Stream)).

all_of(Stream) ->
    case ?S:recv(Stream, 5000) of
        {chunk, Chunk} -> [Chunk | all_of(Stream)];
        eof -> []
    end.

client_stream(_Config) ->
    ok = ?R:advertise(<<"size">>, client_stream,
                      fun(Stream, none) -> ?S:set_reply(Stream, iolist_size(all_of(Stream))) end),
    {ok, Stream} = ?R:open_stream(<<"size">>, none),
    [ok = ?S:send(Stream, <<"12345">>) || _ <- lists:seq(1, 100)],
    ok = ?S:close_send(Stream),
    ?assertEqual({ok, 500}, ?S:await_reply(Stream)).

bidi(_Config) ->
    ok = ?R:advertise(<<"echo">>, bidi, fun(Stream, _) -> echo(Stream) end),
    {ok, Stream} = ?R:open_stream(<<"echo">>, #{}),
    [begin
         ok = ?S:send(Stream, <<Number>>),
         ?assertEqual({chunk, <<Number>>}, ?S:recv(Stream))
     end || Number <- lists:seq(1, 100)],
    ok = ?S:close_send(Stream),
    ?assertEqual(eof, ?S:recv(Stream)),
    ?assertEqual({ok, 100}, ?S:await_reply(Stream)).

echo(Stream) -> echo(Stream, 0).

echo(Stream, Number) ->
    case ?S:recv(Stream) of
        {chunk, Chunk} ->
            ok = ?S:send(Stream, Chunk),
            echo(Stream, Number + 1);
        eof ->
            ?S:set_reply(Stream, Number)
    end.

unary(_Config) ->
    ok = ?R:advertise({any, term}, fun(Args) -> {result, Args} end),
    ?assertEqual({ok, {result, [1, 2]}}, ?R:call({any, term}, [1, 2])),
    ok = ?R:advertise(<<"no reply">>, fun(_, _) -> ok end),
    ?assertEqual({error, peer_closed}, ?R:call(<<"no reply">>, [])),
    ?assertEqual([], causeway_ct:mailbox()).

%% Nobody waits for what it still does.
function_ends_with_its_call(_Config) ->
    Test = self(),
    ok = ?R:advertise(<<"slow">>, fun(_) -> Test ! {handler, self()}, receive never -> ok end end),
    Ends = [{fun(Stream) -> ?S:cancel(Stream) end, <<"cancelled">>},
            {fun(Stream) -> ?S:await_reply(Stream) end, <<"deadline_exceeded">>},
            {fun(Stream) -> ?S:close(Stream) end, peer_closed}],
    [begin
         {ok, Stream} = ?R:open_stream(<<"slow">>, [], #{deadline => if Reason =:= <<"deadline_exceeded">> -> 500; true -> infinity end}),
         Monitor = monitor(process, handler()),
         _ = End(Stream),
         receive {'DOWN', Monitor, process, _, Down} -> ?assertMatch({Reason, {shutdown, {call_over, _}}}, {code(Down), Down}) end
     end || {End, Reason} <- Ends],
    %% The caller is dead.
    Caller = spawn(fun() -> ?R:call(<<"slow">>, []) end),
    Last = monitor(process, handler()),
    exit(Caller, kill),
    receive {'DOWN', Last, process, _, Died} -> ?assertEqual({shutdown, {call_over, peer_down}}, Died) end,
    %% The call is over before it begins.
    ?assertMatch({error, {<<"deadline_exceeded">>, _}}, ?R:call(<<"slow">>, [], #{deadline => 0})),
    causeway_ct:wait_until(fun() -> [] =:= [1 || {handler, Handler} <- causeway_ct:mailbox(), is_process_alive(Handler)] end).

code({shutdown, {call_over, {Code, _Text}}}) -> Code;
code({shutdown, {call_over, Code}}) -> Code;
code(Other) -> Other.

handler() -> receive {handler, Handler} -> Handler end.

%% By the reason it knows, where it traps exits, and may tidy up.
function_that_traps_exits(_Config) ->
    Test = self(),
    ok = ?R:advertise(<<"tidy">>, fun(_) ->
        process_flag(trap_exit, true),
        Test ! {handler, self()},
        receive {'EXIT', _, Reason} -> Test ! {tidied, Reason} end
    end),
    {ok, Stream} = ?R:open_stream(<<"tidy">>, []),
    _ = handler(),
    ok = ?S:cancel(Stream),
    receive {tidied, Reason} -> ?assertMatch({shutdown, {call_over, {<<"cancelled">>, _}}}, Reason) end.

%% What it has started and is linked with goes on after a reply, however soon the caller closes.
function_that_replies_ends_by_itself(_Config) ->
    Test = self(),
    ok = ?R:advertise(<<"start">>, fun(_) ->
        Started = spawn_link(fun() -> Monitor = monitor(process, Test), receive {'DOWN', Monitor, process, _, _} -> ok end end),
        Test ! {handler, self()},
        Started
    end),
    Started = [begin
                   {ok, Process} = ?R:call(<<"start">>, []),
                   Monitor = monitor(process, handler()),
                   receive {'DOWN', Monitor, process, _, _} -> Process end
               end || _ <- lists:seq(1, 200)],
    ?assertEqual([true], lists:usort([is_process_alive(Process) || Process <- Started])),
    [exit(Process, kill) || Process <- Started].

%% A function of Python's that is called by its name is interrupted.
python_function_ends_with_its_call(_Config) ->
    ok = ?R:advertise(<<"x">>, {python, rpc_helpers, sleep}),
    ?assertMatch({error, {<<"deadline_exceeded">>, _}}, ?R:call(<<"x">>, <<"slept">>, #{deadline => 50})),
    causeway_ct:wait_until(fun() -> py:call(rpc_helpers, is_closed, [<<"slept">>]) =:= {ok, true} end).

mode_of_the_name(_Config) ->
    ok = ?R:advertise(<<"x">>, client_stream, fun(Stream, _) -> echo(Stream) end),
    {ok, Stream} = ?R:open_stream(<<"x">>, [], #{mode => bidi}),
    ?assertMatch(#{mode := client_stream}, ?S:info(Stream)).

%% Its client waited for ever.
handler_that_returns(_Config) ->
    ok = ?R:advertise(<<"x">>, fun(Stream, _) -> ok = ?S:send(Stream, <<"x">>) end),
    {ok, Stream} = ?R:call_stream(<<"x">>, []),
    ?assertEqual({error, peer_closed}, ?S:await_reply(Stream)),
    ?assertEqual([{chunk, <<"x">>}, eof], [?S:recv(Stream), ?S:recv(Stream)]).

handler_that_fails(_Config) ->
    [begin
         ok = ?R:advertise(<<"x">>, fun(_, _) -> Fail() end),
         {ok, Stream} = ?R:call_stream(<<"x">>, []),
         {error, {Code, Text}} = ?S:recv(Stream),
         ?assertEqual(Expected, Code),
         ?assertMatch({match, _}, re:run(Text, <<"handler <<\"x\">> crashed: because">>)),
         ?assertEqual({error, {Code, Text}}, ?S:await_reply(Stream))
     end || {Expected, Fail} <- [{<<"error">>, fun() -> error(because) end}, {<<"throw">>, fun() -> throw(because) end},
                                 {<<"exit">>, fun() -> exit(because) end}]].

%% Both sides hear of it.
deadline(_Config) ->
    Self = self(),
    ok = ?R:advertise(<<"x">>, fun(Stream, _) -> Self ! {handler, ?S:recv(Stream)} end),
    {ok, Stream} = ?R:open_stream(<<"x">>, [], #{deadline => 20}),
    ?assertMatch({error, {<<"deadline_exceeded">>, _}}, ?S:recv(Stream)),
    receive {handler, Result} -> ?assertMatch({error, {<<"deadline_exceeded">>, _}}, Result) end.

cancelled(_Config) ->
    Self = self(),
    ok = ?R:advertise(<<"x">>, fun(Stream, _) -> Self ! {handler, ?S:recv(Stream)} end),
    {ok, Stream} = ?R:open_stream(<<"x">>, []),
    ok = ?S:cancel(Stream),
    receive {handler, Result} -> ?assertMatch({error, {<<"cancelled">>, _}}, Result) end.

owner(_Config) ->
    Self = self(),
    ok = ?R:advertise(<<"x">>, fun(Stream, _) -> Self ! {handler, ?S:recv(Stream)} end),
    Owner = spawn(fun() -> receive stop -> ok end end),
    {ok, Stream} = ?R:open_stream(<<"x">>, [], #{owner => Owner}),
    Owner ! stop,
    receive {handler, Result} -> ?assertEqual({error, peer_down}, Result) end,
    ?assertEqual({error, closed}, ?S:recv(Stream)).

%% This module as a provider, and as a consumer

init({reject, Code}) -> {reject, Code, <<"not here">>};
init(Args) -> {ok, #{args => Args, chunks => [], stream => none}}.

handle_open(_Stream, #{args := reject}) -> {reject, <<"late">>, <<"not now">>};
handle_open(Stream, #{args := {tell, Process}} = State) ->
    Process ! {opened, self(), Stream},
    {ok, State};
handle_open(Stream, State) ->
    ok = ?S:send(Stream, <<"welcome">>),
    {ok, State#{stream := Stream}}.

handle_chunk({chunk, <<"stop">>}, State) -> {stop, normal, State};
handle_chunk({chunk, <<"fail">>}, State) -> {stop, failed, State};
handle_chunk({chunk, <<"reply">>}, State) -> {reply, {error, early}, State};
handle_chunk({chunk, Chunk}, #{chunks := Chunks} = State) -> {ok, State#{chunks := [Chunk | Chunks]}}.

handle_eof(#{chunks := Chunks} = State) -> {reply, {ok, lists:reverse(Chunks)}, State}.

terminate(Reason, #{args := {tell, Process}, chunks := Chunks}) -> Process ! {terminated, Reason, lists:reverse(Chunks)};
terminate(_Reason, _State) -> ok.

provider(_Config) ->
    ok = ?R:advertise(<<"x">>, bidi, ?MODULE),
    {ok, Stream} = ?R:open_stream(<<"x">>, args),
    ?assertEqual({chunk, <<"welcome">>}, ?S:recv(Stream)),
    [ok = ?S:send(Stream, Chunk) || Chunk <- [<<"1">>, <<"2">>]],
    ok = ?S:close_send(Stream),
    ?assertEqual({ok, [<<"1">>, <<"2">>]}, ?S:await_reply(Stream)),
    ?assertEqual(eof, ?S:recv(Stream)).

%% Its client was left alone.
provider_rejects(_Config) ->
    ok = ?R:advertise(<<"x">>, bidi, ?MODULE),
    {ok, First} = ?R:open_stream(<<"x">>, {reject, <<"early">>}),
    ?assertEqual({error, {<<"early">>, <<"not here">>}}, ?S:recv(First)),
    {ok, Second} = ?R:open_stream(<<"x">>, reject),
    ?assertEqual({error, {<<"late">>, <<"not now">>}}, ?S:recv(Second)).

provider_stops(_Config) ->
    ok = ?R:advertise(<<"x">>, bidi, ?MODULE),
    {ok, First} = ?R:open_stream(<<"x">>, {tell, self()}),
    ok = ?S:send(First, <<"stop">>),
    ?assertEqual(eof, ?S:recv(First)),
    receive {terminated, Reason, _} -> ?assertEqual(normal, Reason) end,
    {ok, Second} = ?R:open_stream(<<"x">>, {tell, self()}),
    ok = ?S:send(Second, <<"reply">>),
    ?assertEqual({error, early}, ?S:await_reply(Second)),
    ok = ?S:send(Second, <<"fail">>),
    ?assertEqual({error, {<<"cancelled">>, <<"failed">>}}, ?S:recv(Second)),
    receive {terminated, Other, _} -> ?assertEqual(failed, Other) end.

consumer(_Config) ->
    ok = ?R:advertise(<<"x">>, fun(Stream, Chunks) -> [ok = ?S:send(Stream, Chunk) || Chunk <- Chunks] end),
    {ok, Consumer} = causeway_rpc_consumer:start_link(?MODULE, {tell, self()}, <<"x">>, [<<"1">>, <<"2">>]),
    receive {terminated, Reason, Chunks} -> ?assertEqual({normal, [<<"1">>, <<"2">>]}, {Reason, Chunks}) end,
    ?assertEqual({error, not_advertised}, causeway_rpc_consumer:start_link(?MODULE, {tell, self()}, <<"none">>, [])),
    ?assertEqual({error, {<<"no">>, <<"not here">>}},
                 causeway_rpc_consumer:start_link(?MODULE, {reject, <<"no">>}, <<"x">>, [])),
    causeway_ct:wait_until(fun() -> not is_process_alive(Consumer) end).

consumer_of_an_error(_Config) ->
    ok = ?R:advertise(<<"x">>, fun(Stream, _) -> ?S:abort(Stream, <<"c">>, <<"m">>) end),
    process_flag(trap_exit, true),
    {ok, Consumer} = causeway_rpc_consumer:start_link(?MODULE, {tell, self()}, <<"x">>, []),
    receive {terminated, Reason, []} -> ?assertEqual({error, {<<"c">>, <<"m">>}}, Reason) end,
    receive {'EXIT', Consumer, Exit} -> ?assertEqual({<<"c">>, <<"m">>}, Exit) end.

python_generator(_Config) ->
    ok = ?R:advertise(<<"x">>, {python, rpc_helpers, count}),
    {ok, Stream} = ?R:call_stream(<<"x">>, 1000),
    ?assertEqual([integer_to_binary(Number) || Number <- lists:seq(0, 999)], all_of(Stream)),
    ok = ?R:advertise(<<"y">>, {python, "rpc_helpers", <<"various">>}),
    {ok, Other} = ?R:call_stream(<<"y">>, [1]),
    ?assertEqual([{chunk, <<"text">>}, {chunk, <<255>>}, {data, [1]}, {data, #{<<"a">> => none}}, eof],
                 [?S:recv(Other) || _ <- lists:seq(1, 5)]).

python_function(_Config) ->
    ok = ?R:advertise(<<"x">>, {python, rpc_helpers, double}),
    ?assertEqual({ok, 42}, ?R:call(<<"x">>, 21)).

python_errors(_Config) ->
    ok = ?R:advertise(<<"x">>, {python, rpc_helpers, fail}),
    ?assertEqual({error, {<<"ValueError">>, <<"no 1">>}}, ?R:call(<<"x">>, 1)),
    ok = ?R:advertise(<<"y">>, {python, rpc_helpers, fail_late}),
    {ok, Stream} = ?R:call_stream(<<"y">>, 1),
    ?assertEqual([{chunk, <<"first">>}, {error, {<<"ValueError">>, <<"late 1">>}}], [?S:recv(Stream), ?S:recv(Stream)]),
    ok = ?R:advertise(<<"z">>, {python, rpc_helpers, absent}),
    ?assertMatch({error, {<<"AttributeError">>, _}}, ?R:call(<<"z">>, 1)).

%% A generator without end is given up with its call, and never far ahead of it.
python_is_cancelled(_Config) ->
    ok = ?R:advertise(<<"x">>, {python, rpc_helpers, endless}),
    {ok, Stream} = ?R:call_stream(<<"x">>, <<"name">>, #{window => 100}),
    {chunk, _} = ?S:recv(Stream),
    ok = ?S:cancel(Stream),
    causeway_ct:wait_until(fun() -> py:call(rpc_helpers, is_closed, [<<"name">>]) =:= {ok, true} end),
    {ok, Made} = py:call(rpc_helpers, made, [<<"name">>]),
    ?assert(Made < 200).

server_restarts(_Config) ->
    ok = ?R:advertise(<<"x">>, fun(Args) -> Args end),
    ok = ?R:advertise(<<"echo">>, bidi, fun(Stream, _) -> echo(Stream) end),
    {ok, Stream} = ?R:open_stream(<<"echo">>, []),
    [begin
         Process = whereis(Name),
         exit(Process, kill),
         causeway_ct:wait_until(fun() -> not lists:member(whereis(Name), [undefined, Process]) end)
     end || Name <- [causeway_rpc_server, causeway_rpc_streams, causeway_rpc]],
    causeway_ct:wait_until(fun() -> is_pid(whereis(causeway_rpc_server)) end),
    ?assertEqual({ok, 1}, ?R:call(<<"x">>, 1)),
    causeway_ct:wait_until(fun() -> length(pg:get_local_members(causeway_rpc, <<"x">>)) =:= 1 end),
    ok = ?S:send(Stream, <<"still">>),
    ?assertEqual({chunk, <<"still">>}, ?S:recv(Stream)),
    #{peer := {local, Peer}} = ?S:info(Stream),
    exit(Peer, kill),
    %% Of that, or of the handler's crash when it hears of that first.
    ?assertMatch({error, Reason} when Reason =:= peer_down orelse is_tuple(Reason), ?S:recv(Stream)).

nothing_is_left(_Config) ->
    ok = ?R:advertise(<<"x">>, fun(Stream, _) -> ok = ?S:send(Stream, <<"x">>) end),
    {ok, Warm} = ?R:call_stream(<<"x">>, []),
    [_] = all_of(Warm),
    Before = erlang:system_info(process_count),
    [begin
         {ok, Stream} = ?R:call_stream(<<"x">>, []),
         ?assertEqual([<<"x">>], all_of(Stream))
     end || _ <- lists:seq(1, 500)],
    causeway_ct:wait_until(fun() -> erlang:system_info(process_count) =< Before + 2 end),
    ?assertEqual([], causeway_ct:mailbox()).
