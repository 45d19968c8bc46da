//! What an invocation means, seen from outside: arguments and environment in, settings or errors out.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

#[path = "settings/sources.rs"]
mod sources;

use openclaw_supervise::cli::{self, Cli, NOTES};
use openclaw_supervise::core::fault::Planted;
use openclaw_supervise::core::policy::{OnConflict, OnStoreLost};
use openclaw_supervise::core::{Policy, Request};
use openclaw_supervise::gateway::hooks::Commands;
use openclaw_supervise::host::manager::{Container, ProcessManager};
use openclaw_supervise::host::telemetry::{Format, LogFile};
use openclaw_supervise::host::termination_log::TerminationLog;
use openclaw_supervise::settings::{
    EventsSettings, Invocation, ProbeSettings, ProcessContext, Question, RequestSettings, Settings, StatusSettings,
    UsageErrors, read, resolve,
};
use openclaw_supervise::store::BasisChoice;
use proptest::prelude::*;
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A home of its own with an `openclaw` on PATH, gone at the end of the test.
struct Home(PathBuf);

impl Home {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("settings-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(root.join("bin")).unwrap();
        let home = Self(root);
        home.program("bin/openclaw", 0o755);
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    fn program(&self, name: &str, mode: u32) {
        self.write(name, "#!/bin/sh\n");
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn context(&self, variables: &[(&str, &str)]) -> ProcessContext {
        let mut env: HashMap<String, OsString> = HashMap::new();
        env.insert("HOME".to_owned(), self.0.clone().into_os_string());
        env.insert("PATH".to_owned(), self.path("bin").into_os_string());
        env.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))));
        ProcessContext {
            env: Arc::new(move |name| env.get(name).cloned()),
            home: || None,
            cwd: self.0.clone(),
            terminal: false,
            journal: false,
            container: None,
            process_manager: None,
            launchd: false,
            tailnet: || None,
        }
    }

    fn read(&self, words: &[&str], variables: &[(&str, &str)]) -> Result<Invocation, UsageErrors> {
        let args = ["openclaw-supervise"].iter().chain(words).map(OsString::from);
        read(args, &self.context(variables))
    }

    fn run(&self, words: &[&str], variables: &[(&str, &str)]) -> Settings {
        match self.read(words, variables) {
            Ok(Invocation::Run(settings)) => *settings,
            other => panic!("{words:?}: {other:?}"),
        }
    }

    fn probe(&self, words: &[&str], variables: &[(&str, &str)]) -> ProbeSettings {
        match self.read(words, variables) {
            Ok(Invocation::Probe(settings)) => *settings,
            other => panic!("{words:?}: {other:?}"),
        }
    }

    fn status(&self, words: &[&str], variables: &[(&str, &str)]) -> StatusSettings {
        match self.read(words, variables) {
            Ok(Invocation::Status(settings)) => *settings,
            other => panic!("{words:?}: {other:?}"),
        }
    }

    fn events(&self, words: &[&str], variables: &[(&str, &str)]) -> EventsSettings {
        match self.read(words, variables) {
            Ok(Invocation::Events(settings)) => *settings,
            other => panic!("{words:?}: {other:?}"),
        }
    }

    fn ask(&self, words: &[&str], variables: &[(&str, &str)]) -> RequestSettings {
        match self.read(words, variables) {
            Ok(Invocation::Request(settings)) => *settings,
            other => panic!("{words:?}: {other:?}"),
        }
    }

    fn errors(&self, words: &[&str], variables: &[(&str, &str)]) -> UsageErrors {
        self.read(words, variables).unwrap_err()
    }

    /// What the program prints, with the name of this home taken out.
    fn printed(&self, words: &[&str], variables: &[(&str, &str)]) -> String {
        let context = self.context(variables);
        let args: Vec<_> = ["openclaw-supervise"].iter().chain(words).map(OsString::from).collect();
        let text = match Cli::read(args.clone(), |name| context.variable(name)) {
            Ok(cli) => match resolve(&cli, &context) {
                Ok(invocation) => format!("{invocation:?}"),
                Err(errors) => format!("{errors}\nexit code {}", errors.exit_code()),
            },
            Err(error) if error.use_stderr() => cli::line(&error),
            Err(help) => cli::help(&args, 80).map_or_else(|| help.to_string(), |text| text.to_string()),
        };
        text.replace(&self.0.display().to_string(), "~")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

#[test]
fn nothing_at_all_means_run_with_the_defaults() {
    let home = Home::new();
    for words in [&[][..], &["run"]] {
        let settings = home.run(words, &[]);
        let expected: Vec<OsString> =
            [home.text("bin/openclaw").as_str(), "gateway", "run"].map(OsString::from).to_vec();
        assert_eq!(settings.command, expected);
        assert_eq!(settings.exports, []);
        assert_eq!(settings.state_dir, home.path(".openclaw"));
        assert_eq!(settings.config_path, home.path(".openclaw/openclaw.json"));
        assert_eq!(settings.store_dir, home.path(".openclaw/supervise"));
        assert_eq!(settings.policy, Policy { seed: settings.policy.seed, ..Policy::default() });
        assert_eq!(settings.log.format, Format::Json);
        assert_eq!(settings.warnings, Vec::<String>::new());
        assert!(!home.path(".openclaw").exists(), "looking must not make anything");
    }
}

#[test]
fn an_option_counts_after_the_verb_then_before_it_then_from_the_environment() {
    let home = Home::new();
    let variable = [("OPENCLAW_SUPERVISE_HANG_AFTER", "3s")];
    for (words, seconds) in [
        (&["--hang-after", "2s", "run", "--hang-after", "1s"][..], 1),
        (&["--hang-after", "2s", "run"], 2),
        (&["--hang-after=2s", "gateway", "--hang-after", "1s"], 2),
        (&["run"], 3),
    ] {
        assert_eq!(home.run(words, &variable).policy.hang_after, Duration::from_secs(seconds), "{words:?}");
    }
    let empty = [("OPENCLAW_SUPERVISE_HANG_AFTER", "")];
    assert_eq!(home.run(&[], &empty).policy.hang_after, Policy::default().hang_after);
}

#[test]
fn every_option_arrives_in_the_settings() {
    let home = Home::new();
    let words = "run --port 1 --host ::1 --state-dir s --config c --store-dir t --startup-timeout 1s --probe-interval 2s \
                 --probe-timeout 3s --hang-after 4s --stop-timeout 5s --hung-stop-timeout 6s --max-restarts 7 \
                 --restart-window 8s --backoff-max 9s --stable-after 10s --boot-limit 11 --boot-window 12s \
                 --conflict-timeout 13s --conflict-exit-code 14 --on-conflict standby --lease heartbeat --on-store-lost keep \
                 --log-format text --log-level trace --pre-start before --pre-start-timeout 15s --post-stop after \
                 --post-stop-timeout 16s --memory-max 2G --max-heap 3G --repair doctor --kill-strays --update-timeout 17s --log-file l --termination-log m";
    let settings = home.run(&words.split_whitespace().collect::<Vec<_>>(), &[]);
    let seconds = Duration::from_secs;
    assert_eq!(
        settings.policy,
        Policy {
            startup_timeout: seconds(1),
            probe_interval: seconds(2),
            probe_timeout: seconds(3),
            hang_after: seconds(4),
            stop_timeout: seconds(5),
            hung_stop_timeout: seconds(6),
            max_restarts: 7,
            restart_window: seconds(8),
            backoff_max: seconds(9),
            stable_after: seconds(10),
            boot_limit: 11,
            boot_window: seconds(12),
            pre_start: Some(seconds(15)),
            post_stop: Some(seconds(16)),
            repair: Some(Duration::from_mins(5)),
            handoff: true,
            update_timeout: seconds(17),
            kill_strays: true,
            measures_tree: false,
            memory_max_kb: Some(2_097_152),
            conflict_timeout: seconds(13),
            conflict_exit_code: 14,
            on_conflict: OnConflict::Standby,
            on_store_lost: Some(OnStoreLost::Keep),
            attended: false,
            endpoint: settings.endpoint,
            messages: Policy::default().messages,
            seed: settings.policy.seed,
            planted: Planted::default(),
        }
    );
    let commands = Commands { pre_start: Some("before".into()), post_stop: Some("after".into()) };
    assert_eq!((settings.lease, settings.hooks), (BasisChoice::Heartbeat, commands));
    assert_eq!((settings.state_dir, settings.store_dir), (home.path("s"), home.path("t")));
    assert_eq!((settings.log.format, settings.log.level), (Format::Text, tracing::Level::TRACE));
    assert_eq!(settings.log_file, Some(LogFile { path: home.path("l"), format: Format::Text }));
    assert_eq!(settings.termination_log, TerminationLog::File(home.path("m")));
    assert_eq!((settings.heap.mib, settings.heap.source.as_str()), (Some(3072), "--max-heap"));
    let exports: HashMap<&str, OsString> = settings.exports.into_iter().collect();
    let expected = [
        ("OPENCLAW_STATE_DIR", home.path("s").into_os_string()),
        ("OPENCLAW_CONFIG_PATH", home.path("c").into_os_string()),
        ("OPENCLAW_GATEWAY_PORT", OsString::from("1")),
    ];
    assert_eq!(exports, HashMap::from(expected));
}

/// A container of docker, or the pod of Kubernetes with the grace period of 30 s.
fn container(grace: u64, ends_with_us: bool) -> Container {
    Container { sign: "/.dockerenv".to_owned(), grace: Duration::from_secs(grace), ends_with_us }
}

#[test]
fn the_automatic_stop_timeout_fits_what_runs_us() {
    let home = Home::new();
    let pm2 = |milliseconds| {
        Some(ProcessManager::Pm2 { kill_timeout: Duration::from_millis(milliseconds), kills_tree: true })
    };
    for (container, manager, launchd, given, milliseconds, is_auto) in [
        (Some(container(10, true)), None, false, "auto", 8000, false),
        (Some(container(10, false)), None, false, "auto", 8000, false),
        (Some(container(30, true)), None, false, "auto", 25_000, false),
        (Some(container(10, false)), pm2(1600), false, "auto", 1000, false),
        (Some(container(10, false)), Some(ProcessManager::S6 { kill_timeout: None }), false, "auto", 8000, false),
        (None, pm2(1600), false, "auto", 1000, true),
        (None, pm2(345_000), false, "auto", 328_000, true),
        (None, Some(ProcessManager::Supervisord { stop_wait: Duration::from_secs(10) }), false, "", 8000, true),
        (None, Some(ProcessManager::Runit), false, "", 5600, true),
        (None, Some(ProcessManager::S6 { kill_timeout: None }), false, "", 328_000, true),
        (None, None, true, "auto", 15_000, true),
        (None, None, false, "auto", 328_000, true),
        (None, None, false, "", 328_000, true),
        (Some(container(10, true)), pm2(1600), false, "9s", 9000, false),
        (None, None, false, "9s", 9000, false),
        (None, None, true, "328s", 328_000, false),
    ] {
        let case = format!("{container:?} {manager:?} {launchd} {given}");
        let variables = [("OPENCLAW_SUPERVISE_STOP_TIMEOUT", given)];
        let context = home.context(if given.is_empty() { &[] } else { &variables });
        let context = ProcessContext { container, process_manager: manager, launchd, ..context };
        let Ok(Invocation::Run(settings)) = read(["x"].map(OsString::from), &context) else { panic!("{case}") };
        let got = (settings.policy.stop_timeout, settings.stop_timeout_is_auto);
        assert_eq!(got, (Duration::from_millis(milliseconds), is_auto), "{case}");
        let is_cut = manager.and_then(ProcessManager::stop_limit).is_some() && milliseconds < 9000;
        let told = settings.warnings.iter().any(|warning| warning.contains("may send SIGKILL"));
        assert_eq!(told, is_cut, "{case}: {:?}", settings.warnings);
    }
}

#[test]
fn the_memory_of_a_gateway_is_limited_only_where_that_is_asked_for() {
    let home = Home::new();
    let variable = [("OPENCLAW_SUPERVISE_MEMORY_MAX", "1500M")];
    for (words, variables, kb) in [
        (&[][..], &[][..], None),
        (&[], &variable, Some(1_536_000)),
        (&["--memory-max", "2GiB"], &variable, Some(2_097_152)),
        (&["--memory-max", "off"], &variable, None),
        (&[], &[("OPENCLAW_SUPERVISE_MEMORY_MAX", "")], None),
    ] {
        assert_eq!(home.run(words, variables).policy.memory_max_kb, kb, "{words:?} {variables:?}");
    }
}

#[test]
fn the_heap_is_that_of_openclaws_service_and_node_options_of_the_user_stay() {
    let home = Home::new();
    fs::create_dir_all(home.path(".config/systemd/user")).unwrap();
    let unit = ".config/systemd/user/openclaw-gateway-work.service";
    fs::write(home.path(unit), "ExecStart=node --max-old-space-size=5120 index.js gateway\n").unwrap();
    fs::create_dir_all(home.path(".openclaw")).unwrap();
    fs::write(home.path(".openclaw/.env"), "NODE_OPTIONS=-r x\n").unwrap();
    for (words, variables, mib, options) in [
        (&["--profile", "work"][..], &[][..], Some(5120), Some("--max-old-space-size=5120")),
        (&["--profile", "work", "--max-heap", "6G"], &[], Some(6144), Some("--max-old-space-size=6144")),
        (&["--profile", "work", "--max-old-space-size", "700"], &[], Some(700), Some("--max-old-space-size=700")),
        (&["--profile", "work", "--max-heap", "off"], &[], None, None),
        (&[], &[("OPENCLAW_SUPERVISE_MAX_HEAP", "2G")], Some(2048), Some("-r x --max-old-space-size=2048")),
        (&[], &[("NODE_OPTIONS", "--max-old-space-size=900")], Some(900), Some("--max-old-space-size=900")),
    ] {
        let heap = home.run(words, variables).heap;
        assert_eq!((heap.mib, heap.node_options), (mib, options.map(OsString::from)), "{words:?} {variables:?}");
    }
}

#[test]
fn a_terminal_and_the_journal_get_text_and_a_file_json() {
    let home = Home::new();
    let variables = [("OPENCLAW_SUPERVISE_LOG_FILE", "log"), ("OPENCLAW_SUPERVISE_TERMINATION_LOG", "off")];
    for (terminal, journal, expected) in
        [(false, false, Format::Json), (true, false, Format::Text), (false, true, Format::Text)]
    {
        let context = ProcessContext { terminal, journal, ..home.context(&variables) };
        let Ok(Invocation::Run(settings)) = read(["x"].map(OsString::from), &context) else { panic!() };
        assert_eq!(settings.log.format, expected);
        assert_eq!(settings.log_file, Some(LogFile { path: home.path("log"), format: Format::Json }));
        assert_eq!(settings.termination_log, TerminationLog::Off);
    }
}

#[test]
fn a_supervisor_that_is_restarted_in_any_case_stands_by() {
    use OnConflict::{Exit, Standby};
    let home = Home::new();
    for (container, process_manager, launchd, given, expected) in [
        (None, None, false, "", Exit),
        (Some(container(10, true)), None, false, "", Standby),
        (Some(container(10, false)), None, false, "", Exit),
        (None, None, true, "auto", Standby),
        (None, Some(ProcessManager::Runit), false, "", Standby),
        (Some(container(10, true)), Some(ProcessManager::Runit), true, "exit", Exit),
        (None, None, false, "standby", Standby),
    ] {
        let case = format!("{container:?} {process_manager:?} {launchd} {given:?}");
        let context = home.context(&[("OPENCLAW_SUPERVISE_ON_CONFLICT", given)]);
        let context = ProcessContext { container, process_manager, launchd, ..context };
        let Ok(Invocation::Run(settings)) = read(["x"].map(OsString::from), &context) else { panic!("{case}") };
        assert_eq!(settings.policy.on_conflict, expected, "{case}");
    }
}

#[test]
fn a_start_from_a_terminal_is_attended() {
    let home = Home::new();
    for terminal in [true, false] {
        let context = ProcessContext { terminal, ..home.context(&[]) };
        let Ok(Invocation::Run(settings)) = read(["x"].map(OsString::from), &context) else { panic!() };
        assert_eq!(settings.policy.attended, terminal);
    }
}

#[test]
fn what_proves_an_owner_is_left_to_the_file_system_unless_it_is_given() {
    let home = Home::new();
    assert_eq!(home.run(&[], &[]).lease, BasisChoice::Auto);
    assert_eq!(home.run(&["--lease", "lock"], &[]).lease, BasisChoice::Lock);
    assert_eq!(home.run(&[], &[("OPENCLAW_SUPERVISE_LEASE", "heartbeat")]).lease, BasisChoice::Heartbeat);
}

#[test]
fn a_look_at_a_supervisor_needs_neither_a_command_nor_a_directory() {
    let home = Home::new();
    home.write(".openclaw/openclaw.json", "{gateway: {port: 19000,}");
    let variables = [("PATH", "/nowhere"), ("OPENCLAW_GATEWAY_PORT", "19001")];
    let status = home.status(&["--probe-timeout", "2s", "status", "--json"], &variables);
    assert_eq!((status.endpoint.port, status.json), (19001, true));
    assert_eq!(status.probe_timeout, Duration::from_secs(2));
    assert_eq!(status.subject.store_dir, home.path(".openclaw/supervise"));
    assert_eq!(status.subject.config_path, home.path(".openclaw/openclaw.json"));
    assert_eq!(status.subject.warnings.len(), 1, "{:?}", status.subject.warnings);
    let events = home.events(&["--profile", "work", "events"], &variables);
    assert_eq!((events.lines, events.follow, events.json), (None, false, false));
    assert_eq!(events.subject.store_dir, home.path(".openclaw-work/supervise"));
    let events = home.events(&["events", "-n", "3", "--follow", "--json", "--store-dir", "s"], &variables);
    assert_eq!((events.lines, events.follow, events.json), (Some(3), true, true));
    assert_eq!(events.subject.store_dir, home.path("s"));
    assert_eq!(home.events(&["events", "-n7"], &variables).lines, Some(7));
    assert!(!home.path("s").exists(), "looking must not make anything");
}

#[test]
fn a_request_waits_as_long_as_what_it_asks_for_may_take() {
    let home = Home::new();
    let times = ["--stop-timeout", "100s", "--startup-timeout", "1000s"];
    for (verb, request, seconds) in
        [("restart", Request::Restart, 1130), ("stop", Request::Stop, 130), ("retry-now", Request::Retry, 10)]
    {
        let ask = home.ask(&[&[verb], &times[..]].concat(), &[]);
        assert_eq!((ask.request, ask.timeout), (request, Duration::from_secs(seconds)));
        assert_eq!(request.name(), verb);
        let ask = home.ask(&[&times[..], &[verb, "--timeout", "7s"]].concat(), &[("PATH", "/nowhere")]);
        assert_eq!((ask.request, ask.timeout), (request, Duration::from_secs(7)));
    }
    assert_eq!(home.ask(&["stop"], &[]).timeout, Duration::from_secs(358));
}

#[test]
fn a_request_waits_for_the_hooks_that_stand_in_its_way() {
    let home = Home::new();
    let hooks = [
        ("OPENCLAW_SUPERVISE_PRE_START", "x"),
        ("OPENCLAW_SUPERVISE_PRE_START_TIMEOUT", "1000s"),
        ("OPENCLAW_SUPERVISE_POST_STOP", "y"),
    ];
    let wait = |verb| home.ask(&["--stop-timeout", "100s", verb], &hooks).timeout;
    assert_eq!(wait("stop"), Duration::from_secs(100 + 15 + 30));
    assert_eq!(wait("restart"), Duration::from_secs(100 + 15 + 30 + 1000 + 300));
}

#[test]
fn a_hook_is_one_line_for_the_shell_and_has_a_time() {
    let home = Home::new();
    let settings = home.run(&["--post-stop", "a b | 'c  d' "], &[("OPENCLAW_SUPERVISE_PRE_START", "e; f")]);
    let commands = Commands { pre_start: Some("e; f".into()), post_stop: Some("a b | 'c  d' ".into()) };
    assert_eq!((settings.hooks, settings.warnings), (commands, vec![]));
    let quarter = Some(Duration::from_secs(15));
    assert_eq!((settings.policy.pre_start, settings.policy.post_stop), (quarter, quarter));
    let unset = [("OPENCLAW_SUPERVISE_PRE_START", ""), ("OPENCLAW_SUPERVISE_POST_STOP", "")];
    let settings = home.run(&[], &unset);
    assert_eq!((settings.hooks, settings.policy.pre_start), (Commands::default(), None));
}

#[test]
fn the_time_of_a_hook_that_is_not_there_is_odd() {
    let home = Home::new();
    let variable = [("OPENCLAW_SUPERVISE_POST_STOP_TIMEOUT", "1s")];
    let settings = home.run(&["--pre-start-timeout", "1s", "--pre-start", "x"], &variable);
    assert_eq!(settings.policy.pre_start, Some(Duration::from_secs(1)));
    assert_eq!(settings.policy.post_stop, None);
    assert_eq!(settings.warnings.len(), 1, "{:?}", settings.warnings);
    assert!(settings.warnings[0].starts_with("--post-stop-timeout is given without --post-stop"));
}

#[test]
fn a_gateway_is_asked_about_its_exits_where_the_command_names_openclaw() {
    let home = Home::new();
    for name in ["bin/node", "bin/other", "openclaw.mjs"] {
        home.program(name, 0o755);
    }
    for (words, asked) in [
        (&["run"][..], true),
        (&["gateway", "--port", "1"], true),
        (&["run", "--", "openclaw", "--dev", "gateway", "run"], true),
        (&["run", "--", "node", "./openclaw.mjs", "gateway"], true),
        (&["run", "--", "openclaw", "serve"], false),
        (&["run", "--", "other", "gateway", "run"], false),
    ] {
        assert_eq!(home.run(words, &[]).policy.handoff, asked, "{words:?}");
    }
}

#[test]
fn a_repair_is_asked_for_by_name_and_needs_an_openclaw() {
    let home = Home::new();
    home.program("bin/other", 0o755);
    let doctor = [("OPENCLAW_SUPERVISE_REPAIR", "doctor")];
    assert_eq!(home.run(&[], &[]).policy.repair, None);
    assert_eq!(home.run(&[], &doctor).policy.repair, Some(Duration::from_mins(5)));
    assert_eq!(home.run(&["--repair", "off"], &doctor).policy.repair, None);
    let other = ["run", "--", "other", "gateway"];
    assert_eq!(home.run(&[&["--repair", "off"][..], &other].concat(), &[]).policy.repair, None);
    let errors = home.errors(&other, &doctor);
    assert_eq!(errors.exit_code(), 2);
    assert!(errors.to_string().contains("--repair doctor needs a COMMAND"), "{errors}");
    // A request has no command.
    home.ask(&["--repair", "doctor", "stop"], &[]);
}

#[test]
fn what_a_hook_is_told_is_no_setting_of_a_supervisor_inside() {
    let home = Home::new();
    let names =
        ["GENERATION", "PID", "REASON", "CODE", "SIGNAL", "HOOK"].map(|name| format!("OPENCLAW_SUPERVISE_{name}"));
    let told: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "?")).collect();
    let (plain, inside) = (home.run(&[], &[]), home.run(&[], &told));
    assert_eq!(inside.policy, Policy { seed: inside.policy.seed, ..plain.policy });
    assert_eq!((inside.command, inside.warnings), (plain.command, vec![]));
}

