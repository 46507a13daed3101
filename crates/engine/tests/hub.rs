//! Models from a hub: a small one on a local port, in good and in bad moods.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests

mod common;

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::server::{COMMIT, Fault, Server};
use common::{copy, fixtures};
use mlx_transformers::{Error, Event, Hub, HubError, ModelFolder, Origin, SentenceTransformer};

const ID: &str = "org/model";

fn hub(cache: &Path, endpoint: &str) -> Hub {
    Hub { cache: cache.join("hub"), data: cache.join("data"), endpoint: Some(endpoint.to_owned()), ..Hub::default() }
}

fn failure(hub: &Hub, name: &str) -> HubError {
    match hub.find(name, None) {
        Err(Error::Hub(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// Names of all files under `folder`, links included.
fn names(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                found.insert(entry.file_name().into_string().unwrap());
            }
        }
    }
    found
}

#[test]
fn a_model_is_downloaded_once_and_then_found_without_the_network() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(&fixtures().join("sentence-mean"), Fault::None);
    let hub = hub(cache.path(), &server.endpoint);
    let events = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&events);
    let model = SentenceTransformer::builder(ID)
        .hub(hub.clone())
        .progress(move |event| heard.lock().unwrap().push(format!("{event:?}")))
        .build()
        .unwrap();
    let local = SentenceTransformer::from_pretrained(fixtures().join("sentence-mean").display().to_string()).unwrap();
    assert_eq!(model.encode(&["a fox"]).unwrap().data(), local.encode(&["a fox"]).unwrap().data());
    let events = events.lock().unwrap();
    for part in ["Download { file: \"model.safetensors\"", "Received", "Downloaded { file: \"1_Pooling/config.json\" }"]
    {
        assert!(events.iter().any(|e| e.starts_with(part)), "{part} not in {events:?}");
    }

    // The layout is the one Python reads, and nothing else.
    let repo = hub.cache.join("models--org--model");
    assert_eq!(std::fs::read_to_string(repo.join("refs/main")).unwrap(), COMMIT);
    assert!(!repo.join("refs").join(COMMIT).exists());
    assert!(repo.join("snapshots").join(COMMIT).join("model.safetensors").is_file());
    assert!(repo.join(".no_exist").join(COMMIT).join("config_sentence_transformers.json").is_file());

    let asked = server.count();
    assert_eq!(hub.find(ID, None).unwrap().origin(), Origin::Cache);
    assert_eq!(hub.find(ID, Some(COMMIT)).unwrap().origin(), Origin::Cache);
    assert_eq!(Hub { offline: true, ..hub.clone() }.find(ID, None).unwrap().origin(), Origin::Cache);
    assert_eq!(server.count(), asked);

    assert_eq!(hub.pull(ID, None, |_| {}).unwrap().origin(), Origin::Hub);
    assert_eq!(server.count(), asked + 1, "a pull of what is there asks for the list of files only");
}

