//! A sheet: marks placed on a white page, and the page as a file.
//!
//! Who composes a figure places marks anywhere; the page is then cut around
//! them with the same margin on all four sides.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::ops::Range;
use std::sync::mpsc::{Receiver, sync_channel};

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine as _;
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::RgbImage;
use jpeg_encoder::{
    ColorType, Encoder, ImageBuffer, JpegColorType, PixelDensity, PixelDensityUnit, SamplingFactor,
    rgb_to_ycbcr,
};
use plotters::backend::{BitMapBackend, SVGBackend};
use plotters_backend::{BackendColor, DrawingBackend};

use super::FigureFormat;
use super::colormap::Rgb;
use super::text::{Bounds, Lettering, one_line};
use crate::threads::or_resume;

/// White space around the marks, in pixels.
pub const MARGIN: i32 = 40;

/// Density written into the files, in pixels per inch.
pub const DENSITY: u16 = 150;

const JPEG_QUALITY: u8 = 95;
const SCREEN_QUALITY: u8 = 90;

/// A JPEG's sides are 16-bit numbers.
pub const JPEG_LONGEST_SIDE: u32 = 65_535;

/// More than this is a slip, not a figure.
const MOST_PIXELS: u64 = 1 << 29;

const INCHES_PER_METRE: f64 = 39.370_08;

const WHITE: Rgb = [255, 255, 255];

/// How a picture is brought to the size at which it is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scaling {
    /// Smoothly (Catmull-Rom).
    Smooth,
    /// Each pixel becomes a block of one colour, as far as the picture is enlarged.
    Blocks,
}

/// A picture whose size is known before its pixels are there, which are asked for
/// only while they are drawn.
pub trait Picture: fmt::Debug {
    /// Width and height, in pixels.
    fn size(&self) -> (u32, u32);

    /// Its pixels.
    ///
    /// # Errors
    /// Where they cannot be had.
    fn pixels(&self) -> Result<Cow<'_, RgbImage>>;
}

impl Picture for RgbImage {
    fn size(&self) -> (u32, u32) {
        self.dimensions()
    }

    fn pixels(&self) -> Result<Cow<'_, RgbImage>> {
        Ok(Cow::Borrowed(self))
    }
}

enum Mark<'a> {
    Fill {
        area: Bounds,
        colour: Rgb,
    },
    Picture {
        area: Bounds,
        image: &'a dyn Picture,
        scaling: Scaling,
    },
    Text {
        text: String,
        at: (i32, i32),
        lettering: Lettering,
    },
    Cross {
        area: Bounds,
        width: f32,
        colour: Rgb,
    },
}

impl Mark<'_> {
    fn bounds(&self) -> Option<Bounds> {
        match self {
            Mark::Fill { area, .. } | Mark::Picture { area, .. } | Mark::Cross { area, .. } => {
                Some(*area)
            }
            Mark::Text {
                text,
                at,
                lettering,
            } => lettering.ink(text, *at),
        }
    }
}

/// Marks on a white page of no fixed size.
#[derive(Default)]
pub struct Sheet<'a> {
    marks: Vec<Mark<'a>>,
}

/// Size of the page and what is added to the marks' coordinates.
struct Page {
    width: u32,
    height: u32,
    shift: (i32, i32),
}

impl<'a> Sheet<'a> {
    /// A filled rectangle. Later marks cover earlier ones; pictures cover all.
    pub fn fill(&mut self, area: Bounds, colour: Rgb) {
        self.marks.push(Mark::Fill { area, colour });
    }

    /// A picture, brought to the size of `area`.
    pub fn picture(&mut self, area: Bounds, image: &'a dyn Picture, scaling: Scaling) {
        self.marks.push(Mark::Picture {
            area,
            image,
            scaling,
        });
    }

    /// A line of text whose baseline passes through `at`.
    pub fn text(&mut self, text: &str, at: (i32, i32), lettering: Lettering) {
        self.marks.push(Mark::Text {
            text: one_line(text),
            at,
            lettering,
        });
    }

    /// An X of the given stroke width whose round ends touch the sides of the
    /// square `area`. Later crosses cover earlier ones; crosses cover all other marks.
    pub fn cross(&mut self, area: Bounds, width: f32, colour: Rgb) {
        self.marks.push(Mark::Cross {
            area,
            width,
            colour,
        });
    }

