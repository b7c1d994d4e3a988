{{- /* Products of half-precision matrices with many tokens; see halfmul.go. */ -}}
{{- $v := . -}}
enable f16;
// Eight numbers that are fetched at once.
struct H8 { @align(16) a: vec4<f16>, b: vec4<f16> }
{{range .Bound -}}
@group(0) @binding({{.N}}) var<storage, {{.Mode}}> {{.Name}}: {{.Type}};
{{end}}
const K8 = {{div .K 8}}u; // of a row
// Tiles of weights and of activations: (pair of columns, four rows), and four rows more
// so that what neighbouring threads store lies in different banks.
const WROW = {{add (div .TileRows 4) 1}}u;
const XROW = {{add (div .TileTokens 4) 1}}u;
var<workgroup> tw: array<H8, {{mul 16 (add (div .TileRows 4) 1)}}>;
var<workgroup> tx: array<H8, {{mul 16 (add (div .TileTokens 4) 1)}}>;
{{if .CapText}}{{.SoftText}}{{end}}
{{- if .Split}}
// Four rows at once, of one of the sums that Gather adds up.
fn store(row: u32, t: u32, sum: vec4<f32>, at: u32) {
  y[(at + t * {{.Rows}}u + row) / 4u] = sum * scale[t];
}
{{- else if .Fours}}
// Four rows at once.
fn store(first: u32, t: u32, sum: vec4<f32>) {
  let row = ({{.First}}u + first) / 4u;
  let at = t * {{div .Out 4}}u + row;
  var v = sum * scale[t];
{{- template "finish.wgsl" .}}
}
{{- else}}
fn store(first: u32, t: u32, sum: f32) {
  let row = {{.First}}u + first;
  let at = t * {{.Out}}u + row;
  var v = sum * scale[t];
{{- template "finish.wgsl" .}}
}
{{- end}}

