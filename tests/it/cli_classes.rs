//! Classes, saliency and clusters on the command line: labels and targets, the
//! fourth channel of a map, the file for clustering and the map made of it.

use std::fs;
use std::process::Command;

use crate::common::place::{Place, network, repository, tiny};
use crate::common::{Npz, largest_difference};
use assert_cmd::assert::OutputAssertExt;
use tch::Tensor;

/// Ten names, one with synonyms, two alike.
const LABELS: &str =
    "ant\nbee, honey bee\ncat\ndog\nemu\nfox\ngnu\nhen\nibis\nfox, red fox, Vulpes\n";

fn place() -> Place {
    let place = Place::new();
    fs::write(place.path("labels.txt"), LABELS).unwrap();
    place
}

/// stdout's lines, split at tabs.
fn columns(stdout: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| line.split('\t').map(String::from).collect();
    stdout.lines().map(cells).collect()
}

#[test]
fn labels_name_the_classes_and_top_says_how_many() {
    let place = place();
    let numbers = columns(&place.run("--quiet --input photos --top 10"));
    let names = columns(&place.run("--quiet --input photos --top 10 --labels labels.txt"));
    let known = [
        "ant", "bee", "cat", "dog", "emu", "fox", "gnu", "hen", "ibis", "fox",
    ];
    for (numbers, names) in numbers.iter().zip(&names) {
        assert_eq!((numbers.len(), names.len()), (11, 11));
        for (number, name) in numbers[1..].iter().zip(&names[1..]) {
            let (id, p) = number.split_once(": ").unwrap();
            let id: usize = id.parse().unwrap();
            assert_eq!(*name, format!("{}: {p}", known[id]));
        }
    }
    let json = r#"{"0": ["n0", "zero"], "1": ["n1", "one"], "2": ["n2", "two"], "3": ["n3", "three"],
        "4": ["n4", "four"], "5": ["n5", "five"], "6": ["n6", "six"], "7": ["n7", "seven"],
        "8": ["n8", "eight"], "9": ["n9", "nine"]}"#;
    fs::write(place.path("keras.JSON"), json).unwrap();
    let one = columns(&place.run("--quiet --input photos/a.png --labels keras.JSON --top 1"));
    assert_eq!(one[0].len(), 2);
    let id: usize = numbers[0][1].split_once(':').unwrap().0.parse().unwrap();
    let words = [
        "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    ];
    assert!(one[0][1].starts_with(words[id]), "{one:?}");
}

#[test]
fn labels_that_do_not_fit_are_an_error() {
    let place = place();
    fs::write(place.path("few.txt"), "ant\nbee\n").unwrap();
    fs::write(place.path("gap.txt"), "ant\n\nbee\n").unwrap();
    fs::write(place.path("bad.json"), "[1, 2]").unwrap();
    for (file, fragments) in [
        ("few.txt", &["few.txt", "2 names", "10 classes"][..]),
        ("gap.txt", &["gap.txt", "class 1 has an empty name"]),
        ("bad.json", &["bad.json", "entry 0"]),
        ("none.txt", &["none.txt", "cannot be read"]),
        ("photos", &["photos", "cannot be read"]),
    ] {
        place.refuses_photo(&["--labels", file], fragments, 1);
    }
    place.refuses_photo(&["--top", "0"], &["--top"], 2);
}

