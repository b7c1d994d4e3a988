package contract

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// required reports what the first version's reader refuses to read: its keys
// without defaults, at the places where they belong.
func (j *judge) required() {
	root := j.c.root
	j.need(root, "", "metadata", "equations")
	j.need(member(root, "metadata"), "metadata", "version", "description")
	if eqs := member(root, "equations"); eqs != nil && eqs.Kind == yaml.SequenceNode {
		j.find("READ-003", at(eqs), "equations is a list, want a mapping")
	} else if eqs != nil {
		for i := 0; i+1 < len(eqs.Content); i += 2 {
			j.need(eqs.Content[i+1], "equations."+eqs.Content[i].Value, "formula")
		}
	}
	j.needEach("proof_obligations", "type", "property")
	j.needEach("falsification_tests", "id", "rule", "prediction", "if_fails")
	j.needEach("kani_harnesses", "id", "obligation")
	j.need(member(root, "qa_gate"), "qa_gate", "id", "name")
	j.need(member(root, "verification_summary"), "verification_summary", "total_obligations")
	j.need(member(root, "kernel_structure"), "kernel_structure", "phases")
	if e := member(root, "enforcement"); e != nil {
		for i := 0; i+1 < len(e.Content); i += 2 {
			j.need(e.Content[i+1], "enforcement."+e.Content[i].Value, "description")
		}
	}
}

// need reports keys that a mapping lacks. An absent or empty section is not
// judged: whether it may be absent is decided one level up.
func (j *judge) need(m *node, path string, keys ...string) {
	if isNull(m) {
		return
	}
	for _, key := range keys {
		if member(m, key) == nil {
			j.find("READ-006", at(m), "%s is absent", join(path, key))
		}
	}
}

// needEach is need for every item of a list.
func (j *judge) needEach(section string, keys ...string) {
	list := member(j.c.root, section)
	if list == nil {
		return
	}
	for i, item := range list.Content {
		j.need(item, fmt.Sprintf("%s[%d]", section, i), keys...)
	}
}

// firstWords reports obligation types that the first version does not know.
func (j *judge) firstWords() {
	for i, ob := range j.c.Obligations {
		if slices.Contains(obligationTypes[firstTypes:], ob.Type.Value) {
			j.find("READ-004", ob.Type.Pos, "proof_obligations[%d].type %q is not one of the first version's: %s",
				i, ob.Type.Value, strings.Join(obligationTypes[:firstTypes], ", "))
		}
	}
}
