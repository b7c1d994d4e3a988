package report

import (
	"fmt"
	"html/template"
	"math"
	"strings"

	"github.com/apr-engine/apr/parity"
)

// The drawings are SVG with a viewBox and no size of their own: the page gives
// them its width. Text in them is sized for a phone, where 360 units are about
// 360 pixels.
const (
	chartWidth  = 360.0
	chartHeight = 150.0
	chartLeft   = 44.0
	chartBottom = 18.0
	chartTop    = 12.0
)

// chart is one curve over positions on a logarithmic scale.
type chart struct {
	Title string
	Note  string
	SVG   template.HTML
}

// curves draws the metrics of a verdict over its positions.
func curves(v parity.Verdict, p parity.Policy) []chart {
	if len(v.Positions) == 0 {
		return nil
	}
	p = p.For(v.Backend) // its limits may be tighter
	series := []struct {
		title, note string
		limit       float64
		of          func(parity.Position) float64
	}{
		{"1 − cosine", "direction of the logits; above the line is wrong", 1 - p.MinCosine, func(x parity.Position) float64 { return 1 - x.Cosine }},
		{"KL divergence", "nats; how different the predictions are", p.MaxKL, func(x parity.Position) float64 { return x.KL }},
		{"largest error", "of any logit, in standard deviations of the logits", p.MaxPeak, func(x parity.Position) float64 { return x.Peak }},
	}
	var charts []chart
	for i, s := range series {
		if p.CosineOnly && i > 0 {
			break // the policy has no other limits
		}
		values := make([]float64, len(v.Positions))
		for j, x := range v.Positions {
			values[j] = s.of(x)
		}
		charts = append(charts, chart{s.title, s.note, curve(s.title, values, v.Positions, s.limit)})
	}
	return charts
}

