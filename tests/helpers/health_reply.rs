//! The faulty answers of a gateway.

use crate::diary::Diary;
use crate::http::{self, Phase};
use crate::script::HealthReply;
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
pub(crate) fn answer(
    mut stream: TcpStream,
    health_reply: HealthReply,
    phase: Phase,
    diary: &Diary,
) -> std::io::Result<()> {
    if health_reply == HealthReply::Reset {
        // A close(2) with unread input makes the kernel reset the connection.
        return stream.peek(&mut [0]).map(drop);
    }
    let Some((method, path)) = http::read(&mut stream)? else { return Ok(()) };
    if path == ELSEWHERE {
        return send(&mut stream, "200 OK", "application/json", LIVE);
    }
    if path != "/healthz" && health_reply != HealthReply::Html {
        return http::write_reply(&mut stream, &method, &path, phase);
    }
    match health_reply {
        HealthReply::Every(number) => {
            static COUNT: AtomicU32 = AtomicU32::new(1);
            if COUNT.fetch_add(1, Ordering::Relaxed).is_multiple_of(number) {
                return http::write_reply(&mut stream, &method, &path, phase);
            }
            http::wait_until_it_goes(&mut stream)
        }
        HealthReply::Late(time) => {
            thread::sleep(time);
            http::write_reply(&mut stream, &method, &path, phase)
        }
        HealthReply::Unavailable => send(&mut stream, "503 Service Unavailable", "application/json", LIVE),
        HealthReply::Html => http::write_reply(&mut stream, &method, &path, Phase::Foreign),
        HealthReply::Cut => {
            let half = &LIVE[..LIVE.len() / 2];
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{half}", LIVE.len())
        }
        HealthReply::Drip => {
            stream.set_nodelay(true)?;
            for byte in b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" {
                stream.write_all(&[*byte])?;
                thread::sleep(Duration::from_secs(1));
            }
            Ok(())
        }
        HealthReply::Flood => flood(&mut stream, diary),
        HealthReply::Redirect => {
            write!(stream, "HTTP/1.1 302 Found\r\nLocation: {ELSEWHERE}\r\nContent-Length: 0\r\n\r\n")
        }
        HealthReply::Sound | HealthReply::Reset => http::write_reply(&mut stream, &method, &path, phase),
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
