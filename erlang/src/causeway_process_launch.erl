%% @private
%% @doc Starts a program: by the helper, which may have to be started first, and waits for what its guardian tells.
-module(causeway_process_launch).

-export([start/1]).

%% How often, and for how many milliseconds each time, a helper is waited for that is behind.
-define(TRIES, 10000).

%% @doc Starts it for the calling process.
-spec start(causeway_process_options:request()) -> {ok, causeway_nif:process(), pos_integer()} | {error, term()}.
start(Request) ->
    start(Request, ?TRIES).

start(Request, Tries) ->
    case process_open(Request) of
        {ok, Native} ->
            answered(Native);
        gone ->
            case causeway_process_helper:start() of
                ok when Tries > 0 -> start(Request, Tries - 1);
                ok -> {error, {helper, epipe, <<"the helper causeway-spawn ends as soon as it is started">>}};
                {error, _} = Error -> Error
            end;
        busy when Tries > 0 ->
            %% It starts some thousand programs a second, and cannot tell when it has room again.
            receive after 1 -> start(Request, Tries - 1) end;
        busy ->
            {error, {helper, eagain, <<"the helper causeway-spawn does not get on">>}};
        {error, Reason} ->
            {error, {start, Reason, <<"there is no pipe or descriptor left">>}};
        badarg ->
            {error, {badarg, <<"the options do not fit together">>}}
    end.

process_open(Request) ->
    try
        causeway_nif:process_open(Request)
    catch
        %% The application has never run in this node.
        error:not_loaded -> gone
    end.

answered(Native) ->
    case causeway_nif:process_event(Native) of
        {started, Pid} -> {ok, Native, Pid};
        wait -> receive {causeway_process, control} -> answered(Native) end;
        {failed, exec, Reason, <<>>} -> {error, Reason};
        {failed, Step, Reason, Detail} -> {error, {Step, Reason, why(Step, Reason, Detail)}};
        _Lost -> {error, {helper, epipe, <<"the guardian of the program was killed">>}}
    end.

why(Step, Reason, <<>>) -> py_call:error_text("~ts: ~ts", [Step, file:format_error(Reason)]);
why(_Step, Reason, Detail) -> <<Detail/binary, ": ", (unicode:characters_to_binary(file:format_error(Reason)))/binary>>.
