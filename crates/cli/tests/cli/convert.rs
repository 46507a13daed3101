//! `mlxt convert`, and what it wrote as a model.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::{NO_THREADS, error_line, failure, fixture, lines, mlxt, stdout};

const HIDDEN: usize = 64;

/// A BERT of random weights that is wide enough for groups, with the tokenizer of the fixture `bert`.
fn model(change: impl Fn(&str, &mut [f32])) -> TempDir {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model");
    fs::create_dir(&path).unwrap();
    for entry in fs::read_dir(fixture("bert")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name.contains("token") || name == "vocab.txt" {
            fs::copy(entry.path(), path.join(name)).unwrap();
        }
    }
    let text = fs::read_to_string(Path::new(&fixture("bert")).join("config.json")).unwrap();
    let mut config: Map<String, Value> = serde_json::from_str(&text).unwrap();
    for (name, value) in
        [("hidden_size", HIDDEN), ("intermediate_size", 96), ("num_hidden_layers", 1), ("num_attention_heads", 4)]
    {
        config.insert(name.into(), value.into());
    }
    fs::write(path.join("config.json"), Value::Object(config.clone()).to_string()).unwrap();
    fs::create_dir(path.join("1_Pooling")).unwrap();
    fs::write(path.join("1_Pooling/config.json"), "{}").unwrap();
    fs::create_dir(path.join("onnx")).unwrap();
    fs::write(path.join("onnx/model.onnx"), "").unwrap();

    let size = |name: &str| config[name].as_u64().unwrap() as usize;
    let mut tensors: Vec<(String, Vec<usize>)> = Vec::new();
    for (name, entries) in [
        ("word", size("vocab_size")),
        ("position", size("max_position_embeddings")),
        ("token_type", size("type_vocab_size")),
    ] {
        tensors.push((format!("embeddings.{name}_embeddings.weight"), vec![entries, HIDDEN]));
    }
    let layer = |name: &str| format!("encoder.layer.0.{name}");
    let square = ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"];
    let linear = square.map(|name| (layer(name), HIDDEN, HIDDEN)).into_iter();
    for (name, outputs, inputs) in
        linear.chain([(layer("intermediate.dense"), 96, HIDDEN), (layer("output.dense"), HIDDEN, 96)])
    {
        tensors.push((format!("{name}.weight"), vec![outputs, inputs]));
        tensors.push((format!("{name}.bias"), vec![outputs]));
    }
    for name in ["embeddings.LayerNorm".into(), layer("attention.output.LayerNorm"), layer("output.LayerNorm")] {
        tensors.extend(["weight", "bias"].map(|part| (format!("{name}.{part}"), vec![HIDDEN])));
    }
    let (mut header, mut data) = (Map::new(), Vec::new());
    let mut state = 1_u32;
    for (name, shape) in tensors {
        let mut values: Vec<f32> = (0..shape.iter().product::<usize>())
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 24) as f32 * 0.4 - 0.2
            })
            .collect();
        change(&name, &mut values);
        let first = data.len();
        data.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        header.insert(name, json!({ "dtype": "F32", "shape": shape, "data_offsets": [first, data.len()] }));
    }
    let header = Value::Object(header).to_string();
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    fs::write(path.join("model.safetensors"), file).unwrap();
    folder
}

fn paths(folder: &TempDir) -> (PathBuf, String, String) {
    let target = folder.path().join("packed");
    (target.clone(), folder.path().join("model").display().to_string(), target.display().to_string())
}

