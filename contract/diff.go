package contract

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Change is one difference between two versions of a contract.
type Change struct {
	Bump Bump   `json:"bump"`
	What string `json:"what"` // added, removed, tightened, loosened, changed, raised, lowered, reworded
	Path string `json:"path"`
	Old  string `json:"old,omitempty"`
	New  string `json:"new,omitempty"`
}

// String is the change on one line, the bump first.
func (c Change) String() string {
	s := fmt.Sprintf("%-5s  %-9s %s", c.Bump, c.What, c.Path)
	if c.Old != "" || c.New != "" {
		s += fmt.Sprintf(": %s → %s", orDash(c.Old), orDash(c.New))
	}
	return s
}

func orDash(s string) string {
	if s == "" {
		return "—"
	}
	return s
}

// Comparison is what changed from one version of a contract to the next.
type Comparison struct {
	Changes  []Change `json:"changes"`
	Required Bump     `json:"required"` // the largest bump that a change needs
	Actual   Bump     `json:"actual"`   // the bump of metadata.version
	Problem  string   `json:"problem,omitempty"`
}

// Enough says whether the version rose by what the changes need.
func (c Comparison) Enough() bool { return c.Problem == "" && c.Actual >= c.Required }

// Diff compares two versions of a contract by meaning. Removing something, or
// changing what it demands in either direction, breaks those who rely on it:
// that needs a major version. Adding or raising a status needs a minor, words a
// patch. Comments and formatting are no change.
func Diff(old, new *Contract) Comparison {
	d := differ{}
	d.section("equations", equationParts(old), equationParts(new))
	d.section("proof_obligations", obligationParts(old), obligationParts(new))
	d.section("falsification_tests", falsifierParts(old), falsifierParts(new))
	d.section("kani_harnesses", harnessParts(old), harnessParts(new))
	d.section("qa_gate", gateParts(old), gateParts(new))
	d.rest(old, new)
	cmpn := Comparison{Changes: nonNilChanges(d.changes)}
	for _, c := range d.changes {
		cmpn.Required = max(cmpn.Required, c.Bump)
	}
	var err error
	if cmpn.Actual, err = bumpBetween(old.Metadata.Version.Value, new.Metadata.Version.Value); err != nil {
		cmpn.Problem = err.Error()
	}
	return cmpn
}

// nonNilChanges puts what weighs most first; JSON wants a list even if empty.
func nonNilChanges(cs []Change) []Change {
	if cs == nil {
		return []Change{}
	}
	slices.SortStableFunc(cs, func(a, b Change) int { return cmp.Compare(b.Bump, a.Bump) })
	return cs
}

// item is a named member of a section with its parts.
type item struct {
	name  string
	parts []part
}

// part is one aspect of an item. Demands decide what is required; words do not;
// a threshold is a demand with a direction.
type part struct {
	name, value string
	kind        partKind
}

// partKind decides which bump a change of a part requires.
type partKind int

const (
	demand partKind = iota
	words
	threshold
	status
)

// differ collects the changes between two versions.
type differ struct{ changes []Change }

func (d *differ) add(b Bump, what, path, old, new string) {
	d.changes = append(d.changes, Change{b, what, path, clip(old), clip(new)})
}

// clip keeps a change on one line.
func clip(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > 120 {
		return string(r[:120]) + "…"
	}
	return s
}

// section compares two lists of named members. A renamed member is one removed and
// one added: whoever refers to it by name has lost it.
func (d *differ) section(section string, old, new []item) {
	find := func(items []item, name string) *item {
		if i := slices.IndexFunc(items, func(it item) bool { return it.name == name }); i >= 0 {
			return &items[i]
		}
		return nil
	}
	for _, o := range old {
		path := section + "." + o.name
		n := find(new, o.name)
		if n == nil {
			d.add(Major, "removed", path, "", "")
			continue
		}
		d.item(path, o, *n)
	}
	for _, n := range new {
		if find(old, n.name) == nil {
			d.add(Minor, "added", section+"."+n.name, "", "")
		}
	}
}

