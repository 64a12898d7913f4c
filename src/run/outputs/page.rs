//! The page for a browser.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::exchange::{packed_pictures, unpacked_pictures};
use super::pictures::file_stem;
use super::{Destination, Output, Results};
use crate::cluster::som::{SomOptions, grid_for, train};
use crate::cluster::{Row, rows_of};
use crate::figure::{About, FigureFormat, Palette, draw_variance};
use crate::output::{Outputs, folder_of};
use crate::report::{
    Features, Gallery, PageGroup, PageImage, PageKey, PagePictures, PageRun, photograph,
};
use crate::run::Ends;
use crate::saved::SavedSummary;

/// The page with that path.
pub struct Page<'a>(pub &'a Path);

impl Output for Page<'_> {
    fn prepare(&self, files: &mut Outputs) -> Result<()> {
        files.prepare(folder_of(self.0))
    }

    fn write(&self, results: &Results, to: &mut Destination) -> Result<()> {
        let all = results.maps.numbers.all;
        let summary = results.summary_of(&results.on_page)?;
        let counts = results.group.share(results.on_page.len())?;
        let features = results.page_features(counts.iter().sum())?;
        let numbers = results.group.gather_values(results.numbers_on_page())?;
        let Some(summary) = summary else {
            for &image in &results.on_page {
                let pictures = packed_pictures(&results.page_pictures(image)?)?;
                results.group.send(&pictures, 0)?;
            }
            return Ok(());
        };
        // Numbers among all images, and the ranks that have them.
        let shown: Vec<usize> = numbers.into_iter().flatten().collect();
        let ranks = counts.iter().enumerate();
        let ranks = ranks.flat_map(|(rank, &count)| std::iter::repeat_n(rank, count));
        let rows: Vec<usize> = (0..shown.len()).collect();
        let at = cluster_map(&saved_rows(&summary, &rows)?)?;
        let paths = summary.images.iter().map(|image| image.path.clone());
        let paths: Vec<String> = paths.collect();
        let mut gallery = Gallery::new(self.0, &paths, &[&summary], &mut to.files)?;
        let bar = results.notices.bar(shown.len(), "drawing the page");
        for ((place, &number), rank) in shown.iter().enumerate().zip(ranks) {
            let image = &summary.images[place];
            let pictures = match rank {
                0 => results.page_pictures(results.on_page[place])?,
                rank => unpacked_pictures(&results.group.receive(rank)?)?,
            };
            gallery.add(
                &file_stem(number, all, Path::new(&image.path)),
                PageImage {
                    path: image.path.clone(),
                    classes: vec![image.classes.clone()],
                    truth: image.truth.clone(),
                    right: vec![image.is_right()],
                    changed: None,
                    at: at.get(place).copied(),
                },
                &pictures,
                &mut to.files,
            )?;
            bar.inc(1);
        }
        let run = page_run(&summary, all, features)?;
        let page = gallery.page(&[run], all, "", &[], &mut to.files)?;
        to.write(self.0, page.as_bytes())
    }
}

impl Results<'_> {
    /// The pictures of an image on a page.
    fn page_pictures(&self, image: usize) -> Result<PagePictures> {
        let (photograph, size) = match self.photographs.get(image) {
            Some(photograph) => {
                let bytes = photograph.bytes.get(0..1)?.view([-1]);
                (Vec::<u8>::try_from(bytes)?, photograph.size)
            }
            None => photograph(&self.picture(image)?.load()?)?,
        };
        let (map, saliency) = (self.map(image)?, self.saliency_of(image)?);
        let drawn = self.drawn_size(image)?;
        let pictures =
            self.look()
                .on_page(&map, saliency.as_ref(), drawn, self.maps.numbers.all)?;
        Ok(PagePictures {
            photograph,
            size,
            maps: vec![pictures],
        })
    }

    /// The numbers of the images on the page among all.
    fn numbers_on_page(&self) -> Vec<usize> {
        let first = self.maps.numbers.first;
        self.on_page.iter().map(|image| first + image).collect()
    }

    /// The features of the `count` images of all ranks on a page; none on other ranks than the first.
    fn page_features(&self, count: usize) -> Result<Option<Features>> {
        let Some(components) = &self.maps.components else {
            return Ok(None);
        };
        let size = self.maps.feature_size();
        let shape = [components.count() as i64, size.height, size.width];
        let mut features = Features::new(count, shape);
        for &image in &self.on_page {
            let images = image..image + 1;
            features.add(
                &components.of(images.clone())?,
                &components.lengths(images)?,
            )?;
        }
        features.gather(self.group)?;
        Ok(self.group.is_first().then_some(features))
    }
}

/// Left, top and side of the picture of each image on the cluster map, as parts of the map's side;
/// none of a single image.
///
/// # Errors
/// Returns an error if the rows have unequally many features.
pub fn cluster_map(rows: &[Row]) -> Result<Vec<[f64; 3]>> {
    if rows.len() < 2 || rows.iter().any(|row| row.features.is_empty()) {
        return Ok(Vec::new());
    }
    let options = SomOptions {
        grid: grid_for(rows.len()),
        ..SomOptions::default()
    };
    let units = train(rows, &options)?.units;
    let mut members = vec![Vec::new(); options.grid * options.grid];
    for (image, (row, column)) in units.iter().enumerate() {
        members[row * options.grid + column].push(image);
    }
    let unit_side = 1.0 / options.grid as f64;
    let mut places = vec![[0.0; 3]; rows.len()];
    for (unit, images) in members.iter().enumerate() {
        // Images of one unit share its square. A single one leaves a margin, so that it is not much
        // larger than others.
        let across = (images.len() as f64).sqrt().ceil() as usize;
        let cell = unit_side / across as f64;
        let side = if images.len() == 1 { 0.7 * cell } else { cell };
        let from = |unit: usize, place: usize| {
            unit as f64 * unit_side + place as f64 * cell + (cell - side) / 2.0
        };
        for (number, &image) in images.iter().enumerate() {
            let left = from(unit % options.grid, number % across);
            places[image] = [left, from(unit / options.grid, number / across), side];
        }
    }
    Ok(places)
}

