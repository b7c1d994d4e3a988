{{- /* Packed weights as half-precision numbers; see halfmul.go. */ -}}
enable f16;
// Eight numbers that are stored at once.
struct H8 { @align(16) a: vec4<f16>, b: vec4<f16> }
{{.Helpers}}
{{range .Bound -}}
@group(0) @binding({{.N}}) var<storage, {{.Mode}}> {{.Name}}: {{.Type}};
{{end}}
{{- with .Weight}}{{if not .Float}}{{.Functions}}{{end}}{{end}}
const GROUPS = {{div .K 32}}u; // of a row
@compute @workgroup_size({{.Threads}})
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) i: u32) {
  // A thread makes eight numbers, a quarter of a group.
  let id = (wg.y * {{index .Grid 0}}u + wg.x) * {{.Threads}}u + i;
  let row = id / (4u * GROUPS);
  if row >= {{.Rows}}u { return; }
  let b = (id >> 2u) % GROUPS;
  let part = id & 3u;
  let at = ({{.First}}u + row) * {{div .K 8}}u + 4u * b + part;
{{- if eq .Weight.Kind "F32"}}
  let e = row * {{.Weight.RowVec4s}}u + 8u * b + 2u * part;
  y[at] = H8(vec4<f16>(bitcast<vec4<f32>>(w[e])), vec4<f16>(bitcast<vec4<f32>>(w[e + 1u])));
{{- else if .Weight.Float}}
  let e = w[row * {{.Weight.RowVec4s}}u + 4u * b + part];
{{- if eq .Weight.Kind "F16"}}
  y[at] = H8(vec4<f16>(vec4<f32>(unpack2x16float(e.x), unpack2x16float(e.y))), vec4<f16>(vec4<f32>(unpack2x16float(e.z), unpack2x16float(e.w))));
{{- else}}
  y[at] = H8(vec4<f16>(bitcast<vec4<f32>>(vec4<u32>(e.x << 16u, e.x & 0xffff0000u, e.y << 16u, e.y & 0xffff0000u))),
    vec4<f16>(bitcast<vec4<f32>>(vec4<u32>(e.z << 16u, e.z & 0xffff0000u, e.w << 16u, e.w & 0xffff0000u))));
{{- end}}
{{- else}}
  let g = w_group(row, b);
  let four = select(g.a, g.b, part > 1u);
  let q = select(four.xy, four.zw, (part & 1u) == 1u);
  let s = select(g.s.x, g.s.y, part > 1u);
{{- if .Weight.Offset}}
  let m = select(g.m.x, g.m.y, part > 1u);
{{- end}}
  y[at] = H8(vec4<f16>(s * vec4<f32>(unpack4xI8(q.x)){{if .Weight.Offset}} - m{{end}}), vec4<f16>(s * vec4<f32>(unpack4xI8(q.y)){{if .Weight.Offset}} - m{{end}}));
{{- end}}
}
