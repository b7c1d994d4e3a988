// Each token's row of the embedding matrix, eight numbers a thread. The matrix
// may be cut into parts of rows; this one holds FIRST to FIRST+ROWS.
{{template "step" .}}
{{template "flat"}}
{{template "half"}}
{{template "weights8" .}}
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;

const COLS: u32 = {{.Cols}}u;
const FIRST: u32 = {{.First}}u;
const ROWS: u32 = {{.Rows}}u;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
	let i = flat(group, thread);
	let row = i / (COLS / 8u);
	let g = i % (COLS / 8u);
	if row >= step[0].x { return; }
	let token = step[1u + row].x - FIRST;
	if token >= ROWS { return; }
	let w = weights8(token * {{.RowBytes}}u + g / {{.BlockGroups}}u * {{.BlockBytes}}u, g % {{.BlockGroups}}u);
	y[i * 2u] = w.a;
	y[i * 2u + 1u] = w.b;
}
