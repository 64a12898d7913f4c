//! Each stage of a run by itself, at the sizes of EfficientNet-Lite0 and ResNet-50:
//! `cargo bench --bench stages` (after `make weights`).

use std::hint::black_box;
use std::path::Path;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use image::RgbImage;
use prism::Size;
use prism::figure::{
    About, COLUMNS, Column, FigureFormat, MapFigure, Palette, Panel, Scaling, draw_maps,
    draw_variance,
};
use prism::hooks::{Hooks, Precision};
use prism::images;
use prism::images::{Normalisation, to_batch};
use prism::map::{Bilateral, PcaAccumulator, gradual_extrapolation, stored, to_picture};
use prism::model::{ComputeOptions, ModelOptions, Network, Notices};
use tch::Tensor;

/// Images forwarded at once.
const BATCH: usize = 8;
const SIDE: i64 = 224;

fn rand(size: &[i64]) -> Tensor {
    Tensor::rand(size, tch::kind::FLOAT_CPU)
}

fn reading(c: &mut Criterion) {
    let photo = Path::new("samples/dog.jpg");
    c.bench_function("decode a JPEG", |b| {
        b.iter(|| images::decode(black_box(photo), images::MAX_PIXELS).unwrap());
    });
    let picture = images::decode(photo, images::MAX_PIXELS).unwrap();
    c.bench_function("resize it to 224", |b| {
        b.iter(|| images::resize(&picture, Size::new(SIDE, SIDE)).unwrap());
    });
    let batch = vec![images::resize(&picture, Size::new(SIDE, SIDE)).unwrap(); BATCH];
    let normalisation = Normalisation::default();
    c.bench_function("make a batch of 8", |b| {
        b.iter(|| to_batch(&batch, &normalisation).unwrap());
    });
}

fn forward(c: &mut Criterion) {
    let options = ModelOptions {
        model: "efficientnet_lite0".into(),
        offline: true,
        ..ModelOptions::default()
    };
    let load = || {
        Network::load(&options, &ComputeOptions::default(), Notices::Quiet)
            .expect("run `make weights`")
    };
    c.bench_function("load EfficientNet-Lite0", |b| b.iter(load));
    let network = load();
    let size = network.input_size();
    c.bench_function("hook it", |b| {
        b.iter(|| network.hook(size, &Hooks::default()).unwrap());
    });
    let bare = network.graph.bare_forward(size, Precision::F32).unwrap();
    let hooked = network.hook(size, &Hooks::default()).unwrap();
    let batch = rand(&[BATCH as i64, 3, size.height, size.width]);
    let mut group = c.benchmark_group("forward 8 images");
    group.sample_size(20);
    group.bench_function("bare", |b| b.iter(|| bare(&batch).unwrap()));
    group.bench_function("hooked", |b| b.iter(|| hooked.forward(&batch).unwrap()));
    group.finish();
}

fn features(c: &mut Criterion) {
    let mut group = c.benchmark_group("components");
    group.sample_size(10);
    for channels in [1280, 2048] {
        let excitation = rand(&[BATCH as i64, channels, 7, 7]);
        // more rows than channels, so that it has moments
        let filled = || {
            let mut pca = PcaAccumulator::new(channels);
            for _ in 0..6 {
                pca.add(&excitation).unwrap();
            }
            pca
        };
        group.bench_function(format!("add 8 images of {channels} channels"), |b| {
            b.iter_batched_ref(
                filled,
                |pca| pca.add(&excitation).unwrap(),
                BatchSize::LargeInput,
            );
        });
        group.bench_function(format!("decompose {channels} channels"), |b| {
            b.iter_batched(filled, |pca| pca.finish().unwrap(), BatchSize::LargeInput);
        });
    }
    group.finish();
}

fn maps(c: &mut Criterion) {
    let colours = rand(&[1, 3, 7, 7]);
    let guides: Vec<Tensor> = [(112, 2), (56, 2), (28, 2), (14, 3), (7, 3)]
        .into_iter()
        .flat_map(|(side, count)| {
            (0..count).map(move |_| stored(&rand(&[1, 16, side, side])).unwrap())
        })
        .collect();
    let size = Size::new(SIDE, SIDE);
    c.bench_function("upsample an image bilaterally", |b| {
        let sizes = guides.iter().map(Size::of);
        let way = Bilateral::new(Size::of(&colours), sizes, size).unwrap();
        b.iter(|| way.upsample(&colours, &guides).unwrap());
    });
    let means: Vec<Tensor> = [224, 112, 56, 28, 14]
        .map(|side| rand(&[1, 1, side, side]))
        .into();
    c.bench_function("upsample an image by products", |b| {
        b.iter(|| gradual_extrapolation(&colours, &means));
    });
}

fn figures(c: &mut Criterion) {
    let map = to_picture(&rand(&[3, 224, 224])).unwrap();
    let panel = |image: &RgbImage| Panel::new(image.clone(), Scaling::Smooth);
    let photo = images::decode(Path::new("samples/dog.jpg"), images::MAX_PIXELS).unwrap();
    let photo = images::resize(&photo, Size::new(448, 448)).unwrap();
    let column = Column {
        title: ["German_shepherd: 0.97", "malinois: 0.02", "kelpie: 0.00"]
            .map(String::from)
            .into(),
        panels: vec![panel(&photo), panel(&map)],
        ..Column::default()
    };
    let figure = MapFigure {
        columns: vec![column; 4],
        ..MapFigure::default()
    };
    let ratios: Vec<f64> = (0..1280).map(|k| 1.0 / f64::from(k + 8)).collect();
    let mut group = c.benchmark_group("draw and encode");
    group.sample_size(10);
    group.bench_function("maps of 4 images", |b| {
        b.iter(|| draw_maps(&figure, COLUMNS, FigureFormat::Jpg).unwrap());
    });
    group.bench_function("variances", |b| {
        b.iter(|| {
            draw_variance(&ratios, Palette::Rgb, &About::default(), FigureFormat::Jpg).unwrap()
        });
    });
    group.finish();
}

criterion_group!(stages, reading, forward, features, maps, figures);
criterion_main!(stages);
