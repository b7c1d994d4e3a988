{{- /* Brings the parts of split attention together; see attend.go. */ -}}
{{range .Bound -}}
@group(0) @binding({{.N}}) var<storage, {{.Mode}}> {{.Name}}: {{.Type}};
{{end}}
const DIM = {{.HeadDim}}u;
{{- if .Quantise}}
var<workgroup> top: array<u32, DIM>;
var<workgroup> nums: array<i32, DIM>;
{{- end}}
@compute @workgroup_size({{.HeadDim}})
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) i: u32) {
  let head = wg.x;
  let row = span.x + wg.z;
  let end = min(step[1u + row].y + 1u, span.z);
{{- if .Window}}
  let begin = end - min(end, {{.Window}}u);
{{- else}}
  let begin = 0u;
{{- end}}
  let tiles = (end - begin + {{.Keys}}u - 1u) / {{.Keys}}u;
  let piece = max((tiles + {{.Splits}}u - 1u) / {{.Splits}}u, {{.MinTiles}}u);
  let n = (tiles + piece - 1u) / piece;
  let at = (wg.z * {{.AllHeads}}u + head) * {{mul .Splits .Part}}u;
  var m = -3.0e38;
  for (var s = 0u; s < n; s++) { m = max(m, parts[at + s * {{.Part}}u]); }
  var sum = 0.0;
  var v = 0.0;
  for (var s = 0u; s < n; s++) {
    let w = exp(parts[at + s * {{.Part}}u] - m);
    sum += w * parts[at + s * {{.Part}}u + 1u];
    v += w * parts[at + s * {{.Part}}u + 4u + i];
  }
  v = v / sum;
{{- if .Quantise}}
  let g = i & 0xffffffe0u;
  top[i] = bitcast<u32>(v) & 0x7fffffffu;
  workgroupBarrier();
  var bits = 0u;
  for (var j = 0u; j < 32u; j++) { bits = max(bits, top[g + j]); }
  let largest = bitcast<f32>(bits);
  // Numbers below 1e-30 count as zero: their reciprocal could overflow.
  let scale = select(0.0, largest * (1.0 / 32512.0), largest > 1e-30);
  nums[i] = i32(round(v * select(0.0, 32512.0 / largest, largest > 1e-30)));
  workgroupBarrier();
  // The first eight threads of 32 write four elements each.
  let j = i - g;
  if j < 8u {
    let f = g + 4u * j;
    let num = vec4<i32>(nums[f], nums[f + 1u], nums[f + 2u], nums[f + 3u]);
    let hi = (num + vec4<i32>(128)) >> vec4<u32>(8u);
    let b = (head * DIM + g) / 32u;
    let word = row * {{.QuantWords}}u + ((j >> 2u) * {{.Groups}}u + b) * 4u + (j & 3u);
    y[word] = pack4xI8(hi);
    y[word + {{mul .Groups 8}}u] = pack4xI8(num - hi * 256);
    if j == 0u {
      var t = 0;
      for (var k = 0u; k < 32u; k++) { t += nums[g + k]; }
      let s = bitcast<u32>(scale) | select(0u, 0x7fc00000u, bits >= 0x7f800000u);
      y[row * {{.QuantWords}}u + {{mul .Groups 16}}u + 2u * b] = s;
      y[row * {{.QuantWords}}u + {{mul .Groups 16}}u + 2u * b + 1u] = bitcast<u32>(bitcast<f32>(s) * f32(t));
    }
  }
{{- else}}
  y[row * {{mul .AllHeads .HeadDim}}u + head * DIM + i] = v;
{{- end}}
}
