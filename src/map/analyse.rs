//! From what was collected to maps: whatever depends on all images.
//!
//! In a joint run each rank has a part of the images. What depends on all of them is merged in the
//! order of the ranks, and rank 0 alone decomposes, so that all have the same bits.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::bilateral::Bilateral;
use super::components::{self, Components};
use super::correlation::{self, rank_correlation};
use super::groups::{self, Assigned, Grouping};
use super::normalise::{Norm, NormAccumulator};
use super::pca::{Axes, COMPONENTS, Extremes, Pca, PcaAccumulator};
use super::quantise::{ColourSet, colours, quantise};
use super::sample::Sample;
use super::{Basis, Collector, Maps, NOT_FINITE, Numbers, chunks};
use crate::hooks::Upsampling;
use crate::joint::Group;
use crate::size::Size;
use crate::spool::Sequence;

/// Makes the maps of what was collected, with the components and ranges of `basis`, if given.
///
/// # Errors
/// Returns an error if no rank has an image, the decomposition fails, the basis has other channels,
/// or a rank is lost.
pub fn analyse(mut collected: Collector, group: &Group, basis: Option<Basis>) -> Result<Maps> {
    let options = collected.options;
    let numbers = Numbers::of(group, collected.excitation.len())?;
    ensure!(numbers.all > 0, "there is no excitation to analyse");
    fill_in(&mut collected, group)?;

    let is_given = basis.is_some();
    let pca = collected.pca.take();
    let channels = collected.excitation.shape()[0];
    let pca = pca.unwrap_or_else(|| PcaAccumulator::new(channels));
    let fitted = fit(pca, basis, options.groups || options.components, group)?;
    let Fitted {
        mut basis,
        variance_ratio,
        leading,
    } = fitted;
    let Scores {
        scores,
        extremes,
        sample,
        mut groups,
        kept,
    } = scores(&basis.axes, leading.as_ref(), &collected, numbers, group)?;

    let shape = scores.shape();
    let feature_size = Size::new(shape[1], shape[2]);
    let signs = match is_given {
        true => Tensor::ones([COMPONENTS], (Kind::Float, Device::Cpu)),
        false => extremes.signs(),
    };
    let components = leading
        .zip(kept)
        .map(|(axes, scores)| Components::new(axes, scores, (!is_given).then_some(&signs)));
    if !is_given {
        basis.axes.flip_signs(&signs);
    }
    let saliency = Saliency::of(collected.saliency.as_ref(), group)?;
    let mut maps = Maps {
        variance_ratio,
        colour_correlation: None,
        groups: None,
        components,
        basis,
        numbers,
        largest_saliency: saliency.map(|saliency| saliency.largest),
        unsalient: saliency.map_or(0, |saliency| saliency.none),
        scores,
        signs: signs.reshape([1, -1, 1, 1]),
        logits: collected.logits,
        saliency: collected.saliency,
        shared: ColourSet::ALL,
        any: ColourSet::NONE,
        bilateral: match options.upsampling {
            Upsampling::Bilateral => {
                let guides = collected.guides.iter().map(|guide| guide.shape());
                let sizes = guides.map(|shape| Size::new(shape[1], shape[2]));
                Bilateral::new(feature_size, sizes, options.size)
            }
            _ => None,
        },
        guides: collected.guides,
        guided: collected.guided,
        options,
    };
    if !is_given {
        maps.basis.features = norm(&maps, group, |images| maps.features(images))?;
    }
    if options.keep.is_some() {
        (maps.shared, maps.any) = colour_sets(&maps, groups.as_mut(), group)?;
    }
    maps.colour_correlation = sample.correlation(&maps, group)?;
    maps.groups = groups.map(Assigned::finish).transpose()?;
    if !is_given {
        maps.basis.maps = match options.normalises_last() {
            true => norm(&maps, group, |images| maps.upsampled(images))?,
            false => maps.basis.features,
        };
    }
    ensure!(maps.basis.maps.is_finite(), NOT_FINITE);
    Ok(maps)
}

