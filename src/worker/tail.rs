//! Reads the lines of a file that another process appends to, whole lines only.

use std::{
    fs::File,
    io::{self, ErrorKind, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

/// Bytes taken at one read.
const CHUNK: usize = 256 * 1024;
/// A line longer than this is not from an engine that keeps the contract.
const MAX_LINE: usize = 64 * 1024 * 1024;

/// A place in a growing file of lines.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    file: Option<File>,
    /// What was read of the first line that is not whole yet.
    partial: Vec<u8>,
}

impl Tail {
    /// Reads from the start of the file, which need not exist yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), file: None, partial: Vec::new() }
    }

    /// The lines that became whole since the last call, without their ends. Bytes that are not UTF-8 are replaced.
    ///
    /// # Errors
    /// A file that cannot be read, or a line beyond all measure. A file that is not there yet has no lines.
    pub fn poll(&mut self) -> io::Result<Vec<String>> {
        let Some(mut file) = self.open()? else { return Ok(Vec::new()) };
        let mut lines = Vec::new();
        let read = self.read_to_end(&mut file, &mut lines);
        // Kept after an error too: it stands where the next read goes on.
        self.file = Some(file);
        read.map(|()| lines)
    }

    fn read_to_end(&mut self, file: &mut File, lines: &mut Vec<String>) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = match file.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.partial.extend_from_slice(&chunk[..count]);
            self.take_lines(lines);
            if self.partial.len() > MAX_LINE {
                return Err(io::Error::new(ErrorKind::InvalidData, format!("a line of more than {MAX_LINE} bytes")));
            }
        }
    }

    fn open(&mut self) -> io::Result<Option<File>> {
        if let Some(file) = self.file.take() {
            return Ok(Some(file));
        }
        match File::open(&self.path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn take_lines(&mut self, lines: &mut Vec<String>) {
        let mut start = 0;
        while let Some(length) = self.partial[start..].iter().position(|byte| *byte == b'\n') {
            lines.push(String::from_utf8_lossy(&self.partial[start..start + length]).into_owned());
            start += length + 1;
        }
        self.partial.drain(..start);
    }
}

/// The last lines of a file, at most `most` of them and `bytes` bytes; nothing where it cannot be read.
pub fn last_lines(path: &Path, most: usize, bytes: u64) -> Vec<String> {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
        let mut end = Vec::new();
        file.take(bytes).read_to_end(&mut end)?;
        Ok(end)
    };
    let end = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&end);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(most)..].iter().map(|line| (*line).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Write;

    use super::*;

    #[test]
    fn gives_whole_lines_only_and_each_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let mut tail = Tail::new(&path);
        assert!(tail.poll().unwrap().is_empty(), "no file yet");

        let mut file = File::create(&path).unwrap();
        file.write_all(b"one\ntw").unwrap();
        assert_eq!(tail.poll().unwrap(), ["one"]);
        assert_eq!(tail.poll().unwrap(), Vec::<String>::new());
        // A character cut in two by the write arrives whole.
        file.write_all(b"o \xc3").unwrap();
        assert_eq!(tail.poll().unwrap(), Vec::<String>::new());
        file.write_all(b"\xa9\nthree\nfo").unwrap();
        assert_eq!(tail.poll().unwrap(), ["two \u{e9}", "three"]);
    }

    #[test]
    fn a_line_longer_than_a_read_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let long = "x".repeat(CHUNK * 2 + 17);
        std::fs::write(&path, format!("{long}\nend\n")).unwrap();
        assert_eq!(Tail::new(&path).poll().unwrap(), [long, "end".into()]);
    }

    #[test]
    fn the_end_of_a_log_is_short() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("engine.log");
        std::fs::write(&path, "a\n\nb\nc\n").unwrap();
        assert_eq!(last_lines(&path, 2, 1000), ["b", "c"]);
        assert_eq!(last_lines(&path, 9, 2), ["c"]);
        assert!(last_lines(&folder.path().join("none"), 2, 10).is_empty());
    }
}
