//! Files of arrays: `ndarray-npy` and `safetensors` read the files that prism writes, and prism
//! reads theirs and NumPy's (`tests/reference/make_arrays.py`).

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use ndarray::{Array1, Array4, ArrayD};
use ndarray_npy::NpzReader;
use prism::arrays::{ArrayFormat, ArrayWriter, read_input};
use prism::internals::Usage;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use tch::{Kind, Tensor};
use tempfile::TempDir;

const FORMATS: [ArrayFormat; 2] = [ArrayFormat::Npz, ArrayFormat::Safetensors];

fn data(name: &str) -> PathBuf {
    crate::common::data("arrays").join(name)
}

/// The value at a position of every `input` in the data.
fn value((n, c, h, w): (usize, usize, usize, usize)) -> f32 {
    n as f32 + c as f32 / 4.0 + h as f32 / 16.0 + w as f32 / 64.0
}

fn input() -> Array4<f32> {
    Array4::from_shape_fn((2, 3, 4, 5), value)
}

fn layout(arrays: &[(&str, &[usize])]) -> Vec<(String, Vec<usize>)> {
    let arrays = arrays
        .iter()
        .map(|(n, shape)| (n.to_string(), shape.to_vec()));
    arrays.collect()
}

/// The error of a file, which is one line.
fn complaint<T>(result: anyhow::Result<T>) -> String {
    let error = result.err().expect("an error");
    let line = format!("{error:#}");
    assert!(!line.contains('\n'), "{line}");
    line
}

/// Three arrays: the first is written in pieces, the second is empty.
fn written(format: ArrayFormat) -> Vec<u8> {
    let files = [
        PathBuf::from("./a \"b\".jpg"),
        PathBuf::from("kätzchen.jpg"),
        PathBuf::from(OsStr::from_bytes(b"caf\xe9.jpg")),
    ];
    let layout = layout(&[
        ("input", &[2, 3, 4, 5]),
        ("none", &[0, 3]),
        ("variance_ratio", &[5]),
    ]);
    let mut writer = ArrayWriter::create(Cursor::new(vec![]), format, &layout, &files).unwrap();
    let open = writer.array("input").unwrap();
    for row in input().rows() {
        open.write(row.as_slice().unwrap()).unwrap();
    }
    writer.array("none").unwrap().write(&[]).unwrap();
    let open = writer.array("variance_ratio").unwrap();
    open.write(&[0.5, f32::NAN, f32::MIN_POSITIVE, -0.0, f32::MAX])
        .unwrap();
    writer.finish().unwrap().into_inner()
}

fn assert_ratios(ratios: &[f32]) {
    assert!(ratios[1].is_nan());
    let others = [ratios[0], ratios[2], ratios[3], ratios[4]];
    assert_eq!(others, [0.5, f32::MIN_POSITIVE, 0.0, f32::MAX]);
    assert!(ratios[3].is_sign_negative());
}

fn assert_files(json: &str) {
    let files: Vec<String> = serde_json::from_str(json).unwrap();
    assert_eq!(files, ["./a \"b\".jpg", "kätzchen.jpg", "caf\u{fffd}.jpg"]);
}

#[test]
fn an_npz_file_is_read_by_ndarray_npy() {
    let mut npz = NpzReader::new(Cursor::new(written(ArrayFormat::Npz))).unwrap();
    let names = ["files", "input", "none", "variance_ratio"];
    assert_eq!(npz.names().unwrap(), names);
    let read: Array4<f32> = npz.by_name("input.npy").unwrap();
    assert_eq!(read, input());
    let none: ArrayD<f32> = npz.by_name("none.npy").unwrap();
    assert_eq!(none.shape(), [0, 3]);
    let ratios: Array1<f32> = npz.by_name("variance_ratio.npy").unwrap();
    assert_ratios(ratios.as_slice().unwrap());
    let files: Array1<u8> = npz.by_name("files.npy").unwrap();
    assert_files(std::str::from_utf8(files.as_slice().unwrap()).unwrap());
}

