//! Benchmarks, to be filled in.
pub fn run(_name: Option<&str>) -> anyhow::Result<()> {
    anyhow::bail!("none yet")
}
