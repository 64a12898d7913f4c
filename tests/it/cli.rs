//! The binary as a user runs it: files, stdout, stderr and signals. Refusals are in `bad_input.rs`.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::common::place::{Place, network, tiny};
use crate::common::{Npz, assert_near, data, largest_difference, repository};
use image::RgbImage;
use tch::Tensor;

/// No run here takes longer, even on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(120);

/// The pixels of a JPEG and its dots per inch.
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

/// One default run on three photographs, with its arrays, which many tests read.
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
        let (stdout, stderr) = place.succeed(&line);
        DefaultRun {
            place,
            stdout,
            stderr,
        }
    })
}

fn default_arrays() -> Npz {
    Npz::open(default_run().place.path("run.npz"))
}

/// The arrays of the default run with other options.
fn arrays_with(options: &str) -> Npz {
    let place = Place::new();
    place.run(&format!("--input photos --save-arrays run.npz {options}"));
    Npz::open(place.path("run.npz"))
}

// --- what appears ---------------------------------------------------------

#[test]
fn a_run_writes_two_figures_and_nothing_else() {
    let run = default_run();
    let figures = ["PRISM_tiny_vgg_traced.jpg", "PRISM_var_tiny_vgg_traced.jpg"];
    assert_eq!(run.place.names("results"), figures);
    assert_eq!(run.place.names("."), ["photos", "results", "run.npz"]);
}

#[test]
fn figures_are_jpegs_of_readable_size_with_a_density() {
    let results = default_run().place.path("results");
    let (maps, density) = jpeg(&results.join("PRISM_tiny_vgg_traced.jpg"));
    // Three columns of a photograph over its map, each at least 448 pixels wide.
    let (width, height) = maps.dimensions();
    assert!((3 * 448..3 * 700).contains(&width), "{width}");
    assert!((2 * 448..2 * 700).contains(&height), "{height}");
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
    let paths = ["photos/a.png", "photos/b.png", "photos/c.jpg"];
    for (image, (line, path)) in (0..).zip(lines.iter().zip(paths)) {
        let fields: Vec<&str> = line.split('\t').collect();
        assert_eq!((fields.len(), fields[0]), (4, path), "{line}");
        let shares = logits.get(image).softmax(0, tch::Kind::Double);
        let (values, ids) = shares.topk(3, 0, true, true);
        for (rank, field) in (0..).zip(&fields[1..]) {
            let id = ids.int64_value(&[rank]);
            let share = values.double_value(&[rank]);
            assert_eq!(*field, format!("class {id}: {share:.2}"), "{line}");
        }
    }
}

#[test]
fn stderr_names_the_files_and_has_no_control_characters() {
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
    let line = format!("{} --quiet --input photos", tiny("tiny_vgg_traced"));
    let (stdout, stderr) = Place::new().succeed(&line);
    assert_eq!(stderr, "");
    assert_eq!(stdout, default_run().stdout);
}

