//! A table of input that is bad or awkward: what a person gives, and the line that tells
//! them what is wrong with it. Nothing may be left behind, whatever it was.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Cursor, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use crate::common::place::{Place, assert_one_error, network, repository};
use image::{ImageFormat, Rgb, RgbImage};
use prism::model::zoo;
use tch::{Device, Kind, Tensor, nn};

/// Longer than any row takes on a machine at work; one that hangs ends with 124.
const PATIENCE: &str = "60";

/// The longest line that a person reads to its end.
const LONGEST_LINE: usize = 700;

/// One line of the table.
struct Row {
    /// What is odd.
    name: String,
    arguments: Vec<OsString>,
    /// Makes the files, in the folder of the run.
    setup: Box<dyn Fn(&Place)>,
    status: i32,
    /// Parts of stderr: of the error where there is one, else of notes.
    says: Vec<String>,
    /// Warnings that come before the error.
    warns: Vec<String>,
    /// Figures appear where it succeeds.
    draws: bool,
}

/// `prism`, word for word.
fn prism(name: &str, words: &str) -> Row {
    Row {
        name: name.into(),
        arguments: words.split_whitespace().map(OsString::from).collect(),
        setup: Box::new(|_| ()),
        status: 0,
        says: Vec::new(),
        warns: Vec::new(),
        draws: false,
    }
}

/// A run of a tiny network on these images.
fn images(name: &str, inputs: &[impl AsRef<OsStr>]) -> Row {
    let mut row = prism(name, "--image-size 64 --model");
    row.arguments.push(network("tiny_vgg_traced").into());
    row.arguments.push("--input".into());
    row.arguments
        .extend(inputs.iter().map(|input| input.as_ref().into()));
    row.draws = true;
    row
}

/// A run of a tiny network on a good photograph, with other words.
fn options(name: &str, words: &str) -> Row {
    images(name, &["photos/a.png"]).words(words)
}

/// A run of another network on a good photograph.
fn model(name: &str, file: impl AsRef<OsStr>) -> Row {
    let mut row = prism(name, "--image-size 64 --input photos/a.png --model");
    row.arguments.push(file.as_ref().into());
    row.draws = true;
    row
}

fn bad_model(name: &str, file: &str) -> Row {
    model(name, repository("tests/data/bad_models").join(file))
}

impl Row {
    fn words(mut self, words: &str) -> Row {
        let words = words.split_whitespace().map(OsString::from);
        self.arguments.extend(words);
        self
    }

    fn argument(mut self, argument: impl AsRef<OsStr>) -> Row {
        self.arguments.push(argument.as_ref().into());
        self
    }

    fn with(mut self, setup: impl Fn(&Place) + 'static) -> Row {
        self.setup = Box::new(setup);
        self
    }

    /// With a file of these bytes.
    fn file(self, name: &'static str, bytes: impl Into<Vec<u8>>) -> Row {
        let bytes = bytes.into();
        self.with(move |place| fs::write(place.path(name), &bytes).unwrap())
    }

    fn file_in(self, folder: &'static str, name: &'static str, bytes: Vec<u8>) -> Row {
        self.with(move |place| {
            fs::create_dir(place.path(folder)).unwrap();
            fs::write(place.path(name), &bytes).unwrap();
        })
    }

    fn warns(mut self, parts: &[&str]) -> Row {
        self.warns = parts.iter().map(|part| part.to_string()).collect();
        self
    }

    /// Something else failed.
    fn fails(self, parts: &[&str]) -> Row {
        self.ends(1, parts)
    }

    /// The command line cannot mean anything.
    fn misuses(self, parts: &[&str]) -> Row {
        self.ends(2, parts)
    }

    fn succeeds(self, parts: &[&str]) -> Row {
        self.ends(0, parts)
    }

    fn ends(mut self, status: i32, parts: &[&str]) -> Row {
        self.status = status;
        self.says = parts.iter().map(|part| part.to_string()).collect();
        self
    }

    /// What is wrong with what the run did.
    fn check(&self) {
        let place = Place::new();
        (self.setup)(&place);
        let before = place.listing();
        let mut command = place.prism_after(&["timeout", "--kill-after=1", PATIENCE]);
        // Several rows are at work at once.
        for threads in ["OMP_NUM_THREADS", "RAYON_NUM_THREADS"] {
            command.env(threads, "1");
        }
        let output = command.args(&self.arguments).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        let words: Vec<_> = self.arguments.iter().map(|a| a.to_string_lossy()).collect();
        let what = format!("{}: prism {}\n{stderr}", self.name, words.join(" "));
        assert_eq!(output.status.code(), Some(self.status), "{what}");

        let lines: Vec<&str> = stderr.lines().collect();
        for line in &lines {
            assert!(line.starts_with("prism: "), "{what}");
            assert!(line.len() <= LONGEST_LINE, "too long: {what}");
        }
        for innards in [
            "std::",
            "c10::",
            "at::",
            "panicked",
            "failed within",
            "libtorch_",
        ] {
            assert!(!stderr.contains(innards), "{innards} in {what}");
        }
        let said = match self.status {
            0 => &stderr,
            _ => lines.last().copied().unwrap_or_default(),
        };
        for part in &self.says {
            assert!(said.contains(part), "no '{part}' in {what}");
        }
        for part in &self.warns {
            assert!(stderr.contains(part), "no '{part}' in {what}");
        }
        let after = place.listing();
        if self.status == 0 {
            assert!(!stderr.contains("error: "), "{what}");
            let is_left = |path: &&PathBuf| path.to_string_lossy().contains(".part");
            assert_eq!(after.keys().find(is_left), None, "{what}");
            let figures = after.keys().filter(|path| {
                let name = path.file_name().unwrap().to_string_lossy();
                name.starts_with("PRISM_") && path.parent() == Some(&place.path("results"))
            });
            assert!(!self.draws || figures.count() >= 2, "{what}");
        } else {
            assert_one_error(&stderr, &what);
            let expected = 1 + self.warns.len();
            assert_eq!(lines.len(), expected, "{what}");
            assert!(output.stdout.is_empty(), "{what}");
            assert_eq!(after, before, "{what}");
        }
    }
}

/// Checks every row, and names all that are not as they should be.
fn check(rows: Vec<Row>) {
    let bad: Vec<String> = rows
        .iter()
        .filter_map(|row| {
            let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| row.check()));
            let panic = checked.err()?;
            let text = panic.downcast_ref::<String>().cloned();
            Some(text.unwrap_or_else(|| row.name.clone()))
        })
        .collect();
    assert!(
        bad.is_empty(),
        "{} of {} rows:\n\n{}",
        bad.len(),
        rows.len(),
        bad.join("\n\n")
    );
}

