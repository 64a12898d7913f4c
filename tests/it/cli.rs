//! The binary as a user runs it: what it writes, what it prints, and how it
//! refuses.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::common::place::{Place, assert_one_error, network, repository, tiny};
use crate::common::{Npz, largest_difference};
use assert_cmd::assert::OutputAssertExt;
use image::RgbImage;
use tch::Tensor;

/// No run here takes longer, even on a machine at work.
const PATIENCE: Duration = Duration::from_secs(120);

/// JPEG, PNG, ... as pixels and dots per inch.
fn jpeg(path: &Path) -> (RgbImage, u16) {
    let bytes = fs::read(path).unwrap();
    assert_eq!(bytes[..3], [0xff, 0xd8, 0xff], "{}", path.display());
    assert_eq!(bytes[bytes.len() - 2..], [0xff, 0xd9], "{}", path.display());
    // The first segment is JFIF's: unit 1 is dots per inch.
    assert_eq!(&bytes[6..11], b"JFIF\0");
    assert_eq!(bytes[13], 1, "the density has a unit");
    let density = u16::from_be_bytes([bytes[14], bytes[15]]);
    (image::load_from_memory(&bytes).unwrap().to_rgb8(), density)
}

/// One default run on three photographs, with its arrays: many tests read it.
struct DefaultRun {
    place: Place,
    stdout: String,
    stderr: String,
}

fn default_run() -> &'static DefaultRun {
    static RUN: OnceLock<DefaultRun> = OnceLock::new();
    RUN.get_or_init(|| {
        let place = Place::new();
        let line = format!(
            "{} --input photos --save-arrays run.npz",
            tiny("tiny_vgg_traced")
        );
        let output = place.try_run(&line);
        let output = output.assert().success().get_output().clone();
        DefaultRun {
            place,
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    })
}

fn default_arrays() -> Npz {
    Npz::open(default_run().place.path("run.npz"))
}

/// The default run again with other options; its arrays.
fn arrays_with(options: &str) -> Npz {
    let place = Place::new();
    place.run(&format!("--input photos --save-arrays run.npz {options}"));
    Npz::open(place.path("run.npz"))
}

fn files_below(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn assert_near(a: &Tensor, b: &Tensor, most: f64, what: &str) {
    let off = largest_difference(a, b);
    assert!(off <= most, "{what}: off by {off}");
}

// --- what appears ---------------------------------------------------------

#[test]
fn a_run_writes_two_figures_and_nothing_else() {
    let run = default_run();
    let results = run.place.path("results");
    assert_eq!(
        files_below(&results),
        ["PRISM_tiny_vgg_traced.jpg", "PRISM_var_tiny_vgg_traced.jpg"]
    );
    assert_eq!(
        files_below(run.place.root.path()),
        ["photos", "results", "run.npz"]
    );
}

#[test]
fn figures_are_jpegs_of_readable_size_with_a_density() {
    let results = default_run().place.path("results");
    let (maps, density) = jpeg(&results.join("PRISM_tiny_vgg_traced.jpg"));
    // Three columns of a photograph over its map, each 448 pixels wide or more.
    assert!(
        maps.width() >= 3 * 448 && maps.width() < 3 * 700,
        "{}",
        maps.width()
    );
    assert!(
        maps.height() >= 2 * 448 && maps.height() < 2 * 700,
        "{}",
        maps.height()
    );
    assert!(density >= 72, "{density}");
    let (variances, density) = jpeg(&results.join("PRISM_var_tiny_vgg_traced.jpg"));
    assert!(variances.width() >= 448 && variances.height() >= 224);
    assert!(density >= 72, "{density}");
}

#[test]
fn stdout_is_a_line_per_image_with_its_three_classes() {
    let lines: Vec<&str> = default_run().stdout.lines().collect();
    assert_eq!(lines.len(), 3);
    let logits = default_arrays().tensor("logits");
    for (image, (line, path)) in
        (0..).zip(
            lines
                .iter()
                .zip(["photos/a.png", "photos/b.png", "photos/c.jpg"]),
        )
    {
        let fields: Vec<&str> = line.split('\t').collect();
        assert_eq!((fields.len(), fields[0]), (4, path), "{line}");
        let shares = logits.get(image).softmax(0, tch::Kind::Double);
        let (values, ids) = shares.topk(3, 0, true, true);
        for (rank, field) in (0..).zip(&fields[1..]) {
            let id = ids.int64_value(&[rank]);
            let share = values.double_value(&[rank]);
            assert_eq!(*field, format!("{id}: {share:.2}"), "{line}");
        }
    }
}

#[test]
fn stderr_names_the_files_and_nothing_moves_where_it_is_no_terminal() {
    let stderr = &default_run().stderr;
    for file in [
        "results/PRISM_tiny_vgg_traced.jpg",
        "results/PRISM_var_tiny_vgg_traced.jpg",
        "run.npz",
    ] {
        assert!(stderr.contains(file), "{stderr}");
    }
    assert!(!stderr.contains(['\r', '\x1b']), "{stderr:?}");
    assert!(stderr.lines().count() < 6, "{stderr}");
}

#[test]
fn quiet_silences_stderr_alone() {
    let place = Place::new();
    let line = format!("{} --quiet --input photos", tiny("tiny_vgg_traced"));
    let output = place.try_run(&line);
    assert!(output.status.success());
    assert!(output.stderr.is_empty());
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        default_run().stdout
    );
}

