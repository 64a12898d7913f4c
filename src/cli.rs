//! The command line: words in, [`Options`] out, and the flags that errors hint at.

mod completions;
mod manual;

use std::ffi::OsString;
use std::path::Path;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

use crate::arrays::ArrayType;
use crate::convert::rescaled;
use crate::error::{Hint, Hinted, Usage};
use crate::names::{escaped, in_quotes, within};
use crate::notices::Notices;
use crate::options::{
    ArrayName, ClusterOptions, CompareOptions, ComputeOptions, JsonTarget, ModelOptions, Options,
    OutputOptions, ReportOptions, SaliencyChoice,
};
use crate::output::same_place;

/// Commands for the long help and the manual page.
const EXAMPLES: [&str; 7] = [
    "prism './photos/*.jpg' --model efficientnet_lite0",
    "prism wolf.jpg coyote.jpg --model vgg16 --output-dir out",
    "prism photos/ --model ./my_network.pt --image-size 256",
    "prism photos/ --model resnet50 --saliency gradcam --target tabby",
    "prism layers --model resnet50",
    "prism photos/ --model resnet50 --cluster && prism som --labels imagenet",
    "prism compare before.json after.json --fail-if 'top1_changed > 0.02'",
];

/// The end of the short help, which leaves many options out.
const SHORT_END: &str = "\
Example: prism './photos/*.jpg' --model efficientnet_lite0
prism --help explains all options, and prism COMMAND --help those of a command.";

/// The end of the long help.
fn examples() -> String {
    EXAMPLES
        .iter()
        .fold("Examples:".to_string(), |text, line| text + "\n  " + line)
}

/// Shows what a convolutional network has seen in images: equal colours mean similar features
#[derive(Debug, Parser)]
#[command(
    name = "prism",
    version,
    after_help = SHORT_END,
    after_long_help = examples(),
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
    /// Compare two saved runs: changed classes, likeness of features
    Compare(CompareOptions),
    /// Make the page of a saved run
    Report(ReportOptions),
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
    /// Two runs side by side.
    Compare(Box<CompareOptions>),
    /// The page of a saved run.
    Report(Box<ReportOptions>),
    /// The table of known networks.
    Models,
    /// This text.
    Text(Vec<u8>),
    /// Help or the version, in the colours of the terminal.
    Help(clap::Error),
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
        Hint::Memory => "--memory sets how much stays in memory, --spool another folder",
        Hint::Spool => "--spool names a folder that is there and can be written",
        Hint::Figures => "--figures all shows all",
        Hint::Precision => "--precision bf16 has a larger range",
        Hint::CpuPrecision => "--precision bf16 rounds on both; --device cuda chooses a GPU",
        Hint::BatchSize => "a smaller --batch-size takes less memory",
        Hint::MaxPixels => "scale it down, or raise --max-pixels",
        Hint::White => "--white LEVEL sets the sample that is white",
        Hint::Normalisation => "--mean and --std set other values",
        Hint::ModelFile => "give it as --model FILE",
        Hint::Labels => "--labels FILE names the classes",
        Hint::ImageNetLabels => "--labels imagenet names them",
        Hint::LabelsOrImageNet => "--labels FILE or --labels imagenet names them",
        Hint::TruthFile => "--truth FILE.csv gives classes by path",
        Hint::SavedRun => "prism --json RUN.json --save-arrays RUN.npz saves a run",
        Hint::SavedArrays => "--arrays names it; prism compare has --arrays-a and --arrays-b",
        Hint::AllArrays => "without --arrays all of them are saved",
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
        Hint::OtherNetwork => "--model NAME chooses one; --model vgg16 downloads its weights",
        Hint::AnyNetwork => "--model NAME|FILE chooses a network",
        Hint::ListModels => "prism models lists the names",
        Hint::ListLayers => "prism layers lists all layers",
        Hint::JointOff => "--joint off runs alone",
        Hint::Seed => "--seed sets another seed",
        Hint::BasisFile => "--save-basis writes such a file",
    }
}

/// What to do with a cluster file that a run wrote, whose class names are in the file `labels`.
pub fn next_step(cluster_file: &Path, labels: Option<&Path>) -> String {
    let file = quoted(cluster_file);
    let labels = labels.map_or_else(String::new, |labels| {
        format!(" --labels {}", quoted(labels))
    });
    format!("draw the cluster map with prism som {file}{labels}")
}

