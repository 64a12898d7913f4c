//! The page of a run, or of two: one HTML file that needs no other file, except for the pictures
//! and features of many images, which lie in a folder beside it.
//!
//! The cards are plain HTML, so they are there without JavaScript as well.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::RgbImage;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use serde::Serialize;
use serde_json::json;
use tch::{Kind, Tensor};

use crate::classes::Class;
use crate::figure::{Palette, encode_jpeg};
use crate::joint::Group;
use crate::numbered::Numbered;
use crate::output::{Outputs, folder_of};
use crate::sample::Sample;
use crate::saved::SavedSummary;
use crate::scores::ScoreKind;
use crate::truth::TrueClass;

/// More images than this would make a page of over twenty megabytes.
const MOST_EMBEDDED: usize = 64;

/// Pages of more images show so many, evenly taken from all.
pub const MOST_SHOWN: usize = 2000;

/// All photographs of a page take about so many bytes, as far as that leaves them more than
/// [`LEAST_AREA`].
const PHOTOGRAPHS: f64 = 24e6;
/// Of small photographs; of those of 1,600 pixels it is 0.2 to 0.3.
const BYTES_PER_PIXEL: f64 = 0.4;
const LEAST_AREA: f64 = 200.0 * 150.0;
/// The longest side of a photograph, pixels.
pub const LONGEST_SIDE: f64 = 1600.0;

/// All features of a page take at most so many bytes: places are pooled until they do.
const FEATURES: usize = 12_000_000;

const STYLE: &str = include_str!("../assets/report/page.css");
const SCRIPT: &str = concat!(
    include_str!("../assets/report/features.js"),
    include_str!("../assets/report/state.js"),
    include_str!("../assets/report/pictures.js"),
    include_str!("../assets/report/pointing.js"),
    include_str!("../assets/report/order.js"),
    include_str!("../assets/report/chart.js"),
    include_str!("../assets/report/controls.js"),
    include_str!("../assets/report/viewer.js"),
    include_str!("../assets/report/address.js"),
    include_str!("../assets/report/start.js"),
);

/// The number of pixels of each photograph on a page of `count` images, at most.
pub fn photograph_area(count: usize) -> f64 {
    let count = count.clamp(1, MOST_SHOWN) as f64;
    let area = PHOTOGRAPHS / BYTES_PER_PIXEL / count;
    area.clamp(LEAST_AREA, LONGEST_SIDE * LONGEST_SIDE)
}

/// The images of a page of a run with `count` images: all, or evenly taken ones.
pub fn shown_images(count: usize) -> Vec<usize> {
    let shown = Sample::new(count, MOST_SHOWN);
    (0..count).filter(|&number| shown.has(number)).collect()
}

/// The features of all places, by which the page compares them: their leading components over their
/// length in all channels, a byte each, from -127 to 127. The product of two follows the cosine of
/// all channels (docs/method.md, "Similar places"); bytes change it by less than 0.02.
#[derive(Debug, Serialize)]
pub struct Features {
    /// Components.
    d: i64,
    /// Rows and columns of places in an image.
    h: i64,
    w: i64,
    /// Rows and columns before pooling.
    #[serde(skip)]
    own: [i64; 2],
    #[serde(skip)]
    bytes: Vec<u8>,
}

impl Features {
    /// For `count` images with components `[d,h,w]`. Places of many or large ones are pooled.
    pub fn new(count: usize, [d, h, w]: [i64; 3]) -> Features {
        let mut size = [h, w];
        while count as i64 * d * size[0] * size[1] > FEATURES as i64 && size != [1, 1] {
            size = size.map(|side| (side + 1) / 2);
        }
        let own = [h, w];
        let [h, w] = size;
        let bytes = Vec::new();
        Features {
            d,
            h,
            w,
            own,
            bytes,
        }
    }

    /// How similarity is measured, in words.
    pub fn in_words(&self) -> String {
        let Features { d, h, w, own, .. } = self;
        let pooled = match *own == [*h, *w] {
            true => String::new(),
            false => format!("; places are averaged to {h}\u{d7}{w}"),
        };
        format!(
            "cosine of two places, less the mean of all, from {d} components and the length of all channels{pooled}"
        )
    }

