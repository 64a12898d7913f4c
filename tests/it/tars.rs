//! Images in tar archives: the same as in a folder, and every unusual archive
//! (`tests/reference/make_tars.py`). The archives of runs are packed by the command `tar`.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use prism::images::{ImageFile, MAX_PIXELS, find_images};
use serde_json::Value;

use crate::common::Npz;
use crate::common::data;
use crate::common::place::{Place, tiny};

/// Packs files of a folder into an archive.
fn pack(place: &Place, archive: &str, words: &str) {
    fs::create_dir_all(place.path(archive).parent().unwrap()).unwrap();
    let mut tar = Command::new("tar");
    tar.current_dir(place.root.path());
    tar.args(["--sort=name", "-cf", archive]);
    let status = tar.args(words.split_whitespace()).status().unwrap();
    assert!(status.success(), "{words}");
}

/// Images of several formats in `photos/`, and the same in `photos.tar`.
fn packed() -> Place {
    let place = Place::new();
    for name in [
        "cmyk.jpg",
        "lossy.webp",
        "grey.jpg",
        "animation.gif",
        "alpha.tiff",
    ] {
        let to = place.path("photos").join(name);
        fs::copy(data("images").join(name), to).unwrap();
    }
    pack(&place, "photos.tar", "-C photos .");
    place
}

fn json(place: &Place, name: &str) -> Value {
    serde_json::from_slice(&fs::read(place.path(name)).unwrap()).unwrap()
}

fn paths(json: &Value) -> Vec<String> {
    let images = json["images"].as_array().unwrap().iter();
    let paths = images.map(|image| image["path"].as_str().unwrap().to_string());
    paths.collect()
}

/// The names of the images that a value gives, or the line that refuses it.
fn found(value: &Path) -> Result<Vec<String>, String> {
    let found = find_images(&[value.to_path_buf()]).map_err(|error| format!("{error:#}"))?;
    let names = found.images.iter().map(ImageFile::path);
    Ok(names.map(|name| name.display().to_string()).collect())
}

#[test]
fn a_run_of_an_archive_is_that_of_the_folder_bit_for_bit() {
    let place = packed();
    for (name, input) in [("folder", "photos"), ("tar", "photos.tar")] {
        let line = format!(
            "--quiet --input {input} --save-arrays {name}.npz --json {name}.json --output-dir {name} --cluster={name}.bin --report {name}.html"
        );
        place.run(&line);
    }
    let [folder, tar] = ["folder.npz", "tar.npz"].map(|name| Npz::open(place.path(name)));
    for array in ["input", "maps", "features", "logits"] {
        assert!(folder.tensor(array).equal(&tar.tensor(array)), "{array}");
    }
    let [folder, tar] = ["folder.json", "tar.json"].map(|name| paths(&json(&place, name)));
    let within: Vec<String> = folder
        .iter()
        .map(|path| path.replace("photos/", "photos.tar/"))
        .collect();
    assert_eq!((tar, folder.len()), (within, 8));
    // The commands that read the photographs again find them in the archive.
    let line = "som tar.bin --thumbnails --output som.png --labels imagenet";
    let (_, stderr) = place.succeed(line);
    assert!(!stderr.contains("cannot be read"), "{stderr}");
    let (_, stderr) = place.succeed("report tar.json --output again.html");
    assert!(!stderr.contains("gone"), "{stderr}");
    assert!(!stderr.contains("others now"), "{stderr}");
}

