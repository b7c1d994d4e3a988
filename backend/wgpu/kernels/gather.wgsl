{{- /* The sums of products that were divided along the columns; see halfmul.go. */ -}}
{{range .Bound -}}
@group(0) @binding({{.N}}) var<storage, {{.Mode}}> {{.Name}}: {{.Type}};
{{end}}
const QUADS = {{div .Rows 4}}u; // of a token
{{- if .CapText}}
{{.SoftText}}
{{- end}}
@compute @workgroup_size({{.Threads}})
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) i: u32, @builtin(num_workgroups) grid: vec3<u32>) {
  let total = step[0].{{if .Wanted}}y{{else}}x{{end}} * QUADS;
  for (var e = (wg.y * grid.x + wg.x) * {{.Threads}}u + i; e < total; e += grid.x * grid.y * {{.Threads}}u) {
    // Always in the same order.
    var v = parts[e];
    for (var s = 1u; s < grid.y; s++) { v += parts[s * total + e]; }
    let row = e % QUADS + {{div .First 4}}u;
    let at = e / QUADS * {{div .Out 4}}u + row;
{{- template "finish.wgsl" .}}
  }
}
