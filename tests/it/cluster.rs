//! Cluster files, as Python's pickle module writes and reads them.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use prism::internals::{Row, pickle};

fn folder(name: &str) -> PathBuf {
    crate::common::data("clusters").join(name)
}

/// Names and contents of the files that tests/reference/make_clusters.py made.
fn files(kind: &str) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder(kind)).unwrap();
    let mut files: Vec<(String, Vec<u8>)> = entries
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, fs::read(path).unwrap())
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no {kind} files");
    files
}

fn row(path: &str, class: usize, features: &[u8]) -> Row {
    Row {
        path: path.into(),
        class,
        features: features.iter().map(|bit| *bit == 1).collect(),
    }
}

/// The rows that all good files denote.
fn expected() -> Vec<Row> {
    let json = fs::read_to_string(folder("rows.json")).unwrap();
    let rows: Vec<(String, usize, Vec<u8>)> = serde_json::from_str(&json).unwrap();
    rows.iter()
        .map(|(path, class, features)| row(path, *class, features))
        .collect()
}

fn refusal(data: &[u8]) -> String {
    format!("{:#}", pickle::read(data).unwrap_err())
}

#[test]
fn every_protocol_and_pickler_is_read() {
    let expected = expected();
    let files = files("good");
    for protocol in 0..=4 {
        for pickler in ["c", "python", "optimized", "shared"] {
            let name = format!("{pickler}_protocol{protocol}");
            assert!(files.iter().any(|(file, _)| *file == name), "{name}");
        }
    }
    for (name, data) in files {
        let rows = pickle::read(data.as_slice()).unwrap_or_else(|e| panic!("{name}: {e:#}"));
        assert_eq!(rows, expected, "{name}");
    }
    for (name, data) in self::files("python2") {
        let rows = pickle::read(data.as_slice()).unwrap_or_else(|e| panic!("{name}: {e:#}"));
        assert_eq!(rows, [row("it's \\ a \"cat\"\n", 3, &[1, 0])], "{name}");
    }
}

#[test]
fn anything_else_is_one_line_of_error() {
    for (name, data) in files("bad") {
        match pickle::read(data.as_slice()) {
            Ok(rows) => panic!("{name} was read as {rows:?}"),
            Err(error) => {
                let line = format!("{error:#}");
                assert!(!line.contains('\n') && line.len() < 200, "{name}: {line}");
            }
        }
    }
}

#[test]
fn errors_say_what_is_wrong() {
    for (name, part) in [
        ("protocol5", "protocol is 5"),
        ("empty_file", "empty"),
        ("empty_list", "list of images is empty"),
        ("reduce_and_pop", "Python code"),
        ("dictionary", "a dictionary"),
        ("class_as_float", "floating-point"),
        ("class_true", "truth value"),
        ("class_negative", "class -1"),
        ("feature_two", "feature 2 of image 1 is 2"),
        ("features_28", "28 features"),
        ("lengths_differ", "image 2 has 1 features"),
        ("cyclic_2", "item 2 of the list is a list"),
        ("trailing_bytes", "goes on"),
        ("truncated", "in the middle"),
        ("not_utf8", "UTF-8"),
    ] {
        let line = refusal(&fs::read(folder("bad").join(format!("{name}.bin"))).unwrap());
        assert!(line.contains(part), "{name}: {line}");
    }
}

#[test]
fn a_damaged_file_never_panics_nor_passes_when_cut() {
    for (name, data) in files("good") {
        for length in 0..data.len() {
            assert!(
                pickle::read(&data[..length]).is_err(),
                "{name} cut at {length}"
            );
        }
        for at in 0..data.len() {
            for value in [
                0, 1, b'.', b'(', b'2', b'a', b'e', b'h', b'l', 0x7f, 0x94, 0xff,
            ] {
                let mut damaged = data.clone();
                damaged[at] = value;
                if let Ok(rows) = pickle::read(damaged.as_slice()) {
                    assert!(
                        rows.iter()
                            .all(|row| (1..=27).contains(&row.features.len()))
                    );
                }
            }
        }
    }
}