#[test]
fn shards_are_named_by_braces_globs_and_lists_and_read_in_the_order_of_each() {
    let place = Place::new();
    // Not the order of names.
    pack(&place, "s/0001.tar", "-C photos c.jpg a.png");
    pack(&place, "s/0000.tar", "-C photos b.png");
    pack(&place, "s/0002.tar", "photos/a.png");
    fs::write(place.path("list.txt"), "s/0002.tar\nphotos/b.png\n").unwrap();
    let [first, second, third] = ["s/0000.tar/b.png", "s/0001.tar/c.jpg", "s/0001.tar/a.png"];
    let last = "s/0002.tar/photos/a.png";
    for (input, names) in [
        ("s/{0000..0001}.tar", vec![first, second, third]),
        ("s/000{0,2}.tar", vec![first, last]),
        ("s/*.tar", vec![first, second, third, last]),
        ("s/0001.tar ./s/0001.tar", vec![second, third]),
        ("@list.txt", vec!["photos/b.png", last]),
        (
            "s/{0002..0002}.tar photos/c.jpg",
            vec!["photos/c.jpg", last],
        ),
    ] {
        assert_eq!(place.seen(input), names, "{input}");
    }
}

#[test]
fn members_are_those_that_tarfile_finds_and_each_is_read_from_its_place() {
    let photo = fs::read(data("images/photo_1x1.png")).unwrap();
    for name in ["ustar", "gnu", "pax", "latin", "v7", "numbers"] {
        let archive = data(&format!("tars/{name}.tar"));
        let text = fs::read(data(&format!("tars/{name}.tar.json"))).unwrap();
        let all: Vec<(String, u64, u64)> = serde_json::from_slice(&text).unwrap();
        let images = all
            .iter()
            .filter(|(_, _, size)| *size == photo.len() as u64);
        let found = find_images(&[archive]).unwrap();
        assert_eq!(found.images.len(), images.count(), "{name}");
        assert!(found.damaged.is_empty());
        for image in &found.images {
            let pixels = image.decode(MAX_PIXELS, None, &|_| 1).unwrap();
            let expected = image::open(data("images/photo_1x1.png")).unwrap().to_rgb8();
            assert_eq!(pixels.rgb, expected, "{name}");
        }
    }
}

#[test]
fn what_is_unusual_about_an_archive_is_told() {
    let lines = |name: &str| {
        let found = find_images(&[data("tars").join(name)]).unwrap();
        let lines = found.left_out.iter().flat_map(|left_out| left_out.lines());
        lines.collect::<Vec<_>>().join("\n")
    };
    assert!(lines("gnu.tar").contains("2 images are links, which are left out"));
    assert!(lines("sparse.tar").contains("2 images are stored without their holes"));
    assert!(lines("joined.tar").contains("bytes after the end of the archive are not read"));
    let twice = lines("twice.tar");
    assert!(
        twice.contains("1 image is left out, because a later one has its name"),
        "{twice}"
    );
    assert!(twice.contains("no mark of its end"), "{twice}");
    assert_eq!(lines("samples.tar"), "");
    // The later one counts, as in unpacking.
    let images = find_images(&[data("tars/twice.tar")]).unwrap().images;
    let names: Vec<_> = images
        .iter()
        .map(|image| image.path().file_name().unwrap())
        .collect();
    assert_eq!(names, ["b.png", "a.png"]);
    // A folder of archives.
    let place = Place::new();
    pack(&place, "s/0.tar", "photos");
    let error = found(&place.path("s")).unwrap_err();
    assert!(error.contains("no image, but 1 tar archive; '"), "{error}");
    assert!(error.contains("s/*.tar' reads them"), "{error}");
    fs::copy(data("images/photo.png"), place.path("s/a.png")).unwrap();
    let left_out = find_images(&[place.path("s")]).unwrap().left_out;
    assert!(left_out[0].lines()[0].contains("1 tar archive is not read"));
}

