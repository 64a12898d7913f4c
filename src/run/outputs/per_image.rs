//! Two pictures for each image: its map, and the map over the input.

use anyhow::Result;

use super::pictures::{OVERLAY, file_stem, overlaid};
use super::{Destination, Output, Results};
use crate::figure::encode_png;
use crate::options::OutputOptions;

/// The pictures in the folder `PRISM_<network>`.
pub struct PerImage<'a>(pub &'a OutputOptions);

impl Output for PerImage<'_> {
    fn write(&self, results: &Results, to: &mut Destination) -> Result<()> {
        let folder = self
            .0
            .folder
            .join(format!("PRISM_{}", results.network.network));
        to.files.prepare(&folder)?;
        let about = results.about(&self.0.command);
        let alpha = self.0.overlay.unwrap_or(OVERLAY);
        let (count, look) = (results.maps.len(), results.look());
        let bar = results.notices.bar(count, "drawing each image");
        for (image, path) in results.paths.iter().enumerate() {
            let map = results.map(image)?;
            let picture = results.picture(image).load()?;
            let over = overlaid(&picture, &results.colours(&map)?, alpha, look.scaling)?;
            let saliency = results.saliency_of(image)?;
            let alone = look.map_at(&map, saliency.as_ref(), over.dimensions())?;
            let stem = file_stem(image, count, path);
            for (kind, picture) in [("map", &alone), ("overlay", &over)] {
                let file = folder.join(format!("{stem}_{kind}.png"));
                to.write(&file, &encode_png(picture, &about)?)?;
            }
            bar.inc(1);
        }
        Ok(())
    }
}
