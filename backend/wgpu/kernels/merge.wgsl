{{- $v := . -}}

  // The workgroup that is the last to finish a piece brings the pieces together. They
  // went through atomics, which all workgroups see alike; the barriers order them
  // before and after the count.
  storageBarrier();
  workgroupBarrier();
  let count = (wg.z * {{.KVHeads}}u + kv) * {{.Passes}}u + wg.x % {{.Passes}}u;
  if i == 0u { latest = select(0u, 1u, atomicAdd(&counts[count], 1u) + 1u == pieces); }
  if workgroupUniformLoad(&latest) == 0u { return; }
  storageBarrier();
  if i == 0u { atomicStore(&counts[count], 0u); } // for the next dispatch
  let parts_of = (wg.z * {{.AllHeads}}u + head) * {{mul .Splits .Part}}u;
  for (var e = i; e < here * pieces; e += {{.Threads}}u) {
    let at = parts_of + (e / pieces * {{.Splits}}u + e % pieces) * {{.Part}}u;
    tops[e] = bitcast<f32>(atomicLoad(&parts[at]));
    totals[e] = bitcast<f32>(atomicLoad(&parts[at + 1u]));
  }
  workgroupBarrier();
  // What each piece counts, in place of its maximum. A thread has at most {{.TopsPerThread}} of them.
{{- range $t := seq .TopsPerThread}}
  let e{{$t}} = min(i + {{mul $t $v.Threads}}u, here * pieces - 1u);
  var w{{$t}} = LOWEST;
  for (var s = 0u; s < pieces; s++) { w{{$t}} = max(w{{$t}}, tops[e{{$t}} / pieces * pieces + s]); }
  w{{$t}} = exp(tops[e{{$t}}] - w{{$t}});
{{- end}}
  workgroupBarrier();
{{- range $t := seq .TopsPerThread}}
  tops[e{{$t}}] = w{{$t}};
{{- end}}
  workgroupBarrier();
  for (var e = i; e < here * DIM; e += {{.Threads}}u) {
    let h = e / DIM;
    let base = parts_of + h * {{mul .Splits .Part}}u + 4u + e % DIM;
    var sum = 0.0;
    var v = 0.0;
    for (var s = 0u; s < pieces; s += 8u) {
{{- range $u := seq 8}}
      let p{{$u}} = atomicLoad(&parts[base + min(s + {{$u}}u, pieces - 1u) * {{$v.Part}}u]);
{{- end}}
{{- range $u := seq 8}}
      if s + {{$u}}u < pieces {
        let w = tops[h * pieces + s + {{$u}}u];
        sum += w * totals[h * pieces + s + {{$u}}u];
        v += w * bitcast<f32>(p{{$u}});
      }
{{- end}}
    }
{{- if .Quantise}}
    merged[e] = v / sum;
{{- else}}
    y[(row * {{.AllHeads}}u + head) * DIM + e] = v / sum;
{{- end}}
  }
  }
{{- if .Quantise}}
  workgroupBarrier();
  // Eight threads for each 32 numbers, four numbers each.
{{- if .ShuffleEight}}
  for (var e0 = 0u; e0 < here * DIM / 4u; e0 += {{.Threads}}u) {
    let e = min(e0 + i, here * DIM / 4u - 1u); // all threads take part in the shuffles
    let g = e / 8u * 32u;
    let quad = e & 7u;
    let f = 4u * e;
    let x = vec4<f32>(merged[f], merged[f + 1u], merged[f + 2u], merged[f + 3u]);
    let m = bitcast<vec4<u32>>(x) & vec4<u32>(0x7fffffffu);
    var bits = max(max(m.x, m.y), max(m.z, m.w));
{{- range $n := seq 3}}
    bits = max(bits, subgroupShuffleXor(bits, {{$v.Bit $n}}u));
{{- end}}
    let largest = bitcast<f32>(bits);
    // Numbers below 1e-30 count as zero: their reciprocal could overflow.
    let scale = select(0.0, largest * (1.0 / 32512.0), largest > 1e-30);
    let num = vec4<i32>(round(x * select(0.0, 32512.0 / largest, largest > 1e-30)));
    var t = num.x + num.y + num.z + num.w;
{{- range $n := seq 3}}
    t += subgroupShuffleXor(t, {{$v.Bit $n}}u);
{{- end}}
    if e0 + i < here * DIM / 4u {
      let hi = (num + vec4<i32>(128)) >> vec4<u32>(8u);
      let b = (head * DIM + g) / 32u;
      let word = row * {{.QuantWords}}u + ((quad >> 2u) * {{.Groups}}u + b) * 4u + (quad & 3u);
      y[word] = pack4xI8(hi);
      y[word + {{mul .Groups 8}}u] = pack4xI8(num - hi * 256);
      if quad == 0u {
        let s = bitcast<u32>(scale) | select(0u, 0x7fc00000u, bits >= 0x7f800000u);
        y[row * {{.QuantWords}}u + {{mul .Groups 16}}u + 2u * b] = s;
        y[row * {{.QuantWords}}u + {{mul .Groups 16}}u + 2u * b + 1u] = bitcast<u32>(bitcast<f32>(s) * f32(t));
      }
    }
  }
{{- else}}
  for (var e = i; e < here * DIM / 4u; e += {{.Threads}}u) {
    let g = e / 8u * 32u;
    var bits = 0u;
    for (var k = 0u; k < 32u; k++) { bits = max(bits, bitcast<u32>(merged[g + k]) & 0x7fffffffu); }
    let largest = bitcast<f32>(bits);
    // Numbers below 1e-30 count as zero: their reciprocal could overflow.
    let scale = select(0.0, largest * (1.0 / 32512.0), largest > 1e-30);
    let up = select(0.0, 32512.0 / largest, largest > 1e-30);
    let quad = e & 7u;
    let f = g + 4u * quad;
    let num = vec4<i32>(round(vec4<f32>(merged[f], merged[f + 1u], merged[f + 2u], merged[f + 3u]) * up));
    let hi = (num + vec4<i32>(128)) >> vec4<u32>(8u);
    let b = (head * DIM + g) / 32u;
    let word = row * {{.QuantWords}}u + ((quad >> 2u) * {{.Groups}}u + b) * 4u + (quad & 3u);
    y[word] = pack4xI8(hi);
    y[word + {{mul .Groups 8}}u] = pack4xI8(num - hi * 256);
    if quad == 0u {
      var t = 0.0;
      for (var k = 0u; k < 32u; k++) { t += round(merged[g + k] * up); }
      let s = bitcast<u32>(scale) | select(0u, 0x7fc00000u, bits >= 0x7f800000u);
      y[row * {{.QuantWords}}u + {{mul .Groups 16}}u + 2u * b] = s;
      y[row * {{.QuantWords}}u + {{mul .Groups 16}}u + 2u * b + 1u] = bitcast<u32>(bitcast<f32>(s) * t);
    }
  }
{{- end}}
{{- end}}
