//! A user's template: plain Jinja with `if`, `for` and `set`, bounded in steps, in output, and in what a step makes.

use std::io;

use minijinja::{
    Environment, Error, ErrorKind, Template, UndefinedBehavior, Value, filters,
    machinery::{Token, WhitespaceConfig, parse, tokenize},
    tests,
};

use serde::Serialize;
use serde_json::ser::Formatter;

use super::{Conversation, context, growth};
use crate::{error::WeightsError, tokenizer::SpecialTokens};

/// Longest template.
const MOST_SOURCE_BYTES: usize = 64 << 10;
/// Most tokens in one expression or statement, and most statements. The parser and compiler below descend once a token of a
/// chain such as `a.b.c`, and once a statement of a row of `elif`, without a limit of their own.
const MOST_TOKENS: usize = 512;
const MOST_STATEMENTS: usize = 400;
/// Longest text that a template may write.
const MOST_OUTPUT_BYTES: usize = 32 << 20;
/// Longest text that one expression may hold.
const MOST_HELD_BYTES: u64 = 256 << 20;
/// Steps (instructions of the template engine) for short input; each step may touch all of the input, so long input gets
/// fewer of them.
const MOST_FUEL: u64 = 200_000;
const LEAST_FUEL: u64 = 10_000;
const FUEL_BYTES: u64 = 4_000_000_000;

/// What can be known of `source` without a row: that it compiles, and keeps the limits.
///
/// # Errors
/// [`WeightsError::Template`], with the line to blame where there is one.
pub fn check(source: &str) -> Result<(), WeightsError> {
    compile(&environment(), source).map(|_| ())
}

/// The compiled template and the weight of its heaviest expression, in whole inputs.
fn compile<'env, 'source>(
    environment: &'env Environment<'source>,
    source: &'source str,
) -> Result<(Template<'env, 'source>, u64), WeightsError> {
    if source.len() > MOST_SOURCE_BYTES {
        return refuse(format!("it has {} bytes; at most {MOST_SOURCE_BYTES} are allowed", source.len()));
    }
    check_depth(source)?;
    let heaviest = weigh(source)?;
    let compiled = environment.template_from_named_str("template", source);
    Ok((compiled.or_else(|error| refuse(explain(&error, 0)))?, heaviest))
}

/// Renders `source`, which sees `messages`, `tools`, `add_generation_prompt`, the special tokens and `raise_exception`.
pub(crate) fn render(
    source: &str,
    chat: Conversation<'_>,
    add_generation_prompt: bool,
    special: &SpecialTokens,
) -> Result<String, WeightsError> {
    let mut environment = environment();
    let turns: usize = chat.messages.iter().map(|turn| turn.text_bytes() + 64).sum();
    let tools: usize = chat.tools.iter().map(|tool| tool.to_string().len()).sum();
    let input = (turns + tools + source.len()) as u64;
    let fuel = (FUEL_BYTES / input.max(1)).clamp(LEAST_FUEL, MOST_FUEL) + 50 * chat.messages.len() as u64;
    environment.set_fuel(Some(fuel));
    let (template, heaviest) = compile(&environment, source)?;
    if heaviest.saturating_mul(input) > MOST_HELD_BYTES {
        return refuse(format!("a row of {input} bytes is too long for the {heaviest} texts that it joins at once"));
    }
    let mut output = Bounded(Vec::new());
    match template.render_captured_to(context(chat, add_generation_prompt, special), &mut output) {
        Ok(_) => Ok(String::from_utf8_lossy(&output.0).into_owned()),
        Err(error) => refuse(explain(&error, fuel)),
    }
}

fn refuse<T>(reason: String) -> Result<T, WeightsError> {
    Err(WeightsError::Template { doing: "rendering the job's Jinja template", reason })
}

fn explain(error: &Error, fuel: u64) -> String {
    let limit = std::error::Error::source(error).map(ToString::to_string);
    match error.kind() {
        ErrorKind::OutOfFuel => format!("it takes more than {fuel} steps"),
        ErrorKind::WriteFailure => limit.unwrap_or_else(|| format!("it writes more than {MOST_OUTPUT_BYTES} bytes")),
        _ => match error.line() {
            Some(line) => {
                format!("line {line}: {}", error.detail().map_or_else(|| error.kind().to_string(), str::to_owned))
            }
            None => error.to_string(),
        },
    }
}

const WHITESPACE: WhitespaceConfig =
    WhitespaceConfig { keep_trailing_newline: false, lstrip_blocks: true, trim_blocks: true };

