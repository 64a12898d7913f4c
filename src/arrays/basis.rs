//! The basis of a run in a file, so that colours mean the same in a later run.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use ::safetensors::SafeTensors;
use ::safetensors::tensor::{Dtype, TensorView};
use anyhow::{Context, Result, anyhow, ensure};
use tch::{Kind, Tensor};

use crate::error::{Hint, hinted};
use crate::map::{Axes, Basis, COMPONENTS, Norm};

/// The largest file, in bytes: no network has more channels than it could hold.
const LARGEST: u64 = 64 << 20;

/// The run that a basis belongs to. A run that differs in a field cannot use the basis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BasisOf {
    /// The network's name.
    pub network: String,
    /// The layer whose channels are analysed.
    pub layer: String,
    /// The number of its channels.
    pub channels: i64,
    /// How the features are upsampled: `product`, `bilateral`, `bilinear` or `none`.
    pub upsampling: String,
    /// Which colours are selected: `every`, or of the quantised colours `common`, `unique` or `all`.
    pub colours: String,
    /// What is stretched to [0, 1] last: the `features`, or the `maps` after upsampling.
    pub norm: String,
}

impl BasisOf {
    fn fields(&self) -> [(&'static str, &str); 5] {
        [
            ("network", &self.network),
            ("layer", &self.layer),
            ("upsampling", &self.upsampling),
            ("colours", &self.colours),
            ("norm", &self.norm),
        ]
    }
}

/// The bytes of a `.safetensors` file with the float64 arrays `mean` `[C]`, `components` `[3,C]`,
/// `feature_range` and `map_range` `[4]` (mean, standard deviation, smallest and
/// largest standardised value after the cut). The metadata name the run.
///
/// # Errors
/// Returns an error if libtorch or the format refuses the arrays.
pub fn write_basis(basis: &Basis, of: &BasisOf) -> Result<Vec<u8>> {
    let floats = |tensor: &Tensor| {
        Vec::<f64>::try_from(tensor.to_kind(Kind::Double).contiguous().view([-1]))
    };
    let Axes { mean, components } = &basis.axes;
    let channels = basis.axes.channels() as usize;
    let shape = vec![COMPONENTS as usize, channels];
    let arrays = [
        ("mean", vec![channels], floats(mean)?),
        ("components", shape, floats(components)?),
        ("feature_range", vec![4], basis.features.values().to_vec()),
        ("map_range", vec![4], basis.maps.values().to_vec()),
    ];
    let arrays = arrays.map(|(name, shape, values)| {
        let bytes: Vec<u8> = values.into_iter().flat_map(f64::to_le_bytes).collect();
        (name, shape, bytes)
    });
    let views = arrays.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F64, shape.clone(), bytes)?;
        Ok((name.to_string(), view))
    });
    let about: HashMap<String, String> = of
        .fields()
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .into();
    let views = views.collect::<Result<Vec<_>>>()?;
    Ok(::safetensors::serialize(views, Some(about))?)
}

/// Reads a file of [`write_basis`] for a run of `of`.
///
/// # Errors
/// Returns one line that names the file if it is missing, damaged, no basis, or the basis of
/// another network, layer or kind of map.
pub fn read_basis(path: &Path, of: &BasisOf) -> Result<Basis> {
    read(path, of).with_context(|| path.display().to_string())
}

fn read(path: &Path, of: &BasisOf) -> Result<Basis> {
    let size = fs::metadata(path)
        .context("the basis cannot be read")?
        .len();
    ensure!(size <= LARGEST, "a file of {size} bytes is no basis");
    let bytes = fs::read(path).context("the basis cannot be read")?;
    let (found, basis) = parse(&bytes).map_err(|reason| {
        let message = format!("it is no basis, or damaged: {reason:#}");
        hinted(message, Hint::BasisFile)
    })?;
    for ((key, found), (_, wanted)) in found.fields().into_iter().zip(of.fields()) {
        ensure!(
            found == wanted,
            "this basis has the {key} '{found}', but this run has '{wanted}'"
        );
    }
    ensure!(
        found.channels == of.channels,
        "this basis has {} channels, but the layer '{}' has {}",
        found.channels,
        of.layer,
        of.channels
    );
    Ok(basis)
}

fn parse(bytes: &[u8]) -> Result<(BasisOf, Basis)> {
    let (_, header) = SafeTensors::read_metadata(bytes)?;
    let file = SafeTensors::deserialize(bytes)?;
    let metadata = header.metadata().clone().unwrap_or_default();
    let field = |key: &str| {
        let value = metadata.get(key).cloned();
        value.with_context(|| format!("its {key} is missing"))
    };
    let tensor = |name: &str| {
        let found = file.tensor(name);
        found.map_err(|_| anyhow!("its array '{name}' is missing"))
    };
    let array = |name: &str, shape: &[usize]| -> Result<Vec<f64>> {
        let view = tensor(name)?;
        ensure!(
            view.dtype() == Dtype::F64 && view.shape() == shape,
            "its '{name}' is {:?} of {:?}, not {shape:?} of F64",
            view.shape(),
            view.dtype()
        );
        let numbers = view.data().as_chunks().0.iter();
        let values: Vec<f64> = numbers.map(|&bytes| f64::from_le_bytes(bytes)).collect();
        ensure!(
            values.iter().all(|value| value.is_finite()),
            "its '{name}' is not finite"
        );
        Ok(values)
    };
    let range = |name: &str| -> Result<Norm> {
        let range = <[f64; 4]>::try_from(array(name, &[4])?).ok();
        let norm = range.and_then(Norm::from_values);
        norm.with_context(|| format!("its '{name}' is no range"))
    };
    let of = BasisOf {
        network: field("network")?,
        layer: field("layer")?,
        upsampling: field("upsampling")?,
        colours: field("colours")?,
        norm: field("norm")?,
        channels: tensor("mean")?.shape().first().map_or(0, |&n| n as i64),
    };
    ensure!(of.channels > 0, "its 'mean' is empty");
    let channels = of.channels as usize;
    let mean = array("mean", &[channels])?;
    let components = array("components", &[COMPONENTS as usize, channels])?;
    let basis = Basis {
        axes: Axes {
            mean: Tensor::from_slice(&mean),
            components: Tensor::from_slice(&components).reshape([COMPONENTS, of.channels]),
        },
        features: range("feature_range")?,
        maps: range("map_range")?,
    };
    Ok((of, basis))
}
