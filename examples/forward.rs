//! What the bare forward pass of a network costs, optimised as prism runs it but
//! without hooks: seconds per image, and with hooks in a second column.
//!
//! `cargo run --release --example forward -- NETWORK WEIGHTS [IMAGES [bf16]]`

use std::time::Instant;

use anyhow::{Context, Result};
use clap::ValueEnum;
use prism::hooks::Precision;
use prism::internals::with_retained_heap;
use prism::model::{ComputeOptions, ModelOptions, Network, Notices};
use tch::Tensor;

const RUNS: usize = 9;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [name, weights, rest @ ..] = words.as_slice() else {
        anyhow::bail!("forward NETWORK WEIGHTS [IMAGES [bf16]]");
    };
    let images: i64 = rest.first().map_or(Ok(4), |count| count.parse())?;
    let precision = rest.get(1).map_or("f32", String::as_str);
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
    let batch = Tensor::rand([images, 3, size.height, size.width], tch::kind::FLOAT_CPU);
    let mut seconds = [Vec::new(), Vec::new()];
    with_retained_heap(|| -> Result<()> {
        for _ in 0..RUNS {
            let begin = Instant::now();
            let _scores = bare(&batch)?;
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