// --- images ---------------------------------------------------------------

fn photo() -> RgbImage {
    image::open(repository("tests/data/images/photo_33x21.png"))
        .unwrap()
        .to_rgb8()
}

fn encoded(picture: &RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn data_image(name: &str) -> Vec<u8> {
    fs::read(repository("tests/data/images").join(name)).unwrap()
}

/// A PNG that says how large it is and has no pixels.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().unwrap();
    writer.write_chunk(png::chunk::IDAT, &[]).unwrap();
    drop(writer);
    bytes
}

/// A JPEG whose frame header claims another size.
fn jpeg_of_size(width: u16, height: u16) -> Vec<u8> {
    let mut bytes = data_image("plain.jpg");
    let frame = bytes
        .windows(2)
        .position(|pair| pair == [0xff, 0xc0])
        .unwrap();
    bytes[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
    bytes[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
    bytes
}

#[test]
fn files_that_are_no_image() {
    let mut rows = vec![
        images("an empty file", &["empty.jpg"])
            .file("empty.jpg", "")
            .fails(&["empty.jpg", "the file is empty"]),
        images("a text named as a picture", &["text.png"])
            .file("text.png", "this is no picture\n")
            .fails(&["text.png", "no known image format"]),
        images("a page that a download left", &["photo.jpg"])
            .file("photo.jpg", "<!DOCTYPE html><html><body>404</body></html>")
            .fails(&["photo.jpg", "no known image format"]),
        images("a vector drawing", &["drawing.svg"])
            .file("drawing.svg", "<svg xmlns='http://www.w3.org/2000/svg'/>")
            .fails(&["drawing.svg", "no known image format"]),
        images("a format that is not supported", &["new.avif"])
            .file(
                "new.avif",
                b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miafMA1B".as_slice(),
            )
            .fails(&["new.avif", "not supported", "convert it to JPEG or PNG"]),
        images("a picture of light, in floats", &["sky.hdr"])
            .file(
                "sky.hdr",
                "#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 1 +X 1\n",
            )
            .fails(&["sky.hdr", "not supported"]),
        images("a header that claims 900 megapixels", &["bomb.png"])
            .file("bomb.png", png_header(30_000, 30_000))
            .fails(&["bomb.png", "too large (30000x30000", "scale it down"]),
        images("a JPEG over which its decoder panics", &["bad.jpg"])
            .file("bad.jpg", panicking())
            .fails(&["bad.jpg", "the file is damaged"]),
        images("that JPEG among good ones", &["bad.jpg", "photos/a.png"])
            .file("bad.jpg", panicking())
            .words("--skip-bad-images")
            .succeeds(&["left out", "bad.jpg", "the file is damaged"]),
        images("a small GIF whose frame claims 4 gigapixels", &["bomb.gif"])
            .file("bomb.gif", gif_with_frame(65_535, 65_535))
            .fails(&["bomb.gif", "too large (65535x65535", "scale it down"]),
        images(
            "a JPEG of more pixels than are asked for",
            &["photos/c.jpg"],
        )
        .words("--max-pixels 1000")
        .fails(&[
            "photos/c.jpg",
            "too large",
            "more than 1000 pixels",
            "raise --max-pixels",
        ]),
        images("a PNG of more pixels than are asked for", &["photos/a.png"])
            .words("--max-pixels 1000")
            .fails(&["photos/a.png", "too large", "more than 1000 pixels"]),
        images("a JPEG header that claims 4 gigapixels", &["bomb.jpg"])
            .file("bomb.jpg", jpeg_of_size(65_535, 65_500))
            .fails(&["bomb.jpg", "too large (65535x65500", "scale it down"]),
        images("256 megapixels of which there are none", &["hollow.png"])
            .file("hollow.png", png_header(16_000, 16_000))
            .fails(&["cannot read the image hollow.png"]),
        images("a JPEG without a row", &["flat.jpg"])
            .file("flat.jpg", jpeg_of_size(64, 0))
            .fails(&["cannot read the image flat.jpg"]),
        images("a folder named as a picture", &["x.jpg"])
            .with(|place| {
                fs::create_dir(place.path("x.jpg")).unwrap();
            })
            .fails(&["the folder x.jpg holds no image"]),
        images("a link to nothing", &["link.jpg"])
            .with(|place| {
                symlink("nowhere.jpg", place.path("link.jpg")).unwrap();
            })
            .fails(&["link.jpg", "no such file"]),
        images("a link to itself", &["loop.jpg"])
            .with(|place| {
                symlink("loop.jpg", place.path("loop.jpg")).unwrap();
            })
            .fails(&["loop.jpg", "symbolic links"]),
        images("a pipe that nobody writes to", &["pipe.png"])
            .with(|place| {
                let pipe = place.path("pipe.png");
                assert!(Command::new("mkfifo").arg(pipe).status().unwrap().success());
            })
            .fails(&["pipe.png", "no regular file"]),
        images("a device", &["/dev/zero"]).fails(&["/dev/zero", "no regular file"]),
        images("no name", &[""]).misuses(&["a value is required for '--input"]),
        images(
            "a good one beside one that is missing",
            &["photos/a.png", "none.jpg"],
        )
        .fails(&["none.jpg", "no such file"]),
        images("arrays that are a text", &["a.npz"])
            .file("a.npz", "no arrays\n")
            .fails(&["a.npz", "no .npz file"]),
        images("arrays beside a picture", &["photos/a.png", "a.npz"])
            .fails(&["a.npz", "taken alone"]),
        images(
            "only bad ones, all left out",
            &["bad.png", "--skip-bad-images"],
        )
        .file("bad.png", "")
        .warns(&["warning: left out: cannot read the image bad.png: the file is empty"])
        .fails(&["none of the images can be read"]),
    ];
    for (extension, format) in [
        ("png", ImageFormat::Png),
        ("jpg", ImageFormat::Jpeg),
        ("gif", ImageFormat::Gif),
        ("bmp", ImageFormat::Bmp),
        ("webp", ImageFormat::WebP),
        ("tiff", ImageFormat::Tiff),
        ("ppm", ImageFormat::Pnm),
        ("qoi", ImageFormat::Qoi),
        ("ico", ImageFormat::Ico),
        ("tga", ImageFormat::Tga),
    ] {
        let whole = encoded(&photo(), format);
        let cut = whole[..whole.len() / 2].to_vec();
        let name: &'static str = format!("cut.{extension}").leak();
        rows.push(
            images(&format!("half a {extension}"), &[name])
                .file(name, cut)
                .fails(&["cannot read the image", name]),
        );
    }
    let mut damaged = encoded(&photo(), ImageFormat::Png);
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x55;
    rows.push(
        images("a bit that has flipped", &["flipped.png"])
            .file("flipped.png", damaged)
            .fails(&["cannot read the image flipped.png"]),
    );
    check(rows);
}

#[test]
fn images_that_are_odd_but_good() {
    let odd = |name: &str, file: &'static str, picture: RgbImage| {
        images(name, &[file]).file(file, encoded(&picture, ImageFormat::Png))
    };
    let stored =
        |name: &str, file: &'static str| images(name, &[file]).file(file, data_image(file));
    let grey = |width, height| RgbImage::from_pixel(width, height, Rgb([90, 90, 90]));
    let mut rows = vec![
        odd("one pixel", "dot.png", grey(1, 1)).succeeds(&[]),
        odd("a line across", "row.png", grey(10_000, 1)).succeeds(&[]),
        odd("a line down", "column.png", grey(1, 10_000)).succeeds(&[]),
        odd("all pixels equal", "plain.png", grey(64, 64)).succeeds(&[]),
        odd("PNG named .gif", "picture.gif", photo()).succeeds(&[]),
        odd("no extension", "picture", photo()).succeeds(&[]),
        odd("spaces and quotes in the name", "a 'b' \"c\".png", photo()).succeeds(&[]),
        odd("a line break in the name", "a\nb.png", photo()).succeeds(&[]),
        odd("brackets that are no glob", "a[1]*?.png", photo()).succeeds(&[]),
        odd("a tab in the name", "a\tb.png", photo()).succeeds(&[]),
        stored("16 bits", "rgb16.png").succeeds(&[]),
        stored("16 bits with alpha", "rgba16.png").succeeds(&[]),
        stored("CMYK", "cmyk.jpg").succeeds(&[]),
        stored("an animated GIF", "animation.gif").succeeds(&[]),
        stored("a palette with alpha", "palette_alpha.png").succeeds(&[]),
        stored("one bit", "bilevel.png").succeeds(&[]),
        images(
            "not UTF-8 in the name",
            &[OsStr::from_bytes(b"caf\xe9.png")],
        )
        .with(|place| {
            let name = place.root.path().join(OsStr::from_bytes(b"caf\xe9.png"));
            fs::write(name, encoded(&photo(), ImageFormat::Png)).unwrap();
        })
        .words("--per-image --json run.json --cluster --save-arrays run.npz --report run.html")
        .succeeds(&["run.json", "2cluster.bin", "run.npz", "run.html"]),
        images("a hyphen before the name", &["photos/a.png"])
            .file("-x.png", encoded(&photo(), ImageFormat::Png))
            .argument("--input=-x.png")
            .succeeds(&[]),
        images("the longest name", &[format!("{}.png", "x".repeat(251))])
            .with(|place| {
                let name = format!("{}.png", "x".repeat(251));
                fs::write(place.path(&name), encoded(&photo(), ImageFormat::Png)).unwrap();
            })
            .words("--per-image")
            .succeeds(&[]),
        images("a folder with a name like a picture's", &["x.jpg"])
            .with(|place| {
                fs::create_dir(place.path("x.jpg")).unwrap();
                fs::copy(place.path("photos/a.png"), place.path("x.jpg/a.png")).unwrap();
            })
            .succeeds(&[]),
        images("a bad one is left out", &["photos", "bad.png"])
            .words("--skip-bad-images")
            .file("bad.png", "")
            .succeeds(&["warning: left out: cannot read the image bad.png"]),
        images("the same picture three times", &["1.png", "2.png", "3.png"])
            .words("--exclusive")
            .with(|place| {
                for copy in ["1.png", "2.png", "3.png"] {
                    fs::copy(place.path("photos/a.png"), place.path(copy)).unwrap();
                }
            })
            .succeeds(&[
                "every colour is common to all images",
                "unique ones is black",
            ]),
        options("what one picture shares with itself", "--inclusive")
            .succeeds(&["every colour is common to all images, so none was left out"]),
    ];
    rows.push(
        images("every EXIF orientation", &["turned/*.jpg"])
            .with(|place| {
                fs::create_dir(place.path("turned")).unwrap();
                for orientation in 1..=8 {
                    let name = format!("orientation_{orientation}.jpg");
                    let to = place.path("turned").join(&name);
                    fs::write(to, data_image(&name)).unwrap();
                }
            })
            .succeeds(&[]),
    );
    check(rows);
}

/// Found by fuzzing.
fn panicking() -> Vec<u8> {
    fs::read(repository("fuzz/corpus/image/panicking.jpg")).unwrap()
}

/// A GIF of 16x16 pixels, with a comment, and then a frame of this size.
fn gif_with_frame(width: u16, height: u16) -> Vec<u8> {
    let mut gif = b"GIF89a\x10\0\x10\0\x80\0\0\0\0\0\xff\xff\xff".to_vec();
    gif.extend(b"\x21\xfe\x03big\x02!!\0\x2c\0\0\0\0");
    gif.extend(width.to_le_bytes());
    gif.extend(height.to_le_bytes());
    gif.extend(b"\0\x02\x02\x44\x01\0;");
    gif
}

#[test]
fn globs() {
    check(vec![
        images("no match", &["photos/*.gif"]).fails(&["photos/*.gif", "no file matches"]),
        images("no such folder", &["none/*.png"]).fails(&["none/*.png", "no file matches"]),
        images("only folders match", &["fold*"])
            .with(|place| {
                fs::create_dir(place.path("folder")).unwrap();
            })
            .fails(&["fold*", "no file matches"]),
        images("only hidden files match", &["*.png"])
            .file(".hidden.png", encoded(&photo(), ImageFormat::Png))
            .fails(&["*.png", "no file matches"]),
        images("a bracket without its twin", &["photos/[a"]).fails(&["photos/[a", "no valid glob"]),
        images("three stars", &["photos/***"]).fails(&["photos/***", "no valid glob"]),
        images("two stars with a letter", &["photos/**a"]).fails(&["photos/**a", "no valid glob"]),
        images("not UTF-8", &[OsStr::from_bytes(b"caf\xe9*.png")])
            .fails(&["a glob must be valid UTF-8"]),
        images("a control in it", &["\x1b[31m*.png"]).fails(&["\\u{1b}[31m*.png"]),
        images("a text among those that match", &["photos/*"])
            .file("photos/notes.txt", "notes")
            .fails(&["photos/notes.txt", "no known image format"]),
        images("thousands of matches and one that is bad", &["many/*.png"])
            .with(|place| {
                let dot = encoded(&RgbImage::new(1, 1), ImageFormat::Png);
                fs::create_dir(place.path("many")).unwrap();
                for index in 0..3000 {
                    fs::write(place.path(&format!("many/{index:04}.png")), &dot).unwrap();
                }
                fs::write(place.path("many/2999.png"), "").unwrap();
            })
            .fails(&["many/2999.png", "empty"]),
        images(
            "each match counts once",
            &["photos/*.png", "photos/a*", "photos"],
        )
        .succeeds(&[]),
    ]);
}

#[test]
fn a_network_that_wants_ever_more_memory_ends_in_one_line() {
    let place = Place::new();
    let before = place.listing();
    let mut prism = place.prism_after(&["timeout", PATIENCE, "prlimit", "--as=3000000000"]);
    prism.args("--image-size 64 --input photos/a.png --model".split(' '));
    prism.arg(repository("tests/data/bad_models/grows.pt"));
    let output = prism.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_one_error(&stderr, &stderr);
    assert!(stderr.contains("the memory is not enough"), "{stderr}");
    assert_eq!(place.listing(), before);
}

// --- networks and weights -------------------------------------------------

/// A TorchScript file with another `prism.json` in it.
fn with_description(place: &Place, text: &str) {
    let told = fs::read(repository("tests/data/odd_networks/Flag.pt")).unwrap();
    fs::write(place.path("told.pt"), told).unwrap();
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(place.path("told.pt"));
    let mut archive = zip::ZipWriter::new_append(file.unwrap()).unwrap();
    let stored =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    archive.start_file("Flag/extra/prism.json", stored).unwrap();
    archive.write_all(text.as_bytes()).unwrap();
    archive.finish().unwrap();
}

fn told(name: &str, text: &'static str) -> Row {
    let mut row = prism(name, "--input photos/a.png --model told.pt");
    row.draws = true;
    row.with(move |place| with_description(place, text))
}

#[test]
fn files_that_are_no_network() {
    let whole = fs::read(network("tiny_squeezenet_traced")).unwrap();
    let cut = |part: usize| whole[..whole.len() * part / 100].to_vec();
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let plain = zip::write::SimpleFileOptions::default();
    archive.start_file("notes.txt", plain).unwrap();
    archive.write_all(b"notes").unwrap();
    let other_zip = archive.finish().unwrap().into_inner();
    // Where the pickle of the network's parts begins.
    let mut damaged = whole.clone();
    let start = whole
        .windows(10)
        .position(|part| part == b"\x80\x02c__torch")
        .unwrap();
    damaged[start..start + 16].fill(0);
    let broken = |name: &str, bytes: Vec<u8>| model(name, "net.pt").file("net.pt", bytes);
    let state_dicts = repository("tests/data/state_dicts");
    check(vec![
        model("no such file", "none.pt").fails(&["none.pt", "no such model file"]),
        model("a folder", "photos/").fails(&["photos/", "a folder, not a model file"]),
        model("no name", "").misuses(&["a value is required for '--model"]),
        model("the folder of the run", "./").fails(&["folder"]),
        broken("an empty file", vec![]).fails(&["net.pt", "the model file is empty"]),
        broken("one byte", vec![0]).fails(&["net.pt", "not a TorchScript file"]),
        broken("a text", b"a network".to_vec()).fails(&["net.pt", "models/export.py"]),
        broken("1 % of one", cut(1)).fails(&["net.pt", "damaged or cut short", "export"]),
        broken("half of one", cut(50)).fails(&["net.pt", "damaged or cut short", "export"]),
        broken("99 % of one", cut(99)).fails(&["net.pt", "damaged or cut short", "export"]),
        broken("zeros where its parts are named", damaged).fails(&["net.pt"]),
        broken("a zip archive of something else", other_zip).fails(&[
            "net.pt",
            "no TorchScript file",
            "models/export.py",
        ]),
        model("a photograph", "photos/a.png").fails(&["photos/a.png", "not a TorchScript file"]),
        model("a state dict", state_dicts.join("new.pth")).fails(&[
            "new.pth",
            "a pickled state dict",
            "models/export.py",
        ]),
        model("an old state dict", state_dicts.join("old.pth")).fails(&[
            "old.pth",
            "a pickled state dict",
            "models/export.py",
        ]),
        model(
            "a safetensors file",
            state_dicts.join("weights.safetensors"),
        )
        .fails(&["weights.safetensors", "not a TorchScript file", "export"]),
        bad_model("a pickled module", "pickled_module.pth")
            .fails(&["pickled_module.pth", "module, which holds no code"]),
        model("not UTF-8 in the name", OsStr::from_bytes(b"caf\xe9.pt"))
            .fails(&["no such model file"]),
        model("a name that is near to one", "resnet51").fails(&["'resnet51'", "resnet50"]),
        model("a name with a line break", "res\nnet").fails(&["'res\\nnet'"]),
        model("known, but its weights are nowhere", "vgg16").fails(&[
            "no weights of vgg16",
            "--weights FILE",
            "efficientnet_lite0",
        ]),
        told("a description that is no JSON", "image_size = 64").fails(&[
            "told.pt",
            "prism.json",
            "of no use",
        ]),
        told("a description of another kind", "[1, 2]").fails(&["told.pt", "prism.json"]),
        told(
            "a description with a side of 0",
            r#"{"image_size": [0, 64]}"#,
        )
        .fails(&["told.pt", "image_size is 0x64"]),
        told(
            "a description with a deviation of 0",
            r#"{"std": [1, 0, 1]}"#,
        )
        .fails(&["told.pt", "std is not positive"]),
        told(
            "a description with too few classes",
            r#"{"image_size": [32, 32], "labels": ["a"]}"#,
        )
        .fails(&["told.pt", "1 names", "5 classes"]),
        told(
            "a description with more in it",
            r#"{"image_size": [32, 32], "author": "me"}"#,
        )
        .succeeds(&[]),
    ]);
}

#[test]
fn networks_that_are_not_for_prism() {
    check(vec![
        bad_model("NaN among its weights", "nan_weights.pt")
            .fails(&["nan_weights.pt", "weights are not finite"]),
        bad_model("NaN, and only its layers asked for", "nan_weights.pt")
            .words("--saliency gradcam")
            .fails(&["nan_weights.pt", "weights are not finite"]),
        bad_model("an infinite score", "infinite_scores.pt").fails(&["not finite"]),
        bad_model("a vision transformer", "transformer.pt")
            .fails(&["transformer.pt", "vision transformer"]),
        bad_model("attention written out", "written_out.pt").fails(&["vision transformer"]),
        bad_model("a detector, which takes a list of images", "detector.pt")
            .fails(&["detector.pt", "takes List[Tensor]"]),
        bad_model("a detector, which answers with boxes", "boxes.pt").fails(&["boxes.pt", "[N,K]"]),
        bad_model("one that writes a file", "saves.pt").fails(&[
            "saves.pt",
            "aten::save",
            "outside",
        ]),
        bad_model("one that maps a file", "maps_a_file.pt")
            .fails(&["maps_a_file.pt", "aten::from_file"]),
        bad_model(
            "one that maps a file when it is loaded",
            "maps_a_file_when_loaded.pt",
        )
        .fails(&["maps_a_file_when_loaded.pt", "aten::from_file"]),
        bad_model("one that prints", "talks.pt").succeeds(&[]),
        bad_model("one that wants a petabyte", "greedy.pt").fails(&["greedy.pt", "memory"]),
        bad_model("a recurrent network", "recurrent.pt").fails(&[
            "recurrent.pt",
            "nothing to hook",
            "no convolution",
        ]),
        bad_model("one for grey images", "one_channel.pt").fails(&["one_channel.pt", "channels"]),
        bad_model("one for another size", "fixed_size.pt").fails(&[
            "fixed_size.pt",
            "[N,3,64,64]",
            "--image-size sets another size",
        ]),
        bad_model("one for pixels, not scores", "not_nk.pt").fails(&["not_nk.pt", "[N,K]"]),
        bad_model("without the axis of the images", "no_batch.pt").fails(&["shape [5]", "[N,K]"]),
        bad_model("one that answers in words", "text.pt").fails(&["holds no tensor", "[N,K]"]),
        bad_model("without a layer", "no_layers.pt").fails(&["nothing to hook"]),
        bad_model("one that raises", "raises.pt").fails(&["this network refuses its input"]),
        bad_model("one with two inputs", "two_inputs.pt").fails(&["more than one input"]),
        bad_model("dead: no ReLU lets anything through", "dead.pt")
            .succeeds(&["warning: all features are the same", "the map is black"]),
        bad_model("a single class", "one_class.pt").succeeds(&[]),
        model("too small an image", network("tiny_resnet_scripted"))
            .words("--layer none")
            .misuses(&["'none'"]),
    ]);
}

/// The variables of squeezenet1_1 for three classes.
fn squeezenet() -> HashMap<String, Tensor> {
    let vs = nn::VarStore::new(Device::Cpu);
    zoo::find("squeezenet1_1").unwrap().build(&vs.root(), 3);
    vs.variables()
}

fn weights(name: &str, file: impl AsRef<OsStr>) -> Row {
    let words = "--image-size 64 --input photos/a.png --model squeezenet1_1 --weights";
    let mut row = prism(name, words).argument(file);
    row.draws = true;
    row
}

/// A state dict of squeezenet1_1, changed.
fn changed(
    name: &str,
    file: &'static str,
    change: impl Fn(&str, &Tensor) -> (String, Tensor) + 'static,
) -> Row {
    weights(name, file).with(move |place| {
        let state: Vec<(String, Tensor)> = squeezenet()
            .iter()
            .map(|(name, tensor)| change(name, tensor))
            .collect();
        let path = place.path(file);
        match file.ends_with(".ot") {
            true => Tensor::save_multi(&state, path).unwrap(),
            false => Tensor::write_safetensors(&state, path).unwrap(),
        }
    })
}

fn same(name: &str, tensor: &Tensor) -> (String, Tensor) {
    (name.to_string(), tensor.shallow_clone())
}

/// Every way in which a pickle imports and calls. Where Python reads them (tested with 3.11) each
/// makes the file `pwned`, but those of NEWOBJ, which make an object.
const CALLS: [(&str, &[u8]); 7] = [
    ("GLOBAL and REDUCE", b"cos\nsystem\n(S'touch pwned'\ntR."),
    ("INST", b"(S'touch pwned'\nios\nsystem\n."),
    ("OBJ", b"(cos\nsystem\nS'touch pwned'\no."),
    ("NEWOBJ", b"\x80\x02csubprocess\nPopen\n)\x81."),
    ("NEWOBJ_EX", b"\x80\x04csubprocess\nPopen\n)}\x92."),
    (
        "STACK_GLOBAL",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0btouch pwned\x85R.",
    ),
    (
        "a call hidden in a list",
        b"\x80\x02]cposix\nsystem\nX\x0b\x00\x00\x00touch pwned\x85Ra.",
    ),
];

/// A `.pth` of today with this pickle, and an entry that would lie outside if it were unpacked.
fn archive_with(pickle: &[u8], outside: &str) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let stored =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, content) in [
        ("archive/data.pkl", pickle),
        ("archive/version", b"3\n"),
        ("archive/data/0", b"\0\0\0\0"),
        (outside, b"out"),
    ] {
        archive.start_file(name, stored).unwrap();
        archive.write_all(content).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

#[test]
fn no_pickle_calls_and_no_archive_is_unpacked() {
    let mut rows = Vec::new();
    for (how, pickle) in CALLS {
        let network = format!("in an archive: {how}");
        let archive = archive_with(pickle, "archive/data/../../../pwned");
        rows.push(weights(&network, "deep/w.pth").file_in("deep", "deep/w.pth", archive.clone()));
        rows.push(weights(how, "w.pth").file("w.pth", pickle));
        rows.push(model(&format!("as a network: {how}"), "net.pt").file("net.pt", archive));
        rows.push(prism(&format!("in the clusters: {how}"), "som c.bin").file("c.bin", pickle));
    }
    let rows = rows.into_iter().map(|row| row.fails(&[]));
    check(rows.collect());
}

#[test]
fn weights_of_every_kind() {
    let stored = |file: &str| repository("tests/data/state_dicts").join(file);
    let prefixed = |prefix: &'static str| {
        move |name: &str, tensor: &Tensor| (format!("{prefix}{name}"), tensor.shallow_clone())
    };
    let cast =
        |kind: Kind| move |name: &str, tensor: &Tensor| (name.to_string(), tensor.to_kind(kind));
    let cut = |extension: &'static str, part: usize| {
        let file: &'static str = format!("cut.{extension}").leak();
        let whole = changed("", file, same).setup;
        weights(&format!("{part} % of a .{extension} file"), file)
            .with(move |place| {
                whole(place);
                let bytes = fs::read(place.path(file)).unwrap();
                fs::write(place.path(file), &bytes[..bytes.len() * part / 100]).unwrap();
            })
            .fails(&[file])
    };
    check(vec![
        weights("no such file", "none.pth").fails(&["none.pth", "cannot be read"]),
        weights("a folder", "photos").fails(&["photos", "a folder, not a file of weights"]),
        weights("an empty file", "w.pth")
            .file("w.pth", "")
            .fails(&["w.pth", "empty"]),
        weights("a text", "w.pth")
            .file("w.pth", "weights\n")
            .fails(&["w.pth", "not a state dict"]),
        weights("another network's", stored("new.pth")).fails(&[
            "not weights of squeezenet1_1",
            "missing classifier.1.weight",
            "fc.bias",
        ]),
        weights("a list", stored("list.pth")).fails(&["not a state dict"]),
        weights("a dictionary without a tensor", stored("no_tensors.pth"))
            .fails(&["not a state dict"]),
        weights("TorchScript", stored("torchscript.pth"))
            .fails(&["TorchScript archive", "--model FILE"]),
        cut("safetensors", 1),
        cut("safetensors", 50),
        cut("safetensors", 99),
        cut("ot", 50),
        weights("a page named .safetensors", "w.safetensors")
            .file("w.safetensors", "<html></html>")
            .fails(&["w.safetensors", "cut short or no safetensors file"]),
        changed("NaN in it", "w.safetensors", |name, tensor| {
            (name.to_string(), tensor * f64::NAN)
        })
        .fails(&["squeezenet1_1", "weights are not finite"]),
        changed(
            "a layer of another shape",
            "w.safetensors",
            |name, tensor| match name {
                "features.0.bias" => (name.to_string(), tensor.narrow(0, 0, 7).copy()),
                _ => same(name, tensor),
            },
        )
        .fails(&["w.safetensors", "features.0.bias is [7] instead of [64]"]),
        changed(
            "a layer by another name",
            "w.safetensors",
            |name, tensor| match name {
                "features.0.bias" => ("stem.bias".to_string(), tensor.shallow_clone()),
                _ => same(name, tensor),
            },
        )
        .fails(&["missing features.0.bias", "surplus stem.bias"]),
        changed("all as they should be", "w.safetensors", same).succeeds(&[]),
        changed("libtorch's own container", "w.ot", same).succeeds(&[]),
        changed("half precision", "w.safetensors", cast(Kind::Half)).succeeds(&[]),
        changed("bfloat16", "w.safetensors", cast(Kind::BFloat16)).succeeds(&[]),
        changed("double precision", "w.safetensors", cast(Kind::Double)).succeeds(&[]),
        changed(
            "a prefix of DataParallel's",
            "w.safetensors",
            prefixed("module."),
        )
        .succeeds(&[]),
        changed(
            "nested in a checkpoint",
            "w.safetensors",
            prefixed("state_dict."),
        )
        .succeeds(&[]),
        changed(
            "nested twice",
            "w.safetensors",
            prefixed("state_dict.module."),
        )
        .succeeds(&[]),
        prism("for a file", "--input photos/a.png --weights w.pth --model")
            .argument(network("tiny_vgg_traced"))
            .misuses(&["--weights goes with the name of a network"]),
        prism(
            "for no network of the zoo",
            "--input photos --weights w.pth --model mynet",
        )
        .fails(&["unknown network 'mynet'"]),
    ]);
}

