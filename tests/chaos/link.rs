//! A line to Postgres that can be cut, slowed, or left half open while connections lie on it.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream, unix::OwnedReadHalf, unix::OwnedWriteHalf},
    sync::watch,
    time::sleep,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    Good,
    /// Connections break, and new ones are refused.
    Cut,
    /// Bytes are taken and never arrive; nothing is told.
    HalfOpen,
    /// Each piece takes this much longer.
    Slow(Duration),
}

/// Passes connections on to the socket that `target` finds, which may change when Postgres starts again.
pub struct Link {
    state: watch::Sender<Line>,
    /// Where clients find the socket.
    pub folder: PathBuf,
}

impl Link {
    pub fn open(folder: &Path, target: impl Fn() -> Result<PathBuf> + Send + 'static) -> Result<Self> {
        let listener = UnixListener::bind(folder.join(".s.PGSQL.5432"))?;
        let (state, seen) = watch::channel(Line::Good);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *seen.borrow() == Line::Cut {
                    continue;
                }
                let Ok(path) = target() else { continue };
                let seen = seen.clone();
                tokio::spawn(async move {
                    let Ok(server) = UnixStream::connect(path).await else { return };
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    // Either end, or a cut, takes both directions along.
                    tokio::select! {
                        _ = pass(from_client, to_server, seen.clone()) => {}
                        _ = pass(from_server, to_client, seen.clone()) => {}
                        _ = cut(seen) => {}
                    }
                });
            }
        });
        Ok(Self { state, folder: folder.to_owned() })
    }

    pub fn set(&self, line: Line) {
        self.state.send_replace(line);
    }
}

async fn cut(mut seen: watch::Receiver<Line>) {
    let _ = seen.wait_for(|line| *line == Line::Cut).await;
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut seen: watch::Receiver<Line>) -> Result<()> {
    let mut piece = vec![0; 16 * 1024];
    loop {
        let length = from.read(&mut piece).await?;
        if length == 0 {
            return Ok(());
        }
        let line = *seen.borrow_and_update();
        match line {
            Line::Slow(delay) => sleep(delay).await,
            // What was sent into a half-open line is gone for good: the connection never heals.
            Line::HalfOpen => std::future::pending().await,
            Line::Good | Line::Cut => {}
        }
        to.write_all(&piece[..length]).await?;
    }
}
