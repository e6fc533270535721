//! What is stored against bitsandbytes' own figures, and what is computed against the dense matrix.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use tch::{Device, Kind, Tensor};

use super::{FrozenFormat, FrozenMatrix};
use crate::host::tensor_from_bytes;

const FORMATS: [FrozenFormat; 3] = [FrozenFormat::Bf16, FrozenFormat::Int8, FrozenFormat::Nf4];

/// A tensor of the file that `tests/python/quantised_fixture.py` writes.
fn fixture(name: &str) -> Tensor {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/quantised/bitsandbytes.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor(name).unwrap();
    let kind = match tensor.dtype() {
        Dtype::F32 => Kind::Float,
        Dtype::U8 => Kind::Uint8,
        Dtype::I8 => Kind::Int8,
        other => panic!("{other:?}"),
    };
    tensor_from_bytes(tensor.data(), tensor.shape(), kind).unwrap()
}

fn numbers(shape: [i64; 2]) -> Tensor {
    let count = (shape[0] * shape[1]) as f64;
    (Tensor::arange(count as i64, (Kind::Float, Device::Cpu)) * 0.7).sin().view(shape)
}

#[test]
fn codes_and_maxima_are_those_of_bitsandbytes() {
    for case in ["wide", "odd", "zeros"] {
        let weight = fixture(&format!("{case}.weight"));
        for (format, prefix) in [(FrozenFormat::Int8, "int8"), (FrozenFormat::Nf4, "nf4")] {
            let frozen = FrozenMatrix::new(&weight, format).unwrap();
            for (part, ours) in frozen.parts() {
                let theirs = fixture(&format!("{case}.{prefix}.{part}"));
                assert!(ours.equal(&theirs), "{case}: {part} of {prefix} differs");
            }
            let theirs = fixture(&format!("{case}.{prefix}.dequantised"));
            assert!(frozen.matrix(Kind::Float).unwrap().equal(&theirs), "{case}: {prefix} made dense differs");
        }
    }
}

#[test]
fn a_product_is_that_of_the_dense_matrix_and_so_is_its_gradient() {
    // Whole blocks, and a last block and byte that are not whole.
    for (rows, columns) in [(24, 64), (5, 13)] {
        let (weight, bias) = (numbers([rows, columns]), numbers([1, rows]).view(-1));
        for format in FORMATS {
            let frozen = FrozenMatrix::new(&weight, format).unwrap();
            let dense = frozen.matrix(Kind::Float).unwrap();
            let inputs = || (numbers([7, columns]) + 0.5).set_requires_grad(true);
            let (x, same) = (inputs(), inputs());
            let (y, expected) = (frozen.linear(&x, Some(&bias)).unwrap(), same.linear(&dense, Some(&bias)));
            assert!(y.equal(&expected), "{format:?}");
            let slope = numbers([7, rows]);
            (&y * &slope).sum(Kind::Float).backward();
            (&expected * &slope).sum(Kind::Float).backward();
            assert!(x.grad().equal(&same.grad()), "{format:?}");
            assert!(x.grad().abs().max().double_value(&[]) > 0.1);
            assert_eq!(frozen.linear(&x, None).unwrap().size(), [7, rows]);
        }
    }
}

#[test]
fn what_is_lost_is_as_small_as_the_format_is_wide() {
    let weight = fixture("wide.weight");
    let loss = |format| {
        let dense = FrozenMatrix::new(&weight, format).unwrap().matrix(Kind::Float).unwrap();
        ((dense - &weight).norm() / weight.norm()).double_value(&[])
    };
    let [bf16, int8, nf4] = FORMATS.map(loss);
    assert!(bf16 < 2e-3 && (bf16..1e-2).contains(&int8) && (int8..0.1).contains(&nf4), "{bf16} {int8} {nf4}");
}

#[test]
fn all_ways_to_make_nf4_dense_agree() {
    for case in ["wide", "odd", "zeros"] {
        let frozen = FrozenMatrix::new(&fixture(&format!("{case}.weight")), FrozenFormat::Nf4).unwrap();
        let (wide, narrow) = (frozen.matrix(Kind::Float).unwrap(), frozen.matrix(Kind::BFloat16).unwrap());
        assert_eq!(narrow.kind(), Kind::BFloat16);
        assert!(wide.to_kind(Kind::BFloat16).equal(&narrow));
        // In f64 it is made by libtorch's own operations, as on a card; a product with the unit matrix shows it.
        let unit = Tensor::eye(frozen.size()[1], (Kind::Double, Device::Cpu));
        assert!(frozen.linear(&unit, None).unwrap().tr().equal(&wide.to_kind(Kind::Double)), "{case}");
    }
}

#[test]
fn what_cannot_be_stored_or_multiplied_is_an_error() {
    let mut weight = numbers([4, 64]);
    let _ = weight.get(1).fill_(f64::NAN);
    for format in FORMATS {
        let error = FrozenMatrix::new(&weight, format).err().unwrap();
        assert!(error.to_string().contains("not finite"), "{error}");
    }
    let frozen = FrozenMatrix::new(&numbers([4, 64]), FrozenFormat::Nf4).unwrap();
    let error = frozen.linear(&numbers([2, 63]), None).err().unwrap();
    assert!(error.to_string().contains("shapes"), "{error}");
    assert!(frozen.matrix(Kind::Half).is_err());
    weight = numbers([1, 64]).view(-1);
    assert!(FrozenMatrix::new(&weight, FrozenFormat::Bf16).is_err());
}
