//! Forwards all images through the network, chunk by chunk.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Result;
use image::{RgbImage, imageops};
use rayon::prelude::*;
use tch::{Device, Tensor};

use super::headers::Headers;
use super::input::{Input, skipped};
use super::oddities::Oddities;
use super::stream::Stream;
use crate::convert::{Normalisation, stretched_picture, to_batch};
use crate::figure::{drawn_size, encode_jpeg};
use crate::hooks::{HookedModel, Region};
use crate::images::{self, ImageFile, Pixels, Resize, Source, factor_within};
use crate::joint::{Group, Progress};
use crate::map::{Collector, MapOptions};
use crate::notices::Notices;
use crate::remarks::Remark;
use crate::report::LONGEST_SIDE;
use crate::sample::{Kept, Sample};
use crate::size::Size;
use crate::spool::{Sequence, Spool};

/// Bytes of the network's largest tensor for the images of one chunk. Larger chunks are not
/// faster (docs/performance.md).
const CHUNK_BYTES: usize = 64 << 20;
/// The same on a GPU, which computes with all its cores only if there is enough to do. Chunks that
/// do not fit in its memory are halved.
const GPU_CHUNK_BYTES: usize = 2 << 30;
/// The most images of a chunk on a GPU.
const GPU_CHUNK: usize = 128;

/// How images are forwarded.
pub struct ForwardOptions<'a> {
    pub normalisation: Normalisation,
    /// The maps for which excitations are collected.
    pub maps: MapOptions,
    /// Images in a chunk.
    pub chunk: usize,
    /// Whether the maps of all images are needed, for the arrays.
    pub all_maps: bool,
    /// Whether the network's input is stored, for the arrays.
    pub keep_input: bool,
    /// Whether pictures have the shape of the network's input, instead of their own.
    pub square: bool,
    /// The most pixels of the photographs for the page, if there is one.
    pub photographs: Option<f64>,
    /// The images that figures show, by their number in the sorted list.
    pub figures: Sample,
    /// The images that the page shows, likewise.
    pub page: Sample,
    /// Where tensors are stored.
    pub spool: &'a Spool,
    /// The ranks, and the number of images that all of them have.
    pub group: &'a Group,
    pub all: usize,
    /// Notices of what all ranks do.
    pub notices: Notices,
    /// Warnings of single images.
    pub warnings: Notices,
}

impl ForwardOptions<'_> {
    fn bar(&self, stage: &'static str) -> Progress {
        self.group.bar(self.notices, self.all, stage)
    }
}

