%% @doc The port that Causeway is measured against: `port_peer.py' as a child of `open_port'.
%% One process may own it and call it, which is the fastest way for a single caller; several callers
%% share it through a server, which sends on every request at once and answers in order.
-module(bench_port).
-behaviour(gen_server).

-export([open/0, call/4, call/5, start_link/0, shared_call/4]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-define(TIMEOUT, 30000).

%% @doc Starts the child; the calling process owns the port.
-spec open() -> port().
open() ->
    open_port({spawn_executable, bench:python()},
              [{args, ["Tests/Benchmarks/port_peer.py"]}, {packet, 4}, binary, exit_status]).

%% @doc One call, by the owner of the port.
-spec call(port(), atom(), atom(), [term()]) -> {ok, term()} | {error, term()} | {callback, atom(), [term()]}.
call(Port, Module, Function, Args) ->
    true = port_command(Port, term_to_binary({call, Module, Function, Args})),
    receive
        {Port, {data, Reply}} -> binary_to_term(Reply);
        {Port, {exit_status, Status}} -> error({port_exited, Status})
    after ?TIMEOUT -> error(timeout)
    end.

%% @doc The same, while the child may call a function back.
-spec call(port(), atom(), atom(), [term()], fun((atom(), [term()]) -> term())) -> {ok, term()} | {error, term()}.
call(Port, Module, Function, Args, Callback) ->
    case call(Port, Module, Function, Args) of
        {callback, Name, CallbackArgs} -> answer(Port, Callback(Name, CallbackArgs), Callback);
        Result -> Result
    end.

answer(Port, Value, Callback) ->
    true = port_command(Port, term_to_binary({ok, Value})),
    receive
        {Port, {data, Data}} ->
            case binary_to_term(Data) of
                {callback, Name, Args} -> answer(Port, Callback(Name, Args), Callback);
                Result -> Result
            end
    after ?TIMEOUT -> error(timeout)
    end.

%% @doc Starts a child and the server that owns it.
-spec start_link() -> pid().
start_link() ->
    {ok, Server} = gen_server:start_link(?MODULE, [], []),
    Server.

%% @doc One call, by any process. The terms are converted by the caller, not by the one server.
-spec shared_call(pid(), atom(), atom(), [term()]) -> {ok, term()} | {error, term()}.
shared_call(Server, Module, Function, Args) ->
    Request = term_to_binary({call, Module, Function, Args}),
    binary_to_term(gen_server:call(Server, Request, ?TIMEOUT)).

%% @private
-spec init([]) -> {ok, {port(), queue:queue()}}.
init([]) ->
    {ok, {open(), queue:new()}}.

%% @private
-spec handle_call(binary(), gen_server:from(), State) -> {noreply, State}.
handle_call(Request, From, {Port, Callers}) ->
    true = port_command(Port, Request),
    {noreply, {Port, queue:in(From, Callers)}}.

%% @private
-spec handle_cast(term(), State) -> {noreply, State}.
handle_cast(_Request, State) ->
    {noreply, State}.

%% @private
-spec handle_info({port(), term()}, State) -> {noreply, State} | {stop, term(), State}.
handle_info({Port, {data, Reply}}, {Port, Callers}) ->
    {{value, From}, Rest} = queue:out(Callers),
    gen_server:reply(From, Reply),
    {noreply, {Port, Rest}};
handle_info({Port, {exit_status, Status}}, {Port, _Callers} = State) ->
    {stop, {port_exited, Status}, State}.
