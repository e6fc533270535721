//! An adapter as one uncompressed tar whose bytes follow from its files alone: sorted, owned by nobody, dated at zero.
//! Nothing is buffered: length and ranges come from the layout, contents from the blobs.

use std::ops::Range;

use bytes::Bytes;
use tar::{EntryType, Header};

const BLOCK: u64 = 512;

/// A file to be packed.
#[derive(Debug, Clone)]
pub struct Member {
    pub name: String,
    pub bytes: u64,
}

/// Where everything lies in the archive.
pub struct Layout {
    pieces: Vec<Piece>,
    bytes: u64,
}

enum Piece {
    /// A header, padding, or the end mark.
    Literal(Bytes),
    /// The content of the member with this index.
    Content { member: usize, bytes: u64 },
}

/// A run of bytes of the archive.
#[derive(Debug, PartialEq, Eq)]
pub enum Slice {
    Literal(Bytes),
    Content { member: usize, range: Range<u64> },
}

impl Piece {
    fn bytes(&self) -> u64 {
        match self {
            Self::Literal(bytes) => bytes.len() as u64,
            Self::Content { bytes, .. } => *bytes,
        }
    }
}

impl Layout {
    /// Lays out `members`, which must be sorted by name.
    ///
    /// # Errors
    /// A name that a ustar header cannot hold.
    pub fn new(members: &[Member]) -> Result<Self, std::io::Error> {
        let mut pieces = Vec::with_capacity(3 * members.len() + 1);
        for (index, member) in members.iter().enumerate() {
            pieces.push(Piece::Literal(header(member)?));
            pieces.push(Piece::Content { member: index, bytes: member.bytes });
            let padding = member.bytes.next_multiple_of(BLOCK) - member.bytes;
            pieces.push(Piece::Literal(Bytes::from(vec![0; padding as usize])));
        }
        pieces.push(Piece::Literal(Bytes::from_static(&[0; 2 * BLOCK as usize])));
        let bytes = pieces.iter().map(Piece::bytes).sum();
        Ok(Self { pieces, bytes })
    }

    /// Length of the archive.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The runs that make up `range`, in order.
    pub fn slices(&self, range: Range<u64>) -> Vec<Slice> {
        let mut slices = Vec::new();
        let mut start = 0;
        for piece in &self.pieces {
            let end = start + piece.bytes();
            let (from, to) = (range.start.max(start), range.end.min(end));
            if from < to {
                let within = from - start..to - start;
                slices.push(match piece {
                    Piece::Literal(bytes) => Slice::Literal(bytes.slice(within.start as usize..within.end as usize)),
                    Piece::Content { member, .. } => Slice::Content { member: *member, range: within },
                });
            }
            start = end;
        }
        slices
    }
}

fn header(member: &Member) -> Result<Bytes, std::io::Error> {
    let mut header = Header::new_ustar();
    header.set_path(&member.name)?;
    header.set_entry_type(EntryType::Regular);
    header.set_size(member.bytes);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    Ok(Bytes::copy_from_slice(header.as_bytes()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Read;

    use super::*;

    const CONTENTS: [&[u8]; 3] = [b"", b"hello", &[7; 1024]];

    fn layout() -> Layout {
        let members = ["adapter_config.json", "b", "deep/c"]
            .iter()
            .zip(CONTENTS)
            .map(|(name, content)| Member { name: (*name).into(), bytes: content.len() as u64 });
        Layout::new(&members.collect::<Vec<_>>()).unwrap()
    }

    fn read(range: Range<u64>) -> Vec<u8> {
        let mut all = Vec::new();
        for slice in layout().slices(range) {
            match slice {
                Slice::Literal(bytes) => all.extend_from_slice(&bytes),
                Slice::Content { member, range } => {
                    all.extend_from_slice(&CONTENTS[member][range.start as usize..range.end as usize]);
                }
            }
        }
        all
    }

    #[test]
    fn the_archive_unpacks_to_its_files() {
        let bytes = read(0..layout().bytes());
        assert_eq!(bytes.len() as u64, layout().bytes());
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut found = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.mtime().unwrap(), header.uid().unwrap(), header.gid().unwrap()), (0, 0, 0));
            let name = entry.path().unwrap().display().to_string();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            found.push((name, content));
        }
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["adapter_config.json", "b", "deep/c"]);
        assert!(found.iter().zip(CONTENTS).all(|((_, content), expected)| content == expected));
    }

    #[test]
    fn every_cut_gives_the_same_bytes() {
        let whole = read(0..layout().bytes());
        for cut in [0, 1, 511, 512, 513, 1024, 1029, 1030, 1536, 2500, whole.len() as u64] {
            let joined = [read(0..cut), read(cut..whole.len() as u64)].concat();
            assert_eq!(joined, whole, "cut at {cut}");
        }
    }
}
