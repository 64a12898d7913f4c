//! The mathematics of a map against values of NumPy and of explicit formulas
//! (tests/reference/make_expected.py): PCA, norm, resize, gradual extrapolation and bilateral
//! upsampling; and streamed or merged accumulators against the same values.

use std::fs;

use crate::common::{assert_near, data, largest_difference};
use prism::Size;
use prism::hooks::{Excitations, Upsampling};
use prism::map::{
    Bilateral, COMPONENTS, Collector, FeatureFilter, MapOptions, Norm, NormAccumulator, Pca,
    PcaAccumulator, gradual_extrapolation, resize, stored, svd_flip,
};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

type Rows = Vec<Vec<f64>>;

fn expected(key: &str) -> Value {
    let text = fs::read_to_string(data("expected/units.json")).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()[key].clone()
}

fn numbers(value: &Value) -> Vec<f64> {
    serde_json::from_value(value.clone()).unwrap()
}

fn rows(value: &Value) -> Rows {
    serde_json::from_value(value.clone()).unwrap()
}

/// `[h][w]` as `[1,1,h,w]` float32.
fn plane(rows: &[Vec<f64>]) -> Tensor {
    floats(&rows.concat()).reshape([1, 1, rows.len() as i64, rows[0].len() as i64])
}

fn floats(values: &[f64]) -> Tensor {
    Tensor::from_slice(values).to_kind(tch::Kind::Float)
}

/// Rows `[m][C]` as an excitation `[m,C,1,1]`.
fn excitation(rows: &[Vec<f64>]) -> Tensor {
    floats(&rows.concat()).reshape([rows.len() as i64, rows[0].len() as i64, 1, 1])
}

/// The rows with zeros appended to each: more channels, the same scores.
fn widened(rows: &Rows, channels: usize) -> Rows {
    let mut rows = rows.clone();
    rows.iter_mut().for_each(|row| row.resize(channels, 0.0));
    rows
}

/// Scores with the signs of `svd_flip`.
fn with_sign(scores: &Tensor) -> Tensor {
    scores * svd_flip(scores).reshape([1, -1, 1, 1])
}

fn accumulated(rows: &[Vec<f64>]) -> PcaAccumulator {
    let mut pca = PcaAccumulator::new(rows[0].len() as i64);
    pca.add(&excitation(rows)).unwrap();
    pca
}

/// Scores `[m][3]` of a fitted basis, signs fixed.
fn scores(pca: &Pca, rows: &[Vec<f64>]) -> Tensor {
    with_sign(&pca.axes.project(&excitation(rows))).reshape([-1, COMPONENTS])
}

fn assert_scores(found: &Tensor, expected: &[Vec<f64>], what: &str) {
    let expected = floats(&expected.concat()).reshape([-1, COMPONENTS]);
    assert_near(found, &expected, 2e-5, what);
}

/// `expected` is continued by zeros for the components that widening added.
fn assert_ratio(found: &[f64], expected: &[f64], count: usize, what: &str) {
    assert_eq!(found.len(), count, "{what}: number of components");
    for (k, found) in found.iter().enumerate() {
        let expected = expected.get(k).copied().unwrap_or(0.0);
        let off = (found - expected).abs();
        assert!(off < 1e-7, "{what}: ratio {k} is {found}, not {expected}");
    }
}

fn normed(values: &Tensor) -> (Norm, Tensor) {
    let mut accumulator = NormAccumulator::default();
    accumulator.add(values);
    let norm = accumulator.finish();
    let result = norm.apply(values);
    (norm, result)
}

fn is_zero(tensor: &Tensor) -> bool {
    tensor.abs().max().double_value(&[]) == 0.0
}