    /// Adds the components `[n,d,h,w]` and lengths `[n,1,h,w]` of the next images. Pooled places get
    /// the length at which the components have the same part in it as on average.
    ///
    /// # Errors
    /// Returns an error if libtorch fails.
    pub fn add(&mut self, components: &Tensor, lengths: &Tensor) -> Result<()> {
        let size = [self.h, self.w];
        let rows = |tensor: &Tensor, d: i64| tensor.permute([0, 2, 3, 1]).f_reshape([-1, d]);
        let known = |tensor: &Tensor| {
            let squares = tensor.square();
            squares.f_sum_dim_intlist([1i64].as_slice(), true, Kind::Float)
        };
        let pooled = components.f_adaptive_avg_pool2d(size)?;
        let all = lengths.square().f_adaptive_avg_pool2d(size)?;
        let of_known = known(components)?.f_adaptive_avg_pool2d(size)?;
        let part = (of_known / all.clamp_min(f64::MIN_POSITIVE)).clamp(1e-6, 1.0);
        let lengths = (known(&pooled)? / part).sqrt();
        self.bytes
            .extend(unit_bytes(&rows(&pooled, self.d)?, &rows(&lengths, 1)?)?);
        Ok(())
    }

    /// Adds those of all other ranks to those of rank 0.
    ///
    /// # Errors
    /// Returns an error if a rank is lost.
    pub fn gather(&mut self, group: &Group) -> Result<()> {
        let own = std::mem::take(&mut self.bytes);
        self.bytes = group.gather(own)?.concat();
        Ok(())
    }
}

/// The rows `[n,d]` over their lengths `[n,1]` as bytes, -127 to 127 in two's complement. A row of
/// zeros, the mean of all places, stays one: it is similar to nothing.
///
/// # Errors
/// Returns an error if libtorch fails.
pub fn unit_bytes(rows: &Tensor, lengths: &Tensor) -> Result<Vec<u8>> {
    let lengths = lengths.f_clamp_min(f64::from(f32::MIN_POSITIVE))?;
    let bytes = (rows / lengths * 127.0).round().clamp(-127.0, 127.0);
    let bytes = bytes.to_kind(Kind::Int8);
    let bytes = Vec::<i8>::try_from(bytes.contiguous().view([-1]))?;
    Ok(bytes.into_iter().map(i8::cast_unsigned).collect())
}

/// A run on a page.
#[derive(Debug, Serialize)]
pub struct PageRun {
    /// The network's name.
    pub network: String,
    /// Method and class of the saliency, if there is one.
    pub saliency: Option<String>,
    /// `rgb` or `oklab`.
    #[serde(serialize_with = "as_text")]
    pub palette: Palette,
    /// Share of the variance of each component.
    pub variance_ratio: Vec<f64>,
    /// The groups of places, if there are any.
    pub key: Option<PageKey>,
    /// The features of all places of the images shown, unless all are equal.
    #[serde(rename = "places")]
    pub features: Option<Features>,
    /// What was done, as terms with their values.
    #[serde(skip)]
    pub facts: Vec<(String, String)>,
    /// What was assumed, and what limits the result.
    #[serde(skip)]
    pub remarks: Vec<String>,
    /// The variance figure as SVG, and what it says in words.
    #[serde(skip)]
    pub chart: Option<Vec<u8>>,
}

/// The groups of a page.
#[derive(Debug, Serialize)]
pub struct PageKey {
    pub groups: Vec<PageGroup>,
}

/// A group of places.
#[derive(Debug, Serialize)]
pub struct PageGroup {
    /// A colour of CSS.
    pub colour: String,
    pub name: String,
    pub further: Vec<String>,
    pub left_out: bool,
    /// The leading components of its mean over its length in all channels.
    pub feature: Option<Vec<f32>>,
}

