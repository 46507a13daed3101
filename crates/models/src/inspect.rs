//! What a folder holds, without loading it onto a device: settings, tensors, what each is for, and what does not fit.

use std::path::Path;

use crate::encoder::fit;
use crate::{Config, Misfit, Result, Role, Task, TensorInfo, Weights, tasks_of};

/// A model's folder, described.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Inspection {
    /// The settings.
    pub config: Config,
    /// All tensors, sorted by name, with their role.
    pub tensors: Vec<(TensorInfo, Role)>,
    /// What the checkpoint can do, besides embeddings and features, which every encoder can.
    pub tasks: Vec<Task>,
    /// What keeps the model from being loaded, all of it; all lists are empty if nothing does.
    pub misfit: Misfit,
}

impl Inspection {
    /// Number of values in the base model's weights.
    pub fn parameters(&self) -> u64 {
        let base = self.tensors.iter().filter(|(_, role)| *role == Role::Base);
        base.map(|(tensor, _)| tensor.shape.iter().map(|&d| d as u64).product::<u64>()).sum()
    }

    /// Bytes of all tensors in the files.
    pub fn bytes(&self) -> u64 {
        self.tensors.iter().map(|(tensor, _)| tensor.bytes as u64).sum()
    }
}

/// Describes the model in `folder`. Weights that do not fit `config.json` are part of the answer, not an error.
///
/// # Errors
/// Those of [`Config::open`] and [`Weights::open`].
pub fn inspect(folder: impl AsRef<Path>) -> Result<Inspection> {
    let config = Config::open(&folder)?;
    let weights = Weights::open(&folder)?;
    let (roles, misfit) = fit(&config, &weights)?;
    let tensors = weights.tensors().map(|tensor| {
        let role = roles.get(&tensor.name).copied().unwrap_or(Role::Head);
        (tensor, role)
    });
    let tasks = tasks_of(&config, &weights);
    Ok(Inspection { tensors: tensors.collect(), tasks, config, misfit })
}