#[test]
fn scores_and_variance_ratios_equal_those_of_numpy() {
    for key in ["pca", "pca_two_columns"] {
        let case = expected(key);
        let rows = rows(&case["rows"]);
        let pca = accumulated(&rows).finish().unwrap();
        let count = rows.len().min(rows[0].len());
        let ratio = numbers(&case["variance_ratio"]);
        assert_ratio(&pca.variance_ratio, &ratio, count, key);
        assert_scores(&scores(&pca, &rows), &self::rows(&case["scores"]), key);
    }
}

#[test]
fn every_pixel_of_every_image_is_a_row() {
    let case = expected("pca");
    let rows = rows(&case["rows"]);
    // [m,C] as two images of 2x3 pixels
    let images = excitation(&rows)
        .reshape([2, 2, 3, 4])
        .permute([0, 3, 1, 2]);
    let mut pca = PcaAccumulator::new(4);
    pca.add(&images).unwrap();
    let scores = with_sign(&pca.finish().unwrap().axes.project(&images));
    assert_eq!(scores.size(), [2, 3, 2, 3]);
    let as_rows = scores.permute([0, 2, 3, 1]).reshape([-1, COMPONENTS]);
    assert_scores(&as_rows, &self::rows(&case["scores"]), "2x3 pixels");
}

