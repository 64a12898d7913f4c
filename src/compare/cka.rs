//! How similar two sets of features of the same places are: linear centred kernel alignment.
//!
//! Kornblith et al., "Similarity of neural network representations revisited", ICML 2019, give it
//! as `|Y'X|^2 / (|X'X| |Y'Y|)` (Frobenius norms) of features with centred columns. With few places
//! this is too high; the debiased one takes the unbiased estimator of the HSIC by Song et al.,
//! JMLR 2012, as Nguyen, Raghu and Kornblith do (ICLR 2021). Both need sums over places alone, so
//! the Gram matrices of all pairs of places are never made.

use anyhow::{Result, ensure};
use tch::{Device, Kind, Tensor};

/// The fewest places for which the unbiased HSIC exists.
const FEWEST: i64 = 4;

/// Parts of a norm below this, relative to the features themselves, are rounding.
const ROUNDING: f64 = 1e-12;

/// Both similarities; none if a set of features does not vary, or if there are too few places.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cka {
    /// The number of places.
    pub places: i64,
    /// Linear CKA, 0 to 1.
    pub plain: Option<f64>,
    /// The debiased one, at most 1; below 0 by chance if the features have nothing in common.
    pub debiased: Option<f64>,
}

/// The sums over the places of two sets of features that the similarities are made of.
#[derive(Debug)]
pub struct CkaAccumulator {
    places: i64,
    xx: Products,
    xy: Products,
    yy: Products,
}

impl CkaAccumulator {
    /// No places yet, of features with these numbers of components.
    pub fn new(x: i64, y: i64) -> CkaAccumulator {
        CkaAccumulator {
            places: 0,
            xx: Products::new(x, x),
            xy: Products::new(x, y),
            yy: Products::new(y, y),
        }
    }

    /// Adds the features of the next places, `[n,p]` and `[n,q]`, less a constant of each column
    /// that is near its mean. (The result does not depend on it, but its precision does.)
    ///
    /// # Errors
    /// Returns an error if the numbers of places or components differ.
    pub fn add(&mut self, x: &Tensor, y: &Tensor) -> Result<()> {
        let [x, y] = [x, y].map(|features| features.to_kind(Kind::Double));
        let ((n, p), (m, q)) = (x.size2()?, y.size2()?);
        ensure!(
            n == m && (p, q) == self.xy.shape(),
            "features [{n},{p}] and [{m},{q}] do not go together"
        );
        self.places += n;
        self.xx.add(&x, &x);
        self.xy.add(&x, &y);
        self.yy.add(&y, &y);
        Ok(())
    }

    /// The similarities of the places so far.
    pub fn finish(&self) -> Cka {
        let n = self.places;
        let ratio = |of: &dyn Fn(&Products) -> f64| {
            let [xx, xy, yy] = [&self.xx, &self.xy, &self.yy].map(of);
            let varies = |own: f64, all: &Products| own > ROUNDING * all.size();
            let both = varies(xx, &self.xx) && varies(yy, &self.yy);
            both.then(|| xy / (xx * yy).sqrt())
        };
        Cka {
            places: n,
            plain: match n > 1 {
                true => ratio(&|products| products.centred(n)),
                false => None,
            },
            debiased: match n >= FEWEST {
                true => ratio(&|products| products.unbiased(n)),
                false => None,
            },
        }
    }
}

/// Sums over the rows x and y of two sets of features, with k = |x|^2 and l = |y|^2.
#[derive(Debug)]
struct Products {
    /// Of x, `[p]`, and of y, `[q]`.
    x: Tensor,
    y: Tensor,
    /// Of x y', `[p,q]`.
    xy: Tensor,
    /// Of l x and of k y.
    lx: Tensor,
    ky: Tensor,
    /// Of k, l and k l.
    k: f64,
    l: f64,
    kl: f64,
}

impl Products {
    fn new(p: i64, q: i64) -> Products {
        let zeros = |size: &[i64]| Tensor::zeros(size, (Kind::Double, Device::Cpu));
        Products {
            x: zeros(&[p]),
            y: zeros(&[q]),
            xy: zeros(&[p, q]),
            lx: zeros(&[p]),
            ky: zeros(&[q]),
            k: 0.0,
            l: 0.0,
            kl: 0.0,
        }
    }

    fn shape(&self) -> (i64, i64) {
        (self.xy.size()[0], self.xy.size()[1])
    }

    fn add(&mut self, x: &Tensor, y: &Tensor) {
        let [k, l] = [x, y].map(|rows| (rows * rows).sum_dim_intlist(1, false, Kind::Double));
        let sum = |values: &Tensor| values.sum(Kind::Double).double_value(&[]);
        self.x += x.sum_dim_intlist(0, false, Kind::Double);
        self.y += y.sum_dim_intlist(0, false, Kind::Double);
        self.xy += x.tr().matmul(y);
        self.lx += x.tr().matmul(&l);
        self.ky += y.tr().matmul(&k);
        self.k += sum(&k);
        self.l += sum(&l);
        self.kl += sum(&(k * l));
    }

    /// The size of the features before they are centred, on the scale of the norms.
    fn size(&self) -> f64 {
        self.k * self.l
    }

