//! The sockets on one port as `sock_diag(7)` tells them. For listeners the kernel looks into their table alone.

use super::socket::Socket;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// From `linux/sock_diag.h`, `linux/netlink.h` and `net/tcp_states.h`.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;
/// Every state that a socket can be in.
const ALL: u32 = 0x1ffe;

/// `struct nlmsghdr`: length, type, flags, sequence, port.
const HEADER_LENGTH: usize = 16;
/// The header and `struct inet_diag_req_v2`.
const REQUEST_LENGTH: u32 = 72;
/// `struct inet_diag_msg`.
const ANSWER_LENGTH: usize = 72;

/// Every listener of one family on `port`.
pub(super) fn listeners(port: u16, v6: bool) -> io::Result<Vec<Socket>> {
    dump(port, v6, 1 << Socket::LISTEN)
}

/// Every socket of one family that is bound to `port`. For this the kernel walks all of its connections.
pub(super) fn sockets(port: u16, v6: bool) -> io::Result<Vec<Socket>> {
    dump(port, v6, ALL)
}

fn dump(port: u16, v6: bool, states: u32) -> io::Result<Vec<Socket>> {
    let diag = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)?;
    send(diag.as_raw_fd(), &request(port, v6, states), MsgFlags::empty())?;
    let mut found = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        // The kernel has queued an answer by the time send() returns, and the next one by the time recv() does: there
        // is never anything to wait for.
        let length = recv(diag.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT)?;
        if read(&buffer[..length], &mut found)? {
            return Ok(found);
        }
    }
}

fn request(port: u16, v6: bool, states: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(REQUEST_LENGTH as usize);
    bytes.extend(REQUEST_LENGTH.to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    bytes.extend([0; 8]);
    let family = if v6 { libc::AF_INET6 } else { libc::AF_INET };
    // Family, protocol, no extensions, padding: all of them fit a byte.
    bytes.extend([family.to_ne_bytes(), libc::IPPROTO_TCP.to_ne_bytes()].map(least_byte));
    bytes.extend([0; 2]);
    bytes.extend(states.to_ne_bytes());
    bytes.extend(port.to_be_bytes());
    bytes.resize(REQUEST_LENGTH as usize, 0);
    bytes
}

fn least_byte(bytes: [u8; 4]) -> u8 {
    if cfg!(target_endian = "little") { bytes[0] } else { bytes[3] }
}

/// Takes the sockets out of one datagram; true at the end of the dump.
fn read(mut bytes: &[u8], found: &mut Vec<Socket>) -> io::Result<bool> {
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    while !bytes.is_empty() {
        let length = usize::try_from(u32_at(bytes, 0).ok_or_else(malformed)?).map_err(|_| malformed())?;
        let message = bytes.get(HEADER_LENGTH..length).ok_or_else(malformed)?;
        match u16::from_ne_bytes([bytes[4], bytes[5]]) {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = u32_at(message, 0).ok_or_else(malformed)?.cast_signed();
                return Err(io::Error::from_raw_os_error(-code));
            }
            SOCK_DIAG_BY_FAMILY => found.push(parse(message).ok_or_else(malformed)?),
            _ => {}
        }
        // NLMSG_ALIGN: each message begins at a multiple of four.
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// Family, state, timer, retransmits; port, port, address (offset 8), ...; the two queues (56 and 60), of a listener what
/// waits in it and how much may; the user; the inode.
fn parse(message: &[u8]) -> Option<Socket> {
    let message = message.get(..ANSWER_LENGTH)?;
    let port = u16::from_be_bytes([message[4], message[5]]);
    let ip = if i32::from(message[0]) == libc::AF_INET6 {
        IpAddr::from(<[u8; 16]>::try_from(&message[8..24]).ok()?)
    } else {
        IpAddr::from(<[u8; 4]>::try_from(&message[8..12]).ok()?)
    };
    let (address, state) = (SocketAddr::new(ip, port), message[1]);
    let limit = u32_at(message, 60).filter(|_| state == Socket::LISTEN);
    let (uid, inode) = (u32_at(message, 64)?, u64::from(u32_at(message, 68)?));
    Some(Socket { address, state, queued: u32_at(message, 56)?, limit, uid, inode })
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_error_of_the_kernel_is_passed_on() {
        let mut bytes = 36_u32.to_ne_bytes().to_vec();
        bytes.extend(NLMSG_ERROR.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend((-libc::ENOENT).to_ne_bytes());
        bytes.resize(36, 0);
        assert_eq!(read(&bytes, &mut Vec::new()).unwrap_err().raw_os_error(), Some(libc::ENOENT));
    }

    proptest! {
        #[test]
        fn no_datagram_breaks_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..200), length in 0_u32..100) {
            let mut framed = length.to_ne_bytes().to_vec();
            framed.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
            framed.extend(&bytes);
            for bytes in [&bytes, &framed] {
                let mut found = Vec::new();
                if read(bytes, &mut found).is_ok() {
                    prop_assert!(found.len() * (HEADER_LENGTH + ANSWER_LENGTH) <= bytes.len());
                }
            }
        }
    }
}
