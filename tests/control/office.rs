//! A stand-in for the loop behind the control socket, a gateway on a port, and the program as a person runs it.

use nix::unistd::Pid;
use openclaw_supervise::core::status::{GatewayStatus, Next, Status};
use openclaw_supervise::core::{Endpoint, Phase, Readiness, Request, Requester, Tally, Usage, Verdict};
use openclaw_supervise::host::control::{BoundSocket, Broadcast, Control, Facts, NAME, Query};
use serde_json::Value;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Enough for any step on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until it is so.
pub(crate) async fn until(mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap();
}

/// Lets time go by where that is what happens.
#[expect(clippy::disallowed_methods, reason = "a test may wait by the clock")]
pub(crate) fn let_pass(time: Duration) {
    std::thread::sleep(time);
}

pub(crate) fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

/// The keys of an object, of those within it too, with the kind of each value; null may stand for anything.
pub(crate) fn shape(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let members: Vec<String> = members.iter().map(|(key, value)| format!("{key}:{}", shape(value))).collect();
            format!("{{{}}}", members.join(","))
        }
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "text".to_owned(),
        Value::Array(_) => "list".to_owned(),
    }
}

/// A folder with a store directory and a port, gone at the end of the test.
pub(crate) struct Stage {
    root: PathBuf,
    store: PathBuf,
    /// Bound and not listening: no other test gets the port, and a probe finds it free.
    _port: tokio::net::TcpSocket,
    port: u16,
}

impl Stage {
    pub(crate) fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // Short: the path of a Unix socket has room for 107 bytes.
        let name = format!("ocs-{name}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let root = std::env::temp_dir().join(name);
        let store = root.join("supervise");
        fs::create_dir_all(&store).unwrap();
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = socket.local_addr().unwrap().port();
        Self { root, store, _port: socket, port }
    }

    /// The same with a store directory whose path and the socket's have about so many bytes.
    pub(crate) fn deep(mut self, length: usize) -> Self {
        while self.store.as_os_str().len() + 1 + NAME.len() < length {
            let left = length - self.store.as_os_str().len() - 1 - NAME.len();
            self.store.push("x".repeat(left.saturating_sub(1).clamp(1, 200)));
        }
        fs::create_dir_all(&self.store).unwrap();
        self
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn store(&self) -> &Path {
        &self.store
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Lets every user come up to the door.
    pub(crate) fn open_to_all(&self) {
        for (path, mode) in [(self.root.clone(), 0o755), (self.store.clone(), 0o755), (self.store.join(NAME), 0o666)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
    }

    /// A client that says this and waits.
    pub(crate) fn say(&self, bytes: &[u8]) -> UnixStream {
        let mut client = UnixStream::connect(self.store.join(NAME)).unwrap();
        client.write_all(bytes).unwrap();
        client
    }

    /// As above, with nothing more to say.
    pub(crate) fn say_and_close(&self, bytes: &[u8]) -> UnixStream {
        let client = self.say(bytes);
        client.shutdown(Shutdown::Write).unwrap();
        client
    }

    /// A gateway in this state on our port.
    pub(crate) fn gateway(&self, port_state: PortState) -> Option<Gateway> {
        if port_state == PortState::Free {
            return None;
        }
        let listener = tokio::net::TcpSocket::new_v4().unwrap();
        listener.set_reuseaddr(true).unwrap();
        listener.bind(([127, 0, 0, 1], self.port).into()).unwrap();
        let listener = listener.listen(16).unwrap();
        Some(Gateway(tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                tokio::spawn(answer_http(stream, port_state));
            }
        })))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.root).ok();
    }
}

/// What holds the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PortState {
    Healthy,
    Starting,
    Foreign,
    Free,
}

/// It ends with this value.
pub(crate) struct Gateway(JoinHandle<()>);

