//! The command that compares two saved runs.

use std::io::Write;

use anyhow::Result;

use super::again::write_page;
use super::commands::{print_text, report_written};
use crate::compare::{Comparison, in_words};
use crate::notices::{Notices, say};
use crate::options::{CompareOptions, JsonTarget};
use crate::output::{Outputs, folder_of};
use crate::remarks::{Remark, Remarks};
use crate::saved::SavedRun;

/// Compares two saved runs and prints what they have in common and what not; returns whether a
/// condition holds, each of which is named on standard error.
///
/// # Errors
/// Returns a message of one line; no file is written then.
pub fn compare(options: &CompareOptions, stdout: &mut dyn Write) -> Result<bool> {
    let notices = Notices::from_flags(options.quiet, false);
    let mut remarks = Remarks::new(notices);
    let mut outputs = Outputs::default();
    if let Some(JsonTarget::File(file)) = &options.json {
        outputs.prepare(folder_of(file))?;
    }
    let a = SavedRun::open(&options.a, options.arrays_a.as_deref())?;
    let b = SavedRun::open(&options.b, options.arrays_b.as_deref())?;
    if options.report.is_some() {
        a.require_pictures()?;
        b.require_pictures()?;
    }
    let comparison = notices.during("comparing", || Comparison::of(&a, &b))?;
    let holding = comparison.fulfilled(&options.fail_if)?;
    if let Some(file) = &options.report {
        outputs.prepare(folder_of(file))?;
        let (of_a, of_b) = comparison.pairs.iter().copied().unzip();
        let sides = [(&a, of_a), (&b, of_b)];
        write_page(
            file,
            &sides,
            Some(&comparison),
            &mut outputs,
            notices,
            &mut remarks,
        )?;
    }
    let lines: Vec<String> = comparison.remarks.iter().map(Remark::line).collect();
    let mut printed = in_words(&comparison);
    if let Some(target) = &options.json {
        let json = comparison.to_json(&holding, &lines)?;
        match target {
            JsonTarget::File(file) => {
                outputs.write(file, |out| Ok(out.write_all(json.as_bytes())?))?;
            }
            JsonTarget::Stdout => printed = json,
        }
    }
    let written = outputs.commit()?;
    remarks.add_all(&comparison.remarks);
    report_written(&written, notices);
    print_text(printed.as_bytes(), stdout)?;
    for (condition, value) in &holding {
        say(&format!("failed: {} (it is {value:.4})", condition.text));
    }
    Ok(!holding.is_empty())
}
