//! The engine's lines, read as they come and handed on.

use std::{io, path::Path};

use finetuned_protocol::engine::{EVENTS_FILE, EngineEvent, EngineLine};
use serde::Deserialize;
use tokio::sync::mpsc::UnboundedSender;

use crate::tail::Tail;

/// Reads `events.jsonl` of an attempt. The file is the truth, so the way to the receiver need not be bounded: what
/// waits there is what the database could not take yet.
#[derive(Debug)]
pub struct EngineLines {
    tail: Tail,
    receiver: UnboundedSender<EngineLine>,
    last: u64,
}

impl EngineLines {
    pub fn new(folder: &Path, receiver: UnboundedSender<EngineLine>) -> Self {
        Self { tail: Tail::new(&folder.join(EVENTS_FILE)), receiver, last: 0 }
    }

    /// Hands on what is new and returns the times of its progress marks.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn read(&mut self) -> io::Result<Vec<f64>> {
        let mut marks = Vec::new();
        for text in self.tail.poll()? {
            match serde_json::from_str::<EngineLine>(&text) {
                Ok(line) => {
                    if line.line != self.last + 1 {
                        tracing::error!(expected = self.last + 1, found = line.line, "the engine's lines have a gap");
                    }
                    self.last = line.line;
                    if is_mark(&line.event) {
                        marks.push(line.time);
                    }
                    // A receiver that is gone has reported why by itself.
                    let _ = self.receiver.send(line);
                }
                Err(error) => {
                    tracing::error!(after_line = self.last, %error, "the engine wrote what is no line of an engine");
                    marks.extend(self.pass_over(&text));
                }
            }
        }
        Ok(marks)
    }

    /// The time of a line whose event cannot be read, such as one with a number that is none: it still moves.
    fn pass_over(&mut self, text: &str) -> Option<f64> {
        let frame = serde_json::from_str::<Frame>(text).ok()?;
        self.last = frame.line;
        Some(frame.time)
    }
}

/// What every line has, whatever its event.
#[derive(Deserialize)]
struct Frame {
    line: u64,
    time: f64,
}

/// Whether the line says that work went forward.
fn is_mark(event: &EngineEvent) -> bool {
    !matches!(event, EngineEvent::Warning { .. })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    #[test]
    fn what_is_no_line_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let text = concat!(
            r#"{"line":1,"time":1.0,"type":"progress","phase":"training","done":1,"total":2}"#,
            "\ntorn by a full di\n",
            r#"{"line":2,"time":2.0,"type":"warning","code":"slow","message":"x"}"#,
            "\n",
            r#"{"line":3,"time":2.5,"type":"stopped","step":null}"#,
            "\n",
            r#"{"line":4,"time":3.5,"type":"stopped","step":7}"#,
            "\n",
        );
        std::fs::write(folder.path().join(EVENTS_FILE), text).unwrap();
        let (sender, mut receiver) = unbounded_channel();
        let mut lines = EngineLines::new(folder.path(), sender);
        assert_eq!(lines.read().unwrap(), [1.0, 2.5, 3.5], "a warning moves nothing");
        assert!(lines.read().unwrap().is_empty());
        drop(lines);
        let mut numbers = Vec::new();
        while let Some(line) = receiver.blocking_recv() {
            numbers.push(line.line);
        }
        assert_eq!(numbers, [1, 2, 4]);
    }
}
