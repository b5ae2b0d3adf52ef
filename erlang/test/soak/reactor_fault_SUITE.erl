%% @doc Everything goes wrong at once, for a minute: nobody who behaves loses anything, and nothing is left.
%%
%% The contexts are in a node of their own, under a supervisor; the peers are here.
-module(reactor_fault_SUITE).

-behaviour(supervisor).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-define(WARM_UP, 10000).
-define(DURATION, 60000).
%% How long who behaves waits: descriptors are short for up to a second, and answers of 50 MB are made meanwhile.
-define(PATIENCE, 30000).
%% What the node may have grown by: the heaps of C and Python keep holes.
-define(MARGIN, 32 bsl 20).

suite() -> [{timetrap, {minutes, 5}}].

all() -> [all_at_once].

init_per_suite(Config) ->
    true = code:add_patha(filename:dirname(code:which(?MODULE)) ++ "/.."),
    Config.

end_per_suite(_Config) ->
    ok.

all_at_once(_Config) ->
    Paths = lists:append([["-pa", Directory] || Directory <- [filename:dirname(code:which(?MODULE)) | causeway_ct:ebin_dirs()]]),
    {ok, Peer, _Node} = peer:start_link(#{connection => standard_io, args => Paths}),
    Ports = peer:call(Peer, ?MODULE, start_server, []),
    chaos(Peer, Ports, ?WARM_UP),
    Before = settled(Peer, fun(_) -> true end),
    Outcome = chaos(Peer, Ports, ?DURATION),
    ct:log("~p", [Outcome]),
    After = settled(Peer, fun(Now) -> is_back(Now, Before) end),
    ct:log("~p~n~p", [Before, After]),
    ?assert(is_back(After, Before)),
    [?assert(maps:get(Actor, Outcome) > 0) || Actor <- [steady, mortal, orphan, reset, stall, slow, leave, kill, starve]],
    ?assertEqual([], logged(Peer, exception)),
    %% Descriptors were short again and again, which is said once.
    Shortages = logged(Peer, shortage),
    [?assert(lists:member(length([Port || Port <- Shortages, Port =:= Steady]), [1, 2])) || Steady <- maps:get(steady, Ports)],
    ok = peer:stop(Peer).

%% Lets all of them loose for so many milliseconds; how often each has done what it does.
chaos(Peer, #{steady := Steady, mortal := Mortal, orphan := Orphan}, Milliseconds) ->
    End = erlang:monotonic_time(millisecond) + Milliseconds,
    Any = Steady ++ Mortal,
    Actors = [{Name, spawn_monitor(fun() -> exit({done, repeat(Act, End, 0)}) end)}
              || {Name, Number, Act} <- [{steady, 12, fun() -> behave(one_of(Steady)) end},
                                         {mortal, 4, fun() -> behave_while_it_lives(one_of(Mortal)) end},
                                         {orphan, 2, fun() -> behave_without_owner(Orphan) end},
                                         {reset, 4, fun() -> reset(one_of(Any)) end},
                                         {stall, 4, fun() -> stall(one_of(Any)) end},
                                         {slow, 4, fun() -> slow(one_of(Steady)) end},
                                         {leave, 3, fun() -> leave(one_of(Any)) end},
                                         {kill, 1, fun() -> kill(Peer) end},
                                         {starve, 1, fun() -> starve(Peer) end}],
                 _ <- lists:seq(1, Number)],
    lists:foldl(fun({Name, {Process, Monitor}}, Sums) ->
                        receive
                            {'DOWN', Monitor, process, Process, {done, Count}} ->
                                maps:update_with(Name, fun(Sum) -> Sum + Count end, Count, Sums);
                            {'DOWN', Monitor, process, Process, Reason} ->
                                error({Name, Reason})
                        end
                end, #{}, Actors).

repeat(Act, End, Count) ->
    case erlang:monotonic_time(millisecond) < End of
        true -> Act(), repeat(Act, End, Count + 1);
        false -> Count
    end.

one_of(List) -> lists:nth(rand:uniform(length(List)), List).

%% Those who behave

behave(Port) ->
    {ok, Client} = connect(Port),
    ok = gen_tcp:send(Client, <<"E">>),
    [begin
         Data = some_bytes(),
         ok = gen_tcp:send(Client, Data),
         ?assertEqual({ok, Data}, gen_tcp:recv(Client, byte_size(Data), ?PATIENCE))
     end || _ <- lists:seq(1, 20)],
    %% All that was sent comes back, also after the end.
    Last = some_bytes(),
    ok = gen_tcp:send(Client, Last),
    ok = gen_tcp:shutdown(Client, write),
    ?assertEqual({ok, Last}, gen_tcp:recv(Client, byte_size(Last), ?PATIENCE)),
    ?assertEqual({error, closed}, gen_tcp:recv(Client, 0, ?PATIENCE)),
    ok = gen_tcp:close(Client).

%% With a context that may be killed: the connection ends then, but nothing wrong comes.
behave_while_it_lives(Port) ->
    case connect(Port) of
        {ok, Client} ->
            _ = gen_tcp:send(Client, <<"E">>),
            exchange(Client, 20),
            ok = gen_tcp:close(Client);
        {error, Reason} when Reason =:= econnrefused; Reason =:= econnreset ->
            wait(20)
    end.

exchange(_Client, 0) ->
    ok;
exchange(Client, Rounds) ->
    Data = some_bytes(),
    case gen_tcp:send(Client, Data) =:= ok andalso gen_tcp:recv(Client, byte_size(Data), ?PATIENCE) of
        {ok, Data} -> exchange(Client, Rounds - 1);
        false -> ok;
        {error, Reason} when Reason =:= closed; Reason =:= econnreset; Reason =:= epipe -> ok
    end.

%% The process that had the socket is killed while it hands it over, or afterwards. Where it came to that, that is of no
%% importance to the connection; else it ends.
behave_without_owner(Port) ->
    {ok, Client} = connect(Port),
    Data = some_bytes(),
    case gen_tcp:send(Client, [<<"E">>, Data]) =:= ok andalso gen_tcp:recv(Client, byte_size(Data), ?PATIENCE) of
        {ok, Data} ->
            [begin
                 More = some_bytes(),
                 ok = gen_tcp:send(Client, More),
                 ?assertEqual({ok, More}, gen_tcp:recv(Client, byte_size(More), ?PATIENCE))
             end || _ <- lists:seq(1, 5)],
            ok = gen_tcp:close(Client);
        NotServed when NotServed =:= false; element(1, NotServed) =:= error ->
            ok = gen_tcp:close(Client),
            wait(5),
            behave_without_owner(Port)
    end.

%% Those who do not

reset(Port) ->
    wait(5),
    with_connection(Port, fun(Client) ->
        _ = gen_tcp:send(Client, [<<"E">>, some_bytes()]),
        ok = inet:setopts(Client, [{linger, {true, 0}}])
    end).

%% Asks for 50 MB, and reads nothing.
stall(Port) ->
    with_connection(Port, fun(Client) ->
        _ = gen_tcp:send(Client, <<"A">>),
        wait(1000 + rand:uniform(2000))
    end).

%% One byte a second.
slow(Port) ->
    with_connection(Port, fun(Client) ->
        ok = gen_tcp:send(Client, <<"E">>),
        [begin
             wait(1000),
             ok = gen_tcp:send(Client, <<Byte>>),
             ?assertEqual({ok, <<Byte>>}, gen_tcp:recv(Client, 1, ?PATIENCE))
         end || Byte <- lists:seq(1, 10)]
    end).

%% Asks for 50 MB, and is gone in the middle of them.
leave(Port) ->
    with_connection(Port, fun(Client) ->
        _ = gen_tcp:send(Client, <<"A">>),
        _ = gen_tcp:recv(Client, rand:uniform(20 bsl 20), ?PATIENCE),
        ok = inet:setopts(Client, [{linger, {rand:uniform(2) =:= 1, 0}}])
    end).

with_connection(Port, Fun) ->
    case connect(Port) of
        {ok, Client} ->
            _ = Fun(Client),
            gen_tcp:close(Client);
        {error, _} ->
            wait(20)
    end.

connect(Port) ->
    gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, false}], ?PATIENCE).