/// A run of `all` images on a page, from its summary, which may have those on the page alone.
///
/// # Errors
/// Returns an error if the variance figure cannot be drawn.
pub fn page_run(summary: &SavedSummary, all: usize, features: Option<Features>) -> Result<PageRun> {
    let (ratios, palette) = (&summary.variance_ratio, summary.palette());
    let about = About::new(String::new(), "");
    let chart = match ratios.is_empty() {
        true => None,
        false => Some(draw_variance(ratios, palette, &about, FigureFormat::Svg)?),
    };
    let facts = facts(summary, all, features.as_ref());
    let key = summary.key.as_ref().map(|key| {
        let groups = key.groups.iter().map(|group| {
            let [r, g, b] = group.painted(palette);
            let words = group.in_words(key.kind, summary.classes);
            PageGroup {
                colour: format!("rgb({r}, {g}, {b})"),
                name: words.name,
                further: words.further,
                left_out: group.left_out,
                feature: group.feature.clone(),
            }
        });
        let groups = groups.collect();
        PageKey { groups }
    });
    Ok(PageRun {
        network: summary.network.clone(),
        saliency: summary.saliency.clone(),
        palette,
        variance_ratio: ratios.clone(),
        key,
        features,
        facts,
        chart,
        remarks: summary.remarks.clone(),
    })
}

/// What was done: terms and their values.
fn facts(summary: &SavedSummary, all: usize, features: Option<&Features>) -> Vec<(String, String)> {
    let mut facts = Vec::new();
    let mut fact = |term: &str, value: Option<String>| {
        facts.extend(value.map(|value| (term.to_string(), value)));
    };
    let layer = &summary.excitation;
    let shape = layer
        .shape
        .map(|[c, h, w]| format!(" ({c} channels, {h}\u{d7}{w} places)"));
    let guides: Vec<&str> = summary
        .guides
        .iter()
        .map(|guide| guide.name.as_str())
        .collect();
    let sharpened = match guides.is_empty() {
        true => "nothing".to_string(),
        false => format!("{} ({})", guides.join(", "), summary.upsampling),
    };
    fact("Network", Some(summary.network.clone()));
    fact(
        "Layer",
        Some(layer.name.clone() + &shape.unwrap_or_default()),
    );
    fact("Sharpened by", Some(sharpened));
    fact("Rule", Some(summary.rule.clone()));
    let kept = match summary.colours.as_str() {
        "every" => None,
        "common" => Some("what all images share"),
        "unique" => Some("what not all images have"),
        _ => Some("all, in 27 colours"),
    };
    let rest = match summary.leaves_out() {
        true => "; the rest is hatched",
        false => "",
    };
    fact("Features kept", kept.map(|kept| format!("{kept}{rest}")));
    let held = 100.0 * summary.variance_ratio.iter().take(3).sum::<f64>();
    let worth = summary.colour_correlation.map(|r| {
        format!(
            "; before upsampling, colours follow the similarity of all channels with r = {r:.2}"
        )
    });
    let worth = worth.unwrap_or_default();
    let colours = format!("three components: {held:.0} % of the variance{worth}");
    fact("Colours", Some(colours));
    if let Some(key) = &summary.key {
        let axes = match summary.palette() {
            Palette::Rgb => ["Red", "Green", "Blue"],
            Palette::Oklab => ["Light", "Yellow", "Reddish"],
        };
        for (axis, words) in axes.iter().zip(key.components.iter().map(Ends::in_words)) {
            fact(axis, words);
        }
    }
    fact("Similarity", features.map(Features::in_words));
    fact("Saliency", summary.saliency.clone());
    for (name, setting) in &summary.settings {
        let term = match name.as_str() {
            "size" => "Input".to_string(),
            "std" => "Deviation".to_string(),
            name => {
                let mut letters = name.chars();
                let first = letters.next().map(|letter| letter.to_ascii_uppercase());
                first.into_iter().chain(letters).collect()
            }
        };
        let value = in_words(&setting.value);
        fact(&term, Some(format!("{value} ({})", setting.from)));
    }
    fact("Images", Some(all.to_string()));
    facts
}

/// A value of JSON without its brackets and quotes.
fn in_words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(in_words).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// The rows of the cluster map of the images of a saved run; empty if it does not know them.
///
/// # Errors
/// Returns an error if an image has no class.
pub fn saved_rows(summary: &SavedSummary, images: &[usize]) -> Result<Vec<Row>> {
    let image = |&image: &usize| {
        let entry = &summary.images[image];
        let class = entry.classes.first().context("an image has no class")?.id;
        Ok((entry.path.clone(), class, entry.colours.clone()))
    };
    let images: Vec<_> = images.iter().map(image).collect::<Result<_>>()?;
    Ok(rows_of(images))
}
