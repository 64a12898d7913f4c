//! Pages and pictures as files.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::Write as _;
use std::iter;
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fast_image_resize::Resizer;
use image::RgbImage;
use jpeg_encoder::{ColorType, Encoder, PixelDensity, PixelDensityUnit, SamplingFactor};

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
/// The second bytes of the markers SOF0, SOS and RST0.
const FRAME: u8 = 0xc0;
const SCAN: u8 = 0xda;
const RESTART: u8 = 0xd0;
const END: [u8; 2] = [0xff, 0xd9];

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

/// Rows of a page that are coded together: whole blocks, of 8 rows, and few enough that a restart
/// interval counts the blocks of the widest page (16 bits).
const STRIP: u32 = 32;

/// Strips that wait for a thread that codes them, at most: a row of photographs, which is drawn
/// faster than it is coded, and a row of maps, which is not.
const WAITING: usize = 32;

/// A page as JPEG, 4:4:4. While it is drawn, other threads code in strips what is drawn already:
/// 64 images take 0.7 to 0.8 s on two cores instead of 0.8 to 0.9 s if each stretch is coded while
/// the next one is drawn.
pub(super) fn jpeg(page: &Page<'_, '_>) -> Result<Vec<u8>> {
    let (width, height) = (page.width, page.height);
    ensure!(
        width.max(height) <= JPEG_LONGEST_SIDE,
        "a figure of {width}x{height} pixels does not fit a JPEG (at most {JPEG_LONGEST_SIDE} on \
         a side): choose PNG or put fewer images in it"
    );
    let (drawn, waiting) = mpsc::sync_channel::<(usize, Vec<u8>)>(WAITING);
    let waiting = Arc::new(Mutex::new(waiting));
    let coded = thread::scope(|scope| {
        let mut coders = Vec::new();
        for _ in 0..rayon::current_num_threads() {
            let waiting = Arc::clone(&waiting);
            let started = thread::Builder::new().spawn_scoped(scope, move || {
                let strips = iter::from_fn(|| waiting.lock().ok()?.recv().ok());
                let coded = strips.map(|(number, rows)| Ok((number, coded_strip(&rows, width)?)));
                coded.collect::<Vec<Result<_>>>()
            });
            match started {
                Ok(coder) => coders.push(coder),
                Err(_) if !coders.is_empty() => break, // it takes longer with fewer
                Err(error) => return Err(error).context("cannot start a thread for the figure"),
            }
        }
        drop(waiting); // who sends ends if all receivers have ended
        let sent = send_strips(page, drawn);
        let coded = coders.into_iter().map(|coder| or_resume(coder.join()));
        let coded = coded.flatten().collect::<Result<Vec<_>>>();
        sent.and(coded)
    });
    let mut coded = coded?;
    coded.sort_unstable_by_key(|(number, _)| *number);
    let strips: Vec<Vec<u8>> = coded.into_iter().map(|(_, strip)| strip).collect();
    let mut file = joined(&strips, height)?;
    let about = page.sheet.about.lines();
    if !about.is_empty() {
        let length = u16::try_from(about.len() + 2)?.to_be_bytes();
        let segment = [&COMMENT[..], &length, about.as_bytes()].concat();
        file.splice(JFIF_LENGTH..JFIF_LENGTH, segment);
    }
    Ok(file)
}

/// Draws a page and sends its strips with their numbers.
fn send_strips(page: &Page<'_, '_>, to: SyncSender<(usize, Vec<u8>)>) -> Result<()> {
    let length = (3 * page.width * STRIP) as usize; // bytes
    let (mut numbers, mut rest) = (0.., Vec::new());
    for rows in page.bands() {
        rest.append(&mut page.draw(&rows)?.into_raw());
        let is_last = rows.end == page.height;
        let whole = match is_last {
            true => rest.len(),
            false => rest.len() / length * length,
        };
        let after = rest.split_off(whole);
        for (strip, number) in rest.chunks(length).zip(numbers.by_ref()) {
            to.send((number, strip.to_vec()))?;
        }
        rest = after;
    }
    Ok(())
}

