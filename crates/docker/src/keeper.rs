//! The keeper of one container: takes the locks, has it made and started, supervises, records the end, removes it.
//!
//! One thread. It belongs to nobody and outlives every control plane.

use std::path::Path;
use std::time::Duration;

use bollard::query_parameters::{
    CreateContainerOptions, DownloadFromContainerOptions, UploadToContainerOptions,
};
use futures_util::StreamExt;
use tokio::net::UnixListener;
use trackbed_core::instance::Exit;
use trackbed_sandbox::beside::{
    Log, Process, VolumeLocks, boot_id, detach, ensure_owned, report_progress, report_ready,
};

use crate::container;
use crate::daemon::{self, Daemon, words};
use crate::end::{self, Memory};
use crate::life;
use crate::records::{Folder, Order, State};
use crate::supervise::{Keeper, is_root};

/// Time between two signs that a preparation goes on.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// How often, and how long apart, an engine is asked whether a container has ended whose process is gone.
const END_LOOKS: u32 = 100;
const END_LOOK: Duration = Duration::from_millis(50);
/// Longest `/etc/passwd` that is read.
const PASSWD_LIMIT_BYTES: usize = 1 << 20;

/// Why there is no end to record.
enum Failure {
    /// Nothing of it ran, and nothing will.
    Setup(String),
    /// The engine does not say whether it runs. The lock files still name it, and whoever looks next asks again.
    Unknown(String),
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Failure::Setup(message)
    }
}

/// The body of `trackbed keeper <instance directory>`. Returns the exit code of the process.
///
/// It must be called in a process that has one thread. It forks once at the start, so that the keeper belongs to nobody.
pub fn keeper_main(instance_dir: &Path) -> i32 {
    if let Some(code) = detach() {
        return code;
    }
    let folder = Folder::new(instance_dir.to_owned());
    let Some(order) = folder.find_order() else { return 2 };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return 2 };
    let lived = runtime.block_on(live(&folder, &order));
    folder.clear_variables_at_end(&order);
    let _ = std::fs::remove_file(&order.socket);
    // Last: who sees the record of the end may rely on everything before.
    let exit = match lived {
        Ok(exit) => exit,
        Err(Failure::Setup(message)) => Exit::Setup { message },
        Err(Failure::Unknown(message)) => {
            Log::create(&folder.path("log")).note(&message);
            return 3;
        }
    };
    i32::from(folder.write_end(exit).is_err())
}

async fn live(folder: &Folder, order: &Order) -> Result<Exit, Failure> {
    let own = i32::try_from(std::process::id()).ok().and_then(Process::of);
    let keeper = own.ok_or_else(|| "cannot read the own start time from /proc".to_owned())?;
    let state = State { boot_id: boot_id(), keeper, init: None, host_port: None };
    let written = |error: std::io::Error| format!("cannot write into {}: {error}", folder.root().display());
    folder.reserve_end().map_err(written)?;
    folder.write_state(&state).map_err(written)?;
    if folder.find_end().is_some() {
        return Err("it was given up before it began".to_owned().into());
    }
    let listener = listen(&order.socket)?;
    let mut locks = VolumeLocks::take(&order.id, &order.title, &order.volumes, &order.container())?;
    let lived = Box::pin(run(folder, order, state, listener, &mut locks)).await;
    // Before the locks are free: nobody must be able to start it again.
    order.unlink_volumes();
    if !matches!(lived, Err(Failure::Unknown(_))) {
        let _ = locks.forget(&order.container());
    }
    lived
}

