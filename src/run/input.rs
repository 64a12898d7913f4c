//! Where the images of a run come from.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use tch::Tensor;

use crate::arrays::{self, ArrayFormat};
use crate::cli;
use crate::error::{Hint, usage_hinted};
use crate::images;
use crate::notices::Notices;
use crate::options::{InputOptions, ModelOptions};
use crate::size::Size;

/// The images of a run.
pub enum Input {
    /// Image files with good headers, sorted by path.
    Files {
        paths: Vec<PathBuf>,
        skip_bad: bool,
        max_pixels: u64,
    },
    /// A file of arrays, and its `input`, `[N,3,H,W]` float32.
    Array(PathBuf, Tensor),
}

impl Input {
    /// Finds the images and checks their headers.
    ///
    /// # Errors
    /// Returns an error if there are no images, or a file is not an image.
    pub fn open(options: &InputOptions, model: &ModelOptions, notices: Notices) -> Result<Input> {
        let is_array = |path: &&PathBuf| ArrayFormat::from_path(path).is_ok();
        match (
            options.paths.as_slice(),
            options.paths.iter().find(is_array),
        ) {
            ([only], Some(_)) => return Input::stored(only.clone(), options, model),
            (_, Some(file)) => bail!(
                "{}: a file of arrays must be the only input",
                file.display()
            ),
            _ => {}
        }
        let mut paths = Vec::new();
        for file in images::find_images(&options.paths)? {
            match images::check_header(&file, options.max_pixels) {
                Ok(()) => paths.push(file),
                Err(error) if options.skip_bad_images => notices.warn(&skipped(&error)),
                Err(error) => return Err(error),
            }
        }
        require_images(&paths)?;
        Ok(Input::Files {
            paths,
            skip_bad: options.skip_bad_images,
            max_pixels: options.max_pixels,
        })
    }

    fn stored(path: PathBuf, options: &InputOptions, model: &ModelOptions) -> Result<Input> {
        let array = arrays::read_input(&path)?;
        let tensor = Tensor::try_from(array).context("reading the array `input`")?;
        let size = Size::of(&tensor);
        let resized = model.image_size.is_some_and(|asked| asked != size);
        if options.skip_bad_images || resized || model.mean.is_some() || model.std.is_some() {
            let shown = path.display();
            return Err(usage_hinted(
                format!("{shown}: its images of {size} pixels are used as they are"),
                Hint::StoredInput,
            ));
        }
        Ok(Input::Array(path, tensor))
    }

    /// Size of the images, if the input fixes it.
    pub fn size(&self) -> Option<Size> {
        match self {
            Input::Files { .. } => None,
            Input::Array(_, tensor) => Some(Size::of(tensor)),
        }
    }
}

/// The warning for an image that is left out.
pub fn skipped(error: &anyhow::Error) -> String {
    format!("left out: {}", cli::line(error))
}

/// Refuses a run without images.
pub fn require_images(paths: &[PathBuf]) -> Result<()> {
    match paths {
        [] => bail!("none of the images can be read"),
        _ => Ok(()),
    }
}
