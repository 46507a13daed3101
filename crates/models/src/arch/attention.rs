//! How the layers of a model attend: what their queries see, and how they know where it stands.

use mlxt_backend::Mask;

/// The attention of all layers.
#[derive(Debug, Clone)]
pub(crate) struct Attending {
    /// What scores are multiplied by.
    pub scale: f32,
    /// One for each layer.
    pub layers: Vec<Sight>,
    /// What scores gain by distance.
    pub distance: Distance,
}

impl Attending {
    /// Every layer sees everything, and nothing of where it stands.
    pub(crate) fn plain(layers: usize, head_size: usize) -> Self {
        let layers = vec![Sight { mask: Mask::Full, theta: None }; layers];
        Self { scale: (head_size as f32).sqrt().recip(), layers, distance: Distance::Unseen }
    }
}

/// What the queries of one layer see.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sight {
    pub mask: Mask,
    /// The base of the frequencies by which queries and keys are turned, where they are.
    pub theta: Option<f32>,
}

/// What scores gain by how far query and key are apart. Buckets are those of [`mlxt_backend::RelativeSource`].
#[derive(Debug, Clone)]
pub(crate) enum Distance {
    /// Nothing.
    Unseen,
    /// A number for each bucket and head, the same in all layers.
    Bias(BucketTable),
    /// Products of queries and keys with what each layer makes of one table of embeddings.
    Projected(Projected),
}

/// A table of a row for each bucket.
#[derive(Debug, Clone)]
pub(crate) struct BucketTable {
    /// Its tensor's name.
    pub name: &'static str,
    /// Its rows.
    pub entries: usize,
    /// The row of each distance.
    pub buckets: Vec<u32>,
}

/// Distances embedded, and projected in each layer.
#[derive(Debug, Clone)]
pub(crate) struct Projected {
    pub table: BucketTable,
    /// A norm of the embeddings.
    pub norm: Option<&'static str>,
    /// What queries are multiplied by.
    pub keys: Option<Projection>,
    /// What keys are multiplied by.
    pub queries: Option<Projection>,
}

/// A layer's projection of the embedded distances.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Projection {
    /// By a tensor of its own, of that name in the layer.
    Own(&'static str),
    /// By that of the tokens' queries (0) or keys (1).
    Tokens(usize),
}
