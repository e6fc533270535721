//! `finetuned files`: upload and list, over HTTP.

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::{Args, Subcommand};
use finetuned_protocol::status::FileStatus;

use crate::{
    args::ClientArgs,
    client::{Client, types::FileObject},
    format,
    screen::{Screen, Unit},
};

#[derive(Debug, Args)]
pub struct FilesArgs {
    #[command(flatten)]
    client: ClientArgs,
    #[command(subcommand)]
    command: FilesCommand,
}

#[derive(Debug, Subcommand)]
enum FilesCommand {
    /// Upload a training file and show what its rows are like; prints its id last.
    Upload {
        /// JSON lines or a JSON array of chat messages, prompt and completion, or Alpaca rows.
        path: PathBuf,
    },
    /// List files, newest first.
    List,
}

pub async fn run(args: FilesArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.client)?;
    match args.command {
        FilesCommand::Upload { path } => {
            let file = upload(&client, &Screen::detect(), &path).await?;
            println!("{}", file.id);
        }
        FilesCommand::List => {
            let page = client.files(100).await?;
            let row = |file: &FileObject| {
                [&file.id, file.status.as_str(), &format::bytes(file.bytes), &file.purpose, &file.filename]
                    .map(str::to_owned)
                    .into()
            };
            format::table(&page.data.iter().map(row).collect::<Vec<_>>()).iter().for_each(|line| println!("{line}"));
            if page.has_more {
                println!("(and older ones)");
            }
        }
    }
    Ok(())
}

/// Uploads with a bar, shows the lint, and refuses a file that cannot be trained on.
///
/// # Errors
/// A transfer that failed, or a file that the service put into `error`; the worst rows are shown before.
pub async fn upload(client: &Client, screen: &Screen, path: &Path) -> anyhow::Result<FileObject> {
    let size = std::fs::metadata(path).map(|data| data.len()).unwrap_or(0);
    let mut bar = screen.progress("  uploading", size, Unit::Bytes);
    let mut sent = 0;
    let moved = move |count| {
        sent += count;
        bar.to(sent, "");
    };
    let file = client.upload(path, moved).await?;
    screen.line(format!("  {} is {}, {}, {}", path.display(), file.id, format::bytes(file.bytes), file.status));
    screen.lines(lint_lines(&file));
    if file.status == FileStatus::Error {
        for finding in client.lint(&file.id).await?.data.iter().take(20) {
            let at = if finding.pointer.is_empty() { String::new() } else { format!(" {}", finding.pointer) };
            screen.line(format!("  line {}{at}: {} [{}]", finding.line, finding.reason, finding.rule));
        }
        let details = file.status_details.as_deref().unwrap_or("its rows cannot be trained on");
        bail!("{} cannot be used: {details}; mend the rows above and upload it again", path.display());
    }
    Ok(file)
}

fn lint_lines(file: &FileObject) -> Vec<String> {
    let Some(lint) = &file.lint else { return Vec::new() };
    let named = |name: Option<&str>| name.unwrap_or("unknown").to_owned();
    let (format, layout) = (lint.format.map(|format| format.as_str()), lint.layout.map(|layout| layout.as_str()));
    let mut lines = vec![format!(
        "  {} of {} in {}: {} with errors, {} with warnings",
        format::count(lint.rows, "row"),
        named(format),
        named(layout),
        lint.error_rows,
        lint.warning_rows
    )];
    for rule in &lint.by_rule {
        lines.push(format!("    {}: {} ({})", rule.severity, rule.rule, format::count(rule.rows, "row")));
    }
    lines
}
