//! Which images of many are shown, and what is kept of those alone.

/// An even sample of a sorted list of images. Whether an image belongs to it follows from its
/// number among all, so each part of the list can be asked by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    total: usize,
    count: usize,
}

impl Sample {
    /// `most` of `total` images; all if there are not more.
    pub fn new(total: usize, most: usize) -> Sample {
        Sample {
            total,
            count: most.min(total),
        }
    }

    /// Whether the image with this number, counted from 0, belongs to the sample: the images
    /// `floor(k total / count)` do, for each k below `count`.
    pub fn has(&self, number: usize) -> bool {
        number < self.total && self.before(number) < self.before(number + 1)
    }

    /// How many images before this number belong to the sample: `ceil(number count / total)`.
    pub fn before(&self, number: usize) -> usize {
        match self.total {
            0 => 0,
            total => {
                let product = number.min(total) as u128 * self.count as u128;
                product.div_ceil(total as u128) as usize
            }
        }
    }
}

/// Values of some images, in the order of their numbers.
#[derive(Debug)]
pub struct Kept<T> {
    images: Vec<usize>,
    values: Vec<T>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Kept {
            images: Vec::new(),
            values: Vec::new(),
        }
    }
}

impl<T> Kept<T> {
    /// Adds the value of an image after all that were added before.
    pub fn push(&mut self, image: usize, value: T) {
        debug_assert!(self.images.last().is_none_or(|&last| last < image));
        self.images.push(image);
        self.values.push(value);
    }

    /// The value of an image, if it was kept.
    pub fn get(&self, image: usize) -> Option<&T> {
        let found = self.images.binary_search(&image);
        Some(&self.values[found.ok()?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_even_and_its_first_image_is_the_first() {
        for (total, most) in [
            (1, 4096),
            (10, 3),
            (4096, 4096),
            (4097, 4096),
            (9973, 4096),
            (7, 0),
            (0, 3),
        ] {
            let sample = Sample::new(total, most);
            let shown: Vec<usize> = (0..total + 2).filter(|&image| sample.has(image)).collect();
            let count = total.min(most);
            let wanted: Vec<usize> = (0..count).map(|k| k * total / count).collect();
            assert_eq!(shown, wanted, "{most} of {total}");
            for number in 0..total + 2 {
                let before = wanted.iter().filter(|&&image| image < number).count();
                assert_eq!(sample.before(number), before, "{most} of {total}, {number}");
            }
        }
        let ends = [0, 1, 2].map(|image| Sample::new(5000, 2500).has(image));
        assert_eq!(ends, [true, false, true]);
        assert!(Sample::new(usize::MAX, 4096).has(0));
    }

    #[test]
    fn values_are_found_by_the_number_of_their_image() {
        let mut kept = Kept::default();
        for image in [0, 3, 8] {
            kept.push(image, image * 10);
        }
        assert_eq!(
            [0, 3, 8].map(|image| kept.get(image).copied()),
            [0, 30, 80].map(Some)
        );
        assert_eq!([1, 4, 9].map(|image| kept.get(image)), [None; 3]);
    }
}
