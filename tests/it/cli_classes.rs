//! Classes, saliency and clusters on the command line: labels and targets, the fourth channel of
//! a map, the file for clustering and the figure of the clusters.

use std::fs;
use std::process::Command;

use crate::common::place::{Place, network, tiny};
use crate::common::{Npz, data, largest_difference};
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
    let known = "ant bee cat dog emu fox gnu hen ibis fox";
    let known: Vec<&str> = known.split(' ').collect();
    for (numbers, names) in numbers.iter().zip(&names) {
        assert_eq!((numbers.len(), names.len()), (11, 11));
        for (number, name) in numbers[1..].iter().zip(&names[1..]) {
            let (id, p) = number.split_once(": ").unwrap();
            let id: usize = id.strip_prefix("class ").unwrap().parse().unwrap();
            assert_eq!(*name, format!("{}: {p}", known[id]));
        }
    }
    let entries = (0..10).map(|id| format!(r#""{id}": ["n{id}", "name{id}"]"#));
    let json = format!("{{{}}}", entries.collect::<Vec<_>>().join(", "));
    fs::write(place.path("keras.JSON"), json).unwrap();
    let one = columns(&place.run("--quiet --input photos/a.png --labels keras.JSON --top 1"));
    assert_eq!(one[0].len(), 2);
    assert_eq!(one[0][1], numbers[0][1].replace("class ", "name"));
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
    let maps = Npz::open(place.path("gradcam.npz")).tensor("maps");
    assert_eq!(largest_difference(&plain, &maps.narrow(1, 0, 3)), 0.0);
}

/// The arrays of the reference, by the binary from the stored input.
#[test]
fn the_saliency_of_a_stored_input_is_pytorchs() {
    let place = Place::bare();
    let expected = Npz::open(data("expected/saliency.npz"));
    for (method, key) in [("gradcam", "gradcam"), ("exct-backp", "cebp")] {
        for (target, suffix) in [("", ""), ("--target 3", "_class3")] {
            let input = data("expected/tiny_resnet.npz");
            let line = format!(
                "--model {} --input {} --saliency {method} {target} --save-arrays out.npz --quiet",
                network("tiny_resnet_scripted"),
                input.display()
            );
            place.succeed(&line);
            let ours = Npz::open(place.path("out.npz")).tensor("saliency");
            let theirs = expected.tensor(&format!("tiny_resnet/{key}{suffix}"));
            let most = 1e-4 * theirs.abs().max().double_value(&[]);
            let off = largest_difference(&ours, &theirs);
            assert!(off < most, "{method} {target}: off by {off}");
        }
    }
}

#[test]
fn a_target_is_a_number_or_any_name_of_the_class() {
    let place = place();
    let with = |target: &str| {
        let mut prism = place.prism();
        prism.args(tiny("tiny_vgg_traced").split_whitespace());
        prism.args("--input photos --saliency gradcam --labels labels.txt".split(' '));
        prism.args(["--save-arrays", "out.npz", "--target", target]);
        place.expect(prism, 0, &["target: class 1, bee"]);
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

/// If no feature speaks for the class, the saliency is zero, the map is white and a note says so.
#[test]
fn a_saliency_of_zeros_is_noted() {
    let place = place();
    let model = data("odd_networks/ScalesItsInput.pt");
    let run = "--image-size 32 --input photos --saliency gradcam --save-arrays a.npz";
    let line = format!("--model {} {run}", model.display());
    let lacking = |target: usize| {
        let (_, stderr) = place.succeed(&format!("{line} --target {target}"));
        let maps = Npz::open(place.path("a.npz")).tensor("maps");
        let is_zero = |&image: &i64| maps.get(image).get(3).max().double_value(&[]) == 0.0;
        let zero = (0..3).filter(is_zero).count();
        assert_eq!(zero == 3, stderr.contains("in 3 of 3 images"), "{stderr}");
        zero
    };
    let counts: Vec<usize> = (0..5).map(lacking).collect();
    assert!(counts.contains(&3) && counts.contains(&0), "{counts:?}");
}

// --- clusters ---------------------------------------------------------------

/// The content of the cluster file, read by Python's own pickle.
fn python_reads(place: &Place) -> serde_json::Value {
    let script = "import json, pickle; print(json.dumps(pickle.load(open('2cluster.bin', 'rb'))))";
    let mut python = Command::new("python3");
    python.args(["-c", script]).current_dir(place.path("."));
    let output = python.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The top class and the colours of each image, the latter computed here from the saved features:
/// `0.5 * round(norm(f) / 0.5)`.
#[test]
fn a_cluster_file_holds_the_colours_of_each_image() {
    let place = place();
    let stdout = place.run("--input photos --save-arrays a.npz --cluster --quiet");
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
        let class = line[1].split_once(':').unwrap().0;
        assert_eq!(format!("class {}", row[1]), class);
        let has = |code: &i64| i64::from(codes.contains(code));
        let expected: Vec<i64> = occurring.iter().map(has).collect();
        assert_eq!(row[2], serde_json::json!(expected));
    }
    // The colours that a map shows do not matter.
    let before = fs::read(place.path("2cluster.bin")).unwrap();
    place.run("--input photos --cluster --quiet --inclusive --no-gradual-extrapolation");
    assert_eq!(fs::read(place.path("2cluster.bin")).unwrap(), before);
}

#[test]
fn a_map_of_clusters_is_drawn_and_its_errors_are_printed() {
    let place = place();
    place.run("--input photos --cluster --quiet");
    let som = |line: &str| {
        let (stdout, stderr) = place.succeed(line);
        let error = |line: &str| -> f64 { line.split_once("error: ").unwrap().1.parse().unwrap() };
        let lines: Vec<&str> = stdout.lines().collect();
        assert!(lines.len() == 2 && lines[0].starts_with("quantisation"));
        assert!(lines[1].starts_with("topographic"));
        assert!(error(lines[0]) >= 0.0 && (0.0..=1.0).contains(&error(lines[1])));
        (stdout, stderr)
    };
    let (first, stderr) = som("som 2cluster.bin --grid 6 --labels labels.txt");
    assert!(stderr.contains("results/clustering.png"), "{stderr}");
    assert!(!stderr.contains("ImageNet"), "{stderr}");
    let figure = fs::read(place.path("results/clustering.png")).unwrap();
    let decoded = image::load_from_memory(&figure).unwrap();
    assert!(decoded.width() >= 600 && decoded.height() >= 400);
    let (second, stderr) = som("som --grid 6 --labels labels.txt --output again.png");
    assert_eq!(second, first);
    // The files differ in the command line that they hold.
    assert!(image::open(place.path("again.png")).unwrap() == decoded);
    assert!(stderr.contains("again.png"), "{stderr}");
    som("som 2cluster.bin --grid 6 --seed 7 --epochs 3 --output other.svg --quiet");
    let svg = fs::read_to_string(place.path("other.svg")).unwrap();
    assert!(roxmltree::Document::parse(&svg).is_ok());
}

/// The file has `photos/a.png` and so on, as the run was given them.
#[test]
fn photographs_are_drawn_in_place_of_marks() {
    let place = place();
    place.run("--input photos --cluster --quiet");
    let pictures = |name: &str| {
        let svg = fs::read_to_string(place.path(name)).unwrap();
        let document = roxmltree::Document::parse(&svg).unwrap();
        let nodes = document.descendants();
        nodes
            .filter(|node| node.tag_name().name() == "image")
            .count()
    };
    let count = fs::read_dir(place.path("photos")).unwrap().count();
    let (_, stderr) = place.succeed("som --thumbnails --labels labels.txt --output all.svg");
    assert!(!stderr.contains("photograph"), "{stderr}");
    assert_eq!(pictures("all.svg"), count);
    fs::remove_file(place.path("photos/a.png")).unwrap();
    let (_, stderr) = place.succeed("som --thumbnails --labels labels.txt --output some.svg");
    let warning = format!("1 of {count} photographs cannot be read and have marks instead");
    assert!(
        stderr.contains(&warning) && stderr.contains("a.png"),
        "{stderr}"
    );
    assert_eq!(pictures("some.svg"), count - 1);
}

/// Texts of the PNG files that a run writes, read by the crate `png`.
#[test]
fn every_figure_says_how_it_was_made() {
    let place = place();
    place.run("--input photos/a.png --format png --per-image --cluster --quiet -o out");
    place.succeed("som out/2cluster.bin --quiet --output map.png");
    let texts = |path: &str| -> Vec<(String, String)> {
        let file = fs::File::open(place.path(path)).unwrap();
        let reader = png::Decoder::new(std::io::BufReader::new(file));
        let reader = reader.read_info().unwrap();
        let texts = reader.info().uncompressed_latin1_text.iter();
        texts
            .map(|chunk| (chunk.keyword.clone(), chunk.text.clone()))
            .collect()
    };
    let version = format!("prism {}", env!("CARGO_PKG_VERSION"));
    for file in [
        "PRISM_tiny_vgg_traced.png",
        "PRISM_var_tiny_vgg_traced.png",
        "PRISM_tiny_vgg_traced/0001_a_map.png",
        "PRISM_tiny_vgg_traced/0001_a_overlay.png",
    ] {
        let texts = texts(&format!("out/{file}"));
        assert_eq!(texts[0], ("Software".to_owned(), version.clone()), "{file}");
        let network = "network tiny_vgg_traced, layer ";
        assert!(
            texts[1].0 == "Description" && texts[1].1.starts_with(network),
            "{texts:?}"
        );
        let command = "--input photos/a.png --format png --per-image --cluster --quiet -o out";
        assert!(
            texts[2].0 == "Comment" && texts[2].1.ends_with(command),
            "{texts:?}"
        );
        assert!(texts[2].1.starts_with("prism "), "{texts:?}");
    }
    let texts = texts("map.png");
    assert_eq!(texts[1].1, "cluster map of out/2cluster.bin");
    assert_eq!(
        texts[2].1,
        "prism som out/2cluster.bin --quiet --output map.png"
    );
}

#[test]
fn the_map_keeps_its_colours_where_it_is_not_salient() {
    let place = place();
    let options = "--saliency gradcam --square --save-arrays a.npz --format png --quiet";
    place.run(&format!("--input photos/a.png {options}"));
    let map = Npz::open(place.path("a.npz")).tensor("maps").get(0);
    let alpha = map.narrow(0, 3, 1);
    let figure = image::open(place.path("results/PRISM_tiny_vgg_traced.png")).unwrap();
    let figure = figure.to_rgb8();
    // The second of three panels of 448 pixels, 16 apart, below the titles; a pixel of the map is
    // 7 pixels of the figure. A panel has a thin frame.
    let is_frame = |x, y| figure.get_pixel(x, y).0 == [214, 216, 220];
    let pixels = (0..figure.height()).flat_map(|y| (0..figure.width() - 448).map(move |x| (x, y)));
    let mut corners = pixels.filter(|&(x, y)| (x..x + 450).all(|x| is_frame(x, y)));
    let (left, top) = corners.next().expect("a panel");
    let (left, top) = (left + 1, top + 1 + 448 + 16);
    let mut seen = 0;
    for (y, x) in (0..64)
        .step_by(5)
        .flat_map(|y| (0..64).step_by(5).map(move |x| (y, x)))
    {
        // Not on the line.
        if (alpha.double_value(&[0, y, x]) - 0.5).abs() < 0.25 {
            continue;
        }
        seen += 1;
        let drawn = figure
            .get_pixel(left + x as u32 * 7 + 3, top + y as u32 * 7 + 3)
            .0;
        for channel in 0..3 {
            let expected = map.double_value(&[channel, y, x]) * 255.0;
            let off = (f64::from(drawn[channel as usize]) - expected).abs();
            assert!(off < 12.0, "{y} {x} {channel}: {off}");
        }
    }
    assert!(seen > 80, "{seen}");
}

/// `models/export.py` writes size, mean, deviation and labels into the file; options override them.
#[test]
fn a_network_file_can_hold_its_own_settings() {
    let place = place();
    let model = data("odd_networks/Told.pt");
    let run = |options: &str| {
        let words = "--input photos --save-arrays a.npz --quiet";
        let line = format!("--model {} {words} {options}", model.display());
        let class = columns(&place.succeed(&line).0)[0][1].clone();
        let name = class.split_once(": ").unwrap().0.to_string();
        (Npz::open(place.path("a.npz")).tensor("input"), name)
    };
    let within = |values: &Tensor, low: f64, high: f64| {
        values.min().double_value(&[]) >= low - 1e-6
            && values.max().double_value(&[]) <= high + 1e-6
    };
    let (input, name) = run("");
    assert_eq!(input.size(), [3, 3, 32, 48]);
    assert!(["a", "b", "c", "d", "e"].contains(&&*name), "{name}");
    // (x - mean) / std of x in [0, 1], channel by channel
    for (channel, low, high) in [(0, -1.0, 1.0), (1, -1.0, 3.0), (2, 0.0, 1.0)] {
        assert!(within(&input.select(1, channel), low, high), "{channel}");
    }
    fs::write(place.path("five.txt"), "v\nw\nx\ny\nz\n").unwrap();
    let (input, name) = run("--image-size 64 --mean 0,0,0 --std 1,1,1 --labels five.txt");
    assert_eq!(input.size(), [3, 3, 64, 64]);
    assert!(within(&input, 0.0, 1.0));
    assert!(["v", "w", "x", "y", "z"].contains(&&*name), "{name}");
}
