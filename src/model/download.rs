//! Downloading torchvision's official weights.

use super::search_path::SearchPath;
use crate::notices::Notices;
use crate::temporary::StagingDir;
use anyhow::{Context, Result, anyhow, bail, ensure};
use indicatif::{DecimalBytes, ProgressBar};
use sha2::{Digest, Sha256};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Duration;

/// Timeout of a connection.
const CONNECT: Duration = Duration::from_secs(30);
/// Longest silence of a server during a transfer.
pub const STALL: Duration = Duration::from_secs(60);
/// Bytes that are read, hashed and written at a time.
const CHUNK: usize = 1 << 18;

const NO_SERVER: &str = "there is no network, or no such server";

/// The address of an official file.
pub fn address(file: &str, search: &SearchPath) -> String {
    format!("{}/{file}", search.base_url.trim_end_matches('/'))
}

/// Downloads the official `file` into torchvision's folder and returns its path there. The file
/// appears under its name only when it is complete and its SHA-256 begins as its name says;
/// otherwise nothing is left. A server may be silent for `stall`.
///
/// # Errors
/// Returns an error if downloads are forbidden, the server cannot be reached, sends something
/// else or stops sending, or the file cannot be written.
pub fn fetch(
    file: &str,
    search: &SearchPath,
    stall: Duration,
    notices: Notices,
) -> Result<PathBuf> {
    let address = address(file, search);
    ensure!(
        !search.offline,
        "{address} is needed, and downloads are forbidden"
    );
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(stall))
        .timeout_per_read(Some(stall))
        .build()
        .into();
    let mut response = agent
        .get(&address)
        .call()
        .map_err(|e| anyhow!("{address} cannot be downloaded: {}", reason(&e)))?;
    let body = response.body_mut();
    if body
        .mime_type()
        .is_some_and(|mime| mime.starts_with("text/"))
    {
        bail!("{address} sends a page of text instead of weights");
    }
    let announced = body.content_length();
    let folder = &search.checkpoints;
    let unwritable = |e: std::io::Error| anyhow!("{} cannot be written: {e}", folder.display());
    std::fs::create_dir_all(folder).map_err(unwritable)?;
    let staging = StagingDir::new(folder, true).map_err(unwritable)?;
    let (part, mut opened) = staging.file().map_err(unwritable)?;

    let size = announced.map_or("size unknown".to_owned(), |n| DecimalBytes(n).to_string());
    notices.note(&format!(
        "downloading {file} ({size}) from {address} to {}",
        folder.display()
    ));
    let bar = notices.transfer(announced);
    let received = receive(body.as_reader(), &mut opened, announced, &bar);
    bar.finish_and_clear();
    let found = received.with_context(|| format!("{address} was not downloaded"))?;

    if let Some(expected) = hash_prefix(file)
        && !found.starts_with(expected)
    {
        bail!(
            "{address} sends a damaged file: its SHA-256 begins with {}, not {expected}",
            &found[..expected.len().min(found.len())]
        );
    }
    let path = folder.join(file);
    part.persist(&path).map_err(unwritable)?;
    Ok(path)
}

/// Copies the body to `part` and returns its SHA-256 in hexadecimal digits.
fn receive(
    mut body: impl Read,
    part: &mut std::fs::File,
    announced: Option<u64>,
    bar: &ProgressBar,
) -> Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    let mut done = 0;
    loop {
        let count = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => {
                let size = announced.map_or(String::new(), |n| format!(" of {n}"));
                bail!("the transfer broke off after {done}{size} bytes ({e})");
            }
        };
        hash.update(&buffer[..count]);
        part.write_all(&buffer[..count])
            .map_err(|e| anyhow!("it cannot be stored: {e}"))?;
        done += count as u64;
        bar.set_position(done);
    }
    if let Some(size) = announced
        && done != size
    {
        bail!("the transfer broke off after {done} of {size} bytes");
    }
    part.flush()?;
    let digest = hash.finalize();
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The digits between the last `-` and the extension, as torchvision names its files.
fn hash_prefix(file: &str) -> Option<&str> {
    let (_, tail) = file.rsplit_once('-')?;
    let (digits, _) = tail.split_once('.')?;
    let hexadecimal = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
    hexadecimal.then_some(digits)
}

