//! Images, and what a network makes of them, chunk by chunk.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use image::RgbImage;
use rayon::prelude::*;
use tch::Tensor;

use crate::arrays::{self, ArrayFormat};
use crate::convert::{Normalisation, stretched_picture, to_batch};
use crate::error::usage;
use crate::hooks::HookedModel;
use crate::images;
use crate::map::Collector;
use crate::notices::Notices;
use crate::options::Options;
use crate::size::Size;
use crate::spool::{Sequence, Spool};

/// Shorter side of a picture in a figure, pixels.
const PICTURE_SIDE: u32 = 448;

/// What the network's largest tensor of the images that are forwarded at once may
/// take. Larger runs are no faster (docs/performance.md).
const CHUNK_BYTES: usize = 64 << 20;

/// Where a run's images come from.
pub enum Source {
    Files(Vec<PathBuf>),
    Array(PathBuf, Tensor),
}

impl Source {
    /// What `--input` names.
    ///
    /// # Errors
    /// Where there is nothing, or something else than images.
    pub fn find(options: &Options, notices: Notices) -> Result<Source> {
        if let [only] = options.input.as_slice()
            && ArrayFormat::from_path(only).is_ok()
        {
            let array = arrays::read_input(only)?;
            let tensor = Tensor::try_from(array).context("reading the array `input`")?;
            let size = (tensor.size()[2], tensor.size()[3]);
            let asked = &options.model;
            if options.skip_bad_images
                || asked.image_size.is_some_and(|asked| asked != size)
                || asked.mean.is_some()
                || asked.std.is_some()
            {
                return Err(usage(format!(
                    "{}: its images of {}x{} pixels are taken as they are; --image-size, --mean, --std and --skip-bad-images do not apply to them",
                    only.display(),
                    size.0,
                    size.1
                )));
            }
            return Ok(Source::Array(only.clone(), tensor));
        }
        if let Some(file) = options
            .input
            .iter()
            .find(|path| ArrayFormat::from_path(path).is_ok())
        {
            bail!(
                "{}: a file of arrays is taken alone, not beside other inputs",
                file.display()
            );
        }
        let mut good = Vec::new();
        for file in images::find_images(&options.input)? {
            match images::check_header(&file, options.max_pixels) {
                Ok(()) => good.push(file),
                Err(error) if options.skip_bad_images => notices.warn(&skipped(&error)),
                Err(error) => return Err(error),
            }
        }
        if good.is_empty() {
            bail!("none of the images can be read");
        }
        Ok(Source::Files(good))
    }

    /// The size of the images, where they are already those of a network.
    pub fn size(&self) -> Option<(i64, i64)> {
        match self {
            Source::Files(_) => None,
            Source::Array(_, tensor) => Some((tensor.size()[2], tensor.size()[3])),
        }
    }
}

fn skipped(error: &anyhow::Error) -> String {
    format!("left out: {error:#}")
}

/// What is known of the images when the network has seen all of them.
pub struct Seen {
    /// The excitations.
    pub collector: Collector,
    /// Paths as given.
    pub names: Vec<PathBuf>,
    /// For the figures, `[N,h,w,3]` bytes.
    pub pictures: Sequence,
    /// `[N,3,H,W]`, kept only where they are to be saved.
    pub input: Sequence,
    /// How long the network took.
    pub forwarding: Duration,
    /// How long it took to add up and keep what the network made.
    pub collecting: Duration,
}

impl Seen {
    fn add(
        &mut self,
        (pictures, batch): (&[RgbImage], &Tensor),
        (model, spool): (&HookedModel, &Spool),
        keep: bool,
    ) -> Result<()> {
        for picture in pictures {
            let (width, height) = picture.dimensions();
            let bytes = Tensor::from_slice(picture.as_raw());
            let bytes = bytes.reshape([1, i64::from(height), i64::from(width), 3]);
            self.pictures.push(spool, &bytes)?;
        }
        let begun = Instant::now();
        let excitations = model.forward(batch)?;
        self.forwarding += begun.elapsed();
        let begun = Instant::now();
        self.collector.add(excitations)?;
        if keep {
            self.input.push(spool, batch)?;
        }
        self.collecting += begun.elapsed();
        Ok(())
    }
}

