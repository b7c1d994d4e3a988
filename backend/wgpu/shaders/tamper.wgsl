// The spoiling of rows that package parity/fault injects; backend.Spoil is its
// definition. A thread works on UNIT numbers.
{{template "step" .}}
{{template "flat"}}
{{template "half"}}
@group(0) @binding(1) var<storage, read> x: array<f32>;
{{if eq .How "replace"}}@group(0) @binding(2) var<storage, read> alt: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
{{else}}@group(0) @binding(2) var<storage, read_write> y: array<f32>;
{{end}}
const WIDTH: u32 = {{.Width}}u;
const UNIT: u32 = {{.Unit}}u;
const UNITS: u32 = {{.Units}}u; // a row
// Inputs are rows of their own stride.
fn at_x(row: u32, column: u32) -> u32 { return row * {{.X.Stride}}u + {{.X.Offset}}u + column; }
fn at_alt(row: u32, column: u32) -> u32 { return row * {{.Alt.Stride}}u + {{.Alt.Offset}}u + column; }
const AMOUNT: f32 = {{float .Amount}};

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
	let n = flat(group, thread);
	let row = n / UNITS;
	if row >= step[0].x { return; }
	let column = n % UNITS * UNIT;
	let end = min(column + UNIT, WIDTH);
	let at = row * WIDTH;
	let p = i32(step[1u + row].y);
	if p < {{.Rows.From}} {{if eq .Rows.Steps 1}}|| step[0].z != 1u {{end}}{{if eq .Rows.Steps 2}}|| step[0].z == 1u {{end}}{
		for (var i = column; i < end; i++) { y[at + i] = x[at_x(row, i)]; }
		return;
	}
{{- if eq .How "replace"}}
	y[at + column] = alt[at_alt(row, column)];
{{- else if eq .How "multiply"}}
	y[at + column] = AMOUNT * x[at_x(row, column)];
{{- else if eq .How "drift"}}
	y[at + column] = (1.0 + AMOUNT * f32(p)) * x[at_x(row, column)];
{{- else if eq .How "half"}}
	y[at + column] = half(to_half(AMOUNT * x[at_x(row, column)])) / AMOUNT;
{{- else if eq .How "int8"}}
	var top = 0.0;
	for (var i = column; i < end; i++) { top = max(top, abs(x[at_x(row, i)])); }
	let scale = top / 127.0;
	for (var i = column; i < end; i++) {
		let v = x[at_x(row, i)];
		y[at + i] = select(scale * round(v / scale), v, top == 0.0);
	}
{{- else if eq .How "heads"}}
	var order = array<u32, {{len .Order}}>({{range $i, $h := .Order}}{{if $i}}, {{end}}{{$h}}u{{end}});
	y[at + column] = x[at_x(row, order[column / {{.Group}}u] * {{.Group}}u + column % {{.Group}}u)];
{{- end}}
}
