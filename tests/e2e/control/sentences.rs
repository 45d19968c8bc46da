//! The sentence that `status` begins with, of systems in each state.

use super::support::supervisor::{PROGRAM, Said, Supervisor, Verb};
use super::support::{PATIENCE, Scene, wait_for};
use super::{end, status};
use nix::sys::signal::Signal;

fn sentence(scene: &Scene, code: i32) -> String {
    let said = Said::by(scene, &["status"]).expect(code);
    said.out.lines().next().unwrap().to_owned()
}

fn assert_says(sentence: &str, parts: &[&str]) {
    for part in parts {
        assert!(sentence.contains(part), "{part:?} is missing in {sentence:?}");
    }
    assert!(!sentence.contains("lease"), "{sentence}");
}

/// Waits for a sentence with this part.
fn wait_sentence(scene: &Scene, part: &str) -> String {
    let look = || Said::by(scene, &["status"]).out.lines().next().map(str::to_owned);
    wait_for(part, PATIENCE, || look().unwrap_or_default(), || look().filter(|line| line.contains(part)))
}

/// What `status` says of a supervisor that has ended by itself.
fn after(scene: &Scene, mut supervisor: Supervisor, code: i32) -> String {
    supervisor.expect_exit(code);
    let line = sentence(scene, 3);
    // Each member of such a state is documented too.
    status(scene, 3);
    line
}

#[test]
fn after_a_refusal_a_spent_budget_and_a_conflict_it_names_the_cause_and_what_to_do() {
    let scene = Scene::new("exit=78");
    let line = after(&scene, scene.start(), 78);
    assert_says(&line, &["down since ", "the configuration was refused (exit 78)", "then `openclaw-supervise run"]);
    let scene = Scene::new("exit=1");
    let supervisor = scene.launch().option("--max-restarts", "1").option("--backoff-max", "1s").start();
    let line = after(&scene, supervisor, 69);
    assert_says(&line, &["down since ", "gave up (exit 69)", "crashed (exit code 1)", "then `openclaw-supervise run"]);
    let scene = Scene::new("healthy");
    let stranger = scene.stranger("foreign");
    let mut supervisor = scene.launch().option("--conflict-timeout", "2s").start();
    let pid = format!("is held by pid {} ", stranger.pid());
    assert_says(&wait_sentence(&scene, &pid), &["down", "which is not this gateway", "`sudo ss -ltnp"]);
    supervisor.expect_exit(78);
    let line = sentence(&scene, 3);
    assert_says(&line, &["down since ", "(exit 78)", &format!("pid {}", stranger.pid())]);
}

#[test]
fn it_names_the_hang_the_request_and_the_drain_that_came_before_or_are_under_way() {
    let scene = Scene::new("healthy; drain=60s");
    let mut supervisor = scene.launch().option("--probe-timeout", "100ms").option("--hang-after", "1s").start();
    let first = supervisor.wait_started();
    scene.diary().command(first.pid, "freeze");
    supervisor.wait_event_with("gateway.started", |event| event.number("generation") == 2);
    let line = wait_sentence(&scene, "without an answer");
    assert_says(&line, &["up for ", "; restarted at ", " after "]);
    let told = status(&scene, 0);
    assert!(told["last"]["incident"]["evidence"].is_string(), "{told:#}");
    let client = Verb::start(&scene, &["restart"]);
    let pid = format!("by pid {} ", client.pid());
    let line = wait_sentence(&scene, "draining gateway 2: ");
    assert_says(&line, &[" of at most ", ", then gateway 3; a restart was requested", &pid]);
    supervisor.signal(Signal::SIGTERM);
    assert_says(&wait_sentence(&scene, "then the supervisor exits"), &["a stop was requested"]);
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
    client.end();
}

#[test]
fn it_tells_a_stopped_a_killed_and_an_ended_supervisor_apart() {
    let scene = Scene::new("healthy");
    let mut supervisor = scene.start();
    supervisor.wait_started();
    supervisor.signal(Signal::SIGSTOP);
    let resume = format!("`kill -CONT {}`", supervisor.pid());
    assert_says(&sentence(&scene, 0), &["does not answer: it was stopped by a signal", "gateway 1 is up", &resume]);
    status(&scene, 0);
    supervisor.signal(Signal::SIGCONT);
    supervisor.signal(Signal::SIGKILL);
    supervisor.wait_exit();
    assert_says(&sentence(&scene, 0), &["not supervised: gateway 1 is up", "is gone without a stop"]);
    let mut supervisor = scene.start();
    supervisor.wait_event("gateway.adopted");
    end(&mut supervisor);
    assert_says(&sentence(&scene, 3), &["stopped since ", "stopped on request by SIGTERM from pid "]);
}

#[test]
fn watch_shows_each_change_in_a_pipe_and_ends_by_a_signal() {
    let scene = Scene::new("healthy");
    let mut supervisor = scene.start();
    supervisor.wait_started();
    let watch = Verb::start(&scene, &["status", "--watch"]);
    watch.wait_line("the first block", |line| line.starts_with("up for "));
    Said::by(&scene, &["restart"]).expect(0);
    watch.wait_line("a block of the change", |line| line.contains("; restarted at "));
    end(&mut supervisor);
    watch.wait_line("a block of the stop", |line| line.starts_with("stopped since "));
    watch.signal(Signal::SIGINT);
    assert_eq!(watch.end().code, None, "a signal ends it");
}

