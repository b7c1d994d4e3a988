{{- /* Attention of a few tokens, the context split over workgroups; see attend.go. */ -}}
{{- $v := . -}}
{{range .Bound -}}
@group(0) @binding({{.N}}) var<storage, {{.Mode}}> {{.Name}}: {{.Type}};
{{end}}
const LANES = {{.Lanes}}u;   // threads that share a key; each has 16 elements
const KEYS = {{.Keys}}u;     // keys at a time
const DIM = {{.HeadDim}}u;
const GROUP = {{.Heads}}u;   // query heads of a workgroup
const CHUNK = {{.Chunk}}u;   // keys at most
const LOWEST = -3.0e38;
var<workgroup> score: array<f32, {{mul .Chunk .Heads}}>; // (key, head)
var<workgroup> red: array<f32, {{.Scratch}}>;
var<workgroup> top: array<f32, {{.Heads}}>;
var<workgroup> total: array<f32, {{.Heads}}>;
{{- if .Merge}}
var<workgroup> latest: u32;
var<workgroup> merged: array<f32, {{mul .Heads .HeadDim}}>; // (head, element)
{{- end}}
{{- if .CapText}}
{{.SoftText}}
{{- end}}

@compute @workgroup_size({{.Threads}})
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) i: u32) {
  let kv = wg.x / {{.Passes}}u;
  let head = kv * {{.Group}}u + (wg.x % {{.Passes}}u) * GROUP; // first query head
  let row = span.x + wg.z;
  let end = min(step[1u + row].y + 1u, span.z);
{{- if .Window}}
  let begin = end - min(end, {{.Window}}u);
{{- else}}
  let begin = 0u;
{{- end}}
  // The same division in combine: pieces of whole tiles, one a workgroup.
  let tiles = (end - begin + KEYS - 1u) / KEYS;
  let piece = max((tiles + {{.Splits}}u - 1u) / {{.Splits}}u, {{.MinTiles}}u) * KEYS;
  let first = begin + wg.y * piece;
  if first >= end { return; }
  let last = min(end, first + piece);

  let sub = i & (LANES - 1u);
  let at = row * {{.Width}}u + head * DIM;
{{- if .Place}}
{{template "place.wgsl" .}}
{{- else}}
{{- range $h := seq .Heads}}
{{- range $c := seq 4}}
  let q{{$h}}_{{$c}} = {{$v.ScaleText}} * q[(at + {{$h}}u * DIM) / 4u + {{$v.Quad $c}}];
{{- end}}
{{- end}}
{{- end}}
{{- range $h := seq .Heads}}
{{- range $c := seq $v.PerThread}}
  var o{{$h}}_{{$c}} = vec4<f32>();
{{- end}}
  var m{{$h}} = LOWEST;
{{- end}}
  if i < GROUP { total[i] = 0.0; }
  for (var start = first; start < last; start += CHUNK) {
    let n = min(CHUNK, last - start);
    // Scores of the chunk's keys.
    for (var j = 0u; j < n; j += KEYS) {
      let key = j + i / LANES;
      let from_key = min(start + key, last - 1u);
{{- if .Half}}
      let kat = (from_key * {{.KVHeads}}u + kv) * (DIM / 8u) + sub;
      let k01 = keys[kat];
      let k23 = keys[kat + LANES];
      let k0 = vec4<f32>(unpack2x16float(k01.x), unpack2x16float(k01.y));
      let k1 = vec4<f32>(unpack2x16float(k01.z), unpack2x16float(k01.w));
      let k2 = vec4<f32>(unpack2x16float(k23.x), unpack2x16float(k23.y));
      let k3 = vec4<f32>(unpack2x16float(k23.z), unpack2x16float(k23.w));
{{- else}}
      let kat = (from_key * {{.KVHeads}}u + kv) * (DIM / 4u) + sub;
      let k0 = bitcast<vec4<f32>>(keys[kat]);
      let k1 = bitcast<vec4<f32>>(keys[kat + LANES]);
      let k2 = bitcast<vec4<f32>>(keys[kat + 2u * LANES]);
      let k3 = bitcast<vec4<f32>>(keys[kat + 3u * LANES]);
{{- end}}
{{- range $h := seq .Heads}}
      var s{{$h}} = dot(q{{$h}}_0, k0) + dot(q{{$h}}_1, k1) + dot(q{{$h}}_2, k2) + dot(q{{$h}}_3, k3);
{{- end}}
{{- if .Shuffle}}
{{- range $n := .Steps}}
{{- range $h := seq $v.Heads}}
      s{{$h}} += subgroupShuffleXor(s{{$h}}, {{$n}}u);
{{- end}}
{{- end}}
{{- else}}
{{- range $n := .Steps}}
{{- range $h := seq $v.Heads}}
      red[i * GROUP + {{$h}}u] = s{{$h}};
{{- end}}
      workgroupBarrier();
{{- range $h := seq $v.Heads}}
      s{{$h}} += red[(i ^ {{$n}}u) * GROUP + {{$h}}u];
{{- end}}
      workgroupBarrier();
{{- end}}
{{- end}}
      if sub == 0u {
        let valid = key < n;
{{- range $h := seq .Heads}}
        score[key * GROUP + {{$h}}u] = select(LOWEST, {{if $v.CapText}}soft(s{{$h}}){{else}}s{{$h}}{{end}}, valid);
{{- end}}
      }
    }
    workgroupBarrier();
    // The largest score of each head: SHARE threads a head.
    let h = i / {{.Share}}u;
    let r = i % {{.Share}}u;
    var big = LOWEST;
    if h < GROUP {
      for (var j = r; j < n; j += {{.Share}}u) { big = max(big, score[j * GROUP + h]); }
    }
    red[i] = big;
    workgroupBarrier();
    for (var w = {{div .Share 2}}u; w > 0u; w >>= 1u) {
      if r < w { red[i] = max(red[i], red[i + w]); }
      workgroupBarrier();
    }
    if r == 0u && h < GROUP { top[h] = red[i]; }
    workgroupBarrier();
    // Running maxima, known to all threads; what was summed fades.
{{- range $h := seq .Heads}}
    let n{{$h}} = max(m{{$h}}, top[{{$h}}]);
    let f{{$h}} = exp(m{{$h}} - n{{$h}});
    m{{$h}} = n{{$h}};
{{- range $c := seq $v.PerThread}}
    o{{$h}}_{{$c}} *= f{{$h}};
{{- end}}
    if i == {{$h}}u { total[{{$h}}] *= f{{$h}}; top[{{$h}}] = n{{$h}}; }
{{- end}}
    workgroupBarrier();
    var sum = 0.0;
    if h < GROUP {
      let mine = top[h];
      for (var j = r; j < n; j += {{.Share}}u) {
        let e = exp(score[j * GROUP + h] - mine);
        score[j * GROUP + h] = e;
        sum += e;
      }
    }
    red[i] = sum;
    workgroupBarrier();
    for (var w = {{div .Share 2}}u; w > 0u; w >>= 1u) {
      if r < w { red[i] += red[i + w]; }
      workgroupBarrier();
    }
    if r == 0u && h < GROUP { total[h] += red[i]; }
    // Values: a thread has {{mul 4 .PerThread}} elements of every {{.Rows}}th key.
    let d = i % {{.Across}}u;
    for (var j = i / {{.Across}}u; j < n; j += {{.Rows}}u) {
{{- range $c := seq .PerThread}}
{{- if $v.Half}}
      let vv{{$c}} = values[((start + j) * {{$v.KVHeads}}u + kv) * (DIM / 4u) + d + {{$c}}u * {{$v.Across}}u];
      let v{{$c}} = vec4<f32>(unpack2x16float(vv{{$c}}.x), unpack2x16float(vv{{$c}}.y));
{{- else}}
      let v{{$c}} = bitcast<vec4<f32>>(values[((start + j) * {{$v.KVHeads}}u + kv) * (DIM / 4u) + d + {{$c}}u * {{$v.Across}}u]);
{{- end}}
{{- end}}
{{- range $h := seq .Heads}}
      let w{{$h}} = score[j * GROUP + {{$h}}u];
{{- range $c := seq $v.PerThread}}
      o{{$h}}_{{$c}} += w{{$h}} * v{{$c}};
{{- end}}
{{- end}}
    }
    workgroupBarrier();
  }
  // Sums over the threads that share elements, then (max, total, numbers) of a head.
{{- range $h := seq .Heads}}
{{- range $c := seq $v.PerThread}}
  red[4u * i] = o{{$h}}_{{$c}}.x;
  red[4u * i + 1u] = o{{$h}}_{{$c}}.y;
  red[4u * i + 2u] = o{{$h}}_{{$c}}.z;
  red[4u * i + 3u] = o{{$h}}_{{$c}}.w;
  workgroupBarrier();
  {
    let to = ((wg.z * {{$v.AllHeads}}u + head + {{$h}}u) * {{$v.Splits}}u + wg.y) * {{$v.Part}}u;
    for (var e = i; e < {{mul 4 $v.Across}}u; e += {{$v.Threads}}u) {
      var s = 0.0;
      for (var g = 0u; g < {{$v.Rows}}u; g++) { s += red[g * {{mul 4 $v.Across}}u + e]; }
      {{$v.PartStore (printf "to + 4u + %du + e" (mul 4 (mul $c $v.Across))) "s"}}
    }
{{- if eq $c 0}}
    if i == 0u {
      {{$v.PartStore "to" (printf "m%d" $h)}}
      {{$v.PartStore "to + 1u" (printf "total[%d]" $h)}}
    }
{{- end}}
  }
  workgroupBarrier();
{{- end}}
{{- end}}
{{- if .Merge}}
{{template "merge.wgsl" .}}
{{- end}}
}
