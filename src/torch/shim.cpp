// What tch does not have, behind a C ABI: weights that are never trained, stored small and made dense only while they are
// used. Every function gives null, or a message that the caller frees with `free`.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <exception>
#include <vector>

namespace {

using at::Tensor;

// Numbers that share an absolute maximum in NF4, and maxima that share one in their own quantisation.
constexpr int64_t kBlock = 64;
constexpr int64_t kAbsmaxBlock = 256;

// Quantiles of the normal distribution, zero among them (Dettmers et al. 2023, appendix E).
constexpr std::array<float, 16> kNf4 = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};

int64_t blocks_of(int64_t count, int64_t size) {
  return (count + size - 1) / size;
}

float absmax_of(const float* values, int64_t count) {
  float most = 0.0f;
  for (int64_t i = 0; i < count; ++i) {
    most = std::max(most, std::fabs(values[i]));
  }
  return most;
}

// The signed dynamic map of 8 bits (Dettmers et al. 2022, "8-bit optimizers via block-wise quantization"): seven powers of
// ten, each with twice as many evenly spaced fractions as the one below, then zero and one; sorted.
std::array<float, 256> dynamic_map() {
  std::vector<float> values = {0.0f, 1.0f};
  for (int exponent = 0; exponent < 7; ++exponent) {
    const Tensor bounds = at::linspace(0.1, 1.0, (1 << exponent) + 1, at::kFloat);
    const Tensor means = (bounds.slice(0, 0, -1) + bounds.slice(0, 1)) / 2.0;
    const Tensor scaled = means * std::pow(10.0, exponent - 6);
    const float* data = scaled.const_data_ptr<float>();
    for (int64_t i = 0; i < scaled.numel(); ++i) {
      values.push_back(data[i]);
      values.push_back(-data[i]);
    }
  }
  std::sort(values.begin(), values.end());
  std::array<float, 256> map{};
  std::copy(values.begin(), values.end(), map.begin());
  return map;
}

const std::array<float, 256>& map_of_8_bits() {
  static const std::array<float, 256> map = dynamic_map();
  return map;
}

// Code of a number in [-1, 1], which is first brought to one of 65536 places, as bitsandbytes does on the CPU. Between two
// codes at equal distance the lower one is taken.
uint8_t code_of_8_bits(float value) {
  const auto place = static_cast<int32_t>((value + 1.0f) * 0.5f * 65535.0f + 0.5f);
  const float at_place = -1.0f + 2.0f * static_cast<float>(place) / 65535.0f;
  const auto& map = map_of_8_bits();
  // Equal to the nearest code: how many midpoints lie below.
  int low = 0;
  int high = 255;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (0.5f * (map[middle] + map[middle + 1]) < at_place) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return static_cast<uint8_t>(low);
}

uint8_t code_of_nf4(float value) {
  uint8_t code = 0;
  while (code < 15 && (kNf4[code] + kNf4[code + 1]) / 2.0f < value) {
    ++code;
  }
  return code;
}

Tensor on_host(const Tensor& weight) {
  return weight.detach().to(at::kCPU, at::kFloat).contiguous();
}

// Numbers in [0, n) of a block, their maxima and codes. A last block that is not whole is divided by its maximum, a whole
// one multiplied by its inverse: what bitsandbytes does, which may differ in the last bit.
void quantise_block(const float* values, int64_t count, float* absmax, uint8_t* codes) {
  const float most = absmax_of(values, count);
  const float divisor = std::max(most, 1e-38f);
  *absmax = count == kBlock ? most : divisor;
  const float inverse = 1.0f / divisor;
  for (int64_t i = 0; i < count; ++i) {
    const float scaled = count == kBlock ? values[i] * inverse : values[i] / divisor;
    codes[i] = code_of_nf4(std::clamp(scaled, -1.0f, 1.0f));
  }
}