#[test]
fn gateway_is_run_with_its_arguments_as_they_stand() {
    let home = Home::new();
    let settings = home.run(&["gateway", "--port", "19000", "--bogus", "--", "--help"], &[]);
    let tail: Vec<OsString> = ["gateway", "--port", "19000", "--bogus", "--", "--help"].map(OsString::from).to_vec();
    assert_eq!(settings.command.split_first().unwrap(), (&home.path("bin/openclaw").into_os_string(), &tail[..]));
    assert_eq!(settings.endpoint.port, 19000);
    assert_eq!(settings.exports, []);
}

#[test]
fn a_profile_given_to_us_is_given_to_the_gateway_whole() {
    let home = Home::new();
    let settings = home.run(&["--profile", "work"], &[]);
    assert_eq!(settings.state_dir, home.path(".openclaw-work"));
    assert_eq!(settings.endpoint.port, 41984);
    let expected = vec![
        ("OPENCLAW_PROFILE", OsString::from("work")),
        ("OPENCLAW_STATE_DIR", home.path(".openclaw-work").into_os_string()),
        ("OPENCLAW_CONFIG_PATH", home.path(".openclaw-work/openclaw.json").into_os_string()),
    ];
    assert_eq!(settings.exports, expected);
    assert_eq!(home.run(&["--profile", "dev"], &[]).endpoint.port, 19001);
    let pinned = home.run(&["--profile", "work", "--state-dir", ".openclaw"], &[]);
    assert_eq!(pinned.state_dir, home.path(".openclaw"));
    let pinned = home.run(&["--profile", "work", "--config", ".openclaw/openclaw.json"], &[]);
    assert_eq!(pinned.config_path, home.path(".openclaw/openclaw.json"));
    let of_command = home.run(&["run", "--", "openclaw", "--profile", "work", "gateway"], &[]);
    assert_eq!((of_command.state_dir, of_command.exports), (home.path(".openclaw-work"), vec![]));
}