/// Shapes of what the images of a run have.
#[derive(Debug, Serialize, Deserialize)]
struct Shapes {
    excitation: Vec<i64>,
    logits: Vec<i64>,
    guides: Vec<Vec<i64>>,
    saliency: Option<Vec<i64>>,
}

/// Gives a rank without images the shapes that the others have.
fn fill_in(collected: &mut Collector, group: &Group) -> Result<()> {
    if !group.is_joint() {
        return Ok(());
    }
    let shape = |sequence: &Sequence| sequence.shape().to_vec();
    let own = (collected.excitation.len() > 0).then(|| Shapes {
        excitation: shape(&collected.excitation),
        logits: shape(&collected.logits),
        guides: collected.guides.iter().map(shape).collect(),
        saliency: collected.saliency.as_ref().map(shape),
    });
    let all = group.share(own)?;
    let known = all.into_iter().flatten().next();
    let known = known.context("there is no excitation to analyse")?;
    if collected.excitation.len() == 0 {
        let empty = |shape| Sequence::empty(shape, Kind::Float);
        collected.excitation = empty(known.excitation);
        collected.logits = empty(known.logits);
        collected.guides = known.guides.into_iter().map(empty).collect();
        collected.saliency = known.saliency.map(empty);
    }
    Ok(())
}

/// The components of all images.
struct Fitted {
    basis: Basis,
    variance_ratio: Vec<f64>,
    /// The leading components, if they are needed.
    leading: Option<Axes>,
}

/// Fits the components to the rows of all ranks, or takes those of `basis`.
fn fit(
    pca: PcaAccumulator,
    basis: Option<Basis>,
    needs_leading: bool,
    group: &Group,
) -> Result<Fitted> {
    let all = pca.joined(group)?;
    let all = || all.as_ref().context("rank 0 has the rows of all");
    if let Some(basis) = basis {
        let variance_ratio = group.of_first(|| all()?.variance_along(&basis.axes))?;
        let leading = match needs_leading {
            true => Some(axes_of(group, || Ok(all()?.fit()?.leading))?),
            false => None,
        };
        return Ok(Fitted {
            basis,
            variance_ratio,
            leading,
        });
    }
    let fitted: Option<Pca> = match group.is_first() {
        true => Some(all()?.fit()?),
        false => None,
    };
    let (axes, leading, ratio) = match fitted {
        Some(pca) => (Some(pca.axes), Some(pca.leading), pca.variance_ratio),
        None => (None, None, Vec::new()),
    };
    let known = |axes: Option<Axes>| axes.context("rank 0 fits the components");
    Ok(Fitted {
        basis: Basis::without_ranges(axes_of(group, || known(axes))?),
        variance_ratio: group.of_first(|| Ok(ratio))?,
        leading: match needs_leading {
            true => Some(axes_of(group, || known(leading))?),
            false => None,
        },
    })
}

/// The axes that rank 0 computes.
fn axes_of(group: &Group, compute: impl FnOnce() -> Result<Axes>) -> Result<Axes> {
    let sent = group.tensors_of_first(|| {
        let Axes { mean, components } = compute()?;
        Ok(vec![mean, components])
    })?;
    let [mean, components] =
        <[Tensor; 2]>::try_from(sent).map_err(|_| anyhow::anyhow!("rank 0 sent no components"))?;
    Ok(Axes { mean, components })
}

/// What the excitations of all images are along the components.
struct Scores {
    /// The first three components, `[N,3,h,w]` float32.
    scores: Sequence,
    extremes: Extremes,
    sample: Compared,
    /// Groups of places, if they are asked for.
    groups: Option<Assigned>,
    /// The leading components, `[N,d,h,w]` float32, if they are asked for and there are any.
    kept: Option<components::Stored>,
}

/// Some places with all their channels, to compare the colours with.
struct Compared {
    sample: Sample,
    /// `[places,C]` float64 of this rank, less the mean.
    channels: Vec<Tensor>,
    /// `[places,3]` float32 of this rank.
    scores: Vec<Tensor>,
}

