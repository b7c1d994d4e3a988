package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/apr-engine/apr/engine"
)

// writeGPUPage makes one page of the scores in the files.
func writeGPUPage(out string, files []string) error {
	var scores []gpuScore
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		var s gpuScore
		if err := json.Unmarshal(data, &s); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if len(s.Models) == 0 {
			return fmt.Errorf("%s: no model was judged", file)
		}
		scores = append(scores, s)
	}
	if len(scores) == 0 {
		return fmt.Errorf("page needs the files of one backend at least")
	}
	var b strings.Builder
	gpuPage(&b, scores)
	return os.WriteFile(out, []byte(b.String()), 0o644)
}

// gpuPage writes the tables of several backends.
func gpuPage(w io.Writer, scores []gpuScore) {
	fmt.Fprintf(w, `<!-- Written by "gatescore page" from the JSON files beside it; a test compares. -->

# What the gate catches on a GPU

Measured by scripts/gpu/score: on every model the faults of the catalogue are injected into the backend one by one and judged
by the policy that serves, on a short question and on a prompt of three batches (of those that begin late, also in an
answer that goes past position 500), and then sound executors are probed on prompts of many lengths: pieces of text and
random tokens by seed, with the cache in half and single precision and steps of several sizes. The reference is %s. One
process judges everything, so that driver, kernels, weights and the reference's logits are kept.

- ✓ rejected by the first comparison, before any token that it spoils
- s stopped in mid-generation before the first wrong token was shown
- ✗ served
- · cannot exist in this model, and says so
- ? could not be judged, for the reason that is given
`, engine.ReferenceBackend)
	for _, s := range scores {
		s.section(w)
	}
}

// counts adds up the marks of all models.
func (s gpuScore) counts() map[string]int {
	n := map[string]int{}
	for _, m := range s.Models {
		for _, mark := range m.Marks {
			n[string(mark)]++
		}
	}
	return n
}

// missing says what was not measured; empty if nothing is missing.
func (s gpuScore) missing() []string {
	var list []string
	for _, m := range s.Models {
		if n := len(s.Faults) - len(strings.Fields(strings.Join(strings.Split(m.Marks, ""), " "))); n > 0 {
			list = append(list, fmt.Sprintf("%s: %d faults were not injected, time was up", m.Name, n))
		}
		if n := m.SoundWanted - m.runs(); n > 0 {
			list = append(list, fmt.Sprintf("%s: %d sound runs fewer than wanted, time was up", m.Name, n))
		}
		if m.Failed != "" {
			list = append(list, fmt.Sprintf("%s: %s", m.Name, m.Failed))
		}
	}
	return list
}

func (s gpuScore) section(w io.Writer) {
	n := s.counts()
	var all soundSet
	all.MinCosine = 1
	broken := 0
	for _, m := range s.Models {
		for _, set := range m.Sound {
			all.merge(set)
		}
		broken += len(m.Broken)
	}
	catalogue := fmt.Sprintf("the whole catalogue of %d faults", s.Catalogue)
	if len(s.Faults) != s.Catalogue {
		catalogue = fmt.Sprintf("%d of the catalogue's %d faults", len(s.Faults), s.Catalogue)
	}
	fmt.Fprintf(w, "\n## %s\n\n%s (%s), %d processors, %s, commit %s, %.0f seconds: %s on %d models.\n\n", s.Backend, s.Device, s.Driver,
		s.Processors, s.Date.Format("2006-01-02"), s.Commit, s.Seconds, catalogue, len(s.Models))
	fmt.Fprintf(w, "- %d pairs of fault and model: %d rejected by the first comparison, %d stopped before the first wrong token, **%d served**\n",
		n[rejected.mark()]+n[stopped.mark()]+n[served.mark()], n[rejected.mark()], n[stopped.mark()], n[served.mark()])
	fmt.Fprintf(w, "- %d sound runs: **%d rejected**; %d positions compared, lowest cosine %.7f, largest error %.4f standard deviations, another best token (a near tie) at %d positions\n",
		all.Runs, all.Rejected, all.Positions, all.MinCosine, all.MaxError, all.Flips)
	for _, text := range s.missing() {
		fmt.Fprintf(w, "- not measured: %s\n", text)
	}
	fmt.Fprintf(w, "\n| | model | sound runs | rejected | positions | lowest cosine | largest error | other best |\n|---:|---|---:|---:|---:|---:|---:|---:|\n")
	for i, m := range s.Models {
		one := soundSet{MinCosine: 1}
		for _, set := range m.Sound {
			one.merge(set)
		}
		fmt.Fprintf(w, "| %d | %s | %d | %d | %d | %.7f | %.4f | %d |\n", i+1, m.Name, one.Runs, one.Rejected, one.Positions, one.MinCosine, one.MaxError, one.Flips)
	}
	s.ways(w)
	for _, m := range s.Models {
		for _, why := range m.Broken {
			fmt.Fprintf(w, "- rejected: %s\n", why)
		}
	}
	if len(s.Faults) == 0 {
		return
	}
	fmt.Fprintf(w, "\nFaults, models in the order of the table above:\n\n| fault | |\n|---|---|\n")
	for i, name := range s.Faults {
		line := ""
		for _, m := range s.Models {
			mark := " "
			if marks := []rune(m.Marks); i < len(marks) {
				mark = string(marks[i])
			}
			line += mark
		}
		fmt.Fprintf(w, "| %s | `%s` |\n", name, line)
	}
}

// ways lists the sound runs by how the model was run.
func (s gpuScore) ways(w io.Writer) {
	fmt.Fprintf(w, "\n| cache | tokens in a step | runs | rejected | prompts, tokens | lowest cosine | largest error |\n|---|---:|---:|---:|---:|---:|---:|\n")
	for i, way := range s.Models[0].Sound {
		one := soundSet{MinCosine: 1}
		for _, m := range s.Models {
			if i < len(m.Sound) {
				one.merge(m.Sound[i])
			}
		}
		fmt.Fprintf(w, "| %s | %d | %d | %d | %d to %d | %.7f | %.4f |\n", way.KV, way.Batch, one.Runs, one.Rejected, one.MinTokens, one.MaxTokens, one.MinCosine, one.MaxError)
	}
	fmt.Fprintln(w)
}

func (set *soundSet) merge(o soundSet) {
	if o.Runs == 0 {
		return
	}
	if set.Runs == 0 {
		set.MinTokens = o.MinTokens
	}
	set.MinTokens, set.MaxTokens = min(set.MinTokens, o.MinTokens), max(set.MaxTokens, o.MaxTokens)
	set.Runs, set.Rejected = set.Runs+o.Runs, set.Rejected+o.Rejected
	set.Positions, set.Flips = set.Positions+o.Positions, set.Flips+o.Flips
	set.MinCosine, set.MaxP99, set.MaxError = min(set.MinCosine, o.MinCosine), max(set.MaxP99, o.MaxP99), max(set.MaxError, o.MaxError)
}
