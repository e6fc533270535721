//! gzip and zstd, undone with bounds: in memory, and in how much a small file may become.

use std::io::{self, Write};

use finetuned_protocol::lint::Compression;
use flate2::write::MultiGzDecoder;
use zstd::stream::raw::{self, DParameter, Operation};

use super::Fault;
use crate::rules;

/// Deflate makes at most 1,032 bytes of one, so that a slice becomes about a megabyte at most.
const GZIP_SLICE_BYTES: usize = 1 << 10;
const ZSTD_OUTPUT_BYTES: usize = 128 << 10;
/// 64 MB: more would be held in memory for as long as the file is read.
const LARGEST_ZSTD_WINDOW_LOG: u32 = 26;
/// A file may always become so much.
const FREE_BYTES: u64 = 64 << 20;
/// Beyond that, so many times its size.
const LARGEST_RATIO: u64 = 250;
const MAGIC_BYTES: usize = 4;

/// Takes packed or plain bytes and gives plain ones.
pub(super) struct Unpacker {
    state: State,
    packed_bytes: u64,
    plain_bytes: u64,
}

enum State {
    /// The first bytes, too few to tell.
    Start(Vec<u8>),
    Plain,
    Gzip(Box<MultiGzDecoder<Vec<u8>>>),
    Zstd(Box<ZstdState>),
}

struct ZstdState {
    decoder: raw::Decoder<'static>,
    output: Vec<u8>,
    /// Whether the last frame is whole.
    at_frame_end: bool,
}

pub(super) type Unpacked<'e> = &'e mut dyn FnMut(&[u8]);

impl Default for Unpacker {
    fn default() -> Self {
        Self { state: State::Start(Vec::new()), packed_bytes: 0, plain_bytes: 0 }
    }
}

impl Unpacker {
    pub fn compression(&self) -> Option<Compression> {
        match self.state {
            State::Start(_) | State::Plain => None,
            State::Gzip(_) => Some(Compression::Gzip),
            State::Zstd(_) => Some(Compression::Zstd),
        }
    }

    pub fn feed(&mut self, bytes: &[u8], each: Unpacked<'_>) -> Result<(), Fault> {
        let State::Start(first) = &mut self.state else { return self.unpack(bytes, each) };
        if first.is_empty() && bytes.len() >= MAGIC_BYTES {
            self.begin(bytes)?;
            return self.unpack(bytes, each);
        }
        first.extend_from_slice(bytes);
        if first.len() < MAGIC_BYTES {
            return Ok(());
        }
        let first = std::mem::take(first);
        self.begin(&first)?;
        self.unpack(&first, each)
    }

    fn begin(&mut self, first: &[u8]) -> Result<(), Fault> {
        self.state = if first.starts_with(b"\x1f\x8b") {
            State::Gzip(Box::new(MultiGzDecoder::new(Vec::new())))
        } else if first.starts_with(b"\x28\xb5\x2f\xfd") {
            State::Zstd(Box::new(ZstdState::new().map_err(|error| broken("zstd", &error))?))
        } else {
            State::Plain
        };
        Ok(())
    }

    fn unpack(&mut self, bytes: &[u8], each: Unpacked<'_>) -> Result<(), Fault> {
        self.packed_bytes += bytes.len() as u64;
        let (packed, plain) = (self.packed_bytes, &mut self.plain_bytes);
        let mut give = |bytes: &[u8]| {
            *plain += bytes.len() as u64;
            if *plain > FREE_BYTES.max(packed.saturating_mul(LARGEST_RATIO)) {
                let reason =
                    format!("the file unpacks to more than {LARGEST_RATIO} times its size; upload it unpacked");
                return Err(Fault::new(&rules::COMPRESSION_INVALID, 1, reason));
            }
            each(bytes);
            Ok(())
        };
        match &mut self.state {
            State::Start(_) => Ok(()),
            State::Plain => {
                each(bytes);
                Ok(())
            }
            State::Gzip(decoder) => {
                for slice in bytes.chunks(GZIP_SLICE_BYTES) {
                    decoder.write_all(slice).and_then(|()| decoder.flush()).map_err(|error| broken("gzip", &error))?;
                    give(decoder.get_ref())?;
                    decoder.get_mut().clear();
                }
                Ok(())
            }
            State::Zstd(zstd) => zstd.unpack(bytes, &mut give),
        }
    }

    pub fn finish(self, each: Unpacked<'_>) -> Result<(), Fault> {
        match self.state {
            State::Start(first) => {
                each(&first);
                Ok(())
            }
            State::Plain => Ok(()),
            State::Gzip(decoder) => {
                let rest = decoder.finish().map_err(|error| broken("gzip", &error))?;
                each(&rest);
                Ok(())
            }
            State::Zstd(zstd) if zstd.at_frame_end => Ok(()),
            State::Zstd(_) => Err(cut_off("zstd")),
        }
    }
}

impl ZstdState {
    fn new() -> io::Result<Self> {
        let mut decoder = raw::Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(LARGEST_ZSTD_WINDOW_LOG))?;
        Ok(Self { decoder, output: vec![0; ZSTD_OUTPUT_BYTES], at_frame_end: true })
    }

    fn unpack(&mut self, mut bytes: &[u8], give: &mut dyn FnMut(&[u8]) -> Result<(), Fault>) -> Result<(), Fault> {
        loop {
            let status =
                self.decoder.run_on_buffers(bytes, &mut self.output).map_err(|error| broken("zstd", &error))?;
            give(&self.output[..status.bytes_written])?;
            bytes = &bytes[status.bytes_read..];
            if status.bytes_read > 0 || status.bytes_written > 0 {
                self.at_frame_end = status.remaining == 0;
            }
            // A full output buffer may hide more of it.
            if bytes.is_empty() && status.bytes_written < self.output.len() {
                return Ok(());
            }
            if status.bytes_read == 0 && status.bytes_written == 0 {
                return Err(cut_off("zstd"));
            }
        }
    }
}

fn broken(kind: &str, error: &io::Error) -> Fault {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return cut_off(kind);
    }
    let reason = format!("the {kind} data cannot be unpacked ({error}); pack the file again, or upload it unpacked");
    Fault::new(&rules::COMPRESSION_INVALID, 1, reason)
}

fn cut_off(kind: &str) -> Fault {
    let reason = format!("the {kind} data ends too early; the file seems to be cut off");
    Fault::new(&rules::COMPRESSION_INVALID, 1, reason)
}
