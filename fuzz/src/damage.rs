//! How inputs are damaged: as storage and transfers do it, and as somebody would who knows the formats.

use crate::targets::Files;

/// Numbers at the edges of what fits.
const EDGES: [u64; 14] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 40,
    1 << 53,
    i64::MAX as u64,
    u64::MAX,
];

/// What stands in text formats, and what could.
const WORDS: [&str; 24] = [
    "null",
    "true",
    "-1",
    "1e999",
    "18446744073709551616",
    "{}",
    "[]",
    "[[[[[[[[",
    "\"\"",
    "\"\\u0000\"",
    "\"type\":",
    "\"Sequence\"",
    "\"Precompiled\"",
    "\"Regex\":\"(a*)*b\"",
    "[UNK]",
    "<mask>",
    "../",
    "\n",
    "\u{feff}",
    "▁",
    "\"F32\"",
    "\"shape\":[4294967295]",
    "ctorch\nFloatStorage\n",
    "\u{0}",
];

/// Random numbers that the seed decides (splitmix64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// From 0 to below `end`; 0 if there is nothing below.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % (end.max(1) as u64)) as usize
    }
}

/// One of the inputs with one of its files damaged in one to eight places.
pub(crate) fn damaged(corpus: &[Files], random: &mut Random) -> Files {
    let mut files = corpus[random.below(corpus.len())].clone();
    let at = random.below(files.len());
    let other = &corpus[random.below(corpus.len())];
    let donor = other[random.below(other.len())].1.clone();
    for _ in 0..=random.below(8) {
        damage(&mut files[at].1, &donor, random);
    }
    files
}

fn damage(bytes: &mut Vec<u8>, donor: &[u8], random: &mut Random) {
    let length = bytes.len();
    // Headers come first in most formats and last in zip: half of all damage is within 512 bytes of either end.
    let mut place = || {
        let near = random.below(length.min(512));
        match random.below(4) {
            0 => near,
            1 => length.saturating_sub(1 + near),
            _ => random.below(length),
        }
    };
    let (at, to) = (place(), place());
    let (from, to) = (at.min(to), at.max(to));
    match random.below(10) {
        _ if length == 0 => bytes.extend_from_slice(donor),
        0 | 1 => bytes[at] ^= 1 << random.below(8),
        2 => bytes[at] = random.next() as u8,
        3 => bytes.truncate(at),
        4 => drop(bytes.drain(from..to.min(from + 64))),
        5 => {
            let part = bytes[from..to.min(from + 256)].to_vec();
            bytes.splice(at..at, part);
        }
        6 => {
            let start = random.below(donor.len());
            let end = donor.len().min(start + random.below(256));
            bytes.splice(at..at, donor[start..end].iter().copied());
        }
        7 => {
            let number = EDGES[random.below(EDGES.len())].to_le_bytes();
            let width = [1, 2, 4, 8][random.below(4)].min(length - at);
            bytes[at..at + width].copy_from_slice(&number[..width]);
        }
        8 => replace_number(bytes, at, random),
        _ => {
            let word = WORDS[random.below(WORDS.len())].as_bytes();
            let end = (at + random.below(2) * word.len()).min(length);
            bytes.splice(at..end, word.iter().copied());
        }
    }
}

/// Puts another number in the place of the first in text from `at` on.
fn replace_number(bytes: &mut Vec<u8>, at: usize, random: &mut Random) {
    let Some(first) = bytes[at..].iter().position(u8::is_ascii_digit) else { return };
    let start = at + first;
    let end = bytes[start..].iter().position(|b| !b.is_ascii_digit()).map_or(bytes.len(), |end| start + end);
    let number = EDGES[random.below(EDGES.len())].to_string();
    bytes.splice(start..end, number.into_bytes());
}
