//! The stack machine of pickle, protocols 2 to 5.

use std::collections::HashMap;

use super::arena::Arena;
use super::call::is_hostile;
use super::{
    DottedName, Handle, MAX_BYTES, MAX_GLOBAL, MAX_INSTRUCTIONS, MAX_STACK, MAX_TEXT, MAX_VALUES, Node,
    Pickle, PickleError,
};

/// The handle of all floats. None of them is needed, and a file may hold millions.
const FLOAT: Handle = 0;

struct Machine<'a> {
    code: &'a [u8],
    at: usize,
    arena: Arena<'a>,
    stack: Vec<Handle>,
    marks: Vec<usize>,
    memo: HashMap<u32, Handle>,
}

type StepResult<T> = Result<T, String>;

/// Reads a pickle to its end and returns its values.
pub(in crate::model::checkpoint) fn read(code: &[u8]) -> Result<Pickle<'_>, PickleError> {
    read_first(code).map(|(pickle, _)| pickle)
}

/// Reads the first of several pickles. Returns it with its length in bytes.
pub(in crate::model::checkpoint) fn read_first(code: &[u8]) -> Result<(Pickle<'_>, usize), PickleError> {
    let machine = Machine {
        code,
        at: 0,
        arena: Arena::new(Node::Opaque("a float")),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    let mut start = 0;
    machine.run(&mut start).map_err(|stop| match stop {
        Stop::Broken(reason) => PickleError::Broken { offset: start, reason },
        Stop::Hostile(global) => PickleError::Hostile { global },
    })
}

enum Stop {
    Broken(String),
    Hostile(String),
}

impl From<String> for Stop {
    fn from(reason: String) -> Self {
        Self::Broken(reason)
    }
}

impl<'a> Machine<'a> {
    /// On failure, `start` is the offset of the instruction that failed.
    fn run(mut self, start: &mut usize) -> Result<(Pickle<'a>, usize), Stop> {
        if self.code.len() > MAX_BYTES {
            return Err(
                format!("it has {} bytes, more than the limit of {MAX_BYTES}", self.code.len()).into()
            );
        }
        for _ in 0..MAX_INSTRUCTIONS {
            *start = self.at;
            let opcode = self.byte()?;
            if opcode == b'.' {
                let root = self.pop()?;
                return Ok((Pickle { nodes: self.arena.into_nodes(), root }, self.at));
            }
            self.execute(opcode)?;
            if self.stack.len() > MAX_STACK || self.marks.len() > MAX_STACK {
                return Err(format!("more than {MAX_STACK} values wait on its stack").into());
            }
            if self.arena.len() > MAX_VALUES || self.memo.len() > MAX_VALUES {
                return Err(format!("it builds more than {MAX_VALUES} values").into());
            }
        }
        Err(format!("it has more than {MAX_INSTRUCTIONS} instructions").into())
    }

    fn execute(&mut self, opcode: u8) -> Result<(), Stop> {
        match opcode {
            // PROTO, FRAME
            0x80 => {
                let version = self.byte()?;
                if !(2..=5).contains(&version) {
                    return Err(format!("protocol {version} is not among 2 to 5").into());
                }
            }
            0x95 => _ = self.take_bytes(8)?,
            // Constants.
            b'N' => self.push(Node::None),
            0x88 | 0x89 => self.push(Node::Bool(opcode == 0x88)),
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(Node::Int(i64::from(value)));
            }
            b'K' => {
                let value = self.byte()?;
                self.push(Node::Int(i64::from(value)));
            }
            b'M' => {
                let value = u16::from_le_bytes(self.array()?);
                self.push(Node::Int(i64::from(value)));
            }
            0x8a | 0x8b => self.long(opcode)?,
            b'G' => {
                self.take_bytes(8)?;
                self.stack.push(FLOAT);
            }
            // Texts: BINUNICODE and its short and long forms, then the byte strings of Python 2.
            b'X' | 0x8c | 0x8d | b'U' | b'T' => {
                let length = match opcode {
                    0x8c | b'U' => u64::from(self.byte()?),
                    0x8d => u64::from_le_bytes(self.array()?),
                    _ => u64::from(u32::from_le_bytes(self.array()?)),
                };
                self.text(length)?;
            }
            // BINBYTES, SHORT_BINBYTES, BINBYTES8, BYTEARRAY8
            b'B' | b'C' | 0x8e | 0x96 => {
                let length = match opcode {
                    b'C' => u64::from(self.byte()?),
                    b'B' => u64::from(u32::from_le_bytes(self.array()?)),
                    _ => u64::from_le_bytes(self.array()?),
                };
                let bytes = self.take_bytes(length)?;
                self.push(Node::Bytes(bytes));
            }
            // Containers.
            b')' => self.push(Node::Tuple(Box::new([]))),
            0x85..=0x87 => {
                let items = self.pop_many(usize::from(opcode - 0x84))?;
                self.push(Node::Tuple(items.into_boxed_slice()));
            }
            b't' => {
                let items = self.pop_mark()?;
                self.push(Node::Tuple(items.into_boxed_slice()));
            }
            b']' => self.push(Node::List(Vec::new())),
            b'l' => {
                let items = self.pop_mark()?;
                self.push(Node::List(items));
            }
            b'}' => self.push(Node::Dict(Vec::new())),
            b'd' => {
                let items = self.pop_mark()?;
                let pairs = pairs(&items)?;
                self.push(Node::Dict(pairs));
            }
            0x8f => self.push(Node::Opaque("a set")),
            0x91 => {
                self.pop_mark()?;
                self.push(Node::Opaque("a frozen set"));
            }
            b'a' => {
                let item = self.pop_many(1)?;
                self.extend(&item)?;
            }
            b'e' | 0x90 => {
                let items = self.pop_mark()?;
                self.extend(&items)?;
            }
            b's' => {
                let items = self.pop_many(2)?;
                self.set(&items)?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set(&items)?;
            }
            // The stack itself.
            b'(' => self.marks.push(self.stack.len()),
            b'0' => self.discard()?,
            b'1' => _ = self.pop_mark()?,
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            // The memo.
            b'q' => {
                let slot = u32::from(self.byte()?);
                self.remember(slot)?;
            }
            b'r' => {
                let slot = u32::from_le_bytes(self.array()?);
                self.remember(slot)?;
            }
            0x94 => {
                let slot = self.memo.len() as u32;
                self.remember(slot)?;
            }
            b'h' => {
                let slot = u32::from(self.byte()?);
                self.recall(slot)?;
            }
            b'j' => {
                let slot = u32::from_le_bytes(self.array()?);
                self.recall(slot)?;
            }
            // Names and calls.
            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                self.global(module, name)?;
            }
            0x93 => {
                let parts = self.pop_many(2)?;
                match (self.arena.node(parts[0]), self.arena.node(parts[1])) {
                    (Node::Text(module), Node::Text(name)) => {
                        let (module, name) = (*module, *name);
                        self.global(module, name)?;
                    }
                    _ => return Err("a Python name is made of something that is no text".to_owned().into()),
                }
            }
            b'R' | 0x81 => {
                // REDUCE and NEWOBJ differ in Python, but not for the known constructors.
                let parts = self.pop_many(2)?;
                let value = self.arena.call(parts[0], parts[1])?;
                self.stack.push(value);
            }
            0x92 => {
                let parts = self.pop_many(3)?;
                let value = self.arena.call(parts[0], parts[1])?;
                self.stack.push(value);
            }
            b'i' => {
                let module = self.line()?;
                let name = self.line()?;
                refuse_hostile(module, name)?;
                self.pop_mark()?;
                self.push(Node::Object(module, name));
            }
            b'o' => {
                self.pop_mark()?;
                self.push(Node::Opaque("an object"));
            }
            b'b' => {
                let state = self.pop()?;
                let target = self.top()?;
                self.arena.build(target, state);
            }
            b'Q' => {
                let id = self.pop()?;
                let value = self.arena.persistent(id);
                self.push(value);
            }
            0x82..=0x84 => return Err("extension codes have no meaning in a checkpoint".to_owned().into()),
            0x97 | 0x98 => return Err("out-of-band buffers are not part of a file".to_owned().into()),
            b'I' | b'L' | b'F' | b'S' | b'V' | b'g' | b'p' | b'P' => {
                let reason =
                    format!("instruction `{}` of protocol 0, which torch.save never writes", opcode as char);
                return Err(reason.into());
            }
            _ => return Err(format!("unknown instruction {opcode:#04x}").into()),
        }
        Ok(())
    }

    fn push(&mut self, node: Node<'a>) {
        let handle = self.arena.add(node);
        self.stack.push(handle);
    }

    /// Stack height below which values must not be popped: that of the innermost mark.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> StepResult<Handle> {
        if self.stack.len() <= self.floor() {
            return Err("it takes a value from an empty stack".to_owned());
        }
        self.stack.pop().ok_or_else(|| "it takes a value from an empty stack".to_owned())
    }

    fn pop_many(&mut self, count: usize) -> StepResult<Vec<Handle>> {
        let rest = self.stack.len().checked_sub(count).filter(|rest| *rest >= self.floor());
        let rest = rest.ok_or_else(|| format!("it takes {count} values from a stack that has fewer"))?;
        Ok(self.stack.split_off(rest))
    }

    fn pop_mark(&mut self) -> StepResult<Vec<Handle>> {
        let mark = self.marks.pop().ok_or_else(|| "a mark is missing".to_owned())?;
        // The stack is never lower than its innermost mark, so the split is in range.
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    /// POP removes the mark when nothing lies above it.
    fn discard(&mut self) -> StepResult<()> {
        if self.marks.last() == Some(&self.stack.len()) {
            self.marks.pop();
            return Ok(());
        }
        self.pop().map(drop)
    }

    fn top(&self) -> StepResult<Handle> {
        let top = self.stack.get(self.floor()..).and_then(<[Handle]>::last);
        top.copied().ok_or_else(|| "it reads the top of an empty stack".to_owned())
    }

    fn remember(&mut self, slot: u32) -> StepResult<()> {
        let top = self.top()?;
        self.memo.insert(slot, top);
        Ok(())
    }

    fn recall(&mut self, slot: u32) -> StepResult<()> {
        let value =
            self.memo.get(&slot).ok_or_else(|| format!("it recalls value {slot}, which was never stored"))?;
        self.stack.push(*value);
        Ok(())
    }

    fn extend(&mut self, items: &[Handle]) -> StepResult<()> {
        let target = self.top()?;
        match self.arena.node_mut(target) {
            Some(Node::List(list)) => list.extend_from_slice(items),
            Some(Node::Object(..) | Node::Opaque(_)) => {}
            _ => return Err("it appends to something that is no list".to_owned()),
        }
        Ok(())
    }

    fn set(&mut self, items: &[Handle]) -> StepResult<()> {
        let pairs = pairs(items)?;
        let target = self.top()?;
        match self.arena.node_mut(target) {
            Some(Node::Dict(dict)) => dict.extend_from_slice(&pairs),
            Some(Node::Object(..) | Node::Opaque(_)) => {}
            _ => return Err("it sets keys of something that is no dict".to_owned()),
        }
        Ok(())
    }

    fn global(&mut self, module: &'a str, name: &'a str) -> Result<(), Stop> {
        let length = module.len().max(name.len());
        if length > MAX_GLOBAL {
            return Err(
                format!("a Python name of {length} bytes, more than the limit of {MAX_GLOBAL}").into()
            );
        }
        refuse_hostile(module, name)?;
        self.push(Node::Global(module, name));
        Ok(())
    }

    fn long(&mut self, opcode: u8) -> StepResult<()> {
        let length = match opcode {
            0x8a => u64::from(self.byte()?),
            _ => {
                let length = i32::from_le_bytes(self.array()?);
                u64::try_from(length).map_err(|_| format!("a number claims {length} bytes"))?
            }
        };
        let bytes = self.take_bytes(length)?;
        if bytes.len() > 8 {
            self.push(Node::Opaque("a number beyond 64 bits"));
            return Ok(());
        }
        let negative = bytes.last().is_some_and(|last| last & 0x80 != 0);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        self.push(Node::Int(i64::from_le_bytes(wide)));
        Ok(())
    }

    fn text(&mut self, length: u64) -> StepResult<()> {
        if length > MAX_TEXT as u64 {
            return Err(format!("a text claims {length} bytes, more than the limit of {MAX_TEXT}"));
        }
        let bytes = self.take_bytes(length)?;
        self.push(std::str::from_utf8(bytes).map_or(Node::Opaque("a text that is not UTF-8"), Node::Text));
        Ok(())
    }

    fn line(&mut self) -> StepResult<&'a str> {
        let rest = self.code.get(self.at..).unwrap_or_default();
        let length = rest.iter().take(MAX_TEXT).position(|byte| *byte == b'\n');
        let length = length.ok_or_else(|| "a Python name never ends".to_owned())?;
        self.at += length + 1;
        std::str::from_utf8(&rest[..length]).map_err(|_| "a Python name is not UTF-8".to_owned())
    }

    fn byte(&mut self) -> StepResult<u8> {
        Ok(self.array::<1>()?[0])
    }

    fn array<const N: usize>(&mut self) -> StepResult<[u8; N]> {
        let rest = self.code.get(self.at..).unwrap_or_default();
        let array = rest.first_chunk::<N>().ok_or_else(|| self.ends_early(N as u64))?;
        self.at += N;
        Ok(*array)
    }

    fn take_bytes(&mut self, length: u64) -> StepResult<&'a [u8]> {
        let code: &'a [u8] = self.code;
        let end = usize::try_from(length).ok().and_then(|length| self.at.checked_add(length));
        let bytes = end.and_then(|end| code.get(self.at..end)).ok_or_else(|| self.ends_early(length))?;
        self.at += bytes.len();
        Ok(bytes)
    }

    fn ends_early(&self, needed: u64) -> String {
        format!(
            "it ends early: {needed} more bytes are needed and {} are left",
            self.code.len().saturating_sub(self.at)
        )
    }
}

fn refuse_hostile(module: &str, name: &str) -> Result<(), Stop> {
    if is_hostile(module, name) {
        return Err(Stop::Hostile(DottedName(module, name).to_string()));
    }
    Ok(())
}

fn pairs(items: &[Handle]) -> StepResult<Vec<(Handle, Handle)>> {
    let (pairs, rest) = items.as_chunks::<2>();
    if !rest.is_empty() {
        return Err("a key has no value".to_owned());
    }
    Ok(pairs.iter().map(|pair| (pair[0], pair[1])).collect())
}
