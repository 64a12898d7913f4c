//! What the ranks of a joint run must have in common.

use std::fs::File;
use std::io;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::input::Input;
use crate::joint::Group;
use crate::options::{ComputeOptions, NoticeOptions, Options};

/// What all ranks must have in common, as texts that can be compared.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Card {
    version: String,
    options: String,
    images: usize,
    list: String,
    files: String,
}

/// Returns an error unless all ranks have the same version, options, images and files of the network.
///
/// # Errors
/// Returns one line that names a rank that differs from rank 0, and in what.
pub fn agree(group: &Group, options: &Options, input: &Input) -> Result<()> {
    if !group.is_joint() {
        return Ok(());
    }
    let cards = group.share(Card::of(options, input)?)?;
    let first = &cards[0];
    for (rank, card) in cards.iter().enumerate() {
        let other = group.name_of(rank);
        if card.version != first.version {
            bail!(
                "{other} is prism {}, and rank 0 is prism {}",
                card.version,
                first.version
            );
        }
        if card.options != first.options {
            bail!("{other} has other options than rank 0; start all ranks with the same command");
        }
        if card.images != first.images {
            bail!(
                "{other} finds {} images, and rank 0 finds {}; all ranks need the same files",
                card.images,
                first.images
            );
        }
        if card.list != first.list {
            bail!("{other} finds other images than rank 0; all ranks need the same files");
        }
        if card.files != first.files {
            bail!("{other} has another file of the network or of the options than rank 0");
        }
    }
    Ok(())
}

impl Card {
    fn of(options: &Options, input: &Input) -> Result<Card> {
        let mut list = Sha256::new();
        for path in input.paths() {
            list.update(path.as_os_str().as_encoded_bytes());
            list.update([0]);
        }
        Ok(Card {
            version: env!("CARGO_PKG_VERSION").to_string(),
            options: format!("{:?}", comparable(options)),
            images: input.len(),
            list: format!("{:x}", list.finalize()),
            files: files_of(options)?,
        })
    }
}

/// The options without those that may differ between machines.
fn comparable(options: &Options) -> Options {
    let ComputeOptions {
        batch_size,
        precision,
        seed,
        joint,
        ..
    } = options.compute.clone();
    let mut options = options.clone();
    options.compute = ComputeOptions {
        batch_size,
        precision,
        seed,
        joint,
        ..ComputeOptions::default()
    };
    options.notices = NoticeOptions {
        quiet: false,
        verbose: false,
    };
    options.output.command = String::new(); // with the name of the program, and its threads
    options
}

/// The contents of the files that the options name.
fn files_of(options: &Options) -> Result<String> {
    let model = (options.model.model.extension().is_some()).then_some(&options.model.model);
    let files = [
        model,
        options.model.weights.as_ref(),
        options.classes.labels.as_ref(),
        options.map.basis.as_ref(),
    ];
    let mut all = Sha256::new();
    for file in files.into_iter().flatten() {
        // One that is missing is found out later.
        if let Ok(mut file) = File::open(file) {
            let _ = io::copy(&mut file, &mut all);
        }
        all.update([0]);
    }
    Ok(format!("{:x}", all.finalize()))
}

/// Does `work` on rank 0, and then on the others.
///
/// # Errors
/// Returns the errors of `work`, or one if a rank is lost.
pub fn in_turn<T>(group: &Group, mut work: impl FnMut() -> Result<T>) -> Result<T> {
    if group.is_first() {
        let done = work()?;
        group.barrier()?;
        return Ok(done);
    }
    group.barrier()?;
    work()
}