#[test]
fn verbose_names_the_choices_and_the_times() {
    let line = format!("{} --input photos", tiny("tiny_vgg_traced"));
    let (_, stderr) = Place::new().succeed(&format!("{line} --verbose --batch-size 2"));
    for part in [
        "device: the CPU",
        "excitation: ",
        "2 images at once",
        "times: loading ",
    ] {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
}

#[test]
fn png_and_svg_are_written_into_a_new_folder() {
    let place = Place::new();
    place.run("--input photos --format png --output-dir new/deep");
    place.run("--input photos --format svg --output-dir new/deep");
    let folder = place.path("new/deep");
    assert_eq!(place.names("new/deep").len(), 4);
    for stem in ["PRISM_tiny_vgg_traced", "PRISM_var_tiny_vgg_traced"] {
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
    // Titles are text and equal the fields of stdout.
    let svg = fs::read_to_string(folder.join("PRISM_tiny_vgg_traced.svg")).unwrap();
    let fields = default_run().stdout.split(['\t', '\n']);
    for title in fields.filter(|field| field.contains(": ")) {
        assert!(svg.contains(title), "{title}");
    }
}

#[test]
fn a_second_run_replaces_the_first() {
    let place = Place::new();
    place.run("--quiet --input photos/a.png");
    let file = place.path("results/PRISM_tiny_vgg_traced.jpg");
    let narrow = jpeg(&file).0.width();
    place.run("--quiet --input photos");
    assert!(jpeg(&file).0.width() > narrow);
    assert_eq!(place.names("results").len(), 2);
}

#[test]
fn more_than_64_images_go_to_further_figures() {
    let place = Place::with_images(65);
    let lines = place.run("--input photos");
    assert_eq!(lines.lines().count(), 65);
    assert_eq!(
        place.names("results"),
        [
            "PRISM_tiny_vgg_traced_0001.jpg",
            "PRISM_tiny_vgg_traced_0002.jpg",
            "PRISM_var_tiny_vgg_traced.jpg"
        ]
    );
    let pixels = |number: &str| {
        let file = format!("results/PRISM_tiny_vgg_traced_{number}.jpg");
        let figure = jpeg(&place.path(&file)).0;
        figure.width() * figure.height()
    };
    assert!(pixels("0001") > 64 * 2 * 448 * 448);
    assert!(pixels("0002") < 5 * 2 * 448 * 448);
}

// --- which images ---------------------------------------------------------

#[test]
fn inputs_of_several_options_are_sorted_and_each_once() {
    let place = Place::new();
    let twice = format!(
        "photos/c.jpg photos/b.png photos {} ./photos/b.png --input photos/?.png",
        place.path("photos/b.png").display()
    );
    let all = ["photos/a.png", "photos/b.png", "photos/c.jpg"];
    assert_eq!(place.seen(&twice), all);
}

#[test]
fn words_after_input_are_inputs_even_the_name_of_a_command() {
    let place = Place::new();
    fs::copy(place.path("photos/b.png"), place.path("layers")).unwrap();
    let seen = place.seen("photos/a.png layers");
    assert_eq!(seen, ["layers", "photos/a.png"]);
}

#[test]
fn bad_images_are_left_out_with_skip_bad_images() {
    let place = Place::new();
    fs::write(place.path("photos/empty.jpg"), "").unwrap();
    fs::write(place.path("photos/text.png"), "no image").unwrap();
    let whole = fs::read(place.path("photos/a.png")).unwrap();
    fs::write(place.path("photos/cut.png"), &whole[..whole.len() / 2]).unwrap();
    let line = format!("{} --input photos", tiny("tiny_vgg_traced"));
    let (stdout, stderr) = place.succeed(&format!("{line} --skip-bad-images"));
    assert_eq!(stdout, default_run().stdout);
    for name in ["empty.jpg", "text.png", "cut.png"] {
        let named = stderr.lines().filter(|line| line.contains(name));
        assert_eq!(named.count(), 1, "{name}: {stderr}");
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
    let raw = fs::File::open(default_run().place.path("run.npz")).unwrap();
    let mut raw = ndarray_npy::NpzReader::new(raw).unwrap();
    let shapes: [(&str, &[i64]); 8] = [
        ("components", &[3, 24, 8, 8]),
        ("features", &[3, 3, 8, 8]),
        ("input", &[3, 3, 64, 64]),
        ("lengths", &[3, 1, 8, 8]),
        ("logits", &[3, 10]),
        ("maps", &[3, 3, 64, 64]),
        ("probabilities", &[3, 10]),
        ("variance_ratio", &[24]),
    ];
    let (mut names, mut raw_names) = (file.names(), raw.names().unwrap());
    names.sort_unstable();
    raw_names.sort();
    raw_names.retain(|name| name != "files");
    let expected = shapes.map(|(name, _)| name);
    assert_eq!(names, expected);
    assert_eq!(raw_names, expected);
    for (name, shape) in shapes {
        let view = file.tensor(name).unwrap();
        assert_eq!(view.dtype(), safetensors::Dtype::F32, "{name}");
        let tensor = Tensor::from_data_size(view.data(), shape, tch::Kind::Float);
        assert_near(&tensor, &npz.tensor(name), 1e-6, name);
        // Npz::tensor accepts float64 too.
        let _: ndarray::ArrayD<f32> = raw.by_name(name).unwrap();
    }
}

#[test]
fn maps_reach_from_0_to_1_and_the_variances_sum_to_1() {
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
        let expected = data(&format!("expected/{name}.npz"));
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
            place.succeed(&line);
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
    let expected = default_arrays().tensor("features");
    assert_near(&npz.tensor("features"), &expected, 1e-5, "features");
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
    let expected = (pixels - mean) / std;
    assert_near(&npz.tensor("input"), &expected, 1e-4, "input");
    // A negative number is a value, not a flag.
    let negative = arrays_with("--mean -1,0,0").tensor("input");
    assert!(negative.max().double_value(&[]) > 4.0);
}

#[test]
fn an_image_size_may_be_oblong() {
    let place = Place::new();
    let model = network("tiny_resnet_scripted");
    let line = format!("--model {model} --image-size 48x96 --input photos --save-arrays a.npz");
    place.succeed(&line);
    let npz = Npz::open(place.path("a.npz"));
    assert_eq!(npz.tensor("input").size(), [3, 3, 48, 96]);
    assert_eq!(npz.tensor("maps").size(), [3, 3, 48, 96]);
}

#[test]
fn the_dog_of_the_samples_is_named_and_differs_from_its_background() {
    let place = Place::bare();
    let mut prism = place.prism();
    prism.args("--model efficientnet_lite0 --save-arrays run.npz --input".split(' '));
    prism.arg(repository("samples/dog.jpg"));
    let output = prism.env("PRISM_MODELS", repository("models")).output();
    let stdout = String::from_utf8(output.unwrap().stdout).unwrap();
    let share = stdout.split('\t').nth(1).unwrap();
    let share = share.strip_prefix("German_shepherd: ").unwrap();
    assert!(share.parse::<f64>().unwrap() > 0.9, "{stdout}");
    // The dog fills the middle; a frame of 8 pixels is background.
    let map = Npz::open(place.path("run.npz")).tensor("maps").get(0);
    assert_eq!(map.size(), [3, 224, 224]);
    let sum = |map: &Tensor| map.sum_dim_intlist([1i64, 2].as_slice(), false, tch::Kind::Double);
    let inner = sum(&map.narrow(1, 8, 208).narrow(2, 8, 208));
    let frame = (sum(&map) - inner) / (224.0 * 224.0 - 208.0 * 208.0);
    let dog = sum(&map.narrow(1, 84, 56).narrow(2, 84, 56)) / (56.0 * 56.0);
    assert!(largest_difference(&dog, &frame) > 0.2, "{dog:?} {frame:?}");
}

// --- prism layers ---------------------------------------------------------

#[test]
fn layers_are_a_table_of_name_operator_shape_and_role() {
    let place = Place::bare();
    let (stdout, _) = place.succeed(&format!("layers {}", tiny("tiny_vgg_scripted")));
    let lines = stdout.lines();
    let rows: Vec<Vec<&str>> = lines
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows[0], ["name", "operator", "shape", "role"]);
    assert_eq!(rows[1], ["features.0", "conv2d", "8x64x64"]);
    let layers = Npz::open(data("expected/tiny_vgg.npz")).json("layers");
    let layers = layers["auto"].as_array().unwrap();
    for (role, name) in [("excitation", "final"), ("guide", "guide")] {
        let found = rows[1..].iter().filter(|row| row.get(3) == Some(&role));
        let found: Vec<String> = found.map(|row| row[2].to_string()).collect();
        let expected = layers.iter().filter(|layer| layer["role"] == name);
        let expected: Vec<String> = expected
            .map(|layer| layer["shape"].to_string())
            .map(|shape| shape.trim_matches(['[', ']']).replace(',', "x"))
            .collect();
        assert_eq!(found, expected, "{role}");
    }
    assert_eq!(place.listing().len(), 0, "it writes no file");
}

/// The initialisers of libtorch take most of the start of the program: 0.22 s.
#[test]
fn help_and_wrong_words_are_answered_before_libtorch_starts() {
    let place = Place::new();
    let run = |line: &str| {
        let run = place
            .prism()
            .args(line.split_whitespace())
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (run.status.code(), text(run.stdout), text(run.stderr))
    };
    // What the loader says on standard error.
    let starts_libtorch = |line: &str| {
        let mut prism = place.prism();
        let traced = prism.args(line.split_whitespace()).env("LD_DEBUG", "files");
        let said = String::from_utf8(traced.output().unwrap().stderr).unwrap();
        let mut lines = said.lines();
        assert!(said.contains("calling preinit"), "{line}: {said}");
        lines.any(|line| line.contains("calling init: ") && line.ends_with("libtorch_cpu.so"))
    };
    for (line, status, beginning) in [
        ("--version", 0, "prism "),
        ("-h", 0, "Shows what"),
        ("help layers", 0, "List the layers"),
        ("completions fish", 0, "# Print"),
        ("man", 0, ".ie"),
        ("--wrong", 2, ""),
        ("photos --figures all --batch-size 0", 2, ""),
        ("laiers", 2, ""),
    ] {
        let (code, stdout, stderr) = run(line);
        assert_eq!(code, Some(status), "{line}: {stderr}");
        assert!(stdout.starts_with(beginning), "{line}: {stdout}");
        assert_eq!(
            stderr.lines().count(),
            usize::from(status > 0),
            "{line}: {stderr}"
        );
        assert!(!starts_libtorch(line), "{line}");
    }
    assert!(starts_libtorch("layers --model nothing.pt"));
}

/// Long spinning made runs on a busy machine fifteen times longer.
#[test]
fn threads_of_openmp_spin_briefly_unless_the_environment_says_how() {
    let place = Place::new();
    let spins = |set: &[(&str, &str)]| {
        let mut prism = place.prism();
        let prism = prism.args(["layers", "--model", "nothing.pt"]);
        let shown = prism
            .env("OMP_DISPLAY_ENV", "verbose")
            .envs(set.iter().copied());
        let said = String::from_utf8(shown.output().unwrap().stderr).unwrap();
        let line = said.lines().find(|line| line.contains("GOMP_SPINCOUNT"));
        line.unwrap_or_else(|| panic!("{said}")).trim().to_owned()
    };
    assert!(spins(&[]).ends_with("GOMP_SPINCOUNT = '300'"));
    assert!(spins(&[("GOMP_SPINCOUNT", "7")]).ends_with("GOMP_SPINCOUNT = '7'"));
    assert!(spins(&[("OMP_WAIT_POLICY", "passive")]).ends_with("GOMP_SPINCOUNT = '0'"));
}

/// The loader is the running program then, so nothing may start that once more.
#[cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]
#[test]
fn a_run_through_the_loader_is_as_any_other() {
    let place = Place::new();
    let mut run = Command::new("/lib64/ld-linux-x86-64.so.2");
    run.args([env!("CARGO_BIN_EXE_prism"), "models"]);
    run.current_dir(place.path(""));
    let run = run.output().unwrap();
    let stderr = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(0), "{stderr}");
    assert!(String::from_utf8_lossy(&run.stdout).contains("efficientnet_lite0"));
}

/// Sanitizers and allocators take the place of libc's functions, once they are started themselves.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn a_library_before_all_others_is_not_called_before_it_is_ready() {
    let place = Place::new();
    let source = r#"
        #include <stddef.h>
        typedef void handler(int);
        static handler *(*later)(int, handler *);
        static handler *ready(int, handler *) { return NULL; }
        extern "C" handler *signal(int number, handler *with) { return later(number, with); }
        __attribute__((constructor)) static void start() { later = ready; }
    "#;
    std::fs::write(place.path("wrapper.cpp"), source).unwrap();
    let mut compiler = Command::new(std::env::var_os("CXX").unwrap_or("c++".into()));
    compiler.args(["-shared", "-fPIC", "-o", "wrapper.so", "wrapper.cpp"]);
    assert!(
        compiler
            .current_dir(place.path(""))
            .status()
            .unwrap()
            .success()
    );
    let wrapper = place.path("wrapper.so");
    for (line, status) in [("--version", 0), ("models", 0), ("--wrong", 2)] {
        let run = place.prism().arg(line).env("LD_PRELOAD", &wrapper).output();
        assert_eq!(run.unwrap().status.code(), Some(status), "{line}");
    }
}

