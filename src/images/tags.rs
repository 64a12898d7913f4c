//! Tags of TIFF files. EXIF data in other formats have the same layout (TIFF 6.0, section 2).

use std::collections::BTreeMap;
use std::io::{Cursor, Read, Seek, SeekFrom};

use image::metadata::Orientation;

/// The numbers of the tags that are asked for.
const KIND_OF_PICTURE: u16 = 254;
const PHOTOMETRIC: u16 = 262;
const ORIENTATION: u16 = 274;
const SUB_DIRECTORIES: u16 = 330;
const EXTRA_SAMPLES: u16 = 338;
const DNG_VERSION: u16 = 50706;

/// More entries than the directory of a picture has.
const MOST_ENTRIES: u64 = 4096;

/// The tags of the first picture: for each the first value, if it is a whole number that
/// lies in the directory itself.
#[derive(Debug, Default)]
pub struct Tags(BTreeMap<u16, Option<u64>>);

impl Tags {
    /// Reads the directory of a TIFF or BigTIFF file; none of another or damaged file.
    pub fn of_file(file: &mut (impl Read + Seek)) -> Tags {
        Tags(directory(file).unwrap_or_default())
    }

    /// Reads EXIF data. Some programs keep the prefix that belongs to JPEG files.
    pub fn of_exif(data: &[u8]) -> Tags {
        let data = data.strip_prefix(b"Exif\0\0").unwrap_or(data);
        Tags::of_file(&mut Cursor::new(data))
    }

    /// How the picture must be turned. Programs store this number in different widths,
    /// although EXIF allows SHORT alone.
    pub fn orientation(&self) -> Orientation {
        let stored = self.value(ORIENTATION).and_then(|n| u8::try_from(n).ok());
        let known = stored.and_then(Orientation::from_exif);
        known.unwrap_or(Orientation::NoTransforms)
    }

    /// Whether 0 is white.
    pub fn is_inverted(&self) -> bool {
        self.value(PHOTOMETRIC) == Some(0)
    }

    /// Whether the colours have been multiplied by alpha.
    pub fn is_premultiplied(&self) -> bool {
        self.value(EXTRA_SAMPLES) == Some(1)
    }

    /// Whether the file is of a camera: its first picture is only a preview of another one.
    pub fn is_raw(&self) -> bool {
        let is_preview = self
            .value(KIND_OF_PICTURE)
            .is_some_and(|bits| bits & 1 == 1);
        self.0.contains_key(&DNG_VERSION) || is_preview && self.0.contains_key(&SUB_DIRECTORIES)
    }

    fn value(&self, tag: u16) -> Option<u64> {
        self.0.get(&tag).copied().flatten()
    }
}

fn directory(file: &mut (impl Read + Seek)) -> Option<BTreeMap<u16, Option<u64>>> {
    let mut order = [0; 2];
    file.read_exact(&mut order).ok()?;
    let big_endian = match &order {
        b"II" => false,
        b"MM" => true,
        _ => return None,
    };
    let mut read = |bytes| number(file, bytes, big_endian);
    let (wide, start) = match read(2)? {
        42 => (false, read(4)?),
        43 => {
            read(4)?; // the width of offsets, 8
            (true, read(8)?)
        }
        _ => return None,
    };
    file.seek(SeekFrom::Start(start)).ok()?;
    let (counter, offset) = if wide { (8, 8) } else { (2, 4) };
    let entries = number(file, counter, big_endian)?;
    let mut tags = BTreeMap::new();
    for _ in 0..entries.min(MOST_ENTRIES) {
        let tag = number(file, 2, big_endian)? as u16;
        let kind = number(file, 2, big_endian)?;
        let count = number(file, offset, big_endian)?;
        let mut field = vec![0; offset];
        file.read_exact(&mut field).ok()?;
        let width = match kind {
            1 => 1,       // BYTE
            3 => 2,       // SHORT
            4 | 13 => 4,  // LONG, IFD
            16 | 18 => 8, // LONG8, IFD8
            _ => 0,
        };
        let fits = width > 0 && count > 0 && count.saturating_mul(width) <= offset as u64;
        let value = fits.then(|| joined(&field[..width as usize], big_endian));
        tags.entry(tag).or_insert(value);
    }
    Some(tags)
}

fn number(file: &mut impl Read, bytes: usize, big_endian: bool) -> Option<u64> {
    let mut field = [0; 8];
    file.read_exact(&mut field[..bytes]).ok()?;
    Some(joined(&field[..bytes], big_endian))
}

fn joined(bytes: &[u8], big_endian: bool) -> u64 {
    let shifted = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
    match big_endian {
        true => bytes.iter().fold(0, shifted),
        false => bytes.iter().rev().fold(0, shifted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// EXIF data with the orientation in a field of this type and width.
    fn exif(big_endian: bool, kind: u16, width: usize, value: u8) -> Vec<u8> {
        let two = |n: u16| {
            if big_endian {
                n.to_be_bytes()
            } else {
                n.to_le_bytes()
            }
        };
        let four = |n: u32| {
            if big_endian {
                n.to_be_bytes()
            } else {
                n.to_le_bytes()
            }
        };
        let mut field = [0; 4];
        field[if big_endian { width - 1 } else { 0 }] = value;
        let mut data = if big_endian {
            b"MM".to_vec()
        } else {
            b"II".to_vec()
        };
        data.extend([two(42), two(0)].concat()[..2].to_vec());
        data.extend(four(8));
        data.extend([two(1), two(274), two(kind)].concat());
        data.extend(four(1));
        data.extend(field);
        data.extend(four(0));
        data
    }

    #[test]
    fn an_orientation_of_any_width_and_byte_order_counts() {
        for big_endian in [false, true] {
            for (kind, width) in [(1, 1), (3, 2), (4, 4)] {
                let data = exif(big_endian, kind, width, 6);
                assert_eq!(Tags::of_exif(&data).orientation(), Orientation::Rotate90);
                let prefixed = [b"Exif\0\0", data.as_slice()].concat();
                assert_eq!(
                    Tags::of_exif(&prefixed).orientation(),
                    Orientation::Rotate90
                );
            }
        }
        for (kind, width, value) in [(3, 2, 9), (3, 2, 0), (2, 1, 6)] {
            let data = exif(false, kind, width, value);
            assert_eq!(
                Tags::of_exif(&data).orientation(),
                Orientation::NoTransforms
            );
        }
    }

    #[test]
    fn damaged_tags_are_none() {
        let data = exif(true, 4, 4, 6);
        for length in 0..data.len() - 4 {
            let tags = Tags::of_exif(&data[..length]);
            assert_eq!(tags.orientation(), Orientation::NoTransforms, "{length}");
        }
        let endless = [&b"II*\0\xff\xff\xff\xff"[..], &data].concat();
        assert!(Tags::of_exif(&endless).0.is_empty());
    }
}
