%% @private
%% @doc What an interpreter tells about its memory, and what it does about it and its modules.
-module(py_memory).

-export([stats/1, gc/2, trace/2, end_trace/1, top/2, reload/2]).

-define(PYTHON(Function), {<<"erlang._introspection">>, Function}).
%% How many frames of a trace Python takes.
-define(FRAMES, 65535).

%% @doc Figures of the interpreter and of this node.
-spec stats(py_object:options()) -> {ok, #{atom() => term()}} | {error, term()}.
stats(Options) ->
    py_object:call(?PYTHON(<<"memory_stats">>), [], Options).

%% @doc Collects garbage.
-spec gc(0..2, py_object:options()) -> {ok, non_neg_integer()} | {error, term()}.
gc(Generation, Options) when is_integer(Generation), Generation >= 0, Generation =< 2 ->
    py_object:call({<<"gc">>, <<"collect">>}, [Generation], Options);
gc(Generation, _Options) ->
    py_call:badarg("gc needs a generation from 0 to 2, not ~tP", [Generation, 8]).

%% @doc Begins to trace memory.
-spec trace(pos_integer(), py_object:options()) -> ok | {error, term()}.
trace(Frames, Options) when is_integer(Frames), Frames > 0, Frames =< ?FRAMES ->
    done(py_object:call({<<"tracemalloc">>, <<"start">>}, [Frames], Options));
trace(Frames, _Options) ->
    py_call:badarg("tracemalloc_start needs a number of frames from 1 to ~b, not ~tP", [?FRAMES, Frames, 8]).

%% @doc Ends that.
-spec end_trace(py_object:options()) -> ok | {error, term()}.
end_trace(Options) ->
    done(py_object:call({<<"tracemalloc">>, <<"stop">>}, [], Options)).

%% @doc The lines whose memory is largest.
-spec top(pos_integer(), py_object:options()) -> {ok, [map()]} | {error, term()}.
top(Number, Options) when is_integer(Number), Number > 0 ->
    py_object:call(?PYTHON(<<"tracemalloc_top">>), [Number], Options);
top(Number, _Options) ->
    py_call:badarg("tracemalloc_top needs a number from 1, not ~tP", [Number, 8]).

%% @doc Loads a module again.
-spec reload(py:name(), py_object:options()) -> ok | {error, term()}.
reload(Module, Options) ->
    case py_call:text(Module) of
        {ok, Name} -> done(py_object:call(?PYTHON(<<"reload">>), [Name], Options));
        error -> py_call:badarg("the name of a module is an atom, a string or a binary in UTF-8, not ~tP", [Module, 8])
    end.

done({ok, none}) -> ok;
done(Error) -> Error.
