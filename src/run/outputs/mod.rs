//! The outputs of a run. Each is a type with its own file; a new output is a new file and
//! one line in [`drawn`] or [`saved`].

mod arrays;
mod basis;
mod clusters;
mod figure;
mod json;
mod lines;
mod page;
mod per_image;
mod pictures;
mod variance;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use anyhow::Result;
use image::RgbImage;
use tch::Tensor;

use crate::arrays::BasisOf;
use crate::classes::Class;
use crate::convert::to_picture;
use crate::figure::{About, Picture, Scaling};
use crate::map::Maps;
use crate::notices::{Notices, Stopwatch};
use crate::options::{JsonTarget, OutputOptions};
use crate::output::Outputs;
use crate::remarks::Remarks;
use crate::settings::Settings;
use crate::spool::Sequence;
use crate::summary::{ImageSummary, NetworkSummary, Summary};
use crate::threads::or_resume;

use pictures::{StoredPicture, map_picture};

/// One kind of result.
pub trait Output {
    /// Checks that the output can be written, before the network is loaded.
    ///
    /// # Errors
    /// Returns an error if it cannot.
    fn prepare(&self, files: &mut Outputs) -> Result<()> {
        let _ = files;
        Ok(())
    }

    /// Writes the output.
    ///
    /// # Errors
    /// Returns an error if it cannot be made or written.
    fn write(&self, results: &Results, to: &mut Destination) -> Result<()>;
}

/// The outputs that show pictures or charts, in the order in which they are written.
pub fn drawn(options: &OutputOptions) -> Vec<Box<dyn Output + '_>> {
    let mut outputs: Vec<Box<dyn Output>> = vec![
        Box::new(variance::Variance(options)), // first: it is drawn beside the others
        Box::new(figure::Figure(options)),
    ];
    if options.per_image {
        outputs.push(Box::new(per_image::PerImage(options)));
    }
    if let Some(file) = &options.report {
        outputs.push(Box::new(page::Page(file)));
    }
    outputs
}

/// The outputs that hold numbers and text, in the order in which they are written.
pub fn saved(options: &OutputOptions) -> Vec<Box<dyn Output + '_>> {
    let mut outputs: Vec<Box<dyn Output>> = Vec::new();
    if let Some(file) = &options.save_arrays {
        outputs.push(Box::new(arrays::Arrays(file)));
    }
    if options.cluster {
        outputs.push(Box::new(clusters::Clusters));
    }
    if let Some(file) = &options.save_basis {
        outputs.push(Box::new(basis::SavedBasis(file)));
    }
    if let Some(target) = &options.json {
        outputs.push(Box::new(json::Json(target))); // after the others: it lists their files
    }
    if options.json != Some(JsonTarget::Stdout) {
        outputs.push(Box::new(lines::Lines));
    }
    outputs
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
    /// Input of the network, `[N,C,H,W]`; empty unless it is to be saved.
    pub input: Sequence,
    /// What the network does not fix by itself, and where it came from.
    pub settings: Settings,
    /// Probabilities of all classes, `[N,K]` float64.
    pub probabilities: Tensor,
    /// Top classes of each image.
    pub classes: Vec<Vec<Class>>,
    /// The maps.
    pub maps: Maps,
    /// Times of the stages so far.
    pub clock: Stopwatch,
    /// What was assumed, and what limits the result.
    pub remarks: Remarks,
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

    /// The picture of a map: at its own size, or with what is left out hatched at that of the image.
    fn map_picture(&self, map: &Tensor, image: usize) -> Result<RgbImage> {
        match self.maps.leaves_out() {
            true => map_picture(map, Picture::size(&self.picture(image)), self.scaling()),
            false => to_picture(map),
        }
    }

    /// What the colours of the features are worth, and what is not a colour.
    fn colour_phrases(&self) -> Vec<String> {
        let shares = self.maps.variance_ratio.iter().take(3);
        let mut phrases = vec![format!(
            "before upsampling, the colours hold {:.0} % of the variance{}",
            100.0 * shares.sum::<f64>(),
            match self.maps.colour_correlation {
                Some(r) => format!(" and follow the similarity of all channels with r = {r:.2}"),
                None => String::new(),
            }
        )];
        if self.maps.leaves_out() {
            phrases.push("hatched: left out".to_string());
        }
        phrases
    }

    /// What the files of figures say of their origin.
    fn about(&self, command: &str) -> About {
        let NetworkSummary {
            network,
            excitation,
            ..
        } = &self.network;
        About::new(
            format!("network {network}, layer {}", excitation.name),
            command,
        )
    }

    fn picture(&self, image: usize) -> StoredPicture<'_> {
        StoredPicture {
            pictures: &self.pictures,
            image,
        }
    }

    /// How maps are enlarged: maps that keep the features' resolution show their pixels.
    fn scaling(&self) -> Scaling {
        match self.maps.is_in_blocks() {
            true => Scaling::Blocks,
            false => Scaling::Smooth,
        }
    }

    /// The summary of the run; `files` are the paths of the files written.
    fn summary(&self, files: Vec<String>, clock: &Stopwatch) -> Summary<'_> {
        let images = self.paths.iter().zip(&self.classes);
        Summary {
            prism: env!("CARGO_PKG_VERSION"),
            network: &self.network,
            settings: &self.settings,
            upsampling: &self.basis_of.upsampling,
            colours: &self.basis_of.colours,
            saliency: self.saliency.as_deref(),
            variance_ratio: &self.maps.variance_ratio,
            colour_correlation: self.maps.colour_correlation,
            remarks: self.remarks.lines(),
            images: images
                .map(|(path, classes)| ImageSummary {
                    path: path.to_string_lossy(),
                    classes,
                })
                .collect(),
            files,
            is_in_blocks: self.maps.is_in_blocks(),
            leaves_out: self.maps.leaves_out(),
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
    drawing: Vec<(PathBuf, JoinHandle<Result<Vec<u8>>>)>,
}

impl Destination {
    /// Writes a file of these bytes.
    fn write(&mut self, path: &Path, bytes: &[u8]) -> Result<()> {
        self.files.write(path, |out| Ok(out.write_all(bytes)?))
    }

    /// Writes what `draw` returns, which another thread computes meanwhile.
    fn draw(&mut self, path: PathBuf, draw: impl FnOnce() -> Result<Vec<u8>> + Send + 'static) {
        self.drawing.push((path, std::thread::spawn(draw)));
    }

    /// Waits for the other threads and writes their files.
    ///
    /// # Errors
    /// Returns the first error of a thread or of writing.
    pub fn finish_drawing(&mut self) -> Result<()> {
        for (path, thread) in std::mem::take(&mut self.drawing) {
            let bytes = or_resume(thread.join())?;
            self.write(&path, &bytes)?;
        }
        Ok(())
    }

    /// Gives all files their names; returns those, and the text for standard output.
    ///
    /// # Errors
    /// Returns an error if a file cannot be renamed.
    pub fn commit(self) -> Result<(Vec<PathBuf>, Vec<u8>)> {
        Ok((self.files.commit()?, self.printed))
    }
}
