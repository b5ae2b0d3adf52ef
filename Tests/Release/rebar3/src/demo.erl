%% @doc Uses of causeway what is in its folder priv: the libraries, the Python package, the helper of programs, and the
%% library once more for processes of multiprocessing.
-module(demo).

-export([check/0]).

check() ->
    {ok, 4.0} = py:call(math, sqrt, [16]),
    {ok, #{exit := normal, stdout := <<"hi\n">>}} = causeway_process_stream:run(echo, [hi]),
    ok = py:exec("
import multiprocessing

with multiprocessing.Pool(1) as pool:
    three = pool.apply(abs, [-3])
"),
    {ok, 3} = py:eval("three"),
    {ok, Version} = application:get_key(causeway, vsn),
    {ok, [Python, Package]} = py:eval("[__import__('sys').executable, __import__('erlang').__file__]"),
    io:format("demo:~ts:~ts:~ts~n", [Version, Python, Package]).
