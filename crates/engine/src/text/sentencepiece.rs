//! Models of SentencePiece (`sentencepiece.bpe.model`, `spm.model`): the few fields that a tokenizer takes.
//!
//! The file is a protocol buffer, `ModelProto` of `sentencepiece_model.proto`. Fields that nothing here reads are passed
//! over, as the format wants it. What a class makes of the pieces is in `unigram.rs`.

/// The most pieces that are read: eight times the largest vocabularies. Each takes some hundred bytes once loaded.
const MOST_PIECES: usize = 1 << 21;

/// `TrainerSpec.model_type` of unigram models, and of files that do not say.
const UNIGRAM: u64 = 1;

/// What is wrong with a model of SentencePiece.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SentencePieceError {
    /// A field that reaches beyond what it is in.
    #[error("its field at byte {at} reaches beyond its end: it is cut short or damaged, download it again")]
    Ends {
        /// Where the field begins.
        at: usize,
    },
    /// Something that no protocol buffer has.
    #[error("it is no protocol buffer, at byte {at}: it is damaged, download it again")]
    Damaged {
        /// Where.
        at: usize,
    },
    /// Another kind of model, whose pieces mean something else.
    #[error("its model type is {found}, only unigram ({UNIGRAM}) is read")]
    ModelType {
        /// As the file numbers them: 2 is BPE, 3 words, 4 characters.
        found: u64,
    },
    /// A piece whose text is not UTF-8.
    #[error("its piece {piece} is not UTF-8")]
    Text {
        /// The piece's place.
        piece: usize,
    },
    /// A piece whose score is infinite or no number.
    #[error("the score of its piece {piece} is not finite")]
    Score {
        /// The piece's place.
        piece: usize,
    },
    /// More pieces than any model has: a file made to exhaust memory.
    #[error("it has more than {MOST_PIECES} pieces, the most that are read")]
    TooMany,
    /// Pieces that every model has are missing.
    #[error("it has {found} pieces, the unknown piece, the start and the end are three")]
    TooFew {
        /// Its pieces.
        found: usize,
    },
    /// The unknown piece is none of the pieces.
    #[error("its unknown piece has the id {found}, and there are {pieces} pieces")]
    Unknown {
        /// The id.
        found: i64,
        /// The pieces.
        pieces: usize,
    },
}

type Result<T> = std::result::Result<T, SentencePieceError>;

/// What a piece is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Found in texts by its score.
    Normal,
    /// A mark that texts do not contain.
    Control,
    /// Found in texts before everything else.
    UserDefined,
}

/// An entry of the vocabulary.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) score: f32,
    pub(super) kind: Kind,
}

/// A unigram model.
#[derive(Debug)]
pub(super) struct Model {
    /// In the order of their ids.
    pub(super) pieces: Vec<Piece>,
    /// The place of the piece for what the vocabulary cannot express.
    pub(super) unknown: usize,
    /// `precompiled_charsmap`, how texts are normalised; most often there is one.
    pub(super) charsmap: Vec<u8>,
}

impl Model {
    /// Reads a file.
    pub(super) fn read(bytes: &[u8]) -> Result<Self> {
        let mut pieces = Vec::new();
        let (mut unknown, mut model_type) = (0, UNIGRAM);
        let mut charsmap = Vec::new();
        for field in Fields::of(bytes, 0) {
            match field? {
                (1, at, Value::Bytes(piece)) => {
                    if pieces.len() == MOST_PIECES {
                        return Err(SentencePieceError::TooMany);
                    }
                    pieces.push(Piece::read(piece, at, pieces.len())?);
                }
                (2, at, Value::Bytes(trainer)) => {
                    for field in Fields::of(trainer, at) {
                        match field? {
                            (3, _, Value::Number(found)) => model_type = found,
                            (40, _, Value::Number(id)) => unknown = id.cast_signed(),
                            _ => {}
                        }
                    }
                }
                (3, at, Value::Bytes(normalizer)) => {
                    for field in Fields::of(normalizer, at) {
                        if let (2, _, Value::Bytes(found)) = field? {
                            charsmap = found.to_vec();
                        }
                    }
                }
                _ => {}
            }
        }
        if model_type != UNIGRAM {
            return Err(SentencePieceError::ModelType { found: model_type });
        }
        if pieces.len() < 3 {
            return Err(SentencePieceError::TooFew { found: pieces.len() });
        }
        let place = usize::try_from(unknown).ok().filter(|&place| place < pieces.len());
        let unknown = place.ok_or(SentencePieceError::Unknown { found: unknown, pieces: pieces.len() })?;
        Ok(Self { pieces, unknown, charsmap })
    }
}

impl Piece {
    fn read(bytes: &[u8], at: usize, piece: usize) -> Result<Self> {
        let mut read = Self { text: String::new(), score: 0.0, kind: Kind::Normal };
        for field in Fields::of(bytes, at) {
            match field? {
                (1, _, Value::Bytes(text)) => {
                    let text = std::str::from_utf8(text).map_err(|_| SentencePieceError::Text { piece })?;
                    text.clone_into(&mut read.text);
                }
                (2, _, Value::Fixed(score)) => read.score = f32::from_le_bytes(score),
                (3, _, Value::Number(3)) => read.kind = Kind::Control,
                (3, _, Value::Number(4)) => read.kind = Kind::UserDefined,
                _ => {}
            }
        }
        if read.score.is_finite() { Ok(read) } else { Err(SentencePieceError::Score { piece }) }
    }
}

