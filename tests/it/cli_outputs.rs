//! What a run writes beside its two figures: files of each image, overlays, the page, JSON,
//! the basis; and the tables and texts of the other commands.

use std::fs;

use crate::common::place::{Place, network, tiny};
use crate::common::{Npz, largest_difference};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn the_summary_says_what_the_lines_say_and_more() {
    let place = Place::new();
    let lines = place.run("--quiet --input photos --top 2");
    let printed = place.run("--quiet --input photos --top 2 --json -");
    let summary = json(&printed);
    assert_eq!(summary["network"], "tiny_vgg_traced");
    assert_eq!(summary["input_size"], serde_json::json!([64, 64]));
    assert_eq!(summary["classes"], 10);
    assert!(summary["excitation"]["name"].is_string());
    let shape = summary["excitation"]["shape"].as_array().unwrap();
    assert_eq!(shape.len(), 3);
    for (line, image) in lines.lines().zip(summary["images"].as_array().unwrap()) {
        let mut told = vec![image["path"].as_str().unwrap().to_string()];
        for class in image["classes"].as_array().unwrap() {
            let probability = class["probability"].as_f64().unwrap();
            let name = class["name"].as_str().unwrap();
            assert_eq!(name, class["id"].to_string());
            told.push(format!("{name}: {probability:.2}"));
        }
        assert_eq!(line, told.join("\t"));
    }
    let ratios = summary["variance_ratio"].as_array().unwrap();
    let total: f64 = ratios.iter().map(|ratio| ratio.as_f64().unwrap()).sum();
    assert!((total - 1.0).abs() < 1e-9, "{total}");
    let files: Vec<&str> = summary["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f.as_str().unwrap())
        .collect();
    assert_eq!(
        files,
        [
            "results/PRISM_tiny_vgg_traced.jpg",
            "results/PRISM_var_tiny_vgg_traced.jpg"
        ]
    );
    assert!(summary["seconds"]["loading"].as_f64().unwrap() > 0.0);

    // To a file, the lines stay.
    assert_eq!(
        place.run("--quiet --input photos --top 2 --json new/run.json"),
        lines
    );
    let written = json(&fs::read_to_string(place.path("new/run.json")).unwrap());
    for key in ["images", "variance_ratio", "excitation", "guides"] {
        assert_eq!(written[key], summary[key], "{key}");
    }
    let files = written["files"].as_array().unwrap();
    assert_eq!(files.last().unwrap(), "new/run.json");
}

#[test]
fn every_image_has_a_map_and_an_overlay_of_its_own() {
    let place = Place::new();
    fs::create_dir(place.path("other")).unwrap();
    fs::copy(place.path("photos/a.png"), place.path("other/a.png")).unwrap();
    place.run("--quiet --input photos other/a.png --per-image --overlay 0");
    let mut names: Vec<String> = fs::read_dir(place.path("results/PRISM_tiny_vgg_traced"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let expected: Vec<String> = ["0001_a", "0002_a", "0003_b", "0004_c"]
        .iter()
        .flat_map(|stem| [format!("{stem}_map.png"), format!("{stem}_overlay.png")])
        .collect();
    assert_eq!(names, expected);
    let open = |name: &str| {
        let path = place.path("results/PRISM_tiny_vgg_traced").join(name);
        image::open(path).unwrap().to_rgb8()
    };
    assert_eq!(open("0001_a_map.png").dimensions(), (448, 448));
    // Of no opacity is the input: the same photograph twice.
    assert_eq!(open("0001_a_overlay.png"), open("0002_a_overlay.png"));
    let nothing = open("0001_a_overlay.png");
    place.run("--quiet --input photos other/a.png --per-image --overlay 1");
    assert_eq!(open("0001_a_overlay.png"), open("0001_a_map.png"));
    place.run("--quiet --input photos other/a.png --per-image");
    let (half, map) = (open("0001_a_overlay.png"), open("0001_a_map.png"));
    for ((half, map), input) in half.pixels().zip(map.pixels()).zip(nothing.pixels()) {
        for channel in 0..3 {
            let mean = (f64::from(map[channel]) + f64::from(input[channel])) / 2.0;
            assert!((f64::from(half[channel]) - mean).abs() <= 1.0);
        }
    }
}

#[test]
fn an_overlay_is_a_row_and_columns_wrap() {
    let place = Place::new();
    let size = |options: &str| {
        place.run(&format!("--quiet --input photos --format png {options}"));
        let figure = place.path("results/PRISM_tiny_vgg_traced.png");
        image::open(figure).unwrap().to_rgb8().dimensions()
    };
    let (wide, plain) = size("");
    let (_, with_row) = size("--overlay 0.4");
    assert_eq!(with_row, plain + 448 + 16, "one panel and one gap more");
    let (narrow, tall) = size("--figure-columns 1");
    assert!(narrow < wide / 2 && tall > plain * 2);
}

#[test]
fn a_basis_gives_a_later_run_the_same_colours() {
    let place = Place::new();
    // Products bring up tiny_vgg's features, a regression the other's.
    for (name, options, other) in [
        ("tiny_vgg_traced", "", "--inclusive"),
        ("tiny_vgg_traced", "--no-gradual-extrapolation", ""),
        ("tiny_vgg_traced", "--inclusive --exclusive", ""),
        ("tiny_resnet_traced", "", "--no-gradual-extrapolation"),
        ("tiny_resnet_traced", "--inclusive --exclusive", ""),
    ] {
        let run = |words: &str| {
            let output = place.try_run(&format!("{} --quiet {words} {options}", tiny(name)));
            assert!(output.status.success(), "{output:?}");
        };
        run("--input photos --save-basis basis.safetensors --save-arrays all.npz");
        // One image alone: by itself it would be coloured by its own features.
        run("--input photos/b.png --save-arrays own.npz");
        run("--input photos/b.png --basis basis.safetensors --save-arrays one.npz");
        let open = |name: &str| Npz::open(place.path(name));
        let (all, one, own) = (open("all.npz"), open("one.npz"), open("own.npz"));
        for array in ["features", "maps"] {
            let (together, alone) = (all.tensor(array).get(1), one.tensor(array).get(0));
            let difference = largest_difference(&together, &alone);
            assert!(difference < 2e-4, "{name} {options} {array}: {difference}");
        }
        assert_ne!(own.tensor("features"), one.tensor("features"));
        // It belongs to this kind of map.
        let model = network(name);
        let mut words = vec!["--input", "photos/a.png", "--model", &model];
        words.extend(["--image-size", "64", "--basis", "basis.safetensors"]);
        words.extend(other.split_whitespace());
        place.refuses(&words, &["basis.safetensors", "this basis has the"], 1);
    }
    place.refuses_photo(
        &["--basis", "basis.safetensors"],
        &["'tiny_resnet_traced'", "'tiny_vgg_traced'"],
        1,
    );
}

#[test]
fn two_outputs_of_one_name_are_refused() {
    let place = Place::new();
    let twice = ["--json", "x.html", "--report", "./x.html"];
    place.refuses_photo(&twice, &["--report and --json", "same file"], 2);
    let figure = ["--json", "results/PRISM_tiny_vgg_traced.jpg"];
    place.refuses_photo(&figure, &["another file of this run"], 1);
    place.refuses_photo(&["--json", "out/"], &["out/", "folder"], 1);
    place.refuses_photo(&["--json", "/dev/null"], &["no ordinary file"], 1);
}

#[test]
fn what_is_no_basis_is_an_error() {
    let place = Place::new();
    fs::write(place.path("no.safetensors"), b"no basis").unwrap();
    fs::write(place.path("empty.safetensors"), b"").unwrap();
    place.run(
        "--quiet --input photos --save-arrays arrays.safetensors --save-basis basis.safetensors",
    );
    let whole = fs::read(place.path("basis.safetensors")).unwrap();
    fs::write(place.path("cut.safetensors"), &whole[..whole.len() - 9]).unwrap();
    for file in ["no", "empty", "arrays", "cut", "missing"] {
        let file = format!("{file}.safetensors");
        place.refuses_photo(&["--basis", &file], &[&file, "basis"], 1);
    }
    place.refuses_photo(&["--basis", "basis.npz"], &[".safetensors"], 2);
    place.refuses_photo(
        &[
            "--basis",
            "basis.safetensors",
            "--save-basis",
            "b.safetensors",
        ],
        &["--save-basis"],
        2,
    );
}

#[test]
fn the_page_holds_everything_and_fetches_nothing() {
    let place = Place::new();
    let odd = place.path("photos/<img> & \"q\".png");
    fs::copy(place.path("photos/a.png"), &odd).unwrap();
    place.run("--quiet --input photos --report page.html --saliency gradcam");
    let page = fs::read_to_string(place.path("page.html")).unwrap();
    let data = page.split_once("id=\"data\">").unwrap().1;
    let data = json(data.split_once("</script>").unwrap().0);
    let images = data["images"].as_array().unwrap();
    assert_eq!(images.len(), 4);
    assert_eq!(images[0]["path"], "photos/<img> & \"q\".png");
    for image in images {
        for kind in ["input", "map", "saliency"] {
            let address = image[kind].as_str().unwrap();
            assert!(address.starts_with("data:image/jpeg;base64,/9j/"), "{kind}");
        }
    }
    assert!(!page.contains("<img> &"), "a name is text, not markup");
    for address in ["src=\"http", "href=\"http", "@import", "url(http"] {
        assert!(!page.contains(address), "{address}");
    }
    assert!(!page.contains("{{"), "a place was left open");
    place.refuses_photo(&["--report", "page.pdf"], &[".html"], 2);
}

#[test]
fn many_pictures_lie_beside_the_page() {
    let place = Place::bare();
    fs::create_dir(place.path("photos")).unwrap();
    for k in 0..65u8 {
        let picture =
            image::RgbImage::from_fn(9, 9, |x, y| image::Rgb([x as u8 * 28, y as u8 * 28, k * 3]));
        picture
            .save(place.path(&format!("photos/{k:02}.png")))
            .unwrap();
    }
    place.run("--quiet --input photos --report out/a%20page.html");
    let page = fs::read_to_string(place.path("out/a%20page.html")).unwrap();
    let data = page.split_once("id=\"data\">").unwrap().1;
    let data = json(data.split_once("</script>").unwrap().0);
    let images = data["images"].as_array().unwrap();
    assert_eq!(images.len(), 65);
    assert_eq!(images[64]["map"], "a%2520page_files/0065_64_map.jpg");
    for kind in ["input", "map"] {
        let file = place.path(&format!("out/a%20page_files/0065_64_{kind}.jpg"));
        assert!(image::open(file).is_ok());
    }
    assert_eq!(
        fs::read_dir(place.path("out/a%20page_files"))
            .unwrap()
            .count(),
        130
    );
}

#[test]
fn the_known_networks_are_listed_with_their_weights() {
    let place = Place::bare();
    fs::create_dir(place.path("models")).unwrap();
    fs::write(place.path("models/vgg16.pth"), b"weights").unwrap();
    let output = place.try_run("models");
    assert!(output.status.success() && output.stderr.is_empty());
    let table = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows[0], ["name", "parameters", "weights", "where"]);
    assert_eq!(rows.len(), 1 + prism::model::zoo::entries().len());
    let row = |name: &str| rows.iter().find(|row| row[0] == name).unwrap();
    assert_eq!(
        row("vgg16")[1..],
        ["138.4", "M", "yes", "./models/vgg16.pth"]
    );
    assert_eq!(row("resnet50")[3], "no");
    assert!(row("resnet50")[4].ends_with("hub/checkpoints/resnet50-0676ba61.pth"));
}

#[test]
fn shells_and_man_learn_the_options() {
    let place = Place::bare();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = place.try_run(&format!("completions {shell}"));
        assert!(output.status.success(), "{shell}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            text.contains("figure-columns") && text.contains("som"),
            "{shell}"
        );
    }
    place.refuses(&["completions", "tcsh"], &["tcsh", "bash"], 2);
    let output = place.try_run("man");
    let page = String::from_utf8(output.stdout).unwrap();
    assert!(
        page.starts_with(".ie") || page.starts_with(".TH"),
        "{}",
        &page[..40]
    );
    for part in [
        ".SH NAME",
        ".SH OPTIONS",
        "no\\-gradual\\-extrapolation",
        "Examples:",
        ".SH EXIT STATUS",
        "PRISM_OFFLINE",
    ] {
        assert!(page.contains(part), "{part}");
    }
}

#[test]
fn opacities_and_columns_that_cannot_be_are_usage_errors() {
    let place = Place::new();
    for (words, part) in [
        (["--overlay", "1.5"], "from 0 to 1"),
        (["--overlay", "NaN"], "from 0 to 1"),
        (["--figure-columns", "0"], "from 1 to 64"),
    ] {
        place.refuses_photo(&words, &[part], 2);
    }
}
