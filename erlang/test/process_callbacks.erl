%% @doc A module of process streams that tells a process all of its callbacks, and does what it is asked to.
-module(process_callbacks).

-behaviour(gen_server).
-behaviour(causeway_process_stream).

-export([init/1, handle_stdout/2, handle_stderr/2, handle_exit/2, handle_call/3, handle_cast/2, handle_info/2,
         handle_continue/2, terminate/2, format_status/1]).

%% The state is the process that is told.
init({return, Value}) -> Value;
init(Test) -> Test ! init, {ok, Test}.

%% A line may say what to return.
handle_stdout(<<"stop\n">>, Test) -> {stop, normal, Test};
handle_stdout(<<"bad\n">>, _Test) -> bad;
handle_stdout(Data, Test) -> Test ! {stdout, Data}, extra(Data, Test).

extra(<<"timeout", _/binary>>, Test) -> {noreply, Test, 10};
extra(<<"continue", _/binary>>, Test) -> {noreply, Test, {continue, again}};
extra(<<"hibernate", _/binary>>, Test) -> {noreply, Test, hibernate};
extra(_Data, Test) -> {noreply, Test}.

handle_stderr(Data, Test) -> Test ! {stderr, Data}, {noreply, Test}.

handle_exit(Reason, Test) -> Test ! {exit, Reason}, {stop, Reason, Test}.

handle_call(state, _From, Test) -> {reply, Test, Test};
handle_call(later, From, Test) -> {noreply, Test, {continue, {reply, From}}};
handle_call(stop, _From, Test) -> {stop, normal, stopped, Test};
handle_call(timeout, _From, Test) -> {reply, ok, Test, 10};
handle_call({ask, Question}, _From, Test) -> {reply, catch Question(self()), Test}.

handle_cast(Message, Test) -> Test ! {cast, Message}, {noreply, Test}.

handle_info(Message, Test) -> Test ! {info, Message}, {noreply, Test}.

handle_continue({reply, From}, Test) -> gen_server:reply(From, continued), {noreply, Test};
handle_continue(Argument, Test) -> Test ! {continue, Argument}, {noreply, Test}.

terminate(Reason, Test) -> Test ! {terminate, Reason}.

format_status(#{state := Test} = Status) -> Status#{state := {formatted, Test}}.
