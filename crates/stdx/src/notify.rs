//! Tells the service manager how far a process is: one datagram to the socket that it named (sd_notify(3)). Without a
//! service manager nothing happens.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Where systemd says which socket it listens on.
const VARIABLE: &str = "NOTIFY_SOCKET";

/// Says that this process is ready, and that it is the service's main process from now on. A failure is logged: the
/// service manager will say the rest.
pub fn ready() {
    let Some(socket) = std::env::var_os(VARIABLE) else { return };
    let message = format!("READY=1\nMAINPID={}\n", std::process::id());
    if let Err(error) = send(&socket, message.as_bytes()) {
        tracing::warn!(socket = %socket.to_string_lossy(), %error, "the service manager could not be told");
    }
}

/// Sends a message to a socket by its path, or by its abstract name when it begins with `@`.
fn send(socket: &OsStr, message: &[u8]) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(message, &address).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> Vec<u8> {
        let mut buffer = [0; 64];
        let count = socket.recv(&mut buffer).unwrap();
        buffer[..count].to_vec()
    }

    #[test]
    fn a_socket_is_found_by_path_and_by_abstract_name() {
        let name = format!("trackbed-notify-{}", std::process::id());
        let path = std::env::temp_dir().join(&name);
        let by_path = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str(), b"one").unwrap();
        assert_eq!(received(&by_path), b"one");
        std::fs::remove_file(&path).unwrap();

        let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        let by_name = UnixDatagram::bind_addr(&address).unwrap();
        send(OsStr::new(&format!("@{name}")), b"two").unwrap();
        assert_eq!(received(&by_name), b"two");
    }

    #[test]
    fn nobody_at_the_other_end_is_an_error() {
        assert!(send(OsStr::new("/nonexistent/notify"), b"x").is_err());
    }
}
