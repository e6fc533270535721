//! A small TCP proxy that cuts connections at chosen moments, to see what a client's retry does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// When the proxy breaks a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// Nothing of the request reaches the server.
    BeforeRequest,
    /// The server has got part of the request.
    DuringRequest,
    /// The server has got the whole request, and after this time it sees the client gone, whatever it is doing.
    AfterRequest(Duration),
    /// The server has answered, and the client never hears of it.
    AfterAnswer,
}

/// Bytes of a request that are let through by [`Cut::DuringRequest`].
const PART: usize = 64;

/// Listens on a free port, breaks the first `count` connections as `cut` says and passes the others on.
///
/// Returns its URL and the number of connections broken so far.
pub async fn start(target: u16, cut: Cut, count: u32) -> Result<(String, Arc<AtomicU32>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let broken = Arc::new(AtomicU32::new(0));
    let counter = broken.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let cut = (counter.load(Ordering::SeqCst) < count).then_some(cut);
            if cut.is_some() {
                counter.fetch_add(1, Ordering::SeqCst);
            }
            tokio::spawn(async move {
                // A broken pipe is what this proxy is for.
                let _ = pass(client, target, cut).await;
            });
        }
    });
    Ok((url, broken))
}

async fn pass(mut client: TcpStream, target: u16, cut: Option<Cut>) -> Result<()> {
    if cut == Some(Cut::BeforeRequest) {
        return Ok(());
    }
    let mut server = TcpStream::connect(("127.0.0.1", target)).await?;
    match cut {
        None | Some(Cut::BeforeRequest) => {
            tokio::io::copy_bidirectional(&mut client, &mut server).await?;
        }
        Some(Cut::DuringRequest) => {
            let mut part = [0; PART];
            let length = client.read(&mut part).await?;
            server.write_all(&part[..length]).await?;
        }
        Some(Cut::AfterRequest(delay)) => {
            forward_request(&mut client, &mut server).await?;
            tokio::time::sleep(delay).await;
        }
        Some(Cut::AfterAnswer) => swallow_answer(client, server).await?,
    }
    Ok(())
}

/// Passes on one request with a `content-length`, and nothing of its answer.
async fn forward_request(client: &mut TcpStream, server: &mut TcpStream) -> Result<()> {
    let mut request = Vec::new();
    let whole = loop {
        if let Some(length) = request_length(&request)?
            && request.len() >= length
        {
            break length;
        }
        if client.read_buf(&mut request).await? == 0 {
            bail!("the client went away within its request");
        }
    };
    server.write_all(&request[..whole]).await?;
    Ok(())
}

/// Bytes of the request that starts here, once its head is whole.
fn request_length(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(head) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.context("a request without a content-length")?.trim().parse()?;
    Ok(Some(head + 4 + length))
}

/// Passes the request on, reads the first bytes of the answer, and drops both connections.
async fn swallow_answer(client: TcpStream, server: TcpStream) -> Result<()> {
    let (mut from_client, _to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let forward = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    let mut answer = [0; 1024];
    let _ = from_server.read(&mut answer).await?;
    forward.abort();
    Ok(())
}