#[test]
fn the_profile_of_the_environment_selects_a_port_and_a_warning() {
    let home = Home::new();
    let settings = home.run(&[], &[("OPENCLAW_PROFILE", "work")]);
    assert_eq!((settings.endpoint.port, settings.state_dir), (41984, home.path(".openclaw")));
    assert_eq!(settings.warnings.len(), 1, "{:?}", settings.warnings);
}

#[test]
fn the_config_is_found_where_the_gateway_finds_it() {
    let home = Home::new();
    home.write(".clawdbot/clawdbot.json", "{gateway: {port: 19001}}");
    assert_eq!(home.run(&[], &[]).state_dir, home.path(".clawdbot"));
    assert_eq!(home.run(&[], &[]).endpoint.port, 19001);
    fs::create_dir(home.path(".openclaw")).unwrap();
    assert_eq!(home.run(&[], &[]).state_dir, home.path(".openclaw"));
    assert_eq!(home.run(&[], &[]).endpoint.port, 19001, "the earlier config still counts");
    home.write(".openclaw/openclaw.json", "{gateway: {port: 19002}}");
    assert_eq!(home.run(&[], &[]).endpoint.port, 19002);
    assert_eq!(home.run(&["--state-dir", "empty"], &[]).endpoint.port, 18789);
    home.write("own.json", "{gateway: {port: 19003, tls: {enabled: true}}}");
    assert_eq!(home.run(&["--config", "own.json"], &[]).endpoint.to_string(), "wss://127.0.0.1:19003");
    assert_eq!(home.run(&[], &[("OPENCLAW_CONFIG_PATH", "~/own.json")]).endpoint.port, 19003);
}

