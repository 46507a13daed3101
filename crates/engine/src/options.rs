//! How a model is loaded and run: one set of options, shared by everything that loads.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use mlxt_cpu::MOST_THREADS;

use crate::hub::Hub;
use crate::{Device, Error, Event, Precision, Result};

/// Tokens in one batch unless said otherwise.
pub const DEFAULT_BATCH_TOKENS: usize = 2048;

/// Called with every [`Event`], from the thread that loads or computes.
pub(crate) type Listener = Arc<dyn Fn(Event<'_>) + Send + Sync>;

/// The options of a [`Builder`], which sets them.
#[derive(Clone)]
pub struct Options {
    pub(crate) device: Device,
    pub(crate) precision: Precision,
    pub(crate) threads: Option<usize>,
    pub(crate) batch_tokens: usize,
    pub(crate) max_length: Option<usize>,
    pub(crate) truncate: bool,
    pub(crate) revision: Option<String>,
    pub(crate) hub: Hub,
    pub(crate) listener: Listener,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            device: Device::Auto,
            precision: Precision::F32,
            threads: None,
            batch_tokens: DEFAULT_BATCH_TOKENS,
            max_length: None,
            truncate: false,
            revision: None,
            hub: Hub::from_env(),
            listener: Arc::new(|_| {}),
        }
    }
}

impl Options {
    fn check(&self) -> Result<()> {
        let zero = [("threads", self.threads == Some(0)), ("batch tokens", self.batch_tokens == 0)];
        if let Some((option, _)) = zero.into_iter().find(|(_, zero)| *zero) {
            return Err(Error::ZeroOption { option });
        }
        match self.threads {
            Some(asked) if asked > MOST_THREADS => Err(Error::TooManyThreads { asked, most: MOST_THREADS }),
            _ => Ok(()),
        }
    }
}

/// What a [`Builder`] can build.
pub trait Load: Sized {
    /// Options of its own.
    #[doc(hidden)]
    type Extra: Default;

    #[doc(hidden)]
    fn load(name: &str, options: &Options, extra: Self::Extra) -> Result<Self>;
}

/// Options for loading a `T`: a [`crate::SentenceTransformer`], [`crate::AutoModel`] or [`crate::AutoTokenizer`].
///
/// ```no_run
/// use mlx_transformers::{AutoModel, Device, Precision};
///
/// let model = AutoModel::builder("google-bert/bert-base-uncased")
///     .device(Device::Cpu)
///     .dtype(Precision::F32)
///     .threads(4)
///     .truncate(true)
///     .build()?;
/// # Ok::<(), mlx_transformers::Error>(())
/// ```
#[must_use = "nothing is loaded before `build`"]
pub struct Builder<T: Load> {
    name: String,
    options: Options,
    extra: T::Extra,
    builds: PhantomData<fn() -> T>,
}

impl<T: Load> fmt::Debug for Builder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<T: Load> Builder<T> {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), options: Options::default(), extra: T::Extra::default(), builds: PhantomData }
    }

    pub(crate) fn extra(mut self, change: impl FnOnce(&mut T::Extra)) -> Self {
        change(&mut self.extra);
        self
    }

    /// Where to run; [`Device::Auto`] unless said otherwise.
    pub fn device(mut self, device: Device) -> Self {
        self.options.device = device;
        self
    }

    /// How weights are kept and multiplied; [`Precision::F32`] unless said otherwise.
    pub fn dtype(mut self, precision: Precision) -> Self {
        self.options.precision = precision;
        self
    }

    /// Threads for tokenising and, on the CPU, computing, at most [`MOST_THREADS`]; as many as the machine has unless said
    /// otherwise.
    pub fn threads(mut self, threads: usize) -> Self {
        self.options.threads = Some(threads);
        self
    }

    /// Tokens in one batch, [`DEFAULT_BATCH_TOKENS`] unless said otherwise. Results do not depend on it.
    pub fn batch_tokens(mut self, tokens: usize) -> Self {
        self.options.batch_tokens = tokens;
        self
    }

    /// The most tokens of a text, special tokens included; unless said otherwise what the model's files say.
    ///
    /// More than the files recommend is possible, more than the model has positions is an error.
    pub fn max_length(mut self, tokens: usize) -> Self {
        self.options.max_length = Some(tokens);
        self
    }

    /// Whether a too long text is cut (special tokens kept) instead of being an error; no unless said otherwise.
    pub fn truncate(mut self, truncate: bool) -> Self {
        self.options.truncate = truncate;
        self
    }

    /// The branch, tag or commit on the hub; `main` unless said otherwise.
    pub fn revision(mut self, revision: impl Into<String>) -> Self {
        self.options.revision = Some(revision.into());
        self
    }

    /// Whether to do without the network; as `HF_HUB_OFFLINE` says unless said otherwise.
    pub fn offline(mut self, offline: bool) -> Self {
        self.options.hub.offline = offline;
        self
    }

    /// The hub, its cache and credentials; [`Hub::from_env`] unless said otherwise.
    pub fn hub(mut self, hub: Hub) -> Self {
        self.options.hub = hub;
        self
    }

    /// Is called with what happens during downloads and long calls. Nothing is ever printed by the library itself.
    pub fn progress(mut self, listener: impl Fn(Event<'_>) + Send + Sync + 'static) -> Self {
        self.options.listener = Arc::new(listener);
        self
    }

    /// Finds the model's files (downloading what is missing) and loads it.
    ///
    /// # Errors
    /// Whatever keeps the model from being found, read or run: see the variants of [`Error`].
    pub fn build(self) -> Result<T> {
        self.options.check()?;
        T::load(&self.name, &self.options, self.extra)
    }
}
