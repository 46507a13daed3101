//! `pytorch_model.bin`: the same values as safetensors, and files made to harm: each gives its own error.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::fixtures::{Golden, distance, fixture};
use mlxt_backend::{Backend, Precision, Reference, TokenBatch};
use mlxt_models::{Config, Encoder, Error, Role, TorchError, Weights, inspect};
use tempfile::TempDir;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

const ONE: &str = "pytorch_model.bin";

/// The start of a state dict's pickle: protocol 2 and an empty dict, kept as object 0.
const DICT: &[u8] = b"\x80\x02}q\x00";

/// Whether an error is the right one.
type Judge = fn(&TorchError) -> bool;

/// A folder with the named files of the fixture `electra-bin`.
fn part_of_fixture(names: impl Fn(&str) -> bool) -> TempDir {
    let folder = TempDir::new().unwrap();
    for entry in fs::read_dir(fixture("electra-bin")).unwrap() {
        let entry = entry.unwrap();
        if names(entry.file_name().to_str().unwrap()) {
            fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
    }
    folder
}

/// What `folder`'s `pytorch_model.bin` of these bytes is refused for.
fn refused(bytes: &[u8]) -> TorchError {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join(ONE), bytes).unwrap();
    match Weights::open(folder.path()) {
        Err(error @ Error::Torch { .. }) => {
            let message = error.to_string();
            assert!(message.contains(ONE) && !message.contains('\n'), "{message}");
            let Error::Torch { source, .. } = error else { unreachable!() };
            source
        }
        other => panic!("{:?}", other.map(|weights| weights.tensors().count())),
    }
}