#[test]
fn what_may_not_be_read_or_written_is_one_line() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    for (locked, mode, parts) in [
        ("photos/a.png", 0o000, ["photos/a.png", "ermission denied"]),
        ("net.pt", 0o000, ["net.pt", "ermission denied"]),
        ("results", 0o555, ["into results", "ermission denied"]),
    ] {
        let place = Place::new();
        fs::copy(network("tiny_vgg_traced"), place.path("net.pt")).unwrap();
        fs::create_dir(place.path("results")).unwrap();
        fs::set_permissions(place.path(locked), fs::Permissions::from_mode(mode)).unwrap();
        let before = place.listing();
        // The superuser may do anything, unless that is taken from them.
        let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
        let mut prism = match is_root {
            true => place.prism_after(&["setpriv", "--inh-caps=-all", "--bounding-set=-all"]),
            false => place.prism(),
        };
        prism.args("--image-size 64 --model ./net.pt --input photos/a.png".split(' '));
        let output = prism.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{locked}: {stderr}");
        assert_one_error(&stderr, &stderr);
        for part in parts {
            assert!(stderr.contains(part), "no '{part}' in {stderr}");
        }
        assert_eq!(place.listing(), before, "{locked}");
    }
}

// --- outputs --------------------------------------------------------------

#[test]
fn outputs_that_cannot_be() {
    let link = |row: Row, from: &'static str, to: &'static str| {
        row.with(move |place| {
            symlink(to, place.path(from)).unwrap();
        })
    };
    let folder = |row: Row, name: &'static str| {
        row.with(move |place| {
            fs::create_dir(place.path(name)).unwrap();
        })
    };
    check(vec![
        options("a file where the folder should be", "--output-dir out")
            .file("out", "")
            .fails(&["cannot write into out", "not a folder"]),
        options("a folder below a file", "--output-dir out/below")
            .file("out", "")
            .fails(&["cannot make the folder out/below"]),
        options(
            "a folder that nobody may write to",
            "--output-dir /proc/none",
        )
        .fails(&["cannot make the folder /proc/none"]),
        options("a folder of processes", "--output-dir /proc").fails(&["cannot write into /proc"]),
        options("a folder without a name", "--output-dir=")
            .misuses(&["a value is required for '--output-dir"]),
        link(
            options("a link to nothing", "--output-dir out"),
            "out",
            "nowhere",
        )
        .fails(&["cannot write into out"]),
        link(
            options("a link to itself", "--output-dir out"),
            "out",
            "out",
        )
        .fails(&["out"]),
        folder(
            options("a folder in place of the arrays", "--save-arrays a.npz"),
            "a.npz",
        )
        .fails(&["a.npz", "it is a folder"]),
        options("arrays of no known kind", "--save-arrays a.csv").misuses(&["a.csv", ".npz"]),
        options("arrays without a name", "--save-arrays=")
            .misuses(&["a value is required for '--save-arrays"]),
        link(
            options("a full disk for the arrays", "--save-arrays a.npz"),
            "a.npz",
            "/dev/full",
        )
        .fails(&["a.npz", "no ordinary file"]),
        options("a full disk for the summary", "--json /dev/full")
            .fails(&["/dev/full", "no ordinary file"]),
        options(
            "a summary in a folder that is a file",
            "--json out/run.json",
        )
        .file("out", "")
        .fails(&["cannot write into out"]),
        folder(
            options("a folder in place of the page", "--report page.html"),
            "page.html",
        )
        .fails(&["page.html", "it is a folder"]),
        options("a page that is no page", "--report page.pdf").misuses(&["--report", ".html"]),
        folder(
            options("a folder in place of the clusters", "--cluster"),
            "2cluster.bin",
        )
        .fails(&["2cluster.bin", "it is a folder"]),
        options("a basis of no known kind", "--save-basis b.npz")
            .misuses(&["--save-basis", ".safetensors"]),
        options(
            "two files of one name",
            "--save-arrays x.safetensors --save-basis x.safetensors",
        )
        .misuses(&["--save-arrays and --save-basis name the same file"]),
        options(
            "two names of one file",
            "--save-arrays x.safetensors --save-basis ./x.safetensors",
        )
        .misuses(&["name the same file"]),
        options(
            "a summary over a figure",
            "--json results/PRISM_tiny_vgg_traced.jpg",
        )
        .fails(&["PRISM_tiny_vgg_traced.jpg", "another file of this run"]),
        options(
            "a file in place of the folder of images",
            "--per-image --output-dir .",
        )
        .file("PRISM_tiny_vgg_traced", "")
        .fails(&["PRISM_tiny_vgg_traced"]),
        options("a name that is too long", "")
            .argument("--json")
            .argument("x".repeat(300))
            .fails(&["cannot write", "too long"]),
        options("a figure is a link to nowhere, which it replaces", "")
            .with(|place| {
                fs::create_dir(place.path("results")).unwrap();
                symlink("gone", place.path("results/PRISM_tiny_vgg_traced.jpg")).unwrap();
            })
            .succeeds(&["wrote results/PRISM_tiny_vgg_traced.jpg"]),
    ]);
}

