//! `finetuned keys`: who may call, what they may do, and until when.

use std::time::Duration;

use clap::{Args, Subcommand};
use finetuned_protocol::{access::Scope, ids::KeyId};
use finetuned_store::{ApiKey, KeyGrant, NewKey, Store};
use secrecy::ExposeSecret;

use crate::{args::StoreArgs, format, host::Host};

const HOUR: Duration = Duration::from_secs(3600);

#[derive(Debug, Args)]
pub struct KeysArgs {
    #[command(flatten)]
    store: StoreArgs,
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Create a key and show it, this once.
    Create {
        /// Tenant that the key acts for; made where it is new.
        #[arg(long, env = "FINETUNED_TENANT", default_value = "default")]
        tenant: String,
        /// Name to know the key by, such as who or what uses it.
        name: String,
        /// What it may do: any of read, write, rate and admin [default: everything].
        #[arg(long, env = "FINETUNED_KEY_SCOPE", value_name = "SCOPE", value_delimiter = ',', default_values_t = Scope::ALL.to_vec(), hide_default_value = true)]
        scope: Vec<Scope>,
        /// Days until it expires [default: it does not].
        #[arg(long, env = "FINETUNED_KEY_EXPIRES_IN_DAYS", value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
        expires_in_days: Option<u32>,
    },
    /// Create a key in the place of another, which goes on working for a while.
    Rotate {
        /// Id of the key to replace, as the list shows it.
        id: KeyId,
        /// Hours for which the old key still works.
        #[arg(long, env = "FINETUNED_KEY_OVERLAP_HOURS", value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u32).range(0..=8760))]
        overlap_hours: u32,
    },
    /// List keys with what they may do, until when, and their last use.
    List,
    /// Revoke a key for good.
    Revoke {
        /// Id of the key, as the list shows it.
        id: KeyId,
    },
}

pub async fn run(args: KeysArgs) -> anyhow::Result<()> {
    let host = Host::open(&args.store).await?;
    let done = act(&host.store, args.command).await;
    host.close().await;
    done
}

async fn act(store: &Store, command: KeysCommand) -> anyhow::Result<()> {
    match command {
        KeysCommand::Create { tenant, name, scope, expires_in_days } => {
            let first = !store.any_key_exists().await?;
            let expires_after = expires_in_days.map(|days| HOUR * 24 * days);
            let key = store.create_key(&tenant, &name, &KeyGrant { scopes: scope, expires_after }).await?;
            show(&key, &format!("of tenant {tenant}"));
            if first {
                eprintln!("From now on every request needs a key, and `finetuned serve` may listen beyond loopback.");
            }
        }
        KeysCommand::Rotate { id, overlap_hours } => {
            let key = store.rotate_key(id, HOUR * overlap_hours).await?;
            show(&key, &format!("in place of {id}, which works for {overlap_hours} more hours"));
        }
        KeysCommand::List => {
            let keys = store.list_keys().await?;
            let heading = ["ID", "TENANT", "NAME", "KEY", "SCOPES", "CREATED", "EXPIRES", "LAST USED"]
                .map(str::to_owned)
                .to_vec();
            let rows: Vec<Vec<String>> = std::iter::once(heading).chain(keys.iter().map(row)).collect();
            format::table(&rows).iter().for_each(|line| println!("{line}"));
        }
        KeysCommand::Revoke { id } => {
            let key = store.revoke_key(id).await?;
            println!("{} ({}) of tenant {} is revoked", key.id, key.name, key.tenant_name);
        }
    }
    Ok(())
}

fn show(key: &NewKey, what: &str) {
    eprintln!("{} {what}; it is shown this once:", key.id);
    println!("{}", key.secret.expose_secret());
}

fn row(key: &ApiKey) -> Vec<String> {
    let used = match (key.revoked_at, key.last_used_at) {
        (Some(_), _) => "revoked".to_owned(),
        (None, Some(at)) => format::minute(at),
        (None, None) => "never".to_owned(),
    };
    let expires = match key.expires_at {
        Some(_) if key.is_expired => "expired".to_owned(),
        Some(at) => format::minute(at),
        None => "never".to_owned(),
    };
    let scopes: Vec<&str> = key.scopes.iter().map(|scope| scope.as_str()).collect();
    let name = key.name.clone();
    vec![
        key.id.to_string(),
        key.tenant_name.clone(),
        name,
        key.hint.clone() + "…",
        scopes.join(","),
        format::minute(key.created_at),
        expires,
        used,
    ]
}
