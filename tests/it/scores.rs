//! Class scores: what they mean, which output has them, and what is stated about them and about
//! the input. Expected probabilities are PyTorch's (tests/reference/make_score_networks.py).

use std::fs;

use serde_json::Value;
use tch::{Device, Tensor};

use crate::common::place::Place;
use crate::common::{Npz, data, largest_difference};
use prism::Size;
use prism::hooks::{HookedModel, Hooks, NetworkGraph, OutputChoice, SaliencyHook, ScoreHook};
use prism::saliency::Method;
use prism::scores::{ScoreKind, ScoreRange, ScoresEnd, ScoresForm};

const TOLERANCE: f64 = 1e-5;

/// A folder with the stored images, cut to 32x32.
fn place() -> Place {
    let place = Place::new();
    fs::copy(data("scores/expected.npz"), place.path("stored.npz")).unwrap();
    place
}

fn expected() -> Npz {
    Npz::open(data("scores/expected.npz"))
}

/// Runs a network; returns its summary, what it says, and all probabilities.
fn run(place: &Place, name: &str, options: &str) -> (Value, String, Tensor) {
    let model = data(&format!("scores/{name}.pt"));
    let files = "--json run.json --save-arrays run.npz --top 1000";
    let line = format!("--model {} {files} {options}", model.display());
    let (_, stderr) = place.succeed(&line);
    let summary = fs::read_to_string(place.path("run.json")).unwrap();
    let probabilities = Npz::open(place.path("run.npz")).tensor("probabilities");
    (
        serde_json::from_str(&summary).unwrap(),
        stderr,
        probabilities,
    )
}

/// The probabilities of the summary, in the order of the classes.
fn of_summary(summary: &Value) -> Tensor {
    let images = summary["images"].as_array().unwrap();
    let rows: Vec<Tensor> = images
        .iter()
        .map(|image| {
            let classes = image["classes"].as_array().unwrap();
            let mut row = vec![f32::NAN; classes.len()];
            for class in classes {
                row[class["id"].as_u64().unwrap() as usize] =
                    class["probability"].as_f64().unwrap() as f32;
            }
            Tensor::from_slice(&row)
        })
        .collect();
    Tensor::stack(&rows, 0)
}

