//! Whose prefix it is. Two boxes never share one: the object that says so is made on condition that there is none.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use object_store::{PutMode, UpdateVersion};
use serde::{Deserialize, Serialize};
use trackbed_core::Timestamp;
use trackbed_core::ports::{Conditional, Ownership};
use trackbed_stdx::{files, random};

use crate::error::{OffsiteError, RemoteFault};
use crate::formats::{self, FORMAT, HEAD, Head, OWNER, Owner};
use crate::remote::Remote;
use crate::seal::{self, Keys};
use crate::target::FOLDER;

/// The file that holds the id of this box.
#[derive(Serialize, Deserialize)]
struct BoxFile {
    #[serde(rename = "box")]
    box_id: String,
}

fn box_file(data_dir: &Path) -> PathBuf {
    data_dir.join(FOLDER).join("box.json")
}

/// Returns the id by which this box owns its prefix; none when it owns none. It is in no copy: a box that was recovered
/// is another one until it takes over.
pub(crate) fn find_box(data_dir: &Path) -> Result<Option<String>, OffsiteError> {
    let path = box_file(data_dir);
    let text = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(OffsiteError::disk(format!("read {}", path.display())))?,
    };
    let file: BoxFile = serde_json::from_slice(&text).map_err(|error| OffsiteError::Disk {
        attempt: format!("read {}", path.display()),
        source: error.into(),
    })?;
    Ok(Some(file.box_id))
}

/// Gives this box its id.
fn set_box(data_dir: &Path, box_id: &str) -> Result<(), OffsiteError> {
    let path = box_file(data_dir);
    let text = formats::encode(&BoxFile { box_id: box_id.to_owned() });
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir.join(FOLDER))
        .and_then(|()| files::write_atomic(&path, &text, 0o600))
        .map_err(OffsiteError::disk(format!("write {}", path.display())))
}

/// Forgets the id of this box.
pub(crate) fn forget_box(data_dir: &Path) -> Result<(), OffsiteError> {
    files::remove_tree(&box_file(data_dir)).map_err(OffsiteError::disk("forget the target"))
}

/// Reads who owns the prefix; none when nobody does.
pub(crate) async fn read(remote: &Remote) -> Result<Option<(Owner, UpdateVersion)>, OffsiteError> {
    let Some((bytes, version)) = remote.find(OWNER).await? else { return Ok(None) };
    Ok(Some((formats::decode(OWNER, &bytes)?, version)))
}

/// Reads the newest head; none when there is none. The version is known also of one that cannot be used.
pub(crate) async fn find_head(
    remote: &Remote,
    keys: &Keys,
) -> Result<Option<(Result<Head, OffsiteError>, UpdateVersion)>, OffsiteError> {
    let Some((bytes, version)) = remote.find(HEAD).await? else { return Ok(None) };
    let head = seal::open_small(keys, HEAD, &bytes).and_then(|plain| formats::decode(HEAD, &plain));
    Ok(Some((head, version)))
}

/// Refuses unless the prefix belongs to this box and this key.
pub(crate) async fn check(remote: &Remote, keys: &Keys, box_id: &str) -> Result<Owner, OffsiteError> {
    let found = read(remote).await.map_err(|error| match error.fault() {
        Some(RemoteFault::Damaged) => OffsiteError::refused(
            format!("nobody can say whose target it is: {error}"),
            "if no other box writes there, `trackbed backup target set … --take-over` writes it anew",
        ),
        _ => error,
    })?;
    let Some((owner, _)) = found else {
        return Err(OffsiteError::refused(
            "the target belongs to nobody any more: `owner.json` is gone",
            "if the copies were removed on purpose, set the target again: `trackbed backup target set`",
        ));
    };
    if owner.box_id != box_id {
        return Err(belongs_to_another(&owner));
    }
    check_key(&owner, keys)?;
    Ok(owner)
}

/// Refuses a key that the prefix was not begun with.
pub(crate) fn check_key(owner: &Owner, keys: &Keys) -> Result<(), OffsiteError> {
    if owner.recipient == keys.recipient() {
        return Ok(());
    }
    Err(OffsiteError::refused(
        format!(
            "the key does not fit: the copies are sealed for {}, and this key opens what is sealed for {}",
            owner.recipient,
            keys.recipient()
        ),
        "give the key that was shown when the target was set (--key FILE), or use another prefix",
    ))
}

fn belongs_to_another(owner: &Owner) -> OffsiteError {
    OffsiteError::refused(
        format!("the target belongs to another box ({})", owner.box_id),
        "use another prefix; if that box is gone for good, `--take-over` makes the copies this box's, and the other refuses to go on",
    )
}

