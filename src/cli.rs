//! The command line: words in, [`Options`] out, and the flags that errors hint at.

use std::ffi::OsString;
use std::path::Path;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

use crate::convert::rescaled;
use crate::error::{Hint, Hinted, Usage};
use crate::hooks::Precision;
use crate::notices::{Notices, printable};
use crate::options::{
    ClusterOptions, ComputeOptions, JsonTarget, ModelOptions, Options, OutputOptions,
    SaliencyChoice,
};
use crate::output::same_place;

const EXAMPLES: &str = "\
Examples:
  prism './photos/*.jpg' --model efficientnet_lite0
  prism wolf.jpg coyote.jpg --model vgg16 --output-dir out
  prism photos/ --model ./my_network.pt --image-size 256
  prism photos/ --model resnet50 --saliency gradcam --target tabby
  prism layers --model resnet50
  prism photos/ --model resnet50 --cluster && prism som --labels imagenet";

/// Sections of the manual page that clap does not write, as roff.
const MANUAL_ENDS: &str = r"
.SH EXIT STATUS
.TP
0
Everything was written.
.TP
1
Something failed: one line on standard error says what and where.
.TP
2
A flag, value, layer or class that is not known.
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

/// Shows what a convolutional network has seen in images: equal colours mean similar features
#[derive(Debug, Parser)]
#[command(
    name = "prism",
    version,
    after_help = EXAMPLES,
    max_term_width = 100,
    args_conflicts_with_subcommands = true
)]
struct Cli {
    #[command(flatten)]
    run: Options,

    #[command(subcommand)]
    command: Option<CommandArgs>,
}

#[derive(Debug, Subcommand)]
enum CommandArgs {
    /// List the layers of a network: name, operator, shape and role
    Layers(LayersArgs),
    /// Draw the cluster map of a file that --cluster wrote
    Som(ClusterOptions),
    /// List the networks known by name, and where their weights are
    Models,
    /// Print the completion script of a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page (prism man | man -l -)
    Man,
}

#[derive(Debug, Args)]
struct LayersArgs {
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    compute: ComputeOptions,
    /// Print nothing but errors on standard error
    #[arg(short, long)]
    quiet: bool,
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Request {
    /// Maps of images.
    Run(Box<Options>),
    /// The table of a network's layers.
    Layers(Box<(ModelOptions, ComputeOptions)>, Notices),
    /// The cluster map.
    Som(Box<ClusterOptions>),
    /// The table of known networks.
    Models,
    /// This text.
    Text(Vec<u8>),
}

/// Which option helps in a situation, for the end of an error's line.
pub fn hint(hint: Hint) -> &'static str {
    match hint {
        Hint::ImageSize => "--image-size sets another size",
        Hint::LargerImageSize => "a larger --image-size makes larger activations",
        Hint::Layer => "--layer chooses a layer by name",
        Hint::AutoRule => "--hooks auto suits every CNN",
        Hint::SaliencyLayer => "--saliency-layer chooses another layer",
        Hint::EarlierSaliencyLayer => "--saliency-layer chooses an earlier layer",
        Hint::GradCam => "--saliency gradcam works here",
        Hint::GradCamOrLaterLayer => {
            "--saliency gradcam works here, or --saliency-layer with a later layer"
        }
        Hint::Memory => "--memory sets how much stays in memory",
        Hint::BatchSize => "a smaller --batch-size takes less memory",
        Hint::MaxPixels => "scale it down, or raise --max-pixels",
        Hint::White => "--white LEVEL sets the sample that is white",
        Hint::Normalisation => "--mean and --std set other values",
        Hint::ModelFile => "give it as --model FILE",
        Hint::Labels => "--labels FILE names the classes",
        Hint::ImageNetLabels => "--labels imagenet names them",
        Hint::LabelsOrImageNet => "--labels FILE or --labels imagenet names them",
        Hint::Output => "--output chooses",
        Hint::Scores => "--scores says what they are",
        Hint::ScoresAsTheyAre => "--scores none shows them as they are",
        Hint::NoNormalisation => "--mean 0 --std 1 leaves it to the network",
        Hint::BytesAsPixels => "--mean 0 --std 0.0039216 gives it values from 0 to 255",
        Hint::Cpu => "--device cpu works everywhere",
        Hint::StoredInput => {
            "options for images and their preprocessing, such as --image-size and --mean, do not apply to stored arrays"
        }
        Hint::ClusterFile => "prism --cluster writes such a file",
        Hint::ClusterFolder => {
            "prism som takes their paths from the folder in which the run with --cluster was started"
        }
        Hint::WeightsFile => "or give it with --weights FILE",
        Hint::OtherWeights => "or use --weights FILE, or --model efficientnet_lite0",
        Hint::NameForWeights => "--weights goes with the name of a network",
        Hint::FileIsWeights => "--model NAME --weights FILE does this",
        Hint::ListModels => "prism models lists the names",
        Hint::ListLayers => "prism layers lists all layers",
        Hint::Seed => "--seed sets another seed",
        Hint::BasisFile => "--save-basis writes such a file",
    }
}