    /// The smallest rectangle around all marks.
    pub fn bounds(&self) -> Option<Bounds> {
        self.marks
            .iter()
            .filter_map(Mark::bounds)
            .reduce(Bounds::union)
    }

    /// The sheet as a file of the given format.
    ///
    /// # Errors
    /// If nothing is on the sheet, or the page is larger than the format allows.
    pub fn encode(&self, format: FigureFormat) -> Result<Vec<u8>> {
        let page = self.page()?;
        match format {
            FigureFormat::Jpg => jpeg(&Bands::of(self, page)),
            FigureFormat::Png => png_of(&Bands::of(self, page)),
            FigureFormat::Svg => Ok(self.svg(&page)?.into_bytes()),
        }
    }

    fn page(&self) -> Result<Page> {
        let Some(bounds) = self.bounds() else {
            bail!("nothing to draw in the figure");
        };
        let width = (bounds.right - bounds.left + 2 * MARGIN).unsigned_abs();
        let height = (bounds.bottom - bounds.top + 2 * MARGIN).unsigned_abs();
        if u64::from(width) * u64::from(height) > MOST_PIXELS {
            bail!(
                "a figure of {width}x{height} pixels is too large to draw: put fewer images in it"
            );
        }
        Ok(Page {
            width,
            height,
            shift: (MARGIN - bounds.left, MARGIN - bounds.top),
        })
    }

    /// Draws fills and texts, not pictures and crosses, on a backend of plotters that
    /// is as large as the page.
    fn draw_on<'m, B: DrawingBackend>(
        marks: impl IntoIterator<Item = &'m Mark<'a>>,
        backend: &mut B,
        page: &Page,
    ) -> Result<()>
    where
        B::ErrorType: 'static,
        'a: 'm,
    {
        let failed = |error| anyhow!("cannot draw the figure: {error}");
        let (dx, dy) = page.shift;
        let whole = (page.width as i32, page.height as i32);
        backend
            .draw_rect((0, 0), whole, &colour(WHITE), true)
            .map_err(failed)?;
        for mark in marks {
            match mark {
                Mark::Fill { area, colour: rgb } => {
                    let area = area.shifted(dx, dy);
                    let (from, to) = ((area.left, area.top), (area.right, area.bottom));
                    backend.draw_rect(from, to, &colour(*rgb), true)
                }
                Mark::Text {
                    text,
                    at: (x, y),
                    lettering,
                } => {
                    let position = lettering.position((x + dx, y + dy));
                    backend.draw_text(text, lettering, position)
                }
                Mark::Picture { .. } | Mark::Cross { .. } => Ok(()),
            }
            .map_err(failed)?;
        }
        Ok(())
    }

    /// The pictures and the areas of the page that they take.
    fn pictures(&self, page: &Page) -> impl Iterator<Item = (Bounds, &'a dyn Picture, Scaling)> {
        let (dx, dy) = page.shift;
        self.marks.iter().filter_map(move |mark| match *mark {
            Mark::Picture {
                area,
                image,
                scaling,
            } => Some((area.shifted(dx, dy), image, scaling)),
            _ => None,
        })
    }

    /// The crosses, where they are on the page.
    fn crosses(&self, page: &Page) -> impl Iterator<Item = Cross> {
        let (dx, dy) = page.shift;
        self.marks.iter().filter_map(move |mark| match *mark {
            Mark::Cross {
                area,
                width,
                colour,
            } => Some(Cross {
                area: area.shifted(dx, dy),
                width,
                colour,
            }),
            _ => None,
        })
    }

    /// The page as SVG, with its pictures inside. Smooth ones keep their own
    /// resolution and are enlarged by the viewer; blocks come at their full size,
    /// for no viewer is to blur them.
    fn svg(&self, page: &Page) -> Result<String> {
        let mut svg = String::new();
        let mut backend = SVGBackend::with_string(&mut svg, (page.width, page.height));
        Self::draw_on(&self.marks, &mut backend, page)?;
        backend
            .present()
            .map_err(|error| anyhow!("cannot draw the figure: {error}"))?;
        drop(backend);
        // plotters' own way to put a bitmap into an SVG names a MIME type that does not exist.
        let end = svg.rfind("</svg>").context("plotters left the SVG open")?;
        svg.truncate(end);
        let mut resizer = Resizer::new();
        for (area, image, scaling) in self.pictures(page) {
            let (width, height) = size_of(area);
            let image = image.pixels()?;
            let data = match scaling {
                Scaling::Smooth => png(image.as_raw(), image.width(), image.height())?,
                Scaling::Blocks => {
                    let scaled = resized(&mut resizer, &image, (width, height), scaling)?;
                    png(&scaled, width, height)?
                }
            };
            // xlink:href: what old and new viewers alike understand.
            write!(
                svg,
                "<image xmlns:xlink=\"http://www.w3.org/1999/xlink\" x=\"{}\" y=\"{}\" \
                 width=\"{width}\" height=\"{height}\" preserveAspectRatio=\"none\" \
                 xlink:href=\"data:image/png;base64,",
                area.left, area.top
            )?;
            base64::engine::general_purpose::STANDARD.encode_string(&data, &mut svg);
            svg.push_str("\"/>\n");
        }
        for cross in self.crosses(page) {
            cross.write_path(&mut svg)?;
        }
        svg.push_str("</svg>\n");
        Ok(svg)
    }
}

