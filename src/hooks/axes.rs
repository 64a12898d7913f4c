//! What the dimensions of a tensor run over, and where its pixels lie in the input. Both follow
//! from the operators that made the tensor, not from its rank: a convolution makes
//! `[N,C,h,w]`, a permutation may make `[N,h,w,C]` of it, a reduction ends an axis.

use std::collections::HashSet;

use anyhow::Result;
use tch::Tensor;

use super::ffi::RawLayout;
use super::graph::{Graph, Node, ValueId};
use super::messages::plain;
use super::operators::Kind;

/// What a dimension runs over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    Batch,
    Channel,
    Height,
    Width,
    /// All pixels, row by row.
    Space {
        height: i64,
        width: i64,
    },
    /// Nothing: it has the size 1.
    Unit,
    Other,
}

use Axis::{Batch, Channel, Height, Other, Space, Unit, Width};

/// The part of an axis of the input that a tensor covers, from its first to its last pixel, as
/// shares of the input's side. It is mirrored if `from` is larger than `to`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Extent {
    pub from: f64,
    pub to: f64,
}

impl Extent {
    pub const WHOLE: Extent = Extent { from: 0.0, to: 1.0 };

    pub fn is_mirrored(self) -> bool {
        self.from > self.to
    }

    fn mirrored(self) -> Extent {
        Extent {
            from: self.to,
            to: self.from,
        }
    }

    /// Of `size` pixels those from `start` to `end`; padding has a negative start or an end
    /// beyond the size.
    fn part(self, start: i64, end: i64, size: i64) -> Extent {
        let at = |pixel: i64| self.from + (self.to - self.from) * pixel as f64 / size as f64;
        Extent {
            from: at(start),
            to: at(end),
        }
    }

    fn differs(self, other: Extent, tolerance: f64) -> bool {
        (self.from - other.from).abs() > tolerance || (self.to - other.to).abs() > tolerance
    }
}

/// Where the pixels of a tensor lie in the input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    pub height: Extent,
    pub width: Extent,
    /// The operator because of which the place is not known.
    pub lost: Option<usize>,
    /// Height and width before a narrow margin of features was cut off.
    uncut: Option<(Extent, Extent)>,
}

impl Place {
    const WHOLE: Place = Place {
        height: Extent::WHOLE,
        width: Extent::WHOLE,
        lost: None,
        uncut: None,
    };

    /// A margin that a convolution follows belongs to its arithmetic, such as a crop to the size of
    /// another branch.
    fn forget_margin(&mut self) {
        if let Some((height, width)) = self.uncut.take() {
            (self.height, self.width) = (height, width);
        }
    }

    fn extent(&mut self, axis: Axis) -> Option<&mut Extent> {
        match axis {
            Height => Some(&mut self.height),
            Width => Some(&mut self.width),
            _ => None,
        }
    }

    /// Whether it shows the whole input as it is.
    pub fn is_upright(&self) -> bool {
        self.lost.is_none() && self.agrees(&Place::WHOLE, FAR)
    }

    /// Whether both show the same part of the input, mirrored or not.
    pub fn covers_the_same(&self, other: &Place) -> bool {
        let ordered = |extent: Extent| match extent.is_mirrored() {
            true => extent.mirrored(),
            false => extent,
        };
        let turned = |place: &Place| Place {
            height: ordered(place.height),
            width: ordered(place.width),
            ..*place
        };
        turned(self).agrees(&turned(other), NEAR)
    }

    /// Whether both show the same part of the input, in the same direction.
    pub fn agrees(&self, other: &Place, tolerance: f64) -> bool {
        !self.height.differs(other.height, tolerance) && !self.width.differs(other.width, tolerance)
    }
}

/// The dimensions of a tensor that depends on the images.
#[derive(Debug, Clone, PartialEq)]
pub struct Dimensions {
    pub axes: Vec<Axis>,
    pub place: Place,
}

/// How an activation is laid out in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Channels, height and width.
    pub shape: (i64, i64, i64),
    /// The dimension that holds height and width at once, if there is one.
    pub space: Option<usize>,
    /// The dimensions of N, C, h and w, after `space` is divided.
    pub order: [usize; 4],
    /// Whether its rows and its columns run against those of the input.
    pub mirrored: [bool; 2],
}

