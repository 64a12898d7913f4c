//! What a run shows: its figures, pictures and page, one image after the other.

use std::borrow::Cow;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use image::{ImageFormat, RgbImage};
use tch::{Kind, Tensor};

use crate::classes::Class;
use crate::convert::{ramp_picture, to_picture};
use crate::figure::{self, Column, MapFigure, Panel, Picture, Scaling, colormap, most_images};
use crate::map::Maps;
use crate::options::Options;
use crate::output::Outputs;
use crate::report;
use crate::spool::Sequence;
use crate::threads::join_or_resume;

/// Opacity of the maps over the pictures where none is asked for.
const OVERLAY: f64 = 0.5;

/// The longest part of an image's name that its files take over, in bytes: file systems
/// allow 255 of the whole.
const LONGEST_STEM: usize = 160;

/// The picture of an image for a figure, where it is kept.
#[derive(Debug)]
struct Kept<'a> {
    pictures: &'a Sequence,
    image: usize,
}

impl Picture for Kept<'_> {
    fn size(&self) -> (u32, u32) {
        match self.pictures.shape() {
            &[height, width, _] => (width as u32, height as u32),
            _ => (0, 0),
        }
    }

    fn pixels(&self) -> Result<Cow<'_, RgbImage>> {
        let bytes = self.pictures.get(self.image..self.image + 1)?;
        let bytes = Vec::<u8>::try_from(bytes.reshape([-1]))?;
        let (width, height) = self.size();
        let picture = RgbImage::from_raw(width, height, bytes);
        Ok(Cow::Owned(picture.context("a picture is incomplete")?))
    }
}

/// What the figures show.
pub struct Shown<'a> {
    /// The maps.
    pub maps: &'a Maps,
    /// The pictures of the images.
    pub pictures: &'a Sequence,
    /// Paths of the images, as given.
    pub names: &'a [PathBuf],
    /// The top classes of each.
    pub classes: &'a [Vec<Class>],
    /// Names of the figure's rows.
    pub row_names: Vec<String>,
    /// The network's name.
    pub network: &'a str,
}

/// Draws the maps, as many to a figure as it holds, the variances, and what
/// `options` ask for of each image; returns the pictures of the page.
///
/// # Errors
/// Where something cannot be drawn or written.
pub fn draw(
    shown: &Shown<'_>,
    options: &Options,
    outputs: &mut Outputs,
) -> Result<Option<report::Gallery>> {
    let (maps, stem) = (shown.maps, shown.network);
    let asked = &options.output;
    let format = asked.format;
    let file = |name: String| asked.folder.join(format!("{name}.{}", format.extension()));
    let scaling = if options.gradual_extrapolation {
        Scaling::Smooth
    } else {
        Scaling::Blocks
    };
    let mut gallery = match &asked.report {
        Some(page) => Some(report::Gallery::new(page, maps.len(), outputs)?),
        None => None,
    };
    let folder = asked.folder.join(format!("PRISM_{stem}"));
    if asked.per_image {
        outputs.prepare(&folder)?;
    }
    let bar = options.notices.bar(maps.len(), "drawing");
    std::thread::scope(|scope| {
        let ratios = &maps.variance_ratio;
        let variances = scope.spawn(move || figure::draw_variance(ratios, format));
        let rows = shown.row_names.len().max(2);
        let picture = Kept {
            pictures: shown.pictures,
            image: 0,
        };
        let lines = shown.classes.first().map_or(0, Vec::len);
        let most = most_images(picture.size(), rows, lines, asked.figure_columns, format);
        for (index, start) in (0..maps.len()).step_by(most).enumerate() {
            let end = (start + most).min(maps.len());
            let mut columns = Vec::new();
            for image in start..end {
                let map = maps.map(image..image + 1)?.get(0);
                let saliency = maps.saliency.as_ref();
                let saliency = saliency.map(|all| all.get(image as i64).get(0));
                let picture = || Kept {
                    pictures: shown.pictures,
                    image,
                };
                let over = if asked.overlay.is_some() || asked.per_image {
                    let alpha = asked.overlay.unwrap_or(OVERLAY);
                    Some(overlaid(&*picture().pixels()?, &map, alpha, scaling)?)
                } else {
                    None
                };
                if let (true, Some(over)) = (asked.per_image, &over) {
                    let name = file_stem(image, maps.len(), &shown.names[image]);
                    let alone = to_picture(&scaled(&map, over.dimensions(), scaling))?;
                    for (kind, drawn) in [("map", &alone), ("overlay", over)] {
                        let path = folder.join(format!("{name}_{kind}.png"));
                        outputs.write(&path, |out| Ok(drawn.write_to(out, ImageFormat::Png)?))?;
                    }
                }
                columns.push(Column {
                    title: shown.classes[image].iter().map(Class::to_string).collect(),
                    panels: panels(
                        picture(),
                        &map,
                        over.filter(|_| asked.overlay.is_some()),
                        saliency.as_ref(),
                        scaling,
                        asked.split_rgb,
                    )?,
                });
                if let Some(gallery) = &mut gallery {
                    let saliency =
                        saliency.map(|saliency| ramp_picture(&saliency, colormap::magma));
                    gallery.add(
                        &file_stem(image, maps.len(), &shown.names[image]),
                        &*picture().pixels()?,
                        &to_picture(&map.narrow(0, 0, 3))?,
                        saliency.transpose()?.as_ref(),
                        outputs,
                    )?;
                }
                bar.inc(1);
            }
            let name = if maps.len() > most {
                format!("PRISM_{stem}_{:04}", index + 1)
            } else {
                format!("PRISM_{stem}")
            };
            let figure = MapFigure {
                columns,
                row_names: shown.row_names.clone(),
                most_columns: asked.figure_columns,
            };
            let drawn = figure::draw_maps(&figure, format)?;
            outputs.write(&file(name), |out| Ok(out.write_all(&drawn)?))?;
        }
        let drawn = join_or_resume(variances)?;
        outputs.write(&file(format!("PRISM_var_{stem}")), |out| {
            Ok(out.write_all(&drawn)?)
        })?;
        Ok(gallery)
    })
}

