//! Every fixture against what Hugging Face `transformers` computes: hidden states, pooler and embeddings, each text
//! alone and all of them in one batch, which gives the same bits.

use crate::fixtures::{Golden, OneLayer, Sequence, distance, fixture, normalised};
use mlxt_backend::{Backend, Precision, Reference, TokenBatch};
use mlxt_cpu::{Cpu, CpuOptions, Isa};
use mlxt_models::{Config, Encoder, Hidden, Pooling, Weights, pool};

const HIDDEN_TOLERANCE: f32 = 1e-5;
/// Of unit length; one that is not has the size of hidden states, and their tolerance.
const EMBEDDING_TOLERANCE: f32 = 1e-6;

/// Folder, pooling of its golden embedding, whether that has unit length, whether there is a pooler.
const FIXTURES: [(&str, Pooling, bool, bool); 18] = [
    ("bert", Pooling::Mean, true, true),
    ("bert-pretraining", Pooling::Mean, true, true),
    ("roberta", Pooling::Mean, true, false),
    ("xlm-roberta", Pooling::Mean, true, true),
    ("camembert", Pooling::Mean, true, false),
    ("distilbert", Pooling::Mean, true, false),
    ("electra", Pooling::Mean, true, false),
    ("electra-square", Pooling::Mean, true, false),
    ("mpnet", Pooling::Mean, true, false),
    ("deberta-v2", Pooling::Mean, true, false),
    ("deberta-v2-own", Pooling::Mean, true, false),
    ("deberta-v2-odd", Pooling::Mean, true, false),
    ("modernbert", Pooling::Mean, true, false),
    ("modernbert-biased", Pooling::Mean, true, false),
    ("nomic-bert", Pooling::Mean, true, false),
    ("sentence-mean", Pooling::Mean, true, true),
    ("sentence-cls", Pooling::Cls, false, true),
    ("sentence-max", Pooling::Max, false, false),
];

#[test]
fn reference_gives_transformers_numbers() {
    agrees(&Reference);
    activations_agree(&Reference);
    poolings_agree(&Reference);
}

#[test]
fn cpu_gives_transformers_numbers_with_every_instruction_set() {
    for isa in Isa::available() {
        let cpu = Cpu::new(CpuOptions { threads: Some(2), isa: Some(isa), ..CpuOptions::default() }).unwrap();
        agrees(&cpu);
        activations_agree(&cpu);
        poolings_agree(&cpu);
    }
}

#[test]
fn settings_may_say_the_same_in_other_words() {
    let (folder, golden) = (fixture("modernbert"), Golden::open("modernbert"));
    let text = std::fs::read_to_string(folder.join("config.json")).unwrap();
    let mut settings: serde_json::Value = serde_json::from_str(&text).unwrap();
    // As `transformers` 5.23 takes them: half a window counts before the whole, and this scaling is none.
    settings["local_attention"] = 128.into();
    settings["sliding_window"] = 3.into();
    settings["rope_scaling"] = serde_json::json!({"rope_type": "default"});
    let config = Config::from_json(&settings.to_string()).unwrap();
    let encoder = Encoder::load(&Reference, &config, &Weights::open(&folder).unwrap(), Precision::F32).unwrap();
    for case in &golden.cases {
        let hidden = encoder.forward(&Reference, &batch(&[&case.sequence])).unwrap();
        close(&case.text, "hidden state", &Reference.read(&hidden.tensor).unwrap(), &case.hidden, HIDDEN_TOLERANCE);
    }
    settings["rope_scaling"] = serde_json::json!({"rope_type": "linear", "factor": 2.0});
    assert!(Config::from_json(&settings.to_string()).is_err());
}

