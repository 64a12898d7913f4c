//! What the decoders do not notice in WebP and GIF headers (damage) and in TGA footers.

use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};

use anyhow::{Result, ensure};

use super::CUT_SHORT;

/// Rejects truncated WebP files. The decoder would read missing bits as zeros and allocate
/// whatever length the EXIF chunk claims.
pub fn check_webp<R: Read + Seek>(file: &mut BufReader<R>, length: u64) -> Result<()> {
    // RIFF: a tag and the length of the content. The content of the outer chunk is one more
    // tag, then chunks.
    let mut tag = [0; 4];
    let mut size = [0; 4];
    let mut at = 0;
    while file.read_exact(&mut tag).is_ok() && file.read_exact(&mut size).is_ok() {
        at += (tag.len() + size.len()) as u64;
        let size = u64::from(u32::from_le_bytes(size));
        let is_read = [*b"RIFF", *b"EXIF"].contains(&tag);
        ensure!(!is_read || size <= length.saturating_sub(at), CUT_SHORT);
        let next = match at {
            8 => 4,
            _ => size.next_multiple_of(2),
        };
        file.seek_relative(next as i64)?;
        at += next;
    }
    Ok(())
}

/// Width and height of the first frame of a GIF. The decoder allocates this frame even if the
/// picture is smaller. None if the file ends before the frame.
pub fn gif_frame(file: &mut (impl BufRead + Seek)) -> Result<Option<(u32, u32)>> {
    const EXTENSION: u8 = 0x21;
    const FRAME: u8 = 0x2c;
    // Signature, size, flags, background, aspect; then a colour table if the flags say so.
    let mut header = [0; 13];
    if file.read_exact(&mut header).is_err() {
        return Ok(None);
    }
    if header[10] & 0x80 != 0 {
        file.seek_relative(3 << ((header[10] & 7) + 1))?;
    }
    let mut byte = [0];
    while file.read_exact(&mut byte).is_ok() {
        match byte[0] {
            FRAME => {
                let mut place = [0; 8]; // left, top, width, height
                let whole = file.read_exact(&mut place).is_ok();
                let side = |at| u32::from(u16::from_le_bytes([place[at], place[at + 1]]));
                return Ok(whole.then(|| (side(4), side(6))));
            }
            EXTENSION => {
                file.seek_relative(1)?; // the kind of the extension
                // Blocks, each after its length; the last is empty.
                while file.read_exact(&mut byte).is_ok() && byte[0] > 0 {
                    file.seek_relative(i64::from(byte[0]))?;
                }
            }
            // The trailer, or a block that the decoder rejects too.
            _ => return Ok(None),
        }
    }
    Ok(None)
}

/// Whether the footer of a TGA file (version 2.0) says that the colours have been multiplied by
/// alpha.
pub fn is_premultiplied_tga(file: &mut (impl Read + Seek)) -> bool {
    const MULTIPLIED: u8 = 4;
    // The place of the extension area, that of the developer area, and a signature.
    let mut footer = [0; 26];
    let mut kind = [0];
    let mut read = || {
        file.seek(SeekFrom::End(-26))?;
        file.read_exact(&mut footer)?;
        let area = u32::from_le_bytes([footer[0], footer[1], footer[2], footer[3]]);
        file.seek(SeekFrom::Start(u64::from(area) + 494))?;
        file.read_exact(&mut kind).map(|()| area)
    };
    let area = read().unwrap_or(0);
    area > 0 && footer[8..].starts_with(b"TRUEVISION-XFILE.") && kind == [MULTIPLIED]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn no_length_in_a_webp_file_is_beyond_its_end() {
        let check = |riff: u32, exif: u32| {
            let mut bytes = b"RIFF????WEBPVP8X\x01\0\0\0..EXIF????1234".to_vec();
            bytes[4..8].copy_from_slice(&riff.to_le_bytes());
            bytes[26..30].copy_from_slice(&exif.to_le_bytes());
            let length = bytes.len() as u64;
            check_webp(&mut BufReader::new(Cursor::new(bytes)), length)
        };
        assert!(check(26, 4).is_ok());
        assert!(check(27, 4).is_err());
        assert!(check(26, 5).is_err());
        assert!(check(26, u32::MAX).is_err());
    }
}
