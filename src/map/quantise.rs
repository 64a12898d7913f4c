//! Quantised colours, and the selection of those that the images of a batch share or do not
//! share (TorchPRISM's *inclusive* and *exclusive* features).

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Number of values of a quantised component: 0, 0.5 and 1.
const LEVELS: i64 = 3;

/// Number of quantised colours.
pub const COLOURS: u32 = LEVELS.pow(3) as u32;

/// The selected quantised colours; pixels of other colours become zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeatureFilter {
    /// Colours in every image.
    Shared,
    /// Colours that at least one image lacks.
    Unique,
    /// All colours.
    All,
}

impl FeatureFilter {
    /// Whether it selects the colour with that number; `shared` are the colours in every image.
    pub fn selects(self, code: u32, shared: ColourSet) -> bool {
        match self {
            FeatureFilter::All => true,
            FeatureFilter::Shared => shared.contains(code),
            FeatureFilter::Unique => !shared.contains(code),
        }
    }
}

/// The red, green and blue in [0, 1] of the colour with that number.
pub fn colour_of(code: u32) -> [f32; 3] {
    let (levels, step) = (LEVELS as u32, (LEVELS - 1) as f32);
    [levels * levels, levels, 1].map(|unit| (code / unit % levels) as f32 / step)
}

/// A set of the 27 quantised colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColourSet(u32);

impl ColourSet {
    /// No colour.
    pub const NONE: ColourSet = ColourSet(0);
    /// Every colour.
    pub const ALL: ColourSet = ColourSet((1 << COLOURS) - 1);

    /// The colours in both sets.
    pub fn intersection(self, other: ColourSet) -> ColourSet {
        ColourSet(self.0 & other.0)
    }

    /// The colours in at least one of the sets.
    pub fn union(self, other: ColourSet) -> ColourSet {
        ColourSet(self.0 | other.0)
    }

    /// The colours in every one of `sets`; all 27 of no set.
    pub fn shared(sets: &[ColourSet]) -> ColourSet {
        sets.iter()
            .copied()
            .fold(ColourSet::ALL, ColourSet::intersection)
    }

    /// The colours in at least one of `sets`.
    pub fn any(sets: &[ColourSet]) -> ColourSet {
        sets.iter().copied().fold(ColourSet::NONE, ColourSet::union)
    }

    /// Whether the set is empty.
    pub fn is_empty(self) -> bool {
        self == ColourSet::NONE
    }

    /// Whether the set has the colour with number `code`: `0..27`, ascending in (r, g, b).
    pub fn contains(self, code: u32) -> bool {
        self.0 >> code & 1 == 1
    }

    /// The numbers of the colours, ascending.
    pub fn codes(self) -> impl Iterator<Item = u32> {
        (0..COLOURS).filter(move |&code| self.contains(code))
    }

    fn with(self, code: i64) -> ColourSet {
        ColourSet(self.0 | 1 << code)
    }

    /// For each code `0..27` 1 if the set has it, else 0; `[27]` of the kind of `like`.
    fn indicator(self, like: &Tensor) -> Tensor {
        let bits: Vec<f32> = (0..COLOURS)
            .map(|code| f32::from(self.contains(code)))
            .collect();
        Tensor::from_slice(&bits).to_kind(like.kind())
    }
}

/// Quantises normalised features in [0, 1]: `q = 0.5 * round_half_to_even(f / 0.5)`.
pub fn quantise(normalised: &Tensor) -> Tensor {
    let steps = (LEVELS - 1) as f64;
    (normalised * steps).round() / steps
}

/// The colours of each quantised image in `[n,3,h,w]`.
///
/// # Errors
/// Returns an error if the tensor has another shape.
pub fn colours(quantised: &Tensor) -> Result<Vec<ColourSet>> {
    let codes = codes(quantised);
    (0..codes.size()[0])
        .map(|image| {
            let codes = Vec::<i64>::try_from(codes.get(image).reshape([-1]))?;
            Ok(codes.into_iter().fold(ColourSet::NONE, ColourSet::with))
        })
        .collect()
}

/// Sets the pixels of quantised images `[n,3,h,w]` to zero if `filter` does not select their
/// colour. `shared` are the colours in every image of the batch.
pub fn select(quantised: &Tensor, shared: ColourSet, filter: FeatureFilter) -> Tensor {
    let is_shared = || {
        let codes = codes(quantised);
        shared
            .indicator(quantised)
            .index_select(0, &codes.reshape([-1]))
            .reshape_as(&codes)
            .unsqueeze(1)
    };
    match filter {
        FeatureFilter::All => quantised.shallow_clone(),
        FeatureFilter::Shared => quantised * is_shared(),
        FeatureFilter::Unique => quantised * (1.0 - is_shared()),
    }
}

