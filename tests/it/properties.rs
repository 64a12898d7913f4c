//! Properties for any data: sets of colours, accumulators, norms, and files that are read back.

use std::collections::BTreeSet;
use std::fs;
use std::io::Cursor;
use std::path::PathBuf;

use prism::Size;
use prism::arrays::{ArrayFormat, ArrayWriter, BasisOf, read_basis, read_input, write_basis};
use prism::internals::{MOST_FEATURES, Row, pickle};
use prism::map::{
    Axes, Basis, COLOURS, COMPONENTS, ColourSet, FeatureFilter, Norm, NormAccumulator,
    PcaAccumulator, colours, quantise, resize, select, svd_flip,
};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use tch::{Kind, Tensor};

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 64,
        // A case that failed becomes a test of its own, not a line in a file.
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_kind(Kind::Double).contiguous().view([-1])).unwrap()
}

/// At most `tolerance` apart, in units of the larger of 1 and the numbers themselves.
fn near(a: f64, b: f64, tolerance: f64) -> bool {
    (a - b).abs() <= tolerance * a.abs().max(b.abs()).max(1.0)
}

// --- colours --------------------------------------------------------------

type Codes = BTreeSet<u32>;

fn some_codes() -> impl Strategy<Value = Codes> {
    btree_set(0..COLOURS, 0..=COLOURS as usize)
}

/// One quantised image `[1,3,1,n]` that has these colours, one per pixel.
fn image_of(codes: &Codes) -> Tensor {
    let level = |code: u32, place: u32| (code / 3u32.pow(place) % 3) as f32 / 2.0;
    let channels: Vec<f32> = [2, 1, 0]
        .iter()
        .flat_map(|&place| codes.iter().map(move |&code| level(code, place)))
        .collect();
    Tensor::from_slice(&channels).reshape([1, 3, 1, codes.len() as i64])
}

fn set_of(codes: &Codes) -> ColourSet {
    match codes.is_empty() {
        true => ColourSet::NONE,
        false => colours(&image_of(codes)).unwrap()[0],
    }
}

fn codes_of(set: ColourSet) -> Codes {
    set.codes().collect()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_set_of_colours_is_a_set(a in some_codes(), b in some_codes(), c in some_codes()) {
        let (x, y, z) = (set_of(&a), set_of(&b), set_of(&c));
        prop_assert_eq!(&codes_of(x), &a);
        prop_assert_eq!(codes_of(x.intersection(y)), &a & &b);
        prop_assert_eq!(codes_of(x.union(y)), &a | &b);
        prop_assert_eq!(x.is_empty(), a.is_empty());
        for code in 0..COLOURS {
            prop_assert_eq!(x.contains(code), a.contains(&code));
        }
        prop_assert_eq!(x == y, a == b);
        // The order of the images does not matter.
        prop_assert_eq!(x.union(y), y.union(x));
        prop_assert_eq!(x.intersection(y), y.intersection(x));
        prop_assert_eq!(x.union(y.union(z)), x.union(y).union(z));
        prop_assert_eq!(x.intersection(y.intersection(z)), x.intersection(y).intersection(z));
        prop_assert_eq!(x.intersection(y.union(z)), x.intersection(y).union(x.intersection(z)));
        prop_assert_eq!(x.union(x.intersection(y)), x);
        prop_assert_eq!(x.union(ColourSet::NONE), x);
        prop_assert_eq!(x.intersection(ColourSet::ALL), x);
    }

    #[test]
    fn colours_of_images_are_shared_by_all_or_some(
        images in vec(btree_set(0..COLOURS, 1..12), 1..9),
    ) {
        let sets: Vec<ColourSet> = images
            .iter()
            .flat_map(|image| prism::map::colours(&image_of(image)).unwrap())
            .collect();
        let common = images.iter().skip(1).fold(images[0].clone(), |all, image| &all & image);
        let any: Codes = images.iter().flatten().copied().collect();
        prop_assert_eq!(codes_of(ColourSet::shared(&sets)), common);
        prop_assert_eq!(codes_of(ColourSet::any(&sets)), any);
    }

    #[test]
    fn shared_and_unique_features_complement_each_other(
        image in btree_set(0..COLOURS, 1..=COLOURS as usize),
        common in some_codes(),
    ) {
        let (picture, common_set) = (image_of(&image), set_of(&common));
        let part = |keep| values(&select(&picture, common_set, keep));
        let (shared, unique, all) = (part(FeatureFilter::Shared), part(FeatureFilter::Unique), part(FeatureFilter::All));
        prop_assert_eq!(&all, &values(&picture));
        for (pixel, code) in image.iter().enumerate() {
            for at in [pixel, pixel + image.len(), pixel + 2 * image.len()] {
                let (kept, other) = match common.contains(code) {
                    true => (&shared, &unique),
                    false => (&unique, &shared),
                };
                prop_assert_eq!((kept[at], other[at]), (all[at], 0.0));
            }
        }
    }

    #[test]
    fn quantising_gives_the_nearest_of_three_levels_and_is_idempotent(
        features in vec(0.0f32..=1.0, 1..40),
    ) {
        let once = quantise(&Tensor::from_slice(&features));
        prop_assert_eq!(&quantise(&once), &once);
        for (found, feature) in values(&once).into_iter().zip(features) {
            prop_assert!([0.0, 0.5, 1.0].contains(&found));
            prop_assert!((found - f64::from(feature)).abs() <= 0.25);
        }
    }
}

