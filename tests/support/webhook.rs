//! A webhook server that takes what it gets, or misbehaves.

use super::{PATIENCE, wait_for};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// What a request is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    Status(u16),
    /// With a `Location` on the same server.
    Redirect(u16),
    /// It reads and never answers.
    Stall,
    /// 500 and a body without an end.
    Endless,
    /// Bytes that are not HTTP.
    Garbage,
    /// It closes the connection.
    Close,
    /// 404 and the path of the request.
    Echo,
}

/// One request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    /// Lower-case names.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}

#[derive(Debug, Default)]
struct State {
    replies: Vec<Reply>,
    requests: Vec<Request>,
}

/// Listens on the loopback until the test ends.
#[derive(Debug, Clone)]
pub(crate) struct WebhookServer {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl WebhookServer {
    /// `replies` in their order; the last one serves for every further request.
    pub(crate) fn start(replies: &[Reply]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let state = Arc::new(Mutex::new(State { replies: replies.to_vec(), requests: Vec::new() }));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                thread::spawn(move || serve(stream, port, &state));
            }
        });
        Self { port, state }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).requests.clone()
    }

    /// Waits for so many requests.
    pub(crate) fn wait(&self, count: usize) -> Vec<Request> {
        let look = || Some(self.requests()).filter(|requests| requests.len() >= count);
        wait_for(&format!("{count} requests"), PATIENCE, || format!("{:#?}", self.requests()), look)
    }
}

fn serve(mut stream: TcpStream, port: u16, state: &Mutex<State>) {
    let Some(request) = read(&mut stream) else { return };
    let path = request.path.clone();
    let reply = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.requests.push(request);
        if state.replies.len() > 1 { state.replies.remove(0) } else { state.replies[0] }
    };
    let head = |status: u16, more: &str| format!("HTTP/1.1 {status} X\r\nConnection: close\r\n{more}");
    let whole = |status: u16, body: &str| head(status, &format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    // A client that hangs up is what some tests are about.
    let _hung_up = match reply {
        Reply::Status(status) => stream.write_all(whole(status, "ok").as_bytes()),
        Reply::Echo => stream.write_all(whole(404, &path).as_bytes()),
        Reply::Redirect(status) => {
            let to = format!("Location: http://127.0.0.1:{port}/elsewhere\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(head(status, &to).as_bytes())
        }
        Reply::Garbage => stream.write_all(b"\x16\x03\x01 what?\r\n\r\n"),
        Reply::Close => Ok(()),
        Reply::Stall => {
            // Until the client hangs up.
            let _end = stream.read(&mut [0; 1]);
            Ok(())
        }
        Reply::Endless => {
            let _head = stream.write_all(head(500, "\r\n").as_bytes());
            while stream.write_all(&[b'x'; 4096]).is_ok() {}
            Ok(())
        }
    };
}

fn read(stream: &mut TcpStream) -> Option<Request> {
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let mut lines = head.lines();
            let mut first = lines.next()?.split(' ').map(str::to_owned);
            let headers: Vec<_> = lines
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                .collect();
            let length = headers.iter().find(|(name, _)| name == "content-length");
            let length = length.and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
            if body.len() >= length {
                return Some(Request { method: first.next()?, path: first.next()?, headers, body: body.to_owned() });
            }
        }
        match stream.read(&mut chunk) {
            Ok(count @ 1..) => bytes.extend_from_slice(&chunk[..count]),
            Ok(0) | Err(_) => return None,
        }
    }
}
