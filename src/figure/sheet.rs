//! A sheet: marks placed on a white page.
//!
//! Who composes a figure places marks anywhere, each over those before; the page is then cut
//! around them with the same margin on all four sides.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use ab_glyph_rasterizer::{Rasterizer, point};
use anyhow::{Context, Result, ensure};
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::RgbImage;

use super::colormap::{Rgb, mixed};
use super::text::{Bounds, Lettering, one_line};
use super::{About, FigureFormat, encode};

/// White space around the marks, in pixels.
pub const MARGIN: i32 = 40;

/// A JPEG's sides are 16-bit numbers.
pub const JPEG_LONGEST_SIDE: u32 = 65_535;

/// More than this is a slip, not a figure.
const MOST_PIXELS: u64 = 1 << 29;

const WHITE: Rgb = [255, 255, 255];

/// How a picture is brought to the size at which it is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scaling {
    /// Smoothly (Catmull-Rom).
    Smooth,
    /// Each pixel becomes a block of one colour, as far as the picture is enlarged.
    Blocks,
}

impl Scaling {
    /// Of maps that have blocks of one colour, which must not be smoothed, or of others.
    pub fn of(is_in_blocks: bool) -> Scaling {
        match is_in_blocks {
            true => Scaling::Blocks,
            false => Scaling::Smooth,
        }
    }
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

/// What is drawn in an area.
pub(super) enum Ink<'a> {
    Fill(Rgb),
    Picture(&'a dyn Picture, Scaling),
    /// A line of text whose baseline passes through a place.
    Text(String, (i32, i32), Lettering),
    /// A polygon of these corners, its edges smooth.
    Shape(Vec<(f32, f32)>, Rgb),
}

/// Something on a sheet, and the pixels that it touches.
pub(super) struct Mark<'a> {
    pub area: Bounds,
    pub ink: Ink<'a>,
}

/// Marks on a white page of no fixed size.
#[derive(Default)]
pub struct Sheet<'a> {
    pub(super) marks: Vec<Mark<'a>>,
    /// What the file says of its origin.
    pub about: About,
}

impl<'a> Sheet<'a> {
    /// A filled rectangle.
    pub fn fill(&mut self, area: Bounds, colour: Rgb) {
        self.add(area, Ink::Fill(colour));
    }

    /// A picture, brought to the size of `area`.
    pub fn picture(&mut self, area: Bounds, image: &'a dyn Picture, scaling: Scaling) {
        self.add(area, Ink::Picture(image, scaling));
    }

    /// A line of text whose baseline passes through `at`.
    pub fn text(&mut self, text: &str, at: (i32, i32), lettering: Lettering) {
        let text = one_line(text);
        if let Some(area) = lettering.ink(&text, at) {
            self.add(area, Ink::Text(text, at, lettering));
        }
    }

    /// A polygon with smooth edges.
    pub fn shape(&mut self, corners: Vec<(f32, f32)>, colour: Rgb) {
        let one = |&(x, y): &(f32, f32)| Bounds {
            left: x.floor() as i32,
            top: y.floor() as i32,
            right: x.ceil() as i32,
            bottom: y.ceil() as i32,
        };
        if let Some(area) = corners.iter().map(one).reduce(Bounds::union) {
            self.add(area, Ink::Shape(corners, colour));
        }
    }

    fn add(&mut self, area: Bounds, ink: Ink<'a>) {
        self.marks.push(Mark { area, ink });
    }

    /// The sheet as a file of the given format.
    ///
    /// # Errors
    /// If nothing is on the sheet, or the page is larger than the format allows.
    pub fn encode(&self, format: FigureFormat) -> Result<Vec<u8>> {
        let page = self.page()?;
        match format {
            FigureFormat::Jpg => encode::jpeg(&page),
            FigureFormat::Png => encode::png(&page),
            FigureFormat::Svg => Ok(encode::svg(&page)?.into_bytes()),
        }
    }

    fn page(&self) -> Result<Page<'_, 'a>> {
        let areas = self.marks.iter().map(|mark| mark.area);
        let marks = areas.reduce(Bounds::union);
        let page = marks
            .context("nothing to draw in the figure")?
            .grown(MARGIN);
        let (width, height) = size_of(page);
        ensure!(
            u64::from(width) * u64::from(height) <= MOST_PIXELS,
            "a figure of {width}x{height} pixels is too large to draw: put fewer images in it"
        );
        let shift = (-page.left, -page.top);
        Ok(Page {
            sheet: self,
            width,
            height,
            shift,
        })
    }
}

/// A sheet cut to its size.
pub(super) struct Page<'s, 'a> {
    pub sheet: &'s Sheet<'a>,
    pub width: u32,
    pub height: u32,
    /// What is added to the marks' coordinates.
    pub shift: (i32, i32),
}

