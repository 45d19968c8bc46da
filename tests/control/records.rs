//! What `status`, `events` and `explain` read from a store: one that was left, one in use, a damaged one.

use crate::office::{self, PortState, Stage, Verb};
use openclaw_supervise::core::{ExitStatus, Fact, LeaseAnswer, LeaseRequest};
use openclaw_supervise::host::clock;
use openclaw_supervise::host::control::NAME;
use openclaw_supervise::store::{BasisChoice, Clocks, Limits, News, Place, SpawnIntent, Store};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

/// A supervisor's store, without the supervisor.
struct Keeper {
    store: Store,
    news: Receiver<News>,
}

impl Keeper {
    /// Takes the lease.
    fn start(stage: &Stage) -> Self {
        let place = Place {
            dir: stage.store().to_owned(),
            key: stage.root().join("openclaw.json").display().to_string(),
            port: stage.port(),
            is_guess: false,
            host: "127.0.0.1".to_owned(),
            socket: stage.store().join(NAME),
            standby_socket: stage.store().join("standby.sock"),
            basis: BasisChoice::Lock,
            is_watched: false,
        };
        let (tell, news) = channel();
        let store = Store::open(place, Clocks::system(), Limits::default(), move |news| drop(tell.send(news))).unwrap();
        store.ask(1, LeaseRequest::Take { unchanged: None }, clock::now());
        let keeper = Self { store, news };
        keeper.wait(|news| match news {
            News::Leased { answer: LeaseAnswer::Acquired(_), .. } => true,
            News::Leased { answer, .. } => panic!("{answer:?}"),
            _ => false,
        });
        keeper
    }

    fn wait(&self, is_it: impl Fn(&News) -> bool) {
        while !is_it(&self.news.recv_timeout(office::PATIENCE).unwrap()) {}
    }

    /// A gateway that is this process.
    fn spawn(&self, process: &Child) {
        let intent = SpawnIntent { generation: 1, instance: "x-y".to_owned(), command: "gateway".to_owned() };
        self.store.intend(intent);
        self.wait(|news| matches!(news, News::Intended { .. }));
        let pid = process.id().cast_signed();
        let start_time = openclaw_supervise::platform::proc::stat(pid).unwrap().start_time;
        self.store.spawned(1, pid, start_time);
    }

    fn report(&self, name: &str, fields: &Value) {
        self.store.report(1_800_000_000_005, name, fields["generation"].as_u64(), fields.to_string());
    }

    /// Waits until everything before is written.
    fn settle(&self) {
        self.store.confirm(9);
        self.wait(|news| matches!(news, News::Confirmed { .. }));
    }
}

/// A process that stands for a gateway, gone with this value.
struct Sleeper(Child);

