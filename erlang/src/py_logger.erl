%% @private
%% @doc Gives what Python logs, and what it writes to `sys.stderr', to logger.
%%
%% A process of its own, because handlers of logger run in it and may take their time, or call Python.
-module(py_logger).

-behaviour(gen_server).

-export([start_link/0, tell_level/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-define(DOMAIN, [causeway, python]).
%% The default handler takes nothing of a domain that it does not know.
-define(FILTER, {fun logger_filters:domain/2, {log, sub, ?DOMAIN}}).

%% @doc Starts the process.
-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @doc Lets Python's root loggers begin with the level that logger has now.
-spec tell_level() -> ok.
tell_level() ->
    #{level := Level} = logger:get_primary_config(),
    causeway_nif:output_level(python_level(Level)).

%% @private
init([]) ->
    %% Where it is there already, or where there is no such handler, all is well.
    _ = logger:add_handler_filter(default, causeway_python, ?FILTER),
    ok = tell_level(),
    {ok, no_state}.

%% @private
handle_call(_Request, _From, State) ->
    {reply, {error, unknown_request}, State}.

%% @private
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
