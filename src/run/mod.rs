//! A run: images -> batch -> hooked network -> excitations -> features -> maps -> outputs.

mod classes;
mod commands;
mod describe;
mod forward;
mod input;
mod outputs;

use std::io::Write;

use anyhow::Result;

use crate::arrays::read_basis;
use crate::classes::top_classes;
use crate::heap::with_retained_heap;
use crate::map::{Basis, Collector, MapOptions, Maps};
use crate::model::Network;
use crate::notices::{Notices, Stopwatch};
use crate::options::Options;
use crate::spool::{self, Spool};

pub use commands::{print_layers, print_models, print_text, som};

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

    let input = Input::open(&options.input, &options.model, notices)?;
    let mut to = Destination::default();
    outputs::prepare(&options.output, &mut to.files)?;
    let given = classes::read_labels(&options.classes)?;

    let network = Network::load(&options.model, &options.compute, notices)?;
    clock.lap("loading");
    let size = input.size().unwrap_or(network.input_size);
    let hooks = options.hooks();
    let mut model = network.hook(size, &hooks)?;
    let labels = classes::labels_of(&model, &network, given, &options.model)?;
    let saliency = classes::choose_target(&mut model, labels.as_ref(), &hooks, options)?;
    let (name, normalisation) = (network.name, network.normalisation);
    drop(network.graph); // the model has its own copy
    clock.lap("hooking");

    let map_options = MapOptions {
        keep: options.map.filter(),
        extrapolation: (!options.map.no_gradual_extrapolation).then(|| model.extrapolation()),
    };
    let basis_of = describe::basis_of(&name, &model, map_options);
    let basis = options.map.basis.as_deref();
    let basis = basis.map(|file| read_basis(file, &basis_of)).transpose()?;
    let chunk = options
        .compute
        .batch_size
        .unwrap_or_else(|| chunk_size(&model));
    for choice in describe::choices(&model, options, chunk) {
        notices.detail(|| choice);
    }
    let memory = options
        .compute
        .memory
        .unwrap_or_else(spool::share_of_memory);
    let spool = Spool::new(memory, &options.output.folder);
    let forwarding = ForwardOptions {
        model: &model,
        normalisation,
        chunk,
        keep_input: options.output.save_arrays.is_some(),
        spool: &spool,
        notices,
    };
    let forwarded = with_retained_heap(|| forward_all(&input, &forwarding))?;
    clock.laps(&forwarded.times, "decoding");

    let maps = fit(forwarded.collector, map_options, basis, notices)?;
    clock.lap("analysing");

    let classes = top_classes(&maps.logits, labels.as_ref(), options.classes.top as i64)?;
    let mut results = Results {
        network: describe::network(&name, &model, options.model.rule),
        basis_of,
        saliency,
        paths: forwarded.paths,
        pictures: forwarded.pictures,
        input: forwarded.input,
        classes,
        maps,
        clock,
        notices,
    };
    outputs::draw(&options.output, &results, &mut to)?;
    results.clock.lap("drawing");
    outputs::save(&options.output, &results, &mut to)?;
    results.clock.lap("saving");
    let (written, printed) = to.commit()?;
    commands::report_written(&written, notices);
    notices.detail(|| format!("times: {}", results.clock));
    commands::print_text(&printed, stdout)
}

/// Fits the components, unless there is a basis, and makes the maps of all images; notes what
/// limits them.
fn fit(
    collector: Collector,
    options: MapOptions,
    basis: Option<Basis>,
    notices: Notices,
) -> Result<Maps> {
    let spinner = notices.spinner("analysing");
    let maps = collector.finish_with(options, basis)?;
    spinner.finish_and_clear();
    if let Some(note) = maps.note() {
        notices.note(note);
    } else if maps.is_constant() {
        notices.warn("all features are the same in all images, so the map is black");
    }
    let white = maps.not_salient();
    if white > 0 {
        notices.warn(&format!(
            "the class has no saliency in {white} of {} images, so their maps are white",
            maps.len()
        ));
    }
    Ok(maps)
}
