//! Braces in the names of inputs, as a shell and WebDataset expand them: `{0000..0127}`, `{a,b}`.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::error::Usage;

/// The most names that one value stands for, and the most bytes that they take.
const MOST_NAMES: usize = 1_000_000;
const MOST_BYTES: usize = 256 << 20;

/// Braces within braces.
const DEEPEST: usize = 16;

/// The paths that a value with braces stands for, in the order of a shell; any other value as it is.
///
/// `{0000..0127}` gives the numbers of that width, `{0..9..3}` every third, `{a..c}` letters, and
/// `{a,b}` what stands between commas, which may have braces itself. Other braces stand for
/// themselves, and so do those of a path that is there, or of a folder in it.
///
/// # Errors
/// Returns a usage error if the names are too many.
pub fn expanded(value: &Path) -> Result<Vec<PathBuf>> {
    let name = value.as_os_str().as_bytes();
    if !name.contains(&b'{') || is_there(value) {
        return Ok(vec![value.to_path_buf()]);
    }
    let too_many = || {
        let text = format!("{}: the braces stand for too many names", value.display());
        Usage(text)
    };
    let names = words(name, 0).ok_or_else(too_many)?;
    let as_path = |name| PathBuf::from(OsString::from_vec(name));
    let names: Vec<PathBuf> = names.into_iter().map(as_path).collect();
    ensure!(
        names.iter().all(|name| !name.as_os_str().is_empty()),
        "{}: the braces stand for an empty name",
        value.display()
    );
    Ok(names)
}

/// Whether there is a file or folder whose own name has the braces.
fn is_there(value: &Path) -> bool {
    let has_brace = |path: &&Path| {
        let name = path.file_name().unwrap_or_default();
        name.as_bytes().contains(&b'{')
    };
    value.ancestors().filter(has_brace).any(Path::exists)
}

/// All words that a text with braces stands for. None if they are too many.
fn words(text: &[u8], depth: usize) -> Option<Vec<Vec<u8>>> {
    let mut words = vec![Vec::new()];
    let mut rest = text;
    while let Some(open) = rest.iter().position(|byte| *byte == b'{') {
        let close = (depth < DEEPEST).then(|| closing(&rest[open..])).flatten();
        let inner = close.map(|close| &rest[open + 1..open + close]);
        let choices = match inner {
            Some(inner) => choices(inner, depth)?,
            None => Vec::new(),
        };
        match (close, choices.is_empty()) {
            (Some(close), false) => {
                words = combined(&words, &[rest[..open].to_vec()])?;
                words = combined(&words, &choices)?;
                rest = &rest[open + close + 1..];
            }
            // This brace stands for itself.
            _ => {
                words = combined(&words, &[rest[..=open].to_vec()])?;
                rest = &rest[open + 1..];
            }
        }
    }
    combined(&words, &[rest.to_vec()])
}

/// Where the brace at the start of the text is closed.
fn closing(text: &[u8]) -> Option<usize> {
    let mut depth = 0i64;
    text.iter().position(|byte| {
        depth += i64::from(*byte == b'{') - i64::from(*byte == b'}');
        depth == 0
    })
}

/// What a pair of braces with this text in it stands for; nothing if it stands for itself. None if
/// that is too much.
fn choices(inner: &[u8], depth: usize) -> Option<Vec<Vec<u8>>> {
    if let Some(range) = std::str::from_utf8(inner).ok().and_then(Range::of) {
        return range.words();
    }
    let mut level = 0i64;
    let parts: Vec<&[u8]> = inner
        .split(|byte| {
            level += i64::from(*byte == b'{') - i64::from(*byte == b'}');
            *byte == b',' && level == 0
        })
        .collect();
    if parts.len() == 1 {
        return Some(Vec::new());
    }
    let mut all = Vec::new();
    for part in parts {
        all.extend(words(part, depth + 1)?);
        is_bounded(all.len(), all.iter().map(Vec::len).sum())?;
    }
    Some(all)
}

fn is_bounded(count: usize, bytes: usize) -> Option<()> {
    (count <= MOST_NAMES && bytes <= MOST_BYTES).then_some(())
}

/// Each of the first with each of the second behind it.
fn combined(first: &[Vec<u8>], second: &[Vec<u8>]) -> Option<Vec<Vec<u8>>> {
    let bytes = |words: &[Vec<u8>]| words.iter().map(Vec::len).sum::<usize>();
    let count = first.len().checked_mul(second.len())?;
    let of_first = bytes(first).checked_mul(second.len())?;
    let of_second = bytes(second).checked_mul(first.len())?;
    is_bounded(count, of_first.checked_add(of_second)?)?;
    let pairs = first
        .iter()
        .flat_map(|a| second.iter().map(move |b| [&a[..], b].concat()));
    Some(pairs.collect())
}

/// `from..to`, or `from..to..step`.
struct Range {
    from: i64,
    to: i64,
    step: u64,
    /// Characters of a number; 0 if zeros do not lead.
    width: usize,
    are_letters: bool,
}