/// A network of each kind: what its scores are taken for, how that is known, and parts of what is
/// said about it ("" if nothing is).
#[test]
fn scores_are_what_the_network_says() {
    let (place, expected) = (place(), expected());
    for (name, kind, from, said) in [
        (
            "one_score",
            "sigmoid",
            "assumed",
            "one score: it is taken for the logit of class 1",
        ),
        ("one_score_squeezed", "sigmoid", "assumed", "one score"),
        ("one_probability", "sigmoid", "the network", ""),
        ("second_of_two", "none", "the network", ""),
        (
            "sigmoids",
            "sigmoid",
            "the network",
            "do not exclude each other",
        ),
        (
            "mean_of_sigmoids",
            "none",
            "the network",
            "do not sum to 1; they are shown as they are",
        ),
        (
            "mean_of_softmaxes",
            "none",
            "the network",
            "in each image they sum to 1",
        ),
        (
            "softmax_by_hand",
            "none",
            "the network",
            "in each image they sum to 1",
        ),
        ("softmax_twice", "softmax", "the network", ""),
        ("log_softmax", "softmax", "the network", ""),
        ("n1k", "softmax", "the network", ""),
        ("nk11", "softmax", "assumed", ""),
        ("squeezed", "softmax", "assumed", ""),
        (
            "heads",
            "sigmoid",
            "assumed",
            "3 scores one by one: they are taken for 3 classes",
        ),
        (
            "named_heads",
            "sigmoid",
            "the network",
            "3 scores one by one",
        ),
        (
            "embedding_first",
            "softmax",
            "assumed",
            "output 1 has the class scores (of 0 [N,8], 1 [N,5]): the others have as many values as their layers read",
        ),
        (
            "embedding_last",
            "softmax",
            "assumed",
            "output 0 has the class scores (of 0 [N,5], 1 [N,64])",
        ),
        (
            "unit_embedding",
            "softmax",
            "assumed",
            "output 1 has the class scores (of 0 [N,7], 1 [N,5]): the others are pooled or normalised features",
        ),
        (
            "logits_and_sigmoids",
            "sigmoid",
            "the network",
            "do not exclude each other",
        ),
        (
            "exits",
            "softmax",
            "assumed",
            "output 0 has the class scores (of 0 [N,5], 1 [N,5]): it is the deepest of 2",
        ),
        (
            "two_tasks",
            "softmax",
            "assumed",
            "warning: output 1 has the class scores (of 0 [N,5], 1 [N,7]): it is computed last, and nothing else",
        ),
        (
            "best_three",
            "softmax",
            "the network",
            "only its best scores",
        ),
        ("best_class", "softmax", "assumed", "only its best scores"),
        (
            "by_name",
            "softmax",
            "assumed",
            "output 1 'scores' has the class scores",
        ),
        (
            "thousand",
            "softmax",
            "assumed",
            "--labels imagenet names them",
        ),
    ] {
        let (summary, stderr, probabilities) = run(&place, name, "--input stored.npz");
        let theirs = expected.tensor(name);
        assert_eq!(probabilities.size(), theirs.size(), "{name}");
        let off = largest_difference(&probabilities, &theirs);
        assert!(off < TOLERANCE, "{name}: off by {off}");
        let off = largest_difference(&of_summary(&summary), &theirs);
        assert!(off < TOLERANCE, "{name}: the summary is off by {off}");
        let scores = &summary["settings"]["scores"];
        assert_eq!(
            (scores["value"].as_str(), scores["from"].as_str()),
            (Some(kind), Some(from)),
            "{name}"
        );
        assert!(stderr.contains(said), "{name}: {stderr}");
        let remarks = summary["remarks"].as_array().unwrap().len();
        assert_eq!(remarks, usize::from(!said.is_empty()), "{name}: {stderr}");
    }
}

/// The saliency of a class is that of the network's own score for it, also if the network has one
/// score for two classes, or a tensor for each class.
#[test]
fn the_saliency_of_a_class_is_that_of_its_score() {
    let (place, expected) = (place(), expected());
    for (name, method, target) in [
        ("one_score", "gradcam", 0),
        ("one_score", "gradcam", 1),
        ("second_of_two", "gradcam", 0),
        ("heads", "cebp", 2),
    ] {
        let option = if method == "cebp" {
            "exct-backp"
        } else {
            method
        };
        let options = format!("--input stored.npz --saliency {option} --target {target}");
        let _ = run(&place, name, &options);
        let ours = Npz::open(place.path("run.npz")).tensor("saliency");
        let theirs = expected.tensor(&format!("{name}_{method}_{target}"));
        let most = theirs.abs().max().double_value(&[]);
        assert!(most > 0.0, "{name} {target}");
        let off = largest_difference(&ours, &theirs) / most;
        assert!(off < 1e-4, "{name} {method} {target}: off by {off}");
    }
    // The contrast of class 0 is that of class 1 with the other sign, which relu takes away.
    let of = |target| {
        let _ = run(
            &place,
            "one_score",
            &format!("--input stored.npz --saliency exct-backp --target {target}"),
        );
        Npz::open(place.path("run.npz")).tensor("saliency")
    };
    let (no, yes) = (of(0), of(1));
    assert!(no.max().double_value(&[]) > 0.0 && yes.max().double_value(&[]) > 0.0);
    assert_eq!((no * yes).max().double_value(&[]), 0.0);
}

