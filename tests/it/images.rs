//! Decoding and resizing, compared with Pillow and NumPy on the same files
//! (`tests/reference/make_images.py`), and finding files.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use image::RgbImage;
use prism::Size;
use prism::images::{self, ImageFile, MAX_PIXELS, Oddity, Resize, find_images, resize};
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
    assert_eq!(names.len(), 70);
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

/// White at 4095: `min(v, 4095) * 255 / 4095`, of the samples that the file holds.
#[test]
fn a_level_of_white_is_a_sample_as_it_is_stored() {
    for name in [
        "twelve_bits.png",
        "twelve_bits.tiff",
        "twelve_bits.pgm",
        "maxval12.pgm",
        "negative.tiff",
    ] {
        let pixels = images::decode_with_white(&data(name), MAX_PIXELS, Some(4095)).unwrap();
        assert!(
            pixels.rgb == reference(&format!("{name}.white.png")),
            "{name}"
        );
        assert!(pixels.oddities.is_empty(), "{name}: {:?}", pixels.oddities);
    }
    // 8 bits do not change; transparent ones are blended as before.
    for name in ["grey8.png", "rgba8.png", "plain.jpg"] {
        let pixels = images::decode_with_white(&data(name), MAX_PIXELS, Some(100)).unwrap();
        assert!(pixels.rgb == decode(&data(name)).unwrap(), "{name}");
        assert!(!pixels.is_16_bit);
    }
}

#[test]
fn odd_pixels_are_told() {
    let oddities = |name: &str, white| {
        let pixels = images::decode_with_white(&data(name), MAX_PIXELS, white).unwrap();
        pixels.oddities
    };
    // The generator's ramp is 16 g + 7 for the greys g of the photograph.
    let grey = reference("grey8.png");
    let sample = |level: &u8| u16::from(*level) * 16 + 7;
    let (low, high) = (
        grey.iter().map(sample).min().unwrap(),
        grey.iter().map(sample).max().unwrap(),
    );
    for name in [
        "twelve_bits.png",
        "twelve_bits.tiff",
        "twelve_bits.pgm",
        "negative.tiff",
    ] {
        assert_eq!(oddities(name, None), [Oddity::LowSamples(high)], "{name}");
    }
    let narrow = Oddity::NarrowSamples(low + 20000, high + 20000);
    assert_eq!(oddities("narrow.png", None), [narrow]);
    // Far below the level of white that was asked for.
    assert_eq!(
        oddities("twelve_bits.png", Some(60000)),
        [Oddity::LowSamples(high)]
    );
    for name in ["empty_alpha.bmp", "empty_alpha.tga", "empty_alpha.png"] {
        assert_eq!(oddities(name, None), [Oddity::EmptyAlpha], "{name}");
    }
    for name in [
        "grey16.png",
        "rgba16.png",
        "rgba8.png",
        "maxval12.pgm",
        "premultiplied.tiff",
        "palette_alpha.png",
    ] {
        assert!(oddities(name, None).is_empty(), "{name}");
    }
}

#[test]
fn a_picture_in_grey_is_pillows() {
    let photo = decode(&data("photo.png")).unwrap();
    let grey = images::grey(photo);
    assert!(grey == reference("photo_grey.png"));
    assert!(images::grey(grey.clone()) == grey, "grey stays");
}

/// The crop of torchvision's presets and a letterbox, upright and across.
#[test]
fn pictures_are_cropped_and_padded_as_elsewhere() {
    let photo = decode(&data("photo.png")).unwrap();
    let upright = image::imageops::rotate90(&photo);
    for (name, picture) in [("photo", &photo), ("upright", &upright)] {
        for side in [33, 64, 131] {
            for (how, word) in [(Resize::Crop, "crop"), (Resize::Pad, "pad")] {
                let expected = reference(&format!("{name}_{word}_{side}.png"));
                let fitted = how.apply(picture, Size::new(side, side)).unwrap();
                let (largest, share) = difference(&fitted, &expected);
                println!(
                    "{name} {word} {side}: {largest}/255, on {:.1} %",
                    share * 100.0
                );
                assert!(largest <= 1, "{name} {word} {side}: {largest}/255");
            }
        }
    }
}

