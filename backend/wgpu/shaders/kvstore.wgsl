// Keys and values of a span into its sequence's cache (position, head · dim).
// Half-precision caches hold two numbers a word.
{{template "step" .}}
{{template "span"}}
{{template "flat"}}
{{template "position" .}}
{{template "half"}}
@group(0) @binding(2) var<storage, read> k: array<f32>;
@group(0) @binding(3) var<storage, read> v: array<f32>;
@group(0) @binding(4) var<storage, read_write> keys: array<{{.Cell}}>;
@group(0) @binding(5) var<storage, read_write> values: array<{{.Cell}}>;

const CELLS: u32 = {{.Cells}}u; // a row of the cache

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
	let n = flat(group, thread);
	let i = n % CELLS;
	if n / CELLS >= span.y { return; }
	let row = span.x + n / CELLS;
	let p = position(row);
	if p < 0 || p >= i32(span.z) { return; } // only a misplaced one
	let to = u32(p) * CELLS + i;
{{- if eq .Cell "u32"}}
	let a = row * {{.K.Stride}}u + {{.K.Offset}}u + 2u * i;
	let b = row * {{.V.Stride}}u + {{.V.Offset}}u + 2u * i;
	keys[to] = to_half(k[a]) | (to_half(k[a + 1u]) << 16u);
	values[to] = to_half(v[b]) | (to_half(v[b + 1u]) << 16u);
{{- else}}
	keys[to] = k[row * {{.K.Stride}}u + {{.K.Offset}}u + i];
	values[to] = v[row * {{.V.Stride}}u + {{.V.Offset}}u + i];
{{- end}}
}
