//! The table of refusals: command lines with bad or unusual input, the exit status, and parts of
//! the message. A refused run leaves no file behind ([`Place::expect`]).
//!
//! A row is `WORDS => STATUS: PART | PART`; lines that begin with `#` are comments. In the words
//! - `{a|b}` makes one row with `a` and one with `b`,
//! - `\xNN` is a byte, `""` an empty word, and `X300` a name of 300 letters,
//! - a name whose first component is known to [`make`] is made before the run (`empty.jpg`),
//! - `NAME=KIND` makes a file of that kind under another name,
//! - a `+` makes the file without passing its name.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Cursor, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use crate::common::place::{Place, network, tiny};
use crate::common::{data, repository};
use image::{ImageFormat, Rgb, RgbImage};
use prism::model::zoo;
use tch::{Device, Kind, Tensor, nn};

/// Ends a run that hangs with status 124; no row takes as long.
const TIMEOUT: [&str; 3] = ["timeout", "--kill-after=1", "60"];

const IMAGES: &str = "--image-size 64 --model data/networks/tiny_vgg_traced.pt --input";
const OPTIONS: &str =
    "--image-size 64 --model data/networks/tiny_vgg_traced.pt --input photos/a.png";
const MODELS: &str = "--image-size 64 --input photos/a.png --model";
const WEIGHTS: &str = "--image-size 64 --input photos/a.png --model squeezenet1_1 --weights";

/// Runs every row after the words of `base` and names all that fail.
fn check(base: &str, table: &str) {
    let lines = table.lines().map(str::trim);
    let rows = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut failed = Vec::new();
    for row in rows.flat_map(alternatives) {
        let checked = std::panic::catch_unwind(|| {
            let (words, ending) = row.split_once("=> ").expect("a row with =>");
            let (status, parts) = ending.split_once(':').unwrap_or((ending, ""));
            let parts = parts.split('|').map(str::trim);
            let parts: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
            let (place, command) = prepare(&TIMEOUT, base, words);
            place.expect(command, status.parse().unwrap(), &parts);
        });
        if let Err(panic) = checked {
            let text = panic.downcast_ref::<String>().cloned();
            failed.push(format!("{row}\n{}", text.unwrap_or_default()));
        }
    }
    let (count, failed) = (failed.len(), failed.join("\n\n"));
    assert!(failed.is_empty(), "{count} rows failed:\n\n{failed}");
}

/// The folder of a row, with its files, and its command.
fn prepare(before: &[&str], base: &str, words: &str) -> (Place, Command) {
    let place = Place::new();
    symlink(data(""), place.path("data")).unwrap();
    let mut command = place.prism_after(before);
    // Several rows run at once.
    for threads in ["OMP_NUM_THREADS", "RAYON_NUM_THREADS"] {
        command.env(threads, "1");
    }
    command.args(base.split_whitespace());
    for word in words.split_whitespace() {
        let (word, is_argument) = match word.strip_prefix('+') {
            Some(word) => (word, false),
            None => (word, true),
        };
        let name = match word.rsplit_once('=') {
            Some((name, kind)) if !word.starts_with("--") => {
                make(&place, &unescaped(name), kind);
                unescaped(name)
            }
            _ => {
                let first = word.split('/').next().unwrap();
                make(&place, first.as_ref(), first);
                unescaped(word)
            }
        };
        if is_argument {
            command.arg(name);
        }
    }
    (place, command)
}

/// The rows that a row with `{a|b}` stands for.
fn alternatives(row: &str) -> Vec<String> {
    let Some((before, rest)) = row.split_once('{') else {
        return vec![row.to_string()];
    };
    let (choices, after) = rest.split_once('}').expect("a closing brace");
    let row = |choice| format!("{before}{choice}{after}");
    choices.split('|').map(row).collect()
}

fn unescaped(word: &str) -> OsString {
    let mut word = word.replace("\"\"", "");
    for length in [251, 300] {
        word = word.replace(&format!("X{length}"), &"x".repeat(length));
    }
    let mut parts = word.split("\\x");
    let mut bytes = parts.next().unwrap().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend(&part.as_bytes()[2..]);
    }
    OsStr::from_bytes(&bytes).to_os_string()
}

// --- files ----------------------------------------------------------------

/// Makes a file or folder; an unknown kind makes none, so that a row can name a missing file.
fn make(place: &Place, name: &OsStr, kind: &str) {
    let path = place.root.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let write = |path: &Path, kind: &str| fs::write(path, content(kind).unwrap()).unwrap();
    match kind.split('.').next().unwrap() {
        "folder" => fs::create_dir_all(path).unwrap(),
        "album" => {
            fs::create_dir(&path).unwrap();
            write(&path.join("a.png"), "photo.png");
        }
        "notes" => {
            fs::create_dir(&path).unwrap();
            write(&path.join("notes.txt"), "text");
        }
        "phone" => {
            fs::create_dir(&path).unwrap();
            (1..3).for_each(|at| write(&path.join(format!("{at}.heic")), "shot.heic"));
        }
        _ if kind.ends_with(".in.folder") => {
            fs::create_dir_all(path.join("below")).unwrap();
            write(&path.join("below/a.png"), "photo.png");
        }
        "turned" => {
            fs::create_dir(&path).unwrap();
            for name in (1..=8).map(|orientation| format!("orientation_{orientation}.jpg")) {
                fs::copy(data("images").join(&name), path.join(name)).unwrap();
            }
        }
        "many" => {
            fs::create_dir(&path).unwrap();
            let dot = content("grey_1x1.png").unwrap();
            (0..3000).for_each(|at| fs::write(path.join(format!("{at:04}.png")), &dot).unwrap());
            write(&path.join("2999.png"), "empty");
        }
        "link" => symlink("nowhere", path).unwrap(),
        "loop" => symlink(name, path).unwrap(),
        "full" => symlink("/dev/full", path).unwrap(),
        "pipe" => assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
        "endless" => fs::File::create(path).unwrap().set_len(1 << 34).unwrap(),
        _ => {
            if let Some(bytes) = content(kind) {
                fs::write(path, bytes).unwrap();
            }
        }
    }
}

