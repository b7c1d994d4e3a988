{{- /* Reads a buffer and keeps nothing of it; see limits.go. */ -}}
@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
const STRIDE = {{mul .Groups .Threads}}u;
const COUNT = {{.Count}}u;
@compute @workgroup_size({{.Threads}})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
{{- range $u := seq .Unroll}}
  var a{{$u}} = vec4<u32>();
{{- end}}
  for (var at = id.x; at < COUNT; at += {{.Unroll}}u * STRIDE) {
{{- range $u := seq .Unroll}}
    a{{$u}} |= x[min(at + {{$u}}u * STRIDE, COUNT - 1u)];
{{- end}}
  }
{{- range $u := seq .Unroll}}{{if $u}}
  a0 |= a{{$u}};
{{- end}}{{end}}
  // Zeros are read, which the compiler does not know.
  if any(a0 != vec4<u32>()) { y[id.x & 255u] = a0.x; }
}