#[test]
fn fewer_than_three_components_give_zeros() {
    let case = expected("pca_two_rows_either_sign");
    let rows = rows(&case["rows"]);
    let pca = accumulated(&rows).finish().unwrap();
    let ratio = numbers(&case["variance_ratio"]);
    assert_ratio(&pca.variance_ratio, &ratio, 2, "two rows");
    // Both rows are equally far from their mean, so either may be positive.
    let found = scores(&pca, &rows).abs();
    let expected: Rows = self::rows(&case["scores"])
        .iter()
        .map(|row| row.iter().map(|score| score.abs()).collect())
        .collect();
    assert_scores(&found, &expected, "two rows");

    // One row, and one channel.
    let pca = accumulated(&[vec![3.0, -1.0, 2.0]]).finish().unwrap();
    assert_eq!(pca.variance_ratio, [0.0]);
    assert!(is_zero(&scores(&pca, &[vec![3.0, -1.0, 2.0]])));
    let column = [vec![1.0], vec![2.0], vec![6.0]];
    let pca = accumulated(&column).finish().unwrap();
    assert_eq!(pca.variance_ratio, [1.0]);
    let expected = [[-2.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [3.0, 0.0, 0.0]].map(Vec::from);
    assert_scores(&scores(&pca, &column), &expected, "one channel");
}

#[test]
fn the_score_of_largest_magnitude_is_positive() {
    let scores = floats(&[1.0, -3.0, 2.0, -1.0, 0.0, 0.0]).reshape([2, 3, 1, 1]);
    let signed = with_sign(&scores).reshape([2, 3]);
    let expected = floats(&[1.0, 3.0, 2.0, -1.0, 0.0, 0.0]).reshape([2, 3]);
    assert_eq!(largest_difference(&signed, &expected), 0.0);
    let flipped = with_sign(&-scores).reshape([2, 3]);
    assert_eq!(largest_difference(&flipped, &expected), 0.0);
}

#[test]
fn constant_excitations_have_no_variance_and_no_scores() {
    let case = expected("pca_constant");
    let rows = rows(&case["rows"]);
    let pca = accumulated(&rows).finish().unwrap();
    let ratio = numbers(&case["variance_ratio"]);
    assert_ratio(&pca.variance_ratio, &ratio, 3, "constant");
    assert!(is_zero(&scores(&pca, &rows)));
}

/// If the mean of the numbers is not exact, rounding noise must not count as a component.
#[test]
fn constant_excitations_are_constant_whatever_the_numbers() {
    for count in [3, 10, 49, 147, 1001] {
        for channels in [2, 3, 8, 64, 2048] {
            if count > 147 && channels > 64 {
                continue;
            }
            let row: Vec<f64> = (0..channels)
                .map(|c| 0.1 + 0.7 * (c as f64).sin())
                .collect();
            let rows = vec![row; count];
            for first in [1, count / 2, count] {
                let mut pca = accumulated(&rows[..first]);
                if first < count {
                    pca.merge(accumulated(&rows[first..])).unwrap();
                }
                let pca = pca.finish().unwrap();
                let what = format!("{count} rows of {channels}, {first} first");
                assert!(pca.variance_ratio.iter().all(|&r| r == 0.0), "{what}");
                let (norm, _) = normed(&pca.axes.project(&excitation(&rows)));
                assert!(norm.is_constant(), "{what}");
            }
        }
    }
}

/// The PCA of `rows` in the parts between `cuts`, which are merged or added to one accumulator.
fn in_parts(rows: &Rows, cuts: &[usize], merges: bool) -> Pca {
    let mut whole = PcaAccumulator::new(rows[0].len() as i64);
    let mut start = 0;
    for &end in cuts.iter().chain([&rows.len()]) {
        let part = &rows[start..end];
        match merges {
            true => whole.merge(accumulated(part)).unwrap(),
            false => whole.add(&excitation(part)).unwrap(),
        }
        start = end;
    }
    whole.finish().unwrap()
}

/// An accumulator of few channels holds moments, one of many channels holds the rows; in between
/// there are parts of both kinds.
#[test]
fn any_split_of_the_rows_gives_the_same_components() {
    let case = expected("pca");
    let narrow = rows(&case["rows"]);
    let ratio = numbers(&case["variance_ratio"]);
    let expected = rows(&case["scores"]);
    let all = narrow.len();
    for channels in [4, 6, 8, 11, 12, 13, 24] {
        let rows = widened(&narrow, channels);
        let mut splits = vec![vec![], vec![4, 8], vec![1, 2, 11], (1..all).collect()];
        splits.extend((1..all).map(|cut| vec![cut]));
        for cuts in splits {
            for merges in [true, false] {
                let pca = in_parts(&rows, &cuts, merges);
                let what = format!("{channels} channels, merged: {merges}, at {cuts:?}");
                assert_ratio(&pca.variance_ratio, &ratio, all.min(channels), &what);
                assert_scores(&scores(&pca, &rows), &expected, &what);
            }
        }
    }
}

/// If the mean is large, the scatter must not be a difference of two large numbers.
#[test]
fn a_large_mean_costs_no_precision() {
    let case = expected("pca");
    let mut rows = rows(&case["rows"]);
    for row in &mut rows {
        // exact in float32: hundredths become multiples of 1/64 below 2^17
        row.iter_mut()
            .for_each(|value| *value = (*value * 64.0).round() / 64.0);
    }
    let near = accumulated(&rows).finish().unwrap();
    let far: Rows = rows
        .iter()
        .map(|row| row.iter().map(|value| value + 65536.0).collect())
        .collect();
    for cuts in [&[][..], &[5], &[1, 7]] {
        let pca = in_parts(&far, cuts, true);
        assert_ratio(&pca.variance_ratio, &near.variance_ratio, 4, "far away");
        assert_near(&scores(&pca, &far), &scores(&near, &rows), 2e-5, "scores");
    }
}

#[test]
fn excitations_that_are_not_finite_are_an_error() {
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        for channels in [2, 16] {
            let mut rows = vec![vec![0.5; channels]; 4];
            rows[2][1] = bad;
            let error = PcaAccumulator::new(channels as i64)
                .add(&excitation(&rows))
                .unwrap_err();
            let line = format!("{error:#}");
            assert!(line.contains("not finite"), "{line}");
            assert_eq!(line.lines().count(), 1);
        }
    }
    // Two infinities that cancel in a sum.
    let rows = [vec![f64::INFINITY, 1.0], vec![f64::NEG_INFINITY, 1.0]];
    assert!(PcaAccumulator::new(2).add(&excitation(&rows)).is_err());
}

