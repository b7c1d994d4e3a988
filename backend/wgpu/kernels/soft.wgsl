fn soft(v: f32) -> f32 {
  let a = min(abs(v / {{.}}), 15.0);
  let e = exp(2.0 * a);
  let s = a * a;
  return {{.}} * sign(v) * select((e - 1.0) / (e + 1.0), a * (1.0 - s * (0.33333334 - s * 0.13333334)), a < 0.05);
}
fn soft4(v: vec4<f32>) -> vec4<f32> { return vec4<f32>(soft(v.x), soft(v.y), soft(v.z), soft(v.w)); }