#[test]
fn a_transformer_in_a_folder_of_its_own_is_downloaded_from_there() {
    let cache = tempfile::tempdir().unwrap();
    let fixture = copy("sentence/own-folder");
    // Not a model's, and files that nothing needs.
    std::fs::write(fixture.path().join("config.json"), r#"{"__version__": "1.0.0"}"#).unwrap();
    std::fs::write(fixture.path().join("model.safetensors"), "nothing").unwrap();
    let server = Server::start(fixture.path(), Fault::None);
    let hub = hub(cache.path(), &server.endpoint);
    let model = SentenceTransformer::builder(ID).hub(hub.clone()).build().unwrap();
    let local = SentenceTransformer::from_pretrained(fixture.path().display().to_string()).unwrap();
    assert_eq!(model.encode(&["a fox"]).unwrap().data(), local.encode(&["a fox"]).unwrap().data());
    assert_eq!(model.max_length(), 20);
    assert_eq!(server.asked(&["GET", "0_Transformer/model.safetensors"]), 1);
    let needless = [format!("{COMMIT}/model.safetensors"), format!("{COMMIT}/config.json"), "golden".to_owned()];
    assert!(needless.iter().all(|file| server.asked(&[file]) == 0));

    let asked = server.count();
    let found = Hub { offline: true, ..hub.clone() }.find(ID, None).unwrap();
    assert_eq!(found.origin(), Origin::Cache);
    assert_eq!(found.transformer(), found.path().join("0_Transformer"));
    assert_eq!(hub.find(ID, None).unwrap().origin(), Origin::Cache);
    assert_eq!(server.count(), asked, "the model is complete");

    std::fs::rename(
        fixture.path().join("0_Transformer/model.safetensors"),
        fixture.path().join("0_Transformer/tf_model.h5"),
    )
    .unwrap();
    let server = Server::start(fixture.path(), Fault::None);
    let cache = tempfile::tempdir().unwrap();
    let hub = Hub { cache: cache.path().into(), endpoint: Some(server.endpoint.clone()), ..hub };
    assert_eq!(
        failure(&hub, ID).to_string(),
        "org/model on the hub has no 0_Transformer/model.safetensors; it has [0_Transformer/tf_model.h5]"
    );
}

#[test]
fn a_length_in_a_file_of_an_old_name_is_downloaded() {
    let cache = tempfile::tempdir().unwrap();
    let fixture = copy("sentence-mean");
    let old = fixture.path().join("sentence_distilbert_config.json");
    std::fs::rename(fixture.path().join("sentence_bert_config.json"), old).unwrap();
    let server = Server::start(fixture.path(), Fault::None);
    let hub = hub(cache.path(), &server.endpoint);
    assert_eq!(SentenceTransformer::builder(ID).hub(hub.clone()).build().unwrap().max_length(), 12);
    assert_eq!(hub.find(ID, None).unwrap().origin(), Origin::Cache);
}

#[test]
fn shards_and_revisions_are_followed() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(&fixtures().join("xlm-roberta"), Fault::None);
    let hub = hub(cache.path(), &server.endpoint);
    let folder = hub.find(ID, Some("refs/pr/1")).unwrap();
    assert!(folder.path().join("model-00003-of-00003.safetensors").is_file());
    assert_eq!(hub.find(ID, Some("refs/pr/1")).unwrap().origin(), Origin::Cache);
    assert!(matches!(Hub { offline: true, ..hub }.find(ID, None), Err(Error::Hub(HubError::Offline { .. }))));
}

#[test]
fn the_token_goes_to_the_hub_and_into_no_message() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(&fixtures().join("bert"), Fault::None);
    let hub = Hub { token: Some("hf_secret".into()), ..hub(cache.path(), &server.endpoint) };
    hub.find(ID, None).unwrap();
    assert!(server.requests.lock().unwrap().iter().all(|r| r.ends_with("bearer hf_secret")));
    server.set(Fault::Status(403));
    let error = failure(&hub, "org/other");
    assert!(matches!(&error, HubError::Refused { status: 403, .. }), "{error}");
    assert!(!error.to_string().contains("secret") && error.to_string().contains("check that the token"), "{error}");
}

#[test]
fn every_refusal_is_told_apart() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(&fixtures().join("bert"), Fault::None);
    let hub = hub(cache.path(), &server.endpoint);
    let error = failure(&hub, "org/misspelt");
    assert!(matches!(&error, HubError::NotFound { name, .. } if name == "org/misspelt"), "{error}");
    for (fault, expected) in [
        (Fault::Status(401), "the hub refuses org/model (401)"),
        (Fault::Status(500), "no usable answer for org/model: status 500"),
        (Fault::Nonsense, "no usable answer for org/model: json"),
        (Fault::NoHeaders, "no usable answer for org/model: config.json"),
        (Fault::Traversal, "no usable answer for org/model: \"../../../../escaped\" is no commit"),
        (Fault::EtagTraversal, "no usable answer for org/model: config.json: the answer has no usable ETag"),
    ] {
        server.set(fault);
        let error = failure(&hub, ID).to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(names(cache.path()).len(), 0, "{:?}", names(cache.path()));
}

#[test]
fn a_model_without_what_is_needed_is_named() {
    let cache = tempfile::tempdir().unwrap();
    let folder = copy("bert");
    std::fs::rename(folder.path().join("model.safetensors"), folder.path().join("tf_model.h5")).unwrap();
    let server = Server::start(folder.path(), Fault::None);
    let error = failure(&hub(cache.path(), &server.endpoint), ID).to_string();
    assert_eq!(error, "org/model on the hub has no model.safetensors; it has [tf_model.h5]");
}

#[test]
fn a_model_of_another_kind_is_named() {
    let cache = tempfile::tempdir().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let modules = r#"[{"path": "0_StaticEmbedding", "type": "sentence_transformers.models.StaticEmbedding"}]"#;
    std::fs::write(folder.path().join("modules.json"), modules).unwrap();
    let server = Server::start(folder.path(), Fault::None);
    let error = failure(&hub(cache.path(), &server.endpoint), ID);
    assert!(matches!(&error, HubError::NoTransformer { class, .. } if class.ends_with(".StaticEmbedding")), "{error}");
}

