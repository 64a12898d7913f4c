//! Decoding and resizing, compared with Pillow and NumPy on the same files
//! (`tests/reference/make_images.py`), and finding files.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use image::RgbImage;
use prism::Size;
use prism::images::{self, MAX_PIXELS, find_images, resize};
use tempfile::TempDir;

fn check_header(path: &Path) -> anyhow::Result<()> {
    images::check_header(path, MAX_PIXELS)
}

fn decode(path: &Path) -> anyhow::Result<RgbImage> {
    images::decode(path, MAX_PIXELS)
}

fn data(name: &str) -> PathBuf {
    crate::common::data("images").join(name)
}

/// A reference: 8-bit RGB or grey PNG.
fn reference(name: &str) -> RgbImage {
    image::open(data(name)).unwrap().to_rgb8()
}

/// The largest difference, and the share of the values that differ.
fn difference(a: &RgbImage, b: &RgbImage) -> (u8, f64) {
    assert_eq!(a.dimensions(), b.dimensions());
    let differences = || a.iter().zip(b.iter()).map(|(a, b)| a.abs_diff(*b));
    let differing = differences().filter(|&d| d > 0).count();
    (
        differences().max().unwrap(),
        differing as f64 / a.len() as f64,
    )
}

/// The one line that says what is wrong with a file.
fn complaint<T: std::fmt::Debug>(result: anyhow::Result<T>) -> String {
    let line = format!("{:#}", result.unwrap_err());
    assert!(!line.contains('\n'), "{line}");
    line
}

