//! What the bare forward pass of a network costs, optimised as prism runs it but
//! without hooks: seconds per image, and with hooks in a second column.
//!
//! `cargo run --release --example forward -- NETWORK WEIGHTS [IMAGES [bf16]]`

use std::time::Instant;

use anyhow::{Context, Result};
use prism::hooks::{Classifier, Execution};
use prism::internals::with_retained_heap;
use prism::model::{ModelOptions, Network, Notices};
use tch::Tensor;

const RUNS: usize = 9;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [name, weights, rest @ ..] = words.as_slice() else {
        anyhow::bail!("forward NETWORK WEIGHTS [IMAGES [bf16]]");
    };
    let images: i64 = rest.first().map_or(Ok(4), |count| count.parse())?;
    let execution: Execution = rest.get(1).map_or("f32", String::as_str).parse()?;
    let mut options = ModelOptions {
        model: name.into(),
        weights: Some(weights.into()),
        ..ModelOptions::default()
    };
    options.hooks.execution = execution;
    let network = Network::load(&options, Notices::Quiet)?;
    let size = network.input_size;
    let bare = Classifier::new(&network.graph, size, execution)?;
    let hooked = network.hook(size, &options)?;
    let batch = Tensor::rand([images, 3, size.0, size.1], tch::kind::FLOAT_CPU);
    let mut seconds = [Vec::new(), Vec::new()];
    with_retained_heap(|| -> Result<()> {
        for _ in 0..RUNS {
            let begin = Instant::now();
            let _scores = bare.forward(&batch)?;
            seconds[0].push(begin.elapsed().as_secs_f64() / images as f64);
            let begin = Instant::now();
            hooked.forward(&batch)?;
            seconds[1].push(begin.elapsed().as_secs_f64() / images as f64);
        }
        Ok(())
    })?;
    let median = |seconds: &mut Vec<f64>| -> Result<f64> {
        seconds.sort_by(f64::total_cmp);
        seconds.get(RUNS / 2).copied().context("no run")
    };
    println!("{:.6}", median(&mut seconds[0])?);
    eprintln!("with hooks {:.6}", median(&mut seconds[1])?);
    Ok(())
}
