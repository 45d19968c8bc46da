//! What has to hold for any bytes that strangers feed us, one function for each place where they come in. `fuzz/targets`
//! has libFuzzer look for bytes that break it, and `tests/strangers.rs` tries bytes near those in `fuzz/seeds`. What only
//! private functions read has its property, `read_any`, beside them.

use openclaw_supervise::core::{Endpoint, LeaseAnswer, LeaseRequest, Verdict};
use openclaw_supervise::gateway::probe::{Look, Prober};
use openclaw_supervise::gateway::state_lock;
use openclaw_supervise::host::control::{BoundSocket, Connection, Control, Facts, NAME, Query};
use openclaw_supervise::platform::{proc, sqlite};
use openclaw_supervise::settings::{self, Invocation, ProcessContext, UsageErrors};
use openclaw_supervise::store::{BasisChoice, Clocks, Limits, News, Place, SpawnIntent, Store, StoreReader};
use rusqlite::types::Value;
use std::cell::OnceCell;
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

/// Longer than anything takes here that does not wait for ever.
const PATIENCE: Duration = Duration::from_secs(20);

/// A directory and an event loop of this thread.
struct Stage {
    dir: PathBuf,
    runtime: Runtime,
}

impl Stage {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        sqlite::keep_small();
        let name = format!("ocs-any-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir).expect("a scratch directory can be made");
        Self { dir, runtime: Builder::new_current_thread().enable_all().build().expect("a runtime can be made") }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.dir).ok();
    }
}

fn on_stage<T>(play: impl FnOnce(&Stage) -> T) -> T {
    thread_local!(static STAGE: OnceCell<Stage> = const { OnceCell::new() });
    STAGE.with(|stage| play(stage.get_or_init(Stage::new)))
}

fn context(dir: &Path, variables: HashMap<String, OsString>) -> ProcessContext {
    ProcessContext {
        env: Arc::new(move |name| variables.get(name).cloned()),
        home: || None,
        cwd: dir.to_owned(),
        terminal: false,
        container: None,
        process_manager: None,
        launchd: false,
        journal: false,
        tailnet: || None,
    }
}

/// Options that `uninstall` knows, those with a value first.
const OF_UNINSTALL: [&str; 8] =
    ["--run-as", "--profile", "--log-format", "--log-level", "--user", "--system", "--dry-run", "--force"];

/// A command line, with words such as `NAME=VALUE` for its environment: what is wrong is told in a line each, and nothing
/// is uninstalled for words that are not understood.
pub(crate) fn argv(data: &[u8]) {
    let (mut words, mut variables) = (vec![OsString::from("openclaw-supervise")], HashMap::new());
    for word in data.split(|byte| [b'\n', 0].contains(byte)) {
        match std::str::from_utf8(word).ok().and_then(|text| text.split_once('=')) {
            Some((name, value)) if name.starts_with("OPENCLAW_") => {
                variables.insert(name.to_owned(), value.into());
            }
            _ => words.push(OsString::from_vec(word.to_vec())),
        }
    }
    on_stage(|stage| {
        let context = context(&stage.dir, variables);
        match settings::read(words.clone(), &context) {
            Ok(Invocation::Uninstall(_)) => assert_uninstall(&words),
            Ok(_) => {}
            Err(errors) => assert_told(&errors),
        }
    });
}

fn assert_uninstall(words: &[OsString]) {
    let mut words = words.iter().skip(1);
    let mut verbs = 0;
    while let Some(word) = words.next() {
        let text = word.to_str().expect("a word of uninstall is text");
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        match OF_UNINSTALL.iter().position(|option| *option == name) {
            Some(0..4) if value.is_none() => drop(words.next().expect("it has a value")),
            Some(_) => {}
            None if text == "--" => {}
            None => {
                assert_eq!(text, "uninstall");
                verbs += 1;
            }
        }
    }
    assert_eq!(verbs, 1);
}

fn assert_told(errors: &UsageErrors) {
    let text = errors.to_string();
    assert!(!errors.all().is_empty() && text.lines().count() == errors.all().len(), "{text:?}");
    assert!([1, 2, 78].contains(&errors.exit_code()), "{}", errors.exit_code());
}