#[test]
fn a_saliency_becomes_the_fourth_channel_and_an_array() {
    let place = place();
    for method in ["gradcam", "exct-backp"] {
        place.run(&format!(
            "--input photos --saliency {method} --save-arrays {method}.npz --split-rgb --quiet"
        ));
        let npz = Npz::open(place.path(&format!("{method}.npz")));
        let (maps, saliency) = (npz.tensor("maps"), npz.tensor("saliency"));
        assert_eq!(maps.size(), [3, 4, 64, 64]);
        assert_eq!(saliency.size(), [3, 1, 8, 8]);
        assert!(saliency.min().double_value(&[]) >= 0.0);
        let alpha = maps.narrow(1, 3, 1);
        for image in 0..3 {
            let alpha = alpha.get(image);
            assert!(alpha.max().double_value(&[]) > 0.9, "{method}");
            assert!(alpha.min().double_value(&[]) < 0.1, "{method}");
        }
    }
    place.run("--input photos --save-arrays plain.npz --quiet");
    let plain = Npz::open(place.path("plain.npz")).tensor("maps");
    let colours = Npz::open(place.path("gradcam.npz"))
        .tensor("maps")
        .narrow(1, 0, 3);
    assert_eq!(largest_difference(&plain, &colours), 0.0);
}

/// The arrays of the reference, through the binary: from its stored input.
#[test]
fn the_saliency_of_a_stored_input_is_pytorchs() {
    let place = Place::bare();
    let expected = Npz::open(repository("tests/data/expected/saliency.npz"));
    for (method, key) in [("gradcam", "gradcam"), ("exct-backp", "cebp")] {
        for (target, suffix) in [("", ""), ("--target 3", "_class3")] {
            let input = repository("tests/data/expected/tiny_resnet.npz");
            let line = format!(
                "--model {} --input {} --saliency {method} {target} --save-arrays out.npz --quiet",
                network("tiny_resnet_scripted"),
                input.display()
            );
            place.try_run(&line).assert().success();
            let ours = Npz::open(place.path("out.npz")).tensor("saliency");
            let theirs = expected.tensor(&format!("tiny_resnet/{key}{suffix}"));
            let most = 1e-4 * theirs.abs().max().double_value(&[]);
            assert!(
                largest_difference(&ours, &theirs) < most,
                "{method} {target}"
            );
        }
    }
}

#[test]
fn a_target_is_a_number_or_any_of_a_classs_names() {
    let place = place();
    let with = |target: &str| {
        let output = place
            .prism()
            .args(tiny("tiny_vgg_traced").split_whitespace())
            .args([
                "--input",
                "photos",
                "--saliency",
                "gradcam",
                "--labels",
                "labels.txt",
            ])
            .args(["--save-arrays", "out.npz", "--target", target])
            .output()
            .unwrap();
        let output = output.assert().success().get_output().clone();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("target: class 1, bee"), "{stderr}");
        Npz::open(place.path("out.npz")).tensor("saliency")
    };
    let number = with("1");
    for name in ["bee", "honey bee", "Honey_Bee"] {
        assert_eq!(largest_difference(&number, &with(name)), 0.0, "{name}");
    }
    place.run("--input photos --saliency gradcam --target 2 --save-arrays two.npz --quiet");
    let two = Npz::open(place.path("two.npz")).tensor("saliency");
    assert!(largest_difference(&number, &two) > 0.0);
}

#[test]
fn a_wrong_target_or_layer_ends_with_status_2() {
    let place = place();
    let saliency = ["--saliency", "gradcam", "--labels", "labels.txt"];
    for (arguments, fragments) in [
        (&["--target", "10"][..], &["10", "0 to 9"][..]),
        (&["--target", "-1"], &["no class -1", "0 to 9"]),
        (
            &["--target", "99999999999999999999"],
            &["no class 9999", "0 to 9"],
        ),
        (&["--target", "honey be"], &["honey bee"]),
        (
            &["--target", "fox"],
            &["5 (fox)", "9 (fox, red fox, Vulpes)"],
        ),
        (&["--saliency-layer", "features.1O"], &["features.10"]),
        (&["--saliency-layer", "classifier.0"], &["classifier.0"]),
    ] {
        place.refuses_photo(&[&saliency[..], arguments].concat(), fragments, 2);
    }
    let unnamed = ["--saliency", "gradcam", "--target", "cat"];
    place.refuses_photo(&unnamed, &["cat", "0 to 9", "--labels"], 2);
    place.refuses_photo(
        &["--saliency", "lime"],
        &["lime", "gradcam", "exct-backp"],
        2,
    );
    place.refuses_photo(&["--target", "3"], &["--saliency"], 2);
    place.refuses_photo(&["--saliency-layer", "features.5"], &["--saliency"], 2);
    let model = repository("tests/data/odd_networks/Sine.pt");
    let model = model.to_str().unwrap();
    let sine = [
        "--input",
        "photos/a.png",
        "--image-size",
        "32",
        "--model",
        model,
    ];
    let ebp = ["--saliency", "exct-backp", "--saliency-layer", "first"];
    place.refuses(&[&sine[..], &ebp].concat(), &["aten::sin", "gradcam"], 1);
}

