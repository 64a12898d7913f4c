//! Every network of the zoo gives the scores of torchvision's (for Lite: of
//! efficientnet_lite_pytorch's), on weights that both sides make from the names of the tensors.
//! `tests/reference/make_zoo_logits.py` wrote the expected scores.

use prism::Size;
use prism::hooks::{HookedModel, Hooks, Precision, Trace};
use prism::model::zoo;
use serde_json::Value;
use tch::{Device, Kind, Tensor, nn};

/// Difference allowed, as a share of the largest score.
const TOLERANCE: f64 = 2e-5;

/// `count` float32 values in [0, 1): the top 24 bits of splitmix64, seeded by the name.
fn uniform(name: &str, count: usize) -> Vec<f32> {
    let mut state = 0xCBF2_9CE4_8422_2325_u64;
    for byte in name.bytes() {
        state = (state ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3);
    }
    (0..count)
        .map(|_| {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            let z = z ^ (z >> 31);
            (z >> 40) as f32 * (1.0 / 16_777_216.0)
        })
        .collect()
}

fn fill(vs: &nn::VarStore, gain: f64) {
    for (name, mut tensor) in vs.variables() {
        let size = tensor.size();
        let count = size.iter().product::<i64>();
        let mut values = uniform(&name, count as usize);
        if size.len() >= 2 {
            let fan_in = (count / size[0]) as f64;
            let bound = ((3.0 / fan_in).sqrt() * gain) as f32;
            values
                .iter_mut()
                .for_each(|u| *u = (*u * 2.0 - 1.0) * bound);
        } else if name.ends_with("running_var") || name.ends_with("weight") {
            values.iter_mut().for_each(|u| *u += 0.5);
        } else {
            values.iter_mut().for_each(|u| *u = (*u * 2.0 - 1.0) * 0.1);
        }
        tensor.set_data(&Tensor::from_slice(&values).view(size.as_slice()));
    }
}