/// A page as stretches of rows, each drawn when it is needed: a page of 64 images as
/// a whole would take 100 MB.
struct Bands<'s, 'a> {
    sheet: &'s Sheet<'a>,
    page: Page,
    /// Rows of the stretches, top to bottom; none cuts a picture in two.
    rows: Vec<Range<u32>>,
    /// Rows that each mark touches.
    touched: Vec<Range<i32>>,
}

impl<'s, 'a> Bands<'s, 'a> {
    fn of(sheet: &'s Sheet<'a>, page: Page) -> Bands<'s, 'a> {
        let mut pictures: Vec<(u32, u32)> = sheet
            .pictures(&page)
            .map(|(area, _, _)| (area.top.max(0) as u32, area.bottom.max(0) as u32))
            .collect();
        pictures.sort_unstable();
        let mut cuts = vec![0];
        let mut reached = pictures.first().map_or(0, |&(_, bottom)| bottom);
        for (top, bottom) in pictures {
            if top >= reached {
                cuts.push(top);
            }
            reached = reached.max(bottom);
        }
        cuts.push(page.height);
        let touched = |mark: &Mark<'_>| {
            let bounds = mark.bounds()?.shifted(0, page.shift.1);
            Some(bounds.top..bounds.bottom)
        };
        let none = 0..0;
        let marks = sheet.marks.iter();
        Bands {
            rows: cuts.windows(2).map(|cut| cut[0]..cut[1]).collect(),
            touched: marks
                .map(|mark| touched(mark).unwrap_or(none.clone()))
                .collect(),
            sheet,
            page,
        }
    }

    /// The RGB pixels of a stretch of rows.
    fn draw(&self, rows: &Range<u32>) -> Result<Vec<u8>> {
        let (width, height) = (self.page.width, rows.end - rows.start);
        let top = rows.start as i32;
        let band = Page {
            width,
            height,
            shift: (self.page.shift.0, self.page.shift.1 - top),
        };
        let mut pixels = vec![255; width as usize * height as usize * 3];
        let mut backend = BitMapBackend::with_buffer(&mut pixels, (width, height));
        let marks = self.sheet.marks.iter().zip(&self.touched);
        let inside = marks
            .filter(|(_, touched)| touched.start < rows.end as i32 && touched.end > top)
            .map(|(mark, _)| mark);
        Sheet::draw_on(inside, &mut backend, &band)?;
        let mut resizer = Resizer::new();
        for (area, image, scaling) in self.sheet.pictures(&band) {
            if area.top < 0 || area.top >= height as i32 {
                continue;
            }
            let scaled = resized(&mut resizer, &*image.pixels()?, size_of(area), scaling)?;
            backend
                .blit_bitmap((area.left, area.top), size_of(area), &scaled)
                .map_err(|error| anyhow!("cannot draw the figure: {error}"))?;
        }
        drop(backend);
        for cross in self.sheet.crosses(&self.page) {
            cross.blend_into(&mut pixels, width as usize, rows);
        }
        Ok(pixels)
    }
}