/// Features that mean nothing to the class leave no saliency; the map is white,
/// and that is said.
#[test]
fn a_class_that_nothing_speaks_for_is_said() {
    let place = place();
    let line = format!(
        "--model {} --image-size 32 --input photos --saliency gradcam --top 5 --save-arrays a.npz",
        repository("tests/data/odd_networks/ScalesItsInput.pt").display()
    );
    let white = |target: usize| {
        let output = place.try_run(&format!("{line} --target {target}"));
        let stderr = String::from_utf8(output.assert().success().get_output().stderr.clone());
        let alpha = Npz::open(place.path("a.npz"))
            .tensor("maps")
            .narrow(1, 3, 1);
        let white = (0..3).filter(|&image| alpha.get(image).max().double_value(&[]) == 0.0);
        let (white, said) = (white.count(), format!("in {} of 3 images", 3));
        assert_eq!(white == 3, stderr.unwrap().contains(&said));
        white
    };
    let counts: Vec<usize> = (0..5).map(white).collect();
    assert!(counts.contains(&3) && counts.contains(&0), "{counts:?}");
}

// --- clusters ---------------------------------------------------------------

/// What Python's own pickle makes of the file, as JSON.
fn python_reads(place: &Place) -> serde_json::Value {
    let script = "import json, pickle; print(json.dumps(pickle.load(open('2cluster.bin', 'rb'))))";
    let output = Command::new("python3")
        .args(["-c", script])
        .current_dir(place.path("."))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Of each image the top class and the colours, computed here from the saved
/// features: `0.5 * round(norm(f) / 0.5)`.
#[test]
fn a_cluster_file_holds_the_colours_of_each_image() {
    let place = place();
    let shown = "--input photos --save-arrays a.npz --cluster --quiet";
    let stdout = place.run(shown);
    assert!(place.path("2cluster.bin").is_file());
    let rows = python_reads(&place);
    let features = Npz::open(place.path("a.npz")).tensor("features");
    let z = (&features - features.mean(tch::Kind::Float)) / features.std(true);
    let z = z.clamp(-1.0, 1.0);
    let normed = (&z - z.min()) / (z.max() - z.min());
    let halves = (normed / 0.5).round();
    let code = halves.select(1, 0) * 9.0 + halves.select(1, 1) * 3.0 + halves.select(1, 2);
    let codes: Vec<Vec<i64>> = (0..3)
        .map(|image| Vec::<f32>::try_from(code.get(image).reshape([-1])).unwrap())
        .map(|codes| codes.into_iter().map(|code| code as i64).collect())
        .collect();
    let mut occurring: Vec<i64> = codes.concat();
    occurring.sort_unstable();
    occurring.dedup();
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 3);
    for ((row, codes), line) in rows.iter().zip(&codes).zip(columns(&stdout)) {
        assert_eq!(row[0], line[0].as_str());
        assert_eq!(row[1].to_string(), line[1].split_once(':').unwrap().0);
        let has = |code: &i64| i64::from(codes.contains(code));
        let expected: Vec<i64> = occurring.iter().map(has).collect();
        assert_eq!(row[2], serde_json::json!(expected));
    }
    // Whatever colours a map keeps.
    let before = fs::read(place.path("2cluster.bin")).unwrap();
    place.run("--input photos --cluster --quiet --inclusive --no-gradual-extrapolation");
    assert_eq!(fs::read(place.path("2cluster.bin")).unwrap(), before);
}

