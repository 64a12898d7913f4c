//! Further outputs of a run: files of each image, overlays, the page, JSON and the basis; and the
//! tables and texts of the other commands.

use std::fs;

use prism::figure::Palette;

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
            assert_eq!(name, format!("class {}", class["id"]));
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
    assert_eq!(open("0001_a_map.png").dimensions(), (517, 388));
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
    assert_eq!(with_row, plain + 388 + 16, "one panel and one gap more");
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

/// A basis belongs to the rule of upsampling, which the summary does not repeat if nothing guided.
#[test]
fn a_basis_fits_a_run_without_finer_guides_and_is_named_in_the_caption() {
    let place = Place::new();
    let base = format!(
        "{} --quiet --layer conv1 --json -",
        tiny("tiny_resnet_traced")
    );
    let run = |options: &str| json(&place.succeed(&format!("{base} {options}")).0);
    let caption = || {
        let figure = place.path("results/PRISM_tiny_resnet_traced.svg");
        texts_of(&fs::read_to_string(figure).unwrap())
    };
    let own = run("--input photos --format svg --save-basis my_basis.safetensors");
    assert_eq!(own["upsampling"], "bilinear");
    let drawn = caption();
    assert!(drawn.contains("bilinear upsampling"), "{drawn}");
    assert!(drawn.contains("Colours: the first three principal components, which"));
    let later = run("--input photos/b.png --format svg --basis ./my_basis.safetensors");
    assert_eq!(later["upsampling"], "bilinear");
    let drawn = caption();
    let components = "Colours: the first three components of the basis my_basis.safetensors, which";
    assert!(drawn.contains(components), "{drawn}");
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

/// The value of an attribute in the first tag of `html` that contains `tag`.
fn attribute<'a>(html: &'a str, tag: &str, name: &str) -> &'a str {
    let tag = html.split_once(tag).unwrap().1;
    let tag = tag.split_once("<img ").map_or(tag, |(_, image)| image);
    let value = tag.split_once(&format!(" {name}=\"")).unwrap().1;
    value.split_once('"').unwrap().0
}

/// The cards of a page, as HTML.
fn cards_of(page: &str) -> Vec<&str> {
    page.split("<li class=\"card\"").skip(1).collect()
}

/// Width and height of the picture of a card.
fn size_of(card: &str) -> [f64; 2] {
    ["width", "height"].map(|side| attribute(card, "pane input", side).parse().unwrap())
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
    let page = fs::read_to_string(place.path("page.html")).unwrap();
    for said in [summary["remarks"].to_string(), page.clone()] {
        assert!(
            said.contains("rows 8 to 40 and columns 16 to 48 of 48x48 pixels"),
            "{said}"
        );
    }
    let maps = Npz::open(place.path("a.npz")).tensor("maps");
    assert_eq!(maps.size()[2..], [32, 32]);
    // Two thirds of each side of 4:3.
    let [width, height] = size_of(cards_of(&page)[0]);
    assert!(
        (width / height - 4.0 / 3.0).abs() < 0.02,
        "{width}x{height}"
    );
}

/// A photograph of 4:3 at the input size of 64x64: stretched it is shown in its own shape; the
/// crop and the padded square are squares. sqrt(4 / 3) 448 = 517.3.
#[test]
fn pictures_and_maps_have_the_shape_of_the_photograph() {
    let place = Place::new();
    let photo = image::open(place.path("photos/a.png")).unwrap().to_rgb8();
    let shape = |options: &str| {
        place.run(&format!(
            "--quiet --input photos/a.png --per-image --overlay 0 --report a.html {options}"
        ));
        let page = fs::read_to_string(place.path("a.html")).unwrap();
        let open = |kind: &str| {
            let file = format!("results/PRISM_tiny_vgg_traced/0001_a_{kind}.png");
            image::open(place.path(&file)).unwrap().to_rgb8()
        };
        let (map, input) = (open("map"), open("overlay"));
        assert_eq!(map.dimensions(), input.dimensions());
        // The page has the photograph, in the same shape, without pixels that it lacks.
        let [width, height] = size_of(cards_of(&page)[0]);
        let ratio = f64::from(input.width()) / f64::from(input.height());
        assert!((width / height - ratio).abs() < 0.02, "{width}x{height}");
        assert!(width * height <= 1.02 * f64::from(photo.width() * photo.height()));
        input
    };
    let own = shape("");
    assert_eq!(own.dimensions(), (517, 388));
    let resized = image::imageops::resize(&photo, 517, 388, image::imageops::Triangle);
    let off = own
        .iter()
        .zip(resized.iter())
        .map(|(a, b)| u64::from(a.abs_diff(*b)));
    let mean = off.sum::<u64>() as f64 / own.len() as f64;
    assert!(mean < 1.0, "the photograph is distorted or blurred: {mean}");
    for options in [
        "--square",
        "--resize crop",
        "--resize pad",
        "--resize pad --square",
    ] {
        assert_eq!(shape(options).dimensions(), (448, 448), "{options}");
    }
}