#[test]
fn classes_are_beside_the_images() {
    let place = Place::new();
    let archive = data("tars/samples.tar").display().to_string();
    let line = format!("--input {archive} --truth shards --json t.json");
    let stdout = place.run(&line);
    let images = json(&place, "t.json");
    let images = images["images"].as_array().unwrap();
    let truths: Vec<i64> = images
        .iter()
        .map(|image| image["truth"]["id"].as_i64().unwrap())
        .collect();
    assert_eq!(truths, [3, 4, 5, 6]);
    for (line, truth) in stdout.lines().zip(truths) {
        let columns: Vec<&str> = line.split('\t').collect();
        assert_eq!(columns.len(), 1 + 3 + 1, "{line}");
        assert_eq!(columns[4], format!("truth: class {truth}"));
    }
    // Without true classes a line has no such column.
    let stdout = place.run(&format!("--quiet --input {archive}"));
    assert!(stdout.lines().all(|line| line.split('\t').count() == 4));
    // An image without a class, and one in no archive.
    fs::write(place.path("0.cls"), "1").unwrap();
    fs::copy(data("images/photo.png"), place.path("0.png")).unwrap();
    pack(&place, "some.tar", "0.png 0.cls -C photos a.png");
    let line = format!(
        "{} --input some.tar photos/b.png --truth shards",
        tiny("tiny_vgg_traced")
    );
    let (stdout, stderr) = place.succeed(&line);
    assert!(
        stderr.contains("there is no true class of 2 of 3 images, the first: photos/b.png"),
        "{stderr}"
    );
    let counts: Vec<usize> = stdout
        .lines()
        .map(|line| line.split('\t').count())
        .collect();
    assert_eq!(counts, [4, 5, 4]);
}

#[test]
fn a_class_that_replaces_an_earlier_one_is_told() {
    let photo = fs::read(data("images/photo.png")).unwrap();
    let place = Place::bare();
    let lines = |name: &str, members: &[(&[u8], &[u8])]| {
        fs::write(place.path(name), archive(members)).unwrap();
        let found = find_images(&[place.path(name)]).unwrap();
        let lines = found.left_out.iter().flat_map(|left_out| left_out.lines());
        lines.collect::<Vec<_>>().join("\n")
    };
    let twice = lines(
        "twice.tar",
        &[(b"a.png", &photo), (b"a.cls", b"1"), (b"a.cls", b"2")],
    );
    assert!(
        twice.contains("1 file with a class is left out, because a later one has its name"),
        "{twice}"
    );
    assert!(twice.ends_with("twice.tar/a.cls"), "{twice}");
    let both = lines(
        "both.tar",
        &[(b"a.json", b"{}"), (b"a.png", &photo), (b"a.cls", b"1")],
    );
    assert_eq!(both, "");
}

