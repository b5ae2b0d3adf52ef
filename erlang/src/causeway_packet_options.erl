%% @private
%% @doc The options of packet connections.
-module(causeway_packet_options).

-export([check/1]).

-define(MB, 1048576).

%% @doc All options, with what stands for those that are not given.
-spec check(term()) -> {ok, map()} | {error, {badarg, binary()}}.
check(Options) when is_map(Options) ->
    case [Option || Option <- maps:to_list(Options), not is_option(Option)] of
        [] -> {ok, maps:merge(defaults(), Options)};
        Wrong -> {error, {badarg, py_call:error_text("wrong options of a packet connection: ~tP", [Wrong, 12])}}
    end;
check(Options) ->
    {error, {badarg, py_call:error_text("the options of a packet connection are a map, not ~tP", [Options, 8])}}.

defaults() ->
    #{handler => undefined,
      workers => 16,
      owner => undefined,
      taker => undefined,
      max_packet => 64 * ?MB,
      max_outstanding => 65536,
      max_waiting => 65536,
      send_window => 4 * ?MB,
      max_requests => 1024,
      receive_window => 64 * ?MB,
      timeout => infinity,
      answer_timeout => infinity,
      send_timeout => 30000,
      keepalive => infinity,
      drain => 5000}.

is_option({handler, Handler}) -> causeway_packet_handler:is_handler(Handler);
is_option({workers, Number}) -> is_integer(Number) andalso Number >= 0;
is_option({owner, Pid}) -> is_pid(Pid);
%% For causeway_rpc_connection: see causeway_packet_serving:passed_on/3.
is_option({taker, Pid}) -> is_pid(Pid);
is_option({name, Name}) ->
    case Name of
        {local, Atom} -> is_atom(Atom) andalso Atom =/= undefined;
        {global, _} -> true;
        {via, Module, _} -> is_atom(Module);
        _ -> false
    end;
is_option({max_packet, Bytes}) -> is_integer(Bytes) andalso Bytes >= 64 andalso Bytes < 1 bsl 40;
is_option({Name, Number}) when Name =:= max_outstanding; Name =:= max_waiting; Name =:= max_requests;
                               Name =:= send_window; Name =:= receive_window ->
    Number =:= infinity orelse is_integer(Number) andalso Number > 0;
is_option({timeout, Time}) -> is_time(Time);
is_option({drain, Time}) -> is_time(Time);
is_option({answer_timeout, Time}) -> is_time(Time);
is_option({Name, Time}) when Name =:= send_timeout; Name =:= keepalive -> is_time(Time) andalso Time > 0;
is_option(_Other) -> false.

is_time(infinity) -> true;
is_time(Time) -> is_integer(Time) andalso Time >= 0 andalso Time < 1 bsl 32.
