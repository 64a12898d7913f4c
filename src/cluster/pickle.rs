//! Rows as a Python pickle: a list of `(path, class, [0 or 1 per feature])`.
//!
//! A pickle is a program for a small stack machine. The decoder here knows the
//! opcodes that texts, whole numbers, tuples and lists are made of, in every
//! protocol from 0 to 4, and refuses all others, so nothing in a file is ever
//! run or imported.
//!
//! The crate serde-pickle 1.2 was measured first, decoding into exact types: a
//! file of a million nested lists overflows the stack and aborts; 85 bytes of
//! `DUP TUPLE2` take 5.2 GB and 10 s, three bytes per doubling; 224 kB of
//! references into the memo take 9.4 GB; protocol 5 and references to Python
//! code pass unseen where their value is dropped. Here values lie in an arena
//! and are numbers into it, so copying one costs 16 bytes, nesting costs no
//! stack, and memory grows with the bytes that were read.

use std::collections::HashMap;
use std::io::{BufRead, Read, Write};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};

use super::{MOST_FEATURES, Row};

/// Written: the first protocol of Python 3. None of it needs version 4's frames.
const PROTOCOL: u8 = 3;

/// Protocol 5 adds buffers outside the file.
const NEWEST_PROTOCOL: u8 = 4;

/// More than any set of photographs in use.
const MOST_ROWS: usize = 1 << 21;

/// An image takes a tuple, a text and a list; the list of all is one more.
const MOST_OBJECTS: usize = 3 * MOST_ROWS + 1;

/// The largest id in a row: what the opcode for whole numbers holds.
pub const LARGEST_CLASS: usize = i32::MAX as usize;

/// In bytes. Operating systems allow paths of 4 to 100 KB.
const LONGEST_TEXT: u64 = 1 << 20;

/// In bytes. Any number that is longer than this is no class.
const LONGEST_NUMBER: u64 = 64;

/// Names of the opcodes, as Python's pickle module has them.
mod op {
    pub const MARK: u8 = b'(';
    pub const STOP: u8 = b'.';
    pub const POP: u8 = b'0';
    pub const POP_MARK: u8 = b'1';
    pub const DUP: u8 = b'2';
    pub const INT: u8 = b'I';
    pub const BININT: u8 = b'J';
    pub const BININT1: u8 = b'K';
    pub const LONG: u8 = b'L';
    pub const BININT2: u8 = b'M';
    pub const STRING: u8 = b'S';
    pub const BINSTRING: u8 = b'T';
    pub const SHORT_BINSTRING: u8 = b'U';
    pub const UNICODE: u8 = b'V';
    pub const BINUNICODE: u8 = b'X';
    pub const APPEND: u8 = b'a';
    pub const APPENDS: u8 = b'e';
    pub const GET: u8 = b'g';
    pub const BINGET: u8 = b'h';
    pub const LONG_BINGET: u8 = b'j';
    pub const LIST: u8 = b'l';
    pub const EMPTY_LIST: u8 = b']';
    pub const PUT: u8 = b'p';
    pub const BINPUT: u8 = b'q';
    pub const LONG_BINPUT: u8 = b'r';
    pub const TUPLE: u8 = b't';
    pub const PROTO: u8 = 0x80;
    pub const TUPLE3: u8 = 0x87;
    pub const LONG1: u8 = 0x8a;
    pub const LONG4: u8 = 0x8b;
    pub const SHORT_BINUNICODE: u8 = 0x8c;
    pub const BINUNICODE8: u8 = 0x8d;
    pub const MEMOIZE: u8 = 0x94;
    pub const FRAME: u8 = 0x95;
}

