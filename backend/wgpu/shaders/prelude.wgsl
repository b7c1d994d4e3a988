{{/* What every shader begins with. Sizes are constants of the source, so each
     shape is a kernel of its own and loops have known bounds. */ -}}
{{define "step" -}}
// The step: element 0 is (tokens here, wanted rows here, tokens of the whole
// step, 0); element 1+i tells of row i (token, position, index in its span, row
// of the i-th wanted logits).
@group(0) @binding(0) var<storage, read> step: array<vec4<u32>>;
{{end}}

{{define "span" -}}
// The span: first row, rows, capacity of the sequence's cache, 0.
@group(0) @binding(1) var<storage, read> span: vec4<u32>;
{{end}}

{{define "flat" -}}
// flat numbers the threads of a dispatch, whose workgroups lie in a plane
// because one axis may hold 65,535 only.
fn flat(group: vec3<u32>, thread: u32) -> u32 { return (group.y * 32768u + group.x) * 64u + thread; }
{{end}}

{{define "view" -}}
// Row r of the input begins at element r·STRIDE + OFFSET.
const STRIDE: u32 = {{.Stride}}u;
const OFFSET: u32 = {{.Offset}}u;
{{end}}

{{define "position" -}}
// position is where the operation places a row: wrong only if a fault says so.
fn position(row: u32) -> i32 {
	let r = step[1u + row];
	let p = i32(r.y);
{{- with .Misplaced}}
	if p >= {{.Rows.From}} {{if eq .Rows.Steps 1}}&& step[0].z == 1u {{end}}{{if eq .Rows.Steps 2}}&& step[0].z != 1u {{end}}{
		return {{if .Restart}}i32(r.z){{else}}p + ({{.By}}){{end}};
	}
{{- end}}
	return p;
}
{{end}}

{{define "half" -}}
// half converts 16 bits to the number they stand for. unpack2x16float may take
// subnormal numbers for zero, and scales of blocks often are subnormal.
fn half(h: u32) -> f32 {
	let sign = (h & 0x8000u) << 16u;
	let e = h & 0x7c00u;
	let m = h & 0x03ffu;
	if e == 0u { return bitcast<f32>(sign | bitcast<u32>(f32(m) * 5.9604644775390625e-8)); }
	if e == 0x7c00u { return bitcast<f32>(sign | 0x7f800000u | (m << 13u)); }
	return bitcast<f32>(sign | (((h & 0x7fffu) << 13u) + 0x38000000u));
}

// to_half rounds to the nearest half, ties to even; beyond 65504 is infinity.
fn to_half(x: f32) -> u32 {
	let bits = bitcast<u32>(x);
	let sign = (bits >> 16u) & 0x8000u;
	let a = bits & 0x7fffffffu;
	if a > 0x7f800000u { return sign | 0x7e00u; }
	if a >= 0x477ff000u { return sign | 0x7c00u; }
	if a < 0x38800000u { return sign | u32(round(abs(x) * 16777216.0)); }
	return sign | ((a + 0x0fffu + ((a >> 13u) & 1u) - 0x38000000u) >> 13u);
}
{{end}}

{{define "tanh" -}}
// tanh1 is tanh without the overflow of its exponentials and exact near 0.
fn tanh1(x: f32) -> f32 {
	let a = min(abs(x), 20.0);
	let s = a * a;
	let small = a * (1.0 - s * (0.33333334 - s * (0.13333334 - s * 0.053968254)));
	let large = 1.0 - 2.0 / (exp(2.0 * a) + 1.0);
	return select(large, small, a < 0.1) * sign(x);
}
{{end}}
