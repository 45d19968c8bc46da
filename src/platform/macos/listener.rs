//! Which process listens where, from the descriptors of processes: no table of sockets tells their owners.

use std::ffi::c_int;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ptr;

use super::proc;

/// `PROC_PIDFDSOCKETINFO` of `sys/proc_info.h`, which fills a `struct socket_fdinfo`, and where in it the fields are.
const SOCKET_INFO: c_int = 3;
const SOCKET_INFO_LENGTH: usize = 792;
/// `psi.soi_kind`, to be `SOCKINFO_TCP`.
const KIND: usize = 256;
const KIND_TCP: u32 = 2;
/// From `psi.soi_proto.pri_tcp`: `insi_lport` in network order, `insi_vflag`, `insi_laddr`, and `tcpsi_state`, to be
/// `TSI_S_LISTEN`.
const PORT: usize = 268;
const VERSIONS: usize = 288;
const ADDRESS: usize = 312;
const STATE: usize = 344;
const STATE_LISTEN: u32 = 1;
/// The bits of `insi_vflag`. A listener that takes both has both.
const VERSION_4: u8 = 1;
const VERSION_6: u8 = 2;

/// A socket that listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Listener {
    address: SocketAddr,
    takes_v4: bool,
}

/// The processes that hold the socket which a connection to `address` would reach. Empty if none is
/// visible: no listener or, unless we are root, another user's process. `likely` is tried first, and alone if it holds the socket.
pub fn find(address: SocketAddr, likely: Option<i32>) -> io::Result<Vec<i32>> {
    if let Some(leader) = likely
        && best_tier(leader, address) == Some(0)
    {
        return Ok(vec![leader]);
    }
    let mut best = (usize::MAX, Vec::new());
    for process in proc::processes()? {
        let Some(tier) = best_tier(process.pid, address) else { continue };
        if tier < best.0 {
            best = (tier, Vec::new());
        }
        if tier == best.0 {
            best.1.push(process);
        }
    }
    let (near, far): (Vec<_>, Vec<_>) = best.1.into_iter().partition(|process| {
        likely.is_some_and(|leader| [process.pid, process.parent, process.session, process.group].contains(&leader))
    });
    let holders = if near.is_empty() { far } else { near };
    Ok(holders.into_iter().map(|process| process.pid).collect())
}

/// The addresses on which these processes listen with TCP.
///
/// # Errors
/// None on this system.
pub fn of(pids: &[i32]) -> io::Result<Vec<SocketAddr>> {
    Ok(pids.iter().flat_map(|&pid| listeners(pid)).map(|listener| listener.address).collect())
}

/// Never of interest: this system has no network namespaces.
#[must_use]
pub fn holds_port(_pid: i32, _port: u16) -> bool {
    false
}

/// Not known: no table of sockets tells their users.
///
/// # Errors
/// None on this system.
pub fn user_of(_address: SocketAddr) -> io::Result<Option<u32>> {
    Ok(None)
}

/// How well the best listener of a process fits, less being better.
fn best_tier(pid: i32, address: SocketAddr) -> Option<usize> {
    listeners(pid).filter_map(|listener| tier(listener, address)).min()
}

fn listeners(pid: i32) -> impl Iterator<Item = Listener> {
    let sockets = descriptors(pid)
        .into_iter()
        .filter(|descriptor| descriptor.proc_fdtype == libc::PROX_FDTYPE_SOCKET.cast_unsigned());
    sockets.filter_map(move |descriptor| listener(pid, descriptor.proc_fd))
}

/// The kernel hands a connection to the most specific listener, and IPv4 rather to one that is for IPv4 only.
fn tier(listener: Listener, target: SocketAddr) -> Option<usize> {
    let (socket, wanted) = (listener.address.ip(), target.ip().to_canonical());
    if listener.address.port() != target.port() {
        return None;
    }
    if socket.to_canonical() == wanted {
        return Some(0);
    }
    match (socket, wanted) {
        (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(_)) | (IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V6(_)) => {
            Some(1)
        }
        (IpAddr::V6(v6), IpAddr::V4(_)) if v6 == Ipv4Addr::UNSPECIFIED.to_ipv6_mapped() => Some(1),
        (IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(_)) if listener.takes_v4 => Some(2),
        _ => None,
    }
}

/// The open descriptors of a process, none if they cannot be seen.
fn descriptors(pid: i32) -> Vec<libc::proc_fdinfo> {
    // SAFETY: without a buffer it only tells the number of bytes, with room for some new descriptors.
    let room = unsafe { libc::proc_pidinfo(pid, libc::PROC_PIDLISTFDS, 0, ptr::null_mut(), 0) };
    let count = usize::try_from(room).unwrap_or(0) / size_of::<libc::proc_fdinfo>();
    let mut all = vec![libc::proc_fdinfo { proc_fd: 0, proc_fdtype: 0 }; count];
    // SAFETY: the kernel writes at most `room` bytes, which `all` has but for what is no whole element.
    let written = unsafe { libc::proc_pidinfo(pid, libc::PROC_PIDLISTFDS, 0, all.as_mut_ptr().cast(), room) };
    all.truncate(usize::try_from(written).unwrap_or(0) / size_of::<libc::proc_fdinfo>());
    all
}

/// What listens at a descriptor.
fn listener(pid: i32, descriptor: c_int) -> Option<Listener> {
    let mut bytes = [0_u8; SOCKET_INFO_LENGTH];
    let length = c_int::try_from(bytes.len()).ok()?;
    // SAFETY: the kernel writes at most `length` bytes, which `bytes` has.
    let written = unsafe { libc::proc_pidfdinfo(pid, descriptor, SOCKET_INFO, bytes.as_mut_ptr().cast(), length) };
    (written == length).then(|| parse(&bytes)).flatten()
}

fn parse(bytes: &[u8; SOCKET_INFO_LENGTH]) -> Option<Listener> {
    let word = |at: usize| bytes[at..].first_chunk().copied().map(u32::from_ne_bytes);
    if word(KIND)? != KIND_TCP || word(STATE)? != STATE_LISTEN {
        return None;
    }
    let port = u16::from_be_bytes(*bytes[PORT..].first_chunk()?);
    let (versions, address) = (bytes[VERSIONS], *bytes[ADDRESS..].first_chunk::<16>()?);
    let ip = if versions & VERSION_6 != 0 {
        IpAddr::from(address)
    } else {
        // An IPv4 address is the last of the four words.
        IpAddr::from(*address.last_chunk::<4>()?)
    };
    Some(Listener { address: SocketAddr::new(ip, port), takes_v4: versions & VERSION_4 != 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_listener_gets_the_connection() {
        for (socket, takes_v4, target, expected) in [
            ("127.0.0.1:80", true, "127.0.0.1:80", Some(0)),
            ("127.0.0.1:80", true, "127.0.0.1:81", None),
            ("[::ffff:127.0.0.1]:80", true, "127.0.0.1:80", Some(0)),
            ("0.0.0.0:80", true, "127.0.0.1:80", Some(1)),
            ("[::]:80", true, "127.0.0.1:80", Some(2)),
            ("[::]:80", false, "127.0.0.1:80", None),
            ("[::]:80", false, "[::1]:80", Some(1)),
            ("[::1]:80", false, "127.0.0.1:80", None),
            ("0.0.0.0:80", true, "[::1]:80", None),
        ] {
            let listener = Listener { address: socket.parse().unwrap(), takes_v4 };
            assert_eq!(tier(listener, target.parse().unwrap()), expected, "{socket} for {target}");
        }
    }
}