fn reason(error: &ureq::Error) -> String {
    match error {
        ureq::Error::StatusCode(code) => format!("the server answers {code}"),
        ureq::Error::HostNotFound => NO_SERVER.to_owned(),
        // Errors of the operating system's resolver have no kind of their own.
        ureq::Error::Io(e) if e.to_string().contains("lookup address") => NO_SERVER.to_owned(),
        ureq::Error::Io(e) => e.to_string(),
        ureq::Error::Timeout(_) => "the server does not answer".to_owned(),
        other => other.to_string().lines().next().unwrap_or("").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::thread;
    use tempfile::TempDir;

    /// A body and the start of its SHA-256 by `printf 'sixteen bytes...' | sha256sum`.
    const BODY: &[u8] = b"sixteen bytes...";
    const FILE: &str = "net-0f144216.pth";

    /// Serves one request with these bytes of the file; then stays connected, silently, for `stays`.
    fn server(body: &'static [u8], stays: Duration) -> (String, thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let thread = thread::spawn(move || {
            let (mut stream, _): (TcpStream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n\
                 Content-Length: {}\r\nConnection: close\r\n\r\n",
                BODY.len()
            );
            stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
            thread::sleep(stays);
            let text = String::from_utf8(request).unwrap();
            text.lines().next().unwrap().to_owned()
        });
        (address, thread)
    }

    /// Downloads the file: returns its path or the error, the files in the folder afterwards, and
    /// the request.
    fn download(
        body: &'static [u8],
        stays: Duration,
    ) -> (Result<PathBuf, String>, Vec<String>, String) {
        let root = TempDir::new().unwrap();
        let (base_url, thread) = server(body, stays);
        let search = SearchPath {
            folders: vec![],
            checkpoints: root.path().join("hub").join("checkpoints"),
            base_url,
            offline: false,
        };
        let outcome = fetch(FILE, &search, Duration::from_millis(300), Notices::Quiet)
            .map_err(|e| format!("{e:#}"));
        if let Ok(path) = &outcome {
            assert_eq!(std::fs::read(path).unwrap(), BODY);
        }
        let left = std::fs::read_dir(&search.checkpoints).map_or(vec![], |entries| {
            entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect()
        });
        if let Err(line) = &outcome {
            assert_eq!(line.lines().count(), 1, "{line}");
        }
        (outcome, left, thread.join().unwrap())
    }

    #[test]
    fn a_good_file_lands_under_its_name() {
        let (outcome, left, request) = download(BODY, Duration::ZERO);
        assert!(outcome.unwrap().ends_with(FILE));
        assert_eq!(left, [FILE]);
        assert_eq!(request, format!("GET /{FILE} HTTP/1.1"));
    }

    #[test]
    fn a_silent_server_times_out() {
        let (outcome, left, _) = download(&BODY[..7], Duration::from_millis(1500));
        let line = outcome.unwrap_err();
        assert!(line.contains("broke off after 7 of 16 bytes"), "{line}");
        assert!(left.is_empty(), "{left:?}");
    }

    #[test]
    fn without_a_server_the_line_says_so() {
        let root = TempDir::new().unwrap();
        // A port that was free a moment ago, without a listener.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let search = SearchPath {
            folders: vec![],
            checkpoints: root.path().join("new"),
            base_url,
            offline: false,
        };
        let line = format!(
            "{:#}",
            fetch(FILE, &search, STALL, Notices::Quiet).unwrap_err()
        );
        assert!(line.contains(FILE) && line.lines().count() == 1, "{line}");
        assert!(!root.path().join("new").exists());
    }

    #[test]
    fn the_hash_is_read_from_the_name() {
        assert_eq!(hash_prefix("vgg16-397923af.pth"), Some("397923af"));
        assert_eq!(hash_prefix("alexnet-owt-7be5be79.pth"), Some("7be5be79"));
        assert_eq!(hash_prefix("plain.pth"), None);
        assert_eq!(hash_prefix("two-words.pth"), None);
    }
}