/// A stretch of rows, and the brightness and the two chromas of their pixels.
type Drawn = (Range<u32>, [Vec<u8>; 3]);

/// RGB pixels as JPEG's three planes.
fn planes(pixels: &[u8]) -> [Vec<u8>; 3] {
    let mut planes = [(); 3].map(|()| vec![0; pixels.len() / 3]);
    let [luma, blue, red] = &mut planes;
    let places = luma.iter_mut().zip(blue).zip(red);
    for (pixel, ((y, cb), cr)) in pixels.chunks_exact(3).zip(places) {
        (*y, *cb, *cr) = rgb_to_ycbcr(pixel[0], pixel[1], pixel[2]);
    }
    planes
}

/// What an encoder asks for its rows, from the first to the last.
struct Rows {
    width: u16,
    height: u16,
    /// The stretches of the page, as they are drawn.
    bands: Receiver<Drawn>,
    /// The stretch that the encoder is in.
    drawn: RefCell<Drawn>,
}

impl ImageBuffer for Rows {
    fn get_jpeg_color_type(&self) -> JpegColorType {
        JpegColorType::Ycbcr
    }

    fn width(&self) -> u16 {
        self.width
    }

    fn height(&self) -> u16 {
        self.height
    }

    fn fill_buffers(&self, y: u16, buffers: &mut [Vec<u8>; 4]) {
        let row = u32::from(y);
        let mut drawn = self.drawn.borrow_mut();
        while row >= drawn.0.end {
            let Ok(next) = self.bands.recv() else {
                // A stretch could not be drawn, so the file is thrown away.
                for buffer in &mut buffers[..3] {
                    buffer.resize(buffer.len() + usize::from(self.width), 0);
                }
                return;
            };
            *drawn = next;
        }
        let length = usize::from(self.width);
        let start = (row - drawn.0.start) as usize * length;
        for (buffer, plane) in buffers.iter_mut().zip(&drawn.1) {
            buffer.extend_from_slice(&plane[start..start + length]);
        }
    }
}

/// A cross on the page. plotters draws slanting lines with ragged edges.
struct Cross {
    area: Bounds,
    width: f32,
    colour: Rgb,
}

impl Cross {
    /// Half the side of the square that has the ends of the strokes' middle lines
    /// for its corners.
    fn reach(&self) -> f32 {
        ((self.area.right - self.area.left) as f32 - self.width).max(0.0) / 2.0
    }

    /// The middle of the area.
    fn centre(&self) -> (f32, f32) {
        let middle = |from: i32, to: i32| (from + to) as f32 / 2.0;
        (
            middle(self.area.left, self.area.right),
            middle(self.area.top, self.area.bottom),
        )
    }

    /// Mixes the cross into some rows of RGB pixels of a page of that width, by how much
    /// of each pixel it covers.
    fn blend_into(&self, pixels: &mut [u8], page_width: usize, rows: &Range<u32>) {
        let (x, y) = self.centre();
        let length = self.reach() * std::f32::consts::SQRT_2;
        let distance = |along: f32, aside: f32| (along.abs() - length).max(0.0).hypot(aside);
        let (first, end) = (rows.start as i32, rows.end as i32);
        for row in self.area.top.max(first)..self.area.bottom.min(end) {
            for column in self.area.left..self.area.right {
                let (right, down) = (column as f32 + 0.5 - x, row as f32 + 0.5 - y);
                let falling = (right + down) * std::f32::consts::FRAC_1_SQRT_2;
                let rising = (right - down) * std::f32::consts::FRAC_1_SQRT_2;
                let nearest = distance(falling, rising).min(distance(rising, falling));
                let cover = (0.5 + self.width / 2.0 - nearest).clamp(0.0, 1.0);
                let start = ((row - first) as usize * page_width + column as usize) * 3;
                for (pixel, ink) in pixels[start..start + 3].iter_mut().zip(self.colour) {
                    let mixed = f32::from(*pixel) * (1.0 - cover) + f32::from(ink) * cover;
                    *pixel = mixed.round() as u8;
                }
            }
        }
    }