/// The bytes of a file of this kind, such as `empty.jpg`, `cut50_photo.png` (its first half) or
/// `grey_10000x1.png`.
fn content(kind: &str) -> Option<Vec<u8>> {
    if let Some((percent, whole)) = kind.strip_prefix("cut").and_then(|cut| cut.split_once('_')) {
        let whole = content(whole)?;
        return Some(whole[..whole.len() * percent.parse::<usize>().unwrap() / 100].to_vec());
    }
    let (stem, extension) = kind.split_once('.').unwrap_or((kind, ""));
    let (stem, size) = stem.split_once('_').unwrap_or((stem, ""));
    let size = size.split_once('x').map(|(width, height)| [width, height]);
    let size = || size.unwrap().map(|side| side.parse::<u32>().unwrap());
    let text = |text: &str| text.as_bytes().to_vec();
    Some(match (stem, extension) {
        ("empty", _) => text(""),
        ("byte", _) => vec![0],
        ("text", _) => text("this is plain text\n"),
        ("html", _) => text("<!DOCTYPE html><html><body>404</body></html>"),
        ("noise", _) => (0..9999u32).map(|i| ((i * i * 7) >> 3) as u8).collect(),
        ("photo", _) => photo(ImageFormat::from_extension(extension)?),
        ("grey", _) => {
            let [width, height] = size();
            let grey = RgbImage::from_pixel(width, height, Rgb([90, 90, 90]));
            encoded(&grey, ImageFormat::Png)
        }
        ("drawing", _) => text("<svg xmlns='http://www.w3.org/2000/svg'/>"),
        ("shot", "heic") => text("\0\0\0\x18ftypheic\0\0\0\0mif1heic"),
        ("shot", "avif") => text("\0\0\0\x18ftypmif1\0\0\0\0avifmif1"),
        ("shot", "jp2") => b"\0\0\0\x0cjP  \r\n\x87\n\0\0".to_vec(),
        ("shot", "jxl") => b"\0\0\0\x0cJXL \r\n\x87\n\0\0".to_vec(),
        ("shot", "dcm") => [&[0; 128][..], b"DICM\x02\0"].concat(),
        ("shot", "mp4") => text("\0\0\0\x18ftypisom\0\0\0\0isommp41"),
        ("lab", "tiff") => {
            let mut bytes = photo(ImageFormat::Tiff);
            let photometric = [6, 1, 3, 0, 1, 0, 0, 0, 2, 0];
            let at = bytes.windows(10).position(|part| part == photometric);
            bytes[at.unwrap() + 8] = 8;
            bytes
        }
        ("float", "tiff") => {
            let grey = image::Rgb32FImage::from_pixel(2, 2, Rgb([0.5; 3]));
            let mut bytes = Cursor::new(Vec::new());
            grey.write_to(&mut bytes, ImageFormat::Tiff).unwrap();
            bytes.into_inner()
        }
        ("shot", "lfs") => text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        ("new", "avif") => text("\0\0\0\x20ftypavif\0\0\0\0avifmif1miafMA1B"),
        ("sky", "hdr") => text("#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 1 +X 1\n"),
        ("claims", "png") => png_header(size()),
        ("claims", "jpg") => jpeg_of_size(size()),
        ("claims", "gif") => gif_with_frame(size()),
        // Found by fuzzing.
        ("panics", _) => fs::read(repository("fuzz/corpus/image/panicking.jpg")).unwrap(),
        ("flipped", _) => {
            let mut bytes = photo(ImageFormat::Png);
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x55;
            bytes
        }
        ("plain", "npz") => fs::read(data("arrays/plain.npz")).unwrap(),
        ("plain", "jpg") => fs::read(data("images/plain.jpg")).unwrap(),
        ("network", _) => fs::read(network("tiny_squeezenet_traced")).unwrap(),
        ("zeroed", _) => {
            let mut bytes = content("network").unwrap();
            // The pickle of the network's parts begins here.
            let pickle = b"\x80\x02c__torch";
            let start = bytes.windows(10).position(|part| part == pickle).unwrap();
            bytes[start..start + 16].fill(0);
            bytes
        }
        ("other", _) => archive(&[("notes.txt", b"notes")]),
        ("foreign", "h5") => b"\x89HDF\r\n\x1a\n".to_vec(),
        ("foreign", "keras") => archive(&[("config.json", b"{}"), ("model.weights.h5", b"")]),
        ("foreign", "tflite") => b"\x1c\0\0\0TFL3\x14\0 \0".to_vec(),
        ("foreign", "ort") => b"\x18\0\0\0ORTM".to_vec(),
        (change, "weights.safetensors" | "weights.ot") => {
            state_dict(change, extension.trim_start_matches("weights."))
        }
        ("one", _) => text("]((Va.jpg\nK\x01](K\x01K\x00ete."),
        ("ten", _) => text("a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n"),
        ("windows", _) => text("\u{feff}a\r\nb\r\nc\r\nd\r\ne\r\nf\r\ng\r\nh\r\ni\r\nj\r\n"),
        ("synonyms", _) => text("a\nbee, honey bee\nc\nd\ne\nfox\ng\nh\ni\nfox, red fox, Vulpes\n"),
        ("two", _) => text("cat\ndog\n"),
        ("gap", "txt") => text("cat\n\ndog\n"),
        ("latin1", _) => b"caf\xe9\n".to_vec(),
        ("words", _) => text("cat, dog"),
        ("number", _) => text("10"),
        ("numbers", _) => text("[1, 2]"),
        ("twice", _) => text(r#"{"cat": 0, "dog": 0}"#),
        ("gap", _) => text(r#"{"cat": 0, "dog": 5}"#),
        ("deep", _) => text(&"[".repeat(100_000)),
        ("run", "json") => run()[0].clone(),
        ("run", "npz") => run()[1].clone(),
        ("alone", "json") => run()[2].clone(),
        ("alone", "npz") => run()[3].clone(),
        ("second", "json") => replaced(&run()[0], "run.npz", "second.npz"),
        ("second", "npz") => run()[1].clone(),
        ("lines", "jsonl") => in_lines(&run()[0]),
        ("longer", "jsonl") => {
            let lines = in_lines(&run()[0]);
            let last = lines[..lines.len() - 1].iter().rposition(|&b| b == b'\n');
            [lines.as_slice(), &lines[last.unwrap() + 1..]].concat()
        }
        ("shorter", "jsonl") => {
            let lines = in_lines(&run()[0]);
            let last = lines[..lines.len() - 1].iter().rposition(|&b| b == b'\n');
            lines[..=last.unwrap()].to_vec()
        }
        ("cut", "jsonl") => {
            let lines = in_lines(&run()[0]);
            lines[..lines.len() - 9].to_vec()
        }
        ("pathless", "jsonl") => {
            let lines = in_lines(&run()[0]);
            replaced(
                &lines,
                "\"path\":\"photos/b.png\"",
                "\"file\":\"photos/b.png\"",
            )
        }
        ("bare", "json") => replaced(&run()[0], "run.npz", "run.txt"),
        ("renamed", "json") => replaced(&run()[0], "photos/b.png", "photos/x.png"),
        ("altered", "json") => replaced(&run()[0], "\"probability\": 0.", "\"probability\": 0.9"),
        ("versioned", "json") => replaced(&run()[0], "\"upsampling\"", "\"upscaling\""),
        ("painted", "json") => replaced(&run()[0], "\"palette\": \"rgb\"", "\"palette\": \"cmyk\""),
        ("longer", "json") => replaced(&run()[0], "\"feature\": [", "\"feature\": [1.0, "),
        ("unnamed", "json") => replaced(&run()[0], "\"resize\":", "\"\":"),
        ("trimmed", "npz") => without(&run()[1], "components.npy"),
        ("unscored", "npz") => without(&run()[1], "probabilities.npy"),
        ("rows", "csv") => text("path,class\nphotos/a.png,b\nphotos/b.png,c\n"),
        ("odd", "csv") => text("path,class\nphotos/a.png,wolf\n"),
        ("beyond", "csv") => text("a.png,10\n"),
        ("below", "csv") => text("a.png,-1\n"),
        ("twofold", "csv") => text("a.png,b\nphotos/a.png,c\n"),
        ("foreign", "csv") => text("x.jpg,b\ny.jpg,c\n"),
        ("semicolons", "csv") => text("class;file\nc;b.png\nb;a.png\n"),
        ("columnless", "csv") => text("a.png,b\nb.png\n"),
        ("basis", _) => saved()[0].clone(),
        ("saved", _) => saved()[1].clone(),
        ("notfinite", _) => basis_with(f64::NAN, 3),
        // The ends of a range in the wrong order.
        ("reversed", _) => basis_with(2.0, 2),
        ("mean", _) => written("mean.safetensors", |path| {
            let values = Tensor::zeros([3], (Kind::Float, Device::Cpu));
            Tensor::write_safetensors(&[("mean", &values)], path).unwrap();
        }),
        _ => return None,
    })
}

/// The bytes that `write` puts into a file of this name.
fn written(name: &str, write: impl Fn(&Path)) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join(name));
    fs::read(folder.path().join(name)).unwrap()
}

fn encoded(picture: &RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn photo(format: ImageFormat) -> Vec<u8> {
    let photo = image::open(data("images/photo_33x21.png")).unwrap();
    encoded(&photo.to_rgb8(), format)
}

/// A PNG that has a header and no pixels.
fn png_header([width, height]: [u32; 2]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().unwrap();
    writer.write_chunk(png::chunk::IDAT, &[]).unwrap();
    drop(writer);
    bytes
}

/// A JPEG whose frame header claims another size.
fn jpeg_of_size([width, height]: [u32; 2]) -> Vec<u8> {
    let mut bytes = content("plain.jpg").unwrap();
    let is_frame = |pair: &[u8]| pair == [0xff, 0xc0];
    let frame = bytes.windows(2).position(is_frame).unwrap();
    bytes[frame + 5..frame + 7].copy_from_slice(&(height as u16).to_be_bytes());
    bytes[frame + 7..frame + 9].copy_from_slice(&(width as u16).to_be_bytes());
    bytes
}

/// A GIF of 16x16 pixels with a comment and then a frame of this size.
fn gif_with_frame([width, height]: [u32; 2]) -> Vec<u8> {
    let mut gif = b"GIF89a\x10\0\x10\0\x80\0\0\0\0\0\xff\xff\xff".to_vec();
    gif.extend(b"\x21\xfe\x03big\x02!!\0\x2c\0\0\0\0");
    gif.extend((width as u16).to_le_bytes());
    gif.extend((height as u16).to_le_bytes());
    gif.extend(b"\0\x02\x02\x44\x01\0;");
    gif
}

/// A zip archive with these uncompressed entries.
fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    add_to(&mut archive, entries);
    archive.finish().unwrap().into_inner()
}

fn add_to<W: Write + std::io::Seek>(archive: &mut zip::ZipWriter<W>, entries: &[(&str, &[u8])]) {
    let options = zip::write::SimpleFileOptions::default();
    let stored = options.compression_method(zip::CompressionMethod::Stored);
    for (name, content) in entries {
        archive.start_file(*name, stored).unwrap();
        archive.write_all(content).unwrap();
    }
}