/// Bounds the depth to which the template can be nested, by its tokens.
fn check_depth(source: &str) -> Result<(), WeightsError> {
    let (mut tokens, mut statements) = (0, 0);
    for token in tokenize(source, false, Default::default(), WHITESPACE) {
        match token.or_else(|error| refuse(explain(&error, 0)))?.0 {
            Token::VariableStart | Token::TemplateData(_) => tokens = 0,
            Token::BlockStart => {
                tokens = 0;
                statements += 1;
            }
            _ => tokens += 1,
        }
        if tokens > MOST_TOKENS {
            return refuse(format!("an expression of it has more than {MOST_TOKENS} parts"));
        }
        if statements > MOST_STATEMENTS {
            return refuse(format!("it has more than {MOST_STATEMENTS} statements"));
        }
    }
    Ok(())
}

/// Weight of the heaviest expression, in whole inputs.
fn weigh(source: &str) -> Result<u64, WeightsError> {
    match parse(source, "template", Default::default(), WHITESPACE) {
        Ok(parsed) => growth::check(&parsed).or_else(|reason| refuse(format!("it {reason}"))),
        Err(error) => refuse(explain(&error, 0)),
    }
}

/// The whitespace rules of transformers, and of Jinja's library the part that makes no more text than it is given.
fn environment() -> Environment<'static> {
    let mut env = Environment::empty();
    env.set_trim_blocks(true);
    env.set_lstrip_blocks(true);
    env.set_undefined_behavior(UndefinedBehavior::Lenient);
    env.add_filter("trim", filters::trim);
    env.add_filter("lower", filters::lower);
    env.add_filter("upper", filters::upper);
    env.add_filter("capitalize", filters::capitalize);
    env.add_filter("title", filters::title);
    env.add_filter("length", filters::length);
    env.add_filter("count", filters::length);
    env.add_filter("first", filters::first);
    env.add_filter("last", filters::last);
    env.add_filter("default", filters::default);
    env.add_filter("d", filters::default);
    env.add_filter("int", filters::int);
    env.add_filter("string", filters::string);
    env.add_filter("tojson", python_json);
    env.add_test("defined", tests::is_defined);
    env.add_test("undefined", tests::is_undefined);
    env.add_test("none", tests::is_none);
    env.add_test("string", tests::is_string);
    env.add_test("mapping", tests::is_mapping);
    env.add_test("iterable", tests::is_iterable);
    env.add_test("sequence", tests::is_sequence);
    env.add_test("true", tests::is_true);
    env.add_test("false", tests::is_false);
    env.add_test("number", tests::is_number);
    env.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message.chars().take(1000).collect::<String>()))
    });
    env.set_unknown_method_callback(|_, value, method, args| python_method(value, method, args));
    env
}

/// JSON as Python's `json.dumps(value, ensure_ascii=False)` writes it, which is what transformers gives templates.
fn python_json(value: &Value) -> Result<String, Error> {
    let mut out = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, SpacedJson);
    value.serialize(&mut serializer).map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// A space after every comma and colon.
struct SpacedJson;

impl Formatter for SpacedJson {
    fn begin_array_value<W: io::Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: io::Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

/// Methods of Python's strings that templates for transformers are written with.
fn python_method(value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let unknown = || Error::new(ErrorKind::UnknownMethod, format!("there is no method `{method}` here"));
    let Some(text) = value.as_str() else {
        return match (method, args) {
            ("get", [key]) => Ok(value.get_item(key).unwrap_or_default()),
            ("get", [key, other]) => {
                Ok(value.get_item(key).ok().filter(|found| !found.is_undefined()).unwrap_or_else(|| other.clone()))
            }
            _ => Err(unknown()),
        };
    };
    let chars = |argument: Option<&Value>| argument.and_then(Value::as_str).map(|set| set.chars().collect::<Vec<_>>());
    let strips = |set: &Option<Vec<char>>, c: char| set.as_ref().map_or(c.is_whitespace(), |set| set.contains(&c));
    let set = chars(args.first());
    Ok(match (method, args) {
        ("strip", [] | [_]) => text.trim_matches(|c| strips(&set, c)).into(),
        ("lstrip", [] | [_]) => text.trim_start_matches(|c| strips(&set, c)).into(),
        ("rstrip", [] | [_]) => text.trim_end_matches(|c| strips(&set, c)).into(),
        ("upper", []) => text.to_uppercase().into(),
        ("lower", []) => text.to_lowercase().into(),
        ("startswith", [prefix]) => text.starts_with(prefix.as_str().ok_or_else(unknown)?).into(),
        ("endswith", [suffix]) => text.ends_with(suffix.as_str().ok_or_else(unknown)?).into(),
        _ => return Err(unknown()),
    })
}

/// A writer that fails beyond [`MOST_OUTPUT_BYTES`].
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MOST_OUTPUT_BYTES {
            return Err(io::Error::other(format!("it writes more than {MOST_OUTPUT_BYTES} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
