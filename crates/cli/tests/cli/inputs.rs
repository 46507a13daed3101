//! Every kind of input gives the same texts in the same order.

use std::fmt::Write;
use std::fs::File;
use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::{Value, json};

use crate::{error_line, file, fixture, lines, mlxt, with_stdin};

const TEXTS: [&str; 5] = ["the quick fox", "", "a, \"quoted\" fox", "größe 狐 🦊", "last"];

/// Ids of all texts of an input.
fn ids(args: &[&str]) -> Vec<Value> {
    let model = fixture("bert");
    let found = lines(&[&["tokenize", "-m", &model], args].concat());
    for (i, object) in found.iter().enumerate() {
        assert_eq!(object["index"], i);
    }
    found.into_iter().map(|object| object["ids"].clone()).collect()
}

/// A Parquet file with a number and a string column, in row groups of two; `null` of the rows has no text.
fn parquet(path: &std::path::Path, compression: Compression, null: Option<usize>) {
    let schema = "message m { required int64 id; optional binary body (UTF8); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
    let mut writer = SerializedFileWriter::new(File::create(path).unwrap(), schema, properties).unwrap();
    for (group, texts) in TEXTS.chunks(2).enumerate() {
        let mut row_group = writer.next_row_group().unwrap();
        let mut column = row_group.next_column().unwrap().unwrap();
        let numbers: Vec<i64> = (0..texts.len() as i64).collect();
        column.typed::<Int64Type>().write_batch(&numbers, None, None).unwrap();
        column.close().unwrap();
        let mut column = row_group.next_column().unwrap().unwrap();
        let row = |i: usize| 2 * group + i;
        let levels: Vec<i16> = (0..texts.len()).map(|i| i16::from(null != Some(row(i)))).collect();
        let values = texts.iter().enumerate().filter(|(i, _)| null != Some(row(*i)));
        let values: Vec<ByteArray> = values.map(|(_, text)| ByteArray::from(*text)).collect();
        column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
        column.close().unwrap();
        row_group.close().unwrap();
    }
    writer.close().unwrap();
}

#[test]
fn all_kinds_give_the_same_texts() {
    let folder = tempfile::tempdir().unwrap();
    let expected = ids(&TEXTS);
    assert_eq!(expected.len(), TEXTS.len());

    let unix = file(folder.path(), "a.txt", TEXTS.join("\n"));
    let windows = file(folder.path(), "b", format!("\u{feff}{}\r\n", TEXTS.join("\r\n")));
    assert_eq!(ids(&["-i", &unix]), expected);
    assert_eq!(ids(&["-i", &windows]), expected);

    let objects = |column: &str| TEXTS.map(|t| format!("{}\n", json!({"id": 1, column: t}))).concat();
    let jsonl = file(folder.path(), "c.jsonl", objects("text"));
    let titled = file(folder.path(), "d.ndjson", objects("title"));
    assert_eq!(ids(&["-i", &jsonl]), expected);
    assert_eq!(ids(&["-i", &titled, "--column", "title"]), expected);

    let mut csv = "id,text\n".to_owned();
    for text in TEXTS {
        writeln!(csv, "1,\"{}\"", text.replace('"', "\"\"")).unwrap();
    }
    let csv_file = file(folder.path(), "e.csv", &csv);
    assert_eq!(ids(&["-i", &csv_file]), expected);
    let odd = file(folder.path(), "f.data", &csv);
    assert_eq!(ids(&["-i", &odd, "--input-format", "csv"]), expected);

    let zstd = Compression::ZSTD(ZstdLevel::default());
    for compression in [Compression::UNCOMPRESSED, Compression::SNAPPY, zstd, Compression::LZ4_RAW] {
        let path = folder.path().join("g.parquet");
        parquet(&path, compression, None);
        assert_eq!(ids(&["-i", path.to_str().unwrap(), "--column", "body"]), expected, "{compression}");
    }
}

