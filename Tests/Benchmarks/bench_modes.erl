%% @doc What contexts with a lock of their own are for: Python code that computes, on all cores.
-module(bench_modes).

-export([benchmarks/0]).

%% @doc The benchmarks of this module.
-spec benchmarks() -> [bench:benchmark()].
benchmarks() ->
    [owngil(owngil_parallel, 1000000), owngil(owngil_short, 10000)].

%% The same pure Python computation in one context, and in two at once: for some 30 ms, and so short a one that schedulers
%% which look for work after each call take a part of the cores, unless the node runs with `+sbwt none'.
owngil(Name, Numbers) ->
    #{name => Name,
      unit => "calls/s",
      peers => fun() ->
          case py_context:start_link(#{mode => owngil}) of
              {ok, First} ->
                  {ok, Second} = py_context:start_link(#{mode => owngil}),
                  [{one, rate([First], Numbers)}, {two, rate([First, Second], Numbers)}];
              {error, {unsupported, Text}} ->
                  exit({unavailable, Text})
          end
      end}.

%% Calls per second of one caller for each context, which stays with it.
rate(Contexts, Numbers) ->
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
    Sum = Numbers * (Numbers - 1) div 2,
    Call = fun() -> {ok, Sum} = py:eval(Context(), <<"sum([n for n in range(numbers)])">>, #{numbers => Numbers}) end,
    bench:rate(length(Contexts), Call).
