//! Secrets at rest: XChaCha20-Poly1305 with a key file that only the box's user can read.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

const KEY_BYTES: usize = 32;
/// XChaCha's nonce is long enough to be drawn at random for every value (draft-irtf-cfrg-xchacha §2.1).
const NONCE_BYTES: usize = 24;

/// Why a secret or the key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key file cannot be read or made.
    #[error("cannot use the key file {path}")]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The key file is not one.
    #[error("the key file {0} is damaged: it must hold exactly 32 bytes; restore it from a backup")]
    KeyDamaged(PathBuf),
    /// Others can read the key file.
    #[error("the key file {0} can be read by others; run `chmod 600 {0}`")]
    KeyOpen(PathBuf),
    /// The key does not fit the secret, or the secret was changed.
    #[error("the secret does not open with this box's key; was the key file replaced?")]
    WrongKey,
}

/// The box's key.
#[derive(Clone)]
pub struct Key([u8; KEY_BYTES]);

impl Key {
    /// Reads the key file, or makes it (mode 0600) when there is none.
    ///
    /// # Errors
    /// When it is damaged, readable by others, or the disk refuses.
    pub fn open(path: &Path) -> Result<Key, SealError> {
        let fail = |source| SealError::KeyFile { path: path.to_owned(), source };
        if !path.exists() {
            let fresh: [u8; KEY_BYTES] = trackbed_stdx::random::bytes();
            trackbed_stdx::files::write_atomic(path, &fresh, 0o600).map_err(fail)?;
        }
        let mode = std::fs::metadata(path).map_err(fail)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(SealError::KeyOpen(path.to_owned()));
        }
        let bytes = std::fs::read(path).map_err(fail)?;
        Ok(Key(bytes.try_into().map_err(|_| SealError::KeyDamaged(path.to_owned()))?))
    }

    /// A fixed key for tests of the store itself.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Key {
        Key([7; KEY_BYTES])
    }

    /// Seals a value for one place: it opens only with the same `place`, so that rows cannot be swapped.
    pub(crate) fn seal(&self, place: &str, value: &[u8]) -> Vec<u8> {
        let nonce: [u8; NONCE_BYTES] = trackbed_stdx::random::bytes();
        let payload = Payload { msg: value, aad: place.as_bytes() };
        let sealed = self.cipher().encrypt(&XNonce::from(nonce), payload);
        let mut bytes = nonce.to_vec();
        bytes.extend(sealed.expect("encrypting into memory does not fail below 256 GiB"));
        bytes
    }

    /// Opens what [`Key::seal`] made for the same place.
    pub(crate) fn open_sealed(&self, place: &str, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (nonce, body) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(SealError::WrongKey)?;
        let payload = Payload { msg: body, aad: place.as_bytes() };
        self.cipher().decrypt(&XNonce::from(*nonce), payload).map_err(|_| SealError::WrongKey)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&self.0.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_only_with_its_key_and_place() {
        let key = Key::for_tests();
        let sealed = key.seal("svc/A", b"value");
        assert_eq!(key.open_sealed("svc/A", &sealed).unwrap(), b"value");
        assert!(key.open_sealed("svc/B", &sealed).is_err());
        assert!(Key([8; KEY_BYTES]).open_sealed("svc/A", &sealed).is_err());
        assert!(!sealed.windows(5).any(|window| window == b"value"));
    }

    #[test]
    fn the_key_file_is_private_and_lasts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let first = Key::open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Key::open(&path).unwrap().0, first.0);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Key::open(&path), Err(SealError::KeyOpen(_))));
    }
}
