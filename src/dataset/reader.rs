//! Rows of a file, one after the other, as the linter sees them too.

use std::{fs::File, io::Read, ops::ControlFlow, path::Path};

use finetuned_protocol::lint::{Finding, ReadingSpec, RowFormat};

use crate::{
    ReadError, Row,
    container::Container,
    format::{self, Report},
    json::{self, Json, JsonFault, Object},
    rules,
    splitter::{Piece, Place},
};

const PORTION_BYTES: usize = 256 << 10;

/// What was made of one row.
#[derive(Debug, Clone, PartialEq)]
pub enum RowOutcome {
    /// A row that can be trained on.
    Good(Row),
    /// A row that cannot, with all that is wrong with it; its line is that of the findings.
    Bad(Vec<Finding>),
}

/// Rows of a file whose bytes are pushed, in flat memory, as the linter reads them.
pub struct RowStream {
    container: Container,
    parser: RowParser,
}

impl RowStream {
    pub fn new(reading: &ReadingSpec) -> Self {
        Self { container: Container::new(reading), parser: RowParser::new(reading) }
    }

    /// The next bytes of the file.
    pub fn feed(&mut self, bytes: &[u8], each: &mut dyn FnMut(RowOutcome)) {
        let Self { container, parser } = self;
        container.feed(bytes, &mut |piece| each(parser.outcome(piece)));
    }

    /// The end of the file.
    pub fn finish(self, each: &mut dyn FnMut(RowOutcome)) {
        let Self { container, mut parser } = self;
        container.finish(&mut |piece| each(parser.outcome(piece)));
    }

    /// What the rows are, once one was read.
    pub fn format(&self) -> Option<RowFormat> {
        self.parser.shape.format
    }
}

/// Reads a file row by row in flat memory, as the linter does; `each` gets the row and the bytes read so far, and may
/// stop the reading.
///
/// # Errors
/// The file cannot be read. Bad rows are no error here: `each` decides.
pub fn read_rows(
    path: &Path,
    reading: &ReadingSpec,
    each: &mut dyn FnMut(RowOutcome, u64) -> ControlFlow<()>,
) -> Result<(), ReadError> {
    let mut rows = RowStream::new(reading);
    let mut flow = ControlFlow::Continue(());
    let mut take = |outcome, bytes_read| {
        if flow.is_continue() {
            flow = each(outcome, bytes_read);
        }
        flow
    };
    let mut bytes_read = 0;
    each_portion(path, &mut |portion| {
        bytes_read += portion.len() as u64;
        let mut flow = ControlFlow::Continue(());
        rows.feed(portion, &mut |outcome| flow = take(outcome, bytes_read));
        flow
    })?;
    rows.finish(&mut |outcome| {
        let _ = take(outcome, bytes_read);
    });
    Ok(())
}

/// Gives the bytes of a file in portions of at most a quarter of a megabyte, until its end or a break.
pub(crate) fn each_portion(path: &Path, each: &mut dyn FnMut(&[u8]) -> ControlFlow<()>) -> Result<(), ReadError> {
    let failed = |cause| ReadError { path: path.to_owned(), cause };
    let mut file = File::open(path).map_err(failed)?;
    let mut portion = vec![0; PORTION_BYTES];
    loop {
        match file.read(&mut portion) {
            Ok(0) => return Ok(()),
            Ok(length) => {
                if each(&portion[..length]).is_break() {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

/// Pieces to rows. The first row that can be read tells the format of all, where none was asked for.
pub(crate) struct RowParser {
    pub shape: Shape,
    disabled: Vec<String>,
}

/// What the rows of a file are.
pub(crate) struct Shape {
    pub format: Option<RowFormat>,
    /// By what sign the format was told.
    pub evidence: Option<String>,
    format_was_asked: bool,
    /// The format's name of each field that the file calls otherwise, by the file's name.
    renamed: Vec<(String, String)>,
}

impl RowParser {
    pub fn new(reading: &ReadingSpec) -> Self {
        let ReadingSpec { layout: _, format, columns, disabled_rules } = reading;
        let shape = Shape {
            format: *format,
            evidence: format.map(|format| format!("{format}, as asked for")),
            format_was_asked: format.is_some(),
            renamed: columns.iter().map(|(field, column)| (column.clone(), field.clone())).collect(),
        };
        Self { shape, disabled: disabled_rules.clone() }
    }

    fn outcome(&mut self, piece: Piece<'_>) -> RowOutcome {
        let mut findings = Vec::new();
        match self.read(piece, &mut findings) {
            Some(row) => RowOutcome::Good(row),
            None => RowOutcome::Bad(findings),
        }
    }

    /// `None` where a finding of severity `error` was added.
    pub fn read(&mut self, piece: Piece<'_>, findings: &mut Vec<Finding>) -> Option<Row> {
        let (place, object) = self.fields(piece, findings)?;
        self.shape.read(place, object, Report::new(place.line, findings, &self.disabled))
    }

    /// The same, and beside it all fields of the row, under the format's names.
    pub fn read_with_fields<'p>(&mut self, piece: Piece<'p>, findings: &mut Vec<Finding>) -> Option<(Row, Object<'p>)> {
        let (place, object) = self.fields(piece, findings)?;
        let report = Report::new(place.line, findings, &self.disabled);
        let row = self.shape.read(place, object.clone(), report)?;
        Some((row, object))
    }

    /// The fields of a row, under the format's names.
    fn fields<'p>(&self, piece: Piece<'p>, findings: &mut Vec<Finding>) -> Option<(Place, Object<'p>)> {
        let (place, mut object) = self.object(piece, findings)?;
        self.shape.rename(&mut object);
        Some((place, object))
    }

    fn object<'p>(&self, piece: Piece<'p>, findings: &mut Vec<Finding>) -> Option<(Place, Object<'p>)> {
        let (place, bytes, terminated) = match piece {
            Piece::Row { place, bytes, terminated } => (place, bytes, terminated),
            Piece::Object { place, object } => return Some((place, object)),
            other => {
                findings.push(fault_of_piece(&other));
                return None;
            }
        };
        let mut report = Report::new(place.line, findings, &self.disabled);
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let at = error.valid_up_to();
                let byte = bytes[at];
                let reason =
                    format!("this is not UTF-8: byte {} of the row is 0x{byte:02x}; save the file as UTF-8", at + 1);
                report.add(&rules::NOT_UTF8, "", reason);
                return None;
            }
        };
        match json::parse(text) {
            Ok(Json::Object(object)) => return Some((place, object)),
            Ok(other) => {
                let reason = format!("a row must be a JSON object; this one is {}", other.kind());
                report.add(&rules::NOT_AN_OBJECT, "", reason);
            }
            Err(fault) => report_json_fault(fault, (place, text), terminated, &mut report),
        }
        None
    }
}

