%% @private
%% @doc Runs a program to its end, in the calling process.
-module(causeway_process_run).

-export([run/3]).

-define(MAX_OUTPUT, 67108864).

-record(run, {handle :: pid(), deadline :: integer() | infinity, room :: integer(),
              stdout = [] :: [binary()], stderr = [] :: [binary()]}).

%% @doc See {@link causeway_process_stream:run/3}.
-spec run(term(), term(), term()) -> {ok, causeway_process_stream:output()} | {error, term()}.
run(Command, Arguments, Options) ->
    {Input, Options1} = causeway_process_options:take(input, <<>>, Options),
    {Timeout, Options2} = causeway_process_options:take(run_timeout, infinity, Options1),
    {MaxOutput, Options3} = causeway_process_options:take(max_output, ?MAX_OUTPUT, Options2),
    case check(Input, Timeout, MaxOutput) of
        ok -> open(Command, Arguments, Options3, Input, deadline(Timeout), MaxOutput);
        {error, _} = Error -> Error
    end.

check(Input, Timeout, MaxOutput) ->
    try iolist_size(Input) of
        _ when Timeout =:= infinity orelse is_integer(Timeout) andalso Timeout >= 0,
               is_integer(MaxOutput), MaxOutput >= 0 -> ok;
        _ -> py_call:badarg("run_timeout must be in milliseconds or infinity, and max_output in bytes, not ~tP and ~tP",
                            [Timeout, 9, MaxOutput, 9])
    catch
        error:_ -> py_call:badarg("input must be a binary or other iodata, not ~tP", [Input, 9])
    end.

deadline(infinity) -> infinity;
deadline(Timeout) -> erlang:monotonic_time(millisecond) + Timeout.

open(Command, Arguments, Options, Input, Deadline, MaxOutput) ->
    case causeway_process:open(Command, Arguments, causeway_process_options:with(mode, passive, Options)) of
        {ok, Handle} ->
            Handle ! {self(), {command, Input}},
            _ = causeway_process_stream:close_stdin(Handle),
            collect(#run{handle = Handle, deadline = Deadline, room = MaxOutput});
        {error, _} = Error ->
            Error
    end.

collect(#run{handle = Handle, room = Room} = Run) ->
    case causeway_process_stream:recv(Handle, left(Run)) of
        {ok, Which, Data} when byte_size(Data) > Room -> give_up(too_much, add(Which, binary:part(Data, 0, Room), Run));
        {ok, Which, Data} -> collect(add(Which, Data, Run));
        {exit, Reason} -> tidy(Run), {ok, (output(Run))#{exit => Reason}};
        {error, timeout} -> give_up(timeout, Run);
        {error, closed} -> tidy(Run), {error, {closed, output(Run)}}
    end.

add(stdout, Data, #run{room = Room, stdout = Output} = Run) -> Run#run{room = Room - byte_size(Data), stdout = [Data | Output]};
add(stderr, Data, #run{room = Room, stderr = Error} = Run) -> Run#run{room = Room - byte_size(Data), stderr = [Data | Error]}.

left(#run{deadline = infinity}) -> infinity;
left(#run{deadline = Deadline}) -> max(0, Deadline - erlang:monotonic_time(millisecond)).

give_up(Why, #run{handle = Handle} = Run) ->
    Monitor = erlang:monitor(process, Handle),
    ok = causeway_process_stream:close(Handle),
    receive {'DOWN', Monitor, process, Handle, _} -> ok end,
    tidy(Run),
    {error, {Why, output(Run)}}.

output(#run{stdout = Output, stderr = Error}) ->
    #{stdout => iolist_to_binary(lists:reverse(Output)), stderr => iolist_to_binary(lists:reverse(Error))}.

%% Nothing is left in the mailbox.
tidy(#run{handle = Handle} = Run) ->
    unlink(Handle),
    receive
        {Handle, _} -> tidy(Run);
        {'EXIT', Handle, _} -> tidy(Run)
    after 0 -> ok
    end.
