//! Makes the pictures of docs/gallery.md, each with the options beside it there:
//! `make gallery`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use image::codecs::jpeg::JpegEncoder;
use image::imageops::{self, FilterType};

const PHOTOS: &str = "samples/cat.jpg samples/cow.jpg samples/dog.jpg samples/sheep.jpg";
const MODEL: &str = "efficientnet_lite0";

/// Picture and the options that make it.
const MAPS: [(&str, &str); 9] = [
    ("map", ""),
    ("features", "--no-gradual-extrapolation"),
    ("inclusive", "--inclusive"),
    ("exclusive", "--exclusive"),
    ("quantised", "--inclusive --exclusive"),
    ("split-rgb", "--split-rgb"),
    ("gradcam", "--saliency gradcam"),
    ("exct-backp", "--saliency exct-backp"),
    ("target", "--saliency gradcam --target ram"),
];

/// Pictures are shrunk to this width, pixels, and this quality.
const WIDTH: u32 = 840;
const QUALITY: u8 = 82;

fn main() -> Result<()> {
    let made = Path::new("target/gallery");
    let gallery = Path::new("docs/gallery");
    std::fs::create_dir_all(gallery)?;
    for (name, options) in MAPS {
        prism(&format!(
            "--input {PHOTOS} --model {MODEL} --format png --output-dir {} {options}",
            made.display()
        ))?;
        let figure = made.join(format!("PRISM_{MODEL}.png"));
        shrink(&figure, &gallery.join(format!("{name}.jpg")))?;
    }
    let variance = made.join(format!("PRISM_var_{MODEL}.png"));
    shrink(&variance, &gallery.join("variance.jpg"))?;

    let clusters = made.join("clustering.png");
    prism(&format!(
        "--input samples/ --model {MODEL} --output-dir {} --cluster",
        made.display()
    ))?;
    let colours = made.join("2cluster.bin");
    prism(&format!(
        "som {} --labels imagenet --thumbnails --output {}",
        colours.display(),
        clusters.display()
    ))?;
    shrink(&clusters, &gallery.join("clusters.jpg"))
}

/// Runs the binary beside which this example lies.
fn prism(line: &str) -> Result<()> {
    let this = std::env::current_exe()?;
    let folder = this.parent().and_then(Path::parent);
    let prism = folder.context("no target folder")?.join("prism");
    println!("prism {line}");
    let status = Command::new(&prism)
        .args(line.split_whitespace())
        .arg("--quiet")
        .status()
        .with_context(|| format!("{}: build it first", prism.display()))?;
    ensure!(status.success(), "prism {line}: {status}");
    Ok(())
}

fn shrink(figure: &Path, picture: &Path) -> Result<()> {
    let figure = image::open(figure)?.to_rgb8();
    let height = (figure.height() * WIDTH).div_ceil(figure.width());
    let small = imageops::resize(&figure, WIDTH, height, FilterType::CatmullRom);
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, QUALITY).encode_image(&small)?;
    Ok(std::fs::write(picture, bytes)?)
}