#[test]
fn a_safetensors_file_is_read_by_safetensors() {
    let bytes = written(ArrayFormat::Safetensors);
    let (header, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(header % 8, 0);
    assert_files(&metadata.metadata().as_ref().unwrap()["files"]);
    assert_eq!(metadata.offset_keys(), ["input", "none", "variance_ratio"]);
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let floats = |name| -> Vec<f32> {
        let tensor = tensors.tensor(name).unwrap();
        assert_eq!(tensor.dtype(), Dtype::F32);
        let data = tensor.data().as_chunks().0;
        data.iter().map(|&b| f32::from_le_bytes(b)).collect()
    };
    assert_eq!(tensors.tensor("input").unwrap().shape(), [2, 3, 4, 5]);
    assert_eq!(floats("input"), input().into_raw_vec_and_offset().0);
    assert_eq!(tensors.tensor("none").unwrap().shape(), [0, 3]);
    assert_ratios(&floats("variance_ratio"));
}

#[test]
fn files_of_numpy_are_read() {
    for name in [
        "plain",
        "compressed",
        "fortran",
        "big_endian",
        "float64",
        "float16",
        "float16_big_endian",
    ] {
        let read = read_input(&data(&format!("{name}.npz"))).unwrap();
        assert_eq!(read, input(), "{name}");
        assert!(read.is_standard_layout(), "{name}");
    }
}

#[test]
fn files_of_safetensors_are_read() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.safetensors");
    let values = input();
    let singles: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let doubles: Vec<u8> = values
        .iter()
        .flat_map(|&v| f64::from(v).to_le_bytes())
        .collect();
    // Exact as float16, whose bytes libtorch makes.
    let halves = Tensor::try_from(&values).unwrap().to_kind(Kind::Half);
    let mut half_bytes = vec![0; 2 * values.len()];
    halves.copy_data_u8(&mut half_bytes, values.len());
    let view =
        |dtype, shape: &[usize], bytes| TensorView::new(dtype, shape.to_vec(), bytes).unwrap();
    for (dtype, bytes) in [
        (Dtype::F32, &singles),
        (Dtype::F64, &doubles),
        (Dtype::F16, &half_bytes),
    ] {
        let tensors = HashMap::from([
            ("input", view(dtype, &[2, 3, 4, 5], bytes)),
            ("first", view(Dtype::F64, &[1], &[1; 8])),
            ("last", view(Dtype::U8, &[3], &[1; 3])),
        ]);
        fs::write(&path, safetensors::serialize(&tensors, None).unwrap()).unwrap();
        assert_eq!(read_input(&path).unwrap(), values);
    }
}

#[test]
fn a_wrong_input_is_refused_in_one_line() {
    for (name, reason) in [
        ("missing.npz", "no such file"),
        ("no_input.npz", "no array input, but logits, maps"),
        ("uint8.npz", "type |u1"),
        ("object.npz", "type |O"),
        ("fields.npz", "type of several fields"),
        (
            "channels_last.npz",
            "[2, 4, 5, 3], not [N, C, H, W] (the channels",
        ),
        (
            "one_image.npz",
            "[3, 4, 5], not [N, C, H, W] (a single image",
        ),
        ("scalar.npz", "[], not [N, C, H, W]"),
        ("none.npz", "[0, 3, 4, 5], so it holds no pixel"),
        ("not_finite.npz", "input[1, 0, 2, 3] is NaN"),
        ("too_large.npz", "input[1, 2, 0, 1] is inf"),
    ] {
        let line = complaint(read_input(&data(name)));
        assert!(line.contains(reason) && line.contains(name), "{line}");
    }
}