#[test]
fn garbage_in_the_gateways_port_variable_is_ignored_with_a_warning() {
    let home = Home::new();
    let garbage = [("OPENCLAW_GATEWAY_PORT", "many")];
    let settings = home.run(&[], &garbage);
    assert_eq!((settings.endpoint.port, settings.warnings.len()), (18789, 1));
    assert_eq!(settings.exports, [("OPENCLAW_GATEWAY_PORT", OsString::new())], "and nothing behind us meets it");
    let settings = home.run(&["--port", "1"], &garbage);
    assert_eq!(settings.warnings, Vec::<String>::new(), "it is not read");
    let settings = home.run(&["gateway", "--port", "1"], &garbage);
    assert_eq!(settings.warnings, Vec::<String>::new(), "nor here");
}

#[test]
fn a_probe_needs_neither_a_command_nor_a_directory() {
    let home = Home::new();
    home.write("file", "");
    let variables = [("PATH", "/nowhere"), ("OPENCLAW_GATEWAY_PORT", "19000")];
    let probe = home.probe(&["--host", "localhost", "probe", "--ready", "--wait", "1s", "--json"], &variables);
    assert_eq!(probe.endpoint.to_string(), "ws://localhost:19000");
    assert_eq!((probe.question, probe.wait, probe.json), (Question::Ready, Some(Duration::from_secs(1)), true));
    let probe = home.probe(&["probe", "--store-dir", "file/x"], &variables);
    assert_eq!((probe.question, probe.wait, probe.json), (Question::Live, None, false));
}

