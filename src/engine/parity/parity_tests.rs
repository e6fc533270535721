#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::{case::FIGURES, *};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/parity")
}

fn checks(folder: &Path, out: &Path) -> Vec<Check> {
    finetuned_torch::set_threads(1).unwrap(); // the tests themselves run side by side
    run::run(folder, out).unwrap()
}

/// Every figure of a case is within its tolerance, and the results are all there.
fn equals_the_reference(name: &str) {
    let out = tempfile::tempdir().unwrap();
    let checks = checks(&fixtures().join(name), out.path());
    let failed: Vec<String> = checks.iter().filter(|check| !check.passed()).map(|check| check.line(name)).collect();
    assert!(failed.is_empty(), "\n{}", failed.join("\n"));
    assert!(checks.len() >= 14, "{}", checks.len());
    for file in ["result.safetensors", "result.json", "adapter_after_8_steps/adapter_config.json"] {
        assert!(out.path().join(file).is_file(), "{file}");
    }
}

macro_rules! cases {
    ($($test:ident = $name:literal;)+) => {
        $(#[test] fn $test() { equals_the_reference($name); })+

        #[test]
        fn no_case_is_left_out() {
            let found: Vec<String> = find(&fixtures()).unwrap().iter().map(|folder| name_of(folder)).collect();
            assert_eq!(found, [$($name),+]);
        }
    };
}

cases! {
    gemma2 = "gemma2";
    gemma3 = "gemma3";
    gpt2 = "gpt2";
    gpt_neox = "gpt_neox";
    llama = "llama";
    rope_linear = "llama-rope-linear";
    rope_yarn = "llama-rope-yarn";
    tied_bias = "llama-tied-bias";
    rope_llama3 = "llama3-rope";
    mistral = "mistral-window";
    mixtral = "mixtral";
    olmo2 = "olmo2";
    phi3 = "phi3";
    phi3_partial = "phi3-partial";
    phi3_longrope = "phi3-partial-longrope";
    qwen2 = "qwen2";
    qwen3 = "qwen3";
    smollm3 = "smollm3";
}

/// Copies a case, with text replaced in one of its files.
fn changed(name: &str, file: &str, from: &str, to: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for part in ["", "base", "adapter", "adapter_after_8_steps"] {
        let target = copy.path().join("case").join(part);
        fs::create_dir_all(&target).unwrap();
        for entry in fs::read_dir(fixtures().join(name).join(part)).unwrap() {
            let entry = entry.unwrap();
            if entry.path().is_file() {
                fs::copy(entry.path(), target.join(entry.file_name())).unwrap();
            }
        }
    }
    let path = copy.path().join("case").join(file);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{file} has no {from}");
    fs::write(&path, text.replacen(from, to, 1)).unwrap();
    copy
}

#[test]
fn slight_changes_of_a_model_are_noticed() {
    for (name, from, to, noticed) in [
        ("llama", "\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": 2e-05", "logits"),
        ("mistral-window", "\"sliding_window\": 8", "\"sliding_window\": 9", "logits"),
        ("gemma2", "\"attn_logit_softcapping\": 50.0", "\"attn_logit_softcapping\": 49.0", "logits"),
    ] {
        let copy = changed(name, "base/config.json", from, to);
        let found = checks(&copy.path().join("case"), &copy.path().join("out"));
        let failed: Vec<&str> = found.iter().filter(|check| !check.passed()).map(|check| check.name).collect();
        assert!(failed.contains(&noticed), "{name}: {failed:?}");
    }
}

#[test]
fn the_command_ends_in_an_error_where_a_figure_is_off_or_a_case_cannot_run() {
    let run = |copy: &tempfile::TempDir| {
        let args = ParityArgs { cases: copy.path().to_owned(), out: copy.path().join("out"), threads: 1 };
        parity(&args).map_err(|error| error.to_string())
    };
    let off = changed("llama", FIGURES, "\"loss\": 5.9", "\"loss\": 5.8");
    assert_eq!(run(&off), Err("1 checks failed in 1 cases".to_owned()));
    let broken = changed("llama", "base/config.json", "\"llama\"", "\"unheard_of\"");
    assert_eq!(run(&broken), Err("1 checks failed in 1 cases".to_owned()));
    let none = tempfile::tempdir().unwrap();
    assert!(run(&none).unwrap_err().contains("no folder in"));
    let fine = changed("llama", FIGURES, "\"loss\": 5.9", "\"loss\": 5.9");
    assert_eq!(run(&fine), Ok(()));
}