@compute @workgroup_size({{.Threads}})
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) i: u32{{if .Split}}, @builtin(num_workgroups) grid: vec3<u32>{{end}}) {
  let n = step[0].{{if .Wanted}}y{{else}}x{{end}};
  let t0 = wg.x * {{.TileTokens}}u;
  let row0 = wg.y * {{.TileRows}}u;
  if t0 >= n { return; }
{{- if .Split}}
  // This workgroup's columns, in blocks of 32; none if they do not go round.
  let share = ({{div .K 32}}u + grid.z - 1u) / grid.z;
  let begin = min(wg.z * share, {{div .K 32}}u);
  let end = min(begin + share, {{div .K 32}}u);
  let start = 4u * min(begin, {{div .K 32}}u - 1u);
{{- end}}
  // A subgroup is 8 × 4 threads of the tile.
  let ix = (i & 7u) + 8u * ((i >> 5u) % {{div .Across 8}}u);
  let iy = ((i >> 3u) & 3u) + 4u * ((i >> 5u) / {{div .Across 8}}u);
{{- range $a := seq .ThreadRows}}{{range $b := seq $v.ThreadTokens}}
  var f{{$a}}_{{$b}} = 0.0;
{{- end}}{{end}}
  // A thread fetches eight columns of four rows.
{{- range $l := seq .WeightLoads}}
  let wi{{$l}} = {{$v.Unit $l $v.TileRows}};
  let wc{{$l}} = (wi{{$l}} & 1u) + 2u * (wi{{$l}} / {{div $v.TileRows 2}}u);
  let wq{{$l}} = (wi{{$l}} >> 1u) % {{div $v.TileRows 4}}u;
{{- range $r := seq 4}}
  let wa{{$l}}_{{$r}} = min(row0 + 4u * wq{{$l}} + {{$r}}u, {{$v.Rows}}u - 1u) * K8 + wc{{$l}}{{if $v.Split}} + start{{end}};
  var gw{{$l}}_{{$r}} = w[wa{{$l}}_{{$r}}];
{{- end}}
{{- end}}
{{- range $l := seq .TokenLoads}}
  let xi{{$l}} = {{$v.Unit $l $v.TileTokens}};
  let xc{{$l}} = (xi{{$l}} & 1u) + 2u * (xi{{$l}} / {{div $v.TileTokens 2}}u);
  let xq{{$l}} = (xi{{$l}} >> 1u) % {{div $v.TileTokens 4}}u;
{{- range $r := seq 4}}
  let xa{{$l}}_{{$r}} = min(t0 + 4u * xq{{$l}} + {{$r}}u, n - 1u) * K8 + xc{{$l}}{{if $v.Split}} + start{{end}};
  var gx{{$l}}_{{$r}} = x[xa{{$l}}_{{$r}}];
{{- end}}
{{- end}}
  for (var b = {{if .Split}}begin; b < end{{else}}0u; b < {{div .K 32}}u{{end}}; b++) {
    workgroupBarrier();
{{- range $l := seq .WeightLoads}}
{{- range $p := seq 4}}
    tw[(4u * wc{{$l}} + {{$p}}u) * WROW + wq{{$l}}] = H8(vec4<f16>(gw{{$l}}_0.{{$v.Pair $p}}, gw{{$l}}_1.{{$v.Pair $p}}), vec4<f16>(gw{{$l}}_2.{{$v.Pair $p}}, gw{{$l}}_3.{{$v.Pair $p}}));
{{- end}}
{{- end}}
{{- range $l := seq .TokenLoads}}
{{- range $p := seq 4}}
    tx[(4u * xc{{$l}} + {{$p}}u) * XROW + xq{{$l}}] = H8(vec4<f16>(gx{{$l}}_0.{{$v.Pair $p}}, gx{{$l}}_1.{{$v.Pair $p}}), vec4<f16>(gx{{$l}}_2.{{$v.Pair $p}}, gx{{$l}}_3.{{$v.Pair $p}}));
{{- end}}
{{- end}}
    workgroupBarrier();
    // The next tile is on its way while this one is multiplied.
    let next = 4u * min(b + 1u, {{div .K 32}}u - 1u){{if .Split}} - start{{end}};
{{- range $l := seq .WeightLoads}}{{range $r := seq 4}}
    gw{{$l}}_{{$r}} = w[wa{{$l}}_{{$r}} + next];
{{- end}}{{end}}
{{- range $l := seq .TokenLoads}}{{range $r := seq 4}}
    gx{{$l}}_{{$r}} = x[xa{{$l}}_{{$r}} + next];
{{- end}}{{end}}
{{- range $a := seq .ThreadRows}}{{range $b := seq $v.ThreadTokens}}
    var h{{$a}}_{{$b}} = vec2<f16>();
{{- end}}{{end}}
    for (var k = 0u; k < 16u; k++) {
{{- range $a := seq (div .ThreadRows 4)}}
      let w{{$a}} = tw[k * WROW + ix + {{mul $a $v.Across}}u];
{{- end}}
{{- range $b := seq (div .ThreadTokens 4)}}
      let v{{$b}} = tx[k * XROW + iy + {{mul $b $v.Down}}u];
{{- end}}
{{- range $a := seq .ThreadRows}}{{range $b := seq $v.ThreadTokens}}
      h{{$a}}_{{$b}} = fma(w{{div $a 4}}.{{$v.Pair $a}}, v{{div $b 4}}.{{$v.Pair $b}}, h{{$a}}_{{$b}});
{{- end}}{{end}}
    }
    // Half-precision sums of 16 products go into float32 sums.
{{- range $a := seq .ThreadRows}}{{range $b := seq $v.ThreadTokens}}
    f{{$a}}_{{$b}} += f32(h{{$a}}_{{$b}}.x) + f32(h{{$a}}_{{$b}}.y);
{{- end}}{{end}}
  }
{{- range $b := seq .ThreadTokens}}
  {
    let t = t0 + 4u * (iy + {{$v.Times $b $v.Down}}u) + {{$v.Rest $b}}u;
    if t < n {
{{- if $v.Fours}}
{{- range $a := seq (div $v.ThreadRows 4)}}
      {
        let row = row0 + 4u * (ix + {{mul $a $v.Across}}u);
        if row < {{$v.Rows}}u { store(row, t, vec4<f32>(f{{mul $a 4}}_{{$b}}, f{{add (mul $a 4) 1}}_{{$b}}, f{{add (mul $a 4) 2}}_{{$b}}, f{{add (mul $a 4) 3}}_{{$b}}){{if $v.Split}}, wg.z * n * {{$v.Rows}}u{{end}}); }
      }
{{- end}}
{{- else}}
{{- range $a := seq $v.ThreadRows}}
      {
        let row = row0 + 4u * (ix + {{$v.Times $a $v.Across}}u) + {{$v.Rest $a}}u;
        if row < {{$v.Rows}}u { store(row, t, f{{$a}}_{{$b}}); }
      }
{{- end}}
{{- end}}
    }
  }
{{- end}}
}
