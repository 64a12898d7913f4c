//! What the network sees of images and stored arrays: channels, normalisation and resizing,
//! compared with PyTorch and Pillow (`tests/reference/make_channels.py`, `make_images.py`), and
//! what a run says of it.

use std::fs;

use image::RgbImage;
use tch::{Kind, Tensor};

use crate::common::place::{Place, tiny};
use crate::common::{Npz, assert_near, data};

/// Runs the network of tests/data/channels on an input below tests/data; returns the arrays and
/// stderr.
fn run_channels(network: &str, input: &str, options: &str) -> (Npz, String) {
    let place = Place::bare();
    let (file, input) = (data(&format!("channels/{network}.pt")), data(input));
    let line = format!(
        "{} --model {} --save-arrays run.npz {options}",
        input.display(),
        file.display()
    );
    let (_, stderr) = place.succeed(&line);
    (Npz::open(place.path("run.npz")), stderr)
}

/// A picture of tests/data/images as `[1,3,H,W]` from 0 to 255.
fn picture(name: &str) -> Tensor {
    tensor_of(&image::open(data("images").join(name)).unwrap().to_rgb8())
}

fn tensor_of(picture: &RgbImage) -> Tensor {
    let (width, height) = picture.dimensions();
    Tensor::from_slice(picture.as_raw())
        .reshape([1, height.into(), width.into(), 3])
        .permute([0, 3, 1, 2])
        .to_kind(Kind::Float)
}

fn per_channel(values: [f32; 3]) -> Tensor {
    Tensor::from_slice(&values).reshape([1, 3, 1, 1])
}

#[test]
fn stored_arrays_have_as_many_channels_as_the_network_takes() {
    for (name, channels) in [
        ("grey", 1),
        ("repeated", 1),
        ("any_number", 5),
        ("two", 2),
        ("four", 4),
        ("seven", 7),
        ("fixed_size", 4),
    ] {
        let input = format!("channels/{name}.npz");
        let (found, stderr) = run_channels(name, &input, "");
        let expected = Npz::open(data(&input));
        for (array, most) in [("features", 1e-4), ("logits", 1e-5), ("input", 0.0)] {
            let what = format!("{name}: {array}");
            assert_near(&found.tensor(array), &expected.tensor(array), most, &what);
        }
        let remark = format!("the images have {channels} channels; the pictures show the first");
        assert_eq!(stderr.contains(&remark), channels > 1, "{stderr}");
    }
}

#[test]
fn photographs_are_grey_for_one_channel_and_colours_for_any_number() {
    for (name, is_grey) in [("grey", true), ("repeated", true), ("any_number", false)] {
        let (found, stderr) = run_channels(name, "images/photo.png", "--image-size 32");
        let expected = Npz::open(data(&format!("channels/{name}.npz")));
        // Resized pixels may differ by 1 of 255, over a standard deviation of 0.224 or more.
        let most = 1.0 / 255.0 / 0.224 + 1e-6;
        assert_near(
            &found.tensor("input"),
            &expected.tensor("photo"),
            most,
            name,
        );
        assert_near(
            &found.tensor("logits"),
            &expected.tensor("photo_logits"),
            5e-3,
            name,
        );
        let remark = "photographs are taken in grey, 0.299 R + 0.587 G + 0.114 B";
        assert_eq!(stderr.contains(remark), is_grey, "{stderr}");
        let assumed = "mean 0.449 and std 0.226 are assumed";
        assert_eq!(stderr.contains(assumed), is_grey, "{stderr}");
    }
    let options = "--image-size 32 --mean 0.25 --std 0.5";
    let (found, stderr) = run_channels("grey", "images/photo.png", options);
    let expected = Npz::open(data("channels/grey.npz")).tensor("photo");
    let expected = (expected * 0.226 + 0.449 - 0.25) / 0.5;
    assert_near(
        &found.tensor("input"),
        &expected,
        1.0 / 127.0,
        "mean and std",
    );
    assert!(!stderr.contains("assumed"), "{stderr}");
}

#[test]
fn the_layers_of_any_number_of_channels_are_listed() {
    let layers = |name: &str| {
        let file = data(&format!("channels/{name}.pt"));
        let line = format!("layers --image-size 32 --model {}", file.display());
        Place::bare().succeed(&line).0
    };
    for name in [
        "grey",
        "repeated",
        "any_number",
        "two",
        "four",
        "fixed_size",
    ] {
        let table = layers(name);
        assert!(table.contains("4x16x16  guide"), "{name}: {table}");
        assert!(table.contains("8x8x8  excitation"), "{name}: {table}");
    }
    assert!(layers("seven").contains("7x34x34"));
}

