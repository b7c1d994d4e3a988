{{- /* Products with few tokens; see matvec.go. All loops over rows and tokens are
       unrolled here, so that sums stay in registers. */ -}}
{{- $v := . -}}
{{.Helpers}}
{{range .Bound -}}
@group(0) @binding({{.N}}) var<storage, {{.Mode}}> {{.Name}}: {{.Type}};
{{end}}
{{range .Weights}}{{.Functions}}{{end}}

const LANES = {{.Lanes}}u; // threads that share a row
const SLOTS = {{.Slots}}u; // rows at a time
const NR = {{.Rows}}u;     // rows of a thread
{{- if .Tree}}
var<workgroup> red: array<f32, {{mul .Threads .Sums}}>;
{{- end}}
{{- if .Act}}
{{.ActText}}
{{- end}}
{{- if .CapText}}
{{.SoftText}}
{{- end}}

{{range $p, $w := .Weights}}
// sums of part {{$p}} for rows row … row+NR-1
fn part{{$p}}(row: u32, lane: u32) -> array<f32, {{$v.Sums}}> {
{{- range $j := seq $v.Rows}}{{range $t := seq $v.Tokens}}
  var a{{$j}}_{{$t}} = 0.0;
{{- end}}{{end}}
{{- range $j := seq $v.Rows}}
  let r{{$j}} = min(row + {{$j}}u, {{(index $v.Parts $p).Rows}}u - 1u);
{{- end}}
{{- if $w.Float}}
  for (var u = lane; u < {{$v.Units $w}}u; u += LANES) {
{{- range $j := seq $v.Rows}}
    let e{{$j}} = {{$w.Name}}[r{{$j}} * {{$w.RowVec4s}}u + u];
{{- if eq $w.Kind "F16"}}
    let c{{$j}} = vec4<f32>(unpack2x16float(e{{$j}}.x), unpack2x16float(e{{$j}}.y));
    let d{{$j}} = vec4<f32>(unpack2x16float(e{{$j}}.z), unpack2x16float(e{{$j}}.w));
{{- else if eq $w.Kind "BF16"}}
    let c{{$j}} = bitcast<vec4<f32>>(vec4<u32>(e{{$j}}.x << 16u, e{{$j}}.x & 0xffff0000u, e{{$j}}.y << 16u, e{{$j}}.y & 0xffff0000u));
    let d{{$j}} = bitcast<vec4<f32>>(vec4<u32>(e{{$j}}.z << 16u, e{{$j}}.z & 0xffff0000u, e{{$j}}.w << 16u, e{{$j}}.w & 0xffff0000u));
{{- else}}
    let c{{$j}} = bitcast<vec4<f32>>(e{{$j}});
{{- end}}
{{- end}}
{{- range $t := seq $v.Tokens}}
    {
{{- if eq $w.Kind "F32"}}
      let x0 = x[{{$t}}u * {{div $v.K 4}}u + u];
{{- range $j := seq $v.Rows}}
      a{{$j}}_{{$t}} += dot(c{{$j}}, x0);
{{- end}}
{{- else}}
      let x0 = x[{{$t}}u * {{div $v.K 4}}u + 2u * u];
      let x1 = x[{{$t}}u * {{div $v.K 4}}u + 2u * u + 1u];
{{- range $j := seq $v.Rows}}
      a{{$j}}_{{$t}} += dot(c{{$j}}, x0) + dot(d{{$j}}, x1);
{{- end}}
{{- end}}
    }
{{- end}}
  }
{{- else}}
  for (var b = lane; b < {{div $v.K 32}}u; b += LANES) {
{{- range $j := seq $v.Rows}}
    let g{{$j}} = {{$w.Name}}_group(r{{$j}}, b);
{{- end}}
{{- range $t := seq $v.Tokens}}
    {
      let at = {{$t}}u * {{$v.QuantVec4s}}u + b;
      let ha = x[at];
      let hb = x[at + {{div $v.K 32}}u];
      let la = x[at + {{mul 2 (div $v.K 32)}}u];
      let lb = x[at + {{mul 3 (div $v.K 32)}}u];
      let pair = x[{{$t}}u * {{$v.QuantVec4s}}u + {{mul 4 (div $v.K 32)}}u + (b >> 1u)];
      let ss = bitcast<vec2<f32>>(select(pair.xy, pair.zw, (b & 1u) == 1u));
{{- if and $w.Halves $w.Offset}}
      let first = ss.x * f32((sum16(ha) << 8u) + sum16(la));
{{- end}}
{{- range $j := seq $v.Rows}}
{{- if $w.Halves}}
      a{{$j}}_{{$t}} += ss.x * (g{{$j}}.s.x * f32((dot16(g{{$j}}.a, ha) << 8u) + dot16(g{{$j}}.a, la)) + g{{$j}}.s.y * f32((dot16(g{{$j}}.b, hb) << 8u) + dot16(g{{$j}}.b, lb)));
{{- if $w.Offset}}
      a{{$j}}_{{$t}} -= g{{$j}}.m.x * first + g{{$j}}.m.y * (ss.y - first);
{{- end}}
{{- else}}
      a{{$j}}_{{$t}} += ss.x * g{{$j}}.s.x * f32(((dot16(g{{$j}}.a, ha) + dot16(g{{$j}}.b, hb)) << 8u) + dot16(g{{$j}}.a, la) + dot16(g{{$j}}.b, lb)){{if $w.Offset}} - g{{$j}}.m.x * ss.y{{end}};
{{- end}}
{{- end}}
    }
{{- end}}
  }
{{- end}}
  return array<f32, {{$v.Sums}}>({{range $j := seq $v.Rows}}{{range $t := seq $v.Tokens}}{{if or $j $t}}, {{end}}a{{$j}}_{{$t}}{{end}}{{end}});
}
{{end}}