/// Makes the container and supervises it, with the locks held. What it leaves stays until the instance is removed.
async fn run(
    folder: &Folder,
    order: &Order,
    mut state: State,
    listener: UnixListener,
    locks: &mut VolumeLocks,
) -> Result<Exit, Failure> {
    order.link_volumes().map_err(|error| format!("cannot link the volumes: {error}"))?;
    let daemon = with_progress(daemon::connect(&order.daemon)).await.map_err(|error| error.message)?;
    let mut log = Log::create(&folder.path("log"));
    let memory = Memory::before(order);
    let begun = match with_progress(begin(&daemon, order)).await {
        Ok(Some(begun)) => {
            let signed = locks.name_process(begun.init);
            signed.map(|()| begun).map_err(|error| format!("cannot sign the volumes' locks: {error}"))
        }
        // It ran, and has ended already.
        Ok(None) => {
            report_ready();
            return Ok(end::read_log_and_exit(&daemon, order, memory, &mut log).await);
        }
        Err(message) => Err(message),
    };
    let written = begun.and_then(|begun| {
        state.init = Some(begun.init);
        state.host_port = begun.host_port;
        // Without it nobody could reach the container, or end it in good order.
        let written = folder.write_state(&state);
        written
            .map(|()| begun)
            .map_err(|error| format!("cannot write into {}: {error}", folder.root().display()))
    });
    let begun = match written {
        Ok(begun) => begun,
        Err(message) => {
            let removed = life::remove_container(&daemon, &order.container()).await;
            removed.map_err(|error| Failure::Unknown(format!("{message}; {error}")))?;
            return Err(message.into());
        }
    };
    // What is secret has been handed on.
    let _ = folder.clear_variables(order);
    report_ready();
    Ok(Keeper::new(order, daemon, order.container(), begun.init).supervise(listener, memory, &mut log).await)
}

/// A container that runs.
struct Begun {
    init: Process,
    host_port: Option<u16>,
}

/// Makes and starts the container. Returns none when it has ended already.
async fn begin(daemon: &Daemon, order: &Order) -> Result<Option<Begun>, String> {
    let name = order.container();
    let options = CreateContainerOptions { name: Some(name.clone()), ..Default::default() };
    let created = daemon.api.create_container(Some(options), container::body(order)).await;
    created.map_err(|error| {
        if daemon::is_missing(&error) {
            let what = order.image.reference.as_ref().unwrap_or(&order.image.id);
            return format!(
                "{} has no image {what} any more ({}): somebody removed it; deploy again",
                daemon.title, order.image.id
            );
        }
        let why = words(&error);
        // Podman's package does not bring it.
        let way_out = if why.contains("container-init") { " (apt install catatonit)" } else { "" };
        format!("{} makes no container of image {}: {why}{way_out}", daemon.title, order.image.id)
    })?;
    hand_over(daemon, order, &name).await?;
    make_links(daemon, order, &name).await?;
    daemon
        .api
        .start_container(&name, None)
        .await
        .map_err(|error| format!("{} does not start the container: {}", daemon.title, words(&error)))?;
    let seen = daemon.inspect(&name).await;
    let seen = seen.map_err(|error| format!("{} does not say what runs: {}", daemon.title, words(&error)))?;
    let state = seen.state.unwrap_or_default();
    if state.running != Some(true) {
        return Ok(None);
    }
    let pid = state.pid.and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0);
    let Some(init) = pid.and_then(Process::of) else {
        // It may have ended in between, which the engine knows a moment later.
        for _ in 0..END_LOOKS {
            let again = daemon.inspect(&name).await.ok().and_then(|seen| seen.state);
            if again.is_some_and(|state| state.running == Some(false)) {
                return Ok(None);
            }
            tokio::time::sleep(END_LOOK).await;
        }
        return Err(format!("{} runs the container where this box does not see its processes", daemon.title));
    };
    let ports = seen.network_settings.and_then(|settings| settings.ports).unwrap_or_default();
    let port = container::published(order).and_then(|port| ports.get(&port).cloned().flatten());
    let host_port = port.and_then(|bindings| bindings.first()?.host_port.as_ref()?.parse().ok());
    Ok(Some(Begun { init, host_port }))
}

