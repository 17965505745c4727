//! `trackbed install`: a box that systemd keeps alive.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use trackbed_stdx::{files, program};

use crate::args::parse_address;
use crate::box_flags::BoxFlags;
use crate::session::{Refusal, Session};
use crate::units::{APPS, EDGE, Plan, SERVE};

/// Where an administrator's units are.
const UNITS: &str = "/etc/systemd/system";
/// Where the binary goes.
const BINARY: &str = "/usr/local/bin/trackbed";
/// There only where systemd is process 1 (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";

/// Run the box by systemd: at boot, and through upgrades without a lost request
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  trackbed install --listen 0.0.0.0:80 --domain apps.example.com\n  \
                        trackbed install --print\n  trackbed install --remove\n\n\
                        To upgrade, run `install` of the new binary with the same flags: apps and connections go on.")]
pub(crate) struct Args {
    /// Address that services are reached at
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:80", value_parser = parse_address)]
    listen: String,
    #[command(flatten)]
    flags: BoxFlags,
    /// Use this binary where it is, rather than a copy in /usr/local/bin
    #[arg(long)]
    in_place: bool,
    /// Print the units; change nothing
    #[arg(long)]
    print: bool,
    /// Stop the box and take the units away; data and binary stay
    #[arg(long, conflicts_with_all = ["print", "in_place", "listen", "domain"])]
    remove: bool,
}

pub(crate) async fn run(session: &Session, args: &Args) -> Result<u8> {
    let own = std::env::current_exe().context("cannot find this program's own file")?;
    let binary = if args.in_place { own } else { PathBuf::from(BINARY) };
    let plan =
        Plan { binary: &binary, data_dir: &session.data_dir, listen: &args.listen, flags: &args.flags };
    if args.print {
        for (name, text) in plan.units() {
            session.output.result(format!("# {UNITS}/{name}\n{text}"))?;
        }
        return Ok(0);
    }
    check_host()?;
    if args.remove {
        return remove(session);
    }
    if !is_active(SERVE) && session.client().box_info().await.is_ok() {
        let folder = session.data_dir.display();
        return Err(Refusal::with_hint(
            format!("a box that systemd did not start runs on {folder}"),
            "end it with `trackbed down --all`; its data stays, and its services start again with the new units",
        ));
    }
    if !args.in_place && copy_binary(&binary)? {
        session.output.talk(format!("copied this program to {}", binary.display()));
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&session.data_dir)
        .with_context(|| format!("cannot make {}", session.data_dir.display()))?;
    let edge_ran = is_active(EDGE);
    for (name, text) in plan.units() {
        let changed = write_unit(Path::new(UNITS), name, &text)?;
        if changed {
            session.output.talk(format!("wrote {UNITS}/{name}"));
        }
        if changed && edge_ran && name == EDGE {
            session.output.talk(format!(
                "a new address or data folder comes into force with `systemctl restart {EDGE}`, which ends open connections"
            ));
        }
    }
    systemctl(&["daemon-reload"])?;
    systemctl(&["enable", APPS, EDGE, SERVE])?;
    systemctl(&["start", APPS, EDGE])?;
    // It replaces the edge by itself when that runs another program.
    systemctl(&["restart", SERVE])?;
    session
        .output
        .talk(format!("the box runs; `trackbed status` shows it, `journalctl -u {SERVE}` is its log"));
    Ok(0)
}

fn check_host() -> Result<()> {
    if trackbed_client::user_id() != 0 {
        return Err(Refusal::with_hint(
            "only root may install units of the whole machine",
            "run it with sudo; as an ordinary user, `trackbed serve` runs a box until you log out",
        ));
    }
    if !Path::new(BOOTED).is_dir() {
        return Err(Refusal::with_hint(
            "systemd does not run this machine",
            "let the supervisor that does keep `trackbed serve --listen ADDR --domain ROOT` alive; it starts its edge \
             itself, and both survive its restarts. `trackbed install --print` shows the units all the same",
        ));
    }
    Ok(())
}

fn remove(session: &Session) -> Result<u8> {
    let units = [SERVE, EDGE, APPS];
    let present: Vec<&str> = units.into_iter().filter(|name| Path::new(UNITS).join(name).exists()).collect();
    if present.is_empty() {
        session.output.talk("nothing is installed");
        return Ok(0);
    }
    let mut disable = vec!["disable", "--now"];
    disable.extend(&present);
    systemctl(&disable)?;
    for name in present {
        let path = Path::new(UNITS).join(name);
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    systemctl(&["daemon-reload"])?;
    session.output.talk(format!(
        "the box is stopped and its units are gone; its data stays in {}",
        session.data_dir.display()
    ));
    Ok(0)
}

/// Puts this program at a path, unless it is there. Returns whether it had to. The running processes of an earlier one
/// keep theirs.
fn copy_binary(to: &Path) -> Result<bool> {
    let own = Path::new(program::OWN);
    if program::digest(to).ok() == Some(program::digest(own).context("cannot read this program")?) {
        return Ok(false);
    }
    let copied = (|| {
        let beside = files::temporary_beside(to)?;
        let done = fs::copy(own, &beside)
            .and_then(|_| fs::set_permissions(&beside, fs::Permissions::from_mode(0o755)))
            .and_then(|()| fs::File::open(&beside)?.sync_all())
            .and_then(|()| fs::rename(&beside, to));
        if done.is_err() {
            let _ = fs::remove_file(&beside);
        }
        done
    })();
    copied.with_context(|| format!("cannot copy this program to {}", to.display()))?;
    Ok(true)
}

/// Writes a unit, unless it is there as it should be. Returns whether it had to.
fn write_unit(folder: &Path, name: &str, text: &str) -> Result<bool> {
    let path = folder.join(name);
    match fs::read(&path) {
        Ok(present) if present == text.as_bytes() => return Ok(false),
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot read {}", path.display()));
        }
        Ok(_) | Err(_) => {}
    }
    files::write_atomic(&path, text.as_bytes(), 0o644)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(true)
}

fn is_active(unit: &str) -> bool {
    let mut command = Command::new("systemctl");
    command.args(["is-active", "--quiet", unit]).stdin(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn systemctl(arguments: &[&str]) -> Result<()> {
    let attempt = format!("systemctl {}", arguments.join(" "));
    let output = Command::new("systemctl").args(arguments).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run `{attempt}`"))?;
    if !output.status.success() {
        bail!("`{attempt}` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_written_once() {
        let folder = std::env::temp_dir().join(format!("trackbed-units-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let writes = [("one", true), ("one", false), ("two", true)];
        for (text, wanted) in writes {
            assert_eq!(write_unit(&folder, "x.service", text).unwrap(), wanted, "{text}");
            assert_eq!(fs::read_to_string(folder.join("x.service")).unwrap(), text);
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
