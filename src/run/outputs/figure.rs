//! The figures of the maps.

use std::ops::Range;

use anyhow::Result;

use super::exchange::{packed_column, unpacked_column};
use super::pictures::{LazyPicture, component_picture, overlaid};
use super::{Destination, Output, Results};
use crate::classes::{Class, class_name};
use crate::error::Hint;
use crate::figure::{
    ColourBar, Column, FigureFormat, KeyEntry, KeyPart, MapFigure, Palette, Panel, Scaling, Swatch,
    colormap, draw_maps, has_glyphs, legible, most_images,
};
use crate::joint::Group;
use crate::map::Numbers;
use crate::numbered::Numbered;
use crate::options::OutputOptions;
use crate::output::Outputs;
use crate::remarks::Remark;
use crate::run::{InWords, Key, KeyGroup};

/// Classes of each end of a component in the key.
const CLASSES_OF_END: usize = 2;

/// Figures of the inputs and maps, as many images in each as fit.
pub struct Figure<'a>(pub &'a OutputOptions);

impl Figure<'_> {
    fn row_names(&self, results: &Results) -> Vec<String> {
        let mut names = vec!["input".to_string(), "PRISM map".to_string()];
        if self.0.overlay.is_some() {
            names.push("overlay".to_string());
        }
        if self.0.split_rgb {
            let components = match results.palette {
                Palette::Rgb => ["red", "green", "blue"],
                Palette::Oklab => ["component 1", "component 2", "component 3"],
            };
            names.extend(components.map(|name| format!("{name} (darker = more)")));
        }
        names.extend(results.saliency.as_ref().map(|shown| match shown.target {
            Some(_) => shown.title.clone(),
            None => format!("{}, own scale", shown.title),
        }));
        names
    }

    /// A text as the figure shows it: with an ellipsis in place of letters that the font lacks. The
    /// viewer of an SVG has other fonts.
    fn shown(&self, text: &str) -> String {
        match self.0.format {
            FigureFormat::Svg => text.to_string(),
            FigureFormat::Jpg | FigureFormat::Png => legible(text),
        }
    }

    /// A class as the figure names it: by its number if the font has no letter of its name.
    fn named(&self, class: &Class) -> Class {
        let name = self.shown(&class.name);
        let name = match name.contains(char::is_alphanumeric) || name == class.name {
            true => name,
            false => class_name(class.id, None),
        };
        Class {
            name,
            ..class.clone()
        }
    }

    /// The names of the images that figures show, with their numbers if the font lacks letters: what is left may be
    /// the same for many images.
    fn column_names(&self, results: &Results) -> Vec<String> {
        let first = results.maps.numbers.first + 1;
        let names = results.in_figures.iter().zip(&results.names);
        let numbered = names.map(|(image, name)| match has_glyphs(name) {
            true => name.clone(),
            false => format!("{}: {}", first + image, self.shown(name)),
        });
        numbered.collect()
    }

    /// What the colours stand for.
    fn key(&self, results: &Results) -> Vec<KeyPart> {
        let Some(mut key) = results.key.clone() else {
            return Vec::new();
        };
        for class in key.classes_mut() {
            *class = self.named(class);
        }
        let groups = KeyPart {
            title: groups_title(results),
            entries: groups(results, &key),
        };
        let ends = KeyPart {
            title: "Ends of the components, and the classes whose scores rise most there"
                .to_string(),
            entries: ends(results.palette, &key),
        };
        vec![groups, ends]
    }

    /// What a figure shows of an image. `drawn` is called when its map is drawn.
    fn column<'r>(
        &self,
        results: &'r Results,
        image: usize,
        name: &str,
        drawn: impl Fn() + 'r,
    ) -> Result<Column<'r>> {
        let scaling = results.look().scaling;
        let picture = results.picture(image)?;
        // A map for several panels is made once, and at once.
        let map = match self.0.overlay.is_some() || self.0.split_rgb {
            true => Some(results.map(image)?),
            false => None,
        };
        let own = match &map {
            Some(map) => {
                drawn();
                Panel::new(results.map_picture(map, image)?, scaling)
            }
            None => {
                let made = move || {
                    drawn();
                    results.map_picture(&results.map(image)?, image)
                };
                let size = results.map_picture_size(image)?;
                Panel::new(LazyPicture::new(size, made), scaling)
            }
        };
        let mut panels = vec![Panel::new(picture, Scaling::Smooth), own];
        if let (Some(alpha), Some(map)) = (self.0.overlay, &map) {
            let colours = results.colours(map)?;
            let over = overlaid(&picture.load()?, &colours, alpha, scaling)?;
            panels.push(Panel::new(over, Scaling::Smooth));
        }
        if let Some(map) = map.filter(|_| self.0.split_rgb) {
            let ramps: [fn(f32) -> colormap::Rgb; 3] = match results.palette {
                Palette::Rgb => [colormap::reds, colormap::greens, colormap::blues],
                Palette::Oklab => [colormap::greys; 3],
            };
            for (channel, ramp) in (0..).zip(ramps) {
                let size = results.drawn_size(image)?;
                let picture = component_picture(&map.get(channel), size, scaling, ramp)?;
                panels.push(Panel::new(picture, scaling));
            }
        }
        if let Some(picture) = results.saliency_picture(image)? {
            panels.push(Panel::new(picture, scaling));
        }
        let classes = &results.classes[image];
        let target = results.target().map(|(class, name)| {
            let probabilities = results.probabilities(image..image + 1)?;
            let probability = probabilities.double_value(&[0, *class as i64]);
            anyhow::Ok(format!("target {name}: {probability:.2}"))
        });
        Ok(Column {
            name: name.to_string(),
            title: (classes.iter())
                .map(|class| self.named(class).to_string())
                .collect(),
            target: target.transpose()?,
            panels,
        })
    }
}

