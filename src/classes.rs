//! The top classes of an image, with their probabilities.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::error::{Hint, usage, usage_hinted};
use crate::labels::Labels;
use crate::scores::ScoreKind;

/// One class of one image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Class {
    /// Index among the scores.
    pub id: usize,
    /// `timber_wolf`; `class 3` if no name is known.
    pub name: String,
    /// What its score says, by the meaning of the scores (see [`ScoreKind`]); with
    /// [`ScoreKind::None`] the score itself.
    pub probability: f64,
}

impl std::fmt::Display for Class {
    /// `timber_wolf: 0.91`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {:.2}", self.name, self.probability)
    }
}

/// The name of a class: `timber_wolf`; `class 3` if no name is known.
pub fn class_name(id: usize, labels: Option<&Labels>) -> String {
    labels.map_or_else(|| format!("class {id}"), |labels| labels.title(id))
}

/// The usage error for a class that a network of `count` classes does not have.
pub fn no_class(class: impl std::fmt::Display, count: usize) -> anyhow::Error {
    usage(format!(
        "there is no class {class}; the network's classes are 0 to {}",
        count - 1
    ))
}

/// The class with that number or name. A number may be that of no class.
///
/// # Errors
/// Returns a usage error if no class has the name, or if the names are not known.
pub fn find_class(word: &str, labels: Option<&Labels>, count: usize) -> Result<usize> {
    let digits = word.strip_prefix('-').unwrap_or(word);
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    match (word.parse(), labels) {
        (Ok(class), _) => Ok(class),
        _ if is_number => Err(no_class(word, count)),
        (_, Some(labels)) => labels.find(word),
        (_, None) => Err(usage_hinted(
            format!(
                "'{word}' is no class: the class names of this network are not known; give a number from 0 to {}",
                count - 1
            ),
            Hint::Labels,
        )),
    }
}

/// The `top` most likely classes of every image, the likeliest first.
///
/// `scores` is `[N,K]`; if K is smaller than `top`, all classes are returned.
///
/// # Errors
/// Returns an error if the scores have another shape.
pub fn top_classes(
    scores: &Tensor,
    kind: ScoreKind,
    labels: Option<&Labels>,
    top: i64,
) -> Result<Vec<Vec<Class>>> {
    let (images, count) = scores.size2()?;
    let top = top.min(count);
    // By the scores: several probabilities can be rounded to 1.
    let (_, ids) = scores.topk(top, 1, true, true);
    let values = kind.probabilities(scores).gather(1, &ids, false);
    let class = |image: i64, rank: i64| {
        let id = ids.int64_value(&[image, rank]) as usize;
        Class {
            id,
            name: class_name(id, labels),
            probability: values.double_value(&[image, rank]),
        }
    };
    Ok((0..images)
        .map(|image| (0..top).map(|rank| class(image, rank)).collect())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_top_classes_are_softmaxed_and_named() {
        // exp: e, 1, e^2 -> shares 0.2447, 0.0900, 0.6652
        let logits = Tensor::from_slice(&[1.0f32, 0.0, 2.0]).reshape([1, 3]);
        let named = Labels::new(["cat", "dog", "owl"].map(String::from).into());
        let top = |labels, top| top_classes(&logits, ScoreKind::Softmax, labels, top).unwrap();
        let two = top(Some(&named), 2);
        let shown: Vec<String> = two[0].iter().map(Class::to_string).collect();
        assert_eq!(shown, ["owl: 0.67", "cat: 0.24"]);
        let all = top(None, 5);
        assert_eq!(all[0].len(), 3);
        assert_eq!(all[0][0].to_string(), "class 2: 0.67");
    }
}
