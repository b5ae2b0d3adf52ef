%% @private
%% @doc Gives what Python logs, and what it writes to `sys.stderr', to logger; also what contexts have to tell.
%%
%% A process of its own, because handlers of logger run in it and may take their time, or call Python.
-module(py_logger).

-behaviour(gen_server).

-export([start_link/0, tell_level/0, report/3, log/3]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-define(DOMAIN, [causeway, python]).
%% The default handler takes nothing of a domain that it does not know.
-define(FILTER, {fun logger_filters:domain/2, {log, sub, ?DOMAIN}}).

%% How many reports may wait, and the counters of those and of those that were lost.
-define(MOST, 1000).
-define(QUEUED, 1).
-define(LOST, 2).

%% @doc Starts the process.
-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @doc Lets Python's root loggers begin with the level that logger has now.
-spec tell_level() -> ok.
tell_level() ->
    #{level := Level} = logger:get_primary_config(),
    causeway_nif:output_level(python_level(Level)).

%% @doc Logs a report on behalf of the calling process, which does not wait for that. Where handlers are so slow that
%% too many wait, others are counted only.
-spec report(logger:level(), map(), map()) -> ok.
report(Level, Report, Metadata) ->
    Waiting = persistent_term:get(?MODULE, none),
    case Waiting =/= none andalso logger:allow(Level, ?MODULE) of
        true -> queue(Waiting, Level, Report, Metadata);
        false -> ok
    end.

queue(Waiting, Level, Report, Metadata) ->
    case counters:get(Waiting, ?QUEUED) < ?MOST of
        true ->
            ok = counters:add(Waiting, ?QUEUED, 1),
            Own = #{pid => self(), gl => group_leader(), time => logger:timestamp()},
            gen_server:cast(?MODULE, {report, Level, Report, maps:merge(Own, Metadata)});
        false ->
            counters:add(Waiting, ?LOST, 1)
    end.

%% @doc Logs a text; the calling process does not wait for that.
-spec log(logger:level(), io:format(), [term()]) -> ok.
log(Level, Format, Arguments) ->
    gen_server:cast(?MODULE, {log, Level, Format, Arguments}).

%% @private
init([]) ->
    %% So that it logs what was told before it was to stop.
    process_flag(trap_exit, true),
    %% Read by those who have something to log, and never again by a process that has ended.
    persistent_term:put(?MODULE, counters:new(2, [atomics])),
    %% Where it is there already, or where there is no such handler, all is well.
    _ = logger:add_handler_filter(default, causeway_python, ?FILTER),
    ok = tell_level(),
    {ok, no_state}.

%% @private
handle_call(_Request, _From, State) ->
    {reply, {error, unknown_request}, State}.

%% @private
handle_cast({report, Level, Report, Metadata}, State) ->
    logger:log(Level, Report, Metadata),
    Waiting = persistent_term:get(?MODULE),
    ok = counters:sub(Waiting, ?QUEUED, 1),
    tell_lost(Waiting, counters:get(Waiting, ?LOST)),
    {noreply, State};
handle_cast({log, Level, Format, Arguments}, State) ->
    logger:log(Level, Format, Arguments, #{domain => ?DOMAIN}),
    {noreply, State};
handle_cast(_Request, State) ->
    {noreply, State}.

%% @private
handle_info({io_request, From, Reference, Event}, State) ->
    log(Event),
    From ! {io_reply, Reference, ok},
    {noreply, State};
handle_info(_Message, State) ->
    {noreply, State}.

tell_lost(_Waiting, 0) ->
    ok;
tell_lost(Waiting, Number) ->
    ok = counters:sub(Waiting, ?LOST, Number),
    logger:log(warning, "~p reports of Python contexts were lost: handlers of logger were too slow to take them",
               [Number], #{domain => ?DOMAIN}).

log({stderr, Process, Context, Text}) ->
    Metadata = metadata(Process, Context, #{source => stderr}),
    lists:foreach(fun(Line) -> logger:log(warning, Line, Metadata) end, events(Text));
log({log, Process, Context, {Number, Text, Details}}) ->
    %% Keys are those of erlang._log: few.
    Known = maps:fold(fun(Key, Value, Map) -> Map#{binary_to_atom(Key) => value(Key, Value)} end, #{}, Details),
    logger:log(level(Number), Text, metadata(Process, Context, Known)).

metadata(Process, Context, Metadata) ->
    With = Metadata#{domain => ?DOMAIN, context => Context},
    case Process of
        undefined -> With;
        _ -> With#{pid => Process}
    end.

%% As logger's own: a list of characters.
value(<<"file">>, File) -> unicode:characters_to_list(File);
value(<<"source">>, Source) -> binary_to_atom(Source);
value(_Key, Value) -> Value.

%% One for each line, but one for all of a traceback.
events(Text) ->
    case binary:match(Text, <<"Traceback (most recent call last):">>) of
        nomatch -> [Line || Line <- binary:split(Text, <<"\n">>, [global]), Line =/= <<>>];
        _ -> [string:trim(Text, trailing, "\n")]
    end.

level(Number) when Number >= 50 -> critical;
level(Number) when Number >= 40 -> error;
level(Number) when Number >= 30 -> warning;
level(Number) when Number >= 25 -> notice;
level(Number) when Number >= 20 -> info;
level(_Number) -> debug.

python_level(all) -> 0;
python_level(debug) -> 10;
python_level(info) -> 20;
python_level(notice) -> 25;
python_level(warning) -> 30;
python_level(error) -> 40;
python_level(none) -> 1000;
python_level(_Worse) -> 50.