impl Compared {
    /// How well the colours keep the order of similarity of all channels.
    fn correlation(self, maps: &Maps, group: &Group) -> Result<Option<f64>> {
        let none = |columns, kind| Tensor::zeros([0, columns], (kind, Device::Cpu));
        let count = maps.basis.axes.channels();
        let joined = |parts: Vec<Tensor>, none: Tensor| -> Result<Tensor> {
            let parts: Vec<Tensor> = [none].into_iter().chain(parts).collect();
            Ok(Tensor::f_cat(&parts, 0)?)
        };
        let channels = joined(self.channels, none(count, Kind::Double))?;
        let scores = joined(self.scores, none(COMPONENTS, Kind::Float))?;
        let (channels, scores) = (
            group.gather_tensors(&channels)?,
            group.gather_tensors(&scores)?,
        );
        group.of_first(|| {
            let scores = Tensor::f_cat(&scores, 0)?.reshape([-1, COMPONENTS, 1, 1]) * &maps.signs;
            let colours = maps.basis.features.apply(&scores);
            let colours = match maps.options.keep {
                Some(_) => quantise(&colours),
                None => colours,
            };
            rank_correlation(&Tensor::f_cat(&channels, 0)?, &colours.flatten(1, 3))
        })
    }
}

/// The scores of all excitations along `axes`, and what is asked for along `leading`.
fn scores(
    axes: &Axes,
    leading: Option<&Axes>,
    collected: &Collector,
    numbers: Numbers,
    group: &Group,
) -> Result<Scores> {
    let Collector {
        options,
        spool,
        excitation,
        ..
    } = collected;
    let shape = excitation.shape();
    let cells = numbers.all * (shape[1] * shape[2]) as usize;
    let mut compared = Compared {
        sample: Sample::new(cells, correlation::PLACES),
        channels: Vec::new(),
        scores: Vec::new(),
    };
    let to_group = Sample::new(cells, groups::PLACES);
    let mut for_groups = Vec::new();
    let mut scores = Sequence::in_blocks();
    let mut extremes = Extremes::default();
    for images in chunks(excitation.len()) {
        let first = numbers.first + images.start;
        let excitation = excitation.get(images)?;
        let own = axes.project(&excitation);
        if let Some((rows, places)) =
            (compared.sample.of(first, &excitation)?).zip(compared.sample.of(first, &own)?)
        {
            let rows = rows.to_kind(Kind::Double) - &axes.mean;
            compared.channels.push(rows);
            compared.scores.push(places);
        }
        if let Some(leading) = leading.filter(|_| options.groups)
            && let Some(rows) = to_group.of(first, &excitation)?
        {
            let rows = rows.to_kind(Kind::Double) - &leading.mean;
            for_groups.push(rows.matmul(&leading.components.tr()));
        }
        extremes.add(&own);
        scores.push(spool, &own)?;
    }
    if scores.len() == 0 {
        scores = Sequence::empty(vec![COMPONENTS, shape[1], shape[2]], Kind::Float);
    }
    let mut result = Scores {
        scores,
        extremes: Extremes::merged(&group.share(extremes)?),
        sample: compared,
        groups: None,
        kept: None,
    };
    let Some(leading) = leading else {
        return Ok(result);
    };
    let mut grouping = match options.groups {
        true => Some(grouping(for_groups, leading, shape[0], group)?),
        false => None,
    };
    let mut kept = components::Stored::default();
    let keeps = options.components && leading.components.size()[0] > 0;
    for images in chunks(excitation.len()) {
        let excitation = excitation.get(images)?;
        let components = leading.project(&excitation);
        if let Some(grouping) = &mut grouping {
            grouping.add(spool, &components, &excitation)?;
        }
        if keeps {
            kept.add(spool, leading, &components, &excitation)?;
        }
    }
    if let Some(mut grouping) = grouping {
        group.add_up(&mut grouping.sums)?;
        group.add_up(&mut grouping.counts)?;
        let sums = || {
            Ok(vec![
                grouping.sums.shallow_clone(),
                grouping.counts.shallow_clone(),
            ])
        };
        let mut sums = group.tensors_of_first(sums)?;
        (grouping.counts, grouping.sums) = sums.pop().zip(sums.pop()).context("no sums came")?;
        result.groups = Some(grouping.assigned()?);
    }
    result.kept = keeps.then_some(kept);
    Ok(result)
}

