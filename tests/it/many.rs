//! Runs of many images: figures of a sample, numbered folders, chosen arrays and their types,
//! summaries in lines, and the folder of intermediate results.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use ndarray::{Array4, ArrayD};
use ndarray_npy::NpzReader;
use prism::arrays::{ArrayFormat, ArrayWriter};
use prism::saved::SavedRun;
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use serde_json::Value;
use tch::{Kind, Tensor};

use crate::common::place::{Place, tiny};
use crate::common::{Npz, assert_near};

fn json(place: &Place, file: &str) -> Value {
    serde_json::from_slice(&fs::read(place.path(file)).unwrap()).unwrap()
}

/// The lines of a file of JSON lines.
fn json_lines(place: &Place, file: &str) -> Vec<Value> {
    let text = fs::read_to_string(place.path(file)).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

/// Different images `input` `[count,3,32,32]` in a file.
fn stored_images(path: &Path, count: usize) {
    let value = |(n, c, y, x): (usize, usize, usize, usize)| {
        ((n * 7 + c * 31 + y * (3 + n % 5) + x * (1 + c)) % 97) as f32 / 48.5 - 1.0
    };
    let images = Array4::from_shape_fn((count, 3, 32, 32), value);
    let layout = [("input".to_string(), images.shape().to_vec())];
    let file = fs::File::create(path).unwrap();
    let mut writer = ArrayWriter::create(file, ArrayFormat::Npz, &layout, &[]).unwrap();
    let open = writer.array("input").unwrap();
    open.write(images.as_slice().unwrap()).unwrap();
    writer.finish().unwrap();
}

#[test]
fn figures_of_a_sample_say_so_and_look_like_those_of_all() {
    let place = Place::with_images(10);
    let run = |options: &str| {
        let model = tiny("tiny_vgg_traced");
        let line = format!("{model} --input photos --format svg --per-image {options}");
        place.succeed(&line)
    };
    let (all_lines, stderr) = run("-o all --json all.json --saliency gradcam --target 3");
    assert!(!stderr.contains("of 10 images"), "{stderr}");
    let (lines, stderr) = run("-o few --json few.json --figures 4 --saliency gradcam --target 3");
    let said = "figures show 4 of 10 images, evenly taken from the sorted list";
    assert!(stderr.contains(said), "{stderr}");
    assert!(stderr.contains("(--figures all shows all)"), "{stderr}");

    // Text and numbers are of all images, and so are the key and the scale.
    assert_eq!(lines, all_lines);
    let (all, few) = (json(&place, "all.json"), json(&place, "few.json"));
    for key in ["images", "key", "variance_ratio"] {
        assert_eq!(all[key], few[key], "{key}");
    }
    let is_said = |line: &Value| line.as_str().unwrap().starts_with(said);
    assert!(few["remarks"].as_array().unwrap().iter().any(is_said));

    // The images floor(10 k / 4), with their own numbers.
    let names = place.names("few/PRISM_tiny_vgg_traced");
    let stems = ["0001_000", "0003_002", "0006_005", "0008_007"];
    let wanted: Vec<String> = (stems.iter())
        .flat_map(|stem| [format!("{stem}_map.png"), format!("{stem}_overlay.png")])
        .collect();
    assert_eq!(names, wanted);
    for name in &names {
        let picture = |folder: &str| {
            let path = place.path(&format!("{folder}/PRISM_tiny_vgg_traced/{name}"));
            image::open(path).unwrap().to_rgb8()
        };
        assert!(picture("all") == picture("few"), "{name}");
    }
    let svg = fs::read_to_string(place.path("few/PRISM_tiny_vgg_traced.svg")).unwrap();
    let has = |name: &str| {
        svg.contains(&format!(">{name}</text>")) || svg.contains(&format!("\n{name}\n"))
    };
    let shown: Vec<usize> = (0..10)
        .filter(|image| has(&format!("{image:03}.png")))
        .collect();
    assert_eq!(shown, [0, 2, 5, 7]);
    assert!(svg.contains("4 of 10 images"), "no caption");

    let (_, stderr) = run("-o again --figures 10");
    assert!(!stderr.contains("of 10 images"), "{stderr}");
}

#[test]
fn of_a_sample_with_bad_images_those_that_can_be_read_are_shown() {
    let place = Place::with_images(10);
    let third = place.path("photos/002.png");
    let bytes = fs::read(&third).unwrap();
    fs::write(&third, &bytes[..bytes.len() - 30]).unwrap(); // a good header
    let options = "--input photos --per-image --figures 4 --skip-bad-images --report page.html";
    let model = tiny("tiny_vgg_traced");
    let (lines, stderr) = place.succeed(&format!("{model} {options}"));
    assert_eq!(lines.lines().count(), 9);
    assert!(stderr.contains("figures show 3 of 9 images"), "{stderr}");
    let maps = place.names("results/PRISM_tiny_vgg_traced");
    let maps: Vec<&str> = (maps.iter())
        .filter_map(|name| name.strip_suffix("_map.png"))
        .collect();
    // Numbers are those of the images that were read.
    assert_eq!(maps, ["0001_000", "0005_005", "0007_007"]);
    let page = fs::read_to_string(place.path("page.html")).unwrap();
    assert_eq!(
        page.matches("<article")
            .count()
            .max(page.matches("class=\"card").count()),
        9
    );
}

#[test]
fn without_figures_there_are_none() {
    let place = Place::with_images(3);
    let lines = place.run("--quiet --input photos --figures none --json run.json");
    assert_eq!(lines.lines().count(), 3);
    assert_eq!(place.names("."), ["photos", "run.json"]);
    assert_eq!(
        json(&place, "run.json")["files"],
        serde_json::json!(["run.json"])
    );
}

#[test]
fn more_than_a_thousand_pictures_lie_in_numbered_folders() {
    let place = Place::bare();
    stored_images(&place.path("few.npz"), 3);
    stored_images(&place.path("many.npz"), 501);
    let model = tiny("tiny_vgg_traced").replace(" --image-size 64", "");
    let run = |options: &str| {
        let line = format!("{model} --per-image --no-legend {options}");
        place.succeed(&line).1
    };
    let pictures = "results/PRISM_tiny_vgg_traced";
    let stderr = run("--input few.npz");
    assert!(!stderr.contains("earlier run"), "{stderr}");
    assert_eq!(place.names(pictures).len(), 6);

    let stderr = run("--input many.npz --json run.json --report page.html");
    for part in [
        "results also has figures of an earlier run, 1 in number, such as results/PRISM_tiny_vgg_traced.jpg",
        &format!("{pictures} also has pictures of an earlier run, 6 in number"),
    ] {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
    let first = place.names(&format!("{pictures}/0000"));
    assert_eq!(
        (first.len(), first[0].as_str()),
        (1000, "0001_many_map.png")
    );
    let last = ["0501_many_map.png", "0501_many_overlay.png"];
    assert_eq!(place.names(&format!("{pictures}/0001")), last);

    // The page's links lead to its pictures, of which each image has two.
    let of_page = place.names("page_files");
    assert_eq!(of_page, ["0000", "0001", "features.js"]);
    assert_eq!(place.names("page_files/0000").len(), 1000);
    let last = ["0501_many_input.jpg", "0501_many_map.jpg"];
    assert_eq!(place.names("page_files/0001"), last);
    let page = fs::read_to_string(place.path("page.html")).unwrap();
    let links: Vec<&str> = (page.split('"'))
        .filter(|text| text.starts_with("page_files/") && text.ends_with(".jpg"))
        .collect();
    assert!(links.len() >= 1002, "{} links", links.len());
    assert!(links.iter().all(|link| place.path(link).is_file()));

    // The summary names every file, and there is no other one in these folders.
    let run_json = json(&place, "run.json");
    let files = run_json["files"].as_array().unwrap();
    assert!(
        files
            .iter()
            .all(|file| place.path(file.as_str().unwrap()).is_file())
    );
    let below = |folder: &str| {
        let names = files.iter().map(|file| file.as_str().unwrap());
        names.filter(|name| name.starts_with(folder)).count()
    };
    assert_eq!(below(&format!("{pictures}/0")), 1002);
    assert_eq!(below("./page_files/0"), 1002);
    assert!(
        !place
            .listing()
            .keys()
            .any(|path| path.to_string_lossy().contains(".prism-"))
    );

    // A smaller run does not take them for its own.
    let stderr = run("--input few.npz");
    let said = format!("{pictures} also has pictures of an earlier run, 1002 in number");
    assert!(stderr.contains(&said), "{stderr}");
}

/// A tensor of a safetensors file, its type, and where its numbers begin.
fn tensor_of(bytes: &[u8], name: &str) -> (Tensor, Dtype, usize) {
    let tensors = SafeTensors::deserialize(bytes).unwrap();
    let view = tensors.tensor(name).unwrap();
    let kind = match view.dtype() {
        Dtype::F16 => Kind::Half,
        Dtype::U8 => Kind::Uint8,
        Dtype::F32 => Kind::Float,
        other => panic!("{other:?}"),
    };
    let shape: Vec<i64> = view.shape().iter().map(|&side| side as i64).collect();
    let start = view.data().as_ptr() as usize - bytes.as_ptr() as usize;
    let tensor = Tensor::f_from_data_size(view.data(), &shape, kind).unwrap();
    (tensor, view.dtype(), start)
}

#[test]
fn arrays_are_chosen_and_have_smaller_types() {
    let place = Place::new();
    let base = "--quiet --input photos --exclusive --upsampling bilinear --saliency gradcam";
    place.run(&format!("{base} --save-arrays all.npz"));
    let all = Npz::open(place.path("all.npz"));

    // Bytes: the nearest ones; arrays beyond 0 to 1 stay float32.
    place.run(&format!(
        "{base} --save-arrays bytes.npz --array-type u8 --arrays left_out,maps,features"
    ));
    let file = fs::File::open(place.path("bytes.npz")).unwrap();
    let mut bytes = NpzReader::new(file).unwrap();
    let mut names = bytes.names().unwrap();
    names.sort();
    assert_eq!(names, ["features", "files", "left_out", "maps"]);
    for name in ["maps", "left_out"] {
        let stored: ArrayD<u8> = bytes.by_name(name).unwrap();
        let wanted = (all.tensor(name).to_kind(Kind::Double) * 255.0).round();
        let stored = Tensor::try_from(stored).unwrap();
        assert_near(&stored, &wanted, 0.0, name);
    }
    assert!(Npz::open(place.path("bytes.npz")).tensor("features") == all.tensor("features"));

    // Halves: as libtorch rounds. Scores and shares keep their digits; numbers are aligned.
    place.run(&format!(
        "{base} --save-arrays halves.safetensors --array-type f16"
    ));
    let bytes = fs::read(place.path("halves.safetensors")).unwrap();
    for name in [
        "maps",
        "left_out",
        "features",
        "components",
        "lengths",
        "saliency",
        "input",
    ] {
        let (stored, kind, _) = tensor_of(&bytes, name);
        assert_eq!(kind, Dtype::F16, "{name}");
        assert!(stored == all.tensor(name).to_kind(Kind::Half), "{name}");
    }
    for name in ["logits", "probabilities", "variance_ratio"] {
        let (stored, kind, start) = tensor_of(&bytes, name);
        assert_eq!((kind, start % 4), (Dtype::F32, 0), "{name}");
        assert!(stored == all.tensor(name), "{name}");
    }
    place.run(&format!(
        "{base} --save-arrays mixed.safetensors --array-type u8"
    ));
    let bytes = fs::read(place.path("mixed.safetensors")).unwrap();
    for name in ["input", "features", "saliency", "variance_ratio"] {
        let (stored, kind, start) = tensor_of(&bytes, name);
        assert_eq!((kind, start % 4), (Dtype::F32, 0), "{name}");
        assert!(stored == all.tensor(name), "{name}");
    }
    assert_eq!(tensor_of(&bytes, "maps").1, Dtype::U8);

    // Each can be the input again.
    let model = tiny("tiny_vgg_traced").replace(" --image-size 64", "");
    for file in ["halves.safetensors", "mixed.safetensors"] {
        let (lines, _) = place.succeed(&format!("{model} --quiet --input {file}"));
        assert_eq!(lines.lines().count(), 3, "{file}");
    }

    // What is chosen but cannot be there is named, and so is what hides in zeros.
    let (_, stderr) = place.succeed(&format!(
        "{} --input photos --inclusive --exclusive --save-arrays a.npz --arrays maps,left_out",
        tiny("tiny_vgg_traced")
    ));
    assert!(
        stderr.contains("a.npz lacks the array left_out: no pixel"),
        "{stderr}"
    );
    let (_, stderr) = place.succeed(&format!(
        "{} --input photos --inclusive --upsampling bilinear --save-arrays a.npz --arrays maps",
        tiny("tiny_vgg_traced")
    ));
    assert!(
        stderr.contains("maps that are 0 where a pixel is left out"),
        "{stderr}"
    );
}

#[test]
fn saved_runs_of_smaller_types_and_fewer_arrays_are_read_back() {
    let place = Place::new();
    let base = "--quiet --input photos --exclusive --upsampling bilinear";
    place.run(&format!("{base} --json all.json --save-arrays all.npz"));
    for (name, options) in [
        ("halves.npz", "--array-type f16"),
        ("bytes.safetensors", "--array-type u8"),
    ] {
        place.run(&format!(
            "{base} --json small.json --save-arrays {name} {options}"
        ));
        let [all, small] =
            ["all.json", "small.json"].map(|file| SavedRun::open(&place.path(file), None).unwrap());
        for image in 0..3 {
            let [one, other] = [&all, &small].map(|run| run.map(image).unwrap());
            assert!(one.isnan() == other.isnan(), "{name}");
            let [one, other] = [one, other].map(|map| map.nan_to_num(0.0, None, None));
            assert_near(&one, &other, 0.002, name);
        }
        let (stdout, _) = place.succeed("compare all.json small.json --quiet --json -");
        let found: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(found["top1_changed"], 0.0);
        assert!((found["cka"].as_f64().unwrap() - 1.0).abs() < 1e-4);
        place.succeed("report small.json --quiet --output small.html");
    }

    // Features and scores are enough for a comparison, but not for a page.
    let chosen = "features,components,lengths,variance_ratio,probabilities";
    place.run(&format!(
        "{base} --json some.json --save-arrays some.npz --arrays {chosen}"
    ));
    place.succeed("compare all.json some.json --quiet");
    for command in [
        "report some.json",
        "compare all.json some.json --report x.html",
    ] {
        let output = place.try_run(command);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        let said = "some.json: its arrays lack maps, input, left_out, so there are no pictures";
        assert!(stderr.contains(said), "{stderr}");
        assert!(stderr.contains("--arrays"), "{stderr}");
    }
}

#[test]
fn a_summary_in_lines_is_that_of_the_object() {
    let place = Place::new();
    let base = "--quiet --input photos --save-arrays run.npz";
    let printed = place.run(&format!("{base} --json run.json"));
    assert_eq!(place.run(&format!("{base} --json run.JSONL")), printed);
    let whole = json(&place, "run.json");
    let lines = json_lines(&place, "run.JSONL");
    assert_eq!(lines.len(), 4);
    assert_eq!(&lines[1..], whole["images"].as_array().unwrap().as_slice());
    let mut keys: Vec<&String> = whole.as_object().unwrap().keys().collect();
    keys.retain(|key| *key != "images");
    for key in keys
        .iter()
        .filter(|key| !["files", "seconds"].contains(&key.as_str()))
    {
        assert_eq!(lines[0][key.as_str()], whole[key.as_str()], "{key}");
    }
    assert_eq!(lines[0].as_object().unwrap().len(), keys.len() + 1);
    assert_eq!(lines[0]["image_count"], 3);
    assert_eq!(
        lines[0]["files"].as_array().unwrap().last().unwrap(),
        "run.JSONL"
    );

    // Both are read back as the same run.
    for (summary, page) in [("run.json", "a.html"), ("run.JSONL", "b.html")] {
        place.succeed(&format!("report {summary} --quiet --output {page}"));
    }
    let [a, b] = ["a.html", "b.html"].map(|page| fs::read(place.path(page)).unwrap());
    assert!(a == b, "the pages differ");
    let (stdout, _) = place.succeed("compare run.json run.JSONL --quiet --json -");
    let found: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        (&found["images"], &found["top1_changed"]),
        (&3.into(), &0.0.into())
    );
}

#[test]
fn intermediate_results_lie_in_the_folder_that_is_named_and_leave_nothing() {
    let place = Place::with_images(60);
    fs::create_dir(place.path("spool")).unwrap();
    let usual = place.run("--quiet --input photos --memory 0K");
    let elsewhere = place.run("--quiet --input photos --memory 0K --spool spool -o out");
    assert_eq!(usual, elsewhere);
    assert!(place.names("spool").is_empty());
    let figure = |folder: &str| {
        let figure = place.path(folder).join("PRISM_tiny_vgg_traced.jpg");
        image::open(figure).unwrap().to_rgb8()
    };
    assert!(figure("results") == figure("out"));

    // A file of the process is there, without a name, until it is killed.
    let mut prism = place.prism();
    prism.args(tiny("tiny_vgg_traced").split(' '));
    prism.args(["--input", "photos", "--memory", "0K", "--spool", "spool"]);
    let quiet = prism.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = quiet.spawn().unwrap();
    let files = format!("/proc/{}/fd", child.id());
    let spool = fs::canonicalize(place.path("spool")).unwrap();
    let is_there = || {
        let links = fs::read_dir(&files).into_iter().flatten().flatten();
        let mut links = links.filter_map(|link| fs::read_link(link.path()).ok());
        links.any(|file| file.starts_with(&spool))
    };
    let begun = Instant::now();
    let mut found = false;
    while !found && child.try_wait().unwrap().is_none() {
        found = is_there();
        assert!(begun.elapsed() < Duration::from_secs(60), "no file");
    }
    let _ = child.kill();
    child.wait().unwrap();
    assert!(found, "no file in the folder was open");
    assert!(place.names("spool").is_empty());
}
