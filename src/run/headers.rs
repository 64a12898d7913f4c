//! The headers of images, checked by threads of their own while the network is loaded and earlier
//! images are forwarded.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Error, Result};
use rayon::ThreadPoolBuilder;
use rayon::prelude::*;

use crate::images::ImageFile;

/// So many images are checked before anything else is done, for an early answer.
const FIRST: usize = 64;

/// Images that are checked before it is asked whether to go on.
const BLOCK: usize = 512;

/// Threads that check. They mostly wait on network file systems.
const THREADS: usize = 8;

/// The state of the check of all images.
pub struct Headers {
    shared: Arc<Shared>,
    /// Whether the check goes on after a bad image.
    skip_bad: bool,
}

struct Shared {
    images: Arc<[ImageFile]>,
    max_pixels: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// How many images have been checked, from the first one on.
    checked: usize,
    /// The numbers of bad images, with their errors until they are taken.
    bad: BTreeMap<usize, Option<Error>>,
    /// Whether no more are checked.
    is_over: bool,
}

/// An image that comes next, with its error if its header is bad.
pub type Next = (usize, Option<Error>);

impl Headers {
    /// Checks the first images, and begins to check the others. If bad images are not to be left
    /// out, the check ends with the first.
    ///
    /// # Errors
    /// Returns the error of the first bad image among the first ones, unless they are left out.
    pub fn start(images: Arc<[ImageFile]>, skip_bad: bool, max_pixels: u64) -> Result<Headers> {
        let headers = Headers {
            shared: Arc::new(Shared {
                images,
                max_pixels,
                state: Mutex::default(),
                changed: Condvar::new(),
            }),
            skip_bad,
        };
        headers.shared.check(FIRST, skip_bad);
        match headers.first_error() {
            Some(error) => return Err(error),
            None => headers.go_on(),
        }
        Ok(headers)
    }

    fn go_on(&self) {
        let (shared, skip_bad) = (self.shared.clone(), self.skip_bad);
        let check = move || {
            let pool = ThreadPoolBuilder::new().num_threads(THREADS).build();
            while !shared.is_over() {
                match &pool {
                    Ok(pool) => pool.install(|| shared.check(BLOCK, skip_bad)),
                    Err(_) => shared.check(BLOCK, skip_bad),
                }
            }
        };
        if !self.shared.is_over() {
            let name = "headers".to_string();
            if thread::Builder::new().name(name).spawn(check).is_err() {
                while !self.shared.is_over() {
                    self.shared.check(BLOCK, skip_bad);
                }
            }
        }
    }

    /// The error of the first bad image if it is known by now, once. None if bad images are left
    /// out.
    pub fn first_error(&self) -> Option<Error> {
        let mut state = self.shared.state();
        let first = state.bad.values_mut().next().filter(|_| !self.skip_bad);
        first.and_then(Option::take)
    }

    /// As [`Headers::first_error`], when all images have been checked.
    pub fn first_error_of_all(&self) -> Option<Error> {
        drop(self.shared.wait(|state| state.is_over));
        self.first_error()
    }

    /// Whether it is known by now that no image has a good header.
    pub fn all_are_bad(&self) -> bool {
        self.shared.state().bad.len() == self.shared.images.len()
    }

    /// The next images from a number on, of which `count` can be decoded, or all that are left. If
    /// bad images are left out, this waits until these have been checked, and bad ones are among
    /// them with their errors.
    pub fn next(&self, from: usize, count: usize) -> Vec<Next> {
        let all = self.shared.images.len();
        if !self.skip_bad {
            let until = from.saturating_add(count).min(all);
            return (from..until).map(|image| (image, None)).collect();
        }
        let (mut next, mut good) = (Vec::new(), 0);
        for image in from..all {
            if good == count {
                break;
            }
            let is_known = |state: &State| state.checked > image || state.is_over;
            let mut state = self.shared.wait(is_known);
            let error = state.bad.get_mut(&image).and_then(Option::take);
            good += usize::from(error.is_none());
            next.push((image, error));
        }
        next
    }
}

impl Drop for Headers {
    fn drop(&mut self) {
        self.shared.state().is_over = true;
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.state().is_over
    }

    fn wait(&self, is_enough: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let waiting = self
            .changed
            .wait_while(self.state(), |state| !is_enough(state));
        waiting.unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks the next `count` images.
    fn check(&self, count: usize, skip_bad: bool) {
        let from = self.state().checked;
        let until = from.saturating_add(count).min(self.images.len());
        let check = |image: &ImageFile| image.check_header(self.max_pixels).err();
        let errors: Vec<Option<Error>> = self.images[from..until].par_iter().map(check).collect();
        let mut state = self.state();
        for (image, error) in (from..).zip(errors) {
            if error.is_some() {
                state.bad.insert(image, error);
            }
        }
        state.checked = until;
        let is_ended = !skip_bad && !state.bad.is_empty();
        state.is_over |= is_ended || until == self.images.len();
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    /// So many links to a good image, and files that are none at some numbers.
    fn images(place: &Path, count: usize, bad: &[usize]) -> Arc<[ImageFile]> {
        let good = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/images/plain.jpg");
        let image = |number: usize| {
            let path: PathBuf = place.join(format!("{number:05}.jpg"));
            match bad.contains(&number) {
                true => std::fs::write(&path, "no image").unwrap(),
                false => std::os::unix::fs::symlink(&good, &path).unwrap(),
            }
            ImageFile::from(path)
        };
        (0..count).map(image).collect()
    }

    #[test]
    fn the_first_of_several_bad_images_is_named() {
        let place = tempfile::TempDir::new().unwrap();
        for (bad, is_early) in [(&[3, 2][..], true), (&[700, 699, 1500], false)] {
            let place = place.path().join(format!("{is_early}"));
            std::fs::create_dir(&place).unwrap();
            let images = images(&place, 2000, bad);
            let first = bad.iter().min().map(|first| format!("{first:05}.jpg"));
            let error = match Headers::start(images, false, 1 << 28) {
                Err(error) if is_early => error,
                Ok(headers) if !is_early => headers.first_error_of_all().unwrap(),
                _ => panic!("{bad:?}"),
            };
            let line = error.to_string();
            assert!(line.contains(&first.unwrap()), "{line}");
        }
    }

    #[test]
    fn bad_images_that_are_left_out_come_in_order_and_do_not_count() {
        let place = tempfile::TempDir::new().unwrap();
        let bad = [0, 1, 5, 600, 999];
        let images = images(place.path(), 1000, &bad);
        let headers = Headers::start(images, true, 1 << 28).unwrap();
        assert!(headers.first_error_of_all().is_none());
        let (mut from, mut sizes, mut left_out) = (0, Vec::new(), Vec::new());
        while from < 1000 {
            let next = headers.next(from, 4);
            assert_eq!(next[0].0, from);
            sizes.push(next.iter().filter(|(_, error)| error.is_none()).count());
            let named = next.iter().filter(|(_, error)| error.is_some());
            left_out.extend(named.map(|(image, _)| *image));
            from += next.len();
        }
        assert_eq!(left_out, bad);
        // 995 images in fours; a bad last image makes no chunk of its own.
        assert_eq!(sizes.iter().filter(|size| **size == 4).count(), 248);
        assert_eq!(sizes.last(), Some(&3));
    }
}
