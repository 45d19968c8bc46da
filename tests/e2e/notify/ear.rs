//! A service manager's end of `NOTIFY_SOCKET`.

use crate::support::supervisor::Launch;
use crate::support::{PATIENCE, Scene, wait_for};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// One datagram.
#[derive(Debug, Clone)]
pub(crate) struct Word {
    pub(crate) heard: Instant,
    lines: Vec<(String, String)>,
}

impl Word {
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.lines.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// What it assigns, in order.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.lines.iter().map(|(name, _)| name.as_str()).collect()
    }

    fn parse(bytes: &[u8]) -> Self {
        let text = std::str::from_utf8(bytes).expect("a datagram is text");
        let split = |line: &str| {
            let (name, value) = line.split_once('=').unwrap_or_else(|| panic!("{line:?} assigns nothing"));
            (name.to_owned(), value.to_owned())
        };
        Self { heard: Instant::now(), lines: text.lines().map(split).collect() }
    }
}

/// The socket, and what came in. Its thread ends with it.
pub(crate) struct Ear {
    name: String,
    socket: Arc<UnixDatagram>,
    words: Arc<Mutex<Vec<Word>>>,
}

/// How often the thread checks whether to stop.
const LOOK: Duration = Duration::from_millis(100);

impl Ear {
    /// At a path in the scene.
    pub(crate) fn path(scene: &Scene) -> Self {
        let ear = Self::deaf(scene);
        // Fills the queue.
        while ear.socket.recv(&mut [0; 16]).is_ok_and(|length| length > 0) {}
        ear.listen();
        ear
    }

    /// At an abstract name.
    pub(crate) fn abstract_name(scene: &Scene) -> Self {
        let name = format!("notify-{}", scene.root().display());
        let address = SocketAddr::from_abstract_name(&name).expect("it is short");
        let ear = Self::new(format!("@{name}"), UnixDatagram::bind_addr(&address).expect("it is free"));
        ear.listen();
        ear
    }

    /// At a path, with a full queue that is not read.
    pub(crate) fn deaf(scene: &Scene) -> Self {
        let path = scene.root().join("notify");
        let ear = Self::new(path.display().to_string(), UnixDatagram::bind(&path).expect("it is free"));
        let filler = UnixDatagram::unbound().expect("a socket");
        filler.set_nonblocking(true).expect("it can be set");
        while filler.send_to(b"X=1", &path).is_ok() {}
        ear
    }

    fn new(name: String, socket: UnixDatagram) -> Self {
        socket.set_read_timeout(Some(LOOK)).expect("it can be set");
        Self { name, socket: Arc::new(socket), words: Arc::default() }
    }

    /// Begins to read.
    pub(crate) fn listen(&self) {
        let (socket, words) = (Arc::clone(&self.socket), Arc::downgrade(&self.words));
        std::thread::spawn(move || {
            while let Some(words) = words.upgrade() {
                let mut bytes = [0; 8192];
                if let Ok(length) = socket.recv(&mut bytes) {
                    words.lock().unwrap().push(Word::parse(&bytes[..length]));
                }
            }
        });
    }

    /// A supervisor to be, with this manager.
    pub(crate) fn launch<'a>(&self, scene: &'a Scene) -> Launch<'a> {
        scene.launch().env("NOTIFY_SOCKET", &self.name)
    }

    /// Everything received so far.
    pub(crate) fn words(&self) -> Vec<Word> {
        self.words.lock().unwrap().clone()
    }

    /// How many messages assign this.
    pub(crate) fn count(&self, name: &str) -> usize {
        self.words().iter().filter(|word| word.has(name)).count()
    }

    /// Waits for the first message that assigns this.
    pub(crate) fn wait(&self, name: &str, value: &str) -> Word {
        self.wait_after(name, value, 0)
    }

    /// Waits for more than this many of them.
    pub(crate) fn wait_after(&self, name: &str, value: &str, count: usize) -> Word {
        let look = || self.words().into_iter().filter(|word| word.value(name) == Some(value)).nth(count);
        wait_for(&format!("{name}={value}"), PATIENCE, || format!("{:#?}", self.words()), look)
    }
}
