package parity_test

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/apr-engine/apr/parity"
)

func random(n int, seed uint64) []float32 {
	rng := rand.New(rand.NewPCG(seed, 1))
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(3 * rng.NormFloat64())
	}
	return x
}

func TestCompareEqual(t *testing.T) {
	x := random(5000, 1)
	m := parity.Compare(x, slices.Clone(x))
	// The cosine of a vector with itself may be one rounding off.
	if !(math.Abs(m.Cosine-1) <= 1e-12) || m.KL != 0 || m.MaxAbs != 0 || m.Peak != 0 || m.Close != 1 || m.Overlap != 10 ||
		m.ReferenceMargin != 0 || m.CandidateMargin != 0 || !m.ReferenceFinite || !m.CandidateFinite {
		t.Errorf("%+v", m)
	}
	if v := parity.Standard().Judge(m, "x"); v != nil {
		t.Error(v)
	}
}

// The figures of a case small enough to compute by hand.
func TestCompareByHand(t *testing.T) {
	ref, cand := []float32{3, 0, 4, -7}, []float32{3, 0, 0, -7}
	m := parity.Compare(ref, cand)
	wantCosine := (9.0 + 49.0) / math.Sqrt((9+16+49)*(9+49))
	if !(math.Abs(m.Cosine-wantCosine) <= 1e-12) {
		t.Errorf("cosine %v, want %v", m.Cosine, wantCosine)
	}
	if m.MaxAbs != 4 || m.ReferenceArgmax != 2 || m.CandidateArgmax != 0 {
		t.Errorf("%+v", m)
	}
	// Mean 0, mean square 18.5.
	if want := 4 / math.Sqrt(18.5); !(math.Abs(m.Peak-want) <= 1e-12) || !(math.Abs(m.RMS-want/2) <= 1e-12) {
		t.Errorf("peak %v, RMS %v; want %v and half of it", m.Peak, m.RMS, want)
	}
	if m.Close != 0.75 {
		t.Errorf("%v close, want 3 of 4", m.Close)
	}
	// Best and worst of the reference's four are 11 apart.
	if !(math.Abs(m.ReferenceMargin-1.0/11) <= 1e-12) || !(math.Abs(m.CandidateMargin-3.0/11) <= 1e-12) {
		t.Errorf("margins %v and %v, want 1/11 and 3/11", m.ReferenceMargin, m.CandidateMargin)
	}
	sum := func(x []float32) (s float64) {
		for _, v := range x {
			s += math.Exp(float64(v))
		}
		return s
	}
	kl := 0.0
	for i := range ref {
		p, q := math.Exp(float64(ref[i]))/sum(ref), math.Exp(float64(cand[i]))/sum(cand)
		kl += p * math.Log(p/q)
	}
	if !(math.Abs(m.KL-kl) <= 1e-12) {
		t.Errorf("KL %v, want %v", m.KL, kl)
	}
}

// The divergence is right for any spread of logits, to the digits that a sum has.
func TestDivergence(t *testing.T) {
	for _, spread := range []float64{1e-3, 1, 10, 100, 1000} {
		ref, cand := random(20000, 3), random(20000, 4)
		for i := range ref {
			ref[i] *= float32(spread)
			cand[i] = ref[i] + 0.1*cand[i]
		}
		logs := func(x []float32) []float64 {
			most, sum := float64(slices.Max(x)), 0.0
			for _, v := range x {
				sum += math.Exp(float64(v) - most)
			}
			out := make([]float64, len(x))
			for i, v := range x {
				out[i] = float64(v) - most - math.Log(sum)
			}
			return out
		}
		want, p, q := 0.0, logs(ref), logs(cand)
		for i := range p {
			want += math.Exp(p[i]) * (p[i] - q[i])
		}
		if got := parity.Compare(ref, cand).KL; !(math.Abs(got-want) <= 1e-12*(1+want)) {
			t.Errorf("spread %g: KL %v, want %v", spread, got, want)
		}
	}
}

