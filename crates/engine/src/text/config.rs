//! `tokenizer_config.json` and `special_tokens_map.json`: what they change about `tokenizer.json`.
//!
//! `transformers` (version 5) builds some tokenizer classes anew from the vocabulary in `tokenizer.json` and the
//! settings in `tokenizer_config.json`; where the two files disagree, the settings win. [`TokenizerConfig::apply`]
//! does the same to a loaded tokenizer. Older folders have `added_tokens.json` as well. What the files do not say is left as `tokenizer.json` has it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::{AddedToken, ModelWrapper, Tokenizer, TruncationDirection, TruncationParams};

use super::tokens::{ExtraTokens, NamedTokens, TokenEntry, usual};
use super::unigram::{self, charsmap_of};
use crate::Result;
use crate::json::read_optional;

/// Lengths at or above this are `transformers`' way to write "unknown" (`int(1e30)`), not a limit.
const UNLIMITED: f64 = 1e9;

/// The settings that matter, with the defaults of `transformers`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TokenizerConfig {
    tokenizer_class: Option<String>,
    model_max_length: Option<f64>,
    /// Its name in old files.
    max_len: Option<f64>,
    do_lower_case: Option<bool>,
    strip_accents: Option<bool>,
    tokenize_chinese_chars: Option<bool>,
    add_prefix_space: Option<bool>,
    split_by_punct: Option<bool>,
    truncation_side: Option<String>,
    model_input_names: Option<Vec<String>>,
    clean_up_tokenization_spaces: Option<bool>,
    added_tokens_decoder: Option<BTreeMap<u32, TokenEntry>>,
    #[serde(alias = "additional_special_tokens")]
    extra_special_tokens: Option<ExtraTokens>,
    #[serde(flatten)]
    named: NamedTokens,
}

/// `special_tokens_map.json`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SpecialTokensMap {
    extra_special_tokens: Option<ExtraTokens>,
    additional_special_tokens: Option<ExtraTokens>,
    #[serde(flatten)]
    named: NamedTokens,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ModelType {
    model_type: Option<String>,
    tokenizer_class: Option<String>,
}

/// Which classes' settings win over `tokenizer.json`.
#[derive(Clone, Copy, PartialEq)]
enum Family {
    /// `BertTokenizer` and those like it: normalisation from the settings.
    WordPiece,
    /// `RobertaTokenizer`: the leading space from the settings.
    ByteLevel,
    /// Those over pieces of SentencePiece: all but the pieces from the class and the settings.
    Unigram(unigram::Class),
    /// All others: `tokenizer.json` as it is.
    Other,
}

/// How a class that is read without `tokenizer.json` keeps its vocabulary.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Vocabulary {
    /// `vocab.txt`.
    WordPiece,
    /// `vocab.json` and `merges.txt`.
    ByteLevel,
    /// A model of SentencePiece.
    Unigram(unigram::Class),
}

