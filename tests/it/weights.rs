//! Files of weights: every container is read to the same tensors, every damaged one is one line
//! of error. `tests/reference/make_state_dicts.py` wrote the files with PyTorch.

use prism::model::weights::{StateDict, is_torchscript, load, network};
use prism::model::zoo;
use std::fs;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor, nn};
use tempfile::TempDir;

fn data(name: &str) -> PathBuf {
    crate::common::data("state_dicts").join(name)
}

fn values(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor.flatten(0, -1)).unwrap()
}

fn assert_is_the_layer(path: &Path) {
    let mut state = StateDict::open(path).unwrap();
    let names = ["fc.weight", "fc.bias"].map(String::from);
    let remark = state.select_names("a layer", &names, "fc").unwrap();
    assert_eq!(remark, None, "{path:?}");
    let state = state.read().unwrap();
    let find = |wanted: &str| {
        let found = state.iter().find(|(name, _)| name == wanted);
        &found.unwrap_or_else(|| panic!("{path:?} lacks {wanted}")).1
    };
    let weight = find("fc.weight");
    assert_eq!(weight.kind(), Kind::Float, "{path:?}");
    assert_eq!(weight.size(), [2, 3], "{path:?}");
    assert_eq!(values(weight), [-1.0, -0.5, 0.0, -0.75, -0.25, 0.25]);
    assert_eq!(find("fc.bias").kind(), Kind::Float, "{path:?}");
    assert_eq!(values(find("fc.bias")), [0.5, -2.0], "{path:?}");
    let others = state.iter().filter(|(name, _)| !name.starts_with("fc."));
    let others: Vec<&str> = others.map(|(name, _)| name.as_str()).collect();
    assert!(
        others.is_empty() || others == ["bn.num_batches_tracked"],
        "{path:?}: {others:?}"
    );
}

fn read_state_dict(path: &Path) -> anyhow::Result<Vec<(String, Tensor)>> {
    StateDict::open(path)?.read()
}

/// The one line of error, which names the file.
fn complaint(path: &Path) -> String {
    let line = format!("{:#}", read_state_dict(path).unwrap_err());
    assert!(line.starts_with(&path.display().to_string()), "{line}");
    assert_eq!(line.lines().count(), 1, "{line}");
    line
}

#[test]
fn every_container_and_wrapping_gives_the_same_tensors() {
    for name in [
        "new.pth",
        "old.pth",
        "half_double.pth",
        "bfloat16.pth",
        "checkpoint.pth",
        "checkpoint_model.pth",
        "module.pth",
        "weights.safetensors",
    ] {
        assert_is_the_layer(&data(name));
    }
}

#[test]
fn libtorchs_own_format_is_read() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("weights.ot");
    let state = read_state_dict(&data("new.pth")).unwrap();
    Tensor::save_multi(&state, &path).unwrap();
    assert_is_the_layer(&path);
}

#[test]
fn files_that_are_not_state_dicts_are_refused() {
    assert!(complaint(&data("list.pth")).contains("not a state dict"));
    assert!(complaint(&data("no_tensors.pth")).contains("not a state dict"));
    let line = complaint(&data("torchscript.pth"));
    assert!(line.contains("is a TorchScript archive"), "{line}");
    assert!(is_torchscript(&data("torchscript.pth")));
    assert!(!is_torchscript(&data("new.pth")));
    assert!(!is_torchscript(&data("old.pth")));

    let folder = TempDir::new().unwrap();
    assert!(complaint(&folder.path().join("none.pth")).contains("cannot be read"));
    assert!(complaint(folder.path()).contains("folder"));
    for extension in ["pth", "safetensors", "ot"] {
        let path = folder.path().join(format!("bad.{extension}"));
        fs::write(&path, "").unwrap();
        assert!(complaint(&path).contains("empty"));
        fs::write(&path, "<html>this is a page and no weights</html>").unwrap();
        complaint(&path);
        fs::write(&path, [255; 64]).unwrap();
        complaint(&path);
    }
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let folder = TempDir::new().unwrap();
    for name in ["new.pth", "old.pth", "weights.safetensors"] {
        let whole = fs::read(data(name)).unwrap();
        let path = folder.path().join(name);
        for part in 1..16 {
            fs::write(&path, &whole[..whole.len() * part / 16]).unwrap();
            complaint(&path);
        }
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        complaint(&path);
    }
}

/// The variables of squeezenet1_1 for three classes, as a state dict.
fn squeezenet() -> Vec<(String, Tensor)> {
    let vs = nn::VarStore::new(Device::Cpu);
    zoo::find("squeezenet1_1").unwrap().build(&vs.root(), 3);
    vs.variables().into_iter().collect()
}

