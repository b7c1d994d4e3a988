package pv

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/apr-engine/apr/contract"
	"github.com/spf13/cobra"
)

// formats are those of commands that print findings.
var formats = []string{"text", "json", "sarif", "github"}

// findingFlags are the flags of commands that print findings.
type findingFlags struct {
	format string
	strict bool
	quiet  bool
}

func (f *findingFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&f.format, "format", "f", "text", "text, json, sarif or github")
	cmd.Flags().BoolVar(&f.strict, "strict", false, "warnings fail too")
	cmd.Flags().BoolVarP(&f.quiet, "quiet", "q", false, "leave out findings that are information only")
}

func (f *findingFlags) check(cmd *cobra.Command) error {
	if !slices.Contains(formats, f.format) {
		return usageError(cmd, "--format %s: want one of %s", f.format, strings.Join(formats, ", "))
	}
	return nil
}

// finish prints findings and turns them into the command's result.
func (f *findingFlags) finish(w io.Writer, findings []contract.Finding, files int, skipped []string) error {
	contract.SortFindings(findings)
	errors, warnings, infos := contract.CountFindings(findings)
	if f.quiet {
		findings = slices.DeleteFunc(findings, func(x contract.Finding) bool { return x.Severity == contract.Info })
	}
	var err error
	switch f.format {
	case "json":
		err = writeJSON(w, struct {
			Files    int                `json:"files"`
			Skipped  []string           `json:"skipped"`
			Errors   int                `json:"errors"`
			Warnings int                `json:"warnings"`
			Infos    int                `json:"infos"`
			Findings []contract.Finding `json:"findings"`
		}{files, nonNil(skipped), errors, warnings, infos, nonNil(findings)})
	case "sarif":
		err = writeSARIF(w, findings)
	case "github":
		err = writeGitHub(w, findings)
	default:
		err = writeText(w, findings, skipped)
		if err == nil {
			_, err = fmt.Fprintf(w, "%s, %s, %d info in %s\n", plural(errors, "error"), plural(warnings, "warning"), infos, plural(files, "file"))
		}
	}
	if err != nil {
		return err
	}
	if errors > 0 || f.strict && warnings > 0 {
		return errFound
	}
	return nil
}

// nonNil makes JSON lists of nothing [] rather than null.
func nonNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// writeText prints findings, one a line, as compilers do.
func writeText(w io.Writer, findings []contract.Finding, skipped []string) error {
	var b strings.Builder
	for _, f := range findings {
		fmt.Fprintln(&b, f)
	}
	for _, s := range skipped {
		fmt.Fprintf(&b, "%s: skipped: not a contract by its name\n", s)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// plural counts things in words.
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// writeGitHub prints workflow commands, which show as annotations of a change.
func writeGitHub(w io.Writer, findings []contract.Finding) error {
	level := map[contract.Severity]string{contract.Error: "error", contract.Warning: "warning", contract.Info: "notice"}
	property := strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C")
	message := strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A")
	for _, f := range findings {
		place := "file=" + property.Replace(f.Path)
		if f.Line > 0 {
			place += fmt.Sprintf(",line=%d,col=%d", f.Line, f.Column)
		}
		if _, err := fmt.Fprintf(w, "::%s %s,title=%s::%s\n", level[f.Severity], place, f.Rule, message.Replace(f.Message)); err != nil {
			return err
		}
	}
	return nil
}