/// Centres for the groups of all places, from those of a sample.
fn grouping(rows: Vec<Tensor>, leading: &Axes, channels: i64, group: &Group) -> Result<Grouping> {
    let count = leading.components.size()[0];
    let none = Tensor::zeros([0, count], (Kind::Double, Device::Cpu));
    let rows: Vec<Tensor> = [none].into_iter().chain(rows).collect();
    let rows = group.gather_tensors(&Tensor::f_cat(&rows, 0)?)?;
    let centres =
        group.tensors_of_first(|| Ok(vec![groups::k_means(&Tensor::f_cat(&rows, 0)?)?]))?;
    let centres = centres.into_iter().next().context("no centres came")?;
    Grouping::new(centres, channels)
}

/// The norm of what `values` gives of all images.
fn norm(
    maps: &Maps,
    group: &Group,
    values: impl Fn(std::ops::Range<usize>) -> Result<Tensor>,
) -> Result<Norm> {
    let mut norm = NormAccumulator::default();
    for images in maps.chunks() {
        norm.add(&values(images)?);
    }
    let mut all = NormAccumulator::default();
    for bits in group.share(norm.bits())? {
        all.merge(NormAccumulator::from_bits(bits));
    }
    Ok(all.finish())
}

/// The quantised colours that all images have, and that any of them has. Counts those of each group.
fn colour_sets(
    maps: &Maps,
    mut groups: Option<&mut Assigned>,
    group: &Group,
) -> Result<(ColourSet, ColourSet)> {
    let (mut shared, mut any) = (ColourSet::ALL, ColourSet::NONE);
    for images in maps.chunks() {
        let quantised = maps.quantised(images.clone())?;
        let sets = colours(&quantised)?;
        shared = shared.intersection(ColourSet::shared(&sets));
        any = any.union(ColourSet::any(&sets));
        if let Some(groups) = &mut groups {
            groups.count(images, &super::quantise::codes(&quantised))?;
        }
    }
    if let Some(groups) = groups {
        let mut counts = groups.counts.shallow_clone();
        group.add_up(&mut counts)?;
        let sent = group.tensors_of_first(|| Ok(vec![counts]))?;
        groups.counts = sent.into_iter().next().context("no counts came")?;
    }
    let sets = group.share((shared, any))?;
    let (shared, any): (Vec<_>, Vec<_>) = sets.into_iter().unzip();
    Ok((ColourSet::shared(&shared), ColourSet::any(&any)))
}

/// What the saliencies of all images have in common.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Saliency {
    largest: f64,
    /// Images whose saliency is zero everywhere.
    none: usize,
}

impl Saliency {
    fn of(saliency: Option<&Sequence>, group: &Group) -> Result<Option<Saliency>> {
        let Some(saliency) = saliency else {
            return Ok(None);
        };
        let (mut largest, mut none) = (0.0, 0);
        for images in chunks(saliency.len()) {
            let count = images.len();
            let of_each = saliency.get(images)?.amax([1i64, 2, 3].as_slice(), false);
            largest = of_each.max().double_value(&[]).max(largest);
            none += count - of_each.count_nonzero(0).int64_value(&[]) as usize;
        }
        let all = group.share(Saliency { largest, none })?;
        Ok(Some(Saliency {
            largest: all.iter().map(|each| each.largest).fold(0.0, f64::max),
            none: all.iter().map(|each| each.none).sum(),
        }))
    }
}
