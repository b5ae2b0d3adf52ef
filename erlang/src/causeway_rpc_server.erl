%% @private
%% @doc Who serves which name: a table of this node's handlers, and the process by which other nodes reach them. It is in a
%% group of OTP's `pg' for each name.
-module(causeway_rpc_server).

-behaviour(gen_server).

-export([start_link/0, new_tables/0, advertise/3, unadvertise/1, list/0, open/3, serve_over/2]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-include_lib("kernel/include/logger.hrl").

-define(SCOPE, causeway_rpc).
-define(NAMES, causeway_rpc_names).
%% How often each name was called, and which providers have failed to accept until when.
-define(TURNS, causeway_rpc_turns).
-define(OPEN_TIMEOUT, 5000).
-define(AVOIDED, 5000).

-type request() :: #{name := term(), args := term(), client => pid(), number => non_neg_integer(),
                     mode := causeway_rpc_stream:mode(), window := pos_integer(), deadline := timeout()}.

%% @doc Starts the process that other nodes reach.
-spec start_link() -> gen_server:start_ret().
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @doc Makes the tables, which outlive that process.
-spec new_tables() -> ok.
new_tables() ->
    _ = ets:new(?NAMES, [named_table, public, {read_concurrency, true}]),
    _ = ets:new(?TURNS, [named_table, public, {write_concurrency, true}]),
    ok.

%% @doc Serves a name.
-spec advertise(term(), causeway_rpc_stream:mode(), causeway_rpc:handler() | {python_object, reference()}) ->
          ok | {error, {badarg | not_started, binary()}}.
advertise(Name, Mode, Handler) ->
    case is_handler(Handler) of
        true -> ask({advertise, Name, Mode, Handler});
        false -> {error, {badarg, <<"a handler is a fun of a stream and arguments or of arguments, a module, or "
                                    "{python, Module, Function}">>}}
    end.

is_handler({python, _Module, _Function}) -> true;
is_handler({python_object, _Reference}) -> true;
is_handler(Handler) -> is_atom(Handler) orelse is_function(Handler, 1) orelse is_function(Handler, 2).

%% @doc Serves it no longer.
-spec unadvertise(term()) -> ok | {error, {not_started, binary()}}.
unadvertise(Name) ->
    ask({unadvertise, Name}).

ask(Request) ->
    try
        gen_server:call(?MODULE, Request, infinity)
    catch
        exit:{noproc, _} -> not_started()
    end.

not_started() ->
    {error, {not_started, <<"the application causeway does not run: application:ensure_all_started(causeway)">>}}.

%% @doc The names that are served here.
-spec list() -> [{term(), causeway_rpc_stream:mode()}].
list() ->
    case ets:whereis(?NAMES) of
        undefined -> [];
        Table -> ets:select(Table, [{{'$1', '$2', '_'}, [], [{{'$1', '$2'}}]}])
    end.

