//! What the class scores of a network mean, and the probabilities that they give.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::error::Hint;
use crate::names::name_of;
use crate::remarks::Remark;
use crate::settings::Source;

/// How the sum of probabilities may differ from 1 by rounding.
const ROUNDING: f64 = 1e-3;

/// What a class score means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ScoreKind {
    /// Logits of exclusive classes: softmax gives probabilities, whose sum is 1.
    Softmax,
    /// A logit for each class by itself: sigmoid gives its probability.
    Sigmoid,
    /// Percentages: a hundredth of each is its probability.
    Percent,
    /// Shown as the network returns them.
    None,
}

impl fmt::Display for ScoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&name_of(self))
    }
}

impl ScoreKind {
    /// The probabilities of class scores `[N,K]`, in float64. The order of the classes of an
    /// image is that of its scores.
    pub fn probabilities(self, scores: &Tensor) -> Tensor {
        let scores = scores.to_kind(Kind::Double);
        match self {
            ScoreKind::Softmax => scores.softmax(1, Kind::Double),
            ScoreKind::Sigmoid => scores.sigmoid(),
            ScoreKind::Percent => scores / 100.0,
            ScoreKind::None => scores,
        }
    }
}

/// What the graph of a network says about its scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScoresEnd {
    /// The network ends in a softmax over the classes; the scores are what enters it.
    Softmax,
    /// The network ends in a sigmoid; the scores are what enters it.
    Sigmoid,
    /// A layer with weights makes the scores.
    Layer,
    /// A softmax or sigmoid is among the last operators, but is not the last one.
    Squashed,
    /// Other operators make the scores.
    Other,
}

/// The classes that the scores belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScoresForm {
    /// One tensor has a score for each class.
    Classes,
    /// Each class has a tensor of its own.
    Heads,
    /// The network has one score, for class 1; class 0 is its opposite.
    Binary,
}

/// What is known of the scores of a network before it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evidence {
    /// The last operators.
    pub end: ScoresEnd,
    /// The tensors.
    pub form: ScoresForm,
    /// What the user says.
    pub given: Option<ScoreKind>,
}

/// What the scores mean, how that is known, and a remark if it is not obvious.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meaning {
    /// What the scores mean.
    pub kind: ScoreKind,
    /// How that is known.
    pub from: Source,
    /// What was assumed or found.
    pub remark: Option<Remark>,
}

impl Meaning {
    fn new(kind: ScoreKind, from: Source) -> Meaning {
        Meaning {
            kind,
            from,
            remark: None,
        }
    }

    fn noting(self, remark: Remark) -> Meaning {
        let remark = Some(remark);
        Meaning { remark, ..self }
    }
}

impl Evidence {
    /// Whether a single score is a probability already, so that class 0 has `1 - p`.
    pub fn is_probability(&self) -> bool {
        self.given.is_none() && self.end == ScoresEnd::Squashed
    }

    /// What the scores of all images mean, by their range.
    pub fn read(&self, scores: &ScoreRange) -> Meaning {
        use ScoreKind::{None, Sigmoid, Softmax};
        if let Some(kind) = self.given {
            return Meaning::new(kind, Source::Given);
        }
        match (self.form, self.end) {
            (ScoresForm::Classes, ScoresEnd::Softmax) => Meaning::new(Softmax, Source::Network),
            (ScoresForm::Classes, ScoresEnd::Sigmoid) => {
                Meaning::new(Sigmoid, Source::Network).noting(Remark::note(
                    "the network ends in a sigmoid: its classes do not exclude each other, and their probabilities need not sum to 1",
                ))
            }
            (ScoresForm::Heads | ScoresForm::Binary, ScoresEnd::Sigmoid) => {
                Meaning::new(Sigmoid, Source::Network)
            }
            (ScoresForm::Classes, ScoresEnd::Layer) => Meaning::new(Softmax, Source::Assumed),
            (ScoresForm::Binary, ScoresEnd::Squashed) => {
                let meaning = Meaning::new(None, Source::Network);
                if scores.is_within(1.0) {
                    return meaning;
                }
                meaning.noting(
                    Remark::warning(
                        "the network's only score ends in a sigmoid or softmax, but is not between 0 and 1; it is shown as it is",
                    )
                    .with_hint(Hint::Scores),
                )
            }
            (ScoresForm::Binary, _) => Meaning::new(Sigmoid, Source::Assumed).noting(
                Remark::note(
                    "the network has one score: it is taken for the logit of class 1, and class 0 is its opposite",
                )
                .with_hint(Hint::ScoresAsTheyAre),
            ),
            (ScoresForm::Heads, ScoresEnd::Layer) => Meaning::new(Sigmoid, Source::Assumed),
            _ => self.by_values(scores),
        }
    }

