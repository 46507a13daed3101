//! Parquet as an output: it reads back as the JSON lines say.

use std::fs::File;
use std::path::Path;

use ::parquet::data_type::ByteArray;
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::record::Field;
use serde_json::{Value, json};

use crate::{failure, file, fixture, lines, mlxt, task};

/// A value as JSON.
fn value(field: &Field) -> Value {
    match field {
        Field::Long(value) => json!(value),
        Field::Float(value) => json!(value),
        Field::Str(value) => json!(value),
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        other => json!(format!("{other:?}")),
    }
}

/// Rows of a file, each its columns in order.
fn rows(path: &Path) -> Vec<Vec<Value>> {
    let file = SerializedFileReader::new(File::open(path).unwrap()).unwrap();
    let rows = file.get_row_iter(None).unwrap();
    rows.map(|row| row.unwrap().get_column_iter().map(|(_, field)| value(field)).collect()).collect()
}

/// The names and rows of what a command writes.
fn written(args: &[&str]) -> (Vec<String>, Vec<Vec<Value>>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.parquet");
    let output = mlxt(args).arg("-o").arg(&path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // The same to a pipe.
    let piped = mlxt(args).args(["--format", "parquet"]).output().unwrap().stdout;
    assert!(piped == std::fs::read(&path).unwrap());
    let file = SerializedFileReader::new(File::open(&path).unwrap()).unwrap();
    let fields = file.metadata().file_metadata().schema().get_fields().to_vec();
    (fields.iter().map(|field| field.name().to_owned()).collect(), rows(&path))
}

/// What `--format jsonl` says, flattened: `index` and the members `names` of each element of `list`.
fn flat(args: &[&str], list: &str, names: &[&str]) -> Vec<Vec<Value>> {
    let row = |object: &Value, element: &Value| {
        [object["index"].clone()].into_iter().chain(names.iter().map(|&name| element[name].clone())).collect()
    };
    let found = lines(args);
    found.iter().flat_map(|object| object[list].as_array().unwrap().iter().map(|e| row(object, e))).collect()
}

/// f32 as both readers give them: JSON has the shortest digits, which are read as f64.
fn single(mut rows: Vec<Vec<Value>>) -> Vec<Vec<Value>> {
    fn round(value: &mut Value) {
        match value {
            Value::Number(number) if number.is_f64() => *value = json!(number.as_f64().unwrap() as f32),
            Value::Array(values) => values.iter_mut().for_each(round),
            _ => {}
        }
    }
    rows.iter_mut().flatten().for_each(round);
    rows
}

#[test]
fn every_command_writes_typed_columns() {
    let (bert, tasks) = (fixture("bert"), task("bert"));
    let embed = ["embed", "-m", &bert, "a fox", "", "größe"];
    let (names, found) = written(&embed);
    assert_eq!(names, ["index", "tokens", "embedding"]);
    let expected = lines(&embed).into_iter().map(|o| names.iter().map(|name| o[name].clone()).collect()).collect();
    assert_eq!(single(found), single(expected));

    let tokenize = ["tokenize", "-m", &bert, "a, \"fox\"", ""];
    let (names, found) = written(&tokenize);
    assert_eq!(names, ["index", "ids", "tokens"]);
    let expected: Vec<Vec<Value>> =
        lines(&tokenize).into_iter().map(|o| names.iter().map(|name| o[name].clone()).collect()).collect();
    assert_eq!(found, expected);

    let features = ["features", "-m", &bert, "fox", "a b"];
    let (names, found) = written(&features);
    assert_eq!(names, ["index", "token", "hidden"]);
    let objects = lines(&features);
    let tokens: usize = objects.iter().map(|object| object["tokens"].as_array().unwrap().len()).sum();
    assert_eq!(found.len(), tokens);
    assert_eq!(found[0][1], objects[0]["tokens"][0]);
    assert_eq!(found[0][2].as_array().unwrap().len(), objects[0]["shape"][1]);

    let classify = ["classify", "-m", &tasks, "the lazy dog", "a fox"];
    let (names, found) = written(&classify);
    assert_eq!(names, ["index", "label", "score"]);
    assert_eq!(single(found), single(flat(&classify, "labels", &["label", "score"])));

    let ner = ["ner", "-m", &tasks, "the lazy dog", "a fox"];
    let (names, found) = written(&ner);
    assert_eq!(names, ["index", "entity", "score", "start", "end", "text", "word"]);
    assert_eq!(single(found), single(flat(&ner, "entities", &["entity", "score", "start", "end", "text", "word"])));

    let answer = ["answer", "-m", &tasks, "--question", "who", "--context", "the lazy dog sleeps", "--top-k", "3"];
    let (_, found) = written(&answer);
    assert_eq!(single(found), single(flat(&answer, "answers", &["answer", "score", "start", "end"])));

    let (names, found) = written(&["fill-mask", "-m", &tasks, "a [MASK] and a [MASK]", "--top-k", "2"]);
    assert_eq!(names, ["index", "mask", "token", "token_id", "score", "sequence"]);
    assert_eq!(found.iter().map(|row| row[1].as_i64().unwrap()).collect::<Vec<_>>(), [0, 0, 1, 1]);

    let (names, found) = written(&["rerank", "-m", &task("bert-reranker"), "--query", "q", "a", "b", "c"]);
    assert_eq!((names.len(), found.len()), (2, 3));
    assert!(failure(2, &["inspect", &bert, "--format", "parquet"]).contains("no table"));
    assert!(failure(2, &["features", "-m", &bert, "a", "--pooler", "--format", "parquet"]).contains("--pooler"));
}

#[test]
fn many_rows_make_several_row_groups_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let input = file(folder.path(), "in.txt", "the quick fox jumps over the lazy dog\n".repeat(60_000));
    let path = folder.path().join("x.parquet");
    let output = mlxt(["tokenize", "-m", &fixture("bert"), "-i", &input, "-o"]).arg(&path).output().unwrap();
    assert!(output.status.success());
    let reader = SerializedFileReader::new(File::open(&path).unwrap()).unwrap();
    assert!(reader.num_row_groups() > 1, "{}", reader.num_row_groups());
    assert_eq!(reader.metadata().file_metadata().num_rows(), 60_000);
    let indices = reader.get_row_iter(None).unwrap().map(|row| value(row.unwrap().get_column_iter().next().unwrap().1));
    assert!(indices.enumerate().all(|(i, index)| index == i));
}