/// Before `main` the C library has not been started yet.
#[test]
fn help_is_as_wide_as_the_environment_says() {
    let place = Place::new();
    let widest = |columns: &str| {
        let help = place.prism().arg("--help").env("COLUMNS", columns).output();
        let help = String::from_utf8(help.unwrap().stdout).unwrap();
        help.lines().map(|line| line.chars().count()).max().unwrap()
    };
    assert!((51..=60).contains(&widest("60")) && (80..=100).contains(&widest("100")));
}

#[test]
fn a_reader_that_closes_stdout_early_is_no_error() {
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
    assert_eq!(place.names("results").len(), 2);
}

#[test]
fn an_output_folder_may_contain_a_parent_component() {
    let place = Place::new();
    place.run("--quiet --input photos/a.png --output-dir new/../other");
    assert_eq!(place.names("other").len(), 2);
}

// --- signals --------------------------------------------------------------

fn send(signal: &str, process: &Child) {
    let mut kill = Command::new("kill");
    kill.args([signal, &process.id().to_string()]);
    assert!(kill.status().unwrap().success());
}

fn wait_until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < TIMEOUT, "it takes too long");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn ctrl_c_ends_a_run_with_130_and_leaves_no_file_and_no_folder() {
    let place = Place::with_images(128);
    let mut run = place
        .prism_after(&["env", "--default-signal=INT"])
        .args(tiny("tiny_vgg_traced").split_whitespace())
        .args("--quiet --input photos --output-dir new/out".split(' '))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // The first figure has a temporary name while the second is drawn.
    let new = place.path("new");
    let is_begun = |(path, size): (&PathBuf, &u64)| path.starts_with(&new) && *size > 0;
    wait_until(|| place.listing().iter().any(is_begun));
    assert_eq!(run.try_wait().unwrap(), None, "it ended too early");
    send("-INT", &run);
    assert_eq!(run.wait().unwrap().code(), Some(130));
    assert_eq!(place.names("."), ["photos"]);
}

