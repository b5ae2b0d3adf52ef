%% @doc A supervisor of packet connections.
-module(connection_sup).

-behaviour(supervisor).

-export([init/1]).

init(Arguments) ->
    {ok, {#{strategy => one_for_one}, [causeway_packet_connection:child_spec(Each) || Each <- Arguments]}}.