// --- accumulators ---------------------------------------------------------

/// Numbers of several magnitudes, which in one of four cases are all the same.
fn some_values() -> impl Strategy<Value = Vec<f32>> {
    let number = || prop_oneof![Just(0.0f32), Just(1.5), -1.0f32..1.0, -1e4f32..1e4];
    let constant = (number(), 1usize..60).prop_map(|(number, count)| vec![number; count]);
    prop_oneof![3 => vec(number(), 1..60), 1 => constant]
}

/// Whether all numbers are the same. (The norm also calls numbers constant that differ in the last
/// bit alone; random numbers practically never do.)
fn are_same(numbers: &[f32]) -> bool {
    numbers.iter().all(|&number| number == numbers[0])
}

/// Cuts `count` things into runs.
fn runs(count: usize, cuts: &[prop::sample::Index]) -> Vec<(usize, usize)> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(count + 1)).collect();
    ends.extend([0, count]);
    ends.sort_unstable();
    ends.windows(2).map(|pair| (pair[0], pair[1])).collect()
}

fn some_cuts() -> impl Strategy<Value = Vec<prop::sample::Index>> {
    vec(any::<prop::sample::Index>(), 0..5)
}

/// `[n,C,1,p]`: excitations with correlated channels, far from 0.
fn some_excitation() -> impl Strategy<Value = Tensor> {
    (1i64..7, 1i64..8, 1i64..5).prop_flat_map(|(images, channels, pixels)| {
        let count = (images * channels * pixels) as usize;
        vec(-3.0f32..3.0, count).prop_map(move |noise| {
            let tensor = Tensor::from_slice(&noise).reshape([images, channels, 1, pixels]);
            tensor.cumsum(1, Kind::Float) + 10.0
        })
    })
}

