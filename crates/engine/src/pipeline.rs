//! What every task shares: a model's tokenizer, session and limits, and the way from texts to batches and back.

use std::path::Path;
use std::sync::Arc;
use std::thread;

use mlxt_backend::TokenBatch;
use mlxt_models::{Config, Task, Weights};
use serde_json::{Map, Value};
use tokenizers::TruncationStrategy;

use crate::json::read_optional;
use crate::limits::{self, Limits};
use crate::options::{Listener, Options};
use crate::session::{Rows, Session};
use crate::text::{AutoTokenizer, TokenIds};
use crate::{Error, Event, Info, Result, batcher, device};

/// Settings of weights that are to be added to the model's (PEFT).
pub(crate) const ADAPTER: &str = "adapter_config.json";

/// What a model's files say beyond `config.json` and the tokenizer's.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FolderSettings {
    /// `max_seq_length` of sentence-transformers.
    pub(crate) max_tokens: Option<usize>,
    /// Whether texts are lowercased before they are tokenised.
    pub(crate) lowercase: bool,
}

/// A loaded model.
pub(crate) struct Pipeline {
    tokenizer: AutoTokenizer,
    session: Box<dyn Session>,
    info: Arc<Info>,
    config: Config,
    limit: usize,
    batch_tokens: usize,
    listener: Listener,
}

impl Pipeline {
    /// Loads the model in `folder`, with the head of a task if there is one: weights here, the tokenizer on a thread of
    /// its own (each takes about as long).
    pub(crate) fn load(folder: &Path, options: &Options, settings: FolderSettings, task: Option<Task>) -> Result<Self> {
        refuse_adapter(folder)?;
        let (tokenizer, loaded) = thread::scope(|scope| {
            let read = || AutoTokenizer::from_folder(folder, options.threads);
            let tokenizer = thread::Builder::new().spawn_scoped(scope, read);
            let loaded = load_session(folder, options, task);
            let tokenizer = match tokenizer {
                Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                // The system gives no thread: one after the other, then.
                Err(_) => read(),
            };
            (tokenizer, loaded)
        });
        let (config, session) = loaded?;
        let mut tokenizer = tokenizer?;
        let limits = Limits::new(config.max_tokens(), &tokenizer, settings.max_tokens);
        let limit = limits.choose(options.max_length)?;
        if settings.lowercase {
            tokenizer.lowercase()?;
        }
        if options.truncate {
            tokenizer.truncate_at(limit)?;
        }
        Ok(Self {
            tokenizer,
            info: Arc::new(session.info().clone()),
            session,
            config,
            limit,
            batch_tokens: options.batch_tokens,
            listener: Arc::clone(&options.listener),
        })
    }

    pub(crate) fn tokenizer(&self) -> &AutoTokenizer {
        &self.tokenizer
    }

    pub(crate) fn session(&self) -> &dyn Session {
        &*self.session
    }

    pub(crate) fn info(&self) -> &Arc<Info> {
        &self.info
    }

    /// The model's settings.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Cuts only the first text of too long pairs.
    pub(crate) fn truncate_first(&mut self) -> Result<()> {
        self.tokenizer.truncate_pairs_at(self.limit, TruncationStrategy::OnlyFirst)
    }

    /// The most tokens of one text.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// The ids of each text, every one within the model's limits.
    ///
    /// # Errors
    /// [`Error::Tokenise`], [`Error::NoTokens`], [`Error::TooLong`], [`Error::ForeignToken`], naming the text.
    pub(crate) fn tokenise<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<Vec<TokenIds>> {
        self.checked(self.tokenizer.ids(texts)?)
    }

    /// As [`Pipeline::tokenise`], of pairs of texts.
    pub(crate) fn tokenise_pairs<A, B>(&self, pairs: &[(A, B)]) -> Result<Vec<TokenIds>>
    where
        A: AsRef<str> + Sync,
        B: AsRef<str> + Sync,
    {
        self.checked(self.tokenizer.pair_ids(pairs)?)
    }

