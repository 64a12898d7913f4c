//! Principal components of the channels of the final excitation.
//!
//! Every pixel of every image is a row of C channels. The components are computed from the
//! smaller Gram matrix of the centred rows, in float64: rows x rows up to C rows, C x C
//! beyond. The eigenvalues of both are the squared singular values of the row matrix.

use anyhow::{Context, Result, ensure};
use ndarray::{Array1, Array2, ArrayD};
use ndarray_linalg::svddc::{JobSvd, SVDDCInto};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::ensure_finite;
use crate::joint::Group;

/// Number of components that become colours: red, green and blue.
pub const COMPONENTS: i64 = 3;

/// Number of components that describe a place for the comparison of places: over all images of a
/// run they follow the cosine of all channels closely.
pub const LEADING: i64 = 32;

/// Eigenvalues below this share of the largest are rounding noise of float32
/// excitations (whose squared relative error is about 1e-14).
const NOISE: f64 = 1e-12;

/// The moments of all rows so far. Accumulators can be merged, so that several machines can share a
/// batch.
#[derive(Debug)]
pub struct PcaAccumulator {
    channels: i64,
    rows: i64,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The rows themselves, `[m,C]` float32 each.
    Rows(Vec<Tensor>),
    /// Their moments.
    Moments(Moments),
}

/// Mean and scatter of rows.
#[derive(Debug)]
struct Moments {
    /// `[C]` float64.
    mean: Tensor,
    /// The scatter about the mean, `[C,C]` float64, on and above the diagonal; values below it
    /// are undefined.
    scatter: Tensor,
}

/// A fitted basis.
#[derive(Debug)]
pub struct Pca {
    /// The first three components.
    pub axes: Axes,
    /// The first 32 components, or as many as there are.
    pub leading: Axes,
    /// Share of the variance of each of the min(rows, C) components, descending.
    pub variance_ratio: Vec<f64>,
}

/// The mean of the channels and the first components.
#[derive(Debug)]
pub struct Axes {
    /// `[C]` float64.
    pub mean: Tensor,
    /// `[k,C]` float64, unit length. Of three components, missing ones are zeros.
    pub components: Tensor,
}

impl PcaAccumulator {
    /// An accumulator for excitations of `channels` channels.
    pub fn new(channels: i64) -> PcaAccumulator {
        PcaAccumulator {
            channels,
            rows: 0,
            state: State::Rows(Vec::new()),
        }
    }

    /// Adds the rows of an excitation `[n,C,h,w]`.
    ///
    /// # Errors
    /// Returns an error if the number of channels differs or a value is not finite.
    pub fn add(&mut self, excitation: &Tensor) -> Result<()> {
        ensure_finite(excitation)?;
        self.add_finite(excitation)
    }

    /// The same for values that are known to be finite, or that are checked later: on a GPU, a
    /// check waits for all that it still computes. If memory is not enough, nothing is added.
    pub(super) fn add_finite(&mut self, excitation: &Tensor) -> Result<()> {
        let rows = excitation.f_permute([0, 2, 3, 1])?.f_flatten(0, 2)?;
        ensure!(
            rows.size()[1] == self.channels,
            "an excitation of {} channels among ones of {}",
            rows.size()[1],
            self.channels
        );
        let added = rows.size()[0];
        match &mut self.state {
            State::Rows(stored) if self.rows + added > self.channels => {
                let stored = stored.iter().chain([&rows]).collect::<Vec<_>>();
                self.state = State::Moments(Moments::of(&Tensor::f_cat(&stored, 0)?)?);
            }
            State::Rows(stored) => stored.push(rows),
            State::Moments(moments) => moments.add(self.rows, &rows, added)?,
        }
        self.rows += added;
        Ok(())
    }

    /// Adds the rows of `other`.
    ///
    /// # Errors
    /// Returns an error if the number of channels differs.
    pub fn merge(&mut self, other: PcaAccumulator) -> Result<()> {
        ensure!(
            self.channels == other.channels,
            "excitations of {} and of {} channels cannot be merged",
            self.channels,
            other.channels
        );
        if other.rows == 0 {
            return Ok(());
        }
        if self.rows == 0 {
            *self = other;
            return Ok(());
        }
        let (before, added) = (self.rows, other.rows);
        self.rows += added;
        match (&mut self.state, other.state) {
            (State::Rows(mine), State::Rows(theirs)) if self.rows <= self.channels => {
                mine.extend(theirs);
            }
            (_, theirs) => {
                let mut moments = self.state.moments()?;
                moments.merge(before, theirs.moments()?, added)?;
                self.state = State::Moments(moments);
            }
        }
        Ok(())
    }