#[test]
fn the_user_says_what_the_scores_are() {
    let (place, expected) = (place(), expected());
    let said = |name: &str, options: &str| {
        let (summary, stderr, probabilities) =
            run(&place, name, &format!("--input stored.npz {options}"));
        let from = &summary["settings"]["scores"]["from"];
        assert!(!options.contains("--scores") || from == "given", "{stderr}");
        probabilities
    };
    // Of softmax p the logits are log p, but for a constant; of sigmoid p log p / (1 - p).
    let p = expected.tensor("sigmoids");
    let logits: Tensor = (&p / (p.ones_like() - &p)).log();
    for (options, theirs) in [
        ("--scores softmax", logits.softmax(1, tch::Kind::Float)),
        ("--scores sigmoid", p.shallow_clone()),
        ("--scores none", p.shallow_clone()),
    ] {
        let off = largest_difference(&said("sigmoids", options), &theirs);
        assert!(off < TOLERANCE, "{options}: off by {off}");
    }
    let one = expected.tensor("one_score").narrow(1, 1, 1);
    let logit: Tensor = (&one / (one.ones_like() - &one)).log();
    let off = largest_difference(&said("one_score", "--scores none"), &logit);
    assert!(off < TOLERANCE, "{off}");
    let other = said("embedding_first", "--output 0");
    assert_eq!(other.size(), [3, 8]);
    for output in ["scores", "1"] {
        let named = said("by_name", &format!("--output {output}"));
        let off = largest_difference(&named, &expected.tensor("by_name"));
        assert!(off < TOLERANCE, "{output}: off by {off}");
    }
    // Ranks are followed back to what is ranked, whichever output is chosen.
    for output in [0, 1] {
        let ranked = said("best_three", &format!("--output {output}"));
        assert!(largest_difference(&ranked, &expected.tensor("best_three")) < TOLERANCE);
    }
}

#[test]
fn names_tell_which_output_and_which_class() {
    let place = place();
    let names = |summary: &Value| -> Vec<String> {
        let classes = summary["images"][0]["classes"].as_array().unwrap();
        let mut names: Vec<(u64, String)> = classes
            .iter()
            .map(|class| {
                (
                    class["id"].as_u64().unwrap(),
                    class["name"].as_str().unwrap().into(),
                )
            })
            .collect();
        names.sort();
        names.into_iter().map(|(_, name)| name).collect()
    };
    fs::write(place.path("five.txt"), "a\nb\nc\nd\ne\n").unwrap();
    fs::write(place.path("two.txt"), "healthy\nill\n").unwrap();
    fs::write(place.path("one.txt"), "great white shark\n").unwrap();
    let of = |name: &str, options: &str| {
        let (summary, stderr, _) = run(&place, name, &format!("--input stored.npz {options}"));
        (
            names(&summary),
            summary["settings"]["labels"].clone(),
            stderr,
        )
    };
    // As many names as values: no guess is needed.
    let (five, _, stderr) = of("two_tasks", "--labels five.txt");
    assert_eq!(five, ["a", "b", "c", "d", "e"]);
    assert!(
        stderr.contains("output 0 has the class scores") && !stderr.contains("warning"),
        "{stderr}"
    );
    // Three of one score each, before an output of seven.
    fs::write(place.path("three.txt"), "x\ny\nz\n").unwrap();
    let (three, _, stderr) = of("heads_and_more", "--labels three.txt");
    assert_eq!(three, ["x", "y", "z"]);
    assert!(stderr.contains("; left out: 3 [N,7]"), "{stderr}");
    let (seven, ..) = of("heads_and_more", "");
    assert_eq!(seven.len(), 7);
    assert_eq!(of("one_score", "--labels two.txt").0, ["healthy", "ill"]);
    assert_eq!(
        of("one_score", "--labels one.txt").0,
        ["not_great_white_shark", "great_white_shark"]
    );
    let (numbers, setting, _) = of("one_score", "");
    assert_eq!(numbers, ["class 0", "class 1"]);
    assert_eq!(setting["value"], "numbers");
    let (own, setting, _) = of("named_heads", "");
    assert_eq!(own, ["ant", "bee", "cat"]);
    assert_eq!(
        (setting["value"].as_str(), setting["from"].as_str()),
        (Some("own"), Some("the network"))
    );
    // A network of 1000 classes need not be ImageNet's.
    let (numbers, setting, _) = of("thousand", "");
    assert_eq!(
        (numbers[269].as_str(), setting["from"].as_str()),
        ("class 269", Some("assumed"))
    );
    let (imagenet, setting, stderr) = of("thousand", "--labels imagenet");
    assert_eq!(imagenet[269], "timber_wolf");
    assert_eq!(
        (setting["value"].as_str(), setting["from"].as_str()),
        (Some("imagenet"), Some("given"))
    );
    assert!(!stderr.contains("ImageNet"), "{stderr}");
}

