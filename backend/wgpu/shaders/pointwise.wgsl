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
// at is where an input's element of row and column is.
fn at_a(row: u32, column: u32) -> u32 { return row * {{.A.Stride}}u + {{.A.Offset}}u + column; }
{{if .Two}}fn at_b(row: u32, column: u32) -> u32 { return row * {{.B.Stride}}u + {{.B.Offset}}u + column; }{{end}}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
	let i = flat(group, thread);
	if i >= step[0].x * WIDTH { return; }
	let row = i / WIDTH;
	let column = i % WIDTH;
	let x = a[at_a(row, column)];
{{- if .Two}}
	let z = b[at_b(row, column)];
{{- end}}
{{- if eq .Op "add"}}
	y[i] = x + z;
{{- else if eq .Op "scale"}}
	y[i] = {{float .Factor}} * x;
{{- else if eq .Op "copy"}}
	y[i] = x;
{{- else if eq .Op "silu"}}
	// Below -80 the result is 0 to float32's precision; exp would overflow.
	y[i] = x / (1.0 + exp(-max(x, -80.0))) * z;
{{- else if eq .Op "gelu"}}
	y[i] = 0.5 * x * (1.0 + tanh1(0.7978845608028654 * (x + 0.044715 * x * x * x))) * z;
{{- end}}
}
