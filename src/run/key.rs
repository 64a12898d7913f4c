//! The key of the colours: groups of places, and the classes that their features speak for.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::classes::{Class, top_classes};
use crate::figure::Palette;
use crate::hooks::HookedModel;
use crate::labels::Labels;
use crate::map::{Groups, Maps};
use crate::scores::ScoreKind;

/// Classes of each group and of each end of a component.
const CLASSES: i64 = 3;

/// What the colours of a run stand for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Key {
    /// What the probabilities are.
    #[serde(skip, default = "unknown")]
    pub kind: ScoreKind,
    /// Groups of places with similar features, the largest first.
    pub groups: Vec<KeyGroup>,
    /// What the ends of red, green and blue stand for.
    pub components: Vec<Ends>,
}

fn unknown() -> ScoreKind {
    ScoreKind::None
}

/// A group of places with similar features.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeyGroup {
    /// The three components of its colour, each in [0, 1]: of its mean, or, quantised, of most of
    /// its places.
    pub colour: [f64; 3],
    /// Whether the filter of colours leaves it out of the maps.
    pub left_out: bool,
    /// Its share of the places of all images.
    pub share: f64,
    /// The leading components of its mean over the mean's length in all channels, if they were kept
    /// (docs/method.md, "Similar places").
    #[serde(default)]
    pub feature: Option<Vec<f32>>,
    /// The classes that its mean excitation speaks for; none if that cannot be known.
    pub classes: Vec<Sign>,
}

/// The classes at both ends of a component.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ends {
    /// Where its colour is 0.
    pub low: Vec<Sign>,
    /// Where its colour is 1.
    pub high: Vec<Sign>,
}

/// A class that an excitation speaks for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sign {
    /// The class, with what the network would say if every place had this excitation.
    #[serde(flatten)]
    pub class: Class,
    /// How much higher its score is than that of the mean excitation.
    pub evidence: f64,
}

/// A group in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InWords {
    /// The class that it speaks for most: `ox: 0.94`.
    pub name: String,
    /// Further classes, and its share: `oxcart: 0.05`, `7 % of all places`.
    pub further: Vec<String>,
}

impl KeyGroup {
    /// Its colour, sRGB.
    pub fn painted(&self, palette: Palette) -> [u8; 3] {
        palette.painted(self.colour.map(|share| share as f32))
    }

    /// The group in words, of a network of `count` classes. A group that speaks for no class clearly
    /// has no name.
    pub fn in_words(&self, kind: ScoreKind, count: usize) -> InWords {
        let share = match 100.0 * self.share {
            share if share < 0.95 => format!("{share:.1} % of all places"),
            share => format!("{share:.0} % of all places"),
        };
        let least = least_clear(kind, count);
        let speaks = |sign: &&Sign| sign.class.probability >= least;
        let mut signs: Vec<&Sign> = self.classes.iter().filter(speaks).collect();
        if kind != ScoreKind::None {
            // What the network would say comes first.
            signs.sort_by(|a, b| b.class.probability.total_cmp(&a.class.probability));
        }
        let mut names = signs.iter().map(|sign| sign.class.to_string());
        let name = names
            .next()
            .unwrap_or_else(|| match self.classes.as_slice() {
                [] => "not named".to_string(),
                _ => "no class in particular".to_string(),
            });
        InWords {
            name,
            further: names.chain([share]).collect(),
        }
    }
}

/// The least probability with which a group speaks for a class clearly: of exclusive classes half
/// more than by chance, and 5 %; of others more likely than not. Scores as they are say nothing of it.
fn least_clear(kind: ScoreKind, count: usize) -> f64 {
    match kind {
        ScoreKind::Softmax | ScoreKind::Percent => (1.5 / count as f64).max(0.05),
        ScoreKind::Sigmoid => 0.5,
        ScoreKind::None => f64::NEG_INFINITY,
    }
}

impl Ends {
    /// The classes of both ends: `ox, ram, oxcart (low: lynx, tabby, lion)`; none if they are not
    /// known.
    pub fn in_words(&self) -> Option<String> {
        let [low, high] = self.names(CLASSES as usize)?;
        Some(format!("{high} (low: {low})"))
    }

    /// The first classes of the low and of the high end, as many as `most`; none if they are not
    /// known.
    pub fn names(&self, most: usize) -> Option<[String; 2]> {
        let names = |signs: &[Sign]| {
            let names = signs.iter().take(most);
            let names: Vec<&str> = names.map(|sign| sign.class.name.as_str()).collect();
            names.join(", ")
        };
        let known = !self.high.is_empty() && !self.low.is_empty();
        known.then(|| [&self.low, &self.high].map(|signs| names(signs)))
    }
}

