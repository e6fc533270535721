//! `finetuned backup` and `finetuned restore`: rows and bytes together.

use std::path::PathBuf;

use clap::Args;
use finetuned_store::Copied;

use crate::{args::StoreArgs, format, host::Host};

#[derive(Debug, Args)]
pub struct BackupArgs {
    /// Folder that is made for the backup.
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    #[command(flatten)]
    store: StoreArgs,
}

/// Backs a service up, running or not.
pub async fn back_up(args: BackupArgs) -> anyhow::Result<()> {
    let host = Host::open(&args.store).await?;
    let copied = host.store.back_up(&args.folder).await;
    host.close().await;
    println!("{} into {}", told("backed up", copied?), args.folder.display());
    Ok(())
}

/// Fills an empty service from a backup.
pub async fn restore(args: BackupArgs) -> anyhow::Result<()> {
    let host = Host::open(&args.store).await?;
    let copied = host.store.restore(&args.folder).await;
    host.close().await;
    println!("{} from {}", told("restored", copied?), args.folder.display());
    Ok(())
}

fn told(verb: &str, copied: Copied) -> String {
    format!("{verb} all rows and {} with {}", format::count(copied.blobs, "blob"), format::bytes(copied.bytes))
}