    fn write_path(&self, svg: &mut String) -> std::fmt::Result {
        let ((x, y), reach, width) = (self.centre(), self.reach(), self.width);
        let ([r, g, b], side) = (self.colour, 2.0 * reach);
        let (left, top) = (x - reach, y - reach);
        writeln!(
            svg,
            "<path d=\"M{left:.2} {top:.2}l{side:.2} {side:.2}m0 -{side:.2}l-{side:.2} {side:.2}\" \
             fill=\"none\" stroke=\"#{r:02X}{g:02X}{b:02X}\" stroke-width=\"{width:.2}\" \
             stroke-linecap=\"round\"/>"
        )
    }
}

fn colour([r, g, b]: Rgb) -> BackendColor {
    BackendColor {
        alpha: 1.0,
        rgb: (r, g, b),
    }
}

fn size_of(area: Bounds) -> (u32, u32) {
    (
        (area.right - area.left).unsigned_abs(),
        (area.bottom - area.top).unsigned_abs(),
    )
}

/// The pixels of `image` at another size.
fn resized(
    resizer: &mut Resizer,
    image: &RgbImage,
    (width, height): (u32, u32),
    scaling: Scaling,
) -> Result<Vec<u8>> {
    if image.dimensions() == (width, height) {
        return Ok(image.as_raw().clone());
    }
    let enlarged = image.width() <= width && image.height() <= height;
    let algorithm = if scaling == Scaling::Blocks && enlarged {
        ResizeAlg::Nearest
    } else {
        ResizeAlg::Convolution(FilterType::CatmullRom)
    };
    let source = ImageRef::new(
        image.width(),
        image.height(),
        image.as_raw(),
        PixelType::U8x3,
    )?;
    let mut scaled = Image::new(width, height, PixelType::U8x3);
    let options = ResizeOptions::new().resize_alg(algorithm);
    resizer.resize(&source, &mut scaled, &options)?;
    Ok(scaled.into_vec())
}

/// A JPEG, 4:4:4.
fn jpeg(bands: &Bands<'_, '_>) -> Result<Vec<u8>> {
    let (width, height) = (bands.page.width, bands.page.height);
    if width.max(height) > JPEG_LONGEST_SIDE {
        bail!(
            "a figure of {width}x{height} pixels does not fit a JPEG (at most {JPEG_LONGEST_SIDE} \
             on a side): choose PNG or put fewer images in it"
        );
    }
    let mut file = Vec::new();
    // Faster by far than image's own encoder, and it takes the rows as they come.
    let mut encoder = Encoder::new(&mut file, JPEG_QUALITY);
    encoder.set_sampling_factor(SamplingFactor::R_4_4_4);
    encoder.set_density(PixelDensity {
        unit: PixelDensityUnit::Inches,
        density: (DENSITY, DENSITY),
    });
    // One stretch is drawn while the one before is encoded.
    let (sender, receiver) = sync_channel(0);
    let rows = Rows {
        width: width as u16,
        height: height as u16,
        bands: receiver,
        drawn: RefCell::new((0..0, Default::default())),
    };
    std::thread::scope(|scope| {
        let encoding = scope.spawn(move || encoder.encode_image(rows));
        let sender = sender; // which an error drops, so that the encoder waits no longer
        for rows in &bands.rows {
            // Nobody listens where encoding has failed, which is told below.
            let _ = sender.send((rows.clone(), planes(&bands.draw(rows)?)));
        }
        or_resume(encoding.join()).context("cannot encode the figure as JPEG")
    })?;
    Ok(file)
}

/// A picture as JPEG, of a quality for screens.
///
/// # Errors
/// Where it is larger than the format holds.
pub fn encode_jpeg(picture: &RgbImage) -> Result<Vec<u8>> {
    let (width, height) = picture.dimensions();
    let (width, height) = (u16::try_from(width)?, u16::try_from(height)?);
    let mut file = Vec::new();
    Encoder::new(&mut file, SCREEN_QUALITY)
        .encode(picture.as_raw(), width, height, ColorType::Rgb)
        .context("cannot encode the picture as JPEG")?;
    Ok(file)
}

