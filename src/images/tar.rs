//! The headers of tar archives: of 1979, ustar, pax (POSIX.1-2017) and GNU.
//!
//! Contents are passed over, so that an archive is listed by as many short reads as it has
//! headers. What a header claims is compared with the file before anything depends on it. (The
//! crate `tar` reads names of any length into memory, and no names with line breaks.)

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Result, anyhow, bail, ensure};

/// Headers and contents begin at multiples of it.
const BLOCK: u64 = 512;

/// The most bytes of a GNU name, and of the attributes in a pax header.
const LONGEST_NAME: u64 = 1 << 16;
const LONGEST_ATTRIBUTES: u64 = 1 << 20;

/// Bytes after the end that are searched for more headers. Archives are filled up with zeros to a
/// multiple of 10,240.
const SEARCHED: u64 = 1 << 16;

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A file whose content lies in one piece.
    File,
    /// A link, hard or symbolic.
    Link,
    /// A file without its holes.
    Sparse,
    /// A folder, a device or anything else.
    Other,
}

/// A member of an archive. Its content lies within the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path, as stored.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// The place of its content, in bytes.
    pub start: u64,
    /// The length of its content, in bytes.
    pub length: u64,
}

/// How an archive ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With blocks of zeros.
    Marked,
    /// With its last member.
    Unmarked,
    /// With blocks of zeros, after which there are other bytes.
    Continued,
}

/// The members of an archive, one after the other. Nothing follows an error.
pub struct Entries<'a> {
    file: &'a File,
    length: u64,
    at: u64,
    /// How the archive ends; none before it has ended.
    pub end: Option<End>,
    has_failed: bool,
}

/// What headers say of the member after them.
#[derive(Default)]
struct Said {
    name: Option<Vec<u8>>,
    length: Option<u64>,
    is_sparse: bool,
}

impl<'a> Entries<'a> {
    /// The members of an archive of so many bytes.
    pub fn of(file: &'a File, length: u64) -> Self {
        Entries {
            file,
            length,
            at: 0,
            end: None,
            has_failed: false,
        }
    }

    fn advance(&mut self) -> Result<Option<Entry>> {
        let mut said = Said::default();
        loop {
            let header_at = self.at;
            let Some(header) = self.header()? else {
                if said.name.is_some() || said.length.is_some() {
                    self.end = None;
                    bail!("the archive is cut short at byte {header_at}");
                }
                return Ok(None);
            };
            let damaged = || anyhow!("the header at byte {header_at} is damaged");
            let stated = number(&header[124..136]).ok_or_else(damaged)?;
            match header[156] {
                b'L' => {
                    let mut name = self.text(stated, LONGEST_NAME)?;
                    name.truncate(until_zero(&name).len());
                    said.name = Some(name);
                }
                b'x' | b'X' => {
                    let text = self.text(stated, LONGEST_ATTRIBUTES)?;
                    said.note(&text).ok_or_else(damaged)?;
                }
                // A long target of a link, and attributes of all members.
                b'K' | b'g' => drop(self.content(stated, header_at, || "an extension".into())?),
                kind => {
                    return self
                        .member(&header, kind, stated, said, header_at)
                        .map(Some);
                }
            }
        }
    }

    fn member(
        &mut self,
        header: &[u8; BLOCK as usize],
        kind: u8,
        stated: u64,
        said: Said,
        header_at: u64,
    ) -> Result<Entry> {
        let name = said.name.unwrap_or_else(|| own_name(header));
        let is_folder = name.ends_with(b"/");
        let (kind, has_content) = match kind {
            b'0' | 0 | b'7' if said.is_sparse => (EntryKind::Sparse, true),
            b'0' | 0 | b'7' if is_folder => (EntryKind::Other, true),
            b'0' | 0 | b'7' => (EntryKind::File, true),
            b'1' | b'2' => (EntryKind::Link, false),
            b'3'..=b'6' => (EntryKind::Other, false),
            b'S' => {
                self.pass_holes(header[482])?;
                (EntryKind::Sparse, true)
            }
            _ => (EntryKind::Other, true),
        };
        let length = match has_content {
            true => said.length.unwrap_or(stated),
            false => 0,
        };
        let shown = || String::from_utf8_lossy(&name).into_owned();
        let start = self.content(length, header_at, shown)?;
        Ok(Entry {
            name,
            kind,
            start,
            length,
        })
    }

