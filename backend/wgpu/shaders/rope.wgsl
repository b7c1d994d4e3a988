// Rotary embedding: a thread for each pair that is rotated and for each element
// that is not.
{{template "step" .}}
{{template "flat"}}
{{template "position" .}}
@group(0) @binding(1) var<storage, read> far: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read> near: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

const HEADS: u32 = {{.Heads}}u;
const DIM: u32 = {{.HeadDim}}u;
const PAIRS: u32 = {{.Pairs}}u;
const THREADS: u32 = DIM - PAIRS; // a head
{{template "view" .X}}

// angle is the cosine and sine, times the magnitude, of pair i at position p. The
// angle is the sum of those of p>>8 (from -1 on) and of p&255, whose cosines and
// sines were computed in float64: a float32 angle would be off by 0.004 at position
// 100,000.
fn angle(p: i32, i: u32) -> vec2<f32> {
	let a = far[u32((p >> 8u) + 1) * PAIRS + i];
	let b = near[u32(p & 255) * PAIRS + i];
	return vec2<f32>(a.x * b.x - a.y * b.y, a.y * b.x + a.x * b.y);
}
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
	let n = flat(group, thread);
	let i = n % THREADS;
	let head = n / THREADS;
	let row = head / HEADS;
	if row >= step[0].x { return; }
	let at = head * DIM;
	let src = row * STRIDE + OFFSET + head % HEADS * DIM;
	if i >= PAIRS {
		y[at + PAIRS + i] = x[src + PAIRS + i];
		return;
	}
	let a = angle(position(row), i);
{{- if .Interleaved}}
	let j = 2u * i;
	let k = j + 1u;
{{- else}}
	let j = i;
	let k = i + PAIRS;
{{- end}}
	let u = x[src + j];
	let v = x[src + k];
	y[at + j] = u * a.x - v * a.y;
	y[at + k] = u * a.y + v * a.x;
}