/// Orientations, greys, palettes, 16 bits, transparency blended with white, every variety of JPEG,
/// the first frames of animations, lossless formats, and a PNG under the name of a JPEG.
#[test]
fn every_picture_is_decoded_as_pillow_does() {
    let entries = fs::read_dir(data("")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names: Vec<String> = names
        .filter_map(|name| Some(name.strip_suffix(".expected.png")?.to_string()))
        .collect();
    assert_eq!(names.len(), 49);
    for name in names {
        let tolerance = match name.as_str() {
            // Colour at half the resolution, which the two scale up differently.
            "plain.jpg" | "progressive.jpg" | "restart.jpg" | "extra_bytes.jpg" => 4,
            "png_named.jpg" => 0,
            "cmyk.tiff" => 1,
            "lossy.webp" => 2,
            name if name.ends_with(".jpg") => 2,
            _ => 0,
        };
        check_header(&data(&name)).unwrap();
        let decoded = decode(&data(&name)).unwrap();
        let (largest, share) = difference(&decoded, &reference(&format!("{name}.expected.png")));
        println!("{name}: at most {largest}/255, on {:.1} %", share * 100.0);
        assert!(largest <= tolerance, "{name} is off by {largest}/255");
    }
}

#[test]
fn a_file_cut_short_is_never_half_a_picture() {
    let folder = TempDir::new().unwrap();
    for name in [
        "plain.jpg",
        "progressive.jpg",
        "restart.jpg",
        "cmyk.jpg",
        "orientation_6.jpg",
        "rgba8.png",
        "rgb16.png",
        "animation.png",
        "animation.gif",
        "lossless.bmp",
        "palette.bmp",
        "lossless.tga",
        "lossless.qoi",
        "lossless.tiff",
        "lzw.tif",
        "lossless.ppm",
        "lossless.webp",
        "lossy.webp",
        "animation.webp",
        "icon.ico",
    ] {
        let whole = fs::read(data(name)).unwrap();
        let picture = decode(&data(name)).unwrap();
        let path = folder.path().join(name);
        let ends = (0..whole.len()).rev();
        for length in ends.clone().take(20).chain(ends.step_by(29)) {
            fs::write(&path, &whole[..length]).unwrap();
            match decode(&path) {
                Err(error) => assert!(!format!("{error:#}").contains('\n')),
                // Only bytes after the pixels are missing.
                Ok(decoded) => assert!(decoded == picture, "{name} cut to {length} bytes"),
            }
        }
        fs::write(&path, &whole[..whole.len() / 3]).unwrap();
        let line = complaint(decode(&path));
        println!("{line}");
        assert!(line.contains(name), "{line}");
    }
}

#[test]
fn files_that_are_not_images_are_refused_in_one_line() {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let in_folder = folder.path().join("folder.jpg");
    fs::create_dir(&in_folder).unwrap();
    let bomb = b"P6 65536 65536 255\n";
    for (path, reason) in [
        (write("empty.jpg", b""), "the file is empty"),
        (
            write("text.jpg", b"hello, world\n"),
            "no known image format",
        ),
        (
            write("text.tga", b"hello, world\n"),
            "cannot read the image",
        ),
        (write("short.jpg", b"\xff\xd8\xff"), "cannot read the image"),
        (write("none.ppm", b"P6 0 0 255\n"), "cannot read the image"),
        (write("bomb.ppm", bomb), "too large (65536x65536"),
        (
            write("a.avif", b"\0\0\0\x1cftypavif\0\0\0\0"),
            "this is AVIF; convert it to JPEG or PNG",
        ),
        (in_folder, "it is a folder"),
        (folder.path().join("missing.jpg"), "no such file"),
    ] {
        for line in [complaint(check_header(&path)), complaint(decode(&path))] {
            println!("{line}");
            assert!(line.contains(reason), "{line}");
            assert!(line.contains(path.to_str().unwrap()), "{line}");
        }
    }
}

#[test]
fn the_header_is_checked_without_the_pixels() {
    let folder = TempDir::new().unwrap();
    for name in ["plain.jpg", "rgba8.png"] {
        let path = folder.path().join(name);
        let whole = fs::read(data(name)).unwrap();
        fs::write(&path, &whole[..whole.len() - 200]).unwrap();
        check_header(&path).unwrap();
        decode(&path).unwrap_err();
    }
}

#[test]
fn resizing_is_within_one_level_of_pillow() {
    let photo = decode(&data("photo.png")).unwrap();
    let column = image::imageops::crop_imm(&photo, 40, 0, 1, 72).to_image();
    let row = image::imageops::crop_imm(&photo, 0, 30, 96, 1).to_image();
    let formula = RgbImage::from_fn(2000, 1500, |x, y| {
        image::Rgb([x * 7 + y * 13, x * y / 64, (x / 3) ^ (y / 5)].map(|v| (v % 256) as u8))
    });
    for (source, name) in [
        (&photo, "photo_33x21.png"),
        (&photo, "photo_64x64.png"),
        (&photo, "photo_131x97.png"),
        (&photo, "photo_7x200.png"),
        (&photo, "photo_1x1.png"),
        (&column, "column_5x40.png"),
        (&row, "row_41x3.png"),
        (&formula, "formula_24x20.png"),
    ] {
        let expected = reference(name);
        let resized = resize(
            source,
            Size::new(expected.height().into(), expected.width().into()),
        )
        .unwrap();
        let (largest, share) = difference(&resized, &expected);
        println!("{name}: at most {largest}/255, on {:.1} %", share * 100.0);
        assert!(largest <= 1, "{name} is off by {largest}/255");
    }
}

#[test]
fn resizing_keeps_the_size_and_a_single_pixel() {
    let photo = decode(&data("photo.png")).unwrap();
    assert_eq!(resize(&photo, Size::new(72, 96)).unwrap(), photo);
    let pixel = RgbImage::from_pixel(1, 1, image::Rgb([1, 128, 255]));
    let wide = resize(&pixel, Size::new(5, 9)).unwrap();
    assert_eq!(wide, RgbImage::from_pixel(9, 5, image::Rgb([1, 128, 255])));
    assert!(resize(&photo, Size::new(0, 5)).is_err());
    assert!(resize(&RgbImage::new(0, 3), Size::new(5, 5)).is_err());
}

/// A folder with files of these names, each empty: finding opens none.
fn folder_with(names: &[&str]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for name in names {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    folder
}

/// The names under the folder that the values find.
fn found(folder: &TempDir, values: &[&str]) -> Vec<String> {
    let values: Vec<_> = values.iter().map(|v| folder.path().join(v)).collect();
    let names = find_images(&values)
        .unwrap()
        .images
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(folder.path()).unwrap();
            name.to_str().unwrap().to_string()
        });
    names.collect()
}

