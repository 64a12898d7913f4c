//! What ranks send each other for figures and pages: columns and pictures as bytes, a line of JSON and
//! the pixels.

use anyhow::{Context, Result};
use image::RgbImage;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::figure::{Column, Panel, Scaling};
use crate::report::PagePictures;

/// All of a column but its pixels.
#[derive(Debug, Serialize, Deserialize)]
struct ColumnHead {
    name: String,
    title: Vec<String>,
    target: Option<String>,
    /// Width and height of each panel, and whether it has blocks of one colour.
    panels: Vec<((u32, u32), bool)>,
}

/// A column of a figure as bytes.
///
/// # Errors
/// Returns an error if a picture cannot be read back.
pub fn packed_column(column: &Column<'_>) -> Result<Vec<u8>> {
    let pictures = column.panels.iter().map(|panel| panel.image.pixels());
    let pictures = pictures.collect::<Result<Vec<_>>>()?;
    let panels = column.panels.iter().zip(&pictures);
    let head = ColumnHead {
        name: column.name.clone(),
        title: column.title.clone(),
        target: column.target.clone(),
        panels: panels
            .map(|(panel, picture)| (picture.dimensions(), panel.scaling == Scaling::Blocks))
            .collect(),
    };
    let pixels: Vec<&[u8]> = pictures
        .iter()
        .map(|picture| picture.as_raw().as_slice())
        .collect();
    packed(&head, &pixels)
}

/// The column of [`packed_column`].
///
/// # Errors
/// Returns an error if the bytes are those of something else.
pub fn unpacked_column(bytes: &[u8]) -> Result<Column<'static>> {
    let (head, mut rest): (ColumnHead, _) = unpacked(bytes)?;
    let panels = head.panels.into_iter().map(|(size, is_in_blocks)| {
        let picture = picture(size, &mut rest)?;
        Ok(Panel::new(picture, Scaling::of(is_in_blocks)))
    });
    Ok(Column {
        panels: panels.collect::<Result<_>>()?,
        name: head.name,
        title: head.title,
        target: head.target,
    })
}

/// Width and height, pixels.
type Dimensions = (u32, u32);

/// All of the pictures of a page but their pixels.
#[derive(Debug, Serialize, Deserialize)]
struct PageHead {
    size: (u32, u32),
    photograph: usize,
    maps: Vec<(Dimensions, Option<Dimensions>)>,
}

/// The pictures of an image on a page as bytes.
///
/// # Errors
/// Returns an error if serialisation fails.
pub fn packed_pictures(pictures: &PagePictures) -> Result<Vec<u8>> {
    let size = |picture: &RgbImage| picture.dimensions();
    let head = PageHead {
        size: pictures.size,
        photograph: pictures.photograph.len(),
        maps: (pictures.maps.iter())
            .map(|(map, saliency)| (size(map), saliency.as_ref().map(size)))
            .collect(),
    };
    let mut pixels = vec![pictures.photograph.as_slice()];
    for (map, saliency) in &pictures.maps {
        pixels.push(map.as_raw());
        pixels.extend(saliency.iter().map(|saliency| saliency.as_raw().as_slice()));
    }
    packed(&head, &pixels)
}

/// The pictures of [`packed_pictures`].
///
/// # Errors
/// Returns an error if the bytes are those of something else.
pub fn unpacked_pictures(bytes: &[u8]) -> Result<PagePictures> {
    let (head, mut rest): (PageHead, _) = unpacked(bytes)?;
    let photograph = taken(head.photograph, &mut rest)?.to_vec();
    let maps = head.maps.into_iter().map(|(map, saliency)| {
        let map = picture(map, &mut rest)?;
        let saliency = saliency.map(|size| picture(size, &mut rest));
        Ok((map, saliency.transpose()?))
    });
    Ok(PagePictures {
        maps: maps.collect::<Result<_>>()?,
        size: head.size,
        photograph,
    })
}

fn packed(head: &impl Serialize, parts: &[&[u8]]) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(head)?;
    bytes.push(b'\n');
    bytes.extend(parts.concat());
    Ok(bytes)
}

fn unpacked<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, &[u8])> {
    let end = bytes.iter().position(|&byte| byte == b'\n');
    let (head, rest) = bytes.split_at(end.context("a message has no head")?);
    Ok((serde_json::from_slice(head)?, &rest[1..]))
}

fn taken<'a>(length: usize, rest: &mut &'a [u8]) -> Result<&'a [u8]> {
    let (taken, left) = rest
        .split_at_checked(length)
        .context("a message is incomplete")?;
    *rest = left;
    Ok(taken)
}

fn picture((width, height): (u32, u32), rest: &mut &[u8]) -> Result<RgbImage> {
    let pixels = taken(3 * width as usize * height as usize, rest)?;
    RgbImage::from_raw(width, height, pixels.to_vec()).context("a message is incomplete")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(width: u32, height: u32, value: u8) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| image::Rgb([value, x as u8, y as u8]))
    }

    #[test]
    fn columns_and_pictures_are_sent_as_they_are() {
        let column = Column {
            name: "a\n\u{e9}.png".to_string(),
            title: vec!["cat: 0.91".to_string(), "dog: 0.05".to_string()],
            target: Some("target ram: 0.02".to_string()),
            panels: vec![
                Panel::new(filled(5, 3, 10), Scaling::Smooth),
                Panel::new(filled(2, 7, 200), Scaling::Blocks),
            ],
        };
        let sent = unpacked_column(&packed_column(&column).unwrap()).unwrap();
        assert_eq!(
            (&sent.name, &sent.title, &sent.target),
            (&column.name, &column.title, &column.target)
        );
        for (sent, own) in sent.panels.iter().zip(&column.panels) {
            assert_eq!(sent.scaling, own.scaling);
            assert_eq!(sent.image.pixels().unwrap(), own.image.pixels().unwrap());
        }
        let pictures = PagePictures {
            photograph: b"a\njpeg".to_vec(),
            size: (9, 8),
            maps: vec![
                (filled(4, 4, 1), None),
                (filled(3, 2, 2), Some(filled(1, 1, 3))),
            ],
        };
        let packed = packed_pictures(&pictures).unwrap();
        let sent = unpacked_pictures(&packed).unwrap();
        assert_eq!(
            (sent.photograph, sent.size, sent.maps),
            (pictures.photograph, pictures.size, pictures.maps)
        );
        assert!(unpacked_pictures(&packed[..packed.len() - 1]).is_err());
    }
}