impl Range {
    fn of(text: &str) -> Option<Range> {
        let parts: Vec<&str> = text.split("..").collect();
        let (from, to, step) = match parts[..] {
            [from, to] => (from, to, 1),
            [from, to, step] => (from, to, step.parse::<i64>().ok()?.unsigned_abs().max(1)),
            _ => return None,
        };
        let letter = |text: &str| match text.as_bytes() {
            [letter] if letter.is_ascii_alphabetic() => Some(i64::from(*letter)),
            _ => None,
        };
        if let Some((from, to)) = letter(from).zip(letter(to)) {
            let (width, are_letters) = (0, true);
            return Some(Range {
                from,
                to,
                step,
                width,
                are_letters,
            });
        }
        let is_padded = |text: &str| {
            let digits = text.trim_start_matches(['-', '+']);
            digits.len() > 1 && digits.starts_with('0')
        };
        let width = match is_padded(from) || is_padded(to) {
            true => from.len().max(to.len()),
            false => 0,
        };
        if width > usize::from(u16::MAX) {
            return None; // no path is that long
        }
        let (from, to) = (from.parse().ok()?, to.parse().ok()?);
        let are_letters = false;
        Some(Range {
            from,
            to,
            step,
            width,
            are_letters,
        })
    }

    fn words(&self) -> Option<Vec<Vec<u8>>> {
        let count = usize::try_from(self.from.abs_diff(self.to) / self.step).ok()?;
        let count = count.checked_add(1)?;
        is_bounded(count, count.checked_mul(self.width.max(20))?)?;
        let step = i64::try_from(self.step).ok()?;
        let step = if self.from <= self.to { step } else { -step };
        let numbers = (0..count as i64).map(|place| self.from + place * step);
        let width = self.width;
        let word = |number: i64| match self.are_letters {
            true => vec![number as u8],
            false => format!("{number:0width$}").into_bytes(),
        };
        Some(numbers.map(word).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(value: &str) -> Vec<String> {
        let paths = expanded(Path::new(value)).unwrap();
        let texts = paths.iter().map(|path| path.to_str().unwrap().to_string());
        texts.collect()
    }

    /// The words are those of bash 5.2.
    #[test]
    fn braces_stand_for_what_they_do_in_a_shell() {
        for (value, words) in [
            (
                "s/{0008..0011}.tar",
                "s/0008.tar s/0009.tar s/0010.tar s/0011.tar",
            ),
            ("{8..10}", "8 9 10"),
            ("{08..10}", "08 09 10"),
            ("{8..010}", "008 009 010"),
            ("{-01..1}", "-01 000 001"),
            ("{3..1}", "3 2 1"),
            ("{0..7..3}", "0 3 6"),
            ("{7..0..3}", "7 4 1"),
            ("{0..2..0}", "0 1 2"),
            ("{a..c}", "a b c"),
            (
                "{train,val}-{0..1}.tar",
                "train-0.tar train-1.tar val-0.tar val-1.tar",
            ),
            ("x{a,b{1,2},}y", "xay xb1y xb2y xy"),
            ("{{0..1},5}.tar", "0.tar 1.tar 5.tar"),
            ("{a}.tar", "{a}.tar"),
            ("{}.tar", "{}.tar"),
            ("{a..bc}", "{a..bc}"),
            ("{a,b", "{a,b"),
            ("a,b}", "a,b}"),
            ("{a{b,c}", "{ab {ac"),
            ("{{a,b}}", "{a} {b}"),
            ("plain.tar", "plain.tar"),
        ] {
            assert_eq!(texts(value).join(" "), words, "{value}");
        }
    }

    #[test]
    fn too_many_names_are_refused_at_once() {
        let deep = format!("{}{}", "{a,".repeat(30_000), "}".repeat(30_000));
        assert!(!texts(&deep).is_empty());
        for value in [
            "{0..1000000}",
            "{0..999}{0..999}{0..999}",
            "{0..18446744073709551615}{a,b}{1..9223372036854775807}",
            "{-9223372036854775808..9223372036854775807}",
            &"{a,b}".repeat(20_000),
            &format!("{{0..999999}}{}", "x".repeat(100_000)),
        ] {
            let error = expanded(Path::new(value)).unwrap_err();
            assert!(
                error.to_string().ends_with("too many names"),
                "{error:.200}"
            );
        }
        assert_eq!(texts("{1..1000000}").len(), 1_000_000);
    }

    #[test]
    fn a_number_longer_than_any_path_is_no_range() {
        let value = format!("{{{}..1}}", "0".repeat(70_000));
        assert_eq!(texts(&value), [value]);
    }

    #[test]
    fn a_path_that_is_there_keeps_its_braces() {
        let place = tempfile::TempDir::new().unwrap();
        let folder = place.path().join("a{1,2}");
        std::fs::create_dir(&folder).unwrap();
        for value in [folder.clone(), folder.join("*.jpg")] {
            assert_eq!(expanded(&value).unwrap(), [value]);
        }
        assert_eq!(expanded(&place.path().join("b{1,2}")).unwrap().len(), 2);
    }
}
