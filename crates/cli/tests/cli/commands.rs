//! Every command on a model that is there: what its objects hold, and that options reach the engine.

use std::path::Path;

use serde_json::{Value, json};

use crate::{failure, fixture, golden, lines, mlxt, numbers, stdout};

#[test]
fn embed_gives_index_tokens_and_embedding() {
    let model = fixture("sentence-mean");
    let found = lines(&["embed", "-m", &model, "the quick fox", "", "a fox"]);
    assert_eq!(found.len(), 3);
    for (i, object) in found.iter().enumerate() {
        let keys: Vec<&String> = object.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["embedding", "index", "tokens"]);
        assert_eq!(object["index"], i);
        let norm = numbers(&object["embedding"]).iter().map(|x| x * x).sum::<f32>().sqrt();
        assert!((norm - 1.0).abs() < 1e-5, "{norm}");
    }
    assert_eq!(found[1]["tokens"], 2);
    let alone = lines(&["embed", "-m", &model, "a fox"]);
    assert_eq!(alone[0]["embedding"], found[2]["embedding"]);
}

#[test]
fn weights_of_half_the_size_give_nearly_the_same() {
    let model = fixture("bert");
    let embed = |dtype: &str| {
        let found = lines(&["embed", "-m", &model, "the quick brown fox", "--dtype", dtype]).remove(0);
        numbers(&found["embedding"])
    };
    let full = embed("f32");
    for (dtype, least) in [("bf16", 0.9999), ("f16", 0.999_999)] {
        let half = embed(dtype);
        let cosine: f32 = full.iter().zip(&half).map(|(a, b)| a * b).sum();
        assert!(half != full && cosine > least, "{dtype}: {cosine}");
    }
}

#[test]
fn embed_options_change_what_they_say() {
    let model = fixture("sentence-cls");
    let embed = |more: &[&str]| {
        let args = [&["embed", "-m", &model, "the quick brown fox"], more].concat();
        numbers(&lines(&args)[0]["embedding"])
    };
    let norm = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>().sqrt();
    let own = embed(&[]);
    assert_eq!(own, embed(&["--pooling", "cls"]));
    assert_eq!(own, embed(&["--threads", "1", "--batch-tokens", "1", "--device", "cpu", "--dtype", "f32"]));
    assert_eq!(own, embed(&["--no-normalize"]));
    assert!((norm(&own) - 1.0).abs() > 1e-3);
    let unit = embed(&["--normalize"]);
    assert!((norm(&unit) - 1.0).abs() < 1e-5);
    for (a, b) in own.iter().zip(&unit) {
        assert!((a / norm(&own) - b).abs() < 1e-6);
    }
    for pooling in ["mean", "max", "last"] {
        assert_ne!(own, embed(&["--pooling", pooling]), "{pooling}");
    }
}

#[test]
fn embed_puts_a_prompt_before_every_text() {
    let model = fixture("sentence-max");
    let plain = lines(&["embed", "-m", &model, "--prompt", "document", "the fox"]);
    assert_eq!(plain, lines(&["embed", "-m", &model, "the fox"]));
    let message = failure(1, &["embed", "-m", &model, "--prompt", "quest", "the fox"]);
    assert!(message.contains("no prompt \"quest\": it has document, query"), "{message}");
}

#[test]
fn features_agree_with_the_golden_tokens_and_shape() {
    for name in ["bert", "roberta", "xlm-roberta"] {
        let model = fixture(name);
        let cases = golden(name);
        let texts: Vec<&str> = cases.iter().map(|case| case["text"].as_str().unwrap()).collect();
        let found = lines(&[&["features", "-m", &model, "--"], &texts[..]].concat());
        assert_eq!(found.len(), cases.len());
        for (object, case) in found.iter().zip(&cases) {
            assert_eq!(object["tokens"], case["tokens"]);
            let tokens = case["tokens"].as_array().unwrap().len();
            assert_eq!(object["shape"][0], tokens);
            let hidden = object["shape"][1].as_u64().unwrap() as usize;
            assert_eq!(object["data"].as_array().unwrap().len(), tokens * hidden);
            assert!(object.get("pooler").is_none());
        }
    }
}

#[test]
fn the_pooler_comes_when_asked_for() {
    let found = lines(&["features", "-m", &fixture("bert"), "--pooler", "a fox"]);
    assert_eq!(found[0]["pooler"].as_array().unwrap().len() as u64, found[0]["shape"][1].as_u64().unwrap());
}

#[test]
fn tokenize_gives_the_golden_ids_and_tokens() {
    for name in ["bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra"] {
        let model = fixture(name);
        let cases = golden(name);
        let texts: Vec<&str> = cases.iter().map(|case| case["text"].as_str().unwrap()).collect();
        let found = lines(&[&["tokenize", "-m", &model, "--"], &texts[..]].concat());
        for (i, (object, case)) in found.iter().zip(&cases).enumerate() {
            assert_eq!(object, &json!({"index": i, "ids": case["ids"], "tokens": case["tokens"]}), "{name}");
        }
    }
}

#[test]
fn tokenize_cuts_when_told_to_and_only_then() {
    let model = fixture("bert");
    let long = "fox ".repeat(2000);
    let tokens = |more: &[&str]| {
        let found = lines(&[&["tokenize", "-m", &model, &long], more].concat());
        found[0]["ids"].as_array().unwrap().len()
    };
    assert!(tokens(&[]) >= 2002);
    assert_eq!(tokens(&["--truncate", "--max-length", "7"]), 7);
}

