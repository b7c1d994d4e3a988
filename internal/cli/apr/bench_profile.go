package apr

import (
	"cmp"
	"fmt"
	"io"
	"slices"

	"github.com/apr-engine/apr/bench"
)

// printProfile prints where the time of one test went, longest first.
func printProfile(w io.Writer, r bench.Row) error {
	fmt.Fprintf(w, "\n%s, %s, %.1f ms:\n\n", r.Test(), plural(r.Threads, "thread"), 1e3*r.Profile.Total.Seconds())
	io.WriteString(w, "| operation | calls | ms | share | GB | Gop | limit, ms | of limit |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n")
	list := slices.Clone(r.Profile.Operations)
	slices.SortStableFunc(list, func(a, b bench.Operation) int { return cmp.Compare(b.Time, a.Time) })
	for _, o := range list {
		work := " |  |  |  |"
		if o.Limit > 0 {
			work = fmt.Sprintf("%.3f | %.2f | %.2f (%s) | %.0f %% |", o.Bytes/1e9, o.Operations/1e9, 1e3*o.Limit.Seconds(), o.Bound, 100*o.OfLimit())
		}
		if _, err := fmt.Fprintf(w, "| %s | %d | %.2f | %.1f %% | %s\n", o.Name, o.Calls, 1e3*o.Time.Seconds(), 100*o.Share, work); err != nil {
			return err
		}
	}
	return nil
}

// profileJSON is one operation of a profile.
type profileJSON struct {
	Name       string  `json:"name"`
	Calls      int     `json:"calls"`
	NS         int64   `json:"ns"`
	Share      float64 `json:"share"`
	Bytes      float64 `json:"bytes,omitempty"`
	Operations float64 `json:"operations,omitempty"`
	LimitNS    int64   `json:"limit_ns,omitempty"`
	Bound      string  `json:"limited_by,omitempty"`
	OfLimit    float64 `json:"share_of_limit,omitempty"`
}

func profileRows(r bench.Row) (rows []profileJSON) {
	for _, o := range r.Profile.Operations {
		rows = append(rows, profileJSON{
			Name: o.Name, Calls: o.Calls, NS: o.Time.Nanoseconds(), Share: o.Share, Bytes: o.Bytes, Operations: o.Operations,
			LimitNS: o.Limit.Nanoseconds(), Bound: o.Bound, OfLimit: o.OfLimit(),
		})
	}
	return rows
}
