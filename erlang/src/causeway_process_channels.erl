%% @private
%% @doc Byte channels in the place of who writes to a program or reads from it.
-module(causeway_process_channels).

-export([streaming/3, over/2, offered/3, channels_over/2]).

-include("causeway_process_state.hrl").

%% @doc A channel takes the place of who writes or reads.
-spec streaming(stdin | stdout | stderr, py_byte_channel:channel(), #state{}) -> #state{}.
streaming(stdin, Channel, State) ->
    causeway_process_input:fed(State#state{source = {Channel, ready}});
streaming(Which, Channel, State) ->
    Streaming = State#state{sinks = causeway_process_sinks:add(Which, Channel, State#state.sinks)},
    case causeway_process_output:output(Which, State) of
        eof -> over(Which, Streaming);
        _ -> Streaming
    end.

%% @doc The end of an output. A guardian that was killed was so before: then it is aborted with the others.
-spec over(stdout | stderr, #state{}) -> #state{}.
over(Which, #state{sinks = Sinks} = State) when is_map_key(Which, Sinks) ->
    case causeway_process_ending:told(State) of
        #state{ending = lost} = Lost -> causeway_process_output:set(Which, eof, Lost);
        Told -> causeway_process_output:set(Which, eof, Told#state{sinks = causeway_process_sinks:close(Which, Sinks)})
    end;
over(Which, State) ->
    causeway_process_output:set(Which, eof, State).

%% @doc After some was sent.
-spec offered({ok | ended, causeway_process_sinks:sinks()}, stdout | stderr, #state{}) -> #state{}.
offered({ok, Sinks}, _Which, State) ->
    State#state{sinks = Sinks};
offered({ended, Sinks}, Which, #state{native = Native} = State) ->
    ok = causeway_nif:process_close_output(Native, Which),
    causeway_process_output:set(Which, eof, State#state{sinks = Sinks}).

%% @doc The end of all of them: those who receive learn whether they have got all.
-spec channels_over(term(), #state{}) -> #state{}.
channels_over(Outcome, #state{sinks = Sinks} = State) ->
    ok = causeway_process_sinks:end_all(Outcome, Sinks),
    causeway_process_input:source_over(epipe, State#state{sinks = #{}}).