/// The scale of the saliency, if all images have the same.
fn colour_bar(results: &Results) -> Option<ColourBar> {
    results.target()?;
    let shown = results.saliency.as_ref()?;
    Some(ColourBar {
        title: format!("{}, one scale for all images", shown.title),
        largest: three_digits(f64::from(results.look().scale.unwrap_or(0.0))),
    })
}

/// `0.62`, `0.00123`, `4.1e-7`.
fn three_digits(value: f64) -> String {
    let exponent = value.abs().log10().floor();
    match (-4.0..6.0).contains(&exponent) {
        true => {
            let digits = (2.0 - exponent).max(0.0) as usize;
            format!("{value:.digits$}")
        }
        false if value == 0.0 => "0".to_string(),
        false => format!("{value:.2e}"),
    }
}

impl Output for Figure<'_> {
    fn prepare(&self, files: &mut Outputs) -> Result<()> {
        files.prepare(&self.0.folder)
    }

    fn remarks(&self, results: &Results) -> Vec<Remark> {
        let part = results.part_shown();
        let note = part.map(|part| Remark::note(format!("figures show {part}")));
        note.map(|note| note.with_hint(Hint::Figures))
            .into_iter()
            .collect()
    }

    fn write(&self, results: &Results, to: &mut Destination) -> Result<()> {
        let OutputOptions {
            folder,
            format,
            figure_columns,
            ..
        } = self.0;
        let row_names = self.row_names(results);
        let shown = &results.in_figures;
        let heights = shown.iter().map(|&image| Ok(results.drawn_size(image)?.1));
        let heights: Vec<u32> = heights.collect::<Result<_>>()?;
        let highest = heights.into_iter().max().unwrap_or(0);
        let lines = results.classes.first().map_or(0, Vec::len) + 2; // and name and target
        let sizes: Vec<(u32, usize)> = results.group.share((highest, lines))?;
        let most = most_images(
            sizes.iter().map(|(highest, _)| *highest).max().unwrap_or(0),
            row_names.len(),
            sizes.iter().map(|(_, lines)| *lines).max().unwrap_or(0),
            *figure_columns,
            *format,
        );
        let names = self.column_names(results);
        let (key, caption) = (self.key(results), results.caption()?);
        let all = results.numbers_in_figures.all;
        let figures = all.div_ceil(most);
        let bar = results.group.bar(results.notices, all, "drawing");
        let numbered = Numbered::new(folder, figures);
        let column =
            |place: usize| self.column(results, shown[place], &names[place], || bar.inc(1));
        let dealt = Dealt::new(results, most)?;
        let mut from_others = dealt.exchanged(&column)?;
        for (number, images) in dealt.own_figures() {
            let mut columns = images.map(&column).collect::<Result<Vec<_>>>()?;
            if columns.len() < most {
                columns.append(&mut from_others); // of the last figure
            }
            let figure = MapFigure {
                columns,
                row_names: row_names.clone(),
                bar: colour_bar(results),
                key: key.clone(),
                caption: caption.clone(),
                about: results.about(&self.0.command),
            };
            let ending = if all > most {
                format!("_{:04}", number + 1)
            } else {
                String::new()
            };
            let name = format!(
                "PRISM_{}{ending}.{}",
                results.network.network,
                format.extension()
            );
            let folder = numbered.prepared(number, &mut to.files)?;
            to.write(
                &folder.join(name),
                &draw_maps(&figure, *figure_columns, *format)?,
            )?;
        }
        Ok(())
    }
}