/// Writes the rows as a pickle of protocol 3.
///
/// # Errors
/// If [`read`] would not take the rows back (none, or unequally many features),
/// or they cannot be written.
pub fn write(rows: &[Row], to: &mut impl Write) -> Result<()> {
    check(rows)?;
    to.write_all(&[op::PROTO, PROTOCOL, op::EMPTY_LIST, op::MARK])?;
    for row in rows {
        let length = u32::try_from(row.path.len())?;
        to.write_all(&[op::BINUNICODE])?;
        to.write_all(&length.to_le_bytes())?;
        to.write_all(row.path.as_bytes())?;
        let class = i32::try_from(row.class)?;
        to.write_all(&[op::BININT])?;
        to.write_all(&class.to_le_bytes())?;
        to.write_all(&[op::EMPTY_LIST, op::MARK])?;
        for &feature in &row.features {
            to.write_all(&[op::BININT1, u8::from(feature)])?;
        }
        to.write_all(&[op::APPENDS, op::TUPLE3])?;
    }
    to.write_all(&[op::APPENDS, op::STOP])?;
    Ok(())
}

/// Reads rows from a pickle of protocol 0 to 4, to the end of `source`. The
/// caller names the file in the error.
///
/// # Errors
/// If it is no such pickle; denotes anything but a list of at least one
/// `(path, class, [0 or 1 per feature])`; or cannot be read.
pub fn read(source: impl BufRead) -> Result<Vec<Row>> {
    let mut decoder = Decoder::new(source);
    let value = decoder.decode()?;
    let rows = decoder.rows(value)?;
    check(&rows)?;
    Ok(rows)
}

/// Whether the rows are ones that a pickle may hold.
fn check(rows: &[Row]) -> Result<()> {
    let Some(first) = rows.first() else {
        bail!("the list of images is empty");
    };
    let count = first.features.len();
    if !(1..=MOST_FEATURES).contains(&count) {
        bail!("image 1 has {count} features, where there are 1 to {MOST_FEATURES}");
    }
    if rows.len() > MOST_ROWS {
        bail!(
            "{} images are more than the {MOST_ROWS} that a cluster file holds",
            rows.len()
        );
    }
    for (number, row) in (1..).zip(rows) {
        if row.features.len() != count {
            bail!(
                "image {number} has {} features where the first has {count}",
                row.features.len()
            );
        }
        if row.class > LARGEST_CLASS {
            bail!(
                "image {number} has class {}, above {LARGEST_CLASS}",
                row.class
            );
        }
        if row.path.len() as u64 > LONGEST_TEXT {
            bail!("image {number} has a path of {} bytes", row.path.len());
        }
    }
    Ok(())
}

/// A number, or the place of an object in the arena.
#[derive(Debug, Clone, Copy)]
enum Value {
    Number(i64),
    Text(u32),
    List(u32),
    Tuple(u32),
}

/// The stack machine. No value holds another, so there are no cycles to follow
/// and nothing deep to drop.
struct Decoder<R> {
    source: R,
    /// Bytes read so far.
    at: u64,
    frame_end: u64,
    stack: Vec<Value>,
    /// Heights of the stack at the marks.
    marks: Vec<usize>,
    memo: HashMap<u64, Value>,
    texts: Vec<Arc<str>>,
    lists: Vec<Vec<Value>>,
    tuples: Vec<[Value; 3]>,
}

impl<R: BufRead> Decoder<R> {
    fn new(source: R) -> Self {
        Self {
            source,
            at: 0,
            frame_end: 0,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            texts: Vec::new(),
            lists: Vec::new(),
            tuples: Vec::new(),
        }
    }

    /// Runs the program to its end, which is the end of the file.
    fn decode(&mut self) -> Result<Value> {
        loop {
            let start = self.at;
            let [opcode] = self.bytes()?;
            if opcode == op::STOP {
                break;
            }
            self.step(opcode)
                .with_context(|| format!("the pickle is refused at byte {start}"))?;
        }
        let value = self.pop()?;
        if !self.stack.is_empty() || !self.marks.is_empty() {
            bail!("the pickle leaves more than one value");
        }
        if self.frame_end > self.at {
            bail!("the pickle ends within a frame");
        }
        if !self.source.fill_buf().context("cannot read on")?.is_empty() {
            bail!("the pickle ends at byte {}, but the file goes on", self.at);
        }
        Ok(value)
    }

