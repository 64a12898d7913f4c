//! A temporary folder in which the binary runs as a user runs it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use assert_cmd::assert::OutputAssertExt;
use tempfile::TempDir;

use super::data;

/// The longest line on stderr, in bytes, without quoted arguments of more than 200 bytes.
const LONGEST_LINE: usize = 300;

/// The path of a tiny network.
pub fn network(name: &str) -> String {
    let file = data("networks").join(format!("{name}.pt"));
    file.display().to_string()
}

/// The options for a tiny network.
pub fn tiny(name: &str) -> String {
    format!("--model {} --image-size 64", network(name))
}

/// A folder to run in.
pub struct Place {
    pub root: TempDir,
    /// The home folder of each run, which holds no weights.
    pub empty: TempDir,
}

impl Place {
    /// With three small photographs in `photos/`.
    pub fn new() -> Place {
        let place = Place::bare();
        fs::create_dir(place.path("photos")).unwrap();
        for (from, to) in [
            ("photo_33x21.png", "b.png"),
            ("photo.png", "a.png"),
            ("plain.jpg", "c.jpg"),
        ] {
            let from = data("images").join(from);
            fs::copy(from, place.path("photos").join(to)).unwrap();
        }
        place
    }

    /// With this number of different 8x8 images in `photos/`.
    pub fn with_images(count: u8) -> Place {
        let place = Place::bare();
        fs::create_dir(place.path("photos")).unwrap();
        for index in 0..count {
            let colour = |x, y| image::Rgb([x as u8 * 30, y as u8 * 30, index]);
            let file = place.path(&format!("photos/{index:03}.png"));
            image::RgbImage::from_fn(8, 8, colour).save(file).unwrap();
        }
        place
    }

    pub fn bare() -> Place {
        Place {
            root: TempDir::new().unwrap(),
            empty: TempDir::new().unwrap(),
        }
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    pub fn prism(&self) -> Command {
        self.prism_after(&[])
    }

    /// The binary, started by a command that precedes it, such as `env`.
    pub fn prism_after(&self, words: &[&str]) -> Command {
        let words = [words, &[env!("CARGO_BIN_EXE_prism")]].concat();
        let mut prism = Command::new(words[0]);
        prism.args(&words[1..]);
        let joint = ["RANK", "WORLD_SIZE", "SLURM_PROCID"];
        let own = ["PRISM_MODELS", "PRISM_WEIGHTS_URL", "XDG_CACHE_HOME"];
        for variable in joint.into_iter().chain(own) {
            prism.env_remove(variable);
        }
        prism
            .current_dir(self.root.path())
            .stdin(Stdio::null())
            .env("RUST_BACKTRACE", "1")
            .env("PRISM_OFFLINE", "1")
            .env("HOME", self.empty.path())
            .env("XDG_DATA_HOME", self.empty.path())
            .env("TORCH_HOME", self.empty.path());
        prism
    }

    /// Runs with the words of `line`.
    pub fn try_run(&self, line: &str) -> Output {
        self.prism().args(line.split_whitespace()).output().unwrap()
    }

    /// Runs with the words of `line` and must succeed; returns stdout and stderr.
    pub fn succeed(&self, line: &str) -> (String, String) {
        let output = self.try_run(line).assert().success().get_output().clone();
        let [stdout, stderr] = [output.stdout, output.stderr].map(String::from_utf8);
        (stdout.unwrap(), stderr.unwrap())
    }

    /// Runs a tiny network with the words of `line` and must succeed; returns stdout.
    pub fn run(&self, line: &str) -> String {
        self.succeed(&format!("{} {line}", tiny("tiny_vgg_traced")))
            .0
    }

    /// The paths at the starts of the lines that a run prints.
    pub fn seen(&self, inputs: &str) -> Vec<String> {
        let lines = self.run(&format!("--quiet --input {inputs}"));
        let first = |line: &str| line.split('\t').next().unwrap().to_string();
        lines.lines().map(first).collect()
    }

    /// The names in a folder, sorted.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).unwrap();
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let mut names: Vec<String> = entries
            .map(|entry| name(entry).into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Every file and folder below this one, with the sizes of the files.
    pub fn listing(&self) -> BTreeMap<PathBuf, u64> {
        let mut found = BTreeMap::new();
        let mut open = vec![self.root.path().to_path_buf()];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let about = fs::symlink_metadata(&path).unwrap();
                found.insert(path.clone(), if about.is_file() { about.len() } else { 0 });
                if about.is_dir() {
                    open.push(path);
                }
            }
        }
        found
    }

