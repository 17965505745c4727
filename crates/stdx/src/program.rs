//! Which program this is: two processes run the same one when their files have the same contents, whatever they are
//! called and whenever they were copied.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

/// The file of the running program. It leads to the very file that was started, even after another one has taken its name.
pub const OWN: &str = "/proc/self/exe";
/// The name under which the box starts this program in a repository into which it has fetched a commit.
pub const FETCHED_ROLE: &str = "trackbed-fetched";
/// Bytes read at once.
const CHUNK_BYTES: usize = 128 * 1024;

/// Returns the digest of a program's contents, as 64 hex digits. It reads the whole file: some ten milliseconds.
///
/// # Errors
/// When the file cannot be read.
pub fn digest(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut digest = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut chunk)? {
            0 => break,
            count => digest.update(&chunk[..count]),
        }
    }
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_the_same_program() {
        let folder = std::env::temp_dir();
        let copy = folder.join(format!("trackbed-program-{}", std::process::id()));
        std::fs::copy(OWN, &copy).unwrap();
        let (own, copied) = (digest(Path::new(OWN)).unwrap(), digest(&copy).unwrap());
        std::fs::OpenOptions::new().append(true).open(&copy).unwrap().set_len(100).unwrap();
        let shorter = digest(&copy).unwrap();
        std::fs::remove_file(&copy).unwrap();
        assert_eq!((own.len(), &own), (64, &copied));
        assert_ne!(own, shorter);
    }
}
