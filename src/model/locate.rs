//! Where the network of a name lies.

use super::download::{self, Progress};
use super::search_path::SearchPath;
use super::zoo::{self, ZooEntry};
use anyhow::{Result, anyhow, bail};
use std::path::PathBuf;

/// What a name leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Located {
    /// A TorchScript file.
    TorchScript(PathBuf),
    /// A network of the zoo and the file of its weights.
    StateDict(&'static ZooEntry, PathBuf),
}

/// The network `name` among the files that are there; `None` if there is none.
/// In each folder a TorchScript file goes before a state dict.
pub fn find(name: &str, search: &SearchPath) -> Option<Located> {
    let entry = zoo::find(name);
    for folder in &search.folders {
        let script = folder.join(format!("{name}.pt"));
        if script.is_file() {
            return Some(Located::TorchScript(script));
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

/// The network `name`: a file that is there (see [`find`]), else the zoo network's official weights,
/// downloaded to where torchvision would keep them.
///
/// # Errors
/// A name that the zoo does not know, and weights that are neither there nor to be had: what
/// to put where, and what can be used instead.
pub fn locate(name: &str, search: &SearchPath, progress: &mut dyn Progress) -> Result<Located> {
    if let Some(found) = find(name, search) {
        return Ok(found);
    }
    let Some(entry) = zoo::find(name) else {
        bail!("{}", unknown(name));
    };
    let Some(file) = entry.file else {
        let folders: Vec<String> = search
            .folders
            .iter()
            .map(|folder| folder.display().to_string())
            .collect();
        bail!(
            "no weights of {name}: {name}.pth is in none of {}; put it there (make weights does), \
             or give it with --weights FILE",
            folders.join(", ")
        );
    };
    download::fetch(file, search, progress)
        .map(|path| Located::StateDict(entry, path))
        .map_err(|e| {
            anyhow!(
                "no weights of {name}: {e:#}; put {} at {}, or use --model efficientnet_lite0, \
                 --weights FILE, or --model FILE.pt (TorchScript)",
                download::address(file, search),
                search.checkpoints.join(file).display()
            )
        })
}

pub(super) fn unknown(name: &str) -> String {
    let hint = "a file needs a path separator or the extension .pt, .pth or .torchscript";
    let near = zoo::nearest(name);
    if near.is_empty() {
        let names: Vec<&str> = zoo::entries().iter().map(|entry| entry.name).collect();
        return format!(
            "unknown network '{name}': the zoo has {}; {hint}",
            names.join(", ")
        );
    }
    format!(
        "unknown network '{name}': did you mean {}? {hint}",
        near.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::download::Silent;
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

        // Each file that is added goes before those that were there.
        let official = search.checkpoints.join("vgg16-397923af.pth");
        for (path, script) in [
            (official, false),
            (search.folders[1].join("vgg16.safetensors"), false),
            (search.folders[1].join("vgg16.pth"), false),
            (search.folders[1].join("vgg16.pt"), true),
            (search.folders[0].join("vgg16.pth"), false),
            (search.folders[0].join("vgg16.pt"), true),
        ] {
            fs::write(&path, "weights").unwrap();
            let expected = if script {
                Located::TorchScript(path)
            } else {
                Located::StateDict(vgg16, path)
            };
            assert_eq!(find("vgg16", &search), Some(expected));
        }
    }

    #[test]
    fn a_torchscript_file_may_have_any_name_but_a_state_dict_needs_a_zoo_network() {
        let root = TempDir::new().unwrap();
        let search = search(&root);
        let own = search.folders[1].join("my_net.pt");
        fs::write(search.folders[0].join("my_net.pth"), "weights").unwrap();
        assert_eq!(find("my_net", &search), None);
        fs::create_dir(search.folders[0].join("my_net.pt")).unwrap();
        fs::write(&own, "script").unwrap();
        assert_eq!(find("my_net", &search), Some(Located::TorchScript(own)));
    }

    #[test]
    fn offline_the_error_says_what_to_put_where() {
        let root = TempDir::new().unwrap();
        let search = search(&root);
        let error = locate("vgg16", &search, &mut Silent).unwrap_err();
        let line = format!("{error:#}");
        let place = search.checkpoints.join("vgg16-397923af.pth");
        for part in [
            "vgg16",
            "--offline",
            "http://127.0.0.1:9/vgg16-397923af.pth",
            &place.display().to_string(),
            "efficientnet_lite0",
            "--weights",
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
        assert_eq!(line.lines().count(), 1);
    }

    #[test]
    fn lite_weights_are_not_downloaded() {
        let root = TempDir::new().unwrap();
        let search = SearchPath {
            offline: false,
            ..search(&root)
        };
        let error = locate("efficientnet_lite2", &search, &mut Silent).unwrap_err();
        let line = format!("{error:#}");
        assert!(line.contains("efficientnet_lite2.pth"), "{line}");
        assert!(
            line.contains(&search.folders[1].display().to_string()),
            "{line}"
        );
    }

    #[test]
    fn an_unknown_name_gets_its_neighbours() {
        let root = TempDir::new().unwrap();
        let error = locate("resnet51", &search(&root), &mut Silent).unwrap_err();
        let line = format!("{error:#}");
        assert!(line.contains("resnet50") && line.contains(".pt"), "{line}");
        // Not a usage error: the status is 1.
        assert!(error.downcast_ref::<crate::error::Usage>().is_none());
    }
}
