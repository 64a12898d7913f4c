//! The folders and the address that are searched for networks.

use std::env;
use std::path::{Path, PathBuf};

/// torchvision's official address.
const OFFICIAL: &str = "https://download.pytorch.org/models";

/// The folders to search and the source of downloads.
#[derive(Debug, Clone)]
pub struct SearchPath {
    /// Folders with `NAME.pt2`, `NAME.pt`, `NAME.onnx`, `NAME.pth` or `NAME.safetensors`, in the order of the search.
    pub folders: Vec<PathBuf>,
    /// Folder in which torchvision caches its official files under their own names.
    pub checkpoints: PathBuf,
    /// Address of the official files, without the file name.
    pub base_url: String,
    /// Whether downloads are forbidden.
    pub offline: bool,
}

impl SearchPath {
    /// The search path of this process: `./models`, `$PRISM_MODELS` (one or more folders),
    /// `models` beside the executable, the user's data folder; then torchvision's cache,
    /// `$TORCH_HOME` or `$XDG_CACHE_HOME/torch` or `~/.cache/torch`. `$PRISM_WEIGHTS_URL`
    /// replaces the official address; `$PRISM_OFFLINE` forbids downloads unless it is 0.
    pub fn from_env() -> Self {
        let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let mut folders = vec![PathBuf::from("./models")];
        if let Some(value) = variable("PRISM_MODELS") {
            folders.extend(env::split_paths(&value).filter(|folder| folder != Path::new("")));
        }
        let executable = env::current_exe().ok();
        let beside = executable.as_deref().and_then(Path::parent);
        folders.extend(beside.map(|folder| folder.join("models")));
        folders.extend(dirs::data_dir().map(|folder| folder.join("prism").join("models")));

        let torch_home = match (variable("TORCH_HOME"), variable("XDG_CACHE_HOME")) {
            (Some(home), _) => expand_home(PathBuf::from(home)),
            (None, Some(cache)) => expand_home(PathBuf::from(cache)).join("torch"),
            (None, None) => expand_home(PathBuf::from("~/.cache/torch")),
        };
        let base_url = env::var("PRISM_WEIGHTS_URL").unwrap_or_default();
        let base_url = base_url.trim().trim_end_matches('/');
        SearchPath {
            folders,
            checkpoints: torch_home.join("hub").join("checkpoints"),
            base_url: if base_url.is_empty() {
                OFFICIAL.to_owned()
            } else {
                base_url.to_owned()
            },
            offline: variable("PRISM_OFFLINE").is_some_and(|value| value != "0"),
        }
    }
}

/// Expands a leading `~` to the user's home, as torch does for these variables.
fn expand_home(path: PathBuf) -> PathBuf {
    match (path.strip_prefix("~"), dirs::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path,
    }
}
