//! Pages and pictures as files.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::Write as _;
use std::ops::Range;
use std::sync::mpsc::{Receiver, sync_channel};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fast_image_resize::Resizer;
use image::RgbImage;
use jpeg_encoder::{
    ColorType, Encoder, ImageBuffer, JpegColorType, PixelDensity, PixelDensityUnit, SamplingFactor,
    rgb_to_ycbcr,
};

use super::About;
use super::colormap::Rgb;
use super::sheet::{Ink, JPEG_LONGEST_SIDE, Page, Scaling, resized, size_of};
use super::text::{Align, FAMILIES, Lettering, Weight};
use crate::threads::or_resume;

/// Density written into the files, in pixels per inch.
pub const DENSITY: u16 = 150;

const INCHES_PER_METRE: f64 = 39.370_08;
const JPEG_QUALITY: u8 = 95;
const SCREEN_QUALITY: u8 = 90;

/// SOI and the JFIF segment, with which a JPEG begins.
const JFIF_LENGTH: usize = 20;
const COMMENT: [u8; 2] = [0xff, 0xfe];

/// A page as SVG, with its pictures inside. Smooth ones keep their own resolution and are enlarged
/// by the viewer; blocks come at their full size, for no viewer is to blur them.
pub(super) fn svg(page: &Page<'_, '_>) -> Result<String> {
    let (width, height) = (page.width, page.height);
    // xlink:href: what old and new viewers alike understand.
    let mut svg = format!(
        "<svg width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         xmlns=\"http://www.w3.org/2000/svg\" xmlns:xlink=\"http://www.w3.org/1999/xlink\">\n"
    );
    let about = page.sheet.about.lines();
    if !about.is_empty() {
        writeln!(svg, "<metadata>{}</metadata>", escaped(&about))?;
    }
    writeln!(
        svg,
        r##"<rect width="{width}" height="{height}" fill="#FFFFFF"/>"##
    )?;
    let (dx, dy) = page.shift;
    let mut resizer = Resizer::new();
    for mark in &page.sheet.marks {
        let area = mark.area.shifted(dx, dy);
        let (left, top, (width, height)) = (area.left, area.top, size_of(area));
        let place = format!(r#"x="{left}" y="{top}" width="{width}" height="{height}""#);
        match &mark.ink {
            Ink::Fill(colour) => writeln!(svg, r#"<rect {place} fill="{}"/>"#, hex(*colour))?,
            Ink::Picture(image, scaling) => {
                let mut image = image.pixels()?;
                if *scaling == Scaling::Blocks {
                    image = Cow::Owned(resized(&mut resizer, &image, (width, height), *scaling)?);
                }
                let data = STANDARD.encode(encode_png(&image, &About::default())?);
                let link = format!("data:image/png;base64,{data}");
                let scaled = r#"preserveAspectRatio="none""#;
                writeln!(svg, r#"<image {place} {scaled} xlink:href="{link}"/>"#)?;
            }
            Ink::Text(text, (x, y), style) => {
                let looks = looks(style, (x + dx, y + dy));
                // A viewer's own font is no wider than ours then.
                let length = style.length(text).ceil();
                let fitted = format!(r#"textLength="{length}" lengthAdjust="spacingAndGlyphs""#);
                writeln!(svg, "<text {looks} {fitted}>{}</text>", escaped(text))?;
            }
            Ink::Shape(corners, colour) => {
                let corners = corners.iter().map(|(x, y)| (x + dx as f32, y + dy as f32));
                let points: String = corners.map(|(x, y)| format!("{x:.2},{y:.2} ")).collect();
                let fill = hex(*colour);
                writeln!(svg, r#"<polygon points="{points}" fill="{fill}"/>"#)?;
            }
        }
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

/// How an SVG says what a text looks like.
fn looks(style: &Lettering, (x, y): (i32, i32)) -> String {
    let anchor = match style.align {
        Align::Start => "start",
        Align::Middle => "middle",
        Align::End => "end",
    };
    let weight = match style.weight {
        Weight::Regular => "",
        Weight::Semibold => r#" font-weight="bold""#,
    };
    let turn = match style.upwards {
        true => format!(r#" transform="rotate(270, {x}, {y})""#),
        false => String::new(),
    };
    let (size, fill) = ((style.em * 100.0).round() / 100.0, hex(style.colour));
    format!(
        "x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\" font-family=\"{FAMILIES}\" \
         font-size=\"{size}\"{weight} fill=\"{fill}\"{turn}"
    )
}

fn hex([r, g, b]: Rgb) -> String {
    format!("#{r:02X}{g:02X}{b:02X}")
}

/// Text as XML holds it.
fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}

/// The rows of a page for an encoder, which asks for them from the first to the last.
struct Rows {
    width: u16,
    height: u16,
    /// The stretches of the page, as they are drawn.
    bands: Receiver<(Range<u32>, Planes)>,
    /// The stretch that the encoder is in.
    drawn: RefCell<(Range<u32>, Planes)>,
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
        let (row, mut drawn) = (u32::from(y), self.drawn.borrow_mut());
        if row >= drawn.0.end {
            match self.bands.recv() {
                Ok(next) => *drawn = next,
                // The stretch could not be drawn, so the file is thrown away.
                Err(_) => *drawn = (row..row + 1, planes(&vec![0; 3 * usize::from(self.width)])),
            }
        }
        let length = usize::from(self.width);
        let start = (row - drawn.0.start) as usize * length;
        for (buffer, plane) in buffers.iter_mut().zip(&drawn.1) {
            buffer.extend_from_slice(&plane[start..start + length]);
        }
    }
}

/// Luma, blue and red differences of pixels.
type Planes = [Vec<u8>; 3];

fn planes(pixels: &[u8]) -> Planes {
    let mut planes = [(); 3].map(|()| vec![0; pixels.len() / 3]);
    let [luma, blue, red] = &mut planes;
    let places = luma.iter_mut().zip(blue).zip(red);
    for (pixel, ((y, cb), cr)) in pixels.chunks_exact(3).zip(places) {
        (*y, *cb, *cr) = rgb_to_ycbcr(pixel[0], pixel[1], pixel[2]);
    }
    planes
}

/// A page as JPEG, 4:4:4.
pub(super) fn jpeg(page: &Page<'_, '_>) -> Result<Vec<u8>> {
    let (width, height) = (page.width, page.height);
    ensure!(
        width.max(height) <= JPEG_LONGEST_SIDE,
        "a figure of {width}x{height} pixels does not fit a JPEG (at most {JPEG_LONGEST_SIDE} on \
         a side): choose PNG or put fewer images in it"
    );
    let mut file = Vec::new();
    // Faster by far than image's own encoder, and it takes the rows as they come.
    let mut encoder = Encoder::new(&mut file, JPEG_QUALITY);
    encoder.set_sampling_factor(SamplingFactor::R_4_4_4);
    encoder.set_density(PixelDensity {
        unit: PixelDensityUnit::Inches,
        density: (DENSITY, DENSITY),
    });
    // A band is drawn while the one before is encoded: 3 of 13 ms an image.
    let (sender, receiver) = sync_channel(0);
    let rows = Rows {
        width: width as u16,
        height: height as u16,
        bands: receiver,
        drawn: RefCell::new((0..0, Planes::default())),
    };
    std::thread::scope(|scope| {
        let encoding = scope.spawn(move || encoder.encode_image(rows));
        let sender = sender; // dropped on an error, so that the encoder waits no longer
        for rows in page.bands() {
            let band = planes(&page.draw(&rows)?);
            let _ = sender.send((rows, band)); // nobody listens if encoding failed
        }
        or_resume(encoding.join()).context("cannot encode the figure as JPEG")
    })?;
    let about = page.sheet.about.lines();
    if !about.is_empty() {
        let length = u16::try_from(about.len() + 2)?.to_be_bytes();
        let segment = [&COMMENT[..], &length, about.as_bytes()].concat();
        file.splice(JFIF_LENGTH..JFIF_LENGTH, segment);
    }
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

/// A page as PNG.
pub(super) fn png(page: &Page<'_, '_>) -> Result<Vec<u8>> {
    let bands = page.bands().into_iter();
    let bands = bands.map(|rows| Ok(Cow::Owned(page.draw(&rows)?)));
    png_of((page.width, page.height), &page.sheet.about, bands)
}

/// A picture as PNG, which says where it is from.
///
/// # Errors
/// If it has no pixels.
pub fn encode_png(picture: &RgbImage, about: &About) -> Result<Vec<u8>> {
    let whole = [Ok(Cow::Borrowed(picture))];
    png_of(picture.dimensions(), about, whole.into_iter())
}

/// A PNG of that width and height, from stretches of its rows.
fn png_of<'a>(
    (width, height): (u32, u32),
    about: &About,
    bands: impl Iterator<Item = Result<Cow<'a, RgbImage>>>,
) -> Result<Vec<u8>> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::Fast);
    let per_metre = (f64::from(DENSITY) * INCHES_PER_METRE).round() as u32;
    encoder.set_pixel_dims(Some(png::PixelDimensions {
        xppu: per_metre,
        yppu: per_metre,
        unit: png::Unit::Meter,
    }));
    for (key, text) in about.entries() {
        // tEXt, which every reader knows, holds Latin-1 only.
        match text.is_ascii() {
            true => encoder.add_text_chunk(key.to_owned(), text)?,
            false => encoder.add_itxt_chunk(key.to_owned(), text)?,
        }
    }
    let mut writer = encoder.write_header()?;
    let mut stream = writer.stream_writer()?;
    for band in bands {
        stream.write_all(&band?)?;
    }
    stream.finish()?;
    writer.finish()?;
    Ok(file)
}
