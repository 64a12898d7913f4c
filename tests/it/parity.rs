//! Agreement with TorchPRISM's own arrays for five networks, and with the
//! independent implementation in tests/reference for the other five that
//! TorchPRISM knows, through the binary; saliency likewise. It needs the seeded weights of
//! full-size networks: `make parity REFERENCE=FOLDER`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::Npz;
use prism::Size;
use prism::hooks::{Hooks, SaliencyHook};
use prism::model::{ComputeOptions, ModelOptions, Network, Notices};
use prism::saliency::Method;
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
        .args(["--quiet", "--model", network, "--input"])
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

/// The flags of each mode, and whether its colours are quantised.
const MODES: [(&str, &[&str], bool); 4] = [
    ("maps", &[], false),
    ("maps_inclusive", &["--inclusive"], true),
    ("maps_exclusive", &["--exclusive"], true),
    ("maps_both", &["--inclusive", "--exclusive"], true),
];

/// Share of the pixels of a quantised map that may be off (a colour on the
/// border of two); at feature resolution one pixel may.
const PIXELS_OFF: f64 = 0.005;

/// Worst and mean absolute difference, and the number of pixels of a map in
/// which a channel is off. NaN in the reference means 'constant', for which we
/// have zeros.
fn differences(ours: &Tensor, theirs: &Tensor) -> (f64, f64, f64) {
    assert_eq!(ours.size(), theirs.size());
    let difference = (ours - theirs.nan_to_num(0.0, None, None)).abs();
    let off = if difference.dim() == 4 {
        difference
            .amax([1i64].as_slice(), false)
            .gt(WORST)
            .sum(Kind::Double)
            .double_value(&[])
    } else {
        0.0
    };
    (
        difference.max().double_value(&[]),
        difference.mean(Kind::Double).double_value(&[]),
        off,
    )
}

/// At the final excitation of the auto rule, each image's own top class. The
/// contrast of vgg16 is a difference of two numbers 2500 times its size: float64
/// itself is 5.9e-4 away from the stored array.
#[test]
#[ignore = "needs the reference arrays and their weights: make parity REFERENCE=FOLDER"]
fn the_saliency_is_the_references() {
    let reference = PathBuf::from(std::env::var_os("PRISM_REFERENCE").expect("PRISM_REFERENCE"));
    let expected = Npz::open(reference.join("saliency.npz"));
    let folder = tempfile::tempdir().unwrap();
    println!("{:<20} {:>8} {:>8}", "array", "worst", "mean");
    for (network, method, array) in [
        ("vgg16", "gradcam", "gradcam_vgg16"),
        ("resnet18", "gradcam", "gradcam_resnet18"),
        ("vgg16", "exct-backp", "cebp_vgg16"),
    ] {
        let flags = ["--saliency", method];
        let ours = run(network, &reference, folder.path(), &flags).tensor("saliency");
        let theirs = expected.tensor(array);
        let scale = theirs.abs().max().double_value(&[]);
        let (worst, mean, _) = differences(&ours, &theirs);
        println!("{array:<20} {:>8.1e} {:>8.1e}", worst / scale, mean / scale);
        assert!(worst <= RELATIVE * scale, "{array}");
    }
}

/// The first pass alone, which only the library offers.
#[test]
#[ignore = "needs the reference arrays and their weights: make parity REFERENCE=FOLDER"]
fn the_first_pass_of_vgg16_is_the_references() {
    let reference = PathBuf::from(std::env::var_os("PRISM_REFERENCE").expect("PRISM_REFERENCE"));
    let theirs = Npz::open(reference.join("saliency.npz")).tensor("ebp_vgg16");
    let options = ModelOptions {
        offline: true,
        ..ModelOptions::default()
    };
    let hooks = Hooks {
        saliency: Some(SaliencyHook {
            method: Method::ExcitationBackprop,
            layer: None,
        }),
        ..Hooks::default()
    };
    let compute = ComputeOptions::default();
    let network = Network::load(&options, &compute, Notices::Quiet).unwrap();
    let model = network.hook(Size::new(224, 224), &hooks).unwrap();
    let input = Npz::open(reference.join("vgg16.npz")).tensor("input");
    let ours = model.forward(&input).unwrap().saliency.unwrap();
    let scale = theirs.abs().max().double_value(&[]);
    let (worst, mean, _) = differences(&ours, &theirs);
    println!("ebp_vgg16 {:.1e} {:.1e}", worst / scale, mean / scale);
    assert!(worst <= RELATIVE * scale);
    let sums = ours.sum_dim_intlist([1i64, 2, 3].as_slice(), false, Kind::Double);
    for sum in Vec::<f64>::try_from(sums).unwrap() {
        assert!((sum - 1.0).abs() < 1e-3, "{sum}");
    }
}

#[test]
#[ignore = "needs the reference arrays and their weights: make parity REFERENCE=FOLDER"]
fn the_maps_are_torchprisms() {
    let variable = |name| PathBuf::from(std::env::var_os(name).expect(name));
    let sources = [
        (variable("PRISM_REFERENCE"), STORED),
        (variable("PRISM_PARITY"), COMPUTED),
    ];
    let networks = sources
        .iter()
        .flat_map(|(reference, networks)| networks.map(|network| (reference, network)));
    let folder = tempfile::tempdir().unwrap();
    println!(
        "{:<14} {:<20} {:>8} {:>8} {:>10}",
        "network", "array", "worst", "mean", "pixels off"
    );
    let mut wrong = Vec::new();
    for (reference, network) in networks {
        let expected = Npz::open(reference.join(format!("{network}.npz")));
        let mut report =
            |array: &str, (worst, mean, off): (f64, f64, f64), good: bool, pixels: f64| {
                let share = if pixels > 0.0 {
                    format!("{:.3} %", 100.0 * off / pixels)
                } else {
                    "-".to_string()
                };
                println!("{network:<14} {array:<20} {worst:>8.1e} {mean:>8.1e} {share:>10}");
                if !good {
                    wrong.push(format!("{network} {array}"));
                }
            };
        for (mode, flags, quantised) in MODES {
            for extrapolate in [true, false] {
                let mut flags = [&["--hooks", "torchprism"], flags].concat();
                if !extrapolate {
                    flags.push("--no-gradual-extrapolation");
                }
                let name = match (mode, extrapolate) {
                    ("maps", true) => "maps_default".to_string(),
                    (mode, true) => mode.to_string(),
                    (mode, false) => format!("{mode}_no_ge"),
                };
                let ours = run(network, reference, folder.path(), &flags);
                if name == "maps_default" {
                    for array in ["logits", "variance_ratio"] {
                        let theirs = expected.tensor(array);
                        let scale = theirs.abs().max().double_value(&[]);
                        let (worst, mean, _) = differences(&ours.tensor(array), &theirs);
                        let relative = (worst / scale, mean / scale, 0.0);
                        report(array, relative, relative.0 <= RELATIVE, 0.0);
                    }
                }
                let (ours, theirs) = (ours.tensor("maps"), expected.tensor(&name));
                let size = ours.size();
                let pixels = (size[0] * size[2] * size[3]) as f64;
                let found = differences(&ours, &theirs);
                let good = match (quantised, extrapolate) {
                    (false, _) => found.0 <= WORST && found.1 <= MEAN,
                    (true, true) => found.2 <= PIXELS_OFF * pixels,
                    (true, false) => found.2 <= 1.0,
                };
                report(&name, found, good, pixels);
            }
        }
    }
    assert!(wrong.is_empty(), "beyond the tolerance: {wrong:?}");
}