impl Drop for Gateway {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn answer_http(mut stream: tokio::net::TcpStream, port_state: PortState) {
    let mut seen = Vec::new();
    let mut chunk = [0; 1024];
    while let Ok(length @ 1..) = stream.read(&mut chunk).await {
        seen.extend_from_slice(&chunk[..length]);
        while let Some(end) = seen.windows(4).position(|window| window == b"\r\n\r\n") {
            let request: Vec<u8> = seen.drain(..end + 4).collect();
            let path = String::from_utf8_lossy(&request).split(' ').nth(1).unwrap_or_default().to_owned();
            let (status, body) = match (path.as_str(), port_state) {
                (_, PortState::Foreign | PortState::Free) => ("404 Not Found", "no"),
                ("/healthz", _) => ("200 OK", r#"{"ok":true,"status":"live"}"#),
                ("/startupz", PortState::Healthy) => ("200 OK", r#"{"ok":true,"status":"started"}"#),
                ("/startupz", _) => ("503 Service Unavailable", r#"{"ok":false,"status":"starting"}"#),
                _ => ("503 Service Unavailable", r#"{"ready":false,"failing":["telegram"]}"#),
            };
            let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}", body.len());
            if stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

/// Everything that a client is sent until its connection ends.
pub(crate) async fn answer(mut client: UnixStream) -> String {
    let read = tokio::task::spawn_blocking(move || {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut all = Vec::new();
        match client.read_to_end(&mut all) {
            // It was let go before everything that it had said was read.
            Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
            _ => String::from_utf8(all).unwrap(),
        }
    });
    read.await.unwrap()
}

/// What the loop does.
#[derive(Clone)]
pub(crate) struct Script {
    pub(crate) status: fn() -> Status,
    /// What it tells once it was asked for something.
    pub(crate) told: Vec<String>,
    /// Whether it goes away after that.
    pub(crate) leaves: bool,
    /// Whether its clients are part of what they ask it to end.
    pub(crate) is_inside: fn(i32) -> bool,
}

impl Default for Script {
    fn default() -> Self {
        Self { status: full, told: Vec::new(), leaves: false, is_inside: |_| false }
    }
}

impl Script {
    pub(crate) fn telling(lines: &[&str]) -> Self {
        Self { told: lines.iter().map(|&line| line.to_owned()).collect(), ..Self::default() }
    }

    pub(crate) fn leaving() -> Self {
        Self { leaves: true, ..Self::default() }
    }
}

/// A gateway serves.
pub(crate) fn full() -> Status {
    let seconds = Duration::from_secs;
    let gateway = GatewayStatus {
        pid: 4250,
        age: seconds(100),
        up: Some(seconds(90)),
        healthy: true,
        condition: None,
        adopted: false,
        readiness: Some(Readiness { ready: false, detail: "not ready: telegram".to_owned() }),
        sample: Some(Usage {
            cpu: Some(seconds(30)),
            rss_kb: Some(700_000),
            tree_rss_kb: Some(900_000),
            ..Usage::default()
        }),
    };
    Status {
        state: "running",
        gateway: Some(gateway),
        generation: 3,
        epoch: Some(7),
        endpoint: Endpoint::local(18789),
        owner: None,
        probe: Some((Verdict::Gateway(Phase::Started), "GET /startupz answered 200".to_owned())),
        restarts: 1,
        memory_restarts: 2,
        max_restarts: 6,
        restart_window: seconds(3600),
        restart_free: Some(seconds(900)),
        stop_timeout: seconds(328),
        output: None,
        strays: Vec::new(),
        cut_short: Vec::new(),
        restart_waits: None,
        restart_paced: None,
        paused: None,
        ends_within: None,
        next: Next {
            action: "look at the gateway again",
            within: Some(Duration::from_millis(1500)),
            of: None,
            then: None,
            why: "it serves".to_owned(),
        },
    }
}

/// There is none, and next to nothing is known.
pub(crate) fn bare() -> Status {
    let next = Next { action: "start a gateway", within: None, of: None, then: None, why: "it crashed".to_owned() };
    Status { state: "backing_off", gateway: None, epoch: None, probe: None, next, ..full() }
}

/// The loop behind a socket.
pub(crate) struct Desk {
    pub(crate) broadcast: Broadcast,
    requests: mpsc::UnboundedReceiver<(Request, Requester)>,
    tasks: [JoinHandle<()>; 2],
}

impl Desk {
    pub(crate) fn open(stage: &Stage, script: Script) -> Self {
        let control = Control::on(BoundSocket::of_owner(stage.store()).unwrap()).unwrap();
        let broadcast = control.broadcast();
        let (messages, mut inbox) = mpsc::channel(8);
        let (noted, requests) = mpsc::unbounded_channel();
        let facts = Facts {
            manager: "systemd",
            started_at: "2026-01-02T03:04:05.678Z".to_owned(),
            config: stage.root().join("openclaw.json"),
            store_dir: stage.store().to_owned(),
            heap_mib: Some(8192),
            heap_source: "--max-heap".to_owned(),
        };
        let (told, endpoint) = (broadcast.clone(), Endpoint::local(stage.port()));
        let serves = tokio::spawn(control.serve(messages, facts, Arc::new(script.is_inside)));
        let works = tokio::spawn(async move {
            while let Some(query) = inbox.recv().await {
                match query {
                    Query::Status(answer) => {
                        drop(answer.send(Status { endpoint: endpoint.clone(), ..(script.status)() }));
                    }
                    // No test here pauses.
                    Query::Pause { .. } => {}
                    Query::TestChannels(answer) => drop(answer.send(Vec::new())),
                    Query::Metrics(answer) => drop(answer.send(((script.status)(), Tally::default(), None))),
                    Query::Request { request, by } => {
                        noted.send((request, by)).ok();
                        script.told.iter().for_each(|line| told.tell(line));
                        if script.leaves {
                            told.finish().await;
                        }
                    }
                }
            }
        });
        Self { broadcast, requests, tasks: [serves, works] }
    }

    /// The next request that reached the loop.
    pub(crate) async fn heard(&mut self) -> (Request, Requester) {
        self.requests.recv().await.unwrap()
    }

    /// Waits for this request, whatever comes before it.
    pub(crate) async fn heard_of(&mut self, request: Request) {
        timeout(PATIENCE, async { while self.heard().await.0 != request {} }).await.unwrap();
    }

    /// The same without waiting.
    pub(crate) fn heard_so_far(&mut self) -> Option<(Request, Requester)> {
        self.requests.try_recv().ok()
    }

    pub(crate) fn close(self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// The program with a verb.
pub(crate) struct Verb(Command);

/// What a person sees of it.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Shown {
    /// What stands behind a label of `status`.
    pub(crate) fn row(&self, label: &str) -> &str {
        let row = self.out.lines().find_map(|line| line.strip_prefix(label));
        row.unwrap_or_else(|| panic!("no {label}: {self:?}")).trim_start()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Verb {
    pub(crate) fn new(stage: &Stage, words: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_openclaw-supervise"));
        command.env_clear().env("HOME", stage.root()).env("OPENCLAW_STATE_DIR", stage.root());
        command.args(words).args(["--port", &stage.port().to_string(), "--log-format", "text"]);
        command.arg("--store-dir").arg(stage.store());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(command)
    }

    /// As this user.
    pub(crate) fn user(mut self, uid: u32) -> Self {
        self.0.uid(uid);
        self
    }

    pub(crate) fn spawn(mut self) -> Child {
        self.0.spawn().unwrap()
    }

    /// Runs it to its end, while the loop of the test goes on.
    pub(crate) async fn run(mut self) -> Shown {
        let output = tokio::task::spawn_blocking(move || self.0.output().unwrap());
        let output = timeout(PATIENCE, output).await.unwrap().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Shown { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// A supervisor that is another process: this test program in another role.
pub(crate) struct Other(Child);

/// The store directory of the one that plays it.
const ROLE: &str = "CONTROL_TEST_STORE";

impl Other {
    /// Starts it and waits for its socket.
    pub(crate) async fn start(stage: &Stage) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "as_another_process"]).env(ROLE, stage.store());
        let other = Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        until(|| UnixStream::connect(stage.store().join(NAME)).is_ok()).await;
        other
    }

    /// Whether nothing runs any more.
    pub(crate) fn is_over(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    /// Plays it until it is asked to stop, takes its time, says goodbye, and lingers.
    pub(crate) async fn be() {
        let Some(store) = std::env::var_os(ROLE) else { return };
        let mut stage = Stage::new("role");
        stage.store = store.into();
        let script = Script {
            leaves: true,
            ..Script::telling(&[
                r#"{"event":"stop.requested","by":"x"}"#,
                r#"{"event":"gateway.exited","generation":3}"#,
                r#"{"event":"supervisor.stopped","exit_code":0,"reason":"as asked"}"#,
            ])
        };
        let mut desk = Desk::open(&stage, script);
        let (request, _) = timeout(PATIENCE, desk.heard()).await.unwrap();
        assert_eq!(request, Request::Stop);
        desk.broadcast.finish().await;
        sleep(Duration::from_millis(300)).await;
        desk.close();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
