// Package report writes reports as self-contained HTML pages: no script, no
// font, no image and no style sheet from elsewhere, so that a page can be
// mailed, archived and opened on a phone.
package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"

	"github.com/apr-engine/apr/parity"
)

//go:embed parity.html
var parityPage string

// Parity is what a page about the parity gate shows.
type Parity struct {
	Model  string // file name
	Policy parity.Policy
	Items  []ParityItem // one for each backend
}

// ParityItem is one backend. Bisection is nil where none was made.
type ParityItem struct {
	Verdict   parity.Verdict
	Bisection *parity.Bisection
}

var parityTemplate = template.Must(template.New("parity").Funcs(template.FuncMap{
	"number":   number,
	"first":    first,
	"curves":   curves,
	"heat":     heatMap,
	"legend":   legend,
	"worst":    worstPositions,
	"layers":   layerErrors,
	"values":   worstValues,
	"class":    statusClass,
	"decision": decision,
	"ms":       func(c parity.Cost) string { return fmt.Sprintf("%.1f ms", float64(c.Time.Microseconds())/1000) },
}).Parse(parityPage))

// Write writes the page.
func (p Parity) Write(w io.Writer) error {
	if err := parityTemplate.Execute(w, p); err != nil {
		return fmt.Errorf("parity report: %w", err)
	}
	return nil
}

// number formats a measurement; what could not be computed is a dash.
func number(v float64) string {
	switch {
	case math.IsNaN(v) || v >= math.MaxFloat64 || v < 0:
		return "–"
	case v == 0:
		return "0"
	case v >= 0.01 && v < 1000:
		return fmt.Sprintf("%.4f", v)
	}
	return fmt.Sprintf("%.2e", v)
}

func statusClass(s parity.Status) string {
	switch s {
	case parity.Validated:
		return "pass"
	case parity.Mismatch:
		return "fail"
	}
	return "open"
}

// decision says what the verdict means for a user.
func decision(v parity.Verdict) string {
	switch {
	case v.Override:
		return "The gate was overridden: nothing was proved."
	case v.Status == parity.Validated:
		return "Every position kept every limit: this backend may serve."
	case v.Status == parity.Mismatch:
		return "This backend is wrong on this machine and does not serve."
	}
	return "There is no judgement. This is not a pass."
}

// first is the wrong value that a bisection found; nil if none.
func first(b *parity.Bisection) *parity.ValueError {
	if b == nil || b.First < 0 || b.First >= len(b.Values) {
		return nil
	}
	return &b.Values[b.First]
}

const tableRows = 12

// worstPositions are those that break a limit, in order, then those with the
// least cosine.
func worstPositions(v parity.Verdict) []parity.Position {
	all := slices.Clone(v.Positions)
	slices.SortStableFunc(all, func(a, b parity.Position) int {
		switch {
		case (a.Violation != nil) != (b.Violation != nil):
			if a.Violation != nil {
				return -1
			}
			return 1
		case a.Violation != nil:
			return a.Index - b.Index
		case a.Cosine < b.Cosine:
			return -1
		case a.Cosine > b.Cosine:
			return 1
		}
		return 0
	})
	return all[:min(len(all), tableRows)]
}

// worstValues are the first wrong value and those with the largest growth of
// the error.
func worstValues(b *parity.Bisection) []parity.ValueError {
	all := slices.Clone(b.Values)
	slices.SortStableFunc(all, func(x, y parity.ValueError) int {
		a, b := x.Error/max(x.Input, b.Growth.Floor), y.Error/max(y.Input, b.Growth.Floor)
		switch {
		case a > b:
			return -1
		case a < b:
			return 1
		}
		return 0
	})
	return all[:min(len(all), tableRows)]
}
