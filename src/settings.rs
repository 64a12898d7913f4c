//! The settings of a run that a network does not fix by itself, each with where it came from.

use std::fmt;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;

/// Where a setting came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The user gave it.
    Given,
    /// The file of the network states it.
    File,
    /// The network is known by name, and its authors state it.
    Zoo,
    /// The operators of the network, or what they return, show it.
    Network,
    /// Nothing states it.
    Assumed,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Source::Given => "given",
            Source::File => "the file",
            Source::Zoo => "the zoo",
            Source::Network => "the network",
            Source::Assumed => "assumed",
        })
    }
}

/// A value, and where it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sourced<T> {
    /// The value.
    pub value: T,
    /// Where it came from.
    pub from: Source,
}

impl<T> Sourced<T> {
    /// A value from there.
    pub fn new(value: T, from: Source) -> Sourced<T> {
        Sourced { value, from }
    }

    /// The given value, else that of the network's file or the zoo (`own`), else the default.
    pub fn first(given: Option<T>, own: Option<Sourced<T>>, default: T) -> Sourced<T> {
        let given = given.map(|value| Sourced::new(value, Source::Given));
        let known = given.or(own);
        known.unwrap_or(Sourced::new(default, Source::Assumed))
    }
}

/// A setting as it is stated: for people as text, for programs as JSON.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// Its key in the summary, and its name on the page: `size`.
    pub name: &'static str,
    /// Its value in the summary.
    pub value: Value,
    /// Its value in words, with its name if the value alone is not clear: `mean 0.5, 0.5, 0.5`.
    pub text: String,
    /// Where it came from.
    pub from: Source,
}

impl Setting {
    /// A setting of that name.
    pub fn new(
        name: &'static str,
        value: impl Into<Value>,
        text: impl Into<String>,
        from: Source,
    ) -> Setting {
        Setting {
            name,
            value: value.into(),
            text: text.into(),
            from,
        }
    }
}

/// All settings of a run, in the order in which they are stated.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings(pub Vec<Setting>);

impl Settings {
    /// The settings in words, those of one source together: `96x96, stretched (given)`.
    pub fn phrases(&self) -> Vec<String> {
        let mut groups: Vec<(Source, Vec<&str>)> = Vec::new();
        for setting in &self.0 {
            match groups.iter_mut().find(|(from, _)| *from == setting.from) {
                Some((_, texts)) => texts.push(&setting.text),
                None => groups.push((setting.from, vec![&setting.text])),
            }
        }
        let phrase = |(from, texts): (Source, Vec<&str>)| format!("{} ({from})", texts.join(", "));
        groups.into_iter().map(phrase).collect()
    }
}

impl Serialize for Settings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for setting in &self.0 {
            let from = setting.from.to_string();
            let entry = serde_json::json!({ "value": setting.value, "from": from });
            map.serialize_entry(setting.name, &entry)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_comes_before_what_is_known_and_that_before_a_default() {
        let own = Some(Sourced::new(2, Source::File));
        assert_eq!(
            Sourced::first(Some(1), own, 3),
            Sourced::new(1, Source::Given)
        );
        assert_eq!(Sourced::first(None, own, 3), Sourced::new(2, Source::File));
        assert_eq!(
            Sourced::first(None, None, 3),
            Sourced::new(3, Source::Assumed)
        );
    }

    #[test]
    fn settings_of_one_source_are_stated_together() {
        let settings = Settings(vec![
            Setting::new("size", 96, "96 pixels", Source::Given),
            Setting::new("resize", "stretch", "stretched", Source::Assumed),
            Setting::new("labels", "a.txt", "labels of a.txt", Source::Given),
        ]);
        assert_eq!(
            settings.phrases(),
            ["96 pixels, labels of a.txt (given)", "stretched (assumed)"]
        );
        let json = serde_json::to_value(&settings).unwrap();
        assert_eq!(json["size"]["value"], 96);
        assert_eq!(json["resize"]["from"], "assumed");
    }
}