impl Sleeper {
    fn start() -> Self {
        Self(Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[tokio::test]
async fn where_no_supervisor_runs_status_tells_what_was() {
    let stage = Stage::new("was");
    let keeper = Keeper::start(&stage);
    let sleeper = Sleeper::start();
    keeper.spawn(&sleeper.0);
    let pid = sleeper.0.id();
    keeper.store.remember(1, Fact::Died(ExitStatus::Code(7)), clock::now());
    assert!(keeper.store.close(true));
    let shown = Verb::new(&stage, &["status"]).run().await;
    assert_eq!(shown.code, 3, "{shown:?}");
    let row = shown.row("supervisor");
    let start = format!("not running: it released its lease (pid {}", std::process::id());
    assert!(row.starts_with(&start), "{shown:?}");
    let row = shown.row("gateway");
    assert!(row.starts_with(&format!("not running; gateway 1 (pid {pid}) ended with exit code 7 at ")), "{shown:?}");
    assert_eq!(shown.row("lease"), "free, last epoch 1");
    let status = Verb::new(&stage, &["status", "--json"]).run().await.json();
    assert_eq!(status["answered_by"], "store");
    assert_eq!(status["last"]["gateway"]["end"], "with exit code 7");
    assert_eq!(status["lease"], json!({"held": false, "epoch": 1, "owner_pid": null}));
}

#[tokio::test]
async fn a_supervisor_without_a_socket_and_a_gateway_without_a_port_are_seen_all_the_same() {
    let stage = Stage::new("unseen");
    let keeper = Keeper::start(&stage);
    let sleeper = Sleeper::start();
    keeper.spawn(&sleeper.0);
    keeper.settle();
    let shown = Verb::new(&stage, &["status"]).run().await;
    assert_eq!(shown.code, 4, "{shown:?}");
    let me = std::process::id();
    assert!(
        shown.row("supervisor").starts_with(&format!("unreachable (pid {me}): it has no control socket")),
        "{shown:?}"
    );
    assert!(shown.row("gateway").starts_with(&format!("1: pid {}, ", sleeper.0.id())), "{shown:?}");
    assert_eq!(shown.row("lease"), format!("held by pid {me}, epoch 1"));
    let gateway = stage.gateway(PortState::Healthy);
    assert_eq!(Verb::new(&stage, &["status"]).run().await.code, 0);
    drop(gateway);
    drop(sleeper);
    let shown = Verb::new(&stage, &["status"]).run().await;
    assert_eq!(shown.code, 3, "{shown:?}");
    assert!(shown.row("gateway").ends_with("ended with an unknown status"), "{shown:?}");
    assert!(keeper.store.close(true));
}

/// As `events` shows it behind each time.
fn local_zone() -> String {
    let at = jiff::Timestamp::from_millisecond(1_800_000_000_005).unwrap();
    at.to_zoned_datetime(jiff::tz::TimeZone::system()).strftime(" %Z").to_string()
}

#[tokio::test]
async fn a_decision_is_explained_from_the_store_and_what_cannot_be_is_one_line() {
    let stage = Stage::new("explain");
    let missing = Verb::new(&stage, &["explain"]).run().await;
    assert_eq!((missing.code, missing.out.as_str()), (1, ""));
    assert!(missing.err.contains("nothing is recorded in") && missing.err.lines().count() == 1, "{missing:?}");
    let keeper = Keeper::start(&stage);
    keeper.report("gateway.spawned", &json!({"generation": 1, "pid": 9}));
    keeper.report("stop.requested", &json!({"by": "SIGTERM from pid 7", "by_uid": 0}));
    keeper.report("gateway.exited", &json!({"generation": 1, "pid": 9, "code": 0, "cause": "stop requested"}));
    keeper.settle();
    let text = Verb::new(&stage, &["explain"]).run().await;
    assert_eq!(text.code, 0, "{text:?}");
    assert!(text.out.starts_with("gateway 1 was stopped on request.\n"), "{text:?}");
    assert!(text.out.contains("SIGTERM from pid 7, user root (uid 0)"), "{text:?}");
    let told = Verb::new(&stage, &["explain", "1", "--json"]).run().await.json();
    assert_eq!((&told["generation"], &told["at"]), (&json!(1), &json!("2027-01-15T08:00:00.005Z")), "{told:#}");
    for (word, code, said) in [
        ("2", 1, "there has been no gateway 2: the newest on record is gateway 1"),
        ("incident", 1, "no incident is on record"),
        ("x", 2, "not last, incident, the number of a gateway, or the file of an incident"),
        ("0", 2, "not last, incident, the number of a gateway, or the file of an incident"),
    ] {
        let shown = Verb::new(&stage, &["explain", word]).run().await;
        assert_eq!((shown.code, shown.out.as_str()), (code, ""), "{word}: {shown:?}");
        assert!(shown.err.contains(said) && shown.err.lines().count() == 1, "{word}: {shown:?}");
    }
    assert!(keeper.store.close(true));
}

#[test]
fn follow_ends_when_its_reader_is_gone_though_nothing_happens() {
    let stage = Stage::new("idle");
    let keeper = Keeper::start(&stage);
    let mut follow = Verb::new(&stage, &["events", "-f", "-n", "0"]).spawn();
    drop(follow.stdout.take());
    let end = follow.wait_with_output().unwrap();
    assert_eq!((end.status.code(), String::from_utf8_lossy(&end.stderr).as_ref()), (Some(0), ""));
    assert!(keeper.store.close(true));
}

#[tokio::test]
async fn events_are_shown_oldest_first_as_text_or_as_the_objects_of_the_log() {
    let stage = Stage::new("events");
    let keeper = Keeper::start(&stage);
    // As a version before this one kept it.
    keeper.report("supervisor.started", &json!({"version": "0.1.0", "pid": 7}));
    let (level, message) = ("warn", "gateway 1 (pid 9) ended: hung");
    let exited = json!({"level": level, "message": message, "generation": 1, "pid": 9, "cause": "hung"});
    keeper.report("gateway.exited", &exited);
    keeper.settle();
    let text = Verb::new(&stage, &["events"]).run().await;
    assert_eq!(text.code, 0, "{text:?}");
    let lines: Vec<_> =
        text.out.lines().map(|line| line.split_once(&local_zone()).map_or(line, |(_, line)| line)).collect();
    assert_eq!(
        lines,
        [
            "       supervisor.started     version=0.1.0 pid=7",
            "  WARN gateway.exited         gateway 1 (pid 9) ended: hung"
        ]
    );
    let at = "2027-01-15T08:00:00.005Z";
    let told = json!({
        "event": "gateway.exited", "at": at, "level": level, "message": message, "generation": 1, "pid": 9, "cause": "hung"
    })
    .to_string();
    for words in [["--lines", "1"], ["--since", "2027-01-15T08:00:00Z"], ["--level", "error"], ["--level", "warning"]] {
        let objects = Verb::new(&stage, &[&["events", "--json"][..], &words].concat()).run().await;
        let last = objects.out.lines().last().unwrap_or_default();
        assert_eq!(last == told, words[1] != "error", "{words:?}: {last}");
    }
    let late = Verb::new(&stage, &["events", "--since", "2027-01-15T08:00:01Z"]).run().await;
    assert_eq!((late.code, late.out.as_str()), (0, ""));
    assert!(late.err.contains("no event on record in"), "{late:?}");
    let none = Verb::new(&stage, &["events", "-n", "0"]).run().await;
    assert_eq!((none.code, none.out.as_str(), none.err.as_str()), (0, "", ""));
    assert!(keeper.store.close(true));
}

#[test]
fn follow_starts_with_the_store_continues_with_new_events_and_ends_when_its_reader_is_gone() {
    let stage = Stage::new("on");
    let mut follow = Verb::new(&stage, &["events", "--follow", "--json"]).spawn();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap()["event"].clone();
    let keeper = Keeper::start(&stage);
    for name in ["a.first", "a.second"] {
        keeper.report(name, &json!({}));
    }
    assert_eq!([next(), next()], ["a.first", "a.second"]);
    keeper.report("a.third", &json!({}));
    assert_eq!(next(), "a.third");
    assert!(keeper.store.close(true));
    // The store is begun anew, as when it was damaged or restored from elsewhere.
    for entry in fs::read_dir(stage.store()).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let keeper = Keeper::start(&stage);
    keeper.report("b.first", &json!({}));
    assert_eq!(next(), "b.first");
    drop(lines);
    keeper.report("b.second", &json!({}));
    let end = follow.wait_with_output().unwrap();
    assert_eq!((end.status.code(), String::from_utf8_lossy(&end.stderr).as_ref()), (Some(0), ""));
    assert!(keeper.store.close(true));
}

#[tokio::test]
async fn a_damaged_store_is_told_of_and_hides_nothing_else() {
    let stage = Stage::new("damaged");
    fs::write(stage.store().join("supervise.sqlite"), "no database at all, but long enough to be looked at").unwrap();
    let gateway = stage.gateway(PortState::Healthy);
    let shown = Verb::new(&stage, &["status"]).run().await;
    assert_eq!(shown.code, 0, "{shown:?}");
    assert!(shown.row("supervisor").starts_with("not running: cannot "), "{shown:?}");
    let shown = Verb::new(&stage, &["events"]).run().await;
    assert_eq!((shown.code, shown.out.as_str()), (1, ""));
    assert!(shown.err.contains("supervise.sqlite"), "{shown:?}");
    drop(gateway);
}