    fn step(&mut self, opcode: u8) -> Result<()> {
        match opcode {
            op::PROTO => {
                let [protocol] = self.bytes()?;
                if protocol > NEWEST_PROTOCOL {
                    bail!(
                        "its protocol is {protocol}, not {NEWEST_PROTOCOL} or lower \
                         (pickle.dump(rows, file, protocol={NEWEST_PROTOCOL}))"
                    );
                }
            }
            op::FRAME => {
                let length = u64::from_le_bytes(self.bytes()?);
                if self.at < self.frame_end {
                    bail!("a frame begins within another");
                }
                self.frame_end = self.at.saturating_add(length);
            }
            op::MARK => self.marks.push(self.stack.len()),
            op::POP => {
                if self.marks.last() == Some(&self.stack.len()) {
                    self.marks.pop();
                } else {
                    self.pop()?;
                }
            }
            op::POP_MARK => {
                let height = self.mark()?;
                self.stack.truncate(height);
            }
            op::DUP => {
                let top = self.top()?;
                self.stack.push(top);
            }

            op::PUT => {
                let key = self.memo_key()?;
                self.remember(key)?;
            }
            op::BINPUT => {
                let [key] = self.bytes()?;
                self.remember(key.into())?;
            }
            op::LONG_BINPUT => {
                let key = u32::from_le_bytes(self.bytes()?);
                self.remember(key.into())?;
            }
            op::MEMOIZE => self.remember(self.memo.len() as u64)?,
            op::GET => {
                let key = self.memo_key()?;
                self.recall(key)?;
            }
            op::BINGET => {
                let [key] = self.bytes()?;
                self.recall(key.into())?;
            }
            op::LONG_BINGET => {
                let key = u32::from_le_bytes(self.bytes()?);
                self.recall(key.into())?;
            }

            op::INT => {
                let line = self.line(LONGEST_NUMBER)?;
                // Protocols 0 and 1 spell False and True so.
                if line == b"00" || line == b"01" {
                    bail!("a truth value{EXPECTED}");
                }
                self.push_number(decimal(&line)?);
            }
            op::LONG => {
                let line = self.line(LONGEST_NUMBER)?;
                self.push_number(decimal(line.strip_suffix(b"L").unwrap_or(&line))?);
            }
            op::BININT => {
                let number = i32::from_le_bytes(self.bytes()?);
                self.push_number(number.into());
            }
            op::BININT1 => {
                let [number] = self.bytes()?;
                self.push_number(number.into());
            }
            op::BININT2 => {
                let number = u16::from_le_bytes(self.bytes()?);
                self.push_number(number.into());
            }
            op::LONG1 => {
                let [length] = self.bytes()?;
                self.long(length.into())?;
            }
            op::LONG4 => {
                let length = u32::from_le_bytes(self.bytes()?);
                self.long(length.into())?;
            }

            op::UNICODE => {
                let line = self.line(LONGEST_TEXT)?;
                self.push_text(&raw_unicode_escaped(&line)?)?;
            }
            op::SHORT_BINUNICODE => {
                let [length] = self.bytes()?;
                self.utf8(length.into())?;
            }
            op::BINUNICODE => {
                let length = u32::from_le_bytes(self.bytes()?);
                self.utf8(length.into())?;
            }
            op::BINUNICODE8 => {
                let length = u64::from_le_bytes(self.bytes()?);
                self.utf8(length)?;
            }
            // Python 2's texts. Python 3 takes them for ASCII.
            op::STRING => {
                let line = self.line(LONGEST_TEXT)?;
                self.ascii(unquoted(&line)?)?;
            }
            op::SHORT_BINSTRING => {
                let [length] = self.bytes()?;
                let bytes = self.block(length.into(), LONGEST_TEXT)?;
                self.ascii(bytes)?;
            }
            op::BINSTRING => {
                let length = u32::from_le_bytes(self.bytes()?);
                let bytes = self.block(length.into(), LONGEST_TEXT)?;
                self.ascii(bytes)?;
            }

            op::TUPLE => {
                let height = self.mark()?;
                let &[path, class, features] = &self.stack[height..] else {
                    bail!("a tuple of {}{EXPECTED}", self.stack.len() - height);
                };
                self.stack.truncate(height);
                self.push_tuple([path, class, features])?;
            }
            op::TUPLE3 => {
                let features = self.pop()?;
                let class = self.pop()?;
                let path = self.pop()?;
                self.push_tuple([path, class, features])?;
            }
            op::EMPTY_LIST => self.push_list(Vec::new())?,
            op::LIST => {
                let height = self.mark()?;
                let items = self.stack.split_off(height);
                self.push_list(items)?;
            }
            op::APPEND => {
                let item = self.pop()?;
                self.top_list()?.push(item);
            }
            op::APPENDS => {
                let height = self.mark()?;
                let items = self.stack.split_off(height);
                self.top_list()?.extend(items);
            }
            other => bail!("{}{EXPECTED}", refused(other)),
        }
        Ok(())
    }

