//! Remarks on a run: what was assumed, and what limits the result. Each is one line on standard
//! error; the summary and the page list them all.

use anyhow::Result;

use crate::cli;
use crate::error::Hint;
use crate::joint::Group;
use crate::notices::Notices;

/// A remark as a stage makes it. As in errors, the text names no option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// One line, without a full stop.
    pub text: String,
    /// The situation in which an option helps.
    pub hint: Option<Hint>,
    /// Whether the result may not be what the user expects.
    pub is_warning: bool,
}

impl Remark {
    /// Something that was assumed or chosen.
    pub fn note(text: impl Into<String>) -> Remark {
        Remark {
            text: text.into(),
            hint: None,
            is_warning: false,
        }
    }

    /// Something because of which the result may not be what the user expects.
    pub fn warning(text: impl Into<String>) -> Remark {
        Remark {
            is_warning: true,
            ..Remark::note(text)
        }
    }

    /// With the situation in which an option helps.
    pub fn with_hint(self, hint: Hint) -> Remark {
        let hint = Some(hint);
        Remark { hint, ..self }
    }

    /// The text, with the option that helps at its end.
    pub fn line(&self) -> String {
        cli::hinted_line(&self.text, self.hint)
    }
}

/// The remarks of a run so far, in order.
#[derive(Debug)]
pub struct Remarks {
    notices: Notices,
    lines: Vec<String>,
    /// Whether each line is a warning.
    warnings: Vec<bool>,
}

impl Remarks {
    /// No remarks; later ones are written to standard error as `notices` says.
    pub fn new(notices: Notices) -> Remarks {
        Remarks {
            notices,
            lines: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Writes a remark to standard error and remembers it, unless it was made before.
    pub fn add(&mut self, remark: &Remark) {
        self.add_line(remark.line(), remark.is_warning);
    }

    fn add_line(&mut self, line: String, is_warning: bool) {
        if self.lines.contains(&line) {
            return;
        }
        match is_warning {
            true => self.notices.warn(&line),
            false => self.notices.note(&line),
        }
        self.lines.push(line);
        self.warnings.push(is_warning);
    }

    /// Adds each of `remarks`.
    pub fn add_all(&mut self, remarks: &[Remark]) {
        remarks.iter().for_each(|remark| self.add(remark));
    }

    /// Adds the remarks of all other ranks to those of rank 0.
    ///
    /// # Errors
    /// Returns an error if a rank is lost.
    pub fn gather(&mut self, group: &Group) -> Result<()> {
        let own = self
            .lines
            .iter()
            .cloned()
            .zip(self.warnings.iter().copied());
        let all: Vec<Vec<(String, bool)>> = group.gather_values(own.collect())?;
        for (line, is_warning) in all.into_iter().flatten() {
            self.add_line(line, is_warning);
        }
        Ok(())
    }

    /// All remarks, a line each.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }
}
