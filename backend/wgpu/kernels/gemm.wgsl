{{- /* Products with many tokens; see gemm.go. */ -}}
{{- $v := . -}}
{{- if .F16}}enable f16;
alias H = f16;
alias H4 = vec4<f16>;
{{- else}}
alias H = f32;
alias H4 = vec4<f32>;
{{- end}}
{{.Helpers}}
{{range .Bound -}}
@group(0) @binding({{.N}}) var<storage, {{.Mode}}> {{.Name}}: {{.Type}};
{{end}}
{{range .Weights}}{{if not .Float}}{{.Functions}}{{end}}{{end}}
// Tiles of weights and of activations: 32 columns a row, and one quartet more so that
// neighbouring rows lie in different banks.
var<workgroup> tw: array<H4, {{mul 9 .TileRows}}>;
{{- if .Quads}}
// Here (column, four tokens).
var<workgroup> tx: array<H4, {{mul 32 (add (div .TileTokens 4) 1)}}>;
{{- else}}
var<workgroup> tx: array<H4, {{mul 9 .TileTokens}}>;
{{- end}}

{{range $p, $w := .Weights}}
// What a thread fetches of a row: 16 weights, half h of group b.
{{- if eq $w.Kind "F32"}}
struct Raw{{$p}} { a: vec4<u32>, b: vec4<u32>, c: vec4<u32>, d: vec4<u32> }
fn fetch{{$p}}(row: u32, b: u32, h: u32) -> Raw{{$p}} {
  let at = row * {{$w.RowVec4s}}u + b * 8u + h * 4u;
  return Raw{{$p}}({{$w.Name}}[at], {{$w.Name}}[at + 1u], {{$w.Name}}[at + 2u], {{$w.Name}}[at + 3u]);
}
fn put{{$p}}(r: Raw{{$p}}, at: u32) {
  tw[at] = H4(bitcast<vec4<f32>>(r.a));
  tw[at + 1u] = H4(bitcast<vec4<f32>>(r.b));
  tw[at + 2u] = H4(bitcast<vec4<f32>>(r.c));
  tw[at + 3u] = H4(bitcast<vec4<f32>>(r.d));
}
{{- else if $w.Float}}
struct Raw{{$p}} { a: vec4<u32>, b: vec4<u32> }
fn fetch{{$p}}(row: u32, b: u32, h: u32) -> Raw{{$p}} {
  let at = row * {{$w.RowVec4s}}u + b * 4u + h * 2u;
  return Raw{{$p}}({{$w.Name}}[at], {{$w.Name}}[at + 1u]);
}
{{- if eq $w.Kind "F16"}}
fn wide{{$p}}(a: u32, b: u32) -> H4 { return H4(vec4<f32>(unpack2x16float(a), unpack2x16float(b))); }
{{- else}}
fn wide{{$p}}(a: u32, b: u32) -> H4 { return H4(bitcast<vec4<f32>>(vec4<u32>(a << 16u, a & 0xffff0000u, b << 16u, b & 0xffff0000u))); }
{{- end}}
fn put{{$p}}(r: Raw{{$p}}, at: u32) {
  tw[at] = wide{{$p}}(r.a.x, r.a.y);
  tw[at + 1u] = wide{{$p}}(r.a.z, r.a.w);
  tw[at + 2u] = wide{{$p}}(r.b.x, r.b.y);
  tw[at + 3u] = wide{{$p}}(r.b.z, r.b.w);
}
{{- else}}
struct Raw{{$p}} { q: vec4<u32>, s: f32, m: f32 }
fn fetch{{$p}}(row: u32, b: u32, h: u32) -> Raw{{$p}} {
  let g = {{$w.Name}}_group(row, b);
  return Raw{{$p}}(select(g.a, g.b, h == 1u), g.s[h], g.m[h]);
}
fn put{{$p}}(r: Raw{{$p}}, at: u32) {
  for (var i = 0u; i < 4u; i++) {
    tw[at + i] = H4(r.s * vec4<f32>(unpack4xI8(r.q[i])){{if $w.Offset}} - r.m{{end}});
  }
}
{{- end}}
{{end}}

{{if .CapText}}{{.SoftText}}{{end}}
fn store(row: u32, t: u32, sum: f32) {
  let at = t * {{.Out}}u + row;
  var v = sum{{if .F16}} * scale[t]{{end}};
{{- template "finish.wgsl" .}}
}

