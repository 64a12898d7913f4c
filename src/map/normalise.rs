//! PRISM's normalisation: standardise, clip at one standard deviation, stretch to [0, 1].

use tch::{Kind, Tensor};

/// Count, mean, sum of squared deviations and range of all values so far. Accumulators can be
/// merged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormAccumulator {
    count: f64,
    mean: f64,
    squares: f64,
    min: f64,
    max: f64,
}

/// The normalisation of a set of values, which can be applied to any part of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Norm {
    mean: f64,
    /// Unbiased; 0 if the values are constant.
    std: f64,
    /// Smallest and largest standardised value after clipping.
    low: f64,
    high: f64,
}

impl Norm {
    /// The values that become 0 and 1.
    pub fn ends(&self) -> [f64; 2] {
        [self.low, self.high].map(|standardised| self.mean + self.std * standardised)
    }
}

impl Default for NormAccumulator {
    fn default() -> Self {
        NormAccumulator {
            count: 0.0,
            mean: 0.0,
            squares: 0.0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
        }
    }
}

impl NormAccumulator {
    /// Adds every value of a tensor, whatever its shape.
    pub fn add(&mut self, values: &Tensor) {
        let count = values.numel();
        if count == 0 {
            return;
        }
        let values = values.to_kind(Kind::Double);
        let mean = values.mean(Kind::Double);
        let squares = (&values - &mean).square().sum(Kind::Double);
        self.merge(NormAccumulator {
            count: count as f64,
            mean: mean.double_value(&[]),
            squares: squares.double_value(&[]),
            min: values.min().double_value(&[]),
            max: values.max().double_value(&[]),
        });
    }

    /// Adds the values of `other` (the pairwise update of Chan, Golub and LeVeque).
    pub fn merge(&mut self, other: NormAccumulator) {
        if other.count == 0.0 {
            return;
        }
        let count = self.count + other.count;
        let delta = other.mean - self.mean;
        self.squares += other.squares + delta * delta * self.count * other.count / count;
        self.mean += delta * other.count / count;
        self.count = count;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// Its numbers, for another process.
    pub(crate) fn bits(&self) -> [u64; 5] {
        [self.count, self.mean, self.squares, self.min, self.max].map(f64::to_bits)
    }

    /// The accumulator with these numbers.
    pub(crate) fn from_bits(bits: [u64; 5]) -> NormAccumulator {
        let [count, mean, squares, min, max] = bits.map(f64::from_bits);
        NormAccumulator {
            count,
            mean,
            squares,
            min,
            max,
        }
    }

    /// The normalisation of all values.
    pub fn finish(&self) -> Norm {
        // Values that differ by rounding alone count as constant: their deviation is noise.
        let spread = self.max - self.min;
        let constant = self.count < 2.0
            || spread <= f64::from(f32::EPSILON) * self.max.abs().max(self.min.abs());
        let std = if constant {
            0.0
        } else {
            (self.squares / (self.count - 1.0)).sqrt()
        };
        let clipped = |value: f64| ((value - self.mean) / std).clamp(-1.0, 1.0);
        Norm {
            mean: self.mean,
            std,
            low: clipped(self.min),
            high: clipped(self.max),
        }
    }
}

impl Norm {
    /// Makes a norm of its mean, standard deviation, and smallest and largest standardised
    /// value after clipping; `None` if no values have these.
    pub fn from_values([mean, std, low, high]: [f64; 4]) -> Option<Norm> {
        let norm = Norm {
            mean,
            std,
            low,
            high,
        };
        let stretches = std > 0.0 && low.is_finite() && high.is_finite() && low < high;
        (norm.is_finite() && std >= 0.0 && (norm.is_constant() || stretches)).then_some(norm)
    }

    /// The numbers for [`Norm::from_values`].
    pub fn values(&self) -> [f64; 4] {
        let [low, high] =
            [self.low, self.high].map(|value| if self.is_constant() { 0.0 } else { value });
        [self.mean, self.std, low, high]
    }

    /// Whether all values were equal; [`Norm::apply`] then returns zeros.
    pub fn is_constant(&self) -> bool {
        self.std == 0.0
    }

    /// Whether all values were finite.
    pub fn is_finite(&self) -> bool {
        [self.mean, self.std].iter().all(|value| value.is_finite())
    }

    /// `z = (f - mean) / std`, clipped to [-1, 1], then `(z - min) / (max - min)`: float32 in
    /// [0, 1], with the shape of `values`.
    pub fn apply(&self, values: &Tensor) -> Tensor {
        if self.is_constant() {
            return values.zeros_like().to_kind(Kind::Float);
        }
        let standard = ((values.to_kind(Kind::Double) - self.mean) / self.std).clamp(-1.0, 1.0);
        ((standard - self.low) / (self.high - self.low)).to_kind(Kind::Float)
    }
}