// Nothing that is not a number, and nothing of the wrong length, passes any
// policy, on either side.
func TestNothingBrokenPasses(t *testing.T) {
	good := random(100, 2)
	change := func(f func(x []float32)) []float32 {
		x := slices.Clone(good)
		f(x)
		return x
	}
	inf := float32(math.Inf(1))
	broken := map[string][]float32{
		"one NaN":      change(func(x []float32) { x[99] = notANumber() }),
		"all NaN":      slices.Repeat([]float32{notANumber()}, 100),
		"infinity":     change(func(x []float32) { x[0] = inf }),
		"-infinity":    change(func(x []float32) { x[5] = -inf }),
		"short":        good[:99],
		"long":         append(slices.Clone(good), 0),
		"empty":        nil,
		"zero":         make([]float32, 100),
		"all the same": slices.Repeat([]float32{1}, 100),
		"negated": change(func(x []float32) {
			for i := range x {
				x[i] = -x[i]
			}
		}),
		"largest float": slices.Repeat([]float32{math.MaxFloat32}, 100),
	}
	for name, x := range broken {
		for _, p := range parity.Policies() {
			m := parity.Compare(good, x)
			if v := p.Judge(m, "ref"); v == nil {
				t.Errorf("%s: a candidate like this passes %s: %+v", name, p.Name, m)
			}
			if _, err := json.Marshal(m); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if name == "all the same" || name == "largest float" || name == "negated" {
				continue
			}
			m = parity.Compare(x, good)
			if v := p.Judge(m, "ref"); v == nil && m.ReferenceFinite {
				t.Errorf("%s: with a reference like this a candidate passes %s: %+v", name, p.Name, m)
			}
		}
	}
	if v := parity.Standard().Judge(parity.Metrics{}, "ref"); v == nil {
		t.Error("metrics that nobody measured pass")
	}
	nan := math.NaN()
	m := parity.Compare(good, good)
	m.Cosine = nan
	if parity.Standard().Judge(m, "ref") == nil {
		t.Error("a cosine of NaN passes")
	}
	m = parity.Compare(good, good)
	m.KL = nan
	if parity.Standard().Judge(m, "ref") == nil {
		t.Error("a KL of NaN passes")
	}
}

// A wrong tile of 64 logits among 150,000 hides from the cosine but not from
// the limits on the error.
func TestLocalFaults(t *testing.T) {
	ref := random(150_000, 3)
	noise := random(len(ref), 4)
	cand := slices.Clone(ref)
	for i := range cand {
		cand[i] += 0.02 * noise[i] // a sound backend in half precision
	}
	if v := parity.Standard().Judge(parity.Compare(ref, cand), "ref"); v != nil {
		t.Fatalf("sound noise is rejected: %s", v.Text)
	}
	for _, tt := range []struct {
		name  string
		spoil func(x []float32)
	}{
		{"tile of zeros", func(x []float32) { clear(x[1024:1088]) }},
		{"tile from elsewhere", func(x []float32) { copy(x[1024:1088], x[4096:]) }},
		{"one wild logit", func(x []float32) { x[77] -= 9 }},
		{"last tile missing", func(x []float32) { clear(x[len(x)-48:]) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := slices.Clone(cand)
			tt.spoil(x)
			m := parity.Compare(ref, x)
			if m.Cosine < 0.99 {
				t.Fatalf("cosine %v: this case does not hide", m.Cosine)
			}
			if v := parity.Standard().Judge(m, "ref"); v == nil {
				t.Errorf("passes: %+v", m)
			}
		})
	}
}

func TestNearTie(t *testing.T) {
	ref := random(4096, 5)
	for i := range 10 {
		ref[i] = 20 - float32(i) // a spread of 9 between the best and the tenth
	}
	for _, tt := range []struct {
		name string
		gap  float32 // between the best two on both sides, exchanged
		ok   bool
	}{
		{"tie", 0, true},
		{"within the margin", 0.4, true}, // of 0.05·9 = 0.45
		{"beyond the margin", 0.5, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, c := slices.Clone(ref), slices.Clone(ref)
			r[0], r[1], c[0], c[1] = 20, 20-tt.gap, 20-tt.gap, 20
			p := parity.Standard()
			p.MaxKL = 1 // exchanging two likely tokens is divergent by itself
			v := p.Judge(parity.Compare(r, c), "ref")
			if (v == nil) != tt.ok {
				t.Errorf("%+v, want pass %v", v, tt.ok)
			}
			if v != nil && v.Metric != "argmax" {
				t.Errorf("rejected for %s", v.Metric)
			}
		})
	}
}

