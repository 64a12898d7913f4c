//! Groups of places with similar features: the key of the colours.
//!
//! The places of all images are grouped by k-means in the space of the first 32 components.

use std::ops::Range;

use anyhow::Result;
use tch::{Device, IndexOp, Kind, Tensor};

use super::pca::rows_of;
use super::quantise::COLOURS;
use crate::spool::{Sequence, Spool};

/// The most groups: more colours are hard to tell apart.
const MOST: usize = 8;
/// There is one group more if it explains at least this share of the variance more.
const LEAST_GAIN: f64 = 0.04;
/// Places from which the groups are found.
pub const PLACES: usize = 1024;
/// Passes of Lloyd's algorithm, unless the centres are at rest before.
const PASSES: usize = 50;

/// Groups of places with similar features, the largest first.
#[derive(Debug)]
pub struct Groups {
    /// Share of each group in the places of all images.
    pub shares: Vec<f64>,
    /// Mean excitation of each group, `[k,C]` float64.
    pub means: Tensor,
    /// Mean excitation of all places, `[C]` float64.
    pub mean: Tensor,
    /// The quantised colour that most places of each group have, by number; empty unless there is a
    /// filter of colours.
    pub(super) colours: Vec<u32>,
    /// `[N,h,w]` uint8, by number before `ranks`.
    of_places: Sequence,
    /// The rank of each group by size, `[k]` uint8.
    ranks: Tensor,
}

impl Groups {
    /// The group of each place of some images, `[n,h,w]` uint8.
    ///
    /// # Errors
    /// Returns an error if there are fewer images, or if they cannot be read back.
    pub fn of_places(&self, images: Range<usize>) -> Result<Tensor> {
        let places = self.of_places.get(images)?;
        Ok(self.ranks.f_take(&places.to_kind(Kind::Int64))?)
    }
}

/// Assigns places to groups, image by image.
#[derive(Debug)]
pub struct Grouping {
    /// `[k,d]` float64.
    centres: Tensor,
    /// Sums of the excitations of each group, `[k,C]` float64.
    pub(super) sums: Tensor,
    /// Places in each group, `[k]` float64.
    pub(super) counts: Tensor,
    /// `[N,h,w]` uint8.
    of_places: Sequence,
}

/// Groups whose places are known, while their colours are counted.
#[derive(Debug)]
pub struct Assigned {
    groups: Groups,
    /// Places of each group and quantised colour, `[k,27]` int64.
    pub(super) counts: Tensor,
}

impl Grouping {
    /// For places of `channels` channels, around `centres` `[k,d]` float64 of their components.
    ///
    /// # Errors
    /// Returns an error if libtorch fails.
    pub fn new(centres: Tensor, channels: i64) -> Result<Grouping> {
        let double = (Kind::Double, centres.device());
        let count = centres.size()[0];
        Ok(Grouping {
            centres,
            sums: Tensor::f_zeros([count, channels], double)?,
            counts: Tensor::f_zeros([count], double)?,
            of_places: Sequence::in_blocks(),
        })
    }

    /// Adds the next images: their components `[n,d,h,w]` and their excitation `[n,C,h,w]`.
    ///
    /// # Errors
    /// Returns an error if libtorch fails, or if they cannot be stored.
    pub fn add(&mut self, spool: &Spool, components: &Tensor, excitation: &Tensor) -> Result<()> {
        let (n, _, h, w) = components.size4()?;
        let rows = |tensor: &Tensor| rows_of(tensor).f_to_kind(Kind::Double);
        let nearest = squares(&rows(components)?, &self.centres)?.f_argmin(1, false)?;
        let members = nearest
            .f_one_hot(self.centres.size()[0])?
            .to_kind(Kind::Double);
        self.sums += members.transpose(0, 1).f_matmul(&rows(excitation)?)?;
        self.counts += members.sum_dim_intlist([0i64].as_slice(), false, Kind::Double);
        let places = nearest.f_view([n, h, w])?.f_to_kind(Kind::Uint8)?;
        self.of_places.push(spool, &places)
    }