// --- options --------------------------------------------------------------

#[test]
fn options_that_cannot_be() {
    let mut rows = vec![
        options("quiet and verbose", "--quiet --verbose").misuses(&["--quiet", "--verbose"]),
        options(
            "a basis from and to",
            "--basis a.safetensors --save-basis b.safetensors",
        )
        .misuses(&["--basis", "--save-basis"]),
        options("a target of nothing", "--target 3").misuses(&["add --saliency gradcam"]),
        options("a layer of nothing", "--saliency-layer x").misuses(&["add --saliency"]),
        options(
            "gradients in bfloat16",
            "--precision bf16 --saliency gradcam",
        )
        .misuses(&["bf16 does not go with --saliency"]),
        options("no such class", "--saliency gradcam --target 10")
            .misuses(&["there is no class 10", "0 to 9"]),
        options("a class below 0", "--saliency gradcam --target -1")
            .misuses(&["there is no class -1", "0 to 9"]),
        options(
            "a class beyond all numbers",
            "--saliency gradcam --target 99999999999999999999",
        )
        .misuses(&["there is no class 99999999999999999999"]),
        options(
            "a class by a name that is not known",
            "--saliency gradcam --target cat",
        )
        .misuses(&["--target cat", "names", "--labels FILE"]),
        options("no such layer", "--layer features.99").misuses(&["'features.99'"]),
        options(
            "no such layer for saliency",
            "--saliency gradcam --saliency-layer conv9",
        )
        .misuses(&["'conv9'"]),
        options("a layer without a name", "--layer=").misuses(&["''"]),
        options(
            "a device of an index that is not there",
            "--device cuda:4096",
        )
        .fails(&["--device cuda:4096", "CUDA device"]),
        images("options for pictures, given arrays", &["a.npz"])
            .words("--mean 0,0,0")
            .with(|place| {
                let stored = repository("tests/data/arrays/plain.npz");
                fs::copy(stored, place.path("a.npz")).unwrap();
            })
            .misuses(&["a.npz", "taken as they are"]),
    ];
    // The option, and what its message says is expected.
    for (option, values, expected) in [
        (
            "--image-size",
            &["0", "64x", "1.5", "8193", "64x64x3"][..],
            "N or HxW",
        ),
        ("--mean", &["1,2", "a,b,c", "nan,0,0", "1e39,0,0"], "R,G,B"),
        (
            "--std",
            &["0,1,1", "-1,1,1", "1e-300,1,1"],
            "greater than 0",
        ),
        ("--overlay", &["-0.1", "1.01", "nan"], "from 0 to 1"),
        ("--top", &["0", "-3", "5000"], "whole number"),
        (
            "--batch-size",
            &["0", "9999999999999999999999"],
            "whole number",
        ),
        ("--threads", &["0", "5000"], "whole number"),
        ("--figure-columns", &["0", "65"], "whole number"),
        ("--memory", &["512", "1T", "99999999999999G"], "512M"),
        ("--device", &["gpu", "cuda:x", "cuda:-1", "mps"], "cuda:N"),
        ("--format", &["gif"], "png"),
        ("--hooks", &["best"], "torchprism"),
        ("--precision", &["f16"], "bf16"),
        ("--saliency", &["grad"], "gradcam"),
    ] {
        rows.extend(values.iter().map(|value| {
            let words = "--model net.pt --input photos/a.png";
            let row = prism(&format!("{option} '{value}'"), words);
            row.argument(format!("{option}={value}"))
                .misuses(&[option, expected])
        }));
    }
    check(rows);
}

