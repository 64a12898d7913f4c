//! The outputs of a run. A new output is a function that [`draw`] or [`save`] calls, and its file
//! a line in [`prepare`].

mod arrays;
mod clusters;
mod figure;
mod page;
mod per_image;
mod pictures;
mod text;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use tch::Tensor;

use crate::arrays::{ArrayFormat, BasisOf, write_basis};
use crate::classes::Class;
use crate::figure::{Scaling, draw_variance};
use crate::map::Maps;
use crate::notices::{Notices, Stopwatch};
use crate::options::{CLUSTER_FILE, JsonTarget, OutputOptions};
use crate::output::{Outputs, folder_of};
use crate::spool::Sequence;
use crate::summary::{ImageSummary, NetworkSummary, Summary};

use pictures::StoredPicture;

/// Checks that all files can be written, before the network is loaded.
///
/// # Errors
/// Returns an error if a folder cannot be created or written into, or if the file of arrays has
/// another extension.
pub fn prepare(options: &OutputOptions, files: &mut Outputs) -> Result<()> {
    if let Some(file) = &options.save_arrays {
        ArrayFormat::from_path(file)?;
    }
    files.prepare(&options.folder)?;
    let json = match &options.json {
        Some(JsonTarget::File(file)) => Some(file.as_path()),
        _ => None,
    };
    let named = [
        options.report.as_deref(),
        options.save_arrays.as_deref(),
        options.cluster.then(|| Path::new(CLUSTER_FILE)),
        options.save_basis.as_deref(),
        json,
    ];
    let mut folders = named.into_iter().flatten().map(folder_of);
    folders.try_for_each(|folder| files.prepare(folder))
}

/// Writes the outputs that show pictures or charts.
///
/// # Errors
/// Returns an error if one cannot be made or written.
pub fn draw(options: &OutputOptions, results: &Results, to: &mut Destination) -> Result<()> {
    let (ratios, format) = (results.maps.variance_ratio.clone(), options.format);
    let (network, extension) = (&results.network.network, format.extension());
    let chart = options
        .folder
        .join(format!("PRISM_var_{network}.{extension}"));
    let drawing = std::thread::spawn(move || draw_variance(&ratios, format));
    figure::write(options, results, to)?;
    if options.per_image {
        per_image::write(options, results, to)?;
    }
    if let Some(file) = &options.report {
        page::write(file, results, to)?;
    }
    let drawn = drawing.join();
    let bytes = drawn.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    to.write(&chart, &bytes)
}

/// Writes the outputs that hold numbers and text.
///
/// # Errors
/// Returns an error if one cannot be made or written.
pub fn save(options: &OutputOptions, results: &Results, to: &mut Destination) -> Result<()> {
    if let Some(file) = &options.save_arrays {
        arrays::write(file, results, to)?;
    }
    if options.cluster {
        clusters::write(results, to)?;
    }
    if let Some(file) = &options.save_basis {
        to.write(file, &write_basis(&results.maps.basis, &results.basis_of)?)?;
    }
    if let Some(target) = &options.json {
        text::json(target, results, to)?; // after the others: it lists their files
    }
    match &options.json {
        Some(JsonTarget::Stdout) => Ok(()),
        _ => text::lines(results, to),
    }
}

/// The results of a run, which the outputs read.
pub struct Results {
    /// The network and its layers.
    pub network: NetworkSummary,
    /// What a basis of this run belongs to.
    pub basis_of: BasisOf,
    /// Method and class of the saliency, if there is one.
    pub saliency: Option<String>,
    /// Paths of the images, as given.
    pub paths: Vec<PathBuf>,
    /// Pictures of the images, `[N,h,w,3]` bytes.
    pub pictures: Sequence,
    /// Input of the network, `[N,3,H,W]`; empty unless it is to be saved.
    pub input: Sequence,
    /// Top classes of each image.
    pub classes: Vec<Vec<Class>>,
    /// The maps.
    pub maps: Maps,
    /// Times of the stages so far.
    pub clock: Stopwatch,
    /// How much is written to standard error.
    pub notices: Notices,
}

impl Results {
    /// The map `[3,H,W]` of an image; `[4,H,W]` with saliency.
    fn map(&self, image: usize) -> Result<Tensor> {
        Ok(self.maps.map(image..image + 1)?.get(0))
    }

    /// The saliency `[h,w]` of an image, if there is one.
    fn saliency_of(&self, image: usize) -> Option<Tensor> {
        let all = self.maps.saliency.as_ref()?;
        Some(all.get(image as i64).get(0))
    }

    fn picture(&self, image: usize) -> StoredPicture<'_> {
        StoredPicture {
            pictures: &self.pictures,
            image,
        }
    }

    /// How maps are enlarged: maps that keep the features' resolution show their pixels.
    fn scaling(&self) -> Scaling {
        match self.basis_of.extrapolation.as_str() {
            "none" => Scaling::Blocks,
            _ => Scaling::Smooth,
        }
    }

    /// The summary of the run; `files` are the paths of the files written.
    fn summary(&self, files: Vec<String>, clock: &Stopwatch) -> Summary<'_> {
        let images = self.paths.iter().zip(&self.classes);
        Summary {
            prism: env!("CARGO_PKG_VERSION"),
            network: &self.network,
            extrapolation: &self.basis_of.extrapolation,
            colours: &self.basis_of.colours,
            saliency: self.saliency.as_deref(),
            variance_ratio: &self.maps.variance_ratio,
            images: images
                .map(|(path, classes)| ImageSummary {
                    path: path.to_string_lossy(),
                    classes,
                })
                .collect(),
            files,
            seconds: clock.stages().to_vec(),
        }
    }
}

/// Where outputs go: files, which all appear together at the end, and text for standard
/// output, which is printed after them.
#[derive(Default)]
pub struct Destination {
    /// The files.
    pub files: Outputs,
    printed: Vec<u8>,
}

impl Destination {
    /// Writes a file of these bytes.
    fn write(&mut self, path: &Path, bytes: &[u8]) -> Result<()> {
        self.files.write(path, |out| Ok(out.write_all(bytes)?))
    }

    /// Gives all files their names; returns those, and the text for standard output.
    ///
    /// # Errors
    /// Returns an error if a file cannot be renamed.
    pub fn commit(self) -> Result<(Vec<PathBuf>, Vec<u8>)> {
        Ok((self.files.commit()?, self.printed))
    }
}
