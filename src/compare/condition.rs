//! Conditions on named numbers, such as `top1_changed > 0.02`.

use crate::error::Usage;
use crate::names::most_similar;

/// How a number is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Less,
    AtMost,
    Greater,
    AtLeast,
}

/// Longer ones first: `<` begins `<=`.
const RELATIONS: [(&str, Relation); 4] = [
    ("<=", Relation::AtMost),
    (">=", Relation::AtLeast),
    ("<", Relation::Less),
    (">", Relation::Greater),
];

/// A comparison of a named number with a limit.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// The name.
    pub name: &'static str,
    relation: Relation,
    limit: f64,
    /// As it was written.
    pub text: String,
}

impl Condition {
    /// Reads `NAME RELATION NUMBER`, with or without spaces.
    ///
    /// # Errors
    /// Returns a usage error that says what is expected, or lists `known` names.
    pub fn parse(text: &str, known: &[&'static str]) -> Result<Condition, Usage> {
        let expected = || {
            Usage("NAME > NUMBER is expected, or <, >= or <=, such as 'top1_changed > 0.02'".into())
        };
        let found = RELATIONS.iter().find_map(|(sign, relation)| {
            let (name, limit) = text.split_once(sign)?;
            Some((name.trim(), *relation, limit.trim()))
        });
        let (name, relation, limit) = found.ok_or_else(expected)?;
        let limit = limit.strip_suffix('%').map_or_else(
            || limit.parse().ok(),
            |percent| {
                percent
                    .trim()
                    .parse::<f64>()
                    .ok()
                    .map(|percent| percent / 100.0)
            },
        );
        let limit: f64 = limit
            .filter(|limit: &f64| limit.is_finite())
            .ok_or_else(expected)?;
        let name = known.iter().find(|known| **known == name).ok_or_else(|| {
            let near = most_similar(name, known.iter().copied(), str::to_lowercase, 0.8, 1);
            let near = near
                .first()
                .map_or(String::new(), |near| format!("; did you mean {near}?"));
            Usage(format!(
                "there is no number '{name}'{near} (known are {})",
                known.join(", ")
            ))
        })?;
        Ok(Condition {
            name,
            relation,
            limit,
            text: text.trim().to_string(),
        })
    }

    /// Whether a value fulfils it.
    pub fn holds(&self, value: f64) -> bool {
        match self.relation {
            Relation::Less => value < self.limit,
            Relation::AtMost => value <= self.limit,
            Relation::Greater => value > self.limit,
            Relation::AtLeast => value >= self.limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 2] = ["top1_changed", "cka"];

    #[test]
    fn a_condition_compares_a_number_with_its_limit() {
        for (text, below, at, above) in [
            ("cka < 0.9", true, false, false),
            ("cka<=0.9", true, true, false),
            ("  cka >0.9", false, false, true),
            ("cka >= 90 %", false, true, true),
            ("cka>=9e-1", false, true, true),
        ] {
            let condition = Condition::parse(text, &KNOWN).unwrap();
            assert_eq!(condition.name, "cka");
            let found = [0.8, 0.9, 1.0].map(|value| condition.holds(value));
            assert_eq!(found, [below, at, above], "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "",
            "cka",
            "cka > ",
            "> 0.9",
            "cka = 0.9",
            "cka == 0.9",
            "cka > x",
            "cka > NaN",
            "cka > 0.1 > 0.2",
            "cka << 0.2",
            "CKA > 1",
        ] {
            assert!(Condition::parse(bad, &KNOWN).is_err(), "{bad}");
        }
        let error = Condition::parse("top1_change > 0.1", &KNOWN).unwrap_err().0;
        assert!(
            error.contains("did you mean top1_changed?") && error.contains("cka"),
            "{error}"
        );
    }
}
