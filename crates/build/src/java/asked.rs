//! Which Java a source asks for, and where it says so. Build files are read as text: nothing of them runs.

use std::path::Path;

use trackbed_core::ports::PortError;

use crate::range::Range;
use crate::text;
use crate::toolchain::{self, Asks};

/// What Maven's properties call the version, the most telling first.
const PROPERTIES: [&str; 4] =
    ["maven.compiler.release", "java.version", "maven.compiler.target", "maven.compiler.source"];
/// What stands before the version in Gradle's files.
const CALLS: [&str; 7] = [
    "JavaLanguageVersion.of(",
    "jvmToolchain(",
    "sourceCompatibility = JavaVersion.VERSION_",
    "targetCompatibility = JavaVersion.VERSION_",
    "sourceCompatibility = ",
    "targetCompatibility = ",
    "options.release = ",
];

/// Finds what is asked: a pin first, then what the build file compiles for, which newer ones run too.
pub(super) fn find(source: &Path, file: &str, build: &str) -> Result<Option<Asks>, PortError> {
    for (name, key) in
        [(".java-version", ""), ("system.properties", "java.runtime.version="), (".sdkmanrc", "java=")]
    {
        let text = text::find(source, name)?.unwrap_or_default();
        let line =
            (1..).zip(text.lines()).find_map(|(number, line)| Some((number, line.trim().strip_prefix(key)?)));
        if let Some((number, asked)) = line.filter(|(_, asked)| !asked.is_empty()) {
            return Ok(Some(asks(asked, "", format!("{name}:{number}"))));
        }
    }
    if let Some(asks) = toolchain::tool_versions(source, &["java"])? {
        return Ok(Some(asks));
    }
    let found = if file == "pom.xml" { in_pom(build) } else { in_gradle(build) };
    Ok(found.map(|(version, exact, line)| {
        // Gradle's toolchain is that very version; everything else is the oldest.
        asks(&version, if exact { "" } else { ">=" }, format!("{file}:{line}"))
    }))
}

fn asks(text: &str, sign: &str, place: String) -> Asks {
    // `temurin-21`, `21.0.5-tem`, `1.8`
    let plain = text.trim_start_matches(|c: char| !c.is_ascii_digit()).trim_start_matches("1.");
    Asks { range: Range::parse(&format!("{sign}{plain}")), text: text.to_owned(), place }
}

fn in_pom(text: &str) -> Option<(String, bool, usize)> {
    let text = without_comments(text);
    PROPERTIES.iter().find_map(|name| {
        let open = format!("<{name}>");
        let at = text.find(&open)?;
        let value = text[at + open.len()..].split('<').next()?.trim();
        let line = text[..at].matches('\n').count() + 1;
        value.starts_with(|c: char| c.is_ascii_digit()).then(|| (value.to_owned(), false, line))
    })
}

fn in_gradle(text: &str) -> Option<(String, bool, usize)> {
    CALLS.iter().enumerate().find_map(|(rank, call)| {
        (1..).zip(text.lines()).find_map(|(number, line)| {
            let line = line.trim();
            let value = line.split_once(call).filter(|_| !line.starts_with("//"))?.1;
            let value: String = value
                .trim_start_matches(['"', '\''])
                .replace('_', ".")
                .chars()
                .take_while(|c| c.is_ascii_digit() || *c == '.')
                .collect();
            (!value.is_empty()).then(|| (value, rank < 2, number))
        })
    })
}

/// Blanks comments, line ends kept.
fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("<!--") {
        let (comment, behind) = after.split_once("-->").unwrap_or((after, ""));
        out.push_str(before);
        out.extend(comment.chars().filter(|c| *c == '\n'));
        rest = behind;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_files_say_the_version_in_many_ways() {
        let pom = "<project>\n<!--\n<java.version>8</java.version> -->\n<java.version>17</java.version>\n";
        assert_eq!(in_pom(pom), Some(("17".to_owned(), false, 4)));
        assert_eq!(in_pom("<java.version>${java}</java.version>"), None);
        for (line, version, exact) in [
            ("languageVersion = JavaLanguageVersion.of(21)", "21", true),
            ("    jvmToolchain(17)", "17", true),
            ("sourceCompatibility = JavaVersion.VERSION_1_8", "1.8", false),
            ("sourceCompatibility = '17'", "17", false),
        ] {
            assert_eq!(in_gradle(line), Some((version.to_owned(), exact, 1)), "{line}");
        }
        assert_eq!(in_gradle("// jvmToolchain(17)"), None);
        let old = asks("1.8", ">=", String::new());
        let eight = crate::python::version::Version { major: 8, minor: 0, patch: 0 };
        assert!(old.range.is_some_and(|range| range.admits(eight)));
    }
}