#[test]
fn verbose_tells_the_choices_and_the_times() {
    let place = Place::new();
    let line = format!(
        "{} --verbose --input photos --batch-size 2",
        tiny("tiny_vgg_traced")
    );
    let output = place.try_run(&line);
    assert!(output.status.success());
    let told = String::from_utf8(output.stderr).unwrap();
    for part in [
        "device: the CPU",
        "excitation: ",
        "2 images at once",
        "times: loading ",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let both = place.try_run("--quiet --verbose --input photos");
    assert_eq!(both.status.code(), Some(2));
}

#[test]
fn png_and_svg_are_made_in_a_folder_made_for_them() {
    let place = Place::new();
    place.run("--input photos --format png --output-dir new/deep");
    place.run("--input photos --format svg --output-dir new/deep");
    let folder = place.path("new/deep");
    let stems = ["PRISM_tiny_vgg_traced", "PRISM_var_tiny_vgg_traced"];
    assert_eq!(files_below(&folder).len(), 4);
    for stem in stems {
        let png = fs::read(folder.join(format!("{stem}.png"))).unwrap();
        let decoder = png::Decoder::new(std::io::Cursor::new(&png));
        let reader = decoder.read_info().unwrap();
        let density = reader.info().pixel_dims.expect("a density");
        assert!(density.xppu >= 2834, "{density:?}"); // 72 dpi
        let png = image::load_from_memory(&png).unwrap();
        assert!(png.width() >= 448 && png.height() >= 224);

        let svg = fs::read_to_string(folder.join(format!("{stem}.svg"))).unwrap();
        let svg = roxmltree::Document::parse(&svg).unwrap();
        assert_eq!(svg.root_element().tag_name().name(), "svg");
    }
    // Titles are text, and say what stdout says.
    let svg = fs::read_to_string(folder.join("PRISM_tiny_vgg_traced.svg")).unwrap();
    for title in default_run()
        .stdout
        .split(['\t', '\n'])
        .filter(|field| field.contains(": "))
    {
        assert!(svg.contains(title), "{title}");
    }
}

#[test]
fn a_second_run_takes_the_place_of_the_first() {
    let place = Place::new();
    place.run("--quiet --input photos/a.png");
    let file = place.path("results/PRISM_tiny_vgg_traced.jpg");
    let narrow = jpeg(&file).0.width();
    place.run("--quiet --input photos");
    assert!(jpeg(&file).0.width() > narrow);
    assert_eq!(files_below(&place.path("results")).len(), 2);
}

#[test]
fn more_than_64_images_go_to_further_figures() {
    let place = Place::bare();
    fs::create_dir(place.path("many")).unwrap();
    for index in 0..65 {
        let shade = RgbImage::from_fn(8, 8, |x, y| {
            image::Rgb([(x * 30) as u8, (y * 30) as u8, index * 3])
        });
        shade
            .save(place.path(&format!("many/{index:03}.png")))
            .unwrap();
    }
    let lines = place.run("--input many");
    assert_eq!(lines.lines().count(), 65);
    assert_eq!(
        files_below(&place.path("results")),
        [
            "PRISM_tiny_vgg_traced_0001.jpg",
            "PRISM_tiny_vgg_traced_0002.jpg",
            "PRISM_var_tiny_vgg_traced.jpg"
        ]
    );
    let read =
        |number: &str| jpeg(&place.path(&format!("results/PRISM_tiny_vgg_traced_{number}.jpg"))).0;
    let (full, rest) = (read("0001"), read("0002"));
    let pixels = |image: &RgbImage| image.width() * image.height();
    assert!(pixels(&full) > 64 * 2 * 448 * 448);
    assert!(pixels(&rest) < 3 * 2 * 448 * 448);
}

// --- which images ---------------------------------------------------------

#[test]
fn inputs_are_files_folders_and_globs_sorted_and_each_once() {
    let place = Place::new();
    fs::create_dir_all(place.path("photos/deep")).unwrap();
    fs::copy(place.path("photos/b.png"), place.path("photos/deep/d.png")).unwrap();
    fs::write(place.path("photos/notes.txt"), "no image").unwrap();
    fs::create_dir(place.path("photos/folder.png")).unwrap();
    let all = ["photos/a.png", "photos/b.png", "photos/c.jpg"];
    // What a shell does to an unquoted glob.
    assert_eq!(place.seen("photos/c.jpg photos/a.png photos/b.png"), all);
    assert_eq!(place.seen("photos"), all);
    assert_eq!(place.seen("photos/*.png"), all[..2], "a quoted glob");
    assert_eq!(
        place.seen("photos/**/*.png"),
        ["photos/a.png", "photos/b.png", "photos/deep/d.png"]
    );
    let twice = format!(
        "photos/b.png photos {} ./photos/b.png --input photos/?.png",
        place.path("photos/b.png").display()
    );
    assert_eq!(place.seen(&twice), all);
}

#[test]
fn words_after_input_are_inputs_even_the_name_of_a_command() {
    let place = Place::new();
    fs::copy(place.path("photos/b.png"), place.path("layers")).unwrap();
    assert_eq!(
        place.seen("photos/a.png layers"),
        ["layers", "photos/a.png"]
    );
}

#[test]
fn bad_images_are_left_out_where_that_is_asked_for() {
    let place = Place::new();
    fs::write(place.path("photos/empty.jpg"), "").unwrap();
    fs::write(place.path("photos/text.png"), "no image").unwrap();
    let whole = fs::read(place.path("photos/a.png")).unwrap();
    fs::write(place.path("photos/cut.png"), &whole[..whole.len() / 2]).unwrap();
    let line = format!(
        "{} --input photos --skip-bad-images",
        tiny("tiny_vgg_traced")
    );
    let output = place.try_run(&line);
    assert!(output.status.success());
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(stdout, default_run().stdout, "as if they were not there");
    for name in ["empty.jpg", "text.png", "cut.png"] {
        let named = stderr.lines().filter(|line| line.contains(name));
        assert_eq!(named.count(), 1, "{name}: {stderr}");
    }
}

#[test]
fn no_image_left_is_an_error() {
    let place = Place::new();
    let whole = fs::read(place.path("photos/a.png")).unwrap();
    // The one fails in its header, the other in decoding.
    for bytes in [&b""[..], &whole[..whole.len() / 2]] {
        fs::write(place.path("bad.png"), bytes).unwrap();
        let before = place.listing();
        let model = tiny("tiny_vgg_traced");
        let output = place.try_run(&format!("{model} --input bad.png --skip-bad-images"));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert_one_error(&stderr, &stderr);
        assert!(stderr.starts_with("prism: warning: ") && stderr.contains("bad.png"));
        assert_eq!(stderr.lines().count(), 2);
        assert!(output.stdout.is_empty());
        assert_eq!(place.listing(), before);
    }
}

// --- arrays ---------------------------------------------------------------

#[test]
fn saved_arrays_are_float32_and_have_the_shapes_of_the_run() {
    let place = Place::new();
    place.run("--quiet --input photos --save-arrays arrays/run.safetensors");
    let bytes = fs::read(place.path("arrays/run.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let files = &metadata.metadata().as_ref().unwrap()["files"];
    let photos = ["photos/a.png", "photos/b.png", "photos/c.jpg"];
    assert_eq!(serde_json::from_str::<Vec<String>>(files).unwrap(), photos);

    let npz = default_arrays();
    assert_eq!(npz.json("files"), serde_json::json!(photos));
    let shapes: [(&str, &[i64]); 5] = [
        ("maps", &[3, 3, 64, 64]),
        ("features", &[3, 3, 8, 8]),
        ("variance_ratio", &[24]),
        ("logits", &[3, 10]),
        ("input", &[3, 3, 64, 64]),
    ];
    let mut names: Vec<&str> = file.names();
    names.sort_unstable();
    let mut expected = shapes.map(|(name, _)| name);
    expected.sort_unstable();
    assert_eq!(names, expected);
    for (name, shape) in shapes {
        let view = file.tensor(name).unwrap();
        assert_eq!(view.dtype(), safetensors::Dtype::F32, "{name}");
        let tensor = Tensor::from_data_size(view.data(), shape, tch::Kind::Float);
        assert_near(&tensor, &npz.tensor(name), 1e-6, name);
    }
    // Npz::tensor takes float64 as well.
    let raw = fs::File::open(default_run().place.path("run.npz")).unwrap();
    let mut raw = ndarray_npy::NpzReader::new(raw).unwrap();
    let mut names = raw.names().unwrap();
    names.sort();
    assert_eq!(
        names,
        [
            "features",
            "files",
            "input",
            "logits",
            "maps",
            "variance_ratio"
        ]
    );
    for (name, _) in shapes {
        let _: ndarray::ArrayD<f32> = raw.by_name(name).unwrap();
    }
}

#[test]
fn maps_go_from_0_to_1_and_the_variances_sum_to_1() {
    let npz = default_arrays();
    let maps = npz.tensor("maps");
    assert_eq!(maps.min().double_value(&[]), 0.0);
    assert_eq!(maps.max().double_value(&[]), 1.0);
    let sum = npz.tensor("variance_ratio").sum(tch::Kind::Double);
    assert!((sum.double_value(&[]) - 1.0).abs() < 1e-5);
}

#[test]
fn a_run_on_saved_input_gives_the_same_maps() {
    let place = Place::new();
    place.run("--quiet --input photos --save-arrays first.safetensors");
    fs::copy(default_run().place.path("run.npz"), place.path("first.npz")).unwrap();
    for first in ["first.npz", "first.safetensors"] {
        let lines = place.run(&format!("--quiet --input {first} --save-arrays again.npz"));
        assert!(lines.starts_with(&format!("{first}:0\t")), "{lines}");
        let (again, first) = (Npz::open(place.path("again.npz")), default_arrays());
        for name in ["maps", "features", "logits", "input"] {
            assert_near(&again.tensor(name), &first.tensor(name), 1e-4, name);
        }
    }
}

#[test]
fn both_rules_give_pytorchs_maps_of_a_stored_input() {
    let place = Place::bare();
    for name in ["tiny_resnet", "tiny_mobilenet"] {
        let expected = repository(&format!("tests/data/expected/{name}.npz"));
        for (options, maps) in [
            ("", "maps_auto"),
            ("--hooks torchprism", "maps_torchprism"),
            ("--no-gradual-extrapolation", "maps_auto_no_ge"),
        ] {
            let line = format!(
                "--model {} --input {} --save-arrays run.npz {options}",
                network(&format!("{name}_scripted")),
                expected.display()
            );
            place.try_run(&line).assert().success();
            let found = Npz::open(place.path("run.npz")).tensor("maps");
            let expected = Npz::open(&expected).tensor(maps);
            assert_near(&found, &expected, 1e-3, maps);
        }
    }
}

// --- options --------------------------------------------------------------

#[test]
fn the_batch_size_and_the_threads_never_change_a_map() {
    let maps = default_arrays().tensor("maps");
    for options in [
        "--batch-size 1",
        "--batch-size 2 --threads 1",
        "--memory 1K",
    ] {
        assert_near(&arrays_with(options).tensor("maps"), &maps, 1e-5, options);
    }
}

#[test]
fn without_gradual_extrapolation_the_map_keeps_the_resolution_of_the_features() {
    let npz = arrays_with("--no-gradual-extrapolation");
    assert_eq!(npz.tensor("maps").size(), [3, 3, 8, 8]);
    assert_near(
        &npz.tensor("features"),
        &default_arrays().tensor("features"),
        1e-5,
        "features",
    );
}

#[test]
fn a_layer_can_be_chosen_by_name() {
    let npz = arrays_with("--layer features.5");
    assert_eq!(npz.tensor("features").size(), [3, 3, 16, 16]);
    assert_eq!(npz.tensor("variance_ratio").size(), [16]);
}

#[test]
fn mean_and_deviation_change_what_the_network_sees() {
    let default = default_arrays();
    let (mean, std) = (0.5, 0.25);
    let npz = arrays_with("--mean 0.5,0.5,0.5 --std 0.25,0.25,0.25");
    let logits = npz.tensor("logits");
    assert!(largest_difference(&logits, &default.tensor("logits")) > 1e-3);
    let channel = |values: &[f32]| Tensor::from_slice(values).reshape([1, 3, 1, 1]);
    let pixels =
        default.tensor("input") * channel(&[0.229, 0.224, 0.225]) + channel(&[0.485, 0.456, 0.406]);
    assert_near(
        &npz.tensor("input"),
        &((pixels - mean) / std),
        1e-4,
        "input",
    );
    // A negative number is a value, not a flag.
    let negative = arrays_with("--mean -1,0,0").tensor("input");
    assert!(negative.max().double_value(&[]) > 4.0);
}

#[test]
fn an_image_size_may_be_oblong() {
    let place = Place::new();
    let model = network("tiny_resnet_scripted");
    let line = format!("--model {model} --image-size 48x96 --input photos --save-arrays a.npz");
    place.try_run(&line).assert().success();
    let npz = Npz::open(place.path("a.npz"));
    assert_eq!(npz.tensor("input").size(), [3, 3, 48, 96]);
    assert_eq!(npz.tensor("maps").size(), [3, 3, 48, 96]);
}

#[test]
fn a_shepherd_is_named_and_stands_out_in_colour() {
    let place = Place::bare();
    let line = format!(
        "--model efficientnet_lite0 --input {} --save-arrays run.npz",
        repository("samples/dog.jpg").display()
    );
    let output = place
        .prism()
        .env("PRISM_MODELS", repository("models"))
        .args(line.split_whitespace())
        .output()
        .unwrap();
    let stdout = String::from_utf8(output.assert().success().get_output().stdout.clone()).unwrap();
    let fields: Vec<&str> = stdout.trim_end().split('\t').collect();
    let share = fields[1].strip_prefix("German_shepherd: ").unwrap();
    assert!(share.parse::<f64>().unwrap() > 0.9, "{stdout}");
    assert_eq!(
        files_below(&place.path("results")),
        [
            "PRISM_efficientnet_lite0.jpg",
            "PRISM_var_efficientnet_lite0.jpg"
        ]
    );
    // The dog fills the middle; a frame of 8 pixels is background.
    let map = Npz::open(place.path("run.npz")).tensor("maps").get(0);
    assert_eq!(map.size(), [3, 224, 224]);
    let sum =
        |map: &Tensor| map.sum_dim_intlist(Some([1i64, 2].as_slice()), false, tch::Kind::Double);
    let inner = sum(&map.narrow(1, 8, 208).narrow(2, 8, 208));
    let frame = (sum(&map) - inner) / (224.0 * 224.0 - 208.0 * 208.0);
    let dog = sum(&map.narrow(1, 84, 56).narrow(2, 84, 56)) / (56.0 * 56.0);
    assert!(largest_difference(&dog, &frame) > 0.2, "{dog:?} {frame:?}");
}

// --- prism layers ---------------------------------------------------------

#[test]
fn layers_are_a_table_of_name_operator_shape_and_role() {
    let place = Place::bare();
    let output = place.try_run(&format!("layers {}", tiny("tiny_vgg_scripted")));
    let stdout = String::from_utf8(output.assert().success().get_output().stdout.clone()).unwrap();
    let rows: Vec<Vec<&str>> = stdout
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows[0], ["name", "operator", "shape", "role"]);
    assert_eq!(rows[1], ["features.0", "conv2d", "8x64x64"]);
    let with_role = |role: &str| -> Vec<String> {
        let of_role = rows[1..].iter().filter(|row| row.get(3) == Some(&role));
        of_role.map(|row| row[2].to_string()).collect()
    };
    let layers = Npz::open(repository("tests/data/expected/tiny_vgg.npz")).json("layers");
    let expected = |role: &str| -> Vec<String> {
        let layers = layers["auto"].as_array().unwrap();
        let of_role = layers.iter().filter(|layer| layer["role"] == role);
        of_role
            .map(|layer| {
                let shape: Vec<i64> = serde_json::from_value(layer["shape"].clone()).unwrap();
                format!("{}x{}x{}", shape[0], shape[1], shape[2])
            })
            .collect()
    };
    assert_eq!(with_role("excitation"), expected("final"));
    assert_eq!(with_role("guide"), expected("guide"));
    assert_eq!(place.listing().len(), 0, "it writes no file");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let place = Place::new();
    for line in [
        format!("layers {}", tiny("tiny_resnet_scripted")),
        format!("--input photos {} --quiet", tiny("tiny_vgg_traced")),
    ] {
        let mut run = place
            .prism()
            .args(line.split_whitespace())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        if line.starts_with("layers") {
            let mut first = String::new();
            let mut reader = BufReader::with_capacity(16, run.stdout.take().unwrap());
            reader.read_line(&mut first).unwrap();
            assert!(first.starts_with("name"));
        } else {
            drop(run.stdout.take());
        }
        let output = run.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), &*stderr), (Some(0), ""), "{line}");
    }
}