    /// Runs a command and checks its exit status and stderr. `parts` are texts of the error line,
    /// or of any line if the status is 0; parts that begin with "warning: " or "downloading " are
    /// of lines before the error. A refused command prints nothing on stdout and changes no file; a
    /// successful one leaves no temporary file, and two figures if it has an input.
    pub fn expect(&self, mut command: Command, status: i32, parts: &[&str]) {
        let before = self.listing();
        let output = command.output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        let arguments: Vec<_> = command.get_args().collect();
        let what = format!("{arguments:?}\n{stderr}");
        assert_eq!(output.status.code(), Some(status), "{what}");
        let lines: Vec<&str> = stderr.lines().collect();
        for line in &lines {
            assert!(line.starts_with("prism: "), "{what}");
            let quoted = arguments.iter().filter(|word| word.len() > 200);
            let quoted = quoted.map(|word| word.len()).max().unwrap_or(0);
            let length = line.len().saturating_sub(quoted);
            assert!(length <= LONGEST_LINE, "a line of {length} bytes: {what}");
        }
        let after = self.listing();
        let notices = ["warning: ", "downloading "];
        let is_notice = |part: &&&str| notices.iter().any(|start| part.starts_with(start));
        let (notices, errors): (Vec<&str>, Vec<&str>) = parts.iter().partition(is_notice);
        let error = match status {
            0 => &stderr,
            _ => lines.last().copied().unwrap_or_default(),
        };
        for (parts, text) in [(&notices, stderr.as_str()), (&errors, error)] {
            for part in parts {
                assert!(text.contains(part), "no '{part}' in {what}");
            }
        }
        assert_shows_no_internals(&stderr);
        if status != 0 {
            assert_one_error(&stderr);
            assert_eq!(lines.len(), 1 + notices.len(), "{what}");
            assert!(output.stdout.is_empty(), "{what}");
            assert_eq!(after, before, "{what}");
            return;
        }
        assert!(!stderr.contains("error: "), "{what}");
        let count = |folder: &str, part: &str| {
            let below = after
                .keys()
                .filter(|path| path.starts_with(self.path(folder)));
            let name = |path: &&PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
            below.filter(|path| name(path).contains(part)).count()
        };
        assert_eq!(count(".", ".part"), 0, "{what}");
        let draws = arguments.iter().any(|word| *word == "--input");
        assert!(!draws || count("results", "PRISM_") >= 2, "{what}");
    }
}

/// stderr ends in its only error, on one line, and shows no internals.
pub fn assert_one_error(stderr: &str) {
    let is_error = |line: &&str| line.starts_with("prism: error: ");
    assert_eq!(stderr.lines().filter(is_error).count(), 1, "{stderr}");
    let last = stderr.lines().last().unwrap_or_default();
    assert!(is_error(&last) && last.len() > 25, "{stderr}");
    assert_shows_no_internals(stderr);
}

pub fn assert_shows_no_internals(stderr: &str) {
    for internal in [
        "panicked",
        "failed within",
        "backtrace",
        "Traceback",
        "Exception raised",
        ".cpp",
        "unwrap",
        "std::",
        "c10::",
        "at::",
        "libtorch_",
        "Facebook",
        "report a bug",
        "\x1b",
        "\r",
    ] {
        assert!(!stderr.contains(internal), "{internal:?} in {stderr}");
    }
}
