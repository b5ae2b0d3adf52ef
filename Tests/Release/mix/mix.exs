defmodule Demo.MixProject do
  use Mix.Project

  def project do
    [app: :demo, version: "1.0.0", deps: [{:causeway, dependency(System.fetch_env!("CAUSEWAY"))}]]
  end

  def application, do: [extra_applications: [:logger]]

  # The repository by its address, or the application by its path.
  defp dependency("file:" <> _ = repository), do: [git: repository, subdir: "erlang"]
  defp dependency(path), do: [path: path]
end
