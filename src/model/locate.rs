//! Finding the files of a network by its name.

use super::download;
use super::search_path::SearchPath;
use super::zoo::{self, ZooEntry};
use crate::error::{Hint, hinted, usage_hinted};
use crate::names::first_few;
use crate::notices::Notices;
use anyhow::Result;
use std::path::PathBuf;

/// The extensions of files that hold the network itself, the first one first.
const OWN: [&str; 3] = ["pt2", "pt", "onnx"];

/// The files of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Located {
    /// A file with the network itself, of TorchScript, torch.export or ONNX.
    File(PathBuf),
    /// A network of the zoo and the file of its weights.
    StateDict(&'static ZooEntry, PathBuf),
}

/// Finds the network `name` among existing files; `None` if there is no such file. Within a
/// folder a file with the network itself takes precedence over a state dict, one of torch.export over
/// TorchScript, and that over ONNX.
pub fn find(name: &str, search: &SearchPath) -> Option<Located> {
    let entry = zoo::find(name);
    for folder in &search.folders {
        let files = OWN.map(|extension| folder.join(format!("{name}.{extension}")));
        if let Some(file) = files.into_iter().find(|file| file.is_file()) {
            return Some(Located::File(file));
        }
        let Some(entry) = entry else { continue };
        for extension in ["pth", "safetensors"] {
            let weights = folder.join(format!("{name}.{extension}"));
            if weights.is_file() {
                return Some(Located::StateDict(entry, weights));
            }
        }
    }
    let entry = entry?;
    let official = search.checkpoints.join(entry.file?);
    official
        .is_file()
        .then_some(Located::StateDict(entry, official))
}

/// Finds the network `name` (see [`find`]), or downloads the official weights of the zoo's network
/// to torchvision's cache.
///
/// # Errors
/// Returns an error if the zoo does not know the name, or the weights are missing and cannot be
/// downloaded; it says where to put them.
pub fn locate(name: &str, search: &SearchPath, notices: Notices) -> Result<Located> {
    if let Some(found) = find(name, search) {
        return Ok(found);
    }
    let Some(entry) = zoo::find(name) else {
        return Err(unknown(name));
    };
    let Some(file) = entry.file else {
        let folders = search.folders.iter();
        let folders: Vec<String> = folders.map(|folder| folder.display().to_string()).collect();
        let message = format!(
            "no weights of {name}: {name}.pth is in none of {}; put it there (`make weights`)",
            first_few(&folders, 2)
        );
        return Err(hinted(message, Hint::WeightsFile));
    };
    match download::fetch(file, search, download::STALL, notices) {
        Ok(path) => Ok(Located::StateDict(entry, path)),
        Err(error) => {
            let message = format!(
                "no weights of {name}: {error:#}; put it at {}",
                search.checkpoints.join(file).display()
            );
            Err(hinted(message, Hint::OtherWeights))
        }
    }
}

/// Names of networks in a message.
const NAMED: usize = 4;

/// The names of the networks whose files are here: those of the zoo, then others.
fn present(search: &SearchPath) -> Vec<String> {
    let known = zoo::entries().iter().map(|entry| entry.name);
    let known = known.filter(|name| find(name, search).is_some());
    let mut names: Vec<String> = known.map(String::from).collect();
    for folder in &search.folders {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let files = entries.map(|entry| entry.path());
        let own = files.filter(|file| {
            let extension = file.extension().and_then(|extension| extension.to_str());
            extension.is_some_and(|extension| OWN.contains(&extension))
        });
        let stems = own.filter_map(|file| Some(file.file_stem()?.to_str()?.to_string()));
        let mut stems: Vec<String> = stems.filter(|name| !names.contains(name)).collect();
        stems.sort();
        stems.dedup();
        names.extend(stems);
    }
    names
}

/// The error if nobody chose a network and the default one is not here: it names those that are.
pub(super) fn unchosen(default: &str, search: &SearchPath) -> anyhow::Error {
    let bytes = zoo::find(default).map_or(0, |entry| 4 * entry.parameters);
    let missing = format!(
        "no network was chosen, and the weights of {default}, the default, are not here ({} MB)",
        bytes / 1_000_000
    );
    let message = match present(search).as_slice() {
        [] => format!("{missing}, nor is any other network"),
        here => format!("{missing}; here are {}", first_few(here, NAMED)),
    };
    let hint = match search.offline {
        true => Hint::AnyNetwork,
        false => Hint::OtherNetwork,
    };
    usage_hinted(message, hint)
}

/// The error for a name that is not in the zoo.
pub(super) fn unknown(name: &str) -> anyhow::Error {
    let path =
        "a file needs a path separator or the extension .pt2, .pt, .onnx, .pth or .torchscript";
    let near = zoo::nearest(name).join(", ");
    let message = match near.as_str() {
        "" => format!("unknown network '{name}'; {path}"),
        near => format!("unknown network '{name}': did you mean {near}? {path}"),
    };
    hinted(message, Hint::ListModels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tempfile::TempDir;

    fn search(root: &TempDir) -> SearchPath {
        let folders = ["first", "second"].map(|name| root.path().join(name));
        for folder in &folders {
            fs::create_dir(folder).unwrap();
        }
        let checkpoints = root.path().join("hub").join("checkpoints");
        fs::create_dir_all(&checkpoints).unwrap();
        SearchPath {
            folders: folders.to_vec(),
            checkpoints,
            base_url: "http://127.0.0.1:9".to_owned(),
            offline: true,
        }
    }

    #[test]
    fn the_search_goes_folder_by_folder_and_then_to_torchvisions_cache() {
        let root = TempDir::new().unwrap();
        let search = search(&root);
        let vgg16 = zoo::find("vgg16").unwrap();
        assert_eq!(find("vgg16", &search), None);

        // Each new file takes precedence over the earlier ones.
        let official = search.checkpoints.join("vgg16-397923af.pth");
        for (path, script) in [
            (official, false),
            (search.folders[1].join("vgg16.safetensors"), false),
            (search.folders[1].join("vgg16.pth"), false),
            (search.folders[1].join("vgg16.pt"), true),
            (search.folders[1].join("vgg16.pt2"), true),
            (search.folders[0].join("vgg16.pth"), false),
            (search.folders[0].join("vgg16.pt"), true),
            (search.folders[0].join("vgg16.pt2"), true),
        ] {
            fs::write(&path, "weights").unwrap();
            let expected = if script {
                Located::File(path)
            } else {
                Located::StateDict(vgg16, path)
            };
            assert_eq!(find("vgg16", &search), Some(expected));
        }
    }

    #[test]
    fn a_file_with_a_network_may_have_any_name_but_a_state_dict_needs_a_zoo_network() {
        let root = TempDir::new().unwrap();
        let search = search(&root);
        let own = search.folders[1].join("my_net.pt");
        fs::write(search.folders[0].join("my_net.pth"), "weights").unwrap();
        assert_eq!(find("my_net", &search), None);
        fs::create_dir(search.folders[0].join("my_net.pt")).unwrap();
        fs::write(&own, "script").unwrap();
        assert_eq!(find("my_net", &search), Some(Located::File(own)));
    }

    #[test]
    fn lite_weights_are_not_downloaded() {
        let root = TempDir::new().unwrap();
        let search = SearchPath {
            offline: false,
            ..search(&root)
        };
        let error = locate("efficientnet_lite2", &search, Notices::Quiet).unwrap_err();
        let line = format!("{error:#}");
        assert!(line.contains("efficientnet_lite2.pth"), "{line}");
        assert!(
            line.contains(&search.folders[1].display().to_string()),
            "{line}"
        );
    }
}
