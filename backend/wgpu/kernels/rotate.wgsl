{{- /* Norm of heads, rotary embedding and storing of keys and values; see rotate.go. */ -}}
{{range .Bound -}}
@group(0) @binding({{.N}}) var<storage, {{.Mode}}> {{.Name}}: {{.Type}};
{{end}}
const THREADS = {{.Threads}}u; // of a head; each has four elements
{{- if .HeadNorm}}
var<workgroup> part: array<f32, {{.Tree}}>;
{{- end}}

@compute @workgroup_size({{.Tree}})
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) i: u32) {
  let head = wg.x; // query heads, key heads, value heads
  let row = span.x + wg.y;
  let p = i32(step[1u + row].y);
  let base = row * {{.Width}}u + head * {{.HeadDim}}u;
  let on = i < THREADS;
  // The thread's elements: e0, e0+1 and e1, e1+1. If it rotates, e0 goes with
{{- if .Interleaved}}
  // e0+1 and e1 with e1+1.
  let e0 = 4u * i;
  let e1 = e0 + 2u;
  let rotates = 4u * i < {{mul 2 .Pairs}}u;
{{- else}}
  // e1 and e0+1 with e1+1.
  let rotates = 2u * i < {{.Pairs}}u;
  let e0 = select(4u * i, 2u * i, rotates);
  let e1 = select(4u * i + 2u, 2u * i + {{.Pairs}}u, rotates);
{{- end}}
  var v = vec4<f32>();
  if on { v = vec4<f32>(qkv[base + e0], qkv[base + e0 + 1u], qkv[base + e1], qkv[base + e1 + 1u]); }
{{- if .HeadNorm}}
  if head < {{add .Heads .KVHeads}}u {
    part[i] = dot(v, v);
    workgroupBarrier();
    for (var n = {{div .Tree 2}}u; n > 0u; n >>= 1u) {
      if i < n { part[i] += part[i + n]; }
      workgroupBarrier();
    }
    let inv = 1.0 / sqrt(part[0] / {{.HeadDim}}.0 + {{.EpsText}});
    if on {
      if head < {{.Heads}}u {
        v = v * inv * vec4<f32>(qnorm[e0], qnorm[e0 + 1u], qnorm[e1], qnorm[e1 + 1u]);
      } else {
        v = v * inv * vec4<f32>(knorm[e0], knorm[e0 + 1u], knorm[e1], knorm[e1 + 1u]);
      }
    }
  }
{{- end}}
  if !on { return; }
  if rotates && head < {{add .Heads .KVHeads}}u {
    let j = 2u * i; // first of its two pairs
    let f = u32((p >> 8u) + 1) * {{.Pairs}}u + j;
    let n = u32(p & 255) * {{.Pairs}}u + j;
    let a = vec4<f32>(far[f], far[f + 1u]);
    let b = vec4<f32>(near[n], near[n + 1u]);
    // cosines and sines of pairs j and j+1
    let c = a.xz * b.xz - a.yw * b.yw;
    let s = a.yw * b.xz + a.xz * b.yw;
{{- if .Interleaved}}
    v = vec4<f32>(v.x * c.x - v.y * s.x, v.x * s.x + v.y * c.x, v.z * c.y - v.w * s.y, v.z * s.y + v.w * c.y);
{{- else}}
    v = vec4<f32>(v.xy * c - v.zw * s, v.xy * s + v.zw * c);
{{- end}}
  }
  if head < {{.Heads}}u {
    qkv[base + e0] = v.x;
    qkv[base + e0 + 1u] = v.y;
    qkv[base + e1] = v.z;
    qkv[base + e1 + 1u] = v.w;
    return;
  }
  if u32(p) >= span.z { return; }
  let kv = (head - {{.Heads}}u) % {{.KVHeads}}u;
{{- if .Half}}
  let at = (u32(p) * {{.KVHeads}}u + kv) * {{div .HeadDim 2}}u;
  let lo = pack2x16float(v.xy);
  let hi = pack2x16float(v.zw);
  if head < {{add .Heads .KVHeads}}u {
    keys[at + (e0 >> 1u)] = lo;
    keys[at + (e1 >> 1u)] = hi;
  } else {
    values[at + (e0 >> 1u)] = lo;
    values[at + (e1 >> 1u)] = hi;
  }
{{- else}}
  let at = (u32(p) * {{.KVHeads}}u + kv) * {{.HeadDim}}u;
  if head < {{add .Heads .KVHeads}}u {
    keys[at + e0] = v.x;
    keys[at + e0 + 1u] = v.y;
    keys[at + e1] = v.z;
    keys[at + e1 + 1u] = v.w;
  } else {
    values[at + e0] = v.x;
    values[at + e0 + 1u] = v.y;
    values[at + e1] = v.z;
    values[at + e1 + 1u] = v.w;
  }
{{- end}}
}
