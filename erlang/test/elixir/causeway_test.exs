# What Elixir has names of its own for: tasks, streams and supervisors. elixir_SUITE runs it.

defmodule Causeway.Channel do
  @moduledoc "A byte channel as a stream of its messages."

  def stream(channel) do
    Stream.unfold(channel, fn channel ->
      case :py_byte_channel.recv(channel) do
        {:ok, message} -> {message, channel}
        {:error, :closed} -> nil
        {:error, reason} -> raise "channel: #{inspect(reason)}"
      end
    end)
  end
end

defmodule Causeway.Cat do
  @moduledoc "Tells its owner what a program writes."

  use GenServer
  @behaviour :causeway_process_stream

  @impl GenServer
  def init(owner) do
    send(owner, :started)
    {:ok, owner}
  end

  @impl :causeway_process_stream
  def handle_stdout(data, owner) do
    send(owner, {:output, data})
    {:noreply, owner}
  end

  @impl :causeway_process_stream
  def handle_exit(reason, owner), do: {:stop, reason, owner}
end

ExUnit.start(timeout: 30_000)

defmodule CausewayTest do
  use ExUnit.Case

  alias Causeway.{Cat, Channel}

  @moduletag :capture_log

  setup_all do
    {:ok, _} = Application.ensure_all_started(:causeway)
    on_exit(fn -> :ok = Application.stop(:causeway) end)
  end

  describe "calls" do
    test "take and give terms of Elixir" do
      assert {:ok, 4.0} = :py.call(:math, :sqrt, [16])
      assert {:ok, "JOSÉ"} = :py.call_method(ref("'José'"), :upper, [])
      given = %{"text" => "é", "list" => [1, 2.5, nil, true], nested: %{1 => {:a, "b"}}}
      expected = %{"text" => "é", "list" => [1, 2.5, :none, true], "nested" => %{1 => {"a", "b"}}}
      assert {:ok, ^expected} = :py.eval("given", %{given: given})
    end

    test "say what went wrong" do
      assert {:error, {:KeyError, message}} = :py.eval("{}['a']")
      assert List.to_string(message) == "'a'"
      assert {:error, %{type: :ZeroDivisionError}} = :py.eval("1 / 0", %{}, %{error: :map})
      assert {:error, :timeout} = :py.call(:time, :sleep, [10], %{}, 20)
    end

    test "of tasks run at the same time, and end with them" do
      results = 1..20 |> Task.async_stream(&:py.call(:builtins, :pow, [&1, 2])) |> Enum.map(fn {:ok, {:ok, n}} -> n end)
      assert results == Enum.map(1..20, &(&1 * &1))

      test = self()
      :ok = :py.register_function("begun", fn [] -> send(test, :begun) end)
      endless = Task.async(fn -> :py.exec("import erlang\nerlang.begun()\nwhile True: pass") end)
      assert_receive :begun, 10_000
      assert Task.shutdown(endless, :brutal_kill) == nil
      # All contexts are free again: none executes for ever.
      assert :ok = :py.unregister_function("begun")
      for context <- contexts(), do: assert({:ok, 42} = :py.eval(context, "6 * 7"))
    end

    test "go back to functions of Elixir" do
      :ok = :py.register_function("greet", fn [name] -> "Hello, #{name}!" end)
      assert {:ok, "Hello, José!"} = :py.eval("__import__('erlang').greet('José')")
      :ok = :py.register_function("fail", fn [] -> raise ArgumentError, "no" end)
      assert {:error, {:ErlangError, message}} = :py.eval("__import__('erlang').fail()")
      assert List.to_string(message) =~ "ArgumentError"
    end
  end

  describe "a byte channel" do
    test "is a stream that holds up who sends" do
      {:ok, channel} = :py_byte_channel.new(%{max_size: 65536})
      message = String.duplicate("x", 1024)

      sender =
        Task.async(fn ->
          for _ <- 1..1000, do: :ok = :py_byte_channel.send(channel, message, :infinity)
          :py_byte_channel.close(channel)
        end)

      # What has been read and what has room: no more than that has been sent.
      assert channel |> Channel.stream() |> Enum.take(10) == List.duplicate(message, 10)
      assert Task.yield(sender, 0) == nil
      assert channel |> Channel.stream() |> Stream.map(&byte_size/1) |> Enum.sum() == 990 * 1024
      assert Task.await(sender) == :ok
    end

    test "goes to Python and back" do
      {:ok, texts} = :py_byte_channel.new()
      {:ok, answers} = :py_byte_channel.new()

      :ok =
        :py.exec("""
        def upper(texts, answers):
            for text in texts:
                answers.send_bytes(bytes(text).upper())
            answers.close()
        """)

      call = :py.spawn_call(:__main__, :upper, [texts, answers])
      for text <- ["one", "", "three"], do: :ok = :py_byte_channel.send(texts, text)
      :ok = :py_byte_channel.close(texts)
      assert answers |> Channel.stream() |> Enum.to_list() == ["ONE", "", "THREE"]
      assert {:ok, :none} = :py.await(call)
    end

    test "that is aborted is no stream that ends" do
      {:ok, channel} = :py_byte_channel.new()
      :ok = :py_byte_channel.send(channel, "half")
      :ok = :py_byte_channel.abort(channel, :broken)
      assert_raise RuntimeError, ~r/broken/, fn -> channel |> Channel.stream() |> Stream.run() end
    end
  end

  describe "a program" do
    test "is started again by its supervisor, and ends with it" do
      children = [{:causeway_process_stream, [Cat, "cat", [], self(), %{name: :cat}]}]
      {:ok, supervisor} = Supervisor.start_link(children, strategy: :one_for_one)
      assert_receive :started
      monitor = Process.monitor(:cat)
      first = answer("one\n")

      :ok = :causeway_process_stream.kill(:cat, :sigkill)
      assert_receive {:DOWN, ^monitor, :process, _, {:signal, 9}}, 10_000
      assert_receive :started, 10_000
      second = answer("two\n")
      assert first != second
      refute File.exists?("/proc/#{first}")

      :ok = Supervisor.stop(supervisor)
      # Its guardian ends it: this returns when that has happened.
      assert {"", 0} = System.cmd("tail", ["--pid=#{second}", "-f", "/dev/null"])
    end
  end

  describe "a streaming call" do
    test "of a task gives chunks and a reply" do
      :ok =
        :causeway_rpc.advertise("words", fn stream, text ->
          for word <- String.split(text), do: :ok = :causeway_rpc_stream.send(stream, word)
          :causeway_rpc_stream.set_reply(stream, byte_size(text))
        end)

      call =
        Task.async(fn ->
          {:ok, stream} = :causeway_rpc.call_stream("words", "one two three")
          {chunks(stream), :causeway_rpc_stream.await_reply(stream)}
        end)

      assert Task.await(call) == {["one", "two", "three"], {:ok, 13}}
      :ok = :causeway_rpc.unadvertise("words")
    end

    test "ends with its task" do
      test = self()

      :ok =
        :causeway_rpc.advertise("endless", fn stream, _ ->
          Stream.repeatedly(fn -> :causeway_rpc_stream.send(stream, "again") end)
          |> Enum.find(&(&1 != :ok))
          |> then(&send(test, {:ended, &1}))
        end)

      call =
        Task.async(fn ->
          {:ok, stream} = :causeway_rpc.call_stream("endless", nil)
          send(test, {:first, :causeway_rpc_stream.recv(stream)})
          Process.sleep(:infinity)
        end)

      assert_receive {:first, {:chunk, "again"}}, 10_000
      assert Task.shutdown(call, :brutal_kill) == nil
      assert_receive {:ended, {:error, _}}, 10_000
      :ok = :causeway_rpc.unadvertise("endless")
    end
  end

  defp ref(expression) do
    {:ok, ref} = :py.eval("(lambda: #{expression})()", %{}, %{result: :ref})
    ref
  end

  defp contexts, do: for(n <- 1..:py_contexts.pool_size(), do: :py.context(n))

  defp answer(line) do
    :ok = :causeway_process_stream.command(:cat, line)
    assert_receive {:output, ^line}, 10_000
    :causeway_process_stream.os_pid(:cat)
  end

  defp chunks(stream) do
    Stream.repeatedly(fn -> :causeway_rpc_stream.recv(stream) end)
    |> Stream.take_while(&match?({:chunk, _}, &1))
    |> Enum.map(&elem(&1, 1))
  end
end
