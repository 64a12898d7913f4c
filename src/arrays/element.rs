//! The types of numbers in files of arrays.

use anyhow::{Result, ensure};
use clap::ValueEnum;
use half::f16;

/// The type of the numbers of an array.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ArrayType {
    /// float32, as the numbers are computed.
    #[default]
    F32,
    /// float16: rounded to 11 bits.
    F16,
    /// A byte, 255 times the number, for numbers from 0 to 1.
    U8,
}

/// What was lost when numbers were stored in a smaller type, beside rounding.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Losses {
    /// Numbers beyond the range of the type, which became its end.
    clipped: u64,
    /// The largest magnitude.
    largest: f32,
}

impl ArrayType {
    /// Bytes of a number.
    pub const fn size(self) -> usize {
        match self {
            ArrayType::F32 => 4,
            ArrayType::F16 => 2,
            ArrayType::U8 => 1,
        }
    }

    /// The type as a `.npy` file names it.
    pub(super) fn descr(self) -> &'static str {
        match self {
            ArrayType::F32 => "<f4",
            ArrayType::F16 => "<f2",
            ArrayType::U8 => "|u1",
        }
    }

    /// The type that a `.npy` file names so.
    pub(super) fn of_descr(descr: &str) -> Option<ArrayType> {
        let all = ArrayType::value_variants().iter().copied();
        all.into_iter().find(|kind| kind.descr() == descr)
    }

    /// Appends numbers as bytes, rounded to the nearest number of the type.
    ///
    /// # Errors
    /// Returns an error if one is NaN, which a byte cannot say.
    pub(super) fn append(
        self,
        values: &[f32],
        bytes: &mut Vec<u8>,
        losses: &mut Losses,
    ) -> Result<()> {
        match self {
            ArrayType::F32 => bytes.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            ArrayType::F16 => {
                let most = f16::MAX.to_f32();
                for &value in values {
                    losses.add(value, -most..=most);
                    let kept = f16::from_f32(value.clamp(-most, most));
                    bytes.extend(kept.to_le_bytes());
                }
            }
            ArrayType::U8 => {
                for &value in values {
                    ensure!(!value.is_nan(), "NaN cannot be stored as a byte");
                    losses.add(value, -ROUNDING..=1.0 + ROUNDING);
                    bytes.push((value.clamp(0.0, 1.0) * 255.0).round() as u8);
                }
            }
        }
        Ok(())
    }

    /// Numbers from their bytes.
    pub(super) fn values(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            ArrayType::F32 => {
                let numbers = bytes.as_chunks().0.iter();
                numbers.map(|&bytes| f32::from_le_bytes(bytes)).collect()
            }
            ArrayType::F16 => {
                let numbers = bytes.as_chunks().0.iter();
                numbers.map(|&bytes| of_half(bytes)).collect()
            }
            ArrayType::U8 => bytes.iter().map(|&byte| f32::from(byte) / 255.0).collect(),
        }
    }
}

/// How far sums of weights exceed 1 by rounding.
const ROUNDING: f32 = 1e-5;

/// A float16 from its bytes, the lower one first.
pub(super) fn of_half(bytes: [u8; 2]) -> f32 {
    f16::from_le_bytes(bytes).to_f32()
}

impl Losses {
    fn add(&mut self, value: f32, range: std::ops::RangeInclusive<f32>) {
        self.clipped += u64::from(!range.contains(&value) && !value.is_nan());
        self.largest = self.largest.max(value.abs());
    }

    /// What is to be said of an array of this name and type; nothing if it was only rounded.
    pub(super) fn in_words(&self, name: &str, kind: ArrayType) -> Option<String> {
        let smallest = f16::MIN_POSITIVE.to_f32();
        let (clipped, largest) = (self.clipped, self.largest);
        match kind {
            ArrayType::U8 if clipped > 0 => Some(format!(
                "{clipped} numbers of the array {name} lie beyond 0 to 1 and are stored as 0 or 255"
            )),
            ArrayType::F16 if clipped > 0 => Some(format!(
                "{clipped} numbers of the array {name} lie beyond float16 (up to {largest:.3e}) and are stored as 65504 or -65504"
            )),
            ArrayType::F16 if largest > 0.0 && largest < smallest => Some(format!(
                "the numbers of the array {name} are too small for float16 (at most {largest:.3e}) and lose digits"
            )),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(kind: ArrayType, values: &[f32]) -> (Vec<u8>, Option<String>) {
        let (mut bytes, mut losses) = (Vec::new(), Losses::default());
        kind.append(values, &mut bytes, &mut losses).unwrap();
        (bytes, losses.in_words("x", kind))
    }

    /// The bytes are those of `numpy.float16` of the same numbers, and of `numpy.rint(255 x)`.
    #[test]
    fn numbers_are_rounded_to_the_nearest_one() {
        let values = [0.0, 1.0, 0.1, -2.5, 65504.0, 1e-5, 2049.0, 2051.0];
        let (bytes, said) = stored(ArrayType::F16, &values);
        let halves: [u16; 8] = [0, 0x3c00, 0x2e66, 0xc100, 0x7bff, 0x00a8, 0x6800, 0x6802];
        let wanted: Vec<u8> = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
        assert_eq!((bytes, said), (wanted, None));

        let values = [0.0, 1.0, 0.5, 0.001, 0.0021, 0.998, 1.000_001];
        let (bytes, said) = stored(ArrayType::U8, &values);
        assert_eq!((bytes, said), (vec![0, 255, 128, 0, 1, 254, 255], None));
        assert_eq!(ArrayType::U8.values(&[0, 51, 255]), [0.0, 0.2, 1.0]);
        assert_eq!(ArrayType::F16.values(&[0x66, 0x2e]), [0.099_975_586]);
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let (bytes, said) = stored(ArrayType::F16, &[1e5, -7e4, 3.0]);
        assert_eq!(bytes[..4], [0xff, 0x7b, 0xff, 0xfb]);
        assert!(
            said.unwrap()
                .starts_with("2 numbers of the array x lie beyond float16")
        );
        let (_, said) = stored(ArrayType::F16, &[1e-6, -3e-7]);
        assert!(said.unwrap().contains("too small for float16"));
        let (bytes, said) = stored(ArrayType::U8, &[-0.5, 1.5, 0.0]);
        assert_eq!(bytes, [0, 255, 0]);
        assert!(
            said.unwrap()
                .starts_with("2 numbers of the array x lie beyond 0 to 1")
        );
        let (mut bytes, mut losses) = (Vec::new(), Losses::default());
        assert!(
            ArrayType::U8
                .append(&[f32::NAN], &mut bytes, &mut losses)
                .is_err()
        );
    }
}