/// The longest line of an error or a remark, in characters.
const LONGEST_LINE: usize = 280;

/// An error as one line, with the option that helps at its end.
pub fn line(error: &anyhow::Error) -> String {
    let hinted = error.downcast_ref::<Hinted>();
    hinted_line(&format!("{error:#}"), hinted.map(|hinted| hinted.hint))
}

/// A text of one line, with the option that helps at its end. Of a text that is too long, the
/// middle is left out: a path comes first, the reason last.
pub fn hinted_line(text: &str, hinted: Option<Hint>) -> String {
    let end = hinted.map_or(String::new(), |hinted| format!(" ({})", hint(hinted)));
    let characters: Vec<char> = text.chars().collect();
    let room = LONGEST_LINE.saturating_sub(end.len());
    if characters.len() <= room {
        return format!("{text}{end}");
    }
    let head: String = characters[..room / 4].iter().collect();
    let tail: String = characters[characters.len() - (room - room / 4 - 3)..]
        .iter()
        .collect();
    format!("{head}...{tail}{end}")
}

fn completions(shell: Shell) -> Vec<u8> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "prism", &mut text);
    text
}

/// The manual page of `prism`, followed by those of its commands.
fn manual() -> Vec<u8> {
    let mut text = Vec::new();
    let add = |command: &clap::Command, text: &mut Vec<u8>| {
        let page = clap_mangen::Man::new(command.clone().disable_help_subcommand(true));
        let _ = page.render(text); // writing to memory does not fail
    };
    let mut command = Cli::command();
    command.build();
    add(&command, &mut text);
    text.extend_from_slice(MANUAL_ENDS.as_bytes());
    let commands = command.get_subcommands().filter(|c| c.get_name() != "help");
    commands.for_each(|command| add(command, &mut text));
    text
}

/// Reads the command line; the program's name is the first word.
///
/// # Errors
/// Returns a [`Usage`] error on one line if the words mean nothing. `--help`
/// and `--version` print and end the process.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Request, Usage> {
    let words: Vec<OsString> = words.into_iter().collect();
    let first = command_of(&words);
    let usage = |error: clap::Error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => error.exit(),
        _ => Usage(one_line(&error, first.as_deref())),
    };
    let matches = Cli::command().try_get_matches_from(&words).map_err(usage)?;
    let mut cli = Cli::from_arg_matches(&matches).map_err(usage)?;
    Ok(match cli.command {
        Some(CommandArgs::Layers(layers)) => {
            check_model(&layers.model)?;
            let notices = Notices::from_flags(layers.quiet, false);
            Request::Layers(Box::new((layers.model, layers.compute)), notices)
        }
        Some(CommandArgs::Som(mut som)) => {
            som.command = command_line(&words);
            Request::Som(Box::new(som))
        }
        Some(CommandArgs::Models) => Request::Models,
        Some(CommandArgs::Completions { shell }) => Request::Text(completions(shell)),
        Some(CommandArgs::Man) => Request::Text(manual()),
        None => {
            check(&cli.run)?;
            cli.run.output.command = command_line(&words);
            Request::Run(Box::new(cli.run))
        }
    })
}

