defmodule X do
  def project, do: Shared.project()
end