// --- clusters -------------------------------------------------------------

#[test]
fn cluster_files_of_every_kind() {
    let som = |name: &str| prism(name, "som c.bin");
    let one = b"]((Va.jpg\nK\x01](K\x01K\x00ete.".to_vec();
    let mut rows = vec![
        prism("none was written", "som").fails(&["2cluster.bin", "--cluster"]),
        prism("a folder", "som photos").fails(&["photos"]),
        som("an empty file")
            .file("c.bin", "")
            .fails(&["c.bin", "empty"]),
        som("a text")
            .file("c.bin", "image 1, class 2\n")
            .fails(&["c.bin"]),
        som("a figure")
            .file("c.bin", encoded(&photo(), ImageFormat::Png))
            .fails(&["c.bin"]),
        som("one image")
            .file("c.bin", one.clone())
            .succeeds(&["wrote results/clustering.png"]),
        som("fewer labels than classes")
            .words("--labels photos/l.txt")
            .with(move |place| {
                fs::write(place.path("c.bin"), &one).unwrap();
                fs::write(place.path("photos/l.txt"), "cat\n").unwrap();
            })
            .fails(&["l.txt"]),
        prism("no grid", "som c.bin --grid 1").misuses(&["--grid", "2 to 100"]),
        prism("too large a grid", "som c.bin --grid 101").misuses(&["--grid", "2 to 100"]),
        prism("no epoch", "som c.bin --epochs 0").misuses(&["--epochs"]),
        prism("a seed below 0", "som c.bin --seed -1").misuses(&["--seed"]),
        prism("a figure of no known kind", "som c.bin --output map.gif")
            .misuses(&["--output map.gif", ".png"]),
        prism("two files", "som a.bin b.bin").misuses(&["prism som", "b.bin"]),
    ];
    for (name, part) in [
        ("zip_object", "the Python object builtins.zip"),
        ("empty_list", "the list of images is empty"),
        ("reduce", "not a pickle"),
        ("dictionary", "holds Dict("),
        ("class_as_text", "image"),
        ("class_negative", "Int(-1)"),
        ("feature_two", "image 1 is List("),
        ("features_28", "28 features"),
        ("lengths_differ", "image 2 has 1 features"),
        ("cyclic_2", "image 2 is List([])"),
        ("truncated", "cannot be read as a list"),
        ("not_utf8", "UTF-8"),
        ("text_beyond_end", "cannot be read as a list"),
    ] {
        let file = repository(&format!("tests/data/clusters/bad/{name}.bin"));
        let row = prism(&format!("clusters: {name}"), "som").argument(file);
        rows.push(row.fails(&[name, part]));
    }
    check(rows);
}

