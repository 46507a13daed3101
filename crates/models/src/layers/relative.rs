//! What the scores of attention gain by distance: tables of a checkpoint, made into a backend's terms at load.

use mlxt_backend::{
    Activation, Backend, HostTensor, LinearPart, LinearWeight, MatrixSource, NormSource, Precision, RelativeSource,
};

use super::{Block, matrix};
use crate::arch::attention::{BucketTable, Distance, Projection};
use crate::weights::Loader;
use crate::{Config, Result};

/// The terms of all layers, as tensors of a checkpoint.
#[derive(Debug)]
pub(crate) enum RelativeParts {
    None,
    /// `[buckets, heads]`, and the bucket of each distance.
    Bias(LinearWeight, Vec<u32>),
    Projected(ProjectedParts),
}

/// Embedded distances, and what each layer makes of them.
#[derive(Debug)]
pub(crate) struct ProjectedParts {
    /// `[buckets, hidden]`
    embeddings: LinearWeight,
    norm: Option<NormSource>,
    buckets: Vec<u32>,
    /// What queries and keys are multiplied by, in each layer.
    layers: Vec<[Option<MatrixSource>; 2]>,
}

/// The terms of all layers on a backend.
#[derive(Debug)]
pub(crate) enum Relative<R> {
    None,
    Shared(R),
    Each(Vec<R>),
}

impl RelativeParts {
    /// `blocks` are all layers.
    pub(crate) fn request(
        loader: &mut Loader<'_>,
        config: &Config,
        blocks: &[Block<MatrixSource, NormSource>],
        precision: Precision,
    ) -> Self {
        let hidden = config.hidden_size();
        let mut table = |table: &BucketTable, cols: usize| loader.weight(table.name, table.entries, cols);
        match &config.attending.distance {
            Distance::Unseen => Self::None,
            Distance::Bias(bias) => Self::Bias(table(bias, config.heads()), bias.buckets.clone()),
            Distance::Projected(projected) => {
                let embeddings = table(&projected.table, hidden);
                let norm = projected.norm.map(|name| loader.layer_norm(name, hidden, config));
                let mut part = |projection, layer: usize| -> LinearPart {
                    match projection {
                        Projection::Tokens(part) => blocks[layer].qkv().parts[part].clone(),
                        Projection::Own(name) => {
                            let name = format!("{}.{layer}.{name}", config.architecture.names.layers);
                            loader.linear(&name, hidden, hidden, true)
                        }
                    }
                };
                let layers = (0..blocks.len()).map(|layer| {
                    [projected.keys, projected.queries]
                        .map(|projection| projection.map(|projection| matrix(part(projection, layer), precision)))
                });
                let layers = layers.collect();
                Self::Projected(ProjectedParts { embeddings, norm, buckets: projected.table.buckets.clone(), layers })
            }
        }
    }

    pub(crate) fn load<B: Backend>(self, backend: &B) -> Result<Relative<B::Relative>> {
        match self {
            Self::None => Ok(Relative::None),
            Self::Bias(table, buckets) => {
                let bias = Some(tensor(backend, &table.full())?);
                Ok(Relative::Shared(backend.relative(RelativeSource { buckets, keys: None, queries: None, bias })?))
            }
            Self::Projected(parts) => parts.load(backend),
        }
    }
}

impl ProjectedParts {
    fn load<B: Backend>(self, backend: &B) -> Result<Relative<B::Relative>> {
        let mut embedded = tensor(backend, &self.embeddings.full())?; // [buckets, hidden]
        if let Some(norm) = self.norm {
            embedded = backend.norm(embedded, None, &backend.norm_weights(norm)?)?;
        }
        let project = |source: Option<MatrixSource>| {
            let project = |source| backend.linear(&embedded, &backend.matrix(source)?, Activation::Identity);
            source.map(project).transpose()
        };
        let layers = self.layers.into_iter().map(|[keys, queries]| {
            let (keys, queries) = (project(keys)?, project(queries)?);
            if keys.is_none() && queries.is_none() {
                return Ok(None);
            }
            Ok(Some(backend.relative(RelativeSource { buckets: self.buckets.clone(), keys, queries, bias: None })?))
        });
        // All layers have the same parts: either each has a term, or none has.
        let layers: Option<Vec<B::Relative>> = layers.collect::<Result<Option<_>>>()?;
        Ok(layers.map_or(Relative::None, Relative::Each))
    }
}

impl<R> Relative<R> {
    /// The term of a layer.
    pub(crate) fn of(&self, layer: usize) -> Option<&R> {
        match self {
            Self::None => None,
            Self::Shared(one) => Some(one),
            Self::Each(layers) => layers.get(layer),
        }
    }
}

fn tensor<B: Backend>(backend: &B, table: &HostTensor) -> Result<B::Tensor> {
    let rows = table.shape().first().copied().unwrap_or(0);
    let values = table.to_f32();
    Ok(backend.write(rows, values.len() / rows.max(1), &values)?)
}
