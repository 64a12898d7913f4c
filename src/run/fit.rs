//! How the features become maps.

use anyhow::Result;

use super::describe;
use crate::arrays::{BasisOf, read_basis};
use crate::hooks::HookedModel;
use crate::joint::Group;
use crate::map::{Basis, Collector, MapOptions, Maps};
use crate::notices::Notices;
use crate::options::MapChoices;
use crate::remarks::{Remark, Remarks};

/// The choices for the maps of a run, made before the network runs.
pub struct Fit {
    /// The maps.
    pub options: MapOptions,
    basis: Option<Basis>,
    /// What a basis of this run belongs to.
    pub of: BasisOf,
}

impl Fit {
    /// Reads the basis if `choices` name one. With `keep_components` the leading components of all
    /// places are kept for the outputs.
    ///
    /// # Errors
    /// Returns an error if the basis cannot be read or belongs to another run.
    pub fn new(
        network: &str,
        model: &HookedModel,
        choices: &MapChoices,
        keep_components: bool,
    ) -> Result<Fit> {
        let options = MapOptions {
            groups: !choices.no_legend,
            components: keep_components,
            ..MapOptions::of(model, choices.filter())
        };
        let of = describe::basis_of(network, model, options);
        let basis = choices.basis.as_deref();
        let basis = basis.map(|file| read_basis(file, &of)).transpose()?;
        Ok(Fit { options, basis, of })
    }

    /// Fits the components and makes the maps of all images; notes what limits them.
    ///
    /// # Errors
    /// Returns an error if the activations are not finite or the decomposition fails.
    pub fn maps(
        &mut self,
        collector: Collector,
        group: &Group,
        notices: Notices,
        remarks: &mut Remarks,
    ) -> Result<Maps> {
        let spinner = notices.spinner("analysing");
        let maps = collector.finish_in(group, self.basis.take())?;
        spinner.finish_and_clear();
        let black = Remark::warning("all features are the same in all images, so the map is black");
        match maps.note() {
            _ if maps.basis.features.is_constant() => remarks.add(&black),
            Some(note) => remarks.add(&Remark::note(note)),
            None if maps.is_constant() => remarks.add(&black),
            None => {}
        }
        if maps.lacks_guides() {
            let coarse = "no earlier activation is finer than the features, so the map is upsampled bilinearly";
            remarks.add(&Remark::note(coarse));
        }
        let count = maps.not_salient();
        if count > 0 {
            remarks.add(&Remark::warning(format!(
                "the class has no saliency in {count} of {} images, so no line is on their maps",
                maps.numbers.all
            )));
        }
        Ok(maps)
    }
}
