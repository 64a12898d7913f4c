//! Where the bytes of an image are: in a file of its own, or in an archive.

use std::cmp::Ordering;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, anyhow, ensure};

use super::decode::reason;

/// Archives that stay open. A data set may have more than a process may open files.
const MOST_OPEN: usize = 16;

/// An image: a file, or a member of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFile {
    path: PathBuf,
    member: Option<Member>,
}

/// A file within an archive.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) archive: Arc<Archive>,
    pub(super) start: u64,
    pub(super) length: u64,
    /// What may say the class of the image.
    pub(super) note: Option<Note>,
}

/// A member beside an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) start: u64,
    pub(super) length: u64,
    pub(super) is_json: bool,
}

/// An archive that images are read from.
#[derive(Debug)]
pub(super) struct Archive {
    pub(super) path: PathBuf,
    pub(super) recent: Arc<Recent>,
}

/// The archives that were read last.
#[derive(Debug, Default)]
pub struct Recent(Mutex<Vec<(PathBuf, Arc<File>)>>);

impl Recent {
    fn open(&self, path: &Path) -> io::Result<Arc<File>> {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, file)) = recent.iter().find(|(known, _)| known == path) {
            return Ok(file.clone());
        }
        let file = Arc::new(File::open(path)?);
        if recent.len() >= MOST_OPEN {
            recent.remove(0);
        }
        recent.push((path.to_path_buf(), file.clone()));
        Ok(file)
    }
}

impl PartialEq for Member {
    fn eq(&self, other: &Member) -> bool {
        self.archive.path == other.archive.path && self.start == other.start
    }
}

impl Eq for Member {}

impl From<&Path> for ImageFile {
    fn from(path: &Path) -> ImageFile {
        ImageFile::from(path.to_path_buf())
    }
}

impl From<PathBuf> for ImageFile {
    fn from(path: PathBuf) -> ImageFile {
        ImageFile { path, member: None }
    }
}

impl ImageFile {
    /// The member of that name.
    pub(super) fn within(member: Member, name: &Path) -> ImageFile {
        ImageFile {
            path: member.archive.path.join(name),
            member: Some(member),
        }
    }

    /// Its path. That of a member is the archive's, a slash, and its name in the archive.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The order of images: by path, but members of an archive as they lie in it.
    pub fn order(&self, other: &ImageFile) -> Ordering {
        let place = |image: &ImageFile| image.member.as_ref().map_or(0, |member| member.start);
        match (&self.member, &other.member) {
            (Some(a), Some(b)) if Arc::ptr_eq(&a.archive, &b.archive) => a.start.cmp(&b.start),
            _ => (self.file().cmp(other.file())).then_with(|| place(self).cmp(&place(other))),
        }
    }

    /// The file that holds it.
    fn file(&self) -> &Path {
        match &self.member {
            Some(member) => &member.archive.path,
            None => &self.path,
        }
    }

    /// Whether it lies in an archive.
    pub fn is_member(&self) -> bool {
        self.member.is_some()
    }

    /// Its name in its archive; its path if it lies in none.
    pub(super) fn name_in_archive(&self) -> &Path {
        let archive = self.member.as_ref().map(|member| &member.archive.path);
        let name = archive.and_then(|archive| self.path.strip_prefix(archive).ok());
        name.unwrap_or(&self.path)
    }

    /// Notes what may say the class of a member.
    pub(super) fn set_note(&mut self, note: Option<Note>) {
        if let Some(member) = &mut self.member {
            member.note = note;
        }
    }

    /// What lies beside the image in its archive and may say its class.
    pub(super) fn note(&self) -> Option<(&Member, Note)> {
        let member = self.member.as_ref()?;
        member.note.map(|note| (member, note))
    }

    /// Its bytes.
    ///
    /// # Errors
    /// Returns an error without the path if it is no regular file, or empty.
    pub(super) fn open(&self) -> Result<Section> {
        let unreadable = |error| anyhow!(reason(&error));
        let section = match &self.member {
            Some(member) => Section::of(member, member.start, member.length)?,
            None => {
                let found = fs::metadata(&self.path).map_err(unreadable)?;
                ensure!(!found.is_dir(), "it is a folder");
                ensure!(found.is_file(), "it is not a regular file");
                let file = File::open(&self.path).map_err(unreadable)?;
                Section {
                    file: Arc::new(file),
                    start: 0,
                    length: found.len(),
                    at: 0,
                }
            }
        };
        ensure!(section.length > 0, "the file is empty");
        Ok(section)
    }
}

/// A part of a file, as a file of its own.
#[derive(Debug)]
pub(super) struct Section {
    file: Arc<File>,
    start: u64,
    /// Its length, in bytes.
    pub(super) length: u64,
    at: u64,
}

impl Section {
    /// A part of the archive of a member.
    ///
    /// # Errors
    /// Returns an error without the path if the archive cannot be opened.
    pub(super) fn of(member: &Member, start: u64, length: u64) -> Result<Section> {
        let Archive { path, recent } = &*member.archive;
        let file = recent.open(path).map_err(|error| anyhow!(reason(&error)))?;
        Ok(Section {
            file,
            start,
            length,
            at: 0,
        })
    }
}

impl Read for Section {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(self.length.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let most = into.len().min(rest);
        if most == 0 {
            return Ok(0);
        }
        let read = (self.file).read_at(&mut into[..most], self.start + self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Section {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