/// A field's content.
#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    Number(u64),
    Fixed([u8; 4]),
    Bytes(&'a [u8]),
    /// Eight bytes, which nothing here reads.
    Wide,
}

/// The fields of a message in order: number, where the content begins in the file, content. Ends after an error.
struct Fields<'a> {
    bytes: &'a [u8],
    /// Where the message begins in the file.
    base: usize,
    at: usize,
}

impl<'a> Fields<'a> {
    fn of(bytes: &'a [u8], base: usize) -> Self {
        Self { bytes, base, at: 0 }
    }

    fn field(&mut self) -> Result<(u64, usize, Value<'a>)> {
        let start = self.at;
        let key = self.number(start)?;
        let value = match key & 7 {
            0 => Value::Number(self.number(start)?),
            1 => {
                self.take(8, start)?;
                Value::Wide
            }
            2 => {
                let length = usize::try_from(self.number(start)?).unwrap_or(usize::MAX);
                Value::Bytes(self.take(length, start)?)
            }
            5 => {
                let bytes = self.take(4, start)?;
                Value::Fixed(bytes.first_chunk().copied().ok_or_else(|| self.ends(start))?)
            }
            _ => return Err(SentencePieceError::Damaged { at: self.base + start }),
        };
        let content = if let Value::Bytes(bytes) = value { self.at - bytes.len() } else { start };
        Ok((key >> 3, self.base + content, value))
    }

    /// A number of seven bits a byte, the lowest first.
    fn number(&mut self, start: usize) -> Result<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.get(self.at).ok_or_else(|| self.ends(start))?;
            self.at += 1;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(SentencePieceError::Damaged { at: self.base + start })
    }

    fn take(&mut self, count: usize, start: usize) -> Result<&'a [u8]> {
        let taken = self.bytes[self.at..].get(..count).ok_or_else(|| self.ends(start))?;
        self.at += count;
        Ok(taken)
    }

    fn ends(&self, start: usize) -> SentencePieceError {
        SentencePieceError::Ends { at: self.base + start }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, usize, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.at = self.bytes.len();
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A field of bytes.
    fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, content.len() as u8], content].concat()
    }

    fn piece(text: &[u8], score: f32) -> Vec<u8> {
        bytes(1, &[bytes(1, text), vec![2 << 3 | 5], score.to_le_bytes().to_vec()].concat())
    }

    fn three() -> Vec<u8> {
        [piece(b"<unk>", 0.0), piece(b"a", -1.5), piece(b"b", -2.0)].concat()
    }

    #[test]
    fn fields_are_found_and_others_passed_over() {
        let control = bytes(1, &[bytes(1, b"<s>"), vec![3 << 3, 3]].concat());
        // unk_id is field 40, whose key takes two bytes.
        let trainer = bytes(2, &[0xc0, 0x02, 1, 9 << 3, 0x96, 0x01, 10 << 3 | 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        let normalizer = bytes(3, &[bytes(1, b"identity"), bytes(2, b"map")].concat());
        let model = Model::read(&[three(), control, trainer, normalizer].concat()).unwrap();
        assert_eq!(model.pieces[1], Piece { text: "a".into(), score: -1.5, kind: Kind::Normal });
        assert_eq!((model.pieces[3].kind, model.unknown, &model.charsmap[..]), (Kind::Control, 1, &b"map"[..]));
    }

    #[test]
    fn every_damage_has_its_own_error() {
        use SentencePieceError as E;
        let with = |more: &[u8]| Model::read(&[&three(), more].concat()).unwrap_err();
        let end = three().len();
        assert_eq!(with(&[1 << 3 | 2, 9]), E::Ends { at: end });
        assert_eq!(with(&[1 << 3 | 2, 2, 1 << 3 | 2, 5]), E::Ends { at: end + 2 });
        assert_eq!(with(&[0xff; 11]), E::Damaged { at: end });
        assert_eq!(with(&[1 << 3 | 3]), E::Damaged { at: end });
        assert_eq!(with(&bytes(2, &[3 << 3, 2])), E::ModelType { found: 2 });
        assert_eq!(with(&bytes(2, &[0xc0, 0x02, 3])), E::Unknown { found: 3, pieces: 3 });
        let minus_one = [&[0xc0, 0x02][..], &[0xff; 9], &[1]].concat();
        assert_eq!(with(&bytes(2, &minus_one)), E::Unknown { found: -1, pieces: 3 });
        assert_eq!(with(&piece(b"\xff", 0.0)), E::Text { piece: 3 });
        assert_eq!(with(&piece(b"c", f32::NAN)), E::Score { piece: 3 });
        assert_eq!(Model::read(b"").unwrap_err(), E::TooFew { found: 0 });
        assert_eq!(Model::read(&[1 << 3 | 2, 0].repeat(MOST_PIECES + 1)).unwrap_err(), E::TooMany);
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Model::read(&bytes);
        }
    }
}
