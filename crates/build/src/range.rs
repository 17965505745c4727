//! Versions that a source asks for in the words of its language: `^20`, `>=18 <23`, `20.x || 22`, `lts/*`, `1.22`.

use crate::python::version::Version;

/// What a source asks for: one of several alternatives, each a list of comparisons that must all hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range(Vec<Vec<(Comparison, Version)>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    From,
    Above,
    UpTo,
    Below,
}

impl Range {
    /// Reads npm's ranges (docs.npmjs.com/cli/v10/configuring-npm/package-json#dependencies) and plain versions. None
    /// when it is something else, such as `latest`.
    pub(crate) fn parse(text: &str) -> Option<Range> {
        let alternatives = text.split("||").map(|alternative| comparisons(alternative.trim()));
        alternatives.collect::<Option<Vec<_>>>().map(Range)
    }

    /// Reads what Ruby, Composer and Mix say, where the last number given may grow: `~> 3.2` and `~3.2` are 3.2 and newer
    /// below 4, `~> 3.2.1` is 3.2.1 and newer below 3.3 (getcomposer.org/doc/articles/versions.md). One `|` is enough.
    pub(crate) fn parse_pessimistic(text: &str) -> Option<Range> {
        let plain = text.replace("||", "|").replace(" or ", "|").replace(" and ", " ").replace("~>", "~");
        let alternatives = plain.split('|').map(|alternative| {
            let joined = alternative.trim().replace("~ ", "~");
            let parts = joined.split([' ', ',']).filter(|part| !part.is_empty());
            let told: Vec<String> = parts
                .map(|part| match part.strip_prefix('~') {
                    Some(version) if version.matches('.').count() < 2 => format!("^{version}"),
                    _ => part.to_owned(),
                })
                .collect();
            told.join(" ")
        });
        Range::parse(&alternatives.collect::<Vec<_>>().join("||"))
    }

    /// Returns whether a version is one of those asked for.
    pub(crate) fn admits(&self, version: Version) -> bool {
        self.0.iter().any(|all| {
            all.iter().all(|(comparison, bound)| match comparison {
                Comparison::From => version >= *bound,
                Comparison::Above => version > *bound,
                Comparison::UpTo => version <= *bound,
                Comparison::Below => version < *bound,
            })
        })
    }
}

fn comparisons(text: &str) -> Option<Vec<(Comparison, Version)>> {
    if let Some((low, high)) = text.split_once(" - ") {
        let mut all = bounded("", low.trim())?;
        all.truncate(1);
        all.extend(bounded("<=", high.trim())?);
        return Some(all);
    }
    // `>= 18` is one comparison, whatever stands between sign and number.
    let mut joined = text.to_owned();
    for sign in [">= ", "<= ", "> ", "< ", "^ ", "~ ", "= "] {
        while joined.contains(sign) {
            joined = joined.replace(sign, sign.trim_end());
        }
    }
    let mut all = Vec::new();
    for part in joined.split([' ', ',']).filter(|part| !part.is_empty()) {
        let at = part.find(|c: char| c.is_ascii_digit() || matches!(c, '*' | 'x' | 'X'))?;
        all.extend(bounded(part[..at].trim_end_matches('v'), &part[at..])?);
    }
    Some(all)
}

/// Turns one sign and version into bounds.
fn bounded(sign: &str, version: &str) -> Option<Vec<(Comparison, Version)>> {
    use Comparison as C;
    if !["", "=", ">=", ">", "<=", "<", "^", "~"].contains(&sign) {
        return None;
    }
    let version = version.trim_start_matches('v');
    let mut numbers: Vec<u32> = Vec::new();
    for part in version.split(['-', '+']).next().unwrap_or_default().split('.') {
        if matches!(part, "*" | "x" | "X") {
            break;
        }
        numbers.push(part.parse().ok()?);
    }
    if numbers.is_empty() {
        return Some(Vec::new());
    }
    let get = |at: usize| numbers.get(at).copied().unwrap_or(0);
    let low = Version { major: get(0), minor: get(1), patch: get(2) };
    // The first version above everything that begins with the first `keep` numbers.
    let above = |keep: usize| match keep {
        1 => Version { major: low.major.saturating_add(1), minor: 0, patch: 0 },
        2 => Version { major: low.major, minor: low.minor.saturating_add(1), patch: 0 },
        _ => Version { patch: low.patch.saturating_add(1), ..low },
    };
    let given = numbers.len();
    Some(match sign {
        ">=" => vec![(C::From, low)],
        ">" if given < 3 => vec![(C::From, above(given))],
        ">" => vec![(C::Above, low)],
        "<" => vec![(C::Below, low)],
        "<=" if given < 3 => vec![(C::Below, above(given))],
        "<=" => vec![(C::UpTo, low)],
        "^" => {
            let fixed = numbers.iter().position(|number| *number > 0).map_or(given, |at| at + 1);
            vec![(C::From, low), (C::Below, above(fixed.min(given)))]
        }
        "~" => vec![(C::From, low), (C::Below, above(given.min(2)))],
        _ => vec![(C::From, low), (C::Below, above(given))],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_npm_admit_what_npm_admits() {
        let admits = |range: &str, version: &str| {
            Range::parse(range).unwrap().admits(Version::parse(version).unwrap())
        };
        for (range, good, bad) in [
            ("20", "20.9.1", "21.0.0"),
            ("v20.1", "20.1.7", "20.2.0"),
            ("20.x", "20.9.1", "19.9.9"),
            (">=18", "22.1.0", "17.9.9"),
            (">= 18 < 21", "20.9.9", "21.0.0"),
            ("^18.2.0", "18.20.0", "18.1.9"),
            ("^0.2.3", "0.2.9", "0.3.0"),
            ("~18.2", "18.2.9", "18.3.0"),
            ("18 || >=20.5", "20.5.0", "19.0.0"),
            ("16 - 18", "18.9.9", "19.0.0"),
            ("<=20", "20.9.9", "21.0.0"),
            (">20", "21.0.0", "20.9.0"),
        ] {
            assert!(admits(range, good), "{range} admits {good}");
            assert!(!admits(range, bad), "{range} refuses {bad}");
        }
        assert!(admits("*", "3.0.0"));
        for (range, good, bad) in [
            ("~> 3.2", "3.3.6", "4.0.0"),
            ("~> 3.2.1", "3.2.9", "3.3.0"),
            ("^8.1|^8.2", "8.2.29", "9.0.0"),
            ("~8.1", "8.2.0", "8.0.9"),
            (">= 3.0, < 3.3", "3.2.0", "3.3.0"),
            ("~> 1.14 or ~> 2.0", "2.1.0", "1.13.0"),
        ] {
            let admits =
                |version| Range::parse_pessimistic(range).unwrap().admits(Version::parse(version).unwrap());
            assert!(admits(good) && !admits(bad), "{range}");
        }
        assert_eq!(Range::parse("latest"), None);
        assert_eq!(Range::parse("lts/*"), None);
    }
}
