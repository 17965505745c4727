//! Letting go of layers and sources that nothing needs, and of caches. Nobody builds meanwhile: the caller sees to it.
//!
//! What goes is made unfindable first, by one rename or the removal of its mark; a crash leaves only what the next sweep
//! removes.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use trackbed_core::Digest;
use trackbed_core::image::Image;
use trackbed_core::ports::LetGo;
use trackbed_stdx::{clock, files, random};

use crate::earlier;
use crate::fetch;
use crate::layers::Layers;

/// Age from which on a source may go. A younger one was received for somebody who has not said yet what it is for.
const SOURCE_AGE: Duration = Duration::from_secs(60 * 60);

/// Removes layers that no image has, and sources that are neither named nor just received.
pub(crate) fn collect(data_dir: &Path, keep: &[Image], sources: &[Digest]) -> io::Result<LetGo> {
    let layers: HashSet<&Digest> =
        keep.iter().flat_map(|image| &image.layers).map(|layer| &layer.digest).collect();
    let mut gone = LetGo::default();
    let known = Layers::new(data_dir.to_owned());
    for digest in named(&data_dir.join("layers"))? {
        if layers.contains(&digest) {
            continue;
        }
        let size = known.find(&digest).map_or(0, |(layer, _)| layer.size_bytes);
        let folder = data_dir.join("layers");
        files::remove_tree(&folder.join(format!("{digest}.ok")))?;
        files::sync_folder(&folder)?;
        files::remove_tree(&folder.join(digest.as_str()))?;
        gone.layers += 1;
        gone.layer_bytes += size;
    }
    let sources: HashSet<&Digest> = sources.iter().collect();
    for digest in named(&data_dir.join("sources"))? {
        let path = data_dir.join("sources").join(digest.as_str());
        if sources.contains(&digest) || is_newer(&path, SOURCE_AGE)? {
            continue;
        }
        remove_at_once(&path, &data_dir.join("tmp"), "source-")?;
        gone.sources += 1;
    }
    earlier::forget_gone(data_dir)?;
    fetch::let_go(data_dir, keep)?;
    Ok(gone)
}

/// Removes the caches of installers, and the repositories of pushes and fetches, which are caches of what
/// others have.
pub(crate) fn drop_caches(data_dir: &Path) -> io::Result<()> {
    for caches in ["cache", "git/repositories", "git/fetched"] {
        remove_at_once(&data_dir.join(caches), &data_dir.join("build"), "cache-")?;
    }
    Ok(())
}

/// Makes a folder count as just received.
pub(crate) fn renew(path: &Path) -> io::Result<()> {
    files::touch(path)
}

/// Returns whether a folder was made or renewed less than an age ago.
pub(crate) fn is_newer(path: &Path, limit: Duration) -> io::Result<bool> {
    let modified = fs::metadata(path)?.modified()?;
    let modified = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = Duration::from_millis(u64::try_from(clock::now_ms()).unwrap_or(0));
    // A time that lies ahead was stamped by a wrong clock, and says nothing.
    Ok(now.checked_sub(modified).is_none_or(|age| age < limit))
}

/// Returns the digests that entries of a folder are named by, each once.
fn named(folder: &Path) -> io::Result<HashSet<Digest>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashSet::new()),
        entries => entries?,
    };
    let mut digests = HashSet::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        digests.extend(name.trim_end_matches(".ok").parse::<Digest>());
    }
    Ok(digests)
}

/// Renames a tree out of sight, where a sweep would find it, and removes it there.
pub(crate) fn remove_at_once(path: &Path, aside: &Path, prefix: &str) -> io::Result<()> {
    let tail: String = random::bytes::<8>().iter().map(|byte| format!("{byte:02x}")).collect();
    let target: PathBuf = aside.join(format!("{prefix}{tail}"));
    fs::create_dir_all(aside)?;
    match fs::rename(path, &target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        renamed => renamed?,
    }
    files::remove_tree(&target)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a fixture needs no crash safety")]
mod tests {
    use super::*;
    use crate::layers::key;
    use trackbed_core::Timestamp;
    use trackbed_core::image::Layer;

    fn layer(data_dir: &Path, name: &str) -> Layer {
        let layers = Layers::new(data_dir.to_owned());
        let staging = layers.stage().unwrap();
        let folder = staging.path().join("x");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("file"), name).unwrap();
        layers.keep(&key(&[("name", name.as_bytes())]), &folder, "s").unwrap().0
    }

    fn image(layers: &[&Layer]) -> Image {
        Image {
            digest: key(&[("image", b"x")]),
            provider: "python".into(),
            layers: layers.iter().map(|layer| (*layer).clone()).collect(),
            host_paths: Vec::new(),
            env: Vec::new(),
            site: None,
            built_at: Timestamp(0),
            container: None,
        }
    }

    fn source(data_dir: &Path, name: &str, age: Duration) -> Digest {
        let digest = key(&[("source", name.as_bytes())]);
        let path = data_dir.join("sources").join(digest.as_str());
        fs::create_dir_all(path.join("deep")).unwrap();
        let now = UNIX_EPOCH + Duration::from_millis(u64::try_from(clock::now_ms()).unwrap());
        fs::File::open(&path).unwrap().set_modified(now - age).unwrap();
        digest
    }

    #[test]
    fn a_layer_stays_as_long_as_one_image_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let [shared, old, new] = ["shared", "old", "new"].map(|name| layer(folder.path(), name));
        let gone = collect(folder.path(), &[image(&[&shared, &new])], &[]).unwrap();
        assert_eq!(gone, LetGo { layers: 1, layer_bytes: 3, sources: 0 });
        let layers = Layers::new(folder.path().to_owned());
        assert!(layers.find(&shared.digest).is_some() && layers.find(&new.digest).is_some());
        assert!(layers.find(&old.digest).is_none());
        assert!(!folder.path().join(&old.path).exists());
        assert_eq!(collect(folder.path(), &[image(&[&shared, &new])], &[]).unwrap(), LetGo::default());
    }

    #[test]
    fn a_source_goes_when_it_is_neither_named_nor_just_received() {
        let folder = tempfile::tempdir().unwrap();
        let day = Duration::from_secs(24 * 60 * 60);
        let named = source(folder.path(), "named", day);
        let fresh = source(folder.path(), "fresh", Duration::from_secs(60));
        let old = source(folder.path(), "old", day);
        let again = source(folder.path(), "again", day);
        let place = |digest: &Digest| folder.path().join("sources").join(digest.as_str());
        renew(&place(&again)).unwrap();
        assert_eq!(collect(folder.path(), &[], std::slice::from_ref(&named)).unwrap().sources, 1);
        assert!(place(&named).exists() && place(&fresh).exists() && place(&again).exists());
        assert!(!place(&old).exists());
        assert_eq!(fs::read_dir(folder.path().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn caches_go_as_a_whole_and_may_be_missing() {
        let folder = tempfile::tempdir().unwrap();
        drop_caches(folder.path()).unwrap();
        for caches in ["cache/uv/1", "git/repositories/svc.git"] {
            fs::create_dir_all(folder.path().join(caches)).unwrap();
        }
        drop_caches(folder.path()).unwrap();
        assert!(!folder.path().join("cache").exists() && !folder.path().join("git/repositories").exists());
    }
}
