package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/apr-engine/apr/parity"
	"github.com/apr-engine/apr/synth"
)

// contextLine is what the page needs of a line of apr parity --contexts --json.
type contextLine struct {
	Name      string        `json:"name"`
	Model     string        `json:"model"`
	Layers    int           `json:"layers"`
	Backend   string        `json:"backend"`
	Device    string        `json:"device"`
	Reference string        `json:"reference"`
	Context   int           `json:"context"`
	Judged    int           `json:"judged_context"`
	Batch     int           `json:"batch"`
	Positions int           `json:"positions"`
	MinCosine float64       `json:"min_cosine"`
	MaxError  float64       `json:"max_error"`
	Agreed    int           `json:"agreed"`
	MaxMargin float64       `json:"max_margin"`
	Status    parity.Status `json:"status"`
	Reason    string        `json:"reason"`
	Seconds   float64       `json:"reference_seconds"`
	Threads   int           `json:"threads"`
	Tokens    int           `json:"reference_tokens"`
	Date      time.Time     `json:"date"`
}

// contextsCommand makes a page of what apr parity --contexts --json has written.
func contextsCommand(args []string) error {
	flags := flag.NewFlagSet("contexts", flag.ContinueOnError)
	out := flags.String("o", "", "file to write")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *out == "" || flags.NArg() == 0 {
		return fmt.Errorf("contexts needs -o FILE and the files of apr parity --contexts --json")
	}
	var lines []contextLine
	for _, file := range flags.Args() {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		for scan := bufio.NewScanner(bytes.NewReader(data)); scan.Scan(); {
			var l contextLine
			if err := json.Unmarshal(scan.Bytes(), &l); err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			lines = append(lines, l)
		}
	}
	if len(lines) == 0 {
		return fmt.Errorf("nothing was compared in %s", strings.Join(flags.Args(), " "))
	}
	var b strings.Builder
	contextsPage(&b, lines)
	return os.WriteFile(*out, []byte(b.String()), 0o644)
}

// depth names the layers of a line: of a synthetic model also how many its pattern has.
func (l contextLine) depth() string {
	if _, preset, ok := strings.Cut(l.Name, "synthetic "); ok {
		if all := synth.Layers(preset); all > 0 && all != l.Layers {
			return fmt.Sprintf("%d of %d", l.Layers, all)
		}
	}
	return fmt.Sprint(l.Layers)
}

// contextsPage writes the table.
func contextsPage(w io.Writer, lines []contextLine) {
	var devices, references []string
	passed, positions, agreed, least := 0, 0, 0, 1.0
	for _, l := range lines {
		if d := l.Backend + ": " + l.Device; l.Device != "" && !slices.Contains(devices, d) {
			devices = append(devices, d)
		}
		if r := fmt.Sprintf("%s with %d threads", l.Reference, l.Threads); !slices.Contains(references, r) {
			references = append(references, r)
		}
		if l.Status == parity.Validated {
			passed++
		}
		positions, agreed = positions+l.Positions, agreed+l.Agreed
		if l.Positions > 0 {
			least = min(least, l.MinCosine)
		}
	}
	fmt.Fprintf(w, `<!-- Written by "gatescore contexts" from the JSON lines beside it; a test compares. -->

# Agreement at several lengths of context

Measured by scripts/gpu/prove-contexts on %s, on %s. Reference: %s.

At each length the backend computes a text of random tokens in the steps that serve, 24 single tokens after it, the last
positions again after truncation, and a batch of what follows; each position's logits are compared with the reference's, and
judged by the policy that serves (apr parity --policy). The reference computes a text once, for all backends and lengths.
Errors are in standard deviations of the reference's logits; a different best token passes only as a near tie. The
synthetic models have random weights, 8 outlier channels and the widths, heads and vocabulary of the model they are named
after; those with fewer layers than it say so, because the reference would take many minutes over all of them.

%d of %d comparisons are validated; %d positions, lowest cosine %.7f, the same best token at %d.

| model | layers | context | backend | positions | lowest cosine | largest error | same best token | largest margin | verdict |
|---|---:|---:|---|---:|---:|---:|---:|---:|---|
`, strings.Join(devices, ", "), lines[0].Date.Format("2006-01-02"), strings.Join(references, ", "), passed, len(lines), positions, least, agreed)
	for _, l := range lines {
		name := l.Name
		verdict := l.Status.String()
		if l.Reason != "" {
			verdict += ": " + strings.ReplaceAll(l.Reason, "|", "/")
		}
		if l.Positions == 0 {
			fmt.Fprintf(w, "| %s | %s | %d | %s | 0 | | | | | %s |\n", name, l.depth(), l.Context, l.Backend, verdict)
			continue
		}
		fmt.Fprintf(w, "| %s | %s | %d | %s | %d | %.7f | %.4f | %d | %.4f | %s |\n", name, l.depth(), l.Context, l.Backend, l.Positions,
			l.MinCosine, l.MaxError, l.Agreed, l.MaxMargin, verdict)
	}
	fmt.Fprintf(w, "\nWhat the reference took:\n\n| model | layers | tokens | seconds | tokens a second |\n|---|---:|---:|---:|---:|\n")
	for i, l := range lines {
		last := i+1 == len(lines) || lines[i+1].Model != l.Model || lines[i+1].Backend != l.Backend
		first := !slices.ContainsFunc(lines[:i], func(b contextLine) bool { return b.Model == l.Model && b.Backend != l.Backend })
		if last && first && l.Seconds > 0 { // the first backend's: later ones get what is known
			fmt.Fprintf(w, "| %s | %s | %d | %.1f | %.0f |\n", l.Name, l.depth(), l.Tokens, l.Seconds, float64(l.Tokens)/l.Seconds)
		}
	}
}