    /// The same ids, if every text is within the model's limits.
    pub(crate) fn checked(&self, ids: Vec<TokenIds>) -> Result<Vec<TokenIds>> {
        limits::check(&ids, self.limit, self.config.vocab_size())?;
        Ok(ids)
    }

    /// The head's logits of each text as a whole, in input order.
    pub(crate) fn sequence_logits(&self, ids: &[TokenIds]) -> Result<Vec<Vec<f32>>> {
        let mut results = vec![Vec::new(); ids.len()];
        self.for_each_batch(ids, |batch, places| {
            for (&place, logits) in places.iter().zip(self.session.sequence_logits(batch)?.iter()) {
                finite(place, logits)?;
                results[place] = logits.to_vec();
            }
            Ok(())
        })?;
        Ok(results)
    }

    /// The head's logits of each text's tokens, `[tokens, outputs]`, in input order.
    pub(crate) fn token_logits(&self, ids: &[TokenIds]) -> Result<Vec<Rows>> {
        let mut results = vec![Rows::default(); ids.len()];
        self.for_each_batch(ids, |batch, places| {
            let owners: Vec<usize> =
                places.iter().flat_map(|&place| std::iter::repeat_n(place, ids[place].ids.len())).collect();
            let rows: Vec<u32> = (0..owners.len() as u32).collect();
            self.session.logits(batch, &rows, &mut |row, logits| {
                finite(owners[row], logits)?;
                results[owners[row]].push(logits);
                Ok(())
            })
        })?;
        Ok(results)
    }

    /// Runs `forward` on batches of `texts`; it gets the batch and the places of its sequences in `texts`.
    ///
    /// # Errors
    /// The first of `forward`.
    pub(crate) fn for_each_batch(
        &self,
        texts: &[TokenIds],
        mut forward: impl FnMut(&TokenBatch, &[usize]) -> Result<()>,
    ) -> Result<()> {
        let lengths: Vec<usize> = texts.iter().map(|t| t.ids.len()).collect();
        let mut done = 0;
        for places in batcher::plan(&lengths, self.batch_tokens) {
            let joined =
                |part: fn(&TokenIds) -> &[u32]| places.iter().flat_map(|&i| part(&texts[i])).copied().collect();
            let own: Vec<usize> = places.iter().map(|&i| lengths[i]).collect();
            let batch = TokenBatch::new(joined(|t| &t.ids), joined(|t| &t.type_ids), &own)?;
            forward(&batch, &places)?;
            done += places.len();
            (self.listener)(Event::Computed { done, total: texts.len() });
        }
        Ok(())
    }
}

/// That all `values` of the text at `index` are numbers.
///
/// # Errors
/// [`Error::NonFinite`].
pub(crate) fn finite(index: usize, values: &[f32]) -> Result<()> {
    if values.iter().all(|v| v.is_finite()) { Ok(()) } else { Err(Error::NonFinite { index }) }
}

/// That nothing is to be added to the weights in `folder`.
///
/// # Errors
/// [`Error::UnsupportedSetting`] if there is an adapter beside them; a damaged or unreadable file.
pub(crate) fn refuse_adapter(folder: &Path) -> Result<()> {
    let path = folder.join(ADAPTER);
    let Some(adapter) = read_optional::<Map<String, Value>>(&path)? else { return Ok(()) };
    let found = adapter.get("peft_type").and_then(Value::as_str).unwrap_or("there").to_owned();
    let supported = "none; merge_and_unload() of PEFT adds it to the weights, save_pretrained(..) then saves these";
    Err(Error::UnsupportedSetting { path, setting: "the adapter", found, supported })
}

fn load_session(folder: &Path, options: &Options, task: Option<Task>) -> Result<(Config, Box<dyn Session>)> {
    let config = Config::open(folder)?;
    let weights = Weights::open(folder)?;
    let session = device::open(options.device, options.threads, options.precision, &config, &weights, task)?;
    Ok((config, session))
}
