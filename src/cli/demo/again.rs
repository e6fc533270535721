//! What to type to do the demo's job again: three lines of curl, and a few of Python to load the adapter.

use std::path::Path;

use serde_json::Value;

/// Stands where the shell puts the id of the uploaded file.
const FILE: &str = "@FILE@";

/// Upload, create, wait and download; each line can be pasted into a POSIX shell.
pub fn curl_lines(url: &str, with_key: bool, rows: &Path, body: &Value) -> [String; 3] {
    let key = if with_key { r#" -H "Authorization: Bearer $FINETUNED_API_KEY""# } else { "" };
    let mut body = body.clone();
    body["training_file"] = FILE.into();
    let body = quote(&body.to_string()).replace(FILE, r#"'"$FILE"'"#);
    let form = quote(&format!("file=@{}", rows.display()));
    let id = |prefix: &str| format!("grep -o '{prefix}[0-9a-f]\\{{32\\}}' | head -n 1");
    let jobs = format!("{url}/v1/fine_tuning/jobs");
    [
        format!("FILE=$(curl -sS{key} {url}/v1/files -F purpose=fine-tune -F {form} | {})", id("file-")),
        format!("JOB=$(curl -sS{key} {jobs} -H 'Content-Type: application/json' -d {body} | {})", id("ftjob-")),
        format!(
            "until curl -sS{key} {jobs}/$JOB | grep -Eq '\"status\": ?\"(succeeded|failed|cancelled)\"'; do sleep 5; done; \
             curl -fsS{key} {jobs}/$JOB/adapter -o adapter.tar && tar -tf adapter.tar"
        ),
    ]
}

/// `text` as one word of a POSIX shell.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// How peft loads the adapter.
pub fn peft_lines(model: &str, runtime: Option<&Path>, folder: &Path) -> Vec<String> {
    let base = if model == super::MODEL {
        let runtime = runtime.unwrap_or(Path::new(".runtime")).join("models");
        format!("AutoModelForCausalLM.from_pretrained({runtime:?}, gguf_file=\"{model}.gguf\")")
    } else {
        "AutoModelForCausalLM.from_pretrained(\"the folder or Hugging Face id of your base model\")".to_owned()
    };
    vec![
        "  To load it in Python (pip install torch transformers gguf peft):".to_owned(),
        "    from peft import PeftModel; from transformers import AutoModelForCausalLM, AutoTokenizer".to_owned(),
        format!("    base = {base}"),
        format!("    model = PeftModel.from_pretrained(base, {folder:?})"),
        format!("    tokenizer = AutoTokenizer.from_pretrained({folder:?})"),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::process::Command;

    use super::*;
    use serde_json::json;

    /// Runs the lines in a shell whose `curl` prints its arguments, one a line, to standard error, and answers an id.
    fn spoken(lines: &[String]) -> String {
        let id = "0123456789abcdef0123456789abcdef";
        let curl = format!(
            r#"curl() {{ for word in "$@"; do echo "<$word>" >&2; done; echo '{{"id": "file-{id}", "x": "ftjob-{id}"}}'; }}"#
        );
        let output = Command::new("sh").arg("-ec").arg(format!("{curl}\n{}", lines.join("\n"))).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    }

    #[test]
    fn the_lines_carry_ids_from_one_to_the_next() {
        let body = json!({"model": "it's", "training_file": "file-old", "suffix": "demo"});
        let lines = curl_lines("http://127.0.0.1:9", true, Path::new("my rows.jsonl"), &body);
        let spoken = spoken(&lines[..2]);
        let id = "file-0123456789abcdef0123456789abcdef";
        assert!(spoken.contains("<file=@my rows.jsonl>"), "{spoken}");
        assert!(spoken.contains("<http://127.0.0.1:9/v1/files>"), "{spoken}");
        assert!(spoken.contains("<Authorization: Bearer >"), "{spoken}");
        let sent = format!("<{}>", json!({"model": "it's", "training_file": id, "suffix": "demo"}));
        assert!(spoken.contains(&sent), "{spoken}");
    }

    #[test]
    fn without_a_key_no_header_is_shown() {
        let lines = curl_lines("http://127.0.0.1:9", false, Path::new("rows.jsonl"), &json!({"model": "m"}));
        assert!(!lines.concat().contains("Authorization"));
        assert!(lines[2].contains("http://127.0.0.1:9/v1/fine_tuning/jobs/$JOB/adapter"));
    }

    #[test]
    fn peft_is_told_where_the_weights_are() {
        let lines = peft_lines(crate::demo::MODEL, None, Path::new("demo-output/adapter")).join("\n");
        assert!(lines.contains("(\".runtime/models\", gguf_file=\"smollm2-135m-instruct.gguf\")"), "{lines}");
        assert!(lines.contains("PeftModel.from_pretrained(base, \"demo-output/adapter\")"), "{lines}");
    }
}