/// The gateway's config, and behind a NUL its `.env`: no gateway is kept from its start.
pub(crate) fn config(data: &[u8]) {
    let (config, env) = data.split_at(data.iter().position(|byte| *byte == 0).unwrap_or(data.len()));
    on_stage(|stage| {
        fs::write(stage.dir.join("openclaw.json"), config).expect("a file can be written");
        fs::write(stage.dir.join(".env"), env.get(1..).unwrap_or_default()).expect("a file can be written");
        let words = ["openclaw-supervise", "probe", "--state-dir"].map(OsString::from);
        let words = words.into_iter().chain([stage.dir.clone().into_os_string()]);
        match settings::read(words, &context(&stage.dir, HashMap::new())) {
            Ok(Invocation::Probe(probe)) => assert!(probe.endpoint.port > 0 && !probe.endpoint.addresses.is_empty()),
            other => panic!("{other:?}"),
        }
    });
}

/// The lock file of a state directory: only a living process is an owner.
pub(crate) fn lock(data: &[u8]) {
    on_stage(|stage| {
        let folder = stage.dir.join("tmp").join(format!("openclaw-{}", uid(&stage.dir)));
        fs::create_dir_all(&folder).expect("a directory can be made");
        fs::write(folder.join("gateway.state.lock"), data).expect("a file can be written");
        if let Some(owner) = state_lock::owner(&stage.dir) {
            assert!(owner.pid > 0 && proc::stat(owner.pid).is_ok(), "{owner:?}");
        }
    });
}

fn uid(dir: &Path) -> u32 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(dir).expect("it is there").uid()
}

/// All that comes back over one connection: a gateway is healthy only where the answer says so.
pub(crate) fn http(data: &[u8]) {
    on_stage(|stage| {
        stage.runtime.block_on(async {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port can be had");
            let address = listener.local_addr().expect("it is bound");
            let endpoint =
                Endpoint { addresses: vec![address], tls: false, host: address.ip().to_string(), port: address.port() };
            let serve = async {
                loop {
                    let Ok((mut stream, _)) = listener.accept().await else { return };
                    let _request = stream.read(&mut [0; 1024]).await;
                    let _closed = stream.write_all(data).await;
                }
            };
            let prober = Prober::new(endpoint, Duration::from_secs(2));
            let seen = tokio::select! {
                seen = prober.look(Look::Answers { leader: None }) => seen,
                () = serve => return,
            };
            if let Verdict::Gateway(_) | Verdict::Draining = seen.verdict {
                let has = |text: &[u8]| data.windows(text.len()).any(|part| part == text);
                assert!(has(b"200") && has(b"ok"), "{seen:?}");
            }
            assert!(!seen.detail.contains('\n'), "{:?}", seen.detail);
        });
    });
}

/// What a supervisor, or another program on its socket, answers to a client.
pub(crate) fn control_answer(data: &[u8]) {
    on_stage(|stage| {
        let path = stage.dir.join(NAME);
        fs::remove_file(&path).ok();
        stage.runtime.block_on(async {
            let listener = UnixListener::bind(&path).expect("a socket can be made");
            let serve = async {
                let (mut stream, _) = listener.accept().await.expect("a client comes");
                let _request = stream.read(&mut [0; 64]).await;
                let _closed = stream.write_all(data).await;
            };
            let (answer, ()) = tokio::join!(timeout(PATIENCE, Connection::status(&stage.dir)), serve);
            match answer.expect("it does not wait for ever") {
                Ok((_, reply)) => drop(serde_json::to_string(&reply).expect("it can be shown")),
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        });
    });
}

/// What a client sends: each answer is one JSON object a line, and the socket closes.
pub(crate) fn control_line(data: &[u8]) {
    on_stage(|stage| {
        stage.runtime.block_on(async {
            let bound = BoundSocket::of_owner(&stage.dir).expect("a socket can be made");
            let control = Control::on(bound).expect("it is in a runtime");
            let (messages, mut queries) = tokio::sync::mpsc::channel::<Query>(4);
            let facts = Facts {
                manager: "unknown",
                started_at: String::new(),
                config: stage.dir.clone(),
                store_dir: stage.dir.clone(),
                heap_mib: None,
                heap_source: String::new(),
            };
            let client = async {
                let mut stream = UnixStream::connect(stage.dir.join(NAME)).await.expect("it listens");
                let _closed = stream.write_all(data).await;
                let _closed = stream.shutdown().await;
                let mut answer = Vec::new();
                let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it closes");
                // It may be reset, with what was sent and not read.
                read.map_or_else(|_| Vec::new(), |_| answer)
            };
            let answer = tokio::select! {
                answer = client => answer,
                () = control.serve(messages, facts, Arc::new(|_| false)) => return,
                () = async { while queries.recv().await.is_some() {} } => return,
            };
            for line in answer.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                serde_json::from_slice::<serde_json::Value>(line).expect("each line is JSON");
            }
        });
    });
}