impl Layout {
    /// The layout for the shim.
    pub fn raw(&self) -> RawLayout {
        let (_, height, width) = self.shape;
        RawLayout {
            permuted: i32::from(self.order != [0, 1, 2, 3] || self.space.is_some()),
            space: self.space.map_or(-1, |dimension| dimension as i32),
            height,
            width,
            order: self.order.map(|dimension| dimension as i64),
            mirrored: self.mirrored.map(i32::from),
        }
    }

    /// The dimension of the images.
    pub fn batch(&self) -> usize {
        let divided = self.space.is_some_and(|space| self.order[0] > space);
        self.order[0] - usize::from(divided)
    }

    /// A tensor of this layout as `[N,C,h,w]`, upright.
    ///
    /// # Errors
    /// Returns libtorch's reason on one line if the tensor has another layout.
    pub fn upright(&self, tensor: &Tensor) -> Result<Tensor> {
        let raw = self.raw();
        let mut tensor = tensor.shallow_clone();
        if let Some(space) = self.space {
            let sizes = [raw.height, raw.width];
            tensor = tensor.f_unflatten(space as i64, sizes).map_err(plain)?;
        }
        if raw.permuted != 0 {
            tensor = tensor.f_permute(raw.order).map_err(plain)?;
        }
        let sides = (2..).zip(self.mirrored).filter(|(_, mirrored)| *mirrored);
        let against: Vec<i64> = sides.map(|(side, _)| side).collect();
        match against.is_empty() {
            true => Ok(tensor),
            false => tensor.f_flip(against).map_err(plain),
        }
    }
}

/// Features lie on each other if their places differ by at most this share of the picture.
const NEAR: f64 = 0.05;

/// Features that lie further apart than this share of the picture do not lie on each other.
const FAR: f64 = 0.25;

/// Slices of features by up to so many pixels, or this part of the side, are narrow margins.
const MARGIN: i64 = 2;
const MARGIN_PART: i64 = 8;

impl Dimensions {
    /// The dimensions of a batch of images.
    pub fn of_images() -> Dimensions {
        Dimensions {
            axes: vec![Batch, Channel, Height, Width],
            place: Place::WHOLE,
        }
    }

    /// The layout of an activation: one image for each image, one axis of channels, and pixels.
    pub fn layout(&self, sizes: &[i64], images: i64) -> Option<Layout> {
        let batch = self.only(|axis| axis == Batch)?;
        let channel = self.only(|axis| axis == Channel)?;
        let (shape, space, order) = match sizes.len() {
            4 => {
                let h = self.only(|axis| axis == Height)?;
                let w = self.only(|axis| axis == Width)?;
                ((sizes[h], sizes[w]), None, [batch, channel, h, w])
            }
            3 => {
                let space = self.only(|axis| matches!(axis, Space { .. }))?;
                let Space { height, width } = self.axes[space] else {
                    return None;
                };
                let after = |dimension| dimension + usize::from(dimension > space);
                let order = [after(batch), after(channel), space, space + 1];
                ((height, width), Some(space), order)
            }
            _ => return None,
        };
        (sizes[batch] == images && shape.0 * shape.1 > 1).then(|| Layout {
            shape: (sizes[channel], shape.0, shape.1),
            space,
            order,
            mirrored: [
                self.place.height.is_mirrored(),
                self.place.width.is_mirrored(),
            ],
        })
    }

    /// Whether a dimension that is more than one long runs over pixels.
    pub fn has_pixels(&self, sizes: &[i64]) -> bool {
        let long = |(axis, &size): (&Axis, &i64)| size > 1 && is_pixels(*axis);
        self.axes.iter().zip(sizes).any(long)
    }

    /// The only dimension of its kind.
    fn only(&self, is: impl Fn(Axis) -> bool) -> Option<usize> {
        let mut found = (0..self.axes.len()).filter(|&dim| is(self.axes[dim]));
        found.next().filter(|_| found.next().is_none())
    }

    fn is_known(&self, sizes: &[i64]) -> bool {
        let mut axes = self.axes.iter().zip(sizes);
        axes.all(|(&axis, &size)| axis != Other || size == 1)
    }
}

