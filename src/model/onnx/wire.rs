//! The encoding of protocol buffers: numbered fields, each a number or some bytes.

use anyhow::{Result, bail};

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Field<'a> {
    /// An integer of variable length.
    Varint(u64),
    /// Eight bytes, the lowest first.
    Fixed64(u64),
    /// Four bytes, the lowest first.
    Fixed32(u32),
    /// A text, a message, or numbers in a row.
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    /// The bytes of a text or message.
    ///
    /// # Errors
    /// Returns an error if the field is a number.
    pub fn bytes(self) -> Result<&'a [u8]> {
        match self {
            Field::Bytes(bytes) => Ok(bytes),
            _ => bail!(DAMAGED),
        }
    }

    /// The text; what is no UTF-8 in it is replaced.
    ///
    /// # Errors
    /// Returns an error if the field is a number.
    pub fn text(self) -> Result<String> {
        Ok(String::from_utf8_lossy(self.bytes()?).into_owned())
    }

    /// The integer, whose sign is that of 64 bits.
    ///
    /// # Errors
    /// Returns an error if the field is something else.
    pub fn integer(self) -> Result<i64> {
        match self {
            Field::Varint(number) => Ok(number as i64),
            _ => bail!(DAMAGED),
        }
    }

    /// Integers: one, or several in a row.
    ///
    /// # Errors
    /// Returns an error if the field is something else, or cut short.
    pub fn add_integers(self, to: &mut Vec<i64>) -> Result<()> {
        match self {
            Field::Varint(number) => to.push(number as i64),
            Field::Bytes(mut rest) => {
                while !rest.is_empty() {
                    to.push(varint(&mut rest)? as i64);
                }
            }
            _ => bail!(DAMAGED),
        }
        Ok(())
    }

    /// Floating-point numbers of 32 bits: one, or several in a row.
    ///
    /// # Errors
    /// Returns an error if the field is something else, or cut short.
    pub fn add_floats(self, to: &mut Vec<f32>) -> Result<()> {
        match self {
            Field::Fixed32(bits) => to.push(f32::from_bits(bits)),
            Field::Bytes(bytes) => {
                let (numbers, rest) = bytes.as_chunks::<4>();
                if !rest.is_empty() {
                    bail!(DAMAGED);
                }
                to.extend(numbers.iter().map(|&number| f32::from_le_bytes(number)));
            }
            _ => bail!(DAMAGED),
        }
        Ok(())
    }

    /// Floating-point numbers of 64 bits: one, or several in a row.
    ///
    /// # Errors
    /// Returns an error if the field is something else, or cut short.
    pub fn add_doubles(self, to: &mut Vec<f64>) -> Result<()> {
        match self {
            Field::Fixed64(bits) => to.push(f64::from_bits(bits)),
            Field::Bytes(bytes) => {
                let (numbers, rest) = bytes.as_chunks::<8>();
                if !rest.is_empty() {
                    bail!(DAMAGED);
                }
                to.extend(numbers.iter().map(|&number| f64::from_le_bytes(number)));
            }
            _ => bail!(DAMAGED),
        }
        Ok(())
    }
}

/// What is said of bytes that are no protocol buffers.
pub const DAMAGED: &str = "it is damaged or cut short";

/// The fields of a message, in the order of the file.
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Of the message in `bytes`.
    pub fn of(bytes: &'a [u8]) -> Fields<'a> {
        Fields(bytes)
    }

    fn read(&mut self) -> Result<(u64, Field<'a>)> {
        let key = varint(&mut self.0)?;
        let field = match key & 7 {
            0 => Field::Varint(varint(&mut self.0)?),
            1 => Field::Fixed64(u64::from_le_bytes(self.fixed()?)),
            2 => {
                let length = varint(&mut self.0)?;
                let length = usize::try_from(length).ok();
                let split = length.and_then(|length| self.0.split_at_checked(length));
                let Some((bytes, rest)) = split else {
                    bail!(DAMAGED);
                };
                self.0 = rest;
                Field::Bytes(bytes)
            }
            5 => Field::Fixed32(u32::from_le_bytes(self.fixed()?)),
            _ => bail!(DAMAGED), // groups, which ONNX does not have
        };
        Ok((key >> 3, field))
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        match self.0.split_first_chunk() {
            Some((bytes, rest)) => {
                self.0 = rest;
                Ok(*bytes)
            }
            None => bail!(DAMAGED),
        }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Field<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// An integer of variable length at the beginning of `bytes`, behind which `bytes` then begins.
///
/// # Errors
/// Returns an error if it is cut short or has more than 64 bits.
pub fn varint(bytes: &mut &[u8]) -> Result<u64> {
    let mut number = 0;
    for (at, &byte) in bytes.iter().take(10).enumerate() {
        number |= u64::from(byte & 0x7f)
            .checked_shl(7 * at as u32)
            .unwrap_or(0);
        if byte < 0x80 {
            *bytes = &bytes[at + 1..];
            return Ok(number);
        }
    }
    bail!(DAMAGED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_as_the_specification_writes_them() {
        // The examples of the encoding's specification, by hand.
        let message = [
            &[0x08, 0x96, 0x01][..],                                 // 1: 150
            &[0x12, 0x07, b't', b'e', b's', b't', b'i', b'n', b'g'], // 2: "testing"
            &[0x32, 0x06, 0x03, 0x8e, 0x02, 0x9e, 0xa7, 0x05],       // 6: 3, 270, 86942 in a row
            &[0x3d, 0x00, 0x00, 0x80, 0x3f],                         // 7: 1.0 in 32 bits
        ]
        .concat();
        let fields: Vec<(u64, Field)> = Fields::of(&message).map(Result::unwrap).collect();
        assert_eq!(fields[0], (1, Field::Varint(150)));
        assert_eq!(fields[1], (2, Field::Bytes(b"testing")));
        let mut integers = Vec::new();
        fields[2].1.add_integers(&mut integers).unwrap();
        assert_eq!(integers, [3, 270, 86942]);
        let mut floats = Vec::new();
        fields[3].1.add_floats(&mut floats).unwrap();
        assert_eq!(floats, [1.0]);
        let negative = [0xff; 9].iter().chain(&[1]).copied().collect::<Vec<u8>>();
        assert_eq!(varint(&mut negative.as_slice()).unwrap() as i64, -1);
    }

    #[test]
    fn damage_is_an_error() {
        for bytes in [
            &[0x08][..],         // no value
            &[0x08, 0x80],       // a number without an end
            &[0x12, 0x05, b'a'], // fewer bytes than stated
            &[0x0b],             // a group
            &[0x3d, 0, 0],       // half a number
            &[
                0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01,
            ], // 2^64 - 1 bytes
            &[0xff; 11],
        ] {
            assert!(Fields::of(bytes).any(|field| field.is_err()), "{bytes:?}");
        }
    }
}