/// `prism ... 2>&1 >lines | head -1`, and a log on a full disk.
#[test]
fn a_stderr_that_cannot_be_written_changes_no_result() {
    let place = Place::new();
    for (line, status) in [
        (format!("--input photos {}", tiny("tiny_vgg_traced")), 0),
        ("--input none.jpg".to_string(), 1),
    ] {
        let mut run = place
            .prism()
            .args(line.split_whitespace())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(run.stderr.take());
        assert_eq!(run.wait().unwrap().code(), Some(status), "{line}");
    }
    assert_eq!(files_below(&place.path("results")).len(), 2);
}

// --- bad input ------------------------------------------------------------

#[test]
fn an_input_that_yields_no_image_is_an_error() {
    let place = Place::new();
    fs::create_dir(place.path("bare")).unwrap();
    fs::create_dir(place.path("folder.jpg")).unwrap();
    fs::write(place.path("bare/notes.txt"), "").unwrap();
    for (image, fragments) in [
        ("none.jpg", &["none.jpg", "no such file"][..]),
        ("none/*.jpg", &["none/*.jpg", "glob"]),
        ("*.jpg", &["*.jpg", "glob"]),
        ("bare", &["bare", "no image"]),
        ("folder.jpg", &["folder.jpg", "folder"]),
        ("photos/[a", &["photos/[a", "glob"]),
        ("none.npz", &["none.npz", "no such file"]),
    ] {
        place.refuses_images(&[image], fragments);
    }
    // Nor does a good one beside it help.
    place.refuses_images(&["photos", "none.jpg"], &["none.jpg"]);
    place.refuses_images(&["photos", "bare"], &["bare"]);
}

