//! The page of a run: one HTML file that needs nothing else, but for the pictures of
//! many images, which lie in a folder beside it.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::RgbImage;
use serde::Serialize;

use crate::figure::encode_jpeg;
use crate::output::{Outputs, folder_of};
use crate::summary::{ImageSummary, Summary};

/// More images than this would make a page of over ten megabytes.
const MOST_EMBEDDED: usize = 64;

const PAGE: &str = include_str!("../assets/report/page.html");
const STYLE: &str = include_str!("../assets/report/page.css");
const SCRIPT: &str = include_str!("../assets/report/page.js");
/// uPlot by Leon Sorokin, MIT licence: the chart.
const CHART_STYLE: &str = include_str!("../assets/report/uPlot.min.css");
const CHART_SCRIPT: &str = include_str!("../assets/report/uPlot.iife.min.js");

/// The pictures of a page, gathered image by image.
#[derive(Debug)]
pub struct Gallery {
    /// Where pictures go that are not embedded, and what the page calls that folder.
    beside: Option<(PathBuf, String)>,
    pictures: Vec<Pictures>,
}

/// The addresses of the pictures of one image, and the size at which they are shown.
#[derive(Debug, Serialize)]
struct Pictures {
    input: String,
    map: String,
    saliency: Option<String>,
    width: u32,
    height: u32,
}

/// What the page's script reads.
#[derive(Serialize)]
struct Data<'a> {
    prism: &'a str,
    network: &'a str,
    input_size: [i64; 2],
    excitation: &'a str,
    guides: Vec<&'a str>,
    rule: &'a str,
    /// Which of the quantised colours; none where all features are shown.
    keep: Option<&'a str>,
    /// Whether the maps keep the features' resolution, so that pixels are to be seen.
    blocks: bool,
    saliency: Option<&'a str>,
    variance_ratio: &'a [f64],
    images: Vec<Image<'a>>,
}

#[derive(Serialize)]
struct Image<'a> {
    #[serde(flatten)]
    summary: &'a ImageSummary<'a>,
    #[serde(flatten)]
    pictures: &'a Pictures,
}

impl Gallery {
    /// For the page `file` of `count` images.
    ///
    /// # Errors
    /// Where the folder for the pictures cannot be made.
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

    /// Adds the pictures of the next image; `stem` begins the names of their files.
    ///
    /// # Errors
    /// Where they cannot be encoded or written.
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
        let pictures = Pictures {
            input: put("input", input)?,
            map: put("map", map)?,
            saliency: saliency
                .map(|picture| put("saliency", picture))
                .transpose()?,
            width,
            height,
        };
        self.pictures.push(pictures);
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

    /// The page.
    ///
    /// # Errors
    /// Where there are not as many images as in the summary.
    pub fn page(&self, summary: &Summary<'_>) -> Result<String> {
        anyhow::ensure!(
            summary.images.len() == self.pictures.len(),
            "the page has {} pictures of {} images",
            self.pictures.len(),
            summary.images.len()
        );
        let images = summary.images.iter().zip(&self.pictures);
        let data = Data {
            prism: summary.prism,
            network: &summary.network.network,
            input_size: summary.network.input_size,
            excitation: summary.network.excitation.name.as_str(),
            guides: summary
                .network
                .guides
                .iter()
                .map(|layer| layer.name.as_str())
                .collect(),
            rule: &summary.network.rule,
            keep: Some(summary.colours).filter(|&colours| colours != "every"),
            blocks: summary.extrapolation == "none",
            saliency: summary.saliency,
            variance_ratio: summary.variance_ratio,
            images: images
                .map(|(summary, pictures)| Image { summary, pictures })
                .collect(),
        };
        // Inside a script a closing tag would end it, whatever quotes it stands in.
        let data = serde_json::to_string(&data)
            .context("the page's data")?
            .replace('<', "\\u003c");
        let title = format!("PRISM of {}", summary.network.network);
        let mut page = String::with_capacity(data.len() + (1 << 18));
        let mut rest = PAGE;
        // One pass: what is put in may itself look like a place for something.
        while let Some(at) = rest.find("{{") {
            let (before, from) = rest.split_at(at);
            let end = from.find("}}").context("the page's template is broken")?;
            page.push_str(before);
            match &from[2..end] {
                "TITLE" => page.push_str(&escaped(&title)),
                "CSS" => page.extend([CHART_STYLE, "\n", STYLE]),
                "DATA" => page.push_str(&data),
                "JS" => page.extend([CHART_SCRIPT, "\n", SCRIPT]),
                other => anyhow::bail!("the page's template has no {other}"),
            }
            rest = &from[end + 2..];
        }
        page.push_str(rest);
        Ok(page)
    }
}

/// Bytes of a name as part of a relative address.
fn address(name: &[u8]) -> String {
    let mut address = String::new();
    for &byte in name {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            address.push(char::from(byte));
        } else {
            let _ = write!(address, "%{byte:02X}");
        }
    }
    address
}

/// Text as HTML.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}
