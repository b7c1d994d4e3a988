package pv

import (
	"io"
	"path/filepath"

	"github.com/apr-engine/apr/contract"
)

// The parts of SARIF 2.1.0 (OASIS) that carry findings.
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool struct {
			Driver sarifDriver `json:"driver"`
		} `json:"tool"`
		ColumnKind string        `json:"columnKind"`
		Results    []sarifResult `json:"results"`
	}
	sarifDriver struct {
		Name  string      `json:"name"`
		Rules []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID               string      `json:"id"`
		ShortDescription sarifText   `json:"shortDescription"`
		Help             sarifText   `json:"help"`
		Configuration    sarifConfig `json:"defaultConfiguration"`
	}
	sarifConfig struct {
		Level string `json:"level"`
	}
	sarifText struct {
		Text string `json:"text"`
	}
	sarifResult struct {
		RuleID    string          `json:"ruleId"`
		Level     string          `json:"level"`
		Message   sarifText       `json:"message"`
		Locations []sarifLocation `json:"locations"`
	}
	sarifLocation struct {
		Physical struct {
			Artifact struct {
				URI string `json:"uri"`
			} `json:"artifactLocation"`
			Region *sarifRegion `json:"region,omitempty"`
		} `json:"physicalLocation"`
	}
	sarifRegion struct {
		StartLine   int `json:"startLine"`
		StartColumn int `json:"startColumn"`
	}
)

// sarifLevel is SARIF's word for a severity.
func sarifLevel(s contract.Severity) string {
	if s == contract.Info {
		return "note"
	}
	return s.String()
}

func writeSARIF(w io.Writer, findings []contract.Finding) error {
	var run sarifRun
	run.Tool.Driver.Name = "pv"
	// Our columns count characters, SARIF's default is UTF-16 units.
	run.ColumnKind = "unicodeCodePoints"
	run.Results = []sarifResult{}
	for _, r := range contract.Rules {
		run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, sarifRule{
			r.ID, sarifText{r.Title}, sarifText{r.Why}, sarifConfig{sarifLevel(r.Severity)},
		})
	}
	for _, f := range findings {
		var l sarifLocation
		l.Physical.Artifact.URI = filepath.ToSlash(f.Path)
		if f.Line > 0 {
			l.Physical.Region = &sarifRegion{f.Line, f.Column}
		}
		run.Results = append(run.Results, sarifResult{f.Rule, sarifLevel(f.Severity), sarifText{f.Message}, []sarifLocation{l}})
	}
	return writeJSON(w, sarifLog{
		Schema:  "https://json.schemastore.org/sarif-2.1.0.json",
		Version: "2.1.0",
		Runs:    []sarifRun{run},
	})
}
