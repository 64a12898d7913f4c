//! The outputs of a run. Each is a type with its own file; a new output is a new file and
//! one line in [`drawn`] or [`saved`].

mod arrays;
mod basis;
mod caption;
mod clusters;
mod figure;
mod json;
mod lines;
mod look;
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
use crate::convert::painted;
use crate::figure::{About, Palette, Picture, Scaling, drawn_size};
use crate::map::Maps;
use crate::notices::{Notices, Stopwatch};
use crate::options::{JsonTarget, OutputOptions};
use crate::output::Outputs;
use crate::remarks::Remarks;
use crate::report;
use crate::settings::Settings;
use crate::spool::Sequence;
use crate::summary::{ImageSummary, NetworkSummary, Summary};
use crate::threads::or_resume;
use crate::truth::TrueClass;

use super::classes::Shown;
use super::forward::Photograph;
use super::key::Key;
use pictures::StoredPicture;

pub use look::Look;
pub use page::{cluster_map, page_run, saved_rows};
pub use pictures::file_stem;

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
    if let Some(file) = options.cluster_file() {
        outputs.push(Box::new(clusters::Clusters(file)));
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

/// Whether an output needs the leading components of all places.
pub fn need_components(options: &OutputOptions) -> bool {
    options.report.is_some() || options.save_arrays.is_some()
}

/// The most pixels of the photographs for the page of a run with `count` images, if there is one.
pub fn photograph_area(options: &OutputOptions, count: impl FnOnce() -> usize) -> Option<f64> {
    options
        .report
        .as_ref()
        .map(|_| report::photograph_area(count()))
}

/// The results of a run, which the outputs read.
pub struct Results {
    /// The network and its layers.
    pub network: NetworkSummary,
    /// What a basis of this run belongs to.
    pub basis_of: BasisOf,
    /// The name of the file with the components, if they are of an earlier run.
    pub basis: Option<String>,
    /// How components become colours.
    pub palette: Palette,
    /// Method and class of the saliency, if there is one.
    pub saliency: Option<Shown>,
    /// Paths of the images, as given.
    pub paths: Vec<PathBuf>,
    /// Pictures of the images, `[1,h,w,3]` bytes each.
    pub pictures: Vec<Sequence>,
    /// Larger pictures for the page; empty unless there is one and the images are files.
    pub photographs: Vec<Photograph>,
    /// Input of the network, `[N,C,H,W]`; empty unless it is to be saved.
    pub input: Sequence,
    /// What the network does not fix by itself, and where it came from.
    pub settings: Settings,
    /// Probabilities of all classes, `[N,K]` float64.
    pub probabilities: Tensor,
    /// Top classes of each image.
    pub classes: Vec<Vec<Class>>,
    /// The true class of each image, if it is known.
    pub truths: Vec<Option<TrueClass>>,
    /// What the colours stand for, unless it is not asked for.
    pub key: Option<Key>,
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
    /// How the maps were upsampled: bilaterally only if there was a guide.
    fn upsampling(&self) -> &str {
        match self.maps.lacks_guides() {
            true => "bilinear",
            false => &self.basis_of.upsampling,
        }
    }

    /// The map `[3,H,W]` of an image; `[4,H,W]` with saliency.
    fn map(&self, image: usize) -> Result<Tensor> {
        Ok(self.maps.map(image..image + 1)?.get(0))
    }

    /// The saliency `[h,w]` of an image, if there is one.
    fn saliency_of(&self, image: usize) -> Option<Tensor> {
        let all = self.maps.saliency.as_ref()?;
        Some(all.get(image as i64).get(0))
    }

    /// The picture of the saliency of an image on its scale, if there is one.
    fn saliency_picture(&self, image: usize) -> Result<Option<RgbImage>> {
        let saliency = self.saliency_of(image);
        saliency
            .map(|saliency| self.look().saliency(&saliency))
            .transpose()
    }

    /// What all pictures have in common.
    fn look(&self) -> Look {
        let saliency = self.maps.saliency.as_ref();
        let of_all = saliency.filter(|_| self.target().is_some());
        Look {
            palette: self.palette,
            scaling: Scaling::of(self.maps.is_in_blocks()),
            leaves_out: self.maps.leaves_out(),
            scale: of_all.map(|all| all.max().double_value(&[]) as f32),
        }
    }

    /// The class whose saliency is shown in all images, and its name.
    fn target(&self) -> Option<&(usize, String)> {
        self.saliency.as_ref()?.target.as_ref()
    }

    /// The colours `[3,H,W]` of a map; with saliency `[4,H,W]`, the last channel as in the map.
    fn colours(&self, map: &Tensor) -> Result<Tensor> {
        let colours = painted(map, self.palette)?;
        Ok(match map.size()[0] {
            4 => Tensor::cat(&[colours, map.narrow(0, 3, 1)], 0),
            _ => colours,
        })
    }

    /// The picture of a map: at its own size, or at that of the image if marks are drawn on it.
    fn map_picture(&self, map: &Tensor, image: usize) -> Result<RgbImage> {
        let saliency = self.saliency_of(image);
        self.look()
            .map(map, saliency.as_ref(), self.drawn_size(image))
    }

    /// Width and height at which an image is drawn in the figures.
    fn drawn_size(&self, image: usize) -> (u32, u32) {
        let (width, height) = self.picture(image).size();
        drawn_size(width.into(), height.into())
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
        StoredPicture(&self.pictures[image])
    }

    /// The summary of the run; `files` are the paths of the files written.
    fn summary(&self, files: Vec<String>, clock: &Stopwatch) -> Result<Summary<'_>> {
        let colours = self.maps.colours()?;
        let colours = colours.iter().map(|colours| colours.codes().collect());
        let images = self.paths.iter().zip(&self.classes).zip(&self.truths);
        Ok(Summary {
            prism: env!("CARGO_PKG_VERSION"),
            network: &self.network,
            settings: &self.settings,
            upsampling: self.upsampling(),
            colours: &self.basis_of.colours,
            palette: self.palette.to_string(),
            saliency: self.saliency.as_ref().map(|shown| shown.title.as_str()),
            variance_ratio: &self.maps.variance_ratio,
            colour_correlation: self.maps.colour_correlation,
            key: self.key.as_ref(),
            remarks: self.remarks.lines(),
            images: images
                .zip(colours)
                .map(|(((path, classes), truth), colours)| ImageSummary {
                    path: path.to_string_lossy(),
                    colours,
                    classes,
                    truth: truth.as_ref(),
                })
                .collect(),
            files,
            seconds: clock.stages().to_vec(),
        })
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
