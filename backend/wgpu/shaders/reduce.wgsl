{{/* Sums and maxima over a workgroup of 64 threads, with subgroups or through
     workgroup memory. All threads must call them and all get the result. */ -}}
{{define "lanes"}}{{if .Subgroups}}, @builtin(subgroup_size) lanes: u32, @builtin(subgroup_invocation_id) lane: u32, @builtin(subgroup_id) part: u32{{end}}{{end}}
{{define "lane_arguments"}}{{if .Subgroups}}, lanes, lane, part{{end}}{{end}}

{{define "sum" -}}
var<workgroup> sum_parts: array<f32, 64>;
{{if .Subgroups -}}
fn sum_of(v: f32, thread: u32, lanes: u32, lane: u32, part: u32) -> f32 {
	let s = subgroupAdd(v);
	if lane == 0u { sum_parts[part] = s; }
	workgroupBarrier();
	var total = 0.0;
	for (var i = 0u; i < 64u / lanes; i++) { total += sum_parts[i]; }
	workgroupBarrier();
	return total;
}
{{- else -}}
fn sum_of(v: f32, thread: u32) -> f32 {
	sum_parts[thread] = v;
	workgroupBarrier();
	for (var n = 32u; n > 0u; n >>= 1u) {
		if thread < n { sum_parts[thread] += sum_parts[thread + n]; }
		workgroupBarrier();
	}
	let total = sum_parts[0];
	workgroupBarrier();
	return total;
}
{{- end}}
{{end}}

{{define "max" -}}
var<workgroup> max_parts: array<f32, 64>;
{{if .Subgroups -}}
fn max_of(v: f32, thread: u32, lanes: u32, lane: u32, part: u32) -> f32 {
	let s = subgroupMax(v);
	if lane == 0u { max_parts[part] = s; }
	workgroupBarrier();
	var top = max_parts[0];
	for (var i = 1u; i < 64u / lanes; i++) { top = max(top, max_parts[i]); }
	workgroupBarrier();
	return top;
}
{{- else -}}
fn max_of(v: f32, thread: u32) -> f32 {
	max_parts[thread] = v;
	workgroupBarrier();
	for (var n = 32u; n > 0u; n >>= 1u) {
		if thread < n { max_parts[thread] = max(max_parts[thread], max_parts[thread + n]); }
		workgroupBarrier();
	}
	let top = max_parts[0];
	workgroupBarrier();
	return top;
}
{{- end}}
{{end}}