// Codes, two a byte with the first in the high half, and the maximum of each block.
std::array<Tensor, 2> nf4_blocks(const Tensor& weight) {
  const int64_t count = weight.numel();
  const int64_t blocks = blocks_of(count, kBlock);
  Tensor codes = at::empty({blocks_of(count, 2)}, at::kByte);
  Tensor absmax = at::empty({blocks}, at::kFloat);
  const float* values = weight.const_data_ptr<float>();
  auto* out = codes.mutable_data_ptr<uint8_t>();
  auto* most = absmax.mutable_data_ptr<float>();
  at::parallel_for(0, blocks, 256, [&](int64_t first, int64_t last) {
    for (int64_t block = first; block < last; ++block) {
      const int64_t start = block * kBlock;
      const int64_t size = std::min(kBlock, count - start);
      // Where the last byte is not whole, zero stands in its lower half.
      std::array<uint8_t, kBlock + 1> block_codes;
      block_codes.fill(7);
      quantise_block(values + start, size, most + block, block_codes.data());
      for (int64_t i = 0; i < size; i += 2) {
        out[(start + i) / 2] = static_cast<uint8_t>(block_codes[i] << 4 | block_codes[i + 1]);
      }
    }
  });
  return {codes, absmax};
}

// Maxima less their mean, in the 8-bit map: codes, the maximum of each block of them, and the mean.
std::array<Tensor, 3> quantise_absmax(const Tensor& absmax) {
  const Tensor offset = absmax.mean();
  const Tensor centred = absmax - offset;
  const int64_t count = centred.numel();
  const int64_t blocks = blocks_of(count, kAbsmaxBlock);
  Tensor codes = at::empty({count}, at::kByte);
  Tensor most = at::empty({blocks}, at::kFloat);
  const float* values = centred.const_data_ptr<float>();
  auto* out = codes.mutable_data_ptr<uint8_t>();
  auto* most_of = most.mutable_data_ptr<float>();
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t start = block * kAbsmaxBlock;
    const int64_t end = std::min(start + kAbsmaxBlock, count);
    const float largest = absmax_of(values + start, end - start);
    most_of[block] = largest;
    const float inverse = 1.0f / largest;
    for (int64_t i = start; i < end; ++i) {
      out[i] = largest == 0.0f ? 0 : code_of_8_bits(std::clamp(values[i] * inverse, -1.0f, 1.0f));
    }
  }
  return {codes, most, offset.reshape({1})};
}

// Codes `round(127 w / absmax)` by rows, and the maxima. No copy of the weight is made on the way: what is kept would come to
// lie between the holes of such copies, and loading would take more than it saves.
std::array<Tensor, 2> int8_rows(const Tensor& weight) {
  const int64_t rows = weight.size(0);
  const int64_t columns = weight.size(1);
  Tensor codes = at::empty({rows, columns}, at::kChar);
  Tensor absmax = at::empty({rows}, at::kFloat);
  const float* values = weight.const_data_ptr<float>();
  auto* out = codes.mutable_data_ptr<int8_t>();
  auto* most = absmax.mutable_data_ptr<float>();
  at::parallel_for(0, rows, 16, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      const float* from = values + row * columns;
      most[row] = absmax_of(from, columns);
      // A row of zeros has no scale; any finite one leaves it as it is.
      const float scale = most[row] == 0.0f ? 0.0f : (1.0f / most[row]) * 127.0f;
      for (int64_t i = 0; i < columns; ++i) {
        out[row * columns + i] = static_cast<int8_t>(std::nearbyint(from[i] * scale));
      }
    }
  });
  return {codes, absmax};
}

enum class Format : int64_t { Bf16 = 0, Int8 = 1, Nf4 = 2 };

// A matrix [out_features, in_features] as it is stored. The parts are
// - bf16: the matrix;
// - int8: codes, [out_features, in_features]; the absolute maximum of each row, [out_features];
// - NF4: codes, two a byte; codes of the blocks' maxima; maxima of those; their mean, [1].
struct Frozen {
  Format format;
  std::array<int64_t, 2> size;
  std::array<Tensor, 4> parts;
};

Tensor absmax_of_blocks(const Frozen& frozen) {
  const auto& map = map_of_8_bits();
  const int64_t count = frozen.parts[1].numel();
  Tensor out = at::empty({count}, at::kFloat);
  const auto* codes = frozen.parts[1].const_data_ptr<uint8_t>();
  const auto* most = frozen.parts[2].const_data_ptr<float>();
  const float offset = *frozen.parts[3].const_data_ptr<float>();
  auto* values = out.mutable_data_ptr<float>();
  for (int64_t i = 0; i < count; ++i) {
    values[i] = map[codes[i]] * most[i / kAbsmaxBlock] + offset;
  }
  return out;
}