/// The figures of a run, dealt to the ranks: each draws those whose first image it has.
struct Dealt<'a> {
    group: &'a Group,
    /// Images in a figure.
    most: usize,
    /// The number of the first image of each rank, and that of all.
    firsts: Vec<usize>,
}

impl<'a> Dealt<'a> {
    fn new(results: &Results<'a>, most: usize) -> Result<Dealt<'a>> {
        let Numbers { first, all } = results.numbers_in_figures;
        let group = results.group;
        let mut firsts = group.share(first)?;
        firsts.push(all);
        Ok(Dealt {
            group,
            most,
            firsts,
        })
    }

    /// The numbers of this rank's images.
    fn own(&self) -> Range<usize> {
        let rank = self.group.rank();
        self.firsts[rank]..self.firsts[rank + 1]
    }

    /// The rank that has an image.
    fn rank_of(&self, image: usize) -> usize {
        self.firsts.partition_point(|&first| first <= image) - 1
    }

    /// The figures that this rank draws: their numbers, and its own images in them, by their places.
    fn own_figures(&self) -> impl Iterator<Item = (usize, Range<usize>)> {
        let (Range { start, end }, most) = (self.own(), self.most);
        let figures = start.div_ceil(most)..end.div_ceil(most);
        figures.map(move |number| {
            let images = number * most..((number + 1) * most).min(end);
            (number, images.start - start..images.end - start)
        })
    }

    /// Sends the columns of a figure that an earlier rank draws, and receives those that later ranks
    /// have of this one's last figure.
    fn exchanged<'r>(
        &self,
        column: &impl Fn(usize) -> Result<Column<'r>>,
    ) -> Result<Vec<Column<'r>>> {
        let Range { start, end } = self.own();
        let begun = end.min(start.next_multiple_of(self.most));
        let packed = (start..begun).map(|image| packed_column(&column(image - start)?));
        // Made before any is sent, so that no rank waits while another draws.
        let packed = packed.collect::<Result<Vec<_>>>()?;
        for (image, bytes) in (start..).zip(packed) {
            let first = image / self.most * self.most;
            self.group.send(&bytes, self.rank_of(first))?;
        }
        let last = self.firsts.last().copied().unwrap_or(end);
        let complete = end.next_multiple_of(self.most).min(last);
        let draws_last = end > begun && complete > end;
        let missing = if draws_last { end..complete } else { 0..0 };
        let received = missing.map(|image| self.group.receive(self.rank_of(image)));
        received.map(|bytes| unpacked_column(&bytes?)).collect()
    }
}

/// The classes of both ends of each component, if they are known.
fn ends(palette: Palette, key: &Key) -> Vec<KeyEntry> {
    let entries = key.components.iter().zip(palette.ends()).enumerate();
    let entries = entries.filter_map(|(component, (ends, [less, more]))| {
        let [low, high] = ends.names(CLASSES_OF_END)?;
        Some(KeyEntry {
            swatch: Swatch::Ramp(palette.ramp(component)),
            name: format!("{more}: {high}"),
            further: vec![format!("{less}: {low}")],
        })
    });
    entries.collect()
}

/// The line above the groups.
fn groups_title(results: &Results) -> String {
    let whose = match results.basis_of.colours.as_str() {
        "every" => "their mean",
        _ => "most of them",
    };
    format!(
        "Groups of similar places: the colour of {whose}, and the classes seen if every place were like their mean"
    )
}

/// The entries of the groups, and what is left out.
fn groups(results: &Results, key: &Key) -> Vec<KeyEntry> {
    let in_words = |group: &KeyGroup| group.in_words(key.kind, results.network.classes);
    let shown = key.groups.iter().filter(|group| !group.left_out);
    let groups = shown.map(|group| {
        let InWords { name, further } = in_words(group);
        KeyEntry {
            swatch: Swatch::Colour(group.painted(results.palette)),
            name,
            further,
        }
    });
    let swatch = match (results.maps.leaves_out(), results.maps.blackens()) {
        (true, _) => Some(Swatch::Hatched),
        (_, true) => Some(Swatch::Colour(results.palette.painted([0.0; 3]))),
        _ => None,
    };
    let names = key.groups.iter().filter(|group| group.left_out);
    let left_out = swatch.map(|swatch| KeyEntry {
        swatch,
        name: "left out".to_string(),
        further: names.map(|group| in_words(group).name).collect(),
    });
    groups.chain(left_out).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_scale_has_three_digits() {
        let shown = [0.0, 0.62, 0.0012345, 12.0, 1234.5, 4.1e-7, 5e9].map(three_digits);
        assert_eq!(
            shown,
            ["0", "0.620", "0.00123", "12.0", "1234", "4.10e-7", "5.00e9"]
        );
    }
}