/// A state dict of squeezenet1_1 for three classes, changed in one way.
fn state_dict(change: &str, extension: &str) -> Vec<u8> {
    let vs = nn::VarStore::new(Device::Cpu);
    zoo::find("squeezenet1_1").unwrap().build(&vs.root(), 3);
    let changed = |(name, tensor): (String, Tensor)| match (change, name.as_str()) {
        ("nan", _) => (name, tensor * f64::NAN),
        ("half", _) => (name, tensor.to_kind(Kind::Half)),
        ("bfloat16", _) => (name, tensor.to_kind(Kind::BFloat16)),
        ("double", _) => (name, tensor.to_kind(Kind::Double)),
        ("module" | "averaged", _) => (format!("module.{name}"), tensor),
        ("checkpoint", _) => (format!("state_dict.{name}"), tensor),
        ("nested", _) => (format!("state_dict.module.{name}"), tensor),
        ("compiled", _) => (format!("_orig_mod.module.{name}"), tensor),
        ("lightning", _) => (format!("state_dict.model.{name}"), tensor),
        ("optimised", _) => (format!("_orig_mod.{name}"), tensor),
        ("inside", _) => (name.replace("features.", "features.module."), tensor),
        ("backbone" | "beside", _) => (format!("net.backbone.{name}"), tensor),
        ("pair", _) => (format!("student.{name}"), tensor),
        ("average", _) => (format!("state_dict.{name}"), tensor),
        ("reshaped", "features.0.bias") => (name, tensor.narrow(0, 0, 7).copy()),
        ("renamed", "features.0.bias") => ("stem.bias".to_string(), tensor),
        _ => (name, tensor),
    };
    let mut state: Vec<(String, Tensor)> = vs.variables().into_iter().map(changed).collect();
    let again = |prefix: &str| {
        let named = |(name, tensor)| (format!("{prefix}.{name}"), tensor);
        vs.variables().into_iter().map(named).collect()
    };
    state.extend(match change {
        "pair" => again("teacher"),
        "average" => again("state_dict_ema"),
        "beside" | "optimised" => vec![(
            "loss.centres".to_string(),
            Tensor::ones([2], (Kind::Float, Device::Cpu)),
        )],
        "averaged" => vec![("n_averaged".to_string(), Tensor::from(3i64))],
        _ => Vec::new(),
    });
    written(&format!("weights.{extension}"), |path| match extension {
        "ot" => Tensor::save_multi(&state, path).unwrap(),
        _ => Tensor::write_safetensors(&state, path).unwrap(),
    })
}

/// The basis and the arrays that a run of the tiny network saved.
fn saved() -> &'static [Vec<u8>; 2] {
    static SAVED: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
    SAVED.get_or_init(|| {
        let place = Place::new();
        place.run("--quiet --input photos --save-basis b.safetensors --save-arrays a.safetensors");
        ["b.safetensors", "a.safetensors"].map(|name| fs::read(place.path(name)).unwrap())
    })
}

/// Summary and arrays of a run of the three photographs, and of a run of one other.
fn run() -> &'static [Vec<u8>; 4] {
    static RUN: OnceLock<[Vec<u8>; 4]> = OnceLock::new();
    RUN.get_or_init(|| {
        let place = Place::new();
        fs::copy(place.path("photos/a.png"), place.path("alone.png")).unwrap();
        for (name, images) in [("run", "photos"), ("alone", "alone.png")] {
            place.run(&format!(
                "--quiet --input {images} --json {name}.json --save-arrays {name}.npz"
            ));
        }
        ["run.json", "run.npz", "alone.json", "alone.npz"]
            .map(|name| fs::read(place.path(name)).unwrap())
    })
}

/// The bytes of a text in which another text is replaced, at least once.
fn replaced(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    let text = std::str::from_utf8(bytes).unwrap();
    assert!(text.contains(from), "{from}");
    text.replace(from, to).into_bytes()
}

/// A summary as lines: the run, and each image.
fn in_lines(summary: &[u8]) -> Vec<u8> {
    let mut first: serde_json::Value = serde_json::from_slice(summary).unwrap();
    let images = first.as_object_mut().unwrap().remove("images").unwrap();
    let images = images.as_array().unwrap();
    first["image_count"] = images.len().into();
    let lines = std::iter::once(&first).chain(images);
    lines
        .flat_map(|line| format!("{line}\n").into_bytes())
        .collect()
}

/// An archive without one of its files.
fn without(bytes: &[u8], name: &str) -> Vec<u8> {
    let mut from = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
    let mut to = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for index in 0..from.len() {
        let entry = from.by_index_raw(index).unwrap();
        if entry.name() != name {
            to.raw_copy_file(entry).unwrap();
        }
    }
    to.finish().unwrap().into_inner()
}

/// The basis with another number at this place of the range of the maps.
fn basis_with(number: f64, place: usize) -> Vec<u8> {
    let mut basis = saved()[0].clone();
    let range = safetensors::SafeTensors::deserialize(&basis).unwrap();
    let range = range.tensor("map_range").unwrap().data().as_ptr() as usize;
    let at = range - basis.as_ptr() as usize + 8 * place;
    basis[at..at + 8].copy_from_slice(&number.to_le_bytes());
    basis
}

// --- tables ---------------------------------------------------------------

