{{- $w := .Name}}
fn {{$w}}_word(at: u32, i: u32) -> u32 { return {{$w}}[at + (i >> 2u)][i & 3u]; }
fn {{$w}}_u16(at: u32, i: u32) -> u32 { return ({{$w}}_word(at, i >> 1u) >> ((i & 1u) * 16u)) & 0xffffu; }
{{- if .Float}}
fn {{$w}}_dequant32(row: u32, b: u32) -> array<vec4<f32>, 8> {
  var o: array<vec4<f32>, 8>;
  let at = row * {{.RowVec4s}}u;
{{- if eq .Kind "F32"}}
  for (var i = 0u; i < 8u; i++) { o[i] = bitcast<vec4<f32>>({{$w}}[at + b * 8u + i]); }
{{- else}}
  for (var i = 0u; i < 4u; i++) {
    let v = {{$w}}[at + b * 4u + i];
{{- if eq .Kind "F16"}}
    o[2u * i] = vec4<f32>(unpack2x16float(v.x), unpack2x16float(v.y));
    o[2u * i + 1u] = vec4<f32>(unpack2x16float(v.z), unpack2x16float(v.w));
{{- else}}
    o[2u * i] = bitcast<vec4<f32>>(vec4<u32>(v.x << 16u, v.x & 0xffff0000u, v.y << 16u, v.y & 0xffff0000u));
    o[2u * i + 1u] = bitcast<vec4<f32>>(vec4<u32>(v.z << 16u, v.z & 0xffff0000u, v.w << 16u, v.w & 0xffff0000u));
{{- end}}
  }
{{- end}}
  return o;
}
{{- else}}
// What is read of group b of a row.
fn {{$w}}_fetch(row: u32, b: u32) -> Raw {
  let at = row * {{.RowVec4s}}u;
  var r: Raw;
{{- if eq .Kind "Q4_0" "IQ4_NL"}}
  r.n = {{$w}}[at + b];
  r.k = {{$w}}_u16(at + {{.Section 1}}u, b);
{{- else if eq .Kind "Q4_1"}}
  r.n = {{$w}}[at + b];
  r.k = {{$w}}_word(at + {{.Section 1}}u, b);
{{- else if eq .Kind "Q5_0"}}
  r.n = {{$w}}[at + b];
  r.t.x = {{$w}}_word(at + {{.Section 1}}u, b);
  r.k = {{$w}}_u16(at + {{.Section 2}}u, b);
{{- else if eq .Kind "Q5_1"}}
  r.n = {{$w}}[at + b];
  r.t.x = {{$w}}_word(at + {{.Section 1}}u, b);
  r.k = {{$w}}_word(at + {{.Section 2}}u, b);
{{- else if eq .Kind "Q8_0"}}
  r.n = {{$w}}[at + b];
  r.h = {{$w}}[at + {{.Section 1}}u + b];
  r.k = {{$w}}_u16(at + {{.Section 2}}u, b);
{{- else if eq .Kind "Q2_K"}}
  r.t = vec2<u32>({{$w}}_word(at, 2u * b), {{$w}}_word(at, 2u * b + 1u));
  r.k = {{$w}}_u16(at + {{.Section 1}}u, b);
  r.n.x = {{$w}}_word(at + {{.Section 2}}u, b >> 3u);
{{- else if eq .Kind "Q3_K"}}
  r.t = vec2<u32>({{$w}}_word(at, 2u * b), {{$w}}_word(at, 2u * b + 1u));
  r.k = {{$w}}_word(at + {{.Section 1}}u, b);
  r.h = {{$w}}[at + {{.Section 2}}u + (b >> 3u)];
{{- else if eq .Kind "Q4_K"}}
  r.n = {{$w}}[at + b];
  r.h = {{$w}}[at + {{.Section 1}}u + (b >> 3u)];
{{- else if eq .Kind "Q5_K"}}
  r.n = {{$w}}[at + b];
  r.k = {{$w}}_word(at + {{.Section 1}}u, b);
  r.h = {{$w}}[at + {{.Section 2}}u + (b >> 3u)];
{{- else if eq .Kind "Q6_K"}}
  r.n = {{$w}}[at + b];
  r.t = vec2<u32>({{$w}}_word(at + {{.Section 1}}u, 2u * b), {{$w}}_word(at + {{.Section 1}}u, 2u * b + 1u));
  r.k = {{$w}}_u16(at + {{.Section 2}}u, b);
  r.h.x = {{$w}}_u16(at + {{.Section 3}}u, b >> 3u);
{{- else if eq .Kind "IQ4_XS"}}
  r.n = {{$w}}[at + b];
  r.t = vec2<u32>({{$w}}_word(at + {{.Section 1}}u, 2u * (b >> 3u)), {{$w}}_word(at + {{.Section 1}}u, 2u * (b >> 3u) + 1u));
{{- end}}
  return r;
}
// The group that was fetched.
fn {{$w}}_open(r: Raw, b: u32) -> Group {
  var g: Group;
{{- if eq .Kind "Q4_0"}}
  g.a = low_of(r.n) << vec4<u32>(4u);
  g.b = r.n & vec4<u32>(0xf0f0f0f0u);
  g.s = vec2<f32>(half_of(r.k) * 0.0625);
{{- else if eq .Kind "Q4_1"}}
  let dm = unpack2x16float(r.k);
  g.a = low_of(r.n);
  g.b = low_of(r.n >> vec4<u32>(4u));
  g.s = vec2<f32>(dm.x);
  g.m = vec2<f32>(-dm.y);
{{- else if eq .Kind "Q5_0"}}
  g.a = (low_of(r.n) << vec4<u32>(3u)) | (one_of(r.t.x) << vec4<u32>(7u));
  g.b = (low_of(r.n >> vec4<u32>(4u)) << vec4<u32>(3u)) | (one_of(r.t.x >> 4u) << vec4<u32>(7u));
  g.s = vec2<f32>(half_of(r.k) * 0.125);
{{- else if eq .Kind "Q5_1"}}
  let dm = unpack2x16float(r.k);
  g.a = low_of(r.n) | (one_of(r.t.x) << vec4<u32>(4u));
  g.b = low_of(r.n >> vec4<u32>(4u)) | (one_of(r.t.x >> 4u) << vec4<u32>(4u));
  g.s = vec2<f32>(dm.x);
  g.m = vec2<f32>(-dm.y);
{{- else if eq .Kind "Q8_0"}}
  g.a = r.n;
  g.b = r.h;
  g.s = vec2<f32>(half_of(r.k));
{{- else if eq .Kind "IQ4_NL"}}
  g.a = vec4<u32>(iq4_pair(r.n.x), iq4_pair(r.n.y));
  g.b = vec4<u32>(iq4_pair(r.n.z), iq4_pair(r.n.w));
  g.s = vec2<f32>(half_of(r.k));
{{- else if eq .Kind "Q2_K"}}
  let dm = unpack2x16float(r.n.x);
  g.a = two_of(r.t.x);
  g.b = two_of(r.t.y);
  g.s = dm.x * vec2<f32>(f32(r.k & 15u), f32((r.k >> 8u) & 15u));
  g.m = dm.y * vec2<f32>(f32((r.k >> 4u) & 15u), f32(r.k >> 12u));
{{- else if eq .Kind "Q3_K"}}
  g.a = (two_of(r.t.x) << vec4<u32>(5u)) | (one_of(r.k) << vec4<u32>(7u));
  g.b = (two_of(r.t.y) << vec4<u32>(5u)) | (one_of(r.k >> 4u) << vec4<u32>(7u));
  g.s = (half_of(r.h.x) * 0.03125) * vec2<f32>(vec2<i32>(head_of(r.h, b & 7u)) - vec2<i32>(32));
{{- else if eq .Kind "Q4_K"}}
  let sm = unpack2x16float(r.h.x) * vec2<f32>(head_of(r.h, b & 7u));
  g.a = low_of(r.n);
  g.b = low_of(r.n >> vec4<u32>(4u));
  g.s = vec2<f32>(sm.x);
  g.m = vec2<f32>(sm.y);
{{- else if eq .Kind "Q5_K"}}
  let sm = unpack2x16float(r.h.x) * vec2<f32>(head_of(r.h, b & 7u));
  g.a = low_of(r.n) | (one_of(r.k) << vec4<u32>(4u));
  g.b = low_of(r.n >> vec4<u32>(4u)) | (one_of(r.k >> 4u) << vec4<u32>(4u));
  g.s = vec2<f32>(sm.x);
  g.m = vec2<f32>(sm.y);
{{- else if eq .Kind "Q6_K"}}
  let d = half_of(r.h.x) * 0.25;
  g.a = (low_of(r.n) << vec4<u32>(2u)) | (two_of(r.t.x) << vec4<u32>(6u));
  g.b = (low_of(r.n >> vec4<u32>(4u)) << vec4<u32>(2u)) | (two_of(r.t.y) << vec4<u32>(6u));
  g.s = d * vec2<f32>(f32(byte_of(r.k, 0u)), f32(byte_of(r.k, 1u)));
{{- else if eq .Kind "IQ4_XS"}}
  let i = b & 7u;
  let k = ((r.t.y >> (4u * i)) & 15u) | (((r.t.x >> (16u + 2u * i)) & 3u) << 4u);
  g.a = vec4<u32>(iq4_pair(r.n.x), iq4_pair(r.n.y));
  g.b = vec4<u32>(iq4_pair(r.n.z), iq4_pair(r.n.w));
  g.s = vec2<f32>(half_of(r.t.x) * f32(i32(k) - 32));
{{- end}}
  return g;
}
fn {{$w}}_group(row: u32, b: u32) -> Group { return {{$w}}_open({{$w}}_fetch(row, b), b); }
fn {{$w}}_dequant32(row: u32, b: u32) -> array<vec4<f32>, 8> {
  let g = {{$w}}_group(row, b);
  var o: array<vec4<f32>, 8>;
  for (var i = 0u; i < 4u; i++) {
    o[i] = g.s.x * vec4<f32>(unpack4xI8(g.a[i])){{if .Offset}} - g.m.x{{end}};
    o[i + 4u] = g.s.y * vec4<f32>(unpack4xI8(g.b[i])){{if .Offset}} - g.m.y{{end}};
  }
  return o;
}
{{- end}}
