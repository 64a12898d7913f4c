//! Principal components of the channels of the final excitation.
//!
//! Every pixel of every image is one row of C channels. The components come
//! from the smaller Gram matrix of the centred rows, in float64: rows x rows
//! while there are no more rows than channels, C x C after that. Both have the
//! squared singular values of the row matrix as eigenvalues.

use anyhow::{Context, Result, bail, ensure};
use ndarray::{Array1, Array2, ArrayD};
use ndarray_linalg::svddc::{JobSvd, SVDDCInto};
use tch::{Kind, Tensor};

use super::ensure_finite;

/// Components that become colours: red, green and blue.
pub const COMPONENTS: i64 = 3;

/// Eigenvalues below this share of the largest are rounding noise of float32
/// excitations (whose squared relative error is about 1e-14).
const NOISE: f64 = 1e-12;

/// What the rows seen so far amount to; adds and merges, so that a batch can be
/// streamed or shared.
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
    /// The scatter about the mean, `[C,C]` float64, on and above the diagonal (below it,
    /// numbers without a meaning).
    scatter: Tensor,
}

/// A fitted basis.
#[derive(Debug)]
pub struct Pca {
    /// The directions that become colours.
    pub axes: Axes,
    /// Share of the variance of each of the min(rows, C) components, falling.
    pub variance_ratio: Vec<f64>,
}

/// The mean of the channels and the directions from it that become colours.
#[derive(Debug)]
pub struct Axes {
    /// `[C]` float64.
    pub mean: Tensor,
    /// `[3,C]` float64, unit length; zeros where there are fewer components.
    pub components: Tensor,
}

impl PcaAccumulator {
    /// For excitations of `channels` channels.
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
    /// Where its channels differ from those before, or a value is not finite.
    pub fn add(&mut self, excitation: &Tensor) -> Result<()> {
        let rows = rows_of(excitation);
        ensure!(
            rows.size()[1] == self.channels,
            "an excitation of {} channels among ones of {}",
            rows.size()[1],
            self.channels
        );
        ensure_finite(&rows)?;
        self.rows += rows.size()[0];
        match &mut self.state {
            State::Rows(kept) => {
                kept.push(rows);
                if self.rows > self.channels {
                    self.turn_into_moments();
                }
            }
            State::Moments(moments) => {
                let added = rows.size()[0];
                moments.add(self.rows - added, &rows, added);
            }
        }
        Ok(())
    }

    /// Adds everything that `other` has seen.
    ///
    /// # Errors
    /// Where the channels differ.
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
                self.turn_into_moments();
                if let State::Moments(moments) = &mut self.state {
                    moments.merge(before, theirs.into_moments(), added);
                }
            }
        }
        Ok(())
    }

    fn turn_into_moments(&mut self) {
        let state = std::mem::replace(&mut self.state, State::Rows(Vec::new()));
        self.state = State::Moments(state.into_moments());
    }

    /// The components of all rows.
    ///
    /// # Errors
    /// Where no row was added, or LAPACK does not converge.
    pub fn finish(self) -> Result<Pca> {
        if self.rows == 0 {
            bail!("there is no excitation to analyse");
        }
        let count = self.rows.min(self.channels) as usize;
        match self.state {
            State::Rows(rows) => {
                let (mean, centred) = centred(&Tensor::cat(&rows, 0));
                // X X^T = U S^2 U^T, and the components are V = X^T U / S.
                let (eigenvalues, left) = eigen(centred.matmul(&centred.tr()))?;
                let components = left.matmul(&centred);
                Pca::new(mean, components, eigenvalues, self.rows, count)
            }
            State::Moments(Moments { mean, scatter }) => {
                let (eigenvalues, components) = eigen(scatter)?;
                Pca::new(mean, components, eigenvalues, self.rows, count)
            }
        }
    }

    /// The share of the variance of all rows that lies along each of some
    /// components, of unit length and at right angles.
    ///
    /// # Errors
    /// Where no row was added, or the channels are others.
    pub fn variance_along(self, axes: &Axes) -> Result<Vec<f64>> {
        ensure!(
            self.rows > 0 && self.channels == axes.channels(),
            "there is no excitation of {} channels to analyse",
            axes.channels()
        );
        let Moments { mean, scatter } = self.state.into_moments();
        let scatter = scatter.triu(0) + scatter.triu(1).tr();
        let mut total = scatter.trace().double_value(&[]);
        if is_rounding(total, &mean, self.rows) {
            total = 0.0;
        }
        let along = axes.components.matmul(&scatter) * &axes.components;
        let along = along.sum_dim_intlist(Some([1i64].as_slice()), false, Kind::Double);
        let share = |variance: f64| if total > 0.0 { variance / total } else { 0.0 };
        Ok(Vec::<f64>::try_from(along)?
            .into_iter()
            .map(share)
            .collect())
    }
}

