// y = x / sqrt(mean(x²) + EPS) · w for each segment of a row: a workgroup each.
{{template "step" .}}
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

const SEGMENT: u32 = {{.Segment}}u;
const SEGMENTS: u32 = {{.Segments}}u; // in a row
{{template "view" .X}}
{{template "sum" .}}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32{{template "lanes" .}}) {
	let segment = group.y * 32768u + group.x;
	if segment >= step[0].x * SEGMENTS { return; }
	let at = segment * SEGMENT;
	let src = segment / SEGMENTS * STRIDE + OFFSET + segment % SEGMENTS * SEGMENT;
	var s = 0.0;
	for (var i = thread; i < SEGMENT; i += 64u) { s += x[src + i] * x[src + i]; }
	let total = sum_of(s, thread{{template "lane_arguments" .}});
	let inv = 1.0 / sqrt(total / f32(SEGMENT) + {{float .Eps}});
	for (var i = thread; i < SEGMENT; i += 64u) { y[at + i] = x[src + i] * inv * w[i]; }
}