impl Key {
    /// All classes that it names.
    pub fn classes_mut(&mut self) -> impl Iterator<Item = &mut Class> {
        let groups = self.groups.iter_mut().map(|group| &mut group.classes);
        let ends = self.components.iter_mut();
        let ends = ends.flat_map(|ends| [&mut ends.low, &mut ends.high]);
        groups.chain(ends).flatten().map(|sign| &mut sign.class)
    }

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
        let Some(groups) = &maps.groups else {
            return Ok(None);
        };
        let Groups {
            shares,
            means,
            mean,
            ..
        } = groups;
        let signs = |excitations: &Tensor, mean: &Tensor| {
            signs(model, maps, excitations, mean, kind, labels)
        };
        let of_groups = signs(means, mean)?;
        let colours = maps.group_colours(groups)?;
        let directions = maps.components.as_ref().map(|components| {
            let (scores, lengths) = components.of_excitations(means);
            let directions = (scores / lengths).nan_to_num(0.0, None, None);
            let numbers = Vec::<f32>::try_from(directions.contiguous().view([-1]))?;
            anyhow::Ok((numbers, components.count()))
        });
        let (directions, count) = directions.transpose()?.unwrap_or((Vec::new(), 1));
        let mut directions = directions.chunks(count).map(<[f32]>::to_vec);
        let groups = shares.iter().zip(of_groups).zip(colours);
        let groups = groups.map(|((&share, classes), (colour, left_out))| KeyGroup {
            colour,
            left_out,
            share,
            feature: directions.next(),
            classes,
        });
        let mut of_ends = signs(&maps.ends().flatten(0, 1), &maps.basis.axes.mean)?.into_iter();
        // With few classes the last of one end are the first of the other.
        let most = (maps.classes() / 2).max(1);
        let mut components = Vec::new();
        while let (Some(mut low), Some(mut high)) = (of_ends.next(), of_ends.next()) {
            low.truncate(most);
            high.truncate(most);
            components.push(Ends { low, high });
        }
        Ok(Some(Key {
            kind,
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
    let size = maps.feature_size();
    let spread = all.f_to_kind(Kind::Float)?.unsqueeze(2).unsqueeze(3);
    let spread = spread.f_expand([-1, -1, size.height, size.width], false)?;
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
        let signs = classes.into_iter().map(sign);
        // Of the mean itself there are no signs. Others may fall, as a softmax goes by differences.
        signs.filter(|sign| sign.evidence != 0.0).collect()
    });
    Ok(signs.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sign(name: &str, probability: f64) -> Sign {
        Sign {
            class: Class {
                id: 0,
                name: name.into(),
                probability,
            },
            evidence: 1.0,
        }
    }

    #[test]
    fn a_group_has_the_name_of_a_class_only_if_it_speaks_for_one() {
        let group = |share, classes| KeyGroup {
            feature: None,
            colour: [0.0; 3],
            left_out: false,
            share,
            classes,
        };
        let words = |share, classes, kind| {
            let InWords { name, further } = group(share, classes).in_words(kind, 1000);
            [vec![name], further].concat().join("; ")
        };
        let cow = || vec![sign("ox", 0.942), sign("oxcart", 0.051), sign("ram", 0.004)];
        assert_eq!(
            words(0.07, cow(), ScoreKind::Softmax),
            "ox: 0.94; oxcart: 0.05; 7 % of all places"
        );
        let hay = || vec![sign("hay", 0.02)];
        assert_eq!(
            words(0.004, hay(), ScoreKind::Softmax),
            "no class in particular; 0.4 % of all places"
        );
        assert_eq!(
            words(1.0, hay(), ScoreKind::None),
            "hay: 0.02; 100 % of all places"
        );
        assert_eq!(
            words(1.0, vec![], ScoreKind::None),
            "not named; 100 % of all places"
        );
    }

    #[test]
    fn what_is_clear_depends_on_the_number_of_classes() {
        assert_eq!(least_clear(ScoreKind::Softmax, 2), 0.75);
        assert_eq!(least_clear(ScoreKind::Softmax, 10), 0.15);
        assert_eq!(least_clear(ScoreKind::Softmax, 21_000), 0.05);
        assert_eq!(least_clear(ScoreKind::Sigmoid, 10), 0.5);
    }

    #[test]
    fn ends_are_named_if_both_are_known() {
        let ends = Ends {
            low: vec![sign("lynx", 0.1), sign("lion", 0.0)],
            high: vec![sign("ox", 0.2)],
        };
        assert_eq!(ends.in_words().as_deref(), Some("ox (low: lynx, lion)"));
        let first = ends.names(1).unwrap();
        assert_eq!(first, ["lynx", "ox"]);
        let unknown = Ends {
            low: vec![],
            high: vec![],
        };
        assert_eq!(unknown.in_words(), None);
    }
}
