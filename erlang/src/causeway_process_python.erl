%% @private
%% @doc What `erlang.process' asks for: the owner of a program that Python has opened, and what it asks of it.
-module(causeway_process_python).

-behaviour(gen_server).

-export([functions/0, start_link/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-type state() :: #{handle := pid(), ended := py_byte_channel:channel()}.

%% @doc The functions that Python calls, by their names.
-spec functions() -> #{py_callbacks:name() => py_callbacks:callable()}.
functions() ->
    #{<<"_causeway_process_open">> => fun open/1,
      <<"_causeway_process_helper">> => fun helper/1,
      <<"_causeway_process_run">> => fun run/1,
      <<"_causeway_process_ask">> => fun ask/1}.

%% --- in the process of a call ---

%% The streams are channels that take the place of the owner; the last is told how it has ended: it is aborted with
%% that as the reason, which whoever asks gets, at any time.
open([Command, Arguments, Options, Streams, Ended]) ->
    Given = options(Options) ++ [{key(Name), {channel, Channel}} || {Name, Channel} <- maps:to_list(Streams)],
    case causeway_sup:start_child(causeway_process_sup, {Command, Arguments, Given, Ended, self()}) of
        {ok, Owner} -> receive {Owner, Pid} -> {ok, Owner, Pid} end;
        {error, Reason} -> failed(Reason)
    end.

%% Event loops start programs by the helper themselves, when it runs.
helper([]) ->
    case causeway_process_helper:start() of
        ok -> ok;
        {error, {_, Reason, Text}} -> {error, Reason, Text};
        {error, {Reason, Text}} -> {error, Reason, Text}
    end.

run([Command, Arguments, Options]) ->
    case causeway_process_stream:run(Command, Arguments, options(Options)) of
        {ok, #{exit := Reason} = Output} -> {ok, told(Reason), bytes(Output)};
        {error, {Why, #{stdout := _} = Output}} -> {Why, bytes(Output)};
        {error, Reason} -> failed(Reason)
    end.

bytes(#{stdout := Output, stderr := Error}) -> {{bytes, Output}, {bytes, Error}}.

ask([Owner, Request]) when is_pid(Owner) ->
    Answer = try
                 gen_server:call(Owner, request(Request), infinity)
             catch
                 exit:_ -> {error, closed}
             end,
    case Answer of
        ok -> ok;
        {error, Reason} -> failed(Reason)
    end.

request({<<"kill">>, Target, Signal}) -> {kill, {target(Target), Signal}};
request({<<"resize">>, Size}) -> {resize, Size}.

target(<<"group">>) -> group;
target(<<"tree">>) -> tree;
target(_Process) -> process.

%% Names are text in Python, as are the values that are atoms here.
options(Options) ->
    [{Name, value(Name, Value)} || {Name, Value} <- maps:to_list(Options)].

key(<<"stdin">>) -> stdin;
key(<<"stdout">>) -> stdout;
key(<<"stderr">>) -> stderr.

value(Name, Value) when Name =:= <<"stdin">>; Name =:= <<"stdout">>; Name =:= <<"stderr">> ->
    case Value of
        <<"pipe">> -> pipe;
        <<"null">> -> null;
        <<"stdout">> -> stdout;
        {<<"file">>, Path} -> {file, Path};
        {<<"append">>, Path} -> {file, Path, append};
        _ -> Value
    end;
value(_Name, Value) ->
    Value.

%% As Python's exceptions have it: the number's name, and a text.
failed({badarg, Text}) -> {error, badarg, Text};
failed({_Step, Posix, Text}) when is_binary(Text) -> {error, Posix, Text};
failed({not_started, Text}) -> {error, not_started, Text};
failed(Posix) when is_atom(Posix) -> {error, Posix, unicode:characters_to_binary(file:format_error(Posix))};
failed(Other) -> {error, other, py_call:error_text("~tP", [Other, 9])}.

told({exit, Reason, output_held}) -> {plain(Reason), true};
told(Reason) -> {plain(Reason), false}.

plain(normal) -> {status, 0};
plain({exit_status, Status}) -> {status, Status};
plain({signal, Number}) -> {signal, Number};
plain(guardian_killed) -> {signal, 9};
plain(_Closed) -> closed.

%% --- the owner ---

%% @doc Starts a program and the process that owns it.
-spec start_link({term(), term(), term(), py_byte_channel:channel(), pid()}) -> {ok, pid()} | {error, term()}.
start_link(Program) ->
    case gen_server:start_link(?MODULE, Program, []) of
        {error, {shutdown, {?MODULE, Reason}}} -> {error, Reason};
        Other -> Other
    end.

%% @private
-spec init({term(), term(), term(), py_byte_channel:channel(), pid()}) -> {ok, state()} | {stop, term()}.
init({Command, Arguments, Options, Ended, Caller}) ->
    %% For terminate/2.
    process_flag(trap_exit, true),
    case causeway_process:open(Command, Arguments, [{mode, passive} | Options]) of
        {ok, Handle} ->
            %% In that mode it is there even if the program has ended already.
            Caller ! {self(), causeway_process_stream:os_pid(Handle)},
            ok = causeway_process_stream:set_mode(Handle, active),
            {ok, #{handle => Handle, ended => Ended}};
        {error, Reason} -> {stop, {shutdown, {?MODULE, Reason}}}
    end.

%% @private
handle_call({kill, Signal}, _From, #{handle := Handle} = State) ->
    {reply, causeway_process_stream:kill(Handle, Signal), State};
handle_call({resize, Size}, _From, #{handle := Handle} = State) ->
    {reply, causeway_process_stream:resize(Handle, Size), State}.

%% @private
handle_cast(_Request, State) ->
    {noreply, State}.

%% @private
handle_info({'EXIT', Handle, Reason}, #{handle := Handle, ended := Ended} = State) ->
    ok = py_byte_channel:abort(Ended, told(Reason)),
    {stop, normal, State};
%% Nobody refers to it any more in Python, or it is to end now.
handle_info(close, #{handle := Handle} = State) ->
    ok = causeway_process_stream:close(Handle),
    {noreply, State};
handle_info({Handle, closed}, #{handle := Handle} = State) ->
    {stop, normal, State};
handle_info(_Message, State) ->
    {noreply, State}.

%% @private
%% Nobody waits for ever. What was told first stays.
terminate(_Reason, #{ended := Ended}) ->
    py_byte_channel:abort(Ended, told(closed)).