fn whole_norm(numbers: &[f32]) -> Norm {
    let mut whole = NormAccumulator::default();
    whole.add(&Tensor::from_slice(numbers));
    whole.finish()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_norm_does_not_depend_on_how_its_values_are_split(
        numbers in some_values(),
        cuts in some_cuts(),
    ) {
        let expected = whole_norm(&numbers);
        prop_assert_eq!(expected.is_constant(), are_same(&numbers));
        let (mut added, mut merged) = (NormAccumulator::default(), NormAccumulator::default());
        for (from, to) in runs(numbers.len(), &cuts) {
            let run = Tensor::from_slice(&numbers[from..to]);
            added.add(&run);
            let mut own = NormAccumulator::default();
            own.add(&run);
            // The part that is merged may be the larger one.
            let before = std::mem::replace(&mut merged, own);
            merged.merge(before);
        }
        for found in [added.finish(), merged.finish()] {
            prop_assert_eq!(found.is_constant(), expected.is_constant());
            for (found, expected) in found.values().into_iter().zip(expected.values()) {
                prop_assert!(near(found, expected, 1e-9), "{} {}", found, expected);
            }
        }
    }

    #[test]
    fn a_norm_is_the_formula(numbers in some_values()) {
        let norm = whole_norm(&numbers);
        let wide: Vec<f64> = numbers.iter().map(|&n| n.into()).collect();
        let count = wide.len() as f64;
        let mean = wide.iter().sum::<f64>() / count;
        let squares: f64 = wide.iter().map(|n| (n - mean).powi(2)).sum();
        let found = values(&norm.apply(&Tensor::from_slice(&numbers)));
        prop_assert_eq!(norm.is_constant(), are_same(&numbers));
        if norm.is_constant() {
            prop_assert!(found.iter().all(|&value| value == 0.0));
            return Ok(());
        }
        let std = (squares / (count - 1.0)).sqrt();
        let cut: Vec<f64> = wide.iter().map(|n| ((n - mean) / std).clamp(-1.0, 1.0)).collect();
        let low = cut.iter().copied().fold(f64::INFINITY, f64::min);
        let high = cut.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        for (found, cut) in found.into_iter().zip(cut) {
            prop_assert!(near(found, (cut - low) / (high - low), 1e-5));
        }
    }

    #[test]
    fn a_norm_reaches_from_0_to_1_and_preserves_the_order(numbers in some_values()) {
        let norm = whole_norm(&numbers);
        let found = values(&norm.apply(&Tensor::from_slice(&numbers)));
        prop_assert!(found.iter().all(|value| (0.0..=1.0).contains(value)));
        prop_assert_eq!(found.contains(&1.0), !are_same(&numbers));
        prop_assert!(found.contains(&0.0));
        for (a, x) in numbers.iter().zip(&found) {
            for (b, y) in numbers.iter().zip(&found) {
                prop_assert!(a > b || x <= y, "{} {} {} {}", a, b, x, y);
            }
        }
        let again = Norm::from_values(norm.values());
        let again = again.map(|norm| values(&norm.apply(&Tensor::from_slice(&numbers))));
        prop_assert_eq!(again, Some(found));
    }

    #[test]
    fn components_do_not_depend_on_how_the_images_are_split(
        excitation in some_excitation(),
        cuts in some_cuts(),
    ) {
        let channels = excitation.size()[1];
        let mut whole = PcaAccumulator::new(channels);
        whole.add(&excitation).unwrap();
        let expected = whole.finish().unwrap();
        let (mut added, mut merged) = (PcaAccumulator::new(channels), PcaAccumulator::new(channels));
        for (from, to) in runs(excitation.size()[0] as usize, &cuts) {
            if from == to {
                continue; // an excitation is of at least one image
            }
            let run = excitation.narrow(0, from as i64, (to - from) as i64);
            added.add(&run).unwrap();
            let mut own = PcaAccumulator::new(channels);
            own.add(&run).unwrap();
            let before = std::mem::replace(&mut merged, own);
            merged.merge(before).unwrap();
        }
        for found in [added.finish().unwrap(), merged.finish().unwrap()] {
            prop_assert_eq!(found.variance_ratio.len(), expected.variance_ratio.len());
            for (found, expected) in found.variance_ratio.iter().zip(&expected.variance_ratio) {
                prop_assert!(near(*found, *expected, 1e-6));
            }
            for (found, expected) in values(&found.axes.mean).into_iter().zip(values(&expected.axes.mean)) {
                prop_assert!(near(found, expected, 1e-6));
            }
            // Components of equal variance are not unique, so their properties are checked:
            // they are orthogonal and explain that share of the variance.
            let components = &found.axes.components;
            let angles = values(&components.matmul(&components.tr()));
            for (at, angle) in angles.into_iter().enumerate() {
                let (row, column) = (at / COMPONENTS as usize, at % COMPONENTS as usize);
                let exists = found.variance_ratio.get(row).is_some_and(|&ratio| ratio > 1e-9);
                if row != column {
                    prop_assert!(angle.abs() < 1e-6, "{}", angle);
                } else if exists {
                    prop_assert!(near(angle, 1.0, 1e-6), "{}", angle);
                }
            }
            let mut again = PcaAccumulator::new(channels);
            again.add(&excitation).unwrap();
            let along = again.variance_along(&found.axes).unwrap();
            for (along, ratio) in along.into_iter().zip(&expected.variance_ratio) {
                prop_assert!(near(along, *ratio, 1e-6), "{} {}", along, ratio);
            }
        }
    }

    #[test]
    fn svd_flip_makes_the_sign_of_an_axis_irrelevant(
        noise in vec(-9.0f32..9.0, 24),
        flips in vec(prop_oneof![Just(1.0f32), Just(-1.0)], 3),
    ) {
        let scores = Tensor::from_slice(&noise).reshape([2, 3, 2, 2]);
        let flipped = &scores * Tensor::from_slice(&flips).reshape([1, 3, 1, 1]);
        let fixed = |scores: &Tensor| scores * svd_flip(scores).reshape([1, 3, 1, 1]);
        prop_assert_eq!(values(&fixed(&scores)), values(&fixed(&flipped)));
        // The score of largest magnitude of each component is positive.
        for component in 0..3 {
            let fixed = values(&fixed(&flipped).select(1, component));
            let extreme = fixed.iter().copied().max_by(|a, b| a.abs().total_cmp(&b.abs()));
            prop_assert!(extreme.is_some_and(|extreme| extreme >= 0.0));
        }
    }

    #[test]
    fn resizing_is_bilinear_without_antialiasing(
        (height, width, noise) in (1usize..7, 1usize..7).prop_flat_map(|(height, width)| {
            (Just(height), Just(width), vec(-5.0f32..5.0, height * width))
        }),
        to in (1usize..15, 1usize..15),
    ) {
        let features = Tensor::from_slice(&noise).reshape([1, 1, height as i64, width as i64]);
        let found = resize(&features, Size::new(to.0 as i64, to.1 as i64));
        prop_assert_eq!(found.size(), [1, 1, to.0 as i64, to.1 as i64]);
        let found = values(&found);
        // The place of each new pixel centre between the old ones; the border pixels continue
        // outside.
        let place = |at: usize, new: usize, old: usize| {
            let middle = ((at as f64 + 0.5) * old as f64 / new as f64 - 0.5).max(0.0);
            let before = (middle.floor() as usize).min(old - 1);
            (before, (before + 1).min(old - 1), middle - before as f64)
        };
        for row in 0..to.0 {
            let (above, below, down) = place(row, to.0, height);
            for column in 0..to.1 {
                let (left, right, along) = place(column, to.1, width);
                let old = |row: usize, column: usize| f64::from(noise[row * width + column]);
                let mix = |row| old(row, left) * (1.0 - along) + old(row, right) * along;
                let expected = mix(above) * (1.0 - down) + mix(below) * down;
                prop_assert!(near(found[row * to.1 + column], expected, 1e-5));
            }
        }
    }
}