#[test]
fn a_probe_outlives_a_slip_in_the_config() {
    let home = Home::new();
    home.write(".openclaw/openclaw.json", "{gateway: {port: 19000,}");
    let probe = home.probe(&["probe"], &[("OPENCLAW_GATEWAY_PORT", "19001")]);
    assert_eq!((probe.endpoint.port, probe.warnings.len()), (19001, 1), "{:?}", probe.warnings);
}

#[test]
fn the_program_is_found_and_made_absolute() {
    let home = Home::new();
    let found = |program: &str, path: &str| {
        let settings = home.run(&["run", "--", program, "x"], &[("PATH", path)]);
        PathBuf::from(settings.command.first().unwrap())
    };
    for (program, path) in [
        ("openclaw", home.text("bin").as_str()),
        ("openclaw", "/nowhere:bin"),
        ("./bin/openclaw", ""),
        ("bin/openclaw", "/nowhere"),
        (home.text("bin/openclaw").as_str(), "/nowhere"),
    ] {
        let found = found(program, path);
        assert!(found.is_absolute(), "{program} in {path:?}: {}", found.display());
        assert_eq!(found.canonicalize().unwrap(), home.path("bin/openclaw").canonicalize().unwrap());
    }
    home.program("other/openclaw", 0o644);
    let errors = home.errors(&[], &[("PATH", &home.text("other"))]).to_string();
    assert!(errors.contains("other/openclaw is not executable"), "{errors}");
    let errors = home.errors(&[], &[("PATH", "/nowhere:/nirvana")]).to_string();
    assert!(errors.contains("cannot find openclaw in PATH (/nowhere:/nirvana)"), "{errors}");
    let errors = home.errors(&[], &[("PATH", "")]).to_string();
    assert!(errors.contains("PATH is not set"), "{errors}");
}

