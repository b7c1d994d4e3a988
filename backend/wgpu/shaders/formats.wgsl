{{/* The storage formats: weights8 returns 8 neighbours of a row as numbers.
     base is the block's first byte, g which eight of the block. The layouts are
     described in package quant. */ -}}
{{define "weights8" -}}
@group(0) @binding(1) var<storage, read> weights: array<u32>;

struct Eight { a: vec4<f32>, b: vec4<f32> }

fn u8at(at: u32) -> u32 { return (weights[at >> 2u] >> ((at & 3u) * 8u)) & 0xffu; }
fn i8at(at: u32) -> f32 { return f32(i32(u8at(at) << 24u) >> 24u); }
// u16at and u32at read from an even byte.
fn u16at(at: u32) -> u32 { return (weights[at >> 2u] >> ((at & 2u) * 8u)) & 0xffffu; }
fn u32at(at: u32) -> u32 {
	let i = at >> 2u;
	if (at & 2u) == 0u { return weights[i]; }
	return (weights[i] >> 16u) | (weights[i + 1u] << 16u);
}
fn bytes4(w: u32) -> vec4<f32> { return vec4<f32>(vec4<u32>(w, w >> 8u, w >> 16u, w >> 24u) & vec4<u32>(255u)); }
fn nibbles4(w: u32, shift: u32) -> vec4<u32> { return (vec4<u32>(w, w >> 8u, w >> 16u, w >> 24u) >> vec4<u32>(shift)) & vec4<u32>(15u); }
// bits4 are four neighbouring single bits.
fn bits4(w: u32, first: u32) -> vec4<u32> { return (vec4<u32>(w >> first) >> vec4<u32>(0u, 1u, 2u, 3u)) & vec4<u32>(1u); }
fn signed4(w: u32) -> vec4<f32> { return vec4<f32>(vec4<i32>(vec4<u32>(w << 24u, w << 16u, w << 8u, w)) >> vec4<u32>(24u)); }