/// The dimensions of every value that depends on the images. A list has those of its items.
pub fn dimensions(graph: &Graph) -> Vec<Option<Dimensions>> {
    let mut search = Search {
        graph,
        found: vec![None; graph.count()],
        convolved: HashSet::new(),
    };
    search.found[graph.input] = Some(Dimensions::of_images());
    for (index, node) in graph.nodes.iter().enumerate() {
        search.visit(index, node);
    }
    search.found
}

struct Search<'a> {
    graph: &'a Graph,
    found: Vec<Option<Dimensions>>,
    /// The values that a convolution has made features of.
    convolved: HashSet<ValueId>,
}

impl Search<'_> {
    fn visit(&mut self, index: usize, node: &Node) {
        if matches!(node.kind(), Kind::Size | Kind::Count) {
            return;
        }
        let mut inputs = node.inputs.iter().copied();
        let Some(first) = inputs.find(|&value| self.found[value].is_some()) else {
            return;
        };
        for filled in self.graph.filled(node) {
            self.fill(node, filled);
        }
        self.learn_from_use(node, first);
        let mut inputs = node.inputs.iter();
        let convolved = node.is_conv2d() || inputs.any(|value| self.convolved.contains(value));
        for &output in &node.outputs {
            self.found[output] = self.made(index, node, first, output);
            if convolved {
                self.convolved.insert(output);
            }
        }
    }

    /// A list has the dimensions of its items. Of a tensor that is filled part by part only the
    /// number of dimensions is known.
    fn fill(&mut self, node: &Node, filled: ValueId) {
        if self.found[filled].is_some() && node.filled_container().is_none() {
            return;
        }
        let items = node.inputs.iter().rev();
        let item = items.filter_map(|&item| self.found[item].as_ref()).next();
        let mut found = item.cloned();
        if let (Some(found), Some(sizes)) = (&mut found, self.graph.sizes(filled)) {
            found.axes = vec![Other; sizes.len()];
        }
        self.found[filled] = found;
    }

    /// A 2-d operator reads `[N,C,h,w]`, and a fully connected layer reads the channels in the
    /// last dimension. This is how tensors of unknown dimensions are recognised.
    fn learn_from_use(&mut self, node: &Node, input: ValueId) {
        let (Some(sizes), Some(known)) = (self.graph.sizes(input), &self.found[input]) else {
            return;
        };
        if sizes.len() != 4 || known.is_known(sizes) {
            return;
        }
        let axes = match node.kind() {
            Kind::Conv2d
            | Kind::BatchNorm
            | Kind::MaxPool2d
            | Kind::AvgPool2d
            | Kind::AdaptivePool
            | Kind::Upsample => [Batch, Channel, Height, Width],
            Kind::Linear | Kind::LayerNorm => [Batch, Height, Width, Channel],
            Kind::Reduction => match self.axes_argument(node, "dim", 4).as_slice() {
                [2, 3] => [Batch, Channel, Height, Width],
                [1, 2] => [Batch, Height, Width, Channel],
                _ => return,
            },
            _ => return,
        };
        let place = known.place;
        let axes = axes.to_vec();
        self.found[input] = Some(Dimensions { axes, place });
    }

    /// The dimensions of an operator's output.
    fn made(
        &self,
        index: usize,
        node: &Node,
        first: ValueId,
        output: ValueId,
    ) -> Option<Dimensions> {
        let known = self.found[first].as_ref()?;
        let Some(sizes) = self.graph.sizes(output) else {
            let of_list = self.graph.sizes(first).is_none(); // such as the sum of two lists
            return self.list(index, node, known, of_list);
        };
        let mut place = known.place;
        let before = self.graph.sizes(first).unwrap_or_default();
        let axes = match node.kind() {
            Kind::Conv2d if sizes.len() == 4 => {
                place.forget_margin();
                convolved(known, sizes, self.graph.images())
            }
            Kind::Upsample if sizes.len() == 4 => convolved(known, sizes, self.graph.images()),
            _ if sizes.len() == 4 && node.holds(Kind::Upsample) => {
                convolved(known, sizes, self.graph.images())
            }
            Kind::MaxPool2d | Kind::AvgPool2d | Kind::AdaptivePool | Kind::Pool => {
                known.axes.clone()
            }
            // max(x, y) has no dimension, and reduces nothing.
            Kind::Reduction | Kind::Norm if sizes != before => self.reduced(node, known, sizes),
            Kind::Permute => {
                let dims = self.axes_argument(node, "dims", before.len());
                dims.iter()
                    .filter_map(|&from| known.axes.get(from).copied())
                    .collect()
            }
            Kind::Transpose => self.transposed(node, known),
            Kind::Reshape => reshaped(&known.axes, before, sizes),
            Kind::Select => self.without(node, known),
            Kind::Slice => {
                self.slice(node, first, known, before, &mut place);
                known.axes.clone()
            }
            Kind::Padding => {
                self.pad(node, known, before, &mut place);
                known.axes.clone()
            }
            Kind::Flip => {
                let dims = self.axes_argument(node, "dims", known.axes.len());
                mirror(&mut place, known, &dims);
                known.axes.clone()
            }
            Kind::Rotate => self.rotated(node, known, &mut place),
            Kind::Reindex => {
                let dims = self.axes_argument(node, "mirrored", known.axes.len());
                mirror(&mut place, known, &dims);
                if self.moves_pixels(node, known) {
                    place.lost = Some(index);
                }
                self.broadcast(node, sizes)
            }
            Kind::Sample => {
                place.lost = Some(index);
                known.axes.clone()
            }
            Kind::Convolution if sizes.len() == 3 => {
                let pixels = known.axes.get(2).filter(|_| before.get(2) == sizes.get(2));
                vec![known.axes[0], Channel, pixels.copied().unwrap_or(Other)]
            }
            Kind::Linear => with_last(known, Channel),
            Kind::MatrixProduct => {
                if node.short_name() == "einsum" && known.has_pixels(before) {
                    place.lost = Some(index);
                }
                self.product(node, sizes)
            }
            Kind::Recurrent => vec![Other; sizes.len()],
            Kind::Attention => known.axes.clone(),
            Kind::Concat => {
                if self.joins_pixels(node, known) {
                    place.lost = Some(index);
                }
                self.concatenated(node, known)
            }
            Kind::Stack => {
                let mut axes = known.axes.clone();
                let at = self.axes_argument(node, "dim", sizes.len());
                axes.insert(at.first().map_or(0, |&at| at.min(axes.len())), Other);
                axes
            }
            Kind::Item => known.axes.clone(),
            _ => {
                place = self.common_place(index, node);
                self.broadcast(node, sizes)
            }
        };
        let axes = match axes.len() == sizes.len() {
            true => axes,
            false => vec![Other; sizes.len()],
        };
        Some(Dimensions { axes, place })
    }

    /// The dimensions of the items of a list.
    fn list(
        &self,
        index: usize,
        node: &Node,
        known: &Dimensions,
        of_list: bool,
    ) -> Option<Dimensions> {
        let mut items = known.clone();
        if node.kind() == Kind::Container {
            items.place = self.common_place(index, node);
        }
        if node.short_name() == "unbind" {
            items.axes = self.without(node, known);
        }
        let is_list = matches!(node.kind(), Kind::Split | Kind::Container | Kind::Item);
        (is_list || of_list || node.is_block()).then_some(items)
    }

    /// An argument that names dimensions, from the front.
    fn axes_argument(&self, node: &Node, name: &str, rank: usize) -> Vec<usize> {
        let found = node.evaluated(name).unwrap_or_default().iter();
        found
            .map(|&dim| if dim < 0 { dim + rank as i64 } else { dim })
            .filter_map(|dim| usize::try_from(dim).ok())
            .collect()
    }

    fn reduced(&self, node: &Node, known: &Dimensions, sizes: &[i64]) -> Vec<Axis> {
        let mut dims = self.axes_argument(node, "dim", known.axes.len());
        if node.evaluated("dim").is_none() {
            dims = (0..known.axes.len()).collect();
        }
        let keeps = sizes.len() == known.axes.len();
        let axes = known.axes.iter().enumerate();
        axes.filter_map(|(dim, &axis)| match dims.contains(&dim) {
            true => keeps.then_some(Unit),
            false => Some(axis),
        })
        .collect()
    }

    fn transposed(&self, node: &Node, known: &Dimensions) -> Vec<Axis> {
        let rank = known.axes.len();
        let one = |name| self.axes_argument(node, name, rank).first().copied();
        let mut axes = known.axes.clone();
        let pair = [("dim0", "dim1"), ("axis0", "axis1")];
        let found = pair.iter().find_map(|(a, b)| one(a).zip(one(b)));
        match (found, one("source").zip(one("destination"))) {
            (Some((a, b)), _) if a.max(b) < rank => axes.swap(a, b),
            (None, Some((from, to))) if from.max(to) < rank => {
                let axis = axes.remove(from);
                axes.insert(to, axis);
            }
            (None, None) if rank >= 2 => axes.swap(rank - 2, rank - 1), // t, mT
            _ => axes = vec![Other; rank],
        }
        axes
    }

    fn without(&self, node: &Node, known: &Dimensions) -> Vec<Axis> {
        let dim = self.axes_argument(node, "dim", known.axes.len());
        let dim = dim.first().copied().unwrap_or(0);
        let axes = known.axes.iter().enumerate();
        axes.filter(|(at, _)| *at != dim)
            .map(|(_, &axis)| axis)
            .collect()
    }

    fn slice(
        &self,
        node: &Node,
        first: ValueId,
        known: &Dimensions,
        before: &[i64],
        place: &mut Place,
    ) {
        let one = |name| {
            node.evaluated(name)
                .and_then(|found| found.first().copied())
        };
        let dim = self
            .axes_argument(node, "dim", before.len())
            .first()
            .copied()
            .unwrap_or(0);
        let (Some(&size), Some(&axis)) = (before.get(dim), known.axes.get(dim)) else {
            return;
        };
        let from_end = |at: i64| if at < 0 { at + size } else { at };
        let start = from_end(one("start").unwrap_or(0)).clamp(0, size);
        let end = match one("length") {
            Some(length) => start + length,
            None => from_end(one("end").unwrap_or(size)).clamp(start, size),
        };
        let margin = MARGIN.max(size / MARGIN_PART);
        let is_margin = start.max(size - end) <= margin && self.convolved.contains(&first);
        if is_margin {
            place.uncut = place.uncut.or(Some((place.height, place.width)));
        }
        if let Some(extent) = place.extent(axis).filter(|_| size > 0) {
            *extent = extent.part(start, end, size);
        }
    }

    /// Padding of features belongs to the arithmetic of convolutions.
    fn pad(&self, node: &Node, known: &Dimensions, before: &[i64], place: &mut Place) {
        if node
            .inputs
            .first()
            .is_some_and(|value| self.convolved.contains(value))
        {
            return;
        }
        let name = if node.short_name() == "constant_pad_nd" {
            "pad"
        } else {
            "padding"
        };
        let pads = node.evaluated(name).or_else(|| node.evaluated("pad"));
        let axes = known.axes.iter().zip(before).rev();
        // Pairs from the last dimension on.
        for ((&axis, &size), pads) in axes.zip(pads.unwrap_or_default().chunks_exact(2)) {
            if let Some(extent) = place.extent(axis)
                && size > 0
            {
                *extent = extent.part(-pads[0], size + pads[1], size);
            }
        }
    }

    /// `rot90(x, k, [a, b])`: k times from a towards b. Each turn transposes both axes and mirrors
    /// a.
    fn rotated(&self, node: &Node, known: &Dimensions, place: &mut Place) -> Vec<Axis> {
        let mut axes = known.axes.clone();
        let turns = node
            .evaluated("k")
            .and_then(|k| k.first().copied())
            .unwrap_or(1);
        if let &[a, b] = self.axes_argument(node, "dims", axes.len()).as_slice()
            && a.max(b) < axes.len()
        {
            for _ in 0..turns.rem_euclid(4) {
                axes.swap(a, b);
                if let Some(extent) = place.extent(axes[a]) {
                    *extent = extent.mirrored();
                }
            }
        }
        axes
    }

    /// Whether an operator picks pixels by index.
    fn moves_pixels(&self, node: &Node, known: &Dimensions) -> bool {
        let name = match node.short_name() {
            "index" | "index_select" => "indexed",
            "roll" => "dims",
            _ => "dim",
        };
        let dims = self.axes_argument(node, name, known.axes.len());
        dims.iter()
            .any(|&dim| known.axes.get(dim).is_some_and(|&axis| is_pixels(axis)))
    }

    /// A product of matrices `[..., n, k]` and `[..., k, m]`.
    fn product(&self, node: &Node, sizes: &[i64]) -> Vec<Axis> {
        let axes = |at: usize| {
            let value = *node.inputs.get(at)?;
            self.found[value]
                .as_ref()
                .map(|known| known.axes.as_slice())
        };
        let (a, b) = (axes(0), axes(1));
        let Some(rank) = sizes
            .len()
            .checked_sub(2)
            .filter(|_| node.short_name() != "einsum")
        else {
            return vec![Other; sizes.len()];
        };
        let end = |axes: Option<&[Axis]>, back: usize| {
            let axes = axes?;
            axes.len()
                .checked_sub(back)
                .and_then(|at| axes.get(at))
                .copied()
        };
        // Weights make channels of channels.
        let made_of = |summed| {
            if summed == Some(Channel) {
                Channel
            } else {
                Other
            }
        };
        let rows = end(a, 2).unwrap_or_else(|| made_of(end(b, 2)));
        let columns = end(b, 1).unwrap_or_else(|| made_of(end(a, 1)));
        let outer = a
            .into_iter()
            .chain(b)
            .find(|axes| axes.len() == sizes.len());
        let outer = outer.map_or_else(|| vec![Other; rank], |axes| axes[..rank].to_vec());
        [outer, vec![rows, columns]].concat()
    }

    /// Whether a concatenation puts pixels side by side, which moves them.
    fn joins_pixels(&self, node: &Node, known: &Dimensions) -> bool {
        let dims = self.axes_argument(node, "dim", known.axes.len());
        let axis = dims.first().and_then(|&dim| known.axes.get(dim));
        axis.is_some_and(|&axis| is_pixels(axis))
    }

    fn concatenated(&self, node: &Node, known: &Dimensions) -> Vec<Axis> {
        let dim = self.axes_argument(node, "dim", known.axes.len());
        let dim = dim.first().copied().unwrap_or(0);
        let mut axes = known.axes.clone();
        if let Some(axis) = axes.get_mut(dim)
            && *axis != Channel
        {
            *axis = Other;
        }
        axes
    }

    /// The axes of an element-wise operator: those of the inputs, aligned at the end.
    fn broadcast(&self, node: &Node, sizes: &[i64]) -> Vec<Axis> {
        let inputs: Vec<(&Dimensions, &[i64])> = node
            .inputs
            .iter()
            .filter_map(|&value| self.found[value].as_ref().zip(self.graph.sizes(value)))
            .filter(|(_, input)| input.len() <= sizes.len())
            .collect();
        let axis = |dim: usize| {
            let of = |&(known, input): &(&Dimensions, &[i64])| {
                let at = (dim + input.len()).checked_sub(sizes.len())?;
                (input[at] == sizes[dim])
                    .then(|| known.axes.get(at).copied())
                    .flatten()
            };
            let known = |axis: &Axis| !matches!(axis, Unit | Other);
            let found = inputs.iter().filter_map(of).find(known);
            found.unwrap_or(if sizes[dim] == 1 { Unit } else { Other })
        };
        (0..sizes.len()).map(axis).collect()
    }

    /// The place of an element-wise result: that of its inputs with pixels, if they agree.
    fn common_place(&self, index: usize, node: &Node) -> Place {
        let known = |&value: &ValueId| self.found[value].as_ref().zip(self.graph.sizes(value));
        let known = node.inputs.iter().filter_map(known);
        let places: Vec<Place> = known
            .filter(|(known, sizes)| known.has_pixels(sizes))
            .map(|(known, _)| known.place)
            .collect();
        let placed = places.iter().find(|place| place.lost.is_none());
        let Some(&place) = placed.or(places.first()) else {
            return Place::WHOLE;
        };
        let differs = |other: &Place| other.lost.is_none() && !other.agrees(&place, FAR);
        let lost = place
            .lost
            .or_else(|| places.iter().any(differs).then_some(index));
        Place { lost, ..place }
    }
}

