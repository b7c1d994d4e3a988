{{- /* Rows of activations as half-precision numbers; see halve.go. */ -}}
{{- if .F16}}enable f16;{{end}}
{{range .Bound -}}
@group(0) @binding({{.N}}) var<storage, {{.Mode}}> {{.Name}}: {{.Type}};
{{end}}
const QUADS = {{.Quads}}u; // of a row
const THREADS = {{.Threads}}u;
var<workgroup> part: array<f32, THREADS>;
{{- if .F16}}
var<workgroup> top: array<u32, THREADS>;
{{- end}}
{{- if .Act}}
{{.ActText}}
fn number(row: u32, c: u32) -> vec4<f32> {
  let at = row * {{div .XWidth 4}}u + c;
  let g = x[at];
  return vec4<f32>(act(g.x), act(g.y), act(g.z), act(g.w)) * x[at + QUADS];
}
{{- else}}
fn number(row: u32, c: u32) -> vec4<f32> { return x[{{if .Wanted}}step[1u + row].w{{else}}row{{end}} * {{div .XWidth 4}}u + c]; }
{{- end}}
@compute @workgroup_size({{.Threads}})
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) i: u32) {
  let row = wg.x;
  var inv = 1.0;
{{- if .Norm}}
  var ss = 0.0;
  for (var c = i; c < QUADS; c += THREADS) { let v = number(row, c); ss += dot(v, v); }
  part[i] = ss;
  workgroupBarrier();
  for (var n = THREADS >> 1u; n > 0u; n >>= 1u) {
    if i < n { part[i] += part[i + n]; }
    workgroupBarrier();
  }
  inv = 1.0 / sqrt(part[0] / {{.Quads}}.0 * 0.25 + {{.EpsText}});
{{- end}}
{{- if .F16}}
  var m = vec4<u32>();
  for (var c = i; c < QUADS; c += THREADS) {
    m = max(m, bitcast<vec4<u32>>(number(row, c) * inv{{if .Norm}} * w[c]{{end}}) & vec4<u32>(0x7fffffffu));
  }
  top[i] = max(max(m.x, m.y), max(m.z, m.w));
  workgroupBarrier();
  for (var n = THREADS >> 1u; n > 0u; n >>= 1u) {
    if i < n { top[i] = max(top[i], top[i + n]); }
    workgroupBarrier();
  }
  // The largest number gets the exponent 5: sums of 32 products with weights below 32
  // cannot overflow. e is the exponent of the row's scale.
  let e = clamp(i32(top[0] >> 23u) - 127 - 5, -120, 120);
  let down = bitcast<f32>(u32(127 - e) << 23u);
  if i == 0u { scale[row] = bitcast<f32>((u32(127 + e) << 23u) | select(0u, 0x7fc00000u, top[0] >= 0x7f800000u)); }
  for (var c = i; c < QUADS; c += THREADS) { y[row * QUADS + c] = vec4<f16>(number(row, c) * inv{{if .Norm}} * w[c]{{end}} * down); }
{{- else}}
  for (var c = i; c < QUADS; c += THREADS) { y[row * QUADS + c] = number(row, c) * inv{{if .Norm}} * w[c]{{end}}; }
{{- end}}
}
