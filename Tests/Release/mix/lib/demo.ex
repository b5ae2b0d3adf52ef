defmodule Demo do
  @moduledoc "Uses of causeway what is in its folder priv."

  def check do
    {:ok, _} = Application.ensure_all_started(:causeway)
    {:ok, 4.0} = :py.call(:math, :sqrt, [16])
    {:ok, %{exit: :normal, stdout: "hi\n"}} = :causeway_process_stream.run("echo", ["hi"])
    {:ok, version} = :application.get_key(:causeway, :vsn)
    {:ok, [python, package]} = :py.eval("[__import__('sys').executable, __import__('erlang').__file__]")
    IO.puts("demo:#{version}:#{python}:#{package}")
  end
end
