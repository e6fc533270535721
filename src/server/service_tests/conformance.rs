//! Answers against the specification that OpenAI publishes, cut to these operations (see its `info`).

use std::{
    collections::HashMap,
    sync::{Mutex, OnceLock, PoisonError},
};

use jsonschema::{Draft, Validator};
use serde_json::{Value, json};

const SPECIFICATION: &str = include_str!("../../../tests/fixtures/openai-openapi.json");

fn specification() -> &'static Value {
    static VALUE: OnceLock<Value> = OnceLock::new();
    VALUE.get_or_init(|| serde_json::from_str(SPECIFICATION).expect("the fixture is JSON"))
}

/// Panics where the answer to an operation that OpenAI has is not of its schema.
pub fn check(method: &str, path: &str, status: u16, body: &Value) {
    let schema = if status >= 400 {
        json!({"$ref": "#/components/schemas/ErrorResponse"})
    } else {
        let Some(schema) = schema_of(method, path, status) else { return };
        schema
    };
    let key = schema.to_string();
    static VALIDATORS: OnceLock<Mutex<HashMap<String, &'static Validator>>> = OnceLock::new();
    let mut validators = VALIDATORS.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    let validator = *validators.entry(key).or_insert_with(|| Box::leak(Box::new(compile(schema))));
    let faults: Vec<String> =
        validator.iter_errors(body).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(faults.is_empty(), "{method} {path} answered {status} against the specification: {faults:#?}\n{body:#}");
}

fn compile(schema: Value) -> Validator {
    let mut root = schema;
    root["components"] = specification()["components"].clone();
    // The specification writes `exclusiveMinimum: true`, as JSON Schema did up to draft 4.
    jsonschema::options().with_draft(Draft::Draft4).build(&root).expect("the specification's schema compiles")
}

fn schema_of(method: &str, path: &str, status: u16) -> Option<Value> {
    let path = path.strip_prefix("/v1")?;
    let paths = specification()["paths"].as_object()?;
    let (_, item) = paths.iter().find(|(template, _)| matches(template, path))?;
    let operation = item.get(method.to_lowercase())?;
    operation["responses"][status.to_string()]["content"]["application/json"].get("schema").cloned()
}

fn matches(template: &str, path: &str) -> bool {
    let (template, path): (Vec<&str>, Vec<&str>) = (template.split('/').collect(), path.split('/').collect());
    template.len() == path.len()
        && template.iter().zip(path).all(|(wanted, given)| wanted.starts_with('{') || *wanted == given)
}

#[test]
#[should_panic(expected = "against the specification")]
fn an_answer_without_its_fields_is_noticed() {
    check("GET", "/v1/fine_tuning/jobs/ftjob-1", 200, &json!({"id": "ftjob-1", "object": "fine_tuning.job"}));
}