    /// The components of all rows.
    ///
    /// # Errors
    /// Returns an error if there are no rows or LAPACK does not converge.
    pub fn finish(self) -> Result<Pca> {
        self.fit()
    }

    /// The same, of rows that are needed further.
    pub(super) fn fit(&self) -> Result<Pca> {
        ensure!(self.rows > 0, "there is no excitation to analyse");
        let count = self.rows.min(self.channels) as usize;
        let (mean, eigenvalues, components) = match &self.state {
            State::Rows(rows) => {
                let rows = Tensor::f_cat(rows, 0)?.f_to_device(Device::Cpu)?;
                let (mean, centred) = centred(&rows)?;
                // X X^T = U S^2 U^T; the components are V = X^T U / S.
                let (eigenvalues, left) = eigen(centred.matmul(&centred.tr()))?;
                (mean, eigenvalues, left.matmul(&centred))
            }
            State::Moments(_) => {
                let Moments { mean, scatter } = self.state.moments()?.on_cpu()?;
                let (eigenvalues, components) = eigen(scatter)?;
                (mean, eigenvalues, components)
            }
        };
        Ok(Pca::new(mean, components, eigenvalues, self.rows, count))
    }

    /// The rows of all ranks, on rank 0; nothing on the others. Up to C rows they are the rows
    /// themselves, else the moments: the update of Chan, Golub and LeVeque for many parts, whose
    /// scatters are added up.
    pub(super) fn joined(self, group: &Group) -> Result<Option<PcaAccumulator>> {
        if !group.is_joint() {
            return Ok(Some(self));
        }
        let counts = group.share(self.rows)?;
        let rows: i64 = counts.iter().sum();
        let state = match self.state {
            State::Rows(own) if rows <= self.channels => {
                let none = Tensor::zeros([0, self.channels], (Kind::Float, Device::Cpu));
                let own = own.iter().map(|rows| rows.f_to_device(Device::Cpu));
                let own = own.collect::<Result<Vec<_>, _>>()?;
                let own: Vec<Tensor> = [none].into_iter().chain(own).collect();
                State::Rows(group.gather_tensors(&Tensor::f_cat(&own, 0)?)?)
            }
            state => {
                let own = match self.rows {
                    0 => Moments::none(self.channels)?,
                    _ => state.moments()?.on_cpu()?,
                };
                State::Moments(own.joined(&counts, group)?)
            }
        };
        Ok(group.is_first().then_some(PcaAccumulator {
            channels: self.channels,
            rows,
            state,
        }))
    }

    /// The share of the variance of all rows along each component of `axes`.
    ///
    /// # Errors
    /// Returns an error if there are no rows or the number of channels differs.
    pub fn variance_along(&self, axes: &Axes) -> Result<Vec<f64>> {
        ensure!(
            self.rows > 0 && self.channels == axes.channels(),
            "there is no excitation of {} channels to analyse",
            axes.channels()
        );
        let Moments { mean, scatter } = self.state.moments()?.on_cpu()?;
        let scatter = scatter.triu(0) + scatter.triu(1).tr();
        let mut total = scatter.trace().double_value(&[]);
        if is_rounding(total, &mean, self.rows) {
            total = 0.0;
        }
        let along = axes.components.matmul(&scatter) * &axes.components;
        let along = along.sum_dim_intlist(Some([1i64].as_slice()), false, Kind::Double);
        let along = Vec::<f64>::try_from(along)?.into_iter();
        Ok(along.map(|variance| share(variance, total)).collect())
    }
}

impl State {
    /// The moments, which share their tensors with the state.
    fn moments(&self) -> Result<Moments> {
        match self {
            State::Rows(rows) => Moments::of(&Tensor::f_cat(rows, 0)?),
            State::Moments(Moments { mean, scatter }) => Ok(Moments {
                mean: mean.shallow_clone(),
                scatter: scatter.shallow_clone(),
            }),
        }
    }
}

/// Columns of a scatter matrix that are computed together.
const BLOCK: usize = 256;

impl Moments {
    /// Of no rows.
    fn none(channels: i64) -> Result<Moments> {
        let double = (Kind::Double, Device::Cpu);
        Ok(Moments {
            mean: Tensor::f_zeros([channels], double)?,
            scatter: Tensor::f_zeros([channels, channels], double)?,
        })
    }

