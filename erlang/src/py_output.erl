%% @private
%% @doc What Python prints, on its way to group leaders and to logger.
%%
%% Every text has a destination: the group leader of the process on whose behalf it was printed, or the
%% logging process. A destination has a limit of bytes that it has not replied to; what is beyond waits here.
%% A thread of Python that is far ahead waits for us, so that not much can wait. Where a destination replies
%% to nothing for some seconds, as one that waits for this very call of Python, what waits for it is thrown
%% away, and so is what comes until it has replied again.
-module(py_output).

-behaviour(gen_server).

-export([start_link/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

%% How many bytes a destination may be behind.
-define(LIMIT, 131072).
%% How long, in milliseconds, one that is so far behind may reply to nothing.
-define(PATIENCE, 5000).

-record(destination,
        {bytes = 0 :: non_neg_integer(),
         requests = #{} :: #{reference() => non_neg_integer()},
         %% Requests and tickets that wait, in their order.
         queue = queue:new() :: queue:queue(),
         timer :: reference() | undefined,
         %% How many bytes were thrown away; undefined where none are.
         lost :: non_neg_integer() | undefined}).

%% @doc Starts the process.
-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @private
init([]) ->
    %% Messages that wait are garbage soon.
    {ok, #{}}.

%% @private
handle_call(_Request, _From, Destinations) ->
    {reply, {error, unknown_request}, Destinations}.

%% @private
handle_cast(_Request, Destinations) ->
    {noreply, Destinations}.

%% @private
handle_info({causeway, {output, {Process, Text}}}, Destinations) ->
    {noreply, request(leader(Process), {put_chars, unicode, Text}, byte_size(Text), Destinations)};
handle_info({causeway, {Kind, {Process, Context, Content}}}, Destinations) when Kind =:= stderr; Kind =:= log ->
    Event = {Kind, Process, Context, Content},
    {noreply, request(whereis(py_logger), Event, erlang:external_size(Content), Destinations)};
handle_info({causeway, {sync, {log, Ticket}}}, Destinations) ->
    {noreply, confirm(whereis(py_logger), Ticket, Destinations)};
handle_info({causeway, {sync, {Process, Ticket}}}, Destinations) ->
    {noreply, confirm(leader(Process), Ticket, Destinations)};
handle_info({io_reply, {Pid, Reference}, _Result}, Destinations) ->
    case Destinations of
        #{Pid := #destination{requests = #{Reference := _}} = Destination} ->
            {noreply, Destinations#{Pid := replied(Pid, Reference, Destination)}};
        #{} ->
            {noreply, Destinations}
    end;
handle_info({timeout, Timer, Pid}, Destinations) ->
    case Destinations of
        #{Pid := #destination{timer = Timer} = Destination} ->
            {noreply, warn(Pid, Destinations#{Pid := give_up(Destination)})};
        #{} ->
            {noreply, Destinations}
    end;
handle_info({'DOWN', _Monitor, process, Pid, _Reason}, Destinations) ->
    case maps:take(Pid, Destinations) of
        {Destination, Rest} ->
            _ = give_up(Destination),
            {noreply, Rest};
        error ->
            {noreply, Destinations}
    end;
handle_info(_Message, Destinations) ->
    {noreply, Destinations}.

%% Of a process that has ended, and of a thread that runs on behalf of none, it is that of the application.
leader(Process) when is_pid(Process) ->
    case process_info(Process, group_leader) of
        {group_leader, Leader} -> Leader;
        undefined -> group_leader()
    end;
leader(undefined) ->
    group_leader().

request(undefined, _Request, _Size, Destinations) ->
    Destinations;
request(Pid, Request, Size, Destinations) ->
    Destinations#{Pid => add(Pid, Request, Size, destination(Pid, Destinations))}.

destination(Pid, Destinations) ->
    case Destinations of
        #{Pid := Destination} ->
            Destination;
        #{} ->
            _ = erlang:monitor(process, Pid),
            #destination{}
    end.

add(Pid, Request, Size, #destination{bytes = Bytes, lost = Lost} = Destination) ->
    Waits = not queue:is_empty(Destination#destination.queue),
    if
        Lost =/= undefined -> Destination#destination{lost = Lost + Size};
        Waits; Bytes > 0, Bytes + Size > ?LIMIT -> wait(Pid, {Request, Size}, Destination);
        true -> send(Pid, Request, Size, Destination)
    end.

wait(Pid, Item, #destination{queue = Queue, timer = Timer} = Destination) ->
    Destination#destination{queue = queue:in(Item, Queue),
                            timer = case Timer of
                                        undefined -> erlang:start_timer(?PATIENCE, self(), Pid);
                                        _ -> Timer
                                    end}.

send(Pid, Request, Size, #destination{bytes = Bytes, requests = Requests} = Destination) ->
    Reference = make_ref(),
    %% Another node may be gone, or slow: nobody here waits for it.
    case erlang:send(Pid, {io_request, self(), {Pid, Reference}, Request}, [noconnect, nosuspend]) of
        ok -> Destination#destination{bytes = Bytes + Size, requests = Requests#{Reference => Size}};
        _ -> Destination
    end.

%% Answers a ticket when all that was written before is passed on.
confirm(Pid, Ticket, Destinations) ->
    case Destinations of
        #{Pid := #destination{queue = Queue} = Destination} ->
            case queue:is_empty(Queue) of
                true ->
                    taken(Ticket, Destinations);
                false ->
                    Destinations#{Pid := Destination#destination{queue = queue:in(Ticket, Queue)}}
            end;
        #{} ->
            taken(Ticket, Destinations)
    end.

taken(Ticket, Result) ->
    ok = causeway_nif:output_taken(Ticket),
    Result.

replied(Pid, Reference, #destination{bytes = Bytes, requests = Requests} = Destination) ->
    {Size, Rest} = maps:take(Reference, Requests),
    Caught = caught_up(Destination#destination{bytes = Bytes - Size, requests = Rest}),
    resume(Pid, stop_timer(Caught)).

caught_up(#destination{lost = Lost, bytes = Bytes} = Destination) when Lost =/= undefined, Bytes =< ?LIMIT div 2 ->
    log(notice, "~b bytes that Python had printed were thrown away: their group leader did not reply", [Lost]),
    Destination#destination{lost = undefined};
caught_up(Destination) ->
    Destination.

stop_timer(#destination{timer = undefined} = Destination) ->
    Destination;
stop_timer(#destination{timer = Timer} = Destination) ->
    _ = erlang:cancel_timer(Timer),
    Destination#destination{timer = undefined}.

%% Passes on what has room now.
resume(Pid, #destination{bytes = Bytes, queue = Queue} = Destination) ->
    case queue:peek(Queue) of
        empty ->
            Destination;
        {value, {Request, Size}} when Bytes =:= 0; Bytes + Size =< ?LIMIT ->
            resume(Pid, send(Pid, Request, Size, Destination#destination{queue = queue:drop(Queue)}));
        {value, {_Request, _Size}} ->
            Destination#destination{timer = erlang:start_timer(?PATIENCE, self(), Pid)};
        {value, Ticket} ->
            resume(Pid, taken(Ticket, Destination#destination{queue = queue:drop(Queue)}))
    end.

give_up(#destination{queue = Queue} = Destination) ->
    Lost = lists:foldl(fun({_Request, Size}, Sum) -> Sum + Size;
                          (Ticket, Sum) -> taken(Ticket, Sum)
                       end, 0, queue:to_list(Queue)),
    Destination#destination{queue = queue:new(), timer = undefined, lost = Lost}.

warn(Pid, Destinations) ->
    log(warning, "~p takes none of what Python prints: it is thrown away until it does", [Pid]),
    Destinations.

%% By the process that may wait for logger.
log(Level, Format, Arguments) ->
    py_logger:log(Level, Format, Arguments).