/// Gives the volumes to the user that the image runs as. Root may write anyway, and its image may have handed them on; only
/// what the sandbox's user of this service has is taken from it, so that the sandbox notices when it gets them back.
async fn hand_over(daemon: &Daemon, order: &Order, name: &str) -> Result<(), String> {
    let user = order.image.user.split(':').next().unwrap_or_default();
    if order.volumes.is_empty() || !is_root() {
        return Ok(());
    }
    let uid = match user {
        "" | "root" => 0,
        user => match user.parse::<u32>() {
            Ok(uid) => uid,
            Err(_) => find_user(daemon, name, user).await?,
        },
    };
    for volume in &order.volumes {
        let owner = std::fs::metadata(&volume.host_path).map(|top| std::os::unix::fs::MetadataExt::uid(&top));
        if uid == 0 && owner.is_ok_and(|owner| owner != order.sandbox_uid) {
            continue;
        }
        ensure_owned(Path::new(&volume.host_path), uid).map_err(|error| {
            format!("cannot give {} to user {uid} of the image: {error}", volume.host_path)
        })?;
    }
    Ok(())
}

/// Puts symbolic links into the container, which does not run yet.
async fn make_links(daemon: &Daemon, order: &Order, name: &str) -> Result<(), String> {
    if order.links.is_empty() {
        return Ok(());
    }
    let mut tar = tar::Builder::new(Vec::new());
    for link in &order.links {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        let added = tar.append_link(&mut header, link.at.trim_start_matches('/'), &link.to);
        added.map_err(|error| format!("cannot make a link at {}: {error}", link.at))?;
    }
    let bytes = tar.into_inner().map_err(|error| format!("cannot make links: {error}"))?;
    let options = UploadToContainerOptions { path: "/".to_owned(), ..Default::default() };
    let sent = daemon.api.upload_to_container(name, Some(options), bollard::body_full(bytes.into())).await;
    sent.map_err(|error| {
        format!("{} makes no link at {}: {}", daemon.title, order.links[0].at, words(&error))
    })
}

/// Reads `/etc/passwd` of the container (archive of one file), which does not run yet.
async fn find_user(daemon: &Daemon, name: &str, user: &str) -> Result<u32, String> {
    let missing =
        || format!("the image runs as user `{user}`, which its /etc/passwd does not have; name it by number");
    let options = DownloadFromContainerOptions { path: "/etc/passwd".to_owned() };
    let mut stream = daemon.api.download_from_container(name, Some(options));
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await {
        bytes.extend_from_slice(&piece.map_err(|_| missing())?);
        if bytes.len() > PASSWD_LIMIT_BYTES {
            return Err(missing());
        }
    }
    let mut archive = tar::Archive::new(bytes.as_slice());
    let mut text = String::new();
    for entry in archive.entries().map_err(|_| missing())?.flatten().take(1) {
        let mut entry = entry;
        std::io::Read::read_to_string(&mut entry, &mut text).map_err(|_| missing())?;
    }
    find_uid(&text, user).ok_or_else(missing)
}

/// Finds a user's number (passwd(5)).
fn find_uid(passwd: &str, user: &str) -> Option<u32> {
    let mut rows = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    rows.find(|fields| fields.first() == Some(&user))?.get(2)?.parse().ok()
}

/// Says, now and then, that the work goes on.
async fn with_progress<T>(work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = tokio::time::sleep(PROGRESS_EVERY) => report_progress(),
        }
    }
}

fn listen(socket: &Path) -> Result<UnixListener, String> {
    let _ = std::fs::remove_file(socket);
    let failed = |error: std::io::Error| format!("cannot listen on {}: {error}", socket.display());
    let listener = UnixListener::bind(socket).map_err(failed)?;
    std::fs::set_permissions(socket, std::os::unix::fs::PermissionsExt::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_of_an_image_is_found_by_name() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\napp:x:1001:1002::/:/bin/sh\nbroken\n";
        assert_eq!(find_uid(passwd, "app"), Some(1001));
        assert_eq!([find_uid(passwd, "broken"), find_uid(passwd, "nobody")], [None, None]);
    }
}