some_bytes() ->
    rand:bytes(1 + rand:uniform(one_of([10, 1000, 100000]))).

%% Here time itself is what is wanted.
wait(Milliseconds) ->
    receive after Milliseconds -> ok end.

kill(Peer) ->
    wait(200 + rand:uniform(400)),
    ok = peer:call(Peer, ?MODULE, kill_one, [], ?PATIENCE).

starve(Peer) ->
    wait(1000 + rand:uniform(1000)),
    {ok, none} = peer:call(Peer, py, call, [fault_protocols, use_up_descriptors, []], ?PATIENCE),
    wait(300 + rand:uniform(500)),
    {ok, none} = peer:call(Peer, py, call, [fault_protocols, give_back_descriptors, []], ?PATIENCE).

%% What is left

%% What the node has, as soon as it is as it should be; at the latest after the patience of all tests.
settled(Peer, IsSettled) ->
    IsQuiet = fun() ->
        Now = peer:call(Peer, ?MODULE, inventory, [], ?PATIENCE),
        put(inventory, Now),
        0 =:= maps:get(protocols, Now) andalso IsSettled(Now)
    end,
    try causeway_ct:wait_until(IsQuiet) catch error:{still_false, _} -> ok end,
    get(inventory).

is_back(Now, Before) ->
    %% The end of a context may interrupt connection_made before it can count: connection_lost follows all the same.
    #{twice := Twice, forgotten := Forgotten, protocols := Protocols} = Now,
    {0, 0, 0} =:= {Twice, Forgotten, Protocols}
        andalso [] =:= [Key || Key <- [descriptors, threads, contexts, zombies, processes, ports],
                               maps:get(Key, Now) > maps:get(Key, Before)]
        andalso maps:get(memory, Now) =< maps:get(memory, Before) + ?MARGIN.

%% The node with the contexts

