%% @private
%% @doc Byte channels in the place of who reads what a program writes.
-module(causeway_process_sinks).

-export([add/3, is_ready/2, send/3, told/2, is_waiting/1, close/2, end_all/2]).
-export_type([sinks/0]).

%% With what the core calls who waits to send, and the message by which it tells that there is room.
-type sinks() :: #{stdout | stderr => {py_byte_channel:channel(), ready | {Waiter :: reference(), Tag :: reference()}}}.

%% @doc Has an output go to a channel.
-spec add(stdout | stderr, py_byte_channel:channel(), sinks()) -> sinks().
add(Which, Channel, Sinks) -> Sinks#{Which => {Channel, ready}}.

%% @doc Whether the channel of an output takes more.
-spec is_ready(stdout | stderr, sinks()) -> boolean().
is_ready(Which, Sinks) ->
    #{Which := {_Channel, Has}} = Sinks,
    Has =:= ready.

%% @doc Sends what was read. What the channel has no room for waits in it. `ended': nobody wants it any more.
-spec send(stdout | stderr, binary(), sinks()) -> {ok | ended, sinks()}.
send(Which, Data, Sinks) ->
    #{Which := {Channel, ready}} = Sinks,
    case causeway_nif:channel_send(Channel, Data) of
        busy ->
            Tag = make_ref(),
            case causeway_nif:channel_wait(Channel, Data, Tag) of
                Waiter when is_reference(Waiter) -> {ok, Sinks#{Which := {Channel, {Waiter, Tag}}}};
                Outcome -> outcome(Outcome, Which, Channel, Sinks)
            end;
        Outcome ->
            outcome(Outcome, Which, Channel, Sinks)
    end.

%% @doc The message that there was room, or that the channel has ended; `none' where it is none of these.
-spec told(reference(), sinks()) -> {ok | ended, stdout | stderr, sinks()} | none.
told(Tag, Sinks) ->
    case [{Which, Channel, Waiter} || {Which, {Channel, {Waiter, Known}}} <- maps:to_list(Sinks), Known =:= Tag] of
        [{Which, Channel, Waiter}] ->
            {Outcome, After} = outcome(causeway_nif:channel_finish(Waiter), Which, Channel, Sinks),
            {Outcome, Which, After};
        [] ->
            none
    end.

outcome(ok, Which, Channel, Sinks) -> {ok, Sinks#{Which := {Channel, ready}}};
outcome(_Ended, Which, _Channel, Sinks) -> {ended, maps:remove(Which, Sinks)}.

%% @doc Whether there is something that was read and no channel has taken.
-spec is_waiting(sinks()) -> boolean().
is_waiting(Sinks) ->
    [] =/= [waits || {_Channel, {_Waiter, _Tag}} <- maps:values(Sinks)].

%% @doc The end of an output.
-spec close(stdout | stderr, sinks()) -> sinks().
close(Which, Sinks) ->
    case Sinks of
        #{Which := {Channel, _}} -> ok = py_byte_channel:close(Channel);
        #{} -> ok
    end,
    maps:remove(Which, Sinks).

%% @doc The end of all: with `ok' those who receive have got everything.
-spec end_all(ok | term(), sinks()) -> ok.
end_all(Outcome, Sinks) ->
    lists:foreach(fun({Channel, _}) when Outcome =:= ok -> ok = py_byte_channel:close(Channel);
                     ({Channel, _}) -> ok = py_byte_channel:abort(Channel, Outcome)
                  end, maps:values(Sinks)).