/// An archive with these entries under the root `archive`.
fn archive(entries: &[(&str, &[u8])], compression: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(compression);
    for (name, content) in entries {
        zip.start_file(format!("archive/{name}"), options).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// An archive with this pickle and one storage, `0`, of 16 bytes.
fn with_pickle(pickle: &[u8]) -> Vec<u8> {
    archive(&[("data.pkl", pickle), ("byteorder", b"little"), ("data/0", &[0; 16])], CompressionMethod::Stored)
}

fn text(value: &str) -> Vec<u8> {
    [&[0x8c, value.len() as u8], value.as_bytes()].concat()
}

fn number(value: i64) -> Vec<u8> {
    [&[0x8a, 8], &value.to_le_bytes()[..]].concat()
}

fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
    [b"(".to_vec(), items.concat(), b"t".to_vec()].concat()
}

/// The pickle of a dict with one f32 tensor, `weight`.
fn one_tensor(key: &str, elements: i64, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    let storage =
        tuple(&[text("storage"), b"ctorch\nFloatStorage\n".to_vec(), text(key), text("cpu"), number(elements)]);
    let numbers = |values: &[i64]| tuple(&values.iter().map(|&v| number(v)).collect::<Vec<_>>());
    let hooks = b"ccollections\nOrderedDict\n)R".to_vec();
    let arguments = tuple(&[
        [&storage[..], b"Q"].concat(),
        number(offset),
        numbers(shape),
        numbers(strides),
        b"\x89".to_vec(),
        hooks,
    ]);
    [DICT, &text("weight"), b"ctorch._utils\n_rebuild_tensor_v2\n", &arguments, b"Rs."].concat()
}

fn load(folder: &Path) -> (Config, Encoder<Reference>) {
    let config = Config::open(folder).unwrap();
    let encoder = Encoder::load(&Reference, &config, &Weights::open(folder).unwrap(), Precision::F32).unwrap();
    (config, encoder)
}

fn described(folder: &Path) -> BTreeMap<String, (String, Vec<usize>, usize)> {
    Weights::open(folder).unwrap().tensors().map(|t| (t.name, (t.dtype, t.shape, t.bytes))).collect()
}

#[test]
fn whole_and_in_shards_it_gives_what_safetensors_gives() {
    let whole = part_of_fixture(|name| !name.contains("-0000") && !name.contains("index"));
    let sharded = part_of_fixture(|name| name != ONE);
    let golden = Golden::open("electra-square");
    let mut expected = described(&fixture("electra-square"));
    expected.insert("embeddings.position_ids".into(), ("I64".into(), vec![1, 39], 8 * 39));
    for folder in [whole, sharded] {
        assert_eq!(described(folder.path()), expected);
        let (_, encoder) = load(folder.path());
        let (_, from_safetensors) = load(&fixture("electra-square"));
        for case in &golden.cases {
            let batch =
                TokenBatch::new(case.sequence.ids.clone(), case.sequence.type_ids.clone(), &[case.sequence.ids.len()])
                    .unwrap();
            let run = |encoder: &Encoder<Reference>| {
                Reference.read(&encoder.forward(&Reference, &batch).unwrap().tensor).unwrap()
            };
            let hidden = run(&encoder);
            assert_eq!(hidden, run(&from_safetensors), "{:?}", case.text);
            assert!(distance(&hidden, &case.hidden) <= 1e-5, "{:?}", case.text);
        }
    }
    let found = inspect(fixture("electra-bin")).unwrap();
    assert!(found.misfit.is_empty());
    let ids = found.tensors.iter().find(|(tensor, _)| tensor.name == "embeddings.position_ids").unwrap();
    assert_eq!(ids.1, Role::Buffer);
}

#[test]
fn safetensors_go_first_and_one_file_before_shards() {
    let folder = part_of_fixture(|_| true);
    let files = || {
        let files: std::collections::BTreeSet<PathBuf> =
            Weights::open(folder.path()).unwrap().tensors().map(|t| t.file).collect();
        files.into_iter().map(|file| file.file_name().unwrap().to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(files(), [ONE]);
    fs::copy(fixture("electra-square").join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    assert_eq!(files(), ["model.safetensors"]);
}

#[test]
fn shards_and_index_must_fit() {
    let folder = part_of_fixture(|name| name != ONE);
    let second = folder.path().join("pytorch_model-00002-of-00002.bin");
    fs::copy(folder.path().join("pytorch_model-00001-of-00002.bin"), &second).unwrap();
    assert!(matches!(Weights::open(folder.path()), Err(Error::Duplicate { .. })));
    fs::remove_file(second).unwrap();
    assert!(matches!(Weights::open(folder.path()), Err(Error::ShardMissing { .. })));
}

#[test]
fn a_pickle_that_would_run_code_is_refused_by_name() {
    let calls: [(&[u8], &str); 4] = [
        (b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.", "os.system"),
        (b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x01a\x85R.", "builtins.eval"),
        (b"\x80\x02ctorch.storage\n_load_from_bytes\n)R.", "torch.storage._load_from_bytes"),
        (
            b"\x80\x02ctransformers.models.bert.modeling_bert\nBertModel\n)\x81.",
            "transformers.models.bert.modeling_bert.BertModel",
        ),
    ];
    for (pickle, want) in calls {
        let error = refused(&with_pickle(pickle));
        assert!(matches!(&error, TorchError::Global { name } if name == want), "{error}");
    }
    // Even within a state dict that is otherwise in order, and never used.
    let mut pickle = one_tensor("0", 4, 0, &[4], &[1]);
    pickle.splice(DICT.len()..DICT.len(), *b"cposix\nsystem\n0");
    assert!(matches!(refused(&with_pickle(&pickle)), TorchError::Global { .. }));
    // Classes without a call, and extensions that name what to call by number.
    for (code, pickle) in
        [(0x81, &b"ccollections\nOrderedDict\n)\x81."[..]), (0x82, b"\x82\x01."), (b'i', b"(ios\nsystem\n.")]
    {
        assert!(matches!(refused(&with_pickle(pickle)), TorchError::Instruction { code: found, .. } if found == code));
    }
}

#[test]
fn the_made_tensor_is_read() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join(ONE), with_pickle(&one_tensor("0", 4, 0, &[2, 2], &[1, 2]))).unwrap();
    assert_eq!(described(folder.path()), BTreeMap::from([("weight".into(), ("F32".into(), vec![2, 2], 16))]));
}

#[test]
fn storages_are_not_left() {
    let cases: [(Vec<u8>, Judge); 8] = [
        (one_tensor("0", 4, 1, &[4], &[1]), |e| matches!(e, TorchError::TensorOutside { needed: 5, found: 4, .. })),
        (one_tensor("0", 4, 0, &[2, 2], &[3, 1]), |e| matches!(e, TorchError::TensorOutside { needed: 5, .. })),
        (one_tensor("0", 4, i64::MAX, &[1], &[1]), |e| matches!(e, TorchError::TensorOutside { .. })),
        (one_tensor("0", 4, -1, &[1], &[1]), |e| matches!(e, TorchError::Object { found: "a negative one", .. })),
        (one_tensor("0", 5, 0, &[5], &[1]), |e| matches!(e, TorchError::Storage { expected: 20, found: 16, .. })),
        (one_tensor("0", 4, 0, &[1 << 40, 4], &[0, 1]), |e| matches!(e, TorchError::Limit { .. })),
        (one_tensor("0", 4, 0, &[1; 17], &[1; 17]), |e| matches!(e, TorchError::Limit { what: "dimensions", .. })),
        (one_tensor("1", 4, 0, &[4], &[1]), |e| matches!(e, TorchError::NoEntry { name } if name == "archive/data/1")),
    ];
    for (pickle, is_right) in cases {
        let error = refused(&with_pickle(&pickle));
        assert!(is_right(&error), "{error:?}");
    }
    for key in ["../data.pkl", "", "/etc/passwd"] {
        assert!(matches!(refused(&with_pickle(&one_tensor(key, 4, 0, &[4], &[1]))), TorchError::NoEntry { .. }));
    }
}

#[test]
fn what_would_fill_the_memory_is_refused() {
    let limit = |pickle: &[u8]| matches!(refused(&with_pickle(pickle)), TorchError::Limit { .. });
    assert!(limit(b"\x80\x02}r\xff\xff\xff\xff."), "LONG_BINPUT");
    assert!(limit(&vec![b'('; 1 << 21]), "marks");
    assert!(limit(&vec![b')'; 1 << 21]), "stack");
    assert!(limit(&[&b"}"[..], &vec![0x94; 1 << 21]].concat()), "memo");
    assert!(limit(&vec![b'N'; (1 << 24) + 1]), "length");
    // Nested as deep as the limits allow, and made of itself: no recursion anywhere.
    let deep = [&b"N"[..], &vec![0x85; 1 << 19], b"."].concat();
    assert!(matches!(refused(&with_pickle(&deep)), TorchError::NoTensors));
    let circular = b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.";
    assert!(matches!(refused(&with_pickle(circular)), TorchError::NoTensors));
    let ends = b"\x80\x02}X\xff\xff\xff\x7fabc";
    assert!(matches!(refused(&with_pickle(ends)), TorchError::PickleEnds { at: 11 }));
}

#[test]
fn objects_that_do_not_fit_are_named() {
    let cases: [(&[u8], &str, &str); 9] = [
        (b".", "an object", "nothing"),
        (b"(.", "an object", "nothing"),
        (b"t", "a mark", "none"),
        (b"}h\x07.", "an object", "a number that stands for none"),
        (b"}(Nu.", "keys and values", "an odd number of them"),
        (b"NNNs.", "a dict", "None"),
        (b"N)R.", "a function", "None"),
        (b"NQ.", "a storage's five-part name", "None"),
        (b"\x8c\x01\xff.", "a text", "bytes that are not UTF-8"),
    ];
    for (pickle, wanted, had) in cases {
        let error = refused(&with_pickle(pickle));
        let fits = matches!(error, TorchError::Object { expected, found, .. } if (expected, found) == (wanted, had));
        assert!(fits, "{error:?}");
    }
}

#[test]
fn archives_that_are_not_torchs_are_refused() {
    let pickle = one_tensor("0", 4, 0, &[4], &[1]);
    let good = with_pickle(&pickle);
    for length in [0, 2, 100, good.len() / 2, good.len() - 1] {
        assert!(matches!(refused(&good[..length]), TorchError::Zip(_)), "{length}");
    }
    let stored = CompressionMethod::Stored;
    let packed = archive(&[("data.pkl", &pickle), ("data/0", &[0; 16])], CompressionMethod::Deflated);
    assert!(matches!(refused(&packed), TorchError::Packed { .. }));
    assert!(matches!(refused(&archive(&[("other", b"")], stored)), TorchError::NoEntry { .. }));
    let big = archive(&[("data.pkl", &pickle), ("byteorder", b"big"), ("data/0", &[0; 16])], stored);
    assert!(matches!(refused(&big), TorchError::ByteOrder { found } if found == "big"));
    let empty = with_pickle(&[DICT, b"."].concat());
    assert!(matches!(refused(&empty), TorchError::NoTensors));
}

/// The first three pickles of the format before zip, as torch 1.4 wrote them.
fn preamble(little_endian: bool) -> Vec<u8> {
    let order = if little_endian { b'\x88' } else { b'\x89' };
    let system = [b"\x80\x02}q\x00(X\x0d\x00\x00\x00little_endianq\x01", &[order][..], b"u."].concat();
    [&b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03."[..], &system].concat()
}

/// The rest of it: a state dict's pickle, the keys, and for each key its length and bytes.
fn body(pickle: &[u8], keys: &[&str], storages: &[(i64, &[u8])]) -> Vec<u8> {
    let names: Vec<u8> = keys.iter().flat_map(|key| text(key)).collect();
    let keys = [b"\x80\x02]q\x00(", &names[..], b"e."].concat();
    let raw = storages.iter().flat_map(|(length, bytes)| [&length.to_le_bytes(), *bytes].concat());
    [pickle.to_vec(), keys, raw.collect()].concat()
}

#[test]
fn the_format_before_zip_is_read_in_place() {
    let whole = [preamble(true), body(&one_tensor("b", 4, 1, &[2], &[1]), &["b"], &[(4, &[7; 16])])].concat();
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join(ONE), &whole).unwrap();
    assert_eq!(described(folder.path()), BTreeMap::from([("weight".into(), ("F32".into(), vec![2], 8))]));
    for length in 0..whole.len() {
        refused(&whole[..length]);
    }
}

#[test]
fn damage_to_the_format_before_zip_is_told_apart() {
    let pickle = one_tensor("0", 4, 0, &[4], &[1]);
    let good = (4, &[0_u8; 16][..]);
    let file = |rest: Vec<u8>| refused(&[preamble(true), rest].concat());
    assert!(matches!(refused(b"\x80\x02}."), TorchError::NotTorch { lacks: "magic number" }));
    let mut other = preamble(true);
    other[18] = 7;
    assert!(matches!(refused(&other), TorchError::NotTorch { lacks: "version, 1001" }));
    assert!(matches!(refused(&preamble(false)), TorchError::ByteOrder { found } if found == "big"));
    assert!(matches!(file(Vec::new()), TorchError::PickleEnds { at: 0 }));
    assert!(matches!(file([&pickle[..], b"\x80\x02]K\x01a."].concat()), TorchError::NotTorch { .. }));
    let missing = [(vec![], vec![]), (vec!["1"], vec![good])];
    for (keys, storages) in missing {
        assert!(matches!(file(body(&pickle, &keys, &storages)), TorchError::NoEntry { .. }), "{keys:?}");
    }
    for length in [5, -1, i64::MAX, i64::MIN, i64::MAX / 4] {
        let error = file(body(&pickle, &["0"], &[(length, good.1)]));
        assert!(matches!(error, TorchError::EntryOutside { .. }), "{error}");
    }
    let error = file(body(&pickle, &["0"], &[(3, good.1)]));
    assert!(matches!(error, TorchError::Storage { expected: 16, found: 12, .. }), "{error}");
    let code = b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.";
    for bytes in [&code[..], &[preamble(true), code.to_vec()].concat()] {
        assert!(matches!(refused(bytes), TorchError::Global { name } if name == "os.system"));
    }
}

#[test]
fn the_tar_format_is_refused_with_advice() {
    let mut tar = vec![0; 512];
    tar[257..262].copy_from_slice(b"ustar");
    let error = refused(&tar);
    assert!(matches!(error, TorchError::Tar));
    assert!(error.to_string().contains("torch.save"), "{error}");
}
