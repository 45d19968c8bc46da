//! `install` and `uninstall` with the real thing.

use crate::machine::Machine;

const TEMPLATE: &str = "/etc/systemd/system/openclaw-supervise@.service";

#[test]
fn what_is_installed_for_the_machine_serves_and_leaves_nothing_when_it_is_uninstalled() {
    let machine = Machine::boot("healthy");
    let unit = machine.of_account(&[]);
    // The template is to come from the program itself.
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
    let removed = machine.run(&["openclaw-supervise", "uninstall", "--system", "--run-as", "alice"]);
    assert!(removed.status.success(), "{removed:?}\n{}", unit.story());
    assert!(!gateway.is_alive() && machine.gateways().is_empty());
    assert_eq!(String::from_utf8_lossy(&look()), String::from_utf8_lossy(&before), "{removed:?}");
}
