//! The pickle machine: the instructions and names that state dicts take, and an error for everything else.
//!
//! Every list of it has a limit. What the instructions mean is documented in Python's `pickletools`; what they make is
//! in `object.rs`.

use safetensors::Dtype;

use super::TorchError;
use super::object::{Global, Storage, Tensor, Value, text};

/// The most objects in each of the machine's lists. A tensor takes about 15: enough for 70,000 tensors, at 100 MB.
const MOST: usize = 1 << 20;

/// The most bytes of a pickle. The largest checkpoints' have 150 bytes for a tensor.
const PROGRAM: usize = 1 << 24;

/// The most dimensions of a tensor.
const DIMENSIONS: usize = 16;

type Result<T> = std::result::Result<T, TorchError>;

#[derive(Default)]
pub(super) struct Machine<'a> {
    program: &'a [u8],
    at: usize,
    stack: Vec<Value<'a>>,
    /// Lengths that the stack had at each mark.
    marks: Vec<usize>,
    memo: Vec<Option<Value<'a>>>,
    /// The items of all tuples, one after the other.
    items: Vec<Value<'a>>,
    /// The entries of each dict that have a text for a key.
    dicts: Vec<Vec<(&'a str, Value<'a>)>>,
    /// The items of each list.
    lists: Vec<Vec<Value<'a>>>,
    /// In all dicts and lists together.
    entries: usize,
    storages: Vec<Storage<'a>>,
    tensors: Vec<Tensor<'a>>,
}

impl<'a> Machine<'a> {
    pub(super) fn new(program: &'a [u8]) -> Self {
        Self { program, ..Self::default() }
    }

