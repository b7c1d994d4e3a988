// Causal attention of one query head of one token: a workgroup. It walks over
// the keys in blocks of 64 and keeps a running maximum, so memory does not grow
// with the context (online softmax: Milakov & Gimelshein 2018).
{{template "step" .}}
{{template "span"}}
{{template "position" .}}
{{if .SoftCap}}{{template "tanh"}}{{end}}
@group(0) @binding(2) var<storage, read> q: array<f32>;
@group(0) @binding(3) var<storage, read> keys: array<{{.Cell}}>;
@group(0) @binding(4) var<storage, read> values: array<{{.Cell}}>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

const DIM: u32 = {{.HeadDim}}u;
const HEADS: u32 = {{.Heads}}u;
const GROUP: u32 = {{.Group}}u; // query heads a key head
const WIDTH: u32 = {{.Width}}u; // numbers a row of the cache
const LOWEST: f32 = -3.0e38;
{{template "view" .X}}
var<workgroup> query: array<f32, {{.HeadDim}}>;
var<workgroup> weight: array<f32, 64>;
{{template "max" .}}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32{{template "lanes" .}}) {
	let head = group.x;
	let row = span.x + group.y;
	let end = u32(clamp(position(row) + 1, 1, i32(span.z)));
{{- if .Window}}
	let start = end - min(end, {{.Window}}u);
{{- else}}
	let start = 0u;
{{- end}}
	let at = (row * HEADS + head) * DIM;
	let src = row * STRIDE + OFFSET + head * DIM;
	let offset = head / GROUP * DIM; // of the head in a row of the cache
	for (var d = thread; d < DIM; d += 64u) { query[d] = q[src + d] * {{float .Scale}}; }
	workgroupBarrier();
	var top = LOWEST;
	var total = 0.0;
	var acc: array<f32, {{.PerThread}}>;
	for (var block = start; block < end; block += 64u) {
		let j = block + thread;
		var score = LOWEST;
		if j < end {
			score = 0.0;
{{- if eq .Cell "u32"}}
			let cell = (j * WIDTH + offset) / 2u;
			for (var d = 0u; d < DIM / 2u; d++) {
				let k = unpack2x16float(keys[cell + d]);
				score += query[2u * d] * k.x + query[2u * d + 1u] * k.y;
			}
{{- else}}
			let cell = j * WIDTH + offset;
			for (var d = 0u; d < DIM; d++) { score += query[d] * keys[cell + d]; }
{{- end}}
{{- if .SoftCap}}
			score = {{float .SoftCap}} * tanh1(score / {{float .SoftCap}});
{{- end}}
		}
		let higher = max(top, max_of(score, thread{{template "lane_arguments" .}}));
		weight[thread] = select(0.0, exp(score - higher), j < end);
		workgroupBarrier();
		let fade = exp(top - higher);
		let n = min(64u, end - block);
		total *= fade;
		for (var i = 0u; i < n; i++) { total += weight[i]; }
		for (var c = 0u; c < {{.PerThread}}u; c++) {
			let d = thread + c * 64u;
			if d < DIM {
				var s = acc[c] * fade;
				for (var i = 0u; i < n; i++) {
					let cell = (block + i) * WIDTH + offset + d;
{{- if eq .Cell "u32"}}
					let pair = unpack2x16float(values[cell >> 1u]);
					s += weight[i] * select(pair.x, pair.y, (cell & 1u) == 1u);
{{- else}}
					s += weight[i] * values[cell];
{{- end}}
				}
				acc[c] = s;
			}
		}
		top = higher;
		workgroupBarrier();
	}
	for (var c = 0u; c < {{.PerThread}}u; c++) {
		let d = thread + c * 64u;
		if d < DIM { y[at + d] = acc[c] / total; }
	}
}
