package contract

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// Audit traces a contract: what tests and harnesses refer to, and, with a
// registry, which code each equation is bound to. It reads no evidence.
func Audit(c *Contract, registry *Bindings) []Finding {
	j := &judge{c: c}
	if len(c.Falsifiers) == 0 {
		j.find("AUDIT-001", Pos{}, "there are no falsification tests")
	}
	if len(c.Equations) > 0 && len(c.Obligations) == 0 {
		j.find("AUDIT-003", Pos{}, "%d equations but no obligations", len(c.Equations))
	}
	names := c.names()
	for _, h := range c.Harnesses {
		switch {
		case h.Obligation.Value == "":
			j.find("AUDIT-002", h.Pos, "harness %s has an empty obligation", h.ID)
		case !slices.Contains(names, h.Obligation.Value):
			j.find("AUDIT-004", h.Obligation.Pos, "harness %s names obligation %q: no obligation or equation has this id", h.ID, h.Obligation)
		}
	}
	for _, f := range c.Falsifiers {
		if f.Test == nil {
			j.find("TEST-001", f.Pos, "%s has no test that can be carried out", f.ID)
		}
		if f.Rule.Value != "" && !slices.Contains(names, f.Rule.Value) {
			j.find("AUDIT-005", f.Rule.Pos, "%s: rule %q is no equation, obligation or gate check", f.ID, f.Rule)
		}
	}
	if registry != nil {
		j.bindings(registry)
	}
	SortFindings(j.findings)
	return j.findings
}

// names are what tests and harnesses can refer to.
func (c *Contract) names() []string {
	var names []string
	for _, eq := range c.Equations {
		names = append(names, eq.Name)
	}
	for _, ob := range c.Obligations {
		if ob.ID.Set {
			names = append(names, ob.ID.Value)
		}
	}
	if c.Gate != nil {
		names = append(names, c.Gate.ID.Value)
		for _, check := range c.Gate.Checks {
			names = append(names, check.Value)
		}
	}
	return names
}

// Bindings is a registry of which function computes which equation.
type Bindings struct {
	Entries []Binding
}

// Binding says which function computes an equation.
type Binding struct {
	Contract, Equation, Function, Status string
}

// LoadBindings reads a binding registry.
func LoadBindings(path string) (*Bindings, error) {
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	root, err := parseYAML(path, src)
	if err != nil {
		return nil, err
	}
	list := member(root, "bindings")
	if list == nil {
		return nil, &ReadError{path, at(root), ErrOther, "the key bindings is missing"}
	}
	b := &Bindings{}
	for i, item := range list.Content {
		text := func(key string) string {
			if n := member(item, key); !isNull(n) {
				return n.Value
			}
			return ""
		}
		e := Binding{text("contract"), text("equation"), text("function"), text("status")}
		if e.Contract == "" || e.Equation == "" {
			return nil, &ReadError{path, at(item), ErrOther, fmt.Sprintf("bindings[%d] names no contract or no equation", i)}
		}
		b.Entries = append(b.Entries, e)
	}
	return b, nil
}

// bindings judges each equation of the contract by the registry.
func (j *judge) bindings(b *Bindings) {
	file := filepath.Base(j.c.Path)
	for _, eq := range j.c.Equations {
		i := slices.IndexFunc(b.Entries, func(e Binding) bool {
			return (e.Contract == file || e.Contract == j.c.Stem) && e.Equation == eq.Name
		})
		if i < 0 {
			j.find("BIND-001", eq.Pos, "equation %s has no binding", eq.Name)
			continue
		}
		switch e := b.Entries[i]; e.Status {
		case "implemented":
		case "partial":
			j.find("BIND-002", eq.Pos, "equation %s is partly implemented by %s", eq.Name, e.Function)
		default:
			j.find("BIND-003", eq.Pos, "equation %s is not implemented", eq.Name)
		}
	}
}
