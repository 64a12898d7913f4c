//! The figures of the maps.

use anyhow::Result;
use image::RgbImage;

use super::pictures::overlaid;
use super::{Destination, Output, Results};
use crate::classes::Class;
use crate::convert::ramp_picture;
use crate::figure::{Column, MapFigure, Panel, Scaling, colormap, draw_maps, most_images};
use crate::options::OutputOptions;
use crate::output::Outputs;

/// Figures of the inputs and maps, as many images in each as fit.
pub struct Figure<'a>(pub &'a OutputOptions);

impl Figure<'_> {
    /// The names of the rows, if there are more than input and map.
    fn row_names(&self, saliency: Option<&str>) -> Vec<String> {
        let mut names = Vec::new();
        if self.0.overlay.is_some() {
            names.push("overlay".to_string());
        }
        if self.0.split_rgb {
            names.extend(["red", "green", "blue"].map(|name| format!("{name} (darker = more)")));
        }
        names.extend(saliency.map(String::from));
        if !names.is_empty() {
            names.splice(0..0, ["input", "PRISM"].map(String::from));
        }
        names
    }

    fn column<'r>(&self, results: &'r Results, image: usize) -> Result<Column<'r>> {
        let (map, scaling) = (results.map(image)?, results.scaling());
        let picture = results.picture(image);
        let mut panels = vec![
            Panel::new(picture, Scaling::Smooth),
            Panel::new(results.map_picture(&map, image)?, scaling),
        ];
        if let Some(alpha) = self.0.overlay {
            let over = overlaid(&picture.load()?, &map, alpha, scaling)?;
            panels.push(Panel::new(over, Scaling::Smooth));
        }
        if self.0.split_rgb {
            for (channel, ramp) in (0..).zip([colormap::reds, colormap::greens, colormap::blues]) {
                let picture = ramp_picture(&map.get(channel), ramp)?;
                panels.push(Panel::new(picture, scaling));
            }
        }
        if let Some(saliency) = results.saliency_of(image) {
            let picture: RgbImage = ramp_picture(&saliency, colormap::magma)?;
            panels.push(Panel::new(picture, scaling));
        }
        let title = results.classes[image]
            .iter()
            .map(Class::to_string)
            .collect();
        Ok(Column { title, panels })
    }
}

impl Output for Figure<'_> {
    fn prepare(&self, files: &mut Outputs) -> Result<()> {
        files.prepare(&self.0.folder)
    }

    fn write(&self, results: &Results, to: &mut Destination) -> Result<()> {
        let OutputOptions {
            folder,
            format,
            figure_columns,
            ..
        } = self.0;
        let row_names = self.row_names(results.saliency.as_deref());
        let size = crate::figure::Picture::size(&results.picture(0));
        let lines = results.classes.first().map_or(0, Vec::len);
        let count = results.maps.len();
        let most = most_images(
            size,
            row_names.len().max(2),
            lines,
            *figure_columns,
            *format,
        );
        let bar = results.notices.bar(count, "drawing");
        for (number, start) in (1..).zip((0..count).step_by(most)) {
            let mut columns = Vec::new();
            for image in start..(start + most).min(count) {
                columns.push(self.column(results, image)?);
                bar.inc(1);
            }
            let figure = MapFigure {
                columns,
                row_names: row_names.clone(),
                caption: [results.colour_phrases(), results.settings.phrases()]
                    .concat()
                    .join("; "),
                most_columns: *figure_columns,
                about: results.about(&self.0.command),
            };
            let numbered = if count > most {
                format!("_{number:04}")
            } else {
                String::new()
            };
            let name = format!(
                "PRISM_{}{numbered}.{}",
                results.network.network,
                format.extension()
            );
            to.write(&folder.join(name), &draw_maps(&figure, *format)?)?;
        }
        Ok(())
    }
}