impl State {
    fn into_moments(self) -> Moments {
        match self {
            State::Rows(rows) => Moments::of(&Tensor::cat(&rows, 0)),
            State::Moments(moments) => moments,
        }
    }
}

/// Columns of a scatter that are computed together.
const BLOCK: usize = 256;

impl Moments {
    fn of(rows: &Tensor) -> Moments {
        let channels = rows.size()[1];
        let (mean, centred) = centred(rows);
        let mut moments = Moments {
            mean,
            scatter: Tensor::zeros([channels, channels], (Kind::Double, rows.device())),
        };
        moments.add_products(&centred);
        moments
    }

    /// Adds `added` rows to `before` others: the pairwise update of Chan, Golub and
    /// LeVeque, whose term of the means is one row more.
    fn add(&mut self, before: i64, rows: &Tensor, added: i64) {
        let (mean, centred) = centred(rows);
        let shift = self.moved(before, &mean, added);
        self.add_products(&Tensor::cat(&[centred, shift], 0));
    }

    /// Adds the moments of `added` rows to those of `before` others.
    fn merge(&mut self, before: i64, other: Moments, added: i64) {
        let shift = self.moved(before, &other.mean, added);
        self.scatter += other.scatter;
        self.add_products(&shift);
    }

    /// Moves the mean; the row `[1,C]` that the scatter grows by for it.
    fn moved(&mut self, before: i64, mean: &Tensor, added: i64) -> Tensor {
        let (a, b) = (before as f64, added as f64);
        let delta = mean - &self.mean;
        self.mean = &self.mean + &delta * (b / (a + b));
        (delta * (a * b / (a + b)).sqrt()).unsqueeze(0)
    }

    /// Adds the products of the columns of `rows`, half of which are the other half's.
    fn add_products(&mut self, rows: &Tensor) {
        let channels = rows.size()[1];
        for begin in (0..channels).step_by(BLOCK) {
            let (width, rest) = ((BLOCK as i64).min(channels - begin), channels - begin);
            let columns = rows.narrow(1, begin, width);
            let products = self.scatter.narrow(0, begin, width);
            let _ = products
                .narrow(1, begin, rest)
                .addmm_(&columns.tr(), &rows.narrow(1, begin, rest));
        }
    }
}

/// Whether rows of that mean and that sum of squares about it differ by float32's
/// rounding alone, so are constant.
fn is_rounding(squares: f64, mean: &Tensor, rows: i64) -> bool {
    let rounding = f64::from(f32::EPSILON) * mean.norm().double_value(&[]);
    squares <= rows as f64 * rounding * rounding
}

/// The mean `[C]` of rows `[m,C]`, and the rows without it, both float64.
fn centred(rows: &Tensor) -> (Tensor, Tensor) {
    let rows = rows.to_kind(Kind::Double);
    let mean = rows.mean_dim(Some([0i64].as_slice()), false, Kind::Double);
    let centred = rows - &mean;
    (mean, centred)
}

impl Pca {
    fn new(
        mean: Tensor,
        components: Tensor,
        mut eigenvalues: Vec<f64>,
        rows: i64,
        count: usize,
    ) -> Result<Pca> {
        if is_rounding(eigenvalues.iter().sum(), &mean, rows) {
            eigenvalues.fill(0.0);
        }
        let total: f64 = eigenvalues.iter().sum();
        let largest = eigenvalues.first().copied().unwrap_or(0.0);
        let mut kept = components.size()[0];
        while kept > 0 && eigenvalues[kept as usize - 1] <= largest * NOISE {
            kept -= 1;
        }
        let components = components.narrow(0, 0, kept);
        let length = components.norm_scalaropt_dim(2.0, [1i64].as_slice(), true);
        let components = (components / length).constant_pad_nd([0, 0, 0, COMPONENTS - kept]);
        Ok(Pca {
            axes: Axes { mean, components },
            variance_ratio: eigenvalues
                .iter()
                .take(count)
                .map(|value| if total > 0.0 { value / total } else { 0.0 })
                .collect(),
        })
    }
}

