%% @doc What the suites of output and logging share: the test as group leader, and as handler of logger. What is sent to
%% it is in its mailbox in the order of arrival.
-module(output_ct).

-export([printed/1, caller/1, caller/2, rest/1, next_text/0, waiting_texts/0, with_leader/2, for_the_application/1]).
-export([log_to_me/0, log_to/1, stop_logging/1, log/2, event/0, text/1]).

%% @doc What a function returns in a process of its own, and what was printed before it did.
-spec printed(fun(() -> Result)) -> {Result, [binary()]}.
printed(Fun) ->
    rest(caller(Fun)).

%% @doc A process whose group leader the calling one is: it sends what the function returns, and ends.
-spec caller(fun(() -> term())) -> pid().
caller(Fun) ->
    caller(Fun, self()).

%% @doc The same with another group leader.
-spec caller(fun(() -> term()), pid()) -> pid().
caller(Fun, Leader) ->
    Test = self(),
    {Caller, _Monitor} = spawn_monitor(fun() ->
                                               group_leader(Leader, self()),
                                               Answer = Fun(),
                                               Test ! {answer, self(), Answer}
                                       end),
    Caller.

%% @doc What such a process has returned, and what was printed up to then. What comes later is found by the next who looks.
-spec rest(pid()) -> {term(), [binary()]}.
rest(Caller) ->
    rest(Caller, []).

rest(Caller, Pieces) ->
    receive
        {io_request, From, Reference, {put_chars, unicode, Text}} ->
            From ! {io_reply, Reference, ok},
            rest(Caller, [Text | Pieces]);
        {answer, Caller, Answer} ->
            receive {'DOWN', _, process, Caller, normal} -> ok end,
            {Answer, lists:reverse(Pieces)}
    after 30000 -> error({no_answer, causeway_ct:mailbox()})
    end.

%% @doc The next text that is printed.
-spec next_text() -> binary().
next_text() ->
    receive
        {io_request, From, Reference, {put_chars, unicode, Text}} ->
            From ! {io_reply, Reference, ok},
            Text
    after 20000 -> error({nothing_printed, causeway_ct:mailbox()})
    end.

%% @doc The texts that are in the mailbox, with whom to reply to.
-spec waiting_texts() -> [{pid(), term(), binary()}].
waiting_texts() ->
    receive
        {io_request, From, Reference, {put_chars, unicode, Text}} -> [{From, Reference, Text} | waiting_texts()]
    after 0 -> []
    end.

%% @doc Runs a function with another group leader.
-spec with_leader(pid(), fun(() -> Result)) -> Result.
with_leader(Leader, Fun) ->
    Before = group_leader(),
    group_leader(Leader, self()),
    try Fun() after group_leader(Before, self()) end.

%% @doc Runs a function; the calling process is the group leader of the application meanwhile.
-spec for_the_application(fun(() -> Result)) -> {ok, Result}.
for_the_application(Fun) ->
    Output = whereis(py_output),
    {group_leader, Before} = process_info(Output, group_leader),
    group_leader(self(), Output),
    try {ok, Fun()} after group_leader(Before, Output) end.

%% @doc What Python logs comes to the calling process.
-spec log_to_me() -> ok.
log_to_me() ->
    Test = self(),
    log_to(fun(Event) -> Test ! {event, Event}, ok end).

%% @doc The same for a function, which the logging process calls.
-spec log_to(fun((logger:log_event()) -> term())) -> ok.
log_to(Fun) ->
    logger:add_handler(?MODULE, ?MODULE, #{config => #{with => Fun}}).

%% @doc For end_per_testcase.
-spec stop_logging(list()) -> ok.
stop_logging(_Config) ->
    _ = logger:remove_handler(?MODULE),
    logger:set_primary_config(level, notice).

%% @doc As a handler of logger.
-spec log(logger:log_event(), map()) -> term().
log(#{meta := #{domain := [causeway, python]}} = Event, #{config := #{with := Fun}}) -> Fun(Event);
log(_Event, _Config) -> ok.

%% @doc The next event.
-spec event() -> logger:log_event().
event() ->
    receive {event, Event} -> Event after 20000 -> error({no_event, causeway_ct:mailbox()}) end.

%% @doc The text of a message of logger.
-spec text(term()) -> string() | binary().
text({report, Report}) -> io_lib:format("~tp", [Report]);
text({string, Text}) -> Text;
text({Format, Arguments}) -> lists:flatten(io_lib:format(Format, Arguments)).
