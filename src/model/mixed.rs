//! Rows of one pass that are computed with different adapters.
//!
//! The base's own matrices are read once for all rows. Low-rank adapters are stacked: with `A = [A1; A2; ...]` and
//! `B = [B1, B2, ...]`, a row's change is `B (m * (A x))`, where the mask `m` keeps the ranks of the row's own adapter. So a
//! pass takes three operations a module, however many adapters there are.

use std::rc::Rc;

use finetuned_torch::{Device, Kind, Tensor, tch};

use crate::{adapter::Adapter, causal_lm::CausalLm, error::ModelError, linear::Linear};

/// Adapters that can be computed with together.
pub(crate) struct AdapterStack {
    adapters: Vec<Rc<Adapter>>,
    /// One place for each linear module of the model; empty where no stacked adapter changes it.
    modules: Vec<Option<StackedModule>>,
    /// Kinds of owners that modules have: `[ranks]`, i64, the place of the adapter that each rank belongs to.
    owners: Vec<Tensor>,
}

struct StackedModule {
    /// `[ranks, in_features]`, scaled.
    a: Tensor,
    /// `[ranks, out_features]`
    b: Tensor,
    /// Place in [`AdapterStack::owners`].
    owners: usize,
}

impl AdapterStack {
    pub fn new(model: &CausalLm, adapters: Vec<Rc<Adapter>>) -> Result<Self, ModelError> {
        let _detached = tch::no_grad_guard();
        let mut kinds: Vec<Vec<i64>> = Vec::new();
        let mut modules = Vec::with_capacity(model.linear_modules().len());
        for index in 0..model.linear_modules().len() {
            let (mut a, mut b, mut owners) = (Vec::new(), Vec::new(), Vec::new());
            for (place, adapter) in adapters.iter().enumerate() {
                let Adapter::Lora(lora) = adapter.as_ref() else { continue };
                let Some((own_a, own_b)) = lora.stacked(index, model.kind())? else { continue };
                owners.extend(std::iter::repeat_n(place as i64, own_a.size2()?.0 as usize));
                a.push(own_a);
                b.push(own_b);
            }
            if a.is_empty() {
                modules.push(None);
                continue;
            }
            let kind = kinds.iter().position(|kind| *kind == owners).unwrap_or_else(|| {
                kinds.push(owners);
                kinds.len() - 1
            });
            let b = Tensor::f_cat(&b, 1)?.f_tr()?.f_contiguous()?;
            modules.push(Some(StackedModule { a: Tensor::f_cat(&a, 0)?, b, owners: kind }));
        }
        let owners = kinds.iter().map(|kind| Ok(Tensor::f_from_slice(kind)?.f_to_device(model.device())?));
        Ok(Self { adapters, modules, owners: owners.collect::<Result<_, ModelError>>()? })
    }

    /// Place of an adapter in the stack.
    pub fn place(&self, adapter: &Rc<Adapter>) -> Option<usize> {
        self.adapters.iter().position(|other| Rc::ptr_eq(other, adapter))
    }

    pub fn len(&self) -> usize {
        self.adapters.len()
    }
}

/// Which adapter each row of a pass is computed with.
pub(crate) struct MixedRows<'a> {
    stack: &'a AdapterStack,
    /// `[rows, ranks]` for each kind of owners.
    masks: Vec<Tensor>,
    /// Adapters with rows of their own in the pass, `[rows]`, i64.
    rows: Vec<(&'a Adapter, Tensor)>,
}

impl<'a> MixedRows<'a> {
    /// `places` are those of each row's adapter in the stack, below zero for the base alone.
    pub fn new(stack: &'a AdapterStack, places: &[i64], (kind, device): (Kind, Device)) -> Result<Self, ModelError> {
        let of_rows = Tensor::f_from_slice(places)?.f_to_device(device)?.f_unsqueeze(1)?; // [rows, 1]
        let masks =
            stack.owners.iter().map(|owners| Ok(of_rows.f_eq_tensor(&owners.f_unsqueeze(0)?)?.f_to_kind(kind)?));
        let masks = masks.collect::<Result<_, ModelError>>()?;
        let mut rows = Vec::new();
        for (place, adapter) in stack.adapters.iter().enumerate() {
            let own: Vec<i64> = (0..places.len() as i64).filter(|&row| places[row as usize] == place as i64).collect();
            if !own.is_empty() {
                rows.push((adapter.as_ref(), Tensor::f_from_slice(&own)?.f_to_device(device)?));
            }
        }
        Ok(Self { stack, masks, rows })
    }

    /// What `linear` gives for `x`, `[rows, in_features]`.
    pub fn linear(&self, linear: &Linear, x: &Tensor) -> Result<Tensor, ModelError> {
        let mut y = linear.plain(x)?;
        if let Some(module) = self.stack.modules.get(linear.index).and_then(Option::as_ref) {
            let low = x.f_linear(&module.a, None::<&Tensor>)?.f_mul_(&self.masks[module.owners])?;
            y = y.f_addmm_(&low, &module.b)?;
        }
        self.replace(
            y,
            |adapter| !adapter.stacks(),
            |adapter, rows| adapter.linear(linear, &x.f_index_select(0, rows)?),
        )
    }

    /// Embeddings of `ids`, `[rows]`, by the model's own matrix.
    pub fn embed(&self, weight: &Tensor, ids: &Tensor) -> Result<Tensor, ModelError> {
        let x = Tensor::f_embedding(weight, ids, -1, false, false)?;
        self.replace(x, Adapter::has_vocabulary, |adapter, rows| adapter.embed(weight, &ids.f_index_select(0, rows)?))
    }

    /// Logits of hidden states, `[rows, hidden]`.
    pub fn logits(&self, model: &CausalLm, hidden: &Tensor) -> Result<Tensor, ModelError> {
        self.replace(model.logits(hidden, None)?, Adapter::has_vocabulary, |adapter, rows| {
            model.logits(&hidden.f_index_select(0, rows)?, Some(adapter))
        })
    }

    /// Puts what `compute` gives in the rows of each adapter that is `wanted`.
    fn replace(
        &self,
        mut all: Tensor,
        wanted: impl Fn(&Adapter) -> bool,
        compute: impl Fn(&Adapter, &Tensor) -> Result<Tensor, ModelError>,
    ) -> Result<Tensor, ModelError> {
        for (adapter, rows) in self.rows.iter().filter(|(adapter, _)| wanted(adapter)) {
            all = all.f_index_copy_(0, rows, &compute(adapter, rows)?)?;
        }
        Ok(all)
    }
}
