{{- $v := . -}}
  // Heads 0 … GROUP-1 here are the queries, GROUP the key of this position.
{{- range $h := seq (add .Heads 1)}}
  let at{{$h}} = {{if lt $h $v.Heads}}(at + {{$v.Here $h}} * DIM){{else}}(row * {{$v.Width}}u + ({{$v.AllHeads}}u + kv) * DIM){{end}} / 4u;
{{- range $c := seq 4}}
  var q{{$h}}_{{$c}} = q[at{{$h}} + {{$v.Quad $c}}];
{{- end}}
{{- end}}
{{- if .HeadNorm}}
{{- range $h := seq (add .Heads 1)}}
  var z{{$h}} = dot(q{{$h}}_0, q{{$h}}_0) + dot(q{{$h}}_1, q{{$h}}_1) + dot(q{{$h}}_2, q{{$h}}_2) + dot(q{{$h}}_3, q{{$h}}_3);
{{- end}}
{{- range $n := .Steps}}
{{- if $v.Shuffle}}
{{- range $h := seq (add $v.Heads 1)}}
  z{{$h}} += subgroupShuffleXor(z{{$h}}, {{$n}}u);
{{- end}}
{{- else}}
{{- range $h := seq (add $v.Heads 1)}}
  red[i] = z{{$h}};
  workgroupBarrier();
  z{{$h}} += red[i ^ {{$n}}u];
  workgroupBarrier();
{{- end}}
{{- end}}
{{- end}}
{{- range $h := seq (add .Heads 1)}}
  let inv{{$h}} = 1.0 / sqrt(z{{$h}} / {{$v.HeadDim}}.0 + {{$v.EpsText}});
{{- range $c := seq 4}}
  q{{$h}}_{{$c}} *= inv{{$h}} * {{if lt $h $v.Heads}}qnorm{{else}}knorm{{end}}[{{$v.Quad $c}}];
{{- end}}
{{- end}}
{{- end}}
  {
    let pos = i32(step[1u + row].y);
    let pf = u32((pos >> 8u) + 1) * (DIM / 4u);
    let pn = u32(pos & 255) * (DIM / 4u);
{{- if .Interleaved}}
    // Two pairs in each quad.
{{- range $c := seq 4}}
    {
      let a = far[pf + {{$v.Quad $c}}];
      let b = near[pn + {{$v.Quad $c}}];
      let c = (a.xz * b.xz - a.yw * b.yw).xxyy;
      let s = (a.yw * b.xz + a.xz * b.yw).xxyy * vec4<f32>(-1.0, 1.0, -1.0, 1.0);
{{- range $h := seq (add $v.Heads 1)}}
      q{{$h}}_{{$c}} = q{{$h}}_{{$c}} * c + q{{$h}}_{{$c}}.yxwz * s;
{{- end}}
    }
{{- end}}
{{- else}}
    // Quads 0 and 2 are pairs, and 1 and 3.
{{- range $c := seq 2}}
    {
      let j = 2u * ({{$v.Quad $c}});
      let a0 = far[pf + j];
      let a1 = far[pf + j + 1u];
      let b0 = near[pn + j];
      let b1 = near[pn + j + 1u];
      let ac = vec4<f32>(a0.xz, a1.xz);
      let as_ = vec4<f32>(a0.yw, a1.yw);
      let bc = vec4<f32>(b0.xz, b1.xz);
      let bs = vec4<f32>(b0.yw, b1.yw);
      let c = ac * bc - as_ * bs;
      let s = as_ * bc + ac * bs;
{{- range $h := seq (add $v.Heads 1)}}
      let t{{$h}} = q{{$h}}_{{$c}};
      q{{$h}}_{{$c}} = t{{$h}} * c - q{{$h}}_{{add $c 2}} * s;
      q{{$h}}_{{add $c 2}} = t{{$h}} * s + q{{$h}}_{{add $c 2}} * c;
{{- end}}
    }
{{- end}}
{{- end}}
  }
  // Whoever reads this position's key writes it, and its value, first. Workgroups that
  // share a key head write the same numbers.
  if last == end {
    let p = end - 1u;
    if i < LANES {
{{- $k := .Heads}}
{{- if .Half}}
      let kat = (p * {{.KVHeads}}u + kv) * (DIM / 8u) + sub;
      keys[kat] = vec4<u32>(pack2x16float(q{{$k}}_0.xy), pack2x16float(q{{$k}}_0.zw), pack2x16float(q{{$k}}_1.xy), pack2x16float(q{{$k}}_1.zw));
      keys[kat + LANES] = vec4<u32>(pack2x16float(q{{$k}}_2.xy), pack2x16float(q{{$k}}_2.zw), pack2x16float(q{{$k}}_3.xy), pack2x16float(q{{$k}}_3.zw));
{{- else}}
      let kat = (p * {{.KVHeads}}u + kv) * (DIM / 4u) + sub;
{{- range $c := seq 4}}
      keys[kat + {{$c}}u * LANES] = bitcast<vec4<u32>>(q{{$k}}_{{$c}});
{{- end}}
{{- end}}
    }
    if i < DIM / 4u {
      let x = q[(row * {{.Width}}u + ({{add .AllHeads .KVHeads}}u + kv) * DIM) / 4u + i];
      values[(p * {{.KVHeads}}u + kv) * (DIM / 4u) + i] = {{if .Half}}vec2<u32>(pack2x16float(x.xy), pack2x16float(x.zw)){{else}}bitcast<vec4<u32>>(x){{end}};
    }
  }
  storageBarrier();
{{- range $h := seq .Heads}}
{{- range $c := seq 4}}
  q{{$h}}_{{$c}} *= {{$v.ScaleText}};
{{- end}}
{{- end}}