/// The panels of an image, in the order of [`row_names`].
fn panels<'a>(
    picture: Kept<'a>,
    map: &Tensor,
    over: Option<RgbImage>,
    saliency: Option<&Tensor>,
    scaling: Scaling,
    split_rgb: bool,
) -> Result<Vec<Panel<'a>>> {
    let mut panels = vec![
        Panel::new(picture, Scaling::Smooth),
        Panel::new(to_picture(map)?, scaling),
    ];
    panels.extend(over.map(|over| Panel::new(over, Scaling::Smooth)));
    if split_rgb {
        for (channel, ramp) in (0..).zip([colormap::reds, colormap::greens, colormap::blues]) {
            let picture = ramp_picture(&map.get(channel), ramp)?;
            panels.push(Panel::new(picture, scaling));
        }
    }
    if let Some(saliency) = saliency {
        panels.push(Panel::new(
            ramp_picture(saliency, colormap::magma)?,
            scaling,
        ));
    }
    Ok(panels)
}

/// The names of a figure's rows, where there are more than input and map.
pub fn row_names(options: &Options, saliency: Option<&str>) -> Vec<String> {
    let mut names = Vec::new();
    if options.output.overlay.is_some() {
        names.push("overlay".to_string());
    }
    if options.output.split_rgb {
        names.extend(["red", "green", "blue"].map(|name| format!("{name} (darker = more)")));
    }
    names.extend(saliency.map(String::from));
    if !names.is_empty() {
        names.splice(0..0, ["input", "PRISM"].map(String::from));
    }
    names
}

/// A map `[c,h,w]` at the size (width, height) of a picture.
fn scaled(map: &Tensor, (width, height): (u32, u32), scaling: Scaling) -> Tensor {
    let size = [i64::from(height), i64::from(width)];
    let map = map.unsqueeze(0);
    let scaled = match scaling {
        Scaling::Smooth => map.upsample_bilinear2d(size, false, None, None),
        Scaling::Blocks => map.upsample_nearest2d(size, None, None),
    };
    scaled.squeeze_dim(0)
}

/// A map `[3,h,w]` laid over a picture; where it has a fourth channel, a saliency, that
/// takes part in the opacity.
fn overlaid(picture: &RgbImage, map: &Tensor, alpha: f64, scaling: Scaling) -> Result<RgbImage> {
    let (width, height) = picture.dimensions();
    let map = scaled(map, (width, height), scaling);
    let below = Tensor::from_slice(picture.as_raw())
        .reshape([i64::from(height), i64::from(width), 3])
        .permute([2, 0, 1])
        .to_kind(Kind::Float)
        / 255.0;
    let change = map.narrow(0, 0, 3) - &below;
    let change = match map.size()[0] {
        4 => change * map.narrow(0, 3, 1),
        _ => change,
    };
    to_picture(&(below + change * alpha))
}

/// The beginning of the names of an image's files: its number, so that no two are the
/// same, and what its own name says.
fn file_stem(image: usize, count: usize, name: &Path) -> String {
    let digits = count.to_string().len().max(4);
    let stem = name.file_stem().unwrap_or_default().to_string_lossy();
    let mut plain = String::new();
    for c in stem.chars() {
        let known = c.is_alphanumeric() || "-_.".contains(c);
        let c = if known { c } else { '_' };
        if plain.len() + c.len_utf8() > LONGEST_STEM {
            break;
        }
        plain.push(c);
    }
    format!("{:0digits$}_{plain}", image + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    #[test]
    fn a_map_is_laid_over_a_picture() {
        let picture = RgbImage::from_pixel(2, 2, Rgb([100, 200, 0]));
        let map = Tensor::from_slice(&[1.0f32, 0.0, 0.5]).reshape([3, 1, 1]);
        let over = overlaid(&picture, &map, 0.25, Scaling::Smooth).unwrap();
        // 100 + 155 / 4, 200 - 200 / 4, 127.5 / 4
        assert_eq!(over.get_pixel(1, 1).0, [139, 150, 32]);
        let map = Tensor::from_slice(&[1.0f32, 0.0, 0.5, 0.0]).reshape([4, 1, 1]);
        let over = overlaid(&picture, &map, 1.0, Scaling::Blocks).unwrap();
        assert_eq!(over, picture, "what is not salient is not covered");
    }

    #[test]
    fn files_of_images_have_names_of_their_own() {
        let stem = |image, name: &str| file_stem(image, 20, Path::new(name));
        assert_eq!(stem(0, "a/dog.jpg"), "0001_dog");
        assert_eq!(stem(1, "b/dog.png"), "0002_dog");
        assert_eq!(stem(2, "a b/\n$(x) \u{e9}.png"), "0003____x__\u{e9}");
        assert_eq!(file_stem(99_999, 100_000, Path::new("x")), "100000_x");
        assert!(stem(3, &"long".repeat(99)).len() <= 165);
        assert!(stem(3, &"\u{732b}".repeat(80)).len() <= 165);
    }
}