{{if .Quads}}
{{template "gemmquads.wgsl" .}}
{{else}}
{{range $p, $w := .Weights}}
// A tile of part {{$p}}: rows row0 …, tokens t0 … of n. Thread (ix, iy) has every
// ACROSSth row from ix on and every DOWNth token from iy on.
fn tile{{$p}}(row0: u32, t0: u32, n: u32, i: u32) {
  let ix = i % {{$v.Across}}u;
  let iy = i / {{$v.Across}}u;
{{- range $a := seq $v.ThreadRows}}{{range $b := seq $v.ThreadTokens}}
  var f{{$a}}_{{$b}} = 0.0;
{{- end}}{{end}}
{{- range $l := seq $v.WeightLoads}}
  let wr{{$l}} = (i + {{mul $l $v.Threads}}u) >> 1u;
  var r{{$l}} = fetch{{$p}}(min(row0 + wr{{$l}}, {{(index $v.Parts $p).Rows}}u - 1u), 0u, i & 1u);
{{- end}}
{{- range $l := seq $v.TokenLoads}}
  let xr{{$l}} = (i + {{mul $l $v.Threads}}u) >> 3u;
  let xa{{$l}} = min(t0 + xr{{$l}}, n - 1u) * {{div $v.K 4}}u + (i & 7u);
  var x{{$l}} = x[xa{{$l}}];
{{- end}}
  for (var b = 0u; b < {{div $v.K 32}}u; b++) {
    workgroupBarrier();
{{- range $l := seq $v.WeightLoads}}
    put{{$p}}(r{{$l}}, wr{{$l}} * 9u + (i & 1u) * 4u);
{{- end}}
{{- range $l := seq $v.TokenLoads}}
    tx[xr{{$l}} * 9u + (i & 7u)] = x{{$l}};
{{- end}}
    workgroupBarrier();
    // The next tile is on its way while this one is multiplied.
    let next = min(b + 1u, {{div $v.K 32}}u - 1u);
{{- range $l := seq $v.WeightLoads}}
    r{{$l}} = fetch{{$p}}(min(row0 + wr{{$l}}, {{(index $v.Parts $p).Rows}}u - 1u), next, i & 1u);
{{- end}}
{{- range $l := seq $v.TokenLoads}}
    x{{$l}} = x[xa{{$l}} + next * 8u];
{{- end}}
{{- if $v.F16}}
{{- range $a := seq $v.ThreadRows}}{{range $b := seq $v.ThreadTokens}}
    var h{{$a}}_{{$b}} = vec2<f16>();
{{- end}}{{end}}
{{- end}}
    for (var k = 0u; k < 8u; k++) {
{{- range $a := seq $v.ThreadRows}}
      let w{{$a}} = tw[({{mul $a $v.Across}}u + ix) * 9u + k];
{{- end}}
{{- range $b := seq $v.ThreadTokens}}
      let v{{$b}} = tx[({{mul $b $v.Down}}u + iy) * 9u + k];
{{- end}}
{{- range $a := seq $v.ThreadRows}}{{range $b := seq $v.ThreadTokens}}
{{- if $v.F16}}
      h{{$a}}_{{$b}} = fma(w{{$a}}.xy, v{{$b}}.xy, h{{$a}}_{{$b}});
      h{{$a}}_{{$b}} = fma(w{{$a}}.zw, v{{$b}}.zw, h{{$a}}_{{$b}});
{{- else}}
      f{{$a}}_{{$b}} += dot(w{{$a}}, v{{$b}});
{{- end}}
{{- end}}{{end}}
    }
{{- if $v.F16}}
    // Half-precision sums of 16 products go into float32 sums.
{{- range $a := seq $v.ThreadRows}}{{range $b := seq $v.ThreadTokens}}
    f{{$a}}_{{$b}} += f32(h{{$a}}_{{$b}}.x) + f32(h{{$a}}_{{$b}}.y);
{{- end}}{{end}}
{{- end}}
  }
{{- range $b := seq $v.ThreadTokens}}
  if t0 + {{mul $b $v.Down}}u + iy < n {
{{- range $a := seq $v.ThreadRows}}
    if row0 + {{mul $a $v.Across}}u + ix < {{(index $v.Parts $p).Rows}}u { store({{$v.Offset $p}}u + row0 + {{mul $a $v.Across}}u + ix, t0 + {{mul $b $v.Down}}u + iy, f{{$a}}_{{$b}}); }
{{- end}}
  }
{{- end}}
}
{{end}}
{{end}}

@compute @workgroup_size({{.Threads}})
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) i: u32) {
  let n = step[0].{{if .Wanted}}y{{else}}x{{end}};
  let t0 = wg.y * {{.TileTokens}}u;
  if t0 >= n { return; }
{{- range $p, $w := .Weights}}
  {{if $p}} else {{end}}{{if $v.Last $p}}{{else}}if wg.x < {{$v.EndGroup $p}}u {{end}}{
    tile{{$p}}((wg.x{{if $p}} - {{$v.StartGroup $p}}u{{end}}) * {{$v.TileRows}}u, t0, n, i);
  }
{{- end}}
}