/// A header of ustar.
fn header(name: &[u8], kind: u8, length: &[u8]) -> Vec<u8> {
    let mut header = vec![0; 512];
    header[..name.len()].copy_from_slice(name);
    header[124..124 + length.len()].copy_from_slice(length);
    header[148..156].fill(b' ');
    header[156] = kind;
    header[257..263].copy_from_slice(b"ustar\0");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

/// An archive of members with these contents.
fn archive(members: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, content) in members {
        bytes.extend(header(
            name,
            b'0',
            format!("{:011o}", content.len()).as_bytes(),
        ));
        bytes.extend(*content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.extend([0; 1024]);
    bytes
}

#[test]
fn bad_archives_are_refused_in_one_line() {
    let photo = fs::read(data("images/photo.png")).unwrap();
    let good = archive(&[(b"a.png", &photo), (b"b.png", &photo)]);
    let second = 512 + photo.len().next_multiple_of(512);
    let mut damaged = good.clone();
    damaged[second] ^= 1;
    let huge = [0x80, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0];
    let files: Vec<(&str, Vec<u8>)> = vec![
        ("good.tar", good.clone()),
        ("empty.tar", vec![]),
        ("none.tar", vec![0; 10_240]),
        ("text.tar", b"some text".repeat(100)),
        ("short.tar", b"some text".to_vec()),
        ("photo.tar", photo.clone()),
        ("zipped.tar", [&b"\x1f\x8b\x08"[..], &[0; 600]].concat()),
        ("x.tar.gz", good.clone()),
        ("x.TGZ", good.clone()),
        ("x.tar.zst", good.clone()),
        ("renamed", good.clone()),
        ("renamed.jpg", good.clone()),
        ("cut.tar", good[..second + 600].to_vec()),
        ("damaged.tar", damaged),
        (
            "huge.tar",
            [header(b"a.png", b'0', &huge), vec![0; 1024]].concat(),
        ),
        (
            "notes.tar",
            archive(&[(b"a.txt", b"x"), (b"._a.png", b"x")]),
        ),
        ("heic.tar", archive(&[(b"a.heic", b"\0\0\0\x14ftypheic")])),
        (
            "bad.tar",
            archive(&[(b"a.png", &photo), (b"b.png", b"x"), (b"c.png", &photo)]),
        ),
        ("hollow.tar", archive(&[(b"a.png", b"")])),
        (
            "cutimage.tar",
            archive(&[(b"a.png", &photo[..photo.len() / 2]), (b"b.png", &photo)]),
        ),
        ("line.tar", archive(&[(b"a\nb.png", b"x")])),
        ("latin.tar", archive(&[(b"caf\xe9.png", b"x")])),
        (
            "up.tar",
            archive(&[(b"/../../etc/a.png", &photo), (b"", &photo)]),
        ),
        (
            "odd.tar",
            archive(&[(b"a.png", &photo), (b"a.cls", b"cat or dog")]),
        ),
        (
            "many.tar",
            archive(&[(b"a.png", &photo), (b"a.cls", b"10")]),
        ),
        (
            "json.tar",
            archive(&[(b"a.png", &photo), (b"a.json", b"{")]),
        ),
        (
            "void.tar",
            archive(&[(b"a.png", &photo), (b"a.json", b"{}")]),
        ),
    ];
    let base = "--image-size 64 --model";
    let table = "
        good.tar => 0
        renamed => 0
        up.tar => 0
        renamed.jpg => 1: renamed.jpg | a tar archive
        missing{0..3}.tar => 1: missing0.tar | no such file
        {0..9999999}.tar => 2: the braces stand for too many names
        empty.tar => 1: empty.tar: the file is empty
        none.tar => 1: the archive none.tar holds no image
        text.tar => 1: text.tar: it is no tar archive
        short.tar => 1: short.tar: the archive is cut short
        photo.tar => 1: photo.tar: it is no tar archive
        zipped.tar => 1: zipped.tar: this is a gzip archive
        x.tar.gz => 1: x.tar.gz: a compressed archive is not read | gunzip
        x.TGZ => 1: x.TGZ: a compressed archive is not read | gunzip
        x.tar.zst => 1: x.tar.zst | unzstd
        cut.tar => 1: cut.tar: the archive is cut short: b.png
        damaged.tar => 1: damaged.tar: the header at byte | is damaged
        huge.tar => 1: huge.tar: the archive is cut short: a.png | 1152921504606846976 bytes
        notes.tar => 1: the archive notes.tar holds no image
        heic.tar => 1: the archive heic.tar holds no image that can be read, but 1 HEIC
        bad.tar => 1: cannot read the image bad.tar/b.png
        hollow.tar => 1: hollow.tar/a.png: the file is empty
        cutimage.tar => 1: cannot read the image cutimage.tar/a.png: the file is cut short
        line.tar => 1: line.tar/a\\nb.png
        latin.tar => 1: latin.tar/caf
        none.tar good.tar => 0: warning: the archive none.tar holds no image
        cut.tar --skip-bad-images => 0: warning: left out: cut.tar: the archive is cut short
        empty.tar good.tar --skip-bad-images => 0: warning: left out: empty.tar
        empty.tar --skip-bad-images => 1: none of the images can be read | warning: left out: empty.tar
        bad.tar --skip-bad-images => 0: warning: left out: cannot read the image bad.tar/b.png
        good.tar --truth shards => 1: good.tar/a.png | class beside it
        photos --truth shards => 2: no image lies in a tar archive | --truth FILE.csv
        odd.tar --truth shards => 2: odd.tar/a.png | names of this network are not known
        many.tar --truth shards => 2: many.tar/a.png | no class 10
        json.tar --truth shards => 1: json.tar/a.png: the .json beside it
        void.tar --truth shards => 1: void.tar/a.png | class beside it
    ";
    let mut failed = Vec::new();
    for row in table.lines().map(str::trim).filter(|row| !row.is_empty()) {
        let (words, ending) = row.split_once(" => ").unwrap();
        let (status, parts) = ending.split_once(": ").unwrap_or((ending, ""));
        let parts: Vec<&str> = parts.split(" | ").filter(|part| !part.is_empty()).collect();
        let checked = std::panic::catch_unwind(|| {
            let place = Place::new();
            for (name, bytes) in &files {
                fs::write(place.path(name), bytes).unwrap();
            }
            let mut command = place.prism();
            command
                .args(base.split(' '))
                .arg(data("networks/tiny_vgg_traced.pt"));
            command.arg("--input").args(words.split(' '));
            place.expect(command, status.parse().unwrap(), &parts);
        });
        if let Err(panic) = checked {
            failed.push(format!("{row}\n{:?}", panic.downcast_ref::<String>()));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

#[test]
fn an_archive_of_many_members_is_listed_at_once() {
    let place = Place::bare();
    let file = fs::File::create(place.path("many.tar")).unwrap();
    let mut out = std::io::BufWriter::new(file);
    for number in 0..100_000 {
        let name = format!("{number:06}.png");
        out.write_all(&header(name.as_bytes(), b'0', b"00000000001"))
            .unwrap();
        out.write_all(&[b'x'; 512]).unwrap();
    }
    out.write_all(&[0; 1024]).unwrap();
    drop(out);
    let started = Instant::now();
    let names = found(&place.path("many.tar")).unwrap();
    println!("{:?}", started.elapsed());
    assert!(started.elapsed().as_secs() < 10);
    assert_eq!(names.len(), 100_000);
    assert!(names[77_777].ends_with("many.tar/077777.png"));
}

/// An image of the run has bad pixels, later ones have bad headers: headers come first.
#[test]
fn headers_are_checked_while_images_are_read() {
    let place = Place::with_images(200);
    fs::write(place.path("photos/150.png"), "no image").unwrap();
    fs::write(place.path("photos/160.png"), "no image").unwrap();
    let photo = fs::read(data("images/photo.png")).unwrap();
    fs::write(place.path("photos/070.png"), &photo[..photo.len() / 2]).unwrap();
    let run = |words: &str| {
        let mut command = place.prism();
        command.args(tiny("tiny_vgg_traced").split(' '));
        command.args(words.split(' '));
        command
    };
    let quiet = run("--quiet --input photos");
    place.expect(quiet, 1, &["photos/150.png", "no known image format"]);
    let save = "--input photos --save-arrays";
    let (_, stderr) = place.succeed(&format!(
        "{} {save} a.npz --skip-bad-images",
        tiny("tiny_vgg_traced")
    ));
    let left_out: Vec<&str> = stderr
        .lines()
        .filter(|line| line.contains("left out"))
        .collect();
    assert_eq!(left_out.len(), 3, "{stderr}");
    for (line, name) in left_out.iter().zip(["070.png", "150.png", "160.png"]) {
        assert!(line.contains(name), "{line}");
    }
    // What is left out changes nothing else.
    for name in ["070", "150", "160"] {
        fs::remove_file(place.path(&format!("photos/{name}.png"))).unwrap();
    }
    place.run(&format!("--quiet {save} b.npz"));
    let [a, b] = ["a.npz", "b.npz"].map(|name| Npz::open(place.path(name)));
    for array in ["input", "logits"] {
        let same = a
            .tensor(array)
            .allclose(&b.tensor(array), 1e-6, 1e-6, false);
        assert!(same, "{array}");
    }
}
