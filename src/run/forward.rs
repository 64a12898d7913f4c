//! Forwards all images through the network, chunk by chunk.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Result;
use image::{RgbImage, imageops};
use rayon::prelude::*;
use tch::{Device, Tensor};

use super::headers::Headers;
use super::input::{Input, require_images, skipped};
use super::oddities::Oddities;
use super::stream::Stream;
use crate::convert::{Normalisation, stretched_picture, to_batch};
use crate::figure::{drawn_size, encode_jpeg};
use crate::hooks::{HookedModel, Region};
use crate::images::{self, ImageFile, Pixels, Resize};
use crate::map::{Collector, MapOptions};
use crate::notices::Notices;
use crate::remarks::Remark;
use crate::report::LONGEST_SIDE;
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
    /// Whether the network's input is stored, for the arrays.
    pub keep_input: bool,
    /// Whether pictures have the shape of the network's input, instead of their own.
    pub square: bool,
    /// The most pixels of the photographs for the page, if there is one.
    pub photographs: Option<f64>,
    /// Where tensors are stored.
    pub spool: &'a Spool,
    pub notices: Notices,
}

/// What is known of all images after the network has run.
pub struct Forwarded {
    /// The excitations.
    pub collector: Collector,
    /// Paths as given.
    pub paths: Vec<PathBuf>,
    /// Pictures for the figures, `[1,h,w,3]` bytes of each image.
    pub pictures: Vec<Sequence>,
    /// Larger pictures for the page; empty unless they are asked for and the images are files.
    pub photographs: Vec<Photograph>,
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
        Input::Array(path, tensor) => all.add_array(path, tensor, model, options)?,
        Input::Files {
            images,
            headers,
            skip_bad,
            max_pixels,
            white,
            resize,
        } => {
            let bar = options.notices.bar(images.len(), "decoding and forwarding");
            let seen = Seen {
                photographs: options.photographs,
                size: model.input_size(),
                resize: resize.unwrap_or_default(),
                region: model.region(),
                square: options.square,
                is_grey: model.channels() == 1,
            };
            let decode = |image: &ImageFile| {
                let pixels = image.decode(*max_pixels, *white)?;
                seen.decoded(pixels)
            };
            decode_ahead(images, headers, options.chunk, decode, |chunk| {
                if let Some(error) = headers.first_error() {
                    return Err(error);
                }
                let (mut inputs, mut pictures) = (Vec::new(), Vec::new());
                let mut photographs = Vec::new();
                let count = chunk.len();
                for (image, decoded) in chunk {
                    match decoded {
                        Ok(Decoded {
                            input,
                            picture,
                            photograph,
                            pixels,
                        }) => {
                            inputs.push(input);
                            photographs.extend(photograph);
                            pictures.push(picture);
                            all.oddities.add(image.path(), &pixels);
                            all.paths.push(image.path().to_path_buf());
                        }
                        Err(error) if *skip_bad => {
                            options.notices.warn(&skipped(&error));
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
            require_images(all.paths.len())?;
        }
    }
    all.finish()
}

/// What is known of the images so far.
struct Images<'a> {
    stream: Stream<'a>,
    paths: Vec<PathBuf>,
    pictures: Vec<Sequence>,
    photographs: Vec<Photograph>,
    input: Sequence,
    oddities: Oddities,
}

impl<'a> Images<'a> {
    fn new(stream: Stream<'a>) -> Self {
        Images {
            stream,
            paths: Vec::new(),
            pictures: Vec::new(),
            photographs: Vec::new(),
            input: Sequence::default(),
            oddities: Oddities::default(),
        }
    }

    fn finish(self) -> Result<Forwarded> {
        let (collector, remark, [forwarding, collecting]) = self.stream.finish()?;
        Ok(Forwarded {
            collector,
            paths: self.paths,
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
        path: &Path,
        tensor: &Tensor,
        model: &HookedModel,
        options: &ForwardOptions<'_>,
    ) -> Result<()> {
        let bar = options.notices.bar(tensor.size()[0] as usize, "forwarding");
        for batch in tensor.split(options.chunk as i64, 0) {
            let images = 0..batch.size()[0];
            let pictures: Vec<RgbImage> = images
                .map(|image| stretched_picture(&batch.get(image)))
                .collect::<Result<_>>()?;
            self.add(&pictures, &batch, model, options)?;
            for _ in &pictures {
                self.paths.push(Input::stored_name(path, self.paths.len()));
            }
            bar.inc(pictures.len() as u64);
        }
        Ok(())
    }

    fn keep(&mut self, photographs: Vec<Jpeg>, options: &ForwardOptions<'_>) -> Result<()> {
        for Jpeg { bytes, size } in photographs {
            let mut kept = Sequence::default();
            let bytes = Tensor::from_slice(&bytes).unsqueeze(0);
            kept.push(options.spool, &bytes)?;
            self.photographs.push(Photograph { bytes: kept, size });
        }
        Ok(())
    }

    fn add(
        &mut self,
        pictures: &[RgbImage],
        batch: &Tensor,
        model: &HookedModel,
        options: &ForwardOptions<'_>,
    ) -> Result<()> {
        for picture in pictures {
            let picture = seen_part(picture, model.region());
            let (width, height) = picture.dimensions();
            let bytes = Tensor::from_slice(picture.as_raw());
            let bytes = bytes.reshape([1, i64::from(height), i64::from(width), 3]);
            let mut kept = Sequence::default();
            kept.push(options.spool, &bytes)?;
            self.pictures.push(kept);
        }
        if options.keep_input {
            self.input.push(options.spool, batch)?;
        }
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
    /// The same, larger, for the figure.
    pub picture: RgbImage,
    /// The same for the page, if it is asked for.
    pub photograph: Option<Jpeg>,
    /// The image itself, without its colours.
    pub pixels: Pixels,
}

/// Images of a chunk, decoded, or why they cannot be read.
type Chunk<'a> = Vec<(&'a ImageFile, Result<Decoded>)>;

/// Decodes the images of each chunk in parallel while `forward` works on the chunk before. A chunk
/// has as many images with good headers as asked for, and bad ones between them.
fn decode_ahead<'a>(
    images: &'a [ImageFile],
    headers: &Headers,
    chunk_size: usize,
    decode: impl Fn(&ImageFile) -> Result<Decoded> + Send + Sync,
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
                    (image, error.map_or_else(|| decode(image), Err))
                });
                if sender.send(decoded.collect::<Chunk>()).is_err() {
                    break; // an error has ended the run
                }
            }
        });
        receiver.into_iter().try_for_each(forward)
    })
}