    fn of(rows: &Tensor) -> Result<Moments> {
        let channels = rows.size()[1];
        let (mean, centred) = centred(rows)?;
        let mut moments = Moments {
            mean,
            scatter: Tensor::f_zeros([channels, channels], (Kind::Double, rows.device()))?,
        };
        moments.add_products(&centred)?;
        Ok(moments)
    }

    /// The moments of the rows of all ranks, which have `counts` each: right on rank 0 alone.
    fn joined(mut self, counts: &[i64], group: &Group) -> Result<Moments> {
        let means = group.gather_tensors(&self.mean)?;
        let total = counts.iter().sum::<i64>() as f64;
        let sent = group.tensors_of_first(|| {
            let weighted = means.iter().zip(counts);
            let weighted = weighted.map(|(mean, &count)| mean * (count as f64 / total));
            Ok(vec![
                weighted.fold(self.mean.zeros_like(), |sum, mean| sum + mean),
            ])
        })?;
        let mean = sent.into_iter().next().context("no mean came")?;
        let own = counts[group.rank()] as f64;
        let shift = self.mean.f_sub(&mean)?.f_mul_scalar(own.sqrt())?;
        self.add_products(&shift.f_unsqueeze(0)?)?;
        group.add_up(&mut self.scatter)?;
        Ok(Moments { mean, ..self })
    }

    fn on_cpu(self) -> Result<Moments> {
        Ok(Moments {
            mean: self.mean.f_to_device(Device::Cpu)?,
            scatter: self.scatter.f_to_device(Device::Cpu)?,
        })
    }

    /// Adds `added` rows to `before` others: the pairwise update of Chan, Golub and LeVeque, with
    /// the term of the means as an additional row.
    fn add(&mut self, before: i64, rows: &Tensor, added: i64) -> Result<()> {
        let (mean, centred) = centred(rows)?;
        let (mean, shift) = self.moved_mean(before, &mean, added)?;
        self.add_products(&Tensor::f_cat(&[centred, shift], 0)?)?;
        self.mean = mean;
        Ok(())
    }

    /// Adds the moments of `added` rows to those of `before` others.
    fn merge(&mut self, before: i64, other: Moments, added: i64) -> Result<()> {
        let (mean, shift) = self.moved_mean(before, &other.mean, added)?;
        self.scatter += other.scatter;
        self.add_products(&shift)?;
        self.mean = mean;
        Ok(())
    }

    /// The mean of all rows, and the row `[1,C]` by which the scatter grows.
    fn moved_mean(&self, before: i64, mean: &Tensor, added: i64) -> Result<(Tensor, Tensor)> {
        let (a, b) = (before as f64, added as f64);
        let delta = mean.f_sub(&self.mean)?;
        let moved = self.mean.f_add(&delta.f_mul_scalar(b / (a + b))?)?;
        let shift = delta.f_mul_scalar((a * b / (a + b)).sqrt())?;
        Ok((moved, shift.f_unsqueeze(0)?))
    }

    /// Adds `rows^T rows` to the upper triangle, block by block: half the work of the whole.
    fn add_products(&mut self, rows: &Tensor) -> Result<()> {
        let channels = rows.size()[1];
        for begin in (0..channels).step_by(BLOCK) {
            let (width, rest) = ((BLOCK as i64).min(channels - begin), channels - begin);
            let columns = rows.narrow(1, begin, width);
            let products = self.scatter.narrow(0, begin, width);
            let mut products = products.narrow(1, begin, rest);
            let _ = products.f_addmm_(&columns.tr(), &rows.narrow(1, begin, rest))?;
        }
        Ok(())
    }
}

/// Whether rows with this mean and this sum of squares about it differ by float32 rounding
/// alone: they count as constant.
fn is_rounding(squares: f64, mean: &Tensor, rows: i64) -> bool {
    let rounding = f64::from(f32::EPSILON) * mean.norm().double_value(&[]);
    squares <= rows as f64 * rounding * rounding
}

/// The mean `[C]` of rows `[m,C]`, and the centred rows, both float64.
fn centred(rows: &Tensor) -> Result<(Tensor, Tensor)> {
    let rows = rows.f_to_kind(Kind::Double)?;
    let mean = rows.f_mean_dim(Some([0i64].as_slice()), false, Kind::Double)?;
    let centred = rows.f_sub(&mean)?;
    Ok((mean, centred))
}