/// The words as a line for a shell, without the folder of the program.
fn command_line(words: &[OsString]) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./=,:+@%".contains(c);
    let quoted = words.iter().skip(1).map(|word| {
        let word = printable(&word.to_string_lossy());
        match !word.is_empty() && word.chars().all(is_plain) {
            true => word,
            false => format!("'{}'", word.replace('\'', r"'\''")),
        }
    });
    std::iter::once("prism".to_owned())
        .chain(quoted)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Refuses options that contradict each other.
fn check(options: &Options) -> Result<(), Usage> {
    check_model(&options.model)?;
    if let Some(word) = options.input.images.first() {
        check_word(word)?;
    }
    let saliency = &options.saliency;
    if saliency.method == SaliencyChoice::None {
        if saliency.target.is_some() || saliency.saliency_layer.is_some() {
            return Err(Usage("--target and --saliency-layer choose what --saliency shows; add --saliency gradcam or --saliency exct-backp".into()));
        }
    } else if options.compute.precision == Precision::Bf16 {
        return Err(Usage("--precision bf16 cannot be combined with --saliency, whose gradients are computed in f32".into()));
    }
    require_distinct_files(&options.output)
}

/// Refuses a mean or standard deviation of pixels from 0 to 255.
fn check_model(options: &ModelOptions) -> Result<(), Usage> {
    match rescaled(options.mean.as_deref(), options.std.as_deref(), "--") {
        Some(advice) => Err(Usage(advice)),
        None => Ok(()),
    }
}

/// Refuses a word that names no image and may be a misspelt command.
fn check_word(word: &Path) -> Result<(), Usage> {
    let name = word.to_string_lossy();
    let is_plain = !name.is_empty() && !name.contains(['.', '/', '*', '?', '[']);
    if !is_plain || word.symlink_metadata().is_ok() {
        return Ok(());
    }
    Err(Usage(match nearest_command(&name) {
        Some(command) if command == name => format!(
            "there is no file '{name}', and a command comes first, before its options: prism {name} ..."
        ),
        nearest => no_command("file or command", &name, nearest),
    }))
}

/// The command whose name is like this one.
fn nearest_command(name: &str) -> Option<String> {
    let mut commands = Cli::command();
    commands.build(); // adds `help`
    let names = commands.get_subcommands().map(clap::Command::get_name);
    let likeness = |command: &str| strsim::jaro_winkler(command, name);
    names
        .filter(|command| likeness(command) > 0.7)
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
        .map(String::from)
}

fn no_command(what: &str, name: &str, nearest: Option<String>) -> String {
    match nearest {
        Some(command) => format!("there is no {what} '{name}'; did you mean prism {command}?"),
        None => format!("there is no {what} '{name}' (prism --help lists the commands)"),
    }
}

/// Refuses two options that name the same file.
fn require_distinct_files(output: &OutputOptions) -> Result<(), Usage> {
    let json = match &output.json {
        Some(JsonTarget::File(file)) => Some(file),
        _ => None,
    };
    let named = [
        ("--save-arrays", output.save_arrays.as_ref()),
        ("--report", output.report.as_ref()),
        ("--save-basis", output.save_basis.as_ref()),
        ("--json", json),
    ];
    let named: Vec<_> = named
        .into_iter()
        .filter_map(|(option, file)| Some((option, file?)))
        .collect();
    for (index, (option, file)) in named.iter().enumerate() {
        if let Some((earlier, _)) = named[..index]
            .iter()
            .find(|(_, earlier)| same_place(earlier, file))
        {
            let shown = file.display();
            return Err(Usage(format!(
                "{earlier} and {option} name the same file, {shown}"
            )));
        }
    }
    Ok(())
}

/// The command that the words begin with, if they begin with one.
fn command_of(words: &[OsString]) -> Option<String> {
    let word = words.get(1)?.to_str()?;
    let commands = Cli::command();
    let known = commands
        .get_subcommands()
        .any(|command| command.get_name() == word);
    known.then(|| word.to_string())
}