#[test]
fn the_help_of_the_program_and_of_each_verb_is_that_of_the_snapshot() {
    let home = Home::new();
    for verb in NOTES.iter().map(|notes| notes.verb) {
        // Behind `gateway` it is an option of the gateway's.
        let words = if verb == "gateway" { vec!["help", verb] } else { vec![verb, "-h"] };
        let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).collect();
        let name = format!("help-{verb}");
        insta::assert_snapshot!(name.trim_end_matches('-'), home.printed(&words, &[]));
    }
    let whole = home.printed(&["run", "--help"], &[]);
    assert_eq!(whole, home.printed(&["help", "run"], &[]));
    insta::assert_snapshot!("help-run-whole", whole);
    for words in [&["--version"][..], &["-V"]] {
        assert_eq!(home.printed(words, &[]).trim_end(), concat!("openclaw-supervise ", env!("CARGO_PKG_VERSION")));
    }
}

#[test]
fn the_help_fits_the_terminal_and_its_colours_are_added() {
    for notes in NOTES {
        for flag in ["-h", "--help"] {
            let words: Vec<OsString> = match (notes.verb, flag) {
                ("gateway", _) => vec!["x".into(), "help".into(), "gateway".into()],
                ("", flag) => vec!["x".into(), flag.into()],
                (verb, flag) => vec!["x".into(), verb.into(), flag.into()],
            };
            for columns in [60, 80, 200, usize::MAX] {
                let help = cli::help(&words, columns).unwrap().to_string();
                let widest = help.lines().map(|line| line.chars().count()).max().unwrap();
                assert!(widest <= columns.min(100), "{words:?} at {columns}: {widest}\n{help}");
                assert!(!help.contains('\x1b'), "{help}");
            }
        }
    }
    let words = ["x", "status", "-h"].map(OsString::from);
    let help = |columns| cli::help(&words, columns).unwrap();
    insta::assert_snapshot!("help-narrow", help(60).to_string());
    insta::assert_snapshot!("help-wide", help(200).to_string());
    insta::assert_snapshot!("help-coloured", help(80).ansi().to_string().replace('\x1b', "^"));
}

#[test]
fn every_verb_has_examples_that_can_be_typed_and_exit_codes() {
    let home = Home::new();
    let command = cli::command();
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help") {
        assert!(NOTES.iter().any(|notes| notes.verb == verb.get_name()), "src/cli/notes.rs lacks {}", verb.get_name());
    }
    for notes in NOTES {
        let exists = notes.verb.is_empty() || command.find_subcommand(notes.verb).is_some();
        assert!(exists && !notes.examples.is_empty() && !notes.codes.is_empty(), "{}", notes.verb);
        let context = home.context(&[]);
        for example in notes.examples {
            let words = example.split(['|', '>', ')']).next().unwrap();
            let words = words.split(' ').skip_while(|word| !word.ends_with("openclaw-supervise")).map(OsString::from);
            let read = Cli::read(words.filter(|word| !word.is_empty()), |name| context.variable(name));
            assert!(notes.verb == "gateway" || read.is_ok(), "{example}: {read:?}");
        }
    }
}

