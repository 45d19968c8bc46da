//! Which process listens where, from the kernel's table of sockets and the descriptors of processes.

mod sock_diag;
mod socket;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::proc::{self, path_of};
pub(super) use socket::Socket;

/// No socket listens on it, and `sock_diag(7)` takes it for no condition.
const ANY_PORT: u16 = 0;

/// The processes that hold the socket which a connection to `address` would reach. Empty if none is
/// visible: no listener, another user's process, hidepid. `likely` and its relatives are tried first, and alone if they hold it.
pub fn find(address: SocketAddr, likely: Option<i32>) -> io::Result<Vec<i32>> {
    let sockets = listening(address)?;
    if sockets.is_empty() {
        return Ok(Vec::new());
    }
    let links: Vec<_> = sockets.iter().map(|socket| format!("socket:[{}]", socket.inode)).collect();
    if let Some(leader) = likely
        && holds(leader, &links)
    {
        return Ok(vec![leader]);
    }
    let (near, far): (Vec<_>, Vec<_>) = proc::processes()?.into_iter().partition(|process| {
        likely.is_some_and(|leader| [process.parent, process.session, process.group].contains(&leader))
    });
    for group in [near, far] {
        let pids: Vec<_> = group.iter().map(|process| process.pid).filter(|&pid| holds(pid, &links)).collect();
        if !pids.is_empty() {
            return Ok(pids);
        }
    }
    Ok(Vec::new())
}

/// The addresses on which these processes listen with TCP in our network namespace.
pub fn of(pids: &[i32]) -> io::Result<Vec<SocketAddr>> {
    let mut addresses = BTreeMap::new();
    for v6 in [false, true] {
        addresses.extend(listeners(ANY_PORT, v6)?.into_iter().map(|socket| (socket.inode, socket.address)));
    }
    if addresses.is_empty() {
        return Ok(Vec::new());
    }
    let inode = |link: PathBuf| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok();
    let mut found = Vec::new();
    for &pid in pids {
        // One that is gone or hidden from us shows nothing.
        let Ok(entries) = path_of(pid, "fd").and_then(fs::read_dir) else { continue };
        let links = entries.flatten().filter_map(|entry| inode(fs::read_link(entry.path()).ok()?));
        found.extend(links.filter_map(|inode| addresses.get(&inode)));
    }
    Ok(found)
}

/// Whether this process listens on `port`, in whatever network namespace it is.
#[must_use]
pub fn holds_port(pid: i32, port: u16) -> bool {
    let tables = ["tcp", "tcp6"]
        .into_iter()
        .filter_map(|name| read_table(&path_of(pid, &format!("net/{name}")).ok()?, port).ok());
    let listens = tables.flatten().filter(|socket| socket.state == Socket::LISTEN);
    let links: Vec<_> = listens.map(|socket| format!("socket:[{}]", socket.inode)).collect();
    !links.is_empty() && holds(pid, &links)
}

/// The user who created the socket that a connection to `address` would reach. Each user may see it, unlike the process.
///
/// # Errors
/// Neither netlink nor `/proc` can be had.
pub fn user_of(address: SocketAddr) -> io::Result<Option<u32>> {
    Ok(listening(address)?.first().map(|socket| socket.uid))
}

/// A process that holds the socket with this inode number; `None` if none is visible.
pub(super) fn holder_of(inode: u64) -> io::Result<Option<i32>> {
    let links = [format!("socket:[{inode}]")];
    Ok(proc::processes()?.into_iter().map(|process| process.pid).find(|&pid| holds(pid, &links)))
}

/// The listening sockets that fit `address` best.
fn listening(address: SocketAddr) -> io::Result<Vec<Socket>> {
    let target = address.ip().to_canonical();
    let mut best = (usize::MAX, Vec::new());
    for v6 in [true, false] {
        if v6 || target.is_ipv4() {
            for socket in listeners(address.port(), v6)? {
                let Some(tier) = tier(socket.address.ip(), target) else { continue };
                if tier < best.0 {
                    best = (tier, Vec::new());
                }
                if tier == best.0 {
                    best.1.push(socket);
                }
            }
        }
    }
    Ok(best.1)
}