/// For each colour 1 in the cells that have it, else 0: `[n,h,w]` int64 -> `[n,27,h,w]` float32.
pub fn membership(codes: &Tensor) -> Tensor {
    let numbers = Tensor::arange(i64::from(COLOURS), (Kind::Int64, codes.device()));
    let own = codes
        .unsqueeze(1)
        .eq_tensor(&numbers.reshape([1, -1, 1, 1]));
    own.to_kind(Kind::Float)
}

/// The colours of pixels with these numbers, `[n,h,w]` int64 -> `[n,3,h,w]` float32; NaN if `filter`
/// does not select them. `shared` are the colours in every image of the batch.
pub fn painted(codes: &Tensor, shared: ColourSet, filter: FeatureFilter) -> Tensor {
    let colour = |code: u32| match filter.selects(code, shared) {
        true => colour_of(code),
        false => [f32::NAN; 3],
    };
    let table: Vec<f32> = (0..COLOURS).flat_map(colour).collect();
    let table = Tensor::from_slice(&table).reshape([-1, 3]);
    let (images, height, width) = codes.size3().unwrap_or_default();
    let painted = table.index_select(0, &codes.reshape([-1]));
    painted
        .reshape([images, height, width, 3])
        .permute([0, 3, 1, 2])
}

/// The number of each pixel's colour, in ascending order of (r, g, b):
/// `[n,3,h,w]` -> `[n,h,w]` int64 in `0..27`.
pub fn codes(quantised: &Tensor) -> Tensor {
    let level = (quantised * (LEVELS - 1) as f64)
        .round()
        .to_kind(Kind::Int64);
    level.select(1, 0) * (LEVELS * LEVELS) + level.select(1, 1) * LEVELS + level.select(1, 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two images of 2x2 pixels, which share red and green.
    fn images() -> Tensor {
        let pixels = [[RED, GREEN, BLUE, RED], [RED, RED, GREEN, WHITE]];
        let flat: Vec<f32> = pixels.iter().flatten().flatten().copied().collect();
        Tensor::from_slice(&flat)
            .reshape([2, 2, 2, 3])
            .permute([0, 3, 1, 2])
    }

    fn selected(filter: FeatureFilter) -> Vec<[f32; 3]> {
        let shared = ColourSet::shared(&colours(&images()).unwrap());
        let selected = select(&images(), shared, filter).permute([0, 2, 3, 1]);
        Vec::<f32>::try_from(selected.contiguous().view([-1]))
            .unwrap()
            .chunks(3)
            .map(|pixel| [pixel[0], pixel[1], pixel[2]])
            .collect()
    }

    const RED: [f32; 3] = [1.0, 0.0, 0.0];
    const GREEN: [f32; 3] = [0.0, 0.5, 0.0];
    const BLUE: [f32; 3] = [0.0, 0.0, 1.0];
    const WHITE: [f32; 3] = [1.0, 1.0, 1.0];
    const ZERO: [f32; 3] = [0.0, 0.0, 0.0];

    #[test]
    fn shared_and_unique_colours_are_selected() {
        for (filter, expected) in [
            (
                FeatureFilter::Shared,
                [RED, GREEN, ZERO, RED, RED, RED, GREEN, ZERO],
            ),
            (
                FeatureFilter::Unique,
                [ZERO, ZERO, BLUE, ZERO, ZERO, ZERO, ZERO, WHITE],
            ),
            (
                FeatureFilter::All,
                [RED, GREEN, BLUE, RED, RED, RED, GREEN, WHITE],
            ),
        ] {
            assert_eq!(selected(filter), expected);
        }
    }

    #[test]
    fn halves_between_two_colours_go_to_the_even_one() {
        // 0.25 / 0.5 = 0.5 -> 0 and 0.75 / 0.5 = 1.5 -> 2, half to even
        let values = [0.0f32, 0.2, 0.25, 0.26, 0.5, 0.74, 0.75, 1.0];
        let quantised = Vec::<f32>::try_from(quantise(&Tensor::from_slice(&values))).unwrap();
        assert_eq!(quantised, [0.0, 0.0, 0.0, 0.5, 0.5, 0.5, 1.0, 1.0]);
    }

    #[test]
    fn colours_are_numbered_in_ascending_order_of_red_green_blue() {
        let colours = colours(&images()).unwrap();
        // r * 9 + g * 3 + b in halves: (0,0,1) 2, (0,.5,0) 3, (1,0,0) 18, (1,1,1) 26
        let codes: Vec<Vec<u32>> = colours.iter().map(|set| set.codes().collect()).collect();
        assert_eq!(codes, [vec![2, 3, 18], vec![3, 18, 26]]);
        assert!(colours[0].contains(2) && !colours[1].contains(2));
        let codes = |set: ColourSet| set.codes().collect::<Vec<_>>();
        assert_eq!(codes(ColourSet::shared(&colours)), [3, 18]);
        assert_eq!(codes(ColourSet::any(&colours)), [2, 3, 18, 26]);
    }
}
