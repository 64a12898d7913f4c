//! Images that may mean something else than they say, as one remark for each kind.

use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::error::Hint;
use crate::images::{Oddity, Pixels};
use crate::joint::Group;
use crate::remarks::Remark;

/// What is odd about the images so far.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Oddities {
    low: Kind,
    narrow: Kind,
    empty: Kind,
    any_16_bit: bool,
}

/// Images that are odd in the same way.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kind {
    first: String,
    count: usize,
    /// The lowest and highest sample of all.
    range: Option<(u16, u16)>,
}

impl Kind {
    fn merge(&mut self, later: Kind) {
        if self.count == 0 {
            *self = later;
        } else if let Some((low, high)) = later.range {
            let (least, most) = self.range.unwrap_or((low, high));
            self.range = Some((least.min(low), most.max(high)));
            self.count += later.count;
        }
    }

    fn add(&mut self, file: &Path, (low, high): (u16, u16)) {
        if self.count == 0 {
            self.first = file.display().to_string();
        }
        self.count += 1;
        let (least, most) = self.range.unwrap_or((low, high));
        self.range = Some((least.min(low), most.max(high)));
    }

    /// `a.png`, or `a.png and 2 more images`.
    fn named(&self) -> String {
        let first = &self.first;
        match self.count {
            0 | 1 => first.clone(),
            2 => format!("{first} and 1 more image"),
            count => format!("{first} and {} more images", count - 1),
        }
    }
}

impl Oddities {
    /// Those of all ranks.
    ///
    /// # Errors
    /// Returns an error if a rank is lost.
    pub fn of_all(self, group: &Group) -> Result<Oddities> {
        let mut all = Oddities::default();
        for part in group.share(self)? {
            all.low.merge(part.low);
            all.narrow.merge(part.narrow);
            all.empty.merge(part.empty);
            all.any_16_bit |= part.any_16_bit;
        }
        Ok(all)
    }

    /// Adds an image.
    pub fn add(&mut self, file: &Path, pixels: &Pixels) {
        self.any_16_bit |= pixels.is_16_bit;
        for oddity in &pixels.oddities {
            match *oddity {
                Oddity::LowSamples(high) => self.low.add(file, (0, high)),
                Oddity::NarrowSamples(low, high) => self.narrow.add(file, (low, high)),
                Oddity::EmptyAlpha => self.empty.add(file, (0, 0)),
            }
        }
    }

    /// What to say of them; `white` is the level that the user set.
    pub fn remarks(&self, white: Option<u16>) -> Vec<Remark> {
        let mut remarks = Vec::new();
        if let Some((_, high)) = self.low.range {
            let bits = u16::BITS - high.leading_zeros();
            let level = (1u32 << bits) - 1;
            let text = format!(
                "{}: the 16-bit samples end at {high} (99.9 % of them), within an eighth of the range, so there is little contrast; if they have {bits} bits, white is {level}",
                self.low.named()
            );
            remarks.push(Remark::warning(text).with_hint(Hint::White));
        }
        if let Some((low, high)) = self.narrow.range {
            remarks.push(Remark::warning(format!(
                "{}: the 16-bit samples lie between {low} and {high} (99.8 % of them), each image's within an eighth of the range, so there is little contrast; stretch them before",
                self.narrow.named()
            )));
        }
        if self.empty.count > 0 {
            remarks.push(Remark::note(format!(
                "{}: alpha is 0 everywhere, so the colours are taken as opaque",
                self.empty.named()
            )));
        }
        if white.is_some() && !self.any_16_bit {
            let text = "no image has 16 bits per sample, so the level of white changes nothing";
            remarks.push(Remark::warning(text));
        }
        remarks
    }
}