/// A path as a word of a shell's command line.
fn quoted(path: &Path) -> String {
    let word = path.to_string_lossy();
    let is_plain = |c: char| c.is_alphanumeric() || "-_./+,:=@%".contains(c);
    let word = match word.starts_with('-') {
        true => format!("./{word}"),
        false => word.into_owned(),
    };
    match word.chars().all(is_plain) {
        true => word,
        false => in_quotes(&word),
    }
}

/// The longest line of an error or a remark, in characters.
const LONGEST_LINE: usize = 280;

/// An error as one line, with the option that helps at its end.
pub fn line(error: &anyhow::Error) -> String {
    let hinted = error.downcast_ref::<Hinted>();
    hinted_line(&format!("{error:#}"), hinted.map(|hinted| hinted.hint))
}

/// A text of one line, with the option that helps at its end; the middle of a text that is too
/// long is left out.
pub fn hinted_line(text: &str, hinted: Option<Hint>) -> String {
    let end = hinted.map_or(String::new(), |hinted| format!(" ({})", hint(hinted)));
    let room = LONGEST_LINE.saturating_sub(end.len());
    within(text, room) + &end
}

/// Reads the command line; the program's name is the first word.
///
/// # Errors
/// Returns a [`Usage`] error on one line if the words mean nothing.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Request, Usage> {
    let words: Vec<OsString> = words.into_iter().collect();
    let first = command_of(&words);
    let usage = |error: clap::Error| Usage(one_line(&error, first.as_deref()));
    let matches = match Cli::command().try_get_matches_from(&words) {
        Err(help) if !help.use_stderr() => return Ok(Request::Help(help)),
        matches => matches.map_err(usage)?,
    };
    let mut cli = Cli::from_arg_matches(&matches).map_err(usage)?;
    cli.run.model.is_assumed = is_default(&matches, "model");
    cli.run.output.has_folder = !is_default(&matches, "folder");
    Ok(match cli.command {
        Some(CommandArgs::Layers(mut layers)) => {
            let of_layers = matches.subcommand_matches("layers");
            layers.model.is_assumed = of_layers.is_some_and(|of| is_default(of, "model"));
            check_model(&layers.model)?;
            let notices = Notices::from_flags(layers.quiet, false);
            Request::Layers(Box::new((layers.model, layers.compute)), notices)
        }
        Some(CommandArgs::Som(mut som)) => {
            som.command = command_line(&words);
            Request::Som(Box::new(som))
        }
        Some(CommandArgs::Compare(compare)) => {
            check_compare(&compare)?;
            Request::Compare(Box::new(compare))
        }
        Some(CommandArgs::Report(report)) => {
            check_report(&report)?;
            Request::Report(Box::new(report))
        }
        Some(CommandArgs::Models) => Request::Models,
        Some(CommandArgs::Completions { shell }) => {
            Request::Text(completions::script(shell, Cli::command()))
        }
        Some(CommandArgs::Man) => Request::Text(manual::page(Cli::command(), &EXAMPLES)),
        None => {
            check(&cli.run)?;
            cli.run.output.command = command_line(&words);
            Request::Run(Box::new(cli.run))
        }
    })
}

/// Whether an option has its default because it was not given.
fn is_default(matches: &ArgMatches, option: &str) -> bool {
    matches.value_source(option) == Some(ValueSource::DefaultValue)
}