/// A `.npy` file of this header dict, with some data.
fn npz_with(dict: &str, data: &[u8]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(vec![]));
    let stored =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    zip.start_file("input.npy", stored).unwrap();
    zip.write_all(b"\x93NUMPY\x01\x00").unwrap();
    zip.write_all(&(dict.len() as u16).to_le_bytes()).unwrap();
    zip.write_all(dict.as_bytes()).unwrap();
    zip.write_all(data).unwrap();
    zip.finish().unwrap().into_inner()
}

#[test]
fn a_damaged_file_is_an_error() {
    let folder = TempDir::new().unwrap();
    let npz = |shape: &str, bytes: usize| {
        let dict = format!("{{'shape': {shape}, 'fortran_order': False, 'descr': '<f4'}}\n");
        npz_with(&dict, &vec![0; bytes])
    };
    let lying =
        br#"{"input":{"dtype":"F32","shape":[1,3,1,9999999],"data_offsets":[0,119999988]}}"#;
    let lying = [&(lying.len() as u64).to_le_bytes(), lying.as_slice()].concat();
    let mut flipped = written(ArrayFormat::Npz);
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let huge = "(9223372036854775807, 3, 9223372036854775807, 2)";
    let unclosed = npz_with("{'descr': '<f4'", &[0; 8]);
    for (name, bytes, reason) in [
        ("empty.npz", vec![], "no .npz file"),
        ("text.npz", b"hello".to_vec(), "no .npz file"),
        ("huge.npz", npz(huge, 12), "damaged"),
        ("long.npz", npz("(1, 3, 1, 1)", 16), "damaged"),
        ("short.npz", npz("(1, 3, 1, 1)", 8), "damaged"),
        ("axes.npz", npz("(1, -3)", 8), "header is not understood"),
        ("dict.npz", unclosed, "header is not understood"),
        ("flipped.npz", flipped, "damaged"),
        ("empty.safetensors", vec![], "no .safetensors file"),
        (
            "text.safetensors",
            b"hello, world".to_vec(),
            "no .safetensors file",
        ),
        ("lying.safetensors", lying, "damaged"),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let line = complaint(read_input(&path));
        assert!(line.contains(name) && line.contains(reason), "{line}");
    }
    for (format, name) in FORMATS.into_iter().zip(["cut.npz", "cut.safetensors"]) {
        let whole = written(format);
        for length in (0..whole.len()).rev().step_by(3) {
            fs::write(folder.path().join(name), &whole[..length]).unwrap();
            complaint(read_input(&folder.path().join(name)));
        }
    }
}

#[test]
fn another_extension_is_a_usage_error() {
    for name in ["a.txt", "a", "npz", "a.npy"] {
        let error = read_input(Path::new(name)).unwrap_err();
        assert!(error.is::<Usage>(), "{name}");
        assert!(error.to_string().contains(name));
    }
}

#[test]
fn a_wrong_number_of_values_is_an_error() {
    for format in FORMATS {
        let layout = layout(&[("maps", &[2, 2]), ("logits", &[1])]);
        let create = || ArrayWriter::create(Cursor::new(vec![]), format, &layout, &[]).unwrap();

        let mut writer = create();
        let maps = writer.array("maps").unwrap();
        maps.write(&[0.0; 3]).unwrap();
        assert!(complaint(maps.write(&[0.0; 2])).contains("lacks 1"));

        let mut writer = create();
        writer.array("maps").unwrap().write(&[0.0; 3]).unwrap();
        assert!(complaint(writer.array("logits").map(drop)).contains("maps lacks 1"));
        assert!(complaint(writer.finish()).contains("maps lacks 1"));

        let mut writer = create();
        assert!(complaint(writer.array("logits").map(drop)).contains("maps is due"));
        writer.array("maps").unwrap().write(&[0.0; 4]).unwrap();
        assert!(complaint(writer.finish()).contains("logits of shape [1] was not written"));
    }
}

