//! The page for a browser.

use std::path::Path;

use anyhow::Result;
use tch::Tensor;

use super::clusters::rows;
use super::pictures::{file_stem, smoothed};
use super::{Destination, Output, Results};
use crate::cluster::Row;
use crate::cluster::som::{SomOptions, grid_for, train};
use crate::convert::ramp_picture;
use crate::figure::{About, FigureFormat, Palette, colormap, draw_variance};
use crate::output::{Outputs, folder_of};
use crate::report::{
    Features, Gallery, PageGroup, PageImage, PageKey, PagePictures, PageRun, photograph,
    photograph_area, shown_images,
};
use crate::run::Ends;

/// The longer side of the picture of a saliency, pixels.
const SALIENCY_SIDE: f64 = 224.0;

/// The page with that path.
pub struct Page<'a>(pub &'a Path);

impl Output for Page<'_> {
    fn prepare(&self, files: &mut Outputs) -> Result<()> {
        files.prepare(folder_of(self.0))
    }

    fn write(&self, results: &Results, to: &mut Destination) -> Result<()> {
        let shown = shown_images(results.maps.len());
        let count = shown.len();
        let at = placed(&rows(results)?)?;
        let paths = shown
            .iter()
            .map(|&image| results.paths[image].to_string_lossy());
        let paths: Vec<_> = paths.collect();
        let borrowed: Vec<&str> = paths.iter().map(AsRef::as_ref).collect();
        let mut gallery = Gallery::new(self.0, &borrowed, &mut to.files)?;
        let bar = results.notices.bar(count, "drawing the page");
        for (&image, path) in shown.iter().zip(&paths) {
            gallery.add(
                &file_stem(image, results.maps.len(), &results.paths[image]),
                PageImage {
                    path: path.to_string(),
                    classes: vec![results.classes[image].clone()],
                    truth: results.truths[image].clone(),
                    at: at.get(image).copied(),
                },
                &results.page_pictures(image)?,
                &mut to.files,
            )?;
            bar.inc(1);
        }
        let run = results.page_run(&shown)?;
        let page = gallery.page(&[run], results.maps.len(), &mut to.files)?;
        to.write(self.0, page.as_bytes())
    }
}

/// Left, top and side of the picture of each image on the cluster map, as parts of the map's side;
/// none of a single image.
fn placed(rows: &[Row]) -> Result<Vec<[f64; 3]>> {
    if rows.len() < 2 {
        return Ok(Vec::new());
    }
    let options = SomOptions {
        grid: grid_for(rows.len()),
        ..SomOptions::default()
    };
    let units = train(rows, &options)?.units;
    let unit_side = 1.0 / options.grid as f64;
    let place = |image: usize| {
        let (row, column) = units[image];
        // Images of one unit share its square.
        let beside = units
            .iter()
            .enumerate()
            .filter(|(_, unit)| **unit == units[image]);
        let beside: Vec<usize> = beside.map(|(image, _)| image).collect();
        let number = beside.iter().take_while(|&&other| other < image).count();
        let across = (beside.len() as f64).sqrt().ceil();
        let cell = unit_side / across;
        let (down, right) = (number / across as usize, number % across as usize);
        // A single image leaves a margin, so that it is not much larger than others.
        let side = if beside.len() == 1 { 0.7 * cell } else { cell };
        let from = |unit: usize, place: usize| {
            unit as f64 * unit_side + place as f64 * cell + (cell - side) / 2.0
        };
        [from(column, right), from(row, down), side]
    };
    Ok((0..rows.len()).map(place).collect())
}

impl Results {
    /// The pictures of an image on a page.
    fn page_pictures(&self, image: usize) -> Result<PagePictures> {
        let (photograph, size) = match self.photographs.get(image) {
            Some(photograph) => {
                let bytes = photograph.bytes.get(0..1)?.view([-1]);
                (Vec::<u8>::try_from(bytes)?, photograph.size)
            }
            None => photograph(&self.picture(image).load()?)?,
        };
        let map = self.map(image)?;
        // Marks need more pixels than the map has.
        let map = match self.maps.leaves_out() || self.saliency.is_some() {
            true => self.map_picture_at(&map, image, self.page_size(image))?,
            false => self.map_picture(&map, image)?,
        };
        Ok(PagePictures {
            photograph,
            size,
            maps: vec![(map, self.smooth_saliency(image)?)],
        })
    }

    /// Width and height at which the map of an image is drawn on a page: as in figures, or as its
    /// photograph if that is smaller.
    fn page_size(&self, image: usize) -> (u32, u32) {
        let (width, height) = self.drawn_size(image);
        let area = photograph_area(self.maps.len());
        let factor = (area / (f64::from(width) * f64::from(height)))
            .sqrt()
            .min(1.0);
        let side = |side: u32| ((f64::from(side) * factor).round() as u32).max(1);
        (side(width), side(height))
    }