/// The words as a line for a shell, without the folder of the program.
fn command_line(words: &[OsString]) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./=,:+@%".contains(c);
    let quoted = words.iter().skip(1).map(|word| {
        let word = word.to_string_lossy();
        match !word.is_empty() && word.chars().all(is_plain) {
            true => word.into_owned(),
            false => escaped(&in_quotes(&word)),
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
    } else if !options.compute.precision.is_exact() {
        let precision = options.compute.precision.name();
        return Err(Usage(format!(
            "--precision {precision} cannot be combined with --saliency, whose gradients are computed in f32"
        )));
    }
    check_outputs(options)?;
    require_distinct_files(&options.output)
}

/// Refuses choices of arrays and figures that nothing can fulfil.
fn check_outputs(options: &Options) -> Result<(), Usage> {
    let output = &options.output;
    let refused = |text: &str| Err(Usage(text.into()));
    if output.save_arrays.is_none() {
        if output.arrays.is_some() {
            return refused("--arrays chooses what --save-arrays FILE saves; add it");
        }
        if output.array_type != ArrayType::F32 {
            return refused("--array-type is the type of what --save-arrays FILE saves; add it");
        }
    }
    let chosen = output.arrays.iter().flatten();
    for array in chosen {
        match array {
            ArrayName::Saliency if options.saliency.method == SaliencyChoice::None => {
                return refused(
                    "--arrays saliency needs --saliency gradcam or --saliency exct-backp",
                );
            }
            ArrayName::LeftOut if !options.map.inclusive && !options.map.exclusive => {
                return refused(
                    "--arrays left_out needs --inclusive or --exclusive, which leave pixels out",
                );
            }
            _ => {}
        }
    }
    if output.figures == 0 && output.per_image {
        return refused(
            "--per-image writes files of the images that --figures shows, which is none",
        );
    }
    Ok(())
}

/// Refuses to write over one of the runs.
fn check_compare(options: &CompareOptions) -> Result<(), Usage> {
    let given = [&options.a, &options.b].into_iter();
    let given: Vec<_> = given
        .chain(&options.arrays_a)
        .chain(&options.arrays_b)
        .collect();
    let json = match &options.json {
        Some(JsonTarget::File(file)) => Some(file),
        _ => None,
    };
    if options.json.as_ref().is_some_and(JsonTarget::is_lines) {
        let text = "a comparison is one JSON object, not lines; end the name of --json in .json";
        return Err(Usage(text.into()));
    }
    for (flag, file) in [("--json", json), ("--report", options.report.as_ref())] {
        let Some(file) = file else { continue };
        let shown = file.display();
        if given.iter().any(|input| same_place(input, file)) {
            let text = format!("{flag} would write over {shown}, which is compared");
            return Err(Usage(text));
        }
        if flag == "--report" && json.is_some_and(|json| same_place(json, file)) {
            return Err(Usage(format!("--json and --report both write {shown}")));
        }
    }
    Ok(())
}

/// Refuses to write over the run.
fn check_report(options: &ReportOptions) -> Result<(), Usage> {
    let mut given = [&options.run].into_iter().chain(&options.arrays);
    if given.any(|input| same_place(input, &options.output)) {
        let shown = options.output.display();
        let text = format!("--output would write over {shown}, which is the run");
        return Err(Usage(text));
    }
    Ok(())
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
    let is_plain = !name.is_empty() && !name.contains(['.', '/', '*', '?', '[', '{']);
    let is_list = name == "-" || name.starts_with('@');
    if !is_plain || is_list || word.symlink_metadata().is_ok() {
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
    let cluster = output.cluster_file();
    let named = [
        ("--save-arrays", output.save_arrays.as_ref()),
        ("--report", output.report.as_ref()),
        ("--save-basis", output.save_basis.as_ref()),
        ("--json", json),
        ("--cluster", cluster.as_ref()),
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
        let line = r#"prism --input 'a b.jpg' 'it'"'"'s.png' '$x' $'tab\t' --mean 0.5,0.5 é.jpg"#;
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
    fn the_short_help_fits_a_screen_and_the_long_one_explains_every_option() {
        for (width, lines) in [(80, 67), (100, 63)] {
            let mut command = Cli::command().term_width(width);
            let short = command.render_help().to_string();
            assert!(short.lines().count() <= lines, "{width}: {short}");
            let widest = short.lines().map(|line| line.chars().count()).max();
            assert!(widest <= Some(width), "{width}: {widest:?} in {short}");
            let long = command.render_long_help().to_string();
            let long = long.split_whitespace().collect::<Vec<_>>().join(" ");
            command.build();
            for option in command.get_arguments().filter_map(clap::Arg::get_long) {
                assert!(long.contains(&format!("--{option}")), "{option}");
            }
            for option in ["--model", "--cluster", "--saliency", "--report"] {
                assert!(short.contains(option), "{option}");
            }
            assert!(!short.contains("--max-pixels") && !short.contains("torch.export (.pt2)"));
            assert!(long.contains("torch.export (.pt2), TorchScript or ONNX"));
        }
    }

    #[test]
    fn a_path_is_quoted_as_a_shell_reads_it() {
        for (path, word) in [
            ("out/2cluster.bin", "out/2cluster.bin"),
            ("a b", "'a b'"),
            ("it's", r#"'it'"'"'s'"#),
            ("a\\b'c", r#"$'a\b'"'"$'c'"#),
            ("-x", "./-x"),
            ("$HOME", "'$HOME'"),
            ("h\u{e9}", "h\u{e9}"),
        ] {
            assert_eq!(quoted(Path::new(path)), word);
        }
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
