//! Helpers for the tests of the store.

use crate::root::needs_root;
use openclaw_supervise::core::{Acquired, Generation, Holder, LeaseAnswer, LeaseRequest, LeftRecord, Moment, Report};
use openclaw_supervise::platform::claim::Server;
use openclaw_supervise::platform::sqlite;
use openclaw_supervise::store::{BasisChoice, Clocks, Limits, News, Place, SpawnIntent, Store, StoreReader};
use rusqlite::Connection;
use rustix::fs::{FlockOperation, flock};
use std::env;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

/// Longer than any step takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// The current time of the core in the tests.
pub(crate) const NOW: Moment = Duration::from_hours(10_000);

/// A directory and a port that no other test uses at the same time.
pub(crate) struct Scene {
    pub(crate) place: Place,
    root: PathBuf,
    owns_root: bool,
    _port: TcpListener,
}

impl Scene {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        sqlite::keep_small();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let root = env::temp_dir().join(format!("supervise-store-test-{}-{number}", std::process::id()));
        fs::create_dir(&root).unwrap();
        let mut scene = Self::at(root.join("store"));
        (scene.root, scene.owns_root) = (root, true);
        scene
    }

    /// In a directory that the caller removes.
    fn at(dir: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (key, host) = ("/etc/openclaw.json".to_owned(), "127.0.0.1".to_owned());
        let (socket, basis) = (dir.join("control.sock"), BasisChoice::Auto);
        let standby_socket = dir.join("standby.sock");
        let (is_guess, is_watched) = (false, false);
        let place = Place { dir: dir.clone(), key, port, host, socket, standby_socket, basis, is_guess, is_watched };
        Self { place, root: dir, owns_root: false, _port: listener }
    }

    /// As on a file system with unreliable locks.
    pub(crate) fn with_heartbeat() -> Self {
        let mut scene = Self::new();
        scene.place.basis = BasisChoice::Heartbeat;
        scene
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.place.dir
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.place.dir.join(name)
    }

    pub(crate) fn start(&self) -> Running {
        Running::start(self.place.clone(), Clocks::system(), quick())
    }

    /// A store with the lease.
    pub(crate) fn owner(&self) -> Running {
        let mut running = self.start();
        running.acquire();
        running
    }

    /// A second connection to the database.
    pub(crate) fn sql(&self) -> Connection {
        Connection::open(self.file("supervise.sqlite")).unwrap()
    }

    pub(crate) fn reader(&self) -> StoreReader {
        StoreReader::open(self.dir()).unwrap().unwrap()
    }

    /// The lock, held by another descriptor.
    pub(crate) fn foreign_lock(&self) -> File {
        fs::create_dir_all(self.dir()).unwrap();
        let file = File::create(self.file("lease.lock")).unwrap();
        flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
        file
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if self.owns_root {
            let _left = fs::remove_dir_all(&self.root);
        }
    }
}

/// Short limits.
pub(crate) fn quick() -> Limits {
    Limits { wait: Duration::from_millis(300), beat: Duration::from_hours(1), ..Limits::default() }
}

/// A store and its news.
pub(crate) struct Running {
    pub(crate) store: Option<Store>,
    news: Receiver<News>,
    ticket: u64,
    /// The prefix of the ids of its gateways.
    pub(crate) instance: &'static str,
    pub(crate) reports: Vec<Report>,
    pub(crate) warnings: Vec<String>,
    pub(crate) server: Option<Server>,
    /// How often [`News::Moved`] came.
    pub(crate) moves: usize,
}

impl Running {
    pub(crate) fn start(place: Place, clocks: Clocks, limits: Limits) -> Self {
        let (tell, news) = mpsc::channel();
        let store = Store::open(place, clocks, limits, move |news| {
            let _closed = tell.send(news);
        });
        let (reports, warnings) = (Vec::new(), Vec::new());
        let (store, instance) = (Some(store.unwrap()), "instance");
        Self { store, news, ticket: 0, instance, reports, warnings, server: None, moves: 0 }
    }

    pub(crate) fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    /// The next answer.
    pub(crate) fn next(&mut self) -> News {
        loop {
            match self.news.recv_timeout(PATIENCE).unwrap() {
                News::Report(report) => self.reports.push(report),
                News::Warning(warning) => self.warnings.push(warning),
                News::Claimed(server) => self.server = Some(server),
                News::Moved => self.moves += 1,
                News::Failed(why) => self.reports.push(Report::StoreUnavailable { why }),
                News::Returned => self.reports.push(Report::StoreAvailable),
                News::Beaten => {}
                news => return news,
            }
        }
    }

    /// Waits until the files of another wing have to be created again.
    pub(crate) fn wait_moved(&mut self) {
        loop {
            match self.news.recv_timeout(PATIENCE).unwrap() {
                News::Moved => return,
                News::Report(report) => self.reports.push(report),
                News::Warning(warning) => self.warnings.push(warning),
                news => panic!("{news:?}"),
            }
        }
    }