/// Maps by products.
fn product(keep: Option<FeatureFilter>) -> MapOptions {
    MapOptions {
        keep,
        groups: false,
        components: false,
        upsampling: Upsampling::Product,
        size: Size::new(8, 8),
        is_torchprism: true,
    }
}

/// Scores and guides come from other layers than the final excitation.
#[test]
fn scores_and_guides_that_are_not_finite_are_an_error() {
    let tensor = |size: &[i64], value: f64| Tensor::full(size, value, tch::kind::FLOAT_CPU);
    for (score, guide, fits) in [
        (1.0, 1.0, true),
        (f64::NAN, 1.0, false),
        (1.0, f64::INFINITY, false),
    ] {
        let mut collector = Collector::new(product(None));
        let added = collector.add(Excitations {
            logits: tensor(&[1, 5], score),
            excitation: tensor(&[1, 4, 2, 2], 1.0),
            guides: vec![tensor(&[1, 1, 4, 4], guide)],
            saliency: None,
        });
        assert_eq!(added.is_ok(), fits, "{score} {guide}");
    }
}

/// Six places of two images. The value is NumPy's and SciPy's: PCA by SVD, norm, cosines of the
/// centred rows, `spearmanr`.
#[test]
fn colours_are_compared_with_all_channels() {
    let rows = [
        [3.0, -1.0, 2.0, 0.5, 1.0],
        [0.0, 4.0, 1.0, -2.0, 2.0],
        [5.0, 2.0, -3.0, 1.0, 0.0],
        [1.0, 1.0, 1.0, 1.0, -4.0],
        [-2.0, 0.0, 3.0, 2.0, 1.0],
        [4.0, -3.0, 0.0, -1.0, 2.0],
    ];
    let rows: Vec<f32> = rows.into_iter().flatten().collect();
    let images = Tensor::from_slice(&rows)
        .reshape([2, 1, 3, 5])
        .permute([0, 3, 1, 2]);
    let options = MapOptions {
        upsampling: Upsampling::None,
        is_torchprism: false,
        ..product(None)
    };
    let mut collector = Collector::new(options);
    for image in images.split(1, 0) {
        let added = collector.add(Excitations {
            logits: Tensor::zeros([1, 5], tch::kind::FLOAT_CPU),
            excitation: image,
            guides: Vec::new(),
            saliency: None,
        });
        added.unwrap();
    }
    let found = collector.finish().unwrap().colour_correlation.unwrap();
    assert!((found - 0.8392857142857142).abs() < 1e-9, "{found}");
}

/// Two images of one colour each share none.
#[test]
fn images_without_a_common_colour_make_a_black_map_and_a_note() {
    let maps = |keep| {
        let value = Tensor::from_slice(&[3.0f32, 3.0, -3.0, -3.0]).reshape([2, 1, 1, 2]);
        let mut collector = Collector::new(product(Some(keep)));
        collector
            .add(Excitations {
                logits: Tensor::zeros([2, 5], tch::kind::FLOAT_CPU),
                excitation: Tensor::cat(&[&value, &value], 1),
                guides: vec![Tensor::ones([2, 1, 2, 4], tch::kind::FLOAT_CPU)],
                saliency: None,
            })
            .unwrap();
        collector.finish().unwrap()
    };
    let common = maps(FeatureFilter::Shared);
    assert!(common.note().unwrap().contains("no colour is common"));
    assert_eq!(common.map(0..2).unwrap().abs().max().double_value(&[]), 0.0);
    let unique = maps(FeatureFilter::Unique);
    assert!(unique.note().unwrap().contains("none was left out"));
    let (unique, all) = (
        unique.map(0..2).unwrap(),
        maps(FeatureFilter::All).map(0..2).unwrap(),
    );
    assert_eq!(largest_difference(&unique, &all), 0.0);
    assert!(all.max().double_value(&[]) == 1.0 && all.min().double_value(&[]) == 0.0);
}