    /// The groups that have places.
    ///
    /// # Errors
    /// Returns an error if libtorch fails.
    pub fn assigned(self) -> Result<Assigned> {
        let order = self.counts.f_argsort(0, true)?;
        let counts = self.counts.f_index_select(0, &order)?;
        let all = counts.sum(Kind::Double);
        let shares: Vec<f64> = Vec::try_from(&counts / &all)?;
        let filled = shares.iter().filter(|&&share| share > 0.0).count();
        let sums = self.sums.f_index_select(0, &order)?;
        let ranks = order.f_argsort(0, false)?.to_kind(Kind::Uint8);
        let groups = Groups {
            mean: sums.sum_dim_intlist([0i64].as_slice(), false, Kind::Double) / &all,
            means: (sums / counts.unsqueeze(1)).i(..filled as i64),
            shares: shares[..filled].to_vec(),
            colours: Vec::new(),
            of_places: self.of_places,
            ranks,
        };
        let size = [filled as i64, i64::from(COLOURS)];
        Ok(Assigned {
            groups,
            counts: Tensor::f_zeros(size, (Kind::Int64, Device::Cpu))?,
        })
    }
}

impl Assigned {
    /// Counts the quantised colours `[n,h,w]` int64 of some images.
    ///
    /// # Errors
    /// Returns an error if the groups of the images cannot be read back.
    pub fn count(&mut self, images: Range<usize>, codes: &Tensor) -> Result<()> {
        let places = self.groups.of_places(images)?.to_kind(Kind::Int64);
        let both = (places * i64::from(COLOURS) + codes).view([-1]);
        let counts = both.f_bincount(None::<&Tensor>, self.counts.numel() as i64)?;
        self.counts += counts.view_as(&self.counts);
        Ok(())
    }

    /// The groups, with the colours of most of their places if any were counted.
    ///
    /// # Errors
    /// Returns an error if libtorch fails.
    pub fn finish(mut self) -> Result<Groups> {
        if self.counts.f_sum(Kind::Int64)?.int64_value(&[]) > 0 {
            let most = Vec::<i64>::try_from(self.counts.f_argmax(1, false)?)?;
            self.groups.colours = most.into_iter().map(|code| code as u32).collect();
        }
        Ok(self.groups)
    }
}

/// Squared distances of points `[m,d]` and centres `[k,d]`, `[m,k]`.
fn squares(points: &Tensor, centres: &Tensor) -> Result<Tensor> {
    let lengths = |rows: &Tensor| {
        let squares = rows.square();
        squares.sum_dim_intlist([1i64].as_slice(), false, Kind::Double)
    };
    let products = points.f_matmul(&centres.transpose(0, 1))?;
    let squares = lengths(points).unsqueeze(1) + lengths(centres) - products * 2.0;
    Ok(squares.clamp_min(0.0))
}

/// Centres `[k,d]` of points `[m,d]`: the fast global k-means of Likas, Vlassis and Verbeek (Pattern
/// Recognition, 2003). It is deterministic: each further centre begins at the point that lowers the
/// error most. There are as many as explain [`LEAST_GAIN`] of the variance each, at most [`MOST`].
pub fn k_means(points: &Tensor) -> Result<Tensor> {
    let mean = points.mean_dim([0i64].as_slice(), true, Kind::Double);
    let total = error(points, &mean)?;
    let between = squares(points, points)?;
    let mut centres = mean;
    let mut left = total;
    // Rounding is no variance.
    let least = points.square().sum(Kind::Double).double_value(&[]) * 1e-12;
    while (centres.size()[0] as usize) < MOST && left > least {
        let (nearest, _) = squares(points, &centres)?.min_dim(1, false);
        let gain = (nearest.unsqueeze(0) - &between).clamp_min(0.0);
        let gain = gain.sum_dim_intlist([1i64].as_slice(), false, Kind::Double);
        let begin = points.f_index_select(0, &gain.f_argmax(0, true)?)?;
        let more = at_rest(points, Tensor::f_cat(&[&centres, &begin], 0)?)?;
        let then = error(points, &more)?;
        if left - then < LEAST_GAIN * total {
            break;
        }
        (centres, left) = (more, then);
    }
    Ok(centres)
}

