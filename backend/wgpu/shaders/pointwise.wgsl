// One number a thread: {{.Op}}.
{{template "step" .}}
{{template "flat"}}
{{if eq .Op "gelu"}}{{template "tanh"}}{{end}}
@group(0) @binding(1) var<storage, read> a: array<f32>;
{{if .Two}}@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
{{else}}@group(0) @binding(2) var<storage, read_write> y: array<f32>;
{{end}}
const WIDTH: u32 = {{.Width}}u;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
	let i = flat(group, thread);
	if i >= step[0].{{if eq .Op "gather"}}y{{else}}x{{end}} * WIDTH { return; }
{{- if eq .Op "add"}}
	y[i] = a[i] + b[i];
{{- else if eq .Op "scale"}}
	y[i] = {{float .Factor}} * a[i];
{{- else if eq .Op "silu"}}
	// Below -80 the result is 0 to float32's precision; exp would overflow.
	let x = a[i];
	y[i] = x / (1.0 + exp(-max(x, -80.0))) * b[i];
{{- else if eq .Op "gelu"}}
	let x = a[i];
	y[i] = 0.5 * x * (1.0 + tanh1(0.7978845608028654 * (x + 0.044715 * x * x * x))) * b[i];
{{- else if eq .Op "gather"}}
	// The rows that logits are wanted of.
	y[i] = a[step[1u + i / WIDTH].w * WIDTH + i % WIDTH];
{{- end}}
}