fn agrees<B: Backend>(backend: &B) {
    for (name, pooling, unit, has_pooler) in FIXTURES {
        let encoder = load(backend, name);
        assert_eq!(encoder.has_pooler(), has_pooler, "{name}");
        let golden = Golden::open(name);
        let all: Vec<&Sequence> = golden.cases.iter().map(|case| &case.sequence).collect();
        let together = encoder.forward(backend, &batch(&all)).unwrap();
        let ranges: Vec<_> = together.segments.ranges().collect();
        let (rows, pooled) = results(backend, &encoder, &together);
        for (i, case) in golden.cases.iter().enumerate() {
            let what = format!("{name}, case {i}, {:?}", case.text);
            let alone = encoder.forward(backend, &batch(&[&case.sequence])).unwrap();
            let (own_rows, own_pooled) = results(backend, &encoder, &alone);
            let hidden = encoder.config().hidden_size();
            assert_eq!(
                own_rows,
                rows[ranges[i].start * hidden..ranges[i].end * hidden],
                "{what}: alone and in a batch"
            );
            close(&what, "hidden state", &own_rows, &case.hidden, HIDDEN_TOLERANCE);
            if let Some(want) = &case.pooler {
                assert_eq!(own_pooled, pooled[i * hidden..][..hidden], "{what}: pooler alone and in a batch");
                close(&what, "pooler", &own_pooled, want, HIDDEN_TOLERANCE);
            }

            let kept = encoder.forward(backend, &batch(&[&case.sequence.truncated(case.embedding_tokens)])).unwrap();
            let mut embedding = backend.read(&pool(backend, &kept, pooling).unwrap()).unwrap();
            let mut tolerance = HIDDEN_TOLERANCE;
            if unit {
                (embedding, tolerance) = (normalised(&embedding), EMBEDDING_TOLERANCE);
            }
            close(&what, "embedding", &embedding, &case.embedding, tolerance);
        }
    }
}

fn activations_agree<B: Backend>(backend: &B) {
    let folder = fixture("activations");
    let weights = Weights::open(&folder).unwrap();
    let text = std::fs::read_to_string(folder.join("config.json")).unwrap();
    let golden = OneLayer::open();
    assert_eq!(golden.activations.len(), 22);
    let batch = TokenBatch::from_sequences(&[&golden.ids]).unwrap();
    for (name, want) in golden.activations {
        let mut settings: serde_json::Value = serde_json::from_str(&text).unwrap();
        settings["hidden_act"] = name.clone().into();
        let config = Config::from_json(&settings.to_string()).unwrap();
        let encoder = Encoder::load(backend, &config, &weights, Precision::F32).unwrap();
        let out = encoder.forward(backend, &batch).unwrap();
        close(&name, "hidden state", &backend.read(&out.tensor).unwrap(), &want, HIDDEN_TOLERANCE);
    }
}

fn poolings_agree<B: Backend>(backend: &B) {
    let golden = OneLayer::open();
    let out =
        load(backend, "activations").forward(backend, &TokenBatch::from_sequences(&[&golden.ids]).unwrap()).unwrap();
    for (pooling, mode) in [
        (Pooling::Cls, "cls"),
        (Pooling::Last, "lasttoken"),
        (Pooling::Max, "max"),
        (Pooling::Mean, "mean"),
        (Pooling::MeanSqrtLength, "mean_sqrt_len_tokens"),
        (Pooling::WeightedMean, "weightedmean"),
    ] {
        let found = backend.read(&pool(backend, &out, pooling).unwrap()).unwrap();
        close(mode, "pooled state", &found, &golden.pooled[mode], HIDDEN_TOLERANCE);
    }
}

fn load<B: Backend>(backend: &B, name: &str) -> Encoder<B> {
    let folder = fixture(name);
    let config = Config::open(&folder).unwrap();
    Encoder::load(backend, &config, &Weights::open(&folder).unwrap(), Precision::F32).unwrap()
}

fn batch(sequences: &[&Sequence]) -> TokenBatch {
    let lengths: Vec<usize> = sequences.iter().map(|s| s.ids.len()).collect();
    let ids = sequences.iter().flat_map(|s| s.ids.clone()).collect();
    let type_ids = sequences.iter().flat_map(|s| s.type_ids.clone()).collect();
    TokenBatch::new(ids, type_ids, &lengths).unwrap()
}

/// Hidden states, and the pooler's rows where there is one.
fn results<B: Backend>(backend: &B, encoder: &Encoder<B>, hidden: &Hidden<B>) -> (Vec<f32>, Vec<f32>) {
    let pooled = encoder.has_pooler().then(|| backend.read(&encoder.pooler(backend, hidden).unwrap()).unwrap());
    (backend.read(&hidden.tensor).unwrap(), pooled.unwrap_or_default())
}

fn close(what: &str, kind: &str, found: &[f32], want: &[f32], tolerance: f32) {
    let far = distance(found, want);
    assert!(far <= tolerance, "{what}: {kind} differs by {far:e}, more than {tolerance:e}");
}
