//! Rows, up to the tokens and the mask, by the model's template and two by name.
#![no_main]

use std::sync::LazyLock;

use finetuned_dataset::{RowOutcome, RowStream, view_row};
use finetuned_protocol::{lint::ReadingSpec, request::parse_template, spec::TemplateSpec};
use finetuned_weights::TextTokenizer;
use libfuzzer_sys::fuzz_target;

static TOKENIZER: LazyLock<TextTokenizer> = LazyLock::new(finetuned_fuzz::tokenizer);

fuzz_target!(|data: &[u8]| {
    let mut rows = Vec::new();
    let mut stream = RowStream::new(&ReadingSpec::default());
    let mut take = |outcome| {
        if let RowOutcome::Good(row) = outcome {
            rows.push(row);
        }
    };
    stream.feed(data, &mut take);
    stream.finish(&mut take);
    let named = ["chatml", "gemma"].map(|name| parse_template(name).expect("a template of this name"));
    let specs = [TemplateSpec::Chat, TemplateSpec::Alpaca].into_iter().chain(named).map(finetuned_fuzz::preparation);
    for spec in specs {
        for row in rows.iter().take(4) {
            let view = view_row(&spec, row, None, &TOKENIZER).expect("a row that is refused has findings");
            let learned = view.tokens.iter().filter(|token| token.has_loss).count() as u64;
            assert_eq!(learned, view.supervised_tokens);
            assert!(learned > 0 || !view.findings.is_empty(), "a row without anything to learn is told so");
        }
    }
});