fn features(model: &str) -> Vec<f64> {
    let found = lines(&["features", "-m", model, "--format", "jsonl", "a cat sat"]);
    found[0]["data"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

#[test]
fn a_converted_model_is_smaller_and_says_about_the_same() {
    let folder = model(|_, _| {});
    let (target, from, to) = paths(&folder);
    let said = stdout(&["convert", "-m", &from, "--bits", "8", "--group", "32", "-o", &to]);
    assert!(said.contains("packed  6 matrices, 8 bits in groups of 32; 15 tensors are as they were"), "{said}");
    assert!(said.contains("size    ") && said.contains(&to), "{said}");
    let mut names: Vec<_> =
        fs::read_dir(&target).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert!(!names.contains(&"onnx".to_owned()) && names.contains(&"1_Pooling".to_owned()), "{names:?}");
    assert!(names.iter().any(|name| name.contains("token") || name == "vocab.txt"), "{names:?}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left beside them");
    let config: Value = serde_json::from_str(&fs::read_to_string(target.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["quantization"], json!({ "group_size": 32, "bits": 8, "mode": "affine" }));
    assert_eq!(config["quantization_config"], config["quantization"]);

    let (before, after) = (features(&from), features(&to));
    let moved = before.iter().zip(&after).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    // Steps of a 255th of 0.4, rounded to the nearest, through one layer.
    assert!(before.len() == after.len() && moved > 0.0 && moved < 0.02, "{moved}");

    let text = stdout(&["inspect", &to, "--format", "text"]);
    assert!(text.contains("quantised     affine, 8 bits, groups of 32"), "{text}");
    let parameters = |model: &str| lines(&["inspect", model, "--format", "jsonl"])[0]["parameters"].clone();
    assert_eq!(parameters(&from), parameters(&to));

    let again = folder.path().join("again").display().to_string();
    let error = failure(1, &["convert", "-m", &to, "--bits", "4", "-o", &again]);
    assert!(error.contains("is packed already"), "{error}");
}

#[test]
fn tables_are_packed_if_asked_and_what_fits_no_group_stays() {
    let folder = model(|_, _| {});
    let (_, from, to) = paths(&folder);
    let said = stdout(&["convert", "-m", &from, "--bits", "4", "--embeddings", "-o", &to]);
    assert!(said.contains("packed  8 matrices, 4 bits in groups of 64; 13 tensors are as they were"), "{said}");
    assert!(
        said.contains("1 of its tensors have inputs that are no whole groups (encoder.layer.0.output.dense.weight"),
        "{said}"
    );
    assert_eq!(features(&to).len(), features(&from).len());
}

#[test]
fn what_cannot_be_converted_leaves_nothing() {
    let folder = model(|name, values| {
        if name.ends_with("query.weight") {
            values[3] = f32::NAN;
        }
    });
    let (target, from, to) = paths(&folder);
    let error = failure(1, &["convert", "-m", &from, "--bits", "4", "-o", &to]);
    assert!(error.contains("the weight at element 3 is NaN"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    fs::create_dir(&target).unwrap();
    fs::write(target.join("mine"), "").unwrap();
    let error = failure(2, &["convert", "-m", &from, "--bits", "4", "-o", &to]);
    assert!(error.contains("is there and not an empty folder"), "{error}");
    for args in [["--bits", "3"], ["--group", "16"]] {
        let whole = [
            &["convert", "-m", &from, "-o", &to][..],
            &args,
            if args[0] == "--group" { &["--bits", "4"] } else { &[] },
        ];
        assert!(failure(2, &whole.concat()).contains("must be one of"));
    }
}

#[test]
fn where_no_folder_can_be_made_is_told_before_anything_is_written() {
    let folder = model(|_, _| {});
    let (target, from, _) = paths(&folder);
    fs::create_dir(&target).unwrap();
    let root = folder.path().canonicalize().unwrap().ancestors().last().unwrap().to_str().unwrap().to_owned();
    let inside = format!("{from}/packed");
    let deeper = format!("{from}/new/../packed");
    for (output, expected) in [
        (inside.as_str(), "is inside the model's own folder"),
        // Windows goes back from a folder without looking whether it is there.
        (&deeper, if cfg!(windows) { "is inside" } else { "leads through a folder that is not there" }),
        (".", "is the current folder"),
        ("../packed", "is the current folder"),
        ("..", "is the current folder or holds it"),
        (&root, "is a root"),
    ] {
        let run = mlxt(["convert", "-m", &from, "--bits", "8", "-o", output]).current_dir(&target).output().unwrap();
        let error = error_line(2, &run);
        assert!(error.contains(expected), "{output:?}: {error}");
    }
    assert_eq!((fs::read_dir(&target).unwrap().count(), fs::read_dir(folder.path()).unwrap().count()), (0, 2));
    assert!(!Path::new(&inside).exists() && !Path::new(&format!("{from}/new")).exists());
}

#[test]
#[cfg(unix)]
fn a_link_stays_a_link_and_must_lead_somewhere() {
    let folder = model(|_, _| {});
    let (target, from, _) = paths(&folder);
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&target, &link).unwrap();
    let convert = ["convert", "-m", &from, "--bits", "8", "-o", link.to_str().unwrap(), "-q"];
    let error = failure(2, &convert);
    assert!(error.contains("link is a link that cannot be followed"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    fs::create_dir(&target).unwrap();
    assert_eq!(stdout(&convert), "", "said nothing, as asked");
    assert!(link.is_symlink() && target.join("model.safetensors").exists());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
}

#[test]
fn a_model_of_which_nothing_can_be_packed_is_an_error() {
    let folder = TempDir::new().unwrap();
    let target = folder.path().join("packed");
    // Matrices of 18 and of 50 inputs are no whole groups.
    let model = fixture("bert");
    for (group, expected) in [("32", "and there are no smaller ones"), ("64", "a smaller --group may take them")] {
        let args = ["convert", "-m", &model, "--bits", "8", "--group", group, "-o", target.to_str().unwrap()];
        let error = failure(1, &args);
        assert!(error.contains("can be packed") && error.contains(expected), "{error}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_closed_stream_is_no_failure_and_a_full_one_an_error() {
    let folder = model(|_, _| {});
    let (target, from, to) = paths(&folder);
    let convert = || {
        let _ = fs::remove_dir_all(&target);
        mlxt(["convert", "-m", &from, "--bits", "8", "--group", "32", "-o", &to])
    };
    let closed = || std::io::pipe().unwrap().1;
    let output = convert().stdout(closed()).output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
    let output = convert().arg("-v").stderr(closed()).output().unwrap();
    assert!(output.status.success() && target.exists());
    #[cfg(target_os = "linux")]
    {
        let full = || fs::File::options().write(true).open("/dev/full").unwrap();
        let error = error_line(1, &convert().stdout(full()).output().unwrap());
        assert!(error.contains("cannot write standard output: No space left"), "{error}");
        assert!(convert().arg("-v").stderr(full()).output().unwrap().status.success());
    }
}

/// A limit on the size of files is as good as a full disk, and its signal as good as any other.
#[test]
#[cfg(unix)]
fn full_disks_and_kills_leave_no_folder_and_the_next_run_makes_it() {
    let folder = model(|_, _| {});
    let (target, from, to) = paths(&folder);
    let limited = |before: &str| {
        let script = format!("ulimit -c 0; ulimit -f 16; {before} exec \"$@\"");
        let program = env!("CARGO_BIN_EXE_mlxt");
        let args = ["-c", &script, "sh", program, "convert", "-m", &from, "--bits", "8", "-o", &to];
        std::process::Command::new("sh").args(args).env("HF_HUB_OFFLINE", "1").output().unwrap()
    };
    let full = limited("trap '' XFSZ;");
    let error = String::from_utf8_lossy(&full.stderr).into_owned();
    assert_eq!((full.status.code(), error.lines().count()), (Some(1), 1), "{error}");
    assert!(error.contains("cannot write ") && error.contains("model.safetensors"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);

    assert_eq!(limited("").status.code(), None, "killed");
    assert!(!target.exists());
    stdout(&["convert", "-m", &from, "--bits", "8", "-o", &to]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
#[cfg(target_os = "linux")]
fn no_thread_is_needed_where_nobody_sees_how_far_it_is() {
    let model = model(|_, _| {});
    let mut convert = mlxt(["convert", "--bits", "4", "-m"]);
    convert.arg(model.path().join("model")).arg("-o").arg(model.path().join("packed"));
    let output = convert.env(NO_THREADS.0, NO_THREADS.1).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
