//! Names in messages: the most similar ones, and the first few of many.

use clap::ValueEnum;

/// The `count` of `names` that are most similar to `wanted` (Jaro-Winkler), the most similar
/// first. Names are compared after `plain`, which drops differences that do not matter, and
/// left out if the similarity is below `least` (0 to 1).
pub fn most_similar<'a>(
    wanted: &str,
    names: impl IntoIterator<Item = &'a str>,
    plain: impl Fn(&str) -> String,
    least: f64,
    count: usize,
) -> Vec<&'a str> {
    let wanted = plain(wanted);
    let mut found: Vec<(f64, &str)> = names
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&wanted, &plain(name)), name))
        .filter(|&(similarity, _)| similarity >= least)
        .collect();
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    found
        .into_iter()
        .take(count)
        .map(|(_, name)| name)
        .collect()
}

/// `a, b, c and 4 more`: the first `count` of `names`.
pub fn first_few<T: AsRef<str>>(names: &[T], count: usize) -> String {
    let shown: Vec<&str> = names.iter().take(count).map(AsRef::as_ref).collect();
    let shown = shown.join(", ");
    match names.len().saturating_sub(count) {
        0 => shown,
        rest => format!("{shown} and {rest} more"),
    }
}

/// `2 a`, `1 b`: how often each name occurs, in the order of their first occurrence.
pub fn counted<T: AsRef<str>>(names: &[T]) -> Vec<String> {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for name in names.iter().map(AsRef::as_ref) {
        match counts.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count += 1,
            None => counts.push((name, 1)),
        }
    }
    let counted = counts.iter().map(|(name, count)| format!("{count} {name}"));
    counted.collect()
}

/// The name that a value has on the command line.
pub fn name_of(value: &impl ValueEnum) -> String {
    let known = value.to_possible_value();
    known.map_or_else(String::new, |known| known.get_name().to_string())
}