fn image(height: i64, width: i64) -> Tensor {
    let mut values = uniform("input", (2 * 3 * height * width) as usize);
    values.iter_mut().for_each(|u| *u = *u * 4.0 - 2.0);
    Tensor::from_slice(&values).view([2, 3, height, width])
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

fn agrees(name: &str) {
    let reference: Value = serde_json::from_str(include_str!("../data/zoo_logits.json")).unwrap();
    let expected = &reference[name];
    let entry = zoo::find(name).unwrap();
    let _guard = tch::no_grad_guard();
    let vs = nn::VarStore::new(Device::Cpu);
    let network = entry.build(&vs.root(), 1000);
    fill(&vs, number(&expected["gain"]));

    let trained = vs.trainable_variables();
    let parameters: usize = trained.iter().map(Tensor::numel).sum();
    assert_eq!(parameters as u64, entry.parameters, "{name}: parameters");
    assert_eq!(
        expected["parameters"].as_u64(),
        Some(entry.parameters),
        "{name}: parameters of the reference"
    );

    let runs = expected["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 2, "{name}");
    let first = &runs[0]["size"];
    let input = Size::new(first[0].as_i64().unwrap(), first[1].as_i64().unwrap());
    assert_eq!(input, entry.input, "{name}: input size");
    for run in runs {
        let size = &run["size"];
        let image = image(size[0].as_i64().unwrap(), size[1].as_i64().unwrap());
        let logits = network.forward_t(&image, false);
        assert_eq!(logits.size(), [2, 1000], "{name} {size}");
        let logits = logits.to_kind(Kind::Double);
        let largest = number(&run["largest"]);
        let mut worst: f64 = (logits.abs().max().double_value(&[]) - largest).abs();
        for (row, scores) in run["logits"].as_array().unwrap().iter().enumerate() {
            for (class, score) in scores.as_array().unwrap().iter().enumerate() {
                let ours = logits.double_value(&[row as i64, class as i64]);
                worst = worst.max((ours - number(score)).abs());
            }
        }
        // The remaining scores through two sums over all of them; in each the differences of
        // single scores average out, so that the largest score is a strict scale for the mean.
        let count = logits.numel() as f64;
        let sum = logits.sum(Kind::Double).double_value(&[]);
        let mean_off = (sum - number(&run["sum"])).abs() / count;
        let squares = logits.square().sum(Kind::Double).double_value(&[]);
        let squares_off = (squares / number(&run["sum_of_squares"]) - 1.0).abs();
        println!(
            "{name} {size}: worst {:.1e}, mean {:.1e}, squares {squares_off:.1e}",
            worst / largest,
            mean_off / largest
        );
        assert!(worst <= TOLERANCE * largest, "{name} {size}: {worst:e}");
        assert!(mean_off <= TOLERANCE * largest, "{name} {size}: sum");
        assert!(squares_off <= 2.0 * TOLERANCE, "{name} {size}: squares");
    }
}

#[test]
fn every_network_has_a_reference() {
    let reference: Value = serde_json::from_str(include_str!("../data/zoo_logits.json")).unwrap();
    let referenced = reference.as_object().unwrap();
    assert_eq!(referenced.len(), zoo::entries().len());
    for entry in zoo::entries() {
        assert!(referenced.contains_key(entry.name), "{}", entry.name);
    }
}

/// How far scores are off, as a share of the largest right one.
fn how_far_off(scores: &Tensor, direct: &Tensor) -> f64 {
    ((scores - direct).abs().max() / direct.abs().max()).double_value(&[])
}

#[test]
fn a_trace_of_one_image_runs_on_two() {
    let _guard = tch::no_grad_guard();
    // One of each family written here; those of tch keep the batch size in a view.
    for name in ["alexnet", "densenet121", "efficientnet_lite0", "googlenet"] {
        let mut vs = nn::VarStore::new(Device::Cpu);
        let network = zoo::find(name).unwrap().build(&vs.root(), 1000);
        fill(&vs, 1.0);
        vs.freeze();
        let images = image(64, 96);
        let traced = tch::CModule::create_by_tracing(
            "Zoo",
            "forward",
            &[images.narrow(0, 0, 1)],
            &mut |inputs: &[Tensor]| vec![network.forward_t(&inputs[0], false)],
        )
        .unwrap();
        let scores = traced
            .method_ts("forward", &[images.shallow_clone()])
            .unwrap();
        let direct = network.forward_t(&images, false);
        assert_eq!(scores.size(), [2, 1000], "{name}");
        let off = how_far_off(&scores, &direct);
        assert!(off < TOLERANCE, "{name}: {off:?}");
    }
}

#[test]
fn a_trace_of_a_small_image_runs_on_larger_ones() {
    let _guard = tch::no_grad_guard();
    // One of each family.
    for name in [
        "alexnet",
        "densenet121",
        "efficientnet_lite0",
        "googlenet",
        "inception_v3",
        "mobilenet_v2",
        "resnet18",
        "squeezenet1_1",
        "vgg11",
    ] {
        let mut vs = nn::VarStore::new(Device::Cpu);
        let entry = zoo::find(name).unwrap();
        let network = entry.build(&vs.root(), 10);
        fill(&vs, 1.0);
        vs.freeze();
        let Size { height, width } = entry.traced();
        let example = Tensor::zeros([1, 3, height, width], (Kind::Float, Device::Cpu));
        let graph = Trace::record(name, &example, |images| network.forward_t(images, false));
        let graph = graph.unwrap().into_graph(&vs.variables()).unwrap();
        let size = Size::new(160, 128);
        let images = image(size.height, size.width);
        let direct = network.forward_t(&images, false);
        let bf16 = Hooks {
            precision: Precision::Bf16,
            ..Hooks::default()
        };
        for (model, tolerance) in [
            (HookedModel::new_plain(&graph, size, &bf16), TOLERANCE),
            (HookedModel::new(&graph, size, &Hooks::default()), TOLERANCE),
            (HookedModel::new(&graph, size, &bf16), 0.1), // it has 8 bits
        ] {
            let scores = model.unwrap().forward(&images).unwrap().logits;
            let off = how_far_off(&scores, &direct);
            assert!(off < tolerance, "{name}, {tolerance}: {off:?}");
        }
    }
}

macro_rules! quick {
    ($($name:ident)*) => {
        $(#[test] fn $name() { agrees(stringify!($name)); })*
    };
}

macro_rules! slow {
    ($($name:ident)*) => {
        $(#[test] #[ignore = "takes seconds; its family has a quick member"]
        fn $name() { agrees(stringify!($name)); })*
    };
}

quick! {
    alexnet densenet121 efficientnet_lite0 googlenet inception_v3 mobilenet_v2 resnet18
    squeezenet1_0 vgg11
}

slow! {
    densenet161 densenet169 densenet201 efficientnet_lite1 efficientnet_lite2 resnet34 resnet50
    resnet101 resnet152 squeezenet1_1 vgg11_bn vgg13 vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn
}
