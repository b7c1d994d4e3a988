{{- $v := . -}}

// normalise puts the quantised rows of x/sqrt(mean(x²)+eps)·norm into the workgroup's
// memory: each workgroup for itself, which costs less than a dispatch.
const QUADS = {{div .K 4}}u;
var<workgroup> xs: array<vec4<u32>, {{mul .Tokens .QuantVec4s}}>;
var<workgroup> part: array<f32, {{if .Shuffle}}{{div .Threads .Subgroup}}{{else}}THREADS{{end}}>;
{{- if not .Shuffle}}
var<workgroup> top: array<u32, THREADS>;
var<workgroup> sum: array<i32, THREADS>;
{{- end}}
fn normalise(i: u32) {
  for (var t = 0u; t < {{.Tokens}}u; t++) {
    var ss = 0.0;
{{- if .Ahead}}
    // Everything is asked for at once: the norm's weights come from far away.
{{- range $n := seq .NormQuads}}
    let c{{$n}} = i + {{mul $n $v.Threads}}u;
    var v{{$n}} = vec4<f32>();
    var w{{$n}} = vec4<f32>();
    if c{{$n}} < QUADS {
      v{{$n}} = x[t * QUADS + c{{$n}}];
      w{{$n}} = norm[c{{$n}}];
    }
{{- end}}
{{- range $n := seq .NormQuads}}
    ss += dot(v{{$n}}, v{{$n}});
{{- end}}
{{- else}}
    for (var c = i; c < QUADS; c += THREADS) { let v = x[t * QUADS + c]; ss += dot(v, v); }
{{- end}}
{{- if .Shuffle}}
    ss = subgroupAdd(ss);
    if (i & {{.Subgroup}}u - 1u) == 0u { part[i / {{.Subgroup}}u] = ss; }
    workgroupBarrier();
    var all = 0.0;
    for (var n = 0u; n < {{div .Threads .Subgroup}}u; n++) { all += part[n]; }
{{- else}}
    part[i] = ss;
    workgroupBarrier();
    for (var n = THREADS >> 1u; n > 0u; n >>= 1u) {
      if i < n { part[i] += part[i + n]; }
      workgroupBarrier();
    }
    let all = part[0];
{{- end}}
    let inv = 1.0 / sqrt(all / {{.K}}.0 + {{.EpsText}});
{{- if .Ahead}}
{{- range $n := seq .NormQuads}}
    {
      let c = c{{$n}};
      let inside = c < QUADS;
      let v = v{{$n}} * inv * w{{$n}};
{{- template "normalised" $v}}
    }
{{- end}}
{{- else}}
    for (var c0 = 0u; c0 < QUADS; c0 += THREADS) {
      let c = c0 + i;
      let inside = c < QUADS;
      var v = vec4<f32>();
      if inside { v = x[t * QUADS + c] * inv * norm[c]; }
{{- template "normalised" .}}
    }
{{- end}}
    workgroupBarrier(); // before part is written again, and before xs is read
  }
}
{{- define "normalised"}}
{{- $v := .}}
      // As bits, so that NaN and infinity are the largest.
      let m = bitcast<vec4<u32>>(v) & vec4<u32>(0x7fffffffu);
      var bits = max(max(m.x, m.y), max(m.z, m.w));
{{- if $v.Shuffle}}
      bits = max(bits, subgroupShuffleXor(bits, 1u));
      bits = max(bits, subgroupShuffleXor(bits, 2u));
      bits = max(bits, subgroupShuffleXor(bits, 4u));
{{- else}}
      top[i] = bits;
      workgroupBarrier();
      let g = i & 0xfffffff8u;
      for (var k = 0u; k < 8u; k++) { bits = max(bits, top[g + k]); }
{{- end}}
      let largest = bitcast<f32>(bits);
      let scale = select(0.0, largest * (1.0 / 32512.0), largest > 1e-30);
      let num = vec4<i32>(round(v * select(0.0, 32512.0 / largest, largest > 1e-30)));
      let hi = (num + vec4<i32>(128)) >> vec4<u32>(8u);
      var total = num.x + num.y + num.z + num.w;
{{- if $v.Shuffle}}
      total += subgroupShuffleXor(total, 1u);
      total += subgroupShuffleXor(total, 2u);
      total += subgroupShuffleXor(total, 4u);
{{- else}}
      sum[i] = total;
      workgroupBarrier();
      total = 0;
      for (var k = 0u; k < 8u; k++) { total += sum[g + k]; }
{{- end}}
      if inside {
        let b = c >> 3u;
        let at = t * {{$v.QuantVec4s}}u + ((c >> 2u) & 1u) * {{div $v.K 32}}u + b;
        xs[at][c & 3u] = pack4xI8(hi);
        xs[at + {{div $v.K 16}}u][c & 3u] = pack4xI8(num - hi * 256);
        if (c & 7u) == 0u {
          // Garbage must not turn into numbers: the scale of such a group is NaN.
          let s = bitcast<u32>(scale) | select(0u, 0x7fc00000u, bits >= 0x7f800000u);
          let pair = t * {{$v.QuantVec4s}}u + {{div $v.K 8}}u + (b >> 1u);
          xs[pair][(b & 1u) * 2u] = s;
          xs[pair][(b & 1u) * 2u + 1u] = bitcast<u32>(bitcast<f32>(s) * f32(total));
        }
      }
{{- end}}