/// Size, mean and so on, each with where it came from.
#[test]
fn what_is_assumed_about_the_input_is_stated() {
    let place = place();
    let settings = |model: &str, options: &str| {
        let (_, stderr) = place.succeed(&format!(
            "--model {} --json run.json {options}",
            data(model).display()
        ));
        let summary = fs::read_to_string(place.path("run.json")).unwrap();
        let summary: Value = serde_json::from_str(&summary).unwrap();
        (summary["settings"].clone(), stderr)
    };
    let photo = "--input photos/a.png";
    let (of_file, stderr) = settings("odd_networks/Told.pt", photo);
    assert_eq!(
        of_file["size"],
        serde_json::json!({"value": [32, 48], "from": "the file"})
    );
    assert_eq!(
        of_file["mean"],
        serde_json::json!({"value": [0.5, 0.25, 0.0], "from": "the file"})
    );
    assert_eq!(
        of_file["labels"],
        serde_json::json!({"value": "own", "from": "the file"})
    );
    assert!(!stderr.contains("assumed"), "{stderr}");
    let (assumed, stderr) = settings("scores/nk11.pt", photo);
    assert_eq!(
        assumed["size"],
        serde_json::json!({"value": [224, 224], "from": "assumed"})
    );
    assert_eq!(
        assumed["std"]["value"],
        serde_json::json!([0.229, 0.224, 0.225])
    );
    assert_eq!(
        assumed["resize"],
        serde_json::json!({"value": "stretch", "from": "assumed"})
    );
    let note =
        "nothing states the input size of the network; 224x224 pixels are assumed (--image-size";
    assert_eq!(stderr.matches(note).count(), 1, "{stderr}");
    let (given, stderr) = settings(
        "scores/nk11.pt",
        &format!("{photo} --image-size 32 --std 1,1,1 --resize stretch --verbose"),
    );
    assert_eq!(given["size"]["from"], "given");
    assert_eq!(
        given["resize"],
        serde_json::json!({"value": "stretch", "from": "given"})
    );
    assert_eq!(
        given["std"],
        serde_json::json!({"value": [1.0, 1.0, 1.0], "from": "given"})
    );
    assert_eq!(given["mean"]["from"], "assumed");
    assert!(
        stderr.contains("settings: 32×32 pixels, stretched, std 1,1,1 (given)"),
        "{stderr}"
    );
    assert!(
        stderr.contains("mean 0.485,0.456,0.406, softmax scores, classes numbered (assumed)"),
        "{stderr}"
    );
    // A stored input is not normalised.
    let (stored, _) = settings("scores/nk11.pt", "--input stored.npz");
    assert_eq!(
        stored["size"],
        serde_json::json!({"value": [32, 32], "from": "given"})
    );
    assert!(
        stored.get("mean").is_none() && stored.get("resize").is_none(),
        "{stored}"
    );
}

