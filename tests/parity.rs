//! Agreement with TorchPRISM's own arrays for five networks, and with the
//! independent implementation in tests/reference for the other five that
//! TorchPRISM knows, through the binary. It needs the seeded weights of
//! full-size networks: `make parity REFERENCE=FOLDER`.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::Npz;
use tch::{Kind, Tensor};

/// Networks whose arrays lie in $PRISM_REFERENCE.
const STORED: [&str; 5] = ["vgg16", "alexnet", "resnet18", "squeezenet1_0", "googlenet"];
/// Networks whose arrays `make_parity.py` has put into $PRISM_PARITY.
const COMPUTED: [&str; 5] = ["vgg11", "vgg19", "resnet50", "resnet101", "mobilenet_v2"];

/// Of the reference's largest magnitude, for scores and variances.
const RELATIVE: f64 = 1e-3;
/// Of a map: everywhere, and in the mean.
const WORST: f64 = 1e-3;
const MEAN: f64 = 1e-4;

fn run(network: &str, reference: &Path, folder: &Path, flags: &[&str]) -> Npz {
    let arrays = folder.join(format!("{network}.npz"));
    let status = Command::new(env!("CARGO_BIN_EXE_prism"))
        .args([
            "--quiet",
            "--hooks",
            "torchprism",
            "--model",
            network,
            "--input",
        ])
        .arg(reference.join(format!("{network}.npz")))
        .arg("--output-dir")
        .arg(folder)
        .arg("--save-arrays")
        .arg(&arrays)
        .args(flags)
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "{network} {flags:?}");
    Npz::open(arrays)
}

/// Worst and mean absolute difference; NaN in the reference means 'constant',
/// for which we have zeros.
fn differences(ours: &Tensor, theirs: &Tensor) -> (f64, f64) {
    assert_eq!(ours.size(), theirs.size());
    let difference = (ours - theirs.nan_to_num(0.0, None, None)).abs();
    (
        difference.max().double_value(&[]),
        difference.mean(Kind::Double).double_value(&[]),
    )
}

#[test]
#[ignore = "needs the reference arrays and their weights: make parity REFERENCE=FOLDER"]
fn the_maps_are_torchprisms() {
    let variable = |name| PathBuf::from(std::env::var_os(name).expect(name));
    let sources = [
        (variable("PRISM_REFERENCE"), STORED),
        (variable("PRISM_PARITY"), COMPUTED),
    ];
    let folder = tempfile::tempdir().unwrap();
    println!(
        "{:<14} {:<15} {:>9} {:>9}",
        "network", "array", "worst", "mean"
    );
    let mut off = Vec::new();
    let networks = sources
        .iter()
        .flat_map(|(reference, networks)| networks.map(|network| (reference, network)));
    for (reference, network) in networks {
        let expected = Npz::open(reference.join(format!("{network}.npz")));
        let mut compare = |array: &str, ours: &Tensor, relative: bool| {
            let theirs = expected.tensor(array);
            let (worst, mean) = differences(ours, &theirs);
            let (worst_allowed, mean_allowed) = if relative {
                let scale = theirs.abs().max().double_value(&[]);
                (RELATIVE * scale, RELATIVE * scale)
            } else {
                (WORST, MEAN)
            };
            println!("{network:<14} {array:<15} {worst:>9.1e} {mean:>9.1e}");
            if worst > worst_allowed || mean > mean_allowed {
                off.push(format!("{network} {array}"));
            }
        };
        let ours = run(network, reference, folder.path(), &[]);
        compare("logits", &ours.tensor("logits"), true);
        compare("variance_ratio", &ours.tensor("variance_ratio"), true);
        compare("maps_default", &ours.tensor("maps"), false);
        let flat = run(
            network,
            reference,
            folder.path(),
            &["--no-gradual-extrapolation"],
        );
        compare("maps_no_ge", &flat.tensor("maps"), false);
    }
    assert!(off.is_empty(), "beyond the tolerance: {off:?}");
}
