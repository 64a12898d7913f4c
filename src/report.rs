//! The page of a run: one HTML file that needs no other file, except for the pictures of many
//! images, which lie in a folder beside it.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::RgbImage;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use serde::Serialize;
use serde_json::{Value, json};

use crate::figure::Palette;
use crate::figure::encode_jpeg;
use crate::output::{Outputs, folder_of};
use crate::run::Ends;
use crate::summary::{ImageSummary, Summary};

/// More images than this would make a page of over ten megabytes.
const MOST_EMBEDDED: usize = 64;

const STYLE: &str = include_str!("../assets/report/page.css");
const SCRIPT: &str = include_str!("../assets/report/page.js");
/// uPlot by Leon Sorokin, MIT licence: the chart.
const CHART_STYLE: &str = include_str!("../assets/report/uPlot.min.css");
const CHART_SCRIPT: &str = include_str!("../assets/report/uPlot.iife.min.js");

/// The pictures of a page.
#[derive(Debug)]
pub struct Gallery {
    /// The folder of pictures that are not embedded, and its relative address.
    beside: Option<(PathBuf, String)>,
    /// For each image the addresses of its pictures, and their size in pixels.
    pictures: Vec<Value>,
}

/// An image of the page.
#[derive(Serialize)]
struct Image<'a> {
    #[serde(flatten)]
    summary: &'a ImageSummary<'a>,
    #[serde(flatten)]
    pictures: &'a Value,
}

impl Gallery {
    /// The gallery of the page `file`, for `count` images.
    ///
    /// # Errors
    /// Returns an error if the folder of the pictures cannot be created.
    pub fn new(file: &Path, count: usize, outputs: &mut Outputs) -> Result<Gallery> {
        let beside = if count > MOST_EMBEDDED {
            let mut name: OsString = file.file_stem().unwrap_or_default().into();
            name.push("_files");
            let folder = folder_of(file).join(&name);
            outputs.prepare(&folder)?;
            Some((folder, address(name.as_encoded_bytes())))
        } else {
            None
        };
        Ok(Gallery {
            beside,
            pictures: Vec::new(),
        })
    }

    /// Adds the pictures of the next image. `stem` begins the names of their files.
    ///
    /// # Errors
    /// Returns an error if they cannot be encoded or written.
    pub fn add(
        &mut self,
        stem: &str,
        input: &RgbImage,
        map: &RgbImage,
        saliency: Option<&RgbImage>,
        outputs: &mut Outputs,
    ) -> Result<()> {
        let (width, height) = input.dimensions();
        let mut put = |kind: &str, picture: &RgbImage| self.put(stem, kind, picture, outputs);
        let saliency = saliency.map(|picture| put("saliency", picture));
        self.pictures.push(json!({
            "input": put("input", input)?,
            "map": put("map", map)?,
            "saliency": saliency.transpose()?,
            "width": width,
            "height": height,
        }));
        Ok(())
    }

    fn put(
        &self,
        stem: &str,
        kind: &str,
        picture: &RgbImage,
        outputs: &mut Outputs,
    ) -> Result<String> {
        let bytes = encode_jpeg(picture)?;
        let Some((folder, name)) = &self.beside else {
            return Ok(format!("data:image/jpeg;base64,{}", STANDARD.encode(bytes)));
        };
        let file = format!("{stem}_{kind}.jpg");
        outputs.write(&folder.join(&file), |out| Ok(out.write_all(&bytes)?))?;
        Ok(format!("{name}/{}", address(file.as_bytes())))
    }

    /// The page as HTML.
    ///
    /// # Errors
    /// Returns an error if the summary has another number of images.
    pub fn page(&self, summary: &Summary<'_>) -> Result<String> {
        ensure!(
            summary.images.len() == self.pictures.len(),
            "the page has {} pictures of {} images",
            self.pictures.len(),
            summary.images.len()
        );
        let images = summary.images.iter().zip(&self.pictures);
        let images = images.map(|(summary, pictures)| Image { summary, pictures });
        let network = summary.network;
        let guides = network.guides.iter().map(|layer| &layer.name);
        let settings = summary.settings.0.iter().map(|setting| {
            let text = setting
                .text
                .strip_prefix(setting.name)
                .unwrap_or(&setting.text);
            json!({ "name": setting.name, "text": text.trim(), "from": setting.from.to_string() })
        });
        let key = summary.key.map(|key| {
            let groups = key.groups.iter().map(|group| {
                let [r, g, b] = group.painted(summary.palette);
                let words = group.in_words(key.kind, summary.network.classes);
                json!({
                    "colour": format!("rgb({r}, {g}, {b})"),
                    "name": words.name,
                    "further": words.further,
                    "left_out": group.left_out,
                })
            });
            let ends = key.components.iter().map(Ends::in_words);
            json!({
                "groups": groups.collect::<Vec<_>>(),
                "components": ends.collect::<Vec<_>>(),
                "axes": match summary.palette {
                    Palette::Rgb => ["Red", "Green", "Blue"],
                    Palette::Oklab => ["Light", "Yellow", "Red"],
                },
            })
        });
        let data = json!({
            "prism": summary.prism,
            "network": network.network,
            "excitation": network.excitation.name,
            "guides": guides.collect::<Vec<_>>(),
            "rule": network.rule,
            // Which of the quantised colours; null if all features are shown.
            "keep": Some(summary.colours).filter(|&colours| colours != "every"),
            // Whether the maps have blocks of one colour, so that pixels are drawn.
            "blocks": summary.is_in_blocks,
            "hatched": summary.leaves_out,
            "saliency": summary.saliency,
            "palette": summary.palette.to_string(),
            "settings": settings.collect::<Vec<_>>(),
            "variance_ratio": summary.variance_ratio,
            "colour_correlation": summary.colour_correlation,
            "key": key,
            "remarks": summary.remarks,
            "images": images.collect::<Vec<_>>(),
        });
        Ok(format!(
            include_str!("../assets/report/page.html"),
            title = escaped(&format!("PRISM of {}", network.network)),
            style = format_args!("{CHART_STYLE}\n{STYLE}"),
            // A closing tag would end the script, also within quotes.
            data = data.to_string().replace('<', "\\u003c"),
            script = format_args!("{CHART_SCRIPT}\n{SCRIPT}"),
        ))
    }
}

/// The bytes of a name as part of a relative address.
fn address(name: &[u8]) -> String {
    const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');
    percent_encode(name, UNRESERVED).to_string()
}

/// Text as HTML.
fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let text = text.replace('>', "&gt;").replace('"', "&quot;");
    text.replace('\'', "&#39;")
}