/// Makes a prefix this box's. Returns the id by which it is.
pub(crate) async fn claim(
    remote: &Remote,
    keys: &Keys,
    data_dir: &Path,
    ownership: Ownership,
    conditional: Conditional,
    now: Timestamp,
) -> Result<String, OffsiteError> {
    let found = remote.find(OWNER).await?;
    if let Some((bytes, _)) = &found {
        match formats::decode::<Owner>(OWNER, bytes) {
            // Whoever takes over need not know from whom.
            Err(error) if ownership == Ownership::TakeOver && error.fault() == Some(RemoteFault::Damaged) => {
            }
            Err(error) => return Err(error),
            Ok(owner) => {
                check_key(&owner, keys)?;
                let own = find_box(data_dir)?;
                if ownership == Ownership::Respect {
                    return match own {
                        Some(box_id) if box_id == owner.box_id => Ok(box_id),
                        _ => Err(belongs_to_another(&owner)),
                    };
                }
            }
        }
    }
    let conditions = probe(remote).await?;
    if !conditions.creates && conditional == Conditional::Required {
        return Err(OffsiteError::refused(
            "the store cannot write on condition that an object is not there yet, so two boxes could destroy each other's copies",
            "use a store that can (S3 since 2024, MinIO, R2, GCS, Azure), or say that no other box writes there: --assume-exclusive",
        ));
    }
    // Another id than before: an earlier life of this box, or a copy of its disk, must not go on.
    let tail: String = random::bytes::<10>().iter().map(|byte| format!("{byte:02x}")).collect();
    let box_id = format!("box_{tail}");
    let owner = Owner {
        format: FORMAT,
        box_id: box_id.clone(),
        recipient: keys.recipient(),
        replaces_conditionally: conditions.replaces,
        since: now,
    };
    let mode = match found {
        Some((_, version)) if conditions.replaces => PutMode::Update(version),
        None if conditions.creates => PutMode::Create,
        _ => PutMode::Overwrite,
    };
    match remote.put(OWNER, formats::encode(&owner), mode).await {
        Err(error) if error.fault() != Some(RemoteFault::Taken) => return Err(error),
        _ => {}
    }
    // Whoever came first is there now, also when the answer to our own write was lost.
    match read(remote).await? {
        // Only now: until the prefix is this box's, the target that it had before stays its own.
        Some((there, _)) if there.box_id == box_id => set_box(data_dir, &box_id).map(|()| box_id),
        Some((there, _)) => Err(belongs_to_another(&there)),
        None => Err(OffsiteError::damaged(OWNER, "it was written, and is not there")),
    }
}

/// What a store does on conditions.
struct Conditions {
    /// Write when there is nothing yet.
    creates: bool,
    /// Replace when it is unchanged.
    replaces: bool,
}

/// Tries it out: a store may ignore a condition without a word.
async fn probe(remote: &Remote) -> Result<Conditions, OffsiteError> {
    let tail: String = random::bytes::<8>().iter().map(|byte| format!("{byte:02x}")).collect();
    let name = format!("probe-{tail}");
    let probed = async {
        let first = match remote.put(&name, b"1".to_vec(), PutMode::Create).await {
            Err(error) if error.fault() == Some(RemoteFault::Unsupported) => {
                // It must be writable at all.
                remote.put(&name, b"1".to_vec(), PutMode::Overwrite).await?;
                return Ok(Conditions { creates: false, replaces: false });
            }
            other => other?,
        };
        let creates = is_refused(remote.put(&name, b"2".to_vec(), PutMode::Create).await)?;
        let replaces = match remote.put(&name, b"3".to_vec(), PutMode::Update(first.clone())).await {
            Err(error) if error.fault() == Some(RemoteFault::Unsupported) => false,
            Err(error) => return Err(error),
            Ok(_) => is_refused(remote.put(&name, b"4".to_vec(), PutMode::Update(first)).await)?,
        };
        Ok(Conditions { creates, replaces })
    };
    let probed = probed.await;
    let removed = remote.remove(&name).await;
    let conditions = probed?;
    removed?;
    Ok(conditions)
}

fn is_refused(put: Result<UpdateVersion, OffsiteError>) -> Result<bool, OffsiteError> {
    match put {
        Ok(_) => Ok(false),
        Err(error) if error.fault() == Some(RemoteFault::Taken) => Ok(true),
        Err(error) => Err(error),
    }
}