/// Every listener of one family on `port`, which may be [`ANY_PORT`]. The table in `/proc` costs milliseconds: to print it the kernel walks all of
/// its connections. But it is there where the kernel has no `CONFIG_INET_DIAG` or a sandbox forbids netlink.
fn listeners(port: u16, v6: bool) -> io::Result<Vec<Socket>> {
    sock_diag::listeners(port, v6).or_else(|_| listeners_by_table(port, v6))
}

/// Every socket that is bound to `port`. It takes the time of a walk over all connections.
pub(super) fn sockets(port: u16) -> io::Result<Vec<Socket>> {
    let of = |v6| sock_diag::sockets(port, v6).or_else(|_| table(port, v6));
    let mut all = of(false)?;
    // A kernel without IPv6 has nothing to add.
    all.extend(of(true).unwrap_or_default());
    Ok(all)
}

fn listeners_by_table(port: u16, v6: bool) -> io::Result<Vec<Socket>> {
    Ok(table(port, v6)?.into_iter().filter(|socket| socket.state == Socket::LISTEN).collect())
}

fn table(port: u16, v6: bool) -> io::Result<Vec<Socket>> {
    read_table(if v6 { "/proc/self/net/tcp6" } else { "/proc/self/net/tcp" }, port)
}

fn read_table(path: &str, port: u16) -> io::Result<Vec<Socket>> {
    let file = match File::open(path) {
        Ok(file) => BufReader::new(file),
        // A kernel without IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let (mut found, mut known) = (Vec::new(), BTreeSet::new());
    for line in file.lines() {
        // While the table changes, a row may be printed twice. A connection without a holder has no inode.
        let mut is_new = |row: &Socket| row.inode == 0 || known.insert(row.inode);
        let new = parse(&line?).filter(|row| [row.address.port(), ANY_PORT].contains(&port) && is_new(row));
        found.extend(new);
    }
    Ok(found)
}

/// How well a listener at `socket` fits `target`, less being better; the kernel hands a connection to the most specific
/// one. A listener at `::` takes IPv4 too unless it is for IPv6 only, which the table does not show: so it comes last.
fn tier(socket: IpAddr, target: IpAddr) -> Option<usize> {
    if socket.to_canonical() == target {
        return Some(0);
    }
    match (socket, target) {
        (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(_)) | (IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V6(_)) => {
            Some(1)
        }
        (IpAddr::V6(v6), IpAddr::V4(_)) if v6 == Ipv4Addr::UNSPECIFIED.to_ipv6_mapped() => Some(1),
        (IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(_)) => Some(2),
        _ => None,
    }
}

/// One line of the table: `sl local_address rem_address st tx:rx tr:when retr uid timeout inode`.
fn parse(line: &str) -> Option<Socket> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (ip, port) = fields.next()?.split_once(':')?;
    let state = u8::from_str_radix(fields.nth(1)?, 16).ok()?;
    let queued = u32::from_str_radix(fields.next()?.split_once(':')?.1, 16).ok()?;
    let uid = fields.nth(2)?.parse().ok()?;
    let inode = fields.nth(1)?.parse().ok()?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // Each group of eight digits is 32 bits in network order, printed as a number of this machine.
    let words: Option<Vec<[u8; 4]>> = ip
        .as_bytes()
        .chunks(8)
        .map(|digits| Some(u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?.to_ne_bytes()))
        .collect();
    let ip = match words?.as_slice() {
        [word] => IpAddr::from(*word),
        words => IpAddr::from(<[u8; 16]>::try_from(words.concat()).ok()?),
    };
    Some(Socket { address: SocketAddr::new(ip, port), state, queued, limit: None, uid, inode })
}

