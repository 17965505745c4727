//! The file tree that an app sees: the box's /usr read-only, a few files of /etc, its own /dev, /proc and /tmp, /app,
//! its volumes, and nothing else of the box.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::apptree;
use crate::links;
use crate::mounts::{self, NODEV, NOSUID, RDONLY};
use crate::ownership::own;
use crate::records::Order;

/// Files and directories of /etc that programs need and that hold no secret of the box.
const ETC: [&str; 28] = [
    "alternatives",
    "ca-certificates",
    "ca-certificates.conf",
    "crypto-policies",
    "debian_version",
    "fonts",
    "gai.conf",
    "host.conf",
    "java",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "locale.conf",
    "localtime",
    "magic",
    "mime.types",
    "nsswitch.conf",
    "os-release",
    "perl",
    "pki",
    "protocols",
    "python3",
    "rpc",
    "services",
    "ssl",
    "terminfo",
    "timezone",
];
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
const PROC_HIDDEN: [&str; 5] = ["kcore", "keys", "sysrq-trigger", "timer_list", "kmsg"];
const PROC_READ_ONLY: [&str; 5] = ["bus", "fs", "irq", "sys", "acpi"];

/// A step of the way and why it failed.
pub(crate) type Step<T> = Result<T, String>;

pub(crate) trait Named<T> {
    fn step(self, attempt: impl FnOnce() -> String) -> Step<T>;
}

impl<T, E: std::fmt::Display> Named<T> for Result<T, E> {
    fn step(self, attempt: impl FnOnce() -> String) -> Step<T> {
        self.map_err(|error| format!("cannot {}: {error}", attempt()))
    }
}

/// Replaces the root of this process, which must be alone in new mount and pid namespaces. `folder` is the directory of
/// the instance. Returns what had to be left out.
pub(crate) fn enter(order: &Order, folder: &Path, uid: u32) -> Step<Vec<String>> {
    let mut notes = Vec::new();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .step(|| "make mounts private".to_owned())?;
    nix::unistd::chdir(folder).step(|| format!("enter {}", folder.display()))?;
    let root = Path::new("root");
    make_folder(root)?;
    tmpfs(root, "mode=755,size=4m")?;
    system(root, &mut notes)?;
    etc(root, order, uid)?;
    devices(root)?;
    proc(root)?;
    temporary(root, uid)?;
    // Taken now, placed after the change of root: see `mounts`.
    let mut later: Vec<(OwnedFd, PathBuf)> = Vec::new();
    for path in &order.host_paths {
        let taken =
            mounts::take(path, RDONLY | NOSUID | NODEV).step(|| format!("show {}", path.display()))?;
        later.push((taken, path.clone()));
    }
    apptree::mount_app(order, root, uid, &mut notes)?;
    links::make(order, &root.join("app"))?;
    let mut volumes: Vec<_> = order.volumes.iter().collect();
    volumes.sort_by(|a, b| a.mount.cmp(&b.mount));
    for volume in volumes {
        let taken = mounts::take(Path::new(&volume.host_path), NOSUID | NODEV)
            .step(|| format!("mount volume {} from {}", volume.volume, volume.host_path))?;
        later.push((taken, volume.mount.as_str().into()));
    }
    for bind in &order.binds {
        let attributes = if bind.writable { NOSUID | NODEV } else { NOSUID | NODEV | RDONLY };
        let taken = mounts::take(Path::new(&bind.host_path), attributes)
            .step(|| format!("mount {} for the job", bind.host_path))?;
        later.push((taken, bind.inside.as_str().into()));
    }
    change_root(root)?;
    for (taken, at) in &later {
        let kind = fs::metadata(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(taken)));
        if kind.is_ok_and(|kind| kind.is_file()) {
            make_folder(at.parent().unwrap_or(Path::new("/")))?;
            touch(at)?;
        } else {
            make_folder(at)?;
        }
        mounts::place(taken, at).step(|| format!("mount on {}", at.display()))?;
    }
    let sealed =
        MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(None::<&str>, "/", None::<&str>, sealed, None::<&str>)
        .step(|| "make the root read-only".to_owned())?;
    Ok(notes)
}

fn change_root(root: &Path) -> Step<()> {
    nix::unistd::chdir(root).step(|| "enter the new root".to_owned())?;
    // With both the same, the old root is stacked on the new one and can be taken off (pivot_root(2)).
    nix::unistd::pivot_root(".", ".").step(|| "change the root".to_owned())?;
    umount2(".", MntFlags::MNT_DETACH).step(|| "leave the old root".to_owned())?;
    nix::unistd::chdir("/").step(|| "enter /".to_owned())
}

pub(crate) fn make_folder(path: &Path) -> Step<()> {
    fs::create_dir_all(path).step(|| format!("make {}", path.display()))
}

fn touch(path: &Path) -> Step<()> {
    if path.exists() {
        return Ok(());
    }
    fs::File::create(path).map(drop).step(|| format!("make {}", path.display()))
}

pub(crate) fn tmpfs(at: &Path, options: &str) -> Step<()> {
    make_folder(at)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some(options))
        .step(|| format!("mount tmpfs on {}", at.display()))
}

/// Shows a file or tree of the box. One that the box does not have is left out.
fn show(from: &Path, at: &Path, attributes: u64) -> Step<()> {
    let Ok(kind) = fs::metadata(from) else { return Ok(()) };
    if kind.is_dir() {
        make_folder(at)?
    } else {
        touch(at)?
    }
    let taken = mounts::take(from, attributes).step(|| format!("show {}", from.display()))?;
    mounts::place(&taken, at).step(|| format!("mount on {}", at.display()))
}