/// The larger picture of a figure shows what the network sees: averaged over each of the
/// network's pixels, it is the network's input.
#[test]
fn the_picture_of_a_figure_is_the_input_enlarged() {
    let smooth = RgbImage::from_fn(90, 60, |x, y| {
        image::Rgb([x * 2, y * 4, 90].map(|v| v as u8))
    });
    let size = Size::new(24, 16);
    for how in [Resize::Stretch, Resize::Crop, Resize::Pad] {
        let input = how.apply(&smooth, size).unwrap();
        let shown = how.enlarged(&smooth, size, Size::new(240, 160)).unwrap();
        let averaged = RgbImage::from_fn(16, 24, |x, y| {
            let block = image::imageops::crop_imm(&shown, x * 10, y * 10, 10, 10).to_image();
            let mean = |c: usize| block.pixels().map(|p| u32::from(p.0[c])).sum::<u32>() / 100;
            image::Rgb([mean(0), mean(1), mean(2)].map(|v| v as u8))
        });
        let (largest, _) = difference(&averaged, &input);
        // A pixel of the input averages over three and more of the image at the edges.
        assert!(largest <= 6, "{how:?}: {largest}/255");
    }
    let bars = Resize::Pad
        .enlarged(&smooth, size, Size::new(240, 160))
        .unwrap();
    let input = Resize::Pad.apply(&smooth, size).unwrap();
    for row in 0..24 {
        let is_bar = input.get_pixel(0, row).0 == [114; 3];
        // 16 pixels wide, so 16 * 60 / 90 = 10.7 high: rows 6 to 16 of 24
        assert_eq!(is_bar, !(6..17).contains(&row), "row {row}");
        assert_eq!(
            bars.get_pixel(80, row * 10 + 5).0 == [114; 3],
            is_bar,
            "row {row}"
        );
    }
}

