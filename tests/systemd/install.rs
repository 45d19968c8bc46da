//! `install` and `uninstall` with a real systemd.

use crate::machine::Machine;

const TEMPLATE: &str = "/etc/systemd/system/openclaw-supervise@.service";

#[test]
fn a_system_service_serves_and_leaves_nothing_when_it_is_uninstalled() {
    let machine = Machine::boot("healthy");
    let unit = machine.of_account(&[]);
    // `install` has to write the template.
    assert!(machine.run(&["rm", TEMPLATE]).status.success());
    let look = || machine.run(&["find", "/etc/systemd", "-newer", "/etc/machine-id", "-name", "*supervise*"]).stdout;
    let before = look();
    let words = ["openclaw-supervise", "install", "--system", "--run-as", "alice"];
    let installed = machine.run(&words);
    assert!(installed.status.success(), "{installed:?}\n{}", unit.story());
    unit.wait_serving(1);
    assert_eq!(unit.property("UnitFileState"), "enabled", "{}", unit.story());
    let start = unit.property("ExecStart");
    assert!(
        start.contains("path=/usr/local/bin/openclaw-supervise ; argv[]=/usr/local/bin/openclaw-supervise run"),
        "{start}"
    );
    let output = machine.run(&["systemd-analyze", "verify", &TEMPLATE.replace("@.", "@alice.")]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let again = machine.run(&words);
    assert_eq!(String::from_utf8_lossy(&again.stdout).matches("unchanged").count(), 2, "{again:?}");
    let gateway = machine.gateway();
    // The template is removed with its last instance.
    let other = "/etc/systemd/system/openclaw-supervise@bob.service.d";
    assert!(machine.run(&["mkdir", other]).status.success());
    let uninstall = ["openclaw-supervise", "uninstall", "--system", "--run-as", "alice"];
    let removed = machine.run(&uninstall);
    let said = String::from_utf8_lossy(&removed.stdout).into_owned();
    assert!(said.contains(&format!("kept       {TEMPLATE}")), "{removed:?}\n{}", unit.story());
    assert!(machine.run(&["rmdir", other]).status.success());
    let removed = machine.run(&uninstall);
    assert!(removed.status.success(), "{removed:?}\n{}", unit.story());
    assert!(!gateway.is_alive() && machine.gateways().is_empty());
    assert_eq!(String::from_utf8_lossy(&look()), String::from_utf8_lossy(&before), "{removed:?}");
}

#[test]
fn a_user_service_gets_its_arguments_verbatim_and_leaves_nothing_when_it_is_uninstalled() {
    const HOME: [&str; 2] = ["XDG_RUNTIME_DIR=/run/user/0", "XDG_CONFIG_HOME=/run/user/0/config"];
    const WORDS: &str = r#"100% of $HOME, ${USER}; "a" \ 'b' %h é"#;
    let machine = Machine::boot("healthy");
    let unit = machine.of_user(&[]);
    let run = |words: &[&str]| machine.run(&[&HOME, words].concat());
    let look = || String::from_utf8(run(&["find", "/run/user/0", "-path", "*config*"]).stdout).unwrap_or_default();
    let before = look();
    // The hook runs for each gateway. Quotes that the shell removes would hide those of systemd.
    let hook = format!("cat >/run/user/0/said <<'end'\n{WORDS}\nend\n");
    let refused = run(&["openclaw-supervise", "install", "--user", "--pre-start", &hook]);
    assert_eq!((refused.status.code(), look().as_str()), (Some(1), before.as_str()), "{refused:?}");
    let script = "/run/user/0/a $b %n; script";
    let made = format!("printf '#!/bin/sh\\necho \"$1\" >/run/user/0/said\\n' >'{script}' && chmod +x '{script}'");
    assert!(run(&["sh", "-c", &made]).status.success());
    let hook = format!("'{script}' '{}'", WORDS.replace('\'', "'\\''"));
    let installed = run(&["openclaw-supervise", "install", "--user", "--pre-start", &hook]);
    assert!(installed.status.success(), "{installed:?}\n{}", unit.story());
    unit.wait_serving(1);
    let said = run(&["cat", "/run/user/0/said"]);
    assert_eq!(String::from_utf8_lossy(&said.stdout).trim_end(), WORDS, "{}", unit.story());
    assert_eq!(unit.property("FragmentPath"), "/run/user/0/config/systemd/user/openclaw-supervise.service");
    assert_eq!(unit.property("UnitFileState"), "enabled", "{}", unit.story());
    let removed = run(&["openclaw-supervise", "uninstall", "--user"]);
    assert!(removed.status.success(), "{removed:?}\n{}", unit.story());
    assert!(machine.gateways().is_empty());
    assert_eq!(look(), before, "{removed:?}");
    for (name, advice) in
        [("openclaw-supervise", "'openclaw-supervise uninstall --user' as root"), ("openclaw-gateway", "--wrapper")]
    {
        let folder = "$HOME/.config/systemd/user";
        let there = format!(
            "cd && mkdir -p {folder}/x.wants && cd {folder} && : >{name}.service && ln -sf $PWD/{name}.service x.wants/"
        );
        assert!(run(&["HOME=/root", "sh", "-c", &there]).status.success());
        let beside = machine.run(&["openclaw-supervise", "install", "--system", "--run-as", "root"]);
        assert_eq!(beside.status.code(), Some(1), "{beside:?}");
        assert!(String::from_utf8_lossy(&beside.stderr).contains(advice), "{beside:?}");
        assert!(run(&["HOME=/root", "sh", "-c", "rm -r $HOME/.config/systemd"]).status.success());
    }
}

#[test]
fn root_may_have_its_own_service_and_that_of_a_user_finds_openclaw_in_its_home() {
    let machine = Machine::boot("healthy");
    let unit = machine.of_account(&[]);
    assert!(machine.run(&["rm", TEMPLATE, "/etc/systemd/system/openclaw-supervise.service"]).status.success());
    // Where npm installs it for a user: only that user can enter, and root's own PATH does not have it.
    let moved = "mkdir -p /srv/alice/.npm-global/bin && mv /usr/local/bin/openclaw /srv/alice/.npm-global/bin/ && \
                 chown -R alice:alice /srv/alice && chmod 700 /srv/alice";
    assert!(machine.run(&["sh", "-c", moved]).status.success());
    // The PATH has to come from `install`.
    let settings = "/etc/systemd/system/openclaw-supervise@alice.service.d/test.conf";
    assert!(machine.run(&["sed", "-i", "/\"PATH=/d", settings]).status.success());
    let refused = machine.run(&["openclaw-supervise", "install", "--system"]);
    assert_eq!(refused.status.code(), Some(78), "{refused:?}");
    let installed = machine.run(&["openclaw-supervise", "install", "--system", "--run-as", "alice"]);
    let said = String::from_utf8_lossy(&installed.stdout).into_owned();
    assert!(installed.status.success() && !said.contains("not world-accessible"), "{installed:?}\n{}", unit.story());
    unit.wait_serving(1);
    let gateway = "/srv/alice/.npm-global/bin/openclaw";
    let found = machine.processes().into_iter().any(|process| {
        let command = std::fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
        command.starts_with(gateway.as_bytes())
    });
    assert!(found, "{}", unit.story());
    let removed = machine.run(&["openclaw-supervise", "uninstall", "--system", "--run-as", "alice"]);
    assert!(removed.status.success(), "{removed:?}");
    // Root's own service.
    assert!(machine.run(&["cp", gateway, "/usr/local/bin/openclaw"]).status.success());
    assert!(machine.run(&["chown", "-R", "root:root", &machine.shared()]).status.success());
    let own = machine.of_root();
    let installed = machine.run(&["openclaw-supervise", "install"]);
    let said = String::from_utf8_lossy(&installed.stdout).into_owned();
    assert!(installed.status.success() && said.contains("agents will run as root"), "{installed:?}\n{}", own.story());
    // It uses the store of alice's.
    own.wait_serving(2);
    assert_eq!(own.property("UnitFileState"), "enabled", "{}", own.story());
    let removed = machine.run(&["openclaw-supervise", "uninstall"]);
    assert!(removed.status.success() && machine.gateways().is_empty(), "{removed:?}");
}

#[test]
fn a_template_that_was_enabled_by_hand_is_found_and_not_reported_as_removed_while_enabled() {
    let machine = Machine::boot("healthy");
    let unit = machine.of_account(&[]);
    let packaged = "/usr/lib/systemd/system/openclaw-supervise@.service";
    assert!(machine.run(&["mv", TEMPLATE, packaged]).status.success());
    assert!(machine.systemctl(&["daemon-reload"]).status.success());
    unit.order_well("enable");
    // As alice with its HOME: the enabling link is enough.
    let install = ["setpriv", "--reuid=1234", "--regid=1234", "--clear-groups", "env", "HOME=/srv/alice"];
    let beside = machine.run(&[&install[..], &["openclaw-supervise", "install", "--user"]].concat());
    let said = String::from_utf8_lossy(&beside.stderr).into_owned();
    let order = "'sudo systemctl disable --now openclaw-supervise@alice.service'";
    assert!(beside.status.code() == Some(1) && said.contains(order), "{beside:?}");
    // A package's file is not removed, but disabled.
    let removed = machine.run(&["openclaw-supervise", "uninstall", "--system", "--run-as", "alice"]);
    let said = String::from_utf8_lossy(&removed.stdout).into_owned();
    assert!(removed.status.success() && said.contains("@.service: not written by 'install'"), "{removed:?}");
    assert_eq!(unit.property("UnitFileState"), "disabled", "{}", unit.story());
    // Enabled for one boot, in a folder that `uninstall` does not search.
    assert!(machine.run(&["systemctl", "enable", "--runtime", "openclaw-supervise@alice"]).status.success());
    let removed = machine.run(&["openclaw-supervise", "uninstall", "--system", "--run-as", "alice"]);
    let said = String::from_utf8_lossy(&removed.stderr).into_owned();
    assert!(removed.status.code() == Some(1) && said.contains("is still enabled or running"), "{removed:?}");
}
