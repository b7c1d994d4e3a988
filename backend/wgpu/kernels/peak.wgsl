{{- /* Multiplies and adds without touching memory; see limits.go. */ -}}
{{- if .F16}}enable f16;
alias N = vec4<f16>;
{{- else}}
alias N = vec4<f32>;
{{- end}}
@group(0) @binding(0) var<storage, read_write> y: array<f32>;
@compute @workgroup_size({{.Threads}})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let a = N(vec4<f32>(y[id.x & 255u]));
{{- range $u := seq .Unroll}}
  var s{{$u}} = N(vec4<f32>({{$u}}.0, {{$u}}.25, {{$u}}.5, {{$u}}.75));
{{- end}}
  for (var i = 0u; i < {{.Count}}u; i++) {
{{- range $u := seq .Unroll}}
    s{{$u}} = fma(s{{$u}}, a, s{{$u}});
{{- end}}
  }
  // With a of zero nothing changes, which the compiler does not know.
  var sum = N();
{{- range $u := seq .Unroll}}
  sum += s{{$u}};
{{- end}}
  y[256u + (id.x & 255u)] = f32(sum.x + sum.y + sum.z + sum.w);
}
