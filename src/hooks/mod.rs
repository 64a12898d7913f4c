//! Forward hooks on TorchScript, which has none of its own.
//!
//! Every network is one flat graph, and any of its tensors can be made a further output:
//! [`HookedModel`] selects tensors by a [`Rule`], compiles the graph that returns them, and runs
//! it.

mod axes;
mod batching;
mod channels;
mod entry;
mod excitation_backprop;
mod ffi;
mod graph;
mod head;
mod layers;
mod messages;
mod model;
mod naming;
mod network;
mod operators;
mod outputs;
mod region;
mod scores;
mod selection;
mod sign;

pub use crate::remarks::Remark;
pub(crate) use channels::in_words as channels_in_words;
pub use entry::Entry;
pub(crate) use ffi::{Builder, BuiltValue, Call, Constant, OF_NUMBERS, Shape};
pub(crate) use ffi::{RawRanks, RawStore};
pub(crate) use ffi::{prepare, skip_init, tensor_of_floats};
pub use layers::{Layer, Role};
pub(crate) use messages::{is_lack_of_memory, plain, without_prose};
pub use model::{Excitations, HookedModel, Hooks, Precision, SaliencyHook};
pub use network::{NetworkGraph, Trace};
pub use outputs::OutputChoice;
pub use region::Region;
pub use scores::ScoreHook;
pub use selection::{Rule, Upsampling};