fn is_pixels(axis: Axis) -> bool {
    matches!(axis, Height | Width | Space { .. })
}

fn mirror(place: &mut Place, known: &Dimensions, dims: &[usize]) {
    for axis in dims.iter().filter_map(|&dim| known.axes.get(dim)) {
        if matches!(axis, Height | Space { .. }) {
            place.height = place.height.mirrored();
        }
        if matches!(axis, Width | Space { .. }) {
            place.width = place.width.mirrored();
        }
    }
}

/// The axes after a convolution: rows and columns stay what they are.
fn convolved(known: &Dimensions, sizes: &[i64], images: i64) -> Vec<Axis> {
    let axis = |dim: usize| known.axes.get(dim).copied().unwrap_or(Other);
    let batch = if sizes[0] == images { Batch } else { axis(0) };
    let side = |dim: usize, usual: Axis| match axis(dim) {
        known @ (Height | Width | Unit) => known,
        _ => usual,
    };
    vec![batch, Channel, side(2, Height), side(3, Width)]
}

fn with_last(known: &Dimensions, made: Axis) -> Vec<Axis> {
    let mut axes = known.axes.clone();
    if let Some(last) = axes.last_mut() {
        let from_channels = matches!(last, Channel | Unit);
        *last = if from_channels { made } else { Other };
    }
    axes
}

