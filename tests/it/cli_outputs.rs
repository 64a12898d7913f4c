//! Further outputs of a run: files of each image, overlays, the page, JSON and the basis; and the
//! tables and texts of the other commands.

use std::fs;

use crate::common::place::{Place, tiny};
use crate::common::{Npz, assert_near, data};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn the_summary_agrees_with_the_lines() {
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
    let figures = ["PRISM_tiny_vgg_traced.jpg", "PRISM_var_tiny_vgg_traced.jpg"];
    let figures = figures.map(|name| format!("results/{name}"));
    assert_eq!(summary["files"], serde_json::json!(figures));
    assert!(summary["seconds"]["loading"].as_f64().unwrap() > 0.0);

    // A summary in a file does not replace the lines.
    let again = place.run("--quiet --input photos --top 2 --json new/run.json");
    assert_eq!(again, lines);
    let written = json(&fs::read_to_string(place.path("new/run.json")).unwrap());
    for key in ["images", "variance_ratio", "excitation", "guides"] {
        assert_eq!(written[key], summary[key], "{key}");
    }
    let files = written["files"].as_array().unwrap();
    assert_eq!(files.last().unwrap(), "new/run.json");
}

/// Guides that are not used are not listed; pixels that are left out are marked and hatched.
#[test]
fn the_way_of_upsampling_is_said_and_what_is_left_out_is_marked() {
    let place = Place::new();
    let base = format!("{} --quiet --input photos", tiny("tiny_resnet_traced"));
    let run = |options: &str| {
        let (lines, _) = place.succeed(&format!("{base} --json - --save-arrays run.npz {options}"));
        let maps = Npz::open(place.path("run.npz"));
        (json(&lines), maps)
    };
    for (options, way, has_guides, side) in [
        ("", "bilateral", true, 64),
        ("--upsampling bilinear", "bilinear", false, 64),
        ("--upsampling none", "none", false, 8),
    ] {
        let (summary, arrays) = run(options);
        assert_eq!(summary["upsampling"], way);
        assert_eq!(
            summary["guides"].as_array().unwrap().is_empty(),
            !has_guides,
            "{way}"
        );
        assert!(summary["colour_correlation"].as_f64().unwrap() > 0.3);
        assert_eq!(arrays.tensor("maps").size(), [3, 3, side, side]);
        let (_, arrays) = run(&format!("{options} --exclusive --per-image"));
        let left_out = arrays.tensor("left_out");
        assert_eq!(left_out.size(), [3, side, side]);
        let share = left_out.mean(tch::Kind::Double).double_value(&[]);
        assert!(share > 0.0 && share < 1.0, "{way}: {share}");
        let hidden = arrays.tensor("maps") * left_out.unsqueeze(1);
        assert_eq!(hidden.abs().max().double_value(&[]), 0.0, "{way}");
        // The hatching is made of two greys.
        let map = image::open(place.path("results/PRISM_tiny_resnet_traced/0001_a_map.png"));
        let map = map.unwrap().to_rgb8();
        let count = |grey: u8| map.pixels().filter(|pixel| pixel.0 == [grey; 3]).count();
        let first = left_out.get(0).mean(tch::Kind::Double).double_value(&[]);
        let hatched = (count(96) + count(160)) as f64 / f64::from(map.width() * map.height());
        assert!((hatched - first).abs() < 0.02, "{way}: {hatched} {first}");
    }
}