// item compares the parts of a member that both versions have.
func (d *differ) item(path string, old, new item) {
	value := func(it item, name string) (part, bool) {
		i := slices.IndexFunc(it.parts, func(p part) bool { return p.name == name })
		if i < 0 {
			return part{}, false
		}
		return it.parts[i], true
	}
	for _, o := range old.parts {
		p := path + "." + o.name
		n, ok := value(new, o.name)
		switch {
		case !ok:
			d.add(removal(o.kind), "removed", p, o.value, "")
		case o.value != n.value:
			d.changed(p, o, n)
		}
	}
	for _, n := range new.parts {
		if _, ok := value(old, n.name); ok {
			continue
		}
		b, what := Minor, "added"
		switch n.kind {
		case words:
			b = Patch
		case threshold, demand:
			// A new expectation of an existing test demands more of the program.
			b, what = Major, "tightened"
		case status:
			what = "raised"
		}
		d.add(b, what, path+"."+n.name, "", n.value)
	}
}

// removal is the bump for a part that is gone. A status that is no longer stated
// claims less, which breaks nobody.
func removal(k partKind) Bump {
	switch k {
	case words, status:
		return Patch
	}
	return Major
}

// changed judges a part that has another value.
func (d *differ) changed(path string, old, new part) {
	switch old.kind {
	case words:
		d.add(Patch, "reworded", path, old.value, new.value)
	case status:
		a, _ := Status(old.value).Rank()
		b, _ := Status(new.value).Rank()
		if b > a {
			d.add(Minor, "raised", path, old.value, new.value)
		} else {
			d.add(Patch, "lowered", path, old.value, new.value)
		}
	case threshold:
		d.add(Major, direction(old.value, new.value), path, old.value, new.value)
	default:
		d.add(Major, "changed", path, old.value, new.value)
	}
}

// direction says whether a comparison or a tolerance became stricter.
func direction(old, new string) string {
	a, errA := parseComparison(old)
	b, errB := parseComparison(new)
	if errA == nil && errB == nil && a.op == b.op && a.bound.dimension == b.bound.dimension {
		switch higher := b.bound.value > a.bound.value; a.op {
		case ">=", ">":
			return stricter(higher)
		case "<=", "<":
			return stricter(!higher)
		}
		return "changed"
	}
	x, okX := parseNumber(old)
	y, okY := parseNumber(new)
	if okX && okY { // a tolerance: less is stricter
		return stricter(y < x)
	}
	return "changed"
}

func stricter(yes bool) string {
	if yes {
		return "tightened"
	}
	return "loosened"
}

func joinTexts(ts []Text) string {
	var out []string
	for _, t := range ts {
		out = append(out, t.Value)
	}
	return strings.Join(out, "\n")
}

// present drops parts without a value, so that adding one is seen as such.
func present(parts ...part) []part {
	return slices.DeleteFunc(parts, func(p part) bool { return p.value == "" })
}

// The functions below list what a section demands, part by part. Everything that
// could make a passing program fail, or a failing one pass, is a demand.
func equationParts(c *Contract) (items []item) {
	for _, eq := range c.Equations {
		items = append(items, item{eq.Name, present(
			part{"formula", eq.Formula.Value, demand}, part{"domain", eq.Domain.Value, demand},
			part{"codomain", eq.Codomain.Value, demand}, part{"invariants", joinTexts(eq.Invariants), demand})})
	}
	return items
}

// Obligations without an id, as most are elsewhere, go by type and property.
func obligationParts(c *Contract) (items []item) {
	for _, ob := range c.Obligations {
		name := ob.ID.Value
		if name == "" {
			name = ob.Type.Value + ":" + ob.Property.Value
		}
		tolerance := ""
		if ob.Tolerance != nil {
			tolerance = ob.Tolerance.Text.Value
		}
		items = append(items, item{name, present(
			part{"type", ob.Type.Value, demand}, part{"property", ob.Property.Value, demand}, part{"formal", ob.Formal.Value, demand},
			part{"tolerance", tolerance, threshold}, part{"applies_to", ob.AppliesTo.Value, demand})})
	}
	return items
}

func falsifierParts(c *Contract) (items []item) {
	for i := range c.Falsifiers {
		f := &c.Falsifiers[i]
		parts := []part{{"rule", f.Rule.Value, words}, {"prediction", f.Prediction.Value, words}, {"if_fails", f.IfFails.Value, words},
			{"test", f.Prose.Value, demand}}
		if f.Status.Set {
			parts = append(parts, part{"status", f.Status.Value, status})
		}
		if f.Test != nil {
			parts = append(parts, testParts(f)...)
		}
		items = append(items, item{f.ID.Value, present(parts...)})
	}
	return items
}

