//! The chat template beside an exported adapter: the one it was trained with, whatever the base model's own is.

use std::{fs, io, path::Path};

use finetuned_protocol::spec::TemplateSpec;
use serde_json::{Map, Value};

use crate::disk::{DiskError, at, write_synced};

const TEMPLATE: &str = "chat_template.jinja";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// The Alpaca prompt without an input, as a chat template: a question, its answer, the end of the text.
pub const ALPACA: &str = "{% for message in messages %}{% if message['role'] == 'user' %}Below is an instruction that \
    describes a task. Write a response that appropriately completes the request.\n\n### Instruction:\n\
    {{ message['content'] }}\n\n### Response:{% elif message['role'] == 'assistant' %}{{ message['content'] }}\
    {{ eos_token }}{% else %}\
    {{ raise_exception('the Alpaca prompt has no room for a ' + message['role'] + ' message') }}\
    {% endif %}{% endfor %}";

/// Replaces the base model's template, where another was used.
///
/// # Errors
/// Files that cannot be read or written.
pub fn write(folder: &Path, template: &TemplateSpec) -> Result<(), DiskError> {
    let source = match template {
        TemplateSpec::Chat => return Ok(()),
        TemplateSpec::Alpaca => ALPACA,
        TemplateSpec::Jinja { source } => source,
    };
    write_synced(folder, TEMPLATE, source.as_bytes())?;
    // Older programs read it from here.
    let path = folder.join(TOKENIZER_CONFIG);
    let text = fs::read(&path).map_err(at("reading", &path))?;
    let json = |error| at("reading", &path)(io::Error::from(error));
    let mut config: Map<String, Value> = serde_json::from_slice(&text).map_err(json)?;
    config.insert("chat_template".to_owned(), source.into());
    let text = serde_json::to_vec_pretty(&config).map_err(json)?;
    write_synced(folder, TOKENIZER_CONFIG, &text)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use finetuned_protocol::spec::PreparationSpec;
    use finetuned_weights::{ChatMessage, ModelSource};
    use std::ops::ControlFlow;

    #[test]
    fn the_template_used_replaces_the_models_in_both_places() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(TOKENIZER_CONFIG), "{\"chat_template\":\"old\",\"eos_token\":\"x\"}").unwrap();
        write(folder.path(), &TemplateSpec::Chat).unwrap();
        assert!(!folder.path().join(TEMPLATE).exists());
        write(folder.path(), &TemplateSpec::Jinja { source: "mine".into() }).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join(TEMPLATE)).unwrap(), "mine");
        let config: Value = serde_json::from_slice(&fs::read(folder.path().join(TOKENIZER_CONFIG)).unwrap()).unwrap();
        assert_eq!((&config["chat_template"], &config["eos_token"]), (&"mine".into(), &"x".into()));
    }

    #[test]
    fn alpacas_template_writes_what_was_trained_on() {
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tiny-chat");
        let tokenizer = ModelSource::open(&base).unwrap().tokenizer().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let rows = folder.path().join("rows");
        fs::write(&rows, "{\"instruction\":\"Say a\",\"input\":\"\",\"output\":\"b c\"}\n").unwrap();
        let spec = PreparationSpec {
            template: TemplateSpec::Alpaca,
            max_seq_len: 512,
            train_on_prompt: false,
            eval_fraction: 0.0,
            split_seed: 0,
            rows: Default::default(),
        };
        let go_on = &mut |_, _| ControlFlow::Continue(());
        let prepared = finetuned_dataset::prepare(&spec, &rows, Some(&rows), &tokenizer, go_on).unwrap();
        let turn = |role: &str, content: &str| ChatMessage::new(role, content);
        let ids = |turns: &[ChatMessage], prompt| {
            tokenizer.encode(&tokenizer.render_jinja(ALPACA, turns, prompt).unwrap()).unwrap()
        };
        assert_eq!(ids(&[turn("user", "Say a")], true), prepared.held_out[0].prompt_ids);
        let whole = ids(&[turn("user", "Say a"), turn("assistant", "b c")], false);
        assert_eq!(whole, prepared.train[0].ids);
        assert!(tokenizer.render_jinja(ALPACA, &[turn("system", "x")], true).is_err());
    }
}
