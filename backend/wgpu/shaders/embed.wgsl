// Each token's row of the embedding matrix, 32 numbers a thread. The matrix may
// be cut into parts of rows; this one holds FIRST to FIRST+ROWS.
{{template "step" .}}
{{template "flat"}}
@group(0) @binding(1) var<storage, read> w: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;
{{.Reader}}

const GROUPS: u32 = {{.Groups}}u; // of 32 in a row
const FIRST: u32 = {{.First}}u;
const ROWS: u32 = {{.Rows}}u;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
	let i = flat(group, thread);
	let row = i / GROUPS;
	if row >= step[0].x { return; }
	let token = step[1u + row].x - FIRST;
	if token >= ROWS { return; }
	var v = w_dequant32(token, i % GROUPS);
	for (var j = 0u; j < 8u; j++) { y[i * 8u + j] = v[j]; }
}