/// A figure as PNG, with its density.
fn png_of(bands: &Bands<'_, '_>) -> Result<Vec<u8>> {
    let mut file = Vec::new();
    let mut encoder = png_encoder(&mut file, bands.page.width, bands.page.height);
    let per_metre = (f64::from(DENSITY) * INCHES_PER_METRE).round() as u32;
    encoder.set_pixel_dims(Some(png::PixelDimensions {
        xppu: per_metre,
        yppu: per_metre,
        unit: png::Unit::Meter,
    }));
    let mut writer = encoder.write_header()?;
    let mut stream = writer.stream_writer()?;
    for rows in &bands.rows {
        stream.write_all(&bands.draw(rows)?)?;
    }
    stream.finish()?;
    writer.finish()?;
    Ok(file)
}

/// A PNG of RGB pixels.
fn png(pixels: &[u8], width: u32, height: u32) -> Result<Vec<u8>> {
    let mut file = Vec::new();
    let mut writer = png_encoder(&mut file, width, height).write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(file)
}

fn png_encoder(file: &mut Vec<u8>, width: u32, height: u32) -> png::Encoder<'_, &mut Vec<u8>> {
    let mut encoder = png::Encoder::new(file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    encoder
}

#[cfg(test)]
impl Sheet<'_> {
    /// The page before it is encoded.
    pub fn pixels(&self) -> RgbImage {
        let bands = Bands::of(self, self.page().unwrap());
        let pixels = bands.rows.iter().flat_map(|rows| bands.draw(rows).unwrap());
        let (width, height) = (bands.page.width, bands.page.height);
        RgbImage::from_raw(width, height, pixels.collect()).unwrap()
    }

    /// The same, drawn at once.
    pub fn pixels_at_once(&self) -> RgbImage {
        let bands = Bands::of(self, self.page().unwrap());
        let (width, height) = (bands.page.width, bands.page.height);
        RgbImage::from_raw(width, height, bands.draw(&(0..height)).unwrap()).unwrap()
    }

    /// The height of the page, pixels.
    pub fn pixel_height(&self) -> u32 {
        self.page().unwrap().height
    }

    /// The number of bands that it is drawn in.
    pub fn bands(&self) -> usize {
        Bands::of(self, self.page().unwrap()).rows.len()
    }

    /// The areas of the crosses of this colour, in the order of drawing.
    pub fn crosses_of(&self, rgb: Rgb) -> Vec<Bounds> {
        let of = |mark: &Mark<'_>| match mark {
            Mark::Cross { area, colour, .. } if *colour == rgb => Some(*area),
            _ => None,
        };
        self.marks.iter().filter_map(of).collect()
    }

    /// Where each text leaves ink.
    pub fn inks(&self) -> Vec<Bounds> {
        let ink = |mark: &Mark<'_>| match mark {
            Mark::Text {
                text,
                at,
                lettering,
            } => lettering.ink(text, *at),
            _ => None,
        };
        self.marks.iter().filter_map(ink).collect()
    }
}

/// Measures the white around all other pixels. A letter's rim may be too faint to see.
#[cfg(test)]
pub fn assert_equal_margins(pixels: &RgbImage) {
    let inked = |&(_, _, pixel): &(u32, u32, &image::Rgb<u8>)| pixel.0 != WHITE;
    let (mut left, mut top, mut right, mut bottom) = (u32::MAX, u32::MAX, 0, 0);
    for (x, y, _) in pixels.enumerate_pixels().filter(inked) {
        (left, top) = (left.min(x), top.min(y));
        (right, bottom) = (right.max(x), bottom.max(y));
    }
    let margins = [
        left,
        top,
        pixels.width() - 1 - right,
        pixels.height() - 1 - bottom,
    ];
    let least = MARGIN as u32;
    let equal = margins.iter().all(|m| (least..=least + 1).contains(m));
    assert!(equal, "left, top, right, bottom: {margins:?}");
}

#[cfg(test)]
mod tests {
    use super::super::text::Weight;
    use super::*;

    fn area(left: i32, top: i32, right: i32, bottom: i32) -> Bounds {
        Bounds {
            left,
            top,
            right,
            bottom,
        }
    }

