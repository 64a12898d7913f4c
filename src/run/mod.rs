//! A run: images -> batch -> hooked network -> excitations -> features -> maps -> outputs.

mod again;
mod channels;
mod classes;
mod commands;
mod compare;
mod describe;
mod fit;
mod forward;
mod headers;
mod input;
mod key;
mod oddities;
mod outputs;
mod stream;

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};

use crate::classes::top_classes;
use crate::cli;
use crate::heap::with_retained_heap;
use crate::names::escaped;
use crate::notices::{Notices, Stopwatch};
use crate::options::Options;
use crate::remarks::Remarks;
use crate::settings::Settings;
use crate::spool::{self, Spool};
use crate::truth;

pub use key::{Ends, InWords, Key, KeyGroup};

pub use again::report;
pub use commands::{print_layers, print_models, print_text, som};
pub use compare::compare;
pub(crate) use forward::{Decoded, Jpeg, Seen, seen_part};

use fit::Fit;
use forward::{ForwardOptions, chunk_size, forward_all};
use input::Input;
use outputs::{Destination, Results};

/// Computes the maps that `options` ask for, writes all files and prints one line per image
/// to `stdout`.
///
/// # Errors
/// Returns a message of one line. No file is written then, except if `stdout` alone fails,
/// which is written last.
pub fn run(options: &Options, stdout: &mut dyn Write) -> Result<()> {
    let notices = options.notices.level();
    let mut clock = Stopwatch::start();
    let mut remarks = Remarks::new(notices);

    let input = Input::open(&options.input, &options.model, notices, &mut remarks)?;
    let drawn = outputs::drawn(&options.output);
    let saved = outputs::saved(&options.output);
    let mut to = Destination::default();
    for output in drawn.iter().chain(&saved) {
        output.prepare(&mut to.files)?;
    }
    let given = classes::given_labels(&options.classes)?;
    let truth = classes::given_truth(&options.classes, &input)?;

    let network = commands::load(&options.model, &options.compute, notices)?;
    clock.lap("loading");
    let preprocessing = input.preprocessing(&network.preprocessing);
    let mut hooks = options.hooks();
    hooks.channels = input.channels();
    hooks.scores.names = classes::count_of(given.as_ref(), &network);
    let size = preprocessing.size.value;
    let mut model = notices.during("hooking", || network.hook(size, &hooks))?;
    remarks.add_all(&network.remarks);
    remarks.add_all(&model.remarks());
    let preprocessing = channels::fitted(&input, preprocessing, model.channels(), &mut remarks)
        .with_context(|| options.model.model.display().to_string())?;
    remarks.add_all(&preprocessing.remarks(model.entry()));
    let names = classes::class_names(&model, &network, given, options, &mut remarks)?;
    let labels = names.labels.as_ref();
    let truths = classes::truths(truth, &input, &model, labels)?;
    let saliency = classes::choose_target(&mut model, labels, &options.saliency, &mut remarks)?;
    let name = network.name;
    drop(network.graph); // the model has its own copy
    clock.lap("hooking");

    let keep_components = outputs::need_components(&options.output);
    let mut fit = Fit::new(&name, &model, &options.map, keep_components)?;
    let chunk = options
        .compute
        .batch_size
        .unwrap_or_else(|| chunk_size(&model));
    if notices == Notices::Verbose {
        for choice in describe::choices(&model, options, chunk) {
            notices.note(&choice);
        }
    }
    let memory = options
        .compute
        .memory
        .unwrap_or_else(spool::share_of_memory);
    let spool = Spool::new(memory, &options.output.folder);
    let forwarding = ForwardOptions {
        normalisation: preprocessing.normalisation(),
        maps: fit.options,
        chunk,
        keep_input: options.output.save_arrays.is_some(),
        square: options.output.square,
        photographs: outputs::photograph_area(&options.output, || input.len()),
        spool: &spool,
        notices,
    };
    let forwarded = with_retained_heap(|| forward_all(&input, &model, &forwarding))?;
    remarks.add_all(&model.remarks()); // also what the images showed
    forwarded
        .remark
        .iter()
        .for_each(|remark| remarks.add(remark));
    clock.laps(&forwarded.times, "decoding");
    let odd = forwarded.oddities.remarks(options.input.white);
    remarks.add_all(&odd);
    remarks.add_all(&truths.remarks);

    let maps = fit.maps(forwarded.collector, notices, &mut remarks)?;
    clock.lap("analysing");

    let reading = model.evidence().read(&maps.logits);
    reading.remark.iter().for_each(|remark| remarks.add(remark));
    let top = options.classes.top as i64;
    let classes = top_classes(&maps.logits, reading.kind, labels, top)?;
    let truths = truths.in_order(&forwarded.paths);
    truth::right(&classes, &truths)
        .iter()
        .for_each(|remark| remarks.add(remark));
    let key = Key::of(&maps, &model, reading.kind, labels)?;
    let mut settings = Settings(preprocessing.settings());
    settings
        .0
        .extend([classes::scores_setting(&reading, &model), names.setting]);
    for phrase in settings.phrases() {
        notices.detail(|| format!("settings: {phrase}"));
    }
    let mut results = Results {
        settings,
        probabilities: reading.kind.probabilities(&maps.logits),
        network: describe::network(&name, &model, options.model.rule),
        basis_of: fit.of,
        basis: (options.map.basis.as_deref().and_then(Path::file_name))
            .map(|name| escaped(&name.to_string_lossy())),
        palette: options.map.palette,
        saliency,
        paths: forwarded.paths,
        pictures: forwarded.pictures,
        photographs: forwarded.photographs,
        input: forwarded.input,
        classes,
        truths,
        key,
        maps,
        clock,
        remarks,
        notices,
    };
    for output in drawn {
        output.write(&results, &mut to)?;
    }
    to.finish_drawing()?;
    results.clock.lap("drawing");
    for output in saved {
        output.write(&results, &mut to)?;
    }
    results.clock.lap("saving");
    let (written, printed) = to.commit()?;
    commands::report_written(&written, notices);
    if let Some(file) = options.output.cluster_file() {
        notices.note(&cli::next_step(&file, names.named_by.as_deref()));
    }
    notices.detail(|| format!("times: {}", results.clock));
    commands::print_text(&printed, stdout)
}
