// Command pv checks contracts: it runs their falsification tests, records
// evidence and derives statuses from it. Its commands are in internal/cli/pv.
package main

import (
	"os"

	"github.com/apr-engine/apr/internal/cli/pv"
)

func main() {
	os.Exit(pv.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