#[test]
fn blue_green_red_is_the_order_of_mean_and_std() {
    let place = Place::new();
    let base = tiny("tiny_vgg_traced");
    let input = |options: &str| {
        place.succeed(&format!(
            "{base} photos/a.png --save-arrays run.npz {options}"
        ));
        Npz::open(place.path("run.npz")).tensor("input")
    };
    let pixels = picture("photo_64x64.png") / 255.0;
    let most = 1.0 / 255.0 / 0.224 + 1e-6;
    let backwards = pixels.flip([1]);
    let assumed =
        (&backwards - per_channel([0.406, 0.456, 0.485])) / per_channel([0.225, 0.224, 0.229]);
    assert_near(&input("--bgr"), &assumed, most, "assumed");
    let given = (&backwards - per_channel([0.4, 0.5, 0.6])) / per_channel([0.25, 0.5, 1.0]);
    let options = "--bgr --mean 0.4,0.5,0.6 --std 0.25,0.5,1";
    assert_near(&input(options), &given, most, "given");
    let one = (&pixels - 0.5) / 0.25;
    assert_near(&input("--mean 0.5 --std 0.25"), &one, most, "one for all");
}

/// Pictures of the figures show what the network sees.
#[test]
fn images_are_cropped_or_padded_and_so_are_their_pictures() {
    let place = Place::new();
    let base = tiny("tiny_vgg_traced");
    let options =
        "--mean 0 --std 1 --save-arrays run.npz --per-image --overlay 0 --square --report run.html";
    let mut shown = Vec::new();
    for (how, name) in [
        ("stretch", "photo_64x64.png"),
        ("crop", "photo_crop_64.png"),
        ("pad", "photo_pad_64.png"),
    ] {
        place.succeed(&format!("{base} photos/a.png --resize {how} {options}"));
        let input = Npz::open(place.path("run.npz")).tensor("input") * 255.0;
        let expected = picture(name);
        assert_near(&input, &expected, 1.001, how);
        // Laid over at opacity 0: the picture alone, of 448 pixels.
        let file = place.path("results/PRISM_tiny_vgg_traced/0001_a_overlay.png");
        let over = tensor_of(&image::open(file).unwrap().to_rgb8());
        shown.push((
            how,
            over.avg_pool2d([7, 7], [7, 7], [0, 0], false, true, None),
            expected,
        ));
    }
    for (how, over, _) in &shown {
        let mean = |other: &Tensor| (over - other).abs().mean(Kind::Double).double_value(&[]);
        let nearest = shown
            .iter()
            .min_by(|a, b| mean(&a.2).total_cmp(&mean(&b.2)));
        assert_eq!(nearest.unwrap().0, *how);
    }
}

#[test]
fn what_is_odd_about_images_is_one_remark_for_each_kind() {
    let place = Place::bare();
    fs::create_dir(place.path("odd")).unwrap();
    for name in [
        "twelve_bits.pgm",
        "twelve_bits.png",
        "empty_alpha.bmp",
        "empty_alpha.png",
        "empty_alpha.tga",
        "narrow.png",
        "photo.png",
    ] {
        fs::copy(data("images").join(name), place.path("odd").join(name)).unwrap();
    }
    // A hot pixel does not hide that there is no contrast.
    let samples = (0..1600u16).map(|place| if place == 800 { 65535 } else { place * 2 });
    let mut hot = b"P5 40 40 65535\n".to_vec();
    hot.extend(samples.flat_map(u16::to_be_bytes));
    fs::write(place.path("odd/hot.pgm"), hot).unwrap();
    let base = tiny("tiny_vgg_traced");
    let (_, stderr) = place.succeed(&format!("{base} odd --json run.json"));
    let json: serde_json::Value =
        serde_json::from_slice(&fs::read(place.path("run.json")).unwrap()).unwrap();
    let remarks = json["remarks"].as_array().unwrap();
    for (part, is_warning) in [
        (
            "odd/hot.pgm and 2 more images: the 16-bit samples end at ",
            true,
        ),
        (
            "if they have 12 bits, white is 4095 (--white LEVEL sets",
            true,
        ),
        ("odd/narrow.png: the 16-bit samples lie between 2", true),
        (
            "odd/empty_alpha.bmp and 2 more images: alpha is 0 everywhere",
            false,
        ),
    ] {
        let line = stderr.lines().find(|line| line.contains(part));
        let line = line.unwrap_or_else(|| panic!("no {part}: {stderr}"));
        assert_eq!(line.starts_with("prism: warning: "), is_warning, "{line}");
        assert!(line.len() < 300, "{line}");
        let said = |remark: &serde_json::Value| remark.as_str().unwrap().contains(part);
        assert_eq!(
            remarks.iter().filter(|remark| said(remark)).count(),
            1,
            "{part}"
        );
    }
    let (_, stderr) = place.succeed(&format!("{base} odd/twelve_bits.png --white 4095"));
    assert!(!stderr.contains("warning"), "{stderr}");
    let (_, stderr) = place.succeed(&format!("{base} odd/photo.png --white 4095"));
    assert!(
        stderr.contains("no image has 16 bits per sample"),
        "{stderr}"
    );
}