/// Command lines, variables in front of them, that are refused.
const REFUSED: &[&str] = &[
    // What clap tells.
    "--bogus",
    "--prot 1",
    "prob",
    "launch",
    "run a b",
    "--profile work openclaw gateway run --port 1",
    "./gateway.sh",
    "reload",
    "--profile work reload --timeout 1m",
    "kill -9",
    "stop now",
    "help nope",
    "statsu --json",
    "-v",
    "status -n 5",
    "--follow events",
    "--fast",
    "status --timeout 1s",
    "status -- x",
    "strat -- x",
    "uninstall --dryrun",
    "uninstall extra",
    "uninstall --profil work",
    "--port 1 uninstall --dry-run",
    "--store-dir x --profile work uninstall",
    "stop --tiemout 5s",
    "stop -n 5",
    "restart now",
    "run --max-restart 3",
    "run --max_restarts 3",
    "--json status",
    "demo --port 1",
    "completions tcsh",
    "completions",
    "man status --dir x",
    "--port=abc",
    "run --port --host",
    "probe --json=1",
    "probe --live --ready",
    "probe --wait soon",
    "install --user --system",
    "install --user --run-as alice",
    "events -n -1",
    "--port 0",
    "--port -1",
    "--port=",
    "--port 65536",
    "--host gateway.example",
    "--host 0.0.0.0",
    "--profile a/b",
    "--state-dir=",
    "--pre-start=",
    "--hang-after soon",
    "--hang-after 0s",
    "--hang-after 367d",
    "--stop-timeout soon",
    "--memory-max 800MB",
    "--memory-max 10M",
    "--max-restarts 4294967296",
    "--conflict-exit-code 256",
    "--on-conflict fight",
    "--lease luck",
    "--on-store-lost hope",
    "--repair yes",
    "--log-format xml",
    "--log-level loud",
    "OPENCLAW_SUPERVISE_HANG_AFTER=soon",
    "OPENCLAW_SUPERVISE_LOG_LEVEL=loud",
    // What it cannot know.
    "gateway --help",
    "gateway --port 1 status --json",
    "gateway stauts",
    "gateway call health",
    "-- openclaw gateway status",
    "run -- bin/openclaw --profile work gateway stop",
    "run -- openclaw doctor",
    "run -- openclaw --version",
    "install --system --run-as alice -- openclaw gateway start",
    "--port 1 gateway --port 2",
    "--profile a run -- openclaw --profile b gateway --port 0",
    "--repair doctor -- bin/openclaw status",
    "--port 1 demo",
    "install --user --profile a.b",
    "install --system --run-as .a",
    "run -- nothing-of-that-name",
    "run -- status",
    "-- stauts",
    "-- --port 1",
    "PATH=/nowhere --port 1 gateway --port 2",
    "PATH= --repair doctor run -- node x",
    "PATH=/nowhere --port 1 run -- ./missing --port 2",
    "run -- ./missing",
    "run -- ./plain",
    "run -- ./bin",
    "PATH= run",
    "--state-dir file",
    "--state-dir file/below",
    "--state-dir dangling/below",
    "--store-dir file",
    "--state-dir file --store-dir file2",
    "--state-dir file --store-dir file/store",
    "--port 1 --state-dir file --config broken.json gateway --port 2",
];

#[test]
fn the_defaults_in_the_help_are_those_of_the_settings() {
    let home = Home::new();
    let command = cli::command();
    let policy = home.run(&[], &[]).policy;
    let mut count = 0;
    for option in command.find_subcommand("run").unwrap().get_arguments() {
        let help = option.get_help().map(ToString::to_string).unwrap_or_default();
        let default = help.split("[default: ").nth(1).and_then(|rest| rest.split(']').next());
        let (Some(flag), Some(default)) = (option.get_long(), default) else { continue };
        // A value: not a path, `none`, or what depends on something else.
        if default.starts_with(|first: char| first.is_ascii_digit()) || default == "off" {
            let given = home.run(&[&format!("--{flag}"), default], &[]).policy;
            assert_eq!(given, Policy { seed: given.seed, ..policy.clone() }, "--{flag} {default}");
            count += 1;
        }
    }
    assert!(count >= 13, "{count} of them");
}

#[test]
fn each_class_of_error_is_told_as_in_the_snapshot() {
    let home = Home::new();
    home.write("broken.json", "{");
    home.write("file", "");
    home.write("file2", "");
    home.program("plain", 0o644);
    symlink(home.path("missing"), home.path("dangling")).unwrap();
    let told = REFUSED.iter().map(|line| {
        let (variables, words): (Vec<&str>, Vec<&str>) =
            line.split(' ').partition(|word| word.starts_with(|first: char| first.is_ascii_uppercase()));
        let variables: Vec<(&str, &str)> = variables.iter().filter_map(|pair| pair.split_once('=')).collect();
        assert!(home.read(&words, &variables).is_err(), "{line}");
        format!("$ {line}\n{}\n", home.printed(&words, &variables).trim_end())
    });
    insta::assert_snapshot!("errors", told.collect::<Vec<_>>().join("\n"));
}

