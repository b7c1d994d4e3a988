// Command apr runs language models. Its commands are in internal/cli/apr.
package main

import (
	"os"

	_ "github.com/apr-engine/apr/backend/all"
	"github.com/apr-engine/apr/internal/cli/apr"
	_ "github.com/apr-engine/apr/model/all"
)

func main() {
	os.Exit(apr.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