// --- files ----------------------------------------------------------------

fn some_rows() -> impl Strategy<Value = Vec<Row>> {
    (1..=MOST_FEATURES).prop_flat_map(|count| {
        let row = (
            any::<String>(),
            0..=pickle::LARGEST_CLASS,
            vec(any::<bool>(), count),
            proptest::option::of(0..=pickle::LARGEST_CLASS),
        );
        let row = row.prop_map(|(path, class, features, truth)| Row {
            path,
            class,
            features,
            truth,
        });
        vec(row, 1..20)
    })
}

fn read_rows(bytes: &[u8]) -> anyhow::Result<Vec<Row>> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), bytes)?;
    pickle::read(file.path())
}

/// A shape of images, and their values.
fn some_input() -> impl Strategy<Value = ([usize; 4], Vec<f32>)> {
    (1usize..4, 1usize..6, 1usize..6).prop_flat_map(|(images, height, width)| {
        let shape = [images, 3, height, width];
        let number = any::<f32>().prop_filter("finite", |number| number.is_finite());
        (Just(shape), vec(number, shape.iter().product::<usize>()))
    })
}

fn some_norm() -> impl Strategy<Value = Norm> {
    some_values().prop_map(|numbers| whole_norm(&numbers))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn written_clusters_are_read_back(rows in some_rows()) {
        let mut bytes = Vec::new();
        pickle::write(&rows, &mut bytes).unwrap();
        prop_assert_eq!(read_rows(&bytes).unwrap(), rows);
    }

    #[test]
    fn written_arrays_are_read_back(
        (shape, numbers) in some_input(),
        cuts in some_cuts(),
        others in vec(0usize..5, 0..3),
    ) {
        let folder = tempfile::tempdir().unwrap();
        for (format, name) in [(ArrayFormat::Npz, "a.npz"), (ArrayFormat::Safetensors, "a.Safetensors")] {
            let layout = [
                ("before".to_string(), others.clone()),
                ("input".to_string(), shape.to_vec()),
            ];
            let files = [PathBuf::from("cat.jpg")];
            let sink = Cursor::new(Vec::new());
            let mut writer = ArrayWriter::create(sink, format, &layout, &files).unwrap();
            let count = others.iter().product();
            writer.array("before").unwrap().write(&vec![1.0; count]).unwrap();
            let input = writer.array("input").unwrap();
            for (from, to) in runs(numbers.len(), &cuts) {
                input.write(&numbers[from..to]).unwrap();
            }
            let bytes = writer.finish().unwrap().into_inner();
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            let read = read_input(&path).unwrap();
            prop_assert_eq!(read.shape(), shape);
            let same = read.iter().zip(&numbers).all(|(a, b)| a.to_bits() == b.to_bits());
            prop_assert!(same, "{}", name);
        }
    }

    #[test]
    fn a_written_basis_is_read_back(
        (mean, components) in (1usize..9).prop_flat_map(|channels| {
            (vec(-1e3f64..1e3, channels), vec(-1.0f64..1.0, channels * COMPONENTS as usize))
        }),
        [features, maps] in [some_norm(), some_norm()],
        network in "\\PC{0,12}",
    ) {
        let channels = mean.len() as i64;
        let of = BasisOf {
            network,
            layer: "features.10".into(),
            channels,
            upsampling: "bilateral".into(),
            colours: "every".into(),
            norm: "features".into(),
        };
        let basis = Basis {
            axes: Axes {
                mean: Tensor::from_slice(&mean),
                components: Tensor::from_slice(&components).reshape([COMPONENTS, channels]),
            },
            features,
            maps,
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("basis.safetensors");
        fs::write(&path, write_basis(&basis, &of).unwrap()).unwrap();
        let read = read_basis(&path, &of).unwrap();
        prop_assert_eq!(values(&read.axes.mean), mean);
        prop_assert_eq!(values(&read.axes.components), components);
        prop_assert_eq!(read.axes.components.size(), [COMPONENTS, channels]);
        for (found, expected) in [(read.features, features), (read.maps, maps)] {
            prop_assert_eq!(found.values(), expected.values());
        }
        let another = BasisOf { layer: "features.5".into(), ..of };
        prop_assert!(read_basis(&path, &another).is_err());
    }
}
