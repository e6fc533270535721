//! Bytes up and down, counted on the way.

use std::path::Path;

use anyhow::{Context, bail};
use finetuned_protocol::ids::JobId;
use reqwest::{Body, Method, multipart};
use sha2::{Digest, Sha256};
use tokio::{
    fs::File,
    io::{AsyncWriteExt, BufWriter},
};
use tokio_util::io::{InspectReader, ReaderStream};
use uuid::Uuid;

use super::{
    Client, segment,
    types::{Artifact, FileObject},
};

/// Bytes read from the disk at once.
const PIECE: usize = 256 * 1024;

impl Client {
    /// Streams a training file up; `moved` hears how many bytes each piece has.
    ///
    /// # Errors
    /// A file that cannot be read, or what the service says against it.
    pub async fn upload(
        &self,
        path: &Path,
        mut moved: impl FnMut(u64) + Send + Sync + 'static,
    ) -> anyhow::Result<FileObject> {
        let reading = || format!("while reading {}", path.display());
        let file = File::open(path).await.with_context(reading)?;
        let length = file.metadata().await.with_context(reading)?.len();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let counted = InspectReader::new(file, move |piece: &[u8]| moved(piece.len() as u64));
        let body = Body::wrap_stream(ReaderStream::with_capacity(counted, PIECE));
        let part = multipart::Part::stream_with_length(body, length)
            .file_name(name)
            .mime_str("application/jsonl")
            .context("while preparing the upload")?;
        let form = multipart::Form::new().text("purpose", "fine-tune").part("file", part);
        let request = self.request(Method::POST, "/v1/files").header("idempotency-key", Uuid::new_v4().to_string());
        let response = self.answer(request.multipart(form).send().await).await?;
        response.json().await.context("while reading the answer to the upload")
    }

    /// Downloads one file of a finished job into `folder` and checks its length and hash; an incomplete file is never
    /// left under the final name.
    ///
    /// # Errors
    /// A transfer that broke, or bytes that are not those that the service lists.
    pub async fn download(
        &self,
        job: JobId,
        artifact: &Artifact,
        folder: &Path,
        mut moved: impl FnMut(u64),
    ) -> anyhow::Result<()> {
        let Artifact { name, bytes, sha256 } = artifact;
        if Path::new(name).file_name().is_none_or(|plain| plain != name.as_str()) {
            bail!("the service names a file `{name}`, which is not a plain file name; nothing was written");
        }
        let path = format!("/v1/fine_tuning/jobs/{job}/artifacts/{}", segment(name));
        let mut response = self.answer(self.request(Method::GET, &path).send().await).await?;
        let partial = folder.join(format!("{name}.part"));
        let writing = || format!("while writing {}", partial.display());
        let mut file = BufWriter::new(File::create(&partial).await.with_context(writing)?);
        let mut hash = Sha256::new();
        let mut length = 0;
        while let Some(piece) = response.chunk().await.with_context(|| format!("while downloading {name}"))? {
            hash.update(&piece);
            length += piece.len() as u64;
            file.write_all(&piece).await.with_context(writing)?;
            moved(piece.len() as u64);
        }
        file.flush().await.with_context(writing)?;
        file.get_ref().sync_all().await.with_context(writing)?;
        let found = hex::encode(hash.finalize());
        if length != *bytes || found != *sha256 {
            bail!("{name} arrived with {length} bytes and sha256 {found}, but the service lists {bytes} and {sha256}");
        }
        tokio::fs::rename(&partial, folder.join(name)).await.with_context(writing)
    }
}
