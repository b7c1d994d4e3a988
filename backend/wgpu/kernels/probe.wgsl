// 0: all sizes or'ed; 1: their complements or'ed; 2: threads out of order; 3: wrong shuffles
@group(0) @binding(0) var<storage, read_write> out: array<atomic<u32>, 4>;
@compute @workgroup_size(128)
fn main(@builtin(local_invocation_index) i: u32, @builtin(subgroup_size) size: u32, @builtin(subgroup_invocation_id) lane: u32) {
  atomicOr(&out[0], size);
  atomicOr(&out[1], ~size);
  if (i & (size - 1u)) != lane { atomicAdd(&out[2], 1u); }
  for (var n = 1u; n < size; n <<= 1u) {
    if subgroupShuffleXor(i, n) != (i ^ n) { atomicAdd(&out[3], 1u); }
  }
}