/// The share of `part` in `total`; 0 of nothing.
fn share(part: f64, total: f64) -> f64 {
    if total > 0.0 { part / total } else { 0.0 }
}

impl Pca {
    fn new(
        mean: Tensor,
        components: Tensor,
        mut eigenvalues: Vec<f64>,
        rows: i64,
        count: usize,
    ) -> Pca {
        if is_rounding(eigenvalues.iter().sum(), &mean, rows) {
            eigenvalues.fill(0.0);
        }
        let total: f64 = eigenvalues.iter().sum();
        let largest = eigenvalues.first().copied().unwrap_or(0.0);
        let mut rank = components.size()[0];
        while rank > 0 && eigenvalues[rank as usize - 1] <= largest * NOISE {
            rank -= 1;
        }
        let components = components.narrow(0, 0, rank);
        let length = components.norm_scalaropt_dim(2.0, [1i64].as_slice(), true);
        let leading = components / length;
        let missing = (COMPONENTS - rank).max(0);
        let first = leading.narrow(0, 0, COMPONENTS.min(rank));
        let eigenvalues = eigenvalues.iter().take(count);
        Pca {
            axes: Axes {
                mean: mean.shallow_clone(),
                components: first.constant_pad_nd([0, 0, 0, missing]),
            },
            leading: Axes {
                mean,
                components: leading,
            },
            variance_ratio: eigenvalues.map(|&value| share(value, total)).collect(),
        }
    }
}

impl Axes {
    /// The number of channels.
    pub fn channels(&self) -> i64 {
        self.components.size()[1]
    }

    /// The scores of the k components (`U * S`) of an excitation `[n,C,h,w]`: `[n,k,h,w]` float32.
    pub fn project(&self, excitation: &Tensor) -> Tensor {
        let size = excitation.size();
        let rows = rows_of(excitation).to_kind(Kind::Double) - &self.mean;
        rows.matmul(&self.components.tr())
            .reshape([size[0], size[2], size[3], self.components.size()[0]])
            .permute([0, 3, 1, 2])
            .to_kind(Kind::Float)
            .contiguous()
    }

    /// Flips the components so that their scores are multiplied by `signs` (see [`svd_flip`]).
    pub fn flip_signs(&mut self, signs: &Tensor) {
        self.components = &self.components * signs.to_kind(Kind::Double).reshape([-1, 1]);
    }
}

/// The sign of each component, `[3]` float32, which the decomposition does not determine:
/// multiplied by it, the score of largest magnitude over all images is positive. `scores` are
/// `[N,3,h,w]`.
pub fn svd_flip(scores: &Tensor) -> Tensor {
    let mut extremes = Extremes::default();
    extremes.add(scores);
    extremes.signs()
}

/// The score of largest magnitude of each component, so far; of equal ones the first.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Extremes(Vec<f32>);

impl Extremes {
    /// Adds the scores `[n,3,h,w]` of the next images.
    pub fn add(&mut self, scores: &Tensor) {
        let by_component = scores.permute([1, 0, 2, 3]).flatten(1, -1);
        let place = by_component.abs().argmax(1, true);
        let extremes = by_component.gather(1, &place, false).reshape([-1]);
        let extremes = (0..extremes.size()[0]).map(|k| extremes.double_value(&[k]) as f32);
        self.merge(&extremes.collect::<Vec<_>>());
    }

    /// Those of all parts, in order.
    pub fn merged(parts: &[Extremes]) -> Extremes {
        let mut all = Extremes::default();
        parts.iter().for_each(|part| all.merge(&part.0));
        all
    }

    fn merge(&mut self, later: &[f32]) {
        self.0.resize(self.0.len().max(later.len()), 0.0);
        for (known, &later) in self.0.iter_mut().zip(later) {
            if later.abs() > known.abs() {
                *known = later;
            }
        }
    }

    /// The sign of each component, `[3]` float32: 1 of a component of zeros.
    pub fn signs(&self) -> Tensor {
        let sign = |value: &f32| if *value < 0.0 { -1.0f32 } else { 1.0 };
        Tensor::from_slice(&self.0.iter().map(sign).collect::<Vec<_>>())
    }
}

/// `[n,C,h,w]` -> `[n*h*w, C]`.
pub fn rows_of(excitation: &Tensor) -> Tensor {
    excitation.permute([0, 2, 3, 1]).flatten(0, 2)
}