start_server() ->
    Caller = self(),
    _ = spawn(fun() ->
        ok = logger:add_handler(?MODULE, ?MODULE, #{config => ets:new(?MODULE, [named_table, public, duplicate_bag])}),
        ok = logger:remove_handler(default),
        ok = causeway_ct:start(),
        {ok, _} = py:call(fault_protocols, counted, []),
        Ports = #{steady => [free_port(), free_port()], mortal => [free_port(), free_port()]},
        {ok, _} = supervisor:start_link({local, ?MODULE}, ?MODULE, Ports),
        {ok, Listener} = gen_tcp:listen(0, [binary, {ip, {127, 0, 0, 1}}, {active, false}, {backlog, 1024}]),
        {ok, Orphan} = inet:port(Listener),
        Caller ! {started, Ports#{orphan => Orphan}},
        accept_orphans(Listener)
    end),
    receive {started, Ports} -> Ports end.

init(Ports) ->
    Children = [#{id => {Kind, Port}, start => {?MODULE, start_context, [Port]}}
                || {Kind, OfKind} <- maps:to_list(Ports), Port <- OfKind],
    {ok, {#{strategy => one_for_one, intensity => 1000, period => 1}, Children}}.

%% Accepts, and kills the process that hands the socket to a context: before, meanwhile or afterwards.
accept_orphans(Listener) ->
    case gen_tcp:accept(Listener) of
        {ok, Socket} ->
            Steady = [Context || {{steady, _}, Context, _, _} <- supervisor:which_children(?MODULE), is_pid(Context)],
            Owner = spawn(fun() ->
                receive go -> ok end,
                _ = py_reactor_context:handoff(one_of(Steady), Socket, #{}),
                receive after infinity -> ok end
            end),
            _ = gen_tcp:controlling_process(Socket, Owner),
            Owner ! go,
            End = erlang:monotonic_time(microsecond) + rand:uniform(300),
            ok = spin_until(End),
            exit(Owner, kill);
        {error, emfile} ->
            wait(20)
    end,
    accept_orphans(Listener).

spin_until(End) ->
    case erlang:monotonic_time(microsecond) < End of
        true -> spin_until(End);
        false -> ok
    end.

%% A context that accepts at a port. The one before it may just be about to close its listener there.
start_context(Port) ->
    {ok, Context} = py_reactor_context:start_link(Port, worker, #{factory => {fault_protocols, 'Counted'}}),
    ok = listen(Context, Port),
    {ok, Context}.

listen(Context, Port) ->
    Options = [{ip, {127, 0, 0, 1}}, {active, false}, {backlog, 1024}, {reuseaddr, true}, {raw, 1, 15, <<1:32/native>>}],
    case gen_tcp:listen(Port, Options) of
        {ok, Listener} ->
            case py_reactor_context:handoff(Context, Listener, #{}) of
                ok -> ok;
                {error, emfile} -> ok = gen_tcp:close(Listener), wait(20), listen(Context, Port)
            end;
        {error, emfile} ->
            wait(20),
            listen(Context, Port)
    end.

free_port() ->
    {ok, Socket} = gen_tcp:listen(0, [{ip, {127, 0, 0, 1}}]),
    {ok, Port} = inet:port(Socket),
    ok = gen_tcp:close(Socket),
    Port.

%% Kills the process of a context, or has it end by itself.
kill_one() ->
    Mortal = [Context || {{mortal, _}, Context, _, _} <- supervisor:which_children(?MODULE), is_pid(Context)],
    _ = Mortal =/= [] andalso exit(one_of(Mortal), one_of([kill, shutdown])),
    ok.

inventory() ->
    [erlang:garbage_collect(Process) || Process <- processes()],
    {ok, {Made, Lost, Twice, Forgotten, Alive}} = py:call(fault_protocols, counted, []),
    #{made => Made, lost => Lost, twice => Twice, forgotten => Forgotten, protocols => Alive, descriptors => causeway_ct:descriptors(),
      threads => causeway_ct:threads(), contexts => causeway_ct:context_threads(), memory => causeway_ct:rss(),
      zombies => zombies(), processes => length(processes()), ports => length(erlang:ports())}.

zombies() ->
    Own = list_to_binary(os:getpid()),
    length([Stat || File <- filelib:wildcard("/proc/[0-9]*/stat"), {ok, Stat} <- [file:read_file(File)],
                    [_, <<"Z ", Rest/binary>>] <- [binary:split(Stat, <<") ">>)],
                    hd(binary:split(Rest, <<" ">>)) =:= Own]).

%% What the node has logged.
logged(Peer, Kind) ->
    [What || {Of, What} <- peer:call(Peer, ets, tab2list, [?MODULE]), Of =:= Kind].

log(#{msg := {report, #{text := _, context := Port}}}, #{config := Table}) ->
    true = ets:insert(Table, {shortage, Port});
log(#{msg := {report, #{callback := Callback, error := #{type := Type, message := Message}}}, level := error}, #{config := Table}) ->
    true = ets:insert(Table, {exception, {Callback, Type, Message}});
log(_Event, _Config) ->
    ok.
