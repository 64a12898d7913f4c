//! How maps and saliency become pictures.

use anyhow::Result;
use image::RgbImage;
use tch::Tensor;

use super::pictures::{map_picture, smoothed};
use crate::convert::{painted, ramp_picture, to_picture};
use crate::figure::{Palette, Scaling, colormap, draw_contour};
use crate::report::photograph_area;

/// The part of the largest saliency at which the line on the maps is drawn.
const CONTOUR: f32 = 0.5;

/// The longer side of the picture of a saliency on a page, pixels.
const SALIENCY_SIDE: f64 = 160.0;

/// What all pictures of a run have in common.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// How components become colours.
    pub palette: Palette,
    /// How maps are enlarged.
    pub scaling: Scaling,
    /// Whether pixels can be left out: they are hatched.
    pub leaves_out: bool,
    /// The largest saliency of all images, if they have one scale.
    pub scale: Option<f32>,
}

impl Look {
    /// The largest value on the scale of a saliency: its own unless all have one scale.
    pub fn most(&self, saliency: &Tensor) -> f32 {
        self.scale
            .unwrap_or_else(|| saliency.max().double_value(&[]) as f32)
    }

    /// Whether marks are drawn on the maps: hatches, or a line around what is salient.
    pub fn marks_maps(&self, has_saliency: bool) -> bool {
        self.leaves_out || has_saliency
    }

    /// The picture of a map `[3,H,W]` or `[4,H,W]`: at its own size, or at that size (width, height)
    /// if marks are drawn on it.
    ///
    /// # Errors
    /// Returns an error if the map has another shape.
    pub fn map(
        &self,
        map: &Tensor,
        saliency: Option<&Tensor>,
        size: (u32, u32),
    ) -> Result<RgbImage> {
        match self.marks_maps(saliency.is_some()) {
            true => self.map_at(map, saliency, size),
            false => to_picture(&painted(map, self.palette)?),
        }
    }

    /// The picture of a map with its marks, of that size: hatches where it is left out, and a line
    /// around what is salient.
    ///
    /// # Errors
    /// Returns an error if the map has another shape.
    pub fn map_at(
        &self,
        map: &Tensor,
        saliency: Option<&Tensor>,
        size: (u32, u32),
    ) -> Result<RgbImage> {
        let colours = painted(map, self.palette)?;
        let mut picture = map_picture(&colours, size, self.scaling)?;
        let salient = saliency.map(|saliency| (saliency, self.most(saliency)));
        if let Some((saliency, most)) = salient.filter(|&(_, most)| most > 0.0) {
            let values = smoothed(&(saliency / f64::from(most)), size)?;
            draw_contour(&mut picture, &values, CONTOUR);
        }
        Ok(picture)
    }

    /// The picture of a saliency `[h,w]` on its scale, a pixel for each value.
    ///
    /// # Errors
    /// Returns an error if it has another shape.
    pub fn saliency(&self, saliency: &Tensor) -> Result<RgbImage> {
        let range = self.scale.map(|most| [0.0, most]);
        ramp_picture(saliency, range, colormap::magma)
    }

    /// The pictures of a map and its saliency on a page of `count` images, where the map is drawn
    /// at most at that size.
    ///
    /// # Errors
    /// Returns an error if one has another shape.
    pub fn on_page(
        &self,
        map: &Tensor,
        saliency: Option<&Tensor>,
        drawn: (u32, u32),
        count: usize,
    ) -> Result<(RgbImage, Option<RgbImage>)> {
        let pixels = f64::from(drawn.0) * f64::from(drawn.1);
        let factor = (photograph_area(count) / pixels).sqrt().min(1.0);
        let map = self.map(map, saliency, scaled(drawn, factor))?;
        let smooth = saliency.map(|saliency| {
            let size = scaled(drawn, SALIENCY_SIDE / f64::from(drawn.0.max(drawn.1)));
            let most = self.most(saliency);
            let values = Tensor::from_slice(&smoothed(saliency, size)?);
            let values = values.reshape([i64::from(size.1), i64::from(size.0)]);
            let range = [0.0, if most > 0.0 { most } else { 1.0 }];
            ramp_picture(&values, Some(range), colormap::magma)
        });
        Ok((map, smooth.transpose()?))
    }
}

fn scaled((width, height): (u32, u32), factor: f64) -> (u32, u32) {
    let side = |side: u32| ((f64::from(side) * factor).round() as u32).max(1);
    (side(width), side(height))
}
