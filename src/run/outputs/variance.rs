//! The figure of the variance ratios.

use anyhow::Result;

use super::{Destination, Output, Results};
use crate::figure::draw_variance;
use crate::options::OutputOptions;

/// The share of variance that the components hold.
pub struct Variance<'a>(pub &'a OutputOptions);

impl Output for Variance<'_> {
    fn write(&self, results: &Results, to: &mut Destination) -> Result<()> {
        if !results.group.is_first() {
            return Ok(());
        }
        let (ratios, format) = (results.maps.variance_ratio.clone(), self.0.format);
        let palette = results.palette;
        let about = results.about(&self.0.command);
        let name = format!(
            "PRISM_var_{}.{}",
            results.network.network,
            format.extension()
        );
        to.draw(self.0.folder.join(name), move || {
            draw_variance(&ratios, palette, &about, format)
        });
        Ok(())
    }
}
