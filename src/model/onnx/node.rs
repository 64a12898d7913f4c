//! A node that is being translated: its attributes, its inputs, and what they are.

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::proto::{Attribute, Node, Value as Stored};
use super::shown;
use super::writer::{Numbers, Value, Writer};
use crate::hooks::BuiltValue;

/// A node, with what its names stand for.
pub struct NodeCall<'n> {
    pub node: &'n Node<'n>,
    /// Its attributes; those of a function around it are in place.
    pub attributes: Vec<(&'n str, &'n Attribute<'n>)>,
    /// The version of its operators.
    pub version: i64,
    pub inputs: Vec<Option<Value>>,
    /// For each of its outputs, whether something reads it.
    pub is_read: Vec<bool>,
}

impl<'n> NodeCall<'n> {
    pub fn operator(&self) -> &'n str {
        &self.node.operator
    }

    fn attribute(&self, name: &str) -> Option<&'n Stored<'n>> {
        let mut found = self.attributes.iter().filter(|(found, _)| *found == name);
        found.next().map(|(_, found)| &found.value)
    }

    pub fn has(&self, name: &str) -> bool {
        self.attribute(name).is_some()
    }

    pub fn stored(&self, name: &str) -> Option<&'n Stored<'n>> {
        self.attribute(name)
    }

    pub fn int(&self, name: &str, default: i64) -> Result<i64> {
        match self.attribute(name) {
            None => Ok(default),
            Some(Stored::Integer(number)) => Ok(*number),
            Some(_) => bail!("has an attribute {name} that is no integer"),
        }
    }

    pub fn flag(&self, name: &str, default: bool) -> Result<bool> {
        Ok(self.int(name, i64::from(default))? != 0)
    }

    pub fn float(&self, name: &str, default: f64) -> Result<f64> {
        match self.attribute(name) {
            None => Ok(default),
            Some(Stored::Float(number)) => Ok(f64::from(*number)),
            Some(_) => bail!("has an attribute {name} that is no number"),
        }
    }

    pub fn text(&self, name: &str, default: &'n str) -> Result<&'n str> {
        match self.attribute(name) {
            None => Ok(default),
            Some(Stored::Text(text)) => Ok(text),
            Some(_) => bail!("has an attribute {name} that is no text"),
        }
    }

    pub fn ints(&self, name: &str) -> Result<Option<Vec<i64>>> {
        match self.attribute(name) {
            None => Ok(None),
            Some(Stored::Integers(numbers)) => {
                ensure!(
                    numbers.len() <= 64,
                    "has an attribute {name} of {} numbers",
                    numbers.len()
                );
                Ok(Some(numbers.clone()))
            }
            Some(_) => bail!("has an attribute {name} that is no list of integers"),
        }
    }

    /// An input that need not be there.
    pub fn optional(&self, at: usize) -> Option<&Value> {
        self.inputs.get(at).and_then(Option::as_ref)
    }

    /// An input.
    ///
    /// # Errors
    /// Returns an error if it is not there.
    pub fn input(&self, at: usize) -> Result<&Value> {
        self.optional(at)
            .ok_or_else(|| anyhow!("lacks its input {}", at + 1))
    }

    /// An input as a tensor.
    pub fn tensor(&self, writer: &mut Writer, at: usize) -> Result<BuiltValue> {
        let value = self.input(at)?;
        writer.tensor(value)
    }

    /// An input as a tensor, if it is there.
    pub fn optional_tensor(&self, writer: &mut Writer, at: usize) -> Result<Option<BuiltValue>> {
        let value = self.optional(at);
        value.map(|value| writer.tensor(value)).transpose()
    }

    /// An input as integers.
    pub fn numbers(&self, writer: &mut Writer, at: usize) -> Result<Numbers> {
        let value = self.input(at)?;
        writer.numbers(value)
    }

    /// Constant integers: an attribute, or an input in later versions.
    pub fn ints_or_input(
        &self,
        writer: &mut Writer,
        name: &str,
        at: usize,
    ) -> Result<Option<Vec<i64>>> {
        if let Some(given) = self.ints(name)? {
            return Ok(Some(given));
        }
        let Some(value) = self.optional(at) else {
            return Ok(None);
        };
        let numbers = writer.numbers(value)?;
        let known = numbers.constants();
        known
            .with_context(|| format!("has {name} that depend on the images"))
            .map(Some)
    }

    /// The node with other inputs.
    pub fn with_inputs(&self, inputs: Vec<Option<Value>>) -> NodeCall<'n> {
        NodeCall {
            node: self.node,
            attributes: self.attributes.clone(),
            version: self.version,
            inputs,
            is_read: self.is_read.clone(),
        }
    }

    /// Refuses results other than the first `count` that something reads.
    pub fn only_results(&self, count: usize) -> Result<()> {
        let others = self.is_read.get(count..).unwrap_or_default();
        ensure!(
            !others.contains(&true),
            "has a result {} that is read, which prism does not compute",
            count + 1
        );
        Ok(())
    }

    /// A text of an attribute, for a message.
    pub fn unknown(&self, name: &str, value: &str) -> anyhow::Error {
        anyhow!("has {name} '{}', which prism does not run", shown(value))
    }
}