// testParts lists a test's expectations one by one and the rest as a whole, so
// that a threshold that moves is named with its direction.
func testParts(f *Falsifier) []part {
	parts := []part{{"test.level", f.Test.Level.Value, demand}}
	for i, s := range f.Test.Steps {
		step := fmt.Sprintf("test.steps[%d]", i)
		command := joinTexts(s.Run) + s.Shell.Value + s.Stdin.Value
		for _, v := range s.Env {
			command += " " + v.Name + "=" + v.Value.Value
		}
		parts = append(parts, part{step + ".command", command, demand}, part{step + ".timeout", s.Timeout.String(), words})
		for _, c := range s.Expect {
			look := Check{On: c.On, Path: c.Path, Number: c.Number, Unit: c.Unit, Op: c.Op}
			// Quoted, as an expectation of nothing is one too.
			kind, value := demand, strconv.Quote(joinTexts(c.Values))
			if c.Op == "is" || c.Op == "count" {
				kind, value = threshold, joinTexts(c.Values)
			}
			name := fmt.Sprintf("%s.expect(%s)", step, strings.TrimSpace(look.String()))
			// Two expectations of one kind at one place are told apart by number.
			for n := 2; slices.ContainsFunc(parts, func(p part) bool { return p.name == name }); n++ {
				name = fmt.Sprintf("%s.expect(%s #%d)", step, strings.TrimSpace(look.String()), n)
			}
			parts = append(parts, part{name, value, kind})
		}
	}
	var rest bytes.Buffer
	for _, key := range []string{"requires", "handled"} {
		rest.Reset()
		if n := member(member(f.node, "test"), key); n != nil {
			canonical(&rest, n)
		}
		parts = append(parts, part{"test." + key, rest.String(), demand})
	}
	return parts
}

func harnessParts(c *Contract) (items []item) {
	for _, h := range c.Harnesses {
		bound := ""
		if h.Bound != nil {
			bound = h.Bound.Text.Value
		}
		items = append(items, item{h.ID.Value, present(
			part{"obligation", h.Obligation.Value, demand}, part{"bound", bound, demand}, part{"strategy", h.Strategy.Value, demand})})
	}
	return items
}

func gateParts(c *Contract) (items []item) {
	if c.Gate == nil {
		return nil
	}
	for _, check := range c.Gate.Checks {
		items = append(items, item{check.Value, nil})
	}
	return items
}

// rest compares what the sections above do not cover, by its canonical text.
// metadata.version is the answer and not a change; what pv discharge writes
// follows from the statuses.
func (d *differ) rest(old, new *Contract) {
	covered := []string{"metadata", "equations", "proof_obligations", "falsification_tests", "kani_harnesses", "verification_summary"}
	compare := func(path string, a, b *node) {
		var x, y bytes.Buffer
		canonical(&x, a)
		canonical(&y, b)
		if x.String() != y.String() {
			d.add(Patch, "reworded", path, "", "")
		}
	}
	for _, key := range keysOf(old.root, new.root) {
		if !slices.Contains(covered, key) {
			compare(key, member(old.root, key), member(new.root, key))
		}
	}
	a, b := member(old.root, "metadata"), member(new.root, "metadata")
	for _, key := range keysOf(a, b) {
		if key == "depends_on" {
			d.depends(old, new)
		} else if key != "version" && key != "changelog" {
			compare("metadata."+key, member(a, key), member(b, key))
		}
	}
}

// depends compares what the contract builds on: an addition asks for more.
func (d *differ) depends(old, new *Contract) {
	has := func(ts []Text, v string) bool {
		return slices.ContainsFunc(ts, func(t Text) bool { return t.Value == v })
	}
	for _, t := range old.Metadata.DependsOn {
		if !has(new.Metadata.DependsOn, t.Value) {
			d.add(Major, "removed", "metadata.depends_on."+t.Value, "", "")
		}
	}
	for _, t := range new.Metadata.DependsOn {
		if !has(old.Metadata.DependsOn, t.Value) {
			d.add(Minor, "added", "metadata.depends_on."+t.Value, "", "")
		}
	}
}

// keysOf are the keys of either mapping, in order.
func keysOf(maps ...*node) []string {
	var keys []string
	for _, m := range maps {
		if m == nil || m.Kind != yaml.MappingNode {
			continue
		}
		for i := 0; i+1 < len(m.Content); i += 2 {
			if k := m.Content[i].Value; !slices.Contains(keys, k) {
				keys = append(keys, k)
			}
		}
	}
	return keys
}