    /// The next header; none at the end.
    fn header(&mut self) -> Result<Option<[u8; BLOCK as usize]>> {
        if self.at == self.length {
            self.end = Some(End::Unmarked);
            return Ok(None);
        }
        let block = self.block()?;
        if block.iter().all(|byte| *byte == 0) {
            let end = match self.has_more()? {
                true => End::Continued,
                false => End::Marked,
            };
            self.end = Some(end);
            return Ok(None);
        }
        match (is_valid(&block), self.at) {
            (true, _) => Ok(Some(block)),
            (false, BLOCK) => bail!("it is no tar archive"),
            (false, at) => bail!("the header at byte {} is damaged", at - BLOCK),
        }
    }

    fn block(&mut self) -> Result<[u8; BLOCK as usize]> {
        let mut block = [0; BLOCK as usize];
        ensure!(
            self.length - self.at >= BLOCK,
            "the archive is cut short at byte {}",
            self.length
        );
        self.file.read_exact_at(&mut block, self.at)?;
        self.at += BLOCK;
        Ok(block)
    }

    /// Passes over the blocks that list more holes of a sparse file.
    fn pass_holes(&mut self, mut is_continued: u8) -> Result<()> {
        while is_continued != 0 {
            is_continued = self.block()?[504];
        }
        Ok(())
    }

    /// The place of the content that comes next, which is passed over.
    fn content(
        &mut self,
        length: u64,
        header_at: u64,
        name: impl FnOnce() -> String,
    ) -> Result<u64> {
        let start = self.at;
        if length > self.length - start {
            let (name, there) = (name(), self.length - start);
            bail!(
                "the archive is cut short: {name}, whose header is at byte {header_at}, should have {length} bytes, but only {there} follow"
            );
        }
        // The last content may lack what fills its block up.
        let filled = length.checked_next_multiple_of(BLOCK).unwrap_or(length);
        self.at = start.saturating_add(filled).min(self.length);
        Ok(start)
    }

    /// A content that says something of the next member.
    fn text(&mut self, length: u64, most: u64) -> Result<Vec<u8>> {
        let header_at = self.at - BLOCK;
        ensure!(
            length <= most,
            "the header at byte {header_at} is damaged: {length} bytes for the name of a member"
        );
        let start = self.content(length, header_at, || "the name of a member".into())?;
        let mut text = vec![0; length as usize];
        self.file.read_exact_at(&mut text, start)?;
        Ok(text)
    }

    /// Whether anything but zeros follows.
    fn has_more(&self) -> Result<bool> {
        let mut rest = vec![0; (self.length - self.at).min(SEARCHED) as usize];
        self.file.read_exact_at(&mut rest, self.at)?;
        Ok(rest.iter().any(|byte| *byte != 0))
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        if self.has_failed || self.end.is_some() {
            return None;
        }
        let next = self.advance();
        self.has_failed = next.is_err();
        next.transpose()
    }
}

impl Said {
    /// Notes the attributes of a pax header: records of their own length in decimals, a space, a
    /// key, `=`, a value and a line break. None if they are damaged.
    fn note(&mut self, text: &[u8]) -> Option<()> {
        let mut rest = text;
        while rest.first().is_some_and(|byte| *byte != 0) {
            let space = rest.iter().position(|byte| *byte == b' ')?;
            let length = std::str::from_utf8(&rest[..space]).ok()?;
            let length: usize = length.parse().ok()?;
            let record = rest.get(space + 1..length)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" => self.name = Some(value.to_vec()),
                b"size" => self.length = Some(std::str::from_utf8(value).ok()?.parse().ok()?),
                _ => self.is_sparse |= key.starts_with(b"GNU.sparse."),
            }
            rest = &rest[length..];
        }
        Some(())
    }
}

/// The name in the header itself.
fn own_name(header: &[u8; BLOCK as usize]) -> Vec<u8> {
    let name = until_zero(&header[..100]);
    let prefix = until_zero(&header[345..500]);
    match &header[257..263] {
        b"ustar\0" if !prefix.is_empty() => [prefix, b"/", name].concat(),
        _ => name.to_vec(),
    }
}

