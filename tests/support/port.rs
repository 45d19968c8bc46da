//! Ports that no other test and no outgoing connection takes.

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// A reserved port.
///
/// Binding port 0 and closing it again leaves a gap in which the kernel may give the number away: to another test, or
/// as the source port of one of the many probes. So the numbers come from below the range of source ports
/// (`net.ipv4.ip_local_port_range`), and an abstract socket, whose name the kernel frees with us, holds each one
/// against the other tests of this machine.
pub(crate) struct Port {
    number: u16,
    _claim: UnixListener,
}

/// Below the usual services lies nothing of ours.
const LOWEST: u16 = 10_240;

impl Port {
    pub(crate) fn reserve() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let span = highest() - LOWEST;
        let first = u16::try_from(std::process::id() % u32::from(span)).expect("it is below span");
        for _ in 0..span {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let number = LOWEST + (first.wrapping_mul(31).wrapping_add(step)) % span;
            if let Some(claim) = claim(number) {
                return Self { number, _claim: claim };
            }
        }
        panic!("no port is free between {LOWEST} and {}", highest());
    }

    /// The default port of a named profile, and the name.
    pub(crate) fn reserve_of_profile() -> (String, Self) {
        let names = (0..1000).map(|step| format!("t{}-{step}", std::process::id()));
        let default = |name: &String| {
            let step = |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
            u16::try_from(20_000 + name.bytes().fold(0x811c_9dc5, step) % 40_000).expect("it is below 60000")
        };
        let ports = names.map(|name| (default(&name), name)).filter(|(number, _)| *number < highest());
        let mut reserved = ports.filter_map(|(number, name)| Some((name, Self { number, _claim: claim(number)? })));
        reserved.next().expect("one of a thousand ports is free")
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }
}

fn claim(number: u16) -> Option<UnixListener> {
    let name = SocketAddr::from_abstract_name(format!("openclaw-supervise-test/{number}")).ok()?;
    let claim = UnixListener::bind_addr(&name).ok()?;
    is_free(number).then_some(claim)
}

/// Whether the port has no listener.
pub(crate) fn is_free(number: u16) -> bool {
    let v4 = TcpListener::bind((Ipv4Addr::LOCALHOST, number));
    let v6 = TcpListener::bind((Ipv6Addr::LOCALHOST, number));
    let busy = |error: std::io::Error| error.kind() == std::io::ErrorKind::AddrInUse;
    v4.is_ok() && !v6.is_err_and(busy)
}

/// Where the range of source ports begins.
fn highest() -> u16 {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let lowest_source = text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(32_768);
    if lowest_source > LOWEST + 1000 { lowest_source } else { u16::MAX }
}