// curve draws values on a scale of powers of ten with a line at the limit.
func curve(title string, values []float64, at []parity.Position, limit float64) template.HTML {
	const least = 1e-9 // below it curves are flat: rounding of the metrics themselves
	lo, hi := math.Inf(1), math.Inf(-1)
	for _, v := range append([]float64{limit}, values...) {
		if v > 0 && v <= 1e6 {
			lo, hi = math.Min(lo, math.Max(v, least)), math.Max(hi, v)
		}
	}
	if lo > hi {
		lo, hi = least, 1
	}
	from, to := math.Floor(math.Log10(lo)), math.Ceil(math.Log10(hi)+1e-9)
	if to <= from {
		to = from + 1
	}
	y := func(v float64) float64 {
		l := math.Log10(math.Max(math.Min(v, 1e6), least))
		if !(v == v) {
			l = to
		}
		share := math.Min(math.Max((l-from)/(to-from), 0), 1)
		return chartHeight - chartBottom - share*(chartHeight-chartBottom-chartTop)
	}
	x := func(i int) float64 {
		return chartLeft + (chartWidth-chartLeft-6)*float64(i)/float64(max(len(values)-1, 1))
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %g %g" role="img" aria-label="%s">`, chartWidth, chartHeight, template.HTMLEscapeString(title))
	step := math.Max(1, math.Ceil((to-from)/4))
	for e := from; e <= to; e += step {
		at := y(math.Pow(10, e))
		fmt.Fprintf(&b, `<line class="grid" x1="%g" x2="%g" y1="%.1f" y2="%.1f"/><text x="%g" y="%.1f" text-anchor="end">%s</text>`,
			chartLeft, chartWidth-6, at, at, chartLeft-4, at+3.5, power(e))
	}
	fmt.Fprintf(&b, `<line class="limit" x1="%g" x2="%g" y1="%.1f" y2="%.1f"/>`, chartLeft, chartWidth-6, y(limit), y(limit))
	for i, a := range at {
		if i > 0 && a.Phase == at[i-1].Phase {
			continue
		}
		// The curve runs through the phases of the probe one after the other.
		fmt.Fprintf(&b, `<line class="grid" x1="%.1f" x2="%.1f" y1="%g" y2="%g"/><text x="%.1f" y="%g">%s</text>`,
			x(i), x(i), chartTop, chartHeight-chartBottom, x(i)+2, chartTop, template.HTMLEscapeString(string(a.Phase)))
	}
	b.WriteString(`<polyline class="line" points="`)
	for i, v := range values {
		fmt.Fprintf(&b, "%.1f,%.1f ", x(i), y(v))
	}
	b.WriteString(`"/>`)
	for i, v := range values {
		class := "dot"
		if at[i].Violation != nil {
			class = "dot bad"
		} else if len(values) > 80 {
			continue // a dot for each would hide the curve
		}
		fmt.Fprintf(&b, `<circle class="%s" cx="%.1f" cy="%.1f" r="2"><title>position %d (%s): %s</title></circle>`,
			class, x(i), y(v), at[i].Index, template.HTMLEscapeString(string(at[i].Phase)), number(v))
	}
	last := len(values) - 1
	fmt.Fprintf(&b, `<text x="%g" y="%g">%d</text><text x="%g" y="%g" text-anchor="end">position %d</text></svg>`,
		chartLeft, chartHeight-4, at[0].Index, chartWidth-6, chartHeight-4, at[last].Index)
	return template.HTML(b.String())
}

// power writes 10ᵉ briefly.
func power(e float64) string {
	if e >= -2 && e <= 2 {
		return fmt.Sprintf("%g", math.Pow(10, e))
	}
	return fmt.Sprintf("1e%.0f", e)
}

// heatRow is one row of the heat map.
type heatRow struct {
	label string
	cells []float64 // by position; negative for none
}

// heatMap draws the largest error of each layer's values at each position.
func heatMap(b *parity.Bisection) template.HTML {
	rows := heatRows(b)
	if len(rows) == 0 || b.Tokens == 0 {
		return ""
	}
	const left, top = 44.0, 4.0
	cell := (chartWidth - left - 6) / float64(b.Tokens)
	height := math.Min(math.Max(240/float64(len(rows)), 7), 22)
	total := top + height*float64(len(rows)) + chartBottom
	var out strings.Builder
	fmt.Fprintf(&out, `<svg viewBox="0 0 %g %.1f" role="img" aria-label="heat map of layers by positions">`, chartWidth, total)
	labelled := math.Inf(-1)
	for r, row := range rows {
		y := top + height*float64(r)
		if y-labelled >= 11 {
			fmt.Fprintf(&out, `<text x="%g" y="%.1f" text-anchor="end">%s</text>`, left-4, y+height/2+3.5, template.HTMLEscapeString(row.label))
			labelled = y
		}
		for p, e := range row.cells {
			if e < 0 {
				continue
			}
			fmt.Fprintf(&out, `<rect class="%s" x="%.2f" y="%.1f" width="%.2f" height="%.1f"><title>%s, position %d: %s</title></rect>`,
				heatClass(e), left+cell*float64(p), y, cell+0.05, height+0.05, template.HTMLEscapeString(row.label), p, number(e))
		}
	}
	if b.Decoded > 0 && b.Decoded < b.Tokens {
		x := left + cell*float64(b.Tokens-b.Decoded)
		fmt.Fprintf(&out, `<line class="limit" x1="%.1f" x2="%.1f" y1="%g" y2="%.1f"/>`, x, x, top, total-chartBottom)
	}
	fmt.Fprintf(&out, `<text x="%g" y="%.1f">0</text><text x="%g" y="%.1f" text-anchor="end">position %d</text></svg>`,
		left, total-4, chartWidth-6, total-4, b.Tokens-1)
	return template.HTML(out.String())
}

// shortNames fit beside the heat map.
var shortNames = map[string]string{
	"token_embd": "embed", "token_embd_scaled": "scaled", "output_norm": "norm", "output": "logits", "logits (returned)": "result",
}

// heatRows groups values by layer, in program order.
func heatRows(b *parity.Bisection) []heatRow {
	var rows []heatRow
	index := map[string]int{}
	for _, v := range b.Values {
		label := v.Name
		if v.Layer >= 0 {
			label = fmt.Sprintf("layer %d", v.Layer)
		} else if short, ok := shortNames[label]; ok {
			label = short
		}
		i, ok := index[label]
		if !ok {
			i = len(rows)
			index[label] = i
			cells := make([]float64, len(v.Rows))
			for p := range cells {
				cells[p] = -1
			}
			rows = append(rows, heatRow{label, cells})
		}
		for p, e := range v.Rows {
			rows[i].cells[p] = math.Max(rows[i].cells[p], e)
		}
	}
	return rows
}

// heatLimits are the lower bounds of the classes h1 to h8; h0 is below.
var heatLimits = []float64{1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.5}

func heatClass(e float64) string {
	class := 0
	for i, limit := range heatLimits {
		if !(e < limit) {
			class = i + 1
		}
	}
	return fmt.Sprintf("h%d", class)
}

// legendItem is one colour with its meaning.
type legendItem struct{ Class, Text string }

func legend() []legendItem {
	items := []legendItem{{"h0", "less"}}
	for i, l := range heatLimits {
		items = append(items, legendItem{fmt.Sprintf("h%d", i+1), fmt.Sprintf("%g", l)})
	}
	return items
}

// layerError is the error after one layer, as a bar.
type layerError struct {
	Label string
	Error float64
	Width float64 // percent
	Wrong bool
}

// layerErrors shows how the residual stream's error grows through the layers.
func layerErrors(b *parity.Bisection) []layerError {
	var out []layerError
	for i, v := range b.Values {
		if v.Layer >= 0 && !strings.HasSuffix(v.Name, ".l_out") {
			continue
		}
		// Eight powers of ten fill the width.
		share := math.Min(math.Max((math.Log10(math.Max(v.Error, 1e-7))+7)/8, 0), 1)
		out = append(out, layerError{v.Name, v.Error, 100 * share, b.First >= 0 && i >= b.First})
	}
	return out
}
