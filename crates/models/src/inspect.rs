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
        self.base().map(|(_, values)| values).sum()
    }

    /// The tensors of the base model's weights and how many values each holds: a packed one as many as it stands for, its
    /// scales and biases none.
    pub fn base(&self) -> impl Iterator<Item = (&TensorInfo, u64)> {
        let base = self.tensors.iter().filter(|(_, role)| *role == Role::Base).map(|(tensor, _)| tensor);
        base.map(|tensor| (tensor, self.values(tensor)))
    }

    fn values(&self, tensor: &TensorInfo) -> u64 {
        let elements = tensor.shape.iter().map(|&d| d as u64).product();
        let Some((module, part)) = tensor.name.rsplit_once('.') else { return elements };
        let scheme = self.config.quantisation().and_then(|all| all.scheme_of(module));
        let Some(scheme) = scheme.filter(|_| self.is_packed(module)) else { return elements };
        match part {
            "weight" => elements * u64::from(u32::BITS) / scheme.bits() as u64,
            "scales" | "biases" => 0,
            _ => elements,
        }
    }

    fn is_packed(&self, module: &str) -> bool {
        let weight = format!("{module}.weight");
        let found = self.tensors.binary_search_by(|(tensor, _)| tensor.name.cmp(&weight));
        found.is_ok_and(|i| self.tensors[i].0.dtype == "U32")
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
