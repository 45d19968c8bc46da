//! Processes that look like a part of the gateway's tree, and are none.

use super::process::Process;
use super::{Scene, fake_gateway};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// The variable that names the gateway to whatever it starts.
pub(crate) const INSTANCE: &str = "OPENCLAW_SUPERVISE_INSTANCE";

/// One of them. It ends with this value.
pub(crate) struct Bystander {
    what: &'static str,
    child: Child,
}

impl Bystander {
    /// Starts it in a process group of its own, with nothing on its standard streams.
    pub(crate) fn start(what: &'static str, mut command: Command) -> Self {
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self { what, child: command.spawn().expect("a bystander starts") }
    }

    /// Has the program, the name and all but the folder of a child of the gateway.
    pub(crate) fn namesake(scene: &Scene) -> Self {
        Self::start("a namesake", kid(scene, "plain"))
    }

    pub(crate) fn process(&self) -> Process {
        let pid = i32::try_from(self.child.id()).expect("a pid fits");
        Process::find(pid).unwrap_or_else(|| panic!("{} is gone", self.what))
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_some()
    }

    pub(crate) fn assert_alive(&mut self) {
        let ended = self.child.try_wait().expect("it is our child");
        assert!(ended.is_none(), "{} ended with {ended:?}", self.what);
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The command of a child of some other gateway, whose folder stands beside that of the scene.
pub(crate) fn kid(scene: &Scene, kind: &str) -> Command {
    let dir = scene.root().join("elsewhere");
    std::fs::create_dir_all(&dir).expect("a folder can be made");
    let mut command = Command::new(fake_gateway());
    command.env_clear().args(["kid", kind]).arg(dir);
    command
}

/// Those who bear nearly the mark of this scene's running gateway, with all the rest of its environment.
pub(crate) fn nearly_marked(scene: &Scene, gateway: Process) -> Vec<Bystander> {
    let environment = scene.diary().environment(gateway.pid);
    let id = environment.get(INSTANCE).expect("the gateway has been given an instance id");
    let other: String = id.chars().rev().collect();
    let (longer, shorter) = (format!("{id}0"), &id[1..]);
    assert_ne!(&other, id, "an id that reads the same backwards");
    let start = |what, changes: &[(&str, &str)]| {
        let mut command = kid(scene, "plain");
        command.envs(&environment).env_remove(INSTANCE).envs(changes.iter().copied());
        Bystander::start(what, command)
    };
    let mut mention = kid(scene, "plain");
    mention.arg("settled").arg(format!("{INSTANCE}={id}"));
    vec![
        start("a process with another instance id", &[(INSTANCE, &other)]),
        start("a process with a longer instance id", &[(INSTANCE, &longer)]),
        start("a process with a shorter instance id", &[(INSTANCE, shorter)]),
        start("a process with a variable that ends like the mark", &[("X_OPENCLAW_SUPERVISE_INSTANCE", id)]),
        start("a process with a value that holds the mark", &[("NOTE", &format!("{INSTANCE}={id}"))]),
        Bystander::start("a process with the mark among its arguments", mention),
    ]
}