/// What is known of all images after the network has run.
pub struct Forwarded {
    /// The excitations.
    pub collector: Collector,
    /// Paths as given.
    pub paths: Vec<PathBuf>,
    /// Numbers of the images in the sorted list of all.
    pub numbers: Vec<usize>,
    /// The images that figures show, by their index in `paths`.
    pub in_figures: Vec<usize>,
    /// The images that the page shows, likewise.
    pub on_page: Vec<usize>,
    /// Pictures of the images that figures or the page show, `[1,h,w,3]` bytes each.
    pub pictures: Kept<Sequence>,
    /// Larger pictures of the images on the page, if they are files.
    pub photographs: Kept<Photograph>,
    /// Input of the network, `[N,C,H,W]`; empty unless it is stored.
    pub input: Sequence,
    /// What is odd about the images.
    pub oddities: Oddities,
    /// Whether fewer images went at once.
    pub remark: Option<Remark>,
    /// Time of the network, and time of storing and adding up its excitations.
    pub times: [(&'static str, Duration); 2],
}

/// A picture for the page.
pub struct Photograph {
    /// JPEG, `[1,length]` bytes.
    pub bytes: Sequence,
    /// Width and height, pixels.
    pub size: (u32, u32),
}

/// A photograph as JPEG, and its width and height.
pub struct Jpeg {
    /// The file.
    pub bytes: Vec<u8>,
    /// Width and height, pixels.
    pub size: (u32, u32),
}

/// The number of images in a chunk: as many as the bound on the largest tensor allows,
/// up to the number of cores (at least 4), or up to 128 on a GPU.
pub fn chunk_size(model: &HookedModel) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (bytes, most) = match model.device() {
        Device::Cpu => (CHUNK_BYTES, cores.max(4)),
        _ => (GPU_CHUNK_BYTES, GPU_CHUNK),
    };
    (bytes / model.largest_tensor().max(1)).clamp(1, most)
}

/// Decodes the images and runs the network on them.
///
/// # Errors
/// Returns an error if an image cannot be decoded (unless it is to be left out), or the
/// network fails.
pub fn forward_all(
    input: &Input,
    model: &HookedModel,
    options: &ForwardOptions<'_>,
) -> Result<Forwarded> {
    let collector = Collector::with_spool(options.maps, options.spool);
    let mut all = Images::new(Stream::new(model, collector));
    match input {
        Input::Array { file, tensor, part } => {
            let own = tensor.narrow(0, part.start as i64, part.len() as i64);
            all.add_array((file, part.start), &own, model, options)?;
        }
        Input::Files {
            all: _,
            own,
            first,
            headers,
            skip_bad,
            max_pixels,
            white,
            exact,
            resize,
        } => {
            let bar = options.bar("decoding and forwarding");
            let seen = Seen {
                photographs: options.photographs,
                size: model.input_size(),
                resize: resize.unwrap_or_default(),
                region: model.region(),
                square: options.square,
                is_grey: model.channels() == 1,
                decoding: Decoding {
                    max_pixels: *max_pixels,
                    white: *white,
                    exact: *exact,
                },
            };
            let decode = |number: usize, image: &ImageFile| {
                seen.decoded(image, options.shown(first + number))
            };
            decode_ahead(own, headers, options.chunk, decode, |chunk| {
                if let Some(error) = headers.first_error() {
                    return Err(error);
                }
                let (mut inputs, mut pictures) = (Vec::new(), Vec::new());
                let mut photographs = Vec::new();
                let count = chunk.len();
                for (number, file, decoded) in chunk {
                    match decoded {
                        Ok(Decoded {
                            input,
                            picture,
                            photograph,
                            pixels,
                        }) => {
                            let path = file.path().to_path_buf();
                            let image = all.begin(first + number, path, options);
                            inputs.push(input);
                            photographs.extend(photograph.map(|jpeg| (image, jpeg)));
                            pictures.extend(picture.map(|picture| (image, picture)));
                            all.oddities.add(file.path(), &pixels);
                        }
                        Err(error) if *skip_bad => {
                            options.warnings.warn(&skipped(&error));
                        }
                        // A bad header comes before damaged pixels.
                        Err(error) => return Err(headers.first_error_of_all().unwrap_or(error)),
                    }
                }
                if !inputs.is_empty() {
                    let batch = to_batch(&inputs, &options.normalisation)?;
                    all.add(&pictures, &batch, model, options)?;
                    all.keep(photographs, options)?;
                }
                bar.inc(count as u64);
                Ok(())
            })?;
        }
    }
    all.finish()
}

/// What is known of the images so far.
struct Images<'a> {
    stream: Stream<'a>,
    paths: Vec<PathBuf>,
    numbers: Vec<usize>,
    in_figures: Vec<usize>,
    on_page: Vec<usize>,
    pictures: Kept<Sequence>,
    photographs: Kept<Photograph>,
    input: Sequence,
    oddities: Oddities,
}

impl<'a> Images<'a> {
    fn new(stream: Stream<'a>) -> Self {
        Images {
            stream,
            paths: Vec::new(),
            numbers: Vec::new(),
            in_figures: Vec::new(),
            on_page: Vec::new(),
            pictures: Kept::default(),
            photographs: Kept::default(),
            input: Sequence::default(),
            oddities: Oddities::default(),
        }
    }

    fn finish(self) -> Result<Forwarded> {
        let (collector, remark, [forwarding, collecting]) = self.stream.finish()?;
        Ok(Forwarded {
            collector,
            paths: self.paths,
            numbers: self.numbers,
            in_figures: self.in_figures,
            on_page: self.on_page,
            pictures: self.pictures,
            photographs: self.photographs,
            input: self.input,
            oddities: self.oddities,
            remark,
            times: [("forwarding", forwarding), ("collecting", collecting)],
        })
    }

    fn add_array(
        &mut self,
        (path, first): (&Path, usize),
        tensor: &Tensor,
        model: &HookedModel,
        options: &ForwardOptions<'_>,
    ) -> Result<()> {
        let bar = options.bar("forwarding");
        let parts = match tensor.size()[0] {
            0 => Vec::new(), // a rank without images
            _ => tensor.split(options.chunk as i64, 0),
        };
        for batch in parts {
            let mut pictures = Vec::new();
            for place in 0..batch.size()[0] {
                let number = first + self.paths.len();
                let image = self.begin(number, Input::stored_name(path, number), options);
                if options.shown(number).picture {
                    pictures.push((image, stretched_picture(&batch.get(place))?));
                }
            }
            self.add(&pictures, &batch, model, options)?;
            bar.inc(batch.size()[0] as u64);
        }
        Ok(())
    }

    /// Notes the next image, which has that number in the sorted list; returns its index.
    fn begin(&mut self, number: usize, path: PathBuf, options: &ForwardOptions<'_>) -> usize {
        let image = self.paths.len();
        self.paths.push(path);
        self.numbers.push(number);
        if options.figures.has(number) {
            self.in_figures.push(image);
        }
        if options.page.has(number) {
            self.on_page.push(image);
        }
        image
    }

