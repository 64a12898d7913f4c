//! What a figure says of itself.

use anyhow::Result;

use super::Results;
use crate::figure::{LARGEST_RATIO, Palette, Picture, drawn_size};
use crate::settings::{Settings, Source};

impl Results<'_> {
    /// The caption of the figures: what the colours are and what they are worth, and what was
    /// given or assumed. What the network or its file states is not repeated.
    ///
    /// # Errors
    /// Returns an error if a rank is lost.
    pub fn caption(&self) -> Result<String> {
        let mut sentences = vec![self.made_by(), self.worth()];
        if self.maps.leaves_out() && self.key.is_none() {
            sentences.push("Hatched: left out".to_string());
        }
        if self.maps.blackens() && self.key.is_none() {
            sentences.push("Black: left out".to_string());
        }
        sentences.extend(self.line_on_map());
        let is_cut = |&image: &usize| {
            let size = self.picture(image).map(|picture| picture.size());
            let longest = drawn_size(LARGEST_RATIO, 1.0);
            size.is_ok_and(|size| size == longest || size == (longest.1, longest.0))
        };
        sentences.extend(self.part_shown());
        let any_cut = self.group.share(self.in_figures.iter().any(is_cut))?;
        if any_cut.contains(&true) {
            sentences.push(format!(
                "Images longer than {LARGEST_RATIO} to 1 are drawn at {LARGEST_RATIO} to 1"
            ));
        }
        for (heading, from) in [("Given", Source::Given), ("Assumed", Source::Assumed)] {
            sentences.extend(of_source(&self.settings, heading, from));
        }
        let sentences = sentences.iter().map(|sentence| format!("{sentence}. "));
        Ok(sentences.collect::<String>().trim_end().to_string())
    }

    /// `vgg16, layer features.29 (512x14x14), upsampling by products`.
    fn made_by(&self) -> String {
        let layer = &self.network.excitation;
        let shape = layer
            .shape
            .map_or_else(String::new, |[c, h, w]| format!(" ({c}x{h}x{w})"));
        let upsampling = match self.upsampling() {
            "product" => "upsampling by products".to_string(),
            "none" => "no upsampling".to_string(),
            way => format!("{way} upsampling"),
        };
        let network = &self.network.network;
        format!("{network}, layer {}{shape}, {upsampling}", layer.name)
    }

    /// What the colours of the features are worth.
    fn worth(&self) -> String {
        let ratios = &self.maps.variance_ratio;
        let colours = match (self.palette, ratios.len()) {
            (Palette::Rgb, 1) => "red",
            (Palette::Rgb, 2) => "red and green",
            (Palette::Rgb, _) => "red, green and blue",
            (Palette::Oklab, 1) => "lightness",
            (Palette::Oklab, 2) => "lightness, and blue to yellow",
            (Palette::Oklab, _) => "lightness, blue to yellow, and green to red",
        };
        let before = match self.basis_of.upsampling.as_str() {
            "none" => "",
            _ => "before upsampling, ",
        };
        let count = match ratios.len() {
            1 => "only component",
            2 => "two components",
            _ => "first three components",
        };
        let components = match &self.basis {
            Some(basis) => format!("the {count} of the basis {basis}"),
            None => format!("the {}", count.replace("component", "principal component")),
        };
        let steps = match self.basis_of.colours.as_str() {
            "every" => "",
            _ => ", quantised to 27 colours",
        };
        let holds = if ratios.len() == 1 { "holds" } else { "hold" };
        let share = 100.0 * ratios.iter().take(3).sum::<f64>();
        let follow = self.maps.colour_correlation.map(|r| {
            format!("; {before}the colours follow the similarity of all channels with r = {r:.2}")
        });
        format!(
            "Colours: {components}, which {holds} {share:.0} % of the variance, as {colours}{steps}{}",
            follow.unwrap_or_default()
        )
    }

    /// How many images figures show, and which, if not all: `4096 of 50000 images, evenly taken ...`.
    pub fn part_shown(&self) -> Option<String> {
        let (shown, all) = (self.numbers_in_figures.all, self.maps.numbers.all);
        (shown < all).then(|| {
            format!("{shown} of {all} images, evenly taken from the sorted list; colours and key are of all")
        })
    }

    /// What the line on the maps surrounds, if there is one.
    fn line_on_map(&self) -> Option<String> {
        self.saliency.as_ref()?;
        let whose = match self.target() {
            Some(_) => "of all images",
            None => "in the image",
        };
        Some(format!(
            "The line on the map surrounds saliency above half of the largest {whose}"
        ))
    }
}

/// The settings that came from there: `Assumed: stretched, softmax scores`.
fn of_source(settings: &Settings, heading: &str, from: Source) -> Option<String> {
    let settings = settings.0.iter().filter(|setting| setting.from == from);
    let texts: Vec<&str> = settings.map(|setting| setting.text.as_str()).collect();
    (!texts.is_empty()).then(|| format!("{heading}: {}", texts.join(", ")))
}
