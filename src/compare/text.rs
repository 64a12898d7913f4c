//! A comparison for people.

use super::{Changed, Comparison, Side};
use crate::names::{escaped, escaped_within};

/// Images that are listed; JSON has all.
const MOST_LISTED: usize = 40;

/// Characters of a path and of a class in the list.
const LONGEST_PATH: usize = 48;
const LONGEST_CLASS: usize = 28;

impl Comparison {
    /// What was found, as sentences.
    pub fn in_short(&self) -> String {
        let count = self.pairs.len();
        let mut text = String::new();
        if let Some(changed) = &self.changed {
            let changed = changed.len();
            text += &format!("The top class changed in {changed} of {count} images. ");
        }
        if let Some(cka) = self.cka.plain {
            let debiased = self.cka.debiased.map(|cka| format!(" (debiased {cka:.3})"));
            text += &format!(
                "The linear CKA of the features is {cka:.3}{}.",
                debiased.unwrap_or_default()
            );
        }
        text
    }
}

/// The comparison as a short table, and the images whose class changed.
pub fn in_words(comparison: &Comparison) -> String {
    let [a, b] = &comparison.sides;
    let mut text = aligned(&[run_row("A", a).to_vec(), run_row("B", b).to_vec()]);
    text += "\n";
    text += &aligned(&numbers(comparison));
    if let Some(changed) = comparison
        .changed
        .as_deref()
        .filter(|list| !list.is_empty())
    {
        text += "\n";
        text += &aligned(&list(changed));
        if changed.len() > MOST_LISTED {
            text += &format!("and {} more images\n", changed.len() - MOST_LISTED);
        }
    }
    text
}

fn run_row(letter: &str, side: &Side) -> [String; 4] {
    let [height, width] = side.input_size;
    let shape = side
        .shape
        .map_or(String::new(), |[c, h, w]| format!(" ({c}x{h}x{w})"));
    [
        letter.to_string(),
        escaped(&side.file),
        escaped(&side.network),
        format!(
            "layer {}{shape}, input {height}x{width}",
            escaped(&side.layer)
        ),
    ]
}

/// What was counted and computed, one line each: what, value, explanation.
fn numbers(comparison: &Comparison) -> Vec<Vec<String>> {
    let [a, b] = &comparison.sides;
    let count = comparison.pairs.len();
    let only = match (a.only_here, b.only_here) {
        (0, 0) => String::new(),
        (a, b) => format!("left out: {a} only in A, {b} only in B"),
    };
    let row = |what: &str, value: String, more: String| vec![what.to_string(), value, more];
    let unknown = || "-".to_string();
    let number = |value: Option<f64>| value.map_or_else(unknown, |value| format!("{value:.4}"));
    let mut rows = vec![row("images in both", count.to_string(), only)];
    rows.push(match (&comparison.changed, comparison.top1_changed()) {
        (Some(changed), share) => row(
            "top class changed",
            number(share),
            format!("{} of {count} images", changed.len()),
        ),
        _ => row("top class changed", unknown(), String::new()),
    });
    rows.push(row(
        "probability change",
        number(comparison.probability_change),
        "mean, of A's top class".to_string(),
    ));
    for (letter, side, name) in [("A", a, "accuracy_a"), ("B", b, "accuracy_b")] {
        if let Some(accuracy) = side.accuracy {
            rows.push(row(
                &format!("accuracy of {letter}"),
                number(comparison.number(name)),
                format!("{} of {} images", accuracy.right, accuracy.of),
            ));
        }
    }
    let [rows_of, columns] = comparison.grid;
    let components = match a.components == b.components {
        true => a.components.to_string(),
        false => format!("{} and {}", a.components, b.components),
    };
    let of = format!(
        "{} places ({rows_of}x{columns} of {count} images), {components} components",
        comparison.cka.places
    );
    let of = if comparison.cka.places > 0 {
        of
    } else {
        String::new()
    };
    rows.push(row("linear CKA", number(comparison.cka.plain), of));
    rows.push(row(
        "debiased CKA",
        number(comparison.cka.debiased),
        String::new(),
    ));
    rows
}

fn list(changed: &[Changed]) -> Vec<Vec<String>> {
    let has_truth = changed.iter().any(|image| image.truth.is_some());
    let row = |cells: [String; 6]| {
        let cells = cells.into_iter();
        cells.take(if has_truth { 6 } else { 5 }).collect()
    };
    let heading = ["changed", "A", "", "B", "", "truth"].map(String::from);
    let rows = changed.iter().take(MOST_LISTED).map(|image| {
        let class = |name: &str| escaped_within(name, LONGEST_CLASS);
        let probability = |value: f64| format!("{value:.2}");
        row([
            escaped_within(&image.path, LONGEST_PATH),
            class(&image.a.name),
            probability(image.a.probability),
            class(&image.b.name),
            probability(image.b.probability),
            image
                .truth
                .as_ref()
                .map_or("-".into(), |truth| class(&truth.name)),
        ])
    });
    std::iter::once(row(heading)).chain(rows).collect()
}

/// Rows with aligned columns.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths);
        let cells = cells.map(|(cell, &width)| format!("{cell:<width$}"));
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}
