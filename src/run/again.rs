//! Pages of saved runs: of one again, or of two side by side.

use std::collections::HashSet;
use std::path::Path;

use anyhow::Result;
use tch::Tensor;

use super::commands::report_written;
use super::outputs::{Look, cluster_map, file_stem, page_run, saved_rows};
use crate::compare::Comparison;
use crate::figure::{Scaling, drawn_size};
use crate::notices::Notices;
use crate::options::ReportOptions;
use crate::output::{Outputs, folder_of};
use crate::remarks::{Remark, Remarks};
use crate::report::{
    Features, Gallery, PageImage, PagePictures, PageRun, photograph_area, shown_images,
};
use crate::saved::{SavedEntry, SavedImages, SavedRun};

/// Makes the page of a saved run.
///
/// # Errors
/// Returns a message of one line; no file is written then.
pub fn report(options: &ReportOptions) -> Result<()> {
    let notices = Notices::from_flags(options.quiet, false);
    let mut remarks = Remarks::new(notices);
    let mut outputs = Outputs::default();
    outputs.prepare(folder_of(&options.output))?;
    let run = SavedRun::open(&options.run, options.arrays.as_deref())?;
    run.require_pictures()?;
    let images = (0..run.count()).collect();
    let side = [(&run, images)];
    write_page(
        &options.output,
        &side,
        None,
        &mut outputs,
        notices,
        &mut remarks,
    )?;
    report_written(&outputs.commit()?, notices);
    Ok(())
}

/// Writes the page of saved runs: of each run the images that are shown, in the same order, and what
/// their comparison found.
///
/// # Errors
/// Returns an error if arrays cannot be read, or the page cannot be written.
pub fn write_page(
    file: &Path,
    runs: &[(&SavedRun, Vec<usize>)],
    comparison: Option<&Comparison>,
    outputs: &mut Outputs,
    notices: Notices,
    remarks: &mut Remarks,
) -> Result<()> {
    let Some((first, of_first)) = runs.first() else {
        return Ok(());
    };
    let all = of_first.len();
    let found = comparison.map(Comparison::in_short).unwrap_or_default();
    let mut noted = comparison.map_or_else(Vec::new, |comparison| comparison.remarks.clone());
    let changed = comparison.and_then(|comparison| comparison.changed.as_ref());
    let changed: Option<HashSet<&String>> =
        changed.map(|changed| changed.iter().map(|image| &image.path).collect());
    let changed = changed.as_ref();
    let shown = shown_images(all);
    let of_shown =
        |images: &[usize]| -> Vec<usize> { shown.iter().map(|&at| images[at]).collect() };
    let entries = |at: usize| {
        runs.iter()
            .map(move |(run, images)| &run.summary.images[images[at]])
    };
    let at = cluster_map(&saved_rows(&first.summary, &of_shown(of_first))?)?;
    let looks = runs.iter().map(|(run, _)| look(run));
    let looks: Vec<Look> = looks.collect::<Result<_>>()?;
    let paths = of_shown(of_first)
        .into_iter()
        .map(|image| first.summary.images[image].path.clone());
    let paths: Vec<String> = paths.collect();
    let mut photographs = SavedImages::of(first, photograph_area(all));
    let summaries: Vec<_> = runs.iter().map(|(run, _)| &run.summary).collect();
    let mut gallery = Gallery::new(file, &paths, &summaries, outputs)?;
    let bar = notices.bar(shown.len(), "drawing the page");
    for (number, (&image, path)) in shown.iter().zip(&paths).enumerate() {
        let (photograph, size) = photographs.photograph(of_first[image])?;
        let drawn = drawn_size(size.0.into(), size.1.into());
        let maps = runs.iter().zip(&looks).map(|((run, images), look)| {
            let map = run.map(images[image])?;
            let saliency = run.saliency(images[image])?;
            look.on_page(&map, saliency.as_ref(), drawn, all)
        });
        let pictures = PagePictures {
            photograph,
            size,
            maps: maps.collect::<Result<_>>()?,
        };
        let entry = PageImage {
            path: path.clone(),
            classes: entries(image).map(|entry| entry.classes.clone()).collect(),
            truth: entries(image).find_map(|entry| entry.truth.clone()),
            right: entries(image).map(SavedEntry::is_right).collect(),
            changed: changed.map(|changed| changed.contains(path)),
            at: at.get(number).copied(),
        };
        let stem = file_stem(image, all, Path::new(path));
        gallery.add(&stem, entry, &pictures, outputs)?;
        bar.inc(1);
    }
    noted.extend(photographs.remarks());
    remarks.add_all(&noted);
    let noted: Vec<String> = noted.iter().map(Remark::line).collect();
    let on_page = runs.iter().map(|(run, images)| {
        page_run(&run.summary, run.count(), features(run, &of_shown(images))?)
    });
    let on_page: Vec<PageRun> = on_page.collect::<Result<_>>()?;
    let page = gallery.page(&on_page, all, &found, &noted, outputs)?;
    outputs.write(file, |out| {
        use std::io::Write as _;
        Ok(out.write_all(page.as_bytes())?)
    })
}

/// What all pictures of a saved run have in common.
fn look(run: &SavedRun) -> Result<Look> {
    let summary = &run.summary;
    let mut scale = None;
    // With a target class all images have one scale.
    if summary
        .saliency
        .as_ref()
        .is_some_and(|title| title.contains(": "))
    {
        for image in 0..run.count() {
            let most = run.saliency(image)?.map(|saliency| saliency.max());
            let most = most.map_or(0.0, |most| most.double_value(&[]) as f32);
            scale = Some(most.max(scale.unwrap_or(0.0)));
        }
    }
    Ok(Look {
        palette: summary.palette(),
        scaling: Scaling::of(summary.is_in_blocks()),
        leaves_out: run.leaves_out(),
        scale,
    })
}

/// The features of these images on a page; none if all places are equal.
fn features(run: &SavedRun, images: &[usize]) -> Result<Option<Features>> {
    let count = run.component_count() as i64;
    if count == 0 {
        return Ok(None);
    }
    let [height, width] = run.grid.map(|side| side as i64);
    let mut features = Features::new(images.len(), [count, height, width]);
    for &image in images {
        let of = |read: fn(&SavedRun, std::ops::Range<usize>) -> Result<Tensor>| {
            read(run, image..image + 1)
        };
        features.add(&of(SavedRun::components)?, &of(SavedRun::lengths)?)?;
    }
    Ok(Some(features))
}
