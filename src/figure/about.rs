//! What a figure's file says of its origin.

/// The program, the network and the command line that made a figure. Empty texts are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// The program and its version.
    pub software: String,
    /// The network and its layer, or what else the figure is of.
    pub network: String,
    /// The command line, as a shell reads it.
    pub command: String,
}

/// Longest text of a file, in characters.
const LONGEST: usize = 2000;

impl About {
    /// What this version of the program makes with a command.
    pub fn new(network: impl Into<String>, command: &str) -> About {
        About {
            software: format!("prism {}", env!("CARGO_PKG_VERSION")),
            network: network.into(),
            command: command.to_owned(),
        }
    }

    /// Keywords that PNG defines, and one line of text for each.
    pub(super) fn entries(&self) -> Vec<(&'static str, String)> {
        let all = [
            ("Software", &self.software),
            ("Description", &self.network),
            ("Comment", &self.command),
        ];
        let given = all.into_iter().filter(|(_, text)| !text.is_empty());
        given
            .map(|(key, text)| (key, shortened(&super::text::one_line(text))))
            .collect()
    }

    /// The same as lines; empty if nothing is known.
    pub(super) fn lines(&self) -> String {
        let lines = self.entries().into_iter();
        let lines = lines.map(|(key, text)| format!("{key}: {text}"));
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// A text of at most [`LONGEST`] characters. A long command is cut in the middle: it has options
/// at its end, after the names of images.
fn shortened(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let count = characters.len();
    if count <= LONGEST {
        return text.to_owned();
    }
    let note = format!(" [... {count} characters ...] ");
    let half = (LONGEST - note.len()) / 2;
    let part = |range: std::ops::Range<usize>| characters[range].iter().collect::<String>();
    part(0..half) + &note + &part(count - half..count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_command_keeps_both_ends() {
        let files: String = (0..10_000).map(|n| format!(" photos/{n}.jpg")).collect();
        let about = About::new("net", &format!("prism{files} --model vgg16"));
        let (key, command) = about.entries().pop().unwrap();
        assert_eq!(key, "Comment");
        assert!((1980..=2000).contains(&command.chars().count()));
        assert!(command.starts_with("prism photos/0.jpg photos/1.jpg "));
        assert!(command.ends_with("photos/9999.jpg --model vgg16"));
        // 5 + 10 * 13 + 90 * 14 + 900 * 15 + 9000 * 16 + 14
        assert!(
            command.contains(" [... 158909 characters ...] "),
            "{command}"
        );
    }

    #[test]
    fn what_is_empty_is_left_out_and_each_text_is_one_line() {
        assert_eq!(About::default().lines(), "");
        let about = About {
            software: "prism 1".into(),
            network: String::new(),
            command: "prism 'a\nb'".into(),
        };
        assert_eq!(about.lines(), "Software: prism 1\nComment: prism 'a b'");
    }
}