#[test]
fn a_network_that_normalises_its_input_itself_is_noticed() {
    let place = place();
    let said = |name: &str, options: &str| {
        let model = data(&format!("scores/{name}.pt"));
        let line = format!("--image-size 32 --model {} {options}", model.display());
        place.succeed(&line).1
    };
    let photo = "--input photos/a.png";
    let warning = "the network normalises its input itself (4.3668 x - 2.1179 for red)";
    let stderr = said("normalising", photo);
    assert!(
        stderr.contains(warning) && stderr.contains("--mean 0 --std 1"),
        "{stderr}"
    );
    // The first channel is blue for some networks, and the only one for others.
    let stderr = said("normalising", &format!("{photo} --bgr"));
    assert!(stderr.contains("(4.3668 x - 2.1179 for blue)"), "{stderr}");
    let stderr = said("normalising_grey", photo);
    assert!(stderr.contains("itself (4.0000 x - 2.0000)"), "{stderr}");
    // The means of ImageNet's: (1/.229 + 1/.224 + 1/.225) / 3, (.485/.229 + .456/.224 + .406/.225) / 3
    let stderr = said("normalising_repeated", photo);
    assert!(stderr.contains("itself (4.4252 x - 1.9860)"), "{stderr}");
    for (name, options) in [
        (
            "normalising",
            "--input photos/a.png --mean 0,0,0 --std 1,1,1",
        ),
        ("normalising_grey", "--input photos/a.png --mean 0 --std 1"),
        ("normalising", "--input stored.npz"),
        ("undoing", photo), // expects ImageNet's normalisation
        ("nk11", photo),
    ] {
        let stderr = said(name, options);
        assert!(!stderr.contains("normalises"), "{name}: {stderr}");
    }
}

/// In the library: the scores of a graph, and a batch of any size.
#[test]
fn the_library_finds_the_scores_for_any_number_of_images() {
    let expected = expected();
    let input = expected.tensor("input");
    for (name, form, end) in [
        ("squeezed", ScoresForm::Classes, ScoresEnd::Layer),
        ("one_score_squeezed", ScoresForm::Binary, ScoresEnd::Layer),
        ("second_of_two", ScoresForm::Binary, ScoresEnd::Squashed),
        ("heads", ScoresForm::Heads, ScoresEnd::Layer),
        (
            "mean_of_softmaxes",
            ScoresForm::Classes,
            ScoresEnd::Squashed,
        ),
        ("log_softmax", ScoresForm::Classes, ScoresEnd::Softmax),
    ] {
        let file = data(&format!("scores/{name}.pt"));
        let network = NetworkGraph::load(&file, Device::Cpu).unwrap();
        let model = HookedModel::new(&network, Size::new(32, 32), &Hooks::default()).unwrap();
        assert_eq!(
            (model.evidence().form, model.evidence().end),
            (form, end),
            "{name}"
        );
        for images in [1, 3] {
            let logits = model.forward(&input.narrow(0, 0, images)).unwrap().logits;
            let kind = model.evidence().read(&ScoreRange::of(&logits)).kind;
            let theirs = expected.tensor(name).narrow(0, 0, images);
            let off = largest_difference(&kind.probabilities(&logits), &theirs);
            assert!(off < TOLERANCE, "{name}, {images} images: off by {off}");
        }
    }
    let network = NetworkGraph::load(&data("scores/one_score.pt"), Device::Cpu).unwrap();
    let hooks = |method, scores| Hooks {
        saliency: Some(SaliencyHook {
            method,
            layer: None,
        }),
        scores,
        ..Hooks::default()
    };
    let plain = hooks(Method::ExcitationBackprop, ScoreHook::default());
    let error = HookedModel::new(&network, Size::new(32, 32), &plain).unwrap_err();
    assert!(
        format!("{error:#}").contains("one score for two classes"),
        "{error:#}"
    );
    let as_it_is = ScoreHook {
        output: Some(OutputChoice("0".into())),
        kind: Some(ScoreKind::None),
        names: None,
    };
    let hooks = hooks(Method::ExcitationBackprop, as_it_is);
    let model = HookedModel::new(&network, Size::new(32, 32), &hooks).unwrap();
    assert_eq!(model.classes(), 1);
}
