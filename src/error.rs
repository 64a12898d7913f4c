//! Errors with what their text alone does not say: the exit status, and which option helps.

use std::fmt;

/// A mistake in what was asked for (an unknown option, value, target or layer name):
/// exit status 2. Every other error ends with status 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage(pub String);

/// A situation in which an option helps. Errors do not name options; `cli::hint` has the words
/// for each situation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// Another input size.
    ImageSize,
    /// A larger input size.
    LargerImageSize,
    /// A layer chosen by name.
    Layer,
    /// The rule for any CNN.
    AutoRule,
    /// Another layer for the saliency.
    SaliencyLayer,
    /// An earlier layer for the saliency.
    EarlierSaliencyLayer,
    /// Grad-CAM in place of excitation backpropagation.
    GradCam,
    /// Grad-CAM, or a later layer for the saliency.
    GradCamOrLaterLayer,
    /// More memory for intermediate results, or another folder.
    Memory,
    /// Another folder for intermediate results.
    Spool,
    /// More images in figures.
    Figures,
    /// Arithmetic with a larger range.
    Precision,
    /// Arithmetic that the CPU has.
    CpuPrecision,
    /// Fewer images at once.
    BatchSize,
    /// A higher bound on the pixels of an image.
    MaxPixels,
    /// Another level of white in 16-bit images.
    White,
    /// Another mean and standard deviation of the channels.
    Normalisation,
    /// The file is a network.
    ModelFile,
    /// Names for the classes.
    Labels,
    /// ImageNet's names for the classes.
    ImageNetLabels,
    /// Names for the classes, or ImageNet's.
    LabelsOrImageNet,
    /// The true classes in a file.
    TruthFile,
    /// The summary and arrays of a run, as a run writes them.
    SavedRun,
    /// Where the arrays of a saved run are.
    SavedArrays,
    /// All arrays of a run, of which some were not saved.
    AllArrays,
    /// Another output of the network.
    Output,
    /// What the class scores mean.
    Scores,
    /// The class scores as the network returns them.
    ScoresAsTheyAre,
    /// Pixels from 0 to 1 for a network that normalises them itself.
    NoNormalisation,
    /// Pixels from 0 to 255 for a network that normalises them itself.
    BytesAsPixels,
    /// The CPU as the device.
    Cpu,
    /// A stored input is used as it is.
    StoredInput,
    /// The file of clusters that a run writes.
    ClusterFile,
    /// The folder of the run that wrote a cluster file.
    ClusterFolder,
    /// The file of a basis that a run writes.
    BasisFile,
    /// Another network than the default one, which would be downloaded.
    OtherNetwork,
    /// A network, in place of the default one.
    AnyNetwork,
    /// The names of all networks of the zoo.
    ListModels,
    /// The names of all layers.
    ListLayers,
    /// A run without other ranks.
    JointOff,
    /// Another seed of random numbers.
    Seed,
    /// A given file of weights.
    WeightsFile,
    /// Given weights, a TorchScript file or another network.
    OtherWeights,
    /// The name of a network, beside a file of weights.
    NameForWeights,
    /// The name of a network, whose weights the given file may be.
    FileIsWeights,
}

/// An error with a [`Hint`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hinted {
    message: String,
    /// The situation.
    pub hint: Hint,
    /// Whether it is a mistake in what was asked for, as [`Usage`].
    pub usage: bool,
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Hinted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Usage {}
impl std::error::Error for Hinted {}

/// A [`Usage`] error as `anyhow` carries it.
pub fn usage(message: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Usage(message.into()))
}

/// An error with a hint; exit status 1.
pub fn hinted(message: impl Into<String>, hint: Hint) -> anyhow::Error {
    anyhow::Error::new(Hinted {
        message: message.into(),
        hint,
        usage: false,
    })
}

/// A mistake in what was asked for, with a hint; exit status 2.
pub fn usage_hinted(message: impl Into<String>, hint: Hint) -> anyhow::Error {
    anyhow::Error::new(Hinted {
        message: message.into(),
        hint,
        usage: true,
    })
}

/// Whether the exit status is 2, whatever context the error was given.
pub fn is_usage(error: &anyhow::Error) -> bool {
    let hinted = error.downcast_ref::<Hinted>();
    error.downcast_ref::<Usage>().is_some() || hinted.is_some_and(|hinted| hinted.usage)
}