#[test]
fn per_image_writes_a_map_and_an_overlay_of_each_image() {
    let place = Place::new();
    fs::create_dir(place.path("other")).unwrap();
    fs::copy(place.path("photos/a.png"), place.path("other/a.png")).unwrap();
    place.run("--quiet --input photos other/a.png --per-image --overlay 0");
    let expected: Vec<String> = ["0001_a", "0002_a", "0003_b", "0004_c"]
        .iter()
        .flat_map(|stem| [format!("{stem}_map.png"), format!("{stem}_overlay.png")])
        .collect();
    assert_eq!(place.names("results/PRISM_tiny_vgg_traced"), expected);
    let open = |name: &str| {
        let path = place.path("results/PRISM_tiny_vgg_traced").join(name);
        image::open(path).unwrap().to_rgb8()
    };
    assert_eq!(open("0001_a_map.png").dimensions(), (448, 448));
    // An opacity of 0 shows the input: the same photograph twice.
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
fn an_overlay_adds_a_row_and_columns_wrap() {
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
    // The features of tiny_vgg are upsampled by products, those of tiny_resnet bilaterally.
    for (name, options) in [
        ("tiny_vgg_traced", ""),
        ("tiny_vgg_traced", "--no-gradual-extrapolation"),
        ("tiny_vgg_traced", "--inclusive --exclusive"),
        ("tiny_resnet_traced", ""),
        ("tiny_resnet_traced", "--inclusive --exclusive"),
    ] {
        let run = |words: &str| {
            place.succeed(&format!("{} --quiet {words} {options}", tiny(name)));
        };
        run("--input photos --save-basis basis.safetensors --save-arrays all.npz");
        run("--input photos/b.png --basis basis.safetensors --save-arrays one.npz");
        let [all, one] = ["all.npz", "one.npz"].map(|name| Npz::open(place.path(name)));
        for array in ["features", "maps"] {
            let (together, alone) = (all.tensor(array).get(1), one.tensor(array).get(0));
            assert_near(
                &together,
                &alone,
                2e-4,
                &format!("{name} {options} {array}"),
            );
        }
        // Without a basis one image is coloured by its own features.
        run("--input photos/b.png --save-arrays own.npz");
        let own = Npz::open(place.path("own.npz")).tensor("features");
        assert_ne!(own, one.tensor("features"));
    }
}

/// The data of a page.
fn data_of(page: &str) -> Value {
    let data = page.split_once("id=\"data\">").unwrap().1;
    json(data.split_once("</script>").unwrap().0)
}

/// The images in the data of a page.
fn images_of(page: &str) -> Vec<Value> {
    data_of(page)["images"].as_array().unwrap().clone()
}

/// A network that looks at 32x32 of 48x48 pixels: maps and pictures have this shape, and the
/// summary and the page say so.
#[test]
fn a_crop_inside_the_network_is_stated_everywhere() {
    let place = Place::new();
    let model = data("heads/cropped.pt");
    place.succeed(&format!(
        "--quiet --input photos --model {} --image-size 48 --report page.html --json run.json --save-arrays a.npz",
        model.display()
    ));
    let summary = json(&fs::read_to_string(place.path("run.json")).unwrap());
    let page = data_of(&fs::read_to_string(place.path("page.html")).unwrap());
    for said in [&summary["remarks"], &page["remarks"]] {
        let said = said.to_string();
        assert!(
            said.contains("rows 8 to 40 and columns 16 to 48 of 48x48 pixels"),
            "{said}"
        );
    }
    let maps = Npz::open(place.path("a.npz")).tensor("maps");
    assert_eq!(maps.size()[2..], [32, 32]);
    let picture = &page["images"][0];
    // 48 pixels are shown as 448: rows 75 to 373 and columns 149 to 448.
    assert_eq!([&picture["height"], &picture["width"]], [298, 299]);
}

#[test]
fn the_page_is_complete_and_refers_to_no_address() {
    let place = Place::new();
    let odd = place.path("photos/<img> & \"q\".png");
    fs::copy(place.path("photos/a.png"), &odd).unwrap();
    place.run("--quiet --input photos --report page.html --saliency gradcam");
    let page = fs::read_to_string(place.path("page.html")).unwrap();
    let images = images_of(&page);
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
    assert!(!page.contains("{{"), "a placeholder was not replaced");
}

#[test]
fn the_pictures_of_many_images_are_files_beside_the_page() {
    let place = Place::with_images(65);
    place.run("--quiet --input photos --report out/a%20page.html");
    let images = images_of(&fs::read_to_string(place.path("out/a%20page.html")).unwrap());
    assert_eq!(images.len(), 65);
    assert_eq!(images[64]["map"], "a%2520page_files/0065_064_map.jpg");
    for kind in ["input", "map"] {
        let file = place.path(&format!("out/a%20page_files/0065_064_{kind}.jpg"));
        assert!(image::open(file).is_ok());
    }
    assert_eq!(place.names("out/a%20page_files").len(), 130);
}

#[test]
fn models_lists_the_known_networks_and_their_weights() {
    let place = Place::bare();
    fs::create_dir(place.path("models")).unwrap();
    fs::write(place.path("models/vgg16.pth"), b"weights").unwrap();
    let (table, stderr) = place.succeed("models");
    assert_eq!(stderr, "");
    let lines = table.lines();
    let rows: Vec<Vec<&str>> = lines
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows[0], ["name", "parameters", "weights", "where"]);
    assert_eq!(rows.len(), 1 + prism::model::zoo::entries().len());
    let row = |name: &str| rows.iter().find(|row| row[0] == name).unwrap();
    let vgg16 = ["138.4", "M", "yes", "./models/vgg16.pth"];
    assert_eq!(row("vgg16")[1..], vgg16);
    assert_eq!(row("resnet50")[3], "no");
    assert!(row("resnet50")[4].ends_with("hub/checkpoints/resnet50-0676ba61.pth"));
}

#[test]
fn completions_and_the_manual_name_the_options() {
    let place = Place::bare();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let text = place.succeed(&format!("completions {shell}")).0;
        for part in ["figure-columns", "som"] {
            assert!(text.contains(part), "no {part} for {shell}");
        }
    }
    let page = place.succeed("man").0;
    assert!(page.starts_with(".ie") || page.starts_with(".TH"));
    for part in [
        ".SH NAME",
        ".SH OPTIONS",
        "no\\-gradual\\-extrapolation",
        ".SH EXAMPLES",
        ".SH EXIT STATUS",
        "PRISM_OFFLINE",
    ] {
        assert!(page.contains(part), "{part}");
    }
}
