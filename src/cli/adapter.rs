//! `finetuned adapter download`: the files of a finished job, checked against their hashes.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use finetuned_protocol::ids::JobId;

use crate::{
    args::ClientArgs,
    client::{Client, types::Artifact},
    format,
    screen::{Screen, Unit},
};

#[derive(Debug, Args)]
pub struct AdapterArgs {
    #[command(flatten)]
    client: ClientArgs,
    #[command(subcommand)]
    command: AdapterCommand,
}

#[derive(Debug, Subcommand)]
enum AdapterCommand {
    /// Download the adapter into a folder that peft and others load.
    Download {
        /// Id of the job.
        id: JobId,
        /// Folder to put the files in; it is made where it is missing.
        dir: PathBuf,
    },
}

pub async fn run(args: AdapterArgs) -> anyhow::Result<()> {
    let AdapterCommand::Download { id, dir } = args.command;
    let client = Client::new(&args.client)?;
    download(&client, &Screen::detect(), id, &dir).await?;
    Ok(())
}

/// Downloads every file of the adapter, with a bar.
///
/// # Errors
/// A job without an adapter, a transfer that broke, or bytes with another hash than the service lists.
pub async fn download(client: &Client, screen: &Screen, id: JobId, folder: &Path) -> anyhow::Result<Vec<Artifact>> {
    let artifacts = client.artifacts(id).await?.data;
    if artifacts.is_empty() {
        let job = client.job(id).await?;
        bail!("{id} has no adapter yet, it is {}; `finetuned jobs watch {id}` waits for its end", job.status);
    }
    std::fs::create_dir_all(folder).with_context(|| format!("while making {}", folder.display()))?;
    let total = artifacts.iter().map(|artifact| artifact.bytes).sum();
    let mut bar = screen.progress("  downloading", total, Unit::Bytes);
    let mut done = 0;
    for artifact in &artifacts {
        let moved = |count| {
            done += count;
            bar.to(done, &artifact.name);
        };
        client.download(id, artifact, folder, moved).await?;
    }
    drop(bar);
    for Artifact { name, bytes, sha256 } in &artifacts {
        screen.line(format!("  {} ({}, sha256 {sha256})", folder.join(name).display(), format::bytes(*bytes)));
    }
    Ok(artifacts)
}