/// A database in which rows or bytes are not ours: it is read, or it is said why not; and a supervisor takes the lease or says
/// why not.
pub(crate) fn store(data: &[u8]) {
    thread_local!(static TEMPLATE: OnceCell<Vec<u8>> = const { OnceCell::new() });
    on_stage(|stage| {
        let dir = stage.dir.join("supervise");
        let file = dir.join("supervise.sqlite");
        let written = TEMPLATE.with(|template| {
            template
                .get_or_init(|| {
                    take_lease(&dir, true);
                    let conn = rusqlite::Connection::open(&file).expect("it is a database");
                    conn.query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(())).expect("nothing else has it");
                    drop(conn);
                    fs::read(&file).expect("it was written")
                })
                .clone()
        });
        fs::remove_dir_all(&dir).ok();
        fs::create_dir_all(&dir).expect("a directory can be made");
        match data.split_first() {
            Some((kind, changes)) if kind % 2 == 1 => {
                let mut bytes = written;
                for change in changes.chunks_exact(4) {
                    let at = usize::from(u16::from_le_bytes([change[0], change[1]])) * 8 + usize::from(change[2] % 8);
                    let length = bytes.len();
                    bytes[at % length] = change[3];
                }
                fs::write(&file, bytes).expect("a file can be written");
            }
            Some((_, changes)) => {
                fs::write(&file, written).expect("a file can be written");
                change_rows(&file, changes);
            }
            None => fs::write(&file, written).expect("a file can be written"),
        }
        read_all(&dir);
        take_lease(&dir, false);
    });
}

fn change_rows(file: &Path, mut data: &[u8]) {
    let conn = rusqlite::Connection::open(file).expect("it is a database");
    let columns: Vec<(String, String)> = conn
        .prepare("select m.name, c.name from sqlite_master m, pragma_table_info(m.name) c where m.type = 'table'")
        .and_then(|mut rows| rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect())
        .expect("it has tables");
    while let [column, kind, length, rest @ ..] = data {
        let (value, left) = rest.split_at(rest.len().min(usize::from(*length)));
        data = left;
        let number = || i64::from_le_bytes(std::array::from_fn(|at| value.get(at).copied().unwrap_or(0)));
        let value = match kind % 5 {
            0 => Value::Null,
            1 => Value::Integer(number()),
            2 => Value::Real(f64::from_bits(number().cast_unsigned())),
            3 => Value::Text(String::from_utf8_lossy(value).into_owned()),
            _ => Value::Blob(value.to_vec()),
        };
        let (table, name) = &columns[usize::from(*column) % columns.len()];
        // A constraint may refuse it.
        conn.execute(&format!("update \"{table}\" set \"{name}\" = ?1"), [value]).ok();
    }
}

fn read_all(dir: &Path) {
    let Ok(Some(reader)) = StoreReader::open(dir) else { return };
    let (_owner, _past) = (reader.lease(), reader.past(Duration::from_hours(1)));
    if let Ok(Some(record)) = reader.youngest() {
        let _age = reader.age(&record);
    }
    let _events = (reader.events_last(50), reader.events_after(0, 50));
}

/// Takes the lease and writes a record, or learns why that cannot be.
fn take_lease(dir: &Path, has_to: bool) {
    let (sender, news) = mpsc::channel();
    let place = Place {
        dir: dir.to_owned(),
        key: "/etc/openclaw.json".to_owned(),
        port: 1,
        is_guess: true,
        host: "127.0.0.1".to_owned(),
        socket: dir.join(NAME),
        standby_socket: dir.join("standby.sock"),
        basis: BasisChoice::Lock,
        is_watched: false,
    };
    let store = Store::open(place, Clocks::system(), Limits::default(), move |told| drop(sender.send(told)))
        .expect("a thread can be started");
    let now = Duration::from_hours(1);
    store.ask(1, LeaseRequest::Take { unchanged: None }, now);
    let is_ours = loop {
        if let News::Leased { answer, .. } = news.recv_timeout(PATIENCE).expect("the store answers") {
            break matches!(answer, LeaseAnswer::Acquired(_));
        }
    };
    if is_ours {
        store.report(0, "supervisor.started", None, "{}".to_owned());
        store.intend(SpawnIntent { generation: 1, instance: "0-0".to_owned(), command: "openclaw".to_owned() });
        store.spawned(1, 1, 1);
    }
    let released = store.close(true);
    assert!(!has_to || (is_ours && released), "a new store is ours");
}
