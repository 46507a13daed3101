//! The compiled normaliser of SentencePiece (`precompiled_charsmap`), checked before the library walks it.
//!
//! ```text
//! 4 bytes   the trie's size in bytes
//! the trie  units of 4 bytes: a double array over the bytes of what is replaced (darts-clone)
//! the rest  replacements, UTF-8, each ended by a zero byte; a leaf of the trie says where one begins
//! ```
//!
//! The library follows whatever numbers stand there; outside the array it panics.

use tokenizers::normalizers::Precompiled;

/// A charsmap that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum CharsmapError {
    #[error("its normaliser is cut short: a trie of {expected} bytes, {found} are there")]
    Short { expected: usize, found: usize },
    #[error("its normaliser leads outside itself, at unit {unit} of {units}")]
    Outside { unit: usize, units: usize },
    #[error("its normaliser has replacements that are not UTF-8, or begin within a character, at byte {at}")]
    Text { at: usize },
}

/// Reads a charsmap.
pub(super) fn read(bytes: &[u8]) -> tokenizers::Result<Precompiled> {
    check(bytes)?;
    // Its error type is not exported; after the check there is none.
    Precompiled::from(bytes).map_err(|e| e.to_string().into())
}

/// That every walk through the trie stays inside, and ends at a replacement.
pub(super) fn check(bytes: &[u8]) -> Result<(), CharsmapError> {
    let (size, rest) =
        bytes.split_first_chunk::<4>().ok_or(CharsmapError::Short { expected: 4, found: bytes.len() })?;
    let size = u32::from_le_bytes(*size) as usize / 4 * 4;
    let short = CharsmapError::Short { expected: size, found: rest.len() };
    let (trie, texts) = rest.split_at_checked(size).ok_or(short)?;
    let texts = std::str::from_utf8(texts).map_err(|e| CharsmapError::Text { at: e.valid_up_to() })?;
    let (units, _) = trie.as_chunks::<4>();
    let unit = |place: usize| {
        let bytes = units.get(place).ok_or(CharsmapError::Outside { unit: place, units: units.len() })?;
        Ok(u32::from_le_bytes(*bytes) as usize)
    };
    let mut seen = vec![false; units.len()];
    // Places of children: the parent's, moved by its offset; a child for the byte c lies at that place ^ c.
    let mut open = vec![offset(unit(0)?)];
    while let Some(children) = open.pop() {
        // All 256 are looked at when a text asks for them, so all must be there.
        unit(children | 0xff)?;
        if std::mem::replace(&mut seen[children], true) {
            continue;
        }
        for byte in 1..=0xff {
            let place = children ^ byte;
            let found = unit(place)?;
            if found & (1 << 31 | 0xff) != byte {
                continue;
            }
            let below = place ^ offset(found);
            if found >> 8 & 1 == 1 {
                let at = unit(below)? & ((1 << 31) - 1);
                if !texts.is_char_boundary(at) {
                    return Err(CharsmapError::Text { at });
                }
            }
            open.push(below);
        }
    }
    Ok(())
}

/// How far a unit's children are from it.
fn offset(unit: usize) -> usize {
    (unit >> 10) << ((unit & 1 << 9) >> 6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokenizers::{NormalizedString, Normalizer};

    /// A trie that replaces `a` by what stands at `at` in `texts`.
    fn map(at: u32, texts: &[u8]) -> Vec<u8> {
        let mut units = [0_u32; 512];
        units[0] = 256 << 10;
        // Its leaf lies at 256 ^ 'a' ^ 'a'.
        units[256 ^ 0x61] = 0x61 << 10 | 1 << 8 | 0x61;
        units[256] = at;
        let units: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        [&(units.len() as u32).to_le_bytes(), &units[..], texts].concat()
    }

    #[test]
    fn a_made_map_replaces() {
        let normalizer = read(&map(3, "é\0xyz\0".as_bytes())).unwrap();
        let mut text = NormalizedString::from("bab");
        normalizer.normalize(&mut text).unwrap();
        assert_eq!(text.get(), "bxyzb");
    }

    #[test]
    fn what_leads_outside_is_refused() {
        let good = map(0, b"x\0");
        assert!(matches!(check(&good[..3]), Err(CharsmapError::Short { expected: 4, found: 3 })));
        assert!(matches!(check(&good[..100]), Err(CharsmapError::Short { expected: 2048, found: 96 })));
        assert!(matches!(check(&[0; 4]), Err(CharsmapError::Outside { unit: 0, units: 0 })));
        assert!(matches!(check(&map(9, b"x\0")), Err(CharsmapError::Text { at: 9 })));
        assert!(matches!(check(&map(1, "é\0".as_bytes())), Err(CharsmapError::Text { at: 1 })));
        assert!(matches!(check(&map(0, b"\xff\0")), Err(CharsmapError::Text { at: 0 })));
        let mut far = good;
        far[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(check(&far), Err(CharsmapError::Outside { .. })));
    }

    proptest! {
        #[test]
        fn what_passes_normalises_any_text(places in prop::collection::vec((0..2056_usize, any::<u8>()), 0..4), text in any::<String>()) {
            let mut bytes = map(0, b"x\0yz\0");
            for (place, value) in places {
                bytes[place] = value;
            }
            if let Ok(normalizer) = read(&bytes) {
                let mut text = NormalizedString::from(text.as_str());
                normalizer.normalize(&mut text).unwrap();
            }
        }
    }
}
