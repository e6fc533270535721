//! Where an adapter's first tensors come from: a seed, or a file.

use std::{collections::BTreeMap, ops::ControlFlow};

use finetuned_torch::{Device, Kind, Tensor};

use crate::{error::ModelError, random::Key};

/// Hands out tensors by their keys in peft's files.
pub(crate) enum AdapterSource<'a> {
    Fresh {
        seed: u64,
        progress: &'a mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    },
    /// What the file holds and nobody has asked for, and what was wrong so far.
    Saved {
        left: BTreeMap<String, Tensor>,
        problems: Vec<String>,
    },
}

impl<'a> AdapterSource<'a> {
    /// `progress` hears (modules done, modules in all) and can stop.
    pub fn fresh(seed: u64, progress: &'a mut dyn FnMut(u64, u64) -> ControlFlow<()>) -> Self {
        Self::Fresh { seed, progress }
    }

    pub fn saved(tensors: Vec<(String, Tensor)>) -> Self {
        Self::Saved { left: tensors.into_iter().collect(), problems: Vec::new() }
    }

    /// The tensor `key`, which has `shape`: as saved, or made by `make` from what a draw of this name starts with. What is
    /// wrong with a file is noted and told by [`Self::finish`]; until then zeros stand in its place.
    pub fn take(
        &mut self,
        key: &str,
        shape: &[i64],
        make: impl FnOnce(Key) -> Result<Tensor, ModelError>,
    ) -> Result<Tensor, ModelError> {
        match self {
            Self::Fresh { seed, .. } => make(Key::new(*seed)),
            Self::Saved { left, problems } => match left.remove(key) {
                Some(tensor) if tensor.size() == shape => Ok(tensor),
                found => {
                    problems.push(match found {
                        Some(tensor) => format!("`{key}` has shape {:?} and not {shape:?}", tensor.size()),
                        None => format!("`{key}` is missing"),
                    });
                    Ok(Tensor::f_zeros(shape, (Kind::Float, Device::Cpu))?)
                }
            },
        }
    }

    /// Tells how far the adapter is made: a first weight may take a decomposition of a large matrix.
    ///
    /// # Errors
    /// [`ModelError::Stopped`].
    pub fn tell(&mut self, done: usize, total: usize) -> Result<(), ModelError> {
        let Self::Fresh { progress, .. } = self else { return Ok(()) };
        match progress(done as u64, total as u64) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(ModelError::Stopped),
        }
    }

    /// # Errors
    /// All missing, misshapen and unknown tensors.
    pub fn finish(self) -> Result<(), ModelError> {
        let Self::Saved { left, mut problems } = self else { return Ok(()) };
        problems.extend(left.keys().map(|key| format!("`{key}` belongs to no adapted module of this model")));
        if problems.is_empty() { Ok(()) } else { Err(ModelError::Adapter { problems }) }
    }
}

/// `shape` numbers, uniform in `±bound`.
pub(crate) fn uniform(key: Key, shape: [i64; 2], bound: f64) -> Result<Tensor, ModelError> {
    drawn(shape, |index| (2.0 * key.uniform(index) - 1.0) * bound)
}

/// `shape` numbers, normal with mean 0 and variance 1.
pub(crate) fn normal(key: Key, shape: [i64; 2]) -> Result<Tensor, ModelError> {
    drawn(shape, |index| key.normal(index))
}

fn drawn(shape: [i64; 2], draw: impl Fn(u64) -> f64) -> Result<Tensor, ModelError> {
    let values: Vec<f32> = (0..(shape[0] * shape[1]) as u64).map(|index| draw(index) as f32).collect();
    Ok(Tensor::f_from_slice(&values)?.f_view(shape)?)
}