#[test]
fn channels_that_differ_are_an_error() {
    let mut pca = accumulated(&[vec![1.0, 2.0]]);
    assert!(pca.add(&excitation(&[vec![1.0]])).is_err());
    assert!(pca.merge(PcaAccumulator::new(3)).is_err());
}

#[test]
fn an_accumulator_merges_an_empty_one_but_an_empty_one_has_no_components() {
    let rows = rows(&expected("pca")["rows"]);
    let mut pca = accumulated(&rows);
    pca.merge(PcaAccumulator::new(4)).unwrap();
    let alone = accumulated(&rows).finish().unwrap();
    assert_eq!(pca.finish().unwrap().variance_ratio, alone.variance_ratio);
    assert!(PcaAccumulator::new(4).finish().is_err());
}

#[test]
fn the_norm_equals_that_of_numpy() {
    for key in ["norm", "norm_unclipped_below"] {
        let case = expected(key);
        let values = floats(&numbers(&case["values"]));
        let (norm, result) = normed(&values);
        assert!(!norm.is_constant());
        assert_near(&result, &floats(&numbers(&case["result"])), 1e-6, key);
    }
}

/// A norm is fitted to the whole tensor and applied to any part of it.
#[test]
fn a_part_has_the_norm_of_the_whole() {
    let case = expected("norm");
    let values = numbers(&case["values"]);
    let (norm, _) = normed(&floats(&values));
    let part = norm.apply(&floats(&values[3..]));
    let result = &numbers(&case["result"])[3..];
    assert!(largest_difference(&part, &floats(result)) < 1e-6);
}

#[test]
fn the_norm_of_a_constant_is_zeros() {
    // 0.1 is not a binary fraction: its mean over 7 values may not be 0.1.
    for value in [0.0, 1.0, -3.5, 0.1, 1e-30, 1e30] {
        for shape in [[1, 1, 1, 1], [1, 3, 1, 7], [2, 3, 5, 5]] {
            let values = Tensor::full(shape, value, tch::kind::FLOAT_CPU);
            let (norm, result) = normed(&values);
            assert!(norm.is_constant(), "{value} {shape:?}");
            assert!(is_zero(&result), "{value} {shape:?}");
            assert_eq!(result.size(), shape);
        }
    }
}

/// The spread is compared with the scale of the values.
#[test]
fn small_values_are_not_constant() {
    let case = expected("norm");
    let small: Vec<f64> = numbers(&case["values"]).iter().map(|v| v * 1e-25).collect();
    let (norm, result) = normed(&floats(&small));
    assert!(!norm.is_constant());
    let expected = floats(&numbers(&case["result"]));
    assert_near(&result, &expected, 1e-5, "small values");
}

#[test]
fn resize_is_bilinear_between_pixel_centres() {
    let cases = expected("resize");
    for case in cases.as_array().unwrap() {
        let (height, width) = serde_json::from_value(case["size"].clone()).unwrap();
        let size = Size::new(height, width);
        let found = resize(&plane(&rows(&case["array"])), size);
        let expected = plane(&rows(&case["result"]));
        assert_near(&found, &expected, 1e-5, &format!("{size:?}"));
    }
    assert!(cases.as_array().unwrap().len() > 3);
}