impl Page<'_, '_> {
    /// Stretches of rows that cut no picture in two, top to bottom. They are drawn when they
    /// are needed: a page of 64 images as a whole would take 100 MB.
    pub fn bands(&self) -> Vec<Range<u32>> {
        let marks = self.sheet.marks.iter();
        let pictures = marks.filter(|mark| matches!(mark.ink, Ink::Picture(..)));
        let pictures: Vec<Bounds> = pictures.map(|mark| mark.area).collect();
        let is_cut = |y: &i32| {
            !pictures
                .iter()
                .any(|area| (area.top + 1..area.bottom).contains(y))
        };
        let cuts = pictures.iter().map(|area| area.top).filter(is_cut);
        let mut ends: Vec<u32> = cuts.map(|y| (y + self.shift.1) as u32).collect();
        ends.push(self.height);
        ends.sort_unstable();
        ends.dedup();
        let starts = std::iter::once(0).chain(ends.clone());
        starts.zip(ends).map(|(start, end)| start..end).collect()
    }

    /// The pixels of a stretch of rows.
    ///
    /// # Errors
    /// If the pixels of a picture cannot be had.
    pub fn draw(&self, rows: &Range<u32>) -> Result<RgbImage> {
        let mut band = RgbImage::from_pixel(self.width, rows.end - rows.start, image::Rgb(WHITE));
        let (dx, dy) = (self.shift.0, self.shift.1 - rows.start as i32);
        let mut resizer = Resizer::new();
        for mark in &self.sheet.marks {
            let area = mark.area.shifted(dx, dy);
            if area.bottom <= 0 || area.top >= band.height() as i32 {
                continue;
            }
            match &mark.ink {
                Ink::Fill(colour) => {
                    let (width, height) = size_of(area);
                    let filled = RgbImage::from_pixel(width, height, image::Rgb(*colour));
                    put(&mut band, &filled, (area.left, area.top));
                }
                Ink::Picture(image, scaling) => {
                    let scaled = resized(&mut resizer, &*image.pixels()?, size_of(area), *scaling)?;
                    put(&mut band, &scaled, (area.left, area.top));
                }
                Ink::Text(text, (x, y), lettering) => {
                    lettering.draw(text, (x + dx, y + dy), |place, cover| {
                        mix(&mut band, place, lettering.colour, cover);
                    });
                }
                Ink::Shape(corners, colour) => {
                    cover_of(corners, mark.area, |(x, y), cover| {
                        mix(&mut band, (x + dx, y + dy), *colour, cover);
                    });
                }
            }
        }
        Ok(band)
    }
}

/// Copies the rows of a picture that lie in the band; the page has all its columns.
/// (`imageops::replace` copies pixel by pixel: 1 ms for an image of a figure.)
fn put(band: &mut RgbImage, picture: &RgbImage, (left, top): (i32, i32)) {
    let row = |width: u32| 3 * width as usize;
    let (wide, length) = (row(band.width()), row(picture.width()));
    let (rows, height) = (picture.chunks_exact(length.max(1)), band.height() as i32);
    let band: &mut [u8] = band;
    for (y, pixels) in (top..height).zip(rows) {
        if y >= 0 {
            let start = y as usize * wide + row(left as u32);
            band[start..start + length].copy_from_slice(pixels);
        }
    }
}

fn mix(band: &mut RgbImage, (x, y): (i32, i32), colour: Rgb, cover: f32) {
    if let Some(pixel) = band.get_pixel_mut_checked(x as u32, y as u32) {
        pixel.0 = mixed(pixel.0, colour, cover.min(1.0));
    }
}

/// Calls `mark` with each pixel of `area` and how much of it the polygon covers.
fn cover_of(corners: &[(f32, f32)], area: Bounds, mut mark: impl FnMut((i32, i32), f32)) {
    let (width, height) = size_of(area);
    let mut shape = Rasterizer::new(width as usize, height as usize);
    let at = |(x, y): (f32, f32)| point(x - area.left as f32, y - area.top as f32);
    for (from, to) in corners.iter().zip(corners.iter().cycle().skip(1)) {
        shape.draw_line(at(*from), at(*to));
    }
    shape.for_each_pixel_2d(|x, y, cover| {
        mark((area.left + x as i32, area.top + y as i32), cover);
    });
}

/// Width and height as pictures count them.
pub(super) fn size_of(area: Bounds) -> (u32, u32) {
    let (width, height) = area.size();
    (width.unsigned_abs(), height.unsigned_abs())
}

