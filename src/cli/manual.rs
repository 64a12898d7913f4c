//! The manual page: clap's sections, and those that clap does not write.

use std::io;

use clap::Command;
use clap_mangen::Man;

/// Sections after the options, as roff.
const ENDS: &str = r"
.SH EXIT STATUS
.TP
0
Everything was written.
.TP
1
Something failed: one line on standard error says what and where.
.TP
2
A flag, value, layer or class that is not known, or no network that is here.
.TP
128+N
Ended by signal N (130: Ctrl\-C); nothing half\-written is left.
.SH ENVIRONMENT
.TP
PRISM_MODELS
Folders, between colons, in which networks and weights are looked for after ./models.
.TP
TORCH_HOME
Where torchvision keeps its weights (else XDG_CACHE_HOME/torch, else ~/.cache/torch).
.TP
PRISM_OFFLINE
Set, and not 0: weights are never downloaded.
.TP
PRISM_WEIGHTS_URL
Address to download weights from, in place of torchvision's.
.TP
NO_COLOR
Set: no colours on the terminal.
";

/// The page of `prism`, followed by those of its commands. Characters beyond ASCII are named, so
/// that every version of roff shows them.
pub fn page(mut command: Command, examples: &[&str]) -> Vec<u8> {
    command.build();
    let mut text = Vec::new();
    let _ = write_page(&command, examples, &mut text); // writing to memory does not fail
    let mut page = String::new();
    for c in String::from_utf8_lossy(&text).chars() {
        match c.is_ascii() {
            true => page.push(c),
            false => page += &format!("\\[u{:04X}]", u32::from(c)),
        }
    }
    page.into_bytes()
}

fn write_page(command: &Command, examples: &[&str], out: &mut Vec<u8>) -> io::Result<()> {
    let of = |command: &Command| {
        let version = command.get_version().unwrap_or(env!("CARGO_PKG_VERSION"));
        Man::new(command.clone().disable_help_subcommand(true))
            .source(format!("prism {version}"))
            .manual("prism")
    };
    write_sections(&of(command), out)?;
    let commands = command.get_subcommands().filter(|c| c.get_name() != "help");
    let commands: Vec<&Command> = commands.collect();
    let mut listed = ".SH COMMANDS\n".to_string();
    for command in &commands {
        let about = command.get_about().map(ToString::to_string);
        listed += ".TP\n\\fBprism ";
        listed += &roff(command.get_name());
        listed += "\\fR\n";
        listed += &roff(&about.unwrap_or_default());
        listed.push('\n');
    }
    listed += ".SH EXAMPLES\n.nf\n"; // as they are: not filled, not hyphenated
    for example in examples {
        listed += &roff(example);
        listed.push('\n');
    }
    listed += ".fi";
    out.extend(listed.into_bytes());
    out.extend_from_slice(ENDS.as_bytes());
    for command in commands {
        write_sections(&of(command), out)?;
    }
    Ok(())
}

/// The sections that each command has.
fn write_sections(page: &Man, out: &mut Vec<u8>) -> io::Result<()> {
    page.render_title(out)?;
    page.render_name_section(out)?;
    page.render_synopsis_section(out)?;
    page.render_description_section(out)?;
    page.render_options_section(out)
}

/// A line of text as roff shows it: no request, and hyphens and quotes that can be copied.
fn roff(line: &str) -> String {
    let line = line.replace('\\', "\\e");
    let line = line.replace('-', "\\-").replace('\'', "\\(aq");
    match line.starts_with('.') {
        true => format!("\\&{line}"),
        false => line,
    }
}
