//! What may be asked of a benchmark: `--name NUMBER` pairs.

use anyhow::{Context, Result, bail};

/// Options as they were typed.
pub(super) struct Options {
    given: Vec<(String, u64)>,
}

impl Options {
    /// Reads `--name NUMBER` pairs. Fails on a name that is not in `known`.
    pub(super) fn parse(words: &[&str], known: &[&str]) -> Result<Options> {
        let mut given = Vec::new();
        for pair in words.chunks(2) {
            let [name, value] = pair else { bail!("`{}` needs a number", pair[0]) };
            let Some(name) = name.strip_prefix("--").filter(|name| known.contains(name)) else {
                let known: Vec<String> = known.iter().map(|name| format!("--{name} N")).collect();
                bail!("`{name}` is no option of this benchmark; there are: {}", known.join(", "));
            };
            let value = value.parse().with_context(|| format!("`{value}` is no number"))?;
            given.push((name.to_owned(), value));
        }
        Ok(Options { given })
    }

    /// Returns what was given for `name`, else `default`.
    pub(super) fn get(&self, name: &str, default: u64) -> u64 {
        self.given.iter().rev().find(|(given, _)| given == name).map_or(default, |(_, value)| *value)
    }
}