/// The sum of squared distances of points to their nearest centres.
fn error(points: &Tensor, centres: &Tensor) -> Result<f64> {
    let (nearest, _) = squares(points, centres)?.min_dim(1, false);
    Ok(nearest.sum(Kind::Double).double_value(&[]))
}

/// Lloyd's algorithm: the centres become the means of their points until no point changes.
fn at_rest(points: &Tensor, mut centres: Tensor) -> Result<Tensor> {
    let mut before = Tensor::new();
    for _ in 0..PASSES {
        let nearest = squares(points, &centres)?.f_argmin(1, false)?;
        if before.defined() && nearest == before {
            break;
        }
        let members = nearest.f_one_hot(centres.size()[0])?.to_kind(Kind::Double);
        let counts = members.sum_dim_intlist([0i64].as_slice(), false, Kind::Double);
        let means = members.transpose(0, 1).f_matmul(points)? / counts.clamp_min(1.0).unsqueeze(1);
        // A centre without points stays.
        centres = means.where_self(&counts.gt(0.0).unsqueeze(1), &centres);
        before = nearest;
    }
    Ok(centres)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points around centres that are far apart, `[m,2]`.
    fn around(centres: &[([f64; 2], usize)]) -> Tensor {
        let points = centres.iter().flat_map(|&([x, y], count)| {
            (0..count).flat_map(move |i| {
                let angle = i as f64 * 2.4;
                [x + 0.3 * angle.cos(), y + 0.3 * angle.sin()]
            })
        });
        Tensor::from_slice(&points.collect::<Vec<f64>>()).reshape([-1, 2])
    }

    #[test]
    fn points_around_three_centres_are_three_groups() {
        let points = around(&[([0.0, 0.0], 60), ([9.0, 0.0], 30), ([0.0, 9.0], 10)]);
        let components = points.reshape([1, 10, 10, 2]).permute([0, 3, 1, 2]);
        let mut grouping = Grouping::new(k_means(&points).unwrap(), 2).unwrap();
        let spool = Spool::default();
        let twice = &components * 2.0;
        grouping.add(&spool, &components, &twice).unwrap();
        let groups = grouping.assigned().unwrap().finish().unwrap();
        assert_eq!(groups.shares, [0.6, 0.3, 0.1]);
        let found = groups.of_places(0..1).unwrap().to_kind(Kind::Int64);
        let found = Vec::<i64>::try_from(found.view([-1])).unwrap();
        let expected: Vec<i64> = [[0].repeat(60), [1].repeat(30), [2].repeat(10)].concat();
        assert_eq!(found, expected);
        // Twice the centres, up to the circles around them.
        for (group, centre) in (0..).zip([[0.0, 0.0], [18.0, 0.0], [0.0, 18.0]]) {
            let off = groups.means.get(group) - Tensor::from_slice(&centre);
            assert!(off.abs().max().double_value(&[]) < 0.2, "{group}");
        }
        // 60 * 0 + 30 * 18 in 100 places, and 10 * 18.
        let off = &groups.mean - Tensor::from_slice(&[5.4, 1.8]);
        assert!(off.abs().max().double_value(&[]) < 0.02);
    }

    #[test]
    fn equal_places_are_one_group_and_many_centres_are_eight() {
        let equal = Tensor::from_slice(&[3.0, -7.0]).expand([50, 2], false);
        assert_eq!(k_means(&equal.contiguous()).unwrap().size(), [1, 2]);
        let one = Tensor::from_slice(&[3.0, -7.0]).reshape([1, 2]);
        assert_eq!(k_means(&one).unwrap().size(), [1, 2]);
        // Twelve centres at equal distances: each explains a twelfth or more of the variance.
        let centres = Tensor::eye(12, (Kind::Double, tch::Device::Cpu)).repeat([5, 1]);
        assert_eq!(k_means(&centres).unwrap().size(), [8, 12]);
    }
}
