//! Names in messages: the most similar ones, the first few of many, and names on one line.

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

/// Whether a character would break a line, hide a part of it or turn its direction.
fn breaks_a_line(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A character as it is shown on a line: `\t`, `\n`, `\r`, `\\`, `\u{1b}`, or itself.
fn shown(c: char) -> String {
    match c {
        '\t' => "\\t".to_string(),
        '\n' => "\\n".to_string(),
        '\r' => "\\r".to_string(),
        '\\' => "\\\\".to_string(),
        c if breaks_a_line(c) => c.escape_unicode().to_string(),
        c => c.to_string(),
    }
}

/// The text on one line. What is escaped can be read back: `\t`, `\n`, `\r` and `\\`, and
/// `\u{1b}` for another character that would break or hide a part of the line.
pub fn escaped(text: &str) -> String {
    text.chars().map(shown).collect()
}

/// A word in a shell's quotes. What is escaped when the line is written (see [`escaped`]) is
/// undone by the quotes `$'...'`; none is made with a backslash.
pub fn in_quotes(word: &str) -> String {
    let quote = match escaped(word) == word {
        true => "'",
        false => "$'",
    };
    let inner = word.replace('\'', &format!("'\"'\"{quote}"));
    format!("{quote}{inner}'")
}

/// The text on one line, as [`escaped`] writes it. Bytes that are not UTF-8 stay as they are.
pub fn escaped_bytes(text: &[u8]) -> Vec<u8> {
    let mut line = Vec::new();
    for chunk in text.utf8_chunks() {
        line.extend(escaped(chunk.valid()).into_bytes());
        line.extend(chunk.invalid());
    }
    line
}

/// The text on one line of at most `most` characters, as [`escaped`] writes it. Of a longer one
/// the middle is left out.
pub fn escaped_within(text: &str, most: usize) -> String {
    let pieces: Vec<String> = text.chars().map(shown).collect();
    without_middle(&pieces, most)
}

/// The text with at most `most` characters. Of a longer one the middle is left out: a path comes
/// first, the reason last.
pub fn within(text: &str, most: usize) -> String {
    let pieces: Vec<String> = text.chars().map(String::from).collect();
    without_middle(&pieces, most)
}

/// The pieces as one text; the middle is left out between pieces.
fn without_middle(pieces: &[String], most: usize) -> String {
    let lengths: Vec<usize> = pieces.iter().map(|piece| piece.chars().count()).collect();
    if lengths.iter().sum::<usize>() <= most {
        return pieces.concat();
    }
    let fitting = |lengths: &mut dyn Iterator<Item = &usize>, room: usize| {
        let mut length = 0;
        let fits = |next: &&usize| {
            length += **next;
            length <= room
        };
        lengths.take_while(fits).count()
    };
    let head = fitting(&mut lengths.iter(), most / 4);
    let room = most.saturating_sub(lengths[..head].iter().sum::<usize>() + 3);
    let tail = fitting(&mut lengths.iter().rev(), room);
    let (head, tail) = (&pieces[..head], &pieces[pieces.len() - tail..]);
    format!("{}...{}", head.concat(), tail.concat())
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
    fn a_line_shows_each_character_in_a_way_that_can_be_read_back() {
        let name = "a\tb\\n\nc\r\u{1b}[2J\u{85}\u{2028}\u{202e}\u{200d}\u{e9}";
        let line = r"a\tb\\n\nc\r\u{1b}[2J\u{85}\u{2028}\u{202e}".to_string() + "\u{200d}\u{e9}";
        assert_eq!(escaped(name), line);
        assert_eq!(escaped_bytes(b"a\tb\xe9\nc"), b"a\\tb\xe9\\nc");
        assert_eq!(escaped_bytes(name.as_bytes()), line.as_bytes());
    }

    #[test]
    fn the_middle_of_a_long_text_is_left_out_between_escapes() {
        assert_eq!(within("abcdefghijkl", 12), "abcdefghijkl");
        assert_eq!(within("abcdefghijklm", 12), "abc...hijklm");
        assert_eq!(escaped_within(&"\t".repeat(6), 12), r"\t\t\t\t\t\t");
        assert_eq!(escaped_within(&"\t".repeat(7), 12), r"\t...\t\t\t");
        assert_eq!(
            escaped_within(&"\u{202e}".repeat(300), 300).len(),
            8 * 37 + 3
        );
    }

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
