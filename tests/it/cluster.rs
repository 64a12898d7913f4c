//! Cluster files, as Python's pickle module writes and reads them
//! (`tests/reference/make_clusters.py`).

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use prism::internals::{Row, pickle};
use tempfile::NamedTempFile;

fn data(name: &str) -> PathBuf {
    crate::common::data("clusters").join(name)
}

/// Paths of the files of a folder; at least `least`.
fn files(kind: &str, least: usize) -> Vec<PathBuf> {
    let entries = fs::read_dir(data(kind)).unwrap();
    let files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= least, "{kind} has {} files", files.len());
    files
}

fn read(bytes: &[u8]) -> anyhow::Result<Vec<Row>> {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    pickle::read(file.path())
}

fn written(rows: &[Row]) -> Vec<u8> {
    let mut bytes = Vec::new();
    pickle::write(rows, &mut bytes).unwrap();
    bytes
}

fn row(path: &str, class: usize, features: &[u8]) -> Row {
    Row {
        path: path.into(),
        class,
        features: features.iter().map(|bit| *bit == 1).collect(),
        truth: None,
    }
}

fn rows_of(json: &[u8]) -> Vec<Row> {
    let rows: Vec<(String, usize, Vec<u8>)> = serde_json::from_slice(json).unwrap();
    let rows = rows.iter();
    rows.map(|(path, class, bits)| row(path, *class, bits))
        .collect()
}

/// The rows that all good files denote.
fn expected() -> Vec<Row> {
    rows_of(&fs::read(data("rows.json")).unwrap())
}

fn many(count: usize) -> Vec<Row> {
    let bits = |i: usize| -> Vec<u8> { (0..27).map(|bit| (i >> (bit % 16) & 1) as u8).collect() };
    (0..count)
        .map(|i| row(&format!("photographs/image {i}.jpg"), i % 1000, &bits(i)))
        .collect()
}

/// Runs a Python script with a path as its argument; returns its standard output.
fn python(script: &str, path: &Path) -> Vec<u8> {
    let python = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
    let output = Command::new(python)
        .args(["-c", script])
        .arg(path)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    output.stdout
}

#[test]
fn every_protocol_is_read() {
    for file in files("good", 13) {
        let rows = pickle::read(&file).unwrap_or_else(|e| panic!("{}: {e:#}", file.display()));
        assert_eq!(rows, expected(), "{}", file.display());
    }
    // Python 2's texts.
    let python2 = b"\x80\x02]q\x01U\x0fit's \\ a \"cat\"\nq\x02K\x03]q\x03(K\x01K\x00e\x87q\x04a.";
    let rows = read(python2).unwrap();
    assert_eq!(rows, [row("it's \\ a \"cat\"\n", 3, &[1, 0])]);
}

#[test]
fn anything_else_is_refused_in_one_line() {
    let expected = [
        ("empty_file", "empty"),
        ("empty_list", "list of images is empty"),
        ("none", "holds None"),
        ("dictionary", "holds Dict("),
        (
            "zip_object",
            "the Python object builtins.zip, not a list of",
        ),
        (
            "row_of_two",
            "image 1 is List([String(\"cat.jpg\"), Int(281)]), not (path",
        ),
        ("features_as_bytes", "Bytes([0, 1])"),
        ("path_as_bytes", "Bytes([97])"),
        ("class_as_text", "String(\"cat\")"),
        ("class_negative", "Int(-1)"),
        ("class_large", "class 2147483648"),
        ("class_larger", "Unsupported(\"int\")"),
        ("class_true", "Bool(true)"),
        ("features_float", "Float(0.0)"),
        ("feature_two", "Int(2)"),
        ("features_28", "28 features"),
        ("features_none", "0 features"),
        ("lengths_differ", "image 2 has 1 features"),
        ("shared_lists", "image 2 has 0 features"),
        ("cyclic_2", "image 2 is List([])"),
        ("reduce", "is not a pickle"),
        ("truncated", "failed to fill whole buffer"),
        ("text_beyond_end", "cannot be read as"),
        ("not_utf8", "UTF-8"),
    ];
    for (name, part) in expected {
        let file = data("bad").join(format!("{name}.bin"));
        let line = format!("{:#}", pickle::read(&file).unwrap_err());
        assert!(line.contains(part), "{name}: {line}");
        assert!(!line.contains('\n') && line.len() < 200, "{name}: {line}");
    }
    assert_eq!(files("bad", 0).len(), expected.len());
    let line = format!("{:#}", pickle::read(Path::new("/dev/null")).unwrap_err());
    assert!(line.contains("not an ordinary file"), "{line}");
    // An archive could unpack to a thousand times its size.
    assert!(pickle::read(&data("../state_dicts/new.pth")).is_err());
}

#[test]
fn no_cut_file_is_read() {
    for file in files("good", 13) {
        let whole = fs::read(&file).unwrap();
        for length in 0..whole.len() {
            assert!(read(&whole[..length]).is_err(), "{}", file.display());
        }
    }
}

