defmodule Hello.MixProject do
  use Mix.Project

  def project do
    [
      app: :hello,
      elixir: "~> 1.14",
      releases: [
        web: [include_executables_for: [:unix]]
      ],
      deps: deps()
    ]
  end
end
