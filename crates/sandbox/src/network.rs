//! The network of a box: one bridge, a subnet that nothing else uses, and rules that let apps out but not at each other.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use trackbed_core::InstanceId;
use trackbed_stdx::files;

use crate::netlink::Netlink;
use crate::records::Link;

const PREFIX: u8 = 16;
/// Second bytes of `10.x.0.0/16` that are tried.
const CANDIDATES: std::ops::Range<u8> = 201..255;
/// Two boxes that start at once must not choose the same subnet.
const CHOICE_LOCK: &str = "/run/trackbed-network.lock";

#[derive(Debug)]
pub(crate) struct Network {
    /// A short hash of the data directory, so that two boxes on one machine never touch each other's links.
    tag: String,
    second: u8,
}

impl Network {
    /// Makes bridge, address, forwarding and rules, or finds them made. Also returns what may not work. Leaves nothing behind
    /// after an error.
    pub(crate) fn ensure(tag: &str) -> io::Result<(Network, Vec<String>)> {
        Self::make(tag).inspect_err(|_| remove_unused(tag))
    }

    fn make(tag: &str) -> io::Result<(Network, Vec<String>)> {
        let lock = lock_choice()?;
        let bridge = bridge_name(tag);
        let mut netlink = Netlink::open()?;
        netlink.ensure_bridge(&bridge).map_err(|error| named(&format!("make bridge {bridge}"), &error))?;
        let second = choose_subnet(&bridge)?;
        let network = Network { tag: tag.to_owned(), second };
        let gateway = network.gateway();
        netlink
            .ensure_address(&bridge, gateway, PREFIX)
            .and_then(|()| netlink.up(&bridge))
            .map_err(|error| named(&format!("give {bridge} the address {gateway}"), &error))?;
        drop(lock);
        crate::mounts::write_file("/proc/sys/net/ipv4/ip_forward", "1")
            .map_err(|error| named("allow forwarding", &error))?;
        let missing = network.ensure_rules()?;
        Ok((network, missing))
    }

    /// Puts the rules in force again: a firewall that was reloaded may have thrown them away.
    pub(crate) fn ensure_rules(&self) -> io::Result<Vec<String>> {
        run_nft(&self.rules())?;
        Ok(self.pass_other_firewalls())
    }

    fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.second, 0, 1)
    }

    /// Returns the first free place. `used` are the addresses of all living instances.
    pub(crate) fn free_link(&self, id: &InstanceId, used: &HashSet<Ipv4Addr>) -> Option<Link> {
        let address = (2..=u16::MAX - 1)
            .map(|host| Ipv4Addr::new(10, self.second, (host >> 8) as u8, host as u8))
            .find(|address| !used.contains(address))?;
        let veth = self.veth_name(id);
        Some(Link { bridge: bridge_name(&self.tag), veth, address, gateway: self.gateway(), prefix: PREFIX })
    }

    /// Returns the name of an instance's link.
    pub(crate) fn veth_name(&self, id: &InstanceId) -> String {
        let text = id.as_str();
        format!("{}{}", veth_prefix(&self.tag), &text[text.len() - 7..])
    }

    /// One table, replaced as a whole. Other bridges of boxes (`tbb…`) count as other apps.
    fn rules(&self) -> String {
        let (table, bridge, second) = (table_name(&self.tag), bridge_name(&self.tag), self.second);
        format!(
            "table ip {table}\ndelete table ip {table}\ntable ip {table} {{\n\
             chain out {{ type nat hook postrouting priority srcnat; policy accept;\n\
             ip saddr 10.{second}.0.0/{PREFIX} oifname != \"{bridge}\" masquerade\n}}\n\
             chain forward {{ type filter hook forward priority filter; policy accept;\n\
             iifname \"{bridge}\" oifname \"tbb*\" drop\n\
             iifname \"{bridge}\" ip daddr 169.254.0.0/16 drop\n}}\n}}\n"
        )
    }

    /// Docker and ufw set the policy of FORWARD to drop, and no rule of our own table can undo that.
    fn pass_other_firewalls(&self) -> Vec<String> {
        let Ok(rules) = run("iptables", &["-S", "FORWARD"]) else { return Vec::new() };
        if !rules.contains("-P FORWARD DROP") {
            return Vec::new();
        }
        let bridge = bridge_name(&self.tag);
        let chain = if run("iptables", &["-S", "DOCKER-USER"]).is_ok() { "DOCKER-USER" } else { "FORWARD" };
        let out: [&str; 7] = ["-i", &bridge, "!", "-o", &bridge, "-j", "ACCEPT"];
        let back: [&str; 8] =
            ["-o", &bridge, "-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT"];
        for rule in [&out[..], &back[..]] {
            let with = |verb| [&[verb, chain][..], rule].concat();
            if run("iptables", &with("-C")).is_err()
                && let Err(error) = run("iptables", &with("-I"))
            {
                return vec![format!(
                    "internet access of apps: the FORWARD policy is drop and no exception could be added ({error})"
                )];
            }
        }
        Vec::new()
    }

    /// Returns the names of this box's links to instances.
    pub(crate) fn links(&self) -> Vec<String> {
        let prefix = veth_prefix(&self.tag);
        links().filter(|name| name.starts_with(&prefix)).collect()
    }

    pub(crate) fn remove_link(&self, name: &str) {
        if let Ok(mut netlink) = Netlink::open() {
            let _ = netlink.remove(name);
        }
    }

    /// Removes everything of this box from the network.
    pub(crate) fn dismantle(&self) {
        for name in self.links() {
            self.remove_link(&name);
        }
        remove(&self.tag);
    }

    /// Removes it again where it is not used after all.
    pub(crate) fn give_up(self) {
        remove_unused(&self.tag);
    }
}