fn load_squeezenet(state: Vec<(String, Tensor)>) -> Result<nn::VarStore, String> {
    let entry = zoo::find("squeezenet1_1").unwrap();
    let vs = nn::VarStore::new(Device::Cpu);
    entry.build(&vs.root(), 3);
    load(&vs, entry, state, Path::new("squeeze.pth")).map_err(|e| format!("{e:#}"))?;
    Ok(vs)
}

#[test]
fn weights_of_another_number_of_classes_fit() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("squeeze.safetensors");
    let mut state = squeezenet();
    // As torchvision's googlenet and inception_v3 have them; and what every batch-norm counts.
    state.push((
        "aux1.fc1.weight".into(),
        Tensor::zeros([2], (Kind::Float, Device::Cpu)),
    ));
    state.push((
        "AuxLogits.fc.bias".into(),
        Tensor::zeros([2], (Kind::Float, Device::Cpu)),
    ));
    state.push(("bn.num_batches_tracked".into(), Tensor::from(5_i64)));
    Tensor::write_safetensors(&state, &path).unwrap();
    let entry = zoo::find("squeezenet1_1").unwrap();
    let opened = StateDict::open(&path).unwrap();
    assert_eq!(opened.classes(entry), Some(3));
    assert_eq!(opened.classes(zoo::find("resnet18").unwrap()), None);

    let _guard = tch::no_grad_guard();
    let (vs, module, remark) = network(entry, &path, Device::Cpu, |module| module).unwrap();
    assert_eq!(remark, None);
    let loaded = vs.variables();
    for (name, tensor) in state.iter().filter(|(name, _)| loaded.contains_key(name)) {
        assert_eq!(loaded[name], *tensor, "{name}");
        assert!(!loaded[name].requires_grad(), "{name}");
    }
    assert_eq!(loaded.len() + 3, state.len());
    // The module sees what was loaded.
    let image = Tensor::ones([2, 3, 64, 80], (Kind::Float, Device::Cpu));
    let reference = nn::VarStore::new(Device::Cpu);
    let twin = entry.build(&reference.root(), 3);
    for (name, mut variable) in reference.variables() {
        variable.copy_(&loaded[&name]);
    }
    let scores = module.forward_t(&image, false);
    assert_eq!(scores.size(), [2, 3]);
    assert_eq!(scores, twin.forward_t(&image, false));
}

#[test]
fn missing_surplus_and_misshapen_tensors_are_named() {
    assert!(load_squeezenet(squeezenet()).is_ok());
    type Change = fn(&mut Vec<(String, Tensor)>);
    for (change, part, absent) in [
        (
            (|state| state.retain(|(name, _)| name != "features.0.bias")) as Change,
            "missing features.0.bias",
            "surplus",
        ),
        (|state| state.truncate(4), " more", "surplus"),
        (
            |state| state.push(("conv9.weight".into(), Tensor::from(1.0))),
            "surplus conv9.weight",
            "missing",
        ),
        (
            |state| {
                let bias = state.iter_mut().find(|(name, _)| name == "features.0.bias");
                bias.unwrap().1 = Tensor::zeros([63], (Kind::Float, Device::Cpu));
            },
            "features.0.bias is [63] instead of [64]",
            "missing",
        ),
    ] {
        let mut state = squeezenet();
        change(&mut state);
        let line = load_squeezenet(state).unwrap_err();
        for part in ["squeeze.pth", "squeezenet1_1", part] {
            assert!(line.contains(part), "{part} in {line}");
        }
        assert!(!line.contains(absent), "{line}");
        assert_eq!(line.lines().count(), 1, "{line}");
    }
}

#[test]
fn old_densenet_names_are_understood() {
    let entry = zoo::find("densenet121").unwrap();
    let vs = nn::VarStore::new(Device::Cpu);
    entry.build(&vs.root(), 2);
    let mut renamed = 0;
    let state = vs.variables().into_iter().map(|(name, tensor)| {
        // As the official file has them; norm0 and norm5 outside of the dense layers stay.
        let mut old = name.clone();
        if name.contains("denselayer") {
            for part in ["norm1", "norm2", "conv1", "conv2"] {
                old = old.replace(part, &format!("{}.{}", &part[..4], &part[4..]));
            }
            renamed += 1;
        }
        (old, tensor)
    });
    let state: Vec<_> = state.collect();
    assert_eq!(renamed, 58 * 10);
    let fresh = nn::VarStore::new(Device::Cpu);
    entry.build(&fresh.root(), 2);
    load(&fresh, entry, state, Path::new("densenet.pth")).unwrap();
}
