{{- /* Attention of many tokens; see flash.go. */ -}}
{{- $v := . -}}
{{range .Bound -}}
@group(0) @binding({{.N}}) var<storage, {{.Mode}}> {{.Name}}: {{.Type}};
{{end}}
const QUADS = {{.Quads}}u;       // of a head
const ROWS = {{.TileRows}}u;     // of queries: (token, head of the group)
const KEYS = {{.TileKeys}}u;
const GROUP = {{.Group}}u;
const ACROSS = {{.Across}}u;     // threads along the keys of a tile of scores
const PARTS = {{.Parts}}u;       // threads a row in the softmax
const LOWEST = -3.0e38;
var<workgroup> tq: array<vec4<f32>, {{mul .TileRows (add .Quads 1)}}>;
var<workgroup> tk: array<{{.Cell}}, {{mul .TileKeys (add .Quads 1)}}>;
// (key, row), and four rows more so that neighbouring threads store to different banks
const PROW = ROWS / 4u + 1u;
var<workgroup> p: array<vec4<f32>, {{mul .TileKeys (add (div .TileRows 4) 1)}}>;
var<workgroup> red: array<f32, 128>;
var<workgroup> top: array<f32, ROWS>;
var<workgroup> total: array<f32, ROWS>;
var<workgroup> fade: array<f32, ROWS>;
var<workgroup> firsts: array<i32, ROWS>; // keys that a row sees: first and last
var<workgroup> lasts: array<i32, ROWS>;
{{- if .CapText}}
{{.SoftText}}
{{- end}}
{{- if .Half}}
fn wide(c: vec2<u32>) -> vec4<f32> { return vec4<f32>(unpack2x16float(c.x), unpack2x16float(c.y)); }
{{- else}}
fn wide(c: vec4<u32>) -> vec4<f32> { return bitcast<vec4<f32>>(c); }
{{- end}}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) i: u32, @builtin(num_workgroups) grid: vec3<u32>) {
  let kv = wg.x;
  let count = span.y * GROUP; // rows of the span
  // The last tokens see most keys: they begin first.
  let r0 = (grid.y - 1u - wg.y) * ROWS;
  if r0 >= count { return; }
  for (var e = i; e < ROWS * QUADS; e += 128u) {
    let r = min(r0 + e / QUADS, count - 1u);
    let head = kv * GROUP + r % GROUP;
    tq[e / QUADS * (QUADS + 1u) + e % QUADS] = {{.ScaleText}} * q[(span.x + r / GROUP) * {{div .Width 4}}u + head * QUADS + e % QUADS];
  }
  if i < ROWS {
    let r = min(r0 + i, count - 1u);
    let pos = min(i32(step[1u + span.x + r / GROUP].y), i32(span.z) - 1);
    lasts[i] = pos;
    firsts[i] = {{if .Window}}max(0, pos + 1 - {{.Window}}){{else}}0{{end}};
    top[i] = LOWEST;
    total[i] = 0.0;
  }
  workgroupBarrier();
  let begin = u32(firsts[0]);
  let end = u32(lasts[ROWS - 1u]) + 1u;
  let kx = i % ACROSS;
  let ry = i / ACROSS;          // four rows each
  let sr = i % ROWS;            // row in the softmax
  let sp = i / ROWS;            // part of its keys
  let dx = i % QUADS;           // elements in the output
  let rg = i / QUADS * {{.OutRows}}u; // first of the rows there
{{- range $r := seq .OutRows}}
  var o{{$r}} = vec4<f32>();
{{- end}}
  // What this thread's four rows of scores see.
  let f = vec4<i32>(firsts[ry * 4u], firsts[ry * 4u + 1u], firsts[ry * 4u + 2u], firsts[ry * 4u + 3u]);
  let l = vec4<i32>(lasts[ry * 4u], lasts[ry * 4u + 1u], lasts[ry * 4u + 2u], lasts[ry * 4u + 3u]);
  // A tile of keys is on its way while the one before is worked on.
{{- range $l := seq .KeyLoads}}
  let kr{{$l}} = (i + {{mul $l 128}}u) / QUADS;
  let kc{{$l}} = (i + {{mul $l 128}}u) % QUADS;
  var next{{$l}} = keys[(min(begin + kr{{$l}}, end - 1u) * {{$v.KVHeads}}u + kv) * QUADS + kc{{$l}}];
{{- end}}
  for (var start = begin; start < end; start += KEYS) {
{{- range $l := seq .KeyLoads}}
    tk[kr{{$l}} * (QUADS + 1u) + kc{{$l}}] = next{{$l}};
{{- end}}
    workgroupBarrier();
{{- range $l := seq .KeyLoads}}
    next{{$l}} = keys[(min(start + KEYS + kr{{$l}}, end - 1u) * {{$v.KVHeads}}u + kv) * QUADS + kc{{$l}}];
{{- end}}
    // Scores: four rows by {{.ThreadKeys}} keys a thread.
{{- range $r := seq 4}}{{range $k := seq $v.ThreadKeys}}
    var s{{$r}}_{{$k}} = 0.0;
{{- end}}{{end}}
    for (var c = 0u; c < QUADS; c++) {
{{- range $r := seq 4}}
      let q{{$r}} = tq[(ry * 4u + {{$r}}u) * (QUADS + 1u) + c];
{{- end}}
{{- range $k := seq .ThreadKeys}}
      let k{{$k}} = wide(tk[(kx + {{mul $k $v.Across}}u) * (QUADS + 1u) + c]);
{{- range $r := seq 4}}
      s{{$r}}_{{$k}} = fma(q{{$r}}.w, k{{$k}}.w, fma(q{{$r}}.z, k{{$k}}.z, fma(q{{$r}}.y, k{{$k}}.y, fma(q{{$r}}.x, k{{$k}}.x, s{{$r}}_{{$k}}))));
{{- end}}
{{- end}}
    }
{{- range $k := seq .ThreadKeys}}
    {
      let key = i32(start + kx + {{mul $k $v.Across}}u);
      let s = vec4<f32>({{range $r := seq 4}}{{if $r}}, {{end}}{{if $v.CapText}}soft(s{{$r}}_{{$k}}){{else}}s{{$r}}_{{$k}}{{end}}{{end}});
      let seen = (vec4<i32>(key) >= f) & (vec4<i32>(key) <= l);
      p[(kx + {{mul $k $v.Across}}u) * PROW + ry] = select(vec4<f32>(LOWEST), s, seen);
    }
{{- end}}
    workgroupBarrier();
    // Softmax with a running maximum. Until a row has seen a key its sums are garbage,
    // which fades to nothing with the first.
    var big = LOWEST;
    for (var k = sp; k < KEYS; k += PARTS) { big = max(big, p[k * PROW + sr / 4u][sr % 4u]); }
    red[i] = big;
    workgroupBarrier();
    let before = top[sr];
    big = before;
    for (var k = 0u; k < PARTS; k++) { big = max(big, red[k * ROWS + sr]); }
    var sum = 0.0;
    for (var k = sp; k < KEYS; k += PARTS) {
      let e = exp(p[k * PROW + sr / 4u][sr % 4u] - big);
      p[k * PROW + sr / 4u][sr % 4u] = e;
      sum += e;
    }
    workgroupBarrier();
    red[i] = sum;
    if sp == 0u {
      fade[sr] = exp(before - big);
      top[sr] = big;
    }
    workgroupBarrier();
    if sp == 0u {
      var t = total[sr] * fade[sr];
      for (var k = 0u; k < PARTS; k++) { t += red[k * ROWS + sr]; }
      total[sr] = t;
    }
{{- range $r := seq .OutRows}}
    o{{$r}} *= fade[rg + {{$r}}u];
{{- end}}
    // Eight values at a time, fetched before the first is used. Those past the end count
    // nothing.
    let n = min(KEYS, end - start);
    for (var k = 0u; k < n; k += 8u) {
{{- range $u := seq 8}}
      let c{{$u}} = values[(min(start + k + {{$u}}u, end - 1u) * {{$v.KVHeads}}u + kv) * QUADS + dx];
{{- end}}
{{- range $u := seq 8}}
      {
        let v = wide(c{{$u}});
{{- range $g := seq (div $v.OutRows 4)}}
        let w{{$g}} = p[(k + {{$u}}u) * PROW + rg / 4u + {{$g}}u];
        o{{mul $g 4}} = fma(vec4<f32>(w{{$g}}.x), v, o{{mul $g 4}});
        o{{add (mul $g 4) 1}} = fma(vec4<f32>(w{{$g}}.y), v, o{{add (mul $g 4) 1}});
        o{{add (mul $g 4) 2}} = fma(vec4<f32>(w{{$g}}.z), v, o{{add (mul $g 4) 2}});
        o{{add (mul $g 4) 3}} = fma(vec4<f32>(w{{$g}}.w), v, o{{add (mul $g 4) 3}});
{{- end}}
      }
{{- end}}
    }
    workgroupBarrier();
  }
{{- range $r := seq .OutRows}}
  {
    let r = r0 + rg + {{$r}}u;
    if r < count {
      y[(span.x + r / GROUP) * {{mul $v.Heads $v.Quads}}u + (kv * GROUP + r % GROUP) * QUADS + dx] = o{{$r}} / total[rg + {{$r}}u];
    }
  }
{{- end}}
}