    /// By the numbers themselves, because the graph does not tell.
    fn by_values(&self, scores: &ScoreRange) -> Meaning {
        if scores.is_distribution(100.0) {
            let text = "the network's scores are percentages: in each image they sum to 100; a hundredth of each is its probability";
            return Meaning::new(ScoreKind::Percent, Source::Network).noting(Remark::note(text));
        }
        if scores.is_distribution(1.0) {
            let text = "the network's scores are probabilities already: in each image they sum to 1; they are shown as they are";
            return Meaning::new(ScoreKind::None, Source::Network).noting(Remark::note(text));
        }
        let usual = match self.form {
            ScoresForm::Heads => ScoreKind::Sigmoid,
            _ => ScoreKind::Softmax,
        };
        let meaning = Meaning::new(usual, Source::Assumed);
        if !scores.is_within(1.0) {
            return meaning;
        }
        if self.end == ScoresEnd::Squashed {
            let text = "the network's scores lie between 0 and 1 and do not sum to 1; they are shown as they are";
            let remark = Remark::note(text).with_hint(Hint::Scores);
            return Meaning::new(ScoreKind::None, Source::Network).noting(remark);
        }
        let text = format!(
            "all scores lie between 0 and 1, but nothing says that they are probabilities; {usual} is assumed"
        );
        meaning.noting(Remark::note(text).with_hint(Hint::ScoresAsTheyAre))
    }
}

/// The range of the scores of all images, and of the sums over the classes of each image.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct ScoreRange(Option<Range>);

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Range {
    scores: [f64; 2],
    sums: [f64; 2],
}

impl ScoreRange {
    /// Of the finite scores `[N,K]` of some images.
    pub fn of(scores: &Tensor) -> ScoreRange {
        if scores.numel() == 0 {
            return ScoreRange(None);
        }
        let sums = scores.sum_dim_intlist([1i64].as_slice(), false, Kind::Double);
        let ends = |values: &Tensor| [values.min(), values.max()].map(|end| end.double_value(&[]));
        ScoreRange(Some(Range {
            scores: ends(scores),
            sums: ends(&sums),
        }))
    }

    /// The range of both.
    pub fn union(self, other: ScoreRange) -> ScoreRange {
        let both = |[a, b]: [f64; 2], [c, d]: [f64; 2]| [a.min(c), b.max(d)];
        match (self.0, other.0) {
            (Some(one), Some(two)) => ScoreRange(Some(Range {
                scores: both(one.scores, two.scores),
                sums: both(one.sums, two.sums),
            })),
            (one, two) => ScoreRange(one.or(two)),
        }
    }

    /// Whether all scores lie between 0 and `whole`, up to rounding.
    fn is_within(&self, whole: f64) -> bool {
        self.0.is_some_and(|Range { scores, .. }| {
            scores[0] / whole >= -ROUNDING && scores[1] / whole <= 1.0 + ROUNDING
        })
    }