#[test]
fn a_map_of_clusters_is_drawn_and_its_errors_are_printed() {
    let place = place();
    place.run("--input photos --cluster --quiet");
    let som = |line: &str| {
        let output = place.try_run(line).assert().success().get_output().clone();
        let stdout = String::from_utf8(output.stdout).unwrap();
        let errors: Vec<f64> = ["quantisation error: ", "topographic error: "]
            .iter()
            .zip(stdout.lines())
            .map(|(name, line)| line.strip_prefix(name).unwrap().parse().unwrap())
            .collect();
        assert_eq!((errors.len(), stdout.lines().count()), (2, 2));
        assert!(errors[0] >= 0.0 && (0.0..=1.0).contains(&errors[1]));
        (stdout, String::from_utf8(output.stderr).unwrap())
    };
    let (first, stderr) = som("som 2cluster.bin --grid 6 --labels labels.txt");
    assert!(stderr.contains("results/clustering.png"), "{stderr}");
    assert!(!stderr.contains("ImageNet"), "{stderr}");
    let figure = fs::read(place.path("results/clustering.png")).unwrap();
    let decoded = image::load_from_memory(&figure).unwrap();
    assert!(decoded.width() >= 600 && decoded.height() >= 400);
    let (second, stderr) = som("som --grid 6 --labels labels.txt --output again.png");
    assert_eq!(second, first);
    assert_eq!(fs::read(place.path("again.png")).unwrap(), figure);
    assert!(stderr.contains("again.png"), "{stderr}");
    som("som 2cluster.bin --grid 6 --seed 7 --epochs 3 --output other.svg --quiet");
    let svg = fs::read_to_string(place.path("other.svg")).unwrap();
    assert!(roxmltree::Document::parse(&svg).is_ok());
}

#[test]
fn a_bad_cluster_file_or_option_is_an_error() {
    let place = place();
    fs::write(place.path("empty.bin"), "").unwrap();
    fs::write(place.path("text.bin"), "no pickle").unwrap();
    // cos\nsystem: a pickle that would run a program
    fs::write(place.path("evil.bin"), b"cos\nsystem\n(S'touch owned'\ntR.").unwrap();
    for (file, status) in [
        ("none.bin", 1),
        ("empty.bin", 1),
        ("text.bin", 1),
        ("evil.bin", 1),
        ("photos", 1),
    ] {
        place.refuses(&["som", file, "--output", "x.png"], &[file], status);
    }
    assert!(!place.path("owned").exists());
    for (arguments, fragment) in [
        (&["--grid", "1"][..], "--grid"),
        (&["--grid", "1000"], "--grid"),
        (&["--epochs", "0"], "--epochs"),
        (&["--seed", "x"], "--seed"),
        (&["--seed", "-1"], "prism som --help"),
        (&["--output", "x.bmp"], ".png"),
        (&["--output", "x"], ".png"),
    ] {
        place.refuses(
            &[&["som", "2cluster.bin"][..], arguments].concat(),
            &[fragment],
            2,
        );
    }
}

#[test]
fn labels_of_fewer_classes_than_the_clusters_have_are_an_error() {
    let place = place();
    place.run("--input photos --cluster --quiet");
    fs::write(place.path("one.txt"), "ant\n").unwrap();
    let som = ["som", "2cluster.bin", "--labels", "one.txt"];
    let stdout = place.run("--input photos --top 1 --quiet");
    assert!(
        !stdout.contains("\t0: "),
        "the tiny network would see class 0"
    );
    place.refuses(&som, &["one.txt", "1 names", "2cluster.bin has class"], 1);
    let stray = ["som", "2cluster.bin", "more.bin"];
    place.refuses(&stray, &["prism som", "more.bin"], 2);
}