fn system(root: &Path, notes: &mut Vec<String>) -> Step<()> {
    show(Path::new("/usr"), &root.join("usr"), RDONLY | NOSUID | NODEV)?;
    for name in ["bin", "lib", "lib32", "lib64", "libx32", "sbin"] {
        let on_box = Path::new("/").join(name);
        match fs::read_link(&on_box) {
            Ok(target) => symlink(&target, root.join(name)).step(|| format!("link /{name}"))?,
            Err(_) => show(&on_box, &root.join(name), RDONLY | NOSUID | NODEV)?,
        }
    }
    // Runtimes size their thread pools by this; a box without it only loses the hint.
    let cpus = Path::new("/sys/devices/system/cpu");
    make_folder(&root.join("sys/devices/system"))?;
    if show(cpus, &root.join("sys/devices/system/cpu"), RDONLY | NOSUID | NODEV).is_err() {
        notes.push("/sys/devices/system/cpu: cannot be shown".to_owned());
    }
    Ok(())
}

fn etc(root: &Path, order: &Order, uid: u32) -> Step<()> {
    let etc = root.join("etc");
    make_folder(&etc)?;
    for name in ETC {
        let on_box = Path::new("/etc").join(name);
        match fs::read_link(&on_box) {
            Ok(target)
                if target.starts_with("/usr")
                    || target.starts_with("/etc")
                    || target.starts_with("../usr") =>
            {
                symlink(&target, etc.join(name)).step(|| format!("link /etc/{name}"))?;
            }
            _ => show(&on_box, &etc.join(name), RDONLY | NOSUID | NODEV)?,
        }
    }
    let put = |name: &str, text: &str| put_file(&etc.join(name), text);
    put(
        "passwd",
        &format!(
            "root:x:0:0:root:/:/bin/sh\napp:x:{uid}:{uid}:{}:/tmp/home:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
            order.service
        ),
    )?;
    put("group", &format!("root:x:0:\napp:x:{uid}:\nnogroup:x:65534:\n"))?;
    put("hostname", "trackbed\n")?;
    let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
    put("hosts", &format!("127.0.0.1 localhost trackbed\n::1 localhost\n{hosts}"))?;
    put("resolv.conf", &resolvers(order.has_own_network()))
}

fn put_file(path: &Path, text: &str) -> Step<()> {
    use std::io::Write;
    fs::File::create(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .step(|| format!("write {}", path.display()))
}

/// Returns the box's resolvers. A stub on the box's loopback cannot be reached from another network namespace, so there
/// the stub's own upstreams are taken.
fn resolvers(own_network: bool) -> String {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let loopback =
        |line: &str| line.starts_with("nameserver") && (line.contains(" 127.") || line.contains(" ::1"));
    if !own_network || !text.lines().any(loopback) {
        return text;
    }
    let upstream = fs::read_to_string("/run/systemd/resolve/resolv.conf").unwrap_or_default();
    if upstream.lines().any(|line| line.starts_with("nameserver")) && !upstream.lines().any(loopback) {
        return upstream;
    }
    let rest: String = text.lines().filter(|line| !loopback(line)).map(|line| format!("{line}\n")).collect();
    if rest.contains("nameserver") { rest } else { format!("{rest}nameserver 1.1.1.1\nnameserver 9.9.9.9\n") }
}

fn devices(root: &Path) -> Step<()> {
    let dev = root.join("dev");
    make_folder(&dev)?;
    let flags = MsFlags::MS_NOSUID;
    mount(Some("tmpfs"), &dev, Some("tmpfs"), flags, Some("mode=755,size=64k"))
        .step(|| "mount /dev".to_owned())?;
    for name in DEVICES {
        show(&Path::new("/dev").join(name), &dev.join(name), NOSUID)?;
    }
    make_folder(&dev.join("pts"))?;
    let options = Some("newinstance,ptmxmode=0666,mode=620");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(Some("devpts"), &dev.join("pts"), Some("devpts"), flags, options)
        .step(|| "mount /dev/pts".to_owned())?;
    tmpfs(&dev.join("shm"), "mode=1777,size=256m")?;
    let links = [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ];
    for (name, target) in links {
        symlink(target, dev.join(name)).step(|| format!("link /dev/{name}"))?;
    }
    let sealed = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID;
    mount(None::<&str>, &dev, None::<&str>, sealed, None::<&str>).step(|| "make /dev read-only".to_owned())
}

fn proc(root: &Path) -> Step<()> {
    let proc = root.join("proc");
    make_folder(&proc)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let mounted = |options| mount(Some("proc"), &proc, Some("proc"), flags, options);
    mounted(Some("hidepid=2")).or_else(|_| mounted(None::<&str>)).step(|| "mount /proc".to_owned())?;
    for name in PROC_HIDDEN {
        if proc.join(name).exists() {
            show(Path::new("/dev/null"), &proc.join(name), RDONLY)?;
        }
    }
    for name in PROC_READ_ONLY {
        let path = proc.join(name);
        if path.exists() {
            let taken = mounts::take(&path, RDONLY).step(|| format!("take {}", path.display()))?;
            mounts::place(&taken, &path).step(|| format!("seal {}", path.display()))?;
        }
    }
    Ok(())
}

fn temporary(root: &Path, uid: u32) -> Step<()> {
    tmpfs(&root.join("tmp"), "mode=1777,size=1g")?;
    let home = root.join("tmp/home");
    make_folder(&home)?;
    own(&home, uid).step(|| "give /tmp/home to the app".to_owned())?;
    tmpfs(&root.join("run"), "mode=1777,size=16m")?;
    make_folder(&root.join("var"))?;
    symlink("/tmp", root.join("var/tmp")).step(|| "link /var/tmp".to_owned())?;
    symlink("/run", root.join("var/run")).step(|| "link /var/run".to_owned())
}
