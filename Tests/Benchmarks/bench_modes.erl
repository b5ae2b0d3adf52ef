%% @doc What contexts with a lock of their own are for: Python code that computes, on all cores.
-module(bench_modes).

-export([benchmarks/0]).

%% @doc The benchmarks of this module.
-spec benchmarks() -> [bench:benchmark()].
benchmarks() ->
    [owngil_parallel()].

%% The same pure Python computation in one context, and in two at once.
owngil_parallel() ->
    #{name => owngil_parallel,
      unit => "calls/s",
      peers => fun() ->
          case py_context:start_link(#{mode => owngil}) of
              {ok, First} ->
                  {ok, Second} = py_context:start_link(#{mode => owngil}),
                  [{one, rate([First])}, {two, rate([First, Second])}];
              {error, {unsupported, Text}} ->
                  exit({unavailable, Text})
          end
      end}.

%% Calls per second of one caller for each context, which stays with it.
rate(Contexts) ->
    Callers = atomics:new(1, []),
    Context = fun() ->
        case get(?MODULE) of
            undefined ->
                Number = atomics:add_get(Callers, 1, 1),
                Mine = lists:nth(1 + Number rem length(Contexts), Contexts),
                put(?MODULE, Mine),
                Mine;
            Mine ->
                Mine
        end
    end,
    Call = fun() -> {ok, 49995000} = py:eval(Context(), <<"sum([n for n in range(10000)])">>) end,
    bench:rate(length(Contexts), Call).
