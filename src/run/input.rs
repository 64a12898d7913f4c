//! Where the images of a run come from.

use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tch::Tensor;

use crate::arrays::{self, ArrayFormat};
use crate::cli;
use crate::error::{Hint, usage_hinted};
use crate::images::{self, Resize, Separator};
use crate::model::Preprocessing;
use crate::notices::Notices;
use crate::options::{InputOptions, ModelOptions};
use crate::remarks::{Remark, Remarks};
use crate::size::Size;

/// The images of a run.
pub enum Input {
    /// Image files with good headers, sorted by path.
    Files {
        paths: Vec<PathBuf>,
        skip_bad: bool,
        max_pixels: u64,
        /// The 16-bit sample that is white.
        white: Option<u16>,
        /// How they come to the input size, if it is given.
        resize: Option<Resize>,
    },
    /// A file of arrays, the number of the first image, and those from there on of its `input`,
    /// `[N,C,H,W]` float32.
    Array(PathBuf, usize, Tensor),
}

impl Input {
    /// The number of images; those that cannot be read may turn out to be fewer.
    pub fn len(&self) -> usize {
        match self {
            Input::Files { paths, .. } => paths.len(),
            Input::Array(_, _, tensor) => tensor.size()[0] as usize,
        }
    }

    /// Finds the images and checks their headers; remarks on what was left out.
    ///
    /// # Errors
    /// Returns an error if there are no images, or a file is not an image.
    pub fn open(
        options: &InputOptions,
        model: &ModelOptions,
        notices: Notices,
        remarks: &mut Remarks,
    ) -> Result<Input> {
        let separator = match options.null {
            true => Separator::Zero,
            false => Separator::Line,
        };
        let values = images::expanded(&options.all(), separator)?;
        let is_array = |path: &&PathBuf| ArrayFormat::from_path(path).is_ok();
        match (values.as_slice(), values.iter().find(is_array)) {
            ([only], Some(_)) => return Input::stored(only.clone(), options, model),
            (_, Some(file)) => bail!(
                "{}: a file of arrays must be the only input",
                file.display()
            ),
            _ => {}
        }
        let found = images::find_images(&values)?;
        for left_out in &found.left_out {
            for line in left_out.lines() {
                remarks.add(&Remark::warning(line));
            }
            if left_out.others > 0 {
                let (value, count) = (left_out.value.display(), left_out.others);
                notices.detail(|| format!("{value}: files that are no images: {count}"));
            }
        }
        let mut paths = Vec::new();
        for file in found.images {
            match images::check_header(&file, options.max_pixels) {
                Ok(()) => paths.push(file),
                Err(error) if options.skip_bad_images => notices.warn(&skipped(&error)),
                Err(error) => return Err(error),
            }
        }
        require_images(paths.len())?;
        Ok(Input::Files {
            paths,
            skip_bad: options.skip_bad_images,
            max_pixels: options.max_pixels,
            white: options.white,
            resize: options.resize,
        })
    }

    fn stored(path: PathBuf, options: &InputOptions, model: &ModelOptions) -> Result<Input> {
        let array = arrays::read_input(&path)?;
        let tensor = Tensor::try_from(array).context("reading the array `input`")?;
        let size = Size::of(&tensor);
        let resized =
            model.image_size.is_some_and(|asked| asked != size) || options.resize.is_some();
        let normalised = model.mean.is_some() || model.std.is_some() || model.bgr;
        if options.skip_bad_images || options.white.is_some() || resized || normalised {
            let shown = path.display();
            return Err(usage_hinted(
                format!("{shown}: its images of {size} pixels are used as they are"),
                Hint::StoredInput,
            ));
        }
        Ok(Input::Array(path, 0, tensor))
    }

    /// Some of its images.
    pub fn part(self, images: Range<usize>) -> Input {
        match self {
            Input::Files {
                mut paths,
                skip_bad,
                max_pixels,
                white,
                resize,
            } => Input::Files {
                paths: paths.drain(images).collect(),
                skip_bad,
                max_pixels,
                white,
                resize,
            },
            Input::Array(file, first, tensor) => {
                let (begin, count) = (images.start as i64, images.len() as i64);
                Input::Array(file, first + images.start, tensor.narrow(0, begin, count))
            }
        }
    }

    /// Number of channels of the images, if the input fixes it.
    pub fn channels(&self) -> Option<i64> {
        match self {
            Input::Files { .. } => None,
            Input::Array(_, _, tensor) => Some(tensor.size()[1]),
        }
    }

    /// The paths of its images.
    pub fn paths(&self) -> Vec<PathBuf> {
        match self {
            Input::Files { paths, .. } => paths.clone(),
            Input::Array(file, first, tensor) => {
                let images = 0..tensor.size()[0] as usize;
                images
                    .map(|index| Input::stored_name(file, first + index))
                    .collect()
            }
        }
    }

    /// The name of a stored image.
    pub fn stored_name(file: &Path, index: usize) -> PathBuf {
        let mut name = file.as_os_str().to_owned();
        name.push(format!(":{index}"));
        name.into()
    }

    /// How its images become the input of a network with this preprocessing.
    pub fn preprocessing(&self, network: &Preprocessing) -> Preprocessing {
        match self {
            Input::Files { white, resize, .. } => network.clone().for_files(*resize, *white),
            Input::Array(_, _, tensor) => Preprocessing::stored(Size::of(tensor)),
        }
    }
}

/// The warning for an image that is left out.
pub fn skipped(error: &anyhow::Error) -> String {
    format!("left out: {}", cli::line(error))
}

/// Refuses a run without images.
pub fn require_images(count: usize) -> Result<()> {
    match count {
        0 => bail!("none of the images can be read"),
        _ => Ok(()),
    }
}