{{if eq .Type "F32"}}
fn weights8(base: u32, g: u32) -> Eight {
	let i = (base >> 2u) + g * 8u;
	return Eight(
		bitcast<vec4<f32>>(vec4<u32>(weights[i], weights[i + 1u], weights[i + 2u], weights[i + 3u])),
		bitcast<vec4<f32>>(vec4<u32>(weights[i + 4u], weights[i + 5u], weights[i + 6u], weights[i + 7u])));
}
{{else if eq .Type "F16"}}
fn pair(w: u32) -> vec2<f32> { return vec2<f32>(half(w & 0xffffu), half(w >> 16u)); }
fn weights8(base: u32, g: u32) -> Eight {
	let at = base + g * 16u;
	return Eight(vec4<f32>(pair(u32at(at)), pair(u32at(at + 4u))), vec4<f32>(pair(u32at(at + 8u)), pair(u32at(at + 12u))));
}
{{else if eq .Type "BF16"}}
fn pair(w: u32) -> vec2<f32> { return bitcast<vec2<f32>>(vec2<u32>(w << 16u, w & 0xffff0000u)); }
fn weights8(base: u32, g: u32) -> Eight {
	let at = base + g * 16u;
	return Eight(vec4<f32>(pair(u32at(at)), pair(u32at(at + 4u))), vec4<f32>(pair(u32at(at + 8u)), pair(u32at(at + 12u))));
}
{{else if eq .Type "Q4_0"}}
fn weights8(base: u32, g: u32) -> Eight {
	let d = half(u16at(base));
	let at = base + 2u + (g & 1u) * 8u;
	let shift = (g >> 1u) * 4u;
	return Eight(d * (vec4<f32>(nibbles4(u32at(at), shift)) - 8.0), d * (vec4<f32>(nibbles4(u32at(at + 4u), shift)) - 8.0));
}
{{else if eq .Type "Q4_1"}}
fn weights8(base: u32, g: u32) -> Eight {
	let d = half(u16at(base));
	let m = half(u16at(base + 2u));
	let at = base + 4u + (g & 1u) * 8u;
	let shift = (g >> 1u) * 4u;
	return Eight(d * vec4<f32>(nibbles4(u32at(at), shift)) + m, d * vec4<f32>(nibbles4(u32at(at + 4u), shift)) + m);
}
{{else if eq .Type "Q5_0"}}
fn weights8(base: u32, g: u32) -> Eight {
	let d = half(u16at(base));
	let high = u32at(base + 2u);
	let at = base + 6u + (g & 1u) * 8u;
	let shift = (g >> 1u) * 4u;
	return Eight(
		d * (vec4<f32>(nibbles4(u32at(at), shift) | (bits4(high, g * 8u) << vec4<u32>(4u))) - 16.0),
		d * (vec4<f32>(nibbles4(u32at(at + 4u), shift) | (bits4(high, g * 8u + 4u) << vec4<u32>(4u))) - 16.0));
}
{{else if eq .Type "Q5_1"}}
fn weights8(base: u32, g: u32) -> Eight {
	let d = half(u16at(base));
	let m = half(u16at(base + 2u));
	let high = u32at(base + 4u);
	let at = base + 8u + (g & 1u) * 8u;
	let shift = (g >> 1u) * 4u;
	return Eight(
		d * vec4<f32>(nibbles4(u32at(at), shift) | (bits4(high, g * 8u) << vec4<u32>(4u))) + m,
		d * vec4<f32>(nibbles4(u32at(at + 4u), shift) | (bits4(high, g * 8u + 4u) << vec4<u32>(4u))) + m);
}
{{else if eq .Type "Q8_0"}}
fn weights8(base: u32, g: u32) -> Eight {
	let d = half(u16at(base));
	let at = base + 2u + g * 8u;
	return Eight(d * signed4(u32at(at)), d * signed4(u32at(at + 4u)));
}
{{else if eq .Type "Q2_K"}}
fn weights8(base: u32, g: u32) -> Eight {
	let s = u8at(base + (g >> 1u));
	let d = half(u16at(base + 80u)) * f32(s & 15u);
	let m = half(u16at(base + 82u)) * f32(s >> 4u);
	let at = base + 16u + (g >> 4u) * 32u + (g & 3u) * 8u;
	let shift = ((g >> 2u) & 3u) * 2u;
	return Eight(
		d * vec4<f32>(nibbles4(u32at(at), shift) & vec4<u32>(3u)) - m,
		d * vec4<f32>(nibbles4(u32at(at + 4u), shift) & vec4<u32>(3u)) - m);
}
{{else if eq .Type "Q3_K"}}
fn weights8(base: u32, g: u32) -> Eight {
	let s = g >> 1u;
	let low = (u8at(base + 96u + (s & 7u)) >> ((s >> 3u) * 4u)) & 15u;
	let top = (u8at(base + 104u + (s & 3u)) >> ((s >> 2u) * 2u)) & 3u;
	let d = half(u16at(base + 108u)) * (f32(low | (top << 4u)) - 32.0);
	let at = base + 32u + (g >> 4u) * 32u + (g & 3u) * 8u;
	let mask = base + (g & 3u) * 8u;
	let shift = ((g >> 2u) & 3u) * 2u;
	let bit = g >> 2u;
	let a = (nibbles4(u32at(at), shift) & vec4<u32>(3u)) | (((vec4<u32>(bytes4(u32at(mask))) >> vec4<u32>(bit)) & vec4<u32>(1u)) << vec4<u32>(2u));
	let b = (nibbles4(u32at(at + 4u), shift) & vec4<u32>(3u)) | (((vec4<u32>(bytes4(u32at(mask + 4u))) >> vec4<u32>(bit)) & vec4<u32>(1u)) << vec4<u32>(2u));
	return Eight(d * (vec4<f32>(a) - 4.0), d * (vec4<f32>(b) - 4.0));
}
{{else if or (eq .Type "Q4_K") (eq .Type "Q5_K")}}
// scale_min are the 6-bit scale and minimum of 32 numbers.
fn scale_min(base: u32, s: u32) -> vec2<f32> {
	if s < 4u { return vec2<f32>(f32(u8at(base + s) & 63u), f32(u8at(base + s + 4u) & 63u)); }
	let low = u8at(base + s + 4u);
	return vec2<f32>(f32((low & 15u) | ((u8at(base + s - 4u) >> 6u) << 4u)), f32((low >> 4u) | ((u8at(base + s) >> 6u) << 4u)));
}
fn weights8(base: u32, g: u32) -> Eight {
	let s = g >> 2u;
	let sm = scale_min(base + 4u, s);
	let d = half(u16at(base)) * sm.x;
	let m = half(u16at(base + 2u)) * sm.y;
	let shift = (s & 1u) * 4u;
{{- if eq .Type "Q4_K"}}
	let at = base + 16u + (s >> 1u) * 32u + (g & 3u) * 8u;
	let a = nibbles4(u32at(at), shift);
	let b = nibbles4(u32at(at + 4u), shift);
{{- else}}
	let at = base + 48u + (s >> 1u) * 32u + (g & 3u) * 8u;
	let high = base + 16u + (g & 3u) * 8u;
	let a = nibbles4(u32at(at), shift) | (((vec4<u32>(bytes4(u32at(high))) >> vec4<u32>(s)) & vec4<u32>(1u)) << vec4<u32>(4u));
	let b = nibbles4(u32at(at + 4u), shift) | (((vec4<u32>(bytes4(u32at(high + 4u))) >> vec4<u32>(s)) & vec4<u32>(1u)) << vec4<u32>(4u));
{{- end}}
	return Eight(d * vec4<f32>(a) - m, d * vec4<f32>(b) - m);
}
{{else if eq .Type "Q6_K"}}
fn weights8(base: u32, g: u32) -> Eight {
	let n = g >> 4u; // half of the block
	let q = (g >> 2u) & 3u; // quarter of the half
	let d = half(u16at(base + 208u)) * i8at(base + 192u + (g >> 1u));
	let low = base + n * 64u + (q & 1u) * 32u + (g & 3u) * 8u;
	let high = base + 128u + n * 32u + (g & 3u) * 8u;
	let shift = (q >> 1u) * 4u;
	let a = nibbles4(u32at(low), shift) | (((vec4<u32>(bytes4(u32at(high))) >> vec4<u32>(2u * q)) & vec4<u32>(3u)) << vec4<u32>(4u));
	let b = nibbles4(u32at(low + 4u), shift) | (((vec4<u32>(bytes4(u32at(high + 4u))) >> vec4<u32>(2u * q)) & vec4<u32>(3u)) << vec4<u32>(4u));
	return Eight(d * (vec4<f32>(a) - 32.0), d * (vec4<f32>(b) - 32.0));
}
{{else if or (eq .Type "IQ4_NL") (eq .Type "IQ4_XS")}}
// The 16 levels plus 128, four to a word.
fn level(q: u32) -> f32 {
	var words = array<u32, 4>(0x3f2d1801u, 0x766a5d4fu, 0xa6998d81u, 0xf1d9c5b5u);
	return f32((words[q >> 2u] >> ((q & 3u) * 8u)) & 255u) - 128.0;
}
fn levels4(q: vec4<u32>) -> vec4<f32> { return vec4<f32>(level(q.x), level(q.y), level(q.z), level(q.w)); }
fn weights8(base: u32, g: u32) -> Eight {
{{- if eq .Type "IQ4_NL"}}
	let d = half(u16at(base));
	let at = base + 2u + (g & 1u) * 8u;
{{- else}}
	let s = g >> 2u;
	let low = (u8at(base + 4u + (s >> 1u)) >> ((s & 1u) * 4u)) & 15u;
	let top = (u16at(base + 2u) >> (s * 2u)) & 3u;
	let d = half(u16at(base)) * (f32(low | (top << 4u)) - 32.0);
	let at = base + 8u + s * 16u + (g & 1u) * 8u;
{{- end}}
	let shift = ((g >> 1u) & 1u) * 4u;
	return Eight(d * levels4(nibbles4(u32at(at), shift)), d * levels4(nibbles4(u32at(at + 4u), shift)));
}
{{end}}
{{end}}
