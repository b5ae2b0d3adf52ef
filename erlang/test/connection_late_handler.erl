%% @doc A handler of packet connections that lets another process answer, without a state of its own.
-module(connection_late_handler).

-behaviour(causeway_packet_connection).

-export([handle_request/5]).

handle_request(_Type, 0, Payload, From, Argument) ->
    spawn(fun() -> ok = causeway_packet_connection:reply(From, io_lib:format("~p ~s", [Argument, Payload])) end),
    noreply.
