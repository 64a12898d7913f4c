//! Names of the classes.

/// The 1000 classes of ImageNet in the order of the scores, each with its synonyms as WordNet
/// gives them: `timber wolf, grey wolf, gray wolf, Canis lupus`.
pub fn imagenet() -> Vec<String> {
    tch::vision::imagenet::CLASSES
        .iter()
        .map(|label| label.to_string())
        .collect()
}

/// A label as a figure and a line of text show it: the first synonym, spaces as `_`.
pub fn title(label: &str) -> String {
    let first = label.split(',').next().unwrap_or(label);
    first.trim().replace(' ', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_is_the_first_synonym_with_underscores() {
        assert_eq!(
            title("timber wolf, grey wolf, gray wolf, Canis lupus"),
            "timber_wolf"
        );
        assert_eq!(title("tench"), "tench");
        assert_eq!(title(""), "");
    }

    #[test]
    fn imagenet_has_its_thousand_classes_in_order() {
        let labels = imagenet();
        assert_eq!(labels.len(), 1000);
        assert_eq!(title(&labels[0]), "tench");
        assert_eq!(title(&labels[269]), "timber_wolf");
        assert_eq!(title(&labels[348]), "ram");
        assert_eq!(title(&labels[999]), "toilet_tissue");
    }
}
