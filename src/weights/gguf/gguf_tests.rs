#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::{
    writer::{Writer, file_of},
    *,
};
use crate::{Family, ModelConfig, ModelSource, RopeScaling, family::Llama};

fn open(writer: &Writer) -> Result<ModelSource, WeightsError> {
    ModelSource::open(writer.file().path())
}

fn refused(change: impl FnOnce(&mut Writer)) -> String {
    let mut writer = Writer::tiny_llama();
    change(&mut writer);
    open(&writer).err().expect("refused").to_string()
}

fn llama(config: &ModelConfig) -> &Llama {
    let Family::Llama(llama) = &config.family else { panic!("{:?}", config.family) };
    llama
}

fn floats(tensor: &HostTensor<'_>) -> Vec<f32> {
    assert_eq!(tensor.dtype, HostDtype::F32);
    tensor.bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}

#[test]
fn a_tiny_llama_is_read_whole() {
    let model = open(&Writer::tiny_llama()).unwrap();
    let config = model.config();
    let common = &config.common;
    assert_eq!((common.vocab_size, common.hidden_size, common.head_dim), (8, 8, 4));
    assert_eq!((common.norm_epsilon, llama(config).rope.theta), (1e-5, 100_000.0));
    assert!(common.tie_word_embeddings && !llama(config).attention_bias);
    assert_eq!(model.tensor_names().len(), 11);
    let down = model.tensor("model.layers.0.mlp.down_proj.weight").unwrap();
    assert_eq!(down.shape, [8, 12]);
    assert!(matches!(down.bytes, Cow::Borrowed(_)));
    assert_eq!(floats(&down)[..3], [0.0, 1.0, 2.0]);
    // Rows 0 to 3 of each head are stored as 0 2 1 3.
    let q = floats(&model.tensor("model.layers.0.self_attn.q_proj.weight").unwrap());
    let rows: Vec<f32> = q.chunks_exact(8).map(|row| row[0] / 8.0).collect();
    assert_eq!(rows, [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
    let k = floats(&model.tensor("model.layers.0.self_attn.k_proj.weight").unwrap());
    assert_eq!(k.chunks_exact(8).map(|row| row[0] / 8.0).collect::<Vec<_>>(), [0.0, 2.0, 1.0, 3.0]);
    let v = floats(&model.tensor("model.layers.0.self_attn.v_proj.weight").unwrap());
    assert_eq!(v[8], 8.0);
    assert!(model.tensor("lm_head.weight").unwrap_err().to_string().contains("`lm_head.weight`"));
    assert!(model.tokenizer().unwrap_err().to_string().contains("no tokenizer"));
    let facts = model.facts();
    assert_eq!(
        (facts.parameters, facts.layers, facts.has_chat_template),
        (64 + 3 * 8 + 64 + 32 + 32 + 64 + 288, 1, false)
    );
}

#[test]
fn version_two_is_read_and_others_are_refused() {
    let mut writer = Writer::tiny_llama();
    writer.version = 2;
    assert!(open(&writer).is_ok());
    for (version, named) in [(1, "`1`"), (4, "`4`"), (3_u32.swap_bytes(), "big-endian")] {
        writer.version = version;
        assert!(open(&writer).err().unwrap().to_string().contains(named), "{version}");
    }
}

#[test]
fn optional_parts_change_the_config() {
    let mut writer = Writer::tiny_llama();
    writer.f32_tensor("output.weight", &[8, 8], &[0.0; 64]);
    for (name, sizes) in [("q", 8), ("k", 4), ("v", 4), ("output", 8)] {
        writer.f32_tensor(
            &format!("blk.0.attn_{name}.bias"),
            &[sizes],
            &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0][..sizes as usize],
        );
    }
    writer.text("llama.rope.scaling.type", "linear");
    writer.f32("llama.rope.scaling.factor", 4.0);
    writer.u32("tokenizer.ggml.eos_token_id", 3);
    writer.u32("tokenizer.ggml.eot_token_id", 4);
    let model = open(&writer).unwrap();
    let config = model.config();
    assert!(!config.common.tie_word_embeddings && llama(config).attention_bias && !llama(config).mlp_bias);
    assert_eq!(llama(config).rope.scaling, RopeScaling::Linear { factor: 4.0 });
    assert_eq!(model.generation_eos_ids(), [3, 4]);
    let bias = floats(&model.tensor("model.layers.0.self_attn.q_proj.bias").unwrap());
    assert_eq!(bias, [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);

    writer.text("llama.rope.scaling.type", "yarn");
    writer.u32("llama.rope.scaling.original_context_length", 16);
    match llama(open(&writer).unwrap().config()).rope.scaling.clone() {
        RopeScaling::Yarn { factor, original_max_position_embeddings, attention_factor, .. } => {
            assert_eq!((factor, original_max_position_embeddings), (4.0, 16));
            assert!((attention_factor - (0.1 * 4.0_f64.ln() + 1.0)).abs() < 1e-12);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn quantised_tensors_become_bf16() {
    let mut writer = Writer::tiny_llama();
    // 32 tokens of hidden size 32 would change all shapes; the value tensor of another size shows the path instead.
    let block: Vec<u8> = [vec![0x00, 0x3C], (0..32).map(|q| (q as i8 - 16) as u8).collect()].concat();
    writer.tensor("token_embd.weight", 8, &[32, 1], block);
    // Sizes no longer fit the config, which is told by name.
    assert!(open(&writer).err().unwrap().to_string().contains("model.embed_tokens.weight (has [1, 32]"));
    let quantised = blocks::to_bf16(Kind::Q8_0, &[vec![0x00, 0x3C], vec![0xFF; 32]].concat());
    assert_eq!(quantised, half::bf16::from_f32(-1.0).to_le_bytes().repeat(32));
}

#[test]
fn what_is_not_implemented_is_refused_by_name() {
    assert!(
        refused(|w| w.text("general.architecture", "qwen3moe"))
            .contains("`qwen3moe` is not supported; supported: llama")
    );
    assert!(refused(|w| w.remove("general.architecture")).contains("general.architecture"));
    assert!(
        refused(|w| w.tensor("token_embd.weight", 10, &[256, 8], vec![0; 2048]))
            .contains("`Q2_K (of token_embd.weight)`")
    );
    assert!(refused(|w| w.tensor("token_embd.weight", 77, &[8, 8], vec![0; 64])).contains("type 77"));
    assert!(refused(|w| w.u32("split.count", 3)).contains("llama-gguf-split"));
    assert!(refused(|w| w.u32("llama.expert_count", 8)).contains("llama.expert_count"));
    assert!(refused(|w| w.u32("llama.rope.dimension_count", 2)).contains("partial rotary"));
    assert!(refused(|w| w.text("llama.rope.scaling.type", "longrope")).contains("`longrope`"));
    assert!(refused(|w| w.f32_tensor("blk.0.attn_q_norm.weight", &[4], &[0.0; 4])).contains("attn_q_norm"));
    assert!(refused(|w| w.f32_tensor("rope_freqs.weight", &[2], &[1.0, 3.0])).contains("rope_freqs.weight"));
    assert!(refused(|w| w.drop_tensor("blk.0.ffn_up.weight")).contains("model.layers.0.mlp.up_proj.weight"));
    assert!(refused(|w| w.drop_tensor("token_embd.weight")).contains("token_embd.weight"));
    assert!(refused(|w| w.i32s("llama.attention.head_count_kv", &[1, 2])).contains("differs between layers"));
    assert!(refused(|w| w.flag("llama.attention.causal", false)).contains("causal"));
    assert!(refused(|w| w.text("llama.block_count", "one")).contains("llama.block_count"));
}

#[test]
fn a_layer_that_is_not_there_is_listed() {
    let error = refused(|writer| writer.u32("llama.block_count", 2));
    assert!(error.contains("lacks the tensors model.layers.1.input_layernorm.weight"), "{error}");
}

#[test]
fn counts_and_offsets_that_lie_are_errors() {
    assert!(refused(|w| w.list("x", 8, u64::MAX, Vec::new())).contains("more than the file has bytes for"));
    assert!(refused(|w| w.list("x", 4, 1 << 40, Vec::new())).contains("more than the file has bytes for"));
    assert!(refused(|w| w.list("x", 99, 1, Vec::new())).contains("unknown type 99"));
    assert!(refused(|w| w.entry("x", 13, Vec::new())).contains("unknown type 13"));
    assert!(refused(|w| w.entry("x", 7, vec![2])).contains("flag with the value 2"));
    assert!(
        refused(|w| w.entry("x", 8, [2_u64.to_le_bytes().to_vec(), vec![0xFF, 0xFE]].concat())).contains("not UTF-8")
    );
    assert!(refused(|w| w.entry("x", 8, u64::MAX.to_le_bytes().to_vec())).contains("the file ends"));
    let nested = [9_u32.to_le_bytes().to_vec(), 1_u64.to_le_bytes().to_vec()].concat().repeat(40);
    assert!(refused(|w| w.list("x", 9, 1, nested)).contains("too deeply"));
    assert!(refused(|w| w.u32("general.alignment", 3)).contains("alignment"));
    assert!(refused(|w| w.tensor("token_embd.weight", 0, &[8, 1 << 40], vec![0; 64])).contains("beyond the end"));
    assert!(
        refused(|w| w.tensor("token_embd.weight", 0, &[1 << 40, 1 << 40], vec![0; 64])).contains("larger than memory")
    );
    assert!(refused(|w| w.tensor("token_embd.weight", 8, &[8, 8], vec![0; 64])).contains("32-element blocks"));
    assert!(refused(|w| w.tensor("token_embd.weight", 0, &[1; 5], vec![0; 64])).contains("5 dimensions"));
}

#[test]
fn a_file_cut_off_anywhere_is_an_error_and_never_a_panic() {
    let mut writer = Writer::tiny_llama();
    writer.texts("tokenizer.ggml.tokens", &["a", "b"]);
    let bytes = writer.bytes();
    assert!(ModelSource::open(file_of(&bytes).path()).is_ok());
    // The last tensor is padded to the alignment; its own bytes end before.
    for length in (0..bytes.len() - 32).step_by(7) {
        assert!(ModelSource::open(file_of(&bytes[..length]).path()).is_err(), "{length} bytes were accepted");
    }
}

#[test]
fn no_single_wrong_byte_panics() {
    let bytes = Writer::tiny_llama().bytes();
    let header = bytes.len() - 2500;
    for position in 0..header {
        for wrong in [0x00, 0x7F, 0xFF] {
            let mut broken = bytes.clone();
            broken[position] = wrong;
            // Some bytes, of a name or a number, may be anything.
            if let Ok((_, tensors, _)) = read(&broken) {
                assert_eq!(tensors.len(), 11);
            }
        }
    }
}

#[test]
fn a_file_of_another_kind_is_told_apart() {
    let error = ModelSource::open(file_of(b"PK\x03\x04 something").path()).err().unwrap().to_string();
    assert!(error.contains("give a GGUF file, or the folder"), "{error}");
    let error = ModelSource::open(Path::new("/nowhere/at/all")).err().unwrap().to_string();
    assert!(error.contains("opening the model `/nowhere/at/all`"), "{error}");
}
