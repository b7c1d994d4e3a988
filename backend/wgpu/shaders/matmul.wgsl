// y = W·x (+ bias): float32 activations times weights as numbers. A workgroup
// computes 8 rows for {{.Tile}} tokens; 8 threads share a row and take eight
// columns in turn. The matrix may be cut into parts of rows; this one begins at
// row FIRST of the result.
{{template "step" .}}
{{template "half"}}
{{if .SoftCap}}{{template "tanh"}}{{end}}
{{template "weights8" .}}
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
{{if .Bias}}@group(0) @binding(4) var<storage, read> bias: array<f32>;{{end}}

const COLS: u32 = {{.Cols}}u;
const FIRST: u32 = {{.First}}u;
const ROWS: u32 = {{.Rows}}u;
const OUT: u32 = {{.Out}}u; // width of y
const TILE: u32 = {{.Tile}}u;

var<workgroup> sums: array<f32, {{mul 64 .Tile}}>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
	let row = (group.y * 32768u + group.x) * 8u + (thread >> 3u);
	let count = step[0].{{if .Wanted}}y{{else}}x{{end}};
	let t0 = group.z * TILE;
	var acc: array<f32, {{.Tile}}>;
	if row < ROWS && t0 < count {
		for (var g = thread & 7u; g < COLS / 8u; g += 8u) {
			let w = weights8(row * {{.RowBytes}}u + g / {{.BlockGroups}}u * {{.BlockBytes}}u, g % {{.BlockGroups}}u);
			for (var t = 0u; t < TILE; t++) {
				// Tokens past the last repeat it and are not stored.
				let at = (min(t0 + t, count - 1u) * COLS + g * 8u) / 4u;
				acc[t] += dot(w.a, x[at]) + dot(w.b, x[at + 1u]);
			}
		}
	}
	for (var t = 0u; t < TILE; t++) { sums[thread * TILE + t] = acc[t]; }
	workgroupBarrier();
	// Each thread adds the 8 parts of one row and token.
	let r = thread / TILE;
	let t = t0 + thread % TILE;
	let out = (group.y * 32768u + group.x) * 8u + r;
	if r >= 8u || out >= ROWS || t >= count { return; }
	var s = 0.0;
	for (var i = 0u; i < 8u; i++) { s += sums[(r * 8u + i) * TILE + thread % TILE]; }
{{- if .Bias}}
	s += bias[FIRST + out];
{{- end}}
{{- if .SoftCap}}
	s = {{float .SoftCap}} * tanh1(s / {{float .SoftCap}});
{{- end}}
	y[t * OUT + FIRST + out] = s;
}