#[test]
fn an_image_that_cannot_be_read_is_named() {
    let place = Place::new();
    let png = fs::read(place.path("photos/a.png")).unwrap();
    let jpeg = fs::read(place.path("photos/c.jpg")).unwrap();
    let noise: Vec<u8> = (0..999u32).map(|i| ((i * i * 7) >> 3) as u8).collect();
    for (name, bytes, fragment) in [
        ("empty.jpg", &b""[..], "empty"),
        ("text.jpg", b"this is no picture", "no known image format"),
        ("noise.png", &noise, "no known image format"),
        ("header.png", &png[..20], "cut short"),
        ("half.png", &png[..png.len() / 2], ""),
        ("half.jpg", &jpeg[..jpeg.len() / 2], "cut short"),
        ("last.jpg", &jpeg[..jpeg.len() - 2], ""),
    ] {
        fs::write(place.path(name), bytes).unwrap();
        place.refuses_images(&[name], &[name, fragment]);
    }
    // Nor beside good ones: the one fails in its header, the other in decoding.
    place.refuses_images(&["photos", "empty.jpg"], &["empty.jpg"]);
    place.refuses_images(&["photos", "half.png"], &["half.png"]);
    place.refuses_images(&["/dev/null"], &["/dev/null"]);
}

#[test]
fn the_content_and_not_the_name_makes_an_image() {
    let place = Place::new();
    fs::copy(place.path("photos/a.png"), place.path("picture.jpg")).unwrap();
    fs::copy(place.path("photos/c.jpg"), place.path("picture")).unwrap();
    assert_eq!(
        place.seen("picture.jpg picture"),
        ["picture", "picture.jpg"]
    );
}

