//! Names of projects and services as this program offers them. The box has the last word.

use std::path::Path;

use anyhow::Result;

use crate::session::Refusal;

/// Longest name in bytes: a DNS label.
const NAME_MAX_BYTES: usize = 63;

/// Checks a name that was typed.
pub(crate) fn parse_name(text: &str) -> Result<String, String> {
    if nearest(text).as_deref() == Some(text) {
        return Ok(text.to_owned());
    }
    let wanted = "a name is 1 to 63 of a-z, 0-9 and `-`, not at either end";
    Err(match nearest(text) {
        Some(near) => format!("{wanted}; the nearest is `{near}`"),
        None => wanted.to_owned(),
    })
}

/// Makes a name from that of a folder.
pub(crate) fn of_folder(folder: &Path) -> Result<String> {
    let real = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let text = real.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    nearest(&text).ok_or_else(|| {
        let message = format!("the folder {} gives no name for a service", real.display());
        Refusal::with_hint(message, "name it: --service NAME")
    })
}

/// Makes the nearest valid name from any text: `My App_2` becomes `my-app-2`. None when nothing usable is left.
pub(crate) fn nearest(text: &str) -> Option<String> {
    let mut name = String::new();
    for c in text.chars().flat_map(char::to_lowercase) {
        match c {
            'a'..='z' | '0'..='9' => name.push(c),
            '-' if !name.is_empty() => name.push('-'),
            _ if !name.is_empty() && !name.ends_with('-') => name.push('-'),
            _ => {}
        }
    }
    name.truncate(NAME_MAX_BYTES);
    let name = name.trim_end_matches('-');
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_name_becomes_the_nearest_name() {
        assert_eq!(nearest("My App_2").unwrap(), "my-app-2");
        assert_eq!(nearest("--x--").unwrap(), "x");
        assert_eq!(nearest("café.api").unwrap(), "caf-api");
        assert_eq!(nearest("日本"), None);
        assert_eq!(nearest(&"a".repeat(80)).unwrap().len(), 63);
    }

    #[test]
    fn a_typed_name_is_taken_as_it_is_or_refused_with_the_nearest() {
        assert_eq!(parse_name("web-1").unwrap(), "web-1");
        assert_eq!(parse_name("a--b").unwrap(), "a--b");
        assert!(parse_name("My App").unwrap_err().contains("`my-app`"));
        assert!(parse_name("").is_err());
        assert!(parse_name(&"a".repeat(64)).is_err());
    }

    #[test]
    fn the_root_folder_gives_no_name() {
        assert!(of_folder(Path::new("/")).is_err());
    }
}
