// A group of 32 weights: quartet i (weights 4i … 4i+3) is four signed bytes in a[i] or
// b[i-4]; a weight is s·q − m, with s.x, m.x for a and s.y, m.y for b.
struct Group { a: vec4<u32>, b: vec4<u32>, s: vec2<f32>, m: vec2<f32> }

fn half_of(h: u32) -> f32 { return unpack2x16float(h).x; }
// the lower halves of bytes
fn low_of(n: vec4<u32>) -> vec4<u32> { return n & vec4<u32>(0x0f0f0f0fu); }
// the first or last four quartets of one bit, of two bits
fn one_of(t: u32) -> vec4<u32> { return (vec4<u32>(t) >> vec4<u32>(0u, 1u, 2u, 3u)) & vec4<u32>(0x01010101u); }
fn two_of(t: u32) -> vec4<u32> { return (vec4<u32>(t) >> vec4<u32>(0u, 2u, 4u, 6u)) & vec4<u32>(0x03030303u); }
// the two 6-bit numbers of group g of a head
fn head_of(h: vec4<u32>, g: u32) -> vec2<u32> {
  let byte = (select(h.y, h.z, g > 3u) >> (8u * (g & 3u))) & 255u;
  return vec2<u32>(byte & 63u, (byte >> 6u) | (((h.w >> (4u * g)) & 15u) << 2u));
}
// signed byte c of a word
fn byte_of(w: u32, c: u32) -> i32 { return (bitcast<i32>(w << (24u - 8u * c))) >> 24u; }
// the levels of four indices of the IQ4 formats, one in each half of the lower 16 bits
fn iq4_of(n: u32) -> u32 {
  let i = (vec4<u32>(n) >> vec4<u32>(0u, 4u, 8u, 12u)) & vec4<u32>(15u);
  let up = (i & vec4<u32>(4u)) != vec4<u32>(0u);
  let low = select(vec4<u32>(0xbfad9881u), vec4<u32>(0xf6eaddcfu), up);
  let high = select(vec4<u32>(0x26190d01u), vec4<u32>(0x71594535u), up);
  let w = select(low, high, (i & vec4<u32>(8u)) != vec4<u32>(0u));
  let l = (w >> ((i & vec4<u32>(3u)) * 8u)) & vec4<u32>(255u);
  return l.x | (l.y << 8u) | (l.z << 16u) | (l.w << 24u);
}
fn iq4_pair(n: u32) -> vec2<u32> { return vec2<u32>(iq4_of(n), iq4_of(n >> 16u)); }
// products of 16 signed bytes; the sum of 16
fn dot16(w: vec4<u32>, x: vec4<u32>) -> i32 {
  return dot4I8Packed(w.x, x.x) + dot4I8Packed(w.y, x.y) + dot4I8Packed(w.z, x.z) + dot4I8Packed(w.w, x.w);
}
fn sum16(x: vec4<u32>) -> i32 { return dot16(vec4<u32>(0x01010101u), x); }
