//! Which activation is analysed, and where it lies on the image: networks with heads of many kinds,
//! compared with PyTorch (tests/reference/make_heads.py).

use crate::common::{Npz, data, largest_difference};
use prism::Size;
use prism::hooks::{HookedModel, Hooks, NetworkGraph, SaliencyHook, Upsampling};
use prism::saliency::Method;
use tch::Device;

const SIDE: i64 = 48;

fn hook(name: &str, hooks: &Hooks) -> anyhow::Result<HookedModel> {
    let file = data("heads").join(format!("{name}.pt"));
    let network = NetworkGraph::load(&file, Device::Cpu)?;
    HookedModel::new(&network, Size::new(SIDE, SIDE), hooks)
}

fn expected() -> Npz {
    Npz::open(data("heads/expected.npz"))
}

/// A network, and what its one remark says; empty if there is none.
const HEADS: &[(&str, &str)] = &[
    ("pooled_in_two_steps", ""),
    ("mixed_between_two_steps", ""),
    ("log_sum_exp", ""),
    ("generalised_mean", ""),
    ("attention_by_bmm", ""),
    ("attention_by_einsum", ""),
    ("attention_by_sigmoid", ""),
    ("class_attention", ""),
    ("soft_assignment", ""),
    ("spatial_pyramid", ""),
    ("attention_over_tokens", ""),
    ("soft_pool", ""),
    ("centred_covariance", ""),
    ("query_of_attention", ""),
    ("recurrent_over_pixels", ""),
    ("several_attention_maps", ""),
    (
        "cropped_features",
        "rows 8 to 40 and columns 8 to 40 of 48x48 pixels",
    ),
    ("transposed", ""),
    ("channels_last", ""),
    ("pixels_in_a_row", ""),
    ("gated_channels", ""),
    (
        "two_bodies",
        "from 2 last activations: body.5, other_body.3",
    ),
    ("mirrored", ""),
    ("upside_down_by_index", ""),
    ("turned", ""),
    ("mirrored_as_well", "(mirrored or cropped); 'body.5.relu_1'"),
    (
        "cropped",
        "rows 8 to 40 and columns 16 to 48 of 48x48 pixels",
    ),
    ("blue_first", ""),
    ("selu", ""),
];

#[test]
fn the_activation_that_the_head_reads_is_analysed_upright() {
    let expected = expected();
    let images = expected.tensor("input");
    for (name, said) in HEADS {
        let model = hook(name, &Hooks::default()).unwrap();
        let seen = model.forward(&images).unwrap();
        let wanted = expected.tensor(name);
        assert_eq!(seen.excitation.size(), wanted.size(), "{name}");
        let difference = largest_difference(&seen.excitation, &wanted);
        assert!(difference < 1e-5, "{name}: {difference}");
        let (channels, height, width) = (wanted.size()[1], wanted.size()[2], wanted.size()[3]);
        let layers = model.layers();
        let layer = layers
            .iter()
            .find(|layer| layer.name == model.excitation_name());
        assert_eq!(layer.unwrap().shape, (channels, height, width), "{name}");
        match (model.remarks().as_slice(), *said) {
            ([], "") => {}
            ([remark], said) if !said.is_empty() && remark.text.contains(said) => {}
            (remarks, _) => panic!("{name}: {remarks:?}"),
        }
    }
}

#[test]
fn guides_and_saliency_lie_on_the_image_as_well() {
    let expected = expected();
    let images = expected.tensor("input");
    let hooks = Hooks {
        saliency: Some(SaliencyHook {
            method: Method::GradCam,
            layer: None,
        }),
        ..Hooks::default()
    };
    for name in ["mirrored", "turned", "channels_last", "pixels_in_a_row"] {
        let seen = hook(name, &hooks).unwrap().forward(&images).unwrap();
        let wanted = expected.tensor(&format!("{name}_grad_cam"));
        let difference = largest_difference(&seen.saliency.unwrap(), &wanted);
        assert!(difference < 1e-6, "{name}: {difference}");
    }
    for name in ["mirrored", "turned"] {
        let seen = hook(name, &Hooks::default())
            .unwrap()
            .forward(&images)
            .unwrap();
        let wanted = expected.tensor(&format!("{name}_guide"));
        let difference = largest_difference(&seen.guides[0], &wanted);
        assert!(difference < 1e-5, "{name}: {difference}");
    }
}

#[test]
fn a_crop_is_shown_alone() {
    let model = hook("cropped", &Hooks::default()).unwrap();
    let region = model.region();
    assert_eq!(
        (region.rows.clone(), region.columns.clone()),
        (8..40, 16..48)
    );
    assert_eq!(region.size(), Size::new(32, 32));
}

#[test]
fn what_has_no_place_on_the_image_is_said_or_refused() {
    for name in ["sampled", "halves_exchanged"] {
        let remarks = hook(name, &Hooks::default()).unwrap().remarks();
        let [remark] = remarks.as_slice() else {
            panic!("{name}: {remarks:?}");
        };
        let said = "may not lie on the picture";
        assert!(remark.is_warning && remark.text.contains(said), "{name}");
    }
    let error = hook("stacked_in_the_batch", &Hooks::default()).unwrap_err();
    assert!(
        format!("{error:#}").contains("2 pictures of each image"),
        "{error:#}"
    );
}

/// The product of guides assumes that they are not negative, which SELU does not ensure.
#[test]
fn guides_that_can_be_negative_are_not_multiplied() {
    let model = hook("selu", &Hooks::default()).unwrap();
    assert_eq!(model.upsampling(), Upsampling::Bilateral);
}
