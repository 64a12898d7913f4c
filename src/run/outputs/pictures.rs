//! Pictures that several outputs show, and the names of their files.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use fast_image_resize as fir;
use image::RgbImage;
use tch::{Kind, Tensor};

use crate::convert::{ramp_picture, to_picture};
use crate::figure::colormap::{Rgb, hatch};
use crate::figure::{Picture, Scaling};
use crate::spool::Sequence;

/// Opacity of the maps over the pictures unless another is requested.
pub const OVERLAY: f64 = 0.5;

/// Longest part of an image's name in the names of its files, bytes: file systems
/// allow 255 for the whole name.
const LONGEST_STEM: usize = 160;

/// The picture of an image, which is loaded when it is drawn.
#[derive(Debug, Clone, Copy)]
pub struct StoredPicture<'a>(pub &'a Sequence);

impl StoredPicture<'_> {
    /// The picture.
    ///
    /// # Errors
    /// Returns an error if it cannot be read back.
    pub fn load(&self) -> Result<RgbImage> {
        let bytes = self.0.get(0..1)?;
        let bytes = Vec::<u8>::try_from(bytes.reshape([-1]))?;
        let (width, height) = self.size();
        RgbImage::from_raw(width, height, bytes).context("a picture is incomplete")
    }
}

impl Picture for StoredPicture<'_> {
    fn size(&self) -> (u32, u32) {
        match self.0.shape() {
            &[height, width, _] => (width as u32, height as u32),
            _ => (0, 0),
        }
    }

    fn pixels(&self) -> Result<Cow<'_, RgbImage>> {
        self.load().map(Cow::Owned)
    }
}

/// A picture that is made when it is drawn, while other threads code what was drawn before.
pub struct LazyPicture<F> {
    size: (u32, u32),
    make: F,
}

impl<F: Fn() -> Result<RgbImage>> LazyPicture<F> {
    /// The picture of that width and height that `make` returns.
    pub fn new(size: (u32, u32), make: F) -> LazyPicture<F> {
        LazyPicture { size, make }
    }
}

impl<F> fmt::Debug for LazyPicture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (width, height) = self.size;
        write!(f, "a picture of {width}x{height} pixels")
    }
}

impl<F: Fn() -> Result<RgbImage>> Picture for LazyPicture<F> {
    fn size(&self) -> (u32, u32) {
        self.size
    }

    fn pixels(&self) -> Result<Cow<'_, RgbImage>> {
        let picture = (self.make)()?;
        debug_assert_eq!(picture.dimensions(), self.size);
        Ok(Cow::Owned(picture))
    }
}

/// A map `[c,h,w]` resized to the size (width, height) of a picture.
pub fn scaled(map: &Tensor, (width, height): (u32, u32), scaling: Scaling) -> Tensor {
    let size = [i64::from(height), i64::from(width)];
    let map = map.unsqueeze(0);
    let scaled = match scaling {
        Scaling::Smooth => map.upsample_bilinear2d(size, false, None, None),
        Scaling::Blocks => map.upsample_nearest2d(size, None, None),
    };
    scaled.squeeze_dim(0)
}

/// A quantity `[h,w]`, enlarged as figures enlarge pictures, as values for the pixels of a picture of that size (width, height),
/// row by row.
///
/// # Errors
/// Returns an error if it has another shape.
pub fn smoothed(quantity: &Tensor, (width, height): (u32, u32)) -> Result<Vec<f32>> {
    let (rows, columns) = quantity.size2()?;
    let values = Vec::<f32>::try_from(quantity.to_kind(Kind::Float).contiguous().view([-1]))?;
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_ne_bytes())
        .collect();
    let kind = fir::PixelType::F32;
    let source = fir::images::Image::from_vec_u8(columns as u32, rows as u32, bytes, kind)?;
    let mut target = fir::images::Image::new(width, height, kind);
    let as_drawn = fir::ResizeAlg::Convolution(fir::FilterType::CatmullRom);
    let options = fir::ResizeOptions::new().resize_alg(as_drawn);
    fir::Resizer::new().resize(&source, &mut target, &options)?;
    let value = |bytes: &[u8]| f32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    Ok(target.buffer().chunks_exact(4).map(value).collect())
}

/// The picture of a map `[c,h,w]` at the size (width, height) of a picture. Pixels that are left
/// out are hatched.
///
/// # Errors
/// Returns an error if the map has another shape.
pub fn map_picture(map: &Tensor, size: (u32, u32), scaling: Scaling) -> Result<RgbImage> {
    let map = scaled(map, size, scaling);
    let picture = to_picture(&map.nan_to_num(0.0, None, None))?;
    hatched(picture, &map.get(0))
}

/// The picture of a component `[h,w]`, which goes from 0 to 1, at that size. Pixels that are left
/// out are hatched.
///
/// # Errors
/// Returns an error if the component has another shape.
pub fn component_picture(
    component: &Tensor,
    size: (u32, u32),
    scaling: Scaling,
    ramp: fn(f32) -> Rgb,
) -> Result<RgbImage> {
    let values = scaled(&component.unsqueeze(0), size, scaling).get(0);
    hatched(ramp_picture(&values, Some([0.0, 1.0]), ramp)?, &values)
}

