//! What the fuzzers begin with, and what they ever found, read once more. `fuzz/README.md` says how to search on.

use std::fs;
use std::path::{Path, PathBuf};

use trackbed_readers::{READERS, settings};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

#[test]
fn every_reader_holds_for_everything_in_its_corpus() {
    for (name, read) in READERS {
        let corpus = folder().join("corpus").join(name);
        let mut count = 0;
        for input in fs::read_dir(&corpus).expect("each reader has a corpus") {
            let path = input.expect("a name").path();
            let bytes = fs::read(&path).expect("a readable input");
            let held = std::panic::catch_unwind(|| read(&bytes));
            assert!(held.is_ok(), "{name} does not hold for {}", path.display());
            // And for what is left of it when it breaks off.
            for end in (0..bytes.len()).step_by(bytes.len() / 16 + 1) {
                let held = std::panic::catch_unwind(|| read(&bytes[..end]));
                assert!(held.is_ok(), "{name} does not hold for the first {end} bytes of {}", path.display());
            }
            count += 1;
        }
        assert!(count >= 3, "the corpus of {name} has {count} inputs");
    }
}

#[test]
fn every_reader_is_a_target() {
    let manifest = fs::read_to_string(folder().join("Cargo.toml")).expect("the manifest of the targets");
    for (name, _) in READERS {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is no target");
        let target = folder().join(format!("targets/{name}.rs"));
        assert!(target.is_file(), "{} is missing", target.display());
    }
    assert_eq!(manifest.matches("[[bin]]").count(), READERS.len());
}

#[test]
fn every_file_of_settings_is_in_the_corpus() {
    let inputs = fs::read_dir(folder().join("corpus/settings")).expect("a corpus");
    let named: Vec<String> = inputs
        .map(|input| {
            let bytes = fs::read(input.expect("a name").path()).expect("a readable input");
            settings(&bytes);
            String::from_utf8_lossy(bytes.split(|byte| *byte == b'\n').next().unwrap_or_default())
                .into_owned()
        })
        .collect();
    let missing: Vec<_> =
        trackbed_build::fuzz::settings_names().filter(|name| !named.iter().any(|has| has == name)).collect();
    assert!(missing.is_empty(), "no input for {missing:?}");
}