#[test]
fn inspect_tells_what_a_model_is() {
    let model = fixture("bert-pretraining");
    let found = &lines(&["inspect", &model, "--tensors"])[0];
    assert_eq!(found["model_type"], "bert");
    assert_eq!(found["folder"], *model);
    assert_eq!(found["config"]["model_type"], "bert");
    assert_eq!(found["tasks"], json!(["tokenize", "features", "embed", "fill-mask"]));
    assert!(found["task_heads"].as_array().unwrap().contains(&json!("cls.predictions")), "{}", found["task_heads"]);
    assert_eq!(found["tokenizer"]["kind"], "WordPiece");
    let list = found["tensors"]["list"].as_array().unwrap();
    assert_eq!(found["tensors"]["count"], list.len());
    let elements = |t: &Value| t["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).product::<u64>();
    let base: u64 = list.iter().filter(|t| t["role"] == "base").map(elements).sum();
    assert_eq!(found["parameters"], base);
    assert_eq!(found["memory"]["f32"], 4 * base);
    let product = |t: &&Value| {
        t["role"] == "base"
            && t["shape"].as_array().unwrap().len() == 2
            && t["name"].as_str().unwrap().contains(".layer.")
            || t["name"] == "bert.pooler.dense.weight"
    };
    let products: u64 = list.iter().filter(product).map(elements).sum();
    assert_eq!(found["memory"]["bf16"], 4 * base - 2 * products);
    let text = stdout(&["inspect", &model, "--format", "text"]);
    for part in ["bert: ", "in 1 file", "WordPiece", "a guess: no modules.json", "task heads"] {
        assert!(text.contains(part), "{part} not in {text}");
    }
    let text = stdout(&["inspect", &fixture("sentence-cls"), "--format", "text"]);
    assert!(text.contains("cls (from modules.json)") && text.contains("20 tokens by default"), "{text}");
}

#[test]
fn inspect_describes_a_model_that_cannot_be_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let config = std::fs::read_to_string(format!("{}/config.json", fixture("bert"))).unwrap();
    let mut config: Value = serde_json::from_str(&config).unwrap();
    config["num_hidden_layers"] = json!(7);
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let weights = format!("{}/model.safetensors", fixture("bert"));
    std::fs::copy(weights, folder.path().join("model.safetensors")).unwrap();
    let found = &lines(&["inspect", folder.path().to_str().unwrap()])[0];
    assert!(found["problem"].as_str().unwrap().contains("missing"), "{found}");
    assert!(found["tokenizer"]["problem"].as_str().unwrap().contains("tokenizer.json"));
    assert_eq!(found["tasks"], json!([]));
}

#[test]
fn doctor_names_every_device_and_what_to_do() {
    let found = &lines(&["doctor"])[0];
    let devices = found["devices"].as_array().unwrap();
    let device = |name: &str| devices.iter().find(|d| d["device"].as_str().unwrap().starts_with(name)).unwrap();
    assert_eq!(device("cpu")["usable"], true);
    assert!(!device("cpu")["detail"].as_str().unwrap().is_empty());
    for name in ["mlx", "cuda"] {
        let usable = device(name)["usable"].as_bool().unwrap();
        assert!(usable || !device(name)["advice"].as_str().unwrap().is_empty());
    }
    assert_eq!(found["hub"]["offline"], true);
    let cache = Path::new("/nonexistent/hf").join("hub").to_str().unwrap().to_owned();
    assert_eq!(found["hub"]["cache"], cache);
    let text = stdout(&["doctor", "--format", "text"]);
    for part in ["devices\n", "cpu ", "usable", &cache, "offline   yes"] {
        assert!(text.contains(part), "{part} not in {text}");
    }
}

#[test]
fn a_model_is_found_in_the_cache() {
    let home = tempfile::tempdir().unwrap();
    let repo = home.path().join("hub/models--org--tiny");
    let snapshot = repo.join("snapshots/0123456789abcdef0123456789abcdef01234567");
    std::fs::create_dir_all(repo.join("refs")).unwrap();
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::write(repo.join("refs/main"), "0123456789abcdef0123456789abcdef01234567").unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(format!("{}/{name}", fixture("bert")), snapshot.join(name)).unwrap();
    }
    let output = mlxt(["embed", "-m", "org/tiny", "a fox"]).env("HF_HOME", home.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), stdout(&["embed", "-m", &fixture("bert"), "a fox"]));
}

#[test]
fn the_device_is_said_when_asked_and_never_when_quiet() {
    let model = fixture("bert");
    let said = |flag: &str| {
        let output = mlxt(["embed", "-m", &model, flag, "a"]).output().unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(said("-v").starts_with("mlxt: running on cpu ("), "{}", said("-v"));
    assert_eq!(said("-q"), "");
}

#[test]
fn help_and_version_are_no_errors() {
    assert_eq!(stdout(&["--version"]), format!("mlxt {}\n", env!("CARGO_PKG_VERSION")));
    let tasks = ["fill-mask", "classify", "ner", "answer", "rerank", "zero-shot"];
    for command in ["embed", "features", "tokenize", "inspect", "pull", "doctor", "demo"].into_iter().chain(tasks) {
        assert!(stdout(&["--help"]).contains(command));
        assert!(stdout(&[command, "--help"]).contains("Usage: mlxt"));
    }
}
