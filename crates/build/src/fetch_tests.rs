//! Fetching with a stand-in for mise that makes what it is asked for, or says why not.

#![allow(clippy::disallowed_methods, reason = "a fixture needs no crash safety")]

use std::os::unix::fs::PermissionsExt;
use std::time::UNIX_EPOCH;

use trackbed_core::Timestamp;
use trackbed_stdx::clock;

use super::*;
use crate::range::Range;
use crate::toolchain::{self, Asks, HostPrograms};

const MISE: &str = r#"#!/bin/sh
[ "$1" = --version ] && exit 0
case "$2" in go@9.7) ;; *) echo "no release for $2" >&2; exit 1;; esac
mkdir -p "$MISE_DATA_DIR/installs/go/9.7.5/bin" && cd "$MISE_DATA_DIR/installs/go"
printf '#!/bin/sh\necho go version go9.7.5 linux/amd64\n' > 9.7.5/bin/go && chmod 755 9.7.5/bin/go
ln -s 9.7.5 latest
"#;

/// A box with a mise, and nothing else that is asked for here.
fn a_box(mise: &str) -> (tempfile::TempDir, HostPrograms) {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("mise");
    fs::write(&program, mise).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let path = ("PATH".to_owned(), folder.path().display().to_string());
    let programs = HostPrograms::new(Host::new([path]), folder.path().join("data"));
    (folder, programs)
}

fn asks(text: &str) -> Asks {
    Asks { text: text.to_owned(), place: "go.mod:3".to_owned(), range: Range::parse(&format!(">={text}")) }
}

#[test]
fn what_the_box_has_not_is_fetched_once_and_found_from_then_on() {
    let (folder, programs) = a_box(MISE);
    let go = toolchain::choose(&programs, Tool::Go, Some(&asks("9.7"))).unwrap();
    let data_dir = folder.path().join("data");
    assert_eq!(go.path, installs(&data_dir).join("go/9.7.5/bin/go"));
    fs::remove_file(folder.path().join("mise")).unwrap();
    assert_eq!(toolchain::choose(&programs, Tool::Go, Some(&asks("9.7"))).unwrap(), go);
}

#[test]
fn what_cannot_be_fetched_is_named_with_the_reason() {
    let (_folder, programs) = a_box(MISE);
    let error = toolchain::choose(&programs, Tool::Go, Some(&asks("9.9"))).unwrap_err().message;
    for word in ["asks for Go 9.9 (go.mod:3)", "not on this box", "go@9.9", "no release for go@9.9"] {
        assert!(error.contains(word), "no `{word}` in: {error}");
    }
    let error = toolchain::Programs::fetch(&programs, Tool::Node, None).unwrap_err();
    assert!(error.contains("no release for node@lts"), "{error}");
    let error = toolchain::choose(&programs, Tool::Cargo, Some(&asks("9.9"))).unwrap_err().message;
    assert!(error.ends_with("it was not fetched: Trackbed does not fetch Rust"), "{error}");
}

#[test]
fn a_fetched_tool_goes_when_neither_an_image_nor_a_build_needs_it() {
    let (folder, programs) = a_box(MISE);
    let go = toolchain::choose(&programs, Tool::Go, Some(&asks("9.7"))).unwrap();
    let data_dir = folder.path().join("data");
    let version = installs(&data_dir).join("go/9.7.5");
    let now = UNIX_EPOCH + Duration::from_millis(u64::try_from(clock::now_ms()).unwrap());
    let age = || fs::File::open(&version).unwrap().set_modified(now - TOOL_AGE * 2).unwrap();
    age();
    let image = Image {
        digest: crate::layers::key(&[("image", b"x")]),
        provider: "go".into(),
        layers: Vec::new(),
        host_paths: vec![version.display().to_string()],
        env: Vec::new(),
        site: None,
        built_at: Timestamp(0),
        container: None,
    };
    assert_eq!(let_go(&data_dir, &[image]).unwrap(), 0);
    renew(&data_dir, &go.path);
    assert_eq!(let_go(&data_dir, &[]).unwrap(), 0);
    age();
    assert_eq!(let_go(&data_dir, &[]).unwrap(), 1);
    assert!(!version.exists());
}

/// Gives one caller a file over HTTP. Returns where.
fn give(bytes: &'static [u8]) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/mise", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut heard = [0; 4096];
        let _ = io::Read::read(&mut stream, &mut heard).unwrap();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", bytes.len());
        io::Write::write_all(&mut stream, &[head.as_bytes(), bytes].concat()).unwrap();
    });
    address
}

#[test]
fn a_release_is_taken_by_its_checksum_and_can_be_run() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("bin/mise");
    fs::create_dir(folder.path().join("bin")).unwrap();
    let fetcher = Fetcher::new(Host::default(), folder.path().to_owned());
    let program: &[u8] = b"#!/bin/sh\necho 1.2.3\n";
    let sum: String = Sha256::digest(program).iter().map(|byte| format!("{byte:02x}")).collect();
    let get = |bytes: &'static [u8]| {
        let address = give(bytes);
        let release = File { address: &address, sha256: &sum, max_bytes: 1000 };
        put(&own, |beside| fetcher.fetch_release(&release, beside))
    };
    let error = get(b"#!/bin/sh\nsomething else\n").unwrap_err();
    assert!(error.contains("/mise: it has the checksum") && error.contains(&sum), "{error}");
    assert_eq!(fs::read_dir(own.parent().unwrap()).unwrap().count(), 0, "nothing of it is left");
    get(program).unwrap();
    assert_eq!(host::run(&own, &[], &[], ASK_LIMIT).unwrap(), "1.2.3\n");
    assert_eq!(fs::read_dir(own.parent().unwrap()).unwrap().count(), 1, "nor beside it");
}
