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
fn {{$w}}_group(row: u32, b: u32) -> Group {
  let at = row * {{.RowVec4s}}u;
  var g: Group;
{{- if eq .Kind "Q4_0"}}
  let n = {{$w}}[at + b];
  g.a = low_of(n) << vec4<u32>(4u);
  g.b = n & vec4<u32>(0xf0f0f0f0u);
  g.s = vec2<f32>(half_of({{$w}}_u16(at + {{.Section 1}}u, b)) * 0.0625);
{{- else if eq .Kind "Q4_1"}}
  let n = {{$w}}[at + b];
  let dm = unpack2x16float({{$w}}_word(at + {{.Section 1}}u, b));
  g.a = low_of(n);
  g.b = low_of(n >> vec4<u32>(4u));
  g.s = vec2<f32>(dm.x);
  g.m = vec2<f32>(-dm.y);
{{- else if eq .Kind "Q5_0"}}
  let n = {{$w}}[at + b];
  let t = {{$w}}_word(at + {{.Section 1}}u, b);
  g.a = (low_of(n) << vec4<u32>(3u)) | (one_of(t) << vec4<u32>(7u));
  g.b = (low_of(n >> vec4<u32>(4u)) << vec4<u32>(3u)) | (one_of(t >> 4u) << vec4<u32>(7u));
  g.s = vec2<f32>(half_of({{$w}}_u16(at + {{.Section 2}}u, b)) * 0.125);
{{- else if eq .Kind "Q5_1"}}
  let n = {{$w}}[at + b];
  let t = {{$w}}_word(at + {{.Section 1}}u, b);
  let dm = unpack2x16float({{$w}}_word(at + {{.Section 2}}u, b));
  g.a = low_of(n) | (one_of(t) << vec4<u32>(4u));
  g.b = low_of(n >> vec4<u32>(4u)) | (one_of(t >> 4u) << vec4<u32>(4u));
  g.s = vec2<f32>(dm.x);
  g.m = vec2<f32>(-dm.y);
{{- else if eq .Kind "Q8_0"}}
  g.a = {{$w}}[at + b];
  g.b = {{$w}}[at + {{.Section 1}}u + b];
  g.s = vec2<f32>(half_of({{$w}}_u16(at + {{.Section 2}}u, b)));
{{- else if eq .Kind "IQ4_NL"}}
  let n = {{$w}}[at + b];
  g.a = vec4<u32>(iq4_pair(n.x), iq4_pair(n.y));
  g.b = vec4<u32>(iq4_pair(n.z), iq4_pair(n.w));
  g.s = vec2<f32>(half_of({{$w}}_u16(at + {{.Section 1}}u, b)));
{{- else if eq .Kind "Q2_K"}}
  let k = {{$w}}_u16(at + {{.Section 1}}u, b);
  let dm = unpack2x16float({{$w}}_word(at + {{.Section 2}}u, b >> 3u));
  g.a = two_of({{$w}}_word(at, 2u * b));
  g.b = two_of({{$w}}_word(at, 2u * b + 1u));
  g.s = dm.x * vec2<f32>(f32(k & 15u), f32((k >> 8u) & 15u));
  g.m = dm.y * vec2<f32>(f32((k >> 4u) & 15u), f32(k >> 12u));
{{- else if eq .Kind "Q3_K"}}
  let t = {{$w}}_word(at + {{.Section 1}}u, b);
  let h = {{$w}}[at + {{.Section 2}}u + (b >> 3u)];
  g.a = (two_of({{$w}}_word(at, 2u * b)) << vec4<u32>(5u)) | (one_of(t) << vec4<u32>(7u));
  g.b = (two_of({{$w}}_word(at, 2u * b + 1u)) << vec4<u32>(5u)) | (one_of(t >> 4u) << vec4<u32>(7u));
  g.s = (half_of(h.x) * 0.03125) * vec2<f32>(vec2<i32>(head_of(h, b & 7u)) - vec2<i32>(32));
{{- else if eq .Kind "Q4_K"}}
  let n = {{$w}}[at + b];
  let h = {{$w}}[at + {{.Section 1}}u + (b >> 3u)];
  let sm = unpack2x16float(h.x) * vec2<f32>(head_of(h, b & 7u));
  g.a = low_of(n);
  g.b = low_of(n >> vec4<u32>(4u));
  g.s = vec2<f32>(sm.x);
  g.m = vec2<f32>(sm.y);
{{- else if eq .Kind "Q5_K"}}
  let n = {{$w}}[at + b];
  let t = {{$w}}_word(at + {{.Section 1}}u, b);
  let h = {{$w}}[at + {{.Section 2}}u + (b >> 3u)];
  let sm = unpack2x16float(h.x) * vec2<f32>(head_of(h, b & 7u));
  g.a = low_of(n) | (one_of(t) << vec4<u32>(4u));
  g.b = low_of(n >> vec4<u32>(4u)) | (one_of(t >> 4u) << vec4<u32>(4u));
  g.s = vec2<f32>(sm.x);
  g.m = vec2<f32>(sm.y);
{{- else if eq .Kind "Q6_K"}}
  let n = {{$w}}[at + b];
  let k = {{$w}}_u16(at + {{.Section 2}}u, b);
  let d = half_of({{$w}}_u16(at + {{.Section 3}}u, b >> 3u)) * 0.25;
  g.a = (low_of(n) << vec4<u32>(2u)) | (two_of({{$w}}_word(at + {{.Section 1}}u, 2u * b)) << vec4<u32>(6u));
  g.b = (low_of(n >> vec4<u32>(4u)) << vec4<u32>(2u)) | (two_of({{$w}}_word(at + {{.Section 1}}u, 2u * b + 1u)) << vec4<u32>(6u));
  g.s = d * vec2<f32>(f32(byte_of(k, 0u)), f32(byte_of(k, 1u)));
{{- else if eq .Kind "IQ4_XS"}}
  let n = {{$w}}[at + b];
  let h0 = {{$w}}_word(at + {{.Section 1}}u, 2u * (b >> 3u));
  let h1 = {{$w}}_word(at + {{.Section 1}}u, 2u * (b >> 3u) + 1u);
  let i = b & 7u;
  let k = ((h1 >> (4u * i)) & 15u) | (((h0 >> (16u + 2u * i)) & 3u) << 4u);
  g.a = vec4<u32>(iq4_pair(n.x), iq4_pair(n.y));
  g.b = vec4<u32>(iq4_pair(n.z), iq4_pair(n.w));
  g.s = vec2<f32>(half_of(h0) * f32(i32(k) - 32));
{{- end}}
  return g;
}
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