func TestVerdictJSON(t *testing.T) {
	for name, cand := range map[string]*toy{"pass": {}, "NaN": spoil(3, func(row []float32) { row[0] = notANumber() })} {
		v := probe(t, cand, toyCase(20))
		data, err := v.JSON()
		if err != nil {
			t.Fatal(err)
		}
		var back parity.Verdict
		if err := json.Unmarshal(data, &back); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(v, back) {
			t.Errorf("%s: the verdict changes on its way through JSON", name)
		}
	}
	var zero, back parity.Verdict
	if zero.Status != parity.NotMeasured || zero.Passed() || zero.Err() == nil {
		t.Error("the zero verdict is not 'not measured'")
	}
	if err := json.Unmarshal([]byte(`{}`), &back); err != nil || back.Passed() {
		t.Errorf("an empty object: %v, %v", back.Status, err)
	}
	if err := json.Unmarshal([]byte(`{"status": "fine"}`), &back); err == nil {
		t.Error("an unknown status is accepted")
	}
}

func TestPolicies(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range parity.Policies() {
		if seen[p.Hash()] || p.Hash() == "" {
			t.Errorf("%s has hash %q", p.Name, p.Hash())
		}
		seen[p.Hash()] = true
		got, err := parity.PolicyByName(p.Name)
		if err != nil || got.Hash() != p.Hash() {
			t.Errorf("%s: %v", p.Name, err)
		}
	}
	if _, err := parity.PolicyByName("lax"); err == nil {
		t.Error("an unknown policy is found")
	}
	// Every threshold of the policy in use says where it comes from.
	for _, row := range parity.Standard().Thresholds() {
		if row[2] == "" && row[1] != "false" {
			t.Errorf("%s = %s has no basis", row[0], row[1])
		}
	}
	a, b := parity.Standard(), parity.Standard()
	b.Basis = nil
	if a.Hash() != b.Hash() {
		t.Error("texts change the hash")
	}
	b.MinCosine = 0.98
	if a.Hash() == b.Hash() {
		t.Error("a threshold does not change the hash")
	}
}

// Percentiles are those of the sorted errors, also where many are equal.
func TestPercentiles(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 8))
	for _, n := range []int{1, 2, 3, 99, 100, 101, 1000, 4096} {
		for _, kinds := range []int{1, 2, 5, 1 << 20} {
			ref, cand := random(n, uint64(n)), make([]float32, n)
			for i := range ref {
				cand[i] = ref[i] + float32(rng.IntN(kinds))
			}
			var mean, square float64
			for _, v := range ref {
				mean += float64(v) / float64(n)
			}
			for _, v := range ref {
				square += (float64(v) - mean) * (float64(v) - mean) / float64(n)
			}
			if square == 0 {
				continue
			}
			errs := make([]float64, n)
			for i := range ref {
				errs[i] = math.Abs(float64(cand[i])-float64(ref[i])) / math.Sqrt(square)
			}
			slices.Sort(errs)
			m := parity.Compare(ref, cand)
			at := func(q float64) float64 { return errs[max(int(math.Ceil(q*float64(n)))-1, 0)] }
			// Sums in another order differ in the last digits of the scale.
			for _, p := range [][2]float64{{m.P99, at(0.99)}, {m.P999, at(0.999)}, {m.Peak, errs[n-1]}} {
				if !(math.Abs(p[0]-p[1]) <= 1e-9*(1+p[1])) {
					t.Errorf("%d errors of %d kinds: %v, want %v", n, kinds, p[0], p[1])
				}
			}
		}
	}
}

func BenchmarkCompare(b *testing.B) {
	for _, n := range []int{4096, 151936} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			ref, cand := random(n, 1), random(n, 2)
			for b.Loop() {
				parity.Compare(ref, cand)
			}
		})
	}
}
