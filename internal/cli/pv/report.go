package pv

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/apr-engine/apr/contract/falsify"
	"github.com/apr-engine/apr/report/contracts"
	"github.com/spf13/cobra"
)

func newReport() *cobra.Command {
	var where ledgerFlags
	var out, title string
	cmd := &cobra.Command{
		Use:     "report FILE|DIR --html FILE",
		GroupID: groupRead,
		Short:   "Write contracts and evidence as one page of HTML",
		Long: `Write one self-contained page: contracts, falsifiers, the statuses that evidence
supports, the predictions of every run, links to the evidence, and the history.`,
		Example: "  pv report contracts/ --html contracts.html --bin bin",
		Args:    paths(1, 1, "FILE or DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if out == "" {
				return usageError(cmd, "no --html FILE to write to")
			}
			l, err := where.ledger()
			if err != nil {
				return err
			}
			page := contracts.Page{Title: title, Generated: time.Now()}
			if err := collect(&page, l, args[0], filepath.Dir(out)); err != nil {
				return err
			}
			var b bytes.Buffer
			if err := contracts.Write(&b, page); err != nil {
				return err
			}
			if err := os.WriteFile(out, b.Bytes(), 0o644); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", out, plural(len(page.Contracts), "contract"))
			return nil
		},
	}
	cmd.Flags().StringVar(&out, "html", "", "file to write")
	cmd.Flags().StringVar(&title, "title", "Contracts", "title of the page")
	where.add(cmd)
	where.addKeys(cmd)
	return cmd
}

// collect reads contracts into a page that will lie in a folder.
func collect(page *contracts.Page, l *falsify.Ledger, path, folder string) error {
	cs, err := loadReadable(path)
	if err != nil {
		return err
	}
	link := func(dir string) string {
		from, errA := filepath.Abs(folder)
		to, errB := filepath.Abs(dir)
		rel, err := filepath.Rel(from, to)
		if errA != nil || errB != nil || err != nil {
			rel = dir
		}
		return filepath.ToSlash(rel) + "/record.json"
	}
	for _, c := range cs {
		view, err := contracts.New(c, l, link)
		if err != nil {
			return err
		}
		page.Contracts = append(page.Contracts, view)
	}
	return nil
}
