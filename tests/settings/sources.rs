//! Where the gateway's endpoint comes from.

use super::*;

const PORT: &str = "OPENCLAW_GATEWAY_PORT";
const C: &str = ".openclaw/openclaw.json";
const E: &str = ".openclaw/.env";
const G: &str = ".config/openclaw/gateway.env";

/// Files, the environment, options of COMMAND, the port, and the number of warnings. `@`, `STATE`, `CONFIG` and `PROFILE`
/// stand for the variables with the gateway's port, state directory, config and profile.
type Case = (&'static [(&'static str, &'static str)], &'static str, &'static str, u16, usize);

/// Each as measured on OpenClaw 2026.9.6; what that refuses is judged by it, and a guess here.
const SOURCES: &[Case] = &[
    // The command line, the environment, the .env files, the variables of the config, the config, the profile.
    (&[(E, "@=1"), (C, "{gateway: {port: 2}}")], "", "", 1, 0),
    (&[(E, "@=1")], "@=3", "", 3, 0),
    (&[(E, "@=1")], "@=3", "--port 4", 4, 0),
    // A service link of Kubernetes is no port, but an empty value keeps the .env files away, too.
    (&[(E, "@=1"), (C, "{gateway: {port: 2}}")], "@=tcp://10.0.0.1:18789", "", 2, 1),
    (&[(C, "{env: {vars: {@: '5'}}}")], "@=tcp://10.0.0.1:18789", "", 5, 1),
    (&[(E, "@=1"), (C, "{gateway: {port: 2}}")], "@=", "", 2, 0),
    // The variables of the config count where there are none or blank ones.
    (&[(C, "{env: {vars: {@: '5'}}, gateway: {port: 2}}")], "@= ", "", 5, 0),
    (&[(C, "{env: {vars: {@: '5'}, @: '6'}}")], "", "", 5, 0),
    (&[(C, "{env: {@: '6'}, gateway: {port: 2}}")], "", "", 6, 0),
    (&[(E, "@=1"), (C, "{env: {vars: {@: '5'}}}")], "", "", 1, 0),
    (&[(E, "@=none"), (C, "{env: {vars: {@: '5'}}, gateway: {port: 2}}")], "", "", 2, 1),
    // The order of the .env files.
    (&[(E, "@=1"), (G, "@=2")], "", "", 1, 0),
    (&[(G, "@=2")], "", "", 2, 0),
    (&[(G, "@=2")], "STATE=~/s", "", 18789, 0),
    (&[("x/c.json", "{gateway: {port: 3}}"), ("x/.env", "@=1")], "CONFIG=~/x/c.json", "", 1, 0),
    (&[("x/.env", "@=1"), (E, "@=2")], "CONFIG=~/x/c.json", "", 2, 0),
    (&[("x/c.json", "{gateway: {port: 3}}"), ("x/.env", "@=1"), (E, "@=2")], "CONFIG=~/x/c.json; STATE=~/s", "", 3, 0),
    // That of the working directory is for everything else.
    (&[(".env", "@=1"), (C, "{gateway: {port: 2}}")], "", "", 2, 0),
    (&[(".env/pyvenv.cfg", ""), (C, "{gateway: {port: 2}}")], "", "", 2, 0),
    (&[(".openclaw/.env/x", ""), (C, "{gateway: {port: 2}}")], "", "", 2, 1),
    (&[(".env", "MODE=lan"), (C, "{gateway: {bind: '${MODE}'}}")], "", "", 18789, 0),
    (&[(C, "{env: {vars: {MODE: 'lan'}}, gateway: {bind: '${MODE}'}}")], "", "", 18789, 0),
    (&[(C, "{gateway: {bind: '${MODE}'}}")], "", "", 18789, 1),
    // Files that select other files.
    (&[(E, "STATE=~/s\n@=1"), (C, "{gateway: {port: 2}}"), ("s/openclaw.json", "{gateway: {port: 3}}")], "", "", 3, 0),
    (&[(E, "STATE=~/s"), ("s/openclaw.json", "{gateway: {port: 3}}"), ("s/.env", "@=4")], "", "", 4, 0),
    (&[(C, "{env: {vars: {CONFIG: '~/y'}}, gateway: {port: 2}}"), ("y", "{gateway: {port: 3}}")], "", "", 3, 0),
    (&[(C, "{env: {vars: {CONFIG: '~/y'}}, gateway: {port: 2}}"), ("y", "{")], "", "", 18789, 1),
    (&[(E, "PROFILE=work")], "", "", 41984, 0),
    (&[(C, "{env: {vars: {PROFILE: 'work'}}}")], "", "", 41984, 0),
    (&[(".openclaw-work/.env", "@=1"), (E, "@=2")], "", "--profile work", 1, 0),
    // Included files, also with variables.
    (
        &[(C, "{$include: './a.json5', gateway: {bind: 'lan'}}"), (".openclaw/a.json5", "{gateway: {port: 3}}")],
        "",
        "",
        3,
        0,
    ),
    (&[(C, "{$include: 'a'}"), (".openclaw/a", "{env: {vars: {@: '7'}}}")], "", "", 7, 0),
    // What the gateway migrates, and what it refuses and judges itself.
    (&[(C, "{gateway: {port: 2, bind: '0.0.0.0'}}")], "", "", 2, 0),
    (&[(C, "{gateway: {port: 0}}")], "", "", 18789, 1),
    (&[(C, "{gateway: {port: 70000}}")], "@=3", "", 3, 1),
    (&[(C, "{gateway: {port: 'x', bind: 1}}")], "", "", 18789, 2),
    (&[(C, "{gateway: {port: 2}")], "", "", 18789, 1),
    (&[(C, "{gateway: {port: 2}}")], "", "--port none --bind 0.0.0.0 --profile a/b", 2, 3),
];

#[test]
fn the_endpoint_comes_from_every_source_of_the_gateway() {
    let full = |text: &str| {
        let names = [
            ("@", PORT),
            ("STATE", "OPENCLAW_STATE_DIR"),
            ("CONFIG", "OPENCLAW_CONFIG_PATH"),
            ("PROFILE", "OPENCLAW_PROFILE"),
        ];
        names.iter().fold(text.to_owned(), |text, (short, name)| text.replace(short, name))
    };
    for (files, environment, command, port, warnings) in SOURCES {
        let home = Home::new();
        for (name, text) in *files {
            home.write(name, &full(text));
        }
        let environment = full(environment);
        let variables: Vec<_> = environment.split("; ").filter_map(|pair| pair.split_once('=')).collect();
        // --profile stands before `gateway`, the other options behind it.
        let (before, behind) = if command.starts_with("--profile") { (*command, "") } else { ("", *command) };
        let words = format!("run -- openclaw {before} gateway run {behind}");
        let settings = home.run(&words.split_whitespace().collect::<Vec<_>>(), &variables);
        let resolved = settings.resolver.resolve();
        assert_eq!(resolved.endpoint.port, *port, "{files:?} {words} {environment}");
        assert_eq!(settings.warnings.len(), *warnings, "{files:?} {words} {environment} {:?}", settings.warnings);
        assert_eq!(settings.endpoint, resolved.endpoint);
    }
}

#[test]
fn a_resolver_reads_everything_anew_and_tells_what_it_looked_at() {
    let home = Home::new();
    home.write(".openclaw/openclaw.json", "{$include: 'a.json', gateway: {port: 1}}");
    let resolver = home.run(&["--state-dir", ".openclaw"], &[]).resolver;
    let found = resolver.resolve();
    assert_eq!((found.endpoint.port, found.exports), (1, vec![]));
    let files =
        [".env", ".openclaw/.env", ".config/openclaw/gateway.env", ".openclaw/openclaw.json", ".openclaw/a.json"];
    assert_eq!(found.files, files.map(|name| home.path(name)));
    let name = home.text(".openclaw/openclaw.json");
    let expected = format!(
        "{name}: $include \"a.json\": there is no such file; assuming that the gateway listens on ws://127.0.0.1:1"
    );
    assert_eq!(found.warnings, [expected]);

    home.write(
        ".openclaw/openclaw.json",
        "{gateway: {tls: {enabled: true}}, env: {vars: {OPENCLAW_GATEWAY_PORT: '2'}}}",
    );
    let found = resolver.resolve();
    assert_eq!((found.endpoint.to_string().as_str(), found.warnings), ("wss://127.0.0.1:2", vec![]));
    assert_eq!(found.exports, [("OPENCLAW_GATEWAY_PORT", OsString::from("2"))]);
    home.write(".openclaw/.env", "OPENCLAW_GATEWAY_PORT=3");
    assert_eq!(std::thread::spawn(move || resolver.resolve().endpoint.port).join().unwrap(), 3);
}

#[test]
fn a_config_that_breaks_leaves_the_gateway_where_it_was() {
    let home = Home::new();
    home.write(C, "{gateway: {port: 1}, env: {vars: {MODE: 'lan'}}}");
    let resolver = home.run(&[], &[]).resolver;
    home.write(C, "{gateway: {po");
    let found = resolver.resolve();
    assert_eq!((found.endpoint.port, found.warnings.len()), (1, 1));
    assert!(
        found.warnings[0].ends_with("; assuming that the gateway listens on ws://127.0.0.1:1"),
        "{:?}",
        found.warnings
    );
    home.write(C, "{$include: 'part'}");
    home.write(".openclaw/part", "{gateway: {port: 3}}");
    assert_eq!(resolver.resolve().endpoint.port, 3);
    home.write(".openclaw/part", "");
    assert_eq!(resolver.resolve().endpoint.port, 3);
    fs::remove_file(home.path(C)).unwrap();
    assert_eq!(resolver.resolve().endpoint.port, 18789, "without a config the gateway starts with its defaults");

    // Where it broke before the start, there is the gateway's own copy of the one that it has started with.
    home.write(C, "{gateway: {po");
    let settings = home.run(&[], &[]);
    assert_eq!((settings.endpoint.port, settings.is_guess), (18789, true));
    for words in [&["--port", "4"][..], &["--", "/bin/true", "--port", "4"]] {
        let settings = home.run(words, &[]);
        assert_eq!((settings.endpoint.port, settings.is_guess), (4, false));
    }
    home.write(&format!("{C}.last-good"), "{gateway: {port: 2}}");
    let settings = home.run(&[], &[]);
    assert_eq!((settings.endpoint.port, settings.warnings.len()), (2, 1), "{:?}", settings.warnings);
    home.write(&format!("{C}.last-good"), "{}");
    let settings = home.run(&[], &[]);
    assert_eq!((settings.endpoint.port, settings.is_guess), (18789, false));
    assert!(settings.resolver.resolve().files.iter().all(|file| !file.to_string_lossy().ends_with("last-good")));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_in_a_file_keep_the_gateway_from_its_start(
        config in proptest::collection::vec(any::<u8>(), 0..40),
        text in "[{}\\[\\]:,'\"\\\\$a-z0-9 \n\u{2028}]{0,40}",
        dot_env in "[A-Za-z_=\"'`#\\\\ \n\u{feff}]{0,40}",
    ) {
        let home = Home::new();
        home.write(E, &dot_env);
        for bytes in [config, text.into_bytes()] {
            home.write(C, "");
            fs::write(home.path(C), bytes).unwrap();
            prop_assert!(matches!(home.read(&["probe"], &[]), Ok(Invocation::Probe(_))));
        }
    }
}

#[test]
fn whatever_a_config_is_it_never_keeps_a_gateway_from_its_start() {
    let home = Home::new();
    home.write("broken", "{\n gateway: {\n  port: 2,\n");
    fs::write(home.path("latin-1"), b"{/* caf\xe9 */gateway: {port: 2}}").unwrap();
    fs::write(home.path("deep"), "[".repeat(1 << 20)).unwrap();
    for (config, place, port) in [
        ("broken", "broken:2: is not JSON5: ", 18789),
        ("bin", "bin: cannot be read: ", 18789),
        ("deep", "deep: ", 18789),
    ] {
        for words in [&["--config", config][..], &["--config", config, "gateway", "run"]] {
            let settings = home.run(words, &[]);
            assert_eq!((settings.endpoint.port, settings.warnings.len()), (port, 1), "{:?}", settings.warnings);
            assert!(settings.warnings[0].starts_with(&home.text(place)), "{}", settings.warnings[0]);
            assert!(settings.warnings[0].ends_with("; assuming that the gateway listens on ws://127.0.0.1:18789"));
        }
    }
    home.write("closed", "{gateway: {port: 2}}");
    fs::set_permissions(home.path("closed"), fs::Permissions::from_mode(0o000)).unwrap();
    let may = fs::read(home.path("closed")).is_ok();
    let settings = home.run(&["--config", "closed"], &[]);
    assert_eq!((settings.endpoint.port == 2, settings.warnings.is_empty()), (may, may), "{:?}", settings.warnings);
    let settings = home.run(&["--config", "latin-1"], &[]);
    assert_eq!((settings.endpoint.port, settings.warnings), (2, vec![]));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "it writes by its own clock")]
fn a_config_that_is_being_written_is_read_again() {
    let home = Home::new();
    home.write(".openclaw/openclaw.json", "{gateway: {por");
    let path = home.path(".openclaw/openclaw.json");
    let writer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        fs::write(path, "{gateway: {port: 2}}").unwrap();
    });
    let settings = home.run(&[], &[]);
    writer.join().unwrap();
    assert_eq!((settings.endpoint.port, settings.warnings), (2, vec![]));
}

#[test]
fn the_default_command_names_a_port_only_if_one_was_given_to_us() {
    let home = Home::new();
    home.write(".openclaw/openclaw.json", "{gateway: {port: 19000}}");
    let tail = |words: &[&str], variables| home.run(words, variables).command[1..].to_vec();
    let plain = ["gateway", "run"].map(OsString::from);
    for variables in [&[][..], &[("OPENCLAW_GATEWAY_PORT", "19001")], &[("OPENCLAW_PROFILE", "work")]] {
        assert_eq!(tail(&[], variables), plain, "{variables:?}");
    }
    assert_eq!(tail(&["--profile", "work"], &[]), plain);
    assert_eq!(tail(&["--port", "19002"], &[]), ["gateway", "run", "--port", "19002"].map(OsString::from));
}
