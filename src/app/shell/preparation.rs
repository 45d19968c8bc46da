//! What a start needs of file systems that may hang: those of the program, its configuration, the working directory and
//! the log file. They are looked at beside the loop, and the loop starts the process once that is done.

use crate::core::{Call, Fingerprint, Generation, SpawnFailure};
use crate::gateway::installer;
use crate::gateway::openclaw::{self, Openclaw};
use crate::gateway::process::{self, Launch, Streams};
use crate::gateway::program;
use crate::host::clock;
use crate::platform::standard_streams;
use crate::platform::thread::BlockingCall;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How long the looks may take: milliseconds, on a disk that has to spin up some seconds.
const TIME_MAX: Duration = Duration::from_secs(10);

/// What is to be started.
#[derive(Debug)]
pub(super) enum Start {
    Gateway { generation: Generation, no_respawn: bool },
    Hook { ticket: u64, call: Call },
}

/// The starts that wait: one at most, for the core begins nothing beside another start.
#[derive(Default)]
pub(super) struct Preparation {
    calls: BlockingCall,
    number: u64,
    waiting: Option<Start>,
}

/// What is looked at.
pub(super) struct Site {
    /// The program as the user named it.
    pub(super) program_word: OsString,
    pub(super) launch: Arc<Launch>,
    pub(super) openclaw: Option<Openclaw>,
    /// The files of the configuration.
    pub(super) files: Vec<PathBuf>,
}

/// What was found.
#[derive(Debug)]
pub struct Prepared {
    /// The program, if it is another one now, and its files.
    pub(super) moved: Option<(Launch, Option<Openclaw>)>,
    /// What keeps the gateway from being started just now.
    pub(super) obstacle: Option<SpawnFailure>,
    pub(super) fingerprint: Fingerprint,
    pub(super) streams: Streams,
    /// The log file, if a standard stream of ours has lost its reader.
    pub(super) log: Option<String>,
}

impl Preparation {
    /// The looks; [`Preparation::take`] returns the start by their number.
    pub(super) fn begin(
        &mut self,
        start: Start,
        site: Site,
    ) -> impl Future<Output = (u64, io::Result<Box<Prepared>>)> + Send + use<> {
        self.number += 1;
        self.waiting = Some(start);
        let (calls, number) = (self.calls.clone(), self.number);
        async move { (number, calls.run(TIME_MAX, move || site.look()).await.map(Box::new)) }
    }

    /// The start for which this is, if it is still wanted.
    pub(super) fn take(&mut self, number: u64) -> Option<Start> {
        if number == self.number { self.waiting.take() } else { None }
    }

    /// Takes back the start of a gateway that has not begun, and returns its number.
    pub(super) fn take_back_gateway(&mut self) -> Option<Generation> {
        match self.waiting.take() {
            Some(Start::Gateway { generation, .. }) => Some(generation),
            other => {
                self.waiting = other;
                None
            }
        }
    }

    /// Takes back a hook that was not called. Says whether that was so.
    pub(super) fn take_back_hook(&mut self, ticket: u64) -> bool {
        let is_it = |start: &mut Start| matches!(start, Start::Hook { ticket: own, .. } if *own == ticket);
        self.waiting.take_if(is_it).is_some()
    }
}

impl Prepared {
    /// Where the looks take too long. A hook may be what mends that.
    pub(super) fn unknown(error: &io::Error) -> Self {
        let obstacle = Some(SpawnFailure::Resources(format!(
            "cannot look at the program, its configuration or the working directory: {error}; check their mounts"
        )));
        Self { moved: None, obstacle, fingerprint: Fingerprint::default(), streams: [None, None], log: None }
    }
}

impl Site {
    fn look(self) -> Prepared {
        let Self { program_word, launch, openclaw, files } = self;
        // An update of it, or of Node.js, may have moved it.
        let moved = program::moved(&program_word, &launch.program).map(|found| {
            let launch = Launch { program: found, ..(*launch).clone() };
            let openclaw = Openclaw::of(&launch);
            (launch, openclaw)
        });
        let (program, openclaw) = match &moved {
            Some((launch, openclaw)) => (&launch.program, openclaw.as_ref()),
            None => (&launch.program, openclaw.as_ref()),
        };
        let update = openclaw.and_then(|openclaw| openclaw.obstacle(clock::wall(), installer::given_up));
        let obstacle = update
            .or_else(|| program::trouble(program).map(|why| SpawnFailure::Program(format!("cannot start: {why}"))));
        // Taken before the start: what is changed later is another state of the files.
        let config = openclaw::fingerprint(files.iter().map(|file| Some(file.as_path())));
        let fingerprint = Fingerprint { config, program: openclaw.map_or(0, Openclaw::fingerprint) };
        let log = standard_streams::log_in_use().map(|file| file.display().to_string());
        Prepared { moved, obstacle, fingerprint, streams: process::prepare(), log }
    }
}