#[test]
fn names_are_distinct_and_not_reserved() {
    for format in FORMATS {
        for names in [
            ["maps", "maps"],
            ["maps", "files"],
            ["__metadata__", "maps"],
        ] {
            let layout = layout(&names.map(|name| (name, &[1_usize][..])));
            let created = ArrayWriter::create(Cursor::new(vec![]), format, &layout, &[]);
            assert!(complaint(created).contains("two arrays would have the name"));
        }
        let layout = layout(&[("maps", &[usize::MAX, 2])]);
        let created = ArrayWriter::create(Cursor::new(vec![]), format, &layout, &[]);
        assert!(complaint(created).contains("is too large"));
    }
}

/// A disk with room for this number of bytes.
struct FullDisk(Cursor<Vec<u8>>, usize);

impl Write for FullDisk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.1.saturating_sub(self.0.position() as usize);
        match room.min(bytes.len()) {
            0 if !bytes.is_empty() => Err(io::ErrorKind::StorageFull.into()),
            room => self.0.write(&bytes[..room]),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for FullDisk {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

#[test]
fn a_full_disk_is_an_error_wherever_it_ends() {
    let layout = layout(&[("maps", &[40_000])]);
    for format in FORMATS {
        let save = |room| -> anyhow::Result<()> {
            let disk = FullDisk(Cursor::new(vec![]), room);
            let mut writer = ArrayWriter::create(disk, format, &layout, &[])?;
            writer.array("maps")?.write(&vec![1.5; 40_000])?;
            writer.finish().map(drop)
        };
        save(1 << 20).unwrap();
        for room in [0, 10, 100, 300, 70_000, 160_000] {
            assert!(complaint(save(room)).contains("no storage space"), "{room}");
        }
    }
}

/// A file that stores small writes and only counts the others.
#[derive(Default)]
struct Counter {
    position: u64,
    end: u64,
    /// Position and bytes of the writes shorter than 4 KiB.
    small: Vec<(u64, Vec<u8>)>,
}

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() < 4096 {
            self.small.push((self.position, bytes.to_vec()));
        }
        self.position += bytes.len() as u64;
        self.end = self.end.max(self.position);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Counter {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = match to {
            SeekFrom::Start(position) => position,
            SeekFrom::Current(by) => self.position.saturating_add_signed(by),
            SeekFrom::End(by) => self.end.saturating_add_signed(by),
        };
        Ok(self.position)
    }
}

impl Read for Counter {
    /// The bytes of the small writes; zeros elsewhere.
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let length = (self.end - self.position).min(bytes.len() as u64) as usize;
        bytes[..length].fill(0);
        for (at, written) in &self.small {
            for (offset, &byte) in written.iter().enumerate() {
                let place = (at + offset as u64).checked_sub(self.position);
                if let Some(place) = place.filter(|&place| place < length as u64) {
                    bytes[place as usize] = byte;
                }
            }
        }
        self.position += length as u64;
        Ok(length)
    }
}

/// Writes 4.6 GB, of which nothing is stored.
#[test]
fn an_array_of_more_than_4_gib_becomes_zip64() {
    let count = (1_usize << 30) + (1 << 26);
    let layout = layout(&[("maps", &[count]), ("logits", &[2])]);
    let mut writer =
        ArrayWriter::create(Counter::default(), ArrayFormat::Npz, &layout, &[]).unwrap();
    let piece = vec![0.0; 1 << 20];
    let maps = writer.array("maps").unwrap();
    for _ in 0..count / piece.len() {
        maps.write(&piece).unwrap();
    }
    writer.array("logits").unwrap().write(&[1.0, 2.0]).unwrap();
    let mut npz = NpzReader::new(writer.finish().unwrap()).unwrap();
    assert_eq!(
        npz.by_name::<ndarray::OwnedRepr<f32>, ndarray::Ix1>("logits.npy")
            .unwrap()
            .to_vec(),
        [1.0, 2.0]
    );
}