/// The picture with hatches where `values` `[h,w]` are NaN.
fn hatched(mut picture: RgbImage, values: &Tensor) -> Result<RgbImage> {
    let left_out = Vec::<bool>::try_from(values.isnan().contiguous().view([-1]))?;
    for ((x, y, pixel), _) in (picture.enumerate_pixels_mut().zip(left_out)).filter(|(_, out)| *out)
    {
        pixel.0 = hatch(x, y);
    }
    Ok(picture)
}

/// A map `[3,h,w]` blended over a picture with opacity `alpha`; a fourth channel, the
/// saliency, multiplies the opacity. Pixels that are left out stay as they are.
///
/// # Errors
/// Returns an error if the map has another shape.
pub fn overlaid(
    picture: &RgbImage,
    map: &Tensor,
    alpha: f64,
    scaling: Scaling,
) -> Result<RgbImage> {
    let (width, height) = picture.dimensions();
    let map = scaled(map, (width, height), scaling);
    let below = Tensor::from_slice(picture.as_raw())
        .reshape([i64::from(height), i64::from(width), 3])
        .permute([2, 0, 1])
        .to_kind(Kind::Float)
        / 255.0;
    let change = (map.narrow(0, 0, 3) - &below).nan_to_num(0.0, None, None);
    let change = match map.size()[0] {
        4 => change * map.narrow(0, 3, 1),
        _ => change,
    };
    to_picture(&(below + change * alpha))
}

/// The names of images in figures: the last part of each path, with as many folders before it
/// as tell equal ones apart.
pub fn shown_names(paths: &[PathBuf]) -> Vec<String> {
    let lengths: Vec<usize> = paths.iter().map(|path| path.iter().count()).collect();
    let mut kept = vec![1; paths.len()];
    loop {
        let names = paths.iter().zip(&lengths).zip(&kept);
        let names = names.map(|((path, length), kept)| {
            let parts = path.iter().skip(length.saturating_sub(*kept));
            let parts: Vec<_> = parts.map(OsStr::to_string_lossy).collect();
            parts.join("/").replace("//", "/")
        });
        let names: Vec<String> = names.collect();
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for name in &names {
            *counts.entry(name).or_default() += 1;
        }
        let mut is_done = true;
        for ((name, length), kept) in names.iter().zip(&lengths).zip(&mut kept) {
            if counts[name.as_str()] > 1 && *kept < *length {
                *kept += 1;
                is_done = false;
            }
        }
        if is_done {
            return names;
        }
    }
}

/// The beginning of the names of an image's files: its number, which makes the name unique,
/// and its own name without unusual characters.
pub fn file_stem(image: usize, count: usize, name: &Path) -> String {
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
    use crate::figure::colormap::{STRIPES, greys};
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
    fn pixels_that_are_left_out_are_hatched_in_no_quantised_colour() {
        let map = Tensor::from_slice(&[0.5f32, f32::NAN]).reshape([1, 1, 2]);
        let picture =
            map_picture(&map.expand([3, 1, 2], false), (48, 24), Scaling::Blocks).unwrap();
        let right: Vec<[u8; 3]> = (24..48).map(|x| picture.get_pixel(x, 0).0).collect();
        assert_eq!(picture.get_pixel(23, 0).0, [128; 3]);
        for grey in STRIPES {
            assert_eq!(
                right.iter().filter(|&&pixel| pixel == [grey; 3]).count(),
                12
            );
            assert!(![0, 127, 128, 255].contains(&grey));
        }
        let component = component_picture(&map.get(0), (48, 24), Scaling::Blocks, greys).unwrap();
        assert_eq!(component.get_pixel(0, 0).0, greys(0.5));
        for (x, pixel) in (24..48).zip(right) {
            assert_eq!(component.get_pixel(x, 0).0, pixel);
        }
        let photograph = RgbImage::from_pixel(2, 1, Rgb([10, 20, 30]));
        let over = overlaid(
            &photograph,
            &map.expand([3, 1, 2], false),
            1.0,
            Scaling::Blocks,
        )
        .unwrap();
        assert_eq!(over.get_pixel(1, 0).0, [10, 20, 30]);
    }

    #[test]
    fn images_are_named_by_file_and_if_need_be_by_folder() {
        let names =
            |paths: &[&str]| shown_names(&paths.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(names(&["a/dog.jpg", "a/cat.jpg"]), ["dog.jpg", "cat.jpg"]);
        assert_eq!(
            names(&[
                "x/a/dog.jpg",
                "y/a/dog.jpg",
                "b/dog.jpg",
                "dog.jpg",
                "a/cat.jpg"
            ]),
            [
                "x/a/dog.jpg",
                "y/a/dog.jpg",
                "b/dog.jpg",
                "dog.jpg",
                "cat.jpg"
            ]
        );
        assert_eq!(names(&["/a.png", "/b/a.png"]), ["/a.png", "b/a.png"]);
        assert_eq!(names(&["in.npz:0", "in.npz:1"]), ["in.npz:0", "in.npz:1"]);
        assert_eq!(names(&["a.png", "a.png"]), ["a.png", "a.png"]);
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