/// A page's header is a few bytes that a reader would believe: these say that a dictionary has 2^31 - 1 strings, and
/// that a list of lengths has 2^40.
#[test]
fn numbers_that_cannot_be_true_are_errors_and_not_the_end() {
    use ::parquet::basic::{Compression, Encoding};
    use ::parquet::data_type::ByteArrayType;
    use ::parquet::file::properties::WriterProperties;
    use ::parquet::file::writer::SerializedFileWriter;
    use ::parquet::schema::parser::parse_message_type;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.parquet");
    let write = |properties: ::parquet::file::properties::WriterPropertiesBuilder| {
        let schema = parse_message_type("message m { required binary text (UTF8); }").unwrap();
        let properties = properties.set_compression(Compression::UNCOMPRESSED).build();
        let mut writer =
            SerializedFileWriter::new(File::create(&path).unwrap(), schema.into(), properties.into()).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let values: Vec<ByteArray> = (0..100).map(|i| ByteArray::from(&*format!("text {i}"))).collect();
        column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
        std::fs::read(&path).unwrap()
    };
    let run = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        mlxt(["tokenize", "-m", &fixture("bert"), "-i", path.to_str().unwrap()]).output().unwrap()
    };
    // 100 values as a field of type i32: zigzag 200 is c8 01. The first is the dictionary's.
    let whole = write(WriterProperties::builder().set_dictionary_enabled(true));
    assert!(run(&whole).status.success());
    let at = whole.windows(3).position(|w| w == [0x15, 0xc8, 0x01]).unwrap();
    let hostile = [&whole[..=at], &[0xfe, 0xff, 0xff, 0xff, 0x0f], &whole[at + 3..]].concat();
    let error = crate::error_line(1, &run(&hostile));
    assert!(error.contains("damaged") || error.contains("cannot read"), "{error}");

    // Blocks of 128 numbers in 4 parts, 100 of them.
    for encoding in [Encoding::DELTA_LENGTH_BYTE_ARRAY, Encoding::DELTA_BYTE_ARRAY] {
        let whole = write(WriterProperties::builder().set_dictionary_enabled(false).set_encoding(encoding));
        assert!(run(&whole).status.success(), "{encoding}");
        let heads: Vec<usize> =
            whole.windows(4).enumerate().filter(|(_, w)| w == &[0x80, 1, 4, 100]).map(|(at, _)| at).collect();
        assert!(!heads.is_empty(), "{encoding}");
        for at in heads {
            // As long as it was: the first number of the list and its differences become part of the count.
            let hostile = [&whole[..at + 3], &[0x80, 0x80, 0x80, 0x80, 0x80, 0x20], &whole[at + 9..]].concat();
            let error = crate::error_line(1, &run(&hostile));
            assert!(error.contains("lengths, expected at most 100"), "{encoding}: {error}");
        }
    }
}
