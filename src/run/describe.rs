//! What a run chose, for people (`--verbose`), for the summary and for a basis.

use tch::Device;

use crate::arrays::BasisOf;
use crate::hooks::{HookedModel, Layer, Region, Rule, Upsampling};
use crate::map::{FeatureFilter, MapOptions};
use crate::options::{DeviceChoice, Options};
use crate::summary::{LayerSummary, NetworkSummary};

/// The network of a run and its layers.
pub fn network(name: &str, model: &HookedModel, rule: Rule) -> NetworkSummary {
    let (size, layers) = (model.input_size(), model.layers());
    NetworkSummary {
        network: name.to_string(),
        input_size: [size.height, size.width],
        region: {
            let Region { rows, columns, .. } = model.region();
            [rows, columns].map(|range| [range.start, range.end])
        },
        classes: model.classes(),
        device: device_name(model.device()),
        rule: rule.to_string(),
        excitation: layer(&layers, model.excitation_name()),
        guides: used_guides(model)
            .into_iter()
            .map(|name| layer(&layers, name))
            .collect(),
    }
}

/// The names of the guides that the upsampling reads.
fn used_guides(model: &HookedModel) -> Vec<&str> {
    let layers = model.layers();
    let side_of = |name: &str| {
        let [_, height, width] = layer(&layers, name).shape?;
        Some((height, width))
    };
    let excitation = side_of(model.excitation_name());
    let is_finer = |name: &str| match (side_of(name), excitation) {
        (Some((h, w)), Some((height, width))) => h > height || w > width,
        _ => true,
    };
    let mut names = model.guide_names();
    match model.upsampling() {
        Upsampling::Product => {}
        Upsampling::Bilateral => names.retain(|name| is_finer(name)),
        Upsampling::Bilinear | Upsampling::None => names.clear(),
    }
    names
}

/// What a basis of this run belongs to.
pub fn basis_of(network: &str, model: &HookedModel, options: MapOptions) -> BasisOf {
    let excitation = layer(&model.layers(), model.excitation_name());
    BasisOf {
        network: network.to_string(),
        channels: excitation.shape.map_or(0, |[channels, ..]| channels),
        layer: excitation.name,
        upsampling: options.upsampling.to_string(),
        colours: match options.keep {
            None => "every",
            Some(FeatureFilter::Shared) => "common",
            Some(FeatureFilter::Unique) => "unique",
            Some(FeatureFilter::All) => "all",
        }
        .to_string(),
        norm: match options.normalises_last() {
            true => "maps",
            false => "features",
        }
        .to_string(),
    }
}

/// As `--device` takes it.
fn device_name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".to_string(),
    }
}

fn layer(layers: &[Layer], name: &str) -> LayerSummary {
    let found = layers.iter().find(|layer| layer.name == name);
    LayerSummary {
        name: name.to_string(),
        shape: found.map(|layer| layer.shape.into()),
    }
}

/// The choices of a run and their reasons, a line each; `chunk` images are forwarded at once.
pub fn choices(model: &HookedModel, options: &Options, chunk: usize) -> Vec<String> {
    let device = match (model.device(), options.compute.device) {
        (Device::Cpu, DeviceChoice::Auto) => "the CPU, because there is no CUDA device".to_string(),
        (Device::Cpu, _) => "the CPU".to_string(),
        (device, _) => device_name(device),
    };
    let (size, layers) = (model.input_size(), model.layers());
    let chunk_reason = match options.compute.batch_size {
        Some(_) => "as requested".to_string(),
        None => format!(
            "more would not be faster; the largest tensor takes {:.1} MiB for each",
            model.largest_tensor() as f64 / f64::from(1 << 20)
        ),
    };
    let named = |name: &str| match layer(&layers, name).shape {
        Some([c, h, w]) => format!("{name} ({c}x{h}x{w})"),
        None => name.to_string(),
    };
    let layer_reason = match options.model.layer {
        Some(_) => "as requested".to_string(),
        None => format!("selected by the rule '{}'", options.model.rule),
    };
    let guides: Vec<String> = used_guides(model).into_iter().map(named).collect();
    let guides = match guides.as_slice() {
        [] => "none".to_string(),
        guides => guides.join(", "),
    };
    let unoptimised = model.unoptimised().map(|reason| {
        format!("the graph runs unoptimised, because libtorch cannot speed it up ({reason})")
    });
    let choices = [
        format!("device: {device}; {} threads", tch::get_num_threads()),
        format!("images: {size} pixels, {chunk} images at once ({chunk_reason})"),
        format!(
            "excitation: {}, {layer_reason}",
            named(model.excitation_name())
        ),
        format!("guides: {guides}"),
        format!("upsampling: {}", model.upsampling()),
    ];
    choices.into_iter().chain(unoptimised).collect()
}
