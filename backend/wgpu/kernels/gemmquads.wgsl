{{- $v := . -}}
{{- /* Half-precision tiles whose sums are vectors of four tokens: a weight times
       four tokens at a time, sums of 32 products in half precision. */ -}}
const XROW = {{add (div .TileTokens 4) 1}}u; // of tx
{{range $p, $w := .Weights}}
// A tile of part {{$p}}: rows row0 …, tokens t0 … of n. Thread (ix, iy) has every
// ACROSSth row from ix on and every DOWNth four tokens from iy on.
fn tile{{$p}}(row0: u32, t0: u32, n: u32, i: u32) {
  let ix = i % {{$v.Across}}u;
  let iy = i / {{$v.Across}}u;
{{- range $a := seq $v.ThreadRows}}{{range $q := seq $v.TokenQuads}}
  var f{{$a}}_{{$q}} = vec4<f32>();
{{- end}}{{end}}
{{- range $l := seq $v.WeightLoads}}
  let wr{{$l}} = (i + {{mul $l $v.Threads}}u) >> 1u;
  var r{{$l}} = fetch{{$p}}(min(row0 + wr{{$l}}, {{(index $v.Parts $p).Rows}}u - 1u), 0u, i & 1u);
{{- end}}
{{- range $l := seq (div $v.TokenLoads 4)}}
  // four tokens by four columns
  let xq{{$l}} = (i + {{mul $l $v.Threads}}u) >> 3u;
{{- range $c := seq 4}}
  let xa{{$l}}_{{$c}} = min(t0 + 4u * xq{{$l}} + {{$c}}u, n - 1u) * {{div $v.K 4}}u + (i & 7u);
  var x{{$l}}_{{$c}} = x[xa{{$l}}_{{$c}}];
{{- end}}
{{- end}}
  for (var b = 0u; b < {{div $v.K 32}}u; b++) {
    workgroupBarrier();
{{- range $l := seq $v.WeightLoads}}
    put{{$p}}(r{{$l}}, wr{{$l}} * 9u + (i & 1u) * 4u);
{{- end}}
{{- range $l := seq (div $v.TokenLoads 4)}}
    {
      let at = (i & 7u) * 4u * XROW + xq{{$l}};
      tx[at] = H4(x{{$l}}_0.x, x{{$l}}_1.x, x{{$l}}_2.x, x{{$l}}_3.x);
      tx[at + XROW] = H4(x{{$l}}_0.y, x{{$l}}_1.y, x{{$l}}_2.y, x{{$l}}_3.y);
      tx[at + 2u * XROW] = H4(x{{$l}}_0.z, x{{$l}}_1.z, x{{$l}}_2.z, x{{$l}}_3.z);
      tx[at + 3u * XROW] = H4(x{{$l}}_0.w, x{{$l}}_1.w, x{{$l}}_2.w, x{{$l}}_3.w);
    }
{{- end}}
    workgroupBarrier();
    // The next tile is on its way while this one is multiplied.
    let next = min(b + 1u, {{div $v.K 32}}u - 1u);
{{- range $l := seq $v.WeightLoads}}
    r{{$l}} = fetch{{$p}}(min(row0 + wr{{$l}}, {{(index $v.Parts $p).Rows}}u - 1u), next, i & 1u);
{{- end}}
{{- range $l := seq (div $v.TokenLoads 4)}}{{range $c := seq 4}}
    x{{$l}}_{{$c}} = x[xa{{$l}}_{{$c}} + next * 8u];
{{- end}}{{end}}
{{- range $a := seq $v.ThreadRows}}{{range $q := seq $v.TokenQuads}}
    var h{{$a}}_{{$q}} = H4();
{{- end}}{{end}}
    for (var k = 0u; k < 8u; k++) {
{{- range $a := seq $v.ThreadRows}}
      let w{{$a}} = tw[({{mul $a $v.Across}}u + ix) * 9u + k];
{{- end}}
{{- range $c := seq 4}}
{{- range $q := seq $v.TokenQuads}}
      let v{{$c}}_{{$q}} = tx[(4u * k + {{$c}}u) * XROW + {{mul $q $v.Down}}u + iy];
{{- end}}
{{- range $a := seq $v.ThreadRows}}{{range $q := seq $v.TokenQuads}}
      h{{$a}}_{{$q}} = fma(H4(w{{$a}}[{{$c}}]), v{{$c}}_{{$q}}, h{{$a}}_{{$q}});
{{- end}}{{end}}
{{- end}}
    }
    // Half-precision sums of 32 products go into float32 sums.
{{- range $a := seq $v.ThreadRows}}{{range $q := seq $v.TokenQuads}}
    f{{$a}}_{{$q}} += vec4<f32>(h{{$a}}_{{$q}});
{{- end}}{{end}}
  }
{{- range $q := seq $v.TokenQuads}}{{range $c := seq 4}}
  {
    let t = t0 + 4u * ({{mul $q $v.Down}}u + iy) + {{$c}}u;
    if t < n {
{{- range $a := seq $v.ThreadRows}}
      if row0 + {{mul $a $v.Across}}u + ix < {{(index $v.Parts $p).Rows}}u { store({{$v.Offset $p}}u + row0 + {{mul $a $v.Across}}u + ix, t, f{{$a}}_{{$q}}[{{$c}}]); }
{{- end}}
    }
  }
{{- end}}{{end}}
}
{{end}}
