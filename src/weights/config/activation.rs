//! Nonlinearities of the feed-forward layers.

use super::fields::Fields;
use crate::error::WeightsError;

/// The function between the matrices of a feed-forward layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`
    Silu,
    /// `x * Phi(x)`, by the error function.
    Gelu,
    /// The same by its approximation with tanh (Hendrycks & Gimpel 2016).
    GeluTanh,
    /// `max(x, 0)`
    Relu,
}

const NAMES: &[(&str, Activation)] = &[
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
    ("gelu", Activation::Gelu),
    ("gelu_new", Activation::GeluTanh),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("gelu_fast", Activation::GeluTanh),
    ("relu", Activation::Relu),
];

/// The activation that the first of these fields names, or else the default.
pub(crate) fn read(fields: &Fields<'_>, names: &[&str], default: Activation) -> Result<Activation, WeightsError> {
    for field in names {
        let Some(name) = fields.maybe_text(field)? else { continue };
        return match NAMES.iter().find(|(known, _)| *known == name) {
            Some((_, activation)) => Ok(*activation),
            None => {
                let known: Vec<_> = NAMES.iter().map(|(name, _)| *name).collect();
                Err(WeightsError::unsupported(format!("field `{}`", fields.name(field)), name, known.join(", ")))
            }
        };
    }
    Ok(default)
}
