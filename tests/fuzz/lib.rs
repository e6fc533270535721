//! What the targets share.

use std::{panic, path::Path, sync::Once};

use finetuned_dataset::{LintScope, Linter, RowOutcome, RowStream};
use finetuned_protocol::{
    lint::{FileLayout, ReadingSpec},
    spec::{PreparationSpec, TemplateSpec},
};
use finetuned_weights::{ModelSource, TextTokenizer};

/// A file's bytes in portions whose size the input chooses: the linter and the reader must count the same rows, whatever
/// the portions.
pub fn lint(layout: Option<FileLayout>, data: &[u8]) {
    let Some((size, data)) = data.split_first() else { return };
    let portion = usize::from(*size).max(1);
    let reading = ReadingSpec { layout, ..ReadingSpec::default() };
    let rows_of = |portion: usize| {
        let mut linter = Linter::new(&reading, LintScope::Content, |finding| assert!(!finding.reason.is_empty()));
        data.chunks(portion).for_each(|bytes| linter.feed(bytes));
        linter.finish()
    };
    let summary = rows_of(portion);
    assert_eq!(summary, rows_of(data.len().max(1)), "portions make no difference");
    let mut rows = RowStream::new(&reading);
    let (mut good, mut bad) = (0, 0);
    let mut count = |outcome| match outcome {
        RowOutcome::Good(_) => good += 1,
        RowOutcome::Bad(findings) => {
            assert!(!findings.is_empty());
            bad += 1;
        }
    };
    data.chunks(portion).for_each(|bytes| rows.feed(bytes, &mut count));
    rows.finish(&mut count);
    if good + bad > 0 {
        assert_eq!((summary.rows, summary.error_rows), (good + bad, bad));
    } else {
        assert!(!summary.is_usable());
    }
}

/// Panics that are caught within are none for libFuzzer; one that escapes still ends it.
pub fn allow_caught_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| panic::set_hook(Box::new(|_| {})));
}

/// The tokenizer of the smallest model of the tests.
pub fn tokenizer() -> TextTokenizer {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/tiny-chat");
    let model = ModelSource::open(&path).unwrap_or_else(|error| panic!("the model of the tests: {error}"));
    model.tokenizer().unwrap_or_else(|error| panic!("the tokenizer of the tests: {error}"))
}

/// How rows are prepared with a template.
pub fn preparation(template: TemplateSpec) -> PreparationSpec {
    PreparationSpec {
        template,
        max_seq_len: 64,
        train_on_prompt: false,
        eval_fraction: 0.0,
        split_seed: 0,
        rows: Default::default(),
    }
}
