//! Where the images of a run come from.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tch::Tensor;

use crate::arrays::{self, ArrayFormat};
use crate::cli;
use crate::error::{Hint, usage_hinted};
use crate::hooks::Rule;
use crate::images::{self, ImageFile, Resize, Separator};
use crate::joint::Group;
use crate::model::Preprocessing;
use crate::notices::Notices;
use crate::options::{InputOptions, ModelOptions};
use crate::remarks::{Remark, Remarks};
use crate::size::Size;

use super::headers::Headers;

/// The images of a run.
pub enum Input {
    /// Images in files and archives, sorted by path.
    Files {
        /// Those of all ranks.
        all: Arc<[ImageFile]>,
        /// Those of this rank, and the number of the first.
        own: Arc<[ImageFile]>,
        first: usize,
        /// The check of their headers, which goes on meanwhile.
        headers: Headers,
        skip_bad: bool,
        max_pixels: u64,
        /// The 16-bit sample that is white.
        white: Option<u16>,
        /// Whether all pixels are decoded, however small the network's input.
        exact: bool,
        /// How they come to the input size, if it is given.
        resize: Option<Resize>,
    },
    /// A file of arrays, its `input`, `[N,C,H,W]` float32, and this rank's part of it.
    Array {
        file: PathBuf,
        tensor: Tensor,
        part: Range<usize>,
    },
}

impl Input {
    /// The number of images of all ranks; those that can be decoded may turn out to be fewer.
    pub fn len(&self) -> usize {
        match self {
            Input::Files { all, .. } => all.len(),
            Input::Array { tensor, .. } => tensor.size()[0] as usize,
        }
    }

    /// Finds the images and begins to check their headers; remarks on what was left out.
    ///
    /// # Errors
    /// Returns an error if there are no images, one of the first is none, or an archive is damaged.
    pub fn open(
        options: &InputOptions,
        model: &ModelOptions,
        group: &Group,
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
            ([only], Some(_)) => return Input::stored(only.clone(), options, model, group),
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
        for error in found.without_images.iter() {
            remarks.add(&Remark::warning(format!("{error:#}")));
        }
        for error in found.damaged {
            match options.skip_bad_images {
                true => notices.warn(&skipped(&error)),
                false => return Err(error),
            }
        }
        let all: Arc<[ImageFile]> = found.images.into();
        require_images(all.len())?;
        let part = group.part(all.len());
        let own: Arc<[ImageFile]> = match group.is_joint() {
            true => all[part.clone()].into(),
            false => all.clone(),
        };
        let skip_bad = options.skip_bad_images;
        let headers = Headers::start(own.clone(), skip_bad, options.max_pixels)?;
        if !group.is_joint() && headers.all_are_bad() {
            let errors = headers.next(0, usize::MAX).into_iter();
            let errors = errors.filter_map(|(_, error)| error);
            errors.for_each(|error| notices.warn(&skipped(&error)));
            require_images(0)?;
        }
        Ok(Input::Files {
            all,
            own,
            first: part.start,
            headers,
            skip_bad,
            max_pixels: options.max_pixels,
            white: options.white,
            exact: options.exact_decode || model.rule == Rule::Torchprism,
            resize: options.resize,
        })
    }

    fn stored(
        path: PathBuf,
        options: &InputOptions,
        model: &ModelOptions,
        group: &Group,
    ) -> Result<Input> {
        let array = arrays::read_input(&path)?;
        let tensor = Tensor::try_from(array).context("reading the array `input`")?;
        let size = Size::of(&tensor);
        let resized =
            model.image_size.is_some_and(|asked| asked != size) || options.resize.is_some();
        let normalised = model.mean.is_some() || model.std.is_some() || model.bgr;
        let read = options.white.is_some() || options.exact_decode;
        if options.skip_bad_images || read || resized || normalised {
            let shown = path.display();
            return Err(usage_hinted(
                format!("{shown}: its images of {size} pixels are used as they are"),
                Hint::StoredInput,
            ));
        }
        Ok(Input::Array {
            part: group.part(tensor.size()[0] as usize),
            file: path,
            tensor,
        })
    }

    /// Number of channels of the images, if the input fixes it.
    pub fn channels(&self) -> Option<i64> {
        match self {
            Input::Files { .. } => None,
            Input::Array { tensor, .. } => Some(tensor.size()[1]),
        }
    }

    /// The images, if they are in files or archives.
    pub fn files(&self) -> Vec<&ImageFile> {
        match self {
            Input::Files { all, .. } => all.iter().collect(),
            Input::Array { .. } => Vec::new(),
        }
    }

    /// The paths of its images.
    pub fn paths(&self) -> Vec<PathBuf> {
        match self {
            Input::Files { all, .. } => {
                all.iter().map(|image| image.path().to_path_buf()).collect()
            }
            Input::Array { file, tensor, .. } => {
                let images = 0..tensor.size()[0] as usize;
                images
                    .map(|index| Input::stored_name(file, index))
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
            &Input::Files {
                white,
                resize,
                exact,
                ..
            } => network.clone().for_files(resize, white, exact),
            Input::Array { tensor, .. } => Preprocessing::stored(Size::of(tensor)),
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
