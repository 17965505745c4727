//! Which ports the processes of an instance listen on, as `/proc` tells.

use std::collections::HashSet;
use std::fs;

use trackbed_core::instance::Listener;

/// Returns the inodes of the sockets that a process holds.
pub(crate) fn socket_inodes(pid: i32) -> Vec<u64> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let targets = entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    targets
        .filter_map(|target| target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok())
        .collect()
}

/// Reads the listening sockets in the network namespace of a process, all or those with the inodes.
pub(crate) fn listeners(pid: i32, inodes: Option<&HashSet<u64>>) -> Vec<Listener> {
    let mut found: Vec<Listener> = Vec::new();
    for file in ["tcp", "tcp6"] {
        let text = fs::read_to_string(format!("/proc/{pid}/net/{file}")).unwrap_or_default();
        for listener in text.lines().skip(1).filter_map(|line| parse_listener(line, inodes)) {
            match found.iter_mut().find(|known| known.port == listener.port) {
                Some(known) => known.loopback_only &= listener.loopback_only,
                None => found.push(listener),
            }
        }
    }
    found.sort_by_key(|listener| listener.port);
    found
}

fn parse_listener(line: &str, inodes: Option<&HashSet<u64>>) -> Option<Listener> {
    let mut fields = line.split_ascii_whitespace();
    let (address, port) = fields.nth(1)?.split_once(':')?;
    let listening = fields.nth(1)? == "0A";
    let inode: u64 = fields.nth(5)?.parse().ok()?;
    if !listening || inodes.is_some_and(|inodes| !inodes.contains(&inode)) {
        return None;
    }
    // Words in the byte order of the machine: 127.x ends in 7F, ::1 in 01000000, ::ffff:127.x as the first.
    let loopback = match address.len() {
        8 => address.ends_with("7F"),
        _ => {
            address == "00000000000000000000000001000000"
                || (address.starts_with("0000000000000000FFFF0000") && address.ends_with("7F"))
        }
    };
    Some(Listener { port: u16::from_str_radix(port, 16).ok()?, loopback_only: loopback })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_rows_are_read_with_their_reach() {
        let row = |address: &str, state: &str| {
            format!(
                "0: {address} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 10001 0 4711 1 0 100"
            )
        };
        let any = parse_listener(&row("00000000:1F90", "0A"), None).unwrap();
        assert_eq!(any, Listener { port: 8080, loopback_only: false });
        assert!(parse_listener(&row("0100007F:1F90", "0A"), None).unwrap().loopback_only);
        assert!(parse_listener(&row("00000000:1F90", "01"), None).is_none());
        assert!(parse_listener(&row("00000000:1F90", "0A"), Some(&HashSet::from([1]))).is_none());
        assert!(parse_listener(&row("00000000:1F90", "0A"), Some(&HashSet::from([4711]))).is_some());
    }
}
