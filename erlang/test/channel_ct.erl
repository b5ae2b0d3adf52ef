%% @doc What the suites of byte channels share: those who wait, in either language.
-module(channel_ct).

-export([stop/1, new/0, new/1, fill/2, waiting/3, receiver/3, sender/4, kinds/0, outcome/1, drain/1, settled/2, in_process/1]).
-export([context/1, modes/0, python/0]).

-define(HELPERS, channel_helpers).

%% @doc For end_per_suite.
-spec stop(list()) -> ok.
stop(Config) ->
    ok = causeway_ct:start(),
    {ok, none} = py:call(?HELPERS, end_loop, []),
    causeway_ct:stop(Config).

%% @doc A channel.
-spec new() -> py_byte_channel:channel().
new() -> new(0).

%% @doc A channel with a limit.
-spec new(non_neg_integer()) -> py_byte_channel:channel().
new(Size) ->
    {ok, Channel} = py_byte_channel:new(#{max_size => Size}),
    Channel.

%% @doc Sends messages.
-spec fill(py_byte_channel:channel(), [iodata()]) -> ok.
fill(Channel, Messages) ->
    lists:foreach(fun(Message) -> ok = py_byte_channel:send(Channel, Message) end, Messages).

%% @doc Waits until so many receivers and senders wait.
-spec waiting(py_byte_channel:channel(), non_neg_integer(), non_neg_integer()) -> ok.
waiting(Channel, Receivers, Senders) ->
    causeway_ct:wait_until(fun() ->
                                   #{waiting_receivers := R, waiting_senders := S} = py_byte_channel:info(Channel),
                                   {R, S} =:= {Receivers, Senders}
                           end).

%% @doc Those who can wait for a channel.
-spec kinds() -> [erlang | thread | task].
kinds() -> [erlang, thread, task].

%% @doc Begins to receive. Returns when it waits; {@link outcome/1} tells what came of it.
-spec receiver(erlang | thread | task, term(), py_byte_channel:channel()) -> pid() | ok.
receiver(Kind, Name, Channel) ->
    #{waiting_receivers := Before, waiting_senders := Senders} = py_byte_channel:info(Channel),
    Receiver = receive_as(Kind, Name, Channel),
    ok = waiting(Channel, Before + 1, Senders),
    Receiver.

receive_as(erlang, Name, Channel) -> tell(Name, fun() -> py_byte_channel:recv(Channel) end);
receive_as(thread, Name, Channel) -> call(thread_receives, [self(), Name, Channel]);
receive_as(task, Name, Channel) -> call(task_receives, [self(), Name, Channel]).

%% @doc Begins to send where there is no room, in the same way.
-spec sender(erlang | thread | task, term(), py_byte_channel:channel(), binary()) -> pid() | ok.
sender(Kind, Name, Channel, Message) ->
    #{waiting_receivers := Receivers, waiting_senders := Before} = py_byte_channel:info(Channel),
    Sender = send_as(Kind, Name, Channel, Message),
    ok = waiting(Channel, Receivers, Before + 1),
    Sender.

send_as(erlang, Name, Channel, Message) -> tell(Name, fun() -> py_byte_channel:send(Channel, Message, infinity) end);
send_as(thread, Name, Channel, Message) -> call(thread_sends, [self(), Name, Channel, {bytes, Message}]);
send_as(task, Name, Channel, Message) -> call(task_sends, [self(), Name, Channel, {bytes, Message}]).

call(Function, Arguments) ->
    {ok, none} = py:call(?HELPERS, Function, Arguments),
    ok.

tell(Name, Fun) ->
    Test = self(),
    spawn(fun() -> Test ! {Name, in_words(Fun())} end).

%% Erlang's outcomes in the form that those of Python have.
in_words({ok, Message}) -> Message;
in_words(ok) -> true;
in_words({error, closed}) -> {<<"ByteChannelClosed">>, <<"the channel is closed">>};
in_words({error, {aborted, Reason}}) ->
    {<<"ByteChannelAborted">>, iolist_to_binary(io_lib:format("the channel was aborted: ~p", [Reason]))}.

%% @doc What came of a receiver or sender.
-spec outcome(term()) -> term().
outcome(Name) ->
    receive {Name, Outcome} -> Outcome
    after 30000 -> error({no_outcome_of, Name, causeway_ct:mailbox()})
    end.

%% @doc What is queued.
-spec drain(py_byte_channel:channel()) -> [binary()].
drain(Channel) ->
    case py_byte_channel:try_receive(Channel) of
        {ok, Message} -> [Message | drain(Channel)];
        {error, _} -> []
    end.

%% @doc Waits until what was kept for receivers that are gone is back: so many messages are queued, nobody waits.
-spec settled(py_byte_channel:channel(), non_neg_integer()) -> ok.
settled(Channel, Messages) ->
    causeway_ct:wait_until(fun() ->
                                   Info = py_byte_channel:info(Channel),
                                   {Messages, 0, 0} =:= {maps:get(messages, Info), maps:get(waiting_receivers, Info),
                                                         maps:get(waiting_senders, Info)}
                           end).

%% @doc Runs a fun in a process of its own, which is gone with all that it referred to when this returns.
-spec in_process(fun(() -> Result)) -> Result.
in_process(Fun) ->
    Test = self(),
    {Process, Monitor} = spawn_monitor(fun() -> Test ! {self(), Fun()} end),
    receive
        {Process, Result} -> receive {'DOWN', Monitor, process, Process, _} -> Result end;
        {'DOWN', Monitor, process, Process, Reason} -> error(Reason)
    end.

%% @doc A context of some mode which finds the helper modules.
-spec context(py_context:mode()) -> pid().
context(Mode) ->
    Setup = ["import sys\nif '", causeway_ct:python_dir(), "' not in sys.path: sys.path.insert(0, '",
             causeway_ct:python_dir(), "')\n"],
    {ok, Context} = py_context:start_link(#{mode => Mode, setup_code => Setup}),
    Context.

%% @doc The modes that this Python has.
-spec modes() -> [py_context:mode()].
modes() ->
    [worker, subinterp] ++ [owngil || python() >= [3, 12]].

%% @doc The version of the Python that the tests use.
-spec python() -> [non_neg_integer()].
python() ->
    {ok, #{version := [Major, Minor | _]}} = causeway_python:find(),
    [Major, Minor].