#[test]
fn a_variable_does_not_count_beside_its_option() {
    let home = Home::new();
    let garbage = [("OPENCLAW_SUPERVISE_HANG_AFTER", "soon")];
    for words in [&["--hang-after", "1s"][..], &["run", "--hang-after", "1s"]] {
        assert_eq!(home.run(words, &garbage).policy.hang_after, Duration::from_secs(1), "{words:?}");
    }
    assert_eq!(home.errors(&[], &garbage).exit_code(), 2);
}

#[test]
fn everything_behind_gateway_belongs_to_the_gateway() {
    let home = Home::new();
    for tail in [
        "",
        "run --port 19000 --bogus",
        "--port 19000",
        "--port=19000 run",
        "run -- --x",
        "-- x",
        "--",
        "gateway -- x",
        "-- --",
        "run --json probe gateway",
    ] {
        let tail: Vec<&str> = tail.split_whitespace().collect();
        let settings = home.run(&[&["--host", "::1", "gateway"], &tail[..]].concat(), &[]);
        assert_eq!(settings.command[1..], [&["gateway"], &tail[..]].concat(), "{tail:?}");
        assert_eq!(settings.exports, []);
    }
}

#[test]
fn everything_behind_two_hyphens_belongs_to_the_command() {
    let home = Home::new();
    for words in ["run --port 1 --", "--port 1 run --", "--port 1 --"] {
        let tail = ["openclaw", "--bogus", "run", "--", "--port", "2"];
        let settings = home.run(&[&words.split(' ').collect::<Vec<_>>(), &tail[..]].concat(), &[]);
        assert_eq!((&settings.command[1..], settings.endpoint.port), (&tail.map(OsString::from)[1..], 1), "{words}");
    }
}

#[test]
fn a_directory_that_this_user_may_not_write_is_an_error() {
    let home = Home::new();
    fs::create_dir(home.path("closed")).unwrap();
    fs::set_permissions(home.path("closed"), fs::Permissions::from_mode(0o555)).unwrap();
    let may = fs::write(home.path("closed/try"), "").is_ok();
    for state_dir in ["closed", "closed/below", "closed/far/below"] {
        let read = home.read(&["--state-dir", state_dir], &[]);
        assert_eq!(read.is_ok(), may, "{state_dir}: {read:?}");
    }
}

#[test]
fn zero_is_refused_where_it_makes_no_sense() {
    let home = Home::new();
    for (flag, allowed) in [
        ("--startup-timeout", false),
        ("--probe-interval", false),
        ("--probe-timeout", false),
        ("--hang-after", false),
        ("--restart-window", false),
        ("--backoff-max", false),
        ("--stable-after", false),
        ("--boot-window", false),
        ("--pre-start-timeout", false),
        ("--post-stop-timeout", false),
        ("--stop-timeout", true),
        ("--hung-stop-timeout", true),
        ("--conflict-timeout", true),
        ("--update-timeout", true),
    ] {
        assert_eq!(home.read(&[flag, "0s"], &[]).is_ok(), allowed, "{flag}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_of_a_duration_panics(text in ".{0,20}", number in any::<u64>(), unit in "[a-zA-Z]{0,7}") {
        let home = Home::new();
        for text in [text, format!("{number}{unit}"), format!("{number}{unit} {number}{unit}")] {
            let flag = format!("--stop-timeout={text}");
            match home.read(&["run", &flag], &[]) {
                Ok(Invocation::Run(settings)) => {
                    let longest = Duration::from_hours(366 * 24);
                    prop_assert!(settings.policy.stop_timeout <= longest, "{}", text);
                }
                Ok(other) => prop_assert!(false, "{:?}", other),
                Err(errors) => prop_assert_eq!(errors.to_string().lines().count(), 1, "{}", errors),
            }
        }
    }

    #[test]
    fn no_words_panic(words in proptest::collection::vec("[-a-z=. ]{0,9}|--[a-z-]{1,12}(=.{0,4})?|run|probe|status|events|-n|stop|--|-h", 0..8)) {
        let home = Home::new();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        if let Err(errors) = home.read(&words, &[]) {
            prop_assert!(!errors.all().is_empty());
            prop_assert_eq!(errors.to_string().lines().count(), errors.all().len());
        }
    }

    #[test]
    fn the_port_is_that_of_the_first_place_that_names_one(
        flag in proptest::option::of(1_u16..),
        command in proptest::option::of(1_u16..),
        variable in proptest::option::of(1_u16..),
        form in 0..4_usize,
        config in proptest::option::of(1_u16..),
        profile in any::<bool>(),
    ) {
        let home = Home::new();
        if let Some(port) = config {
            home.write(".openclaw/openclaw.json", &format!("{{gateway: {{port: {port}}}}}"));
        }
        let command = command.map(|port| flag.unwrap_or(port));
        let mut words = vec!["run".to_owned()];
        words.extend(flag.map(|port| format!("--port={port}")));
        words.extend(["--", "openclaw", "gateway"].map(str::to_owned));
        words.extend(command.map(|port| format!("--port={port}")));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let forms = |port: u16| [port.to_string(), format!("host:{port}"), format!("[::1]:{port}"), format!(" {port} ")];
        let text = variable.map(forms).and_then(|forms| forms.into_iter().nth(form));
        let mut variables: Vec<(&str, &str)> = text.iter().map(|text| ("OPENCLAW_GATEWAY_PORT", text.as_str())).collect();
        if profile {
            variables.push(("OPENCLAW_PROFILE", "work"));
        }
        let expected = flag.or(command).or(variable).or(config).unwrap_or(if profile { 41984 } else { 18789 });
        let settings = home.run(&words, &variables);
        prop_assert_eq!(settings.endpoint.port, expected);
        prop_assert!(settings.endpoint.addresses.iter().all(|address| address.port() == expected));
    }
}