/// Removes bridge and rules, unless instances of an earlier start are still at the bridge.
fn remove_unused(tag: &str) {
    let ports = fs::read_dir(format!("/sys/class/net/{}/brif", bridge_name(tag)));
    if ports.is_ok_and(|mut ports| ports.next().is_some()) {
        return;
    }
    remove(tag);
}

/// Removes bridge and rules.
fn remove(tag: &str) {
    if let Ok(mut netlink) = Netlink::open() {
        let _ = netlink.remove(&bridge_name(tag));
    }
    let _ = run_nft(&format!("delete table ip {}\n", table_name(tag)));
}

fn table_name(tag: &str) -> String {
    format!("trackbed_{tag}")
}

fn bridge_name(tag: &str) -> String {
    format!("tbb{tag}")
}

fn veth_prefix(tag: &str) -> String {
    // A link's name has at most fifteen characters.
    format!("tbv{}", &tag[..5])
}

fn links() -> impl Iterator<Item = String> {
    let entries = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

fn lock_choice() -> io::Result<nix::fcntl::Flock<fs::File>> {
    for _ in 0..500 {
        if let Some(lock) = files::try_lock(Path::new(CHOICE_LOCK))? {
            return Ok(lock);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(io::Error::other(format!("another box holds {CHOICE_LOCK}")))
}

/// Returns the second byte of the bridge's subnet, or of one that no route of the box touches.
fn choose_subnet(bridge: &str) -> io::Result<u8> {
    let text = fs::read_to_string("/proc/net/route")?;
    let mut taken: Vec<(u32, u32)> = Vec::new();
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let word = |index: usize| Some(u32::from_str_radix(fields.get(index)?, 16).ok()?.swap_bytes());
        let (Some(network), Some(mask)) = (word(1), word(7)) else { continue };
        if fields.first() == Some(&bridge) && network >> 24 == 10 {
            return Ok((network >> 16) as u8);
        }
        if mask != 0 {
            taken.push((network, mask));
        }
    }
    CANDIDATES
        .into_iter()
        .find(|second| {
            let ours = u32::from(Ipv4Addr::new(10, *second, 0, 0));
            let both = |mask: u32| mask & 0xffff_0000;
            !taken.iter().any(|(network, mask)| network & both(*mask) == ours & both(*mask))
        })
        .ok_or_else(|| io::Error::other("no subnet from 10.201.0.0/16 to 10.254.0.0/16 is free"))
}

fn run_nft(rules: &str) -> io::Result<()> {
    let failed = |error: &io::Error| named("run nft (install the package nftables)", error);
    let mut child = system("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(&error))?;
    // One that refuses may end before it has read all: what it says of that is better than "broken pipe".
    let written = child.stdin.take().map_or(Ok(()), |mut input| input.write_all(rules.as_bytes()));
    let done = child.wait_with_output()?;
    if done.status.success() {
        return written;
    }
    Err(io::Error::other(format!("nft refused the rules: {}", String::from_utf8_lossy(&done.stderr).trim())))
}

/// A program of the system. `su` without a dash keeps the `PATH` of whoever calls it, in which `sbin` is missing on Debian.
fn system(program: &str) -> Command {
    let mut command = Command::new(program);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin:/sbin"));
    command
}

fn run(program: &str, arguments: &[&str]) -> io::Result<String> {
    let done = system(program).args(arguments).stdin(Stdio::null()).output()?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    Err(io::Error::other(String::from_utf8_lossy(&done.stderr).trim().to_owned()))
}

fn named(attempt: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {attempt}: {error}"))
}