#[test]
fn any_picture_fits_any_size() {
    for (width, height) in [(1, 1), (1, 500), (500, 1), (7, 3), (3, 499)] {
        let picture = RgbImage::from_pixel(width, height, image::Rgb([10, 20, 30]));
        for (h, w) in [(1, 1), (1, 40), (64, 64), (30, 7), (33, 32)] {
            let size = Size::new(h, w);
            for how in [Resize::Crop, Resize::Pad, Resize::Stretch] {
                let fitted = how.apply(&picture, size).unwrap();
                assert_eq!(fitted.dimensions(), (w as u32, h as u32));
                let known = |p: &image::Rgb<u8>| [[10, 20, 30], [114; 3]].contains(&p.0);
                assert!(
                    fitted.pixels().all(known),
                    "{how:?} {width}x{height} to {h}x{w}"
                );
            }
        }
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
        .map(|image| {
            let name = image.path().strip_prefix(folder.path()).unwrap();
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
    // Those of `*` are, as in a folder.
    assert_eq!(found(&folder, &["*"]), ["a.JPG", "b.jpg", "d.webp"]);
    let below = ["a.JPG", "b.jpg", "d.webp", "sub/deep/f.jpg", "sub/e.png"];
    assert_eq!(found(&folder, &["**/*"]), below);
}

/// The lines on what a value holds beside the images, without the folder's path.
fn left_out(folder: &TempDir, value: &str) -> Vec<String> {
    let found = find_images(&[folder.path().join(value)]).unwrap();
    let root = folder.path().display().to_string();
    let lines = found.left_out.iter().flat_map(|left_out| left_out.lines());
    lines
        .map(|line| line.replace(&format!("{root}/"), ""))
        .collect()
}

#[test]
fn pictures_that_cannot_be_read_are_counted_by_kind() {
    let folder = folder_with(&[
        "mixed/a.jpg",
        "mixed/notes.txt",
        "mixed/.hidden.heic",
        "mixed/Thumbs.db",
        "mixed/data.json",
        "mixed/truth.nef",
        "texts/a.jpg",
        "texts/b.txt",
        "empty/b.txt",
    ]);
    let write = |name: &str, content: &[u8]| fs::write(folder.path().join(name), content).unwrap();
    let ftyp = |brand: &str| [b"\0\0\0\x14ftyp", brand.as_bytes(), &[0; 20]].concat();
    write("mixed/b.heic", &ftyp("heic"));
    write("mixed/c.HEIC", &ftyp("mif1"));
    write("mixed/without_extension", &ftyp("avif"));
    write("mixed/clip.mov", &ftyp("qt  "));
    write("mixed/scan", &[&[0; 128][..], b"DICM"].concat());
    write("mixed/archive.zip", b"PK\x03\x04");
    let lines = left_out(&folder, "mixed");
    let expected = "mixed: 6 files are not read and left out: 2 HEIC, 1 AVIF, 1 DICOM, 1 raw camera file, 1 video (MP4 or QuickTime); convert them to JPEG or PNG";
    assert_eq!(lines, [expected]);
    let of_glob = expected.replacen("mixed", "mixed/*", 1);
    assert_eq!(left_out(&folder, "mixed/*"), [of_glob]);
    assert!(left_out(&folder, "texts").is_empty());
    fs::remove_file(folder.path().join("mixed/a.jpg")).unwrap();
    let line = complaint(find_images(&[folder.path().join("mixed")]));
    assert!(
        line.contains("no image that can be read, but 2 HEIC, 1 AVIF"),
        "{line}"
    );
    let line = complaint(find_images(&[folder.path().join("empty")]));
    assert!(line.contains("(no file in it ends in .apng, "), "{line}");
    let line = complaint(find_images(&[folder.path().join("empty/*")]));
    assert!(
        line.contains("(no file among them ends in .apng, "),
        "{line}"
    );
}

#[test]
fn an_image_without_its_extension_is_told() {
    let folder = folder_with(&["a.jpg"]);
    fs::copy(data("photo.png"), folder.path().join("picture")).unwrap();
    let line = &left_out(&folder, "")[0];
    assert!(
        line.contains("1 image is left out, because the name has no extension"),
        "{line}"
    );
    assert!(line.contains("picture; rename it"), "{line}");
    fs::remove_file(folder.path().join("a.jpg")).unwrap();
    let line = complaint(find_images(&[folder.path().to_path_buf()]));
    assert!(line.contains("picture is one; rename it"), "{line}");
}

#[test]
fn sub_folders_with_images_are_told() {
    let names = [
        "tree/x/1.png",
        "tree/y/deep/2.JPG",
        "tree/z/notes.txt",
        "tree/.git/3.png",
    ];
    let folder = folder_with(&names);
    let tree = folder.path().join("tree");
    let line = complaint(find_images(std::slice::from_ref(&tree)));
    let glob = format!("'{}/**/*'", tree.display());
    assert!(
        line.contains("holds no image, but 2 sub-folders with images; "),
        "{line}"
    );
    assert!(line.contains(&glob), "{line}");
    fs::write(tree.join("0.png"), "").unwrap();
    let lines = left_out(&folder, "tree");
    let expected = "tree: 2 sub-folders with images are not read; 'tree/**/*' reads them, too";
    assert_eq!(lines, [expected]);
    // The glob that the line names.
    let glob = glob.trim_matches('\'');
    let images = find_images(&[PathBuf::from(glob)]).unwrap().images;
    let is_found = |name: &str| images.contains(&ImageFile::from(tree.join(name)));
    assert!(is_found("0.png") && is_found("y/deep/2.JPG"));
    // A folder whose name is a glob itself.
    fs::rename(&tree, folder.path().join("run [1]")).unwrap();
    let line = left_out(&folder, "run [1]").concat();
    assert!(line.contains("'run [[]1[]]/**/*' reads them"), "{line}");
    assert_eq!(
        found(&folder, &["run [[]1[]]/**/*"]),
        ["run [1]/0.png", "run [1]/x/1.png", "run [1]/y/deep/2.JPG"]
    );
    fs::rename(folder.path().join("run [1]"), &tree).unwrap();
    // A loop of links ends.
    std::os::unix::fs::symlink("..", tree.join("z/loop")).unwrap();
    assert_eq!(left_out(&folder, "tree"), [expected]);
}

#[test]
fn files_that_differ_from_a_glob_by_letter_case_are_told() {
    let folder = folder_with(&["a.jpg", "B.JPG", "c.Jpg", "d.png", "only/X.TIF"]);
    let lines = left_out(&folder, "*.jpg");
    let expected = "*.jpg: 2 files are left out that match in other letter case: B.JPG";
    assert_eq!(lines, [expected]);
    assert!(left_out(&folder, "*.png").is_empty());
    let line = complaint(find_images(&[folder.path().join("only/*.tif")]));
    assert!(line.contains("no file matches this glob, but"), "{line}");
    assert!(line.contains("X.TIF does in other letter case"), "{line}");
}

#[test]
fn an_equal_absolute_path_counts_once() {
    let folder = folder_with(&["a.jpg", "b.jpg"]);
    assert_eq!(
        found(&folder, &["a.jpg", "", "*.jpg", "a.jpg"]),
        ["a.jpg", "b.jpg"]
    );
    let twice = find_images(&["Cargo.toml".into(), "./Cargo.toml".into()]).unwrap();
    assert_eq!(twice.images, [ImageFile::from(Path::new("Cargo.toml"))]);
    let absolute = std::path::absolute("Cargo.toml").unwrap();
    let twice = find_images(&["Cargo.toml".into(), absolute]).unwrap();
    assert_eq!(twice.images, [ImageFile::from(Path::new("Cargo.toml"))]);
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
        assert!(found.images.iter().map(ImageFile::path).eq([&path]));
    }
    decode(&path).unwrap();
    let line = complaint(find_images(&[name(b"\xe9*.jpg")]));
    assert!(line.contains("must be valid UTF-8"), "{line}");
}

/// The mean and the largest difference, of 255.
fn distance(a: &RgbImage, b: &RgbImage) -> (f64, u8) {
    assert_eq!(a.dimensions(), b.dimensions());
    let differences = a.iter().zip(b.iter()).map(|(a, b)| a.abs_diff(*b));
    let (sum, largest) = differences.fold((0, 0), |(sum, largest), one| {
        (sum + u64::from(one), largest.max(one))
    });
    (sum as f64 / a.len() as f64, largest)
}

/// The file, with this orientation in EXIF data that it did not have.
fn with_orientation(jpeg: &[u8], orientation: u8) -> Vec<u8> {
    let tags = [0x12, 1, 3, 0, 1, 0, 0, 0, orientation, 0, 0, 0];
    let exif = [b"Exif\0\0II*\0\x08\0\0\0\x01\0".as_slice(), &tags, &[0; 4]].concat();
    let length = (exif.len() as u16 + 2).to_be_bytes();
    [&jpeg[..2], b"\xff\xe1", &length, &exif, &jpeg[2..]].concat()
}

fn jpeg(picture: &RgbImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 90);
    picture.write_with_encoder(encoder).unwrap();
    bytes
}

/// Large images are reduced while they are decoded: what the network sees stays that of all
/// pixels, up to 1 in the mean and 6 at worst, for photographs of any format, all orientations and
/// all ways of resizing.
#[test]
fn reduced_images_give_what_all_pixels_give() {
    let folder = TempDir::new().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        ImageFile::from(path)
    };
    let samples = crate::common::repository("samples");
    let sample = |name: &str| image::open(samples.join(name)).unwrap().into_rgb8();
    let (owl, cat) = (sample("owl.jpg"), sample("cat.jpg"));
    let cut = image::imageops::crop_imm(&cat, 3, 0, 1020, 764).to_image();
    let grey = image::DynamicImage::ImageRgb8(cat.clone()).into_luma8();
    let mut grey_file = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut grey_file, 90);
    grey.write_with_encoder(encoder).unwrap();
    let png = folder.path().join("a.png");
    cut.save(&png).unwrap();
    let mut files = vec![
        ("pig", ImageFile::from(samples.join("pig.jpg"))),
        ("cut within blocks", file("cut.jpg", &jpeg(&cut))),
        ("grey", file("grey.jpg", &grey_file)),
        ("PNG", ImageFile::from(png)),
    ];
    for orientation in 1..=8 {
        let turned = image::imageops::crop_imm(&owl, 0, 0, 1004, 680).to_image();
        let bytes = with_orientation(&jpeg(&turned), orientation);
        let name = format!("turned{orientation}.jpg");
        files.push(("turned", file(&name, &bytes)));
    }
    for (name, image) in &files {
        let full = image.decode(MAX_PIXELS, None, &|_| 1).unwrap();
        for factor in [2, 4] {
            let reduced = image.decode(MAX_PIXELS, None, &|_| factor).unwrap();
            let (width, height) = full.rgb.dimensions();
            assert_eq!(reduced.full, full.full);
            assert_eq!(reduced.factor, factor, "{name}");
            let sides = (width / factor, height / factor);
            assert_eq!(reduced.rgb.dimensions(), sides, "{name}");
            let side = i64::from(width.min(height) / factor / 3);
            let size = Size::new(side, side);
            for resize in [Resize::Stretch, Resize::Crop, Resize::Pad] {
                let [ours, its] =
                    [&reduced, &full].map(|p| resize.apply(p.source(), size).unwrap());
                let (mean, worst) = distance(&ours, &its);
                println!("{name} 1/{factor} {resize} {side}: mean {mean:.2}, at worst {worst}");
                assert!(
                    mean <= 1.0 && worst <= 6,
                    "{name} 1/{factor}: {mean}, {worst}"
                );
            }
        }
    }
}