    /// `|X'Y|^2` of centred columns.
    fn centred(&self, places: i64) -> f64 {
        let centred = &self.xy - self.x.outer(&self.y) / places as f64;
        (&centred * &centred).sum(Kind::Double).double_value(&[])
    }

    /// The unbiased HSIC of the Gram matrices K and L, less their diagonals k and l:
    /// `(tr KL + 1'K1 1'L1 / ((n-1)(n-2)) - 2 1'KL1 / (n-2)) / (n(n-3))`.
    fn unbiased(&self, places: i64) -> f64 {
        let n = places as f64;
        let dot = |a: &Tensor, b: &Tensor| (a * b).sum(Kind::Double).double_value(&[]);
        let trace = dot(&self.xy, &self.xy) - self.kl;
        let ones_k = dot(&self.x, &self.x) - self.k;
        let ones_l = dot(&self.y, &self.y) - self.l;
        // K1 is x'(sum of x) - k for each place, and L1 likewise.
        let rows = dot(&self.x, &self.xy.matmul(&self.y))
            - dot(&self.x, &self.lx)
            - dot(&self.y, &self.ky)
            + self.kl;
        let all = trace + ones_k * ones_l / ((n - 1.0) * (n - 2.0)) - 2.0 * rows / (n - 2.0);
        all / (n * (n - 3.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cka(x: &Tensor, y: &Tensor) -> Cka {
        let (n, p) = x.size2().unwrap();
        let mut accumulator = CkaAccumulator::new(p, y.size2().unwrap().1);
        for start in (0..n).step_by(7) {
            let part = |t: &Tensor| t.narrow(0, start, 7.min(n - start));
            accumulator.add(&part(x), &part(y)).unwrap();
        }
        accumulator.finish()
    }

    fn random(n: i64, p: i64) -> Tensor {
        Tensor::randn([n, p], (Kind::Double, Device::Cpu))
    }

    fn near(found: Option<f64>, wanted: f64, most: f64) {
        let found = found.unwrap();
        assert!((found - wanted).abs() <= most, "{found}, not {wanted}");
    }

    #[test]
    fn equal_turned_scaled_and_moved_features_are_the_same() {
        tch::manual_seed(1);
        let x = random(50, 6) * Tensor::from_slice(&[5.0, 3.0, 1.0, 1.0, 0.5, 0.1]);
        let (turn, _) = Tensor::linalg_qr(&random(6, 6), "reduced");
        for y in [x.shallow_clone(), x.matmul(&turn), &x * -3.0 + 0.7] {
            let found = cka(&x, &y);
            near(found.plain, 1.0, 1e-9);
            near(found.debiased, 1.0, 1e-9);
            assert_eq!(found.places, 50);
        }
        // Stretched in one direction they are not.
        let y = &x * Tensor::from_slice(&[0.1, 1.0, 1.0, 1.0, 1.0, 1.0]);
        assert!(cka(&x, &y).plain.unwrap() < 0.9);
    }

    #[test]
    fn independent_features_have_none_if_the_bias_is_taken_away() {
        tch::manual_seed(2);
        let (mut plain, mut debiased) = (0.0, 0.0);
        for _ in 0..40 {
            let found = cka(&random(40, 20), &random(40, 20));
            plain += found.plain.unwrap() / 40.0;
            debiased += found.debiased.unwrap() / 40.0;
        }
        // sqrt(pq / ((n + p) (n + q))) for random features of equal variance.
        near(Some(plain), 20.0 / 60.0, 0.02);
        near(Some(debiased), 0.0, 0.02);
    }

    /// The reference makes the Gram matrices of all pairs (tests/reference/make_cka.py).
    #[test]
    fn the_similarities_are_numpys() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/cka.npz");
        let mut npz = ndarray_npy::NpzReader::new(std::fs::File::open(file).unwrap()).unwrap();
        let mut tensor = |name: &str| {
            let array: ndarray::ArrayD<f64> = npz.by_name(name).unwrap();
            Tensor::try_from(array.as_standard_layout().into_owned()).unwrap()
        };
        let found = cka(&tensor("x"), &tensor("y"));
        near(found.plain, tensor("plain").double_value(&[0]), 1e-12);
        near(found.debiased, tensor("debiased").double_value(&[0]), 1e-12);
    }

    #[test]
    fn a_case_by_hand() {
        // Centred: x = (-1, 0, 1), y = (-1, 1, 0): (1 + 0 + 0)^2 / (2 * 2).
        let [x, y] = [[1.0, 2.0, 3.0], [0.0, 2.0, 1.0]];
        let [x, y] = [x, y].map(|values| Tensor::from_slice(&values).reshape([3, 1]));
        let found = cka(&x, &y);
        near(found.plain, 0.25, 1e-12);
        assert_eq!(found.debiased, None, "four places are needed");
    }

    #[test]
    fn features_that_do_not_vary_have_no_similarity() {
        let x = random(30, 4);
        for constant in [0.0, 3.7e5] {
            let y = Tensor::full([30, 2], constant, (Kind::Double, Device::Cpu));
            let found = cka(&x, &y);
            assert_eq!((found.plain, found.debiased), (None, None));
        }
        assert!(CkaAccumulator::new(4, 2).add(&x, &x).is_err());
    }
}
