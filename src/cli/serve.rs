//! `finetuned serve`: HTTP, one worker and a Postgres, in one process and their children.

use std::{
    io::{ErrorKind, Write},
    net::SocketAddr,
    path::PathBuf,
};

use anyhow::{Context, bail};
use finetuned_server::ServerOptions;
use finetuned_worker::JudgeOptions;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{args::ServeArgs, gc, host::Host, models, paths, process::Stopper, worker};

/// How the one line on standard output begins; the address follows.
pub const READY: &str = "finetuned is ready at ";

pub async fn run(args: ServeArgs) -> anyhow::Result<()> {
    let stopper = Stopper::install()?;
    // What a person can get wrong comes first, before a cluster is made.
    let engine = if args.no_worker { None } else { Some(paths::engine(&args.engine)?) };
    worker::check_serving(&args.serving)?;
    let judging = worker::judging(&args.outbound)?;
    let listener = listen(args.listen).await?;
    let host = Host::open(&args.store).await?;
    let ended = serve(&args, (&host, judging), listener, engine, stopper).await;
    host.close().await;
    ended
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let remedy = match error.kind() {
            ErrorKind::AddrInUse => format!(
                "port {} of {} is in use, perhaps by another `finetuned serve`; stop that one, or choose another port \
                 with --listen {}:{}",
                address.port(),
                address.ip(),
                address.ip(),
                address.port().wrapping_add(1)
            ),
            ErrorKind::PermissionDenied => format!("port {} needs more rights; choose one above 1023", address.port()),
            _ => format!("{address} cannot be listened on"),
        };
        anyhow::Error::new(error).context(remedy)
    })
}

async fn serve(
    args: &ServeArgs,
    (host, judging): (&Host, JudgeOptions),
    listener: TcpListener,
    engine: Option<PathBuf>,
    stopper: Stopper,
) -> anyhow::Result<()> {
    let address = listener.local_addr().context("while asking for the port")?;
    let open = !host.store.any_key_exists().await.context("while looking for API keys")?;
    check_reach(address, open)?;
    if let Ok(runtime) = paths::runtime_dir(args.store.runtime_dir.as_deref()) {
        models::register_bundled(&host.store, &host.data_dir, &runtime).await;
    }
    let stop = CancellationToken::new();
    stopper.forward(stop.clone());
    let mut parts: JoinSet<anyhow::Result<()>> = JoinSet::new();
    let options = ServerOptions {
        allow_outbound: args.outbound.allow_outbound.clone(),
        judges: judging.judges.clone(),
        ..ServerOptions::new(address)
    };
    let serving = finetuned_server::serve(host.store.clone(), options, listener, stop.clone());
    parts.spawn(async { Ok(serving.await?) });
    if let Some(engine) = engine {
        let options = worker::options((&args.engine, &args.serving), (engine, judging.clone()), host);
        let working = finetuned_worker::run(host.store.clone(), options, stop.clone());
        parts.spawn(async { Ok(working.await?) });
    }
    // By the service alone: a lone worker needs no way out.
    let delivering = finetuned_worker::deliver(host.store.clone(), judging.outbound, stop.clone());
    parts.spawn(async {
        delivering.await;
        Ok(())
    });
    let sweeping = gc::sweep(host.store.clone(), args.retention.clone(), gc::SWEEP_EVERY, stop.clone());
    parts.spawn(async {
        sweeping.await;
        Ok(())
    });
    announce(address, open)?;
    // Whichever ends first takes the others along, in order.
    let mut ended = Ok(());
    while let Some(part) = parts.join_next().await {
        let part = part.context("a part of the service broke off").and_then(|part| part);
        stop.cancel();
        ended = ended.and(part);
    }
    ended
}

/// Refuses to be reached from other machines while anyone could do anything.
fn check_reach(address: SocketAddr, open: bool) -> anyhow::Result<()> {
    if open && !address.ip().is_loopback() {
        bail!(
            "without an API key only loopback may be listened on, and {} is not; make a key first with\n  \
             finetuned keys create --tenant default admin\nwith the same --data-dir or FINETUNED_DATABASE_URL, or listen \
             on 127.0.0.1:{}",
            address.ip(),
            address.port()
        );
    }
    Ok(())
}

fn announce(address: SocketAddr, open: bool) -> anyhow::Result<()> {
    let mut line = format!("{READY}http://{address}");
    if open {
        line.push_str(" (no API key exists: open to this machine, and to no other)");
    }
    line.push('\n');
    let mut out = std::io::stdout();
    out.write_all(line.as_bytes()).and_then(|()| out.flush()).context("while saying that the service is ready")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn without_a_key_only_this_machine_is_answered() {
        let reach = |address: &str, open| check_reach(address.parse().unwrap(), open);
        assert!(reach("127.0.0.1:1", true).is_ok());
        assert!(reach("[::1]:1", true).is_ok());
        assert!(reach("0.0.0.0:1", false).is_ok());
        let error = reach("0.0.0.0:1", true).unwrap_err().to_string();
        assert!(error.contains("finetuned keys create"), "{error}");
        assert!(reach("192.168.1.5:1", true).is_err());
    }

    #[tokio::test]
    async fn a_port_in_use_is_named_with_a_way_out() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = listen(address).await.unwrap_err().to_string();
        assert!(error.contains(&format!("port {}", address.port())) && error.contains("--listen"), "{error}");
    }
}