/// All texts of an SVG figure in one string.
fn texts_of(svg: &str) -> String {
    let document = roxmltree::Document::parse(svg).unwrap();
    let nodes = document.descendants();
    let texts = nodes.filter(|node| node.tag_name().name() == "text");
    let texts = texts.map(|node| node.text().unwrap_or_default().trim().to_string());
    texts.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_figure_says_what_it_shows() {
    let place = Place::new();
    fs::create_dir(place.path("other")).unwrap();
    for copy in ["other/a.png", "other/a\tb.png"] {
        fs::copy(place.path("photos/a.png"), place.path(copy)).unwrap();
    }
    let figure = |options: &str| {
        place.run(&format!(
            "--quiet --input photos other --format svg {options}"
        ));
        texts_of(&fs::read_to_string(place.path("results/PRISM_tiny_vgg_traced.svg")).unwrap())
    };
    let plain = figure("");
    for part in [
        "photos/a.png",
        "other/a.png",
        "a\\tb.png",
        "b.png",
        "input",
        "PRISM map",
        "tiny_vgg_traced, layer features.",
        "upsampling by products.",
        "of the variance, as red, green and blue; before upsampling, the colours follow",
        "Given: 64×64 pixels",
        "Groups of similar places: the colour of their mean",
        "Ends of the components, and the classes whose scores rise most there",
        "much red: class ",
        "little blue: class ",
        "% of all places",
        "Assumed: stretched",
    ] {
        assert!(plain.contains(part), "{part}: {plain}");
    }
    assert!(
        !plain.contains("photos/b.png") && !plain.contains("surrounds"),
        "{plain}"
    );
    let unnamed = figure("--no-legend");
    assert!(!unnamed.contains("places") && !unnamed.contains("much red"));
    let common = figure("--inclusive --hooks auto --layer features.0");
    assert!(common.contains("the colour of most of them"), "{common}");
    assert!(common.contains("as red, green and blue, quantised to 27 colours;"));
    let own = figure("--saliency gradcam --split-rgb --palette oklab --upsampling none");
    for part in [
        "Grad-CAM, own scale",
        "above half of the largest in the image.",
        "component 3 (darker = more)",
        "light: class ",
        "blue: class ",
        "as lightness, blue to yellow, and green to red; the colours follow",
        "no upsampling.",
    ] {
        assert!(own.contains(part), "{part}: {own}");
    }
    let summary = place.run("--quiet --input photos other --top 10 --json -");
    let summary = json(&summary);
    let images = summary["images"].as_array().unwrap();
    let probabilities = images.iter().map(|image| {
        let classes = image["classes"].as_array().unwrap();
        let third = classes.iter().find(|class| class["id"] == 3).unwrap();
        third["probability"].as_f64().unwrap()
    });
    let target = figure("--saliency gradcam --target 3");
    for probability in probabilities {
        let title = format!("target class 3: {probability:.2}");
        assert!(target.contains(&title), "{title}: {target}");
    }
    for part in [
        "one scale for all images",
        "above half of the largest of all images.",
    ] {
        assert!(target.contains(part), "{part}: {target}");
    }
}

/// The map keeps its colours, and a line of black and white surrounds what is salient: the
/// saliency, enlarged smoothly, is above half of the largest inside. With a target, that is the
/// largest of all images.
#[test]
fn saliency_is_a_line_on_the_map() {
    let place = Place::new();
    let maps = |options: &str| {
        place.run(&format!(
            "--quiet --input photos --per-image --save-arrays a.npz {options}"
        ));
        ["0001_a", "0002_b", "0003_c"].map(|stem| {
            let file = format!("results/PRISM_tiny_vgg_traced/{stem}_map.png");
            image::open(place.path(&file)).unwrap().to_rgb8()
        })
    };
    let plain = maps("");
    for (options, is_one_scale) in [("", false), ("--target 3", true)] {
        let lined = maps(&format!("--saliency gradcam {options}"));
        let saliency = Npz::open(place.path("a.npz")).tensor("saliency");
        for (image, (plain, lined)) in (0..).zip(plain.iter().zip(&lined)) {
            let own = saliency.narrow(0, image, 1);
            let most = if is_one_scale {
                saliency.max()
            } else {
                own.max()
            };
            let size = [i64::from(plain.height()), i64::from(plain.width())];
            let smooth = (own / most).upsample_bicubic2d(size, false, None, None);
            let smooth = Vec::<f32>::try_from(smooth.contiguous().view([-1])).unwrap();
            let (mut changed, mut black) = (0, 0);
            for ((plain, lined), value) in plain.pixels().zip(lined.pixels()).zip(smooth) {
                changed += usize::from(plain != lined);
                if lined.0 == [0; 3] && plain.0 != [0; 3] {
                    black += 1;
                    assert!((value - 0.5).abs() < 0.15, "{options} {image}: {value}");
                }
            }
            assert!(
                changed * 8 < plain.pixels().len(),
                "{options} {image}: {changed}"
            );
            assert!(is_one_scale || black > 300, "{image}: {black}");
        }
    }
}

/// The palette changes pictures, not arrays.
#[test]
fn a_palette_is_of_the_pictures_alone() {
    let place = Place::new();
    let run = |palette: &str| {
        place.run(&format!(
            "--quiet --input photos/a.png --per-image --upsampling none --save-arrays a.npz --palette {palette} --report a.html"
        ));
        let map = place.path("results/PRISM_tiny_vgg_traced/0001_a_map.png");
        let map = image::open(map).unwrap().to_rgb8();
        let page = data_of(&fs::read_to_string(place.path("a.html")).unwrap());
        assert_eq!(page["runs"][0]["palette"], palette);
        (Npz::open(place.path("a.npz")).tensor("maps"), map)
    };
    let ((components, rgb), (same, oklab)) = (run("rgb"), run("oklab"));
    assert_eq!(components, same);
    assert_eq!(components.size(), [1, 3, 8, 8]);
    for (row, column) in (0..8).flat_map(|row| (0..8).map(move |column| (row, column))) {
        let of = |channel| components.double_value(&[0, channel, row, column]) as f32;
        let place = (column as u32 * 517 / 8 + 32, row as u32 * 388 / 8 + 24);
        for (palette, map) in [(Palette::Rgb, &rgb), (Palette::Oklab, &oklab)] {
            let colour = palette.colour([of(0), of(1), of(2)]);
            let colour = colour.map(|value| (value * 255.0).round() as u8);
            assert_eq!(
                map.get_pixel(place.0, place.1).0,
                colour,
                "{palette} {row} {column}"
            );
        }
    }
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
    for card in cards_of(&page) {
        for (pane, name) in [
            ("pane input", "src"),
            ("pane map", "src"),
            ("pane map", "data-saliency"),
        ] {
            let address = attribute(card, pane, name);
            assert!(address.starts_with("data:image/jpeg;base64,/9j/"), "{pane}");
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
    let page = fs::read_to_string(place.path("out/a%20page.html")).unwrap();
    let cards = cards_of(&page);
    assert_eq!(cards.len(), 65);
    let map = attribute(cards[64], "pane map", "src");
    assert_eq!(map, "a%2520page_files/0065_064_map.jpg");
    for kind in ["input", "map"] {
        let file = place.path(&format!("out/a%20page_files/0065_064_{kind}.jpg"));
        assert!(image::open(file).is_ok());
    }
    assert_eq!(place.names("out/a%20page_files").len(), 131); // and the features
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
