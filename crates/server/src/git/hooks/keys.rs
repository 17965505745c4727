//! Deploy keys, made by the real `ssh-keygen`.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use trackbed_control::{ControlError, KeyPair};
use trackbed_core::{Name, Secret};

use super::aside::Aside;

/// How long making a key may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Makes a key pair (ed25519, without a passphrase: the store seals it).
pub(super) async fn make(data_dir: &Path, service: &Name) -> Result<KeyPair, ControlError> {
    let failed = |why: String| ControlError::Conflict {
        message: format!("cannot make a deploy key: {why}"),
        hint: Some("install ssh-keygen on the box: apt-get install openssh-client".into()),
    };
    let aside = Aside::make(data_dir, "key").map_err(|error| failed(error.to_string()))?;
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", "ed25519", "-N", "", "-f", "key", "-C"]).arg(format!("trackbed-{service}"));
    command.current_dir(aside.path()).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()));
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, command.output()).await;
    let output = output.map_err(|_| failed("ssh-keygen did not end in time".into()))?;
    let output = output.map_err(|error| failed(format!("ssh-keygen does not start: {error}")))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    let read = |name: &str| {
        std::fs::read_to_string(aside.path().join(name)).map_err(|error| failed(format!("{name}: {error}")))
    };
    let (private, public) = (Secret::new(read("key")?), read("key.pub")?.trim().to_owned());
    Ok(KeyPair { private, public })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_pair_is_new_each_time_and_nothing_of_it_stays_on_disk() {
        let folder = tempfile::tempdir().unwrap();
        let name = "shop".parse().unwrap();
        let (one, two) =
            (make(folder.path(), &name).await.unwrap(), make(folder.path(), &name).await.unwrap());
        assert!(one.public.starts_with("ssh-ed25519 ") && one.public.ends_with(" trackbed-shop"));
        assert!(one.private.expose().contains("OPENSSH PRIVATE KEY") && one.public != two.public);
        assert_eq!(std::fs::read_dir(folder.path().join("git/aside")).unwrap().count(), 0);
    }
}