/// Some rows of a page as a JPEG of their own, whose restart interval is a whole strip.
fn coded_strip(rows: &[u8], width: u32) -> Result<Vec<u8>> {
    let height = rows.len() as u32 / (3 * width);
    let mut file = Vec::new();
    // Faster by far than image's own encoder.
    let mut encoder = Encoder::new(&mut file, JPEG_QUALITY);
    encoder.set_sampling_factor(SamplingFactor::R_4_4_4);
    encoder.set_density(PixelDensity {
        unit: PixelDensityUnit::Inches,
        density: (DENSITY, DENSITY),
    });
    encoder.set_restart_interval(u16::try_from(width.div_ceil(8) * (STRIP / 8))?);
    encoder
        .encode(rows, width as u16, height as u16, ColorType::Rgb)
        .context("cannot encode the figure as JPEG")?;
    Ok(file)
}

/// Strips that were coded alone as one JPEG of that height: their codes with restart markers
/// between them (ITU-T T.81, B.2.1), after the header of the first.
fn joined(strips: &[Vec<u8>], height: u32) -> Result<Vec<u8>> {
    let mut file = Vec::with_capacity(strips.iter().map(Vec::len).sum());
    for (number, strip) in strips.iter().enumerate() {
        let (frame, codes) = places(strip).context("cannot encode the figure as JPEG")?;
        let end = strip.len() - END.len();
        match number.checked_sub(1) {
            None => {
                file.extend_from_slice(&strip[..end]);
                file[frame + 5..frame + 7].copy_from_slice(&u16::try_from(height)?.to_be_bytes());
            }
            Some(before) => {
                file.extend_from_slice(&[0xff, RESTART + (before % 8) as u8]);
                file.extend_from_slice(&strip[codes..end]);
            }
        }
    }
    file.extend_from_slice(&END);
    Ok(file)
}

/// Where the frame header of a baseline JPEG begins, and where its codes do.
fn places(file: &[u8]) -> Option<(usize, usize)> {
    let (mut at, mut frame) = (2, None);
    loop {
        let &[_, marker, high, low] = file.get(at..at + 4)? else {
            return None;
        };
        let next = at + 2 + usize::from(u16::from_be_bytes([high, low]));
        match marker {
            FRAME => frame = Some(at),
            SCAN => return Some((frame?, next)),
            _ => {}
        }
        at = next;
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strips_become_the_jpeg_of_the_whole_page() {
        // More strips than there are restart markers, a last one of few rows, a width that is no
        // whole number of blocks, and colours that no two strips share.
        let (width, height) = (61, 9 * STRIP + 5);
        let colour = |x: u32, y: u32| image::Rgb([x as u8 * 4, (y / 2) as u8, (x * y) as u8]);
        let page = RgbImage::from_fn(width, height, colour);
        let strips = page.as_raw().chunks((3 * width * STRIP) as usize);
        let strips: Vec<Vec<u8>> = strips
            .map(|rows| coded_strip(rows, width).unwrap())
            .collect();
        assert_eq!(strips.len(), 10);
        let file = joined(&strips, height).unwrap();

        let mut whole = Vec::new();
        let mut encoder = Encoder::new(&mut whole, JPEG_QUALITY);
        encoder.set_sampling_factor(SamplingFactor::R_4_4_4);
        let (columns, rows) = (width as u16, height as u16);
        encoder
            .encode(page.as_raw(), columns, rows, ColorType::Rgb)
            .unwrap();
        let pixels = |file: &[u8]| image::load_from_memory(file).unwrap().to_rgb8();
        assert!(pixels(&file) == pixels(&whole));
        // Decoders forgive a wrong number, which T.81 counts from 0 to 7 and again.
        let markers = file.windows(2).filter(|pair| pair[0] == 0xff);
        let numbers = markers
            .map(|pair| pair[1])
            .filter(|byte| (0xd0..0xd8).contains(byte));
        assert_eq!(
            numbers.map(|byte| byte & 7).collect::<Vec<_>>(),
            [0, 1, 2, 3, 4, 5, 6, 7, 0]
        );
    }
}