// --- labels and bases -----------------------------------------------------

#[test]
fn label_files_of_every_kind() {
    let labels = |name: &str, file: &'static str, bytes: &[u8]| {
        options(name, "--labels").argument(file).file(file, bytes)
    };
    let ten = "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n";
    let windows = format!("\u{feff}{}", ten.replace('\n', "\r\n"));
    check(vec![
        options("no such file", "--labels none.txt").fails(&["none.txt", "cannot be read"]),
        options("a folder", "--labels photos").fails(&["photos", "cannot be read"]),
        labels("an empty file", "l.txt", b"").fails(&["l.txt", "no name in it"]),
        labels("too few", "l.txt", b"cat\ndog\n").fails(&["l.txt", "2 names", "10 classes"]),
        labels("a line without a name", "l.txt", b"cat\n\ndog\n")
            .fails(&["l.txt", "class 1 has an empty name"]),
        labels("not UTF-8", "l.txt", b"caf\xe9\n").fails(&["l.txt", "not text in UTF-8"]),
        labels("a picture", "l.txt", &encoded(&photo(), ImageFormat::Png)).fails(&["UTF-8"]),
        labels("JSON that is none", "l.json", b"cat, dog").fails(&["l.json", "not JSON"]),
        labels("JSON of a number", "l.json", b"10").fails(&["l.json", "list of names"]),
        labels("JSON of numbers", "l.json", b"[1, 2]").fails(&["l.json", "entry 0"]),
        labels(
            "JSON with one number twice",
            "l.json",
            br#"{"cat": 0, "dog": 0}"#,
        )
        .fails(&["l.json", "two names have the number 0"]),
        labels("JSON with a gap", "l.json", br#"{"cat": 0, "dog": 5}"#)
            .fails(&["l.json", "'dog' has the number 5"]),
        labels(
            "JSON nested beyond reason",
            "l.json",
            "[".repeat(100_000).as_bytes(),
        )
        .fails(&["l.json", "not JSON"]),
        options("a file without an end", "--labels l.txt")
            .with(|place| {
                let file = fs::File::create(place.path("l.txt")).unwrap();
                file.set_len(1 << 34).unwrap();
            })
            .fails(&["l.txt", "larger than 16 MiB"]),
        labels("as many as classes", "l.txt", ten.as_bytes()).succeeds(&[]),
        labels(
            "Windows' line ends and byte order mark",
            "l.txt",
            windows.as_bytes(),
        )
        .succeeds(&[]),
    ]);
}