/// How images come to the network, and what is seen of them.
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
}

impl Seen<'_> {
    /// A picture as the network sees it.
    ///
    /// # Errors
    /// Returns an error if it cannot be resized.
    pub fn decoded(&self, mut pixels: Pixels) -> Result<Decoded> {
        let image = std::mem::take(&mut pixels.rgb);
        let image = match self.is_grey {
            true => images::grey(image),
            false => image,
        };
        let (width, height) = image.dimensions();
        let shown = self.shown(Size::new(height.into(), width.into()));
        let photograph = self
            .photographs
            .map(|area| self.photograph(&image, shown, area));
        Ok(Decoded {
            photograph: photograph.transpose()?,
            picture: self.resize.enlarged(&image, self.size, shown)?,
            input: self.resize.apply(&image, self.size)?,
            pixels,
        })
    }

    /// The part of an image that is drawn as `shown`, with at most `area` pixels, its longer side at
    /// most [`LONGEST_SIDE`], and no larger than the image.
    fn photograph(&self, image: &RgbImage, shown: Size, area: f64) -> Result<Jpeg> {
        let (width, height) = image.dimensions();
        let own = f64::from(width) * f64::from(height);
        let factor = (area.min(own) / shown.pixels() as f64).sqrt();
        let longer = shown.height.max(shown.width) as f64;
        let factor = factor.min(LONGEST_SIDE / longer);
        let side = |side: i64| ((side as f64 * factor).round() as i64).max(1);
        let size = Size::new(side(shown.height), side(shown.width));
        let picture = self.resize.enlarged(image, self.size, size)?;
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
