//! Pages and pictures as files.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::Write as _;
use std::ops::Range;
use std::sync::mpsc::{Receiver, sync_channel};

use anyhow::{Context, Result, bail};
use base64::Engine as _;
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
    let mut svg = format!(
        "<svg width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         xmlns=\"http://www.w3.org/2000/svg\">\n"
    );
    let about = page.sheet.about.lines();
    if !about.is_empty() {
        writeln!(svg, "<metadata>{}</metadata>", escaped(&about))?;
    }
    writeln!(
        svg,
        "<rect width=\"{width}\" height=\"{height}\" fill=\"#FFFFFF\"/>"
    )?;
    let (dx, dy) = page.shift;
    let mut resizer = Resizer::new();
    for mark in &page.sheet.marks {
        let area = mark.area.shifted(dx, dy);
        let (left, top, (width, height)) = (area.left, area.top, size_of(area));
        let place = format!("x=\"{left}\" y=\"{top}\" width=\"{width}\" height=\"{height}\"");
        match &mark.ink {
            Ink::Fill(colour) => writeln!(svg, "<rect {place} fill=\"{}\"/>", hex(*colour))?,
            Ink::Picture(image, scaling) => {
                let image = image.pixels()?;
                let data = match scaling {
                    Scaling::Smooth => encode_png(&image, &About::default())?,
                    Scaling::Blocks => {
                        let scaled = resized(&mut resizer, &image, (width, height), *scaling)?;
                        encode_png(&scaled, &About::default())?
                    }
                };
                // xlink:href: what old and new viewers alike understand.
                write!(
                    svg,
                    "<image xmlns:xlink=\"http://www.w3.org/1999/xlink\" {place} \
                     preserveAspectRatio=\"none\" xlink:href=\"data:image/png;base64,"
                )?;
                base64::engine::general_purpose::STANDARD.encode_string(&data, &mut svg);
                svg.push_str("\"/>\n");
            }
            Ink::Text(text, (x, y), style) => {
                let attributes = attributes(style, (x + dx, y + dy));
                // A viewer's own font is no wider than ours then.
                let length = style.length(text).ceil();
                writeln!(
                    svg,
                    "<text {attributes} textLength=\"{length}\" \
                     lengthAdjust=\"spacingAndGlyphs\">{}</text>",
                    escaped(text)
                )?;
            }
            Ink::Shape(corners, colour) => {
                svg.push_str("<polygon points=\"");
                for (x, y) in corners {
                    write!(svg, "{:.2},{:.2} ", x + dx as f32, y + dy as f32)?;
                }
                writeln!(svg, "\" fill=\"{}\"/>", hex(*colour))?;
            }
        }
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

/// How an SVG says what a text looks like.
fn attributes(style: &Lettering, (x, y): (i32, i32)) -> String {
    let anchor = match style.align {
        Align::Start => "start",
        Align::Middle => "middle",
        Align::End => "end",
    };
    let weight = match style.weight {
        Weight::Regular => "",
        Weight::Semibold => " font-weight=\"bold\"",
    };
    let turn = match style.upwards {
        true => format!(" transform=\"rotate(270, {x}, {y})\""),
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
    // A band is drawn while the one before is encoded: 1 of 11 ms an image.
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

/// A page as PNG, with its density.
pub(super) fn png(page: &Page<'_, '_>) -> Result<Vec<u8>> {
    let mut file = Vec::new();
    let mut encoder = png_encoder(&mut file, (page.width, page.height), &page.sheet.about)?;
    let per_metre = (f64::from(DENSITY) * INCHES_PER_METRE).round() as u32;
    encoder.set_pixel_dims(Some(png::PixelDimensions {
        xppu: per_metre,
        yppu: per_metre,
        unit: png::Unit::Meter,
    }));
    let mut writer = encoder.write_header()?;
    let mut stream = writer.stream_writer()?;
    for rows in page.bands() {
        stream.write_all(&page.draw(&rows)?)?;
    }
    stream.finish()?;
    writer.finish()?;
    Ok(file)
}

/// A picture as PNG, which says where it is from.
///
/// # Errors
/// If it has no pixels.
pub fn encode_png(picture: &RgbImage, about: &About) -> Result<Vec<u8>> {
    let mut file = Vec::new();
    let mut writer = png_encoder(&mut file, picture.dimensions(), about)?.write_header()?;
    writer.write_image_data(picture.as_raw())?;
    writer.finish()?;
    Ok(file)
}

fn png_encoder<'f>(
    file: &'f mut Vec<u8>,
    (width, height): (u32, u32),
    about: &About,
) -> Result<png::Encoder<'f, &'f mut Vec<u8>>> {
    let mut encoder = png::Encoder::new(file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    for (key, text) in about.entries() {
        // tEXt, which every reader knows, holds Latin-1 only.
        match text.is_ascii() {
            true => encoder.add_text_chunk(key.to_owned(), text)?,
            false => encoder.add_itxt_chunk(key.to_owned(), text)?,
        }
    }
    Ok(encoder)
}