/// libjpeg fills missing parts with grey; those files are left to the strict decoder.
#[test]
fn a_reduced_file_cut_short_is_never_half_a_picture() {
    let folder = TempDir::new().unwrap();
    let owl = image::open(crate::common::repository("samples/owl.jpg"))
        .unwrap()
        .into_rgb8();
    let part = image::imageops::crop_imm(&owl, 400, 200, 64, 48).to_image();
    let encoded = |progressive: bool, restart: u16| {
        let mut bytes = Vec::new();
        let mut encoder = jpeg_encoder::Encoder::new(&mut bytes, 90);
        encoder.set_progressive(progressive);
        encoder.set_restart_interval(restart);
        encoder
            .encode(&part, 64, 48, jpeg_encoder::ColorType::Rgb)
            .unwrap();
        bytes
    };
    for (name, whole) in [
        ("baseline", encoded(false, 0)),
        ("progressive", encoded(true, 0)),
        ("with restarts", encoded(false, 3)),
    ] {
        let path = folder.path().join("a.jpg");
        let reduced = || ImageFile::from(path.clone()).decode(MAX_PIXELS, None, &|_| 2);
        fs::write(&path, &whole).unwrap();
        let (picture, full) = (reduced().unwrap(), decode(&path).unwrap());
        let mut refused = 0;
        for length in (0..whole.len()).rev().step_by(7) {
            // With and without an end-of-image marker.
            for end in [b"".as_slice(), b"\xff\xd9"] {
                fs::write(&path, [&whole[..length], end].concat()).unwrap();
                match (reduced(), decode(&path)) {
                    (Err(ours), Err(its)) => {
                        assert_eq!(ours.to_string(), its.to_string());
                        refused += 1;
                    }
                    // Whatever the strict decoder lets pass is as it gives it.
                    (Ok(ours), Ok(its)) => {
                        let is_whole = ours.rgb == picture.rgb && distance(&its, &full).0 < 0.1;
                        let small = resize(&its, Size::new(24, 32)).unwrap();
                        assert!(
                            is_whole || distance(&ours.rgb, &small).0 < 3.0,
                            "{name} {length}"
                        );
                    }
                    (ours, _) => panic!("{name} to {length}: {}", ours.is_ok()),
                }
            }
        }
        println!(
            "{name}: {refused} refused of {}",
            2 * whole.len().div_ceil(7)
        );
        assert!(refused > whole.len() / 7);
    }
}