#[test]
fn extrapolation_goes_from_the_deepest_guide_to_the_shallowest() {
    let case = expected("gradual_extrapolation");
    let feature = plane(&rows(&case["feature"]));
    let guides: Vec<Tensor> = case["guides"]
        .as_array()
        .unwrap()
        .iter()
        .map(|guide| planes(guide).mean_dim([1i64].as_slice(), true, Kind::Float))
        .collect();
    let steps = case["steps"].as_array().unwrap();
    for (step, levels) in steps.iter().zip(1..) {
        let mean = plane(&rows(&step["channel_mean"]));
        assert!(largest_difference(&guides[guides.len() - levels], &mean) < 1e-6);
        let found = gradual_extrapolation(&feature, &guides[guides.len() - levels..]);
        let expected = plane(&rows(&step["result"]));
        assert_near(&found, &expected, 1e-5, &format!("{levels} guides"));
    }
    assert_eq!(steps.len(), guides.len());
    // Every channel of the features is treated alike.
    let three = Tensor::cat(&[&feature, &(&feature * -2.0), &(&feature + 1.0)], 1);
    let found = gradual_extrapolation(&three, &guides);
    let first = gradual_extrapolation(&feature, &guides);
    assert!(largest_difference(&found.narrow(1, 0, 1), &first) < 1e-6);
    assert!(largest_difference(&found.narrow(1, 1, 1), &(&first * -2.0)) < 1e-5);
    let none = gradual_extrapolation(&feature, &[]);
    assert_eq!(largest_difference(&none, &feature), 0.0);
}

/// `[c][h][w]` as `[1,c,h,w]`.
fn planes(value: &Value) -> Tensor {
    let planes = value.as_array().unwrap().iter();
    let planes: Vec<Tensor> = planes.map(|channel| plane(&rows(channel))).collect();
    Tensor::cat(&planes, 1)
}

/// Upsampled by stored guides; none without a finer guide.
fn bilateral(values: &Tensor, guides: &[Tensor], size: Size) -> Option<Tensor> {
    let sizes = guides.iter().map(Size::of);
    let way = Bilateral::new(Size::of(values), sizes, size)?;
    Some(way.upsample(values, guides).unwrap())
}

fn size_in(value: &Value) -> Size {
    let [height, width] = [0, 1].map(|at| value[at].as_i64().unwrap());
    Size::new(height, width)
}

#[test]
fn a_pixel_is_the_mean_of_cells_that_are_near_and_alike() {
    for name in ["bilateral", "bilateral_of_several"] {
        let case = expected(name);
        let (colours, size) = (planes(&case["colours"]), size_in(&case["size"]));
        let guides: Vec<Tensor> = (case["guides"].as_array().unwrap().iter())
            .map(|guide| stored(&planes(guide)).unwrap())
            .collect();
        for (found, wanted) in guides.iter().zip(case["stored"].as_array().unwrap()) {
            assert_eq!(found.kind(), Kind::Int8);
            assert_near(&found.to_kind(Kind::Float), &planes(wanted), 0.0, name);
        }
        let working = bilateral(&colours, &guides, size).unwrap();
        assert_eq!(Size::of(&working), size_in(&case["working_size"]), "{name}");
        assert_near(&working, &planes(&case["at_working_size"]), 1e-5, name);
        assert_near(
            &resize(&working, size),
            &planes(&case["result"]),
            1e-5,
            name,
        );
        // Each image by itself.
        let both = Tensor::cat(&[&colours.flip([3]), &colours], 0);
        let guides: Vec<Tensor> = guides
            .iter()
            .map(|g| Tensor::cat(&[&g.flip([3]), g], 0))
            .collect();
        let found = bilateral(&both, &guides, size).unwrap();
        assert_near(&found.narrow(0, 1, 1), &working, 1e-5, name);
        assert_near(&found.narrow(0, 0, 1), &working.flip([3]), 1e-5, name);
    }
}

/// The colour with the largest weight among the cells; of equal ones the first.
#[test]
fn cells_vote_for_the_colour_of_a_pixel() {
    for name in ["votes", "votes_tied"] {
        let case = expected(name);
        let codes = plane(&rows(&case["codes"]));
        let guides: Vec<Tensor> = (case["guides"].as_array().unwrap().iter())
            .map(|guide| stored(&planes(guide)).unwrap())
            .collect();
        let colours: Vec<Tensor> = (0..27).map(|code| codes.eq(code)).collect();
        let cells = Tensor::cat(&colours, 1).to_kind(Kind::Float);
        let weights = bilateral(&cells, &guides, size_in(&case["size"])).unwrap();
        let won = weights.argmax(1, true).to_kind(Kind::Float);
        assert_near(&won, &plane(&rows(&case["at_working_size"])), 0.0, name);
    }
}