impl Shape {
    fn rename(&self, object: &mut Object<'_>) {
        for (name, _) in object {
            if let Some((_, field)) = self.renamed.iter().find(|(column, _)| *name == **column) {
                *name = field.clone().into();
            }
        }
    }

    /// Reads fields as a row of the file's format, which the first row tells where nobody else did.
    fn read(&mut self, place: Place, object: Object<'_>, mut report: Report<'_>) -> Option<Row> {
        if self.format.is_none() {
            self.format = format::detect(&object);
            self.evidence = self.format.map(|format| {
                format!("{format}: line {} has the fields {}", place.line, format::telling_fields(&object))
            });
        }
        let Some(format) = self.format else {
            format::report_unknown(&object, &mut report);
            return None;
        };
        let (example, weight) = format::read(format, self.format_was_asked, object, &mut report)?;
        Some(Row { line: place.line, digest: example.digest(), example, weight })
    }
}

pub(crate) fn fault_of_piece(piece: &Piece<'_>) -> Finding {
    let at = |rule: &rules::Rule, place: &Place, reason: &str| rule.at(place.line, "", reason);
    match piece {
        Piece::Fault { place, rule, reason } => rule.at(place.line, "", reason),
        Piece::Row { place, .. } | Piece::Object { place, .. } | Piece::TooLong { place } => {
            at(&rules::ROW_TOO_LONG, place, "the row has more than 16 MB; split or remove it")
        }
        Piece::Misplaced { place, what } => {
            let reason = format!("the array is not valid JSON: {what}, at column {}", place.column + 1);
            at(&rules::JSON_INVALID, place, &reason)
        }
        Piece::Unclosed { place } => {
            at(&rules::TRUNCATED, place, "the file ends before the array of rows is closed; it seems to be cut off")
        }
        Piece::Trailing { place } => {
            let reason = "text after the end of the array was not read; put all rows into one array, or each on a line";
            at(&rules::TRAILING_TEXT, place, reason)
        }
    }
}

fn report_json_fault(fault: JsonFault, (place, text): (Place, &str), terminated: bool, report: &mut Report<'_>) {
    match fault {
        JsonFault::TooManyValues => {
            report.add(&rules::ROW_TOO_LONG, "", "the row has more than 524,288 JSON values; split or remove it");
        }
        JsonFault::Syntax { at_end: true, .. } if !terminated => {
            report.add(&rules::TRUNCATED, "", "the file ends within this row; it seems to be cut off");
        }
        JsonFault::Syntax { message, line, column, at_end } => {
            let mut reason = if line > 1 {
                format!(
                    "the row is not valid JSON: {message}, at line {}, column {column}",
                    place.line + line as u64 - 1
                )
            } else {
                format!("the row is not valid JSON: {message}, at column {}", place.column + column as u64)
            };
            if let Some(remedy) = remedy(text, &message, at_end) {
                reason.push_str("; ");
                reason.push_str(remedy);
            }
            report.add(&rules::JSON_INVALID, "", reason);
        }
    }
}

/// What to do about mistakes that are made often.
fn remedy(text: &str, message: &str, at_end: bool) -> Option<&'static str> {
    let text = text.trim();
    if at_end {
        Some("a row is one line: write each object on a line of its own, or all of them in one array")
    } else if text.contains('\r') {
        Some("a carriage return alone ends no line: save the file with LF or CRLF")
    } else if text.starts_with("{'") {
        Some("this looks like Python's way to print a dict: write rows with json.dumps")
    } else if message == "expected value" && (text.contains("NaN") || text.contains("Infinity")) {
        Some("JSON has no NaN and no Infinity: write null or a number")
    } else {
        None
    }
}
