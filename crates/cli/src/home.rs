//! Where the box of this user keeps its data.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Finds the data folder: the flag, else `TRACKBED_DATA_DIR`, else the usual place of root or of this user. Absolute.
pub(crate) fn data_dir(flag: Option<PathBuf>) -> Result<PathBuf> {
    let named = flag.or_else(|| variable("TRACKBED_DATA_DIR").map(PathBuf::from));
    let folder = match named {
        Some(folder) => folder,
        None => usual(trackbed_client::user_id(), variable("XDG_DATA_HOME"), variable("HOME"))
            .context("cannot tell where the box keeps its data: neither --data-dir nor HOME is set")?,
    };
    // The box knows its folder by its real path; one that is not there yet will be made under this name.
    let real = folder.canonicalize().or_else(|_| std::path::absolute(&folder));
    real.with_context(|| format!("cannot find the folder {}", folder.display()))
}

/// Finds the folder of what is only kept to be quicker: below `XDG_CACHE_HOME`, or the usual place of root or of this user.
pub(crate) fn cache_dir() -> Option<PathBuf> {
    cache(trackbed_client::user_id(), variable("XDG_CACHE_HOME"), variable("HOME"))
}

fn cache(user: u32, xdg: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let xdg = xdg.map(PathBuf::from).filter(|path| path.is_absolute());
    let usual = || match user {
        // `HOME` may be that of whoever typed `sudo`, who could not use what root puts there.
        0 => Some(PathBuf::from("/var/cache")),
        _ => home.map(|home| Path::new(&home).join(".cache")),
    };
    xdg.or_else(usual).map(|base| base.join("trackbed"))
}

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

fn usual(user: u32, xdg: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    if user == 0 {
        return Some(PathBuf::from("/var/lib/trackbed"));
    }
    // The XDG base directory rules: a relative path there does not count.
    let xdg = xdg.map(PathBuf::from).filter(|path| path.is_absolute());
    xdg.or_else(|| home.map(|home| Path::new(&home).join(".local/share"))).map(|base| base.join("trackbed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_users_have_their_usual_places() {
        let (xdg, home) = (Some(OsString::from("/x")), Some(OsString::from("/home/me")));
        assert_eq!(usual(0, xdg.clone(), home.clone()).unwrap(), Path::new("/var/lib/trackbed"));
        assert_eq!(usual(7, xdg, home.clone()).unwrap(), Path::new("/x/trackbed"));
        let relative = Some(OsString::from("x"));
        assert_eq!(usual(7, relative, home).unwrap(), Path::new("/home/me/.local/share/trackbed"));
        assert_eq!(usual(7, None, None), None);
        let (xdg, home) = (Some(OsString::from("/x")), Some(OsString::from("/home/me")));
        assert_eq!(cache(0, None, home.clone()).unwrap(), Path::new("/var/cache/trackbed"));
        assert_eq!(cache(0, xdg.clone(), home.clone()).unwrap(), Path::new("/x/trackbed"));
        assert_eq!(cache(7, xdg, home.clone()).unwrap(), Path::new("/x/trackbed"));
        assert_eq!(cache(7, None, home).unwrap(), Path::new("/home/me/.cache/trackbed"));
        assert_eq!(cache(7, None, None), None);
    }
}