/// The largest matrix for LAPACK's SVD through ndarray-linalg; larger ones go to libtorch's
/// symmetric eigensolver, which takes half the time at 1280 channels, a quarter at 2048.
const LARGEST_SVD: i64 = 512;

/// Eigenvalues, descending, and the first eigenvectors `[<=32, n]` of a symmetric positive
/// semi-definite matrix `[n,n]`, of which only the part on and above the diagonal is read.
fn eigen(gram: Tensor) -> Result<(Vec<f64>, Tensor)> {
    match gram.size()[0] > LARGEST_SVD {
        true => eigen_of_large(gram),
        false => eigen_of_small(gram),
    }
}

fn eigen_of_large(gram: Tensor) -> Result<(Vec<f64>, Tensor)> {
    let (rising, vectors) = gram
        .f_linalg_eigh("U")
        .context("the principal components did not converge")?;
    let count = LEADING.min(gram.size()[0]);
    let vectors = vectors
        .narrow(1, gram.size()[0] - count, count)
        .flip([1])
        .tr()
        .contiguous();
    // Rounding may make zeros negative.
    let values = Vec::try_from(rising.flip([0]).clamp_min(0.0))?;
    Ok((values, vectors))
}

/// The SVD by LAPACK's divide and conquer (`dgesdd`), which equals the eigendecomposition for a
/// positive semi-definite matrix.
fn eigen_of_small(gram: Tensor) -> Result<(Vec<f64>, Tensor)> {
    let gram = gram.triu(0) + gram.triu(1).tr();
    let gram: ArrayD<f64> = (&gram).try_into().context("reading the Gram matrix")?;
    let gram: Array2<f64> = gram.into_dimensionality()?;
    let (left, values, _): (Option<Array2<f64>>, Array1<f64>, _) = gram
        .svddc_into(JobSvd::Some)
        .context("the principal components did not converge")?;
    let left = left.context("the decomposition returned no vectors")?;
    let count = left.ncols().min(LEADING as usize);
    let vectors = left.slice(ndarray::s![.., ..count]);
    let vectors = Tensor::try_from(vectors.t().as_standard_layout().into_owned())
        .context("reading the components")?;
    Ok((values.to_vec(), vectors))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scatter_of_parts_is_that_of_all_rows() {
        tch::manual_seed(6);
        // More channels than one block has, and means that differ between the parts.
        let rows = Tensor::randn([40, 600], (Kind::Double, tch::Device::Cpu));
        let rows = rows.cumsum(0, Kind::Double) + 20.0;
        let mut moments = Moments::of(&rows.narrow(0, 0, 7)).unwrap();
        moments.add(7, &rows.narrow(0, 7, 13), 13).unwrap();
        let others = Moments::of(&rows.narrow(0, 20, 20)).unwrap();
        moments.merge(20, others, 20).unwrap();
        let all = &rows - rows.mean_dim(Some([0i64].as_slice()), true, Kind::Double);
        let expected = all.tr().matmul(&all);
        let off = (moments.scatter - &expected).triu(0).abs().max();
        let largest = expected.abs().max().double_value(&[]);
        assert!(off.double_value(&[]) < 1e-12 * largest, "{off:?}");
    }

    #[test]
    fn both_decompositions_solve_the_eigenproblem() {
        tch::manual_seed(5);
        let rows = Tensor::randn([40, 60], (Kind::Double, tch::Device::Cpu));
        let gram = rows.tr().matmul(&rows);
        let trace = gram.trace().double_value(&[]);
        for solve in [eigen_of_small, eigen_of_large] {
            // Below the diagonal there is nothing to read.
            let (values, vectors) = solve(gram.triu(0) - gram.tril(-1)).unwrap();
            assert_eq!((values.len(), vectors.size()), (60, vec![32, 60]));
            assert!(values.is_sorted_by(|a, b| a >= b));
            assert!((values.iter().sum::<f64>() - trace).abs() < 1e-9 * trace);
            assert!(values[40..].iter().all(|&v| (0.0..1e-9).contains(&v)));
            for (k, value) in values.iter().take(3).enumerate() {
                let vector = vectors.get(k as i64);
                let off = gram.matmul(&vector) - &vector * *value;
                assert!(off.abs().max().double_value(&[]) < 1e-9 * trace);
                assert!((vector.norm().double_value(&[]) - 1.0).abs() < 1e-9);
            }
        }
    }
}
