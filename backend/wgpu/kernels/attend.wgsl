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
const ROUND = {{.Round}}u;   // keys are looked at in so many
const LOWEST = -3.0e38;
const ACROSS = {{.Across}}u; // threads that share a value
const LINES = {{.Rows}}u;    // values at a time
var<workgroup> score: array<vec4<f32>, {{mul .Chunk .HeadQuads}}>; // (key, four heads)
var<workgroup> fade: array<f32, {{mul 4 .HeadQuads}}>;
var<workgroup> sums: array<vec4<f32>, {{mul .Threads .Heads}}>; // (head, thread)
{{- if not .Shuffle}}
var<workgroup> red: array<f32, {{.Scratch}}>;
{{- end}}
{{- if .Merge}}
var<workgroup> latest: u32;
var<workgroup> tops: array<f32, {{mul .Heads .Splits}}>;   // (head, piece)
var<workgroup> totals: array<f32, {{mul .Heads .Splits}}>;
var<workgroup> merged: array<f32, {{mul .Heads .HeadDim}}>; // (head, element)
{{- end}}
{{- if .CapText}}
{{.SoftText}}
{{- end}}

@compute @workgroup_size({{.Threads}})
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) i: u32) {
  let kv = wg.x / {{.Passes}}u;
  let head = kv * {{.Group}}u + (wg.x % {{.Passes}}u) * GROUP; // first query head
{{- if .Uneven}}
  let here = min(GROUP, {{.Group}}u - (wg.x % {{.Passes}}u) * GROUP); // query heads that there are
{{- else}}
  let here = GROUP;
{{- end}}
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
  let q{{$h}}_{{$c}} = {{$v.ScaleText}} * q[(at + {{$v.Here $h}} * DIM) / 4u + {{$v.Quad $c}}];
{{- end}}
{{- end}}
{{- end}}
{{- range $h := seq .Heads}}
{{- range $c := seq $v.PerThread}}
  var o{{$h}}_{{$c}} = vec4<f32>();
{{- end}}
{{- end}}
  // In the softmax a thread is one of SHARE of head h.
  let h = i / {{.Share}}u;
  let r = i % {{.Share}}u;
  var most = LOWEST;
  var total = 0.0;
  for (var start = first; start < last; start += CHUNK) {
    let n = min(CHUNK, last - start);
    let padded = (n + ROUND - 1u) / ROUND * ROUND;
    // The first values are on their way while keys are looked at, and the next while some
    // are summed.
    let d = i % ACROSS;
{{- range $u := seq .ValueUnroll}}
    let vat{{$u}} = (min(start + i / ACROSS + {{$u}}u * LINES, last - 1u) * {{$v.KVHeads}}u + kv) * (DIM / 4u) + d;
{{- range $c := seq $v.PerThread}}
    var w{{$u}}_{{$c}} = values[vat{{$u}} + {{$c}}u * ACROSS];
{{- end}}
{{- end}}
    // Scores of the chunk's keys, ROUND at a time, fetched before the first is used.
    for (var base = 0u; base < padded; base += ROUND) {
      let j = base + i / LANES;
{{- range $u := seq .KeyUnroll}}
      let kat{{$u}} = (min(start + j + {{$u}}u * KEYS, last - 1u) * {{$v.KVHeads}}u + kv) * (DIM / {{if $v.Half}}8u{{else}}4u{{end}}) + sub;
{{- range $c := seq $v.KeyLoads}}
      let k{{$u}}_{{$c}} = keys[kat{{$u}} + {{$c}}u * LANES];
{{- end}}
{{- end}}
{{- range $u := seq .KeyUnroll}}
      {
{{- if $v.Half}}
        let k0 = vec4<f32>(unpack2x16float(k{{$u}}_0.x), unpack2x16float(k{{$u}}_0.y));
        let k1 = vec4<f32>(unpack2x16float(k{{$u}}_0.z), unpack2x16float(k{{$u}}_0.w));
        let k2 = vec4<f32>(unpack2x16float(k{{$u}}_1.x), unpack2x16float(k{{$u}}_1.y));
        let k3 = vec4<f32>(unpack2x16float(k{{$u}}_1.z), unpack2x16float(k{{$u}}_1.w));
{{- else}}
{{- range $c := seq 4}}
        let k{{$c}} = bitcast<vec4<f32>>(k{{$u}}_{{$c}});
{{- end}}
{{- end}}
{{- range $h := seq $v.Heads}}
        var s{{$h}} = dot(q{{$h}}_0, k0) + dot(q{{$h}}_1, k1) + dot(q{{$h}}_2, k2) + dot(q{{$h}}_3, k3);
{{- end}}
{{- if $v.Shuffle}}
{{- range $n := $v.Steps}}
{{- range $h := seq $v.Heads}}
        s{{$h}} += subgroupShuffleXor(s{{$h}}, {{$n}}u);
{{- end}}
{{- end}}
{{- else}}
{{- range $n := $v.Steps}}
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
        let key = j + {{$u}}u * KEYS;
        if sub == 0u {
          let valid = key < n;
{{- range $g := seq $v.HeadQuads}}
          score[key * {{$v.HeadQuads}}u + {{$g}}u] = select(vec4<f32>(LOWEST), vec4<f32>({{range $c := seq 4}}{{if $c}}, {{end}}{{$v.Score (add (mul 4 $g) $c)}}{{end}}), valid);
{{- end}}
        }
      }
{{- end}}
    }
    workgroupBarrier();
    // The softmax with a running maximum; keys that are not there count nothing.
    var big = most;
    if h < GROUP {
      for (var j = r; j < padded; j += {{.Share}}u) { big = max(big, score[j * {{.HeadQuads}}u + h / 4u][h & 3u]); }
    }
{{- if .Shuffle}}
{{- range $n := .ShareSteps}}
    big = max(big, subgroupShuffleXor(big, {{$n}}u));
{{- end}}
{{- else}}
    red[i] = big;
    workgroupBarrier();
    for (var w = {{div .Share 2}}u; w > 0u; w >>= 1u) {
      if r < w { red[i] = max(red[i], red[i + w]); }
      workgroupBarrier();
    }
    big = red[i - r];
    workgroupBarrier();
{{- end}}
    var sum = 0.0;
    if h < GROUP {
      for (var j = r; j < padded; j += {{.Share}}u) {
        let e = exp(score[j * {{.HeadQuads}}u + h / 4u][h & 3u] - big);
        score[j * {{.HeadQuads}}u + h / 4u][h & 3u] = e;
        sum += e;
      }
    }
{{- if .Shuffle}}
{{- range $n := .ShareSteps}}
    sum += subgroupShuffleXor(sum, {{$n}}u);
{{- end}}
{{- else}}
    red[i] = sum;
    workgroupBarrier();
    for (var w = {{div .Share 2}}u; w > 0u; w >>= 1u) {
      if r < w { red[i] += red[i + w]; }
      workgroupBarrier();
    }
    sum = red[i - r];
{{- end}}
    let less = exp(most - big);
    total = total * less + sum;
    most = big;
    if r == 0u && h < GROUP { fade[h] = less; }
    workgroupBarrier();
{{- range $h := seq .Heads}}
    let f{{$h}} = fade[{{$h}}];
{{- range $c := seq $v.PerThread}}
    o{{$h}}_{{$c}} *= f{{$h}};
{{- end}}
{{- end}}
    // Values: a thread has {{mul 4 .PerThread}} elements of every LINES-th key.
    for (var j = i / ACROSS; j < padded; j += {{mul .Rows .ValueUnroll}}u) {
{{- range $u := seq .ValueUnroll}}
      let at{{$u}} = (min(start + j + {{mul (add $u $v.ValueUnroll) $v.Rows}}u, last - 1u) * {{$v.KVHeads}}u + kv) * (DIM / 4u) + d;
{{- range $c := seq $v.PerThread}}
      let x{{$u}}_{{$c}} = w{{$u}}_{{$c}};
      w{{$u}}_{{$c}} = values[at{{$u}} + {{$c}}u * ACROSS];
{{- end}}
{{- end}}
{{- range $u := seq .ValueUnroll}}
      {
{{- range $c := seq $v.PerThread}}
{{- if $v.Half}}
        let v{{$c}} = vec4<f32>(unpack2x16float(x{{$u}}_{{$c}}.x), unpack2x16float(x{{$u}}_{{$c}}.y));
{{- else}}
        let v{{$c}} = bitcast<vec4<f32>>(x{{$u}}_{{$c}});
{{- end}}
{{- end}}
{{- range $g := seq $v.HeadQuads}}
        let p{{$g}} = score[(j + {{$u}}u * LINES) * {{$v.HeadQuads}}u + {{$g}}u];
{{- end}}
{{- range $h := seq $v.Heads}}
{{- range $c := seq $v.PerThread}}
        o{{$h}}_{{$c}} += p{{div $h 4}}[{{$v.Component $h}}] * v{{$c}};
{{- end}}
{{- end}}
      }
{{- end}}
    }
    workgroupBarrier();
  }
  // Sums over the threads that share elements, then (max, total, numbers) of a head.
{{- if .Merge}}
  let pieces = (tiles * KEYS + piece - 1u) / piece;
  if r == 0u && h < GROUP { fade[h] = total; }
{{- end}}
{{- range $c := seq .PerThread}}
{{- if $c}}
  workgroupBarrier();
{{- end}}
{{- range $h := seq $v.Heads}}
  sums[{{mul $h $v.Threads}}u + i] = o{{$h}}_{{$c}};
{{- end}}
  workgroupBarrier();
  for (var e = i; e < here * ACROSS; e += {{$v.Threads}}u) {
    let own = e / ACROSS * {{$v.Threads}}u + e % ACROSS;
    var s = sums[own];
    for (var g = 1u; g < LINES; g++) { s += sums[own + g * ACROSS]; }
    let element = 4u * ({{mul $c $v.Across}}u + e % ACROSS);
{{- if $v.Merge}}
    if pieces == 1u { // nothing to merge
      s /= fade[e / ACROSS];
{{- range $j := seq 4}}
{{- if $v.Quantise}}
      merged[e / ACROSS * DIM + element + {{$j}}u] = s[{{$j}}];
{{- else}}
      y[(row * {{$v.AllHeads}}u + head + e / ACROSS) * DIM + element + {{$j}}u] = s[{{$j}}];
{{- end}}
{{- end}}
      continue;
    }
{{- end}}
    let to = ((wg.z * {{$v.AllHeads}}u + head + e / ACROSS) * {{$v.Splits}}u + wg.y) * {{$v.Part}}u + 4u + element;
    {{$v.PartStore "to" "s.x"}}
    {{$v.PartStore "to + 1u" "s.y"}}
    {{$v.PartStore "to + 2u" "s.z"}}
    {{$v.PartStore "to + 3u" "s.w"}}
  }
{{- end}}
{{- if .Merge}}
  if pieces > 1u {
{{- end}}
  if r == 0u && h < here {
    let to = ((wg.z * {{.AllHeads}}u + head + h) * {{.Splits}}u + wg.y) * {{.Part}}u;
    {{.PartStore "to" "most"}}
    {{.PartStore "to + 1u" "total"}}
  }
{{- if .Merge}}
{{template "merge.wgsl" .}}
{{- end}}
}