/// Images forwarded at once: so many that the network's largest tensor of all of
/// them takes [`CHUNK_BYTES`], but no more than help.
pub fn chunk_size(model: &HookedModel) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (CHUNK_BYTES / model.largest_tensor().max(1)).clamp(1, cores.max(4))
}

/// Decodes the images, runs the network on them chunk by chunk, and keeps what
/// PRISM needs.
pub fn look(
    source: &Source,
    model: &HookedModel,
    normalisation: &Normalisation,
    spool: &Spool,
    chunk_size: usize,
    options: &Options,
) -> Result<Seen> {
    let notices = options.notices;
    let keep = options.output.arrays.is_some();
    let mut seen = Seen {
        collector: Collector::new(spool),
        names: Vec::new(),
        pictures: Sequence::default(),
        input: Sequence::default(),
        forwarding: Duration::ZERO,
        collecting: Duration::ZERO,
    };
    match source {
        Source::Array(path, tensor) => {
            let count = tensor.size()[0] as usize;
            let bar = notices.bar(count, "forwarding");
            for batch in tensor.split(chunk_size as i64, 0) {
                let pictures = (0..batch.size()[0])
                    .map(|image| stretched_picture(&batch.get(image)))
                    .collect::<Result<Vec<_>>>()?;
                seen.add((&pictures, &batch), (model, spool), keep)?;
                bar.inc(batch.size()[0] as u64);
            }
            let name = |index| {
                let mut name = path.clone().into_os_string();
                name.push(format!(":{index}"));
                PathBuf::from(name)
            };
            seen.names = (0..count).map(name).collect();
        }
        Source::Files(files) => {
            let bar = notices.bar(files.len(), "decoding and forwarding");
            let (height, width) = model.input_size();
            let size = (height as u32, width as u32);
            let reading = |file: &Path| read(file, size, options.max_pixels);
            read_ahead(files, chunk_size, reading, |chunk, read| {
                let (mut inputs, mut pictures) = (Vec::new(), Vec::new());
                for (file, read) in chunk.iter().zip(read) {
                    match read {
                        Ok((input, picture)) => {
                            inputs.push(input);
                            pictures.push(picture);
                            seen.names.push(file.clone());
                        }
                        Err(error) if options.skip_bad_images => {
                            bar.suspend(|| notices.warn(&skipped(&error)));
                        }
                        Err(error) => return Err(error),
                    }
                }
                if !inputs.is_empty() {
                    let batch = to_batch(&inputs, normalisation)?;
                    seen.add((&pictures, &batch), (model, spool), keep)?;
                }
                bar.inc(chunk.len() as u64);
                Ok(())
            })?;
            if seen.names.is_empty() {
                bail!("none of the images can be read");
            }
        }
    }
    Ok(seen)
}

/// An image at the network's size, and one for the figure.
type Read = (RgbImage, RgbImage);

/// Reads the files of each chunk in parallel, while `see` still has the one before.
fn read_ahead(
    files: &[PathBuf],
    chunk_size: usize,
    read: impl Fn(&Path) -> Result<Read> + Send + Sync,
    mut see: impl FnMut(&[PathBuf], Vec<Result<Read>>) -> Result<()>,
) -> Result<()> {
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::sync_channel(0);
        scope.spawn(move || {
            for chunk in files.chunks(chunk_size) {
                let read: Vec<_> = chunk.par_iter().map(|file| read(file)).collect();
                if sender.send((chunk, read)).is_err() {
                    break; // an error has ended the run
                }
            }
        });
        receiver
            .into_iter()
            .try_for_each(|(chunk, read)| see(chunk, read))
    })
}

/// An image at the network's size (height, width), and one for the figure.
fn read(file: &Path, (height, width): (u32, u32), max_pixels: u64) -> Result<Read> {
    let image = images::decode(file, max_pixels)?;
    let scale = f64::from(PICTURE_SIDE) / f64::from(height.min(width));
    let enlarged = |side: u32| (f64::from(side) * scale).round().max(1.0) as u32;
    let picture = images::resize(
        &image,
        Size::new(enlarged(height).into(), enlarged(width).into()),
    )?;
    Ok((
        images::resize(&image, Size::new(height.into(), width.into()))?,
        picture,
    ))
}
