//! Recognises a program that installs packages: one that is killed leaves half an installation.

/// The verbs that write into an installation, of any of the package managers.
const VERBS: [&str; 10] = ["install", "i", "ci", "add", "update", "upgrade", "up", "rebuild", "link", "dedupe"];

/// Whether this command line, as it is shown, is an installer at work. Some set their title to the command that was typed.
pub(super) fn is_installer(command: &str) -> bool {
    let mut words = command.split_whitespace().filter(|word| !word.starts_with('-'));
    let name = |word: &str| word.rsplit('/').next().unwrap_or_default().to_owned();
    let Some(mut program) = words.next().map(name) else { return false };
    if matches!(program.as_str(), "node" | "nodejs" | "bun" | "sh" | "bash" | "dash" | "env" | "sudo") {
        let mut rest = words.clone();
        if let Some(script) = rest.next().map(name)
            && is_manager(&script)
        {
            (program, words) = (script, rest);
        }
    }
    let mut verb = words;
    match verb.next() {
        Some("update" | "upgrade") if matches!(program.as_str(), "openclaw" | "openclaw.mjs") => true,
        Some(verb) => is_manager(&program) && VERBS.contains(&verb),
        // `yarn` alone installs.
        None => matches!(program.as_str(), "yarn" | "yarn.js"),
    }
}

fn is_manager(program: &str) -> bool {
    let stem =
        program.trim_end_matches(".js").trim_end_matches(".cjs").trim_end_matches(".mjs").trim_end_matches("-cli");
    matches!(stem, "npm" | "pnpm" | "yarn" | "bun" | "openclaw")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_managers_that_write_are_installers_and_what_only_names_one_is_not() {
        for command in [
            "npm install -g openclaw@latest",
            "node /usr/lib/node_modules/npm/bin/npm-cli.js i -g openclaw",
            "/usr/bin/node --max-old-space-size=512 /usr/bin/npm ci",
            "node /opt/pnpm/bin/pnpm.cjs add -g openclaw",
            "bun add -g openclaw",
            "yarn",
            "node /opt/yarn.js add openclaw",
            "openclaw update --yes",
            "node /x/openclaw/openclaw.mjs update",
        ] {
            assert!(is_installer(command), "{command}");
        }
        for command in [
            "",
            "npm run start",
            "npm view openclaw",
            "node server.js install",
            "openclaw gateway run",
            "openclaw-gateway",
            "vim install",
            "bun server.ts",
            "sleep 60",
        ] {
            assert!(!is_installer(command), "{command}");
        }
    }
}
