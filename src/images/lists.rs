//! Lists of inputs: paths in a file or on standard input, one a line.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read, stdin};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, ensure};

use super::braces;
use super::decode::reason;

/// The longest path in a list, in bytes; Linux allows 4,096.
const LONGEST: u64 = 65_536;

/// What some editors write in front of a text in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What stands between two paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Separator {
    /// A new line; a carriage return before it is dropped.
    Line,
    /// A zero byte, as `find -print0` writes it.
    Zero,
}

/// The inputs that `values` name: `@FILE` gives those in a file, `-` those on standard input, any
/// other value itself, or what its braces stand for. A file whose own name begins with `@` is that
/// file. Empty lines are left out. Paths are relative to the working folder, not to the list.
///
/// # Errors
/// Returns an error with the list if it cannot be read, holds no path, or a path in it, with the
/// number of its line, is not there; a usage error if braces stand for too many names.
pub fn expanded(values: &[PathBuf], separator: Separator) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    let from_stdin = values.iter().filter(|value| value.as_os_str() == "-");
    ensure!(
        from_stdin.count() <= 1,
        "- stands for standard input, which can be read once"
    );
    for value in values {
        let bytes = value.as_os_str().as_encoded_bytes();
        match bytes.strip_prefix(b"@") {
            _ if bytes == b"-" => {
                ensure!(
                    !stdin().is_terminal(),
                    "- reads paths from standard input, which is a terminal; pipe a list into it"
                );
                paths.extend(listed("standard input", stdin().lock(), separator)?);
            }
            Some(name) if !name.is_empty() && !value.exists() => {
                let file = PathBuf::from(OsString::from_vec(name.to_vec()));
                let shown = file.display().to_string();
                let opened = open(&file).map_err(|error| anyhow!("{shown}: {}", reason(&error)))?;
                paths.extend(listed(&shown, opened, separator)?);
            }
            _ => paths.extend(braces::expanded(value)?),
        }
    }
    Ok(paths)
}

fn open(file: &Path) -> std::io::Result<BufReader<File>> {
    let opened = File::open(file)?;
    match opened.metadata()?.is_dir() {
        true => Err(std::io::ErrorKind::IsADirectory.into()),
        false => Ok(BufReader::new(opened)),
    }
}

/// The paths of a list, each of which must be there.
fn listed(list: &str, mut text: impl BufRead, separator: Separator) -> Result<Vec<PathBuf>> {
    let end = match separator {
        Separator::Line => b'\n',
        Separator::Zero => 0,
    };
    let mut paths = Vec::new();
    for number in 1.. {
        let mut line = Vec::new();
        let mut start = (&mut text).take(LONGEST);
        let read = start.read_until(end, &mut line);
        if read.map_err(|error| anyhow!("{list}: {}", reason(&error)))? == 0 {
            break;
        }
        if number == 1 && line.starts_with(BYTE_ORDER_MARK) {
            line.drain(..BYTE_ORDER_MARK.len());
        }
        let place = || format!("{list}, entry {number}");
        let is_ended = line.pop_if(|last| *last == end).is_some();
        ensure!(
            is_ended || (line.len() as u64) < LONGEST,
            "{}: longer than any path",
            place()
        );
        if separator == Separator::Line {
            line.pop_if(|last| *last == b'\r');
            ensure!(
                !line.contains(&0),
                "{}: a zero byte; a list has a path a line in UTF-8, and zero bytes between paths only if they are asked for",
                place()
            );
        }
        if line.is_empty() {
            continue;
        }
        let path = PathBuf::from(OsString::from_vec(line));
        std::fs::metadata(&path).map_err(|error| {
            let advice = match path.as_os_str().as_encoded_bytes() {
                [b'@', ..] => " (a list names no other lists)",
                name if name.iter().any(|byte| b"*?[".contains(byte)) => " (a list has no globs)",
                name if name.contains(&b'{') => " (a list has no braces)",
                _ => "",
            };
            anyhow!(
                "{}: {}: {}{advice}",
                place(),
                path.display(),
                reason(&error)
            )
        })?;
        paths.push(path);
    }
    ensure!(!paths.is_empty(), "{list}: the list holds no path");
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_list_gives_its_paths_in_order() {
        let place = tempfile::TempDir::new().unwrap();
        let path = |name: &str| place.path().join(name);
        for name in ["a.png", "b c.png", "d\n.png"] {
            fs::write(path(name), "").unwrap();
        }
        let text = |names: &[&str], end: &str| -> String {
            let paths = names
                .iter()
                .map(|name| path(name).display().to_string() + end);
            paths.collect()
        };
        let read = |text: &str, separator| listed("a list", text.as_bytes(), separator);
        let all = [path("b c.png"), path("a.png")];
        let lines = format!("\u{feff}{}", text(&["b c.png", "a.png"], "\r\n"));
        assert_eq!(read(&lines, Separator::Line).unwrap(), all);
        // The last line may lack its end; empty ones are no paths.
        let lines = format!("\n\n{}", text(&["b c.png", "a.png"], "\n").trim_end());
        assert_eq!(read(&lines, Separator::Line).unwrap(), all);
        let zeros = text(&["d\n.png", "a.png"], "\0");
        let all = [path("d\n.png"), path("a.png")];
        assert_eq!(read(&zeros, Separator::Zero).unwrap(), all);
        for (text, reason) in [
            ("a.png\0b.png\0", "a zero byte"),
            ("", "the list holds no path"),
            ("\n\n", "the list holds no path"),
            ("/no/such.png\n", "a list, entry 1: /no/such.png: "),
            (&"x".repeat(70_000), "a list, entry 1: longer than any path"),
        ] {
            let error = format!("{:#}", read(text, Separator::Line).unwrap_err());
            assert!(
                error.starts_with("a list") && error.contains(reason),
                "{error}"
            );
        }
    }

    #[test]
    fn a_value_that_begins_with_at_is_a_list_unless_there_is_such_a_file() {
        let place = tempfile::TempDir::new().unwrap();
        let image = place.path().join("a.png");
        fs::write(&image, "").unwrap();
        let list = place.path().join("list.txt");
        fs::write(&list, format!("{}\n", image.display())).unwrap();
        let value = PathBuf::from(format!("@{}", list.display()));
        let found = expanded(std::slice::from_ref(&value), Separator::Line).unwrap();
        assert_eq!(found, std::slice::from_ref(&image));
        let other = place.path().join("@b.png");
        let found = expanded(std::slice::from_ref(&other), Separator::Line).unwrap();
        assert_eq!(found, [other]);
        let missing = PathBuf::from("@/no/such.txt");
        let error = format!("{:#}", expanded(&[missing], Separator::Line).unwrap_err());
        assert!(error.starts_with("/no/such.txt: "), "{error}");
    }
}