    /// Exactly so many bytes.
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.source.read_exact(&mut bytes).map_err(|error| {
            if error.kind() == std::io::ErrorKind::UnexpectedEof {
                self.cut_short()
            } else {
                anyhow::Error::new(error).context("cannot read on")
            }
        })?;
        self.at += N as u64;
        Ok(bytes)
    }

    /// A block of the given length. Memory is taken as the bytes come, not as
    /// `length` promises them.
    fn block(&mut self, length: u64, longest: u64) -> Result<Vec<u8>> {
        if length > longest {
            bail!("a value of {length} bytes{EXPECTED}");
        }
        let mut block = Vec::new();
        let read = (&mut self.source).take(length).read_to_end(&mut block);
        if (read.context("cannot read on")? as u64) < length {
            return Err(self.cut_short());
        }
        self.at += length;
        Ok(block)
    }

    /// The bytes up to the next line feed, which is consumed.
    fn line(&mut self, longest: u64) -> Result<Vec<u8>> {
        let mut line = Vec::new();
        let read = (&mut self.source)
            .take(longest + 1)
            .read_until(b'\n', &mut line)
            .context("cannot read on")?;
        if line.pop() != Some(b'\n') {
            if read as u64 > longest {
                bail!("a value of more than {longest} bytes{EXPECTED}");
            }
            return Err(self.cut_short());
        }
        self.at += read as u64;
        Ok(line)
    }

    fn cut_short(&self) -> anyhow::Error {
        if self.at == 0 {
            anyhow!("it is empty")
        } else {
            anyhow!("it ends in the middle of the pickle")
        }
    }

    /// A value may be taken only from above the last mark.
    fn top(&self) -> Result<Value> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.last() {
            Some(&value) if self.stack.len() > floor => Ok(value),
            _ => bail!("a value is missing on the stack"),
        }
    }

    fn pop(&mut self) -> Result<Value> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    /// Removes the last mark; the height of the stack there.
    fn mark(&mut self) -> Result<usize> {
        self.marks
            .pop()
            .ok_or_else(|| anyhow!("a mark is missing on the stack"))
    }

    /// The list on top of the stack, to be changed.
    fn top_list(&mut self) -> Result<&mut Vec<Value>> {
        match self.top()? {
            Value::List(index) => Ok(&mut self.lists[index as usize]),
            _ => bail!("something is appended to a value that is no list"),
        }
    }

    fn memo_key(&mut self) -> Result<u64> {
        let line = self.line(LONGEST_NUMBER)?;
        u64::try_from(decimal(&line)?).map_err(|_| anyhow!("a negative place in the memo"))
    }

    fn remember(&mut self, key: u64) -> Result<()> {
        let top = self.top()?;
        self.memo.insert(key, top);
        if self.memo.len() > MOST_OBJECTS {
            bail!("more values than {MOST_ROWS} images have");
        }
        Ok(())
    }

    fn recall(&mut self, key: u64) -> Result<()> {
        let value = self.memo.get(&key);
        let value = *value.ok_or_else(|| anyhow!("there is nothing at {key} in the memo"))?;
        self.stack.push(value);
        Ok(())
    }

    /// The place of the next of `count` objects of one kind.
    fn place(&self, count: usize) -> Result<u32> {
        if self.texts.len() + self.lists.len() + self.tuples.len() >= MOST_OBJECTS {
            bail!("more values than {MOST_ROWS} images have");
        }
        Ok(u32::try_from(count)?)
    }

    fn push_number(&mut self, number: i64) {
        self.stack.push(Value::Number(number));
    }

    fn push_text(&mut self, text: &str) -> Result<()> {
        let place = self.place(self.texts.len())?;
        self.texts.push(text.into());
        self.stack.push(Value::Text(place));
        Ok(())
    }

    fn push_list(&mut self, items: Vec<Value>) -> Result<()> {
        let place = self.place(self.lists.len())?;
        self.lists.push(items);
        self.stack.push(Value::List(place));
        Ok(())
    }

    fn push_tuple(&mut self, items: [Value; 3]) -> Result<()> {
        let place = self.place(self.tuples.len())?;
        self.tuples.push(items);
        self.stack.push(Value::Tuple(place));
        Ok(())
    }

    /// A number in two's complement, the lowest byte first.
    fn long(&mut self, length: u64) -> Result<()> {
        let bytes = self.block(length, LONGEST_NUMBER)?;
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let fill = if negative { 0xff } else { 0 };
        let mut low = [fill; 16];
        let (head, rest) = bytes.split_at(bytes.len().min(low.len()));
        low[..head.len()].copy_from_slice(head);
        let whole = i128::from_le_bytes(low);
        let fits = rest.iter().all(|byte| *byte == fill) && (whole < 0) == negative;
        let number = fits.then(|| i64::try_from(whole).ok()).flatten();
        self.push_number(number.ok_or_else(|| anyhow!("a number beyond 64 bits{EXPECTED}"))?);
        Ok(())
    }

    fn utf8(&mut self, length: u64) -> Result<()> {
        let bytes = self.block(length, LONGEST_TEXT)?;
        let text = str::from_utf8(&bytes).map_err(|_| anyhow!("a text that is not UTF-8"))?;
        self.push_text(text)
    }

    fn ascii(&mut self, bytes: Vec<u8>) -> Result<()> {
        match String::from_utf8(bytes) {
            Ok(text) if text.is_ascii() => self.push_text(&text),
            _ => bail!("a text of Python 2 that is not ASCII"),
        }
    }

    /// The rows that the value denotes.
    fn rows(&self, value: Value) -> Result<Vec<Row>> {
        let Value::List(list) = value else {
            bail!("it holds {}{EXPECTED}", kind(value));
        };
        let rows = &self.lists[list as usize];
        if rows.len() > MOST_ROWS {
            bail!(
                "{} images are more than the {MOST_ROWS} that a cluster file holds",
                rows.len()
            );
        }
        (1..)
            .zip(rows)
            .map(|(number, &row)| self.row(number, row))
            .collect()
    }

    fn row(&self, number: usize, row: Value) -> Result<Row> {
        let Value::Tuple(tuple) = row else {
            bail!("item {number} of the list is {}{EXPECTED}", kind(row));
        };
        let [path, class, features] = self.tuples[tuple as usize];
        let Value::Text(path) = path else {
            bail!("image {number} has {} for its path, not a text", kind(path));
        };
        let Value::Number(class) = class else {
            bail!(
                "image {number} has {} for its class, not a number",
                kind(class)
            );
        };
        let Some(id) = usize::try_from(class)
            .ok()
            .filter(|id| *id <= LARGEST_CLASS)
        else {
            bail!("image {number} has class {class}, which is not from 0 to {LARGEST_CLASS}");
        };
        let Value::List(features) = features else {
            bail!(
                "image {number} has {} for its features, not a list",
                kind(features)
            );
        };
        let features = &self.lists[features as usize];
        // Before they are copied: many rows may share one long list.
        if features.len() > MOST_FEATURES {
            bail!(
                "image {number} has {} features, where there are 1 to {MOST_FEATURES}",
                features.len()
            );
        }
        let bit = |(place, value): (usize, &Value)| match value {
            Value::Number(0) => Ok(false),
            Value::Number(1) => Ok(true),
            Value::Number(other) => {
                bail!("feature {place} of image {number} is {other}, not 0 or 1")
            }
            other => bail!(
                "feature {place} of image {number} is {}, not 0 or 1",
                kind(*other)
            ),
        };
        Ok(Row {
            path: self.texts[path as usize].clone(),
            class: id,
            features: (1..).zip(features).map(bit).collect::<Result<_>>()?,
        })
    }
}