    fn keep(
        &mut self,
        photographs: Vec<(usize, Jpeg)>,
        options: &ForwardOptions<'_>,
    ) -> Result<()> {
        for (image, Jpeg { bytes, size }) in photographs {
            let mut kept = Sequence::default();
            let bytes = Tensor::from_slice(&bytes).unsqueeze(0);
            kept.push(options.spool, &bytes)?;
            self.photographs
                .push(image, Photograph { bytes: kept, size });
        }
        Ok(())
    }

    fn add(
        &mut self,
        pictures: &[(usize, RgbImage)],
        batch: &Tensor,
        model: &HookedModel,
        options: &ForwardOptions<'_>,
    ) -> Result<()> {
        for (image, picture) in pictures {
            let picture = seen_part(picture, model.region());
            let (width, height) = picture.dimensions();
            let bytes = Tensor::from_slice(picture.as_raw());
            let bytes = bytes.reshape([1, i64::from(height), i64::from(width), 3]);
            let mut kept = Sequence::default();
            kept.push(options.spool, &bytes)?;
            self.pictures.push(*image, kept);
        }
        if options.keep_input {
            self.input.push(options.spool, batch)?;
        }
        let images = self.paths.len() - batch.size()[0] as usize..self.paths.len();
        let shown = images.map(|image| {
            let number = self.numbers[image];
            options.all_maps || options.figures.has(number) || options.page.has(number)
        });
        self.stream.expect(shown);
        self.stream.add(batch)
    }
}

/// The part of a picture that the features cover.
pub fn seen_part(picture: &RgbImage, region: &Region) -> RgbImage {
    let (width, height) = picture.dimensions();
    let scaled = |pixel: i64, of: i64, side: u32| {
        (pixel as f64 / of as f64 * f64::from(side)).round() as u32
    };
    let row = |pixel| scaled(pixel, region.of.height, height);
    let column = |pixel| scaled(pixel, region.of.width, width);
    let (top, left) = (row(region.rows.start), column(region.columns.start));
    let (bottom, right) = (row(region.rows.end), column(region.columns.end));
    imageops::crop_imm(picture, left, top, right - left, bottom - top).to_image()
}

/// A decoded image.
pub struct Decoded {
    /// What the network sees.
    pub input: RgbImage,
    /// The same, larger, for the figure, if it is asked for.
    pub picture: Option<RgbImage>,
    /// The same for the page, if it is asked for.
    pub photograph: Option<Jpeg>,
    /// The image itself, without its colours.
    pub pixels: Pixels,
}

/// Images of a chunk with their numbers, decoded, or why they cannot be read.
type Chunk<'a> = Vec<(usize, &'a ImageFile, Result<Decoded>)>;

/// Decodes the images of each chunk in parallel while `forward` works on the chunk before. A chunk
/// has as many images with good headers as asked for, and bad ones between them.
fn decode_ahead<'a>(
    images: &'a [ImageFile],
    headers: &Headers,
    chunk_size: usize,
    decode: impl Fn(usize, &ImageFile) -> Result<Decoded> + Send + Sync,
    forward: impl FnMut(Chunk<'a>) -> Result<()>,
) -> Result<()> {
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::sync_channel(0);
        scope.spawn(move || {
            let mut from = 0;
            while from < images.len() {
                let next = headers.next(from, chunk_size);
                from += next.len();
                let decoded = next.into_par_iter().map(|(number, error)| {
                    let image = &images[number];
                    let decoded = error.map_or_else(|| decode(number, image), Err);
                    (number, image, decoded)
                });
                if sender.send(decoded.collect::<Chunk>()).is_err() {
                    break; // an error has ended the run
                }
            }
        });
        receiver.into_iter().try_for_each(forward)
    })
}

/// Pixels of a reduced image, along a side, for one of the network's input. With three the input
/// differs by 0.1 to 0.4 of 255 in the mean from that of all pixels, and by up to 5 in places (34
/// photographs); with two by up to 1 and by up to 28.
const LEAST_COVERED: f64 = 3.0;

/// How images come to the network, and what is seen of them.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    /// Size of the network's input.
    pub size: Size,
    /// How images come to that size.
    pub resize: Resize,
    /// The part that the features cover.
    pub region: &'a Region,
    /// Whether pictures have the shape of the network's input.
    pub square: bool,
    /// Whether the network takes grey images.
    pub is_grey: bool,
    /// Pixels of the photographs for the page.
    pub photographs: Option<f64>,
    /// How files become pixels.
    pub decoding: Decoding,
}

