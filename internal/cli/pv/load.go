package pv

import (
	"fmt"
	"os"

	"github.com/apr-engine/apr/contract"
)

// corpus is what a command line's path gave.
type corpus struct {
	contracts []*contract.Contract
	findings  []contract.Finding // of files that could not be read
	files     int
	skipped   []string
}

// load reads the contracts of a file or folder. A file that cannot be read is
// a finding, not an error: the others are still judged.
func load(path string) (*corpus, error) {
	files, skipped, err := contract.Files(path)
	if err != nil {
		return nil, plainPathError(path, err)
	}
	c := &corpus{files: len(files), skipped: skipped}
	for _, l := range contract.LoadAll(files) {
		if l.Err != nil {
			c.findings = append(c.findings, contract.ReadFinding(l.Path, l.Err))
			continue
		}
		c.contracts = append(c.contracts, l.Contract)
	}
	return c, nil
}

// loadReadable is load for commands that need readable contracts: the first
// that is not ends the command.
func loadReadable(path string) ([]*contract.Contract, error) {
	c, err := load(path)
	if err != nil {
		return nil, err
	}
	if len(c.findings) > 0 {
		f := c.findings[0]
		return nil, fmt.Errorf("%s: %s", f.Place(), f.Message)
	}
	return c.contracts, nil
}

// plainPathError names the path without the system call.
func plainPathError(path string, err error) error {
	if os.IsNotExist(err) {
		return fmt.Errorf("%s: no such file or folder: nothing was measured", path)
	}
	return err
}
