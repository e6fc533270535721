//! Packed documents: one vector of tokens, no padding.

use finetuned_torch::{Device, Kind, Tensor};

use crate::error::ModelError;

/// Tokens of several documents one after the other. A document's positions start at zero, and it sees no other
/// document.
#[derive(Debug)]
pub struct Documents {
    /// `[tokens]`, i64.
    pub(crate) ids: Tensor,
    /// `[tokens]`, i64.
    pub(crate) positions: Tensor,
    /// `[tokens]`, i64: tokens of the text that each one stands in, by which some rotary embeddings are chosen.
    pub(crate) text_lengths: Tensor,
    /// Tokens of each document; their sum is `tokens`.
    pub(crate) lengths: Vec<i64>,
    /// Largest token id, so that a model can refuse it before the device faults on it.
    pub(crate) largest_id: u32,
    /// Rows at the start of each document that are no tokens, where an adapter has such.
    pub(crate) virtual_rows: Option<VirtualRows>,
}

/// Places of rows that are no tokens.
#[derive(Debug)]
pub(crate) struct VirtualRows {
    pub documents: i64,
    /// `[documents * virtual tokens]`, i64.
    pub rows: Tensor,
    /// `[tokens]`, i64: the rows of the real tokens.
    pub real: Tensor,
}

impl Documents {
    /// Packs documents in the order given.
    ///
    /// # Errors
    /// No document, or an empty one.
    pub fn pack<R: AsRef<[u32]>>(documents: &[R], device: Device) -> Result<Self, ModelError> {
        let documents: Vec<&[u32]> = documents.iter().map(AsRef::as_ref).collect();
        if documents.is_empty() {
            return Err(ModelError::Batch("there is no document".to_owned()));
        }
        if let Some(index) = documents.iter().position(|document| document.is_empty()) {
            return Err(ModelError::Batch(format!("document {index} has no tokens")));
        }
        let ids: Vec<i64> = documents.iter().flat_map(|document| document.iter().map(|&id| i64::from(id))).collect();
        let positions: Vec<i64> = documents.iter().flat_map(|document| 0..document.len() as i64).collect();
        let text_lengths: Vec<i64> =
            documents.iter().flat_map(|document| std::iter::repeat_n(document.len() as i64, document.len())).collect();
        Ok(Self {
            text_lengths: Tensor::f_from_slice(&text_lengths)?.f_to_device(device)?,
            largest_id: documents.iter().flat_map(|document| document.iter().copied()).max().unwrap_or(0),
            lengths: documents.iter().map(|document| document.len() as i64).collect(),
            ids: Tensor::f_from_slice(&ids)?.f_to_device(device)?,
            positions: Tensor::f_from_slice(&positions)?.f_to_device(device)?,
            virtual_rows: None,
        })
    }

    /// The same documents, each behind `count` rows that are no tokens; positions start with those. What the rows hold is
    /// for an adapter to set: token 0 stands in for it.
    pub(crate) fn behind_virtual(&self, count: i64) -> Result<Self, ModelError> {
        let (device, documents) = (self.ids.device(), self.lengths.len() as i64);
        let (mut rows, mut real, mut positions, mut texts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (first, &length) in self.starts().zip(&self.lengths) {
            let start = positions.len() as i64;
            rows.extend(start..start + count);
            real.extend(start + count..start + count + length);
            positions.extend(0..count + length);
            texts.extend((0..count + length).map(|_| first));
        }
        let on_device = |values: &[i64]| Tensor::f_from_slice(values)?.f_to_device(device);
        let (real, texts) = (on_device(&real)?, on_device(&texts)?);
        let ids = Tensor::f_zeros([positions.len() as i64], (Kind::Int64, device))?;
        Ok(Self {
            ids: ids.f_index_copy(0, &real, &self.ids)?,
            positions: on_device(&positions)?,
            text_lengths: self.text_lengths.f_index_select(0, &texts)?.f_add_scalar(count)?,
            lengths: self.lengths.iter().map(|length| count + length).collect(),
            largest_id: self.largest_id,
            virtual_rows: Some(VirtualRows { documents, rows: on_device(&rows)?, real }),
        })
    }

    /// Computes every document as if it were padded to `width` tokens. Padding changes nothing but rotary embeddings that
    /// are chosen by length (LongRoPE), which transformers chooses by the width of a batch; here a document's own length
    /// decides, so that its neighbours do not.
    ///
    /// # Errors
    /// Too little memory.
    pub fn padded_to(self, width: i64) -> Result<Self, ModelError> {
        let text_lengths = self.text_lengths.f_clamp_min(width)?;
        Ok(Self { text_lengths, ..self })
    }

    /// Tokens of all documents.
    pub fn tokens(&self) -> i64 {
        self.lengths.iter().sum()
    }

    /// Tokens of each document.
    pub fn lengths(&self) -> &[i64] {
        &self.lengths
    }

    /// Row of the first token of each document.
    pub fn starts(&self) -> impl Iterator<Item = i64> + '_ {
        self.lengths.iter().scan(0, |next, length| {
            let start = *next;
            *next += length;
            Some(start)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn positions_start_anew_with_each_document() {
        let packed = Documents::pack(&[vec![5, 6, 7], vec![8], vec![9, 4]], Device::Cpu).unwrap();
        assert_eq!(Vec::<i64>::try_from(&packed.ids).unwrap(), [5, 6, 7, 8, 9, 4]);
        assert_eq!(Vec::<i64>::try_from(&packed.positions).unwrap(), [0, 1, 2, 0, 0, 1]);
        assert_eq!(packed.lengths(), [3, 1, 2]);
        assert_eq!(packed.starts().collect::<Vec<_>>(), [0, 3, 4]);
        assert_eq!((packed.tokens(), packed.largest_id), (6, 9));
    }

    #[test]
    fn virtual_rows_come_first_in_each_document() {
        let packed = Documents::pack(&[vec![5, 6], vec![8]], Device::Cpu).unwrap().behind_virtual(2).unwrap();
        assert_eq!(Vec::<i64>::try_from(&packed.ids).unwrap(), [0, 0, 5, 6, 0, 0, 8]);
        assert_eq!(Vec::<i64>::try_from(&packed.positions).unwrap(), [0, 1, 2, 3, 0, 1, 2]);
        assert_eq!(Vec::<i64>::try_from(&packed.text_lengths).unwrap(), [4, 4, 4, 4, 3, 3, 3]);
        assert_eq!(packed.lengths(), [4, 3]);
        let virtual_rows = packed.virtual_rows.unwrap();
        assert_eq!(Vec::<i64>::try_from(&virtual_rows.rows).unwrap(), [0, 1, 4, 5]);
        assert_eq!(Vec::<i64>::try_from(&virtual_rows.real).unwrap(), [2, 3, 6]);
    }

    #[test]
    fn empty_documents_are_refused() {
        assert!(Documents::pack::<Vec<u32>>(&[], Device::Cpu).is_err());
        assert!(Documents::pack(&[vec![1], vec![]], Device::Cpu).err().unwrap().to_string().contains("document 1"));
    }
}