/// clap's message of several paragraphs as one line: what is wrong, what to do.
fn one_line(error: &clap::Error, command: Option<&str>) -> String {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    if error.kind() == ErrorKind::InvalidSubcommand
        || (error.kind() == ErrorKind::UnknownArgument
            && context(ContextKind::InvalidArg).is_some_and(|word| !word.starts_with('-')))
    {
        let word = context(ContextKind::InvalidSubcommand)
            .or_else(|| context(ContextKind::InvalidArg))
            .unwrap_or_default();
        if let Some(command) = command {
            return format!("prism {command} does not take '{word}' (prism {command} --help)");
        }
        return no_command("command", &word, nearest_command(&word));
    }
    let text = error.to_string();
    let reason = text.split("\n\nUsage:").next().unwrap_or_default();
    let reason = reason.split("\n\nFor more").next().unwrap_or_default();
    let words: Vec<&str> = reason.split_whitespace().skip(1).collect(); // without "error:"
    let line = words.join(" ").replace(" tip: ", "; ");
    let prism = command.map_or("prism".to_string(), |command| format!("prism {command}"));
    format!("{line} ({prism} --help lists all options)")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn parse_words(words: &[&str]) -> Result<Request, Usage> {
        parse(
            std::iter::once("prism")
                .chain(words.iter().copied())
                .map(OsString::from),
        )
    }

    fn run(words: &[&str]) -> Options {
        match parse_words(words) {
            Ok(Request::Run(options)) => *options,
            other => panic!("{other:?}"),
        }
    }

    /// `make docs` writes the page.
    #[test]
    fn the_page_of_all_options_is_current() {
        let options = clap_markdown::MarkdownOptions::new()
            .title("All options".into())
            .show_footer(false)
            .show_table_of_contents(false);
        let page = clap_markdown::help_markdown_custom::<Cli>(&options);
        let file = "docs/cli.md";
        if std::env::var_os("PRISM_WRITE_DOCS").is_some() {
            std::fs::write(file, &page).unwrap();
        }
        let current = std::fs::read_to_string(file).unwrap_or_default();
        assert!(page == current, "{file} is not current; run `make docs`");
    }

    #[test]
    fn the_command_line_is_quoted_for_a_shell() {
        let words = [
            "a b.jpg", "it's.png", "$x", "tab\t", "--mean", "0.5,0.5", "é.jpg",
        ];
        let words = [&["--input"], &words[..]].concat();
        let line = r"prism --input 'a b.jpg' 'it'\''s.png' '$x' 'tab\t' --mean 0.5,0.5 é.jpg";
        assert_eq!(run(&words).output.command, line);
        let words = ["/usr/bin/prism", "som", "--quiet"].map(OsString::from);
        match parse(words) {
            Ok(Request::Som(som)) => assert_eq!(som.command, "prism som --quiet"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_holds() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_long_line_keeps_its_beginning_and_its_end() {
        let text = format!("/{}/net.pt: it is damaged", "folder/".repeat(60));
        let line = hinted_line(&text, Some(Hint::ImageSize));
        assert_eq!(line.chars().count(), LONGEST_LINE);
        assert!(line.starts_with("/folder/folder"), "{line}");
        let end = "folder//net.pt: it is damaged (--image-size sets another size)";
        assert!(line.ends_with(end), "{line}");
        assert_eq!(hinted_line("it is damaged", None), "it is damaged");
    }

    #[test]
    fn nothing_said_means_vgg16_on_the_samples() {
        let options = run(&[]);
        assert_eq!(options.input.paths, [PathBuf::from("./samples/*.jpg")]);
        assert_eq!(options.model.model, PathBuf::from("vgg16"));
        assert!(!options.map.no_gradual_extrapolation);
    }

    #[test]
    fn short_options_keep_their_letters() {
        let options = run(&["-i", "a.jpg", "-m", "x.pt", "-o", "out", "-v"]);
        assert_eq!(options.input.paths, [PathBuf::from("a.jpg")]);
        assert_eq!(options.model.model, PathBuf::from("x.pt"));
        assert_eq!(options.output.folder, PathBuf::from("out"));
        assert_eq!(options.notices.level(), Notices::Verbose);
        assert_eq!(run(&["-q"]).notices.level(), Notices::Quiet);
    }
}
