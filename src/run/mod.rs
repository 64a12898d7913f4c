//! A run: images -> batch -> hooked network -> excitations -> features -> maps -> outputs.

mod again;
mod agree;
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

use crate::cli;
use crate::heap::with_retained_heap;
use crate::joint::Group;
use crate::map::Numbers;
use crate::names::escaped;
use crate::notices::{Notices, Stopwatch};
use crate::options::{ArrayName, Options};
use crate::remarks::Remarks;
use crate::sample::Sample;
use crate::settings::Settings;
use crate::threads::with_one_thread;
use crate::truth;

pub use key::{Ends, InWords, Key, KeyGroup};

pub use again::report;
pub use commands::{print_help, print_layers, print_models, print_text, som};
pub use compare::compare;
pub(crate) use forward::{Decoded, Decoding, Jpeg, Seen, Shown, seen_part};

use agree::{agree, in_turn, same_folders};
use fit::Fit;
use forward::{ForwardOptions, chunk_size, forward_all};
use input::{Input, require_images};
use outputs::{Destination, Results};

/// Computes the maps that `options` ask for, writes all files and prints one line per image
/// to `stdout`.
///
/// # Errors
/// Returns a message of one line. No file is written then, except if `stdout` alone fails,
/// which is written last.
pub fn run(options: &Options, stdout: &mut dyn Write) -> Result<()> {
    let group = Group::join(options.compute.joint, options.notices.level())?;
    run_in(&group, options, stdout)?;
    group.finish();
    Ok(())
}

/// The same, as one of the ranks of a group.
fn run_in(group: &Group, options: &Options, stdout: &mut dyn Write) -> Result<()> {
    let warnings = options.notices.level();
    let notices = match group.is_first() {
        true => warnings,
        false => Notices::Quiet, // what it would say, rank 0 says
    };
    let compute = options.compute.for_rank(group);
    let mut clock = Stopwatch::start();
    let mut remarks = Remarks::new(notices);

    let input = Input::open(&options.input, &options.model, group, notices, &mut remarks)?;
    let drawn = outputs::drawn(&options.output);
    let saved = outputs::saved(&options.output);
    agree(group, options, &input)?;
    let mut to = Destination::default();
    let spool = in_turn(group, || {
        if !group.is_first() {
            to.files.keep_abandoned();
        }
        let mut outputs = drawn.iter().chain(&saved);
        outputs.try_for_each(|output| output.prepare(&mut to.files))?;
        let spool = outputs::spool(options, group, &mut to.files)?;
        if group.is_joint() {
            to.files.keep_abandoned();
        }
        Ok(spool)
    })?;
    same_folders(group, &to.files)?;
    let given = classes::given_labels(&options.classes)?;
    let truth = classes::given_truth(&options.classes, &input)?;

    // Rank 0 downloads weights that are missing, and the others find them.
    let network = in_turn(group, || commands::load(&options.model, &compute, notices))?;
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
    let all = input.len();
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
    let forwarding = ForwardOptions {
        normalisation: preprocessing.normalisation(),
        maps: fit.options,
        chunk,
        all_maps: options.output.saves(ArrayName::Maps) || options.output.saves(ArrayName::LeftOut),
        keep_input: options.output.saves(ArrayName::Input),
        square: options.output.square,
        photographs: outputs::photograph_area(&options.output, all),
        figures: Sample::new(all, options.output.figures),
        page: outputs::page_sample(&options.output, all),
        spool: &spool,
        group,
        all,
        notices,
        warnings,
    };
    let forwarded = with_retained_heap(|| forward_all(&input, &model, &forwarding))?;
    require_images(group.share(forwarded.paths.len())?.iter().sum())?;
    remarks.add_all(&model.remarks()); // also what the images showed
    forwarded
        .remark
        .iter()
        .for_each(|remark| remarks.add(remark));
    clock.laps(&forwarded.times, "decoding");
    remarks.gather(group)?;
    // A rank without images does not know it.
    let mut input_shapes = group.share(forwarded.input.shape().to_vec())?.into_iter();
    let odd = forwarded
        .oddities
        .of_all(group)?
        .remarks(options.input.white);
    remarks.add_all(&odd);
    remarks.add_all(&truths.remarks);

    let maps = fit.maps(forwarded.collector, group, notices, &mut remarks)?;
    clock.lap("analysing");

    let reading = model.evidence().read(&classes::range_of(&maps, group)?);
    reading.remark.iter().for_each(|remark| remarks.add(remark));
    let top = options.classes.top as i64;
    let classes = classes::top(&maps, reading.kind, labels, top)?;
    let truths = truths.in_order(&forwarded.paths);
    truth::right(&classes, &truths, group)?
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
    let shown_names = match options.output.figures {
        0 => Vec::new(),
        _ => {
            let names = outputs::shown_names(&input.paths());
            let shown = forwarded.in_figures.iter();
            shown
                .map(|&image| names[forwarded.numbers[image]].clone())
                .collect()
        }
    };
    let mut results = Results {
        names: shown_names,
        numbers_in_figures: Numbers::of(group, forwarded.in_figures.len())?,
        group,
        settings,
        kind: reading.kind,
        network: describe::network(&name, &model, options.model.rule),
        basis_of: fit.of,
        basis: (options.map.basis.as_deref().and_then(Path::file_name))
            .map(|name| escaped(&name.to_string_lossy())),
        palette: options.map.palette,
        saliency,
        paths: forwarded.paths,
        in_figures: forwarded.in_figures,
        on_page: forwarded.on_page,
        pictures: forwarded.pictures,
        photographs: forwarded.photographs,
        input: forwarded.input,
        input_shape: input_shapes
            .find(|shape| !shape.is_empty())
            .unwrap_or_default(),
        classes,
        truths,
        key,
        maps,
        clock,
        remarks,
        notices,
    };
    for output in drawn.iter().chain(&saved) {
        let said = output.remarks(&results);
        results.remarks.add_all(&said);
    }
    with_one_thread(|| {
        for output in drawn {
            output.write(&results, &mut to)?;
        }
        to.finish_drawing()
    })?;
    let files = group.gather_values(to.files.paths())?;
    files
        .iter()
        .skip(1) // its own are known
        .flatten()
        .for_each(|name| to.files.know(Path::new(name)));
    let left = outputs::left_over(&results, &options.output, &to.files);
    results.remarks.add_all(&left);
    results.clock.lap("drawing");
    for output in saved {
        output.write(&results, &mut to)?;
    }
    results.clock.lap("saving");
    let Some((written, printed)) = to.commit_in(group)? else {
        return Ok(()); // rank 0 says the rest
    };
    commands::report_written(&written, notices);
    if let Some(file) = options.output.cluster_file() {
        notices.note(&cli::next_step(&file, names.named_by.as_deref()));
    }
    notices.detail(|| format!("times: {}", results.clock));
    commands::print_text(&printed, stdout)
}
