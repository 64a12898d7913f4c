//! The page for a browser.

use std::path::Path;

use anyhow::Result;

use super::pictures::file_stem;
use super::{Destination, Results};
use crate::convert::{ramp_picture, to_picture};
use crate::figure::colormap;
use crate::report::Gallery;

/// Writes the page to `file`.
pub fn write(file: &Path, results: &Results, to: &mut Destination) -> Result<()> {
    let count = results.maps.len();
    let mut gallery = Gallery::new(file, count, &mut to.files)?;
    let bar = results.notices.bar(count, "drawing the page");
    for (image, path) in results.paths.iter().enumerate() {
        let saliency = results.saliency_of(image);
        let saliency = saliency.map(|saliency| ramp_picture(&saliency, colormap::magma));
        gallery.add(
            &file_stem(image, count, path),
            &results.picture(image).load()?,
            &to_picture(&results.map(image)?.narrow(0, 0, 3))?,
            saliency.transpose()?.as_ref(),
            &mut to.files,
        )?;
        bar.inc(1);
    }
    let page = gallery.page(&results.summary(Vec::new(), &results.clock))?;
    to.write(file, page.as_bytes())
}
