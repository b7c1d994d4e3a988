{{- /* Rows of activations as 16-bit integers; see quantize.go. */ -}}
{{- if .Step}}
// (tokens, …), then for each row (token, position, index, row of the wanted logits)
@group(0) @binding(0) var<storage, read> step: array<vec4<u32>>;
{{- end}}
@group(0) @binding({{.At "x"}}) var<storage, read> x: array<vec4<f32>>;
{{- if .Norm}}
@group(0) @binding({{.At "w"}}) var<storage, read> w: array<vec4<f32>>;
{{- end}}
@group(0) @binding({{.At "q"}}) var<storage, read_write> q: array<u32>;

const QUADS = {{.Quads}}u; // of a row
const THREADS = {{.Threads}}u;
var<workgroup> part: array<f32, THREADS>;
var<workgroup> top: array<u32, THREADS>;
var<workgroup> sum: array<i32, THREADS>;

@compute @workgroup_size({{.Threads}})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
  let start = {{if .Wanted}}step[1u + group.x].w{{else}}group.x{{end}} * QUADS;
  let dest = group.x * {{.RowWords}}u;
{{- if .Norm}}
  var ss = 0.0;
  for (var c = i; c < QUADS; c += THREADS) { let v = x[start + c]; ss += dot(v, v); }
  part[i] = ss;
  workgroupBarrier();
  // The tree adds in the same order on every device.
  for (var n = THREADS >> 1u; n > 0u; n >>= 1u) {
    if i < n { part[i] += part[i + n]; }
    workgroupBarrier();
  }
  let inv = 1.0 / sqrt(part[0] / {{.Quads}}.0 * 0.25 + {{.EpsText}});
{{- end}}
  for (var c0 = 0u; c0 < QUADS; c0 += THREADS) {
    let c = c0 + i;
    let inside = c < QUADS;
    var v = vec4<f32>();
    if inside { v = x[start + c]{{if .Norm}} * inv * w[c]{{end}}; }
    // As bits, so that NaN and infinity are the largest.
    let m = bitcast<vec4<u32>>(v) & vec4<u32>(0x7fffffffu);
    top[i] = max(max(m.x, m.y), max(m.z, m.w));
    workgroupBarrier();
    let g = i & 0xfffffff8u; // first of the eight threads of 32 numbers
    let bits = max(max(max(top[g], top[g + 1u]), max(top[g + 2u], top[g + 3u])), max(max(top[g + 4u], top[g + 5u]), max(top[g + 6u], top[g + 7u])));
    let largest = bitcast<f32>(bits);
    // Numbers below 1e-30 count as zero: their reciprocal could overflow.
    let scale = select(0.0, largest * (1.0 / 32512.0), largest > 1e-30);
    let n = vec4<i32>(round(v * select(0.0, 32512.0 / largest, largest > 1e-30)));
    let hi = (n + vec4<i32>(128)) >> vec4<u32>(8u);
    let lo = n - hi * 256;
    sum[i] = n.x + n.y + n.z + n.w;
    workgroupBarrier();
    if inside {
      let b = c >> 3u;
      let h = (c >> 2u) & 1u; // which half of the 32
      let word = dest + (h * {{.Groups}}u + b) * 4u + (c & 3u);
      q[word] = pack4xI8(hi);
      q[word + {{mul .Groups 8}}u] = pack4xI8(lo);
      if i == g {
        let total = sum[i] + sum[i + 1u] + sum[i + 2u] + sum[i + 3u] + sum[i + 4u] + sum[i + 5u] + sum[i + 6u] + sum[i + 7u];
        let at = dest + {{mul .Groups 16}}u + b * 2u;
        let bad = bits >= 0x7f800000u;
        // Garbage must not turn into numbers: the scale of such a group is NaN.
        let s = bitcast<u32>(scale) | select(0u, 0x7fc00000u, bad);
        q[at] = s;
        q[at + 1u] = bitcast<u32>(bitcast<f32>(s) * f32(total));
      }
    }
  }
}
