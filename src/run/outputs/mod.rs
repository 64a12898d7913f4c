//! The outputs of a run. Each is a type with its own file; a new output is a new file and
//! one line in [`drawn`] or [`saved`].

mod arrays;
mod basis;
mod caption;
mod clusters;
mod exchange;
mod figure;
mod json;
mod left_over;
mod lines;
mod look;
mod page;
mod per_image;
mod pictures;
mod variance;

use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use image::RgbImage;
use serde_json::Value;
use tch::Tensor;

use crate::arrays::BasisOf;
use crate::classes::Class;
use crate::convert::painted;
use crate::figure::{About, Palette, Picture, Scaling, drawn_size};
use crate::joint::Group;
use crate::map::{ColourSet, Maps, Numbers};
use crate::notices::{Notices, Stopwatch};
use crate::options::{ArrayName, JsonTarget, Options, OutputOptions};
use crate::output::Outputs;
use crate::remarks::{Remark, Remarks};
use crate::report;
use crate::sample::{Kept, Sample};
use crate::saved::SavedSummary;
use crate::scores::ScoreKind;
use crate::settings::Settings;
use crate::size::Size;
use crate::spool::{self, Sequence, Spool};
use crate::summary::{ImageSummary, NetworkSummary, Summary};
use crate::threads::or_resume;
use crate::truth::TrueClass;

use super::classes::Shown;
use super::forward::Photograph;
use super::key::Key;
use pictures::StoredPicture;

pub use left_over::left_over;
pub use look::Look;
pub use page::{cluster_map, page_run, saved_rows};
pub use pictures::{file_stem, shown_names};

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

    /// What is to be said of the output before it is written.
    fn remarks(&self, results: &Results) -> Vec<Remark> {
        let _ = results;
        Vec::new()
    }

    /// Writes the output.
    ///
    /// # Errors
    /// Returns an error if it cannot be made or written.
    fn write(&self, results: &Results, to: &mut Destination) -> Result<()>;
}

/// The outputs that show pictures or charts, in the order in which they are written.
pub fn drawn(options: &OutputOptions) -> Vec<Box<dyn Output + '_>> {
    let mut outputs: Vec<Box<dyn Output>> = Vec::new();
    if options.figures > 0 {
        outputs.push(Box::new(variance::Variance(options))); // first: it is drawn beside the others
        outputs.push(Box::new(figure::Figure(options)));
    }
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
        outputs.push(Box::new(arrays::Arrays(file, options)));
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
    options.report.is_some()
        || options.saves(ArrayName::Components)
        || options.saves(ArrayName::Lengths)
}

/// The most pixels of the photographs for the page of a run with `count` images, if there is one.
pub fn photograph_area(options: &OutputOptions, count: usize) -> Option<f64> {
    options
        .report
        .as_ref()
        .map(|_| report::photograph_area(count))
}

/// The images that the page of a run with `count` images shows; none if there is no page.
pub fn page_sample(options: &OutputOptions, count: usize) -> Sample {
    let most = options.report.as_ref().map_or(0, |_| report::MOST_SHOWN);
    Sample::new(count, most)
}

/// Where intermediate results are stored, checked: in the folder that is asked for, else in that of
/// the figures.
///
/// # Errors
/// Returns an error if they cannot be.
pub fn spool(options: &Options, group: &Group, files: &mut Outputs) -> Result<Spool> {
    let memory = options.compute.memory;
    let memory = memory.unwrap_or_else(spool::share_of_memory);
    match &options.compute.spool {
        Some(folder) => Spool::opened(memory, folder),
        // The output folder is one that all ranks see, which a network file system provides.
        None if group.is_joint() => Spool::opened(memory, &std::env::temp_dir()),
        None => {
            files.prepare(&options.output.folder)?;
            Ok(Spool::new(memory, &options.output.folder))
        }
    }
}

/// The results of a run, which the outputs read.
pub struct Results<'a> {
    /// The ranks, of which this one has some of the images.
    pub group: &'a Group,
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
    /// The images that figures show, by their index in `paths`, and their names there.
    pub in_figures: Vec<usize>,
    pub names: Vec<String>,
    /// The place of `in_figures` among those of all ranks.
    pub numbers_in_figures: Numbers,
    /// The images that the page shows, likewise.
    pub on_page: Vec<usize>,
    /// Pictures of the images that figures or the page show, `[1,h,w,3]` bytes each.
    pub pictures: Kept<Sequence>,
    /// Larger pictures of the images on the page, if they are files.
    pub photographs: Kept<Photograph>,
    /// Input of the network, `[N,C,H,W]`; empty unless it is to be saved.
    pub input: Sequence,
    /// The shape of the input of one image; empty unless it is to be saved.
    pub input_shape: Vec<i64>,
    /// What the network does not fix by itself, and where it came from.
    pub settings: Settings,
    /// What the class scores mean.
    pub kind: ScoreKind,
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