template <typename T>
void fill_from_nf4(const Frozen& frozen, Tensor& out) {
  const int64_t count = out.numel();
  const Tensor absmax = absmax_of_blocks(frozen);
  const auto* codes = frozen.parts[0].const_data_ptr<uint8_t>();
  const auto* most = absmax.const_data_ptr<float>();
  auto* values = out.mutable_data_ptr<T>();
  at::parallel_for(0, absmax.numel(), 512, [&](int64_t first, int64_t last) {
    std::array<T, 16> of_code;
    for (int64_t block = first; block < last; ++block) {
      for (size_t code = 0; code < of_code.size(); ++code) {
        of_code[code] = static_cast<T>(kNf4[code] * most[block]);
      }
      const int64_t end = std::min((block + 1) * kBlock, count);
      for (int64_t i = block * kBlock; i < end; i += 2) {
        const uint8_t pair = codes[i / 2];
        values[i] = of_code[pair >> 4];
        if (i + 1 < end) {
          values[i + 1] = of_code[pair & 15];
        }
      }
    }
  });
}

// The same on any device and in any type, by operations that libtorch has for it.
Tensor nf4_by_operations(const Frozen& frozen, at::ScalarType kind) {
  const auto device = frozen.parts[0].device();
  const auto table = [&](const float* values, int64_t count) {
    return at::tensor(at::ArrayRef<float>(values, count), at::kFloat).to(device);
  };
  const Tensor spread = frozen.parts[2].repeat_interleave(kAbsmaxBlock).narrow(0, 0, frozen.parts[1].numel());
  const Tensor of_code = table(map_of_8_bits().data(), 256).index_select(0, frozen.parts[1].to(at::kInt));
  const Tensor absmax = (of_code * spread).add_(frozen.parts[3]);
  const Tensor& pairs = frozen.parts[0];
  const int64_t count = frozen.size[0] * frozen.size[1];
  const Tensor codes = at::stack({at::bitwise_right_shift(pairs, 4), at::bitwise_and(pairs, 15)}, 1).flatten();
  Tensor values = table(kNf4.data(), 16).index_select(0, codes.to(at::kInt)).narrow(0, 0, count);
  if (count % kBlock == 0) {
    values.view({-1, kBlock}).mul_(absmax.unsqueeze(1));
  } else {
    values.mul_(absmax.repeat_interleave(kBlock).narrow(0, 0, count));
  }
  return values.view({frozen.size[0], frozen.size[1]}).to(kind);
}

// Room for a dense matrix. On the host it is the same room each time: if each were allocated, what a pass keeps would be put
// into the holes that they leave, and the heap would grow by nearly the whole model.
Tensor room_for(const Frozen& frozen, at::ScalarType kind) {
  const auto device = frozen.parts[0].device();
  const int64_t count = frozen.size[0] * frozen.size[1];
  if (!device.is_cpu()) {
    return at::empty({frozen.size[0], frozen.size[1]}, at::TensorOptions(device).dtype(kind));
  }
  thread_local Tensor room;
  if (!room.defined() || room.numel() < count || room.scalar_type() != kind) {
    room = Tensor();
    room = at::empty({count}, kind);
  }
  return room.narrow(0, 0, count).view({frozen.size[0], frozen.size[1]});
}

Tensor nf4_matrix(const Frozen& frozen, at::ScalarType kind) {
  if (!frozen.parts[0].is_cpu() || (kind != at::kFloat && kind != at::kBFloat16)) {
    return nf4_by_operations(frozen, kind);
  }
  Tensor out = room_for(frozen, kind);
  if (kind == at::kFloat) {
    fill_from_nf4<float>(frozen, out);
  } else {
    fill_from_nf4<at::BFloat16>(frozen, out);
  }
  return out;
}

// The dense matrix. It is gone with the next one of this thread; see `room_for`.
Tensor matrix_of(const Frozen& frozen, at::ScalarType kind) {
  switch (frozen.format) {
    case Format::Bf16:
      return room_for(frozen, kind).copy_(frozen.parts[0]);
    case Format::Int8: {
      // As `Linear8bitLt` makes its weights dense: the row's maximum over 127, as a factor.
      const Tensor rows = room_for(frozen, at::kFloat).copy_(frozen.parts[0]);
      return rows.mul_(frozen.parts[1].unsqueeze(1)).mul_(7.874015718698502e-3).to(kind);
    }
    case Format::Nf4:
      return nf4_matrix(frozen, kind);
  }
  TORCH_CHECK(false, "no such format");
}