#[test]
fn files_that_are_no_image_are_refused() {
    check(
        IMAGES,
        r#"
        empty.jpg => 1: cannot read the image empty.jpg: the file is empty
        {text.png|noise.png} => 1: no known image format
        text.png => 1: text.png
        html.jpg => 1: html.jpg | this is a web page (HTML)
        drawing.svg => 1: drawing.svg | this is SVG; convert it
        {new.avif|new.png=new.avif} => 1: new. | this is AVIF; convert it to JPEG or PNG
        sky.hdr => 1: sky.hdr | this is Radiance HDR; convert it
        # Headers that claim more pixels than there are.
        claims_30000x30000.png => 1: claims_30000x30000.png | too large (30000x30000 | scale it down
        claims_65535x65500.jpg => 1: claims_65535x65500.jpg | too large (65535x65500 | scale it down
        claims_65535x65535.gif => 1: claims_65535x65535.gif | too large (65535x65535 | scale it down
        claims_16000x16000.png => 1: cannot read the image claims_16000x16000.png
        claims_64x0.jpg => 1: cannot read the image claims_64x0.jpg
        photos/c.jpg --max-pixels 1000 => 1: photos/c.jpg | too large | more than 1000 pixels | raise --max-pixels
        photos/a.png --max-pixels 1000 => 1: photos/a.png | too large | more than 1000 pixels
        # A decoder panics over this one.
        panics.jpg => 1: panics.jpg | the file is damaged
        panics.jpg photos/a.png --skip-bad-images => 0: left out | panics.jpg | the file is damaged
        flipped.png => 1: cannot read the image flipped.png
        cut50_photo.{png|jpg|gif|bmp|webp|tiff|ppm|qoi|ico|tga} => 1: cannot read the image cut50_photo.
        cut2_photo.png => 1: cut2_photo.png | cut short
        {cut50_plain.jpg|cut99_plain.jpg} => 1: _plain.jpg | cut short
        folder.jpg => 1: the folder folder.jpg holds no image
        notes => 1: notes | no image
        photos notes => 1: notes | no image
        link.jpg => 1: link.jpg | no such file
        loop.jpg => 1: loop.jpg | symbolic links
        pipe.png => 1: pipe.png | not a regular file
        {/dev/zero|/dev/null} => 1: /dev/ | not a regular file
        "" => 2: a value is required for '--input
        no\x0asuch.jpg => 1: such.jpg | no such file
        # A name does not colour the terminal.
        \x1b[31mred.jpg => 1: red.jpg | no such file
        photos/a.png none.jpg => 1: none.jpg | no such file
        photos empty.jpg => 1: empty.jpg
        photos cut50_photo.png => 1: cut50_photo.png
        {empty.png|cut50_photo.png} --skip-bad-images => 1: none of the images can be read | warning: left out: cannot read the image
        # Arrays.
        none.npz => 1: none.npz | no such file
        @none.txt => 1: none.txt | no such file
        @photos => 1: photos: | is a directory
        @photos/a.png => 1: photos/a.png, entry 1
        +empty.txt @empty.txt => 1: empty.txt: the list holds no path
        - => 1: standard input: the list holds no path
        {text.npz|empty.npz|cut50_plain.npz|noise.npz} => 1: .npz | no .npz file
        noise.safetensors => 1: noise.safetensors
        folder.npz => 1: folder.npz | folder
        data/arrays/uint8.npz => 1: uint8.npz | float32
        {photos/a.png|photos} a.npz => 1: a.npz | the only input
        plain.npz {--mean=0,0,0|--bgr|--white=4095|--resize=pad} => 2: plain.npz | used as they are | do not apply
        # Other formats by content, not by name.
        {a.jpg=shot.heic|a.png=shot.avif|a=shot.jp2|a.jpg=shot.jxl|a.tif=shot.dcm} => 1: a | this is | convert it to JPEG or PNG
        shot.heic => 1: cannot read the image shot.heic: this is HEIC; convert
        a.jpg=shot.mp4 => 1: a.jpg: this is a video (MP4 or QuickTime); save its frames as JPEG or PNG
        a.jpg=other.zip => 1: a.jpg: this is a zip archive; unpack it
        a.png=shot.lfs => 1: a.png: this is a pointer of Git LFS; fetch
        a.tiff=float.tiff => 1: a.tiff: its samples are of type Rgb32F; convert it to 8 or 16 bits
        a.tiff=lab.tiff => 1: a.tiff: this variety of Tiff is not supported; convert it to PNG
        # Cameras' own files are TIFF files of a thumbnail.
        a.nef=photo.tiff => 1: a.nef: this is a raw camera file; convert it
        phone.heics => 1: the folder phone.heics holds no image that can be read, but 2 HEIC; convert to JPEG or PNG
        phone.heics/* => 1: the glob phone.heics/* matches no image that can be read, but 2 HEIC; convert
        phone.heics/*.heic => 1: phone.heics/ | this is HEIC; convert
        phone.heics/*.heic photos/a.png --skip-bad-images => 0: warning: left out: cannot read the image phone.heics/1.heic: this is HEIC
        tree.in.folder => 1: the folder tree.in.folder holds no image, but 1 sub-folder with images; 'tree.in.folder/**/*' reads them
        tree.in.folder/**/* => 0
        it's.in.folder => 1: 'it'"'"'s.in.folder/**/*' reads them
        "#,
    );
}

#[test]
fn unusual_images_are_read() {
    check(
        IMAGES,
        r#"
        grey_{1x1|10000x1|1x10000|64x64}.png => 0
        # The content counts, not the name.
        {picture.gif|picture}=photo.png => 0
        {picture.png|picture}=photo.jpg => 0
        {a\x20'b'\x20"c".png|a\x0ab.png|a[1]*?.png|a\x09b.png}=photo.png => 0
        caf\xe9.png=photo.png --per-image --json run.json --cluster --save-arrays run.npz --report run.html => 0: run.json | 2cluster.bin | run.npz | run.html
        photos/a.png +-x.png=photo.png --input=-x.png => 0
        X251.png=photo.png --per-image => 0
        data/images/{rgb16.png|rgba16.png|cmyk.jpg|animation.gif|palette_alpha.png|bilevel.png} => 0
        turned/*.jpg => 0
        album.jpg => 0
        photos empty.png --skip-bad-images => 0: warning: left out: cannot read the image empty.png
        1.png=photo.png 2.png=photo.png --exclusive => 0: every colour is common to all images | unique ones is black
        photos/a.png --inclusive => 0: every colour is common to all images, so none was left out
        "#,
    );
}

#[test]
fn globs_are_refused_if_no_file_matches() {
    check(
        IMAGES,
        r#"
        {photos/*.gif|none/*.png|*.jpg} => 1: no file matches | glob
        +folder fold* => 1: fold* | no file matches
        +.hidden.png=photo.png *.png => 1: *.png | no file matches
        {photos/[a|photos/***|photos/**a} => 1: photos/ | no valid glob
        caf\xe9*.png => 1: a glob must be valid UTF-8
        \x1b[31m*.png => 1: [31m*.png | no valid glob
        +photos/notes.txt=text photos/*.txt => 1: photos/notes.txt | no known image format
        +photos/notes.txt=text photos/* => 0
        many/*.png => 1: many/2999.png | empty
        photos/*.png photos/a* photos => 0
        "#,
    );
}

#[test]
fn exported_programs_are_refused_in_a_line() {
    check(
        MODELS,
        r#"
        data/onnx/bad_unknown.onnx => 1: bad_unknown.onnx: its node '/block/odd' (Compressed of opset 17) is none that prism runs
        data/onnx/bad_domain.onnx => 1: its node 'gelu' (com.microsoft::FusedGelu of opset 1) belongs to another set of operators
        data/onnx/bad_branch.onnx => 1: its node 'choice' (If of opset 17) branches or loops on values
        data/onnx/bad_integers.onnx => 1: (QLinearConv of opset 13) | before quantisation
        data/onnx/bad_random.onnx => 1: (RandomNormalLike of opset 17) is none that prism runs
        data/onnx/bad_cycle.onnx => 1: its node that makes 'p' (GlobalAveragePool of opset 17) reads 'r', which nothing before makes
        data/onnx/bad_missing.onnx => 1: reads 'nothing', which nothing before makes
        data/onnx/bad_opset.onnx => 1: (Conv of opset 6) | opsets 7 to 28
        data/onnx/bad_newer.onnx => 1: (Conv of opset 99) | opsets 7 to 28
        data/onnx/bad_attribute.onnx => 1: has an attribute alpha that is no number
        data/onnx/bad_axis.onnx => 1: has the axis 9, but its input has 4 dimensions
        data/onnx/bad_training.onnx => 1: is in training mode
        data/onnx/bad_two_inputs.onnx => 1: it takes 2 inputs (x, z) | one batch of images
        data/onnx/bad_no_input.onnx => 1: it takes no input
        data/onnx/bad_bytes.onnx => 1: it takes images as integers
        data/onnx/bad_rank.onnx => 1: its input is [N,768]
        data/onnx/{bad_growing|bad_filled|bad_tiled|bad_outer|bad_doubling}.onnx => 1: makes constants that take far more memory than the file
        data/onnx/{bad_external_parent|bad_external_absolute|bad_external_device}.onnx => 1: prism reads files in the folder of the network alone
        data/onnx/bad_external_absent.onnx => 1: absent.data, which cannot be read; it belongs beside the network's file
        data/onnx/bad_external_folder.onnx => 1: which is no plain file
        data/onnx/bad_external_short.onnx => 1: bad_opset.onnx, which may be cut short
        data/onnx/bad_sizes.onnx => 1: its weights 'w' take far more memory than the file
        data/onnx/{bad_overflow|bad_negative}.onnx => 1: its weights 'w' have the sizes | which their bytes do not hold
        data/onnx/bad_float8.onnx => 1: its weights 'w' are float8 numbers
        data/onnx/bad_texts.onnx => 1: its weights 'w' are texts
        data/onnx/bad_recursion.onnx => 1: it has functions within more than 16 others
        data/onnx/bad_bursting.onnx => 1: it has more than 20000 nodes with those of its functions
        data/onnx/bad_resized_none.onnx => 1: (Resize of opset 17) resizes 0 values to 5
        data/onnx/bad_resized_huge.onnx => 1: (Resize of opset 17) resizes 14 values to 35184372088832
        data/onnx/bad_resized_free.onnx => 1: (Resize of opset 17) resizes by 'half_pixel', which needs images of a fixed size
        data/onnx/bad_channels.onnx => 1: (DepthToSpace of opset 17) has 1099511627776 channels
        data/onnx/bad_listed.onnx => 1: (Concat of opset 17) makes a list of more than 64 sizes
        data/onnx/bad_counting.onnx => 1: (Add of opset 17) makes more than 100000 operators
        data/onnx/bad_einsum.onnx => 1: (Einsum of opset 17) makes constants that take far more memory than the file
        data/onnx/bad_unsigned.onnx => 1: its weights 'w' are unsigned 32-bit integers
        data/onnx/bad_unsigned_cast.onnx => 1: (Cast of opset 17) makes unsigned 16-bit integers
        data/onnx/bad_dilated.onnx => 1: (MaxPool of opset 17) has dilations and auto_pad
        data/onnx/bad_one_size.onnx => 1: its node 'classifier' (Gemm of opset 17) cannot run on 2 images of 64x64 | --image-size
        data/onnx/bad_larger.onnx => 1: (ConvTranspose of opset 17) makes more values than its stride gives
        data/onnx/{bad_cut|bad_flipped}.onnx => 1: it is damaged or cut short
        data/exported/bad_branches.pt2 => 1: bad_branches.pt2: this network branches or loops on its values (torch.cond)
        data/exported/bad_two_inputs.pt2 => 1: more than one input | one batch of images
        data/exported/bad_random.pt2 => 1: aten::rand_like is not one that prism runs
        data/exported/{bad_training|bad_statistics}.pt2 => 1: export it after model.eval()
        data/exported/bad_from_file.pt2 => 1: aten::from_file is not one that prism runs
        data/exported/bad_foreign.pt2 => 1: torch.ops.torchvision.nms.default | libtorch's own
        data/exported/bad_unknown.pt2 => 1: prism does not run its operator torch.ops.aten.relu\nx.default
        data/exported/bad_resize.pt2 => 1: aten::resize_ is not one that prism runs
        data/exported/bad_set.pt2 => 1: aten::set_ is not one that prism runs
        data/exported/bad_lacks.pt2 => 1: aten::conv2d lacks 'input'
        data/exported/bad_kind.pt2 => 1: aten::relu | 'self' | a list, not Tensor
        data/exported/bad_cycle.pt2 => 1: which nothing before makes
        data/exported/bad_version.pt2 => 1: version 9 of the format of torch.export
        data/exported/{bad_repeats|bad_sizes}.pt2 => 1: '0.weight' | take far more memory than the file
        data/exported/bad_offset.pt2 => 1: '0.weight' | which their bytes do not hold
        data/exported/bad_strides.pt2 => 1: '0.weight' | negative
        data/exported/bad_pickled.pt2 => 1: bad_pickled.pt2: its weights '0.weight' are a pickled Python object, whose code
        data/exported/bad_escape.pt2 => 1: it lacks
        data/exported/bad_no_weights.pt2 => 1: it lacks its data/weights/model_weights_config.json
        data/exported/{bad_json|bad_nested}.pt2 => 1: model.json is damaged
        data/exported/bad_name.pt2 => 1: bad_name.pt2: it lacks the weights of 'a\nbxxx
        data/exported/{bad_complex|bad_old_complex}.pt2 => 1: omplex | prism does not read
        data/exported/{bad_float8|bad_old_float8}.pt2 => 1: float8 | prism does not read
        data/exported/{bad_uint16|bad_old_uint16}.pt2 => 1: its weights '0.weight' are uint16 numbers, which prism does not read
        data/exported/bad_format.pt2 => 1: '0.weight' are of a number format
        data/exported/bad_order.pt2 => 1: big-endian
        data/exported/bad_before.pt2 => 1: version 5 of the format | torch 2.4.1
        data/exported/bad_two_networks.pt2 => 1: it holds 2 networks (cats, dogs)
        data/exported/bad_byte.pt2 => 1: its data/weights/weight_0 is damaged or cut short
        data/exported/{bad_length|bad_packed}.pt2 => 1: its models/model.json is too large, or far larger than the file
        data/exported/bad_machine_code.pt2 => 1: AOTInductor | torch.export.save
        data/exported/bad_old.pt2 => 1: serialized_exported_program.json is damaged: missing field
        data/exported/bad_old_cut.pt2 => 1: its serialized_state_dict.pt is damaged or cut short
        data/exported/bad_old_empty.pt2 => 1: it lacks the weights of '0.weight'
        data/exported/bad_old_code.pt2 => 1: bad_old_code.pt2: it lacks the weights of '0.weight'
        data/exported/bad_old_repeats.pt2 => 1: '0.weight' take far more memory than the file
        "#,
    );
}

#[test]
fn files_that_are_no_network_are_refused() {
    check(
        MODELS,
        r#"
        {none.pt|folder/none.pt} => 1: none.pt | no such model file
        {photos/|folder.pt} => 1: a folder, not a model file
        ./ => 1: folder
        "" => 2: a value is required for '--model
        empty.pt => 1: empty.pt | the model file is empty
        {byte.pt|text.pt|noise.pt|photos/a.png} => 1: no TorchScript, .pt2 or ONNX file | models/export.py
        cut{1|50|99}_network.pt => 1: _network.pt | damaged or cut short | export
        zeroed.pt => 1: zeroed.pt
        foreign.h5 => 1: foreign.h5: this is an HDF5 file, as Keras writes networks and weights | ONNX
        foreign.keras => 1: foreign.keras: this is a network of Keras | ONNX
        foreign.tflite => 1: foreign.tflite: this is a network of TensorFlow Lite | ONNX
        foreign.ort => 1: foreign.ort: this is a network in ONNX Runtime's own format | ONNX
        other.pt => 1: other.pt | no TorchScript, .pt2 or ONNX file | models/export.py
        data/state_dicts/{new|old}.pth => 1: .pth | a pickled state dict | models/export.py
        data/bad_models/state_dict.pth => 1: state_dict.pth | state dict | models/export.py
        data/state_dicts/weights.safetensors => 1: weights.safetensors | no TorchScript, .pt2 or ONNX file | export
        data/bad_models/pickled_module.pth => 1: pickled_module.pth | module, which holds no code
        {caf\xe9.pt|no\x0asuch.pt} => 1: no such model file
        # Names.
        resnet51 => 1: 'resnet51' | resnet50
        ResNet-50 => 1: 'ResNet-50' | resnet50
        mobilenetv2 => 1: 'mobilenetv2' | mobilenet_v2
        nothing_like_it => 1: 'nothing_like_it' | prism models lists
        res\x0anet => 1: 'res\nnet'
        vgg16 => 1: no weights of vgg16 | hub/checkpoints/vgg16-397923af.pth | --weights FILE | efficientnet_lite0
        vgg16 --offline => 1: vgg16 | downloads are forbidden | /vgg16-397923af.pth | hub/checkpoints/vgg16-397923af.pth | --weights
        efficientnet_lite0 => 1: efficientnet_lite0.pth | ./models
        "#,
    );
}

#[test]
fn networks_that_prism_cannot_explain_are_refused() {
    check(
        MODELS,
        r#"
        data/bad_models/nan_weights.pt => 1: nan_weights.pt | weights are not finite
        data/bad_models/nan_weights.pt --saliency gradcam => 1: nan_weights.pt | weights are not finite
        data/bad_models/infinite_scores.pt => 1: not finite
        data/bad_models/{transformer|written_out}.pt => 1: .pt | vision transformer | --layer chooses
        # Detectors: one takes a list of images, one returns boxes.
        data/bad_models/detector.pt => 1: detector.pt | takes List[Tensor]
        data/bad_models/boxes.pt => 1: boxes.pt | [N,K]
        data/bad_models/saves.pt => 1: saves.pt | aten::save | outside
        data/bad_models/{maps_a_file|maps_a_file_when_loaded}.pt => 1: maps_a_file | aten::from_file
        data/bad_models/greedy.pt => 1: greedy.pt | memory
        data/bad_models/recurrent.pt => 1: recurrent.pt | nothing to hook | no convolution
        data/bad_models/one_channel.pt => 0: photographs are taken in grey | mean 0.449 and std 0.226 are assumed
        data/bad_models/one_channel.pt --bgr => 2: one_channel.pt: the network takes 1 channel, which has no order
        # Other channels.
        data/channels/{two|four}.pt => 1: channels, but photographs have 3; give a stored array `input` [N,
        data/channels/seven.pt => 1: seven.pt: the network takes 7 channels, but photographs have 3; give a stored array `input` [N,7,H,W]

        data/bad_models/fixed_size.pt => 1: fixed_size.pt | [N,3,64,64] | --image-size sets another size
        data/bad_models/not_nk.pt => 1: not_nk.pt | [N,K]
        # Scores without the axis of the images: one image at a time.
        data/bad_models/no_batch.pt => 0
        data/bad_models/{whole_numbers|decisions}.pt => 0: only its best scores, their ranks or decisions
        data/bad_models/image_by_image.pt => 1: convolutions are inside a loop or branch | by tracing
        data/bad_models/rounded.pt => 1: output [N,5] holds whole numbers or flags, not scores
        data/scores/embedding_first.pt --output 2 => 2: no output 2 | 0 [N,8], 1 [N,5]
        data/scores/by_name.pt --output none => 2: no output none | 0 'aux_scores' [N,7], 1 'scores' [N,5]
        data/odd_networks/TwoHeads.pt --output 1 => 2: output 1 is not class scores | 1 [N,4, | --output chooses
        data/scores/nk11.pt --output= => 2: the name or number of an output
        data/scores/one_score.pt --scores softmax => 2: one score | always 1 | --scores
        data/scores/nk11.pt --scores logits => 2: 'logits' | sigmoid
        data/scores/nk11.pt --labels imagenet => 1: imagenet | 1000 names | 5 classes
        data/bad_models/text.pt => 1: holds no tensor | [N,K]
        data/bad_models/no_layers.pt => 1: nothing to hook
        data/bad_models/raises.pt => 1: raises.pt | this network refuses its input
        data/bad_models/two_inputs.pt => 1: two_inputs.pt | more than one input
        data/networks/tiny_resnet_scripted.pt --layer none => 2: 'none' | prism layers lists
        data/loading/{Quantised|QuantisedScripted}.pt => 1: quantised network | before quantisation
        data/loading/OneValue.pt => 1: OneValue.pt | 'norm' | one value per channel
        data/loading/AddsUp.pt => 1: AddsUp.pt | batch size of 4 is built in | dynamic batch
        data/loading/DynamicInt8.pt --saliency exct-backp => 1: linear_dynamic | --saliency gradcam
        data/loading/DynamicInt8.pt --saliency gradcam => 0
        data/loading/{Trained|AlwaysDrops}.pt => 0: exported in training mode | inference mode
        data/loading/BatchStatistics.pt => 0: statistics of the batch | one at a time
        data/loading/BatchOfFour.pt => 0: batch size 4 is built into
        data/loading/Random.pt => 0: warning: the network is random | --seed sets another seed
        data/loading/Random.pt --quiet --seed 3 => 0
        data/bad_models/{talks|one_class}.pt => 0
        data/bad_models/dead.pt => 0: warning: all features are the same | the map is black
        "#,
    );
}

/// What `models/export.py` and Ultralytics write into a TorchScript file beside the network.
#[test]
fn descriptions_of_networks_are_checked() {
    for (json, status, parts) in [
        (
            r#"{"task": "detect", "names": {"0": "ant"}}"#,
            1,
            &["config.txt", "task is 'detect'", "classifiers"][..],
        ),
        (
            r#"{"task": "classify", "imgsz": [32, 32], "names": {"0": "ant"}}"#,
            1,
            &["1 names", "5 classes"],
        ),
        (r#"{"task": "classify", "imgsz": [32, 32]}"#, 0, &[]),
        (
            r#"{"shape": [1, 3, 32, 32], "stride": 32, "names": {"0": "ant"}}"#,
            1,
            &["1 names", "5 classes"],
        ),
        (r#"{"stride": 32, "shape": [1, 3, 32, 32]}"#, 0, &[]),
        ("stride: 32", 0, &["the config.txt in it", "is not read"]),
        ("image_size = 64", 1, &["prism.json", "cannot be used"]),
        ("[1, 2]", 1, &["prism.json"]),
        (r#"{"image_size": [0, 64]}"#, 1, &["image_size is 0x64"]),
        (r#"{"std": [1, 0, 1]}"#, 1, &["std is not positive"]),
        (
            r#"{"image_size": [32, 32], "mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}"#,
            1,
            &[
                "for pixels from 0 to 255",
                "use mean 0.485,0.456,0.406 std 0.229,0.224,0.225",
            ],
        ),
        (r#"{"mean": []}"#, 1, &["mean or std has no value"]),
        (
            r#"{"image_size": [32, 32], "mean": [0.5, 0.5]}"#,
            2,
            &["the network takes 3 channels, but mean has 2 values"],
        ),
        (
            r#"{"image_size": [32, 32], "labels": ["a"]}"#,
            1,
            &["1 names", "5 classes"],
        ),
        (r#"{"image_size": [32, 32], "author": "me"}"#, 0, &[]),
    ] {
        let words = "--input photos/a.png --model told.pt";
        let (place, command) = prepare(&TIMEOUT, words, "");
        let path = place.path("told.pt");
        fs::copy(data("odd_networks/Flag.pt"), &path).unwrap();
        let file = fs::File::options().read(true).write(true).open(path);
        let mut archive = zip::ZipWriter::new_append(file.unwrap()).unwrap();
        let name = match json.contains("task") || json.contains("stride") {
            true => "Flag/extra/config.txt",
            false => "Flag/extra/prism.json",
        };
        add_to(&mut archive, &[(name, json.as_bytes())]);
        archive.finish().unwrap();
        let file: &[&str] = if status == 0 { &[] } else { &["told.pt"] };
        place.expect(command, status, &[file, parts].concat());
    }
}

#[test]
fn weights_that_do_not_fit_are_refused() {
    check(
        WEIGHTS,
        r#"
        none.pth => 1: none.pth | cannot be read
        photos => 1: photos | a folder, not a file of weights
        empty.pth => 1: empty.pth | empty
        {text.pth|photos/a.png} => 1: not a state dict
        data/state_dicts/new.pth => 1: new.pth | not weights of squeezenet1_1 | missing classifier.1.weight | fc.bias
        data/state_dicts/{list|no_tensors}.pth => 1: not a state dict
        data/state_dicts/torchscript.pth => 1: TorchScript archive | --model FILE
        cut{1|50|99}_all.weights.safetensors => 1: _all.weights.safetensors
        cut50_all.weights.ot => 1: cut50_all.weights.ot
        html.safetensors => 1: html.safetensors | cut short or no safetensors file
        nan.weights.safetensors => 1: squeezenet1_1 | weights are not finite
        reshaped.weights.safetensors => 1: reshaped.weights.safetensors | features.0.bias is [7] instead of [64]
        renamed.weights.safetensors => 1: missing features.0.bias | surplus stem.bias
        {all|half|bfloat16|double|module|checkpoint|nested|compiled|lightning|inside}.weights.safetensors => 0
        {backbone|beside}.weights.safetensors => 0: .weights.safetensors: the weights under 'net.backbone.' are taken
        averaged.weights.safetensors => 0: averaged.weights.safetensors: the weights under 'module.' are taken
        optimised.weights.safetensors => 0: the weights under '_orig_mod.' are taken
        average.weights.safetensors => 0: under 'state_dict.' are taken | not the averaged ones under 'state_dict_ema.'
        pair.weights.safetensors => 1: several sets of weights of squeezenet1_1 | under 'student.', under 'teacher.' | save one
        all.weights.ot => 0
        "#,
    );
    check(
        "--input photos/a.png --weights w.pth --model",
        r#"
        data/networks/tiny_vgg_traced.pt => 2: --weights goes with the name of a network
        mynet => 1: unknown network 'mynet'
        vgg61 => 1: unknown network 'vgg61' | vgg16
        "#,
    );
}

/// Every way in which a pickle imports and calls. Python (3.11) makes the file `pwned` from each,
/// except from those of NEWOBJ, which make an object.
const CALLS: [&[u8]; 7] = [
    b"cos\nsystem\n(S'touch pwned'\ntR.",
    b"(S'touch pwned'\nios\nsystem\n.",
    b"(cos\nsystem\nS'touch pwned'\no.",
    b"\x80\x02csubprocess\nPopen\n)\x81.",
    b"\x80\x04csubprocess\nPopen\n)}\x92.",
    b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0btouch pwned\x85R.",
    b"\x80\x02]cposix\nsystem\nX\x0b\x00\x00\x00touch pwned\x85Ra.",
];

#[test]
fn no_pickle_calls_and_no_archive_is_unpacked() {
    for pickle in CALLS {
        let archive = archive(&[
            ("archive/data.pkl", pickle),
            ("archive/version", b"3\n"),
            ("archive/data/0", b"\0\0\0\0"),
            ("archive/data/../../../pwned", b"out"),
        ]);
        for (base, file, bytes) in [
            (WEIGHTS, "deep/w.pth", archive.as_slice()),
            (WEIGHTS, "w.pth", pickle),
            (MODELS, "net.pt", &archive),
            ("som", "c.bin", pickle),
        ] {
            let (place, mut command) = prepare(&TIMEOUT, base, "+deep=folder");
            fs::write(place.path(file), bytes).unwrap();
            command.arg(file);
            place.expect(command, 1, &[file]);
        }
    }
}

#[test]
fn a_network_that_needs_ever_more_memory_ends_in_one_line() {
    let limited = ["timeout", TIMEOUT[2], "prlimit", "--as=3000000000"];
    let (place, command) = prepare(&limited, MODELS, "data/bad_models/grows.pt");
    place.expect(command, 1, &["the memory is not enough"]);
}

#[test]
fn missing_permissions_are_one_line() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    for (locked, mode, part) in [
        ("photos/a.png", 0o000, "photos/a.png"),
        ("net.pt", 0o000, "net.pt"),
        ("results", 0o555, "into results"),
    ] {
        // The superuser may do anything without this.
        let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
        let unprivileged = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"];
        let before = if is_root { &unprivileged[..] } else { &[] };
        let (place, command) = prepare(before, MODELS, "./net.pt +results=folder");
        fs::copy(network("tiny_vgg_traced"), place.path("net.pt")).unwrap();
        fs::set_permissions(place.path(locked), fs::Permissions::from_mode(mode)).unwrap();
        place.expect(command, 1, &[part, "ermission denied"]);
    }
}

#[test]
fn outputs_that_cannot_be_written_are_refused() {
    check(
        OPTIONS,
        r#"
        --output-dir text => 1: cannot write into text | not a folder
        --output-dir text/below => 1: cannot make the folder text/below
        --output-dir /proc/none => 1: cannot make the folder /proc/none
        --output-dir /proc => 1: cannot write into /proc
        --output-dir= => 2: a value is required for '--output-dir
        --output-dir link => 1: cannot write into link
        --output-dir loop => 1: loop
        --output-dir X300 => 1: xxxxx | too long
        +results/PRISM_{tiny|var_tiny}_vgg_traced.jpg=folder => 1: _vgg_traced.jpg | folder
        --per-image --output-dir . +PRISM_tiny_vgg_traced=empty => 1: PRISM_tiny_vgg_traced
        # A figure replaces a link.
        +results/PRISM_tiny_vgg_traced.jpg=link => 0: wrote results/PRISM_tiny_vgg_traced.jpg
        --save-arrays folder.npz => 1: folder.npz | it is a folder
        --save-arrays {a.csv|arrays.txt|arrays} => 2: a | .npz | .safetensors
        --save-arrays= => 2: a value is required for '--save-arrays
        --save-arrays full.npz => 1: full.npz | no ordinary file
        --save-arrays {text|/proc/none|/proc}/arrays.npz => 1: cannot
        --save-arrays X251xx.npz => 1: xxxxx.npz | too long
        --json {/dev/full|/dev/null} => 1: /dev/ | no ordinary file
        --json text/run.json => 1: cannot write into text
        --json out/ => 1: out/ | folder
        --json X300 => 1: cannot write | too long
        --json results/PRISM_tiny_vgg_traced.jpg => 1: PRISM_tiny_vgg_traced.jpg | another file of this run
        --report folder.html => 1: folder.html | it is a folder
        --report page.pdf => 2: --report | .html
        --cluster +2cluster.bin=folder => 1: 2cluster.bin | it is a folder
        --cluster= => 2: --cluster
        --cluster=folder.html +folder.html => 1: folder.html | it is a folder
        --cluster=text/c.bin +text => 1: cannot write into text
        --cluster -o out --json out/2cluster.bin => 2: --json and --cluster name the same file, out/2cluster.bin
        --save-basis b.npz => 2: --save-basis | .safetensors
        --save-arrays x.safetensors --save-basis x.safetensors => 2: --save-arrays and --save-basis name the same file
        --save-arrays x.safetensors --save-basis ./x.safetensors => 2: name the same file
        --json x.html --report ./x.html => 2: --report and --json | same file
        --spool {none|none/below} => 1: cannot store intermediate results in none | no such folder | --spool
        --spool {text|text/below} => 1: cannot store intermediate results in text | not a folder
        --spool /proc => 1: cannot store intermediate results in /proc
        --spool= => 2: a value is required for '--spool
        "#,
    );
}

#[test]
fn options_that_make_no_sense_are_refused() {
    check(
        OPTIONS,
        r#"
        --quiet --verbose => 2: --quiet | --verbose
        --upsampling none --no-gradual-extrapolation => 2: --upsampling | --no-gradual-extrapolation
        --upsampling cubic => 2: cubic | bilateral
        --basis a.safetensors --save-basis b.safetensors => 2: --basis | --save-basis
        --target 3 => 2: add --saliency gradcam
        --saliency-layer x => 2: add --saliency
        --precision bf16 --saliency gradcam => 2: bf16 cannot be combined with --saliency
        --precision f16 --saliency gradcam => 2: f16 cannot be combined with --saliency
        --precision f16 --device cpu => 2: float16 | for GPUs | CPU | --precision bf16 | --device cuda
        # Figures and arrays.
        --figures {0|some|1.5|ALL|""} => 2: --figures | a number of images, all or none is expected
        --figures none --per-image => 2: --per-image | which is none
        --arrays maps => 2: --arrays | add it
        --array-type u8 => 2: --array-type | add it
        --save-arrays x.npz --arrays {mapps|files|maps,,features|Maps} => 2: --arrays | maps, features, variance_ratio | left_out
        --save-arrays x.npz --array-type f64 => 2: f64 | f32, f16, u8
        --save-arrays x.npz --arrays maps,saliency => 2: saliency needs --saliency gradcam
        --save-arrays x.npz --arrays left_out => 2: left_out needs --inclusive or --exclusive
        # Classes.
        --saliency gradcam --target {10|-1|99999999999999999999} => 2: there is no class | 0 to 9
        --saliency gradcam --target cat => 2: 'cat' is no class | names | 0 to 9 | --labels FILE
        --saliency gradcam --labels synonyms.txt --target honey\x20be => 2: honey bee
        --saliency gradcam --labels synonyms.txt --target honey => 2: 'honey' | these contain it: honey bee
        --saliency gradcam --labels synonyms.txt --target fox => 2: 5 (fox) | 9 (fox, red fox, Vulpes)
        # Layers; the last has no pixels.
        --layer features.99 => 2: 'features.99'
        --layer feature.10 => 2: 'feature.10' | features.10
        --layer= => 2: '' | features.0
        --layer classifier.0 => 2: classifier.0
        --saliency gradcam --saliency-layer conv9 => 2: 'conv9'
        --saliency gradcam --saliency-layer features.1O => 2: features.10
        --saliency gradcam --saliency-layer classifier.0 => 2: classifier.0
        --mean 0.1,0.2 => 2: tiny_vgg_traced.pt: the network takes 3 channels, but mean has 2 values and std 3 | --mean and --std
        # Values.
        --device cuda:4096 => 1: cuda:4096 | CUDA device | --device cpu
        --model again.pt => 2: --model
        "#,
    );
    if !tch::Cuda::is_available() {
        check(OPTIONS, "--device {cuda|cuda:1} => 1: cuda: | --device cpu");
        check(OPTIONS, "--precision f16 => 2: float16 | --precision bf16");
    }
    check(
        "--model net.pt --input photos/a.png",
        r#"
        --image-size={0|64x|1.5|8193|64x64x3} => 2: --image-size | N or HxW
        --mean={a,b,c|nan,0,0|1e39,0,0|0.1,,0.2} => 2: --mean | R,G,B
        # Of pixels from 0 to 255.
        --mean 123.675,116.28,103.53 => 2: --mean 123.675,116.28,103.53: this is for pixels from 0 to 255 | use --mean 0.485,0.456,0.406
        --mean 123.675,116.28,103.53 --std 58.395,57.12,57.375 => 2: use --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225
        --bgr --mean 103.939,116.779,123.68 --std 1 => 2: use --mean 0.407604,0.457957,0.48502 --std 0.00392157
        --std 0.5,128,0.5 => 2: --std 0.5,128,0.5: this is for pixels from 0 to 255
        --white={0|65536|-1|0xfff} => 2: --white | from 1 to 65535
        --resize=fit => 2: --resize | stretch | crop | pad
        --std={0,1,1|-1,1,1|1e-300,1,1} => 2: --std | R,G,B | greater than 0
        --overlay={-0.1|1.01|nan} => 2: --overlay | from 0 to 1
        --top={0|-3|5000} => 2: --top | whole number
        --batch-size={0|-1|9999999999999999999999} => 2: --batch-size | whole number
        --seed={-1|x|1.5} => 2: --seed
        --threads={0|5000|many} => 2: --threads | whole number
        --figure-columns={0|65} => 2: --figure-columns | whole number from 1 to 64
        --memory={512|1T|99999999999999G} => 2: --memory | 512M
        --device={gpu|cuda:x|cuda:-1|mps|tpu} => 2: --device | cuda:N
        --format={gif|bmp} => 2: --format | jpg | png | svg
        --hooks={best|torch} => 2: --hooks | auto | torchprism
        --precision=f8 => 2: --precision | f8 | f32 | bf16 | f16
        --saliency={grad|lime} => 2: --saliency | gradcam | exct-backp
        "#,
    );
    check(
        "",
        r#"
        --modle x => 2: --modle | --model
        --batch-size -1 => 2: -1
        {--model|--input} => 2: a value is required for '--
        layers --input x => 2: --input
        layers --save-arrays x.npz => 2: --save-arrays
        layers --model none.pt => 1: none.pt
        {layers|photos/a.png} => 2: no network was chosen | vgg16 | nor is any other network (--model NAME
        layers --model vgg16 => 1: vgg16 | hub/checkpoints/vgg16-397923af.pth | --weights
        layers --image-size 64 --model data/networks/tiny_vgg_traced.pt --layer x => 2: 'x' | features.0
        completions => 2: not provided: <SHELL>
        completions tcsh => 2: tcsh | bash
        --input data/channels/four.npz --model data/networks/tiny_vgg_traced.pt => 1: tiny_vgg_traced.pt: it takes 3 channels, but the stored images have 4; give an array `input` [N,3,H,W]
        layers --model vgg16 --std 58.395,57.12,57.375 => 2: use --std 0.229,0.224,0.225
        # A word that is no image and no command.
        laeyrs => 2: there is no file or command 'laeyrs'; did you mean prism layers?
        laeyrs --model vgg16 => 2: did you mean prism layers?
        {sommm|helpp|completion|modles} => 2: there is no file or command | did you mean prism
        nothing => 2: there is no file or command 'nothing' (prism --help lists
        none.jpg => 1: none.jpg: no such file or folder
        folder/none => 1: folder/none: no such file
        photos/a.png som => 1: som: no such file
        help laeyrs => 2: there is no command 'laeyrs'; did you mean prism layers?
        layers photos/a.png => 2: prism layers | photos/a.png
        # A command after an option.
        --model vgg16 layers => 2: prism layers
        --model vgg16 som => 2: prism som
        # The output folder is tested before the network.
        --input photos --model none.pt --output-dir text => 1: cannot write into text
        # Images that are too small for the network.
        --input photos --model data/networks/tiny_vgg_traced.pt --image-size 1 => 1: tiny_vgg_traced.pt | --image-size
        --input photos --model data/networks/tiny_vgg_scripted.pt --image-size 4x900 => 1: tiny_vgg_scripted.pt | --image-size
        --input photos --model data/networks/tiny_resnet_scripted.pt --image-size 1 => 1: tiny_resnet_scripted.pt | --image-size
        --input photos/a.png --image-size 32 --model data/odd_networks/Sine.pt --saliency exct-backp --saliency-layer first => 1: aten::sin | gradcam
        "#,
    );
}

#[test]
fn cluster_files_are_checked() {
    check(
        "som",
        r#"
        => 1: 2cluster.bin | --cluster
        photos => 1: photos
        none.bin => 1: none.bin
        empty.bin => 1: empty.bin | empty
        {text.bin|photos/a.png} => 1: is not a pickle
        one.bin => 0: wrote results/clustering.png
        one.bin --labels ten.txt => 0
        one.bin --thumbnails --quiet => 1: none of 1 photographs | --cluster was started
        one.bin --labels cut5_ten.txt => 1: cut5_ten.txt | 1 names | one.bin has class
        one.bin --grid {1|101} => 2: --grid | 2 to 100
        one.bin --epochs 0 => 2: --epochs
        one.bin --seed x => 2: --seed
        one.bin --seed -1 => 2: --seed | prism som --help
        one.bin --output {map.gif|map} => 2: map | .png
        a.bin b.bin => 2: prism som | b.bin
        data/clusters/bad/zip_object.bin => 1: zip_object | the Python object builtins.zip
        data/clusters/bad/empty_list.bin => 1: the list of images is empty
        data/clusters/bad/reduce.bin => 1: reduce | not a pickle
        data/clusters/bad/dictionary.bin => 1: dictionary.bin | holds Dict(
        data/clusters/bad/class_as_text.bin => 1: class_as_text | image
        data/clusters/bad/class_negative.bin => 1: Int(-1)
        data/clusters/bad/feature_two.bin => 1: image 1 is List(
        data/clusters/bad/features_28.bin => 1: 28 features
        data/clusters/bad/lengths_differ.bin => 1: image 2 has 1 features
        data/clusters/bad/cyclic_2.bin => 1: cyclic_2.bin | image 2 is List([])
        data/clusters/bad/truncated.bin => 1: cannot be read as a list
        data/clusters/bad/not_utf8.bin => 1: UTF-8
        data/clusters/bad/text_beyond_end.bin => 1: cannot be read as a list
        "#,
    );
}

#[test]
fn label_files_are_checked() {
    check(
        &format!("{OPTIONS} --labels"),
        r#"
        {none.txt|photos} => 1: cannot be read
        empty.txt => 1: empty.txt | no name in it
        two.txt => 1: two.txt | 2 names | 10 classes
        gap.txt => 1: gap.txt | class 1 has an empty name
        latin1.txt => 1: latin1.txt | not text in UTF-8
        photos/a.png => 1: UTF-8
        words.json => 1: words.json | not JSON
        number.json => 1: number.json | list of names
        numbers.json => 1: numbers.json | entry 0
        twice.json => 1: twice.json | two names have the number 0
        gap.json => 1: gap.json | 'dog' has the number 5
        deep.json => 1: deep.json | not JSON
        endless.txt => 1: endless.txt | larger than 16 MiB
        # The second has the line ends and the byte order mark of Windows.
        {ten|windows}.txt => 0
        "#,
    );
}

#[test]
fn basis_files_are_checked() {
    check(
        &format!("{OPTIONS} --basis"),
        r#"
        none.safetensors => 1: none.safetensors | cannot be read
        basis.npz => 2: --basis | .safetensors
        folder.safetensors => 1: folder.safetensors | cannot be read | directory
        {empty|text|cut1_basis|cut50_basis|cut99_basis|saved}.safetensors => 1: .safetensors | no basis
        notfinite.safetensors => 1: notfinite.safetensors | _range' is not finite
        reversed.safetensors => 1: reversed.safetensors | is no range
        mean.safetensors => 1: mean.safetensors | no basis | network
        endless.safetensors => 1: endless.safetensors | is no basis
        # A basis of another kind of map.
        basis.safetensors --inclusive => 1: basis.safetensors | colours 'every' | 'common'
        basis.safetensors --no-gradual-extrapolation => 1: basis.safetensors | upsampling | 'none'
        basis.safetensors --layer features.5 => 1: basis.safetensors | layer | features.5
        basis.safetensors => 0
        "#,
    );
    check(
        MODELS,
        r#"
        data/networks/tiny_resnet_scripted.pt --basis basis.safetensors => 1: basis.safetensors | tiny_vgg_traced | tiny_resnet_scripted
        "#,
    );
}

#[test]
fn true_classes_are_checked() {
    check(
        &format!("{OPTIONS} --labels"),
        r#"
        ten.txt --truth => 2: --truth
        ten.txt --truth {rows.xml|rows} => 2: --truth | the word folder or shards, or a file
        ten.txt --truth none.csv => 1: none.csv | cannot be read
        ten.txt --truth folder.csv => 1: folder.csv | cannot be read
        ten.txt --truth empty.csv => 1: empty.csv | no row with an image
        ten.txt --truth text.csv => 1: text.csv | line 1 has no path and class
        ten.txt --truth {photo.csv=photo.png|noise.csv|latin1.csv=latin1.txt} => 1: .csv | not text in UTF-8
        ten.txt --truth columnless.csv => 1: columnless.csv | line 2 has no path and class
        ten.txt --truth odd.csv => 2: odd.csv | line 2 | there is no class 'wolf' | nearest
        ten.txt --truth beyond.csv => 2: beyond.csv | line 1 | no class 10 | 0 to 9
        ten.txt --truth below.csv => 2: below.csv | line 1 | no class -1
        ten.txt --truth twofold.csv => 1: twofold.csv | photos/a.png has the class b in line 1 and c in line 2
        ten.txt --truth foreign.csv => 1: foreign.csv | no class for any of the 1 images | photos/a.png | 'x.jpg'
        ten.txt --truth endless.csv => 1: endless.csv | larger than 64 MiB
        ten.txt --truth folder => 2: photos/a.png | its folder | no class 'photos'
        ten.txt --truth {rows|semicolons}.csv => 0: top class equals the truth in
        ten.txt --truth rows.csv --input photos/c.jpg => 0: warning: there is no true class of 1 of 2 images, the first: photos/c.jpg
        "#,
    );
    check(
        OPTIONS,
        r#"
        # Classes without names.
        --truth folder => 2: photos/a.png | names of this network are not known | 0 to 9 | --labels
        --truth rows.csv => 2: rows.csv | line 2 | names of this network are not known
        "#,
    );
    check(
        "--model data/networks/tiny_vgg_traced.pt --truth folder --input",
        "plain.npz => 2: plain.npz | lie in no folder | --truth FILE.csv",
    );
}

#[test]
fn a_glob_over_names_that_are_not_unicode_is_refused() {
    use std::os::unix::ffi::OsStrExt;
    let place = Place::new();
    let name = std::ffi::OsStr::from_bytes(b"photos/bad\xff.png");
    std::fs::copy(place.path("photos/a.png"), place.root.path().join(name)).unwrap();
    let mut prism = place.prism();
    prism.args(["--input", "photos/*.png"]);
    place.expect(
        prism,
        1,
        &["photos/*.png", "not valid UTF-8", "name the folder"],
    );
    let read = place.try_run(&format!(
        "--quiet {} --input photos",
        tiny("tiny_vgg_traced")
    ));
    assert!(read.status.success());
}

#[test]
fn runs_that_are_compared_are_checked() {
    check(
        "compare",
        r#"
        run.json => 2: B.json
        none.json run.json +run.npz => 1: none.json | cannot be read
        run.json folder.json +run.npz => 1: folder.json
        {empty|text|cut50_run}.json run.json +run.npz => 1: .json | no JSON | --json
        archive.json=run.npz run.json +run.npz => 1: archive.json | --json wrote is expected
        {words.json|number.json|numbers.json|deep.json} run.json +run.npz => 1: .json | --json
        versioned.json run.json +run.npz => 1: versioned.json | another version | upsampling | run again
        bare.json run.json +run.npz => 1: bare.json | saved no arrays | --save-arrays
        endless.json run.json +run.npz => 1: endless.json | larger than 256 MiB
        # Lines in place of an object.
        lines.jsonl run.json +run.npz => 0
        longer.jsonl run.json +run.npz => 1: longer.jsonl | more than the 3 images
        shorter.jsonl run.json +run.npz => 1: shorter.jsonl | cut short: it has 2 of 3 images
        cut.jsonl run.json +run.npz => 1: cut.jsonl | cut short at image 3 of 3
        pathless.jsonl run.json +run.npz => 1: pathless.jsonl | another version | image 2 | run again
        run.json run.json +run.npz --json x.jsonl => 2: one JSON object
        # The arrays.
        run.json run.json => 1: run.json | run.npz | neither beside it | --arrays
        run.json run.json +run.npz=text.txt => 1: run.npz | no .npz file
        run.json run.json +run.npz={cut50|cut99}_run.npz => 1: run.npz | no .npz file, or cut short
        run.json run.json +run.npz=plain.npz => 1: run.npz | no list of images
        run.json run.json +run.npz=alone.npz => 1: run.npz | not of the run run.json | of 1 images, but the summary has 3
        run.json run.json +run.npz=trimmed.npz => 1: run.npz | lack components | run again
        run.json run.json +run.npz=unscored.npz => 1: run.npz | lack probabilities
        renamed.json run.json +run.npz => 1: not of the run renamed.json | photos/b.png | photos/x.png
        altered.json run.json +run.npz => 1: not of the run altered.json | probability
        run.json run.json +run.npz --arrays-b none.npz => 1: none.npz | no such file
        run.json run.json +run.npz --arrays-a run.txt => 2: run.txt | .npz or .safetensors
        # The runs.
        run.json alone.json +run.npz +alone.npz => 1: no image in common | photos/a.png | alone.png
        run.json second.json +run.npz +second.npz => 0: too high with few places
        run.json second.json +second.npz --arrays-a second.npz => 0
        # Conditions and outputs.
        run.json run.json --fail-if {top1_changed|top1_changed=0.1|cka>|cka>x|""} => 2: --fail-if | NAME > NUMBER
        run.json run.json --fail-if top1>0 => 2: there is no number 'top1' | top1_changed | cka_debiased
        run.json run.json +run.npz --fail-if accuracy_b<1 => 1: 'accuracy_b<1' cannot be checked | no true class
        run.json run.json +run.npz --fail-if top1_changed>0 --fail-if cka<0.99 => 0
        run.json run.json +run.npz --json run.json => 2: --json would write over run.json
        run.json run.json +run.npz --json folder => 1: folder | it is a folder
        run.json run.json +run.npz --report run.json => 2: --report would write over run.json
        run.json run.json +run.npz --report a.html --json a.html => 2: --json and --report both write a.html
        "#,
    );
    check(
        "report",
        r#"
        run.json +run.npz --output run.json => 2: --output would write over run.json
        run.json +run.npz --output folder => 1: folder | it is a folder
        run.json => 1: run.json | run.npz | neither beside it | --arrays
        painted.json +run.npz => 1: painted.json | its palette is cmyk
        longer.json +run.npz => 1: not of the run longer.json | a group of the key has 25 components, but the places 24
        unnamed.json +run.npz => 0
        "#,
    );
}
