//! The linter beside an upload: a thread of its own, fed through a bounded channel, its findings streamed to a blob.

use bytes::{BufMut, Bytes, BytesMut};
use finetuned_dataset::{LintScope, Linter};
use finetuned_protocol::{
    ids::TenantId,
    lint::{Finding, LintSummary, ReadingSpec, Severity},
};
use finetuned_store::{Store, StoreError, StoredBlob};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use crate::http::error::ApiError;

/// Pieces of the upload, or of findings, that may wait.
const WAITING_PIECES: usize = 4;
/// Findings are written in pieces of about this size.
const FINDINGS_PIECE_BYTES: usize = 64 << 10;

/// A linter at work.
pub struct Linting {
    pieces: mpsc::Sender<Bytes>,
    result: oneshot::Receiver<(LintSummary, Option<Finding>)>,
    // Ends with the upload: findings of half a file are of no use.
    findings: AbortOnDropHandle<Result<Option<StoredBlob>, StoreError>>,
}

/// What the linter found.
pub struct Linted {
    pub summary: LintSummary,
    pub first_error: Option<Finding>,
    /// All findings, one JSON object a line; `None` where there are none.
    pub findings: Option<StoredBlob>,
}

impl Linting {
    /// # Errors
    /// The system refuses a thread.
    pub fn start(store: &Store, tenant: TenantId, reading: ReadingSpec) -> Result<Self, ApiError> {
        let (pieces, received) = mpsc::channel(WAITING_PIECES);
        let (found, findings) = mpsc::channel(WAITING_PIECES);
        let (finished, result) = oneshot::channel();
        // Not one of the runtime's threads for blocking calls: those write the very bytes that are linted here, and as
        // many uploads as there are threads would wait for each other for ever.
        std::thread::Builder::new()
            .name("lint".into())
            .spawn(move || {
                // Nobody waits where the upload has failed.
                let _ = finished.send(lint(&reading, received, found));
            })
            .map_err(ApiError::unavailable)?;
        let findings = AbortOnDropHandle::new(tokio::spawn(write_findings(store.clone(), tenant, findings)));
        Ok(Self { pieces, result, findings })
    }

    /// Hands on bytes; waits where the linter is slower than they come.
    pub async fn feed(&mut self, piece: Bytes) -> Result<(), ApiError> {
        // The thread only leaves its end when it panicked.
        self.pieces.send(piece).await.map_err(|_| ApiError::internal("the linter ended before the upload"))
    }

    pub async fn finish(self) -> Result<Linted, ApiError> {
        let Self { pieces, result, findings } = self;
        drop(pieces);
        let (summary, first_error) = result.await.map_err(ApiError::internal)?;
        let findings = findings.await.map_err(ApiError::internal)??;
        Ok(Linted { summary, first_error, findings })
    }
}

/// The thread: reads pieces until the upload ends.
fn lint(
    reading: &ReadingSpec,
    mut pieces: mpsc::Receiver<Bytes>,
    found: mpsc::Sender<Bytes>,
) -> (LintSummary, Option<Finding>) {
    let mut written = BytesMut::new();
    let mut first_error = None;
    let mut linter = Linter::new(reading, LintScope::Content, |finding: Finding| {
        // A finding is plain data, which can always be written; were it not, it would only be missing from the list.
        if let Ok(line) = serde_json::to_vec(&finding) {
            written.extend_from_slice(&line);
            written.put_u8(b'\n');
        }
        if first_error.is_none() && finding.severity == Severity::Error {
            first_error = Some(finding);
        }
        if written.len() >= FINDINGS_PIECE_BYTES {
            // Nobody listens where the upload has failed already.
            let _ = found.blocking_send(written.split().freeze());
        }
    });
    while let Some(piece) = pieces.blocking_recv() {
        linter.feed(&piece);
    }
    let summary = linter.finish();
    if !written.is_empty() {
        let _ = found.blocking_send(written.freeze());
    }
    (summary, first_error)
}

async fn write_findings(
    store: Store,
    tenant: TenantId,
    mut findings: mpsc::Receiver<Bytes>,
) -> Result<Option<StoredBlob>, StoreError> {
    let Some(first) = findings.recv().await else { return Ok(None) };
    let mut writer = store.begin_blob(tenant).await?;
    writer.write(first).await?;
    while let Some(piece) = findings.recv().await {
        writer.write(piece).await?;
    }
    writer.finish().await.map(Some)
}
