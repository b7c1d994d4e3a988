package contract

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// SetStatus sets a falsifier's status and the evidence that it rests on; an
// empty evidence leaves the key as it is if absent.
func (e *Editor) SetStatus(id string, s Status, evidence string) {
	f := e.c.Falsifier(id)
	if f == nil {
		e.fail(Pos{}, "there is no falsifier %s", id)
		return
	}
	e.setMember(f.node, "status", string(s), string(s), "id")
	if evidence != "" || f.Evidence.Set {
		e.setMember(f.node, "evidence", orWord(evidence, "none"), quote(orWord(evidence, "none")), "id")
	}
}

func orWord(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// SetVersion sets metadata.version.
func (e *Editor) SetVersion(version string) {
	n := member(member(e.c.root, "metadata"), "version")
	if n == nil {
		e.fail(e.c.Metadata.Pos, "metadata has no version")
		return
	}
	// Quoted, as 1.10 would be a number.
	e.setScalar(n, version, `"`+version+`"`)
}

// AppendChangelog adds a line to the end of metadata.changelog, and the key if
// there is none.
func (e *Editor) AppendChangelog(line string) {
	md := member(e.c.root, "metadata")
	log := member(md, "changelog")
	switch {
	case log == nil:
		text := "changelog:" + e.newline() + strings.Repeat(" ", memberIndent(md)+2) + "- " + quote(line)
		if md.Style&yaml.FlowStyle != 0 {
			text = "changelog: [" + quote(line) + "]"
		}
		for i := 0; i+1 < len(md.Content); i += 2 {
			if md.Content[i].Value == "version" {
				e.insertAfter(md, md.Content[i], md.Content[i+1], text)
				return
			}
		}
		e.fail(at(md), "metadata has no version to put the changelog behind")
	case log.Kind != yaml.SequenceNode:
		e.fail(at(log), "metadata.changelog is %s, want a list", describe(log))
	case log.Style&yaml.FlowStyle != 0:
		open, ok := e.c.offset(at(log))
		if !ok || open >= len(e.c.src) || e.c.src[open] != '[' {
			e.fail(at(log), "metadata.changelog has an anchor or tag")
			return
		}
		text := quote(line)
		if len(log.Content) > 0 {
			// To the front: the end of a flow list is not known.
			text += ", "
		}
		e.add(open+1, open+1, text)
	default:
		e.appendItem(log, quote(line))
	}
}

// memberIndent is the number of spaces before a mapping's keys.
func memberIndent(m *node) int {
	if len(m.Content) > 0 {
		return m.Content[0].Column - 1
	}
	return 0
}

// appendItem adds an item to the end of a block list: behind the last line that
// is indented deeper than the list's dashes, before comments and blank lines.
func (e *Editor) appendItem(list *node, text string) {
	last := list.Content[len(list.Content)-1]
	line := last.Line - 1
	start := e.c.lines[line]
	dash := bytes.IndexByte(e.c.src[start:], '-')
	if dash < 0 || len(bytes.TrimLeft(e.c.src[start:start+dash], " ")) > 0 {
		e.fail(at(last), "the list's last item does not start with a dash of its own line")
		return
	}
	end := e.lineEnd(line)
	for next := line + 1; next < len(e.c.lines); next++ {
		content := e.c.src[e.c.lines[next]:e.lineEnd(next)]
		indent := len(content) - len(bytes.TrimLeft(content, " "))
		trimmed := bytes.TrimSpace(content)
		if len(trimmed) == 0 || trimmed[0] == '#' && indent <= dash {
			continue
		}
		if indent <= dash {
			break
		}
		end = e.lineEnd(next)
	}
	e.add(end, end, e.newline()+strings.Repeat(" ", dash)+"- "+text)
}

// lineEnd is the end of a line (counted from 0) without its line end.
func (e *Editor) lineEnd(line int) int {
	end := len(e.c.src)
	if line+1 < len(e.c.lines) {
		end = e.c.lines[line+1] - 1
	}
	return beforeCR(e.c.src, end)
}

// SetSummary writes the true counts into verification_summary, and the section
// if there is none. Counts that it does not know stay.
func (e *Editor) SetSummary(t Tally) {
	obligations := strconv.Itoa(len(e.c.Obligations))
	counts := fmt.Sprintf("{total: %d, discharged: %d, functional: %d, partial: %d, blocked: %d, unbound: %d, falsified: %d}",
		t.Total, t.Discharged, t.Functional, t.Partial, t.Blocked, t.Unbound, t.Falsified)
	nl := e.newline()
	s := e.c.Summary
	if s == nil {
		if member(e.c.root, "verification_summary") != nil {
			e.fail(Pos{}, "verification_summary is empty: remove the key")
			return
		}
		lead := nl
		if n := len(e.c.src); n > 0 && e.c.src[n-1] != '\n' {
			lead = nl + nl
		}
		e.add(len(e.c.src), len(e.c.src), lead+"verification_summary:"+nl+
			"  total_obligations: "+obligations+nl+"  falsifiers: "+counts+nl)
		return
	}
	if member(s.node, "total_obligations") == nil {
		e.fail(s.Pos, "verification_summary has no total_obligations")
		return
	}
	e.setMember(s.node, "total_obligations", obligations, obligations, "")
	f := member(s.node, "falsifiers")
	if f == nil {
		for i := 0; i+1 < len(s.node.Content); i += 2 {
			if s.node.Content[i].Value == "total_obligations" {
				e.insertAfter(s.node, s.node.Content[i], s.node.Content[i+1], "falsifiers: "+counts)
			}
		}
		return
	}
	for _, c := range []struct {
		name string
		n    int
	}{{"total", t.Total}, {"discharged", t.Discharged}, {"functional", t.Functional}, {"partial", t.Partial},
		{"blocked", t.Blocked}, {"unbound", t.Unbound}, {"falsified", t.Falsified}} {
		e.setMember(f, c.name, strconv.Itoa(c.n), strconv.Itoa(c.n), "total")
	}
}