#[test]
fn an_array_that_is_no_input_is_an_error() {
    let place = Place::new();
    let arrays = repository("tests/data/arrays");
    fs::create_dir(place.path("folder.npz")).unwrap();
    fs::write(place.path("empty.npz"), "").unwrap();
    let whole = fs::read(default_run().place.path("run.npz")).unwrap();
    fs::write(place.path("cut.npz"), &whole[..whole.len() / 2]).unwrap();
    fs::write(place.path("noise.safetensors"), &whole[..500]).unwrap();
    for (name, fragment) in [
        ("no_input.npz", "input"),
        ("uint8.npz", "float32"),
        ("channels_last.npz", "[N, 3, H, W]"),
        ("not_finite.npz", "finite"),
    ] {
        fs::copy(arrays.join(name), place.path(name)).unwrap();
        place.refuses_images(&[name], &[name, fragment]);
    }
    for name in ["empty.npz", "cut.npz", "noise.safetensors"] {
        place.refuses_images(&[name], &[name]);
    }
    place.refuses_images(&["folder.npz"], &["folder.npz", "folder"]);
    place.refuses_images(&["photos", "cut.npz"], &["cut.npz", "alone"]);
}

#[test]
fn a_model_file_that_is_none_says_how_to_export() {
    let place = Place::new();
    let whole = fs::read(network("tiny_vgg_traced")).unwrap();
    let noise: Vec<u8> = (0..9999u32).map(|i| ((i * i * 7) >> 3) as u8).collect();
    fs::write(place.path("empty.pt"), "").unwrap();
    fs::write(place.path("cut.pt"), &whole[..whole.len() / 3]).unwrap();
    fs::write(place.path("noise.pt"), noise).unwrap();
    fs::create_dir(place.path("folder.pt")).unwrap();
    for name in ["state_dict.pth", "pickled_module.pth"] {
        let bad = repository("tests/data/bad_models").join(name);
        fs::copy(bad, place.path(name)).unwrap();
    }
    for (model, fragments) in [
        ("none.pt", &["no such"][..]),
        ("folder/none.pth", &["no such"]),
        ("folder.pt", &["folder"]),
        ("empty.pt", &["empty"]),
        ("cut.pt", &["torch.jit.script"]),
        ("noise.pt", &["torch.jit.script"]),
        ("photos/a.png", &["torch.jit.script"]),
        ("state_dict.pth", &["state dict", "torch.jit.script"]),
        ("pickled_module.pth", &["module", "torch.jit.script"]),
    ] {
        let fragments = [&[model], fragments].concat();
        place.refuses(&["--input", "photos", "--model", model], &fragments, 1);
    }
    place.refuses(&["layers", "--model", "none.pt"], &["none.pt"], 1);
}

