%% @doc A handler of packet connections with a state.
-module(connection_handler).

-behaviour(causeway_packet_connection).

-export([init/1, handle_request/4, handle_end/2]).

init({Test, State}) -> {ok, {Test, State}};
init(refuse) -> {stop, refused}.

handle_request(Type, Flags, Payload, {_Test, State}) ->
    {Flags, [atom_to_list(State), " ", integer_to_list(Type), " ", Payload]}.

handle_end(Why, {Test, _State}) ->
    Test ! {ended, Why}.
