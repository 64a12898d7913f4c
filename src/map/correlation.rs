//! How well the three colours keep the order of similarity of all channels.

use anyhow::Result;
use tch::{Kind, Tensor};

/// Places that are compared with each other: 79,800 pairs.
pub const PLACES: usize = 400;

/// The rank correlation (Spearman), over all pairs of some places, of the cosine similarity of their
/// channels `[m,C]` float64, less the mean, and minus the distance of their colours `[m,3]`; 1 if
/// equal colours are equal features. None if either is the same for all pairs.
///
/// # Errors
/// Returns an error if libtorch fails.
pub fn rank_correlation(rows: &Tensor, colours: &Tensor) -> Result<Option<f64>> {
    let count = rows.size()[0] as usize;
    if count < 3 {
        return Ok(None);
    }
    let lengths = rows
        .square()
        .sum_dim_intlist([1i64].as_slice(), true, Kind::Double)
        .sqrt();
    let rows = rows / lengths.clamp_min(f64::MIN_POSITIVE);
    let cosines = rows.f_matmul(&rows.transpose(0, 1))?;
    let colours = colours.to_kind(Kind::Double);
    let apart = (colours.unsqueeze(1) - colours.unsqueeze(0)).square();
    let near = apart.sum_dim_intlist([2i64].as_slice(), false, Kind::Double) * -1.0;
    let pairs = |matrix: Tensor| -> Result<Vec<f64>> {
        let values = Vec::<f64>::try_from(matrix.contiguous().view([-1]))?;
        let pair = |i: usize| values[i * count + i + 1..(i + 1) * count].iter().copied();
        Ok((0..count).flat_map(pair).collect())
    };
    Ok(pearson(&ranks(&pairs(cosines)?), &ranks(&pairs(near)?)))
}

/// The rank of each value; equal values share the mean of their ranks.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_unstable_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    for equal in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = before as f64 + (equal.len() - 1) as f64 / 2.0;
        equal.iter().for_each(|&at| ranks[at] = rank);
        before += equal.len();
    }
    ranks
}

/// Pearson's correlation; none if either side is constant.
fn pearson(a: &[f64], b: &[f64]) -> Option<f64> {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (of_a, of_b) = (mean(a), mean(b));
    let sum = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
        let pairs = a.iter().zip(b);
        pairs.map(|(&x, &y)| f(x - of_a, y - of_b)).sum()
    };
    let scale = (sum(&|x, _| x * x) * sum(&|_, y| y * y)).sqrt();
    (scale > 0.0).then(|| sum(&|x, y| x * y) / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_share_their_rank() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, -2.0]), [2.5, 1.0, 2.5, 0.0]);
    }

    #[test]
    fn correlations_are_those_of_the_formula() {
        assert_eq!(pearson(&[1.0, 2.0, 3.0], &[2.0, 4.0, 6.0]), Some(1.0));
        assert_eq!(pearson(&[1.0, 2.0, 3.0], &[1.0, 1.0, 1.0]), None);
        // sums of products: 1 * -1 + 0 * 2 + -1 * -1 = 0
        assert_eq!(pearson(&[1.0, 0.0, -1.0], &[0.0, 3.0, 0.0]), Some(0.0));
    }
}