#[test]
fn a_network_that_prism_cannot_explain_says_why() {
    let place = Place::new();
    for (name, fragment) in [
        ("not_nk", "[N,K]"),
        ("no_layers", "nothing to hook"),
        ("one_channel", "channels"),
        ("raises", "this network refuses its input"),
        ("two_inputs", "more than one input"),
        ("transformer", "vision transformer"),
        ("written_out", "vision transformer"),
    ] {
        let model = repository(&format!("tests/data/bad_models/{name}.pt"));
        let model = model.display().to_string();
        let arguments = ["--input", "photos", "--image-size", "64", "--model", &model];
        place.refuses(&arguments, &[&model, fragment], 1);
    }
}

#[test]
fn an_unknown_network_suggests_its_neighbours() {
    let place = Place::new();
    for (name, near) in [
        ("vgg61", "vgg16"),
        ("ResNet-50", "resnet50"),
        ("mobilenetv2", "mobilenet_v2"),
        ("nothing_like_it", "efficientnet_lite0"),
    ] {
        let arguments = ["--input", "photos", "--model", name];
        place.refuses(&arguments, &[&format!("'{name}'"), near], 1);
    }
}

#[test]
fn weights_that_are_missing_or_of_another_network_are_an_error() {
    let place = Place::new();
    let other = repository("tests/data/state_dicts/new.pth");
    let other = other.display().to_string();
    let script = network("tiny_vgg_scripted");
    fs::write(place.path("empty.pth"), "").unwrap();
    for (model, weights, fragments, status) in [
        ("squeezenet1_0", "none.pth", &["none.pth"][..], 1),
        ("squeezenet1_0", "empty.pth", &["empty.pth", "empty"], 1),
        (
            "squeezenet1_0",
            "photos/a.png",
            &["a.png", "not a state dict"],
            1,
        ),
        (
            "squeezenet1_0",
            &other,
            &["new.pth", "not weights of squeezenet1_0", "missing"],
            1,
        ),
        ("squeezenet1_0", &script, &["TorchScript", "--model"], 1),
        ("vgg61", &other, &["vgg16"], 1),
        (&script, &other, &["--weights"], 2),
    ] {
        let arguments = ["--input", "photos", "--model", model, "--weights", weights];
        place.refuses(&arguments, fragments, status);
    }
}