#[test]
fn an_unreachable_hub_fails_quickly() {
    let cache = tempfile::tempdir().unwrap();
    // A port that was free a moment ago: nobody listens.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let begun = Instant::now();
    let error = failure(&hub(cache.path(), &format!("http://{address}")), ID);
    assert!(matches!(&error, HubError::Unreachable { .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn a_hub_that_never_answers_is_given_up() {
    let cache = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let begun = Instant::now();
    let error = failure(&hub(cache.path(), &format!("http://{}", listener.local_addr().unwrap())), ID);
    assert!(error.to_string().contains("no answer for 10 seconds"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

#[test]
fn offline_never_connects() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(&fixtures().join("bert"), Fault::None);
    let hub = Hub { offline: true, ..hub(cache.path(), &server.endpoint) };
    for error in [hub.find(ID, None).unwrap_err(), hub.pull(ID, None, |_| {}).unwrap_err()] {
        assert!(matches!(&error, Error::Hub(HubError::Offline { name, .. }) if name == ID), "{error}");
    }
    assert_eq!(server.count(), 0);
}

/// The weights as they are in the fixture.
fn original() -> Vec<u8> {
    std::fs::read(fixtures().join("bert/model.safetensors")).unwrap()
}

fn weights(folder: &ModelFolder) -> Vec<u8> {
    std::fs::read(folder.path().join("model.safetensors")).unwrap()
}

#[test]
fn a_download_that_is_cut_again_and_again_goes_on_where_it_stopped() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(&fixtures().join("bert"), Fault::Cut);
    let heard = Mutex::new(0);
    let count = |event: Event<'_>| match event {
        Event::Download { file: "model.safetensors", .. } => *heard.lock().unwrap() = 0,
        Event::Received { file: "model.safetensors", bytes } => *heard.lock().unwrap() += bytes,
        _ => {}
    };
    let folder = hub(cache.path(), &server.endpoint).pull(ID, None, count).unwrap();
    assert_eq!(weights(&folder), original());
    assert_eq!(*heard.lock().unwrap(), original().len() as u64);
    assert_eq!(server.asked(&["GET", "model.safetensors", "from=0"]), 1);
    assert!(server.asked(&["GET", "model.safetensors"]) > 5);
}

#[test]
fn a_download_that_dies_leaves_no_model_and_the_next_goes_on() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(&fixtures().join("bert"), Fault::Dead);
    let hub = Hub { download_timeout: Some(Duration::from_millis(200)), ..hub(cache.path(), &server.endpoint) };
    for fault in [Fault::Dead, Fault::Stall] {
        server.set(fault);
        let error = failure(&hub, ID);
        assert!(matches!(&error, HubError::BrokeOff { file, .. } if file == "model.safetensors"), "{error}");
        if fault == Fault::Stall {
            assert!(error.to_string().contains("no answer for 0.2 seconds"), "{error}");
        }
        assert!(!names(&hub.cache).contains("model.safetensors"));
        assert!(!hub.cache.join("models--org--model/refs/main").exists());
        let offline = Hub { offline: true, ..hub.clone() };
        assert!(matches!(offline.find(ID, None), Err(Error::Hub(HubError::Offline { .. }))));
    }
    let begun = server.count();
    server.set(Fault::None);
    assert_eq!(weights(&hub.pull(ID, None, |_| {}).unwrap()), original());
    let half = format!("from={}", original().len() / 2);
    assert!(server.requests.lock().unwrap()[begun..].iter().any(|request| request.contains(&half)));
    assert!(!names(&hub.cache).iter().any(|name| name.ends_with(".incomplete")));
}

#[test]
fn a_file_that_changed_is_not_spliced_onto_the_old_one() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(&fixtures().join("bert"), Fault::Dead);
    let hub = hub(cache.path(), &server.endpoint);
    failure(&hub, ID);
    let changed: Vec<u8> = original().iter().map(|byte| !byte).collect();
    server.replace("model.safetensors", changed.clone());
    server.set(Fault::None);
    assert_eq!(weights(&hub.pull(ID, None, |_| {}).unwrap()), changed);
}

#[test]
fn hubs_without_ranges_or_with_wrong_ones_are_read_from_the_start() {
    for fault in [Fault::NoRanges, Fault::WrongRange] {
        let cache = tempfile::tempdir().unwrap();
        let server = Server::start(&fixtures().join("bert"), fault);
        let pulled = hub(cache.path(), &server.endpoint).pull(ID, None, |_| {});
        if fault == Fault::NoRanges {
            assert_eq!(weights(&pulled.unwrap()), original());
        } else {
            // Half, something else, half ..: what came is never joined, and it ends.
            assert!(matches!(pulled.unwrap_err(), Error::Hub(HubError::BrokeOff { .. })));
            server.set(Fault::None);
            assert_eq!(weights(&hub(cache.path(), &server.endpoint).pull(ID, None, |_| {}).unwrap()), original());
        }
    }
}

#[test]
fn lengths_that_lie_are_found_out() {
    for (fault, expected) in [(Fault::Longer, "size should be"), (Fault::Shorter, "broke off")] {
        let cache = tempfile::tempdir().unwrap();
        let server = Server::start(&fixtures().join("bert"), fault);
        let hub = hub(cache.path(), &server.endpoint);
        let error = failure(&hub, ID).to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!names(&hub.cache).contains("model.safetensors"));
    }
}

#[test]
fn a_slow_hub_is_waited_for() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(&fixtures().join("bert"), Fault::Slow);
    let hub = Hub { download_timeout: Some(Duration::from_secs(2)), ..hub(cache.path(), &server.endpoint) };
    assert_eq!(weights(&hub.pull(ID, None, |_| {}).unwrap()), original());
    assert_eq!(server.asked(&["GET", "model.safetensors"]), 1);
}

