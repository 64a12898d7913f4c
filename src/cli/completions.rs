//! Completion scripts of shells: clap's, in which options that take a name or a file offer both.

use clap::Command;
use clap::builder::PossibleValuesParser;
use clap_complete::Shell;

use crate::model::zoo;

/// The script of a shell for this command line.
pub fn script(shell: Shell, command: Command) -> Vec<u8> {
    let networks: Vec<&str> = zoo::entries().iter().map(|entry| entry.name).collect();
    let imagenet = vec!["imagenet"];
    let mut command = with_names(command, "model", &networks);
    command = with_names(command, "labels", &imagenet);
    for (name, option, names) in [("layers", "model", &networks), ("som", "labels", &imagenet)] {
        command = command.mut_subcommand(name, |command| with_names(command, option, names));
    }
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, "prism", &mut text);
    let text = String::from_utf8_lossy(&text).into_owned();
    let both = [&networks, &imagenet]
        .into_iter()
        .fold(text, |text, names| with_files(shell, &text, names));
    mended(shell, both).into_bytes()
}

/// clap's script without its faults: in Bash, `--model=NAME` is three words; in Fish, options
/// after an image, and values after a space, are not completed.
fn mended(shell: Shell, script: String) -> String {
    const FISH: &str = "function __fish_prism_needs_command\n";
    match shell {
        Shell::Bash => script.replacen(
            "    cmd=\"\"\n",
            r#"    if [[ "${cur}" == "=" ]]; then
        cur=""
    elif [[ "${prev}" == "=" ]]; then
        prev="${COMP_WORDS[COMP_CWORD-2]}"
    fi
    cmd=""
"#,
            1,
        ),
        Shell::Fish => match script.split_once(FISH) {
            Some((before, rest)) => {
                let after = rest.split_once("\nend\n").map_or(rest, |(_, after)| after);
                format!("{before}{FISH}{NEEDS_COMMAND}{after}").replace(
                    r#"-n "__fish_prism_needs_command" -a "#,
                    r#"-n "test (count (commandline -opc)) -eq 1" -a "#,
                )
            }
            None => script,
        },
        _ => script,
    }
}

/// Whether there is no command; a command is the first word.
const NEEDS_COMMAND: &str = r#"    set -l words (commandline -opc)
    if contains -- "$words[2]" layers som compare models completions man help
        echo $words[2]
        return 1
    end
    return 0
end
"#;

/// The command line, with names as the values of an option. clap then offers only these.
fn with_names(command: Command, option: &'static str, names: &[&'static str]) -> Command {
    let names = PossibleValuesParser::new(names.to_vec());
    command.mut_arg(option, |option| {
        option.value_parser(names).hide_default_value(true)
    })
}

/// The script that offers files as well wherever it offers these names.
fn with_files(shell: Shell, script: &str, names: &[&str]) -> String {
    let list = names.join(" ");
    match shell {
        Shell::Bash => script.replace(
            &format!(r#"COMPREPLY=($(compgen -W "{list}" -- "${{cur}}"))"#),
            &format!(
                r#"COMPREPLY=($(compgen -W "{list}" -- "${{cur}}"))
                    local IFS=$'\n'
                    COMPREPLY+=($(compgen -f -- "${{cur}}"))
                    compopt -o filenames 2> /dev/null"#
            ),
        ),
        Shell::Zsh => script.replace(
            &format!(":({list})'"),
            &format!(r#":{{_alternative "names\:name\:({list})" "files\:file\:_files"}}'"#),
        ),
        Shell::Fish => {
            let lines: Vec<String> = names.iter().map(|name| format!(r"{name}\t''")).collect();
            let list = lines.join("\n");
            script.replace(
                &format!(r#" -r -f -a "{list}""#),
                &format!(r#" -r -F -a "{list}""#),
            )
        }
        _ => script.to_string(), // these complete files by themselves, and no values
    }
}
