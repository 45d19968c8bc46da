//! Recognises a program that installs packages: one that is killed leaves half an installation.

/// The verbs that write into an installation, of any of the package managers.
const VERBS: &str = "add ci dedupe i install link rebuild remove rm uninstall up update upgrade";

/// Options of theirs with a value in a word of its own.
const VALUED: &str = "-C -F -w --cache --cwd --dir --filter --loglevel --prefix --registry --userconfig --workspace";

/// What starts a manager, with the verbs that do so.
const LAUNCHERS: &str = "bash bunx corepack dash dlx env exec node nodejs npx sh sudo";

/// Whether this command line, as it is shown, is an installer at work. Some set their title to the command that was typed.
pub(super) fn is_installer(command: &str) -> bool {
    let mut follows_valued = false;
    let mut words = command.split_whitespace().filter(|word| {
        let is_value = std::mem::replace(&mut follows_valued, is_one_of(VALUED, word));
        !is_value && !word.starts_with('-')
    });
    let name = |word: &str| word.rsplit('/').next().unwrap_or_default().to_owned();
    let Some(program) = words.by_ref().map(name).find(|name| !is_one_of(LAUNCHERS, name)) else { return false };
    let mut verb = words.filter(|word| *word != "global");
    match verb.next() {
        Some("update" | "upgrade") if matches!(program.as_str(), "openclaw" | "openclaw.mjs") => true,
        Some(verb) => is_manager(&program) && is_one_of(VERBS, verb),
        // `yarn` alone installs.
        None => matches!(program.as_str(), "yarn" | "yarn.js"),
    }
}

fn is_one_of(list: &str, word: &str) -> bool {
    list.split_whitespace().any(|known| known == word)
}

fn is_manager(program: &str) -> bool {
    let stem =
        program.trim_end_matches(".js").trim_end_matches(".cjs").trim_end_matches(".mjs").trim_end_matches("-cli");
    matches!(stem, "npm" | "pnpm" | "yarn" | "bun")
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
            "npm --prefix /opt/openclaw install openclaw",
            "pnpm -C /opt/openclaw i",
            "yarn global add openclaw",
            "sh -c npm install openclaw",
            "node /opt/corepack/dist/pnpm.js remove x",
            "npx openclaw update",
            "openclaw update --yes",
            "node /x/openclaw/openclaw.mjs update",
        ] {
            assert!(is_installer(command), "{command}");
        }
        for command in [
            "",
            "npm run start",
            "npm view openclaw",
            "npm --prefix install run start",
            "sudo rm file",
            "sh",
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