#[test]
fn hostile_files_are_refused_within_bounds() {
    let good = written(&expected());
    let nested = [b"]".repeat(1_000_000), b"a".repeat(999_999)].concat();
    let doubled = [b"]".as_slice(), &b"2\x86".repeat(400), b"."].concat();
    let fetched = [
        b"]q\0(X\0\0\x10\0".as_slice(),
        &b"p".repeat(1 << 20),
        b"q\x01",
        &b"h\x01".repeat(200_000),
        b"e.",
    ]
    .concat();
    let long = [b"]q\0(".as_slice(), &b"K\x01".repeat(100_000), b"eq\x01("].concat();
    let copied = [long.as_slice(), &b"h\x01".repeat(10_000), b"e."].concat();
    for (bytes, part) in [
        ([nested.as_slice(), b"."].concat(), "nesting exceeds 1000"),
        ([nested.as_slice(), b"0", &good].concat(), "nesting exceeds"),
        (doubled, "too many memoised values"),
        (fetched, "too many memoised values"),
        (copied, "too many memoised values"),
    ] {
        let begun = Instant::now();
        let line = format!("{:#}", read(&bytes).unwrap_err());
        assert!(line.contains(part), "{line}");
        println!("{} bytes: {:?}", bytes.len(), begun.elapsed());
        assert!(begun.elapsed().as_secs() < 10, "{line}");
    }
}

#[test]
fn rows_are_read_as_they_were_written() {
    let rows = many(50_000);
    let bytes = written(&rows);
    let begun = Instant::now();
    assert!(read(&bytes).unwrap() == rows);
    println!("{} bytes: {:?}", bytes.len(), begun.elapsed());
}

#[test]
fn rows_that_would_be_refused_are_not_written() {
    for rows in [
        vec![],
        vec![row("a", 1, &[])],
        vec![row("a", 1, &[1; 28])],
        vec![row("a", 1, &[1, 0]), row("b", 1, &[1])],
        vec![row("a", 1 << 31, &[1])],
    ] {
        let mut bytes = Vec::new();
        assert!(pickle::write(&rows, &mut bytes).is_err());
        assert!(bytes.is_empty());
    }
}

#[test]
fn python_reads_and_writes_the_same_rows() {
    const SCRIPT: &str = "
import json, pickle, pickletools, sys
data = open(sys.argv[1], 'rb').read()
pickletools.dis(data, out=open(sys.argv[1] + '.txt', 'w'))
rows = pickle.loads(data)
assert type(rows) is list and all(type(row) is tuple for row in rows)
assert all(type(bit) is int for _, _, bits in rows for bit in bits)
pickle.dump(rows, open(sys.argv[1], 'wb'))
print(json.dumps(rows))
";
    let mut rows = expected();
    rows.extend((0..3000).map(|i| row(&format!("{i}.jpg"), i, &[1, (i % 2) as u8, 0, 1])));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("2cluster.bin");
    fs::write(&path, written(&rows)).unwrap();
    assert_eq!(rows_of(&python(SCRIPT, &path)), rows);
    assert_eq!(pickle::read(&path).unwrap(), rows);
}

#[test]
fn true_classes_are_a_fourth_field_if_any_is_known() {
    let mut rows = vec![row("a.jpg", 3, &[1, 0]), row("b.jpg", 4, &[0, 1])];
    let file = NamedTempFile::new().unwrap();
    let loaded = |rows: &[Row]| -> serde_json::Value {
        fs::write(file.path(), written(rows)).unwrap();
        let script =
            "import json, pickle, sys; print(json.dumps(pickle.load(open(sys.argv[1], 'rb'))))";
        serde_json::from_slice(&python(script, file.path())).unwrap()
    };
    let plain = serde_json::json!([["a.jpg", 3, [1, 0]], ["b.jpg", 4, [0, 1]]]);
    assert_eq!(loaded(&rows), plain);
    rows[0].truth = Some(70_000);
    let with_truth = serde_json::json!([["a.jpg", 3, [1, 0], 70_000], ["b.jpg", 4, [0, 1], null]]);
    assert_eq!(loaded(&rows), with_truth);
    assert_eq!(pickle::read(file.path()).unwrap(), rows);
    let dump = |rows: &str| {
        let script = format!("import pickle, sys; pickle.dump({rows}, open(sys.argv[1], 'wb'))");
        python(&script, file.path());
        pickle::read(file.path())
    };
    let read = dump("[('a', 1, [1], 2), ('b', 1, [0], None), ('c', 0, [1])]").unwrap();
    let truths: Vec<Option<usize>> = read.iter().map(|row| row.truth).collect();
    assert_eq!(truths, [Some(2), None, None]);
    for bad in ["-1", "'x'", "2**31", "[1]", "1, 2"] {
        let error = dump(&format!("[('a', 1, [1], {bad})]")).unwrap_err();
        assert!(format!("{error:#}").contains("image 1"), "{error:#}");
    }
}
