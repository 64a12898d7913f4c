//! What the ranks of a joint run must have in common.

use std::fs::File;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::input::Input;
use crate::joint::Group;
use crate::options::{ComputeOptions, NoticeOptions, Options};
use crate::output::Outputs;
use crate::truth::TruthSource;

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
            bail!("{other} has other contents in a file that the command names than rank 0");
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
            files: files_of(options, input),
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

/// The contents of the files that the options name, and of a file of arrays.
fn files_of(options: &Options, input: &Input) -> String {
    let model = (options.model.model.extension().is_some()).then_some(&options.model.model);
    let truth = match &options.classes.truth {
        Some(TruthSource::Csv(file)) => Some(file),
        _ => None,
    };
    let stored = match input {
        Input::Array { file, .. } => Some(file),
        Input::Files { .. } => None,
    };
    let files = [
        model,
        options.model.weights.as_ref(),
        options.classes.labels.as_ref(),
        options.map.basis.as_ref(),
        truth,
        stored,
    ];
    let mut all = Sha256::new();
    for file in files.into_iter().flatten() {
        // One that is missing is found out later.
        if let Ok(mut file) = File::open(file) {
            let _ = io::copy(&mut file, &mut all);
        }
        all.update([0]);
    }
    format!("{:x}", all.finalize())
}

/// The longest time that a network file system takes to show a file of another host.
const SHOWING: Duration = Duration::from_secs(5);

/// Checks that all ranks write into the same folders.
///
/// # Errors
/// Returns one line that names a folder that this rank does not share with rank 0.
pub fn same_folders(group: &Group, files: &Outputs) -> Result<()> {
    let locks = group.of_first(|| Ok(files.locks()))?;
    let begun = Instant::now();
    while let Some(folder) = files.folder_without(&locks) {
        if begun.elapsed() > SHOWING {
            let (own, folder) = (group.name_of(group.rank()), folder.display());
            bail!(
                "the folder {folder} of {own} is not that of rank 0; results must be in a folder that all ranks see"
            );
        }
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
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