    pub(crate) fn ask(&mut self, ask: LeaseRequest, now: Moment) -> (LeaseAnswer, Option<LeftRecord>) {
        self.ticket += 1;
        self.store().ask(self.ticket, ask, now);
        match self.next() {
            News::Leased { ticket, answer, left, .. } if ticket == self.ticket => (answer, left),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn take(&mut self) -> LeaseAnswer {
        self.ask(LeaseRequest::Take { unchanged: None }, NOW).0
    }

    pub(crate) fn peek(&mut self) -> LeaseAnswer {
        self.ask(LeaseRequest::Peek, NOW).0
    }

    pub(crate) fn acquire(&mut self) -> Acquired {
        acquired(self.take())
    }

    /// Waits until all earlier jobs are done.
    pub(crate) fn sync(&mut self) {
        self.store().confirm(77);
        assert!(matches!(self.next(), News::Confirmed { ticket: 77 }));
    }

    pub(crate) fn intend(&self, generation: Generation) {
        let instance = format!("{}-{generation}", self.instance);
        self.store().intend(SpawnIntent { generation, instance, command: "openclaw gateway".to_owned() });
    }

    /// Records an intent and waits for the answer.
    pub(crate) fn intended(&mut self, generation: Generation) {
        self.intend(generation);
        assert!(matches!(self.next(), News::Intended { generation: told } if told == generation));
    }

    pub(crate) fn report(&self, name: &str) {
        self.store().report(Clocks::system().now().wall_ms, name, None, "{\"a\":1}".to_owned());
    }

    pub(crate) fn lost(&mut self) -> (Option<Holder>, String) {
        match self.next() {
            News::Lost { owner, why } => (owner, why),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn close(mut self, release: bool) -> bool {
        self.store.take().unwrap().close(release)
    }

    /// Ends without a release, as by SIGKILL, and waits until the lock is free.
    pub(crate) fn crash(mut self) {
        drop(self.store.take());
        while self.news.recv_timeout(PATIENCE).is_ok() {}
    }
}

pub(crate) fn acquired(answer: LeaseAnswer) -> Acquired {
    match answer {
        LeaseAnswer::Acquired(acquired) => *acquired,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn me() -> i32 {
    std::process::id().cast_signed()
}

pub(crate) fn is_me(owner: Option<&Holder>) -> bool {
    owner.is_some_and(|owner| owner.pid == me() && owner.command.contains("store"))
}

/// Tells the process of a test that it is the inner one.
const INSIDE: &str = "SUPERVISE_STORE_TEST_INSIDE";

/// Runs a test again in a process that `unshare` and `setup` prepare. `inside` runs there, in the directory that `setup` has
/// created of its first argument.
pub(crate) fn elsewhere(test: &str, unshare: &[&str], setup: &str, inside: impl FnOnce(&Scene)) {
    if let Some(dir) = env::var_os(INSIDE) {
        return inside(&Scene::at(dir.into()));
    }
    needs_root("a mount namespace");
    let scene = Scene::new();
    let script = format!("{setup}\nexec \"$0\" --exact {test} --nocapture");
    let mut command = Command::new("unshare");
    command.args(unshare).args(["sh", "-ec", &script]).arg(env::current_exe().unwrap()).arg(scene.root());
    let output = command.env(INSIDE, scene.root()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
}

/// Another process with the lease of a scene.
pub(crate) struct Other {
    child: Child,
    /// At its end the process exits.
    input: Option<ChildStdin>,
    pub(crate) pid: i32,
}

impl Other {
    /// `runner` runs it, such as `unshare`; `test` is one that calls [`Other::be`].
    pub(crate) fn start(scene: &Scene, runner: &[&str], test: &str) -> Self {
        let exe = env::current_exe().unwrap();
        let mut words = runner.iter().copied().chain([exe.to_str().unwrap()]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).args(["--exact", test, "--nocapture"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.env(INSIDE, scene.dir()).env("PORT", scene.place.port.to_string());
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let line = out.lines().map(Result::unwrap).find(|line| line.contains("owner "));
        let pid = line.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
        let input = child.stdin.take();
        Self { child, input, pid }
    }

    /// Whether we are that process; then it returns when the test has ended.
    pub(crate) fn be() -> bool {
        let Some(dir) = env::var_os(INSIDE) else { return false };
        let mut scene = Scene::at(dir.into());
        scene.place.port = env::var("PORT").unwrap().parse().unwrap();
        let owner = scene.owner();
        tell_line(&format!("owner {}", me()));
        let _end_of_input = std::io::stdin().read_line(&mut String::new());
        assert!(owner.close(true));
        true
    }

    /// Returns the input, which has to stay open until the process is killed.
    #[must_use]
    pub(crate) fn kill(mut self) -> Option<ChildStdin> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.input.take()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn tell_line(line: &str) {
    let mut out = std::io::stdout();
    out.write_all(format!("{line}\n").as_bytes()).unwrap();
}