#[test]
fn positional_images_are_as_those_after_input() {
    let place = Place::new();
    let base = format!("{} --quiet", tiny("tiny_vgg_traced"));
    let seen = |words: &str| place.succeed(&format!("{words} {base}")).0;
    let expected = seen("--input photos/a.png photos/c.jpg");
    assert_eq!(seen("photos/a.png photos/c.jpg"), expected);
    assert_eq!(seen("photos/c.jpg --input photos/a.png"), expected);
    assert_eq!(
        place
            .succeed(&format!("{base} photos/c.jpg photos/a.png"))
            .0,
        expected
    );
    // A command's name is the command if it is the first word, even if there is such a file.
    fs::copy(place.path("photos/b.png"), place.path("models")).unwrap();
    assert!(place.succeed("models").0.starts_with("name "));
    assert!(seen("./models").starts_with("./models\t"));
    assert_eq!(seen("photos/a.png models").lines().count(), 2);
    let help = place.succeed("help").0;
    assert!(help.contains("Usage: prism [OPTIONS] [IMAGE]..."), "{help}");
    let help = place.succeed("help som").0;
    assert!(help.contains("Usage: prism som"), "{help}");
}

/// Large photographs are reduced while they are decoded, unless all pixels are asked for; what the
/// page shows does not change what the network sees.
#[test]
fn all_pixels_are_decoded_if_asked_for() {
    let place = Place::bare();
    let photograph = place.path("large.jpg");
    let cat = image::open(crate::common::repository("samples/cat.jpg")).unwrap();
    let large = cat.resize_exact(2400, 1800, image::imageops::FilterType::CatmullRom);
    large.save(&photograph).unwrap();
    let input = |more: &str| {
        let network = tiny("tiny_resnet_traced");
        let line = format!(
            "{} {network} --mean 0,0,0 --std 1,1,1 --save-arrays a.npz --json s.json {more}",
            photograph.display()
        );
        place.succeed(&line);
        let summary = fs::read(place.path("s.json")).unwrap();
        let summary: serde_json::Value = serde_json::from_slice(&summary).unwrap();
        let says_exact = summary["settings"]["decoding"]["value"] == "exact";
        (Npz::open(place.path("a.npz")).tensor("input"), says_exact)
    };
    let (reduced, said) = input("");
    assert!(!said);
    let all = resized_by_formula(&image::open(&photograph).unwrap().into_rgb8(), 64);
    let off = |ours: &Tensor, its: &Tensor| (ours - its).abs().mean(Kind::Double).double_value(&[]);
    let (exact, _) = input("--exact-decode");
    for (options, is_exact) in [
        ("--exact-decode", true),
        ("--hooks torchprism", true),
        ("", false),
    ] {
        let (input, said) = input(options);
        let off = off(&input, &all) * 255.0;
        println!("{options}: {off:.3} of 255");
        assert_eq!(said, is_exact);
        assert_eq!(input == exact, is_exact, "{options}");
        assert!(off < 0.3, "bytes are rounded, 0.25 in the mean");
    }
    let (with_page, _) = input("--report p.html");
    assert!(with_page == reduced);
    let shown = fs::read(place.path("p.html")).unwrap();
    place.succeed("report s.json --quiet --output again.html");
    assert!(fs::read(place.path("again.html")).unwrap() == shown);
}

/// A square of `side` pixels, `[1,3,side,side]` from 0 to 1: triangle-weighted means of all pixels
/// that each covers, as torchvision's `resize` with antialiasing.
fn resized_by_formula(picture: &RgbImage, side: i64) -> Tensor {
    let weights = |length: u32| {
        let scale = f64::from(length) / side as f64;
        let at = Tensor::arange(i64::from(length), (Kind::Double, tch::Device::Cpu)) + 0.5;
        let centres = (Tensor::arange(side, (Kind::Double, tch::Device::Cpu)) + 0.5) * scale;
        let distance = (at.unsqueeze(0) - centres.unsqueeze(1)).abs() / scale;
        let weights = (distance.neg() + 1.0).clamp_min(0.0);
        &weights / weights.sum_dim_intlist(1, true, Kind::Double)
    };
    let (width, height) = picture.dimensions();
    let colours = tensor_of(picture).to_kind(Kind::Double) / 255.0;
    weights(height)
        .matmul(&colours)
        .matmul(&weights(width).tr())
}