%% @doc Opens a call: here, or on another node.
-spec open(term(), term(), causeway_rpc:opts()) -> {ok, pid()} | {error, term()}.
open(Name, Args, #{connection := Connection} = Opts) ->
    open_over(Connection, Name, Args, Opts);
open(Name, Args, Opts) ->
    case ets:whereis(?NAMES) of
        undefined ->
            not_started();
        Table ->
            case ets:lookup(Table, Name) of
                [{_, Mode, Handler}] -> open_here(Name, Args, Opts#{mode := Mode}, Handler);
                [] -> open_there(Name, Args, Opts)
            end
    end.

open_here(Name, Args, Opts, Handler) ->
    case start_client(Opts) of
        {ok, Client} ->
            Request = request(Name, Args, Client, Opts),
            {Process, Monitor} = spawn_monitor(fun() -> serve_here(Request, Handler) end),
            Process ! {begin_call, self(), Monitor},
            receive
                {Monitor, accepted} ->
                    true = demonitor(Monitor, [flush]),
                    {ok, Client};
                {'DOWN', Monitor, process, _, Reason} ->
                    given_up(Client, {error, {<<"unavailable">>, text("the handler did not start: ~tp", [Reason])}})
            end;
        {error, _} = Error ->
            Error
    end.

start_client(#{mode := Mode} = Opts) ->
    Given = maps:with([window, deadline], Opts),
    causeway_rpc_stream:start_link(Given#{id => rand:bytes(16), role => client, mode => Mode,
                                          owner => maps:get(owner, Opts, self())}).

request(Name, Args, Client, #{mode := Mode} = Opts) ->
    #{window := Window} = causeway_rpc_stream:info(Client),
    #{name => Name, args => Args, client => Client, mode => Mode, window => Window,
      deadline => maps:get(deadline, Opts, infinity)}.

%% The half was of no use: it ends at once.
given_up(Client, Error) ->
    true = unlink(Client),
    _ = causeway_rpc_stream:cancel(Client),
    Error.

%% Over a packet connection

open_over(Connection, Name, Args, Opts) ->
    case start_client(Opts) of
        {ok, Client} ->
            #{window := Window, mode := Mode, deadline := Deadline} = request(Name, Args, Client, Opts),
            Opening = #{procedure => Name, mode => Mode, args => Args, window => causeway_rpc_link:room(Window)},
            Whole = case Deadline of
                infinity -> Opening;
                _ -> Opening#{deadline_ms => Deadline}
            end,
            case causeway_rpc_connection:open(Connection, Client, Whole, maps:get(open_timeout, Opts, ?OPEN_TIMEOUT)) of
                ok -> {ok, Client};
                {error, _} = Error -> given_up(Client, Error)
            end;
        {error, _} = Error ->
            Error
    end.

%% @doc Has a call served that has come over a packet connection.
-spec serve_over(pid(), map()) -> {ok, Monitor :: reference()} | not_advertised.
serve_over(Connection, #{name := Name} = Request) ->
    case ets:lookup(?NAMES, Name) of
        [{_, Mode, Handler}] ->
            {_Process, Monitor} = spawn_monitor(fun() -> serve_over(Connection, Request#{mode => Mode}, Handler) end),
            {ok, Monitor};
        [] ->
            not_advertised
    end.

serve_over(Connection, #{number := Number, window := Window} = Request, Handler) ->
    {ok, Stream} = start_server(Request),
    %% The connection tells of room.
    ok = causeway_rpc_stream:link_remote(Stream, Connection, 0),
    case gen_server:call(Connection, {opened, Number, Stream, Window}, infinity) of
        ok -> serve(Stream, Request, Handler, fun() -> ok end);
        cancelled -> causeway_rpc_stream:cancel(Stream)
    end.

%% Providers on other nodes

open_there(Name, Args, Opts) ->
    case providers(Name, Opts) of
        [] -> {error, not_advertised};
        Providers -> open_one_of(Providers, Name, Args, Opts, [])
    end.

%% Those that have failed lately come last.
providers(Name, Opts) ->
    All = lists:usort(pg:get_members(?SCOPE, Name)) -- pg:get_local_members(?SCOPE, Name),
    {Good, Avoided} = lists:partition(fun(Provider) -> not is_avoided(Name, Provider) end, rotate(All, Name, Opts)),
    Good ++ Avoided.

rotate([], _Name, _Opts) ->
    [];
rotate(All, Name, Opts) ->
    Turn = case Opts of
        #{key := Key} -> erlang:phash2(Key);
        #{} -> ets:update_counter(?TURNS, {turn, Name}, 1, {{turn, Name}, 0})
    end,
    {Before, From} = lists:split(Turn rem length(All), All),
    From ++ Before.

is_avoided(Name, Provider) ->
    Now = erlang:monotonic_time(millisecond),
    case ets:lookup(?TURNS, {avoided, Name, Provider}) of
        [{_, Until}] when Until > Now -> true;
        _ -> false
    end.

avoid(Name, Provider) ->
    ets:insert(?TURNS, {{avoided, Name, Provider}, erlang:monotonic_time(millisecond) + ?AVOIDED}).

open_one_of([], _Name, _Args, _Opts, Failed) ->
    {error, {<<"unavailable">>, text("no provider has accepted: ~tp", [lists:reverse(Failed)])}};
open_one_of([Provider | Others], Name, Args, Opts, Failed) ->
    case open_at(Provider, Name, Args, Opts) of
        {ok, Client} ->
            _ = ets:delete(?TURNS, {avoided, Name, Provider}),
            {ok, Client};
        {failed, Reason} ->
            true = avoid(Name, Provider),
            open_one_of(Others, Name, Args, Opts, [{node(Provider), Reason} | Failed]);
        {error, _} = Error ->
            Error
    end.

open_at(Provider, Name, Args, Opts) ->
    case start_client(Opts) of
        {ok, Client} ->
            Alias = monitor(process, Provider, [{alias, reply_demonitor}]),
            Provider ! {open, Alias, request(Name, Args, Client, Opts)},
            receive
                {Alias, {accepted, Process, Server, Window}} ->
                    ok = causeway_rpc_stream:link_remote(Client, Server, Window),
                    Process ! {linked, Alias},
                    {ok, Client};
                {Alias, {refused, Reason}} ->
                    given_up(Client, {failed, Reason});
                {'DOWN', Alias, process, _, Reason} ->
                    given_up(Client, {failed, Reason})
            after maps:get(open_timeout, Opts, ?OPEN_TIMEOUT) ->
                _ = demonitor(Alias, [flush]),
                receive {Alias, _TooLate} -> ok after 0 -> ok end,
                given_up(Client, {failed, timeout})
            end;
        {error, _} = Error ->
            Error
    end.

text(Format, Arguments) ->
    unicode:characters_to_binary(io_lib:format(Format, Arguments)).

%% The process that other nodes reach

%% @private
init([]) ->
    %% Where the one before has died.
    lists:foreach(fun({Name, _Mode}) -> ok = pg:join(?SCOPE, Name, self()) end, list()),
    {ok, none}.

%% @private
handle_call({advertise, Name, Mode, Handler}, _From, State) ->
    _ = [ok = pg:join(?SCOPE, Name, self()) || not ets:member(?NAMES, Name)],
    ets:insert(?NAMES, {Name, Mode, Handler}),
    {reply, ok, State};
handle_call({unadvertise, Name}, _From, State) ->
    _ = pg:leave(?SCOPE, Name, self()),
    ets:delete(?NAMES, Name),
    {reply, ok, State};
handle_call(_Request, _From, State) ->
    {reply, {error, unknown}, State}.

%% @private
handle_cast(_Request, State) ->
    {noreply, State}.

%% @private
handle_info({open, Alias, #{name := Name} = Request}, State) ->
    _ = case ets:lookup(?NAMES, Name) of
        [{_, Mode, Handler}] -> spawn(fun() -> serve_there(Alias, Request#{mode := Mode}, Handler) end);
        [] -> Alias ! {Alias, {refused, not_advertised}}
    end,
    {noreply, State};
handle_info(_Other, State) ->
    {noreply, State}.

%% Serving

serve_here(#{client := Client} = Request, Handler) ->
    receive
        {begin_call, Caller, Tag} ->
            {ok, Stream} = start_server(Request),
            ok = causeway_rpc_stream:pair(Client, Stream),
            serve(Stream, Request, Handler, fun() -> Caller ! {Tag, accepted} end)
    end.

serve_there(Alias, #{client := Client, window := Window} = Request, Handler) ->
    Monitor = monitor(process, Client),
    {ok, Stream} = start_server(Request),
    ok = causeway_rpc_stream:link_remote(Stream, Client, Window),
    #{window := OwnWindow} = causeway_rpc_stream:info(Stream),
    Alias ! {Alias, {accepted, self(), Stream, OwnWindow}},
    %% Before that the client's half would not know from whom it is.
    receive
        {linked, Alias} ->
            true = demonitor(Monitor, [flush]),
            serve(Stream, Request, Handler, fun() -> ok end);
        {'DOWN', Monitor, process, _, _Reason} ->
            ok
    end.

-spec start_server(request()) -> {ok, pid()} | {error, term()}.
start_server(#{mode := Mode, deadline := Deadline}) ->
    causeway_rpc_stream:start(#{id => rand:bytes(16), role => server, mode => Mode, owner => self(),
                                deadline => Deadline}).

serve(Stream, #{args := Args}, {python_object, Handler}, Accept) ->
    %% It looks after errors and the end itself.
    causeway_rpc_callbacks:serve(Stream, Handler, Args, Accept);
serve(Stream, #{name := Name, args := Args}, Handler, Accept) ->
    _ = Accept(),
    try
        handle(Handler, Stream, Args)
    catch
        Class:Reason:Stack ->
            ?LOG_ERROR("The handler of the streaming call ~tp has failed: ~tp: ~tp~n~tp", [Name, Class, Reason, Stack]),
            Text = text("handler ~tp crashed: ~0tP", [Name, Reason, 20]),
            causeway_rpc_stream:abort(Stream, atom_to_binary(Class), Text)
    end,
    causeway_rpc_stream:close(Stream).

handle(Handler, Stream, Args) when is_function(Handler, 2) ->
    Handler(Stream, Args);
handle(Handler, Stream, Args) when is_function(Handler, 1) ->
    case causeway_rpc_half:ends_owner(Stream) of
        ok -> causeway_rpc_stream:set_reply(Stream, Handler(Args));
        over -> ok
    end;
handle({python, Module, Function}, Stream, Args) ->
    causeway_rpc_python:serve(Stream, Module, Function, Args);
handle(Module, Stream, Args) ->
    causeway_rpc_provider:serve(Module, Stream, Args).