fn as_text<S: serde::Serializer>(value: &Palette, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// An image of a page.
#[derive(Debug, Serialize)]
pub struct PageImage {
    /// As given.
    pub path: String,
    /// Its top classes in each run.
    pub classes: Vec<Vec<Class>>,
    /// Its true class, if it is known.
    pub truth: Option<TrueClass>,
    /// Whether the top class of each run is the true one, if that is known.
    pub right: Vec<Option<bool>>,
    /// Whether the top class of two runs differs, if that can be told.
    pub changed: Option<bool>,
    /// Left, top and side of its picture on the cluster map, as parts of the map's side.
    pub at: Option<[f64; 3]>,
}

/// The pictures of an image: the photograph as JPEG, and for each run the map and its saliency.
#[derive(Debug)]
pub struct PagePictures {
    /// The photograph, as JPEG.
    pub photograph: Vec<u8>,
    /// Its width and height, pixels.
    pub size: (u32, u32),
    /// The map of each run, and its saliency.
    pub maps: Vec<(RgbImage, Option<RgbImage>)>,
}

/// Where the pictures of a page are that are not embedded.
#[derive(Debug)]
struct Beside {
    folder: PathBuf,
    /// The relative address of the folder.
    address: String,
    /// The folder's parts.
    numbered: Numbered,
    /// Pictures so far.
    count: usize,
}

/// A page under construction.
#[derive(Debug)]
pub struct Gallery {
    /// What is not embedded.
    beside: Option<Beside>,
    images: Vec<PageImage>,
    cards: String,
    /// The folder that all images lie in, which cards leave out.
    folder: String,
    /// What the probabilities of each run are, and whether its maps have blocks of one colour.
    runs: Vec<(ScoreKind, bool)>,
}

impl Gallery {
    /// The gallery of the page `file`, for the images with these paths, of these runs.
    ///
    /// # Errors
    /// Returns an error if the folder of the pictures cannot be created.
    pub fn new(
        file: &Path,
        paths: &[String],
        runs: &[&SavedSummary],
        outputs: &mut Outputs,
    ) -> Result<Gallery> {
        let beside = if paths.len() > MOST_EMBEDDED {
            let mut name: OsString = file.file_stem().unwrap_or_default().into();
            name.push("_files");
            let folder = folder_of(file).join(&name);
            outputs.prepare(&folder)?;
            // The photograph, and of each run the map and the saliency.
            let of_run = |run: &&SavedSummary| 1 + usize::from(run.saliency.is_some());
            let of_image = 1 + runs.iter().map(of_run).sum::<usize>();
            Some(Beside {
                numbered: Numbered::new(&folder, of_image * paths.len()),
                folder,
                address: address(name.as_encoded_bytes()),
                count: 0,
            })
        } else {
            None
        };
        Ok(Gallery {
            beside,
            images: Vec::new(),
            cards: String::new(),
            folder: shared_folder(paths),
            runs: runs
                .iter()
                .map(|run| (run.scores(), run.is_in_blocks()))
                .collect(),
        })
    }

    /// Adds the next image. `stem` begins the names of its files.
    ///
    /// # Errors
    /// Returns an error if its pictures cannot be encoded or written.
    pub fn add(
        &mut self,
        stem: &str,
        image: PageImage,
        pictures: &PagePictures,
        outputs: &mut Outputs,
    ) -> Result<()> {
        let mut put = |kind: &str, bytes: &[u8]| self.put(stem, kind, bytes, outputs);
        let photograph = put("input", &pictures.photograph)?;
        let mut maps = Vec::new();
        for (run, (map, saliency)) in pictures.maps.iter().enumerate() {
            let suffix = match pictures.maps.len() {
                1 => String::new(),
                _ => format!("_{}", ["a", "b"].get(run).unwrap_or(&"c")),
            };
            let map = put(&format!("map{suffix}"), &encode_jpeg(map)?)?;
            let saliency = saliency.as_ref().map(|picture| {
                let bytes = encode_jpeg(picture)?;
                put(&format!("saliency{suffix}"), &bytes)
            });
            maps.push((map, saliency.transpose()?));
        }
        let card = self.card(&image, &photograph, &maps, pictures.size)?;
        self.cards.push_str(&card);
        self.images.push(image);
        Ok(())
    }

    fn put(
        &mut self,
        stem: &str,
        kind: &str,
        bytes: &[u8],
        outputs: &mut Outputs,
    ) -> Result<String> {
        let Some(beside) = &mut self.beside else {
            return Ok(format!("data:image/jpeg;base64,{}", STANDARD.encode(bytes)));
        };
        let file = format!("{stem}_{kind}.jpg");
        let folder = beside.numbered.prepared(beside.count, outputs)?;
        outputs.write(&folder.join(&file), |out| Ok(out.write_all(bytes)?))?;
        let part = beside.numbered.part(beside.count);
        let part = part.map_or_else(String::new, |part| part + "/");
        beside.count += 1;
        let name = &beside.address;
        Ok(format!("{name}/{part}{}", address(file.as_bytes())))
    }

    /// The page as HTML; `all` is the number of images of the run, `found` what a comparison found,
    /// `noted` what is to be said of the page itself.
    ///
    /// # Errors
    /// Returns an error if the features cannot be written, or belong to other images.
    pub fn page(
        &self,
        runs: &[PageRun],
        all: usize,
        found: &str,
        noted: &[String],
        outputs: &mut Outputs,
    ) -> Result<String> {
        let features: Vec<Option<String>> = runs
            .iter()
            .map(|run| {
                let features = run.features.as_ref()?;
                Some(STANDARD.encode(&features.bytes))
            })
            .collect();
        for features in runs.iter().filter_map(|run| run.features.as_ref()) {
            let one = (features.d * features.h * features.w) as usize;
            ensure!(
                features.bytes.len() == one * self.images.len(),
                "the page has features of other images"
            );
        }
        let features = serde_json::to_string(&features)?;
        // Features of another run beside the page would say what is not so.
        let mut hasher = DefaultHasher::new();
        (&features, &self.cards).hash(&mut hasher);
        let id = format!("{:016x}", hasher.finish());
        let script =
            format!("globalThis.prismRun = \"{id}\"; globalThis.prismPlaces = {features};");
        let script = match &self.beside {
            None => format!("<script>{script}</script>"),
            Some(Beside {
                folder,
                address: name,
                ..
            }) => {
                let write = |out: &mut dyn std::io::Write| Ok(out.write_all(script.as_bytes())?);
                outputs.write(&folder.join("features.js"), |out| write(out))?;
                format!("<script src=\"{name}/features.js\"></script>")
            }
        };
        let names: Vec<&str> = runs.iter().map(|run| run.network.as_str()).collect();
        let title = match names.as_slice() {
            [one, other] if one == other => format!("PRISM of {one}, two runs"),
            _ => format!("PRISM of {}", names.join(" and ")),
        };
        let lead = match runs.len() {
            1 => {
                "The colours are the first three principal components of what the network saw. \
                  <strong>Equal colours mean similar features, in all images</strong>, as far as \
                  three components can show."
            }
            _ => {
                "The colours are the first three principal components of what each network saw. \
                  <strong>Equal colours mean similar features in all images of one network</strong>; \
                  the colours of two networks cannot be compared. Point at a place to see what each \
                  network finds similar."
            }
        };
        let folder = self
            .beside
            .as_ref()
            .and_then(|beside| beside.folder.file_name());
        let folder = folder.map(|folder| folder.to_string_lossy());
        let data = json!({
            "runs": runs,
            "images": self.images,
            "all": all,
            "id": id,
            "folder": folder,
        });
        Ok(format!(
            include_str!("../assets/report/page.html"),
            title = escaped(&title),
            lead = format_args!("{} {lead}", escaped(found)),
            notes = notes(runs, noted),
            style = STYLE,
            cards = self.cards,
            about = about(runs)?,
            prism = env!("CARGO_PKG_VERSION"),
            // A closing tag would end the script, also within quotes.
            data = data.to_string().replace('<', "\\u003c"),
            features = script,
            script = SCRIPT,
        ))
    }

    /// The card of the next image.
    fn card(
        &self,
        image: &PageImage,
        photograph: &str,
        maps: &[(String, Option<String>)],
        (width, height): (u32, u32),
    ) -> Result<String> {
        let index = self.images.len();
        let path = escaped(&image.path);
        let own = image.path.strip_prefix(&self.folder);
        let own = escaped(own.unwrap_or(&image.path));
        let (folder, file) = own.split_at(own.rfind('/').map_or(0, |slash| slash + 1));
        let ratio = f64::from(width) / f64::from(height.max(1));
        let mut html = format!(
            "\n<li class=\"card\" data-index=\"{index}\">\n\
             <div class=\"pictures\" style=\"--ratio: {ratio:.4}\">\
             <span class=\"pane input\"><span class=\"zoom\"><img class=\"picture\" \
             src=\"{photograph}\" alt=\"input: {path}\" loading=\"lazy\" decoding=\"async\" \
             width=\"{width}\" height=\"{height}\"></span></span>"
        );
        for (run, ((map, saliency), (_, in_blocks))) in maps.iter().zip(&self.runs).enumerate() {
            let saliency = saliency.as_ref();
            let saliency =
                saliency.map_or_else(String::new, |url| format!(" data-saliency=\"{url}\""));
            let blocks = if *in_blocks { " blocks" } else { "" };
            write!(
                html,
                "<span class=\"pane map{blocks}\" data-run=\"{run}\"><span class=\"zoom\">\
                 <img class=\"picture\" src=\"{map}\"{saliency} alt=\"PRISM map of {path}\" \
                 loading=\"lazy\" decoding=\"async\" width=\"{width}\" height=\"{height}\">\
                 </span></span>"
            )?;
        }
        write!(
            html,
            "</div>\n<p class=\"path\"><button type=\"button\" class=\"open\" \
             title=\"Open at full size\"><span class=\"folder\">{folder}</span>\
             <span class=\"file\">{file}</span></button></p>\n"
        )?;
        if let Some(truth) = &image.truth {
            let verdicts = image.right.iter().zip(["A ", "B "]);
            let verdicts = verdicts.filter_map(|(right, side)| {
                let side = if image.right.len() > 1 { side } else { "" };
                Some(format!(
                    "{side}{}",
                    if (*right)? { "right" } else { "wrong" }
                ))
            });
            let verdicts: Vec<String> = verdicts.collect();
            let class = match image.right.contains(&Some(false)) {
                true => " wrong",
                false => "",
            };
            let name = escaped(&readable(&truth.name));
            let verdicts = verdicts.join(", ");
            writeln!(
                html,
                "<p class=\"truth{class}\">{verdicts}; true class: {name}</p>"
            )?;
        }
        html.push_str("<p class=\"share-of\" hidden></p>\n");
        for (run, (classes, (kind, _))) in image.classes.iter().zip(&self.runs).enumerate() {
            if image.classes.len() > 1 {
                writeln!(
                    html,
                    "<p class=\"classes-title\">{}</p>",
                    ["A", "B"][run.min(1)]
                )?;
            }
            html.push_str("<ol class=\"classes\" aria-label=\"Top classes\">");
            for class in classes {
                let name = escaped(&readable(&class.name));
                let number = class.probability;
                // Scores as they are have no whole of which a bar could show a part.
                let (width, number) = match kind {
                    ScoreKind::None => (0.0, format!("{number:.2}")),
                    _ => (100.0 * number.clamp(0.0, 1.0), percent(number)),
                };
                write!(
                    html,
                    "<li><span class=\"name\">{name}</span><span class=\"track\">\
                     <span class=\"bar\" style=\"width: {width:.1}%\"></span></span>\
                     <span class=\"share\">{number}</span></li>"
                )?;
            }
            html.push_str("</ol>\n");
        }
        html.push_str("</li>");
        Ok(html)
    }
}

/// What was assumed and what limits the results, the first in sight.
fn notes(runs: &[PageRun], noted: &[String]) -> String {
    let sides = ["A: ", "B: "].iter().map(|side| match runs.len() {
        1 => "",
        _ => side,
    });
    let all = runs.iter().zip(sides);
    let all =
        all.flat_map(|(run, side)| run.remarks.iter().map(move |text| format!("{side}{text}")));
    let all = noted.iter().cloned().chain(all);
    let all: Vec<String> = all.map(|text| escaped(&text)).collect();
    match all.as_slice() {
        [] => String::new(),
        [one] => format!("<p class=\"notes\">{one}</p>"),
        [first, rest @ ..] => format!(
            "<details class=\"notes\"><summary>{first} ({} more)</summary>{}</details>",
            rest.len(),
            list(rest)
        ),
    }
}

/// A list of HTML texts.
fn list(items: &[String]) -> String {
    let items = items.iter().map(|item| format!("<li>{item}</li>"));
    format!("<ul class=\"remarks\">{}</ul>", items.collect::<String>())
}

/// What was done, and the variance figure, of each run.
fn about(runs: &[PageRun]) -> Result<String> {
    let mut html = String::new();
    for (number, run) in runs.iter().enumerate() {
        html.push_str("<div class=\"run\">");
        if runs.len() > 1 {
            let name = ["A", "B"].get(number).unwrap_or(&"C");
            write!(html, "<h3>{name}: {}</h3>", escaped(&run.network))?;
        }
        html.push_str("<dl class=\"facts\">");
        for (term, value) in &run.facts {
            write!(
                html,
                "<dt>{}</dt><dd>{}</dd>",
                escaped(term),
                escaped(value)
            )?;
        }
        html.push_str("</dl>");
        if let Some(chart) = &run.chart {
            let shown = run.variance_ratio.iter().take(10).enumerate();
            let words = shown.map(|(at, share)| format!("{}: {}", at + 1, percent(*share)));
            let words: Vec<String> = words.collect();
            write!(
                html,
                "<img src=\"data:image/svg+xml;base64,{}\" alt=\"Share of variance of the first \
                 components: {}\">",
                STANDARD.encode(chart),
                words.join(", ")
            )?;
        }
        html.push_str("</div>");
    }
    Ok(html)
}

/// The longest folder, with its slash, in which all paths lie.
fn shared_folder(paths: &[String]) -> String {
    let folder = |path: &str| path.rfind('/').map_or(0, |slash| slash + 1);
    let mut shared = paths.first().map_or("", |first| &first[..folder(first)]);
    for path in paths {
        while !path.starts_with(shared) {
            shared = &shared[..folder(shared.trim_end_matches('/'))];
        }
    }
    shared.to_string()
}

/// A class name as words.
fn readable(name: &str) -> String {
    name.replace('_', " ")
}

/// `7 %`, `<1 %`.
fn percent(share: f64) -> String {
    match share {
        share if !share.is_finite() => "\u{2013}".to_string(),
        share if share > 0.0 && share < 0.005 => "&lt;1 %".to_string(),
        share => format!("{:.0} %", 100.0 * share),
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

/// The size of a photograph, and its JPEG.
///
/// # Errors
/// Returns an error if the picture is too large for JPEG.
pub fn photograph(picture: &RgbImage) -> Result<(Vec<u8>, (u32, u32))> {
    let bytes = encode_jpeg(picture).context("the page's photograph")?;
    Ok((bytes, picture.dimensions()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_too_many_images_takes_some_evenly() {
        assert_eq!(shown_images(3), [0, 1, 2]);
        let shown = shown_images(5000);
        assert_eq!(
            (shown.len(), shown[0], shown[1], shown[1999]),
            (2000, 0, 2, 4997)
        );
    }

    #[test]
    fn cards_leave_out_the_folder_of_all_images() {
        let shared = |paths: &[&str]| {
            let paths: Vec<String> = paths.iter().map(ToString::to_string).collect();
            shared_folder(&paths)
        };
        assert_eq!(shared(&["a/b/c.png", "a/b/d/e.png"]), "a/b/");
        assert_eq!(shared(&["a/b/c.png", "a/bc/d.png"]), "a/");
        assert_eq!(shared(&["/a.png", "b.png"]), "");
        assert_eq!(shared(&[]), "");
    }

    #[test]
    fn photographs_share_the_bytes_of_a_page() {
        assert_eq!(photograph_area(1), 1600.0 * 1600.0);
        assert_eq!(photograph_area(2000).round(), 30_000.0);
        assert_eq!(photograph_area(100_000).round(), 30_000.0);
        assert_eq!(photograph_area(64).round(), 937_500.0);
    }

    #[test]
    fn components_are_taken_over_the_length_in_all_channels() {
        let rows = Tensor::from_slice(&[3.0f32, 4.0, 0.0, 0.0, -2.0, 0.0]).reshape([3, 2]);
        let lengths = Tensor::from_slice(&[10.0f32, 0.0, 2.0]).reshape([3, 1]);
        let bytes = unit_bytes(&rows, &lengths).unwrap();
        let bytes: Vec<i8> = bytes.into_iter().map(u8::cast_signed).collect();
        assert_eq!(bytes, [38, 51, 0, 0, -127, 0]);
    }

    #[test]
    fn pooled_places_keep_the_part_that_is_known() {
        let mut features = Features {
            d: 2,
            h: 1,
            w: 1,
            own: [1, 2],
            bytes: Vec::new(),
        };
        let components = Tensor::from_slice(&[3.0f32, 3.0, 4.0, 4.0]).reshape([1, 2, 1, 2]);
        let lengths = Tensor::from_slice(&[10.0f32, 10.0]).reshape([1, 1, 1, 2]);
        features.add(&components, &lengths).unwrap();
        let bytes: Vec<i8> = features
            .bytes
            .iter()
            .map(|&byte| byte.cast_signed())
            .collect();
        assert_eq!(bytes, [38, 51]);
    }

    #[test]
    fn places_of_large_maps_are_pooled() {
        let features = Features::new(2000, [32, 56, 56]);
        assert_eq!((features.h, features.w), (7, 7));
        let features = Features::new(64, [32, 14, 10]);
        assert_eq!((features.h, features.w), (14, 10));
    }
}
