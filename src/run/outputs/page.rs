//! The page for a browser.

use std::path::Path;

use anyhow::Result;

use super::pictures::file_stem;
use super::{Destination, Output, Results};
use crate::output::{Outputs, folder_of};
use crate::report::Gallery;

/// The page with that path.
pub struct Page<'a>(pub &'a Path);

impl Output for Page<'_> {
    fn prepare(&self, files: &mut Outputs) -> Result<()> {
        files.prepare(folder_of(self.0))
    }

    fn write(&self, results: &Results, to: &mut Destination) -> Result<()> {
        let count = results.maps.len();
        let mut gallery = Gallery::new(self.0, count, &mut to.files)?;
        let bar = results.notices.bar(count, "drawing the page");
        for (image, path) in results.paths.iter().enumerate() {
            gallery.add(
                &file_stem(image, count, path),
                &results.picture(image).load()?,
                &results.map_picture(&results.map(image)?, image)?,
                results.saliency_picture(image)?.as_ref(),
                &mut to.files,
            )?;
            bar.inc(1);
        }
        let page = gallery.page(&results.summary(Vec::new(), &results.clock))?;
        to.write(self.0, page.as_bytes())
    }
}