impl Results<'_> {
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
    fn saliency_of(&self, image: usize) -> Result<Option<Tensor>> {
        let saliency = self.maps.saliency(image..image + 1)?;
        Ok(saliency.map(|saliency| saliency.get(0).get(0)))
    }

    /// Probabilities of all classes in some images, `[n,K]` float64.
    fn probabilities(&self, images: Range<usize>) -> Result<Tensor> {
        Ok(self.kind.probabilities(&self.maps.logits(images)?))
    }

    /// The picture of the saliency of an image on its scale, if there is one.
    fn saliency_picture(&self, image: usize) -> Result<Option<RgbImage>> {
        let saliency = self.saliency_of(image)?;
        saliency
            .map(|saliency| self.look().saliency(&saliency))
            .transpose()
    }

    /// What all pictures have in common.
    fn look(&self) -> Look {
        let largest = self.maps.largest_saliency;
        let of_all = largest.filter(|_| self.target().is_some());
        Look {
            palette: self.palette,
            scaling: Scaling::of(self.maps.is_in_blocks()),
            leaves_out: self.maps.leaves_out(),
            scale: of_all.map(|largest| largest as f32),
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
        let saliency = self.saliency_of(image)?;
        self.look()
            .map(map, saliency.as_ref(), self.drawn_size(image)?)
    }

    /// Width and height of that picture.
    fn map_picture_size(&self, image: usize) -> Result<(u32, u32)> {
        match self.look().marks_maps(self.maps.saliency_size().is_some()) {
            true => self.drawn_size(image),
            false => {
                let Size { height, width } = self.maps.size();
                Ok((width as u32, height as u32))
            }
        }
    }

    /// Width and height at which an image is drawn in the figures.
    fn drawn_size(&self, image: usize) -> Result<(u32, u32)> {
        let (width, height) = self.picture(image)?.size();
        Ok(drawn_size(width.into(), height.into()))
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

    /// The picture of an image that figures or the page show.
    fn picture(&self, image: usize) -> Result<StoredPicture<'_>> {
        let kept = self.pictures.get(image);
        Ok(StoredPicture(kept.context("a picture was not kept")?))
    }

    /// The summary of the run, without its images.
    fn summary(&self) -> Summary<'_> {
        Summary {
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
        }
    }

    /// The summary of an image; `colours` are those of all images.
    fn image_summary(&self, image: usize, colours: &[ColourSet]) -> ImageSummary<'_> {
        ImageSummary {
            path: self.paths[image].to_string_lossy(),
            colours: colours[image].codes().collect(),
            classes: &self.classes[image],
            truth: self.truths[image].as_ref(),
        }
    }

    /// The summary of some images of all ranks, as it is read back; none on other ranks than the first.
    fn summary_of(&self, images: &[usize]) -> Result<Option<SavedSummary>> {
        let colours = self.maps.colours()?;
        let images = images.iter();
        let images: Vec<ImageSummary> = images
            .map(|&image| self.image_summary(image, &colours))
            .collect();
        let own = serde_json::to_value(&images)?;
        let all = self.group.gather_values(own)?;
        if !self.group.is_first() {
            return Ok(None);
        }
        let lists = all.into_iter().filter_map(|list| match list {
            Value::Array(images) => Some(images),
            _ => None,
        });
        let summary = self.summary().of_images(lists.flatten().collect())?;
        SavedSummary::of_json(summary).map(Some)
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

    /// Gives all files their names after all ranks have written theirs; rank 0 comes last, so that
    /// who finds its summary or page finds all of them. No rank succeeds unless all do. Returns the
    /// names of the files of all ranks and the text for standard output on rank 0, and none on the
    /// others.
    ///
    /// # Errors
    /// Returns an error if a file cannot be renamed, or if a rank is lost.
    pub fn commit_in(self, group: &Group) -> Result<Option<(Vec<PathBuf>, Vec<u8>)>> {
        let own = self.files.paths();
        let names = group.gather_values(own)?;
        if !group.is_first() {
            group.barrier()?; // all have written theirs
            self.files.commit()?;
            group.barrier()?;
            group.complete()?; // also those of rank 0 have their names
            return Ok(None);
        }
        group.barrier()?;
        group.barrier()?;
        let mut written = self.files.commit()?;
        group.complete()?;
        let others = names.into_iter().skip(1).flatten();
        written.extend(others.map(PathBuf::from));
        Ok(Some((written, self.printed)))
    }
}
