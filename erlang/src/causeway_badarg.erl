%% @private
%% @doc Errors of wrong arguments that look as those of a function that is built in, each with a text by argument.
-module(causeway_badarg).

-export([raise/4, format_error/2]).

%% @doc Raises `badarg' as the error of the function of a module that was called.
-spec raise(module(), atom(), [term()], #{pos_integer() => binary()}) -> no_return().
raise(Module, Function, Arguments, Texts) ->
    {current_stacktrace, Stack} = process_info(self(), current_stacktrace),
    Inside = [?MODULE, Module, erlang],
    Callers = lists:dropwhile(fun({Caller, _, _, _}) -> lists:member(Caller, Inside) end, Stack),
    Info = [{error_info, #{module => ?MODULE, cause => Texts}}],
    erlang:raise(error, badarg, [{Module, Function, Arguments, Info} | Callers]).

%% @doc What the shell and logger print of such an error, argument by argument.
-spec format_error(term(), erlang:stacktrace()) -> #{pos_integer() => binary()}.
format_error(_Reason, [{_Module, _Function, _Arguments, Info} | _]) ->
    case proplists:get_value(error_info, Info, #{}) of
        #{cause := #{} = Texts} -> Texts;
        _ -> #{}
    end.
