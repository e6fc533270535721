//! Writes small GGUF files for tests.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::Write;

/// Entries and tensors in the order they were added; a second one of the same name replaces the first.
pub(crate) struct Writer {
    pub(crate) version: u32,
    entries: Vec<(String, Vec<u8>)>,
    /// Name, type number, sizes innermost first, bytes.
    tensors: Vec<(String, u32, Vec<u64>, Vec<u8>)>,
}

fn text_bytes(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self { version: 3, entries: Vec::new(), tensors: Vec::new() }
    }

    /// A Llama with one layer: hidden size 8, two heads of 4 with one key head, 12 inner, 8 tokens, tied.
    pub(crate) fn tiny_llama() -> Self {
        let mut writer = Self::new();
        writer.text("general.architecture", "llama");
        for (key, value) in [
            ("block_count", 1),
            ("context_length", 64),
            ("embedding_length", 8),
            ("feed_forward_length", 12),
            ("attention.head_count", 2),
            ("attention.head_count_kv", 1),
            ("rope.dimension_count", 4),
        ] {
            writer.u32(&format!("llama.{key}"), value);
        }
        writer.f32("llama.attention.layer_norm_rms_epsilon", 1e-5);
        writer.f32("llama.rope.freq_base", 100_000.0);
        for (name, sizes) in [
            ("token_embd", vec![8, 8]),
            ("output_norm", vec![8]),
            ("blk.0.attn_norm", vec![8]),
            ("blk.0.ffn_norm", vec![8]),
            ("blk.0.attn_q", vec![8, 8]),
            ("blk.0.attn_k", vec![8, 4]),
            ("blk.0.attn_v", vec![8, 4]),
            ("blk.0.attn_output", vec![8, 8]),
            ("blk.0.ffn_gate", vec![8, 12]),
            ("blk.0.ffn_up", vec![8, 12]),
            ("blk.0.ffn_down", vec![12, 8]),
        ] {
            let elements: u64 = sizes.iter().product();
            let values: Vec<f32> = (0..elements).map(|index| index as f32).collect();
            writer.f32_tensor(&format!("{name}.weight"), &sizes, &values);
        }
        writer
    }

    pub(crate) fn resize_vocab(&mut self, tokens: usize) {
        self.f32_tensor("token_embd.weight", &[8, tokens as u64], &vec![0.5; tokens * 8]);
    }

    pub(crate) fn entry(&mut self, key: &str, kind: u32, value: Vec<u8>) {
        self.remove(key);
        self.entries.push((key.to_owned(), [kind.to_le_bytes().to_vec(), value].concat()));
    }

    pub(crate) fn remove(&mut self, key: &str) {
        self.entries.retain(|(known, _)| known != key);
    }

    pub(crate) fn u32(&mut self, key: &str, value: u32) {
        self.entry(key, 4, value.to_le_bytes().to_vec());
    }

    pub(crate) fn f32(&mut self, key: &str, value: f32) {
        self.entry(key, 6, value.to_le_bytes().to_vec());
    }

    pub(crate) fn flag(&mut self, key: &str, value: bool) {
        self.entry(key, 7, vec![value.into()]);
    }

    pub(crate) fn text(&mut self, key: &str, value: &str) {
        self.entry(key, 8, text_bytes(value));
    }

    pub(crate) fn texts(&mut self, key: &str, values: &[impl AsRef<str>]) {
        let items = values.iter().flat_map(|value| text_bytes(value.as_ref())).collect();
        self.list(key, 8, values.len() as u64, items);
    }

    pub(crate) fn i32s(&mut self, key: &str, values: &[i32]) {
        self.list(key, 5, values.len() as u64, values.iter().flat_map(|value| value.to_le_bytes()).collect());
    }

    /// A list whose count may lie.
    pub(crate) fn list(&mut self, key: &str, kind: u32, count: u64, items: Vec<u8>) {
        self.entry(key, 9, [kind.to_le_bytes().to_vec(), count.to_le_bytes().to_vec(), items].concat());
    }

    pub(crate) fn f32_tensor(&mut self, name: &str, sizes: &[u64], values: &[f32]) {
        self.tensor(name, 0, sizes, values.iter().flat_map(|value| value.to_le_bytes()).collect());
    }

    pub(crate) fn tensor(&mut self, name: &str, kind: u32, sizes: &[u64], bytes: Vec<u8>) {
        self.drop_tensor(name);
        self.tensors.push((name.to_owned(), kind, sizes.to_vec(), bytes));
    }

    pub(crate) fn drop_tensor(&mut self, name: &str) {
        self.tensors.retain(|(known, ..)| known != name);
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.entries.len() as u64).to_le_bytes());
        for (key, value) in &self.entries {
            out.extend(text_bytes(key));
            out.extend(value);
        }
        let mut data: Vec<u8> = Vec::new();
        for (name, kind, sizes, bytes) in &self.tensors {
            out.extend(text_bytes(name));
            out.extend((sizes.len() as u32).to_le_bytes());
            out.extend(sizes.iter().flat_map(|size| size.to_le_bytes()));
            out.extend(kind.to_le_bytes());
            out.extend((data.len() as u64).to_le_bytes());
            data.extend(bytes);
            data.resize(data.len().next_multiple_of(32), 0);
        }
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(data);
        out
    }

    pub(crate) fn file(&self) -> tempfile::NamedTempFile {
        file_of(&self.bytes())
    }
}

pub(crate) fn file_of(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}