fn until_zero(text: &[u8]) -> &[u8] {
    text.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A number in octal digits, or in binary if it would not fit.
fn number(field: &[u8]) -> Option<u64> {
    if let Some((0x80, rest)) = field.split_first() {
        let add = |sum: u64, byte: &u8| Some(sum.checked_mul(256)? | u64::from(*byte));
        return rest.iter().try_fold(0, add);
    }
    let digits = std::str::from_utf8(until_zero(field)).ok()?.trim();
    match digits {
        "" => Some(0),
        _ if digits.starts_with('+') => None,
        _ => u64::from_str_radix(digits, 8).ok(),
    }
}

/// Whether a header has the sum of its bytes, in which those of the sum count as spaces. Some
/// programs took bytes for signed.
fn is_valid(header: &[u8; BLOCK as usize]) -> bool {
    let stated = number(&header[148..156]);
    let bytes = (0..).zip(header).map(|(at, byte)| match at {
        148..156 => b' ',
        _ => *byte,
    });
    let unsigned: u64 = bytes.clone().map(u64::from).sum();
    let signed: i64 = bytes.map(|byte| i64::from(byte as i8)).sum();
    stated.is_some_and(|stated| stated == unsigned || i64::try_from(stated) == Ok(signed))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    /// The archives of `tests/reference/make_tars.py`, by name.
    fn archives() -> BTreeMap<String, Vec<u8>> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tars");
        let paths = std::fs::read_dir(folder).unwrap();
        let paths = paths.map(|entry| entry.unwrap().path());
        let archives = paths.filter(|path| path.extension().is_some_and(|end| end == "tar"));
        let named = archives.map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_string();
            (name, std::fs::read(path).unwrap())
        });
        named.collect()
    }

    /// What Python's `tarfile` found in an archive: names, places and lengths of regular files.
    fn expected(name: &str) -> Vec<(String, u64, u64)> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tars");
        let text = std::fs::read(format!("{folder}/{name}.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// All members, how the archive ends, and whether there was an error.
    fn read(bytes: &[u8]) -> (Vec<Entry>, Option<End>, Option<String>) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let mut entries = Entries::of(&file, bytes.len() as u64);
        let (mut found, mut error) = (Vec::new(), None);
        for entry in entries.by_ref() {
            match entry {
                Ok(entry) => found.push(entry),
                Err(damage) => error = Some(format!("{damage:#}")),
            }
        }
        (found, entries.end, error)
    }

    fn files(entries: &[Entry]) -> Vec<(String, u64, u64)> {
        let files = entries.iter().filter(|entry| entry.kind == EntryKind::File);
        let described = files.map(|entry| {
            let name = entry.name.iter().map(|byte| format!("{byte:02x}"));
            (name.collect(), entry.start, entry.length)
        });
        described.collect()
    }

    #[test]
    fn archives_of_every_format_hold_what_tarfile_finds() {
        let archives = archives();
        assert_eq!(archives.len(), 10);
        for (name, bytes) in archives {
            let (entries, end, error) = read(&bytes);
            assert_eq!(error, None, "{name}");
            assert_eq!(files(&entries), expected(&name), "{name}");
            let wanted = match name.as_str() {
                "twice.tar" => End::Unmarked,
                "joined.tar" => End::Continued,
                _ => End::Marked,
            };
            assert_eq!(end, Some(wanted), "{name}");
            let links = entries.iter().filter(|entry| entry.kind == EntryKind::Link);
            let sparse = entries
                .iter()
                .filter(|entry| entry.kind == EntryKind::Sparse);
            let counts = match name.as_str() {
                "ustar.tar" | "gnu.tar" | "pax.tar" | "latin.tar" => (2, 0),
                "sparse.tar" => (0, 2),
                _ => (0, 0),
            };
            assert_eq!((links.count(), sparse.count()), counts, "{name}");
        }
    }

    #[test]
    fn an_archive_that_is_cut_short_gives_the_members_before() {
        for (name, bytes) in archives() {
            let all = expected(&name);
            for length in (1..bytes.len()).step_by(61) {
                let (entries, end, error) = read(&bytes[..length]);
                let whole = |(_, start, size): &&(String, u64, u64)| start + size <= length as u64;
                let whole: Vec<_> = all.iter().filter(whole).cloned().collect();
                assert_eq!(files(&entries), whole, "{name} {length}");
                let is_cut = error.is_some_and(|error| error.contains("cut short"));
                assert!(is_cut != end.is_some(), "{name} {length}");
                let is_within = |(_, start, size): &(String, u64, u64)| {
                    (*start..start + size).contains(&(length as u64))
                };
                assert!(is_cut || !all.iter().any(is_within), "{name} {length}");
            }
        }
    }

    /// A header with this length, and its sum.
    fn header(kind: u8, length: [u8; 12]) -> Vec<u8> {
        let mut header = vec![0; 512];
        header[..5].copy_from_slice(b"a.png");
        header[124..136].copy_from_slice(&length);
        header[156] = kind;
        corrected(&mut header);
        header
    }

    fn corrected(header: &mut [u8]) {
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }

    #[test]
    fn absurd_lengths_are_refused_and_nothing_is_allocated_for_them() {
        let binary = |number: u64| {
            let mut field = [0; 12];
            field[0] = 0x80;
            field[4..].copy_from_slice(&number.to_be_bytes());
            field
        };
        let mut beyond = binary(0);
        beyond[2] = 1; // 2^72
        let negative = [0xff; 12];
        let lengths = [
            (binary(1 << 60), "cut short"),
            (binary(u64::MAX), "cut short"),
            (binary(u64::MAX - 511), "cut short"),
            (beyond, "damaged"),
            (negative, "damaged"),
            (*b"777777777777", "cut short"),
            (*b"-0000000001\0", "damaged"),
            (*b"+0000000001\0", "damaged"),
            (*b"0000000008\0 ", "damaged"),
        ];
        for (length, reason) in lengths {
            for kind in [b'0', b'L', b'K', b'x', b'g', b'S', b'Z'] {
                let bytes = [header(kind, length), vec![0; 4096]].concat();
                let (entries, _, error) = read(&bytes);
                let error = error.unwrap();
                let is_name = (kind == b'L' || kind == b'x') && error.contains("damaged");
                assert!(error.contains(reason) || is_name, "{error}");
                assert!(entries.is_empty());
            }
        }
        // By a pax header.
        let records = b"31 size=1152921504606846976000\n";
        let mut field = [0; 12];
        field[..11].copy_from_slice(format!("{:011o}", records.len()).as_bytes());
        let mut block = records.to_vec();
        block.resize(512, 0);
        let zero = *b"00000000000\0";
        let bytes = [header(b'x', field), block, header(b'0', zero)].concat();
        assert!(read(&bytes).2.unwrap().contains("damaged"));
        // A name without a member, and holes without an end.
        let name = [header(b'L', *b"00000000003\0"), vec![b'x'; 512]].concat();
        assert!(read(&name).2.unwrap().contains("cut short"));
        let mut holes = header(b'S', zero);
        holes[482] = 1;
        corrected(&mut holes);
        let bytes = [holes, vec![1; 5120]].concat();
        assert!(read(&bytes).2.unwrap().contains("cut short"));
        let (_, _, error) = read(&vec![b'x'; 4096]);
        assert_eq!(error.unwrap(), "it is no tar archive");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

        /// Whatever is changed, also where the sums are right again, contents lie within the file.
        #[test]
        fn a_damaged_archive_gives_members_within_it_or_an_error(
            which in 0usize..10,
            changes in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..6),
            length in any::<u16>(),
            sums in any::<bool>(),
        ) {
            let (_, mut bytes) = archives().into_iter().nth(which).unwrap();
            for (place, byte) in changes {
                let place = usize::from(place) % bytes.len();
                bytes[place] = byte;
                let block = place / 512 * 512;
                if sums {
                    corrected(&mut bytes[block..block + 512]);
                }
            }
            bytes.truncate(usize::from(length).max(1));
            let (entries, end, error) = read(&bytes);
            prop_assert!(end.is_some() != error.is_some());
            let mut at = 0;
            for entry in &entries {
                prop_assert!(entry.start >= at + 512);
                at = entry.start + entry.length;
                prop_assert!(at <= bytes.len() as u64);
            }
        }
    }
}