    /// Whether the scores of each image sum to `whole`, and lie between 0 and that.
    fn is_distribution(&self, whole: f64) -> bool {
        let sums = self.0.map(|range| range.sums);
        let is_whole = |sum: f64| (sum / whole - 1.0).abs() <= ROUNDING;
        self.is_within(whole) && sums.is_some_and(|sums| sums.into_iter().all(is_whole))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(values: &[f32], classes: i64) -> Tensor {
        Tensor::from_slice(values).reshape([-1, classes])
    }

    fn read(form: ScoresForm, end: ScoresEnd, scores: &Tensor) -> Meaning {
        let evidence = Evidence {
            end,
            form,
            given: None,
        };
        evidence.read(&ScoreRange::of(scores))
    }

    #[test]
    fn each_kind_has_its_probabilities() {
        let scores = rows(&[0.0, 1.0, -2.0], 3);
        let of =
            |kind: ScoreKind| Vec::<f64>::try_from(kind.probabilities(&scores).get(0)).unwrap();
        // e^0, e^1, e^-2 over their sum 3.853617; 1 / (1 + e^-x)
        for (kind, expected) in [
            (ScoreKind::Softmax, [0.259_496, 0.705_385, 0.035_119]),
            (ScoreKind::Sigmoid, [0.5, 0.731_059, 0.119_203]),
            (ScoreKind::Percent, [0.0, 0.01, -0.02]),
            (ScoreKind::None, [0.0, 1.0, -2.0]),
        ] {
            for (found, expected) in of(kind).iter().zip(expected) {
                assert!((found - expected).abs() < 1e-6, "{kind}: {found}");
            }
        }
    }

    #[test]
    fn scores_are_read_by_the_end_of_the_graph_and_then_by_their_values() {
        use ScoresEnd::*;
        use ScoresForm::*;
        let logits = rows(&[2.0, -1.0, 0.5, 0.1, 0.2, 0.7], 3);
        let shares = rows(&[0.7, 0.2, 0.1, 0.1, 0.2, 0.7], 3);
        let parts = rows(&[0.7, 0.9, 0.1, 0.1, 0.2, 0.7], 3);
        let percent = rows(&[70.0, 20.0, 10.0, 0.0, 100.0, 0.0], 3);
        let hundred = rows(&[120.0, -20.0, 0.0, 0.0, 100.0, 0.0], 3);
        for (form, end, scores, kind, from, noted) in [
            (
                Classes,
                Squashed,
                &percent,
                "percent",
                Source::Network,
                true,
            ),
            (Classes, Other, &percent, "percent", Source::Network, true),
            (Classes, Layer, &percent, "softmax", Source::Assumed, false),
            (Classes, Other, &hundred, "softmax", Source::Assumed, false),
            (Classes, Layer, &logits, "softmax", Source::Assumed, false),
            (Classes, Layer, &shares, "softmax", Source::Assumed, false),
            (Classes, Softmax, &logits, "softmax", Source::Network, false),
            (Classes, Sigmoid, &logits, "sigmoid", Source::Network, true),
            (Classes, Other, &logits, "softmax", Source::Assumed, false),
            (Classes, Other, &shares, "none", Source::Network, true),
            (Classes, Other, &parts, "softmax", Source::Assumed, true),
            (
                Classes,
                Squashed,
                &logits,
                "softmax",
                Source::Assumed,
                false,
            ),
            (Classes, Squashed, &shares, "none", Source::Network, true),
            (Classes, Squashed, &parts, "none", Source::Network, true),
            (Heads, Layer, &logits, "sigmoid", Source::Assumed, false),
            (Heads, Squashed, &shares, "none", Source::Network, true),
            (Binary, Layer, &logits, "sigmoid", Source::Assumed, true),
            (Binary, Sigmoid, &logits, "sigmoid", Source::Network, false),
            (Binary, Squashed, &parts, "none", Source::Network, false),
            (Binary, Squashed, &logits, "none", Source::Network, true),
        ] {
            let meaning = read(form, end, scores);
            let what = format!("{form:?} {end:?} {meaning:?}");
            assert_eq!(meaning.kind.to_string(), kind, "{what}");
            assert_eq!(meaning.from, from, "{what}");
            assert_eq!(meaning.remark.is_some(), noted, "{what}");
        }
    }

    #[test]
    fn what_the_user_says_counts() {
        let evidence = Evidence {
            end: ScoresEnd::Softmax,
            form: ScoresForm::Classes,
            given: Some(ScoreKind::None),
        };
        let meaning = evidence.read(&ScoreRange::of(&rows(&[1.0, 2.0], 2)));
        assert_eq!(
            (meaning.kind, meaning.from),
            (ScoreKind::None, Source::Given)
        );
    }
}
