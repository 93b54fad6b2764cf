//! Cuts JSON of any length into the objects that are worth reading: the elements of the arrays
//! `resourceSpans` (OTLP) and `data` (Jaeger) of each document. Only brackets and strings are looked at
//! here, so that one broken element does not take the rest of the file with it, and no more than one
//! element is in memory.

use std::io::{self, Read};

use super::Fault;

/// Bytes that are read at once.
const CHUNK: usize = 256 << 10;
/// The deepest nesting that is followed; serde_json's own limit is 128.
const DEEPEST: usize = 256;

/// What an element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    ResourceSpans,
    JaegerTrace,
}

/// An element.
#[derive(Debug)]
pub(super) struct Element<'a> {
    pub(super) held: Held,
    /// Where it begins in the file.
    pub(super) at: u64,
    pub(super) text: &'a [u8],
}

/// Where in a document the reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Before a document.
    Outside,
    /// In its object, where a key or the end comes.
    Key,
    /// In an array of elements.
    Array(Held),
}

/// The elements of a file.
pub(super) struct Elements<R> {
    reader: R,
    buffer: Vec<u8>,
    /// Of the buffer, what has been dealt with.
    start: usize,
    /// Of the buffer, what has been filled.
    end: usize,
    /// Bytes of the file before the buffer.
    before: u64,
    place: Place,
    largest: usize,
    ended: bool,
}

/// What became of a value.
enum Value {
    /// From the start of the unread part, so many bytes.
    Whole(usize),
    /// It is larger than permitted, and was skipped.
    TooLarge,
    /// The file ends within it.
    CutShort,
}

impl<R: Read> Elements<R> {
    pub(super) fn new(reader: R, largest: usize) -> Self {
        Self {
            reader,
            buffer: Vec::new(),
            start: 0,
            end: 0,
            before: 0,
            place: Place::Outside,
            largest,
            ended: false,
        }
    }

    /// Bytes of the file that have been dealt with.
    pub(super) fn offset(&self) -> u64 {
        self.before + self.start as u64
    }

