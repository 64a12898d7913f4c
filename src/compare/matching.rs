//! Which images of two runs are the same.

use std::collections::HashMap;

use anyhow::{Result, bail};

use crate::names::escaped_within;
use crate::remarks::Remark;
use crate::saved::SavedRun;

/// The images of two runs that are the same.
#[derive(Debug)]
pub struct Matched {
    /// Their indices in the first and the second run, in the order of the first.
    pub pairs: Vec<(usize, usize)>,
    /// How they were matched, if not by their paths.
    pub remark: Option<Remark>,
}

/// Matches images by path; if no path is in both, by the shortest ends of the paths that tell the
/// images of each run apart: the names of the files, or with their folders.
///
/// # Errors
/// Returns an error if no image is in both runs.
pub fn matched(a: &SavedRun, b: &SavedRun) -> Result<Matched> {
    let [paths_a, paths_b] = [a, b].map(|run| {
        let images = run.summary.images.iter();
        images.map(|image| plain(&image.path)).collect::<Vec<_>>()
    });
    let (pairs, parts) = pairs_of(&paths_a, &paths_b);
    if pairs.is_empty() {
        let shown = |run: &SavedRun| escaped_within(&run.summary.images[0].path, 60);
        bail!(
            "the runs {} and {} have no image in common: the first ones are {} and {}",
            a.file.display(),
            b.file.display(),
            shown(a),
            shown(b)
        );
    }
    let remark = parts.map(|parts| {
        Remark::note(match parts {
            1 => "no path is in both runs, so images are matched by their file names".to_string(),
            _ => format!(
                "no path is in both runs, so images are matched by the last {parts} parts of their paths"
            ),
        })
    });
    Ok(Matched { pairs, remark })
}

fn plain(path: &str) -> &str {
    path.strip_prefix("./").unwrap_or(path)
}

/// The pairs, and by how many of the last parts of the paths they were found; none if by all.
fn pairs_of(a: &[&str], b: &[&str]) -> (Vec<(usize, usize)>, Option<usize>) {
    let whole = joined(a.iter().copied(), b.iter().copied());
    if let Some(pairs) = whole.filter(|pairs| !pairs.is_empty()) {
        return (pairs, None);
    }
    let longest = |paths: &[&str]| paths.iter().map(|path| path.split('/').count()).max();
    let most = longest(a).into_iter().chain(longest(b)).max().unwrap_or(0);
    for parts in 1..=most {
        let ends = |paths: &[&'_ str]| {
            let paths = paths.iter().map(|path| end(path, parts).to_string());
            paths.collect::<Vec<String>>()
        };
        let (a, b) = (ends(a), ends(b));
        if let Some(pairs) = joined(a.iter().map(String::as_str), b.iter().map(String::as_str)) {
            return (pairs, Some(parts));
        }
    }
    (Vec::new(), None)
}

/// The last parts of a path.
fn end(path: &str, parts: usize) -> &str {
    let slash = path.rmatch_indices('/').nth(parts - 1);
    slash.map_or(path, |(at, _)| &path[at + 1..])
}

/// The indices of equal names; none if a name is twice in one of the lists.
fn joined<'a>(
    a: impl Iterator<Item = &'a str>,
    b: impl Iterator<Item = &'a str>,
) -> Option<Vec<(usize, usize)>> {
    let index = |names: &mut dyn Iterator<Item = &'a str>| {
        let mut index = HashMap::new();
        let mut names = names.enumerate();
        let is_twice = names.any(|(at, name)| index.insert(name, at).is_some());
        (!is_twice).then_some(index)
    };
    let (a, b) = (index(&mut { a })?, index(&mut { b })?);
    let mut pairs: Vec<(usize, usize)> = a
        .iter()
        .filter_map(|(name, &in_a)| Some((in_a, *b.get(name)?)))
        .collect();
    pairs.sort_unstable();
    Some(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_matched_by_path_or_by_the_shortest_end_that_tells_them_apart() {
        let pairs = |a: &[&str], b: &[&str]| pairs_of(a, b);
        assert_eq!(
            pairs(&["x/1.jpg", "x/2.jpg"], &["y/1.jpg", "x/2.jpg"]),
            (vec![(1, 1)], None),
            "one path is in both"
        );
        assert_eq!(
            pairs(&["x/1.jpg", "x/2.jpg"], &["y/2.jpg", "y/3.jpg", "y/1.jpg"]),
            (vec![(0, 2), (1, 0)], Some(1))
        );
        assert_eq!(
            pairs(
                &["x/cat/1.jpg", "x/dog/1.jpg"],
                &["y/dog/1.jpg", "y/cat/1.jpg"]
            ),
            (vec![(0, 1), (1, 0)], Some(2))
        );
        assert_eq!(pairs(&["a.jpg"], &["b.jpg"]).0, []);
        assert_eq!(pairs(&["a.jpg", "x/a.jpg"], &["b.jpg"]).0, []);
    }
}