impl Axes {
    /// The number of channels.
    pub fn channels(&self) -> i64 {
        self.components.size()[1]
    }

    /// The scores of the three components (`U3 * S3`) of an excitation `[n,C,h,w]`:
    /// `[n,3,h,w]` float32.
    pub fn project(&self, excitation: &Tensor) -> Tensor {
        let size = excitation.size();
        let rows = rows_of(excitation).to_kind(Kind::Double) - &self.mean;
        rows.matmul(&self.components.tr())
            .reshape([size[0], size[2], size[3], COMPONENTS])
            .permute([0, 3, 1, 2])
            .to_kind(Kind::Float)
            .contiguous()
    }

    /// Turns the components so that their scores take these [signs].
    pub fn turn(&mut self, signs: &Tensor) {
        self.components = &self.components * signs.to_kind(Kind::Double).reshape([-1, 1]);
    }
}

/// The sign that the decomposition leaves open of each component, `[3]` float32, chosen
/// over all images together: times it, the score of largest magnitude is positive.
///
/// Takes scores `[N,3,h,w]`.
pub fn signs(scores: &Tensor) -> Tensor {
    let by_component = scores.permute([1, 0, 2, 3]).flatten(1, -1);
    let extreme = by_component.abs().argmax(1, true);
    let signs = by_component.gather(1, &extreme, false).sgn().reshape([-1]);
    // A component of zeros keeps them.
    signs.where_scalarother(&signs.not_equal(0.0), 1.0)
}

/// `[n,C,h,w]` -> `[n*h*w, C]`.
fn rows_of(excitation: &Tensor) -> Tensor {
    let channels = excitation.size()[1];
    excitation.permute([0, 2, 3, 1]).reshape([-1, channels])
}

/// Matrices beyond this size go to libtorch's symmetric decomposition, which is
/// faster there (docs/performance.md).
const LARGE: i64 = 512;

/// Eigenvalues, falling, and the first three eigenvectors `[<=3, n]` of a
/// symmetric positive semi-definite `[n,n]`, of which the part on and above the
/// diagonal is read.
fn eigen(gram: Tensor) -> Result<(Vec<f64>, Tensor)> {
    match gram.size()[0] > LARGE {
        true => eigen_of_large(gram),
        false => eigen_of_small(gram),
    }
}

fn eigen_of_large(gram: Tensor) -> Result<(Vec<f64>, Tensor)> {
    let (rising, vectors) = gram
        .f_linalg_eigh("U")
        .context("the principal components did not converge")?;
    let kept = COMPONENTS.min(gram.size()[0]);
    let vectors = vectors
        .narrow(1, gram.size()[0] - kept, kept)
        .flip([1])
        .tr()
        .contiguous();
    // Rounding may leave what is zero a little below.
    let values = Vec::try_from(rising.flip([0]).clamp_min(0.0))?;
    Ok((values, vectors))
}

/// Here the SVD is the eigendecomposition, and LAPACK's divide and conquer
/// (`dgesdd`) gives it.
fn eigen_of_small(gram: Tensor) -> Result<(Vec<f64>, Tensor)> {
    let gram = gram.triu(0) + gram.triu(1).tr();
    let gram: ArrayD<f64> = (&gram).try_into().context("reading the Gram matrix")?;
    let gram: Array2<f64> = gram.into_dimensionality()?;
    let (left, values, _): (Option<Array2<f64>>, Array1<f64>, _) = gram
        .svddc_into(JobSvd::Some)
        .context("the principal components did not converge")?;
    let left = left.context("the decomposition returned no vectors")?;
    let kept = left.ncols().min(COMPONENTS as usize);
    let vectors: Array2<f64> = left.slice(ndarray::s![.., ..kept]).t().to_owned();
    let vectors = Tensor::try_from(vectors.as_standard_layout().into_owned())
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
        let mut moments = Moments::of(&rows.narrow(0, 0, 7));
        moments.add(7, &rows.narrow(0, 7, 13), 13);
        moments.merge(20, Moments::of(&rows.narrow(0, 20, 20)), 20);
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
            assert_eq!((values.len(), vectors.size()), (60, vec![3, 60]));
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
