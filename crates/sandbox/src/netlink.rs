//! The few words of rtnetlink that links, addresses and routes need; no `ip` binary is run.

#![allow(unsafe_code)]

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType};

const HEADER_BYTES: usize = 16;
const NEST: u16 = 0x8000;
// From linux/if_link.h, linux/veth.h and linux/rtnetlink.h.
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_PID: u16 = 19;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_GATEWAY: u16 = 5;
const RT_TABLE_MAIN: u8 = 254;
const UP: u32 = libc::IFF_UP as u32;
const CREATE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;

/// A question to the kernel's network, in the network namespace of the caller.
pub(crate) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16) -> Message {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        let flags = flags | (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        Message(bytes)
    }

    fn link_header(&mut self, index: u32, flags: u32, change: u32) {
        self.0.extend([0; 4]);
        for word in [index, flags, change] {
            self.0.extend(word.to_ne_bytes());
        }
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.0.extend((4 + value.len() as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn text(&mut self, kind: u16, value: &str) {
        let mut value = value.as_bytes().to_vec();
        value.push(0);
        self.attribute(kind, &value);
    }

    fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Message)) {
        let start = self.0.len();
        self.0.extend([0; 4]);
        fill(self);
        let length = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.0[start + 2..start + 4].copy_from_slice(&(kind | NEST).to_ne_bytes());
    }
}

impl Netlink {
    pub(crate) fn open() -> io::Result<Netlink> {
        let socket = nix::sys::socket::socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        Ok(Netlink { socket, sequence: 0 })
    }

    fn ask(&mut self, mut message: Message) -> io::Result<()> {
        self.sequence += 1;
        let length = message.0.len() as u32;
        message.0[0..4].copy_from_slice(&length.to_ne_bytes());
        message.0[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
        let fd = self.socket.as_raw_fd();
        nix::sys::socket::send(fd, &message.0, MsgFlags::empty())?;
        let mut answer = [0u8; 4096];
        let length = nix::sys::socket::recv(fd, &mut answer, MsgFlags::empty())?;
        // NLMSG_ERROR carries an errno after the header; 0 is the acknowledgement.
        let word = |at: usize| {
            answer[..length].get(at..at + 4).map(|b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
        };
        match word(HEADER_BYTES) {
            Some(0) => Ok(()),
            Some(errno) => Err(io::Error::from_raw_os_error(-errno)),
            None => Err(io::Error::other("the kernel's answer was cut short")),
        }
    }

    /// Makes a bridge. One that exists is fine.
    pub(crate) fn ensure_bridge(&mut self, name: &str) -> io::Result<()> {
        let mut message = Message::new(libc::RTM_NEWLINK, CREATE);
        message.link_header(0, 0, 0);
        message.text(IFLA_IFNAME, name);
        message.nested(IFLA_LINKINFO, |info| info.text(IFLA_INFO_KIND, "bridge"));
        existing_is_fine(self.ask(message))
    }

    /// Makes a pair: `name` here, on a bridge and up; `inside` in the network namespace of a process.
    pub(crate) fn add_veth(&mut self, name: &str, bridge: &str, inside: &str, pid: i32) -> io::Result<()> {
        let master = index(bridge)?;
        let mut message = Message::new(libc::RTM_NEWLINK, CREATE);
        message.link_header(0, UP, UP);
        message.text(IFLA_IFNAME, name);
        message.attribute(IFLA_MASTER, &master.to_ne_bytes());
        message.nested(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "veth");
            info.nested(IFLA_INFO_DATA, |data| {
                data.nested(VETH_INFO_PEER, |peer| {
                    peer.link_header(0, 0, 0);
                    peer.text(IFLA_IFNAME, inside);
                    peer.attribute(IFLA_NET_NS_PID, &pid.to_ne_bytes());
                });
            });
        });
        self.ask(message)
    }

    /// Brings a link up.
    pub(crate) fn up(&mut self, name: &str) -> io::Result<()> {
        let mut message = Message::new(libc::RTM_NEWLINK, 0);
        message.link_header(index(name)?, UP, UP);
        self.ask(message)
    }

    /// Gives a link an address. One that it has is fine.
    pub(crate) fn ensure_address(&mut self, name: &str, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let mut message = Message::new(libc::RTM_NEWADDR, CREATE);
        message.0.extend([libc::AF_INET as u8, prefix, 0, 0]);
        message.0.extend(index(name)?.to_ne_bytes());
        message.attribute(IFA_LOCAL, &address.octets());
        message.attribute(IFA_ADDRESS, &address.octets());
        existing_is_fine(self.ask(message))
    }

    /// Sends everything without a nearer route to a gateway.
    pub(crate) fn add_default_route(&mut self, gateway: Ipv4Addr) -> io::Result<()> {
        let mut message = Message::new(libc::RTM_NEWROUTE, CREATE);
        let protocol_static = 4;
        message.0.extend([
            libc::AF_INET as u8,
            0,
            0,
            0,
            RT_TABLE_MAIN,
            protocol_static,
            0,
            libc::RTN_UNICAST,
        ]);
        message.0.extend([0; 4]);
        message.attribute(RTA_GATEWAY, &gateway.octets());
        self.ask(message)
    }

    /// Removes a link; one that is gone is fine.
    pub(crate) fn remove(&mut self, name: &str) -> io::Result<()> {
        let Ok(index) = index(name) else { return Ok(()) };
        let mut message = Message::new(libc::RTM_DELLINK, 0);
        message.link_header(index, 0, 0);
        match self.ask(message) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            other => other,
        }
    }
}

fn existing_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn index(name: &str) -> io::Result<u32> {
    let name = std::ffi::CString::new(name).map_err(io::Error::other)?;
    // SAFETY: the name is a C string that outlives the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}