    /// Runs to the last instruction and gives what it leaves.
    pub(super) fn run(&mut self) -> Result<Value<'a>> {
        while self.step()? {
            if self.at > PROGRAM {
                return Err(TorchError::Limit { what: "bytes of pickle", limit: PROGRAM });
            }
        }
        self.pop()
    }

    /// Bytes that have been run.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn dict(&self, place: usize) -> &[(&'a str, Value<'a>)] {
        &self.dicts[place]
    }

    pub(super) fn list(&self, place: usize) -> &[Value<'a>] {
        &self.lists[place]
    }

    pub(super) fn tensor(&self, place: usize) -> &Tensor<'a> {
        &self.tensors[place]
    }

    /// Every storage that was named, as often as it was.
    pub(super) fn storages(&self) -> &[Storage<'a>] {
        &self.storages
    }

    /// Runs one instruction; false at the last.
    fn step(&mut self) -> Result<bool> {
        let at = self.at;
        let [code] = self.array()?;
        match code {
            b'.' => return Ok(false),
            // PROTO and FRAME: a version, and how many bytes follow.
            0x80 => drop(self.array::<1>()?),
            0x95 => drop(self.array::<8>()?),
            b'(' => {
                within(self.marks.len(), "marks")?;
                self.marks.push(self.stack.len());
            }
            // BINPUT, LONG_BINPUT, MEMOIZE; BINGET, LONG_BINGET
            b'q' | b'r' | 0x94 => {
                let index = if code == 0x94 { self.memo.len() } else { self.index(code == b'r')? };
                self.remember(index)?;
            }
            b'h' | b'j' => {
                let index = self.index(code == b'j')?;
                let value = self.memo.get(index).copied().flatten();
                self.push(value.ok_or_else(|| self.unfit("an object", "a number that stands for none"))?)?;
            }
            b't' | b')' | 0x85..=0x87 => {
                let from = match code {
                    b't' => self.mark()?,
                    b')' => self.stack.len(),
                    _ => self.below(usize::from(code) - 0x84)?,
                };
                self.tuple(from)?;
            }
            b'}' => self.new_dict()?,
            // SETITEM, SETITEMS
            b's' | b'u' => {
                let from = if code == b'u' { self.mark()? } else { self.below(2)? };
                self.set_items(from)?;
            }
            // EMPTY_LIST, APPEND, APPENDS
            b']' => self.new_list()?,
            b'a' | b'e' => {
                let from = if code == b'e' { self.mark()? } else { self.below(1)? };
                self.append(from)?;
            }
            // GLOBAL, STACK_GLOBAL, BINPERSID, REDUCE
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)?;
            }
            0x93 => {
                let name = self.expect("a text", text)?;
                let module = self.expect("a text", text)?;
                self.global(module, name)?;
            }
            b'Q' => self.storage()?,
            b'R' => self.reduce()?,
            // BUILD: attributes of an OrderedDict, which hold version numbers that nothing reads.
            b'b' => {
                self.pop()?;
                let dict = self.expect("a dict", |v| matches!(v, Value::Dict(_)).then_some(v))?;
                self.push(dict)?;
            }
            _ => {
                let value = self.literal(code, at)?;
                self.push(value)?;
            }
        }
        Ok(true)
    }

    /// The instructions that push something which stands in the pickle itself.
    fn literal(&mut self, code: u8, at: usize) -> Result<Value<'a>> {
        Ok(match code {
            b'N' => Value::None,
            0x88 | 0x89 => Value::Bool(code == 0x88),
            b'K' => Value::Int(i64::from(u8::from_le_bytes(self.array()?))),
            b'M' => Value::Int(i64::from(u16::from_le_bytes(self.array()?))),
            b'J' => Value::Int(i64::from(i32::from_le_bytes(self.array()?))),
            // LONG1: as many bytes as it says, the highest bit of the last is the sign.
            0x8a => {
                let [length] = self.array()?;
                let bytes = self.take(usize::from(length))?;
                let mut wide = [if bytes.last().is_some_and(|&b| b >= 0x80) { 0xff } else { 0 }; 8];
                match wide.get_mut(..bytes.len()) {
                    Some(low) => {
                        low.copy_from_slice(bytes);
                        Value::Int(i64::from_le_bytes(wide))
                    }
                    None => Value::Other,
                }
            }
            b'G' => {
                self.array::<8>()?;
                Value::Other
            }
            // SHORT_BINUNICODE, BINUNICODE, BINUNICODE8
            0x8c | b'X' | 0x8d => {
                let length = match code {
                    0x8c => u64::from(u8::from_le_bytes(self.array()?)),
                    b'X' => u64::from(u32::from_le_bytes(self.array()?)),
                    _ => u64::from_le_bytes(self.array()?),
                };
                let bytes = self.take(usize::try_from(length).unwrap_or(usize::MAX))?;
                Value::Text(self.utf8(bytes)?)
            }
            _ => return Err(TorchError::Instruction { code, at }),
        })
    }

    fn global(&mut self, module: &str, name: &str) -> Result<()> {
        let global = match (module, name) {
            ("collections", "OrderedDict") => Global::OrderedDict,
            // The first until torch 0.3.
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Global::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Global::RebuildParameter,
            ("torch", "FloatStorage") => Global::Storage(Dtype::F32),
            ("torch", "HalfStorage") => Global::Storage(Dtype::F16),
            ("torch", "BFloat16Storage") => Global::Storage(Dtype::BF16),
            ("torch", "DoubleStorage") => Global::Storage(Dtype::F64),
            ("torch", "LongStorage") => Global::Storage(Dtype::I64),
            ("torch", "IntStorage") => Global::Storage(Dtype::I32),
            ("torch", "ShortStorage") => Global::Storage(Dtype::I16),
            ("torch", "CharStorage") => Global::Storage(Dtype::I8),
            ("torch", "BoolStorage") => Global::Storage(Dtype::BOOL),
            ("torch", "ByteStorage") | ("torch.storage", "UntypedStorage") => Global::Storage(Dtype::U8),
            _ => return Err(TorchError::Global { name: format!("{module}.{name}") }),
        };
        self.push(Value::Global(global))
    }

    /// BINPERSID: `("storage", class, key, device, elements)`, before version 1.6 with what part of another storage it
    /// is, which since 0.4 is none.
    fn storage(&mut self) -> Result<()> {
        let expected = "a storage's five-part name";
        let items = self.expect(expected, tuple)?;
        let [
            Value::Text("storage"),
            Value::Global(Global::Storage(dtype)),
            Value::Text(key),
            Value::Text(_),
            elements,
            ref part @ ..,
        ] = self.items[items.0..items.1]
        else {
            return Err(self.unfit(expected, "another tuple"));
        };
        if !matches!(part, [] | [Value::None]) {
            return Err(self.unfit("a whole storage", "part of one"));
        }
        let storage = Storage { dtype, key, elements: self.size(elements)? };
        within(self.storages.len(), "storages")?;
        self.storages.push(storage);
        self.push(Value::Storage(storage))
    }

    /// REDUCE: the three calls that state dicts make.
    fn reduce(&mut self) -> Result<()> {
        let arguments = self.expect("a tuple", tuple)?;
        let function = self.expect("a function", |v| if let Value::Global(g) = v { Some(g) } else { None })?;
        match (function, &self.items[arguments.0..arguments.1]) {
            (Global::OrderedDict, []) => self.new_dict(),
            (Global::RebuildParameter, &[tensor @ Value::Tensor(_), ..]) => self.push(tensor),
            (Global::RebuildTensor, &[Value::Storage(storage), offset, Value::Tuple(a, b), Value::Tuple(c, d), ..]) => {
                within(self.tensors.len(), "tensors")?;
                let offset = self.size(offset)?;
                let (shape, strides) = (self.sizes(a, b)?, self.sizes(c, d)?);
                if shape.len() != strides.len() {
                    return Err(self.unfit("a stride for each dimension", "another number of them"));
                }
                self.tensors.push(Tensor { storage, offset, shape, strides });
                self.push(Value::Tensor(self.tensors.len() - 1))
            }
            _ => Err(self.unfit("the arguments of a tensor, parameter or dict", "others")),
        }
    }

    fn new_dict(&mut self) -> Result<()> {
        within(self.dicts.len(), "dicts")?;
        self.dicts.push(Vec::new());
        self.push(Value::Dict(self.dicts.len() - 1))
    }

    fn new_list(&mut self) -> Result<()> {
        within(self.lists.len(), "lists")?;
        self.lists.push(Vec::new());
        self.push(Value::List(self.lists.len() - 1))
    }

    /// Moves what is on the stack from `from` on into the list below.
    fn append(&mut self, from: usize) -> Result<()> {
        let items = self.stack.split_off(from);
        let list = self.expect("a list", |v| if let Value::List(l) = v { Some(l) } else { None })?;
        self.entries += items.len();
        within(self.entries, "entries of lists and dicts")?;
        self.lists[list].extend(items);
        self.push(Value::List(list))
    }

    /// Moves what is on the stack from `from` on, keys and values in turn, into the dict below.
    fn set_items(&mut self, from: usize) -> Result<()> {
        let items = self.stack.split_off(from);
        let dict = self.expect("a dict", |v| if let Value::Dict(d) = v { Some(d) } else { None })?;
        let (pairs, []) = items.as_chunks::<2>() else {
            return Err(self.unfit("keys and values", "an odd number of them"));
        };
        self.entries += pairs.len();
        within(self.entries, "entries of lists and dicts")?;
        let named = pairs.iter().filter_map(|[key, value]| Some((text(*key)?, *value)));
        self.dicts[dict].extend(named);
        self.push(Value::Dict(dict))
    }

    /// Makes a tuple of what is on the stack from `from` on.
    fn tuple(&mut self, from: usize) -> Result<()> {
        let start = self.items.len();
        within(start + self.stack.len() - from, "tuple items")?;
        self.items.extend(self.stack.drain(from..));
        self.push(Value::Tuple(start, self.items.len()))
    }

    fn remember(&mut self, index: usize) -> Result<()> {
        within(index, "remembered objects")?;
        let top = self.pop()?;
        self.push(top)?;
        if index >= self.memo.len() {
            self.memo.resize(index + 1, None);
        }
        self.memo[index] = Some(top);
        Ok(())
    }

    fn push(&mut self, value: Value<'a>) -> Result<()> {
        within(self.stack.len(), "objects on the stack")?;
        self.stack.push(value);
        Ok(())
    }

    fn pop(&mut self) -> Result<Value<'a>> {
        self.below(1)?;
        self.stack.pop().ok_or_else(|| self.unfit("an object", "nothing"))
    }

    /// The top object, as what it must be.
    fn expect<T>(&mut self, expected: &'static str, part: impl FnOnce(Value<'a>) -> Option<T>) -> Result<T> {
        let value = self.pop()?;
        part(value).ok_or_else(|| self.unfit(expected, value.kind()))
    }

    /// The stack's length without its top `count` objects, which must lie above the last mark.
    fn below(&self, count: usize) -> Result<usize> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let below = self.stack.len().checked_sub(count).filter(|&below| below >= floor);
        below.ok_or_else(|| self.unfit("an object", "nothing"))
    }

    /// The stack's length at the last mark, which is taken away.
    fn mark(&mut self) -> Result<usize> {
        self.marks.pop().ok_or_else(|| self.unfit("a mark", "none"))
    }

    fn sizes(&self, from: usize, to: usize) -> Result<Vec<usize>> {
        if to - from > DIMENSIONS {
            return Err(TorchError::Limit { what: "dimensions", limit: DIMENSIONS });
        }
        self.items[from..to].iter().map(|&value| self.size(value)).collect()
    }

    fn size(&self, value: Value<'a>) -> Result<usize> {
        let Value::Int(size) = value else { return Err(self.unfit("a number", value.kind())) };
        usize::try_from(size).map_err(|_| self.unfit("a number from 0 up", "a negative one"))
    }

    fn index(&mut self, long: bool) -> Result<usize> {
        Ok(if long {
            u32::from_le_bytes(self.array()?) as usize
        } else {
            usize::from(u8::from_le_bytes(self.array()?))
        })
    }

    fn line(&mut self) -> Result<&'a str> {
        let rest = &self.program[self.at..];
        let ends = TorchError::PickleEnds { at: self.program.len() };
        let length = rest.iter().position(|&b| b == b'\n').ok_or(ends)?;
        self.at += length + 1;
        self.utf8(&rest[..length])
    }

    fn utf8(&self, bytes: &'a [u8]) -> Result<&'a str> {
        std::str::from_utf8(bytes).map_err(|_| self.unfit("a text", "bytes that are not UTF-8"))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (bytes, _) = self.take(N)?.as_chunks::<N>();
        bytes.first().copied().ok_or(TorchError::PickleEnds { at: self.program.len() })
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let taken = self.program[self.at..].get(..count);
        let taken = taken.ok_or(TorchError::PickleEnds { at: self.program.len() })?;
        self.at += count;
        Ok(taken)
    }

    fn unfit(&self, expected: &'static str, found: &'static str) -> TorchError {
        TorchError::Object { at: self.at, expected, found }
    }
}

fn tuple(value: Value<'_>) -> Option<(usize, usize)> {
    if let Value::Tuple(from, to) = value { Some((from, to)) } else { None }
}

/// That one more fits in.
fn within(count: usize, what: &'static str) -> Result<()> {
    if count < MOST { Ok(()) } else { Err(TorchError::Limit { what, limit: MOST }) }
}