/// `image` at another size.
pub(super) fn resized(
    resizer: &mut Resizer,
    image: &RgbImage,
    (width, height): (u32, u32),
    scaling: Scaling,
) -> Result<RgbImage> {
    let enlarged = image.width() <= width && image.height() <= height;
    let algorithm = match scaling == Scaling::Blocks && enlarged {
        true => ResizeAlg::Nearest,
        false => ResizeAlg::Convolution(FilterType::CatmullRom),
    };
    let (w, h) = image.dimensions();
    let source = ImageRef::new(w, h, image.as_raw(), PixelType::U8x3)?;
    let mut scaled = Image::new(width, height, PixelType::U8x3);
    let options = ResizeOptions::new().resize_alg(algorithm);
    resizer.resize(&source, &mut scaled, &options)?;
    RgbImage::from_raw(width, height, scaled.into_vec()).context("a picture is incomplete")
}

#[cfg(test)]
impl Sheet<'_> {
    /// The page before it is encoded.
    pub fn pixels(&self) -> RgbImage {
        let page = self.page().unwrap();
        let bands = page.bands();
        let pixels = bands
            .into_iter()
            .flat_map(|rows| page.draw(&rows).unwrap().into_raw());
        RgbImage::from_raw(page.width, page.height, pixels.collect()).unwrap()
    }

    /// The same, drawn at once.
    pub fn pixels_at_once(&self) -> RgbImage {
        let page = self.page().unwrap();
        page.draw(&(0..page.height)).unwrap()
    }

    /// The height of the page, pixels.
    pub fn pixel_height(&self) -> u32 {
        self.page().unwrap().height
    }

    /// The number of bands that it is drawn in.
    pub fn bands(&self) -> usize {
        self.page().unwrap().bands().len()
    }

    /// The areas of the shapes of this colour, in the order of drawing.
    pub fn shapes_of(&self, colour: Rgb) -> Vec<Bounds> {
        let of = |mark: &&Mark<'_>| matches!(&mark.ink, Ink::Shape(_, own) if *own == colour);
        self.marks.iter().filter(of).map(|mark| mark.area).collect()
    }

    /// The areas of the rectangles of this colour, in the order of drawing.
    pub fn fills_of(&self, colour: Rgb) -> Vec<Bounds> {
        let of = |mark: &&Mark<'_>| matches!(&mark.ink, Ink::Fill(own) if *own == colour);
        self.marks.iter().filter(of).map(|mark| mark.area).collect()
    }

    /// The areas of the pictures, in the order of drawing.
    pub fn pictures(&self) -> Vec<Bounds> {
        let of = |mark: &&Mark<'_>| matches!(mark.ink, Ink::Picture(..));
        self.marks.iter().filter(of).map(|mark| mark.area).collect()
    }

    /// Where each text leaves ink.
    pub fn inks(&self) -> Vec<Bounds> {
        let of = |mark: &&Mark<'_>| matches!(mark.ink, Ink::Text(..));
        self.marks.iter().filter(of).map(|mark| mark.area).collect()
    }

    /// Each text.
    pub fn texts(&self) -> Vec<String> {
        let of = |mark: &Mark<'_>| match &mark.ink {
            Ink::Text(text, ..) => Some(text.clone()),
            _ => None,
        };
        self.marks.iter().filter_map(of).collect()
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
    use base64::Engine as _;

    use anyhow::bail;

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
        for row in 0..20 {
            let top = row * 70;
            sheet.picture(area(0, top, 60, top + 60), &picture, Scaling::Smooth);
        }
        assert_eq!(sheet.bands(), 21); // the first is the margin above
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

    fn described() -> Sheet<'static> {
        let about = About {
            software: "prism 9.9".to_owned(),
            network: "network n, layer <l> & \"m\"".to_owned(),
            command: "prism 'é <&>.jpg' --model n".to_owned(),
        };
        Sheet { about, ..sheet() }
    }

    #[test]
    fn a_png_says_where_it_is_from() {
        let file = described().encode(FigureFormat::Png).unwrap();
        let reader = png::Decoder::new(std::io::Cursor::new(&file))
            .read_info()
            .unwrap();
        let info = reader.info();
        let plain: Vec<(&str, &str)> = info
            .uncompressed_latin1_text
            .iter()
            .map(|chunk| (chunk.keyword.as_str(), chunk.text.as_str()))
            .collect();
        let network = "network n, layer <l> & \"m\"";
        assert_eq!(plain, [("Software", "prism 9.9"), ("Description", network)]);
        let [wide] = &info.utf8_text[..] else {
            panic!("one text beyond ASCII")
        };
        assert_eq!(wide.keyword, "Comment");
        assert_eq!(wide.get_text().unwrap(), "prism 'é <&>.jpg' --model n");
    }

    /// Walks over the segments of the file up to its pixels.
    #[test]
    fn a_jpeg_says_where_it_is_from() {
        let file = described().encode(FigureFormat::Jpg).unwrap();
        let mut comments = Vec::new();
        let mut at = 2;
        while file[at..at + 2] != [0xff, 0xda] {
            assert_eq!(file[at], 0xff);
            let length = usize::from(u16::from_be_bytes([file[at + 2], file[at + 3]]));
            let data = &file[at + 4..at + 2 + length];
            if file[at + 1] == 0xfe {
                comments.push(String::from_utf8(data.to_vec()).unwrap());
            }
            at += 2 + length;
        }
        let expected = "Software: prism 9.9\nDescription: network n, layer <l> & \"m\"\nComment: prism 'é <&>.jpg' --model n";
        assert_eq!(comments, [expected]);
        let decoded = image::load_from_memory(&file).unwrap();
        assert_eq!((decoded.width(), decoded.height()), (200, 120));
    }

    #[test]
    fn an_svg_says_where_it_is_from() {
        let file = described().encode(FigureFormat::Svg).unwrap();
        let svg = String::from_utf8(file).unwrap();
        let document = roxmltree::Document::parse(&svg).unwrap();
        let first = document.root_element().first_element_child().unwrap();
        assert_eq!(first.tag_name().name(), "metadata");
        let lines: Vec<&str> = first.text().unwrap().lines().collect();
        assert_eq!(lines[1], "Description: network n, layer <l> & \"m\"");
        assert_eq!(lines[2], "Comment: prism 'é <&>.jpg' --model n");
        let plain = sheet().encode(FigureFormat::Svg).unwrap();
        assert!(!String::from_utf8(plain).unwrap().contains("metadata"));
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
        for (pixel, value) in scaled.pixels().zip(expected) {
            assert!(pixel.0[0].abs_diff(value) <= 1, "{scaled:?}");
        }
    }

    #[test]
    fn blocks_keep_their_colours_and_edges() {
        let image = RgbImage::from_fn(7, 7, |x, y| image::Rgb([x as u8 * 30, y as u8 * 30, 77]));
        let mut resizer = Resizer::new();
        let scaled = resized(&mut resizer, &image, (448, 448), Scaling::Blocks).unwrap();
        for (x, y, pixel) in scaled.enumerate_pixels() {
            assert_eq!(pixel, image.get_pixel(x / 64, y / 64), "{x} {y}");
        }
    }

    #[test]
    fn a_polygon_covers_its_area_with_soft_edges() {
        let mut sheet = Sheet::default();
        sheet.shape(
            vec![(10.0, 0.0), (20.0, 10.0), (10.0, 20.0), (0.0, 10.0)],
            [200, 0, 0],
        );
        let pixels = sheet.pixels();
        let at = |x: u32, y: u32| pixels.get_pixel(MARGIN as u32 + x, MARGIN as u32 + y).0;
        for (x, y) in [(10, 10), (2, 10), (17, 10), (10, 2), (6, 6), (13, 13)] {
            assert_eq!(at(x, y), [200, 0, 0], "{x} {y}");
        }
        for (x, y) in [(0, 0), (19, 0), (3, 3), (19, 19)] {
            assert_eq!(at(x, y), WHITE, "{x} {y}");
        }
        // An edge cuts this pixel in two: (255 + 200) / 2 and 255 / 2.
        assert_eq!(at(5, 4), [228, 128, 128]);
        assert_equal_margins(&pixels);
        let svg = String::from_utf8(sheet.encode(FigureFormat::Svg).unwrap()).unwrap();
        assert!(
            svg.contains("50.00,40.00 60.00,50.00 50.00,60.00 40.00,50.00"),
            "{svg}"
        );
    }

    #[test]
    fn later_marks_cover_earlier_ones() {
        let picture = RgbImage::from_pixel(8, 8, image::Rgb([0, 0, 90]));
        let mut sheet = sheet();
        sheet.picture(area(0, 10, 20, 30), &picture, Scaling::Smooth);
        sheet.fill(area(5, 15, 10, 20), [9, 9, 9]);
        let pixels = sheet.pixels();
        // The first mark begins at (-30, 5).
        let at = |x: i32, y: i32| {
            pixels
                .get_pixel((x + 30 + MARGIN) as u32, (y - 5 + MARGIN) as u32)
                .0
        };
        assert_eq!(
            [at(-1, 12), at(2, 12), at(7, 17)],
            [[180, 20, 20], [0, 0, 90], [9, 9, 9]]
        );
        let svg = String::from_utf8(sheet.encode(FigureFormat::Svg).unwrap()).unwrap();
        assert!(svg.find("<image") < svg.find("#090909"), "{svg}");
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