const EXPECTED: &str = ", where a list of (path, class, [0 or 1 per feature]) is expected";

fn kind(value: Value) -> &'static str {
    match value {
        Value::Number(_) => "a number",
        Value::Text(_) => "a text",
        Value::List(_) => "a list",
        Value::Tuple(_) => "a tuple",
    }
}

/// What an opcode that has no place in such a pickle makes.
fn refused(opcode: u8) -> String {
    let name = match opcode {
        b'c' | 0x93 => "a reference to Python code",
        b'R' | b'b' | b'i' | b'o' | b'P' | b'Q' | 0x81..=0x84 | 0x92 => "a Python object",
        b'F' | b'G' => "a floating-point number",
        b'N' => "None",
        0x88 | 0x89 => "a truth value",
        b'}' | b'd' | b's' | b'u' => "a dictionary",
        0x8f..=0x91 => "a set",
        b'B' | b'C' | 0x8e | 0x96 => "bytes",
        b')' => "a tuple of 0",
        0x85 => "a tuple of 1",
        0x86 => "a tuple of 2",
        _ => return format!("the unknown opcode {opcode:#04x}"),
    };
    name.to_owned()
}

/// A decimal number as Python prints it.
fn decimal(line: &[u8]) -> Result<i64> {
    let text = str::from_utf8(line)
        .ok()
        .filter(|text| !text.starts_with('+'));
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| anyhow!("'{}' is no number of at most 64 bits", line.escape_ascii()))
}