#[test]
fn sign_and_scale_of_a_guide_do_not_matter_and_none_is_no_rule() {
    let case = expected("bilateral");
    let (colours, size) = (planes(&case["colours"]), size_in(&case["size"]));
    let guide = planes(&case["guides"][0]);
    let by = |guide: &Tensor| bilateral(&colours, &[stored(guide).unwrap()], size).unwrap();
    assert_near(
        &by(&(&guide * -300.0 + 7.0)),
        &by(&guide),
        1e-3,
        "sign and scale",
    );
    assert!(bilateral(&colours, &[], size).is_none());
    let coarse = stored(&guide.narrow(2, 0, 2).narrow(3, 0, 2)).unwrap();
    assert!(bilateral(&colours, &[coarse], size).is_none(), "not finer");
}

/// More images than one step upsamples, in batches that divide neither number.
#[test]
fn maps_in_steps_equal_those_of_all_images_at_once() {
    // Not libtorch's generator: tests of random networks seed it.
    let seed = std::cell::Cell::new(41.0);
    let random = |sizes: &[i64]| {
        seed.set(seed.get() + 1.0);
        let count: i64 = sizes.iter().product();
        let places = Tensor::arange(count, (Kind::Double, Device::Cpu)) + seed.get();
        let noise = ((places * 12.9898 * seed.get()).sin() * 43758.5453).frac() - 0.5;
        noise.reshape(sizes).to_kind(Kind::Float)
    };
    let count = 21;
    let excitation = random(&[count, 5, 3, 3]);
    let guides = [random(&[count, 2, 6, 6]), random(&[count, 3, 12, 12])];
    let size = Size::new(24, 24);
    let options = MapOptions {
        keep: None,
        groups: false,
        components: false,
        upsampling: Upsampling::Bilateral,
        size,
        is_torchprism: false,
    };
    let mut collector = Collector::new(options);
    for start in (0..count).step_by(3) {
        let run = |tensor: &Tensor| tensor.narrow(0, start, 3);
        let added = collector.add(Excitations {
            logits: random(&[3, 4]),
            excitation: run(&excitation),
            guides: guides.iter().map(run).collect(),
            saliency: None,
        });
        added.unwrap();
    }
    let maps = collector.finish().unwrap();
    let (_, features) = normed(&maps.features(0..maps.len()).unwrap());
    let upsampled = bilateral(
        &features,
        &guides.each_ref().map(|guide| stored(guide).unwrap()),
        size,
    );
    let expected = resize(&upsampled.unwrap(), size);
    for images in [0..21, 0..1, 7..9, 20..21, 3..20] {
        let length = images.len() as i64;
        let expected = expected.narrow(0, images.start as i64, length);
        let found = maps.map(images.clone()).unwrap();
        assert_near(&found, &expected, 1e-4, &format!("{images:?}"));
    }

    // Only some images have maps: their guides alone are stored.
    let mut some = Collector::new(options);
    let has_map = |image: i64| [1, 4, 5, 6, 20].contains(&image);
    for start in (0..count).step_by(3) {
        let run = |tensor: &Tensor| tensor.narrow(0, start, 3);
        some.expect((start..start + 3).map(has_map));
        let added = some.add(Excitations {
            logits: random(&[3, 4]),
            excitation: run(&excitation),
            guides: guides.iter().map(run).collect(),
            saliency: None,
        });
        added.unwrap();
    }
    let some = some.finish().unwrap();
    for images in [1..2, 4..7, 20..21] {
        assert_eq!(some.map(images.clone()).unwrap(), maps.map(images).unwrap());
    }
    assert!(some.map(0..1).is_err() && some.map(4..8).is_err());
}
