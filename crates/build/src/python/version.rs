//! Python versions and what a source says about them: PEP 440 specifiers, Poetry's carets and tildes, plain pins.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A version of CPython.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Version {
    /// `3` of `3.12.1`.
    pub(crate) major: u32,
    /// `12`.
    pub(crate) minor: u32,
    /// `1`.
    pub(crate) patch: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl Version {
    /// Parses `3.12.1`; a missing patch is 0, tails such as `rc1` or `+` are dropped.
    pub(crate) fn parse(text: &str) -> Option<Version> {
        let parts = numbers(text)?;
        Some(Version { major: parts[0], minor: *parts.get(1)?, patch: parts.get(2).copied().unwrap_or(0) })
    }

    fn parts(self) -> [u32; 3] {
        [self.major, self.minor, self.patch]
    }
}

fn numbers(text: &str) -> Option<Vec<u32>> {
    text.trim()
        .split('.')
        .take(3)
        .map(|part| {
            let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part[..digits].parse().ok()
        })
        .collect()
}

/// One comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    /// Equal in as many numbers as are given.
    Prefix(Vec<u32>),
    /// Not equal in as many numbers as are given.
    NotPrefix(Vec<u32>),
    /// At least.
    From(Vec<u32>),
    /// Above.
    Above(Vec<u32>),
    /// At most.
    UpTo(Vec<u32>),
    /// Below.
    Below(Vec<u32>),
}

/// What a source asks for: every rule must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Specifiers(Vec<Rule>);

impl Specifiers {
    /// Parses PEP 440 (`>=3.11,<3.14`, `~=3.11`, `==3.12.*`), Poetry (`^3.11`, `~3.11`, `*`) and plain versions (`3.12`).
    pub(crate) fn parse(text: &str) -> Option<Specifiers> {
        let mut rules = Vec::new();
        for part in text.split([',', ' ']).map(str::trim) {
            if part.is_empty() || part == "*" {
                continue;
            }
            let at = part.find(|c: char| c.is_ascii_digit()).unwrap_or(part.len());
            let (operator, version) = (part[..at].trim(), part[at..].trim());
            let wild = version.ends_with(".*");
            let parts = numbers(version.trim_end_matches(".*")).filter(|parts| !parts.is_empty())?;
            let next = |keep: usize| -> Vec<u32> {
                let mut next = parts[..keep.clamp(1, parts.len())].to_vec();
                if let Some(last) = next.last_mut() {
                    *last += 1;
                }
                next
            };
            match operator {
                "==" | "===" | "=" | "" if wild || parts.len() < 3 => rules.push(Rule::Prefix(parts)),
                "==" | "===" | "=" | "" => rules.push(Rule::Prefix(parts)),
                "!=" => rules.push(Rule::NotPrefix(parts)),
                ">=" => rules.push(Rule::From(parts)),
                ">" => rules.push(Rule::Above(parts)),
                "<=" => rules.push(Rule::UpTo(parts)),
                "<" => rules.push(Rule::Below(parts)),
                "~=" => {
                    rules.push(Rule::Below(next(parts.len() - 1)));
                    rules.push(Rule::From(parts));
                }
                "^" => {
                    rules.push(Rule::Below(next(1)));
                    rules.push(Rule::From(parts));
                }
                "~" => {
                    rules.push(Rule::Below(next(2)));
                    rules.push(Rule::From(parts));
                }
                _ => return None,
            }
        }
        Some(Specifiers(rules))
    }

    /// Returns whether a version will do.
    pub(crate) fn admit(&self, version: Version) -> bool {
        let have = version.parts();
        let full = |parts: &[u32]| [0, 1, 2].map(|at| parts.get(at).copied().unwrap_or(0));
        let same = |parts: &[u32]| parts.iter().zip(have).all(|(want, have)| *want == have);
        self.0.iter().all(|rule| match rule {
            Rule::Prefix(parts) => same(parts),
            Rule::NotPrefix(parts) => !same(parts),
            Rule::From(parts) => have >= full(parts),
            Rule::Above(parts) => have > full(parts),
            Rule::UpTo(parts) => have <= full(parts),
            Rule::Below(parts) => have < full(parts),
        })
    }

    /// Returns whether nothing is asked.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(text: &str, version: &str) -> bool {
        Specifiers::parse(text).unwrap().admit(Version::parse(version).unwrap())
    }

    #[test]
    fn specifiers_mean_what_pep_440_and_poetry_say() {
        for (text, yes, no) in [
            (">=3.11,<3.14", "3.11.0", "3.14.0"),
            (">=3.11, <3.14", "3.13.9", "3.10.13"),
            ("~=3.11", "3.13.0", "4.0.0"),
            ("~=3.11.2", "3.11.7", "3.12.0"),
            ("==3.12.*", "3.12.1", "3.13.0"),
            ("3.12", "3.12.1", "3.11.2"),
            ("3.12.1", "3.12.1", "3.12.2"),
            ("^3.11", "3.13.0", "3.10.0"),
            ("~3.11", "3.11.7", "3.12.0"),
            (">3.11", "3.11.1", "3.11.0"),
            ("<=3.12", "3.12.0", "3.12.1"),
            ("!=3.12.*,>=3.10", "3.11.0", "3.12.1"),
            (">=3.10 <3.13", "3.12.1", "3.13.0"),
        ] {
            assert!(admits(text, yes), "{text} {yes}");
            assert!(!admits(text, no), "{text} {no}");
        }
        assert!(admits("*", "3.9.1") && Specifiers::parse("").unwrap().is_empty());
        assert_eq!(Specifiers::parse(">=3.11 || >=4"), None);
        assert_eq!(Specifiers::parse("pypy"), None);
    }
}
