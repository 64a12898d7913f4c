//! What the fuzz targets share: files for interfaces that take paths, and an
//! allocator that keeps an eye on sizes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::io::{Cursor, Write};
use std::path::PathBuf;
use std::sync::Once;

use tempfile::TempDir;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// The largest block of memory, in bytes. (libFuzzer's own limit needs a sanitizer.)
const LARGEST_BLOCK: usize = 1 << 30;

/// As on a machine without more memory: what asks politely gets an error, all
/// else aborts, which is a finding.
struct Limited;

// SAFETY: all is passed on to `System`; null is what an allocator without memory returns.
unsafe impl GlobalAlloc for Limited {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > LARGEST_BLOCK {
            return std::ptr::null_mut();
        }
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.size() > LARGEST_BLOCK {
            return std::ptr::null_mut();
        }
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if size > LARGEST_BLOCK {
            return std::ptr::null_mut();
        }
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Limited = Limited;

/// The most pixels of an image: prism itself takes a hundred times more, for which the fuzzer lacks
/// the time.
pub const MOST_PIXELS: u64 = 1 << 21;

/// Takes the fuzzer's hook away, which ends the process at every panic, also at one of a decoder,
/// which prism catches. What nobody catches ends the process all the same.
pub fn let_panics_be_caught() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|_| ())));
}

/// A folder for one process's files. Fuzzers end without clearing up, so it lies
/// where `run.sh` does that.
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Place {
        Place(tempfile::tempdir().expect("a temporary folder"))
    }

    /// A file of that name with these bytes.
    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).expect("a file in the temporary folder");
        path
    }
}

impl Default for Place {
    fn default() -> Place {
        Place::new()
    }
}

/// A zip archive of these entries with the right checksums, which a mutated
/// archive as good as never has.
pub fn zipped(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in entries {
        archive.start_file(*name, stored).expect("an entry");
        archive.write_all(bytes).expect("its bytes");
    }
    archive.finish().expect("the directory").into_inner()
}