#[test]
fn a_busy_hub_is_asked_again_when_it_says() {
    for status in [429, 500, 503] {
        let cache = tempfile::tempdir().unwrap();
        let server = Server::start(&fixtures().join("bert"), Fault::Busy(2, status, 1));
        let begun = Instant::now();
        hub(cache.path(), &server.endpoint).find(ID, None).unwrap();
        assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
        assert_eq!(server.asked(&["GET /api/"]), 3);
    }
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(&fixtures().join("bert"), Fault::Busy(9, 429, 3600));
    let error = failure(&hub(cache.path(), &server.endpoint), ID);
    assert!(matches!(&error, HubError::Busy { wait: Some(wait), .. } if wait.as_secs() == 3600), "{error}");
    assert!(error.to_string().contains("in 3600 seconds"), "{error}");
    assert_eq!(server.count(), 1);
}

#[test]
fn another_host_gets_the_question_without_the_token() {
    let cache = tempfile::tempdir().unwrap();
    let other = Server::start(&fixtures().join("bert"), Fault::None);
    let server = Server::start(&fixtures().join("bert"), Fault::Elsewhere(other.port));
    let hub = Hub { token: Some("hf_secret".into()), ..hub(cache.path(), &server.endpoint) };
    assert_eq!(weights(&hub.pull(ID, None, |_| {}).unwrap()), original());
    assert_eq!((other.count(), other.asked(&["hf_secret"])), (1, 0));
    assert_eq!(server.asked(&["hf_secret"]), server.count());
    // Resumed there too, and still checked.
    let cache = tempfile::tempdir().unwrap();
    other.set(Fault::Cut);
    assert_eq!(weights(&self::hub(cache.path(), &server.endpoint).pull(ID, None, |_| {}).unwrap()), original());
    assert_eq!(other.asked(&["from=0"]), 2);
}

#[test]
fn a_damaged_download_is_removed() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(&fixtures().join("bert"), Fault::Damage);
    let hub = hub(cache.path(), &server.endpoint);
    let error = failure(&hub, ID);
    assert!(matches!(&error, HubError::Damaged { what: "sha256", .. }), "{error}");
    assert!(!names(&hub.cache).iter().any(|name| name.starts_with("abab") && !name.contains(".lock")));
    server.set(Fault::None);
    hub.find(ID, None).unwrap();
}

const CHILD: &str = "MLXT_TEST_PULL";

/// Not a test of its own: what each process of the next one does.
#[test]
fn pulled_by_another_process() {
    let Ok(setting) = std::env::var(CHILD) else { return };
    let (endpoint, cache) = setting.split_once(' ').unwrap();
    let folder = hub(Path::new(cache), endpoint).pull(ID, None, |_| {}).unwrap();
    assert_eq!(weights(&folder), original());
}

#[test]
fn processes_that_pull_the_same_model_do_not_clash() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(&fixtures().join("bert"), Fault::Slow);
    let start = || {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "pulled_by_another_process"]);
        child.env(CHILD, format!("{} {}", server.endpoint, cache.path().display()));
        child.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
    };
    let children: Vec<_> = (0..4).map(|_| start()).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}: {said}", output.status);
        assert!(said.contains("1 passed"));
    }
    assert_eq!(server.asked(&["GET", "model.safetensors"]), 1, "one downloads, the others wait for it");
}

#[test]
fn a_name_that_is_neither_folder_nor_id_says_both() {
    let cache = tempfile::tempdir().unwrap();
    let error = hub(cache.path(), "http://127.0.0.1:9").find("./missing/folder/here", None).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("neither an existing folder nor a hub id") && text.contains("./missing"), "{text}");
}
