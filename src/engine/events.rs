//! `events.jsonl`: the truth about a run, one numbered line an event, and its copy.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use finetuned_protocol::engine::{EVENTS_FILE, EngineEvent, EngineLine, Phase};

use crate::disk::{DiskError, at};

/// Between two progress lines of one phase.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// Who gets a copy of each line; the copy may fail, the run goes on.
pub type CopyTo = Box<dyn FnMut(&EngineLine, &[u8])>;

/// Writer of `events.jsonl`.
pub struct EventLog {
    file: File,
    path: PathBuf,
    /// Bytes of whole lines in the file.
    length: u64,
    lines: u64,
    copy: CopyTo,
    last_progress: Option<(Phase, Instant)>,
}

impl EventLog {
    /// Opens the folder's log. Where it exists already, numbering goes on after its last whole line; a torn one is cut.
    ///
    /// # Errors
    /// The file cannot be opened, read or cut.
    pub fn open(folder: &Path, copy: CopyTo) -> Result<Self, DiskError> {
        let path = folder.join(EVENTS_FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(at("opening", &path))?;
        let (length, lines) = whole_lines(&mut file).map_err(at("reading", &path))?;
        file.set_len(length).map_err(at("cutting", &path))?;
        file.seek(SeekFrom::Start(length)).map_err(at("reading", &path))?;
        Ok(Self { file, path, length, lines, copy, last_progress: None })
    }

    /// Appends an event in one write, so that a reader sees whole lines.
    ///
    /// # Errors
    /// The disk's; the file then still ends with the last whole line.
    pub fn emit(&mut self, event: EngineEvent) -> Result<(), DiskError> {
        let line = EngineLine { line: self.lines + 1, time: unix_seconds(), event };
        let mut text = serde_json::to_vec(&line).map_err(io::Error::from).map_err(at("writing", &self.path))?;
        text.push(b'\n');
        if let Err(error) = self.file.write_all(&text) {
            let mended = self.file.set_len(self.length).and_then(|()| self.file.seek(SeekFrom::Start(self.length)));
            if let Err(error) = mended {
                tracing::error!(%error, "a torn line stays in the event log");
            }
            return Err(at("writing", &self.path)(error));
        }
        self.lines += 1;
        self.length += text.len() as u64;
        (self.copy)(&line, &text);
        Ok(())
    }

    /// Tells that something moved: at each change of phase, and else about once a second.
    ///
    /// # Errors
    /// See [`EventLog::emit`].
    pub fn progress(&mut self, phase: Phase, done: u64, total: u64) -> Result<(), DiskError> {
        let quiet = self.last_progress.is_some_and(|(last, when)| last == phase && when.elapsed() < PROGRESS_EVERY);
        if quiet {
            return Ok(());
        }
        self.last_progress = Some((phase, Instant::now()));
        self.emit(EngineEvent::Progress { phase, done, total })
    }

    /// Tells a person something that stops nothing.
    ///
    /// # Errors
    /// See [`EventLog::emit`].
    pub fn warn(&mut self, code: &str, message: impl Into<String>) -> Result<(), DiskError> {
        let message = message.into();
        tracing::warn!(code, message);
        self.emit(EngineEvent::Warning { code: code.to_owned(), message })
    }
}

/// Bytes and number of the whole lines of a log.
fn whole_lines(file: &mut File) -> io::Result<(u64, u64)> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let length = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
    let lines = bytes[..length].iter().filter(|&&byte| byte == b'\n').count();
    Ok((length as u64, lines as u64))
}

/// Unix time in seconds.
fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use std::{cell::RefCell, fs, rc::Rc};

    fn silent() -> CopyTo {
        Box::new(|_, _| {})
    }

    fn stopped(step: u32) -> EngineEvent {
        EngineEvent::Stopped { step }
    }

    fn lines(folder: &Path) -> Vec<EngineLine> {
        let text = fs::read_to_string(folder.join(EVENTS_FILE)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn lines_are_numbered_from_one_and_copied() {
        let folder = tempfile::tempdir().unwrap();
        let copied = Rc::new(RefCell::new(Vec::new()));
        let sink = Rc::clone(&copied);
        let copy: CopyTo = Box::new(move |_, bytes| sink.borrow_mut().extend_from_slice(bytes));
        let mut log = EventLog::open(folder.path(), copy).unwrap();
        log.emit(stopped(1)).unwrap();
        log.emit(stopped(2)).unwrap();
        assert_eq!(lines(folder.path()).iter().map(|line| line.line).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(*copied.borrow(), fs::read(folder.path().join(EVENTS_FILE)).unwrap());
    }

    #[test]
    fn a_second_start_goes_on_after_the_last_whole_line() {
        let folder = tempfile::tempdir().unwrap();
        EventLog::open(folder.path(), silent()).unwrap().emit(stopped(1)).unwrap();
        let path = folder.path().join(EVENTS_FILE);
        let mut text = fs::read(&path).unwrap();
        text.extend_from_slice(b"{\"line\":2,\"ti");
        fs::write(&path, text).unwrap();
        EventLog::open(folder.path(), silent()).unwrap().emit(stopped(5)).unwrap();
        let lines = lines(folder.path());
        assert_eq!((lines[1].line, &lines[1].event), (2, &stopped(5)));
        assert!(lines[1].time > 1.6e9);
    }

    #[test]
    fn progress_speaks_once_a_second_and_at_each_phase() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = EventLog::open(folder.path(), silent()).unwrap();
        for done in 0..100 {
            log.progress(Phase::Training, done, 100).unwrap();
        }
        log.progress(Phase::Exporting, 0, 1).unwrap();
        log.progress(Phase::Training, 100, 100).unwrap();
        assert_eq!(lines(folder.path()).len(), 3);
    }
}
