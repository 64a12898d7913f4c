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

/// Characters that a list of names may have, so that its message stays whole.
const LONGEST_LIST: usize = 140;

/// `a, b, c and 4 more`: the first `count` of `names`, fewer if they are long, but one at least.
pub fn first_few<T: AsRef<str>>(names: &[T], count: usize) -> String {
    let mut length = 0;
    let fits = |name: &&str| {
        length += name.chars().count() + 2;
        length == name.chars().count() + 2 || length <= LONGEST_LIST
    };
    let named = names.iter().take(count).map(AsRef::as_ref);
    let shown: Vec<&str> = named.take_while(fits).collect();
    let count = shown.len();
    let shown = shown.join(", ");
    match names.len() - count {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_long_names_names_fewer() {
        assert_eq!(first_few(&["a", "b", "c"], 2), "a, b and 1 more");
        assert_eq!(first_few(&["a", "b"], 2), "a, b");
        let long = ["x".repeat(69), "y".repeat(69), "z".repeat(69)];
        let two = format!("{}, {}", long[0], long[1]);
        assert_eq!(first_few(&long, 3), format!("{} and 2 more", long[0]));
        assert_eq!(
            first_few(&[&long[0][1..], &long[1][1..]], 3).len(),
            two.len() - 2
        );
        let longest = "x".repeat(500);
        assert_eq!(first_few(&[&longest], 3), longest);
    }
}
