{{- /* Products with few tokens; see matvec.go. All loops over rows and tokens are
       unrolled here, so that sums stay in registers. */ -}}
{{- $v := . -}}
{{.Helpers}}
{{range .Bound -}}
@group(0) @binding({{.N}}) var<storage, {{.Mode}}> {{.Name}}: {{.Type}};
{{end}}
{{range .Weights}}{{.Functions}}{{end}}

const THREADS = {{.Threads}}u;
const LANES = {{.Lanes}}u; // threads that share a row
const SLOTS = {{.Slots}}u; // rows at a time
const NR = {{.Rows}}u;     // rows of a thread
{{- if .Tree}}
var<workgroup> red: array<f32, {{mul .Threads .Sums}}>;
{{- else if gt .Teams 1}}
var<workgroup> red: array<f32, {{mul (div .Threads .Subgroup) .Sums}}>; // (subgroup, sum)
{{- end}}
{{- if .Act}}
{{.ActText}}
{{- end}}
{{- if .Norm}}
{{template "prologue.wgsl" .}}
{{- end}}
{{- if .QuantOut}}
var<workgroup> out: array<f32, {{mul .GroupRows .Tokens}}>; // (token, row)
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
  // UNROLL groups at a time, all fetched before the first is used. Those past the end
  // repeat the last one and count as zero.
  for (var b0 = lane; b0 < {{div $v.K 32}}u; b0 += {{mul $v.Lanes $v.Unroll}}u) {
{{- range $u := seq $v.Unroll}}
    let b{{$u}} = {{if $u}}min(b0 + {{mul $u $v.Lanes}}u, {{div $v.K 32}}u - 1u){{else}}b0 + 0u{{end}};
{{- range $j := seq $v.Rows}}
    let g{{$j}}_{{$u}} = {{$w.Name}}_group(r{{$j}}, b{{$u}});
{{- end}}
{{- end}}
{{- range $t := seq $v.Tokens}}
{{- range $u := seq $v.Unroll}}
    {
      let at = {{$t}}u * {{$v.QuantVec4s}}u + b{{$u}};
      let ha = {{$v.X}}[at];
      let hb = {{$v.X}}[at + {{div $v.K 32}}u];
      let la = {{$v.X}}[at + {{mul 2 (div $v.K 32)}}u];
      let lb = {{$v.X}}[at + {{mul 3 (div $v.K 32)}}u];
      let pair = {{$v.X}}[{{$t}}u * {{$v.QuantVec4s}}u + {{mul 4 (div $v.K 32)}}u + (b{{$u}} >> 1u)];
      var ss = bitcast<vec2<f32>>(select(pair.xy, pair.zw, (b{{$u}} & 1u) == 1u));
{{- if $u}}
      ss = select(vec2<f32>(), ss, b0 + {{mul $u $v.Lanes}}u < {{div $v.K 32}}u);
{{- end}}
{{- if and $w.Halves $w.Offset}}
      let first = ss.x * f32((sum16(ha) << 8u) + sum16(la));
{{- end}}
{{- range $j := seq $v.Rows}}
{{- if $w.Halves}}
      a{{$j}}_{{$t}} += ss.x * (g{{$j}}_{{$u}}.s.x * f32((dot16(g{{$j}}_{{$u}}.a, ha) << 8u) + dot16(g{{$j}}_{{$u}}.a, la)) + g{{$j}}_{{$u}}.s.y * f32((dot16(g{{$j}}_{{$u}}.b, hb) << 8u) + dot16(g{{$j}}_{{$u}}.b, lb)));
{{- if $w.Offset}}
      a{{$j}}_{{$t}} -= g{{$j}}_{{$u}}.m.x * first + g{{$j}}_{{$u}}.m.y * (ss.y - first);
{{- end}}
{{- else}}
      a{{$j}}_{{$t}} += ss.x * g{{$j}}_{{$u}}.s.x * f32(((dot16(g{{$j}}_{{$u}}.a, ha) + dot16(g{{$j}}_{{$u}}.b, hb)) << 8u) + dot16(g{{$j}}_{{$u}}.a, la) + dot16(g{{$j}}_{{$u}}.b, lb)){{if $w.Offset}} - g{{$j}}_{{$u}}.m.x * ss.y{{end}};
{{- end}}
{{- end}}
    }
{{- end}}
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
{{- if gt .Teams 1}}
  let team = i / {{.Subgroup}}u;
  if (i & {{.Subgroup}}u - 1u) == 0u {
{{- range $s := seq .Sums}}
    red[team * {{$v.Sums}}u + {{$s}}u] = s{{$s}};
{{- end}}
  }
  workgroupBarrier();
  if (i & (LANES - 1u)) == 0u {
{{- range $n := seq .Teams}}{{if $n}}
{{- range $s := seq $v.Sums}}
    s{{$s}} += red[(team + {{$n}}u) * {{$v.Sums}}u + {{$s}}u];
{{- end}}
{{- end}}{{end}}
  }
{{- end}}
  return array<f32, {{.Sums}}>({{range $s := seq .Sums}}{{if $s}}, {{end}}s{{$s}}{{end}});
{{- end}}
}

