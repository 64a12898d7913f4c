//! Images per second on a GPU, of the bare forward pass and of hooked passes: a line of JSON for
//! each batch size.
//!
//! `cargo run --release --example gpu_speed -- NETWORK WEIGHTS PRECISION IMAGES...`
//!
//! The images of a batch come from the processor's memory, batch after batch, unless it is said
//! otherwise. The results of a hooked pass end in the processor's memory.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::ValueEnum;
use prism::hooks::{HookedModel, Precision};
use prism::internals::Spool;
use prism::map::{Collector, MapOptions, Reduced};
use prism::model::{ComputeOptions, ModelOptions, Network, Notices};
use tch::{Device, Tensor};

/// Each measurement takes this long, after a third of it to warm up.
const LENGTH: Duration = Duration::from_millis(600);

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [name, weights, precision, batches @ ..] = words.as_slice() else {
        bail!("gpu_speed NETWORK WEIGHTS PRECISION IMAGES...");
    };
    let precision = Precision::from_str(precision, false).map_err(anyhow::Error::msg)?;
    let options = ModelOptions {
        model: name.into(),
        weights: Some(weights.into()),
        ..ModelOptions::default()
    };
    let compute = ComputeOptions {
        precision,
        ..ComputeOptions::default()
    };
    let network = Network::load(&options, &compute, Notices::Quiet)?;
    let size = network.input_size();
    let bare = network.graph.bare_forward(size, precision)?;
    let hooked = network.hook(size, &options.hooks(&compute))?;
    for batch in batches {
        let images: i64 = batch.parse()?;
        let here = Tensor::rand([images, 3, size.height, size.width], tch::kind::FLOAT_CPU);
        let there = here.to_device(hooked.device());
        let scores = |batch: &Tensor| -> Result<()> {
            let _scores = bare(batch)?.f_to_device(Device::Cpu)?;
            Ok(())
        };
        let rates = [
            (
                "bare, images on the device",
                rate(images, || scores(&there))?,
            ),
            ("bare", rate(images, || scores(&here))?),
            (
                "bare, pinned",
                rate(images, || scores(&hooked.staged(&here)))?,
            ),
            ("hooked", hooked_rate(&hooked, &here, false)?),
            ("hooked and stored", hooked_rate(&hooked, &here, true)?),
        ];
        let fields = rates.map(|(label, rate)| format!("\"{label}\": {rate:.1}"));
        println!("{{\"batch\": {images}, {}}}", fields.join(", "));
    }
    Ok(())
}

fn rate(images: i64, mut pass: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut run = |length: Duration| -> Result<f64> {
        let (begin, mut passes) = (Instant::now(), 0i64);
        while passes < 3 || begin.elapsed() < length {
            pass()?;
            passes += 1;
        }
        Ok((passes * images) as f64 / begin.elapsed().as_secs_f64())
    };
    run(LENGTH / 3)?;
    run(LENGTH)
}

/// As a run of the program does it, with or without the storing of the results.
fn hooked_rate(hooked: &HookedModel, batch: &Tensor, store: bool) -> Result<f64> {
    let spool = Spool::new(16 << 30, &std::env::temp_dir());
    let mut collector = Collector::with_spool(MapOptions::of(hooked, None), &spool);
    let mut before: Option<Reduced> = None;
    let images = batch.size()[0];
    rate(images, || {
        let staged = hooked.staged(batch);
        let done = before.take();
        if let Some(done) = &done {
            done.wait()?;
        }
        before = Some(collector.reduce(hooked.forward(&staged)?)?);
        match done {
            Some(done) if store => collector.store(done),
            _ => Ok(()),
        }
    })
}
