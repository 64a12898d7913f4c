//! The basis of a run in a file, so that colours mean the same in a later one.

use std::collections::HashMap;
use std::path::Path;

use ::safetensors::SafeTensors;
use ::safetensors::tensor::{Dtype, TensorView};
use anyhow::{Context, Result, anyhow, bail, ensure};
use tch::{Kind, Tensor};

use crate::map::{Axes, Basis, COMPONENTS, Norm};

/// The most bytes that a basis can have: channels beyond this are no network's.
const LARGEST: u64 = 64 << 20;

/// What a basis belongs to: it is of no use to a run that differs in one of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BasisOf {
    /// The network's name.
    pub network: String,
    /// The layer whose channels are analysed.
    pub layer: String,
    /// Their number.
    pub channels: i64,
    /// How the features are brought up: `none`, `product` or `regression`.
    pub extrapolation: String,
    /// Which colours are kept: `every`, or of the quantised ones `common`, `unique`
    /// or `all`.
    pub colours: String,
}

impl BasisOf {
    fn fields(&self) -> [(&'static str, &str); 4] {
        [
            ("network", &self.network),
            ("layer", &self.layer),
            ("extrapolation", &self.extrapolation),
            ("colours", &self.colours),
        ]
    }
}

/// The bytes of a `.safetensors` file: `mean` `[C]`, `components` `[3,C]`,
/// `feature_range`, `shown_range` and `map_range` `[4]` (mean, standard deviation, smallest and largest
/// standardised value after the cut), all float64, and what they belong to as metadata.
///
/// # Errors
/// Where libtorch or the format refuses them.
pub fn write_basis(basis: &Basis, of: &BasisOf) -> Result<Vec<u8>> {
    let floats = |tensor: &Tensor| -> Result<Vec<f64>> {
        Ok(Vec::try_from(
            tensor.to_kind(Kind::Double).contiguous().view([-1]),
        )?)
    };
    let channels = basis.axes.channels() as usize;
    let arrays = [
        ("mean", vec![channels], floats(&basis.axes.mean)?),
        (
            "components",
            vec![COMPONENTS as usize, channels],
            floats(&basis.axes.components)?,
        ),
        ("feature_range", vec![4], basis.features.values().to_vec()),
        ("shown_range", vec![4], basis.shown.values().to_vec()),
        ("map_range", vec![4], basis.maps.values().to_vec()),
    ]
    .map(|(name, shape, values)| {
        let bytes: Vec<u8> = values.into_iter().flat_map(f64::to_le_bytes).collect();
        (name, shape, bytes)
    });
    let views = arrays
        .iter()
        .map(|(name, shape, bytes)| {
            let view = TensorView::new(Dtype::F64, shape.clone(), bytes)?;
            Ok((name.to_string(), view))
        })
        .collect::<Result<Vec<_>>>()?;
    let about: HashMap<String, String> = of
        .fields()
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .into();
    Ok(::safetensors::serialize(views, Some(about))?)
}

/// Reads what [`write_basis`] has written, for a run of `of`.
///
/// # Errors
/// One line that names the file: it is missing, damaged, no basis, or one of another
/// network, layer or kind of map.
pub fn read_basis(path: &Path, of: &BasisOf) -> Result<Basis> {
    read(path, of).map_err(|error| anyhow!("{}: {error:#}", path.display()))
}

fn read(path: &Path, of: &BasisOf) -> Result<Basis> {
    let size = std::fs::metadata(path)
        .context("the basis cannot be read")?
        .len();
    ensure!(size <= LARGEST, "a file of {size} bytes is no basis");
    let bytes = std::fs::read(path).context("the basis cannot be read")?;
    let no_basis = "it is no basis that --save-basis has written";
    let (_, header) = SafeTensors::read_metadata(&bytes)
        .map_err(|error| anyhow!("{no_basis}, or damaged ({error})"))?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|error| anyhow!("{no_basis}, or damaged ({error})"))?;
    let about = header.metadata().clone().unwrap_or_default();
    for (key, wanted) in of.fields() {
        match about.get(key) {
            Some(found) if found == wanted => {}
            Some(found) => {
                bail!("this basis has the {key} '{found}', but this run has '{wanted}'")
            }
            None => bail!("{no_basis}: it does not say its {key}"),
        }
    }
    let array = |name: &str, shape: &[usize]| -> Result<Vec<f64>> {
        let view = file
            .tensor(name)
            .map_err(|_| anyhow!("{no_basis}: it holds no '{name}'"))?;
        ensure!(
            view.dtype() == Dtype::F64 && view.shape() == shape,
            "{no_basis}: its '{name}' is {:?} of {:?}, not {shape:?} of F64",
            view.shape(),
            view.dtype()
        );
        let values: Vec<f64> = view
            .data()
            .chunks_exact(size_of::<f64>())
            .map(|bytes| f64::from_le_bytes(bytes.try_into().unwrap_or_default()))
            .collect();
        ensure!(
            values.iter().all(|value| value.is_finite()),
            "{no_basis}: its '{name}' is not finite"
        );
        Ok(values)
    };
    let channels = file
        .tensor("mean")
        .ok()
        .and_then(|view| view.shape().first().copied())
        .unwrap_or(0);
    ensure!(channels > 0, "{no_basis}: it holds no 'mean'");
    ensure!(
        channels as i64 == of.channels,
        "this basis has {channels} channels, but the layer '{}' has {}",
        of.layer,
        of.channels
    );
    let components = array("components", &[COMPONENTS as usize, channels])?;
    let range = |name: &str| -> Result<Norm> {
        let values = array(name, &[4])?;
        let range = <[f64; 4]>::try_from(values)
            .ok()
            .and_then(Norm::from_values);
        range.with_context(|| format!("{no_basis}: its '{name}' is no range"))
    };
    Ok(Basis {
        axes: Axes {
            mean: Tensor::from_slice(&array("mean", &[channels])?),
            components: Tensor::from_slice(&components).reshape([COMPONENTS, channels as i64]),
        },
        features: range("feature_range")?,
        shown: range("shown_range")?,
        maps: range("map_range")?,
    })
}
