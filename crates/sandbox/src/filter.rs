//! The system calls that no app needs and that have opened sandboxes before: refused by a seccomp filter.

#![allow(unsafe_code)]

use std::io;

const DENIED: &[libc::c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pivot_root,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
];

/// Kinds of sockets that no app needs: to the hypervisor's other guests, to the kernel's ciphers, and raw packets.
const DENIED_SOCKETS: [libc::c_int; 3] = [libc::AF_VSOCK, libc::AF_ALG, libc::AF_PACKET];

/// Flags of clone(2) that make a namespace.
const CLONE_NEW: u32 = 0x7e02_0000;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENT_0_LOW: u32 = 16;

fn load(offset: u32) -> libc::sock_filter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

fn answer(value: u32) -> libc::sock_filter {
    statement(libc::BPF_RET | libc::BPF_K, value)
}

fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

fn jump(condition: u32, k: u32, yes: u8, no: u8) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_JMP | condition | libc::BPF_K) as u16, jt: yes, jf: no, k }
}

/// Builds the filter before the fork, so that the child only has to load it.
pub(crate) fn program() -> Vec<libc::sock_filter> {
    let refuse = answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
    let unknown = answer(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32);
    let mut program = vec![load(ARCH), jump(libc::BPF_JEQ, ARCHITECTURE, 1, 0), refuse, load(NUMBER)];
    // The x32 numbers of x86-64 would walk around the list.
    program.extend([jump(libc::BPF_JGE, 0x4000_0000, 0, 1), unknown]);
    for number in DENIED {
        program.extend([jump(libc::BPF_JEQ, *number as u32, 0, 1), refuse]);
    }
    // clone3 hides its flags behind a pointer; libc falls back to clone when it is unknown.
    program.extend([jump(libc::BPF_JEQ, libc::SYS_clone3 as u32, 0, 1), unknown]);
    let no_such_kind = answer(libc::SECCOMP_RET_ERRNO | libc::EAFNOSUPPORT as u32);
    let rest = 2 * DENIED_SOCKETS.len() as u8 + 2;
    program.extend([jump(libc::BPF_JEQ, libc::SYS_socket as u32, 0, rest), load(ARGUMENT_0_LOW)]);
    for kind in DENIED_SOCKETS {
        program.extend([jump(libc::BPF_JEQ, kind as u32, 0, 1), no_such_kind]);
    }
    program.push(answer(libc::SECCOMP_RET_ALLOW));
    program.extend([
        jump(libc::BPF_JEQ, libc::SYS_clone as u32, 0, 3),
        load(ARGUMENT_0_LOW),
        jump(libc::BPF_JSET, CLONE_NEW, 0, 1),
        refuse,
        answer(libc::SECCOMP_RET_ALLOW),
    ]);
    program
}

/// Puts the filter in force for this process and all it becomes. Needs no_new_privs.
pub(crate) fn apply(program: &mut [libc::sock_filter]) -> io::Result<()> {
    let header = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: `header` points to `len` instructions that live until the call returns; the kernel copies them.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const header) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