/// Python's codec raw-unicode-escape: `\uXXXX` and `\UXXXXXXXX`, else Latin-1.
fn raw_unicode_escaped(line: &[u8]) -> Result<String> {
    let mut text = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let digits = match (byte, after.first()) {
            (b'\\', Some(b'u')) => 4,
            (b'\\', Some(b'U')) => 8,
            // A backslash takes the next byte along, even if that is another one.
            (b'\\', Some(&next)) => {
                text.extend(['\\', char::from(next)]);
                rest = &after[1..];
                continue;
            }
            _ => {
                text.push(char::from(byte));
                continue;
            }
        };
        let letter = after
            .get(1..=digits)
            .and_then(hexadecimal)
            .and_then(char::from_u32);
        text.push(
            letter.ok_or_else(|| anyhow!("a text with a broken escape or a lone surrogate"))?,
        );
        rest = &after[1 + digits..];
    }
    Ok(text)
}

/// A text in quotes, as Python 2's `repr` writes it.
fn unquoted(line: &[u8]) -> Result<Vec<u8>> {
    let inner = [b'\'', b'"']
        .iter()
        .find_map(|quote| line.strip_prefix(&[*quote])?.strip_suffix(&[*quote]));
    let mut rest = inner.ok_or_else(|| anyhow!("a text without quotes"))?;
    let mut bytes = Vec::with_capacity(rest.len());
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let escaped = match after.first() {
            Some(b'n') => Some(b'\n'),
            Some(b'r') => Some(b'\r'),
            Some(b't') => Some(b'\t'),
            Some(&same @ (b'\\' | b'\'' | b'"')) => Some(same),
            Some(b'x') => {
                let value = after.get(1..3).and_then(hexadecimal);
                rest = after.get(2..).unwrap_or_default();
                value.and_then(|value| u8::try_from(value).ok())
            }
            _ => None,
        };
        bytes.push(escaped.ok_or_else(|| anyhow!("a text with a broken escape"))?);
        rest = rest.get(1..).unwrap_or_default();
    }
    Ok(bytes)
}

/// Hexadecimal digits and nothing else.
fn hexadecimal(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0u32, |sum, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        sum.checked_mul(16)?.checked_add(digit)
    })
}