impl TokenizerConfig {
    /// Reads the files in `folder`; without them, the defaults.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let mut config: Self = read_optional(&folder.join("tokenizer_config.json"))?.unwrap_or_default();
        if config.added_tokens_decoder.is_none() {
            // As `transformers` does: the map counts only where the config does not list the tokens itself.
            let map: SpecialTokensMap = read_optional(&folder.join("special_tokens_map.json"))?.unwrap_or_default();
            config.named = map.named.or(config.named);
            config.extra_special_tokens = ExtraTokens::both(config.extra_special_tokens, map.extra_special_tokens);
            let added: Option<BTreeMap<String, u32>> = read_optional(&folder.join("added_tokens.json"))?;
            config.added_tokens_decoder = added.map(|added| config.old_added_tokens(added));
            // Under the old name only where there are none under the new one.
            config.extra_special_tokens = config.extra_special_tokens.or(map.additional_special_tokens);
        }
        if config.tokenizer_class.is_none() {
            let model: ModelType = read_optional(&folder.join("config.json"))?.unwrap_or_default();
            config.tokenizer_class = model.tokenizer_class.or_else(|| class_of(&model.model_type?).map(str::to_owned));
        }
        Ok(config)
    }

    /// The most tokens the tokenizer's author allows; `None` where the file says nothing or "unknown".
    pub(super) fn model_max_length(&self) -> Option<usize> {
        self.model_max_length.or(self.max_len).filter(|&n| (1.0..UNLIMITED).contains(&n)).map(|n| n as usize)
    }

    /// Whether decoded text loses spaces before punctuation, beyond what the decoder itself takes away.
    pub(super) fn cleans_up(&self) -> bool {
        self.clean_up_tokenization_spaces == Some(true)
    }

    /// The special tokens as the files name them, else as `transformers` does for classes like BERT's and like RoBERTa's.
    pub(super) fn names(&self) -> NamedTokens {
        let usual = match self.class() {
            "BertTokenizer" | "DistilBertTokenizer" | "ElectraTokenizer" => NamedTokens {
                unk_token: usual("[UNK]"),
                sep_token: usual("[SEP]"),
                pad_token: usual("[PAD]"),
                cls_token: usual("[CLS]"),
                mask_token: usual("[MASK]"),
                ..NamedTokens::default()
            },
            "RobertaTokenizer" | "XLMRobertaTokenizer" | "CamembertTokenizer" => NamedTokens {
                bos_token: usual("<s>"),
                eos_token: usual("</s>"),
                unk_token: usual("<unk>"),
                sep_token: usual("</s>"),
                pad_token: usual("<pad>"),
                cls_token: usual("<s>"),
                mask_token: usual("<mask>"),
            },
            "MPNetTokenizer" => NamedTokens {
                bos_token: usual("<s>"),
                eos_token: usual("</s>"),
                unk_token: usual("[UNK]"),
                sep_token: usual("</s>"),
                pad_token: usual("<pad>"),
                cls_token: usual("<s>"),
                mask_token: usual("<mask>"),
            },
            "DebertaV2Tokenizer" => NamedTokens {
                bos_token: usual("[CLS]"),
                eos_token: usual("[SEP]"),
                unk_token: usual("[UNK]"),
                sep_token: usual("[SEP]"),
                pad_token: usual("[PAD]"),
                cls_token: usual("[CLS]"),
                mask_token: usual("[MASK]"),
            },
            _ => NamedTokens::default(),
        };
        let mut named = self.named.clone().or(usual);
        if matches!(self.class(), "CamembertTokenizer" | "MPNetTokenizer") {
            named.mask_takes_spaces();
        }
        named
    }

    /// Whether too long texts lose their start instead of their end; where the settings do not say, as `stored` in
    /// `tokenizer.json`.
    pub(super) fn truncates_left(&self, stored: Option<&TruncationParams>) -> bool {
        match &self.truncation_side {
            Some(side) => side == "left",
            None => stored.is_some_and(|stored| stored.direction == TruncationDirection::Left),
        }
    }

    /// Makes `tokenizer` do what the settings say.
    pub(super) fn apply(&self, tokenizer: &mut Tokenizer) -> tokenizers::Result<()> {
        match self.family() {
            Family::WordPiece => {
                if let Some(NormalizerWrapper::BertNormalizer(normalizer)) = tokenizer.get_normalizer() {
                    let mut normalizer = *normalizer;
                    normalizer.lowercase = self.do_lower_case.unwrap_or(true);
                    normalizer.strip_accents = self.strip_accents;
                    normalizer.handle_chinese_chars = self.tokenize_chinese_chars.unwrap_or(true);
                    tokenizer.with_normalizer(Some(normalizer))?;
                }
            }
            Family::ByteLevel => {
                if let Some(PreTokenizerWrapper::ByteLevel(pre_tokenizer)) = tokenizer.get_pre_tokenizer() {
                    let mut pre_tokenizer = *pre_tokenizer;
                    pre_tokenizer.add_prefix_space = self.add_prefix_space();
                    tokenizer.with_pre_tokenizer(Some(pre_tokenizer));
                }
            }
            Family::Unigram(class) => {
                if let ModelWrapper::Unigram(_) = tokenizer.get_model() {
                    let charsmap = charsmap_of(tokenizer.get_normalizer());
                    class.set_parts(tokenizer, self.unigram(), charsmap)?;
                }
            }
            Family::Other => {}
        }
        self.add_tokens(tokenizer, Vec::new())
    }

    /// Adds the tokens that the settings name, then `more`, as far as `tokenizer` does not have them.
    pub(super) fn add_tokens(&self, tokenizer: &mut Tokenizer, more: Vec<AddedToken>) -> tokenizers::Result<()> {
        let known = tokenizer.get_added_vocabulary().get_added_tokens_decoder().clone();
        let is_known = |token: &AddedToken| known.values().any(|k| k.content == token.content);
        let listed = self.added_tokens_decoder.iter().flat_map(BTreeMap::values).map(|t| t.added(false));
        let named = self.named.all().map(|t| t.added(true));
        // What is listed with an id is as special as the list says.
        let is_listed = |token: &AddedToken| {
            self.added_tokens_decoder.iter().flat_map(BTreeMap::values).any(|listed| listed.content() == token.content)
        };
        let extra = self.extra_special_tokens.iter().flat_map(ExtraTokens::all).map(|t| t.added(true));
        let extra = extra.filter(|token| !is_listed(token));
        for token in listed.chain(named).chain(extra).chain(more).filter(|t| !is_known(t)) {
            if token.special {
                tokenizer.add_special_tokens([token])?;
            } else {
                tokenizer.add_tokens([token])?;
            }
        }
        Ok(())
    }

    /// How the class keeps its vocabulary where there is no `tokenizer.json`; `None` if that is not read.
    pub(super) fn vocabulary(&self) -> Option<Vocabulary> {
        match self.class() {
            "BertTokenizer" | "DistilBertTokenizer" | "ElectraTokenizer" | "MPNetTokenizer" => {
                Some(Vocabulary::WordPiece)
            }
            "RobertaTokenizer" => Some(Vocabulary::ByteLevel),
            class => unigram_class(class).map(Vocabulary::Unigram),
        }
    }

    /// Takes the class's names for the special tokens that the files do not name, as if a file did.
    pub(super) fn name_usual_tokens(&mut self) {
        self.named = self.names();
    }

    /// The text of the special token for `role`: `bos`, `eos`, `cls`, `sep`, `pad`, `mask` or `unk`; empty if there is
    /// none.
    pub(super) fn special(&self, role: &str) -> &str {
        let token = match role {
            "bos" => &self.named.bos_token,
            "eos" => &self.named.eos_token,
            "cls" => &self.named.cls_token,
            "sep" => &self.named.sep_token,
            "pad" => &self.named.pad_token,
            "mask" => &self.named.mask_token,
            _ => &self.named.unk_token,
        };
        token.as_ref().map_or("", TokenEntry::content)
    }

    /// What classes over pieces of SentencePiece heed.
    pub(super) fn unigram(&self) -> unigram::Settings {
        unigram::Settings {
            prefix_space: self.add_prefix_space.unwrap_or(true),
            lowercase: self.do_lower_case.unwrap_or(false),
            split_punctuation: self.split_by_punct.unwrap_or(false),
        }
    }

    /// Whether byte-level tokenizers put a space before every text.
    pub(super) fn add_prefix_space(&self) -> bool {
        self.add_prefix_space.unwrap_or(false)
    }

    /// The tokens of `added_tokens.json`, special where they are named as such elsewhere.
    fn old_added_tokens(&self, added: BTreeMap<String, u32>) -> BTreeMap<u32, TokenEntry> {
        let extra = self.extra_special_tokens.iter().flat_map(ExtraTokens::all);
        let special: Vec<&str> = self.named.all().chain(extra).map(TokenEntry::content).collect();
        let entry = |content: String| {
            let special = special.contains(&content.as_str());
            let (lstrip, rstrip, single_word) = (false, false, false);
            TokenEntry::Full {
                content,
                lstrip,
                rstrip,
                single_word,
                normalized: Some(!special),
                special: Some(special),
            }
        };
        added.into_iter().map(|(content, id)| (id, entry(content))).collect()
    }

    /// Whether the texts of a pair have a separator each between them, as RoBERTa's do.
    pub(super) fn separates_twice(&self) -> bool {
        self.class() == "MPNetTokenizer"
    }

    /// Whether the tokenizer gives token types at all; where it does not, they are 0 even in pairs.
    pub(super) fn has_types(&self) -> bool {
        if let Some(inputs) = &self.model_input_names {
            return inputs.iter().any(|input| input == "token_type_ids");
        }
        let without =
            ["DistilBertTokenizer", "RobertaTokenizer", "XLMRobertaTokenizer", "CamembertTokenizer", "MPNetTokenizer"];
        !without.contains(&self.class())
    }

    fn class(&self) -> &str {
        let class = self.tokenizer_class.as_deref().unwrap_or_default();
        class.strip_suffix("Fast").unwrap_or(class)
    }

    fn family(&self) -> Family {
        match self.class() {
            "BertTokenizer" | "DistilBertTokenizer" | "ElectraTokenizer" | "MPNetTokenizer" => Family::WordPiece,
            "RobertaTokenizer" => Family::ByteLevel,
            class => unigram_class(class).map_or(Family::Other, Family::Unigram),
        }
    }
}

/// The class `transformers` takes for a model that names none.
fn class_of(model_type: &str) -> Option<&'static str> {
    match model_type {
        "bert" | "distilbert" | "electra" | "nomic_bert" => Some("BertTokenizer"),
        "mpnet" => Some("MPNetTokenizer"),
        "roberta" => Some("RobertaTokenizer"),
        "xlm-roberta" => Some("XLMRobertaTokenizer"),
        "camembert" => Some("CamembertTokenizer"),
        "deberta-v2" => Some("DebertaV2Tokenizer"),
        _ => None,
    }
}

/// The class over pieces of SentencePiece of that name.
fn unigram_class(name: &str) -> Option<unigram::Class> {
    match name {
        "XLMRobertaTokenizer" => Some(unigram::Class::XlmRoberta),
        "CamembertTokenizer" => Some(unigram::Class::Camembert),
        "DebertaV2Tokenizer" => Some(unigram::Class::DebertaV2),
        _ => None,
    }
}
