package report_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strings"
	"testing"

	"github.com/apr-engine/apr/parity"
	"github.com/apr-engine/apr/report"
)

// position has an error that grows with the position.
func position(i int, phase parity.Phase, p parity.Policy) parity.Position {
	e := 1e-4 * math.Pow(1.12, float64(i))
	x := parity.Position{Index: i, Token: int32(i), Phase: phase, Metrics: parity.Metrics{
		Cosine: 1 - e*e, KL: e * e, MaxAbs: e, Peak: 3 * e, Close: 1, Overlap: 9, ReferenceArgmax: 5, CandidateArgmax: 5,
		ReferenceFinite: true, CandidateFinite: true,
	}}
	if x.Violation = p.Judge(x.Metrics, "cpu-exact"); x.Violation != nil {
		x.Violation.Position = i
	}
	return x
}

func sample(positions, layers int) report.Parity {
	p := parity.Standard()
	v := parity.Verdict{Status: parity.Validated, Backend: "cpu", Device: "amd64", Reference: "cpu-exact", Policy: p.Name, Covered: []string{"matmul/Q4_K/i16/decode", "attention/kv-F16/batch"}}
	b := parity.Bisection{Reference: "cpu-exact", Candidate: "cpu", Tokens: positions, Decoded: positions / 6, First: -1, Reason: "no value is off", Growth: parity.SoundGrowth()}
	for i := range positions {
		phase := parity.Prefill
		if i >= positions-b.Decoded {
			phase = parity.Decode
		}
		v.Positions = append(v.Positions, position(i, phase, p))
		if w := v.Positions[i].Violation; w != nil && v.Violation == nil {
			v.Status, v.Violation, v.Reason = parity.Mismatch, w, fmt.Sprintf("%s at position %d", w.Text, i)
		}
	}
	for l := range layers {
		for _, name := range []string{"attn_norm", "attn", "ffn_act", "l_out"} {
			x := parity.ValueError{Name: fmt.Sprintf("blk.%d.%s", l, name), Operation: "matmul", Layer: l, Position: positions - 1}
			for i := range positions {
				e := 1e-5 * math.Pow(1.06, float64(i)) * float64(l+1)
				x.Rows, x.Error = append(x.Rows, e), max(x.Error, e)
			}
			b.Values = append(b.Values, x)
		}
	}
	b.First, b.Reason = 5, "blk.1.attn (attention) is off by 0.2 at position 60, its inputs by 0.001"
	return report.Parity{Model: "tiny <b>model</b>.gguf", Policy: p, Items: []report.ParityItem{{Verdict: v, Bisection: &b}}}
}

func render(t *testing.T, p report.Parity) string {
	t.Helper()
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// outside matches everything a browser would fetch or run.
var outside = regexp.MustCompile(`(?i)https?://|<script|<link|<img|<iframe|@import|url\(|src=|\bon[a-z]+=`)

func TestPageIsSelfContained(t *testing.T) {
	page := render(t, sample(72, 8))
	if found := outside.FindString(page); found != "" {
		t.Errorf("the page refers to something outside: %q", found)
	}
	if strings.Contains(page, "<b>model") {
		t.Error("the model's name is not escaped")
	}
	for _, want := range []string{
		`name="viewport"`, "mismatch", "heat map of layers by positions", "1 − cosine", "KL divergence",
		"blk.1.attn (attention)", "matmul/Q4_K/i16/decode", "min_cosine", "Worst positions", "Worst values",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Contains(page, "NaN") || strings.Contains(page, "ZgotmplZ") || strings.Contains(page, "1.797693") {
		t.Error("the page shows a number that is none")
	}
	if n := strings.Count(page, `<rect class="h`); n != 8*72 {
		t.Errorf("%d cells in the heat map, want one for each layer and position: %d", n, 8*72)
	}
}

func TestPageOfEveryStatus(t *testing.T) {
	p := parity.Standard()
	broken := parity.Compare([]float32{1, 2, 3}, []float32{1, float32(math.NaN()), 3})
	for _, tt := range []struct {
		name string
		v    parity.Verdict
		want []string
	}{
		{"validated", parity.Verdict{Status: parity.Validated}, []string{`verdict pass`, "may serve"}},
		{"not measured", parity.Verdict{Reason: "no prompt"}, []string{`verdict open`, "not a pass", "no prompt"}},
		{"not finite", parity.Verdict{Status: parity.Mismatch, Positions: []parity.Position{{Metrics: broken, Violation: p.Judge(broken, "cpu-exact")}}}, []string{`verdict fail`, "does not serve", "dot bad"}},
		{"overridden", parity.Verdict{Override: true}, []string{"nothing was proved"}},
		{"faults", parity.Verdict{Status: parity.Mismatch, Fault: "cpu:kv-drift"}, []string{"cpu:kv-drift", "on purpose"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			page := render(t, report.Parity{Model: "m.gguf", Policy: p, Items: []report.ParityItem{{Verdict: tt.v}}})
			for _, want := range tt.want {
				if !strings.Contains(page, want) {
					t.Errorf("the page lacks %q", want)
				}
			}
			if strings.Contains(page, "NaN,") || strings.Contains(page, "Inf") {
				t.Error("a drawing has a coordinate that is no number")
			}
		})
	}
}

// A page of the largest probe stays small enough to mail.
func TestPageSize(t *testing.T) {
	if n := len(render(t, sample(96, 80))); n > 2<<20 {
		t.Errorf("the page has %d bytes", n)
	}
}

type fullDisk struct{}

var errFull = errors.New("disk full")

func (fullDisk) Write([]byte) (int, error) { return 0, errFull }

func TestWriteFails(t *testing.T) {
	if err := sample(4, 1).Write(fullDisk{}); !errors.Is(err, errFull) {
		t.Errorf("error %v, want %v", err, errFull)
	}
}
