//! Two pictures for each image that figures show: its map, and the map over the input.

use anyhow::Result;

use super::pictures::{OVERLAY, file_stem, overlaid};
use super::{Destination, Output, Results};
use crate::figure::encode_png;
use crate::map::Numbers;
use crate::numbered::Numbered;
use crate::options::OutputOptions;

/// The pictures of each image, which end their names. An even number, so that those of an image lie
/// in one folder.
const KINDS: [&str; 2] = ["map", "overlay"];

/// The pictures in the folder `PRISM_<network>`.
pub struct PerImage<'a>(pub &'a OutputOptions);

impl Output for PerImage<'_> {
    fn write(&self, results: &Results, to: &mut Destination) -> Result<()> {
        let folder = self
            .0
            .folder
            .join(format!("PRISM_{}", results.network.network));
        to.files.prepare(&folder)?;
        let shown = &results.in_figures;
        let Numbers { first, all } = results.numbers_in_figures;
        let numbered = Numbered::new(&folder, KINDS.len() * all);
        let about = results.about(&self.0.command);
        let alpha = self.0.overlay.unwrap_or(OVERLAY);
        let (numbers, look) = (results.maps.numbers, results.look());
        let bar = results
            .group
            .bar(results.notices, all, "drawing each image");
        for (place, &image) in shown.iter().enumerate() {
            let map = results.map(image)?;
            let picture = results.picture(image)?.load()?;
            let over = overlaid(&picture, &results.colours(&map)?, alpha, look.scaling)?;
            let saliency = results.saliency_of(image)?;
            let alone = look.map_at(&map, saliency.as_ref(), over.dimensions())?;
            let stem = file_stem(numbers.first + image, numbers.all, &results.paths[image]);
            let folder = numbered.prepared(KINDS.len() * (first + place), &mut to.files)?;
            for (kind, picture) in KINDS.into_iter().zip([&alone, &over]) {
                let file = folder.join(format!("{stem}_{kind}.png"));
                to.write(&file, &encode_png(picture, &about)?)?;
            }
            bar.inc(1);
        }
        Ok(())
    }
}