{{- if not .QuantOut}}
fn store(t: u32, row: u32, sum: f32) {
  let at = t * {{.Out}}u + row;
  var v = sum;
{{- template "finish.wgsl" .}}
}
{{- end}}

@compute @workgroup_size({{.Threads}})
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) i: u32) {
  let group = wg.y * {{index .Grid 0}}u + wg.x;
{{- if .Norm}}
  normalise(i);
{{- end}}
  let lane = i & (LANES - 1u);
  let slot = i / LANES;
{{- if .Act}}
  let row = (group * SLOTS + slot) * NR;
  let g = gather(part0(row, lane), i);
{{- if or .Tree (gt .Teams 1)}}
  workgroupBarrier();
{{- end}}
  let u = gather(part1(row, lane), i);
{{- if .QuantOut}}
  if lane == 0u {
{{- range $j := seq .Rows}}
{{- range $t := seq $v.Tokens}}
    out[{{mul $t $v.GroupRows}}u + slot * NR + {{$j}}u] = act(g[{{add (mul $j $v.Tokens) $t}}]) * u[{{add (mul $j $v.Tokens) $t}}];
{{- end}}
{{- end}}
  }
  workgroupBarrier();
  // Eight threads for each 32 numbers, four numbers each.
  if i < {{div (mul .GroupRows .Tokens) 4}}u {
    let first = (i >> 3u) * 32u;
    let token = first / {{.GroupRows}}u;
    let b = group * {{div .GroupRows 32}}u + (first % {{.GroupRows}}u) / 32u;
    if b < {{div (index $v.Parts 0).Rows 32}}u {
      var bits = 0u;
      for (var k = 0u; k < 32u; k++) { bits = max(bits, bitcast<u32>(out[first + k]) & 0x7fffffffu); }
      let largest = bitcast<f32>(bits);
      let scale = select(0.0, largest * (1.0 / 32512.0), largest > 1e-30);
      let up = select(0.0, 32512.0 / largest, largest > 1e-30);
      let quad = i & 7u;
      let f = first + 4u * quad;
      let num = vec4<i32>(round(vec4<f32>(out[f], out[f + 1u], out[f + 2u], out[f + 3u]) * up));
      let hi = (num + vec4<i32>(128)) >> vec4<u32>(8u);
      let word = token * {{.OutWords}}u + ((quad >> 2u) * {{div .Out 32}}u + b) * 4u + (quad & 3u);
      y[word] = pack4xI8(hi);
      y[word + {{div .Out 4}}u] = pack4xI8(num - hi * 256);
      if quad == 0u {
        var total = 0.0;
        for (var k = 0u; k < 32u; k++) { total += round(out[first + k] * up); }
        let s = bitcast<u32>(scale) | select(0u, 0x7fc00000u, bits >= 0x7f800000u);
        let at = token * {{.OutWords}}u + {{div .Out 2}}u + 2u * b;
        y[at] = s;
        y[at + 1u] = bitcast<u32>(bitcast<f32>(s) * total);
      }
    }
  }
{{- else}}
  if lane == 0u {
{{- range $j := seq .Rows}}
    if row + {{$j}}u < {{(index $v.Parts 0).Rows}}u {
{{- range $t := seq $v.Tokens}}
      store({{$t}}u, {{$v.First}}u + row + {{$j}}u, act(g[{{add (mul $j $v.Tokens) $t}}]) * u[{{add (mul $j $v.Tokens) $t}}]);
{{- end}}
    }
{{- end}}
  }
{{- end}}
{{- else}}
{{- range $p, $w := .Weights}}
  {{if $p}} else {{end}}{{if $v.Last $p}}{{else}}if group < {{$v.EndGroup $p}}u {{end}}{
    let row = ((group{{if $p}} - {{$v.StartGroup $p}}u{{end}}) * SLOTS + slot) * NR;
    let s = gather(part{{$p}}(row, lane), i);
    if lane == 0u {
{{- range $j := seq $v.Rows}}
      if row + {{$j}}u < {{(index $v.Parts $p).Rows}}u {
{{- range $t := seq $v.Tokens}}
        store({{$t}}u, {{$v.Offset $p}}u + row + {{$j}}u, s[{{add (mul $j $v.Tokens) $t}}]);
{{- end}}
      }
{{- end}}
    }
  }
{{- end}}
{{- end}}
}
