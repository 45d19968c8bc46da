//! Probes of real sockets: every verdict, and servers that misbehave.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may")]

mod probe_support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use openclaw_supervise::commands::probe;
use openclaw_supervise::core::{Observation, Owner, Phase, Readiness, Verdict};
use openclaw_supervise::gateway::probe::{Look, Prober};
use openclaw_supervise::gateway::process::INSTANCE;
use openclaw_supervise::platform::proc;
use openclaw_supervise::settings::Question;
use probe_support::*;
use tokio::net::TcpSocket;
use tokio::time::{Instant, timeout};

/// Which part of a test this process plays, when the test has started it.
const ROLE: &str = "PROBE_TEST_ROLE";
/// The address of the server for that role.
const TARGET: &str = "PROBE_TEST_TARGET";

async fn look(prober: &Prober) -> Observation {
    prober.look(Look::Answers { leader: None }).await
}

fn chunked(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}").into_bytes()
}

#[tokio::test]
async fn the_first_reply_tells_a_gateway_from_another_program() {
    let long = format!("{{\"ok\":true,\"status\":\"live\",\"x\":\"{}\"}}", "x".repeat(20_000));
    let table = [
        ("html on every path", html("200 OK"), "answered 200 text/html"),
        ("not found", html("404 Not Found"), "answered 404 text/html"),
        ("an internal error", json("500 Internal Server Error", LIVE), "answered 500 application/json"),
        ("unavailable", json("503 Service Unavailable", LIVE), "answered 503"),
        ("no content", Act::Send(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()), "answered 204"),
        ("other json", json("200 OK", r#"{"status":"ok"}"#), "but not with ok: true"),
        ("a string for a boolean", json("200 OK", r#"{"ok":"true","status":"live"}"#), "but not with ok: true"),
        ("a body over the limit", json("200 OK", &long), "over the limit"),
        ("an endless body", Act::Flood(chunked("5\r\nhello\r\nFFFFFFF\r\n")), "over the limit"),
    ];
    let garbled = [
        ("binary garbage", Act::SendAndHang(vec![0, 1, 2, 255, 254, 10, 0, 7, 9, 10]), "not HTTP"),
        ("another protocol", Act::SendAndClose(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()), "not HTTP"),
        ("an invalid chunk", Act::SendAndHang(chunked("zz\r\n")), "not HTTP"),
    ];
    let answers = table.into_iter().map(|case| (case, Verdict::Foreign));
    for ((name, act, detail), verdict) in answers.chain(garbled.into_iter().map(|case| (case, Verdict::Malformed))) {
        let server = serve("127.0.0.1:0", move |_: &str| act.clone()).await;
        let seen = look(&prober(&[server.address], PATIENT)).await;
        assert_eq!(seen.verdict, verdict, "{name}: {}", seen.detail);
        assert!(seen.detail.contains(detail), "{name}: {}", seen.detail);
        assert_eq!(server.requests(), 1, "{name}: nothing more is asked");
    }
}

#[tokio::test]
async fn the_second_reply_tells_the_phase_of_the_gateway() {
    let table = [
        ("started", json("200 OK", STARTED), Verdict::Gateway(Phase::Started)),
        ("starting", json("503 Service Unavailable", STARTING), Verdict::Gateway(Phase::Starting)),
        ("draining", json("503 Service Unavailable", DRAINING), Verdict::Draining),
        ("an old release", html("200 OK"), Verdict::Gateway(Phase::Unknown)),
        ("a path unknown", html("404 Not Found"), Verdict::Gateway(Phase::Unknown)),
        ("endless", Act::Flood(chunked("FFFFFFF\r\n")), Verdict::Gateway(Phase::Unknown)),
    ];
    for (name, act, verdict) in table {
        let server = serve("127.0.0.1:0", gateway(act)).await;
        let prober = prober(&[server.address], PATIENT);
        let seen = look(&prober).await;
        assert_eq!(seen.verdict, verdict, "{name}: {}", seen.detail);
        assert_eq!(server.connections(), 2, "{name}: one plain connect, one for both requests");
        assert_eq!(look(&prober).await.verdict, verdict, "{name}");
        assert_eq!(server.connections(), 3, "{name}: while it answers one is enough");
    }
}

#[tokio::test]
async fn a_server_without_a_complete_reply_in_time_is_silent() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 27\r\n\r\n{\"ok\":true".to_vec();
    let table = [
        ("nothing at all", Act::SendAndHang(vec![])),
        ("half a head", Act::SendAndHang(b"HTTP/1.1 200".to_vec())),
        ("half a body", Act::SendAndHang(head.clone())),
        ("a head that trickles", Act::Trickle(b"HTTP/1.1 200 OK\r\nX: ".to_vec(), b'x')),
        ("a body that trickles", Act::Trickle(chunked("FFFF\r\n"), b' ')),
    ];
    for (name, act) in table {
        let slow_start = gateway(act.clone());
        for server in [serve("127.0.0.1:0", move |_: &str| act.clone()).await, serve("127.0.0.1:0", slow_start).await] {
            let before = Instant::now();
            let seen = look(&prober(&[server.address], HASTY)).await;
            assert_eq!(seen.verdict, Verdict::Silent, "{name}: {}", seen.detail);
            assert!(seen.detail.ends_with("no answer within 400ms"), "{name}: {}", seen.detail);
            assert!(before.elapsed() < HASTY * 5, "{name}: {:?}", before.elapsed());
        }
    }
}

#[tokio::test]
async fn a_server_that_closes_without_a_reply_is_silent() {
    let half = b"HTTP/1.1 200 OK\r\nContent-Length: 27\r\n\r\n{\"ok\":true".to_vec();
    for (name, server) in [
        ("closed at once", serve("127.0.0.1:0", |_: &str| Act::SendAndClose(vec![])).await),
        ("closed in the head", serve("127.0.0.1:0", |_: &str| Act::SendAndClose(b"HTTP/1.1 2".to_vec())).await),
        ("closed in the body", serve("127.0.0.1:0", move |_: &str| Act::SendAndClose(half.clone())).await),
        ("reset", serve_with(OnConnect::Resets, b"").await),
        ("closed before the second answer", serve("127.0.0.1:0", gateway(Act::SendAndClose(vec![]))).await),
    ] {
        let before = Instant::now();
        let seen = look(&prober(&[server.address], PATIENT)).await;
        assert_eq!(seen.verdict, Verdict::Silent, "{name}: {}", seen.detail);
        assert!(before.elapsed() < PATIENT / 2, "{name}: known at once");
    }
}

#[tokio::test]
async fn a_server_that_speaks_first_and_not_http_is_malformed() {
    let server = serve_with(OnConnect::Greets, b"220 mail.example ESMTP ready\r\n").await;
    for _ in 0..20 {
        let seen = look(&prober(&[server.address], PATIENT)).await;
        assert_eq!(seen.verdict, Verdict::Malformed, "{}", seen.detail);
    }
}

#[tokio::test]
async fn a_full_backlog_is_silent() {
    let (socket, address) = reserve("127.0.0.1:0");
    let _listener = socket.listen(1).unwrap();
    let mut held = Vec::new();
    while let Ok(stream) = timeout(Duration::from_millis(200), tokio::net::TcpStream::connect(address)).await {
        held.push(stream.unwrap());
        assert!(held.len() < 100, "the backlog has an end");
    }
    let seen = look(&prober(&[address], HASTY)).await;
    assert_eq!((seen.verdict, seen.detail.as_str()), (Verdict::Silent, "connection not accepted within 400ms"));
}

#[tokio::test]
async fn a_redirect_to_a_healthy_gateway_is_not_followed() {
    let healthy = serve("127.0.0.1:0", gateway(json("200 OK", STARTED))).await;
    let location =
        format!("HTTP/1.1 302 Found\r\nLocation: http://{}/healthz\r\nContent-Length: 0\r\n\r\n", healthy.address);
    let server = serve("127.0.0.1:0", move |_: &str| Act::Send(location.clone().into_bytes())).await;
    assert_eq!(look(&prober(&[server.address], PATIENT)).await.verdict, Verdict::Foreign);
    assert_eq!(healthy.connections(), 0);
}

#[tokio::test]
async fn a_free_port_is_known_at_once() {
    let (_v4, _v6, addresses) = reserve_both();
    let prober = prober(&addresses, PATIENT);
    let before = Instant::now();
    for _ in 0..100 {
        let seen = look(&prober).await;
        assert_eq!((seen.verdict, seen.detail.as_str()), (Verdict::Free, "connection refused"));
    }
    assert!(before.elapsed() < Duration::from_secs(1), "{:?} for a hundred", before.elapsed());
}

#[tokio::test]
async fn before_a_spawn_a_port_that_is_bound_without_a_listener_is_not_free() {
    let taken = TcpSocket::new_v4().unwrap();
    taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let prober = prober(&[taken.local_addr().unwrap()], PATIENT);
    let seen = prober.look(Look::AnswersAndOwner { leader: None }).await;
    assert_eq!(seen.verdict, Verdict::Silent);
    assert!(seen.detail.contains("but a socket that does not listen is bound to"), "{}", seen.detail);
    // A liveness probe only asks whether our gateway answers.
    assert_eq!(look(&prober).await.verdict, Verdict::Free);
    drop(taken);
    assert_eq!(prober.look(Look::AnswersAndOwner { leader: None }).await.verdict, Verdict::Free);
}

#[tokio::test]
async fn a_gateway_that_goes_away_leaves_a_free_port() {
    let mut server = serve("127.0.0.1:0", gateway(json("200 OK", STARTED))).await;
    let prober = prober(&[server.address], PATIENT);
    assert_eq!(look(&prober).await.verdict, Verdict::Gateway(Phase::Started));
    server.stop().await;
    for _ in 0..2 {
        let seen = look(&prober).await;
        assert_eq!((seen.verdict, seen.detail.as_str()), (Verdict::Free, "connection refused"));
    }
}

#[tokio::test]
async fn an_absent_address_counts_only_if_all_are_absent() {
    let (_held, address) = reserve("127.0.0.1:0");
    // The kernel connects no TCP to a multicast group, with the error of an address that has no route.
    let absent: SocketAddr = format!("[ff02::1]:{}", address.port()).parse().unwrap();
    assert_eq!(look(&prober(&[address, absent], HASTY)).await.verdict, Verdict::Free);
}

#[tokio::test]
async fn the_strongest_of_two_addresses_wins() {
    let started = || gateway(json("200 OK", STARTED));
    let (_v4, v6, addresses) = reserve_both();
    start(v6.listen(16).unwrap(), OnConnect::Listens, None, started());
    assert_eq!(look(&prober(&addresses, PATIENT)).await.verdict, Verdict::Gateway(Phase::Started), "::1 alone");

    let (v4, v6, addresses) = reserve_both();
    let first = start(v4.listen(16).unwrap(), OnConnect::Listens, None, started());
    let second = start(v6.listen(16).unwrap(), OnConnect::Listens, None, started());
    assert_eq!(look(&prober(&addresses, PATIENT)).await.verdict, Verdict::Gateway(Phase::Started), "both");
    assert_eq!((first.requests(), second.requests()), (2, 0), "one gateway is enough");

    let (v4, v6, addresses) = reserve_both();
    start(v4.listen(16).unwrap(), OnConnect::Listens, None, |_: &str| Act::SendAndHang(vec![]));
    start(v6.listen(16).unwrap(), OnConnect::Listens, None, started());
    let before = Instant::now();
    assert_eq!(
        look(&prober(&addresses, PATIENT)).await.verdict,
        Verdict::Gateway(Phase::Started),
        "silent, then a gateway"
    );
    assert!(before.elapsed() < PATIENT / 2, "the silent one is not waited for");

    let (v4, v6, addresses) = reserve_both();
    start(v4.listen(16).unwrap(), OnConnect::Listens, None, |_: &str| html("200 OK"));
    start(v6.listen(16).unwrap(), OnConnect::Listens, None, |_: &str| Act::SendAndClose(vec![]));
    assert_eq!(look(&prober(&addresses, PATIENT)).await.verdict, Verdict::Foreign, "only the first address counts");

    let (_v4, v6, addresses) = reserve_both();
    start(v6.listen(16).unwrap(), OnConnect::Listens, None, |_: &str| html("200 OK"));
    assert_eq!(look(&prober(&addresses, PATIENT)).await.verdict, Verdict::Free, "another program on ::1 alone");
}

#[tokio::test]
async fn a_self_signed_certificate_passes_on_this_machine() {
    for bind in ["127.0.0.1:0", "[::1]:0"] {
        let server = serve_tls(bind, gateway(json("200 OK", STARTED))).await;
        let seen = look(&Prober::new(endpoint(&[server.address], true), PATIENT)).await;
        assert_eq!(seen.verdict, Verdict::Gateway(Phase::Started), "{bind}: {}", seen.detail);
    }
}

#[tokio::test]
async fn plain_http_in_place_of_tls_is_malformed_and_so_is_the_reverse() {
    // A plain server replies even to what it cannot parse.
    let plain = serve_with(OnConnect::Greets, &reply("400 Bad Request", "text/plain", "")).await;
    let seen = look(&Prober::new(endpoint(&[plain.address], true), PATIENT)).await;
    assert_eq!(seen.verdict, Verdict::Malformed, "{}", seen.detail);
    assert!(seen.detail.contains("TLS failed"), "{}", seen.detail);

    let tls = serve_tls("127.0.0.1:0", gateway(json("200 OK", STARTED))).await;
    let seen = look(&prober(&[tls.address], PATIENT)).await;
    assert!(matches!(seen.verdict, Verdict::Malformed | Verdict::Silent), "{:?} {}", seen.verdict, seen.detail);
}

#[tokio::test]
async fn readiness_names_what_fails() {
    let server = serve("127.0.0.1:0", gateway(json("200 OK", STARTED))).await;
    let unready = Readiness { ready: false, detail: "not ready: telegram".to_owned() };
    assert_eq!(prober(&[server.address], PATIENT).ready().await, Ok(unready));
    let server = serve("127.0.0.1:0", |_: &str| json("200 OK", r#"{"ready":true,"failing":[]}"#)).await;
    let ready = Readiness { ready: true, detail: "ready".to_owned() };
    assert_eq!(prober(&[server.address], PATIENT).ready().await, Ok(ready));
    let server = serve("127.0.0.1:0", |_: &str| html("200 OK")).await;
    let other = "GET /readyz answered 200 text/html".to_owned();
    assert_eq!(prober(&[server.address], PATIENT).ready().await, Err(other));
    let (_held, address) = reserve("127.0.0.1:0");
    assert_eq!(prober(&[address], PATIENT).ready().await, Err("connection refused".to_owned()));
}

/// A part of a test in a process of its own; it ends when it is dropped.
struct Part(Child);

impl Part {
    fn play(test: &str, mut command: Command) -> Self {
        command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(ROLE, test);
        for name in ["NO_PROXY", "no_proxy"] {
            command.env_remove(name);
        }
        Self(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }

    /// The first line that starts with `key=`, without that.
    fn read(&mut self, key: &str) -> String {
        let lines = BufReader::new(self.0.stdout.as_mut().unwrap()).lines();
        let key = format!("{key}=");
        // libtest writes the name of the test before it, on the same line.
        let found = lines.map_while(Result::ok).find_map(|line| line.split_once(&key).map(|(_, rest)| rest.to_owned()));
        found.expect("the part prints it before it ends")
    }

    async fn succeeds(mut self) -> bool {
        tokio::task::spawn_blocking(move || self.0.wait().unwrap().success()).await.unwrap()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // End of file tells it to exit; one that has exited already needs no signal.
        drop(self.0.stdin.take());
        drop(self.0.wait());
    }
}

fn plays(test: &str) -> bool {
    std::env::var(ROLE).is_ok_and(|role| role == test)
}

fn this_program() -> Command {
    Command::new(std::env::current_exe().unwrap())
}

#[tokio::test]
async fn the_proxy_of_the_environment_is_never_used() {
    let test = "the_proxy_of_the_environment_is_never_used";
    if plays(test) {
        let target = std::env::var(TARGET).unwrap().parse().unwrap();
        assert_eq!(look(&prober(&[target], PATIENT)).await.verdict, Verdict::Foreign);
        return;
    }
    let proxy =
        serve("127.0.0.1:0", |path: &str| json("200 OK", if path.ends_with("/healthz") { LIVE } else { STARTED }))
            .await;
    let target = serve("127.0.0.1:0", |_: &str| html("200 OK")).await;
    let mut command = this_program();
    command.env(TARGET, target.address.to_string());
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy"] {
        command.env(name, format!("http://{}", proxy.address));
    }
    assert!(Part::play(test, command).succeeds().await);
    assert_eq!((proxy.connections(), target.requests()), (0, 1));
}

#[tokio::test]
async fn a_probe_without_descriptors_is_inconclusive() {
    let test = "a_probe_without_descriptors_is_inconclusive";
    if !plays(test) {
        assert!(Part::play(test, this_program()).succeeds().await);
        return;
    }
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 64, hard).unwrap();
    let server = serve("127.0.0.1:0", gateway(json("200 OK", STARTED))).await;
    let (fresh, used) = (prober(&[server.address], PATIENT), prober(&[server.address], PATIENT));
    let open = || std::fs::read_dir("/dev/fd").unwrap().count();
    let before = open();
    assert_eq!(look(&used).await.verdict, Verdict::Gateway(Phase::Started));
    let all_closed = async {
        while open() > before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENT, all_closed).await.expect("a probe leaves nothing open");
    let held: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
    for prober in [&fresh, &used] {
        let seen = look(prober).await;
        assert_eq!(seen.verdict, Verdict::Inconclusive, "{}", seen.detail);
        assert!(seen.detail.contains("too many open files"), "{}", seen.detail);
    }
    drop(held);
    for prober in [&fresh, &used] {
        assert_eq!(look(prober).await.verdict, Verdict::Gateway(Phase::Started));
    }
}

/// A state directory with a gateway's lock; removed on drop.
struct State(PathBuf);

impl State {
    fn locked_by(pid: i32, start_time: u64) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("openclaw-supervise-probe-{}-{count}", std::process::id()));
        let locks = dir.join(format!("tmp/openclaw-{}", nix::unistd::getuid()));
        std::fs::create_dir_all(&locks).unwrap();
        let lock =
            format!(r#"{{"pid":{pid},"createdAt":"x","configPath":"/c","port":18789,"startTime":{start_time}}}"#);
        std::fs::write(locks.join("gateway.state.lock"), lock).unwrap();
        Self(dir)
    }
}

impl Drop for State {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// A start time as a gateway on this platform writes it.
fn written_start_time(pid: i32) -> u64 {
    let start_time = proc::stat(pid).unwrap().start_time;
    if cfg!(target_os = "macos") { start_time / 1_000_000 } else { start_time }
}

#[tokio::test]
async fn only_before_a_spawn_a_free_port_shows_a_gateway_that_boots() {
    let ours = "0123456789abcdef";
    let mut command = Command::new("cat");
    command.env(INSTANCE, format!("{ours}-1")).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut boots = Part(command.spawn().unwrap());
    let (pid, start_time) = (boots.pid(), written_start_time(boots.pid()));
    until(|| proc::environ_has(pid, &format!("{INSTANCE}={ours}-1"))).await;
    let (_held, address) = reserve("127.0.0.1:0");
    let before_a_spawn = Look::AnswersAndOwner { leader: None };
    let at = |state: &State| prober(&[address], HASTY).with_state_dir(state.0.clone());

    let state = State::locked_by(pid, start_time);
    let seen = at(&state).with_key("fedcba9876543210".to_owned()).look(before_a_spawn).await;
    assert_eq!(seen.verdict, Verdict::Booting, "{}", seen.detail);
    assert!(matches!(&seen.owner, Owner::Other(holder) if holder.pid == pid), "{seen:?}");
    let held =
        format!("connection refused, but pid {pid} holds gateway.state.lock of the state directory for port 18789");
    assert_eq!(seen.detail, held);
    let seen = at(&state).with_key(ours.to_owned()).look(before_a_spawn).await;
    assert!(matches!(&seen.owner, Owner::Ours(holder) if holder.pid == pid), "{seen:?}");

    for look in [Look::Answers { leader: None }, Look::AnswersAndOwner { leader: Some(1) }] {
        assert_eq!(at(&state).look(look).await.verdict, Verdict::Free, "{look:?}");
    }
    let recycled = State::locked_by(pid, start_time - 1);
    assert_eq!(at(&recycled).look(before_a_spawn).await.verdict, Verdict::Free);
    boots.0.kill().unwrap();
    until(|| proc::stat(pid).unwrap().is_dead()).await;
    let seen = at(&state).look(before_a_spawn).await;
    assert_eq!((seen.verdict, seen.owner), (Verdict::Free, Owner::Unseen), "a zombie does not boot");
    boots.0.wait().unwrap();
    assert_eq!(at(&state).look(before_a_spawn).await.verdict, Verdict::Free);
}

#[tokio::test]
async fn on_a_port_that_is_only_a_guess_nothing_counts_but_the_gateway_of_our_state_directory() {
    let server = serve("127.0.0.1:0", gateway(json("200 OK", STARTED))).await;
    let me = std::process::id().cast_signed();
    let mut other = Part(Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap());
    for (holder, expected) in
        [(None, Verdict::Free), (Some(me), Verdict::Gateway(Phase::Started)), (Some(other.pid()), Verdict::Booting)]
    {
        let state = State::locked_by(holder.unwrap_or(me), holder.map_or(0, written_start_time));
        let prober = prober(&[server.address], PATIENT).with_state_dir(state.0.clone());
        let seen = prober.look(Look::AnswersAndOwner { leader: None }).await;
        assert_eq!(prober.judge_guess(seen).await.verdict, expected, "{holder:?}");
    }
    other.0.kill().unwrap();
    other.0.wait().unwrap();
}

async fn until(condition: impl Fn() -> bool) {
    let met = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENT, met).await.unwrap();
}

#[tokio::test]
async fn the_process_that_holds_the_port_is_named_and_marked_as_ours_or_not() {
    let test = "the_process_that_holds_the_port_is_named_and_marked_as_ours_or_not";
    if plays(test) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        writeln!(std::io::stdout(), "port={}", listener.local_addr().unwrap().port()).unwrap();
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        return;
    }
    let mut through_a_shell = Command::new("/bin/sh");
    through_a_shell.args(["-c", "\"$0\" \"$@\"; true"]).arg(std::env::current_exe().unwrap());
    let mut unrelated = Part(Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap());
    for (mut command, direct) in [(this_program(), true), (through_a_shell, false)] {
        command.env(INSTANCE, "0123456789abcdef-1");
        let mut part = Part::play(test, command);
        let address = SocketAddr::from(([127, 0, 0, 1], part.read("port").parse().unwrap()));
        let prober = prober(&[address], HASTY);
        let owner = async |leader| prober.look(Look::AnswersAndOwner { leader }).await.owner;
        let Owner::Ours(holder) = owner(Some(part.pid())).await else { panic!("not ours") };
        assert_eq!(holder.pid == part.pid(), direct);
        assert!(holder.command.contains(test), "{}", holder.command);
        assert_eq!(holder.uid, Some(nix::unistd::geteuid().as_raw()));
        assert_eq!(owner(None).await, Owner::Other(holder.clone()));
        let keyed = async |key: &str, leader| {
            let prober = Prober::new(endpoint(&[address], false), HASTY).with_key(key.to_owned());
            prober.look(Look::AnswersAndOwner { leader }).await.owner
        };
        assert_eq!(
            keyed("0123456789abcdef", None).await,
            Owner::Ours(holder.clone()),
            "another supervisor of ours started it"
        );
        assert_eq!(keyed("0123456789abcde", None).await, Owner::Other(holder.clone()));
        assert_eq!(keyed("0123456789abcdef", Some(unrelated.pid())).await, Owner::Other(holder.clone()));
        assert_eq!(owner(Some(unrelated.pid())).await, Owner::Other(holder));
        assert_eq!(look(&prober).await.owner, Owner::Unseen, "only the answer was asked for");
    }
    assert_eq!(unrelated.0.try_wait().unwrap(), None, "it ran all the time");
}

async fn command(prober: &Prober, condition: Question, wait: Option<Duration>, json: bool) -> (bool, String) {
    let mut out = Vec::new();
    let ok = probe::run(prober, Path::new("/nowhere"), condition, wait, json, &mut out).await.unwrap();
    (ok, String::from_utf8(out).unwrap())
}

#[tokio::test]
async fn the_command_answers_each_of_its_questions_in_one_line() {
    use Question::{Live, Ready, Started};
    let unavailable = "503 Service Unavailable";
    for (name, startup, expected) in [
        ("started", json("200 OK", STARTED), [(Live, true), (Started, true), (Ready, false)]),
        ("starting", json(unavailable, STARTING), [(Live, true), (Started, false), (Ready, false)]),
        ("draining", json(unavailable, DRAINING), [(Live, true), (Started, false), (Ready, false)]),
        ("an old release", html("200 OK"), [(Live, true), (Started, true), (Ready, false)]),
    ] {
        let server = serve("127.0.0.1:0", gateway(startup)).await;
        for (condition, ok) in expected {
            let (found, line) = command(&prober(&[server.address], PATIENT), condition, None, false).await;
            assert_eq!(found, ok, "{name} {condition:?}: {line}");
            assert_eq!(line.matches('\n').count(), 1, "{line}");
            assert!(line.contains(&format!("(pid {}, ", std::process::id())), "{line}");
        }
    }
    let (_held, address) = reserve("127.0.0.1:0");
    let (ok, line) = command(&prober(&[address], PATIENT), Live, None, false).await;
    assert_eq!((ok, line.as_str()), (false, "free: connection refused\n"));
}

#[tokio::test]
async fn the_command_speaks_json() {
    let server = serve("127.0.0.1:0", gateway(json("200 OK", STARTED))).await;
    let (ok, line) = command(&prober(&[server.address], PATIENT), Question::Started, None, true).await;
    let mut value: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert!(ok && value["command"].take().as_str().unwrap().contains("probe"));
    let expected = serde_json::json!({
        "verdict": "gateway", "phase": "started", "ok": true, "condition": "started",
        "url": format!("ws://127.0.0.1:{}", server.address.port()),
        "pid": std::process::id(), "command": null, "detail": "GET /startupz answered 200 started",
    });
    assert_eq!(value, expected);
}

#[tokio::test]
async fn the_command_waits_until_it_is_true_or_the_time_is_over() {
    let (socket, address) = reserve("127.0.0.1:0");
    let late = prober(&[address], PATIENT);
    let before = Instant::now();
    let (ok, _) = command(&late, Question::Live, Some(Duration::from_millis(350)), false).await;
    assert!(!ok && (Duration::from_millis(350)..PATIENT / 4).contains(&before.elapsed()), "{:?}", before.elapsed());
    let serving = async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        start(socket.listen(16).unwrap(), OnConnect::Listens, None, gateway(json("200 OK", STARTED)))
    };
    let ((ok, line), _server) = tokio::join!(command(&late, Question::Live, Some(Duration::MAX), false), serving);
    assert!(ok, "{line}");
}
