// Rotary embedding: a thread for each pair that is rotated and for each element
// that is not. The angle of position p is the sum of those of p>>8 and p&255,
// whose cosines and sines were computed in float64: a float32 angle would be off
// by 0.004 at position 100,000.
{{template "step" .}}
{{template "flat"}}
{{template "position" .}}
@group(0) @binding(1) var<storage, read> far: array<vec2<f32>>;  // ((p>>8) + 1, pair)
@group(0) @binding(2) var<storage, read> near: array<vec2<f32>>; // (p&255, pair), times the magnitude
@group(0) @binding(3) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

const HEADS: u32 = {{.Heads}}u;
const DIM: u32 = {{.HeadDim}}u;
const PAIRS: u32 = {{.Pairs}}u;
const THREADS: u32 = DIM - PAIRS; // a head

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
	let n = flat(group, thread);
	let i = n % THREADS;
	let head = n / THREADS;
	let row = head / HEADS;
	if row >= step[0].x { return; }
	let at = head * DIM;
	if i >= PAIRS {
		y[at + PAIRS + i] = x[at + PAIRS + i];
		return;
	}
	let p = position(row);
	let a = far[u32((p >> 8u) + 1) * PAIRS + i];
	let b = near[u32(p & 255) * PAIRS + i];
	let c = a.x * b.x - a.y * b.y;
	let s = a.y * b.x + a.x * b.y;
{{- if .Interleaved}}
	let j = at + 2u * i;
	let k = j + 1u;
{{- else}}
	let j = at + i;
	let k = j + PAIRS;
{{- end}}
	let u = x[j];
	let v = x[k];
	y[j] = u * c - v * s;
	y[k] = u * s + v * c;
}
