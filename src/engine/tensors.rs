//! Checks and copies of named tensors.

use finetuned_torch::Tensor;

use crate::error::EngineError;

/// A tensor by its name in a file.
pub type Named = (String, Tensor);

/// Overwrites each tensor with the one of its name; names and shapes must be the same on both sides.
///
/// # Errors
/// In words: what is missing, left over or of another shape.
pub fn overwrite(targets: &[Named], sources: &[Named]) -> Result<(), String> {
    if let Some((extra, _)) = sources.iter().find(|(name, _)| !targets.iter().any(|(target, _)| target == name)) {
        return Err(format!("{extra} is none of the trained tensors"));
    }
    for (name, target) in targets {
        let (_, source) =
            sources.iter().find(|(source, _)| source == name).ok_or_else(|| format!("{name} is missing"))?;
        if source.size() != target.size() {
            return Err(format!("{name} has the shape {:?} in place of {:?}", source.size(), target.size()));
        }
        tch::no_grad(|| target.shallow_clone().f_copy_(source)).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Name of the first tensor with an element that is infinite or not a number.
///
/// # Errors
/// libtorch's.
pub fn first_non_finite(tensors: &[Named]) -> Result<Option<&str>, EngineError> {
    for (name, tensor) in tensors {
        if tensor.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0 {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn named(name: &str, values: &[f32]) -> Named {
        (name.to_owned(), Tensor::from_slice(values))
    }

    #[test]
    fn tensors_are_overwritten_by_name() {
        let targets = [named("a", &[0.0; 2]), named("b", &[0.0; 1])];
        overwrite(&targets, &[named("b", &[7.0]), named("a", &[1.0, 2.0])]).unwrap();
        assert_eq!(Vec::<f32>::try_from(&targets[0].1).unwrap(), [1.0, 2.0]);
        assert_eq!(Vec::<f32>::try_from(&targets[1].1).unwrap(), [7.0]);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let sources = [named("a", &[1.0])];
        let error = |targets: &[Named]| overwrite(targets, &sources).unwrap_err();
        assert!(error(&[]).contains("a is none of the trained"));
        assert!(error(&[named("a", &[1.0]), named("b", &[1.0])]).contains("b is missing"));
        assert!(error(&[named("a", &[1.0, 2.0])]).contains("shape"));
    }

    #[test]
    fn the_first_bad_tensor_is_found() {
        let tensors = [named("good", &[1.0]), named("bad", &[1.0, f32::NAN]), named("worse", &[f32::INFINITY])];
        assert_eq!(first_non_finite(&tensors).unwrap(), Some("bad"));
        assert_eq!(first_non_finite(&tensors[..1]).unwrap(), None);
    }
}