/// What overflowed the stack or took gigabytes elsewhere.
#[test]
fn hostile_sizes_are_refused_or_read_in_their_own_size() {
    let good = fs::read(folder("good/c_protocol4.bin")).unwrap();
    let nested = [b"]".repeat(1_000_000), b"a".repeat(999_999)].concat();
    assert!(refusal(&[nested.as_slice(), b"."].concat()).contains("item 1"));
    // The same, dropped, before a good list.
    let dropped = [nested.as_slice(), b"0", &good].concat();
    assert_eq!(pickle::read(dropped.as_slice()).unwrap(), expected());
    let doubled = [b"]".as_slice(), &b"2(h\0tl".repeat(40), b"."].concat();
    refusal(&doubled);
    let lists = [b"](K\x01e".as_slice(), &b"2](2l".repeat(1000), b"."].concat();
    refusal(&lists);
    refusal(&b"(".repeat(1_000_000));
    // A long list, shared by many rows.
    let long = [b"]q\0(".as_slice(), &b"K\x01".repeat(100_000), b"e0]("].concat();
    let shared = [long.as_slice(), &b"Va\nK\x01h\0\x87".repeat(10_000), b"e."].concat();
    assert!(refusal(&shared).contains("100000 features"));
    // One row of a long path, many times: the path is there once.
    let path = "p".repeat(1 << 20);
    let one = [
        b"](X\0\0\x10\0".as_slice(),
        path.as_bytes(),
        b"K\x01](K\0e\x87q\0",
    ]
    .concat();
    let many = [one.as_slice(), &b"h\0".repeat(100_000), b"e."].concat();
    let rows = pickle::read(many.as_slice()).unwrap();
    assert_eq!(rows.len(), 100_001);
    assert_eq!(rows[100_000], row(&path, 1, &[0]));
    // More of everything than two million images have.
    for repeated in [b"]".as_slice(), b"V\n", b"]\x94"] {
        let line = refusal(&repeated.repeat(7_000_000));
        assert!(line.contains("more values"), "{line}");
    }
    // A file without an end.
    let endless = std::io::BufReader::new(std::io::repeat(b'V'));
    let line = format!("{:#}", pickle::read(endless).unwrap_err());
    assert!(line.contains("more than 1048576 bytes"), "{line}");
}

#[test]
fn what_is_written_is_read_back() {
    let rows = expected();
    let mut data = Vec::new();
    pickle::write(&rows, &mut data).unwrap();
    assert_eq!(pickle::read(data.as_slice()).unwrap(), rows);
}

#[test]
fn what_would_not_be_read_is_not_written() {
    for rows in [
        vec![],
        vec![row("a", 1, &[])],
        vec![row("a", 1, &[1; 28])],
        vec![row("a", 1, &[1, 0]), row("b", 1, &[1])],
        vec![row("a", 1 << 31, &[1])],
        vec![row(&"a".repeat((1 << 20) + 1), 1, &[1])],
    ] {
        let mut data = Vec::new();
        assert!(pickle::write(&rows, &mut data).is_err(), "{}", rows.len());
        assert!(data.is_empty());
    }
}

/// Python is what sets the project up, so it is there.
#[test]
fn python_reads_what_is_written() {
    const SCRIPT: &str = "
import json, pickle, pickletools, sys
data = open(sys.argv[1], 'rb').read()
protocols = {arg for op, arg, _ in pickletools.genops(data) if op.name == 'PROTO'}
assert protocols and max(protocols) <= 4, protocols
pickletools.dis(data, out=open(sys.argv[1] + '.txt', 'w'))
for rows in (pickle.loads(data), pickle._loads(data)):
    assert type(rows) is list
    for path, label, bits in rows:
        assert type(path) is str and type(label) is int and type(bits) is list
        assert all(type(bit) is int for bit in bits)
print(json.dumps(rows))
";
    let mut many = expected();
    many.extend((0..3000).map(|i| row(&format!("{i}.jpg"), i, &[1, (i % 2) as u8, 0, 1])));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("2cluster.bin");
    let mut file = fs::File::create(&path).unwrap();
    pickle::write(&many, &mut file).unwrap();
    drop(file);
    let python = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
    let output = Command::new(&python)
        .args(["-c", SCRIPT])
        .arg(&path)
        .output()
        .unwrap_or_else(|e| panic!("{}: {e}", python.display()));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let read: Vec<(String, usize, Vec<u8>)> = serde_json::from_slice(&output.stdout).unwrap();
    let read: Vec<Row> = read
        .iter()
        .map(|(path, class, features)| row(path, *class, features))
        .collect();
    assert_eq!(read, many);
}
