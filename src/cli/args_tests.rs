#![allow(clippy::unwrap_used, clippy::expect_used)]

use clap::{CommandFactory, Parser};

use super::*;

/// Calls `see` with each command and its path, depth first.
fn each_command(command: &clap::Command, path: &str, see: &mut impl FnMut(&str, &clap::Command)) {
    see(path, command);
    for inner in command.get_subcommands() {
        each_command(inner, &format!("{path} {}", inner.get_name()), see);
    }
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_option_has_an_environment_variable_and_help() {
    let mut faults = Vec::new();
    each_command(&Cli::command(), "finetuned", &mut |path, command| {
        for arg in command.get_arguments().filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version")) {
            let name = arg.get_id();
            if arg.get_help().is_none() {
                faults.push(format!("{path}: {name} has no help"));
            }
            if !arg.is_positional() && arg.get_env().is_none() {
                faults.push(format!("{path}: --{name} has no environment variable"));
            }
        }
    });
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn secrets_in_the_environment_are_not_shown_by_help() {
    each_command(&Cli::command(), "finetuned", &mut |path, command| {
        for arg in command
            .get_arguments()
            .filter(|arg| ["api_key", "database_url", "judge_api_key"].contains(&arg.get_id().as_str()))
        {
            assert!(arg.is_hide_env_values_set(), "{path}: {}", arg.get_id());
        }
    });
}

fn serve(words: &[&str]) -> Result<ServeArgs, clap::Error> {
    let words = ["finetuned", "serve"].iter().chain(words);
    match Cli::try_parse_from(words)?.command {
        Command::Serve(args) => Ok(args),
        other => panic!("{other:?}"),
    }
}

#[test]
fn serve_answers_on_loopback_by_default() {
    let args = serve(&[]).unwrap();
    assert_eq!(args.listen.to_string(), "127.0.0.1:8787");
    assert!(!args.no_worker);
    assert_eq!(args.engine.device, DeviceRequest::Auto);
}

#[test]
fn a_wrong_value_is_refused_by_name() {
    for (words, part) in [
        (&["--device", "tpu"][..], "--device"),
        (&["--threads", "0"][..], "--threads"),
        (&["--listen", "8787"][..], "--listen"),
        (&["--nonsense"][..], "--nonsense"),
    ] {
        let refusal = serve(words).unwrap_err().to_string();
        assert!(refusal.contains(part), "{refusal}");
    }
}

#[test]
fn a_database_url_is_never_printed() {
    let args = serve(&["--database-url", "postgres://me:hunter2@host/db"]).unwrap();
    assert!(!format!("{args:?}").contains("hunter2"));
}
