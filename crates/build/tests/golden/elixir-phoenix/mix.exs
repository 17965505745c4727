defmodule Hello.MixProject do
  use Mix.Project

  def project do
    [
      app: :hello,
      elixir: "~> 1.14",
      aliases: ["assets.deploy": ["esbuild hello --minify"]],
      deps: deps()
    ]
  end
  defp deps, do: [{:phoenix, "~> 1.7"}]
end