#[test]
fn offline_without_weights_says_what_to_put_where() {
    let place = Place::new();
    let checkpoint = place
        .empty
        .path()
        .join("hub/checkpoints/vgg16-397923af.pth");
    let checkpoint = checkpoint.display().to_string();
    let fragments = ["vgg16", &checkpoint, "--weights"];
    place.refuses(&["--input", "photos"], &fragments, 1);
    place.refuses(&["--input", "photos", "--offline"], &fragments, 1);
    place.refuses(&["layers"], &fragments, 1);
    let arguments = ["--input", "photos", "--model", "efficientnet_lite0"];
    place.refuses(&arguments, &["efficientnet_lite0.pth", "./models"], 1);
}

#[test]
fn an_image_too_small_for_the_network_is_an_error() {
    let place = Place::new();
    for (name, size) in [
        ("tiny_vgg_traced", "1"),
        ("tiny_vgg_scripted", "4x900"),
        ("tiny_resnet_scripted", "1"),
    ] {
        let model = network(name);
        let arguments = ["--input", "photos", "--model", &model, "--image-size", size];
        place.refuses(&arguments, &[&model, "--image-size"], 1);
    }
}

#[test]
fn an_unknown_flag_or_value_ends_with_status_2() {
    let place = Place::new();
    for (arguments, fragments) in [
        (&["--modle", "x"][..], &["--modle", "--model"][..]),
        (&["--hooks", "torch"], &["torch", "auto", "torchprism"]),
        (&["--format", "bmp"], &["bmp", "jpg", "png", "svg"]),
        (&["--image-size", "0"], &["--image-size", "'0'"]),
        (&["--image-size", "64x"], &["--image-size", "'64x'"]),
        (&["--mean", "1,2"], &["--mean", "R,G,B"]),
        (&["--std", "1,0,1"], &["--std", "R,G,B"]),
        (&["--batch-size", "0"], &["--batch-size"]),
        (&["--batch-size", "-1"], &["-1"]),
        (&["--precision", "f16"], &["f16", "f32", "bf16"]),
        (&["--memory", "512"], &["--memory", "512M"]),
        (&["--memory", "1T"], &["--memory", "512M"]),
        (
            &["--precision", "bf16", "--saliency", "gradcam"],
            &["bf16", "--saliency"],
        ),
        (&["--threads", "many"], &["--threads"]),
        (&["--device", "tpu"], &["--device", "cuda"]),
        (&["--model"], &["--model"]),
        (&["--input"], &["--input"]),
        (&["layers", "--input", "x"], &["--input"]),
        (&["layers", "--save-arrays", "x.npz"], &["--save-arrays"]),
        (&["--model", "a.pt", "--model", "b.pt"], &["--model"]),
    ] {
        place.refuses(arguments, fragments, 2);
    }
}

#[test]
fn an_unknown_layer_gets_the_nearest_names() {
    let place = Place::new();
    place.refuses_photo(
        &["--layer", "feature.10"],
        &["'feature.10'", "features.10"],
        2,
    );
    place.refuses_photo(&["--layer", ""], &["''", "features.0"], 2);
    // A layer without pixels.
    place.refuses_photo(&["--layer", "classifier.0"], &["classifier.0"], 2);
    let model = network("tiny_vgg_traced");
    let layers = [
        "layers",
        "--image-size",
        "64",
        "--layer",
        "x",
        "--model",
        &model,
    ];
    place.refuses(&layers, &["'x'", "features.0"], 2);
}

#[test]
fn a_stray_word_gets_a_hint_at_input() {
    let place = Place::new();
    let hint = &["--input photos/a.png"][..];
    for arguments in [
        &["photos/a.png"][..],
        &["photos/a.png", "--model", "vgg16"],
        &["--model", "vgg16", "photos/a.png"],
        &["--quiet", "photos/a.png"],
        &[
            "--input",
            "photos/b.png",
            "--model",
            "vgg16",
            "photos/a.png",
        ],
        &["--input", "photos/b.png", "--", "photos/a.png"],
    ] {
        place.refuses(arguments, hint, 2);
    }
    let arguments = ["layers", "photos/a.png"];
    place.refuses(&arguments, &["prism layers", "photos/a.png"], 2);
    // The name of a command is one in the wrong place.
    for command in ["layers", "som"] {
        let arguments = ["--model", "vgg16", command];
        place.refuses(&arguments, &[&format!("prism {command}")], 2);
    }
}

#[test]
fn a_device_that_is_not_there_is_an_error() {
    if tch::Cuda::device_count() > 0 {
        return;
    }
    let place = Place::new();
    place.refuses_photo(&["--device", "cuda"], &["--device cuda", "cpu"], 1);
    place.refuses_photo(&["--device", "cuda:1"], &["--device cuda", "cpu"], 1);
}

#[test]
fn an_output_folder_that_cannot_be_one_is_an_error() {
    let place = Place::new();
    fs::write(place.path("file"), "").unwrap();
    let long = "x".repeat(300);
    for (folder, fragment) in [
        ("file", "file"),
        ("file/below", "file/below"),
        ("/proc/none", "/proc/none"),
        (&long, &long),
    ] {
        place.refuses_photo(&["--output-dir", folder], &[fragment], 1);
    }
    // Found out before the network is looked for.
    let arguments = [
        "--input",
        "photos",
        "--model",
        "none.pt",
        "--output-dir",
        "file",
    ];
    place.refuses(&arguments, &["cannot write into file"], 1);
}