    fn sheet() -> Sheet<'static> {
        let mut sheet = Sheet::default();
        sheet.fill(area(-30, 5, 90, 45), [180, 20, 20]);
        sheet
    }

    #[test]
    fn a_jpeg_has_its_size_density_and_full_chroma() {
        let file = sheet().encode(FigureFormat::Jpg).unwrap();
        // JFIF: density unit 1 (per inch), then 150 x 150.
        assert_eq!(&file[6..11], b"JFIF\0");
        assert_eq!(file[13..18], [1, 0, 150, 0, 150]);
        let frame = file.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
        let (height, width) = (120u16.to_be_bytes(), 200u16.to_be_bytes());
        assert_eq!(file[frame + 5..frame + 7], height);
        assert_eq!(file[frame + 7..frame + 9], width);
        // Three components, each sampled 1x1.
        let sampling: Vec<u8> = (0..3).map(|c| file[frame + 11 + 3 * c]).collect();
        assert_eq!(sampling, [0x11; 3]);
        let decoded = image::load_from_memory(&file).unwrap().to_rgb8();
        let inside = decoded.get_pixel(100, 60).0;
        assert!(
            inside
                .iter()
                .zip([180, 20, 20])
                .all(|(a, b)| a.abs_diff(b) < 4)
        );
    }

    #[test]
    fn a_jpeg_of_many_bands_is_the_page() {
        let picture = RgbImage::from_fn(8, 8, |x, y| image::Rgb([x as u8 * 30, y as u8 * 30, 90]));
        let mut sheet = Sheet::default();
        for row in 0..5 {
            let top = row * 70;
            sheet.picture(area(0, top, 60, top + 60), &picture, Scaling::Smooth);
        }
        assert_eq!(sheet.bands(), 5);
        let file = sheet.encode(FigureFormat::Jpg).unwrap();
        let decoded = image::load_from_memory(&file).unwrap().to_rgb8();
        let page = sheet.pixels();
        assert_eq!(decoded.dimensions(), page.dimensions());
        let apart = decoded.iter().zip(page.iter()).map(|(a, b)| a.abs_diff(*b));
        assert!(apart.max().unwrap() < 24);
    }

    #[test]
    fn a_picture_that_cannot_be_had_ends_the_figure_in_any_band() {
        #[derive(Debug)]
        struct Gone;
        impl Picture for Gone {
            fn size(&self) -> (u32, u32) {
                (8, 8)
            }

            fn pixels(&self) -> Result<Cow<'_, RgbImage>> {
                bail!("it is gone")
            }
        }
        let picture = RgbImage::new(8, 8);
        for bad in 0..3 {
            let mut sheet = Sheet::default();
            for row in 0..3 {
                let image: &dyn Picture = if row == bad { &Gone } else { &picture };
                let top = row * 70;
                sheet.picture(area(0, top, 60, top + 60), image, Scaling::Smooth);
            }
            for format in [FigureFormat::Jpg, FigureFormat::Png, FigureFormat::Svg] {
                let error = sheet.encode(format).unwrap_err();
                assert_eq!(error.root_cause().to_string(), "it is gone");
            }
        }
    }

    #[test]
    fn a_png_has_its_size_and_density() {
        let file = sheet().encode(FigureFormat::Png).unwrap();
        let reader = png::Decoder::new(std::io::Cursor::new(&file))
            .read_info()
            .unwrap();
        let info = reader.info();
        assert_eq!((info.width, info.height), (200, 120));
        // 150 / 0.0254 = 5905.5
        let density = info.pixel_dims.unwrap();
        assert_eq!((density.xppu, density.yppu), (5906, 5906));
        assert_eq!(density.unit, png::Unit::Meter);
    }

    #[test]
    fn an_svg_escapes_its_text_and_holds_its_pictures() {
        let picture = RgbImage::from_fn(3, 2, |x, y| image::Rgb([x as u8, y as u8, 9]));
        let mut sheet = sheet();
        let title = "<a> & \"b\"\u{1}ψ: 0.91";
        let style = Lettering::new(Weight::Regular, 20.0, [0, 0, 0]);
        sheet.text(title, (0, 0), style);
        sheet.picture(area(0, 50, 60, 90), &picture, Scaling::Smooth);
        sheet.picture(area(0, 100, 60, 140), &picture, Scaling::Blocks);
        let file = sheet.encode(FigureFormat::Svg).unwrap();
        let svg = String::from_utf8(file).unwrap();
        let document = roxmltree::Document::parse(&svg).unwrap();
        let named = |name| {
            document
                .descendants()
                .filter(move |node| node.tag_name().name() == name)
        };
        let text = named("text").next().unwrap();
        assert_eq!(text.text().unwrap().trim(), "<a> & \"b\" ψ: 0.91");
        let sizes: Vec<(u32, u32)> = named("image")
            .map(|node| {
                assert_eq!(node.attribute("width"), Some("60"));
                let link = node
                    .attribute(("http://www.w3.org/1999/xlink", "href"))
                    .unwrap();
                let data = link.strip_prefix("data:image/png;base64,").unwrap();
                let data = base64::engine::general_purpose::STANDARD
                    .decode(data)
                    .unwrap();
                image::load_from_memory(&data)
                    .unwrap()
                    .to_rgb8()
                    .dimensions()
            })
            .collect();
        assert_eq!(sizes, [(3, 2), (60, 40)]);
    }

    /// Pillow 12: `Image.resize((8, 1), Image.BICUBIC)` of the row 10, 250, 30, 120;
    /// its bicubic kernel (a = -0.5) is Catmull-Rom's.
    #[test]
    fn smooth_enlargement_is_catmull_rom() {
        let row = [10, 250, 30, 120].map(|v| [v; 3]).concat();
        let image = RgbImage::from_raw(4, 1, row).unwrap();
        let scaled = resized(&mut Resizer::new(), &image, (8, 1), Scaling::Smooth).unwrap();
        let expected = [0, 60, 212, 220, 74, 35, 98, 128];
        for (pixel, value) in scaled.chunks(3).zip(expected) {
            assert!(pixel[0].abs_diff(value) <= 1, "{scaled:?}");
        }
    }

    #[test]
    fn blocks_keep_their_colours_and_edges() {
        let image = RgbImage::from_fn(7, 7, |x, y| image::Rgb([x as u8 * 30, y as u8 * 30, 77]));
        let mut resizer = Resizer::new();
        let scaled = resized(&mut resizer, &image, (448, 448), Scaling::Blocks).unwrap();
        let scaled = RgbImage::from_raw(448, 448, scaled).unwrap();
        for (x, y, pixel) in scaled.enumerate_pixels() {
            assert_eq!(pixel, image.get_pixel(x / 64, y / 64), "{x} {y}");
        }
    }

    #[test]
    fn a_cross_fills_its_square_and_no_more() {
        let mut sheet = Sheet::default();
        sheet.cross(area(0, 0, 20, 20), 4.0, [200, 0, 0]);
        let pixels = sheet.pixels();
        let at = |x: u32, y: u32| pixels.get_pixel(MARGIN as u32 + x, MARGIN as u32 + y).0;
        // On both diagonals; their ends are round and touch the sides.
        for (x, y) in [(10, 10), (2, 2), (17, 2), (2, 17), (17, 17), (5, 14)] {
            assert_eq!(at(x, y), [200, 0, 0], "{x} {y}");
        }
        for (x, y) in [(10, 3), (3, 10), (16, 10), (10, 16), (0, 5)] {
            assert_eq!(at(x, y), WHITE, "{x} {y}");
        }
        assert!(
            pixels.pixels().any(|p| (1..255).contains(&p.0[1])),
            "no soft edge"
        );
        assert_equal_margins(&pixels);
        let svg = String::from_utf8(sheet.encode(FigureFormat::Svg).unwrap()).unwrap();
        let path = "M42.00 42.00l16.00 16.00m0 -16.00l-16.00 16.00";
        assert!(svg.contains(path), "{svg}");
    }

    #[test]
    fn pages_that_cannot_be_are_errors() {
        assert!(Sheet::default().encode(FigureFormat::Png).is_err());
        let mut long = Sheet::default();
        long.fill(area(0, 0, 65_500, 1), [0, 0, 0]);
        let error = long.encode(FigureFormat::Jpg).unwrap_err().to_string();
        assert!(error.contains("65580x81"), "{error}");
        assert!(long.encode(FigureFormat::Svg).is_ok());
        long.fill(area(0, 0, 65_500, 65_500), [0, 0, 0]);
        assert!(long.encode(FigureFormat::Png).is_err());
    }
}