/// How files become pixels.
#[derive(Debug, Clone, Copy)]
pub struct Decoding {
    /// Larger images are refused.
    pub max_pixels: u64,
    /// The 16-bit sample that is white.
    pub white: Option<u16>,
    /// Whether large images are not reduced while they are decoded.
    pub exact: bool,
}

/// Which pictures of an image are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// That of the figures.
    pub picture: bool,
    /// That of the page.
    pub photograph: bool,
}

impl ForwardOptions<'_> {
    /// What is shown of the image with that number in the sorted list. The page also needs the size
    /// of the picture.
    fn shown(&self, number: usize) -> Shown {
        let photograph = self.page.has(number);
        Shown {
            picture: photograph || self.figures.has(number),
            photograph,
        }
    }
}

impl Seen<'_> {
    /// A picture as the network sees it, and what is shown of it.
    ///
    /// # Errors
    /// Returns an error if it cannot be decoded.
    pub fn decoded(&self, file: &ImageFile, wanted: Shown) -> Result<Decoded> {
        let mut pixels = self.pixels(file, &|full| self.factor(full))?;
        let image = pixels.source();
        let shown = self.shown(image.full);
        let area = self.photographs.filter(|_| wanted.photograph);
        let photograph = area.map(|area| self.photograph(file, image, shown, area));
        let photograph = photograph.transpose()?;
        let picture = (wanted.picture).then(|| self.resize.enlarged(image, self.size, shown));
        let (picture, input) = (picture.transpose()?, self.resize.apply(image, self.size)?);
        pixels.rgb = RgbImage::default(); // not needed any more
        Ok(Decoded {
            photograph,
            picture,
            input,
            pixels,
        })
    }

    /// The pixels of a file in the colours of the network, reduced as `factor` says.
    fn pixels(&self, file: &ImageFile, factor: &dyn Fn(Size) -> u32) -> Result<Pixels> {
        let Decoding {
            max_pixels,
            white,
            exact,
        } = self.decoding;
        let mut pixels = match exact {
            true => file.decode(max_pixels, white, &|_| 1)?,
            false => file.decode(max_pixels, white, factor)?,
        };
        if self.is_grey {
            pixels.rgb = images::grey(pixels.rgb);
        }
        Ok(pixels)
    }

    /// By how much an image of that size is reduced while it is decoded: a pixel of the network's
    /// input still covers [`LEAST_COVERED`] along each side, and one of the figure's picture one.
    /// Neither depends on what else is drawn, so that the network sees the same in all runs.
    fn factor(&self, full: Size) -> u32 {
        let input = self.resize.ratio(full, self.size, self.size);
        let drawn = Seen {
            square: false,
            ..*self
        };
        let drawn = self.resize.ratio(full, self.size, drawn.shown(full));
        factor_within(drawn.min(input / LEAST_COVERED), full)
    }

    /// The part of an image that is drawn as `shown`, with at most `area` pixels, its longer side at
    /// most [`LONGEST_SIDE`], and no larger than the image.
    fn photograph(
        &self,
        file: &ImageFile,
        image: Source<'_>,
        shown: Size,
        area: f64,
    ) -> Result<Jpeg> {
        let own = image.full.pixels() as f64;
        let factor = (area.min(own) / shown.pixels() as f64).sqrt();
        let longer = shown.height.max(shown.width) as f64;
        let factor = factor.min(LONGEST_SIDE / longer);
        let side = |side: i64| ((side as f64 * factor).round() as i64).max(1);
        let size = Size::new(side(shown.height), side(shown.width));
        let finer = factor_within(self.resize.ratio(image.full, self.size, size), image.full);
        let picture = match finer < image.factor {
            true => {
                let pixels = self.pixels(file, &|_| finer)?;
                self.resize.enlarged(pixels.source(), self.size, size)?
            }
            false => self.resize.enlarged(image, self.size, size)?,
        };
        let picture = seen_part(&picture, self.region);
        Ok(Jpeg {
            bytes: encode_jpeg(&picture)?,
            size: picture.dimensions(),
        })
    }

    /// The size at which an image of that size is drawn, with what the features do not cover.
    pub fn shown(&self, image: Size) -> Size {
        let shape = match self.square {
            true => self.size,
            false => self.resize.undistorted(image, self.size),
        };
        let Region { of, rows, columns } = self.region;
        let down = (rows.end - rows.start) as f64 / of.height as f64;
        let across = (columns.end - columns.start) as f64 / of.width as f64;
        let (columns, rows) = drawn_size(shape.width as f64 * across, shape.height as f64 * down);
        let side = |drawn: u32, part: f64| ((f64::from(drawn) / part).round() as i64).max(1);
        Size::new(side(rows, down), side(columns, across))
    }
}