/// `nohup prism &` outlives the terminal.
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
    // Signals are set up before the folder is made.
    wait_until(|| place.path("results").exists());
    send("-HUP", &run);
    assert_eq!(run.wait().unwrap().code(), Some(0));
    assert_eq!(place.names("results").len(), 2);
}

#[test]
fn a_limit_on_the_size_of_files_is_an_error_like_any_other() {
    let place = Place::new();
    let mut prism = place.prism_after(&["sh", "-c", "ulimit -f 8; exec \"$@\"", "sh"]);
    prism.args(tiny("tiny_vgg_traced").split_whitespace());
    prism.args(["--input", "photos"]);
    place.expect(prism, 1, &["PRISM_tiny_vgg_traced.jpg"]);
}

/// The paths at the starts of the lines of a run that gets `list` on standard input.
fn seen_of_list(place: &Place, words: &str, list: &str) -> Vec<String> {
    let mut command = place.prism();
    let words = format!("{} --quiet {words}", tiny("tiny_vgg_traced"));
    command.args(words.split_whitespace());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(list.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let first = |line: &str| line.split('\t').next().unwrap().to_string();
    text.lines().map(first).collect()
}

#[test]
fn lists_name_the_images() {
    let place = Place::new();
    let both = ["photos/a.png", "photos/c.jpg"];
    let lines = "photos/c.jpg\nphotos/a.png\n";
    assert_eq!(seen_of_list(&place, "--input -", lines), both);
    assert_eq!(seen_of_list(&place, "-", lines), both);
    let zeros = lines.replace('\n', "\0");
    assert_eq!(seen_of_list(&place, "-0 --input -", &zeros), both);
    fs::write(place.path("list.txt"), lines).unwrap();
    assert_eq!(place.seen("@list.txt"), both);
    // Beside others, and for a folder.
    assert_eq!(place.seen("photos/b.png @list.txt").len(), 3);
    assert_eq!(seen_of_list(&place, "--input -", "photos\n").len(), 3);
}