// x W^T + b for a frozen W. The dense W lives while the product is computed, in the forward pass and once more in the
// backward pass; x is not needed for its own gradient and is not kept.
struct FrozenLinear : public torch::autograd::Function<FrozenLinear> {
  static Tensor forward(
      torch::autograd::AutogradContext* context,
      const Tensor& x,
      const std::optional<Tensor>& bias,
      const Frozen& frozen) {
    context->save_for_backward({frozen.parts.begin(), frozen.parts.end()});
    context->saved_data["format"] = static_cast<int64_t>(frozen.format);
    context->saved_data["rows"] = frozen.size[0];
    context->saved_data["columns"] = frozen.size[1];
    return at::linear(x, matrix_of(frozen, x.scalar_type()), bias);
  }

  static torch::autograd::variable_list backward(
      torch::autograd::AutogradContext* context,
      const torch::autograd::variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    Frozen frozen{
        static_cast<Format>(context->saved_data["format"].toInt()),
        {context->saved_data["rows"].toInt(), context->saved_data["columns"].toInt()},
        {}};
    std::copy(saved.begin(), saved.end(), frozen.parts.begin());
    const Tensor& by_y = gradients[0];
    return {by_y.matmul(matrix_of(frozen, by_y.scalar_type())), Tensor(), Tensor()};
  }
};

template <typename F>
char* guarded(F&& work) {
  try {
    work();
    return nullptr;
  } catch (const std::exception& error) {
    return strdup(error.what());
  } catch (...) {
    return strdup("an exception that is none of the standard library's");
  }
}

} // namespace

// A `Frozen` as the caller holds it; null stands for a part that the format does not have.
struct FinetunedFrozen {
  int64_t format;
  int64_t rows;
  int64_t columns;
  const Tensor* parts[4];
};

namespace {

Frozen read(const FinetunedFrozen* given) {
  Frozen frozen{static_cast<Format>(given->format), {given->rows, given->columns}, {}};
  for (size_t i = 0; i < frozen.parts.size(); ++i) {
    if (given->parts[i] != nullptr) {
      frozen.parts[i] = *given->parts[i];
    }
  }
  return frozen;
}

} // namespace

extern "C" {

// Codes, codes of the blocks' maxima, maxima of those, and their mean, all on the host.
char* finetuned_quantise_nf4(const Tensor* weight, Tensor** parts) {
  return guarded([&] {
    const at::NoGradGuard no_gradients;
    const Tensor values = on_host(*weight);
    const auto [codes, absmax] = nf4_blocks(values);
    const auto [absmax_codes, most, offset] = quantise_absmax(absmax);
    const std::array<Tensor, 4> made = {codes, absmax_codes, most, offset};
    for (size_t i = 0; i < made.size(); ++i) {
      parts[i] = new Tensor(made[i]);
    }
  });
}

// Codes and the rows' maxima, on the host.
char* finetuned_quantise_int8(const Tensor* weight, Tensor** parts) {
  return guarded([&] {
    const at::NoGradGuard no_gradients;
    const auto [codes, absmax] = int8_rows(on_host(*weight));
    parts[0] = new Tensor(codes);
    parts[1] = new Tensor(absmax);
  });
}

char* finetuned_frozen_matrix(const FinetunedFrozen* frozen, bool as_bf16, Tensor** out) {
  return guarded([&] {
    const at::NoGradGuard no_gradients;
    *out = new Tensor(matrix_of(read(frozen), as_bf16 ? at::kBFloat16 : at::kFloat).clone());
  });
}

char* finetuned_frozen_linear(const Tensor* x, const FinetunedFrozen* frozen, const Tensor* bias, Tensor** out) {
  return guarded([&] {
    const auto maybe_bias = bias == nullptr ? std::nullopt : std::optional<Tensor>(*bias);
    *out = new Tensor(FrozenLinear::apply(*x, maybe_bias, read(frozen)));
  });
}
}