    /// The next element, or what is wrong in its place; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Result<Element<'_>, Fault>>> {
        if self.ended {
            return Ok(None);
        }
        loop {
            let Some(byte) = self.peek()? else {
                self.ended = true;
                let at = self.offset();
                let what = "the file ends within a document".to_owned();
                return Ok((self.place != Place::Outside).then_some(Err(Fault { at, what })));
            };
            match (self.place, byte) {
                // Documents may follow each other, or stand in an array.
                (Place::Outside, b'{') => {
                    self.start += 1;
                    self.place = Place::Key;
                }
                (Place::Outside, b'[' | b']' | b',' | 0xef | 0xbb | 0xbf)
                | (Place::Key | Place::Array(_), b',') => self.start += 1,
                (Place::Key, b'}') => {
                    self.start += 1;
                    self.place = Place::Outside;
                }
                (Place::Key, b'"') => {
                    if let Err(fault) = self.key()? {
                        return Ok(Some(Err(fault)));
                    }
                }
                (Place::Array(_), b']') => {
                    self.start += 1;
                    self.place = Place::Key;
                }
                (Place::Array(held), b'{') => return self.element(held).map(Some),
                (_, byte) => {
                    let what = format!("no JSON: 0x{byte:02x} where something else must stand");
                    return Ok(Some(Err(self.next_line(what)?)));
                }
            }
        }
    }

    /// Reads a key and goes into its array, or skips its value.
    fn key(&mut self) -> io::Result<Result<(), Fault>> {
        let key = match self.value()? {
            Value::Whole(length) => {
                let text = &self.buffer[self.start..self.start + length];
                let held = match text {
                    b"\"resourceSpans\"" | b"\"resource_spans\"" => Some(Held::ResourceSpans),
                    b"\"data\"" => Some(Held::JaegerTrace),
                    _ => None,
                };
                self.start += length;
                held
            }
            value => return Ok(Err(self.lost(&value))),
        };
        if self.peek()? != Some(b':') {
            return Ok(Err(self.next_line("no JSON: a key without a value".to_owned())?));
        }
        self.start += 1;
        if let (Some(held), Some(b'[')) = (key, self.peek()?) {
            self.start += 1;
            self.place = Place::Array(held);
            return Ok(Ok(()));
        }
        // What nobody wants may be as large as it likes.
        match self.skip()? {
            true => Ok(Ok(())),
            false => Ok(Err(self.lost(&Value::CutShort))),
        }
    }

    fn element(&mut self, held: Held) -> io::Result<Result<Element<'_>, Fault>> {
        let at = self.offset();
        match self.value()? {
            Value::Whole(length) => {
                let text = &self.buffer[self.start..self.start + length];
                self.start += length;
                Ok(Ok(Element { held, at, text }))
            }
            value => Ok(Err(self.lost(&value))),
        }
    }

    fn lost(&mut self, value: &Value) -> Fault {
        let at = self.offset();
        match value {
            Value::TooLarge => Fault {
                at,
                what: format!(
                    "more than {} MiB in one piece: let the Collector write smaller batches",
                    self.largest >> 20
                ),
            },
            _ => {
                self.ended = true;
                Fault { at, what: "the file ends here, within a document".to_owned() }
            }
        }
    }

    /// Gives up the document, and goes on with the next line.
    fn next_line(&mut self, what: String) -> io::Result<Fault> {
        let fault = Fault { at: self.offset(), what };
        self.place = Place::Outside;
        loop {
            let unread = &self.buffer[self.start..self.end];
            if let Some(at) = unread.iter().position(|byte| *byte == b'\n') {
                self.start += at + 1;
                return Ok(fault);
            }
            self.start = self.end;
            if !self.fill()? {
                self.ended = true;
                return Ok(fault);
            }
        }
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> io::Result<Option<u8>> {
        loop {
            let unread = &self.buffer[self.start..self.end];
            if let Some(at) = unread.iter().position(|byte| !byte.is_ascii_whitespace()) {
                self.start += at;
                return Ok(Some(self.buffer[self.start]));
            }
            self.start = self.end;
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    /// Finds the end of the value that begins here, and keeps it in the buffer if it is not too large.
    fn value(&mut self) -> io::Result<Value> {
        let mut scan = Scan::default();
        let mut looked_at = 0;
        loop {
            let unread = &self.buffer[self.start + looked_at..self.end];
            if let Some(more) = scan.end_of(unread) {
                return Ok(Value::Whole(looked_at + more));
            }
            looked_at = self.end - self.start;
            if looked_at > self.largest {
                self.start = self.end;
                return Ok(if self.skip_on(scan)? { Value::TooLarge } else { Value::CutShort });
            }
            if !self.fill()? {
                return Ok(Value::CutShort);
            }
        }
    }

    /// Skips a value; false when the file ends within it.
    fn skip(&mut self) -> io::Result<bool> {
        self.skip_on(Scan::default())
    }

    fn skip_on(&mut self, mut scan: Scan) -> io::Result<bool> {
        loop {
            let unread = &self.buffer[self.start..self.end];
            if let Some(length) = scan.end_of(unread) {
                self.start += length;
                return Ok(true);
            }
            self.start = self.end;
            if !self.fill()? {
                return Ok(false);
            }
        }
    }

    /// Reads more behind what is unread; false at the end of the file.
    fn fill(&mut self) -> io::Result<bool> {
        if self.start > 0 {
            self.before += self.start as u64;
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.buffer.len() < self.end + CHUNK {
            // Doubled, so that a large element is not copied for each chunk.
            self.buffer.resize((2 * self.end).max(self.end + CHUNK), 0);
        }
        loop {
            match self.reader.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Ok(false),
                Ok(more) => {
                    self.end += more;
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// How far into a value one is.
#[derive(Clone, Copy, Debug, Default)]
struct Scan {
    depth: usize,
    in_string: bool,
    is_escaped: bool,
    /// A number or a word, which ends where something else begins.
    in_word: bool,
}

impl Scan {
    /// How many bytes of `text` belong to the value, if it ends there.
    fn end_of(&mut self, text: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(&byte) = text.get(at) {
            if self.in_string {
                // The rest of the string at once: most of a file is strings.
                if self.is_escaped {
                    self.is_escaped = false;
                    at += 1;
                    continue;
                }
                let rest = &text[at..];
                let next = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
                at += next + 1;
                if rest[next] == b'\\' {
                    self.is_escaped = true;
                } else {
                    self.in_string = false;
                    if self.depth == 0 {
                        return Some(at);
                    }
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    if self.depth <= 1 {
                        // Of a word, the bracket belongs to what is around it.
                        return Some(if self.depth == 0 { at } else { at + 1 });
                    }
                    self.depth -= 1;
                }
                b',' if self.depth == 0 && self.in_word => return Some(at),
                byte if byte.is_ascii_whitespace() => {
                    if self.depth == 0 && self.in_word {
                        return Some(at);
                    }
                }
                _ => self.in_word = true,
            }
            at += 1;
            if self.depth > DEEPEST {
                // Its parser will say the same; only this counter must not run on.
                self.depth = DEEPEST;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Gives a byte or a few at a time.
    struct Drops<'a>(&'a [u8], usize);

    impl Read for Drops<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let length = self.0.len().min(self.1).min(into.len());
            into[..length].copy_from_slice(&self.0[..length]);
            self.0 = &self.0[length..];
            Ok(length)
        }
    }

    fn elements(text: &[u8], drop: usize, largest: usize) -> (Vec<String>, Vec<String>) {
        let mut elements = Elements::new(Drops(text, drop), largest);
        let (mut found, mut faults) = (Vec::new(), Vec::new());
        while let Some(next) = elements.next().unwrap() {
            match next {
                Ok(element) => found.push(String::from_utf8_lossy(element.text).into_owned()),
                Err(fault) => faults.push(fault.what),
            }
        }
        (found, faults)
    }

    #[test]
    fn elements_are_found_however_the_file_comes() {
        let text = br#"{"x":[1,{"resourceSpans":[{}]}],"resourceSpans":[{"a":"}\"]"} , {"b":[[]]}],"y":-1.5e3}
            {"data":[{"c":{}}],"total":0,"z":null}"#;
        for drop in [1, 2, 7, 1000] {
            let (found, faults) = elements(text, drop, 1000);
            assert_eq!(found, [r#"{"a":"}\"]"}"#, r#"{"b":[[]]}"#, r#"{"c":{}}"#]);
            assert!(faults.is_empty(), "{faults:?}");
        }
    }

    #[test]
    fn element_that_is_too_large_is_skipped_and_the_next_is_found() {
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(2 * CHUNK));
        let text = format!("{{\"resourceSpans\":[{large},{{}}]}}");
        let (found, faults) = elements(text.as_bytes(), CHUNK, CHUNK);
        assert_eq!((found.len(), faults.len()), (1, 1));
    }

    #[test]
    fn line_that_is_no_json_does_not_hide_the_next() {
        let (found, faults) = elements(b"{\"a\" 1}\n{\"resourceSpans\":[{}]}", 5, 1000);
        assert_eq!((found.len(), faults.len()), (1, 1));
        let (found, faults) = elements(b"{\"resourceSpans\":[7]}\n{\"data\":[{}]}", 5, 1000);
        assert_eq!((found.len(), faults.len()), (1, 1));
    }

    #[test]
    fn deep_nesting_takes_no_stack() {
        let text = format!("{{\"resourceSpans\":[{{\"a\":{}", "[".repeat(1 << 20));
        let (found, faults) = elements(text.as_bytes(), CHUNK, 4 << 20);
        assert_eq!((found.len(), faults.len()), (0, 1));
    }

    proptest! {
        #[test]
        fn any_bytes_end(text in proptest::collection::vec(
            prop_oneof![Just(b'{'), Just(b'}'), Just(b'['), Just(b']'), Just(b'"'), Just(b','), Just(b':'),
                        Just(b'\\'), Just(b'\n'), any::<u8>()], 0..200), drop in 1_usize..50) {
            let (_, faults) = elements(&text, drop, 64);
            prop_assert!(faults.len() <= text.len() + 1);
        }

        #[test]
        fn cut_anywhere_gives_no_more_than_the_whole(end in 0_usize..90) {
            let text = br#"{"resourceSpans":[{"a":1},{"b":"\u0022]"}],"c":2} {"data":[{"d":[{}]}],"e":[]}"#;
            let (whole, _) = elements(text, 9, 1000);
            let (found, faults) = elements(&text[..end.min(text.len())], 9, 1000);
            prop_assert!(whole.starts_with(&found), "{:?}", found);
            prop_assert!(faults.len() <= 1);
        }
    }
}
