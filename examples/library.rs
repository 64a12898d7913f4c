//! Hooks on a network, maps of two photographs, and a figure:
//! `cargo run --release --example library`.

use std::path::Path;

use prism::figure::{COLUMNS, Column, FigureFormat, MapFigure, Panel, Scaling, draw_maps};
use prism::hooks::Hooks;
use prism::images;
use prism::images::to_batch;
use prism::labels::{Labels, top_classes};
use prism::map::{Collector, MapOptions, to_picture};
use prism::model::{ComputeOptions, ModelOptions, Network, Notices};
use prism::scores::ScoreRange;

fn main() -> anyhow::Result<()> {
    // A network by name, or "./my_network.pt": any TorchScript file.
    let options = ModelOptions {
        model: "efficientnet_lite0".into(),
        ..ModelOptions::default()
    };
    let network = Network::load(&options, &ComputeOptions::default(), Notices::Normal)?;
    let model = network.hook(network.input_size(), &Hooks::default())?;
    println!(
        "{} guided by {:?}",
        model.excitation_name(),
        model.guide_names()
    );

    let size = model.input_size();
    let pictures = ["samples/dog.jpg", "samples/cat.jpg"]
        .iter()
        .map(|file| images::resize(&images::decode(Path::new(file), images::MAX_PIXELS)?, size))
        .collect::<anyhow::Result<Vec<_>>>()?;

    // As many batches as you like: the maps are of all of them together.
    let mut collector = Collector::new(MapOptions::of(&model, None));
    collector.add(model.forward(&to_batch(&pictures, &network.normalisation())?)?)?;
    let maps = collector.finish()?;

    let logits = maps.logits(0..maps.len())?;
    let reading = model.evidence().read(&ScoreRange::of(&logits));
    let top = top_classes(&logits, reading.kind, Some(&Labels::imagenet()), 3)?;
    let mut figure = MapFigure::default();
    for (index, (picture, top)) in pictures.into_iter().zip(&top).enumerate() {
        let map = to_picture(&maps.map(index..index + 1)?.get(0))?;
        figure.columns.push(Column {
            title: top.iter().map(ToString::to_string).collect(),
            panels: [picture, map]
                .map(|image| Panel::new(image, Scaling::Smooth))
                .into(),
            ..Column::default()
        });
    }
    let file = "results/library.png";
    std::fs::create_dir_all("results")?;
    std::fs::write(file, draw_maps(&figure, COLUMNS, FigureFormat::Png)?)?;
    println!("wrote {file}");
    Ok(())
}