#[test]
fn standard_input_is_an_input_of_any_format() {
    let model = fixture("bert");
    let expected = ids(&TEXTS);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.parquet");
    parquet(&path, Compression::SNAPPY, None);
    let jsonl = TEXTS.map(|t| format!("{}\n", json!({"body": t}))).concat();
    let cases: [(&[&str], Vec<u8>); 3] = [
        (&[], TEXTS.join("\n").into_bytes()),
        (&["--input-format", "jsonl", "--column", "body"], jsonl.into_bytes()),
        (&["--input-format", "parquet", "--column", "body"], std::fs::read(path).unwrap()),
    ];
    for (more, input) in cases {
        let output = with_stdin(&[&["tokenize", "-m", &model, "-i", "-"], more].concat(), &input);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let found = String::from_utf8(output.stdout).unwrap();
        let found: Vec<Value> =
            found.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["ids"].clone()).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn an_empty_input_gives_no_result() {
    let folder = tempfile::tempdir().unwrap();
    let empty = file(folder.path(), "empty.txt", "");
    assert!(ids(&["-i", &empty]).is_empty());
    let header = file(folder.path(), "header.csv", "text\n");
    assert!(ids(&["-i", &header]).is_empty());
}

#[test]
fn twenty_thousand_lines_come_out_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let text: Vec<String> = (0..20_000).map(|i| format!("fox {}", "a ".repeat(i % 7))).collect();
    let path = file(folder.path(), "many.txt", text.join("\n"));
    let found = lines(&["embed", "-m", &fixture("sentence-mean"), "-i", &path]);
    assert_eq!(found.len(), 20_000);
    for (i, object) in found.iter().enumerate() {
        assert_eq!(object["index"], i);
        assert_eq!(object["embedding"], found[i % 7]["embedding"], "line {i}");
    }
}

#[test]
fn what_cannot_be_read_is_named_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let model = fixture("bert");
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let null = path("null.parquet");
    parquet(null.as_ref(), Compression::SNAPPY, Some(3));
    let whole = std::fs::read(&null).unwrap();
    let cut = file(folder.path(), "cut.parquet", &whole[..whole.len() - 20]);
    let cases: [(&str, String, &[&str], &str); 11] = [
        ("no file", path("none.txt"), &[], "none.txt: "),
        // Windows denies access to it.
        (
            "a folder",
            folder.path().to_str().unwrap().to_owned(),
            &[],
            if cfg!(windows) { "denied" } else { "directory" },
        ),
        ("not UTF-8", file(folder.path(), "bytes.txt", b"a\n\xff"), &[], "line 2 of "),
        ("not JSON", file(folder.path(), "a.jsonl", "{\"text\": \"a\"}\n{\n"), &[], "line 2 of "),
        ("no column", file(folder.path(), "b.jsonl", "{\"body\": \"a\"}\n"), &[], "no \"text\", only \"body\""),
        ("not a string", file(folder.path(), "c.jsonl", "{\"text\": 5}\n"), &[], "is a number in line 1 of "),
        ("no header", file(folder.path(), "a.csv", "body\nx\n"), &[], "no column \"text\""),
        ("uneven rows", file(folder.path(), "b.csv", "text,n\na,1\nb\n"), &[], "line 3 of "),
        ("null", null.clone(), &["--column", "body"], "null.parquet has no \"body\" (null)"),
        ("not strings", null, &["--column", "id"], "holds INT64, expected strings"),
        ("cut", cut, &["--column", "body"], "cut.parquet is not a Parquet file"),
    ];
    for (what, path, more, expected) in cases {
        let output = mlxt([&["tokenize", "-m", &model, "-i", &path], more].concat()).output().unwrap();
        let error = error_line(1, &output);
        assert!(error.contains(expected), "{what}: {error}");
    }
}

#[test]
fn a_damaged_parquet_file_is_never_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let model = fixture("bert");
    let path = folder.path().join("x.parquet");
    parquet(&path, Compression::SNAPPY, None);
    let whole = std::fs::read(&path).unwrap();
    for place in (0..whole.len()).step_by(whole.len() / 40) {
        let mut damaged = whole.clone();
        damaged[place] ^= 0x5a;
        std::fs::write(&path, damaged).unwrap();
        let output =
            mlxt(["tokenize", "-m", &model, "-i", path.to_str().unwrap(), "--column", "body"]).output().unwrap();
        if !output.status.success() {
            error_line(1, &output);
        }
    }
}