    /// The saliency of an image, enlarged as smoothly as it is drawn in figures.
    fn smooth_saliency(&self, image: usize) -> Result<Option<image::RgbImage>> {
        let Some(saliency) = self.saliency_of(image) else {
            return Ok(None);
        };
        let (width, height) = self.drawn_size(image);
        let factor = SALIENCY_SIDE / f64::from(width.max(height));
        let side = |side: u32| ((f64::from(side) * factor).round() as u32).max(1);
        let (width, height) = (side(width), side(height));
        let most = self.most_salient(image);
        let values = smoothed(&saliency, (width, height))?;
        let values = Tensor::from_slice(&values).reshape([i64::from(height), i64::from(width)]);
        let range = [0.0, if most > 0.0 { most } else { 1.0 }];
        ramp_picture(&values, Some(range), colormap::magma).map(Some)
    }

    /// The run on its page, with these images.
    fn page_run(&self, shown: &[usize]) -> Result<PageRun> {
        let components = self.maps.components.as_ref();
        let features = components.map(|components| {
            let size = self.maps.features.size();
            let d = components.count() as i64;
            let mut features = Features::new(shown.len(), [d, size[2], size[3]]);
            for &image in shown {
                let images = image..image + 1;
                features.add(
                    &components.of(images.clone())?,
                    &components.lengths(images)?,
                )?;
            }
            anyhow::Ok(features)
        });
        let about = About::new(String::new(), "");
        let ratios = &self.maps.variance_ratio;
        let chart = match ratios.is_empty() {
            true => None,
            false => Some(draw_variance(ratios, self.palette, &about, FigureFormat::Svg)?),
        };
        Ok(PageRun {
            network: self.network.network.clone(),
            saliency: self.saliency.as_ref().map(|shown| shown.title.clone()),
            palette: self.palette,
            variance_ratio: ratios.clone(),
            key: self.page_key()?,
            features: features.transpose()?,
            facts: self.facts(),
            chart,
            is_in_blocks: self.maps.is_in_blocks(),
        })
    }

    fn page_key(&self) -> Result<Option<PageKey>> {
        let Some(key) = &self.key else {
            return Ok(None);
        };
        let groups = key.groups.iter().map(|group| {
            let [r, g, b] = group.painted(self.palette);
            let words = group.in_words(key.kind, self.network.classes);
            PageGroup {
                colour: format!("rgb({r}, {g}, {b})"),
                name: words.name,
                further: words.further,
                left_out: group.left_out,
                feature: group.feature.clone(),
            }
        });
        Ok(Some(PageKey {
            groups: groups.collect(),
        }))
    }

    /// What was done: terms and their values.
    fn facts(&self) -> Vec<(String, Vec<String>)> {
        let network = &self.network;
        let mut facts = Vec::new();
        let mut fact = |term: &str, values: Vec<String>| {
            if !values.is_empty() {
                facts.push((term.to_string(), values));
            }
        };
        let guides: Vec<String> = network
            .guides
            .iter()
            .map(|layer| layer.name.clone())
            .collect();
        let (sharpened, rule) = match guides.is_empty() {
            true => ("nothing".to_string(), Vec::new()),
            false => (guides.join(", "), vec![network.rule.clone()]),
        };
        fact("Network", vec![network.network.clone()]);
        fact("Layer", vec![network.excitation.name.clone()]);
        fact("Sharpened by", vec![sharpened]);
        fact("Rule", rule);
        let kept = match self.basis_of.colours.as_str() {
            "every" => None,
            "common" => Some("what all images share"),
            "unique" => Some("what not all images have"),
            _ => Some("all, in 27 colours"),
        };
        let rest = if self.maps.leaves_out() {
            "; the rest is hatched"
        } else {
            ""
        };
        fact(
            "Features kept",
            kept.map(|kept| format!("{kept}{rest}"))
                .into_iter()
                .collect(),
        );
        let held = 100.0 * self.maps.variance_ratio.iter().take(3).sum::<f64>();
        let worth = self.maps.colour_correlation.map(|r| {
            format!(
                "; before upsampling, colours follow the similarity of all channels with r = {r:.2}"
            )
        });
        let worth = worth.unwrap_or_default();
        fact(
            "Colours",
            vec![format!(
                "three components: {held:.0} % of the variance{worth}"
            )],
        );
        if let Some(key) = &self.key {
            let axes = match self.palette {
                Palette::Rgb => ["Red", "Green", "Blue"],
                Palette::Oklab => ["Light", "Yellow", "Reddish"],
            };
            for (axis, words) in axes.iter().zip(key.components.iter().map(Ends::in_words)) {
                fact(axis, words.into_iter().collect());
            }
        }
        if let Some(components) = &self.maps.components {
            let count = components.count();
            fact(
                "Similarity",
                vec![format!(
                    "cosine of the first {count} components of two places, less the mean of all places"
                )],
            );
        }
        fact(
            "Saliency",
            self.saliency
                .iter()
                .map(|shown| shown.title.clone())
                .collect(),
        );
        for setting in &self.settings.0 {
            let name = match setting.name {
                "size" => "Input".to_string(),
                "std" => "Deviation".to_string(),
                name => {
                    let (first, rest) = name.split_at(1);
                    first.to_uppercase() + rest
                }
            };
            let text = setting
                .text
                .strip_prefix(setting.name)
                .unwrap_or(&setting.text);
            fact(&name, vec![format!("{} ({})", text.trim(), setting.from)]);
        }
        fact("Images", vec![self.maps.len().to_string()]);
        fact("Notes", self.remarks.lines().to_vec());
        facts
    }
}