/// Whether one of the descriptors of `pid` is one of the sockets.
fn holds(pid: i32, links: &[String]) -> bool {
    let Ok(entries) = path_of(pid, "fd").and_then(fs::read_dir) else { return false };
    entries.flatten().any(|entry| {
        fs::read_link(entry.path()).is_ok_and(|target| links.iter().any(|link| target.as_os_str() == OsStr::new(link)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[cfg(target_endian = "little")]
    #[test]
    fn the_lines_of_both_tables_are_understood() {
        for (line, expected) in [
            (
                "   0: 0100007F:1F90 00000000:0000 0A 00000000:0000001F 00:00000000 00000000  1000        0 4242 1 0 100",
                Some(("127.0.0.1:8080", 10, 31, 1000, 4242)),
            ),
            (
                " 10: 00000000000000000000000001000000:4965 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 7 1",
                Some(("[::1]:18789", 10, 0, 0, 7)),
            ),
            (
                "   1: 0100007F:1F90 0100007F:C350 08 00000000:00000050 00:00000000 00000000 0 0 9 1",
                Some(("127.0.0.1:8080", 8, 80, 0, 9)),
            ),
            ("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode", None),
            ("", None),
        ] {
            let expected = expected.map(|(address, state, queued, uid, inode)| {
                let address = address.parse().unwrap();
                Socket { address, state, queued, limit: None, uid, inode }
            });
            assert_eq!(parse(line), expected, "{line}");
        }
    }

    #[test]
    fn connections_in_the_backlog_are_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _waiting: Vec<_> = (0..3).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        for all in [sockets(address.port()).unwrap(), table(address.port(), false).unwrap()] {
            let queued = |socket: &Socket| (socket.state == Socket::LISTEN).then_some(socket.queued);
            assert_eq!(all.iter().find_map(queued), Some(3), "{all:?}");
            assert_eq!(all.iter().filter(|socket| socket.state == 1).count(), 3, "{all:?}");
        }
    }

    #[test]
    fn the_most_specific_listener_gets_the_connection() {
        for (socket, target, expected) in [
            ("127.0.0.1", "127.0.0.1", Some(0)),
            ("::ffff:127.0.0.1", "127.0.0.1", Some(0)),
            ("0.0.0.0", "127.0.0.1", Some(1)),
            ("::", "127.0.0.1", Some(2)),
            ("::", "::1", Some(1)),
            ("::1", "127.0.0.1", None),
            ("0.0.0.0", "::1", None),
            ("127.0.0.2", "127.0.0.1", None),
        ] {
            assert_eq!(tier(socket.parse().unwrap(), target.parse().unwrap()), expected, "{socket} for {target}");
        }
    }

    #[test]
    fn all_listeners_of_a_process_are_found_by_either_source() {
        let me = std::process::id().cast_signed();
        let bound = ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0"].map(|bind| TcpListener::bind(bind).unwrap());
        let found = of(&[me, i32::MAX]).unwrap();
        for listener in &bound {
            let address = listener.local_addr().unwrap();
            assert!(found.contains(&address), "{address}: {found:?}");
            let table = listeners_by_table(ANY_PORT, address.is_ipv6()).unwrap();
            assert!(table.iter().any(|socket| socket.address == address), "{address}: {table:?}");
        }
        let client = std::net::TcpStream::connect(bound[0].local_addr().unwrap()).unwrap();
        let address = client.local_addr().unwrap();
        assert!(of(&[me]).unwrap().iter().all(|socket| *socket != address), "a connection is no listener");
        assert_eq!(of(&[]).unwrap(), []);
    }

    #[test]
    fn both_sources_tell_the_same() {
        for bind in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
            let listener = TcpListener::bind(bind).unwrap();
            let address = listener.local_addr().unwrap();
            let by_table = listeners_by_table(address.port(), address.is_ipv6()).unwrap();
            assert!(by_table.iter().any(|socket| socket.address == address), "{bind}: {by_table:?}");
            // Where a sandbox forbids netlink there is nothing to compare.
            if let Ok(by_diag) = sock_diag::listeners(address.port(), address.is_ipv6()) {
                let named =
                    |all: Vec<Socket>| all.into_iter().map(|socket| (socket.uid, socket.inode)).collect::<Vec<_>>();
                assert_eq!(named(by_diag), named(by_table), "{bind}");
            }
        }
    }
}