/// Nothing is written where the figures cannot be.
#[test]
fn a_folder_in_the_way_of_the_cluster_file_leaves_no_figures() {
    let place = place();
    fs::create_dir(place.path("2cluster.bin")).unwrap();
    place.refuses_photo(&["--cluster"], &["2cluster.bin"], 1);
}

#[test]
fn alpha_is_drawn_over_white() {
    let place = place();
    place.run("--input photos/a.png --saliency gradcam --save-arrays a.npz --format png --quiet");
    let map = Npz::open(place.path("a.npz")).tensor("maps").get(0);
    let alpha = map.narrow(0, 3, 1);
    let shown: Tensor = map.narrow(0, 0, 3) * &alpha + (1.0 - &alpha);
    let figure = image::open(place.path("results/PRISM_tiny_vgg_traced.png")).unwrap();
    let figure = figure.to_rgb8();
    // The second of three panels of 448 pixels, 16 apart, below the titles; a
    // pixel of the map is 7 of the figure.
    let (mut left, mut top) = (0, 0);
    'found: for y in 0..figure.height() {
        for x in 0..figure.width() - 448 {
            let hairline = |x| figure.get_pixel(x, y).0 == [214, 216, 220];
            if hairline(x) && (x..x + 450).all(hairline) {
                (left, top) = (x + 1, y + 1);
                break 'found;
            }
        }
    }
    assert!(left > 0, "no panel is found");
    let top = top + 448 + 16;
    for (y, x) in [(8, 8), (32, 20), (40, 50), (20, 32), (55, 12)] {
        let drawn = figure
            .get_pixel(left + x as u32 * 7 + 3, top + y as u32 * 7 + 3)
            .0;
        for channel in 0..3 {
            let expected = shown.double_value(&[channel, y, x]) * 255.0;
            let off = (f64::from(drawn[channel as usize]) - expected).abs();
            assert!(off < 12.0, "{y} {x} {channel}: {off}");
        }
    }
}

/// What `models/export.py` writes into a file needs no flags; flags go before it.
#[test]
fn a_file_may_say_what_it_wants() {
    let place = place();
    let told = repository("tests/data/odd_networks/Told.pt");
    let told = told.display();
    let run = |options: &str| {
        let line = format!("--model {told} --input photos --save-arrays a.npz --quiet {options}");
        let output = place.try_run(&line).assert().success().get_output().clone();
        let first = columns(&String::from_utf8(output.stdout).unwrap())[0][1].clone();
        (Npz::open(place.path("a.npz")).tensor("input"), first)
    };
    let (input, class) = run("");
    assert_eq!(input.size(), [3, 3, 32, 48]);
    let name = class.split_once(": ").unwrap().0.to_string();
    assert!(
        ["a", "b", "c", "d", "e"].contains(&name.as_str()),
        "{class}"
    );
    // (x - mean) / std of x in [0, 1], channel by channel
    for (channel, low, high) in [(0, -1.0, 1.0), (1, -1.0, 3.0), (2, 0.0, 1.0)] {
        let channel = input.select(1, channel);
        assert!(channel.min().double_value(&[]) >= low - 1e-6);
        assert!(channel.max().double_value(&[]) <= high + 1e-6);
    }
    fs::write(place.path("five.txt"), "v\nw\nx\ny\nz\n").unwrap();
    let (input, class) = run("--image-size 64 --mean 0,0,0 --std 1,1,1 --labels five.txt");
    assert_eq!(input.size(), [3, 3, 64, 64]);
    assert!(input.min().double_value(&[]) >= 0.0 && input.max().double_value(&[]) <= 1.0);
    assert!(
        ["v", "w", "x", "y", "z"]
            .iter()
            .any(|name| class.starts_with(name))
    );
}
