//! The answers of a gateway that is not well.

use crate::diary::Diary;
use crate::http::{self, Phase};
use crate::script::Manner;
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

/// What a healthy one says.
const LIVE: &str = r#"{"ok":true,"status":"live"}"#;

/// Where a redirect leads: to an answer that would be good.
const ELSEWHERE: &str = "/elsewhere";

const GIB: usize = 1 << 30;

/// Serves one request. A client that breaks off is its own affair.
pub(crate) fn answer(mut stream: TcpStream, manner: Manner, phase: Phase, diary: &Diary) -> std::io::Result<()> {
    if manner == Manner::Reset {
        // A close(2) with unread input makes the kernel reset the connection.
        stream.set_nonblocking(false)?;
        return stream.peek(&mut [0]).map(drop);
    }
    let Some((method, path)) = http::read(&mut stream)? else { return Ok(()) };
    if path == ELSEWHERE {
        return send(&mut stream, "200 OK", "application/json", LIVE);
    }
    if path != "/healthz" && manner != Manner::Html {
        return http::write_reply(&mut stream, &method, &path, phase);
    }
    match manner {
        Manner::Every(number) => {
            static COUNT: AtomicU32 = AtomicU32::new(1);
            if COUNT.fetch_add(1, Ordering::Relaxed).is_multiple_of(number) {
                return http::write_reply(&mut stream, &method, &path, phase);
            }
            http::wait_until_it_goes(&mut stream)
        }
        Manner::Unavailable => send(&mut stream, "503 Service Unavailable", "application/json", LIVE),
        Manner::Html => http::write_reply(&mut stream, &method, &path, Phase::Foreign),
        Manner::Cut => {
            let half = &LIVE[..LIVE.len() / 2];
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{half}", LIVE.len())
        }
        Manner::Drip => {
            stream.set_nodelay(true)?;
            for byte in b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" {
                stream.write_all(&[*byte])?;
                thread::sleep(Duration::from_secs(1));
            }
            Ok(())
        }
        Manner::Flood => flood(&mut stream, diary),
        Manner::Redirect => {
            write!(stream, "HTTP/1.1 302 Found\r\nLocation: {ELSEWHERE}\r\nContent-Length: 0\r\n\r\n")
        }
        Manner::Sound | Manner::Reset => http::write_reply(&mut stream, &method, &path, phase),
    }
}

fn send(stream: &mut TcpStream, status: &str, kind: &str, body: &str) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Sends white space, which JSON may begin with, and notes how much of it was taken.
fn flood(stream: &mut TcpStream, diary: &Diary) -> std::io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        GIB + LIVE.len()
    )?;
    let block = vec![b' '; 64 * 1024];
    let mut taken = 0;
    while taken < GIB && stream.write_all(&block).is_ok() {
        taken += block.len();
    }
    diary.note(format_args!("FLOOD {} {taken}", std::process::id()))?;
    stream.write_all(LIVE.as_bytes())
}