/// The axes after a change of sizes from `before` to `after`. Neighbouring dimensions that
/// together keep their number of elements correspond.
fn reshaped(axes: &[Axis], before: &[i64], after: &[i64]) -> Vec<Axis> {
    if before == after {
        return axes.to_vec();
    }
    let long = |sizes: &[i64]| -> Vec<usize> {
        let dims = 0..sizes.len();
        dims.filter(|&dim| sizes[dim] != 1).collect()
    };
    let (from, to) = (long(before), long(after));
    let mut made: Vec<Axis> = vec![Unit; after.len()];
    let (mut i, mut j) = (0, 0);
    while i < from.len() && j < to.len() {
        let (begin_i, begin_j) = (i, j);
        let (mut left, mut right) = (before[from[i]], after[to[j]]);
        (i, j) = (i + 1, j + 1);
        while left != right {
            if left < right && i < from.len() {
                left *= before[from[i]];
                i += 1;
            } else if right < left && j < to.len() {
                right *= after[to[j]];
                j += 1;
            } else {
                return vec![Other; after.len()];
            }
        }
        let group: Vec<(Axis, i64)> = from[begin_i..i]
            .iter()
            .map(|&dim| (axes[dim], before[dim]))
            .collect();
        let into: Vec<i64> = to[begin_j..j].iter().map(|&dim| after[dim]).collect();
        for (&dim, axis) in to[begin_j..j].iter().zip(regrouped(&group, &into)) {
            made[dim] = axis;
        }
    }
    // The only image of a batch has no pixels of its own to recognise it by.
    if !made.contains(&Batch)
        && axes.contains(&Batch)
        && let Some(unit) = made.iter().position(|&axis| axis == Unit)
    {
        made[unit] = Batch;
    }
    made
}

/// The axes of the dimensions `into` that a group of dimensions becomes.
fn regrouped(group: &[(Axis, i64)], into: &[i64]) -> Vec<Axis> {
    match (group, into) {
        (&[(axis, _)], [_]) => vec![axis],
        (&[(Height, height), (Width, width)], [_]) => vec![Space { height, width }],
        (&[(Space { height, width }, _)], &[h, w]) if (height, width) == (h, w) => {
            vec![Height, Width]
        }
        (&[(axis @ (Height | Width), _)], [_, rest @ ..]) => {
            let inner = rest.iter().map(|_| Other);
            std::iter::once(axis).chain(inner).collect()
        }
        // Groups of channels, and pixels that become channels.
        (group, into) if group.iter().any(|&(axis, _)| axis == Channel) => {
            let pure = group
                .iter()
                .all(|&(axis, _)| matches!(axis, Channel | Other));
            vec![if pure { Channel } else { Other }; into.len()]
        }
        (_, into) => vec![Other; into.len()],
    }
}