#[test]
fn a_folder_in_the_way_of_a_figure_leaves_no_other_file() {
    for in_the_way in ["PRISM_tiny_vgg_traced.jpg", "PRISM_var_tiny_vgg_traced.jpg"] {
        let place = Place::new();
        let way = format!("results/{in_the_way}/x");
        fs::create_dir_all(place.path(&way)).unwrap();
        place.refuses_photo(&[], &[in_the_way, "folder"], 1);
    }
}

#[test]
fn arrays_that_cannot_be_saved_leave_no_figures() {
    let place = Place::new();
    fs::create_dir(place.path("folder.npz")).unwrap();
    fs::write(place.path("file"), "").unwrap();
    let long = format!("{}.npz", "x".repeat(252));
    for (file, fragment, status) in [
        ("arrays.txt", ".npz", 2),
        ("arrays", ".safetensors", 2),
        ("folder.npz", "folder.npz", 1),
        ("file/arrays.npz", "file", 1),
        ("/proc/none/arrays.npz", "/proc/none", 1),
        ("/proc/arrays.npz", "/proc", 1),
        (&long, &long, 1),
    ] {
        place.refuses_photo(&["--save-arrays", file], &[fragment], status);
    }
}

#[test]
fn an_output_folder_may_be_named_in_a_roundabout_way() {
    let place = Place::new();
    place.run("--quiet --input photos/a.png --output-dir new/../other");
    assert_eq!(files_below(&place.path("other")).len(), 2);
}

#[cfg(unix)]
#[test]
fn a_name_with_a_line_break_makes_no_second_line() {
    let place = Place::new();
    place.refuses_images(&["no\nsuch.jpg"], &["such.jpg"]);
    let arguments = ["--input", "photos", "--model", "no\nsuch.pt"];
    place.refuses(&arguments, &["such.pt"], 1);
    // Nor does a name colour the terminal.
    place.refuses_images(&["\x1b[31mred.jpg"], &["red.jpg"]);
}

// --- signals --------------------------------------------------------------

/// Starts a run that takes seconds, and signals it when a file is half-written.
#[cfg(target_os = "linux")]
fn signalled(signal: &str) -> (Option<i32>, Place) {
    let place = Place::bare();
    fs::create_dir(place.path("many")).unwrap();
    let tiny_image = RgbImage::from_fn(8, 8, |x, y| image::Rgb([x as u8 * 30, y as u8 * 30, 9]));
    for index in 0..128 {
        let file = place.path(&format!("many/{index:03}.png"));
        tiny_image.save(file).unwrap();
    }
    let line = format!(
        "{} --input many --output-dir new/out",
        tiny("tiny_vgg_traced")
    );
    let mut run = place
        .prism_after(&["env", "--default-signal=INT"])
        .args(line.split_whitespace())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    // The first figure lies there under a temporary name while the second is drawn.
    let half_written = || {
        place
            .listing()
            .iter()
            .any(|(path, size)| path.starts_with(place.path("new")) && *size > 0)
    };
    while !half_written() {
        assert!(start.elapsed() < PATIENCE, "no file appears");
        assert_eq!(run.try_wait().unwrap(), None, "it ended too early");
        std::thread::sleep(Duration::from_millis(20));
    }
    let sent = Command::new("kill")
        .args([&format!("-{signal}"), &run.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
    let status = run.wait().unwrap();
    (status.code(), place)
}

#[cfg(target_os = "linux")]
#[test]
fn ctrl_c_ends_a_run_with_130_and_leaves_nothing() {
    let (code, place) = signalled("INT");
    assert_eq!(code, Some(130));
    assert_eq!(files_below(place.root.path()), ["many"], "no folder either");
}

/// `nohup prism &` outlives the terminal.
#[cfg(target_os = "linux")]
#[test]
fn a_signal_that_the_caller_ignores_is_ignored() {
    let place = Place::new();
    let mut run = place
        .prism_after(&["sh", "-c", "trap '' HUP; exec \"$@\"", "sh"])
        .args(tiny("tiny_vgg_traced").split_whitespace())
        .args(["--quiet", "--input", "photos"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    // It has set itself up when it makes the folder.
    while !place.path("results").exists() {
        assert!(start.elapsed() < PATIENCE, "no folder appears");
        std::thread::sleep(Duration::from_millis(5));
    }
    let sent = Command::new("kill")
        .args(["-HUP", &run.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
    assert_eq!(run.wait().unwrap().code(), Some(0));
    assert_eq!(files_below(&place.path("results")).len(), 2);
}

#[cfg(target_os = "linux")]
#[test]
fn a_limit_on_the_size_of_files_is_an_error_like_any_other() {
    let place = Place::new();
    let before = place.listing();
    let output = place
        .prism_after(&["sh", "-c", "ulimit -f 8; exec \"$@\"", "sh"])
        .args(tiny("tiny_vgg_traced").split_whitespace())
        .args(["--input", "photos"])
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_one_error(&stderr, &stderr);
    assert!(stderr.contains("PRISM_tiny_vgg_traced.jpg"), "{stderr}");
    assert!(output.stdout.is_empty());
    assert_eq!(place.listing(), before);
}
