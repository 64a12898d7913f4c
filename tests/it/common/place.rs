//! A folder in which the binary is run as a user runs it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use assert_cmd::assert::OutputAssertExt;
use tempfile::TempDir;

pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

pub fn network(name: &str) -> String {
    repository(&format!("tests/data/networks/{name}.pt"))
        .display()
        .to_string()
}

/// A folder to run in, with three small photographs in `photos/`.
pub struct Place {
    pub root: TempDir,
    /// For weights that nobody has put there.
    pub empty: TempDir,
}

impl Place {
    pub fn new() -> Place {
        let place = Place::bare();
        fs::create_dir(place.path("photos")).unwrap();
        for (from, to) in [
            ("photo_33x21.png", "b.png"),
            ("photo.png", "a.png"),
            ("plain.jpg", "c.jpg"),
        ] {
            let from = repository("tests/data/images").join(from);
            fs::copy(from, place.path("photos").join(to)).unwrap();
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

    /// The binary, started by a command that stands before it, such as `env`.
    pub fn prism_after(&self, words: &[&str]) -> Command {
        let words = [words, &[env!("CARGO_BIN_EXE_prism")]].concat();
        let mut prism = Command::new(words[0]);
        prism.args(&words[1..]);
        for variable in ["PRISM_MODELS", "PRISM_WEIGHTS_URL", "XDG_CACHE_HOME"] {
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

    /// Runs a tiny network on the words of `line`, and must succeed.
    pub fn run(&self, line: &str) -> String {
        let output = self.try_run(&format!("{} {line}", tiny("tiny_vgg_traced")));
        String::from_utf8(output.assert().success().get_output().stdout.clone()).unwrap()
    }

    /// The paths at the starts of the lines that a run prints.
    pub fn seen(&self, inputs: &str) -> Vec<String> {
        let lines = self.run(&format!("--quiet --input {inputs}"));
        let first = |line: &str| line.split('\t').next().unwrap().to_string();
        lines.lines().map(first).collect()
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

    /// A command line that must fail: one line on stderr with all of
    /// `fragments`, nothing on stdout, and nothing left behind.
    pub fn refuses(&self, arguments: &[&str], fragments: &[&str], status: i32) {
        let before = self.listing();
        let output = self.prism().args(arguments).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        let what = format!("prism {}\n{stderr}", arguments.join(" "));
        assert_eq!(output.status.code(), Some(status), "{what}");
        assert_one_error(&stderr, &what);
        assert_eq!(stderr.lines().count(), 1, "{what}");
        for fragment in fragments {
            assert!(stderr.contains(fragment), "no '{fragment}' in {what}");
        }
        assert!(output.stdout.is_empty(), "{what}");
        assert_eq!(self.listing(), before, "{what}");
    }

    /// [`Place::refuses`] for runs of a tiny network on a photograph.
    pub fn refuses_photo(&self, arguments: &[&str], fragments: &[&str], status: i32) {
        let model = network("tiny_vgg_traced");
        let mut all = vec![
            "--input",
            "photos/a.png",
            "--model",
            &model,
            "--image-size",
            "64",
        ];
        all.extend(arguments);
        self.refuses(&all, fragments, status);
    }

    /// [`Place::refuses`] for runs of a tiny network on bad images.
    pub fn refuses_images(&self, images: &[&str], fragments: &[&str]) {
        let model = network("tiny_vgg_traced");
        let mut all = vec!["--model", &model, "--image-size", "64", "--input"];
        all.extend(images);
        self.refuses(&all, fragments, 1);
    }
}

pub fn tiny(name: &str) -> String {
    format!("--model {} --image-size 64", network(name))
}

/// stderr ends in the only error, on its own line, and shows no innards.
pub fn assert_one_error(stderr: &str, what: &str) {
    let errors = stderr
        .lines()
        .filter(|line| line.starts_with("prism: error: "));
    assert_eq!(errors.count(), 1, "{what}");
    let last = stderr.lines().last().unwrap_or_default();
    assert!(
        last.starts_with("prism: error: ") && last.len() > 25,
        "{what}"
    );
    for innards in [
        "panicked",
        "backtrace",
        "Traceback",
        "Exception raised",
        ".cpp",
        "unwrap",
    ] {
        assert!(!stderr.contains(innards), "{what}");
    }
    assert!(!stderr.contains(['\x1b', '\r']), "{what}");
}