/// What `--save-basis` wrote in a run of the tiny network.
fn basis() -> &'static Vec<u8> {
    static MADE: OnceLock<Vec<u8>> = OnceLock::new();
    MADE.get_or_init(|| {
        let place = Place::new();
        place.run("--quiet --input photos --save-basis basis.safetensors");
        fs::read(place.path("basis.safetensors")).unwrap()
    })
}

#[test]
fn basis_files_of_every_kind() {
    let given = |name: &str, bytes: Vec<u8>| {
        options(name, "--basis b.safetensors").file("b.safetensors", bytes)
    };
    let cut = |part: usize| basis()[..basis().len() * part / 100].to_vec();
    let mut not_finite = basis().clone();
    let at = not_finite.len() - 8;
    not_finite[at..].copy_from_slice(&f64::NAN.to_le_bytes());
    // The ends of a range the wrong way round.
    let mut reversed = basis().clone();
    reversed[at - 8..at].copy_from_slice(&2.0f64.to_le_bytes());
    let values = Tensor::zeros([3], (Kind::Float, Device::Cpu));
    check(vec![
        options("no such file", "--basis none.safetensors")
            .fails(&["none.safetensors", "cannot be read"]),
        options("another extension", "--basis b.npz").misuses(&["--basis", ".safetensors"]),
        options("a folder", "--basis b.safetensors")
            .with(|place| {
                fs::create_dir(place.path("b.safetensors")).unwrap();
            })
            .fails(&["b.safetensors", "cannot be read", "directory"]),
        given("an empty file", vec![]).fails(&["b.safetensors", "no basis"]),
        given("a text", b"a basis".to_vec()).fails(&["b.safetensors", "no basis"]),
        given("1 % of one", cut(1)).fails(&["b.safetensors", "no basis"]),
        given("half of one", cut(50)).fails(&["b.safetensors", "no basis"]),
        given("99 % of one", cut(99)).fails(&["b.safetensors", "no basis"]),
        given("NaN in it", not_finite).fails(&["b.safetensors", "_range' is not finite"]),
        given("a range the wrong way round", reversed).fails(&["b.safetensors", "is no range"]),
        options("a state dict", "--basis b.safetensors")
            .with(move |place| {
                let path = place.path("b.safetensors");
                Tensor::write_safetensors(&[("mean", &values)], path).unwrap();
            })
            .fails(&["b.safetensors", "no basis", "network"]),
        options("larger than any", "--basis b.safetensors")
            .with(|place| {
                let file = fs::File::create(place.path("b.safetensors")).unwrap();
                file.set_len(1 << 34).unwrap();
            })
            .fails(&["b.safetensors", "is no basis"]),
        given("of a run with other colours", basis().clone())
            .words("--inclusive")
            .fails(&["b.safetensors", "colours 'every'", "'common'"]),
        given("of a run that brought nothing up", basis().clone())
            .words("--no-gradual-extrapolation")
            .fails(&["b.safetensors", "extrapolation", "'none'"]),
        given("of another layer", basis().clone())
            .words("--layer features.5")
            .fails(&["b.safetensors", "layer", "features.5"]),
        model("of another network", network("tiny_resnet_scripted"))
            .words("--basis b.safetensors")
            .file("b.safetensors", basis().clone())
            .fails(&["b.safetensors", "tiny_vgg_traced", "tiny_resnet_scripted"]),
        given("of the same", basis().clone()).succeeds(&[]),
    ]);
}