// the sums of all lanes of a row, for lane 0
fn gather(a: array<f32, {{.Sums}}>, i: u32) -> array<f32, {{.Sums}}> {
{{- if .Tree}}
{{- range $s := seq .Sums}}
  red[i * {{$v.Sums}}u + {{$s}}u] = a[{{$s}}];
{{- end}}
  workgroupBarrier();
  // Always a tree over lanes, so that the order of additions is the same as with
  // subgroups.
  for (var n = LANES >> 1u; n > 0u; n >>= 1u) {
    if (i & (LANES - 1u)) < n {
{{- range $s := seq .Sums}}
      red[i * {{$v.Sums}}u + {{$s}}u] += red[(i + n) * {{$v.Sums}}u + {{$s}}u];
{{- end}}
    }
    workgroupBarrier();
  }
  return array<f32, {{.Sums}}>({{range $s := seq .Sums}}{{if $s}}, {{end}}red[i * {{$v.Sums}}u + {{$s}}u]{{end}});
{{- else}}
{{- range $s := seq .Sums}}
  var s{{$s}} = a[{{$s}}];
{{- end}}
{{- range $n := .Steps}}
{{- range $s := seq $v.Sums}}
  s{{$s}} += subgroupShuffleXor(s{{$s}}, {{$n}}u);
{{- end}}
{{- end}}
  return array<f32, {{.Sums}}>({{range $s := seq .Sums}}{{if $s}}, {{end}}s{{$s}}{{end}});
{{- end}}
}

fn store(row: u32, t: u32, at: u32, sum: f32) {
  var v = sum;
{{- if .Bias}}
  v += bias[at];
{{- end}}
{{- if eq .Residual 1}}
  v += y[t * {{.Out}}u + at];
{{- else if eq .Residual 2}}
  v += residual[t * {{.Out}}u + at];
{{- end}}
{{- if .CapText}}
  v = soft(v);
{{- end}}
  y[t * {{.Out}}u + at] = v;
}

@compute @workgroup_size({{.Threads}})
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) i: u32) {
  let group = wg.y * {{index .Grid 0}}u + wg.x;
  let lane = i & (LANES - 1u);
  let slot = i / LANES;
{{- if .Act}}
  let row = (group * SLOTS + slot) * NR;
  let g = gather(part0(row, lane), i);
{{- if .Tree}}
  workgroupBarrier();
{{- end}}
  let u = gather(part1(row, lane), i);
  if lane == 0u {
{{- range $j := seq .Rows}}
    if row + {{$j}}u < {{(index $v.Parts 0).Rows}}u {
{{- range $t := seq $v.Tokens}}
      store(row, {{$t}}u, {{$v.First}}u + row + {{$j}}u, act(g[{{add (mul $j $v.Tokens) $t}}]) * u[{{add (mul $j $v.Tokens) $t}}]);
{{- end}}
    }
{{- end}}
  }
{{- else}}
{{- range $p, $w := .Weights}}
  {{if $p}} else {{end}}{{if $v.Last $p}}{{else}}if group < {{$v.EndGroup $p}}u {{end}}{
    let row = ((group{{if $p}} - {{$v.StartGroup $p}}u{{end}}) * SLOTS + slot) * NR;
    let s = gather(part{{$p}}(row, lane), i);
    if lane == 0u {
{{- range $j := seq $v.Rows}}
      if row + {{$j}}u < {{(index $v.Parts $p).Rows}}u {
{{- range $t := seq $v.Tokens}}
        store(row, {{$t}}u, {{$v.Offset $p}}u + row + {{$j}}u, s[{{add (mul $j $v.Tokens) $t}}]);
{{- end}}
      }
{{- end}}
    }
  }
{{- end}}
{{- end}}
}