#[test]
fn files_folders_and_globs_are_found_sorted() {
    let folder = folder_with(&[
        "b.jpg",
        "a.JPG",
        "c.txt",
        "d.webp",
        ".hidden.jpg",
        "sub/e.png",
        "sub/deep/f.jpg",
    ]);
    fs::create_dir(folder.path().join("g.jpg")).unwrap();
    assert_eq!(found(&folder, &["d.webp", "b.jpg"]), ["b.jpg", "d.webp"]);
    assert_eq!(found(&folder, &[""]), ["a.JPG", "b.jpg", "d.webp"]);
    assert_eq!(found(&folder, &["*.jpg"]), ["b.jpg"]);
    assert_eq!(found(&folder, &["**/*.jpg"]), ["b.jpg", "sub/deep/f.jpg"]);
    assert_eq!(
        found(&folder, &["[ab].*", "sub"]),
        ["a.JPG", "b.jpg", "sub/e.png"]
    );
    // Matches of a glob are not filtered by extension.
    assert_eq!(found(&folder, &["c.*"]), ["c.txt"]);
}

#[test]
fn an_equal_absolute_path_counts_once() {
    let folder = folder_with(&["a.jpg", "b.jpg"]);
    assert_eq!(
        found(&folder, &["a.jpg", "", "*.jpg", "a.jpg"]),
        ["a.jpg", "b.jpg"]
    );
    let twice = find_images(&["Cargo.toml".into(), "./Cargo.toml".into()]).unwrap();
    assert_eq!(twice.images, [PathBuf::from("Cargo.toml")]);
    let absolute = std::path::absolute("Cargo.toml").unwrap();
    let twice = find_images(&["Cargo.toml".into(), absolute]).unwrap();
    assert_eq!(twice.images, [PathBuf::from("Cargo.toml")]);
}

#[test]
fn an_existing_path_is_no_glob() {
    let folder = folder_with(&["a[1].jpg", "a1.jpg", "set*/b.jpg", "sets/c.jpg"]);
    assert_eq!(found(&folder, &["a[1].jpg"]), ["a[1].jpg"]);
    assert_eq!(found(&folder, &["set*"]), ["set*/b.jpg"]);
}

#[test]
fn a_value_that_yields_no_image_is_named() {
    let folder = folder_with(&["notes/a.txt", "jpgs/x.jpg/a.txt"]);
    for (value, reason) in [
        ("missing.jpg", "no such file or folder"),
        ("*.jpg", "no file matches this glob"),
        ("jpg*/*", "no file matches this glob"),
        ("notes", "holds no image"),
        ("jpgs", "holds no image"),
        ("a[", "no valid glob"),
        ("notes/a.txt/b", "Not a directory"),
    ] {
        let value = folder.path().join(value);
        let line = complaint(find_images(std::slice::from_ref(&value)));
        println!("{line}");
        assert!(line.contains(reason), "{line}");
        assert!(line.contains(value.to_str().unwrap()), "{line}");
    }
    complaint(find_images(&[]));
    complaint(find_images(&[PathBuf::new()]));
}

#[test]
fn paths_need_not_be_unicode() {
    let folder = TempDir::new().unwrap();
    let name = |bytes: &'static [u8]| folder.path().join(OsStr::from_bytes(bytes));
    fs::create_dir(name(b"caf\xe9")).unwrap();
    let path = name(b"caf\xe9/\xe4.jpg");
    fs::copy(data("plain.jpg"), &path).unwrap();
    for value in [&path, &name(b"caf\xe9")] {
        let found = find_images(std::slice::from_ref(value)).unwrap();
        assert!(found.images.iter().eq([&path]));
    }
    decode(&path).unwrap();
    let line = complaint(find_images(&[name(b"\xe9*.jpg")]));
    assert!(line.contains("must be valid UTF-8"), "{line}");
}