#[test]
fn force_goes_past_the_wait_for_boots_and_the_pace_of_restarts_and_names_the_risk() {
    let scene = Scene::new("exit=1@20ms; exit=1@20ms; healthy");
    let launch = scene.launch().option("--boot-limit", "1").option("--boot-window", "60s");
    let mut supervisor = launch.option("--stable-after", "1m").start();
    supervisor.wait_event_with("restart.scheduled", |event| event.number("delay_ms") > 30_000);
    let risk = "--force: with 3 unclean boots within 5 minutes";
    Said::by(&scene, &["retry-now", "--force"]).expect(0).assert_says(&[risk, "gateway 3 was started, pid"]);
    supervisor.wait_started();
    Said::by(&scene, &["restart", "--force"]).expect(0).assert_says(&[risk, "gateway 4 (pid"]);
    let merged = Verb::start(&scene, &["restart"]);
    merged.wait_line("the merged restart", |line| line.starts_with("restart merged; at "));
    let line = wait_sentence(&scene, "a requested restart comes at ");
    assert_says(&line, &["up for ", "; now: `openclaw-supervise restart --force`"]);
    Said::by(&scene, &["restart", "--force"]).expect(0).assert_says(&["gateway 5 (pid"]);
    merged.end().expect(0).assert_says(&["gateway 5 (pid"]);
    end(&mut supervisor);
}

#[test]
fn a_pause_keeps_a_hung_gateway_and_ends_on_request_or_by_itself() {
    let scene = Scene::new("healthy");
    let mut supervisor = scene.launch().option("--probe-timeout", "100ms").start();
    let gateway = supervisor.wait_started();
    let paused = Said::by(&scene, &["pause", "--for", "1h", "--reason", "gdb"]).expect(0);
    paused.assert_says(&["paused until ", &format!("gateway 1 (pid {}) goes on", gateway.pid)]);
    gateway.signal(Signal::SIGSTOP);
    let ask = || Said::by(&scene, &["status", "--json", "--probe-timeout", "50ms"]).expect(4).json();
    let ms = |value: &serde_json::Value| openclaw_supervise::host::clock::wall_ms_of(value.as_str()?);
    // Twice --hang-after.
    let is_long = |told: &serde_json::Value| Some(ms(&told["at"])? - ms(&told["last"]["unhealthy_since"])? > 1200);
    let look = || Some(ask()).filter(|told| is_long(told) == Some(true));
    let told = wait_for("a long silence", PATIENCE, || supervisor.story(), look);
    assert_eq!(told["paused"]["reason"], "gdb", "{told:#}");
    assert_eq!(supervisor.count("gateway.hung"), 0, "{}", supervisor.story());
    Said::by(&scene, &["resume"]).expect(0).assert_says(&["resumed: gateway 1 (pid"]);
    supervisor.wait_event("supervision.resumed");
    supervisor.wait_event("gateway.hung");
    let second = supervisor.wait_started();
    Said::by(&scene, &["resume"]).expect(0).assert_says(&["the supervision was not paused"]);
    Said::by(&scene, &["pause", "--for", "1s"]).expect(0);
    second.kill();
    supervisor.wait_event("supervision.resumed");
    supervisor.wait_event_with("gateway.started", |event| event.number("generation") == 3);
    end(&mut supervisor);
}

#[test]
fn a_supervisor_of_the_same_account_with_another_store_is_found() {
    let scene = Scene::new("healthy");
    let mut supervisor = scene.start();
    supervisor.wait_started();
    let mut command = scene.command(PROGRAM);
    command.args(["status", "--probe-timeout", "100ms"]).env_remove("OPENCLAW_STATE_DIR");
    let output = command.env("HOME", scene.root().join("elsewhere")).output().unwrap();
    // Alone, or in a row beside those of other tests.
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(&scene.store_dir().display().to_string()), "{text}");
    end(&mut supervisor);
}

#[test]
fn a_restart_of_nothing_in_a_pause_is_answered_at_once_with_what_ends_the_pause() {
    let scene = Scene::new("healthy");
    let mut supervisor = scene.launch().start();
    let gateway = supervisor.wait_started();
    let store = scene.store_dir().display().to_string();
    let paused =
        Said::by(&scene, &["pause", "--for", "1h", "--reason", "gdb \u{202e}bdg", "--store-dir", &store]).expect(0);
    paused.assert_says(&[&format!("`openclaw-supervise resume --store-dir {store}` ends it")]);
    gateway.kill();
    supervisor.wait_event("restart.scheduled");
    for verb in [["restart"].as_slice(), &["restart", "--force"], &["retry-now"]] {
        let said = Said::by(&scene, verb).expect(1);
        said.assert_says(&["gdb  bdg", "`openclaw-supervise resume` ends the pause, and a gateway is started"]);
    }
    let said = Said::by(&scene, &["status"]).expect(3);
    said.assert_says(&["(gdb  bdg)", "`openclaw-supervise resume` ends the pause"]);
    assert!(!said.out.contains("start-now"), "{said}");
    Said::by(&scene, &["resume"]).expect(0);
    supervisor.wait_started();
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
}
