//! The key of the colours: groups of places, and the classes that their features speak for.

use anyhow::Result;
use serde::Serialize;
use tch::{Kind, Tensor};

use crate::classes::{Class, top_classes};
use crate::hooks::HookedModel;
use crate::labels::Labels;
use crate::map::{Groups, Maps};
use crate::scores::ScoreKind;

/// Classes of each group and of each end of a component.
const CLASSES: i64 = 3;

/// What the colours of a run stand for.
#[derive(Debug, Serialize)]
pub struct Key {
    /// Groups of places with similar features, the largest first.
    pub groups: Vec<KeyGroup>,
    /// What the ends of red, green and blue stand for.
    pub components: Vec<Ends>,
}

/// A group of places with similar features.
#[derive(Debug, Serialize)]
pub struct KeyGroup {
    /// The colour of its mean, each channel in [0, 1].
    pub colour: [f64; 3],
    /// Its share of the places of all images.
    pub share: f64,
    /// The classes that its mean excitation speaks for; none if that cannot be known.
    pub classes: Vec<Sign>,
}

/// The classes at both ends of a component.
#[derive(Debug, Serialize)]
pub struct Ends {
    /// Where its colour is 0.
    pub low: Vec<Sign>,
    /// Where its colour is 1.
    pub high: Vec<Sign>,
}

/// A class that an excitation speaks for.
#[derive(Debug, Serialize)]
pub struct Sign {
    /// The class, with what the network would say if every place had this excitation.
    #[serde(flatten)]
    pub class: Class,
    /// How much higher its score is than that of the mean excitation.
    pub evidence: f64,
}

impl Key {
    /// The key of `maps`, if places were grouped.
    ///
    /// # Errors
    /// Returns an error if the last layers of the network fail.
    pub fn of(
        maps: &Maps,
        model: &HookedModel,
        kind: ScoreKind,
        labels: Option<&Labels>,
    ) -> Result<Option<Key>> {
        let Some(Groups {
            shares,
            means,
            mean,
            ..
        }) = &maps.groups
        else {
            return Ok(None);
        };
        let signs = |excitations: &Tensor, mean: &Tensor| {
            signs(model, maps, excitations, mean, kind, labels)
        };
        let of_groups = signs(means, mean)?;
        let colours = Vec::<f64>::try_from(maps.colours_of(means).contiguous().view([-1]))?;
        let groups = shares.iter().zip(of_groups).zip(colours.as_chunks().0);
        let groups = groups.map(|((&share, classes), &colour)| KeyGroup {
            colour,
            share,
            classes,
        });
        let mut of_ends = signs(&maps.ends().flatten(0, 1), &maps.basis.axes.mean)?.into_iter();
        let mut components = Vec::new();
        while let (Some(low), Some(high)) = (of_ends.next(), of_ends.next()) {
            components.push(Ends { low, high });
        }
        Ok(Some(Key {
            groups: groups.collect(),
            components,
        }))
    }
}

/// The classes that each of the excitations `[n,C]` speaks for: those whose scores rise most above
/// the scores of `mean` `[C]`, if every place has the excitation. With average pooling and a linear
/// layer W the rise is `W (excitation - mean)`. Empty lists if the class scores also depend on
/// earlier layers.
fn signs(
    model: &HookedModel,
    maps: &Maps,
    excitations: &Tensor,
    mean: &Tensor,
    kind: ScoreKind,
    labels: Option<&Labels>,
) -> Result<Vec<Vec<Sign>>> {
    let count = excitations.size()[0];
    let all = Tensor::f_cat(&[excitations, &mean.unsqueeze(0)], 0)?;
    let features = maps.features.size();
    let spread = all.f_to_kind(Kind::Float)?.unsqueeze(2).unsqueeze(3);
    let spread = spread.f_expand([-1, -1, features[2], features[3]], false)?;
    let Some(scores) = model.scores_of(&spread.contiguous())? else {
        return Ok((0..count).map(|_| Vec::new()).collect());
    };
    let rises = scores.narrow(0, 0, count) - scores.narrow(0, count, 1);
    let probabilities = kind.probabilities(&scores);
    // By the rise itself.
    let classes = top_classes(&rises, ScoreKind::None, labels, CLASSES)?;
    let rows = (0i64..).zip(classes);
    let signs = rows.map(|(row, classes)| {
        let sign = |class: Class| Sign {
            evidence: class.probability,
            class: Class {
                probability: probabilities.double_value(&[row, class.id as i64]),
                ..class
            },
        };
        classes.into_iter().map(sign).collect()
    });
    Ok(signs.collect())
}
